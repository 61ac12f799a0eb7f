//! Many files in one volume with a small metadata cache: memory, and how long a start takes. Prints JSON lines.
//!
//! ```text
//! scale DIR create FILES CACHE_MIB     makes a pool in DIR/{d1,d2} and FILES empty files in directories of 1,000,000; closes
//! scale DIR open CACHE_MIB             opens, looks 10,000 files up, closes
//! scale DIR crash FILES CACHE_MIB      opens, makes FILES more, ends without closing (the next open replays)
//! scale DIR list CACHE_MIB             lists the first directory, twice
//! ```

use holdfast_device::{Clock, RealClock, Rng};
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{Caller, FileSystem};
use holdfast_store::engine::{DriveSpec, Engine, EngineOptions, VolumeCreate};
use holdfast_store::volume::{Volume, VolumeOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022, writer: None };
const DIRECTORY_FILES: u64 = 1_000_000;
const LOOKUPS: u64 = 10_000;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn rss_mib() -> u64 {
    #[allow(clippy::disallowed_methods)]
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).map(str::to_owned).unwrap_or_default();
    line("VmHWM").split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn options(dir: &Path, cache_mib: usize) -> EngineOptions {
    EngineOptions { metadata_cache_bytes: cache_mib << 20, runtime_dir: dir.join("run"), ..EngineOptions::default() }
}

fn drives(dir: &Path) -> [PathBuf; 2] {
    [dir.join("d1"), dir.join("d2")]
}

fn ms_since(start_ns: u64) -> u64 {
    (RealClock.boottime_ns() - start_ns) / 1_000_000
}

/// Opens and says how long it took until the volume answered.
fn open(dir: &Path, cache_mib: usize) -> Outcome<(Arc<Engine>, Arc<Volume>)> {
    let start = RealClock.boottime_ns();
    let engine = Engine::open(&drives(dir), options(dir, cache_mib))?;
    let volume = engine.volume("v", VolumeOptions::default())?;
    volume.getattr(ROOT_INO).map_err(|error| format!("{error:?}"))?;
    println!("{{\"step\":\"open\",\"ms\":{},\"rss_mib\":{}}}", ms_since(start), rss_mib());
    Ok((engine, volume))
}

fn directory(volume: &Volume, number: u64) -> Outcome<Ino> {
    let name = format!("dir-{number}");
    let attr = match volume.lookup(ROOT_INO, name.as_bytes()) {
        Ok(attr) => attr,
        Err(_) => volume.mkdir(&ROOT, ROOT_INO, name.as_bytes(), 0o755).map_err(|error| format!("{error:?}"))?,
    };
    volume.forget(attr.ino, 1);
    Ok(attr.ino)
}

fn make(volume: &Volume, from: u64, files: u64) -> Outcome<()> {
    let start = RealClock.boottime_ns();
    let mut dir = ROOT_INO;
    for number in from..from + files {
        if number % DIRECTORY_FILES == 0 || dir == ROOT_INO {
            dir = directory(volume, number / DIRECTORY_FILES)?;
        }
        let name = format!("file-{number}");
        let attr = volume.create(&ROOT, dir, name.as_bytes(), 0o644).map_err(|error| format!("{name}: {error:?}"))?;
        volume.forget(attr.ino, 1);
        if number % 100_000 == 99_999 {
            eprintln!("{} files, {} ms, peak RSS {} MiB", number + 1, ms_since(start), rss_mib());
        }
    }
    println!("{{\"step\":\"create\",\"files\":{files},\"ms\":{},\"rss_mib\":{}}}", ms_since(start), rss_mib());
    Ok(())
}

fn look_up(volume: &Volume, files: u64) -> Outcome<()> {
    let mut rng = Rng::from_seed(1);
    let start = RealClock.boottime_ns();
    for _ in 0..LOOKUPS {
        let number = rng.below(files);
        let dir = directory(volume, number / DIRECTORY_FILES)?;
        let name = format!("file-{number}");
        let attr = volume.lookup(dir, name.as_bytes()).map_err(|error| format!("{name}: {error:?}"))?;
        volume.forget(attr.ino, 1);
    }
    println!("{{\"step\":\"lookup\",\"count\":{LOOKUPS},\"ms\":{},\"rss_mib\":{}}}", ms_since(start), rss_mib());
    Ok(())
}

fn list(volume: &Volume) -> Outcome<()> {
    let dir = directory(volume, 0)?;
    for _ in 0..2 {
        let start = RealClock.boottime_ns();
        let mut count = 0u64;
        volume
            .readdir(&ROOT, dir, 0, false, &mut |_| {
                count += 1;
                true
            })
            .map_err(|error| format!("{error:?}"))?;
        println!("{{\"step\":\"list\",\"count\":{count},\"ms\":{},\"rss_mib\":{}}}", ms_since(start), rss_mib());
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let dir = PathBuf::from(arguments.get(1).ok_or("which directory?")?);
    let number = |at: usize| -> Outcome<u64> { Ok(arguments.get(at).ok_or("a number is missing")?.parse()?) };
    match arguments.get(2).map(String::as_str) {
        Some("create") => {
            let files = number(3)?;
            for drive in drives(&dir).iter().chain([&dir.join("run")]) {
                std::fs::create_dir_all(drive)?;
            }
            let specs: Vec<DriveSpec> = drives(&dir)
                .into_iter()
                .map(|path| DriveSpec { path, bytes: Some(8 << 30), domain: String::new() })
                .collect();
            let engine = Engine::create("scale", &specs, options(&dir, number(4)? as usize))?;
            engine.volume_create(&VolumeCreate {
                name: "v".to_owned(),
                rf: 2,
                group: None,
                ack_write: false,
                quota_bytes: 0,
                owner: (0, 0),
            })?;
            let volume = engine.volume("v", VolumeOptions::default())?;
            make(&volume, 0, files)?;
            drop(volume);
            let start = RealClock.boottime_ns();
            engine.close()?;
            println!("{{\"step\":\"close\",\"ms\":{},\"rss_mib\":{}}}", ms_since(start), rss_mib());
        }
        Some("open") => {
            let (engine, volume) = open(&dir, number(3)? as usize)?;
            look_up(&volume, DIRECTORY_FILES)?;
            drop(volume);
            engine.close()?;
        }
        Some("crash") => {
            let (_engine, volume) = open(&dir, number(4)? as usize)?;
            make(&volume, 100_000_000, number(3)?)?;
            std::process::exit(0);
        }
        Some("list") => {
            let (engine, volume) = open(&dir, number(3)? as usize)?;
            list(&volume)?;
            drop(volume);
            engine.close()?;
        }
        _ => return Err("what: create, open, crash or list?".into()),
    }
    Ok(())
}
