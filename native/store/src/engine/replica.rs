//! Groups between sites, as the daemon drives them: recovery points are cut here and read there. See `replica/`.

use super::{Engine, VolumeEntry, check_name, control_draft};
use crate::error::{Error, Kind, Result};
use crate::group::{FollowerInfo, Group};
use crate::ledger::Ledger;
use crate::placement::{Edit, GroupChange};
use crate::replica::apply::{self, Volumes};
use crate::replica::{Delta, Staged, revert};
use holdfast_format::inode::{Time, VolumeRecord, WritePolicy};
use holdfast_format::op::{Effects, OpKind};
use holdfast_format::replica::{Origin, ReplicaRecord, Role, Staging};
use holdfast_format::wire::{Put, Take};
use holdfast_format::{BranchId, DecodeError, GROUP_BRANCH, GroupId, Lsn, Uuid, key};
use std::sync::{Arc, Weak};

/// Volumes of a group at most, as one description tells them.
const VOLUMES_MAX: usize = 1024;

/// A recovery point that was cut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CutPoint {
    pub lsn: u64,
    /// Wall time of it.
    pub wall: Time,
    /// The snapshot that it is; empty: none.
    pub name: String,
}

/// How far a replica is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaState {
    /// False: it was promoted, or given away, or is a fork.
    pub is_replica: bool,
    /// This site owned it, and has given it to another one.
    pub is_given: bool,
    /// What a former owner did: `source` is its successor, `lsn` the successor's LSN of their last common recovery point.
    pub is_fork: bool,
    pub source: Uuid,
    pub lineage: u64,
    /// The owner's LSN of the newest recovery point that is whole; 0: none.
    pub lsn: u64,
    /// Of what was promoted, or is a fork: the lineage that `lsn` is of, and the same recovery point here.
    pub branch: Option<Origin>,
    /// The newest one, by this site's LSN, and its time.
    pub local_lsn: u64,
    pub wall: Time,
    pub staging: Option<Staging>,
}

/// Whom a former owner follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leader {
    /// Uuid of its group.
    pub source: Uuid,
    pub lineage: u64,
    /// Its LSN of the last recovery point that both have.
    pub lsn: u64,
    /// When that was cut.
    pub wall: Time,
}

/// What another site needs to know to make a replica.
struct Description {
    source: Uuid,
    lineage: u64,
    counter: Vec<u8>,
    volumes: Volumes,
}

impl Description {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_bytes(&self.source.0);
        out.put_u64(self.lineage);
        out.put_u16(self.counter.len() as u16);
        out.put_bytes(&self.counter);
        out.put_u16(self.volumes.len() as u16);
        for (branch, record) in &self.volumes {
            let bytes = record.encode();
            out.put_u32(branch.0);
            out.put_u16(bytes.len() as u16);
            out.put_bytes(&bytes);
        }
        out
    }

    fn decode(bytes: &[u8]) -> std::result::Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        let (source, lineage) = (take.uuid()?, take.u64()?);
        let length = take.u16()? as usize;
        let counter = take.bytes(length)?.to_vec();
        VolumeRecord::decode(&counter)?;
        let count = take.u16()? as usize;
        if count == 0 || count > VOLUMES_MAX {
            return Err(DecodeError::Invalid("number of volumes"));
        }
        let mut volumes = Volumes::new();
        for _ in 0..count {
            let branch = BranchId(take.u32()?);
            let length = take.u16()? as usize;
            let record = VolumeRecord::decode(take.bytes(length)?)?;
            if branch == GROUP_BRANCH || volumes.iter().any(|(other, _)| *other == branch) {
                return Err(DecodeError::Invalid("branch of a volume"));
            }
            volumes.push((branch, record));
        }
        take.end()?;
        Ok(Self { source, lineage, counter, volumes })
    }
}

impl Engine {
    /// What another site needs to make a replica of a group.
    pub fn replica_describe(&self, target: &str) -> Result<Vec<u8>> {
        let group = self.group_of(target)?;
        let (source, lineage) = self.replica_identity(target)?;
        let counter = group.get(&key::volume(GROUP_BRANCH))?.ok_or_else(|| Error::corrupt("a group counts no volumes"))?;
        Ok(Description { source, lineage, counter, volumes: group.volumes()? }.encode())
    }

    /// Makes a group that will follow the one described: empty, and closed to everybody until its first recovery point is whole.
    /// A volume that is alone gets the name, several get it before theirs. `rf` 0: as at the owner.
    ///
    /// 1. The group; without volumes the next start gives it up.
    /// 2. The manifest says that it is a replica, and the superblocks before it.
    /// 3. Its volumes and what it follows, with one op.
    ///
    /// # Errors
    /// `Conflict`: a name is in use; `Invalid`: more copies than the pool can make.
    pub fn replica_create(self: &Arc<Self>, description: &[u8], name: &str, rf: u8) -> Result<()> {
        self.ensure_open()?;
        check_name("volume", name)?;
        let told = Description::decode(description).map_err(|error| Error::decode("a description of a group", error))?;
        let is_alone = told.volumes.len() == 1;
        let mut volumes = told.volumes;
        for (_, record) in &mut volumes {
            record.name = if is_alone { name.to_owned() } else { format!("{name}-{}", record.name) };
            (record.rf, record.policy) = (if rf == 0 { record.rf } else { rf }, WritePolicy::default());
            check_name("volume", &record.name)?;
            self.check_promise(record.rf, record.policy)?;
            if self.volumes.lock().contains_key(&record.name) {
                return Err(Error::new(Kind::Conflict, format!("volume {} exists", record.name)));
            }
        }
        let id = self.create_group(name, None)?;
        let record = ReplicaRecord {
            role: Role::Replica,
            source: told.source,
            lineage: told.lineage,
            lsn: Lsn(0),
            staging: None,
            branch: None,
        };
        self.make_replica(id, &told.counter, &volumes, record).or_else(|error| {
            self.give_up_group(id)?;
            Err(error)
        })
    }

    /// Steps 2 and 3.
    fn make_replica(&self, id: GroupId, counter: &[u8], volumes: &Volumes, record: ReplicaRecord) -> Result<()> {
        let group = self.group(id)?;
        let promised: Vec<_> = volumes.iter().map(|(branch, record)| (*branch, record.rf, record.policy)).collect();
        self.prepare_promise(&group, &promised)?;
        self.pool.publish(Edit { groups: vec![GroupChange::Replicated { id }], ..Edit::default() })?;
        let mut effects = Effects::new();
        effects.put(&key::volume(GROUP_BRANCH), counter);
        volumes.iter().for_each(|(branch, record)| effects.put(&key::volume(*branch), &record.encode()));
        let lsn = group.become_replica(record, effects)?;
        self.flush_group(&group, lsn)?;
        self.adopt_told(&group, volumes)
    }

    /// Volumes of which the owner told something: new ones, and some that have gone.
    fn adopt_told(&self, group: &Arc<Group>, volumes: &Volumes) -> Result<()> {
        if volumes.is_empty() {
            return Ok(());
        }
        let mut entries = self.volumes.lock();
        for (branch, record) in volumes {
            let is_known = |entry: &VolumeEntry| (entry.group, entry.branch) == (group.id, *branch);
            if record.name.is_empty() {
                entries.retain(|_, entry| !is_known(entry));
            } else if !entries.values().any(is_known) {
                let entry = VolumeEntry { group: group.id, branch: *branch, mounted: Weak::new() };
                entries.insert(record.name.clone(), entry);
            }
        }
        drop(entries);
        self.adopt_policies(group, &[])
    }

    /// Uuid of a group, and the lineage that its recovery points are of.
    pub fn replica_identity(&self, target: &str) -> Result<(Uuid, u64)> {
        let group = self.group_of(target)?;
        let missing = || Error::new(Kind::Internal, format!("group {target} is not in the manifest"));
        Ok((self.pool.group(group.id).ok_or_else(missing)?.uuid, group.lineage()))
    }

    /// How far a replica is; `None`: the group never was one, and was not given away.
    pub fn replica_state(&self, target: &str) -> Result<Option<ReplicaState>> {
        let group = self.group_of(target)?;
        let Some(record) = group.replica() else { return Ok(None) };
        let received = group.newest_received().ok();
        Ok(Some(ReplicaState {
            is_replica: record.role == Role::Replica,
            is_given: record.role == Role::Relinquished,
            is_fork: record.role == Role::Fork,
            source: record.source,
            lineage: record.lineage,
            lsn: record.lsn.0,
            local_lsn: received.as_ref().map_or(0, |point| point.lsn.0),
            wall: received.map(|point| point.wall).unwrap_or_default(),
            staging: record.staging,
            branch: record.branch,
        }))
    }

    /// Takes a chunk in; it is durable with its recovery point at the latest.
    ///
    /// # Errors
    /// See [`apply::stage`].
    pub fn replica_stage(&self, target: &str, chunk: &[u8], cursor: &[u8]) -> Result<Staged> {
        let group = self.group_of(target)?;
        let (staged, volumes) = apply::stage(&group, chunk, cursor)?;
        self.adopt_told(&group, &volumes)?;
        Ok(staged)
    }

    /// The batch to the owner's `lsn` becomes the newest recovery point, durably. Asked again it does nothing.
    ///
    /// # Errors
    /// See [`apply::complete`].
    pub fn replica_complete(&self, target: &str, (lineage, lsn): (u64, u64), wall: Time, name: &str) -> Result<()> {
        let group = self.group_of(target)?;
        let kept = apply::complete(&group, (lineage, Lsn(lsn)), (wall, name))?;
        self.flush_group(&group, kept)
    }

    /// Makes a replica the owner of what it has: it shows its newest recovery point, takes changes, and is of a new lineage.
    /// What came of a batch that is not whole is taken back. Asked again it does nothing. `follower` (empty: nobody): the name that
    /// the former owner will have as one that follows; where the two part is kept for it.
    ///
    /// # Errors
    /// `NotFound`: no recovery point is whole; `Fenced`: it never was a replica. What was given away from here is taken back.
    pub fn replica_promote(&self, target: &str, follower: &str) -> Result<()> {
        let group = self.group_of(target)?;
        match group.replica() {
            None => return Err(Error::new(Kind::Fenced, format!("{target} is no replica: it takes changes already"))),
            Some(record) if record.role == Role::Promoted => return Ok(()),
            Some(record) if record.role == Role::Relinquished => {
                let lineage = self.rng.lock().next_u64();
                let lsn = group.take_back(lineage)?;
                return self.flush_group(&group, lsn);
            }
            Some(_) => {}
        }
        let lineage = self.rng.lock().next_u64();
        let lsn = revert::promote(&group, lineage, follower)?;
        self.flush_group(&group, lsn)?;
        let volumes = group.volumes()?;
        self.adopt_told(&group, &volumes)
    }

    /// Holds up who changes something of a group, for so long at most; who is at it has ended when it returns. What the kernel
    /// writes back passes until it is sealed.
    ///
    /// # Errors
    /// See [`Gate::close`](crate::gate::Gate::close) and [`Gate::seal`](crate::gate::Gate::seal).
    pub fn gate_close(&self, target: &str, limit: std::time::Duration) -> Result<()> {
        let group = self.group_of(target)?;
        // The superblocks say so before the log does: no program that does not know what a given group is may open the pool.
        // Here nobody waits for it yet.
        if !self.pool.group(group.id).is_some_and(|entry| entry.replicated) {
            self.pool.publish(Edit { groups: vec![GroupChange::Replicated { id: group.id }], ..Edit::default() })?;
        }
        group.gate().close(limit)
    }

    pub fn gate_seal(&self, target: &str) -> Result<()> {
        self.group_of(target)?.gate().seal()
    }

    /// Lets everybody go on.
    pub fn gate_open(&self, target: &str) -> Result<()> {
        self.group_of(target)?.gate().open();
        Ok(())
    }

    /// Gives a group whose gate is sealed to another site, as it is at the recovery point `last`. Durable when it returns; asked again it does nothing.
    ///
    /// # Errors
    /// See [`Group::relinquish`].
    pub fn replica_relinquish(&self, target: &str, last: u64) -> Result<()> {
        self.group_of(target)?.relinquish(Lsn(last))
    }

    /// A durable recovery point of now, kept for the followers.
    ///
    /// # Errors
    /// `Fenced`: the group is a replica.
    pub fn replica_cut(&self, target: &str) -> Result<CutPoint> {
        let point = self.group_of(target)?.cut()?;
        Ok(CutPoint { lsn: point.lsn.0, wall: point.wall, name: point.name })
    }

    /// The batch between two recovery points, from a place on.
    ///
    /// # Errors
    /// See [`Delta::open`].
    pub fn delta_open(&self, target: &str, base: u64, until: u64, cursor: &[u8]) -> Result<Delta> {
        Delta::open(&self.group_of(target)?, Lsn(base), Lsn(until), cursor)
    }

    pub fn followers(&self, target: &str) -> Result<Vec<FollowerInfo>> {
        Ok(self.group_of(target)?.followers())
    }

    /// A follower has this recovery point, durably: only from there on history is kept for it.
    pub fn follower_has(&self, target: &str, follower: &str, lsn: u64) -> Result<()> {
        self.group_of(target)?.follower_has(follower, Lsn(lsn))
    }

    pub fn follower_forget(&self, target: &str, follower: &str) -> Result<()> {
        self.group_of(target)?.follower_forget(follower)
    }

    /// A former owner stops: from here on nobody changes the group, whoever has it mounted, also after a start. What it did after
    /// `at`, the last of its recovery points that its successor has, is a fork; the point is kept. `of`: the owner of now, and its LSN
    /// of that point. Both 0: no point that both have is left, and all of it is the fork. Done before, it does nothing.
    ///
    /// # Errors
    /// `NotFound`: the point is not kept; `Conflict`: it is the fork of something else; `Fenced`: it is a replica.
    pub fn replica_fence(&self, target: &str, at: u64, of: &Leader) -> Result<()> {
        self.ensure_open()?;
        self.fence_group(&self.group_of(target)?, at, of)
    }

    /// The superblocks know before the group says so: a program that does not know forks must not write to one.
    fn fence_group(&self, group: &Arc<Group>, at: u64, of: &Leader) -> Result<()> {
        let is_fork_of = |record: &ReplicaRecord| {
            (record.role, record.source, record.lsn) == (Role::Fork, of.source, Lsn(0))
        };
        let at = match at {
            0 if group.replica().as_ref().is_some_and(is_fork_of) => return Ok(()),
            0 => group.cut()?.lsn.0,
            at => at,
        };
        let record = ReplicaRecord {
            role: Role::Fork,
            source: of.source,
            lineage: group.lineage(),
            lsn: Lsn(of.lsn),
            staging: None,
            branch: Some(Origin { lineage: of.lineage, lsn: Lsn(at) }),
        };
        self.pool.publish(Edit { groups: vec![GroupChange::Replicated { id: group.id }], ..Edit::default() })?;
        let fenced = group.fence(&record)?;
        self.flush_group(group, fenced)
    }

    /// A former owner follows the one that was promoted in its place. What it did after `at` stays as a fork, a group of its own, by
    /// another name.
    ///
    /// 1. Nobody changes it any more ([`Self::replica_fence`]), and everything is durable.
    /// 2. Group and volumes get the fork's name.
    /// 3. A clone of the point, under the old names, is a replica from its first op on.
    /// 4. The point is its first recovery point.
    ///
    /// Without a common point, or where there is a follower of the same owner already, it ends with step 2: the follower begins from
    /// nothing, when its owner sends.
    ///
    /// Asked again it goes on where a crash has left it; done before, it does nothing, also when the fork is gone.
    ///
    /// # Errors
    /// As of the fence; `Conflict`: a volume is mounted, or the fork's name is in use.
    pub fn replica_rejoin(self: &Arc<Self>, target: &str, fork: &str, at: u64, of: &Leader) -> Result<()> {
        self.ensure_open()?;
        check_name("fork", fork)?;
        let known = |name: &str| self.groups.read().iter().find(|(_, entry)| entry.name == name).map(|(id, _)| *id);
        let follows = |id: GroupId| {
            let record = self.group(id).ok().and_then(|group| group.replica());
            record.is_some_and(|record| record.role == Role::Replica && record.source == of.source)
        };
        let group = match (known(target), known(fork)) {
            (Some(id), _) if follows(id) => return self.finish_rejoin(id, of),
            (Some(id), None) => self.group(id)?,
            // It was begun before.
            (None, Some(id)) => self.group(id)?,
            (Some(_), Some(_)) => return Err(Error::new(Kind::Conflict, format!("a group {fork} exists"))),
            (None, None) => return Err(Error::new(Kind::NotFound, format!("no group {target}"))),
        };
        if let Some(mounted) = self.mounted_of(group.id) {
            return Err(Error::new(Kind::Conflict, format!("volume {mounted} is mounted: unmount it first")));
        }
        self.fence_group(&group, at, of)?;
        self.flush_group(&group, Group::newest(&group))?;
        let common = group.replica().and_then(|record| record.branch).map_or(Lsn(at), |branch| branch.lsn);
        group.name_common(common, of.wall)?;
        self.give_fork_names(&group, fork)?;
        for follower in group.followers() {
            group.follower_forget(&follower.name)?;
        }
        // A follower of the same owner, that somebody has made here, stays the only one.
        let ids: Vec<GroupId> = self.groups.read().keys().copied().collect();
        if at == 0 || ids.into_iter().any(follows) {
            return Ok(());
        }
        let volumes = group.volumes_at(Lsn(at))?;
        let counter = group.get_at(&key::volume(GROUP_BRANCH), Lsn(at))?;
        let counter = counter.ok_or_else(|| Error::corrupt("a group counts no volumes"))?;
        let id = self.create_group(target, Some((group.id, Lsn(at))))?;
        let record = ReplicaRecord {
            role: Role::Replica,
            source: of.source,
            lineage: of.lineage,
            lsn: Lsn(of.lsn),
            staging: None,
            branch: None,
        };
        self.make_replica(id, &counter, &volumes, record).or_else(|error| {
            self.give_up_group(id)?;
            Err(error)
        })?;
        self.finish_rejoin(id, of)
    }

    /// Step 4.
    fn finish_rejoin(&self, id: GroupId, of: &Leader) -> Result<()> {
        let clone = self.group(id)?;
        let kept = clone.with_replica(|record| match clone.newest_received() {
            Err(_) if record.lsn == Lsn(of.lsn) && record.staging.is_none() => clone.receive_point(record, (of.wall, "")),
            _ => Ok(Group::newest(&clone)),
        })?;
        self.flush_group(&clone, kept)
    }

    /// The kept LSN here of a recovery point that came from elsewhere; `None`: it is not kept.
    pub fn replica_find(&self, target: &str, lineage: u64, lsn: u64) -> Result<Option<u64>> {
        let origin = Origin { lineage, lsn: Lsn(lsn) };
        Ok(self.group_of(target)?.point_of(origin).map(|lsn| lsn.0))
    }

    /// The newest kept recovery point of another site's lineage at or before an LSN of it: which one that is, and the LSN here.
    pub fn replica_find_last(&self, target: &str, lineage: u64, until: u64) -> Result<Option<(u64, u64)>> {
        let found = self.group_of(target)?.last_point_of(Origin { lineage, lsn: Lsn(until) });
        Ok(found.map(|(of, here)| (of.0, here.0)))
    }

    pub(super) fn mounted_of(&self, group: GroupId) -> Option<String> {
        let volumes = self.volumes.lock();
        let mounted = volumes.iter().find(|(_, entry)| entry.group == group && entry.mounted.strong_count() > 0);
        mounted.map(|(name, _)| name.clone())
    }

    /// Step 2: the group first. Can be done again. A volume of several has its own name behind the fork's, or its number where that
    /// is too long.
    fn give_fork_names(&self, group: &Arc<Group>, fork: &str) -> Result<()> {
        let rename = GroupChange::Rename { id: group.id, name: fork.to_owned() };
        self.pool.publish(Edit { groups: vec![rename], ..Edit::default() })?;
        if let Some(entry) = self.groups.write().get_mut(&group.id) {
            entry.name = fork.to_owned();
        }
        let volumes = group.volumes()?;
        let alone = volumes.len() == 1;
        let is_forks = |name: &str| name.strip_prefix(fork).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        let mut effects = Effects::new();
        let mut renamed = Vec::new();
        for (branch, record) in volumes.into_iter().filter(|(_, record)| !is_forks(&record.name)) {
            let whole = if alone { fork.to_owned() } else { format!("{fork}-{}", record.name) };
            let name = Some(whole).filter(|name| check_name("volume", name).is_ok()).unwrap_or_else(|| format!("{fork}-{branch}"));
            let old = record.name.clone();
            effects.put(&key::volume(branch), &VolumeRecord { name: name.clone(), ..record }.encode());
            renamed.push((old, name));
        }
        if renamed.is_empty() {
            return Ok(());
        }
        let lsn = group.commit(control_draft(GROUP_BRANCH, OpKind::VolumeSet, group.now(), effects))?;
        self.flush_group(group, lsn)?;
        let mut entries = self.volumes.lock();
        for (old, name) in renamed {
            if let Some(entry) = entries.remove(&old) {
                entries.insert(name, entry);
            }
        }
        Ok(())
    }
}
