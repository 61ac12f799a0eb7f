//! What readers of now look at: memtables newest first, then the tables. Newer layers hold only higher LSNs, so the first
//! layer that answers for a key is right.

use crate::error::Result;
use crate::metadata::io::{PageName, Version};
use crate::metadata::memtable::Memtable;
use crate::metadata::tree::{Levels, LevelsIter};
use crate::oplog::place::Places;
use holdfast_format::{Lsn, Stamp};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Keys fetched from a memtable under one lock.
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

/// Everything a read needs, of one moment.
#[derive(Clone)]
pub struct View {
    /// Newest first; the first takes writes.
    pub generations: Vec<Arc<Generation>>,
    pub levels: Arc<Levels>,
}

/// A version as a scan shows it; the generation is that of its places, `None` when it comes from a table.
pub struct Seen<'a> {
    pub key: &'a [u8],
    pub stamp: Stamp,
    pub value: Option<&'a [u8]>,
    pub generation: Option<&'a Arc<Generation>>,
}

/// Reads a memtable in chunks, without holding its lock in between.
struct MemtableCursor {
    generation: Arc<Generation>,
    chunk: VecDeque<Version>,
    next: Vec<u8>,
    until: Vec<u8>,
    done: bool,
}

impl MemtableCursor {
    fn new(generation: &Arc<Generation>, from: &[u8], until: &[u8]) -> Self {
        let mut cursor = Self {
            generation: generation.clone(),
            chunk: VecDeque::new(),
            next: from.to_vec(),
            until: until.to_vec(),
            done: false,
        };
        cursor.fill();
        cursor
    }

    fn fill(&mut self) {
        if self.done || !self.chunk.is_empty() {
            return;
        }
        self.chunk = self.generation.memtable.chunk(&self.next, &self.until, CHUNK_KEYS).into();
        match self.chunk.back() {
            Some(last) => {
                self.next.clear();
                self.next.extend_from_slice(&last.key);
                self.next.push(0);
            }
            None => self.done = true,
        }
    }

    fn peek(&self) -> Option<&Version> {
        self.chunk.front()
    }

    /// Leaves all versions of the front key behind.
    fn pass(&mut self, key: &[u8]) {
        while self.chunk.front().is_some_and(|version| version.key == key) {
            self.chunk.pop_front();
        }
        self.fill();
    }
}

impl View {
    /// Newest version of a record, `None` when it does not exist.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        for generation in &self.generations {
            if let Some((_, value)) = generation.memtable.get(key) {
                return Ok(value);
            }
        }
        Ok(self.levels.get(key)?.and_then(|(_, value)| value))
    }

    /// Newest version of every key in `[from, until)`, deletions included, in order, until `visit` returns false. For a
    /// DATA key with pieces this is the newest piece only.
    pub fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&Seen<'_>) -> Result<bool>,
    ) -> Result<()> {
        let mut cursors: Vec<MemtableCursor> = self
            .generations
            .iter()
            .filter(|generation| generation.memtable.records() > 0)
            .map(|generation| MemtableCursor::new(generation, from, until))
            .collect();
        let mut tables = self.levels.iter(from, until)?;
        if cursors.iter().all(|cursor| cursor.peek().is_none()) {
            return scan_tables(&mut tables, visit);
        }
        let mut in_tables = tables.advance()?;
        let mut key = Vec::new();
        loop {
            let newest = cursors.iter().filter_map(|cursor| cursor.peek()).map(|version| &version.key).min();
            let table_key = in_tables.then(|| tables.key());
            key.clear();
            match (newest, table_key) {
                (None, None) => return Ok(()),
                (Some(memory), None) => key.extend_from_slice(memory),
                (None, Some(table)) => key.extend_from_slice(table),
                (Some(memory), Some(table)) => key.extend_from_slice(memory.as_slice().min(table)),
            }
            let holder = cursors.iter().find(|cursor| cursor.peek().is_some_and(|version| version.key == key));
            let more = match holder.and_then(|cursor| cursor.peek().map(|version| (version, &cursor.generation))) {
                Some((version, generation)) => visit(&Seen {
                    key: &key,
                    stamp: version.stamp,
                    value: version.value.as_deref(),
                    generation: Some(generation),
                })?,
                None => {
                    visit(&Seen { key: &key, stamp: tables.stamp(), value: tables.value(), generation: None })?
                }
            };
            if !more {
                return Ok(());
            }
            cursors.iter_mut().for_each(|cursor| cursor.pass(&key));
            if in_tables && tables.key() == key {
                in_tables = tables.advance()?;
            }
        }
    }
}

/// A scan of what no memtable has anything of.
fn scan_tables(tables: &mut LevelsIter, visit: &mut dyn FnMut(&Seen<'_>) -> Result<bool>) -> Result<()> {
    while tables.advance()? {
        let seen = Seen { key: tables.key(), stamp: tables.stamp(), value: tables.value(), generation: None };
        if !visit(&seen)? {
            break;
        }
    }
    Ok(())
}
