//! Acknowledged ops in memory that outlives the process. Layout: `format/src/ring.rs`.
//!
//! Invariants
//! - One appender at a time (the group's commit lock), one trimmer at a time (the flush lock).
//! - A record is whole before `op_head` passes it; bytes between tail and head are never rewritten.
//! - Pages stay after they were flushed, from `page_kept` on, until an append needs their room: what was just written is
//!   mostly what is read next.
//! - Readers of pages hold `guard` shared from looking the place up until the copy is done; whoever moves `page_kept`
//!   takes it alone.

use crate::error::{Error, Kind, Result};
use holdfast_device::SharedMemory;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::ring::{
    RING_HEAD_OFFSET, RING_HEADER_BYTES, RING_RECORD_HEADER_BYTES, RING_SKIP, RING_TAIL_OFFSET, RingHeader,
    RingRecordHeader,
};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::sync::atomic::{AtomicU64, Ordering};

/// Share of the ring that holds ops; the rest holds payload pages.
const OP_AREA_SHARE: usize = 8;
/// The memory is allocated in so many parts, each when it is first needed: a group that does little takes little.
const PARTS: usize = u64::BITS as usize;
/// Share of the page area that is given up at a time, so that appends seldom wait for readers.
const GIVE_UP_SHARE: u64 = 16;

#[derive(Clone, Copy, Debug)]
struct Positions {
    op_head: u64,
    op_tail: u64,
    page_head: u64,
    /// Everything before is on the drives.
    page_tail: u64,
    /// Everything before is overwritten, or may be.
    page_kept: u64,
}

/// One record, borrowed from the ring.
#[derive(Clone, Copy, Debug)]
pub struct RingRecord<'a> {
    pub op: &'a [u8],
    pub page_position: u64,
    /// Position of the record after this one.
    pub next: u64,
}

pub struct Ring {
    memory: SharedMemory,
    header: RingHeader,
    positions: Mutex<Positions>,
    guard: RwLock<()>,
    /// Bit n: the n-th of [`PARTS`] parts of the memory is allocated; the others were given back, or never were. Changed
    /// under the commit lock only.
    awake: AtomicU64,
}

impl Ring {
    /// Sizes of the areas in a memory of `bytes`.
    fn areas(bytes: usize) -> (u64, u64) {
        let op_area = (bytes / OP_AREA_SHARE).next_multiple_of(BLOCK_BYTES);
        (op_area as u64, (bytes - RING_HEADER_BYTES - op_area) as u64 / BLOCK_BYTES as u64 * BLOCK_BYTES as u64)
    }

    /// Starts an empty ring in `memory`. Whatever was there is gone.
    pub fn format(memory: SharedMemory, boot_id: [u8; 16], pool: holdfast_format::Uuid, group: holdfast_format::GroupId) -> Self {
        let (op_area_bytes, page_area_bytes) = Self::areas(memory.bytes());
        let header = RingHeader { boot_id, pool, group, op_area_bytes, page_area_bytes };
        memory.write(0, &[0; RING_HEADER_BYTES]);
        memory.store(RING_HEAD_OFFSET, 0);
        memory.store(RING_TAIL_OFFSET, 0);
        memory.write(0, &header.encode());
        let positions = Positions { op_head: 0, op_tail: 0, page_head: 0, page_tail: 0, page_kept: 0 };
        let awake = AtomicU64::new(Self::none_awake(memory.bytes()));
        Self { memory, header, positions: Mutex::new(positions), guard: RwLock::new(()), awake }
    }

    /// The ring that an earlier process left, if it is of this boot, pool and group; `None` otherwise.
    pub fn reopen(
        memory: SharedMemory,
        boot_id: [u8; 16],
        pool: holdfast_format::Uuid,
        group: holdfast_format::GroupId,
    ) -> Option<Self> {
        let header = RingHeader::decode(memory.read(0, RING_HEAD_OFFSET)).ok()?;
        let (op_area_bytes, page_area_bytes) = Self::areas(memory.bytes());
        let expected = RingHeader { boot_id, pool, group, op_area_bytes, page_area_bytes };
        if header != expected {
            return None;
        }
        let op_head = memory.load(RING_HEAD_OFFSET);
        let op_tail = memory.load(RING_TAIL_OFFSET);
        if op_tail > op_head || op_head - op_tail > op_area_bytes {
            return None;
        }
        let positions = Positions { op_head, op_tail, page_head: 0, page_tail: 0, page_kept: 0 };
        let awake = AtomicU64::new(Self::none_awake(memory.bytes()));
        Some(Self { memory, header, positions: Mutex::new(positions), guard: RwLock::new(()), awake })
    }

    /// Payload that one op may have at most.
    pub fn payload_bytes_max(&self) -> usize {
        self.header.page_area_bytes as usize / 4
    }

    fn op_offset(&self, position: u64) -> usize {
        RING_HEADER_BYTES + (position % self.header.op_area_bytes) as usize
    }

    fn page_offset(&self, position: u64) -> usize {
        RING_HEADER_BYTES + (self.header.op_area_bytes + position % self.header.page_area_bytes) as usize
    }

    /// Position for `bytes` that must not wrap, in an area of `area` bytes.
    fn contiguous(position: u64, bytes: u64, area: u64) -> u64 {
        let left = area - position % area;
        if bytes <= left { position } else { position + left }
    }

    /// Gives the memory of an empty ring back until the next append. The caller holds the commit lock. False: not empty.
    pub fn sleep(&self) -> bool {
        let positions = self.positions.lock();
        if positions.op_head != positions.op_tail {
            return false;
        }
        drop(positions);
        let none = Self::none_awake(self.memory.bytes());
        if self.awake.swap(none, Ordering::AcqRel) != none {
            let _alone = self.guard.write();
            let mut positions = self.positions.lock();
            positions.page_tail = positions.page_head;
            positions.page_kept = positions.page_head;
            self.memory.release(RING_HEADER_BYTES);
        }
        true
    }

    /// Allocates the memory that the next append needs, where it is not. The caller holds the commit lock.
    ///
    /// # Errors
    /// `NoSpace` when the file system of the run-time directory is full.
    pub fn wake(&self, op_bytes: usize, payload_bytes: usize) -> Result<()> {
        let awake = self.awake.load(Ordering::Acquire);
        if awake == u64::MAX {
            return Ok(());
        }
        let at = *self.positions.lock();
        let (record_bytes, op_start, page_start) = self.places(&at, op_bytes, payload_bytes);
        // Where the record begins anew at the area's start, the old place gets a mark.
        let mark = self.parts(self.op_offset(at.op_head), RING_SKIP.to_le_bytes().len());
        let op = self.parts(self.op_offset(op_start), record_bytes as usize);
        let needed = mark | op | self.parts(self.page_offset(page_start), payload_bytes);
        let full = |error| Error::no_space(format!("no memory for the log's ring in the run-time directory: {error}"));
        for part in (0..PARTS).filter(|part| needed & !awake & 1 << part != 0) {
            let offset = part * self.part_bytes();
            let bytes = self.part_bytes().min(self.memory.bytes().saturating_sub(offset));
            self.memory.allocate(offset, bytes).map_err(full)?;
            self.awake.fetch_or(1 << part, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Parts that a small memory does not have need nothing.
    fn none_awake(bytes: usize) -> u64 {
        let parts = bytes.div_ceil(Self::part_bytes_of(bytes));
        u64::MAX.checked_shl(parts as u32).unwrap_or(0)
    }

    fn part_bytes_of(bytes: usize) -> usize {
        bytes.div_ceil(PARTS).next_multiple_of(BLOCK_BYTES)
    }

    fn part_bytes(&self) -> usize {
        Self::part_bytes_of(self.memory.bytes())
    }

    /// The parts that a range touches.
    fn parts(&self, offset: usize, bytes: usize) -> u64 {
        if bytes == 0 {
            return 0;
        }
        let (first, last) = (offset / self.part_bytes(), (offset + bytes - 1) / self.part_bytes());
        (first..=last).fold(0, |parts, part| parts | 1 << part)
    }

    /// Bytes of a record in the ring, and where it and its payload go.
    fn places(&self, at: &Positions, op_bytes: usize, payload_bytes: usize) -> (u64, u64, u64) {
        let record_bytes = ((RING_RECORD_HEADER_BYTES + op_bytes) as u64).next_multiple_of(8);
        let op_start = Self::contiguous(at.op_head, record_bytes, self.header.op_area_bytes);
        let page_start = Self::contiguous(at.page_head, payload_bytes as u64, self.header.page_area_bytes);
        (record_bytes, op_start, page_start)
    }

    /// Copies an op and its payload in and publishes it. Returns the payload's page position, or `None` when there is no
    /// room until a flush has trimmed. The memory that it needs is there ([`Self::wake`]). The caller holds the commit lock.
    pub fn append(&self, op: &[u8], payload: &[u8]) -> Option<u64> {
        debug_assert!(payload.len().is_multiple_of(BLOCK_BYTES));
        let at = *self.positions.lock();
        let (record_bytes, op_start, page_start) = self.places(&at, op.len(), payload.len());
        let op_end = op_start + record_bytes;
        let page_end = page_start + payload.len() as u64;
        let full = op_end - at.op_tail > self.header.op_area_bytes
            || page_end - at.page_tail > self.header.page_area_bytes;
        if full {
            return None;
        }
        if page_end - at.page_kept > self.header.page_area_bytes {
            self.give_up(page_end);
        }
        if op_start != at.op_head {
            self.memory.write(self.op_offset(at.op_head), &RING_SKIP.to_le_bytes());
        }
        let head = RingRecordHeader { op_bytes: op.len() as u32, page_position: page_start }.encode();
        let offset = self.op_offset(op_start);
        self.memory.write(offset, &head);
        self.memory.write(offset + RING_RECORD_HEADER_BYTES, op);
        self.memory.write(self.page_offset(page_start), payload);
        let mut positions = self.positions.lock();
        positions.op_head = op_end;
        positions.page_head = page_end;
        self.memory.store(RING_HEAD_OFFSET, op_end);
        Some(page_start)
    }

    /// Makes room for pages up to `page_end` where flushed ones lie.
    fn give_up(&self, page_end: u64) {
        let area = self.header.page_area_bytes;
        let _alone = self.guard.write();
        let mut positions = self.positions.lock();
        positions.page_kept = (page_end - area + area / GIVE_UP_SHARE).min(positions.page_tail);
    }

    /// Whether the page at this position is still what was written there. The caller holds [`Ring::reading`].
    pub fn keeps(&self, page_position: u64) -> bool {
        let at = self.positions.lock();
        at.page_kept <= page_position && page_position + BLOCK_BYTES as u64 <= at.page_head
    }

    /// Positions `[tail, head)` of the records that are there now.
    pub fn window(&self) -> (u64, u64) {
        let at = self.positions.lock();
        (at.op_tail, at.op_head)
    }

    /// Page bytes between `position` and head.
    pub fn page_bytes_from(&self, position: u64) -> u64 {
        let at = self.positions.lock();
        at.page_head - position.max(at.page_tail)
    }

    /// The record at `position`, which lies inside the window.
    pub fn record(&self, position: u64) -> Result<RingRecord<'_>> {
        let mut start = position;
        let left = self.header.op_area_bytes - position % self.header.op_area_bytes;
        let first = self.memory.read(self.op_offset(position), 4);
        if first == RING_SKIP.to_le_bytes() {
            start = position + left;
        }
        let offset = self.op_offset(start);
        let bad = || Error::new(Kind::Corrupt, "the ring of unflushed operations is damaged");
        let head = RingRecordHeader::decode(self.memory.read(offset, RING_RECORD_HEADER_BYTES)).map_err(|_| bad())?;
        let op_bytes = head.op_bytes as usize;
        let room = (self.header.op_area_bytes - start % self.header.op_area_bytes) as usize;
        if RING_RECORD_HEADER_BYTES + op_bytes > room {
            return Err(bad());
        }
        let op = self.memory.read(offset + RING_RECORD_HEADER_BYTES, op_bytes);
        let next = start + ((RING_RECORD_HEADER_BYTES + op_bytes) as u64).next_multiple_of(8);
        Ok(RingRecord { op, page_position: head.page_position, next })
    }

    /// Payload bytes. The caller holds [`Ring::reading`], or is the flusher.
    pub fn pages(&self, page_position: u64, bytes: usize) -> &[u8] {
        self.memory.read(self.page_offset(page_position), bytes)
    }

    /// Whether a run of payload bytes does not wrap: needed before merging neighbours.
    pub fn adjoins(&self, page_position: u64, bytes: usize, next_position: u64) -> bool {
        page_position + bytes as u64 == next_position && !next_position.is_multiple_of(self.header.page_area_bytes)
    }

    /// Pages are not given up while this is held.
    pub fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.guard.read()
    }

    /// Gives room back up to these positions. The places of what goes must already say where it went; its pages can be
    /// read until the room is used.
    pub fn trim(&self, op_tail: u64, page_tail: u64) {
        let mut positions = self.positions.lock();
        positions.op_tail = op_tail;
        positions.page_tail = positions.page_tail.max(page_tail);
        self.memory.store(RING_TAIL_OFFSET, op_tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_format::{GroupId, Uuid};

    fn ring(bytes: usize) -> Ring {
        Ring::format(SharedMemory::heap(bytes), [1; 16], Uuid([2; 16]), GroupId(3))
    }

    #[test]
    fn flushed_pages_stay_until_their_room_is_needed() {
        let ring = ring(1 << 20);
        let mut positions = Vec::new();
        for number in 0..1000u32 {
            let page = [number as u8; BLOCK_BYTES];
            ring.wake(2, BLOCK_BYTES).expect("memory");
            let position = ring.append(b"op", &page).expect("all before is flushed");
            positions.push(position);
            let (_, head) = ring.window();
            ring.trim(head, position + BLOCK_BYTES as u64);
            assert_eq!(ring.window().0, head, "nothing waits for a flush");
            let _guard = ring.reading();
            assert!(ring.keeps(position));
            for (back, old) in positions.iter().rev().enumerate().filter(|(_, old)| ring.keeps(**old)) {
                assert!(ring.pages(*old, BLOCK_BYTES) == [(number as usize - back) as u8; BLOCK_BYTES]);
            }
        }
        let kept = positions.iter().filter(|position| ring.keeps(**position)).count();
        let area_pages = ring.header.page_area_bytes as usize / BLOCK_BYTES;
        assert!(kept >= area_pages * 7 / 8 && kept <= area_pages, "{kept} of {area_pages}");
        assert!(ring.sleep());
        assert!(positions.iter().all(|position| !ring.keeps(*position)), "its memory was given back");
    }

    #[test]
    fn what_waits_for_a_flush_is_never_given_up() {
        let ring = ring(1 << 20);
        let mut positions = Vec::new();
        while let Some(position) = ring.append(b"op", &[7; BLOCK_BYTES]) {
            positions.push(position);
        }
        assert!(positions.iter().all(|position| ring.keeps(*position)));
        assert_eq!(ring.page_bytes_from(positions[0]), (positions.len() * BLOCK_BYTES) as u64);
    }

    #[test]
    fn memory_is_allocated_part_by_part_as_it_is_needed() {
        for bytes in [4 << 20, (5 << 20) + 12_288] {
            let ring = ring(bytes);
            let none = Ring::none_awake(bytes);
            assert_eq!(ring.awake.load(Ordering::Relaxed), none);
            let payload = vec![7; 5 * BLOCK_BYTES];
            ring.wake(100, payload.len()).expect("memory");
            ring.append(&[1; 100], &payload).expect("room");
            let after_one = ring.awake.load(Ordering::Relaxed) & !none;
            assert!((1..=4).contains(&after_one.count_ones()), "{after_one:b}");
            while ring.awake.load(Ordering::Relaxed) != u64::MAX {
                ring.wake(30_000, payload.len()).expect("memory");
                if ring.append(&[1; 30_000], &payload).is_none() {
                    let (_, head) = ring.window();
                    let pages = ring.positions.lock().page_head;
                    ring.trim(head, pages);
                }
            }
            let (_, head) = ring.window();
            let pages = ring.positions.lock().page_head;
            ring.trim(head, pages);
            assert!(ring.sleep());
            assert_eq!(ring.awake.load(Ordering::Relaxed), none);
        }
    }
}
