//! What the pool says about itself.

use super::Pool;
use super::health::Health;
use super::types::{DriveState, PoolCounters, PoolEvent, PoolRoom, PoolSpace};
use std::collections::VecDeque;
use holdfast_format::{GroupId, Lsn};
use holdfast_format::manifest::GroupRecord;
use holdfast_format::table::TableDesc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($name:ident),*) => {
        #[derive(Default)]
        pub(super) struct Counters { $(pub $name: AtomicU64),* }
        impl Counters {
            fn read(&self) -> PoolCounters {
                PoolCounters { $($name: self.$name.load(Ordering::Relaxed)),* }
            }
        }
    };
}

counters!(
    bytes_written,
    bytes_logged,
    bytes_packed,
    bytes_cleaned,
    bytes_tables,
    bytes_manifest,
    bytes_read,
    checksum_failures,
    read_errors,
    repairs,
    reads_hedged,
    hedges_won,
    reads_last_resort,
    drives_demoted,
    manifest_writes,
    manifest_switches,
    drives_out,
    drives_full,
    egroups_freed,
    egroups_cleaned,
    pages_moved,
    pages_moved_past,
    cleans_skipped,
    copies_healed,
    bytes_healed,
    bytes_scrubbed
);

/// Events that are kept until somebody asks.
const EVENTS_MAX: usize = 64;

pub(super) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// The newest events; older ones are forgotten.
#[derive(Default)]
pub(super) struct Events {
    count: u64,
    kept: VecDeque<PoolEvent>,
}

impl Pool {
    /// Tells the administrator's log.
    pub fn say(&self, what: String) {
        let mut events = self.events.lock();
        events.count += 1;
        let event = PoolEvent { number: events.count, at_s: self.clock.wall().0, what };
        if events.kept.len() == EVENTS_MAX {
            events.kept.pop_front();
        }
        events.kept.push_back(event);
    }
    /// The newest events, oldest first.
    pub fn events(&self) -> Vec<PoolEvent> {
        self.events.lock().kept.iter().cloned().collect()
    }
    /// Groups as the manifest knows them, by id.
    pub fn groups(&self) -> Vec<GroupRecord> {
        self.image.read().groups.values().cloned().collect()
    }
    pub fn group(&self, id: GroupId) -> Option<GroupRecord> {
        self.image.read().groups.get(&id).cloned()
    }
    /// LSNs of a group that clones were made of.
    pub fn pins_of(&self, group: GroupId) -> Vec<Lsn> {
        let image = self.image.read();
        let bases = image.groups.values().filter_map(|clone| clone.base);
        bases.filter(|(base, _)| *base == group).map(|(_, lsn)| lsn).collect()
    }
    /// Groups that were made of this one.
    pub fn clones_of(&self, group: GroupId) -> Vec<GroupRecord> {
        let image = self.image.read();
        let clones = image.groups.values().filter(|clone| clone.base.is_some_and(|(base, _)| base == group));
        clones.cloned().collect()
    }
    /// Tables of a group, by id.
    pub fn group_tables(&self, group: GroupId) -> Vec<TableDesc> {
        self.image
            .read()
            .tables
            .get(&group)
            .map(|tables| tables.values().cloned().collect())
            .unwrap_or_default()
    }
    /// The newest one that is durable.
    pub fn membership(&self) -> u64 {
        self.membership.load(Ordering::Acquire)
    }
    /// Active drives: the highest RF that new data can have.
    pub fn drives_active(&self) -> usize {
        self.disks.iter().filter(|disk| disk.is_active()).count()
    }
    /// Drives that new copies may come to.
    pub fn drives_accepting(&self) -> usize {
        self.disks.iter().filter(|disk| disk.accepts()).count()
    }
    pub fn drives(&self) -> Vec<DriveState> {
        let state = |disk: &super::disk::Disk| {
            let (condition, mut reason) = disk.condition();
            if disk.is_active() {
                reason = disk.pulse.reason();
            }
            let free = disk.free_slots() as u64 + disk.pending_slots() as u64;
            DriveState {
                index: disk.index,
                uuid: disk.uuid,
                name: disk.drive.as_ref().map(|drive| drive.name()).unwrap_or_default(),
                domain: disk.label().to_string(),
                condition,
                reason,
                draining: disk.is_draining(),
                health: disk.pulse.health(),
                latency: disk.pulse.latency(),
                changed_s: disk.changed_s.load(Ordering::Relaxed),
                total_bytes: disk.total_slots() as u64 * self.slot_bytes as u64,
                free_bytes: if disk.is_active() { free * self.slot_bytes as u64 } else { 0 },
            }
        };
        self.disks.iter().filter(|disk| !disk.is_retired()).map(state).collect()
    }
    /// Cheap: asked by every few ops.
    pub fn room(&self) -> PoolRoom {
        let (mut total, mut free, mut reserve) = (0, 0, 0);
        for disk in self.disks.iter().filter(|disk| disk.is_active()) {
            let free_now = disk.free_slots() as u64 + disk.pending_slots() as u64;
            total += disk.total_slots() as u64;
            free += free_now;
            reserve += (self.reserve_of(disk) as u64).min(free_now);
        }
        let bytes = |slots: u64| slots * self.slot_bytes as u64;
        PoolRoom { total_bytes: bytes(total), free_bytes: bytes(free), reserve_bytes: bytes(reserve) }
    }
    /// Cleaning is at work, so that who takes room should wait for it.
    pub fn is_cleaning(&self) -> bool {
        self.cleaning_pays.load(Ordering::Acquire)
    }
    pub fn set_cleaning(&self, pays: bool) {
        self.cleaning_pays.store(pays, Ordering::Release);
    }
    /// Bytes of slots on active drives that a group's log and tables take.
    pub fn group_slots(&self, group: GroupId) -> (u64, u64) {
        let image = self.image.read();
        let active =
            |slot: &&holdfast_format::table::SlotAddress| self.disks[slot.drive as usize].is_active();
        let segments = image.groups.get(&group).into_iter().flat_map(|group| &group.segments);
        let log = segments.flat_map(|segment| &segment.copies).filter(active).count() as u64;
        let tables = image.tables.get(&group).into_iter().flat_map(|tables| tables.values());
        let metadata = tables.flat_map(|desc| &desc.copies).filter(active).count() as u64;
        (log * self.slot_bytes as u64, metadata * self.slot_bytes as u64)
    }
    pub fn space(&self) -> PoolSpace {
        let bytes = |slots: u64| slots * self.slot_bytes as u64;
        let PoolRoom { total_bytes: total, free_bytes: free, reserve_bytes: reserve } = self.room();
        let image = self.image.read();
        let active =
            |slot: &&holdfast_format::table::SlotAddress| self.disks[slot.drive as usize].is_active();
        let segments = image.groups.values().flat_map(|group| &group.segments);
        let log = segments.flat_map(|segment| &segment.copies).filter(active).count() as u64;
        let tables = image.tables.values().flat_map(|tables| tables.values());
        let metadata = tables.flat_map(|desc| &desc.copies).filter(active).count() as u64;
        let data = (total - free).saturating_sub(bytes(log + metadata));
        PoolSpace {
            total,
            free,
            reserve,
            log: bytes(log),
            metadata: bytes(metadata),
            data,
            dead: match self.live_bytes.load(Ordering::Relaxed) {
                u64::MAX => 0,
                live => data.saturating_sub(live),
            },
        }
    }
    /// What the groups' tables name, in bytes on drives: the rest of the data is dead.
    pub fn set_live_bytes(&self, bytes: u64) {
        self.live_bytes.store(bytes, Ordering::Relaxed);
    }
    pub fn counters(&self) -> PoolCounters {
        self.counters.read()
    }
    /// Adds a sentence for the administrator, until the pool is closed.
    pub fn warn(&self, what: String) {
        self.warnings.lock().push(what);
    }
    /// Sentences for the administrator.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.lock().clone();
        for disk in self.disks.iter().filter(|disk| !disk.is_active() && !disk.is_retired()) {
            let (condition, reason) = disk.condition();
            warnings.push(format!("drive {} is {}: {reason}", disk.name(), condition.name()));
        }
        for disk in self.disks.iter().filter(|disk| disk.is_active() && disk.pulse.health() != Health::Good) {
            let (health, reason) = (disk.pulse.health().name(), disk.pulse.reason());
            warnings.push(format!("drive {} is {health}, and is spared: {reason}", disk.name()));
        }
        if let Some(reason) = &self.journal.lock().broken {
            warnings.push(format!("nothing can be written any more: {reason}"));
        }
        warnings
    }
}
