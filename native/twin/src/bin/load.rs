//! `holdfast-load WORK --dir DIR …`: makes load in a directory and prints what it measured as one JSON array.

// A test tool outside the daemon: see the crate's root.
#![allow(clippy::disallowed_methods)]

use holdfast_twin::arguments::Arguments;
use holdfast_twin::load::{Measure, Options, WORKS, run};

const USAGE: &str = "\
holdfast-load WORK --dir DIR [options]
  write-fsync       random 4 KiB overwrites of a file a job, fsync after each, for --seconds
  write             the same without fsync
  create-fsync      new files of 4 KiB, fsync each, for --seconds
  sequential-write  --mib writes of 1 MiB a job and one fsync, all of it timed
  sequential-read   --mib reads of 1 MiB a job, cold
  random-read       random 4 KiB reads, cold at the start, for --seconds
  files             --files files a job: create with 4 KiB, stat, open+read+close, rename, unlink
  --jobs N (1)  --seconds S (2)  --mib N (128)  --files N (2000)  --seed N (1)  --drop-caches (as root)";

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
    if !WORKS.contains(&work.as_str()) {
        return Err(format!("{work:?} is no work\n{USAGE}"));
    }
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
    };
    arguments.finish()?;
    let measures = run(&work, &options)
        .map_err(|error| format!("{work} in {}: {error}", options.directory.display()))?;
    let lines: Vec<String> = measures.iter().map(Measure::json).collect();
    Ok(format!("[{}]", lines.join(",")))
}
