//! The manifest's content in memory: facts in, facts out.

use holdfast_format::manifest::{DriveEntry, GroupRecord, Item};
use holdfast_format::table::TableDesc;
use holdfast_format::{GroupId, TableId};
use std::collections::BTreeMap;

/// What one overlay record costs beside its bytes.
const RECORD_OVERHEAD_BYTES: usize = 32;

/// A POOL record that is not in the tree's tables yet: sequence of its edit, value (`None`: deleted).
pub(super) type OverlayRecord = (u64, Option<Vec<u8>>);

/// Invariant: equals what replaying the durable manifest gives.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Image {
    pub name: String,
    pub drives: BTreeMap<u16, DriveEntry>,
    pub manifest_drives: Vec<u16>,
    pub groups: BTreeMap<GroupId, GroupRecord>,
    /// By owner; owner 0 is the POOL tree.
    pub tables: BTreeMap<GroupId, BTreeMap<TableId, TableDesc>>,
    pub records: BTreeMap<Vec<u8>, OverlayRecord>,
    pub record_bytes: usize,
    pub next_egroup: u64,
    pub next_group: u32,
}

fn record_bytes(key: &[u8], value: &Option<Vec<u8>>) -> usize {
    RECORD_OVERHEAD_BYTES + key.len() + value.as_ref().map_or(0, Vec::len)
}

impl Image {
    pub fn apply(&mut self, item: Item) {
        match item {
            Item::Name(name) => self.name = name,
            Item::Counters { next_egroup, next_group } => {
                self.next_egroup = next_egroup;
                self.next_group = next_group;
            }
            Item::Drive(drive) => {
                self.drives.insert(drive.index, drive);
            }
            Item::ManifestDrives(drives) => self.manifest_drives = drives,
            Item::Group { id, uuid, name, drained_lsn, drained_chain, destroyed, replicated } => {
                let group = self.groups.entry(id).or_default();
                (group.id, group.uuid, group.name) = (id, uuid, name);
                (group.drained_lsn, group.drained_chain) = (drained_lsn, drained_chain);
                (group.destroyed, group.replicated) = (destroyed, replicated);
            }
            Item::GroupBase { group, base } => self.groups.entry(group).or_default().base = base,
            Item::Row { group, index, row } => {
                self.groups.entry(group).or_default().put_row(index, row);
            }
            Item::GroupGone(id) => {
                self.groups.remove(&id);
                self.tables.remove(&id);
            }
            Item::Segment { group, segment } => {
                let segments = &mut self.groups.entry(group).or_default().segments;
                segments.retain(|other| other.egroup != segment.egroup);
                segments.push(segment);
            }
            Item::SegmentGone { group, egroup } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.segments.retain(|segment| segment.egroup != egroup);
                }
            }
            Item::Table(desc) => {
                self.tables.entry(desc.owner).or_default().insert(desc.id, desc);
            }
            Item::TableGone { owner, id } => {
                if let Some(tables) = self.tables.get_mut(&owner) {
                    tables.remove(&id);
                    if tables.is_empty() {
                        self.tables.remove(&owner);
                    }
                }
            }
            Item::Record { sequence, key, value } => self.put_record(sequence, key, value),
            Item::RecordsFlushed { sequence } => self.drop_records(sequence),
        }
    }

    fn put_record(&mut self, sequence: u64, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.record_bytes += record_bytes(&key, &value);
        if let Some((_, old)) = self.records.get(&key) {
            self.record_bytes -= record_bytes(&key, old);
        }
        self.records.insert(key, (sequence, value));
    }

    fn drop_records(&mut self, through: u64) {
        self.records.retain(|_, (sequence, _)| *sequence > through);
        self.record_bytes = self.records.iter().map(|(key, (_, value))| record_bytes(key, value)).sum();
    }

    /// Everything, as items that give this image when they are applied to an empty one.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Item::Name(self.name.clone()).encode(out);
        Item::Counters { next_egroup: self.next_egroup, next_group: self.next_group }.encode(out);
        self.drives.values().for_each(|drive| Item::Drive(drive.clone()).encode(out));
        Item::ManifestDrives(self.manifest_drives.clone()).encode(out);
        for group in self.groups.values() {
            group_item(group).encode(out);
            if group.base.is_some() {
                Item::GroupBase { group: group.id, base: group.base }.encode(out);
            }
            for (index, row) in (group.first_row..).zip(&group.history) {
                Item::Row { group: group.id, index, row: *row }.encode(out);
            }
            for segment in &group.segments {
                Item::Segment { group: group.id, segment: segment.clone() }.encode(out);
            }
        }
        for desc in self.tables.values().flat_map(BTreeMap::values) {
            Item::Table(desc.clone()).encode(out);
        }
        for (key, (sequence, value)) in &self.records {
            Item::Record { sequence: *sequence, key: key.clone(), value: value.clone() }.encode(out);
        }
    }
}

/// A group's record without its history and segments.
pub(super) fn group_item(group: &GroupRecord) -> Item {
    Item::Group {
        id: group.id,
        uuid: group.uuid,
        name: group.name.clone(),
        drained_lsn: group.drained_lsn,
        drained_chain: group.drained_chain,
        destroyed: group.destroyed,
        replicated: group.replicated,
    }
}
