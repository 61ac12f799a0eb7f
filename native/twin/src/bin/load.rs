//! `holdfast-load WORK --dir DIR …`: makes load in a directory and prints what it measured as one JSON array.

// A test tool outside the daemon: see the crate's root.
#![allow(clippy::disallowed_methods)]

use holdfast_twin::arguments::Arguments;
use holdfast_twin::load::{Measure, Options, WORKS, Work, run};

const USAGE: &str = "\
holdfast-load WORK --dir DIR [options]
  write-fsync             random 4 KiB overwrites of a file a job, fsync after each, for --seconds
  write                   the same without fsync
  sequential-write-fsync  1 MiB overwrites in order, fsync after each, for --seconds
  sequential-write        --mib of new file a job in writes of 1 MiB and one fsync, all of it timed
  random-read             random 4 KiB reads, cold, no block twice, for --seconds at most
  cached-read             the same of a file that was just read whole; only its own pages are dropped before
  sequential-read         reads of 1 MiB in order, cold, for --seconds at most
  mix                     random 4 KiB reads, cold, and overwrites of other blocks by turns, for --seconds at most
  create-fsync            new files of 4 KiB, fsync each, for --seconds
  files                   --files files a job: create with 4 KiB, readdir, stat, open+read+close, rename, unlink
  --jobs N (1)  --seconds S (2)  --mib N (128)  --files N (2000)  --seed N (1)  --drop-caches (as root)
  --block-kib N     another size of reads and writes
  --rate N          N ops a second, all jobs together; latency counts from when an op was due
  --reuse           keep the big files in DIR/load-files, use those that are there; not for random-read, sequential-read
  --ballast-mib N (128)  written and removed before cold reads, to sink what was just written";

fn main() {
    match start() {
        Ok(json) => println!("{json}"),
        Err(message) => {
            eprintln!("holdfast-load: {message}");
            std::process::exit(1);
        }
    }
}

fn start() -> Result<String, String> {
    let work = std::env::args().nth(1).unwrap_or_default();
    let Some(work) = Work::named(&work) else {
        let names: Vec<&str> = WORKS.iter().map(|work| work.name).collect();
        return Err(format!("{work:?} is no work: there are {}\n{USAGE}", names.join(", ")));
    };
    let mut arguments = Arguments::from_process(2)?;
    let seconds = arguments.take("seconds").unwrap_or_else(|| "2".into());
    let options = Options {
        directory: arguments.require("dir")?.into(),
        jobs: arguments.number("jobs", 1)?.max(1) as usize,
        seconds: seconds.parse().map_err(|_| format!("--seconds {seconds:?} is not a number"))?,
        mib: arguments.number("mib", 128)?.max(1) as usize,
        files: arguments.number("files", 2000)?.max(1) as usize,
        seed: arguments.number("seed", 1)?,
        drop_caches: arguments.flag("drop-caches"),
        block_bytes: Some(arguments.number("block-kib", 0)? as usize * 1024).filter(|bytes| *bytes > 0),
        reuse: arguments.flag("reuse"),
        ballast_mib: arguments.number("ballast-mib", 128)? as usize,
        rate: Some(arguments.number("rate", 0)?).filter(|rate| *rate > 0),
    };
    arguments.finish()?;
    let measures = run(work, &options)
        .map_err(|error| format!("{} in {}: {error}", work.name, options.directory.display()))?;
    let lines: Vec<String> = measures.iter().map(Measure::json).collect();
    Ok(format!("[{}]", lines.join(",")))
}
