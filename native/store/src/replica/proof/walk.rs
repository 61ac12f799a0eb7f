//! Going through what a point holds, in the order of keys, as it travels.
//!
//! A scan gathers some records, and notes where the content of a file belongs; then they are told, content block by block. Cells are
//! not looked at: where they lie and how they are cut is a matter of each site.

use super::after_content;
use crate::error::{Error, Kind, Result};
use crate::extent::cache::DataCache;
use crate::group::PastLedger;
use crate::ledger::{Ledger, Mapped};
use holdfast_format::inode::{InodeRecord, VolumeRecord, WritePolicy};
use holdfast_format::key::{self, Key};
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::{BranchId, Ino};
use std::sync::Arc;

/// Records and files that are gathered at once, and their bytes.
const STEPS_MAX: usize = 256;
const STEPS_BYTES_MAX: usize = 1 << 20;
/// Blocks read at once; a file of so many needs no map.
const READ_BLOCKS: u64 = 32;
/// Runs of blocks that are looked up at once.
const RUNS_MAX: usize = 64;
/// Cells that a scan steps over before it begins anew behind them.
const CELLS_MAX: usize = 64;
/// What an entry costs beside its bytes.
const ENTRY_WEIGHT: usize = 64;

/// What lies under a key.
#[derive(Clone, Copy)]
pub(super) enum Entry<'a> {
    Record(&'a [u8]),
    /// 4096 bytes, not all zeroes.
    Block(&'a [u8]),
    /// Some block that no copy can tell.
    Unreadable,
}

pub(super) trait Sink {
    fn entry(&mut self, key: &[u8], entry: Entry<'_>);
    /// Work that was done.
    fn weigh(&mut self, bytes: usize);
    /// Enough for one call.
    fn is_full(&self) -> bool;
}

/// Content of a file: blocks `[first, end)`.
#[derive(Clone)]
struct Content {
    branch: BranchId,
    ino: Ino,
    levels: u16,
    size: u64,
    first: u64,
    end: u64,
}

enum Step {
    Record { key: Key, value: Vec<u8> },
    Content(Content),
}

pub(super) struct Walk<'a> {
    then: &'a PastLedger,
    no_cache: &'a Arc<DataCache>,
    next: Key,
    until: &'a [u8],
}

impl<'a> Walk<'a> {
    pub fn new(then: &'a PastLedger, no_cache: &'a Arc<DataCache>, from: &[u8], until: &'a [u8]) -> Self {
        Self { then, no_cache, next: from.to_vec(), until }
    }

    /// Tells everything up to the end, or until the sink has enough. Returns the place before which all was told.
    pub fn run(mut self, sink: &mut dyn Sink) -> Result<Key> {
        while &self.next[..] < self.until {
            for step in self.gather()? {
                match step {
                    Step::Record { key, value } => {
                        sink.entry(&key, Entry::Record(&value));
                        sink.weigh(ENTRY_WEIGHT + key.len() + value.len());
                        if sink.is_full() {
                            return Ok(self.bounded([&key[..], &[0]].concat()));
                        }
                    }
                    Step::Content(content) => {
                        if let Some(place) = self.tell(&content, sink)? {
                            return Ok(self.bounded(place));
                        }
                    }
                }
            }
        }
        Ok(self.until.to_vec())
    }

    fn bounded(&self, place: Key) -> Key {
        if &place[..] > self.until { self.until.to_vec() } else { place }
    }

    /// The next records and files; moves on behind them.
    fn gather(&mut self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        let mut pending = self.begun()?;
        let mut from = self.next.clone();
        if let Some(content) = pending.take_if(|content| from >= content_place(content)) {
            from = after_content(content.branch, content.ino);
            steps.push(Step::Content(content));
            if &from[..] >= self.until {
                self.next = self.until.to_vec();
                return Ok(steps);
            }
        }
        let mut next = self.until.to_vec();
        let (mut cells, mut bytes) = (0, 0);
        self.then.scan(&from, self.until, &mut |key, value| {
            let Some(parts) = key::parts(key) else { return true };
            let in_content = parts.kind == key::KIND_DATA;
            cells = if in_content { cells + 1 } else { 0 };
            if let Some(content) = pending.take_if(|content| key >= &content_place(content)[..]) {
                let is_long = content.end - content.first > READ_BLOCKS;
                steps.push(Step::Content(content));
                cells = if is_long { CELLS_MAX } else { cells };
            }
            if in_content {
                next = after_content(parts.branch, parts.ino);
                return cells < CELLS_MAX;
            }
            if steps.len() >= STEPS_MAX || bytes >= STEPS_BYTES_MAX {
                next = key.to_vec();
                // Of the inode that this key is of: begun again there.
                pending = None;
                return false;
            }
            next = self.until.to_vec();
            let value = normal(parts.kind, value);
            if parts.kind == key::KIND_INODE {
                pending = content_of(parts.branch, parts.ino, &value.1, 0);
            }
            bytes += key.len() + value.0.len();
            steps.push(Step::Record { key: key.to_vec(), value: value.0 });
            true
        })?;
        // The last one's cells were not come by.
        steps.extend(pending.and_then(|content| self.within(content)).map(Step::Content));
        self.next = next;
        Ok(steps)
    }

    /// Content of the inode that the walk begins in the middle of.
    fn begun(&self) -> Result<Option<Content>> {
        let Some(parts) = key::parts(&self.next).filter(|parts| parts.ino != Ino(0)) else { return Ok(None) };
        let (branch, ino) = (parts.branch, parts.ino);
        let inode = key::inode(branch, ino);
        if self.next <= inode || self.next >= after_content(branch, ino) {
            return Ok(None);
        }
        let Some(bytes) = self.then.get(&inode)? else { return Ok(None) };
        let first = key::data_place(&self.next).map_or(0, |(block, _)| u64::from(block));
        Ok(content_of(branch, ino, &InodeRecord::decode(&bytes).ok(), first).and_then(|content| self.within(content)))
    }

    /// What of it lies before the end; nothing is `None`.
    fn within(&self, content: Content) -> Option<Content> {
        let end = match key::parts(self.until).filter(|parts| (parts.branch, parts.ino) == (content.branch, content.ino)) {
            Some(parts) if parts.kind < key::KIND_DATA => 0,
            Some(parts) if parts.kind == key::KIND_DATA => key::data_place(self.until).map_or(0, |(block, _)| u64::from(block)),
            _ => content.end,
        };
        let end = content.end.min(end);
        (content.first < end).then_some(Content { end, ..content })
    }

    /// Tells blocks; `Some`: the sink has enough, and this is the place behind the last one.
    fn tell(&self, content: &Content, sink: &mut dyn Sink) -> Result<Option<Key>> {
        let Some(content) = self.within(content.clone()) else { return Ok(None) };
        let Content { branch, ino, levels, first, end, .. } = content;
        let mut at = first;
        while at < end {
            let mut runs = Vec::new();
            if end - at <= READ_BLOCKS {
                runs.push((at, end - at, Mapped::Data));
            } else {
                self.then.map(branch, ino, levels, (at, end), &mut |first, count, mapped| {
                    runs.push((first, count, mapped));
                    runs.len() < RUNS_MAX
                })?;
            }
            for (first, count, mapped) in runs {
                let run_end = first + count;
                at = if mapped == Mapped::Hole { run_end } else { first };
                sink.weigh(ENTRY_WEIGHT);
                while at < run_end && !sink.is_full() {
                    let count = (run_end - at).min(READ_BLOCKS);
                    self.tell_blocks(&content, (at, count), sink)?;
                    at += count;
                }
                if sink.is_full() {
                    let is_end = at >= end;
                    return Ok(Some(if is_end { after_content(branch, ino) } else { key::data(branch, ino, at as u32, 0) }));
                }
            }
        }
        Ok(None)
    }

    fn tell_blocks(&self, content: &Content, (first, count): (u64, u64), sink: &mut dyn Sink) -> Result<()> {
        let mut bytes = vec![0; count as usize * BLOCK_BYTES];
        let whole = self.read(content, first, &mut bytes)?;
        for (block, bytes) in (first..).zip(bytes.chunks_exact_mut(BLOCK_BYTES)) {
            let key = key::data(content.branch, content.ino, block as u32, 0);
            // A run that cannot be read as one is read block by block.
            let is_readable = whole || self.read(content, block, bytes)?;
            let used = content.size.saturating_sub(block * BLOCK_BYTES as u64).min(BLOCK_BYTES as u64) as usize;
            bytes[used..].fill(0);
            if !is_readable {
                sink.entry(&key, Entry::Unreadable);
            } else if !is_zero(bytes) {
                sink.entry(&key, Entry::Block(bytes));
            }
            sink.weigh(BLOCK_BYTES);
        }
        Ok(())
    }

    /// False: no copy can tell these bytes.
    fn read(&self, content: &Content, first: u64, into: &mut [u8]) -> Result<bool> {
        let Content { branch, ino, levels, .. } = *content;
        match self.then.read_stored(self.no_cache, (branch, ino, levels), first as u32, into) {
            Ok(()) => Ok(true),
            Err(Error { kind: Kind::Corrupt | Kind::Unavailable, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn content_place(content: &Content) -> Key {
    key::kind_range(content.branch, content.ino, key::KIND_DATA).0
}

/// Content of a file from a block on, if it has any.
fn content_of(branch: BranchId, ino: Ino, inode: &Option<InodeRecord>, first: u64) -> Option<Content> {
    let inode = inode.as_ref()?;
    let end = inode.size.div_ceil(BLOCK_BYTES as u64);
    let has_content = inode.mode >> 12 == 8 && inode.levels != 0 && first < end;
    has_content.then_some(Content { branch, ino, levels: inode.levels, size: inode.size, first, end })
}

/// A record as it travels; of an inode also as it is here.
fn normal(kind: u8, value: &[u8]) -> (Vec<u8>, Option<InodeRecord>) {
    match kind {
        key::KIND_INODE => match InodeRecord::decode(value) {
            Ok(inode) => (InodeRecord { levels: 0, ..inode.clone() }.encode(), Some(inode)),
            // Whatever it is, it differs.
            Err(_) => (value.to_vec(), None),
        },
        key::KIND_VOLUME => match VolumeRecord::decode(value) {
            Ok(volume) => {
                let name = if volume.name.is_empty() { String::new() } else { "-".to_owned() };
                let policy = WritePolicy::default();
                (VolumeRecord { name, policy, rf: 1, ack: 0, ..volume }.encode(), None)
            }
            Err(_) => (value.to_vec(), None),
        },
        _ => (value.to_vec(), None),
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
