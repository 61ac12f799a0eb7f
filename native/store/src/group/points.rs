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
use std::ops::Bound;
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
    held: bool,
    wall: Time,
    boottime_ns: u64,
    boot_id: [u8; 16],
    name: String,
}

/// A kept point, for those who ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PointInfo {
    pub lsn: Lsn,
    pub kind: PointKind,
    pub held: bool,
    pub wall: Time,
    /// Empty: a tick.
    pub name: String,
}

/// Which point is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum When {
    /// The newest at or before this wall time.
    Time(Time),
    /// The newest at or before this op.
    Lsn(Lsn),
    /// The snapshot of this name.
    Name(String),
}

#[derive(Default)]
pub struct PointTable {
    kept: BTreeMap<Lsn, Kept>,
    names: BTreeMap<String, Lsn>,
    /// LSNs that are kept for a clone or a mount, whether or not they are points any more, and how often.
    pins: BTreeMap<Lsn, u32>,
    /// All LSNs that versions are kept for.
    sorted: Option<Arc<Points>>,
}

impl PointTable {
    pub fn insert(&mut self, lsn: Lsn, record: &PointRecord) {
        let kept = Kept {
            kind: record.kind,
            held: record.held,
            wall: record.wall,
            boottime_ns: record.boottime_ns,
            boot_id: record.boot_id,
            name: record.name.clone(),
        };
        if !record.name.is_empty() {
            self.names.insert(record.name.clone(), lsn);
        }
        if let Some(before) = self.kept.insert(lsn, kept)
            && before.name != record.name
        {
            self.names.remove(&before.name);
        }
        self.sorted = None;
    }

    fn remove(&mut self, lsns: &[Lsn]) {
        for lsn in lsns {
            if let Some(kept) = self.kept.remove(lsn) {
                self.names.remove(&kept.name);
            }
        }
        self.sorted = None;
    }

    pub fn points(&mut self) -> Arc<Points> {
        let (kept, pins) = (&self.kept, &self.pins);
        let merged = || {
            let mut lsns: Vec<Lsn> = kept.keys().chain(pins.keys()).copied().collect();
            if !pins.is_empty() {
                lsns.sort_unstable();
                lsns.dedup();
            }
            Arc::new(Points::from_sorted(lsns))
        };
        self.sorted.get_or_insert_with(merged).clone()
    }

    /// False when nothing keeps this LSN: what it saw may be gone.
    pub(super) fn pin(&mut self, lsn: Lsn) -> bool {
        if !self.kept.contains_key(&lsn) && !self.pins.contains_key(&lsn) {
            return false;
        }
        self.pin_again(lsn);
        true
    }

    /// At open, of what the manifest says: it has been kept all the time.
    pub(super) fn pin_again(&mut self, lsn: Lsn) {
        *self.pins.entry(lsn).or_default() += 1;
        self.sorted = None;
    }

    /// True when nobody keeps this LSN any more.
    pub(super) fn unpin(&mut self, lsn: Lsn) -> bool {
        let Some(count) = self.pins.get_mut(&lsn) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        self.pins.remove(&lsn);
        self.sorted = None;
        !self.kept.contains_key(&lsn)
    }

    /// Whether what this LSN saw is still there.
    pub(super) fn keeps(&self, lsn: Lsn) -> bool {
        self.kept.contains_key(&lsn) || self.pins.contains_key(&lsn)
    }

    fn info(lsn: Lsn, kept: &Kept) -> PointInfo {
        PointInfo { lsn, kind: kept.kind, held: kept.held, wall: kept.wall, name: kept.name.clone() }
    }

    pub(super) fn named(&self, name: &str) -> Option<PointInfo> {
        let lsn = self.names.get(name)?;
        self.kept.get(lsn).map(|kept| Self::info(*lsn, kept))
    }

    /// The record of a point as the tree has it, to be changed.
    pub(super) fn record(&self, lsn: Lsn) -> Option<PointRecord> {
        self.kept.get(&lsn).map(|kept| PointRecord {
            kind: kept.kind,
            held: kept.held,
            wall: kept.wall,
            boottime_ns: kept.boottime_ns,
            boot_id: kept.boot_id,
            name: kept.name.clone(),
        })
    }

    /// Snapshots after an LSN, oldest first.
    pub(super) fn snapshots(&self, after: Lsn, limit: usize) -> Vec<PointInfo> {
        let later = self.kept.range((Bound::Excluded(after), Bound::Unbounded));
        let named = later.filter(|(_, kept)| kept.kind == PointKind::Named);
        named.take(limit).map(|(lsn, kept)| Self::info(*lsn, kept)).collect()
    }

    /// Points after an LSN, ticks too, oldest first.
    pub(super) fn all(&self, after: Lsn, limit: usize) -> Vec<PointInfo> {
        let later = self.kept.range((Bound::Excluded(after), Bound::Unbounded));
        later.take(limit).map(|(lsn, kept)| Self::info(*lsn, kept)).collect()
    }

    /// The newest point at or before a moment. Wall times never go back from point to point.
    pub(super) fn newest_by(&self, when: &When) -> Option<PointInfo> {
        let before = match when {
            When::Name(name) => return self.named(name),
            When::Lsn(lsn) => self.kept.range(..=*lsn).next_back(),
            // Most often it is one of the newest.
            When::Time(time) => self.kept.iter().rfind(|(_, kept)| kept.wall <= *time),
        };
        before.map(|(lsn, kept)| Self::info(*lsn, kept))
    }

    /// First and last point.
    pub(super) fn window(&self) -> Option<(PointInfo, PointInfo)> {
        let (first, last) = (self.kept.first_key_value()?, self.kept.last_key_value()?);
        Some((Self::info(*first.0, first.1), Self::info(*last.0, last.1)))
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
    pub(super) fn lasting(&self) -> Vec<Lsn> {
        let named = self.kept.iter().filter(|(_, kept)| kept.kind != PointKind::Tick).map(|(lsn, _)| *lsn);
        let mut lsns: Vec<Lsn> = named.chain(self.pins.keys().copied()).collect();
        lsns.sort_unstable();
        lsns.dedup();
        lsns
    }

    fn oldest_ticks(&self, share: usize) -> Vec<Lsn> {
        let ticks = self.ticks();
        ticks[..ticks.len().div_ceil(share).min(EXPIRE_POINTS_MAX)].to_vec()
    }
}

impl Group {
    /// What a point says that is kept now. Its wall time never goes back.
    pub(super) fn point_record(&self, name: &str) -> PointRecord {
        let points = self.points.lock();
        let newest_wall = points.kept.last_key_value().map(|(_, kept)| kept.wall).unwrap_or_default();
        PointRecord {
            kind: if name.is_empty() { PointKind::Tick } else { PointKind::Named },
            held: false,
            wall: self.now().max(newest_wall),
            boottime_ns: self.options.clock.boottime_ns(),
            boot_id: self.options.boot_id,
            name: name.to_owned(),
        }
    }

    pub(super) fn point_draft(&self, kind: OpKind, effects: Effects) -> OpDraft<'static> {
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
            point: "",
        }
    }

    /// A point that sees everything acknowledged so far: the newest, if nothing changed since.
    pub fn point_now(&self) -> Result<PointInfo> {
        let last_point = Lsn(self.last_point.load(Ordering::Acquire));
        let changed = Lsn(self.changed.load(Ordering::Acquire));
        let kept = self.points.lock().newest_by(&When::Lsn(last_point)).filter(|point| point.lsn >= changed);
        let lsn = match kept {
            Some(point) => return Ok(point),
            None => self.commit_draft(self.point_draft(OpKind::Point, Effects::new()))?,
        };
        self.points.lock().newest_by(&When::Lsn(lsn)).ok_or_else(|| super::internal("the new point is not there"))
    }

    /// The group's volumes have gone; pins stay.
    pub fn drop_all_points(&self) -> Result<()> {
        let _one = self.naming.lock();
        loop {
            let lsns: Vec<Lsn> = self.points.lock().kept.keys().copied().take(EXPIRE_POINTS_MAX).collect();
            if lsns.is_empty() {
                return Ok(());
            }
            self.drop_points(&lsns)?;
            lsns.last().into_iter().for_each(|lsn| self.loosen(*lsn));
        }
    }

    /// Keeps the state of this second, if anything changed since the last, and lets go of what is older than the window.
    pub fn tick_now(&self) -> Result<()> {
        let last_point = self.last_point.load(Ordering::Acquire);
        // Points that come and go change nothing that a point shows.
        if self.changed.load(Ordering::Acquire) > last_point && self.options.retention_s > 0 {
            self.commit_draft(self.point_draft(OpKind::Point, Effects::new()))?;
        }
        let now = (self.options.clock.boottime_ns(), self.now());
        let _one = self.naming.lock();
        let expired = self.points.lock().expired(now, self.options.boot_id, self.options.retention_s);
        self.drop_points(&expired).map(drop)
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
        let _one = self.naming.lock();
        let oldest = self.points.lock().oldest_ticks(4);
        self.drop_points(&oldest)?;
        Ok(!oldest.is_empty())
    }

    /// History is over its limit: lets the oldest kept seconds go that name about `excess` of its `total` bytes, and
    /// gives back what only they saw.
    pub fn trim_history(&self, excess: u64, total: u64) -> Result<()> {
        {
            let _one = self.naming.lock();
            let ticks = self.points.lock().ticks();
            let count = (ticks.len() as u64 * excess).div_ceil(total.max(1)) as usize;
            self.drop_points(&ticks[..count.clamp(1, EXPIRE_POINTS_MAX).min(ticks.len())])?;
        }
        for _ in 0..TRIM_EXPIRIES_MAX {
            if !self.expire_step()? {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn drop_points(&self, lsns: &[Lsn]) -> Result<Lsn> {
        if lsns.is_empty() {
            return Ok(Lsn(0));
        }
        let mut effects = Effects::new();
        lsns.iter().for_each(|lsn| effects.delete(&key::point(*lsn)));
        let lsn = self.commit_draft(self.point_draft(OpKind::PointDrop, effects))?;
        self.points.lock().remove(lsns);
        Ok(lsn)
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
        self.pool.pins_of(self.id).into_iter().for_each(|lsn| table.pin_again(lsn));
        let newest = table.points().newest();
        self.last_point.fetch_max(newest.0, Ordering::AcqRel);
        *self.points.lock() = table;
        Ok(())
    }

    /// Age of the oldest kept second.
    pub fn window_s(&self) -> u64 {
        let now = (self.options.clock.boottime_ns(), self.now());
        let points = self.points.lock();
        let oldest = points.kept.values().find(|kept| kept.kind == PointKind::Tick);
        oldest.map_or(0, |kept| PointTable::age_s(kept, now, self.options.boot_id))
    }
}
