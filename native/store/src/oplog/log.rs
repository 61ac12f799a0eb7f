//! The durable half of the log: frames on segments, group commit, and the promise that an acknowledged op has a place.
//!
//! Invariants
//! - A frame is written once, durably, on all copies of its segment; a page is never rewritten.
//! - `durable` moves only after every page that the frame names is durable (STORE.md 13), and those of all frames before.
//! - The lock order is refilling, writer, flights; waiters and reservation come last.

mod ahead;
mod flight;
mod framed;
mod frames;
mod reservation;
mod schedule;
#[cfg(test)]
mod tests;

use crate::error::{Error, Kind, Result};
use crate::ledger::Durable;
use crate::oplog::place::Place;
use crate::oplog::ring::Ring;
use crate::placement::{Draw, Edit, Pool, Segment};
pub use framed::FramedSegment;
use flight::{Flights, Writer, head_pages};
use holdfast_device::SharedMemory;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::op::OP_HEADER_BYTES;
use holdfast_format::{EgroupId, GroupId, Lsn, Row};
use parking_lot::{Condvar, Mutex};
use reservation::{Cost, Reservation};
pub use schedule::Turns;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};

/// A change of drives cannot be missed for longer than this.
const DRIVES_WAIT: std::time::Duration = std::time::Duration::from_millis(100);
/// Segments that are taken of the pool at a time, at most.
const SEGMENTS_AT_ONCE: u64 = 16;

/// A segment that holds part of the log, for the drain to release.
#[derive(Clone, Debug)]
pub struct UsedSegment {
    pub egroup: EgroupId,
    /// RF class.
    pub rf: u8,
    pub last_lsn: Lsn,
    /// Chain before its first frame; 0 and unused for payload-only segments.
    pub chain_before: u64,
    /// Whether frames lie in it.
    pub has_frames: bool,
}

/// Is told where ops lie now.
pub type Moved<'a> = &'a dyn Fn(&[(Lsn, Place)]);

#[derive(Default)]
struct Waiters {
    by_lsn: BTreeMap<Lsn, Vec<Durable>>,
    failed: Option<Error>,
}

pub struct Log {
    pool: Arc<Pool>,
    group: GroupId,
    pub ring: Ring,
    header_rf: AtomicU8,
    row: Row,
    slot_pages: u32,
    /// Held from taking segments of the pool until they are in stock, so that the stock has them in the
    /// manifest's order: recovery walks the log in that order. Taken after `writer`, before `reservation`.
    refilling: Mutex<()>,
    reservation: Mutex<Reservation>,
    writer: Mutex<Writer>,
    /// Frames that were begun and are not durable yet.
    flights: Mutex<Flights>,
    /// A frame has landed, or none ever will.
    landed: Condvar,
    /// The segment in stock that is being made ready, held during each step of it. Whoever takes a segment out of the stock
    /// takes this lock afterwards, and so waits for a step in progress.
    ahead: Mutex<ahead::Ahead>,
    habit: ahead::Habit,
    /// Memory for the heads of frames, while no frame needs it.
    heads: Mutex<Vec<SharedMemory>>,
    /// Newest op that a frame was begun for, and the ring's pages up to there.
    placed: AtomicU64,
    placed_pages: AtomicU64,
    durable: AtomicU64,
    /// Copies that a frame needs to count (STORE.md 27); with fewer, those who wait for it are refused or go on waiting.
    copies_min: AtomicU8,
    fail_below: AtomicBool,
    /// A thread flushes, and may wait for drives; until the group is shut.
    patient: AtomicBool,
    /// Wakes it when drives or policy may have changed.
    changed: (Mutex<()>, Condvar),
    waiters: Mutex<Waiters>,
    /// Wall time of the newest op, for the frame headers.
    pub wall_sec: AtomicI64,
    pub flushes: AtomicU64,
    pub logged_bytes: AtomicU64,
}

impl Log {
    /// A log whose newest durable op is `tip`, with chain hash `chain`. `used` are the segments that replay read.
    pub fn new(
        pool: Arc<Pool>,
        group: GroupId,
        ring: Ring,
        header_rf: u8,
        row: Row,
        tip: (Lsn, u64),
        used: Vec<UsedSegment>,
    ) -> Self {
        let slot_bytes = pool.slot_bytes();
        let position = ring.window().0;
        let writer = Writer::new(header_rf, used, tip, pool.membership(), position);
        Self {
            pool,
            group,
            ring,
            header_rf: AtomicU8::new(header_rf),
            row,
            slot_pages: (slot_bytes / BLOCK_BYTES) as u32,
            refilling: Mutex::default(),
            reservation: Mutex::new(Reservation { header_rf, ..Reservation::default() }),
            writer: Mutex::new(writer),
            flights: Mutex::default(),
            landed: Condvar::new(),
            ahead: Mutex::default(),
            habit: ahead::Habit::default(),
            heads: Mutex::default(),
            placed: AtomicU64::new(tip.0.0),
            placed_pages: AtomicU64::new(0),
            durable: AtomicU64::new(tip.0.0),
            copies_min: AtomicU8::new(1),
            fail_below: AtomicBool::new(false),
            patient: AtomicBool::new(false),
            changed: Default::default(),
            waiters: Mutex::default(),
            wall_sec: AtomicI64::new(0),
            flushes: AtomicU64::new(0),
            logged_bytes: AtomicU64::new(0),
        }
    }

    pub fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// Newest op that is durable or on its way to be.
    pub fn placed(&self) -> Lsn {
        Lsn(self.placed.load(Ordering::Acquire))
    }

    /// Payload in the ring that no frame was begun for.
    pub fn waiting_bytes(&self) -> u64 {
        self.ring.page_bytes_from(self.placed_pages.load(Ordering::Acquire))
    }

    pub fn header_rf(&self) -> u8 {
        self.header_rf.load(Ordering::Relaxed)
    }

    pub fn set_copies_min(&self, copies_min: u8, fail_below: bool) {
        self.copies_min.store(copies_min, Ordering::Relaxed);
        self.fail_below.store(fail_below, Ordering::Relaxed);
        self.changed.1.notify_all();
    }

    /// Whether a flush may wait for drives, on a thread of its own.
    pub fn set_patient(&self, patient: bool) {
        self.patient.store(patient, Ordering::Release);
        self.changed.1.notify_all();
    }

    /// Whether writes fail, instead of waiting, while [`Log::blocked`].
    pub fn fails_below(&self) -> bool {
        self.fail_below.load(Ordering::Relaxed)
    }

    /// Too few drives are left for the copies that a frame needs.
    pub fn blocked(&self) -> Option<Error> {
        let (needed, drives) = (self.copies_min.load(Ordering::Relaxed) as usize, self.pool.drives_accepting());
        (drives < needed).then(|| {
            let what = format!(
                "pool {}: a write needs {needed} copies, {drives} drives are left: add a drive, or lower \
                 min-write-copies",
                self.pool.name()
            );
            Error::new(Kind::Unavailable, what)
        })
    }

    /// A frame was written with fewer copies than it needs: it counts when more were made. A thread waits for that; whoever
    /// cannot wait gets the error, and the log ends here.
    fn secure(&self, segment: &Segment, end_page: u32, mut copies: usize) -> Result<()> {
        loop {
            let needed = self.copies_min.load(Ordering::Relaxed).min(segment.rf) as usize;
            if copies >= needed {
                return Ok(());
            }
            let what = format!(
                "pool {}: {copies} copies of log segment {} are durable, {needed} are needed: add a drive",
                self.pool.name(),
                segment.egroup
            );
            let error = Error::new(Kind::Unavailable, what);
            if !self.patient.load(Ordering::Acquire) {
                return Err(error);
            }
            if self.fails_below() {
                self.refuse(&error);
            }
            let mut changed = self.changed.0.lock();
            self.changed.1.wait_for(&mut changed, DRIVES_WAIT);
            drop(changed);
            copies = match self.pool.restore_segment(segment, end_page * BLOCK_BYTES as u32) {
                Ok(now) => now,
                Err(error) if matches!(error.kind, Kind::NoSpace | Kind::Unavailable) => copies,
                Err(error) => return Err(error),
            };
        }
    }

    /// Those who wait are told, once; the log goes on when it can.
    fn refuse(&self, error: &Error) {
        let waiting = std::mem::take(&mut self.waiters.lock().by_lsn);
        for done in waiting.into_values().flatten() {
            done(Err(error.clone()));
        }
    }

    /// Headers go to this many drives from the next frame on, if those are more than before. They get fewer only where no frame
    /// is left: recovery walks the log in the order in which segments were taken, and those in stock for a lower RF were
    /// taken before segments that hold frames already.
    pub fn raise_header_rf(&self, rf: u8) {
        self.header_rf.fetch_max(rf, Ordering::Relaxed);
    }

    /// As [`Log::raise_header_rf`], of a log that was sealed and given back: there are no segments.
    pub fn lower_header_rf(&self, rf: u8) {
        self.header_rf.fetch_min(rf, Ordering::Relaxed);
        let mut reservation = self.reservation.lock();
        debug_assert!(reservation.unplaced.is_empty(), "ops without a segment");
        reservation.header_rf = reservation.header_rf.min(rf);
    }

    /// Gives back what is kept for RF classes that nothing writes any more: neither the headers nor payload of `used`.
    pub fn leave_classes(&self, used: &[u8]) -> Result<()> {
        let mut writer = self.writer.lock();
        let header_rf = self.header_rf();
        flight::follow_header_rf(&mut writer, header_rf);
        let mut unused = Vec::new();
        for class in (0..3usize).filter(|class| !used.contains(&(*class as u8 + 1)) && *class as u8 + 1 != header_rf) {
            if let Some(open) = writer.open[class].take() {
                if open.next_page > 0 { writer.done.push(open.used) } else { unused.push(open.segment.egroup) }
            }
            let mut reservation = self.reservation.lock();
            // What is not flushed yet may still need them.
            let needed = reservation.unplaced.iter().any(|cost| cost.payload_rf as usize == class + 1);
            if !needed {
                unused.extend(reservation.stock[class].drain(..).map(|segment| segment.egroup));
            }
        }
        self.end_step();
        self.settle(&writer);
        drop(writer);
        if unused.is_empty() {
            return Ok(());
        }
        self.pool.publish(Edit { segments_released: unused, ..Edit::default() })
    }

    /// Ends those of the segments that are open and were begun; false when none of them is part of this log. They go with
    /// the next drain.
    pub fn end_segments(&self, segments: &BTreeSet<EgroupId>) -> bool {
        let mut writer = self.writer.lock();
        let mut ended = false;
        for class in 0..3 {
            let ends = |open: &mut flight::Open| open.next_page > 0 && segments.contains(&open.used.egroup);
            if let Some(open) = writer.open[class].take_if(ends) {
                writer.done.push(open.used);
                ended = true;
            }
        }
        if ended {
            self.end_step();
            self.settle(&writer);
        }
        ended || writer.done.iter().any(|used| segments.contains(&used.egroup))
    }

    pub fn failure(&self) -> Option<Error> {
        self.waiters.lock().failed.clone()
    }

    /// Promises a place on the drives to an op. False: take more segments first.
    pub fn admit(&self, lsn: Lsn, op_bytes: usize, payload_bytes: usize, payload_rf: u8) -> bool {
        let cost = Cost {
            lsn,
            head_pages: head_pages(op_bytes),
            payload_pages: (payload_bytes / BLOCK_BYTES) as u32,
            payload_rf,
        };
        let mut reservation = self.reservation.lock();
        let admitted = reservation.admit(cost, self.header_rf());
        if admitted {
            reservation.unplaced.push_back(cost);
        }
        admitted
    }

    /// The op that was admitted last was not logged after all.
    pub fn withdraw(&self, lsn: Lsn) {
        let mut reservation = self.reservation.lock();
        if reservation.unplaced.back().is_some_and(|cost| cost.lsn == lsn) {
            reservation.unplaced.pop_back();
        }
    }

    /// Reserves segments so that an op with these needs can be admitted; `NoSpace` when the pool has none to give.
    /// Several at a time outside of the reserve, one by one out of it.
    pub fn refill(&self, payload_rf: u8, draw: Draw) -> Result<()> {
        let header_rf = self.header_rf();
        for rf in [Some(header_rf), (payload_rf != 0 && payload_rf != header_rf).then_some(payload_rf)] {
            let Some(rf) = rf else { continue };
            let _in_order = self.refilling.lock();
            let count = if self.reservation.lock().stock[rf as usize - 1].len() < 2 { self.batch() } else { 1 };
            let mut taken = self.pool.take_segments(self.group, rf, count, Draw::Ordinary);
            if taken.as_ref().is_err_and(|error| error.kind == Kind::NoSpace) && (count > 1 || draw > Draw::Ordinary) {
                taken = self.pool.take_segments(self.group, rf, 1, draw);
            }
            let segments = taken?;
            self.habit.segments.fetch_add(segments.len() as u32, Ordering::Relaxed);
            let mut reservation = self.reservation.lock();
            for segment in segments {
                reservation.lanes[rf as usize - 1].push_back(self.slot_pages);
                reservation.stock[rf as usize - 1].push_back(segment);
            }
        }
        Ok(())
    }

    /// Segments to take at a time: one manifest write for many, without hoarding a small pool, nor for a log that nobody
    /// writes to.
    fn batch(&self) -> usize {
        let share = self.pool.room().total_bytes / self.slot_pages as u64 / BLOCK_BYTES as u64 / 128;
        let taken = self.habit.segments.load(Ordering::Relaxed) as u64;
        share.min(taken).clamp(1, SEGMENTS_AT_ONCE) as usize
    }

    /// Whether less than one batch is left in stock.
    pub fn wants_refill(&self) -> bool {
        self.reservation.lock().stock[self.header_rf() as usize - 1].len() * 2 < self.batch()
    }

    /// Calls `done` once `lsn` is durable; at once if it is.
    pub fn when_durable(&self, lsn: Lsn, done: Durable) {
        let mut waiters = self.waiters.lock();
        let failed = waiters.failed.clone();
        if self.durable() >= lsn {
            drop(waiters);
            done(Ok(()));
        } else if let Some(error) = failed {
            drop(waiters);
            done(Err(error));
        } else {
            waiters.by_lsn.entry(lsn).or_default().push(done);
        }
    }

    /// What the newest frame that was written says to be durable.
    pub fn carried(&self) -> Lsn {
        self.writer.lock().carried
    }

    /// Whether the newest frame does not yet tell that everything before it is durable.
    pub fn floor_is_behind(&self) -> bool {
        self.carried() < self.durable()
    }

    /// Goes on in fresh segments where the open one or those in stock lie on a drive that was lost or is to be
    /// emptied.
    pub fn renew(&self) -> Result<()> {
        self.leave_degraded(&mut self.writer.lock())
    }

    /// Fresh segments come first, so that what the reservation promises stays true; then the others go.
    fn leave_degraded(&self, writer: &mut Writer) -> Result<()> {
        let mut unused = Vec::new();
        for class in 0..3 {
            let rf = class as u8 + 1;
            let bad = |segment: &Segment| !self.pool.is_whole(self.group, &segment.copies, rf);
            let open = writer.open[class].as_ref().is_some_and(|open| bad(&open.segment)) as usize;
            let stocked = self.reservation.lock().stock[class].iter().filter(|segment| bad(segment)).count();
            if open + stocked == 0 {
                continue;
            }
            let _in_order = self.refilling.lock();
            let fresh = self.pool.take_segments(self.group, rf, open + stocked, Draw::Upkeep)?;
            if let Some(open) = writer.open[class].take_if(|_| open > 0) {
                if open.next_page > 0 { writer.done.push(open.used) } else { unused.push(open.segment.egroup) }
            }
            let mut leaving = fresh.len() - open;
            let mut reservation = self.reservation.lock();
            reservation.stock[class].retain(|segment| {
                let leaves = leaving > 0 && bad(segment);
                if leaves {
                    leaving -= 1;
                    unused.push(segment.egroup);
                }
                !leaves
            });
            reservation.stock[class].extend(fresh);
        }
        self.end_step();
        self.settle(writer);
        if unused.is_empty() {
            return Ok(());
        }
        self.pool.publish(Edit { segments_released: unused, ..Edit::default() })
    }

    fn answer(&self, upto: Lsn) {
        let ready = {
            let mut waiters = self.waiters.lock();
            let later = waiters.by_lsn.split_off(&Lsn(upto.0 + 1));
            std::mem::replace(&mut waiters.by_lsn, later)
        };
        for done in ready.into_values().flatten() {
            done(Ok(()));
        }
    }

    /// No more acknowledgements: what is durable stays readable, a restart reads the log again (STORE.md 27).
    pub fn fail(&self, error: Error) {
        let waiting = {
            let mut waiters = self.waiters.lock();
            waiters.failed.get_or_insert_with(|| error.clone());
            std::mem::take(&mut waiters.by_lsn)
        };
        for done in waiting.into_values().flatten() {
            done(Err(error.clone()));
        }
        // Under the lock, so that nobody is between looking for a failure and falling asleep.
        let _flights = self.flights.lock();
        self.landed.notify_all();
    }

    /// What the drain may release when everything up to `drained` is in tables: the segments, and the chain before the
    /// first frame that is kept. Nothing is forgotten until [`Log::released`].
    pub fn releasable(&self, drained: Lsn) -> (Vec<EgroupId>, u64) {
        let writer = self.writer.lock();
        let gone = |used: &&UsedSegment| used.last_lsn <= drained;
        let released: Vec<EgroupId> = writer.done.iter().filter(gone).map(|used| used.egroup).collect();
        let first_kept = writer.done.iter().find(|used| used.has_frames && used.last_lsn > drained);
        let open = writer.open.iter().flatten().find(|open| open.used.has_frames);
        let chain = first_kept.or(open.map(|open| &open.used)).map_or(writer.chain, |used| used.chain_before);
        (released, chain)
    }

    pub fn released(&self, egroups: &[EgroupId]) {
        self.writer.lock().done.retain(|used| !egroups.contains(&used.egroup));
    }

    /// Waits for the frames in flight, ends the open segments and gives up the stock: returns what was reserved and never written. For close and for
    /// groups that sleep.
    pub fn seal(&self) -> Vec<EgroupId> {
        self.await_all_landed();
        self.heads.lock().clear();
        let mut writer = self.writer.lock();
        let mut reservation = self.reservation.lock();
        let mut unused = Vec::new();
        for class in 0..3 {
            if let Some(open) = writer.open[class].take() {
                if open.next_page > 0 { writer.done.push(open.used) } else { unused.push(open.segment.egroup) }
            }
            unused.extend(reservation.stock[class].drain(..).map(|segment| segment.egroup));
            reservation.open_pages[class] = None;
            reservation.lanes[class].clear();
        }
        drop(reservation);
        self.end_step();
        unused
    }

    /// Chain and segments at the end of a sealed log.
    pub fn end(&self) -> (u64, Vec<UsedSegment>) {
        let writer = self.writer.lock();
        debug_assert!(writer.open.iter().all(Option::is_none));
        (writer.chain, writer.done.clone())
    }

    /// Bytes of the segments that still count as log.
    pub fn log_bytes(&self) -> u64 {
        let writer = self.writer.lock();
        let segments = writer.done.len() + writer.open.iter().flatten().count();
        segments as u64 * self.slot_pages as u64 * BLOCK_BYTES as u64
    }
}

const _: () = assert!(OP_HEADER_BYTES < BLOCK_BYTES);
