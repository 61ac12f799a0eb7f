//! Reading a batch: by several threads as by one, and neighbours as one entry.

mod rig;

use holdfast_device::Rng;
use holdfast_format::chunk::{ChunkEntry, ChunkHeader, each_entry};
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{Caller, FileSystem, WriteFlags};
use holdfast_store::engine::Engine;
use holdfast_store::volume::Volume;
use rig::{Rig, options};
use std::sync::Arc;

const NAME: &str = "data";
const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0, writer: None };
const READERS: usize = 4;

fn noise(rng: &mut Rng, blocks: usize) -> Vec<u8> {
    (0..blocks * BLOCK_BYTES / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect()
}

fn write(volume: &Volume, ino: Ino, block: u64, content: &[u8]) {
    volume.write(&ROOT, ino, block * BLOCK_BYTES as u64, content, WriteFlags::default()).expect("written");
}

/// Chunks and cursors of a batch.
fn parts(engine: &Arc<Engine>, (base, target): (u64, u64), readers: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut delta = engine.delta_open(NAME, base, target, &[]).expect("kept").with_readers(readers);
    std::iter::from_fn(|| delta.next_part(usize::MAX).expect("read")).map(|part| (part.chunk, part.cursor)).collect()
}

/// Start and count of the blocks that a batch has.
fn blocks_of(parts: &[(Vec<u8>, Vec<u8>)]) -> Vec<(u32, usize)> {
    let mut found = Vec::new();
    for (chunk, _) in parts {
        let (header, body) = ChunkHeader::decode(chunk).expect("whole");
        let raw = match header.is_compressed {
            true => zstd::bulk::decompress(body, header.raw_bytes as usize).expect("compressed"),
            false => body.to_vec(),
        };
        each_entry(header.branch, &raw, |entry| {
            if let ChunkEntry::Blocks { start, content, .. } = entry {
                found.push((start, content.len() / BLOCK_BYTES));
            }
        })
        .expect("entries");
    }
    found
}

#[test]
fn several_readers_read_what_one_reads() {
    let rig = Rig::create(11, 2, options());
    let (volume, mut rng) = (rig.volume(NAME, 2), Rng::from_seed(11));
    let ino = volume.create(&ROOT, ROOT_INO, b"file", 0o600).expect("created").ino;
    write(&volume, ino, 0, &noise(&mut rng, 200));
    let first = rig.engine.replica_cut(NAME).expect("cut");
    for _ in 0..150 {
        let (block, blocks) = (rng.below(600), 1 + rng.below(9) as usize);
        write(&volume, ino, block, &noise(&mut rng, blocks));
    }
    let second = rig.engine.replica_cut(NAME).expect("cut");
    for (base, target) in [(0, second.lsn), (first.lsn, second.lsn)] {
        let of_one = parts(&rig.engine, (base, target), 1);
        assert!(of_one.len() > 3, "{} parts", of_one.len());
        assert_eq!(parts(&rig.engine, (base, target), READERS), of_one, "from {base}");
        let (mut blocks, mut end) = (blocks_of(&of_one), 0);
        blocks.sort_unstable();
        for (start, count) in blocks {
            assert!(start >= end, "block {start} comes twice");
            end = start + count as u32;
        }
    }
}

#[test]
fn neighbours_are_one_entry() {
    let rig = Rig::create(12, 2, options());
    let (volume, mut rng) = (rig.volume(NAME, 2), Rng::from_seed(12));
    let ino = volume.create(&ROOT, ROOT_INO, b"file", 0o600).expect("created").ino;
    write(&volume, ino, 0, &noise(&mut rng, 40));
    let first = rig.engine.replica_cut(NAME).expect("cut");
    for block in (3..15).rev().chain([30]) {
        write(&volume, ino, block, &noise(&mut rng, 1));
    }
    let second = rig.engine.replica_cut(NAME).expect("cut");
    assert_eq!(blocks_of(&parts(&rig.engine, (first.lsn, second.lsn), 1)), [(3, 12), (30, 1)]);
}
