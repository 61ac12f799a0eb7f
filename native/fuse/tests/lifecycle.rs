//! How mounts begin and end: refusals, busy mounts, unmounts from outside, dead daemons.

mod memory;
mod server;
#[macro_use]
mod support;

use holdfast_device::threads;
use holdfast_fuse::{MountOptions, ServeOptions, TransportWish, detach_stale};
use server::serve_elsewhere;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;
use support::{Mounted, TemporaryDir, c, is_root, mountinfo, start_at};

over_both_doors! {
    unfit_mount_points_are_refused,
    options_reach_the_kernel,
    a_mount_through_a_link_is_found_again,
    an_umount_from_outside_is_noticed,
    our_own_stop_is_no_surprise,
    a_busy_mount_stays_until_it_is_detached,
    detaching_releases_whoever_waits_for_a_flush,
    dropping_a_mount_unmounts,
    the_mount_of_a_killed_daemon_is_replaced,
    a_stuck_daemon_is_aborted,
    other_users_stay_out,
}

const PATIENCE: Duration = Duration::from_secs(20);

fn umount_outside(dir: &Path) {
    let (program, first) = if is_root() { ("umount", "--") } else { ("fusermount3", "-u") };
    let status = Command::new(program).arg(first).arg(dir).status().expect("umount runs");
    assert!(status.success());
}

fn unfit_mount_points_are_refused(door: TransportWish) {
    let dir = TemporaryDir::new();
    let refused = |path: &Path| start_at(door, path).map(drop).expect_err("refused");
    let missing = refused(&dir.0.join("missing"));
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("mkdir"), "{missing}");
    assert_eq!(refused(&dir.0.join("no/parent")).kind(), ErrorKind::NotFound);
    let file = dir.0.join("file");
    OpenOptions::new().write(true).create(true).truncate(true).open(&file).expect("create");
    assert_eq!(refused(&file).kind(), ErrorKind::NotADirectory);
    assert_eq!(refused(&dir.0).kind(), ErrorKind::DirectoryNotEmpty);
    fs::remove_file(&file).expect("unlink");
    let mount = start_at(door, &dir.0).expect("now it is fit");
    let twice = refused(&dir.0);
    assert_eq!(twice.kind(), ErrorKind::AlreadyExists);
    assert!(twice.to_string().contains("pool/vol"), "{twice}");
    assert!(mount.alive());
    assert!(!detach_stale(&dir.0).expect("asks"), "a live mount is left alone");
    mount.stop(false).expect("unmounts");
}

fn options_reach_the_kernel(door: TransportWish) {
    let mounted =
        Mounted::with(door, |options| options.source = "a pool/vol,suid".into(), ServeOptions::default());
    let line = mountinfo(mounted.dir()).expect("mounted");
    assert!(line.contains("nosuid,nodev") && line.contains("default_permissions"), "{line}");
    assert!(line.contains(" - fuse.holdfast a\\040pool/vol,suid "), "{line}");
    assert!(!line.contains("allow_other"), "{line}");
    assert_eq!(mounted.mount.transport(), if door == TransportWish::Dev { "dev" } else { "uring" });
    mounted.end();
    let read_only = |options: &mut MountOptions| {
        (options.read_only, options.noexec, options.noatime) = (true, true, true);
    };
    let mounted = Mounted::with(door, read_only, ServeOptions::default());
    let line = mountinfo(mounted.dir()).expect("mounted");
    assert!(line.contains(" ro,nosuid,nodev,noexec,noatime "), "{line}");
    assert_eq!(fs::create_dir(mounted.path("x")).expect_err("read-only").raw_os_error(), Some(libc::EROFS));
    mounted.end();
}

fn a_mount_through_a_link_is_found_again(door: TransportWish) {
    let (dir, holder) = (TemporaryDir::new(), TemporaryDir::new());
    let link = holder.0.join("link");
    std::os::unix::fs::symlink(&dir.0, &link).expect("symlink");
    let mount = start_at(door, &link).expect("mounts");
    assert!(mountinfo(&dir.0).is_some());
    mount.stop(false).expect("unmounts");
    assert!(mountinfo(&dir.0).is_none());
    fs::remove_file(link).expect("unlink");
}

fn an_umount_from_outside_is_noticed(door: TransportWish) {
    let (ended, wait) = mpsc::channel();
    let on_end = Box::new(move || ended.send(()).expect("someone waits"));
    let mounted =
        Mounted::with(door, |_| {}, ServeOptions { on_end: Some(on_end), ..ServeOptions::default() });
    assert!(mounted.mount.alive());
    umount_outside(mounted.dir());
    wait.recv_timeout(PATIENCE).expect("on_end is called");
    assert!(!mounted.mount.alive());
    mounted.end();
}

fn our_own_stop_is_no_surprise(door: TransportWish) {
    let (ended, wait) = mpsc::channel();
    let on_end = Box::new(move || ended.send(()).expect("someone waits"));
    let mounted =
        Mounted::with(door, |_| {}, ServeOptions { on_end: Some(on_end), ..ServeOptions::default() });
    mounted.mount.stop(false).expect("unmounts");
    mounted.mount.stop(false).expect("a second stop has nothing to do");
    // The callback was dropped uncalled.
    assert_eq!(wait.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
}

fn a_busy_mount_stays_until_it_is_detached(door: TransportWish) {
    let mounted = Mounted::new(door);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(mounted.path("open"))
        .expect("create");
    let busy = mounted.mount.stop(false).expect_err("busy");
    assert_eq!(busy.kind(), ErrorKind::ResourceBusy);
    assert!(mounted.mount.alive());
    file.write_all(b"still served").expect("write");
    mounted.mount.stop(true).expect("detaches");
    assert!(!mounted.mount.alive() && mountinfo(mounted.dir()).is_none());
    assert!(file.write_all(b"gone").is_err(), "its users get errors, not hangs");
}

fn detaching_releases_whoever_waits_for_a_flush(door: TransportWish) {
    let mounted = Mounted::new(door);
    mounted.fs.hold_flushes();
    let path = mounted.path("file");
    let syncing = threads::spawn("sync", move || {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)?.sync_all()
    });
    mounted.fs.wait_for_held(1);
    mounted.mount.stop(true).expect("detaches");
    assert!(syncing.expect("thread").join().expect("no panic").is_err());
    assert_eq!(mounted.mount.requests_in_flight(), 1, "the engine still owes it");
    // The late answer goes nowhere, harmlessly.
    mounted.fs.release_flushes(Ok(()));
    assert_eq!(mounted.mount.requests_in_flight(), 0);
}

fn dropping_a_mount_unmounts(door: TransportWish) {
    let dir = TemporaryDir::new();
    let mount = start_at(door, &dir.0).expect("mounts");
    let _busy =
        OpenOptions::new().write(true).create(true).truncate(true).open(dir.0.join("x")).expect("create");
    drop(mount);
    assert!(mountinfo(&dir.0).is_none());
}

fn the_mount_of_a_killed_daemon_is_replaced(door: TransportWish) {
    let dir = TemporaryDir::new();
    let server = serve_elsewhere(door, &dir.0);
    assert!(!detach_stale(&dir.0).expect("asks"), "it lives");
    server.kill();
    assert!(mountinfo(&dir.0).is_some(), "the dead mount is still there");
    assert!(detach_stale(&dir.0).expect("detaches"));
    assert!(mountinfo(&dir.0).is_none());
    assert!(!detach_stale(&dir.0).expect("asks"), "nothing is left to detach");
    // And start does it by itself.
    let server = serve_elsewhere(door, &dir.0);
    server.kill();
    let mount = start_at(door, &dir.0).expect("mounts over the remains");
    fs::create_dir(dir.0.join("works")).expect("mkdir");
    mount.stop(false).expect("unmounts");
}

fn a_stuck_daemon_is_aborted(door: TransportWish) {
    let dir = TemporaryDir::new();
    let server = serve_elsewhere(door, &dir.0);
    server.pause();
    assert!(detach_stale(&dir.0).expect("aborts and detaches"));
    assert!(mountinfo(&dir.0).is_none());
    server.kill();
}

fn other_users_stay_out(door: TransportWish) {
    if !is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let mounted = Mounted::new(door);
    fs::set_permissions(mounted.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
    use std::os::unix::process::CommandExt;
    let mut list = Command::new("ls");
    let output = list.arg(mounted.dir()).uid(65_534).gid(65_534).current_dir("/").env("LC_ALL", "C").output();
    let output = output.expect("ls runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"));
    let path = c(mounted.dir());
    // SAFETY: a C string.
    assert_eq!(unsafe { libc::access(path.as_ptr(), libc::R_OK) }, 0, "its owner is not others");
    mounted.end();
}
