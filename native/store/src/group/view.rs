//! What readers look at: memtables newest first, then the tables, then what the group is a clone of. Newer layers hold only
//! higher LSNs, so the first layer that answers for a key is right; for a view of the past, the first that answers with a
//! version of its time.

use super::Group;
use crate::error::Result;
use crate::metadata::io::{PageName, Version};
use crate::metadata::memtable::{Memtable, Stamped};
use crate::metadata::tree::{Floor, Levels, LevelsIter};
use crate::oplog::place::Places;
use holdfast_format::{BranchId, GROUP_BRANCH, Lsn, key};
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
        if let Some((_, value)) = self.get_own(key)? {
            return Ok(value);
        }
        let mut base = self.base.clone().filter(|_| is_inherited(key));
        while let Some(next) = base {
            let view = next.view();
            if let Some((_, value)) = view.get_own(key)? {
                return Ok(value);
            }
            base = view.base;
        }
        Ok(None)
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
        let ancestors: Vec<View> = std::iter::successors(self.ancestor(), View::ancestor).collect();
        let first = key::volume(FIRST_BRANCH);
        let inherited_from = if is_inherited(from) { from } else { &first };
        let views = [(self, from, true)].into_iter();
        let mut layers = Vec::new();
        for (view, from, is_own) in views.chain(ancestors.iter().map(|view| (view, inherited_from, false))) {
            let layer = ScanLayer::new(view, from, until, is_own)?;
            layers.extend(layer.key().is_some().then_some(layer));
        }
        if let [only] = &mut layers[..]
            && only.memory.is_empty()
        {
            return only.scan_tables(visit);
        }
        let mut key = Vec::new();
        loop {
            let Some(least) = layers.iter().filter_map(ScanLayer::key).min() else { return Ok(()) };
            key.clear();
            key.extend_from_slice(least);
            if let Some(seen) = layers.iter().find_map(|layer| layer.seen(&key))
                && !visit(&seen)?
            {
                return Ok(());
            }
            for layer in &mut layers {
                layer.pass(&key)?;
            }
        }
    }

    /// What the group is a clone of.
    fn ancestor(&self) -> Option<View> {
        self.base.as_ref().map(|base| base.view())
    }
}

type Fetch<'a> = Box<dyn FnMut(&[u8]) -> Result<Vec<Version>> + 'a>;

/// A group's own part of a scan: memtables newest first, then tables.
struct ScanLayer<'a> {
    memory: Vec<(&'a Arc<Generation>, ChunkCursor<Fetch<'a>>)>,
    tables: LevelsIter,
    in_tables: bool,
    at: Lsn,
    /// The group whose view is scanned, not what it is a clone of: what that has lies on the drives.
    is_own: bool,
}

impl<'a> ScanLayer<'a> {
    fn new(view: &'a View, from: &[u8], until: &'a [u8], is_own: bool) -> Result<Self> {
        let mut memory = Vec::new();
        for generation in view.generations.iter().filter(|generation| generation.memtable.records() > 0) {
            let fetch: Fetch<'a> = Box::new(|next: &[u8]| Ok(generation.memtable.chunk(next, until, CHUNK_KEYS)));
            let cursor = ChunkCursor::new(fetch, from)?;
            if cursor.key().is_some() {
                memory.push((generation, cursor));
            }
        }
        let levels = &view.levels;
        let mut tables =
            if view.at == NOW { levels.iter(from, until)? } else { levels.iter_at(from, until, view.at)? };
        let in_tables = tables.advance()?;
        Ok(Self { memory, tables, in_tables, at: view.at, is_own })
    }

    /// A scan of what no memtable has anything of, and no other group.
    fn scan_tables(&mut self, visit: &mut dyn FnMut(&Seen<'_>) -> Result<bool>) -> Result<()> {
        while self.in_tables {
            let seen = Seen { key: self.tables.key(), value: self.tables.value(), generation: None };
            self.in_tables = visit(&seen)? && self.tables.advance()?;
        }
        Ok(())
    }

    fn key(&self) -> Option<&[u8]> {
        let heads = self.memory.iter().filter_map(|(_, cursor)| cursor.key());
        heads.chain(self.in_tables.then(|| self.tables.key())).min()
    }

    /// The newest version of `key`, if the layer has one.
    fn seen<'b>(&'b self, key: &'b [u8]) -> Option<Seen<'b>> {
        let found = self.memory.iter().find_map(|(generation, cursor)| Some((*generation, cursor.seen(key, self.at)?)));
        if let Some((generation, version)) = found {
            let generation = self.is_own.then_some(generation);
            return Some(Seen { key, value: version.value.as_deref(), generation });
        }
        let in_tables = self.in_tables && self.tables.key() == key;
        in_tables.then(|| Seen { key, value: self.tables.value(), generation: None })
    }

    /// Leaves all versions of the key behind.
    fn pass(&mut self, key: &[u8]) -> Result<()> {
        for (_, cursor) in &mut self.memory {
            cursor.pass(key)?;
        }
        if self.in_tables && self.tables.key() == key {
            self.in_tables = self.tables.advance()?;
        }
        Ok(())
    }
}
