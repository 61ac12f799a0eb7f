//! Space: a full pool refuses before it acknowledges, gives back what is deleted, and rewriting goes on for ever.

mod rig;

use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{FileSystem, FsError, SetAttr, WriteFlags};
use holdfast_store::volume::Volume;
use rig::{DRIVE_BYTES, ROOT, Rig, counter, options, read_all};

const PIECE: usize = 64 << 10;

fn write(volume: &Volume, ino: Ino, offset: u64, fill: u8) -> Result<(), FsError> {
    volume.write(&ROOT, ino, offset, &[fill; PIECE], WriteFlags::default())
}

/// Writes until nothing fits; the pieces that were acknowledged.
fn fill(rig: &Rig, volume: &Volume, ino: Ino) -> u64 {
    let mut pieces = 0;
    loop {
        rig.world.clock().advance(20_000_000);
        match write(volume, ino, pieces * PIECE as u64, 7) {
            Ok(()) => pieces += 1,
            Err(FsError::NoSpace) => return pieces,
            Err(error) => panic!("piece {pieces}: {error:?}"),
        }
        if pieces % 16 == 0 {
            rig.engine.groups().iter().for_each(|group| group.second_now().expect("a second"));
        }
        assert!(pieces < 10_000, "it never fills");
    }
}

/// A part of a block is written, and cut off again: the drain makes a whole block of it that nothing names.
#[test]
fn a_drain_keeps_no_room_for_what_is_gone() {
    let rig = Rig::create(23, 2, options());
    let volume = rig.volume("v", 2);
    for name in [b"truncated", b"unlinked!"] {
        let ino = volume.create(&ROOT, ROOT_INO, name, 0o644).expect("created").ino;
        volume.write(&ROOT, ino, 0, &[7; 100], WriteFlags::default()).expect("written");
        let size = SetAttr { size: Some(0), ..SetAttr::default() };
        volume.setattr(&ROOT, ino, &size).expect("truncated");
        volume.forget(ino, 1);
    }
    volume.unlink(&ROOT, ROOT_INO, b"unlinked!").expect("unlinked");
    rig.engine.settle().expect("settled");
    assert_eq!(rig.engine.fsck().expect("checked").problems, Vec::<String>::new());
}

#[test]
fn a_full_pool_reads_deletes_restarts_and_is_writable_again() {
    let rig = Rig::create(21, 2, options());
    let volume = rig.volume("v", 2);
    let kept = volume.create(&ROOT, ROOT_INO, b"kept", 0o644).expect("created").ino;
    write(&volume, kept, 0, 1).expect("written");
    let filler = volume.create(&ROOT, ROOT_INO, b"filler", 0o644).expect("created").ino;
    let pieces = fill(&rig, &volume, filler);
    let acknowledged = pieces * PIECE as u64;
    assert!(acknowledged > DRIVE_BYTES / 2, "only {acknowledged} bytes fit on drives of {DRIVE_BYTES}");
    assert!(read_all(&volume, kept).iter().all(|byte| *byte == 1));
    drop(volume);
    let rig = rig.kill(options());
    let volume = rig.mount("v");
    let filler = volume.lookup(ROOT_INO, b"filler").expect("there").ino;
    assert_eq!(volume.getattr(filler).expect("attributes").size, acknowledged);
    assert!(read_all(&volume, filler).iter().all(|byte| *byte == 7), "everything acknowledged is there");
    volume.forget(filler, 1);
    volume.unlink(&ROOT, ROOT_INO, b"filler").expect("a full pool deletes");
    let again = volume.create(&ROOT, ROOT_INO, b"again", 0o644).expect("created").ino;
    for piece in 0..pieces / 2 {
        write(&volume, again, piece * PIECE as u64, 9).expect("half of it fits at once");
    }
    assert!(read_all(&volume, again).iter().all(|byte| *byte == 9));
    assert_eq!(rig.engine.fsck().expect("checked").problems, Vec::<String>::new());
}

#[test]
fn a_full_pool_fails_fast_and_frees_by_every_road() {
    let rig = Rig::create(22, 2, options());
    let volume = rig.volume("v", 2);
    let filler = volume.create(&ROOT, ROOT_INO, b"filler", 0o644).expect("created").ino;
    let pieces = fill(&rig, &volume, filler);
    let before = rig.engine.status().expect("status").counters;
    for _ in 0..100 {
        assert!(matches!(write(&volume, filler, pieces * PIECE as u64, 1), Err(FsError::NoSpace)));
    }
    let after = rig.engine.status().expect("status").counters;
    let counter = |counters: &[(String, u64)], name: &str| counters.iter().find(|pair| pair.0 == name).map(|pair| pair.1);
    assert_eq!(counter(&before, "drains"), counter(&after, "drains"), "a refusal does no work");
    let half = pieces / 2 * PIECE as u64;
    let set = holdfast_store::api::SetAttr { size: Some(half), ..Default::default() };
    volume.setattr(&ROOT, filler, &set).expect("a full pool truncates");
    let other = volume.create(&ROOT, ROOT_INO, b"other", 0o644).expect("created").ino;
    rig.world.clock().advance(2_000_000_000);
    for piece in 0..pieces / 4 {
        write(&volume, other, piece * PIECE as u64, 3).expect("what was cut off is free");
    }
}

#[test]
fn rewriting_goes_on_for_ever() {
    let rig = Rig::create(23, 3, options());
    let volume = rig.volume("v", 2);
    let file = volume.create(&ROOT, ROOT_INO, b"f", 0o644).expect("created").ino;
    let blocks = DRIVE_BYTES / 4096 / 2;
    let mut rng = holdfast_device::Rng::from_seed(23);
    for at in 0..blocks * 8 {
        let block = rng.below(blocks);
        let written = volume.write(&ROOT, file, block * 4096, &[at as u8; 4096], WriteFlags::default());
        written.unwrap_or_else(|error| panic!("write {at}: {error:?}"));
        if at % 512 == 0 {
            rig.world.clock().advance(1_000_000_000);
            rig.engine.groups().iter().for_each(|group| group.second_now().expect("a second"));
        }
    }
    let status = rig.engine.status().expect("status");
    let counter = |name: &str| status.counters.iter().find(|pair| pair.0 == name).map_or(0, |pair| pair.1);
    let amplification = counter("drive_bytes_written") as f64 / counter("payload_bytes") as f64 / 2.0;
    println!("write amplification {amplification:.2}, history {} s", status.history_window_s);
    assert!(amplification < 4.0, "{amplification}");
    assert_eq!(rig.engine.fsck().expect("checked").problems, Vec::<String>::new());
}

/// Files of so many bytes until nothing fits; their names. Metadata is a large part of the pool then.
fn fill_with_files(rig: &Rig, volume: &Volume, bytes: usize) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        let name = format!("f{}", names.len());
        let written = volume.create(&ROOT, ROOT_INO, name.as_bytes(), 0o644).and_then(|attr| {
            volume.forget(attr.ino, 1);
            names.push(name);
            if bytes == 0 { Ok(()) } else { volume.write(&ROOT, attr.ino, 0, &vec![7; bytes], WriteFlags::default()) }
        });
        match written {
            Ok(()) => {}
            Err(FsError::NoSpace) => return names,
            Err(error) => panic!("file {}: {error:?}", names.len()),
        }
        if names.len() % 100 == 0 {
            rig.second();
        }
    }
}

fn can_be_emptied(seed: u64, drives: usize, rf: u8, bytes: usize) {
    let rig = Rig::create(seed, drives, options());
    let volume = rig.volume("v", rf);
    let mut names = fill_with_files(&rig, &volume, bytes);
    let filled = format!("{} files of {bytes} bytes, RF {rf} on {drives} drives", names.len());
    let mut rng = holdfast_device::Rng::from_seed(seed);
    for at in (1..names.len()).rev() {
        names.swap(at, rng.below(at as u64 + 1) as usize);
    }
    for (at, name) in names.iter().enumerate() {
        if at % 100 == 99 {
            rig.second();
        }
        let removed = volume.unlink(&ROOT, ROOT_INO, name.as_bytes());
        removed.unwrap_or_else(|error| panic!("{filled}: {name} stays, the {at}th: {error:?}"));
    }
    let again = fill_with_files(&rig, &volume, bytes).len();
    assert!(again * 10 > names.len() * 9, "{filled}, but {again} afterwards");
    assert_eq!(rig.engine.fsck().expect("checked").problems, Vec::<String>::new());
}

/// Each deletion is somewhere else, and merges need room, too.
#[test]
fn a_pool_full_of_small_files_can_be_emptied() {
    can_be_emptied(31, 1, 1, 1000);
    can_be_emptied(32, 2, 2, 1000);
}

#[test]
#[ignore = "minutes: npm run test:long"]
fn a_pool_full_of_tiny_files_can_be_emptied() {
    can_be_emptied(33, 3, 2, 1);
    can_be_emptied(34, 2, 2, 0);
    can_be_emptied(35, 3, 3, 300);
}

/// Where most of a segment is dead, the heads of its frames and the live pages are read of it, not the slot.
#[test]
fn cleaning_reads_what_is_left_of_a_slot() {
    const BLOCKS: u64 = 4096;
    const FRAME_BLOCKS: u64 = 48;
    const LEFT: u64 = 24;
    let rig = Rig::create(24, 2, options());
    let volume = rig.volume("v", 2);
    let file = volume.create(&ROOT, ROOT_INO, b"f", 0o644).expect("created").ino;
    let bytes = |block: u64, turn: u8| [(block % 251) as u8 ^ turn; 4096];
    for turn in [0, 1] {
        let blocks = (0..BLOCKS).filter(|block| turn == 0 || block % LEFT != 0);
        for (at, block) in (1..).zip(blocks) {
            volume.write(&ROOT, file, block * 4096, &bytes(block, turn), WriteFlags::default()).expect("written");
            if at % FRAME_BLOCKS == 0 {
                rig.engine.flush().expect("flushed");
            }
        }
    }
    let [cleaned, read] = ["egroups_cleaned", "drive_bytes_read"].map(|name| counter(&rig.engine, name));
    rig.engine.settle().expect("settled");
    let cleaned = counter(&rig.engine, "egroups_cleaned") - cleaned;
    let read = counter(&rig.engine, "drive_bytes_read") - read;
    assert!(cleaned > BLOCKS / 100, "{cleaned} egroups were cleaned");
    let slot = rig.engine.pool().slot_bytes() as u64;
    assert!(read * 2 < cleaned * slot, "{} bytes of each slot of {slot}", read / cleaned);
    for block in 0..BLOCKS {
        let turn = (block % LEFT != 0) as u8;
        let mut found = [0; 4096];
        volume.read(&ROOT, file, block * 4096, &mut found).expect("read");
        assert_eq!(found, bytes(block, turn), "block {block}");
    }
    assert_eq!(rig.engine.fsck().expect("checked").problems, Vec::<String>::new());
}
