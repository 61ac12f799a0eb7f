//! Drives that are slow, fail reads or are gone: reads stay right and quick, and the drive is set aside within seconds.

mod rig;

use holdfast_device::{Clock, Drive};
use holdfast_device::sim::{Fault, FaultKind, SimDrive, Trigger};
use rig::load::Load;
use rig::{Rig, counter, options};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

fn slow(drive: &SimDrive, delay_ns: u64) {
    drive.add_fault(Fault::always(FaultKind::Slow { delay_ns }));
}

/// Seconds pass, with a heartbeat each.
fn seconds(rig: &Rig, count: usize) {
    for _ in 0..count {
        rig.world.clock().advance(SECOND);
        rig.engine.pool().heartbeat().expect("a heartbeat");
    }
}

fn state(rig: &Rig, at: usize) -> (String, String) {
    let drive = rig.engine.status().expect("status").drives.swap_remove(at);
    (drive.state, drive.reason)
}

fn free_bytes(rig: &Rig, at: usize) -> u64 {
    rig.engine.status().expect("status").drives[at].free_bytes
}

/// A pool with data in egroups on all its drives, each taking a millisecond a call.
fn filled(seed: u64, drives: usize) -> (Rig, Load) {
    let rig = Rig::create(seed, drives, options());
    rig.world.drives().iter().for_each(|drive| slow(drive, MS));
    let mut load = Load::new(&rig, "v", 2, seed);
    load.run(80);
    rig.engine.settle().expect("settled");
    (rig, load)
}

#[test]
fn row_16_reads_of_a_slow_drive_are_hedged_and_stay_quick() {
    let (rig, load) = filled(1, 3);
    load.verify("before");
    let clock = rig.world.clock();
    let healthy = {
        let began = clock.boottime_ns();
        load.verify("healthy");
        clock.boottime_ns() - began
    };
    slow(&rig.world.drives()[1], 2 * SECOND);
    let began = clock.boottime_ns();
    load.verify("one drive answers after two seconds");
    let hedged = clock.boottime_ns() - began;
    assert!(counter(&rig.engine, "reads_hedged") > 0 && counter(&rig.engine, "hedges_won") > 0);
    // One read in a while finds out that the drive is still late; all others ask another copy first.
    assert!(hedged < healthy + 100 * MS, "{hedged} ns against {healthy} ns");
}

#[test]
fn row_16_a_drive_that_stays_slow_is_spared_within_ten_seconds_and_used_again_later() {
    let (rig, mut load) = filled(2, 4);
    seconds(&rig, 3);
    assert_eq!(state(&rig, 1).0, "active");
    let drive = rig.world.drives()[1].clone();
    drive.clear_faults();
    slow(&drive, 300 * MS);
    let began = rig.world.clock().boottime_ns();
    while state(&rig, 1).0 == "active" {
        seconds(&rig, 1);
        load.run(2);
        rig.engine.flush().expect("writes go on");
        assert!(rig.world.clock().boottime_ns() - began < 10 * SECOND, "spared within ten seconds");
    }
    let (now, reason) = state(&rig, 1);
    assert_eq!(now, "slow");
    assert!(reason.contains("the others' median"), "{reason}");
    let status = rig.engine.status().expect("status");
    assert!(status.drives[1].since_s > 0);
    assert!(status.events.iter().any(|event| event.what.contains("d1 is slow")), "{:?}", status.events);
    assert!(status.warnings.iter().any(|warning| warning.contains("d1 is slow")), "{:?}", status.warnings);
    // The log leaves it, nothing new comes to it, its copies still count.
    rig.engine.heal().expect("logs moved");
    let (free, copied) = (free_bytes(&rig, 1), counter(&rig.engine, "copies_healed"));
    load.run(60);
    rig.engine.settle().expect("settled");
    assert!(free_bytes(&rig, 1) >= free, "nothing new came to it");
    assert_eq!(counter(&rig.engine, "copies_healed"), copied, "its copies count");
    load.verify("spared");
    let began = rig.world.clock().boottime_ns();
    load.run(20);
    rig.engine.flush().expect("flushed");
    assert!(rig.world.clock().boottime_ns() - began < 200 * MS, "no flush waits for it");
    drive.clear_faults();
    slow(&drive, MS);
    seconds(&rig, 10);
    assert_eq!(state(&rig, 1).0, "slow", "not at once");
    seconds(&rig, 80);
    assert_eq!(state(&rig, 1).0, "active");
    load.verify("used again");
}

#[test]
fn row_16_with_too_few_others_a_slow_drive_still_takes_its_copies() {
    let (rig, mut load) = filled(3, 2);
    slow(&rig.world.drives()[1], 300 * MS);
    seconds(&rig, 8);
    assert_eq!(state(&rig, 1).0, "slow");
    load.run(40);
    rig.engine.settle().expect("settled");
    assert!(rig.engine.pool().heal_progress().stuck.is_empty());
    // Both copies of everything are there: the good one may go.
    rig.world.drives()[0].add_fault(Fault::always(FaultKind::Vanished { errno: 19 }));
    load.verify("only the slow one is left");
}

#[test]
fn equally_slow_drives_are_all_good() {
    let (rig, mut load) = filled(4, 3);
    rig.world.drives().iter().for_each(|drive| slow(drive, 300 * MS));
    load.run(10);
    seconds(&rig, 12);
    assert!((0..3).all(|at| state(&rig, at).0 == "active"));
}

#[test]
fn repeated_read_errors_make_a_drive_failing_and_its_content_is_copied_elsewhere() {
    let (rig, mut load) = filled(5, 4);
    let drive = rig.world.drives()[2].clone();
    let errors = Fault { trigger: Trigger::Chance { numerator: 1, denominator: 2 }, ..Fault::always(FaultKind::ReadError) };
    drive.add_fault(errors);
    let began = rig.world.clock().boottime_ns();
    while state(&rig, 2).0 == "active" {
        load.verify("bad sectors");
        seconds(&rig, 1);
        assert!(rig.world.clock().boottime_ns() - began < 10 * SECOND, "failing within ten seconds");
    }
    let (now, reason) = state(&rig, 2);
    assert_eq!((now.as_str(), reason.contains("read errors")), ("failing", true), "{reason}");
    load.run(20);
    rig.engine.heal().expect("copied elsewhere");
    assert!(rig.engine.pool().heal_progress().stuck.is_empty());
    assert!(counter(&rig.engine, "copies_healed") > 0);
    load.verify("copied elsewhere");
    // It and one more go: everything is on the other three twice.
    drive.add_fault(Fault::always(FaultKind::Vanished { errno: 19 }));
    rig.world.drives()[0].add_fault(Fault::always(FaultKind::Vanished { errno: 19 }));
    load.verify("it and another one gone");
}

#[test]
fn one_bad_sector_is_written_again_and_no_reason_to_give_up_a_drive() {
    let (rig, load) = filled(6, 3);
    let repairs = counter(&rig.engine, "repairs");
    for drive in rig.world.drives() {
        drive.add_fault(Fault::nth(FaultKind::ReadError, 3));
    }
    load.verify("a bad sector on each");
    assert!(counter(&rig.engine, "repairs") > repairs, "mended where it was found");
    seconds(&rig, 5);
    assert!((0..3).all(|at| state(&rig, at).0 == "active"));
}

#[test]
fn a_drive_that_is_gone_is_out_with_the_first_read_that_says_so() {
    // ENODEV: unplugged; ENOTCONN: its FUSE server died; ESTALE: its network server did; ENXIO: its loop device is gone.
    for (seed, errno) in [(10, 19), (11, 107), (12, 116), (13, 6)] {
        let (rig, load) = filled(seed, 3);
        rig.world.drives()[1].add_fault(Fault::always(FaultKind::Vanished { errno }));
        load.verify("one is gone");
        let (now, reason) = state(&rig, 1);
        assert_eq!(now, "out", "errno {errno}");
        assert!(reason.contains("reading"), "{reason}");
        let events = rig.engine.status().expect("status").events;
        assert!(events.iter().any(|event| event.what.contains("d1 is out")), "{events:?}");
        let before = rig.engine.pool().heal_progress();
        assert_eq!((before.things_left, before.things_single), (0, 0), "not looked at yet");
        rig.engine.heal_step().expect("a step");
        rig.engine.heal().expect("healed");
        assert_eq!(rig.engine.pool().heal_progress().things_single, 0);
        load.verify("healed");
    }
}

#[test]
fn what_is_at_risk_is_counted() {
    let rig = Rig::create(20, 3, options());
    let mut load = Load::new(&rig, "v", 2, 20);
    load.run(700);
    rig.engine.settle().expect("settled");
    rig.world.drives()[0].add_fault(Fault::always(FaultKind::Vanished { errno: 19 }));
    load.run(3);
    rig.engine.flush().expect("flushed");
    rig.engine.pool().heartbeat().expect("noticed");
    assert!(rig.engine.heal_step().expect("a step"));
    let progress = rig.engine.pool().heal_progress();
    assert!(progress.things_single > 0 && progress.bytes_single > 0, "{progress:?}");
    assert!(progress.bytes_single <= progress.bytes_left);
    rig.engine.heal().expect("healed");
    let progress = rig.engine.pool().heal_progress();
    assert_eq!((progress.things_single, progress.bytes_single), (0, 0));
    load.verify("healed");
}

/// Somebody put another drive's content there, and before the next heartbeat the log needs room that the drive seems to have.
#[test]
fn a_drive_that_was_exchanged_and_cannot_make_room_is_no_full_pool() {
    let rig = Rig::create(9, 3, options());
    let mut load = Load::new(&rig, "v", 3, 9);
    load.run(3);
    rig.engine.flush().expect("durable");
    let drive = rig.world.drives().remove(2);
    let other = Rig::create(10, 2, options());
    let foreign = other.world.drives().remove(0);
    // The name of the slab that is made next is taken there.
    let slabs = |drive: &SimDrive| -> Vec<(String, u64)> {
        drive.files().into_iter().filter(|(name, _)| name.starts_with("slab-")).collect()
    };
    let (before, bytes) = (slabs(&drive).len(), slabs(&drive)[0].1);
    for at in slabs(&foreign).len()..before + 1 {
        foreign.create(&format!("slab-{at:06}"), bytes).expect("created");
    }
    drive.restore(&foreign.image());
    while slabs(&rig.world.drives()[0]).len() == before {
        load.run(100);
        rig.engine.flush().expect("durable on the drives that are left");
    }
    assert_eq!(state(&rig, 2).0, "out");
    load.verify("after the exchange");
}
