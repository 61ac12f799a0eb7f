//! A hundred thousand recovery points of one volume on real drives: what they cost. Prints a JSON object for each tenth
//! of them that is made, then one with everything (`bench/past/points.ts` reads both).
//!
//! ```text
//! points DIR [COUNT]     makes a pool in DIR/{d1,d2} (RF 2); COUNT: 100,000
//! ```
//! Rings lie in DIR/run, which may be a link to a tmpfs.

use holdfast_device::{Clock, RealClock, Rng};
use holdfast_format::ROOT_INO;
use holdfast_store::api::{Caller, FileSystem, WriteFlags};
use holdfast_store::engine::{DriveSpec, Engine, EngineOptions, VolumeCreate};
use holdfast_store::volume::VolumeOptions;
use std::path::{Path, PathBuf};

const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022, writer: None };
/// Of a listing.
const PAGE: usize = 1000;
const DELETIONS: usize = 400;
const DRIVE_BYTES: u64 = 2 << 30;
/// Every so many points one block changes.
const CHANGE_EVERY: u64 = 10;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn milliseconds(from_ns: u64) -> f64 {
    (RealClock.boottime_ns() - from_ns) as f64 / 1e6
}

fn joined(values: &[f64]) -> String {
    values.iter().map(|value| format!("{value:.3}")).collect::<Vec<_>>().join(",")
}

/// Resident bytes of this process.
#[allow(clippy::disallowed_methods)]
fn resident() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse::<u64>()? * 1024)
}

fn run(dir: &Path, count: u64) -> Outcome<()> {
    let runtime_dir = dir.join("run");
    let options = EngineOptions { runtime_dir: runtime_dir.clone(), retention_s: 0, ..EngineOptions::default() };
    let paths: Vec<PathBuf> = ["d1", "d2"].iter().map(|name| dir.join(name)).collect();
    for path in paths.iter().chain([&runtime_dir]).filter(|path| !Path::exists(path)) {
        #[allow(clippy::disallowed_methods)]
        std::fs::create_dir(path)?;
    }
    let specs: Vec<DriveSpec> = paths
        .iter()
        .map(|path| DriveSpec { path: path.clone(), bytes: Some(DRIVE_BYTES), domain: String::new() })
        .collect();
    let engine = Engine::create("pool", &specs, options.clone())?;
    let (name, rf) = ("v".to_owned(), 2);
    engine.volume_create(&VolumeCreate { name, rf, group: None, ack_write: false, quota_bytes: 0, owner: (0, 0) })?;
    let volume = engine.volume("v", VolumeOptions::default())?;
    let ino = volume.create(&ROOT, ROOT_INO, b"file", 0o600).map_err(|error| format!("{error:?}"))?.ino;
    let group = engine.groups()[0].clone();
    let before = resident()?;
    let began = RealClock.boottime_ns();
    for at in 0..count {
        if at % CHANGE_EVERY == 0 {
            let block = (at / CHANGE_EVERY % 4096) * 4096;
            volume.write(&ROOT, ino, block, &[at as u8; 4096], WriteFlags::default()).map_err(|error| format!("{error:?}"))?;
        }
        group.snapshot_create(&format!("s{at}"))?;
        if (at + 1) % (count / 10).max(1) == 0 {
            println!("{{\"made\":{}}}", at + 1);
        }
    }
    let create_us = milliseconds(began) * 1e3 / count as f64;
    engine.settle()?;
    let resident_bytes = resident()?.saturating_sub(before);

    let (mut pages, mut listed, mut after) = (Vec::new(), 0, 0);
    loop {
        let began = RealClock.boottime_ns();
        let page = engine.snapshots("v", after, PAGE)?;
        let Some(last) = page.last() else { break };
        pages.push(milliseconds(began));
        (listed, after) = (listed + page.len() as u64, last.lsn);
    }
    if listed != count {
        return Err(format!("{listed} snapshots are listed").into());
    }
    let (mut rng, mut taken) = (Rng::from_seed(1), Vec::new());
    let mut deleted = std::collections::BTreeSet::new();
    while deleted.len() < DELETIONS {
        let at = rng.below(count);
        if deleted.insert(at) {
            let began = RealClock.boottime_ns();
            engine.snapshot_delete("v", &format!("s{at}"))?;
            taken.push(milliseconds(began));
        }
    }
    let began = RealClock.boottime_ns();
    let one = engine.snapshot_create("v", "one-more", None)?;
    let create_one_ms = milliseconds(began);
    let began = RealClock.boottime_ns();
    engine.point("v", &format!("lsn:{}", one.lsn / 2))?;
    let find_ms = milliseconds(began);
    drop((volume, group));
    engine.close()?;
    drop(engine);
    let began = RealClock.boottime_ns();
    let engine = Engine::open(&paths, options)?;
    let open_ms = milliseconds(began);
    let left = engine.volumes()?[0].retention.held.snapshots as u64;
    if left != count - DELETIONS as u64 + 1 {
        return Err(format!("{left} snapshots are left").into());
    }
    engine.close()?;
    println!(
        "{{\"points\":{count},\"create_us\":{create_us:.1},\"create_one_durable_ms\":{create_one_ms:.2},\"pages_ms\":[{}],\
         \"deletes_ms\":[{}],\"find_ms\":{find_ms:.3},\"resident_mib\":{:.1},\"open_ms\":{open_ms:.0}}}",
        joined(&pages),
        joined(&taken),
        resident_bytes as f64 / f64::from(1 << 20),
    );
    Ok(())
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("points DIR [COUNT]")?);
    let count = arguments.next().map_or(Ok(100_000), |count| count.parse())?;
    run(&dir, count)
}
