//! Reads that are verified, hedged and mend: the first copy that is right wins, a late one is not waited for.
//!
//! Invariants:
//! - Copies on drives that are out or stale are asked only when no drive in use has the bytes: after a second loss they may
//!   be the last ones. Nothing is known of what such a drive missed (I-7), so nothing of it counts but the bytes that the
//!   check accepts: the checksum above them is that of the newest content.
//! - Bytes count only when the caller's check accepts them, whichever copy they come from (I-4).
//! - A copy that was wrong or unreadable is written again from bytes that the check has accepted.

use super::Pool;
use super::report::count;
use crate::error::{Error, Kind, Result};
use holdfast_device::Source;
use holdfast_device::drive::{Trouble, trouble};
use holdfast_format::limits::COPIES_MAX;
use holdfast_format::table::SlotAddress;
use std::sync::atomic::Ordering;

/// How long the last copy of something is waited for.
const UNUSED_PATIENCE_NS: u64 = 5_000_000_000;
/// Pages in doubt at most.
const DOUBTS_MAX: usize = 256;

/// What came of asking the copies of something.
#[derive(Default)]
pub(super) struct Raced {
    pub winner: Option<SlotAddress>,
    /// Copies whose drives answered with an error of the medium: writing the place again mends it.
    pub unreadable: Vec<SlotAddress>,
    pub error: Option<Error>,
}

impl Pool {
    /// Copies in the order in which to try them: reads spread over the drives, and go last to those that are late, slow
    /// or failing.
    pub(super) fn turn(&self, copies: &[SlotAddress]) -> Vec<SlotAddress> {
        let mut order = copies.to_vec();
        if order.len() > 1 {
            let turn = self.read_turn.fetch_add(1, Ordering::Relaxed) as usize % order.len();
            order.rotate_left(turn);
            // No clock is read while nothing is late.
            let late = self.late_seen.load(Ordering::Relaxed);
            let now_ns = if late { self.clock.boottime_ns() } else { u64::MAX };
            order.sort_by_key(|copy| {
                self.disks.get(copy.drive as usize).map_or(u8::MAX, |disk| self.reluctance(disk, now_ns))
            });
        }
        order
    }

    /// Asks the copies in this order until `right` takes an answer, which is then in `into`. A copy that is late is not
    /// waited for: the next one is asked, too, and the first answer that is right wins.
    pub(super) fn race(
        &self,
        order: &[SlotAddress],
        offset: u32,
        into: &mut [u8],
        right: &mut dyn FnMut(SlotAddress, &[u8]) -> bool,
    ) -> Result<Raced> {
        if offset as usize + into.len() > self.slot_bytes as usize {
            let what = format!("{} bytes at {offset} leave the slot", into.len());
            return Err(Error::new(Kind::Internal, what));
        }
        let mut raced = Raced::default();
        let mut unused = Vec::new();
        let (mut sources, mut places) = (Vec::with_capacity(COPIES_MAX), Vec::with_capacity(COPIES_MAX));
        for copy in order {
            let disk = self.disk_of(*copy)?;
            match disk.place(copy.slot, offset) {
                Some((drive, file, offset)) => {
                    sources.push(Source { drive, file, offset });
                    places.push((*copy, disk));
                }
                None => {
                    let what = format!("{}: slot {}: the drive is not in use", disk.name(), copy.slot);
                    raced.error = Some(Error::new(Kind::Unavailable, what));
                    unused.push(*copy);
                }
            }
        }
        let mut gone = Vec::new();
        let first = holdfast_device::drive::read_first(&sources, into, self.patience_ns(), &mut |answer| {
            let (copy, disk) = places[answer.source];
            let error = match answer.bytes {
                Ok(bytes) => {
                    count(&self.counters.bytes_read, bytes.len() as u64);
                    if let Some(ns) = answer.took_ns {
                        self.note_read(disk, ns);
                    }
                    return right(copy, bytes);
                }
                Err(error) => error,
            };
            count(&self.counters.read_errors, 1);
            disk.pulse.failed();
            match trouble(error) {
                Trouble::Gone => gone.push((copy.drive, format!("reading: {error}"))),
                Trouble::Medium => raced.unreadable.push(copy),
                Trouble::Other => {}
            }
            let what = format!("{}: slot {}: {error}", disk.name(), copy.slot);
            raced.error = Some(Error::new(Kind::Unavailable, what));
            false
        });
        raced.winner = first.winner.map(|winner| places[winner].0);
        if first.late != 0 {
            count(&self.counters.reads_hedged, 1);
            let late = (0..places.len()).filter(|source| first.late >> source & 1 == 1);
            late.for_each(|source| self.note_late(places[source].1));
            let won = first.winner.is_some_and(|winner| first.late >> winner & 1 == 0);
            count(&self.counters.hedges_won, won as u64);
        }
        for (drive, reason) in gone {
            self.suspect(drive, reason);
        }
        if raced.winner.is_none() {
            raced.winner = unused.into_iter().find(|copy| self.ask_unused(*copy, offset, into, right));
        }
        Ok(raced)
    }

    /// Asks a copy on a drive that is out or stale, if it is there; true when its answer is right, and in `into`.
    fn ask_unused(
        &self,
        copy: SlotAddress,
        offset: u32,
        into: &mut [u8],
        right: &mut dyn FnMut(SlotAddress, &[u8]) -> bool,
    ) -> bool {
        let Some(bytes) = self.read_unused(copy, offset, into.len()) else { return false };
        let accepted = right(copy, &bytes);
        if accepted {
            into.copy_from_slice(&bytes);
            count(&self.counters.reads_last_resort, 1);
        }
        accepted
    }

    /// Bytes of a slot on a drive that is out or stale; `None` when it is away, cannot be read, or takes too long.
    pub(super) fn read_unused(&self, copy: SlotAddress, offset: u32, bytes: usize) -> Option<Vec<u8>> {
        let (drive, file, offset) = self.disks.get(copy.drive as usize)?.last_place(copy.slot, offset)?;
        let source = Source { drive, file, offset };
        holdfast_device::drive::read_each(&[source], bytes, UNUSED_PATIENCE_NS).pop()??.ok()
    }

    /// Whether one of the copies lies on a drive that is out or stale, and there.
    pub(super) fn is_set_aside(&self, copies: &[SlotAddress]) -> bool {
        let there = |copy: &SlotAddress| self.disks.get(copy.drive as usize)?.last_place(copy.slot, 0).map(|_| ());
        copies.iter().any(|copy| there(copy).is_some())
    }

    /// How long a drive may take before another one is asked.
    pub fn patience(&self) -> u64 {
        self.patience_ns()
    }

    /// A read that was done elsewhere ([`Pool::direct_read`]).
    pub fn direct_read_arrived(&self, copy: SlotAddress, bytes: usize, took_ns: u64) {
        count(&self.counters.bytes_read, bytes as u64);
        if let Some(disk) = self.disks.get(copy.drive as usize) {
            self.note_read(disk, took_ns);
        }
    }

    /// It is late: somebody asks the other copies.
    pub fn direct_read_late(&self, copy: SlotAddress) {
        count(&self.counters.reads_hedged, 1);
        if let Some(disk) = self.disks.get(copy.drive as usize) {
            self.note_late(disk);
        }
    }

    /// A page of a copy was not what it should be. Whoever reads it next begins with that copy, counts and mends it. With
    /// too many of them the oldest is left to the scrub.
    pub fn doubt(&self, page: (SlotAddress, u16)) {
        let mut doubts = self.doubts.lock();
        if doubts.len() == DOUBTS_MAX {
            doubts.pop_front();
        }
        doubts.push_back(page);
        self.doubted.store(true, Ordering::Release);
    }

    /// Puts the copies in front whose pages of this range were doubted.
    pub(super) fn doubted_first(&self, order: &mut [SlotAddress], pages: std::ops::Range<u16>) {
        if !self.doubted.load(Ordering::Acquire) {
            return;
        }
        let mut doubts = self.doubts.lock();
        let mut found = Vec::new();
        doubts.retain(|(copy, page)| {
            let here = pages.contains(page) && order.contains(copy);
            if here {
                found.push(*copy);
            }
            !here
        });
        self.doubted.store(!doubts.is_empty(), Ordering::Release);
        order.sort_by_key(|copy| !found.contains(copy));
    }

    /// Fills `into` from the first copy that `verify` accepts, and rewrites from it the copies that were tried and are
    /// wrong or unreadable there. Errors: `Corrupt` when no copy is right, `Unavailable` when none can be read.
    pub fn read_slot(
        &self,
        copies: &[SlotAddress],
        offset: u32,
        into: &mut [u8],
        verify: &dyn Fn(&[u8]) -> bool,
    ) -> Result<()> {
        self.read_in_order(&self.turn(copies), offset, into, verify)
    }

    /// As [`Pool::read_slot`], in the order of the copies.
    pub(super) fn read_in_order(
        &self,
        copies: &[SlotAddress],
        offset: u32,
        into: &mut [u8],
        verify: &dyn Fn(&[u8]) -> bool,
    ) -> Result<()> {
        let mut wrong: Vec<SlotAddress> = Vec::new();
        let raced = self.race(copies, offset, into, &mut |copy, bytes| {
            let right = verify(bytes);
            if !right {
                count(&self.counters.checksum_failures, 1);
                wrong.push(copy);
            }
            right
        })?;
        if raced.winner.is_some() {
            wrong.into_iter().chain(raced.unreadable).for_each(|bad| {
                self.mend(bad, offset, into);
            });
            return Ok(());
        }
        match raced.error {
            Some(error) if wrong.is_empty() => Err(error),
            _ => Err(Error::corrupt(format!(
                "pool {}: {} bytes at {offset} of slots {copies:?}: no copy has the right content",
                self.name,
                into.len()
            ))),
        }
    }
}
