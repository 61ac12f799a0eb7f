//! Inode numbers and what else the VOLUME record says.
//!
//! - Every number below the durable `next_ino` may have been given out, none at or above it. The op that gives out the
//!   first number of a step carries the raised record, and holds the mutex until it is committed, so no op with
//!   a number of that step can come before it in the log.
//! - A number is never given twice: a failed op wastes its number, a restart the rest of its step.

use super::Volume;
use super::change::Change;
use crate::api::{FsError, FsResult};
use crate::error::Error;
use holdfast_format::inode::VolumeRecord;
use holdfast_format::op::{Actor, Effects, OpKind};
use holdfast_format::{ID48_END, Ino, Lsn, key};
use parking_lot::MutexGuard;

/// Numbers per VOLUME record.
const STEP: u64 = 4096;

pub struct Numbers {
    /// Next to give.
    pub next: u64,
    /// What the committed VOLUME record says.
    pub limit: u64,
}

/// A raised `next_ino` that becomes true with the op that carries it.
pub struct Step<'v> {
    numbers: MutexGuard<'v, Numbers>,
    limit: u64,
}

impl Step<'_> {
    /// The op is in the log.
    pub fn accept(mut self) {
        self.numbers.limit = self.limit;
    }
}

impl Volume {
    pub(super) fn record(&self) -> FsResult<VolumeRecord> {
        let bytes = self.ledger.get(&key::volume(self.branch))?.ok_or_else(|| {
            Error::corrupt(format!("branch {}: the volume's own record is gone", self.branch))
        })?;
        Ok(VolumeRecord::decode(&bytes).map_err(|error| Error::decode("volume record", error))?)
    }

    /// Next inode number; `change` gets the record that makes it true.
    pub(super) fn next_ino<'v>(&'v self, change: &mut Change<'v>) -> FsResult<Ino> {
        let mut numbers = self.numbers.lock();
        let ino = numbers.next;
        if ino >= ID48_END {
            return Err(FsError::NoSpace);
        }
        if ino >= numbers.limit {
            let mut record = self.record()?;
            record.next_ino = ino + STEP;
            change.effects.put(&key::volume(self.branch), &record.encode());
            numbers.next = ino + 1;
            change.step = Some(Step { numbers, limit: ino + STEP });
        } else {
            numbers.next = ino + 1;
        }
        Ok(Ino(ino))
    }

    /// Changes policy fields of the volume's record (rf, ack, quota, name); `next_ino` is kept. From here on the volume
    /// acts on them.
    ///
    /// # Errors
    /// Those of the log.
    pub fn set_record(&self, change: impl FnOnce(&mut VolumeRecord)) -> FsResult<Lsn> {
        let numbers = self.numbers.lock();
        let mut record = self.record()?;
        let next_ino = record.next_ino;
        change(&mut record);
        record.next_ino = next_ino;
        let mut effects = Effects::new();
        effects.put(&key::volume(self.branch), &record.encode());
        let lsn = self.commit_effects(OpKind::VolumeSet, Actor::default(), Ino(0), effects)?;
        self.policy.adopt(&record);
        drop(numbers);
        self.start_quota()?;
        Ok(lsn)
    }
}
