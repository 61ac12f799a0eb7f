//! Ops: one change each, the unit of LSN, as resolved results (I-2, I-3).
//!
//! ```text
//! op      = header (88 B) | effects (effects_bytes)
//! header  = lsn u64 | row u32 | branch u32 | kind u8 | payload_rf u8 | reserved u16 | payload_pages u32
//!         | uid u32 | gid u32 | pid u32 | time: sec i64, nsec u32 | inode u64 | offset u64 | length u64
//!         | effects_bytes u32 | reserved u32 | checksum u64 over everything before and the effects
//! effect  = tag u8 | body
//! 1 PUT     key_len u16 | value_len u32 | key | value
//! 2 DELETE  key_len u16 | key
//! 3 PAGES   inode u64 | start_block u32 | count u16 | first_page u16 | checksum u64 × count
//!           blocks that are the op's payload pages first_page …; cut into LOGGED cells by the reader
//! ```
//! Payload pages are not part of the op's bytes: the frame or the ring says where they lie.

use crate::cell::{self, Cell};
use crate::checksum::checksum;
use crate::ids::{BranchId, Ino, Lsn, Row};
use crate::inode::Time;
use crate::key;
use crate::limits::{CELL_LEVEL_DATA_MAX, EGROUP_PAGES_MAX, KEY_BYTES_MAX, OP_BYTES_MAX, VALUE_BYTES_MAX};
use crate::wire::{DecodeError, Put, Take};

pub const OP_HEADER_BYTES: usize = 88;

/// What the caller asked for: for the change feed and the loss statement. The effects say what happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum OpKind {
    VolumeCreate = 1,
    VolumeSet = 2,
    VolumeDestroy = 3,
    Create = 10,
    Mkdir = 11,
    Symlink = 12,
    Mknod = 13,
    Link = 14,
    Unlink = 15,
    Rmdir = 16,
    Rename = 17,
    TmpFile = 18,
    Reap = 19,
    SetAttr = 20,
    Truncate = 21,
    SetXattr = 22,
    RemoveXattr = 23,
    Write = 30,
    Fallocate = 31,
    CopyRange = 32,
    Fsync = 33,
    Point = 40,
    EpochStart = 41,
    PointDrop = 42,
    PointSet = 43,
    /// A replica takes a part of what its owner did.
    Stage = 50,
}

impl OpKind {
    pub const ALL: [Self; 26] = [
        Self::VolumeCreate,
        Self::VolumeSet,
        Self::VolumeDestroy,
        Self::Create,
        Self::Mkdir,
        Self::Symlink,
        Self::Mknod,
        Self::Link,
        Self::Unlink,
        Self::Rmdir,
        Self::Rename,
        Self::TmpFile,
        Self::Reap,
        Self::SetAttr,
        Self::Truncate,
        Self::SetXattr,
        Self::RemoveXattr,
        Self::Write,
        Self::Fallocate,
        Self::CopyRange,
        Self::Fsync,
        Self::Point,
        Self::EpochStart,
        Self::PointDrop,
        Self::PointSet,
        Self::Stage,
    ];

    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == value)
    }
}

/// Who asked, as far as the kernel tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Actor {
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpHeader {
    pub lsn: Lsn,
    pub row: Row,
    pub branch: BranchId,
    pub kind: OpKind,
    /// RF of the payload pages (the volume's), 0 when there are none.
    pub payload_rf: u8,
    pub payload_pages: u32,
    pub actor: Actor,
    pub time: Time,
    pub ino: Ino,
    pub offset: u64,
    pub length: u64,
}

/// One resolved result. Encoded straight into the op's bytes by [`Effects`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect<'a> {
    Put { key: &'a [u8], value: &'a [u8] },
    Delete { key: &'a [u8] },
    Pages { ino: Ino, start_block: u32, count: u16, first_page: u16, checksums: &'a [u8] },
}

/// Effects of one op, being built.
#[derive(Clone, Default, Debug)]
pub struct Effects {
    bytes: Vec<u8>,
}

impl Effects {
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(512) }
    }
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        debug_assert!(key.len() <= KEY_BYTES_MAX && value.len() <= VALUE_BYTES_MAX);
        self.bytes.put_u8(1);
        self.bytes.put_u16(key.len() as u16);
        self.bytes.put_u32(value.len() as u32);
        self.bytes.put_bytes(key);
        self.bytes.put_bytes(value);
    }
    pub fn delete(&mut self, key: &[u8]) {
        self.bytes.put_u8(2);
        self.bytes.put_u16(key.len() as u16);
        self.bytes.put_bytes(key);
    }
    /// `checksums[n]` is that of payload page `first_page + n`, which becomes block `start_block + n`.
    pub fn pages(&mut self, ino: Ino, start_block: u32, first_page: u16, checksums: &[u64]) {
        self.bytes.put_u8(3);
        self.bytes.put_u64(ino.0);
        self.bytes.put_u32(start_block);
        self.bytes.put_u16(checksums.len() as u16);
        self.bytes.put_u16(first_page);
        checksums.iter().for_each(|sum| self.bytes.put_u64(*sum));
    }
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Appends the op to `out`.
pub fn encode_op(out: &mut Vec<u8>, header: &OpHeader, effects: &[u8]) {
    debug_assert!(OP_HEADER_BYTES + effects.len() <= OP_BYTES_MAX);
    let start = out.len();
    out.put_u64(header.lsn.0);
    out.put_u32(header.row.0);
    out.put_u32(header.branch.0);
    out.put_u8(header.kind as u8);
    out.put_u8(header.payload_rf);
    out.put_u16(0);
    out.put_u32(header.payload_pages);
    out.put_u32(header.actor.uid);
    out.put_u32(header.actor.gid);
    out.put_u32(header.actor.pid);
    out.put_i64(header.time.sec);
    out.put_u32(header.time.nsec);
    out.put_u64(header.ino.0);
    out.put_u64(header.offset);
    out.put_u64(header.length);
    out.put_u32(effects.len() as u32);
    out.put_u32(0);
    debug_assert_eq!(out.len() - start, OP_HEADER_BYTES - 8);
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(&out[start..]);
    hasher.update(effects);
    out.put_u64(hasher.digest());
    out.put_bytes(effects);
}

/// A decoded op that borrows its effects; verified by checksum.
#[derive(Clone, Debug)]
pub struct Op<'a> {
    pub header: OpHeader,
    pub effects: &'a [u8],
}

impl<'a> Op<'a> {
    /// Takes one op off the front. Bytes are verified before anything is believed.
    pub fn take(take: &mut Take<'a>) -> Result<Self, DecodeError> {
        let head = take.bytes(OP_HEADER_BYTES)?;
        let mut fields = Take::new(head);
        let lsn = Lsn(fields.u64()?);
        let row = Row(fields.u32()?);
        let branch = BranchId(fields.u32()?);
        let kind = fields.u8()?;
        let payload_rf = fields.u8()?;
        let reserved = fields.u16()?;
        let payload_pages = fields.u32()?;
        let actor = Actor { uid: fields.u32()?, gid: fields.u32()?, pid: fields.u32()? };
        let time = Time { sec: fields.i64()?, nsec: fields.u32()? };
        let ino = Ino(fields.u64()?);
        let offset = fields.u64()?;
        let length = fields.u64()?;
        let effects_bytes = fields.u32()? as usize;
        let reserved_end = fields.u32()?;
        let sum = fields.u64()?;
        if effects_bytes > OP_BYTES_MAX - OP_HEADER_BYTES {
            return Err(DecodeError::Invalid("op length"));
        }
        let effects = take.bytes(effects_bytes)?;
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(&head[..OP_HEADER_BYTES - 8]);
        hasher.update(effects);
        if hasher.digest() != sum {
            return Err(DecodeError::Checksum);
        }
        let payload_fits = payload_pages as usize <= EGROUP_PAGES_MAX && (payload_pages == 0 || payload_rf != 0);
        if reserved != 0 || reserved_end != 0 || payload_rf > 3 || !payload_fits || time.nsec >= 1_000_000_000 {
            return Err(DecodeError::Invalid("op header"));
        }
        let kind = OpKind::from_u8(kind).ok_or(DecodeError::Invalid("op kind"))?;
        let header = OpHeader { lsn, row, branch, kind, payload_rf, payload_pages, actor, time, ino, offset, length };
        Ok(Self { header, effects })
    }
}

/// Calls `visit` for every effect in order.
pub fn each_effect<'a>(effects: &'a [u8], mut visit: impl FnMut(Effect<'a>)) -> Result<(), DecodeError> {
    let mut take = Take::new(effects);
    while !take.is_empty() {
        let effect = match take.u8()? {
            1 => {
                let key_len = take.u16()? as usize;
                let value_len = take.u32()? as usize;
                if key_len > KEY_BYTES_MAX || value_len > VALUE_BYTES_MAX {
                    return Err(DecodeError::Invalid("effect length"));
                }
                Effect::Put { key: take.bytes(key_len)?, value: take.bytes(value_len)? }
            }
            2 => {
                let key_len = take.u16()? as usize;
                if key_len > KEY_BYTES_MAX {
                    return Err(DecodeError::Invalid("effect length"));
                }
                Effect::Delete { key: take.bytes(key_len)? }
            }
            3 => {
                let ino = Ino(take.u64()?);
                let start_block = take.u32()?;
                let count = take.u16()?;
                let first_page = take.u16()?;
                let pages_fit = first_page as usize + count as usize <= EGROUP_PAGES_MAX;
                if !pages_fit || start_block as u64 + count as u64 > 1 << 32 {
                    return Err(DecodeError::Invalid("effect pages"));
                }
                let checksums = take.bytes(count as usize * 8)?;
                Effect::Pages { ino, start_block, count, first_page, checksums }
            }
            _ => return Err(DecodeError::Invalid("effect tag")),
        };
        visit(effect);
    }
    Ok(())
}

/// Expands one PAGES effect into LOGGED cells.
pub fn pages_cells(
    branch: BranchId,
    lsn: Lsn,
    effect: Effect<'_>,
    mut emit: impl FnMut(key::Key, Vec<u8>),
) {
    let Effect::Pages { ino, start_block, count, first_page, checksums } = effect else {
        return;
    };
    cell::cut_range(start_block as u64, count as u64, CELL_LEVEL_DATA_MAX, |start, level| {
        let skip = (start - start_block) as usize;
        let blocks = cell::level_blocks(level) as usize;
        let sums = checksums[skip * 8..(skip + blocks) * 8]
            .chunks_exact(8)
            .map(|sum| u64::from_le_bytes([sum[0], sum[1], sum[2], sum[3], sum[4], sum[5], sum[6], sum[7]]))
            .collect();
        let cell = Cell::Logged { lsn, first_page: first_page + skip as u16, checksums: sums };
        emit(key::data(branch, ino, start, level), cell.encode());
    });
}

/// Checksum of every whole page of a payload.
pub fn page_checksums(payload: &[u8]) -> Vec<u64> {
    payload.chunks(crate::limits::BLOCK_BYTES).map(checksum).collect()
}
