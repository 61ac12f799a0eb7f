//! What a volume looks like from outside, as text: two volumes are equal when their texts are.

use holdfast_format::checksum::checksum;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{Attr, FileSystem, FsResult};
use holdfast_store::volume::Volume;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::ROOT;

const READ_BYTES: usize = 64 << 10;
const KIND_DIRECTORY: u8 = 4;
const KIND_FILE: u8 = 8;
const KIND_SYMLINK: u8 = 10;

/// A name in a volume.
#[derive(Clone, Debug)]
pub struct Entry {
    pub dir: Ino,
    pub name: Vec<u8>,
    pub ino: Ino,
    pub kind: u8,
    pub size: u64,
}

impl Entry {
    pub fn is_directory(&self) -> bool {
        self.kind == KIND_DIRECTORY
    }
    pub fn is_file(&self) -> bool {
        self.kind == KIND_FILE
    }
}

/// Every name of a volume, and the text of all that can be seen through them.
pub struct Tree {
    pub entries: Vec<Entry>,
    /// What was seen of each inode.
    pub inodes: BTreeMap<Ino, String>,
    pub text: String,
}

/// Walks a volume that is mounted without access times.
pub fn walk(volume: &Volume) -> FsResult<Tree> {
    let mut tree = Tree { entries: Vec::new(), inodes: BTreeMap::new(), text: String::new() };
    describe(volume, ROOT_INO, KIND_DIRECTORY, &mut tree.text)?;
    let mut directories = vec![(ROOT_INO, String::new())];
    while let Some((dir, path)) = directories.pop() {
        let mut found: Vec<(Vec<u8>, Ino, u8)> = Vec::new();
        volume.readdir(&ROOT, dir, 0, false, &mut |entry| {
            if entry.name != b"." && entry.name != b".." {
                found.push((entry.name.to_vec(), entry.ino, entry.kind));
            }
            true
        })?;
        found.sort();
        for (name, ino, kind) in found {
            let path = format!("{path}/{}", String::from_utf8_lossy(&name));
            let _ = write!(tree.text, "{path} ");
            let from = tree.text.len();
            let size = describe(volume, ino, kind, &mut tree.text)?.size;
            tree.inodes.insert(ino, tree.text[from..].to_owned());
            if kind == KIND_DIRECTORY {
                directories.push((ino, path));
            }
            tree.entries.push(Entry { dir, name, ino, kind, size });
        }
    }
    Ok(tree)
}

fn describe(volume: &Volume, ino: Ino, kind: u8, text: &mut String) -> FsResult<Attr> {
    let attr = volume.getattr(ino)?;
    let _ = write!(
        text,
        "{ino:?} {:o} n{} u{} g{} r{} s{} b{} {:?} {:?} {:?} {:?}",
        attr.mode,
        attr.nlink,
        attr.uid,
        attr.gid,
        attr.rdev,
        attr.size,
        attr.blocks,
        attr.atime,
        attr.mtime,
        attr.ctime,
        attr.btime
    );
    if kind == KIND_FILE {
        let _ = write!(text, " {:016x}", content_hash(volume, ino, attr.size)?);
    }
    if kind == KIND_SYMLINK {
        let _ = write!(text, " -> {}", String::from_utf8_lossy(&volume.readlink(ino)?));
    }
    for name in volume.listxattr(ino)?.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let value = volume.getxattr(ino, name)?;
        let _ = write!(text, " {}={:016x}", String::from_utf8_lossy(name), checksum(&value));
    }
    text.push('\n');
    Ok(attr)
}

/// Read in turns of many blocks and of one, which take different ways.
fn content_hash(volume: &Volume, ino: Ino, size: u64) -> FsResult<u64> {
    let mut sums = Vec::new();
    let mut at = 0;
    let mut bytes = vec![0; READ_BYTES.min(size as usize)];
    let mut turns = [READ_BYTES, BLOCK_BYTES, BLOCK_BYTES].iter().cycle();
    while at < size {
        let most = turns.next().copied().unwrap_or(BLOCK_BYTES);
        let want = (size - at).min(most as u64) as usize;
        let got = volume.read(&ROOT, ino, at, &mut bytes[..want])?;
        assert_eq!(got, want, "{ino:?} ends before its size");
        bytes[..want].chunks(BLOCK_BYTES).for_each(|block| sums.extend_from_slice(&checksum(block).to_le_bytes()));
        at += want as u64;
    }
    Ok(checksum(&sums))
}

/// The first line in which two texts differ, for messages.
pub fn difference(expected: &str, found: &str) -> String {
    let (mut left, mut right) = (expected.lines(), found.lines());
    loop {
        match (left.next(), right.next()) {
            (None, None) => return "equal".to_owned(),
            (expected, found) if expected == found => {}
            (expected, found) => {
                return format!(
                    "expected {:?}\n   found {:?}",
                    expected.unwrap_or("nothing more"),
                    found.unwrap_or("nothing more")
                );
            }
        }
    }
}
