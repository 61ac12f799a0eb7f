//! A pool with its groups and volumes: what the addon holds.

use crate::api::FileSystem;
use crate::error::{Error, Kind, Result};
use std::path::PathBuf;
use std::sync::Arc;

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
    /// Folder for rings; a tmpfs where there is one.
    pub runtime_dir: PathBuf,
    /// Retention of ticks.
    pub retention_s: u64,
    /// Share of the pool that history may hold, in percent.
    pub history_limit_percent: u8,
    /// Threads for flush, drain and housekeeping. Off in deterministic tests.
    pub background: bool,
}

#[derive(Clone, Debug)]
pub struct VolumeInfo {
    pub name: String,
    pub group: String,
    pub rf: u8,
    pub ack_write: bool,
    pub quota_bytes: u64,
    pub created_s: i64,
    pub newest_lsn: u64,
    pub durable_lsn: u64,
    pub drained_lsn: u64,
}

#[derive(Clone, Debug)]
pub struct DriveInfo {
    pub uuid: String,
    pub path: String,
    pub domain: String,
    /// `active`, `out`, `missing`, `stale`
    pub state: String,
    /// Why it is not active; empty otherwise.
    pub reason: String,
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
    pub history_window_s: u64,
    pub drives: Vec<DriveInfo>,
    /// Sentences for the administrator: drives on one disk, degraded groups …
    pub warnings: Vec<String>,
    pub counters: Counters,
}

#[derive(Clone, Debug)]
pub struct VolumeCreate {
    pub name: String,
    pub rf: u8,
    /// Join this group; `None`: a group of its own, named like the volume.
    pub group: Option<String>,
    pub ack_write: bool,
    pub quota_bytes: u64,
}

/// An open pool. Dropping it without `close` is like a crash: nothing acknowledged is lost.
pub struct Engine {
    _private: (),
}

fn missing<T>() -> Result<T> {
    Err(Error::new(Kind::Internal, "the engine is being built"))
}

impl Engine {
    /// Creates a pool on empty directories and opens it.
    pub fn create(_name: &str, _drives: &[DriveSpec], _options: EngineOptions) -> Result<Arc<Self>> {
        missing()
    }
    /// Opens a pool from its drives (replays what is needed). At least the drives that make every group readable.
    pub fn open(_drives: &[PathBuf], _options: EngineOptions) -> Result<Arc<Self>> {
        missing()
    }
    /// What lies on a path: pool name and uuid, or why it is none.
    pub fn probe(_path: &std::path::Path) -> Result<(String, String)> {
        missing()
    }
    pub fn status(&self) -> Result<PoolStatus> {
        missing()
    }
    pub fn volume_create(&self, _create: &VolumeCreate) -> Result<VolumeInfo> {
        missing()
    }
    pub fn volumes(&self) -> Result<Vec<VolumeInfo>> {
        missing()
    }
    pub fn volume_rename(&self, _name: &str, _new_name: &str) -> Result<()> {
        missing()
    }
    pub fn volume_set_quota(&self, _name: &str, _quota_bytes: u64) -> Result<()> {
        missing()
    }
    pub fn volume_destroy(&self, _name: &str) -> Result<()> {
        missing()
    }
    /// The file system of a volume, to be mounted. `Conflict` while it is handed out already.
    pub fn file_system(&self, _name: &str) -> Result<Arc<dyn FileSystem>> {
        missing()
    }
    /// Everything acknowledged is durable when it returns.
    pub fn flush(&self) -> Result<()> {
        missing()
    }
    /// Drains and compacts until nothing is left to do. For tests and `pool` maintenance.
    pub fn settle(&self) -> Result<()> {
        missing()
    }
    /// Flushes, drains, ends the threads, closes the drives. Later calls fail with `Closed`.
    pub fn close(&self) -> Result<()> {
        missing()
    }
}
