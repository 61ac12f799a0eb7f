//! A ledger too simple to be wrong: records and cells in B-trees, payload by LSN, nothing ever drained. It
//! checks what a real one takes for granted: no key twice in an op, limits kept, cells found through the
//! inode's `levels` alone.

use crate::error::{Error, Result};
use crate::ledger::{BlockRef, Durable, Ledger, Mapped, OpDraft, Space};
use holdfast_format::cell::{Cell, level_blocks};
use holdfast_format::checksum::checksum;
use holdfast_format::inode::Time;
use holdfast_format::key::{self, Key};
use holdfast_format::limits::{BLOCK_BYTES, CELL_LEVEL_MAX, OP_BYTES_MAX};
use holdfast_format::op::{Effect, OP_HEADER_BYTES, OpKind, each_effect, pages_cells};
use holdfast_format::{BranchId, Ino, Lsn};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

#[derive(Default)]
pub struct State {
    pub newest: u64,
    pub records: BTreeMap<Key, Vec<u8>>,
    /// Oldest first; a cell that is no piece replaces all before it under its key.
    cells: BTreeMap<Key, Vec<(u64, Cell)>>,
    payloads: BTreeMap<u64, Vec<u8>>,
    pub now: Time,
    /// Refuses every op that does not free space.
    pub full: bool,
    pub ops: Vec<OpKind>,
    pub flushed: u64,
    pub map_calls: u64,
    pub block_reads: u64,
}

#[derive(Default)]
pub struct ModelLedger {
    pub state: Mutex<State>,
}

/// What a block is: what the newest whole cell says, and the pieces since.
struct Found<'a> {
    base: Option<(u32, &'a Cell)>,
    parts: Vec<(u16, &'a [u8])>,
}

impl State {
    fn find(&self, branch: BranchId, ino: Ino, levels: u16, block: u32) -> Found<'_> {
        let mut base: Option<(u64, u32, &Cell)> = None;
        let mut parts = Vec::new();
        for level in (0..=CELL_LEVEL_MAX).filter(|level| levels >> level & 1 == 1) {
            let start = (u64::from(block) / level_blocks(level) * level_blocks(level)) as u32;
            for (lsn, cell) in self.cells.get(&key::data(branch, ino, start, level)).into_iter().flatten() {
                match cell {
                    Cell::Partial { start, bytes } => parts.push((*lsn, *start, bytes.as_slice())),
                    _ if base.is_none_or(|(newest, ..)| *lsn > newest) => base = Some((*lsn, start, cell)),
                    _ => {}
                }
            }
        }
        let born = base.map_or(0, |(lsn, ..)| lsn);
        parts.retain(|(lsn, ..)| *lsn > born);
        Found {
            base: base.map(|(_, start, cell)| (start, cell)).filter(|(_, cell)| **cell != Cell::Hole),
            parts: parts.into_iter().map(|(_, start, bytes)| (start, bytes)).collect(),
        }
    }

    fn read(&self, found: &Found<'_>, block: u32, into: &mut [u8]) {
        into.fill(0);
        if let Some((start, Cell::Logged { lsn, first_page, checksums })) = found.base {
            let index = (block - start) as usize;
            let from = (*first_page as usize + index) * BLOCK_BYTES;
            into.copy_from_slice(&self.payloads[&lsn.0][from..from + BLOCK_BYTES]);
            assert_eq!(checksum(into), checksums[index]);
        }
        for (start, bytes) in &found.parts {
            into[*start as usize..*start as usize + bytes.len()].copy_from_slice(bytes);
        }
    }

    fn put_cell(&mut self, lsn: u64, key: Key, cell: Cell) {
        let versions = self.cells.entry(key).or_default();
        if !matches!(cell, Cell::Partial { .. }) {
            versions.clear();
        }
        versions.push((lsn, cell));
    }

    fn apply(&mut self, branch: BranchId, lsn: u64, effects: &[u8]) {
        let mut keys = BTreeSet::new();
        let mut once = |key: &[u8]| assert!(keys.insert(key.to_vec()), "twice in one op: {key:?}");
        each_effect(effects, |effect| match effect {
            Effect::Put { key, value } => {
                once(key);
                match key::data_place(key) {
                    Some((_, level)) => {
                        let cell = Cell::decode(level, value).expect("a valid cell");
                        self.put_cell(lsn, key.to_vec(), cell);
                    }
                    None => drop(self.records.insert(key.to_vec(), value.to_vec())),
                }
            }
            Effect::Delete { key } => {
                once(key);
                self.records.remove(key);
            }
            Effect::Pages { .. } => pages_cells(branch, Lsn(lsn), effect, |key, value| {
                once(&key);
                let (_, level) = key::data_place(&key).expect("a data key");
                self.put_cell(lsn, key, Cell::decode(level, &value).expect("a valid cell"));
            }),
        })
        .expect("valid effects");
    }
}

impl ModelLedger {
    /// Whether a block is mapped, looked up in all levels.
    pub fn is_mapped(&self, branch: BranchId, ino: Ino, block: u32) -> bool {
        let state = self.state.lock();
        let found = state.find(branch, ino, u16::MAX, block);
        found.base.is_some() || !found.parts.is_empty()
    }

    /// Every block of an inode for which a cell with data was ever put.
    pub fn candidates(&self, branch: BranchId, ino: Ino) -> BTreeSet<u64> {
        let state = self.state.lock();
        let (from, until) = key::kind_range(branch, ino, key::KIND_DATA);
        let mut blocks = BTreeSet::new();
        for (key, versions) in state.cells.range(from..until) {
            let (start, level) = key::data_place(key).expect("a data key");
            if versions.iter().any(|(_, cell)| *cell != Cell::Hole) {
                blocks.extend((0..level_blocks(level)).map(|block| u64::from(start) + block));
            }
        }
        blocks
    }
}

impl Ledger for ModelLedger {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        assert!(key::data_place(key).is_none());
        Ok(self.state.lock().records.get(key).cloned())
    }

    fn scan(&self, from: &[u8], until: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let state = self.state.lock();
        let range = (Bound::Included(from), Bound::Excluded(until));
        for (key, value) in state.records.range::<[u8], _>(range) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn read_blocks(
        &self,
        branch: BranchId,
        ino: Ino,
        levels: u16,
        first_block: u32,
        into: &mut [u8],
    ) -> Result<()> {
        assert!(into.len().is_multiple_of(BLOCK_BYTES));
        let mut state = self.state.lock();
        state.block_reads += 1;
        for (index, block) in into.chunks_exact_mut(BLOCK_BYTES).enumerate() {
            let number = first_block + index as u32;
            state.read(&state.find(branch, ino, levels, number), number, block);
        }
        Ok(())
    }

    fn map(
        &self,
        branch: BranchId,
        ino: Ino,
        levels: u16,
        (first, end): (u64, u64),
        visit: &mut dyn FnMut(u64, u64, Mapped) -> bool,
    ) -> Result<()> {
        self.state.lock().map_calls += 1;
        let candidates = self.candidates(branch, ino);
        let state = self.state.lock();
        let mapped: Vec<u64> = candidates
            .range(first..end)
            .copied()
            .filter(|block| {
                let found = state.find(branch, ino, levels, *block as u32);
                found.base.is_some() || !found.parts.is_empty()
            })
            .collect();
        drop(state);
        let mut at = first;
        for block in mapped {
            if at < block && !visit(at, block - at, Mapped::Hole) || !visit(block, 1, Mapped::Data) {
                return Ok(());
            }
            at = block + 1;
        }
        if at < end {
            visit(at, end - at, Mapped::Hole);
        }
        Ok(())
    }

    fn block_refs(
        &self,
        branch: BranchId,
        ino: Ino,
        levels: u16,
        first: u32,
        count: u32,
    ) -> Result<Vec<BlockRef>> {
        let state = self.state.lock();
        let refer = |block: u32| {
            let found = state.find(branch, ino, levels, block);
            match found.base {
                _ if !found.parts.is_empty() => BlockRef::Copy,
                Some((start, Cell::Logged { lsn, first_page, checksums })) => {
                    let index = (block - start) as usize;
                    let first_page = *first_page + index as u16;
                    BlockRef::Shared(Cell::Logged {
                        lsn: *lsn,
                        first_page,
                        checksums: vec![checksums[index]],
                    })
                }
                Some(_) => BlockRef::Copy,
                None => BlockRef::Hole,
            }
        };
        Ok((first..first + count).map(refer).collect())
    }

    fn commit(&self, draft: OpDraft<'_>) -> Result<Lsn> {
        let mut state = self.state.lock();
        assert!(OP_HEADER_BYTES + draft.effects.as_bytes().len() <= OP_BYTES_MAX);
        assert!(draft.payload.len().is_multiple_of(BLOCK_BYTES));
        assert!(draft.payload.len() <= self.write_bytes_max() as usize);
        if state.full && !draft.frees {
            return Err(Error::no_space("the model is full"));
        }
        state.newest += 1;
        let lsn = state.newest;
        if !draft.payload.is_empty() {
            state.payloads.insert(lsn, draft.payload.to_vec());
        }
        state.apply(draft.branch, lsn, draft.effects.as_bytes());
        state.ops.push(draft.kind);
        Ok(Lsn(lsn))
    }

    fn newest(&self) -> Lsn {
        Lsn(self.state.lock().newest)
    }

    fn flush(&self, lsn: Lsn, done: Durable) {
        {
            let mut state = self.state.lock();
            assert!(lsn.0 <= state.newest);
            state.flushed = state.flushed.max(lsn.0);
        }
        done(Ok(()));
    }

    fn space(&self, copies: u8) -> Result<Space> {
        Ok(Space {
            total: (1 << 30) / copies as u64,
            free: (1 << 29) / copies as u64,
            available: (1 << 28) / copies as u64,
            inodes_free: 1 << 40,
        })
    }

    fn now(&self) -> Time {
        self.state.lock().now
    }

    fn write_bytes_max(&self) -> u32 {
        64 << 10
    }
}
