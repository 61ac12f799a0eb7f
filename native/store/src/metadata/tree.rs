//! The trees of one owner: NOW answers for the present, THEN holds what kept points still see.

use super::cache::BlockCache;
use super::io::{Points, TableIo, TreeEdit, Version};
use super::memtable::Stamped;
use crate::error::{Error, Kind, Result};
use holdfast_format::table::TableDesc;
use holdfast_format::{GroupId, Lsn, Stamp, TableId};
use std::sync::Arc;

/// Which trees an owner has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TreeSet {
    /// NOW and THEN; DATA keys are resolved as cells.
    Group,
    /// One tree of plain keys, one version each.
    Pool,
}

#[derive(Clone, Debug)]
pub struct TreeOptions {
    pub owner: GroupId,
    pub kind: TreeSet,
    /// Bytes that level 1 may hold; each deeper one holds eight times more.
    pub level1_bytes: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct LevelStats {
    pub tables: u64,
    pub bytes: u64,
    pub records: u64,
    pub tombstones: u64,
}

#[derive(Clone, Default, Debug)]
pub struct TreeStats {
    /// NOW, level 0 first.
    pub levels: Vec<LevelStats>,
    pub then_tables: u64,
    pub then_bytes: u64,
    pub then_records: u64,
    /// Look-ups by key since start, and the keys that they stepped over.
    pub lookups: u64,
    pub keys_stepped: u64,
}

/// A piece of compaction work: what [`Tree::pick`] found.
pub struct Compaction {
    _inputs: Vec<TableId>,
}

/// All tables of a moment. Readers hold it while they read.
pub struct Levels {}

/// NOW in key order: per key the newest version, deletions included.
pub struct LevelsIter {}

pub struct Tree {
    levels: Arc<Levels>,
}

fn missing<T>() -> Result<T> {
    Err(Error::new(Kind::Internal, "the tree is being built"))
}

impl Tree {
    pub fn open(
        _io: Arc<dyn TableIo>,
        _cache: Arc<BlockCache>,
        _options: TreeOptions,
        _tables: Vec<TableDesc>,
    ) -> Result<Self> {
        missing()
    }
    /// An immutable view; the slots of its tables are not reported by [`Tree::retired`] while it is held.
    pub fn snapshot(&self) -> Arc<Levels> {
        self.levels.clone()
    }
    /// Tables that an applied edit removed and that no snapshot names any more, each reported once.
    pub fn retired(&self) -> Vec<TableId> {
        Vec::new()
    }
    /// Writes L0 tables (newest version per key) and THEN tables (older versions seen by a point) from versions sorted by
    /// key, then stamp descending. Publishes nothing.
    pub fn build(
        &self,
        _versions: &mut dyn Iterator<Item = Result<Version>>,
        _points: &Points,
    ) -> Result<TreeEdit> {
        missing()
    }
    /// What should be compacted next.
    pub fn pick(&self) -> Option<Compaction> {
        None
    }
    pub fn compact(&self, _job: &Compaction, _points: &Points) -> Result<TreeEdit> {
        missing()
    }
    /// Makes an edit visible, after it is durable.
    pub fn apply(&self, _edit: &TreeEdit) {}
    pub fn tables(&self) -> Vec<TableDesc> {
        Vec::new()
    }
    pub fn stats(&self) -> TreeStats {
        TreeStats::default()
    }
    /// Drops whole THEN tables that no point sees any more.
    pub fn expire(&self, _points: &Points) -> Result<TreeEdit> {
        missing()
    }
}

impl Levels {
    /// Newest version in NOW.
    pub fn get(&self, _key: &[u8]) -> Result<Option<Stamped>> {
        missing()
    }
    /// NOW's records with `from <= key < until`.
    pub fn iter(&self, _from: &[u8], _until: &[u8]) -> Result<LevelsIter> {
        missing()
    }
    /// The version that point `at` sees, over NOW and THEN.
    pub fn get_at(&self, _key: &[u8], _at: Lsn) -> Result<Option<Stamped>> {
        missing()
    }
}

impl LevelsIter {
    /// Steps to the next record; false at the end. Cheaper than the `Iterator`, which copies every record.
    pub fn advance(&mut self) -> Result<bool> {
        missing()
    }
    pub fn key(&self) -> &[u8] {
        &[]
    }
    pub fn stamp(&self) -> Stamp {
        Stamp::default()
    }
    /// `None`: deleted.
    pub fn value(&self) -> Option<&[u8]> {
        None
    }
}

impl Iterator for LevelsIter {
    type Item = Result<Version>;
    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(true) => Some(Ok(Version {
                key: self.key().to_vec(),
                stamp: self.stamp(),
                value: self.value().map(<[u8]>::to_vec),
            })),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}
