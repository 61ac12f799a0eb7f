//! C-enum: every state in which a crash can leave the drives, for random traces of the whole engine (FAULTS.md 5, 17,
//! 18, 19; STORE.md 12).

mod rig;

use holdfast_device::sim::CrashKind;
use holdfast_device::threads::run_parallel;
use rig::judge::{Budget, Judge, Tally};
use rig::player::{OpName, Plan, Player};
use rig::step::Step;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const TRACES: u64 = 56;
const THREADS: usize = 2;
const BUDGET: Budget = Budget { states_per_step: 55, states_per_repair: 55, recursion_every: 60, recursion_states: 6 };
const DISTINCT_MIN: u64 = 20_000;
const STEP_MIN: u64 = 500;
const OPS_MIN: u64 = 5;
/// Traces in which copies are lost, and crashes in each step of making them anew.
const WOUNDED_TRACES: u64 = 6;
const WOUNDED_STEP_MIN: u64 = 100;
/// Every numbered step of STORE.md 12, and of the crash orders in `native/`.
const STEPS: [Step; 18] = [
    Step::Acknowledged,
    Step::TakeSegments,
    Step::Frame,
    Step::OtherPayload,
    Step::FloorFrame,
    Step::DrainPayload,
    Step::DrainTable,
    Step::DrainEdit,
    Step::CompactTable,
    Step::CompactEdit,
    Step::CleanPayload,
    Step::CleanEdit,
    Step::AgeEdit,
    Step::Reuse,
    Step::AreaSnapshot,
    Step::AreaHeader,
    Step::Superblock,
    Step::EpochEdit,
];

/// Seeds from `TRACES` on that once failed. (23, 39 and 41 did, and are played anyway.)
const REGRESSIONS: [u64; 0] = [];

fn plan(seed: u64) -> Plan {
    let shapes: [(usize, &'static [u8], bool); 6] = [
        (3, &[2], false),
        (1, &[1], false),
        (3, &[3], false),
        (4, &[1, 2, 3], true),
        (3, &[3, 1], true),
        (3, &[1, 2], true),
    ];
    let (drives, rfs, shared) = shapes[seed as usize % shapes.len()];
    let before = [0, 60, 200, 400][(seed / 6) as usize % 4];
    Plan { seed, drives, rfs, shared, wounded: false, before, recorded: 60 }
}

/// Three copies on four drives: with one drive gone and another one partly wrong, one copy of everything is right.
fn wounded_plan(seed: u64) -> Plan {
    let before = [120, 300][seed as usize % 2];
    Plan { seed, drives: 4, rfs: &[3], shared: false, wounded: true, before, recorded: 48 }
}

/// Plays and judges one plan.
fn run(plan: Plan, budget: Budget) -> Result<(Tally, BTreeMap<OpName, u64>), String> {
    let mut player = Player::new(plan);
    player.play();
    let mut judge = Judge::new(&player, budget);
    judge.judge(CrashKind::Power)?;
    judge.judge(CrashKind::Kill)?;
    Ok((judge.tally, player.counts))
}

/// Plays and judges plans in parallel; fails when one does.
fn run_all(plans: &[Plan], budget: Budget) -> (Tally, BTreeMap<OpName, u64>) {
    let next = AtomicU64::new(0);
    let total = Mutex::new((Tally::default(), BTreeMap::<OpName, u64>::new(), Vec::<String>::new()));
    let work = || {
        while let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let result = run(*plan, budget);
            let mut total = total.lock().expect("no panic under the lock");
            match result {
                Ok((tally, counts)) => {
                    total.0.add(&tally);
                    counts.into_iter().for_each(|(op, count)| *total.1.entry(op).or_default() += count);
                }
                Err(problem) => total.2.push(format!("seed {}: {problem}", plan.seed)),
            }
        }
    };
    run_parallel("crash", (0..THREADS).map(|_| work).collect());
    let (tally, ops, problems) = total.into_inner().expect("no panic under the lock");
    for problem in &problems {
        println!("FAILED {problem}\n");
    }
    println!(
        "{} distinct states, {} crashed recoveries, {} edits forgotten",
        tally.distinct, tally.recursions, tally.edits_forgotten
    );
    println!("steps: {:#?}\noperations: {ops:#?}", tally.by_step);
    assert!(
        problems.is_empty(),
        "{} seeds failed: look into one with `one_seed`, then keep it",
        problems.len()
    );
    (tally, ops)
}

#[test]
fn every_crash_leaves_the_state_at_one_lsn() {
    let plans: Vec<Plan> = REGRESSIONS.into_iter().chain(0..TRACES).map(plan).collect();
    let (tally, ops) = run_all(&plans, BUDGET);
    assert!(tally.distinct >= DISTINCT_MIN, "only {} distinct states", tally.distinct);
    for (op, count) in OpName::all().map(|op| (op, ops.get(&op).copied().unwrap_or(0))) {
        assert!(count >= OPS_MIN, "{op:?} was played only {count} times");
    }
    for step in STEPS {
        let count = tally.by_step.get(&step).copied().unwrap_or(0);
        assert!(count >= STEP_MIN, "only {count} crashes in {step:?}");
    }
    assert!(tally.edits_forgotten >= STEP_MIN && tally.recursions >= STEP_MIN);
}

/// In-line repair and the making of lost copies (FAULTS.md 1, 9, 19), with a crash at each of their writes.
#[test]
fn every_crash_while_copies_are_mended_and_made_anew_leaves_the_state_at_one_lsn() {
    let plans: Vec<Plan> = (0..WOUNDED_TRACES).map(|seed| wounded_plan(900 + seed)).collect();
    let (tally, _) = run_all(&plans, Budget { states_per_step: 8, states_per_repair: 120, ..BUDGET });
    for step in [Step::Mend, Step::HealCopy, Step::HealEdit] {
        let count = tally.by_step.get(&step).copied().unwrap_or(0);
        assert!(count >= WOUNDED_STEP_MIN, "only {count} crashes in {step:?}");
    }
}

/// One seed alone, to look into a failure: change the number.
#[test]
#[ignore = "for looking into a failing seed"]
fn one_seed() {
    const SEED: u64 = 0;
    if let Err(problem) = run(plan(SEED), BUDGET) {
        panic!("seed {SEED}: {problem}");
    }
}
