//! The fault matrix, one test a row, with the outcomes that it promises (FAULTS.md §1).

mod rig;

use holdfast_device::{Drive, SimDrive, SimWorld};
use holdfast_format::frame::FrameHeader;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::manifest::{Item, RECORD_HEADER_BYTES, RecordHead};
use holdfast_format::superblock::{SUPERBLOCK_BYTES, Superblock};
use holdfast_format::{Ino, Lsn, ROOT_INO};
use holdfast_store::api::{FileSystem, FsError, SetAttr, WriteFlags};
use holdfast_store::engine::{Engine, EngineOptions};
use holdfast_store::error::{Kind, Result};
use holdfast_store::placement::Segment;
use holdfast_store::volume::Volume;
use rig::player::mount;
use rig::tree::{difference, walk};
use rig::{ROOT, Rig, Rings, counter, manifest, read_all, volume_create};
use std::sync::Arc;

fn options() -> EngineOptions {
    EngineOptions { ring_bytes: 1 << 20, ..rig::options() }
}

fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let mut rng = holdfast_device::Rng::from_seed(seed);
    (0..bytes).map(|_| rng.next_u64() as u8).collect()
}

fn write_all(volume: &Volume, ino: Ino, offset: u64, bytes: &[u8]) -> std::result::Result<(), FsError> {
    let piece = volume.write_bytes_max() as usize;
    for (at, chunk) in bytes.chunks(piece).enumerate() {
        volume.write(&ROOT, ino, offset + (at * piece) as u64, chunk, WriteFlags::default())?;
    }
    Ok(())
}

fn put(volume: &Volume, name: &str, bytes: &[u8]) -> std::result::Result<Ino, FsError> {
    let ino = volume.create(&ROOT, ROOT_INO, name.as_bytes(), 0o644)?.ino;
    volume.forget(ino, 1);
    write_all(volume, ino, 0, bytes)?;
    Ok(ino)
}

fn volume(rig: &Rig, name: &str, rf: u8) -> Arc<Volume> {
    drop(rig.volume(name, rf));
    mount(&rig.engine, name)
}

/// The drives as they are, in a world of their own: what is broken there breaks nothing here.
fn copy(world: &SimWorld) -> SimWorld {
    world.start_trace();
    world.mark("end", 0);
    let trace = world.take_trace().expect("a trace");
    let state = trace.crash_states(Default::default()).last().expect("the state as it is");
    state.world(1)
}

fn open(world: &SimWorld) -> Result<Rig> {
    Rig::open(world.clone(), Rings::default(), options())
}

fn text_of(engine: &Engine, name: &str) -> String {
    walk(&mount(engine, name)).expect("everything reads").text
}

fn hashes(world: &SimWorld) -> Vec<u64> {
    world.drives().iter().map(|drive| drive.image().hash()).collect()
}

fn flip(drive: &SimDrive, file: &str, offset: u64) {
    drive.flip_bit(file, offset, (offset % 8) as u8);
}

fn slot_place(engine: &Engine, slot: u32) -> (String, u64) {
    let slot_bytes = engine.pool().slot_bytes() as u64;
    let slab_slots = (rig::DRIVE_BYTES / 4 / slot_bytes) as u32;
    (format!("slab-{:06}", slot / slab_slots), (slot % slab_slots) as u64 * slot_bytes)
}

/// A pool with files in tables, at RF 2 on three drives, closed.
fn settled_pool() -> (SimWorld, String) {
    let rig = Rig::create(11, 3, options());
    let files = volume(&rig, "v", 2);
    for at in 0..40 {
        put(&files, &format!("file-{at}"), &pattern(at, 500 + at as usize * 300)).expect("written");
    }
    rig.engine.settle().expect("settled");
    let text = walk(&files).expect("reads").text;
    drop(files);
    rig.engine.close().expect("closed");
    (rig.world.clone(), text)
}

/// Row 11: superblocks.
#[test]
fn flipped_bytes_of_a_superblock_are_survived() {
    let (world, expected) = settled_pool();
    for offset in (0..2 * SUPERBLOCK_BYTES as u64).step_by(37) {
        let world = copy(&world);
        flip(&world.drives()[1], "superblock", offset);
        let rig = open(&world).unwrap_or_else(|error| panic!("byte {offset}: {error}"));
        let found = text_of(&rig.engine, "v");
        assert!(found == expected, "byte {offset}: {}", difference(&expected, &found));
    }
    // Both slots: the drive is left out and named, its copies are not needed.
    let world = copy(&world);
    for slot in [0, 1] {
        flip(&world.drives()[1], "superblock", slot * SUPERBLOCK_BYTES as u64 + 20);
    }
    let rig = open(&world).expect("opens without the drive");
    assert!(text_of(&rig.engine, "v") == expected);
    let warnings = rig.engine.status().expect("status").warnings;
    assert!(
        warnings.iter().any(|warning| warning.contains("d1") && warning.contains("damaged")),
        "{warnings:?}"
    );
}

/// Row 11: the manifest on one drive. What is wrong there is repaired from the others, and counted.
#[test]
fn flipped_bytes_of_a_manifest_are_repaired() {
    let (world, expected) = settled_pool();
    let victim = manifest::records(&world.drives()[0]);
    assert!(victim.len() > 5, "a header, a snapshot and edits");
    let mut tried = 0;
    for record in &victim {
        let bytes = (RECORD_HEADER_BYTES + record.head.body_bytes as usize) as u64;
        for offset in (0..bytes).step_by(9) {
            let world = copy(&world);
            flip(&world.drives()[0], "manifest", record.offset + offset);
            let at = format!("record {} byte {offset}", record.head.sequence);
            let rig = open(&world).unwrap_or_else(|error| panic!("{at}: {error}"));
            let found = text_of(&rig.engine, "v");
            assert!(found == expected, "{at}: {}", difference(&expected, &found));
            assert!(counter(&rig.engine, "repairs") > 0, "{at}: repaired and not counted");
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried} flips");
}

/// Row 11: tables on one drive.
#[test]
fn flipped_bytes_of_tables_are_repaired() {
    let (world, expected) = settled_pool();
    let mut repairs = 0;
    let tables = {
        let rig = open(&copy(&world)).expect("opens");
        let groups = rig.engine.groups();
        let descs = groups.iter().flat_map(|group| group.tree().tables());
        let places = descs.map(|desc| (desc.bytes as u64, desc.copies[0]));
        places
            .map(|(bytes, copy)| (bytes, copy.drive, slot_place(&rig.engine, copy.slot)))
            .collect::<Vec<_>>()
    };
    assert!(!tables.is_empty());
    for (bytes, drive, (file, start)) in tables {
        for offset in (0..bytes).step_by(211) {
            let world = copy(&world);
            flip(&world.drives()[drive as usize], &file, start + offset);
            let rig = open(&world).unwrap_or_else(|error| panic!("byte {offset}: {error}"));
            // Reads take turns between the copies: the second walk meets the other one.
            for _ in 0..2 {
                let found = text_of(&rig.engine, "v");
                assert!(found == expected, "byte {offset}: {}", difference(&expected, &found));
            }
            let report = rig.engine.fsck().expect("checked");
            assert!(report.problems.is_empty(), "byte {offset}: {:?}", report.problems);
            repairs += counter(&rig.engine, "repairs");
        }
    }
    assert!(repairs > 0, "no read ever met the damage");
}

/// A pool whose log holds everything: `frames` flushes, not drained. Returns the expected text at each durable LSN.
fn logged_pool(frames: u64, floor: bool) -> (SimWorld, Vec<(Lsn, String)>, Segment) {
    let rig = Rig::create(12, 2, options());
    let files = volume(&rig, "v", 2);
    rig.engine.groups()[0].drain_now().expect("drained");
    let mut texts = Vec::new();
    for at in 0..frames {
        put(&files, &format!("file-{at}"), &pattern(at, 5000)).expect("written");
        rig.engine.flush().expect("flushed");
        texts.push((rig.engine.groups()[0].newest(), walk(&files).expect("reads").text));
    }
    if floor {
        rig.engine.groups()[0].flush_floor_now().expect("floor");
    }
    let record = rig.engine.pool().groups().remove(0);
    let at = record.segments.iter().position(|segment| {
        let (file, start) = slot_place(&rig.engine, segment.copies[0].slot);
        frames_of(&rig.world.drives()[segment.copies[0].drive as usize], &file, start).len()
            >= frames as usize
    });
    let segment = record.segments[at.expect("a segment with the frames")].clone();
    (rig.world.clone(), texts, segment)
}

/// Offsets of frames in a slot, with what their heads take.
fn frames_of(drive: &SimDrive, file: &str, start: u64) -> Vec<(u64, FrameHeader)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(bytes) = drive.read_raw(file, start + at, BLOCK_BYTES) {
        let Ok(header) = FrameHeader::decode(&bytes) else { break };
        at += (header.pages() * BLOCK_BYTES) as u64;
        found.push((start + at - (header.pages() * BLOCK_BYTES) as u64, header));
    }
    found
}

/// Row 12: every byte of the heads of frames, and payload, in one copy.
#[test]
fn every_flipped_byte_of_one_copy_of_the_log_is_repaired() {
    let (world, texts, segment) = logged_pool(3, true);
    let expected = &texts[2].1;
    let rig = open(&copy(&world)).expect("opens");
    let (file, start) = slot_place(&rig.engine, segment.copies[1].slot);
    let victim = segment.copies[1].drive as usize;
    let frames = frames_of(&world.drives()[victim], &file, start);
    let mut tried = 0;
    for (offset, header) in &frames {
        let head = header.head_bytes() as u64;
        let used = (holdfast_format::frame::FRAME_HEADER_BYTES as u64 + header.ops_bytes as u64).min(head);
        let whole = (header.pages() * BLOCK_BYTES) as u64;
        for at in (0..used).chain((head..whole).step_by(173)) {
            let world = copy(&world);
            let drive = &world.drives()[victim];
            flip(drive, &file, offset + at);
            let rig = open(&world).unwrap_or_else(|error| panic!("byte {at}: {error}"));
            let found = text_of(&rig.engine, "v");
            assert!(&found == expected, "byte {at}: {}", difference(expected, &found));
            let mended = drive.read_raw(&file, offset + at, 1)
                == world_byte(&world, &segment, &rig.engine, offset - start + at);
            // Payload at or below the floor is mended when a read meets it: reads take turns.
            assert!(mended || at >= head, "byte {at} of the frame at {offset} is not mended");
            tried += 1;
        }
    }
    assert!(tried > 500, "{tried} flips");
}

/// The byte at `at` of the segment's first copy.
fn world_byte(world: &SimWorld, segment: &Segment, engine: &Engine, at: u64) -> Option<Vec<u8>> {
    let (file, start) = slot_place(engine, segment.copies[0].slot);
    world.drives()[segment.copies[0].drive as usize].read_raw(&file, start + at, 1)
}

fn flip_both(world: &SimWorld, engine: &Engine, segment: &Segment, at: u64) {
    for copy in &segment.copies {
        let (file, start) = slot_place(engine, copy.slot);
        flip(&world.drives()[copy.drive as usize], &file, start + at);
    }
}

/// Row 12: both copies bad, at or below the floor: the volume is refused, by name. (What becomes of the others:
/// `damage.rs`.)
#[test]
fn a_log_that_is_bad_on_both_copies_below_the_floor_is_refused() {
    let (world, _, segment) = logged_pool(3, true);
    let rig = open(&copy(&world)).expect("opens");
    let (file, start) = slot_place(&rig.engine, segment.copies[0].slot);
    let frames = frames_of(&world.drives()[segment.copies[0].drive as usize], &file, start);
    for (number, (offset, header)) in frames.iter().enumerate().filter(|(_, (_, header))| header.op_count > 0)
    {
        let world = copy(&world);
        flip_both(&world, &rig.engine, &segment, offset - start + 100);
        let rig = open(&world).expect("the pool opens");
        let Err(error) = rig.engine.volume("v", Default::default()) else {
            panic!("frame {number} ({header:?}) is bad and nobody says so")
        };
        assert_eq!(error.kind, Kind::Corrupt, "{error}");
        assert!(error.message.contains("log of group v"), "{error}");
    }
}

/// Row 12: both copies bad above the floor: that is the tail of a crash.
#[test]
fn a_log_that_is_bad_on_both_copies_above_the_floor_ends_there() {
    let (world, texts, segment) = logged_pool(3, false);
    let rig = open(&copy(&world)).expect("opens");
    let (file, start) = slot_place(&rig.engine, segment.copies[0].slot);
    let frames = frames_of(&world.drives()[segment.copies[0].drive as usize], &file, start);
    let (offset, header) = frames.last().expect("frames");
    assert!(header.op_count > 0);
    for at in [100, header.head_bytes() as u64 + 5] {
        let world = copy(&world);
        flip_both(&world, &rig.engine, &segment, offset - start + at);
        let rig = open(&world).expect("opens");
        assert_eq!(rig.engine.groups()[0].newest(), texts[1].0);
        assert!(text_of(&rig.engine, "v") == texts[1].1, "the state of the frame before");
    }
}

/// Power cut between A's large unsynced write and B's synced one: B is there, A is old or new, never EIO.
#[test]
fn a_large_unsynced_write_does_not_harm_a_synced_one() {
    let rig = Rig::create(13, 3, options());
    let files = volume(&rig, "v", 2);
    let old = vec![1; 300_000];
    let a = put(&files, "a", &old).expect("written");
    put(&files, "b", b"old").expect("written");
    rig.engine.flush().expect("flushed");
    rig.world.start_trace();
    write_all(&files, a, 0, &vec![2; 300_000]).expect("written");
    let b = files.lookup(ROOT_INO, b"b").expect("b").ino;
    files.write(&ROOT, b, 0, b"new", WriteFlags::default()).expect("written");
    let (sender, receiver) = std::sync::mpsc::channel();
    files.fsync(&ROOT, b, Box::new(move |result| drop(sender.send(result))));
    receiver.recv().expect("an answer").expect("durable");
    rig.world.mark("synced", 1);
    write_all(&files, a, 0, &vec![3; 300_000]).expect("written");
    rig.engine.flush().expect("flushed");
    let trace = rig.world.take_trace().expect("a trace");
    let mut states = 0;
    for state in trace.crash_states(Default::default()) {
        let rig = open(&state.world(1)).expect("opens");
        let files = mount(&rig.engine, "v");
        let find = |name: &[u8]| files.lookup(ROOT_INO, name).expect("there").ino;
        if trace.last_mark("synced", state.position).is_some() {
            assert!(read_all(&files, find(b"b")) == b"new", "event {}: B is lost", state.position);
        }
        let a = read_all(&files, find(b"a"));
        assert_eq!(a.len(), old.len());
        // Each write op is whole or absent; ops are as long as the engine takes them.
        for op in a.chunks(files.write_bytes_max() as usize) {
            assert!(
                op.iter().all(|byte| *byte == op[0] && (1..=3).contains(byte)),
                "event {}: A is mixed",
                state.position
            );
        }
        states += 1;
    }
    assert!(states > 50, "{states} states");
}

/// Row 14: full to the last slot. ENOSPC before the ack; reads, deletes and truncates go on; after a kill, too; and it
/// is writable again within seconds of it, by dropping ticks.
#[test]
fn a_full_pool_takes_deletes_and_is_writable_again() {
    let rig = Rig::create(14, 3, options());
    let files = volume(&rig, "v", 2);
    let mut written: Vec<Ino> = Vec::new();
    let refused = loop {
        let at = written.len() as u64;
        rig.world.clock().advance(100_000_000);
        if at.is_multiple_of(10) {
            rig.engine.groups()[0].second_now().expect("a tick");
        }
        match put(&files, &format!("file-{at}"), &pattern(at, 500_000)) {
            Ok(ino) => written.push(ino),
            Err(error) => break error,
        }
        assert!(at < 1000, "the pool never fills");
    };
    assert!(matches!(refused, FsError::NoSpace), "{refused:?}");
    let check = |files: &Volume, from: usize| {
        for (at, ino) in written.iter().enumerate().skip(from).step_by(17) {
            assert!(read_all(files, *ino) == pattern(at as u64, 500_000), "file {at}");
        }
    };
    check(&files, 0);
    rig.engine.flush().expect("flushed");
    // The rest of the pool goes to small writes.
    let mut small = 0;
    while put(&files, &format!("small-{small}"), &[7; 4096]).is_ok() {
        small += 1;
        assert!(small < 100_000, "small writes never meet the end");
    }
    drop(files);
    let rig = rig.kill(options());
    let files = mount(&rig.engine, "v");
    check(&files, 0);
    files
        .setattr(&ROOT, written[0], &SetAttr { size: Some(0), ..SetAttr::default() })
        .expect("truncated on a full pool");
    for at in 0..8 {
        files
            .unlink(&ROOT, ROOT_INO, format!("file-{at}").as_bytes())
            .unwrap_or_else(|error| panic!("rm {at}: {error:?}"));
    }
    // Writable within 5 s.
    let mut seconds = 0;
    while put(&files, &format!("again-{seconds}"), &pattern(1, 100_000)).is_err() {
        seconds += 1;
        assert!(seconds <= 5, "still full after 5 s");
        rig.world.clock().advance(1_000_000_000);
        rig.engine.pool().heartbeat().expect("a heartbeat");
        rig.engine.groups()[0].second_now().expect("a second");
    }
    check(&files, 17);
    rig.engine.flush().expect("flushed");
    let report = rig.engine.fsck().expect("checked");
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    drop(files);
    let rig = rig.kill(options());
    check(&mount(&rig.engine, "v"), 17);
}

/// Row 9: random bytes over all slots of one drive, in tables, data and the log, while the pool is in use. A scrub mends
/// them; after an orderly end, and after none, everything is there, on each drive alone.
#[test]
fn a_drive_that_was_scribbled_over_is_mended_by_a_scrub() {
    for (seed, drives) in [(21, 2), (22, 3), (23, 4)] {
        for orderly in [true, false] {
            scribbled_drive_is_mended(seed, drives, orderly);
        }
    }
}

fn scribbled_drive_is_mended(seed: u64, drives: usize, orderly: bool) {
    let rig = Rig::create(seed, drives, options());
    let files = volume(&rig, "v", 2);
    for at in 0..40 {
        put(&files, &format!("file-{at}"), &pattern(at, 500 + at as usize * 3000)).expect("written");
        match at {
            12 | 25 => rig.engine.groups()[0].drain_now().expect("drained"),
            18 => rig.engine.settle().expect("settled"),
            _ => {}
        }
    }
    rig.engine.flush().expect("flushed");
    rig.engine.pool().heartbeat().expect("a heartbeat");
    let expected = walk(&files).expect("reads").text;
    let victim = rig.world.drives().remove(drives - 1);
    let mut random = holdfast_device::Rng::from_seed(seed);
    for (file, bytes) in victim.files().into_iter().filter(|(file, _)| file.starts_with("slab-")) {
        for offset in (0..bytes).step_by(BLOCK_BYTES) {
            let block: Vec<u8> = (0..BLOCK_BYTES).map(|_| random.next_u64() as u8).collect();
            victim.write_raw(&file, offset, &block);
        }
    }
    let report = rig.engine.scrub(None).expect("scrubbed");
    assert!(report.bad_copies > 0 && report.lost == 0, "{:?}", report.findings);
    assert_eq!(report.repaired, report.bad_copies, "{:?}", report.findings);
    let again = rig.engine.scrub(None).expect("scrubbed");
    assert_eq!(again.bad_copies, 0, "{:?}", again.findings);
    assert!(walk(&files).expect("reads").text == expected);
    drop(files);
    if orderly {
        rig.engine.close().expect("closed");
    }
    let what = format!("{drives} drives, orderly: {orderly}");
    let opened = open(&copy(&rig.world)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let status = opened.engine.status().expect("status");
    assert!(status.warnings.iter().all(|warning| !warning.contains("damaged")), "{what}: {:?}", status.warnings);
    assert!(text_of(&opened.engine, "v") == expected, "{what}");
    let report = opened.engine.fsck().expect("checked");
    assert!(report.problems.is_empty(), "{what}: {:?}", report.problems);
    // The drive that was scribbled over, without another one that has copies.
    for lost in 0..drives - 1 {
        let world = copy(&rig.world);
        let left = world.drives().into_iter().enumerate().filter(|(at, _)| *at != lost);
        let left = left.map(|(_, drive)| Arc::new(drive) as Arc<dyn Drive>).collect();
        let foundation = rig::foundation(&world, &Rings::default(), 7);
        let engine = Engine::open_on(left, options(), foundation).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(text_of(&engine, "v") == expected, "{what}, without drive {lost}");
    }
}

/// Row 34: a superblock with an unknown incompatible feature: refused, nothing is changed.
#[test]
fn an_unknown_feature_is_refused_and_nothing_is_changed() {
    let (world, _) = settled_pool();
    for drives in [1, 3] {
        let world = copy(&world);
        for drive in world.drives().iter().take(drives) {
            for slot in [0, 1] {
                let at = slot * SUPERBLOCK_BYTES as u64;
                let bytes = drive.read_raw("superblock", at, SUPERBLOCK_BYTES).expect("a superblock");
                let mut block = Superblock::decode(&bytes).expect("decodes");
                block.incompat |= 1 << 40;
                drive.write_raw("superblock", at, &block.encode());
            }
        }
        let before = hashes(&world);
        let Err(error) = open(&world) else { panic!("a newer pool was opened") };
        assert_eq!(error.kind, Kind::Denied, "{error}");
        assert_eq!(hashes(&world), before, "the drives were changed");
    }
}

/// Row 34: a manifest with a fact that this program does not know.
#[test]
fn an_unknown_fact_in_the_manifest_is_refused_and_nothing_is_changed() {
    let (world, _) = settled_pool();
    let world = copy(&world);
    for drive in world.drives() {
        let Some(newest) = manifest::records(&drive).pop() else { continue };
        let mut body = Vec::new();
        newest.items.iter().for_each(|item: &Item| item.encode(&mut body));
        body.extend_from_slice(&[200, 4, 0, 0, 0, 1, 2, 3, 4]);
        let (record, _) = RecordHead { ..newest.head }.encode(&body);
        drive.write_raw("manifest", newest.offset, &record);
    }
    let before = hashes(&world);
    let Err(error) = open(&world) else { panic!("a fact was passed over") };
    assert!(matches!(error.kind, Kind::Denied | Kind::Corrupt), "{error}");
    assert_eq!(hashes(&world), before, "the drives were changed");
}

/// Row 36: drives of two pools, a foreign directory, one drive twice.
#[test]
fn drives_that_do_not_belong_together_are_refused() {
    let (one, _) = settled_pool();
    let other = {
        let rig = Rig::create(15, 3, options());
        rig.engine.close().expect("closed");
        rig.world.clone()
    };
    let refuse = |drives: Vec<Arc<dyn Drive>>, what: &str| {
        let before = (hashes(&one), hashes(&other));
        let foundation = rig::foundation(&one, &Rings::default(), 3);
        let Err(error) = Engine::open_on(drives, options(), foundation) else { panic!("{what}: opened") };
        assert!(matches!(error.kind, Kind::Invalid | Kind::Conflict), "{what}: {error}");
        assert_eq!((hashes(&one), hashes(&other)), before, "{what}: drives were changed");
    };
    let drive = |world: &SimWorld, at: usize| Arc::new(world.drives().remove(at)) as Arc<dyn Drive>;
    refuse(vec![drive(&one, 0), drive(&other, 1), drive(&one, 2)], "a drive of another pool");
    refuse(vec![drive(&one, 0), drive(&one, 1), drive(&one, 1)], "one drive twice");
    let twin = SimDrive::from_image("twin", rig::DRIVE_BYTES * 2, &one.drives()[1].image(), 5);
    refuse(vec![drive(&one, 0), drive(&one, 1), Arc::new(twin)], "a drive and its copy");
    let foreign = SimWorld::new(3).add_drive("foreign", rig::DRIVE_BYTES);
    foreign.create("photos", 4096).expect("created");
    refuse(vec![drive(&one, 0), drive(&one, 1), Arc::new(foreign)], "somebody's directory");
}

/// A copy of a drive that was only left behind is left out; one that was used apart has changes that are nowhere else, and
/// which of the two histories goes is for the operator to say.
#[test]
fn a_drive_and_its_copy_that_were_used_apart_are_refused_together() {
    let rig = Rig::create(19, 2, options());
    put(&volume(&rig, "v", 2), "both", &pattern(1, 9000)).expect("written");
    rig.engine.close().expect("closed");
    let world = rig.world.clone();
    // Every start has chance of its own.
    let change = |world: &SimWorld, file: &str| {
        let foundation = rig::foundation(world, &Rings::default(), file.len() as u64);
        let engine = Engine::open_on(vec![Arc::new(world.drives().remove(0))], options(), foundation).expect("opens");
        put(&mount(&engine, "v"), file, &pattern(7, 20_000)).expect("written");
        engine.close().expect("closed");
    };
    let only = |world: &SimWorld, seed: u64| {
        let one = SimWorld::new(seed);
        one.add_drive("d0", rig::DRIVE_BYTES * 2).restore(&world.drives()[0].image());
        one
    };
    let (here, there) = (only(&world, 1), only(&world, 2));
    let both = || {
        let drives = [&there, &here].map(|world| Arc::new(world.drives().remove(0)) as Arc<dyn Drive>);
        Engine::open_on(drives.into(), options(), rig::foundation(&here, &Rings::default(), 3))
    };
    change(&here, "here");
    let engine = both().expect("the older copy is left out");
    assert!(engine.pool().warnings().iter().any(|warning| warning.contains("older copy")));
    drop(engine);
    change(&there, "there");
    let before = (hashes(&here), hashes(&there));
    let Err(error) = both() else { panic!("opened") };
    assert_eq!(error.kind, Kind::Conflict);
    assert!(error.message.contains("used apart"), "{error}");
    assert_eq!((hashes(&here), hashes(&there)), before, "drives were changed");
    for (world, file) in [(&here, "here"), (&there, "there")] {
        assert!(text_of(&open(world).expect("opens").engine, "v").contains(file));
    }
}

/// A volume of a higher RF joins a group whose log has much that is not flushed yet: the headers' RF rises under it.
#[test]
fn a_volume_with_more_copies_joins_a_busy_group() {
    let rig = Rig::create(18, 3, options());
    rig.engine.volume_create(&volume_create("one", 1, Some("shared"))).expect("created");
    let one = mount(&rig.engine, "one");
    for at in 0..120 {
        put(&one, &format!("file-{at}"), &pattern(at, 3000)).expect("written");
    }
    rig.engine.volume_create(&volume_create("three", 3, Some("shared"))).expect("created");
    let three = mount(&rig.engine, "three");
    put(&three, "file", &pattern(1, 30_000)).expect("written");
    rig.engine.flush().expect("flushed");
    let texts = (walk(&one).expect("reads").text, walk(&three).expect("reads").text);
    drop((one, three));
    let rig = open(&rig.world).expect("opens after a power cut");
    assert!((text_of(&rig.engine, "one"), text_of(&rig.engine, "three")) == texts);
}
