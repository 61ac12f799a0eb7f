//! What readers look at: memtables newest first, then the tables, then what the group is a clone of. Newer layers hold only
//! higher LSNs, so the first layer that answers for a key is right; for a view of the past, the first that answers with a
//! version of its time.

use super::Group;
use crate::error::Result;
use crate::metadata::io::{PageName, Version};
use crate::metadata::memtable::{Memtable, Stamped};
use crate::metadata::tree::{Floor, Levels, LevelsIter};
use crate::oplog::place::Places;
use holdfast_format::{BranchId, GROUP_BRANCH, Lsn, Stamp, key};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Versions fetched from a layer at once.
const CHUNK_KEYS: usize = 64;

/// A memtable with the places of the payload that its LOGGED cells name.
pub struct Generation {
    pub memtable: Memtable,
    pub places: Places,
    /// Pages that ops of this memtable share with other records: pinned from the commit to the drain.
    pub pinned: Mutex<Vec<PageName>>,
    /// Bytes of the ops in it, payload included: what they store is no more.
    pub logged: AtomicU64,
}

impl Generation {
    pub fn new(first: Lsn) -> Self {
        Self { memtable: Memtable::new(), places: Places::new(first), pinned: Mutex::default(), logged: AtomicU64::new(0) }
    }
}

/// Where a clone's group begins: what its parent saw at a kept point, which stays kept as long as the clone is there. LSNs
/// of the two have nothing to do with each other.
pub struct Base {
    pub group: Arc<Group>,
    pub at: Lsn,
}

impl Base {
    pub(crate) fn view(&self) -> View {
        self.group.view_at(self.at)
    }
}

impl Floor for Base {
    fn may_hold(&self, key: &[u8]) -> Result<bool> {
        let inode = key::data_place(key).and_then(|_| key::parts(key)).map(|parts| key::inode(parts.branch, parts.ino));
        let key = inode.as_deref().unwrap_or(key);
        if !is_inherited(key) {
            return Ok(false);
        }
        Ok(self.group.get_at(key, self.at)?.is_some())
    }
}

/// What belongs to a group itself is no part of its clones.
fn is_inherited(key: &[u8]) -> bool {
    key >= &key::volume(FIRST_BRANCH)[..]
}

const FIRST_BRANCH: BranchId = BranchId(GROUP_BRANCH.0 + 1);

/// Everything a read needs, of one moment.
#[derive(Clone)]
pub struct View {
    /// Newest first; the first takes writes.
    pub generations: Vec<Arc<Generation>>,
    pub levels: Arc<Levels>,
    /// The kept point that is looked at, or [`NOW`].
    pub at: Lsn,
    pub base: Option<Arc<Base>>,
}

/// No version is newer.
pub const NOW: Lsn = Lsn(u64::MAX);

/// A version as a scan shows it; the generation is that of its places, `None` when it comes from a table.
pub struct Seen<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
    pub generation: Option<&'a Arc<Generation>>,
}

/// Reads a layer in chunks, without holding its lock in between: versions in key order, those of a key newest first.
struct ChunkCursor<F> {
    fetch: F,
    chunk: VecDeque<Version>,
    next: Vec<u8>,
    done: bool,
}

impl<F: FnMut(&[u8]) -> Result<Vec<Version>>> ChunkCursor<F> {
    /// `fetch(from)` has some of the versions from a key on; none: there are no more.
    fn new(fetch: F, from: &[u8]) -> Result<Self> {
        let mut cursor = Self { fetch, chunk: VecDeque::new(), next: from.to_vec(), done: false };
        cursor.fill()?;
        Ok(cursor)
    }

    fn fill(&mut self) -> Result<()> {
        if self.done || !self.chunk.is_empty() {
            return Ok(());
        }
        self.chunk = (self.fetch)(&self.next)?.into();
        match self.chunk.back() {
            Some(last) => {
                self.next.clear();
                self.next.extend_from_slice(&last.key);
                self.next.push(0);
            }
            None => self.done = true,
        }
        Ok(())
    }

    fn key(&self) -> Option<&[u8]> {
        self.chunk.front().map(|version| &version.key[..])
    }

    /// The newest version of `key` at or below `at`, if this is the front key.
    fn seen(&self, key: &[u8], at: Lsn) -> Option<&Version> {
        self.chunk.iter().take_while(|version| version.key == key).find(|version| version.stamp.lsn <= at)
    }

    /// Leaves all versions of the front key behind.
    fn pass(&mut self, key: &[u8]) -> Result<()> {
        while self.chunk.front().is_some_and(|version| version.key == key) {
            self.chunk.pop_front();
        }
        self.fill()
    }
}

impl View {
    /// The same layers as a kept point saw them.
    pub fn looking_at(mut self, at: Lsn) -> Self {
        self.at = at;
        self
    }

    /// Without what the group is a clone of.
    pub fn own(mut self) -> Self {
        self.base = None;
        self
    }

    /// Newest version of a record, `None` when it does not exist.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match (self.get_own(key)?, &self.base) {
            (Some((_, value)), _) => Ok(value),
            (None, Some(base)) if is_inherited(key) => base.view().get(key),
            (None, _) => Ok(None),
        }
    }

    /// Newest version that is the group's own, deletions included.
    pub fn get_own(&self, key: &[u8]) -> Result<Option<Stamped>> {
        if let Some(found) = self.generations.iter().find_map(|generation| generation.memtable.get_at(key, self.at)) {
            return Ok(Some(found));
        }
        if self.at == NOW { self.levels.get(key) } else { self.levels.get_at(key, self.at) }
    }

    /// [`Self::scan`] without deletions.
    pub fn scan_values(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        self.scan(from, until, &mut |seen| Ok(seen.value.is_none_or(|value| visit(seen.key, value))))
    }

    /// Newest version of every key in `[from, until)`, deletions included, in order, until `visit` returns false. For a
    /// DATA key with pieces this is the newest piece only.
    pub fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&Seen<'_>) -> Result<bool>,
    ) -> Result<()> {
        let mut cursors = Vec::new();
        for generation in self.generations.iter().filter(|generation| generation.memtable.records() > 0) {
            let fetch = |next: &[u8]| Ok(generation.memtable.chunk(next, until, CHUNK_KEYS));
            cursors.push((generation, ChunkCursor::new(fetch, from)?));
        }
        let mut tables =
            if self.at == NOW { self.levels.iter(from, until)? } else { self.levels.iter_at(from, until, self.at)? };
        if self.base.is_none() && cursors.iter().all(|(_, cursor)| cursor.key().is_none()) {
            return scan_tables(&mut tables, visit);
        }
        let below = self.base.as_ref().map(|base| base.view());
        let fetch = |next: &[u8]| match &below {
            Some(below) => inherited(below, next, until),
            None => Ok(Vec::new()),
        };
        let mut base = ChunkCursor::new(fetch, from)?;
        let mut in_tables = tables.advance()?;
        let mut key = Vec::new();
        loop {
            let heads = cursors.iter().filter_map(|(_, cursor)| cursor.key()).chain(base.key());
            let Some(least) = heads.chain(in_tables.then(|| tables.key())).min() else { return Ok(()) };
            key.clear();
            key.extend_from_slice(least);
            let found = cursors.iter().find_map(|(generation, cursor)| Some((*generation, cursor.seen(&key, self.at)?)));
            let seen = if let Some((generation, version)) = found {
                Some(Seen { key: &key, value: version.value.as_deref(), generation: Some(generation) })
            } else if in_tables && tables.key() == key {
                Some(Seen { key: &key, value: tables.value(), generation: None })
            } else {
                let version = base.seen(&key, NOW);
                version.map(|version| Seen { key: &key, value: version.value.as_deref(), generation: None })
            };
            if let Some(seen) = seen
                && !visit(&seen)?
            {
                return Ok(());
            }
            for (_, cursor) in &mut cursors {
                cursor.pass(&key)?;
            }
            base.pass(&key)?;
            if in_tables && tables.key() == key {
                in_tables = tables.advance()?;
            }
        }
    }
}

/// Some of what a clone has of its parent, from a key on.
fn inherited(below: &View, from: &[u8], until: &[u8]) -> Result<Vec<Version>> {
    let first = key::volume(FIRST_BRANCH);
    let from = if is_inherited(from) { from } else { &first };
    let mut versions = Vec::new();
    below.scan(from, until, &mut |seen| {
        if let Some(value) = seen.value {
            versions.push(Version { key: seen.key.to_vec(), stamp: Stamp::default(), value: Some(value.to_vec()) });
        }
        Ok(versions.len() < CHUNK_KEYS)
    })?;
    Ok(versions)
}

/// A scan of what no memtable has anything of.
fn scan_tables(tables: &mut LevelsIter, visit: &mut dyn FnMut(&Seen<'_>) -> Result<bool>) -> Result<()> {
    while tables.advance()? {
        let seen = Seen { key: tables.key(), value: tables.value(), generation: None };
        if !visit(&seen)? {
            break;
        }
    }
    Ok(())
}
