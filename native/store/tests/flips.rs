//! Every single byte of every stored structure of a small, cleanly stopped pool, flipped: superblocks, manifest, tables, data,
//! footers, log segments, with at least one of every record kind among them (`rig/census.rs` counts them on the drives). Never
//! wrong bytes: at RF 2 all is right, a scrub mends the drive, and it then is a whole copy by itself; at RF 1 a read is right, or
//! fails with an error that says where.
//!
//! What lies in slots has a checksum of its own in each page at least, so byte n of every page of a drive is flipped at once;
//! superblocks and manifest records depend on each other and are flipped one byte at a time. CI takes a sample by seed; the
//! whole (`--ignored`) is part of `npm run test:long`.

mod rig;

use holdfast_device::threads::run_parallel;
use holdfast_device::{Drive, Rng, SimDrive, SimWorld};
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::manifest::{RECORD_HEADER_BYTES, RecordKind};
use holdfast_format::superblock::{SUPERBLOCK_BYTES, Superblock};
use holdfast_format::table::{TableDesc, TreeKind};
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{FileSystem, FsError, WriteFlags};
use holdfast_store::engine::{Delta, Engine, RetentionChange, VolumeInfo};
use holdfast_store::error::Kind;
use holdfast_store::volume::Volume;
use rig::census::{Census, census, missing};
use rig::player::{Plan, Player, mount, options};
use rig::tree::walk;
use rig::{ROOT, Rig, Rings, foundation, manifest};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const DRIVES: usize = 2;
const THREADS: usize = 2;
const SEEDS_TRIED: u64 = 60;
/// Payload of three slots.
const LONG_WRITES: u64 = 12;
const LONG_WRITE_BYTES: u64 = 64 << 10;
const SAMPLE_SEED: u64 = 7;
/// Page offsets, and single bytes of superblocks and manifest, in the sample.
const SAMPLED_OFFSETS: usize = 40;
const SAMPLED_BYTES: usize = 160;

/// A replica of another pool's volume, the clone that is to stand alone, and a snapshot that is held.
const FAR: &str = "far";
const FAR_SEED: u64 = 11;
const FAR_BYTES: u64 = 48 << 10;
const COPY: &str = "copy";
const HELD: &str = "held";
/// Owner and others may do this, user 7, the group and the mask that (`store/src/volume/acl.rs`).
const ACL: [(u16, u16, u32); 5] =
    [(0x01, 6, u32::MAX), (0x02, 4, 7), (0x04, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)];

type Contents = BTreeMap<Ino, Vec<u8>>;

/// A pool to be damaged, and what it holds.
struct Base {
    world: SimWorld,
    /// Volumes of RF 2: everything that can be seen of them.
    texts: BTreeMap<String, String>,
    /// The same of them at a kept point: volume, point, what was seen.
    pasts: Vec<(String, String, String)>,
    /// Volumes of RF 1: what their files hold.
    singles: BTreeMap<String, Contents>,
    /// Pages of slabs that hold something, by drive.
    pages: Vec<Vec<(String, u64)>>,
    /// What there is to be flipped.
    census: Census,
}

/// What is flipped in one copy of the pool.
#[derive(Clone, Debug)]
enum Flip {
    /// This byte of every page.
    Pages { drive: usize, offset: u64 },
    Byte { drive: usize, kind: &'static str, file: &'static str, offset: u64 },
}

/// What came of the flips of one kind.
#[derive(Clone, Default, Debug)]
struct Outcome {
    runs: u64,
    bytes_flipped: u64,
    /// Records and superblocks that were put right when the pool was opened.
    mended_at_open: u64,
    /// Copies that the scrub found wrong, and those of them that it put right.
    found: u64,
    mended: u64,
    /// Things with one copy that the scrub reported by their place.
    told: u64,
    /// Files with one copy that gave an error with the place instead of bytes.
    refused: u64,
    /// Runs in which nobody met the flip: what was flipped counts for nothing, or was written again before it was read.
    unmet: u64,
}

impl Outcome {
    fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.runs, other.runs),
            (&mut self.bytes_flipped, other.bytes_flipped),
            (&mut self.mended_at_open, other.mended_at_open),
            (&mut self.found, other.found),
            (&mut self.mended, other.mended),
            (&mut self.told, other.told),
            (&mut self.refused, other.refused),
            (&mut self.unmet, other.unmet),
        ];
        pairs.into_iter().for_each(|(sum, more)| *sum += more);
    }
}

impl Flip {
    fn kind(&self) -> &'static str {
        match self {
            Self::Pages { .. } => "every page of the slabs",
            Self::Byte { kind, .. } => kind,
        }
    }
}

fn open(world: &SimWorld, only: Option<usize>) -> Result<Arc<Engine>, String> {
    let drives = world.drives().into_iter().enumerate().filter(|(at, _)| only.is_none_or(|only| only == *at));
    let drives = drives.map(|(_, drive)| Arc::new(drive) as Arc<dyn Drive>).collect();
    Engine::open_on(drives, options(), foundation(world, &Rings::default(), 3)).map_err(|error| error.to_string())
}

/// Pages of the slabs that are not empty.
fn pages_of(drive: &SimDrive) -> Vec<(String, u64)> {
    let mut pages = Vec::new();
    for (file, bytes) in drive.files().into_iter().filter(|(file, _)| file.starts_with("slab-")) {
        for offset in (0..bytes).step_by(BLOCK_BYTES) {
            let page = drive.read_raw(&file, offset, BLOCK_BYTES).expect("inside the file");
            if page.iter().any(|byte| *byte != 0) {
                pages.push((file.clone(), offset));
            }
        }
    }
    pages
}

fn contents(engine: &Engine, name: &str) -> Contents {
    let volume = mount(engine, name);
    let files = walk(&volume).expect("reads").entries.into_iter().filter(|entry| entry.is_file());
    let mut contents = Contents::new();
    for entry in files {
        let mut bytes = vec![0; entry.size as usize];
        let got = volume.read(&ROOT, entry.ino, 0, &mut bytes).expect("reads");
        bytes.truncate(got);
        contents.insert(entry.ino, bytes);
    }
    contents
}

/// A volume of a stopped pool, of which nothing is changed.
fn with_volume<T>(world: &SimWorld, name: &str, look: impl Fn(&Engine, &str) -> T) -> T {
    let engine = open(&world.fork(1), None).expect("opens");
    look(&engine, name)
}

/// Runs of a tree in the group that has the most of them.
fn runs(engine: &Engine, tree: TreeKind) -> usize {
    let of = |tables: Vec<TableDesc>| tables.iter().filter(|table| table.tree == tree).count();
    engine.groups().into_iter().map(|group| of(group.tree().tables())).max().unwrap_or(0)
}

fn text(engine: &Engine, name: &str) -> String {
    walk(&mount(engine, name)).expect("reads").text
}

fn past_text(engine: &Engine, name: &str, words: &str) -> Result<String, String> {
    let (past, _) = engine.volume_at(name, words).map_err(|error| error.to_string())?;
    walk(&past).map(|tree| tree.text).map_err(|error| format!("{error:?}"))
}

fn random_bytes(rng: &mut Rng, count: u64) -> Vec<u8> {
    (0..count / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect()
}

/// Kinds of records that users do not make by chance. A file whose name is gone while somebody has it open; a pipe; an ACL; a
/// snapshot that is held; a follower; a clone that is to stand alone.
fn add_what_is_rare(engine: &Arc<Engine>, first: &VolumeInfo, volume: &Volume) {
    volume.create(&ROOT, ROOT_INO, b"orphan", 0o600).expect("created");
    volume.unlink(&ROOT, ROOT_INO, b"orphan").expect("unlinked");
    let pipe = volume.mknod(&ROOT, ROOT_INO, b"pipe", 0o010_600, 0).expect("created").ino;
    let entry = |(tag, permissions, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let acl: Vec<u8> = 2u32.to_le_bytes().into_iter().chain(ACL.into_iter().flat_map(entry)).collect();
    volume.setxattr(&ROOT, pipe, b"system.posix_acl_access", &acl, 0, false).expect("set");
    engine.snapshot_create(&first.group, HELD, None).expect("a snapshot");
    engine.snapshot_hold(&first.group, HELD, true).expect("held");
    let cut = engine.replica_cut(&first.group).expect("cut");
    engine.follower_has(&first.group, "another site", cut.lsn).expect("kept");
    engine.clone_create(&first.name, "gone", None).expect("a clone");
    engine.volume_destroy("gone").expect("destroyed");
    engine.clone_create(&first.name, COPY, None).expect("a clone");
    assert!(engine.clone_promote_begin(COPY).expect("wished"), "a clone has everything of its own at once");
}

/// A replica with a recovery point, and a batch after it that is not whole. Gives the name of the point.
fn follow_another_pool(engine: &Arc<Engine>) -> String {
    let owner = Rig::create(FAR_SEED, DRIVES, options());
    let volume = owner.volume(FAR, 2);
    let mut rng = Rng::from_seed(FAR_SEED);
    let mut write = |name: &[u8]| {
        let ino = volume.create(&ROOT, ROOT_INO, name, 0o600).expect("created").ino;
        let bytes = random_bytes(&mut rng, FAR_BYTES);
        volume.write(&ROOT, ino, 0, &bytes, WriteFlags::default()).expect("written");
    };
    let stage = |delta: &mut Delta, bytes_max: usize| {
        let part = delta.next_part(bytes_max).expect("read").expect("not the end");
        engine.replica_stage(FAR, &part.chunk, &part.cursor).expect("taken");
        !part.cursor.is_empty()
    };
    write(b"whole");
    engine.replica_create(&owner.engine.replica_describe(FAR).expect("described"), FAR, 2).expect("a replica");
    let first = owner.engine.replica_cut(FAR).expect("cut");
    let mut delta = owner.engine.delta_open(FAR, 0, first.lsn, &[]).expect("kept");
    while stage(&mut delta, usize::MAX) {}
    let state = || engine.replica_state(FAR).expect("told").expect("a replica");
    engine.replica_complete(FAR, (state().lineage, first.lsn), first.wall, "").expect("whole");
    owner.engine.follower_has(FAR, "here", first.lsn).expect("kept");
    write(b"in part");
    let second = owner.engine.replica_cut(FAR).expect("cut");
    let mut delta = owner.engine.delta_open(FAR, first.lsn, second.lsn, &[]).expect("kept");
    assert!(stage(&mut delta, 1), "a batch of one chunk");
    format!("lsn:{}", state().local_lsn)
}

impl Base {
    /// A pool that has met every operation, and what of all that is to be flipped it lacks.
    fn of(seed: u64) -> Result<Self, String> {
        let plan = Plan { seed, drives: DRIVES, rfs: &[2, 1], shared: false, before: 150, recorded: 20, wounded: false };
        let mut player = Player::new(plan);
        player.play();
        player.world.take_trace();
        let engine = player.engine();
        let world = player.world.clone();
        drop(player);
        let volumes = engine.volumes().expect("volumes");
        let (twos, ones): (Vec<_>, Vec<_>) = volumes.into_iter().partition(|volume| volume.rf > 1);
        let Some(first) = twos.first().filter(|_| !ones.is_empty()) else {
            return Err("a volume of each RF".to_owned());
        };
        let volume = mount(&engine, &first.name);
        add_what_is_rare(&engine, first, &volume);
        let received = follow_another_pool(&engine);
        let kept = RetentionChange { window_s: Some(1800), ..RetentionChange::default() };
        engine.retention_set(&first.group, &kept).expect("set");
        for group in engine.groups() {
            group.drain_now().expect("drained");
        }
        while engine.scrub_background_step().expect("scrubbed").is_some() {}
        engine.pool().clean_step().expect("cleaned");
        // Segments of the log that stay where they are.
        let ino = volume.create(&ROOT, ROOT_INO, b"long", 0o600).expect("created").ino;
        let mut rng = Rng::from_seed(seed);
        for at in 0..LONG_WRITES {
            let bytes = random_bytes(&mut rng, LONG_WRITE_BYTES);
            volume.write(&ROOT, ino, at * LONG_WRITE_BYTES, &bytes, WriteFlags::default()).expect("written");
        }
        drop(volume);
        let (now, then) = (runs(&engine, TreeKind::Now), runs(&engine, TreeKind::Then));
        engine.close().expect("closed");
        drop(engine);
        let census = census(&world);
        let segments = census.get("segment with frames").copied().unwrap_or(0);
        let lacking = missing(&census);
        if now < 2 || then < 2 || segments < 3 || !lacking.is_empty() {
            return Err(format!("{now} runs of NOW, {then} of THEN, {segments} segments, without {lacking:?}"));
        }
        let names = twos.iter().map(|volume| volume.name.as_str()).chain([COPY]);
        let texts = names.map(|name| (name.to_owned(), with_volume(&world, name, text))).collect();
        let past = |name: &str, words: String| {
            let seen = with_volume(&world, name, |engine, name| past_text(engine, name, &words).expect("kept"));
            (name.to_owned(), words, seen)
        };
        let pasts = vec![past(&first.name, HELD.to_owned()), past(FAR, received)];
        let singles = ones.iter().map(|volume| (volume.name.clone(), with_volume(&world, &volume.name, contents))).collect();
        let pages = world.drives().iter().map(pages_of).collect();
        Ok(Self { world, texts, pasts, singles, pages, census })
    }

    fn first() -> Self {
        let mut lacking = Vec::new();
        let found = (0..SEEDS_TRIED).find_map(|seed| Self::of(seed).map_err(|what| lacking.push(what)).ok());
        let base = found.unwrap_or_else(|| panic!("no pool with everything that is to be flipped: {lacking:#?}"));
        println!("{:#?}", base.census);
        base
    }

    /// Bytes of superblocks.
    fn superblock_bytes(&self) -> Vec<Flip> {
        let (kind, file) = ("superblock", "superblock");
        let bytes = 0..2 * SUPERBLOCK_BYTES as u64;
        let of = |drive| bytes.clone().map(move |offset| Flip::Byte { drive, kind, file, offset });
        (0..DRIVES).flat_map(of).collect()
    }

    /// Bytes of the heads and bodies of a drive's manifest records.
    fn manifest_bytes(&self, drive: usize) -> Vec<Flip> {
        let mut flips = Vec::new();
        for record in manifest::records(&self.world.drives()[drive]) {
            let kind = match record.head.kind {
                RecordKind::Header => "manifest header",
                RecordKind::Snapshot => "manifest snapshot",
                RecordKind::Edit => "manifest edit",
            };
            let bytes = (RECORD_HEADER_BYTES + record.head.body_bytes as usize) as u64;
            let range = record.offset..record.offset + bytes;
            flips.extend(range.map(|offset| Flip::Byte { drive, kind, file: "manifest", offset }));
        }
        flips
    }

    fn page_offsets(&self) -> Vec<Flip> {
        let offsets = |drive| (0..BLOCK_BYTES as u64).map(move |offset| Flip::Pages { drive, offset });
        (0..DRIVES).flat_map(offsets).collect()
    }

    /// Flips, and demands what the promise says.
    fn check(&self, flip: &Flip) -> Result<Outcome, String> {
        let mut outcome = Outcome { runs: 1, ..Outcome::default() };
        let world = self.world.fork(1);
        let victim = match flip {
            Flip::Byte { drive, file, offset, .. } => {
                world.drives()[*drive].flip_bit(file, *offset, (*offset % 8) as u8);
                outcome.bytes_flipped = 1;
                *drive
            }
            Flip::Pages { drive, offset } => {
                let sim = &world.drives()[*drive];
                let flip = |(file, page): &(String, u64)| sim.flip_bit(file, page + offset, (offset % 8) as u8);
                self.pages[*drive].iter().for_each(flip);
                outcome.bytes_flipped = self.pages[*drive].len() as u64;
                *drive
            }
        };
        let superblock = match flip {
            Flip::Byte { file: "superblock", offset, .. } => {
                Some(superblock_is_right(&world.drives()[victim], offset / SUPERBLOCK_BYTES as u64))
            }
            _ => None,
        };
        let engine = open(&world, None)?;
        outcome.mended_at_open = repairs(&engine);
        if let Some(before) = superblock {
            if before {
                return Err("the flip is not recognised".to_owned());
            }
            let after = (0..2).all(|slot| superblock_is_right(&world.drives()[victim], slot));
            outcome.mended_at_open += after as u64;
        }
        outcome.refused = self.verify(&engine)?;
        for pass in 0..2 {
            let report = engine.scrub(None).map_err(|error| error.to_string())?;
            // What cannot be mended had one copy, and is told.
            let (lost, others): (Vec<_>, Vec<_>) =
                report.findings.iter().partition(|finding| finding.contains("no copy is right"));
            if let Some(other) = lost.iter().find(|finding| finding.matches(", slot ").count() > 1) {
                return Err(format!("pass {pass}: {other}"));
            }
            if let Some(other) = others.iter().find(|finding| finding.contains("not repaired")) {
                return Err(format!("pass {pass}: {other}"));
            }
            if pass == 1 && report.repaired > 0 {
                return Err(format!("pass {pass}: {report:?}"));
            }
            if pass == 0 {
                (outcome.found, outcome.mended, outcome.told) = (report.bad_copies, report.repaired, report.lost);
            }
        }
        let met = [outcome.mended_at_open, outcome.found, outcome.refused, repairs(&engine)];
        outcome.unmet = met.iter().all(|count| *count == 0) as u64;
        engine.close().map_err(|error| format!("closing: {error}"))?;
        drop(engine);
        // The drive that was damaged is a whole copy by itself again.
        let engine = open(&world, Some(victim)).map_err(|error| format!("alone: {error}"))?;
        self.verify(&engine).map_err(|what| format!("alone: {what}"))?;
        Ok(outcome)
    }

    /// Everything that can be read is right. Gives the files with one copy that are refused.
    fn verify(&self, engine: &Engine) -> Result<u64, String> {
        for (name, expected) in &self.texts {
            let found = walk(&mount(engine, name)).map_err(|error| format!("{name}: {error:?}"))?.text;
            if found != *expected {
                return Err(format!("{name}: {}", rig::tree::difference(expected, &found)));
            }
        }
        for (name, words, expected) in &self.pasts {
            let found = past_text(engine, name, words).map_err(|what| format!("{name} at {words}: {what}"))?;
            if found != *expected {
                return Err(format!("{name} at {words}: {}", rig::tree::difference(expected, &found)));
            }
        }
        let mut refused = 0;
        for (name, files) in &self.singles {
            let volume = mount(engine, name);
            for (ino, expected) in files {
                let mut bytes = vec![0; expected.len()];
                match volume.read(&ROOT, *ino, 0, &mut bytes) {
                    Ok(got) if bytes[..got] == *expected => {}
                    Ok(_) => return Err(format!("{name}: {ino:?}: wrong bytes")),
                    Err(FsError::Store(error))
                        if matches!(error.kind, Kind::Corrupt | Kind::Unavailable)
                            && error.message.contains("egroup") =>
                    {
                        refused += 1;
                    }
                    Err(error) => return Err(format!("{name}: {ino:?}: {error:?}")),
                }
            }
        }
        Ok(refused)
    }

    fn check_all(&self, flips: &[Flip]) {
        let next = AtomicUsize::new(0);
        let (failed, outcomes) = (Mutex::new(Vec::new()), Mutex::new(BTreeMap::<&str, Outcome>::new()));
        let work = || {
            while let Some(flip) = flips.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.check(flip) {
                    Ok(outcome) => {
                        outcomes.lock().expect("no panic under the lock").entry(flip.kind()).or_default().add(&outcome);
                    }
                    Err(what) => failed.lock().expect("no panic under the lock").push(format!("{flip:?}: {what}")),
                }
            }
        };
        run_parallel("flips", (0..THREADS).map(|_| work).collect());
        println!("{:#?}", outcomes.into_inner().expect("no panic under the lock"));
        let failed = failed.into_inner().expect("no panic under the lock");
        let first: Vec<&String> = failed.iter().take(5).collect();
        assert!(failed.is_empty(), "{} of {} flips: {first:#?}", failed.len(), flips.len());
    }
}

fn superblock_is_right(drive: &SimDrive, slot: u64) -> bool {
    let bytes = drive.read_raw("superblock", slot * SUPERBLOCK_BYTES as u64, SUPERBLOCK_BYTES);
    bytes.is_some_and(|bytes| Superblock::decode(&bytes).is_ok())
}

fn repairs(engine: &Engine) -> u64 {
    let status = engine.status().expect("a status");
    status.counters.iter().find(|(name, _)| name == "repairs").map_or(0, |(_, count)| *count)
}

fn sample(mut flips: Vec<Flip>, count: usize, rng: &mut Rng) -> Vec<Flip> {
    (0..count.min(flips.len())).map(|_| flips.swap_remove(rng.below(flips.len() as u64) as usize)).collect()
}

#[test]
fn a_sample_of_flipped_bytes_is_mended_or_refused() {
    let base = Base::first();
    println!("sample by seed {SAMPLE_SEED}");
    let mut rng = Rng::from_seed(SAMPLE_SEED);
    let mut flips = sample(base.page_offsets(), SAMPLED_OFFSETS, &mut rng);
    let mut single_bytes = base.superblock_bytes();
    single_bytes.extend((0..DRIVES).flat_map(|drive| base.manifest_bytes(drive)));
    flips.extend(sample(single_bytes, SAMPLED_BYTES, &mut rng));
    base.check_all(&flips);
}

#[test]
#[ignore = "minutes: npm run test:long"]
fn every_flipped_byte_of_the_slabs_is_mended_or_refused() {
    let base = Base::first();
    base.check_all(&base.page_offsets());
}

#[test]
#[ignore = "minutes: npm run test:long"]
fn every_flipped_byte_of_a_superblock_is_mended() {
    let base = Base::first();
    base.check_all(&base.superblock_bytes());
}

#[test]
#[ignore = "minutes: npm run test:long"]
fn every_flipped_byte_of_the_first_manifest_is_mended() {
    let base = Base::first();
    base.check_all(&base.manifest_bytes(0));
}

#[test]
#[ignore = "minutes: npm run test:long"]
fn every_flipped_byte_of_the_second_manifest_is_mended() {
    let base = Base::first();
    base.check_all(&base.manifest_bytes(1));
}
