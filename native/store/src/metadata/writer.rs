//! Builds tables: one in memory, written when it is full.

use super::cells;
use super::io::TableIo;
use crate::error::Result;
use holdfast_format::block::{BlockBuilder, ENTRY_OVERHEAD_MAX, Entry};
use holdfast_format::cell;
use holdfast_format::checksum::checksum;
use holdfast_format::index::{self, INDEX_ENTRY_BYTES, IndexBuilder, TABLE_HEADER_BYTES};
use holdfast_format::key::Key;
use holdfast_format::limits::{BLOCK_BYTES, KEY_BYTES_MAX};
use holdfast_format::table::{TableDesc, TreeKind};
use holdfast_format::{GroupId, Lsn, TableId};

/// Whose table it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableName {
    pub owner: GroupId,
    pub tree: TreeKind,
    pub level: u8,
}

/// Of no records.
const NO_TIMES: (Lsn, Lsn) = (Lsn(u64::MAX), Lsn(0));

pub(crate) struct TableWriter {
    name: TableName,
    slot_bytes: usize,
    bytes: Vec<u8>,
    block: BlockBuilder,
    /// Lowest LSN of a birth in it, and the highest of a birth or a death.
    block_times: (Lsn, Lsn),
    index: IndexBuilder,
    records: u32,
    tombstones: u32,
    stamps: (Lsn, Lsn),
    deaths: (Lsn, Lsn),
    payload_bytes: u64,
    first: Key,
    cover_until: Key,
}

impl TableWriter {
    pub(crate) fn new(name: TableName, slot_bytes: usize) -> Self {
        Self {
            name,
            slot_bytes,
            bytes: vec![0; TABLE_HEADER_BYTES],
            block: BlockBuilder::new(name.tree == TreeKind::Then),
            block_times: NO_TIMES,
            index: IndexBuilder::default(),
            records: 0,
            tombstones: 0,
            stamps: (Lsn(u64::MAX), Lsn(0)),
            deaths: (Lsn(u64::MAX), Lsn(0)),
            payload_bytes: 0,
            first: Key::new(),
            cover_until: Key::new(),
        }
    }

    /// Whether `bytes` of keys and values in `records` records surely fit.
    pub(crate) fn fits(&self, bytes: usize, records: usize) -> bool {
        let unit = bytes + records * ENTRY_OVERHEAD_MAX;
        let blocks = 3 + unit / (BLOCK_BYTES / 2);
        let index = blocks * (INDEX_ENTRY_BYTES + KEY_BYTES_MAX) + records * 2 + 64;
        self.bytes.len() + self.block.len() + self.index.len() + unit + index <= self.slot_bytes
    }

    pub(crate) fn first(&self) -> &[u8] {
        &self.first
    }

    pub(crate) fn push(&mut self, entry: Entry<'_>) {
        if self.block.is_full(entry.key.len(), entry.value.map_or(0, <[u8]>::len)) {
            self.close_block();
        }
        if self.records == 0 {
            self.first = entry.key.to_vec();
        }
        self.index.member(index::filter_hash(self.name.tree, entry.key));
        self.records += 1;
        let lsn = entry.stamp.lsn;
        self.stamps = (self.stamps.0.min(lsn), self.stamps.1.max(lsn));
        self.block_times = (self.block_times.0.min(lsn), self.block_times.1.max(lsn).max(entry.death));
        self.deaths = (self.deaths.0.min(entry.death), self.deaths.1.max(entry.death));
        let place = super::data_place(self.name.tree, entry.key);
        let hole = place.is_some() && entry.value.is_some_and(|value| value.first() == Some(&cell::TAG_HOLE));
        self.tombstones += (entry.value.is_none() || hole) as u32;
        self.payload_bytes += place.map_or(0, |(_, level)| cells::payload_bytes(level, entry.value));
        if let Some((start, level)) = place.filter(|(_, level)| *level > 0) {
            let until = super::cover_until(entry.key, start, level);
            if until > self.cover_until {
                self.cover_until = until;
            }
        }
        self.block.push(entry);
    }

    fn close_block(&mut self) {
        let offset = self.bytes.len();
        self.block.finish(&mut self.bytes);
        let times = std::mem::replace(&mut self.block_times, NO_TIMES);
        self.index.block(self.block.last_key(), offset as u32, &self.bytes[offset..], times);
    }

    /// Writes the table; at least one record was pushed.
    pub(crate) fn seal(mut self, io: &dyn TableIo) -> Result<TableDesc> {
        self.close_block();
        let last = self.block.last_key().to_vec();
        let after = [&last[..], b"\0"].concat();
        let index = self.index.finish();
        let name = self.name;
        let index_offset = self.bytes.len() as u32;
        let header = index::encode_header(name.owner, name.tree, name.level, index_offset, &index);
        self.bytes[..TABLE_HEADER_BYTES].copy_from_slice(&header);
        self.bytes.extend_from_slice(&index);
        debug_assert!(self.bytes.len() <= self.slot_bytes, "{} bytes", self.bytes.len());
        let placed = io.write_table(&self.bytes)?;
        let then = name.tree == TreeKind::Then;
        Ok(TableDesc {
            id: TableId(placed.id.0),
            owner: name.owner,
            tree: name.tree,
            level: name.level,
            bytes: self.bytes.len() as u32,
            index_offset,
            index_bytes: index.len() as u32,
            index_checksum: checksum(&index),
            records: self.records,
            tombstones: self.tombstones,
            stamp_min: self.stamps.0,
            stamp_max: self.stamps.1,
            death_min: if then { self.deaths.0 } else { Lsn(0) },
            death_max: if then { self.deaths.1 } else { Lsn(0) },
            payload_bytes: self.payload_bytes,
            first: self.first,
            cover_until: self.cover_until.max(after),
            last,
            copies: placed.copies,
        })
    }
}
