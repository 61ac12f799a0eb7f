//! What must hold when a mount is busy: nobody waits for ever, whatever ends first; and what a transport does
//! when its kernel, its file system or its callers misbehave.

mod memory;
mod server;
#[macro_use]
mod support;

use holdfast_device::threads;
use holdfast_fuse::{Mount, MountOptions, ServeOptions, TransportWish};
use memory::{Disk, MemoryFs, PANIC};
use server::serve_elsewhere;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use support::{Mounted, TemporaryDir, c, door_is_there, errno, mountinfo, start_at};

over_both_doors! {
    a_killed_daemon_releases_everybody,
    an_umount_under_load_releases_everybody,
    more_flushes_than_slots_all_end,
    a_detached_mount_full_of_parked_flushes_ends,
    an_interrupted_caller_is_answered,
    small_writes_allow_large_attributes,
    a_panic_is_one_failed_request,
    many_at_once_get_their_own_answers,
    slow_reads_of_one_processor_are_right,
    reads_of_a_silent_drive_keep_nobody_else_waiting,
    one_processor_serves_the_callers_of_all,
    missing_pages_come_through_the_ring,
    a_page_that_is_late_is_somebody_elses,
}

const PATIENCE: Duration = Duration::from_secs(30);

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    create(path)?.write_all(content)
}

/// Works until something fails. Through a descriptor: a path leads to the directory below once the mount is
/// detached.
fn work(dir: &Path, number: usize, rounds: &AtomicU64) -> io::Result<()> {
    let root = OpenOptions::new().read(true).open(dir)?;
    let dir = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
    let path = dir.join(format!("work-{number}"));
    let mut large = vec![number as u8; 300_000];
    loop {
        let mut file = create(&path)?;
        file.write_all_at(&large, 5)?;
        file.sync_all()?;
        // SAFETY: a plain call on an open descriptor.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        file.read_exact(&mut large)?;
        assert!(large[5..].iter().all(|byte| *byte == number as u8));
        large.fill(number as u8);
        fs::read_dir(&dir)?.try_for_each(|entry| entry.map(drop))?;
        drop(file);
        fs::remove_file(&path)?;
        rounds.fetch_add(1, Ordering::SeqCst);
    }
}

/// Eight threads that work at `dir`, each of which has been through all of it at least once.
fn workers(dir: &Path) -> Vec<JoinHandle<io::Result<()>>> {
    let counts: Vec<_> = (0..8).map(|_| Arc::new(AtomicU64::new(0))).collect();
    let start = |(number, rounds): (usize, &Arc<AtomicU64>)| {
        let (dir, rounds) = (dir.to_owned(), Arc::clone(rounds));
        threads::spawn("worker", move || work(&dir, number, &rounds)).expect("thread")
    };
    let workers: Vec<_> = counts.iter().enumerate().map(start).collect();
    while counts.iter().any(|rounds| rounds.load(Ordering::SeqCst) == 0) {
        assert!(workers.iter().all(|worker| !worker.is_finished()), "a worker failed early");
        std::thread::yield_now();
    }
    workers
}

/// Every thread ends, with an error.
fn all_fail(workers: Vec<JoinHandle<io::Result<()>>>) {
    let (ended, wait) = mpsc::channel();
    threads::spawn("waiter", move || {
        for worker in workers {
            let outcome = worker.join().expect("no panic");
            ended.send(outcome.is_err()).expect("someone waits");
        }
    })
    .expect("thread");
    let mut count = 0;
    loop {
        match wait.recv_timeout(PATIENCE) {
            Ok(failed) => assert!(failed),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("somebody waits for ever; {count} have ended"),
        }
        count += 1;
    }
}

fn a_killed_daemon_releases_everybody(door: TransportWish) {
    let dir = TemporaryDir::new();
    let server = serve_elsewhere(door, &dir.0);
    let workers = workers(&dir.0);
    server.kill();
    all_fail(workers);
    // And the next daemon serves there.
    let mount = start_at(door, &dir.0).expect("mounts over the remains");
    put(&dir.0.join("new"), b"works").expect("write");
    mount.stop(false).expect("unmounts");
}

fn an_umount_under_load_releases_everybody(door: TransportWish) {
    let mounted = Mounted::new(door);
    let workers = workers(mounted.dir());
    mounted.mount.stop(true).expect("detaches");
    all_fail(workers);
    assert!(mountinfo(mounted.dir()).is_none());
    assert_eq!(mounted.mount.requests_in_flight(), 0);
}

const FLUSHES: usize = 100;

/// More flushes than a ring has slots, in as many threads, each of its own file.
fn syncing(mounted: &Mounted) -> Vec<JoinHandle<io::Result<()>>> {
    let files: Vec<_> =
        (0..FLUSHES).map(|index| create(&mounted.path(format!("synced-{index}"))).expect("create")).collect();
    mounted.fs.hold_flushes();
    let sync = |file: File| threads::spawn("sync", move || file.sync_all()).expect("thread");
    files.into_iter().map(sync).collect()
}

fn more_flushes_than_slots_all_end(door: TransportWish) {
    let mounted = Mounted::new(door);
    let syncing = syncing(&mounted);
    // On two processors one has 50 callers at least, and its queue 32 slots.
    mounted.fs.wait_for_held(32);
    mounted.fs.release_flushes(Ok(()));
    for thread in syncing {
        thread.join().expect("no panic").expect("synced");
    }
    assert_eq!(mounted.fs.seen().flushes, FLUSHES);
    mounted.end();
}

fn a_detached_mount_full_of_parked_flushes_ends(door: TransportWish) {
    let mounted = Mounted::new(door);
    let syncing = syncing(&mounted);
    mounted.fs.wait_for_held(32);
    mounted.mount.stop(true).expect("detaches");
    all_fail(syncing);
    assert!(mounted.mount.requests_in_flight() >= 32, "the engine still owes them");
    mounted.fs.release_flushes(Ok(()));
    assert_eq!(mounted.mount.requests_in_flight(), 0);
}

fn an_interrupted_caller_is_answered(door: TransportWish) {
    let mounted = Mounted::new(door);
    create(&mounted.path("file")).expect("create");
    mounted.fs.hold_flushes();
    let mut child = Command::new("sync").arg(mounted.path("file")).spawn().expect("sync runs");
    mounted.fs.wait_for_held(1);
    // The kernel sends INTERRUPT, and the child stays until its request is answered.
    child.kill().expect("kill");
    put(&mounted.path("meanwhile"), b"x").expect("the mount works on");
    mounted.fs.release_flushes(Ok(()));
    assert!(!child.wait().expect("wait").success());
    mounted.end();
}

fn small_writes_allow_large_attributes(door: TransportWish) {
    let serve = ServeOptions { transport: door, ..ServeOptions::default() };
    let mounted = Mounted::of(MemoryFs::new(0o755).with_writes_of(4096), |_| {}, serve);
    let data: Vec<u8> = (0..100_000_u32).map(|index| (index / 3) as u8).collect();
    let path = mounted.path("file");
    put(&path, &data).expect("write");
    assert!(mounted.fs.seen().writes.into_iter().all(|bytes| bytes <= 4096));
    assert!(fs::read(&path).expect("read") == data);
    let (path, name, value) = (c(&path), c("user.large"), vec![7_u8; 65_535]);
    // SAFETY: C strings, and a value of the length given.
    let set = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    assert_eq!(errno(set), 0);
    let mut back = vec![0_u8; 65_536];
    // SAFETY: C strings, and a buffer of the length given.
    let got = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), back.as_mut_ptr().cast(), back.len()) };
    assert_eq!(got, 65_535);
    assert!(back[..65_535] == value);
    mounted.end();
}

fn a_panic_is_one_failed_request(door: TransportWish) {
    let mounted = Mounted::with(door, |_| {}, ServeOptions { readers: 2, ..ServeOptions::default() });
    let failed = fs::metadata(mounted.path(OsStr::from_bytes(PANIC))).expect_err("a defect");
    assert_eq!(failed.raw_os_error(), Some(libc::EIO));
    put(&mounted.path("file"), b"served by the others").expect("write");
    assert_eq!(fs::read(mounted.path("file")).expect("read").len(), 20);
    mounted.end();
}

fn many_at_once_get_their_own_answers(door: TransportWish) {
    let mounted = Mounted::new(door);
    let dir: PathBuf = mounted.dir().to_owned();
    let one = |number: u32| {
        let dir = dir.clone();
        move || {
            for round in 0..200_u32 {
                let path = dir.join(format!("{number}-{round}"));
                let content =
                    vec![(number ^ round) as u8; 1 + (number * 997 + round * 131) as usize % 20_000];
                put(&path, &content).expect("write");
                let file = create(&path).expect("open");
                // SAFETY: a plain call on an open descriptor.
                unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
                drop(file);
                assert!(fs::read(&path).expect("read") == content, "{}", path.display());
                assert!(fs::metadata(dir.join(format!("{number}-{round}-absent"))).is_err());
                if round % 2 == 0 {
                    fs::remove_file(&path).expect("unlink");
                }
            }
        }
    };
    threads::run_parallel("many", (0..16).map(one).collect());
    assert_eq!(fs::read_dir(mounted.dir()).expect("list").count(), 16 * 100);
    mounted.end();
}

/// Keeps the calling thread on the processor that it runs on.
fn stay_here(cpu: usize) {
    // SAFETY: zeros are a valid set, `cpu` is a processor's number, and the kernel reads one whole set.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        assert_eq!(errno(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)), 0);
    }
}

/// All callers are on one processor, so all their requests are in one queue.
fn slow_reads_of_one_processor_are_right(door: TransportWish) {
    let serve = ServeOptions { transport: door, ..ServeOptions::default() };
    let fs = MemoryFs::new(0o755).with_reads_of(Duration::from_micros(300));
    let mounted = Mounted::of(fs, |_| {}, serve);
    let path = mounted.path("file");
    let content: Vec<u8> = (0..BLOCKS * 4096).map(|index| (index / 4096 * 3 + index % 7) as u8).collect();
    put(&path, &content).expect("write");
    // SAFETY: it takes nothing.
    let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).expect("a processor");
    let read = |number: usize| {
        let (path, content) = (&path, &content);
        move || {
            stay_here(cpu);
            let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).expect("open");
            let mut buffer = vec![0; 2 * 4096];
            let start = buffer.as_ptr().align_offset(4096);
            for round in 0..100 {
                let at = (number * 13 + round * 5) % BLOCKS * 4096;
                let block = &mut buffer[start..start + 4096];
                file.read_exact_at(block, at as u64).expect("read");
                assert!(block == &content[at..at + 4096], "block at {at}");
            }
        }
    };
    // The last job would run, and stay, on this thread.
    let mut jobs: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    jobs.extend((0..8).map(|number| Box::new(read(number)) as Box<dyn FnOnce() + Send>));
    jobs.push(Box::new(|| ()));
    threads::run_parallel("reader", jobs);
    assert!(mounted.fs.most_reads() >= 2, "one read keeps all others of its processor waiting");
    mounted.end();
}

/// More reads than there are queues or readers wait for a drive that does not answer: everything else is served, on
/// every processor, and so are they in the end.
fn reads_of_a_silent_drive_keep_nobody_else_waiting(door: TransportWish) {
    const READS: usize = 24;
    let mounted = Mounted::new(door);
    let path = mounted.path("file");
    put(&path, &[5; READS * 4096]).expect("write");
    // Not in the page cache, and each of its own descriptor: the kernel asks for every block by itself.
    mounted.fs.hold_reads();
    let read = |number: usize| {
        let path = path.clone();
        let read = move || {
            let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
            let mut buffer = vec![0; 2 * 4096];
            let start = buffer.as_ptr().align_offset(4096);
            let block = &mut buffer[start..start + 4096];
            file.read_exact_at(block, (number * 4096) as u64)?;
            Ok::<bool, io::Error>(block.iter().all(|byte| *byte == 5))
        };
        threads::spawn("reader", read).expect("thread")
    };
    let readers: Vec<_> = (0..READS).map(read).collect();
    mounted.fs.wait_for_reads(4);
    let dir = mounted.dir().to_owned();
    let on = |cpu: usize| {
        let dir = dir.clone();
        move || {
            stay_here(cpu);
            for round in 0..50 {
                let path = dir.join(format!("new-{cpu}-{round}"));
                put(&path, b"served").expect("write");
                assert_eq!(fs::metadata(&path).expect("stat").len(), 6);
                fs::remove_file(&path).expect("unlink");
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (ended, wait) = mpsc::channel();
    let jobs: Vec<_> = (0..cores).map(on).collect();
    for job in jobs {
        let ended = ended.clone();
        threads::spawn("other", move || {
            job();
            ended.send(()).expect("somebody waits");
        })
        .expect("thread");
    }
    for _ in 0..cores {
        wait.recv_timeout(PATIENCE).expect("somebody waits for a drive that is not theirs");
    }
    mounted.fs.release_reads();
    for reader in readers {
        assert!(reader.join().expect("no panic").expect("read"));
    }
    mounted.end();
}

/// Pages that are missing in memory are read through the ring that brought the request, and nobody waits for them; the one
/// that stays missing is read by somebody who may wait.
fn missing_pages_come_through_the_ring(door: TransportWish) {
    let disk = read_all_from_a_drive(door, PATIENCE.as_nanos() as u64);
    if door == TransportWish::Uring && disk.is_direct() {
        let counts = (disk.fetched(), disk.waited(), disk.late());
        assert_eq!(counts, (BLOCKS - 1, 8, 0), "one block stays missing, for 8 readers");
    }
}

/// The patience is over before it begins: others wait for every page, and what comes late harms nobody.
fn a_page_that_is_late_is_somebody_elses(door: TransportWish) {
    let disk = read_all_from_a_drive(door, 0);
    if door == TransportWish::Uring && disk.is_direct() {
        // A helper may find the page there meanwhile: how many waited for it themselves is chance, but for the one.
        assert!(disk.late() > 0 && disk.waited() >= 8, "{} late, {} waited", disk.late(), disk.waited());
    }
}

const BLOCKS: usize = 64;

/// Eight readers of the same blocks, all of which are on a drive at first.
fn read_all_from_a_drive(door: TransportWish, patience_ns: u64) -> Arc<Disk> {
    let drive = TemporaryDir::new();
    let disk = Arc::new(Disk::new(&drive.0, BLOCKS * 4096, patience_ns));
    let fs = MemoryFs::new(0o755).with_disk(Arc::clone(&disk));
    let mounted = Mounted::of(fs, |_| {}, ServeOptions { transport: door, ..ServeOptions::default() });
    let path = mounted.path("file");
    put(&path, &[9; BLOCKS * 4096]).expect("write");
    let read = |number: usize| {
        let path = path.clone();
        move || {
            let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).expect("open");
            let mut buffer = vec![0; 2 * 4096];
            let start = buffer.as_ptr().align_offset(4096);
            for round in 0..BLOCKS {
                let block = &mut buffer[start..start + 4096];
                file.read_exact_at(block, ((number * 7 + round) % BLOCKS * 4096) as u64).expect("read");
                assert!(block.iter().all(|byte| *byte == 9));
            }
        }
    };
    threads::run_parallel("reader", (0..8).map(read).collect());
    mounted.end();
    fs::remove_file(drive.0.join("slab")).expect("there");
    disk
}

/// As many queues as the kernel has processors, and fewer processors than that to serve them.
fn one_processor_serves_the_callers_of_all(door: TransportWish) {
    let (send, made) = mpsc::channel();
    threads::spawn("confined", move || {
        stay_here(0);
        forbid(libc::SYS_sched_setaffinity);
        send.send(Mounted::new(door)).expect("somebody waits");
    })
    .expect("thread");
    let mounted = made.recv().expect("it mounts");
    let workers = workers(mounted.dir());
    mounted.mount.stop(true).expect("detaches");
    all_fail(workers);
}

/// Refuses one system call to the calling thread and those it starts, as a container's seccomp profile does.
fn forbid(call: libc::c_long) {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    // The system call's number is the first word of what a filter sees.
    let mut filter = [
        libc::sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: IF_EQUAL, jt: 0, jf: 1, k: call as u32 },
        libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: refuse },
        libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program points at a filter that outlives the calls; both concern this thread only.
    unsafe {
        assert_eq!(errno(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)), 0);
        assert_eq!(errno(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program)), 0);
    }
}

#[test]
fn where_rings_are_forbidden_auto_falls_back_and_a_demand_is_refused() {
    if !door_is_there(TransportWish::Uring) || !support::is_root() {
        return;
    }
    let tried = threads::spawn("confined", || {
        forbid(libc::SYS_io_uring_setup);
        let dir = TemporaryDir::new();
        let start = |transport| {
            let options =
                MountOptions { dir: dir.0.clone(), source: "pool/vol".into(), ..MountOptions::default() };
            let serve = ServeOptions { transport, ..ServeOptions::default() };
            Mount::start_with(Arc::new(MemoryFs::new(0o755)), options, serve)
        };
        let refused = start(TransportWish::Uring).map(drop).expect_err("demanded");
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
        assert!(refused.to_string().starts_with("transport uring: cannot make the rings"), "{refused}");
        assert!(!refused.to_string().contains('\n'), "one line");
        assert!(mountinfo(&dir.0).is_none(), "nothing is left behind");
        let mount = start(TransportWish::Auto).expect("falls back");
        assert_eq!(mount.transport(), "dev");
        assert!(mount.transport_reason().contains("cannot make the rings"), "{}", mount.transport_reason());
        put(&dir.0.join("file"), b"works").expect("write");
        mount.stop(false).expect("unmounts");
    });
    tried.expect("thread").join().expect("no panic");
}
