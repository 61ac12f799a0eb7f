//! Which records differ between two kept points, without reading what does not: only tables with stamps or deaths of that time
//! are walked.
//!
//! A version that was born between the points is in a memtable, in NOW, or in THEN. A deletion may be nowhere any more, but then
//! what it ended is in THEN, with a death between the points: a death that is recorded too late has no point before it, so it
//! does not lie beyond the later one.

use super::Group;
use super::view::{Generation, View};
use crate::error::{Error, Kind, Result};
use crate::metadata::tree::{ChangedKeys, Span};
use holdfast_format::{Lsn, key};
use std::sync::Arc;

/// Keys of a memtable that are looked at under one lock: a part of a batch, which begins a new walk, wants some sixty.
const CHUNK: usize = 512;

/// A walk over the keys that changed, in order.
struct Changes {
    span: Span,
    memtables: Vec<MemtableKeys>,
    tables: ChangedKeys,
}

struct MemtableKeys {
    generation: Arc<Generation>,
    until: Vec<u8>,
    /// Keys that changed, last first.
    keys: Vec<Vec<u8>>,
    next: Option<Vec<u8>>,
}

impl MemtableKeys {
    fn fill(&mut self, span: Span) {
        while self.keys.is_empty() {
            let Some(from) = self.next.take() else { return };
            let memtable = &self.generation.memtable;
            let (first, last) = memtable.stamp_range();
            if last <= span.from || first > span.to {
                return;
            }
            (self.keys, self.next) = memtable.keys_where(&from, &self.until, CHUNK, |lsn| span.has(lsn));
            self.keys.reverse();
        }
    }

    fn pass(&mut self, key: &[u8], span: Span) {
        if self.keys.last().is_some_and(|next| next == key) {
            self.keys.pop();
        }
        self.fill(span);
    }
}

impl Changes {
    fn new(view: &View, span: Span, (from, until): (&[u8], &[u8])) -> Result<Self> {
        let memtables = view.generations.iter().map(|generation| {
            let mut keys = MemtableKeys {
                generation: generation.clone(),
                until: until.to_vec(),
                keys: Vec::new(),
                next: Some(from.to_vec()),
            };
            keys.fill(span);
            keys
        });
        let tables = view.levels.changed_keys(span, from, until)?;
        Ok(Self { span, memtables: memtables.collect(), tables })
    }

    /// The next key that changed.
    fn next_key(&mut self) -> Result<Option<Vec<u8>>> {
        let in_memory = self.memtables.iter().filter_map(|keys| keys.keys.last()).map(|key| &key[..]);
        let Some(key) = in_memory.chain(self.tables.key()).min().map(<[u8]>::to_vec) else { return Ok(None) };
        self.memtables.iter_mut().for_each(|keys| keys.pass(&key, self.span));
        self.tables.pass(&key)?;
        Ok(Some(key))
    }
}

impl Group {
    /// Calls `visit` with every key in `[from, until)` of whose record two kept points may see different versions, in order,
    /// until it returns false. Own records only: what a clone begins with never changes.
    pub fn changed_keys(
        &self,
        span: Span,
        (from, until): (&[u8], &[u8]),
        visit: &mut dyn FnMut(&[u8]) -> Result<bool>,
    ) -> Result<()> {
        debug_assert!(key::parts(from).is_some());
        let _hold = self.pool.hold();
        let view = self.view_at(span.to);
        if let Some(gone) = [span.from, span.to].into_iter().find(|lsn| *lsn != Lsn(0) && !self.keeps(*lsn)) {
            return Err(Error::new(Kind::NotFound, format!("what was there at LSN {gone} is not kept any more")));
        }
        let mut changes = Changes::new(&view, span, (from, until))?;
        while let Some(key) = changes.next_key()? {
            if !visit(&key)? {
                break;
            }
        }
        Ok(())
    }
}
