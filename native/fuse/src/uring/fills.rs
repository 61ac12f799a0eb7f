//! Reads of drives that a lane has in its ring, each for the request in a slot.
//!
//! Invariants:
//! - a buffer is the kernel's from [`Fills::begin`] until its completion was seen, however late; the lane's thread does not end
//!   before, or leaks it;
//! - a request waits for one drive only so long: then it goes elsewhere, and what arrives afterwards is only kept;
//! - reads that nobody waits for any more are bounded: when there are too many, no new one begins.

use crate::transport::Reply;
use holdfast_device::patience::Wish;
use holdfast_device::{AlignedBuffer, Clock, DirectRead, RealClock};

/// Reads beyond one a slot: those that were given up.
const GIVEN_UP_MAX: usize = 32;

struct Fill {
    wish: Wish,
    buffer: AlignedBuffer,
    begun_ns: u64,
    /// Who waits: the slot, and the duty to answer.
    waiting: Option<(usize, Reply)>,
}

pub struct Fills {
    /// By number.
    fills: Vec<Option<Fill>>,
    free: Vec<usize>,
    in_flight: usize,
    /// When the first of those that somebody waits for is late; `u64::MAX`: nobody waits.
    late_at_ns: u64,
}

impl Fills {
    /// Reads in flight at most.
    pub fn most(slots: usize) -> usize {
        slots + GIVEN_UP_MAX
    }

    pub fn new(slots: usize) -> Self {
        let most = Self::most(slots);
        let fills = (0..most).map(|_| None).collect();
        Self { fills, free: (0..most).rev().collect(), in_flight: 0, late_at_ns: u64::MAX }
    }

    pub fn is_empty(&self) -> bool {
        self.in_flight == 0
    }

    /// Gives the number, and what is to be read where. `Err`: too many drives are silent.
    pub fn begin(
        &mut self,
        wish: Wish,
        slot: usize,
        reply: Reply,
    ) -> Result<(usize, &DirectRead, &mut [u8]), Reply> {
        let Some(number) = self.free.pop() else { return Err(reply) };
        self.in_flight += 1;
        let buffer = AlignedBuffer::zeroed(wish.read.bytes());
        let begun_ns = RealClock.boottime_ns();
        self.late_at_ns = self.late_at_ns.min(begun_ns.saturating_add(wish.patience_ns));
        let fill = Fill { wish, buffer, begun_ns, waiting: Some((slot, reply)) };
        let fill = self.fills[number].insert(fill);
        Ok((number, &fill.wish.read, &mut fill.buffer))
    }

    /// A read has ended: with this many bytes, or a negative errno. Gives who waits for it, and whether all is there.
    pub fn end(&mut self, number: usize, result: i32) -> Option<(usize, Reply, bool)> {
        let Fill { wish, buffer, begun_ns, waiting } = self.fills.get_mut(number)?.take()?;
        self.free.push(number);
        self.in_flight -= 1;
        if self.in_flight == 0 {
            self.late_at_ns = u64::MAX;
        }
        let arrived = usize::try_from(result) == Ok(buffer.len());
        if arrived {
            let took_ns = RealClock.boottime_ns().saturating_sub(begun_ns);
            wish.waiter.arrived(&buffer, took_ns);
        }
        waiting.map(|(slot, reply)| (slot, reply, arrived))
    }

    /// For how long nobody will be late; `None`: nobody waits.
    pub fn patience_ns(&self) -> Option<u64> {
        (self.late_at_ns != u64::MAX).then(|| self.late_at_ns.saturating_sub(RealClock.boottime_ns()))
    }

    /// Somebody who has waited long enough.
    pub fn take_late(&mut self) -> Option<(usize, Reply)> {
        if self.late_at_ns == u64::MAX {
            return None;
        }
        let now_ns = RealClock.boottime_ns();
        if now_ns < self.late_at_ns {
            return None;
        }
        let waiting = self.fills.iter_mut().flatten().filter(|fill| fill.waiting.is_some());
        let late_at = |fill: &Fill| fill.begun_ns.saturating_add(fill.wish.patience_ns);
        let first = waiting.min_by_key(|fill| late_at(fill));
        let late = first.filter(|fill| late_at(fill) <= now_ns).and_then(|fill| {
            fill.wish.waiter.late();
            fill.waiting.take()
        });
        let waiting = self.fills.iter().flatten().filter(|fill| fill.waiting.is_some());
        self.late_at_ns = waiting.map(late_at).min().unwrap_or(u64::MAX);
        late
    }

    /// The ring ends without having told what became of them: drives may still write there.
    pub fn forget(&mut self) {
        self.fills.drain(..).flatten().for_each(|fill| std::mem::forget(fill.buffer));
    }
}
