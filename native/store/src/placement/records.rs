//! The pool's own records (egroups, share counts): an overlay in memory whose log is the manifest, over the
//! POOL
//! tree's tables, which the manifest names physically, so that reading them needs no record (STORE.md 11).

use super::Pool;
use super::publish::Change;
use crate::error::{Error, Result};
use crate::metadata::io::{Placed, Points, TableIo, TreeEdit, Version};
use crate::metadata::tree::{Tree, TreeOptions, TreeSet};
use holdfast_format::egroup::{self, EgroupRecord};
use holdfast_format::limits::MERGE_TARGETS_MAX;
use holdfast_format::key::Key;
use holdfast_format::manifest::Item;
use holdfast_format::promotion::{Promotion, promotion_key};
use holdfast_format::table::TableDesc;
use holdfast_format::{EgroupId, GroupId, Lsn, Row, Stamp};
use std::sync::{Arc, Weak};

/// Owner of the POOL tree's tables.
pub(super) const POOL_OWNER: GroupId = GroupId(0);
/// Part of a manifest area that the overlay may fill before it is flushed to tables.
const OVERLAY_SHARE: u64 = 8;
/// Level 1 of the POOL tree, in slots.
const LEVEL1_SLOTS: u64 = 10;
/// Compactions of the POOL tree in one go.
const COMPACTIONS_MAX: usize = 4;

/// The tree's way to the slots; weak, since the pool owns the tree.
struct Door {
    pool: Weak<Pool>,
    slot_bytes: usize,
}

impl Door {
    fn pool(&self) -> Result<Arc<Pool>> {
        self.pool.upgrade().ok_or_else(Error::closed)
    }
}

impl TableIo for Door {
    fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }
    fn write_table(&self, bytes: &[u8]) -> Result<Placed> {
        self.pool()?.write_table(bytes)
    }
    fn read_table(
        &self,
        table: &TableDesc,
        offset: u32,
        into: &mut [u8],
        verify: &dyn Fn(&[u8]) -> bool,
    ) -> Result<()> {
        self.pool()?.read_table(table, offset, into, verify)
    }
    fn discard_table(&self, placed: &Placed) {
        if let Some(pool) = self.pool.upgrade() {
            pool.discard_table(placed);
        }
    }
}

impl Pool {
    /// The POOL tree, if it has tables.
    fn tree(&self) -> Result<Option<&Tree>> {
        if let Some(tree) = self.tree.get() {
            return Ok(Some(tree));
        }
        let tables = self.group_tables(POOL_OWNER);
        if tables.is_empty() {
            return Ok(None);
        }
        self.open_tree(tables).map(Some)
    }

    fn open_tree(&self, tables: Vec<TableDesc>) -> Result<&Tree> {
        if let Some(tree) = self.tree.get() {
            return Ok(tree);
        }
        let io = Arc::new(Door { pool: self.me.clone(), slot_bytes: self.slot_bytes as usize });
        let level1_bytes = LEVEL1_SLOTS * self.slot_bytes as u64;
        let options = TreeOptions {
            owner: POOL_OWNER,
            kind: TreeSet::Pool,
            level1_bytes,
            level0_payload_bytes: u64::MAX,
            targets_max: MERGE_TARGETS_MAX,
            ground: Default::default(),
        };
        let tree = Tree::open(io, self.cache.clone(), options, tables)?;
        Ok(self.tree.get_or_init(|| tree))
    }

    /// Newest value of a POOL record. Overlay first: it is emptied only after the tables hold what it held.
    pub(super) fn record(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let _hold = self.hold();
        if let Some((_, value)) = self.image.read().records.get(key) {
            return Ok(value.clone());
        }
        let Some(tree) = self.tree()? else { return Ok(None) };
        Ok(tree.snapshot().get(key)?.and_then(|(_, value)| value))
    }

    /// An egroup's record; also of one that no edit names yet.
    pub(super) fn egroup(&self, id: EgroupId) -> Result<Option<EgroupRecord>> {
        if let Some(record) = self.unpublished.lock().get(&id) {
            return Ok(Some(record.clone()));
        }
        let value = self.record(&egroup::egroup_key(id))?;
        value.map(|value| decode_egroup(id, &value)).transpose()
    }

    /// From which key on a clone that is to stand alone has not yet what it needs; `None`: nobody wants that of it.
    pub fn promotion(&self, id: GroupId) -> Result<Option<Key>> {
        let value = self.record(&promotion_key(id))?;
        let record = value.map(|value| Promotion::decode(&value)).transpose();
        let record = record.map_err(|error| Error::decode(&format!("the promotion of group {id}"), error))?;
        Ok(record.map(|record| record.next))
    }

    pub(super) fn share_count(&self, id: EgroupId, page: u16) -> Result<u32> {
        let value = self.record(&egroup::share_key(id, page))?;
        let count = value.map(|value| egroup::share_decode(&value)).transpose();
        Ok(count
            .map_err(|error| Error::decode(&format!("share count of page {page} of egroup {id}"), error))?
            .unwrap_or(0))
    }

    /// Calls `visit` for egroup records from `from` on, until it returns false. Not in one moment: edits may
    /// come
    /// between.
    pub(super) fn scan_egroups(
        &self,
        from: EgroupId,
        visit: &mut dyn FnMut(EgroupId, EgroupRecord) -> Result<bool>,
    ) -> Result<()> {
        let _hold = self.hold();
        let (first, until) = egroup::egroup_range(from);
        // The overlay is copied before the tree is looked at: a flush in between only shows a record twice.
        let overlay: Vec<(Vec<u8>, Option<Vec<u8>>)> = {
            let image = self.image.read();
            let range = image.records.range(first.clone()..until.clone());
            range.map(|(key, (_, value))| (key.clone(), value.clone())).collect()
        };
        let mut overlay = overlay.into_iter().peekable();
        let mut stored = match self.tree()? {
            Some(tree) => Some(tree.snapshot().iter(&first, &until)?),
            None => None,
        };
        let mut next_stored = next_version(&mut stored)?;
        loop {
            let from_overlay = match (overlay.peek(), &next_stored) {
                (None, None) => return Ok(()),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some((key, _)), Some((stored_key, _))) => key <= stored_key,
            };
            let Some((key, value)) = (if from_overlay {
                let taken = overlay.next();
                if taken.as_ref().map(|(key, _)| key) == next_stored.as_ref().map(|(key, _)| key) {
                    next_stored = next_version(&mut stored)?;
                }
                taken
            } else {
                std::mem::replace(&mut next_stored, next_version(&mut stored)?)
            }) else {
                return Ok(());
            };
            let (Some(id), Some(value)) = (egroup::egroup_of_key(&key), value) else { continue };
            if !visit(id, decode_egroup(id, &value)?)? {
                return Ok(());
            }
        }
    }

    /// Flushes the overlay when it is large, and lets the POOL tree compact. Called without the publish lock.
    pub(super) fn maintain(&self) -> Result<()> {
        let large = |pool: &Self| pool.image.read().record_bytes as u64 > pool.area_bytes / OVERLAY_SHARE;
        if !large(self) {
            return Ok(());
        }
        let _maintenance = self.maintenance.lock();
        if !large(self) {
            return Ok(());
        }
        self.flush_records()?;
        self.compact_records()
    }

    /// Overlay to tables. Crash order:
    /// 1. tables are written, durable; a crash leaves them unnamed, the overlay is still in the manifest;
    /// 2. one edit names the tables and says through which sequence the overlay is in them;
    /// 3. the tree shows the tables, then the overlay forgets.
    ///
    /// The caller holds `maintenance`.
    fn flush_records(&self) -> Result<()> {
        let (through, versions) = {
            let journal = self.journal.lock();
            let image = self.image.read();
            let version = |(key, (sequence, value)): (&Vec<u8>, &super::image::OverlayRecord)| Version {
                key: key.clone(),
                stamp: Stamp { lsn: Lsn(*sequence), row: Row(0) },
                value: value.clone(),
            };
            (journal.sequence, image.records.iter().map(version).collect::<Vec<_>>())
        };
        if versions.is_empty() {
            return Ok(());
        }
        let tree = self.open_tree(self.group_tables(POOL_OWNER))?;
        let edit = tree.build(&mut versions.into_iter().map(Ok), &Points::default())?;
        self.publish_tree(tree, &edit, vec![Item::RecordsFlushed { sequence: through }])
    }

    fn compact_records(&self) -> Result<()> {
        let Some(tree) = self.tree()? else { return Ok(()) };
        for _ in 0..COMPACTIONS_MAX {
            let Some(job) = tree.pick() else { break };
            let edit = tree.compact(&job, &Points::default())?;
            self.publish_tree(tree, &edit, Vec::new())?;
        }
        Ok(())
    }

    fn publish_tree(&self, tree: &Tree, edit: &TreeEdit, items: Vec<Item>) -> Result<()> {
        let mut journal = self.journal.lock();
        let mut change = Change::new(self);
        change.tables(POOL_OWNER, edit)?;
        change.items.extend(items);
        self.commit(&mut journal, change, &|| tree.apply(edit))?;
        // Holds keep the slots of removed tables from being reused: the tree need not report them.
        tree.retired();
        Ok(())
    }
}

type Entry = (Vec<u8>, Option<Vec<u8>>);

fn next_version(iter: &mut Option<impl Iterator<Item = Result<Version>>>) -> Result<Option<Entry>> {
    let next = iter.as_mut().and_then(Iterator::next).transpose()?;
    Ok(next.map(|version| (version.key, version.value)))
}

fn decode_egroup(id: EgroupId, value: &[u8]) -> Result<EgroupRecord> {
    EgroupRecord::decode(value).map_err(|error| Error::decode(&format!("record of egroup {id}"), error))
}
