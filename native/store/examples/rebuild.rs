//! How fast copies are made anew, against plain reads and writes of the same bytes on the same drives, and what that does
//! to the p99 of somebody who works at half of what the pool can do. Prints one line of JSON.
//!
//! cargo run --release -p holdfast-store --example rebuild -- DIR [MIB] [PAIRS]

use holdfast_device::threads::{run_parallel, spawn};
use holdfast_device::{AlignedBuffer, Clock, Drive, Durability, RealClock, RealDrive, Rng};
use holdfast_format::limits::HEAL_WORKERS;
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{Caller, FileSystem, WriteFlags};
use holdfast_store::engine::{DriveSpec, Engine, EngineOptions, VolumeCreate};
use parking_lot::{Condvar, Mutex};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };
const PIECE: usize = 4 << 20;
const BLOCK: usize = 4096;
const FOREGROUND_BYTES: u64 = 64 << 20;
const SECOND_NS: u64 = 1_000_000_000;
const MEASURE_NS: u64 = 4 * SECOND_NS;

fn now() -> u64 {
    RealClock.boottime_ns()
}

fn pause(ns: u64) {
    let (lock, signal) = (Mutex::new(()), Condvar::new());
    signal.wait_for(&mut lock.lock(), Duration::from_nanos(ns));
}

fn spec(path: &Path, mib: u64) -> DriveSpec {
    std::fs::create_dir_all(path).expect("a folder");
    DriveSpec { path: path.to_owned(), bytes: Some((mib * 3) << 20), domain: String::new() }
}

/// MiB/s of reading pieces from one drive and writing them durably to another, as many at once as healing does.
fn plain_copy(dir: &Path, mib: u64) -> f64 {
    let drives: Vec<RealDrive> = (0..2)
        .map(|at| {
            let path = dir.join(format!("plain{at}"));
            std::fs::create_dir_all(&path).expect("a folder");
            RealDrive::open(&path).expect("a drive")
        })
        .collect();
    let files: Vec<_> = drives.iter().map(|drive| drive.create("f", mib << 20).expect("room")).collect();
    let noise = AlignedBuffer::zeroed(PIECE);
    let pieces = (mib << 20) / PIECE as u64;
    for at in 0..pieces {
        drives[0].write(files[0], at * PIECE as u64, &[&noise], Durability::Durable).expect("written");
    }
    let begun = now();
    let jobs = (0..HEAL_WORKERS as u64).map(|worker| {
        let (drives, files) = (&drives, &files);
        move || {
            let mut piece = AlignedBuffer::zeroed(PIECE);
            for at in (worker..pieces).step_by(HEAL_WORKERS) {
                drives[0].read(files[0], at * PIECE as u64, &mut piece).expect("read");
                drives[1].write(files[1], at * PIECE as u64, &[&piece], Durability::Durable).expect("written");
            }
        }
    });
    run_parallel("copy", jobs.collect());
    let speed = mib as f64 / ((now() - begun) as f64 / SECOND_NS as f64);
    for drive in &drives {
        drive.remove("f").expect("removed");
    }
    speed
}

struct Foreground {
    volume: Arc<dyn FileSystem>,
    ino: Ino,
    rng: Rng,
}

impl Foreground {
    /// 4 KiB reads and writes by turns until `until_ns`, one every `every_ns` (0: as fast as it goes); their latencies.
    fn run(&mut self, until_ns: u64, every_ns: u64) -> Vec<u64> {
        let mut took = Vec::new();
        let mut due = now();
        let mut block = vec![7u8; BLOCK];
        while now() < until_ns {
            // Time goes on between two looks at it: never a difference that wraps.
            let early_ns = due.saturating_sub(now());
            if every_ns > 0 && early_ns > 0 {
                pause(early_ns);
            }
            let begun = if every_ns > 0 { due } else { now() };
            let offset = self.rng.below(FOREGROUND_BYTES / BLOCK as u64) * BLOCK as u64;
            if took.len().is_multiple_of(2) {
                self.volume.write(&ROOT, self.ino, offset, &block, WriteFlags::default()).expect("written");
            } else {
                self.volume.read(&ROOT, self.ino, offset, &mut block).expect("read");
            }
            took.push(now() - begun);
            due += every_ns;
        }
        took
    }
}

fn p99_us(mut took: Vec<u64>) -> f64 {
    took.sort_unstable();
    took[took.len() * 99 / 100] as f64 / 1000.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn drive_is_there(engine: &Engine, path: &Path) -> bool {
    let drives = engine.status().expect("status").drives;
    drives.iter().any(|drive| Path::new(&drive.path) == path)
}

/// Empties the drive; gives the MiB/s of copying.
fn empty(engine: &Engine, path: &Path) -> f64 {
    let healed = || engine.pool().counters().bytes_healed;
    let (begun, before) = (now(), healed());
    engine.remove_drive(&path.display().to_string()).expect("may go");
    let mut last = begun;
    let mut bytes = 0;
    while drive_is_there(engine, path) {
        pause(5_000_000);
        if healed() - before > bytes {
            (bytes, last) = (healed() - before, now());
        }
    }
    bytes as f64 / (1u64 << 20) as f64 / ((last - begun).max(1) as f64 / SECOND_NS as f64)
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let dir = PathBuf::from(arguments.get(1).expect("DIR"));
    let number = |at: usize, default: u64| arguments.get(at).map_or(default, |text| text.parse().expect("a number"));
    let (mib, pairs) = (number(2, 512), number(3, 3));
    let plain = plain_copy(&dir, mib);
    let options = EngineOptions { runtime_dir: dir.join("run"), data_cache_bytes: 0, ..EngineOptions::default() };
    std::fs::create_dir_all(&options.runtime_dir).expect("a folder");
    let specs: Vec<DriveSpec> = (0..3).map(|at| spec(&dir.join(format!("d{at}")), mib)).collect();
    let engine = Engine::create("bench", &specs, options).expect("a pool");
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
    let fill = volume.create(&ROOT, ROOT_INO, b"fill", 0o600).expect("created").ino;
    let mut rng = Rng::from_seed(1);
    let noise: Vec<u8> = (0..1 << 20).map(|_| rng.next_u64() as u8).collect();
    for at in 0..mib {
        volume.write(&ROOT, fill, at << 20, &noise, WriteFlags::default()).expect("written");
    }
    let ino = volume.create(&ROOT, ROOT_INO, b"foreground", 0o600).expect("created").ino;
    for at in 0..FOREGROUND_BYTES >> 20 {
        volume.write(&ROOT, ino, at << 20, &noise, WriteFlags::default()).expect("written");
    }
    engine.flush().expect("flushed");
    engine.settle().expect("settled");
    pause(2 * SECOND_NS);
    // Idle: the drive that holds the most is emptied, and comes back for the next round.
    let idle = empty(&engine, &specs[0].path);
    engine.add_drive(&specs[0]).expect("added");
    pause(SECOND_NS);
    let mut foreground = Foreground { volume, ino, rng };
    let peak = foreground.run(now() + 2 * SECOND_NS, 0).len() as u64 / 2;
    let every_ns = 2 * SECOND_NS / peak.max(1);
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for pair in 0..pairs as usize {
        alone.push(p99_us(foreground.run(now() + MEASURE_NS, every_ns)));
        let path = specs[(pair + 1) % 3].path.clone();
        let over = Arc::new(AtomicBool::new(false));
        let (helper, told, leaving) = (engine.clone(), over.clone(), path.clone());
        let emptying = spawn("empty", move || {
            empty(&helper, &leaving);
            told.store(true, Ordering::Release);
        })
        .expect("a thread");
        beside.push(p99_us(foreground.run(now() + MEASURE_NS, every_ns)));
        // The rest of it goes without anybody beside it.
        assert!(!over.load(Ordering::Acquire), "give it more MiB: the drive was empty before the measurement ended");
        emptying.join().expect("emptied");
        engine.add_drive(&specs[(pair + 1) % 3]).expect("added");
    }
    let ratio = median(alone.iter().zip(&beside).map(|(alone, beside)| beside / alone).collect());
    println!(
        "{{\"mib\": {mib}, \"plain_mib_s\": {plain:.0}, \"idle_mib_s\": {idle:.0}, \"idle_share\": {:.2}, \
         \"peak_ops_s\": {peak}, \"p99_us\": {alone:?}, \"p99_us_beside\": {beside:?}, \"p99_ratio\": {ratio:.2}}}",
        idle / plain
    );
    engine.close().expect("closed");
}
