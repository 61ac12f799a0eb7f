//! Tables: sealed pieces of sorted runs, one per slot; and their descriptions, which live in the manifest.
//! What is in a table: `block.rs` (records), `index.rs` (header, index, membership filter).
//!
//! ```text
//! desc = id u48 | owner u32 (group; 0 = the pool) | tree u8 | level u8 | copies u8 | reserved u8
//!      | bytes u32 | index_offset u32 | index_bytes u32 | index_checksum u64
//!      | records u32 | tombstones u32 | stamp_min u64 | stamp_max u64 | death_min u64 | death_max u64
//!      | payload_bytes u64
//!      | first_len u16, first key | last_len u16, last key | cover_len u16, cover_until key
//!      | copies × (drive u16, slot u32)
//! ```

use crate::ids::{GroupId, Lsn, TableId};
use crate::key::Key;
use crate::limits::{COPIES_MAX, KEY_BYTES_MAX, LEVELS_MAX, SLOT_BYTES_MAX};
use crate::wire::{DecodeError, Put, Take};

/// Which tree of its owner a table belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum TreeKind {
    /// Newest versions.
    Now = 1,
    /// Superseded versions, each with birth and death.
    Then = 2,
    /// The pool's own records (egroups, shares).
    Pool = 3,
}

/// Where one copy of a slot's content lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SlotAddress {
    pub drive: u16,
    pub slot: u32,
}

/// Everything that finding, verifying and overlapping a table needs, without reading it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableDesc {
    pub id: TableId,
    pub owner: GroupId,
    pub tree: TreeKind,
    pub level: u8,
    /// Bytes used of the slot.
    pub bytes: u32,
    pub index_offset: u32,
    pub index_bytes: u32,
    pub index_checksum: u64,
    pub records: u32,
    /// Deletions and holes among the records.
    pub tombstones: u32,
    pub stamp_min: Lsn,
    pub stamp_max: Lsn,
    /// THEN only: range of the deaths; else 0.
    pub death_min: Lsn,
    pub death_max: Lsn,
    /// Bytes of stored pages that the records name: 4096 for a page, its length for a block that shares a page.
    pub payload_bytes: u64,
    pub first: Key,
    pub last: Key,
    /// Exclusive end of what the table's records say something about: after `last`, or the end of what a cell
    /// of level 1 or higher covers. Two tables overlap when their `[first, cover_until)` do.
    pub cover_until: Key,
    pub copies: Vec<SlotAddress>,
}

fn put_key(out: &mut Vec<u8>, key: &[u8]) {
    out.put_u16(key.len() as u16);
    out.put_bytes(key);
}

fn take_key(take: &mut Take<'_>) -> Result<Key, DecodeError> {
    let len = take.u16()? as usize;
    if len > KEY_BYTES_MAX + 1 {
        return Err(DecodeError::Invalid("key length"));
    }
    Ok(take.bytes(len)?.to_vec())
}

impl TableDesc {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u48(self.id.0);
        out.put_u32(self.owner.0);
        out.put_u8(self.tree as u8);
        out.put_u8(self.level);
        out.put_u8(self.copies.len() as u8);
        out.put_u8(0);
        out.put_u32(self.bytes);
        out.put_u32(self.index_offset);
        out.put_u32(self.index_bytes);
        out.put_u64(self.index_checksum);
        out.put_u32(self.records);
        out.put_u32(self.tombstones);
        for lsn in [self.stamp_min, self.stamp_max, self.death_min, self.death_max] {
            out.put_u64(lsn.0);
        }
        out.put_u64(self.payload_bytes);
        put_key(out, &self.first);
        put_key(out, &self.last);
        put_key(out, &self.cover_until);
        for copy in &self.copies {
            out.put_u16(copy.drive);
            out.put_u32(copy.slot);
        }
    }

    pub fn take(take: &mut Take<'_>) -> Result<Self, DecodeError> {
        let id = TableId(take.u48()?);
        let owner = GroupId(take.u32()?);
        let tree = match take.u8()? {
            1 => TreeKind::Now,
            2 => TreeKind::Then,
            3 => TreeKind::Pool,
            _ => return Err(DecodeError::Invalid("tree kind")),
        };
        let level = take.u8()?;
        let copies_len = take.u8()? as usize;
        if take.u8()? != 0 || copies_len == 0 || copies_len > COPIES_MAX {
            return Err(DecodeError::Invalid("table copies"));
        }
        let desc = Self {
            id,
            owner,
            tree,
            level,
            bytes: take.u32()?,
            index_offset: take.u32()?,
            index_bytes: take.u32()?,
            index_checksum: take.u64()?,
            records: take.u32()?,
            tombstones: take.u32()?,
            stamp_min: Lsn(take.u64()?),
            stamp_max: Lsn(take.u64()?),
            death_min: Lsn(take.u64()?),
            death_max: Lsn(take.u64()?),
            payload_bytes: take.u64()?,
            first: take_key(take)?,
            last: take_key(take)?,
            cover_until: take_key(take)?,
            copies: (0..copies_len)
                .map(|_| Ok(SlotAddress { drive: take.u16()?, slot: take.u32()? }))
                .collect::<Result<_, DecodeError>>()?,
        };
        desc.check()?;
        Ok(desc)
    }

    /// What readers of the table count on: nothing that it names lies outside its slot, its keys are in order.
    fn check(&self) -> Result<(), DecodeError> {
        let index_end = self.index_offset as u64 + self.index_bytes as u64;
        if self.bytes > SLOT_BYTES_MAX || index_end > self.bytes as u64 {
            return Err(DecodeError::Invalid("table sizes"));
        }
        if self.level as usize >= LEVELS_MAX {
            return Err(DecodeError::Invalid("table level"));
        }
        if self.first > self.last || self.last >= self.cover_until {
            return Err(DecodeError::Invalid("table key order"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desc() -> TableDesc {
        TableDesc {
            id: TableId(0x0102),
            owner: GroupId(7),
            tree: TreeKind::Then,
            level: 3,
            bytes: 0x2000,
            index_offset: 0x1000,
            index_bytes: 0x100,
            index_checksum: 0x1122,
            records: 9,
            tombstones: 4,
            stamp_min: Lsn(1),
            stamp_max: Lsn(2),
            death_min: Lsn(3),
            death_max: Lsn(4),
            payload_bytes: 0x3000,
            first: b"a".to_vec(),
            last: b"bc".to_vec(),
            cover_until: b"bc\0".to_vec(),
            copies: vec![SlotAddress { drive: 1, slot: 2 }, SlotAddress { drive: 3, slot: 4 }],
        }
    }

    /// The worked example of FORMAT.md.
    #[test]
    fn description_is_golden() {
        let mut bytes = Vec::new();
        desc().encode(&mut bytes);
        #[rustfmt::skip]
        let golden: &[u8] = &[
            2, 1, 0, 0, 0, 0, 7, 0, 0, 0, 2, 3, 2, 0,
            0, 0x20, 0, 0, 0, 0x10, 0, 0, 0, 1, 0, 0, 0x22, 0x11, 0, 0, 0, 0, 0, 0,
            9, 0, 0, 0, 4, 0, 0, 0,
            1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0,
            0, 0x30, 0, 0, 0, 0, 0, 0,
            1, 0, b'a', 2, 0, b'b', b'c', 3, 0, b'b', b'c', 0,
            1, 0, 2, 0, 0, 0, 3, 0, 4, 0, 0, 0,
        ];
        assert_eq!(bytes, golden);
        let mut take = Take::new(&bytes);
        assert_eq!(TableDesc::take(&mut take), Ok(desc()));
        assert!(take.is_empty());
    }

    #[test]
    fn damage_is_an_error() {
        let mut bytes = Vec::new();
        desc().encode(&mut bytes);
        for end in 0..bytes.len() {
            assert_eq!(TableDesc::take(&mut Take::new(&bytes[..end])), Err(DecodeError::Truncated), "{end}");
        }
        for (at, bad) in [(10, 9), (12, 0), (12, 4), (13, 1)] {
            let mut damaged = bytes.clone();
            damaged[at] = bad;
            assert!(
                matches!(TableDesc::take(&mut Take::new(&damaged)), Err(DecodeError::Invalid(_))),
                "{at}"
            );
        }
    }
}
