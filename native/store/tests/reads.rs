//! What a read costs the drives, counted: cold random blocks, and pages that the cache has.

mod rig;

use holdfast_device::Rng;
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{FileSystem, WriteFlags};
use holdfast_store::engine::EngineOptions;
use holdfast_store::volume::Volume;
use rig::{ROOT, Rig, counter, options};

const BLOCK: usize = 4096;

fn content(seed: u64, block: usize) -> Vec<u8> {
    let mut rng = Rng::from_seed(seed ^ (block as u64) << 20);
    (0..BLOCK / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect()
}

fn write_block(volume: &Volume, ino: Ino, block: usize, seed: u64) {
    let bytes = content(seed, block);
    volume.write(&ROOT, ino, (block * BLOCK) as u64, &bytes, WriteFlags::default()).expect("written");
}

fn read_block(volume: &Volume, ino: Ino, block: usize) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK];
    assert_eq!(volume.read(&ROOT, ino, (block * BLOCK) as u64, &mut bytes).expect("read"), BLOCK);
    bytes
}

fn shuffled(rng: &mut Rng, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for at in (1..count).rev() {
        order.swap(at, rng.below(at as u64 + 1) as usize);
    }
    order
}

/// A file written block by block in random order: its map is as fine as it can be. The cache holds the tables'
/// indexes and little else, as where metadata is larger than memory.
#[test]
fn a_cold_random_block_costs_two_pages_of_a_drive() {
    const BLOCKS: usize = 6000;
    let rig = Rig::create(21, 3, options());
    let volume = rig.volume("v", 2);
    let file = volume.create(&ROOT, ROOT_INO, b"f", 0o644).expect("created").ino;
    let mut rng = Rng::from_seed(21);
    for block in shuffled(&mut rng, BLOCKS) {
        write_block(&volume, file, block, 1);
    }
    rig.engine.settle().expect("settled");
    drop(volume);
    let rig = rig.kill(EngineOptions { metadata_cache_bytes: 64 << 10, ..options() });
    let volume = rig.mount("v");
    let order = shuffled(&mut rng, BLOCKS);
    // The first look-ups read the indexes, which then stay.
    for block in &order[..200] {
        read_block(&volume, file, *block);
    }
    let (mut sum, mut worst) = (0, 0);
    for block in &order[200..] {
        let before = counter(&rig.engine, "drive_bytes_read");
        assert!(read_block(&volume, file, *block) == content(1, *block), "block {block}");
        let cost = counter(&rig.engine, "drive_bytes_read") - before;
        (sum, worst) = (sum + cost, worst.max(cost));
    }
    let mean = sum as f64 / (BLOCKS - 200) as f64;
    println!("mean {mean:.0} bytes, worst {worst}");
    assert!(mean > BLOCK as f64, "nothing was cached that should not be");
    assert!(mean <= 8.2 * 1024.0, "{mean} bytes");
    assert!(worst <= 12 << 10, "{worst} bytes");
}

#[test]
fn a_page_that_was_read_costs_the_drives_nothing_until_it_is_driven_out() {
    let rig = Rig::create(22, 3, EngineOptions { data_cache_bytes: 2 << 20, ..options() });
    let volume = rig.volume("v", 2);
    let file = volume.create(&ROOT, ROOT_INO, b"f", 0o644).expect("created").ino;
    for block in 0..2000 {
        write_block(&volume, file, block, 2);
    }
    rig.engine.settle().expect("settled");
    let reads = |blocks: std::ops::Range<usize>| {
        let before = counter(&rig.engine, "drive_bytes_read");
        blocks.for_each(|block| drop(read_block(&volume, file, block)));
        counter(&rig.engine, "drive_bytes_read") - before
    };
    assert!(reads(0..100) >= 100 * BLOCK as u64);
    let hits = counter(&rig.engine, "data_cache_hits");
    assert_eq!(reads(0..100), 0);
    assert_eq!(counter(&rig.engine, "data_cache_hits"), hits + 100);
    reads(0..2000);
    assert!(counter(&rig.engine, "data_cache_bytes") <= 2 << 20, "within its budget");
    assert!(reads(0..2000) > 1000 * BLOCK as u64, "it is smaller than the file");
}

#[test]
fn what_was_just_written_is_read_from_memory() {
    let rig = Rig::create(24, 12, EngineOptions { data_cache_bytes: 1 << 20, memtable_bytes: 4 << 20, ..options() });
    let volume = rig.volume("v", 2);
    let file = volume.create(&ROOT, ROOT_INO, b"f", 0o644).expect("created").ino;
    // More than the ring holds, and a memtable that is not drained meanwhile: so much log is due later in a pool of this size.
    for block in 0..1200 {
        write_block(&volume, file, block, 3);
    }
    rig.engine.flush().expect("flushed");
    let before = counter(&rig.engine, "drive_bytes_read");
    for block in 800..1200 {
        assert!(read_block(&volume, file, block) == content(3, block), "block {block}");
    }
    assert_eq!(counter(&rig.engine, "drive_bytes_read"), before, "all of it was in the ring");
    for block in 0..200 {
        assert!(read_block(&volume, file, block) == content(3, block), "block {block}");
    }
    assert!(counter(&rig.engine, "drive_bytes_read") > before, "the ring is smaller");
}

/// Slots are reused under the cache all the time: overwrites, drains, cleaning. Every read is right.
#[test]
fn reused_slots_are_never_taken_for_what_lay_there() {
    const BLOCKS: usize = 1500;
    let rig = Rig::create(23, 3, EngineOptions { data_cache_bytes: 4 << 20, ..options() });
    let volume = rig.volume("v", 2);
    let file = volume.create(&ROOT, ROOT_INO, b"f", 0o644).expect("created").ino;
    let mut rng = Rng::from_seed(23);
    let mut seeds = vec![0; BLOCKS];
    for round in 1..40 {
        for _ in 0..BLOCKS / 2 {
            let block = rng.below(BLOCKS as u64) as usize;
            seeds[block] = round;
            write_block(&volume, file, block, round);
        }
        rig.engine.settle().expect("settled");
        for _ in 0..BLOCKS / 2 {
            let block = rng.below(BLOCKS as u64) as usize;
            if seeds[block] > 0 {
                let expected = content(seeds[block], block);
                assert!(read_block(&volume, file, block) == expected, "block {block} in round {round}");
            }
        }
    }
    assert!(counter(&rig.engine, "data_cache_hits") > 1000, "the cache took part");
    assert!(counter(&rig.engine, "egroups_freed") > 10, "slots were reused");
}
