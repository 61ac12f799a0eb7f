//! What a table holds beside its data blocks: a header that says whose it is, and the index with the
//! membership filter.
//!
//! ```text
//! table  = header (48 B) | data block × blocks | index
//! header = magic "HFTABLE1" | owner u32 | tree u8 | level u8 | reserved u16
//!        | index_offset u32 | index_bytes u32 | reserved u64 | index_checksum u64
//!        | checksum u64 over everything before
//! index  = blocks u32 | filter_lines u32 | filter_lines × line (64 B) | entry × blocks
//! blocks = bits 0 … 30: how many; bit 31: entries have times
//! entry  = key_len u16 | last key of the block | offset u32 | length u32 | checksum u64 | times?
//! times  = oldest u64 | newest u64     the lowest LSN of a birth in the block, the highest of a birth or a death
//! ```
//! The index's checksum stands in the table's description (`table.rs`), too: readers trust that one. The
//! header is for those who have lost the manifest.
//!
//! The filter is a blocked Bloom filter: a line of 512 bits per 51 members, 6 bits each. Members are what
//! look-ups ask for: (directory, hash of the name) of a DIRENT, (branch, inode) of a DATA key, any other key
//! whole.

use crate::checksum::checksum;
use crate::ids::{GroupId, Lsn};
use crate::key::{self, COOKIE_SEQUENCE_BITS, KIND_DATA, KIND_DIRENT, PREFIX_BYTES};
use crate::limits::{KEY_BYTES_MAX, SLOT_BYTES_MAX};
use crate::table::TreeKind;
use crate::wire::{DecodeError, Put, Take};

pub const TABLE_MAGIC: &[u8; 8] = b"HFTABLE1";
pub const TABLE_HEADER_BYTES: usize = 48;
/// Bytes of an index entry beside its key.
pub const INDEX_ENTRY_BYTES: usize = 2 + 4 + 4 + 8 + TIMES_BYTES;
/// The part of it that tables of before do not have.
const TIMES_BYTES: usize = 16;
/// In the number of blocks: entries have that part.
const HAS_TIMES: u32 = 1 << 31;

const LINE_BYTES: usize = 64;
const BITS_PER_MEMBER: usize = 10;
const PROBES: u32 = 6;

pub fn encode_header(owner: GroupId, tree: TreeKind, level: u8, index_offset: u32, index: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(TABLE_HEADER_BYTES);
    out.put_bytes(TABLE_MAGIC);
    out.put_u32(owner.0);
    out.put_u8(tree as u8);
    out.put_u8(level);
    out.put_u16(0);
    out.put_u32(index_offset);
    out.put_u32(index.len() as u32);
    out.put_u64(0);
    out.put_u64(checksum(index));
    out.put_u64(checksum(&out));
    out
}

/// Index offset, bytes and checksum from a table's header.
pub fn decode_header(bytes: &[u8]) -> Result<(u32, u32, u64), DecodeError> {
    let header = bytes.get(..TABLE_HEADER_BYTES).ok_or(DecodeError::Truncated)?;
    let (body, sum) = header.split_at(TABLE_HEADER_BYTES - 8);
    if Take::new(sum).u64()? != checksum(body) {
        return Err(DecodeError::Checksum);
    }
    let mut take = Take::new(body);
    if take.bytes(8)? != TABLE_MAGIC {
        return Err(DecodeError::Invalid("table magic"));
    }
    // Whose table it is: owner, tree and level.
    take.bytes(6)?;
    let reserved = take.u16()?;
    let (offset, bytes) = (take.u32()?, take.u32()?);
    if reserved != 0 || take.u64()? != 0 {
        return Err(DecodeError::Invalid("table header reserved field"));
    }
    Ok((offset, bytes, take.u64()?))
}

fn member_hash(kind_prefix: &[u8], hash_bits: u64) -> u64 {
    crate::checksum::checksum_bound(hash_bits, kind_prefix)
}

/// The filter member that stands for a key.
pub fn filter_hash(tree: TreeKind, key: &[u8]) -> u64 {
    if tree == TreeKind::Pool || key.len() < PREFIX_BYTES {
        return checksum(key);
    }
    match key[PREFIX_BYTES - 1] {
        KIND_DATA => member_hash(&key[..PREFIX_BYTES], 0),
        KIND_DIRENT => match key::dirent_place(key) {
            Some((cookie, _)) => member_hash(&key[..PREFIX_BYTES], cookie >> COOKIE_SEQUENCE_BITS),
            None => checksum(key),
        },
        _ => checksum(key),
    }
}

/// The one member that stands for every key of `[from, until)`, if there is such a one.
pub fn filter_hash_of_range(tree: TreeKind, from: &[u8], until: &[u8]) -> Option<u64> {
    if tree == TreeKind::Pool || from.len() < PREFIX_BYTES {
        return None;
    }
    let (prefix, kind) = (&from[..PREFIX_BYTES], from[PREFIX_BYTES - 1]);
    let mut end = prefix.to_vec();
    match kind {
        KIND_DATA => end[PREFIX_BYTES - 1] += 1,
        KIND_DIRENT => {
            let (cookie, _) = key::dirent_place(from)?;
            let next = ((cookie >> COOKIE_SEQUENCE_BITS) + 1) << COOKIE_SEQUENCE_BITS;
            end.extend_from_slice(&next.to_be_bytes());
        }
        _ => return None,
    }
    (until <= &end[..]).then(|| filter_hash(tree, from))
}

fn probe(hash: u64, lines: usize) -> (usize, impl Iterator<Item = (usize, u8)>) {
    let line = (((hash >> 32) * lines as u64) >> 32) as usize;
    let spread = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8;
    let bits = (0..PROBES).map(move |n| ((spread >> (9 * n)) & 511) as usize);
    (line * LINE_BYTES, bits.map(|bit| (bit / 8, 1 << (bit % 8))))
}

const fn filter_lines(members: usize) -> usize {
    (members * BITS_PER_MEMBER).div_ceil(LINE_BYTES * 8)
}

/// Entries of an index, being collected.
#[derive(Default)]
pub struct IndexBuilder {
    entries: Vec<u8>,
    blocks: u32,
    members: Vec<u64>,
}

impl IndexBuilder {
    /// Adds a member to the filter. Repeated ones in a row count once.
    pub fn member(&mut self, hash: u64) {
        if self.members.last() != Some(&hash) {
            self.members.push(hash);
        }
    }
    /// `times`: the lowest LSN of a birth in the block, and the highest of a birth or a death.
    pub fn block(&mut self, last_key: &[u8], offset: u32, block: &[u8], times: (Lsn, Lsn)) {
        self.entries.put_u16(last_key.len() as u16);
        self.entries.put_bytes(last_key);
        self.entries.put_u32(offset);
        self.entries.put_u32(block.len() as u32);
        self.entries.put_u64(checksum(block));
        self.entries.put_u64(times.0.0);
        self.entries.put_u64(times.1.0);
        self.blocks += 1;
    }
    /// Bytes of the finished index as it stands.
    pub fn len(&self) -> usize {
        8 + filter_lines(self.members.len()) * LINE_BYTES + self.entries.len()
    }
    pub fn is_empty(&self) -> bool {
        self.blocks == 0
    }
    pub fn finish(self) -> Vec<u8> {
        let lines = filter_lines(self.members.len());
        let mut out = Vec::with_capacity(self.len());
        out.put_u32(self.blocks | HAS_TIMES);
        out.put_u32(lines as u32);
        out.resize(8 + lines * LINE_BYTES, 0);
        for hash in self.members {
            let (line, bits) = probe(hash, lines);
            bits.for_each(|(byte, mask)| out[8 + line + byte] |= mask);
        }
        out.put_bytes(&self.entries);
        out
    }
}

/// Where a block lies in its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockPlace {
    pub offset: u32,
    pub length: u32,
    pub checksum: u64,
}

/// An index that was verified and taken apart.
pub struct Index {
    bytes: Vec<u8>,
    filter_lines: usize,
    has_times: bool,
    /// Offset of each entry in `bytes`.
    entries: Vec<u32>,
}

impl Index {
    /// The caller has verified the bytes against the table's description.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, DecodeError> {
        let mut take = Take::new(&bytes);
        let (blocks, lines) = (take.u32()?, take.u32()? as usize);
        let has_times = blocks & HAS_TIMES != 0;
        let blocks = (blocks & !HAS_TIMES) as usize;
        take.bytes(lines.checked_mul(LINE_BYTES).ok_or(DecodeError::Truncated)?)?;
        let mut entries = Vec::with_capacity(blocks.min(bytes.len() / (INDEX_ENTRY_BYTES - TIMES_BYTES)));
        let mut blocks_end = TABLE_HEADER_BYTES as u32;
        for _ in 0..blocks {
            entries.push((bytes.len() - take.rest().len()) as u32);
            let key_len = take.u16()? as usize;
            if key_len > KEY_BYTES_MAX {
                return Err(DecodeError::Invalid("key length"));
            }
            take.bytes(key_len)?;
            let (offset, length) = (take.u32()?, take.u32()?);
            take.u64()?;
            if has_times {
                take.bytes(TIMES_BYTES)?;
            }
            if offset < blocks_end || length > SLOT_BYTES_MAX || offset > SLOT_BYTES_MAX - length {
                return Err(DecodeError::Invalid("place of a block"));
            }
            blocks_end = offset + length;
        }
        take.end()?;
        Ok(Self { filter_lines: lines, has_times, entries, bytes })
    }
    pub fn blocks(&self) -> usize {
        self.entries.len()
    }
    /// Memory held.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * 4 + std::mem::size_of::<Self>()
    }
    pub fn last_key(&self, block: usize) -> &[u8] {
        let at = self.entries[block] as usize;
        let len = u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]) as usize;
        &self.bytes[at + 2..at + 2 + len]
    }
    pub fn place(&self, block: usize) -> BlockPlace {
        let at = self.entries[block] as usize + 2 + self.last_key(block).len();
        let word = |from: usize| u32::from_le_bytes(std::array::from_fn(|n| self.bytes[from + n]));
        let checksum = u64::from_le_bytes(std::array::from_fn(|n| self.bytes[at + 8 + n]));
        BlockPlace { offset: word(at), length: word(at + 4), checksum }
    }
    /// The lowest LSN of a birth in a block, and the highest of a birth or a death, if they are known.
    pub fn times(&self, block: usize) -> Option<(Lsn, Lsn)> {
        let at = self.entries[block] as usize + INDEX_ENTRY_BYTES - TIMES_BYTES + self.last_key(block).len();
        let lsn = |from: usize| Lsn(u64::from_le_bytes(std::array::from_fn(|n| self.bytes[from + n])));
        self.has_times.then(|| (lsn(at), lsn(at + 8)))
    }
    /// The first block that can hold a key not less than `key`; `blocks()` when there is none.
    pub fn seek(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.blocks());
        while low < high {
            let middle = (low + high) / 2;
            if self.last_key(middle) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
    /// False: no key with this member is in the table.
    pub fn may_hold(&self, hash: u64) -> bool {
        if self.filter_lines == 0 {
            return false;
        }
        let (line, mut bits) = probe(hash, self.filter_lines);
        bits.all(|(byte, mask)| self.bytes[8 + line + byte] & mask != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BranchId, Ino};

    #[test]
    fn header_is_golden() {
        let header = encode_header(GroupId(7), TreeKind::Now, 1, 0x1000, b"index");
        assert_eq!(&header[..32], b"HFTABLE1\x07\0\0\0\x01\x01\0\0\0\x10\0\0\x05\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(decode_header(&header), Ok((0x1000, 5, checksum(b"index"))));
        for byte in 0..TABLE_HEADER_BYTES {
            let mut bad = header.clone();
            bad[byte] ^= 1;
            assert!(decode_header(&bad).is_err());
        }
    }

    #[test]
    fn index_is_golden() {
        let mut builder = IndexBuilder::default();
        builder.block(b"k", 48, b"block", (Lsn(4), Lsn(9)));
        let bytes = builder.finish();
        let mut golden = vec![1, 0, 0, 0x80, 0, 0, 0, 0, 1, 0, b'k', 48, 0, 0, 0, 5, 0, 0, 0];
        golden.put_u64(checksum(b"block"));
        let mut before = golden.clone();
        before[3] = 0;
        golden.put_u64(4);
        golden.put_u64(9);
        assert_eq!(bytes, golden);
        let index = Index::decode(bytes.clone()).unwrap();
        assert_eq!((index.last_key(0), index.seek(b"k"), index.seek(b"l")), (&b"k"[..], 0, 1));
        assert_eq!(index.place(0), BlockPlace { offset: 48, length: 5, checksum: checksum(b"block") });
        assert_eq!(index.times(0), Some((Lsn(4), Lsn(9))));
        // As programs wrote it that did not note the times of a block.
        let before = Index::decode(before).unwrap();
        assert_eq!((before.last_key(0), before.place(0), before.times(0)), (&b"k"[..], index.place(0), None));
        for end in 0..bytes.len() {
            assert!(Index::decode(bytes[..end].to_vec()).is_err());
        }
    }

    #[test]
    fn filter_never_denies_a_member_and_mostly_denies_others() {
        let mut builder = IndexBuilder::default();
        let hash = |ino| filter_hash(TreeKind::Now, &key::inode(BranchId(1), Ino(ino)));
        (0..10_000).for_each(|ino| builder.member(hash(ino)));
        let index = Index::decode(builder.finish()).unwrap();
        assert!((0..10_000).all(|ino| index.may_hold(hash(ino))));
        let wrong = (10_000..110_000).filter(|ino| index.may_hold(hash(*ino))).count();
        assert!(wrong < 2_500, "{wrong} of 100000 let through");
    }

    #[test]
    fn one_member_stands_for_the_names_of_a_hash_and_the_cells_of_a_file() {
        let (branch, dir) = (BranchId(1), Ino(9));
        let cookie = key::cookie_base(b"name");
        let from = key::dirent_from(branch, dir, cookie);
        let until = key::dirent_from(branch, dir, cookie + (1 << COOKIE_SEQUENCE_BITS));
        let member = filter_hash(TreeKind::Now, &key::dirent(branch, dir, cookie + 3, b"name"));
        assert_eq!(filter_hash_of_range(TreeKind::Now, &from, &until), Some(member));
        let beyond = [&until[..], b"\0"].concat();
        assert_eq!(filter_hash_of_range(TreeKind::Now, &from, &beyond), None);
        let (from, until) = key::kind_range(branch, dir, KIND_DATA);
        let member = filter_hash(TreeKind::Now, &key::data(branch, dir, 77, 1));
        assert_eq!(filter_hash_of_range(TreeKind::Now, &key::data(branch, dir, 4, 0), &until), Some(member));
        assert_eq!(
            filter_hash_of_range(TreeKind::Now, &from, &until),
            Some(filter_hash(TreeKind::Now, &from))
        );
    }
}
