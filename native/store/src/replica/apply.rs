//! Taking a chunk in at a replica: one op, or a few where it is more than one holds.
//!
//! 1. The chunk is checked as a whole, and that it continues what is there.
//! 2. Its entries become effects. What is local to the site stays: cell levels of files, copies and policies of volumes.
//! 3. The last op bears the replica's record, which says where the batch goes on. A crash before it lets the chunk come again:
//!    entries say what is, not what to change, so that does no harm.

use crate::error::{Error, Kind, Result};
use crate::group::{Group, PACK_BYTES_MAX};
use crate::ledger::{Ledger, OpDraft, PointDraft};
use crate::volume::stored_bytes;
use holdfast_format::cell::{self, Cell};
use holdfast_format::chunk::{ChunkEntry, ChunkHeader};
use holdfast_format::inode::{InodeRecord, Time, VolumeRecord, WritePolicy};
use holdfast_format::key::{self, Key};
use holdfast_format::limits::{
    BLOCK_BYTES, CELL_LEVEL_DATA_MAX, CELL_LEVEL_MAX, CURSOR_BYTES_MAX, KEY_BYTES_MAX, OP_BYTES_MAX, VALUE_BYTES_MAX,
};
use holdfast_format::op::{Actor, Effects, OpKind, page_checksums};
use holdfast_format::replica::{ReplicaRecord, Staging};
use holdfast_format::wire::Take;
use holdfast_format::{BranchId, Ino, Lsn, key::KIND_VOLUME};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Effects after which an op is ended: the longest entry and the replica's record fit still.
const EFFECTS_BYTES_MAX: usize = OP_BYTES_MAX - KEY_BYTES_MAX - VALUE_BYTES_MAX - 4096;

const ALL_LEVELS: u16 = (1 << (CELL_LEVEL_MAX + 1)) - 1;

/// What became of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Staged {
    /// It is in; the next one of the batch may come.
    Taken,
    /// It was the last one of its batch.
    Complete,
    /// It was in already.
    Known,
}

/// Volumes of which a chunk says something new.
pub type Volumes = Vec<(BranchId, VolumeRecord)>;

/// Takes the next chunk of a batch in; `cursor`: where the batch goes on.
///
/// # Errors
/// `Corrupt`: it is damaged; `Fenced`: of another lineage, or the group is no replica; `Conflict`: it does not continue what is
/// here, with what is.
pub fn stage(group: &Arc<Group>, bytes: &[u8], cursor: &[u8]) -> Result<(Staged, Volumes)> {
    let (header, body) = ChunkHeader::decode(bytes).map_err(|error| Error::decode("a chunk", error))?;
    if cursor.len() > CURSOR_BYTES_MAX || header.is_last != cursor.is_empty() {
        return Err(Error::invalid("a chunk and the place of the next one do not belong together"));
    }
    let raw = unpack(&header, body)?;
    group.with_replica(|record| {
        if let Some(known) = check_sequence(record, &header)? {
            return Ok((known, Volumes::new()));
        }
        let staging = Staging {
            base: header.base,
            target: header.target,
            sequence: header.sequence + 1,
            cursor: cursor.to_vec(),
        };
        let next = ReplicaRecord { staging: Some(staging), ..record.clone() };
        let mut writer = Writer::new(group, header.branch)?;
        writer.is_back = header.mends;
        writer.entries(&raw)?;
        writer.effects.put(&key::replica(), &next.encode());
        writer.commit()?;
        *record = next;
        Ok((if header.is_last { Staged::Complete } else { Staged::Taken }, writer.volumes))
    })
}

/// The batch is whole: what it made becomes the newest recovery point. Not durable before the LSN is.
///
/// # Errors
/// `Conflict`: the batch is not whole; `Fenced`.
pub fn complete(group: &Arc<Group>, (lineage, lsn): (u64, Lsn), (wall, name): (Time, &str)) -> Result<Lsn> {
    group.with_replica(|record| {
        check_lineage(record, lineage)?;
        if record.lsn == lsn {
            return Ok(Group::newest(group));
        }
        let whole = record.staging.as_ref().is_some_and(|staging| staging.target == lsn && staging.cursor.is_empty());
        if !whole {
            return Err(Error::new(Kind::Conflict, format!("the batch to LSN {lsn} is not whole: {}", state(record))));
        }
        let next = ReplicaRecord { lsn, staging: None, ..record.clone() };
        let kept = group.receive_point(&next, (wall, name))?;
        *record = next;
        Ok(kept)
    })
}

/// Applies a chunk that leads back to an earlier state of this replica.
pub(super) fn put_back(group: &Arc<Group>, bytes: &[u8]) -> Result<()> {
    let (header, body) = ChunkHeader::decode(bytes).map_err(|error| Error::decode("a chunk", error))?;
    let raw = unpack(&header, body)?;
    let mut writer = Writer::new(group, header.branch)?;
    writer.is_back = true;
    writer.entries(&raw)?;
    writer.commit()
}

fn state(record: &ReplicaRecord) -> String {
    match &record.staging {
        None => format!("the replica is at LSN {}", record.lsn),
        Some(Staging { base, target, sequence, .. }) => {
            format!("the replica is at LSN {}, in batch {base} to {target}, before chunk {sequence}", record.lsn)
        }
    }
}

fn check_lineage(record: &ReplicaRecord, lineage: u64) -> Result<()> {
    if record.lineage == lineage {
        return Ok(());
    }
    let message = format!("of lineage {lineage:016x}: this replica follows {:016x}", record.lineage);
    Err(Error::new(Kind::Fenced, message))
}

/// `Some`: it is in already.
fn check_sequence(record: &ReplicaRecord, header: &ChunkHeader) -> Result<Option<Staged>> {
    check_lineage(record, header.lineage)?;
    let refused = |why: &str| {
        let ChunkHeader { base, target, sequence, .. } = header;
        let message = format!("chunk {sequence} of batch {base} to {target} {why}: {}", state(record));
        Err(Error::new(Kind::Conflict, message))
    };
    if header.target <= record.lsn {
        return Ok(Some(Staged::Known));
    }
    match &record.staging {
        Some(staging) if (staging.base, staging.target) == (header.base, header.target) => {
            if header.sequence < staging.sequence {
                return Ok(Some(Staged::Known));
            }
            if header.sequence > staging.sequence || staging.cursor.is_empty() {
                return refused("does not follow");
            }
        }
        Some(staging) if staging.base == Lsn(0) => return refused("comes before the first sync is whole"),
        _ if header.sequence != 0 => return refused("has nothing before it"),
        _ => {}
    }
    if header.base > record.lsn {
        return refused("begins after what is here");
    }
    if header.base == Lsn(0) && record.lsn != Lsn(0) {
        return refused("would begin from nothing");
    }
    Ok(None)
}

fn unpack(header: &ChunkHeader, body: &[u8]) -> Result<Vec<u8>> {
    if !header.is_compressed {
        return Ok(body.to_vec());
    }
    // The header has bounded what comes out.
    let raw = zstd::bulk::decompress(body, header.raw_bytes as usize);
    match raw {
        Ok(raw) if raw.len() == header.raw_bytes as usize => Ok(raw),
        _ => Err(Error::corrupt("a chunk that cannot be decompressed")),
    }
}

/// Builds ops out of entries.
struct Writer<'a> {
    group: &'a Arc<Group>,
    branch: BranchId,
    rf: u8,
    effects: Effects,
    payload: Vec<u8>,
    stored: i64,
    /// Inodes that were met, as they are now; `None`: there is none.
    inodes: BTreeMap<Ino, Option<InodeRecord>>,
    /// Inodes that came with this chunk: no block of theirs hides anything.
    fresh: BTreeSet<Ino>,
    volumes: Volumes,
    /// Inodes may come that were removed here, a moment ago or wrongly.
    is_back: bool,
}

impl<'a> Writer<'a> {
    fn new(group: &'a Arc<Group>, branch: BranchId) -> Result<Self> {
        let rf = group.volumes()?.iter().map(|(_, record)| record.rf).max().unwrap_or(1);
        let effects = Effects::new();
        let (payload, inodes, fresh) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        Ok(Self { group, branch, rf, effects, payload, stored: 0, inodes, fresh, volumes: Volumes::new(), is_back: false })
    }

    fn commit(&mut self) -> Result<()> {
        let draft = OpDraft {
            branch: self.branch,
            kind: OpKind::Stage,
            actor: Actor::default(),
            time: self.group.now(),
            ino: Ino(0),
            offset: 0,
            length: 0,
            effects: std::mem::take(&mut self.effects),
            payload: &self.payload,
            rf: self.rf,
            stored: std::mem::take(&mut self.stored),
            frees: false,
            point: PointDraft::default(),
        };
        self.group.commit(draft)?;
        self.payload.clear();
        Ok(())
    }

    fn entries(&mut self, raw: &[u8]) -> Result<()> {
        let mut take = Take::new(raw);
        while !take.is_empty() {
            let entry = ChunkEntry::take(self.branch, &mut take).map_err(|error| Error::decode("a chunk's entry", error))?;
            self.entry(entry)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: ChunkEntry<'_>) -> Result<()> {
        if self.effects.as_bytes().len() >= EFFECTS_BYTES_MAX {
            self.commit()?;
        }
        match entry {
            ChunkEntry::Put { key, value } => self.put(key, value),
            ChunkEntry::Delete { key } => self.delete(key),
            ChunkEntry::Blocks { ino, start, content } => self.blocks(ino, start, content),
            ChunkEntry::Hole { ino, start, count } => self.hole(ino, u64::from(start), count),
        }
    }

    fn inode(&mut self, ino: Ino) -> Result<Option<InodeRecord>> {
        if let Some(known) = self.inodes.get(&ino) {
            return Ok(known.clone());
        }
        let bytes = self.group.get(&key::inode(self.branch, ino))?;
        let record = bytes.map(|bytes| decode_inode(ino, &bytes)).transpose()?;
        self.inodes.insert(ino, record.clone());
        Ok(record)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key::parts(key) {
            Some(parts) if parts.kind == key::KIND_INODE => {
                let mut record = decode_inode(parts.ino, value)?;
                let before = self.inode(parts.ino)?;
                if before.is_none() && !self.is_back {
                    self.fresh.insert(parts.ino);
                }
                // On which levels cells lie is a matter of this site.
                // Where it was removed before, there is a hole over what it had on any of them.
                let of_none = if self.is_back { ALL_LEVELS } else { 0 };
                record.levels = before.as_ref().map_or(of_none, |before| before.levels);
                self.stored += stored_bytes(&record) as i64 - before.as_ref().map_or(0, stored_bytes) as i64;
                self.effects.put(key, &record.encode());
                self.inodes.insert(parts.ino, Some(record));
            }
            Some(parts) if parts.kind == KIND_VOLUME => self.put_volume(key, value)?,
            _ => self.effects.put(key, value),
        }
        Ok(())
    }

    /// What the owner says of a volume: numbers, quota, who may look at its past. Name, copies and policy are local.
    fn put_volume(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let decode = |bytes: &[u8]| VolumeRecord::decode(bytes).map_err(|error| Error::decode("a volume's record", error));
        let theirs = decode(value)?;
        let ours = self.group.get(key)?.map(|bytes| decode(&bytes)).transpose()?;
        let record = match ours {
            Some(ours) => VolumeRecord {
                next_ino: theirs.next_ino.max(ours.next_ino),
                quota_bytes: theirs.quota_bytes,
                past: theirs.past,
                name: if theirs.name.is_empty() { String::new() } else { ours.name },
                ..ours
            },
            None => VolumeRecord { rf: self.rf, policy: WritePolicy::default(), ..theirs },
        };
        self.effects.put(key, &record.encode());
        self.volumes.push((self.branch, record));
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        if let Some(parts) = key::parts(key).filter(|parts| parts.kind == key::KIND_INODE) {
            let Some(before) = self.inode(parts.ino)? else { return Ok(()) };
            if before.levels != 0 {
                self.put_hole_cell(parts.ino, 0, CELL_LEVEL_MAX);
            }
            self.stored -= stored_bytes(&before) as i64;
            self.inodes.insert(parts.ino, None);
        }
        self.effects.delete(key);
        Ok(())
    }

    fn blocks(&mut self, ino: Ino, start: u32, content: &[u8]) -> Result<()> {
        let max = self.group.write_bytes_max() as usize / BLOCK_BYTES * BLOCK_BYTES;
        let (mut start, mut rest) = (start, content);
        if let Some((block, bytes)) = self.short_end(ino, start, content)? {
            self.add_levels(ino, 1)?;
            let cell = Cell::Partial { start: 0, bytes: bytes.to_vec() };
            self.effects.put(&key::data(self.branch, ino, block, 0), &cell.encode());
            rest = &content[..content.len() - BLOCK_BYTES];
        }
        while !rest.is_empty() {
            if self.payload.len() >= max {
                self.commit()?;
            }
            let (now, later) = rest.split_at(rest.len().min(max - self.payload.len()));
            let checksums = page_checksums(now);
            let mut levels = 0;
            cell::cut_range(u64::from(start), checksums.len() as u64, CELL_LEVEL_DATA_MAX, |_, level| levels |= 1 << level);
            self.add_levels(ino, levels)?;
            self.effects.pages(ino, start, (self.payload.len() / BLOCK_BYTES) as u16, &checksums);
            self.payload.extend_from_slice(now);
            start += checksums.len() as u32;
            rest = later;
        }
        Ok(())
    }

    /// The last block of a new file, if little of it is in use: a drain packs it with others.
    fn short_end<'c>(&mut self, ino: Ino, start: u32, content: &'c [u8]) -> Result<Option<(u32, &'c [u8])>> {
        let last = start + (content.len() / BLOCK_BYTES) as u32 - 1;
        let Some(size) = self.inode(ino)?.map(|inode| inode.size).filter(|_| self.fresh.contains(&ino)) else { return Ok(None) };
        let end = (size % BLOCK_BYTES as u64) as usize;
        let is_end = u64::from(last) == size / BLOCK_BYTES as u64 && (1..=PACK_BYTES_MAX).contains(&end);
        Ok(is_end.then(|| (last, &content[content.len() - BLOCK_BYTES..][..end])))
    }

    fn hole(&mut self, ino: Ino, start: u64, count: u64) -> Result<()> {
        // A file without cells is a hole all over.
        if self.inode(ino)?.is_none_or(|inode| inode.levels == 0) {
            return Ok(());
        }
        let (mut cells, mut levels): (Vec<(u32, u8)>, u16) = (Vec::new(), 0);
        cell::cut_range(start, count, CELL_LEVEL_MAX, |start, level| {
            cells.push((start, level));
            levels |= 1 << level;
        });
        self.add_levels(ino, levels)?;
        cells.into_iter().for_each(|(start, level)| self.put_hole_cell(ino, start, level));
        Ok(())
    }

    fn put_hole_cell(&mut self, ino: Ino, start: u32, level: u8) {
        self.effects.put(&key::data(self.branch, ino, start, level), &Cell::Hole.encode());
    }

    /// The inode's record says on which levels its cells lie.
    fn add_levels(&mut self, ino: Ino, levels: u16) -> Result<()> {
        let Some(mut record) = self.inode(ino)? else {
            return Err(Error::corrupt(format!("a batch has blocks of inode {ino}, which does not exist")));
        };
        if record.levels | levels != record.levels {
            record.levels |= levels;
            let key: Key = key::inode(self.branch, ino);
            self.effects.put(&key, &record.encode());
            self.inodes.insert(ino, Some(record));
        }
        Ok(())
    }
}

fn decode_inode(ino: Ino, bytes: &[u8]) -> Result<InodeRecord> {
    InodeRecord::decode(bytes).map_err(|error| Error::decode(&format!("inode {ino}"), error))
}
