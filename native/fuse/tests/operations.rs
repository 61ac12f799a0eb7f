//! Every operation through a real mount, over a file system in memory.

mod memory;
#[macro_use]
mod support;

use holdfast_device::threads;
use holdfast_fuse::{ServeOptions, TransportWish};
use holdfast_store::api::FsError;
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use support::{Mounted, c, errno, is_root};

over_both_doors! {
    bytes_written_are_bytes_read,
    megabyte_writes_and_reads_arrive_whole_and_aligned,
    direct_io_and_mappings_see_one_file,
    names_come_and_go,
    open_files_outlive_their_names_and_then_go,
    names_are_bytes_of_at_most_255,
    a_directory_of_5000_is_listed_whole_while_it_is_emptied,
    extended_attributes,
    space_and_holes,
    copies_are_offloaded,
    a_parked_fsync_blocks_nobody_else,
    flushes_that_fail_or_vanish_are_errors,
    directories_are_synced_and_synchronous_writes_announced,
    attributes_the_daemon_changes_show,
    callers_and_umasks_are_told,
    locks_are_the_kernels,
}

fn read_write() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options
}

fn create() -> OpenOptions {
    let mut options = read_write();
    options.create(true);
    options
}

fn bytes_written_are_bytes_read(door: TransportWish) {
    let mounted = Mounted::new(door);
    let path = mounted.path("file");
    let mut file = create().open(&path).expect("create");
    file.write_all(b"hello world").expect("write");
    file.write_all_at(b"J", 0).expect("overwrite");
    let mut append = OpenOptions::new().append(true).open(&path).expect("open");
    append.write_all(b", again").expect("append");
    assert_eq!(fs::read(&path).expect("read"), b"Jello world, again");
    let metadata = fs::metadata(&path).expect("stat");
    assert_eq!((metadata.len(), metadata.mode() & 0o170_000, metadata.nlink()), (18, 0o100_000, 1));
    assert!(metadata.created().is_ok(), "statx gives the birth time");
    // Zero-message opens: truncation at open must still arrive.
    OpenOptions::new().write(true).truncate(true).open(&path).expect("truncate");
    assert_eq!(fs::read(&path).expect("read"), b"");
    file.set_len(5).expect("grow");
    assert_eq!(fs::read(&path).expect("read"), [0; 5]);
    drop((file, append));
    mounted.end();
}

fn megabyte_writes_and_reads_arrive_whole_and_aligned(door: TransportWish) {
    let mounted = Mounted::new(door);
    let data: Vec<u8> = (0..4 << 20).map(|index: u32| (index / 7) as u8).collect();
    let mut file = create().open(mounted.path("big")).expect("create");
    file.write_all(&data).expect("write");
    let seen = mounted.fs.seen();
    assert_eq!(seen.writes, [1 << 20; 4]);
    assert!(seen.data_aligned, "a WRITE's data begins on a page");
    file.sync_all().expect("fsync");
    // SAFETY: a plain call on an open descriptor.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    let mut back = Vec::new();
    file.seek(SeekFrom::Start(0)).expect("seek");
    file.read_to_end(&mut back).expect("read");
    assert!(back == data);
    let largest = mounted.fs.seen().reads.into_iter().max();
    // Only root may raise readahead.
    assert!(largest == Some(1 << 20) || !is_root(), "{largest:?}");
    drop(file);
    mounted.end();
}

fn direct_io_and_mappings_see_one_file(door: TransportWish) {
    let mounted = Mounted::new(door);
    let path = mounted.path("mapped");
    let file = create().open(&path).expect("create");
    file.set_len(8192).expect("size");
    // SAFETY: a fresh shared mapping of an open file; used only within its 8192 bytes, unmapped once.
    unsafe {
        let fd = file.as_raw_fd();
        let map = libc::mmap(
            std::ptr::null_mut(),
            8192,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd,
            0,
        );
        assert_ne!(map, libc::MAP_FAILED);
        let bytes = std::slice::from_raw_parts_mut(map.cast::<u8>(), 8192);
        bytes[4096..4101].copy_from_slice(b"dirty");
        assert_eq!(libc::msync(map, 8192, libc::MS_SYNC), 0);
        assert_eq!(libc::munmap(map, 8192), 0);
    }
    let direct = read_write().custom_flags(libc::O_DIRECT).open(&path).expect("open O_DIRECT");
    let mut buffer = vec![0; 4096 * 3];
    let start = buffer.as_ptr().align_offset(4096);
    let block = &mut buffer[start..start + 4096];
    direct.read_exact_at(block, 4096).expect("direct read");
    assert_eq!(&block[..6], b"dirty\0");
    block.fill(b'd');
    direct.write_all_at(block, 0).expect("direct write");
    assert_eq!(&fs::read(&path).expect("read")[4090..4101], b"dddddddirty"[..11].as_ref());
    drop((file, direct));
    mounted.end();
}

fn rename_with(from: &std::path::Path, to: &std::path::Path, flags: u32) -> i32 {
    let (from, to) = (c(from), c(to));
    // SAFETY: both paths are C strings.
    errno(unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) })
}

fn names_come_and_go(door: TransportWish) {
    let mounted = Mounted::new(door);
    let path = |name: &str| mounted.path(name);
    fs::create_dir(path("dir")).expect("mkdir");
    create().open(path("one")).expect("create").write_all(b"1").expect("write");
    create().open(path("two")).expect("create").write_all(b"2").expect("write");
    assert_eq!(rename_with(&path("one"), &path("two"), libc::RENAME_NOREPLACE), libc::EEXIST);
    assert_eq!(rename_with(&path("one"), &path("two"), libc::RENAME_EXCHANGE), 0);
    assert_eq!(fs::read(path("one")).expect("read"), b"2");
    assert_eq!(rename_with(&path("one"), &path("dir/white"), libc::RENAME_WHITEOUT), 0);
    let white = fs::symlink_metadata(path("one")).expect("whiteout");
    assert_eq!((white.mode() & 0o170_000, white.rdev()), (0o020_000, 0));
    fs::rename(path("two"), path("dir/white")).expect("replace");
    assert_eq!(fs::read(path("dir/white")).expect("read"), b"1");
    assert_eq!(fs::remove_dir(path("dir")).expect_err("not empty").raw_os_error(), Some(libc::ENOTEMPTY));
    fs::hard_link(path("dir/white"), path("link")).expect("link");
    assert_eq!(fs::metadata(path("link")).expect("stat").nlink(), 2);
    std::os::unix::fs::symlink("dir/white", path("symbolic")).expect("symlink");
    assert_eq!(fs::read_link(path("symbolic")).expect("readlink").as_os_str(), "dir/white");
    assert_eq!(fs::read(path("symbolic")).expect("follow"), b"1");
    let fifo = c(path("fifo"));
    // SAFETY: a C string.
    assert_eq!(errno(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }), 0);
    for name in ["one", "dir/white", "link", "symbolic", "fifo"] {
        fs::remove_file(path(name)).expect(name);
    }
    fs::remove_dir(path("dir")).expect("rmdir");
    assert_eq!(fs::read_dir(mounted.dir()).expect("list").count(), 0);
    mounted.end();
}

fn open_files_outlive_their_names_and_then_go(door: TransportWish) {
    let mounted = Mounted::new(door);
    let file = create().open(mounted.path("gone")).expect("create");
    fs::remove_file(mounted.path("gone")).expect("unlink");
    file.write_all_at(b"still here", 0).expect("write");
    let mut back = [0; 10];
    file.read_exact_at(&mut back, 0).expect("read");
    assert_eq!(&back, b"still here");
    let mut nameless = read_write().custom_flags(libc::O_TMPFILE).open(mounted.dir()).expect("O_TMPFILE");
    nameless.write_all(b"named later").expect("write");
    let (from, to) = (c(format!("/proc/self/fd/{}", nameless.as_raw_fd())), c(mounted.path("named")));
    // SAFETY: both paths are C strings.
    let linked = unsafe {
        libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::AT_SYMLINK_FOLLOW)
    };
    assert_eq!(errno(linked), 0);
    assert_eq!(fs::read(mounted.path("named")).expect("read"), b"named later");
    drop((file, nameless));
    let fs = std::sync::Arc::clone(&mounted.fs);
    // A later request is answered after the FORGET has been read by one of the readers; a stop is after all
    // of them.
    mounted.end();
    assert!(fs.nodes() <= 3, "{} inodes", fs.nodes());
}

fn names_are_bytes_of_at_most_255(door: TransportWish) {
    let mounted = Mounted::new(door);
    let odd = [b"new\nline".to_vec(), b"\xff\xfe invalid".to_vec(), vec![b'n'; 255], b"-rf *".to_vec()];
    for name in &odd {
        create().open(mounted.path(std::ffi::OsStr::from_bytes(name))).expect("create");
    }
    let listed = fs::read_dir(mounted.dir()).expect("list");
    let mut names: Vec<Vec<u8>> = listed.map(|entry| entry.expect("entry").file_name().into_vec()).collect();
    names.sort();
    let mut expected = odd.to_vec();
    expected.sort();
    assert_eq!(names, expected);
    let long = mounted.path("n".repeat(256));
    let long_is = |result: std::io::Result<()>| {
        assert_eq!(result.expect_err("256").raw_os_error(), Some(libc::ENAMETOOLONG))
    };
    long_is(fs::metadata(&long).map(drop));
    long_is(create().open(&long).map(drop));
    long_is(fs::create_dir(&long));
    long_is(fs::remove_file(&long));
    long_is(fs::remove_dir(&long));
    long_is(fs::rename(mounted.path("-rf *"), &long));
    long_is(fs::hard_link(mounted.path("-rf *"), &long));
    long_is(std::os::unix::fs::symlink("x", &long));
    mounted.end();
}

fn a_directory_of_5000_is_listed_whole_while_it_is_emptied(door: TransportWish) {
    let mounted = Mounted::new(door);
    let dir = mounted.path("many");
    fs::create_dir(&dir).expect("mkdir");
    for index in 0..5000 {
        create().open(dir.join(format!("file-{index:05}"))).expect("create");
    }
    for _ in 0..2 {
        let mut names: Vec<_> =
            fs::read_dir(&dir).expect("list").map(|entry| entry.expect("entry").file_name()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 5000);
    }
    let mut removed = 0;
    for entry in fs::read_dir(&dir).expect("list") {
        fs::remove_file(entry.expect("entry").path()).expect("unlink");
        removed += 1;
    }
    assert_eq!(removed, 5000);
    fs::remove_dir(&dir).expect("empty");
    mounted.end();
}

fn xattr(path: &std::path::Path, name: &str, size: usize) -> Result<Vec<u8>, i32> {
    let (path, name, mut value) = (c(path), c(name), vec![0_u8; size]);
    // SAFETY: C strings, and a buffer of the length given.
    let got = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), size) };
    if got < 0 { Err(errno(got as i64)) } else { Ok(value[..got.cast_unsigned().min(size)].to_vec()) }
}

fn extended_attributes(door: TransportWish) {
    let mounted = Mounted::new(door);
    let path = mounted.path("file");
    create().open(&path).expect("create");
    let set = |name: &str, value: &[u8], flags: i32| {
        let (path, name) = (c(&path), c(name));
        // SAFETY: C strings, and a value of the length given.
        let done = unsafe {
            libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags)
        };
        errno(done)
    };
    assert_eq!(set("user.a", b"one", libc::XATTR_CREATE), 0);
    assert_eq!(set("user.a", b"two", libc::XATTR_CREATE), libc::EEXIST);
    assert_eq!(set("user.b", b"", libc::XATTR_REPLACE), libc::ENODATA);
    assert_eq!(set("user.big", &vec![7; 65_535], 0), 0);
    assert_eq!(set("user.huge", &vec![7; 65_536], 0), libc::E2BIG);
    assert_eq!(xattr(&path, "user.a", 10), Ok(b"one".to_vec()));
    assert_eq!(xattr(&path, "user.a", 2), Err(libc::ERANGE));
    assert_eq!(xattr(&path, "user.none", 2), Err(libc::ENODATA));
    assert_eq!(xattr(&path, "user.big", 65_536).map(|value| value.len()), Ok(65_535));
    let (c_path, mut names) = (c(&path), [0_u8; 100]);
    // SAFETY: a C string, and a buffer of the length given.
    let listed = unsafe { libc::listxattr(c_path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    assert_eq!(&names[..listed.max(0).cast_unsigned()], b"user.a\0user.big\0");
    let name = c("user.a");
    // SAFETY: C strings.
    assert_eq!(errno(unsafe { libc::removexattr(c_path.as_ptr(), name.as_ptr()) }), 0);
    assert_eq!(xattr(&path, "user.a", 10), Err(libc::ENODATA));
    mounted.end();
}

fn space_and_holes(door: TransportWish) {
    let mounted = Mounted::new(door);
    let root = c(mounted.dir());
    // SAFETY: zeros are a valid statvfs, which the call fills.
    let stat = unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        assert_eq!(libc::statvfs(root.as_ptr(), &mut stat), 0);
        stat
    };
    assert_eq!((stat.f_blocks, stat.f_bfree, stat.f_bavail), (1_000_000, 700_000, 600_000));
    assert_eq!((stat.f_files, stat.f_ffree, stat.f_namemax, stat.f_frsize), (5000, 4000, 255, 4096));
    let file = create().open(mounted.path("holes")).expect("create");
    let fd = file.as_raw_fd();
    // SAFETY: plain calls on an open descriptor.
    let allocate =
        |mode: i32, offset: i64, length: i64| errno(unsafe { libc::fallocate(fd, mode, offset, length) });
    assert_eq!(allocate(0, 0, 40_960), 0);
    assert_eq!(file.metadata().expect("stat").len(), 40_960);
    assert_eq!(allocate(libc::FALLOC_FL_KEEP_SIZE, 0, 81_920), 0);
    assert_eq!(file.metadata().expect("stat").len(), 40_960);
    file.write_all_at(&[1; 40_960], 0).expect("write");
    assert_eq!(allocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 8192, 8192), 0);
    assert_eq!(allocate(libc::FALLOC_FL_COLLAPSE_RANGE, 0, 4096), libc::EOPNOTSUPP);
    let mut block = [9; 1];
    file.read_exact_at(&mut block, 8192).expect("read");
    assert_eq!(block, [0], "the page cache knows of the hole");
    // SAFETY: plain calls on an open descriptor.
    let seek = |offset: i64, whence: i32| unsafe { libc::lseek(fd, offset, whence) };
    assert_eq!((seek(0, libc::SEEK_HOLE), seek(8192, libc::SEEK_DATA)), (8192, 16_384));
    assert_eq!(seek(20_000, libc::SEEK_HOLE), 40_960);
    assert_eq!(errno(seek(50_000, libc::SEEK_DATA)), libc::ENXIO);
    drop(file);
    mounted.end();
}

fn copies_are_offloaded(door: TransportWish) {
    let mounted = Mounted::new(door);
    let from = create().open(mounted.path("from")).expect("create");
    let to = create().open(mounted.path("to")).expect("create");
    from.write_all_at(&[5; 100_000], 0).expect("write");
    let (mut offset_in, mut offset_out) = (1000_i64, 4096_i64);
    // SAFETY: open descriptors and two offsets that outlive the call.
    let copied = unsafe {
        libc::copy_file_range(from.as_raw_fd(), &mut offset_in, to.as_raw_fd(), &mut offset_out, 50_000, 0)
    };
    assert_eq!((copied, offset_in, offset_out), (50_000, 51_000, 54_096));
    let back = fs::read(mounted.path("to")).expect("read");
    assert!(back[..4096].iter().all(|byte| *byte == 0) && back[4096..] == [5; 50_000]);
    assert_eq!(mounted.fs.seen().copies, 1);
    // A terminal's question and a reflink's: both have a plain answer.
    let mut size = [0_u64; 8];
    // SAFETY: TCGETS writes at most a termios into the buffer given.
    let asked = unsafe { libc::ioctl(from.as_raw_fd(), libc::TCGETS, size.as_mut_ptr()) };
    assert_eq!(errno(asked), libc::ENOTTY);
    drop((from, to));
    mounted.end();
}

fn a_parked_fsync_blocks_nobody_else(door: TransportWish) {
    let mounted = Mounted::new(door);
    let paths: Vec<_> = (0..8).map(|index| mounted.path(format!("synced-{index}"))).collect();
    mounted.fs.hold_flushes();
    let syncing: Vec<_> = paths
        .iter()
        .map(|path| {
            let path = path.clone();
            threads::spawn("sync", move || {
                let mut file = create().open(path)?;
                file.write_all(b"x")?;
                file.sync_all()
            })
            .expect("thread")
        })
        .collect();
    // More flushes than there are readers, and all are parked:
    mounted.fs.wait_for_held(8);
    // A request counts until a moment after its caller has the answer.
    assert!(mounted.mount.requests_in_flight() >= 8);
    create().open(mounted.path("meanwhile")).expect("create").write_all(b"y").expect("write");
    assert_eq!(fs::metadata(mounted.path("meanwhile")).expect("stat").len(), 1);
    mounted.fs.release_flushes(Ok(()));
    for thread in syncing {
        thread.join().expect("no panic").expect("synced");
    }
    assert_eq!(mounted.fs.seen().flushes, 8);
    mounted.end();
}

fn flushes_that_fail_or_vanish_are_errors(door: TransportWish) {
    let mounted = Mounted::new(door);
    let file = create().open(mounted.path("file")).expect("create");
    for (vanish, expected) in [(false, libc::ENOSPC), (true, libc::EIO)] {
        mounted.fs.hold_flushes();
        let twin = file.try_clone().expect("clone");
        let syncing = threads::spawn("sync", move || twin.sync_all()).expect("thread");
        mounted.fs.wait_for_held(1);
        if vanish {
            mounted.fs.forget_flushes();
        } else {
            mounted.fs.release_flushes(Err(FsError::NoSpace));
        }
        let outcome = syncing.join().expect("no panic").expect_err("not durable");
        assert_eq!(outcome.raw_os_error(), Some(expected));
    }
    mounted.fs.release_flushes(Ok(()));
    drop(file);
    mounted.end();
}

fn directories_are_synced_and_synchronous_writes_announced(door: TransportWish) {
    let mounted = Mounted::new(door);
    let mut file = create().custom_flags(libc::O_DSYNC).open(mounted.path("file")).expect("create");
    file.write_all(b"x").expect("write");
    let seen = mounted.fs.seen();
    assert_eq!((seen.synced_writes, seen.flushes), (1, 1));
    OpenOptions::new().read(true).open(mounted.dir()).expect("open").sync_all().expect("fsyncdir");
    assert_eq!(mounted.fs.seen().flushes, 2);
    drop(file);
    mounted.end();
}

fn attributes_the_daemon_changes_show(door: TransportWish) {
    let mounted = Mounted::with(door, |options| options.allow_other = is_root(), ServeOptions::default());
    let path = mounted.path("file");
    create().open(&path).expect("create").write_all(&[1; 5000]).expect("write");
    let file = OpenOptions::new().read(true).open(&path).expect("open");
    let before = file.metadata().expect("stat");
    // SAFETY: a plain call on an open descriptor.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    file.read_exact_at(&mut [0; 10], 0).expect("read");
    let after = file.metadata().expect("stat");
    assert!((after.atime(), after.atime_nsec()) > (before.atime(), before.atime_nsec()), "READ stamps atime");
    let utimes =
        [libc::timespec { tv_sec: -5, tv_nsec: 7 }, libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT }];
    // SAFETY: an open descriptor and two timespecs.
    assert_eq!(errno(unsafe { libc::futimens(file.as_raw_fd(), utimes.as_ptr()) }), 0);
    let stamped = file.metadata().expect("stat");
    assert_eq!((stamped.atime(), stamped.atime_nsec(), stamped.mtime()), (-5, 7, after.mtime()));
    if is_root() {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).expect("chmod");
        let written = as_nobody("exec 1<>\"$0\"; printf x", &path);
        assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
        assert_eq!(fs::metadata(&path).expect("stat").mode() & 0o7777, 0o777, "a write kills suid and sgid");
    }
    drop(file);
    mounted.end();
}

/// Runs a shell line as uid and gid 65534, `$0` being the path.
fn as_nobody(script: &str, path: &std::path::Path) -> std::process::Output {
    use std::os::unix::process::CommandExt;
    let mut shell = std::process::Command::new("/bin/sh");
    shell.arg("-c").arg(script).arg(path).current_dir("/").uid(65_534).gid(65_534);
    shell.output().expect("a shell")
}

fn callers_and_umasks_are_told(door: TransportWish) {
    if !is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let mounted = Mounted::with(door, |options| options.allow_other = true, ServeOptions::default());
    fs::set_permissions(mounted.dir(), fs::Permissions::from_mode(0o777)).expect("chmod");
    let made = as_nobody("umask 027; mkdir \"$0\"", &mounted.path("theirs"));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let metadata = fs::metadata(mounted.path("theirs")).expect("stat");
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (65_534, 65_534, 0o750));
    let caller = *mounted.fs.seen().callers.last().expect("a caller");
    assert_eq!((caller.uid, caller.gid, caller.umask), (65_534, 65_534, 0o027));
    assert!(caller.pid > 0);
    // default_permissions decides for them.
    fs::set_permissions(mounted.dir(), fs::Permissions::from_mode(0o700)).expect("chmod");
    assert!(!as_nobody("test -e \"$0\"", &mounted.path("theirs")).status.success());
    mounted.end();
}

fn locks_are_the_kernels(door: TransportWish) {
    let mounted = Mounted::new(door);
    let first = create().open(mounted.path("lock")).expect("create");
    let second = read_write().open(mounted.path("lock")).expect("open");
    first.lock().expect("flock");
    assert!(second.try_lock().is_err());
    first.unlock().expect("unlock");
    second.try_lock().expect("free");
    let handle = c(mounted.path("lock"));
    // SAFETY: a C string; O_PATH takes no mode.
    let fd = unsafe { libc::open(handle.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: open has just returned it to us.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    drop((first, second));
    mounted.end();
}
