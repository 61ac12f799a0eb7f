use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use super::*;
use crate::Clock;

const PAGE: usize = 4096;

fn page(fill: u8) -> Vec<u8> {
    vec![fill; PAGE]
}

fn world_with_files(drives: usize, file_bytes: u64) -> (SimWorld, Vec<SimDrive>, Vec<FileId>) {
    let world = SimWorld::new(1);
    let drives: Vec<SimDrive> =
        (0..drives).map(|at| world.add_drive(&format!("drive-{at}"), 64 << 20)).collect();
    let files = drives.iter().map(|drive| drive.create("slab", file_bytes).unwrap()).collect();
    (world, drives, files)
}

fn read(drive: &SimDrive, file: FileId, offset: u64, bytes: usize) -> Vec<u8> {
    let mut into = vec![0xee; bytes];
    drive.read(file, offset, &mut into).unwrap();
    into
}

#[test]
fn a_drive_is_a_byte_array_per_file() {
    let (_, drives, files) = world_with_files(1, 1 << 20);
    let (drive, file) = (&drives[0], files[0]);
    let mut shadow = vec![0u8; 1 << 20];
    let mut rng = Rng::from_seed(5);
    for round in 0..500u32 {
        let offset = rng.below(1 << 20) as usize;
        let bytes = (rng.below(3 * PAGE as u64) as usize).min(shadow.len() - offset);
        let data: Vec<u8> = (0..bytes).map(|_| rng.next_u64() as u8).collect();
        let (one, two) = data.split_at(bytes / 3);
        match round % 3 {
            0 => drive.write(file, offset as u64, &[one, two], Durability::Cached).unwrap(),
            1 => drive.write(file, offset as u64, &[one, two], Durability::Durable).unwrap(),
            _ => drive.write(file, offset as u64, &[&vec![0; bytes]], Durability::Durable).unwrap(),
        }
        shadow[offset..offset + bytes].copy_from_slice(&data);
        if round % 3 == 2 {
            shadow[offset..offset + bytes].fill(0);
        }
        let from = rng.below(1 << 20) as usize;
        let until = (from + 9999).min(shadow.len());
        assert_eq!(read(drive, file, from as u64, until - from), shadow[from..until], "round {round}");
    }
    assert_eq!(drive.read_raw("slab", 0, 1 << 20).unwrap(), shadow);
    assert!(drive.damage().is_empty());
}

#[test]
fn files_obey_the_rules_of_real_drives() {
    let world = SimWorld::new(1);
    let drive = world.add_drive("small", 1 << 20);
    assert_eq!(drive.open("slab").unwrap(), None);
    let file = drive.create("slab", 1 << 19).unwrap();
    assert_eq!(drive.open("slab").unwrap(), Some(file));
    assert_eq!(drive.create("slab", 1).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(drive.create("more", 1 << 20).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(drive.create("../up", 1).unwrap_err().kind(), ErrorKind::InvalidInput);
    let space = drive.space().unwrap();
    assert_eq!((space.total_bytes, space.free_bytes), (1 << 20, 1 << 19));
    let past = drive.write(file, (1 << 19) - 1, &[&[1, 2]], Durability::Cached).unwrap_err();
    assert_eq!(past.kind(), ErrorKind::InvalidInput);
    assert_eq!(drive.read(file, 1 << 19, &mut [0]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    drive.create("index", 1 << 10).unwrap();
    assert_eq!(drive.list().unwrap(), ["index", "slab"]);
    assert_eq!(drive.files(), [("index".to_owned(), 1 << 10), ("slab".to_owned(), 1 << 19)]);
    drive.remove("slab").unwrap();
    assert_eq!(drive.read(file, 0, &mut [0]).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(drive.remove("slab").unwrap_err().kind(), ErrorKind::NotFound);
    let again = drive.create("slab", 1 << 10).unwrap();
    assert_ne!(again, file, "ids are never used twice");
}

#[test]
fn equal_content_has_equal_hashes_whatever_the_way_there() {
    let one = SimWorld::new(1).add_drive("one", 1 << 20);
    let two = SimWorld::new(2).add_drive("two", 1 << 20);
    let (first, second) = (one.create("slab", 1 << 19).unwrap(), two.create("slab", 1 << 19).unwrap());
    one.write(first, 0, &[&page(1), &page(2)], Durability::Cached).unwrap();
    assert_ne!(one.image().hash(), two.image().hash());
    two.write(second, 4096, &[&page(9)], Durability::Cached).unwrap();
    two.write(second, 8192, &[&page(3)], Durability::Cached).unwrap();
    two.write(second, 0, &[&page(1), &page(2)], Durability::Durable).unwrap();
    two.write(second, 8192, &[&page(0)], Durability::Durable).unwrap();
    assert_eq!(one.image().hash(), two.image().hash());
    let kept = one.image();
    one.flip_bit("slab", 5000, 3);
    assert_ne!(one.image().hash(), kept.hash());
    assert_eq!(kept.read("slab", 5000, 1).unwrap(), [2], "an image does not follow its drive");
    one.flip_bit("slab", 5000, 3);
    assert_eq!(one.image().hash(), kept.hash());
}

// ---- crash enumeration against something too simple to be wrong ----

/// Too simple to be wrong: bytes in arrays, every subset, every cut, nothing shared, nothing skipped.
struct Oracle {
    states: BTreeSet<(usize, Plain)>,
}

type Plain = Vec<BTreeMap<String, Vec<u8>>>;
/// A change; the content bytes (one flag each) of it that no newer durable write has settled; whether its flush failed.
type Maybe = (Event, Vec<bool>, bool);

fn plain(images: &[DriveImage]) -> Plain {
    let files = |image: &DriveImage| {
        let read =
            |(name, bytes): (String, u64)| (name.clone(), image.read(&name, 0, bytes as usize).unwrap());
        image.files().into_iter().map(read).collect()
    };
    images.iter().map(files).collect()
}

fn content(landed: &Landed) -> Vec<u8> {
    match &landed.content {
        Content::Bytes(bytes) => bytes.to_vec(),
        Content::Zeroes(count) => vec![0; *count as usize],
    }
}

fn put(drives: &mut Plain, event: &Event, lands: impl Fn(usize) -> bool) {
    match event {
        Event::Cached(landed) => {
            let Some(file) = drives[landed.drive].get_mut(&*landed.file) else { return };
            for (at, byte) in content(landed).into_iter().enumerate().filter(|(at, _)| lands(*at)) {
                file[landed.offset as usize + at] = byte;
            }
        }
        Event::Create { drive, file, bytes } => {
            drives[*drive].insert(file.to_string(), vec![0; *bytes as usize]);
        }
        Event::Remove { drive, file } => {
            drives[*drive].remove(&**file);
        }
        other => panic!("{other:?} changes nothing by itself"),
    }
}

fn whole(event: &Event) -> Vec<bool> {
    match event {
        Event::Cached(landed) => vec![true; landed.content.len() as usize],
        _ => vec![true],
    }
}

fn settle(maybe: &mut [Maybe], newer: &Event) {
    let newer = match newer {
        Event::Cached(newer) => newer,
        Event::Remove { drive, file } => {
            // What was written to a file goes with it, also when another takes its name.
            let gone = |older: &Landed| (older.drive, &older.file) == (*drive, file);
            let of_file = |maybe: &&mut Maybe| matches!(&maybe.0, Event::Cached(older) if gone(older));
            return maybe.iter_mut().filter(of_file).for_each(|maybe| maybe.1.fill(false));
        }
        _ => return,
    };
    for (older, live, _) in maybe {
        let Event::Cached(older) = older else { continue };
        if (older.drive, &older.file) != (newer.drive, &newer.file) {
            continue;
        }
        for (at, live) in live.iter_mut().enumerate() {
            let place = older.offset + at as u64;
            *live &= !(newer.offset..newer.offset + newer.content.len()).contains(&place);
        }
    }
}

fn on(maybe: &Maybe, drive: usize) -> bool {
    matches!(&maybe.0, Event::Cached(landed) if landed.drive == drive)
}

impl Oracle {
    /// Reads the trace by the rules in the head of `crash.rs`, position by position. The number in a state is the
    /// count of marks passed.
    fn new(trace: &Trace, tears: bool) -> Self {
        let mut oracle = Self { states: BTreeSet::new() };
        let (mut durable, mut maybe) = (plain(&trace.base), Vec::<Maybe>::new());
        // As the enumeration does, a trace counts as begun by a mark.
        let (mut marks, mut after_mark) = (0, true);
        for event in trace.events() {
            let under_way: Vec<Event> = match event {
                Event::Cached(_) | Event::Create { .. } | Event::Remove { .. } => vec![event.clone()],
                Event::Durable(set) => set.iter().cloned().map(Event::Cached).collect(),
                Event::Failed(landed) => vec![Event::Cached(landed.clone())],
                _ => Vec::new(),
            };
            let mut all = maybe.clone();
            all.extend(under_way.iter().map(|event| (event.clone(), whole(event), false)));
            let is_mark = matches!(event, Event::Mark { .. });
            // Between two marks: the same drives as after the second, with less promised.
            if !(is_mark && after_mark) {
                oracle.subsets(marks, &durable, &all, tears);
            }
            after_mark = is_mark;
            match event {
                Event::Cached(_) => maybe = all,
                Event::Durable(_) | Event::Create { .. } | Event::Remove { .. } => {
                    for change in &under_way {
                        settle(&mut maybe, change);
                        put(&mut durable, change, |_| true);
                    }
                }
                Event::Failed(_) => {
                    maybe = all;
                    maybe.last_mut().unwrap().2 = true;
                }
                Event::FlushFailed { drive } => {
                    maybe.iter_mut().filter(|maybe| on(maybe, *drive)).for_each(|maybe| maybe.2 = true);
                }
                Event::Flush { drive } => {
                    while let Some(at) = maybe.iter().position(|maybe| on(maybe, *drive) && !maybe.2) {
                        let (change, live, _) = maybe.remove(at);
                        put(&mut durable, &change, |at| live[at]);
                        settle(&mut maybe[..at], &change);
                    }
                }
                Event::Mark { .. } => marks += 1,
            }
        }
        oracle.subsets(marks, &durable, &maybe, tears);
        oracle
    }

    fn subsets(&mut self, marks: usize, durable: &Plain, all: &[Maybe], tears: bool) {
        for mask in 0..1u32 << all.len() {
            let there = |index: usize| mask >> index & 1 == 1;
            self.add(marks, durable, all, there, None);
            for torn in (0..all.len()).filter(|index| tears && there(*index)) {
                let Event::Cached(landed) = &all[torn].0 else { continue };
                let edges = (landed.offset..landed.offset + landed.content.len()).filter(|at| at % 512 == 0);
                for cut in edges.map(|at| (at - landed.offset) as usize).filter(|cut| *cut > 0) {
                    self.add(marks, durable, all, there, Some((torn, 0..cut)));
                    self.add(marks, durable, all, there, Some((torn, cut..usize::MAX)));
                }
            }
        }
    }

    fn add(
        &mut self,
        marks: usize,
        durable: &Plain,
        all: &[Maybe],
        there: impl Fn(usize) -> bool,
        torn: Option<(usize, Range<usize>)>,
    ) {
        let mut state = durable.clone();
        for (index, (change, live, _)) in all.iter().enumerate().filter(|(index, _)| there(*index)) {
            let keep =
                torn.as_ref().filter(|torn| torn.0 == index).map_or(0..usize::MAX, |torn| torn.1.clone());
            put(&mut state, change, |at| live[at] && keep.contains(&at));
        }
        self.states.insert((marks, state));
    }
}

/// A short random program: overlapping cached and durable writes, parallel sets, flushes, files.
fn random_trace(seed: u64, drives: usize, events: usize) -> Trace {
    let (world, drives, files) = world_with_files(drives, 4 * 1024);
    world.start_trace();
    let mut rng = Rng::from_seed(seed);
    for number in 0..events {
        let at = rng.below(drives.len() as u64) as usize;
        let (drive, file) = (&drives[at], files[at]);
        let data = vec![number as u8 + 1; 512 * (1 + rng.below(3) as usize)];
        let offset = 512 * rng.below(5);
        match rng.below(12) {
            0..3 => drive.write(file, offset, &[&data], Durability::Cached).unwrap(),
            3 => drive.write(file, offset, &[&data], Durability::Durable).unwrap(),
            4 => {
                let set = [page(number as u8 + 1)];
                let slices = [&set[0][..]];
                let copy =
                    |at: usize| Write { drive: &drives[at], file: files[at], offset: 0, slices: &slices };
                let writes: Vec<Write<'_>> = (0..drives.len()).map(copy).collect();
                assert!(crate::drive::write_durable(&writes).iter().all(Result::is_ok));
            }
            5 => {
                let fault = drive.add_fault(Fault::chance(FaultKind::FlushError, 1, 3));
                let failed = drive.flush().is_err();
                assert_eq!(failed, drive.fault_hits(fault) == 1);
                drive.remove_fault(fault);
            }
            9 => {
                let fault = drive.add_fault(Fault::always(FaultKind::WriteError));
                drive.write(file, offset, &[&data], Durability::Durable).unwrap_err();
                drive.remove_fault(fault);
            }
            6 | 10 | 11 => match drive.open("extra").unwrap() {
                Some(extra) if rng.chance(1, 2) => {
                    drive.write(extra, 0, &[&data[..512]], Durability::Cached).unwrap();
                }
                Some(_) => drive.remove("extra").unwrap(),
                None => drive.create("extra", 1024).map(drop).unwrap(),
            },
            7 => world.mark("step", number as u64),
            _ => drive.write(file, offset, &[&[0; 1024]], Durability::Durable).unwrap(),
        }
    }
    world.take_trace().unwrap()
}

fn enumerated(trace: &Trace, options: CrashOptions) -> BTreeSet<(usize, Plain)> {
    let states = trace.crash_states(options);
    states.map(|state| (trace.marks(state.position).count(), plain(state.images()))).collect()
}

#[test]
fn enumeration_equals_brute_force() {
    let options = || CrashOptions { torn_variants_max: 0, ..CrashOptions::default() };
    let mut total = 0;
    for seed in 0..400 {
        let trace = random_trace(seed, 1 + seed as usize % 2, 9);
        let (expected, found) = (Oracle::new(&trace, false).states, enumerated(&trace, options()));
        assert!(found == expected, "seed {seed}: {} states, not {}", found.len(), expected.len());
        total += found.len();
    }
    assert!(total > 1000, "only {total} states: the programs are too tame");
}

#[test]
fn torn_enumeration_contains_every_single_cut() {
    let options = || CrashOptions { torn_variants_max: usize::MAX, ..CrashOptions::default() };
    for seed in 100..120 {
        let trace = random_trace(seed, 2, 5);
        let (expected, found) = (Oracle::new(&trace, true).states, enumerated(&trace, options()));
        let missing = expected.difference(&found).count();
        assert_eq!(missing, 0, "seed {seed}: of {} torn states", expected.len());
        // Beyond: sets of sectors in no order. Each is a mix, by sector, of an old and a new state.
        assert!(found.len() >= expected.len());
    }
}

#[test]
fn hashes_tell_states_apart_exactly_as_contents_do() {
    let trace = random_trace(7, 2, 9);
    let mut seen: BTreeMap<u64, Plain> = BTreeMap::new();
    let mut contents = BTreeSet::new();
    for state in trace.crash_states(CrashOptions::default()) {
        let content = plain(state.images());
        assert_eq!(seen.entry(state.hash()).or_insert_with(|| content.clone()), &content);
        contents.insert(content);
    }
    assert_eq!(seen.len(), contents.len());
    assert!(seen.len() > 10);
}

#[test]
fn flushed_writes_are_in_every_later_state_and_unflushed_ones_are_not() {
    let (world, drives, files) = world_with_files(1, 1 << 20);
    let (drive, file) = (&drives[0], files[0]);
    world.start_trace();
    drive.write(file, 0, &[&page(1)], Durability::Cached).unwrap();
    drive.flush().unwrap();
    world.mark("flushed", 1);
    drive.write(file, 4096, &[&page(2)], Durability::Cached).unwrap();
    world.mark("cached", 2);
    let trace = world.take_trace().unwrap();
    let mut seen = [0; 2];
    for state in trace.crash_states(CrashOptions::default()) {
        let bytes = state.images()[0].read("slab", 0, 2 * PAGE).unwrap();
        if trace.last_mark("flushed", state.position).is_some() {
            assert_eq!(bytes[..PAGE], page(1));
        }
        if trace.last_mark("cached", state.position).is_some() {
            seen[usize::from(bytes[PAGE..] == page(2))] += 1;
        }
    }
    assert!(
        seen[0] > 0 && seen[1] > 0,
        "an unflushed write is absent in some states, there in others: {seen:?}"
    );
}

#[test]
fn a_killed_process_loses_nothing_that_returned() {
    let (world, drives, files) = world_with_files(2, 1 << 20);
    world.start_trace();
    for step in 0..4u8 {
        let at = usize::from(step % 2);
        drives[at].write(files[at], 0, &[&page(step), &page(step)], Durability::Cached).unwrap();
        world.mark("acknowledged", u64::from(step));
    }
    let trace = world.take_trace().unwrap();
    let options = CrashOptions { kind: CrashKind::Kill, ..CrashOptions::default() };
    let (mut torn, mut last) = (0, 0);
    for state in trace.crash_states(options) {
        let Some(acknowledged) = trace.last_mark("acknowledged", state.position) else { continue };
        let images = state.images();
        let at = acknowledged as usize % 2;
        let bytes = images[at].read("slab", 0, 2 * PAGE).unwrap();
        assert_eq!(bytes[..PAGE], page(acknowledged as u8), "the newest write of its drive");
        let other = images[1 - at].read("slab", 0, 2 * PAGE).unwrap();
        torn += usize::from(other[..PAGE] != other[PAGE..]);
        last = last.max(acknowledged);
    }
    assert!(torn > 0, "the write under way is cut at a page in some state");
    assert_eq!(last, 3);
}

#[test]
fn a_state_becomes_a_world_that_can_crash_again() {
    let (world, drives, files) = world_with_files(2, 1 << 20);
    drives[1].set_disk_id(77);
    world.start_trace();
    drives[0].write(files[0], 0, &[&page(1)], Durability::Cached).unwrap();
    let trace = world.take_trace().unwrap();
    for state in trace.crash_states(CrashOptions::default()) {
        let again = state.world(3);
        let drives = again.drives();
        assert_eq!((drives[1].name(), drives[1].space().unwrap().disk_id), ("drive-1".to_owned(), 77));
        let file = drives[0].open("slab").unwrap().unwrap();
        assert_eq!(read(&drives[0], file, 0, PAGE), state.images()[0].read("slab", 0, PAGE).unwrap());
        again.start_trace();
        drives[0].write(file, 8192, &[&page(9)], Durability::Durable).unwrap();
        let second = again.take_trace().unwrap();
        let hashes: BTreeSet<u64> =
            second.crash_states(CrashOptions::default()).map(|state| state.hash()).collect();
        assert!(hashes.contains(&state.hash()), "the second crash may come before the repair");
        assert!(hashes.len() > 2);
        assert_eq!(drives[0].read_raw("slab", 8192, PAGE).unwrap(), page(9));
    }
    assert_eq!(drives[0].read_raw("slab", 8192, PAGE).unwrap(), page(0), "states share blocks, not changes");
}

#[test]
fn a_failed_flush_is_never_made_good_by_a_later_one() {
    let (world, drives, files) = world_with_files(1, 1 << 20);
    let (drive, file) = (&drives[0], files[0]);
    world.start_trace();
    drive.write(file, 0, &[&page(1)], Durability::Cached).unwrap();
    let fault = drive.add_fault(Fault::nth(FaultKind::FlushError, 1));
    assert_eq!(drive.flush().unwrap_err().raw_os_error(), Some(libc::EIO));
    drive.write(file, 4096, &[&page(2)], Durability::Cached).unwrap();
    drive.flush().unwrap();
    assert_eq!(drive.fault_hits(fault), 1);
    world.mark("end", 0);
    let trace = world.take_trace().unwrap();
    let (mut lost, mut kept) = (0, 0);
    for state in trace.crash_states(CrashOptions::default()) {
        if trace.last_mark("end", state.position).is_some() {
            let bytes = state.images()[0].read("slab", 0, 2 * PAGE).unwrap();
            assert_eq!(bytes[PAGE..], page(2));
            lost += usize::from(bytes[..PAGE] == page(0));
            kept += usize::from(bytes[..PAGE] == page(1));
        }
    }
    assert!(lost > 0 && kept > 0, "{lost} {kept}");
}

#[test]
fn a_power_cut_takes_nothing_back_that_was_durably_written_after_a_failed_flush() {
    let mut taken_back = 0;
    for seed in 0..8 {
        let (world, drives, files) = world_with_files(seed as usize + 1, 1 << 20);
        let (drive, file) = (&drives[seed as usize], files[seed as usize]);
        drive.add_fault(Fault::nth(FaultKind::FlushError, 1));
        drive.write(file, 0, &[&page(1), &page(2)], Durability::Durable).unwrap_err();
        drive.write(file, 4096, &[&page(3)], Durability::Durable).unwrap();
        world.end_now(CrashKind::Power);
        world.restore_power();
        let bytes = drive.read_raw("slab", 0, 2 * PAGE).unwrap();
        assert!(bytes[..PAGE] == page(0) || bytes[..PAGE] == page(1));
        taken_back += usize::from(bytes[..PAGE] == page(0));
        assert_eq!(bytes[PAGE..], page(3));
        // Nor what was made anew under the same name.
        drive.add_fault(Fault::nth(FaultKind::FlushError, 1));
        drive.write(file, 0, &[&page(4)], Durability::Durable).unwrap_err();
        drive.remove("slab").unwrap();
        drive.create("slab", 1 << 20).unwrap();
        world.end_now(CrashKind::Power);
        world.restore_power();
        assert_eq!(drive.read_raw("slab", 0, PAGE).unwrap(), page(0));
    }
    assert!(taken_back > 0 && taken_back < 8, "{taken_back}");
}

#[test]
fn sampled_positions_stay_within_their_bounds() {
    let (world, drives, files) = world_with_files(2, 1 << 20);
    world.start_trace();
    for number in 0..40u64 {
        let at = number as usize % 2;
        drives[at].write(files[at], number * 4096, &[&page(1)], Durability::Cached).unwrap();
    }
    let trace = world.take_trace().unwrap();
    let mut by_position: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
    for state in trace.crash_states(CrashOptions { torn_variants_max: 0, ..CrashOptions::default() }) {
        by_position.entry(state.position).or_default().insert(state.hash());
    }
    let last = &by_position[&39];
    assert!(last.len() > 40 && last.len() <= 64, "{} states", last.len());
    let whole = SimDrive::from_image("whole", 64 << 20, &drives[0].image(), 0).image().hash();
    assert_eq!(whole, drives[0].image().hash());
}

// ---- determinism ----

#[test]
fn one_seed_gives_one_trace_and_one_list_of_states() {
    let run = |seed: u64| {
        let trace = random_trace(seed, 2, 30);
        let states: Vec<u64> =
            trace.crash_states(CrashOptions::default()).map(|state| state.hash()).collect();
        (trace.hash(), states)
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11).0, run(12).0);
}

#[test]
fn one_seed_gives_one_sequence_of_faults() {
    let run = |seed: u64| {
        let world = SimWorld::new(seed);
        let drive = world.add_drive("drive", 1 << 20);
        let file = drive.create("slab", 1 << 19).unwrap();
        world.start_trace();
        drive.add_fault(Fault::chance(FaultKind::LostWrite, 1, 4));
        drive.add_fault(Fault::chance(FaultKind::WriteError, 1, 4));
        drive.add_fault(Fault::chance(FaultKind::MisdirectedWrite, 1, 4));
        for at in 0..64 {
            // Failing is what some of them are for; the trace hash holds what landed.
            let _ = drive.write(file, at * 4096, &[&page(at as u8 + 1)], Durability::Durable);
        }
        world.take_trace().unwrap().hash()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

// ---- every kind of fault shows ----

struct Bench {
    world: SimWorld,
    drive: SimDrive,
    file: FileId,
}

fn bench() -> Bench {
    let (world, drives, files) = world_with_files(1, 16 * PAGE as u64);
    for at in 0..16 {
        drives[0].write(files[0], at * 4096, &[&page(100 + at as u8)], Durability::Durable).unwrap();
    }
    Bench { world, drive: drives[0].clone(), file: files[0] }
}

impl Bench {
    fn set(&self, kind: FaultKind) -> FaultId {
        self.drive.add_fault(Fault::always(kind))
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.drive.write(self.file, offset, &[bytes], Durability::Durable)
    }

    fn read(&self, offset: u64) -> Vec<u8> {
        read(&self.drive, self.file, offset, PAGE)
    }
}

fn code<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

#[test]
fn read_errors_hit_their_range_only_and_can_be_lifted() {
    let bench = bench();
    let fault = bench.drive.add_fault(Fault::always(FaultKind::ReadError).within("slab", 4096..8192));
    assert_eq!(code(bench.drive.read(bench.file, 4000, &mut [0; 200])), Some(libc::EIO));
    assert_eq!(bench.read(0), page(100));
    assert_eq!(bench.read(8192), page(102));
    assert_eq!(bench.drive.fault_hits(fault), 1);
    bench.drive.remove_fault(fault);
    assert_eq!(bench.read(4096), page(101));
}

#[test]
fn write_errors_may_leave_any_part_behind() {
    let bench = bench();
    let mut lengths = BTreeSet::new();
    bench.set(FaultKind::WriteError);
    for _ in 0..64 {
        bench.drive.restore(&bench.drive.image());
        bench.drive.write_raw("slab", 0, &page(0));
        assert_eq!(code(bench.write(0, &page(7))), Some(libc::EIO));
        let there = bench.drive.read_raw("slab", 0, PAGE).unwrap();
        let length = there.iter().take_while(|byte| **byte == 7).count();
        assert!(there[length..].iter().all(|byte| *byte == 0));
        lengths.insert(length);
    }
    assert!(lengths.contains(&0) && lengths.contains(&PAGE), "{lengths:?}");
    assert!(lengths.iter().all(|length| length % 512 == 0));
}

#[test]
fn the_nth_call_fails_and_no_other() {
    let bench = bench();
    bench.drive.add_fault(Fault::nth(FaultKind::WriteError, 3));
    let failed: Vec<usize> = (1..=6).filter(|_| bench.write(0, &page(1)).is_err()).collect();
    assert_eq!(failed, [3]);
}

#[test]
fn lost_writes_are_hidden_bytes_not_lost_ones() {
    let bench = bench();
    let fault = bench.set(FaultKind::LostWrite);
    bench.write(4096, &page(7)).unwrap();
    assert_eq!(bench.read(4096), page(101), "acknowledged, never landed");
    assert_eq!(bench.drive.damage(), [("slab".to_owned(), 4096..8192)]);
    bench.drive.hide_damage(true);
    assert_eq!(bench.read(4096), page(7));
    bench.drive.hide_damage(false);
    bench.drive.remove_fault(fault);
    bench.write(4096, &page(8)).unwrap();
    assert_eq!(bench.read(4096), page(8), "a later write is not lost");
    assert!(bench.drive.damage().is_empty());
}

#[test]
fn torn_writes_land_up_to_a_sector() {
    let bench = bench();
    bench.set(FaultKind::TornWrite);
    bench.write(0, &page(7)).unwrap();
    let there = bench.read(0);
    let length = there.iter().take_while(|byte| **byte == 7).count();
    assert!(length < PAGE && length % 512 == 0, "{length}");
    assert_eq!(there[length..], page(100)[length..]);
    assert_eq!(bench.drive.damage().len(), 1);
}

#[test]
fn misdirected_writes_land_elsewhere_whole_and_aligned() {
    let bench = bench();
    bench.set(FaultKind::MisdirectedWrite);
    bench.write(4096, &page(7)).unwrap();
    assert_eq!(bench.read(4096), page(101), "not where it belongs");
    let places: Vec<u64> = (0..16).map(|at| at * 4096).filter(|at| bench.read(*at) == page(7)).collect();
    assert_eq!(places.len(), 1);
    assert_ne!(places[0], 4096);
    assert_eq!(bench.drive.damage().len(), 2, "both places are damaged");
}

#[test]
fn misdirected_reads_answer_with_another_page() {
    let bench = bench();
    let fault = bench.set(FaultKind::MisdirectedRead);
    let answer = bench.read(4096);
    assert!(answer != page(101) && (100..116).any(|fill| answer == page(fill)));
    bench.drive.remove_fault(fault);
    assert_eq!(bench.read(4096), page(101));
}

#[test]
fn rotten_bits_stay_rotten() {
    let bench = bench();
    let fault = bench.set(FaultKind::BitRot);
    let answer = bench.read(4096);
    let flipped: u32 = answer.iter().zip(page(101)).map(|(one, two)| (one ^ two).count_ones()).sum();
    assert_eq!(flipped, 1);
    bench.drive.remove_fault(fault);
    assert_eq!(bench.read(4096), answer);
    assert_eq!(bench.drive.damage(), [("slab".to_owned(), 4096..8192)]);
    bench.drive.hide_damage(true);
    assert_eq!(bench.read(4096), page(101));
}

#[test]
fn slow_calls_take_virtual_time() {
    let bench = bench();
    let clock = bench.world.clock();
    let before = clock.boottime_ns();
    bench.read(0);
    assert_eq!(clock.boottime_ns(), before);
    bench.set(FaultKind::Slow { delay_ns: 5_000_000 });
    bench.read(0);
    bench.drive.flush().unwrap();
    assert_eq!(clock.boottime_ns() - before, 10_000_000);
}

#[test]
fn full_drives_take_nothing_and_still_give() {
    let bench = bench();
    let fault = bench.set(FaultKind::Full);
    assert_eq!(bench.drive.create("more", 4096).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(bench.write(0, &page(7)).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(bench.drive.space().unwrap().free_bytes, 0);
    assert_eq!(bench.read(0), page(100));
    bench.drive.flush().unwrap();
    bench.drive.remove_fault(fault);
    bench.write(0, &page(7)).unwrap();
}

#[test]
fn vanished_drives_answer_nothing_until_they_return_with_everything() {
    for errno in [libc::ENODEV, libc::ENOTCONN] {
        let bench = bench();
        let fault = bench.set(FaultKind::Vanished { errno });
        assert_eq!(code(bench.drive.read(bench.file, 0, &mut [0])), Some(errno));
        assert_eq!(code(bench.write(0, &page(1))), Some(errno));
        assert_eq!(code(bench.drive.flush()), Some(errno));
        assert_eq!(code(bench.drive.create("more", 1)), Some(errno));
        assert_eq!(code(bench.drive.open("slab")), Some(errno));
        assert_eq!(code(bench.drive.list()), Some(errno));
        assert_eq!(code(bench.drive.space()), Some(errno));
        assert_eq!(code(bench.drive.bytes(bench.file)), Some(errno));
        assert_eq!(code(bench.drive.remove("slab")), Some(errno));
        bench.drive.remove_fault(fault);
        assert_eq!(bench.read(0), page(100));
    }
}

#[test]
fn an_old_image_can_return_in_the_drives_place() {
    let bench = bench();
    let old = bench.drive.image();
    bench.write(0, &page(7)).unwrap();
    let late = bench.drive.create("late", 4096).unwrap();
    bench.drive.restore(&old);
    assert_eq!(bench.read(0), page(100));
    assert_eq!(bench.drive.read(late, 0, &mut [0]).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(bench.drive.damage().is_empty(), "a stale drive is whole in itself");
}

#[test]
fn faults_of_one_drive_leave_the_other_copy_alone() {
    let (world, drives, files) = world_with_files(2, 1 << 20);
    world.start_trace();
    drives[0].add_fault(Fault::always(FaultKind::WriteError));
    let frame = page(5);
    let slices = [&frame[..]];
    let writes = [0, 1].map(|at| Write { drive: &drives[at], file: files[at], offset: 0, slices: &slices });
    let results = crate::drive::write_durable(&writes);
    assert_eq!(results[0].as_ref().unwrap_err().raw_os_error(), Some(libc::EIO));
    results[1].as_ref().unwrap();
    drives[0].flush().unwrap();
    world.mark("acknowledged", 0);
    let trace = world.take_trace().unwrap();
    for state in trace.crash_states(CrashOptions::default()) {
        if trace.last_mark("acknowledged", state.position).is_some() {
            assert_eq!(state.images()[1].read("slab", 0, PAGE).unwrap(), page(5));
        }
    }
    let odd = [&frame[..100]];
    let writes = [Write { drive: &drives[1], file: files[1], offset: 0, slices: &odd }];
    assert_eq!(crate::drive::write_durable(&writes)[0].as_ref().unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn virtual_time_moves_only_when_told() {
    let clock = SimClock::default();
    let (boot, wall) = (clock.boottime_ns(), clock.wall());
    clock.advance(1_500_000_000);
    assert_eq!(clock.boottime_ns(), boot + 1_500_000_000);
    assert_eq!(clock.wall(), (wall.0 + 1, wall.1 + 500_000_000));
    clock.set_wall(-5, 7);
    assert_eq!((clock.wall(), clock.boottime_ns()), ((-5, 7), boot + 1_500_000_000));
    clock.advance(1_000_000_000);
    assert_eq!(clock.wall(), (-4, 7));
    clock.reboot();
    assert_eq!((clock.wall(), clock.boottime_ns()), ((-4, 7), 0));
}

mod reading {
    use super::*;
    use crate::drive::{First, Source, read_first};

    const MS: u64 = 1_000_000;

    /// Drives that hold the same page of noise, and how long each takes.
    fn copies(delays_ms: &[u64]) -> (SimWorld, Vec<(SimDrive, FileId)>, Vec<u8>) {
        let world = SimWorld::new(5);
        let bytes: Vec<u8> = (0..4096u32).map(|at| (at * 7 % 251) as u8).collect();
        let made = |(at, delay): (usize, &u64)| {
            let drive = world.add_drive(&format!("d{at}"), 1 << 20);
            let file = drive.create("f", 8192).expect("created");
            drive.write(file, 4096, &[&bytes], Durability::Durable).expect("written");
            drive.add_fault(Fault::always(FaultKind::Slow { delay_ns: delay * MS }));
            (drive, file)
        };
        let drives = delays_ms.iter().enumerate().map(made).collect();
        (world, drives, bytes)
    }

    fn race(drives: &[(SimDrive, FileId)], into: &mut [u8], right: &[u8]) -> (First, Vec<usize>) {
        let sources: Vec<Source<'_>> =
            drives.iter().map(|(drive, file)| Source { drive, file: *file, offset: 4096 }).collect();
        let mut answers = Vec::new();
        let first = read_first(&sources, into, 10 * MS, &mut |answer| {
            answers.push(answer.source);
            answer.bytes.is_ok_and(|bytes| bytes == right)
        });
        (first, answers)
    }

    #[test]
    fn a_late_copy_is_not_waited_for() {
        let (world, drives, bytes) = copies(&[300, 2]);
        let (mut into, began) = (vec![0; 4096], world.clock().boottime_ns());
        let (first, answers) = race(&drives, &mut into, &bytes);
        assert_eq!((first, answers), (First { winner: Some(1), late: 1 }, vec![1]));
        assert_eq!((into, world.clock().boottime_ns() - began), (bytes, 12 * MS), "patience and the other's time");
    }

    #[test]
    fn the_first_answer_wins_even_when_it_was_late() {
        let (world, drives, bytes) = copies(&[15, 100]);
        let (mut into, began) = (vec![0; 4096], world.clock().boottime_ns());
        let (first, answers) = race(&drives, &mut into, &bytes);
        assert_eq!((first, answers), (First { winner: Some(0), late: 1 }, vec![0]));
        assert_eq!(world.clock().boottime_ns() - began, 15 * MS);
    }

    #[test]
    fn wrong_and_failed_answers_make_the_next_one_be_asked_at_once() {
        let (world, drives, bytes) = copies(&[1, 1, 1]);
        drives[0].0.add_fault(Fault::always(FaultKind::ReadError));
        drives[1].0.flip_bit("f", 5000, 1);
        let (mut into, began) = (vec![0; 4096], world.clock().boottime_ns());
        let (first, answers) = race(&drives, &mut into, &bytes);
        assert_eq!((first, answers), (First { winner: Some(2), late: 0 }, vec![0, 1, 2]));
        assert_eq!(world.clock().boottime_ns() - began, 3 * MS);
        drives[2].0.flip_bit("f", 5000, 1);
        let (first, answers) = race(&drives, &mut into, &bytes);
        assert_eq!((first.winner, answers.len()), (None, 3), "nothing is right");
    }

    #[test]
    fn each_is_asked_at_once_and_none_is_waited_for_longer_than_the_patience() {
        let (world, drives, bytes) = copies(&[1, 300, 4]);
        drives[2].0.add_fault(Fault::always(FaultKind::ReadError));
        let sources: Vec<Source<'_>> =
            drives.iter().map(|(drive, file)| Source { drive, file: *file, offset: 4096 }).collect();
        let began = world.clock().boottime_ns();
        let answers = crate::drive::read_each(&sources, 4096, 10 * MS);
        assert_eq!(world.clock().boottime_ns() - began, 10 * MS);
        assert!(matches!(&answers[0], Some(Ok(read)) if *read == bytes));
        assert!(answers[1].is_none(), "late");
        assert!(matches!(&answers[2], Some(Err(_))));
    }
}

#[test]
fn writes_that_join_were_under_way_together() {
    let (world, drives, files) = world_with_files(1, 1 << 20);
    let write = |at: u64| drives[0].write(files[0], at * PAGE as u64, &[&page(at as u8)], Durability::Durable).unwrap();
    world.start_trace();
    write(1);
    world.join_next();
    write(2);
    write(3);
    world.mark("between", 1);
    world.join_next();
    write(4);
    let offsets = |event: &Event| match event {
        Event::Durable(set) => set.iter().map(|landed| landed.offset / PAGE as u64).collect(),
        _ => Vec::new(),
    };
    let found: Vec<Vec<u64>> = world.trace().unwrap().events().iter().map(offsets).collect();
    assert_eq!(found, [vec![1, 2], vec![3], vec![], vec![4]]);
}
