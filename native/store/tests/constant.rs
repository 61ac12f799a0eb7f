//! What costs the same however much a volume holds: a snapshot, a clone, looking back. Counted, not timed. And moments at which there
//! was no such volume.

mod rig;

use holdfast_format::ROOT_INO;
use holdfast_store::api::{FileSystem, WriteFlags};
use holdfast_store::engine::Engine;
use holdfast_store::error::Kind;
use rig::{ROOT, Rig, counter, options, volume_create};

const COUNTED: [&str; 4] = ["ops", "log_flushes", "manifest_writes", "drive_bytes_read"];

/// What some work costs.
fn cost(engine: &Engine, work: impl FnOnce()) -> [u64; 4] {
    let before = COUNTED.map(|name| counter(engine, name));
    work();
    let after = COUNTED.map(|name| counter(engine, name));
    std::array::from_fn(|at| after[at] - before[at])
}

/// Of a snapshot, a look at it, and a clone of it, of a volume of so many files.
fn costs(files: usize) -> [[u64; 4]; 3] {
    let rig = Rig::create(61, 3, options());
    let volume = rig.volume("v", 2);
    for at in 0..files {
        let ino = volume.create(&ROOT, ROOT_INO, format!("f{at}").as_bytes(), 0o644).expect("created").ino;
        volume.write(&ROOT, ino, 0, b"content", WriteFlags::default()).expect("written");
        volume.forget(ino, 1);
        if at % 1000 == 0 {
            rig.second();
        }
    }
    rig.engine.settle().expect("settled");
    let engine = &rig.engine;
    let snapshot = cost(engine, || drop(engine.snapshot_create("v", "now", None).expect("a snapshot")));
    // Once, so that what a first look-up reads of the tables is there in both.
    drop(engine.volume_at("v", "now").expect("kept"));
    let look = cost(engine, || {
        let (then, _) = engine.volume_at("v", "now").expect("kept");
        assert_eq!(then.getattr(ROOT_INO).expect("a root").mode & 0o170_000, 0o040_000);
    });
    let clone = cost(engine, || drop(engine.clone_create("v", "c", Some("now")).expect("a clone")));
    [snapshot, look, clone]
}

#[test]
fn a_snapshot_a_look_and_a_clone_cost_the_same_with_100_files_and_with_many() {
    let (few, many) = (costs(100), costs(20_000));
    for (what, (few, many)) in ["snapshot", "look", "clone"].iter().zip(few.iter().zip(&many)) {
        println!("{what}: {COUNTED:?} {few:?} {many:?}");
        assert_eq!(few[..3], many[..3], "{what}: {COUNTED:?}");
        // A root's record lies in one block of each level.
        assert!(many[3] <= few[3] + 64 * 1024, "{what}: {} and {} bytes read", few[3], many[3]);
    }
    assert_eq!((few[0][0], few[1][0], few[2][0]), (1, 0, 1), "one record each, and none to look");
}

#[test]
fn a_moment_before_a_volume_was_made_is_refused_with_what_it_is() {
    let rig = Rig::create(62, 2, options());
    rig.engine.volume_create(&volume_create("older", 2, Some("pair"))).expect("a volume");
    rig.engine.snapshot_create("pair", "before", None).expect("a snapshot");
    rig.engine.volume_create(&volume_create("younger", 2, Some("pair"))).expect("a volume");
    for refused in [
        rig.engine.volume_at("younger", "before").err(),
        rig.engine.timeline_at("younger", "before").err(),
        rig.engine.clone_create("younger", "trial", Some("before")).err(),
    ] {
        let error = refused.expect("it was not there");
        assert_eq!(error.kind, Kind::NotFound);
        assert!(error.message.contains("younger did not exist at"), "{}", error.message);
    }
    // The group of then had one volume.
    let made = rig.engine.clone_create("pair", "trial", Some("before")).expect("cloned");
    assert_eq!(made.len(), 1);
    for name in ["a/b", "", ".hidden", "a b", "@1"] {
        let error = rig.engine.snapshot_create("pair", name, None).expect_err("no name");
        assert_eq!(error.kind, Kind::Invalid, "{name}");
        assert_eq!(rig.engine.snapshot_rename("pair", "before", name).expect_err("no name").kind, Kind::Invalid);
    }
}
