//! Making frames and getting them onto the drives, two at a time.
//!
//! A frame is begun under the writer's lock: it gets its ops, its place, and the chain of the one before. It is written
//! without the lock, so the next one can be begun meanwhile. Frames land in any order and count in theirs:
//! - `durable` moves over a frame when it and all frames before it have landed; then its ops' new places are told, the ring
//!   forgets them, and who waited is answered;
//! - a frame that was written while one before it was torn by a crash lies behind a break in the chain: recovery ends
//!   before the break, and nobody was told otherwise;
//! - after a frame has failed, none that follows counts any more.

use super::flight::{
    Batch, FLIGHTS_MAX, Flight, FlightWrite, Flying, Open, Part, Writer, advance, batch_heads, clear_ops, follow_header_rf, head_pages,
    new_places, payload_head,
};
use super::{Log, Moved, UsedSegment};
use crate::error::{Error, Kind, Result};
use crate::placement::Draw;
use holdfast_device::SharedMemory;
use holdfast_format::frame::{FrameHeader, FramePlace};
use holdfast_format::limits::{BLOCK_BYTES, FRAME_OPS_MAX};
use holdfast_format::op::Op;
use holdfast_format::wire::Take;
use holdfast_format::Lsn;
use std::sync::atomic::Ordering;

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
            clear_ops(&mut writer);
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
        let parts = flight.beside.into_iter().flatten().chain([flight.frame]);
        self.heads.lock().extend(parts.map(|part| part.head));
        written.inspect_err(|error| self.fail(error.clone()))?;
        self.land(flight.number, moved);
        Ok(())
    }

    fn write(&self, flight: &Flight) -> Result<()> {
        flight.writes().into_iter().try_for_each(|write| self.write_part(flight, write))
    }

    /// Step 2 or 3.
    pub(super) fn write_part(&self, flight: &Flight, write: FlightWrite) -> Result<()> {
        let own = flight.batch.header_rf as usize - 1;
        let (class, part) = match write {
            FlightWrite::Payload { class } => (class, flight.beside[class].as_ref()),
            FlightWrite::Frame => (own, Some(&flight.frame)),
        };
        let Some(Part { segment, page, head, head_bytes }) = part else { return Ok(()) };
        let mut slices = vec![head.read(0, *head_bytes)];
        slices.extend(self.payload_slices(&flight.batch, class as u8 + 1));
        let offset = page * BLOCK_BYTES as u32;
        let copies = match write {
            FlightWrite::Frame => self.pool.write_segment(segment, offset, &slices)?,
            FlightWrite::Payload { .. } => self.pool.write_payload(segment, offset, &slices)?,
        };
        let pages: usize = slices.iter().map(|slice| slice.len() / BLOCK_BYTES).sum();
        self.secure(segment, page + pages as u32, copies)?;
        self.count_bytes(&slices);
        if matches!(write, FlightWrite::Frame) {
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
        clear_ops(writer);
        while batch.position < end && batch.count < FRAME_OPS_MAX {
            let record = self.ring.record(batch.position)?;
            let op = Op::take(&mut Take::new(record.op)).map_err(|error| Error::decode("an op in the ring", error))?;
            let pages = op.header.payload_pages;
            let rf = if pages == 0 { header_rf } else { op.header.payload_rf };
            let mut wanted = batch.pages;
            wanted[rf as usize - 1] += pages;
            let need = |ops: &[u8], rf: u8| head_pages(ops.len() + record.op.len()) + wanted[rf as usize - 1];
            let header_fits = self.room(writer, header_rf) >= need(&writer.ops, header_rf);
            let beside = &writer.ops_beside[rf as usize - 1];
            let payload_fits = rf == header_rf || self.room(writer, rf) >= need(beside, rf);
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
            if rf != header_rf {
                writer.ops_beside[rf as usize - 1].extend_from_slice(record.op);
            }
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
        let heads = batch_heads(writer, &batch);
        let mut places = [FramePlace::default(); 3];
        for class in 0..3 {
            let Some(open) = writer.open[class].as_ref().filter(|_| batch.pages[class] > 0) else { continue };
            let first_page = (open.next_page + heads[class]) as u16;
            places[class] = FramePlace { egroup: open.segment.egroup, first_page, pages: batch.pages[class] as u16 };
        }
        let Some(open) = &writer.open[header_class] else {
            return Err(Error::new(Kind::Internal, "no open log segment"));
        };
        self.make_ready(&open.segment, open.next_page, open.next_page + heads[header_class] + batch.pages[header_class]);
        let durable = self.durable();
        let header = FrameHeader {
            payload_only: false,
            op_count: batch.count as u16,
            group: self.group,
            row: self.row,
            incarnation: open.segment.incarnation,
            membership: self.pool.membership(),
            first_lsn: batch.first_lsn,
            durable_lsn: durable,
            ops_bytes: 0,
            header_rf: batch.header_rf,
            wall_sec: self.wall_sec.load(Ordering::Relaxed),
            places,
            ops_checksum: 0,
            previous_chain: writer.chain,
            chain: 0,
        };
        let beside = std::array::from_fn(|class| {
            let open = writer.open[class].as_ref().filter(|_| class != header_class && batch.pages[class] > 0)?;
            let head = payload_head(&header, &batch, class, open.segment.incarnation);
            Some(self.part(open, head, &writer.ops_beside[class], &mut writer.scratch).0)
        });
        let last = Lsn(header.end_lsn().0 - 1);
        let (frame, chain) = self.part(open, header, &writer.ops, &mut writer.scratch);
        let before = std::mem::replace(&mut writer.chain, chain);
        writer.carried = durable;
        advance(writer, heads, &batch, (before, last));
        self.note_frame(heads[header_class] + batch.pages[header_class]);
        let number = writer.next;
        writer.next += 1;
        writer.position = batch.position;
        let (position, page_tail) = (batch.position, batch.page_tail);
        let places = new_places(&batch, places);
        self.flights.lock().push_back(Flying { number, landed: false, last, position, page_tail, places });
        self.placed.fetch_max(last.0, Ordering::AcqRel);
        self.placed_pages.fetch_max(batch.page_tail, Ordering::AcqRel);
        self.settle(writer);
        Ok(Flight { number, frame, beside, batch })
    }

    /// Header and ops for the next pages of an open segment, and their chain.
    fn part(&self, open: &Open, mut header: FrameHeader, ops: &[u8], bytes: &mut Vec<u8>) -> (Part, u64) {
        let unused = self.heads.lock().pop();
        let head = unused.unwrap_or_else(|| SharedMemory::heap(self.slot_pages as usize * BLOCK_BYTES));
        header.ops_bytes = ops.len() as u32;
        header.seal(ops, bytes);
        head.write(0, bytes);
        let part = Part { segment: open.segment.clone(), page: open.next_page, head, head_bytes: bytes.len() };
        (part, header.chain)
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
