//! Kept LSNs of a group: ticks and named points. The records live in the group's trees; this is the sorted list of them.

use super::Group;
use crate::error::{Error, Result};
use crate::ledger::{Ledger, OpDraft};
use crate::metadata::io::Points;
use holdfast_format::inode::Time;
use holdfast_format::op::{Actor, Effects, OpKind};
use holdfast_format::point::{PointKind, PointRecord};
use holdfast_format::{GROUP_BRANCH, Ino, Lsn, key};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Ticks removed by one op at most.
const EXPIRE_POINTS_MAX: usize = 2048;

/// Steps of expiry after one trim of history.
const TRIM_EXPIRIES_MAX: usize = 16;

/// A group without ops for so long sleeps.
const IDLE_NS: u64 = 60_000_000_000;

/// Since when nothing changed.
#[derive(Default)]
pub(super) struct Idle {
    changed: Lsn,
    since_ns: u64,
    /// Newest op when the log was given back.
    retired: Lsn,
}

#[derive(Clone, Debug)]
struct Kept {
    kind: PointKind,
    wall: Time,
    boottime_ns: u64,
    boot_id: [u8; 16],
}

#[derive(Default)]
pub struct PointTable {
    kept: BTreeMap<Lsn, Kept>,
    sorted: Option<Arc<Points>>,
}

impl PointTable {
    pub fn insert(&mut self, lsn: Lsn, record: &PointRecord) {
        let kept = Kept {
            kind: record.kind,
            wall: record.wall,
            boottime_ns: record.boottime_ns,
            boot_id: record.boot_id,
        };
        self.kept.insert(lsn, kept);
        self.sorted = None;
    }

    fn remove(&mut self, lsns: &[Lsn]) {
        for lsn in lsns {
            self.kept.remove(lsn);
        }
        self.sorted = None;
    }

    pub fn points(&mut self) -> Arc<Points> {
        self.sorted.get_or_insert_with(|| Arc::new(Points::from_sorted(self.kept.keys().copied().collect()))).clone()
    }

    /// Seconds that a point is old: by boot time within one boot, by wall time across boots.
    fn age_s(kept: &Kept, now: (u64, Time), boot_id: [u8; 16]) -> u64 {
        if kept.boot_id == boot_id {
            now.0.saturating_sub(kept.boottime_ns) / 1_000_000_000
        } else {
            now.1.sec.saturating_sub(kept.wall.sec).max(0) as u64
        }
    }

    fn expired(&self, now: (u64, Time), boot_id: [u8; 16], retention_s: u64) -> Vec<Lsn> {
        self.kept
            .iter()
            .filter(|(_, kept)| kept.kind == PointKind::Tick && Self::age_s(kept, now, boot_id) >= retention_s)
            .map(|(lsn, _)| *lsn)
            .take(EXPIRE_POINTS_MAX)
            .collect()
    }

    fn ticks(&self) -> Vec<Lsn> {
        self.kept.iter().filter(|(_, kept)| kept.kind == PointKind::Tick).map(|(lsn, _)| *lsn).collect()
    }

    /// LSNs that stay until somebody lets go of them.
    pub(super) fn named(&self) -> Vec<Lsn> {
        self.kept.iter().filter(|(_, kept)| kept.kind != PointKind::Tick).map(|(lsn, _)| *lsn).collect()
    }

    fn oldest_ticks(&self, share: usize) -> Vec<Lsn> {
        let ticks = self.ticks();
        ticks[..ticks.len().div_ceil(share).min(EXPIRE_POINTS_MAX)].to_vec()
    }
}

impl Group {
    /// What a point says that is kept now. Its wall time never goes back.
    pub(super) fn point_record(&self) -> PointRecord {
        let points = self.points.lock();
        let newest_wall = points.kept.last_key_value().map(|(_, kept)| kept.wall).unwrap_or_default();
        PointRecord {
            kind: PointKind::Tick,
            wall: self.now().max(newest_wall),
            boottime_ns: self.options.clock.boottime_ns(),
            boot_id: self.options.boot_id,
            name: String::new(),
        }
    }

    fn point_draft(&self, kind: OpKind, effects: Effects) -> OpDraft<'static> {
        OpDraft {
            branch: GROUP_BRANCH,
            kind,
            actor: Actor::default(),
            time: self.now(),
            ino: Ino(0),
            offset: 0,
            length: 0,
            effects,
            payload: &[],
            rf: 0,
            stored: 0,
            frees: true,
        }
    }

    /// Keeps the state of this second, if anything changed since the last, and lets go of what is older than the window.
    pub fn tick_now(&self) -> Result<()> {
        let last_point = self.last_point.load(Ordering::Acquire);
        if self.newest().0 > last_point && self.options.retention_s > 0 {
            self.commit_draft(self.point_draft(OpKind::Point, Effects::new()))?;
        }
        let now = (self.options.clock.boottime_ns(), self.now());
        let expired = self.points.lock().expired(now, self.options.boot_id, self.options.retention_s);
        self.drop_points(&expired)
    }

    /// What happens once a second: a tick if anything changed, then a flush, then the floor if nothing is left to flush. A
    /// group that nothing has changed for a minute gives its log segments and its ring's memory back.
    pub fn second_now(&self) -> Result<()> {
        self.tick_now()?;
        self.flush_now()?;
        self.flush_floor_now()?;
        let changed = Lsn(self.changed.load(Ordering::Acquire));
        let (newest, now) = (Group::newest(self), self.options.clock.boottime_ns());
        let mut idle = self.idle.lock();
        if idle.changed != changed {
            *idle = Idle { changed, since_ns: now, retired: Lsn(0) };
        } else if now.saturating_sub(idle.since_ns) >= IDLE_NS && idle.retired != newest {
            idle.retired = newest;
            drop(idle);
            self.retire_log()?;
        }
        Ok(())
    }

    /// Gives up the older part of the kept seconds: the pool is short of space. False when none is left.
    pub fn drop_oldest_ticks(&self) -> Result<bool> {
        let oldest = self.points.lock().oldest_ticks(4);
        self.drop_points(&oldest)?;
        Ok(!oldest.is_empty())
    }

    /// History is over its limit: lets the oldest kept seconds go that name about `excess` of its `total` bytes, and
    /// gives back what only they saw.
    pub fn trim_history(&self, excess: u64, total: u64) -> Result<()> {
        let going = {
            let points = self.points.lock();
            let ticks = points.ticks();
            let count = (ticks.len() as u64 * excess).div_ceil(total.max(1)) as usize;
            ticks[..count.clamp(1, EXPIRE_POINTS_MAX).min(ticks.len())].to_vec()
        };
        self.drop_points(&going)?;
        for _ in 0..TRIM_EXPIRIES_MAX {
            if !self.expire_step()? {
                break;
            }
        }
        Ok(())
    }

    fn drop_points(&self, lsns: &[Lsn]) -> Result<()> {
        if lsns.is_empty() {
            return Ok(());
        }
        let mut effects = Effects::new();
        lsns.iter().for_each(|lsn| effects.delete(&key::point(*lsn)));
        self.commit_draft(self.point_draft(OpKind::PointDrop, effects))?;
        self.points.lock().remove(lsns);
        Ok(())
    }

    /// Reads the kept points out of the trees: at open.
    pub(super) fn load_points(&self) -> Result<()> {
        let (from, until) = key::kind_range(GROUP_BRANCH, Ino(0), key::KIND_POINT);
        let mut failed = None;
        let mut table = PointTable::default();
        self.scan(&from, &until, &mut |key, value| {
            let lsn = key::parts(key).and_then(|parts| Some(Lsn(u64::from_be_bytes(parts.rest.try_into().ok()?))));
            match (lsn, PointRecord::decode(value)) {
                (Some(lsn), Ok(record)) => table.insert(lsn, &record),
                (_, Err(error)) => failed = Some(Error::decode("a recovery point", error)),
                (None, _) => failed = Some(Error::corrupt("a recovery point's key")),
            }
            failed.is_none()
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let newest = table.kept.last_key_value().map_or(Lsn(0), |(lsn, _)| *lsn);
        self.last_point.fetch_max(newest.0, Ordering::AcqRel);
        *self.points.lock() = table;
        Ok(())
    }

    /// Age of the oldest kept second.
    pub fn window_s(&self) -> u64 {
        let now = (self.options.clock.boottime_ns(), self.now());
        let points = self.points.lock();
        points.kept.values().next().map_or(0, |kept| PointTable::age_s(kept, now, self.options.boot_id))
    }
}
