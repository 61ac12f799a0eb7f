//! The manifest's two areas: what a start that was cut short in the change from one to the other leaves behind, and the
//! starts that did not know of it.

mod rig;

use holdfast_device::sim::{CrashKind, Fault, FaultKind, SimDrive};
use holdfast_device::{Drive, SimWorld};
use holdfast_format::ROOT_INO;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::manifest::RecordHead;
use holdfast_format::superblock::SUPERBLOCK_BYTES;
use holdfast_store::api::{FileSystem, WriteFlags};
use holdfast_store::engine::Engine;
use holdfast_store::error::{Kind, Result};
use rig::player::mount;
use rig::tree::walk;
use rig::{ROOT, Rig, Rings, foundation, options};
use std::sync::Arc;

/// A start changes nothing more often than this before it is open.
const CHANGES_MAX: u64 = 12;

/// Every start has chance of its own.
fn open(world: &SimWorld, drives: &[usize], seed: u64) -> Result<Arc<Engine>> {
    let all = world.drives();
    let drives = drives.iter().map(|at| Arc::new(all[*at].clone()) as Arc<dyn Drive>).collect();
    Engine::open_on(drives, options(), foundation(world, &Rings::default(), seed))
}

fn put(engine: &Engine, name: &str) {
    let volume = mount(engine, "v");
    let ino = volume.create(&ROOT, ROOT_INO, name.as_bytes(), 0o644).expect("created").ino;
    volume.forget(ino, 1);
    volume.write(&ROOT, ino, 0, name.repeat(5000).as_bytes(), WriteFlags::default()).expect("written");
    engine.flush().expect("durable");
}

fn text(engine: &Engine) -> String {
    walk(&mount(engine, "v")).expect("everything reads").text
}

/// Two drives with a volume of two copies, closed.
fn closed_pool(seed: u64) -> SimWorld {
    let rig = Rig::create(seed, 2, options());
    drop(rig.volume("v", 2));
    put(&rig.engine, "before");
    rig.engine.close().expect("closed");
    rig.world.clone()
}

/// Generation of the header in each area.
fn generations(drive: &SimDrive) -> [u64; 2] {
    let bytes = drive.files().into_iter().find(|(name, _)| name == "manifest").expect("a manifest").1;
    [0, bytes / 2].map(|at| {
        let page = drive.read_raw("manifest", at, BLOCK_BYTES).expect("a page");
        RecordHead::decode(&page).map_or(0, |head| head.generation)
    })
}

fn newest(drive: &SimDrive) -> u64 {
    generations(drive).into_iter().max().unwrap_or(0)
}

/// The pool after a start that was cut short just when one drive, and it alone, had the header of a new generation; which one.
fn begun(seed: u64) -> (SimWorld, usize) {
    let closed = closed_pool(seed);
    // Which of two writes of one call is first is chance.
    let moments = (0..8).flat_map(|chance| (1..CHANGES_MAX).map(move |changes| (chance, changes)));
    let states = moments.map(|(chance, changes)| {
        let world = closed.fork(100 * seed + chance);
        world.end_after(CrashKind::Kill, changes);
        drop(open(&world, &[0, 1], changes));
        world.restore_power();
        world
    });
    let ahead = |world: SimWorld| {
        let [one, other] = [0, 1].map(|at| newest(&world.drives()[at]));
        (one != other).then_some((world, (one < other) as usize))
    };
    states.filter_map(ahead).next().expect("a moment at which the header is on one drive only")
}

#[test]
fn a_drive_with_a_generation_that_nobody_acknowledged_comes_back() {
    let (world, ahead) = begun(1);
    let engine = open(&world, &[1 - ahead], 100).expect("opens without the drive");
    put(&engine, "meanwhile");
    let expected = text(&engine);
    engine.close().expect("closed");
    drop(engine);
    assert_eq!(newest(&world.drives()[0]), newest(&world.drives()[1]), "both name the same generation");
    let engine = open(&world, &[0, 1], 101).expect("opens with both");
    assert_eq!(text(&engine), expected);
    engine.heal().expect("healed");
    assert_eq!(engine.scrub(None).expect("scrubbed").lost, 0);
    engine.close().expect("closed");
    drop(engine);
    for drive in [0, 1] {
        assert_eq!(text(&open(&world.fork(9), &[drive], 300).expect("opens")), expected, "with drive {drive} only");
    }
}

#[test]
fn a_header_that_a_drive_has_lost_is_known_by_its_superblock() {
    let (world, ahead) = begun(2);
    let drive = &world.drives()[ahead];
    let area = generations(drive).iter().position(|generation| *generation == newest(drive)).expect("an area") as u64;
    let bytes = drive.files().into_iter().find(|(name, _)| name == "manifest").expect("a manifest").1;
    let header = area * bytes / 2..area * bytes / 2 + BLOCK_BYTES as u64;
    // The next start does not see what was begun there, and what it writes over it never lands.
    for kind in [FaultKind::ReadError, FaultKind::LostWrite] {
        drive.add_fault(Fault::always(kind).within("manifest", header.clone()));
    }
    let engine = open(&world, &[0, 1], 100).expect("opens");
    put(&engine, "meanwhile");
    let expected = text(&engine);
    engine.close().expect("closed");
    drop(engine);
    drive.clear_faults();
    for start in 0..3 {
        let engine = open(&world, &[0, 1], 200 + start).expect("opens, whatever lies in the area before");
        assert_eq!(text(&engine), expected);
        let report = engine.scrub(None).expect("scrubbed");
        assert_eq!(report.lost, 0, "{:?}", report.findings);
        engine.close().expect("closed");
    }
    // Each of the two has everything.
    for drive in [0, 1] {
        assert_eq!(text(&open(&world.fork(9), &[drive], 300).expect("opens")), expected);
    }
}

/// Both sides went on. That holds though one superblock has lost its newest state: edits follow its header.
#[test]
fn drives_that_were_used_apart_are_refused_whatever_their_superblocks_say() {
    let world = closed_pool(3);
    let drives = world.drives();
    let superblock = drives[0].read_raw("superblock", 0, 2 * SUPERBLOCK_BYTES).expect("a superblock");
    for side in [0, 1] {
        let engine = open(&world, &[side], 100 + side as u64).expect("opens alone");
        put(&engine, if side == 0 { "here" } else { "there" });
        engine.close().expect("closed");
    }
    let refuse = |world: &SimWorld| {
        let before: Vec<u64> = world.drives().iter().map(|drive| drive.image().hash()).collect();
        let Err(error) = open(world, &[0, 1], 200) else { panic!("opened") };
        assert_eq!(error.kind, Kind::Conflict, "{error}");
        assert!(error.message.contains("used apart"), "{error}");
        assert_eq!(world.drives().iter().map(|drive| drive.image().hash()).collect::<Vec<_>>(), before, "drives were changed");
    };
    refuse(&world);
    drives[0].write_raw("superblock", 0, &superblock);
    refuse(&world);
    assert!(text(&open(&world.fork(1), &[0], 300).expect("opens")).contains("here"));
    assert!(text(&open(&world.fork(2), &[1], 300).expect("opens")).contains("there"));
}
