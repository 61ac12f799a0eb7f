//! Where a build or a merge puts its records: tables of NOW in key order, tables of THEN by death, and the
//! edit.

use super::io::{PageName, Placed, Points, TableIo, TreeEdit};
use super::writer::{TableName, TableWriter};
use crate::error::Result;
use holdfast_format::block::Entry;
use holdfast_format::key::Key;
use holdfast_format::table::{TableDesc, TreeKind};
use holdfast_format::{GroupId, Lsn, Stamp};

/// THEN tables that are open at once: one per part of the kept points, so that expiry drops whole tables and
/// wastes at most this part of the window.
const THEN_BUCKETS: usize = 8;

/// Where a resolver puts what it has decided.
pub(crate) trait Sink {
    /// The next records of NOW, of this size together, will share a table.
    fn reserve_now(&mut self, bytes: usize, records: usize) -> Result<()>;
    fn put_now(&mut self, entry: Entry<'_>) -> Result<()>;
    fn put_then(&mut self, entry: Entry<'_>) -> Result<()>;
    /// A record names the page that no table named before.
    fn reference(&mut self, page: PageName);
    /// A record that named the page is seen by nobody.
    fn release(&mut self, page: PageName);
}

/// Dropped before [`Output::finish`], it gives its tables back.
pub(crate) struct Output<'a> {
    io: &'a dyn TableIo,
    name: TableName,
    now: Option<TableWriter>,
    /// First keys of tables that stay beside the new ones, descending: no new table may reach over one.
    guards: Vec<Key>,
    then: Vec<Option<TableWriter>>,
    /// Deaths at which the next bucket begins.
    then_bounds: Vec<Lsn>,
    /// What the records of NOW have instead of their stamps.
    stamp: Option<Stamp>,
    pub(crate) edit: TreeEdit,
}

impl<'a> Output<'a> {
    pub(crate) fn new(io: &'a dyn TableIo, name: TableName, mut guards: Vec<Key>, points: &Points) -> Self {
        guards.sort_unstable_by(|left, right| right.cmp(left));
        let lsns = points.lsns();
        let mut bounds: Vec<Lsn> =
            (1..THEN_BUCKETS).filter_map(|n| lsns.get(lsns.len() * n / THEN_BUCKETS).copied()).collect();
        bounds.dedup();
        let then = (0..=bounds.len()).map(|_| None).collect();
        Self { io, name, now: None, guards, then, then_bounds: bounds, stamp: None, edit: TreeEdit::default() }
    }

    /// For merges of THEN, whose inputs are of one age: no buckets.
    pub(crate) fn then_only(io: &'a dyn TableIo, owner: GroupId) -> Self {
        Self::new(io, TableName { owner, tree: TreeKind::Then, level: 0 }, Vec::new(), &Points::default())
    }

    /// Records of NOW all get this stamp.
    pub(crate) fn stamped(mut self, stamp: Stamp) -> Self {
        self.stamp = Some(stamp);
        self
    }

    fn seal_now(&mut self) -> Result<()> {
        if let Some(writer) = self.now.take() {
            self.edit.added.push(writer.seal(self.io)?);
        }
        Ok(())
    }

    fn seal_then(&mut self, bucket: usize) -> Result<()> {
        if let Some(writer) = self.then[bucket].take() {
            self.edit.added.push(writer.seal(self.io)?);
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<TreeEdit> {
        self.seal_now()?;
        for bucket in 0..self.then.len() {
            self.seal_then(bucket)?;
        }
        Ok(std::mem::take(&mut self.edit))
    }
}

impl Sink for Output<'_> {
    fn reserve_now(&mut self, bytes: usize, records: usize) -> Result<()> {
        if self.now.as_ref().is_some_and(|writer| !writer.fits(bytes, records)) {
            self.seal_now()?;
        }
        Ok(())
    }

    fn put_now(&mut self, entry: Entry<'_>) -> Result<()> {
        while self.guards.last().is_some_and(|guard| &guard[..] <= entry.key) {
            self.guards.pop();
            self.seal_now()?;
        }
        self.reserve_now(entry.key.len() + entry.value.map_or(0, <[u8]>::len), 1)?;
        let writer = self.now.get_or_insert_with(|| TableWriter::new(self.name, self.io.slot_bytes()));
        debug_assert!(writer.first() <= entry.key);
        writer.push(Entry { stamp: self.stamp.unwrap_or(entry.stamp), ..entry });
        Ok(())
    }

    fn put_then(&mut self, entry: Entry<'_>) -> Result<()> {
        let bucket = self.then_bounds.partition_point(|bound| *bound < entry.death);
        let bytes = entry.key.len() + entry.value.map_or(0, <[u8]>::len);
        if self.then[bucket].as_ref().is_some_and(|writer| !writer.fits(bytes, 1)) {
            self.seal_then(bucket)?;
        }
        let name = TableName { owner: self.name.owner, tree: TreeKind::Then, level: 0 };
        self.then[bucket].get_or_insert_with(|| TableWriter::new(name, self.io.slot_bytes())).push(entry);
        Ok(())
    }

    fn reference(&mut self, page: PageName) {
        self.edit.referenced.push(page);
    }

    fn release(&mut self, page: PageName) {
        self.edit.released.push(page);
    }
}

/// Gives back tables that will not be published.
pub(crate) fn discard(io: &dyn TableIo, tables: &[TableDesc]) {
    for table in tables {
        io.discard_table(&Placed { id: table.id, copies: table.copies.clone() });
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        discard(self.io, &self.edit.added);
    }
}
