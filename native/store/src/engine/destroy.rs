//! The end of volumes and groups.
//!
//! Crash order of a volume that leaves others, or clones, behind:
//! 1. an op takes the name from its record: from here on there is no such volume;
//! 2. its records are deleted, some with each op, the volume's own last;
//! 3. of a group without volumes only what clones see is left: its points go, and its name.
//!
//! A group that nobody needs any more goes with one edit that says so; what it held is given back afterwards. A start goes on
//! with whatever was begun ([`Engine::finish_destroyed`]).

use super::{Engine, control_draft};
use crate::error::{Error, Kind, Result};
use crate::group::Group;
use crate::ledger::{Ledger, OpDraft};
use crate::placement::{Edit, GroupChange};
use holdfast_format::inode::VolumeRecord;
use holdfast_format::op::{Effects, OpKind};
use holdfast_format::{BranchId, GroupId, key};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Keys deleted by one op when a volume goes.
const DESTROY_KEYS: usize = 512;

impl Engine {
    /// Removes the volume and everything in it. In a group of its own the group goes as a whole; a damaged group always
    /// does, by its own name or that of its only volume.
    pub fn volume_destroy(&self, name: &str) -> Result<()> {
        self.ensure_open()?;
        if let Some(destroyed) = self.destroy_damaged(name) {
            return destroyed;
        }
        let (group_id, branch) = self.find(name)?;
        if self.volumes.lock().get(name).is_some_and(|entry| entry.mounted.strong_count() > 0) {
            return Err(Error::new(Kind::Conflict, format!("volume {name} is mounted: unmount it first")));
        }
        let group = self.group(group_id)?;
        let others = self.volumes_in(group_id).len() > 1;
        let alone = !others && self.pool.clones_of(group_id).is_empty();
        if !alone {
            self.take_name(&group, branch)?;
        }
        self.volumes.lock().remove(name);
        if alone {
            let is_clone = self.pool.group(group_id).is_some_and(|record| record.base.is_some());
            self.give_up_group(group_id)?;
            // What only it saw of its parent has from now on what the others there have.
            self.unprotected.fetch_or(is_clone, Ordering::AcqRel);
            return Ok(());
        }
        self.delete_branch(&group, branch)?;
        // What is left may ask for fewer copies, and of fewer before a write counts.
        self.unprotected.store(true, Ordering::Release);
        if others { self.adopt_policies(&group, &[]) } else { self.leave_to_clones(&group) }
    }

    /// Of a group that others were cloned from only what they see is left, under a name that nobody else can have. Can be
    /// done again; the name comes last.
    fn leave_to_clones(&self, group: &Arc<Group>) -> Result<()> {
        group.drop_all_points()?;
        // Nothing will be written here any more.
        group.retire_log()?;
        let name = format!("@{}", group.id);
        self.pool.publish(Edit {
            groups: vec![GroupChange::Rename { id: group.id, name: name.clone() }],
            ..Edit::default()
        })?;
        if let Some(entry) = self.groups.write().get_mut(&group.id) {
            entry.name = name;
        }
        self.adopt_policies(group, &[])
    }

    /// Destruction of a volume whose group stays begins: it is gone with this op, whatever is still to be deleted.
    fn take_name(&self, group: &Arc<Group>, branch: BranchId) -> Result<()> {
        let key = key::volume(branch);
        let bytes = group.get(&key)?.ok_or_else(|| Error::corrupt("a volume without a record"))?;
        let mut record = VolumeRecord::decode(&bytes).map_err(|error| Error::decode("a volume record", error))?;
        record.name.clear();
        let mut effects = Effects::new();
        effects.put(&key, &record.encode());
        let draft = control_draft(branch, OpKind::VolumeDestroy, group.now(), effects);
        group.commit(OpDraft { frees: true, ..draft }).map(drop)
    }

    /// Deletes every record of a branch, the volume record, which has no name any more, last: a start after a crash in
    /// between goes on with it.
    fn delete_branch(&self, group: &Arc<Group>, branch: BranchId) -> Result<()> {
        let (from, until) = (key::volume(branch), key::volume(BranchId(branch.0 + 1)));
        let volume_key = key::volume(branch);
        loop {
            let mut effects = Effects::new();
            let mut count = 0;
            group.scan_own(&from, &until, &mut |key, _| {
                if key != volume_key {
                    effects.delete(key);
                    count += 1;
                }
                count < DESTROY_KEYS
            })?;
            let last = count == 0;
            if last {
                effects.delete(&volume_key);
            }
            let draft = control_draft(branch, OpKind::VolumeDestroy, group.now(), effects);
            let lsn = group.commit(OpDraft { frees: true, ..draft })?;
            if last {
                return self.flush_group(group, lsn);
            }
        }
    }

    /// What a clone took over for its points of volumes that were destroyed in it before: the present has no such volumes.
    pub(super) fn delete_leftovers(&self, group: &Arc<Group>) -> Result<()> {
        group.leftovers()?.into_iter().try_for_each(|branch| self.delete_branch(group, branch))
    }

    /// Removes a group that has no volume (any more).
    pub(super) fn give_up_group(&self, id: GroupId) -> Result<()> {
        self.pool.publish(Edit { groups: vec![GroupChange::Destroy { id }], ..Edit::default() })?;
        self.dissolve(id)
    }

    /// Groups whose destruction a crash has interrupted, and those whose creation it has: they have no volume.
    pub(super) fn finish_destroyed(&self) -> Result<()> {
        let used: Vec<GroupId> = self.volumes.lock().values().map(|entry| entry.group).collect();
        for record in self.pool.groups() {
            if record.destroyed {
                self.dissolve(record.id)?;
                continue;
            }
            let group = self.group(record.id).ok();
            for branch in group.as_ref().map_or_else(|| Ok(Vec::new()), |group| group.volumes_to_delete())? {
                group.iter().try_for_each(|group| self.delete_branch(group, branch))?;
            }
            group.iter().filter(|group| group.base().is_some()).try_for_each(|group| self.delete_leftovers(group))?;
            if used.contains(&record.id) {
                continue;
            }
            if self.pool.clones_of(record.id).is_empty() {
                self.give_up_group(record.id)?;
            } else if let Some(group) = group.filter(|_| !record.name.starts_with('@')) {
                self.leave_to_clones(&group)?;
            }
        }
        Ok(())
    }

    /// Gives back every table and page of a destroyed group, then forgets it.
    pub(super) fn dissolve(&self, id: GroupId) -> Result<()> {
        // What it lies on changes with no step of a promotion any more.
        let turn = self.flattening.pause();
        let entry = self.groups.write().remove(&id);
        if let Some(entry) = entry {
            entry.group.shut();
            entry.group.dissolve()?;
        }
        self.dissolve_damaged(id)?;
        let base = self.pool.group(id).and_then(|record| record.base);
        self.pool.publish(Edit { groups: vec![GroupChange::Remove { id }], ..Edit::default() })?;
        self.flattening.forget(id);
        drop(turn);
        self.forget_damaged(id);
        self.let_go_of_base(base)
    }
}
