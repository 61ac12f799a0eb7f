//! Many runs, in parallel, each by its own seed.

use super::coverage::Coverage;
use super::run::Run;
use super::violation::{Check, Violation};
use holdfast_device::threads::run_parallel;
use holdfast_store::mutants::{Mutant, choose};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};

/// What became of one seed.
pub struct Outcome {
    pub seed: u64,
    /// Hash of everything that happened, and how many things that were.
    pub digest: (u64, u64),
    pub coverage: Coverage,
    pub violation: Option<Violation>,
    pub log: Vec<String>,
}

impl Outcome {
    /// The end of the log and what went wrong, for people.
    pub fn story(&self, lines: usize) -> String {
        let skip = self.log.len().saturating_sub(lines);
        let log = self.log[skip..].join("\n");
        match &self.violation {
            Some(violation) => {
                format!("{log}\nseed {}: {:?}: {}", self.seed, violation.check, violation.what)
            }
            None => format!("{log}\nseed {}: nothing is wrong", self.seed),
        }
    }
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics of runs are told by their story, not by the default hook.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if PANIC.with_borrow(Option::is_none) {
                default(info);
            } else {
                let trace = std::backtrace::Backtrace::force_capture().to_string();
                let own: Vec<&str> = trace.lines().filter(|line| line.contains("holdfast")).take(8).collect();
                PANIC.set(Some(format!("{info}\n{}", own.join("\n"))));
            }
        }));
    });
}

/// Plays a seed on an engine with this bug, or without one.
pub fn run_seed(seed: u64, mutant: Option<Mutant>) -> Outcome {
    catch_panics();
    choose(mutant);
    PANIC.set(Some(String::new()));
    let mut run = Run::new(seed);
    let verdict = catch_unwind(AssertUnwindSafe(|| run.play()));
    let told = PANIC.take().unwrap_or_default();
    let violation = match verdict {
        Ok(verdict) => verdict.err(),
        Err(_) => Some(Violation::new(Check::Panicked, told)),
    };
    if violation.as_ref().is_none_or(|violation| violation.check != Check::Panicked) {
        run.drop_engine();
    } else {
        run.engine = None;
        run.volumes.clear();
    }
    Outcome {
        seed,
        digest: run.world.digest(),
        coverage: std::mem::take(&mut run.coverage),
        violation,
        log: std::mem::take(&mut run.log),
    }
}

/// Runs the seeds on some threads; `each` sees every outcome as it comes and says whether to go on.
pub fn run_batch(
    seeds: std::ops::Range<u64>,
    (threads, mutant): (usize, Option<Mutant>),
    each: &(dyn Fn(&Outcome) -> bool + Sync),
) -> Coverage {
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Coverage::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = run_seed(seed, mutant);
            let mut total = total.lock().expect("no panic under the lock");
            total.merge(&outcome.coverage);
            if !each(&outcome) {
                next.store(seeds.end, Ordering::Relaxed);
            }
        }
    };
    run_parallel("sim", (0..threads).map(|_| work).collect());
    total.into_inner().expect("no panic under the lock")
}
