//! What a simulated drive holds: blocks shared between copies, so that a copy costs a few pointers and tens of
//! thousands of crash states fit into memory.
//!
//! - A block of zeroes is not kept: equal content has one representation and one hash.
//! - The hash of a file is a sum over its blocks, so that a write changes it in time of its own length.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

pub(super) const BLOCK_BYTES: usize = 4096;
const CHUNK_BLOCKS: u64 = 64;

#[derive(Debug)]
pub(super) struct Block {
    hash: u64,
    bytes: [u8; BLOCK_BYTES],
}

type Chunk = [Option<Arc<Block>>; CHUNK_BLOCKS as usize];

/// A bijection that spreads every bit (splitmix64's finish).
pub(super) fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// For telling states apart, not for integrity.
pub(super) fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = mix(seed ^ bytes.len() as u64);
    for word in bytes.chunks(8) {
        let mut value = [0u8; 8];
        value[..word.len()].copy_from_slice(word);
        hash = (hash ^ u64::from_le_bytes(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    mix(hash)
}

/// Bytes of a write. Zeroes are not spelled out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Bytes(Arc<[u8]>),
    Zeroes(u64),
}

impl Content {
    pub fn len(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Zeroes(count) => *count,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn hash(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => hash_bytes(1, bytes),
            Content::Zeroes(count) => mix(*count),
        }
    }

    /// The first `count` bytes.
    pub(super) fn prefix(&self, count: u64) -> Content {
        match self {
            Content::Bytes(bytes) => Content::Bytes(Arc::from(&bytes[..count as usize])),
            Content::Zeroes(_) => Content::Zeroes(count),
        }
    }
}

/// The blocks that a write covers whole, made once and shared by every state that holds the write. Empty for writes
/// that are not aligned.
pub(super) fn whole_blocks(offset: u64, content: &Content) -> Arc<[Option<Arc<Block>>]> {
    let Content::Bytes(bytes) = content else { return Arc::from([]) };
    if !offset.is_multiple_of(BLOCK_BYTES as u64) {
        return Arc::from([]);
    }
    bytes.as_chunks::<BLOCK_BYTES>().0.iter().map(make_block).collect()
}

fn make_block(bytes: &[u8; BLOCK_BYTES]) -> Option<Arc<Block>> {
    let kept = bytes.iter().any(|byte| *byte != 0);
    kept.then(|| Arc::new(Block { hash: hash_bytes(0, bytes), bytes: *bytes }))
}

#[derive(Clone, Debug)]
struct FileImage {
    bytes: u64,
    hash: u64,
    chunks: Arc<BTreeMap<u64, Arc<Chunk>>>,
}

impl FileImage {
    fn zeroed(bytes: u64) -> Self {
        Self { bytes, hash: 0, chunks: Arc::new(BTreeMap::new()) }
    }

    fn block(&self, index: u64) -> Option<&Arc<Block>> {
        self.chunks.get(&(index / CHUNK_BLOCKS))?[(index % CHUNK_BLOCKS) as usize].as_ref()
    }

    fn set_block(&mut self, index: u64, block: Option<Arc<Block>>) {
        let part =
            |block: &Option<Arc<Block>>| block.as_ref().map_or(0, |block| mix(block.hash ^ mix(index + 1)));
        if block.is_none() && self.block(index).is_none() {
            return;
        }
        let chunks = Arc::make_mut(&mut self.chunks);
        let empty = || Arc::new(std::array::from_fn(|_| None));
        let chunk = Arc::make_mut(chunks.entry(index / CHUNK_BLOCKS).or_insert_with(empty));
        let slot = &mut chunk[(index % CHUNK_BLOCKS) as usize];
        self.hash = self.hash.wrapping_sub(part(slot)).wrapping_add(part(&block));
        *slot = block;
    }

    /// Calls `change` with every block that the range touches and the part of the range that lies in it.
    fn change(&mut self, range: Range<u64>, mut change: impl FnMut(&mut [u8], Range<u64>)) {
        let size = BLOCK_BYTES as u64;
        for index in range.start / size..range.end.div_ceil(size) {
            let start = index * size;
            let part = range.start.max(start)..range.end.min(start + size);
            let mut bytes = self.block(index).map_or([0; BLOCK_BYTES], |block| block.bytes);
            let inside = (part.start - start) as usize..(part.end - start) as usize;
            change(&mut bytes[inside], part);
            self.set_block(index, make_block(&bytes));
        }
    }

    fn write(&mut self, offset: u64, content: &Content, part: Range<u64>) {
        let range = offset + part.start..offset + part.end;
        match content {
            Content::Bytes(bytes) => self.change(range, |into, at| {
                let from = (at.start - offset) as usize..(at.end - offset) as usize;
                into.copy_from_slice(&bytes[from]);
            }),
            Content::Zeroes(_) => self.change(range, |into, _| into.fill(0)),
        }
    }

    fn read(&self, offset: u64, into: &mut [u8]) {
        let (size, end) = (BLOCK_BYTES as u64, offset + into.len() as u64);
        for index in offset / size..end.div_ceil(size) {
            let (start, stop) = (offset.max(index * size), end.min((index + 1) * size));
            let into = &mut into[(start - offset) as usize..(stop - offset) as usize];
            match self.block(index) {
                Some(block) => {
                    into.copy_from_slice(&block.bytes[(start - index * size) as usize..][..into.len()])
                }
                None => into.fill(0),
            }
        }
    }
}

/// All files of a drive. Copies share what they have in common.
#[derive(Clone, Debug, Default)]
pub struct DriveImage {
    files: BTreeMap<Arc<str>, FileImage>,
}

impl DriveImage {
    /// Names and lengths, sorted.
    pub fn files(&self) -> Vec<(String, u64)> {
        self.files.iter().map(|(name, file)| (name.to_string(), file.bytes)).collect()
    }

    pub fn bytes(&self, file: &str) -> Option<u64> {
        self.files.get(file).map(|found| found.bytes)
    }

    /// `None`: no such file, or the range passes its end.
    pub fn read(&self, file: &str, offset: u64, bytes: usize) -> Option<Vec<u8>> {
        let found = self.files.get(file)?;
        let end = offset.checked_add(bytes as u64)?;
        let mut into = vec![0; bytes];
        (end <= found.bytes).then(|| found.read(offset, &mut into))?;
        Some(into)
    }

    /// Equal for equal content (files, lengths, bytes).
    pub fn hash(&self) -> u64 {
        self.files.iter().fold(0, |hash, (name, file)| {
            mix(hash ^ mix(file.hash ^ mix(file.bytes ^ hash_bytes(2, name.as_bytes()))))
        })
    }

    /// Block ranges (in bytes) in which the two differ, by file; a file missing on one side differs wholly.
    pub fn differences(&self, other: &DriveImage) -> Vec<(String, Range<u64>)> {
        let mut names: Vec<&Arc<str>> = self.files.keys().chain(other.files.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let mut found = Vec::new();
        for name in names {
            match (self.files.get(name), other.files.get(name)) {
                (Some(one), Some(two)) if one.bytes == two.bytes => {
                    found.extend(
                        block_differences(one, two).into_iter().map(|range| (name.to_string(), range)),
                    );
                }
                (one, two) => {
                    let bytes = one.into_iter().chain(two).map(|file| file.bytes).max().unwrap_or(0);
                    found.push((name.to_string(), 0..bytes));
                }
            }
        }
        found
    }

    pub(super) fn create(&mut self, file: Arc<str>, bytes: u64) {
        self.files.insert(file, FileImage::zeroed(bytes));
    }

    pub(super) fn remove(&mut self, file: &str) {
        self.files.remove(file);
    }

    /// Writes the `part` of `content` that would lie at `offset`. A missing file takes nothing.
    pub(super) fn write(&mut self, file: &str, offset: u64, content: &Content, part: Range<u64>) {
        if let Some(found) = self.files.get_mut(file) {
            found.write(offset, content, part);
        }
    }

    /// As `write`, with the `whole_blocks` of the same offset and content.
    pub(super) fn write_shared(
        &mut self,
        file: &str,
        offset: u64,
        content: &Content,
        blocks: &[Option<Arc<Block>>],
        part: Range<u64>,
    ) {
        let Some(found) = self.files.get_mut(file) else { return };
        let size = BLOCK_BYTES as u64;
        let (first, end) = (part.start.div_ceil(size), (part.end / size).min(blocks.len() as u64));
        if first >= end {
            return found.write(offset, content, part);
        }
        for at in first..end {
            found.set_block(offset / size + at, blocks[at as usize].clone());
        }
        found.write(offset, content, part.start..first * size);
        found.write(offset, content, end * size..part.end);
    }

    pub(super) fn read_into(&self, file: &str, offset: u64, into: &mut [u8]) {
        if let Some(found) = self.files.get(file) {
            found.read(offset, into);
        }
    }

    pub(super) fn flip_bit(&mut self, file: &str, offset: u64, bit: u8) {
        if let Some(found) = self.files.get_mut(file) {
            found.change(offset..offset + 1, |byte, _| byte[0] ^= 1 << (bit % 8));
        }
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }
}

fn block_differences(one: &FileImage, two: &FileImage) -> Vec<Range<u64>> {
    let mut chunks: Vec<u64> = one.chunks.keys().chain(two.chunks.keys()).copied().collect();
    chunks.sort_unstable();
    chunks.dedup();
    let blocks = chunks.into_iter().flat_map(|chunk| chunk * CHUNK_BLOCKS..(chunk + 1) * CHUNK_BLOCKS);
    let content = |file: &FileImage, index| file.block(index).map(|block| block.bytes);
    let differ = blocks.filter(|index| content(one, *index) != content(two, *index));
    differ.map(|index| index * BLOCK_BYTES as u64..(index + 1) * BLOCK_BYTES as u64).collect()
}
