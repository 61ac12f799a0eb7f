//! Time. Safety never depends on it; intervals come from the boot-time clock, names of moments from the wall clock.

pub trait Clock: Send + Sync {
    /// Nanoseconds since boot, suspend included; never goes back.
    fn boottime_ns(&self) -> u64;
    /// Wall time: seconds and nanoseconds since 1970. May jump.
    fn wall(&self) -> (i64, u32);
    /// Returns after so many nanoseconds of boot time. For a deadline that nothing can shorten: whoever can be told waits
    /// for a signal instead.
    fn sleep(&self, ns: u64);
}

/// The machine's own clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealClock;

fn clock_ns(id: libc::clockid_t) -> (i64, u32) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the call to fill.
    let result = unsafe { libc::clock_gettime(id, &mut time) };
    assert_eq!(result, 0, "clock_gettime({id})");
    (time.tv_sec, time.tv_nsec as u32)
}

impl Clock for RealClock {
    fn boottime_ns(&self) -> u64 {
        let (sec, nsec) = clock_ns(libc::CLOCK_BOOTTIME);
        sec as u64 * 1_000_000_000 + nsec as u64
    }
    fn wall(&self) -> (i64, u32) {
        clock_ns(libc::CLOCK_REALTIME)
    }
    fn sleep(&self, ns: u64) {
        let end_ns = self.boottime_ns() + ns;
        loop {
            let left = end_ns.saturating_sub(self.boottime_ns());
            if left == 0 {
                return;
            }
            // Wakes early now and then.
            std::thread::park_timeout(std::time::Duration::from_nanos(left));
        }
    }
}
