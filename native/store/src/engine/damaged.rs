//! Groups that could not be opened: a log or a table that is bad on every copy, or whose copies are away. Only their
//! volumes are refused, with the reason; the others are served (FAULTS.md 2, 11).
//!
//! Invariants:
//! - Nothing of a damaged group is changed: its ring, its log and its tables stay for the start that can read them.
//! - Only its log knows which pages it holds beyond what tables name. So, while a group is damaged, nothing that lay in
//!   the pool when it was opened is freed or moved by cleaning (`Pool::replay_done_in_part`).
//! - A pool that cannot be written is no damage of a group: then nothing is opened.

use super::{Engine, VolumeEntry};
use super::options::VolumeInfo;
use crate::error::{Error, Kind, Result};
use crate::group::Group;
use crate::metadata::io::TreeEdit;
use crate::placement::{Edit, GroupRecord};
use holdfast_format::inode::{Time, VolumeRecord};
use holdfast_format::{BranchId, GroupId};
use std::sync::{Arc, Weak};

pub(super) struct Damaged {
    record: GroupRecord,
    /// As far as the tables tell; else one that is called like the group.
    volumes: Vec<VolumeRecord>,
    error: Error,
}

impl Damaged {
    fn names(&self) -> String {
        self.volumes.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// What a caller gets who asks for one of its volumes.
    fn refusal(&self) -> Error {
        let name = &self.record.name;
        Error::new(self.error.kind, format!("group {name} is damaged, its volumes cannot be used: {}", self.error))
    }

    fn warning(&self) -> String {
        let (name, volumes) = (&self.record.name, self.names());
        format!(
            "group {name} is damaged, volumes {volumes} cannot be used: {}. Meanwhile nothing that lay in the pool is given \
             back. Attach what is missing and open the pool again, or give it up: volume destroy {name}",
            self.error
        )
    }
}

impl Engine {
    /// Opens what can be opened of a group at start; damage is noted, everything else is an error.
    pub(super) fn open_or_leave(self: &Arc<Self>, record: &GroupRecord) -> Result<()> {
        let Err(error) = self.open_group(record, false) else { return Ok(()) };
        let damage = matches!(error.kind, Kind::Corrupt | Kind::Unavailable);
        if !damage || self.pool.check_writable().is_err() {
            return Err(error);
        }
        let mut volumes = Vec::new();
        if !record.destroyed {
            let told = Group::volumes_in_tables(&self.pool, record, &self.cache).unwrap_or_default();
            volumes.extend(told.into_iter().map(|(_, volume)| volume));
            if volumes.is_empty() {
                let rf = record.segments.iter().map(|segment| segment.rf).max().unwrap_or(1);
                let name = record.name.clone();
                let created = Time { sec: 0, nsec: 0 };
                volumes.push(VolumeRecord {
                    next_ino: 0,
                    rf,
                    ack: 0,
                    policy: Default::default(),
                    past: Default::default(),
                    quota_bytes: 0,
                    created,
                    name,
                });
            }
        }
        let mut entries = self.volumes.lock();
        for volume in &volumes {
            let entry = VolumeEntry { group: record.id, branch: BranchId(0), mounted: Weak::new() };
            entries.entry(volume.name.clone()).or_insert(entry);
        }
        drop(entries);
        self.damaged.lock().insert(record.id, Damaged { record: record.clone(), volumes, error });
        Ok(())
    }

    /// Why a group that the manifest knows is not among the open ones.
    pub(super) fn refusal(&self, id: GroupId) -> Option<Error> {
        self.damaged.lock().get(&id).map(Damaged::refusal)
    }

    pub(super) fn damage_warnings(&self) -> Vec<String> {
        self.damaged.lock().values().filter(|damaged| !damaged.record.destroyed).map(Damaged::warning).collect()
    }

    /// Highest RF that volumes of damaged groups ask for.
    pub(super) fn damaged_rf(&self) -> u8 {
        let damaged = self.damaged.lock();
        damaged.values().flat_map(|damaged| &damaged.volumes).map(|volume| volume.rf).max().unwrap_or(1)
    }

    /// What is known of a volume that cannot be used.
    pub(super) fn damaged_info(&self, id: GroupId, name: &str) -> Option<VolumeInfo> {
        let damaged = self.damaged.lock();
        let found = damaged.get(&id)?;
        let volume = found.volumes.iter().find(|volume| volume.name == name)?;
        Some(VolumeInfo {
            name: volume.name.clone(),
            group: found.record.name.clone(),
            branch: 0,
            rf: volume.rf,
            copies_min: volume.policy.copies_min(volume.rf),
            fail_below: volume.policy.fail_below,
            domain: volume.policy.domain,
            trouble: String::new(),
            ack_write: volume.ack == 1,
            quota_bytes: volume.quota_bytes,
            past: volume.past,
            base: None,
            promotion: None,
            created_s: volume.created.sec,
            newest_lsn: found.record.drained_lsn.0,
            durable_lsn: found.record.drained_lsn.0,
            drained_lsn: found.record.drained_lsn.0,
            retention: Default::default(),
            usage: Default::default(),
            space: Default::default(),
            problem: found.refusal().message,
        })
    }

    /// A name that no volume has may belong to one that only a damaged group knows.
    pub(super) fn suspects(&self) -> String {
        let damaged = self.damaged.lock();
        let names: Vec<&str> = damaged.values().map(|damaged| damaged.record.name.as_str()).collect();
        if names.is_empty() { String::new() } else { format!("; damaged groups may hold it: {}", names.join(", ")) }
    }

    /// Gives a damaged group up with everything in it. `name`: of the group, or of its only volume. `None`: no damaged
    /// group is meant.
    pub(super) fn destroy_damaged(&self, name: &str) -> Option<Result<()>> {
        let (id, group, volumes) = {
            let damaged = self.damaged.lock();
            let meant = |damaged: &&Damaged| {
                damaged.record.name == name || damaged.volumes.iter().any(|volume| volume.name == name)
            };
            let found = damaged.values().find(meant)?;
            (found.record.id, found.record.name.clone(), found.volumes.clone())
        };
        let clones: Vec<String> = self.pool.clones_of(id).into_iter().map(|clone| clone.name).collect();
        if !clones.is_empty() {
            let message = format!("{} are clones of group {group} and need what it has: destroy them first", clones.join(", "));
            return Some(Err(Error::new(Kind::Conflict, message)));
        }
        if volumes.len() > 1 && group != name {
            let names: Vec<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
            return Some(Err(Error::new(
                Kind::Conflict,
                format!(
                    "volume {name} is in damaged group {group}, which can only be given up as a whole ({}): volume destroy \
                     {group}",
                    names.join(", ")
                ),
            )));
        }
        self.volumes.lock().retain(|_, entry| entry.group != id);
        Some(self.give_up_group(id))
    }

    /// Removes the tables of a damaged group. What a table names that no copy tells any more stays in use: nobody knows
    /// what that is.
    pub(super) fn dissolve_damaged(&self, id: GroupId) -> Result<()> {
        if !self.damaged.lock().contains_key(&id) {
            return Ok(());
        }
        let tree = Group::tables_of(&self.pool, id, &self.cache)?;
        loop {
            let edit = match tree.dissolve_step() {
                Ok(edit) => edit,
                Err(error) if matches!(error.kind, Kind::Corrupt | Kind::Unavailable) => {
                    let Some(table) = tree.tables().into_iter().next() else { break };
                    let mib = table.payload_bytes >> 20;
                    self.pool.warn(format!("up to {mib} MiB of a destroyed group stay in use: {error}"));
                    TreeEdit { removed: vec![table.id], ..TreeEdit::default() }
                }
                Err(error) => return Err(error),
            };
            if edit.is_empty() {
                break;
            }
            self.pool.publish(Edit { tables: vec![(id, edit.clone())], ..Edit::default() })?;
            tree.apply(&edit);
        }
        Ok(())
    }

    /// The group is gone: the last damaged one takes the ban on giving space back along.
    pub(super) fn forget_damaged(&self, id: GroupId) {
        let mut damaged = self.damaged.lock();
        if damaged.remove(&id).is_some() && damaged.is_empty() {
            self.pool.replay_done();
        }
    }
}
