//! Kept points that end: what they saw goes when their end is durable, and not before.

mod rig;

use holdfast_format::{Lsn, ROOT_INO};
use holdfast_store::api::{FileSystem, WriteFlags};
use holdfast_store::group::Group;
use rig::player::mount;
use rig::tree::walk;
use rig::{ROOT, Rig, options};
use std::sync::Arc;

fn write(rig: &Rig, bytes: &[u8]) {
    let volume = mount(&rig.engine, "v");
    let ino = match volume.lookup(ROOT_INO, b"f") {
        Ok(attr) => attr.ino,
        Err(_) => volume.create(&ROOT, ROOT_INO, b"f", 0o644).expect("created").ino,
    };
    volume.forget(ino, 1);
    volume.write(&ROOT, ino, 0, bytes, WriteFlags::default()).expect("written");
}

fn group(rig: &Rig) -> Arc<Group> {
    rig.engine.groups().into_iter().next().expect("the group")
}

fn text_at(rig: &Rig, words: &str) -> String {
    walk(&rig.engine.volume_at("v", words).expect("kept").0).expect("everything reads").text
}

/// A second with content of its own, which only it sees, in the tables of the past.
fn with_a_second() -> (Rig, String, String) {
    let rig = Rig::create(11, 2, options());
    drop(rig.volume("v", 2));
    write(&rig, &[1; 20_000]);
    rig.second();
    let tick = group(&rig).points_after(Lsn(0), 10).pop().expect("a second");
    let words = format!("lsn:{}", tick.lsn);
    let then = text_at(&rig, &words);
    write(&rig, &[2; 20_000]);
    group(&rig).drain_now().expect("drained");
    assert_eq!(text_at(&rig, &words), then);
    (rig, words, then)
}

#[test]
fn a_second_whose_end_a_power_cut_takes_back_has_all_it_saw() {
    let (rig, words, then) = with_a_second();
    let own = group(&rig);
    assert!(own.drop_oldest_ticks().expect("dropped"));
    // All that gives back what nobody sees, before the end is durable.
    assert!(!own.expire_step().expect("looked"));
    assert!(!own.loosen_step().expect("looked"));
    while own.compact_step().expect("merged") {}
    drop(own);
    let rig = rig.power_fails(options());
    assert_eq!(text_at(&rig, &words), then);
}

#[test]
fn what_only_an_ended_point_saw_goes_once_its_end_is_durable() {
    let (rig, words, _) = with_a_second();
    let own = group(&rig);
    let held = own.tree().stats().then.payload_bytes;
    assert!(held > 0);
    assert!(own.drop_oldest_ticks().expect("dropped"));
    own.flush_now().expect("flushed");
    while own.expire_step().expect("expired") || own.loosen_step().expect("loosened") {}
    assert!(own.tree().stats().then.payload_bytes < held);
    drop(own);
    let rig = rig.power_fails(options());
    assert!(rig.engine.volume_at("v", &words).is_err());
}
