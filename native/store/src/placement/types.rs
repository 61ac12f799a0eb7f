//! What callers of the pool see: how it is made, how it is changed, what it reports.

use super::health::{Health, Latency};
use crate::metadata::cache::BlockCache;
use crate::metadata::io::TreeEdit;
use holdfast_device::{Clock, Drive, Rng};
use holdfast_format::key::Key;
use holdfast_format::manifest::EpochRow;
use holdfast_format::{EgroupId, GroupId, Lsn, Uuid};
use std::sync::Arc;

/// Share of the pool that cleaning keeps free, beside the reserve.
const ROOM_SHARE: u64 = 48;

/// A drive for a new pool.
pub struct PoolDrive {
    pub drive: Arc<dyn Drive>,
    /// Bytes to use; `None`: 0.95 × free ÷ the pool's drives on that disk.
    pub bytes: Option<u64>,
    /// `rack/block/node/drive`; empty: a domain of its own.
    pub domain: String,
}

pub struct PoolOptions {
    pub clock: Arc<dyn Clock>,
    /// For identities and for spreading copies.
    pub rng: Rng,
    /// Of the kernel that runs.
    pub boot_id: [u8; 16],
    /// Cache of metadata blocks, shared with the groups.
    pub cache: Arc<BlockCache>,
}

/// What lies on a drive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProbeInfo {
    /// Nothing: fit for a new pool.
    Empty,
    /// Files that are not ours; says which.
    Foreign { reason: String },
    /// Written by a newer program: nothing may be changed.
    Newer { reason: String },
    /// A pool's drive whose superblock no longer reads.
    Damaged { reason: String },
    /// `open`: not closed by the last program that had it. Whether one still has it shows in `beat`, which
    /// then
    /// grows once a second.
    Member {
        name: String,
        pool: Uuid,
        drive: Uuid,
        index: u16,
        drives: u16,
        open: bool,
        instance: u64,
        beat: u64,
        written_s: i64,
    },
}

/// A change of a group's record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupChange {
    Create {
        id: GroupId,
        uuid: Uuid,
        name: String,
        /// What it is a clone of; that LSN is kept there.
        base: Option<(GroupId, Lsn)>,
    },
    /// It is a clone of something else now: it has taken over what lay between; `None`: it has everything of its own.
    Rebase {
        id: GroupId,
        base: Option<(GroupId, Lsn)>,
    },
    /// It is to stand alone, and has everything before that key of its own; `None`: nobody wants that (any more).
    Promotion {
        id: GroupId,
        next: Option<Key>,
    },
    /// A new row of the history: an owner start.
    Epoch {
        id: GroupId,
        row: EpochRow,
    },
    /// The log is drained up to here.
    Drained {
        id: GroupId,
        lsn: Lsn,
        chain: u64,
    },
    Rename {
        id: GroupId,
        name: String,
    },
    /// From here on its log may hold what another site did.
    Replicated {
        id: GroupId,
    },
    /// Its tables and pages are still to be released.
    Destroy {
        id: GroupId,
    },
    /// Forget it. Its tables must be gone; its segments are released.
    Remove {
        id: GroupId,
    },
}

/// One atomic change of everything it names.
#[derive(Clone, Default, Debug)]
pub struct Edit {
    pub groups: Vec<GroupChange>,
    /// The log is drained past them: they become ordinary sealed egroups, free once no page of theirs is
    /// live.
    pub segments_released: Vec<EgroupId>,
    /// Tables added and removed, pages referenced and released.
    pub tables: Vec<(GroupId, TreeEdit)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DriveCondition {
    Active,
    /// A write or flush on it failed, now or in an earlier run: nothing on it counts.
    Out,
    /// Not there when the pool was opened.
    Missing,
    /// Behind what the other drives know of it: an old image.
    Stale,
}

impl DriveCondition {
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Out => "out",
            Self::Missing => "missing",
            Self::Stale => "stale",
        }
    }
}

#[derive(Clone, Debug)]
pub struct DriveState {
    pub index: u16,
    pub uuid: Uuid,
    /// The drive's own name (its path); empty when missing.
    pub name: String,
    pub domain: String,
    pub condition: DriveCondition,
    /// Why it is not active; empty otherwise.
    pub reason: String,
    /// It is being emptied, to be removed.
    pub draining: bool,
    /// Of an active drive.
    pub health: Health,
    pub latency: Latency,
    /// Wall time, seconds since 1970, of the newest change of condition or health; 0: none since the pool was opened.
    pub changed_s: i64,
    /// Bytes of slots, and of those that are free.
    pub total_bytes: u64,
    pub free_bytes: u64,
}

/// Something that happened to a drive or to what lies on drives, for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolEvent {
    /// Counted from 1 since the pool was opened.
    pub number: u64,
    /// Seconds since 1970.
    pub at_s: i64,
    pub what: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PoolSpace {
    /// Bytes of slots on active drives.
    pub total: u64,
    /// Bytes of slots that are free, or will be once the manifest allows it.
    pub free: u64,
    /// Part of `free` that only operations that give space back may take.
    pub reserve: u64,
    pub log: u64,
    pub metadata: u64,
    /// Everything else that is in use.
    pub data: u64,
    /// Part of `data` that no table names any more, for cleaning to give back; as of the newest look of the engine.
    pub dead: u64,
}

/// Slots of active drives, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PoolRoom {
    pub total_bytes: u64,
    /// Free, or will be once the manifest allows it.
    pub free_bytes: u64,
    /// Part of `free_bytes`.
    pub reserve_bytes: u64,
}

impl PoolRoom {
    /// What cleaning keeps free beside the reserve. Little: whatever lies idle makes the rest fuller, and cleaning dearer.
    fn wanted_bytes(&self) -> u64 {
        (self.total_bytes / ROOM_SHARE).max(1)
    }
    /// Part of what cleaning keeps free that is there; 1 or more: enough.
    pub fn left(&self) -> f64 {
        (self.free_bytes - self.reserve_bytes) as f64 / self.wanted_bytes() as f64
    }
}

/// How deep into the reserve a slot may be taken from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Draw {
    /// Not at all: what users write.
    Ordinary,
    /// Down to half of it: operations that give space back.
    Freeing,
    /// Wholly: drains, compactions, cleaning, recovery. Without them nothing would ever be given back.
    Upkeep,
}

/// Events since the pool was opened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PoolCounters {
    /// To drives, all copies, by what they were: log frames, blocks that drains packed, what cleaning moved, tables, the
    /// manifest; `bytes_written` is their sum and what mends.
    pub bytes_written: u64,
    pub bytes_logged: u64,
    pub bytes_packed: u64,
    pub bytes_cleaned: u64,
    pub bytes_tables: u64,
    pub bytes_manifest: u64,
    pub bytes_read: u64,
    pub checksum_failures: u64,
    pub read_errors: u64,
    pub repairs: u64,
    /// Reads for which a second copy was asked because the first was late, and those that it answered first.
    pub reads_hedged: u64,
    pub hedges_won: u64,
    /// Reads that only a drive that is out or stale could answer.
    pub reads_last_resort: u64,
    /// Drives that became slow or failing.
    pub drives_demoted: u64,
    pub manifest_writes: u64,
    pub manifest_switches: u64,
    pub drives_out: u64,
    pub drives_full: u64,
    pub egroups_freed: u64,
    pub egroups_cleaned: u64,
    pub pages_moved: u64,
    /// Those of them that only history named, as far as was known.
    pub pages_moved_past: u64,
    /// Egroups that cleaning left alone because their copies differ: work for the scrub.
    pub cleans_skipped: u64,
    /// Copies that were made because others were lost, and their bytes.
    pub copies_healed: u64,
    pub bytes_healed: u64,
    /// Read by scrubs, all copies.
    pub bytes_scrubbed: u64,
}
