//! The memory that requests arrive in and answers leave from: one slot an entry of a ring.
//!
//! Invariants:
//! - a slot is either the kernel's, ours, lent to a helper, or lost; its bytes can be reached only while it is
//!   ours, those of its payload by the helper that it is lent to;
//! - pages come as they are touched: the kernel reuses the latest slot first, so memory follows concurrency;
//! - the mapping and the iovecs outlive the ring ([`super::lane::Lane`] drops the ring first), the mapping
//!   whatever is lent, too.
//!
//! A slot: `header page | payload`. Header page: `in_out 0..128 | op_in 128..256 | flags u64 256 | commit_id u64
//! 264 | payload_sz u32 272`. A request's header (40 bytes) and an answer's (16) share `in_out`.

use crate::abi::input::{IN_HEADER_BYTES, InHeader};
use crate::abi::output::out_header;
use crate::errno::Errno;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

const PAGE_BYTES: usize = 4096;
/// What the kernel uses of the header page.
const HEADER_BYTES: usize = 288;
const OP_IN: std::ops::Range<usize> = 128..256;
const COMMIT_ID: std::ops::Range<usize> = 264..272;
const PAYLOAD_BYTES: std::ops::Range<usize> = 272..276;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Owner {
    Kernel,
    Us,
    /// A [`Lent`] is out.
    Helper,
    /// The kernel has given it back for good.
    Nobody,
}

struct Slot {
    owner: Owner,
    queue: u16,
    /// Of the request in it. Saved, for the answer overwrites it.
    commit_id: u64,
    /// Header, payload: what REGISTER points at.
    vectors: Box<[libc::iovec; 2]>,
}

/// A request as it lies in its slot.
pub struct Arrived<'a> {
    pub header: InHeader,
    pub op_in: &'a [u8],
    pub payload: &'a mut [u8],
    /// Bytes of `payload` that are the request's.
    pub filled: usize,
}

struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it is only an address range, unmapped by whoever drops it last; what may be touched in it, and by
// whom, is decided by [`Slots`] and [`Lent`].
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the ring that knew of it is gone, and nobody else has a share in it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A slot's payload, out of the lane's hands until it is returned.
pub struct Lent {
    payload: NonNull<u8>,
    bytes: usize,
    /// Keeps the memory there, even after the lane's end.
    _mapping: Arc<Mapping>,
}

// SAFETY: while it exists, nobody else reaches the payload: it may be used wherever it is.
unsafe impl Send for Lent {}

impl Lent {
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the payload is in the mapping that this keeps, and lent only once; `&mut self` makes this the
        // only reference.
        unsafe { std::slice::from_raw_parts_mut(self.payload.as_ptr(), self.bytes) }
    }
}

pub struct Slots {
    mapping: Arc<Mapping>,
    payload_bytes: usize,
    slots: Vec<Slot>,
}

fn number<const BYTES: usize>(bytes: &[u8]) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    out.copy_from_slice(bytes);
    out
}

impl Slots {
    /// `queues`: number and depth of each. All slots are ours at first.
    pub fn new(queues: &[(u16, usize)], payload_bytes: usize) -> io::Result<Self> {
        let payload_bytes = payload_bytes.next_multiple_of(PAGE_BYTES);
        let stride = PAGE_BYTES + payload_bytes;
        let count: usize = queues.iter().map(|(_, depth)| depth).sum();
        let bytes = stride * count;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new anonymous mapping touches no memory that exists.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let owners = queues.iter().flat_map(|(queue, depth)| std::iter::repeat_n(*queue, *depth));
        let slots = owners.enumerate().map(|(index, queue)| {
            // SAFETY: `index` is below `count`, so header page and payload lie in the mapping.
            let header = unsafe { start.add(index * stride) };
            // SAFETY: as above.
            let payload = unsafe { header.add(PAGE_BYTES) };
            let vectors = [
                libc::iovec { iov_base: header.as_ptr().cast(), iov_len: HEADER_BYTES },
                libc::iovec { iov_base: payload.as_ptr().cast(), iov_len: payload_bytes },
            ];
            Slot { owner: Owner::Us, queue, commit_id: 0, vectors: Box::new(vectors) }
        });
        let slots = slots.collect();
        Ok(Self { mapping: Arc::new(Mapping { start, bytes }), payload_bytes, slots })
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }
    pub fn queue(&self, slot: usize) -> u16 {
        self.slots[slot].queue
    }
    pub fn commit_id(&self, slot: usize) -> u64 {
        self.slots[slot].commit_id
    }
    /// The two iovecs, which stay where they are.
    pub fn vectors(&self, slot: usize) -> *const [libc::iovec; 2] {
        &raw const *self.slots[slot].vectors
    }
    pub fn is_ours(&self, slot: usize) -> bool {
        self.slots[slot].owner == Owner::Us
    }

    /// From here on its memory is not touched.
    pub fn give_to_kernel(&mut self, slot: usize) {
        self.slots[slot].owner = Owner::Kernel;
    }

    /// Nothing will ever come or leave through it.
    pub fn lose(&mut self, slot: usize) {
        self.slots[slot].owner = Owner::Nobody;
    }

    /// # Safety
    /// The kernel has completed the slot's command, and no other was submitted for it.
    pub unsafe fn take_back(&mut self, slot: usize) {
        self.slots[slot].owner = Owner::Us;
    }

    /// Hands a slot's payload to another thread.
    pub fn lend(&mut self, slot: usize) -> Option<Lent> {
        assert!(self.is_ours(slot), "slot {slot} is not ours");
        let payload = NonNull::new(self.slots[slot].vectors[1].iov_base.cast::<u8>())?;
        self.slots[slot].owner = Owner::Helper;
        Some(Lent { payload, bytes: self.payload_bytes, _mapping: Arc::clone(&self.mapping) })
    }

    /// Ends what [`Slots::lend`] began.
    pub fn take_home(&mut self, slot: usize, lent: Lent) {
        let whole = self.slots[slot].vectors[1].iov_base == lent.payload.as_ptr().cast();
        assert!(whole && self.slots[slot].owner == Owner::Helper, "slot {slot} was not lent as this");
        self.slots[slot].owner = Owner::Us;
    }

    fn bytes_of(&mut self, slot: usize) -> (&mut [u8], &mut [u8]) {
        assert!(self.is_ours(slot), "slot {slot} is not ours");
        let vectors = &self.slots[slot].vectors;
        let (header, payload) = (vectors[0].iov_base.cast::<u8>(), vectors[1].iov_base.cast::<u8>());
        // SAFETY: both lie in the mapping, apart from each other and from every other slot; the kernel does
        // not write to a slot that is ours; `&mut self` makes this the only reference.
        unsafe {
            (
                std::slice::from_raw_parts_mut(header, HEADER_BYTES),
                std::slice::from_raw_parts_mut(payload, self.payload_bytes),
            )
        }
    }

    /// Reads the request in a slot that came back. `None`: the kernel has written nonsense.
    pub fn arrived(&mut self, slot: usize) -> Option<Arrived<'_>> {
        let (header, _) = self.bytes_of(slot);
        self.slots[slot].commit_id = u64::from_ne_bytes(number(&header[COMMIT_ID]));
        let (header, payload) = self.bytes_of(slot);
        let filled = u32::from_ne_bytes(number(&header[PAYLOAD_BYTES])) as usize;
        if filled > payload.len() {
            return None;
        }
        let parsed = InHeader::parse(&header[..IN_HEADER_BYTES])?;
        Some(Arrived { header: parsed, op_in: &header[OP_IN], payload, filled })
    }

    /// The answer's header and length. Its payload lies in the slot already, unless `payload` brings it; one
    /// that is too long becomes EIO.
    pub fn answer(&mut self, slot: usize, unique: u64, errno: Errno, payload: Payload<'_>) {
        let (header, room) = self.bytes_of(slot);
        let length = match payload {
            Payload::InPlace(length) => length,
            Payload::Copied(bytes) => bytes.len(),
        };
        let (errno, length) = if length > room.len() { (libc::EIO, 0) } else { (errno, length) };
        if let Payload::Copied(bytes) = payload
            && length > 0
        {
            room[..length].copy_from_slice(bytes);
        }
        let out = out_header(unique, errno, length);
        header[..out.len()].copy_from_slice(&out);
        header[PAYLOAD_BYTES].copy_from_slice(&(length as u32).to_ne_bytes());
    }
}

/// Where an answer's payload is.
#[derive(Clone, Copy)]
pub enum Payload<'a> {
    /// At the front of the slot's own payload: so many bytes.
    InPlace(usize),
    Copied(&'a [u8]),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_lie_where_the_kernel_looks() {
        let mut slots = Slots::new(&[(0, 2), (7, 1)], 10_000).expect("memory");
        assert_eq!((slots.len(), slots.queue(1), slots.queue(2)), (3, 0, 7));
        {
            let (header, payload) = slots.bytes_of(1);
            assert_eq!((payload.len(), payload.as_ptr().align_offset(4096)), (12_288, 0));
            header[4..8].copy_from_slice(&3_u32.to_ne_bytes());
            header[8..16].copy_from_slice(&99_u64.to_ne_bytes());
            header[264..272].copy_from_slice(&77_u64.to_ne_bytes());
            header[272..276].copy_from_slice(&5_u32.to_ne_bytes());
        }
        let arrived = slots.arrived(1).expect("sound");
        assert_eq!((arrived.header.opcode, arrived.header.unique, arrived.filled), (3, 99, 5));
        assert_eq!((arrived.op_in.len(), slots.commit_id(1)), (128, 77));
        slots.answer(1, 99, libc::ENOENT, Payload::Copied(b"abc"));
        let (header, payload) = slots.bytes_of(1);
        assert_eq!(header[..16], out_header(99, libc::ENOENT, 3));
        assert_eq!((&payload[..3], &header[272..276]), (&b"abc"[..], &3_u32.to_ne_bytes()[..]));
        slots.answer(1, 99, 0, Payload::InPlace(12_289));
        assert_eq!(slots.bytes_of(1).0[..16], out_header(99, libc::EIO, 0));
        // More than there is room for cannot be a request.
        slots.bytes_of(2).0[272..276].copy_from_slice(&12_289_u32.to_ne_bytes());
        assert!(slots.arrived(2).is_none());
    }

    #[test]
    fn what_is_lent_comes_home_filled_and_outlives_the_slots() {
        let mut slots = Slots::new(&[(0, 2)], 8192).expect("memory");
        let mut lent = slots.lend(1).expect("there");
        assert!(!slots.is_ours(1) && slots.is_ours(0));
        lent.bytes()[..4].copy_from_slice(b"read");
        slots.take_home(1, lent);
        assert_eq!(&slots.bytes_of(1).1[..4], b"read");
        let mut orphan = slots.lend(0).expect("there");
        drop(slots);
        orphan.bytes().fill(1);
    }

    #[test]
    #[should_panic(expected = "not ours")]
    fn the_kernels_slots_are_out_of_reach() {
        let mut slots = Slots::new(&[(0, 1)], 8192).expect("memory");
        slots.give_to_kernel(0);
        slots.arrived(0);
    }
}
