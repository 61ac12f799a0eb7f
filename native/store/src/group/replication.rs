//! What a group knows of other sites: as an owner its followers, as a replica its owner.
//!
//! Invariants
//! - What a follower has is kept: the point in its record and the one of now are pinned. The record may lag behind (it is
//!   written now and then), never be ahead: a batch over an older base says more than it has to, and the same.
//! - What a follower *may* have is kept, too, until it says what it has: it may be promoted meanwhile, and then that is the common
//!   point. Those are the targets of batches that were sent whole, and after a start, which has forgotten them, the points behind
//!   the one in the record.
//! - A replica takes changes from its owner only. Its present may be the middle of a batch; what it shows are recovery points,
//!   and the newest one that is whole is pinned.
//! - A fork is what a former owner did and its successor does not have. Nobody changes it: it is evidence. The point that both have
//!   is pinned and has a name.

use super::Group;
use super::kept::{PointInfo, PointTable};
use super::mends::Mends;
use crate::error::{Error, Kind, Result};
use crate::ledger::{Ledger, OpDraft, PointDraft};
use holdfast_format::checksum::checksum;
use holdfast_format::inode::Time;
use holdfast_format::limits::{FOLLOWER_NAME_BYTES_MAX, FOLLOWERS_MAX};
use holdfast_format::op::{Effects, OpKind};
use holdfast_format::point::{PointKind, PointRecord};
use holdfast_format::replica::{FollowerRecord, Origin, ReplicaRecord, Role};
use holdfast_format::{GROUP_BRANCH, Ino, Lsn, Uuid, key};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

/// A follower's record is written again when it lags behind for so long.
const RECORD_NS: u64 = 10_000_000_000;

/// Points behind the one in a follower's record that are kept at a start. The record lags behind by some ten seconds and two batches.
const MAYBE_MAX: usize = 4096;

/// What the common point of a fork is called there.
const COMMON_NAME: &str = "fork-point";

#[derive(Default)]
pub(super) struct Replication {
    /// Taken during a change of the role, and while a part of a batch is applied.
    replica: Mutex<Option<ReplicaRecord>>,
    is_replica: AtomicBool,
    is_fork: AtomicBool,
    /// The newest recovery point that is whole, of a replica.
    received: Mutex<Option<Lsn>>,
    followers: Mutex<BTreeMap<String, Follower>>,
    /// Base and target of batches that were read whole; the targets are pinned. Taken after `followers`.
    sent: Mutex<Vec<(Lsn, Lsn)>>,
    /// Ticks that nothing else asks for stayed for followers: when those let go, everything is asked about again.
    spared: AtomicBool,
    pub(super) mends: Mends,
}

/// What a follower has, and what its record says of that; both are pinned.
#[derive(Clone, Debug)]
struct Follower {
    has: Lsn,
    recorded: Lsn,
    recorded_ns: u64,
    /// What it may have beyond that, since a start; pinned.
    maybe: Vec<Lsn>,
}

/// Leaves the batches that may have arrived without our knowing: those that lead on from what a follower has, and those that lead on
/// from there. Returns the targets of the others, which are still pinned.
fn confirmed(followers: &BTreeMap<String, Follower>, sent: &mut Vec<(Lsn, Lsn)>) -> Vec<Lsn> {
    let from = |base: Lsn| sent.iter().copied().filter(move |(from, _)| *from == base);
    let open: BTreeSet<(Lsn, Lsn)> =
        followers.values().flat_map(|follower| from(follower.has).flat_map(|one| from(one.1).chain([one]))).collect();
    let (stays, goes): (Vec<_>, Vec<_>) = sent.iter().copied().partition(|batch| open.contains(batch));
    *sent = stays;
    goes.into_iter().map(|(_, target)| target).collect()
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

    /// What it did after its successor's point stays as it is.
    pub fn is_fork(&self) -> bool {
        self.replication.is_fork.load(Ordering::Acquire)
    }

    /// What the group is, or was, a replica of, or whose fork it is.
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
        if self.is_fork() {
            let message = "this is a fork: what a former owner did stays as it is; clone it to go on from it";
            return Err(Error::new(Kind::Fenced, message));
        }
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

    /// The kept point that a recovery point is here: of this group's own lineage, or one that came from another site.
    pub(crate) fn point_of(&self, origin: Origin) -> Option<Lsn> {
        let branch = self.replica().and_then(|record| Some((record.branch?, record.lsn)));
        let parted = branch.filter(|(branch, lsn)| (branch.lineage, *lsn) == (origin.lineage, origin.lsn));
        let own = (!self.is_replica() && self.lineage() == origin.lineage).then_some(origin.lsn);
        let points = self.points.lock();
        let own = own.filter(|lsn| points.keeps(*lsn));
        let parted = parted.map(|(branch, _)| branch.lsn).filter(|lsn| points.keeps(*lsn));
        own.or(parted).or_else(|| points.of_origin(origin))
    }

    /// The newest kept point that is one of this lineage, at or before that LSN of it: which one that is, and the LSN here.
    pub(crate) fn last_point_of(&self, until: Origin) -> Option<(Lsn, Lsn)> {
        let branch = self.replica().and_then(|record| Some((record.branch?, record.lsn)));
        let parted = branch.filter(|(branch, lsn)| branch.lineage == until.lineage && *lsn <= until.lsn);
        let points = self.points.lock();
        let parted = parted.filter(|(branch, _)| points.keeps(branch.lsn)).map(|(branch, lsn)| (lsn, branch.lsn));
        parted.max(points.last_of_origin(until))
    }

    /// The LSN here of the newest recovery point that was received, which is kept even where its tick was not.
    pub(crate) fn received_as(&self, origin: Origin) -> Option<Lsn> {
        let is_newest = self.replica().is_some_and(|record| (record.lineage, record.lsn) == (origin.lineage, origin.lsn));
        if is_newest { *self.replication.received.lock() } else { None }
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
        if let Some(record) = record.as_ref().filter(|record| record.role == Role::Fork) {
            record.branch.iter().for_each(|branch| table.pin_again(branch.lsn));
            self.replication.is_fork.store(true, Ordering::Release);
        }
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
            let maybe: Vec<Lsn> = table.all(lsn, MAYBE_MAX).into_iter().map(|point| point.lsn).collect();
            maybe.iter().for_each(|lsn| table.pin_again(*lsn));
            followers.insert(name, Follower { has: lsn, recorded: lsn, recorded_ns: 0, maybe });
        }
        Ok(())
    }

    /// A batch was read whole: who gets it may have it before it says so.
    pub(crate) fn sent(&self, base: Lsn, target: Lsn) {
        let goes = {
            let followers = self.replication.followers.lock();
            let mut sent = self.replication.sent.lock();
            if !sent.contains(&(base, target)) && self.points.lock().pin(target) {
                sent.push((base, target));
            }
            confirmed(&followers, &mut sent)
        };
        self.let_go(goes);
    }

    /// What followers have, or may have, keeps its record, too: a start has nothing else to know it by.
    pub(super) fn spare_for_followers(&self, going: &mut Vec<Lsn>) {
        let needed: BTreeSet<Lsn> = {
            let followers = self.replication.followers.lock();
            let sent = self.replication.sent.lock();
            let of = |follower: &Follower| follower.maybe.iter().copied().chain([follower.has]).collect::<Vec<_>>();
            followers.values().flat_map(of).chain(sent.iter().map(|(_, target)| *target)).collect()
        };
        let count = going.len();
        going.retain(|lsn| !needed.contains(lsn));
        if going.len() != count {
            self.replication.spared.store(true, Ordering::Release);
        }
    }

    fn let_go(&self, lsns: Vec<Lsn>) {
        if self.replication.spared.swap(false, Ordering::AcqRel) {
            self.points.lock().ask_again();
        }
        lsns.into_iter().for_each(|lsn| self.unpin(lsn));
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
        let (gone, is_due) = {
            let mut followers = self.replication.followers.lock();
            let known = followers.get(name).cloned();
            if known.is_none() && followers.len() >= FOLLOWERS_MAX {
                return Err(Error::new(Kind::Conflict, format!("the group has {FOLLOWERS_MAX} followers already")));
            }
            if known.as_ref().is_some_and(|known| known.has == lsn && known.maybe.is_empty()) {
                return Ok(());
            }
            if !self.points.lock().pin(lsn) {
                return Err(Error::new(Kind::NotFound, format!("LSN {lsn} is not kept any more")));
            }
            let recorded = known.as_ref().map_or(Lsn(0), |known| known.recorded);
            let recorded_ns = known.as_ref().map_or(0, |known| known.recorded_ns);
            followers.insert(name.to_owned(), Follower { has: lsn, recorded, recorded_ns, maybe: Vec::new() });
            let mut gone = confirmed(&followers, &mut self.replication.sent.lock());
            let is_due = known.is_none() || lsn < recorded || now_ns.saturating_sub(recorded_ns) >= RECORD_NS;
            gone.extend(known.into_iter().flat_map(|known| known.maybe.into_iter().chain([known.has])));
            (gone, is_due)
        };
        self.let_go(gone);
        self.forget_mends();
        if is_due { self.record_follower(name) } else { Ok(()) }
    }

    /// Writes down what a follower has. What its record said before is kept until the new one is durable.
    fn record_follower(&self, name: &str) -> Result<()> {
        let _one = self.naming.lock();
        let Some(follower) = self.replication.followers.lock().get(name).cloned() else { return Ok(()) };
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
        let recorded = Some(follower.recorded).filter(|lsn| *lsn != Lsn(0));
        let sent = confirmed(&self.replication.followers.lock(), &mut self.replication.sent.lock());
        let gone = follower.maybe.into_iter().chain([follower.has]).chain(recorded).chain(sent);
        self.let_go(gone.collect());
        self.forget_mends();
        Ok(())
    }

    /// What every follower has; `None`: nobody follows.
    pub(super) fn followers_have(&self) -> Option<Lsn> {
        self.replication.followers.lock().values().map(|follower| follower.has).min()
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

    /// A former owner stops: nobody changes it from here on. `record.branch` says where its successor parted from it: that point stays.
    /// Returns the LSN that has to be durable before anybody is told. Done before, it does nothing.
    ///
    /// # Errors
    /// `NotFound`: the point is not kept; `Conflict`: it is the fork of something else; `Fenced`: it is a replica.
    pub(crate) fn fence(&self, record: &ReplicaRecord) -> Result<Lsn> {
        let at = record.branch.map_or(Lsn(0), |branch| branch.lsn);
        match self.replica() {
            Some(known) if known.role == Role::Fork && known == *record => return Ok(Lsn(self.newest.load(Ordering::Acquire))),
            Some(known) if known.role == Role::Fork => {
                let message = format!("it is a fork of group {} already", known.source);
                return Err(Error::new(Kind::Conflict, message));
            }
            Some(known) if known.role == Role::Replica => self.refuse_on_replica("it follows somebody already")?,
            _ => {}
        }
        if !self.points.lock().pin(at) {
            return Err(Error::new(Kind::NotFound, format!("recovery point {at} is not kept any more")));
        }
        self.write_fence(record).inspect_err(|_| self.unpin(at))
    }

    fn write_fence(&self, record: &ReplicaRecord) -> Result<Lsn> {
        let mut replica = self.replication.replica.lock();
        let mut effects = Effects::new();
        effects.put(&key::replica(), &record.encode());
        self.replication.is_fork.store(true, Ordering::Release);
        let written = self.commit_draft(self.point_draft(OpKind::PointSet, effects));
        let lsn = written.inspect_err(|_| self.replication.is_fork.store(false, Ordering::Release))?;
        let before = replica.replace(record.clone());
        drop(replica);
        if let Some(given) = before.filter(|before| before.role == Role::Relinquished) {
            self.end_given();
            self.unpin(given.lsn);
        }
        Ok(lsn)
    }

    /// What is fenced, and is again what it was at its common point, follows its successor: `record`. Its past stays. Returns the LSN
    /// that has to be durable before anybody is told.
    ///
    /// # Errors
    /// `Conflict`: it is not fenced.
    pub(crate) fn turn(&self, record: ReplicaRecord, wall: Time) -> Result<Lsn> {
        let mut replica = self.replication.replica.lock();
        let Some(branch) = replica.as_ref().filter(|known| known.role == Role::Fork).and_then(|known| known.branch) else {
            return Err(Error::new(Kind::Conflict, "only a former owner that is fenced turns"));
        };
        let lsn = self.receive_point(&record, (wall, ""))?;
        self.replication.is_replica.store(true, Ordering::Release);
        self.replication.is_fork.store(false, Ordering::Release);
        *replica = Some(record);
        drop(replica);
        self.unpin(branch.lsn);
        Ok(lsn)
    }

    /// The common point of a fork can be found, and stays, whatever the group's retention. It may be kept by pins only by now.
    pub(crate) fn name_common(&self, at: Lsn, wall: Time) -> Result<()> {
        let _one = self.naming.lock();
        let now = self.point_record(PointDraft::default());
        let record = {
            let points = self.points.lock();
            let free = |name: &String| points.named(name).is_none();
            let name = Some(COMMON_NAME.to_owned()).filter(free).unwrap_or_else(|| format!("{COMMON_NAME}-{at}"));
            let there = points.record(at).unwrap_or(PointRecord { wall, ..now });
            if there.held {
                return Ok(());
            }
            let name = if there.name.is_empty() { name } else { there.name };
            PointRecord { kind: PointKind::Named, held: true, name, ..there }
        };
        let mut effects = Effects::new();
        effects.put(&key::point(at), &record.encode());
        self.commit_draft(self.point_draft(OpKind::PointSet, effects))?;
        self.points.lock().insert(at, &record);
        Ok(())
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
