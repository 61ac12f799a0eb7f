//! One drive of the pool: its condition, its slabs, and which of its slots are in use.
//!
//! Invariants:
//! - A slot is in one of three states: used (bit set), pending (bit set, listed in `pending`), free (bit
//!   clear).
//! - A pending slot becomes free only by [`Disk::collect`]: after the second durable manifest write that
//!   followed the
//!   edit that freed it, and when no hold is as old as that edit.

use super::domains::Label;
use super::health::{Health, Pulse};
use super::types::DriveCondition;
use crate::error::{Error, Kind, Result};
use crate::mutants::mutant;
use holdfast_device::{Drive, FileId};
use holdfast_format::Uuid;
use holdfast_format::limits::{DRIVES_PER_POOL_MAX, RESERVE_PERCENT, RESERVE_SLOTS_MIN, SLAB_BYTES_MAX};
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};

pub(super) const SUPERBLOCK_FILE: &str = "superblock";
pub(super) const MANIFEST_FILE: &str = "manifest";
/// Durable manifest writes that must follow the edit that freed a slot before the slot is used again.
const WRITES_BEFORE_REUSE: u64 = 2;

/// Sizes of one drive, all derived from the superblock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    pub slot_bytes: u32,
    pub slab_slots: u32,
    pub slots: u32,
}

impl Layout {
    pub fn new(bytes: u64, slot_bytes: u32, area_bytes: u64) -> Self {
        let overhead = 2 * area_bytes + 2 * holdfast_format::superblock::SUPERBLOCK_BYTES as u64;
        let slab_bytes = SLAB_BYTES_MAX.min(bytes / 4);
        let slab_slots = (slab_bytes / slot_bytes as u64).max(1) as u32;
        Self { slot_bytes, slab_slots, slots: (bytes.saturating_sub(overhead) / slot_bytes as u64) as u32 }
    }
    /// Slots of slab `index`; the last one is smaller.
    pub fn slots_of(&self, index: u32) -> u32 {
        self.slots.saturating_sub(index * self.slab_slots).min(self.slab_slots)
    }
    pub fn reserve(&self) -> u32 {
        (self.slots as u64 * RESERVE_PERCENT / 100).max(RESERVE_SLOTS_MIN) as u32
    }
}

fn slab_name(index: u32) -> String {
    format!("slab-{index:06}")
}

#[derive(Default)]
struct Bits {
    words: Vec<u64>,
}

impl Bits {
    fn get(&self, at: u32) -> bool {
        self.words.get(at as usize / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }
    fn set(&mut self, at: u32, value: bool) {
        let word = at as usize / 64;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        if value {
            self.words[word] |= 1 << (at % 64);
        } else {
            self.words[word] &= !(1 << (at % 64));
        }
    }
}

struct Pending {
    slot: u32,
    /// Of the edit that freed it.
    sequence: u64,
    /// Holds of this epoch and older may still see it.
    epoch: u64,
}

#[derive(Default)]
struct Slots {
    used: Bits,
    used_count: u32,
    pending: VecDeque<Pending>,
    /// No free slot lies below.
    first_free: u32,
    /// The file system below had no room for the next slab.
    host_full: bool,
    /// It had another reason, and nobody has looked at the drive since.
    host_refused: bool,
}

pub(super) struct Disk {
    pub index: u16,
    pub uuid: Uuid,
    label: RwLock<Arc<Label>>,
    pub bytes: u64,
    pub layout: Layout,
    pub drive: Option<Arc<dyn Drive>>,
    superblock: Option<FileId>,
    manifest: Option<FileId>,
    active: AtomicBool,
    /// Its content is to move to other drives: readable, but nothing new comes here.
    draining: AtomicBool,
    retired: AtomicBool,
    condition: Mutex<(DriveCondition, String)>,
    /// Wall time of the newest change of condition or health; 0: none since the pool was opened.
    pub changed_s: AtomicI64,
    pub pulse: Pulse,
    slots: Mutex<Slots>,
    slabs: RwLock<Vec<FileId>>,
    /// Durable log writes that this drive took part in, ever.
    pub log_tip: AtomicU64,
    /// Superblock slot to be written next: the one that does not count. Changed under the publish lock.
    pub next_superblock: AtomicU8,
    /// This run has written its superblock: what is read there later is this run's, or the drive was exchanged.
    pub signed: AtomicBool,
}

/// All drives that the pool ever had, by index. Grows, and never moves or forgets one: what was placed keeps its name.
pub(super) struct Disks {
    slots: Box<[OnceLock<Disk>]>,
}

impl Disks {
    pub fn new(disks: Vec<Disk>) -> Self {
        let all = Self { slots: (0..DRIVES_PER_POOL_MAX).map(|_| OnceLock::new()).collect() };
        disks.into_iter().for_each(|disk| {
            all.push(disk);
        });
        all
    }
    /// Its index is the number of drives before it; false when there is no room. Under the publish lock.
    pub fn push(&self, disk: Disk) -> bool {
        let at = self.len();
        debug_assert_eq!(disk.index as usize, at);
        self.slots.get(at).is_some_and(|slot| slot.set(disk).is_ok())
    }
    pub fn iter(&self) -> impl Iterator<Item = &Disk> {
        self.slots.iter().map_while(OnceLock::get)
    }
    pub fn get(&self, at: usize) -> Option<&Disk> {
        self.slots.get(at)?.get()
    }
    pub fn len(&self) -> usize {
        self.iter().count()
    }
}

impl std::ops::Index<usize> for Disks {
    type Output = Disk;
    fn index(&self, at: usize) -> &Disk {
        match self.get(at) {
            Some(disk) => disk,
            None => panic!("drive {at} of {}: a checked name", self.len()),
        }
    }
}

/// Identity and size of a [`Disk`].
pub(super) struct DiskSpec {
    pub index: u16,
    pub uuid: Uuid,
    pub domain: String,
    pub bytes: u64,
    pub layout: Layout,
}

impl Disk {
    /// A drive that is not used; `drive` is there for its name only.
    pub fn unused(
        spec: DiskSpec,
        drive: Option<Arc<dyn Drive>>,
        condition: DriveCondition,
        reason: String,
    ) -> Self {
        Self {
            index: spec.index,
            uuid: spec.uuid,
            label: RwLock::new(Arc::new(Label::new(&spec.domain))),
            bytes: spec.bytes,
            layout: spec.layout,
            drive,
            superblock: None,
            manifest: None,
            active: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            signed: AtomicBool::new(false),
            condition: Mutex::new((condition, reason)),
            changed_s: AtomicI64::new(0),
            pulse: Pulse::default(),
            slots: Mutex::default(),
            slabs: RwLock::default(),
            log_tip: AtomicU64::new(0),
            next_superblock: AtomicU8::new(0),
        }
    }

    /// A drive that is there, though its content no longer counts: see [`Disk::last_place`]. Nothing on it is changed.
    pub fn set_aside(spec: DiskSpec, drive: Arc<dyn Drive>, condition: DriveCondition, reason: String) -> Self {
        let mut slabs = Vec::new();
        while let Ok(Some(file)) = drive.open(&slab_name(slabs.len() as u32)) {
            slabs.push(file);
        }
        let mut disk = Self::unused(spec, Some(drive), condition, reason);
        disk.slabs = RwLock::new(slabs);
        disk
    }

    /// Creates the files of a new pool's drive.
    pub fn create(spec: DiskSpec, drive: Arc<dyn Drive>, area_bytes: u64) -> Result<Self> {
        let fail = |file: &str, error| drive_error(&*drive, &format!("creating {file}"), &error);
        let manifest = drive.create(MANIFEST_FILE, 2 * area_bytes).map_err(|e| fail(MANIFEST_FILE, e))?;
        let superblock = drive
            .create(SUPERBLOCK_FILE, 2 * holdfast_format::superblock::SUPERBLOCK_BYTES as u64)
            .map_err(|e| fail(SUPERBLOCK_FILE, e))?;
        let mut disk = Self::unused(spec, Some(drive), DriveCondition::Active, String::new());
        disk.superblock = Some(superblock);
        disk.manifest = Some(manifest);
        disk.active = AtomicBool::new(true);
        Ok(disk)
    }

    /// Opens the files of a pool's drive. A slab that was not wholly created (it can hold nothing yet) is
    /// removed.
    pub fn open(spec: DiskSpec, drive: Arc<dyn Drive>, log_tip: u64, next_superblock: u8) -> Result<Self> {
        let fail = |error| drive_error(&*drive, "opening its files", &error);
        let superblock = drive.open(SUPERBLOCK_FILE).map_err(fail)?;
        let manifest = drive.open(MANIFEST_FILE).map_err(fail)?;
        let mut slabs = Vec::new();
        while let Some(file) = drive.open(&slab_name(slabs.len() as u32)).map_err(fail)? {
            let wanted = spec.layout.slots_of(slabs.len() as u32) as u64 * spec.layout.slot_bytes as u64;
            if drive.bytes(file).map_err(fail)? < wanted {
                drive.remove(&slab_name(slabs.len() as u32)).map_err(fail)?;
                break;
            }
            slabs.push(file);
        }
        if manifest.is_none() {
            return Err(Error::corrupt(format!("drive {} has lost its manifest file", drive.name())));
        }
        let mut disk = Self::unused(spec, Some(drive), DriveCondition::Active, String::new());
        (disk.superblock, disk.manifest) = (superblock, manifest);
        disk.slabs = RwLock::new(slabs);
        disk.active = AtomicBool::new(true);
        disk.log_tip = AtomicU64::new(log_tip);
        disk.next_superblock = AtomicU8::new(next_superblock);
        Ok(disk)
    }

    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }
    /// Whether new copies may come here.
    pub fn accepts(&self) -> bool {
        self.is_active() && !self.draining.load(Ordering::Acquire)
    }
    /// Whether new copies should come here while there is a choice.
    pub fn prefers(&self) -> bool {
        self.accepts() && self.pulse.health() == Health::Good
    }
    /// Its failure domains: `rack/block/node/drive`.
    pub fn label(&self) -> Arc<Label> {
        self.label.read().clone()
    }
    pub fn set_label(&self, label: &str) {
        *self.label.write() = Arc::new(Label::new(label));
    }
    pub fn condition(&self) -> (DriveCondition, String) {
        self.condition.lock().clone()
    }
    pub fn name(&self) -> String {
        self.drive
            .as_ref()
            .map_or_else(|| format!("drive {} ({})", self.index, self.uuid), |drive| drive.name())
    }
    pub fn set_out(&self, reason: &str) {
        *self.condition.lock() = (DriveCondition::Out, reason.to_owned());
        self.active.store(false, Ordering::Release);
    }
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Release);
    }
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
    /// Its index names nothing any more.
    pub fn is_retired(&self) -> bool {
        self.bytes == 0 || self.retired.load(Ordering::Acquire)
    }
    /// It was emptied and leaves the pool.
    pub fn retire(&self, reason: &str) {
        self.set_out(reason);
        self.retired.store(true, Ordering::Release);
    }
    /// The drive and its superblock file, if it is in use.
    pub fn superblock(&self) -> Option<(&dyn Drive, FileId)> {
        Some((self.drive.as_deref().filter(|_| self.is_active())?, self.superblock?))
    }
    pub fn manifest(&self) -> Option<(&dyn Drive, FileId)> {
        Some((self.drive.as_deref().filter(|_| self.is_active())?, self.manifest?))
    }

    /// Where `offset` of a slot lies; `None` when the drive is not in use or has no such slot.
    pub fn place(&self, slot: u32, offset: u32) -> Option<(&dyn Drive, FileId, u64)> {
        let drive = self.drive.as_deref().filter(|_| self.is_active())?;
        self.place_on(drive, slot, offset)
    }

    /// As [`Disk::place`] for a drive that is *not* in use, as long as it is there. What it holds may be old: only bytes that
    /// a checksum above them accepts are to be taken from it, and only when no drive in use has them.
    pub fn last_place(&self, slot: u32, offset: u32) -> Option<(&dyn Drive, FileId, u64)> {
        let drive = self.drive.as_deref().filter(|_| !self.is_active() && !self.is_retired())?;
        self.place_on(drive, slot, offset)
    }

    fn place_on<'a>(&'a self, drive: &'a dyn Drive, slot: u32, offset: u32) -> Option<(&'a dyn Drive, FileId, u64)> {
        let file = *self.slabs.read().get((slot / self.layout.slab_slots) as usize)?;
        let start = (slot % self.layout.slab_slots) as u64 * self.layout.slot_bytes as u64;
        Some((drive, file, start + offset as u64))
    }

    /// Slots that exist or could: those of existing slabs only when the file system below is full.
    fn limit(&self, slots: &Slots) -> u32 {
        let existing = self.slabs.read().len() as u32 * self.layout.slab_slots;
        if slots.host_full { existing.min(self.layout.slots) } else { self.layout.slots }
    }
    /// Slots that can be taken now.
    pub fn free_slots(&self) -> u32 {
        let slots = self.slots.lock();
        self.limit(&slots).saturating_sub(slots.used_count)
    }
    pub fn pending_slots(&self) -> u32 {
        self.slots.lock().pending.len() as u32
    }
    /// Pending slots that holds of this epoch and younger leave alone.
    pub fn pending_before(&self, oldest_hold: u64) -> u32 {
        self.slots.lock().pending.iter().filter(|pending| pending.epoch < oldest_hold).count() as u32
    }
    /// Slots that something owns: neither free nor waiting to be.
    pub fn used_slots(&self) -> u32 {
        let slots = self.slots.lock();
        slots.used_count - slots.pending.len() as u32
    }
    pub fn total_slots(&self) -> u32 {
        self.limit(&self.slots.lock())
    }

    /// At open: a durable record names this slot. False when another one does, too, or it does not exist.
    pub fn mark_used(&self, slot: u32) -> bool {
        let mut slots = self.slots.lock();
        if slot >= self.layout.slots || slots.used.get(slot) {
            return false;
        }
        slots.used.set(slot, true);
        slots.used_count += 1;
        true
    }

    /// Takes a free slot and leaves at least `keep` free ones. `None`: full.
    ///
    /// The first one: a hole between used slots was written before, which makes overwriting it cheap.
    pub fn take(&self, keep: u32) -> Option<u32> {
        let mut slots = self.slots.lock();
        loop {
            if self.limit(&slots).saturating_sub(slots.used_count) <= keep {
                return None;
            }
            let existing = (self.slabs.read().len() as u32 * self.layout.slab_slots).min(self.layout.slots);
            // A slab ahead of need, or a full host would be noticed when the reserve is gone already.
            let short = existing.saturating_sub(slots.used_count) <= self.layout.reserve();
            if short && existing < self.layout.slots && !slots.host_full {
                self.add_slab(&mut slots);
                continue;
            }
            let first = (slots.first_free..existing).find(|at| !slots.used.get(*at));
            slots.first_free = first.unwrap_or(existing);
            let slot = first?;
            slots.used.set(slot, true);
            slots.used_count += 1;
            return Some(slot);
        }
    }

    /// Creates the next slab. When that fails the drive counts as full with what it has, not as failed.
    fn add_slab(&self, slots: &mut Slots) {
        let mut slabs = self.slabs.write();
        let index = slabs.len() as u32;
        let bytes = self.layout.slots_of(index) as u64 * self.layout.slot_bytes as u64;
        match self.drive.as_ref().filter(|_| bytes > 0).map(|drive| drive.create(&slab_name(index), bytes)) {
            Some(Ok(file)) => slabs.push(file),
            made => {
                let error = made.and_then(std::io::Result::err);
                slots.host_refused |= error.is_some_and(|error| error.kind() != std::io::ErrorKind::StorageFull);
                slots.host_full = true;
            }
        }
    }

    /// Whether a slab could not be made, not for want of room, since somebody asked this last.
    pub fn was_refused(&self) -> bool {
        std::mem::take(&mut self.slots.lock().host_refused)
    }

    /// Whether the file system below was full; asks it again, so that space that came back is used.
    pub fn recheck_full(&self) -> bool {
        let full = self.slots.lock().host_full;
        let Some(drive) = self.drive.as_ref().filter(|_| full && self.is_active()) else { return full };
        let next =
            self.layout.slots_of(self.slabs.read().len() as u32) as u64 * self.layout.slot_bytes as u64;
        let room = drive.space().is_ok_and(|space| space.free_bytes >= next && next > 0);
        if room {
            self.slots.lock().host_full = false;
        }
        !room
    }

    /// Gives back a slot that no durable record ever named.
    pub fn give_back(&self, slot: u32) {
        let mut slots = self.slots.lock();
        debug_assert!(slots.used.get(slot));
        slots.used.set(slot, false);
        slots.used_count -= 1;
        slots.first_free = slots.first_free.min(slot);
    }

    /// Frees a slot that the edit `sequence` no longer names.
    pub fn free(&self, slot: u32, sequence: u64, epoch: u64) {
        let mut slots = self.slots.lock();
        if slots.used.get(slot) {
            slots.pending.push_back(Pending { slot, sequence, epoch });
        }
    }

    /// Makes freed slots usable: `durable` is the newest durable manifest sequence, `oldest_hold` the epoch
    /// of the
    /// oldest hold (`u64::MAX`: none).
    pub fn collect(&self, durable: u64, oldest_hold: u64) {
        let mut slots = self.slots.lock();
        let mut kept = VecDeque::new();
        while let Some(pending) = slots.pending.pop_front() {
            let writes = if mutant!(ReuseAtOnce) { 0 } else { WRITES_BEFORE_REUSE };
            if pending.sequence + writes <= durable && pending.epoch < oldest_hold {
                slots.used.set(pending.slot, false);
                slots.used_count -= 1;
                slots.first_free = slots.first_free.min(pending.slot);
            } else {
                kept.push_back(pending);
            }
        }
        slots.pending = kept;
    }
}

pub(super) fn drive_error(drive: &dyn Drive, doing: &str, error: &std::io::Error) -> Error {
    let kind =
        if error.kind() == std::io::ErrorKind::StorageFull { Kind::NoSpace } else { Kind::Unavailable };
    Error::new(kind, format!("drive {}: {doing}: {error}", drive.name()))
}
