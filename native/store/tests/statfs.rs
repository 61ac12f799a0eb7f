//! statfs promises what can be written: on a fresh pool, and after half of it was deleted; for one, two and three copies, for
//! large pieces and small ones.

mod rig;

use holdfast_device::Rng;
use holdfast_format::ROOT_INO;
use holdfast_store::api::{FileSystem, FsError, WriteFlags};
use holdfast_store::volume::Volume;
use rig::{ROOT, Rig, options};

/// What was written, of what statfs said before. More by what it does not know: how large the pieces will be, and so how
/// much of the room their ops take.
const WRITTEN_LEAST: f64 = 0.98;
const WRITTEN_MOST: f64 = 1.16;

/// Files of so many bytes, written in pieces; `sync`: durably, one by one.
#[derive(Clone, Copy, Debug)]
struct Load {
    file: u64,
    piece: u64,
    sync: bool,
}

const LOADS: [Load; 4] = [
    Load { file: 1 << 20, piece: 64 << 10, sync: false },
    Load { file: 1 << 20, piece: 4096, sync: false },
    Load { file: 1 << 20, piece: 4096, sync: true },
    Load { file: 12 << 10, piece: 12 << 10, sync: false },
];

/// Bytes that statfs says can be written.
fn promised(volume: &Volume) -> u64 {
    let space = volume.statfs().expect("statfs");
    assert!(space.blocks_available <= space.blocks_free && space.blocks_free <= space.blocks, "{space:?}");
    space.blocks_available * space.block_bytes as u64
}

/// Writes files until nothing fits: bytes that were acknowledged, and the files' names.
fn fill(rig: &Rig, volume: &Volume, prefix: &str, load: Load) -> (u64, Vec<String>) {
    let (mut written, mut names, mut ops) = (0, Vec::new(), 0u64);
    let bytes = vec![7; load.piece as usize];
    loop {
        let name = format!("{prefix}-{}", names.len());
        let ino = match volume.create(&ROOT, ROOT_INO, name.as_bytes(), 0o644) {
            Ok(attr) => attr.ino,
            Err(FsError::NoSpace) => return (written, names),
            Err(error) => panic!("{name}: {error:?}"),
        };
        names.push(name);
        let mut at = 0;
        while at < load.file {
            match volume.write(&ROOT, ino, at, &bytes, WriteFlags::default()) {
                Ok(()) => (written, at) = (written + load.piece, at + load.piece),
                Err(FsError::NoSpace) => {
                    volume.forget(ino, 1);
                    return (written, names);
                }
                Err(error) => panic!("{error:?} at {at}"),
            }
            ops += 1;
            if load.sync {
                rig.engine.flush().expect("flushed");
            }
            if ops.is_multiple_of(50) {
                rig.second();
            }
        }
        volume.forget(ino, 1);
    }
}

fn remove_half(rig: &Rig, volume: &Volume, names: &[String]) {
    let mut rng = Rng::from_seed(1);
    for (at, name) in names.iter().filter(|_| rng.below(2) == 0).enumerate() {
        if at % 100 == 99 {
            rig.second();
        }
        volume.unlink(&ROOT, ROOT_INO, name.as_bytes()).unwrap_or_else(|error| panic!("{name} stays: {error:?}"));
    }
}

fn assert_kept(written: u64, promised: u64, what: &str) {
    let part = written as f64 / promised as f64;
    println!("{what}: {promised} bytes were promised, {written} written: {part:.3}");
    assert!((WRITTEN_LEAST..=WRITTEN_MOST).contains(&part), "{what}: {written} of {promised} bytes, {part:.3}");
}

fn promises_are_kept(rf: u8, drives: usize) {
    for load in LOADS {
        let rig = Rig::create(21, drives, options());
        let volume = rig.volume("v", rf);
        let what = format!("RF {rf} on {drives} drives, {load:?}");
        let before = promised(&volume);
        let (written, names) = fill(&rig, &volume, "first", load);
        assert_kept(written, before, &format!("{what}, fresh"));
        remove_half(&rig, &volume, &names);
        let before = promised(&volume);
        rig.world.clock().advance(2_000_000_000);
        let (written, _) = fill(&rig, &volume, "second", load);
        assert_kept(written, before, &format!("{what}, half deleted"));
        assert_eq!(rig.engine.fsck().expect("checked").problems, Vec::<String>::new());
    }
}

#[test]
fn what_is_promised_can_be_written_in_one_copy() {
    promises_are_kept(1, 1);
}

#[test]
fn what_is_promised_can_be_written_in_two_copies() {
    promises_are_kept(2, 2);
    promises_are_kept(2, 3);
}

#[test]
fn what_is_promised_can_be_written_in_three_copies() {
    promises_are_kept(3, 3);
}
