//! What lies on the drives of a pool that is stopped, kind by kind, as a stranger finds it there: by the manifest, and by what
//! records say of themselves.

use super::manifest::{Found, records};
use holdfast_device::{SimDrive, SimWorld};
use holdfast_format::cell::Cell;
use holdfast_format::egroup::{EgroupRecord, Footer, egroup_of_key, share_decode};
use holdfast_format::frame::FrameHeader;
use holdfast_format::index::{Index, TABLE_MAGIC, decode_header};
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::inode::InodeRecord;
use holdfast_format::manifest::{Item, RecordKind};
use holdfast_format::point::{PointKind, PointRecord};
use holdfast_format::promotion::{Promotion, promotion_key};
use holdfast_format::replica::{FollowerRecord, ReplicaRecord};
use holdfast_format::scrub::scrub_key;
use holdfast_format::superblock::{SUPERBLOCK_BYTES, Superblock};
use holdfast_format::table::{SlotAddress, TableDesc, TreeKind};
use holdfast_format::{GroupId, TableId, block::BlockCursor, key};
use std::collections::BTreeMap;

/// Is given a key and its value; `None`: it was deleted.
type Visit<'a> = &'a mut dyn FnMut(&[u8], Option<&[u8]>);

/// How often each kind was found.
pub type Census = BTreeMap<String, usize>;

/// Every kind of record and structure that a pool which has met everything, and is stopped in an orderly way, holds.
pub const KINDS: [&str; 49] = [
    "superblock",
    "manifest header",
    "manifest snapshot",
    "manifest edit",
    "item: name",
    "item: counters",
    "item: drive",
    "item: manifest drives",
    "item: group",
    "item: group base",
    "item: row",
    "item: group gone",
    "item: segment",
    "item: segment gone",
    "item: table",
    "item: table gone",
    "item: record",
    "table of NOW",
    "table of THEN",
    "record: volume",
    "record: inode of a file",
    "record: inode of a directory",
    "record: inode of a symbolic link",
    "record: inode of another kind",
    "record: xattr",
    "record: acl",
    "record: dirent",
    "record: link",
    "record: orphan",
    "record: point, a second",
    "record: point, a snapshot",
    "record: point, held",
    "record: point, another site's",
    "record: retention",
    "record: replica",
    "record: replica, a batch that is not whole",
    "record: follower",
    "cell: hole",
    "cell: pages",
    "cell: packed",
    "deletion",
    "egroup: data",
    "egroup: moved",
    "share count",
    "scrub cursor",
    "promotion",
    "page: frame",
    "page: payload",
    "page: footer",
];

fn note(census: &mut Census, kind: &str) {
    *census.entry(kind.to_owned()).or_default() += 1;
}

struct Reader {
    drives: BTreeMap<u16, (SimDrive, Superblock)>,
}

impl Reader {
    fn slot(&self, at: SlotAddress) -> Vec<u8> {
        let (drive, block) = &self.drives[&at.drive];
        let (slot_bytes, slab_slots) = (block.slot_bytes as u64, (block.slab_bytes / block.slot_bytes as u64) as u32);
        let file = format!("slab-{:06}", at.slot / slab_slots);
        let offset = (at.slot % slab_slots) as u64 * slot_bytes;
        drive.read_raw(&file, offset, slot_bytes as usize).expect("a slot that is named is there")
    }

    /// Every record of a table.
    fn table(&self, desc: &TableDesc, visit: Visit<'_>) {
        let slot = self.slot(desc.copies[0]);
        assert!(slot.starts_with(TABLE_MAGIC), "table {} is not where the manifest says", desc.id);
        let (offset, bytes, _) = decode_header(&slot).expect("a header");
        let index = Index::decode(slot[offset as usize..(offset + bytes) as usize].to_vec()).expect("an index");
        for at in 0..index.blocks() {
            let place = index.place(at);
            let block = &slot[place.offset as usize..(place.offset + place.length) as usize];
            let mut cursor = BlockCursor::default();
            cursor.reset(block).expect("a block");
            while cursor.advance(block).expect("a record") {
                visit(cursor.key(), cursor.value(block));
            }
        }
    }
}

fn item_kind(item: &Item) -> &'static str {
    match item {
        Item::Name(_) => "item: name",
        Item::Counters { .. } => "item: counters",
        Item::Drive(_) => "item: drive",
        Item::ManifestDrives(_) => "item: manifest drives",
        Item::Group { .. } => "item: group",
        Item::GroupBase { .. } => "item: group base",
        Item::Row { .. } => "item: row",
        Item::GroupGone(_) => "item: group gone",
        Item::Segment { .. } => "item: segment",
        Item::SegmentGone { .. } => "item: segment gone",
        Item::Table(_) => "item: table",
        Item::TableGone { .. } => "item: table gone",
        Item::Record { .. } => "item: record",
        Item::RecordsFlushed { .. } => "item: records flushed",
    }
}

fn inode_kind(value: &[u8]) -> &'static str {
    match InodeRecord::decode(value).expect("an inode").mode >> 12 {
        0o10 => "record: inode of a file",
        0o04 => "record: inode of a directory",
        0o12 => "record: inode of a symbolic link",
        _ => "record: inode of another kind",
    }
}

fn point_kind(census: &mut Census, value: &[u8]) -> &'static str {
    let point = PointRecord::decode(value).expect("a point");
    if point.held {
        note(census, "record: point, held");
    }
    if point.origin.is_some() {
        note(census, "record: point, another site's");
    }
    match point.kind {
        PointKind::Tick => "record: point, a second",
        PointKind::Named => "record: point, a snapshot",
    }
}

fn replica_kind(census: &mut Census, value: &[u8]) -> &'static str {
    if ReplicaRecord::decode(value).expect("what a replica has").staging.is_some() {
        note(census, "record: replica, a batch that is not whole");
    }
    "record: replica"
}

/// A record of a group's trees.
fn group_record(census: &mut Census, key: &[u8], value: Option<&[u8]>) {
    let Some(parts) = key::parts(key) else { panic!("not a key: {key:?}") };
    let Some(value) = value else { return note(census, "deletion") };
    let kind = match parts.kind {
        key::KIND_VOLUME => "record: volume",
        key::KIND_INODE => inode_kind(value),
        key::KIND_XATTR if parts.rest.starts_with(b"system.posix_acl_") => "record: acl",
        key::KIND_XATTR => "record: xattr",
        key::KIND_DIRENT => "record: dirent",
        key::KIND_LINK => "record: link",
        key::KIND_ORPHAN => "record: orphan",
        key::KIND_POINT => point_kind(census, value),
        key::KIND_RETENTION => "record: retention",
        key::KIND_REPLICA => replica_kind(census, value),
        key::KIND_FOLLOWER => {
            FollowerRecord::decode(value).expect("what a follower has");
            "record: follower"
        }
        key::KIND_DATA => "record: data",
        other => panic!("kind {other} of a key is not listed"),
    };
    note(census, kind);
    if let Some((_, level)) = key::data_place(key) {
        note(census, match Cell::decode(level, value).expect("a cell") {
            Cell::Hole => "cell: hole",
            Cell::Pages { .. } => "cell: pages",
            Cell::Packed { .. } => "cell: packed",
            Cell::Over { .. } => "cell: over",
            Cell::Logged { .. } | Cell::Partial { .. } => panic!("a cell that no table may hold"),
        });
    }
}

/// A record of the POOL tree. Gives the egroup's.
fn pool_record(census: &mut Census, key: &[u8], value: &[u8]) -> Option<EgroupRecord> {
    if egroup_of_key(key).is_some() {
        let record = EgroupRecord::decode(value).expect("an egroup's record");
        note(census, if record.parts.is_empty() { "egroup: data" } else { "egroup: moved" });
        return Some(record);
    }
    if *key == *scrub_key() {
        note(census, "scrub cursor");
    } else if key.len() == promotion_key(GroupId(0)).len() {
        Promotion::decode(value).expect("a promotion");
        note(census, "promotion");
    } else {
        share_decode(value).expect("a share count");
        note(census, "share count");
    }
    None
}

/// The slots of an egroup: frames, payload that its footer or frames name, footers.
fn pages(census: &mut Census, slot: &[u8]) {
    if let Ok(footer) = Footer::decode(slot) {
        note(census, "page: footer");
        *census.entry("page: payload".to_owned()).or_default() += footer.births.len();
        return;
    }
    let mut page = 0;
    let mut found = false;
    while let Some(Ok(header)) = slot.get(page * BLOCK_BYTES..).map(FrameHeader::decode) {
        found |= header.op_count > 0;
        note(census, "page: frame");
        let payload = header.pages() - header.head_bytes() / BLOCK_BYTES;
        *census.entry("page: payload".to_owned()).or_default() += payload;
        page += header.pages();
    }
    if found {
        note(census, "segment with frames");
    }
}

/// Counts everything that the pool's manifest names, once, by its first copy.
pub fn census(world: &SimWorld) -> Census {
    let mut census = Census::new();
    let mut reader = Reader { drives: BTreeMap::new() };
    for drive in world.drives() {
        for slot in [0, SUPERBLOCK_BYTES as u64] {
            let bytes = drive.read_raw("superblock", slot, SUPERBLOCK_BYTES).expect("a superblock");
            let block = Superblock::decode(&bytes).expect("both slots of a drive that was closed are right");
            note(&mut census, "superblock");
            reader.drives.insert(block.index, (drive.clone(), block));
        }
    }
    let all = world.drives().iter().map(records).max_by_key(|found| found.last().map(|last| last.head.sequence));
    let mut tables: BTreeMap<(GroupId, TableId), TableDesc> = BTreeMap::new();
    let mut records: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
    let all: Vec<Found> = all.expect("a manifest");
    for Found { head, items, .. } in all {
        note(&mut census, match head.kind {
            RecordKind::Header => "manifest header",
            RecordKind::Snapshot => "manifest snapshot",
            RecordKind::Edit => "manifest edit",
        });
        for item in items {
            note(&mut census, item_kind(&item));
            match item {
                Item::Table(desc) => drop(tables.insert((desc.owner, desc.id), desc)),
                Item::TableGone { owner, id } => drop(tables.remove(&(owner, id))),
                Item::Record { key, value, .. } => drop(records.insert(key, value)),
                _ => {}
            }
        }
    }
    for desc in tables.values() {
        match desc.tree {
            TreeKind::Now => note(&mut census, "table of NOW"),
            TreeKind::Then => note(&mut census, "table of THEN"),
            TreeKind::Pool => note(&mut census, "table of POOL"),
        }
        reader.table(desc, &mut |key, value| match desc.tree {
            TreeKind::Pool => drop(records.entry(key.to_vec()).or_insert_with(|| value.map(<[u8]>::to_vec))),
            TreeKind::Now | TreeKind::Then => group_record(&mut census, key, value),
        });
    }
    for (key, value) in records {
        let record = value.and_then(|value| pool_record(&mut census, &key, &value));
        if let Some(copy) = record.and_then(|record| record.copies.first().copied()) {
            pages(&mut census, &reader.slot(copy));
        }
    }
    census
}

/// Listed kinds of which there is nothing.
pub fn missing(census: &Census) -> Vec<&'static str> {
    KINDS.into_iter().filter(|kind| !census.contains_key(*kind)).collect()
}
