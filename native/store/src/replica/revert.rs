//! A replica becomes an owner, or a former owner a replica. The present may be the middle of a batch, or differ from the last common
//! point in what no user did: what has changed since that point is put back first, by a batch that leads there.

use super::apply;
use super::delta::Delta;
use crate::error::{Error, Kind, Result};
use crate::group::Group;
use holdfast_format::inode::Time;
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
            put_back(group, received.lsn)?;
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

/// The present is again what this point is.
fn put_back(group: &Arc<Group>, point: Lsn) -> Result<()> {
    let now = group.keep_middle()?;
    let _kept = group.pin(now);
    let mut back = Delta::back(group, point, now)?;
    while let Some(part) = back.next_part(usize::MAX)? {
        apply::put_back(group, &part.chunk)?;
    }
    Ok(())
}

/// A former owner, fenced, whose successor has all that users did here: it goes back to the common point and follows. `record`: what it
/// is then, `wall`: when that point was cut. Returns the LSN that has to be durable before anybody is told.
///
/// # Errors
/// `Conflict`: it is not fenced.
pub fn turn(group: &Arc<Group>, record: ReplicaRecord, wall: Time) -> Result<Lsn> {
    let fenced = group.replica().filter(|known| known.role == Role::Fork).and_then(|known| known.branch);
    let branch = fenced.ok_or_else(|| Error::new(Kind::Conflict, "only a former owner that is fenced turns"))?;
    put_back(group, branch.lsn)?;
    group.turn(record, wall)
}
