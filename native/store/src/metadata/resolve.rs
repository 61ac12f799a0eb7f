//! What survives when versions meet: NOW keeps the newest, THEN what a point sees, the rest releases its
//! pages.
//!
//! Records come in order of key, then newest first. Plain keys are decided one by one. DATA cells are decided
//! in granules: all cells that start in one aligned MiB of one inode, under the holes of levels 3 and up that
//! reach into it. From the newest cell to the oldest, `next[block]` is the LSN that shadows what comes: a
//! cell's life at a block is `[stamp, next)`. Of two cells with one stamp the smaller counts as the newer.
//!
//! A life may be recorded longer than it was, when the version that ended it went to THEN (or was seen by no
//! point) in an earlier merge. That is harmless: readers of a point take the newest birth. It is why
//! deletions and holes go to THEN too when a point sees them, and why they leave NOW only when no deeper
//! table can hold what they shadow.

use super::cells::{self, Content};
use super::io::Points;
use super::output::{Output, Sink};
use super::table::Table;
use super::tree::Floor;
use crate::error::Result;
use holdfast_format::block::Entry;
use holdfast_format::cell::level_blocks;
use holdfast_format::index;
use holdfast_format::key::{self, KIND_DATA, Key, PREFIX_BYTES};
use holdfast_format::limits::CELL_LEVEL_DATA_MAX;
use holdfast_format::table::TreeKind;
use holdfast_format::{Lsn, Row, Stamp};
use std::ops::Range;
use std::sync::Arc;

const GRANULE_BLOCKS: usize = level_blocks(CELL_LEVEL_DATA_MAX) as usize;
const DATA_KEY_BYTES: usize = PREFIX_BYTES + 5;
const ALIVE: Lsn = Lsn(u64::MAX);

type DataKey = [u8; DATA_KEY_BYTES];

/// The tables that are older than the output: runs in key order.
pub(crate) struct Below {
    pub tree: TreeKind,
    pub runs: Vec<Vec<Arc<Table>>>,
    pub floor: Option<Arc<dyn Floor>>,
}

impl Below {
    fn may_hold(&self, key: &[u8]) -> Result<bool> {
        let hash = index::filter_hash(self.tree, key);
        for run in &self.runs {
            let at = run.partition_point(|table| &table.desc.last[..] < key);
            if let Some(table) = run.get(at).filter(|table| table.spans(key))
                && table.index()?.may_hold(hash)
            {
                return Ok(true);
            }
        }
        self.floor_holds(key)
    }

    fn floor_holds(&self, key: &[u8]) -> Result<bool> {
        self.floor.as_ref().map_or(Ok(false), |floor| floor.may_hold(key))
    }

    /// Tables that may hold cells of the inode of this DATA key.
    fn tables_of_inode(&self, key: &[u8]) -> Result<Vec<Arc<Table>>> {
        let from = &key[..PREFIX_BYTES];
        let until = [&key[..PREFIX_BYTES - 1], &[KIND_DATA + 1]].concat();
        let hash = index::filter_hash(self.tree, key);
        let mut found = Vec::new();
        for run in &self.runs {
            let start = run.partition_point(|table| &table.desc.last[..] < from);
            for table in run[start..].iter().take_while(|table| table.desc.first < until) {
                if table.index()?.may_hold(hash) {
                    found.push(table.clone());
                }
            }
        }
        Ok(found)
    }
}

/// Where the input comes from: whether its pages were counted before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// A memtable: what is kept references its pages.
    Memtable,
    /// Tables: what is dropped releases its pages.
    Tables,
}

struct CellRecord {
    start: u32,
    level: u8,
    stamp: Stamp,
    /// In the arena; `None`: a deletion, which says the same as a hole.
    value: Option<Range<usize>>,
    content: Content,
    alive: bool,
}

/// A version that goes to THEN.
struct Past {
    key: DataKey,
    stamp: Stamp,
    death: Lsn,
    value: Option<Range<usize>>,
}

/// A hole of level 3 or higher that reaches over the granules after its own.
struct Cover {
    until_block: u64,
    lsn: Lsn,
}

pub(crate) struct Resolver<'a, S> {
    points: &'a Points,
    below: Below,
    origin: Origin,
    out: S,
    /// The plain key being decided, and the stamp of its version that came last.
    key: Key,
    newer: Lsn,
    /// Versions with stamps of this row hide others, and are not put out themselves.
    hiding: Option<Row>,
    /// The granule being collected: inode, first block.
    granule: Option<([u8; PREFIX_BYTES], u32)>,
    arena: Vec<u8>,
    records: Vec<CellRecord>,
    past: Vec<Past>,
    covers: Vec<Cover>,
    /// Deeper tables that may hold cells of the granule's inode, once asked for.
    inode_tables: Option<Vec<Arc<Table>>>,
    /// Whether the floor has the inode, once asked.
    in_floor: Option<bool>,
}

impl Resolver<'_, Output<'_>> {
    /// Pages that what was decided so far names, when it comes from memory.
    pub(crate) fn named(&self) -> usize {
        self.out.edit.referenced.len()
    }

    /// Tables that are full.
    pub(crate) fn tables(&self) -> usize {
        self.out.edit.added.len()
    }
}

impl<'a, S: Sink> Resolver<'a, S> {
    pub(crate) fn new(points: &'a Points, below: Below, origin: Origin, out: S) -> Self {
        Self {
            points,
            below,
            origin,
            out,
            key: Key::new(),
            newer: ALIVE,
            hiding: None,
            granule: None,
            arena: Vec::new(),
            records: Vec::new(),
            past: Vec::new(),
            covers: Vec::new(),
            inode_tables: None,
            in_floor: None,
        }
    }

    /// Versions of this row only hide.
    pub(crate) fn hiding(mut self, row: Row) -> Self {
        self.hiding = Some(row);
        self
    }

    pub(crate) fn push(&mut self, key: &[u8], stamp: Stamp, value: Option<&[u8]>) -> Result<()> {
        if self.below.tree == TreeKind::Now
            && let Some((start, level)) = key::data_place(key)
        {
            return self.push_cell(key, start, level, stamp, value);
        }
        self.flush_granule()?;
        if self.newer == ALIVE || self.key != key {
            self.key.clear();
            self.key.extend_from_slice(key);
            self.newer = stamp.lsn;
            if self.hiding == Some(stamp.row) || value.is_none() && !self.below.may_hold(key)? {
                return Ok(());
            }
            return self.out.put_now(Entry { key, stamp, death: Lsn(0), value });
        }
        let death = std::mem::replace(&mut self.newer, stamp.lsn);
        if self.below.tree == TreeKind::Now && self.points.sees(stamp.lsn, death) && !key::is_point(key) {
            self.out.put_then(Entry { key, stamp, death, value })?;
        }
        Ok(())
    }

    /// Where everything went.
    pub(crate) fn finish(mut self) -> Result<S> {
        self.flush_granule()?;
        Ok(self.out)
    }

    fn push_cell(
        &mut self,
        key: &[u8],
        start: u32,
        level: u8,
        stamp: Stamp,
        value: Option<&[u8]>,
    ) -> Result<()> {
        let mut inode = [0; PREFIX_BYTES];
        inode.copy_from_slice(&key[..PREFIX_BYTES]);
        let first = start / GRANULE_BLOCKS as u32 * GRANULE_BLOCKS as u32;
        if self.granule != Some((inode, first)) {
            let before = self.granule;
            self.flush_granule()?;
            if before.is_none_or(|(of, _)| of != inode) {
                self.covers.clear();
                self.inode_tables = None;
                self.in_floor = None;
            }
            self.granule = Some((inode, first));
        }
        let content = cells::content(level, value)?;
        let at = self.arena.len();
        let value = value.map(|value| {
            self.arena.extend_from_slice(value);
            at..self.arena.len()
        });
        self.records.push(CellRecord { start, level, stamp, value, content, alive: true });
        Ok(())
    }

    /// Decides and emits the collected granule. The inode's covers stay for the granules that follow.
    fn flush_granule(&mut self) -> Result<()> {
        let Some((inode, first)) = self.granule else { return Ok(()) };
        if self.records.is_empty() {
            return Ok(());
        }
        self.covers.retain(|cover| cover.until_block > first as u64);
        if self.records.len() > 1 || !self.covers.is_empty() {
            self.resolve(&inode, first)?;
        }
        self.emit_now(&inode)?;
        self.emit_then()?;
        for record in self.records.drain(..).filter(|record| record.level > CELL_LEVEL_DATA_MAX) {
            let until_block = record.start as u64 + level_blocks(record.level);
            self.covers.push(Cover { until_block, lsn: record.stamp.lsn });
        }
        self.arena.clear();
        Ok(())
    }

    fn resolve(&mut self, inode: &[u8; PREFIX_BYTES], first: u32) -> Result<()> {
        let mut order: Vec<usize> = (0..self.records.len()).collect();
        order.sort_by_key(|at| {
            let record = &self.records[*at];
            (std::cmp::Reverse(record.stamp), record.level)
        });
        let mut covers: Vec<Lsn> = self.covers.iter().map(|cover| cover.lsn).collect();
        covers.sort_unstable();
        let mut next = [ALIVE; GRANULE_BLOCKS];
        for at in order {
            let (lsn, level) = (self.records[at].stamp.lsn, self.records[at].level);
            while covers.last().is_some_and(|cover| *cover > lsn) {
                next.fill(covers.pop().unwrap_or(ALIVE));
            }
            if level > CELL_LEVEL_DATA_MAX {
                self.decide_cover(inode, at)?;
                next.fill(lsn);
            } else {
                let from = (self.records[at].start - first) as usize;
                let blocks = &mut next[from..from + level_blocks(level) as usize];
                self.decide_cell(inode, at, blocks)?;
            }
        }
        Ok(())
    }

    /// A hole of level 3 or higher dies of the next newer hole that covers it whole.
    fn decide_cover(&mut self, inode: &[u8; PREFIX_BYTES], at: usize) -> Result<()> {
        let record = &self.records[at];
        let (lsn, level) = (record.stamp.lsn, record.level);
        let beside = self.records.iter().filter(|other| other.level >= level).map(|other| other.stamp.lsn);
        let death =
            self.covers.iter().map(|cover| cover.lsn).chain(beside).filter(|other| *other > lsn).min();
        if let Some(death) = death {
            self.end_whole(inode, at, death)?;
        }
        Ok(())
    }

    /// Ends the life of a cell of levels 0 to 2 where something newer lies over it, and puts it over what is
    /// older.
    fn decide_cell(&mut self, inode: &[u8; PREFIX_BYTES], at: usize, next: &mut [Lsn]) -> Result<()> {
        let record = &self.records[at];
        let (lsn, level) = (record.stamp.lsn, record.level);
        let value = record.value.clone().map_or(&[][..], |range| &self.arena[range]);
        let (mut alive, mut shortest, mut longest) = (0, ALIVE, Lsn(0));
        let mut held = [false; GRANULE_BLOCKS];
        for (block, death) in next.iter_mut().enumerate() {
            held[block] = record.content == Content::Hole || !cells::is_released(level, value, block);
            if !held[block] {
                continue;
            }
            if *death == ALIVE {
                alive += 1;
            } else {
                shortest = shortest.min(*death);
                longest = longest.max(*death);
            }
        }
        if record.content == Content::Hole {
            if alive == 0 {
                self.end_whole(inode, at, longest)?;
            }
        } else if !held.contains(&true) {
            // Nothing was in use through it any more. (What is held may have died at LSN 0: what a clone took over twice.)
            self.records[at].alive = false;
        } else if alive == 0 && shortest == longest {
            self.end_whole(inode, at, longest)?;
        } else if shortest != ALIVE {
            for (block, death) in next.iter().enumerate().filter(|(block, _)| held[*block]) {
                if *death != ALIVE {
                    self.end_block(inode, at, block, *death);
                }
            }
            self.records[at].alive = alive > 0;
        }
        // Also where it holds nothing any more: in its time it lay over what is older.
        next.fill(lsn);
        Ok(())
    }

    /// The version leaves NOW: to THEN when a point sees it, else its pages are released.
    fn end_whole(&mut self, inode: &[u8; PREFIX_BYTES], at: usize, death: Lsn) -> Result<()> {
        let record = &mut self.records[at];
        record.alive = false;
        if self.points.sees(record.stamp.lsn, death) {
            let key = data_key(inode, record.start, record.level);
            self.past.push(Past { key, stamp: record.stamp, death, value: record.value.clone() });
        } else if self.origin == Origin::Tables {
            let value = record.value.clone().map(|range| &self.arena[range]);
            cells::for_each_page(record.level, value, |page| self.out.release(page))?;
        }
        Ok(())
    }

    /// One block of a data cell leaves it: to THEN as a cell of its own when a point sees it, else its page
    /// is released.
    fn end_block(&mut self, inode: &[u8; PREFIX_BYTES], at: usize, block: usize, death: Lsn) {
        let record = &self.records[at];
        let (Content::Pages(egroup, first_page), Some(range)) = (record.content, record.value.clone()) else {
            return;
        };
        let (start, level, stamp) = (record.start, record.level, record.stamp);
        if self.points.sees(stamp.lsn, death) {
            let cell = cells::block_cell(&self.arena[range.clone()], first_page, block);
            let from = self.arena.len();
            self.arena.extend_from_slice(&cell);
            let key = data_key(inode, start + block as u32, 0);
            self.past.push(Past { key, stamp, death, value: Some(from..self.arena.len()) });
        } else if self.origin == Origin::Tables {
            self.out.release((egroup, first_page + block as u16));
        }
        cells::set_released(level, &mut self.arena[range], block);
    }

    fn emit_now(&mut self, inode: &[u8; PREFIX_BYTES]) -> Result<()> {
        self.out.reserve_now(self.arena.len() + self.records.len() * DATA_KEY_BYTES, self.records.len())?;
        for at in 0..self.records.len() {
            let record = &self.records[at];
            if !record.alive || self.hiding == Some(record.stamp.row) {
                continue;
            }
            let key = data_key(inode, record.start, record.level);
            let (level, stamp) = (record.level, record.stamp);
            if record.content == Content::Hole && !self.shadows_below(&key, at)? {
                continue;
            }
            let value = self.records[at].value.clone().map(|range| &self.arena[range]);
            if self.origin == Origin::Memtable {
                cells::for_each_page(level, value, |page| self.out.reference(page))?;
            }
            self.out.put_now(Entry { key: &key, stamp, death: Lsn(0), value })?;
        }
        Ok(())
    }

    fn emit_then(&mut self) -> Result<()> {
        self.past.sort_unstable_by(|left, right| left.key.cmp(&right.key).then(right.stamp.cmp(&left.stamp)));
        for past in self.past.drain(..) {
            let value = past.value.map(|range| &self.arena[range]);
            if self.origin == Origin::Memtable {
                let level = key::data_place(&past.key).map_or(0, |(_, level)| level);
                cells::for_each_page(level, value, |page| self.out.reference(page))?;
            }
            self.out.put_then(Entry { key: &past.key, stamp: past.stamp, death: past.death, value })?;
        }
        Ok(())
    }

    /// Whether a deeper table may hold cells under this hole. If none does, absence says the same.
    fn shadows_below(&mut self, key: &DataKey, at: usize) -> Result<bool> {
        if self.inode_tables.is_none() {
            self.inode_tables = Some(self.below.tables_of_inode(key)?);
        }
        if self.in_floor.is_none() {
            self.in_floor = Some(self.below.floor_holds(key)?);
        }
        if self.in_floor == Some(true) {
            return Ok(true);
        }
        let until = super::cover_until(key, self.records[at].start, self.records[at].level);
        Ok(self
            .inode_tables
            .iter()
            .flatten()
            .any(|table| table.desc.first < until && table.desc.cover_until[..] > key[..]))
    }
}

fn data_key(inode: &[u8; PREFIX_BYTES], start: u32, level: u8) -> DataKey {
    let mut key = [0; DATA_KEY_BYTES];
    key[..PREFIX_BYTES].copy_from_slice(inode);
    key[PREFIX_BYTES..PREFIX_BYTES + 4].copy_from_slice(&start.to_be_bytes());
    key[DATA_KEY_BYTES - 1] = holdfast_format::limits::CELL_LEVEL_MAX - level;
    key
}
