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
    /// So many bytes behind the slices hold nothing, and will be written next: an implementation may zero them along
    /// the way, so that the next write finds blocks that were written before.
    pub dead_after: u32,
}

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
    /// Makes later overwrites of the range cheap: writes zeroes into it. Content must be dead.
    fn prefill(&self, file: FileId, offset: u64, bytes: u64) -> io::Result<()>;
    fn space(&self) -> io::Result<DriveSpace>;
    /// The real drive behind this one, if it is one: lets [`write_durable`] use one ring for several drives.
    fn as_real(&self) -> Option<&crate::real::RealDrive> {
        None
    }
    /// The simulated drive behind this one, if it is one: a parallel set is one event of its world.
    fn as_sim(&self) -> Option<&crate::sim::SimDrive> {
        None
    }
}

/// Writes all in parallel, each durable when the call returns; one result per write, in order.
pub fn write_durable(writes: &[Write<'_>]) -> Vec<io::Result<()>> {
    let simulated = writes.iter().all(|write| write.drive.as_sim().is_some());
    if simulated { crate::sim::write_durable(writes) } else { crate::real::write_durable(writes) }
}
