//! How fast the copies of a lost drive are made anew, against plain reads and writes of as many bytes on the same disk.
//!
//! cargo run --release -p holdfast-store --example rebuild -- DIR [MIB] [PAIRS]
//!
//! A pair, whose halves take turns at being first:
//! - a pool of four drives with RF 2 and MIB on each is filled and closed; one of the drives is gone when it is opened
//!   again, and is given up. Timed is from then until everything has two copies again, named and durable;
//! - MIB are read directly from three files and written directly to three others, preallocated like a pool's, as many
//!   pieces of a slot's size at once as healing does, and flushed at the end.
//!
//! Prints a line of JSON for each pair, `{"summary": …}` at last.

use holdfast_device::threads::run_parallel;
use holdfast_device::{AlignedBuffer, Clock, Drive, Durability, FileId, RealClock, RealDrive, Rng};
use holdfast_format::ROOT_INO;
use holdfast_format::limits::HEAL_WORKERS;
use holdfast_store::api::{Caller, WriteFlags};
use holdfast_store::engine::{DriveSpec, Engine, EngineOptions, VolumeCreate};
use parking_lot::{Condvar, Mutex};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022, writer: None };
const PIECE: usize = 4 << 20;
const DRIVES: usize = 4;
/// How often the progress is looked at.
const LOOK_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;

fn now() -> u64 {
    RealClock.boottime_ns()
}

fn pause(ns: u64) {
    let (lock, signal) = (Mutex::new(()), Condvar::new());
    signal.wait_for(&mut lock.lock(), Duration::from_nanos(ns));
}

fn mib_per_s(bytes: u64, ns: u64) -> f64 {
    bytes as f64 / (1u64 << 20) as f64 / (ns.max(1) as f64 / SECOND_NS as f64)
}

/// What a compressor or a check for zeroes has nothing to do with.
fn noise(seed: u64) -> AlignedBuffer {
    let (mut rng, mut bytes) = (Rng::from_seed(seed), AlignedBuffer::zeroed(PIECE));
    bytes.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&rng.next_u64().to_le_bytes()));
    bytes
}

fn folder(path: &Path) {
    std::fs::create_dir_all(path).expect("a folder");
}

/// Runs a job for each piece, as many at once as healing does.
fn each_piece(pieces: usize, job: &(dyn Fn(usize, &mut [u8]) + Sync)) {
    let jobs = (0..HEAL_WORKERS).map(|worker| {
        move || {
            let mut piece = AlignedBuffer::zeroed(PIECE);
            (worker..pieces).step_by(HEAL_WORKERS).for_each(|at| job(at, &mut piece));
        }
    });
    run_parallel("plain", jobs.collect());
}

/// MiB/s of reading the bytes from files of three drives and writing them to others.
fn plain_copy(dir: &Path, bytes: u64) -> f64 {
    let pieces = (bytes as usize).div_ceil(PIECE);
    let file_bytes = (pieces.div_ceil(DRIVES - 1) * PIECE) as u64;
    let drives: Vec<(RealDrive, FileId, FileId)> = (1..DRIVES)
        .map(|at| {
            let path = dir.join(format!("plain{at}"));
            folder(&path);
            let drive = RealDrive::open(&path).expect("a drive");
            let from = drive.create("from", file_bytes).expect("room");
            let to = drive.create("to", file_bytes).expect("room");
            (drive, from, to)
        })
        .collect();
    let place = |at: usize| (at % drives.len(), (at / drives.len() * PIECE) as u64);
    let flush = || drives.iter().for_each(|(drive, _, _)| drive.flush().expect("flushed"));
    let content = noise(1);
    each_piece(pieces, &|at, _| {
        let (drive, offset) = place(at);
        let (drive, from, _) = &drives[drive];
        drive.write(*from, offset, &[&content], Durability::Cached).expect("written");
    });
    flush();
    let begun = now();
    each_piece(pieces, &|at, piece| {
        let (drive, offset) = place(at);
        let (source, from, _) = &drives[drive];
        source.read(*from, offset, piece).expect("read");
        let (target, _, to) = &drives[(drive + 1) % drives.len()];
        target.write(*to, offset, &[piece], Durability::Cached).expect("written");
    });
    flush();
    let speed = mib_per_s((pieces * PIECE) as u64, now() - begun);
    drop(drives);
    (1..DRIVES).for_each(|at| std::fs::remove_dir_all(dir.join(format!("plain{at}"))).expect("removed"));
    speed
}

fn options(dir: &Path) -> EngineOptions {
    EngineOptions { runtime_dir: dir.join("run"), data_cache_bytes: 0, ..EngineOptions::default() }
}

/// A pool with so much on each drive, closed.
fn fill(dir: &Path, drives: &[PathBuf], mib: u64) {
    let spec = |path: &PathBuf| {
        folder(path);
        DriveSpec { path: path.clone(), bytes: Some((mib * 2 + 512) << 20), domain: String::new() }
    };
    let specs: Vec<DriveSpec> = drives.iter().map(spec).collect();
    let engine = Engine::create("bench", &specs, options(dir)).expect("a pool");
    let create = VolumeCreate {
        name: "v".to_owned(),
        rf: 2,
        group: None,
        ack_write: false,
        quota_bytes: 0,
        owner: (0, 0),
    };
    engine.volume_create(&create).expect("a volume");
    let volume = engine.file_system("v").expect("free");
    let file = volume.create(&ROOT, ROOT_INO, b"file", 0o600).expect("created").ino;
    let (content, write) = (noise(2), 1 << 20);
    for at in 0..mib * DRIVES as u64 / 2 {
        let part = at as usize % (PIECE / write) * write;
        volume.write(&ROOT, file, at << 20, &content[part..part + write], WriteFlags::default()).expect("written");
    }
    engine.flush().expect("flushed");
    engine.settle().expect("settled");
    drop(volume);
    engine.close().expect("closed");
}

/// MiB/s at which what a lost drive held gets new copies, and their MiB.
fn rebuild(dir: &Path, mib: u64) -> (f64, f64) {
    let drives: Vec<PathBuf> = (0..DRIVES).map(|at| dir.join(format!("d{at}"))).collect();
    folder(&dir.join("run"));
    fill(dir, &drives, mib);
    std::fs::remove_dir_all(&drives[0]).expect("lost");
    let engine: Arc<Engine> = Engine::open(&drives, options(dir)).expect("opens without it");
    let lost = engine.status().expect("status").drives.into_iter().find(|drive| drive.state == "missing");
    let uuid = lost.expect("a drive that is missing").uuid;
    // What the start does is no part of it.
    pause(2 * SECOND_NS);
    let begun = now();
    engine.remove_drive(&uuid).expect("given up");
    // It leaves the pool when nothing names it any more.
    while engine.pool().drives().iter().any(|drive| drive.uuid.to_string() == uuid) {
        pause(LOOK_NS);
    }
    let spent = now() - begun;
    let bytes = engine.pool().counters().bytes_healed;
    engine.close().expect("closed");
    drives[1..].iter().for_each(|path| std::fs::remove_dir_all(path).expect("removed"));
    (mib_per_s(bytes, spent), bytes as f64 / (1u64 << 20) as f64)
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let dir = PathBuf::from(arguments.get(1).expect("DIR"));
    let number = |at: usize, default: u64| arguments.get(at).map_or(default, |text| text.parse().expect("a number"));
    let (mib, pairs) = (number(2, 1024), number(3, 5));
    let mut shares = Vec::new();
    for pair in 0..pairs {
        let plain_first = (pair % 2 == 0).then(|| plain_copy(&dir, mib << 20));
        let (speed, rebuilt) = rebuild(&dir, mib);
        let plain = plain_first.unwrap_or_else(|| plain_copy(&dir, mib << 20));
        println!(
            "{{\"pair\": {pair}, \"rebuilt_mib\": {rebuilt:.0}, \"rebuild_mib_per_s\": {speed:.0}, \
             \"plain_mib_per_s\": {plain:.0}, \"share\": {:.3}}}",
            speed / plain
        );
        shares.push(speed / plain);
    }
    shares.sort_by(f64::total_cmp);
    println!(
        "{{\"summary\": {{\"share\": {:.3}, \"least\": {:.3}, \"greatest\": {:.3}}}}}",
        shares[shares.len() / 2],
        shares[0],
        shares[shares.len() - 1]
    );
}
