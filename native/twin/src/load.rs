//! Load with measured latencies: each work prepares its files, waits until every job is ready, runs, and
//! gives one or more results. The same program drives every file system that is compared, so that its own
//! cost cancels out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use holdfast_device::Rng;

use crate::fill;

pub const BLOCK_BYTES: usize = 4096;
pub const STREAM_BYTES: usize = 1 << 20;
/// Latencies kept a job; beyond it ops still count, but not for percentiles.
const LATENCIES_MAX: usize = 4_000_000;

pub struct Options {
    pub directory: PathBuf,
    pub jobs: usize,
    pub seconds: f64,
    /// Size of each job's file.
    pub mib: usize,
    /// Files a job in the small-file work.
    pub files: usize,
    pub seed: u64,
    /// Empty the kernel's caches before reads and look-ups; needs root.
    pub drop_caches: bool,
}

pub const WORKS: &[&str] =
    &["write-fsync", "write", "create-fsync", "sequential-write", "sequential-read", "random-read", "files"];

/// What one phase of one work gave.
pub struct Measure {
    pub work: String,
    pub jobs: usize,
    pub operations: u64,
    pub bytes: u64,
    pub seconds: f64,
    /// Sorted.
    pub latencies_ns: Vec<u64>,
}

impl Measure {
    /// The latency that `per_mille` of all ops did not exceed, in microseconds.
    pub fn latency_us(&self, per_mille: usize) -> f64 {
        let last = self.latencies_ns.len().saturating_sub(1);
        let at = (self.latencies_ns.len() * per_mille / 1000).min(last);
        self.latencies_ns.get(at).map_or(0.0, |ns| *ns as f64 / 1000.0)
    }

    pub fn json(&self) -> String {
        let seconds = self.seconds.max(1e-9);
        format!(
            "{{\"work\":\"{}\",\"jobs\":{},\"operations\":{},\"seconds\":{:.6},\"operationsPerSecond\":{:.2},\
             \"mibPerSecond\":{:.2},\"latencyMicroseconds\":{{\"p50\":{:.1},\"p90\":{:.1},\"p99\":{:.1},\
             \"p999\":{:.1},\"max\":{:.1}}}}}",
            self.work,
            self.jobs,
            self.operations,
            self.seconds,
            self.operations as f64 / seconds,
            self.bytes as f64 / seconds / f64::from(1 << 20),
            self.latency_us(500),
            self.latency_us(900),
            self.latency_us(990),
            self.latency_us(999),
            self.latency_us(1000),
        )
    }
}

/// One job's share of a phase.
struct Job<'a> {
    options: &'a Options,
    rng: Rng,
    directory: PathBuf,
    /// The big file of this job, absent in small-file works.
    file: Option<File>,
    latencies_ns: Vec<u64>,
    operations: u64,
    bytes: u64,
}

impl Job<'_> {
    /// Runs and times one op that moves `bytes`.
    fn time<T>(&mut self, bytes: usize, op: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        let started = Instant::now();
        let result = op(self)?;
        if self.latencies_ns.len() < LATENCIES_MAX {
            self.latencies_ns.push(started.elapsed().as_nanos() as u64);
        }
        self.operations += 1;
        self.bytes += bytes as u64;
        Ok(result)
    }

    fn block_offset(&mut self) -> u64 {
        let blocks = (self.options.mib << 20) / BLOCK_BYTES;
        self.rng.below(blocks as u64) * BLOCK_BYTES as u64
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::Error::other("this work has no big file"))
    }

    fn path(&self, prefix: &str, number: usize) -> PathBuf {
        self.directory.join(format!("{prefix}-{number:07}"))
    }
}

/// Runs a work by name in a fresh directory below `options.directory`, which is removed afterwards.
pub fn run(work: &str, options: &Options) -> io::Result<Vec<Measure>> {
    let directory = options.directory.join(format!("load-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let result = run_in(work, options, &directory);
    fs::remove_dir_all(&directory)?;
    result
}

fn run_in(work: &str, options: &Options, directory: &Path) -> io::Result<Vec<Measure>> {
    let deadline = Duration::from_secs_f64(options.seconds);
    let mut jobs = (0..options.jobs)
        .map(|number| make_job(work, options, &directory.join(format!("job-{number}")), number as u64))
        .collect::<io::Result<Vec<_>>>()?;
    let block = fill::bytes(options.seed | 1, BLOCK_BYTES);
    let until = |job: &mut Job<'_>, op: &dyn Fn(&mut Job<'_>) -> io::Result<()>| {
        let started = Instant::now();
        while started.elapsed() < deadline {
            op(job)?;
        }
        Ok(())
    };
    let measure = match work {
        "write-fsync" => phase(work, &mut jobs, |job| {
            until(job, &|job| {
                let offset = job.block_offset();
                job.time(BLOCK_BYTES, |job| {
                    job.file()?.write_all_at(&block, offset)?;
                    job.file()?.sync_all()
                })
            })
        }),
        "write" => phase(work, &mut jobs, |job| {
            until(job, &|job| {
                let offset = job.block_offset();
                job.time(BLOCK_BYTES, |job| job.file()?.write_all_at(&block, offset))
            })
        }),
        "create-fsync" => phase(work, &mut jobs, |job| {
            until(job, &|job| {
                let path = job.path("synced", job.operations as usize);
                job.time(BLOCK_BYTES, |_| {
                    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
                    file.write_all(&block)?;
                    file.sync_all()
                })
            })
        }),
        "sequential-write" => phase(work, &mut jobs, sequential_write),
        "sequential-read" => {
            cool_down(options, &jobs)?;
            phase(work, &mut jobs, sequential_read)
        }
        "random-read" => {
            cool_down(options, &jobs)?;
            phase(work, &mut jobs, |job| {
                until(job, &|job| {
                    let offset = job.block_offset();
                    let mut buffer = [0; BLOCK_BYTES];
                    job.time(BLOCK_BYTES, |job| job.file()?.read_exact_at(&mut buffer, offset))
                })
            })
        }
        "files" => return small_files(&mut jobs, options),
        other => return Err(io::Error::other(format!("unknown work {other:?}; there are {WORKS:?}"))),
    };
    Ok(vec![measure?])
}

/// Makes the job's directory and, where the work needs it, its file, written and flushed.
fn make_job<'a>(work: &str, options: &'a Options, directory: &Path, number: u64) -> io::Result<Job<'a>> {
    fs::create_dir(directory)?;
    let path = directory.join("file");
    let file = match work {
        "files" | "create-fsync" => None,
        "sequential-write" => Some(OpenOptions::new().read(true).write(true).create_new(true).open(path)?),
        _ => {
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
            for at in 0..options.mib {
                file.write_all_at(&fill::bytes(at as u64 + 1, STREAM_BYTES), (at * STREAM_BYTES) as u64)?;
            }
            file.sync_all()?;
            Some(file)
        }
    };
    Ok(Job {
        options,
        rng: Rng::from_seed(options.seed.wrapping_add(number)),
        directory: directory.to_path_buf(),
        file,
        latencies_ns: Vec::new(),
        operations: 0,
        bytes: 0,
    })
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
        operations: jobs.iter().map(|job| job.operations).sum(),
        bytes: jobs.iter().map(|job| job.bytes).sum(),
        seconds: elapsed.as_secs_f64(),
        latencies_ns,
    })
}

/// The final fsync counts as one op: its time is the work's own.
fn sequential_write(job: &mut Job<'_>) -> io::Result<()> {
    let data = fill::bytes(job.options.seed | 1, STREAM_BYTES);
    for at in 0..job.options.mib {
        job.time(STREAM_BYTES, |job| job.file()?.write_all_at(&data, (at * STREAM_BYTES) as u64))?;
    }
    job.time(0, |job| job.file()?.sync_all())
}

fn sequential_read(job: &mut Job<'_>) -> io::Result<()> {
    let mut buffer = vec![0; STREAM_BYTES];
    for at in 0..job.options.mib {
        job.time(STREAM_BYTES, |job| job.file()?.read_exact_at(&mut buffer, (at * STREAM_BYTES) as u64))?;
    }
    Ok(())
}

/// Takes the big files out of the page cache, and everything else too where asked.
fn cool_down(options: &Options, jobs: &[Job<'_>]) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    jobs.iter().filter_map(|job| job.file.as_ref()).for_each(|file| crate::sys::evict(file.as_raw_fd()));
    drop_caches(options)
}

fn drop_caches(options: &Options) -> io::Result<()> {
    if options.drop_caches { fs::write("/proc/sys/vm/drop_caches", "3") } else { Ok(()) }
}

/// Create, stat, open+read+close, rename, unlink, each over all files in an order of its own.
fn small_files(jobs: &mut [Job<'_>], options: &Options) -> io::Result<Vec<Measure>> {
    let block = fill::bytes(options.seed | 1, BLOCK_BYTES);
    let mut out = Vec::new();
    out.push(phase("create", jobs, |job| {
        (0..options.files).try_for_each(|number| {
            let path = job.path("file", number);
            job.time(BLOCK_BYTES, |_| {
                OpenOptions::new().write(true).create_new(true).open(path)?.write_all(&block)
            })
        })
    })?);
    drop_caches(options)?;
    out.push(phase("stat", jobs, |job| {
        shuffled(job, options.files).into_iter().try_for_each(|number| {
            let path = job.path("file", number);
            job.time(0, |_| fs::symlink_metadata(path).map(drop))
        })
    })?);
    drop_caches(options)?;
    out.push(phase("open-read", jobs, |job| {
        shuffled(job, options.files).into_iter().try_for_each(|number| {
            let path = job.path("file", number);
            let mut buffer = [0; BLOCK_BYTES];
            job.time(BLOCK_BYTES, |_| File::open(path)?.read_exact(&mut buffer))
        })
    })?);
    drop_caches(options)?;
    out.push(phase("rename", jobs, |job| {
        shuffled(job, options.files).into_iter().try_for_each(|number| {
            let (from, to) = (job.path("file", number), job.path("renamed", number));
            job.time(0, |_| fs::rename(from, to))
        })
    })?);
    out.push(phase("unlink", jobs, |job| {
        shuffled(job, options.files).into_iter().try_for_each(|number| {
            let path = job.path("renamed", number);
            job.time(0, |_| fs::remove_file(path))
        })
    })?);
    Ok(out)
}

fn shuffled(job: &mut Job<'_>, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for at in (1..count).rev() {
        order.swap(at, job.rng.below(at as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(directory: &Path) -> Options {
        let directory = directory.to_path_buf();
        Options { directory, jobs: 2, seconds: 0.05, mib: 2, files: 20, seed: 1, drop_caches: false }
    }

    #[test]
    fn every_work_counts_what_it_did_and_leaves_nothing_behind() {
        let directory = std::env::temp_dir().join(format!("holdfast-load-test-{}", std::process::id()));
        fs::create_dir(&directory).expect("a fresh directory");
        for work in WORKS {
            let measures = run(work, &options(&directory)).expect(work);
            for measure in &measures {
                assert!(measure.operations > 0, "{work}");
                assert_eq!(measure.latencies_ns.len() as u64, measure.operations, "{work}");
                assert!(measure.latencies_ns.is_sorted(), "{work}");
                // Two jobs at once cannot do more than two seconds' work in a second.
                let busy: u64 = measure.latencies_ns.iter().sum();
                assert!(
                    busy as f64 / 1e9 <= 2.0 * measure.seconds,
                    "{work}: {busy} ns in {} s",
                    measure.seconds
                );
            }
            if *work == "files" {
                let phases: Vec<&str> = measures.iter().map(|measure| measure.work.as_str()).collect();
                assert_eq!(phases, ["create", "stat", "open-read", "rename", "unlink"]);
                assert!(measures.iter().all(|measure| measure.operations == 40));
            }
        }
        assert_eq!(fs::read_dir(&directory).expect("still there").count(), 0);
        fs::remove_dir(&directory).expect("empty");
    }

    #[test]
    fn percentiles_are_taken_from_the_sorted_latencies() {
        let latencies_ns = (1..=1000).map(|at| at * 1000).collect();
        let work = "x".to_owned();
        let measure = Measure { work, jobs: 1, operations: 1000, bytes: 0, seconds: 1.0, latencies_ns };
        assert_eq!(measure.latency_us(500), 501.0);
        assert_eq!(measure.latency_us(1000), 1000.0);
    }
}
