//! The engine's threads. They hold the engine weakly: dropping it without `close` ends them.

use super::Engine;
use crate::error::{Error, Kind, Result};
use crate::group::Group;
use crate::placement::Draw;
use holdfast_device::Clock;
use holdfast_device::threads::spawn;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Ticks, heartbeats and the flush that happens whatever the application does.
const SECOND_NS: u64 = 1_000_000_000;
/// Without a frame for so long, a group's log has time for what comes after a stream.
const REST_NS: u64 = 250_000_000;
/// Rounds of compaction before the housekeeper looks at more urgent work again.
const UPKEEP_ROUNDS: usize = 4;
/// Steps a second that look for what only a deleted snapshot saw.
const LOOSEN_ROUNDS: usize = 4;
/// Below this share of the pool free or dead, history goes before it has reached its limit.
const FREE_SHARE_LOW: u64 = 16;

pub(super) fn started(result: std::io::Result<std::thread::JoinHandle<()>>, engine: &Engine) -> Result<()> {
    let thread = result.map_err(|error| Error::new(Kind::Internal, format!("cannot start a thread: {error}")))?;
    let mut threads = engine.threads.lock();
    threads.retain(|thread| !thread.is_finished());
    threads.push(thread);
    Ok(())
}

pub(super) fn start_flusher(engine: &Arc<Engine>, group: &Arc<Group>) -> Result<()> {
    group.log().set_patient(true);
    for ticks in [true, false] {
        let (clock, group) = (engine.clock.clone(), Arc::downgrade(group));
        started(spawn("holdfast-flush", move || flusher(&group, clock.as_ref(), ticks)), engine)?;
    }
    Ok(())
}

/// Flushes when somebody waits and when enough is waiting; the one that `ticks` also once a second, with a tick. Two of
/// them, so that the next frame is begun while one is on its way. The error of a failed flush is kept by the log and shown
/// by every later call.
fn flusher(weak: &Weak<Group>, clock: &dyn Clock, ticks: bool) {
    let mut next_tick_ns = clock.boottime_ns() + SECOND_NS;
    // Frames so far, and when there was the last one.
    let mut frames = (0, clock.boottime_ns());
    loop {
        let Some(group) = weak.upgrade() else { return };
        let now = clock.boottime_ns();
        let count = group.log().flushes.load(Ordering::Relaxed);
        if count != frames.0 {
            frames = (count, now);
        }
        let rest_end_ns = frames.1 + REST_NS;
        // Without anything better to do, the one that does not tick makes the next segments ready.
        let busy = !ticks && matches!(group.log().prepare_step(now >= rest_end_ns), Ok(true));
        let until_ns = if !ticks && now < rest_end_ns { rest_end_ns.min(next_tick_ns) } else { next_tick_ns };
        let wait = if busy { 0 } else { until_ns.saturating_sub(now) };
        if !group.await_flush(Duration::from_nanos(wait)) {
            return;
        }
        let now = clock.boottime_ns();
        let due = now >= next_tick_ns;
        if due {
            next_tick_ns = now + SECOND_NS;
        }
        let result = if due && ticks {
            group.second_now()
        } else if group.wants_flush() {
            group.flush_now()
        } else {
            continue;
        };
        if result.is_ok() && group.log().wants_refill() {
            // Short of space: the commit that needs a segment will say so, and reclaim.
            let _ = group.log().refill(0, Draw::Ordinary);
        }
    }
}

pub(super) fn start_housekeeper(engine: &Arc<Engine>) -> Result<()> {
    let clock = engine.clock.clone();
    let bell = engine.housekeeper.clone();
    let weak = Arc::downgrade(engine);
    let run = move || {
        let mut next_second_ns = 0;
        loop {
            let Some(engine) = weak.upgrade() else { return };
            if engine.closed.load(Ordering::Acquire) {
                return;
            }
            let now = clock.boottime_ns();
            let due = now >= next_second_ns;
            if due {
                next_second_ns = now + SECOND_NS;
            }
            let result = engine.housekeep_now(due);
            let busy = matches!(result, Ok(true));
            *engine.trouble.lock() = result.err().filter(|error| error.kind != Kind::Closed);
            drop(engine);
            if !busy {
                bell.await_ring(Duration::from_nanos(next_second_ns.saturating_sub(clock.boottime_ns())));
            }
        }
    };
    started(spawn("holdfast-housekeep", run), engine)
}

impl Engine {
    /// One round of upkeep, most urgent first; `due`: with what happens once a second. True when more is waiting. A group
    /// that cannot be worked on does not keep the others waiting: its error is told at the end.
    pub fn housekeep_now(&self, due: bool) -> Result<bool> {
        let groups = self.groups();
        let mut failed = Ok(());
        each(&groups, &mut failed, |group| {
            while group.drain_frozen()? {}
            Ok(())
        });
        if due {
            self.pool.heartbeat()?;
            each(&groups, &mut failed, |group| group.expire_step().map(drop));
            each(&groups, &mut failed, |group| {
                for _ in 0..LOOSEN_ROUNDS {
                    if !group.loosen_step()? {
                        break;
                    }
                }
                group.thin_step().map(drop)
            });
            self.relieve(&groups, &mut failed);
            self.watch_history();
        }
        let mut rounds = 0;
        each(&groups, &mut failed, |group| {
            while rounds < UPKEEP_ROUNDS && group.compact_step()? {
                rounds += 1;
                while group.drain_frozen()? {}
            }
            Ok(())
        });
        // Where there is always something to merge, a clone gets its turn once a second.
        if (rounds == 0 || due) && failed.is_ok() && self.flattening_step()? {
            rounds = 1;
        }
        failed.map(|()| rounds > 0)
    }

    /// Lets the oldest seconds go when history is over its limit, or the pool is nearly full.
    fn relieve(&self, groups: &[Arc<Group>], failed: &mut Result<()>) {
        self.pool.set_live_bytes(groups.iter().map(|group| group.live_bytes()).sum());
        let space = self.pool.space();
        let history: u64 = groups.iter().map(|group| group.history_bytes()).sum();
        let limit = self.history_limit();
        // What is dead is as good as free: cleaning gives it back without taking a second from anybody.
        let low = space.free + space.dead < space.reserve + space.total / FREE_SHARE_LOW;
        each(groups, failed, |group| {
            if low {
                // Ahead of the writers, so that they do not have to wait for it.
                group.reclaim_now()?;
                return Ok(());
            }
            if history > limit {
                group.trim_history(history - limit, history)?;
            }
            let (own, own_limit) = (group.history_bytes(), group.retention().limit_bytes(space.total));
            if let Some(own_limit) = own_limit.filter(|own_limit| own > *own_limit) {
                group.trim_history(own - own_limit, own)?;
            }
            Ok(())
        });
    }
}

/// Does the same with each group; the first error is kept.
fn each(groups: &[Arc<Group>], failed: &mut Result<()>, mut work: impl FnMut(&Group) -> Result<()>) {
    for group in groups {
        let result = work(group);
        if failed.is_ok() {
            *failed = result;
        }
    }
}
