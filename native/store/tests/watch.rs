//! The administrator hears of it well before history that was promised goes, and again when it does; what is done about it ends it.

mod rig;

use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{FileSystem, WriteFlags};
use holdfast_store::engine::{EngineOptions, HistoryLimit, RetentionChange};
use holdfast_store::volume::Volume;
use rig::{ROOT, Rig, options, read_all};

const PIECE: usize = 64 << 10;
const PROMISED_S: u64 = 600;

/// A second in which so many pieces are written over those of the seconds before.
fn second(rig: &Rig, volume: &Volume, ino: Ino, pieces: u64, fill: u64) {
    for piece in 0..pieces {
        volume.write(&ROOT, ino, piece * PIECE as u64, &[fill as u8; PIECE], WriteFlags::default()).expect("written");
    }
    rig.second();
}

fn kept() -> EngineOptions {
    EngineOptions { retention_s: PROMISED_S, thin: Vec::new(), history_limit_percent: 20, ..options() }
}

fn warnings(rig: &Rig) -> Vec<String> {
    let all = rig.engine.status().expect("a status").warnings;
    all.into_iter().filter(|warning| warning.starts_with("history of group")).collect()
}

fn events(rig: &Rig) -> Vec<String> {
    let all = rig.engine.status().expect("a status").events;
    all.into_iter().map(|event| event.what).filter(|what| what.starts_with("history of group")).collect()
}

#[test]
fn a_window_that_will_not_fit_is_told_of_before_any_second_of_it_goes() {
    let rig = Rig::create(41, 2, kept());
    let volume = rig.volume("v", 2);
    let ino = volume.create(&ROOT, ROOT_INO, b"f", 0o600).expect("created").ino;
    rig.engine.snapshot_create("v", "named", None).expect("a snapshot");
    // 128 KiB a second, twice: a quarter of a MiB. A fifth of the pool is 25 MiB: 100 seconds of the 600 fit.
    let (mut warned_at, mut short_at) = (None, None);
    for at in 0..400 {
        second(&rig, &volume, ino, 2, at);
        let held = rig.engine.volumes().expect("volumes")[0].retention.held;
        if held.is_short && short_at.is_none() {
            short_at = Some(at);
        }
        if let [warning] = &warnings(&rig)[..]
            && warned_at.is_none()
        {
            assert!(!held.is_short, "second {at}: only told when it was too late");
            let ways_out = ["holdfast pool add-drive pool", "holdfast volume set v --retention"];
            for words in ["group v", "of the 10m that are promised"].iter().chain(&ways_out) {
                assert!(warning.contains(words), "{words}: {warning}");
            }
            warned_at = Some(at);
        }
        if short_at.is_some_and(|short| at > short + 20) {
            break;
        }
    }
    let (warned_at, short_at) = (warned_at.expect("warned"), short_at.expect("the limit is reached"));
    assert!(warned_at + 30 < short_at, "warned at second {warned_at}, the first went at {short_at}");
    let told = warnings(&rig);
    assert!(told.len() == 1 && told[0].contains("went for want of space"), "{told:?}");
    // The log hears of each once, not of every look.
    let log = events(&rig);
    assert_eq!(log.len(), 2, "{log:?}");
    assert!(log[0].contains("it grows by") && log[1].contains("went for want of space"), "{log:?}");
    // Named points do not go.
    assert_eq!(rig.engine.snapshots("v", 0, 10).expect("snapshots").len(), 1);
    assert!(read_all(&volume, ino).iter().all(|byte| u64::from(*byte) < 400));

    // What the sentence says helps: promise what fits.
    rig.engine.retention_set("v", &RetentionChange { window_s: Some(40), thin: None, limit: None }).expect("set");
    for at in 0..90 {
        second(&rig, &volume, ino, 2, at);
    }
    assert_eq!(warnings(&rig), Vec::<String>::new());
    let held = rig.engine.volumes().expect("volumes")[0].retention.held;
    assert!(!held.is_short && held.window_s >= 39, "{held:?}");
    // A limit of its own below what that takes is told of by its own way out.
    let limit = RetentionChange { window_s: None, thin: None, limit: Some(HistoryLimit::Bytes(4 << 20)) };
    rig.engine.retention_set("v", &limit).expect("set");
    second(&rig, &volume, ino, 2, 1);
    let told = warnings(&rig);
    assert!(told.len() == 1 && told[0].contains("holdfast volume set v --history-limit SIZE"), "{told:?}");
}

#[test]
fn a_quiet_group_is_not_warned_of() {
    let rig = Rig::create(42, 2, kept());
    let volume = rig.volume("v", 2);
    let ino = volume.create(&ROOT, ROOT_INO, b"f", 0o600).expect("created").ino;
    for at in 0..200 {
        second(&rig, &volume, ino, u64::from(at % 50 == 0), at);
        assert_eq!(warnings(&rig), Vec::<String>::new(), "second {at}");
    }
}
