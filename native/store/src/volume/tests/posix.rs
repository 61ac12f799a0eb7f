use super::*;
use crate::api::SetTime;
use holdfast_format::op::OpKind;
use std::sync::atomic::{AtomicU64, Ordering};

fn size(size: u64) -> SetAttr {
    SetAttr { size: Some(size), ..SetAttr::default() }
}

#[test]
fn a_fresh_volume_has_a_root_and_is_made_once() {
    let bench = bench();
    let root = bench.attr(ROOT_INO);
    assert_eq!((root.mode, root.nlink, root.size), (mode::DIRECTORY | 0o755, 2, 4096));
    assert!(Volume::format(&*bench.ledger, BRANCH, &record(), (0, 0)).is_err());
    assert!(Volume::open(bench.ledger.clone(), BranchId(8), VolumeOptions::default()).is_err());
    assert_eq!(bench.names(ROOT_INO), [(1, b".".to_vec(), ROOT_INO), (2, b"..".to_vec(), ROOT_INO)]);
}

#[test]
fn owners_lose_privileges_with_a_change_of_owner_or_contents() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    let privileged = |bits| {
        let set = SetAttr { mode: Some(bits), ..SetAttr::default() };
        bench.volume.setattr(&ROOT, file, &set).expect("chmod");
    };
    let mode = || bench.attr(file).mode & 0o7777;
    privileged(0o6755);
    let chown = SetAttr { uid: Some(1000), ..SetAttr::default() };
    bench.volume.setattr(&ROOT, file, &chown).expect("chown");
    assert_eq!((mode(), bench.attr(file).uid), (0o755, 1000));
    privileged(0o6745);
    bench.volume.setattr(&USER, file, &SetAttr { gid: Some(100), ..SetAttr::default() }).expect("chgrp");
    assert_eq!((mode(), bench.attr(file).gid), (0o2745, 100), "sgid without group-execute is no privilege");
    privileged(0o6755);
    bench.write(file, 0, b"x");
    assert_eq!(mode(), 0o6755, "a write that may keep them");
    let flags = WriteFlags { kill_suidgid: true, will_sync: false };
    bench.volume.write(&USER, file, 0, b"x", flags).expect("writes");
    assert_eq!(mode(), 0o755);
    privileged(0o6755);
    bench.volume.setattr(&USER, file, &SetAttr { kill_suidgid: true, ..size(0) }).expect("truncates");
    assert_eq!(mode(), 0o755);
    privileged(0o6755);
    bench.volume.fallocate(&USER, file, 0, 10, 0).expect("allocates");
    assert_eq!(mode(), 0o755);
    let dir = bench.dir(ROOT_INO, "d");
    bench.volume.setattr(&ROOT, dir, &SetAttr { mode: Some(0o6755), ..SetAttr::default() }).expect("chmod");
    bench
        .volume
        .setattr(&ROOT, dir, &SetAttr { uid: Some(7), kill_suidgid: true, ..chown })
        .expect("chown");
    assert_eq!(bench.attr(dir).mode & 0o7777, 0o6755);
}

#[test]
fn truncation_sets_both_times_even_when_the_size_stays() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    bench.set_now(2_000_000);
    let attr = bench.volume.setattr(&ROOT, file, &size(0)).expect("truncates");
    assert_eq!((attr.mtime.sec, attr.ctime.sec), (2_000_000, 2_000_000));
    bench.set_now(2_000_001);
    let at = Time { sec: -5, nsec: 7 };
    let times = SetAttr { atime: Some(SetTime::At(at)), mtime: Some(SetTime::Now), ..SetAttr::default() };
    let attr = bench.volume.setattr(&ROOT, file, &times).expect("utimens");
    assert_eq!((attr.atime, attr.mtime.sec, attr.ctime.sec), (at, 2_000_001, 2_000_001));
    fails(bench.volume.setattr(&ROOT, ROOT_INO, &size(0)), FsError::IsDirectory);
    let link = bench.volume.symlink(&ROOT, ROOT_INO, b"l", b"t").expect("links").ino;
    fails(bench.volume.setattr(&ROOT, link, &size(0)), FsError::Invalid);
    fails(bench.volume.setattr(&ROOT, file, &size((16 << 40) + 1)), FsError::FileTooBig);
    fails(bench.volume.setattr(&ROOT, Ino(77), &size(0)), FsError::Stale);
}

#[test]
fn relatime_notes_the_first_read_after_a_change_and_one_a_day() {
    let bench = bench_with(&record(), VolumeOptions::default());
    let file = bench.file(ROOT_INO, "f");
    bench.write(file, 0, b"x");
    let read_at = |sec| {
        bench.set_now(sec);
        bench.read(file);
        bench.attr(file).atime.sec
    };
    let ctime = bench.attr(file).ctime;
    assert_eq!(read_at(1_000_010), 1_000_010);
    assert_eq!(read_at(1_000_020), 1_000_010);
    bench.write(file, 0, b"y");
    assert_eq!(read_at(1_000_030), 1_000_030);
    assert_eq!(read_at(1_000_030 + 86_399), 1_000_030);
    assert_eq!(read_at(1_000_030 + 86_400), 1_086_430);
    assert!(bench.attr(file).ctime > ctime, "the write's");
    assert_eq!(bench.attr(file).ctime.sec, 1_000_020, "a read changes no ctime");
    bench.set_now(3_000_000);
    bench.names(ROOT_INO);
    assert_eq!(bench.attr(ROOT_INO).atime.sec, 3_000_000);
}

#[test]
fn noatime_reads_log_nothing() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    bench.set_now(2_000_000);
    let before = bench.op_count();
    bench.read(file);
    bench.names(ROOT_INO);
    assert_eq!(bench.op_count(), before);
}

#[test]
fn a_full_pool_refuses_growth_and_changes_nothing() {
    let bench = bench_with(&record(), VolumeOptions::default());
    let file = bench.file(ROOT_INO, "f");
    bench.write(file, 0, &[1; 9000]);
    let dir = bench.dir(ROOT_INO, "d");
    bench.file(ROOT_INO, "g");
    let opened = bench.volume.lookup(ROOT_INO, b"g").expect("is there").ino;
    let before = bench.ledger.state.lock().records.clone();
    bench.ledger.state.lock().full = true;
    fails(bench.volume.create(&ROOT, ROOT_INO, b"new", 0o600), FsError::NoSpace);
    fails(bench.volume.mkdir(&ROOT, ROOT_INO, b"new", 0o700), FsError::NoSpace);
    fails(bench.volume.tmpfile(&ROOT, ROOT_INO, 0o600), FsError::NoSpace);
    fails(bench.volume.link(&ROOT, file, ROOT_INO, b"new"), FsError::NoSpace);
    fails(bench.volume.rename(&ROOT, (ROOT_INO, b"f"), (ROOT_INO, b"g"), 0), FsError::NoSpace);
    fails(bench.volume.write(&ROOT, file, 0, b"x", WriteFlags::default()), FsError::NoSpace);
    fails(bench.volume.setxattr(&ROOT, file, b"user.a", b"1", 0, false), FsError::NoSpace);
    fails(bench.volume.setattr(&ROOT, file, &size(10_000)), FsError::NoSpace);
    fails(bench.volume.copy_file_range(&ROOT, (file, 0), (opened, 0), 9000), FsError::NoSpace);
    assert_eq!(bench.read(file), [1; 9000], "an access time that cannot be noted fails no read");
    assert!(bench.ledger.state.lock().records == before);
    bench.volume.setattr(&ROOT, file, &size(5000)).expect("cutting frees");
    let punch = crate::api::FALLOC_PUNCH_HOLE | crate::api::FALLOC_KEEP_SIZE;
    bench.volume.fallocate(&ROOT, file, 0, 4096, punch).expect("punching frees");
    bench.volume.unlink(&ROOT, ROOT_INO, b"f").expect("unlinking frees");
    bench.volume.forget(file, 1);
    fails(bench.volume.getattr(file), FsError::Stale);
    bench.volume.rmdir(&ROOT, ROOT_INO, b"d").expect("removing frees");
    bench.volume.forget(dir, 1);
    bench.check();
    // The failed rename had marked "g" as about to be an orphan.
    bench.volume.forget(opened, 2);
    assert_eq!(bench.attr(opened).nlink, 1);
}

#[test]
fn a_quota_bounds_the_volume() {
    let bench = bench_with(&VolumeRecord { quota_bytes: 10 * 4096, ..record() }, VolumeOptions::default());
    let file = bench.file(ROOT_INO, "f");
    bench.write(file, 0, &[1; 8 * 4096]);
    let space = bench.volume.statfs().expect("has space");
    assert_eq!((space.blocks, space.blocks_free, space.blocks_available), (10, 2, 2));
    fails(bench.volume.write(&ROOT, file, 8 * 4096, &[1; 3 * 4096], WriteFlags::default()), FsError::Quota);
    bench.write(file, 0, &[2; 8 * 4096]);
    let volume = Volume::open(bench.ledger.clone(), BRANCH, VolumeOptions::default()).expect("opens");
    assert_eq!(volume.statfs().expect("has space").blocks_free, 2, "counted again at opening");
    volume.set_record(|record| record.quota_bytes = 20 * 4096).expect("sets");
    volume.write(&ROOT, file, 8 * 4096, &[1; 3 * 4096], WriteFlags::default()).expect("has room now");
    volume.unlink(&ROOT, ROOT_INO, b"f").expect("unlinks");
    assert_eq!(volume.statfs().expect("has space").blocks_free, 20);
}

#[test]
fn space_is_told_in_the_volumes_own_copies() {
    let bench = bench();
    let space = bench.volume.statfs().expect("has space");
    assert_eq!(space.blocks, (1 << 30) / 8192);
    assert_eq!(space.blocks_free, (1 << 29) / 8192);
    assert_eq!(space.blocks_available, (1 << 28) / 8192);
    let room = (space.blocks_available + 1) * 4096;
    let file = bench.file(ROOT_INO, "f");
    fails(bench.volume.fallocate(&ROOT, file, 0, room, 0), FsError::NoSpace);
    assert_eq!(bench.attr(file).size, 0);
}

#[test]
fn an_fsync_logs_a_record_only_after_a_change() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    let done = Arc::new(AtomicU64::new(0));
    let sync = || {
        let done = done.clone();
        let count = move |result: FsResult<()>| {
            result.expect("is durable");
            done.fetch_add(1, Ordering::Relaxed);
        };
        bench.volume.fsync(&ROOT, file, Box::new(count));
    };
    let before = bench.op_count();
    sync();
    sync();
    assert_eq!(bench.new_ops(before), [OpKind::Fsync]);
    let newest = bench.ledger.state.lock().newest;
    assert_eq!(bench.ledger.state.lock().flushed, newest - 1, "the record itself is not waited for");
    bench.write(file, 0, b"x");
    sync();
    assert_eq!(bench.new_ops(before), [OpKind::Fsync, OpKind::Write, OpKind::Fsync]);
    assert_eq!(done.load(Ordering::Relaxed), 3);
}

#[test]
fn an_fsync_waits_for_its_own_inode_and_what_came_before() {
    let bench = bench();
    let files = ["one", "two"].map(|name| bench.file(ROOT_INO, name));
    let flushed = || bench.ledger.state.lock().flushed;
    let sync = |ino| {
        let expect = |result: FsResult<()>| result.expect("is durable");
        bench.volume.fsync(&ROOT, ino, Box::new(expect));
    };
    bench.write(files[0], 0, b"x");
    let first = bench.ledger.state.lock().newest;
    bench.write(files[1], 0, b"x");
    let second = bench.ledger.state.lock().newest;
    sync(files[0]);
    assert_eq!(flushed(), first, "not for what others write meanwhile");
    sync(files[1]);
    assert_eq!(flushed(), second);
    bench.volume.setxattr(&ROOT, files[0], b"user.a", b"b", 0, false).expect("sets");
    let third = bench.ledger.state.lock().newest;
    sync(files[0]);
    assert_eq!(flushed(), third, "any change of the inode counts");
    bench.file(ROOT_INO, "three");
    let fourth = bench.ledger.state.lock().newest;
    sync(ROOT_INO);
    assert_eq!(flushed(), fourth, "the root stands for everything");
}

#[test]
fn a_write_that_an_fsync_always_follows_begins_its_flush() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    let flushed_by_write = || {
        bench.write(file, 0, b"x");
        let state = bench.ledger.state.lock();
        state.flushed == state.newest
    };
    let sync = || bench.volume.fsync(&ROOT, file, Box::new(|result| result.expect("is durable")));
    let round = || {
        let early = flushed_by_write();
        sync();
        early
    };
    assert_eq!([round(), round(), round(), round()], [false, false, true, true]);
    assert!(flushed_by_write(), "the habit still holds");
    assert!(!flushed_by_write(), "two writes without an fsync end it");
    assert_eq!([round(), round(), round()], [false, false, true], "and it begins anew");
}

#[test]
fn ack_write_returns_only_what_is_durable() {
    let bench = bench_with(&VolumeRecord { ack: 1, ..record() }, VolumeOptions::default());
    let file = bench.file(ROOT_INO, "f");
    bench.write(file, 0, b"x");
    let state = bench.ledger.state.lock();
    assert_eq!(state.flushed, state.newest);
    drop(state);
    let lazy = super::bench();
    let file = lazy.file(ROOT_INO, "f");
    lazy.write(file, 0, b"x");
    assert_eq!(lazy.ledger.state.lock().flushed, 0);
    let flags = WriteFlags { will_sync: true, kill_suidgid: false };
    lazy.volume.write(&ROOT, file, 0, b"x", flags).expect("writes");
    let state = lazy.ledger.state.lock();
    assert_eq!(state.flushed, state.newest, "an O_DSYNC write begins the flush");
}

#[test]
fn inode_numbers_are_reserved_in_steps_and_never_reused() {
    let bench = bench();
    let mut last = ROOT_INO;
    for index in 0..5000 {
        let file = bench.file(ROOT_INO, &format!("f{index}"));
        assert!(file > last);
        last = file;
    }
    let recorded = bench.volume.record().expect("is there").next_ino;
    assert!(recorded > last.0 && recorded <= last.0 + 4096);
    let volume = Volume::open(bench.ledger.clone(), BRANCH, VolumeOptions::default()).expect("opens");
    let next = volume.create(&ROOT, ROOT_INO, b"next", 0o600).expect("creates").ino;
    assert!(next > last && volume.record().expect("is there").next_ino > next.0);
}
