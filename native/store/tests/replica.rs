//! A group and its replica in two pools, through random histories: whatever users do, and whichever side dies in between, the
//! replica shows the owner's recovery points, and nothing else.

#[path = "history/users.rs"]
mod users;
mod rig;

use holdfast_device::Rng;
use holdfast_format::ROOT_INO;
use holdfast_format::inode::Time;
use holdfast_store::api::{Caller, FileSystem};
use holdfast_store::engine::{Delta, Engine, EngineOptions, Leader, Staged};
use holdfast_store::error::Kind;
use holdfast_store::volume::{Volume, VolumeOptions};
use rig::prove::{Compared, prove, say};
use rig::tree::{difference, walk};
use rig::{Rig, volume_create};
use std::collections::BTreeMap;
use std::sync::Arc;

const SEEDS: u64 = 120;
const STEPS: usize = 60;
const GROUP: &str = "pair";
const REPLICA: &str = "copy";
const VOLUMES: [&str; 2] = ["left", "right"];
const FOLLOWER: &str = "b";
const FORMER: &str = "a";
const FORK: &str = "fork";

type Texts = BTreeMap<String, String>;

fn run_options() -> EngineOptions {
    EngineOptions { memtable_bytes: 96 << 10, ..rig::options() }
}

/// A batch on its way.
struct Batch {
    base: u64,
    target: u64,
    wall: Time,
    delta: Option<Delta>,
    cursor: Vec<u8>,
}

#[derive(Default, Debug)]
struct Totals {
    points: u64,
    chunks: u64,
    wire_bytes: u64,
    resumed: u64,
    power_cuts: u64,
    chunks_lost: u64,
    given_up: u64,
    known: u64,
    promoted_in_the_middle: u64,
    promoted: u64,
    proved: u64,
}

struct Run {
    rng: Rng,
    owner: Option<Rig>,
    replica: Option<Rig>,
    mounted: BTreeMap<String, Arc<Volume>>,
    /// What the owner looked like at its recovery points.
    cuts: BTreeMap<u64, (Time, Texts)>,
    /// Recovery points that the replica has had: its LSN, the owner's.
    received: BTreeMap<u64, u64>,
    batch: Option<Batch>,
    last_chunk: Option<(Vec<u8>, Vec<u8>)>,
    totals: Totals,
}

fn texts_of(mounted: &BTreeMap<String, Arc<Volume>>) -> Texts {
    mounted.iter().map(|(name, volume)| (name.clone(), walk(volume).expect("readable").text)).collect()
}

impl Run {
    fn new(seed: u64) -> Self {
        let owner = Rig::create(seed, 2, run_options());
        let replica = Rig::create(seed + 1_000_000, 2, run_options());
        for name in VOLUMES {
            owner.engine.volume_create(&volume_create(name, 2, Some(GROUP))).expect("a volume");
        }
        let description = owner.engine.replica_describe(GROUP).expect("described");
        replica.engine.replica_create(&description, REPLICA, 1).expect("a replica");
        let mut run = Self {
            rng: Rng::from_seed(seed),
            owner: Some(owner),
            replica: Some(replica),
            mounted: BTreeMap::new(),
            cuts: BTreeMap::new(),
            received: BTreeMap::new(),
            batch: None,
            last_chunk: None,
            totals: Totals::default(),
        };
        run.mount();
        run
    }

    fn mount(&mut self) {
        let engine = self.owner().clone();
        let open = |name: &str| engine.volume(name, VolumeOptions { noatime: true }).expect("free");
        self.mounted = VOLUMES.iter().map(|name| ((*name).to_owned(), open(name))).collect();
    }

    fn owner(&self) -> &Arc<Engine> {
        &self.owner.as_ref().expect("an owner").engine
    }

    fn replica(&self) -> &Arc<Engine> {
        &self.replica.as_ref().expect("a replica").engine
    }

    fn play(mut self) -> Totals {
        for _ in 0..STEPS {
            self.step();
        }
        self.promote();
        self.totals
    }

    fn step(&mut self) {
        match self.rng.below(20) {
            0..=7 => {
                for _ in 0..1 + self.rng.below(4) {
                    let name = VOLUMES[self.rng.below(2) as usize];
                    users::change(&self.mounted[name], &mut self.rng);
                }
            }
            8 | 9 => self.second(),
            10 => self.upkeep(),
            11 => self.owner_dies(false),
            12 => self.replica_dies(),
            15 => self.owner_dies(true),
            16 => self.replica_loses_power(),
            13 => self.repeat(),
            14 if self.rng.chance(1, 3) => self.give_up(),
            _ => {
                for _ in 0..1 + self.rng.below(6) {
                    self.ship();
                }
            }
        }
    }

    fn second(&mut self) {
        self.owner.as_ref().expect("an owner").second();
        self.replica.as_ref().expect("a replica").second();
    }

    fn upkeep(&mut self) {
        let engine = if self.rng.chance(1, 2) { self.owner().clone() } else { self.replica().clone() };
        for group in engine.groups() {
            group.drain_now().expect("drained");
            while self.rng.chance(2, 3) && group.compact_step().expect("merged") {}
        }
    }

    fn owner_dies(&mut self, power: bool) {
        self.mounted.clear();
        if let Some(batch) = &mut self.batch {
            batch.delta = None;
            self.totals.resumed += 1;
        }
        let rig = self.owner.take().expect("an owner");
        self.owner = Some(if power { rig.power_fails(run_options()) } else { rig.kill(run_options()) });
        self.totals.power_cuts += u64::from(power);
        self.mount();
    }

    fn replica_dies(&mut self) {
        let rig = self.replica.take().expect("a replica");
        self.replica = Some(rig.kill(run_options()));
        self.check_received();
    }

    /// Chunks that came since the newest recovery point may be lost: the batch goes on where the replica says.
    fn replica_loses_power(&mut self) {
        let rig = self.replica.take().expect("a replica");
        self.replica = Some(rig.power_fails(run_options()));
        self.totals.power_cuts += 1;
        self.last_chunk = None;
        let staging = self.replica().replica_state(REPLICA).expect("told").expect("a replica").staging;
        if let Some(batch) = &mut self.batch {
            let same = staging.filter(|staging| (staging.base.0, staging.target.0) == (batch.base, batch.target));
            let cursor = same.map(|staging| staging.cursor).unwrap_or_default();
            self.totals.chunks_lost += u64::from(cursor != batch.cursor);
            (batch.delta, batch.cursor) = (None, cursor);
        }
        self.check_received();
    }

    /// The link plays a chunk again.
    fn repeat(&mut self) {
        let Some((chunk, cursor)) = &self.last_chunk else { return };
        assert_eq!(self.replica().replica_stage(REPLICA, chunk, cursor).expect("known"), Staged::Known);
        self.totals.known += 1;
    }

    /// The batch is left as it is; the next one has another target.
    fn give_up(&mut self) {
        if self.batch.as_ref().is_some_and(|batch| batch.base > 0) {
            self.batch = None;
            self.totals.given_up += 1;
        }
    }

    /// Cuts a recovery point, or sends the next chunk.
    fn ship(&mut self) {
        let Some(mut batch) = self.batch.take() else { return self.cut() };
        let delta = match &mut batch.delta {
            Some(delta) => delta,
            none => {
                let engine = self.owner.as_ref().expect("an owner").engine.clone();
                none.insert(engine.delta_open(GROUP, batch.base, batch.target, &batch.cursor).expect("both ends are kept"))
            }
        };
        let bytes = [1, 5000, 40_000, usize::MAX][self.rng.below(4) as usize];
        let part = delta.next_part(bytes).expect("read").expect("not the end");
        self.totals.chunks += 1;
        self.totals.wire_bytes += part.chunk.len() as u64;
        let staged = self.replica().replica_stage(REPLICA, &part.chunk, &part.cursor).expect("taken");
        let is_last = part.cursor.is_empty();
        assert_eq!(staged, if is_last { Staged::Complete } else { Staged::Taken });
        self.last_chunk = Some((part.chunk, part.cursor.clone()));
        batch.cursor = part.cursor;
        if !is_last {
            self.batch = Some(batch);
            return;
        }
        if self.rng.chance(1, 4) {
            self.replica_dies();
        }
        self.complete(&batch);
    }

    fn complete(&mut self, batch: &Batch) {
        let lineage = self.replica().replica_state(REPLICA).expect("told").expect("a replica").lineage;
        self.replica().replica_complete(REPLICA, (lineage, batch.target), batch.wall, "").expect("whole");
        let local = self.replica().replica_state(REPLICA).expect("told").expect("a replica").local_lsn;
        self.received.insert(local, batch.target);
        self.totals.points += 1;
        self.owner().follower_has(GROUP, FOLLOWER, batch.target).expect("kept");
        self.check_received();
        if self.rng.chance(1, 2) {
            self.prove(lineage, batch.target);
        }
    }

    /// Both sides say the same of what was received, in ranges of any size.
    fn prove(&mut self, lineage: u64, lsn: u64) {
        let part_bytes = [1, 3000, 20_000, usize::MAX][self.rng.below(4) as usize];
        let compared = Compared { owner: (self.owner(), GROUP), replica: (self.replica(), REPLICA), lineage, lsn };
        let proved = prove(&compared, part_bytes);
        let said: Vec<String> = proved.mismatches.iter().map(say).collect();
        assert!(said.is_empty(), "at LSN {lsn}, ranges of {part_bytes} bytes: {said:#?}");
        self.totals.proved += 1;
    }

    fn cut(&mut self) {
        let point = self.owner().replica_cut(GROUP).expect("cut");
        let texts = texts_of(&self.mounted);
        self.cuts.insert(point.lsn, (point.wall, texts));
        let state = self.replica().replica_state(REPLICA).expect("told").expect("a replica");
        let base = state.lsn;
        if base == point.lsn {
            return;
        }
        if base == 0 {
            // The first sync goes on to the end with the point that it began with.
            self.owner().follower_has(GROUP, FOLLOWER, point.lsn).expect("kept");
        }
        // What was left of the same batch goes on.
        let staged = state.staging.filter(|staging| (staging.base.0, staging.target.0) == (base, point.lsn));
        let is_whole = staged.as_ref().is_some_and(|staging| staging.cursor.is_empty());
        let cursor = staged.map(|staging| staging.cursor).unwrap_or_default();
        let batch = Batch { base, target: point.lsn, wall: point.wall, delta: None, cursor };
        if is_whole {
            return self.complete(&batch);
        }
        self.batch = Some(batch);
    }

    /// Every recovery point that the replica keeps reads as the owner did, and there is no other.
    fn check_received(&mut self) {
        let points = self.replica().kept_points(REPLICA, 0, 10_000).expect("points");
        let state = self.replica().replica_state(REPLICA).expect("told").expect("a replica");
        assert_eq!(state.lsn, self.received.values().next_back().copied().unwrap_or(0));
        let refused = self.replica().volume(&format!("{REPLICA}-left"), VolumeOptions::default()).err();
        assert_eq!(refused.map(|error| error.kind), Some(Kind::Fenced));
        if state.lsn > 0 {
            assert_eq!(points.last().map(|point| point.lsn), Some(state.local_lsn), "the newest is always there");
        }
        for point in points {
            let of_owner = self.received.get(&point.lsn).unwrap_or_else(|| panic!("nobody cut {point:?}"));
            let (wall, texts) = &self.cuts[of_owner];
            assert_eq!((wall.sec, wall.nsec), (point.wall_s, point.wall_ns));
            let texts = texts.clone();
            if point.lsn == state.local_lsn || self.rng.chance(1, 3) {
                self.compare(&format!("lsn:{}", point.lsn), &texts);
            }
        }
    }

    fn compare(&self, words: &str, texts: &Texts) {
        for (name, expected) in texts {
            let (volume, _) = self.replica().volume_at(&format!("{REPLICA}-{name}"), words).expect("kept");
            let found = walk(&volume).expect("readable").text;
            assert!(*expected == found, "{name} at {words}: {}", difference(expected, &found));
        }
    }

    /// The owner is lost: the replica shows its newest recovery point, and takes changes.
    fn promote(&mut self) {
        let state = self.replica().replica_state(REPLICA).expect("told").expect("a replica");
        if state.lsn == 0 {
            let refused = self.replica().replica_promote(REPLICA, "").expect_err("nothing is whole");
            assert_eq!(refused.kind, Kind::NotFound);
            return;
        }
        self.totals.promoted += 1;
        self.totals.promoted_in_the_middle += u64::from(state.staging.is_some());
        self.replica().replica_promote(REPLICA, FORMER).expect("promoted");
        self.replica().replica_promote(REPLICA, FORMER).expect("it is already");
        if self.rng.chance(1, 2) {
            let rig = self.replica.take().expect("a replica");
            self.replica = Some(rig.kill(run_options()));
        }
        let texts = self.cuts[&state.lsn].1.clone();
        for (name, expected) in &texts {
            let name = format!("{REPLICA}-{name}");
            let volume = self.replica().volume(&name, VolumeOptions { noatime: true }).expect("an owner now");
            let found = walk(&volume).expect("readable").text;
            assert!(*expected == found, "{name} after the promotion: {}", difference(expected, &found));
            for _ in 0..4 {
                users::change(&volume, &mut self.rng);
            }
        }
        let engine = self.replica().clone();
        engine.settle().expect("settled");
        self.replica.as_ref().expect("a replica").second();
        let report = engine.fsck().expect("checked");
        assert!(report.problems.is_empty(), "{:#?}", report.problems);
        // Nothing of the old owner's is taken any more.
        if let Some((chunk, cursor)) = &self.last_chunk {
            assert_eq!(engine.replica_stage(REPLICA, chunk, cursor).expect_err("fenced").kind, Kind::Fenced);
        }
        self.rejoin(state.lsn);
    }

    /// The former owner comes back: what only it did is a fork, and it follows.
    fn rejoin(&mut self, common: u64) {
        for name in VOLUMES {
            users::change(&self.mounted[name], &mut self.rng);
        }
        let tail = texts_of(&self.mounted);
        let state = self.replica().replica_state(REPLICA).expect("told").expect("it was one");
        let branch = state.branch.expect("it was promoted");
        let (source, lineage) = self.replica().replica_identity(REPLICA).expect("told");
        assert_eq!((lineage, branch.lineage), (state.lineage, self.owner().replica_identity(GROUP).expect("told").1));
        let leader = Leader { source, lineage, lsn: branch.lsn.0, wall: self.cuts[&common].0 };
        self.fence(common, &leader, &tail);
        self.owner().replica_rejoin(GROUP, FORK, common, &leader).expect("a fork, and a replica");
        self.owner().replica_rejoin(GROUP, FORK, common, &leader).expect("it is done");
        if self.rng.chance(1, 2) {
            let rig = self.owner.take().expect("an owner");
            self.owner = Some(if self.rng.chance(1, 2) { rig.kill(run_options()) } else { rig.power_fails(run_options()) });
        }
        self.follow_back(&leader);
        for (name, expected) in &tail {
            let volume = self.owner().volume(&format!("{FORK}-{name}"), VolumeOptions { noatime: true }).expect("a fork");
            let found = walk(&volume).expect("readable").text;
            assert!(*expected == found, "fork of {name}: {}", difference(expected, &found));
        }
        let engine = self.owner().clone();
        engine.settle().expect("settled");
        self.owner.as_ref().expect("an owner").second();
        let report = engine.fsck().expect("checked");
        assert!(report.problems.is_empty(), "{:#?}", report.problems);
    }

    /// From the fence on nobody changes anything, whoever has it mounted, and whatever dies.
    fn fence(&mut self, common: u64, leader: &Leader, tail: &Texts) {
        let mounted = self.owner().replica_rejoin(GROUP, FORK, common, leader).expect_err("mounted");
        assert_eq!(mounted.kind, Kind::Conflict);
        self.owner().replica_fence(GROUP, common, leader).expect("fenced");
        self.owner().replica_fence(GROUP, common, leader).expect("it is already");
        let other = Leader { lineage: leader.lineage ^ 1, ..*leader };
        assert_eq!(self.owner().replica_fence(GROUP, common, &other).expect_err("of another one").kind, Kind::Conflict);
        for volume in self.mounted.values() {
            assert!(volume.create(&Caller::default(), ROOT_INO, b"touched", 0o600).is_err(), "a former owner takes changes");
        }
        assert!(texts_of(&self.mounted) == *tail);
        self.mounted.values().for_each(|volume| volume.release().expect("let go"));
        self.mounted.clear();
        assert_eq!(self.owner().replica_cut(GROUP).expect_err("no owner any more").kind, Kind::Fenced);
        match self.rng.below(3) {
            0 => {
                let rig = self.owner.take().expect("an owner");
                self.owner = Some(rig.kill(run_options()));
            }
            1 => {
                let rig = self.owner.take().expect("an owner");
                self.owner = Some(rig.power_fails(run_options()));
            }
            _ => {}
        }
        self.mount();
        for volume in self.mounted.values() {
            assert!(volume.create(&Caller::default(), ROOT_INO, b"touched", 0o600).is_err(), "a fork takes changes");
        }
        assert!(texts_of(&self.mounted) == *tail);
        self.mounted.clear();
    }

    /// What the owner of now does reaches the former one, whatever that had become meanwhile.
    fn follow_back(&mut self, leader: &Leader) {
        let (from, to) = (self.replica().clone(), self.owner().clone());
        for round in 0..3 {
            let mut mounted = BTreeMap::new();
            for name in VOLUMES {
                let volume = from.volume(&format!("{REPLICA}-{name}"), VolumeOptions { noatime: true }).expect("free");
                users::change(&volume, &mut self.rng);
                mounted.insert(name.to_owned(), volume);
            }
            let point = from.replica_cut(REPLICA).expect("cut");
            let texts = texts_of(&mounted);
            let base = to.replica_state(GROUP).expect("told").expect("a replica").lsn;
            assert!(round > 0 || base == leader.lsn);
            if base == point.lsn {
                continue;
            }
            let mut delta = from.delta_open(REPLICA, base, point.lsn, &[]).expect("both ends are kept");
            while let Some(part) = delta.next_part(8000).expect("read") {
                to.replica_stage(GROUP, &part.chunk, &part.cursor).expect("taken");
            }
            to.replica_complete(GROUP, (leader.lineage, point.lsn), point.wall, "").expect("whole");
            from.follower_has(REPLICA, FORMER, point.lsn).expect("kept");
            let local = to.replica_state(GROUP).expect("told").expect("a replica").local_lsn;
            for (name, expected) in &texts {
                let (volume, _) = to.volume_at(name, &format!("lsn:{local}")).expect("kept");
                let found = walk(&volume).expect("readable").text;
                assert!(*expected == found, "{name} at the former owner: {}", difference(expected, &found));
            }
        }
    }
}

fn play(seeds: std::ops::Range<u64>) {
    let mut all = Totals::default();
    for seed in seeds.clone() {
        match std::panic::catch_unwind(|| Run::new(seed).play()) {
            Ok(one) => {
                all.points += one.points;
                all.chunks += one.chunks;
                all.wire_bytes += one.wire_bytes;
                all.resumed += one.resumed;
                all.power_cuts += one.power_cuts;
                all.chunks_lost += one.chunks_lost;
                all.given_up += one.given_up;
                all.known += one.known;
                all.promoted += one.promoted;
                all.proved += one.proved;
                all.promoted_in_the_middle += one.promoted_in_the_middle;
            }
            Err(panic) => {
                println!("seed {seed} failed");
                std::panic::resume_unwind(panic)
            }
        }
    }
    println!("{all:?}");
    let counts = [all.proved, all.chunks_lost, all.power_cuts, all.resumed, all.given_up, all.known, all.promoted_in_the_middle, all.promoted];
    assert!(counts.iter().all(|count| *count > 10) && all.points > 300 && all.chunks > all.points, "{all:?}");
}

#[test]
fn a_replica_shows_its_owners_recovery_points_and_nothing_else() {
    play(0..SEEDS);
}
