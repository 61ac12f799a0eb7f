//! Who has the drives (FAULTS.md 37). Locks keep programs of one kernel apart; this is for those that a lock does not
//! reach: another host or a lock file that somebody removed and made anew.
//!
//! Invariants:
//! - Whoever has the pool open writes its superblocks at least once in `TRUST_NS` while it writes anything: each has a
//!   growing `beat`, and says which lock file its writer holds.
//! - A pool that was left open is opened at once only by proof that its owner is gone: on this boot of the kernel, we hold
//!   the very lock file that it held. (A program that runs holds its inode, so that the number cannot come back.) Else the
//!   superblocks are watched for `WATCH_NS`, and any change refuses.
//! - A program that was held up looks at its superblocks before it writes again: somebody else may have come meanwhile.

use super::Pool;
use super::journal::Journal;
use super::superblocks::{Beat, Found, read};
use crate::error::{Error, Kind, Result};
use holdfast_device::{Clock, Drive};
use holdfast_format::superblock::{Holder, Superblock};
use std::sync::atomic::Ordering;

/// How long superblocks must stand still before another owner counts as gone.
pub(super) const WATCH_NS: u64 = 5_000_000_000;
/// Between two looks meanwhile.
const LOOK_NS: u64 = 250_000_000;
/// Nothing is written this long after the newest look at our own superblocks without another one.
const TRUST_NS: u64 = 2_000_000_000;
const _: () = assert!(2 * TRUST_NS < WATCH_NS, "who waits sees the owner's beat, or the owner has stopped writing");

/// The lock that we hold on a drive, as its superblock names it.
pub(super) fn holder_of(drive: &dyn Drive, boot_id: [u8; 16]) -> Holder {
    match drive.lock_identity() {
        Some((device, inode)) => Holder { boot_id, device, inode },
        None => Holder::default(),
    }
}

/// Whether whoever left the superblock open is gone for certain.
fn is_gone(drive: &dyn Drive, block: &Superblock, boot_id: [u8; 16]) -> bool {
    let ours = holder_of(drive, boot_id);
    !block.open || (ours != Holder::default() && ours == block.holder)
}

/// Returns when nobody else uses these drives. At once, unless one was left open by a program of which that cannot be
/// proved.
///
/// Errors: `Conflict`, naming the drive on which somebody still writes.
pub(super) fn await_silence(
    drives: &[(&dyn Drive, &Superblock)],
    boot_id: [u8; 16],
    clock: &dyn Clock,
) -> Result<()> {
    let watched: Vec<_> = drives.iter().filter(|(drive, block)| !is_gone(*drive, block, boot_id)).collect();
    if watched.is_empty() {
        return Ok(());
    }
    let end_ns = clock.boottime_ns() + WATCH_NS;
    while clock.boottime_ns() < end_ns {
        clock.sleep(LOOK_NS);
        for (drive, before) in &watched {
            let moved = match read(*drive) {
                Ok(Found::Valid(now)) => (now.instance, now.beat, now.writes) != (before.instance, before.beat, before.writes),
                // Nothing that a living owner would write.
                Ok(_) | Err(_) => false,
            };
            if moved {
                return Err(Error::new(
                    Kind::Conflict,
                    format!(
                        "drive {} is in use by another program, on this machine or another: pool {} is open there, and its \
                         heartbeat goes on; end that program first",
                        drive.name(),
                        before.name
                    ),
                ));
            }
        }
    }
    Ok(())
}

impl Pool {
    /// Called before drives are written, without the publish lock. Errors: `Fenced`.
    pub(super) fn ensure_owner(&self) -> Result<()> {
        if self.is_trusted() { Ok(()) } else { self.beat(&mut self.journal.lock()) }
    }

    /// The same under the publish lock.
    pub(super) fn ensure_owner_locked(&self, journal: &mut Journal) -> Result<()> {
        if self.is_trusted() { Ok(()) } else { self.beat(journal) }
    }

    /// The same for those who may hold the publish lock themselves. False also where it cannot be found out now.
    pub(super) fn is_owner_now(&self) -> bool {
        self.is_trusted() || self.journal.try_lock().is_some_and(|mut journal| self.beat(&mut journal).is_ok())
    }

    fn is_trusted(&self) -> bool {
        let looked_ns = self.looked_ns.load(Ordering::Acquire);
        self.clock.boottime_ns().saturating_sub(looked_ns) <= TRUST_NS
    }

    /// A look at the superblocks, and a sign of life in them. Errors: `Fenced`.
    pub(super) fn beat(&self, journal: &mut Journal) -> Result<()> {
        self.check_open()?;
        let began_ns = self.clock.boottime_ns();
        let exchanged = self.check_owner(journal)?;
        // What follows writes, too; it is what this look was for.
        self.looked_ns.store(began_ns, Ordering::Release);
        self.put_out_locked(journal, exchanged)?;
        journal.beat += 1;
        let failed = self.write_superblocks(journal, Beat::Fast);
        self.put_out_locked(journal, failed)
    }
}
