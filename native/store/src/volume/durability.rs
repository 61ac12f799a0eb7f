//! What is on the drives: fsync, and waiting for it where the volume acknowledges only durable changes.

use super::Volume;
use super::change::{Done, actor};
use crate::api::{Caller, FlushDone, FsError, FsResult};
use crate::error::Result;
use holdfast_format::op::{Effects, OpKind};
use holdfast_format::{Ino, Lsn};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Newest ops of this volume.
pub struct Durability {
    /// Any change.
    changed: AtomicU64,
    /// FSYNC record.
    synced: AtomicU64,
}

impl Durability {
    /// `newest` at the volume's opening: everything before is covered by a flush up to there.
    pub fn new(newest: Lsn) -> Self {
        Self { changed: AtomicU64::new(newest.0), synced: AtomicU64::new(newest.0) }
    }

    pub fn changed(&self, lsn: Lsn) {
        self.changed.fetch_max(lsn.0, Ordering::AcqRel);
    }
}

impl Volume {
    /// Ends an op once its locks are released: reaps what nobody refers to, and waits where the volume's policy is
    /// `ack: write`.
    pub(super) fn settle(&self, done: Done) -> FsResult<()> {
        for ino in done.orphans {
            if !self.references.is_referenced(ino) {
                self.reap(ino)?;
            }
        }
        if self.policy.ack_write() { self.wait_durable(done.lsn) } else { Ok(()) }
    }

    fn wait_durable(&self, lsn: Lsn) -> FsResult<()> {
        let slot: Arc<(Mutex<Option<Result<()>>>, Condvar)> = Arc::default();
        let filler = slot.clone();
        self.ledger.flush(
            lsn,
            Box::new(move |result| {
                *filler.0.lock() = Some(result);
                filler.1.notify_one();
            }),
        );
        let mut answer = slot.0.lock();
        loop {
            match answer.take() {
                Some(result) => return Ok(result?),
                None => slot.1.wait(&mut answer),
            }
        }
    }

    /// Starts a flush that nobody here waits for: an fsync follows.
    pub(super) fn begin_flush(&self, lsn: Lsn) {
        self.ledger.flush(lsn, Box::new(|_| ()));
    }

    /// An FSYNC record goes before the flush (REPLICATION.md 6), unless nothing changed since the last one.
    pub(super) fn sync(&self, caller: &Caller, ino: Ino, done: FlushDone) {
        let changed = self.durability.changed.load(Ordering::Acquire);
        let mut until = self.durability.synced.load(Ordering::Acquire);
        if changed > until {
            match self.commit_effects(OpKind::Fsync, actor(caller), ino, Effects::new()) {
                Ok(lsn) => {
                    until = lsn.0;
                    self.durability.synced.fetch_max(until, Ordering::AcqRel);
                }
                Err(error) => return done(Err(error)),
            }
        }
        self.ledger.flush(Lsn(until), Box::new(move |result| done(result.map_err(FsError::from))));
    }
}
