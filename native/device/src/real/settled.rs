//! Which blocks of a preallocated file were written before, and are known to be so on the disk.
//!
//! The first write into a preallocated block changes the file system's own metadata ("unwritten" becomes
//! "written"), and its sync must wait for the journal. A later overwrite changes nothing but the block: its
//! sync is a flush of the disk's cache, whichever file asks for it.
//!
//! Invariant: a chunk is marked only when the file system says that all of it is written, *after* one sync of
//! the file in this process. What an earlier process wrote without living to see the sync is synced then; what
//! this one writes is synced before its writer is answered. So a marked chunk stays written through a power cut.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is asked for and remembered at a time. No slot is smaller, so a chunk has one writer.
pub(super) const CHUNK_BYTES: u64 = 256 << 10;

const WORD_BITS: u64 = u64::BITS as u64;

// From linux/fs.h and linux/fiemap.h, which the libc crate does not carry.
const FS_IOC_FIEMAP: libc::c_ulong = 0xC020_660B;
const FIEMAP_EXTENT_LAST: u32 = 0x1;
const FIEMAP_EXTENT_MERGED: u32 = 0x1000;
/// More extents than this in one chunk: taken as not written, which is always safe.
const EXTENTS_MAX: usize = 16;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

#[repr(C)]
#[derive(Default)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [Extent; EXTENTS_MAX],
}

const _: () = assert!(size_of::<Extent>() == 56 && size_of::<Request>() == 32 + 56 * EXTENTS_MAX);

pub(super) struct Settled {
    chunks: Vec<AtomicU64>,
    synced: AtomicBool,
}

impl Settled {
    pub(super) fn new(bytes: u64) -> Self {
        let words = bytes.div_ceil(CHUNK_BYTES).div_ceil(WORD_BITS);
        Self { chunks: (0..words).map(|_| AtomicU64::new(0)).collect(), synced: AtomicBool::new(false) }
    }

    /// Whether every chunk of the range is known to be written. Asks the file system about those that are not marked.
    /// `sync` makes durable what was written to the file so far; called once in the file's life.
    ///
    /// Errors: those of `sync` (then the drive's flush has failed).
    pub(super) fn covers(
        &self,
        descriptor: RawFd,
        (offset, bytes): (u64, u64),
        sync: impl Fn() -> io::Result<()>,
    ) -> io::Result<bool> {
        let (first, end) = (offset / CHUNK_BYTES, (offset + bytes).div_ceil(CHUNK_BYTES));
        for chunk in first..end {
            let Some(word) = self.chunks.get((chunk / WORD_BITS) as usize) else { return Ok(false) };
            let bit = 1 << (chunk % WORD_BITS);
            if word.load(Ordering::Acquire) & bit != 0 {
                continue;
            }
            if !self.synced.load(Ordering::Acquire) {
                sync()?;
                self.synced.store(true, Ordering::Release);
            }
            if is_written(descriptor, chunk * CHUNK_BYTES, CHUNK_BYTES) != Some(true) {
                return Ok(false);
            }
            word.fetch_or(bit, Ordering::AcqRel);
        }
        Ok(true)
    }
}

/// Whether the file system has ordinary, written blocks for the whole range. `None`: it cannot tell.
pub(super) fn is_written(descriptor: RawFd, start: u64, length: u64) -> Option<bool> {
    let mut request = Request { start, length, extent_count: EXTENTS_MAX as u32, ..Request::default() };
    // SAFETY: the descriptor is open; the request is laid out as the kernel expects, with room for `extent_count`.
    let answer = unsafe { libc::ioctl(descriptor, FS_IOC_FIEMAP, &mut request) };
    if answer != 0 {
        return None;
    }
    let mut reached = start;
    for extent in request.extents.iter().take(request.mapped_extents as usize) {
        let ordinary = extent.flags & !(FIEMAP_EXTENT_LAST | FIEMAP_EXTENT_MERGED) == 0;
        if !ordinary || extent.logical > reached {
            return Some(false);
        }
        reached = reached.max(extent.logical + extent.length);
    }
    Some(reached >= start + length)
}
