//! Virtual time: it moves only when told.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::Clock;

const NS_PER_SEC: i128 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
struct Times {
    boottime_ns: u64,
    wall_ns: i128,
}

/// Clones share one time.
#[derive(Clone, Debug)]
pub struct SimClock {
    times: Arc<Mutex<Times>>,
}

impl Default for SimClock {
    /// One second after boot, at a wall time in 2026.
    fn default() -> Self {
        let times = Times { boottime_ns: 1_000_000_000, wall_ns: 1_790_000_000 * NS_PER_SEC };
        Self { times: Arc::new(Mutex::new(times)) }
    }
}

impl SimClock {
    /// Another clock that shows the same time and goes on by itself.
    pub(super) fn fork(&self) -> Self {
        Self { times: Arc::new(Mutex::new(*self.times.lock())) }
    }

    /// Both clocks go on.
    pub fn advance(&self, ns: u64) {
        let mut times = self.times.lock();
        times.boottime_ns += ns;
        times.wall_ns += i128::from(ns);
    }

    /// The wall clock jumps, to either side; time since boot does not.
    pub fn set_wall(&self, sec: i64, nsec: u32) {
        self.times.lock().wall_ns = i128::from(sec) * NS_PER_SEC + i128::from(nsec);
    }

    /// A new boot: time since boot starts over, the wall clock stays.
    pub fn reboot(&self) {
        self.times.lock().boottime_ns = 0;
    }
}

impl Clock for SimClock {
    fn boottime_ns(&self) -> u64 {
        self.times.lock().boottime_ns
    }

    fn wall(&self) -> (i64, u32) {
        let wall_ns = self.times.lock().wall_ns;
        (wall_ns.div_euclid(NS_PER_SEC) as i64, wall_ns.rem_euclid(NS_PER_SEC) as u32)
    }

    /// Time goes on by as much, at once.
    fn sleep(&self, ns: u64) {
        self.advance(ns);
    }
}
