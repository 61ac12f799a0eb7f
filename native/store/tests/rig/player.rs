//! Plays seeded random operations on an engine and notes, after each, what a crash must not lose.

use super::tree::{Entry, walk};
use super::{DRIVE_BYTES, ROOT, Rings, step};
use holdfast_device::{Drive, Rng, SharedMemory, SimWorld};
use holdfast_format::{GroupId, Ino, ROOT_INO};
use holdfast_store::api::{
    FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, FileSystem, FsError, FsResult, RENAME_EXCHANGE,
    SetAttr, WriteFlags,
};
use holdfast_store::engine::{Engine, EngineOptions, VolumeCreate};
use holdfast_store::group::Group;
use holdfast_store::placement::PoolDrive;
use holdfast_store::volume::{Volume, VolumeOptions};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

const NAMES: [&[u8]; 9] = [b"a", b"b", b"c", b"d", b"e", b"f", b"\xff\xfe", b"line\nbreak", b"a longer name"];
const FILE_BYTES_MAX: u64 = 200_000;
const ENTRIES_MAX: usize = 24;

/// Every kind of operation that a trace may hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum OpName {
    Create,
    Mkdir,
    Symlink,
    Link,
    Unlink,
    UnlinkOpen,
    Forget,
    Rmdir,
    Rename,
    Exchange,
    Tmpfile,
    WriteAligned,
    WritePartial,
    WriteLarge,
    Overwrite,
    Truncate,
    Chmod,
    Punch,
    Zero,
    Allocate,
    Copy,
    SetXattr,
    RemoveXattr,
    Fsync,
    Flush,
    FlushInTurns,
    Second,
    Drain,
    Compact,
    Expire,
    Clean,
    Heartbeat,
    Settle,
    VolumeCreate,
    VolumeRename,
    VolumeQuota,
    VolumeDestroy,
    Close,
    Kill,
}

impl OpName {
    pub fn all() -> impl Iterator<Item = Self> {
        WEIGHTS.iter().map(|(op, _)| *op)
    }
}

use OpName as O;
/// (kind, weight)
const WEIGHTS: [(OpName, u64); 39] = [
    (O::Create, 6),
    (O::Mkdir, 2),
    (O::Symlink, 1),
    (O::Link, 2),
    (O::Unlink, 3),
    (O::UnlinkOpen, 2),
    (O::Forget, 2),
    (O::Rmdir, 2),
    (O::Rename, 3),
    (O::Exchange, 1),
    (O::Tmpfile, 2),
    (O::WriteAligned, 5),
    (O::WritePartial, 7),
    (O::WriteLarge, 4),
    (O::Overwrite, 6),
    (O::Truncate, 3),
    (O::Chmod, 1),
    (O::Punch, 3),
    (O::Zero, 1),
    (O::Allocate, 1),
    (O::Copy, 4),
    (O::SetXattr, 4),
    (O::RemoveXattr, 2),
    (O::Fsync, 8),
    (O::Flush, 3),
    (O::FlushInTurns, 7),
    (O::Second, 4),
    (O::Drain, 5),
    (O::Compact, 3),
    (O::Expire, 2),
    (O::Clean, 9),
    (O::Heartbeat, 2),
    (O::Settle, 1),
    (O::VolumeCreate, 3),
    (O::VolumeRename, 1),
    (O::VolumeQuota, 1),
    (O::VolumeDestroy, 2),
    (O::Close, 1),
    (O::Kill, 1),
];

/// Ends every trace: log segments that are sealed and thinned out, so that cleaning has something to do.
const FINALE: [OpName; 13] = [
    O::WriteLarge,
    O::Overwrite,
    O::Drain,
    O::Kill,
    O::Overwrite,
    O::Copy,
    O::WriteLarge,
    O::Drain,
    O::Kill,
    O::Expire,
    O::Settle,
    O::Clean,
    O::Drain,
];

/// What is true after an operation: indexed by the trace's `MOMENT` marks.
#[derive(Clone, Default)]
pub struct Moment {
    pub acknowledged: BTreeMap<GroupId, u64>,
    pub durable: BTreeMap<GroupId, u64>,
    /// The rings as a kill at this instant leaves them.
    pub rings: BTreeMap<GroupId, SharedMemory>,
}

pub const MOMENT: &str = "moment";

/// Of a wounded plan: the drive that is lost, and the one of which one block in so many is wrong.
const LOST: usize = 0;
const ROTTEN: usize = 1;
const ROT_ONE_IN: u64 = 2;
/// A drive that is missing is waited for so long before its copies are made anew.
const GRACE_NS: u64 = (holdfast_format::limits::MISSING_GRACE_S + 1) * 1_000_000_000;
/// What is written before it is lost.
const FAT_ROUNDS: u64 = 8;
const FAT_BYTES: u64 = 70_000;
/// Operations between two healings.
const HEAL_EVERY: usize = 6;

/// States of the groups by LSN, as text.
pub type States = BTreeMap<GroupId, BTreeMap<u64, Arc<str>>>;

/// How a trace is made.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub drives: usize,
    /// RF of the volumes, in turn; all in one group when `shared`.
    pub rfs: &'static [u8],
    pub shared: bool,
    /// Before the trace a drive is lost and another one rots: copies are mended as they are read, and made anew.
    pub wounded: bool,
    /// Operations before the trace, and in it.
    pub before: usize,
    pub recorded: usize,
}

/// Flushers' turns by chance, and what of it is under way together.
struct Turns<'a> {
    world: SimWorld,
    rng: &'a mut Rng,
}

impl holdfast_store::oplog::log::Turns for Turns<'_> {
    fn choose(&mut self, count: usize) -> usize {
        self.rng.below(count as u64) as usize
    }

    fn writes(&mut self, together: bool) {
        if together && self.rng.chance(2, 3) {
            self.world.join_next();
        }
    }
}

pub struct Player {
    pub plan: Plan,
    pub world: SimWorld,
    pub rings: Rings,
    pub engine: Option<Arc<Engine>>,
    volumes: BTreeMap<String, Arc<Volume>>,
    /// Inodes that the "kernel" refers to beyond their names.
    held: BTreeMap<(String, u64), u64>,
    rng: Rng,
    next_volume: u32,
    fill: u8,
    recording: bool,
    /// One drive is not there any more.
    lost: bool,
    /// Newest LSN before the last call that changed a volume; by inode, what it looked like and an LSN that its last
    /// change is not below; what was promised to be durable, by fsync and the like.
    began: BTreeMap<String, u64>,
    seen: BTreeMap<(String, Ino), (String, u64)>,
    fsynced: Option<Ino>,
    synced: BTreeMap<GroupId, u64>,
    pub moments: Vec<Moment>,
    pub states: States,
    pub counts: BTreeMap<OpName, u64>,
    pub log: Vec<String>,
}

pub fn options() -> EngineOptions {
    EngineOptions { memtable_bytes: 48 << 10, ring_bytes: 1 << 20, ..super::options() }
}

/// Mounts so that looking changes nothing.
pub fn mount(engine: &Engine, name: &str) -> Arc<Volume> {
    engine
        .volume(name, VolumeOptions { noatime: true })
        .unwrap_or_else(|error| panic!("mounting {name}: {error}"))
}

/// What can be seen of every group: its volumes and all in them. `volumes`: those that are mounted already.
pub fn group_texts(
    engine: &Engine,
    volumes: &BTreeMap<String, Arc<Volume>>,
) -> FsResult<BTreeMap<GroupId, String>> {
    let mut texts: BTreeMap<GroupId, String> =
        engine.groups().iter().map(|group| (group.id, String::new())).collect();
    let records = engine.pool().groups();
    for info in engine.volumes()? {
        let Some(record) = records.iter().find(|record| record.name == info.group && !record.destroyed)
        else {
            panic!("volume {} is in group {}, which is none", info.name, info.group);
        };
        let text = texts.entry(record.id).or_default();
        let _ = writeln!(
            text,
            "== {} rf {} quota {} ack {} created {}",
            info.name, info.rf, info.quota_bytes, info.ack_write, info.created_s
        );
        text.push_str(&walk(&volumes[&info.name])?.text);
    }
    Ok(texts)
}

impl Plan {
    /// The drives that are there when the trace is made.
    pub fn drives_left(&self, world: &SimWorld) -> Vec<Arc<dyn Drive>> {
        drives_of(world, self.wounded)
    }
}

/// All drives of a world, or all but the lost one.
fn drives_of(world: &SimWorld, lost: bool) -> Vec<Arc<dyn Drive>> {
    let gone = |at: &usize| lost && *at == LOST;
    let drives = world.drives().into_iter().enumerate().filter(|(at, _)| !gone(at));
    drives.map(|(_, drive)| Arc::new(drive) as Arc<dyn Drive>).collect()
}

impl Player {
    pub fn new(plan: Plan) -> Self {
        let world = SimWorld::new(plan.seed);
        let drives = (0..plan.drives)
            .map(|at| {
                let drive = world.add_drive(&format!("d{at}"), DRIVE_BYTES * 2);
                PoolDrive { drive: Arc::new(drive), bytes: Some(DRIVE_BYTES), domain: String::new() }
            })
            .collect();
        // On some, logs are made ready with zeroes.
        world.set_cheap(!plan.seed.is_multiple_of(4));
        let rings = Rings::default();
        let engine =
            Engine::create_on("pool", drives, options(), super::foundation(&world, &rings, plan.seed))
                .expect("a fresh pool");
        let mut player = Self {
            plan,
            world,
            rings,
            engine: Some(engine),
            volumes: BTreeMap::new(),
            held: BTreeMap::new(),
            rng: Rng::from_seed(plan.seed ^ 0x9e37_79b9),
            next_volume: 0,
            fill: 0,
            recording: false,
            lost: false,
            began: BTreeMap::new(),
            seen: BTreeMap::new(),
            fsynced: None,
            synced: BTreeMap::new(),
            moments: Vec::new(),
            states: States::new(),
            counts: BTreeMap::new(),
            log: Vec::new(),
        };
        for _ in plan.rfs {
            player.volume_create();
        }
        player
    }

    /// Plays the whole plan. Afterwards the world holds the trace.
    pub fn play(&mut self) {
        for _ in 0..self.plan.before {
            self.step();
        }
        if self.plan.wounded {
            self.wound();
        }
        self.world.start_trace();
        self.recording = true;
        self.note();
        for at in 0..self.plan.recorded {
            if self.plan.wounded && at % HEAL_EVERY == HEAL_EVERY - 1 {
                self.heal();
                self.note();
            }
            self.step();
            self.note();
        }
        for op in FINALE {
            self.play_one(op);
            self.note();
        }
        self.recording = false;
    }

    /// One drive is not there at the next start, and blocks of another one have rotted meanwhile.
    fn wound(&mut self) {
        self.fatten().expect("written");
        self.engine().flush().expect("flushed");
        self.engine().groups().iter().for_each(|group| self.all_synced(group));
        self.leave();
        self.lost = true;
        let rotten = self.world.drives()[ROTTEN].clone();
        for (file, bytes) in rotten.files().into_iter().filter(|(file, _)| file.starts_with("slab-")) {
            for offset in (0..bytes).step_by(4096) {
                let block = rotten.read_raw(&file, offset, 4096).expect("a block of the slab");
                if block.iter().any(|byte| *byte != 0) && self.rng.chance(1, ROT_ONE_IN) {
                    rotten.flip_bit(&file, offset + self.below(4096), self.below(8) as u8);
                }
            }
        }
        self.enter();
    }

    /// Something to lose: egroups and tables, sealed.
    fn fatten(&mut self) -> FsResult<()> {
        for round in 0..FAT_ROUNDS {
            self.play_one(O::Create);
            let Some((name, volume)) = self.pick_volume() else { continue };
            let ino = volume.create(&ROOT, ROOT_INO, format!("fat {round}").as_bytes(), 0o644)?.ino;
            self.write(&volume, ino, 0, FAT_BYTES)?;
            volume.forget(ino, 1);
            self.group_of(&name).expect("the volume's group").drain_now()?;
        }
        Ok(())
    }

    /// Makes the lost copies anew.
    fn heal(&mut self) {
        self.told("heal".into());
        // Any start may have been since the last time.
        self.world.clock().advance(GRACE_NS);
        let engine = self.engine();
        self.phase(step::PHASE_HEAL, || engine.heal()).unwrap_or_else(|error| {
            panic!("seed {}: healing: {error}\n{}", self.plan.seed, self.log.join("\n"))
        });
    }

    pub fn engine(&self) -> Arc<Engine> {
        self.engine.clone().expect("an engine is running")
    }

    fn step(&mut self) {
        let total: u64 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut at = self.rng.below(total);
        let op = WEIGHTS
            .iter()
            .find(|(_, weight)| {
                let here = at < *weight;
                at = at.wrapping_sub(*weight);
                here
            })
            .expect("inside the sum")
            .0;
        self.play_one(op);
    }

    fn play_one(&mut self, op: OpName) {
        self.world.clock().advance(1_000_000 * (1 + self.rng.below(400)));
        let done = match self.act(op) {
            Ok(done) => done,
            Err(FsError::Store(error)) => {
                panic!("seed {}: {op:?}: {error}\n{}", self.plan.seed, self.log.join("\n"))
            }
            Err(_) => false,
        };
        if done && self.recording {
            *self.counts.entry(op).or_default() += 1;
        }
    }

    /// A moment: what is acknowledged and durable now, and what everything looks like.
    fn note(&mut self) {
        let engine = self.engine();
        let mut moment = Moment::default();
        for group in engine.groups() {
            moment.acknowledged.insert(group.id, group.newest().0);
            // Not what the engine believes: what it has answered.
            moment.durable.insert(group.id, self.synced.get(&group.id).copied().unwrap_or(0));
        }
        let rings = self.rings.lock().expect("no panic under the lock");
        moment.rings = rings.iter().map(|(group, memory)| (*group, memory.snapshot())).collect();
        drop(rings);
        let changed = moment
            .acknowledged
            .iter()
            .any(|(group, lsn)| self.states.get(group).is_none_or(|states| !states.contains_key(lsn)));
        if changed {
            let looked = match self.plan.wounded {
                true => self.phase(step::PHASE_MEND, || group_texts(&engine, &self.volumes)),
                false => group_texts(&engine, &self.volumes),
            };
            let texts = looked.unwrap_or_else(|error| {
                panic!("seed {}: {error:?}\n{}", self.plan.seed, self.log.join("\n"))
            });
            for (group, text) in texts {
                self.states.entry(group).or_default().insert(moment.acknowledged[&group], text.into());
            }
        }
        self.world.mark(MOMENT, self.moments.len() as u64);
        self.moments.push(moment);
    }

    fn group_of(&self, name: &str) -> Option<Arc<Group>> {
        let engine = self.engine();
        let info = engine.volumes().expect("volumes").into_iter().find(|info| info.name == name)?;
        let record = engine.pool().groups().into_iter().find(|record| record.name == info.group)?;
        engine.groups().into_iter().find(|group| group.id == record.id)
    }

    /// Everything of the group is durable.
    fn all_synced(&mut self, group: &Group) {
        self.synced.insert(group.id, group.newest().0);
    }

    fn phase<T>(&self, phase: u64, act: impl FnOnce() -> T) -> T {
        self.world.mark(step::PHASE, phase);
        let result = act();
        self.world.mark(step::PHASE, step::PHASE_WORK);
        result
    }

    fn told(&mut self, what: String) {
        if self.recording {
            self.log.push(format!("{}: {what}", self.moments.len()));
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.rng.below(limit)
    }

    fn name(&mut self) -> &'static [u8] {
        NAMES[self.below(NAMES.len() as u64) as usize]
    }

    fn pick_volume(&mut self) -> Option<(String, Arc<Volume>)> {
        let count = self.volumes.len() as u64;
        let at = if count == 0 { return None } else { self.below(count) as usize };
        self.volumes.iter().nth(at).map(|(name, volume)| (name.clone(), volume.clone()))
    }

    fn pick(&mut self, entries: &[Entry], wanted: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let fit: Vec<&Entry> = entries.iter().filter(|entry| wanted(entry)).collect();
        if fit.is_empty() { None } else { Some(fit[self.below(fit.len() as u64) as usize].clone()) }
    }

    fn directory(&mut self, entries: &[Entry]) -> Ino {
        match self.pick(entries, Entry::is_directory) {
            Some(entry) if self.rng.chance(1, 2) => entry.ino,
            _ => ROOT_INO,
        }
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        self.fill = self.fill.wrapping_add(1);
        let seed = self.rng.next_u64();
        if seed.is_multiple_of(8) {
            return vec![0; count as usize];
        }
        let mut rng = Rng::from_seed(seed);
        let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
        bytes.truncate(count as usize);
        bytes
    }

    fn act(&mut self, op: OpName) -> FsResult<bool> {
        match op {
            O::Flush
            | O::FlushInTurns
            | O::Second
            | O::Drain
            | O::Compact
            | O::Expire
            | O::Clean
            | O::Heartbeat
            | O::Settle => self.upkeep(op),
            O::VolumeCreate | O::VolumeRename | O::VolumeQuota | O::VolumeDestroy | O::Close | O::Kill => {
                self.manage(op)
            }
            _ => self.file_op(op),
        }
    }

    fn upkeep(&mut self, op: OpName) -> FsResult<bool> {
        let engine = self.engine();
        let groups = engine.groups();
        if groups.is_empty() {
            return Ok(false);
        }
        let group = groups[self.below(groups.len() as u64) as usize].clone();
        self.told(format!("{op:?} of group {}", group.id));
        Ok(match op {
            O::Flush => {
                engine.flush()?;
                groups.iter().for_each(|group| self.all_synced(group));
                true
            }
            O::FlushInTurns => {
                let ops = 1 + self.below(3) as usize;
                let mut turns = Turns { world: self.world.clone(), rng: &mut self.rng };
                group.flush_in_turns(ops, &mut turns)?;
                self.all_synced(&group);
                true
            }
            O::Second => {
                group.second_now()?;
                self.all_synced(&group);
                true
            }
            O::Drain => {
                group.drain_now()?;
                self.all_synced(&group);
                true
            }
            O::Compact => self.phase(step::PHASE_COMPACT, || group.compact_step())?,
            O::Expire => {
                if self.rng.chance(1, 2) {
                    group.drop_oldest_ticks()?;
                }
                self.phase(step::PHASE_COMPACT, || group.expire_step())?
            }
            O::Clean => self.phase(step::PHASE_CLEAN, || engine.pool().clean_step())?,
            O::Heartbeat => engine.pool().heartbeat().map(|()| true)?,
            _ => {
                for group in &groups {
                    group.drain_now()?;
                    self.phase(step::PHASE_COMPACT, || -> FsResult<()> {
                        while group.compact_step()? {}
                        while group.expire_step()? {}
                        Ok(())
                    })?;
                }
                self.phase(step::PHASE_CLEAN, || -> FsResult<()> {
                    while engine.pool().clean_step()? {}
                    Ok(())
                })?;
                true
            }
        })
    }

    fn volume_create(&mut self) {
        let number = self.next_volume;
        self.next_volume += 1;
        let name = format!("v{number}");
        let rf = self.plan.rfs[number as usize % self.plan.rfs.len()];
        let group = self.plan.shared.then_some("shared");
        let create = VolumeCreate { owner: (number, 0), ..super::volume_create(&name, rf, group) };
        self.told(format!("create volume {name}"));
        self.engine().volume_create(&create).expect("a volume");
        let volume = mount(&self.engine(), &name);
        self.volumes.insert(name.clone(), volume);
        let group = self.group_of(&name).expect("the volume's group");
        self.all_synced(&group);
    }

    fn drop_volume(&mut self, name: &str) {
        self.volumes.remove(name);
        self.held.retain(|(volume, _), _| volume != name);
    }

    fn manage(&mut self, op: OpName) -> FsResult<bool> {
        if matches!(op, O::Close | O::Kill) {
            self.restart(op == O::Close);
            return Ok(true);
        }
        if op == O::VolumeCreate {
            if self.volumes.len() > self.plan.rfs.len() {
                return Ok(false);
            }
            self.volume_create();
            return Ok(true);
        }
        let Some((name, _)) = self.pick_volume() else { return Ok(false) };
        self.told(format!("{op:?} {name}"));
        let engine = self.engine();
        match op {
            O::VolumeQuota => engine.volume_set_quota(&name, (1 << 30) + self.below(1 << 20))?,
            O::VolumeRename => {
                let new_name = format!("{name}r");
                if new_name.len() > 8 {
                    return Ok(false);
                }
                engine.volume_rename(&name, &new_name)?;
                if let Some(volume) = self.volumes.remove(&name) {
                    self.volumes.insert(new_name.clone(), volume);
                }
                let held = std::mem::take(&mut self.held);
                let moved = held.into_iter().map(|((volume, ino), count)| {
                    ((if volume == name { new_name.clone() } else { volume }, ino), count)
                });
                self.held = moved.collect();
                if let Some(lsn) = self.began.remove(&name) {
                    self.began.insert(new_name, lsn);
                }
            }
            _ => {
                if self.volumes.len() < 2 {
                    return Ok(false);
                }
                self.drop_volume(&name);
                engine.volume_destroy(&name)?;
            }
        }
        Ok(true)
    }

    /// A clean end or a kill, then a start on the same drives and rings.
    fn restart(&mut self, clean: bool) {
        self.told(if clean { "close and open".into() } else { "kill and open".into() });
        if clean {
            let engine = self.engine();
            self.volumes.clear();
            engine.close().expect("closed");
            engine.groups().iter().for_each(|group| self.all_synced(group));
        }
        self.leave();
        self.enter();
    }

    /// The process ends.
    fn leave(&mut self) {
        self.volumes.clear();
        self.held.clear();
        drop(self.engine.take().expect("an engine is running"));
    }

    /// A start on the drives and rings that are there.
    fn enter(&mut self) {
        self.world.mark(step::PHASE, step::PHASE_OPEN);
        let drives = drives_of(&self.world, self.lost);
        let foundation = super::foundation(&self.world, &self.rings, self.rng.next_u64());
        let engine = Engine::open_on(drives, options(), foundation).unwrap_or_else(|error| {
            panic!("seed {}: opening: {error}\n{}", self.plan.seed, self.log.join("\n"))
        });
        for info in engine.volumes().expect("volumes") {
            self.volumes.insert(info.name.clone(), mount(&engine, &info.name));
        }
        self.engine = Some(engine);
        self.world.mark(step::PHASE, step::PHASE_WORK);
    }

    fn write(&mut self, volume: &Volume, ino: Ino, offset: u64, count: u64) -> FsResult<bool> {
        let bytes = self.bytes(count);
        let piece = volume.write_bytes_max() as usize;
        for (at, chunk) in bytes.chunks(piece).enumerate() {
            volume.write(&ROOT, ino, offset + (at * piece) as u64, chunk, WriteFlags::default())?;
        }
        Ok(true)
    }

    fn file_op(&mut self, op: OpName) -> FsResult<bool> {
        let Some((name, volume)) = self.pick_volume() else { return Ok(false) };
        let tree = walk(&volume)?;
        self.look(&name, tree.inodes);
        let entries = tree.entries;
        if matches!(op, O::Create | O::Mkdir | O::Symlink | O::Link | O::Tmpfile)
            && entries.len() > ENTRIES_MAX
        {
            return Ok(false);
        }
        self.told(format!("{op:?} in {name}"));
        let group = self.group_of(&name).expect("the volume's group");
        self.began.insert(name.clone(), group.newest().0);
        let done = self.act_on(op, &name, &volume, &entries)?;
        if let Some(ino) = self.fsynced.take() {
            let promised = self.seen.get(&(name, ino)).map_or(0, |(_, lsn)| *lsn);
            let synced = self.synced.entry(group.id).or_default();
            *synced = promised.max(*synced);
        }
        Ok(done)
    }

    /// Notes which inodes the last call on a volume has changed: an fsync promises an inode's last change, and with it
    /// everything that was acknowledged before.
    fn look(&mut self, name: &str, inodes: BTreeMap<Ino, String>) {
        let first = self.began.get(name).map_or(0, |newest| newest + 1);
        for (ino, text) in inodes {
            let seen = self.seen.entry((name.to_owned(), ino)).or_default();
            if seen.0 != text {
                *seen = (text, first);
            }
        }
    }

    fn act_on(&mut self, op: OpName, name: &str, volume: &Volume, entries: &[Entry]) -> FsResult<bool> {
        match op {
            O::Create | O::Mkdir | O::Symlink | O::Link | O::Tmpfile => self.make(op, name, volume, entries),
            O::Unlink | O::UnlinkOpen | O::Forget | O::Rmdir | O::Rename | O::Exchange => {
                self.rename_or_remove(op, name, volume, entries)
            }
            _ => {
                let Some(file) = self.pick(entries, Entry::is_file) else { return Ok(false) };
                self.change(op, volume, &file, entries)
            }
        }
    }

    fn make(&mut self, op: OpName, name: &str, volume: &Volume, entries: &[Entry]) -> FsResult<bool> {
        let (dir, leaf) = (self.directory(entries), self.name());
        match op {
            O::Create => {
                let ino = volume.create(&ROOT, dir, leaf, 0o644)?.ino;
                volume.forget(ino, 1);
                if self.rng.chance(2, 3) {
                    let count = 1 + self.below(20_000);
                    self.write(volume, ino, 0, count)?;
                }
            }
            O::Mkdir => {
                let ino = volume.mkdir(&ROOT, dir, leaf, 0o755)?.ino;
                volume.forget(ino, 1);
            }
            O::Symlink => {
                let ino = volume.symlink(&ROOT, dir, leaf, b"somewhere/else")?.ino;
                volume.forget(ino, 1);
            }
            O::Link => {
                let Some(file) = self.pick(entries, Entry::is_file) else { return Ok(false) };
                volume.link(&ROOT, file.ino, dir, leaf)?;
                volume.forget(file.ino, 1);
            }
            _ => {
                let ino = volume.tmpfile(&ROOT, dir, 0o600)?.ino;
                let count = 1 + self.below(30_000);
                self.write(volume, ino, 0, count)?;
                if self.rng.chance(1, 2) && volume.link(&ROOT, ino, dir, leaf).is_ok() {
                    volume.forget(ino, 2);
                } else {
                    self.held.insert((name.to_owned(), ino.0), 1);
                }
            }
        }
        Ok(true)
    }

    fn rename_or_remove(
        &mut self,
        op: OpName,
        name: &str,
        volume: &Volume,
        entries: &[Entry],
    ) -> FsResult<bool> {
        if op == O::Forget {
            let key = self.held.keys().find(|(volume, _)| volume == name).cloned();
            let Some(key) = key else { return Ok(false) };
            let count = self.held.remove(&key).unwrap_or(0);
            volume.forget(Ino(key.1), count);
            return Ok(true);
        }
        let directory = op == O::Rmdir;
        let any = matches!(op, O::Rename | O::Exchange);
        let Some(entry) = self.pick(entries, |entry| any || entry.is_directory() == directory) else {
            return Ok(false);
        };
        match op {
            O::Unlink => volume.unlink(&ROOT, entry.dir, &entry.name)?,
            O::UnlinkOpen => {
                let ino = volume.lookup(entry.dir, &entry.name)?.ino;
                *self.held.entry((name.to_owned(), ino.0)).or_default() += 1;
                volume.unlink(&ROOT, entry.dir, &entry.name)?;
            }
            O::Rmdir => volume.rmdir(&ROOT, entry.dir, &entry.name)?,
            O::Rename => {
                let (dir, leaf) = (self.directory(entries), self.name());
                volume.rename(&ROOT, (entry.dir, &entry.name), (dir, leaf), 0)?;
            }
            _ => {
                let Some(other) = self.pick(entries, |_| true) else { return Ok(false) };
                volume.rename(&ROOT, (entry.dir, &entry.name), (other.dir, &other.name), RENAME_EXCHANGE)?;
            }
        }
        Ok(true)
    }

    fn change(&mut self, op: OpName, volume: &Volume, file: &Entry, entries: &[Entry]) -> FsResult<bool> {
        let (ino, size) = (file.ino, file.size);
        let somewhere = self.below((size + 30_000).min(FILE_BYTES_MAX));
        match op {
            O::WriteAligned => {
                let count = 4096 * (1 + self.below(6));
                return self.write(volume, ino, somewhere / 4096 * 4096, count);
            }
            O::WritePartial => {
                let count = 1 + self.below(3000);
                return self.write(volume, ino, somewhere, count);
            }
            O::WriteLarge => {
                let count = 30_000 + self.below(80_000);
                return self.write(volume, ino, somewhere / 65_536 * 65_536, count);
            }
            O::Overwrite => {
                let count = 4096 * (1 + self.below(4));
                let at = self.below(size.div_ceil(4096).max(1)) * 4096;
                return self.write(volume, ino, at, count);
            }
            O::Truncate => {
                let size = if self.rng.chance(1, 3) { 0 } else { somewhere };
                volume.setattr(&ROOT, ino, &SetAttr { size: Some(size), ..SetAttr::default() })?;
            }
            O::Chmod => {
                let mode = Some(0o600 + self.below(0o200) as u32);
                volume.setattr(&ROOT, ino, &SetAttr { mode, uid: Some(7), ..SetAttr::default() })?;
            }
            O::Punch => {
                let count = 1 + self.below(60_000);
                volume.fallocate(&ROOT, ino, somewhere, count, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE)?;
            }
            O::Zero => {
                let count = 1 + self.below(20_000);
                volume.fallocate(&ROOT, ino, somewhere, count, FALLOC_ZERO_RANGE)?;
            }
            O::Allocate => {
                let count = 1 + self.below(20_000);
                volume.fallocate(&ROOT, ino, somewhere, count, 0)?;
            }
            O::Copy => {
                let Some(target) = self.pick(entries, |entry| entry.is_file() && entry.ino != ino) else {
                    return Ok(false);
                };
                let from = self.below(size.max(1)) / 4096 * 4096;
                let to = self.below(target.size + 1) / 4096 * 4096;
                let count = self.below(80_000) + 1;
                volume.copy_file_range(&ROOT, (ino, from), (target.ino, to), count)?;
            }
            O::SetXattr => {
                let bytes = self.below(300);
                let value = self.bytes(bytes);
                let name: &[u8] = if self.rng.chance(1, 2) { b"user.one" } else { b"user.two" };
                volume.setxattr(&ROOT, ino, name, &value, 0, false)?;
            }
            O::RemoveXattr => volume.removexattr(&ROOT, ino, b"user.one")?,
            _ => {
                let (sender, receiver) = std::sync::mpsc::channel();
                volume.fsync(&ROOT, ino, Box::new(move |result| drop(sender.send(result))));
                receiver.recv().expect("an answer")?;
                self.fsynced = Some(ino);
            }
        }
        Ok(true)
    }
}
