//! Drives that go: membership m+1 on the survivors first, then everything else (I-8, STORE.md 14, 21).

use super::Pool;
use super::journal::Journal;
use super::publish::Change;
use super::report::count;
use super::superblocks::Beat;
use crate::error::{Error, Kind, Result};
use crate::mutants::mutant;
use holdfast_format::limits::MANIFEST_COPIES_MAX;
use holdfast_format::manifest::Item;
use std::sync::atomic::Ordering;

impl Pool {
    /// Puts a drive out: when this returns, membership m+1 is durable on the drives that are left.
    ///
    /// The last active drive is never put out: nothing is written any more, but reads go on.
    pub(super) fn put_out(&self, failed: Vec<(u16, String)>) -> Result<()> {
        self.put_out_locked(&mut self.journal.lock(), failed)
    }

    /// The caller holds the publish lock. Rounds end: each puts out at least one drive of a finite number.
    pub(super) fn put_out_locked(&self, journal: &mut Journal, mut failed: Vec<(u16, String)>) -> Result<()> {
        while !failed.is_empty() {
            let mut changed = false;
            for (index, reason) in failed.drain(..) {
                let disk = &self.disks[index as usize];
                if !disk.is_active() {
                    continue;
                }
                if self.drives_active() == 1 {
                    let reason = format!("the last drive, {}, failed: {reason}", disk.name());
                    self.broken.store(true, Ordering::Release);
                    journal.broken = Some(reason.clone());
                    return Err(Error::new(Kind::Unavailable, format!("pool {}: {reason}", self.name)));
                }
                disk.set_out(&reason);
                disk.changed_s.store(self.clock.wall().0, Ordering::Relaxed);
                self.say(format!("drive {} is out: {reason}", disk.name()));
                count(&self.counters.drives_out, 1);
                changed = true;
            }
            if !changed {
                break;
            }
            if mutant!(RaiseMembershipLate) {
                break;
            }
            failed = self.next_membership(journal)?;
        }
        match &journal.broken {
            None => Ok(()),
            Some(reason) => Err(Error::new(Kind::Unavailable, format!("pool {}: {reason}", self.name))),
        }
    }

    /// m+1 is durable when this returns, and from then on what the others see. Gives the drives that failed meanwhile.
    pub(super) fn next_membership(&self, journal: &mut Journal) -> Result<Vec<(u16, String)>> {
        journal.membership += 1;
        let failed = self.write_membership(journal)?;
        self.show_membership(journal);
        Ok(failed)
    }

    /// Frames and flushes ask for it all the time: they do not wait for a manifest that is being written. One that is begun
    /// with the number before learns of the change where it writes ([`Pool::write_copies`]).
    pub(super) fn show_membership(&self, journal: &Journal) {
        self.membership.store(journal.membership, Ordering::Release);
    }

    /// Membership, in manifest and superblocks. A manifest drive that went is replaced, by starting a new
    /// area there.
    pub(super) fn write_membership(&self, journal: &mut Journal) -> Result<Vec<(u16, String)>> {
        let mut change = Change::new(self);
        let mut failed = self.change_drives(journal, &mut change)?;
        let items = std::mem::take(&mut change.items);
        {
            let mut image = self.image.write();
            items.into_iter().for_each(|item| image.apply(item));
        }
        for (index, reason) in self.write_superblocks(journal, Beat::All) {
            if failed.iter().all(|(other, _)| *other != index) {
                failed.push((index, reason));
            }
        }
        Ok(failed)
    }

    /// Writes the drive table as it is now; `change.items` are its facts.
    fn change_drives(&self, journal: &mut Journal, change: &mut Change<'_>) -> Result<Vec<(u16, String)>> {
        let (entries, old) = {
            let image = self.image.read();
            (image.drives.clone(), image.manifest_drives.clone())
        };
        for (index, mut entry) in entries {
            let active = self.disks[index as usize].is_active();
            if active || entry.out {
                continue;
            }
            let out = self.disks[index as usize].condition().0 == super::DriveCondition::Out;
            if out || entry.absent_since == 0 {
                entry.out = out;
                entry.absent_since =
                    if entry.absent_since == 0 { journal.membership } else { entry.absent_since };
                change.items.push(Item::Drive(entry));
            }
        }
        let drives = self.spread(&old, MANIFEST_COPIES_MAX);
        change.items.push(Item::ManifestDrives(drives.clone()));
        let mut body = Vec::new();
        change.items.iter().for_each(|item| item.encode(&mut body));
        if drives.iter().any(|drive| !old.contains(drive)) {
            self.switch_area(journal, drives, &body)
        } else {
            self.write_record(journal, &body)
        }
    }

    /// Once a second: superblocks get the marks of the moment and a sign of life, freed slots the manifest
    /// writes that
    /// they wait for. Errors: `Fenced` (another program took the drives).
    pub fn heartbeat(&self) -> Result<()> {
        self.check_open()?;
        for disk in self.disks.iter().filter(|disk| disk.is_active()) {
            if disk.recheck_full() {
                count(&self.counters.drives_full, 1);
            }
        }
        let waiting = self.disks.iter().any(|disk| disk.is_active() && disk.pending_slots() > 0);
        if waiting || !self.emptied.lock().is_empty() && self.replayed.load(Ordering::Acquire) {
            self.publish_nothing()?;
        }
        self.probe_slow();
        self.beat()?;
        self.judge_health();
        self.leave_slow_manifests()
    }

    /// A copy of the manifest on a drive that is slow would hold up every edit: another drive takes it, or none.
    fn leave_slow_manifests(&self) -> Result<()> {
        let now = self.image.read().manifest_drives.clone();
        let wanted = self.spread(&now, MANIFEST_COPIES_MAX);
        if wanted.iter().all(|drive| now.contains(drive)) && wanted.len() == now.len() {
            return Ok(());
        }
        let mut journal = self.journal.lock();
        let failed = self.write_membership(&mut journal)?;
        self.put_out_locked(&mut journal, failed)
    }

    /// Leaves the drives marked as closed. Later calls fail with `Closed`; reads still work until the last
    /// user is gone.
    pub fn close(&self) -> Result<()> {
        self.check_open()?;
        let mut journal = self.journal.lock();
        self.closed.store(true, Ordering::Release);
        let exchanged = self.exchanged_now(&journal)?;
        if journal.broken.is_some() {
            return Ok(());
        }
        self.put_out_locked(&mut journal, exchanged)?;
        journal.beat += 1;
        let failed = self.write_superblocks(&mut journal, Beat::Last);
        self.put_out_locked(&mut journal, failed)
    }
}
