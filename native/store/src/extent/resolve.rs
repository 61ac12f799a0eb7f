//! Which version of which cell answers for each block of a range. The newest stamp that covers a block wins, whatever its
//! level; pieces (PARTIAL) newer than that lie over it, oldest first.

use crate::error::{Error, Result};
use crate::group::view::{Generation, NOW, View};
use crate::oplog::place::Place;
use holdfast_format::cell::{Cell, Packed, level_blocks};
use holdfast_format::inode::InodeRecord;
use holdfast_format::limits::{BLOCK_BYTES, CELL_LEVEL_MAX};
use holdfast_format::{BranchId, EgroupId, Ino, Lsn, Stamp, key};
use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

const ALL_LEVELS: u16 = (1 << (CELL_LEVEL_MAX + 1)) - 1;

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
    /// What the map itself says lies over the source: (start in block, bytes).
    pub over: Vec<(u16, Vec<u8>)>,
    /// (stamp, start in block, bytes), newest first.
    pub pieces: Vec<(Stamp, u16, Vec<u8>)>,
    settled: bool,
    /// Of the cell that answers.
    level: u8,
}

impl Block {
    /// Lays what lies over the source over `into`; calls `laid` with each range.
    pub fn lay_over(&self, into: &mut [u8], mut laid: impl FnMut(Range<usize>)) {
        let over = self.over.iter().map(|(start, bytes)| (*start, bytes));
        for (start, bytes) in over.chain(self.pieces.iter().rev().map(|(_, start, bytes)| (*start, bytes))) {
            let range = start as usize..start as usize + bytes.len();
            into[range.clone()].copy_from_slice(bytes);
            laid(range);
        }
    }

    /// What was written over a block that cannot be read, and the block: a copy that comes back makes it whole, and the group
    /// goes on meanwhile.
    pub fn over_unread(&self) -> Option<Cell> {
        let page = |egroup, page, checksum| Packed { egroup, page, byte_offset: 0, length: BLOCK_BYTES as u16, checksum };
        let base = match &self.source {
            Source::Hole => return None,
            Source::Page { egroup, page: at, checksum } => page(*egroup, *at, *checksum),
            Source::Packed { egroup, page, byte_offset, length, checksum } => {
                let (egroup, page, byte_offset) = (*egroup, *page, *byte_offset);
                Packed { egroup, page, byte_offset, length: *length, checksum: *checksum }
            }
            Source::Logged { generation, lsn, page: at, checksum } => match generation.places.get(*lsn)? {
                Place::Egroup(egroup, first) => page(egroup, first + at, *checksum),
                Place::Ring(_) => return None,
            },
        };
        let (mut bytes, mut known) = ([0; BLOCK_BYTES], [false; BLOCK_BYTES]);
        self.lay_over(&mut bytes, |range| known[range].fill(true));
        let mut pieces: Vec<(u16, Vec<u8>)> = Vec::new();
        let mut start = 0;
        for run in known.chunk_by(|one, two| one == two) {
            if run[0] {
                pieces.push((start as u16, bytes[start..start + run.len()].to_vec()));
            }
            start += run.len();
        }
        Some(Cell::Over { base, pieces })
    }

    /// What the tables say of the present was true at `at`: nothing that lies over data has come or gone since. A hole may
    /// stand for a later one, which was left out because it says the same.
    fn was_at(&self, at: Lsn) -> bool {
        self.settled && self.stamp.lsn <= at && !matches!(self.source, Source::Hole)
    }

    /// Nothing of the source shows.
    pub fn is_covered(&self) -> bool {
        let lengths = self.over.iter().map(|(_, bytes)| bytes.len()).chain(self.pieces.iter().map(|piece| piece.2.len()));
        if lengths.sum::<usize>() < BLOCK_BYTES {
            return false;
        }
        let (mut scratch, mut shown) = ([0; BLOCK_BYTES], [true; BLOCK_BYTES]);
        self.lay_over(&mut scratch, |range| shown[range].fill(false));
        !shown.contains(&true)
    }
}

/// Answers for blocks `first .. first + blocks.len()`.
pub struct Resolved {
    pub first: u64,
    pub blocks: Vec<Block>,
}

impl Resolved {
    fn new(first: u64, count: usize) -> Self {
        let empty = Block { stamp: Stamp::default(), source: Source::Hole, over: Vec::new(), pieces: Vec::new(), settled: false, level: 0 };
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
            // Of two with one stamp the smaller counts as the newer.
            let own = &self.blocks[at];
            if own.settled && (stamp, Reverse(level)) <= (own.stamp, Reverse(own.level)) {
                continue;
            }
            let Some(source) = source_of(cell, skip, generation)? else { continue };
            (self.blocks[at].stamp, self.blocks[at].level) = (stamp, level);
            self.blocks[at].source = source;
            self.blocks[at].over = if let Cell::Over { pieces, .. } = cell { pieces.clone() } else { Vec::new() };
            self.blocks[at].settled = true;
        }
        Ok(())
    }

    fn settled(&self) -> bool {
        self.blocks.iter().all(|block| block.settled)
    }

    /// Takes from an older layer, whose answer is complete, what this one does not say. Both are finished.
    fn put_below(&mut self, older: Self) {
        for (own, older) in self.blocks.iter_mut().zip(older.blocks).filter(|(own, _)| !own.settled) {
            own.stamp = older.stamp;
            own.source = older.source;
            own.over = older.over;
            own.settled = older.settled;
            own.pieces.extend(older.pieces);
        }
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
        Cell::Over { base: Packed { egroup, page, byte_offset, length, checksum }, .. } => Source::Packed {
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

/// Answers for `count` blocks from `first` on, from newest layer to oldest, stopping as soon as all are known. `levels` has a
/// bit for every level that may hold cells.
pub fn resolve(view: &View, inode: (BranchId, Ino), levels: u16, first: u64, count: usize) -> Result<Resolved> {
    resolve_bounded(view, inode, levels, (first, count), view.at)
}

/// What a block was before and with the op `newest` of a memtable, for its drain: tables and what is below them are older.
pub fn resolve_before(
    view: &View,
    inode: (BranchId, Ino),
    levels: u16,
    block: u64,
    newest: Lsn,
) -> Result<Resolved> {
    resolve_bounded(view, inode, levels, (block, 1), newest)
}

fn resolve_bounded(
    view: &View,
    (branch, ino): (BranchId, Ino),
    levels: u16,
    (first, count): (u64, usize),
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
            generation.memtable.chain(key, newest, &mut chain);
            for (stamp, value) in chain.drain(..) {
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
    let says_nothing = resolved.blocks.iter().all(|block| !block.settled && block.pieces.is_empty());
    let mut tables = if says_nothing {
        std::mem::replace(&mut resolved, Resolved::new(first, 0))
    } else {
        Resolved::new(first, count)
    };
    let levels_now = if view.at == NOW { levels } else { levels | levels_since(view, (branch, ino))? };
    resolve_tables(view, (branch, ino), levels_now, NOW, &mut tables)?;
    let known = |(at, now): (usize, &Block)| {
        now.was_at(view.at) || resolved.blocks.get(at).is_some_and(|own| own.settled)
    };
    if view.at != NOW && !tables.blocks.iter().enumerate().all(known) {
        tables = Resolved::new(first, count);
        // What a larger cell has lost, block by block, are cells of level 0 in THEN, whatever the inode was written in.
        resolve_tables(view, (branch, ino), levels | 1, view.at, &mut tables)?;
    }
    if says_nothing {
        resolved = tables;
    } else {
        resolved.finish();
        resolved.put_below(tables);
    }
    if let Some(base) = view.base.as_ref().filter(|_| !resolved.settled()) {
        resolved.put_below(resolve(&base.view(), (branch, ino), levels, first, count)?);
    }
    Ok(resolved)
}

/// Levels that cells of an inode may have got since a point: what lies over a block now is looked for on all of them.
fn levels_since(view: &View, (branch, ino): (BranchId, Ino)) -> Result<u16> {
    match view.clone().looking_at(NOW).get(&key::inode(branch, ino))? {
        Some(bytes) => Ok(InodeRecord::decode(&bytes).map_err(|error| Error::decode("an inode", error))?.levels),
        None => Ok(ALL_LEVELS),
    }
}

/// What the tables say, at a point or [`NOW`].
fn resolve_tables(
    view: &View,
    (branch, ino): (BranchId, Ino),
    levels: u16,
    at: Lsn,
    resolved: &mut Resolved,
) -> Result<()> {
    let first = resolved.first;
    let offer = |resolved: &mut Resolved, start: u32, level: u8, stamp: Stamp, value: Option<&[u8]>| {
        let cell = decode(level, value)?;
        resolved.offer(start, level, stamp, &cell, None)
    };
    let get = |key: &[u8]| if at == NOW { view.levels.get(key) } else { view.levels.get_at(key, at) };
    for (start, level) in ancestors(levels, first) {
        if let Some((stamp, value)) = get(&key::data(branch, ino, start, level))? {
            offer(resolved, start, level, stamp, value.as_deref())?;
        }
    }
    if resolved.blocks.len() == 1 {
        for level in levels_starting_at(levels, first) {
            if let Some((stamp, value)) = get(&key::data(branch, ino, first as u32, level))? {
                offer(resolved, first as u32, level, stamp, value.as_deref())?;
            }
        }
        return Ok(());
    }
    let (from, until) = block_range(branch, ino, first, resolved.end());
    let mut tables =
        if at == NOW { view.levels.iter(&from, &until)? } else { view.levels.iter_at(&from, &until, at)? };
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
