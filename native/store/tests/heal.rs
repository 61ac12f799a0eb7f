//! Drives are lost under load: every read stays right, redundancy comes back, the records still say what is.

mod rig;

use holdfast_device::Rng;
use holdfast_device::sim::{Fault, FaultKind, SimDrive};
use holdfast_store::api::{FileSystem, FsError};
use rig::load::Load;
use rig::{ROOT, Rig, counter, options, volume_create};
use std::collections::BTreeMap;
use std::sync::Arc;

const ENODEV: i32 = 19;
fn vanish(drive: &SimDrive) {
    drive.add_fault(Fault::always(FaultKind::Vanished { errno: ENODEV }));
}

/// A second passes: what is idle is noticed, too.
fn notice(rig: &Rig) {
    rig.engine.flush().expect("flushed on the drives that are left");
    rig.engine.pool().heartbeat().expect("a heartbeat on the drives that are left");
}

fn assert_sound(rig: &Rig, when: &str) {
    let report = rig.engine.fsck().expect("checked");
    assert!(report.problems.is_empty(), "{when}: {:?}", report.problems);
}

/// Heals, and makes sure that any one of the drives that are left could go, too.
fn assert_healed(rig: &Rig, when: &str) {
    rig.engine.heal().expect("healed");
    let progress = rig.engine.pool().heal_progress();
    assert!(progress.stuck.is_empty(), "{when}: {:?}", progress.stuck);
    assert_eq!((progress.things_left, progress.things_lost), (0, 0), "{when}");
    assert_sound(rig, when);
}

#[test]
fn each_drive_may_be_lost_and_the_next_one_too() {
    for lost in 0..4 {
        let rig = Rig::create(10 + lost as u64, 4, options());
        let mut load = Load::new(&rig, "v", 2, lost as u64);
        load.run(60);
        rig.engine.settle().expect("settled");
        load.run(60);
        rig.engine.flush().expect("flushed");
        load.run(10);
        let drives = rig.world.drives();
        vanish(&drives[lost]);
        load.run(30);
        notice(&rig);
        load.verify("degraded");
        assert_healed(&rig, "after the first loss");
        assert!(counter(&rig.engine, "copies_healed") > 0);
        load.verify("healed");
        // Each of the three that are left could go: the data is on two of them again.
        let next = (lost + 1) % 4;
        vanish(&drives[next]);
        load.verify("a second drive gone");
        load.run(30);
        notice(&rig);
        assert_healed(&rig, "after the second loss");
        load.verify("healed again");
        let world = rig.world.clone();
        drop(load);
        drop(rig);
        world.drives()[lost].clear_faults();
        world.drives()[next].clear_faults();
    }
}

#[test]
fn groups_of_mixed_rf_keep_their_own_promises() {
    for lost in 0..4 {
        let rig = Rig::create(30 + lost as u64, 4, options());
        let mut two = Load::new(&rig, "two", 2, 1);
        rig.engine.volume_create(&volume_create("three", 3, Some("two"))).expect("a volume");
        let mut three = Load { volume: rig.mount("three"), files: BTreeMap::new(), rng: Rng::from_seed(2) };
        for _ in 0..4 {
            two.run(20);
            three.run(20);
            rig.engine.flush().expect("flushed");
        }
        rig.engine.settle().expect("settled");
        two.run(20);
        three.run(20);
        let drives = rig.world.drives();
        vanish(&drives[lost]);
        notice(&rig);
        assert_healed(&rig, "one lost");
        two.verify("two copies");
        three.verify("three copies");
        // RF 2 survives one more, RF 3 two more.
        vanish(&drives[(lost + 1) % 4]);
        two.verify("two copies, one more lost");
        three.verify("three copies, one more lost");
        vanish(&drives[(lost + 2) % 4]);
        three.verify("three copies, two more lost");
    }
}

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

/// The same pool again, on the drives of the world.
fn restart(rig: Rig, load: Load, missing: &[usize]) -> (Rig, Load) {
    let Rig { world, rings, engine } = rig;
    let Load { volume, files, rng } = load;
    drop(volume);
    drop(engine);
    let drives = world.drives().into_iter().enumerate().filter(|(at, _)| !missing.contains(at));
    let drives = drives.map(|(_, drive)| Arc::new(drive) as Arc<dyn holdfast_device::Drive>).collect();
    let foundation = rig::foundation(&world, &rings, 77);
    let engine = holdfast_store::engine::Engine::open_on(drives, options(), foundation).expect("opens");
    let rig = Rig { world, rings, engine };
    let volume = rig.mount("v");
    (rig, Load { volume, files, rng })
}

fn states(rig: &Rig) -> Vec<String> {
    rig.engine.status().expect("status").drives.into_iter().map(|drive| drive.state).collect()
}

#[test]
fn a_drive_that_comes_back_stale_is_used_anew_and_never_read() {
    for lost in 0..2 {
        let rig = Rig::create(70 + lost as u64, 2, options());
        let mut load = Load::new(&rig, "v", 2, 70);
        load.run(60);
        rig.engine.settle().expect("settled");
        let drive = rig.world.drives()[lost].clone();
        vanish(&drive);
        load.run(60);
        notice(&rig);
        load.verify("one drive");
        drive.clear_faults();
        let (rig, mut load) = restart(rig, load, &[]);
        assert_eq!(states(&rig)[lost], "stale");
        load.verify("back, not a source");
        assert_healed(&rig, "back");
        assert_eq!(states(&rig), ["active", "active"]);
        load.run(30);
        rig.engine.settle().expect("settled");
        // The one that stayed goes: everything is on the one that came back.
        vanish(&rig.world.drives()[1 - lost]);
        load.verify("only the drive that came back");
        rig.world.drives()[1 - lost].clear_faults();
        let (rig, load) = restart(rig, load, &[]);
        load.verify("opened again");
        assert_healed(&rig, "opened again");
        assert_eq!(states(&rig).iter().filter(|state| *state == "active").count(), 2);
    }
}

/// Reads every block: what can be read is right. Gives how many could and could not.
fn read_what_is_there(load: &Load) -> (usize, usize) {
    let (mut right, mut failed) = (0, 0);
    for (ino, content) in load.files.values() {
        for (at, expected) in content.chunks(4096).enumerate() {
            let mut block = vec![0; expected.len()];
            match load.volume.read(&ROOT, *ino, at as u64 * 4096, &mut block) {
                Ok(got) => {
                    assert!(got == expected.len() && block == expected, "inode {ino}, block {at}: wrong bytes");
                    right += 1;
                }
                Err(error) => {
                    assert!(matches!(error, FsError::Store(_)), "inode {ino}, block {at}: {error:?}");
                    failed += 1;
                }
            }
        }
    }
    (right, failed)
}

/// Row 2 of the fault matrix: two of three drives go before anything of RF 2 was copied. What lay on them only is an error,
/// the rest is served; when they return, though they no longer count, everything is read and healed from them.
#[test]
fn a_second_loss_makes_errors_and_what_returns_restores_everything() {
    for seed in 0..3 {
        let rig = Rig::create(200 + seed, 3, options());
        let mut load = Load::new(&rig, "v", 2, 200 + seed);
        load.run(200);
        rig.engine.settle().expect("settled");
        rig.engine.close().expect("closed");
        let (rig, load) = restart(rig, load, &[]);
        let drives = rig.world.drives();
        let lost = [(seed as usize) % 3, (seed as usize + 1) % 3];
        for at in lost {
            vanish(&drives[at]);
            rig.engine.pool().heartbeat().expect("one drive is left");
        }
        assert_eq!(lost.map(|at| states(&rig)[at].clone()), ["out", "out"]);
        let (right, failed) = read_what_is_there(&load);
        assert!(right > 0 && failed > 0, "{right} blocks read, {failed} did not");
        // Nothing can be healed now, and nothing is given up.
        let _tables_may_be_gone = rig.engine.heal();
        assert!(rig.engine.pool().heal_progress().things_lost > 0);
        assert_eq!(read_what_is_there(&load).1, failed);
        for at in lost {
            drives[at].clear_faults();
        }
        let (rig, mut load) = restart(rig, load, &[]);
        assert_eq!(lost.map(|at| states(&rig)[at].clone()), ["stale", "stale"]);
        load.verify("back, the last that have it");
        assert!(counter(&rig.engine, "reads_last_resort") > 0);
        assert_healed(&rig, "healed from what came back");
        assert_eq!(states(&rig), ["active", "active", "active"]);
        load.run(20);
        rig.engine.settle().expect("settled");
        assert_healed(&rig, "in use again");
        vanish(&drives[2 - seed as usize]);
        load.verify("any one drive may go");
    }
}

/// Row 4: an old image and the loss of the fresh copy. What is newer than the image is an error, never the old content; what
/// is not is read and healed.
#[test]
fn an_old_image_never_stands_in_for_what_is_newer() {
    let rig = Rig::create(210, 3, options());
    let mut load = Load::new(&rig, "v", 2, 210);
    load.run(150);
    rig.engine.settle().expect("settled");
    rig.engine.pool().heartbeat().expect("a heartbeat");
    let old = rig.world.drives()[0].image();
    load.run(150);
    rig.engine.settle().expect("settled");
    rig.engine.close().expect("closed");
    rig.world.drives()[0].restore(&old);
    // Only the third one knows how things are.
    let (rig, load) = restart(rig, load, &[1]);
    assert_eq!(states(&rig)[0], "stale");
    let (right, failed) = read_what_is_there(&load);
    assert!(right > 0 && failed > 0, "{right} blocks read, {failed} did not");
    rig.engine.heal().expect("healed what can be");
    assert_eq!(read_what_is_there(&load), (right, failed), "nothing came of the old image but what it has right");
    let (rig, load) = restart(rig, load, &[]);
    load.verify("the fresh one is back");
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

/// Flips a bit in every block of a drive's slabs.
fn rot(drive: &SimDrive) -> u64 {
    let mut flips = 0;
    for (file, bytes) in drive.files().into_iter().filter(|(file, _)| file.starts_with("slab-")) {
        for block in 0..bytes / 4096 {
            drive.flip_bit(&file, block * 4096 + block % 160, (block % 8) as u8);
            flips += 1;
        }
    }
    flips
}

#[test]
fn scrub_repairs_every_block_of_a_rotten_copy() {
    for rotten in 0..2 {
        let rig = Rig::create(100 + rotten as u64, 2, options());
        let mut load = Load::new(&rig, "v", 2, 100);
        load.run(100);
        rig.engine.settle().expect("settled");
        load.run(60);
        rig.engine.settle().expect("settled");
        load.run(30);
        notice(&rig);
        let clean = rig.engine.scrub(None).expect("scrubbed");
        assert_eq!((clean.bad_copies, clean.lost), (0, 0), "{:?}", clean.findings);
        assert!(clean.tables > 0 && clean.pages > 0 && clean.footers > 0 && clean.frames > 0, "{clean:?}");
        let drives = rig.world.drives();
        assert!(rot(&drives[rotten]) > 0);
        let report = rig.engine.scrub(None).expect("scrubbed");
        assert!(report.bad_copies > 0);
        assert_eq!((report.repaired, report.lost), (report.bad_copies, 0), "{:?}", report.findings);
        assert!(report.findings.iter().all(|what| what.contains(&format!("at drive d{rotten}"))));
        let again = rig.engine.scrub(None).expect("scrubbed");
        assert_eq!((again.bad_copies, again.lost), (0, 0), "{:?}", again.findings);
        // What was rotten is all there is, now and after a restart.
        let (rig, load) = restart_without_ring(rig, load, &[1 - rotten]);
        load.verify("only the copy that was rotten");
        assert_sound(&rig, "only the copy that was rotten");
    }
}

/// Power is cut: what is in the log has to come from the drives.
fn restart_without_ring(rig: Rig, load: Load, missing: &[usize]) -> (Rig, Load) {
    let rig = Rig { rings: rig::Rings::default(), ..rig };
    restart(rig, load, missing)
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
