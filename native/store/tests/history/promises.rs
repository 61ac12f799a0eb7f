//! What retention promises of the seconds, told from all that were ever kept: which may have gone, and that no more are left
//! than that takes.

use super::run::Told;
use holdfast_format::retention::ThinStep;
use std::collections::{BTreeMap, BTreeSet};

pub const WINDOW_S: u64 = 6;
/// One in two seconds after that, one in five after fourteen, nothing after thirty.
pub const THIN: [ThinStep; 2] = [ThinStep { every_s: 2, for_s: 14 }, ThinStep { every_s: 5, for_s: 30 }];
pub const HORIZON_S: u64 = THIN[1].for_s;
const NS: u64 = 1_000_000_000;

/// How far apart seconds may lie when the later one is so old.
fn gap_ns(age_ns: u64) -> u64 {
    let starts = [(WINDOW_S, THIN[0].every_s * NS), (THIN[0].for_s, THIN[1].every_s * NS), (HORIZON_S, u64::MAX)];
    let in_force = starts.iter().rfind(|(from_s, _)| age_ns >= from_s * NS);
    in_force.map_or(0, |(_, every_ns)| *every_ns)
}

/// Seconds that have gone, each of which might: whatever moment of the window, or of a step, is asked for, what was there
/// then is kept, or something at most a step older.
pub fn check(told: &BTreeMap<u64, Told>, kept: &BTreeSet<u64>, now_ns: u64) -> BTreeSet<u64> {
    for (lsn, known) in told.iter().filter(|(_, known)| !known.name.is_empty()) {
        assert!(kept.contains(lsn), "snapshot {} has gone", known.name);
    }
    let ticks: Vec<(u64, u64)> =
        told.iter().filter(|(_, known)| known.name.is_empty()).map(|(lsn, known)| (*lsn, known.kept_ns)).collect();
    let (left, gone): (Vec<_>, Vec<_>) = ticks.iter().partition(|(lsn, _)| kept.contains(lsn));
    for (lsn, _) in &gone {
        let next = ticks.iter().find(|(other, _)| other > lsn);
        let next = next.unwrap_or_else(|| panic!("LSN {lsn}, the newest second, has gone"));
        assert!(now_ns - next.1 >= WINDOW_S * NS, "LSN {lsn} was there in the window, and has gone");
        let earlier = left.iter().rfind(|(other, _)| other < lsn);
        let later = left.iter().find(|(other, _)| other > lsn).expect("the newest second stays");
        let allowed_ns = gap_ns(now_ns - later.1);
        let gap = earlier.map_or(u64::MAX, |earlier| later.1 - earlier.1);
        assert!(gap <= allowed_ns, "of LSN {lsn} nothing is left within {gap} ns, {allowed_ns} are allowed");
    }
    for three in left.windows(3) {
        let allowed_ns = gap_ns(now_ns - three[2].1);
        // Within the window all stay, even several of one moment.
        assert!(allowed_ns == 0 || three[2].1 - three[0].1 > allowed_ns, "{three:?}: the middle one is too many, {allowed_ns} ns are allowed");
    }
    gone.into_iter().map(|(lsn, _)| lsn).collect()
}
