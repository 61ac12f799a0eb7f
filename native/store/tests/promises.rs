//! What volumes promise: copies that a write needs, domains that hold one copy each; kept, or said to be broken.

mod rig;

use holdfast_device::sim::{Fault, FaultKind};
use holdfast_format::DomainLevel;
use holdfast_store::api::{FileSystem, WriteFlags};
use holdfast_store::engine::{Engine, VolumeChange, VolumePolicy};
use holdfast_store::error::Kind;
use holdfast_store::ledger::Ledger;
use holdfast_store::placement::PoolDrive;
use holdfast_store::volume::{Volume, VolumeOptions};
use rig::load::Load;
use rig::{DRIVE_BYTES, ROOT, Rig, foundation, options, volume_create};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const ENODEV: i32 = 19;

fn new_drive(rig: &Rig, name: &str, domain: &str) -> PoolDrive {
    let drive = rig.world.add_drive(name, DRIVE_BYTES * 2);
    PoolDrive { drive: Arc::new(drive), bytes: Some(DRIVE_BYTES), domain: domain.to_owned() }
}

/// A pool with these labels.
fn labelled(seed: u64, labels: &[&str]) -> Rig {
    let world = holdfast_device::SimWorld::new(seed);
    let rings = rig::Rings::default();
    let drives = labels
        .iter()
        .enumerate()
        .map(|(at, label)| {
            let drive = world.add_drive(&format!("d{at}"), DRIVE_BYTES * 2);
            PoolDrive { drive: Arc::new(drive), bytes: Some(DRIVE_BYTES), domain: (*label).to_owned() }
        })
        .collect();
    let engine = Engine::create_on("pool", drives, options(), foundation(&world, &rings, seed)).expect("a pool");
    Rig { world, rings, engine }
}

fn vanish(rig: &Rig, at: usize) {
    rig.world.drives()[at].add_fault(Fault::always(FaultKind::Vanished { errno: ENODEV }));
    // Nothing waits for the next write to notice it.
    let _noticed = rig.engine.pool().heartbeat();
}

/// 0: waits; 1: durable; 2: refused.
fn fsync(rig: &Rig) -> Arc<AtomicU8> {
    let state = Arc::new(AtomicU8::new(0));
    let told = state.clone();
    let group = rig.engine.groups().swap_remove(0);
    Ledger::flush(
        group.as_ref(),
        group.newest(),
        Box::new(move |result| told.store(if result.is_ok() { 1 } else { 2 }, Ordering::Relaxed)),
    );
    state
}

fn trouble(rig: &Rig) -> String {
    rig.engine.volumes().expect("volumes").swap_remove(0).trouble
}

#[test]
fn below_min_write_copies_fsync_waits_and_goes_on_with_a_new_drive() {
    let rig = Rig::create(1, 3, options());
    let mut load = Load::new(&rig, "v", 2, 1);
    rig.engine.volume_set("v", &VolumeChange { min_copies: Some(2), ..Default::default() }).expect("set");
    load.run(40);
    assert_eq!(fsync(&rig).load(Ordering::Relaxed), 1);
    vanish(&rig, 0);
    load.run(5);
    assert_eq!(fsync(&rig).load(Ordering::Relaxed), 1, "two drives are enough");
    rig.engine.heal().expect("healed");
    vanish(&rig, 1);
    load.run(5);
    let waiting = fsync(&rig);
    assert_eq!(waiting.load(Ordering::Relaxed), 0, "one is not");
    assert!(trouble(&rig).contains("writes wait") && trouble(&rig).contains("add a drive"), "{}", trouble(&rig));
    let warnings = rig.engine.status().expect("status").warnings;
    assert!(warnings.iter().any(|warning| warning.contains("writes wait")), "{warnings:?}");
    load.verify("reads go on");
    rig.engine.add_drive_on(new_drive(&rig, "new", "")).expect("added");
    rig.engine.groups()[0].flush_now().expect("written on two drives");
    assert_eq!(waiting.load(Ordering::Relaxed), 1);
    assert!(trouble(&rig).is_empty(), "{}", trouble(&rig));
    rig.engine.heal().expect("healed");
    vanish(&rig, 2);
    load.verify("the new drive has everything");
}

#[test]
fn below_min_write_copies_writes_fail_where_that_is_the_policy() {
    let rig = Rig::create(2, 2, options());
    let policy = VolumePolicy { min_copies: 2, fail_below: true, domain: DomainLevel::Drive };
    rig.engine.volume_create_with(&volume_create("v", 2, None), policy).expect("a volume");
    let volume = rig.mount("v");
    let ino = volume.create(&ROOT, holdfast_format::ROOT_INO, b"f", 0o644).expect("created").ino;
    volume.write(&ROOT, ino, 0, b"before", WriteFlags::default()).expect("written");
    assert_eq!(fsync(&rig).load(Ordering::Relaxed), 1);
    volume.write(&ROOT, ino, 0, b"during", WriteFlags::default()).expect("written");
    vanish(&rig, 1);
    assert_eq!(fsync(&rig).load(Ordering::Relaxed), 2, "refused, not thinner");
    volume.write(&ROOT, ino, 0, b"refused", WriteFlags::default()).expect_err("too few drives");
    let mut into = [0; 6];
    volume.read(&ROOT, ino, 0, &mut into).expect("reads go on");
    assert_eq!(&into, b"during");
    assert!(trouble(&rig).contains("writes fail"), "{}", trouble(&rig));
    // The way out that needs no drive: fewer copies are enough from now on.
    rig.engine.volume_set("v", &VolumeChange { min_copies: Some(1), ..Default::default() }).expect("set");
    volume.write(&ROOT, ino, 0, b"after!", WriteFlags::default()).expect("written");
    assert_eq!(fsync(&rig).load(Ordering::Relaxed), 1);
}

#[test]
fn a_drive_that_fails_in_the_middle_of_a_flush_leaves_as_many_copies_as_were_promised() {
    for failing in 0..3 {
        let rig = Rig::create(30 + failing as u64, 3, options());
        let mut load = Load::new(&rig, "v", 2, 3);
        rig.engine.volume_set("v", &VolumeChange { min_copies: Some(2), ..Default::default() }).expect("set");
        load.run(20);
        rig.engine.flush().expect("flushed");
        load.run(20);
        // Only the log's slots: superblock and manifest go on.
        let slabs = Fault::always(FaultKind::WriteError).within("slab-000000", 0..u64::MAX);
        rig.world.drives()[failing].add_fault(slabs);
        assert_eq!(fsync(&rig).load(Ordering::Relaxed), 1);
        // Segments in stock that lie on the lost drive go with the next flush, or within a second.
        rig.engine.groups()[0].log().renew().expect("fresh segments");
        // Any other drive may go now: whatever was acknowledged is on the third one, too.
        let others: Vec<usize> = (0..3).filter(|at| *at != failing).collect();
        for gone in &others {
            let left: Vec<Arc<dyn holdfast_device::Drive>> = others
                .iter()
                .filter(|at| *at != gone)
                .map(|at| {
                    let image = rig.world.drives()[*at].image();
                    let drive = holdfast_device::SimDrive::from_image(&format!("d{at}"), DRIVE_BYTES * 2, &image, 5);
                    Arc::new(drive) as Arc<dyn holdfast_device::Drive>
                })
                .collect();
            let rings = rig::Rings::default();
            let engine = Engine::open_on(left, options(), foundation(&rig.world, &rings, 9)).expect("opens");
            let alone = Rig { world: rig.world.clone(), rings, engine };
            let volume = alone.mount("v");
            let seen = Load { volume, files: load.files.clone(), rng: load.rng.clone() };
            seen.verify(&format!("{failing} failed, {gone} is gone"));
        }
    }
}

#[test]
fn without_a_drive_to_take_the_lost_copy_nothing_thinner_is_acknowledged() {
    let rig = Rig::create(40, 2, options());
    let mut load = Load::new(&rig, "v", 2, 4);
    rig.engine.volume_set("v", &VolumeChange { min_copies: Some(2), ..Default::default() }).expect("set");
    load.run(20);
    rig.engine.flush().expect("flushed");
    load.run(5);
    rig.world.drives()[1].add_fault(Fault::always(FaultKind::WriteError).within("slab-000000", 0..u64::MAX));
    assert_ne!(fsync(&rig).load(Ordering::Relaxed), 1);
    load.verify("reads go on");
}

#[test]
fn impossible_promises_are_refused_with_what_would_make_them_possible() {
    let rig = labelled(5, &["a/1/1/1", "a/1/1/2", "b/1/1/3"]);
    let refused = |rf: u8, policy: VolumePolicy| {
        let error = rig.engine.volume_create_with(&volume_create("x", rf, None), policy).expect_err("refused");
        assert_eq!(error.kind, Kind::Invalid);
        error.message
    };
    let racks = VolumePolicy { domain: DomainLevel::Rack, ..Default::default() };
    assert!(refused(3, racks).contains("in 2"), "{}", refused(3, racks));
    assert!(refused(3, racks).contains("add one in another rack"));
    let many = VolumePolicy { min_copies: 3, ..Default::default() };
    assert!(refused(2, many).contains("raise the RF"));
    rig.engine.volume_create_with(&volume_create("v", 2, None), racks).expect("two racks");
    let change = VolumeChange { rf: Some(3), ..Default::default() };
    let error = rig.engine.volume_set("v", &change).expect_err("two racks, three copies");
    assert!(error.message.contains("another rack"), "{error}");
    // A label or a removal that would break it, too.
    let error = rig.engine.label_drive("d2", "a/1/1/9").expect_err("one rack");
    assert_eq!(error.kind, Kind::Conflict);
    assert!(error.message.contains("label other drives first"), "{error}");
    let error = rig.engine.remove_drive("d2").expect_err("one rack");
    assert!(error.message.contains("another rack"), "{error}");
    for bad in ["a/b/c/d/e", "with space"] {
        assert_eq!(rig.engine.label_drive("d0", bad).expect_err("no label").kind, Kind::Invalid);
    }
    assert_eq!(rig.engine.label_drive("d9", "a").expect_err("no drive").kind, Kind::NotFound);
    rig.engine.label_drive("d1", "c/1/1/2").expect("a third rack");
    rig.engine.label_drive("d2", "a/1/1/3").expect("two racks are left");
    rig.engine.label_drive("d0", "d").expect("three");
}

/// Copies of everything sealed that share a domain.
fn misplaced(rig: &Rig) -> u64 {
    rig.engine.heal().expect("healed");
    rig.engine.pool().heal_progress().things_misplaced
}

#[test]
fn copies_lie_in_different_domains_and_move_apart_after_a_new_label() {
    let rig = labelled(6, &["a/1/1/1", "a/1/2/2", "b/1/3/3", "b/1/4/4"]);
    let racks = VolumePolicy { domain: DomainLevel::Rack, ..Default::default() };
    rig.engine.volume_create_with(&volume_create("v", 2, None), racks).expect("a volume");
    let mut load = Load { volume: rig.mount("v"), files: Default::default(), rng: holdfast_device::Rng::from_seed(6) };
    load.run(120);
    rig.engine.settle().expect("settled");
    assert_eq!(misplaced(&rig), 0);
    // d1 moves into rack b: what it shares with d2 and d3 has to move apart.
    rig.engine.label_drive("d1", "b/1/5/2").expect("labelled");
    assert_eq!(misplaced(&rig), 0);
    assert!(rig.engine.pool().counters().copies_healed > 0, "something moved");
    // All of rack b goes: everything is in rack a.
    [1, 2, 3].into_iter().for_each(|at| vanish(&rig, at));
    load.verify("one rack is left");
    assert!(!trouble(&rig).is_empty());
}

#[test]
fn a_domain_that_is_lost_degrades_the_promise_and_a_new_one_restores_it() {
    let rig = labelled(7, &["a/1/1/1", "a/1/1/2", "b/1/1/3"]);
    let racks = VolumePolicy { domain: DomainLevel::Rack, ..Default::default() };
    rig.engine.volume_create_with(&volume_create("v", 2, None), racks).expect("a volume");
    let mut load = Load { volume: rig.mount("v"), files: Default::default(), rng: holdfast_device::Rng::from_seed(7) };
    load.run(60);
    rig.engine.settle().expect("settled");
    vanish(&rig, 2);
    load.run(20);
    rig.engine.flush().expect("writes go on in one rack");
    rig.engine.heal().expect("healed");
    rig.engine.settle().expect("settled");
    rig.engine.pool().look_anew();
    assert!(misplaced(&rig) > 0, "two copies, in one rack");
    assert!(trouble(&rig).contains("copies share a rack"), "{}", trouble(&rig));
    rig.engine.add_drive_on(new_drive(&rig, "new", "c/1/1/4")).expect("added");
    assert_eq!(misplaced(&rig), 0);
    assert!(trouble(&rig).is_empty(), "{}", trouble(&rig));
    [0, 1].into_iter().for_each(|at| vanish(&rig, at));
    load.verify("only the new rack is left");
}

/// Copies of sealed data on drives, in slots.
fn used_slots(rig: &Rig) -> Vec<u64> {
    let slot = rig.engine.pool().slot_bytes() as u64;
    rig.engine.status().expect("status").drives.iter().map(|drive| (drive.total_bytes - drive.free_bytes) / slot).collect()
}

#[test]
fn rf_goes_up_and_down_on_a_mounted_volume_under_load() {
    let rig = Rig::create(50, 4, options());
    let mut load = Load::new(&rig, "v", 1, 50);
    load.run(100);
    rig.engine.settle().expect("settled");
    rig.engine.heal().expect("nothing to do");
    for rf in [2, 3, 2, 1, 3] {
        load.run(30);
        rig.engine.volume_set("v", &VolumeChange { rf: Some(rf), ..Default::default() }).expect("set");
        load.run(30);
        rig.engine.flush().expect("flushed");
        rig.engine.heal().expect("healed");
        load.run(10);
        rig.engine.settle().expect("settled");
        rig.engine.heal().expect("healed");
        let progress = rig.engine.pool().heal_progress();
        assert!(progress.stuck.is_empty() && progress.things_left == 0, "RF {rf}: {progress:?}");
        load.verify(&format!("RF {rf}"));
        let report = rig.engine.fsck().expect("checked");
        assert!(report.problems.is_empty(), "RF {rf}: {:?}", report.problems);
        let info = rig.engine.volumes().expect("volumes").swap_remove(0);
        assert_eq!((info.rf, info.trouble.as_str()), (rf, ""));
        let record = rig.engine.pool().group(rig.engine.groups()[0].id).expect("a group");
        assert!(record.segments.iter().all(|segment| segment.rf >= rf), "no log of a lower RF is left");
    }
    // Three copies: any two drives may go.
    rig.engine.flush().expect("flushed");
    [0, 2].into_iter().for_each(|at| vanish(&rig, at));
    load.verify("two of four drives gone");
}

#[test]
fn the_rf_of_one_volume_of_a_group_is_its_own() {
    let rig = Rig::create(60, 4, options());
    let mut one = Load::new(&rig, "one", 2, 60);
    rig.engine.volume_create(&volume_create("two", 2, Some("one"))).expect("a volume");
    let mut two = Load { volume: rig.mount("two"), files: Default::default(), rng: holdfast_device::Rng::from_seed(61) };
    for _ in 0..3 {
        one.run(20);
        two.run(20);
        rig.engine.flush().expect("flushed");
    }
    rig.engine.settle().expect("settled");
    rig.engine.volume_set("two", &VolumeChange { rf: Some(3), ..Default::default() }).expect("set");
    one.run(20);
    two.run(20);
    rig.engine.flush().expect("flushed");
    rig.engine.settle().expect("settled");
    rig.engine.heal().expect("healed");
    // Down again for the other: what both have in one egroup keeps three copies.
    rig.engine.volume_set("one", &VolumeChange { rf: Some(1), ..Default::default() }).expect("set");
    rig.engine.heal().expect("healed");
    one.verify("one copy at least");
    [1, 3].into_iter().for_each(|at| vanish(&rig, at));
    two.verify("three copies, two drives gone");
}

/// Volumes of RF 3, 1 and 1 in one group: "z", "x" and "y".
fn mixed(seed: u64) -> (Rig, [Load; 3]) {
    let rig = Rig::create(seed, 4, options());
    rig.engine.volume_create(&volume_create("z", 3, None)).expect("a volume");
    for name in ["x", "y"] {
        rig.engine.volume_create(&volume_create(name, 1, Some("z"))).expect("a volume");
    }
    let load = |name: &str, seed| {
        let (files, rng) = (Default::default(), holdfast_device::Rng::from_seed(seed));
        Load { volume: rig.mount(name), files, rng }
    };
    let loads = [load("z", seed), load("x", seed + 1), load("y", seed + 2)];
    (rig, loads)
}

fn set_rf(rig: &Rig, name: &str, rf: u8) {
    rig.engine.volume_set(name, &VolumeChange { rf: Some(rf), ..Default::default() }).expect("set");
}

/// Everything is as the volumes ask.
fn assert_protected(rig: &Rig, when: &str) {
    rig.engine.heal().expect("healed");
    let report = rig.engine.fsck().expect("checked");
    assert!(report.problems.is_empty(), "{when}: {:?}", report.problems);
    let progress = rig.engine.pool().heal_progress();
    assert!(progress.stuck.is_empty() && progress.things_left == 0, "{when}: {progress:?}");
}

/// Payload of a volume whose RF is raised, in a log segment of the old class that other volumes go on writing into: named by
/// tables already (drained), only durable, or not even that.
#[test]
fn payload_in_an_open_segment_gets_the_copies_of_its_volume() {
    for (seed, drained, flushed) in [(90, true, true), (93, false, true), (96, false, false)] {
        for gone in 0..4 {
            let (rig, [mut z, mut x, mut y]) = mixed(seed);
            z.run(5);
            x.run(5);
            y.run(10);
            if flushed {
                rig.engine.flush().expect("flushed");
            }
            if drained {
                rig.engine.groups()[0].drain_now().expect("drained");
            }
            set_rf(&rig, "y", 2);
            assert_protected(&rig, "changed");
            // The segment goes on, is full, and becomes an egroup.
            x.run(100);
            rig.engine.flush().expect("flushed");
            rig.engine.settle().expect("settled");
            assert_protected(&rig, "settled");
            vanish(&rig, gone);
            y.verify(&format!("drive {gone} of four is gone; drained {drained}, flushed {flushed}"));
        }
    }
}

/// Writes that looked at the RF before it was changed are logged after the walk.
#[test]
fn what_is_written_late_with_the_old_rf_is_found() {
    for gone in 0..4 {
        let rig = Rig::create(100, 4, options());
        let mut load = Load::new(&rig, "v", 1, 100);
        load.run(20);
        let group = rig.engine.groups().swap_remove(0);
        let branch = group.volumes().expect("volumes")[0].0;
        // Nobody tells this one of the change.
        let late = Volume::open(group, branch, VolumeOptions::default()).expect("opened");
        set_rf(&rig, "v", 3);
        assert_protected(&rig, "changed");
        load.volume = late;
        load.run(20);
        rig.engine.flush().expect("flushed");
        assert_protected(&rig, "nothing is known of it yet");
        rig.engine.settle().expect("settled");
        assert_protected(&rig, "settled");
        vanish(&rig, gone);
        vanish(&rig, (gone + 1) % 4);
        load.verify("two of four drives are gone");
    }
}

#[test]
fn a_change_of_rf_that_was_cut_short_goes_on_after_a_restart() {
    let rig = Rig::create(70, 3, options());
    let mut load = Load::new(&rig, "v", 1, 70);
    load.run(300);
    rig.engine.settle().expect("settled");
    rig.engine.volume_set("v", &VolumeChange { rf: Some(2), ..Default::default() }).expect("set");
    assert!(rig.engine.heal_step().expect("a step"));
    let Load { volume, files, rng } = load;
    drop(volume);
    let rig = rig.kill(options());
    rig.engine.heal().expect("healed");
    let load = Load { volume: rig.mount("v"), files, rng };
    vanish(&rig, 0);
    load.verify("every drive may go");
}

#[test]
fn a_new_drive_gets_its_share_of_what_is_there() {
    let rig = Rig::create(80, 2, options());
    let mut load = Load::new(&rig, "v", 2, 80);
    load.run(60);
    let big = load.volume.create(&ROOT, holdfast_format::ROOT_INO, b"big", 0o644).expect("created").ino;
    let piece: Vec<u8> = (0..64 << 10).map(|_| load.rng.next_u64() as u8).collect();
    for at in 0..320 {
        load.volume.write(&ROOT, big, at * piece.len() as u64, &piece, WriteFlags::default()).expect("written");
    }
    rig.engine.settle().expect("settled");
    let before: u64 = used_slots(&rig).iter().sum();
    rig.engine.add_drive_on(new_drive(&rig, "new", "")).expect("added");
    while rig.engine.balance_step().expect("a step") {}
    rig.engine.pool().heartbeat().expect("freed");
    rig.engine.pool().heartbeat().expect("freed");
    let after = used_slots(&rig);
    let (low, high) = (after.iter().min().expect("drives"), after.iter().max().expect("drives"));
    let slots = DRIVE_BYTES / rig.engine.pool().slot_bytes() as u64;
    assert!(high - low <= slots / 10 + 2, "{after:?} of {slots}");
    // Not more than its share had to move.
    let moved = rig.engine.pool().counters().copies_healed;
    assert!(moved > 0 && moved <= before / 3 + 4, "{moved} moved, {before} are used");
    assert!(!rig.engine.balance_step().expect("a step"), "and then it is quiet");
    load.verify("balanced");
    let report = rig.engine.fsck().expect("checked");
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    vanish(&rig, 0);
    load.verify("balanced, one drive gone");
}
