//! Scrub: every copy of everything is read and compared with what its *parent* says of it: tables with their
//! descriptions and indexes, data pages with the DATA records, footers with each other, the log with its frames. What is
//! wrong is written again from a copy that is right.
//!
//! Invariants:
//! - A copy is mended only with bytes that a checksum above it accepts, never "from the first copy".
//! - Only what is durable and sealed, or a durable frame, is looked at: what is being written is nobody's fault.

use super::Pool;
use super::heal_content::Named;
use super::journal::{Copy, is_whole};
use super::publish::Change;
use super::copying::Pace;
use super::report::count;
use crate::error::{Error, Result};
use crate::metadata::io::PageName;
use crate::mutants::mutant;
use crate::oplog::births::{each_frame, frame_births};
use crate::oplog::scan::owner_may;
use holdfast_device::AlignedBuffer;
use holdfast_format::checksum::checksum;
use holdfast_format::egroup::{EgroupState, Footer, footer_bytes};
use holdfast_format::frame::FrameHeader;
use holdfast_format::index::Index;
use holdfast_format::limits::{BLOCK_BYTES, SCRUB_FINDINGS_MAX};
use holdfast_format::manifest::{GroupRecord, Item, Segment};
use holdfast_format::scrub::{ScrubCursor, scrub_key};
use holdfast_format::table::{SlotAddress, TableDesc};
use holdfast_format::{EgroupId, GroupId, Lsn, TableId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What a scrub looked at and found.
#[derive(Clone, Default, Debug)]
pub struct ScrubReport {
    pub tables: u64,
    /// Pages of data, each on all its copies.
    pub pages: u64,
    pub footers: u64,
    pub frames: u64,
    /// Bytes read, all copies together.
    pub bytes: u64,
    /// Copies of pieces that were wrong or could not be read.
    pub bad_copies: u64,
    /// Those of them that are right again.
    pub repaired: u64,
    /// Pieces that no copy that is there has right.
    pub lost: u64,
    /// What, where, and from which copy it was mended: at most `SCRUB_FINDINGS_MAX` sentences.
    pub findings: Vec<String>,
}

impl ScrubReport {
    fn say(&mut self, what: String) {
        if self.findings.len() < SCRUB_FINDINGS_MAX {
            self.findings.push(what);
        }
    }
}

/// A scrub under way.
pub struct Scrub<'a> {
    pub report: &'a mut ScrubReport,
    pub pace: &'a dyn Pace,
}

/// A piece of a slot that one checksum covers.
struct Part {
    offset: u32,
    length: usize,
    sum: u64,
    /// For reports.
    name: String,
}

impl Part {
    /// Where it is in what was read from this place of the slot on.
    fn behind(&self, from: usize) -> Range<usize> {
        let start = self.offset as usize - from;
        start..start + self.length
    }
}

impl Pool {
    /// Reads the parts (ascending) from every copy that is there; mends the wrong ones from a right one.
    fn scrub_parts(&self, copies: &[SlotAddress], parts: &[Part], scrub: &mut Scrub<'_>) {
        let (Some(first), Some(end)) = (
            parts.iter().map(|part| part.offset as usize).min(),
            parts.iter().map(|part| part.offset as usize + part.length).max(),
        ) else {
            return;
        };
        let from = first / BLOCK_BYTES * BLOCK_BYTES;
        let mut copies = self.readable(copies);
        if mutant!(ScrubSkipsSecondCopy) {
            copies.truncate(1);
        }
        let mut images: Vec<(SlotAddress, AlignedBuffer)> = Vec::with_capacity(copies.len());
        let mut right: Vec<Option<usize>> = vec![None; parts.len()];
        let mut wrong: Vec<Vec<(SlotAddress, &'static str)>> = vec![Vec::new(); parts.len()];
        for copy in copies {
            let mut whole = AlignedBuffer::zeroed((end - from).next_multiple_of(BLOCK_BYTES));
            self.count_scrubbed(whole.len(), scrub.report);
            let read = self.read_paced((copy, from as u32), &mut whole, scrub.pace).is_ok();
            for (at, part) in parts.iter().enumerate() {
                let inside = part.behind(from);
                let piece = &mut whole[inside.clone()];
                let readable = read || self.read_copy(copy, part.offset, piece).is_ok();
                let accepted = match right[at] {
                    _ if !mutant!(HealFromFirstCopy) => checksum(piece) == part.sum,
                    first => first.is_none_or(|first: usize| images[first].1[inside] == *piece),
                };
                if readable && accepted {
                    right[at].get_or_insert(images.len());
                } else {
                    wrong[at].push((copy, if readable { "wrong content" } else { "unreadable" }));
                }
            }
            images.push((copy, whole));
        }
        for ((part, right), wrong) in parts.iter().zip(right).zip(wrong) {
            let right = right.map(|image| (images[image].0, &images[image].1[part.behind(from)]));
            self.settle_part(part, right, &wrong, scrub.report);
        }
    }

    fn count_scrubbed(&self, bytes: usize, report: &mut ScrubReport) {
        report.bytes += bytes as u64;
        count(&self.counters.bytes_scrubbed, bytes as u64);
    }

    fn settle_part(
        &self,
        part: &Part,
        right: Option<(SlotAddress, &[u8])>,
        wrong: &[(SlotAddress, &str)],
        report: &mut ScrubReport,
    ) {
        count(&self.counters.checksum_failures, wrong.len() as u64);
        report.bad_copies += wrong.len() as u64;
        let Some((source, bytes)) = right else {
            report.lost += 1;
            let places: Vec<String> =
                wrong.iter().map(|(copy, what)| format!("{} ({what})", self.place_name(*copy))).collect();
            let places =
                if places.is_empty() { "no drive that is there".to_owned() } else { places.join(", ") };
            report.say(format!("{}: no copy is right: {places}", part.name));
            return;
        };
        for (copy, what) in wrong {
            let mended = self.mend(*copy, part.offset, bytes);
            report.repaired += mended as u64;
            let outcome = if mended { "repaired" } else { "not repaired" };
            let (bad, good) = (self.place_name(*copy), self.place_name(source));
            report.say(format!("{}: {what} at {bad}, {outcome} from {good}", part.name));
        }
    }

    fn place_name(&self, copy: SlotAddress) -> String {
        format!("drive {}, slot {}", self.disks[copy.drive as usize].name(), copy.slot)
    }

    /// The first table from `(owner, id)` on, in that order.
    pub fn next_table(&self, owner: GroupId, id: TableId) -> Option<TableDesc> {
        let image = self.image.read();
        let here = image.tables.get(&owner).and_then(|tables| tables.range(id..).next());
        let later =
            || image.tables.range(GroupId(owner.0 + 1)..).find_map(|(_, tables)| tables.iter().next());
        here.or_else(later).map(|(_, desc)| desc.clone())
    }

    /// Index and blocks of a table on every copy.
    pub fn scrub_table(&self, owner: GroupId, id: TableId, scrub: &mut Scrub<'_>) -> Result<()> {
        let _hold = self.hold();
        let image = self.image.read();
        let Some(desc) = image.tables.get(&owner).and_then(|tables| tables.get(&id)).cloned() else {
            return Ok(());
        };
        drop(image);
        scrub.report.tables += 1;
        let index_part = Part {
            offset: desc.index_offset,
            length: desc.index_bytes as usize,
            sum: desc.index_checksum,
            name: format!("index of table {id} of group {owner}"),
        };
        self.scrub_parts(&desc.copies, std::slice::from_ref(&index_part), scrub);
        let mut bytes = vec![0; desc.index_bytes as usize];
        let sum = desc.index_checksum;
        if self
            .read_slot(&desc.copies, desc.index_offset, &mut bytes, &|bytes| checksum(bytes) == sum)
            .is_err()
        {
            return Ok(());
        }
        let index =
            Index::decode(bytes).map_err(|error| Error::decode(&format!("index of table {id}"), error))?;
        let parts: Vec<Part> = (0..index.blocks())
            .map(|block| {
                let place = index.place(block);
                let name = format!("block {block} of table {id} of group {owner}");
                Part { offset: place.offset, length: place.length as usize, sum: place.checksum, name }
            })
            .collect();
        self.scrub_parts(&desc.copies, &parts, scrub);
        Ok(())
    }

    /// Pages that one DATA record names, on every copy, wherever they lie now. `owner` says whose they are.
    pub fn scrub_pages(
        &self,
        named: &[(PageName, Named)],
        owner: &str,
        scrub: &mut Scrub<'_>,
    ) -> Result<()> {
        let _hold = self.hold();
        let mut places: BTreeMap<Vec<SlotAddress>, Vec<Part>> = BTreeMap::new();
        for ((egroup, page), named) in named {
            scrub.report.pages += 1;
            let name = format!("page {page} of egroup {egroup} ({owner})");
            match self.place_of(*egroup, *page) {
                Ok((copies, at)) => places.entry(copies).or_default().push(Part {
                    offset: at as u32 * BLOCK_BYTES as u32 + named.offset as u32,
                    length: named.length as usize,
                    sum: named.checksum,
                    name,
                }),
                Err(error) => {
                    scrub.report.lost += 1;
                    scrub.report.say(format!("{name}: {error}"));
                }
            }
        }
        places.iter().for_each(|(copies, parts)| self.scrub_parts(copies, parts, scrub));
        Ok(())
    }

    /// Footers of sealed egroups from `from` on: up to `count` of them. Returns where to go on; `None`: at the end.
    pub fn scrub_footers(
        &self,
        from: EgroupId,
        count: usize,
        scrub: &mut Scrub<'_>,
    ) -> Result<Option<EgroupId>> {
        let _hold = self.hold();
        let (mut found, mut next) = (Vec::new(), None);
        self.scan_egroups(from, &mut |id, record| {
            if found.len() == count {
                next = Some(id);
                return Ok(false);
            }
            if record.state == EgroupState::Data && !record.live.is_empty() && !self.is_segment(&record) {
                found.push((id, record));
            }
            Ok(true)
        })?;
        for (id, record) in found {
            scrub.report.footers += 1;
            let bytes = footer_bytes(record.pages as usize);
            let offset = self.slot_bytes - bytes as u32;
            let mut right = vec![0; bytes];
            // One that verifies is the right one: it names pool, egroup and incarnation.
            let sum = match self.footer_bytes_of(id, &record, (offset, &mut right), scrub.pace) {
                true => checksum(&right),
                false => checksum(&[]),
            };
            let part = Part { offset, length: bytes, sum, name: format!("footer of egroup {id}") };
            self.scrub_parts(&record.copies, &[part], scrub);
        }
        Ok(next)
    }

    fn footer_bytes_of(
        &self,
        id: EgroupId,
        record: &holdfast_format::egroup::EgroupRecord,
        (offset, into): (u32, &mut [u8]),
        pace: &dyn Pace,
    ) -> bool {
        self.readable(&record.copies).into_iter().any(|copy| {
            self.read_paced((copy, offset), into, pace).is_ok()
                && Footer::decode(into).is_ok_and(|footer| {
                    (footer.pool, footer.egroup, footer.incarnation) == (self.uuid, id, record.incarnation)
                })
        })
    }

    /// Frames of a group's log that are on all copies, and the payload that they name. `settled`: what is durable, and
    /// what the newest frame that was written says of it.
    ///
    /// What a page should hold is what continues the chain there: a frame that lies where it does not belong verifies, too, and
    /// must not be copied over what does.
    pub fn scrub_log(&self, group: GroupId, settled: (Lsn, Lsn), scrub: &mut Scrub<'_>) -> Result<()> {
        let _hold = self.hold();
        let Some(record) = self.group(group) else { return Ok(()) };
        let (mut parts, mut frames, mut chain) = (Parts::new(), BTreeSet::new(), record.drained_chain);
        for segment in &record.segments {
            let mut images = Vec::new();
            for copy in self.readable(&segment.copies) {
                let mut bytes = AlignedBuffer::zeroed(self.slot_bytes as usize);
                self.count_scrubbed(bytes.len(), scrub.report);
                if self.read_paced((copy, 0), &mut bytes, scrub.pace).is_ok() {
                    images.push(bytes);
                }
            }
            for (page, image, header) in chained_frames(&record, segment, &images, settled, &mut chain) {
                let bytes = &images[image];
                if let Ok(ops) = header.ops(&bytes[page * BLOCK_BYTES..]) {
                    frames.insert(header.chain);
                    add_frame(&record.name, segment, bytes, (page, &header, ops), &mut parts);
                }
            }
        }
        scrub.report.frames += frames.len() as u64;
        for segment in &record.segments {
            let parts: Vec<Part> = parts.remove(&segment.egroup).unwrap_or_default().into_values().collect();
            self.scrub_parts(&segment.copies, &parts, scrub);
        }
        Ok(())
    }

    /// The manifest on all its drives. Where a copy lacks something all get a fresh snapshot, in the other area.
    pub fn scrub_manifest(&self, report: &mut ScrubReport) -> Result<()> {
        let mut journal = self.journal.lock();
        let drives = self.image.read().manifest_drives.clone();
        let mut wrong = Vec::new();
        for disk in drives.iter().map(|index| &self.disks[*index as usize]) {
            let Some((drive, file)) = disk.manifest() else { continue };
            report.bytes += journal.cursor;
            let copy = Copy { drive, file, generation: journal.generation, instance: self.instance };
            if !is_whole(copy, self.uuid, self.area_bytes, &journal) {
                wrong.push(disk.name());
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        self.check_writable()?;
        count(&self.counters.checksum_failures, wrong.len() as u64);
        report.bad_copies += wrong.len() as u64;
        let failed = self.switch_area(&mut journal, drives, &[])?;
        report.repaired += wrong.len() as u64;
        count(&self.counters.repairs, wrong.len() as u64);
        report.say(format!("manifest: wrong content at drive {}, written anew", wrong.join(", ")));
        self.put_out_locked(&mut journal, failed)
    }

    /// How far the scrub was when it was noted last.
    pub fn load_scrub(&self) -> Result<ScrubCursor> {
        match self.record(&scrub_key())? {
            Some(bytes) => {
                ScrubCursor::decode(&bytes).map_err(|error| Error::decode("the scrub's record", error))
            }
            None => Ok(ScrubCursor::default()),
        }
    }

    pub fn save_scrub(&self, cursor: &ScrubCursor) -> Result<()> {
        self.check_open()?;
        let mut journal = self.journal.lock();
        let mut change = Change::new(self);
        let sequence = journal.sequence + 1;
        change.items.push(Item::Record { sequence, key: scrub_key(), value: Some(cursor.encode()) });
        self.commit(&mut journal, change, &|| {})
    }
}

/// What has to be right, by egroup and offset.
type Parts = BTreeMap<EgroupId, BTreeMap<u32, Part>>;

/// Frames of one copy that verify and are durable: first page, header, ops. Others may still be on their way to the other
/// copies; one without ops is settled when a frame has said as much as it does.
fn each_durable_frame(
    incarnation: u64,
    bytes: &[u8],
    (durable, carried): (Lsn, Lsn),
    visit: &mut dyn FnMut(usize, &FrameHeader, &[u8]),
) {
    each_frame(incarnation, bytes, &mut |page, header, ops| {
        let settled = header.op_count > 0 || header.durable_lsn <= carried;
        if settled && header.end_lsn().0 <= durable.0 + 1 {
            visit(page, header, ops);
        }
    });
}

/// The frames of a segment that count, in order, each with the number of an image that has it; `chain` before and after them.
/// Behind a frame that no copy has right the chain begins anew where all that is there agree.
fn chained_frames(
    record: &GroupRecord,
    segment: &Segment,
    images: &[AlignedBuffer],
    settled: (Lsn, Lsn),
    chain: &mut u64,
) -> Vec<(usize, usize, FrameHeader)> {
    let mut found: BTreeMap<usize, Vec<(usize, FrameHeader)>> = BTreeMap::new();
    for (image, bytes) in images.iter().enumerate() {
        each_durable_frame(segment.incarnation, bytes, settled, &mut |page, header, _| {
            // Left behind by an earlier start, half written perhaps: it names nothing.
            if owner_may(header, record) {
                found.entry(page).or_default().push((image, header.clone()));
            }
        });
    }
    let (mut chained, mut next) = (Vec::new(), 0);
    for (page, there) in found {
        if page < next {
            continue;
        }
        let agreed = there.iter().all(|(_, header)| header.chain == there[0].1.chain).then_some(&there[0]);
        let continues = there.iter().find(|(_, header)| header.previous_chain == *chain);
        let Some((image, header)) = continues.or(agreed) else { continue };
        *chain = header.chain;
        next = page + header.pages();
        chained.push((page, *image, header.clone()));
    }
    chained
}

/// A frame that one copy has right, and the payload that it names: what any copy has, all should have.
fn add_frame(
    group: &str,
    segment: &Segment,
    bytes: &[u8],
    (page, header, ops): (usize, &FrameHeader, &[u8]),
    parts: &mut Parts,
) {
    let offset = (page * BLOCK_BYTES) as u32;
    let length = header.head_bytes();
    let name = format!("log of group {group}, frame of LSN {}", header.first_lsn);
    let sum = checksum(&bytes[offset as usize..offset as usize + length]);
    parts.entry(segment.egroup).or_default().insert(offset, Part { offset, length, sum, name });
    frame_births(header, ops, &mut |egroup, birth| {
        let offset = birth.page as u32 * BLOCK_BYTES as u32;
        let name = format!("log of group {group}, payload of LSN {}", birth.birth.stamp.lsn);
        let part = Part { offset, length: BLOCK_BYTES, sum: birth.checksum, name };
        parts.entry(egroup).or_default().insert(offset, part);
    });
}
