//! What a group keeps by itself: every second for a window, then fewer and fewer, within its share of the pool.

use crate::error::{Error, Result};
use holdfast_format::limits::{THIN_STEPS_MAX, TICKS_ASKED_MAX};
use holdfast_format::retention::{HistoryLimit, RetentionRecord, ThinStep};

const SECOND_NS: u64 = 1_000_000_000;

/// Longer than anything lasts.
pub(super) const NEVER_NS: u64 = u64::MAX;
/// Points that are made on demand, closer together than a second, stay for so long.
const CLOSE_S: u64 = 60;
/// Nothing is kept by itself for longer: 100 years.
const KEPT_S_MAX: u64 = 100 * 366 * 86_400;

/// Of ticks that are at least so old, one for so long is enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Zone {
    pub from_ns: u64,
    pub every_ns: u64,
}

/// What is kept, with nothing left open.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Retention {
    /// Every second is kept for so long; 0: none.
    pub window_s: u64,
    /// And then these, finest first.
    pub thin: Vec<ThinStep>,
    pub limit: HistoryLimit,
}

impl Retention {
    /// # Errors
    /// `Invalid`: steps out of order, or more points than a group can have; with what would do.
    pub fn validate(&self) -> Result<()> {
        if self.thin.len() > THIN_STEPS_MAX {
            return Err(Error::invalid(format!("{} steps of thinning: {THIN_STEPS_MAX} are the most", self.thin.len())));
        }
        let mut before = ThinStep { every_s: 1, for_s: self.window_s };
        let mut asked = self.window_s;
        for step in &self.thin {
            if step.every_s < before.every_s || step.for_s <= before.for_s || step.every_s > step.for_s {
                return Err(Error::invalid(format!(
                    "thinning to one point every {} s for {} s does not follow on one every {} s for {} s: name coarser and longer \
                     steps, as in 1m:24h,1h:7d,1d:30d, all of them longer than the window of seconds",
                    step.every_s, step.for_s, before.every_s, before.for_s
                )));
            }
            asked = asked.saturating_add((step.for_s - before.for_s) / step.every_s + 1);
            before = *step;
        }
        if before.for_s > KEPT_S_MAX {
            return Err(Error::invalid(format!("{} s is longer than 100 years", before.for_s)));
        }
        if asked > TICKS_ASKED_MAX {
            return Err(Error::invalid(format!(
                "that would be up to {asked} points, and a group keeps {TICKS_ASKED_MAX}: keep every second for at most {} hours, and \
                 fewer after that, as in a retention of 24h with thinning 1m:30d,1h:2y",
                TICKS_ASKED_MAX / 3600
            )));
        }
        if matches!(self.limit, HistoryLimit::Percent(percent) if percent > 90) {
            return Err(Error::invalid("the history limit is more than 90 % of the pool"));
        }
        Ok(())
    }

    /// Nothing is kept by itself.
    pub fn is_off(&self) -> bool {
        self.window_s == 0 && self.thin.is_empty()
    }

    /// How far back the last step goes.
    pub fn horizon_s(&self) -> u64 {
        self.thin.last().map_or(self.window_s, |step| step.for_s)
    }

    /// This, with what a record says.
    pub fn with(&self, record: &RetentionRecord) -> Self {
        Self {
            window_s: record.window_s.unwrap_or(self.window_s),
            thin: record.thin.clone().unwrap_or_else(|| self.thin.clone()),
            limit: record.limit.unwrap_or(self.limit),
        }
        .longer_than_the_window()
    }

    /// A window that was made longer than the steps that the configuration has leaves those out.
    fn longer_than_the_window(mut self) -> Self {
        self.thin.retain(|step| step.for_s > self.window_s);
        self
    }

    /// Bytes that the group's history may take of a pool.
    pub fn limit_bytes(&self, pool_bytes: u64) -> Option<u64> {
        match self.limit {
            HistoryLimit::None => None,
            HistoryLimit::Bytes(bytes) => Some(bytes),
            HistoryLimit::Percent(percent) => Some(pool_bytes / 100 * u64::from(percent)),
        }
    }

    /// Finest first.
    pub(super) fn zones(&self) -> Vec<Zone> {
        let mut zones = Vec::with_capacity(self.thin.len() + 2);
        let mut from_s = self.window_s;
        if from_s > 0 {
            zones.push(Zone { from_ns: from_s.min(CLOSE_S) * SECOND_NS, every_ns: SECOND_NS });
        }
        for step in &self.thin {
            zones.push(Zone { from_ns: from_s * SECOND_NS, every_ns: step.every_s * SECOND_NS });
            from_s = step.for_s;
        }
        zones.push(Zone { from_ns: from_s * SECOND_NS, every_ns: NEVER_NS });
        zones
    }
}

const _: () = assert!(KEPT_S_MAX < u64::MAX / SECOND_NS);
