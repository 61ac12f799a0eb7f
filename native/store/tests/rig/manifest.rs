//! The manifest as a stranger sees it on the drives.

use holdfast_device::SimDrive;
use holdfast_device::SimWorld;
use holdfast_format::egroup::{EgroupRecord, EgroupState, egroup_of_key};
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::manifest::{Item, RECORD_HEADER_BYTES, RecordHead, RecordKind, padded_bytes};
use holdfast_format::wire::Take;

/// One record: drive, offset in the file, head, items.
pub struct Found {
    pub drive: SimDrive,
    pub offset: u64,
    pub head: RecordHead,
    pub items: Vec<Item>,
}

fn record_at(drive: &SimDrive, offset: u64) -> Option<Found> {
    let first = drive.read_raw("manifest", offset, BLOCK_BYTES)?;
    let head = RecordHead::decode(&first).ok()?;
    let bytes = drive.read_raw("manifest", offset, padded_bytes(head.body_bytes as usize))?;
    let body = bytes.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + head.body_bytes as usize)?;
    head.verify(body).ok()?;
    let mut items = Vec::new();
    if head.kind != RecordKind::Header {
        let mut take = Take::new(body);
        while let Some(item) = Item::take(&mut take).ok()? {
            items.push(item);
        }
    }
    Some(Found { drive: drive.clone(), offset, head, items })
}

/// Records of the newest area of a drive, header first; empty when it has no manifest.
pub fn records(drive: &SimDrive) -> Vec<Found> {
    let Some((_, bytes)) = drive.files().into_iter().find(|(name, _)| name == "manifest") else {
        return Vec::new();
    };
    let area = bytes / 2;
    let headers = [0, area].into_iter().filter_map(|at| record_at(drive, at));
    let Some(header) = headers
        .filter(|found| found.head.kind == RecordKind::Header)
        .max_by_key(|found| found.head.generation)
    else {
        return Vec::new();
    };
    let (start, generation) = (header.offset, header.head.generation);
    let mut found = vec![header];
    let mut offset = start + BLOCK_BYTES as u64;
    while offset < start + area {
        let Some(record) = record_at(drive, offset).filter(|record| record.head.generation == generation)
        else {
            break;
        };
        offset += padded_bytes(record.head.body_bytes as usize) as u64;
        found.push(record);
    }
    found
}

/// Whether an edit only changes where things are, so that the one before it tells the same.
fn only_moves(items: &[Item]) -> bool {
    items.iter().all(|item| match item {
        Item::Counters { .. } | Item::Table(_) | Item::TableGone { .. } | Item::SegmentGone { .. } => true,
        Item::RecordsFlushed { .. } | Item::Group { destroyed: false, .. } => true,
        Item::Record { key, value, .. } => {
            let log = |value: &Vec<u8>| {
                EgroupRecord::decode(value).is_ok_and(|record| record.state == EgroupState::Log)
            };
            egroup_of_key(key).is_none() || !value.as_ref().is_some_and(log)
        }
        _ => false,
    }) && items.iter().any(|item| !matches!(item, Item::Counters { .. }))
}

/// What the newest record says.
pub fn newest_edit(world: &SimWorld) -> Vec<Item> {
    let newest = world.drives().iter().filter_map(|drive| records(drive).pop()).max_by_key(|found| found.head.sequence);
    newest.map(|found| found.items).unwrap_or_default()
}

/// Zeroes the newest record on all copies, if it is an edit that only moves things. False: it is not.
pub fn forget_newest_edit(world: &SimWorld) -> bool {
    let newest: Vec<Found> = world.drives().iter().filter_map(|drive| records(drive).pop()).collect();
    let Some(sequence) = newest.iter().map(|found| found.head.sequence).max() else { return false };
    let newest: Vec<Found> = newest.into_iter().filter(|found| found.head.sequence == sequence).collect();
    let fit = newest.iter().all(|found| found.head.kind == RecordKind::Edit && only_moves(&found.items));
    if fit {
        for found in &newest {
            found.drive.write_raw(
                "manifest",
                found.offset,
                &vec![0; padded_bytes(found.head.body_bytes as usize)],
            );
        }
    }
    fit
}
