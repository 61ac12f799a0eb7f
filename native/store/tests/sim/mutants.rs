//! Does the simulation find anything? Each seeded bug is killed by a check that fits it, within the seeds of CI.

use super::batch::{Outcome, run_seed};
use super::violation::Check::{self, *};
use holdfast_device::threads::run_parallel;
use holdfast_store::mutants::Mutant;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const SEEDS: u64 = 450;
const THREADS: usize = 2;

/// The checks that name the bug: any other violation is a bug of another kind, or of the simulation.
fn named_by(mutant: Mutant) -> &'static [Check] {
    match mutant {
        Mutant::SkipFlush => &[LostDurable],
        Mutant::DropChecksum => &[WrongBytes, NotOneLsn],
        Mutant::DropMark => &[StaleDriveBelieved, ExchangeUnnoticed],
        Mutant::HealFromFirstCopy => &[ScrubNotClean, Unreadable, WrongBytes],
        Mutant::ReplayPastBadRecord => &[Unreadable],
        Mutant::BelieveRetriedFlush => &[FailedDriveBelieved],
        Mutant::ScrubSkipsSecondCopy => &[NotRedundant, ScrubNotClean],
        Mutant::DrainPastDurable => &[LostDurable, NotOneLsn],
        Mutant::ReuseAtOnce => &[ManifestOutrun],
        Mutant::AckOverHole => &[NotOneLsn],
        Mutant::RaiseMembershipLate => &[StaleDriveBelieved],
        Mutant::ReleaseWithoutEdit => &[Inconsistent],
        Mutant::NameWithoutStamp => &[ScrubNotClean],
    }
}

/// Where the search begins, so that it does not take long: any other seed of CI may do it as well.
fn first_seed(mutant: Mutant) -> u64 {
    match mutant {
        Mutant::DropMark => 245,
        Mutant::HealFromFirstCopy => 45,
        Mutant::ScrubSkipsSecondCopy => 45,
        Mutant::BelieveRetriedFlush => 30,
        Mutant::ReuseAtOnce => 245,
        _ => 0,
    }
}

/// The first seed that ends with a check that names the bug; and what other checks said before.
fn hunt(mutant: Mutant) -> (Option<Outcome>, Vec<Check>) {
    let mut others = Vec::new();
    let first = first_seed(mutant);
    let mut outcomes = (first..SEEDS.max(first + 1)).chain(0..first.min(SEEDS)).map(|seed| run_seed(seed, Some(mutant)));
    let killed = outcomes.find(|outcome| match &outcome.violation {
        Some(violation) if named_by(mutant).contains(&violation.check) => true,
        Some(violation) => {
            others.push(violation.check);
            false
        }
        None => false,
    });
    (killed, others)
}

#[test]
fn every_mutant_is_killed_by_a_check_that_names_it() {
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    let work = || {
        while let Some(mutant) = Mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (killed, others) = hunt(*mutant);
            match killed.as_ref().and_then(|outcome| Some((outcome.seed, outcome.violation.as_ref()?))) {
                Some((seed, violation)) => {
                    println!(
                        "{mutant:?}: killed by {:?} at seed {seed}, before it by {others:?}",
                        violation.check
                    );
                }
                None => {
                    let what = format!("{mutant:?} lives: {others:?}");
                    println!("{what}");
                    survivors.lock().expect("no panic under the lock").push(what);
                }
            }
        }
    };
    run_parallel("mutants", (0..THREADS).map(|_| work).collect());
    let survivors = survivors.into_inner().expect("no panic under the lock");
    assert_eq!(survivors, Vec::<String>::new());
}
