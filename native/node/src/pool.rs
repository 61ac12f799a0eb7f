//! Pools and their volumes.

use crate::call::in_thread;
use crate::clones::{CloneBase, Promotion};
use crate::convert;
use crate::registry::Registry;
use crate::retention::{Retention, ThinStep};
use crate::space::{GroupUsage, PoolUsage, VolumeSpace};
use holdfast_device::process::share_heaps;
use holdfast_store::engine::{self, Engine};
use holdfast_store::error::{Error, Kind};
use napi::{Env, Status};
use napi::bindgen_prelude::{BigInt, Object, Uint8Array};
use napi_derive::napi;
use std::path::PathBuf;
use std::sync::Arc;

/// Open pools of one process at most.
const POOLS_MAX: usize = 64;
static POOLS: Registry<Engine> = Registry::new(POOLS_MAX);

/// The open pool behind a handle.
pub fn pool(handle: u32) -> Result<Arc<Engine>, Error> {
    POOLS.get(handle).ok_or_else(|| Error::new(Kind::Closed, "the pool is closed"))
}

/// A drive as the administrator names it.
#[napi(object)]
pub struct DriveSpec {
    pub path: Uint8Array,
    /// Bytes to use; absent: 0.95 × free ÷ this daemon's drives on that disk.
    pub bytes: Option<BigInt>,
    /// `rack/block/node/drive`; empty parts mean "the same for all".
    pub domain: String,
}

impl DriveSpec {
    fn convert(self) -> napi::Result<engine::DriveSpec> {
        Ok(engine::DriveSpec {
            path: convert::path("drive", &self.path)?,
            bytes: self.bytes.as_ref().map(|bytes| convert::unsigned("bytes", bytes)).transpose()?,
            domain: self.domain,
        })
    }
}

#[napi(object)]
pub struct PoolOptions {
    pub memtable_bytes: BigInt,
    pub ring_bytes: BigInt,
    pub metadata_cache_bytes: BigInt,
    pub data_cache_bytes: BigInt,
    /// Folder for rings; a tmpfs where there is one.
    pub runtime_dir: Uint8Array,
    /// Every second is kept for so long, and then what `thin` says, where a group was told nothing else.
    pub retention_s: BigInt,
    pub thin: Vec<ThinStep>,
    pub history_limit_percent: f64,
    /// Rebuilding beside other work, and balancing.
    pub heal_bytes_per_s: BigInt,
}

impl PoolOptions {
    fn convert(&self) -> napi::Result<engine::EngineOptions> {
        Ok(engine::EngineOptions {
            memtable_bytes: convert::memory("memtableBytes", &self.memtable_bytes)?,
            ring_bytes: convert::memory("ringBytes", &self.ring_bytes)?,
            metadata_cache_bytes: convert::memory("metadataCacheBytes", &self.metadata_cache_bytes)?,
            data_cache_bytes: convert::memory("dataCacheBytes", &self.data_cache_bytes)?,
            runtime_dir: convert::path("runtimeDir", &self.runtime_dir)?,
            retention_s: convert::unsigned("retentionS", &self.retention_s)?,
            thin: self.thin.iter().map(ThinStep::convert).collect::<napi::Result<_>>()?,
            history_limit_percent: convert::whole("historyLimitPercent", self.history_limit_percent, 100)? as u8,
            heal_bytes_per_s: convert::unsigned("healBytesPerS", &self.heal_bytes_per_s)?,
            ..engine::EngineOptions::default()
        })
    }
}

#[napi(object)]
pub struct PoolIdentity {
    pub name: String,
    pub uuid: String,
}

#[napi(object)]
pub struct DriveStatus {
    pub uuid: String,
    pub path: String,
    pub domain: String,
    /// `active`, `slow`, `failing`, `draining`, `out`, `missing` or `stale`.
    pub state: String,
    /// Why it is not active; empty otherwise.
    pub reason: String,
    /// Since when, in seconds since 1970; 0: since before the pool was opened.
    pub since_s: f64,
    /// What reads and writes took lately, in nanoseconds; 0: not measured.
    pub read_ns: BigInt,
    pub write_ns: BigInt,
    pub total_bytes: BigInt,
    pub free_bytes: BigInt,
    /// Direct I/O was refused there: buffered writes with fdatasync.
    pub buffered: bool,
}

#[napi(object)]
pub struct Counter {
    pub name: String,
    pub value: BigInt,
}

#[napi(object)]
pub struct PoolStatus {
    pub name: String,
    pub uuid: String,
    pub slot_bytes: u32,
    pub total_bytes: BigInt,
    pub free_bytes: BigInt,
    pub evictable_bytes: BigInt,
    pub reserve_bytes: BigInt,
    pub log_bytes: BigInt,
    pub metadata_bytes: BigInt,
    pub data_bytes: BigInt,
    pub usage: PoolUsage,
    pub history_window_s: BigInt,
    pub drives: Vec<DriveStatus>,
    pub warnings: Vec<String>,
    /// Since start.
    pub counters: Vec<Counter>,
    /// Rebuilding of copies that were lost with a drive.
    pub healing: Healing,
    /// The newest things that happened to drives, oldest first.
    pub events: Vec<PoolEvent>,
    pub scrub: Scrub,
}

/// Something that happened to a drive, for the log.
#[napi(object)]
pub struct PoolEvent {
    /// Counted from 1 since the pool was opened.
    pub number: f64,
    /// Seconds since 1970.
    pub at_s: f64,
    pub what: String,
}

impl From<engine::PoolEvent> for PoolEvent {
    fn from(event: engine::PoolEvent) -> Self {
        Self { number: event.number as f64, at_s: event.at_s as f64, what: event.what }
    }
}

/// How far the background's scrub is.
#[napi(object)]
pub struct Scrub {
    pub running: bool,
    /// 0: none yet.
    pub pass: BigInt,
    /// Seconds since 1970.
    pub started_s: BigInt,
    /// Of this pass.
    pub bad_copies: BigInt,
    pub repaired: BigInt,
    pub lost: BigInt,
    /// Absent: no pass runs.
    pub eta_s: Option<BigInt>,
    /// Since the pool was opened.
    pub findings: Vec<String>,
}

impl From<engine::ScrubProgress> for Scrub {
    fn from(progress: engine::ScrubProgress) -> Self {
        Self {
            running: progress.running,
            pass: progress.pass.into(),
            started_s: progress.started_s.into(),
            bad_copies: progress.bad_copies.into(),
            repaired: progress.repaired.into(),
            lost: progress.lost.into(),
            eta_s: progress.eta_s.map(BigInt::from),
            findings: progress.findings,
        }
    }
}

/// What a scrub on demand looked at and found.
#[napi(object)]
pub struct ScrubReport {
    pub tables: BigInt,
    pub pages: BigInt,
    pub footers: BigInt,
    pub frames: BigInt,
    /// Read, all copies together.
    pub bytes: BigInt,
    pub bad_copies: BigInt,
    pub repaired: BigInt,
    /// Pieces that no copy has right.
    pub lost: BigInt,
    pub findings: Vec<String>,
}

impl From<engine::ScrubReport> for ScrubReport {
    fn from(report: engine::ScrubReport) -> Self {
        Self {
            tables: report.tables.into(),
            pages: report.pages.into(),
            footers: report.footers.into(),
            frames: report.frames.into(),
            bytes: report.bytes.into(),
            bad_copies: report.bad_copies.into(),
            repaired: report.repaired.into(),
            lost: report.lost.into(),
            findings: report.findings,
        }
    }
}

#[napi(object)]
pub struct Healing {
    pub things_left: BigInt,
    pub bytes_left: BigInt,
    pub bytes_done: BigInt,
    /// Absent: nothing to do, or not known yet.
    pub eta_s: Option<BigInt>,
    /// Of what lacks copies: tables and egroups with one copy left, and their bytes.
    pub things_single: BigInt,
    pub bytes_single: BigInt,
    /// Tables and egroups without a copy on any drive that is there.
    pub things_lost: BigInt,
    /// With copies that should be further apart.
    pub things_misplaced: BigInt,
    /// To be moved so that drives are filled evenly.
    pub bytes_unbalanced: BigInt,
    /// What cannot be healed, and why.
    pub stuck: Vec<String>,
}

impl From<engine::HealProgress> for Healing {
    fn from(progress: engine::HealProgress) -> Self {
        Self {
            things_left: progress.things_left.into(),
            bytes_left: progress.bytes_left.into(),
            bytes_done: progress.bytes_done.into(),
            eta_s: progress.eta_s.map(BigInt::from),
            things_single: progress.things_single.into(),
            bytes_single: progress.bytes_single.into(),
            things_lost: progress.things_lost.into(),
            things_misplaced: progress.things_misplaced.into(),
            bytes_unbalanced: progress.bytes_unbalanced.into(),
            stuck: progress.stuck,
        }
    }
}

#[napi(object)]
pub struct VolumeCreate {
    pub name: String,
    pub rf: f64,
    /// Absent: a group of its own, named like the volume.
    pub group: Option<String>,
    /// `ack: write` instead of `ack: fsync`.
    pub ack_write: bool,
    /// 0: none.
    pub quota_bytes: BigInt,
    /// Absent: RF - 1, at least 1.
    pub min_write_copies: Option<f64>,
    pub fail_below: bool,
    pub domain: String,
}

/// What to change of a volume; absent: nothing.
#[napi(object)]
pub struct VolumeChange {
    pub rf: Option<f64>,
    /// Copies that a write needs to count; 0: RF - 1, at least 1.
    pub min_write_copies: Option<f64>,
    /// With fewer, writes fail instead of waiting.
    pub fail_below: Option<bool>,
    /// What no two copies share: `drive`, `node`, `block` or `rack`.
    pub domain: Option<String>,
    /// 0: none.
    pub quota_bytes: Option<BigInt>,
    /// Who may look at its past in a mount: `all`, `owner` or `off`.
    pub past: Option<String>,
}

impl VolumeChange {
    fn convert(self) -> napi::Result<engine::VolumeChange> {
        let small = |what: &str, value: Option<f64>| {
            value.map(|value| convert::whole(what, value, u32::from(u8::MAX)).map(|value| value as u8)).transpose()
        };
        Ok(engine::VolumeChange {
            rf: small("rf", self.rf)?,
            min_copies: small("minWriteCopies", self.min_write_copies)?,
            fail_below: self.fail_below,
            domain: self.domain.as_deref().map(domain_level).transpose()?,
            quota_bytes: self.quota_bytes.as_ref().map(|bytes| convert::unsigned("quotaBytes", bytes)).transpose()?,
            past: self.past.as_deref().map(past_access).transpose()?,
        })
    }
}

fn past_access(name: &str) -> napi::Result<engine::PastAccess> {
    let access = engine::PastAccess::from_name(name);
    access.ok_or_else(|| napi::Error::new(Status::InvalidArg, format!("past {name:?}: all, owner or off")))
}

fn domain_level(name: &str) -> napi::Result<engine::DomainLevel> {
    let level = engine::DomainLevel::from_name(name);
    level.ok_or_else(|| napi::Error::new(Status::InvalidArg, format!("domain {name:?}: drive, node, block or rack")))
}

#[napi(object)]
pub struct VolumeInfo {
    pub name: String,
    pub group: String,
    /// Its number in the group, the same at all sites; 0: not known.
    pub branch: u32,
    pub rf: u32,
    pub min_write_copies: u32,
    pub fail_below: bool,
    pub domain: String,
    /// What of its promises cannot be kept now; empty: all are.
    pub trouble: String,
    pub ack_write: bool,
    pub quota_bytes: BigInt,
    /// Who may look at its past in a mount: `all`, `owner` or `off`.
    pub past: String,
    /// What it is a clone of; absent: of nothing.
    pub base: Option<CloneBase>,
    /// It is to stand alone, and does not yet.
    pub promotion: Option<Promotion>,
    /// Seconds since 1970.
    pub created_s: f64,
    pub newest_lsn: BigInt,
    pub durable_lsn: BigInt,
    pub drained_lsn: BigInt,
    /// What its group keeps of the past by itself.
    pub retention: Retention,
    /// Of its group.
    pub usage: GroupUsage,
    pub space: VolumeSpace,
    /// Why it cannot be used: its group is damaged. Empty: it can.
    pub problem: String,
}

impl From<engine::DriveInfo> for DriveStatus {
    fn from(drive: engine::DriveInfo) -> Self {
        Self {
            uuid: drive.uuid,
            path: drive.path,
            domain: drive.domain,
            state: drive.state,
            reason: drive.reason,
            since_s: drive.since_s as f64,
            read_ns: drive.read_ns.into(),
            write_ns: drive.write_ns.into(),
            total_bytes: drive.total_bytes.into(),
            free_bytes: drive.free_bytes.into(),
            buffered: drive.buffered,
        }
    }
}

impl From<engine::PoolStatus> for PoolStatus {
    fn from(status: engine::PoolStatus) -> Self {
        Self {
            name: status.name,
            uuid: status.uuid,
            slot_bytes: status.slot_bytes,
            total_bytes: status.total_bytes.into(),
            free_bytes: status.free_bytes.into(),
            evictable_bytes: status.evictable_bytes.into(),
            reserve_bytes: status.reserve_bytes.into(),
            log_bytes: status.log_bytes.into(),
            metadata_bytes: status.metadata_bytes.into(),
            data_bytes: status.data_bytes.into(),
            usage: status.usage.into(),
            history_window_s: status.history_window_s.into(),
            drives: status.drives.into_iter().map(DriveStatus::from).collect(),
            warnings: status.warnings,
            counters: status
                .counters
                .into_iter()
                .map(|(name, value)| Counter { name, value: value.into() })
                .collect(),
            healing: status.healing.into(),
            events: status.events.into_iter().map(PoolEvent::from).collect(),
            scrub: status.scrub.into(),
        }
    }
}

impl From<engine::VolumeInfo> for VolumeInfo {
    fn from(volume: engine::VolumeInfo) -> Self {
        Self {
            name: volume.name,
            group: volume.group,
            branch: volume.branch,
            rf: u32::from(volume.rf),
            min_write_copies: u32::from(volume.copies_min),
            fail_below: volume.fail_below,
            domain: volume.domain.name().to_owned(),
            trouble: volume.trouble,
            ack_write: volume.ack_write,
            quota_bytes: volume.quota_bytes.into(),
            past: volume.past.name().to_owned(),
            base: volume.base.map(CloneBase::from),
            promotion: volume.promotion.map(Promotion::from),
            created_s: volume.created_s as f64,
            newest_lsn: volume.newest_lsn.into(),
            durable_lsn: volume.durable_lsn.into(),
            drained_lsn: volume.drained_lsn.into(),
            retention: volume.retention.into(),
            usage: volume.usage.into(),
            space: volume.space.into(),
            problem: volume.problem,
        }
    }
}

fn register(engine: Arc<Engine>) -> Result<u32, Error> {
    match POOLS.add(engine.clone()) {
        Some(handle) => Ok(handle),
        None => {
            engine.close()?;
            Err(Error::new(Kind::Unavailable, format!("{POOLS_MAX} pools are open; a daemon holds no more")))
        }
    }
}

/// Creates a pool on empty directories and opens it. Fulfils with its handle.
#[napi(ts_return_type = "Promise<number | Failure>")]
pub fn pool_create(env: &Env, name: String, drives: Vec<DriveSpec>, options: PoolOptions) -> napi::Result<Object<'_>> {
    let options = options.convert()?;
    let specs = drives.into_iter().map(DriveSpec::convert).collect::<napi::Result<Vec<_>>>()?;
    share_heaps();
    in_thread(env, "pool-create", move || register(Engine::create(&name, &specs, options)?))
}

/// Opens a pool from its drives, replaying what is needed. Fulfils with its handle.
#[napi(ts_return_type = "Promise<number | Failure>")]
pub fn pool_open(env: &Env, drives: Vec<Uint8Array>, options: PoolOptions) -> napi::Result<Object<'_>> {
    let options = options.convert()?;
    let drives = drives.iter().map(|drive| convert::path("drive", drive)).collect::<napi::Result<Vec<PathBuf>>>()?;
    share_heaps();
    in_thread(env, "pool-open", move || register(Engine::open(&drives, options)?))
}

/// What lies on a path: the pool's name and uuid, or a failure that says why it is none.
#[napi(ts_return_type = "Promise<PoolIdentity | Failure>")]
pub fn pool_probe<'env>(env: &'env Env, path: Uint8Array) -> napi::Result<Object<'env>> {
    let path = convert::path("path", &path)?;
    in_thread(env, "pool-probe", move || {
        let (name, uuid) = Engine::probe(&path)?;
        Ok(PoolIdentity { name, uuid })
    })
}

#[napi(ts_return_type = "Promise<PoolStatus | Failure>")]
pub fn pool_status(env: &Env, handle: f64) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "pool-status", move || Ok(PoolStatus::from(pool(handle)?.status()?)))
}

/// Everything acknowledged is durable when it fulfils.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn pool_flush(env: &Env, handle: f64) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "pool-flush", move || pool(handle)?.flush())
}

/// Drains and compacts until nothing is left to do.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn pool_settle(env: &Env, handle: f64) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "pool-settle", move || pool(handle)?.settle())
}

/// Adds an empty directory to the pool, or one of its drives whose content no longer counts.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn pool_add_drive(env: &Env, handle: f64, drive: DriveSpec) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let drive = drive.convert()?;
    in_thread(env, "pool-add-drive", move || pool(handle)?.add_drive(&drive))
}

/// Empties a drive (path or uuid) in the background and lets go of it then; one that is away is given up.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn pool_remove_drive(env: &Env, handle: f64, drive: String) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "pool-remove-drive", move || pool(handle)?.remove_drive(&drive))
}

/// Adds one drive and empties another.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn pool_replace_drive(env: &Env, handle: f64, old: String, drive: DriveSpec) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let drive = drive.convert()?;
    in_thread(env, "pool-replace-drive", move || pool(handle)?.replace_drive(&old, &drive))
}

/// Gives a drive (path or uuid) another label `rack/block/node/drive`.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn pool_label_drive(env: &Env, handle: f64, drive: String, label: String) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "pool-label-drive", move || pool(handle)?.label_drive(&drive, &label))
}

/// Verifies every copy of everything, or of one volume, and repairs what is wrong.
#[napi(ts_return_type = "Promise<ScrubReport | Failure>")]
pub fn pool_scrub(env: &Env, handle: f64, volume: Option<String>) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "pool-scrub", move || Ok(ScrubReport::from(pool(handle)?.scrub(volume.as_deref())?)))
}

/// Flushes, drains, closes the drives. The handle is dead afterwards, also when this fails: a pool whose close
/// failed is opened again by replay.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn pool_close(env: &Env, handle: f64) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "pool-close", move || match POOLS.remove(handle) {
        Some(engine) => engine.close(),
        None => Err(Error::new(Kind::Closed, "the pool is closed")),
    })
}

#[napi(ts_return_type = "Promise<VolumeInfo | Failure>")]
pub fn volume_create(env: &Env, handle: f64, request: VolumeCreate) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let create = engine::VolumeCreate {
        name: request.name,
        rf: convert::whole("rf", request.rf, u32::from(u8::MAX))? as u8,
        group: request.group,
        ack_write: request.ack_write,
        quota_bytes: convert::unsigned("quotaBytes", &request.quota_bytes)?,
        owner: holdfast_device::process::effective_ids(),
    };
    let min_copies = request.min_write_copies.unwrap_or(0.0);
    let policy = engine::VolumePolicy {
        min_copies: convert::whole("minWriteCopies", min_copies, u32::from(u8::MAX))? as u8,
        fail_below: request.fail_below,
        domain: domain_level(&request.domain)?,
    };
    in_thread(env, "volume-create", move || {
        Ok(VolumeInfo::from(pool(handle)?.volume_create_with(&create, policy)?))
    })
}

#[napi(ts_return_type = "Promise<Array<VolumeInfo> | Failure>")]
pub fn volume_list(env: &Env, handle: f64) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "volume-list", move || {
        Ok(pool(handle)?.volumes()?.into_iter().map(VolumeInfo::from).collect::<Vec<_>>())
    })
}

#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn volume_rename(env: &Env, handle: f64, name: String, new_name: String) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "volume-rename", move || pool(handle)?.volume_rename(&name, &new_name))
}

/// Changes what is given, mounted or not.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn volume_set(env: &Env, handle: f64, name: String, change: VolumeChange) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let change = change.convert()?;
    in_thread(env, "volume-set", move || pool(handle)?.volume_set(&name, &change))
}

#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn volume_destroy(env: &Env, handle: f64, name: String) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "volume-destroy", move || pool(handle)?.volume_destroy(&name))
}
