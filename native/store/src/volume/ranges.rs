//! Which blocks of a file are mapped: counting them, unmapping them, and asking for them (fallocate,
//! lseek, truncate).

use super::Volume;
use super::change::Change;
use super::data::{BLOCK, Piece, check_regular, pieces, range_end};
use crate::api::{
    Caller, FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, FsError, FsResult, Whence,
};
use crate::group::PACK_BYTES_MAX;
use crate::ledger::Mapped;
use holdfast_format::Ino;
use holdfast_format::cell;
use holdfast_format::inode::{INODE_SPARSE, InodeRecord};
use holdfast_format::limits::{CELL_LEVEL_MAX, FILE_BYTES_MAX};
use holdfast_format::op::OpKind;

/// Blocks `[from, until)`.
pub type Blocks = (u64, u64);

/// Notes that of the blocks of `range`, `before` were mapped and `after` are now; `first_hole` is the
/// first that is not.
/// `record.size` is the new size.
pub fn count_blocks(
    record: &mut InodeRecord,
    range: Blocks,
    before: u64,
    after: u64,
    first_hole: Option<u64>,
) {
    record.blocks = record.blocks - before + after;
    let mut dense = u64::from(record.dense_until);
    if range.0 <= dense {
        dense = first_hole.unwrap_or(dense.max(range.1));
    }
    // Nothing is mapped beyond the end, so as many blocks as the size has means all of them.
    if record.blocks == record.size.div_ceil(BLOCK) {
        dense = record.blocks;
    }
    record.dense_until = u32::try_from(dense).unwrap_or(u32::MAX);
    if record.blocks > u64::from(record.dense_until) {
        record.flags |= INODE_SPARSE;
    } else {
        record.flags &= !INODE_SPARSE;
    }
}

/// What the file's content takes once it is in tables, once: whole pages, except that a short end shares one with others.
pub fn stored_bytes(record: &InodeRecord) -> u64 {
    let end = record.size % BLOCK;
    let dense = record.blocks > 0 && record.blocks == record.size.div_ceil(BLOCK);
    let packed = dense && end > 0 && end <= PACK_BYTES_MAX as u64;
    record.blocks * BLOCK - if packed { BLOCK - end } else { 0 }
}

impl Volume {
    /// How many blocks of a range are mapped. Only a sparse file looks at its map, and only above its
    /// dense part.
    pub(super) fn mapped_blocks(&self, ino: Ino, record: &InodeRecord, range: Blocks) -> FsResult<u64> {
        let dense = u64::from(record.dense_until);
        let until = range.1.min(record.size.div_ceil(BLOCK));
        let below = until.min(dense).saturating_sub(range.0);
        let above = (range.0.max(dense), until);
        if record.flags & INODE_SPARSE == 0 || above.0 >= above.1 {
            return Ok(below);
        }
        let mut count = 0;
        self.ledger.map(self.branch, ino, record.levels, above, &mut |_, blocks, mapped| {
            if mapped == Mapped::Data {
                count += blocks;
            }
            true
        })?;
        Ok(below + count)
    }

    /// Puts holes over all of a range of blocks.
    pub(super) fn put_holes(
        &self,
        change: &mut Change<'_>,
        ino: Ino,
        record: &mut InodeRecord,
        range: Blocks,
    ) {
        // Nothing is mapped beyond the end of the file: a hole that reaches it may go further, in fewer
        // cells.
        let until = if range.1 >= record.size.div_ceil(BLOCK) { widen(range) } else { range.1 };
        cell::cut_range(range.0, until - range.0, CELL_LEVEL_MAX, |start, level| {
            record.levels |= 1 << level;
            change.put_hole_cell(ino, start, level);
        });
    }

    /// Makes `[offset, end)` read as zero, with as few mapped blocks as possible; the size stays.
    fn clear(
        &self,
        change: &mut Change<'_>,
        ino: Ino,
        record: &mut InodeRecord,
        (offset, end): (u64, u64),
    ) -> FsResult<()> {
        // What lies beyond the end is zero already, so a range that reaches it may take the whole last
        // block.
        let end = if end >= record.size { record.size.next_multiple_of(BLOCK) } else { end };
        for piece in pieces(offset, end) {
            match piece {
                Piece::Part(block, start, bytes) => {
                    if self.mapped_blocks(ino, record, (block, block + 1))? > 0 {
                        record.levels |=
                            change.put_partial(ino, block as u32, start as u16, &vec![0; bytes]);
                    }
                }
                Piece::Whole(block, count) => {
                    let range = (block, block + count);
                    let before = self.mapped_blocks(ino, record, range)?;
                    if before > 0 {
                        self.put_holes(change, ino, record, range);
                        count_blocks(record, range, before, 0, Some(block));
                    }
                }
            }
        }
        Ok(())
    }

    /// Changes the size. Cutting inside a block puts zeroes over the rest of it (no read), so growing
    /// touches nothing.
    pub(super) fn resize(
        &self,
        change: &mut Change<'_>,
        ino: Ino,
        record: &mut InodeRecord,
        size: u64,
    ) -> FsResult<()> {
        check_regular(record)?;
        if size > FILE_BYTES_MAX {
            return Err(FsError::FileTooBig);
        }
        if size < record.size {
            let rest = size.next_multiple_of(BLOCK);
            let last = (size, rest.min(record.size));
            if last.0 < last.1 && self.mapped_blocks(ino, record, (size / BLOCK, size / BLOCK + 1))? > 0 {
                let (block, start) = ((size / BLOCK) as u32, (size % BLOCK) as u16);
                let zeroes = vec![0; (last.1 - last.0) as usize];
                record.levels |= change.put_partial(ino, block, start, &zeroes);
            }
            self.cut_blocks(change, ino, record, rest / BLOCK)?;
        }
        record.size = size;
        let at = record.blocks;
        count_blocks(record, (u64::MAX, u64::MAX), at, at, None);
        Ok(())
    }

    /// Unmaps every block from `first` on.
    fn cut_blocks(
        &self,
        change: &mut Change<'_>,
        ino: Ino,
        record: &mut InodeRecord,
        first: u64,
    ) -> FsResult<()> {
        let range = (first, record.size.div_ceil(BLOCK));
        let before = match first {
            0 => record.blocks,
            _ => self.mapped_blocks(ino, record, range)?,
        };
        if before == 0 {
            return Ok(());
        }
        if first == 0 {
            record.levels |= 1 << CELL_LEVEL_MAX;
            change.put_hole_cell(ino, 0, CELL_LEVEL_MAX);
        } else {
            self.put_holes(change, ino, record, range);
        }
        count_blocks(record, range, before, 0, Some(first));
        Ok(())
    }

    /// fallocate. A plain allocation reserves nothing: it grows the size (unless told to keep it) and
    /// refuses what the pool has no room for now; `st_blocks` goes on telling what is mapped. Zeroing a
    /// range unmaps it.
    pub(super) fn allocate(
        &self,
        caller: &Caller,
        ino: Ino,
        (offset, length): (u64, u64),
        flags: u32,
    ) -> FsResult<()> {
        let keep_size = flags & FALLOC_KEEP_SIZE != 0;
        let clears = match flags & !FALLOC_KEEP_SIZE {
            0 => false,
            FALLOC_ZERO_RANGE => true,
            FALLOC_PUNCH_HOLE if keep_size => true,
            _ => return Err(FsError::NotSupported),
        };
        if length == 0 {
            return Err(FsError::Invalid);
        }
        let end = range_end(offset, length)?;
        let held = self.locks.write(ino);
        let mut change = self.change(OpKind::Fallocate, caller);
        (change.ino, change.offset, change.length) = (ino, offset, length);
        let mut record = change.inode(ino)?.clone();
        check_regular(&record)?;
        if clears {
            change.frees = keep_size || end <= record.size;
            if offset < record.size {
                self.clear(&mut change, ino, &mut record, (offset, end))?;
            }
        } else {
            let range = (offset / BLOCK, end.div_ceil(BLOCK));
            let mapped = self.mapped_blocks(ino, &record, range)?;
            self.check_room((range.1 - range.0 - mapped) * BLOCK)?;
        }
        if !keep_size && end > record.size {
            self.resize(&mut change, ino, &mut record, end)?;
        }
        // The request does not say whether the caller may keep suid: only root may, as with CAP_FSETID.
        self.touch_contents(&mut change, ino, &mut record, caller.uid != 0);
        *change.inode(ino)? = record;
        let done = change.commit(&[])?;
        drop(held);
        self.settle(done)
    }

    /// Where data or a hole begins, at or after `offset`; the end of the file is a hole.
    pub(super) fn seek(&self, ino: Ino, offset: u64, whence: Whence) -> FsResult<u64> {
        let _held = self.locks.read(ino);
        let record = self.load(ino)?;
        check_regular(&record)?;
        if offset >= record.size {
            return Err(FsError::NoSuchDeviceOrAddress);
        }
        let wanted = match whence {
            Whence::Data => Mapped::Data,
            Whence::Hole => Mapped::Hole,
        };
        let range = (offset / BLOCK, record.size.div_ceil(BLOCK));
        let mut found = None;
        if record.blocks == 0 {
            found = (whence == Whence::Hole).then_some(range.0);
        } else {
            self.ledger.map(self.branch, ino, record.levels, range, &mut |first, _, mapped| {
                if mapped == wanted {
                    found = Some(first);
                }
                found.is_none()
            })?;
        }
        match (found, whence) {
            (Some(block), _) => Ok((block * BLOCK).max(offset)),
            (None, Whence::Hole) => Ok(record.size),
            (None, Whence::Data) => Err(FsError::NoSuchDeviceOrAddress),
        }
    }
}

/// End at or beyond that of a range that takes the fewest cells, the lowest such.
fn widen(range: Blocks) -> u64 {
    let cells = |until: u64| {
        let mut count = 0u32;
        cell::cut_range(range.0, until - range.0, CELL_LEVEL_MAX, |_, _| count += 1);
        count
    };
    (0..=CELL_LEVEL_MAX)
        .map(|level| range.1.next_multiple_of(cell::level_blocks(level)))
        .min_by_key(|until| (cells(*until), *until))
        .unwrap_or(range.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widening_takes_fewer_cells_and_never_less_than_asked() {
        assert_eq!(widen((16, 31)), 32);
        assert_eq!(widen((5, 7)), 7);
        assert_eq!(widen((0, 300)), 4096);
        for from in [0u64, 1, 15, 16, 17, 255, 4096, 70_000] {
            for length in [1u64, 2, 15, 16, 17, 300, 5000] {
                assert!(widen((from, from + length)) >= from + length);
            }
        }
    }
}
