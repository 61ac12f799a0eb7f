//! The timed bars of metadata, as they are written, on real directories: a verdict for each, exit code 1 when one is missed.
//! Their counted twins are tests (`metadata/tests/bars.rs`).
//!
//! ```text
//! bars DIR [names] [overwrites] [files] [difference]     all when none is named; DIR is made, and removed afterwards
//! ```
//!
//! - `names`: 1,000,000 names are created in a directory, drained, all removed, drained again inside the window: listing
//!   the directory takes at most 50 ms.
//! - `overwrites`: a block is overwritten 1,000,000 times over at least 60 kept seconds: reading it takes at most 1.2 × as
//!   long as reading one that was written once.
//! - `files`: 2,000,000 files with a metadata cache of 64 MiB: peak RSS below 400 MiB, a start after an orderly end within
//!   3 s, after `kill -9` with 300,000 creates to replay within 10 s. Each step is a process of its own.
//! - `difference`: of 1,000,000 files 10 change between two snapshots: telling which takes at most 200 ms, wherever the changes
//!   lie: in memory, in tables of their own, among all others.

use holdfast_device::{Clock, RealClock, Rng};
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{Caller, FileSystem, FsError, WriteFlags};
use holdfast_store::engine::{DriveSpec, Engine, EngineOptions, VolumeCreate};
use holdfast_store::volume::{Volume, VolumeOptions};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022, writer: None };
const NAMES: u64 = 1_000_000;
const OVERWRITES: u64 = 1_000_000;
const KEPT_SECONDS: u64 = 62;
const READS: usize = 20_000;
const FILES: u64 = 2_000_000;
const FILES_TO_REPLAY: u64 = 300_000;
const DIRECTORY_FILES: u64 = 1_000_000;
const LATER_FILES: u64 = 500_000;
const DIFFERENCES: usize = 11;
const CACHE_BYTES: usize = 64 << 20;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn told(error: FsError) -> Box<dyn std::error::Error> {
    format!("{error:?}").into()
}

fn drives(dir: &Path) -> [PathBuf; 2] {
    [dir.join("d1"), dir.join("d2")]
}

fn options(dir: &Path) -> EngineOptions {
    EngineOptions { metadata_cache_bytes: CACHE_BYTES, runtime_dir: dir.join("run"), ..EngineOptions::default() }
}

/// A pool of two directories with a volume at RF 2.
fn create(dir: &Path) -> Outcome<(Arc<Engine>, Arc<Volume>)> {
    for folder in drives(dir).iter().chain([&dir.join("run")]) {
        std::fs::create_dir_all(folder)?;
    }
    let spec = |path| DriveSpec { path, bytes: Some(8 << 30), domain: String::new() };
    let engine = Engine::create("bars", &drives(dir).map(spec), options(dir))?;
    let (name, owner) = ("v".to_owned(), (0, 0));
    engine.volume_create(&VolumeCreate { name, rf: 2, group: None, ack_write: false, quota_bytes: 0, owner })?;
    let volume = engine.volume("v", VolumeOptions::default())?;
    Ok((engine, volume))
}

/// Opens, and returns how long it took until the volume answered.
fn open(dir: &Path) -> Outcome<(Arc<Engine>, Arc<Volume>, u64)> {
    let start_ns = RealClock.boottime_ns();
    let engine = Engine::open(&drives(dir), options(dir))?;
    let volume = engine.volume("v", VolumeOptions::default())?;
    volume.getattr(ROOT_INO).map_err(told)?;
    Ok((engine, volume, RealClock.boottime_ns() - start_ns))
}

fn make_file(volume: &Volume, dir: Ino, name: &str) -> Outcome<Ino> {
    let ino = volume.create(&ROOT, dir, name.as_bytes(), 0o644).map_err(told)?.ino;
    volume.forget(ino, 1);
    Ok(ino)
}

fn count_names(volume: &Volume, dir: Ino) -> Outcome<u64> {
    let mut count = 0;
    volume
        .readdir(&ROOT, dir, 0, false, &mut |_| {
            count += 1;
            true
        })
        .map_err(told)?;
    Ok(count)
}

fn drain(engine: &Engine) -> Outcome<()> {
    Ok(engine.groups().iter().try_for_each(|group| group.drain_now())?)
}

struct Bars {
    missed: bool,
}

impl Bars {
    fn judge(&mut self, what: &str, measured: f64, most: f64, unit: &str) {
        let good = measured <= most;
        self.missed |= !good;
        println!("{}  {what}: {measured:.2} {unit} (at most {most} {unit})", if good { "ok    " } else { "MISSED" });
    }

    fn names(&mut self, dir: &Path) -> Outcome<()> {
        let (engine, volume) = create(dir)?;
        let parent = volume.mkdir(&ROOT, ROOT_INO, b"names", 0o755).map_err(told)?.ino;
        for number in 0..NAMES {
            make_file(&volume, parent, &format!("name-{number}"))?;
        }
        drain(&engine)?;
        for number in 0..NAMES {
            volume.unlink(&ROOT, parent, format!("name-{number}").as_bytes()).map_err(told)?;
        }
        drain(&engine)?;
        let window_s = engine.status()?.history_window_s;
        let stepped = || engine.groups().iter().map(|group| group.tree().stats().keys_stepped).sum::<u64>();
        let before = stepped();
        let start_ns = RealClock.boottime_ns();
        let count = count_names(&volume, parent)?;
        let listed_ns = RealClock.boottime_ns() - start_ns;
        println!("        {} keys stepped over in tables", stepped() - before);
        // `.` and `..` may be among them.
        if count > 2 || window_s == 0 {
            return Err(format!("{count} names are left, {window_s} s are kept: nothing was measured").into());
        }
        self.judge("listing a directory whose 1,000,000 names were removed", listed_ns as f64 / 1e6, 50.0, "ms");
        volume.forget(parent, 1);
        drop(volume);
        Ok(engine.close()?)
    }

    fn overwrites(&mut self, dir: &Path) -> Outcome<()> {
        let (engine, volume) = create(dir)?;
        let [busy, calm] = ["busy", "calm"].map(|name| make_file(&volume, ROOT_INO, name));
        let (busy, calm) = (busy?, calm?);
        let write = |ino: Ino, fill: u64| {
            volume.write(&ROOT, ino, 0, &[fill as u8; 4096], WriteFlags::default()).map_err(told)
        };
        write(calm, 1)?;
        let start_ns = RealClock.boottime_ns();
        for number in 0..OVERWRITES {
            write(busy, number)?;
            let due_ns = start_ns + number * KEPT_SECONDS * 1_000_000_000 / OVERWRITES;
            if number.is_multiple_of(64) {
                RealClock.sleep(due_ns.saturating_sub(RealClock.boottime_ns()));
            }
        }
        engine.settle()?;
        let window_s = engine.status()?.history_window_s;
        if window_s < 60 {
            return Err(format!("only {window_s} s are kept: nothing was measured").into());
        }
        let mut times: [Vec<u64>; 2] = Default::default();
        let mut bytes = [0; 4096];
        for _ in 0..READS {
            for (ino, times) in [busy, calm].into_iter().zip(&mut times) {
                let start_ns = RealClock.boottime_ns();
                volume.read(&ROOT, ino, 0, &mut bytes).map_err(told)?;
                times.push(RealClock.boottime_ns() - start_ns);
            }
        }
        let [busy_ns, calm_ns] = times.map(|mut times| {
            times.sort_unstable();
            times[times.len() / 2] as f64
        });
        println!("        medians of {READS} reads: {busy_ns} ns and {calm_ns} ns, {window_s} s kept");
        self.judge("reading a block that was overwritten 1,000,000 times", busy_ns / calm_ns, 1.2, "x");
        drop(volume);
        Ok(engine.close()?)
    }

    fn difference(&mut self, dir: &Path) -> Outcome<()> {
        let (engine, volume) = create(dir)?;
        let mut files = Vec::new();
        for number in 0..NAMES {
            if number.is_multiple_of(10_000) {
                let name = format!("directory-{number}");
                files.push((volume.mkdir(&ROOT, ROOT_INO, name.as_bytes(), 0o755).map_err(told)?.ino, Vec::new()));
            }
            let (parent, made) = files.last_mut().ok_or("no directory")?;
            made.push(make_file(&volume, *parent, &format!("file-{number}"))?);
        }
        engine.snapshot_create("v", "before", None)?;
        for (_, made) in files.iter().step_by(files.len() / 10) {
            volume.write(&ROOT, made[5_000], 0, &[1; 4096], WriteFlags::default()).map_err(told)?;
        }
        engine.snapshot_create("v", "after", None)?;
        self.time_difference(&engine, "where they were made")?;
        drain(&engine)?;
        self.time_difference(&engine, "in tables")?;
        // What comes later has them merged with what was there.
        for (at, (parent, _)) in files.iter().enumerate() {
            for number in 0..LATER_FILES / files.len() as u64 {
                make_file(&volume, *parent, &format!("later-{at}-{number}"))?;
            }
        }
        engine.settle()?;
        self.time_difference(&engine, "among all others")?;
        drop(volume);
        Ok(engine.close()?)
    }

    fn time_difference(&mut self, engine: &Engine, place: &str) -> Outcome<()> {
        let mut times = Vec::new();
        for _ in 0..DIFFERENCES {
            let start_ns = RealClock.boottime_ns();
            let page = engine.difference("v", "before", Some("after"), 0, 1000)?.page;
            times.push(RealClock.boottime_ns() - start_ns);
            if page.changes.len() != 10 {
                return Err(format!("{} changes are told", page.changes.len()).into());
            }
        }
        let first_ms = times[0] as f64 / 1e6;
        times.sort_unstable();
        let what = format!("10 changes among 1,000,000 files, {place} (first: {first_ms:.1} ms)");
        self.judge(&what, times[times.len() / 2] as f64 / 1e6, 200.0, "ms");
        Ok(())
    }

    fn files(&mut self, dir: &Path) -> Outcome<()> {
        let made = step(dir, "make", false)?;
        self.judge("peak RSS with 2,000,000 files, cache 64 MiB", made.rss_mib, 400.0, "MiB");
        let clean = step(dir, "open", true)?;
        self.judge("start after an orderly end", clean.seconds, 3.0, "s");
        let killed = step(dir, "open", false)?;
        self.judge("start after kill -9 with 300,000 creates to replay", killed.seconds, 10.0, "s");
        let most = clean.rss_mib.max(killed.rss_mib);
        self.judge("peak RSS of the starts, with replay and 300,000 creates", most, 400.0, "MiB");
        Ok(())
    }
}

/// What a process of the `files` bar tells.
struct Told {
    seconds: f64,
    rss_mib: f64,
}

/// Runs one step in a process of its own; `kill`: with SIGKILL as soon as it has told its figures.
fn step(dir: &Path, what: &str, kill: bool) -> Outcome<Told> {
    let then = if kill { "crash" } else { "close" };
    let mut child = Command::new(std::env::current_exe()?)
        .args([dir.as_os_str(), "step".as_ref(), what.as_ref(), then.as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let line = lines.next().ok_or("the step told nothing")??;
    if kill {
        child.kill()?;
    }
    let status = child.wait()?;
    if !kill && !status.success() {
        return Err(format!("step {what}: {status}").into());
    }
    let mut numbers = line.split(' ').map(str::parse::<f64>);
    let (seconds, rss_mib) = (numbers.next().ok_or("no figure")??, numbers.next().ok_or("no figure")??);
    Ok(Told { seconds, rss_mib })
}

/// The child's side of [`step`].
fn run_step(dir: &Path, what: &str, crash: bool) -> Outcome<()> {
    let (engine, volume, opened_ns) = match what {
        "make" => {
            let (engine, volume) = create(dir)?;
            (engine, volume, 0)
        }
        _ => open(dir)?,
    };
    let (from, count) = match (what, crash) {
        ("make", _) => (0, FILES),
        (_, true) => (FILES, FILES_TO_REPLAY),
        (_, false) => (0, 0),
    };
    let mut parent = ROOT_INO;
    for number in from..from + count {
        if number % DIRECTORY_FILES == 0 {
            let name = format!("dir-{}", number / DIRECTORY_FILES);
            parent = volume.mkdir(&ROOT, ROOT_INO, name.as_bytes(), 0o755).map_err(told)?.ino;
            volume.forget(parent, 1);
        }
        make_file(&volume, parent, &format!("file-{number}"))?;
    }
    if what == "open" {
        let (mut rng, dir) = (Rng::from_seed(1), volume.lookup(ROOT_INO, b"dir-0").map_err(told)?.ino);
        for _ in 0..10_000 {
            let name = format!("file-{}", rng.below(DIRECTORY_FILES));
            let ino = volume.lookup(dir, name.as_bytes()).map_err(told)?.ino;
            volume.forget(ino, 1);
        }
        volume.forget(dir, 1);
    }
    println!("{} {}", opened_ns as f64 / 1e9, peak_rss_mib());
    if crash {
        // Until it is killed, or its parent is gone.
        std::io::stdin().read_to_end(&mut Vec::new())?;
        return Err("not killed".into());
    }
    drop(volume);
    Ok(engine.close()?)
}

fn peak_rss_mib() -> u64 {
    #[allow(clippy::disallowed_methods)]
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let dir = PathBuf::from(arguments.first().ok_or("which directory?")?);
    if let [_, step, what, then] = arguments.as_slice()
        && step == "step"
    {
        return run_step(&dir, what, then == "crash");
    }
    let wanted = |name: &str| arguments.len() == 1 || arguments[1..].iter().any(|argument| argument == name);
    let mut bars = Bars { missed: false };
    type Bar = fn(&mut Bars, &Path) -> Outcome<()>;
    let all: [(&str, Bar); 4] = [
        ("names", Bars::names),
        ("overwrites", Bars::overwrites),
        ("files", Bars::files),
        ("difference", Bars::difference),
    ];
    for (name, bar) in all.into_iter().filter(|(name, _)| wanted(name)) {
        let own = dir.join(name);
        std::fs::create_dir_all(&own)?;
        bar(&mut bars, &own)?;
        std::fs::remove_dir_all(&own)?;
    }
    if bars.missed {
        // What was measured stands above.
        std::process::exit(1);
    }
    Ok(())
}
