//! A new pool on empty drives.

use super::disk::{Disk, Disks, DiskSpec, Layout, MANIFEST_FILE, SUPERBLOCK_FILE, drive_error};
use super::image::Image;
use super::journal::Journal;
use super::labels;
use super::report::Counters;
use super::types::{PoolDrive, PoolOptions, ProbeInfo};
use super::{Holds, Pool};
use crate::error::{Error, Kind, Result};
use holdfast_device::{Drive, DriveSpace};
use holdfast_format::limits::{
    BLOCK_BYTES, DRIVE_BYTES_MIN, DRIVES_PER_POOL_MAX, GROUP_NAME_BYTES_MAX,
    MANIFEST_AREA_BYTES_MAX, MANIFEST_AREA_BYTES_MIN, MANIFEST_COPIES_MAX, slot_bytes_for,
};
use holdfast_format::manifest::DriveEntry;
use holdfast_format::Uuid;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};

/// Part of the free space that a drive without a size gets.
const DEFAULT_SHARE_PERCENT: u64 = 95;

/// What a pool is put together from, at creation and at open.
pub(super) struct Assembly {
    pub uuid: Uuid,
    pub slot_bytes: u32,
    pub area_bytes: u64,
    pub disks: Vec<Disk>,
    pub image: Image,
    pub journal: Journal,
    pub warnings: Vec<String>,
}

pub(super) fn assemble(assembly: Assembly, mut options: PoolOptions) -> Arc<Pool> {
    let Assembly { uuid, slot_bytes, area_bytes, disks, image, journal, warnings } = assembly;
    let rf_max = image.groups.values().flat_map(|group| &group.segments).map(|segment| segment.rf).max();
    let instance = options.rng.next_u64();
    let opened_ns = options.clock.boottime_ns();
    Arc::new_cyclic(|me| Pool {
        me: me.clone(),
        name: image.name.clone(),
        uuid,
        slot_bytes,
        area_bytes,
        disks: Disks::new(disks),
        clock: options.clock,
        rng: Mutex::new(options.rng),
        cache: options.cache,
        instance,
        durable: AtomicU64::new(journal.sequence),
        membership: AtomicU64::new(journal.membership),
        looking: Mutex::default(),
        journal: Mutex::new(journal),
        next_egroup: AtomicU64::new(image.next_egroup),
        next_group: AtomicU32::new(image.next_group),
        image: RwLock::new(image),
        tree: OnceLock::new(),
        maintenance: Mutex::new(()),
        rf_max: AtomicU8::new(rf_max.unwrap_or(1)),
        group_domains: RwLock::default(),
        unpublished: Mutex::new(BTreeMap::new()),
        suspects: Mutex::new(Vec::new()),
        restoring: Mutex::default(),
        changing_drives: Mutex::default(),
        pins: Mutex::new(BTreeMap::new()),
        holds: Mutex::new(Holds { epoch: 1, live: BTreeMap::new() }),
        emptied: Mutex::new(BTreeMap::new()),
        dead_pages: Mutex::default(),
        upkeep_slots: Mutex::default(),
        live_bytes: AtomicU64::new(u64::MAX),
        replayed: AtomicBool::new(false),
        kept_below: AtomicU64::new(0),
        closed: AtomicBool::new(false),
        fenced: AtomicBool::new(false),
        boot_id: options.boot_id,
        looked_ns: AtomicU64::new(opened_ns),
        features: AtomicU64::new(0),
        broken: AtomicBool::new(false),
        cleaning: Mutex::default(),
        cleaning_pays: AtomicBool::new(false),
        read_turn: AtomicU64::new(0),
        doubts: Mutex::default(),
        doubted: AtomicBool::new(false),
        read_ns: AtomicU64::new(0),
        late_seen: AtomicBool::new(false),
        events: Mutex::default(),
        relocated: RwLock::default(),
        healer: Mutex::default(),
        healing: Mutex::default(),
        unprotected: AtomicBool::new(false),
        balancing: AtomicBool::new(false),
        balance_round: Mutex::default(),
        bytes_unbalanced: AtomicU64::new(0),
        opened_ns,
        counters: Counters::default(),
        warnings: Mutex::new(warnings),
    })
}

fn check(name: &str, drives: &[PoolDrive]) -> Result<()> {
    if name.is_empty()
        || name.len() > GROUP_NAME_BYTES_MAX
        || name.chars().any(|c| c.is_control() || c == '/')
    {
        return Err(Error::invalid(format!(
            "a pool's name has 1 to {GROUP_NAME_BYTES_MAX} bytes, no slash and no control characters"
        )));
    }
    if drives.is_empty() || drives.len() > DRIVES_PER_POOL_MAX {
        return Err(Error::invalid(format!(
            "a pool has 1 to {DRIVES_PER_POOL_MAX} drives, not {}",
            drives.len()
        )));
    }
    for (at, drive) in drives.iter().enumerate() {
        let path = drive.drive.name();
        labels::check(&path, &drive.domain)?;
        if drives[..at].iter().any(|other| other.drive.name() == path) {
            return Err(Error::invalid(format!("drive {path} is named twice")));
        }
        match super::superblocks::probe(&*drive.drive)? {
            ProbeInfo::Empty => {}
            ProbeInfo::Member { name, pool, .. } => {
                return Err(Error::new(Kind::Conflict, format!("drive {path} is in pool {name} ({pool})")));
            }
            ProbeInfo::Newer { reason } => {
                let what = format!("drive {path} is in a pool of a newer program ({reason})");
                return Err(Error::new(Kind::Conflict, what));
            }
            ProbeInfo::Damaged { reason } => {
                let what = format!("drive {path} is in a pool, but its superblock is damaged: {reason}");
                return Err(Error::new(Kind::Conflict, what));
            }
            ProbeInfo::Foreign { reason } => return Err(Error::invalid(format!("drive {path}: {reason}"))),
        }
    }
    Ok(())
}

/// Bytes that a drive gives to a pool that is there already.
pub(super) fn size_of(add: &PoolDrive) -> Result<u64> {
    labels::check(&add.drive.name(), &add.domain)?;
    let (bytes, _) = sizes(std::slice::from_ref(add))?;
    Ok(bytes[0])
}

/// Bytes that each drive gives, and sentences about drives that share a disk.
fn sizes(drives: &[PoolDrive]) -> Result<(Vec<u64>, Vec<String>)> {
    let spaces: Vec<DriveSpace> = drives
        .iter()
        .map(|drive| {
            drive.drive.space().map_err(|error| drive_error(&*drive.drive, "asking for its space", &error))
        })
        .collect::<Result<_>>()?;
    let mut sizes = Vec::with_capacity(drives.len());
    let mut wanted: BTreeMap<u64, u64> = BTreeMap::new();
    let mut warnings = Vec::new();
    for (at, (drive, space)) in drives.iter().zip(&spaces).enumerate() {
        let path = drive.drive.name();
        let neighbours = spaces.iter().filter(|other| other.disk_id == space.disk_id).count() as u64;
        if neighbours > 1 && spaces[..at].iter().all(|other| other.disk_id != space.disk_id) {
            warnings
                .push(format!("{neighbours} drives, {path} among them, lie on one disk: they fail together"));
        }
        let default = space.free_bytes / 100 * DEFAULT_SHARE_PERCENT / neighbours;
        let bytes = drive.bytes.unwrap_or(default) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        if bytes < DRIVE_BYTES_MIN {
            let (has, least) = (bytes >> 20, DRIVE_BYTES_MIN >> 20);
            return Err(Error::invalid(format!(
                "drive {path} would have {has} MiB; the least is {least} MiB"
            )));
        }
        let sum = wanted.entry(space.disk_id).or_default();
        *sum += bytes;
        if *sum > space.free_bytes {
            let (sum, free) = (*sum >> 20, space.free_bytes >> 20);
            return Err(Error::no_space(format!(
                "drive {path}: {sum} MiB are asked of its disk, {free} MiB are free"
            )));
        }
        sizes.push(bytes);
    }
    Ok((sizes, warnings))
}

/// Removes what an unfinished creation left, as far as that works: the drives were empty.
fn clear(drives: &[Arc<dyn Drive>]) {
    for drive in drives {
        for file in [MANIFEST_FILE, SUPERBLOCK_FILE] {
            if drive.open(file).is_ok_and(|found| found.is_some()) {
                // The first error is what the caller gets; this one would only hide it.
                let _left_behind = drive.remove(file);
            }
        }
    }
}

/// Crash order: 1. files; 2. the manifest; 3. the superblocks. Without a superblock a directory is no drive
/// of a pool.
pub(super) fn create(name: &str, drives: Vec<PoolDrive>, mut options: PoolOptions) -> Result<Arc<Pool>> {
    check(name, &drives)?;
    let (sizes, warnings) = sizes(&drives)?;
    let smallest = sizes.iter().copied().min().unwrap_or(0);
    let slot_bytes = slot_bytes_for(smallest);
    let area_bytes = (smallest / 64).clamp(MANIFEST_AREA_BYTES_MIN, MANIFEST_AREA_BYTES_MAX)
        / BLOCK_BYTES as u64
        * BLOCK_BYTES as u64;
    let uuid = Uuid(options.rng.uuid());
    let all: Vec<Arc<dyn Drive>> = drives.iter().map(|drive| drive.drive.clone()).collect();
    let mut image = Image { name: name.to_owned(), next_egroup: 1, next_group: 1, ..Image::default() };
    let mut disks = Vec::with_capacity(drives.len());
    for (index, (drive, bytes)) in drives.into_iter().zip(sizes).enumerate() {
        let index = index as u16;
        let drive_uuid = Uuid(options.rng.uuid());
        let domain = labels::complete(&drive.domain, drive_uuid);
        let entry = DriveEntry {
            index,
            uuid: drive_uuid,
            domain: domain.clone(),
            bytes,
            out: false,
            draining: false,
            absent_since: 0,
        };
        image.drives.insert(index, entry);
        let layout = Layout::new(bytes, slot_bytes, area_bytes);
        let spec = DiskSpec { index, uuid: drive_uuid, domain, bytes, layout };
        match Disk::create(spec, drive.drive, area_bytes) {
            Ok(disk) => disks.push(disk),
            Err(error) => {
                clear(&all);
                return Err(error);
            }
        }
    }
    let journal = Journal { membership: 1, area: 1, ..Journal::default() };
    let pool = assemble(Assembly { uuid, slot_bytes, area_bytes, disks, image, journal, warnings }, options);
    match pool.first_area() {
        Ok(()) => Ok(pool),
        Err(error) => {
            clear(&all);
            Err(error)
        }
    }
}

impl Pool {
    fn first_area(&self) -> Result<()> {
        let drives = self.spread(&[], MANIFEST_COPIES_MAX);
        self.image.write().manifest_drives = drives.clone();
        let mut journal = self.journal.lock();
        let failed = self.switch_area(&mut journal, drives, &[])?;
        match failed.into_iter().next() {
            None => Ok(()),
            Some((drive, reason)) => {
                let name = self.disks[drive as usize].name();
                Err(Error::new(Kind::Unavailable, format!("drive {name}: {reason}")))
            }
        }
    }
}
