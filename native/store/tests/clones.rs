//! Clones that come to stand alone: in steps, over the end of the process, whatever becomes of the others meanwhile.

mod rig;

use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{FileSystem, WriteFlags};
use holdfast_store::engine::{Engine, FeedChange, FeedRequest, PromotionInfo, VolumeInfo};
use holdfast_store::volume::{Volume, VolumeOptions};
use rig::tree::{difference, walk};
use rig::{ROOT, Rig, options, read_all, volume_create};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const PIECE: usize = 64 << 10;

fn file(volume: &Volume, name: &str) -> Ino {
    volume.create(&ROOT, ROOT_INO, name.as_bytes(), 0o600).expect("created").ino
}

fn write(volume: &Volume, ino: Ino, piece: u64, fill: u8) {
    volume.write(&ROOT, ino, piece * PIECE as u64, &[fill; PIECE], WriteFlags::default()).expect("written");
}

/// Without access times: what is compared is only looked at.
fn mount(rig: &Rig, name: &str) -> Arc<Volume> {
    rig.engine.volume(name, VolumeOptions { noatime: true }).expect("free to be mounted")
}

fn volume(rig: &Rig, name: &str) -> Arc<Volume> {
    rig.engine.volume_create(&volume_create(name, 2, None)).expect("a volume");
    mount(rig, name)
}

fn info(engine: &Engine, name: &str) -> VolumeInfo {
    let found = engine.volumes().expect("volumes").into_iter().find(|volume| volume.name == name);
    found.unwrap_or_else(|| panic!("no volume {name}"))
}

fn promotion(engine: &Engine, name: &str) -> Option<PromotionInfo> {
    info(engine, name).promotion
}

/// What housekeeping does until it has nothing to do.
fn upkeep(rig: &Rig) {
    for _ in 0..4 {
        rig.second();
    }
    rig.engine.settle().expect("settled");
    rig.second();
}

fn text(volume: &Volume) -> String {
    walk(volume).expect("a tree").text
}

/// A volume of many small files and one of many pieces, so that taking it over needs many steps.
fn parent(rig: &Rig, name: &str) -> Arc<Volume> {
    let made = volume(rig, name);
    for at in 0..400 {
        let ino = file(&made, &format!("f{at:03}"));
        made.write(&ROOT, ino, 0, &[at as u8; 5000], WriteFlags::default()).expect("written");
    }
    let big = file(&made, "big");
    (0..40).for_each(|piece| write(&made, big, piece, piece as u8));
    made
}

fn same(before: &str, after: &str) {
    assert!(before == after, "{}", difference(before, after));
}

fn sound(rig: &Rig) {
    assert_eq!(rig.engine.fsck().expect("checked").problems, Vec::<String>::new());
}

#[test]
fn a_promotion_goes_on_after_the_end_of_the_process_where_it_was() {
    let rig = Rig::create(31, 2, options());
    let origin = parent(&rig, "origin");
    rig.engine.clone_create("origin", "clone", None).expect("cloned");
    let clone = mount(&rig, "clone");
    let big = clone.lookup(ROOT_INO, b"big").expect("there").ino;
    write(&clone, big, 3, 200);
    let before = text(&clone);
    assert!(rig.engine.clone_promote_begin("clone").expect("begun"));
    assert!(rig.engine.clone_promote_begin("clone").expect("the same again"));
    assert_eq!(promotion(&rig.engine, "clone").expect("begun").done_bytes, 0);
    for _ in 0..5 {
        assert!(rig.engine.clone_take_over("clone", 0, 20).expect("a step"));
    }
    let halfway = promotion(&rig.engine, "clone").expect("under way");
    assert!(halfway.done_bytes > 0 && halfway.done_bytes < halfway.total_bytes, "{halfway:?}");
    assert!(text(&clone) == before);
    drop((origin, clone));

    let rig = rig.kill(options());
    let found = promotion(&rig.engine, "clone").expect("a start knows what was asked for");
    assert_eq!(found.done_bytes, halfway.done_bytes, "and how far it was");
    let (origin, clone) = (mount(&rig, "origin"), mount(&rig, "clone"));
    // Both are written meanwhile.
    let other = origin.lookup(ROOT_INO, b"big").expect("there").ino;
    write(&origin, other, 7, 99);
    write(&clone, big, 39, 201);
    let before = text(&clone);
    upkeep(&rig);
    assert_eq!((info(&rig.engine, "clone").base, promotion(&rig.engine, "clone")), (None, None), "the housekeeper did it");
    assert!(!rig.engine.clone_promote_begin("clone").expect("nothing to do"));
    assert!(text(&clone) == before);
    drop(origin);
    rig.engine.volume_destroy("origin").expect("destroyed");
    upkeep(&rig);
    same(&before, &text(&clone));
    assert_eq!(rig.engine.groups().len(), 1, "nothing of the origin is left");
    sound(&rig);
    drop(clone);
    let rig = rig.kill(options());
    assert!(text(&mount(&rig, "clone")) == before);
}

/// What a feed tells from the beginning on: kinds and paths.
fn fed(engine: &Engine, name: &str) -> BTreeSet<(String, String)> {
    let mut request =
        FeedRequest { from: "beginning".to_owned(), limit: 100, wait: Duration::ZERO, latest: true, coalesce: true };
    let mut told = BTreeSet::new();
    loop {
        let page = engine.feed(name, &request).expect("fed");
        for FeedChange { change, .. } in page.changes {
            let path = String::from_utf8(change.path).expect("a name of ours");
            assert!(told.insert((change.kind.name().to_owned(), path.clone())), "{path} is told twice");
        }
        if !page.more {
            return told;
        }
        request = FeedRequest { from: page.cursor, latest: false, ..request };
    }
}

#[test]
fn a_feed_of_a_clone_begins_with_its_origin_and_one_that_stands_alone_with_nothing() {
    let rig = Rig::create(36, 2, options());
    drop(parent(&rig, "origin"));
    rig.engine.clone_create("origin", "clone", None).expect("cloned");
    let clone = mount(&rig, "clone");
    let big = clone.lookup(ROOT_INO, b"big").expect("there").ino;
    write(&clone, big, 3, 200);
    clone.unlink(&ROOT, ROOT_INO, b"f007").expect("unlinked");
    file(&clone, "new");
    let told = |words: &[(&str, &str)]| words.iter().map(|(kind, path)| (kind.to_string(), path.to_string())).collect();
    let changes: BTreeSet<(String, String)> = told(&[("changed", "big"), ("removed", "f007"), ("added", "new")]);
    assert_eq!(fed(&rig.engine, "clone"), changes);
    rig.engine.clone_promote("clone").expect("promoted");
    upkeep(&rig);
    let names = walk(&clone).expect("a tree").entries;
    let all = names.iter().map(|entry| ("added".to_owned(), String::from_utf8(entry.name.clone()).expect("a name of ours")));
    assert_eq!(fed(&rig.engine, "clone"), all.collect());
}

#[test]
fn what_only_the_origin_had_is_given_back_when_it_goes() {
    let rig = Rig::create(32, 2, options());
    let origin = volume(&rig, "origin");
    let (shared, own) = (file(&origin, "shared"), file(&origin, "own"));
    (0..64).for_each(|piece| write(&origin, shared, piece, 1));
    (0..64).for_each(|piece| write(&origin, own, piece, 2));
    rig.engine.clone_create("origin", "clone", None).expect("cloned");
    let clone = mount(&rig, "clone");
    clone.unlink(&ROOT, ROOT_INO, b"own").expect("unlinked");
    rig.engine.clone_promote("clone").expect("promoted");
    upkeep(&rig);
    let live = || rig.engine.groups().iter().map(|group| group.live_bytes()).sum::<u64>();
    let both = live();
    drop(origin);
    rig.engine.volume_destroy("origin").expect("destroyed");
    upkeep(&rig);
    let alone = live();
    // Once for each copy: what both named, and what the origin alone did.
    let file = 2 * 64 * PIECE as u64;
    assert!((2 * file..=2 * file + file / 2).contains(&(both - alone)), "{both} - {alone}");
    let used = || rig.engine.pool().space();
    for _ in 0..8 {
        rig.second();
    }
    let space = used();
    assert!(space.data - space.dead < file + file / 2, "only what the clone shows is stored: {space:?}");
    assert!(read_all(&clone, shared).iter().all(|byte| *byte == 1));
    sound(&rig);
}

#[test]
fn two_promotions_and_a_chain_that_is_too_long_all_come_to_their_end() {
    let rig = Rig::create(33, 2, options());
    drop(parent(&rig, "v0"));
    for at in 1..12 {
        rig.engine.clone_create(&format!("v{}", at - 1), &format!("v{at}"), None).expect("cloned");
        let volume = mount(&rig, &format!("v{at}"));
        write(&volume, file(&volume, &format!("of-{at}")), 0, at);
    }
    let texts: Vec<String> = (0..12).map(|at| text(&mount(&rig, &format!("v{at}")))).collect();
    // By turns with each other and with the housekeeper, which shortens the chain: none begins anew because of another.
    for _ in 0..200 {
        let more = ["v11", "v5"].map(|name| rig.engine.clone_take_over(name, 0, 25).expect("a step"));
        rig.engine.housekeep_now(false).expect("a round");
        if more == [false, false] {
            break;
        }
    }
    assert_eq!([5, 11].map(|at| info(&rig.engine, &format!("v{at}")).base), [None, None]);
    upkeep(&rig);
    for (at, before) in texts.iter().enumerate() {
        assert!(text(&mount(&rig, &format!("v{at}"))) == *before, "v{at}");
        let depth = info(&rig.engine, &format!("v{at}")).base.map_or(0, |base| base.depth);
        assert!(depth <= 4, "v{at} lies on {depth}");
    }
    sound(&rig);
}

#[test]
fn a_clones_points_keep_the_volumes_that_were_destroyed_in_it() {
    for restart in [false, true] {
        let rig = Rig::create(34, 2, options());
        for name in ["left", "right"] {
            rig.engine.volume_create(&volume_create(name, 2, Some("pair"))).expect("a volume");
            let volume = mount(&rig, name);
            (0..60).for_each(|at| write(&volume, file(&volume, &format!("f{at}")), 0, at));
        }
        let expected = text(&mount(&rig, "right"));
        rig.engine.clone_create("pair", "trial", None).expect("cloned");
        rig.engine.snapshot_create("trial", "kept", None).expect("a snapshot");
        rig.engine.volume_destroy("trial-right").expect("destroyed");
        rig.engine.clone_promote_begin("trial").expect("begun");
        let mut rig = rig;
        if restart {
            // The last step was taken, and what it leaves to do was not.
            while info(&rig.engine, "trial-left").base.is_some() {
                assert!(rig.engine.clone_take_over("trial", 0, 1).expect("a step") || restart);
            }
            rig = rig.kill(options());
        }
        upkeep(&rig);
        assert_eq!(info(&rig.engine, "trial-left").promotion, None);
        for name in ["left", "right"] {
            rig.engine.volume_destroy(name).expect("destroyed");
        }
        upkeep(&rig);
        rig.engine.clone_create("trial", "again", Some("kept")).expect("cloned from the snapshot");
        let again = mount(&rig, "again-trial-right");
        assert!(text(&again) == expected);
        drop(again);
        for name in ["again-trial-left", "again-trial-right"] {
            rig.engine.volume_destroy(name).expect("destroyed");
        }
        rig.engine.snapshot_delete("trial", "kept").expect("deleted");
        rig.engine.retention_set("trial", &nothing()).expect("set");
        upkeep(&rig);
        for group in rig.engine.groups() {
            while group.reclaim_now().expect("looked for") {}
        }
        // The present has one volume: what the snapshot kept of the other one is gone with it.
        let left = rig.engine.groups().iter().map(|group| group.live_bytes()).sum::<u64>();
        assert!(left <= 2 * 61 * PIECE as u64, "{left} bytes");
        let then = rig.engine.groups()[0].tree().stats().then.payload_bytes;
        assert!(then < 10 * PIECE as u64, "{then} bytes of a past that nobody sees");
        sound(&rig);
    }
}

fn nothing() -> holdfast_store::engine::RetentionChange {
    holdfast_store::engine::RetentionChange { window_s: Some(0), thin: Some(Vec::new()), limit: None }
}

/// Trees that were asked, and keys that were stepped over, by looking at every file of a volume once.
fn looked(rig: &Rig, volume: &Volume, names: impl Iterator<Item = String>) -> (u64, u64) {
    let counted = || {
        let stats: Vec<_> = rig.engine.groups().iter().map(|group| group.tree().stats()).collect();
        let of = |count: &dyn Fn(&holdfast_store::metadata::tree::TreeStats) -> u64| stats.iter().map(count).sum::<u64>();
        (of(&|stats| stats.lookups), of(&|stats| stats.keys_stepped))
    };
    let before = counted();
    for name in names {
        let ino = volume.lookup(ROOT_INO, name.as_bytes()).expect("there").ino;
        volume.forget(ino, 1);
    }
    let after = counted();
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn a_chain_of_a_hundred_clones_is_looked_up_in_like_a_short_one_and_any_of_them_can_go() {
    const FILES: usize = 1000;
    const CLONES: usize = 100;
    // Each group has slots of its own: a log, some tables.
    let rig = Rig::create(35, 8, options());
    let fill = |volume: &Volume| {
        for at in 0..FILES {
            let ino = file(volume, &format!("f{at:04}"));
            volume.write(&ROOT, ino, 0, &[at as u8; 3000], WriteFlags::default()).expect("written");
            volume.forget(ino, 1);
        }
    };
    fill(&volume(&rig, "v0"));
    let mut texts = vec![text(&mount(&rig, "v0"))];
    for at in 1..=CLONES {
        rig.engine.clone_create(&format!("v{}", at - 1), &format!("v{at}"), None).expect("cloned");
        let clone = mount(&rig, &format!("v{at}"));
        write(&clone, file(&clone, &format!("of-{at}")), 0, at as u8);
        let changed = clone.lookup(ROOT_INO, format!("f{:04}", at * 3).as_bytes()).expect("there").ino;
        clone.write(&ROOT, changed, 1000, &[at as u8; 5000], WriteFlags::default()).expect("written");
        clone.unlink(&ROOT, ROOT_INO, format!("f{:04}", at * 3 + 1).as_bytes()).expect("unlinked");
        texts.push(text(&clone));
        drop(clone);
        while rig.engine.housekeep_now(false).expect("a round") {}
    }
    let alone = volume(&rig, "alone");
    fill(&alone);
    rig.engine.settle().expect("settled");
    while rig.engine.housekeep_now(true).expect("a round") {}
    let depth = |name: &str| info(&rig.engine, name).base.map_or(0, |base| base.depth);
    assert!((0..=CLONES).all(|at| depth(&format!("v{at}")) <= 4));

    // The files that every generation left alone.
    let names = || (0..FILES).filter(|at| at % 3 == 2).map(|at| format!("f{at:04}"));
    let short = looked(&rig, &alone, names());
    let deepest = (1..=CLONES).max_by_key(|at| depth(&format!("v{at}"))).expect("some");
    for at in [CLONES, deepest] {
        let long = looked(&rig, &mount(&rig, &format!("v{at}")), names());
        // Each generation is asked once or twice, and answers out of its filters.
        let most = (2 * depth(&format!("v{at}")) + 1) * short.0;
        assert!(long.0 <= most, "v{at}: {long:?} trees, alone {short:?}");
        assert!(long.1 <= 2 * short.1, "v{at}: {long:?} keys, alone {short:?}");
    }
    for (at, before) in texts.iter().enumerate() {
        same(before, &text(&mount(&rig, &format!("v{at}"))));
    }
    // From the middle outwards, the first and the newest among them.
    for at in [50, 0, 49, 51, 8, 9, 99, 1] {
        rig.engine.volume_destroy(&format!("v{at}")).expect("destroyed");
    }
    upkeep(&rig);
    let left = (2..=CLONES).filter(|at| ![8, 9, 49, 50, 51, 99].contains(at));
    for at in left.clone() {
        same(&texts[at], &text(&mount(&rig, &format!("v{at}"))));
    }
    sound(&rig);
    let rig = rig.kill(options());
    for at in left {
        same(&texts[at], &text(&mount(&rig, &format!("v{at}"))));
    }
}
