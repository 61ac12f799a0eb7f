//! What two sites ask each other when they prove that a recovery point is the same at both. Only the data planes look inside.
//!
//! ```text
//! question  = "HFPQ" u32 | version u16 = 1 | kind u8 | reserved u8 | count u16 | count × place       places ascend
//!             kind 1, hashes: of the ranges between one place and the next, 64 at most
//!             kind 2, entries: of the range between two places
//! place     = length u16 | a key, or what comes right after one (a zero byte behind it); in a file's content a block: a level-0 DATA key
//! answer    = "HFPA" u32 | version u16 = 1 | kind u8 | flags u8 | reached: place | rest
//!             what lies before `reached` was answered; the asker goes on there
//! 1 rest    = count u16 | count × (hash 16 B | entries u64 | unreadable u32)       the last one may end before its range does
//! 2 rest    = entries; flag bit 0: there is the inode in whose content the first place lies
//! entry     = tag u8 | key_len u16 | key | body
//! 1 RECORD     value_len u16 | value       without what is local to a site
//! 2 DIGEST     hash 16 B                   of a long value, or of a block's bytes
//! 3 UNREADABLE (empty)                     a block that no copy here can tell
//! ```
//! A hash is XXH3-128 over the entries of its range: `tag u8 | key_len u16 | key | length u32 | bytes`, tag 1 with a record's value, tag 2 with a
//! block's 4096 bytes (those beyond the end of the file are zeroes), tag 3 without. Blocks of zeroes are no entries: they are a hole.

use crate::key;
use crate::limits::{KEY_BYTES_MAX, PROOF_ANSWER_BYTES_MAX, PROOF_PARTS_MAX};
use crate::wire::{DecodeError, Put, Take};

const MAGIC_QUESTION: u32 = u32::from_le_bytes(*b"HFPQ");
const MAGIC_ANSWER: u32 = u32::from_le_bytes(*b"HFPA");
const VERSION: u16 = 1;
const KIND_HASHES: u8 = 1;
const KIND_ENTRIES: u8 = 2;
const FLAG_INODE: u8 = 1;
const TAG_RECORD: u8 = 1;
const TAG_DIGEST: u8 = 2;
const TAG_UNREADABLE: u8 = 3;
/// A key, and the zero byte of what comes after it.
const PLACE_BYTES_MAX: usize = KEY_BYTES_MAX + 1;

/// A range of keys, or where one ends.
pub type Place = Vec<u8>;
pub type Hash = [u8; 16];

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// At least two places.
    Hashes(Vec<Place>),
    Entries { from: Place, until: Place },
}

impl Question {
    pub fn encode(&self) -> Vec<u8> {
        let (kind, places) = match self {
            Self::Hashes(places) => (KIND_HASHES, places.clone()),
            Self::Entries { from, until } => (KIND_ENTRIES, vec![from.clone(), until.clone()]),
        };
        debug_assert!((2..=PROOF_PARTS_MAX + 1).contains(&places.len()));
        let mut out = Vec::new();
        out.put_u32(MAGIC_QUESTION);
        out.put_u16(VERSION);
        out.put_u8(kind);
        out.put_u8(0);
        out.put_u16(places.len() as u16);
        places.iter().for_each(|place| put_place(&mut out, place));
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        let kind = take_head(&mut take, MAGIC_QUESTION)?;
        let (reserved, count) = (take.u8()?, take.u16()? as usize);
        if reserved != 0 || !(2..=PROOF_PARTS_MAX + 1).contains(&count) {
            return Err(DecodeError::Invalid("question"));
        }
        let mut places: Vec<Place> = Vec::with_capacity(count);
        for _ in 0..count {
            let place = take_place(&mut take)?;
            if places.last().is_some_and(|last| *last >= place) {
                return Err(DecodeError::Invalid("order of places"));
            }
            places.push(place);
        }
        take.end()?;
        match (kind, &mut places[..]) {
            (KIND_HASHES, _) => Ok(Self::Hashes(places)),
            (KIND_ENTRIES, [from, until]) => Ok(Self::Entries { from: std::mem::take(from), until: std::mem::take(until) }),
            _ => Err(DecodeError::Invalid("question kind")),
        }
    }
}

/// Of one range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PartHash {
    pub hash: Hash,
    pub entries: u64,
    pub unreadable: u32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hashes {
    pub reached: Place,
    pub parts: Vec<PartHash>,
}

impl Hashes {
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(self.parts.len() <= PROOF_PARTS_MAX);
        let mut out = head_of_answer(KIND_HASHES, 0, &self.reached);
        out.put_u16(self.parts.len() as u16);
        for part in &self.parts {
            out.put_bytes(&part.hash);
            out.put_u64(part.entries);
            out.put_u32(part.unreadable);
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        let (flags, reached) = take_answer(&mut take, KIND_HASHES)?;
        let count = take.u16()? as usize;
        if flags != 0 || count > PROOF_PARTS_MAX {
            return Err(DecodeError::Invalid("hashes"));
        }
        let parts: Result<Vec<PartHash>, DecodeError> = (0..count)
            .map(|_| Ok(PartHash { hash: take_hash(&mut take)?, entries: take.u64()?, unreadable: take.u32()? }))
            .collect();
        let parts = parts?;
        take.end()?;
        Ok(Self { reached, parts })
    }
}

/// What lies under a key, as much as another site has to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shown {
    Record(Vec<u8>),
    Digest(Hash),
    Unreadable,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entries {
    pub reached: Place,
    /// Where the first place lies in a file's content: there is that file.
    pub has_inode: bool,
    /// In the order of keys.
    pub entries: Vec<(key::Key, Shown)>,
}

impl Entries {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = head_of_answer(KIND_ENTRIES, if self.has_inode { FLAG_INODE } else { 0 }, &self.reached);
        self.entries.iter().for_each(|(key, shown)| put_entry(&mut out, key, shown));
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        let (flags, reached) = take_answer(&mut take, KIND_ENTRIES)?;
        if flags & !FLAG_INODE != 0 {
            return Err(DecodeError::Invalid("flags of entries"));
        }
        let mut entries: Vec<(key::Key, Shown)> = Vec::new();
        while !take.is_empty() {
            let tag = take.u8()?;
            let key = take_place(&mut take)?;
            if key.len() > KEY_BYTES_MAX || entries.last().is_some_and(|(last, _)| *last >= key) {
                return Err(DecodeError::Invalid("order of entries"));
            }
            let shown = match tag {
                TAG_RECORD => {
                    let length = take.u16()? as usize;
                    Shown::Record(take.bytes(length)?.to_vec())
                }
                TAG_DIGEST => Shown::Digest(take_hash(&mut take)?),
                TAG_UNREADABLE => Shown::Unreadable,
                _ => return Err(DecodeError::Invalid("entry tag")),
            };
            entries.push((key, shown));
        }
        Ok(Self { reached, has_inode: flags & FLAG_INODE != 0, entries })
    }
}

/// Bytes of an entry in an answer.
pub fn entry_bytes(key: &[u8], shown: &Shown) -> usize {
    let body = match shown {
        Shown::Record(value) => 2 + value.len(),
        Shown::Digest(_) => 16,
        Shown::Unreadable => 0,
    };
    1 + 2 + key.len() + body
}

fn put_entry(out: &mut Vec<u8>, key: &[u8], shown: &Shown) {
    let tag = match shown {
        Shown::Record(_) => TAG_RECORD,
        Shown::Digest(_) => TAG_DIGEST,
        Shown::Unreadable => TAG_UNREADABLE,
    };
    out.put_u8(tag);
    put_place(out, key);
    match shown {
        Shown::Record(value) => {
            debug_assert!(value.len() <= u16::MAX as usize);
            out.put_u16(value.len() as u16);
            out.put_bytes(value);
        }
        Shown::Digest(hash) => out.put_bytes(hash),
        Shown::Unreadable => {}
    }
}

fn head_of_answer(kind: u8, flags: u8, reached: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u32(MAGIC_ANSWER);
    out.put_u16(VERSION);
    out.put_u8(kind);
    out.put_u8(flags);
    put_place(&mut out, reached);
    out
}

/// Kind of a message that begins like this.
fn take_head(take: &mut Take<'_>, magic: u32) -> Result<u8, DecodeError> {
    if take.u32()? != magic {
        return Err(DecodeError::Invalid("magic of a proof"));
    }
    match take.u16()? {
        VERSION => take.u8(),
        version => Err(DecodeError::Unsupported(u64::from(version))),
    }
}

fn take_answer(take: &mut Take<'_>, kind: u8) -> Result<(u8, Place), DecodeError> {
    if take.rest().len() > PROOF_ANSWER_BYTES_MAX {
        return Err(DecodeError::Invalid("length of an answer"));
    }
    if take_head(take, MAGIC_ANSWER)? != kind {
        return Err(DecodeError::Invalid("answer kind"));
    }
    Ok((take.u8()?, take_place(take)?))
}

fn take_hash(take: &mut Take<'_>) -> Result<Hash, DecodeError> {
    take.bytes(16)?.try_into().map_err(|_| DecodeError::Truncated)
}

fn put_place(out: &mut Vec<u8>, place: &[u8]) {
    debug_assert!(place.len() <= PLACE_BYTES_MAX);
    out.put_u16(place.len() as u16);
    out.put_bytes(place);
}

/// Only places of volumes: what belongs to the group itself is nobody else's business.
fn take_place(take: &mut Take<'_>) -> Result<Place, DecodeError> {
    let length = take.u16()? as usize;
    if length > PLACE_BYTES_MAX {
        return Err(DecodeError::Invalid("length of a place"));
    }
    let place = take.bytes(length)?;
    let parts = key::parts(place).ok_or(DecodeError::Invalid("place"))?;
    let in_content = parts.kind == key::KIND_DATA && !parts.rest.is_empty();
    let is_block = key::data_place(place).is_some_and(|(_, level)| level == 0);
    if parts.branch == crate::GROUP_BRANCH || in_content && !is_block {
        return Err(DecodeError::Invalid("place"));
    }
    Ok(place.to_vec())
}

/// Hash of a range, entry by entry.
#[derive(Clone)]
pub struct Hasher {
    state: xxhash_rust::xxh3::Xxh3,
    entries: u64,
    unreadable: u32,
}

impl Default for Hasher {
    fn default() -> Self {
        Self { state: xxhash_rust::xxh3::Xxh3::new(), entries: 0, unreadable: 0 }
    }
}

impl Hasher {
    fn add(&mut self, tag: u8, key: &[u8], bytes: &[u8]) {
        let mut head = Vec::with_capacity(7 + key.len());
        head.put_u8(tag);
        head.put_u16(key.len() as u16);
        head.put_bytes(key);
        head.put_u32(bytes.len() as u32);
        self.state.update(&head);
        self.state.update(bytes);
        self.entries += 1;
    }

    pub fn record(&mut self, key: &[u8], value: &[u8]) {
        self.add(TAG_RECORD, key, value);
    }

    pub fn block(&mut self, key: &[u8], content: &[u8]) {
        self.add(TAG_DIGEST, key, content);
    }

    pub fn unreadable(&mut self, key: &[u8]) {
        self.add(TAG_UNREADABLE, key, &[]);
        self.unreadable += 1;
    }

    pub fn finish(&self) -> PartHash {
        let hash = self.state.digest128().to_le_bytes();
        PartHash { hash, entries: self.entries, unreadable: self.unreadable }
    }
}

/// Of a value or of a block, alone.
pub fn digest(bytes: &[u8]) -> Hash {
    xxhash_rust::xxh3::xxh3_128(bytes).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BranchId, Ino, Lsn};

    const BRANCH: BranchId = BranchId(1);

    #[test]
    fn messages_come_back_whole_or_not_at_all() {
        let inode = key::inode(BRANCH, Ino(5));
        let block = key::data(BRANCH, Ino(5), 9, 0);
        let places = vec![key::volume(BRANCH), inode.clone(), block.clone()];
        let hashes = Question::Hashes(places.clone());
        let entries = Question::Entries { from: inode.clone(), until: block.clone() };
        let mut hasher = Hasher::default();
        hasher.record(&inode, b"value");
        hasher.unreadable(&block);
        let part = hasher.finish();
        assert_eq!((part.entries, part.unreadable), (2, 1));
        let answer = Hashes { reached: block.clone(), parts: vec![PartHash::default(), part] };
        let shown = Entries {
            reached: block.clone(),
            has_inode: true,
            entries: vec![
                (inode.clone(), Shown::Record(b"value".to_vec())),
                (key::xattr(BRANCH, Ino(5), b"user.a"), Shown::Digest(digest(b"b"))),
                (block, Shown::Unreadable),
            ],
        };
        assert_eq!(Question::decode(&hashes.encode()), Ok(hashes.clone()));
        assert_eq!(Question::decode(&entries.encode()), Ok(entries.clone()));
        assert_eq!(Hashes::decode(&answer.encode()), Ok(answer.clone()));
        assert_eq!(Entries::decode(&shown.encode()), Ok(shown.clone()));
        let bytes: usize = shown.entries.iter().map(|(key, shown)| entry_bytes(key, shown)).sum();
        assert_eq!(shown.encode().len(), 8 + 2 + shown.reached.len() + bytes);
        assert!(Hashes::decode(&shown.encode()).is_err() && Entries::decode(&answer.encode()).is_err());
        for bytes in [hashes.encode(), entries.encode()] {
            assert!((0..bytes.len()).all(|cut| Question::decode(&bytes[..cut]).is_err()));
        }
        let bytes = answer.encode();
        assert!((0..bytes.len()).all(|cut| Hashes::decode(&bytes[..cut]).is_err()));
    }

    #[test]
    fn places_that_are_none_of_a_volume_are_refused() {
        let good = key::inode(BRANCH, Ino(5));
        let bad = [key::point(Lsn(1)), key::data(BRANCH, Ino(5), 16, 1), key::replica(), vec![1; 300], Vec::new(), vec![0; 4]];
        for place in bad {
            let (from, until) = if place < good { (place, good.clone()) } else { (good.clone(), place) };
            let mut bytes = Vec::new();
            bytes.put_u32(MAGIC_QUESTION);
            bytes.put_u16(VERSION);
            bytes.put_u8(KIND_ENTRIES);
            bytes.put_u8(0);
            bytes.put_u16(2);
            for place in [&from, &until] {
                bytes.put_u16(place.len() as u16);
                bytes.put_bytes(place);
            }
            assert!(Question::decode(&bytes).is_err(), "{from:?} {until:?}");
        }
        let backwards = Question::Hashes(vec![key::inode(BRANCH, Ino(6)), good]);
        assert!(Question::decode(&backwards.encode()).is_err());
    }

    #[test]
    fn golden() {
        let question = Question::Entries { from: key::inode(BRANCH, Ino(5)), until: key::data(BRANCH, Ino(5), 9, 0) };
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let head = "48465051010002000200".to_owned();
        let places = "0d0000000001000000000000000510".to_owned() + "1200000000010000000000000005400000000908";
        assert_eq!(hex(&question.encode()), head + &places);
        let mut hasher = Hasher::default();
        hasher.record(b"key", b"value");
        assert_eq!(hex(&hasher.finish().hash), hex(&digest(b"\x01\x03\x00key\x05\x00\x00\x00value")));
    }
}
