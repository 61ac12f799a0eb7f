//! Each start adds a row to the epoch history of a group: they are forgotten when nothing asks for them any more, and not before.

mod rig;

use holdfast_device::sim::{Fault, FaultKind};
use holdfast_device::{Drive, SimDrive};
use holdfast_format::frame::FrameHeader;
use holdfast_format::limits::{BLOCK_BYTES, EPOCH_ROWS_KEPT, EPOCH_ROWS_MAX};
use holdfast_format::manifest::GroupRecord;
use holdfast_format::superblock::{INCOMPAT_CLONES, INCOMPAT_LATER_ROWS, INCOMPAT_PAST, SUPERBLOCK_BYTES, Superblock};
use holdfast_format::{ROOT_INO, Row};
use holdfast_store::api::{FileSystem, WriteFlags};
use rig::player::mount;
use rig::tree::walk;
use rig::{ROOT, Rig, Rings, options};

const SLAB: &str = "slab-000000";

fn put(rig: &Rig, name: &str) {
    put_in(rig, "v", name);
}

fn put_in(rig: &Rig, volume: &str, name: &str) {
    let volume = mount(&rig.engine, volume);
    let ino = volume.create(&ROOT, ROOT_INO, name.as_bytes(), 0o644).expect("created").ino;
    volume.forget(ino, 1);
    volume.write(&ROOT, ino, 0, name.as_bytes(), WriteFlags::default()).expect("written");
    rig.engine.flush().expect("flushed");
}

fn text(rig: &Rig) -> String {
    text_of(rig, "v")
}

fn text_of(rig: &Rig, volume: &str) -> String {
    walk(&mount(&rig.engine, volume)).expect("everything reads").text
}

fn text_at(rig: &Rig, volume: &str, point: &str) -> String {
    walk(&rig.engine.volume_at(volume, point).expect("kept").0).expect("everything reads").text
}

fn start_again(rig: Rig) -> Rig {
    let world = rig.world.clone();
    drop(rig);
    Rig::open(world, Rings::default(), options()).expect("opens")
}

fn record(rig: &Rig) -> GroupRecord {
    record_of(rig, "v")
}

fn record_of(rig: &Rig, name: &str) -> GroupRecord {
    rig.engine.pool().groups().into_iter().find(|group| group.name == name).expect("the group")
}

/// Rows of the frames with ops in the drive's first slab.
fn rows_of_frames(drive: &SimDrive) -> Vec<Row> {
    let bytes = drive.files().into_iter().find(|(name, _)| name == SLAB).expect("a slab").1;
    let pages = (0..bytes).step_by(BLOCK_BYTES).filter_map(|at| drive.read_raw(SLAB, at, BLOCK_BYTES));
    let frames = pages.filter_map(|page| FrameHeader::decode(&page).ok());
    frames.filter(|header| header.op_count > 0).map(|header| header.row).collect()
}

fn features(drive: &SimDrive) -> Vec<u64> {
    let slot = |slot| drive.read_raw("superblock", slot * SUPERBLOCK_BYTES as u64, SUPERBLOCK_BYTES).expect("there");
    let bits = [0, 1].map(|at| Superblock::decode(&slot(at)).expect("right").incompat);
    assert!(bits.iter().all(|bits| bits & INCOMPAT_PAST != 0), "every pool has records of the past: {bits:?}");
    bits.map(|bits| bits & !INCOMPAT_PAST).to_vec()
}

#[test]
fn rows_of_starts_are_forgotten_when_no_frame_asks_for_them() {
    let mut rig = Rig::create(5, 2, options());
    drop(rig.volume("v", 2));
    put(&rig, "a");
    let drives = rig.world.drives();
    let oldest = rows_of_frames(&drives[0]).into_iter().min().expect("frames");
    let expected = text(&rig);
    let starts = EPOCH_ROWS_MAX + 40;
    for _ in 0..starts {
        rig = start_again(rig);
    }
    // The frames of the first start are what the log begins with, and a row that one of them needs stays.
    let group = record(&rig);
    assert_eq!((Row(group.first_row), group.history.len()), (oldest, starts + 1));
    assert_eq!(text(&rig), expected);
    let before = group;

    rig.engine.settle().expect("settled");
    let rig = start_again(rig);
    let group = record(&rig);
    assert_eq!(group.history.len(), EPOCH_ROWS_KEPT);
    assert_eq!(group.next_row(), Row(before.next_row().0 + 1), "numbers go on");
    let kept = group.first_row..before.next_row().0;
    assert!(kept.clone().all(|index| group.row(Row(index)) == before.row(Row(index))), "rows {kept:?}");
    drives.iter().for_each(|drive| assert_eq!(features(drive), [INCOMPAT_LATER_ROWS; 2], "{}", drive.name()));
    assert_eq!(text(&rig), expected);

    // Frames count as before, and it goes on so.
    put(&rig, "b");
    let expected = text(&rig);
    let mut rig = start_again(rig);
    for _ in 0..EPOCH_ROWS_MAX {
        assert_eq!(text(&rig), expected);
        rig.engine.settle().expect("settled");
        rig = start_again(rig);
        assert!(record(&rig).history.len() <= EPOCH_ROWS_MAX);
    }
    assert_eq!(text(&rig), expected);
    assert!(rig.engine.fsck().expect("checked").problems.is_empty());
}

/// Points, bases of clones and tables name LSNs that rows which are forgotten wrote; frames in the log of a clone name rows.
#[test]
fn what_forgotten_rows_wrote_is_seen_by_points_and_clones() {
    let mut rig = Rig::create(6, 2, options());
    drop(rig.volume("v", 2));
    // Each in a row of its own: in tables by the point, in the log above it.
    put(&rig, "in-tables");
    rig.engine.settle().expect("settled");
    rig = start_again(rig);
    put(&rig, "before-the-point");
    rig.engine.snapshot_create("v", "kept", None).expect("a snapshot");
    rig = start_again(rig);
    put(&rig, "behind-the-point");
    rig.engine.clone_create("v", "of-then", Some("kept")).expect("a clone");
    rig.engine.clone_create("v", "of-now", None).expect("a clone");
    rig = start_again(rig);
    put_in(&rig, "of-then", "own");
    put(&rig, "last");
    let names = ["v", "of-then", "of-now"];
    let expected = |rig: &Rig| [names.map(|name| text_of(rig, name)).to_vec(), vec![text_at(rig, "v", "kept")]].concat();
    let before = expected(&rig);
    let oldest = names.map(|name| (name, record_of(&rig, name)));
    for _ in 0..EPOCH_ROWS_MAX + 10 {
        rig = start_again(rig);
    }
    // Frames that nothing has drained keep the rows from their own on, in every group.
    assert_eq!(expected(&rig), before);
    let first_used = record_of(&rig, "of-then").first_row;
    assert!(first_used < oldest[1].1.next_row().0, "the clone's own frame needs row {first_used}");

    // In the trees now: rows go, and what they wrote stays, in the point, in the bases, in the clones' own.
    for _ in 0..2 {
        rig.engine.settle().expect("settled");
        rig = start_again(rig);
    }
    for (name, old) in &oldest {
        let group = record_of(&rig, name);
        assert!(group.history.len() <= EPOCH_ROWS_MAX, "{name}: {} rows", group.history.len());
        assert!(group.first_row >= old.next_row().0, "{name}: rows from {} on", group.first_row);
        assert_eq!(group.base, old.base);
    }
    assert_eq!(expected(&rig), before);
    let again = rig.engine.clone_create("of-then", "of-clone", None).expect("a clone of a clone");
    assert_eq!(text_of(&rig, &again[0].name), before[1]);
    assert!(rig.engine.scrub(None).expect("scrubbed").bad_copies == 0);
    assert!(rig.engine.fsck().expect("checked").problems.is_empty());
}

#[test]
fn superblocks_say_that_there_are_clones_before_the_manifest_does() {
    let rig = Rig::create(7, 2, options());
    drop(rig.volume("v", 2));
    put(&rig, "a");
    let drives = rig.world.drives();
    let all = |bits: u64| drives.iter().all(|drive| features(drive) == [bits; 2]);
    assert!(all(0));
    // No write of the manifest comes through: the superblocks had to be written before.
    let fault = Fault { file: Some("manifest".to_owned()), ..Fault::always(FaultKind::WriteError) };
    for drive in &drives {
        drive.add_fault(fault.clone());
    }
    rig.engine.clone_create("v", "c", None).expect_err("no manifest can be written");
    assert!(all(INCOMPAT_CLONES));
    drives.iter().for_each(SimDrive::clear_faults);
    // The write that failed may have left a group without volumes. A start gives it up, and the next one knows of no clone.
    let rig = start_again(start_again(rig));
    assert!(all(0));

    rig.engine.clone_create("v", "c", None).expect("a clone");
    assert!(all(INCOMPAT_CLONES));
    let rig = start_again(rig);
    assert!(all(INCOMPAT_CLONES));
    // The area of the manifest still has the record of the clone.
    rig.engine.volume_destroy("c").expect("destroyed");
    rig.engine.pool().heartbeat().expect("superblocks");
    assert!(all(INCOMPAT_CLONES));
    drop(start_again(rig));
    assert!(all(0));
}
