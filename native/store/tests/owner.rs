//! Two programs on one pool (FAULTS.md 37): where no lock keeps them apart, the superblocks do; and a program that is gone
//! keeps nobody waiting.

mod rig;

use holdfast_device::sim::{Fault, FaultKind};
use holdfast_device::{Clock, Drive, Rng, SimClock, SimWorld};
use holdfast_format::ROOT_INO;
use holdfast_format::superblock::SUPERBLOCK_BYTES;
use holdfast_store::api::{FileSystem, FsError, WriteFlags};
use holdfast_store::engine::{Engine, Foundation};
use holdfast_store::error::{Kind, Result};
use holdfast_store::volume::Volume;
use rig::player::mount;
use rig::tree::walk;
use rig::{ROOT, Rig, Rings, options};
use std::sync::Arc;

const SECOND_NS: u64 = 1_000_000_000;

fn put(volume: &Volume, name: &str, fill: u8) -> std::result::Result<(), FsError> {
    let ino = volume.create(&ROOT, ROOT_INO, name.as_bytes(), 0o644)?.ino;
    volume.forget(ino, 1);
    volume.write(&ROOT, ino, 0, &[fill; 10_000], WriteFlags::default())
}

/// A pool with a file, flushed, in use.
fn pool(seed: u64) -> (Rig, Arc<Volume>) {
    let rig = Rig::create(seed, 3, options());
    drop(rig.volume("v", 2));
    let files = mount(&rig.engine, "v");
    put(&files, "a", 1).expect("written");
    rig.engine.flush().expect("flushed");
    rig.engine.pool().heartbeat().expect("a heartbeat");
    (rig, files)
}

/// Somebody removes the lock files, and locks new ones.
fn replace_locks(world: &SimWorld) {
    world.drives().iter().for_each(|drive| drive.replace_lock());
}

/// Time during which something else happens now and then.
struct Meanwhile<F> {
    clock: SimClock,
    work: F,
}

impl<F: Fn() + Send + Sync> Clock for Meanwhile<F> {
    fn boottime_ns(&self) -> u64 {
        self.clock.boottime_ns()
    }
    fn wall(&self) -> (i64, u32) {
        self.clock.wall()
    }
    fn sleep(&self, ns: u64) {
        self.clock.sleep(ns);
        (self.work)();
    }
}

/// Another program opens the pool; `work` is what goes on while it waits.
fn open_while(world: &SimWorld, boot_id: u8, work: impl Fn() + Send + Sync + 'static) -> Result<Arc<Engine>> {
    let drives = world.drives().into_iter().map(|drive| Arc::new(drive) as Arc<dyn Drive>).collect();
    let own = rig::foundation(world, &Rings::default(), 77);
    let clock = Arc::new(Meanwhile { clock: world.clock(), work });
    let foundation = Foundation { clock, boot_id: [boot_id; 16], rng: Rng::from_seed(77), ..own };
    Engine::open_on(drives, options(), foundation)
}

const SAME_BOOT: u8 = 7;
const OTHER_BOOT: u8 = 8;

fn hashes(world: &SimWorld) -> Vec<u64> {
    world.drives().iter().map(|drive| drive.image().hash()).collect()
}

/// A second program past the locks, on this kernel and on another one, while the first one lives: refused, and nothing is
/// written by it.
#[test]
fn a_heartbeat_that_goes_on_keeps_others_out() {
    for boot_id in [SAME_BOOT, OTHER_BOOT] {
        let (first, files) = pool(1);
        replace_locks(&first.world);
        let (beating, world) = (first.engine.clone(), first.world.clone());
        let next = std::sync::atomic::AtomicU64::new(world.clock().boottime_ns() + SECOND_NS);
        let beats = move || {
            let now = world.clock().boottime_ns();
            if now >= next.load(std::sync::atomic::Ordering::Relaxed) {
                next.store(now + SECOND_NS, std::sync::atomic::Ordering::Relaxed);
                beating.pool().heartbeat().expect("the first one keeps its pool");
            }
        };
        let began_ns = first.world.clock().boottime_ns();
        let Err(error) = open_while(&first.world, boot_id, beats) else { panic!("two programs have the pool") };
        assert_eq!(error.kind, Kind::Conflict, "{error}");
        assert!(error.message.contains("drive d0 is in use by another program"), "{error}");
        assert!(first.world.clock().boottime_ns() - began_ns < 3 * SECOND_NS, "the second beat is proof enough");
        put(&files, "b", 2).expect("the first one works");
        first.engine.flush().expect("flushed");
        let expected = walk(&files).expect("reads").text;
        drop(files);
        let rig = first.kill(options());
        assert!(walk(&mount(&rig.engine, "v")).expect("reads").text == expected);
    }
}

/// The first one does not beat because it is busy or idle, but it writes: that shows, too.
#[test]
fn whoever_writes_beats() {
    let (first, files) = pool(2);
    replace_locks(&first.world);
    let (engine, number) = (first.engine.clone(), std::sync::atomic::AtomicU64::new(0));
    let writes = move || {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        put(&files, &format!("w{number}"), 3).expect("the first one works");
        engine.flush().expect("flushed");
    };
    let Err(error) = open_while(&first.world, SAME_BOOT, writes) else { panic!("two programs have the pool") };
    assert_eq!(error.kind, Kind::Conflict, "{error}");
}

/// After a kill, under the lock that the dead one held, and after an orderly end under any: nothing is waited for.
#[test]
fn a_program_that_is_gone_keeps_nobody_waiting() {
    let (first, files) = pool(3);
    let expected = walk(&files).expect("reads").text;
    drop(files);
    let before_ns = first.world.clock().boottime_ns();
    let rig = first.kill(options());
    assert_eq!(rig.world.clock().boottime_ns(), before_ns, "a start after a kill waited");
    assert!(walk(&mount(&rig.engine, "v")).expect("reads").text == expected);
    rig.engine.close().expect("closed");
    replace_locks(&rig.world);
    let engine = open_while(&rig.world, OTHER_BOOT, || panic!("a start after an orderly end waited"));
    assert!(walk(&mount(&engine.expect("opens"), "v")).expect("reads").text == expected);
}

/// Gone without proof: on another boot of the kernel, or under a lock file that is not the dead one's. It takes a while.
#[test]
fn without_proof_the_start_waits_and_then_opens() {
    for boot_id in [SAME_BOOT, OTHER_BOOT] {
        let (first, files) = pool(4);
        let expected = walk(&files).expect("reads").text;
        let Rig { world, engine, .. } = first;
        drop((files, engine));
        if boot_id == SAME_BOOT {
            replace_locks(&world);
        }
        let began_ns = world.clock().boottime_ns();
        let engine = open_while(&world, boot_id, || ()).expect("opens after all");
        let waited_ns = world.clock().boottime_ns() - began_ns;
        assert!((5 * SECOND_NS..6 * SECOND_NS).contains(&waited_ns), "{waited_ns} ns");
        assert!(walk(&mount(&engine, "v")).expect("reads").text == expected);
    }
}

/// One of a drive's two superblocks rots between two looks at it: nobody has written that.
#[test]
fn a_superblock_that_rots_meanwhile_is_no_sign_of_life() {
    for read in 1..=8 {
        let (first, files) = pool(6);
        let Rig { world, engine, .. } = first;
        drop((files, engine));
        let drive = &world.drives()[0];
        let rot = drive.add_fault(Fault::nth(FaultKind::BitRot, read).within("superblock", 0..2 * SUPERBLOCK_BYTES as u64));
        let opened = open_while(&world, OTHER_BOOT, || ());
        assert_eq!(drive.fault_hits(rot), 1, "read {read}");
        assert!(opened.is_ok(), "read {read}: {:?}", opened.err());
    }
}

/// A program that was stopped so long that another one took over writes nothing more when it goes on: not the log, not the
/// manifest, not a table, not its superblocks.
#[test]
fn a_program_that_was_stopped_writes_nothing_more() {
    type Deed = fn(&Engine, &Volume) -> Result<()>;
    let deeds: [(&str, Deed); 5] = [
        ("flush", |engine, _| engine.flush()),
        ("drain", |engine, _| engine.groups()[0].drain_now()),
        ("settle", |engine, _| engine.settle()),
        ("heartbeat", |engine, _| engine.pool().heartbeat()),
        ("close", |engine, _| engine.close()),
    ];
    for (name, deed) in deeds {
        let (first, files) = pool(5);
        // Acknowledged, not flushed: nobody else can know of it.
        put(&files, "late", 2).expect("written");
        replace_locks(&first.world);
        let second = open_while(&first.world, SAME_BOOT, || ()).expect("the first one seems dead");
        put(&mount(&second, "v"), "new", 3).expect("written");
        second.flush().expect("flushed");
        let expected = walk(&mount(&second, "v")).expect("reads").text;
        let before = hashes(&first.world);
        let error = deed(&first.engine, &files).expect_err(name);
        assert_eq!(error.kind, Kind::Fenced, "{name}: {error}");
        let _acknowledged_or_not = put(&files, "later", 4);
        assert!(first.engine.flush().is_err(), "{name}: a flush of the first was answered");
        assert_eq!(hashes(&first.world), before, "{name}: the first one still writes");
        assert!(walk(&mount(&second, "v")).expect("reads").text == expected);
        second.close().expect("closed");
    }
}
