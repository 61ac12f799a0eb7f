//! Bits of `st_mode`, as Linux has them.

pub const TYPE_MASK: u32 = 0o170_000;
pub const SOCKET: u32 = 0o140_000;
pub const SYMLINK: u32 = 0o120_000;
pub const REGULAR: u32 = 0o100_000;
pub const BLOCK_DEVICE: u32 = 0o060_000;
pub const DIRECTORY: u32 = 0o040_000;
pub const CHARACTER_DEVICE: u32 = 0o020_000;
pub const FIFO: u32 = 0o010_000;

pub const SET_UID: u32 = 0o4000;
pub const SET_GID: u32 = 0o2000;
pub const GROUP_EXECUTE: u32 = 0o010;
/// What chmod may change.
pub const CHANGEABLE: u32 = 0o7777;
pub const PERMISSIONS: u32 = 0o777;

pub fn is_directory(mode: u32) -> bool {
    mode & TYPE_MASK == DIRECTORY
}

pub fn is_regular(mode: u32) -> bool {
    mode & TYPE_MASK == REGULAR
}

pub fn is_symlink(mode: u32) -> bool {
    mode & TYPE_MASK == SYMLINK
}

/// `d_type` of a directory entry.
pub fn entry_kind(mode: u32) -> u8 {
    ((mode & TYPE_MASK) >> 12) as u8
}

/// What a write, a truncation or a change of owner does to a mode: suid goes, and sgid where it means "run as".
pub fn without_privileges(mode: u32) -> u32 {
    let mode = mode & !SET_UID;
    if mode & GROUP_EXECUTE != 0 { mode & !SET_GID } else { mode }
}
