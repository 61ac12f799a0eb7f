//! Reading and writing bytes. Whole blocks go out as payload pages, the ends of a range as PARTIAL cells:
//! a write reads no data (STORE.md 23).

use super::change::Change;
use super::{Volume, mode};
use crate::api::{Caller, FsError, FsResult, WriteFlags};
use holdfast_device::AlignedBuffer;
use holdfast_format::Ino;
use holdfast_format::inode::InodeRecord;
use holdfast_format::limits::{BLOCK_BYTES, FILE_BYTES_MAX};
use holdfast_format::op::{self, OpKind};

pub const BLOCK: u64 = BLOCK_BYTES as u64;

/// Refuses what has no bytes.
pub fn check_regular(record: &InodeRecord) -> FsResult<()> {
    if mode::is_directory(record.mode) {
        return Err(FsError::IsDirectory);
    }
    if mode::is_regular(record.mode) { Ok(()) } else { Err(FsError::Invalid) }
}

/// End of a range, when a file may have one there.
pub fn range_end(offset: u64, length: u64) -> FsResult<u64> {
    offset.checked_add(length).filter(|end| *end <= FILE_BYTES_MAX).ok_or(FsError::FileTooBig)
}

/// A piece of a byte range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Part of one block: block, first byte in it, bytes.
    Part(u64, usize, usize),
    /// Whole blocks: first, count.
    Whole(u64, u64),
}

/// Cuts `[offset, end)` at block boundaries: at most a part, whole blocks, a part.
pub fn pieces(offset: u64, end: u64) -> impl Iterator<Item = Piece> {
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (block, skip) = (at / BLOCK, at % BLOCK);
        if skip == 0 && end - at >= BLOCK {
            let count = (end - at) / BLOCK;
            at += count * BLOCK;
            return Some(Piece::Whole(block, count));
        }
        let bytes = (BLOCK - skip).min(end - at);
        at += bytes;
        Some(Piece::Part(block, skip as usize, bytes as usize))
    })
}

impl Volume {
    pub(super) fn read_file(
        &self,
        caller: &Caller,
        ino: Ino,
        offset: u64,
        into: &mut [u8],
    ) -> FsResult<usize> {
        let (got, news) = {
            let _held = self.locks.read(ino);
            let record = self.load(ino)?;
            check_regular(&record)?;
            let length = (into.len() as u64).min(record.size.saturating_sub(offset)) as usize;
            self.read_bytes(ino, &record, offset, into, length)?;
            (length, self.access_is_news(&record))
        };
        if news {
            self.stamp_access(caller, ino);
        }
        Ok(got)
    }

    /// Fills `into[..length]`, all of it before the end of the file. More of `into` may be overwritten.
    /// The caller holds the shard.
    pub(super) fn read_bytes(
        &self,
        ino: Ino,
        record: &InodeRecord,
        offset: u64,
        into: &mut [u8],
        length: usize,
    ) -> FsResult<()> {
        if length == 0 {
            return Ok(());
        }
        if record.blocks == 0 {
            into[..length].fill(0);
            return Ok(());
        }
        let first = offset / BLOCK;
        let skip = (offset % BLOCK) as usize;
        let covering = (skip + length).next_multiple_of(BLOCK_BYTES);
        if skip == 0 && covering <= into.len() {
            let into = &mut into[..covering];
            return Ok(self.ledger.read_blocks(self.branch, ino, record.levels, first as u32, into)?);
        }
        let mut blocks = AlignedBuffer::zeroed(covering);
        self.ledger.read_blocks(self.branch, ino, record.levels, first as u32, &mut blocks)?;
        into[..length].copy_from_slice(&blocks[skip..skip + length]);
        Ok(())
    }

    pub(super) fn write_file(
        &self,
        caller: &Caller,
        ino: Ino,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
    ) -> FsResult<()> {
        let end = range_end(offset, data.len() as u64)?;
        let max = u64::from(self.ledger.write_bytes_max());
        let mut at = offset;
        let mut rest = data;
        while at < end {
            // Ops after the first begin at a block.
            let until = if end - at <= max { end } else { (at + max) / BLOCK * BLOCK };
            let (now, later) = rest.split_at((until - at) as usize);
            self.write_op(caller, ino, at, now, flags)?;
            (at, rest) = (until, later);
        }
        Ok(())
    }

    fn write_op(
        &self,
        caller: &Caller,
        ino: Ino,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
    ) -> FsResult<()> {
        let whole = whole_blocks(offset, data);
        let checksums = op::page_checksums(whole);
        let held = self.locks.write(ino);
        let mut change = self.change(OpKind::Write, caller);
        change.ino = ino;
        let mut record = change.inode(ino)?.clone();
        check_regular(&record)?;
        self.put_bytes(&mut change, ino, &mut record, (offset, data), &checksums)?;
        self.touch_contents(&mut change, ino, &mut record, flags.kill_suidgid);
        *change.inode(ino)? = record;
        let done = change.commit(whole)?;
        drop(held);
        if (self.durability.written(ino) || flags.will_sync) && !self.policy.ack_write() {
            self.begin_flush(done.lsn);
        }
        self.settle(done)
    }

    /// Puts `data` at an offset; its whole blocks are the op's payload, `checksums` theirs.
    pub(super) fn put_bytes(
        &self,
        change: &mut Change<'_>,
        ino: Ino,
        record: &mut InodeRecord,
        (offset, data): (u64, &[u8]),
        checksums: &[u64],
    ) -> FsResult<()> {
        let end = offset + data.len() as u64;
        change.offset = offset;
        change.length = data.len() as u64;
        let range = (offset / BLOCK, end.div_ceil(BLOCK));
        let before = self.mapped_blocks(ino, record, range)?;
        for piece in pieces(offset, end) {
            record.levels |= match piece {
                Piece::Whole(block, _) => change.put_pages(ino, block as u32, 0, checksums),
                Piece::Part(block, start, bytes) => {
                    let from = (block * BLOCK + start as u64 - offset) as usize;
                    change.put_partial(ino, block as u32, start as u16, &data[from..from + bytes])
                }
            };
        }
        record.size = record.size.max(end);
        super::ranges::count_blocks(record, range, before, range.1 - range.0, None);
        Ok(())
    }
}

/// The whole blocks within `data` at `offset`.
pub fn whole_blocks(offset: u64, data: &[u8]) -> &[u8] {
    let end = offset + data.len() as u64;
    let from = offset.next_multiple_of(BLOCK);
    let until = end / BLOCK * BLOCK;
    if from >= until { &[] } else { &data[(from - offset) as usize..(until - offset) as usize] }
}
