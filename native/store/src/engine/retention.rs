//! What a group keeps of the past by itself, as the administrator sets and sees it.

use super::Engine;
use crate::error::{Error, Result};
use crate::group::{Group, Held, Retention};
use holdfast_format::retention::{HistoryLimit, RetentionRecord, ThinStep};

/// What to change; `None`: nothing.
#[derive(Clone, Default, Debug)]
pub struct RetentionChange {
    pub window_s: Option<u64>,
    pub thin: Option<Vec<ThinStep>>,
    pub limit: Option<HistoryLimit>,
}

/// What a group is to keep, and what it holds.
#[derive(Clone, Default, Debug)]
pub struct RetentionInfo {
    pub retention: Retention,
    /// Bytes on drives that its history may take; 0: the pool's limit alone.
    pub limit_bytes: u64,
    pub held: Held,
}

impl Engine {
    /// Changes what a group, or the group of a volume that is alone in it, keeps by itself. What is not kept any more goes
    /// within seconds.
    ///
    /// # Errors
    /// `NotFound`; `Conflict`: the volume shares its group; `Invalid`: more than a group can keep, or steps out of order.
    pub fn retention_set(&self, target: &str, change: &RetentionChange) -> Result<()> {
        let group = self.group_of(target)?;
        let before = group.retention_record()?;
        let record = RetentionRecord {
            window_s: change.window_s.or(before.window_s),
            thin: change.thin.clone().or_else(|| before.thin.clone()),
            limit: change.limit.or(before.limit),
        };
        let defaults = self.options.retention();
        if change.thin.is_some() {
            let thin = record.thin.clone().unwrap_or_default();
            let window_s = record.window_s.unwrap_or(defaults.window_s);
            Retention { window_s, thin, limit: HistoryLimit::None }.validate()?;
        }
        defaults.with(&record).validate()?;
        if let Some(HistoryLimit::Bytes(bytes)) = record.limit
            && bytes < self.pool.slot_bytes() as u64
        {
            let least = self.pool.slot_bytes();
            return Err(Error::invalid(format!("a history limit of {bytes} bytes: choose at least {least}, or none")));
        }
        let lsn = group.set_retention(&record)?;
        self.flush_group(&group, lsn)
    }

    pub(super) fn retention_info(&self, group: &Group) -> RetentionInfo {
        let retention = group.retention();
        let limit_bytes = retention.limit_bytes(self.pool.room().total_bytes).unwrap_or(0);
        RetentionInfo { retention, limit_bytes, held: group.held() }
    }
}
