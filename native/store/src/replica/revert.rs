//! A replica becomes an owner. Its present may be the middle of a batch: what has changed since the newest recovery point is put
//! back first, by a batch that leads there.

use super::apply;
use super::delta::Delta;
use crate::error::Result;
use crate::group::Group;
use holdfast_format::replica::{Origin, ReplicaRecord, Role};
use holdfast_format::Lsn;
use std::sync::Arc;

/// `follower` (empty: nobody) is what the former owner will be: the point where the two part is kept for it. Returns the LSN that has to be durable before anybody is told. Begun again after a crash it puts back what is left.
///
/// # Errors
/// `NotFound`: no recovery point is whole; `Fenced`: it is no replica.
pub fn promote(group: &Arc<Group>, lineage: u64, follower: &str) -> Result<Lsn> {
    group.with_replica(|record| {
        let received = group.newest_received()?;
        if record.staging.is_some() {
            let now = group.keep_middle()?;
            let _kept = group.pin(now);
            let mut back = Delta::back(group, received.lsn, now)?;
            while let Some(part) = back.next_part(usize::MAX)? {
                apply::put_back(group, &part.chunk)?;
            }
        }
        if !follower.is_empty() {
            group.follower_has(follower, received.lsn)?;
        }
        let branch = Some(Origin { lineage: record.lineage, lsn: received.lsn });
        let next = ReplicaRecord { role: Role::Promoted, lineage, staging: None, branch, ..record.clone() };
        let lsn = group.end_replica(&next)?;
        *record = next;
        Ok(lsn)
    })
}
