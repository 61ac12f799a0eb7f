//! Data blocks of tables: runs of records in key order, keys compressed against the one before.
//!
//! ```text
//! block  = base_lsn u64 | row u32 | count u16 | flags u8 | reserved u8 | entry × count
//! flags  = 1: entries have deaths
//! entry  = shared u8 | unshared u8 | value_len u8 | place u32 | long? × 2 | wide? | death? | key (unshared bytes) | value
//! long   = u16                 a length of 255 or more; its byte is 255 then. First unshared, then value_len
//! place  = bits 0 … 29: LSN − base_lsn + 2^29; bit 30: wide; bit 31: deleted (value_len 0)
//! wide   = lsn u64 | row u32   when the row is not the block's or an LSN is too far; then bits 0 … 29 are 0
//! death  = u32                 in blocks of THEN: LSN of the version that came after, less the entry's; wide: that LSN, u64
//! ```
//! So a random 4 KiB block costs 7 bytes here, 2 or 3 of key and 17 of value.
//! `shared` counts the leading bytes that the key has in common with the key before it (at most 255).
//! base_lsn and row are those of the first entry. Order is by key, then newest first. A block is scanned from
//! its start: 4 KiB are about 140 small entries, and restart points would cost bytes in each of them. The
//! checksum of a block stands in its table's index.

use crate::ids::{Lsn, Row, Stamp};
use crate::wire::{DecodeError, Put, Take};
use std::cmp::Ordering;
use std::ops::Range;

pub const BLOCK_HEADER_BYTES: usize = 16;
/// What an entry adds to the bytes of its key and value, at most.
pub const ENTRY_OVERHEAD_MAX: usize = ENTRY_BYTES + 2 + 2 + 12 + 8;
/// The part of an entry that every one has.
const ENTRY_BYTES: usize = 7;
/// Says that the length follows in two bytes.
const LONG: u8 = u8::MAX;
/// A block is closed once it has this many bytes; one large entry makes a larger block.
pub const BLOCK_BYTES_TARGET: usize = 4096;

const FLAG_DEATHS: u8 = 1;
const BIAS: u64 = 1 << 29;
const NEAR_MASK: u32 = (1 << 30) - 1;
const WIDE: u32 = 1 << 30;
const DELETED: u32 = 1 << 31;

/// One record of a table. `death` counts only in THEN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    pub key: &'a [u8],
    pub stamp: Stamp,
    pub death: Lsn,
    pub value: Option<&'a [u8]>,
}

/// Builds one block after another, reusing its memory.
pub struct BlockBuilder {
    deaths: bool,
    bytes: Vec<u8>,
    count: u16,
    base: Stamp,
    last_key: Vec<u8>,
}

fn shared_len(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take(u8::MAX as usize).take_while(|(a, b)| a == b).count()
}

impl BlockBuilder {
    pub fn new(deaths: bool) -> Self {
        Self { deaths, bytes: Vec::new(), count: 0, base: Stamp::default(), last_key: Vec::new() }
    }
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
    pub fn last_key(&self) -> &[u8] {
        &self.last_key
    }
    /// Whether the block should be closed before an entry of this size.
    pub fn is_full(&self, key_len: usize, value_len: usize) -> bool {
        self.count == u16::MAX
            || (self.count > 0 && self.bytes.len() + key_len / 2 + value_len > BLOCK_BYTES_TARGET)
    }

    /// Appends an entry; keys do not go back. Key and value are within `limits`.
    pub fn push(&mut self, entry: Entry<'_>) {
        if self.count == 0 {
            self.base = entry.stamp;
            self.last_key.clear();
            self.bytes.put_u64(entry.stamp.lsn.0);
            self.bytes.put_u32(entry.stamp.row.0);
            self.bytes.put_u16(0);
            self.bytes.put_u8(if self.deaths { FLAG_DEATHS } else { 0 });
            self.bytes.put_u8(0);
        }
        let shared = shared_len(&self.last_key, entry.key);
        let value = entry.value.unwrap_or_default();
        debug_assert!(value.len() <= u16::MAX as usize);
        let lengths = [(entry.key.len() - shared) as u16, value.len() as u16];
        self.bytes.put_u8(shared as u8);
        lengths.iter().for_each(|length| self.bytes.put_u8((*length).min(LONG as u16) as u8));
        let near = entry.stamp.lsn.0.wrapping_sub(self.base.lsn.0).wrapping_add(BIAS);
        let life = entry.death.0.wrapping_sub(entry.stamp.lsn.0);
        let far = near > NEAR_MASK as u64 || (self.deaths && life > u32::MAX as u64);
        let wide = far || entry.stamp.row != self.base.row;
        let deleted = if entry.value.is_none() { DELETED } else { 0 };
        self.bytes.put_u32(deleted | if wide { WIDE } else { near as u32 });
        lengths.iter().filter(|length| **length >= LONG as u16).for_each(|length| self.bytes.put_u16(*length));
        if wide {
            self.bytes.put_u64(entry.stamp.lsn.0);
            self.bytes.put_u32(entry.stamp.row.0);
        }
        match (self.deaths, wide) {
            (true, true) => self.bytes.put_u64(entry.death.0),
            (true, false) => self.bytes.put_u32(life as u32),
            (false, _) => {}
        }
        self.bytes.put_bytes(&entry.key[shared..]);
        self.bytes.put_bytes(value);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(&entry.key[shared..]);
        self.count += 1;
    }

    /// Closes the block: appends its bytes to `out` and starts the next one.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.bytes[12..14].copy_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.bytes);
        self.bytes.clear();
        self.count = 0;
    }
}

/// The fixed part of an entry, taken apart.
struct Head {
    shared: usize,
    key: Range<usize>,
    value: Option<Range<usize>>,
    stamp: Stamp,
    death: Lsn,
}

#[derive(Clone, Copy, Default, Debug)]
struct Base {
    stamp: Stamp,
    deaths: bool,
}

fn take_header(block: &[u8]) -> Result<(Base, u16), DecodeError> {
    let mut take = Take::new(block);
    let stamp = Stamp { lsn: Lsn(take.u64()?), row: Row(take.u32()?) };
    let count = take.u16()?;
    let flags = take.u8()?;
    if flags & !FLAG_DEATHS != 0 || take.u8()? != 0 {
        return Err(DecodeError::Invalid("block flags"));
    }
    Ok((Base { stamp, deaths: flags & FLAG_DEATHS != 0 }, count))
}

/// A length of an entry: the byte, or the two that follow.
#[inline]
fn take_length(block: &[u8], byte: u8, from: &mut usize) -> Result<usize, DecodeError> {
    if byte != LONG {
        return Ok(byte as usize);
    }
    let long = block.get(*from..).and_then(|rest| rest.first_chunk::<2>()).ok_or(DecodeError::Truncated)?;
    *from += 2;
    let length = u16::from_le_bytes(*long);
    if length < LONG as u16 {
        return Err(DecodeError::Invalid("a short length written as a long one"));
    }
    Ok(length as usize)
}

#[inline]
fn take_head(block: &[u8], at: usize, base: Base) -> Result<Head, DecodeError> {
    let fixed =
        block.get(at..).and_then(|rest| rest.first_chunk::<ENTRY_BYTES>()).ok_or(DecodeError::Truncated)?;
    let place = u32::from_le_bytes([fixed[3], fixed[4], fixed[5], fixed[6]]);
    let mut from = at + ENTRY_BYTES;
    let unshared = take_length(block, fixed[1], &mut from)?;
    let value_len = take_length(block, fixed[2], &mut from)?;
    let mut stamp = Stamp {
        lsn: Lsn(base.stamp.lsn.0.wrapping_add((place & NEAR_MASK) as u64).wrapping_sub(BIAS)),
        row: base.stamp.row,
    };
    let wide = place & WIDE != 0;
    if wide {
        let mut take = Take::new(block.get(from..).unwrap_or_default());
        stamp = Stamp { lsn: Lsn(take.u64()?), row: Row(take.u32()?) };
        from += 12;
    }
    let mut death = Lsn::default();
    if base.deaths {
        let mut take = Take::new(block.get(from..).unwrap_or_default());
        death = Lsn(if wide { take.u64()? } else { stamp.lsn.0.wrapping_add(take.u32()? as u64) });
        from += if wide { 8 } else { 4 };
    }
    let key = from..from + unshared;
    let value = key.end..key.end + value_len;
    if value.end > block.len() {
        return Err(DecodeError::Truncated);
    }
    let deleted = place & DELETED != 0;
    if deleted && value_len != 0 {
        return Err(DecodeError::Invalid("value of a deletion"));
    }
    Ok(Head { shared: fixed[0] as usize, key, value: (!deleted).then_some(value), stamp, death })
}

/// A place in a block. It does not hold the block: every call gets the same bytes.
#[derive(Clone, Default, Debug)]
pub struct BlockCursor {
    base: Base,
    left: u16,
    at: usize,
    key: Vec<u8>,
    stamp: Stamp,
    death: Lsn,
    value: Option<Range<usize>>,
}

impl BlockCursor {
    /// Starts over before the first entry of `block`.
    pub fn reset(&mut self, block: &[u8]) -> Result<(), DecodeError> {
        (self.base, self.left) = take_header(block)?;
        self.at = BLOCK_HEADER_BYTES;
        self.key.clear();
        Ok(())
    }

    /// Steps to the next entry; false at the end.
    pub fn advance(&mut self, block: &[u8]) -> Result<bool, DecodeError> {
        if self.left == 0 {
            return if self.at == block.len() {
                Ok(false)
            } else {
                Err(DecodeError::Invalid("end of block"))
            };
        }
        let head = take_head(block, self.at, self.base)?;
        if head.shared > self.key.len() {
            return Err(DecodeError::Invalid("shared key bytes"));
        }
        self.key.truncate(head.shared);
        self.key.extend_from_slice(&block[head.key.clone()]);
        self.at = head.value.as_ref().map_or(head.key.end, |value| value.end);
        (self.stamp, self.death, self.value) = (head.stamp, head.death, head.value);
        self.left -= 1;
        Ok(true)
    }

    pub fn key(&self) -> &[u8] {
        &self.key
    }
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }
    pub fn death(&self) -> Lsn {
        self.death
    }
    pub fn value<'a>(&self, block: &'a [u8]) -> Option<&'a [u8]> {
        self.value.clone().map(|range| &block[range])
    }
}

/// What [`find`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found<'a> {
    pub stamp: Stamp,
    pub value: Option<&'a [u8]>,
}

/// The first (newest) entry of `key`, and the number of entries stepped over. Builds no keys on its way.
pub fn find<'a>(block: &'a [u8], key: &[u8]) -> Result<(Option<Found<'a>>, u32), DecodeError> {
    let (base, count) = take_header(block)?;
    let mut at = BLOCK_HEADER_BYTES;
    // Leading bytes that `key` has in common with the entry before, which is smaller than `key`.
    let mut matched = 0;
    for stepped in 0..count as u32 {
        let head = take_head(block, at, base)?;
        at = head.value.as_ref().map_or(head.key.end, |value| value.end);
        if head.shared > matched {
            continue;
        }
        let (rest, wanted) = (&block[head.key.clone()], &key[head.shared..]);
        match rest.cmp(wanted) {
            Ordering::Less => matched = head.shared + shared_len(rest, wanted),
            Ordering::Equal => {
                let value = head.value.map(|range| &block[range]);
                return Ok((Some(Found { stamp: head.stamp, value }), stepped + 1));
            }
            Ordering::Greater => return Ok((None, stepped + 1)),
        }
    }
    Ok((None, count as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(lsn: u64, row: u32) -> Stamp {
        Stamp { lsn: Lsn(lsn), row: Row(row) }
    }

    fn entry<'a>(key: &'a [u8], stamp: Stamp, value: Option<&'a [u8]>) -> Entry<'a> {
        Entry { key, stamp, death: death(stamp), value }
    }

    /// Near for most stamps, beyond 32 bits for one row.
    fn death(stamp: Stamp) -> Lsn {
        Lsn(stamp.lsn.0 + if stamp.row == Row(9) { 1 << 40 } else { 77 })
    }

    /// The worked example of FORMAT.md.
    #[test]
    fn layout_is_golden() {
        let mut builder = BlockBuilder::new(false);
        builder.push(entry(b"abc", stamp(100, 2), Some(b"xy")));
        builder.push(entry(b"abd", stamp(99, 2), None));
        builder.push(entry(b"b", stamp(100, 3), Some(b"")));
        let mut bytes = Vec::new();
        builder.finish(&mut bytes);
        #[rustfmt::skip]
        let golden = [
            100, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0,
            0, 3, 2, 0x00, 0x00, 0x00, 0x20, b'a', b'b', b'c', b'x', b'y',
            2, 1, 0, 0xff, 0xff, 0xff, 0x9f, b'd',
            0, 1, 0, 0x00, 0x00, 0x00, 0x40, 100, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, b'b',
        ];
        assert_eq!(bytes, golden);
    }

    #[test]
    fn entries_come_back_whatever_their_stamps() {
        for deaths in [false, true] {
            let stamps = [stamp(5 << 40, 1), stamp(1, 1), stamp((5 << 40) - 3, 1), stamp((5 << 40) + 3, 9)];
            let mut builder = BlockBuilder::new(deaths);
            let keys: Vec<Vec<u8>> = (0..300u32)
                .map(|n| [vec![7u8; (n % 270) as usize], n.to_be_bytes().to_vec()].concat())
                .collect();
            let mut sorted = keys.clone();
            sorted.sort();
            for (n, key) in sorted.iter().enumerate() {
                builder.push(entry(key, stamps[n % 4], (n % 5 != 0).then_some(&key[..n % 3])));
            }
            let mut block = Vec::new();
            builder.finish(&mut block);
            let mut cursor = BlockCursor::default();
            cursor.reset(&block).unwrap();
            for (n, key) in sorted.iter().enumerate() {
                let value = (n % 5 != 0).then_some(&key[..n % 3]);
                assert!(cursor.advance(&block).unwrap());
                assert_eq!(
                    (cursor.key(), cursor.stamp(), cursor.value(&block)),
                    (&key[..], stamps[n % 4], value)
                );
                assert_eq!(cursor.death(), if deaths { death(stamps[n % 4]) } else { Lsn(0) });
                let (found, steps) = find(&block, key).unwrap();
                assert_eq!(found, Some(Found { stamp: stamps[n % 4], value }), "key {n}");
                assert_eq!(steps as usize, n + 1);
                let beside = [&key[..], b"\0"].concat();
                assert_eq!(find(&block, &beside).unwrap().0, None);
            }
            assert!(!cursor.advance(&block).unwrap());
            for end in 0..block.len() {
                // Never a panic, whatever is cut off.
                let _ = find(&block[..end], b"\x08");
                if cursor.reset(&block[..end]).is_ok() {
                    while cursor.advance(&block[..end]).unwrap_or(false) {}
                }
            }
        }
    }
}
