//! What volumes promise (copies, domains, what happens with fewer), changed while they are in use.

use super::Engine;
use crate::error::{Error, Kind, Result};
use crate::group::Group;
use crate::placement::stronger;
use holdfast_format::inode::{PastAccess, VolumeRecord, WritePolicy};
use holdfast_format::{BranchId, DomainLevel, Lsn, Protection};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What to change of a volume; `None`: nothing.
#[derive(Clone, Copy, Default, Debug)]
pub struct VolumeChange {
    pub rf: Option<u8>,
    /// Copies that a write needs; 0: RF - 1, at least 1.
    pub min_copies: Option<u8>,
    pub fail_below: Option<bool>,
    pub domain: Option<DomainLevel>,
    /// 0: no quota.
    pub quota_bytes: Option<u64>,
    pub past: Option<PastAccess>,
}

impl VolumeChange {
    fn apply(&self, record: &mut VolumeRecord) {
        record.rf = self.rf.unwrap_or(record.rf);
        record.quota_bytes = self.quota_bytes.unwrap_or(record.quota_bytes);
        record.past = self.past.unwrap_or(record.past);
        let policy = &mut record.policy;
        policy.min_copies = self.min_copies.unwrap_or(policy.min_copies);
        policy.fail_below = self.fail_below.unwrap_or(policy.fail_below);
        policy.domain = self.domain.unwrap_or(policy.domain);
    }
}

fn check_copies(rf: u8, policy: WritePolicy) -> Result<()> {
    if !(1..=3).contains(&rf) {
        return Err(Error::invalid(format!("RF {rf}: choose 1, 2 or 3")));
    }
    if policy.min_copies > rf {
        return Err(Error::invalid(format!(
            "a write cannot need {} copies of {rf}: choose 1 to {rf}, or raise the RF",
            policy.min_copies
        )));
    }
    Ok(())
}

impl Engine {
    /// Refuses what the pool's drives cannot keep, with what would make it possible.
    pub(super) fn check_promise(&self, rf: u8, policy: WritePolicy) -> Result<()> {
        check_copies(rf, policy)?;
        let (name, level) = (self.pool.name(), policy.domain.name());
        let drives = self.pool.drives_accepting();
        if drives < rf as usize {
            return Err(Error::invalid(format!(
                "RF {rf} needs {rf} drives, pool {name} has {drives}: add drives or choose a lower RF"
            )));
        }
        let domains = self.pool.domains(policy.domain);
        if domains < rf as usize {
            return Err(Error::invalid(format!(
                "RF {rf} with copies in different {level}s needs {rf} of them, the drives of pool {name} are in {domains}: \
                 label the drives (pool label), add one in another {level}, or choose a lower RF or a narrower domain"
            )));
        }
        Ok(())
    }

    /// Changes a volume, mounted or not. What lies on the drives follows in the background.
    ///
    /// Errors: `NotFound`; `Invalid` when the pool cannot keep the new promise.
    pub fn volume_set(&self, name: &str, change: &VolumeChange) -> Result<()> {
        self.ensure_open()?;
        let (group, branch, before) = self.record(name)?;
        let mut record = before.clone();
        change.apply(&mut record);
        let more = record.rf > before.rf || record.policy.domain > before.policy.domain;
        if more {
            self.check_promise(record.rf, record.policy)?;
        }
        check_copies(record.rf, record.policy)?;
        // First in memory: a log that waits for more copies could not take the record that says how many are enough. Its
        // headers never get fewer copies than a volume's payload.
        let rf = record.rf.max(before.rf);
        let changed = self
            .prepare_promise(&group, &[(branch, rf, record.policy)])
            .and_then(|()| self.change_record(name, |record| change.apply(record)));
        self.adopt_policies(&group, &[])?;
        changed?;
        if (record.rf, record.policy.domain) != (before.rf, before.policy.domain) {
            self.unprotected.store(true, Ordering::Release);
            self.walk_again_ns.store(0, Ordering::Release);
            self.healer.ring();
        }
        Ok(())
    }

    pub fn volume_set_quota(&self, name: &str, quota_bytes: u64) -> Result<()> {
        self.volume_set(name, &VolumeChange { quota_bytes: Some(quota_bytes), ..VolumeChange::default() })
    }

    /// Makes the group keep what one of its volumes is about to promise, before anybody is told of it.
    ///
    /// A log is replayed from its first frame that is not drained: one volume's newest frame is worth no more than the weakest
    /// frame before it. So where the headers' RF or domain rises, what was logged with less is drained first.
    pub(super) fn prepare_promise(
        &self,
        group: &Arc<Group>,
        promised: &[(BranchId, u8, WritePolicy)],
    ) -> Result<()> {
        let asked = || (group.log().header_rf(), self.pool.domain_of_group(group.id));
        let before = asked();
        self.adopt_policies(group, promised)?;
        let now = asked();
        if now.0 <= before.0 && now.1 <= before.1 || group.newest() == Lsn(0) {
            return Ok(());
        }
        group.flush_now()?;
        // No class is given up, but every segment that was begun ends.
        group.log().leave_classes(&[1, 2, 3])?;
        group.relocate_log()
    }

    /// The group follows what its volumes and their clones ask for, and so do those that it is a clone of; `instead`: what
    /// some of its volumes are about to ask for.
    pub(super) fn adopt_policies(
        &self,
        group: &Arc<Group>,
        instead: &[(BranchId, u8, WritePolicy)],
    ) -> Result<()> {
        let mut asked: Vec<(BranchId, u8, WritePolicy)> =
            group.volumes()?.into_iter().map(|(branch, record)| (branch, record.rf, record.policy)).collect();
        asked.retain(|(branch, _, _)| instead.iter().all(|other| *branch != other.0));
        asked.extend(instead);
        let of_clones = self.protections_of(group)?.into_values();
        let own = asked.iter().map(|(_, rf, policy)| Protection { rf: *rf, domain: policy.domain });
        let most = own.chain(of_clones).reduce(stronger).unwrap_or(Protection { rf: 1, domain: DomainLevel::default() });
        group.raise_rf(most.rf);
        self.pool.raise_rf_max(most.rf);
        self.pool.set_domain_of_group(group.id, most.domain);
        let min = |(_, rf, policy): &(BranchId, u8, WritePolicy)| policy.copies_min(*rf);
        let copies_min = asked.iter().map(min).max().unwrap_or(1);
        let fail_below = asked.iter().any(|one| min(one) == copies_min && one.2.fail_below);
        group.set_copies_min(copies_min, fail_below);
        let base = self.pool.group(group.id).and_then(|record| record.base);
        let base = base.and_then(|(id, _)| self.group(id).ok());
        base.map_or(Ok(()), |base| self.adopt_policies(&base, &[]))
    }

    /// What the pool's volumes promise.
    pub(super) fn promises(&self) -> Result<Vec<Protection>> {
        let mut promises = vec![Protection::from(self.damaged_rf())];
        for group in self.groups() {
            let of = |(_, record): (BranchId, VolumeRecord)| Protection { rf: record.rf, domain: record.policy.domain };
            promises.extend(group.volumes()?.into_iter().map(of));
        }
        Ok(promises)
    }

    /// What of a volume's promise cannot be kept now, and what would help.
    pub(super) fn trouble_of(&self, group: &Group, record: &VolumeRecord) -> String {
        let (rf, policy) = (record.rf as usize, record.policy);
        let (drives, domains) = (self.pool.drives_accepting(), self.pool.domains(policy.domain));
        if let Some(error) = group.blocked() {
            return format!("{}: {error}", if policy.fail_below { "writes fail" } else { "writes wait" });
        }
        if drives < rf {
            return format!("new data gets {drives} of {rf} copies: add a drive, or lower the RF");
        }
        if domains < rf {
            let level = policy.domain.name();
            return format!(
                "copies share a {level}: there are {domains} for {rf} copies; add a drive in another {level}, or label drives"
            );
        }
        String::new()
    }

    /// Gives a drive (path or uuid) another label.
    ///
    /// Errors: `NotFound`, `Invalid` (no label), `Conflict` when a volume's promise could not be kept any more.
    pub fn label_drive(&self, drive: &str, label: &str) -> Result<()> {
        self.ensure_open()?;
        let index = self.pool.find_drive(drive)?;
        self.pool.label_drive(index, label, &self.promises()?)?;
        self.healer.ring();
        Ok(())
    }

    /// Sentences about volumes whose promises cannot be kept.
    pub(super) fn volume_warnings(&self) -> Vec<String> {
        let names: Vec<String> = self.volumes.lock().keys().cloned().collect();
        let trouble = |name: &String| match self.record(name) {
            Ok((group, _, record)) => {
                let trouble = self.trouble_of(&group, &record);
                (!trouble.is_empty()).then(|| format!("volume {name}: {trouble}"))
            }
            Err(error) if error.kind == Kind::NotFound => None,
            Err(error) => Some(format!("volume {name}: {error}")),
        };
        names.iter().filter_map(trouble).collect()
    }
}
