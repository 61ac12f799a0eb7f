//! The seam to a drive: preallocated named files, read and written at offsets.

use std::io;

/// A file of one drive, opened. Valid until the drive is dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub u32);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// In order after this call for readers of this drive; durable after the next [`Drive::flush`].
    Cached,
    /// Durable when the call returns.
    Durable,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DriveSpace {
    /// Bytes of the file system (or device) that the drive lies on.
    pub total_bytes: u64,
    /// Bytes that this program could still preallocate there.
    pub free_bytes: u64,
    /// Identity of the disk below: drives that share it are not independent.
    pub disk_id: u64,
}

/// One write of a parallel set: `slices` land one after the other at `offset`. Offset and total length are multiples of
/// 4096; the slices' addresses should be, too (else the implementation copies).
pub struct Write<'a> {
    pub drive: &'a dyn Drive,
    pub file: FileId,
    pub offset: u64,
    pub slices: &'a [&'a [u8]],
}

/// One of several places that hold the same bytes.
pub struct Source<'a> {
    pub drive: &'a dyn Drive,
    pub file: FileId,
    pub offset: u64,
}

/// Threads that one set of reads takes.
const READS_AT_ONCE: usize = 8;

/// One read of a parallel set.
pub struct Read<'a> {
    pub drive: &'a dyn Drive,
    pub file: FileId,
    pub offset: u64,
    pub into: &'a mut [u8],
}

/// What one source said.
pub struct Answer<'a> {
    /// Its number among the sources.
    pub source: usize,
    /// The bytes, as long as was asked for.
    pub bytes: Result<&'a [u8], &'a io::Error>,
    /// How long the drive took; `None`: the bytes were in memory, no drive was asked.
    pub took_ns: Option<u64>,
}

/// How a [`read_first`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct First {
    /// The source whose answer was accepted: the buffer holds it.
    pub winner: Option<usize>,
    /// Bit n: source n had not answered when its patience was over.
    pub late: u8,
}

/// What a failed read says of its drive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The drive, or the way to it, is gone: no retry brings it back.
    Gone,
    /// This place of the medium cannot be read; others may be.
    Medium,
    Other,
}

/// Errors of a drive that was unplugged, whose FUSE or network server died (ENOTCONN, ESTALE), or that ends early.
pub fn trouble(error: &io::Error) -> Trouble {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Trouble::Medium;
    }
    match error.raw_os_error() {
        Some(libc::EIO | libc::EILSEQ | libc::EREMOTEIO | libc::EBADMSG) => Trouble::Medium,
        Some(
            libc::ENODEV
            | libc::ENXIO
            | libc::ENOTCONN
            | libc::ESTALE
            | libc::ESHUTDOWN
            | libc::ECONNABORTED
            | libc::ENOMEDIUM,
        ) => Trouble::Gone,
        _ => Trouble::Other,
    }
}

/// Zeroes in one write of a [`prefill`].
const PREFILL_PIECE_BYTES: usize = 256 << 10;

#[repr(align(4096))]
struct Zeroes([u8; 4096]);

static ZEROES: Zeroes = Zeroes([0; 4096]);

/// Sources of one read at most.
pub const SOURCES_MAX: usize = 8;

/// A failed `flush`, or a failed durable write, means that the drive is out (I-8): the caller never retries it.
pub trait Drive: Send + Sync {
    /// For messages: the path.
    fn name(&self) -> String;
    /// Creates and preallocates a file, durably (directory entry included). Content reads as zeroes. Exists: error.
    fn create(&self, file: &str, bytes: u64) -> io::Result<FileId>;
    /// Opens an existing file; `None` when there is none.
    fn open(&self, file: &str) -> io::Result<Option<FileId>>;
    fn remove(&self, file: &str) -> io::Result<()>;
    /// Names of the files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    fn bytes(&self, file: FileId) -> io::Result<u64>;
    /// Fills `into` whole or fails.
    fn read(&self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes all slices, one after the other.
    fn write(&self, file: FileId, offset: u64, slices: &[&[u8]], durability: Durability) -> io::Result<()>;
    /// Everything that was written before this call is durable when it returns.
    fn flush(&self) -> io::Result<()>;
    /// Whether overwriting the range changes nothing but its blocks, as far as is known; if not, [`prefill`] makes it so.
    fn is_cheap(&self, file: FileId, offset: u64, bytes: u64) -> io::Result<bool>;
    fn space(&self) -> io::Result<DriveSpace>;
    /// Device and inode of the file whose lock keeps other programs of this kernel off the drive, while it is held.
    fn lock_identity(&self) -> Option<(u64, u64)>;
    /// The real drive behind this one, if it is one: lets [`write_durable`] use one ring for several drives.
    fn as_real(&self) -> Option<&crate::real::RealDrive> {
        None
    }
    /// A read for somebody's own ring; `None` where the range cannot be read directly. It is not counted as tried: what
    /// comes of it is the caller's affair.
    fn direct_read(&self, file: FileId, offset: u64, bytes: usize) -> Option<crate::real::DirectRead> {
        let _ = (file, offset, bytes);
        None
    }
    /// The simulated drive behind this one, if it is one: a parallel set is one event of its world.
    fn as_sim(&self) -> Option<&crate::sim::SimDrive> {
        None
    }
}

/// Makes overwrites of `bytes` at each of the places cheap: writes zeroes there, durably and in parallel, unless they are
/// cheap already. Content must be dead. One result per place.
pub fn prefill(places: &[Source<'_>], bytes: u64) -> Vec<io::Result<()>> {
    let mut results: Vec<io::Result<()>> = places.iter().map(|_| Ok(())).collect();
    for from in (0..bytes).step_by(PREFILL_PIECE_BYTES) {
        let piece = (bytes - from).min(PREFILL_PIECE_BYTES as u64) as usize;
        let part = |at: usize| &ZEROES.0[..(piece - at).min(ZEROES.0.len())];
        let zeroes: Vec<&[u8]> = (0..piece).step_by(ZEROES.0.len()).map(part).collect();
        let (mut numbers, mut writes) = (Vec::new(), Vec::new());
        for (number, place) in places.iter().enumerate() {
            if results[number].is_err() {
                continue;
            }
            let offset = place.offset + from;
            match place.drive.is_cheap(place.file, offset, piece as u64) {
                Ok(true) => {}
                Ok(false) => {
                    numbers.push(number);
                    writes.push(Write { drive: place.drive, file: place.file, offset, slices: &zeroes });
                }
                Err(error) => results[number] = Err(error),
            }
        }
        for (number, result) in numbers.into_iter().zip(write_durable(&writes)) {
            results[number] = result;
        }
    }
    results
}

/// Reads from the first of `sources` (at most [`SOURCES_MAX`]); when it has not answered after `patience_ns` the next one
/// is asked, too, and so on; at once when an answer is refused. The first answer that `accept` takes wins, and is what
/// `into` holds. What comes later is thrown away.
pub fn read_first(
    sources: &[Source<'_>],
    into: &mut [u8],
    patience_ns: u64,
    accept: &mut dyn FnMut(&Answer<'_>) -> bool,
) -> First {
    let simulated = sources.iter().all(|source| source.drive.as_sim().is_some());
    if simulated {
        crate::sim::read_first(sources, into, patience_ns, accept)
    } else {
        crate::real::read_first(sources, into, patience_ns, accept)
    }
}

/// Reads all at once; each fills its memory whole or fails. Costs a thread a read, and no more than a few: many are read
/// in that many rows.
pub fn read_at_once(reads: Vec<Read<'_>>) -> Vec<io::Result<()>> {
    let simulated = reads.iter().all(|read| read.drive.as_sim().is_some());
    let each = reads.len().div_ceil(READS_AT_ONCE).max(1);
    let mut rows: Vec<Vec<Read<'_>>> = Vec::new();
    for read in reads {
        match rows.last_mut() {
            Some(row) if row.len() < each => row.push(read),
            _ => rows.push(vec![read]),
        }
    }
    let one = |read: Read<'_>| read.drive.read(read.file, read.offset, read.into);
    let jobs = rows.into_iter().map(|row| move || row.into_iter().map(one).collect::<Vec<_>>());
    all_at_once("read", simulated, jobs.collect()).into_iter().flatten().collect()
}

/// Flushes all at once; one result per drive, in order. Costs a thread a drive.
pub fn flush_all(drives: &[&dyn Drive]) -> Vec<io::Result<()>> {
    let simulated = drives.iter().all(|drive| drive.as_sim().is_some());
    let jobs = drives.iter().map(|drive| move || drive.flush());
    all_at_once("flush", simulated, jobs.collect())
}

/// The simulated world gives every event its number: there one after the other, always in this order.
fn all_at_once<T: Send>(name: &str, simulated: bool, jobs: Vec<impl FnOnce() -> T + Send>) -> Vec<T> {
    if simulated { jobs.into_iter().map(|job| job()).collect() } else { crate::threads::run_parallel(name, jobs) }
}

/// Writes all in parallel, each durable when the call returns; one result per write, in order.
pub fn write_durable(writes: &[Write<'_>]) -> Vec<io::Result<()>> {
    let simulated = writes.iter().all(|write| write.drive.as_sim().is_some());
    if simulated { crate::sim::write_durable(writes) } else { crate::real::write_durable(writes) }
}

/// Reads `bytes` bytes from each of the sources, all at once; `None` where the answer has not come within `patience_ns`.
/// Nobody waits for what comes later, and a place that has not answered is not asked again until it has.
pub fn read_each(sources: &[Source<'_>], bytes: usize, patience_ns: u64) -> Vec<Option<io::Result<Vec<u8>>>> {
    let simulated = sources.iter().all(|source| source.drive.as_sim().is_some());
    if simulated {
        crate::sim::read_each(sources, bytes, patience_ns)
    } else {
        crate::real::read_each(sources, bytes, patience_ns)
    }
}

/// As [`write_durable`], and how long each write took, in nanoseconds. Costs a thread a write: for what is done once a
/// second.
pub fn write_durable_timed(writes: &[Write<'_>]) -> Vec<(io::Result<()>, u64)> {
    let simulated = writes.iter().all(|write| write.drive.as_sim().is_some());
    if simulated { crate::sim::write_durable_timed(writes) } else { crate::real::write_durable_timed(writes) }
}
