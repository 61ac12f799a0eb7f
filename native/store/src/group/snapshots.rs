//! Named points of a group, and what keeps an LSN beside its points: pins.
//!
//! A snapshot is one op, whatever the group holds. Deleting one is one op, too; what only it saw is given back afterwards, step
//! by step (`loosen.rs`).

use super::Group;
use super::kept::{PointInfo, When};
use crate::error::{Error, Kind, Result};
use crate::ledger::{OpDraft, PointDraft};
use holdfast_format::limits::SNAPSHOTS_MAX;
use holdfast_format::op::{Effects, OpKind};
use holdfast_format::point::PointKind;
use holdfast_format::{Lsn, key};
use std::sync::Arc;

/// Keeps what an LSN sees as long as it lives.
pub struct Pin {
    group: Arc<Group>,
    lsn: Lsn,
}

impl Pin {
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.group.unpin(self.lsn);
    }
}

impl Group {
    /// Keeps the state of now under a name. It is durable once the LSN is.
    ///
    /// # Errors
    /// `Conflict`: there is one of this name.
    pub fn snapshot_create(&self, name: &str) -> Result<PointInfo> {
        debug_assert!(!name.is_empty());
        self.refuse_on_replica("snapshots of now come from its owner; name a recovery point with --at")?;
        let _one = self.naming.lock();
        self.refuse_taken(name)?;
        let lsn = self.commit_draft(OpDraft { point: PointDraft { name, origin: None }, ..self.point_draft(OpKind::Point, Effects::new()) })?;
        self.point(&When::Lsn(lsn)).ok_or_else(|| super::internal("the new snapshot is not there"))
    }

    /// Gives a kept second a name: it stays from now on.
    ///
    /// # Errors
    /// `Conflict`: there is one of this name, or the point has another; `NotFound`: it has just gone.
    pub fn snapshot_name(&self, lsn: Lsn, name: &str) -> Result<Lsn> {
        let _one = self.naming.lock();
        self.refuse_taken(name)?;
        let there = self.points.lock().record(lsn);
        let there = there.ok_or_else(|| Error::new(Kind::NotFound, "that second is not kept any more"))?;
        if !there.name.is_empty() {
            let message = format!("that state is snapshot {} already: rename it, or take another moment", there.name);
            return Err(Error::new(Kind::Conflict, message));
        }
        self.change_point(lsn, |record| {
            record.kind = PointKind::Named;
            record.name = name.to_owned();
        })
    }

    fn refuse_taken(&self, name: &str) -> Result<()> {
        let points = self.points.lock();
        if points.named(name).is_some() {
            return Err(Error::new(Kind::Conflict, format!("a snapshot {name} exists")));
        }
        if points.named_len() >= SNAPSHOTS_MAX {
            let message = format!("the group has {SNAPSHOTS_MAX} snapshots, and no room for more: delete some");
            return Err(Error::new(Kind::Conflict, message));
        }
        Ok(())
    }

    pub fn snapshot(&self, name: &str) -> Result<PointInfo> {
        let found = self.points.lock().named(name);
        found.ok_or_else(|| Error::new(Kind::NotFound, format!("no snapshot {name}")))
    }

    /// A snapshot or kept second by its LSN; `None`: it is none, whatever else keeps it.
    pub fn kept(&self, lsn: Lsn) -> Option<PointInfo> {
        self.points.lock().info(lsn)
    }

    /// Snapshots after an LSN, oldest first.
    pub fn snapshots(&self, after: Lsn, limit: usize) -> Vec<PointInfo> {
        self.points.lock().snapshots(after, limit)
    }

    /// Points after an LSN, ticks too, oldest first.
    pub fn points_after(&self, after: Lsn, limit: usize) -> Vec<PointInfo> {
        self.points.lock().all(after, limit)
    }

    /// The newest point at or before a moment; `None`: what was there then is not kept.
    pub fn point(&self, when: &When) -> Option<PointInfo> {
        self.points.lock().newest_by(when)
    }

    /// First and last kept point.
    pub fn kept_window(&self) -> Option<(PointInfo, PointInfo)> {
        self.points.lock().window()
    }

    /// # Errors
    /// `NotFound`; `Conflict` when it is held.
    pub fn snapshot_delete(&self, name: &str) -> Result<Lsn> {
        let _one = self.naming.lock();
        let point = self.snapshot(name)?;
        if point.held {
            return Err(Error::new(Kind::Conflict, format!("snapshot {name} is held: release it first")));
        }
        let lsn = self.drop_points(&[point.lsn])?;
        self.loosen(point.lsn);
        Ok(lsn)
    }

    pub fn snapshot_rename(&self, name: &str, new_name: &str) -> Result<Lsn> {
        let _one = self.naming.lock();
        let point = self.snapshot(name)?;
        if name != new_name {
            self.refuse_taken(new_name)?;
        }
        self.change_point(point.lsn, |record| record.name = new_name.to_owned())
    }

    pub fn snapshot_hold(&self, name: &str, held: bool) -> Result<Lsn> {
        let _one = self.naming.lock();
        let point = self.snapshot(name)?;
        self.change_point(point.lsn, |record| record.held = held)
    }

    fn change_point(&self, lsn: Lsn, change: impl FnOnce(&mut holdfast_format::point::PointRecord)) -> Result<Lsn> {
        let record = self.points.lock().record(lsn);
        let mut record = record.ok_or_else(|| super::internal("the snapshot has gone"))?;
        change(&mut record);
        let mut effects = Effects::new();
        effects.put(&key::point(lsn), &record.encode());
        let changed = self.commit_draft(self.point_draft(OpKind::PointSet, effects))?;
        self.points.lock().insert(lsn, &record);
        Ok(changed)
    }

    /// Keeps what a point sees as long as the pin lives. `None`: it is not kept (any more).
    pub fn pin(self: &Arc<Self>, lsn: Lsn) -> Option<Pin> {
        let pinned = self.points.lock().pin(lsn);
        pinned.then(|| Pin { group: self.clone(), lsn })
    }

    /// What the manifest keeps for a clone, at its creation or end; `pin` has been there before.
    pub fn pin_for_clone(&self, lsn: Lsn) {
        self.points.lock().pin_again(lsn);
    }

    pub fn unpin(&self, lsn: Lsn) {
        if self.points.lock().unpin(lsn) {
            self.loosen(lsn);
        }
    }

    /// Whether what a point saw is still there. Asked after a view was taken: then all of it is in that view.
    pub fn keeps(&self, lsn: Lsn) -> bool {
        self.points.lock().keeps(lsn)
    }
}
