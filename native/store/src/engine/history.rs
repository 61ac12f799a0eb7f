//! Snapshots, earlier states and clones, as the administrator names them.
//!
//! A snapshot belongs to a group: it is one cut through all its volumes. A volume's name stands for its group where it is
//! alone in it.

use super::{Engine, VolumeEntry, check_name, control_draft};
use crate::error::{Error, Kind, Result};
use crate::group::{Group, PastLedger, Pin, PointInfo, Span, When};
use crate::ledger::Ledger;
use crate::past::{DifferencePage, Timeline, Zone, check_span, difference, parse_when, point_name};
use crate::placement::stronger;
use crate::volume::{Volume, VolumeOptions};
use holdfast_format::inode::VolumeRecord;
use holdfast_format::op::{Effects, OpKind};
use holdfast_format::{BranchId, GROUP_BRANCH, GroupId, Ino, Lsn, Protection, key};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::options::VolumeInfo;

/// A snapshot, or another kept point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotInfo {
    /// Empty: a kept second.
    pub name: String,
    pub group: String,
    pub lsn: u64,
    pub wall_s: i64,
    pub wall_ns: u32,
    pub held: bool,
}

/// What changed between two points.
pub struct Difference {
    pub from: SnapshotInfo,
    pub to: SnapshotInfo,
    pub page: DifferencePage,
}

impl Engine {
    /// The group that a name stands for.
    ///
    /// # Errors
    /// `NotFound`; `Conflict`: a volume that shares its group.
    pub(super) fn group_of(&self, name: &str) -> Result<Arc<Group>> {
        self.ensure_open()?;
        let of_volume = self.volumes.lock().get(name).map(|entry| entry.group);
        let named = self.groups.read().iter().find(|(_, entry)| entry.name == name).map(|(id, _)| *id);
        let Some(id) = named.or(of_volume) else {
            let message = format!("no volume or group {name} in pool {}", self.pool.name());
            return Err(Error::new(Kind::NotFound, message));
        };
        if named.is_none() && self.volumes_in(id).len() > 1 {
            let group = self.group_name(id);
            return Err(Error::new(
                Kind::Conflict,
                format!("volume {name} shares group {group} with others: name the group, it has one cut for all of them"),
            ));
        }
        self.group(id)
    }

    pub(super) fn volumes_in(&self, group: GroupId) -> Vec<String> {
        let volumes = self.volumes.lock();
        volumes.iter().filter(|(_, entry)| entry.group == group).map(|(name, _)| name.clone()).collect()
    }

    fn told(&self, group: &Group, point: PointInfo) -> SnapshotInfo {
        SnapshotInfo {
            name: point.name,
            group: self.group_name(group.id),
            lsn: point.lsn.0,
            wall_s: point.wall.sec,
            wall_ns: point.wall.nsec,
            held: point.held,
        }
    }

    /// Keeps the state of now, or of a second that is still kept, under a name, durably.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` (the name), `Conflict` (the name is in use).
    pub fn snapshot_create(&self, target: &str, name: &str, at: Option<&str>) -> Result<SnapshotInfo> {
        check_name("snapshot", name)?;
        let group = self.group_of(target)?;
        let (point, changed) = match at {
            None => {
                let point = group.snapshot_create(name)?;
                let lsn = point.lsn;
                (point, lsn)
            }
            Some(words) => {
                let kept = self.point_in(&group, words)?;
                let changed = group.snapshot_name(kept.lsn, name)?;
                (group.snapshot(name)?, changed)
            }
        };
        self.flush_group(&group, changed)?;
        Ok(self.told(&group, point))
    }

    /// Snapshots after an LSN, oldest first.
    pub fn snapshots(&self, target: &str, after: u64, limit: usize) -> Result<Vec<SnapshotInfo>> {
        let group = self.group_of(target)?;
        Ok(group.snapshots(Lsn(after), limit).into_iter().map(|point| self.told(&group, point)).collect())
    }

    /// The same with the seconds that are kept.
    pub fn kept_points(&self, target: &str, after: u64, limit: usize) -> Result<Vec<SnapshotInfo>> {
        let group = self.group_of(target)?;
        Ok(group.points_after(Lsn(after), limit).into_iter().map(|point| self.told(&group, point)).collect())
    }

    /// # Errors
    /// `NotFound`; `Conflict`: it is held.
    pub fn snapshot_delete(&self, target: &str, name: &str) -> Result<()> {
        let group = self.group_of(target)?;
        let lsn = group.snapshot_delete(name)?;
        self.flush_group(&group, lsn)
    }

    pub fn snapshot_rename(&self, target: &str, name: &str, new_name: &str) -> Result<()> {
        check_name("snapshot", new_name)?;
        let group = self.group_of(target)?;
        let lsn = group.snapshot_rename(name, new_name)?;
        self.flush_group(&group, lsn)
    }

    pub fn snapshot_hold(&self, target: &str, name: &str, held: bool) -> Result<()> {
        let group = self.group_of(target)?;
        let lsn = group.snapshot_hold(name, held)?;
        self.flush_group(&group, lsn)
    }

    /// The kept point that words mean: a snapshot's name, or a moment.
    ///
    /// # Errors
    /// `NotFound`: nothing of then is kept, with what is; `Invalid`: not understood, or in the future.
    pub fn point(&self, target: &str, words: &str) -> Result<SnapshotInfo> {
        let group = self.group_of(target)?;
        let point = self.point_in(&group, words)?;
        Ok(self.told(&group, point))
    }

    pub(super) fn point_in(&self, group: &Group, words: &str) -> Result<PointInfo> {
        if let Some(point) = group.point(&When::Name(words.to_owned())) {
            return Ok(point);
        }
        let when = parse_when(words, group.now(), &Zone::system())?;
        if let When::Lsn(lsn) = &when
            && *lsn > Group::newest(group)
        {
            let newest = Group::newest(group);
            return Err(Error::invalid(format!("LSN {lsn} is in the future: the newest operation is {newest}")));
        }
        group.point(&when).ok_or_else(|| {
            let kept = match group.kept_window() {
                Some((first, last)) => {
                    format!("kept are states from {} to {}", point_name(first.wall), point_name(last.wall))
                }
                None => "no earlier state is kept".to_owned(),
            };
            Error::new(Kind::NotFound, format!("nothing is kept of {words} in group {}: {kept}", self.group_name(group.id)))
        })
    }

    /// What changed in a volume between two moments, of inodes from `first` on: about `limit` changes.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`: a moment is not kept, or the later one is named first.
    pub fn difference(&self, name: &str, from: &str, to: Option<&str>, first: u64, limit: usize) -> Result<Difference> {
        self.ensure_open()?;
        let (id, branch) = self.find(name)?;
        let group = self.group(id)?;
        let earlier = self.point_in(&group, from)?;
        let later = match to {
            Some(words) => self.point_in(&group, words)?,
            None => group.point_now()?,
        };
        // A merge of the meantime must not forget what is compared here.
        let (_from, _to) = (self.pin(&group, &earlier)?, self.pin(&group, &later)?);
        let span = Span { from: earlier.lsn, to: later.lsn, is_whole: false };
        let page = if span.from == span.to {
            DifferencePage { changes: Vec::new(), next: None }
        } else {
            check_span(span)?;
            difference(&group, branch, span, Ino(first), limit)?
        };
        Ok(Difference { from: self.told(&group, earlier), to: self.told(&group, later), page })
    }

    /// A volume with its past, to be mounted. `Conflict` while it is handed out already.
    pub fn timeline(&self, name: &str, options: VolumeOptions) -> Result<Arc<Timeline>> {
        let volume = self.volume(name, options)?;
        let (group, _) = self.find(name)?;
        Ok(Timeline::new(volume, self.group(group)?, Zone::system()))
    }

    /// A volume as it was, to be read. The point stays kept as long as somebody has it.
    pub fn volume_at(&self, name: &str, words: &str) -> Result<(Arc<Volume>, SnapshotInfo)> {
        self.ensure_open()?;
        let (id, branch) = self.find(name)?;
        let group = self.group(id)?;
        let point = self.point_in(&group, words)?;
        let pin = self.pin(&group, &point)?;
        let volume = Volume::open_past(Arc::new(PastLedger::pinned(pin)), branch).map_err(|error| match error.kind {
            Kind::NotFound => {
                let then = point_name(point.wall);
                Error::new(Kind::NotFound, format!("volume {name} did not exist at {then}"))
            }
            _ => error,
        })?;
        Ok((volume, self.told(&group, point)))
    }

    /// The same, to be mounted.
    pub fn timeline_at(&self, name: &str, words: &str) -> Result<Arc<Timeline>> {
        let (then, _) = self.volume_at(name, words)?;
        let (group, _) = self.find(name)?;
        Ok(Timeline::of_past(then, self.group(group)?, Zone::system()))
    }

    fn pin(&self, group: &Arc<Group>, point: &PointInfo) -> Result<Pin> {
        let gone = || Error::new(Kind::NotFound, format!("the state of {} is not kept any more", point_name(point.wall)));
        group.pin(point.lsn).ok_or_else(gone)
    }

    /// A writable copy of a volume, or of all volumes of a group, as they are or were. Costs what is written to it.
    ///
    /// 1. The point is kept, and everything up to it lies on the drives: a clone never looks into its parent's ring.
    /// 2. The manifest gets the new group and what it is based on, in one edit; from here on the parent keeps the point.
    /// 3. The volumes get records of their own in the new group's log. Without one the next start gives the group up.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `Conflict` (a name is in use).
    pub fn clone_create(self: &Arc<Self>, source: &str, name: &str, at: Option<&str>) -> Result<Vec<VolumeInfo>> {
        self.ensure_open()?;
        check_name("volume", name)?;
        let (group, only) = match self.find(source) {
            Ok((id, branch)) => (self.group(id)?, Some(branch)),
            Err(_) => (self.group_of(source)?, None),
        };
        let point = match at {
            Some(words) => self.point_in(&group, words)?,
            None => group.point_now()?,
        };
        let pin = self.pin(&group, &point)?;
        self.flush_group(&group, point.lsn)?;
        let mut sources = group.volumes_at(point.lsn)?;
        sources.retain(|(branch, _)| only.is_none_or(|only| only == *branch));
        if sources.is_empty() {
            let then = point_name(point.wall);
            return Err(Error::new(Kind::NotFound, format!("{source} did not exist at {then}")));
        }
        let alone = sources.len() == 1;
        for (_, record) in &mut sources {
            record.name = if alone { name.to_owned() } else { format!("{name}-{}", record.name) };
            check_name("volume", &record.name)?;
            record.created = group.now();
            if self.volumes.lock().contains_key(&record.name) {
                return Err(Error::new(Kind::Conflict, format!("volume {} exists", record.name)));
            }
        }
        let before = self.wishes_of(&group)?;
        let id = self.create_group(name, Some((group.id, point.lsn)))?;
        drop(pin);
        let made = self.group(id).and_then(|clone| self.adopt_volumes(&group, &clone, point.lsn, &sources));
        if let Err(error) = made {
            self.give_up_group(id)?;
            return Err(error);
        }
        let asks_more = |(branch, record): &(BranchId, VolumeRecord)| {
            let wanted = Protection { rf: record.rf, domain: record.policy.domain };
            before.of(*branch, point.lsn).is_none_or(|given| stronger(given, wanted) != given)
        };
        if sources.iter().any(asks_more) {
            // The volume promised more when the point was kept than it does now, or is no more.
            self.unprotected.store(true, Ordering::Release);
            self.healer.ring();
        }
        sources.iter().map(|(_, record)| self.info(&record.name)).collect()
    }

    /// Step 3.
    fn adopt_volumes(
        &self,
        parent: &Arc<Group>,
        clone: &Arc<Group>,
        at: Lsn,
        volumes: &[(BranchId, VolumeRecord)],
    ) -> Result<()> {
        let promised: Vec<_> = volumes.iter().map(|(branch, record)| (*branch, record.rf, record.policy)).collect();
        self.prepare_promise(clone, &promised)?;
        // One op: all of the volumes, or none. Branches are counted on from the parent's: its own are inherited.
        let mut effects = Effects::new();
        let counter_key = key::volume(GROUP_BRANCH);
        if let Some(counter) = parent.get_at(&counter_key, at)? {
            effects.put(&counter_key, &counter);
        }
        for (branch, record) in volumes {
            effects.put(&key::volume(*branch), &record.encode());
        }
        let lsn = clone.commit(control_draft(GROUP_BRANCH, OpKind::VolumeCreate, clone.now(), effects))?;
        self.flush_group(clone, lsn)?;
        let mut entries = self.volumes.lock();
        for (branch, record) in volumes {
            let entry = VolumeEntry { group: clone.id, branch: *branch, mounted: Weak::new() };
            entries.insert(record.name.clone(), entry);
        }
        drop(entries);
        self.adopt_policies(clone, &[])
    }

    /// A group without volumes, that others were cloned from, goes when the last of them has gone.
    pub(super) fn let_go_of_base(&self, base: Option<(GroupId, Lsn)>) -> Result<()> {
        let Some((id, lsn)) = base else { return Ok(()) };
        let Ok(group) = self.group(id) else { return Ok(()) };
        group.unpin(lsn);
        if self.volumes_in(id).is_empty() && self.pool.clones_of(id).is_empty() {
            return self.give_up_group(id);
        }
        Ok(())
    }
}
