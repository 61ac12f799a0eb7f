//! One file of a drive: a direct descriptor for durable writes and aligned reads, a buffered one for everything else.
//!
//! Aligned reads are direct: what is worth keeping is kept above, verified, within a budget; in the page cache it would lie
//! twice, and be copied twice. (Cold 4 KiB reads cost the same either way; a 1 MiB read saves its copy.)
//!
//! A direct write drops the cached pages of its range (the kernel does), so a buffered read that starts after it
//! sees it. The two must not *race* on one range: a caller uses a range either for durable or for cached writes
//! at a time, and flushes in between.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::directory::{Directory, check, last_error, stat};
use super::pieces::{PIECE_BYTES, Pieces};
use super::settled::{self, Settled};
use crate::aligned::{AlignedBuffer, DIRECT_ALIGNMENT};
use crate::drive::Durability;

/// More slices than the kernel takes in one call are gathered or written in parts.
pub(super) const SLICES_MAX: usize = 1024;

/// An aligned read of a drive's file, for a ring. Keeps the descriptor open.
pub struct DirectRead {
    file: Arc<DriveFile>,
    offset: u64,
    bytes: usize,
}

impl DirectRead {
    pub(super) fn new(file: Arc<DriveFile>, offset: u64, bytes: usize) -> Option<Self> {
        let fits = file.check_range(offset, bytes as u64).is_ok();
        (fits && file.is_direct_range(offset, bytes)).then_some(Self { file, offset, bytes })
    }
    pub fn descriptor(&self) -> RawFd {
        self.file.descriptor_for(self.offset, self.bytes)
    }
    pub fn offset(&self) -> u64 {
        self.offset
    }
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

pub(super) struct DriveFile {
    pub(super) name: String,
    buffered: OwnedFd,
    /// `None`: the file system refuses O_DIRECT.
    direct: Option<OwnedFd>,
    /// Length when opened: files are preallocated and never grow.
    pub(super) bytes: u64,
    /// Set after a cached write, cleared by the flush before it syncs (under the drive's flush lock).
    pub(super) dirty: AtomicBool,
    settled: Settled,
}

impl DriveFile {
    /// Opens both descriptors and checks on them that the file is ours alone: regular, one name, one identity.
    pub(super) fn open(directory: &Directory, name: &str) -> io::Result<Self> {
        let buffered = directory.open_file(name, libc::O_RDWR | libc::O_NONBLOCK)?;
        let found = stat(&buffered)?;
        if found.st_mode & libc::S_IFMT != libc::S_IFREG || found.st_nlink != 1 {
            let reason = format!("{name}: not a regular file with one name; something rearranged the drive");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        // SAFETY: the descriptor is open; the call only gives advice.
        unsafe { libc::posix_fadvise(buffered.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
        let direct = open_direct(directory, name, &found)?;
        let (name, bytes) = (name.to_owned(), found.st_size as u64);
        let settled = Settled::new(bytes);
        Ok(Self { name, buffered, direct, bytes, dirty: AtomicBool::new(false), settled })
    }

    /// The descriptor whose sync covers both.
    pub(super) fn buffered(&self) -> RawFd {
        self.buffered.as_raw_fd()
    }

    pub(super) fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Where a read or a durable write of this shape goes: aligned ones directly, others through the cache.
    pub(super) fn descriptor_for(&self, offset: u64, total: usize) -> RawFd {
        match &self.direct {
            Some(direct) if self.is_direct_range(offset, total) => direct.as_raw_fd(),
            _ => self.buffered.as_raw_fd(),
        }
    }

    /// Whether the range was written before, durably so: a sync of what overwrites it is a flush of the disk and
    /// nothing else.
    ///
    /// Errors: a failed sync; the drive is out.
    pub(super) fn is_settled(&self, offset: u64, bytes: u64) -> io::Result<bool> {
        self.settled.covers(self.buffered.as_raw_fd(), (offset, bytes), || self.sync_data())
    }

    /// Whether the slices must be copied to aligned memory before this file takes them in one call.
    pub(super) fn needs_copy(&self, slices: &[&[u8]]) -> bool {
        let odd = |slice: &&[u8]| {
            !slice.as_ptr().addr().is_multiple_of(DIRECT_ALIGNMENT)
                || !slice.len().is_multiple_of(DIRECT_ALIGNMENT)
        };
        slices.len() > SLICES_MAX || (self.is_direct() && slices.iter().any(odd))
    }

    /// Files are preallocated: a write past the end is the caller's error.
    pub(super) fn check_range(&self, offset: u64, total: u64) -> io::Result<()> {
        if offset.checked_add(total).is_some_and(|end| end <= self.bytes) {
            return Ok(());
        }
        let reason = format!("{}: {total} bytes at {offset} do not fit into {}", self.name, self.bytes);
        Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
    }

    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            let rest = &mut into[done..];
            let at = offset + done as u64;
            let descriptor = match rest.as_ptr().addr().is_multiple_of(DIRECT_ALIGNMENT) {
                true => self.descriptor_for(at, rest.len()),
                false => self.buffered.as_raw_fd(),
            };
            let at = at as libc::off_t;
            // SAFETY: the descriptor is open; `rest` is a valid buffer of its own length.
            match unsafe { libc::pread(descriptor, rest.as_mut_ptr().cast(), rest.len(), at) } {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                -1 => match last_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
                got => done += got as usize,
            }
        }
        Ok(())
    }

    /// Fills `into` if all of it is in the page cache; false: a drive would have to be asked.
    pub(super) fn read_cached(&self, offset: u64, into: &mut [u8]) -> bool {
        let part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
        let at = offset as libc::off_t;
        // SAFETY: the descriptor is open; the vector is a valid buffer of its own length.
        let got = unsafe { libc::preadv2(self.buffered.as_raw_fd(), &part, 1, at, libc::RWF_NOWAIT) };
        got >= 0 && got as usize == into.len()
    }

    /// Whether a read or write of this shape goes past the page cache.
    pub(super) fn is_direct_range(&self, offset: u64, total: usize) -> bool {
        let aligned =
            offset.is_multiple_of(DIRECT_ALIGNMENT as u64) && total.is_multiple_of(DIRECT_ALIGNMENT);
        aligned && self.is_direct()
    }

    pub(super) fn write(&self, offset: u64, slices: &[&[u8]], durability: Durability) -> io::Result<()> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        self.check_range(offset, total as u64)?;
        match durability {
            Durability::Cached => {
                // Aligned memory goes past the page cache here, too: what is large and not read again soon would only
                // drive out what is.
                let descriptor = match self.needs_copy(slices) {
                    true => self.buffered.as_raw_fd(),
                    false => self.descriptor_for(offset, total),
                };
                let result = write_all(descriptor, offset, slices, 0);
                // After the write, also a failed one, so that the next flush cannot miss what it left behind.
                self.dirty.store(true, Ordering::Release);
                result
            }
            Durability::Durable if self.needs_copy(slices) => {
                let copy = AlignedBuffer::gather(slices);
                write_durable(self.descriptor_for(offset, total), offset, &[&copy])
            }
            Durability::Durable => write_durable(self.descriptor_for(offset, total), offset, slices),
        }
    }

    /// What is left of a durable write after its first `done` bytes.
    pub(super) fn write_rest(&self, offset: u64, slices: &[&[u8]], done: usize) -> io::Result<()> {
        let whole = AlignedBuffer::gather(slices);
        let rest = AlignedBuffer::gather(&[&whole[done..]]);
        self.write(offset + done as u64, &[&rest], Durability::Durable)
    }

    /// Zeroes a range. With a sync afterwards later writes find written blocks.
    /// Whether the range has ordinary, written blocks. `None`: the file system does not tell.
    pub(super) fn is_written(&self, offset: u64, bytes: u64) -> Option<bool> {
        settled::is_written(self.buffered.as_raw_fd(), offset, bytes)
    }

    pub(super) fn sync_data(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open.
        check(unsafe { libc::fdatasync(self.buffered.as_raw_fd()) }).map(drop)
    }
}

/// The second descriptor, which must be the same file as the first. `None`: O_DIRECT is refused here.
fn open_direct(directory: &Directory, name: &str, first: &libc::stat) -> io::Result<Option<OwnedFd>> {
    let direct = match directory.open_file(name, libc::O_RDWR | libc::O_NONBLOCK | libc::O_DIRECT) {
        Ok(direct) => direct,
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
        Err(error) => return Err(error),
    };
    let second = stat(&direct)?;
    if (second.st_dev, second.st_ino) != (first.st_dev, first.st_ino) {
        let reason = format!("{name}: replaced while it was being opened");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    // Some file systems accept the flag and refuse the I/O: ask once.
    let mut probe = AlignedBuffer::zeroed(DIRECT_ALIGNMENT);
    // SAFETY: the descriptor is open; `probe` is a valid buffer of its own length.
    let got = unsafe { libc::pread(direct.as_raw_fd(), probe.as_mut_ptr().cast(), probe.len(), 0) };
    if got == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
        return Ok(None);
    }
    Ok(Some(direct))
}

/// The kernel's view of slices. Valid while they are.
pub(super) fn vectors(slices: &[&[u8]]) -> Vec<libc::iovec> {
    slices
        .iter()
        .map(|slice| libc::iovec { iov_base: slice.as_ptr() as *mut _, iov_len: slice.len() })
        .collect()
}

/// One piece is synced as it is written, several by one sync afterwards.
fn write_durable(descriptor: RawFd, offset: u64, slices: &[&[u8]]) -> io::Result<()> {
    if slices.iter().map(|slice| slice.len()).sum::<usize>() <= PIECE_BYTES {
        return write_all(descriptor, offset, slices, libc::RWF_DSYNC);
    }
    write_all(descriptor, offset, slices, 0)?;
    // SAFETY: the descriptor is open.
    check(unsafe { libc::fdatasync(descriptor) }).map(drop)
}

/// In pieces, one after the other.
pub(super) fn write_all(
    descriptor: RawFd,
    offset: u64,
    slices: &[&[u8]],
    flags: libc::c_int,
) -> io::Result<()> {
    let whole = vectors(slices);
    let mut pieces = Pieces::new(&whole);
    let mut at = offset;
    while let Some(piece) = pieces.next_piece() {
        at += write_piece(descriptor, at, piece, flags)?;
    }
    Ok(())
}

/// Writes all of at most [`SLICES_MAX`] vectors, none of them empty; how many bytes that is.
fn write_piece(descriptor: RawFd, offset: u64, piece: &[libc::iovec], flags: libc::c_int) -> io::Result<u64> {
    let mut vectors = piece.to_vec();
    let (mut first, mut at) = (0, offset);
    while first < vectors.len() {
        let part = &vectors[first..];
        let count = part.len() as libc::c_int;
        // SAFETY: the vectors point into slices that the caller has borrowed; the kernel only reads.
        let put = unsafe { libc::pwritev2(descriptor, part.as_ptr(), count, at as libc::off_t, flags) };
        match put {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            -1 => match last_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
            put => {
                at += put as u64;
                first = advance(&mut vectors, first, put as usize);
            }
        }
    }
    Ok(at - offset)
}

/// Takes `put` written bytes off the vectors; gives the first that still holds some.
fn advance(vectors: &mut [libc::iovec], mut first: usize, mut put: usize) -> usize {
    while first < vectors.len() && put >= vectors[first].iov_len {
        put -= vectors[first].iov_len;
        first += 1;
    }
    if put > 0 {
        // SAFETY: `put` is less than this vector's length, so the pointer stays inside its slice.
        vectors[first].iov_base = unsafe { vectors[first].iov_base.cast::<u8>().add(put) }.cast();
        vectors[first].iov_len -= put;
    }
    first
}
