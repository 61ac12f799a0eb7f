//! A hundred thousand recovery points of one volume: listed in pages, deleted one by one, there again after a crash, and thinned.
//! Counted, not timed; `examples/points.rs` takes the times.

mod rig;

use holdfast_device::Clock;
use holdfast_format::ROOT_INO;
use holdfast_format::retention::ThinStep;
use holdfast_store::api::{FileSystem, WriteFlags};
use holdfast_store::engine::{EngineOptions, RetentionChange};
use holdfast_store::error::Kind;
use holdfast_store::volume::Volume;
use rig::{ROOT, Rig, counter, options};

const POINTS: usize = 100_000;
const PAGE: usize = 1000;
const BLOCK: [u8; 4096] = [7; 4096];
/// Every so many points something changes.
const CHANGE_EVERY: usize = 100;

fn write(volume: &Volume, ino: holdfast_format::Ino, block: u64) {
    volume.write(&ROOT, ino, block * 4096, &BLOCK, WriteFlags::default()).expect("written");
}

#[test]
fn a_hundred_thousand_snapshots_are_listed_deleted_and_found_again() {
    let rig = Rig::create(1, 2, options());
    let volume = rig.volume("v", 2);
    let ino = volume.create(&ROOT, ROOT_INO, b"file", 0o600).expect("created").ino;
    let group = rig.engine.groups()[0].clone();
    for at in 0..POINTS {
        if at % CHANGE_EVERY == 0 {
            write(&volume, ino, (at / CHANGE_EVERY % 64) as u64);
        }
        group.snapshot_create(&format!("s{at}")).expect("a snapshot");
        if at % PAGE == 0 {
            while rig.engine.housekeep_now(true).expect("kept") {}
        }
    }
    let list = |engine: &holdfast_store::engine::Engine| {
        let (mut names, mut after) = (Vec::new(), 0);
        loop {
            let page = engine.snapshots("v", after, PAGE).expect("a page");
            assert!(page.len() <= PAGE);
            let Some(last) = page.last() else { return names };
            after = last.lsn;
            names.extend(page.into_iter().map(|point| point.name));
        }
    };
    let names = list(&rig.engine);
    assert_eq!(names.len(), POINTS);
    assert!(names.iter().enumerate().all(|(at, name)| *name == format!("s{at}")), "oldest first");
    rig.engine.settle().expect("settled");
    let then = group.tree().stats().then;
    assert!(then.payload_bytes >= (POINTS / CHANGE_EVERY * 9 / 10) as u64 * 4096, "most of what was overwritten is known: {then:?}");

    // Deleting one is one op and one flush; nothing is read. Afterwards few tables are looked at, however many points there are.
    for at in [50_000, 0, POINTS - 1, 12_345] {
        let before = ["drive_bytes_read", "log_flushes", "ops"].map(|name| counter(&rig.engine, name));
        rig.engine.snapshot_delete("v", &format!("s{at}")).expect("deleted");
        let after = ["drive_bytes_read", "log_flushes", "ops"].map(|name| counter(&rig.engine, name));
        assert_eq!([after[0] - before[0], after[2] - before[2]], [0, 1]);
        assert!(after[1] - before[1] <= 1);
        let mut steps = 0;
        while group.loosen_step().expect("looked") {
            steps += 1;
        }
        assert!(steps <= 1, "{steps} steps for one point of {POINTS}");
    }
    drop((volume, group));
    let rig = rig.kill(options());
    assert_eq!(list(&rig.engine).len(), POINTS - 4);
    assert_eq!(rig.engine.point("v", "s777").expect("kept").name, "s777");
    assert_eq!(rig.engine.point("v", "s12345").expect_err("deleted").kind, Kind::Invalid);
    assert!(rig.engine.fsck().expect("checked").problems.is_empty());
}

#[test]
fn what_is_asked_for_is_kept_and_what_is_not_any_more_goes() {
    let kept = EngineOptions { retention_s: 100, thin: vec![ThinStep { every_s: 10, for_s: 500 }], ..options() };
    let rig = Rig::create(2, 2, kept.clone());
    let volume = rig.volume("v", 2);
    let ino = volume.create(&ROOT, ROOT_INO, b"file", 0o600).expect("created").ino;
    for second in 0..700 {
        write(&volume, ino, second % 7);
        rig.world.clock().advance(1_000_000_000);
        rig.engine.groups()[0].second_now().expect("a second");
    }
    let held = || rig.engine.volumes().expect("volumes")[0].retention.held;
    assert!(held().ticks.abs_diff(100 + 40) <= 3 && held().window_s == 100 && held().oldest_s.abs_diff(500) <= 10, "{:?}", held());
    rig.engine.settle().expect("settled");
    let full = rig.engine.groups()[0].tree().stats().then.payload_bytes;
    // A block lives for seven seconds: each second of the window holds one of its own, each point after that all seven. What
    // thinning let go of is given back, up to the part that is not worth writing a table again.
    let blocks = full / 4096;
    assert!((375..=410).contains(&blocks), "{blocks} blocks for 100 points of one and 40 of seven");

    let set = |window_s, thin| RetentionChange { window_s: Some(window_s), thin, limit: None };
    let second = || {
        write(&volume, ino, 1);
        rig.second();
    };
    rig.engine.retention_set("v", &set(20, Some(Vec::new()))).expect("set");
    second();
    assert!(held().ticks.abs_diff(20) <= 2, "{:?}", held());
    assert_eq!(rig.engine.retention_set("v", &set(10_000_000, None)).expect_err("too many").kind, Kind::Invalid);
    assert_eq!(rig.engine.retention_set("nobody", &set(1, None)).expect_err("nobody").kind, Kind::NotFound);
    rig.engine.retention_set("v", &set(0, None)).expect("set");
    second();
    assert_eq!(held().ticks, 0);
    let gone = rig.engine.point("v", "-10s").expect_err("nothing is kept");
    assert!(gone.kind == Kind::NotFound && gone.message.contains("no earlier state is kept"), "{}", gone.message);
    drop(volume);
    let rig = rig.kill(kept);
    assert_eq!(rig.engine.volumes().expect("volumes")[0].retention.retention.window_s, 0, "a start knows what was set");
    assert!(rig.world.clock().boottime_ns() > 0);
}
