//! A group with volumes of RF 1, 2 and 3 in one log: each drive is lost once, and each volume keeps its own promise. What had
//! one copy costs what was on the lost drive and nothing else: reads of it fail with a precise error.

mod rig;

use holdfast_device::sim::{Fault, FaultKind, SimDrive};
use holdfast_device::{Drive, Rng, SimWorld};
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{FileSystem, FsError, WriteFlags};
use holdfast_store::engine::{Engine, VolumeChange};
use holdfast_store::volume::Volume;
use rig::load::Load;
use rig::{ROOT, Rig, Rings, foundation, options, volume_create};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const ENODEV: i32 = 19;
const DRIVES: usize = 4;
const BLOCK: usize = 4096;

struct Mixed {
    rig: Rig,
    one: Load,
    two: Load,
    three: Load,
}

fn join(rig: &Rig, name: &str, rf: u8, seed: u64) -> Load {
    rig.engine.volume_create(&volume_create(name, rf, Some("shared"))).expect("a volume");
    Load { volume: rig.mount(name), files: BTreeMap::new(), rng: Rng::from_seed(seed) }
}

impl Mixed {
    /// Some of it in tables, some in the log, the newest of it durable.
    fn new(seed: u64) -> Self {
        let rig = Rig::create(seed, DRIVES, options());
        let (one, two, three) = (join(&rig, "one", 1, 1), join(&rig, "two", 2, 2), join(&rig, "three", 3, 3));
        let mut mixed = Self { rig, one, two, three };
        for _ in 0..4 {
            mixed.run(12);
            mixed.rig.engine.flush().expect("flushed");
        }
        mixed.rig.engine.settle().expect("settled");
        mixed.run(12);
        mixed.rig.engine.flush().expect("flushed");
        mixed.rig.engine.pool().heartbeat().expect("a heartbeat");
        mixed
    }

    fn run(&mut self, steps: usize) {
        for load in [&mut self.one, &mut self.two, &mut self.three] {
            load.run(steps);
        }
    }

    /// RF 2 and 3 are right. Returns the blocks of RF 1 that cannot be read.
    fn verify(&self, when: &str) -> BTreeSet<(u64, usize)> {
        self.two.verify(when);
        self.three.verify(when);
        lost_blocks(&self.one.volume, &self.one.files, when)
    }

    fn drive(&self, at: usize) -> SimDrive {
        self.rig.world.drives().remove(at)
    }
}

/// Every block is right, or fails with an error that says what is lost.
fn lost_blocks(volume: &Volume, files: &BTreeMap<u64, (Ino, Vec<u8>)>, when: &str) -> BTreeSet<(u64, usize)> {
    let mut lost = BTreeSet::new();
    for (file, (ino, content)) in files {
        for (at, expected) in content.chunks(BLOCK).enumerate() {
            let mut bytes = vec![0; expected.len()];
            match volume.read(&ROOT, *ino, (at * BLOCK) as u64, &mut bytes) {
                Ok(got) => assert!(bytes[..got] == *expected, "{when}: file {file}, block {at}: wrong bytes"),
                Err(FsError::Store(error)) => {
                    assert!(error.message.contains("egroup"), "{when}: {error}");
                    lost.insert((*file, at));
                }
                Err(error) => panic!("{when}: file {file}, block {at}: {error:?}"),
            }
        }
    }
    lost
}

/// Files that a volume should hold, mounted anew.
fn mounted(engine: &Engine, name: &str, load: &Load) -> Load {
    let volume = rig::player::mount(engine, name);
    Load { volume, files: load.files.clone(), rng: load.rng.clone() }
}

fn open_with(world: &SimWorld, left_out: Option<usize>) -> Arc<Engine> {
    let drives = world.drives().into_iter().enumerate().filter(|(at, _)| Some(*at) != left_out);
    let drives = drives.map(|(_, drive)| Arc::new(drive) as Arc<dyn Drive>).collect();
    Engine::open_on(drives, options(), foundation(world, &Rings::default(), 5)).expect("opens")
}

/// Lost under load: everything goes on; healing makes the others whole; after a restart, too; and what was lost can be
/// deleted or written again.
#[test]
fn each_drive_may_be_lost_in_use_and_each_volume_keeps_its_own_promise() {
    let mut lost_ever = 0;
    for lost in 0..DRIVES {
        let mut mixed = Mixed::new(60 + lost as u64);
        assert!(mixed.verify("whole").is_empty());
        let kind = if lost % 2 == 0 { FaultKind::Vanished { errno: ENODEV } } else { FaultKind::WriteError };
        mixed.drive(lost).add_fault(Fault::always(kind));
        mixed.run(6);
        mixed.rig.engine.flush().expect("flushed on the drives that are left");
        mixed.rig.engine.pool().heartbeat().expect("a heartbeat");
        let gone = mixed.verify("one drive lost");
        lost_ever += gone.len();
        mixed.run(6);
        mixed.rig.engine.settle().expect("tables can be made without what is lost");
        mixed.rig.engine.heal().expect("healed");
        let progress = mixed.rig.engine.pool().heal_progress();
        // What had one copy waits for its drive; that the others are whole shows below, when the next drive goes.
        assert!(progress.things_left <= progress.things_lost, "drive {lost}: {progress:?}");
        mixed.verify("healed");
        // After a crash, too.
        let Mixed { rig, one, two, three } = mixed;
        rig.engine.flush().expect("flushed");
        let world = rig.world.fork(7);
        let engine = open_with(&world, Some(lost));
        let (one, two, three) =
            (mounted(&engine, "one", &one), mounted(&engine, "two", &two), mounted(&engine, "three", &three));
        let rig = Rig { world, rings: Rings::default(), engine };
        let mut mixed = Mixed { rig, one, two, three };
        mixed.verify("started again");
        // RF 2 and 3 are whole on three drives: the next one may go.
        let next = (lost + 1) % DRIVES;
        mixed.drive(next).add_fault(Fault::always(FaultKind::Vanished { errno: ENODEV }));
        let gone = mixed.verify("the next drive lost");
        for file in gone.iter().map(|(file, _)| *file).collect::<BTreeSet<u64>>() {
            let name = format!("file-{file}");
            mixed.one.volume.unlink(&ROOT, ROOT_INO, name.as_bytes()).expect("what is lost can be deleted");
            mixed.one.files.remove(&file);
        }
        mixed.run(6);
        mixed.rig.engine.settle().expect("settled on two drives");
        mixed.verify("deleted and written again");
    }
    assert!(lost_ever > 0, "no drive held anything of RF 1");
}

/// Away at a start: what was on it, and no more, cannot be read; when it is back everything is there. Every block of RF 1 is
/// on one drive.
#[test]
fn what_had_one_copy_comes_back_with_its_drive() {
    let mixed = Mixed::new(70);
    let Mixed { rig, one, two, three } = mixed;
    drop(rig.engine);
    let mut seen: BTreeMap<(u64, usize), usize> = BTreeMap::new();
    for lost in 0..DRIVES {
        let world = rig.world.fork(lost as u64);
        for left_out in [Some(lost), None] {
            let engine = open_with(&world, left_out);
            let what = format!("drive {lost}, {left_out:?} left out");
            mounted(&engine, "two", &two).verify(&what);
            mounted(&engine, "three", &three).verify(&what);
            let load = mounted(&engine, "one", &one);
            let gone = lost_blocks(&load.volume, &load.files, &what);
            assert!(left_out.is_some() || gone.is_empty(), "{what}: {gone:?}");
            gone.into_iter().for_each(|block| *seen.entry(block).or_default() += 1);
            drop(load);
            engine.close().expect("closes");
        }
    }
    assert!(!seen.is_empty(), "no drive held anything of RF 1");
    // A block whose pieces lie on two drives is lost with either.
    assert!(seen.values().all(|count| *count <= 2), "{seen:?}");
}

/// Volumes join a group one after the other, each with more copies than those before, and what the first ones logged had
/// fewer. Whoever joins keeps its promise from the first moment: no frame that a start needs has fewer copies than it asks for.
#[test]
fn who_joins_with_more_copies_does_not_depend_on_what_had_fewer() {
    let rig = Rig::create(80, DRIVES, options());
    let mut loads: Vec<(&str, Load)> = Vec::new();
    for (rf, name) in [(1, "one"), (2, "two"), (3, "three")] {
        let mut load = join(&rig, name, rf, rf as u64);
        load.run(3);
        rig.engine.flush().expect("flushed");
        loads.push((name, load));
        for lost in 0..DRIVES {
            let world = rig.world.fork(lost as u64);
            let engine = open_with(&world, Some(lost));
            for (name, load) in loads.iter().filter(|_| rf > 1) {
                let what = format!("drive {lost} lost after {name} of up to {rf} copies joined");
                let seen = mounted(&engine, name, load);
                let gone = lost_blocks(&seen.volume, &seen.files, &what);
                assert!(gone.is_empty() || *name == "one", "{what}: {gone:?}");
            }
        }
    }
}

/// The same for a volume that is alone and whose RF rises: what is written from then on needs nothing that has one copy.
#[test]
fn what_is_logged_after_the_rf_rose_does_not_depend_on_what_had_fewer_copies() {
    let rig = Rig::create(81, DRIVES, options());
    let mut before = join(&rig, "v", 1, 1);
    before.run(3);
    rig.engine.flush().expect("flushed");
    rig.engine.volume_set("v", &VolumeChange { rf: Some(3), ..VolumeChange::default() }).expect("raised");
    let ino = before.volume.create(&ROOT, ROOT_INO, b"after", 0o644).expect("created").ino;
    before.volume.write(&ROOT, ino, 0, b"three copies", WriteFlags::default()).expect("written");
    rig.engine.flush().expect("flushed");
    for lost in 0..DRIVES {
        let world = rig.world.fork(lost as u64);
        let engine = open_with(&world, Some(lost));
        let volume = rig::player::mount(&engine, "v");
        let mut bytes = [0; 12];
        volume.read(&ROOT, ino, 0, &mut bytes).expect("reads");
        assert_eq!(&bytes, b"three copies", "drive {lost} lost");
        lost_blocks(&volume, &before.files, "what had one copy");
    }
}
