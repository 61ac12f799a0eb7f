//! Keys of a group's records. Big-endian fields, so that byte order is record order.
//!
//! ```text
//! key       = branch u32 BE | inode u64 BE | kind u8 | rest
//! 0x01 VOLUME   (inode 0)            one per volume branch
//! 0x10 INODE                         -> inode.rs InodeRecord
//! 0x20 XATTR    name                 -> raw value
//! 0x30 DIRENT   cookie u64 BE, name  -> dirent.rs DirentRecord; cookie = hash 48 bits << 15 | sequence 15 bits
//! 0x40 DATA     start_block u32 BE, (8 - level) u8  -> cell.rs Cell; parents sort before their children
//! 0x50 LINK     parent u64 BE, cookie u64 BE        -> empty; every parent of a hard link but the first
//! 0x60 ORPHAN   (inode 0) orphan u64 BE             -> empty; unlinked, still open
//! 0x70 POINT    (branch 0, inode 0) lsn u64 BE      -> point.rs PointRecord
//! 0x71 RETENTION (branch 0, inode 0)                -> retention.rs RetentionRecord
//! 0x72 REPLICA  (branch 0, inode 0)                 -> replica.rs ReplicaRecord
//! 0x73 FOLLOWER (branch 0, inode 0) name            -> replica.rs FollowerRecord
//! ```

use crate::ids::{BranchId, Ino};
use crate::limits::CELL_LEVEL_MAX;

pub const KIND_VOLUME: u8 = 0x01;
pub const KIND_INODE: u8 = 0x10;
pub const KIND_XATTR: u8 = 0x20;
pub const KIND_DIRENT: u8 = 0x30;
pub const KIND_DATA: u8 = 0x40;
pub const KIND_LINK: u8 = 0x50;
pub const KIND_ORPHAN: u8 = 0x60;
pub const KIND_POINT: u8 = 0x70;
pub const KIND_RETENTION: u8 = 0x71;
pub const KIND_REPLICA: u8 = 0x72;
pub const KIND_FOLLOWER: u8 = 0x73;

pub type Key = Vec<u8>;

/// Bytes before `rest`.
pub const PREFIX_BYTES: usize = 13;

fn prefix(branch: BranchId, ino: Ino, kind: u8) -> Key {
    let mut key = Vec::with_capacity(PREFIX_BYTES + 16);
    key.extend_from_slice(&branch.0.to_be_bytes());
    key.extend_from_slice(&ino.0.to_be_bytes());
    key.push(kind);
    key
}

pub fn volume(branch: BranchId) -> Key {
    prefix(branch, Ino(0), KIND_VOLUME)
}

pub fn inode(branch: BranchId, ino: Ino) -> Key {
    prefix(branch, ino, KIND_INODE)
}

pub fn xattr(branch: BranchId, ino: Ino, name: &[u8]) -> Key {
    let mut key = prefix(branch, ino, KIND_XATTR);
    key.extend_from_slice(name);
    key
}

pub fn dirent(branch: BranchId, dir: Ino, cookie: u64, name: &[u8]) -> Key {
    let mut key = dirent_from(branch, dir, cookie);
    key.extend_from_slice(name);
    key
}

/// First possible key of a directory entry whose cookie is at least `cookie`.
pub fn dirent_from(branch: BranchId, dir: Ino, cookie: u64) -> Key {
    let mut key = prefix(branch, dir, KIND_DIRENT);
    key.extend_from_slice(&cookie.to_be_bytes());
    key
}

pub fn data(branch: BranchId, ino: Ino, start_block: u32, level: u8) -> Key {
    debug_assert!(level <= CELL_LEVEL_MAX);
    let mut key = prefix(branch, ino, KIND_DATA);
    key.extend_from_slice(&start_block.to_be_bytes());
    key.push(CELL_LEVEL_MAX - level);
    key
}

pub fn link(branch: BranchId, ino: Ino, parent: Ino, cookie: u64) -> Key {
    let mut key = prefix(branch, ino, KIND_LINK);
    key.extend_from_slice(&parent.0.to_be_bytes());
    key.extend_from_slice(&cookie.to_be_bytes());
    key
}

pub fn orphan(branch: BranchId, ino: Ino) -> Key {
    let mut key = prefix(branch, Ino(0), KIND_ORPHAN);
    key.extend_from_slice(&ino.0.to_be_bytes());
    key
}

pub fn point(lsn: crate::Lsn) -> Key {
    let mut key = prefix(crate::GROUP_BRANCH, Ino(0), KIND_POINT);
    key.extend_from_slice(&lsn.0.to_be_bytes());
    key
}

/// What the group keeps of the past.
pub fn retention() -> Key {
    prefix(crate::GROUP_BRANCH, Ino(0), KIND_RETENTION)
}

/// What a replica has of its owner.
pub fn replica() -> Key {
    prefix(crate::GROUP_BRANCH, Ino(0), KIND_REPLICA)
}

/// What a follower of the group has.
pub fn follower(name: &[u8]) -> Key {
    let mut key = prefix(crate::GROUP_BRANCH, Ino(0), KIND_FOLLOWER);
    key.extend_from_slice(name);
    key
}

/// Whether a key is a kept point's. Nobody looks at the points of an earlier time.
pub fn is_point(key: &[u8]) -> bool {
    key.len() == PREFIX_BYTES + 8 && key[..PREFIX_BYTES - 1] == [0; PREFIX_BYTES - 1] && key[PREFIX_BYTES - 1] == KIND_POINT
}

/// `[from, until)` of all records of one kind of one inode.
pub fn kind_range(branch: BranchId, ino: Ino, kind: u8) -> (Key, Key) {
    (prefix(branch, ino, kind), prefix(branch, ino, kind + 1))
}

/// A key taken apart again. `rest` is what follows the kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts<'a> {
    pub branch: BranchId,
    pub ino: Ino,
    pub kind: u8,
    pub rest: &'a [u8],
}

pub fn parts(key: &[u8]) -> Option<Parts<'_>> {
    let (branch, rest) = key.split_first_chunk::<4>()?;
    let (ino, rest) = rest.split_first_chunk::<8>()?;
    let (kind, rest) = rest.split_first()?;
    Some(Parts {
        branch: BranchId(u32::from_be_bytes(*branch)),
        ino: Ino(u64::from_be_bytes(*ino)),
        kind: *kind,
        rest,
    })
}

/// Start block and level of a DATA key, `None` for any other key.
pub fn data_place(key: &[u8]) -> Option<(u32, u8)> {
    let parts = parts(key)?;
    if parts.kind != KIND_DATA {
        return None;
    }
    let (start, rest) = parts.rest.split_first_chunk::<4>()?;
    match rest {
        [inverted] if *inverted <= CELL_LEVEL_MAX => {
            Some((u32::from_be_bytes(*start), CELL_LEVEL_MAX - inverted))
        }
        _ => None,
    }
}

/// Cookie and name of a DIRENT key, `None` for any other key.
pub fn dirent_place(key: &[u8]) -> Option<(u64, &[u8])> {
    let parts = parts(key)?;
    if parts.kind != KIND_DIRENT {
        return None;
    }
    let (cookie, name) = parts.rest.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*cookie), name))
}

pub const COOKIE_SEQUENCE_BITS: u32 = 15;

/// First cookie that a name may have; the next 2^15 are for names with the same hash. Cookies are
/// 1 … 2^63 − 1: hash 0 maps to 1, and 0 to 15 stay free for "." and "..".
pub fn cookie_base(name: &[u8]) -> u64 {
    let hash = crate::checksum::checksum(name) >> 16;
    hash.max(1) << COOKIE_SEQUENCE_BITS
}
