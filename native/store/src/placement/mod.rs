//! The pool: drives, slots, the manifest, and how many references every page has.
//!
//! Invariants:
//! - The manifest is the root. [`Pool::publish`] is the only thing that changes what is durable; what an edit
//!   does
//!   not name belongs to nobody and is free again at the next open.
//! - A page that an edit referenced is neither overwritten nor freed before an edit released its last
//!   reference,
//!   it is not pinned, no hold is older than that edit, and two more manifest writes are durable.
//! - A drive that failed a write or flush is out: membership m+1 is durable on the survivors before any call
//!   returns
//!   that the drive missed (I-8).
//!
//! Lock order: `cleaning` → `maintenance` → `journal` (the publish lock) → `unpublished` → `pins` → `holds` → `emptied` →
//! `image`
//! → a disk's slots → its slabs. `healer`, then `healing`, and `looking`
//! come before all of them.

mod append;
mod balance;
mod check;
mod capacity;
mod clean;
mod conform;
mod copying;
mod counting;
mod create;
mod domains;
mod drives;
mod disk;
mod egroups;
mod epochs;
mod features;
mod heal;
mod heal_content;
mod health;
mod image;
mod journal;
mod labels;
mod membership;
mod open;
mod owner;
mod placing;
mod publish;
mod reading;
mod records;
mod report;
mod scrub;
mod slots;
mod superblocks;
#[cfg(test)]
pub(crate) mod tests;
mod types;

pub use crate::metadata::io::PageName;
pub use capacity::Capacity;
pub use counting::Sharing;
pub use check::PageCounts;
pub use clean::{Forecast, NoForecast, Outlook, PAST_CLASSES};
pub use conform::stronger;
pub use copying::{Effort, Pace, Unpaced};
pub use heal::HealProgress;
pub use health::{Health, Latency};
pub use heal_content::{Named, NamesOf};
pub use scrub::{Scrub, ScrubReport};
pub use holdfast_format::egroup::Birth;
pub use holdfast_format::manifest::{EpochRow, GroupRecord, Segment};
pub use types::{
    DriveCondition, DriveState, Draw, Edit, GroupChange, PoolCounters, PoolDrive, PoolEvent, PoolOptions, PoolRoom,
    PoolSpace, ProbeInfo,
};

use crate::error::{Error, Kind, Result};
use crate::metadata::cache::BlockCache;
use crate::metadata::tree::Tree;
use disk::Disks;
use holdfast_device::{Clock, Drive, Rng};
use holdfast_format::egroup::{EgroupRecord, data_pages_max};
use holdfast_format::limits::write_bytes_max_for;
use holdfast_format::table::SlotAddress;
use holdfast_format::{DomainLevel, EgroupId, GroupId, TableId, Uuid};
use image::Image;
use journal::Journal;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// Counts of shared pages in one edit take no more than this part of a manifest area, ...
const SHARES_PART: u64 = 8;
/// ... each with its key and lengths so many bytes, about.
const SHARE_ITEM_BYTES: u64 = 24;

/// An open pool. Dropping it without [`Pool::close`] is like a crash.
pub struct Pool {
    me: Weak<Pool>,
    name: String,
    uuid: Uuid,
    slot_bytes: u32,
    area_bytes: u64,
    /// By index.
    disks: Disks,
    clock: Arc<dyn Clock>,
    rng: Mutex<Rng>,
    cache: Arc<BlockCache>,
    /// Random number of this run.
    instance: u64,
    /// The publish lock.
    journal: Mutex<Journal>,
    /// Changed only under the publish lock.
    image: RwLock<Image>,
    /// The POOL tree; opened when it first has tables.
    tree: OnceLock<Tree>,
    /// One flush or compaction of the POOL tree at a time.
    maintenance: Mutex<()>,
    /// Sequence of the newest durable manifest record.
    durable: AtomicU64,
    next_egroup: AtomicU64,
    next_group: AtomicU32,
    /// Highest RF of any log segment: tables get as many copies, and at least two.
    rf_max: AtomicU8,
    /// Of groups whose volumes ask for more than different drives.
    group_domains: RwLock<BTreeMap<GroupId, DomainLevel>>,
    /// Written, not yet named by an edit.
    unpublished: Mutex<BTreeMap<EgroupId, EgroupRecord>>,
    /// Drives that failed a repair while the publish lock was held: the next edit puts them out.
    suspects: Mutex<Vec<(u16, String)>>,
    /// Held while an open segment gets back what it lost. Taken before the publish lock.
    restoring: Mutex<()>,
    /// Held while a drive joins or leaves, its files included. Taken before the publish lock.
    changing_drives: Mutex<()>,
    pins: Mutex<BTreeMap<EgroupId, BTreeMap<u16, u32>>>,
    holds: Mutex<Holds>,
    /// Egroups without a live page, and the epoch of the edit that made them so: to be freed.
    emptied: Mutex<BTreeMap<EgroupId, u64>>,
    /// What cleaning would gain, by drive. Changed under the publish lock.
    dead_pages: Mutex<capacity::DeadPages>,
    /// Slots that the largest merge of each group will need.
    upkeep_slots: Mutex<BTreeMap<GroupId, u64>>,
    /// What tables name, in bytes on drives, as the engine saw it last; `u64::MAX`: never.
    live_bytes: AtomicU64,
    replayed: AtomicBool,
    /// Egroups below are neither freed nor moved: a group that could not be read may need them.
    kept_below: AtomicU64,
    closed: AtomicBool,
    fenced: AtomicBool,
    boot_id: [u8; 16],
    /// Boot time of the newest look at our own superblocks.
    looked_ns: AtomicU64,
    /// Held during a look without the publish lock, so that the threads that need one share it.
    looking: Mutex<()>,
    /// As `Journal::membership`, once it is durable: for those who do not hold the publish lock.
    membership: AtomicU64,
    /// Bits of the superblocks that stay while the pool is open.
    features: AtomicU64,
    /// The last drive failed: as `Journal::broken`, for those who do not hold the publish lock.
    broken: AtomicBool,
    /// One cleaning at a time.
    cleaning: Mutex<clean::Cleaning>,
    /// The newest step of cleaning gave room.
    cleaning_pays: AtomicBool,
    read_turn: AtomicU64,
    /// Pages of copies that were found wrong by somebody who could not mend them, and whether there are any.
    doubts: Mutex<VecDeque<(SlotAddress, u16)>>,
    doubted: AtomicBool,
    /// Moving mean of what drives took to answer reads; 0: none yet.
    read_ns: AtomicU64,
    /// Some drive was late lately: reads look for it.
    late_seen: AtomicBool,
    events: Mutex<report::Events>,
    /// Where tables lie that were given new copies since the pool was opened: trees name them as they were.
    relocated: RwLock<BTreeMap<TableId, Vec<SlotAddress>>>,
    /// One step of healing at a time.
    healer: Mutex<()>,
    healing: Mutex<heal::Healing>,
    /// A drain found something named that is protected less than its volume asks.
    unprotected: AtomicBool,
    /// Copies move between drives, until those are filled evenly.
    balancing: AtomicBool,
    balance_round: Mutex<balance::Round>,
    bytes_unbalanced: AtomicU64,
    opened_ns: u64,
    counters: report::Counters,
    warnings: Mutex<Vec<String>>,
}

/// Epochs: one per published edit. A hold of epoch e may still use what edits of epoch e and later freed.
#[derive(Default)]
struct Holds {
    epoch: u64,
    live: BTreeMap<u64, u32>,
}

/// While it lives, nothing that was in use when it was taken is reused. Take it *before* `Tree::snapshot`,
/// and keep it
/// as long as the `Levels` and whatever page names came out of them.
pub struct Hold<'a> {
    pool: &'a Pool,
    epoch: u64,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut holds = self.pool.holds.lock();
        if let Some(count) = holds.live.get_mut(&self.epoch) {
            *count -= 1;
            if *count == 0 {
                holds.live.remove(&self.epoch);
            }
        }
    }
}

impl Pool {
    /// Creates a pool on empty drives and opens it.
    ///
    /// Errors: `Invalid` (not empty, too small, the same drive twice, bad names), `Conflict` (already in a
    /// pool).
    pub fn create(name: &str, drives: Vec<PoolDrive>, options: PoolOptions) -> Result<Arc<Pool>> {
        create::create(name, drives, options)
    }
    /// Opens a pool from its drives. Some may be missing as long as a current manifest copy is there.
    ///
    /// Errors: `Invalid` (drives of two pools, one twice, none), `Denied` (written by a newer program),
    /// `Corrupt`
    /// (the manifest cannot be read back whole), `Conflict` (drives that were used apart).
    pub fn open(drives: Vec<Arc<dyn Drive>>, options: PoolOptions) -> Result<Arc<Pool>> {
        open::open(drives, options)
    }
    /// What lies on a drive; changes nothing.
    pub fn probe(drive: &dyn Drive) -> Result<ProbeInfo> {
        superblocks::probe(drive)
    }
    pub fn name(&self) -> &str {
        &self.name
    }
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }
    /// Pages that one edit may name once more: their counts are a small part of the manifest.
    pub fn shares_per_edit(&self) -> usize {
        (self.area_bytes / SHARES_PART / SHARE_ITEM_BYTES) as usize
    }

    pub fn slot_bytes(&self) -> usize {
        self.slot_bytes as usize
    }
    /// Largest write op.
    pub fn write_bytes_max(&self) -> u32 {
        write_bytes_max_for(self.slot_bytes)
    }
    /// Most payload pages of one [`Pool::write_egroup`].
    pub fn egroup_pages_max(&self) -> usize {
        data_pages_max(self.slot_bytes as usize)
    }
    pub fn new_group_id(&self) -> GroupId {
        GroupId(self.next_group.fetch_add(1, Ordering::AcqRel))
    }
    fn new_egroup_id(&self) -> EgroupId {
        EgroupId(self.next_egroup.fetch_add(1, Ordering::AcqRel))
    }

    /// The pool for somebody who outlives the call.
    pub fn share(&self) -> Weak<Self> {
        self.me.clone()
    }

    /// See [`Hold`].
    pub fn hold(&self) -> Hold<'_> {
        let mut holds = self.holds.lock();
        let epoch = holds.epoch;
        *holds.live.entry(epoch).or_default() += 1;
        Hold { pool: self, epoch }
    }
    /// Epoch of the oldest hold; `u64::MAX` without any.
    fn oldest_hold(&self) -> u64 {
        self.holds.lock().live.keys().next().copied().unwrap_or(u64::MAX)
    }

    /// The page is named by something in memory: it is neither freed nor moved until as many
    /// [`Pool::unpin_page`]. The caller holds a [`Hold`] from before it found the name.
    pub fn pin_page(&self, (egroup, page): PageName) {
        *self.pins.lock().entry(egroup).or_default().entry(page).or_default() += 1;
    }
    pub fn unpin_page(&self, (egroup, page): PageName) {
        let mut pins = self.pins.lock();
        let Some(pages) = pins.get_mut(&egroup) else { return };
        if let Some(count) = pages.get_mut(&page) {
            *count -= 1;
            if *count == 0 {
                pages.remove(&page);
            }
        }
        if pages.is_empty() {
            pins.remove(&egroup);
        }
    }
    /// Whether a page of the egroup is pinned, under its own name or that of one that moved into it.
    fn is_pinned(&self, egroup: EgroupId, record: &EgroupRecord) -> bool {
        let pins = self.pins.lock();
        pins.contains_key(&egroup) || record.sources.iter().any(|source| pins.contains_key(source))
    }
    /// Every group is replayed: from now on what is empty is freed.
    pub fn replay_done(&self) {
        self.kept_below.store(0, Ordering::Release);
        self.replayed.store(true, Ordering::Release);
    }
    /// Every group that can be read is replayed. What is there now stays: only the logs that were not read know what they
    /// need of it. What comes later is freed as ever.
    pub fn replay_done_in_part(&self) {
        self.kept_below.store(self.next_egroup.load(Ordering::Acquire), Ordering::Release);
        self.replayed.store(true, Ordering::Release);
    }
    /// Whether a group that could not be read may need the egroup.
    fn is_kept(&self, egroup: EgroupId) -> bool {
        egroup.0 < self.kept_below.load(Ordering::Acquire)
    }

    /// Whether anything may still be written (I-8: the last drive, once it failed, is not believed again).
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.broken.load(Ordering::Acquire) {
            let what =
                format!("pool {}: nothing can be written, its last drive failed; open it again", self.name);
            return Err(Error::new(Kind::Unavailable, what));
        }
        Ok(())
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed());
        }
        if self.fenced.load(Ordering::Acquire) {
            return Err(Error::new(
                Kind::Fenced,
                format!("pool {}: another program has taken its drives", self.name),
            ));
        }
        Ok(())
    }
}
