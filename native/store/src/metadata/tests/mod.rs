//! The trees against models too simple to be wrong: everything that was ever written, in a list.

mod bars;
mod memtable;

use super::cache::BlockCache;
use super::cells;
use super::compact::{into_next, with_covers};
use super::io::{PageName, Placed, Points, TableIo, TreeEdit, Version};
use super::levels::Levels;
use super::memtable::{Memtable, Stamped};
use super::table::{Access, RunCursor};
use super::tree::{Span, Tree, TreeOptions, TreeSet};
use crate::error::{Error, Kind, Result};
use holdfast_device::Rng;
use holdfast_format::cell::{self, Cell, cut_range, level_blocks, released_bytes};
use holdfast_format::key::{self, Key};
use holdfast_format::limits::CELL_LEVEL_MAX;
use holdfast_format::table::{SlotAddress, TableDesc};
use holdfast_format::{BranchId, EgroupId, GroupId, Ino, Lsn, Row, Stamp, TableId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

const BRANCH: BranchId = BranchId(3);
const OWNER: GroupId = GroupId(5);

/// Slots in memory. A failing write can be ordered, and bytes can be turned over.
struct MapIo {
    slot_bytes: usize,
    tables: Mutex<(u64, BTreeMap<TableId, Vec<u8>>)>,
    writes_left: Mutex<Option<u32>>,
}

impl MapIo {
    fn new(slot_bytes: usize) -> Arc<Self> {
        Arc::new(Self { slot_bytes, tables: Mutex::default(), writes_left: Mutex::new(None) })
    }
    fn ids(&self) -> Vec<TableId> {
        self.tables.lock().1.keys().copied().collect()
    }
}

impl TableIo for MapIo {
    fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }
    fn write_table(&self, bytes: &[u8]) -> Result<Placed> {
        assert!(bytes.len() <= self.slot_bytes, "{} bytes", bytes.len());
        if let Some(left) = &mut *self.writes_left.lock() {
            *left = left.checked_sub(1).ok_or_else(|| Error::no_space("ordered"))?;
        }
        let mut tables = self.tables.lock();
        tables.0 += 1;
        let id = TableId(tables.0);
        tables.1.insert(id, bytes.to_vec());
        Ok(Placed { id, copies: vec![SlotAddress { drive: 0, slot: id.0 as u32 }] })
    }
    fn read_table(
        &self,
        table: &TableDesc,
        offset: u32,
        into: &mut [u8],
        verify: &dyn Fn(&[u8]) -> bool,
    ) -> Result<()> {
        let tables = self.tables.lock();
        let bytes = tables.1.get(&table.id).ok_or_else(|| Error::new(Kind::NotFound, "slot reused"))?;
        into.copy_from_slice(&bytes[offset as usize..offset as usize + into.len()]);
        if verify(into) { Ok(()) } else { Err(Error::corrupt(format!("no good copy of table {}", table.id))) }
    }
    fn discard_table(&self, placed: &Placed) {
        assert!(self.tables.lock().1.remove(&placed.id).is_some(), "discarded twice");
    }
}

fn stamp(lsn: u64) -> Stamp {
    // Rows change as owners start: a table mixes them.
    Stamp { lsn: Lsn(lsn), row: Row(1 + lsn as u32 / 97) }
}

fn pages(egroup: u64, level: u8) -> Vec<u8> {
    let checksums = (0..level_blocks(level)).map(|block| egroup * 1000 + block).collect();
    let released = vec![0; released_bytes(level)];
    Cell::Pages { egroup: EgroupId(egroup), first_page: 7, checksums, released }.encode()
}

/// What a cell says about a block that it covers: `None` when it does not speak for it any more.
fn says(level: u8, value: Option<&[u8]>, block: usize) -> Option<Option<PageName>> {
    let Some(value) = value else { return Some(None) };
    match Cell::decode(level, value).unwrap() {
        Cell::Hole => Some(None),
        Cell::Packed { egroup, page, .. } => Some(Some((egroup, page))),
        Cell::Pages { egroup, first_page, checksums, released } => {
            let gone = level > 0 && released[block / 8] & (1 << (block % 8)) != 0;
            if level > 0 || egroup.0 < 1 << 40 {
                assert_eq!(checksums[block] % 1000, first_page as u64 - 7 + block as u64);
            }
            (!gone).then_some(Some((egroup, first_page + block as u16)))
        }
        other => panic!("{other:?} in a tree"),
    }
}

/// The block's content: what the newest cell that covers it says; of two with one stamp the smaller.
fn read_block(get: &dyn Fn(&[u8]) -> Option<Stamped>, ino: u64, block: u32) -> Option<PageName> {
    let mut best: Option<(Stamp, Option<PageName>)> = None;
    for level in 0..=CELL_LEVEL_MAX {
        let start = (block as u64 / level_blocks(level) * level_blocks(level)) as u32;
        let Some((stamp, value)) = get(&key::data(BRANCH, Ino(ino), start, level)) else { continue };
        let Some(page) = says(level, value.as_deref(), (block - start) as usize) else { continue };
        if best.is_none_or(|(newest, _)| newest < stamp) {
            best = Some((stamp, page));
        }
    }
    best.and_then(|(_, page)| page)
}

/// A cell as it was written.
struct Written {
    lsn: u64,
    ino: u64,
    start: u32,
    level: u8,
    page: Option<PageName>,
}

/// Every version of every plain key.
type PlainModel = BTreeMap<Key, Vec<(u64, Option<Vec<u8>>)>>;

struct World {
    seed: u64,
    rng: Rng,
    io: Arc<MapIo>,
    tree: Tree,
    memtable: Memtable,
    lsn: u64,
    drained: u64,
    /// One op in so many is one on plain keys.
    plain_share: u64,
    points: Vec<Lsn>,
    plain: PlainModel,
    cells: Vec<Written>,
    counts: BTreeMap<PageName, i64>,
}

fn options(kind: TreeSet, level1_bytes: u64) -> TreeOptions {
    TreeOptions { owner: OWNER, kind, level1_bytes, level0_payload_bytes: u64::MAX, targets_max: 2, ground: Default::default() }
}

fn memtable_versions(memtable: &Memtable) -> Vec<Version> {
    let (mut from, until, mut all) = (Vec::new(), [0xff; 32], Vec::new());
    loop {
        let chunk = memtable.chunk(&from, &until, 7);
        let Some(last) = chunk.last() else { return all };
        from = [&last.key[..], b"\0"].concat();
        all.extend(chunk);
    }
}

const INODES: u64 = 3;
/// Granules that cells fall into.
const BASES: [u32; 6] = [0, 256, 4096, 8192, 65_536, 66_048];

impl World {
    fn new(seed: u64) -> Self {
        let io = MapIo::new([64 << 10, 12 << 10, 12 << 10][seed as usize % 3]);
        let cache = Arc::new(BlockCache::new([8 << 20, 8 << 20, 8 << 20, 64 << 10][seed as usize % 4]));
        let tree = Tree::open(io.clone(), cache, options(TreeSet::Group, 40 << 10), Vec::new()).unwrap();
        Self {
            seed,
            rng: Rng::from_seed(seed),
            io,
            tree,
            memtable: Memtable::new(),
            lsn: 0,
            drained: 0,
            plain_share: [2, 3, 20][seed as usize % 3],
            points: Vec::new(),
            plain: BTreeMap::new(),
            cells: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    fn points(&self) -> Points {
        Points::from_sorted(self.points.clone())
    }

    fn insert(&mut self, key: &[u8], value: Option<&[u8]>) {
        let last_point = self.points.last().copied().unwrap_or_default();
        self.memtable.insert(key, stamp(self.lsn), value, last_point);
    }

    fn put_plain(&mut self) {
        let n = self.rng.below(12);
        let ino = Ino(self.rng.below(INODES));
        let key = match n {
            0..4 => key::dirent(BRANCH, ino, key::cookie_base(&[n as u8]), &[n as u8]),
            4..8 => key::inode(BRANCH, Ino(n)),
            _ => key::xattr(BRANCH, ino, &vec![b'x'; n as usize * 20]),
        };
        let value = (!self.rng.chance(2, 5)).then(|| {
            let bytes = self.rng.below(1500) as usize;
            vec![self.lsn as u8; bytes]
        });
        self.insert(&key, value.as_deref());
        self.plain.entry(key).or_default().push((self.lsn, value));
    }

    fn random_block(&mut self) -> u32 {
        let base = BASES[self.rng.below(BASES.len() as u64) as usize];
        let within = if self.rng.chance(1, 2) { 20 } else { 256 };
        base + self.rng.below(within) as u32
    }

    fn put_cell(&mut self, ino: u64, start: u32, level: u8, value: &[u8], page: Option<PageName>) {
        self.insert(&key::data(BRANCH, Ino(ino), start, level), Some(value));
        self.cells.push(Written { lsn: self.lsn, ino, start, level, page });
    }

    fn put_data(&mut self) {
        let (ino, block) = (self.rng.below(INODES), self.random_block());
        let egroup = self.lsn;
        match self.rng.below(10) {
            0..3 => self.put_cell(ino, block, 0, &pages(egroup, 0), Some((EgroupId(egroup), 7))),
            3 => {
                let place = (EgroupId(egroup), 9);
                let (egroup, page) = place;
                let cell = Cell::Packed { egroup, page, byte_offset: 1, length: 5, checksum: 3 };
                self.put_cell(ino, block, 0, &cell.encode(), Some(place));
            }
            4 => {
                // Shares a page that another cell may name.
                let Some((egroup, page)) = self.cells.iter().rev().find_map(|cell| cell.page) else { return };
                let checksums = vec![egroup.0 * 1000 + page as u64 - 7];
                let cell = Cell::Pages { egroup, first_page: page, checksums, released: Vec::new() };
                self.put_cell(ino, block, 0, &cell.encode(), Some((egroup, page)));
            }
            5..8 => {
                let level = 1 + self.rng.below(2) as u8;
                let start = (block as u64 / level_blocks(level) * level_blocks(level)) as u32;
                self.put_cell(ino, start, level, &pages(egroup, level), Some((EgroupId(egroup), 7)));
            }
            8 => {
                let level = self.rng.below(CELL_LEVEL_MAX as u64 + 1) as u8;
                let start = (block as u64 / level_blocks(level) * level_blocks(level)) as u32;
                self.put_cell(ino, start, level, &Cell::Hole.encode(), None);
            }
            _ => {
                let end =
                    if self.rng.chance(1, 2) { 1 << 32 } else { block as u64 + 1 + self.rng.below(5000) };
                let mut cut = Vec::new();
                cut_range(block as u64, end - block as u64, CELL_LEVEL_MAX, |start, level| {
                    cut.push((start, level))
                });
                for (start, level) in cut {
                    self.put_cell(ino, start, level, &Cell::Hole.encode(), None);
                }
            }
        }
    }

    fn publish(&mut self, edit: &TreeEdit) {
        for page in &edit.referenced {
            *self.counts.entry(*page).or_default() += 1;
        }
        for page in &edit.released {
            *self.counts.entry(*page).or_default() -= 1;
        }
        self.tree.apply(edit);
        for id in self.tree.retired() {
            self.io.tables.lock().1.remove(&id);
        }
    }

    fn build(&mut self) {
        let versions = memtable_versions(&self.memtable);
        let edit = self.tree.build(&mut versions.into_iter().map(Ok), &self.points()).unwrap();
        assert_eq!((&edit.removed, &edit.released), (&vec![], &vec![]));
        self.publish(&edit);
        self.memtable = Memtable::new();
        self.drained = self.lsn;
    }

    fn compact(&mut self) {
        let job = if self.rng.chance(1, 2) {
            self.tree.pick()
        } else {
            let view = self.tree.snapshot();
            let level = self.rng.below(view.levels.len().min(4) as u64 + 1) as usize;
            if level == 0 {
                (!view.newest.is_empty()).then(|| into_next(&view, view.newest.clone(), 1))
            } else {
                let tables = &view.levels[level - 1];
                let at = self.rng.below(tables.len().max(1) as u64) as usize;
                (!tables.is_empty()).then(|| into_next(&view, with_covers(tables, at), level as u8 + 1))
            }
        };
        let Some(job) = job else { return };
        let edit = self.tree.compact(&job, &self.points()).unwrap();
        assert!(edit.referenced.is_empty());
        drop(job);
        self.publish(&edit);
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..70 => {
                self.lsn += 1;
                if self.rng.chance(1, self.plain_share) { self.put_plain() } else { self.put_data() }
            }
            70..76 => {
                self.points.push(Lsn(self.lsn));
                self.points.dedup();
                if self.points.len() > 10 {
                    self.points.remove(self.rng.below(10) as usize);
                }
            }
            76..79 | 98 if self.points.len() > 1 => {
                let at = self.rng.below(self.points.len() as u64) as usize;
                self.points.remove(if self.rng.chance(1, 2) { 0 } else { at });
            }
            79..84 => self.build(),
            84..97 => self.compact(),
            97 => {
                let edit = self.tree.expire(&self.points()).unwrap();
                self.publish(&edit);
            }
            _ => self.check(15),
        }
    }

    fn plain_at(&self, key: &[u8], at: u64) -> Option<&Vec<u8>> {
        let versions = self.plain.get(key)?;
        versions.iter().rev().find(|(lsn, _)| *lsn <= at).and_then(|(_, value)| value.as_ref())
    }

    fn block_at(&self, ino: u64, block: u32, at: u64) -> Option<PageName> {
        let covers = |cell: &&Written| {
            let until = cell.start as u64 + level_blocks(cell.level);
            cell.lsn <= at && cell.ino == ino && cell.start <= block && (block as u64) < until
        };
        let cell = self.cells.iter().rev().find(covers)?;
        cell.page.map(|(egroup, page)| (egroup, page + (block - cell.start) as u16))
    }

    fn check(&mut self, blocks: u32) {
        let view = self.tree.snapshot();
        let drained = self.drained;
        for key in self.plain.keys() {
            let now = self.memtable.get(key).or_else(|| view.get(key).unwrap());
            let found = now.and_then(|(_, value)| value);
            assert_eq!(found.as_ref(), self.plain_at(key, self.lsn), "seed {} key {key:?}", self.seed);
            for point in self.points.iter().filter(|point| point.0 <= drained) {
                let found = view.get_at(key, *point).unwrap().and_then(|(_, value)| value);
                assert_eq!(found.as_ref(), self.plain_at(key, point.0), "seed {} at {point}", self.seed);
            }
        }
        for _ in 0..blocks {
            let (ino, block) = (self.rng.below(INODES), self.random_block());
            let (memtable, seed) = (&self.memtable, self.seed);
            let found = read_block(&|key| newest_of(memtable.get(key), view.get(key).unwrap()), ino, block);
            assert_eq!(found, self.block_at(ino, block, self.lsn), "seed {seed} inode {ino} block {block}");
            for point in self.points.iter().filter(|point| point.0 <= drained) {
                let found = read_block(&|key| view.get_at(key, *point).unwrap(), ino, block);
                let wanted = self.block_at(ino, block, point.0);
                assert_eq!(found, wanted, "seed {seed} inode {ino} block {block} at {point}");
            }
        }
        self.check_iter(&view);
        self.check_counts(&view);
    }

    fn check_iter(&self, view: &Levels) {
        let mut last: Option<Version> = None;
        for version in view.iter(&[], &[0xff; 20]).unwrap() {
            let version = version.unwrap();
            assert!(last.is_none_or(|last| last.key < version.key));
            assert_eq!(view.get(&version.key).unwrap(), Some((version.stamp, version.value.clone())));
            last = Some(version);
        }
    }

    /// Pages named by all records, one by one, are those that the edits counted.
    fn check_counts(&self, view: &Levels) {
        let mut named: BTreeMap<PageName, i64> = BTreeMap::new();
        for table in view.tables() {
            let mut cursor = RunCursor::new(vec![table.clone()], Access::Bulk, &[], None);
            let (mut records, mut tombstones) = (0, 0);
            while cursor.advance().unwrap() {
                records += 1;
                let place = key::data_place(cursor.key());
                tombstones += (cursor.value().is_none()
                    || place.is_some() && cursor.value() == Some(&[cell::TAG_HOLE]))
                    as u32;
                if let Some((_, level)) = place {
                    let count = |page| *named.entry(page).or_default() += 1;
                    cells::for_each_page(level, cursor.value(), count).unwrap();
                }
            }
            assert_eq!((records, tombstones), (table.desc.records, table.desc.tombstones));
        }
        let counts: BTreeMap<_, _> = self
            .counts
            .iter()
            .filter(|(_, count)| **count != 0)
            .map(|(page, count)| (*page, *count))
            .collect();
        assert_eq!(named, counts, "seed {}", self.seed);
    }

    /// Without points and merged to the bottom, a tree holds what the present needs, and nothing else.
    fn settle(&mut self) {
        self.build();
        self.check(60);
        self.points.clear();
        for _ in 0..100 {
            let edit = self.tree.expire(&Points::default()).unwrap();
            self.publish(&edit);
        }
        for level in 0..5 {
            // A merge may stop before the end, but not before it has moved something.
            for merges in 0.. {
                let view = self.tree.snapshot();
                let sources = if level == 0 { Some(&view.newest) } else { view.levels.get(level - 1) };
                let sources = sources.cloned().unwrap_or_default();
                if sources.is_empty() {
                    break;
                }
                let left: u32 = sources.iter().map(|table| table.desc.records).sum();
                assert!(merges <= left, "seed {}", self.seed);
                let job = into_next(&view, sources, level as u8 + 1);
                drop(view);
                let edit = self.tree.compact(&job, &Points::default()).unwrap();
                drop(job);
                self.publish(&edit);
                let stays = edit.added.iter().filter(|table| table.level as usize == level && level > 0);
                assert!(stays.map(|table| table.records).sum::<u32>() < left, "seed {}", self.seed);
                if merges % 8 == 0 {
                    self.check(10);
                }
            }
        }
        self.check(200);
        let stats = self.tree.stats();
        assert_eq!(
            (stats.then.records, stats.levels.iter().map(|level| level.tombstones).sum::<u64>()),
            (0, 0)
        );
        assert!(stats.levels[..stats.levels.len() - 1].iter().all(|level| level.tables == 0));
        let data: i64 = self.counts.values().sum();
        let mut wanted = 0;
        for ino in 0..INODES {
            for base in BASES {
                wanted +=
                    (base..base + 256).filter(|block| self.block_at(ino, *block, self.lsn).is_some()).count();
            }
        }
        assert_eq!(data, wanted as i64, "seed {}", self.seed);
        let mut ids = self.io.ids();
        let mut named: Vec<_> = self.tree.tables().iter().map(|table| table.id).collect();
        ids.sort();
        named.sort();
        assert_eq!(ids, named, "no slot is lost");
    }
}

fn newest_of(left: Option<Stamped>, right: Option<Stamped>) -> Option<Stamped> {
    match (left, right) {
        (Some(left), Some(right)) => Some(if left.0 > right.0 { left } else { right }),
        (left, right) => left.or(right),
    }
}

#[test]
fn trees_equal_the_model() {
    for seed in 0..250 {
        let mut world = World::new(seed);
        for _ in 0..if seed % 8 == 0 { 1200 } else { 300 } {
            world.step();
        }
        world.settle();
    }
}
