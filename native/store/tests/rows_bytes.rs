//! The fault matrix's rows of bytes that are wrong on drives that stay (lost, misdirected, rotten), a test or more each, with the
//! outcomes that it demands: never wrong bytes, repaired from the copy that the checksum above accepts, and told.
//! Rows of whole drives are in `rows_drives.rs`; rows 5, 11, 12, 17 to 19 are those of `crash.rs`, `flips.rs` and `faults.rs`.

mod rig;

use holdfast_device::Rng;
use holdfast_device::sim::{Fault, FaultId, FaultKind, SimDrive, Trigger};
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{FileSystem, FsError, WriteFlags};
use holdfast_store::error::Kind;
use holdfast_store::volume::Volume;
use rig::care::{assert_sound, notice, restart_without_ring, rot};
use rig::load::Load;
use rig::{ROOT, Rig, counter, options, read_all};

const BLOCK: usize = 4096;

/// Faults in the slots of a drive, and none in its superblock and manifest: those say at once that the drive is not as it was.
fn strike(drive: &SimDrive, kind: FaultKind, trigger: Trigger) -> Vec<FaultId> {
    let slabs = drive.files().into_iter().filter(|(file, _)| file.starts_with("slab-"));
    let fault = |(file, bytes): (String, u64)| {
        let fault = Fault { trigger, ..Fault::always(kind) }.within(&file, 0..bytes);
        drive.add_fault(fault)
    };
    slabs.map(fault).collect()
}

fn hits(drive: &SimDrive, faults: &[FaultId]) -> u64 {
    faults.iter().map(|fault| drive.fault_hits(*fault)).sum()
}

/// A pool of two drives with something in every kind of slot.
fn pool(seed: u64) -> (Rig, Load) {
    let rig = Rig::create(seed, 2, options());
    let mut load = Load::new(&rig, "v", 2, seed);
    load.run(80);
    rig.engine.settle().expect("settled");
    load.run(40);
    notice(&rig);
    (rig, load)
}

/// One pass of scrub repairs whatever reads have not, the next one finds nothing, and the drive is a whole copy by itself.
fn whole_by_itself(rig: Rig, load: Load, drive: usize, when: &str) -> u64 {
    let report = rig.engine.scrub(None).expect("scrubbed");
    assert_eq!((report.repaired, report.lost), (report.bad_copies, 0), "{when}: {:?}", report.findings);
    let again = rig.engine.scrub(None).expect("scrubbed");
    assert_eq!((again.bad_copies, again.lost), (0, 0), "{when}: {:?}", again.findings);
    let (rig, load) = restart_without_ring(rig, load, &[1 - drive]);
    load.verify(&format!("{when}: by itself"));
    assert_sound(&rig, when);
    report.bad_copies
}

/// Row 6: acknowledged and flushed, and never there. The checksum above says so at the next read, whatever well-formed content
/// of an earlier use lies there.
#[test]
fn row_06_a_lost_write_is_found_by_the_next_read_and_repaired() {
    for at in 0..2 {
        let (rig, mut load) = pool(400 + at as u64);
        let drive = rig.world.drives()[at].clone();
        let faults = strike(&drive, FaultKind::LostWrite, Trigger::Chance { numerator: 1, denominator: 3 });
        for _ in 0..3 {
            load.run(40);
            rig.engine.settle().expect("settled");
        }
        assert!(hits(&drive, &faults) > 3, "no write was lost");
        drive.clear_faults();
        let failures = counter(&rig.engine, "checksum_failures");
        load.verify("writes were lost");
        notice(&rig);
        let bad = whole_by_itself(rig, load, at, "writes were lost");
        assert!(bad > 0 || failures > 0, "nothing was found");
    }
}

/// Row 7: a write lands elsewhere. What it should have replaced is found, and what it has overwritten.
#[test]
fn row_07_both_places_of_a_misdirected_write_are_found_and_repaired() {
    for at in 0..2 {
        let (rig, mut load) = pool(410 + at as u64);
        let drive = rig.world.drives()[at].clone();
        let faults = strike(&drive, FaultKind::MisdirectedWrite, Trigger::Chance { numerator: 1, denominator: 4 });
        for _ in 0..3 {
            load.run(40);
            rig.engine.settle().expect("settled");
        }
        assert!(hits(&drive, &faults) > 3, "no write was misdirected");
        assert!(drive.damage().len() > 1, "every write landed where something else had been anyway");
        drive.clear_faults();
        load.verify("writes were misdirected");
        whole_by_itself(rig, load, at, "writes were misdirected");
    }
}

/// Row 8: well-formed content of another place is not what was asked for; another copy answers, and nothing is spoilt.
#[test]
fn row_08_a_misdirected_read_is_answered_from_another_copy() {
    for at in 0..2 {
        let (rig, mut load) = pool(420 + at as u64);
        rig.engine.settle().expect("settled");
        let drive = rig.world.drives()[at].clone();
        let before = counter(&rig.engine, "checksum_failures");
        let faults = strike(&drive, FaultKind::MisdirectedRead, Trigger::Chance { numerator: 1, denominator: 2 });
        for _ in 0..3 {
            load.verify("reads are misdirected");
            load.run(5);
        }
        assert!(hits(&drive, &faults) > 3 && counter(&rig.engine, "checksum_failures") > before);
        drive.clear_faults();
        notice(&rig);
        whole_by_itself(rig, load, at, "reads were misdirected");
    }
}

/// Row 9: a bit flips in random pages of one drive. Reads are right and mend what they find, and count it.
#[test]
fn row_09_reads_repair_rotten_data_in_line() {
    for at in 0..2 {
        let (rig, load) = pool(430 + at as u64);
        rig.engine.settle().expect("settled");
        let drive = rig.world.drives()[at].clone();
        let mut rng = Rng::from_seed(at as u64);
        for (file, bytes) in drive.files().into_iter().filter(|(file, _)| file.starts_with("slab-")) {
            for page in 0..bytes / BLOCK as u64 {
                if !rng.chance(1, 2) {
                    continue;
                }
                drive.flip_bit(&file, page * BLOCK as u64 + rng.below(BLOCK as u64), rng.below(8) as u8);
            }
        }
        let repairs = counter(&rig.engine, "repairs");
        // Reads are spread over the copies: a few passes meet most of them.
        (0..3).for_each(|_| load.verify("rotten"));
        assert!(counter(&rig.engine, "checksum_failures") > 0 && counter(&rig.engine, "repairs") > repairs);
        let mended = counter(&rig.engine, "repairs");
        let bad = whole_by_itself(rig, load, at, "rotten");
        assert!(mended > 0 && bad > 0, "{mended} by reads, {bad} by the scrub");
    }
}

/// Row 9: cold rot in every block of a drive's slots: one pass finds and repairs all of it.
#[test]
fn row_09_scrub_finds_and_repairs_every_block_of_a_rotten_copy() {
    for rotten in 0..2 {
        let rig = Rig::create(100 + rotten as u64, 2, options());
        let mut load = Load::new(&rig, "v", 2, 100);
        load.run(100);
        rig.engine.settle().expect("settled");
        load.run(60);
        rig.engine.settle().expect("settled");
        load.run(30);
        notice(&rig);
        let clean = rig.engine.scrub(None).expect("scrubbed");
        assert_eq!((clean.bad_copies, clean.lost), (0, 0), "{:?}", clean.findings);
        assert!(clean.tables > 0 && clean.pages > 0 && clean.footers > 0 && clean.frames > 0, "{clean:?}");
        let drives = rig.world.drives();
        assert!(rot(&drives[rotten]) > 0);
        let report = rig.engine.scrub(None).expect("scrubbed");
        assert!(report.bad_copies > 0);
        assert_eq!((report.repaired, report.lost), (report.bad_copies, 0), "{:?}", report.findings);
        assert!(report.findings.iter().all(|what| what.contains(&format!("at drive d{rotten}"))));
        let again = rig.engine.scrub(None).expect("scrubbed");
        assert_eq!((again.bad_copies, again.lost), (0, 0), "{:?}", again.findings);
        // What was rotten is all there is, now and after a restart.
        let (rig, load) = restart_without_ring(rig, load, &[1 - rotten]);
        load.verify("only the copy that was rotten");
        assert_sound(&rig, "only the copy that was rotten");
    }
}

/// Row 10: redundancy that reads do not need (there is no parity yet: the second and third copy). Reads see nothing of it, and
/// scrub verifies every copy, not the one that answers.
#[test]
fn row_10_copies_that_no_read_needs_are_scrubbed_too() {
    for right in 0..3 {
        let rig = Rig::create(440 + right as u64, 3, options());
        let mut load = Load::new(&rig, "v", 3, 440);
        load.run(80);
        rig.engine.settle().expect("settled");
        load.run(20);
        notice(&rig);
        let clean = rig.engine.scrub(None).expect("scrubbed");
        assert_eq!((clean.bad_copies, clean.lost), (0, 0), "{:?}", clean.findings);
        let drives = rig.world.drives();
        let rotten: Vec<usize> = (0..3).filter(|at| *at != right).collect();
        rotten.iter().for_each(|at| assert!(rot(&drives[*at]) > 0));
        let report = rig.engine.scrub(None).expect("scrubbed");
        assert_eq!((report.repaired, report.lost), (report.bad_copies, 0), "{:?}", report.findings);
        // Everything that has a copy on one of the two has one on the other.
        assert!(report.bad_copies >= 2 * (report.tables + report.pages), "{report:?}");
        load.verify("rotten copies were mended");
        for alone in &rotten {
            let missing: Vec<usize> = (0..3).filter(|at| at != alone).collect();
            let fork = Rig { world: rig.world.fork(1), rings: Default::default(), engine: rig.engine.clone() };
            let seen = Load { volume: load.volume.clone(), files: load.files.clone(), rng: load.rng.clone() };
            let (_alone, seen) = restart_without_ring(fork, seen, &missing);
            seen.verify(&format!("d{alone} by itself"));
        }
    }
}

fn write(volume: &Volume, name: &str, content: &[u8]) -> Ino {
    let ino = volume.create(&ROOT, ROOT_INO, name.as_bytes(), 0o644).expect("created").ino;
    volume.write(&ROOT, ino, 0, content, WriteFlags::default()).expect("written");
    ino
}

/// Flips a bit of each page on the drive that holds this.
fn rot_content(drive: &SimDrive, content: &[u8]) -> usize {
    let mut found = 0;
    for (file, bytes) in drive.files().into_iter().filter(|(file, _)| file.starts_with("slab-")) {
        for page in (0..bytes).step_by(BLOCK) {
            if drive.read_raw(&file, page, BLOCK).is_some_and(|bytes| bytes == content) {
                drive.flip_bit(&file, page + 77, 3);
                found += 1;
            }
        }
    }
    found
}

/// Row 13: the same range on all copies. It is an error and told, nothing else is; who does not share it is unharmed, who
/// does gets the same error; and it can be written again.
#[test]
fn row_13_rot_on_all_copies_costs_that_range_only_and_is_told() {
    let rig = Rig::create(450, 2, options());
    let volume = rig.volume("v", 2);
    let mut rng = Rng::from_seed(450);
    let mut random = |blocks: usize| (0..blocks * BLOCK).map(|_| rng.next_u64() as u8).collect::<Vec<u8>>();
    let (content, other) = (random(16), random(16));
    let (hurt, well) = (write(&volume, "hurt", &content), write(&volume, "well", &other));
    let sharing = volume.create(&ROOT, ROOT_INO, b"sharing", 0o644).expect("created").ino;
    volume.copy_file_range(&ROOT, (hurt, 0), (sharing, 0), (8 * BLOCK) as u64).expect("shares the first half");
    rig.engine.settle().expect("settled");
    let bad = 3 * BLOCK..4 * BLOCK;
    for drive in rig.world.drives() {
        assert_eq!(rot_content(&drive, &content[bad.clone()]), 1, "a copy on each drive");
    }
    let read = |ino: Ino, at: usize| {
        let mut block = vec![0; BLOCK];
        volume.read(&ROOT, ino, (at * BLOCK) as u64, &mut block).map(|_| block)
    };
    for (ino, blocks) in [(hurt, 16), (sharing, 8)] {
        for at in 0..blocks {
            match read(ino, at) {
                Ok(block) => assert!(at != 3 && block == content[at * BLOCK..][..BLOCK], "{ino:?}, block {at}"),
                Err(FsError::Store(error)) => {
                    assert_eq!((at, error.kind), (3, Kind::Corrupt), "{error}");
                    assert!(error.message.contains("egroup"), "{error}");
                }
                Err(error) => panic!("{ino:?}, block {at}: {error:?}"),
            }
        }
    }
    assert!(read_all(&volume, well) == other);
    assert!(counter(&rig.engine, "checksum_failures") > 0);
    let report = rig.engine.scrub(None).expect("scrubbed");
    // Told once for each file that names the page, and for the log that it came with; and nothing else is.
    assert_eq!((report.lost, report.repaired), (3, 0), "{:?}", report.findings);
    let page = |what: &&String| what.contains("no copy is right") && what.contains("slot 0");
    assert_eq!(report.findings.iter().filter(page).count(), 3, "{:?}", report.findings);
    // Both who name the page are told with it; a new write of the block is right again.
    volume.write(&ROOT, hurt, bad.start as u64, &other[bad.clone()], WriteFlags::default()).expect("written");
    assert!(read(hurt, 3).expect("reads again") == other[bad]);
    assert!(matches!(read(sharing, 3), Err(FsError::Store(_))));
    rig.engine.settle().expect("settled around what is lost");
    assert!(read_all(&volume, well) == other);
}

/// Row 13: snapshots that do not share the range are unharmed, and those that do fail there only.
#[test]
fn row_13_snapshots_that_do_not_share_the_rotten_range_are_unharmed() {
    let rig = Rig::create(460, 2, options());
    let volume = rig.volume("v", 2);
    let mut rng = Rng::from_seed(460);
    let mut random = |blocks: usize| (0..blocks * BLOCK).map(|_| rng.next_u64() as u8).collect::<Vec<u8>>();
    let contents = [random(16), random(16), random(16)];
    let ino = write(&volume, "file", &contents[0]);
    let snapshot = |name: &str| drop(rig.engine.snapshot_create("v", name, None).expect("a snapshot"));
    snapshot("before");
    volume.write(&ROOT, ino, 0, &contents[1], WriteFlags::default()).expect("written");
    snapshot("hurt");
    volume.write(&ROOT, ino, 0, &contents[2], WriteFlags::default()).expect("written");
    snapshot("after");
    rig.engine.settle().expect("settled");
    for drive in rig.world.drives() {
        assert_eq!(rot_content(&drive, &contents[1][3 * BLOCK..4 * BLOCK]), 1, "a copy on each drive");
    }
    let check = |seen: &Volume, name: &str, expected: &[u8], bad: Option<usize>| {
        for at in 0..16 {
            let mut block = vec![0; BLOCK];
            match seen.read(&ROOT, ino, (at * BLOCK) as u64, &mut block) {
                Ok(_) => assert!(bad != Some(at) && block == expected[at * BLOCK..][..BLOCK], "{name}, block {at}"),
                Err(FsError::Store(error)) => assert_eq!((bad, error.kind), (Some(at), Kind::Corrupt), "{name}: {error}"),
                Err(error) => panic!("{name}, block {at}: {error:?}"),
            }
        }
    };
    for (name, expected, bad) in [("before", 0, None), ("hurt", 1, Some(3)), ("after", 2, None)] {
        let (seen, _) = rig.engine.volume_at("v", name).expect("kept");
        check(&seen, name, &contents[expected], bad);
    }
    check(&volume, "now", &contents[2], None);
    let report = rig.engine.scrub(None).expect("scrubbed");
    assert!(report.lost > 0 && report.repaired == 0, "{report:?}");
    // What goes with the snapshot is no damage any more.
    rig.engine.snapshot_delete("v", "hurt").expect("deleted");
    rig.engine.settle().expect("settled");
    let (seen, _) = rig.engine.volume_at("v", "before").expect("kept");
    check(&seen, "before, without the one that was hurt", &contents[0], None);
}
