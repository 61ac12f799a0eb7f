//! What the kernel's door (`holdfast-fuse`) calls: one file system, as POSIX sees it. `volume::Volume` is the
//! implementation; the FUSE tests have a small one in memory.

use crate::error::Error;
use crate::gate::Gate;
use holdfast_format::Ino;
use holdfast_format::inode::{Time, Writer};
use std::sync::Arc;

/// A node of the past is an opened point's number above this many bits and an inode's number below them; the present's are
/// plain inode numbers.
pub const SLOT_SHIFT: u32 = 48;
/// Stands for the directories that lead to the past.
pub const PAST_NAMES_SLOT: u64 = 0xffff;

/// Whether a name that led to this node may lead elsewhere a moment later: `at/-5m` does, and points go.
pub const fn is_fleeting(node: Ino) -> bool {
    let (slot, ino) = (node.0 >> SLOT_SHIFT, node.0 & ((1 << SLOT_SHIFT) - 1));
    slot == PAST_NAMES_SLOT || slot != 0 && ino == holdfast_format::ROOT_INO.0
}

/// The name in the root that leads to the past, and that nobody can give.
pub const PAST_NAME: &[u8] = b".holdfast";

/// Names in any directory that ask who changed another one last: that name follows.
pub const WHO_PREFIX: &[u8] = b".holdfast:who:";

/// Whether a name that is not there may be there a moment later though nobody made it: a time, the door to the past
/// when it is opened, or a question about another name.
pub fn is_fleeting_name(dir: Ino, name: &[u8]) -> bool {
    is_fleeting(dir) || dir == holdfast_format::ROOT_INO && name == PAST_NAME || name.starts_with(WHO_PREFIX)
}

/// Why a request failed. The FUSE crate turns these into errno, in one place.
#[derive(Clone, Debug)]
pub enum FsError {
    NotFound,
    Exists,
    NotDirectory,
    IsDirectory,
    NotEmpty,
    NameTooLong,
    Invalid,
    Permission,
    Access,
    TooManyLinks,
    FileTooBig,
    NoData,
    Range,
    NotSupported,
    CrossDevice,
    ReadOnly,
    Stale,
    NoSpace,
    Quota,
    NoSuchDeviceOrAddress,
    TooBig,
    /// Anything the engine reports: EIO, or ENOSPC for `Kind::NoSpace`, EROFS for `Kind::Fenced`.
    Store(Error),
}

impl From<Error> for FsError {
    fn from(error: Error) -> Self {
        match error.kind {
            crate::error::Kind::NoSpace => Self::NoSpace,
            // A point of the past has gone.
            crate::error::Kind::NotFound => Self::Stale,
            _ => Self::Store(error),
        }
    }
}

pub type FsResult<T> = Result<T, FsError>;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    pub umask: u32,
    /// What is noted of who makes a change; `None`: nobody knows.
    pub writer: Option<Writer>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attr {
    pub ino: Ino,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub btime: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    Now,
    At(Time),
}

#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits and suid, sgid, sticky; the type is kept.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    /// FATTR_KILL_SUIDGID: clear suid, and sgid when group-executable.
    pub kill_suidgid: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct WriteFlags {
    /// FUSE_WRITE_KILL_SUIDGID.
    pub kill_suidgid: bool,
    /// The file is open with O_DSYNC or O_SYNC: an fsync follows (or never will, with direct I/O): begin the flush now.
    pub will_sync: bool,
}

/// A directory entry; `cookie` continues *after* it.
pub struct DirEntry<'a> {
    pub ino: Ino,
    /// mode >> 12
    pub kind: u8,
    pub cookie: u64,
    pub name: &'a [u8],
    /// Filled for `readdir(plus = true)`, except for "." and "..".
    pub attr: Option<Attr>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whence {
    Data,
    Hole,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StatFs {
    pub block_bytes: u32,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    pub name_bytes_max: u32,
}

/// Fallocate modes as Linux has them (falloc.h).
pub const FALLOC_KEEP_SIZE: u32 = 1;
pub const FALLOC_PUNCH_HOLE: u32 = 2;
pub const FALLOC_COLLAPSE_RANGE: u32 = 8;
pub const FALLOC_ZERO_RANGE: u32 = 16;
pub const FALLOC_INSERT_RANGE: u32 = 32;

pub const RENAME_NOREPLACE: u32 = 1;
pub const RENAME_EXCHANGE: u32 = 2;
pub const RENAME_WHITEOUT: u32 = 4;

pub const XATTR_CREATE: u32 = 1;
pub const XATTR_REPLACE: u32 = 2;

/// Called once, from any thread, when everything up to the request's LSN is durable, or cannot become so.
pub type FlushDone = Box<dyn FnOnce(FsResult<()>) + Send>;

/// Every call that returns an [`Attr`] for a name (`lookup`, `create`, `mknod`, `mkdir`, `symlink`, `link`, `tmpfile`,
/// and each `readdir` entry with attributes) counts one reference of the kernel to that inode; `forget` gives
/// them back. An unlinked inode lives while it is referenced.
pub trait FileSystem: Send + Sync {
    fn lookup(&self, dir: Ino, name: &[u8]) -> FsResult<Attr>;
    fn forget(&self, ino: Ino, count: u64);
    fn getattr(&self, ino: Ino) -> FsResult<Attr>;
    fn setattr(&self, caller: &Caller, ino: Ino, set: &SetAttr) -> FsResult<Attr>;
    fn readlink(&self, ino: Ino) -> FsResult<Vec<u8>>;
    /// A regular file. Fails with `Exists` when the name exists.
    fn create(&self, caller: &Caller, dir: Ino, name: &[u8], mode: u32) -> FsResult<Attr>;
    fn mknod(&self, caller: &Caller, dir: Ino, name: &[u8], mode: u32, rdev: u32) -> FsResult<Attr>;
    fn mkdir(&self, caller: &Caller, dir: Ino, name: &[u8], mode: u32) -> FsResult<Attr>;
    fn symlink(&self, caller: &Caller, dir: Ino, name: &[u8], target: &[u8]) -> FsResult<Attr>;
    fn link(&self, caller: &Caller, ino: Ino, dir: Ino, name: &[u8]) -> FsResult<Attr>;
    fn tmpfile(&self, caller: &Caller, dir: Ino, mode: u32) -> FsResult<Attr>;
    fn unlink(&self, caller: &Caller, dir: Ino, name: &[u8]) -> FsResult<()>;
    fn rmdir(&self, caller: &Caller, dir: Ino, name: &[u8]) -> FsResult<()>;
    fn rename(&self, caller: &Caller, from: (Ino, &[u8]), to: (Ino, &[u8]), flags: u32) -> FsResult<()>;
    /// Fills `into` as far as the file goes; returns the bytes filled.
    fn read(&self, caller: &Caller, ino: Ino, offset: u64, into: &mut [u8]) -> FsResult<usize>;
    /// Writes all of `data` (at most `write_bytes_max`).
    fn write(&self, caller: &Caller, ino: Ino, offset: u64, data: &[u8], flags: WriteFlags) -> FsResult<()>;
    fn fallocate(&self, caller: &Caller, ino: Ino, offset: u64, length: u64, mode: u32) -> FsResult<()>;
    /// Returns the bytes copied, which may be fewer than asked for.
    fn copy_file_range(&self, caller: &Caller, from: (Ino, u64), to: (Ino, u64), length: u64) -> FsResult<u64>;
    fn lseek(&self, ino: Ino, offset: u64, whence: Whence) -> FsResult<u64>;
    /// Makes the newest change of the inode durable, with everything that was acknowledged before it, then calls `done`.
    /// For the root that is everything.
    fn fsync(&self, caller: &Caller, ino: Ino, done: FlushDone);
    /// Calls `visit` for entries after `cookie` (0: from the start, with "." and "..") until it returns false.
    /// The entry for which it returns false was refused: it counts no reference and comes again.
    fn readdir(
        &self,
        caller: &Caller,
        dir: Ino,
        cookie: u64,
        plus: bool,
        visit: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> FsResult<()>;
    fn getxattr(&self, ino: Ino, name: &[u8]) -> FsResult<Vec<u8>>;
    fn setxattr(&self, caller: &Caller, ino: Ino, name: &[u8], value: &[u8], flags: u32, kill_sgid: bool)
    -> FsResult<()>;
    /// Names, each followed by NUL.
    fn listxattr(&self, ino: Ino) -> FsResult<Vec<u8>>;
    fn removexattr(&self, caller: &Caller, ino: Ino, name: &[u8]) -> FsResult<()>;
    fn statfs(&self) -> FsResult<StatFs>;
    /// Largest write that the engine takes in one op.
    fn write_bytes_max(&self) -> u32;
    /// Where what changes something has to pass; `None`: nowhere.
    fn gate(&self) -> Option<Arc<Gate>> {
        None
    }
}
