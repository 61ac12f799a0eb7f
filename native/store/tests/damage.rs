//! Damage that no copy can mend stays where it is: one group's volumes are refused, the others are served (FAULTS.md 2,
//! 11).

mod rig;

use holdfast_device::{Drive, SimDrive, SimWorld};
use holdfast_format::ROOT_INO;
use holdfast_format::frame::FrameHeader;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::table::SlotAddress;
use holdfast_store::api::{FileSystem, WriteFlags};
use holdfast_store::engine::{Engine, VolumeCreate};
use holdfast_store::error::Kind;
use holdfast_store::volume::Volume;
use rig::player::mount;
use rig::tree::walk;
use rig::{DRIVE_BYTES, ROOT, Rig, Rings, options};
use std::sync::Arc;

fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let mut rng = holdfast_device::Rng::from_seed(seed);
    (0..bytes).map(|_| rng.next_u64() as u8).collect()
}

fn put(volume: &Volume, name: &str, bytes: &[u8]) {
    let ino = match volume.lookup(ROOT_INO, name.as_bytes()) {
        Ok(found) => found.ino,
        Err(_) => volume.create(&ROOT, ROOT_INO, name.as_bytes(), 0o644).expect("created").ino,
    };
    volume.forget(ino, 1);
    for (at, piece) in bytes.chunks(volume.write_bytes_max() as usize).enumerate() {
        let offset = at as u64 * volume.write_bytes_max() as u64;
        volume.write(&ROOT, ino, offset, piece, WriteFlags::default()).expect("written");
    }
}

fn text(engine: &Engine, name: &str) -> String {
    walk(&mount(engine, name)).expect("everything reads").text
}

/// Groups `a` (RF `rf_a`) and `b` (RF 2), each with one volume of some files in tables and some in the log, not closed.
fn two_groups(seed: u64, rf_a: u8) -> (Rig, [String; 2]) {
    let rig = Rig::create(seed, 3, options());
    for (name, rf) in [("a", rf_a), ("b", 2)] {
        drop(rig.volume(name, rf));
        let files = mount(&rig.engine, name);
        (0..20).for_each(|at| put(&files, &format!("settled-{at}"), &pattern(at, 9000)));
    }
    rig.engine.settle().expect("settled");
    for name in ["a", "b"] {
        let files = mount(&rig.engine, name);
        (0..5).for_each(|at| put(&files, &format!("logged-{at}"), &pattern(at, 5000)));
        rig.engine.flush().expect("flushed");
    }
    rig.engine.groups().iter().for_each(|group| group.flush_floor_now().expect("a floor"));
    let texts = ["a", "b"].map(|name| text(&rig.engine, name));
    (rig, texts)
}

/// Another look at the drives of a pool that was killed, in a world of its own.
fn copy(world: &SimWorld) -> SimWorld {
    world.start_trace();
    world.mark("end", 0);
    let trace = world.take_trace().expect("a trace");
    trace.crash_states(Default::default()).last().expect("the state as it is").world(1)
}

fn place(engine: &Engine, copy: SlotAddress) -> (String, u64) {
    let slot_bytes = engine.pool().slot_bytes() as u64;
    let slab_slots = (DRIVE_BYTES / 4 / slot_bytes) as u32;
    (format!("slab-{:06}", copy.slot / slab_slots), (copy.slot % slab_slots) as u64 * slot_bytes)
}

fn flip_all(world: &SimWorld, engine: &Engine, copies: &[SlotAddress], at: u64) {
    for copy in copies {
        let (file, start) = place(engine, *copy);
        world.drives()[copy.drive as usize].flip_bit(&file, start + at, 3);
    }
}

/// Every copy of the first frame with ops of a group's log.
fn break_log(world: &SimWorld, engine: &Engine, group: &str) {
    let record = engine.pool().groups().into_iter().find(|record| record.name == group).expect("the group");
    let holds = |copy: &SlotAddress| has_ops(world, engine, copy);
    let segment = record.segments.iter().rfind(|segment| segment.copies.iter().all(holds)).expect("a segment");
    flip_all(world, engine, &segment.copies, 100);
}

fn has_ops(world: &SimWorld, engine: &Engine, copy: &SlotAddress) -> bool {
    let (file, start) = place(engine, *copy);
    let bytes = world.drives()[copy.drive as usize].read_raw(&file, start, BLOCK_BYTES);
    bytes.is_some_and(|bytes| FrameHeader::decode(&bytes).is_ok_and(|header| header.op_count > 0))
}

fn open(world: &SimWorld) -> Rig {
    Rig::open(world.clone(), Rings::default(), options()).expect("the pool opens whatever one group has")
}

/// Volume `a` is refused with the reason, and shown; `b` is what it was.
fn only_a_is_refused(rig: &Rig, b: &str) {
    let Err(error) = rig.engine.volume("a", Default::default()) else { panic!("a damaged volume was mounted") };
    assert!(matches!(error.kind, Kind::Corrupt | Kind::Unavailable), "{error}");
    assert!(error.message.contains("group a is damaged"), "{error}");
    let infos = rig.engine.volumes().expect("listed");
    let info = infos.iter().find(|info| info.name == "a").expect("a is shown");
    assert_eq!(info.problem, error.message);
    assert!(infos.iter().any(|info| info.name == "b" && info.problem.is_empty()));
    let warnings = rig.engine.status().expect("status").warnings;
    let told = warnings.iter().find(|warning| warning.contains("group a is damaged")).expect("a warning");
    assert!(told.contains("volume destroy a"), "{told}");
    assert!(text(&rig.engine, "b") == b, "b is affected");
    for refused in [
        rig.engine.volume_rename("a", "c"),
        rig.engine.volume_set_quota("a", 1 << 30),
        rig.engine.volume_create(&create("a")).map(drop),
    ] {
        let error = refused.expect_err("nothing is done to what cannot be read");
        assert!(matches!(error.kind, Kind::Corrupt | Kind::Unavailable | Kind::Conflict), "{error}");
    }
}

fn create(name: &str) -> VolumeCreate {
    VolumeCreate { name: name.into(), rf: 2, group: None, ack_write: false, quota_bytes: 0, owner: (0, 0) }
}

/// `b` goes on: written, drained, compacted, after a kill and a clean end.
fn b_goes_on(rig: Rig) -> Rig {
    let files = mount(&rig.engine, "b");
    (0..30).for_each(|at| put(&files, &format!("settled-{}", at % 20), &pattern(at + 100, 60_000)));
    rig.engine.settle().expect("settled");
    put(&files, "last", &pattern(7, 5000));
    let expected = walk(&files).expect("reads").text;
    drop(files);
    let rig = rig.kill(options());
    only_a_is_refused(&rig, &expected);
    rig.engine.close().expect("closed");
    let rig = Rig::open(rig.world.clone(), Rings::default(), options()).expect("opens");
    only_a_is_refused(&rig, &expected);
    rig
}

fn works(rig: &Rig, name: &str) {
    rig.engine.volume_create(&create(name)).expect("the name is free again");
    let files: Arc<Volume> = mount(&rig.engine, name);
    put(&files, "file", &pattern(1, 30_000));
    rig.engine.settle().expect("settled");
    assert!(walk(&files).expect("reads").text.contains("file"));
}

#[test]
fn a_log_that_is_bad_on_all_copies_costs_its_own_volumes_only() {
    let (rig, [_, b]) = two_groups(31, 2);
    let world = copy(&rig.world);
    break_log(&world, &rig.engine, "a");
    let rig = open(&world);
    only_a_is_refused(&rig, &b);
    let rig = b_goes_on(rig);
    // What lay there before stays, because the log that was not read may need it; given up, it is free.
    let kept = rig.engine.pool().space().free;
    rig.engine.volume_destroy("a").expect("given up");
    while rig.engine.pool().clean_step().expect("cleaned") {}
    (0..3).for_each(|_| rig.engine.pool().heartbeat().expect("a heartbeat"));
    assert!(rig.engine.pool().space().free > kept + (20 * 9000 * 2), "its space is not given back");
    works(&rig, "a");
    let problems = rig.engine.fsck().expect("checked").problems;
    assert!(problems.is_empty(), "{problems:?}");
    let warnings = rig.engine.status().expect("status").warnings;
    assert!(warnings.iter().all(|warning| !warning.contains("damaged")), "{warnings:?}");
}

#[test]
fn nothing_that_lay_there_is_freed_while_a_group_is_damaged() {
    let (rig, _) = two_groups(32, 2);
    let world = copy(&rig.world);
    break_log(&world, &rig.engine, "a");
    let rig = open(&world);
    let files = mount(&rig.engine, "b");
    for at in 0..20 {
        files.unlink(&ROOT, ROOT_INO, format!("settled-{at}").as_bytes()).expect("unlinked");
    }
    let freed = |rig: &Rig| rig.engine.pool().counters().egroups_freed;
    let settle = |rig: &Rig| {
        rig.world.clock().advance(7200 * 1_000_000_000);
        rig.engine.groups().iter().for_each(|group| group.second_now().expect("a second"));
        rig.engine.settle().expect("settled");
        (0..3).for_each(|_| rig.engine.pool().heartbeat().expect("a heartbeat"));
    };
    settle(&rig);
    assert_eq!(freed(&rig), 0, "old egroups were freed");
    // What comes after the opening is freed as ever.
    let b = rig.engine.groups().pop().expect("b is open");
    for round in 0..4 {
        put(&files, "new", &pattern(round, 2_000_000));
        b.drain_now().expect("drained");
    }
    files.unlink(&ROOT, ROOT_INO, b"new").expect("unlinked");
    settle(&rig);
    assert!(freed(&rig) > 0, "the pool gives nothing back at all");
}

#[test]
fn a_table_that_is_bad_on_all_copies_costs_its_own_volumes_only() {
    let (rig, [_, b]) = two_groups(33, 2);
    let world = copy(&rig.world);
    let record = rig.engine.pool().groups().into_iter().find(|record| record.name == "a").expect("a");
    let tables = rig.engine.pool().group_tables(record.id);
    assert!(!tables.is_empty());
    for table in &tables {
        flip_all(&world, &rig.engine, &table.copies, table.index_offset as u64 + 9);
    }
    let rig = open(&world);
    only_a_is_refused(&rig, &b);
    let rig = b_goes_on(rig);
    rig.engine.volume_destroy("a").expect("given up");
    let warnings = rig.engine.status().expect("status").warnings;
    assert!(warnings.iter().any(|warning| warning.contains("stay in use")), "{warnings:?}");
    works(&rig, "a");
    rig.engine.close().expect("closed");
    let rig = open(&rig.world);
    assert!(text(&rig.engine, "a").contains("file"));
}

/// The only copies are away, not bad: when the drive is back, everything is there.
#[test]
fn a_group_whose_drive_is_away_is_whole_when_it_returns() {
    let (rig, [a, b]) = two_groups(34, 1);
    let record = rig.engine.pool().groups().into_iter().find(|record| record.name == "a").expect("a");
    let newest = record.segments.iter().rfind(|segment| has_ops(&rig.world, &rig.engine, &segment.copies[0]));
    let away = newest.expect("a segment with frames").copies[0].drive as usize;
    let world = copy(&rig.world);
    let others: Vec<Arc<dyn Drive>> = world
        .drives()
        .into_iter()
        .enumerate()
        .filter(|(at, _)| *at != away)
        .map(|(_, drive): (usize, SimDrive)| Arc::new(drive) as Arc<dyn Drive>)
        .collect();
    let foundation = rig::foundation(&world, &Rings::default(), 5);
    let engine = Engine::open_on(others, options(), foundation).expect("opens without the drive");
    let part = Rig { world: world.clone(), rings: Rings::default(), engine };
    only_a_is_refused(&part, &b);
    let files = mount(&part.engine, "b");
    (0..20).for_each(|at| put(&files, &format!("settled-{at}"), &pattern(at + 50, 20_000)));
    part.engine.settle().expect("settled");
    let expected = walk(&files).expect("reads").text;
    drop(files);
    part.engine.close().expect("closed");
    let rig = open(&world);
    assert!(text(&rig.engine, "a") == a, "a is not whole");
    assert!(text(&rig.engine, "b") == expected);
    let problems = rig.engine.fsck().expect("checked").problems;
    assert!(problems.is_empty(), "{problems:?}");
}

/// Only the chain says where the log begins: without its first segment the frames of the next one do not count, although
/// they are whole and follow each other.
#[test]
fn a_log_without_its_beginning_is_refused() {
    let rig = Rig::create(35, 3, options());
    drop(rig.volume("a", 2));
    let files = mount(&rig.engine, "a");
    rig.engine.groups()[0].drain_now().expect("drained");
    for at in 0..12 {
        put(&files, &format!("file-{at}"), &pattern(at, 60_000));
        rig.engine.flush().expect("flushed");
    }
    let world = copy(&rig.world);
    let record = rig.engine.pool().groups().remove(0);
    let mut begun = record.segments.iter().filter(|segment| {
        let (file, start) = place(&rig.engine, segment.copies[0]);
        let bytes = world.drives()[segment.copies[0].drive as usize].read_raw(&file, start, BLOCK_BYTES);
        let header = bytes.and_then(|bytes| FrameHeader::decode(&bytes).ok());
        header.is_some_and(|header| header.incarnation == segment.incarnation && header.op_count > 0)
    });
    let first = begun.next().expect("a segment with frames").clone();
    assert!(begun.count() > 1, "the log is too short");
    for segment_copy in &first.copies {
        let (file, start) = place(&rig.engine, *segment_copy);
        let zeroes = vec![0; rig.engine.pool().slot_bytes()];
        world.drives()[segment_copy.drive as usize].write_raw(&file, start, &zeroes);
    }
    let rig = open(&world);
    let Err(error) = rig.engine.volume("a", Default::default()) else { panic!("the log began in the middle") };
    assert_eq!(error.kind, Kind::Corrupt, "{error}");
}
