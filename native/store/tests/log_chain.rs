//! Frames that verify and are not of the log: one that a start has not found, one that lies in the place of another. What counts
//! is what continues the chain (STORE.md 14).

mod rig;

use holdfast_device::sim::{Fault, FaultKind};
use holdfast_device::{Drive, SimDrive, SimWorld};
use holdfast_format::ROOT_INO;
use holdfast_format::frame::FrameHeader;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_store::api::{FileSystem, WriteFlags};
use holdfast_store::engine::Engine;
use rig::player::mount;
use rig::tree::walk;
use rig::{ROOT, Rig, Rings, foundation, options};
use std::sync::Arc;

const SLAB: &str = "slab-000000";

/// A file of its own in one frame.
fn put(rig: &Rig, name: &str) {
    let volume = mount(&rig.engine, "v");
    let ino = volume.create(&ROOT, ROOT_INO, name.as_bytes(), 0o644).expect("created").ino;
    volume.forget(ino, 1);
    let bytes = vec![name.as_bytes()[0]; BLOCK_BYTES];
    volume.write(&ROOT, ino, 0, &bytes, WriteFlags::default()).expect("written");
    rig.engine.flush().expect("flushed");
}

fn text(engine: &Engine) -> String {
    walk(&mount(engine, "v")).expect("everything reads").text
}

/// Frames in the drive's first slab: where, and their headers, ordered by LSN.
fn frames(drive: &SimDrive) -> Vec<(u64, FrameHeader)> {
    let (_, bytes) = drive.files().into_iter().find(|(name, _)| name == SLAB).expect("a slab");
    let mut found: Vec<(u64, FrameHeader)> = (0..bytes)
        .step_by(BLOCK_BYTES)
        .filter_map(|at| Some((at, FrameHeader::decode(&drive.read_raw(SLAB, at, BLOCK_BYTES)?).ok()?)))
        .collect();
    found.sort_by_key(|(at, header)| (header.first_lsn, *at));
    found
}

/// The power goes: no ring outlives it. What was written to drives has landed.
fn start_again(rig: Rig) -> Rig {
    let world = rig.world.clone();
    drop(rig);
    Rig::open(world, Rings::default(), options()).expect("opens")
}

fn alone(world: &SimWorld, at: usize) -> Arc<Engine> {
    let copy = world.fork(1);
    let drives = vec![Arc::new(copy.drives()[at].clone()) as Arc<dyn Drive>];
    Engine::open_on(drives, options(), foundation(&copy, &Rings::default(), 3)).expect("opens with one drive")
}

/// A frame without ops takes no LSN: that a row ends at the LSN where the next one begins says nothing of it. One that lay on a
/// single copy, which a start could not read, must not continue the chain at a later start: the log has gone on without it.
#[test]
fn a_floor_frame_that_a_start_has_not_found_does_not_lead_a_later_one_off_the_log() {
    let rig = Rig::create(1, 2, options());
    drop(rig.volume("v", 2));
    put(&rig, "a");
    let drives = rig.world.drives();
    // The power goes while it is on its way: one copy has it.
    drives[0].add_fault(Fault::always(FaultKind::LostWrite).within(SLAB, 0..u64::MAX));
    rig.engine.groups().iter().for_each(|group| group.flush_floor_now().expect("a floor"));
    drives[0].clear_faults();
    let (place, ghost) = frames(&drives[1]).pop().expect("frames");
    assert_eq!(ghost.op_count, 0, "the newest frame on d1 is the floor");
    assert!(frames(&drives[0]).iter().all(|(_, header)| header.chain != ghost.chain), "d0 has it, too");

    // That copy does not read where it lies, and the log goes on.
    drives[1].add_fault(Fault::always(FaultKind::ReadError).within(SLAB, place..place + BLOCK_BYTES as u64));
    let rig = start_again(rig);
    put(&rig, "b");
    let expected = text(&rig.engine);
    drives[1].clear_faults();
    let read = drives[1].read_raw(SLAB, place, BLOCK_BYTES).expect("inside the slab");
    assert_eq!(FrameHeader::decode(&read).expect("the ghost").chain, ghost.chain, "nobody has written over it");

    let rig = start_again(rig);
    assert_eq!(text(&rig.engine), expected, "the log went on without the ghost");
    put(&rig, "c");
    let expected = text(&rig.engine);
    drop(rig.engine);
    for at in 0..2 {
        assert_eq!(text(&alone(&rig.world, at)), expected, "with drive {at} only");
    }
}

/// Each frame verifies wherever it lies in its segment. A drive that has written one to the place of another has a bad copy, and
/// not the others, whichever drive is asked first.
#[test]
fn a_frame_in_the_place_of_another_is_mended_and_not_copied() {
    for victim in 0..2 {
        let rig = Rig::create(2, 2, options());
        drop(rig.volume("v", 2));
        ["a", "b", "c", "d"].iter().for_each(|name| put(&rig, name));
        rig.engine.groups().iter().for_each(|group| group.flush_floor_now().expect("a floor"));
        let expected = text(&rig.engine);
        let drive = &rig.world.drives()[victim];
        let with_ops: Vec<_> = frames(drive).into_iter().filter(|(_, header)| header.op_count > 0).collect();
        let [.., (place, right), _, (_, other)] = &with_ops[..] else { panic!("three frames: {with_ops:?}") };
        assert_eq!((right.incarnation, right.pages()), (other.incarnation, other.pages()), "in one segment");
        let (bytes, from) = (right.pages() * BLOCK_BYTES, with_ops[with_ops.len() - 1].0);
        let before = drive.read_raw(SLAB, *place, bytes).expect("inside the slab");
        let foreign = drive.read_raw(SLAB, from, bytes).expect("inside the slab");
        drive.write_raw(SLAB, *place, &foreign);

        let report = rig.engine.scrub(None).expect("scrubs");
        assert!(report.bad_copies > 0 && report.repaired == report.bad_copies && report.lost == 0, "{report:?}");
        let drives = format!("wrong content at drive d{victim}");
        assert!(report.findings.iter().all(|finding| finding.contains(&drives)), "{report:?}");
        for drive in rig.world.drives() {
            assert!(drive.read_raw(SLAB, *place, bytes).expect("inside the slab") == before, "{}", drive.name());
        }
        let report = rig.engine.scrub(None).expect("scrubs");
        assert_eq!(report.bad_copies, 0, "{report:?}");
        drop(rig.engine);
        for at in 0..2 {
            assert_eq!(text(&alone(&rig.world, at)), expected, "with drive {at} only");
        }
    }
}
