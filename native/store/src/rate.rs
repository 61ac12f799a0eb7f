//! A rate that threads keep together: each books what it is about to do, and is told how long to wait for its turn.

use std::sync::atomic::{AtomicU64, Ordering};

/// When the next one may begin. Nothing is saved up: after a rest nobody waits, and no burst makes up for it.
#[derive(Default)]
pub(crate) struct Meter(AtomicU64);

impl Meter {
    /// Books what takes `cost_ns`; nanoseconds until its turn. What was booked further ahead than `ahead_max_ns` is let go.
    pub fn book(&self, now_ns: u64, cost_ns: u64, ahead_max_ns: u64) -> u64 {
        let mut start_ns = now_ns;
        let booked = self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |next_ns| {
            start_ns = next_ns.clamp(now_ns, now_ns + ahead_max_ns);
            Some(start_ns + cost_ns)
        });
        debug_assert!(booked.is_ok());
        start_ns - now_ns
    }
}
