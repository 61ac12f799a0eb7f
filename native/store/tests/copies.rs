//! Copies of large ranges by reference: cells of 64 KiB and 1 MiB are shared whole, cut by later writes, holes and truncations, and
//! released block by block. Every file equals plain bytes at each end of the process, and what nobody names comes back.

mod rig;

use holdfast_device::Rng;
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{FileSystem, SetAttr, WriteFlags};
use holdfast_store::engine::EngineOptions;
use holdfast_store::volume::Volume;
use rig::{ROOT, Rig, options, read_all};

const FILES: usize = 4;
const FILE_BYTES_MAX: u64 = 5 << 20;
const BLOCK: u64 = 4096;
const FALLOC_PUNCH: u32 = 1 | 2;
/// Slots of 2 MiB: a cell of 1 MiB lies in one egroup, whole.
const DRIVE_BYTES: u64 = 512 << 20;
const STEPS: usize = 60;
const SEEDS: std::ops::Range<u64> = 0..24;

/// Files of plain bytes.
type Model = Vec<Vec<u8>>;

fn name(file: usize) -> Vec<u8> {
    format!("f{file}").into_bytes()
}

fn ino(volume: &Volume, file: usize) -> Ino {
    let ino = volume.lookup(ROOT_INO, &name(file)).expect("there").ino;
    volume.forget(ino, 1);
    ino
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A place in a file: mostly at a boundary of a large cell, or beside one.
fn place(rng: &mut Rng) -> u64 {
    let unit = [BLOCK, 16 * BLOCK, 256 * BLOCK][rng.below(3) as usize];
    rng.below(3 * (1 << 20) / unit + 1) * unit
}

fn write(volume: &Volume, model: &mut Model, rng: &mut Rng) {
    let (file, at) = (rng.below(FILES as u64) as usize, place(rng) + if rng.below(4) == 0 { rng.below(BLOCK) } else { 0 });
    let length = [1 + rng.below(3 * BLOCK), BLOCK, 64 << 10, 1 << 20][rng.below(4) as usize] as usize;
    let bytes: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
    let most = volume.write_bytes_max() as usize;
    for (n, piece) in bytes.chunks(most).enumerate() {
        let at = at + (n * most) as u64;
        volume.write(&ROOT, ino(volume, file), at, piece, WriteFlags::default()).expect("written");
    }
    put(&mut model[file], at as usize, &bytes);
}

fn copy(volume: &Volume, model: &mut Model, rng: &mut Rng) {
    let (from_file, to_file) = (rng.below(FILES as u64) as usize, rng.below(FILES as u64) as usize);
    let (from, to) = (place(rng), place(rng));
    let length = (place(rng).max(BLOCK)).min((model[from_file].len() as u64).saturating_sub(from)).min(FILE_BYTES_MAX - to);
    let overlaps = from_file == to_file && to < from + length && from < to + length;
    if length == 0 || overlaps {
        return;
    }
    let (source, target) = (ino(volume, from_file), ino(volume, to_file));
    let mut done = 0;
    while done < length {
        let count = volume.copy_file_range(&ROOT, (source, from + done), (target, to + done), length - done);
        done += count.expect("copied");
    }
    let piece = model[from_file][from as usize..(from + length) as usize].to_vec();
    put(&mut model[to_file], to as usize, &piece);
}

fn step(volume: &Volume, model: &mut Model, rng: &mut Rng) {
    let (file, at) = (rng.below(FILES as u64) as usize, place(rng));
    match rng.below(10) {
        0..=3 => write(volume, model, rng),
        4..=7 => copy(volume, model, rng),
        8 => {
            let length = place(rng).max(1) - rng.below(2);
            if length > 0 {
                volume.fallocate(&ROOT, ino(volume, file), at, length, FALLOC_PUNCH).expect("punched");
                let end = (at + length).min(model[file].len() as u64);
                if at < end {
                    model[file][at as usize..end as usize].fill(0);
                }
            }
        }
        _ => {
            let set = SetAttr { size: Some(at), ..Default::default() };
            volume.setattr(&ROOT, ino(volume, file), &set).expect("truncated");
            model[file].resize(at as usize, 0);
        }
    }
}

fn compare(seed: u64, volume: &Volume, model: &Model) {
    for (file, content) in model.iter().enumerate() {
        let read = read_all(volume, ino(volume, file));
        let differs = read.iter().zip(content).position(|(is, should)| is != should);
        assert!(read.len() == content.len() && differs.is_none(), "seed {seed}: file {file} differs at {differs:?}");
    }
}

fn run_options() -> EngineOptions {
    EngineOptions { ring_bytes: 16 << 20, ..options() }
}

fn play(seed: u64) {
    let mut rng = Rng::from_seed(seed);
    let mut rig = Rig::create_sized(seed, 2, DRIVE_BYTES, run_options());
    let empty_bytes = rig.engine.status().expect("a status").free_bytes;
    let mut volume = rig.volume("v", 2);
    for file in 0..FILES {
        volume.create(&ROOT, ROOT_INO, &name(file), 0o644).expect("created");
        volume.forget(ino(&volume, file), 1);
    }
    let mut model = vec![Vec::new(); FILES];
    for _ in 0..STEPS {
        step(&volume, &mut model, &mut rng);
        match rng.below(12) {
            0 => rig.second(),
            1 => {
                drop(volume);
                rig = rig.kill(run_options());
                volume = rig.mount("v");
                compare(seed, &volume, &model);
            }
            _ => {}
        }
    }
    compare(seed, &volume, &model);
    for file in 0..FILES {
        volume.unlink(&ROOT, ROOT_INO, &name(file)).expect("removed");
        compare_rest(seed, &volume, &model, file + 1);
    }
    drop(volume);
    rig.engine.volume_destroy("v").expect("destroyed");
    rig.second();
    rig.engine.settle().expect("settled");
    rig.second();
    let report = rig.engine.fsck().expect("checked");
    assert!(report.problems.is_empty(), "seed {seed}: {:#?}", report.problems);
    let status = rig.engine.status().expect("a status");
    let slots = 16 * u64::from(status.slot_bytes);
    assert!(status.free_bytes + slots >= empty_bytes, "seed {seed}: {} bytes free of {empty_bytes}", status.free_bytes);
}

/// What is left reads as before, also after cleaning.
fn compare_rest(seed: u64, volume: &Volume, model: &Model, first: usize) {
    for (file, content) in model.iter().enumerate().skip(first) {
        assert!(read_all(volume, ino(volume, file)) == *content, "seed {seed}: file {file} after its sharers went");
    }
}

#[test]
fn copies_of_large_ranges_equal_plain_bytes_and_give_their_space_back() {
    for seed in SEEDS {
        play(seed);
    }
}
