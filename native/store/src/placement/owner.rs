//! Who has the drives (FAULTS.md 37). Locks keep programs of one kernel apart; this is for those that a lock does not
//! reach: another host or a lock file that somebody removed and made anew.
//!
//! Invariants:
//! - Whoever has the pool open writes its superblocks at least once in `TRUST_NS` while it writes anything: each has a
//!   growing `beat`, and says which lock file its writer holds.
//! - A pool that was left open is opened at once only by proof that its owner is gone: on this boot of the kernel, we hold
//!   the very lock file that it held. (A program that runs holds its inode, so that the number cannot come back.) Else the
//!   superblocks are watched for `WATCH_NS`, and a change that no misread slot explains refuses.
//! - A program that was held up looks at its superblocks before it writes again: somebody else may have come meanwhile.

use super::Pool;
use super::disk::Disk;
use super::journal::Journal;
use super::superblocks::{Beat, Found, newest, read};
use crate::error::{Error, Kind, Result};
use holdfast_device::{Clock, Drive, Source};
use holdfast_format::Uuid;
use holdfast_format::superblock::{Holder, Mark, SUPERBLOCK_BYTES, Superblock};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

/// So many superblocks a drive shows that nobody writes: one of its two slots may have been misread at one look, and not at the
/// next.
const STILL_SIGNS: usize = 2;
/// How long superblocks must stand still before another owner counts as gone.
pub(super) const WATCH_NS: u64 = 5_000_000_000;
/// Between two looks meanwhile.
const LOOK_NS: u64 = 250_000_000;
/// Nothing is written this long after the newest look at our own superblocks without another one.
const TRUST_NS: u64 = 2_000_000_000;
/// A look waits this long for a drive.
const LOOK_PATIENCE_NS: u64 = 250_000_000;
const _: () = assert!(2 * LOOK_PATIENCE_NS < TRUST_NS, "a look with a drive that is late is still good for something");
const _: () = assert!(2 * TRUST_NS + LOOK_NS < WATCH_NS, "who waits sees two beats, or the owner has stopped writing");

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
    let sign = |block: &Superblock| (block.instance, block.beat, block.writes);
    let mut seen: Vec<_> = watched.iter().map(|(_, before)| BTreeSet::from([sign(before)])).collect();
    let end_ns = clock.boottime_ns() + WATCH_NS;
    while clock.boottime_ns() < end_ns {
        clock.sleep(LOOK_NS);
        for ((drive, before), seen) in watched.iter().zip(&mut seen) {
            // All else is nothing that a living owner would write.
            if let Ok(Found::Valid(now)) = read(*drive) {
                seen.insert(sign(&now));
            }
            if seen.len() > STILL_SIGNS {
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

/// Superblocks as they were found without the publish lock, and what was known when the reads began.
struct Look {
    began_ns: u64,
    writes: u64,
    known: BTreeMap<u16, Mark>,
    written: BTreeMap<u16, u64>,
    /// Of the drives that answered in time.
    found: Vec<(u16, Found)>,
}

/// What a superblock says of its drive.
enum Finding {
    Ours,
    /// It was exchanged under us; says for what.
    Exchanged(String),
    /// Another program has it.
    Taken,
}

fn finding(block: Found, ours: (Uuid, Uuid, u64), known: Mark, written: u64) -> Finding {
    let (pool, drive, instance) = ours;
    let what = match block {
        Found::Valid(block) if block.pool != pool => format!("it was exchanged: it now belongs to pool {}", block.name),
        Found::Valid(block) if block.drive != drive => {
            format!("it was exchanged for the content of drive {}", block.drive)
        }
        // Of the two slots that a beat writes, one may have rotted.
        Found::Valid(block) if block.own < known || block.instance == instance && block.writes + 1 < written => {
            "it was exchanged for an old image of itself".to_owned()
        }
        Found::Valid(block) if block.instance != instance => return Finding::Taken,
        Found::Valid(_) => return Finding::Ours,
        Found::None | Found::Newer(_) | Found::Damaged(_) => {
            "its superblock is gone: it was exchanged or overwritten".to_owned()
        }
    };
    Finding::Exchanged(what)
}

impl Pool {
    /// Called before drives are written, without the publish lock. Errors: `Fenced`.
    pub(super) fn ensure_owner(&self) -> Result<()> {
        if self.is_trusted() {
            return Ok(());
        }
        let _one_at_a_time = self.looking.lock();
        if self.is_trusted() { Ok(()) } else { self.look_and_beat() }
    }

    /// The same under the publish lock: for those who were held up since they called [`Pool::ensure_owner`].
    pub(super) fn ensure_owner_locked(&self, journal: &mut Journal) -> Result<()> {
        if self.is_trusted() { Ok(()) } else { self.beat_locked(journal) }
    }

    /// The same for those who may hold the publish lock themselves. False also where it cannot be found out now.
    pub(super) fn is_owner_now(&self) -> bool {
        self.is_trusted() || self.journal.try_lock().is_some_and(|mut journal| self.beat_locked(&mut journal).is_ok())
    }

    fn is_trusted(&self) -> bool {
        let looked_ns = self.looked_ns.load(Ordering::Acquire);
        self.clock.boottime_ns().saturating_sub(looked_ns) <= TRUST_NS
    }

    /// A look at the superblocks, and a sign of life in them. Errors: `Fenced`.
    pub(super) fn beat(&self) -> Result<()> {
        let _one_at_a_time = self.looking.lock();
        self.look_and_beat()
    }

    /// Drives are read without the publish lock: one that is slow holds nobody up. What somebody of ours wrote meanwhile may
    /// have been read half: then only a stranger's name counts, and whatever else looks wrong is looked at again.
    fn look_and_beat(&self) -> Result<()> {
        for last in [false, false, true] {
            self.check_open()?;
            let before = {
                let journal = self.journal.lock();
                (journal.writes, journal.known.clone(), journal.written.clone())
            };
            let look = self.look_at_drives(before);
            let mut journal = self.journal.lock();
            let quiet = journal.writes == look.writes;
            let began_ns = look.began_ns;
            let exchanged = self.judge_look(look)?;
            if quiet || exchanged.is_empty() {
                return self.beat_after(&mut journal, began_ns, exchanged);
            }
            if last {
                return self.beat_locked(&mut journal);
            }
        }
        Ok(())
    }

    /// As [`Pool::beat`], where the publish lock cannot be let go.
    pub(super) fn beat_locked(&self, journal: &mut Journal) -> Result<()> {
        self.check_open()?;
        let look = self.look_at_drives((journal.writes, journal.known.clone(), journal.written.clone()));
        let began_ns = look.began_ns;
        let exchanged = self.judge_look(look)?;
        self.beat_after(journal, began_ns, exchanged)
    }

    fn beat_after(&self, journal: &mut Journal, began_ns: u64, mut exchanged: Vec<(u16, String)>) -> Result<()> {
        // What follows writes, too; it is what this look was for.
        self.looked_ns.store(began_ns, Ordering::Release);
        exchanged.append(&mut self.suspects.lock());
        self.put_out_locked(journal, exchanged)?;
        journal.beat += 1;
        let failed = self.write_superblocks(journal, Beat::Fast);
        self.put_out_locked(journal, failed)
    }

    /// The drives that were exchanged, as it is now. The caller holds the publish lock. Errors: `Fenced`.
    pub(super) fn exchanged_now(&self, journal: &Journal) -> Result<Vec<(u16, String)>> {
        self.judge_look(self.look_at_drives((journal.writes, journal.known.clone(), journal.written.clone())))
    }

    /// Reads the superblocks of all drives in use at once, and waits for none longer than [`LOOK_PATIENCE_NS`]: a drive that
    /// does not answer says nothing, now.
    fn look_at_drives(&self, (writes, known, written): (u64, BTreeMap<u16, Mark>, BTreeMap<u16, u64>)) -> Look {
        let began_ns = self.clock.boottime_ns();
        let signed = |disk: &&Disk| disk.signed.load(Ordering::Acquire) && disk.superblock().is_some();
        let disks: Vec<&Disk> = self.disks.iter().filter(signed).collect();
        let sources: Vec<Source<'_>> = disks
            .iter()
            .filter_map(|disk| disk.superblock().map(|(drive, file)| Source { drive, file, offset: 0 }))
            .collect();
        let answers = holdfast_device::drive::read_each(&sources, 2 * SUPERBLOCK_BYTES, LOOK_PATIENCE_NS);
        let mut found = Vec::with_capacity(disks.len());
        for (disk, answer) in disks.iter().zip(answers) {
            match answer {
                None => self.note_late(disk),
                Some(Err(_)) => disk.pulse.failed(),
                Some(Ok(mut both)) => {
                    let second = both.split_off(SUPERBLOCK_BYTES);
                    found.push((disk.index, newest([Ok(both), Ok(second)]).0));
                }
            }
        }
        Look { began_ns, writes, known, written, found }
    }

    /// The drives whose content was exchanged under us: they hold zeroes, another drive's content, or an old image of their
    /// own (FAULTS 3). Errors: `Fenced`, when another program has written our superblocks since (FAULTS 37).
    fn judge_look(&self, look: Look) -> Result<Vec<(u16, String)>> {
        let mut exchanged = Vec::new();
        for (index, block) in look.found {
            let disk = &self.disks[index as usize];
            let known = look.known.get(&index).copied().unwrap_or_default();
            let written = look.written.get(&index).copied().unwrap_or_default();
            match finding(block, (self.uuid, disk.uuid, self.instance), known, written) {
                Finding::Ours => {}
                Finding::Exchanged(what) => exchanged.push((index, what)),
                Finding::Taken => return Err(self.taken(&disk.name())),
            }
        }
        Ok(exchanged)
    }

    fn taken(&self, drive: &str) -> Error {
        self.fenced.store(true, Ordering::Release);
        let what = format!("pool {}: another program has taken drive {drive}; close this one", self.name);
        Error::new(Kind::Fenced, what)
    }
}
