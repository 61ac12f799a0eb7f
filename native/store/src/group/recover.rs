//! Starting a group: from nothing, or from what the last owner left.

use super::view::{Generation, NOW, View};
use super::{Bell, Commit, Group, GroupCounters, GroupOptions, internal};
use crate::error::{Error, Result};
use crate::metadata::cache::BlockCache;
use crate::metadata::io::TableIo;
use crate::metadata::tree::{Floor, Ground, Tree, TreeOptions, TreeSet};
use crate::oplog::log::{Log, UsedSegment};
use crate::oplog::place::Place;
use crate::oplog::ring::Ring;
use crate::oplog::scan;
use crate::placement::{Draw, Edit, EpochRow, GroupChange, GroupRecord, Pool};
use holdfast_device::{Rng, SharedMemory};
use holdfast_format::checksum::checksum;
use holdfast_format::inode::VolumeRecord;
use holdfast_format::limits::{BLOCK_BYTES, COPIES_MAX, MERGE_TARGETS_MAX};
use holdfast_format::op::{Effect, Op, OpKind, each_effect};
use holdfast_format::wire::Take;
use holdfast_format::{BranchId, GroupId, Lsn, Row, Stamp, Uuid, key};
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// Level 1 holds this many memtables' worth.
const LEVEL1_MEMTABLES: u64 = 8;

/// Undrained log of a group at most, as a share of the pool and in bytes. What it overwrites is dead, and nobody knows yet.
const LOG_SHARE: u64 = 128;
const LOG_BYTES_MAX: u64 = 1 << 30;
/// Payload that level 0 names at most, as a share of the pool: the same holds for it.
const LEVEL0_PAYLOAD_SHARE: u64 = 48;
/// Shares of a small pool are at least this many slots.
const SHARE_SLOTS_MIN: u64 = 8;

fn share_of_pool(pool: &Pool, share: u64) -> u64 {
    (pool.room().total_bytes / share).max(SHARE_SLOTS_MIN * pool.slot_bytes() as u64)
}

/// An op out of the ring that the log does not have.
struct RingTail {
    ops: Vec<(Vec<u8>, Vec<u8>)>,
}

impl RingTail {
    /// Highest RF that these ops ask for: of their payloads, and of the volumes that they create.
    fn rf_max(&self) -> Result<u8> {
        let mut rf_max = 1;
        for (bytes, _) in &self.ops {
            let op = Op::take(&mut Take::new(bytes)).map_err(|error| Error::decode("an op of the ring", error))?;
            rf_max = rf_max.max(op.header.payload_rf);
            each_effect(op.effects, |effect| {
                if let Effect::Put { key, value } = effect
                    && key::parts(key).is_some_and(|parts| parts.kind == key::KIND_VOLUME)
                    && let Ok(volume) = VolumeRecord::decode(value)
                {
                    rf_max = rf_max.max(volume.rf);
                }
            })
            .map_err(|error| Error::decode("an operation's effects", error))?;
        }
        Ok(rf_max)
    }
}

impl Group {
    /// Makes a new group durable in the manifest, with the row of this start. Who made it opens it with
    /// [`GroupOptions::fresh`]; after a crash in between it is opened like any other.
    pub fn create(pool: &Pool, name: &str, base: Option<(GroupId, Lsn)>, rng: &mut Rng) -> Result<GroupId> {
        let id = pool.new_group_id();
        let row = EpochRow { major: 1, minor: 1, random: rng.next_u64(), first_lsn: Lsn(1), chain: 0 };
        let uuid = Uuid(rng.uuid());
        pool.publish(Edit {
            groups: vec![
                GroupChange::Create { id, uuid, name: name.to_owned(), base },
                GroupChange::Epoch { id, row },
            ],
            ..Edit::default()
        })?;
        Ok(id)
    }

    /// Order (idempotent; STORE.md 12, 14):
    /// 1. trees from the manifest's tables;
    /// 2. the log above `drained_lsn`: what counts is applied, copies that lack it are repaired;
    /// 3. ops of the ring that continue the log without a gap, if the ring is of this boot, pool and group;
    /// 4. a new row of the epoch history, durable: from here on no frame of an earlier start counts above it; segments
    ///    that hold nothing are given back;
    /// 5. ring ops are logged again, durably, and applied; only then is the ring started anew.
    pub fn open(
        pool: &Arc<Pool>,
        record: &GroupRecord,
        mut options: GroupOptions,
        cache: &Arc<BlockCache>,
        memory: SharedMemory,
        rng: &mut Rng,
    ) -> Result<Arc<Self>> {
        let base = options.base.take();
        let tree_options = TreeOptions {
            owner: record.id,
            kind: TreeSet::Group,
            level1_bytes: options.memtable_bytes as u64 * LEVEL1_MEMTABLES,
            level0_payload_bytes: share_of_pool(pool, LEVEL0_PAYLOAD_SHARE),
            targets_max: MERGE_TARGETS_MAX,
            ground: Ground::new(base.clone().map(|base| base as Arc<dyn Floor>)),
        };
        let io: Arc<dyn TableIo> = pool.clone();
        let tree = Tree::open(io, cache.clone(), tree_options, pool.group_tables(record.id))?;
        let generation = Arc::new(Generation::new(Lsn(record.drained_lsn.0 + 1)));
        let view = View { generations: vec![generation.clone()], levels: tree.snapshot(), at: NOW, base };
        let last_point = AtomicU64::new(0);
        let mut replayed = 0;
        let mut replay = Replay { pool, generation: &generation, last_point: &last_point, replayed: &mut replayed };
        let (row, rf, tip) = if options.fresh {
            // Nobody wrote a frame before: the row it was made with is that of this start.
            (Row(record.next_row().0 - 1), header_rf(&view)?.unwrap_or(1), LogTip { lsn: Lsn(0), chain: 0, used: Vec::new() })
        } else {
            recover_log((pool, record, &options), &view, &memory, &mut replay, rng)?
        };
        let ring = Ring::format(memory, options.boot_id, pool.uuid(), record.id);
        ring.sleep();
        let newest = tip.lsn;
        let log = Log::new(pool.clone(), record.id, ring, rf, row, (tip.lsn, tip.chain), tip.used);
        let retention = RwLock::new(options.retention.clone());
        let group = Arc::new(Self {
            id: record.id,
            pool: pool.clone(),
            options,
            tree,
            log,
            row,
            logged_bytes: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            log_bytes_due: share_of_pool(pool, LOG_SHARE).min(LOG_BYTES_MAX),
            commit: Mutex::new(Commit { next: Lsn(newest.0 + 1), op: Vec::new() }),
            newest: AtomicU64::new(newest.0),
            present: AtomicI64::new(i64::MAX),
            changed: AtomicU64::new(newest.0),
            last_point,
            view: RwLock::new(view),
            maintenance: Mutex::new(()),
            points: Mutex::default(),
            retention,
            short_until_ns: AtomicU64::new(0),
            naming: Mutex::default(),
            loosened: Mutex::default(),
            thinned: Default::default(),
            replication: Default::default(),
            gate: Arc::default(),
            given: AtomicBool::new(false),
            headers: Default::default(),
            account: Mutex::default(),
            drained: AtomicU64::new(record.drained_lsn.0),
            drained_signal: (Mutex::default(), Condvar::new()),
            point_signal: (Mutex::default(), Condvar::new()),
            flusher: Bell::default(),
            idle: Mutex::default(),
            reclaim: Mutex::default(),
            freed: AtomicBool::new(false),
            pace: Default::default(),
            closed: AtomicBool::new(false),
            counters: GroupCounters::default(),
        });
        group.counters.replayed.store(replayed, Ordering::Relaxed);
        group.load_points()?;
        group.adopt_retention(&group.retention_record()?);
        group.loosen_all();
        group.bound_present();
        Ok(group)
    }

    /// The trees of a group whose log may be unreadable.
    pub fn tables_of(pool: &Arc<Pool>, group: GroupId, cache: &Arc<BlockCache>) -> Result<Tree> {
        // A budget for compactions, of which there will be none.
        let options = TreeOptions {
            owner: group,
            kind: TreeSet::Group,
            level1_bytes: u64::MAX,
            level0_payload_bytes: u64::MAX,
            targets_max: MERGE_TARGETS_MAX,
            ground: Ground::default(),
        };
        let io: Arc<dyn TableIo> = pool.clone();
        Tree::open(io, cache.clone(), options, pool.group_tables(group))
    }

    /// Volumes of a group whose log may be unreadable, as the tables know them.
    pub fn volumes_in_tables(
        pool: &Arc<Pool>,
        record: &GroupRecord,
        cache: &Arc<BlockCache>,
    ) -> Result<Vec<(BranchId, VolumeRecord)>> {
        let tree = Self::tables_of(pool, record.id, cache)?;
        let generation = Arc::new(Generation::new(Lsn(record.drained_lsn.0 + 1)));
        volumes_of(&View { generations: vec![generation], levels: tree.snapshot(), at: NOW, base: None })
    }

    /// Volumes that a kept point saw.
    pub fn volumes_at(&self, at: Lsn) -> Result<Vec<(BranchId, VolumeRecord)>> {
        let _hold = self.pool.hold();
        volumes_of(&self.view_at(at).own())
    }

    /// Branches of the group that hold a volume, with their records.
    pub fn volumes(&self) -> Result<Vec<(BranchId, VolumeRecord)>> {
        let _hold = self.pool.hold();
        volumes_of(&self.view().own())
    }

    /// Branches of volumes whose destruction has begun: their records have lost the name.
    pub fn volumes_to_delete(&self) -> Result<Vec<BranchId>> {
        let _hold = self.pool.hold();
        let mut records = records_of(&self.view().own())?;
        records.retain(|(_, record)| record.name.is_empty());
        Ok(records.into_iter().map(|(branch, _)| branch).collect())
    }
}

/// Steps 2 to 5 of [`Group::open`], up to where the ring is started anew: the row of this start, copies of headers, the log's end.
fn recover_log(
    (pool, record, options): (&Arc<Pool>, &GroupRecord, &GroupOptions),
    view: &View,
    memory: &SharedMemory,
    replay: &mut Replay<'_>,
    rng: &mut Rng,
) -> Result<(Row, u8, LogTip)> {
    // Headers have as many copies as any volume, at least: segments for fewer hold payload only.
    let rf_min = header_rf(view)?.unwrap_or(1);
    let scanned = scan::scan(pool, (record, rf_min), &mut |op, place| {
        replay.op(op, place.map(|place| Place::Egroup(place.egroup, place.page)))
    })?;
    let tail = ring_tail(memory, options, pool.uuid(), record.id, scanned.tip)?;
    let previous = record.history.last().copied().unwrap_or_default();
    let row = record.next_row();
    let epoch = EpochRow {
        major: previous.major.max(1),
        minor: previous.minor + 1,
        random: rng.next_u64(),
        first_lsn: Lsn(scanned.tip.0 + 1),
        chain: scanned.chain,
    };
    pool.publish(Edit {
        groups: vec![GroupChange::Epoch { id: record.id, row: epoch }],
        segments_released: scanned.unused,
        tables: Vec::new(),
    })?;
    pool.trim_epochs(record.id, scanned.oldest_row.unwrap_or(row))?;
    // Only clones look at a group that has lost its volumes: as many copies as any of them may ask for.
    let of_base = if scanned.tip == Lsn(0) { 1 } else { pool.drives_accepting().clamp(1, COPIES_MAX) as u8 };
    // The copies of headers never get fewer behind frames that count: a start that misses a drive relies on that.
    let rf = header_rf(view)?.unwrap_or(of_base).max(tail.rf_max()?).max(scanned.header_rf);
    let owner = Owner { pool, group: record.id, row, rf, boot_id: options.boot_id };
    let tip = LogTip { lsn: scanned.tip, chain: scanned.chain, used: scanned.used };
    let tip = if tail.ops.is_empty() { tip } else { owner.relog(tip, &tail, memory.bytes(), replay)? };
    Ok((row, rf, tip))
}

struct Replay<'a> {
    pool: &'a Pool,
    generation: &'a Arc<Generation>,
    last_point: &'a AtomicU64,
    replayed: &'a mut u64,
}

impl Replay<'_> {
    /// Applies one op of the log, exactly as the commit did.
    fn op(&mut self, op: &Op<'_>, place: Option<Place>) -> Result<()> {
        let stamp = Stamp { lsn: op.header.lsn, row: op.header.row };
        let last_point = Lsn(self.last_point.load(Ordering::Relaxed));
        apply_effects(self.pool, self.generation, stamp, (op.header.branch, op.effects), place, last_point)?;
        if op.header.kind == OpKind::Point {
            self.last_point.store(op.header.lsn.0, Ordering::Relaxed);
        }
        let bytes = op.header.payload_pages as u64 * BLOCK_BYTES as u64 + op.effects.len() as u64;
        self.generation.logged.fetch_add(bytes, Ordering::Relaxed);
        *self.replayed += 1;
        Ok(())
    }
}

/// Puts an op's effects into a memtable. The same code serves commits and replay (I-2).
pub(super) fn apply_effects(
    pool: &Pool,
    generation: &Generation,
    stamp: Stamp,
    (branch, effects): (BranchId, &[u8]),
    place: Option<Place>,
    last_point: Lsn,
) -> Result<()> {
    let memtable = &generation.memtable;
    generation.places.push(stamp.lsn, place);
    each_effect(effects, |effect| match effect {
        Effect::Put { key, value } => {
            let pages = super::commit::shared_pages(key, value);
            if !pages.is_empty() {
                pages.iter().for_each(|page| pool.pin_page(*page));
                generation.pinned.lock().extend(pages);
            }
            memtable.insert(key, stamp, Some(value), last_point);
        }
        Effect::Delete { key } => memtable.insert(key, stamp, None, last_point),
        Effect::Pages { .. } => holdfast_format::op::pages_cells(branch, stamp.lsn, effect, |key, value| {
            memtable.insert(&key, stamp, Some(&value), last_point);
        }),
    })
    .map_err(|error| Error::decode("an operation's effects", error))
}

/// Step 3. Copies the ring's ops above `tip` out, as far as they follow each other and verify.
fn ring_tail(
    memory: &SharedMemory,
    options: &GroupOptions,
    pool: Uuid,
    group: GroupId,
    tip: Lsn,
) -> Result<RingTail> {
    let mut tail = RingTail { ops: Vec::new() };
    let Some(ring) = Ring::reopen(memory.clone(), options.boot_id, pool, group) else { return Ok(tail) };
    let (mut position, head) = ring.window();
    let mut next = Lsn(tip.0 + 1);
    while position < head {
        let Ok(record) = ring.record(position) else { break };
        let Ok(op) = Op::take(&mut Take::new(record.op)) else { break };
        position = record.next;
        if op.header.lsn < next {
            continue;
        }
        let payload = ring.pages(record.page_position, op.header.payload_pages as usize * BLOCK_BYTES);
        if op.header.lsn > next || !payload_verifies(&op, payload) {
            break;
        }
        tail.ops.push((record.op.to_vec(), payload.to_vec()));
        next = Lsn(next.0 + 1);
    }
    Ok(tail)
}

fn payload_verifies(op: &Op<'_>, payload: &[u8]) -> bool {
    let mut good = true;
    let decoded = each_effect(op.effects, |effect| {
        if let Effect::Pages { first_page, checksums, .. } = effect {
            for (at, sum) in checksums.chunks_exact(8).enumerate() {
                let start = (first_page as usize + at) * BLOCK_BYTES;
                let page = payload.get(start..start + BLOCK_BYTES);
                good &= page.is_some_and(|page| checksum(page).to_le_bytes() == sum);
            }
        }
    });
    good && decoded.is_ok()
}

/// Where the durable log ends.
struct LogTip {
    lsn: Lsn,
    chain: u64,
    used: Vec<UsedSegment>,
}

struct Owner<'a> {
    pool: &'a Arc<Pool>,
    group: GroupId,
    row: Row,
    rf: u8,
    boot_id: [u8; 16],
}

impl Owner<'_> {
    /// Step 5. The ring's ops go through a log with a private ring, so that a crash meanwhile finds the old ring as it was.
    fn relog(&self, tip: LogTip, tail: &RingTail, ring_bytes: usize, replay: &mut Replay<'_>) -> Result<LogTip> {
        let memory = SharedMemory::heap(ring_bytes);
        let ring = Ring::format(memory, self.boot_id, self.pool.uuid(), self.group);
        let log = Log::new(self.pool.clone(), self.group, ring, self.rf, self.row, (tip.lsn, tip.chain), tip.used);
        let places = Mutex::new(BTreeMap::new());
        let moved = |moved: &[(Lsn, Place)]| places.lock().extend(moved.iter().copied());
        for (bytes, payload) in &tail.ops {
            let op = Op::take(&mut Take::new(bytes)).map_err(|error| Error::decode("an op of the ring", error))?;
            let rf = op.header.payload_rf;
            while !log.admit(op.header.lsn, bytes.len(), payload.len(), rf) {
                log.refill(rf, Draw::Upkeep)?;
            }
            while log.ring.append(bytes, payload).is_none() {
                log.flush(&moved)?;
            }
        }
        log.flush(&moved)?;
        for (bytes, _) in &tail.ops {
            let op = Op::take(&mut Take::new(bytes)).map_err(|error| Error::decode("an op of the ring", error))?;
            let place = places.lock().get(&op.header.lsn).copied();
            replay.op(&op, place)?;
        }
        let unused = log.seal();
        if !unused.is_empty() {
            self.pool.publish(Edit { segments_released: unused, ..Edit::default() })?;
        }
        let (chain, used) = log.end();
        Ok(LogTip { lsn: log.durable(), chain, used })
    }
}

/// Highest RF of the group's volumes: the copies of its headers. `None`: it has no volume.
fn header_rf(view: &View) -> Result<Option<u8>> {
    Ok(volumes_of(&view.clone().own())?.iter().map(|(_, record)| record.rf).max())
}

fn volumes_of(view: &View) -> Result<Vec<(BranchId, VolumeRecord)>> {
    let mut records = records_of(view)?;
    records.retain(|(_, record)| !record.name.is_empty());
    Ok(records)
}

fn records_of(view: &View) -> Result<Vec<(BranchId, VolumeRecord)>> {
    let mut volumes = Vec::new();
    for branch in branches_of(view)? {
        if let Some(value) = view.get(&key::volume(branch))? {
            let record = VolumeRecord::decode(&value).map_err(|error| Error::decode("a volume record", error))?;
            volumes.push((branch, record));
        }
    }
    Ok(volumes)
}

/// Branches of which there is any record, be it a deletion.
pub(super) fn branches_of(view: &View) -> Result<Vec<BranchId>> {
    let mut branches = Vec::new();
    let mut branch = BranchId(1);
    loop {
        let mut found = None;
        view.scan(&key::volume(branch), &[0xff; 16], &mut |seen| {
            found = key::parts(seen.key).map(|parts| parts.branch);
            Ok(false)
        })?;
        let Some(at) = found else { return Ok(branches) };
        branches.push(at);
        branch = BranchId(at.0.checked_add(1).ok_or_else(|| internal("the last branch number is in use"))?);
    }
}
