//! Rebalancing: copies move from drives that are fuller than the others to emptier ones, as after a drive was added.
//!
//! Begins when the fill of two drives differs by more than [`BEGIN_PERCENT`] of their size and ends at [`END_PERCENT`]
//! from the mean, so that it neither flutters nor moves more than it must. Copies never come closer to each other by it.

use super::Pool;
use super::disk::Disk;
use super::copying::{Desk, Effort, Healed};
use super::heal::{Standing, Thing};
use super::heal_content::NamesOf;
use crate::error::Result;
use holdfast_format::EgroupId;
use holdfast_format::egroup::{EgroupRecord, EgroupState};
use holdfast_format::table::SlotAddress;
use parking_lot::Mutex;
use std::sync::atomic::Ordering;

const BEGIN_PERCENT: u64 = 10;
const END_PERCENT: u64 = 3;
/// Records that one step looks at.
const SCAN_RECORDS_MAX: usize = 4096;

/// A look through all egroups.
#[derive(Default)]
pub(super) struct Round {
    at: EgroupId,
    /// Something was moved in it.
    moved: bool,
}

/// Fill of the drives that take part, in parts of a thousand of their slots.
struct Fills {
    mean: u64,
    of: Vec<(u16, u64)>,
}

impl Fills {
    fn of(&self, drive: u16) -> Option<u64> {
        self.of.iter().find(|(index, _)| *index == drive).map(|(_, fill)| *fill)
    }
    fn is_over(&self, drive: u16) -> bool {
        self.of(drive).is_some_and(|fill| fill > self.mean + END_PERCENT * 10)
    }
    fn is_under(&self, drive: u16) -> bool {
        self.of(drive).is_some_and(|fill| fill + END_PERCENT * 10 < self.mean)
    }
}

impl Pool {
    fn fills(&self, standings: &[Standing]) -> Fills {
        let good = |disk: &&Disk| standings.get(disk.index as usize) == Some(&Standing::Good);
        let of = |disk: &Disk| (disk.index, disk.used_slots() as u64, disk.total_slots().max(1) as u64);
        let drives: Vec<_> = self.disks.iter().filter(good).map(of).collect();
        let (used, total) = drives.iter().fold((0, 0), |(used, total), one| (used + one.1, total + one.2));
        let of = drives.iter().map(|(index, used, total)| (*index, used * 1000 / total)).collect();
        Fills { mean: used * 1000 / total.max(1), of }
    }

    /// Moves a few copies from full drives to emptier ones; false when drives are filled evenly, or nothing can move.
    pub fn balance_step(&self, names: NamesOf<'_>, effort: Effort<'_>) -> Result<bool> {
        self.check_writable()?;
        let _one_at_a_time = self.healer.lock();
        let standings = self.standings();
        let fills = self.fills(&standings);
        let low = fills.of.iter().map(|(_, fill)| *fill).min().unwrap_or(0);
        let high = fills.of.iter().map(|(_, fill)| *fill).max().unwrap_or(0);
        let begun = self.balancing.load(Ordering::Relaxed);
        let uneven = fills.of.iter().any(|(drive, _)| fills.is_under(*drive))
            && fills.of.iter().any(|(drive, _)| fills.is_over(*drive));
        if !uneven || !begun && high - low <= BEGIN_PERCENT * 10 {
            self.balancing.store(false, Ordering::Relaxed);
            self.bytes_unbalanced.store(0, Ordering::Relaxed);
            return Ok(false);
        }
        if !begun {
            *self.balance_round.lock() = Round::default();
        }
        self.balancing.store(true, Ordering::Relaxed);
        let lacking = self.note_unbalanced(&fills);
        let (moves, at_end) = self.movable(&fills, effort.slots.min(lacking).max(1))?;
        let queue = Mutex::new(moves.into_iter());
        let take = || queue.lock().next();
        // One that cannot be read or moved now is left where it is: the next round comes by again.
        let make = |(id, record): (EgroupId, EgroupRecord), desk: &mut Desk<'_>| {
            self.move_copy(id, &record, &fills, (names, desk)).ok().flatten()
        };
        let some = self.make_copies(effort, &take, &make)? > 0;
        let mut round = self.balance_round.lock();
        round.moved |= some;
        if at_end && !std::mem::take(&mut round.moved) {
            // A whole round without a move: until the drives change there is nothing to gain.
            self.balancing.store(false, Ordering::Relaxed);
            return Ok(false);
        }
        Ok(true)
    }

    /// Slots that the emptier drives lack to the mean.
    fn note_unbalanced(&self, fills: &Fills) -> usize {
        let lacking = |(drive, fill): &(u16, u64)| {
            let total = self.disks[*drive as usize].total_slots() as u64;
            fills.mean.saturating_sub(*fill) * total / 1000
        };
        let slots: u64 = fills.of.iter().map(lacking).sum();
        self.bytes_unbalanced.store(slots * self.slot_bytes as u64, Ordering::Relaxed);
        slots as usize
    }

    /// The next egroups with a copy on a drive that is too full, and whether the look came to the end of all.
    fn movable(&self, fills: &Fills, count: usize) -> Result<(Vec<(EgroupId, EgroupRecord)>, bool)> {
        let mut round = self.balance_round.lock();
        let (mut found, mut seen, mut next) = (Vec::new(), 0, None);
        self.scan_egroups(round.at, &mut |id, record| {
            if seen == SCAN_RECORDS_MAX || found.len() == count {
                next = Some(id);
                return Ok(false);
            }
            seen += 1;
            let over = record.copies.iter().any(|copy| fills.is_over(copy.drive));
            if record.state == EgroupState::Data && !record.live.is_empty() && over {
                found.push((id, record));
            }
            Ok(true)
        })?;
        round.at = next.unwrap_or(EgroupId(0));
        Ok((found, next.is_none()))
    }

    /// Copies one thing's copy from its fullest drive to one that is emptier than the mean.
    fn move_copy(
        &self,
        id: EgroupId,
        record: &EgroupRecord,
        fills: &Fills,
        (names, desk): (NamesOf<'_>, &mut Desk<'_>),
    ) -> Result<Option<Healed>> {
        let _hold = self.hold();
        let from = record.copies.iter().max_by_key(|copy| fills.of(copy.drive)).copied();
        let Some(from) = from.filter(|copy| fills.is_over(copy.drive)) else { return Ok(None) };
        let kept: Vec<SlotAddress> = record.copies.iter().copied().filter(|copy| *copy != from).collect();
        let Some(slot) = self.take_slot_where(&kept, record.domain, &|disk| {
            fills.is_under(disk.index) && disk.index != from.drive
        }) else {
            return Ok(None);
        };
        let drives = |copies: &[SlotAddress]| copies.iter().map(|copy| copy.drive).collect::<Vec<u16>>();
        let mut after = kept.clone();
        after.push(slot);
        let closer = self.shares_domain(&drives(&after), record.domain)
            && !self.shares_domain(&drives(&record.copies), record.domain);
        if closer {
            self.give_back(&[slot]);
            return Ok(None);
        }
        let content = self.egroup_content(id, record, names, desk);
        let Some(content) = content.ok().filter(|content| content.bad_pages.is_empty()) else {
            // Not right everywhere: not to be moved.
            self.give_back(&[slot]);
            return Ok(None);
        };
        let written = self.write_fresh(&[slot], &content, desk)?;
        let (before, fresh, bytes) = (record.copies.clone(), vec![slot], content.bytes());
        Ok(written.then_some(Healed { thing: Thing::Egroup(id), before, after, fresh, bytes }))
    }
}
