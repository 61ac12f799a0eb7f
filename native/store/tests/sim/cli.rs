//! `npm run sim -- --seeds N [--from S] [--seed S] [--threads N] [--mutant NAME]`: many seeds with progress and a summary, or one seed with
//! its story; with a seeded bug (`store/src/mutants.rs`), if one is named. Exit code 11: a demand was not met; 2: wrong arguments.

mod batch;
mod coverage;
mod faults;
mod files;
mod lift;
mod model;
mod past;
mod protect;
mod recover;
mod recycle;
#[path = "../rig/mod.rs"]
mod rig;
mod run;
mod shape;
mod step;
mod upkeep;
mod violation;

use holdfast_device::{Clock, RealClock};
use holdfast_store::mutants::Mutant;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

const DAMAGE_FOUND: u8 = 11;
const WRONG_ARGUMENTS: u8 = 2;
/// Lines of a failing seed's log.
const STORY_LINES: usize = 400;
const PROGRESS_NS: u64 = 5_000_000_000;

struct Arguments {
    from: u64,
    seeds: u64,
    one: Option<u64>,
    threads: usize,
    mutant: Option<Mutant>,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments { from: 0, seeds: 300, one: None, threads: 2, mutant: None };
    let mut rest = std::env::args().skip(1);
    while let Some(name) = rest.next() {
        let value = rest.next();
        if name == "--mutant" {
            let named = |mutant: &Mutant| value.as_ref().is_some_and(|value| format!("{mutant:?}") == *value);
            let mutant = Mutant::ALL.into_iter().find(named);
            found.mutant = Some(mutant.ok_or_else(|| format!("--mutant: one of {:?}", Mutant::ALL))?);
            continue;
        }
        let value = value.and_then(|value| value.parse::<u64>().ok());
        let value = value.ok_or_else(|| format!("{name}: a whole number follows"))?;
        match name.as_str() {
            "--seeds" => found.seeds = value,
            "--from" => found.from = value,
            "--seed" => found.one = Some(value),
            "--threads" => found.threads = value.clamp(1, 256) as usize,
            _ => return Err(format!("{name}: one of --seeds, --from, --seed, --threads, --mutant")),
        }
    }
    Ok(found)
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("sim: {problem}");
            return ExitCode::from(WRONG_ARGUMENTS);
        }
    };
    match arguments.one {
        Some(seed) => one(seed, arguments.mutant),
        None => many(&arguments),
    }
}

fn one(seed: u64, mutant: Option<Mutant>) -> ExitCode {
    let outcome = batch::run_seed(seed, mutant);
    println!("{}", outcome.story(usize::MAX));
    println!("trace {:016x} of {} events\n{}", outcome.digest.0, outcome.digest.1, outcome.coverage);
    if outcome.violation.is_some() { ExitCode::from(DAMAGE_FOUND) } else { ExitCode::SUCCESS }
}

fn many(arguments: &Arguments) -> ExitCode {
    let (clock, seeds) = (RealClock, arguments.from..arguments.from + arguments.seeds);
    println!("seeds {} to {}", seeds.start, seeds.end - 1);
    let began_ns = clock.boottime_ns();
    let (done, failed, told_ns) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(began_ns));
    let coverage = batch::run_batch(seeds, (arguments.threads, arguments.mutant), &|outcome| {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if outcome.violation.is_some() {
            failed.fetch_add(1, Ordering::Relaxed);
            println!("{}\n", outcome.story(STORY_LINES));
        }
        let now_ns = clock.boottime_ns();
        if now_ns - told_ns.load(Ordering::Relaxed) > PROGRESS_NS {
            told_ns.store(now_ns, Ordering::Relaxed);
            let (seconds, failed) = ((now_ns - began_ns) / 1_000_000_000, failed.load(Ordering::Relaxed));
            eprintln!("{done} of {} seeds, {failed} failed, {seconds} s", arguments.seeds);
        }
        true
    });
    let seconds = (clock.boottime_ns() - began_ns) as f64 / 1e9;
    let failed = failed.into_inner();
    println!("{coverage}{} seeds in {seconds:.1} s, {failed} failed", arguments.seeds);
    let missing = coverage.missing();
    if arguments.seeds >= 300 && !missing.is_empty() {
        println!("never met: {}", missing.join("; "));
        return ExitCode::from(DAMAGE_FOUND);
    }
    if failed > 0 { ExitCode::from(DAMAGE_FOUND) } else { ExitCode::SUCCESS }
}
