//! What the writer of the log, a frame that is being gathered, and one that is on its way to the drives consist of.

use super::UsedSegment;
use crate::oplog::place::Place;
use crate::placement::Segment;
use holdfast_device::SharedMemory;
use holdfast_format::frame::{FRAME_HEADER_BYTES, FrameHeader, FramePlace};
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::{EgroupId, Lsn};
use std::collections::VecDeque;

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
    pub header_rf: u8,
    /// Written segments in log order, without the open ones.
    pub done: Vec<UsedSegment>,
    pub chain: u64,
    /// `durable_lsn` that the newest frame carries.
    pub carried: Lsn,
    /// Of the pool, when the segments were looked at for lost drives.
    pub membership: u64,
    /// Of the first op in the ring that no frame was begun for.
    pub position: u64,
    /// Number of the next frame.
    pub next: u64,
    /// Segment of the newest frame.
    pub framed: EgroupId,
    /// For the bytes of one head at a time.
    pub scratch: Vec<u8>,
    pub ops: Vec<u8>,
    /// Of them, those whose payload lies beside the frame.
    pub ops_beside: [Vec<u8>; 3],
}

impl Writer {
    pub fn new(header_rf: u8, done: Vec<UsedSegment>, tip: (Lsn, u64), membership: u64, position: u64) -> Self {
        let (carried, chain) = tip;
        let open = [None, None, None];
        let (scratch, ops, ops_beside) = (Vec::new(), Vec::new(), Default::default());
        let framed = done.iter().filter(|used| used.has_frames).map(|used| used.egroup).max().unwrap_or_default();
        Self { open, header_rf, done, chain, carried, membership, position, next: 0, framed, scratch, ops, ops_beside }
    }
}

/// A frame in flight, as the log remembers it.
pub(super) struct Flying {
    pub number: u64,
    pub landed: bool,
    pub last: Lsn,
    /// What the ring may forget.
    pub position: u64,
    pub page_tail: u64,
    pub places: Vec<(Lsn, Place)>,
}

/// Oldest first.
pub(super) type Flights = VecDeque<Flying>;

/// What is to be written for a frame.
pub(super) struct Flight {
    pub number: u64,
    pub frame: Part,
    /// Payload of the other RF classes.
    pub beside: [Option<Part>; 3],
    pub batch: Batch,
}

/// What of a frame goes to one segment, in front of its payload there.
pub(super) struct Part {
    pub segment: Segment,
    pub page: u32,
    pub head: SharedMemory,
    pub head_bytes: usize,
}

/// One durable write of a frame in flight.
#[derive(Clone, Copy)]
pub(super) enum FlightWrite {
    /// Payload of another RF class.
    Payload { class: usize },
    /// The frame, with the payload of its own class.
    Frame,
}

impl Flight {
    pub fn number(&self) -> u64 {
        self.number
    }

    /// In order; each is durable before the next one begins.
    pub fn writes(&self) -> Vec<FlightWrite> {
        let beside = (0..3).filter(|class| self.beside[*class].is_some());
        beside.map(|class| FlightWrite::Payload { class }).chain([FlightWrite::Frame]).collect()
    }
}

/// What the flusher gathers from the ring for one frame.
#[derive(Default)]
pub(super) struct Batch {
    /// Copies of the frame's header. May be raised meanwhile, for later frames.
    pub header_rf: u8,
    pub first_lsn: Lsn,
    pub count: usize,
    pub position: u64,
    pub page_tail: u64,
    pub pages: [u32; 3],
    /// (lsn, rf, page position, pages)
    pub payloads: Vec<(Lsn, u8, u64, u32)>,
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

pub(super) fn clear_ops(writer: &mut Writer) {
    writer.ops.clear();
    writer.ops_beside.iter_mut().for_each(Vec::clear);
}

/// Pages of the heads of a batch, by RF class.
pub(super) fn batch_heads(writer: &Writer, batch: &Batch) -> [u32; 3] {
    std::array::from_fn(|class| {
        if class + 1 == batch.header_rf as usize {
            return head_pages(writer.ops.len());
        }
        if batch.pages[class] > 0 { head_pages(writer.ops_beside[class].len()) } else { 0 }
    })
}

/// The head of a frame's payload in a segment of another RF.
pub(super) fn payload_head(frame: &FrameHeader, batch: &Batch, class: usize, incarnation: u64) -> FrameHeader {
    let ops = batch.payloads.iter().filter(|(_, rf, _, _)| *rf as usize == class + 1).count() as u16;
    let mut places = [FramePlace::default(); 3];
    places[class] = frame.places[class];
    let mut head = FrameHeader { payload_only: true, op_count: ops, incarnation, places, ..frame.clone() };
    (head.header_rf, head.previous_chain) = (class as u8 + 1, 0);
    head
}

/// The open segments after a frame with heads of so many pages; `chain` goes before it, `last` is its newest op.
pub(super) fn advance(writer: &mut Writer, heads: [u32; 3], batch: &Batch, (chain, last): (u64, Lsn)) {
    for (class, head) in heads.into_iter().enumerate() {
        let is_header = class + 1 == batch.header_rf as usize;
        let touched = is_header || batch.pages[class] > 0;
        let Some(open) = writer.open[class].as_mut().filter(|_| touched) else { continue };
        if is_header && !open.used.has_frames {
            // Numbers rise as segments are taken: recovery follows the chain in this order.
            debug_assert!(open.segment.egroup > writer.framed, "frames go back to {}", open.segment.egroup);
            writer.framed = open.segment.egroup;
            open.used.chain_before = chain;
            open.used.has_frames = true;
        }
        open.next_page += head + batch.pages[class];
        open.used.last_lsn = last;
    }
}

/// Where the ops of a frame will lie, when its payload begins at `bases`.
pub(super) fn new_places(batch: &Batch, bases: [FramePlace; 3]) -> Vec<(Lsn, Place)> {
    let mut next = bases.map(|base| (base.egroup, base.first_page as u32));
    let place = |(lsn, rf, _, pages): &(Lsn, u8, u64, u32)| {
        let (egroup, page) = &mut next[*rf as usize - 1];
        let place = Place::Egroup(*egroup, *page as u16);
        *page += pages;
        (*lsn, place)
    };
    batch.payloads.iter().map(place).collect()
}
