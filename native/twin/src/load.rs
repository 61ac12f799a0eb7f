//! Load with measured latencies: each work prepares its files, waits until every job is ready, runs, and
//! gives one or more results. The same program drives every file system that is compared, so that its own
//! cost cancels out.
//!
//! - A read work reads no block twice, so that what is cold at the start stays cold.
//! - With a rate, ops are due at fixed times, and an op that begins late because the one before it was slow is
//!   timed from when it was due: a stall counts for everything that it held up.

mod files;
mod measure;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use holdfast_device::Rng;

use crate::fill;
pub use measure::Measure;

pub const BLOCK_BYTES: usize = 4096;
pub const STREAM_BYTES: usize = 1 << 20;
/// Latencies kept a job; beyond it ops still count, but not for percentiles.
const LATENCIES_MAX: usize = 4_000_000;
/// Where files that are kept for the next run lie, below the directory.
const KEPT: &str = "load-files";

pub struct Options {
    pub directory: PathBuf,
    pub jobs: usize,
    pub seconds: f64,
    /// Size of each job's file.
    pub mib: usize,
    /// Bytes of one read or write; the work's own where absent.
    pub block_bytes: Option<usize>,
    /// Files a job in the small-file work.
    pub files: usize,
    pub seed: u64,
    /// Empty the kernel's caches before reads and look-ups; needs root.
    pub drop_caches: bool,
    /// Keep the big files of warm reads and overwrites for the next run, and use those of the last one.
    pub reuse: bool,
    /// Written, flushed and removed before cold reads, which use files of their own: a file system may still have what was
    /// just written, or read before, in memory that no one can drop.
    pub ballast_mib: usize,
    /// Ops a second of all jobs together; as fast as they can where absent.
    pub rate: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Overwrites for some seconds.
    Write {
        fsync: bool,
    },
    /// The whole file once, then one fsync.
    Stream,
    /// `warm`: the file was read once before and only its own pages were dropped.
    Read {
        warm: bool,
    },
    /// Cold reads and overwrites by turns, of different blocks.
    Mix,
    CreateFsync,
    Files,
}

pub struct Work {
    pub name: &'static str,
    act: Act,
    random: bool,
    block_bytes: usize,
}

impl Work {
    pub fn named(name: &str) -> Option<&'static Self> {
        WORKS.iter().find(|work| work.name == name)
    }
}

const fn work(name: &'static str, act: Act, random: bool, block_bytes: usize) -> Work {
    Work { name, act, random, block_bytes }
}

pub const WORKS: &[Work] = &[
    work("write-fsync", Act::Write { fsync: true }, true, BLOCK_BYTES),
    work("write", Act::Write { fsync: false }, true, BLOCK_BYTES),
    work("sequential-write-fsync", Act::Write { fsync: true }, false, STREAM_BYTES),
    work("sequential-write", Act::Stream, false, STREAM_BYTES),
    work("random-read", Act::Read { warm: false }, true, BLOCK_BYTES),
    work("cached-read", Act::Read { warm: true }, true, BLOCK_BYTES),
    work("sequential-read", Act::Read { warm: false }, false, STREAM_BYTES),
    work("mix", Act::Mix, true, BLOCK_BYTES),
    work("create-fsync", Act::CreateFsync, false, BLOCK_BYTES),
    work("files", Act::Files, false, BLOCK_BYTES),
];

/// One job's share of a phase.
struct Job<'a> {
    options: &'a Options,
    rng: Rng,
    directory: PathBuf,
    /// The big file of this job, absent in small-file works.
    file: Option<File>,
    block_bytes: usize,
    /// When the op that runs was due, if it begins late.
    due: Option<Instant>,
    latencies_ns: Vec<u64>,
    operations: u64,
    bytes: u64,
}

impl Job<'_> {
    /// Runs and times one op that moves `bytes`.
    fn time<T>(&mut self, bytes: usize, op: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        let started = self.due.take().unwrap_or_else(Instant::now);
        let result = op(self)?;
        self.note(started);
        self.operations += 1;
        self.bytes += bytes as u64;
        Ok(result)
    }

    fn note(&mut self, started: Instant) {
        if self.latencies_ns.len() < LATENCIES_MAX {
            self.latencies_ns.push(started.elapsed().as_nanos() as u64);
        }
    }

    fn blocks(&self) -> usize {
        ((self.options.mib << 20) / self.block_bytes).max(1)
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::Error::other("this work has no big file"))
    }

    fn path(&self, prefix: &str, number: usize) -> PathBuf {
        self.directory.join(format!("{prefix}-{number:07}"))
    }

    fn shuffled(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for at in (1..count).rev() {
            order.swap(at, self.rng.below(at as u64 + 1) as usize);
        }
        order
    }

    /// Calls `op` with 0, 1, 2 … until the time is up, at the rate that is wanted.
    fn repeat(&mut self, mut op: impl FnMut(&mut Self, usize) -> io::Result<()>) -> io::Result<()> {
        let started = Instant::now();
        let deadline = Duration::from_secs_f64(self.options.seconds);
        let period = self
            .options
            .rate
            .map(|rate| Duration::from_secs_f64(self.options.jobs as f64 / rate.max(1) as f64));
        for turn in 0.. {
            if let Some(period) = period {
                let due = started + period.mul_f64(turn as f64);
                let late = Instant::now() >= due;
                self.due = late.then_some(due);
                if due - started >= deadline {
                    break;
                }
                crate::sys::sleep_until(due);
            }
            if started.elapsed() >= deadline {
                break;
            }
            op(self, turn)?;
        }
        self.due = None;
        Ok(())
    }
}

/// Runs a work in a fresh directory below `options.directory`, which is removed afterwards.
pub fn run(work: &Work, options: &Options) -> io::Result<Vec<Measure>> {
    let block_bytes = options.block_bytes.unwrap_or(work.block_bytes);
    if block_bytes == 0 || block_bytes > options.mib << 20 {
        return Err(io::Error::other(format!(
            "blocks of {block_bytes} bytes do not fit {} MiB",
            options.mib
        )));
    }
    let directory = options.directory.join(format!("load-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let result = run_in(work, options, &directory, block_bytes);
    fs::remove_dir_all(&directory)?;
    result
}

fn run_in(work: &Work, options: &Options, directory: &Path, block_bytes: usize) -> io::Result<Vec<Measure>> {
    let mut jobs = (0..options.jobs)
        .map(|number| make_job(work, options, directory, block_bytes, number))
        .collect::<io::Result<Vec<_>>>()?;
    let measure = match work.act {
        Act::Write { fsync } => {
            let order: Order = if work.random { random_order } else { wrapped_order };
            phase(work.name, &mut jobs, |job| overwrite(job, order, fsync))
        }
        Act::Stream => phase(work.name, &mut jobs, stream),
        Act::Read { warm } => {
            if !warm {
                sink(options, directory)?;
            }
            cool_down(options, &jobs, warm)?;
            phase(work.name, &mut jobs, |job| read(job, work.random))
        }
        Act::Mix => {
            cool_down(options, &jobs, false)?;
            phase(work.name, &mut jobs, mix)
        }
        Act::CreateFsync => phase(work.name, &mut jobs, files::create_fsync),
        Act::Files => return files::run(&mut jobs, options),
    };
    Ok(vec![measure?])
}

/// Makes the job's directory and, where the work needs it, its file, written and flushed.
fn make_job<'a>(
    work: &Work,
    options: &'a Options,
    directory: &Path,
    block_bytes: usize,
    number: usize,
) -> io::Result<Job<'a>> {
    let own = directory.join(format!("job-{number}"));
    fs::create_dir(&own)?;
    let kept = options.directory.join(KEPT);
    let folder = if options.reuse { kept.as_path() } else { own.as_path() };
    let file = match work.act {
        Act::Files | Act::CreateFsync => None,
        Act::Stream => Some(fresh(&own.join("stream"))?),
        Act::Read { warm: false } => Some(filled(&own, &format!("read-{number}"), options)?),
        Act::Mix => Some(filled(folder, &format!("mix-{number}-{}", options.mib), options)?),
        Act::Read { warm: true } => Some(filled(folder, &format!("read-{number}-{}", options.mib), options)?),
        Act::Write { .. } => Some(filled(folder, &format!("write-{number}-{}", options.mib), options)?),
    };
    Ok(Job {
        options,
        rng: Rng::from_seed(options.seed.wrapping_add(number as u64)),
        directory: own,
        file,
        block_bytes,
        due: None,
        latencies_ns: Vec::new(),
        operations: 0,
        bytes: 0,
    })
}

fn fresh(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(path)
}

/// A big file, written and flushed; the one that is there if it has the size that is wanted.
fn filled(folder: &Path, name: &str, options: &Options) -> io::Result<File> {
    fs::create_dir_all(folder)?;
    let path = folder.join(name);
    let bytes = (options.mib * STREAM_BYTES) as u64;
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == bytes) {
        return OpenOptions::new().read(true).write(true).open(path);
    }
    if path.exists() {
        fs::remove_file(&path)?;
    }
    let file = fresh(&path)?;
    for at in 0..options.mib {
        file.write_all_at(&fill::bytes(at as u64 + 1, STREAM_BYTES), (at * STREAM_BYTES) as u64)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Runs one phase on all jobs at once, from the first job's start to the last one's end. Each job takes its own
/// times: a thread that only watches may be late.
fn phase(
    work: &str,
    jobs: &mut [Job<'_>],
    body: impl Fn(&mut Job<'_>) -> io::Result<()> + Sync,
) -> io::Result<Measure> {
    let barrier = Barrier::new(jobs.len());
    let (barrier, body) = (&barrier, &body);
    let times = std::thread::scope(|scope| {
        let threads: Vec<_> = jobs
            .iter_mut()
            .map(|job| {
                (job.operations, job.bytes) = (0, 0);
                job.latencies_ns.clear();
                scope.spawn(move || {
                    crate::sys::wake_on_time();
                    barrier.wait();
                    let started = Instant::now();
                    body(job).map(|()| (started, Instant::now()))
                })
            })
            .collect();
        let ended = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| io::Error::other("a job panicked"))?);
        ended.collect::<io::Result<Vec<_>>>()
    })?;
    let first = times.iter().map(|(started, _)| *started).min();
    let last = times.iter().map(|(_, ended)| *ended).max();
    let elapsed = first.zip(last).map(|(first, last)| last - first).unwrap_or_default();
    let mut latencies_ns: Vec<u64> = jobs.iter().flat_map(|job| job.latencies_ns.iter().copied()).collect();
    latencies_ns.sort_unstable();
    Ok(Measure {
        work: work.to_owned(),
        jobs: jobs.len(),
        block_bytes: jobs.first().map_or(0, |job| job.block_bytes),
        operations: jobs.iter().map(|job| job.operations).sum(),
        bytes: jobs.iter().map(|job| job.bytes).sum(),
        seconds: elapsed.as_secs_f64(),
        latencies_ns,
    })
}

/// The block of the op with this number.
type Order = fn(&mut Job<'_>, usize) -> usize;

fn random_order(job: &mut Job<'_>, _: usize) -> usize {
    let blocks = job.blocks() as u64;
    job.rng.below(blocks) as usize
}

/// From the start again after the end.
fn wrapped_order(job: &mut Job<'_>, turn: usize) -> usize {
    turn % job.blocks()
}

fn overwrite(job: &mut Job<'_>, order: Order, fsync: bool) -> io::Result<()> {
    let block_bytes = job.block_bytes;
    let data = fill::bytes(job.options.seed | 1, block_bytes);
    job.repeat(|job, turn| {
        let offset = (order(job, turn) * block_bytes) as u64;
        job.time(block_bytes, |job| {
            job.file()?.write_all_at(&data, offset)?;
            if fsync { job.file()?.sync_all() } else { Ok(()) }
        })
    })
}

/// The final fsync counts as one op: its time is the work's own.
fn stream(job: &mut Job<'_>) -> io::Result<()> {
    let block_bytes = job.block_bytes;
    let data = fill::bytes(job.options.seed | 1, block_bytes);
    for at in 0..job.blocks() {
        job.time(block_bytes, |job| job.file()?.write_all_at(&data, (at * block_bytes) as u64))?;
    }
    job.time(0, |job| job.file()?.sync_all())
}

/// Each block once at most; ends with the file, or when the time is up.
fn read(job: &mut Job<'_>, random: bool) -> io::Result<()> {
    let block_bytes = job.block_bytes;
    let blocks = job.blocks();
    let order = if random { job.shuffled(blocks) } else { (0..blocks).collect() };
    let mut buffer = vec![0; block_bytes];
    let mut order = order.into_iter();
    let mut done = false;
    job.repeat(|job, _| match order.next() {
        Some(block) => {
            let offset = (block * block_bytes) as u64;
            job.time(block_bytes, |job| job.file()?.read_exact_at(&mut buffer, offset))
        }
        None => {
            done = true;
            Err(io::Error::from(io::ErrorKind::UnexpectedEof))
        }
    })
    .or_else(|error| if done { Ok(()) } else { Err(error) })
}

/// Reads each block of the even ones once at most, and overwrites any of the odd ones after each read.
fn mix(job: &mut Job<'_>) -> io::Result<()> {
    let block_bytes = job.block_bytes;
    let pairs = (job.blocks() / 2).max(1);
    let mut order = job.shuffled(pairs).into_iter();
    let data = fill::bytes(job.options.seed | 1, block_bytes);
    let mut buffer = vec![0; block_bytes];
    let mut done = false;
    job.repeat(|job, turn| {
        if turn % 2 == 1 {
            let block = 2 * job.rng.below(pairs as u64) + 1;
            return job.time(block_bytes, |job| job.file()?.write_all_at(&data, block * block_bytes as u64));
        }
        let Some(pair) = order.next() else {
            done = true;
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        };
        let offset = (2 * pair * block_bytes) as u64;
        job.time(block_bytes, |job| job.file()?.read_exact_at(&mut buffer, offset))
    })
    .or_else(|error| if done { Ok(()) } else { Err(error) })
}

/// Writes the ballast.
fn sink(options: &Options, directory: &Path) -> io::Result<()> {
    let path = directory.join("ballast");
    let file = fresh(&path)?;
    for at in 0..options.ballast_mib {
        file.write_all_at(&fill::bytes(at as u64 + 1, STREAM_BYTES), (at * STREAM_BYTES) as u64)?;
    }
    file.sync_all()?;
    fs::remove_file(path)
}

/// Takes the big files out of the page cache, and everything else too where asked, unless the file system below is
/// to be warm: then the files are read first, and only their own pages go.
fn cool_down(options: &Options, jobs: &[Job<'_>], warm: bool) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    for job in jobs.iter().filter(|_| warm) {
        let mut buffer = vec![0; STREAM_BYTES];
        for at in 0..options.mib {
            job.file()?.read_exact_at(&mut buffer, (at * STREAM_BYTES) as u64)?;
        }
    }
    jobs.iter().filter_map(|job| job.file.as_ref()).for_each(|file| crate::sys::evict(file.as_raw_fd()));
    if warm { Ok(()) } else { drop_caches(options, jobs) }
}

/// What is not written back yet is not dropped. The kernel's sync reaches no FUSE file system: they are asked by an
/// fsync of a directory.
fn drop_caches(options: &Options, jobs: &[Job<'_>]) -> io::Result<()> {
    if !options.drop_caches {
        return Ok(());
    }
    for job in jobs {
        // Some file systems have no fsync of directories; then there is nothing better.
        let _refused = File::open(&job.directory)?.sync_all();
    }
    crate::sys::sync_everything();
    fs::write("/proc/sys/vm/drop_caches", "3")
}

/// Writes a new file in one go.
fn write_new(path: &Path, data: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(data)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
