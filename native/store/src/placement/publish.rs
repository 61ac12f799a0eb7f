//! One atomic, durable change: an edit becomes facts, the facts one manifest record.

use super::Pool;
use super::image::group_item;
use super::journal::Journal;
use super::placing::Purpose;
use super::records::POOL_OWNER;
use super::report::count;
use super::types::{Draw, Edit, GroupChange};
use crate::error::{Error, Kind, Result};
use crate::metadata::io::{PageName, TreeEdit};
use crate::mutants::mutant;
use holdfast_format::egroup::{self, EgroupRecord, EgroupState, PageSet};
use holdfast_format::limits::{BLOCK_BYTES, GROUP_NAME_BYTES_MAX};
use holdfast_format::manifest::{GroupRecord, Item, Segment};
use holdfast_format::promotion::{Promotion, promotion_key};
use holdfast_format::table::SlotAddress;
use holdfast_format::{EgroupId, GroupId};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Empty egroups that one edit frees in passing.
const FREED_PER_EDIT_MAX: usize = 256;

/// An edit on its way: made under the publish lock, without effect until it is committed.
pub(super) struct Change<'a> {
    pub pool: &'a Pool,
    pub items: Vec<Item>,
    groups: BTreeMap<GroupId, Option<GroupRecord>>,
    /// Records that were looked at, as this change leaves them; `None`: gone, or never there.
    pub egroups: BTreeMap<EgroupId, Option<EgroupRecord>>,
    /// Those of them that an earlier edit published, as that left them.
    pub before: BTreeMap<EgroupId, EgroupRecord>,
    pub shares: BTreeMap<PageName, u32>,
    /// Other records of the pool.
    records: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Slots that nothing names any more.
    pub freed: Vec<SlotAddress>,
    pub emptied: Vec<EgroupId>,
    pub egroups_freed: u64,
}

impl<'a> Change<'a> {
    pub fn new(pool: &'a Pool) -> Self {
        Self {
            pool,
            items: Vec::new(),
            groups: BTreeMap::new(),
            egroups: BTreeMap::new(),
            before: BTreeMap::new(),
            shares: BTreeMap::new(),
            records: Vec::new(),
            freed: Vec::new(),
            emptied: Vec::new(),
            egroups_freed: 0,
        }
    }

    /// The group as this change leaves it so far.
    fn group(&mut self, id: GroupId) -> Result<&mut GroupRecord> {
        if !self.groups.contains_key(&id) {
            self.groups.insert(id, self.pool.group(id));
        }
        let group = self.groups.get_mut(&id).and_then(Option::as_mut);
        group.ok_or_else(|| Error::new(Kind::NotFound, format!("group {id} does not exist")))
    }

    fn check_name(&self, id: GroupId, name: &str) -> Result<()> {
        if name.is_empty() || name.len() > GROUP_NAME_BYTES_MAX {
            return Err(Error::invalid(format!("a group's name has 1 to {GROUP_NAME_BYTES_MAX} bytes")));
        }
        let image = self.pool.image.read();
        let taken =
            image.groups.values().any(|group| group.id != id && group.name == name && !group.destroyed);
        if taken { Err(Error::new(Kind::Conflict, format!("a group {name} exists"))) } else { Ok(()) }
    }

    pub fn change_group(&mut self, change: GroupChange) -> Result<()> {
        match change {
            GroupChange::Create { id, uuid, name, base } => {
                self.check_name(id, &name)?;
                if id == POOL_OWNER || self.group(id).is_ok() {
                    return Err(Error::new(Kind::Conflict, format!("group {id} exists")));
                }
                let group = GroupRecord { id, uuid, name, base, ..GroupRecord::default() };
                self.items.push(group_item(&group));
                if base.is_some() {
                    self.items.push(Item::GroupBase { group: id, base });
                }
                self.groups.insert(id, Some(group));
            }
            GroupChange::Epoch { id, row } => {
                let group = self.group(id)?;
                let index = group.next_row().0;
                group.put_row(index, row);
                self.items.push(Item::Row { group: id, index, row });
            }
            GroupChange::Drained { id, lsn, chain } => {
                let group = self.group(id)?;
                if lsn < group.drained_lsn {
                    let old = group.drained_lsn;
                    return Err(Error::new(
                        Kind::Internal,
                        format!("group {id} is drained to {old}, not {lsn}"),
                    ));
                }
                (group.drained_lsn, group.drained_chain) = (lsn, chain);
                let item = group_item(group);
                self.items.push(item);
            }
            GroupChange::Rebase { id, base } => {
                self.group(id)?.base = base;
                self.items.push(Item::GroupBase { group: id, base });
            }
            GroupChange::Promotion { id, next } => {
                self.group(id)?;
                self.records.push((promotion_key(id), next.map(|next| Promotion { next }.encode())));
            }
            GroupChange::Rename { id, name } => {
                self.check_name(id, &name)?;
                let group = self.group(id)?;
                group.name = name;
                let item = group_item(group);
                self.items.push(item);
            }
            GroupChange::Replicated { id } => {
                let group = self.group(id)?;
                group.replicated = true;
                let item = group_item(group);
                self.items.push(item);
            }
            GroupChange::Destroy { id } => {
                let group = self.group(id)?;
                group.destroyed = true;
                let item = group_item(group);
                self.items.push(item);
            }
            GroupChange::Remove { id } => self.remove_group(id)?,
        }
        Ok(())
    }

    fn remove_group(&mut self, id: GroupId) -> Result<()> {
        let segments = std::mem::take(&mut self.group(id)?.segments);
        for segment in segments {
            self.seal_segment(segment.egroup)?;
        }
        let mut left = self.pool.image.read().tables.get(&id).map_or(0, BTreeMap::len);
        for item in &self.items {
            match item {
                Item::Table(desc) if desc.owner == id => left += 1,
                Item::TableGone { owner, .. } if *owner == id => left -= 1,
                _ => {}
            }
        }
        if left > 0 {
            return Err(Error::new(Kind::Internal, format!("group {id} is removed with {left} tables")));
        }
        if self.pool.promotion(id)?.is_some() {
            self.records.push((promotion_key(id), None));
        }
        self.items.push(Item::GroupGone(id));
        self.groups.insert(id, None);
        Ok(())
    }

    /// Tables in, tables out; references first, then releases.
    pub fn tables(&mut self, owner: GroupId, edit: &TreeEdit) -> Result<()> {
        for desc in &edit.added {
            if desc.owner != owner {
                return Err(Error::new(
                    Kind::Internal,
                    format!("table {} belongs to group {}", desc.id, desc.owner),
                ));
            }
            self.items.push(Item::Table(desc.clone()));
        }
        for id in &edit.removed {
            let copies = {
                let image = self.pool.image.read();
                image.tables.get(&owner).and_then(|tables| tables.get(id)).map(|desc| desc.copies.clone())
            };
            let Some(copies) = copies else {
                return Err(Error::new(Kind::Internal, format!("group {owner} has no table {id} to remove")));
            };
            self.freed.extend(copies);
            self.items.push(Item::TableGone { owner, id: *id });
        }
        for page in &edit.referenced {
            self.reference(*page)?;
        }
        for page in edit.released.iter().filter(|_| !mutant!(ReleaseWithoutEdit)) {
            self.release(*page)?;
        }
        Ok(())
    }

    /// A segment of the log lies at other places from now on; the order of the log stays.
    pub fn move_segment(&mut self, group: GroupId, id: EgroupId, copies: &[SlotAddress]) -> Result<()> {
        if let Some(record) = self.egroup(id)? {
            record.copies = copies.to_vec();
        }
        let record = self.group(group)?;
        let Some(at) = record.segments.iter().position(|segment| segment.egroup == id) else {
            return Err(Error::new(Kind::Internal, format!("segment {id} is in no group's log")));
        };
        record.segments[at].copies = copies.to_vec();
        // A fact about a segment puts it at the end: those behind it follow again.
        let items: Vec<Item> = record.segments[at..]
            .iter()
            .map(|segment| Item::Segment { group, segment: segment.clone() })
            .collect();
        self.items.extend(items);
        Ok(())
    }

    fn release_segment(&mut self, id: EgroupId) -> Result<()> {
        let group = {
            let image = self.pool.image.read();
            let holds = |group: &&GroupRecord| group.segments.iter().any(|segment| segment.egroup == id);
            image.groups.values().find(holds).map(|group| group.id)
        };
        let Some(group) = group else {
            return Err(Error::new(Kind::Internal, format!("segment {id} is in no group's log")));
        };
        self.group(group)?.segments.retain(|segment| segment.egroup != id);
        self.items.push(Item::SegmentGone { group, egroup: id });
        self.seal_segment(id)
    }

    /// Frees egroups that earlier edits emptied and that no hold, pin or replay can name any more.
    pub fn free_emptied(&mut self) -> Result<()> {
        if !self.pool.replayed.load(Ordering::Acquire) {
            return Ok(());
        }
        let oldest = self.pool.oldest_hold();
        let ripe: Vec<EgroupId> = {
            let emptied = self.pool.emptied.lock();
            let free = |(id, epoch): &(&EgroupId, &u64)| **epoch < oldest && !self.pool.is_kept(**id);
            let ripe = emptied.iter().filter(free).map(|(id, _)| *id);
            ripe.take(FREED_PER_EDIT_MAX).collect()
        };
        for id in ripe {
            self.free_if_empty(id)?;
        }
        Ok(())
    }

    /// The facts of this change, as one record's body.
    fn encode(&self, sequence: u64, old: &dyn Fn(&[u8]) -> Result<bool>) -> Result<(Vec<u8>, Vec<Item>)> {
        let pool = self.pool;
        let mut items = self.items.clone();
        items.push(Item::Counters {
            next_egroup: pool.next_egroup.load(Ordering::Acquire),
            next_group: pool.next_group.load(Ordering::Acquire),
        });
        for (id, record) in &self.egroups {
            let key = egroup::egroup_key(*id);
            match record {
                Some(record) => items.push(Item::Record { sequence, key, value: Some(record.encode()) }),
                None if old(&key)? => items.push(Item::Record { sequence, key, value: None }),
                None => {}
            }
        }
        for ((id, page), count) in &self.shares {
            let value = (*count > 0).then(|| egroup::share_encode(*count));
            items.push(Item::Record { sequence, key: egroup::share_key(*id, *page), value });
        }
        let others = self.records.iter().cloned();
        items.extend(others.map(|(key, value)| Item::Record { sequence, key, value }));
        let mut body = Vec::new();
        items.iter().for_each(|item| item.encode(&mut body));
        Ok((body, items))
    }
}

impl Pool {
    /// One atomic, durable change of everything the edit names, serialised with all others. On an error
    /// nothing of it
    /// has happened, except when no drive is left to write to (`Unavailable`): then a later open decides.
    pub fn publish(&self, edit: Edit) -> Result<()> {
        // What the last drive may hold of an edit that failed is in memory already: nothing is made upon that.
        self.check_writable()?;
        self.maintain()?;
        let mut journal = self.journal.lock();
        self.announce_edit(&mut journal, &edit)?;
        let mut change = Change::new(self);
        for (owner, tree) in &edit.tables {
            if *owner == POOL_OWNER || change.group(*owner).is_err() && !creates(&edit, *owner) {
                return Err(Error::new(Kind::NotFound, format!("group {owner} does not exist")));
            }
            change.tables(*owner, tree)?;
        }
        for group in edit.groups {
            change.change_group(group)?;
        }
        for segment in edit.segments_released {
            change.release_segment(segment)?;
        }
        change.free_emptied()?;
        self.commit(&mut journal, change, &|| {})
    }

    /// The group whose log a segment is in, and where the segment lies now.
    pub(super) fn group_of_segment(&self, segment: &Segment) -> Result<(GroupId, Vec<SlotAddress>)> {
        let image = self.image.read();
        let of = |group: &GroupRecord| {
            let found = group.segments.iter().find(|other| other.egroup == segment.egroup)?;
            Some((group.id, found.copies.clone()))
        };
        image.groups.values().find_map(of).ok_or_else(|| {
            Error::new(Kind::Internal, format!("segment {} is in no group's log", segment.egroup))
        })
    }

    /// A manifest write without content: freed slots wait for such.
    pub(super) fn publish_nothing(&self) -> Result<()> {
        let mut journal = self.journal.lock();
        let mut change = Change::new(self);
        change.free_emptied()?;
        self.commit(&mut journal, change, &|| {})
    }

    /// Fresh log segments, in the group's log by one durable edit before they are returned; each on `rf`
    /// drives of
    /// different failure domains (on all that are left, if fewer). `draw`: how deep into the reserve.
    pub fn take_segments(&self, group: GroupId, rf: u8, count: usize, draw: Draw) -> Result<Vec<Segment>> {
        self.check_open()?;
        self.maintain()?;
        let mut segments = Vec::with_capacity(count);
        let domain = self.domain_of_group(group);
        for _ in 0..count {
            match self.take_slots(Purpose { rf, domain, draw }) {
                Ok(copies) => {
                    let incarnation = self.rng.lock().next_u64();
                    segments.push(Segment { egroup: self.new_egroup_id(), incarnation, rf, copies });
                }
                Err(_) if !segments.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        let result = self.publish_segments(group, &segments);
        if result.is_err() {
            segments.iter().for_each(|segment| self.give_back(&segment.copies));
        }
        result?;
        self.raise_rf_max(rf);
        Ok(segments)
    }

    fn publish_segments(&self, group: GroupId, segments: &[Segment]) -> Result<()> {
        let mut journal = self.journal.lock();
        let mut change = Change::new(self);
        change.group(group)?;
        for segment in segments {
            let record = EgroupRecord {
                state: EgroupState::Log,
                rf: segment.rf,
                domain: self.domain_of_group(group),
                shared: false,
                past: false,
                incarnation: segment.incarnation,
                pages: (self.slot_bytes as usize / BLOCK_BYTES) as u16,
                live: PageSet::default(),
                copies: segment.copies.clone(),
                sources: Vec::new(),
                parts: Vec::new(),
            };
            change.egroups.insert(segment.egroup, Some(record));
            change.items.push(Item::Segment { group, segment: segment.clone() });
        }
        change.free_emptied()?;
        self.commit(&mut journal, change, &|| {})
    }

    /// Makes a change durable, then visible. The caller holds the publish lock.
    ///
    /// 1. The record is durable on the manifest drives (at least one of them).
    /// 2. Manifest drives that failed are out: m+1 is durable on the others.
    /// 3. `visible` runs, then the image changes, then slots are freed and the epoch goes on.
    pub(super) fn commit(&self, journal: &mut Journal, change: Change<'_>, visible: &dyn Fn()) -> Result<()> {
        self.ensure_owner_locked(journal)?;
        let sequence = journal.sequence + 1;
        let (body, items) = change.encode(sequence, &|key| Ok(self.record(key)?.is_some()))?;
        let mut failed = self.write_record(journal, &body)?;
        failed.append(&mut self.suspects.lock());
        self.recount_dead(&change);
        let Change { egroups, freed, emptied, egroups_freed, .. } = change;
        visible();
        {
            let mut image = self.image.write();
            items.into_iter().for_each(|item| image.apply(item));
        }
        let epoch = {
            let mut holds = self.holds.lock();
            holds.epoch += 1;
            holds.epoch - 1
        };
        self.unpublished.lock().retain(|id, _| !egroups.contains_key(id));
        {
            let mut waiting = self.emptied.lock();
            let settled =
                |record: &Option<EgroupRecord>| record.as_ref().is_none_or(|record| !record.live.is_empty());
            egroups.iter().filter(|(_, record)| settled(record)).for_each(|(id, _)| {
                waiting.remove(id);
            });
            for id in emptied {
                if egroups.get(&id).is_some_and(|record| !settled(record)) {
                    waiting.insert(id, epoch);
                }
            }
        }
        for slot in freed {
            self.disks[slot.drive as usize].free(slot.slot, sequence, epoch);
        }
        count(&self.counters.egroups_freed, egroups_freed);
        self.collect();
        if failed.is_empty() { Ok(()) } else { self.put_out_locked(journal, failed) }
    }

    /// Makes freed slots usable, as far as manifest writes and holds allow.
    pub(super) fn collect(&self) {
        let (durable, oldest) = (self.durable.load(Ordering::Acquire), self.oldest_hold());
        self.disks.iter().for_each(|disk| disk.collect(durable, oldest));
    }
}

fn creates(edit: &Edit, id: GroupId) -> bool {
    edit.groups.iter().any(|change| matches!(change, GroupChange::Create { id: other, .. } if *other == id))
}
