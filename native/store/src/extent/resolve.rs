//! Which version of which cell answers for each block of a range. The newest stamp that covers a block wins, whatever its
//! level; pieces (PARTIAL) newer than that lie over it, oldest first.

use crate::error::{Error, Result};
use crate::group::view::{Generation, View};
use holdfast_format::cell::{Cell, level_blocks};
use holdfast_format::limits::CELL_LEVEL_MAX;
use holdfast_format::{BranchId, EgroupId, Ino, Lsn, Stamp, key};
use std::sync::Arc;

/// Where the bytes of one block are.
#[derive(Clone)]
pub enum Source {
    /// Nothing was ever written, or a hole.
    Hole,
    Page { egroup: EgroupId, page: u16, checksum: u64 },
    Packed { egroup: EgroupId, page: u16, byte_offset: u16, length: u16, checksum: u64 },
    Logged { generation: Arc<Generation>, lsn: Lsn, page: u16, checksum: u64 },
}

#[derive(Clone)]
pub struct Block {
    pub stamp: Stamp,
    pub source: Source,
    /// (stamp, start in block, bytes), newest first.
    pub pieces: Vec<(Stamp, u16, Vec<u8>)>,
    settled: bool,
}

/// Answers for blocks `first .. first + blocks.len()`.
pub struct Resolved {
    pub first: u64,
    pub blocks: Vec<Block>,
}

impl Resolved {
    fn new(first: u64, count: usize) -> Self {
        let empty = Block { stamp: Stamp::default(), source: Source::Hole, pieces: Vec::new(), settled: false };
        Self { first, blocks: vec![empty; count] }
    }

    fn end(&self) -> u64 {
        self.first + self.blocks.len() as u64
    }

    /// Takes one version into account. Versions come layer by layer, newest layer first.
    fn offer(
        &mut self,
        start: u32,
        level: u8,
        stamp: Stamp,
        cell: &Cell,
        generation: Option<&Arc<Generation>>,
    ) -> Result<()> {
        let from = (start as u64).max(self.first);
        let until = (start as u64 + level_blocks(level)).min(self.end());
        for block in from..until {
            let at = (block - self.first) as usize;
            let skip = (block - start as u64) as usize;
            if let Cell::Partial { start, bytes } = cell {
                self.blocks[at].pieces.push((stamp, *start, bytes.clone()));
                continue;
            }
            if self.blocks[at].settled && stamp <= self.blocks[at].stamp {
                continue;
            }
            let Some(source) = source_of(cell, skip, generation)? else { continue };
            self.blocks[at].stamp = stamp;
            self.blocks[at].source = source;
            self.blocks[at].settled = true;
        }
        Ok(())
    }

    fn settled(&self) -> bool {
        self.blocks.iter().all(|block| block.settled)
    }

    fn finish(&mut self) {
        for block in &mut self.blocks {
            let base = block.stamp;
            let settled = block.settled;
            block.pieces.retain(|piece| !settled || piece.0 > base);
            block.pieces.sort_by_key(|piece| std::cmp::Reverse(piece.0));
        }
    }
}

/// `None` when the cell does not answer for this block any more.
fn source_of(cell: &Cell, skip: usize, generation: Option<&Arc<Generation>>) -> Result<Option<Source>> {
    Ok(Some(match cell {
        Cell::Hole => Source::Hole,
        Cell::Pages { egroup, first_page, checksums, released } => {
            if released.get(skip / 8).is_some_and(|bits| bits & 1 << (skip % 8) != 0) {
                return Ok(None);
            }
            Source::Page { egroup: *egroup, page: first_page + skip as u16, checksum: checksums[skip] }
        }
        Cell::Packed { egroup, page, byte_offset, length, checksum } => Source::Packed {
            egroup: *egroup,
            page: *page,
            byte_offset: *byte_offset,
            length: *length,
            checksum: *checksum,
        },
        Cell::Logged { lsn, first_page, checksums } => {
            let generation = generation.ok_or_else(|| Error::corrupt("a table names pages of the log"))?.clone();
            Source::Logged { generation, lsn: *lsn, page: first_page + skip as u16, checksum: checksums[skip] }
        }
        Cell::Partial { .. } => return Ok(None),
    }))
}

/// Answers for `count` blocks from `first` on, from newest layer to oldest, stopping as soon as all are known.
/// `levels` has a bit for every level that may hold cells; `newest` bounds the stamps that count.
pub fn resolve(
    view: &View,
    (branch, ino): (BranchId, Ino),
    levels: u16,
    first: u64,
    count: usize,
    newest: Lsn,
) -> Result<Resolved> {
    let mut resolved = Resolved::new(first, count);
    let mut chain = Vec::new();
    for generation in &view.generations {
        if generation.memtable.records() == 0 {
            continue;
        }
        let mut offer_key = |resolved: &mut Resolved, key: &[u8], start: u32, level: u8| -> Result<()> {
            chain.clear();
            generation.memtable.chain(key, &mut chain);
            for (stamp, value) in chain.drain(..).filter(|(stamp, _)| stamp.lsn <= newest) {
                let cell = decode(level, value.as_deref())?;
                resolved.offer(start, level, stamp, &cell, Some(generation))?;
            }
            Ok(())
        };
        for (start, level) in ancestors(levels, first) {
            offer_key(&mut resolved, &key::data(branch, ino, start, level), start, level)?;
        }
        if count == 1 {
            for level in levels_starting_at(levels, first) {
                offer_key(&mut resolved, &key::data(branch, ino, first as u32, level), first as u32, level)?;
            }
        } else {
            let (from, until) = block_range(branch, ino, first, first + count as u64);
            for version in generation.memtable.chunk(&from, &until, usize::MAX) {
                let Some((start, level)) = key::data_place(&version.key) else { continue };
                if version.stamp.lsn > newest {
                    continue;
                }
                let cell = decode(level, version.value.as_deref())?;
                resolved.offer(start, level, version.stamp, &cell, Some(generation))?;
            }
        }
        if resolved.settled() {
            resolved.finish();
            return Ok(resolved);
        }
    }
    resolve_tables(view, (branch, ino), levels, &mut resolved)?;
    resolved.finish();
    Ok(resolved)
}

fn resolve_tables(view: &View, (branch, ino): (BranchId, Ino), levels: u16, resolved: &mut Resolved) -> Result<()> {
    let first = resolved.first;
    let offer = |resolved: &mut Resolved, start: u32, level: u8, stamp: Stamp, value: Option<&[u8]>| {
        let cell = decode(level, value)?;
        resolved.offer(start, level, stamp, &cell, None)
    };
    for (start, level) in ancestors(levels, first) {
        if let Some((stamp, value)) = view.levels.get(&key::data(branch, ino, start, level))? {
            offer(resolved, start, level, stamp, value.as_deref())?;
        }
    }
    if resolved.blocks.len() == 1 {
        for level in levels_starting_at(levels, first) {
            if let Some((stamp, value)) = view.levels.get(&key::data(branch, ino, first as u32, level))? {
                offer(resolved, first as u32, level, stamp, value.as_deref())?;
            }
        }
        return Ok(());
    }
    let (from, until) = block_range(branch, ino, first, resolved.end());
    let mut tables = view.levels.iter(&from, &until)?;
    while tables.advance()? {
        if let Some((start, level)) = key::data_place(tables.key()) {
            offer(resolved, start, level, tables.stamp(), tables.value())?;
        }
    }
    Ok(())
}

/// A deleted cell is a hole.
fn decode(level: u8, value: Option<&[u8]>) -> Result<Cell> {
    match value {
        None => Ok(Cell::Hole),
        Some(bytes) => Cell::decode(level, bytes).map_err(|error| Error::decode("an extent map record", error)),
    }
}

/// Cells that start before `first` and may cover it.
fn ancestors(levels: u16, first: u64) -> impl Iterator<Item = (u32, u8)> {
    (1..=CELL_LEVEL_MAX).filter_map(move |level| {
        let start = first / level_blocks(level) * level_blocks(level);
        (levels & 1 << level != 0 && start < first).then_some((start as u32, level))
    })
}

/// Levels whose cells may start at `first`.
fn levels_starting_at(levels: u16, first: u64) -> impl Iterator<Item = u8> {
    (0..=CELL_LEVEL_MAX).filter(move |level| levels & 1 << level != 0 && first.is_multiple_of(level_blocks(*level)))
}

/// Keys of cells that start in `[first, end)` blocks.
pub fn block_range(branch: BranchId, ino: Ino, first: u64, end: u64) -> (Vec<u8>, Vec<u8>) {
    let from = key::data(branch, ino, first as u32, CELL_LEVEL_MAX);
    let until = match u32::try_from(end) {
        Ok(end) => key::data(branch, ino, end, CELL_LEVEL_MAX),
        Err(_) => key::kind_range(branch, ino, key::KIND_DATA).1,
    };
    (from, until)
}
