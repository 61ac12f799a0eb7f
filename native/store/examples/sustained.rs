//! Sustained random overwrites of a pool that is nearly full: does it go on as it began? Prints one JSON line a second,
//! then a summary. The counted twin is `tests/sustained.rs`.
//!
//! ```text
//! sustained DIR SECONDS POOL_MIB [jobs N] [fsync] [live PERCENT] [history PERCENT] [retention SECONDS] [cache MIB]
//! ```
//! Makes a pool of three drives in DIR/{d1,d2,d3}, RF 2, with a file a job that together fill `live` percent of it, block by
//! block; then every job overwrites random blocks of its file, 4 KiB each, with an fsync after each if asked. Rings lie in
//! DIR/run, which may be a link to a tmpfs.

use holdfast_device::{Clock, RealClock, Rng, threads};
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{Caller, FileSystem, WriteFlags};
use holdfast_store::engine::{DriveSpec, Engine, EngineOptions, VolumeCreate};
use holdfast_store::volume::{Volume, VolumeOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022, writer: None };
const DRIVES: usize = 3;
const RF: u64 = 2;
const BLOCK: u64 = 4096;
const SECOND_NS: u64 = 1_000_000_000;
/// What is compared: the first of these seconds with the last.
const MINUTE: usize = 60;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

struct Plan {
    dir: PathBuf,
    seconds: u64,
    pool_bytes: u64,
    jobs: u64,
    fsync: bool,
    live_percent: u64,
    history_percent: u8,
    retention_s: u64,
    cache_mib: usize,
}

fn plan() -> Outcome<Plan> {
    let mut words = std::env::args().skip(1);
    let mut next = |what: &str| words.next().ok_or_else(|| format!("which {what}? see the top of sustained.rs"));
    let mut plan = Plan {
        dir: PathBuf::from(next("directory")?),
        seconds: next("number of seconds")?.parse()?,
        pool_bytes: next("pool size in MiB")?.parse::<u64>()? << 20,
        jobs: 1,
        fsync: false,
        live_percent: 50,
        history_percent: 30,
        retention_s: 60,
        cache_mib: 128,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a number"));
        match word.as_str() {
            "fsync" => plan.fsync = true,
            "jobs" => plan.jobs = value()?.parse()?,
            "live" => plan.live_percent = value()?.parse()?,
            "history" => plan.history_percent = value()?.parse()?,
            "retention" => plan.retention_s = value()?.parse()?,
            "cache" => plan.cache_mib = value()?.parse()?,
            _ => return Err(format!("{word}: see the top of sustained.rs").into()),
        }
    }
    Ok(plan)
}

fn engine(plan: &Plan) -> Outcome<Arc<Engine>> {
    let drive = |at: usize| plan.dir.join(format!("d{at}"));
    let runtime_dir = plan.dir.join("run");
    let folders: Vec<PathBuf> = (1..=DRIVES).map(drive).chain([runtime_dir.clone()]).collect();
    folders.iter().filter(|folder| !Path::exists(folder)).try_for_each(std::fs::create_dir_all)?;
    let specs: Vec<DriveSpec> = (1..=DRIVES)
        .map(|at| DriveSpec { path: drive(at), bytes: Some(plan.pool_bytes / DRIVES as u64), domain: String::new() })
        .collect();
    let options = EngineOptions {
        runtime_dir,
        retention_s: plan.retention_s,
        history_limit_percent: plan.history_percent,
        metadata_cache_bytes: plan.cache_mib << 20,
        ..EngineOptions::default()
    };
    Ok(Engine::create("sustained", &specs, options)?)
}

/// Counters of the pool by name.
struct Counted(Vec<(String, u64)>);

impl Counted {
    fn now(engine: &Engine) -> Outcome<Self> {
        Ok(Self(engine.status()?.counters))
    }
    fn get(&self, name: &str) -> u64 {
        self.0.iter().find(|pair| pair.0 == name).map_or(0, |pair| pair.1)
    }
    /// Bytes of this kind for each byte and copy that users wrote since `before`.
    fn share(&self, before: &Self, name: &str) -> f64 {
        let users = self.get("payload_copy_bytes") - before.get("payload_copy_bytes");
        (self.get(name) - before.get(name)) as f64 / users.max(1) as f64
    }
}

struct Job<'a> {
    volume: &'a Volume,
    ino: Ino,
    blocks: u64,
    fsync: bool,
    done: &'a AtomicU64,
}

impl Job<'_> {
    fn write(&self, block: u64, at: u64) -> Result<(), String> {
        let mut bytes = [at as u8; BLOCK as usize];
        bytes[..8].copy_from_slice(&at.to_le_bytes());
        let written = self.volume.write(&ROOT, self.ino, block * BLOCK, &bytes, WriteFlags::default());
        written.map_err(|error| format!("write {at}: {error:?}"))?;
        if self.fsync {
            let (sender, receiver) = mpsc::sync_channel(1);
            self.volume.fsync(&ROOT, self.ino, Box::new(move |result| drop(sender.send(result))));
            let synced = receiver.recv().map_err(|error| error.to_string())?;
            synced.map_err(|error| format!("fsync {at}: {error:?}"))?;
        }
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Writes every block of every file once.
fn fill(jobs: &[Job<'_>]) -> Outcome<()> {
    for job in jobs {
        let plain = Job { fsync: false, ..*job };
        (0..job.blocks).try_for_each(|block| plain.write(block, block))?;
    }
    jobs.iter().for_each(|job| job.done.store(0, Ordering::Relaxed));
    Ok(())
}

/// Lets the jobs run; writes of each second.
fn run(plan: &Plan, engine: &Arc<Engine>, jobs: &[Job<'_>]) -> Outcome<Vec<u64>> {
    let (stop, done) = (AtomicBool::new(false), jobs[0].done);
    let failed: parking_lot::Mutex<Option<String>> = parking_lot::Mutex::new(None);
    let seconds = parking_lot::Mutex::new(Vec::new());
    let write = |number: usize| {
        let mut rng = Rng::from_seed(number as u64 + 1);
        let mut at = 0;
        while !stop.load(Ordering::Relaxed) {
            at += 1;
            if let Err(error) = jobs[number].write(rng.below(jobs[number].blocks), at) {
                *failed.lock() = Some(error);
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    let watch = || {
        let (_keep, never) = mpsc::channel::<()>();
        let (begun, mut last) = (RealClock.boottime_ns(), 0);
        for second in 1..=plan.seconds {
            let until = (begun + second * SECOND_NS).saturating_sub(RealClock.boottime_ns());
            let _timeout = never.recv_timeout(Duration::from_nanos(until));
            let now = done.load(Ordering::Relaxed);
            seconds.lock().push(now - last);
            if let Ok(status) = engine.status() {
                let counted = Counted(status.counters);
                let free = status.free_bytes * 100 / status.total_bytes;
                println!(
                    "{{\"second\":{second},\"writes\":{},\"free_percent\":{free},\"window_s\":{},\"paced_ms\":{},\"reclaims\":{}}}",
                    now - last,
                    status.history_window_s,
                    counted.get("paced_ms"),
                    counted.get("reclaims")
                );
            }
            last = now;
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (write, watch) = (&write, &watch);
    let mut all: Vec<Box<dyn FnOnce() + Send>> = vec![Box::new(watch)];
    all.extend((0..jobs.len()).map(|number| Box::new(move || write(number)) as Box<dyn FnOnce() + Send>));
    threads::run_parallel("sustained", all);
    match failed.into_inner() {
        Some(error) => Err(error.into()),
        None => Ok(seconds.into_inner()),
    }
}

fn mean(seconds: &[u64]) -> f64 {
    seconds.iter().sum::<u64>() as f64 / seconds.len().max(1) as f64
}

fn report(plan: &Plan, engine: &Engine, before: &Counted, seconds: &[u64], blocks: u64) -> Outcome<()> {
    let status = engine.status()?;
    let counted = Counted(status.counters.clone());
    let span = MINUTE.min(seconds.len());
    let (first, last) = (mean(&seconds[..span]), mean(&seconds[seconds.len() - span..]));
    let (mut table_bytes, mut payload) = (0, 0);
    for group in engine.groups() {
        let stats = group.tree().stats();
        for level in stats.levels.iter().chain([&stats.then]) {
            table_bytes += level.bytes;
            payload += level.payload_bytes;
        }
    }
    let shares: Vec<String> = ["logged", "packed", "cleaned", "tables", "manifest"]
        .iter()
        .map(|kind| format!("\"{kind}\":{:.3}", counted.share(before, &format!("drive_bytes_{kind}"))))
        .collect();
    println!(
        "{{\"summary\":{{\"jobs\":{},\"fsync\":{},\"pool_mib\":{},\"seconds\":{},\"overwrites_per_block\":{:.2},\
         \"first_per_s\":{first:.0},\"last_per_s\":{last:.0},\"last_over_first\":{:.3},\"slowest_second\":{},\
         \"write_amplification\":{:.3},{},\"metadata_bytes_per_block\":{:.1},\"full_percent\":{:.1},\"window_s\":{},\
         \"retention_s\":{},\"paced_ms\":{},\"reclaims\":{}}}}}",
        plan.jobs,
        plan.fsync,
        plan.pool_bytes >> 20,
        seconds.len(),
        seconds.iter().sum::<u64>() as f64 / blocks as f64,
        last / first,
        seconds.iter().min().copied().unwrap_or(0),
        counted.share(before, "drive_bytes_written"),
        shares.join(","),
        table_bytes as f64 / (payload / BLOCK).max(1) as f64,
        (payload * RF) as f64 * 100.0 / status.total_bytes as f64,
        status.history_window_s,
        plan.retention_s,
        counted.get("paced_ms") - before.get("paced_ms"),
        counted.get("reclaims") - before.get("reclaims"),
    );
    Ok(())
}

fn main() -> Outcome<()> {
    let plan = plan()?;
    let engine = engine(&plan)?;
    engine.volume_create(&VolumeCreate {
        name: "v".to_owned(),
        rf: RF as u8,
        group: None,
        ack_write: false,
        quota_bytes: 0,
        owner: (0, 0),
    })?;
    let volume = engine.volume("v", VolumeOptions::default())?;
    let blocks = engine.pool().space().total * plan.live_percent / 100 / RF / BLOCK;
    let done = AtomicU64::new(0);
    let mut jobs = Vec::new();
    for number in 0..plan.jobs {
        let name = format!("f{number}");
        let attr = volume.create(&ROOT, ROOT_INO, name.as_bytes(), 0o644).map_err(|error| format!("{error:?}"))?;
        let (ino, share) = (attr.ino, blocks / plan.jobs);
        jobs.push(Job { volume: &volume, ino, blocks: share, fsync: plan.fsync, done: &done });
    }
    fill(&jobs)?;
    engine.flush()?;
    let before = Counted::now(&engine)?;
    let seconds = run(&plan, &engine, &jobs)?;
    report(&plan, &engine, &before, &seconds, blocks)?;
    drop(jobs);
    drop(volume);
    engine.close()?;
    Ok(())
}
