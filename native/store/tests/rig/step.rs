//! Which numbered step of which crash order an event of a trace belongs to, told from what it writes.

use holdfast_device::sim::{Content, Event, Landed};
use holdfast_format::egroup::{self, EgroupRecord, EgroupState};
use holdfast_format::frame::FrameHeader;
use holdfast_format::index::TABLE_MAGIC;
use holdfast_format::manifest::{Item, RECORD_HEADER_BYTES, RecordHead, RecordKind};
use holdfast_format::wire::Take;
use std::collections::BTreeMap;

/// STORE.md 12 and the numbered lists of `native/`, one value a step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Step {
    /// 12.1: acknowledged in the ring, not on the drives.
    Acknowledged,
    /// 12.1: log segments reserved.
    TakeSegments,
    /// 12.2: a frame (flush, step 3).
    Frame,
    /// Flush, step 2: payload of another RF class.
    OtherPayload,
    /// 14: the frame that carries the floor.
    FloorFrame,
    /// 12.3: payloads that the drain packed.
    DrainPayload,
    /// 12.4: tables.
    DrainTable,
    /// 12.5: the drain's edit.
    DrainEdit,
    /// 12.4 and 12.5 of a compaction or an expiry.
    CompactTable,
    CompactEdit,
    /// Cleaning.
    CleanPayload,
    CleanEdit,
    /// 12.6: an edit that only lets freed slots age, or frees empty egroups.
    AgeEdit,
    /// 12.6: a slot that was in use before is written again.
    Reuse,
    /// A fresh manifest area: snapshot, then header.
    AreaSnapshot,
    AreaHeader,
    Superblock,
    /// Recovery: a new row of the epoch history.
    EpochEdit,
    /// Groups that come and go.
    GroupEdit,
    SlabCreate,
    /// A copy that a read found wrong is written again.
    Mend,
    /// Lost copies: content in fresh slots, the edit that names them.
    HealCopy,
    HealEdit,
    /// Recovery mends or relogs, whatever it writes.
    Recovery,
    Other,
}

/// Phases as marked in the trace.
pub const PHASE: &str = "phase";
pub const PHASE_WORK: u64 = 0;
pub const PHASE_COMPACT: u64 = 1;
pub const PHASE_CLEAN: u64 = 2;
pub const PHASE_OPEN: u64 = 3;
pub const PHASE_MEND: u64 = 4;
pub const PHASE_HEAL: u64 = 5;

/// Step of every event, by index. `used`: slots (drive, file, offset) that hold something when the trace begins.
pub fn steps(events: &[Event], slot_bytes: u64, used: &mut BTreeMap<(usize, String, u64), ()>) -> Vec<Step> {
    let mut phase = PHASE_WORK;
    events
        .iter()
        .map(|event| {
            if let Event::Mark { name, value } = event
                && *name == PHASE
            {
                phase = *value;
            }
            step(event, phase, slot_bytes, used)
        })
        .collect()
}

fn step(event: &Event, phase: u64, slot_bytes: u64, used: &mut BTreeMap<(usize, String, u64), ()>) -> Step {
    match event {
        Event::Durable(set) => {
            let Some(first) = set.first() else { return Step::Other };
            if first.file.starts_with("slab-") {
                let again = reused(set, slot_bytes, used);
                match phase {
                    PHASE_MEND => return Step::Mend,
                    PHASE_HEAL => return Step::HealCopy,
                    _ => {}
                }
                let step = slab_step(set, phase, slot_bytes);
                if again && step != Step::OtherPayload { Step::Reuse } else { step }
            } else if &*first.file == "manifest" {
                manifest_step(bytes(first), phase)
            } else {
                Step::Superblock
            }
        }
        Event::Create { .. } => Step::SlabCreate,
        _ => Step::Other,
    }
}

fn bytes(landed: &Landed) -> &[u8] {
    match &landed.content {
        Content::Bytes(bytes) => bytes,
        Content::Zeroes(_) => &[],
    }
}

/// Whether a write begins a slot that was begun before.
fn reused(set: &[Landed], slot_bytes: u64, used: &mut BTreeMap<(usize, String, u64), ()>) -> bool {
    let mut again = false;
    for landed in set.iter().filter(|landed| landed.offset % slot_bytes == 0) {
        again |= used.insert((landed.drive, landed.file.to_string(), landed.offset), ()).is_some();
    }
    again
}

fn slab_step(set: &[Landed], phase: u64, slot_bytes: u64) -> Step {
    let first = bytes(&set[0]);
    if let Ok(header) = FrameHeader::decode(first) {
        return match header.op_count {
            _ if phase == PHASE_OPEN => Step::Recovery,
            0 => Step::FloorFrame,
            _ => Step::Frame,
        };
    }
    if first.starts_with(TABLE_MAGIC) {
        return if phase == PHASE_COMPACT { Step::CompactTable } else { Step::DrainTable };
    }
    // A data egroup is written as two pieces a copy: payload, and the footer at the slot's end.
    let pieces = set.iter().filter(|landed| landed.drive == set[0].drive);
    let footer = |landed: &Landed| (landed.offset + landed.content.len()).is_multiple_of(slot_bytes);
    match (pieces.count() == 2 && set.iter().any(footer), phase) {
        (true, PHASE_CLEAN) => Step::CleanPayload,
        (true, _) => Step::DrainPayload,
        (_, PHASE_OPEN) => Step::Recovery,
        _ => Step::OtherPayload,
    }
}

fn manifest_step(record: &[u8], phase: u64) -> Step {
    let Ok(head) = RecordHead::decode(record) else { return Step::Other };
    match head.kind {
        RecordKind::Header => return Step::AreaHeader,
        RecordKind::Snapshot => return Step::AreaSnapshot,
        RecordKind::Edit if phase == PHASE_HEAL => return Step::HealEdit,
        RecordKind::Edit => {}
    }
    let body = &record[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + head.body_bytes as usize];
    let mut take = Take::new(body);
    let mut step = Step::AgeEdit;
    while let Ok(Some(item)) = Item::take(&mut take) {
        let found = match &item {
            Item::Row { .. } => Step::EpochEdit,
            Item::Group { destroyed: true, .. } | Item::GroupGone(_) => Step::GroupEdit,
            Item::Group { .. } => Step::DrainEdit,
            Item::Segment { .. } => Step::TakeSegments,
            Item::Table(_) | Item::TableGone { .. } if phase == PHASE_COMPACT => Step::CompactEdit,
            Item::Table(_) | Item::TableGone { .. } => Step::DrainEdit,
            Item::Record { key, value: Some(value), .. } if is_moved(key, value) => Step::CleanEdit,
            _ => continue,
        };
        // Rows and group changes say more than the tables that come with them.
        step = match (step, found) {
            (Step::AgeEdit, found) => found,
            (_, Step::EpochEdit | Step::GroupEdit) => found,
            (step, _) => step,
        };
    }
    step
}

fn is_moved(key: &[u8], value: &[u8]) -> bool {
    egroup::egroup_of_key(key).is_some()
        && EgroupRecord::decode(value).is_ok_and(|record| record.state == EgroupState::Moved)
}
