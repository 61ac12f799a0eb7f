//! Tables as readers see them: an index and blocks, each verified against what names it, through the cache.

use super::cache::{BlockCache, Cached};
use super::io::TableIo;
use super::memtable::Stamped;
use crate::error::{Error, Result};
use holdfast_format::block::{self, BlockCursor};
use holdfast_format::checksum::checksum;
use holdfast_format::index::{self, BlockPlace, Index};
use holdfast_format::key::Key;
use holdfast_format::table::TableDesc;
use holdfast_format::{DecodeError, Lsn, Stamp};
use std::sync::Arc;

/// Bytes that a merge reads at once.
const BULK_BYTES: u32 = 128 << 10;

/// An open table. Its slot is not reused while a handle lives.
pub struct Table {
    pub(crate) desc: TableDesc,
    io: Arc<dyn TableIo>,
    cache: Arc<BlockCache>,
}

fn zeroed(bytes: usize) -> Arc<[u8]> {
    std::iter::repeat_n(0, bytes).collect()
}

impl Table {
    pub(crate) fn new(desc: TableDesc, io: Arc<dyn TableIo>, cache: Arc<BlockCache>) -> Self {
        Self { desc, io, cache }
    }

    fn corrupt(&self, what: &str, error: DecodeError) -> Error {
        Error::decode(&format!("table {}, {what}", self.desc.id), error)
    }

    pub(crate) fn index(&self) -> Result<Arc<Index>> {
        let name = (self.desc.id, self.desc.index_offset);
        if let Some(Cached::Index(index)) = self.cache.get(name) {
            return Ok(index);
        }
        let mut bytes = vec![0; self.desc.index_bytes as usize];
        let verify = |bytes: &[u8]| checksum(bytes) == self.desc.index_checksum;
        Error::unless_hurried()?;
        self.io.read_table(&self.desc, self.desc.index_offset, &mut bytes, &verify)?;
        if !verify(&bytes) {
            return Err(self.corrupt("index", DecodeError::Checksum));
        }
        let index = Arc::new(Index::decode(bytes).map_err(|error| self.corrupt("index", error))?);
        self.cache.put(name, Cached::Index(index.clone()));
        Ok(index)
    }

    fn read(&self, offset: u32, bytes: usize, verify: &dyn Fn(&[u8]) -> bool) -> Result<Arc<[u8]>> {
        if offset as usize + bytes > self.desc.index_offset as usize {
            return Err(self.corrupt("index", DecodeError::Invalid("place of a block")));
        }
        let mut buffer = zeroed(bytes);
        let into = Arc::get_mut(&mut buffer)
            .ok_or_else(|| Error::new(crate::error::Kind::Internal, "shared buffer"))?;
        Error::unless_hurried()?;
        self.io.read_table(&self.desc, offset, into, verify)?;
        if !verify(into) {
            return Err(self.corrupt(&format!("block at {offset}"), DecodeError::Checksum));
        }
        Ok(buffer)
    }

    fn block(&self, place: BlockPlace) -> Result<Arc<[u8]>> {
        let name = (self.desc.id, place.offset);
        if let Some(Cached::Block(block)) = self.cache.get(name) {
            return Ok(block);
        }
        let verify = |bytes: &[u8]| checksum(bytes) == place.checksum;
        let block = self.read(place.offset, place.length as usize, &verify)?;
        self.cache.put(name, Cached::Block(block.clone()));
        Ok(block)
    }

    /// Newest version of a key, and how many keys were stepped over.
    pub(crate) fn get(&self, key: &[u8]) -> Result<(Option<Stamped>, u32)> {
        let index = self.index()?;
        if !index.may_hold(index::filter_hash(self.desc.tree, key)) {
            return Ok((None, 0));
        }
        let at = index.seek(key);
        if at == index.blocks() {
            return Ok((None, 0));
        }
        let bytes = self.block(index.place(at))?;
        let (found, stepped) = block::find(&bytes, key).map_err(|error| self.corrupt("block", error))?;
        Ok((found.map(|found| (found.stamp, found.value.map(<[u8]>::to_vec))), stepped))
    }

    /// Whether `first <= key <= last`.
    pub(crate) fn spans(&self, key: &[u8]) -> bool {
        &self.desc.first[..] <= key && key <= &self.desc.last[..]
    }

    /// Whether the records of both say something about the same keys.
    pub(crate) fn overlaps(&self, other: &TableDesc) -> bool {
        self.desc.first < other.cover_until && other.first < self.desc.cover_until
    }
}

/// How a cursor reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// Block by block through the cache.
    Cached,
    /// Large pieces past the cache: everything is read once.
    Bulk,
}

/// A walk over tables that follow each other. Before the first [`RunCursor::advance`] it stands nowhere.
pub(crate) struct RunCursor {
    tables: Vec<Arc<Table>>,
    access: Access,
    from: Key,
    until: Option<Key>,
    /// Blocks in which nothing was born or died after the first, up to the second, are passed over.
    span: Option<(Lsn, Lsn)>,
    /// The table that the cursor is in; beyond the last: done.
    table: usize,
    index: Option<Arc<Index>>,
    next_block: usize,
    buffer: Arc<[u8]>,
    /// Blocks of the buffer that lie ahead: first block and one past the last.
    ahead: (usize, usize),
    buffer_offset: u32,
    /// The current block, within the buffer.
    block: std::ops::Range<usize>,
    cursor: BlockCursor,
    stepped: u64,
}

impl RunCursor {
    /// `tables` are in key order and do not overlap.
    pub(crate) fn new(tables: Vec<Arc<Table>>, access: Access, from: &[u8], until: Option<&[u8]>) -> Self {
        let table = tables.partition_point(|table| &table.desc.last[..] < from);
        Self {
            tables,
            access,
            from: from.to_vec(),
            until: until.map(<[u8]>::to_vec),
            span: None,
            table,
            index: None,
            next_block: 0,
            buffer: Arc::new([]),
            ahead: (0, 0),
            buffer_offset: 0,
            block: 0..0,
            cursor: BlockCursor::default(),
            stepped: 0,
        }
    }

    /// Records that were born or died after an LSN, up to another one; and some others.
    pub(crate) fn within(self, after: Lsn, until: Lsn) -> Self {
        Self { span: Some((after, until)), ..self }
    }

    pub(crate) fn key(&self) -> &[u8] {
        self.cursor.key()
    }
    pub(crate) fn stamp(&self) -> Stamp {
        self.cursor.stamp()
    }
    pub(crate) fn death(&self) -> Lsn {
        self.cursor.death()
    }
    pub(crate) fn value(&self) -> Option<&[u8]> {
        self.cursor.value(&self.buffer[self.block.clone()])
    }
    /// Keys stepped over since the cursor was made.
    pub(crate) fn stepped(&self) -> u64 {
        self.stepped
    }

    /// Steps to the next record of the range; false at the end.
    pub(crate) fn advance(&mut self) -> Result<bool> {
        loop {
            if !self.block.is_empty() {
                let block = &self.buffer[self.block.clone()];
                let more = self.cursor.advance(block);
                if more.map_err(|error| self.tables[self.table].corrupt("block", error))? {
                    self.stepped += 1;
                    if !self.from.is_empty() {
                        if self.cursor.key() < &self.from[..] {
                            continue;
                        }
                        self.from.clear();
                    }
                    if self.until.as_ref().is_some_and(|until| self.cursor.key() >= &until[..]) {
                        self.table = self.tables.len();
                        self.block = 0..0;
                        return Ok(false);
                    }
                    return Ok(true);
                }
                self.block = 0..0;
            }
            if !self.next_block()? {
                return Ok(false);
            }
        }
    }

    /// Enters the next block of the run; false at the end.
    fn next_block(&mut self) -> Result<bool> {
        loop {
            let Some(table) = self.tables.get(self.table).cloned() else { return Ok(false) };
            if self.until.as_ref().is_some_and(|until| table.desc.first >= *until) {
                self.table = self.tables.len();
                return Ok(false);
            }
            let index = match &self.index {
                Some(index) => index.clone(),
                None => {
                    let index = table.index()?;
                    self.next_block = if self.from.is_empty() { 0 } else { index.seek(&self.from) };
                    self.ahead = (0, 0);
                    self.index.insert(index).clone()
                }
            };
            let is_meant = |block: usize| match (self.span, index.times(block)) {
                (Some((after, until)), Some((oldest, newest))) => newest > after && oldest <= until,
                _ => true,
            };
            while self.next_block < index.blocks() && !is_meant(self.next_block) {
                if self.until.as_ref().is_some_and(|until| index.last_key(self.next_block) >= &until[..]) {
                    self.table = self.tables.len();
                    return Ok(false);
                }
                self.next_block += 1;
            }
            if self.next_block >= index.blocks() {
                self.index = None;
                self.table += 1;
                continue;
            }
            self.enter(&table, &index)?;
            return Ok(true);
        }
    }

    fn enter(&mut self, table: &Table, index: &Index) -> Result<()> {
        let at = self.next_block;
        let place = index.place(at);
        match self.access {
            Access::Cached => {
                self.buffer = table.block(place)?;
                self.buffer_offset = place.offset;
            }
            Access::Bulk if at < self.ahead.0 || at >= self.ahead.1 => self.read_bulk(table, index)?,
            Access::Bulk => {}
        }
        let start = (place.offset - self.buffer_offset) as usize;
        self.block = start..start + place.length as usize;
        self.next_block = at + 1;
        let block = &self.buffer[self.block.clone()];
        self.cursor.reset(block).map_err(|error| table.corrupt("block", error))
    }

    fn read_bulk(&mut self, table: &Table, index: &Index) -> Result<()> {
        let first = index.place(self.next_block);
        let mut places = vec![first];
        let mut end = first.offset + first.length;
        while let Some(at) = Some(self.next_block + places.len()).filter(|at| *at < index.blocks()) {
            let place = index.place(at);
            if place.offset != end || end + place.length - first.offset > BULK_BYTES {
                break;
            }
            end += place.length;
            places.push(place);
        }
        let verify = |bytes: &[u8]| {
            places.iter().all(|place| {
                let start = (place.offset - first.offset) as usize;
                checksum(&bytes[start..start + place.length as usize]) == place.checksum
            })
        };
        self.buffer = table.read(first.offset, (end - first.offset) as usize, &verify)?;
        self.buffer_offset = first.offset;
        self.ahead = (self.next_block, self.next_block + places.len());
        Ok(())
    }
}

/// Several runs as one, by key, then newest first.
pub(crate) struct Merge {
    cursors: Vec<RunCursor>,
    /// Cursors that stand on a record, in the order of their records. The first is where the merge stands.
    order: Vec<usize>,
}

impl Merge {
    pub(crate) fn new(cursors: Vec<RunCursor>) -> Result<Self> {
        let mut merge = Self { cursors, order: Vec::new() };
        for at in 0..merge.cursors.len() {
            if merge.cursors[at].advance()? {
                merge.order.push(at);
                merge.settle(merge.order.len() - 1, true);
            }
        }
        Ok(merge)
    }

    fn precedes(&self, left: usize, right: usize) -> bool {
        let (left, right) = (&self.cursors[left], &self.cursors[right]);
        left.key().cmp(right.key()).then_with(|| right.stamp().cmp(&left.stamp())).is_lt()
    }

    /// Moves one cursor of `order` to where it belongs: towards the front, or towards the end.
    fn settle(&mut self, mut at: usize, forward: bool) {
        if forward {
            while at > 0 && self.precedes(self.order[at], self.order[at - 1]) {
                self.order.swap(at, at - 1);
                at -= 1;
            }
        } else {
            while at + 1 < self.order.len() && self.precedes(self.order[at + 1], self.order[at]) {
                self.order.swap(at, at + 1);
                at += 1;
            }
        }
    }

    /// Where the merge stands; `None` at the end.
    pub(crate) fn head(&self) -> Option<&RunCursor> {
        self.order.first().map(|at| &self.cursors[*at])
    }

    /// Steps past the head.
    pub(crate) fn advance(&mut self) -> Result<()> {
        self.advance_at(0)
    }

    fn advance_at(&mut self, at: usize) -> Result<()> {
        if self.cursors[self.order[at]].advance()? {
            self.settle(at, false);
        } else {
            self.order.remove(at);
        }
        Ok(())
    }

    /// Steps past every version of the head's key, if no run holds two of a key.
    pub(crate) fn advance_key(&mut self) -> Result<()> {
        while self.order.len() > 1 && self.cursors[self.order[1]].key() == self.cursors[self.order[0]].key() {
            self.advance_at(1)?;
        }
        self.advance_at(0)
    }

    pub(crate) fn stepped(&self) -> u64 {
        self.cursors.iter().map(RunCursor::stepped).sum()
    }
}
