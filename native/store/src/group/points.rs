//! Kept LSNs of a group: ticks and named points. The records live in the group's trees; `kept` is the table of them.

use super::Group;
use super::kept::{Moment, PointInfo, PointTable, When};
use super::retention::Retention;
use crate::error::{Error, Result};
use crate::ledger::{Ledger, OpDraft, PointDraft};
use crate::metadata::io::Points;
use holdfast_format::op::{Actor, Effects, OpKind};
use holdfast_format::point::{PointKind, PointRecord};
use holdfast_format::retention::RetentionRecord;
use holdfast_format::{GROUP_BRANCH, Ino, Lsn, key};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Ticks removed by one op at most, and ops a second.
const EXPIRE_POINTS_MAX: usize = 2048;
const EXPIRE_OPS_MAX: usize = 8;

/// Steps of expiry after one trim of history.
const TRIM_EXPIRIES_MAX: usize = 16;

/// A group without ops for so long sleeps.
const IDLE_NS: u64 = 60_000_000_000;

const SECOND_NS: u64 = 1_000_000_000;

/// What a rate of history is measured over.
const RATE_NS_MIN: u64 = 60 * SECOND_NS;
const RATE_NS_MAX: u64 = 600 * SECOND_NS;

/// A clock that goes back by less is waited for; by more, it is followed.
const CLOCK_BACK_S_MAX: i64 = 60;

/// Since when nothing changed.
#[derive(Default)]
pub(super) struct Idle {
    changed: Lsn,
    since_ns: u64,
    /// Newest op when the log was given back.
    retired: Lsn,
}

/// What of the past a group holds by itself.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Held {
    /// Seconds back to which every second is there; what is older was thinned, went, or never was.
    pub window_s: u64,
    /// Age of the oldest second that is there.
    pub oldest_s: u64,
    pub ticks: usize,
    pub snapshots: usize,
    /// Seconds of the window that was promised went for want of space, and the window has not grown again.
    pub is_short: bool,
}

impl Group {
    /// What a point says that is kept now.
    pub(super) fn point_record(&self, point: PointDraft<'_>) -> PointRecord {
        let (now, newest) = (self.moment(), self.points.lock().newest_wall().unwrap_or_default());
        let is_late = now.wall < newest && newest.sec - now.wall.sec < CLOCK_BACK_S_MAX;
        let wall = if is_late { newest } else { now.wall };
        PointRecord {
            kind: if point.name.is_empty() { PointKind::Tick } else { PointKind::Named },
            held: false,
            wall: point.origin.map_or(wall, |(_, wall)| wall),
            boottime_ns: now.boottime_ns,
            boot_id: now.boot_id,
            name: point.name.to_owned(),
            origin: point.origin.map(|(origin, _)| origin),
        }
    }

    fn moment(&self) -> Moment {
        Moment { wall: self.now(), boottime_ns: self.boottime_ns(), boot_id: self.options.boot_id }
    }

    pub(crate) fn boottime_ns(&self) -> u64 {
        self.options.clock.boottime_ns()
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
            point: PointDraft::default(),
        }
    }

    /// A point that sees everything acknowledged so far: the newest, if nothing changed since.
    ///
    /// # Errors
    /// Of a replica the newest recovery point that is whole; `NotFound` while there is none.
    pub fn point_now(&self) -> Result<PointInfo> {
        if self.is_replica() {
            return self.newest_received();
        }
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
            let lsns: Vec<Lsn> = self.points.lock().oldest(EXPIRE_POINTS_MAX);
            if lsns.is_empty() {
                return Ok(());
            }
            self.drop_points(&lsns)?;
            lsns.last().into_iter().for_each(|lsn| self.loosen(*lsn));
        }
    }

    /// Keeps the state of this second, if anything changed since the last, and lets go of what the group's retention does
    /// not ask for any more.
    pub fn tick_now(&self) -> Result<()> {
        let retention = self.retention();
        // The newest one that is there: a snapshot that stood for this second may have been deleted.
        let newest = self.points.lock().newest_lsn();
        // Points that come and go change nothing that a point shows.
        if self.changed.load(Ordering::Acquire) > newest.0 && !retention.is_off() && !self.is_replica() {
            self.commit_draft(self.point_draft(OpKind::Point, Effects::new()))?;
        }
        let zones = retention.zones();
        let _one = self.naming.lock();
        for _ in 0..EXPIRE_OPS_MAX {
            if retention.is_off() {
                let mut ticks = self.points.lock().oldest_ticks(EXPIRE_POINTS_MAX);
                let more = ticks.len() >= EXPIRE_POINTS_MAX;
                self.spare_for_followers(&mut ticks);
                self.drop_points(&ticks)?;
                if !more || ticks.is_empty() {
                    break;
                }
                continue;
            }
            let now = self.moment();
            let mut superfluous = {
                let points = self.points.lock();
                points.superfluous(&zones, points.place_of(&now), EXPIRE_POINTS_MAX)
            };
            let more = superfluous.lsns.len() >= EXPIRE_POINTS_MAX;
            self.spare_for_followers(&mut superfluous.lsns);
            self.drop_points(&superfluous.lsns)?;
            self.points.lock().done(superfluous);
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// What happens once a second: a tick if anything changed, then a flush, then the floor if nothing is left to flush. A
    /// group that nothing has changed for a minute gives its log segments and its ring's memory back.
    pub fn second_now(&self) -> Result<()> {
        self.tick_now()?;
        self.flush_now()?;
        self.tell_of_points();
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

    /// The point that comes after an LSN, or the newest of those that do; only durable ones, whose LSNs never mean anything else.
    pub fn next_point(&self, after: Lsn, newest: bool) -> Option<PointInfo> {
        let durable = self.durable();
        let points = self.points.lock();
        let found = match newest {
            true => points.newest_by(&When::Lsn(durable)),
            false => points.all(after, 1).pop(),
        };
        found.filter(|point| after < point.lsn && point.lsn <= durable)
    }

    /// Returns when there is a durable point after an LSN, or after `wait`.
    ///
    /// # Errors
    /// `Closed`.
    pub fn await_point(&self, after: Lsn, wait: std::time::Duration) -> Result<()> {
        let mut guard = self.point_signal.0.lock();
        let end_ns = self.options.clock.boottime_ns() + wait.as_nanos() as u64;
        loop {
            self.ensure_open()?;
            let left = end_ns.saturating_sub(self.options.clock.boottime_ns());
            if left == 0 || self.next_point(after, false).is_some() {
                return Ok(());
            }
            self.point_signal.1.wait_for(&mut guard, std::time::Duration::from_nanos(left));
        }
    }

    pub(super) fn tell_of_points(&self) {
        let _guard = self.point_signal.0.lock();
        self.point_signal.1.notify_all();
    }

    /// Gives up the older part of the kept seconds: the pool is short of space. False when none is left.
    pub fn drop_oldest_ticks(&self) -> Result<bool> {
        let _one = self.naming.lock();
        Ok(self.drop_share(1, 4)? > 0)
    }

    /// History is over its limit: lets the oldest kept seconds go that name about `excess` of its `total` bytes, and
    /// gives back what only they saw.
    pub fn trim_history(&self, excess: u64, total: u64) -> Result<()> {
        {
            let _one = self.naming.lock();
            self.drop_share(excess, total)?;
        }
        self.flush_now()?;
        for _ in 0..TRIM_EXPIRIES_MAX {
            if !self.expire_step()? {
                break;
            }
        }
        Ok(())
    }

    /// Lets the oldest ticks go that hold about `part` of `whole` of what the tables of the past name; one at least. The oldest go
    /// first, thinned or not: what lies beyond the window goes before any second of it, and whole tables empty together.
    fn drop_share(&self, part: u64, whole: u64) -> Result<usize> {
        let ticks = self.points.lock().oldest_ticks(EXPIRE_POINTS_MAX);
        let Some(last) = ticks.len().checked_sub(1) else { return Ok(0) };
        let wanted = |all: u64| (u128::from(all) * u128::from(part.min(whole)) / u128::from(whole.max(1))) as u64;
        let levels = self.tree.snapshot();
        let past: u64 = levels.then.iter().map(|table| table.desc.payload_bytes).sum();
        let count = if past == 0 {
            wanted(self.points.lock().ticks_len() as u64) as usize
        } else {
            // Dropped up to one, what died before the next goes with them.
            let (mut low, mut high) = (0, last);
            while low < high {
                let middle = (low + high) / 2;
                if levels.past_bytes_before(ticks[middle + 1]) >= wanted(past) { high = middle } else { low = middle + 1 }
            }
            low + 1
        };
        let going = &ticks[..count.clamp(1, ticks.len())];
        let shown_until_ns = going.last().and_then(|last| self.points.lock().end_of_tick_ns(*last));
        self.drop_points(going)?;
        self.short_until_ns.fetch_max(shown_until_ns.unwrap_or(0), Ordering::AcqRel);
        Ok(going.len())
    }

    /// What merges keep versions for.
    pub(super) fn merge_points(&self) -> Arc<Points> {
        self.points.lock().points(self.log.durable())
    }

    pub(super) fn ends_are_durable(&self) -> bool {
        self.points.lock().settle(self.log.durable())
    }

    pub(super) fn drop_points(&self, lsns: &[Lsn]) -> Result<Lsn> {
        if lsns.is_empty() {
            return Ok(Lsn(0));
        }
        let mut effects = Effects::new();
        lsns.iter().for_each(|lsn| effects.delete(&key::point(*lsn)));
        let lsn = self.commit_draft(self.point_draft(OpKind::PointDrop, effects))?;
        self.points.lock().remove(lsns, lsn);
        self.thinned.note();
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
        self.pin_for_replication(&mut table)?;
        let newest = table.points(Lsn(0)).newest();
        self.last_point.fetch_max(newest.0, Ordering::AcqRel);
        *self.points.lock() = table;
        Ok(())
    }

    /// What is kept now, as the group was told, or as the daemon says.
    pub fn retention(&self) -> Retention {
        self.retention.read().clone()
    }

    /// What the group itself was told.
    pub fn retention_record(&self) -> Result<RetentionRecord> {
        match self.get(&key::retention())? {
            Some(bytes) => RetentionRecord::decode(&bytes).map_err(|error| Error::decode("what of the past is kept", error)),
            None => Ok(RetentionRecord::default()),
        }
    }

    /// Changes what is kept. It is durable once the LSN is.
    pub fn set_retention(&self, record: &RetentionRecord) -> Result<Lsn> {
        let _one = self.naming.lock();
        let mut effects = Effects::new();
        effects.put(&key::retention(), &record.encode());
        let lsn = self.commit_draft(self.point_draft(OpKind::VolumeSet, effects))?;
        self.adopt_retention(record);
        Ok(lsn)
    }

    pub(super) fn adopt_retention(&self, record: &RetentionRecord) {
        *self.retention.write() = self.options.retention.with(record);
        self.points.lock().ask_again();
    }

    /// Age of the oldest kept second.
    pub fn oldest_tick_s(&self) -> u64 {
        self.held().oldest_s
    }

    /// Bytes on drives that a second of the past took in the last minutes, as far as the tables of the past know. `None`: too
    /// little is kept to tell.
    pub fn history_rate(&self) -> Option<u64> {
        let now = self.moment();
        let (from, span_ns) = {
            let points = self.points.lock();
            let now_ns = points.place_of(&now);
            let kept_ns = now_ns.saturating_sub(points.oldest_tick_ns()?);
            let span_ns = kept_ns.min(RATE_NS_MAX).min(self.retention.read().window_s * SECOND_NS);
            (points.tick_at_ns(now_ns - span_ns)?, span_ns)
        };
        if span_ns < RATE_NS_MIN {
            return None;
        }
        let levels = self.tree.snapshot();
        let past: u64 = levels.then.iter().map(|table| table.desc.payload_bytes).sum();
        let recent = past.saturating_sub(levels.past_bytes_before(from));
        Some(recent * self.log.header_rf() as u64 / (span_ns / SECOND_NS))
    }

    /// What of the past is held by itself.
    pub fn held(&self) -> Held {
        let (now, window_s) = (self.moment(), self.retention.read().window_s);
        let points = self.points.lock();
        let now_ns = points.place_of(&now);
        let age_s = |place_ns: u64| now_ns.saturating_sub(place_ns) / SECOND_NS;
        let oldest_s = points.oldest_tick_ns().map_or(0, age_s);
        let short_s = match self.short_until_ns.load(Ordering::Acquire) {
            0 => u64::MAX,
            place_ns => age_s(place_ns),
        };
        Held {
            window_s: oldest_s.min(window_s),
            oldest_s,
            ticks: points.ticks_len(),
            snapshots: points.named_len(),
            is_short: short_s < window_s,
        }
    }
}
