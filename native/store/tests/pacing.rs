//! Work in the background beside users: so many bytes a second, in pieces so small that a request never waits long behind one,
//! one at a time; and as fast as it goes when nobody is there. By a clock that only moves when somebody waits.

mod rig;

use holdfast_device::Clock;
use holdfast_device::sim::{Fault, FaultId, FaultKind, SimClock, SimDrive};
use holdfast_store::engine::{Company, Engine, EngineOptions};
use rig::care::{assert_healed, notice, vanish};
use rig::load::Load;
use rig::{Rig, counter, options};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

const SECOND_NS: u64 = 1_000_000_000;
const SCRUB_BYTES_PER_S: u64 = 2 << 20;
const SCRUB_PIECE_BYTES: u64 = 32 << 10;
const CALM_BYTES_PER_S: u64 = 16 << 20;
const CALM_PIECE_BYTES: u64 = 512 << 10;
const HEAL_BYTES_PER_S: u64 = 4 << 20;
const COPY_PIECE_BYTES: u64 = 128 << 10;

/// What was done between two waits.
#[derive(Clone, Copy, Default, Debug)]
struct Turn {
    calls: u64,
    bytes: u64,
}

/// Users who are at work or not. Counts the calls that reach the slabs and the bytes that they move.
struct Watch<'a> {
    engine: &'a Engine,
    clock: SimClock,
    busy: AtomicBool,
    calls: Vec<(SimDrive, FaultId)>,
    seen: Mutex<(u64, u64)>,
    turns: Mutex<Vec<Turn>>,
}

impl<'a> Watch<'a> {
    fn new(rig: &'a Rig, busy: bool) -> Self {
        let on = |drive: SimDrive, slab: &str| {
            let counts = Fault { file: Some(slab.to_owned()), ..Fault::always(FaultKind::Slow { delay_ns: 0 }) };
            let id = drive.add_fault(counts);
            (drive, id)
        };
        let calls = rig.world.drives().into_iter().flat_map(|drive| {
            let slabs = drive.files().into_iter().map(|(name, _)| name).filter(|name| name.starts_with("slab-"));
            slabs.map(|slab| on(drive.clone(), &slab)).collect::<Vec<_>>()
        });
        let (calls, busy) = (calls.collect(), AtomicBool::new(busy));
        let watch = Self { engine: &rig.engine, clock: rig.world.clock(), busy, calls, seen: Mutex::default(), turns: Mutex::default() };
        *watch.seen.lock().expect("no panic under the lock") = watch.count();
        watch
    }

    fn count(&self) -> (u64, u64) {
        let calls = self.calls.iter().map(|(drive, id)| drive.fault_hits(*id)).sum();
        let moved = ["drive_bytes_read", "drive_bytes_written"].map(|name| counter(self.engine, name));
        (calls, moved.iter().sum::<u64>() - counter(self.engine, "drive_bytes_manifest"))
    }

    /// The turns so far, the one that has not ended included.
    fn take(&self) -> Vec<Turn> {
        self.wait(0);
        std::mem::take(&mut self.turns.lock().expect("no panic under the lock"))
    }
}

impl Company for Watch<'_> {
    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    fn wait(&self, ns: u64) {
        let now = self.count();
        let before = std::mem::replace(&mut *self.seen.lock().expect("no panic under the lock"), now);
        let turn = Turn { calls: now.0 - before.0, bytes: now.1 - before.1 };
        self.turns.lock().expect("no panic under the lock").push(turn);
        self.clock.advance(ns);
    }
}

fn bytes_of(turns: &[Turn]) -> u64 {
    turns.iter().map(|turn| turn.bytes).sum()
}

/// A pool with some egroups and tables on all its drives.
fn filled(seed: u64, drives: usize) -> (Rig, Load) {
    let rig = Rig::create(seed, drives, EngineOptions { heal_bytes_per_s: HEAL_BYTES_PER_S, ..options() });
    let mut load = Load::new(&rig, "v", 2, seed);
    for _ in 0..6 {
        load.run(60);
        rig.engine.settle().expect("settled");
    }
    (rig, load)
}

/// Not faster than the rate; and no slower than it either, but for what is put together to one wait.
fn assert_rate(turns: &[Turn], elapsed_ns: u64, bytes_per_s: u64, what: &str) {
    let allowed = bytes_per_s as f64 * elapsed_ns as f64 / SECOND_NS as f64;
    let share = bytes_of(turns) as f64 / allowed;
    assert!((0.9..1.1).contains(&share), "{what}: {share:.3} of what is allowed: {} bytes in {elapsed_ns} ns", bytes_of(turns));
}

#[test]
fn a_scrub_beside_users_reads_two_mebibytes_a_second_in_short_pieces() {
    let (rig, _load) = filled(1, 3);
    for in_background in [false, true] {
        let watch = Watch::new(&rig, true);
        let began_ns = watch.clock.boottime_ns();
        let scrubbed = counter(&rig.engine, "bytes_scrubbed");
        if in_background {
            while rig.engine.care_now(&watch).expect("cared") {}
        } else {
            let report = rig.engine.scrub_beside(None, &watch).expect("scrubbed");
            assert!(report.bad_copies == 0 && report.pages > 0 && report.frames > 0, "{report:?}");
        }
        let scrubbed = counter(&rig.engine, "bytes_scrubbed") - scrubbed;
        let turns = watch.take();
        assert!(scrubbed > 4 << 20, "too little to tell: {scrubbed} bytes");
        for turn in &turns {
            assert!(turn.bytes <= SCRUB_PIECE_BYTES + 8192, "in background {in_background}: {turn:?}");
        }
        // What is long is read in pieces, each after a wait.
        assert!(turns.iter().any(|turn| turn.calls == 1 && turn.bytes == SCRUB_PIECE_BYTES), "no long read");
        assert_rate(&turns, watch.clock.boottime_ns() - began_ns, SCRUB_BYTES_PER_S, "scrub");
    }
}

#[test]
fn a_scrub_alone_is_as_fast_as_it_is_allowed_and_the_next_user_stops_that() {
    let (rig, _load) = filled(2, 3);
    let watch = Watch::new(&rig, false);
    let began_ns = watch.clock.boottime_ns();
    rig.engine.scrub_beside(None, &watch).expect("scrubbed");
    assert_eq!(watch.clock.boottime_ns(), began_ns, "who waits for a scrub gets it at once");
    watch.take();
    // The background's pass keeps to a rate.
    while counter(&rig.engine, "bytes_scrubbed") < 40 << 20 && rig.engine.care_now(&watch).expect("cared") {}
    let turns = watch.take();
    assert!(turns.iter().all(|turn| turn.bytes <= 2 * CALM_PIECE_BYTES), "{turns:?}");
    let elapsed_ns = watch.clock.boottime_ns() - began_ns;
    assert_rate(&turns, elapsed_ns, CALM_BYTES_PER_S, "alone");
    // Somebody comes: the very next piece is a short one.
    rig.world.clock().advance(8 * 24 * 3600 * SECOND_NS);
    rig.engine.pool().heartbeat().expect("a heartbeat");
    watch.take();
    watch.busy.store(true, Ordering::Relaxed);
    rig.engine.care_now(&watch).expect("cared");
    let turns = watch.take();
    assert!(turns.iter().all(|turn| turn.bytes <= SCRUB_PIECE_BYTES + 8192), "{turns:?}");
}

#[test]
fn a_rebuild_beside_users_keeps_to_its_limit_and_reaches_it() {
    let (rig, load) = filled(3, 4);
    vanish(&rig.world.drives()[0]);
    notice(&rig);
    // Logs leave the drive first: those are writes of the log, which are not put off.
    rig.engine.heal_step().expect("healed");
    let watch = Watch::new(&rig, true);
    let (began_ns, healed) = (watch.clock.boottime_ns(), counter(&rig.engine, "bytes_healed"));
    while rig.engine.pool().heal_progress().things_left > 0 {
        rig.engine.care_now(&watch).expect("cared");
    }
    let (turns, healed) = (watch.take(), counter(&rig.engine, "bytes_healed") - healed);
    assert!(healed > 1 << 20, "too little to tell: {healed} bytes");
    let elapsed_ns = watch.clock.boottime_ns() - began_ns;
    for turn in &turns {
        assert!(turn.bytes <= COPY_PIECE_BYTES + 8192, "{turn:?}");
    }
    // What is copied is read and written.
    assert_rate(&turns, elapsed_ns, 2 * HEAL_BYTES_PER_S, "rebuild");
    // The first piece waits for nobody.
    let allowed = HEAL_BYTES_PER_S * elapsed_ns / SECOND_NS + COPY_PIECE_BYTES;
    assert!(healed <= allowed, "{healed} bytes in {elapsed_ns} ns");
    assert_healed(&rig, "beside users");
    load.verify("after the rebuild");
}

#[test]
fn a_rebuild_alone_waits_for_nobody() {
    let (rig, load) = filled(4, 4);
    vanish(&rig.world.drives()[0]);
    notice(&rig);
    let watch = Watch::new(&rig, false);
    let began_ns = watch.clock.boottime_ns();
    let healed = counter(&rig.engine, "bytes_healed");
    rig.engine.care_now(&watch).expect("cared");
    while rig.engine.pool().heal_progress().things_left > 0 {
        rig.engine.care_now(&watch).expect("cared");
    }
    assert!(counter(&rig.engine, "bytes_healed") - healed > 1 << 20);
    let elapsed_ns = watch.clock.boottime_ns() - began_ns;
    assert_eq!(elapsed_ns, 0, "{:?}", watch.take());
    assert_healed(&rig, "alone");
    load.verify("after the rebuild");
}
