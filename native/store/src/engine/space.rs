//! What snapshots hold, for the administrator.

use super::Engine;
use crate::api::FileSystem as _;
use crate::ledger::Ledger as _;
use crate::placement::PoolSpace;
use holdfast_format::inode::VolumeRecord;
use crate::error::{Error, Kind, Result};
use crate::group::{Group, PointSpace, WouldFree};
use holdfast_format::Lsn;
use std::sync::Arc;

/// What `df` says of a volume: bytes of content, once.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct VolumeSpace {
    pub total: u64,
    pub free: u64,
    pub available: u64,
}

/// Whose a pool's bytes are, on drives, all copies. With log, metadata and free room they are the whole.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PoolUsage {
    /// What the present of volumes that are no clones stores.
    pub live: u64,
    /// What the present of clones stores beside what they have of their parents.
    pub clones: u64,
    /// What only kept seconds hold.
    pub history: u64,
    /// What snapshots hold, and clones of their parents' past.
    pub snapshots: u64,
    /// What cleaning will give back: dead pages, footers, gaps.
    pub dead: u64,
}

impl Engine {
    /// The same numbers as statfs of a mount; a quota that nobody has counted yet, as long as the volume is not mounted, is
    /// taken for unused.
    pub(super) fn volume_space(&self, name: &str, group: &Group, record: &VolumeRecord) -> Result<VolumeSpace> {
        let mounted = self.volumes.lock().get(name).and_then(|entry| entry.mounted.upgrade());
        if let Some(told) = mounted.and_then(|volume| volume.statfs().ok()) {
            let unit = u64::from(told.block_bytes);
            return Ok(VolumeSpace { total: told.blocks * unit, free: told.blocks_free * unit, available: told.blocks_available * unit });
        }
        let space = group.space(record.rf)?;
        let most = if record.quota_bytes == 0 { u64::MAX } else { record.quota_bytes };
        Ok(VolumeSpace { total: space.total.min(most), free: space.free.min(most), available: space.available.min(most) })
    }

    pub(super) fn usage(&self, space: &PoolSpace) -> PoolUsage {
        let mut usage = PoolUsage::default();
        for group in self.groups() {
            let of = group.usage();
            let is_clone = self.pool.group(group.id).is_some_and(|record| record.base.is_some());
            *if is_clone { &mut usage.clones } else { &mut usage.live } += of.live;
            usage.history += of.history;
            usage.snapshots += of.snapshots;
        }
        usage.dead = space.data.saturating_sub(usage.live + usage.clones + usage.history + usage.snapshots);
        usage
    }

    /// Refuses an account that would read more of the tables than somebody wants to wait for.
    fn check_account(group: &Group, table_bytes_max: u64) -> Result<()> {
        let bytes = group.account_bytes();
        if bytes <= table_bytes_max {
            return Ok(());
        }
        let message = format!("telling what snapshots hold would read up to {} MiB of tables", bytes >> 20);
        Err(Error::new(Kind::Unavailable, message))
    }

    /// What snapshots hold, by LSN: those after one, oldest first. Reads up to `table_bytes_max` bytes of tables where nothing is known
    /// since the last change.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`: as for snapshots; `Unavailable`: it would read more.
    pub fn snapshot_space(
        &self,
        target: &str,
        (after, limit): (u64, usize),
        table_bytes_max: u64,
    ) -> Result<Vec<(u64, PointSpace)>> {
        let group = self.group_of(target)?;
        Self::check_account(&group, table_bytes_max)?;
        let spaces = group.space_of_lasting()?;
        let of = |lsn: Lsn| (lsn.0, spaces.get(&lsn).copied().unwrap_or_default());
        Ok(group.snapshots(Lsn(after), limit).into_iter().map(|point| of(point.lsn)).collect())
    }

    /// What would be free if these snapshots were deleted, all of them; nothing is.
    ///
    /// # Errors
    /// As for deleting them; `Unavailable`: it would read more than `table_bytes_max` bytes of tables.
    pub fn would_free(&self, target: &str, names: &[String], table_bytes_max: u64) -> Result<WouldFree> {
        let group = self.group_of(target)?;
        Self::check_account(&group, table_bytes_max)?;
        let mut going = Vec::with_capacity(names.len());
        for name in names {
            let point = group.snapshot(name)?;
            if point.held {
                return Err(Error::new(Kind::Conflict, format!("snapshot {name} is held: release it first")));
            }
            going.push(point.lsn);
        }
        group.would_free(&going)
    }

    /// What destroying a clone would give back beside its own: what its parent keeps for it alone.
    pub fn clone_pin_space(&self, name: &str, table_bytes_max: u64) -> Result<PointSpace> {
        let (id, _) = self.find(name)?;
        let Some((parent, lsn)) = self.pool.group(id).and_then(|record| record.base) else {
            return Err(Error::invalid(format!("volume {name} is no clone")));
        };
        let parent: Arc<Group> = self.group(parent)?;
        Self::check_account(&parent, table_bytes_max)?;
        Ok(parent.space_of_lasting()?.get(&lsn).copied().unwrap_or_default())
    }
}
