//! A chunk: part of a batch of changes between two sites. Only the data planes look inside.
//!
//! ```text
//! chunk   = header 72 B | body, compressed by zstd if it says so
//! header  = "HFCK" u32 | version u16 = 1 | flags u16 | body_bytes u32 | raw_bytes u32 | branch u32 | reserved u32
//!         | lineage u64 | base u64 | target u64 | sequence u64 | reserved u64 | checksum u64 over everything before and the body
//! flags   = bit 0: zstd | bit 1: the last of its batch | bit 2: it mends
//! raw     = entries of one branch, in the order of keys
//! entry   = tag u8 | rest
//! 1 PUT     key_len u16 | value_len u32 | key | value      the newest version at `target`; never a DATA key
//! 2 DELETE  key_len u16 | key                              there is none
//! 3 BLOCKS  inode u64 | start_block u32 | count u16 | 4096 B × count
//! 4 HOLE    inode u64 | start_block u32 | count u64        nothing is mapped there
//! ```
//! A batch (base, target] is chunks 0, 1, 2 … of it; applied all of them, over any state of the same lineage at or after `base`,
//! they make the state at `target`. Each key of a batch comes once. A chunk that mends tells again what has not changed: inodes may come
//! that the replica had and lost.

use crate::ids::{BranchId, Ino, Lsn};
use crate::key;
use crate::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::wire::{DecodeError, Put, Take};

pub const CHUNK_HEADER_BYTES: usize = 72;
const MAGIC: u32 = u32::from_le_bytes(*b"HFCK");
const VERSION: u16 = 1;
const FLAG_ZSTD: u16 = 1;
const FLAG_LAST: u16 = 2;
const FLAG_MENDS: u16 = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkHeader {
    pub branch: BranchId,
    /// Random id of the owner's epoch.
    pub lineage: u64,
    /// 0: nothing is there yet.
    pub base: Lsn,
    pub target: Lsn,
    pub sequence: u64,
    pub is_last: bool,
    pub is_compressed: bool,
    /// It tells again what has not changed.
    pub mends: bool,
    pub raw_bytes: u32,
}

impl ChunkHeader {
    /// The whole chunk; `body` is what the header says of it.
    pub fn encode(&self, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(CHUNK_HEADER_BYTES + body.len());
        out.put_u32(MAGIC);
        out.put_u16(VERSION);
        let compressed = if self.is_compressed { FLAG_ZSTD } else { 0 };
        let mends = if self.mends { FLAG_MENDS } else { 0 };
        out.put_u16(compressed | mends | if self.is_last { FLAG_LAST } else { 0 });
        out.put_u32(body.len() as u32);
        out.put_u32(self.raw_bytes);
        out.put_u32(self.branch.0);
        out.put_u32(0);
        out.put_u64(self.lineage);
        out.put_u64(self.base.0);
        out.put_u64(self.target.0);
        out.put_u64(self.sequence);
        out.put_u64(0);
        let sum = sum_of(&out, body);
        out.put_u64(sum);
        debug_assert_eq!(out.len(), CHUNK_HEADER_BYTES);
        out.put_bytes(body);
        out
    }

    /// Header and body of a whole chunk; nothing is believed before the checksum.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        if bytes.len() > CHUNK_HEADER_BYTES + CHUNK_BYTES_MAX {
            return Err(DecodeError::Invalid("chunk length"));
        }
        let mut take = Take::new(bytes);
        if take.u32()? != MAGIC {
            return Err(DecodeError::Invalid("chunk magic"));
        }
        let (version, flags) = (take.u16()?, take.u16()?);
        if version != VERSION || flags & !(FLAG_ZSTD | FLAG_LAST | FLAG_MENDS) != 0 {
            return Err(DecodeError::Unsupported(u64::from(version) << 16 | u64::from(flags)));
        }
        let (body_bytes, raw_bytes) = (take.u32()?, take.u32()?);
        let (branch, reserved) = (BranchId(take.u32()?), take.u32()?);
        let (lineage, base, target, sequence) = (take.u64()?, Lsn(take.u64()?), Lsn(take.u64()?), take.u64()?);
        let reserved = u64::from(reserved) | take.u64()?;
        let sum = take.u64()?;
        let body = take.bytes(body_bytes as usize)?;
        take.end()?;
        if sum_of(&bytes[..CHUNK_HEADER_BYTES - 8], body) != sum {
            return Err(DecodeError::Checksum);
        }
        let (is_compressed, is_last, mends) = (flags & FLAG_ZSTD != 0, flags & FLAG_LAST != 0, flags & FLAG_MENDS != 0);
        let whole = is_compressed || raw_bytes == body_bytes;
        if reserved != 0 || base >= target || raw_bytes as usize > CHUNK_BYTES_MAX || !whole {
            return Err(DecodeError::Invalid("chunk header"));
        }
        Ok((Self { branch, lineage, base, target, sequence, is_last, is_compressed, mends, raw_bytes }, body))
    }
}

fn sum_of(header: &[u8], body: &[u8]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(header);
    hasher.update(body);
    hasher.digest()
}

/// What stands before the content of a BLOCKS entry.
pub const BLOCKS_HEAD_BYTES: usize = 15;

/// Says how many blocks the BLOCKS entry has that `entry` begins with: its content is filled in afterwards.
pub fn set_blocks(entry: &mut [u8], count: u16) {
    entry[BLOCKS_HEAD_BYTES - 2..BLOCKS_HEAD_BYTES].copy_from_slice(&count.to_le_bytes());
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChunkEntry<'a> {
    Put { key: &'a [u8], value: &'a [u8] },
    Delete { key: &'a [u8] },
    /// Whole blocks.
    Blocks { ino: Ino, start: u32, content: &'a [u8] },
    Hole { ino: Ino, start: u32, count: u64 },
}

impl ChunkEntry<'_> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Put { key, value } => {
                out.put_u8(1);
                out.put_u16(key.len() as u16);
                out.put_u32(value.len() as u32);
                out.put_bytes(key);
                out.put_bytes(value);
            }
            Self::Delete { key } => {
                out.put_u8(2);
                out.put_u16(key.len() as u16);
                out.put_bytes(key);
            }
            Self::Blocks { ino, start, content } => {
                debug_assert!(content.len().is_multiple_of(BLOCK_BYTES));
                out.put_u8(3);
                out.put_u64(ino.0);
                out.put_u32(start);
                out.put_u16((content.len() / BLOCK_BYTES) as u16);
                out.put_bytes(content);
            }
            Self::Hole { ino, start, count } => {
                out.put_u8(4);
                out.put_u64(ino.0);
                out.put_u32(start);
                out.put_u64(count);
            }
        }
    }

    /// The next entry of a chunk of this branch.
    pub fn take<'a>(branch: BranchId, take: &mut Take<'a>) -> Result<ChunkEntry<'a>, DecodeError> {
        match take.u8()? {
            1 => {
                let (key_len, value_len) = (take.u16()? as usize, take.u32()? as usize);
                if value_len > VALUE_BYTES_MAX {
                    return Err(DecodeError::Invalid("value length"));
                }
                Ok(ChunkEntry::Put { key: take_key(branch, take, key_len)?, value: take.bytes(value_len)? })
            }
            2 => {
                let key_len = take.u16()? as usize;
                Ok(ChunkEntry::Delete { key: take_key(branch, take, key_len)? })
            }
            3 => {
                let (ino, start, count) = (take_ino(take)?, take.u32()?, take.u16()?);
                check_range(start, u64::from(count))?;
                Ok(ChunkEntry::Blocks { ino, start, content: take.bytes(count as usize * BLOCK_BYTES)? })
            }
            4 => {
                let (ino, start, count) = (take_ino(take)?, take.u32()?, take.u64()?);
                check_range(start, count)?;
                Ok(ChunkEntry::Hole { ino, start, count })
            }
            _ => Err(DecodeError::Invalid("entry tag")),
        }
    }
}

/// Calls `visit` for every entry.
pub fn each_entry<'a>(
    branch: BranchId,
    raw: &'a [u8],
    mut visit: impl FnMut(ChunkEntry<'a>),
) -> Result<(), DecodeError> {
    let mut take = Take::new(raw);
    while !take.is_empty() {
        visit(ChunkEntry::take(branch, &mut take)?);
    }
    Ok(())
}

/// Only records of the branch itself: a peer must not reach what belongs to the group or to another volume. What a file
/// holds comes as blocks.
fn take_key<'a>(branch: BranchId, take: &mut Take<'a>, length: usize) -> Result<&'a [u8], DecodeError> {
    if length > KEY_BYTES_MAX {
        return Err(DecodeError::Invalid("key length"));
    }
    let key = take.bytes(length)?;
    let parts = key::parts(key).ok_or(DecodeError::Invalid("key"))?;
    let (of_volume, of_inode) = match parts.kind {
        key::KIND_VOLUME | key::KIND_ORPHAN => (true, false),
        key::KIND_INODE | key::KIND_XATTR | key::KIND_DIRENT | key::KIND_LINK => (false, true),
        _ => (false, false),
    };
    if parts.branch != branch || !(of_volume && parts.ino == Ino(0) || of_inode && parts.ino != Ino(0)) {
        return Err(DecodeError::Invalid("key of a chunk"));
    }
    Ok(key)
}

fn take_ino(take: &mut Take<'_>) -> Result<Ino, DecodeError> {
    match take.u64()? {
        0 => Err(DecodeError::Invalid("inode number")),
        ino => Ok(Ino(ino)),
    }
}

fn check_range(start: u32, count: u64) -> Result<(), DecodeError> {
    let fits = count > 0 && count <= 1 << 32 && u64::from(start) + count <= 1 << 32;
    if fits { Ok(()) } else { Err(DecodeError::Invalid("range of blocks")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> ChunkHeader {
        ChunkHeader {
            branch: BranchId(1),
            lineage: 2,
            base: Lsn(3),
            target: Lsn(9),
            sequence: 4,
            is_last: true,
            is_compressed: false,
            mends: false,
            raw_bytes: 0,
        }
    }

    #[test]
    fn entries_come_back() {
        let key = key::dirent(BranchId(1), Ino(1), 99, b"name");
        let block = vec![7; BLOCK_BYTES];
        let entries = [
            ChunkEntry::Put { key: &key, value: b"value" },
            ChunkEntry::Delete { key: &key },
            ChunkEntry::Blocks { ino: Ino(5), start: 8, content: &block },
            ChunkEntry::Hole { ino: Ino(5), start: 0, count: 1 << 32 },
        ];
        let mut raw = Vec::new();
        entries.iter().for_each(|entry| entry.encode(&mut raw));
        let mut found = Vec::new();
        each_entry(BranchId(1), &raw, |entry| found.push(entry)).unwrap();
        assert_eq!(found, entries);
        assert!(each_entry(BranchId(2), &raw, |_| {}).is_err(), "another volume's");
        let mut grown = Vec::new();
        ChunkEntry::Blocks { ino: Ino(5), start: 8, content: &[] }.encode(&mut grown);
        assert_eq!(grown.len(), BLOCKS_HEAD_BYTES);
        set_blocks(&mut grown, 1);
        grown.extend_from_slice(&block);
        let mut whole = Vec::new();
        entries[2].encode(&mut whole);
        assert_eq!(grown, whole, "content that is filled in afterwards");
        let bytes = ChunkHeader { raw_bytes: raw.len() as u32, mends: true, ..header() }.encode(&raw);
        let (decoded, body) = ChunkHeader::decode(&bytes).unwrap();
        assert_eq!((decoded.sequence, decoded.mends, body), (4, true, &raw[..]));
        for at in 0..CHUNK_HEADER_BYTES + 40 {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            assert!(ChunkHeader::decode(&bad).is_err(), "byte {at}");
        }
        assert!(ChunkHeader::decode(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn keys_beyond_the_branch_are_refused() {
        let refused = [
            key::point(Lsn(5)),
            key::retention(),
            key::replica(),
            key::inode(BranchId(2), Ino(1)),
            key::inode(BranchId(1), Ino(0)),
            key::data(BranchId(1), Ino(1), 0, 0),
            vec![0; 5],
        ];
        for key in refused {
            let mut raw = Vec::new();
            ChunkEntry::Delete { key: &key }.encode(&mut raw);
            assert!(each_entry(BranchId(1), &raw, |_| {}).is_err(), "{key:?}");
        }
        for (start, count) in [(0, 0), (1, 1 << 32), (0, (1 << 32) + 1)] {
            let mut raw = Vec::new();
            ChunkEntry::Hole { ino: Ino(1), start, count }.encode(&mut raw);
            assert!(each_entry(BranchId(1), &raw, |_| {}).is_err(), "{start} {count}");
        }
    }

    #[test]
    fn golden() {
        let raw = [2, 13, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 16];
        let bytes = ChunkHeader { raw_bytes: 16, ..header() }.encode(&raw);
        let hex: String = bytes[..40].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "4846434b01000200100000001000000001000000000000000200000000000000".to_owned() + "0300000000000000");
        assert_eq!(bytes.len(), CHUNK_HEADER_BYTES + 16);
    }
}
