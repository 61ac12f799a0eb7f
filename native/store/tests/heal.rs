//! Drives are lost under load: every read stays right, redundancy comes back, the records still say what is.

mod rig;

use holdfast_device::sim::{Fault, FaultKind};
use rig::care::{assert_healed, notice, restart, rot, states, vanish};
use rig::load::Load;
use rig::{Rig, counter, options};
use std::sync::Arc;

#[test]
fn healing_goes_on_after_a_kill() {
    let rig = Rig::create(50, 4, options());
    let mut load = Load::new(&rig, "v", 2, 50);
    load.run(600);
    rig.engine.flush().expect("flushed");
    let drive = rig.world.drives()[1].clone();
    vanish(&drive);
    load.run(5);
    notice(&rig);
    assert!(rig.engine.heal_step().expect("a step"));
    let done = counter(&rig.engine, "copies_healed");
    assert!(done > 0 && rig.engine.pool().heal_progress().things_left > 0, "a part of it");
    let Rig { world, rings, engine } = rig;
    let Load { volume, files, rng } = load;
    drop(volume);
    drop(engine);
    let others = world.drives().into_iter().enumerate().filter(|(at, _)| *at != 1);
    let others = others.map(|(_, drive)| Arc::new(drive) as Arc<dyn holdfast_device::Drive>).collect();
    let engine =
        holdfast_store::engine::Engine::open_on(others, options(), rig::foundation(&world, &rings, 7))
            .expect("opens");
    let rig = Rig { world, rings, engine };
    let volume = rig.mount("v");
    let load = Load { volume, files, rng };
    load.verify("after the kill");
    assert_healed(&rig, "after the kill");
    vanish(&rig.world.drives()[2]);
    load.verify("one more lost");
}

/// Nothing of a step is named before its flush: whatever the drive kept of it does not count (I-8).
#[test]
fn a_drive_that_fails_the_flush_of_new_copies_is_out_and_they_are_made_elsewhere() {
    let rig = Rig::create(55, 5, options());
    let mut load = Load::new(&rig, "v", 2, 55);
    load.run(200);
    rig.engine.settle().expect("settled");
    let drives = rig.world.drives();
    vanish(&drives[1]);
    notice(&rig);
    // No manifest lies on it: what it flushes are copies.
    let fault = drives[4].add_fault(Fault::nth(FaultKind::FlushError, 1));
    while drives[4].fault_hits(fault) == 0 {
        assert!(rig.engine.heal_step().expect("a step"), "some copies come to every drive");
    }
    assert_eq!(states(&rig)[4], "out");
    assert_healed(&rig, "elsewhere");
    load.verify("two drives less");
    vanish(&drives[3]);
    load.verify("and one more");
}

#[test]
fn a_missing_drive_is_waited_for_and_may_come_back() {
    let rig = Rig::create(60, 3, options());
    let mut load = Load::new(&rig, "v", 2, 60);
    load.run(80);
    rig.engine.settle().expect("settled");
    let Rig { world, rings, engine } = rig;
    let Load { volume, files, rng } = load;
    drop(volume);
    engine.close().expect("closed");
    drop(engine);
    let open = |missing: Option<usize>| {
        let drives = world.drives().into_iter().enumerate().filter(|(at, _)| Some(*at) != missing);
        let drives = drives.map(|(_, drive)| Arc::new(drive) as Arc<dyn holdfast_device::Drive>).collect();
        let foundation = rig::foundation(&world, &rings, 8);
        let engine = holdfast_store::engine::Engine::open_on(drives, options(), foundation).expect("opens");
        Rig { world: world.clone(), rings: rings.clone(), engine }
    };
    let rig = open(Some(0));
    rig.engine.heal().expect("nothing is due");
    assert_eq!(counter(&rig.engine, "copies_healed"), 0, "a missing drive is waited for");
    world.clock().advance(301_000_000_000);
    assert_healed(&rig, "the grace is over");
    assert!(counter(&rig.engine, "copies_healed") > 0);
    let load = Load { volume: rig.mount("v"), files, rng };
    load.verify("healed");
    let Load { volume, files, rng } = load;
    drop(volume);
    rig.engine.close().expect("closed");
    drop(rig);
    // The drive comes back: what was moved away from it is not missed.
    let rig = open(None);
    let mut load = Load { volume: rig.mount("v"), files, rng };
    load.verify("all there");
    load.run(40);
    rig.engine.settle().expect("settled");
    load.verify("written on");
    assert_healed(&rig, "all there");
}

#[test]
fn a_drive_that_is_exchanged_under_load_is_out_and_nothing_is_lost() {
    // Zeroes, an old image of itself, another drive's image.
    for kind in 0..3 {
        let rig = Rig::create(80 + kind, 3, options());
        let mut load = Load::new(&rig, "v", 2, 80 + kind);
        let drives = rig.world.drives();
        load.run(60);
        rig.engine.settle().expect("settled");
        let old = drives[1].image();
        load.run(60);
        notice(&rig);
        rig.engine.settle().expect("settled");
        load.run(5);
        match kind {
            0 => {
                for (file, bytes) in drives[1].files() {
                    drives[1].write_raw(&file, 0, &vec![0; bytes as usize]);
                }
            }
            1 => drives[1].restore(&old),
            _ => drives[1].restore(&drives[0].image()),
        }
        load.verify("exchanged, not noticed yet");
        notice(&rig);
        assert_eq!(states(&rig)[1], "out", "{kind}: {:?}", rig.engine.status().expect("status").warnings);
        load.run(20);
        load.verify("noticed");
        assert_healed(&rig, "exchanged");
        vanish(&drives[0]);
        load.verify("one more lost");
    }
}

fn new_drive(rig: &Rig, name: &str, bytes: u64) -> holdfast_store::placement::PoolDrive {
    let drive = rig.world.add_drive(name, bytes * 2);
    holdfast_store::placement::PoolDrive { drive: Arc::new(drive), bytes: Some(bytes), domain: String::new() }
}

#[test]
fn drives_are_added_emptied_and_replaced() {
    let rig = Rig::create(90, 2, options());
    let mut load = Load::new(&rig, "v", 2, 90);
    load.run(100);
    rig.engine.flush().expect("flushed");
    let error = rig.engine.remove_drive("d0").expect_err("nowhere to go");
    assert!(error.message.contains("add a drive first"), "{error}");
    rig.engine.add_drive_on(new_drive(&rig, "d2", rig::DRIVE_BYTES)).expect("added");
    let again = holdfast_store::placement::PoolDrive {
        drive: Arc::new(rig.world.drives()[2].clone()),
        bytes: None,
        domain: String::new(),
    };
    let error = rig.engine.add_drive_on(again).expect_err("twice");
    assert!(error.message.contains("already"), "{error}");
    rig.engine.remove_drive("d0").expect("may go");
    load.run(20);
    assert_healed(&rig, "d0 removed");
    load.verify("d0 removed");
    let names = |rig: &Rig| -> Vec<String> {
        rig.engine.status().expect("status").drives.into_iter().map(|drive| drive.path).collect()
    };
    assert_eq!(names(&rig), ["d1", "d2"]);
    assert!(rig.world.drives()[0].files().is_empty(), "nothing is left on it");
    let error = rig
        .engine
        .replace_drive_on("d1", new_drive(&rig, "small", rig::DRIVE_BYTES / 2))
        .expect_err("smaller");
    assert!(error.message.contains("MiB"), "{error}");
    rig.engine.replace_drive_on("d1", new_drive(&rig, "d3", rig::DRIVE_BYTES)).expect("replaced");
    assert_healed(&rig, "d1 replaced");
    load.run(20);
    load.verify("d1 replaced");
    assert_eq!(names(&rig), ["d2", "d3"]);
    let (rig, load) = restart(rig, load, &[0, 1, 3]);
    load.verify("opened again");
    assert_healed(&rig, "opened again");
    assert_eq!(names(&rig), ["d2", "d3"]);
}

#[test]
fn scrub_reports_what_no_copy_has_right() {
    let rig = Rig::create(110, 2, options());
    let mut load = Load::new(&rig, "v", 2, 110);
    load.run(60);
    rig.engine.settle().expect("settled");
    let drives = rig.world.drives();
    drives.iter().for_each(|drive| {
        rot(drive);
    });
    let report = rig.engine.scrub(None).expect("scrubbed");
    assert!(report.lost > 0 && report.repaired == 0, "nothing is healed from a wrong copy");
    assert!(report.findings.iter().any(|what| what.contains("no copy is right")), "{:?}", report.findings);
    let missing = rig.engine.scrub(Some("w")).expect_err("no such volume");
    assert!(missing.message.contains("no volume w"), "{missing}");
}

#[test]
fn the_background_scrub_goes_on_after_a_restart_and_passes_once_a_day() {
    let rig = Rig::create(120, 2, options());
    let mut load = Load::new(&rig, "v", 2, 120);
    load.run(200);
    rig.engine.settle().expect("settled");
    let mut steps = 0;
    while rig.engine.scrub_background_step().expect("a step").is_some() {
        steps += 1;
    }
    let progress = rig.engine.scrub_progress();
    assert!(steps > 3 && !progress.running && progress.pass == 1);
    let (rig, load) = restart(rig, load, &[]);
    assert!(rig.engine.scrub_background_step().expect("not due").is_none());
    assert_eq!(rig.engine.scrub_progress().pass, 1);
    rig.world.clock().advance(86_400_000_000_000);
    rot(&rig.world.drives()[0]);
    while rig.engine.scrub_background_step().expect("a step").is_some() {}
    let progress = rig.engine.scrub_progress();
    assert!(progress.pass == 2 && progress.repaired > 0 && progress.lost == 0, "{progress:?}");
    vanish(&rig.world.drives()[1]);
    load.verify("only the copy that was rotten");
}
