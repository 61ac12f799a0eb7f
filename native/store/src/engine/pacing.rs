//! How work in the background makes room for users: at full speed while nobody asks anything of a volume, else a limited
//! number of bytes a second, in small pieces that are spread evenly.
//!
//! A piece is small so that no request of a user waits long behind it, and pieces do not come in bursts, so that few
//! requests meet one.

use super::Engine;
use crate::placement::Pace;
use crate::rate::Meter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// After a request of a user it stays busy for so long: longer than a user who is at work takes between two.
const CALM_NS: u64 = 200_000_000;
/// Read or written by one call while it is busy: of copies that are made, and of what is only looked at, which has time.
const COPY_PIECE_BYTES: usize = 128 << 10;
const SCRUB_PIECE_BYTES: usize = 32 << 10;
/// The same of a background that keeps to a rate while it is calm: the first request of a user may come any moment.
const CALM_PIECE_BYTES: usize = 512 << 10;
const SECOND_NS: u128 = 1_000_000_000;
/// Waits below this are put together: to wake up for each page would cost more than it spares.
const WAIT_NS_MIN: u64 = 2_000_000;
/// No wait is longer: what was booked ahead of it is let go.
const WAIT_NS_MAX: u64 = 1_000_000_000;

/// What was seen of the users, and what is booked.
#[derive(Default)]
pub(super) struct Pacing {
    /// Their requests so far.
    requests: AtomicU64,
    /// Boot time of the newest look that found more of them.
    changed_ns: AtomicU64,
    meter: Meter,
}

impl Pacing {
    /// Books a piece of so many bytes; nanoseconds until it may begin.
    fn book(&self, now_ns: u64, bytes: usize, bytes_per_s: u64) -> u64 {
        let cost_ns = (bytes as u128 * SECOND_NS / bytes_per_s.max(1) as u128) as u64;
        self.meter.book(now_ns, cost_ns, WAIT_NS_MAX)
    }
}

/// Who is at work besides, and how they are waited for.
pub trait Company: Sync {
    /// Whether users have asked for something lately.
    fn is_busy(&self) -> bool;
    /// Returns after so many nanoseconds, or earlier.
    fn wait(&self, ns: u64);
}

impl Company for Engine {
    fn is_busy(&self) -> bool {
        self.has_users()
    }

    fn wait(&self, ns: u64) {
        if !self.closed.load(Ordering::Acquire) {
            self.healer.await_ring(Duration::from_nanos(ns));
        }
    }
}

/// The pace of one kind of work.
pub(super) struct Paced<'a> {
    engine: &'a Engine,
    company: &'a dyn Company,
    /// Bytes a second while somebody works, and of one call then.
    busy: (u64, usize),
    /// The same while nobody does; `None`: as fast as it goes.
    calm: Option<(u64, usize)>,
}

impl<'a> Paced<'a> {
    /// Of copies that have to be made: they should be there soon.
    pub fn copying(engine: &'a Engine, company: &'a dyn Company, bytes_per_s: u64) -> Self {
        Self { engine, company, busy: (bytes_per_s, COPY_PIECE_BYTES), calm: None }
    }

    /// Of a scrub that somebody waits for.
    pub fn scrubbing(engine: &'a Engine, company: &'a dyn Company) -> Self {
        Self { engine, company, busy: (engine.scrub_rate(true), SCRUB_PIECE_BYTES), calm: None }
    }

    /// Of the scrub of the background.
    pub fn scrubbing_always(engine: &'a Engine, company: &'a dyn Company) -> Self {
        let calm = (engine.scrub_rate(false), CALM_PIECE_BYTES);
        Self { calm: Some(calm), ..Self::scrubbing(engine, company) }
    }
}

impl Pace for Paced<'_> {
    fn is_calm(&self) -> bool {
        !self.company.is_busy()
    }

    fn admit(&self, bytes: usize) -> usize {
        let engine = self.engine;
        let limit = if self.is_calm() { self.calm } else { Some(self.busy) };
        let Some((bytes_per_s, piece_bytes)) = limit else { return bytes };
        let piece = bytes.min(piece_bytes);
        let wait_ns = engine.pacing.book(engine.clock.boottime_ns(), piece, bytes_per_s);
        if wait_ns >= WAIT_NS_MIN {
            self.company.wait(wait_ns);
        }
        piece
    }
}

impl Engine {
    /// Grows with everything that is asked of the volumes that are mounted.
    fn requests(&self) -> u64 {
        let volumes = self.volumes.lock();
        volumes.values().filter_map(|entry| entry.mounted.upgrade()).map(|volume| volume.requests()).sum()
    }

    /// Whether users have asked for something lately. Only those who look again and again find out.
    ///
    /// Without threads never: then every step is a call of somebody who waits for it, by a clock that may stand still.
    pub(super) fn has_users(&self) -> bool {
        if !self.options.background {
            return false;
        }
        let (requests, now_ns) = (self.requests(), self.clock.boottime_ns());
        let pacing = &self.pacing;
        if pacing.requests.swap(requests, Ordering::AcqRel) != requests {
            pacing.changed_ns.store(now_ns, Ordering::Release);
        }
        let changed_ns = pacing.changed_ns.load(Ordering::Acquire);
        changed_ns != 0 && now_ns.saturating_sub(changed_ns) < CALM_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_spread_evenly_and_nothing_is_saved_up() {
        let pacing = Pacing::default();
        let piece = 1 << 20;
        // Ten a second.
        let rate = 10 << 20;
        assert_eq!(pacing.book(5_000_000_000, piece, rate), 0);
        assert_eq!(pacing.book(5_000_000_000, piece, rate), 100_000_000);
        assert_eq!(pacing.book(5_100_000_000, piece, rate), 100_000_000);
        // After a rest it begins anew: no burst makes up for it.
        assert_eq!(pacing.book(60_000_000_000, piece, rate), 0);
        assert_eq!(pacing.book(60_000_000_000, piece, rate), 100_000_000);
    }

    #[test]
    fn no_wait_is_long_however_low_the_rate() {
        let pacing = Pacing::default();
        (0..100).for_each(|_| assert!(pacing.book(1, 128 << 10, 1) <= WAIT_NS_MAX));
    }
}
