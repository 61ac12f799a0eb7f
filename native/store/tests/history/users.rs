//! What users do to a volume: one random change.

use super::rig::tree::{Entry, walk};
use holdfast_device::Rng;
use holdfast_format::inode::{Command, Writer};
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{
    Caller, FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FileSystem, FsResult, RENAME_EXCHANGE, SetAttr, WriteFlags,
};
use holdfast_store::volume::Volume;

const NAMES: [&[u8]; 7] = [b"a", b"b", b"c", b"d", b"e", b"f", b"\xff"];
const FILE_BYTES_MAX: u64 = 300_000;

pub fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> Option<&'a T> {
    if from.is_empty() { None } else { from.get(rng.below(from.len() as u64) as usize) }
}

fn bytes(rng: &mut Rng, length: u64) -> Vec<u8> {
    (0..length).map(|_| rng.next_u64() as u8).collect()
}

/// Changes something. What POSIX refuses (a name that exists, a directory that is not empty) changes nothing.
pub fn change(volume: &Volume, rng: &mut Rng) {
    let pid = 1 + rng.below(1000) as u32;
    let writer = Some(Writer { uid: 0, pid, command: Command::new(b"user") });
    let caller = Caller { pid, umask: 0o022, writer, ..Caller::default() };
    let entries = walk(volume).expect("readable").entries;
    let directories: Vec<Ino> =
        entries.iter().filter(|entry| entry.is_directory()).map(|entry| entry.ino).chain([ROOT_INO]).collect();
    let files: Vec<&Entry> = entries.iter().filter(|entry| entry.is_file()).collect();
    let dir = *pick(rng, &directories).expect("the root");
    let name = NAMES[rng.below(NAMES.len() as u64) as usize];
    let made = |made: FsResult<holdfast_store::api::Attr>| {
        if let Ok(attr) = made {
            volume.forget(attr.ino, 1);
        }
    };
    match rng.below(16) {
        0 | 1 => made(volume.create(&caller, dir, name, 0o600 | rng.below(64) as u32)),
        2 => made(volume.mkdir(&caller, dir, name, 0o755)),
        3 => made(volume.symlink(&caller, dir, name, b"target")),
        4..=8 => {
            let Some(file) = pick(rng, &files) else { return };
            let length = [3, 900, 4096, 8192, 70_000, 130_000][rng.below(6) as usize];
            let mut offset = rng.below(FILE_BYTES_MAX - length);
            if rng.chance(2, 3) {
                offset &= !4095;
            }
            let data = bytes(rng, length);
            let _ = volume.write(&caller, file.ino, offset, &data, WriteFlags::default());
        }
        9 => {
            let Some(file) = pick(rng, &files) else { return };
            let size = if rng.chance(1, 3) { 0 } else { rng.below(FILE_BYTES_MAX) };
            let _ = volume.setattr(&caller, file.ino, &SetAttr { size: Some(size), ..SetAttr::default() });
        }
        10 => {
            let Some(file) = pick(rng, &files) else { return };
            let (offset, length) = (rng.below(FILE_BYTES_MAX), 1 + rng.below(100_000));
            let mode = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE;
            let _ = volume.fallocate(&caller, file.ino, offset, length, mode);
        }
        11 => {
            let (Some(from), Some(to)) = (pick(rng, &files), pick(rng, &files)) else { return };
            let (at, length) = (rng.below(20) * 4096, 4096 * (1 + rng.below(24)));
            let _ = volume.copy_file_range(&caller, (from.ino, rng.below(20) * 4096), (to.ino, at), length);
        }
        12 => {
            let Some(entry) = pick(rng, &entries) else { return };
            let length = 1 + rng.below(30);
            let value = bytes(rng, length);
            let _ = volume.setxattr(&caller, entry.ino, b"user.x", &value, 0, false);
        }
        13 => {
            let Some(entry) = pick(rng, &entries) else { return };
            let exchange = if rng.chance(1, 4) { RENAME_EXCHANGE } else { 0 };
            let _ = volume.rename(&caller, (entry.dir, &entry.name), (dir, name), exchange);
        }
        14 => {
            let Some(file) = pick(rng, &files) else { return };
            made(volume.link(&caller, file.ino, dir, name));
        }
        _ => {
            let Some(entry) = pick(rng, &entries) else { return };
            let _ = match entry.is_directory() {
                true => volume.rmdir(&caller, entry.dir, &entry.name),
                false => volume.unlink(&caller, entry.dir, &entry.name),
            };
        }
    }
}
