//! What is on the drives: fsync, and waiting for it where the volume acknowledges only durable changes.

use super::Volume;
use super::change::{Done, actor};
use crate::api::{Caller, FlushDone, FsError, FsResult};
use crate::error::{Kind, Result};
use holdfast_format::op::{Effects, OpKind};
use holdfast_format::{Ino, Lsn, ROOT_INO};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Inodes that share a mark may wait for each other's changes, never for too few.
const MARKS: usize = 1024;
/// Fsyncs that each followed one write, before the next write begins its flush by itself.
const HABIT: u8 = 2;

/// What is known of the inodes that share it.
struct Mark {
    /// LSN of the newest change.
    changed: AtomicU64,
    /// Times in a row that one write was followed by one fsync; [`WRITTEN`] in between.
    habit: AtomicU8,
    /// The inode whose FSYNC record is the newest one of them, and that record's LSN.
    synced: Mutex<(Ino, Lsn)>,
}

const WRITTEN: u8 = 0x80;

/// Newest ops of this volume.
pub struct Durability {
    /// Any change.
    changed: AtomicU64,
    /// FSYNC record of everything since the opening.
    synced: AtomicU64,
    marks: Box<[Mark]>,
}

impl Durability {
    /// `newest` at the volume's opening: everything before is covered by a flush up to there.
    pub fn new(newest: Lsn) -> Self {
        Self::with_marks(newest, MARKS)
    }

    /// For what nobody changes.
    pub fn of_the_past(newest: Lsn) -> Self {
        Self::with_marks(newest, 1)
    }

    fn with_marks(newest: Lsn, marks: usize) -> Self {
        let mark = || Mark { changed: AtomicU64::new(newest.0), habit: AtomicU8::new(0), synced: Mutex::default() };
        Self {
            changed: AtomicU64::new(newest.0),
            synced: AtomicU64::new(0),
            marks: (0..marks).map(|_| mark()).collect(),
        }
    }

    fn mark(&self, ino: Ino) -> &Mark {
        &self.marks[ino.0 as usize % self.marks.len()]
    }

    /// The volume as such has changed.
    pub fn changed(&self, lsn: Lsn) {
        self.changed.fetch_max(lsn.0, Ordering::AcqRel);
    }

    /// An inode has. To be followed by [`Self::changed`].
    pub fn changed_inode(&self, ino: Ino, lsn: Lsn) {
        self.mark(ino).changed.fetch_max(lsn.0, Ordering::AcqRel);
    }

    /// A write; true when an fsync is most likely on its way: its flush had better begin.
    pub fn written(&self, ino: Ino) -> bool {
        let habit = &self.mark(ino).habit;
        let before = habit.load(Ordering::Relaxed);
        let kept = if before & WRITTEN == 0 { before } else { 0 };
        habit.store(kept | WRITTEN, Ordering::Relaxed);
        kept >= HABIT
    }

    /// An fsync; returns the LSN that it has to wait for. The root stands for everything.
    fn fsync(&self, ino: Ino) -> u64 {
        let mark = self.mark(ino);
        let before = mark.habit.load(Ordering::Relaxed);
        if before & WRITTEN != 0 {
            mark.habit.store(((before & !WRITTEN) + 1).min(HABIT), Ordering::Relaxed);
        }
        let newest = if ino == ROOT_INO { &self.changed } else { &mark.changed };
        newest.load(Ordering::Acquire)
    }

    /// Whether something that nobody fsynced may be there: it was changed since its newest FSYNC record, or that is not known.
    fn wants_record(&self, ino: Ino) -> bool {
        if ino == ROOT_INO {
            return self.changed.load(Ordering::Acquire) > self.synced.load(Ordering::Acquire);
        }
        let mark = self.mark(ino);
        let (synced, lsn) = *mark.synced.lock();
        synced != ino || mark.changed.load(Ordering::Acquire) > lsn.0
    }

    fn recorded(&self, ino: Ino, lsn: Lsn) {
        if ino == ROOT_INO {
            self.synced.fetch_max(lsn.0, Ordering::AcqRel);
        } else {
            *self.mark(ino).synced.lock() = (ino, lsn);
        }
    }
}

impl Volume {
    /// Ends an op once its locks are released: reaps what nobody refers to, and waits where the volume's
    /// policy is
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

    /// Waits for the newest change of the inode, and with it for all that was acknowledged before it. An FSYNC record
    /// goes into the log first, unless the inode did not change since its last one: it tells peers what was promised to be durable
    /// (`replica/loss.rs`), and need not be durable itself.
    pub(super) fn sync(&self, caller: &Caller, ino: Ino, done: FlushDone) {
        let until = self.durability.fsync(ino);
        if self.durability.wants_record(ino) {
            match self.commit_effects(OpKind::Fsync, actor(caller), ino, Effects::new()) {
                Ok(lsn) => self.durability.recorded(ino, lsn),
                // It is another site's: nothing has changed here since, and all of it is durable.
                Err(FsError::Store(error)) if error.kind == Kind::Fenced => {}
                Err(error) => return done(Err(error)),
            }
        }
        self.ledger.flush(Lsn(until), Box::new(move |result| done(result.map_err(FsError::from))));
    }
}
