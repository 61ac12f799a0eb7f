//! What an engine is told and what it tells.

use super::retention::RetentionInfo;
use super::flatten::{BaseInfo, PromotionInfo};
use super::scrub::ScrubProgress;
use super::space::{PoolUsage, VolumeSpace};
use crate::group::Usage;
use super::Engine;
use crate::error::{Error, Kind, Result};
use crate::placement::{DriveCondition, HealProgress, Health, Pool, PoolDrive, PoolEvent, ProbeInfo};
use holdfast_device::real::RealDrive;
use holdfast_device::{Drive, SharedMemory};
use holdfast_format::limits::{
    DATA_CACHE_BYTES_DEFAULT, FEED_UNITS_DEFAULT, HEAL_BYTES_PER_S_DEFAULT, HEAL_BYTES_PER_S_MIN, MEMTABLE_BYTES_DEFAULT, METADATA_CACHE_BYTES_DEFAULT, RING_BYTES_DEFAULT, WRITE_BYTES_MAX,
};
use crate::group::Retention;
use holdfast_format::inode::PastAccess;
use holdfast_format::retention::{HistoryLimit, ThinStep};
use holdfast_format::{DomainLevel, GroupId, Uuid};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A drive as the administrator names it.
#[derive(Clone, Debug)]
pub struct DriveSpec {
    pub path: PathBuf,
    /// Bytes to use; `None`: 0.95 × free ÷ this daemon's drives on that disk.
    pub bytes: Option<u64>,
    /// `rack/block/node/drive`; empty parts mean "the same for all", the last is the drive itself.
    pub domain: String,
}

#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Memtable budget of one group (two of them).
    pub memtable_bytes: usize,
    /// Ring of one group.
    pub ring_bytes: usize,
    /// Cache of metadata blocks.
    pub metadata_cache_bytes: usize,
    /// Cache of file data that was read from drives; 0: none, and nothing is read from the ring once it is flushed.
    pub data_cache_bytes: usize,
    /// Changes that a feed selects with one walk, about: 24 bytes each, for four feeds at once.
    pub feed_units: usize,
    /// Folder for rings; a tmpfs where there is one.
    pub runtime_dir: PathBuf,
    /// Every second is kept for so long, and then what the steps of `thin` say, where a group was told nothing else.
    pub retention_s: u64,
    pub thin: Vec<ThinStep>,
    /// Share of the pool that history may hold, in percent.
    pub history_limit_percent: u8,
    /// Healing beside a foreground, and balancing: bytes a second.
    pub heal_bytes_per_s: u64,
    /// Threads for flush, drain and housekeeping. Off in deterministic tests.
    pub background: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            memtable_bytes: MEMTABLE_BYTES_DEFAULT,
            ring_bytes: RING_BYTES_DEFAULT,
            metadata_cache_bytes: METADATA_CACHE_BYTES_DEFAULT,
            data_cache_bytes: DATA_CACHE_BYTES_DEFAULT,
            feed_units: FEED_UNITS_DEFAULT,
            runtime_dir: PathBuf::new(),
            retention_s: 3600,
            thin: Vec::new(),
            history_limit_percent: 20,
            heal_bytes_per_s: HEAL_BYTES_PER_S_DEFAULT,
            background: true,
        }
    }
}

const RING_BYTES_MIN: usize = 4 * WRITE_BYTES_MAX as usize;
const RING_BYTES_MAX: usize = 256 << 20;
const MEMTABLE_BYTES_MIN: usize = 256 << 10;
const MEMTABLE_BYTES_MAX: usize = 1 << 30;
const FEED_UNITS_MAX: usize = 1 << 24;
const CACHE_BYTES_MIN: usize = 1 << 20;
const DATA_CACHE_BYTES_MAX: usize = 1 << 40;

impl EngineOptions {
    /// Refuses budgets out of range, naming the range.
    pub fn validate(&self) -> Result<()> {
        let check = |what: &str, value: usize, min: usize, max: usize| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            Err(Error::invalid(format!("{what} is {value} bytes: choose {min} to {max}")))
        };
        check("the memtable budget", self.memtable_bytes, MEMTABLE_BYTES_MIN, MEMTABLE_BYTES_MAX)?;
        check("the ring", self.ring_bytes, RING_BYTES_MIN, RING_BYTES_MAX)?;
        check("changes that a feed selects", self.feed_units, 1, FEED_UNITS_MAX)?;
        check("the metadata cache", self.metadata_cache_bytes, CACHE_BYTES_MIN, usize::MAX)?;
        if self.data_cache_bytes > 0 {
            check("the data cache", self.data_cache_bytes, CACHE_BYTES_MIN, DATA_CACHE_BYTES_MAX)?;
        }
        if self.heal_bytes_per_s < HEAL_BYTES_PER_S_MIN {
            return Err(Error::invalid(format!(
                "rebuilding is limited to {} bytes a second: choose at least {HEAL_BYTES_PER_S_MIN}",
                self.heal_bytes_per_s
            )));
        }
        self.retention().validate()?;
        if self.history_limit_percent > 90 {
            return Err(Error::invalid("the history limit is more than 90 % of the pool"));
        }
        Ok(())
    }
}

impl EngineOptions {
    pub(super) fn retention(&self) -> Retention {
        Retention { window_s: self.retention_s, thin: self.thin.clone(), limit: HistoryLimit::None }
    }
}

#[derive(Clone, Debug)]
pub struct VolumeInfo {
    pub name: String,
    pub group: String,
    /// Its number in the group, the same at all sites; 0: not known.
    pub branch: u32,
    pub rf: u8,
    /// Copies that a write needs to count, and what it does with fewer: fail or wait.
    pub copies_min: u8,
    pub fail_below: bool,
    /// What no two copies share.
    pub domain: DomainLevel,
    /// What of its promises cannot be kept now, in words; empty: all are.
    pub trouble: String,
    pub ack_write: bool,
    pub quota_bytes: u64,
    /// Who may look at its past in a mount.
    pub past: PastAccess,
    /// What its group is a clone of.
    pub base: Option<BaseInfo>,
    /// It is to stand alone, and does not yet.
    pub promotion: Option<PromotionInfo>,
    pub created_s: i64,
    pub newest_lsn: u64,
    pub durable_lsn: u64,
    pub drained_lsn: u64,
    /// Of its group.
    pub retention: RetentionInfo,
    pub usage: Usage,
    pub space: VolumeSpace,
    /// Why it cannot be used: its group is damaged. Empty: it can.
    pub problem: String,
}

#[derive(Clone, Debug)]
pub struct DriveInfo {
    pub uuid: String,
    pub path: String,
    pub domain: String,
    /// `active`, `slow`, `failing`, `draining`, `out`, `missing`, `stale`
    pub state: String,
    /// Why it is not active; empty otherwise.
    pub reason: String,
    /// Since when, in seconds since 1970; 0: since before the pool was opened.
    pub since_s: i64,
    /// What reads and writes took lately, mean, in nanoseconds; 0: not measured.
    pub read_ns: u64,
    pub write_ns: u64,
    pub total_bytes: u64,
    pub free_bytes: u64,
    /// Direct I/O refused: buffered writes with fdatasync.
    pub buffered: bool,
}

/// Counters since start, by name: `bytes_written`, `repairs`, `checksum_failures`, `flushes` …
pub type Counters = Vec<(String, u64)>;

#[derive(Clone, Debug)]
pub struct PoolStatus {
    pub name: String,
    pub uuid: String,
    pub slot_bytes: u32,
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub evictable_bytes: u64,
    pub reserve_bytes: u64,
    pub log_bytes: u64,
    pub metadata_bytes: u64,
    pub data_bytes: u64,
    /// Whose the data is.
    pub usage: PoolUsage,
    pub history_window_s: u64,
    pub drives: Vec<DriveInfo>,
    /// Sentences for the administrator: drives on one disk, degraded groups …
    pub warnings: Vec<String>,
    pub counters: Counters,
    /// Rebuilding of lost copies.
    pub healing: HealProgress,
    /// The newest things that happened to drives, oldest first.
    pub events: Vec<PoolEvent>,
    pub scrub: ScrubProgress,
}

#[derive(Clone, Debug)]
pub struct VolumeCreate {
    pub name: String,
    pub rf: u8,
    /// Join this group; `None`: a group of its own, named like the volume.
    pub group: Option<String>,
    pub ack_write: bool,
    pub quota_bytes: u64,
    /// uid and gid of the root directory.
    pub owner: (u32, u32),
}

/// Memory for a group's ring: (pool, group, bytes).
pub type RingMemory = Arc<dyn Fn(Uuid, GroupId, usize) -> Result<SharedMemory> + Send + Sync>;

/// Rings as files in the run-time directory.
pub(super) fn mapped_rings(runtime_dir: PathBuf) -> RingMemory {
    Arc::new(move |pool, group, bytes| {
        let path = runtime_dir.join(format!("{pool}-{group}.ring"));
        SharedMemory::map(&path, bytes).map_err(|error| {
            let kind = if error.kind() == ErrorKind::StorageFull { Kind::NoSpace } else { Kind::Unavailable };
            Error::new(kind, format!("{}: cannot map {bytes} bytes for the log's ring: {error}", path.display()))
        })
    })
}

/// A drive's I/O error as the administrator should see it.
pub(super) fn drive_error(path: &Path, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::WouldBlock => Kind::Conflict,
        ErrorKind::PermissionDenied => Kind::Denied,
        ErrorKind::InvalidInput | ErrorKind::NotADirectory => Kind::Invalid,
        _ => Kind::Unavailable,
    };
    let text = error.to_string();
    let path = path.display().to_string();
    Error::new(kind, if text.contains(&path) { text } else { format!("drive {path}: {text}") })
}

pub(super) fn open_drive(path: &Path) -> Result<Arc<dyn Drive>> {
    let drive = RealDrive::open(path).map_err(|error| drive_error(path, &error))?;
    drive.lock().map_err(|error| drive_error(path, &error))?;
    Ok(Arc::new(drive))
}

/// Opens and locks a drive of a pool. A directory without a superblock is refused before anything is written to it,
/// the lock file included.
///
/// Errors: `NotFound` and `Unavailable` when the drive is away: there is nothing at the path, or an empty directory, where a
/// disk should be mounted, or what is there does not answer. The pool can be opened without it.
pub(super) fn open_member(path: &Path) -> Result<Arc<dyn Drive>> {
    let drive = RealDrive::open(path).map_err(|error| drive_error(path, &error))?;
    match Pool::probe(&drive) {
        Ok(ProbeInfo::Empty) => {
            let what = format!("drive {}: the directory is empty; mount its disk there", path.display());
            return Err(Error::new(Kind::NotFound, what));
        }
        Ok(ProbeInfo::Foreign { .. }) => {
            return Err(Error::invalid(format!("drive {} is in no pool", path.display())));
        }
        Ok(_) | Err(_) => {}
    }
    drive.lock().map_err(|error| drive_error(path, &error))?;
    Ok(Arc::new(drive))
}

/// Opens and locks the directories of a pool that is to be created.
pub fn real_drives(specs: &[DriveSpec]) -> Result<Vec<PoolDrive>> {
    let mut drives = Vec::with_capacity(specs.len());
    for (at, spec) in specs.iter().enumerate() {
        if specs[..at].iter().any(|other| other.path == spec.path) {
            return Err(Error::invalid(format!("drive {} is named twice", spec.path.display())));
        }
        drives.push(PoolDrive {
            drive: open_drive(&spec.path)?,
            bytes: spec.bytes,
            domain: spec.domain.clone(),
        });
    }
    Ok(drives)
}

pub(super) fn status_of(engine: &Engine) -> PoolStatus {
    let pool = engine.pool();
    let space = pool.space();
    let groups = engine.groups();
    let drives = pool
        .drives()
        .into_iter()
        .map(|drive| DriveInfo {
            uuid: drive.uuid.to_string(),
            path: drive.name,
            domain: drive.domain,
            state: match (drive.draining, drive.condition, drive.health) {
                (true, _, _) => "draining",
                (false, DriveCondition::Active, Health::Slow | Health::Failing) => drive.health.name(),
                (false, condition, _) => condition.name(),
            }
            .to_owned(),
            reason: drive.reason,
            since_s: drive.changed_s,
            read_ns: drive.latency.read_ns.unwrap_or(0),
            write_ns: drive.latency.write_ns.unwrap_or(0),
            total_bytes: drive.total_bytes,
            free_bytes: drive.free_bytes,
            buffered: false,
        })
        .collect();
    let mut warnings = pool.warnings();
    warnings.extend(engine.damage_warnings());
    warnings.extend(engine.volume_warnings());
    warnings.extend(engine.history_warnings());
    warnings.extend(engine.promotion_warnings());
    warnings.extend(engine.trouble().map(|error| format!("housekeeping: {error}")));
    warnings.extend(engine.clean_trouble.lock().as_ref().map(|error| format!("cleaning: {error}")));
    warnings.extend(engine.heal_trouble.lock().as_ref().map(|error| format!("healing: {error}")));
    warnings.extend(groups.iter().filter_map(|group| group.failure()).map(|error| format!("writes stopped: {error}")));
    PoolStatus {
        name: pool.name().to_owned(),
        uuid: pool.uuid().to_string(),
        slot_bytes: pool.slot_bytes() as u32,
        total_bytes: space.total,
        free_bytes: space.free,
        evictable_bytes: groups.iter().map(|group| group.evictable_bytes()).sum(),
        reserve_bytes: space.reserve,
        log_bytes: space.log,
        metadata_bytes: space.metadata,
        data_bytes: space.data,
        usage: engine.usage(&space),
        history_window_s: groups.iter().map(|group| group.oldest_tick_s()).max().unwrap_or(0),
        drives,
        warnings,
        counters: counters_of(engine),
        healing: pool.heal_progress(),
        events: pool.events(),
        scrub: engine.scrub_progress(),
    }
}

fn counters_of(engine: &Engine) -> Counters {
    let pool = engine.pool().counters();
    let groups = engine.groups();
    let sum = |read: &dyn Fn(&crate::group::Group) -> u64| groups.iter().map(|group| read(group)).sum::<u64>();
    let cache = engine.cache.stats();
    let data = engine.data_cache.stats();
    [
        ("drive_bytes_written", pool.bytes_written),
        ("drive_bytes_logged", pool.bytes_logged),
        ("drive_bytes_packed", pool.bytes_packed),
        ("drive_bytes_cleaned", pool.bytes_cleaned),
        ("drive_bytes_tables", pool.bytes_tables),
        ("drive_bytes_manifest", pool.bytes_manifest),
        ("drive_bytes_read", pool.bytes_read),
        ("checksum_failures", pool.checksum_failures),
        ("read_errors", pool.read_errors),
        ("repairs", pool.repairs),
        ("reads_hedged", pool.reads_hedged),
        ("hedges_won", pool.hedges_won),
        ("reads_last_resort", pool.reads_last_resort),
        ("drives_demoted", pool.drives_demoted),
        ("drives_out", pool.drives_out),
        ("manifest_writes", pool.manifest_writes),
        ("egroups_freed", pool.egroups_freed),
        ("egroups_cleaned", pool.egroups_cleaned),
        ("pages_moved", pool.pages_moved),
        ("pages_moved_past", pool.pages_moved_past),
        ("copies_healed", pool.copies_healed),
        ("bytes_healed", pool.bytes_healed),
        ("bytes_scrubbed", pool.bytes_scrubbed),
        ("ops", sum(&|group| group.counters.ops.load(Ordering::Relaxed))),
        ("payload_bytes", sum(&|group| group.counters.bytes_written.load(Ordering::Relaxed))),
        ("payload_copy_bytes", sum(&|group| group.counters.copy_bytes_written.load(Ordering::Relaxed))),
        ("drain_table_bytes", sum(&|group| group.counters.drain_table_bytes.load(Ordering::Relaxed))),
        ("merge_table_bytes", sum(&|group| group.counters.merge_table_bytes.load(Ordering::Relaxed))),
        ("expire_table_bytes", sum(&|group| group.counters.expire_table_bytes.load(Ordering::Relaxed))),
        ("reclaims", sum(&|group| group.counters.reclaims.load(Ordering::Relaxed))),
        ("paced_ms", sum(&|group| group.paced_ns() / 1_000_000)),
        ("log_flushes", sum(&|group| group.log().flushes.load(Ordering::Relaxed))),
        ("log_bytes_written", sum(&|group| group.log().logged_bytes.load(Ordering::Relaxed))),
        ("drains", sum(&|group| group.counters.drains.load(Ordering::Relaxed))),
        ("compactions", sum(&|group| group.counters.compactions.load(Ordering::Relaxed))),
        ("replayed_ops", sum(&|group| group.counters.replayed.load(Ordering::Relaxed))),
        ("metadata_cache_hits", cache.hits),
        ("metadata_cache_misses", cache.misses),
        ("metadata_cache_bytes", cache.bytes),
        ("data_cache_hits", data.hits),
        ("data_cache_misses", data.misses),
        ("data_cache_bytes", data.bytes),
        ("keys_stepped", sum(&|group| group.tree().stats().keys_stepped)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
