//! The fault matrix's rows of whole drives (lost, too many lost, stale, failing writes), a test or more each, with the outcomes
//! that it demands. Rows of bytes on drives that stay are in `rows_bytes.rs`, row 16 in `isolation.rs`; rows 1, 2, 15 and 16
//! on real mounts in `test/e2e/drive-faults.test.ts`.

mod rig;

use holdfast_device::Rng;
use holdfast_device::sim::{CrashKind, Fault, FaultKind, SimDrive};
use holdfast_store::error::Kind;
use rig::care::{assert_healed, notice, read_what_is_there, restart, restart_without_ring, states, vanish};
use rig::load::Load;
use rig::{Rig, counter, options, volume_create};
use std::collections::BTreeMap;

/// Row 1: one of RF 2 is lost, under load. Reads and writes go on, copies are made anew, and then the next one may go.
#[test]
fn row_01_each_drive_may_be_lost_and_the_next_one_too() {
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

/// Row 1: one of RF 2, one or two of RF 3, in one group.
#[test]
fn row_01_one_or_two_drives_are_lost_and_each_rf_keeps_its_promise() {
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

/// Row 1: with fewer drives than copies writes go on as far as `min_write_copies` allows, and it is told what they lack.
#[test]
fn row_01_what_is_acknowledged_with_fewer_copies_is_told() {
    let rig = Rig::create(40, 3, options());
    let mut load = Load::new(&rig, "v", 3, 40);
    load.run(20);
    rig.engine.flush().expect("flushed");
    let told = |rig: &Rig| rig.engine.status().expect("status").warnings.join("; ");
    assert!(!told(&rig).contains("volume v"), "{}", told(&rig));
    vanish(&rig.world.drives()[0]);
    load.run(20);
    notice(&rig);
    assert!(told(&rig).contains("volume v: new data gets 2 of 3 copies"), "{}", told(&rig));
    let status = rig.engine.status().expect("status");
    assert_eq!((status.drives[0].state.as_str(), status.drives[0].reason.is_empty()), ("out", false));
    assert!(status.events.iter().any(|event| event.what.contains("d0 is out")), "{:?}", status.events);
    // RF 3 needs two copies: with one drive no flush is acknowledged, and that is told, too.
    vanish(&rig.world.drives()[1]);
    load.run(5);
    let refused = rig.engine.groups()[0].flush_now().expect_err("one copy is not enough");
    assert_eq!(refused.kind, Kind::Unavailable);
    assert!(refused.message.contains("add a drive"), "{refused}");
    assert!(told(&rig).contains("volume v: writes wait"), "{}", told(&rig));
    load.verify("reads go on");
}

/// Row 2: two of three drives go before anything of RF 2 was copied. What lay on them only is an error,
/// the rest is served; when they return, though they no longer count, everything is read and healed from them.
#[test]
fn row_02_a_second_loss_makes_errors_and_what_returns_restores_everything() {
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

/// Row 3: away while others wrote. It is no source, and is made whole again without a command.
#[test]
fn row_03_a_drive_that_missed_writes_is_used_anew_and_never_read() {
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

/// Row 3: an older image of itself, put back while nothing ran. It counts for nothing, though its own records agree with each
/// other, and becomes whole by itself.
#[test]
fn row_03_an_old_image_is_recognised_and_never_a_source() {
    for seed in 0..3 {
        let rig = Rig::create(90 + seed, 3, options());
        let mut load = Load::new(&rig, "v", 2, 90 + seed);
        load.run(80);
        rig.engine.settle().expect("settled");
        rig.engine.pool().heartbeat().expect("a heartbeat");
        let at = seed as usize;
        let old = rig.world.drives()[at].image();
        load.run(80);
        rig.engine.settle().expect("settled");
        load.run(10);
        rig.engine.close().expect("closed");
        rig.world.drives()[at].restore(&old);
        let (rig, load) = restart(rig, load, &[]);
        let status = rig.engine.status().expect("status");
        assert_eq!(status.drives[at].state, "stale");
        assert!(status.drives[at].reason.contains("an old image"), "{}", status.drives[at].reason);
        load.verify("an old image is there");
        assert_eq!(counter(&rig.engine, "reads_last_resort"), 0, "it was asked");
        assert_healed(&rig, "an old image is there");
        // What was empty is freed by the next beats; then nothing names what the drive was before.
        (0..3).for_each(|_| notice(&rig));
        assert_healed(&rig, "nothing names the old image");
        assert_eq!(states(&rig), ["active", "active", "active"]);
        vanish(&rig.world.drives()[(at + 1) % 3]);
        load.verify("any other drive may go");
    }
}

/// Row 4: an old image and the loss of the fresh copy. What is newer than the image is an error, never the old content; what
/// is not is read and healed.
#[test]
fn row_04_an_old_image_never_stands_in_for_what_is_newer() {
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
    let report = rig.engine.scrub(None).expect("scrubbed");
    assert!(report.lost > 0 && report.repaired == 0, "healed from the old image: {report:?}");
    assert!(report.findings.iter().any(|what| what.contains("no copy is right")), "{:?}", report.findings);
    let (rig, load) = restart(rig, load, &[]);
    load.verify("the fresh one is back");
    assert_healed(&rig, "all there");
}

/// Row 4: two drives are old at different times, and the only one that knows how things are is lost. What opens says nothing
/// that is not true, and nothing is made of it; the fresh one brings everything back.
#[test]
fn row_04_two_old_images_of_different_times_do_not_make_a_whole() {
    let rig = Rig::create(220, 3, options());
    let mut load = Load::new(&rig, "v", 2, 220);
    let mut old = Vec::new();
    for at in 0..2 {
        load.run(100);
        rig.engine.settle().expect("settled");
        rig.engine.pool().heartbeat().expect("a heartbeat");
        old.push(rig.world.drives()[at].image());
    }
    load.run(100);
    rig.engine.settle().expect("settled");
    rig.engine.close().expect("closed");
    let drives = rig.world.drives();
    (0..2).for_each(|at| drives[at].restore(&old[at]));
    let (rig, load) = restart(rig, load, &[]);
    assert_eq!(states(&rig), ["stale", "stale", "active"]);
    let (right, failed) = read_what_is_there(&load);
    assert!(right > 0 && failed > 0, "{right} blocks read, {failed} did not");
    let repaired = rig.engine.scrub(None).expect("scrubbed").repaired;
    assert_eq!(repaired, 0, "healed from what is old");
    assert_eq!(read_what_is_there(&load).1, failed);
}

/// A pool whose log is being written, on three drives, and one more write that is not flushed.
fn writing(seed: u64) -> (Rig, Load) {
    let rig = Rig::create(seed, 3, options());
    let mut load = Load::new(&rig, "v", 2, seed);
    load.run(60);
    rig.engine.settle().expect("settled");
    load.run(20);
    rig.engine.flush().expect("flushed");
    load.run(20);
    (rig, load)
}

/// The power goes; the rings are lost, and whatever a failed flush left behind with them.
fn cut_power(rig: Rig, load: Load, missing: &[usize]) -> (Rig, Load) {
    rig.world.end_now(CrashKind::Power);
    rig.world.restore_power();
    restart_without_ring(rig, load, missing)
}

fn slabs(kind: FaultKind, drive: &SimDrive) -> Vec<Fault> {
    let files = drive.files().into_iter().filter(|(file, _)| file.starts_with("slab-"));
    files.map(|(file, bytes)| Fault::always(kind).within(&file, 0..bytes)).collect()
}

/// Row 15, reads: another copy answers, and the drive that has many of them is named.
#[test]
fn row_15_a_read_error_is_answered_from_another_copy() {
    for failing in 0..3 {
        let (rig, mut load) = writing(300 + failing as u64);
        rig.engine.settle().expect("settled");
        let drive = rig.world.drives()[failing].clone();
        slabs(FaultKind::ReadError, &drive).into_iter().for_each(|fault| {
            drive.add_fault(fault);
        });
        load.verify("one drive cannot be read");
        assert!(counter(&rig.engine, "read_errors") > 0);
        load.run(10);
        notice(&rig);
        drive.clear_faults();
        load.verify("it can be read again");
        let report = rig.engine.scrub(None).expect("scrubbed");
        assert_eq!(report.lost, 0, "{:?}", report.findings);
    }
}

/// Row 15, writes: the drive is out, what it should have taken is placed elsewhere, and what was acknowledged survives any
/// one more loss.
#[test]
fn row_15_a_failed_write_is_placed_elsewhere_and_its_drive_is_out() {
    let mut struck = 0;
    for failing in 0..3 {
        let (rig, load) = writing(310 + failing as u64);
        let drive = rig.world.drives()[failing].clone();
        slabs(FaultKind::WriteError, &drive).into_iter().for_each(|fault| {
            drive.add_fault(fault);
        });
        // Whichever drives the log's segments lie on: the drain writes to all.
        rig.engine.flush().expect("acknowledged on others");
        rig.engine.settle().expect("settled on others");
        rig.engine.pool().heartbeat().expect("a heartbeat");
        if states(&rig)[failing] == "active" {
            // Nothing came to it: then nothing was asked of it either.
            continue;
        }
        struck += 1;
        assert_eq!(states(&rig)[failing], "out");
        load.verify("acknowledged");
        assert_healed(&rig, "placed elsewhere");
        drive.clear_faults();
        let gone = (failing + 1) % 3;
        let (rig, load) = cut_power(rig, load, &[gone]);
        assert_eq!(states(&rig)[failing], "stale", "it does not count again by itself");
        load.verify("one more is gone");
    }
    assert!(struck > 1, "{struck} drives were written to");
}

/// Row 15, flushes (fsyncgate): a flush that failed once and would now succeed is not believed. The drive is out before
/// anything is acknowledged; what was acknowledged lies on others, whatever the failed flush took back.
#[test]
fn row_15_a_flush_that_failed_is_never_believed() {
    for failing in 0..3 {
        let (rig, load) = writing(320 + failing as u64);
        let drive = rig.world.drives()[failing].clone();
        let fault = drive.add_fault(Fault::nth(FaultKind::FlushError, 1));
        rig.engine.flush().expect("acknowledged by others");
        rig.engine.pool().heartbeat().expect("a heartbeat");
        assert_eq!(drive.fault_hits(fault), 1);
        assert_eq!(states(&rig)[failing], "out", "a flush was believed");
        let (rig, load) = cut_power(rig, load, &[]);
        assert_eq!(states(&rig)[failing], "stale", "it counts again");
        load.verify("after the power cut");
        assert_healed(&rig, "after the power cut");
    }
}

/// Row 15, the last copy: nothing is acknowledged any more, reads go on, and a restart finds out what is there.
#[test]
fn row_15_a_failed_flush_of_the_last_copy_ends_all_acknowledgements() {
    let rig = Rig::create(330, 1, options());
    let mut load = Load::new(&rig, "v", 1, 330);
    load.run(30);
    rig.engine.flush().expect("flushed");
    let durable = load.files.clone();
    load.run(10);
    rig.world.drives()[0].add_fault(Fault::nth(FaultKind::FlushError, 1));
    rig.engine.flush().expect_err("the only copy was not flushed");
    rig.engine.flush().expect_err("and a second flush, which would succeed, is not believed");
    load.verify("reads go on");
    let (rig, load) = cut_power(rig, load, &[]);
    let found = Load { files: durable, volume: load.volume.clone(), rng: load.rng.clone() };
    // What was not acknowledged may be there or not: what was is there, under what was written over it.
    let (mut same, mut changed) = (0, 0);
    for (at, (ino, content)) in &found.files {
        let now = rig::read_all(&found.volume, *ino);
        let newer = &load.files[at].1;
        for (block, before) in content.chunks(4096).enumerate() {
            let now = &now[block * 4096..(block * 4096 + before.len())];
            let after = &newer[block * 4096..(block * 4096 + before.len())];
            assert!(now == before || now == after, "file {at}, block {block}: neither old nor new");
            same += (now == before) as usize;
            changed += (now != before) as usize;
        }
    }
    assert!(same > changed, "{same} as acknowledged, {changed} newer");
    rig.engine.flush().expect("flushes again");
}
