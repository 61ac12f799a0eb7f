//! Clones and what they stand on: never on less than they were made of, and never thinner than they promise.

mod rig;

use holdfast_device::sim::{CrashKind, Fault, FaultKind};
use holdfast_format::ROOT_INO;
use holdfast_store::api::{FileSystem, WriteFlags};
use holdfast_store::engine::{Engine, VolumeChange};
use holdfast_store::error::Kind;
use holdfast_store::volume::VolumeOptions;
use rig::care::{assert_healed, notice, vanish};
use rig::player::mount;
use rig::tree::walk;
use rig::{ROOT, Rig, Rings, options, volume_create};

fn put(engine: &Engine, volume: &str, name: &str) {
    let volume = mount(engine, volume);
    let ino = volume.create(&ROOT, ROOT_INO, name.as_bytes(), 0o644).expect("created").ino;
    volume.forget(ino, 1);
    volume.write(&ROOT, ino, 0, name.repeat(9000).as_bytes(), WriteFlags::default()).expect("written");
}

fn text(engine: &Engine, volume: &str) -> String {
    walk(&mount(engine, volume)).expect("everything reads").text
}

/// The only copy of a log has lost its newest frames, and nothing in it tells. A clone was made of what they said.
#[test]
fn a_log_that_ends_before_what_a_clone_was_made_of_is_damaged() {
    let rig = Rig::create(1, 1, options());
    drop(rig.volume("v", 1));
    put(&rig.engine, "v", "before");
    rig.engine.flush().expect("durable");
    let before = text(&rig.engine, "v");
    let group = rig.engine.pool().groups().swap_remove(0);
    let drive = rig.world.drives().remove(0);
    let slot_bytes = rig.engine.status().expect("status").slot_bytes as u64;
    for segment in &group.segments {
        let at = segment.copies[0].slot as u64 * slot_bytes;
        drive.add_fault(Fault::always(FaultKind::LostWrite).within("slab-000000", at..at + slot_bytes));
    }
    put(&rig.engine, "v", "lost");
    rig.engine.clone_create("v", "c", None).expect("cloned");
    drive.clear_faults();
    rig.world.end_now(CrashKind::Power);
    let world = rig.world.clone();
    drop(rig);
    world.restore_power();
    let rig = Rig::open(world, Rings::default(), options()).expect("opens");
    for name in ["v", "c"] {
        let Err(error) = rig.engine.volume(name, VolumeOptions::default()) else { panic!("{name} is served") };
        assert!(matches!(error.kind, Kind::Corrupt | Kind::Unavailable), "{name}: {error}");
        assert!(error.message.contains("damaged"), "{name}: {error}");
    }
    // Who gives the clone up has what is left of the volume.
    rig.engine.volume_destroy("c").expect("given up");
    let rig = rig.kill(options());
    assert_eq!(text(&rig.engine, "v"), before);
}

/// The volume had three copies when the snapshot was made, and has one now; so has what the snapshot holds. A clone of it has
/// three again.
#[test]
fn a_clone_of_a_time_with_more_copies_gets_them() {
    for gone in [false, true] {
        let rig = Rig::create(2, 4, options());
        rig.engine.volume_create(&volume_create("v", 3, Some("group"))).expect("created");
        rig.engine.volume_create(&volume_create("w", 1, Some("group"))).expect("created");
        put(&rig.engine, "v", "then");
        let then = text(&rig.engine, "v");
        rig.engine.snapshot_create("group", "p", None).expect("kept");
        rig.engine.settle().expect("settled");
        if gone {
            rig.engine.volume_destroy("v").expect("destroyed");
        } else {
            let change = VolumeChange { rf: Some(1), ..VolumeChange::default() };
            rig.engine.volume_set("v", &change).expect("set");
            put(&rig.engine, "v", "now");
        }
        rig.engine.settle().expect("settled");
        assert_healed(&rig, "one copy");
        rig.engine.clone_create("group", "c", Some("p")).expect("cloned");
        let clone = rig.engine.volumes().expect("volumes").into_iter().find(|volume| volume.name.contains("c-v"));
        let clone = clone.expect("the clone's volume");
        assert_eq!(clone.rf, 3);
        assert_healed(&rig, "three copies again");
        if !gone {
            // What only the parent sees is nothing that the clone asks copies for.
            put(&rig.engine, "v", "later");
            rig.engine.settle().expect("settled");
            assert_healed(&rig, "the parent goes on");
        }
        drop(rig.engine.volume(&clone.name, VolumeOptions::default()).expect("mounts"));
        let world = rig.world.fork(3);
        for lost in [[0, 1], [1, 2], [2, 3], [0, 3]] {
            let world = world.fork(4);
            let left = world.drives().into_iter().enumerate().filter(|(at, _)| !lost.contains(at));
            let left = left.map(|(_, drive)| std::sync::Arc::new(drive) as std::sync::Arc<dyn holdfast_device::Drive>);
            let engine = Engine::open_on(left.collect(), options(), rig::foundation(&world, &Rings::default(), 7));
            assert_eq!(text(&engine.expect("opens with two drives"), &clone.name), then, "without {lost:?}");
        }
    }
}

/// Nothing was logged since the start, so no segment says how many copies somebody asks for.
#[test]
fn tables_of_a_start_have_as_many_copies_as_their_volumes() {
    let rig = Rig::create(5, 3, options());
    drop(rig.volume("v", 3));
    for name in ["one", "two", "three"] {
        put(&rig.engine, "v", name);
        rig.engine.settle().expect("settled");
    }
    let expected = text(&rig.engine, "v");
    rig.engine.close().expect("closed");
    let rig = rig.kill(options());
    let group = rig.engine.groups().remove(0);
    group.drop_all_points().expect("nobody looks back");
    group.drain_now().expect("drained");
    while group.compact_step().expect("merged") {}
    let tables = rig.engine.pool().group_tables(group.id);
    assert!(!tables.is_empty() && tables.iter().all(|table| table.copies.len() == 3), "{tables:?}");
    drop(group);
    for left in 0..3 {
        let world = rig.world.fork(left);
        let drive = world.drives().remove(left as usize);
        let engine = Engine::open_on(vec![std::sync::Arc::new(drive)], options(), rig::foundation(&world, &Rings::default(), 7));
        assert_eq!(text(&engine.expect("opens with one drive"), "v"), expected);
    }
}

/// A part of a block is written, cloned with three copies, and becomes a whole block when its volume asks for one again.
#[test]
fn what_is_drained_late_has_the_copies_that_a_clone_asks_for() {
    let rig = Rig::create(4, 4, options());
    drop(rig.volume("v", 3));
    put(&rig.engine, "v", "part of a block");
    rig.engine.clone_create("v", "c", None).expect("cloned");
    let then = text(&rig.engine, "c");
    rig.engine.volume_set("v", &VolumeChange { rf: Some(1), ..VolumeChange::default() }).expect("set");
    assert_healed(&rig, "one copy");
    rig.engine.settle().expect("settled");
    assert_healed(&rig, "drained");
    let world = rig.world.fork(5);
    let drives = world.drives().into_iter().take(2);
    let drives = drives.map(|drive| std::sync::Arc::new(drive) as std::sync::Arc<dyn holdfast_device::Drive>).collect();
    let engine = Engine::open_on(drives, options(), rig::foundation(&world, &Rings::default(), 7)).expect("opens");
    assert_eq!(text(&engine, "c"), then);
}

/// A volume that asked for more copies is no more: what is left in its group waits for no more than it asks for itself.
#[test]
fn writes_wait_only_for_copies_that_somebody_asks_for() {
    let rig = Rig::create(3, 3, options());
    for (name, rf) in [("three", 3), ("two", 2)] {
        rig.engine.volume_create(&volume_create(name, rf, Some("group"))).expect("created");
    }
    rig.engine.volume_destroy("three").expect("destroyed");
    let drives = rig.world.drives();
    vanish(&drives[0]);
    notice(&rig);
    vanish(&drives[1]);
    drop(rig.engine.pool().heartbeat());
    put(&rig.engine, "two", "one copy is left");
    let group = rig.engine.groups().remove(0);
    assert_eq!(group.blocked().map(|error| error.message.clone()), None);
    group.flush_now().expect("durable on the drive that is left");
}
