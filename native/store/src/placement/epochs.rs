//! How much of a group's epoch history is remembered: each start adds a row, and the manifest must not grow with them.
//!
//! What asks for an old row, and why it may go:
//! - *Frames of the log.* Whether one counts depends on the rows behind its own ([`crate::oplog::scan`]). A segment has frames of
//!   one start, and a start gives back the segments in which nothing counts: so what can still be read from kept segments is of
//!   the row of the first frame that counts, or of later ones. Those rows stay, however many they are: as many as there are
//!   segments at most. A frame of a forgotten row is void.
//! - *Kept points and the bases of clones* are LSNs. What they saw lies in tables, or in the log above the drained LSN, whose
//!   frames keep their rows.
//! - *Stamps of versions and birth names of pages* bear the number of a row, and compare it only. Numbers are never given again.
//! - *The copy of a drive* that turns up beside it is told from a fork by the rows that both know. One that is older than all that
//!   are remembered is refused, as a fork is: [`is_fork`].
//! - *Other sites* find the last common `(epoch, LSN)` among the rows kept; without one, they compare everything.

use super::Pool;
use crate::error::Result;
use holdfast_format::limits::{EPOCH_ROWS_KEPT, EPOCH_ROWS_MAX};
use holdfast_format::manifest::GroupRecord;
use holdfast_format::{GroupId, Row};

/// Whether the history of a copy has rows that the pool's does not have, or none that could tell.
pub(super) fn is_fork(known: &GroupRecord, copy: &GroupRecord) -> bool {
    let mut shared = (copy.first_row..).zip(&copy.history).filter(|(index, _)| *index >= known.first_row).peekable();
    let nothing_tells = shared.peek().is_none() && !copy.history.is_empty();
    nothing_tells || shared.any(|(index, row)| known.row(Row(index)) != Some(row))
}

impl Pool {
    /// After the start of a group: forgets rows of its history, if there are many. `oldest`: of the first frame in its log.
    ///
    /// Crash order (each step leaves what the next start takes):
    /// 1. the superblocks say that a history may begin later: a program that does not know this refuses the pool;
    /// 2. a snapshot without the rows.
    pub fn trim_epochs(&self, id: GroupId, oldest: Row) -> Result<()> {
        let mut journal = self.journal.lock();
        let kept = {
            let image = self.image.read();
            let Some(group) = image.groups.get(&id).filter(|group| group.history.len() > EPOCH_ROWS_MAX) else {
                return Ok(());
            };
            let kept = Row(group.next_row().0 - EPOCH_ROWS_KEPT as u32).min(oldest);
            if kept.0 <= group.first_row {
                return Ok(());
            }
            kept
        };
        self.check_writable()?;
        self.ensure_owner_locked(&mut journal)?;
        let drives = {
            let mut image = self.image.write();
            image.groups.entry(id).and_modify(|group| group.forget_rows_before(kept));
            image.manifest_drives.clone()
        };
        self.announce_features(&mut journal)?;
        let failed = self.switch_area(&mut journal, drives, &[])?;
        self.put_out_locked(&mut journal, failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_format::manifest::EpochRow;

    fn group(first_row: u32, randoms: &[u64]) -> GroupRecord {
        let row = |random: &u64| EpochRow { random: *random, ..EpochRow::default() };
        GroupRecord { first_row, history: randoms.iter().map(row).collect(), ..GroupRecord::default() }
    }

    #[test]
    fn a_copy_is_told_from_a_fork_by_the_rows_that_both_remember() {
        let known = group(3, &[13, 14, 15, 16]);
        for older in [group(0, &[10, 11, 12, 13]), group(1, &[11, 12, 13, 14, 15]), group(3, &[13]), group(3, &[13, 14, 15, 16])] {
            assert!(!is_fork(&known, &older), "{older:?}");
        }
        let ahead = group(3, &[13, 14, 15, 16, 17]);
        let apart = group(0, &[10, 11, 12, 13, 24]);
        let forgotten = group(0, &[10, 11, 12]);
        for fork in [ahead, apart, forgotten] {
            assert!(is_fork(&known, &fork), "{fork:?}");
        }
        assert!(is_fork(&group(0, &[10, 11]), &group(0, &[10, 12])) && !is_fork(&known, &group(0, &[])));
    }
}
