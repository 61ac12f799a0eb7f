//! A group is given to another site: the owner's side. See `gate` for how users are held up meanwhile.
//!
//! Invariants
//! - Once the record that says so is durable, the group takes no change of a user any more, after a start either, until it is
//!   taken back on purpose. Before that nobody else may be told that it is theirs.
//! - Nothing changes between the last recovery point and that record: both are looked at under the commit lock.

use super::Group;
use super::kept::PointTable;
use super::replication::first_lineage;
use crate::error::{Error, Kind, Result};
use crate::gate::Gate;
use crate::ledger::OpDraft;
use holdfast_format::op::{Effects, OpKind};
use holdfast_format::replica::{Origin, ReplicaRecord, Role};
use holdfast_format::{GROUP_BRANCH, Lsn, key};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Group {
    /// Where users' changes pass.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Whether another site was given the group, or is about to be.
    pub fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }

    /// Records of the group's own go on: what is kept, for whom, and how. A snapshot would be one of a state that is not here.
    pub(super) fn refuse_when_given(&self, draft: &OpDraft<'_>) -> Result<()> {
        let is_own = draft.branch == GROUP_BRANCH || matches!(draft.kind, OpKind::VolumeSet | OpKind::VolumeDestroy);
        if is_own && draft.point.name.is_empty() || !self.is_given() {
            return Ok(());
        }
        Err(Error::new(Kind::Fenced, "the group was handed over to another site: changes are made there"))
    }

    /// What the record of a given group says when it is opened. Its last point, which its successor has too, stays.
    pub(super) fn adopt_given(&self, record: Option<&ReplicaRecord>, table: &mut PointTable) {
        let Some(record) = record.filter(|record| record.role == Role::Relinquished) else { return };
        table.pin_again(record.lsn);
        self.given.store(true, Ordering::Release);
        self.gate.give();
    }

    /// Gives the group away, as it is at the recovery point `last`; asked again it does nothing. The gate has to be sealed.
    ///
    /// 1. The gate is held: it does not open by itself any more.
    /// 2. Under the commit lock: nothing has changed since `last`, and from here on nothing does.
    /// 3. The record, durably. From here on the group is given, whatever happens.
    /// 4. Who waits at the gate is let in, and refused.
    ///
    /// # Errors
    /// `Conflict`: something has changed since, or the gate is not sealed any more. All is as before then, as after any other
    /// failure but one, `Internal`: the log fails altogether, and the group takes nothing until a start finds out what is durable.
    pub fn relinquish(&self, last: Lsn) -> Result<()> {
        let mut replica = self.role();
        if replica.as_ref().is_some_and(|record| record.role == Role::Relinquished) {
            return Ok(());
        }
        self.refuse_on_replica("there is nothing to give away")?;
        self.gate.hold()?;
        let next = self.own_record(Role::Relinquished, replica.as_ref(), last);
        match self.relinquish_held(last, &next, replica.as_ref()) {
            Ok(()) => {
                self.points.lock().pin(last);
                *replica = Some(next);
                self.gate.give();
                Ok(())
            }
            Err(error) => {
                self.gate.let_go();
                Err(error)
            }
        }
    }

    /// Steps 2 and 3.
    fn relinquish_held(&self, last: Lsn, next: &ReplicaRecord, before: Option<&ReplicaRecord>) -> Result<()> {
        {
            let _commit = self.commit.lock();
            let newest = self.changed.load(Ordering::Acquire).max(self.last_point.load(Ordering::Acquire));
            if newest > last.0 {
                return Err(Error::new(Kind::Conflict, format!("LSN {newest} came after the last recovery point {last}")));
            }
            self.given.store(true, Ordering::Release);
        }
        let written = self.write_role(Some(next)).and_then(|lsn| {
            self.flush_now()?;
            if self.durable() >= lsn { Ok(()) } else { Err(Error::new(Kind::Unavailable, "the log is not durable")) }
        });
        written.map_err(|error| match self.write_role(before) {
            Ok(_) => {
                self.given.store(false, Ordering::Release);
                error
            }
            Err(_) => Error::new(Kind::Internal, format!("{error}; the next start shows whether the group is given")),
        })
    }

    fn write_role(&self, record: Option<&ReplicaRecord>) -> Result<Lsn> {
        let mut effects = Effects::new();
        match record {
            Some(record) => effects.put(&key::replica(), &record.encode()),
            None => effects.delete(&key::replica()),
        }
        self.commit_draft(self.point_draft(OpKind::PointSet, effects))
    }

    /// Of an owner whose last word in its lineage is this point.
    fn own_record(&self, role: Role, record: Option<&ReplicaRecord>, last: Lsn) -> ReplicaRecord {
        let source = self.pool.group(self.id).map(|entry| entry.uuid).unwrap_or_default();
        let lineage = record.map_or_else(|| first_lineage(&source), |record| record.lineage);
        ReplicaRecord { role, source, lineage, lsn: last, staging: None, branch: Some(Origin { lineage, lsn: last }) }
    }

    /// Goes on as an owner of what was given away, of another lineage: for when nobody else can. Returns the LSN that has to be
    /// durable before anybody is told.
    ///
    /// # Errors
    /// `Fenced`: it was not given away.
    pub fn take_back(&self, lineage: u64) -> Result<Lsn> {
        let mut replica = self.role();
        let Some(record) = replica.as_ref().filter(|record| record.role == Role::Relinquished) else {
            return Err(Error::new(Kind::Fenced, "the group was not given away"));
        };
        let next = ReplicaRecord { role: Role::Promoted, lineage, ..record.clone() };
        let lsn = self.write_role(Some(&next))?;
        *replica = Some(next);
        drop(replica);
        self.end_given();
        Ok(lsn)
    }

    /// Its role says now who may change it.
    pub(super) fn end_given(&self) {
        self.given.store(false, Ordering::Release);
        self.gate.take_back();
    }
}
