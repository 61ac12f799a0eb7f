//! The batch of CI: every promise is kept on each of its seeds, and the batch has met everything that there is to meet.

use super::batch::{Outcome, run_batch, run_seed};
use super::shape::PLAIN;
use std::sync::Mutex;

const SEEDS: u64 = 450;
const THREADS: usize = 2;
/// Every so many seeds one is played twice.
const TWICE_EVERY: u64 = 100;
const STORY_LINES: usize = 300;
/// Seeds beyond the batch that failed once.
const REGRESSIONS: [u64; 31] = [
    // A drive failed in the very edit that let another one join: who is in the pool was gone through before the new one was.
    PLAIN + 1678,
    // The copy of a drive was opened while the drive itself failed, both went on, and the pool then took the drive that was
    // written more and called the other one its older copy. (The model took the return of the first history for a mix.)
    PLAIN + 2109,
    // A copy of nothing counted as a change of its volume, and an fsync of it as a promise for the others. (The model.)
    PLAIN + 3687,
    // A volume of RF 3 joined a group whose first frames had one copy, of which the group's replay began.
    PLAIN + 4984,
    // The run ended in a flush, all drives were out by that, and the flush waited for one to come back. (The simulation.)
    PLAIN + 5725,
    // What a failed flush had left open was given back into files that were made later, and written. (The simulated drive.)
    PLAIN + 5941,
    // The copy of a drive was taken for the drive, while that could not be read. (The simulation.)
    PLAIN + 7983,
    // A frame without ops, of a start whose drive could not be read by the next one, led off the log that went on without it:
    // an older state was served.
    PLAIN + 9582,
    // The same, and the group was refused.
    PLAIN + 11077,
    // A frame that was written to the place of another one verifies there: scrub copied each over the other.
    PLAIN + 11044,
    // A drive's content was put into another one's place and erased in its own, all between two heartbeats: that is a drive
    // that has moved, and nobody can tell. (The simulation.)
    PLAIN + 16128,
    // A power cut took the end of a kept second back, whose versions had been given back already.
    902,
    1276,
    // A start was cut short in the change of manifest areas, the next one did not see that, and a drive lost what that one
    // wrote over it: the header that was begun stayed there, and the pool was refused as used apart.
    875,
    // A drive was exchanged, and could not make room for the log before anybody had noticed: the pool was said to be full.
    3909,
    // A clone of a time when its volume had more copies than what kept it by then, and nobody made them.
    5374,
    // A volume of three copies was destroyed, and those that were left in its group went on waiting for two.
    5554,
    // A log lost its end without a trace, and what was cloned from it showed an older state.
    5969,
    9429,
    // What ends points may lie behind the point that a clone is made of. (The simulation.)
    8325,
    // A clone of a volume with one copy is a group of its own, which goes with its drive. (The simulation.)
    3434,
    4864,
    // A drain wrote a block that was cut off by then, and kept its room: a drive could not be emptied.
    13605,
    // A drain wrote a block with the copies of its volume, and a clone that sees it asked for more.
    1776,
    // A clone of a time with more copies than there were drives for. (The simulation.)
    361,
    // A clone of a time with three copies, in a pool that was left with two drives, of which one failed: writes are refused,
    // fsync waits. (The model, twice.)
    7567,
    // One of two superblocks rotted while it was watched whether somebody writes them: a start was refused.
    9660,
    // After the last drive had failed a drain was published again: a segment was released twice, and the error said nothing.
    15699,
    // The copy of a drive was taken for it while it could not be read, and then the drive itself was erased: it had moved by
    // then. (The simulation.)
    11893,
    // A drive came back stale, was used anew, and was then exchanged for an image from before that: the pool emptied what it had
    // been and let it go, and nobody added it again. (The simulation.)
    16661,
    // A clone with two copies was destroyed, and what only it had seen of its parent was asked for with the three copies of another
    // clone, which nobody made.
    17686,
];

fn fail(outcome: &Outcome, failed: &Mutex<Vec<u64>>) {
    if outcome.violation.is_some() {
        println!("{}\n", outcome.story(STORY_LINES));
        failed.lock().expect("no panic under the lock").push(outcome.seed);
    }
}

#[test]
fn every_seed_keeps_every_promise() {
    println!("seeds 0 to {} and {REGRESSIONS:?}", SEEDS - 1);
    let failed = Mutex::new(Vec::new());
    let twice = |outcome: &Outcome| {
        fail(outcome, &failed);
        if outcome.seed.is_multiple_of(TWICE_EVERY) {
            let again = run_seed(outcome.seed, None);
            assert_eq!(again.digest, outcome.digest, "seed {} is not the same twice", outcome.seed);
            println!(
                "seed {}: trace {:016x} of {} events, twice",
                again.seed, again.digest.0, again.digest.1
            );
        }
        true
    };
    let mut coverage = run_batch(0..SEEDS, (THREADS, None), &twice);
    for seed in REGRESSIONS {
        let outcome = run_seed(seed, None);
        coverage.merge(&outcome.coverage);
        fail(&outcome, &failed);
    }
    println!("{coverage}");
    let failed = failed.into_inner().expect("no panic under the lock");
    assert!(failed.is_empty(), "seeds {failed:?} failed: npm run sim -- --seed S");
    assert_eq!(coverage.missing(), Vec::<String>::new(), "never met in {SEEDS} seeds");
}
