//! Making frames and getting them onto the drives, two at a time.
//!
//! A frame is begun under the writer's lock: it gets its ops, its place, and the chain of the one before. It is written
//! without the lock, so the next one can be begun meanwhile. Frames land in any order and count in theirs:
//! - `durable` moves over a frame when it and all frames before it have landed; then its ops' new places are told, the ring
//!   forgets them, and who waited is answered;
//! - a frame that was written while one before it was torn by a crash lies behind a break in the chain: recovery ends
//!   before the break, and nobody was told otherwise;
//! - after a frame has failed, none that follows counts any more.

use super::{Log, Moved, UsedSegment};
use crate::error::{Error, Kind, Result};
use crate::oplog::place::Place;
use crate::placement::{Draw, Segment};
use holdfast_device::SharedMemory;
use holdfast_format::frame::{FRAME_HEADER_BYTES, FrameHeader, FramePlace};
use holdfast_format::limits::{BLOCK_BYTES, FRAME_OPS_MAX};
use holdfast_format::op::Op;
use holdfast_format::wire::Take;
use holdfast_format::{EgroupId, Lsn};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

/// Frames in flight: more would only make each smaller.
pub(super) const FLIGHTS_MAX: usize = 2;

/// An open segment of one RF class.
pub(super) struct Open {
    pub segment: Segment,
    pub next_page: u32,
    pub used: UsedSegment,
}

pub(super) struct Writer {
    pub open: [Option<Open>; 3],
    /// Copies of the newest frame's header.
    header_rf: u8,
    /// Written segments in log order, without the open ones.
    pub done: Vec<UsedSegment>,
    pub chain: u64,
    /// `durable_lsn` that the newest frame carries.
    pub carried: Lsn,
    /// Of the pool, when the segments were looked at for lost drives.
    pub membership: u64,
    /// Of the first op in the ring that no frame was begun for.
    position: u64,
    /// Number of the next frame.
    next: u64,
    /// Segment of the newest frame.
    framed: EgroupId,
    frame: Vec<u8>,
    ops: Vec<u8>,
}

impl Writer {
    pub fn new(header_rf: u8, done: Vec<UsedSegment>, tip: (Lsn, u64), membership: u64, position: u64) -> Self {
        let (carried, chain) = tip;
        let open = [None, None, None];
        let (frame, ops) = (Vec::new(), Vec::new());
        let framed = done.iter().filter(|used| used.has_frames).map(|used| used.egroup).max().unwrap_or_default();
        Self { open, header_rf, done, chain, carried, membership, position, next: 0, framed, frame, ops }
    }
}

/// A frame in flight, as the log remembers it.
pub(super) struct Flying {
    number: u64,
    landed: bool,
    last: Lsn,
    /// What the ring may forget.
    position: u64,
    page_tail: u64,
    places: Vec<(Lsn, Place)>,
}

/// Oldest first.
pub(super) type Flights = VecDeque<Flying>;

/// What is to be written for a frame.
pub(super) struct Flight {
    number: u64,
    head: SharedMemory,
    head_bytes: usize,
    /// Where each RF class of payload goes; that of the frame itself stands in `frame_at`.
    payload_at: [Option<(Segment, u32)>; 3],
    frame_at: (Segment, u32),
    batch: Batch,
}

/// One durable write of a frame in flight.
#[derive(Clone, Copy)]
pub(super) enum FlightWrite<'a> {
    /// Payload of another RF class, from this page of its segment on.
    Payload { class: usize, segment: &'a Segment, page: u32 },
    /// The frame, with the payload of its own class.
    Frame,
}

impl Flight {
    pub fn number(&self) -> u64 {
        self.number
    }

    /// In order; each is durable before the next one begins.
    pub fn writes(&self) -> Vec<FlightWrite<'_>> {
        let others = self.payload_at.iter().enumerate().filter_map(|(class, place)| {
            place.as_ref().map(|(segment, page)| FlightWrite::Payload { class, segment, page: *page })
        });
        others.chain([FlightWrite::Frame]).collect()
    }
}

/// What the flusher gathers from the ring for one frame.
#[derive(Default)]
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

pub(super) fn head_pages(ops_bytes: usize) -> u32 {
    (FRAME_HEADER_BYTES + ops_bytes).div_ceil(BLOCK_BYTES) as u32
}

/// The headers' RF was raised: every segment that was begun is ended. So a segment holds frames from its first page on,
/// each with its payload, or payload only; recovery and the drain rely on it.
pub(super) fn follow_header_rf(writer: &mut Writer, header_rf: u8) {
    if writer.header_rf == header_rf {
        return;
    }
    writer.header_rf = header_rf;
    for open in &mut writer.open {
        writer.done.extend(open.take_if(|open| open.next_page > 0).map(|ended| ended.used));
    }
}

impl Log {
    /// Writes everything that is in the ring now; returns when it is durable. `moved` learns the new places before the ring
    /// forgets the old ones.
    ///
    /// Order (each step a crash test):
    /// 1. gather ops from the ring, as many as fit into the open segments; the frame gets its place and its chain;
    /// 2. write payload of other RF classes, durably on all copies;
    /// 3. write the frame, durably on all copies;
    /// 4. once all frames before have landed: tell the new places; move `durable`; trim the ring; answer the waiters.
    ///
    /// Recovery: a frame counts when its chain continues and its ops and every page it names verify.
    pub fn flush(&self, moved: Moved<'_>) -> Result<()> {
        self.flush_until(self.ring.window().1, moved)
    }

    /// As [`Log::flush`], what lies before `end` in the ring. Whoever `moved` tells of must know all of those ops.
    pub fn flush_until(&self, end: u64, moved: Moved<'_>) -> Result<()> {
        self.follow_membership()?;
        while let Some(flight) = self.take_off(end)? {
            self.fly(flight, moved)?;
        }
        self.await_landed(end)
    }

    fn follow_membership(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        let membership = self.pool.membership();
        if writer.membership == membership {
            return Ok(());
        }
        writer.membership = membership;
        match self.leave_degraded(&mut writer) {
            // Without a better place the log goes on where it is, as long as that has copies enough.
            Err(error) if !matches!(error.kind, Kind::NoSpace | Kind::Unavailable) => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes a frame without ops, so that the floor covers the last flush (STORE.md 14). Skipped when it has no place.
    pub fn flush_floor(&self, moved: Moved<'_>) -> Result<()> {
        let flight = {
            let mut writer = self.writer.lock();
            let (tail, end) = self.ring.window();
            if tail != end || writer.carried >= self.durable() {
                return Ok(());
            }
            let header_rf = self.header_rf();
            follow_header_rf(&mut writer, header_rf);
            if self.room(&writer, header_rf) == 0 || !self.flights.lock().is_empty() {
                return Ok(());
            }
            let first_lsn = Lsn(self.durable().0 + 1);
            writer.ops.clear();
            let batch = Batch { header_rf, first_lsn, position: tail, ..Batch::default() };
            self.begin(&mut writer, batch).inspect_err(|error| self.fail(error.clone()))?
        };
        self.fly(flight, moved)
    }

    /// Step 1. `None`: a frame was begun for everything up to `end`.
    pub(super) fn take_off(&self, end: u64) -> Result<Option<Flight>> {
        loop {
            if let Some(error) = self.failure() {
                return Err(error);
            }
            let mut writer = self.writer.lock();
            if writer.position >= end {
                return Ok(None);
            }
            if let Some(error) = self.blocked() {
                if self.fails_below() {
                    self.refuse(&error);
                }
                return Err(error);
            }
            let mut flights = self.flights.lock();
            if flights.len() >= FLIGHTS_MAX {
                drop(writer);
                self.landed.wait(&mut flights);
                continue;
            }
            drop(flights);
            let begun = self.gather(&mut writer, end).and_then(|batch| self.begin(&mut writer, batch));
            return begun.map(Some).inspect_err(|error| self.fail(error.clone()));
        }
    }

    /// Steps 2 to 4.
    pub(super) fn fly(&self, flight: Flight, moved: Moved<'_>) -> Result<()> {
        let written = self.write(&flight);
        self.heads.lock().push(flight.head);
        written.inspect_err(|error| self.fail(error.clone()))?;
        self.land(flight.number, moved);
        Ok(())
    }

    fn write(&self, flight: &Flight) -> Result<()> {
        flight.writes().into_iter().try_for_each(|write| self.write_part(flight, write))
    }

    /// Step 2 or 3.
    pub(super) fn write_part(&self, flight: &Flight, write: FlightWrite) -> Result<()> {
        let batch = &flight.batch;
        let (class, head, (segment, page)) = match write {
            FlightWrite::Payload { class, segment, page } => (class, None, (segment, page)),
            FlightWrite::Frame => {
                let head = flight.head.read(0, flight.head_bytes);
                (batch.header_rf as usize - 1, Some(head), (&flight.frame_at.0, flight.frame_at.1))
            }
        };
        let mut slices: Vec<&[u8]> = head.into_iter().collect();
        slices.extend(self.payload_slices(batch, class as u8 + 1));
        let offset = page * BLOCK_BYTES as u32;
        let copies = match head {
            Some(_) => self.pool.write_segment(segment, offset, &slices)?,
            None => self.pool.write_payload(segment, offset, &slices)?,
        };
        let pages: usize = slices.iter().map(|slice| slice.len() / BLOCK_BYTES).sum();
        self.secure(segment, page + pages as u32, copies)?;
        self.count_bytes(&slices);
        if head.is_some() {
            self.flushes.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Step 4, for every frame whose turn it is now.
    pub(super) fn land(&self, number: u64, moved: Moved<'_>) {
        let mut flights = self.flights.lock();
        if let Some(flying) = flights.iter_mut().find(|flying| flying.number == number) {
            flying.landed = true;
        }
        let mut upto = None;
        while flights.front().is_some_and(|first| first.landed) && self.failure().is_none() {
            let Some(first) = flights.pop_front() else { break };
            moved(&first.places);
            self.durable.fetch_max(first.last.0, Ordering::AcqRel);
            self.ring.trim(first.position, first.page_tail);
            upto = Some(first.last);
        }
        self.landed.notify_all();
        drop(flights);
        if let Some(last) = upto {
            self.answer(last);
        }
    }

    /// Waits until everything before this position of the ring is durable.
    fn await_landed(&self, end: u64) -> Result<()> {
        let mut flights = self.flights.lock();
        loop {
            if let Some(error) = self.failure() {
                return Err(error);
            }
            if self.ring.window().0 >= end {
                return Ok(());
            }
            self.landed.wait(&mut flights);
        }
    }

    /// Waits until nothing is in flight, or what is will never count.
    pub(super) fn await_all_landed(&self) {
        let mut flights = self.flights.lock();
        while !flights.is_empty() && self.failure().is_none() {
            self.landed.wait(&mut flights);
        }
    }

    /// Opens fresh segments where the next op does not fit.
    fn gather(&self, writer: &mut Writer, end: u64) -> Result<Batch> {
        let header_rf = self.header_rf();
        follow_header_rf(writer, header_rf);
        let mut batch = Batch { header_rf, position: writer.position, ..Batch::default() };
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
        self.end_step();
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

    /// The frame gets its place, its chain and its number; from here on it is in flight.
    fn begin(&self, writer: &mut Writer, batch: Batch) -> Result<Flight> {
        let header_class = batch.header_rf as usize - 1;
        if writer.open[header_class].is_none() {
            self.open_next(writer, batch.header_rf)?;
        }
        let head = head_pages(writer.ops.len());
        let mut places = [FramePlace::default(); 3];
        let mut payload_at = [const { None }; 3];
        for class in 0..3 {
            let Some(open) = writer.open[class].as_ref().filter(|_| batch.pages[class] > 0) else { continue };
            let first = open.next_page + if class == header_class { head } else { 0 };
            let (egroup, pages) = (open.segment.egroup, batch.pages[class] as u16);
            places[class] = FramePlace { egroup, first_page: first as u16, pages };
            if class != header_class {
                payload_at[class] = Some((open.segment.clone(), open.next_page));
            }
        }
        let Some(open) = &writer.open[header_class] else {
            return Err(Error::new(Kind::Internal, "no open log segment"));
        };
        self.make_ready(&open.segment, open.next_page, open.next_page + head + batch.pages[header_class]);
        let frame_at = (open.segment.clone(), open.next_page);
        let durable = self.durable();
        let mut header = FrameHeader {
            op_count: batch.count as u16,
            group: self.group,
            row: self.row,
            incarnation: open.segment.incarnation,
            membership: self.pool.membership(),
            first_lsn: batch.first_lsn,
            durable_lsn: durable,
            ops_bytes: writer.ops.len() as u32,
            header_rf: batch.header_rf,
            wall_sec: self.wall_sec.load(Ordering::Relaxed),
            places,
            ops_checksum: 0,
            previous_chain: writer.chain,
            chain: 0,
        };
        header.seal(&writer.ops, &mut writer.frame);
        let unused = self.heads.lock().pop();
        let memory = unused.unwrap_or_else(|| SharedMemory::heap(self.slot_pages as usize * BLOCK_BYTES));
        memory.write(0, &writer.frame);
        let last = Lsn(header.end_lsn().0 - 1);
        let before = std::mem::replace(&mut writer.chain, header.chain);
        writer.carried = durable;
        advance(writer, (header_class, head), &batch, (before, last));
        self.note_frame(head + batch.pages[header_class]);
        let number = writer.next;
        writer.next += 1;
        writer.position = batch.position;
        let (position, page_tail) = (batch.position, batch.page_tail);
        let places = new_places(&batch, places);
        self.flights.lock().push_back(Flying { number, landed: false, last, position, page_tail, places });
        self.placed.fetch_max(last.0, Ordering::AcqRel);
        self.placed_pages.fetch_max(batch.page_tail, Ordering::AcqRel);
        self.settle(writer);
        Ok(Flight { number, head: memory, head_bytes: writer.frame.len(), payload_at, frame_at, batch })
    }

    fn count_bytes(&self, slices: &[&[u8]]) {
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
    pub(super) fn settle(&self, writer: &Writer) {
        let placed = self.placed();
        let mut reservation = self.reservation.lock();
        while reservation.unplaced.front().is_some_and(|cost| cost.lsn <= placed) {
            reservation.unplaced.pop_front();
        }
        for class in 0..3 {
            reservation.open_pages[class] =
                writer.open[class].as_ref().map(|open| self.slot_pages - open.next_page);
        }
        reservation.rebuild(self.header_rf(), self.slot_pages);
    }
}

/// The open segments after a frame with `head` pages in `header_class`; `chain` goes before it, `last` is its newest op.
fn advance(writer: &mut Writer, (header_class, head): (usize, u32), batch: &Batch, (chain, last): (u64, Lsn)) {
    for class in 0..3 {
        let is_header = class == header_class;
        let touched = is_header || batch.pages[class] > 0;
        let Some(open) = writer.open[class].as_mut().filter(|_| touched) else { continue };
        if is_header && !open.used.has_frames {
            // Numbers rise as segments are taken: recovery follows the chain in this order.
            debug_assert!(open.segment.egroup > writer.framed, "frames go back to {}", open.segment.egroup);
            writer.framed = open.segment.egroup;
            open.used.chain_before = chain;
            open.used.has_frames = true;
        }
        open.next_page += batch.pages[class] + if is_header { head } else { 0 };
        open.used.last_lsn = last;
    }
}

/// Where the ops of a frame will lie, when its payload begins at `bases`.
fn new_places(batch: &Batch, bases: [FramePlace; 3]) -> Vec<(Lsn, Place)> {
    let mut next = bases.map(|base| (base.egroup, base.first_page as u32));
    let place = |(lsn, rf, _, pages): &(Lsn, u8, u64, u32)| {
        let (egroup, page) = &mut next[*rf as usize - 1];
        let place = Place::Egroup(*egroup, *page as u16);
        *page += pages;
        (*lsn, place)
    };
    batch.payloads.iter().map(place).collect()
}
