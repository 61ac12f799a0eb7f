//! The search for space, when a writer finds none: kept seconds go, then whatever they and dead records hold.

use super::Group;
use crate::error::{Kind, Result};
use std::sync::atomic::Ordering;

/// Pause between two attempts to find space where the last found none.
const RECLAIM_PAUSE_NS: u64 = 1_000_000_000;
/// Merges, and cleanings, of one search for space.
const RECLAIM_STEPS_MAX: usize = 256;

/// Cleanings that come before a kept second goes, and slots beside the reserve that are enough to try again.
const RECLAIM_CLEANINGS_FIRST: usize = 16;
const RECLAIM_SLOTS: u64 = 8;

/// How the newest search for space ended.
#[derive(Default)]
pub(super) struct Reclaim {
    ended_ns: u64,
    in_vain: bool,
}

impl Group {
    /// Gives space back: the oldest quarter of the kept seconds, then whatever that and dead records hold. True when
    /// trying again is worth it. One thread does it, the others wait for it. Where the last search found nothing, none is
    /// made for [`RECLAIM_PAUSE_NS`]: writers on a full pool fail fast.
    pub fn reclaim_now(&self) -> Result<bool> {
        let asked_ns = self.options.clock.boottime_ns();
        let mut last = self.reclaim.lock();
        let waited = last.ended_ns > asked_ns;
        let freed = self.freed.swap(false, Ordering::AcqRel);
        let too_soon = last.in_vain && asked_ns.saturating_sub(last.ended_ns) < RECLAIM_PAUSE_NS;
        if !freed && (waited || too_soon) {
            return Ok(!last.in_vain);
        }
        let result = self.reclaim_once();
        *last = Reclaim { ended_ns: self.options.clock.boottime_ns(), in_vain: !matches!(result, Ok(true)) };
        result
    }

    fn reclaim_once(&self) -> Result<bool> {
        self.counters.reclaims.fetch_add(1, Ordering::Relaxed);
        let before = self.pool.room().free_bytes;
        // What is dead already comes first: no kept second goes for it. Merges that are due tell of more, and take less room
        // than what they merge.
        for _ in 0..RECLAIM_STEPS_MAX {
            match self.compact_step() {
                Ok(true) => {}
                Err(error) if error.kind != Kind::NoSpace => return Err(error),
                _ => break,
            }
        }
        for _ in 0..RECLAIM_CLEANINGS_FIRST {
            if !self.pool.clean_step_with(self)? {
                break;
            }
            let room = self.pool.room();
            if room.free_bytes >= room.reserve_bytes.max(before) + RECLAIM_SLOTS * self.pool.slot_bytes() as u64 {
                return Ok(true);
            }
        }
        let dropped = self.drop_oldest_ticks()?;
        match self.drain_now() {
            // With fewer points to serve, the next try writes fewer tables of the past.
            Err(error) if error.kind == Kind::NoSpace && dropped => return Ok(true),
            other => other?,
        }
        for _ in 0..RECLAIM_STEPS_MAX {
            match self.expire_step().and_then(|expired| Ok(expired || self.compact_for_space()?)) {
                Ok(true) => {}
                // What there was no room for gives nothing back; what came before it may be enough.
                Err(error) if error.kind != Kind::NoSpace => return Err(error),
                _ => break,
            }
        }
        // Only as much as is needed: a writer waits, and the cleaner goes on.
        for _ in 0..RECLAIM_STEPS_MAX {
            if self.pool.room().left() >= 1.0 || !self.pool.clean_step_with(self)? {
                break;
            }
        }
        Ok(dropped || self.pool.room().free_bytes > before)
    }

    /// Merges what hides older versions with what it hides, due or not.
    pub fn compact_for_space(&self) -> Result<bool> {
        self.compact_with(|tree| tree.pick().or_else(|| tree.pick_for_space()))
    }
}
