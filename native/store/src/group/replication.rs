//! What a group knows of other sites: as an owner its followers, as a replica its owner.
//!
//! Invariants
//! - What a follower has is kept: the point in its record and the one of now are pinned. The record may lag behind (it is
//!   written now and then), never be ahead: a batch over an older base says more than it has to, and the same.
//! - A replica takes changes from its owner only. Its present may be the middle of a batch; what it shows are recovery points,
//!   and the newest one that is whole is pinned.

use super::Group;
use super::kept::{PointInfo, PointTable};
use crate::error::{Error, Kind, Result};
use crate::ledger::{Ledger, OpDraft, PointDraft};
use holdfast_format::checksum::checksum;
use holdfast_format::inode::Time;
use holdfast_format::limits::{FOLLOWER_NAME_BYTES_MAX, FOLLOWERS_MAX};
use holdfast_format::op::{Effects, OpKind};
use holdfast_format::replica::{FollowerRecord, Origin, ReplicaRecord, Role};
use holdfast_format::{GROUP_BRANCH, Ino, Lsn, Uuid, key};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// A follower's record is written again when it lags behind for so long.
const RECORD_NS: u64 = 10_000_000_000;

#[derive(Default)]
pub(super) struct Replication {
    /// Taken during a change of the role, and while a part of a batch is applied.
    replica: Mutex<Option<ReplicaRecord>>,
    is_replica: AtomicBool,
    /// The newest recovery point that is whole, of a replica.
    received: Mutex<Option<Lsn>>,
    followers: Mutex<BTreeMap<String, Follower>>,
}

/// What a follower has, and what its record says of that; both are pinned.
#[derive(Clone, Copy, Debug)]
struct Follower {
    has: Lsn,
    recorded: Lsn,
    recorded_ns: u64,
}

/// What an owner knows of a follower.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FollowerInfo {
    pub name: String,
    pub lsn: Lsn,
}

/// Of a group that was never promoted.
pub(super) fn first_lineage(uuid: &Uuid) -> u64 {
    checksum(&uuid.0)
}

impl Group {
    /// Held during a change of the role.
    pub(super) fn role(&self) -> parking_lot::MutexGuard<'_, Option<ReplicaRecord>> {
        self.replication.replica.lock()
    }

    pub fn is_replica(&self) -> bool {
        self.replication.is_replica.load(Ordering::Acquire)
    }

    /// What the group is, or was, a replica of.
    pub fn replica(&self) -> Option<ReplicaRecord> {
        self.replication.replica.lock().clone()
    }

    /// Random id of the epoch in which this group's LSNs mean what they mean: whoever is promoted gets a new one.
    pub fn lineage(&self) -> u64 {
        match self.replica() {
            Some(record) => record.lineage,
            None => self.pool.group(self.id).map_or(0, |record| first_lineage(&record.uuid)),
        }
    }

    pub(super) fn refuse_on_replica(&self, way_out: &str) -> Result<()> {
        if !self.is_replica() {
            return Ok(());
        }
        Err(Error::new(Kind::Fenced, format!("this is a replica: {way_out}")))
    }

    /// Whether the op may be done here at all.
    pub(super) fn check_role(&self, draft: &OpDraft<'_>) -> Result<()> {
        if draft.branch == GROUP_BRANCH || matches!(draft.kind, OpKind::Stage | OpKind::VolumeSet | OpKind::VolumeDestroy) {
            return Ok(());
        }
        self.refuse_on_replica("it takes changes from its owner only; clone it, or fail over to it")
    }

    /// The newest recovery point of a replica that is whole.
    pub(crate) fn newest_received(&self) -> Result<PointInfo> {
        let received = *self.replication.received.lock();
        let point = received.and_then(|lsn| self.points.lock().newest_by(&super::When::Lsn(lsn)));
        point.ok_or_else(|| Error::new(Kind::NotFound, "the replica has not received a whole recovery point yet"))
    }

    /// Reads the records at open, and pins what they speak of.
    pub(super) fn pin_for_replication(&self, table: &mut PointTable) -> Result<()> {
        let record = self.get(&key::replica())?;
        let record = record.map(|bytes| ReplicaRecord::decode(&bytes)).transpose();
        let record = record.map_err(|error| Error::decode("what a replica has of its owner", error))?;
        let is_replica = record.as_ref().is_some_and(|record| record.role == Role::Replica);
        if is_replica {
            let received = table.newest_of_origin();
            received.iter().for_each(|lsn| table.pin_again(*lsn));
            *self.replication.received.lock() = received;
        }
        self.replication.is_replica.store(is_replica, Ordering::Release);
        self.adopt_given(record.as_ref(), table);
        *self.replication.replica.lock() = record;
        let (from, until) = key::kind_range(GROUP_BRANCH, Ino(0), key::KIND_FOLLOWER);
        let mut found = Vec::new();
        self.scan(&from, &until, &mut |key, value| {
            let name = key::parts(key).map(|parts| String::from_utf8_lossy(parts.rest).into_owned());
            found.push((name.unwrap_or_default(), FollowerRecord::decode(value)));
            true
        })?;
        let mut followers = self.replication.followers.lock();
        for (name, record) in found {
            let lsn = record.map_err(|error| Error::decode("what a follower has", error))?.lsn;
            table.pin_again(lsn);
            table.pin_again(lsn);
            followers.insert(name, Follower { has: lsn, recorded: lsn, recorded_ns: 0 });
        }
        Ok(())
    }

    /// A recovery point of now, durable, for followers.
    ///
    /// # Errors
    /// `Fenced`: it is a replica itself.
    pub fn cut(&self) -> Result<PointInfo> {
        self.refuse_on_replica("its owner cuts recovery points")?;
        let point = self.point_now()?;
        if self.durable() < point.lsn {
            self.flush_now()?;
        }
        Ok(point)
    }

    pub fn followers(&self) -> Vec<FollowerInfo> {
        let followers = self.replication.followers.lock();
        followers.iter().map(|(name, follower)| FollowerInfo { name: name.clone(), lsn: follower.has }).collect()
    }

    /// A follower has this recovery point: it is kept from now on, and what was kept for it before is not any more.
    ///
    /// # Errors
    /// `NotFound`: the point is not kept; `Conflict`: too many followers.
    pub fn follower_has(&self, name: &str, lsn: Lsn) -> Result<()> {
        if name.is_empty() || name.len() > FOLLOWER_NAME_BYTES_MAX {
            return Err(Error::invalid(format!("a follower's name has 1 to {FOLLOWER_NAME_BYTES_MAX} bytes")));
        }
        let now_ns = self.options.clock.boottime_ns();
        let (before, is_due) = {
            let mut followers = self.replication.followers.lock();
            let known = followers.get(name).copied();
            if known.is_none() && followers.len() >= FOLLOWERS_MAX {
                return Err(Error::new(Kind::Conflict, format!("the group has {FOLLOWERS_MAX} followers already")));
            }
            if known.is_some_and(|known| known.has == lsn) {
                return Ok(());
            }
            if !self.points.lock().pin(lsn) {
                return Err(Error::new(Kind::NotFound, format!("LSN {lsn} is not kept any more")));
            }
            let recorded = known.map_or(Lsn(0), |known| known.recorded);
            let recorded_ns = known.map_or(0, |known| known.recorded_ns);
            followers.insert(name.to_owned(), Follower { has: lsn, recorded, recorded_ns });
            (known, known.is_none() || lsn < recorded || now_ns.saturating_sub(recorded_ns) >= RECORD_NS)
        };
        before.iter().for_each(|before| self.unpin(before.has));
        if is_due { self.record_follower(name) } else { Ok(()) }
    }

    /// Writes down what a follower has. What its record said before is kept until the new one is durable.
    fn record_follower(&self, name: &str) -> Result<()> {
        let _one = self.naming.lock();
        let Some(follower) = self.replication.followers.lock().get(name).copied() else { return Ok(()) };
        if follower.has == follower.recorded {
            return Ok(());
        }
        self.points.lock().pin_again(follower.has);
        let mut effects = Effects::new();
        effects.put(&key::follower(name.as_bytes()), &FollowerRecord { lsn: follower.has }.encode());
        let written = self.commit_draft(self.point_draft(OpKind::PointSet, effects)).and_then(|_| self.flush_now());
        if let Err(error) = written {
            self.unpin(follower.has);
            return Err(error);
        }
        if let Some(known) = self.replication.followers.lock().get_mut(name) {
            known.recorded = follower.has;
            known.recorded_ns = self.options.clock.boottime_ns();
        }
        if follower.recorded != Lsn(0) {
            self.unpin(follower.recorded);
        }
        Ok(())
    }

    /// Nothing is kept for a follower any more.
    pub fn follower_forget(&self, name: &str) -> Result<()> {
        let _one = self.naming.lock();
        let Some(follower) = self.replication.followers.lock().remove(name) else { return Ok(()) };
        let mut effects = Effects::new();
        effects.delete(&key::follower(name.as_bytes()));
        self.commit_draft(self.point_draft(OpKind::PointSet, effects))?;
        self.flush_now()?;
        self.unpin(follower.has);
        if follower.recorded != Lsn(0) {
            self.unpin(follower.recorded);
        }
        Ok(())
    }

    /// Keeps the present of a replica, which may be the middle of a batch, to be compared.
    pub(crate) fn keep_middle(&self) -> Result<Lsn> {
        self.commit_draft(self.point_draft(OpKind::Point, Effects::new()))
    }

    /// From here on it takes changes from its users.
    pub(crate) fn end_replica(&self, record: &ReplicaRecord) -> Result<Lsn> {
        let mut effects = Effects::new();
        effects.put(&key::replica(), &record.encode());
        let lsn = self.commit_draft(self.point_draft(OpKind::PointSet, effects))?;
        self.replication.is_replica.store(false, Ordering::Release);
        let received = self.replication.received.lock().take();
        received.into_iter().for_each(|received| self.unpin(received));
        Ok(lsn)
    }

    /// Becomes a replica: of nothing yet. The record goes into the log with `effects`.
    pub(crate) fn become_replica(&self, record: ReplicaRecord, mut effects: Effects) -> Result<Lsn> {
        let mut replica = self.replication.replica.lock();
        effects.put(&key::replica(), &record.encode());
        let lsn = self.commit_draft(self.point_draft(OpKind::VolumeCreate, effects))?;
        self.replication.is_replica.store(record.role == Role::Replica, Ordering::Release);
        *replica = Some(record);
        Ok(lsn)
    }

    /// Runs a step of replication: one at a time. What it returns is what the group is afterwards; it has been logged.
    pub(crate) fn with_replica<T>(&self, step: impl FnOnce(&mut ReplicaRecord) -> Result<T>) -> Result<T> {
        let mut replica = self.replication.replica.lock();
        let Some(record) = replica.as_mut().filter(|record| record.role == Role::Replica) else {
            return Err(Error::new(Kind::Fenced, "this is no replica: it takes nothing from others"));
        };
        step(record)
    }

    /// Keeps what is there now as a recovery point of the owner, with what the replica is then.
    pub(crate) fn receive_point(&self, record: &ReplicaRecord, (wall, name): (Time, &str)) -> Result<Lsn> {
        let _one = self.naming.lock();
        let name = if self.points.lock().named(name).is_some() { "" } else { name };
        let mut effects = Effects::new();
        effects.put(&key::replica(), &record.encode());
        let origin = Origin { lineage: record.lineage, lsn: record.lsn };
        let point = PointDraft { name, origin: Some((origin, wall)) };
        let lsn = self.commit_draft(OpDraft { point, ..self.point_draft(OpKind::Point, effects) })?;
        self.points.lock().pin_again(lsn);
        let before = self.replication.received.lock().replace(lsn);
        before.into_iter().for_each(|before| self.unpin(before));
        Ok(lsn)
    }
}
