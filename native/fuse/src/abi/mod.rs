//! The kernel's FUSE protocol, version 7.45: numbers and fixed layouts, parsed from and written to byte
//! slices.
//!
//! Invariants: fields are in the machine's byte order, as the kernel lays them out; a decoder takes any bytes
//! and answers `None` for what is too short or malformed, it never panics; an encoder writes exactly the
//! documented size.

pub mod input;
pub mod output;
#[cfg(test)]
mod tests;

pub const VERSION_MAJOR: u32 = 7;
pub const VERSION_MINOR: u32 = 45;
/// Oldest minor version served: `SETXATTR_EXT`, `HANDLE_KILLPRIV_V2` and the 64-byte INIT are settled by
/// then.
pub const VERSION_MINOR_MIN: u32 = 31;

/// Smallest read buffer the kernel accepts.
pub const READ_BUFFER_BYTES_MIN: usize = 8192;
/// `FUSE_DEV_IOC_CLONE`: `_IOR(229, 0, uint32_t)`.
pub const DEV_IOC_CLONE: u64 = 0x8004_e500;

/// Request numbers.
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const BMAP: u32 = 37;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const POLL: u32 = 40;
    pub const NOTIFY_REPLY: u32 = 41;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
    pub const COPY_FILE_RANGE_64: u32 = 53;
}

/// INIT flags; those from bit 32 up travel in `flags2`.
pub mod init_flag {
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const EXPORT_SUPPORT: u64 = 1 << 4;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const DONT_MASK: u64 = 1 << 6;
    pub const READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const SETXATTR_EXT: u64 = 1 << 29;
    pub const INIT_EXT: u64 = 1 << 30;
    pub const OVER_IO_URING: u64 = 1 << 41;
}

/// SETATTR's `valid` bits.
pub mod fattr {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// WRITE: dirty pages of a mapping.
pub const WRITE_CACHE: u32 = 1 << 0;
/// WRITE: clear suid, and sgid when group-executable.
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// CREATE's reply: the page cache outlives the open; no FLUSH is wanted.
pub const OPEN_KEEP_CACHE: u32 = 1 << 1;
pub const OPEN_NO_FLUSH: u32 = 1 << 5;
/// SETXATTR_EXT: the ACL being set clears sgid.
pub const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;

/// Size of argument 0, which follows the header. 0 for opcodes this crate does not know.
/// With `setxattr_ext` false SETXATTR is the old, 8-byte one.
pub fn op_in_bytes(op: u32, setxattr_ext: bool) -> usize {
    use opcode::*;
    match op {
        LOOKUP | READLINK | SYMLINK | UNLINK | RMDIR | STATFS | REMOVEXATTR | DESTROY => 0,
        FORGET | MKDIR | RENAME | LINK | OPEN | OPENDIR | GETXATTR | LISTXATTR | ACCESS | INTERRUPT
        | BATCH_FORGET | SYNCFS => 8,
        SETXATTR => {
            if setxattr_ext {
                16
            } else {
                8
            }
        }
        GETATTR | MKNOD | FSYNC | FSYNCDIR | CREATE | TMPFILE | BMAP | RENAME2 => 16,
        RELEASE | RELEASEDIR | FLUSH | POLL | LSEEK | STATX => 24,
        FALLOCATE | IOCTL => 32,
        READ | READDIR | READDIRPLUS | WRITE => 40,
        GETLK | SETLK | SETLKW => 48,
        COPY_FILE_RANGE | COPY_FILE_RANGE_64 => 56,
        INIT => 64,
        SETATTR => 88,
        _ => 0,
    }
}
