//! A group is given to another site: from one moment on nobody changes it here any more, whatever happens, and not before.

mod rig;

use holdfast_device::sim::{Fault, FaultKind};
use holdfast_format::ROOT_INO;
use holdfast_store::api::{FileSystem, FsError, WriteFlags};
use holdfast_store::engine::{Engine, VolumeChange};
use holdfast_store::error::Kind;
use holdfast_store::volume::Volume;
use rig::{ROOT, Rig, options};
use std::time::Duration;

const ENODEV: i32 = 19;
const LIMIT: Duration = Duration::from_secs(60);

fn write(volume: &Volume, name: &str) -> Result<(), FsError> {
    let made = volume.create(&ROOT, ROOT_INO, name.as_bytes(), 0o644)?;
    volume.write(&ROOT, made.ino, 0, b"content", WriteFlags::default())
}

fn refusal(result: Result<(), FsError>) -> Kind {
    match result.expect_err("it is refused") {
        FsError::Store(error) => error.kind,
        other => panic!("{other:?}"),
    }
}

/// The gate closed, and the last recovery point cut.
fn shut(engine: &Engine) -> u64 {
    engine.gate_close("v", LIMIT).expect("it was open");
    engine.gate_seal("v").expect("it was closed");
    engine.replica_cut("v").expect("cut").lsn
}

#[test]
fn what_was_given_takes_no_changes_after_a_kill_and_a_power_cut_too_until_it_is_taken_back() {
    let mut rig = Rig::create(1, 2, options());
    let volume = rig.volume("v", 2);
    write(&volume, "before").expect("an owner's");
    let (uuid, lineage) = rig.engine.replica_identity("v").expect("told");
    let last = shut(&rig.engine);
    rig.engine.replica_relinquish("v", last).expect("given");
    rig.engine.replica_relinquish("v", last).expect("it is already");
    let mut volume = volume;
    for round in 0..3 {
        assert_eq!(refusal(write(&volume, "after")), Kind::Fenced);
        assert_eq!(rig.engine.snapshot_create("v", "late", None).map(|_| ()).expect_err("refused").kind, Kind::Fenced);
        assert_eq!(rig.engine.gate_close("v", LIMIT).expect_err("given").kind, Kind::Conflict);
        let found = volume.lookup(ROOT_INO, b"before").expect("it can be read");
        let mut bytes = [0; 7];
        volume.read(&ROOT, found.ino, 0, &mut bytes).expect("read");
        assert_eq!(&bytes, b"content");
        volume.forget(found.ino, 1);
        let (send, receive) = std::sync::mpsc::channel();
        volume.fsync(&ROOT, found.ino, Box::new(move |done| send.send(done.is_ok()).expect("somebody listens")));
        assert_eq!(receive.recv(), Ok(true), "all of it is durable");
        let state = rig.engine.replica_state("v").expect("told").expect("it has a role");
        assert!(state.is_given && !state.is_replica);
        assert_eq!((state.source, state.lineage, state.lsn), (uuid, lineage, last));
        // Whoever lacks something of it can still be sent that.
        let cut = rig.engine.replica_cut("v").expect("cut").lsn;
        assert!(cut >= last);
        let delta = rig.engine.delta_open("v", last, cut, &[]);
        assert!(cut == last || delta.expect("both are kept").next_part(usize::MAX).is_ok());
        volume.release().expect("nothing to reap");
        drop(volume);
        rig = if round == 1 { rig.power_fails(options()) } else { rig.kill(options()) };
        rig.second();
        volume = rig.mount("v");
    }
    rig.engine.replica_promote("v", "").expect("taken back");
    rig.engine.replica_promote("v", "").expect("it is already");
    let (_, next) = rig.engine.replica_identity("v").expect("told");
    let state = rig.engine.replica_state("v").expect("told").expect("it has a role");
    assert!(!state.is_given && next != lineage && next == state.lineage);
    assert_eq!(state.branch.map(|branch| (branch.lineage, branch.lsn.0)), Some((lineage, last)));
    write(&volume, "again").expect("an owner's again");
    drop(volume);
    let rig = rig.kill(options());
    let volume = rig.mount("v");
    volume.lookup(ROOT_INO, b"again").expect("it is there");
    write(&volume, "still").expect("an owner's");
    let report = rig.engine.fsck().expect("checked");
    assert!(report.problems.is_empty(), "{:#?}", report.problems);
}

#[test]
fn nothing_is_given_that_changed_after_the_last_point_or_whose_gate_is_open() {
    let rig = Rig::create(2, 1, options());
    let volume = rig.volume("v", 1);
    write(&volume, "one").expect("an owner's");
    let cut = rig.engine.replica_cut("v").expect("cut").lsn;
    assert_eq!(rig.engine.replica_relinquish("v", cut).expect_err("the gate is open").kind, Kind::Conflict);
    rig.engine.gate_close("v", LIMIT).expect("it was open");
    assert_eq!(rig.engine.replica_relinquish("v", cut).expect_err("it is not sealed").kind, Kind::Conflict);
    rig.engine.gate_seal("v").expect("it was closed");
    // The gate is the door's: what is in already gets through, and is seen.
    write(&volume, "two").expect("an owner's");
    assert_eq!(rig.engine.replica_relinquish("v", cut).expect_err("it changed").kind, Kind::Conflict);
    let last = rig.engine.replica_cut("v").expect("cut").lsn;
    rig.engine.snapshot_create("v", "named", None).expect("an owner's");
    write(&volume, "three").expect("an owner's");
    rig.engine.snapshot_create("v", "later", None).expect("an owner's");
    assert_eq!(rig.engine.replica_relinquish("v", last).expect_err("it changed").kind, Kind::Conflict);
    rig.engine.gate_open("v").expect("open");
    write(&volume, "four").expect("as if nothing had been");
    assert!(rig.engine.replica_state("v").expect("told").is_none());
}

#[test]
fn a_word_that_does_not_become_durable_is_taken_back() {
    let rig = Rig::create(3, 2, options());
    let volume = rig.volume("v", 2);
    rig.engine.volume_set("v", &VolumeChange { min_copies: Some(2), ..Default::default() }).expect("set");
    write(&volume, "one").expect("an owner's");
    let last = shut(&rig.engine);
    rig.world.drives()[0].add_fault(Fault::always(FaultKind::Vanished { errno: ENODEV }));
    let _noticed = rig.engine.pool().heartbeat();
    let refused = rig.engine.replica_relinquish("v", last).expect_err("one copy is too few");
    assert_ne!(refused.kind, Kind::Internal);
    assert!(rig.engine.replica_state("v").expect("told").is_none());
    rig.engine.gate_open("v").expect("open");
    write(&volume, "two").expect("as if nothing had been");
    drop(volume);
    rig.world.drives()[0].clear_faults();
    let rig = rig.kill(options());
    assert!(rig.engine.replica_state("v").expect("told").is_none());
    rig.mount("v").lookup(ROOT_INO, b"two").expect("it is there");
}

#[test]
fn with_a_log_that_fails_a_start_finds_out_and_until_then_nobody_owns_it() {
    let rig = Rig::create(4, 1, options());
    let volume = rig.volume("v", 1);
    write(&volume, "one").expect("an owner's");
    let last = shut(&rig.engine);
    rig.world.drives()[0].add_fault(Fault::always(FaultKind::WriteError));
    let unknown = rig.engine.replica_relinquish("v", last).expect_err("the drive takes nothing");
    assert_eq!(unknown.kind, Kind::Internal);
    assert!(unknown.message.contains("next start"));
    assert!(rig.engine.replica_state("v").expect("told").is_none(), "nobody may be told that it is given");
    assert_eq!(refusal(write(&volume, "two")), Kind::Unavailable, "as everything");
    drop(volume);
    rig.world.drives()[0].clear_faults();
    let rig = rig.kill(options());
    // The ring had it.
    assert!(rig.engine.replica_state("v").expect("told").is_some_and(|state| state.is_given));
    assert_eq!(refusal(write(&rig.mount("v"), "two")), Kind::Fenced);
}
