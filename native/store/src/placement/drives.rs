//! Drives that come and go on purpose: added, emptied and removed, used anew after they were lost.
//!
//! A drive that comes back after it missed writes is never a source. Once nothing needs what it held, it is wiped and
//! joins as an empty drive under a new index: so no slot that was named before ever means something else.

use super::Pool;
use super::create;
use super::domains;
use super::disk::{Disk, DiskSpec, Layout, MANIFEST_FILE, SUPERBLOCK_FILE, drive_error};
use super::journal::Journal;
use super::publish::Change;
use super::types::{DriveCondition, PoolDrive, ProbeInfo};
use crate::error::{Error, Kind, Result};
use holdfast_device::{Drive, Durability};
use holdfast_format::limits::DRIVES_PER_POOL_MAX;
use holdfast_format::manifest::{DriveEntry, Item};
use holdfast_format::{EgroupId, Protection, Uuid};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Pool {
    /// Adds an empty drive, or one of this pool whose content no longer counts: it is wiped. Returns its index. New
    /// copies come to it at once.
    ///
    /// Errors: `Conflict` (it is in use, or in another pool), `Invalid` (not empty, too small, too many drives).
    pub fn add_drive(&self, add: PoolDrive) -> Result<u16> {
        self.check_writable()?;
        let _one_at_a_time = self.changing_drives.lock();
        let path = add.drive.name();
        match super::superblocks::probe(&*add.drive)? {
            ProbeInfo::Empty => {}
            ProbeInfo::Member { pool, drive, .. } if pool == self.uuid => {
                self.check_reusable(&path, drive)?
            }
            ProbeInfo::Member { name, pool, .. } => {
                return Err(Error::new(Kind::Conflict, format!("drive {path} is in pool {name} ({pool})")));
            }
            ProbeInfo::Newer { reason } | ProbeInfo::Damaged { reason } => {
                let what = format!("drive {path} is in a pool ({reason}): empty the directory to use it");
                return Err(Error::new(Kind::Conflict, what));
            }
            ProbeInfo::Foreign { reason } => return Err(Error::invalid(format!("drive {path}: {reason}"))),
        }
        let bytes = create::size_of(&add)?;
        let layout = Layout::new(bytes, self.slot_bytes, self.area_bytes);
        if layout.slots <= 2 * layout.reserve() {
            let least = (2 * self.area_bytes + 4 * layout.reserve() as u64 * self.slot_bytes as u64) >> 20;
            return Err(Error::invalid(format!(
                "drive {path} is too small for pool {}: give it {least} MiB",
                self.name
            )));
        }
        wipe(&*add.drive)?;
        self.join(add, bytes, layout, None)
    }

    /// A drive with one of this pool's superblocks: only when its content no longer counts, and nothing needs it.
    fn check_reusable(&self, path: &str, uuid: Uuid) -> Result<()> {
        let known = self.disks.iter().find(|disk| disk.uuid == uuid && !disk.is_retired());
        let Some(disk) = known else { return Ok(()) };
        if disk.is_active() {
            return Err(Error::new(Kind::Conflict, format!("drive {path} is in pool {} already", self.name)));
        }
        if disk.condition().0 == DriveCondition::Missing && !self.image.read().drives[&disk.index].out {
            let what =
                format!("drive {path} is a missing drive of pool {}: open the pool again with it", self.name);
            return Err(Error::new(Kind::Conflict, what));
        }
        match self.only_there(&[disk.index])? {
            0 => Ok(()),
            things => Err(Error::new(
                Kind::Conflict,
                format!(
                    "drive {path} may hold the last copies of {things} tables and egroups: attach the other drives"
                ),
            )),
        }
    }

    /// Crash order:
    /// 1. files and superblock of the new drive; a crash leaves a drive that the manifest does not know, to be added again;
    /// 2. the manifest names it, and gives up the index that it had before: from now on it is one of the pool;
    /// 3. membership m+1, with a copy of the manifest there if copies are short, and everybody's superblock.
    fn join(&self, add: PoolDrive, bytes: u64, layout: Layout, before: Option<u16>) -> Result<u16> {
        let mut journal = self.journal.lock();
        let index = self.disks.len() as u16;
        if index as usize >= DRIVES_PER_POOL_MAX {
            return Err(Error::invalid(format!(
                "pool {} has had {DRIVES_PER_POOL_MAX} drives, the most",
                self.name
            )));
        }
        let uuid = Uuid(self.rng.lock().uuid());
        let domain = super::labels::complete(&add.domain, uuid);
        let spec = DiskSpec { index, uuid, domain: domain.clone(), bytes, layout };
        let disk = Disk::create(spec, add.drive, self.area_bytes)?;
        self.first_superblock(&mut journal, &disk)?;
        let entry = DriveEntry { index, uuid, domain, bytes, out: false, draining: false, absent_since: 0 };
        let mut change = Change::new(self);
        change.items.push(Item::Drive(entry));
        if let Some(entry) = before.and_then(|before| self.image.read().drives.get(&before).cloned()) {
            let absent_since = entry.absent_since.max(1);
            change.items.push(Item::Drive(DriveEntry { draining: true, out: true, absent_since, ..entry }));
        }
        // Known here in the moment in which it is in the image: another drive may fail in this very commit, and then all that
        // the image names are gone through.
        let joining = std::cell::Cell::new(Some(disk));
        self.commit(&mut journal, change, &|| {
            joining.take().map(|disk| self.disks.push(disk));
        })?;
        let failed = self.next_membership(&mut journal)?;
        self.put_out_locked(&mut journal, failed)?;
        Ok(index)
    }

    fn first_superblock(&self, journal: &mut Journal, disk: &Disk) -> Result<()> {
        let Some((drive, file)) = disk.superblock() else { return Err(Error::closed()) };
        journal.writes += 1;
        let block = self.superblock_of(journal, disk, true).encode();
        let slot = disk.next_superblock.fetch_xor(1, Ordering::AcqRel);
        disk.signed.store(true, Ordering::Release);
        drive
            .write(file, slot as u64 * block.len() as u64, &[&block], Durability::Durable)
            .map_err(|error| drive_error(drive, "writing the superblock", &error))
    }

    /// The drive's index, by uuid or path.
    pub fn find_drive(&self, name: &str) -> Result<u16> {
        let matches =
            |disk: &&Disk| !disk.is_retired() && (disk.uuid.to_string() == name || disk.name() == name);
        let found = self.disks.iter().find(matches).map(|disk| disk.index);
        found.ok_or_else(|| Error::new(Kind::NotFound, format!("pool {} has no drive {name}", self.name)))
    }

    /// A drive of this pool by path, whatever its condition.
    pub fn drive_at(&self, path: &str) -> Option<Arc<dyn Drive>> {
        let here = |disk: &&Disk| disk.drive.is_some() && disk.name() == path;
        self.disks.iter().filter(here).last().and_then(|disk| disk.drive.clone())
    }

    /// Refuses a replacement that has less room than what it replaces.
    pub fn check_replacement(&self, index: u16, new: &PoolDrive) -> Result<()> {
        let (old, bytes) = (&self.disks[index as usize], create::size_of(new)?);
        if bytes >= old.bytes {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "drive {} gives {} MiB, {} has {} MiB: replace it with one of at least that size, or add it and remove the \
             old one",
            new.drive.name(),
            bytes >> 20,
            old.name(),
            old.bytes >> 20
        )))
    }

    /// Begins to empty a drive that is there; one that is away is given up. When nothing lies on it any more
    /// ([`Pool::retire_step`]) it leaves the pool. `promises`: what the pool's volumes ask for.
    ///
    /// Errors: `Conflict` when its data has nowhere to go, or it may hold the last copies; says what would help.
    pub fn remove_drive(&self, index: u16, promises: &[Protection]) -> Result<()> {
        self.check_writable()?;
        let disk = &self.disks[index as usize];
        let name = disk.name();
        if disk.is_active() {
            self.check_room_without(disk, promises)?;
        } else {
            let things = self.only_there(&[index])?;
            if things > 0 {
                let what = format!(
                    "drive {name} may hold the last copies of {things} tables and egroups: attach it or the other drives \
                     that are away, or destroy the volumes concerned"
                );
                return Err(Error::new(Kind::Conflict, what));
            }
        }
        self.give_up(index)
    }

    /// From now on nothing new comes to the drive; when nothing names it any more it leaves the pool.
    fn give_up(&self, index: u16) -> Result<()> {
        let disk = &self.disks[index as usize];
        let mut journal = self.journal.lock();
        let mut change = Change::new(self);
        let Some(mut entry) = self.image.read().drives.get(&index).cloned() else {
            return Err(Error::closed());
        };
        entry.draining = true;
        if !disk.is_active() {
            entry.out = true;
            entry.absent_since = entry.absent_since.max(1);
        }
        change.items.push(Item::Drive(entry));
        disk.set_draining(true);
        let result = self.commit(&mut journal, change, &|| {});
        disk.set_draining(result.is_ok());
        result
    }

    /// Ends the emptying of a drive that was to be removed: what has moved stays where it is.
    pub fn keep_drive(&self, index: u16) -> Result<()> {
        let disk = &self.disks[index as usize];
        let mut journal = self.journal.lock();
        let mut change = Change::new(self);
        let Some(entry) = self.image.read().drives.get(&index).cloned() else { return Err(Error::closed()) };
        change.items.push(Item::Drive(DriveEntry { draining: false, ..entry }));
        self.commit(&mut journal, change, &|| {})?;
        disk.set_draining(false);
        Ok(())
    }

    fn check_room_without(&self, disk: &Disk, promises: &[Protection]) -> Result<()> {
        let others = || self.disks.iter().filter(|other| other.accepts() && other.index != disk.index);
        let (name, left) = (disk.name(), others().count());
        let rf = promises.iter().map(|promise| promise.rf).max().unwrap_or(1);
        if left < rf as usize || left == 0 {
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "without drive {name} pool {} has {left} drives, its volumes have RF {rf}: add a drive first, or \
                     replace this one",
                    self.name
                ),
            ));
        }
        let labels: Vec<_> = others().map(|other| (other.index, other.label())).collect();
        for promise in promises {
            let of = |level| domains::count(labels.iter().map(|(at, label)| (*at, &**label)), level);
            let (level, then) = (promise.domain.name(), of(promise.domain));
            if then < promise.rf as usize && self.domains(promise.domain) >= promise.rf as usize {
                return Err(Error::new(
                    Kind::Conflict,
                    format!(
                        "without drive {name} pool {} has drives in {then} {level}s, RF {} needs {}: add a drive in \
                         another {level} first, or lower the volumes' RF or domain",
                        self.name, promise.rf, promise.rf
                    ),
                ));
            }
        }
        let room: u64 =
            others().map(|other| other.free_slots().saturating_sub(self.reserve_of(other)) as u64).sum();
        let used = disk.used_slots() as u64;
        if room < used {
            let mib = |slots: u64| (slots * self.slot_bytes as u64) >> 20;
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "drive {name} holds {} MiB, the other drives of pool {} have room for {} MiB: add a drive, delete \
                     something or shorten the history",
                    mib(used),
                    self.name,
                    mib(room)
                ),
            ));
        }
        Ok(())
    }

    /// Tables and egroups that lie on one of `drives` and on no drive that is in use.
    fn only_there(&self, drives: &[u16]) -> Result<u64> {
        let mut things = 0;
        let mut look = |copies: &[holdfast_format::table::SlotAddress]| {
            let there = copies.iter().any(|copy| drives.contains(&copy.drive));
            things += (there && self.readable(copies).is_empty()) as u64;
        };
        let tables: Vec<_> = {
            let image = self.image.read();
            image.tables.values().flat_map(|tables| tables.values().map(|desc| desc.copies.clone())).collect()
        };
        tables.iter().for_each(|copies| look(copies));
        self.scan_egroups(EgroupId(0), &mut |_, record| {
            look(&record.copies);
            Ok(true)
        })?;
        Ok(things)
    }

    /// Lets go of drives that nothing names any more and that were to be removed or no longer count; uses those that
    /// came back anew. False when there was nothing to do.
    pub fn retire_step(&self) -> Result<bool> {
        let came_back = |disk: &Disk| {
            disk.condition().0 == DriveCondition::Stale && !disk.is_draining() && disk.drive.is_some()
        };
        let ready = |disk: &&Disk| !disk.is_retired() && (came_back(disk) || disk.is_draining());
        let leaving: Vec<u16> = self.disks.iter().filter(ready).map(|disk| disk.index).collect();
        if leaving.is_empty() {
            return Ok(false);
        }
        let named = self.named_slots()?;
        let mut changed = false;
        for index in leaving {
            let disk = &self.disks[index as usize];
            if came_back(disk) {
                if self.only_there(&[index])? == 0 {
                    self.use_anew(disk)?;
                    changed = true;
                }
            } else if !named.contains_key(&index) && self.is_forgotten(disk)? {
                changed |= self.retire(disk)?;
            }
        }
        Ok(changed)
    }

    /// Whether no reader can still look for what once lay on the drive.
    fn is_forgotten(&self, disk: &Disk) -> Result<bool> {
        for _ in 0..3 {
            if !disk.is_active() || disk.pending_slots() == 0 {
                return Ok(true);
            }
            self.publish_nothing()?;
        }
        Ok(disk.pending_slots() == 0)
    }

    /// Slots that something owns, by drive.
    fn named_slots(&self) -> Result<BTreeMap<u16, u64>> {
        let mut named: BTreeMap<u16, u64> = BTreeMap::new();
        let mut name = |copies: &[holdfast_format::table::SlotAddress]| {
            copies.iter().for_each(|copy| *named.entry(copy.drive).or_default() += 1);
        };
        self.unpublished.lock().values().for_each(|record| name(&record.copies));
        self.scan_egroups(EgroupId(0), &mut |_, record| {
            name(&record.copies);
            Ok(true)
        })?;
        let image = self.image.read();
        image.tables.values().flat_map(|tables| tables.values()).for_each(|desc| name(&desc.copies));
        // Tables that were written and are not published yet.
        for disk in self.disks.iter().filter(|disk| disk.is_active() && disk.used_slots() > 0) {
            named.entry(disk.index).or_default();
        }
        Ok(named)
    }

    /// A stale drive joins anew, empty. The old index stays out, until nothing names it.
    fn use_anew(&self, disk: &Disk) -> Result<()> {
        let Some(drive) = disk.drive.clone() else { return Ok(()) };
        let _one_at_a_time = self.changing_drives.lock();
        let layout = Layout::new(disk.bytes, self.slot_bytes, self.area_bytes);
        wipe(&*drive)?;
        let add = PoolDrive { drive, bytes: Some(disk.bytes), domain: disk.label().to_string() };
        self.join(add, disk.bytes, layout, Some(disk.index))?;
        disk.set_out("it came back, and was used anew as an empty drive");
        disk.set_draining(true);
        Ok(())
    }

    /// Crash order: 1. the manifest no longer counts it, membership m+1; 2. its files go, the superblock last.
    fn retire(&self, disk: &Disk) -> Result<bool> {
        let active = disk.is_active();
        // Whoever adds the same directory again, as soon as it is no drive of the pool, waits until its files are gone.
        let _one_at_a_time = self.changing_drives.lock();
        {
            let mut journal = self.journal.lock();
            let Some(mut entry) = self.image.read().drives.get(&disk.index).cloned() else {
                return Ok(false);
            };
            (entry.bytes, entry.out, entry.draining) = (0, true, false);
            entry.absent_since = journal.membership + 1;
            let mut change = Change::new(self);
            change.items.push(Item::Drive(entry));
            self.commit(&mut journal, change, &|| {})?;
            disk.retire("it was removed");
            let failed = self.next_membership(&mut journal)?;
            self.put_out_locked(&mut journal, failed)?;
        }
        if let Some(drive) = disk.drive.as_ref().filter(|_| active)
            && let Err(error) = wipe(&**drive)
        {
            self.warnings
                .lock()
                .push(format!("drive {} was removed, its files are left: {error}", disk.name()));
        }
        Ok(true)
    }
}

/// Removes our files, the superblock last: until then the drive says what it is.
fn wipe(drive: &dyn Drive) -> Result<()> {
    let fail = |error| drive_error(drive, "removing its old files", &error);
    let ours = |file: &&String| *file == MANIFEST_FILE || file.starts_with("slab-");
    for file in drive.list().map_err(fail)?.iter().filter(ours) {
        drive.remove(file).map_err(fail)?;
    }
    if drive.open(SUPERBLOCK_FILE).map_err(fail)?.is_some() {
        drive.remove(SUPERBLOCK_FILE).map_err(fail)?;
    }
    Ok(())
}
