//! What tests of lost drives do with a pool and its load: take drives away, start again, heal, and look.

use super::load::Load;
use super::{ROOT, Rig, Rings, foundation, options};
use holdfast_device::Drive;
use holdfast_device::sim::{Fault, FaultKind, SimDrive};
use holdfast_store::api::{FileSystem, FsError};
use holdfast_store::engine::Engine;
use std::sync::Arc;

const ENODEV: i32 = 19;

/// The drive is gone: every call fails.
pub fn vanish(drive: &SimDrive) {
    drive.add_fault(Fault::always(FaultKind::Vanished { errno: ENODEV }));
}

/// A second passes: what is idle is noticed, too.
pub fn notice(rig: &Rig) {
    rig.engine.flush().expect("flushed on the drives that are left");
    rig.engine.pool().heartbeat().expect("a heartbeat on the drives that are left");
}

/// The records do not contradict each other.
pub fn assert_sound(rig: &Rig, when: &str) {
    let report = rig.engine.fsck().expect("checked");
    assert!(report.problems.is_empty(), "{when}: {:?}", report.problems);
}

/// Heals, and makes sure that any one of the drives that are left could go, too.
pub fn assert_healed(rig: &Rig, when: &str) {
    rig.engine.heal().expect("healed");
    let progress = rig.engine.pool().heal_progress();
    assert!(progress.stuck.is_empty(), "{when}: {:?}", progress.stuck);
    assert_eq!((progress.things_left, progress.things_lost), (0, 0), "{when}");
    assert_sound(rig, when);
}

/// The same pool again, on the drives of the world.
pub fn restart(rig: Rig, load: Load, missing: &[usize]) -> (Rig, Load) {
    let Rig { world, rings, engine } = rig;
    let Load { volume, files, rng } = load;
    drop(volume);
    drop(engine);
    let drives = world.drives().into_iter().enumerate().filter(|(at, _)| !missing.contains(at));
    let drives = drives.map(|(_, drive)| Arc::new(drive) as Arc<dyn Drive>).collect();
    let foundation = foundation(&world, &rings, 77);
    let engine = Engine::open_on(drives, options(), foundation).expect("opens");
    let rig = Rig { world, rings, engine };
    let volume = rig.mount("v");
    (rig, Load { volume, files, rng })
}

/// States of the drives, in the pool's order.
pub fn states(rig: &Rig) -> Vec<String> {
    rig.engine.status().expect("status").drives.into_iter().map(|drive| drive.state).collect()
}

/// Reads every block: what can be read is right. Gives how many could and could not.
pub fn read_what_is_there(load: &Load) -> (usize, usize) {
    let (mut right, mut failed) = (0, 0);
    for (ino, content) in load.files.values() {
        for (at, expected) in content.chunks(4096).enumerate() {
            let mut block = vec![0; expected.len()];
            match load.volume.read(&ROOT, *ino, at as u64 * 4096, &mut block) {
                Ok(got) => {
                    assert!(got == expected.len() && block == expected, "inode {ino}, block {at}: wrong bytes");
                    right += 1;
                }
                Err(error) => {
                    assert!(matches!(error, FsError::Store(_)), "inode {ino}, block {at}: {error:?}");
                    failed += 1;
                }
            }
        }
    }
    (right, failed)
}

/// Flips a bit in every block of a drive's slabs.
pub fn rot(drive: &SimDrive) -> u64 {
    let mut flips = 0;
    for (file, bytes) in drive.files().into_iter().filter(|(file, _)| file.starts_with("slab-")) {
        for block in 0..bytes / 4096 {
            drive.flip_bit(&file, block * 4096 + block % 160, (block % 8) as u8);
            flips += 1;
        }
    }
    flips
}

/// Power is cut: what is in the log has to come from the drives.
pub fn restart_without_ring(rig: Rig, load: Load, missing: &[usize]) -> (Rig, Load) {
    let rig = Rig { rings: Rings::default(), ..rig };
    restart(rig, load, missing)
}
