//! The durable half of the log: frames on segments, group commit, and the promise that an acknowledged op has a place.
//!
//! Invariants
//! - A frame is written once, durably, on all copies of its segment; a page is never rewritten.
//! - `durable` moves only after every page that the frame names is durable (STORE.md 13).
//! - `Reservation` never promises more than the reserved segments can hold: it packs every unflushed op as a frame
//!   of its own, which is never tighter than what the flusher will do.

use crate::error::{Error, Kind, Result};
use crate::ledger::Durable;
use crate::oplog::place::Place;
use crate::oplog::ring::Ring;
use crate::placement::{Draw, Edit, Pool, Segment};
use holdfast_device::SharedMemory;
use holdfast_format::frame::{FRAME_HEADER_BYTES, FrameHeader, FramePlace};
use holdfast_format::limits::{BLOCK_BYTES, FRAME_OPS_MAX};
use holdfast_format::op::{OP_HEADER_BYTES, Op};
use holdfast_format::wire::Take;
use holdfast_format::{EgroupId, GroupId, Lsn, Row};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};

/// A change of drives cannot be missed for longer than this.
const DRIVES_WAIT: std::time::Duration = std::time::Duration::from_millis(100);

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

/// Pages that one op takes at most: in the frame's segment, and in the series of its payload.
#[derive(Clone, Copy, Debug)]
struct Cost {
    lsn: Lsn,
    head_pages: u32,
    payload_pages: u32,
    payload_rf: u8,
}

#[derive(Default)]
struct Reservation {
    /// Free pages per segment that is still to be written, by RF class: the open one first.
    lanes: [VecDeque<u32>; 3],
    unflushed: VecDeque<Cost>,
    stock: [VecDeque<Segment>; 3],
    /// Pages left in the open segment of each class.
    open_pages: [Option<u32>; 3],
}

/// Is told where ops lie now.
pub type Moved<'a> = &'a dyn Fn(&[(Lsn, Place)]);

/// Takes `pages` contiguous pages of one segment from a lane.
fn take_pages(lane: &mut VecDeque<u32>, pages: u32) -> bool {
    let Some(at) = lane.iter().position(|free| *free >= pages) else {
        return false;
    };
    lane.drain(..at);
    lane[0] -= pages;
    true
}

impl Reservation {
    fn admit(&mut self, cost: Cost, header_rf: u8) -> bool {
        let header = header_rf as usize - 1;
        if cost.payload_pages == 0 || cost.payload_rf == header_rf {
            return take_pages(&mut self.lanes[header], cost.head_pages + cost.payload_pages);
        }
        let payload = cost.payload_rf as usize - 1;
        let fits = self.lanes[payload].iter().any(|free| *free >= cost.payload_pages);
        fits && take_pages(&mut self.lanes[header], cost.head_pages)
            && take_pages(&mut self.lanes[payload], cost.payload_pages)
    }

    /// Starts again from what is really free, and packs what is not flushed yet.
    fn rebuild(&mut self, header_rf: u8, slot_pages: u32) {
        for class in 0..3 {
            self.lanes[class] = self.open_pages[class].into_iter().collect();
            let fresh = self.stock[class].len();
            self.lanes[class].extend(std::iter::repeat_n(slot_pages, fresh));
        }
        let costs = std::mem::take(&mut self.unflushed);
        for cost in &costs {
            let admitted = self.admit(*cost, header_rf);
            debug_assert!(admitted, "the flusher packed worse than the reservation: {cost:?}");
        }
        self.unflushed = costs;
    }
}

/// An open segment of one RF class.
struct Open {
    segment: Segment,
    next_page: u32,
    used: UsedSegment,
}

struct Writer {
    open: [Option<Open>; 3],
    /// Copies of the newest frame's header.
    header_rf: u8,
    /// Written segments in log order, without the open ones.
    done: Vec<UsedSegment>,
    chain: u64,
    /// `durable_lsn` that the newest frame carries.
    carried: Lsn,
    /// Of the pool, when the segments were looked at for lost drives.
    membership: u64,
    head: SharedMemory,
    frame: Vec<u8>,
    ops: Vec<u8>,
}

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

/// What the flusher gathers from the ring for one frame.
struct Batch {
    /// Copies of the frame's header. May be raised meanwhile, for later frames.
    header_rf: u8,
    first_lsn: Lsn,
    count: usize,
    position: u64,
    page_tail: u64,
    pages: [u32; 3],
    /// (lsn, rf, page position, pages)
    payloads: Vec<(Lsn, u8, u64, u32)>,
}

fn head_pages(ops_bytes: usize) -> u32 {
    (FRAME_HEADER_BYTES + ops_bytes).div_ceil(BLOCK_BYTES) as u32
}

/// The headers' RF was raised: every segment that was begun is ended. So a segment holds frames from its first page on,
/// each with its payload, or payload only; recovery and the drain rely on it.
fn follow_header_rf(writer: &mut Writer, header_rf: u8) {
    if writer.header_rf == header_rf {
        return;
    }
    writer.header_rf = header_rf;
    for open in &mut writer.open {
        writer.done.extend(open.take_if(|open| open.next_page > 0).map(|ended| ended.used));
    }
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
        let writer = Writer {
            open: [None, None, None],
            header_rf,
            done: used,
            chain: tip.1,
            carried: tip.0,
            membership: pool.membership(),
            head: SharedMemory::heap(slot_bytes),
            frame: Vec::new(),
            ops: Vec::new(),
        };
        Self {
            pool,
            group,
            ring,
            header_rf: AtomicU8::new(header_rf),
            row,
            slot_pages: (slot_bytes / BLOCK_BYTES) as u32,
            refilling: Mutex::default(),
            reservation: Mutex::default(),
            writer: Mutex::new(writer),
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

    pub fn header_rf(&self) -> u8 {
        self.header_rf.load(Ordering::Relaxed)
    }

    /// A volume with more copies has joined the group: headers go to that many from the next frame on.
    pub fn raise_header_rf(&self, rf: u8) {
        self.header_rf.fetch_max(rf, Ordering::Relaxed);
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
            reservation.unflushed.push_back(cost);
        }
        admitted
    }

    /// The op that was admitted last was not logged after all.
    pub fn withdraw(&self, lsn: Lsn) {
        let mut reservation = self.reservation.lock();
        if reservation.unflushed.back().is_some_and(|cost| cost.lsn == lsn) {
            reservation.unflushed.pop_back();
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
            let mut reservation = self.reservation.lock();
            for segment in segments {
                reservation.lanes[rf as usize - 1].push_back(self.slot_pages);
                reservation.stock[rf as usize - 1].push_back(segment);
            }
        }
        Ok(())
    }

    /// Segments to take at a time: one manifest write for many, without hoarding a small pool.
    fn batch(&self) -> usize {
        (self.pool.space().total / self.slot_pages as u64 / BLOCK_BYTES as u64 / 128).clamp(1, 16) as usize
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

    pub fn has_waiters(&self) -> bool {
        !self.waiters.lock().by_lsn.is_empty()
    }

    /// Whether the newest frame does not yet tell that everything before it is durable.
    pub fn floor_is_behind(&self) -> bool {
        let carried = self.writer.lock().carried;
        carried < self.durable()
    }

    /// Writes everything that is in the ring now. `moved` learns the new places before the ring forgets the old ones.
    ///
    /// Order (each step a crash test):
    /// 1. gather ops from the ring's tail, as many as fit into the open segments;
    /// 2. write payload of other RF classes, durably on all copies;
    /// 3. write the frame, durably on all copies;
    /// 4. tell the new places; move `durable`; trim the ring; answer the waiters.
    ///
    /// Recovery: a frame counts when its chain continues and its ops and every page it names verify.
    pub fn flush(&self, moved: Moved<'_>) -> Result<()> {
        let mut writer = self.writer.lock();
        let membership = self.pool.membership();
        if writer.membership != membership {
            writer.membership = membership;
            match self.leave_degraded(&mut writer) {
                // Without a better place the log goes on where it is, as long as that has copies enough.
                Err(error) if !matches!(error.kind, Kind::NoSpace | Kind::Unavailable) => return Err(error),
                _ => {}
            }
        }
        let (_, end) = self.ring.window();
        loop {
            if let Some(error) = self.failure() {
                return Err(error);
            }
            let (position, _) = self.ring.window();
            if position >= end {
                return Ok(());
            }
            if let Some(error) = self.blocked() {
                if self.fails_below() {
                    self.refuse(&error);
                }
                return Err(error);
            }
            if let Err(error) = self.write_frame(&mut writer, position, end, moved) {
                self.fail(error.clone());
                return Err(error);
            }
        }
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
        self.settle(writer);
        if unused.is_empty() {
            return Ok(());
        }
        self.pool.publish(Edit { segments_released: unused, ..Edit::default() })
    }

    /// Writes a frame without ops, so that the floor covers the last flush (STORE.md 14). Skipped when it has no place.
    pub fn flush_floor(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        let (position, end) = self.ring.window();
        if position != end || writer.carried >= self.durable() {
            return Ok(());
        }
        let header_rf = self.header_rf();
        let class = header_rf as usize - 1;
        follow_header_rf(&mut writer, header_rf);
        let has_room = writer.open[class].as_ref().is_some_and(|open| open.next_page < self.slot_pages);
        if !has_room {
            return Ok(());
        }
        let batch = Batch {
            header_rf,
            first_lsn: Lsn(self.durable().0 + 1),
            count: 0,
            position,
            page_tail: 0,
            pages: [0; 3],
            payloads: Vec::new(),
        };
        writer.ops.clear();
        self.put_frame(&mut writer, &batch).inspect_err(|error| self.fail(error.clone()))?;
        self.settle(&writer);
        Ok(())
    }

    fn write_frame(
        &self,
        writer: &mut Writer,
        position: u64,
        end: u64,
        moved: Moved<'_>,
    ) -> Result<()> {
        let batch = self.gather(writer, position, end)?;
        let bases = self.put_frame(writer, &batch)?;
        let mut next = bases;
        let mut places = Vec::with_capacity(batch.payloads.len());
        for (lsn, rf, _, pages) in &batch.payloads {
            let (egroup, page) = &mut next[*rf as usize - 1];
            places.push((*lsn, Place::Egroup(*egroup, *page as u16)));
            *page += pages;
        }
        moved(&places);
        let last = Lsn(batch.first_lsn.0 + batch.count as u64 - 1);
        self.durable.store(last.0, Ordering::Release);
        self.ring.trim(batch.position, batch.page_tail);
        self.settle(writer);
        self.answer(last);
        Ok(())
    }

    /// Step 1. Opens fresh segments where the next op does not fit.
    fn gather(&self, writer: &mut Writer, position: u64, end: u64) -> Result<Batch> {
        let header_rf = self.header_rf();
        follow_header_rf(writer, header_rf);
        let mut batch = Batch {
            header_rf,
            first_lsn: Lsn(0),
            count: 0,
            position,
            page_tail: 0,
            pages: [0; 3],
            payloads: Vec::new(),
        };
        writer.ops.clear();
        while batch.position < end && batch.count < FRAME_OPS_MAX {
            let record = self.ring.record(batch.position)?;
            let op = Op::take(&mut Take::new(record.op)).map_err(|error| Error::decode("an op in the ring", error))?;
            let pages = op.header.payload_pages;
            let rf = if pages == 0 { header_rf } else { op.header.payload_rf };
            let mut wanted = batch.pages;
            wanted[rf as usize - 1] += pages;
            let head = head_pages(writer.ops.len() + record.op.len());
            let header_need = head + wanted[header_rf as usize - 1];
            let header_fits = self.room(writer, header_rf) >= header_need;
            let payload_fits = rf == header_rf || self.room(writer, rf) >= wanted[rf as usize - 1];
            if !(header_fits && payload_fits) {
                if batch.count > 0 {
                    break;
                }
                if !header_fits {
                    self.open_next(writer, header_rf)?;
                }
                if !payload_fits {
                    self.open_next(writer, rf)?;
                }
                continue;
            }
            if batch.count == 0 {
                batch.first_lsn = op.header.lsn;
            }
            if pages > 0 {
                batch.payloads.push((op.header.lsn, rf, record.page_position, pages));
                batch.page_tail = record.page_position + (pages as usize * BLOCK_BYTES) as u64;
            }
            writer.ops.extend_from_slice(record.op);
            batch.pages = wanted;
            batch.count += 1;
            batch.position = record.next;
        }
        Ok(batch)
    }

    fn room(&self, writer: &Writer, rf: u8) -> u32 {
        writer.open[rf as usize - 1].as_ref().map_or(0, |open| self.slot_pages - open.next_page)
    }

    fn open_next(&self, writer: &mut Writer, rf: u8) -> Result<()> {
        let class = rf as usize - 1;
        let from_stock = || self.reservation.lock().stock[class].pop_front();
        let segment = match from_stock() {
            Some(segment) => segment,
            None => {
                // The reservation promises that this does not happen; a raised header RF may bring it about. Some may
                // be on their way into the stock: they come first.
                let _in_order = self.refilling.lock();
                match from_stock() {
                    Some(segment) => segment,
                    None => {
                        let mut fresh = self.pool.take_segments(self.group, rf, 1, Draw::Upkeep)?;
                        fresh.pop().ok_or_else(|| Error::new(Kind::Internal, "the pool gave no log segment"))?
                    }
                }
            }
        };
        let used = UsedSegment {
            egroup: segment.egroup,
            rf,
            last_lsn: Lsn(0),
            chain_before: writer.chain,
            has_frames: false,
        };
        if let Some(open) = writer.open[class].replace(Open { segment, next_page: 0, used }) {
            writer.done.push(open.used);
        }
        Ok(())
    }

    /// Steps 2 and 3. Returns where the payload of each RF class begins.
    fn put_frame(&self, writer: &mut Writer, batch: &Batch) -> Result<[(EgroupId, u32); 3]> {
        let header_rf = batch.header_rf;
        let header_class = header_rf as usize - 1;
        if writer.open[header_class].is_none() {
            self.open_next(writer, header_rf)?;
        }
        let head = head_pages(writer.ops.len());
        let mut bases = [(EgroupId(0), 0u32); 3];
        let mut places = [FramePlace::default(); 3];
        for class in 0..3 {
            let Some(open) = writer.open[class].as_ref().filter(|_| batch.pages[class] > 0) else { continue };
            let first = open.next_page + if class == header_class { head } else { 0 };
            bases[class] = (open.segment.egroup, first);
            places[class] =
                FramePlace { egroup: open.segment.egroup, first_page: first as u16, pages: batch.pages[class] as u16 };
        }
        for class in (0..3).filter(|class| *class != header_class && batch.pages[*class] > 0) {
            let slices = self.payload_slices(batch, class as u8 + 1);
            if let Some(open) = &writer.open[class] {
                let copies =
                    self.pool.write_segment(&open.segment, open.next_page * BLOCK_BYTES as u32, &slices)?;
                self.secure(&open.segment, open.next_page + batch.pages[class], copies)?;
                self.pool_bytes(&slices);
            }
        }
        let Writer { open, head: head_memory, frame, ops, chain, carried, .. } = writer;
        let Some(header_open) = open[header_class].as_mut() else {
            return Err(Error::new(Kind::Internal, "no open log segment"));
        };
        let durable = self.durable();
        let mut header = FrameHeader {
            op_count: batch.count as u16,
            group: self.group,
            row: self.row,
            incarnation: header_open.segment.incarnation,
            membership: self.pool.membership(),
            first_lsn: batch.first_lsn,
            durable_lsn: durable,
            ops_bytes: ops.len() as u32,
            header_rf,
            wall_sec: self.wall_sec.load(Ordering::Relaxed),
            places,
            ops_checksum: 0,
            previous_chain: *chain,
            chain: 0,
        };
        header.seal(ops, frame);
        head_memory.write(0, frame);
        let mut slices = vec![head_memory.read(0, frame.len())];
        slices.extend(self.payload_slices(batch, header_rf));
        let copies =
            self.pool.write_segment(&header_open.segment, header_open.next_page * BLOCK_BYTES as u32, &slices)?;
        self.secure(
            &header_open.segment,
            header_open.next_page + head + batch.pages[header_class],
            copies,
        )?;
        self.pool_bytes(&slices);
        self.flushes.fetch_add(1, Ordering::Relaxed);
        if !header_open.used.has_frames {
            header_open.used.chain_before = *chain;
        }
        *chain = header.chain;
        *carried = durable;
        let last = Lsn(header.end_lsn().0 - 1);
        header_open.next_page += head;
        header_open.used.has_frames = true;
        header_open.used.last_lsn = last;
        for class in 0..3 {
            if let Some(open) = open[class].as_mut().filter(|_| batch.pages[class] > 0) {
                open.next_page += batch.pages[class];
                open.used.last_lsn = last;
            }
        }
        Ok(bases)
    }

    fn pool_bytes(&self, slices: &[&[u8]]) {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        self.logged_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Payload of one RF class, neighbours merged.
    fn payload_slices(&self, batch: &Batch, rf: u8) -> Vec<&[u8]> {
        let mut runs: Vec<(u64, usize)> = Vec::new();
        for (_, _, position, pages) in batch.payloads.iter().filter(|payload| payload.1 == rf) {
            let bytes = *pages as usize * BLOCK_BYTES;
            match runs.last_mut() {
                Some((start, length)) if self.ring.adjoins(*start, *length, *position) => *length += bytes,
                _ => runs.push((*position, bytes)),
            }
        }
        runs.into_iter().map(|(position, bytes)| self.ring.pages(position, bytes)).collect()
    }

    /// The reservation starts again from what is really left.
    fn settle(&self, writer: &Writer) {
        let durable = self.durable();
        let mut reservation = self.reservation.lock();
        while reservation.unflushed.front().is_some_and(|cost| cost.lsn <= durable) {
            reservation.unflushed.pop_front();
        }
        for class in 0..3 {
            reservation.open_pages[class] =
                writer.open[class].as_ref().map(|open| self.slot_pages - open.next_page);
        }
        reservation.rebuild(self.header_rf(), self.slot_pages);
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

    /// Ends the open segments and gives up the stock: returns what was reserved and never written. For close and for
    /// groups that sleep.
    pub fn seal(&self) -> Vec<EgroupId> {
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
