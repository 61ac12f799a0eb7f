//! A former owner that did nothing its successor does not have follows as it is.

use super::Engine;
use super::replica::Leader;
use crate::error::{Error, Kind, Result};
use crate::replica::revert;
use holdfast_format::Lsn;
use holdfast_format::replica::{Origin, ReplicaRecord, Role};

impl Engine {
    /// A group that is fenced ([`Self::replica_fence`]) follows its successor in place: everything that it keeps of the past stays, and
    /// there is no fork. That users did nothing after `at` is for the caller to know; whatever else has changed since, access times
    /// say, is put back. Done before, it does nothing.
    ///
    /// # Errors
    /// `Conflict`: a volume is mounted, or the group is not fenced for this successor at this point.
    pub fn replica_turn(&self, target: &str, at: u64, of: &Leader) -> Result<()> {
        self.ensure_open()?;
        let group = self.group_of(target)?;
        let known = group.replica();
        if known.as_ref().is_some_and(|known| (known.role, known.source) == (Role::Replica, of.source)) {
            return Ok(());
        }
        let branch = Origin { lineage: of.lineage, lsn: Lsn(at) };
        let is_fenced = |known: &ReplicaRecord| (known.role, known.source, known.branch) == (Role::Fork, of.source, Some(branch));
        if !known.as_ref().is_some_and(is_fenced) {
            return Err(Error::new(Kind::Conflict, format!("{target} is not fenced at LSN {at} for that successor")));
        }
        if let Some(mounted) = self.mounted_of(group.id) {
            return Err(Error::new(Kind::Conflict, format!("volume {mounted} is mounted: unmount it first")));
        }
        for follower in group.followers() {
            group.follower_forget(&follower.name)?;
        }
        let record = ReplicaRecord {
            role: Role::Replica,
            source: of.source,
            lineage: of.lineage,
            lsn: Lsn(of.lsn),
            staging: None,
            branch: None,
        };
        let lsn = revert::turn(&group, record, of.wall)?;
        self.flush_group(&group, lsn)
    }
}
