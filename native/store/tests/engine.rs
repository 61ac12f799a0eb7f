//! The engine as a whole, on simulated drives: what is written is read, after a drain, a kill, a power cut, a clean end.

mod rig;

use holdfast_device::SimWorld;
use holdfast_format::ROOT_INO;
use holdfast_store::api::{FileSystem, WriteFlags};
use rig::{ROOT, Rig, options, read_all};

fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let mut rng = holdfast_device::Rng::from_seed(seed);
    (0..bytes).map(|_| rng.next_u64() as u8).collect()
}

/// Writes in pieces that the engine takes.
fn write_all(volume: &holdfast_store::volume::Volume, ino: holdfast_format::Ino, offset: u64, bytes: &[u8]) {
    let piece = volume.write_bytes_max() as usize;
    for (at, chunk) in bytes.chunks(piece).enumerate() {
        let at = offset + (at * piece) as u64;
        volume.write(&ROOT, ino, at, chunk, WriteFlags::default()).expect("written");
    }
}

#[test]
fn written_bytes_come_back_from_every_stage() {
    let rig = Rig::create(1, 3, options());
    let volume = rig.volume("v", 2);
    let file = volume.create(&ROOT, ROOT_INO, b"f", 0o644).expect("created").ino;
    let mut expected = pattern(1, 300_000);
    write_all(&volume, file, 0, &expected);
    assert!(read_all(&volume, file) == expected, "from the ring");
    rig.engine.flush().expect("flushed");
    assert!(read_all(&volume, file) == expected, "from the log");
    write_all(&volume, file, 4000, &[9; 5000]);
    expected[4000..9000].fill(9);
    assert!(read_all(&volume, file) == expected, "with pieces over the log");
    rig.engine.settle().expect("settled");
    assert!(read_all(&volume, file) == expected, "from tables");
    write_all(&volume, file, 4095, &[8; 2]);
    expected[4095..4097].fill(8);
    assert!(read_all(&volume, file) == expected, "with pieces over tables");
    rig.engine.settle().expect("settled");
    assert!(read_all(&volume, file) == expected, "merged again");
}

#[test]
fn everything_acknowledged_survives_a_kill() {
    let rig = Rig::create(2, 3, options());
    let volume = rig.volume("v", 2);
    let a = volume.create(&ROOT, ROOT_INO, b"a", 0o644).expect("created").ino;
    let content = pattern(2, 100_000);
    write_all(&volume, a, 0, &content);
    drop(volume);
    let rig = rig.kill(options());
    let volume = rig.mount("v");
    let a = volume.lookup(ROOT_INO, b"a").expect("there").ino;
    assert!(read_all(&volume, a) == content);
    write_all(&volume, a, 50_000, &[1; 10]);
    drop(volume);
    let rig = rig.kill(options());
    let volume = rig.mount("v");
    let a = volume.lookup(ROOT_INO, b"a").expect("there").ino;
    assert!(read_all(&volume, a)[49_999..50_011].iter().filter(|byte| **byte == 1).count() >= 10);
}

#[test]
fn what_was_flushed_survives_a_power_cut() {
    let rig = Rig::create(3, 3, options());
    let volume = rig.volume("v", 2);
    let a = volume.create(&ROOT, ROOT_INO, b"a", 0o644).expect("created").ino;
    let content = pattern(3, 200_000);
    write_all(&volume, a, 0, &content);
    rig.engine.flush().expect("flushed");
    write_all(&volume, a, 0, &[5; 4096]);
    let world: SimWorld = rig.world.clone();
    drop(volume);
    drop(rig);
    let rig = Rig::open(world, rig::Rings::default(), options()).expect("opens");
    let volume = rig.mount("v");
    let a = volume.lookup(ROOT_INO, b"a").expect("there").ino;
    assert!(read_all(&volume, a) == content, "the unflushed overwrite is gone, the rest is there");
}

#[test]
fn a_clean_end_leaves_nothing_to_replay() {
    let rig = Rig::create(4, 2, options());
    let volume = rig.volume("v", 2);
    for at in 0..200u32 {
        let name = format!("file-{at}");
        let ino = volume.create(&ROOT, ROOT_INO, name.as_bytes(), 0o644).expect("created").ino;
        write_all(&volume, ino, 0, &pattern(at as u64, 1000 + at as usize * 37));
    }
    drop(volume);
    rig.engine.close().expect("closed");
    let rig = Rig::open(rig.world.clone(), rig::Rings::default(), options()).expect("opens");
    let status = rig.engine.status().expect("status");
    let replayed = status.counters.iter().find(|(name, _)| name == "replayed_ops").map(|(_, value)| *value);
    assert_eq!(replayed, Some(0));
    let volume = rig.mount("v");
    for at in 0..200u32 {
        let ino = volume.lookup(ROOT_INO, format!("file-{at}").as_bytes()).expect("there").ino;
        assert!(read_all(&volume, ino) == pattern(at as u64, 1000 + at as usize * 37), "file {at}");
    }
}

#[test]
fn a_group_that_nobody_uses_gives_its_log_back_and_wakes_again() {
    let rig = Rig::create(5, 3, options());
    let volume = rig.volume("v", 2);
    let a = volume.create(&ROOT, ROOT_INO, b"a", 0o644).expect("created").ino;
    write_all(&volume, a, 0, &pattern(5, 50_000));
    let group = rig.engine.groups().pop().expect("one group");
    for _ in 0..70 {
        rig.world.clock().advance(1_000_000_000);
        group.second_now().expect("a second");
    }
    assert_eq!(rig.engine.status().expect("status").log_bytes, 0, "no segment is held");
    write_all(&volume, a, 50_000, &pattern(6, 50_000));
    assert!(rig.engine.status().expect("status").log_bytes > 0);
    drop((volume, group));
    let rig = rig.kill(options());
    let volume = rig.mount("v");
    let a = volume.lookup(ROOT_INO, b"a").expect("there").ino;
    let content = read_all(&volume, a);
    assert!(content[..50_000] == pattern(5, 50_000) && content[50_000..] == pattern(6, 50_000));
}

/// The counted twin of `bars names`: names that are gone cost a listing nothing, though the past still has them all.
#[test]
fn a_directory_whose_names_were_all_removed_is_listed_like_an_empty_one() {
    const NAMES: usize = 6000;
    let rig = Rig::create(6, 2, options());
    let volume = rig.volume("v", 2);
    let dir = volume.mkdir(&ROOT, ROOT_INO, b"d", 0o755).expect("made").ino;
    let second = || {
        rig.world.clock().advance(1_000_000_000);
        rig.engine.groups()[0].second_now().expect("a second");
    };
    for at in 0..NAMES {
        let ino = volume.create(&ROOT, dir, format!("name-{at}").as_bytes(), 0o644).expect("created").ino;
        volume.forget(ino, 1);
        if at % 100 == 0 {
            second();
        }
    }
    let group = rig.engine.groups().swap_remove(0);
    group.drain_now().expect("drained");
    second();
    for at in 0..NAMES {
        volume.unlink(&ROOT, dir, format!("name-{at}").as_bytes()).expect("removed");
    }
    group.drain_now().expect("drained");
    assert!(group.tree().stats().then.records >= 2 * NAMES as u64, "a second sees every name and inode");
    let before = group.tree().stats().keys_stepped;
    let mut names = 0;
    volume.readdir(&ROOT, dir, 0, false, &mut |_| { names += 1; true }).expect("listed");
    let stepped = group.tree().stats().keys_stepped - before;
    assert_eq!(names, 2, "`.` and `..`");
    assert!(stepped <= 600, "{stepped} keys stepped over for no name");
}

#[test]
fn only_what_comes_through_a_mount_counts_as_somebodys_work() {
    let rig = Rig::create(8, 3, options());
    let volume = rig.volume("v", 2);
    let file = volume.create(&ROOT, ROOT_INO, b"f", 0o644).expect("created").ino;
    write_all(&volume, file, 0, &pattern(8, 10_000));
    let before = volume.requests();
    rig.engine.status().expect("status");
    rig.engine.volumes().expect("looked up");
    rig.engine.settle().expect("settled");
    rig.engine.heal().expect("nothing to do");
    rig.engine.scrub(None).expect("scrubbed");
    assert_eq!(volume.requests(), before, "the daemon's own work is nobody's");
    volume.getattr(file).expect("there");
    volume.read(&ROOT, file, 0, &mut [0; 100]).expect("read");
    assert_eq!(volume.requests(), before + 2);
}
