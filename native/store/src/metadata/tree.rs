//! The trees of one owner: NOW answers for the present, THEN holds what kept points still see.
//!
//! Rules of use: `build`, `compact` and `expire` write tables and publish nothing; their edit is written to
//! the manifest, then given to `apply`, before the next of them is called. Readers need no lock: they hold a
//! snapshot.

use super::absorb::{absorb, count};
use super::cache::BlockCache;
use super::compact;
use super::io::{TableIo, TreeEdit, Version};
use super::levels::Counters;
use super::output::Output;
use super::resolve::{Below, Origin, Resolver};
use super::table::Table;
use super::writer::TableName;
use crate::error::{Error, Kind, Result};
use holdfast_format::key::Key;
use holdfast_format::limits::{EXPIRE_TABLES_MAX, LEVELS_MAX};
use holdfast_format::table::{TableDesc, TreeKind};
use holdfast_format::{BranchId, GroupId, TableId};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

pub use super::absorb::{Absorbed, Layer, Share};
pub use super::io::Points;
pub use super::changed::{ChangedKeys, Span};
pub use super::compact::Compaction;
pub use super::levels::{Levels, LevelsIter};

/// Which trees an owner has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TreeSet {
    /// NOW and THEN; DATA keys are resolved as cells.
    Group,
    /// One tree of plain keys, one version each.
    Pool,
}

/// What lies below the deepest level: a clone's parent.
pub trait Floor: Send + Sync {
    /// Whether it has a record of this key, or, of a DATA key, the inode.
    fn may_hold(&self, key: &[u8]) -> Result<bool>;
}

/// The floor, as long as there is one: a clone may get everything of its own.
#[derive(Clone, Default)]
pub struct Ground(Arc<RwLock<Option<Arc<dyn Floor>>>>);

impl Ground {
    pub fn new(floor: Option<Arc<dyn Floor>>) -> Self {
        Self(Arc::new(RwLock::new(floor)))
    }

    pub fn floor(&self) -> Option<Arc<dyn Floor>> {
        self.0.read().clone()
    }
}

#[derive(Clone)]
pub struct TreeOptions {
    pub owner: GroupId,
    pub kind: TreeSet,
    /// Bytes that level 1 may hold; each deeper one holds `LEVEL_FANOUT` times more.
    pub level1_bytes: u64,
    /// Payload that level 0 may name before it is merged: what it hides below is dead and not yet released.
    pub level0_payload_bytes: u64,
    /// Tables of the next level that a table of level 1 or deeper is merged with at a time.
    pub targets_max: usize,
    pub ground: Ground,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct LevelStats {
    pub tables: u64,
    pub bytes: u64,
    pub records: u64,
    /// Deletions and holes.
    pub tombstones: u64,
    /// Bytes of stored pages that the records name.
    pub payload_bytes: u64,
}

#[derive(Clone, Default, Debug)]
pub struct TreeStats {
    /// NOW, level 0 first.
    pub levels: Vec<LevelStats>,
    pub then: LevelStats,
    /// Look-ups and walks since start, and the keys that they stepped over in tables.
    pub lookups: u64,
    pub keys_stepped: u64,
}

/// Which tables of THEN to look at.
pub struct Looseness<'a> {
    pub tables: &'a [TableId],
    /// A table is written again when at least one part in so many of its records, or of the bytes that they name, is seen by
    /// nobody; `None`: for a single record.
    pub share: Option<u64>,
}

/// Slots of a compaction beside those of level 0 and 1: tables of THEN, the last table.
const UPKEEP_SLOTS: u64 = 4;

pub struct Tree {
    io: Arc<dyn TableIo>,
    cache: Arc<BlockCache>,
    options: TreeOptions,
    levels: RwLock<Arc<Levels>>,
    /// Where each level's compaction stopped the last time.
    cursors: Mutex<Vec<Key>>,
    /// Removed tables that a snapshot may still name.
    retiring: Mutex<Vec<(TableId, Weak<Table>)>>,
}

impl Tree {
    /// A tree of the tables that the manifest names for this owner. Reads nothing.
    pub fn open(
        io: Arc<dyn TableIo>,
        cache: Arc<BlockCache>,
        options: TreeOptions,
        tables: Vec<TableDesc>,
    ) -> Result<Self> {
        for table in &tables {
            let fits = (table.tree == TreeKind::Pool) == (options.kind == TreeSet::Pool);
            if table.owner != options.owner || !fits || table.level as usize >= LEVELS_MAX {
                let (id, level) = (table.id, table.level);
                return Err(Error::corrupt(format!(
                    "the manifest names table {id} (group {}, {:?}, level {level}) as one of group {}",
                    table.owner, table.tree, options.owner
                )));
            }
        }
        let open = |desc| Arc::new(Table::new(desc, io.clone(), cache.clone()));
        let levels = Levels::new(tables.into_iter().map(open).collect(), Arc::new(Counters::default()));
        Ok(Self {
            levels: RwLock::new(Arc::new(levels)),
            cursors: Mutex::new(vec![Key::new(); LEVELS_MAX]),
            retiring: Mutex::default(),
            io,
            cache,
            options,
        })
    }

    fn now(&self) -> TreeKind {
        match self.options.kind {
            TreeSet::Group => TreeKind::Now,
            TreeSet::Pool => TreeKind::Pool,
        }
    }

    /// An immutable view. While it is held, [`Tree::retired`] keeps quiet about its tables.
    pub fn snapshot(&self) -> Arc<Levels> {
        self.levels.read().clone()
    }

    /// Tables that an applied edit removed and that no snapshot, iterator or job names any more. Each is
    /// reported once.
    pub fn retired(&self) -> Vec<TableId> {
        let mut free = Vec::new();
        self.retiring.lock().retain(|(id, table)| {
            let held = table.strong_count() > 0;
            if !held {
                free.push(*id);
            }
            held
        });
        free
    }

    /// Writes L0 tables (per key the newest version) and THEN tables (older versions that a point sees) from
    /// versions sorted by key, then newest first. Everything in it is newer than everything in the tree.
    /// Cells are final (no LOGGED, no PARTIAL). Streaming. Publishes nothing; on an error the tables are
    /// given back.
    pub fn build(
        &self,
        versions: &mut dyn Iterator<Item = Result<Version>>,
        points: &Points,
    ) -> Result<TreeEdit> {
        let view = self.snapshot();
        let below = Below { tree: self.now(), runs: view.runs.iter().chain(&view.levels).cloned().collect(), floor: self.options.ground.floor() };
        let name = TableName { owner: self.options.owner, tree: self.now(), level: 0 };
        let out = Output::new(&*self.io, name, Vec::new(), points);
        let mut resolver = Resolver::new(points, below, Origin::Memtable, out);
        for version in versions {
            let version = version?;
            resolver.push(&version.key, version.stamp, version.value.as_deref())?;
        }
        resolver.finish()?.finish()
    }

    /// Takes over records of what lies below the tree, and of what lies below that, as far as `own`, a point of the tree itself,
    /// does not hide them; `floor`: what stays below. Publishes nothing, as `build`.
    ///
    /// # Errors
    /// `Conflict`: every level is in use.
    pub fn absorb(&self, own: &Layer, layers: &[Layer], floor: Option<Arc<dyn Floor>>, share: &Share<'_>) -> Result<Absorbed> {
        let view = self.snapshot();
        let mut level = view.levels.len().max(1);
        let deepest = view.levels.last().into_iter().flatten();
        if deepest.into_iter().any(|table| table.desc.cover_until[..] > *share.from || table.desc.last[..] >= *share.from) {
            level += 1;
        }
        if level >= LEVELS_MAX {
            return Err(Error::new(Kind::Conflict, "every level of the volume's records is in use: try again later"));
        }
        let name = TableName { owner: self.options.owner, tree: self.now(), level: level as u8 };
        let below = Below { tree: self.now(), runs: Vec::new(), floor };
        absorb(&*self.io, name, (own, layers), below, share)
    }

    /// Bytes of the pages that all steps of [`Self::absorb`] would name.
    pub fn inherited_bytes(own: &Layer, layers: &[Layer], branches: &BTreeSet<BranchId>) -> Result<u64> {
        count(own, layers, branches)
    }

    /// Bytes of the tables: of what lies before a key, about, and of everything.
    pub fn bytes_before(&self, key: &[u8]) -> (u64, u64) {
        let view = self.snapshot();
        view.tables().fold((0, 0), |(done, total), table| {
            let desc = &table.desc;
            let bytes = desc.bytes as u64;
            let passed = if desc.last[..] < *key { bytes } else if desc.first[..] < *key { bytes / 2 } else { 0 };
            (done + passed, total + bytes)
        })
    }

    /// The tree lies on something else from now on, or on nothing.
    pub fn set_floor(&self, floor: Option<Arc<dyn Floor>>) {
        *self.options.ground.0.write() = floor;
    }

    /// What should be compacted next, if anything.
    pub fn pick(&self) -> Option<Compaction> {
        let view = self.snapshot();
        compact::pick(&view, &self.options, &mut self.cursors.lock())
            .map(|job| job.with_small_neighbours(self.io.slot_bytes()))
            .or_else(|| compact::pick_then(&view, self.io.slot_bytes()))
    }

    /// What should be merged because it is mostly deletions, which readers of now step over.
    pub fn pick_dead(&self) -> Option<Compaction> {
        compact::pick_dead(&self.snapshot())
    }

    /// Work that may give space back when nothing is due: merging level 0, whose versions hide older ones, and moving
    /// deletions and holes down to what they hide. Comes to an end.
    pub fn pick_for_space(&self) -> Option<Compaction> {
        compact::pick_for_space(&self.snapshot()).map(|job| job.with_small_neighbours(self.io.slot_bytes()))
    }

    /// Slots for the outputs of the largest compaction to come, one copy.
    pub fn upkeep_slots(&self) -> u64 {
        let view = self.snapshot();
        let inputs = view.newest.iter().chain(view.levels.first().into_iter().flatten());
        let (bytes, records, tombstones) = inputs.fold((0, 1, 0), |(bytes, records, tombstones), table| {
            let desc = &table.desc;
            (bytes + desc.bytes as u64, records + desc.records as u64, tombstones + desc.tombstones as u64)
        });
        // A deletion goes, and what it hides.
        let left = records.saturating_sub(2 * tombstones);
        let mut most = bytes * left / records;
        for levels in view.levels.windows(2) {
            for table in &levels[0] {
                let first = levels[1].partition_point(|other| other.desc.last < table.desc.first);
                let met = levels[1][first..].iter().take_while(|other| other.desc.first < table.desc.cover_until);
                let met = met.take(self.options.targets_max);
                most = most.max(table.desc.bytes as u64 + met.map(|other| other.desc.bytes as u64).sum::<u64>());
            }
        }
        most.div_ceil(self.io.slot_bytes() as u64) + UPKEEP_SLOTS
    }

    /// Merges the inputs of a job. Empty when another edit took one of them in the meantime.
    pub fn compact(&self, job: &Compaction, points: &Points) -> Result<TreeEdit> {
        let present: BTreeSet<TableId> = self.snapshot().tables().map(|table| table.desc.id).collect();
        if !job.inputs().all(|table| present.contains(&table.desc.id)) {
            return Ok(TreeEdit::default());
        }
        compact::run(&*self.io, &self.options, self.now(), job, points)
    }

    /// Drops the THEN tables that no point sees any more, and thins those that only an old point sees. NOW is
    /// unaffected. Bounded work: call it again until the edit is empty.
    pub fn expire(&self, points: &Points) -> Result<TreeEdit> {
        compact::expire(&*self.io, self.options.owner, &self.snapshot(), EXPIRE_TABLES_MAX, points)
    }

    /// Looks at tables of THEN that may hold records which only points saw that have gone: written again without them, where
    /// there are (enough).
    pub fn loosen(&self, points: &Points, what: Looseness<'_>) -> Result<TreeEdit> {
        compact::loosen(&*self.io, self.options.owner, &self.snapshot(), &what, points)
    }

    /// Removes one table with everything that it names: the owner is destroyed. Empty when none is left.
    pub fn dissolve_step(&self) -> Result<TreeEdit> {
        super::dissolve::dissolve_step(&self.snapshot())
    }

    /// Calls `visit` with every DATA record of every table, NOW and THEN, in no order: for checks.
    pub fn each_data_record(&self, visit: &mut dyn FnMut(Version) -> Result<()>) -> Result<()> {
        super::survey::each_data_record(&self.snapshot(), visit)
    }

    /// Calls `visit` with the DATA records (key and value) of one table, from a key on, until it returns false: for the
    /// scrub. False: the tree has no such table any more.
    pub fn data_records_of(
        &self,
        table: TableId,
        from: &[u8],
        visit: super::survey::RecordVisit<'_>,
    ) -> Result<bool> {
        super::survey::data_records_of(&self.snapshot(), table, from, visit)
    }

    /// Calls `visit` with every DATA record that only the past sees: those of the tables of THEN that `wanted` takes, then what NOW
    /// still hides of older versions, as a merge of all its levels would tell. Reads as much of NOW as inodes have that were
    /// changed since its levels met.
    pub(crate) fn each_past_record(
        &self,
        points: &Points,
        wanted: &dyn Fn(&TableDesc) -> bool,
        visit: super::hidden::PastVisit<'_>,
    ) -> Result<()> {
        super::hidden::each_past_record(&self.snapshot(), points, wanted, visit)
    }

    /// Only the records of the tables of THEN that `wanted` takes.
    pub(crate) fn each_then_record(
        &self,
        wanted: &dyn Fn(&TableDesc) -> bool,
        visit: super::hidden::PastVisit<'_>,
    ) -> Result<()> {
        super::hidden::each_then_record(&self.snapshot(), wanted, visit)
    }

    /// Makes an edit visible, after it is durable. Tables of other owners in it are ignored.
    pub fn apply(&self, edit: &TreeEdit) {
        let removed: BTreeSet<TableId> = edit.removed.iter().copied().collect();
        let mut levels = self.levels.write();
        let mut tables = Vec::new();
        let mut retiring = self.retiring.lock();
        for table in levels.tables() {
            if removed.contains(&table.desc.id) {
                retiring.push((table.desc.id, Arc::downgrade(table)));
            } else {
                tables.push(table.clone());
            }
        }
        for desc in edit.added.iter().filter(|desc| desc.owner == self.options.owner) {
            tables.push(Arc::new(Table::new(desc.clone(), self.io.clone(), self.cache.clone())));
        }
        *levels = Arc::new(Levels::new(tables, levels.counters.clone()));
    }

    /// Gives back the tables of an edit that was not published and never will be.
    pub fn abandon(&self, edit: &TreeEdit) {
        super::output::discard(&*self.io, &edit.added);
    }

    /// Every table of the trees, as the manifest names it.
    pub fn tables(&self) -> Vec<TableDesc> {
        self.snapshot().tables().map(|table| table.desc.clone()).collect()
    }

    pub fn stats(&self) -> TreeStats {
        let view = self.snapshot();
        let level = |tables: &[Arc<Table>]| {
            tables.iter().fold(LevelStats::default(), |sum, table| LevelStats {
                tables: sum.tables + 1,
                bytes: sum.bytes + table.desc.bytes as u64,
                records: sum.records + table.desc.records as u64,
                tombstones: sum.tombstones + table.desc.tombstones as u64,
                payload_bytes: sum.payload_bytes + table.desc.payload_bytes,
            })
        };
        let mut levels = vec![level(&view.newest)];
        levels.extend(view.levels.iter().map(|tables| level(tables)));
        TreeStats {
            levels,
            then: level(&view.then),
            lookups: view.counters.lookups.load(Ordering::Relaxed),
            keys_stepped: view.counters.keys_stepped.load(Ordering::Relaxed),
        }
    }
}
