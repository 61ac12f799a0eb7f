//! Reading a batch: keys that changed, in order, with what they are at the target.

use crate::error::{Error, Result};
use crate::group::{Group, PastLedger, Pin, Span};
use crate::ledger::{Ledger, Mapped};
use holdfast_format::cell::level_blocks;
use holdfast_format::chunk::{self, ChunkEntry, ChunkHeader};
use holdfast_format::inode::InodeRecord;
use holdfast_format::key::{self, Key};
use holdfast_format::limits::{BLOCK_BYTES, CHUNK_BYTES_TARGET, CURSOR_BYTES_MAX};
use holdfast_format::wire::{Put, Take};
use holdfast_format::{BranchId, GROUP_BRANCH, Ino, Lsn};
use std::sync::Arc;

/// Bodies that are worth the compressor's work.
const COMPRESS_BYTES_MIN: usize = 256;
/// Fast, and still a third of what text takes.
const COMPRESS_LEVEL: i32 = 1;
/// Runs of blocks that are looked up at once.
const RUNS_MAX: usize = 64;
/// Blocks read at once.
const READ_BLOCKS: usize = 32;
/// Out of memory a part comes in a tenth of it.
const SLOW_NS: u64 = 2_000_000;
/// Holes cost the reader cells: each counts as much towards a chunk's size.
const HOLE_WEIGHT: usize = 1024;

/// Where the next chunk begins.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Cursor {
    sequence: u64,
    /// Blocks of the key's inode below this are done.
    covered: u64,
    key: Key,
}

impl Cursor {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.key.len());
        out.put_u64(self.sequence);
        out.put_u64(self.covered);
        out.put_bytes(&self.key);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let refused = || Error::invalid("not a place in a batch");
        if bytes.len() > CURSOR_BYTES_MAX {
            return Err(refused());
        }
        let mut take = Take::new(bytes);
        let (Ok(sequence), Ok(covered)) = (take.u64(), take.u64()) else { return Err(refused()) };
        let key = bytes[16..].to_vec();
        key::parts(&key).ok_or_else(refused)?;
        Ok(Self { sequence, covered, key })
    }
}

/// One chunk, to be sent.
pub struct Part {
    pub chunk: Vec<u8>,
    /// Where the next one begins; empty: this was the last.
    pub cursor: Vec<u8>,
    /// Bytes before compression.
    pub raw_bytes: usize,
}

/// A batch that is being read. Both of its ends stay kept as long as it lives.
pub struct Delta {
    group: Arc<Group>,
    lineage: u64,
    span: Span,
    then: PastLedger,
    /// Keys that go again, in order.
    mends: Vec<Key>,
    _base: Option<Pin>,
    next: Option<Cursor>,
    is_for_followers: bool,
    /// Threads that read the content of a part, where that is slow.
    readers: usize,
    /// The content of the newest part came from drives, as its time tells.
    is_slow: bool,
}

impl Delta {
    /// The batch from `base` (0: from nothing) to `target`, from a place in it on (empty: from its beginning).
    ///
    /// # Errors
    /// `NotFound`: one of the two is not kept any more; `Invalid`: no such batch, or no such place.
    pub fn open(group: &Arc<Group>, base: Lsn, target: Lsn, cursor: &[u8]) -> Result<Self> {
        let lineage = group.lineage();
        Ok(Self { is_for_followers: base != Lsn(0), ..Self::between(group, lineage, (base, target), cursor)? })
    }

    fn between(group: &Arc<Group>, lineage: u64, (base, target): (Lsn, Lsn), cursor: &[u8]) -> Result<Self> {
        if base >= target {
            return Err(Error::invalid(format!("no batch leads from LSN {base} to {target}")));
        }
        let gone = |lsn: Lsn| {
            Error::new(crate::error::Kind::NotFound, format!("recovery point {lsn} is not kept any more"))
        };
        let pin = |lsn: Lsn| group.pin(lsn).ok_or_else(|| gone(lsn));
        let of_base = if base == Lsn(0) { None } else { Some(pin(base)?) };
        let then = PastLedger::pinned(pin(target)?);
        let next = match cursor.is_empty() {
            true => Cursor { key: key::volume(BranchId(GROUP_BRANCH.0 + 1)), ..Cursor::default() },
            false => Cursor::decode(cursor)?,
        };
        let span = Span { from: base, to: target, is_whole: base == Lsn(0) };
        let mends = group.mends_in(span);
        let group = group.clone();
        Ok(Self { group, lineage, span, then, mends, _base: of_base, next: Some(next), is_for_followers: false, readers: 1, is_slow: false })
    }

    /// The content of a part is read by so many threads while it comes from drives: in many small pieces, one after the other else.
    #[must_use]
    pub fn with_readers(self, readers: usize) -> Self {
        Self { readers, is_slow: readers > 1, ..self }
    }

    /// The batch that leads back from `from` to `to`, an earlier point of the same group.
    pub(crate) fn back(group: &Arc<Group>, to: Lsn, from: Lsn) -> Result<Self> {
        let mut delta = Self::between(group, 0, (to, from), &[])?;
        let gone = || Error::new(crate::error::Kind::NotFound, format!("recovery point {to} is not kept any more"));
        delta.then = PastLedger::pinned(group.pin(to).ok_or_else(gone)?);
        Ok(delta)
    }

    /// The next chunk; `None`: there are no more. A batch has one at least.
    ///
    /// `bytes` is about what it holds before compression; more than a chunk may hold means as much as that.
    pub fn next_part(&mut self, bytes: usize) -> Result<Option<Part>> {
        let Some(cursor) = self.next.take() else { return Ok(None) };
        let part = self.read_part(&cursor, bytes.min(CHUNK_BYTES_TARGET));
        // After an error the same chunk is read again.
        if part.is_err() {
            self.next = Some(cursor);
        }
        if part.as_ref().is_ok_and(|part| part.cursor.is_empty()) && self.is_for_followers {
            self.group.sent(self.span.from, self.span.to);
        }
        part.map(Some)
    }

    fn read_part(&mut self, cursor: &Cursor, bytes: usize) -> Result<Part> {
        let is_whole = self.span.from == Lsn(0);
        let mut reader = Reader {
            then: &self.then,
            is_whole,
            branch: None,
            bytes,
            raw: Vec::with_capacity(bytes + BLOCK_BYTES),
            wants: Vec::new(),
            weight: 0,
            ino: key::parts(&cursor.key).map_or(Ino(0), |parts| parts.ino),
            covered: cursor.covered,
            inode: None,
            mends: false,
            stop: None,
        };
        let until = key::volume(BranchId(u32::MAX));
        if is_whole {
            let mut failed = None;
            self.then.scan(&cursor.key, &until, &mut |key, value| match reader.take(key, Some(value)) {
                Ok(more) => more,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
        } else {
            self.read_changes(&mut reader, (&cursor.key, &until))?;
        }
        let begun_ns = self.group.boottime_ns();
        self.fill(reader.branch.unwrap_or_default(), &reader.wants, &mut reader.raw)?;
        self.is_slow = self.group.boottime_ns().saturating_sub(begun_ns) > SLOW_NS;
        let header = ChunkHeader {
            branch: reader.branch.unwrap_or(BranchId(GROUP_BRANCH.0 + 1)),
            lineage: self.lineage,
            base: self.span.from,
            target: self.span.to,
            sequence: cursor.sequence,
            is_last: reader.stop.is_none(),
            is_compressed: false,
            mends: reader.mends,
            raw_bytes: reader.raw.len() as u32,
        };
        let chunk = pack(&header, &reader.raw)?;
        self.next = reader.stop.map(|(key, covered)| Cursor { sequence: cursor.sequence + 1, covered, key });
        let cursor = self.next.as_ref().map(Cursor::encode).unwrap_or_default();
        Ok(Part { chunk, cursor, raw_bytes: reader.raw.len() })
    }

    /// Reads what the entries have left room for.
    fn fill(&self, branch: BranchId, wants: &[Want], raw: &mut [u8]) -> Result<()> {
        let (mut pieces, mut rest, mut passed) = (Vec::new(), raw, 0);
        for want in wants {
            let (content, later) = rest[want.at - passed..].split_at_mut(want.blocks * BLOCK_BYTES);
            passed = want.at + content.len();
            rest = later;
            let pieces_of = content.chunks_mut(READ_BLOCKS * BLOCK_BYTES).enumerate();
            pieces.extend(pieces_of.map(|(at, piece)| (want, want.start + (at * READ_BLOCKS) as u32, piece)));
        }
        let read = |(want, start, piece): (&Want, u32, &mut [u8])| {
            self.then.read_blocks(branch, want.ino, want.levels, start, piece)
        };
        if self.readers <= 1 || !self.is_slow || pieces.len() <= 1 {
            return pieces.into_iter().try_for_each(read);
        }
        let share = pieces.len().div_ceil(self.readers);
        let mut jobs = Vec::new();
        while !pieces.is_empty() {
            let later = pieces.split_off(share.min(pieces.len()));
            let now = std::mem::replace(&mut pieces, later);
            jobs.push(move || now.into_iter().try_for_each(read));
        }
        holdfast_device::threads::run_parallel("delta-read", jobs).into_iter().collect()
    }

    /// Keys that changed, and between them those that go again.
    fn read_changes(&self, reader: &mut Reader<'_>, (from, until): (&[u8], &[u8])) -> Result<()> {
        let first = self.mends.partition_point(|key| &key[..] < from);
        let mut mends = self.mends[first..].iter().peekable();
        self.group.changed_keys(self.span, (from, until), &mut |key| {
            while let Some(mend) = mends.next_if(|mend| &mend[..] < key) {
                if !reader.take_again(mend)? {
                    return Ok(false);
                }
            }
            match mends.next_if(|mend| &mend[..] == key) {
                Some(mend) => reader.take_again(mend),
                None => reader.take(key, None),
            }
        })?;
        while reader.stop.is_none()
            && let Some(mend) = mends.next()
        {
            reader.take_again(mend)?;
        }
        Ok(())
    }
}

/// The chunk, compressed where that makes it smaller.
fn pack(header: &ChunkHeader, raw: &[u8]) -> Result<Vec<u8>> {
    if raw.len() >= COMPRESS_BYTES_MIN {
        let failed = |error: std::io::Error| Error::new(crate::error::Kind::Internal, format!("zstd: {error}"));
        let body = zstd::bulk::compress(raw, COMPRESS_LEVEL).map_err(failed)?;
        if body.len() < raw.len() {
            return Ok(ChunkHeader { is_compressed: true, ..*header }.encode(&body));
        }
    }
    Ok(header.encode(raw))
}

/// Blocks whose content goes to a place in `raw`.
struct Want {
    ino: Ino,
    levels: u16,
    start: u32,
    blocks: usize,
    at: usize,
}

/// Turns keys into the entries of one chunk.
struct Reader<'a> {
    then: &'a PastLedger,
    is_whole: bool,
    branch: Option<BranchId>,
    /// The chunk is full with so many.
    bytes: usize,
    raw: Vec<u8>,
    /// In the order of `at`; there are zeroes meanwhile.
    wants: Vec<Want>,
    /// Beside `raw`: what entries cost the reader more than their bytes.
    weight: usize,
    ino: Ino,
    /// Blocks of `ino` below this are in.
    covered: u64,
    /// Of `ino` at the target, once somebody asked.
    inode: Option<Option<InodeRecord>>,
    /// Something goes again.
    mends: bool,
    /// Where the next chunk begins.
    stop: Option<(Key, u64)>,
}

impl Reader<'_> {
    fn is_full(&self) -> bool {
        self.raw.len() + self.weight >= self.bytes
    }

    /// A key that did not change, but has to go.
    fn take_again(&mut self, key: &[u8]) -> Result<bool> {
        self.mends = true;
        self.take(key, None)
    }

    /// False: the chunk is full, and the key comes again.
    fn take(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<bool> {
        let Some(parts) = key::parts(key) else { return Ok(true) };
        let is_other_branch = self.branch.is_some_and(|branch| branch != parts.branch);
        if parts.ino != self.ino || is_other_branch {
            (self.ino, self.covered, self.inode) = (parts.ino, 0, None);
        }
        if self.is_full() || is_other_branch {
            self.stop = Some((key.to_vec(), self.covered));
            return Ok(false);
        }
        self.branch = Some(parts.branch);
        if let Some((start, level)) = key::data_place(key) {
            return self.take_blocks(key, (u64::from(start), u64::from(start) + level_blocks(level)));
        }
        if let Some(value) = value {
            ChunkEntry::Put { key, value }.encode(&mut self.raw);
            return Ok(true);
        }
        match self.then.get(key)? {
            Some(value) => ChunkEntry::Put { key, value: &value }.encode(&mut self.raw),
            None => ChunkEntry::Delete { key }.encode(&mut self.raw),
        }
        Ok(true)
    }

    /// Blocks of a file that may differ, as far as they are not in.
    fn take_blocks(&mut self, key: &[u8], (start, end): (u64, u64)) -> Result<bool> {
        let branch = self.branch.unwrap_or_default();
        if self.inode.is_none() {
            let bytes = self.then.get(&key::inode(branch, self.ino))?;
            let decoded = bytes.map(|bytes| InodeRecord::decode(&bytes)).transpose();
            self.inode = Some(decoded.map_err(|error| Error::decode(&format!("inode {}", self.ino), error))?);
        }
        // Where the file is gone, its record says so.
        let Some((levels, size)) = self.inode.as_ref().and_then(Option::as_ref).map(|inode| (inode.levels, inode.size)) else {
            self.covered = self.covered.max(end);
            return Ok(true);
        };
        // Nothing is mapped beyond the end of a file.
        let mapped_end = end.min(size.div_ceil(BLOCK_BYTES as u64));
        while self.covered.max(start) < mapped_end {
            if self.is_full() {
                self.stop = Some((key.to_vec(), self.covered));
                return Ok(false);
            }
            let mut runs = Vec::new();
            let from = self.covered.max(start);
            let visit = &mut |first, count, mapped| {
                runs.push((first, count, mapped));
                runs.len() < RUNS_MAX
            };
            self.then.map(branch, self.ino, levels, (from, mapped_end), visit)?;
            for (first, count, mapped) in runs {
                if self.is_full() {
                    break;
                }
                match mapped {
                    Mapped::Hole => self.put_hole(first, count),
                    Mapped::Data => self.put_data(levels, first, count),
                }
            }
        }
        let from = self.covered.max(start);
        if from < end {
            self.put_hole(from, end - from);
        }
        Ok(true)
    }

    fn put_hole(&mut self, first: u64, count: u64) {
        if !self.is_whole {
            ChunkEntry::Hole { ino: self.ino, start: first as u32, count }.encode(&mut self.raw);
            self.weight += HOLE_WEIGHT;
        }
        self.covered = first + count;
    }

    /// As much of it as there is room for, one block at least. What follows on the entry before it becomes part of that.
    fn put_data(&mut self, levels: u16, first: u64, count: u64) {
        let room = self.bytes.saturating_sub(self.raw.len() + self.weight).div_ceil(BLOCK_BYTES) as u64;
        let blocks = count.min(room.max(1)) as usize;
        let (ino, start, end) = (self.ino, first as u32, self.raw.len());
        match self.wants.last_mut() {
            Some(last) if last.continues(ino, levels, start, end) => {
                last.blocks += blocks;
                let at = last.at - chunk::BLOCKS_HEAD_BYTES;
                chunk::set_blocks(&mut self.raw[at..], last.blocks as u16);
            }
            _ => {
                ChunkEntry::Blocks { ino, start, content: &[] }.encode(&mut self.raw);
                let at = self.raw.len() - chunk::BLOCKS_HEAD_BYTES;
                chunk::set_blocks(&mut self.raw[at..], blocks as u16);
                self.wants.push(Want { ino, levels, start, blocks, at: self.raw.len() });
            }
        }
        self.raw.resize(self.raw.len() + blocks * BLOCK_BYTES, 0);
        self.covered = first + blocks as u64;
    }
}

impl Want {
    /// Whether these blocks follow on it, in the file and in the chunk.
    fn continues(&self, ino: Ino, levels: u16, start: u32, end: usize) -> bool {
        (self.ino, self.levels) == (ino, levels)
            && u64::from(self.start) + self.blocks as u64 == u64::from(start)
            && self.at + self.blocks * BLOCK_BYTES == end
    }
}
