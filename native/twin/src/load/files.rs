//! Small files: create, readdir, stat, open+read+close, rename, unlink, each over all files of a job in an order of
//! its own, with the kernel's caches empty before each but create and unlink where that is asked for.

use std::fs::{self, File};
use std::io::{self, Read};
use std::time::Instant;

use super::{BLOCK_BYTES, Job, Measure, Options, drop_caches, phase, write_new};
use crate::fill;

pub(super) fn run(jobs: &mut [Job<'_>], options: &Options) -> io::Result<Vec<Measure>> {
    let block = fill::bytes(options.seed | 1, BLOCK_BYTES);
    let mut out = vec![phase("create", jobs, |job| {
        (0..options.files).try_for_each(|number| {
            let path = job.path("file", number);
            job.time(BLOCK_BYTES, |_| write_new(&path, &block).map(drop))
        })
    })?];
    drop_caches(options, jobs)?;
    out.push(phase("readdir", jobs, list)?);
    drop_caches(options, jobs)?;
    out.push(phase("stat", jobs, |job| {
        each(job, |job, number| {
            let path = job.path("file", number);
            job.time(0, |_| fs::symlink_metadata(path).map(drop))
        })
    })?);
    drop_caches(options, jobs)?;
    out.push(phase("open-read", jobs, |job| {
        each(job, |job, number| {
            let path = job.path("file", number);
            let mut buffer = [0; BLOCK_BYTES];
            job.time(BLOCK_BYTES, |_| File::open(path)?.read_exact(&mut buffer))
        })
    })?);
    drop_caches(options, jobs)?;
    out.push(phase("rename", jobs, |job| {
        each(job, |job, number| {
            let (from, to) = (job.path("file", number), job.path("renamed", number));
            job.time(0, |_| fs::rename(from, to))
        })
    })?);
    // Names stay known, as they are after a listing: what a cold one costs is what the disk below reads for its journal.
    out.push(phase("unlink", jobs, |job| {
        each(job, |job, number| {
            let path = job.path("renamed", number);
            job.time(0, |_| fs::remove_file(path))
        })
    })?);
    Ok(out)
}

pub(super) fn create_fsync(job: &mut Job<'_>) -> io::Result<()> {
    let block = fill::bytes(job.options.seed | 1, BLOCK_BYTES);
    job.repeat(|job, number| {
        let path = job.path("synced", number);
        job.time(BLOCK_BYTES, |_| write_new(&path, &block)?.sync_all())
    })
}

/// An op is an entry, but the latency is that of the whole listing: most entries come out of a buffer.
fn list(job: &mut Job<'_>) -> io::Result<()> {
    let started = Instant::now();
    for entry in fs::read_dir(&job.directory)? {
        entry?;
        job.operations += 1;
    }
    job.note(started);
    Ok(())
}

fn each(job: &mut Job<'_>, op: impl Fn(&mut Job<'_>, usize) -> io::Result<()>) -> io::Result<()> {
    job.shuffled(job.options.files).into_iter().try_for_each(|number| op(job, number))
}
