//! A pool with its groups and volumes: what the addon holds.
//!
//! Threads (when `background`): one flusher a group (flush, ticks, log segments in advance), one housekeeper a pool (drain,
//! compaction, expiry, heartbeat), one cleaner and one healer a pool. Every step they take is an ordinary call.

mod check;
mod cleaner;
mod damaged;
mod destroy;
mod feed;
mod flatten;
mod headers;
mod heal;
mod history;
mod housekeeping;
mod options;
mod pacing;
mod policy;
mod proof;
mod protect;
mod replica;
mod retention;
mod scrub;
mod space;
mod turn;
mod watch;

pub use crate::placement::{HealProgress, PoolEvent, ScrubReport};
pub use check::CheckReport;
pub use crate::past::{ChangeKind, FileChange};
pub use flatten::{BaseInfo, CloneSpace, PromotionInfo};
pub use feed::{FeedChange, FeedPage, FeedRequest};
pub use headers::{HeaderPart, LossStatement, header_check, header_start, headers_fold};
pub use crate::group::HeaderRequest;
pub use crate::replica::loss::{Loss, LostFile};
pub use holdfast_format::header::HeaderFrame;
pub use history::{Difference, SnapshotInfo};
pub use holdfast_format::DomainLevel;
pub use crate::group::FollowerInfo;
pub use crate::replica::{Delta, Found, Lead, Mismatch, MismatchKind, Part, Proof, Staged, Verdict};
pub use holdfast_format::inode::Time;
pub use holdfast_format::replica::{Origin, Staging};
pub use replica::{CutPoint, Leader, ReplicaState};
pub use holdfast_format::inode::PastAccess;
pub use holdfast_format::inode::WritePolicy as VolumePolicy;
pub use crate::group::{Held, PointSpace, Retention, WouldFree};
pub use holdfast_format::retention::{HistoryLimit, ThinStep};
pub use pacing::Company;
pub use policy::VolumeChange;
pub use retention::{RetentionChange, RetentionInfo};
pub use space::{PoolUsage, VolumeSpace};
pub use crate::group::Usage;
pub use scrub::ScrubProgress;
pub use options::{
    Counters, DriveInfo, DriveSpec, EngineOptions, PoolStatus, RingMemory, VolumeCreate, VolumeInfo, real_drives,
};

use crate::api::FileSystem;
use crate::error::{Error, Kind, Result};
use crate::extent::cache::DataCache;
use crate::group::view::Base;
use crate::group::{Bell, Group, GroupOptions};
use crate::ledger::{Ledger, OpDraft, PointDraft};
use crate::metadata::cache::BlockCache;
use crate::past::Selections;
use crate::placement::{GroupRecord, Pool, PoolDrive, PoolOptions, ProbeInfo};
use crate::volume::{Volume, VolumeOptions};
use holdfast_device::real::RealDrive;
use holdfast_device::{Clock, Drive, RealClock, Rng};
use holdfast_format::inode::{VolumeRecord, WritePolicy};
use holdfast_format::op::{Actor, Effects, OpKind};
use holdfast_format::{BranchId, GROUP_BRANCH, GroupId, Ino, Lsn, key};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};


struct VolumeEntry {
    group: GroupId,
    branch: BranchId,
    /// Handed out to a mount; dead when that is gone.
    mounted: Weak<Volume>,
}

struct GroupEntry {
    name: String,
    group: Arc<Group>,
}

/// An open pool. Dropping it without `close` is like a crash: nothing acknowledged is lost.
pub struct Engine {
    pool: Arc<Pool>,
    options: EngineOptions,
    cache: Arc<BlockCache>,
    data_cache: Arc<DataCache>,
    clock: Arc<dyn Clock>,
    boot_id: [u8; 16],
    memory: RingMemory,
    rng: Mutex<Rng>,
    groups: RwLock<BTreeMap<GroupId, GroupEntry>>,
    volumes: Mutex<BTreeMap<String, VolumeEntry>>,
    damaged: Mutex<BTreeMap<GroupId, damaged::Damaged>>,
    housekeeper: Arc<Bell>,
    cleaner: Arc<Bell>,
    healer: Arc<Bell>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    closed: AtomicBool,
    /// The newest failure of the housekeeper, for status.
    trouble: Mutex<Option<Error>>,
    /// What lies on drives may not be as the volumes ask for: see `protect.rs`.
    unprotected: AtomicBool,
    /// Boot time before which no walk is tried.
    walk_again_ns: AtomicU64,
    pacing: pacing::Pacing,
    /// What feeds tell next.
    selections: Selections,
    flattening: flatten::Flattening,
    scrubbing: Mutex<Option<scrub::Scrubbing>>,
    /// One step of the background's scrub at a time. Taken before `scrubbing`.
    scrub_turn: Mutex<()>,
    watch: Mutex<watch::Watch>,
    /// And of cleaning.
    clean_trouble: Mutex<Option<Error>>,
    /// And of healing.
    heal_trouble: Mutex<Option<Error>>,
}

/// What lies under an engine; tests bring their own.
pub struct Foundation {
    pub clock: Arc<dyn Clock>,
    pub rng: Rng,
    pub boot_id: [u8; 16],
    pub memory: RingMemory,
}

impl Foundation {
    fn real(runtime_dir: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| Error::new(Kind::Internal, format!("cannot start the engine: {error}"));
        Ok(Self {
            clock: Arc::new(RealClock),
            rng: Rng::from_system().map_err(failed)?,
            boot_id: holdfast_device::memory::boot_id().map_err(failed)?,
            memory: options::mapped_rings(runtime_dir.to_owned()),
        })
    }
}

impl Engine {
    /// Creates a pool on empty directories and opens it.
    pub fn create(name: &str, drives: &[DriveSpec], options: EngineOptions) -> Result<Arc<Self>> {
        options.validate()?;
        let foundation = Foundation::real(&options.runtime_dir)?;
        Self::create_on(name, real_drives(drives)?, options, foundation)
    }

    /// Opens a pool from its drives (replays what is needed). At least the drives that make every group readable.
    pub fn open(drives: &[PathBuf], options: EngineOptions) -> Result<Arc<Self>> {
        options.validate()?;
        let foundation = Foundation::real(&options.runtime_dir)?;
        let mut opened: Vec<Arc<dyn Drive>> = Vec::new();
        let mut missing = Vec::new();
        for path in drives {
            match options::open_member(path) {
                Ok(drive) => opened.push(drive),
                Err(error) if matches!(error.kind, Kind::NotFound | Kind::Unavailable) => missing.push(error),
                Err(error) => return Err(error),
            }
        }
        if opened.is_empty() && !missing.is_empty() {
            return Err(missing.swap_remove(0));
        }
        let engine = Self::open_on(opened, options, foundation)?;
        missing.into_iter().for_each(|error| engine.pool.warn(error.message));
        Ok(engine)
    }

    /// What lies on a path: pool name and uuid, or why it is none.
    pub fn probe(path: &Path) -> Result<(String, String)> {
        let drive = RealDrive::open(path).map_err(|error| options::drive_error(path, &error))?;
        match Pool::probe(&drive)? {
            ProbeInfo::Member { name, pool, .. } => Ok((name, pool.to_string())),
            ProbeInfo::Empty => Err(Error::new(Kind::NotFound, format!("{}: no pool here", path.display()))),
            ProbeInfo::Foreign { reason } => Err(Error::invalid(reason)),
            ProbeInfo::Newer { reason } => {
                Err(Error::new(Kind::Denied, format!("it was written by a newer program ({reason})")))
            }
            ProbeInfo::Damaged { reason } => Err(Error::corrupt(reason)),
        }
    }

    pub fn create_on(
        name: &str,
        drives: Vec<PoolDrive>,
        options: EngineOptions,
        foundation: Foundation,
    ) -> Result<Arc<Self>> {
        check_name("pool", name)?;
        let cache = Arc::new(BlockCache::new(options.metadata_cache_bytes));
        let mut rng = foundation.rng;
        let pool_options = PoolOptions {
            clock: foundation.clock.clone(),
            rng: Rng::from_seed(rng.next_u64()),
            boot_id: foundation.boot_id,
            cache: cache.clone(),
        };
        let pool = Pool::create(name, drives, pool_options)?;
        Self::start_or_close(pool, cache, options, Foundation { rng, ..foundation })
    }

    pub fn open_on(drives: Vec<Arc<dyn Drive>>, options: EngineOptions, foundation: Foundation) -> Result<Arc<Self>> {
        let cache = Arc::new(BlockCache::new(options.metadata_cache_bytes));
        let mut rng = foundation.rng;
        let pool_options = PoolOptions {
            clock: foundation.clock.clone(),
            rng: Rng::from_seed(rng.next_u64()),
            boot_id: foundation.boot_id,
            cache: cache.clone(),
        };
        let pool = Pool::open(drives, pool_options)?;
        Self::start_or_close(pool, cache, options, Foundation { rng, ..foundation })
    }

    /// A start that fails leaves nobody behind who has the drives: the next one must not have to make sure of that.
    fn start_or_close(
        pool: Arc<Pool>,
        cache: Arc<BlockCache>,
        options: EngineOptions,
        foundation: Foundation,
    ) -> Result<Arc<Self>> {
        Self::start(pool.clone(), cache, options, foundation).inspect_err(|_| {
            // The first error is what the caller gets; without this one the next start only takes longer.
            let _closed = pool.close();
        })
    }

    fn start(
        pool: Arc<Pool>,
        cache: Arc<BlockCache>,
        options: EngineOptions,
        foundation: Foundation,
    ) -> Result<Arc<Self>> {
        let data_cache = Arc::new(DataCache::new(options.data_cache_bytes));
        let engine = Arc::new(Self {
            pool: pool.clone(),
            selections: Selections::new(options.feed_units),
            options,
            cache,
            data_cache,
            clock: foundation.clock,
            boot_id: foundation.boot_id,
            memory: foundation.memory,
            rng: Mutex::new(foundation.rng),
            groups: RwLock::default(),
            volumes: Mutex::default(),
            damaged: Mutex::default(),
            housekeeper: Arc::default(),
            cleaner: Arc::default(),
            healer: Arc::default(),
            threads: Mutex::default(),
            closed: AtomicBool::new(false),
            trouble: Mutex::new(None),
            unprotected: AtomicBool::new(true),
            walk_again_ns: AtomicU64::new(0),
            pacing: pacing::Pacing::default(),
            flattening: flatten::Flattening::default(),
            scrubbing: Mutex::new(None),
            scrub_turn: Mutex::new(()),
            clean_trouble: Mutex::new(None),
            watch: Mutex::default(),
            heal_trouble: Mutex::new(None),
        });
        for record in pool.groups() {
            engine.open_or_leave(&record)?;
        }
        match engine.damaged.lock().is_empty() {
            true => pool.replay_done(),
            false => pool.replay_done_in_part(),
        }
        engine.finish_destroyed()?;
        engine.resume_promotions()?;
        if engine.options.background {
            housekeeping::start_housekeeper(&engine)?;
            cleaner::start_cleaner(&engine)?;
            heal::start_healer(&engine)?;
        }
        Ok(engine)
    }

    fn open_group(self: &Arc<Self>, record: &GroupRecord, fresh: bool) -> Result<Arc<Group>> {
        let group_options = GroupOptions {
            memtable_bytes: self.options.memtable_bytes,
            retention: self.options.retention(),
            clock: self.clock.clone(),
            boot_id: self.boot_id,
            background: self.options.background,
            housekeeper: self.housekeeper.clone(),
            data_cache: self.data_cache.clone(),
            cleaner: self.cleaner.clone(),
            base: self.base_of(record)?,
            fresh,
        };
        let memory = (self.memory)(self.pool.uuid(), record.id, self.options.ring_bytes)?;
        let mut rng = Rng::from_seed(self.rng.lock().next_u64());
        let group = Group::open(&self.pool, record, group_options, &self.cache, memory, &mut rng)?;
        if !record.destroyed {
            let mut volumes = self.volumes.lock();
            for (branch, volume) in group.volumes()? {
                volumes.insert(volume.name, VolumeEntry { group: record.id, branch, mounted: Weak::new() });
            }
        }
        let entry = GroupEntry { name: record.name.clone(), group: group.clone() };
        self.groups.write().insert(record.id, entry);
        if !record.destroyed {
            self.adopt_policies(&group, &[])?;
        }
        if self.options.background {
            housekeeping::start_flusher(self, &group)?;
        }
        Ok(group)
    }

    /// What a group is a clone of. Its parent is older, and open already.
    fn base_of(&self, record: &GroupRecord) -> Result<Option<Arc<Base>>> {
        let Some((id, at)) = record.base else { return Ok(None) };
        Ok(Some(Arc::new(Base { group: self.group(id)?, at })))
    }

    fn ensure_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::closed()) } else { Ok(()) }
    }

    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    fn group(&self, id: GroupId) -> Result<Arc<Group>> {
        if let Some(entry) = self.groups.read().get(&id) {
            return Ok(entry.group.clone());
        }
        Err(self.refusal(id).unwrap_or_else(|| Error::new(Kind::NotFound, format!("no group {id}"))))
    }

    pub fn groups(&self) -> Vec<Arc<Group>> {
        self.groups.read().values().map(|entry| entry.group.clone()).collect()
    }

    fn group_name(&self, id: GroupId) -> String {
        self.groups.read().get(&id).map(|entry| entry.name.clone()).unwrap_or_default()
    }

    fn find(&self, name: &str) -> Result<(GroupId, BranchId)> {
        let volumes = self.volumes.lock();
        let entry = volumes.get(name).ok_or_else(|| {
            let what = format!("no volume {name} in pool {}{}", self.pool.name(), self.suspects());
            Error::new(Kind::NotFound, what)
        })?;
        Ok((entry.group, entry.branch))
    }

    pub fn volume_create(self: &Arc<Self>, create: &VolumeCreate) -> Result<VolumeInfo> {
        self.volume_create_with(create, WritePolicy::default())
    }

    /// A volume whose copies and writes follow a policy of their own.
    pub fn volume_create_with(self: &Arc<Self>, create: &VolumeCreate, policy: WritePolicy) -> Result<VolumeInfo> {
        self.ensure_open()?;
        check_name("volume", &create.name)?;
        self.check_promise(create.rf, policy)?;
        if self.volumes.lock().contains_key(&create.name) {
            return Err(Error::new(Kind::Conflict, format!("volume {} exists", create.name)));
        }
        let group_name = create.group.as_deref().unwrap_or(&create.name);
        check_name("group", group_name)?;
        let existing = self.groups.read().iter().find(|(_, entry)| entry.name == group_name).map(|(id, _)| *id);
        if existing.is_some() && create.group.is_none() {
            return Err(Error::new(
                Kind::Conflict,
                format!("a group {group_name} exists: choose another volume name, or join it with --group {group_name}"),
            ));
        }
        if let Some(id) = existing {
            self.format_volume(&self.group(id)?, create, policy)?;
        } else {
            let id = self.create_group(group_name, None)?;
            // Half a volume is none: the name stays free.
            self.group(id).and_then(|group| self.format_volume(&group, create, policy)).or_else(|error| {
                self.give_up_group(id)?;
                Err(error)
            })?;
        }
        self.info(&create.name)
    }

    /// Makes the volume in its group, durably.
    fn format_volume(&self, group: &Arc<Group>, create: &VolumeCreate, policy: WritePolicy) -> Result<()> {
        self.prepare_promise(group, &[(BranchId(u32::MAX), create.rf, policy)])?;
        let branch = self.new_branch(group)?;
        let record = VolumeRecord {
            next_ino: 0,
            rf: create.rf,
            ack: create.ack_write as u8,
            policy,
            past: Default::default(),
            quota_bytes: create.quota_bytes,
            created: group.now(),
            name: create.name.clone(),
        };
        let lsn = Volume::format(group.as_ref(), branch, &record, create.owner)?;
        self.flush_group(group, lsn)?;
        let entry = VolumeEntry { group: group.id, branch, mounted: Weak::new() };
        self.volumes.lock().insert(create.name.clone(), entry);
        self.adopt_policies(group, &[])
    }

    /// The group may be there also when this fails.
    fn create_group(self: &Arc<Self>, name: &str, base: Option<(GroupId, Lsn)>) -> Result<GroupId> {
        let id = Group::create(&self.pool, name, base, &mut self.rng.lock())?;
        if let Some((parent, at)) = base {
            self.group(parent)?.pin_for_clone(at);
        }
        let record = self.pool.group(id);
        let record = record.ok_or_else(|| Error::new(Kind::Internal, "the new group is not in the manifest"))?;
        if let Err(error) = self.open_group(&record, true) {
            self.give_up_group(id)?;
            return Err(error);
        }
        Ok(id)
    }

    /// Branch numbers are never reused: branch 0's record counts them.
    fn new_branch(&self, group: &Arc<Group>) -> Result<BranchId> {
        let counter_key = key::volume(GROUP_BRANCH);
        let counter = match group.get(&counter_key)? {
            Some(bytes) => VolumeRecord::decode(&bytes).map_err(|error| Error::decode("a group record", error))?,
            None => VolumeRecord {
                next_ino: 1,
                rf: 1,
                ack: 0,
                policy: WritePolicy::default(),
                past: Default::default(),
                quota_bytes: 0,
                created: group.now(),
                name: String::new(),
            },
        };
        let branch = BranchId(counter.next_ino as u32);
        let next = VolumeRecord { next_ino: counter.next_ino + 1, ..counter };
        let mut effects = Effects::new();
        effects.put(&counter_key, &next.encode());
        group.commit(control_draft(GROUP_BRANCH, OpKind::VolumeCreate, group.now(), effects))?;
        Ok(branch)
    }

    fn flush_group(&self, group: &Arc<Group>, lsn: Lsn) -> Result<()> {
        let (sender, receiver) = std::sync::mpsc::channel();
        group.flush(lsn, Box::new(move |result| drop(sender.send(result))));
        if !self.options.background {
            // Without threads nobody brings copies that are missing while this one waits.
            let waits = || Error::new(Kind::Unavailable, format!("group {}: too few copies", self.group_name(group.id)));
            return receiver.try_recv().unwrap_or_else(|_| Err(group.blocked().unwrap_or_else(waits)));
        }
        receiver.recv().map_err(|_| Error::closed())?
    }

    pub fn volumes(&self) -> Result<Vec<VolumeInfo>> {
        self.ensure_open()?;
        let names: Vec<String> = self.volumes.lock().keys().cloned().collect();
        names.iter().map(|name| self.info(name)).collect()
    }

    fn record(&self, name: &str) -> Result<(Arc<Group>, BranchId, VolumeRecord)> {
        let (group_id, branch) = self.find(name)?;
        let group = self.group(group_id)?;
        let bytes = group.get(&key::volume(branch))?.ok_or_else(|| Error::corrupt(format!("volume {name}: no record")))?;
        let record = VolumeRecord::decode(&bytes).map_err(|error| Error::decode("a volume record", error))?;
        Ok((group, branch, record))
    }

    fn info(&self, name: &str) -> Result<VolumeInfo> {
        let (id, _) = self.find(name)?;
        if let Some(info) = self.damaged_info(id, name) {
            return Ok(info);
        }
        let (group, branch, record) = self.record(name)?;
        let trouble = self.trouble_of(&group, &record);
        let space = self.volume_space(name, &group, &record)?;
        Ok(VolumeInfo {
            name: record.name,
            group: self.group_name(group.id),
            branch: branch.0,
            rf: record.rf,
            copies_min: record.policy.copies_min(record.rf),
            fail_below: record.policy.fail_below,
            domain: record.policy.domain,
            trouble,
            ack_write: record.ack == 1,
            quota_bytes: record.quota_bytes,
            past: record.past,
            base: self.base_info(&group),
            promotion: self.promotion_of(&group),
            created_s: record.created.sec,
            newest_lsn: Group::newest(&group).0,
            durable_lsn: group.durable().0,
            drained_lsn: group.drained().0,
            retention: self.retention_info(&group),
            usage: group.usage(),
            space,
            problem: String::new(),
        })
    }

    fn change_record(&self, name: &str, change: impl FnOnce(&mut VolumeRecord)) -> Result<()> {
        self.ensure_open()?;
        let mounted = self.volumes.lock().get(name).and_then(|entry| entry.mounted.upgrade());
        let (group, branch, mut record) = self.record(name)?;
        let lsn = match mounted {
            Some(volume) => volume.set_record(change).map_err(crate::volume::engine_error)?,
            None => {
                change(&mut record);
                let mut effects = Effects::new();
                effects.put(&key::volume(branch), &record.encode());
                group.commit(control_draft(branch, OpKind::VolumeSet, group.now(), effects))?
            }
        };
        self.flush_group(&group, lsn)
    }

    pub fn volume_rename(&self, name: &str, new_name: &str) -> Result<()> {
        check_name("volume", new_name)?;
        if self.volumes.lock().contains_key(new_name) {
            return Err(Error::new(Kind::Conflict, format!("volume {new_name} exists")));
        }
        self.change_record(name, |record| record.name = new_name.to_owned())?;
        let mut volumes = self.volumes.lock();
        if let Some(entry) = volumes.remove(name) {
            volumes.insert(new_name.to_owned(), entry);
        }
        Ok(())
    }

    /// The file system of a volume, to be mounted. `Conflict` while it is handed out already.
    pub fn file_system(&self, name: &str) -> Result<Arc<dyn FileSystem>> {
        self.volume(name, VolumeOptions::default()).map(|volume| volume as Arc<dyn FileSystem>)
    }

    pub fn volume(&self, name: &str, options: VolumeOptions) -> Result<Arc<Volume>> {
        self.ensure_open()?;
        let (group_id, branch) = self.find(name)?;
        let group = self.group(group_id)?;
        if group.is_replica() {
            let way_out = "mount what it received with --at, clone it, or fail over to it";
            return Err(Error::new(Kind::Fenced, format!("volume {name} is a replica: {way_out}")));
        }
        let mut volumes = self.volumes.lock();
        let Some(entry) = volumes.get_mut(name) else {
            return Err(Error::new(Kind::NotFound, format!("no volume {name}")));
        };
        if entry.mounted.strong_count() > 0 {
            return Err(Error::new(Kind::Conflict, format!("volume {name} is mounted already")));
        }
        let volume = match group.is_fork() {
            true => Volume::open_past(group, branch)?,
            false => Volume::open(group, branch, options)?,
        };
        entry.mounted = Arc::downgrade(&volume);
        Ok(volume)
    }

    /// Everything acknowledged is durable when it returns.
    pub fn flush(&self) -> Result<()> {
        self.ensure_open()?;
        self.groups().iter().try_for_each(|group| self.flush_group(group, Group::newest(group)))
    }

    /// Drains and compacts until nothing is left to do.
    pub fn settle(&self) -> Result<()> {
        self.ensure_open()?;
        for group in self.groups() {
            group.drain_now()?;
            group.loosen_everything();
            while group.compact_step()? {}
            while group.expire_step()? || group.loosen_step()? || group.thin_step()? {}
        }
        while self.pool.clean_step()? {}
        self.pool.set_live_bytes(self.groups().iter().map(|group| group.live_bytes()).sum());
        Ok(())
    }

    /// Flushes, drains, ends the threads, closes the drives. Later calls fail with `Closed`.
    pub fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.housekeeper.ring();
        self.cleaner.ring();
        self.healer.ring();
        let groups = self.groups();
        groups.iter().for_each(|group| group.shut());
        let threads = std::mem::take(&mut *self.threads.lock());
        let own = std::thread::current().id();
        let ended: Vec<_> =
            threads.into_iter().filter(|thread| thread.thread().id() != own).map(|thread| thread.join()).collect();
        let panicked = ended.iter().any(std::result::Result::is_err);
        let retired: Result<()> = groups.iter().try_for_each(|group| group.retire_log());
        let closed = self.pool.close();
        if panicked {
            return Err(Error::new(Kind::Internal, "a thread of the engine had panicked"));
        }
        retired.and(closed)
    }

    pub fn status(&self) -> Result<PoolStatus> {
        self.ensure_open()?;
        Ok(options::status_of(self))
    }

    pub(crate) fn trouble(&self) -> Option<Error> {
        self.trouble.lock().clone()
    }
}

/// An op of the control plane: nobody's file, no payload.
fn control_draft(branch: BranchId, kind: OpKind, time: Time, effects: Effects) -> OpDraft<'static> {
    OpDraft {
        branch,
        kind,
        actor: Actor::default(),
        time,
        ino: Ino(0),
        offset: 0,
        length: 0,
        effects,
        payload: &[],
        rf: 0,
        stored: 0,
        frees: false,
        point: PointDraft::default(),
    }
}

/// Names of pools, groups and volumes: `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`.
fn check_name(what: &str, name: &str) -> Result<()> {
    let bytes = name.as_bytes();
    let good = (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte));
    if good {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{what} name {name:?}: a letter or digit, then up to 62 letters, digits, dots, underscores or hyphens"
    )))
}
