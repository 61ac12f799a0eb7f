//! Counts what users ask of a volume, so that work in the background knows whether anybody else wants the drives.
//!
//! Only what comes through [`crate::api::FileSystem`] counts: a look-up of the daemon's own, for a status say, is nobody's
//! load. A counter is on a cache line of its own and threads take turns at them, so that no line travels between the
//! processors of threads that work at once: a call costs one increment of a line that its processor has already.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// More than threads that usually answer one mount.
const LANES: usize = 16;

/// Two cache lines: processors fetch them in pairs.
#[repr(align(128))]
#[derive(Default)]
struct Lane(AtomicU64);

#[derive(Default)]
pub(super) struct Requests([Lane; LANES]);

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static LANE: Cell<Option<usize>> = const { Cell::new(None) };
}

fn lane() -> usize {
    LANE.get().unwrap_or_else(|| {
        let lane = THREADS.fetch_add(1, Ordering::Relaxed) % LANES;
        LANE.set(Some(lane));
        lane
    })
}

impl Requests {
    pub fn note(&self) {
        self.0[lane()].0.fetch_add(1, Ordering::Relaxed);
    }

    /// Since the volume was opened.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|lane| lane.0.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_counts() {
        let requests = Requests::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * LANES {
                scope.spawn(|| (0..100).for_each(|_| requests.note()));
            }
        });
        assert_eq!(requests.count(), 200 * LANES as u64);
    }
}
