//! The manifest on its drives: reading it whole at open, record by record from whichever copy is right; and
//! the
//! place of the next record (STORE.md 11).

use super::image::Image;
use crate::error::{Error, Kind, Result};
use holdfast_device::{Drive, FileId};
use holdfast_format::Uuid;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::manifest::{Item, RECORD_HEADER_BYTES, RecordHead, RecordKind, padded_bytes};
use holdfast_format::superblock::Mark;
use holdfast_format::wire::Take;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Read at once when looking for records behind the end.
const SCAN_BYTES: u64 = 1 << 20;

/// Where the manifest ends. Guarded by the publish lock.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    pub generation: u64,
    /// Of the newest durable record.
    pub sequence: u64,
    pub membership: u64,
    /// Checksum of the newest record.
    pub chain: u64,
    /// Area in use, 0 or 1, and offset of the next record in it.
    pub area: u8,
    pub cursor: u64,
    /// Area, and offset in it up to which writing is cheap.
    pub ready: (u8, u64),
    /// What is durable on each drive about itself.
    pub known: BTreeMap<u16, Mark>,
    /// Which of our writes is the newest superblock on each drive: one that is older was put back by somebody.
    pub written: BTreeMap<u16, u64>,
    /// Writes of superblocks.
    pub writes: u64,
    pub beat: u64,
    /// The last drive failed a write: nothing is written any more, reads go on.
    pub broken: Option<String>,
}

/// One drive's manifest file, and what its superblock says of it.
pub(super) struct Copy<'a> {
    pub drive: &'a dyn Drive,
    pub file: FileId,
    /// The generation that the drive is at.
    pub generation: u64,
    /// The run that wrote this superblock, and so began that generation.
    pub instance: u64,
}

/// Outcome of [`recover`].
pub(super) struct Recovered {
    pub image: Image,
    pub journal: Journal,
    /// Records that some copy had wrong: the first snapshot after opening repairs them.
    pub repaired: u64,
}

struct Reader<'a> {
    copies: &'a [Copy<'a>],
    pool: Uuid,
    area_bytes: u64,
    area: u8,
    generation: u64,
    /// Checksum of the header that counts.
    header: u64,
    bad: u64,
}

/// How often a manifest is read that no copy seems to have right.
const READS_MAX: usize = 3;

impl Reader<'_> {
    fn read(&self, copy: &Copy<'_>, offset: u64, bytes: usize) -> Option<Vec<u8>> {
        let mut into = vec![0; bytes];
        let at = self.area as u64 * self.area_bytes + offset;
        copy.drive.read(copy.file, at, &mut into).ok()?;
        Some(into)
    }

    /// A record of this pool and generation at `offset` of one copy, verified.
    fn record_of(&self, copy: &Copy<'_>, offset: u64) -> Option<(RecordHead, Vec<u8>)> {
        if offset + BLOCK_BYTES as u64 > self.area_bytes {
            return None;
        }
        let first = self.read(copy, offset, BLOCK_BYTES)?;
        let head = RecordHead::decode(&first).ok()?;
        let padded = padded_bytes(head.body_bytes as usize);
        if head.pool != self.pool
            || head.generation != self.generation
            || offset + padded as u64 > self.area_bytes
        {
            return None;
        }
        let whole = if padded == BLOCK_BYTES { first } else { self.read(copy, offset, padded)? };
        let body = whole[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + head.body_bytes as usize].to_vec();
        head.verify(&body).ok()?;
        Some((head, body))
    }

    fn header_of(&self, copy: &Copy<'_>) -> Option<RecordHead> {
        let header = self.record_of(copy, 0).map(|(head, _)| head);
        header.filter(|head| head.kind == RecordKind::Header && head.checksum == self.header)
    }

    fn header(&self) -> Option<RecordHead> {
        self.copies.iter().find_map(|copy| self.header_of(copy))
    }

    /// The record that continues the chain at `offset`, from any copy; counts the copies that have it wrong.
    fn next(&mut self, offset: u64, sequence: u64, previous: u64) -> Option<(RecordHead, Vec<u8>)> {
        let mut found = None;
        let mut bad = 0;
        for copy in self.copies {
            match self.record_of(copy, offset) {
                Some(record) if record.0.sequence == sequence && record.0.previous == previous => {
                    found = Some(record);
                }
                _ => bad += 1,
            }
        }
        if found.is_some() {
            self.bad += bad;
        }
        found
    }

    /// Highest sequence of a valid record after `offset` on any copy: what must not have been lost.
    fn newest_after(&self, offset: u64) -> u64 {
        let mut newest = 0;
        for copy in self.copies {
            let mut at = offset;
            while at < self.area_bytes {
                let chunk = SCAN_BYTES.min(self.area_bytes - at);
                let pages = self.read(copy, at, chunk as usize).unwrap_or_default();
                for (index, page) in pages.chunks_exact(BLOCK_BYTES).enumerate() {
                    let ours = RecordHead::decode(page).is_ok_and(|head| head.generation == self.generation);
                    let record =
                        ours.then(|| self.record_of(copy, at + (index * BLOCK_BYTES) as u64)).flatten();
                    newest = newest.max(record.map_or(0, |(head, _)| head.sequence));
                }
                at += chunk;
            }
        }
        newest
    }
}

/// Whether one copy has every record of the area in use, up to the newest.
pub(super) fn is_whole(copy: Copy<'_>, pool: Uuid, area_bytes: u64, journal: &Journal) -> bool {
    let (area, generation) = (journal.area, journal.generation);
    let reader = Reader { copies: &[], pool, area_bytes, area, generation, header: 0, bad: 0 };
    let Some((header, _)) = reader.record_of(&copy, 0).filter(|(head, _)| head.kind == RecordKind::Header) else {
        return false;
    };
    let (mut offset, mut sequence, mut chain) = (BLOCK_BYTES as u64, header.sequence, header.checksum);
    while offset < journal.cursor {
        let next = reader.record_of(&copy, offset);
        let Some((head, body)) = next.filter(|(head, _)| (head.sequence, head.previous) == (sequence, chain)) else {
            return false;
        };
        chain = head.checksum;
        offset += padded_bytes(body.len()) as u64;
        sequence += 1;
    }
    chain == journal.chain
}

/// The newest generation, as its copies say.
struct Newest {
    generation: u64,
    /// Checksum of its header.
    header: u64,
    /// Areas that it may be in: more than one, where a drive answers with what lies elsewhere on it.
    areas: Vec<u8>,
}

/// What a header on a drive is worth, by the superblock beside it (those are written after the header and before the first
/// edit behind it).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Standing {
    /// The superblock names a later generation: nobody asks for this one.
    Past,
    /// The superblock does not know of it: a run was cut short in the change of areas, and promised nothing by it.
    Begun,
    /// The superblock names it, and the run that wrote it.
    Signed,
}

/// A header that reads.
struct HeaderFound<'a> {
    copy: &'a Copy<'a>,
    area: u8,
    head: RecordHead,
    standing: Standing,
}

fn headers<'a>(copies: &'a [Copy<'a>], pool: Uuid, area_bytes: u64) -> Vec<HeaderFound<'a>> {
    let mut found = Vec::new();
    for (copy, area) in copies.iter().flat_map(|copy| [(copy, 0), (copy, 1)]) {
        let mut page = vec![0; BLOCK_BYTES];
        if copy.drive.read(copy.file, area as u64 * area_bytes, &mut page).is_err() {
            continue;
        }
        let Ok(head) = RecordHead::decode(&page) else { continue };
        let body = page.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + head.body_bytes as usize);
        let Some(body) = body.filter(|body| head.verify(body).is_ok()) else { continue };
        if head.kind != RecordKind::Header || head.pool != pool {
            continue;
        }
        let standing = match head.generation.cmp(&copy.generation) {
            Ordering::Less => Standing::Past,
            Ordering::Greater => Standing::Begun,
            Ordering::Equal if body == copy.instance.to_le_bytes() => Standing::Signed,
            // The drive has lost the header that its superblock speaks of: here still is what an earlier run began.
            Ordering::Equal => continue,
        };
        found.push(HeaderFound { copy, area, head, standing });
    }
    found
}

/// The newest generation of which a header reads.
///
/// Where its headers differ, runs did not know of each other. One that was cut short in the change of areas is passed over:
/// nothing was promised by it. Two that both went on were used apart: whose changes are given up is not for a program to
/// choose (`Conflict`).
fn newest_generation(copies: &[Copy<'_>], pool: Uuid, area_bytes: u64) -> Result<Option<Newest>> {
    let mut found = headers(copies, pool, area_bytes);
    let Some(generation) = found.iter().map(|header| header.head.generation).max() else { return Ok(None) };
    found.retain(|header| header.head.generation == generation);
    let first = found[0].head.checksum;
    if found.iter().any(|header| header.head.checksum != first) {
        for header in &mut found {
            let edited = || has_edits(header.copy, &header.head, header.area, area_bytes);
            if header.standing == Standing::Begun && edited() {
                header.standing = Standing::Signed;
            }
        }
    }
    let mut votes: BTreeMap<u64, (Standing, [usize; 2])> = BTreeMap::new();
    for header in &found {
        let (standing, areas) = votes.entry(header.head.checksum).or_insert((header.standing, [0; 2]));
        *standing = (*standing).max(header.standing);
        areas[header.area as usize] += 1;
    }
    if votes.values().filter(|(standing, _)| *standing == Standing::Signed).count() > 1 {
        let other = found.iter().rfind(|header| header.standing == Standing::Signed && header.head.checksum != first);
        let drive = other.unwrap_or(&found[0]).copy.drive.name();
        return Err(Error::new(
            Kind::Conflict,
            format!(
                "drive {drive}: its manifest generation {generation} is not the other drives'; they were used apart: open \
                 the pool without the ones whose changes are to be given up"
            ),
        ));
    }
    let best = votes.into_iter().max_by_key(|(_, (standing, areas))| (*standing, areas[0] + areas[1]));
    Ok(best.map(|(header, (_, found))| {
        let mut areas: Vec<u8> = (0..2).filter(|area| found[*area as usize] > 0).collect();
        areas.sort_by_key(|area| std::cmp::Reverse(found[*area as usize]));
        Newest { generation, header, areas }
    }))
}

/// Whether a run went on behind this header: then it promised something, whatever became of the superblock.
fn has_edits(copy: &Copy<'_>, head: &RecordHead, area: u8, area_bytes: u64) -> bool {
    let (pool, generation, header) = (head.pool, head.generation, head.checksum);
    let reader = Reader { copies: &[], pool, area_bytes, area, generation, header, bad: 0 };
    let follows = |offset, previous| reader.record_of(copy, offset).filter(|(head, _)| head.previous == previous);
    follows(BLOCK_BYTES as u64, header).is_some_and(|(snapshot, body)| {
        follows((BLOCK_BYTES + padded_bytes(body.len())) as u64, snapshot.checksum).is_some()
    })
}

fn decode_body(image: &mut Image, body: &[u8]) -> Result<()> {
    let mut take = Take::new(body);
    while let Some(item) = Item::take(&mut take).map_err(|error| Error::decode("the manifest", error))? {
        image.apply(item);
    }
    Ok(())
}

/// Reads the newest manifest. `floor`: what some superblock says was durable.
///
/// A bad record with nothing valid behind it on any copy is the torn tail: ignored. With something valid
/// behind it,
/// or below the floor, it is corruption: refused unless another copy has it.
///
/// What is refused is read again first: a drive may answer wrongly now and then.
pub(super) fn recover(copies: &[Copy<'_>], pool: Uuid, area_bytes: u64, floor: Mark) -> Result<Recovered> {
    for _ in 1..READS_MAX {
        match recover_once(copies, pool, area_bytes, floor) {
            Err(error) if error.kind == Kind::Corrupt => {}
            other => return other,
        }
    }
    recover_once(copies, pool, area_bytes, floor)
}

fn recover_once(copies: &[Copy<'_>], pool: Uuid, area_bytes: u64, floor: Mark) -> Result<Recovered> {
    let refuse =
        |what: String| Error::corrupt(format!("the manifest of pool {pool}: {what}; add the missing drives"));
    let Some(Newest { generation, header, areas }) = newest_generation(copies, pool, area_bytes)? else {
        return Err(refuse("no drive has a readable copy".into()));
    };
    if generation < floor.generation {
        return Err(refuse(format!("generation {} is on no drive, only {generation}", floor.generation)));
    }
    let reader_of = |area| Reader { copies, pool, area_bytes, area, generation, header, bad: 0 };
    let begins = |area: &u8| {
        let mut reader = reader_of(*area);
        let header = reader.header();
        header.is_some_and(|head| reader.next(BLOCK_BYTES as u64, head.sequence, head.checksum).is_some())
    };
    let area = areas.iter().copied().find(begins).unwrap_or(areas[0]);
    let mut reader = reader_of(area);
    let header = reader.header().ok_or_else(|| refuse("its header went bad while being read".into()))?;
    reader.bad += copies.iter().filter(|copy| reader.header_of(copy).is_none()).count() as u64;
    let mut offset = BLOCK_BYTES as u64;
    let (mut sequence, mut chain) = (header.sequence, header.checksum);
    let mut image = Image::default();
    let (mut membership, mut records) = (0, 0u64);
    while let Some((head, body)) = reader.next(offset, sequence, chain) {
        decode_body(&mut image, &body)?;
        (chain, membership) = (head.checksum, head.membership);
        offset += padded_bytes(body.len()) as u64;
        sequence += 1;
        records += 1;
    }
    if records == 0 {
        return Err(refuse(format!("no copy of the snapshot of generation {generation} is right")));
    }
    let newest =
        reader.newest_after(offset).max(if generation == floor.generation { floor.sequence } else { 0 });
    if newest >= sequence {
        return Err(refuse(format!(
            "record {sequence} is bad in every copy, though {newest} was written after it"
        )));
    }
    let journal = Journal {
        generation,
        sequence: sequence - 1,
        membership,
        chain,
        area,
        cursor: offset,
        ..Journal::default()
    };
    Ok(Recovered { image, journal, repaired: reader.bad })
}
