//! Back-pressure: ops that take space are spaced out, the more the closer the drain, the merges or the cleaning are to
//! being overrun, so that what is written has paid for what it causes (STORE.md 18). Reads, flushes and ops that give
//! space back never wait here.
//!
//! The delay is a rate: all writers of a group together may add a page every `page_ns`. It grows without a step from 0,
//! so the load settles where writers and upkeep are equally fast.

use super::Group;
use crate::rate::Meter;
use holdfast_format::limits::LEVEL0_RUNS_MAX;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Delay of a page at half pressure.
const PAGE_NS_HALF: f64 = 25_000.0;
/// And at most: 500 pages a second get through whatever happens.
const PAGE_NS_MAX: f64 = 2_000_000.0;
/// Debts below this are not worth a sleep; none is longer than the other.
const SLEEP_NS_MIN: u64 = 1_000_000;
const SLEEP_NS_MAX: u64 = 100_000_000;
/// Fill of the active memtable, while another waits to be drained, at which pressure begins.
const MEMTABLE_FILL_EASY: f64 = 0.25;
/// Runs on level 0 at which pressure is full: this many times what makes a merge due.
const RUNS_FULL: f64 = 3.0;
/// Ops between two looks at the load.
pub(super) const LOOK_OPS: u64 = 64;

/// What presses, each from 0 (at ease) to 1 (overrun).
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Load {
    /// Fill of the active memtable or of the log that belongs to it; 0 while none waits to be drained.
    pub memtable: f64,
    pub runs: usize,
    /// Part of the room that cleaning holds free that is left; 1 while cleaning has nothing to do.
    pub room: f64,
}

fn part(value: f64, from: f64, until: f64) -> f64 {
    ((value - from) / (until - from)).clamp(0.0, 1.0)
}

impl Load {
    fn pressure(&self) -> f64 {
        let due = LEVEL0_RUNS_MAX as f64;
        let memtable = part(self.memtable, MEMTABLE_FILL_EASY, 1.0);
        let runs = part(self.runs as f64, due, due * RUNS_FULL);
        let room = part(1.0 - self.room, 0.0, 1.0);
        memtable.max(runs).max(room)
    }

    /// Nanoseconds between two pages.
    pub fn page_ns(&self) -> u64 {
        let pressure = self.pressure();
        (PAGE_NS_HALF * pressure / (1.0 - pressure)).min(PAGE_NS_MAX) as u64
    }
}

#[derive(Default)]
pub(super) struct Pace {
    page_ns: AtomicU64,
    meter: Meter,
    sleepers: (Mutex<()>, Condvar),
    pub waited_ns: AtomicU64,
}

impl Pace {
    /// Books `pages`; how long the caller has to wait.
    fn book(&self, now_ns: u64, pages: u64) -> u64 {
        let cost = self.page_ns.load(Ordering::Relaxed).saturating_mul(pages);
        if cost == 0 {
            return 0;
        }
        let debt = self.meter.book(now_ns, cost, SLEEP_NS_MAX);
        if debt < SLEEP_NS_MIN { 0 } else { debt }
    }

    pub fn wake(&self) {
        self.sleepers.1.notify_all();
    }
}

impl Group {
    /// The op's share of the delay. Called before any lock is taken.
    pub(super) fn pay(&self, pages: u64) {
        let wait_ns = self.pace.book(self.options.clock.boottime_ns(), pages + 1);
        if wait_ns > 0 {
            let mut asleep = self.pace.sleepers.0.lock();
            self.pace.sleepers.1.wait_for(&mut asleep, Duration::from_nanos(wait_ns));
            self.pace.waited_ns.fetch_add(wait_ns, Ordering::Relaxed);
        }
    }

    /// Looks at the load and sets the pace for the ops that follow; wakes the cleaner when room runs short.
    pub(super) fn set_pace(&self) {
        let (waiting, active, runs) = {
            let view = self.view.read();
            (view.generations.len() > 1, view.generations[0].clone(), view.levels.level0_runs())
        };
        let filled = active.memtable.bytes() as f64 / self.generation_budget() as f64;
        let logged = self.logged_bytes.load(Ordering::Acquire) as f64 / self.log_bytes_due as f64;
        let room = self.pool.room();
        if room.left() < 1.0 {
            self.options.cleaner.ring();
        }
        let load = Load {
            memtable: if waiting { filled.max(logged) } else { 0.0 },
            runs,
            room: if self.pool.is_cleaning() { room.left() } else { 1.0 },
        };
        self.pace.page_ns.store(load.page_ns(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_without_a_step_and_has_an_end() {
        let at_ease = Load { memtable: 0.2, runs: LEVEL0_RUNS_MAX, room: 1.0 };
        assert_eq!(at_ease.page_ns(), 0);
        for of in 0..3 {
            let load = |part: f64| match of {
                0 => Load { memtable: MEMTABLE_FILL_EASY + part * (1.0 - MEMTABLE_FILL_EASY), ..at_ease },
                1 => Load { runs: LEVEL0_RUNS_MAX + (part * 8.0) as usize, ..at_ease },
                _ => Load { room: 1.0 - part, ..at_ease },
            };
            let delays: Vec<u64> = (0..=100).map(|at| load(at as f64 / 100.0).page_ns()).collect();
            assert!(delays.is_sorted() && delays[100] == PAGE_NS_MAX as u64, "{delays:?}");
            if of != 1 {
                assert!(delays.windows(2).take(90).all(|pair| pair[1] - pair[0] < 60_000), "{delays:?}");
                assert!((24_000..26_000).contains(&delays[50]), "{}", delays[50]);
            }
        }
    }

    #[test]
    fn a_rate_is_kept_by_any_number_of_writers() {
        for writers in [1u64, 7] {
            let pace = Pace::default();
            pace.page_ns.store(100_000, Ordering::Relaxed);
            let mut ready = vec![0u64; writers as usize];
            let mut pages = 0;
            // Each writer books again once its wait is over, for a second of ten thousand pages.
            while let Some((at, now)) = (0..ready.len()).map(|at| (at, ready[at])).min_by_key(|(_, now)| *now) {
                if now > 1_000_000_000 {
                    break;
                }
                ready[at] = now + pace.book(now, 1).max(1_000);
                pages += 1;
            }
            assert!((9_500..=10_500).contains(&pages), "{writers} writers: {pages}");
        }
    }
}
