//! copy_file_range: whole blocks by reference, edges through read and write.

use super::Volume;
use super::change::Change;
use super::data::{BLOCK, check_regular, range_end, whole_blocks};
use super::ranges::count_blocks;
use crate::api::{Caller, FsError, FsResult};
use crate::ledger::BlockRef;
use holdfast_format::inode::InodeRecord;
use holdfast_format::cell::{self, Cell, level_blocks, released_bytes};
use holdfast_format::limits::{BLOCK_BYTES, CELL_LEVEL_DATA_MAX, CELL_LEVEL_MAX, OP_BYTES_MAX};
use holdfast_format::op::{self, OpKind};
use holdfast_format::{EgroupId, Ino, key};

/// Blocks that one op refers to.
const BLOCKS_PER_OP: u64 = 2048;
/// Bytes of one reference as an effect, at most: tag and lengths, key, cell. Blocks that share a cell take less.
const REFERENCE_BYTES_MAX: usize = 7 + 18 + 21;
const _: () = assert!(BLOCKS_PER_OP as usize * REFERENCE_BYTES_MAX + 8192 < OP_BYTES_MAX);
/// One call copies no more than this, so that it ends in bounded time; the caller asks again for the rest.
const BYTES_PER_CALL: u64 = 1 << 30;

/// A byte position in a file.
type Place = (Ino, u64);

/// One op's share of a copy.
struct Step {
    bytes: u64,
    payload: Vec<u8>,
}

impl Volume {
    /// From a file of `source`: this volume, or a view of its past.
    pub(crate) fn copy_range(
        &self,
        caller: &Caller,
        source: &Self,
        from: Place,
        to: Place,
        length: u64,
    ) -> FsResult<u64> {
        let is_own = std::ptr::eq(self, source);
        let (from_record, target) = (source.load(from.0)?, self.load(to.0)?);
        check_regular(&from_record)?;
        check_regular(&target)?;
        let length = length.min(from_record.size.saturating_sub(from.1));
        if length == 0 {
            return Ok(0);
        }
        range_end(to.1, length)?;
        let overlaps = to.1 < from.1 + length && from.1 < to.1 + length;
        if is_own && from.0 == to.0 && overlaps {
            return Err(FsError::Invalid);
        }
        let length = length.min(BYTES_PER_CALL);
        let mut copied = 0;
        while copied < length {
            match self.copy_op(caller, source, (from.0, from.1 + copied), (to.0, to.1 + copied), length - copied) {
                Ok(0) => break,
                Ok(bytes) => copied += bytes,
                Err(_) if copied > 0 => break,
                Err(error) => return Err(error),
            }
        }
        if copied > 0 {
            source.note_access(caller, from.0);
        }
        Ok(copied)
    }

    /// One op. Returns the bytes it copied: 0 at the end of the source.
    fn copy_op(&self, caller: &Caller, volume: &Self, from: Place, to: Place, length: u64) -> FsResult<u64> {
        let is_own = std::ptr::eq(self, volume);
        let held = if is_own { self.locks.write_all(&[from.0, to.0]) } else { self.locks.write_all(&[to.0]) };
        let source = volume.load(from.0)?;
        let mut change = self.change(OpKind::CopyRange, caller);
        change.ino = to.0;
        let mut target = change.inode(to.0)?.clone();
        check_regular(&source)?;
        check_regular(&target)?;
        let length = length.min(source.size.saturating_sub(from.1));
        if length == 0 {
            return Ok(0);
        }
        let step = match reference_blocks(&source, &target, from.1, to.1, length) {
            0 => self.copy_bytes(&mut change, (volume, from, &source), (to, &mut target), length)?,
            blocks => self.copy_references(&mut change, (volume, from, &source), (to, &mut target), blocks)?,
        };
        let bytes = step.bytes.min(length);
        target.size = target.size.max(to.1 + bytes);
        // As with fallocate, the request does not say whether the caller may keep suid.
        self.touch_contents(&mut change, to.0, &mut target, caller.uid != 0);
        change.offset = to.1;
        change.length = bytes;
        *change.inode(to.0)? = target;
        let done = change.commit(&step.payload)?;
        drop(held);
        self.settle(done)?;
        Ok(bytes)
    }

    /// Reads and writes, up to the next boundary from which blocks can be referred to.
    fn copy_bytes(
        &self,
        change: &mut Change<'_>,
        (volume, from, source): (&Self, Place, &InodeRecord),
        (to, target): (Place, &mut InodeRecord),
        length: u64,
    ) -> FsResult<Step> {
        let aligned_alike = from.1 % BLOCK == to.1 % BLOCK;
        let bytes = if aligned_alike {
            length.min(BLOCK - from.1 % BLOCK)
        } else {
            let max = u64::from(self.ledger.write_bytes_max());
            if length <= max { length } else { (to.1 + max) / BLOCK * BLOCK - to.1 }
        };
        let mut data = vec![0; bytes as usize];
        volume.read_bytes(from.0, source, from.1, &mut data, bytes as usize)?;
        let payload = whole_blocks(to.1, &data).to_vec();
        self.put_bytes(change, to.0, target, (to.1, &data), &op::page_checksums(&payload))?;
        Ok(Step { bytes, payload })
    }

    /// Lets the target's blocks name what the source's name. Blocks with pieces over them are read and
    /// written.
    fn copy_references(
        &self,
        change: &mut Change<'_>,
        (volume, from, source): (&Self, Place, &InodeRecord),
        (to, target): (Place, &mut InodeRecord),
        blocks: u64,
    ) -> FsResult<Step> {
        let first = (from.1 / BLOCK) as u32;
        let mut refs = volume.ledger.block_refs(volume.branch, from.0, source.levels, first, blocks as u32)?;
        let copies_max = self.ledger.write_bytes_max() as usize / BLOCK_BYTES;
        truncate_at_copies(&mut refs, copies_max);
        let start = to.1 / BLOCK;
        let range = (start, start + refs.len() as u64);
        let end_bytes = range.1 * BLOCK;
        let before = self.mapped_blocks(to.0, target, range)?;
        let mut payload = Vec::new();
        let mut first_hole = None;
        let (mut after, mut index) = (0, 0);
        while index < refs.len() {
            let block = start + index as u64;
            let run = run_of(&refs[index..]);
            match &refs[index] {
                BlockRef::Hole => {
                    first_hole = first_hole.or(Some(block));
                    if before > 0 {
                        put_exact_holes(change, to.0, target, (block, block + run as u64));
                    }
                }
                BlockRef::Shared(_) => {
                    let shared = &refs[index..index + run];
                    put_shared(shared, block, |start, level, cell| {
                        target.levels |= 1 << level;
                        change.effects.put(&key::data(self.branch, to.0, start, level), &cell.encode());
                    });
                    after += run as u64;
                }
                BlockRef::Copy => {
                    let page = payload.len();
                    payload.resize(page + run * BLOCK_BYTES, 0);
                    let source_block = first + index as u32;
                    let into = &mut payload[page..];
                    volume.ledger.read_blocks(volume.branch, from.0, source.levels, source_block, into)?;
                    let sums = op::page_checksums(&payload[page..]);
                    let first_page = (page / BLOCK_BYTES) as u16;
                    target.levels |= change.put_pages(to.0, block as u32, first_page, &sums);
                    after += run as u64;
                }
            }
            index += run;
        }
        let bytes = refs.len() as u64 * BLOCK;
        // The source may end inside the last block; `copy_op` cuts the count, so the size must be known
        // here.
        let source_left = source.size - from.1;
        target.size = target.size.max((to.1 + bytes.min(source_left)).min(end_bytes));
        count_blocks(target, range, before, after, first_hole);
        Ok(Step { bytes, payload })
    }
}

/// Blocks that can go by reference from here on; 0: bytes first.
fn reference_blocks(source: &InodeRecord, target: &InodeRecord, from: u64, to: u64, length: u64) -> u64 {
    if !from.is_multiple_of(BLOCK) || !to.is_multiple_of(BLOCK) {
        return 0;
    }
    // The source's last block is zero beyond its end; where the target ends too, it can be taken whole.
    let takes_last = from + length == source.size && to + length >= target.size;
    let blocks = if takes_last { length.div_ceil(BLOCK) } else { length / BLOCK };
    blocks.min(BLOCKS_PER_OP)
}

/// Ends the list before the block that would make the payload too long.
fn truncate_at_copies(refs: &mut Vec<BlockRef>, copies_max: usize) {
    let mut copies = 0;
    let end = refs.iter().position(|block| {
        copies += usize::from(*block == BlockRef::Copy);
        copies > copies_max
    });
    if let Some(end) = end {
        refs.truncate(end);
    }
}

/// Length of the run of equal kind at the front.
fn run_of(refs: &[BlockRef]) -> usize {
    let kind = std::mem::discriminant(&refs[0]);
    refs.iter().take_while(|block| std::mem::discriminant(*block) == kind).count()
}

/// Cells for a run of shared blocks that begins at `start`: one for every aligned range whose pages follow each other in
/// one egroup, so that a large file costs a record for each 1 MiB, not for each block.
fn put_shared(refs: &[BlockRef], start: u64, mut put: impl FnMut(u32, u8, &Cell)) {
    let mut at = 0;
    while let Some(BlockRef::Shared(cell)) = refs.get(at) {
        let Some((egroup, first_page, _)) = page_of(&refs[at]) else {
            put((start + at as u64) as u32, 0, cell);
            at += 1;
            continue;
        };
        let count = (0..refs.len() - at)
            .take_while(|n| page_of(&refs[at + n]).is_some_and(|(of, page, _)| (of, page) == (egroup, first_page + n)))
            .count();
        let first = start + at as u64;
        cell::cut_range(first, count as u64, CELL_LEVEL_DATA_MAX, |block, level| {
            let from = at + (u64::from(block) - first) as usize;
            let sums = refs[from..from + level_blocks(level) as usize].iter().filter_map(page_of).map(|page| page.2).collect();
            let first_page = (first_page + from - at) as u16;
            let released = vec![0; released_bytes(level)];
            put(block, level, &Cell::Pages { egroup, first_page, checksums: sums, released });
        });
        at += count;
    }
}

/// The page that a block has for itself, and its checksum.
fn page_of(block: &BlockRef) -> Option<(EgroupId, usize, u64)> {
    match block {
        BlockRef::Shared(Cell::Pages { egroup, first_page, checksums, .. }) => {
            checksums.first().map(|sum| (*egroup, usize::from(*first_page), *sum))
        }
        _ => None,
    }
}

/// Holes over exactly these blocks: others of the op lie beside them.
fn put_exact_holes(change: &mut Change<'_>, ino: Ino, record: &mut InodeRecord, range: (u64, u64)) {
    cell::cut_range(range.0, range.1 - range.0, CELL_LEVEL_MAX, |start, level| {
        record.levels |= 1 << level;
        change.put_hole_cell(ino, start, level);
    });
}
