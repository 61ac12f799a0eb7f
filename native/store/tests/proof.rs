//! Proofs of equality: what a replica has otherwise than its owner is found and named, whatever it is, and goes away when the owner
//! tells it again; what only looks otherwise is no difference.
//!
//! Seeds come in as a bad batch: entries that the owner never told are put among those of an honest one.

mod rig;

use holdfast_device::Rng;
use holdfast_format::chunk::{ChunkEntry, ChunkHeader, each_entry};
use holdfast_format::inode::{DirentRecord, InodeRecord, VolumeRecord};
use holdfast_format::key::{self, Key};
use holdfast_format::{BranchId, Ino, ROOT_INO};
use holdfast_store::api::{FileSystem, SetAttr, WriteFlags};
use holdfast_store::engine::{Engine, MismatchKind};
use holdfast_store::error::Kind;
use holdfast_store::volume::{Volume, VolumeOptions};
use rig::prove::{Compared, Proved, prove, say};
use rig::tree::{difference, walk};
use rig::{ROOT, Rig, options, volume_create};
use std::sync::Arc;

const GROUP: &str = "pair";
const REPLICA: &str = "copy";
const FOLLOWER: &str = "b";
const BRANCH: BranchId = BranchId(1);
const BLOCK: u64 = 4096;
/// As coarse as ranges are by themselves.
const PART_BYTES: usize = usize::MAX;

/// Something that a batch has.
#[derive(Clone, Debug)]
enum Told {
    Put(Key, Vec<u8>),
    Delete(Key),
    Blocks(Ino, u32, Vec<u8>),
    Hole(Ino, u32, u64),
}

impl Told {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Put(key, value) => ChunkEntry::Put { key, value }.encode(out),
            Self::Delete(key) => ChunkEntry::Delete { key }.encode(out),
            Self::Blocks(ino, start, content) => ChunkEntry::Blocks { ino: *ino, start: *start, content }.encode(out),
            Self::Hole(ino, start, count) => ChunkEntry::Hole { ino: *ino, start: *start, count: *count }.encode(out),
        }
    }
}

struct Pair {
    owner: Rig,
    replica: Rig,
    lineage: u64,
    /// What the replica has.
    at: u64,
    mounted: Arc<Volume>,
}

impl Pair {
    fn new(seed: u64, replica_drives: usize) -> Self {
        let owner = Rig::create(seed, 2, options());
        let replica = Rig::create(seed + 1000, replica_drives, options());
        owner.engine.volume_create(&volume_create("v", 2, Some(GROUP))).expect("a volume");
        Self::of(owner, replica, GROUP, "v")
    }

    /// Makes the replica of a group, empty still.
    fn of(owner: Rig, replica: Rig, group: &str, volume: &str) -> Self {
        let description = owner.engine.replica_describe(group).expect("described");
        replica.engine.replica_create(&description, REPLICA, 1).expect("a replica");
        let lineage = owner.engine.replica_identity(group).expect("told").1;
        let mounted = mount(&owner.engine, volume);
        Self { owner, replica, lineage, at: 0, mounted }
    }

    fn group(&self) -> &'static str {
        GROUP
    }

    /// Ships everything to now, and `seeds` with it.
    fn ship(&mut self, seeds: &[Told]) {
        let engine = &self.owner.engine;
        if !seeds.is_empty() {
            // There has to be a batch.
            let set = SetAttr { mode: Some(0o700 + (self.at % 8) as u32), ..SetAttr::default() };
            let busy = self.mounted.lookup(ROOT_INO, b"busy").expect("it is there");
            self.mounted.setattr(&ROOT, busy.ino, &set).expect("changed");
            self.mounted.forget(busy.ino, 1);
        }
        let point = engine.replica_cut(GROUP).expect("cut");
        if point.lsn == self.at {
            return;
        }
        if self.at == 0 {
            engine.follower_has(GROUP, FOLLOWER, point.lsn).expect("kept");
        }
        let mut delta = engine.delta_open(GROUP, self.at, point.lsn, &[]).expect("both ends are kept");
        let mut seeds = Some(seeds);
        while let Some(part) = delta.next_part(usize::MAX).expect("read") {
            let chunk = seeds.take().map_or_else(|| part.chunk.clone(), |seeds| with(&part.chunk, seeds));
            self.replica.engine.replica_stage(REPLICA, &chunk, &part.cursor).expect("taken");
        }
        self.replica.engine.replica_complete(REPLICA, (self.lineage, point.lsn), point.wall, "").expect("whole");
        engine.follower_has(GROUP, FOLLOWER, point.lsn).expect("kept");
        self.at = point.lsn;
    }

    fn prove(&self, part_bytes: usize) -> Proved {
        let (owner, replica) = ((&self.owner.engine, self.group()), (&self.replica.engine, REPLICA));
        prove(&Compared { owner, replica, lineage: self.lineage, lsn: self.at }, part_bytes)
    }

    /// Tells what was found again.
    fn mend(&mut self, proved: &Proved) {
        let lsn = self.owner.engine.replica_mend(GROUP, &proved.mends).expect("it will go");
        self.ship(&[]);
        assert!(self.at >= lsn, "a recovery point was made for it");
    }

    fn assert_equal(&self, when: &str) {
        for part_bytes in [PART_BYTES, 1] {
            let proved = self.prove(part_bytes);
            let said: Vec<String> = proved.mismatches.iter().map(say).collect();
            assert!(said.is_empty() && proved.mends.is_empty(), "{when}: {said:#?}");
        }
        let local = self.replica.engine.replica_state(REPLICA).expect("told").expect("a replica").local_lsn;
        let (there, _) = self.replica.engine.volume_at(REPLICA, &format!("lsn:{local}")).expect("kept");
        let (expected, found) = (walk(&self.mounted).expect("readable").text, walk(&there).expect("readable").text);
        assert!(expected == found, "{when}: {}", difference(&expected, &found));
    }

    fn ino(&self, path: &str) -> Ino {
        path.split('/').filter(|name| !name.is_empty()).fold(ROOT_INO, |dir, name| {
            let found = self.mounted.lookup(dir, name.as_bytes()).unwrap_or_else(|error| panic!("{path}: {error:?}"));
            self.mounted.forget(found.ino, 1);
            found.ino
        })
    }

    fn inode(&self, path: &str) -> (Key, InodeRecord) {
        let key = key::inode(BRANCH, self.ino(path));
        let bytes = self.record(&key);
        (key, InodeRecord::decode(&bytes).expect("a record"))
    }

    fn record(&self, key: &[u8]) -> Vec<u8> {
        let group = self.owner.engine.groups().pop().expect("a group");
        group.get_at(key, holdfast_format::Lsn(self.at)).expect("readable").expect("it is there")
    }

    /// Key of a name.
    fn name(&self, path: &str) -> Key {
        let (dir, name) = path.rsplit_once('/').expect("a path");
        let (_, inode) = self.inode(path);
        let at = if inode.parent == self.ino(dir) { inode.parent_cookie } else { key::cookie_base(name.as_bytes()) };
        key::dirent(BRANCH, self.ino(dir), at, name.as_bytes())
    }

    fn with_inode(&self, path: &str, change: impl FnOnce(&mut InodeRecord)) -> Told {
        let (key, mut inode) = self.inode(path);
        change(&mut inode);
        Told::Put(key, inode.encode())
    }

    /// A block of a file with one bit flipped.
    fn flipped(&self, path: &str, block: u32) -> Told {
        let ino = self.ino(path);
        let mut bytes = vec![0; BLOCK as usize];
        self.mounted.read(&ROOT, ino, u64::from(block) * BLOCK, &mut bytes).expect("readable");
        bytes[77] ^= 4;
        Told::Blocks(ino, block, bytes)
    }

    fn create(&self, dir: &str, name: &str) -> Ino {
        let ino = self.mounted.create(&ROOT, self.ino(dir), name.as_bytes(), 0o644).expect("created").ino;
        self.mounted.forget(ino, 1);
        ino
    }

    fn write(&self, ino: Ino, offset: u64, bytes: &[u8]) {
        for (at, part) in bytes.chunks(128 << 10).enumerate() {
            let offset = offset + at as u64 * (128 << 10);
            self.mounted.write(&ROOT, ino, offset, part, WriteFlags::default()).expect("written");
        }
    }

    /// What seeds need: files with content of every kind, links, attributes, directories.
    fn fill(&self) {
        self.create("", "busy");
        for dir in ["d", "moved", "empty"] {
            let ino = self.mounted.mkdir(&ROOT, ROOT_INO, dir.as_bytes(), 0o755).expect("made").ino;
            self.mounted.forget(ino, 1);
        }
        let file = self.create("d", "a");
        self.write(file, 0, &pattern(1, 10 * BLOCK as usize + 100));
        self.mounted.setxattr(&ROOT, file, b"user.x", b"value", 0, false).expect("set");
        self.mounted.setxattr(&ROOT, file, b"user.y", b"other", 0, false).expect("set");
        let linked = self.mounted.link(&ROOT, file, ROOT_INO, b"hard").expect("linked").ino;
        self.mounted.forget(linked, 1);
        let sparse = self.create("d", "sparse");
        self.write(sparse, 0, &pattern(2, 2 * BLOCK as usize));
        self.write(sparse, 20 * BLOCK, &pattern(3, BLOCK as usize));
        self.write(sparse, 10 * BLOCK, &vec![0; BLOCK as usize]);
        let gone = self.create("d", "gone");
        self.write(gone, 0, &pattern(4, 3 * BLOCK as usize));
        let inside = self.create("moved", "inside");
        self.write(inside, 0, b"some bytes");
        let shared = self.create("", "shared");
        let copied = self.mounted.copy_file_range(&ROOT, (file, 0), (shared, 0), 8 * BLOCK).expect("copied");
        assert_eq!(copied, 8 * BLOCK);
        let link = self.mounted.symlink(&ROOT, ROOT_INO, b"link", b"d/a").expect("made").ino;
        self.mounted.forget(link, 1);
    }
}

fn mount(engine: &Arc<Engine>, name: &str) -> Arc<Volume> {
    engine.volume(name, VolumeOptions { noatime: true }).expect("free")
}

/// Bytes that no other seed has, the same each time.
fn pattern(seed: u8, length: usize) -> Vec<u8> {
    let mut rng = Rng::from_seed(u64::from(seed));
    (0..length).map(|_| rng.next_u64() as u8).collect()
}

/// A chunk that says more.
fn with(chunk: &[u8], seeds: &[Told]) -> Vec<u8> {
    if seeds.is_empty() {
        return chunk.to_vec();
    }
    let (header, body) = ChunkHeader::decode(chunk).expect("a chunk");
    let mut raw = match header.is_compressed {
        true => zstd::bulk::decompress(body, header.raw_bytes as usize).expect("compressed"),
        false => body.to_vec(),
    };
    seeds.iter().for_each(|seed| seed.encode(&mut raw));
    let branch = seeds.iter().find_map(|seed| match seed {
        Told::Put(key, _) | Told::Delete(key) => key::parts(key).map(|parts| parts.branch),
        _ => None,
    });
    let branch = branch.unwrap_or(header.branch);
    each_entry(branch, &raw, |_| {}).expect("entries of one branch");
    ChunkHeader { branch, is_compressed: false, raw_bytes: raw.len() as u32, ..header }.encode(&raw)
}

/// A seed: what goes wrong, and how it is named.
type Seed = (&'static str, fn(&Pair) -> Vec<Told>, &'static [&'static str]);

const NEW: Ino = Ino(900_000);

fn new_file(pair: &Pair) -> Vec<Told> {
    let (_, inode) = pair.inode("/d/a");
    let cookie = key::cookie_base(b"new");
    let record = InodeRecord { parent: ROOT_INO, parent_cookie: cookie, nlink: 1, flags: 0, ..inode };
    let entry = DirentRecord { ino: NEW, kind: 8 };
    vec![
        Told::Put(key::dirent(BRANCH, ROOT_INO, cookie, b"new"), entry.encode()),
        Told::Put(key::inode(BRANCH, NEW), record.encode()),
        Told::Blocks(NEW, 0, pattern(9, 11 * BLOCK as usize)),
    ]
}

fn renamed_directory(pair: &Pair) -> Vec<Told> {
    let cookie = key::cookie_base(b"elsewhere");
    vec![
        Told::Delete(pair.name("/moved")),
        Told::Put(key::dirent(BRANCH, ROOT_INO, cookie, b"elsewhere"), DirentRecord { ino: pair.ino("moved"), kind: 4 }.encode()),
        pair.with_inode("/moved", |inode| inode.parent_cookie = cookie),
    ]
}

fn quota(pair: &Pair) -> Vec<Told> {
    let key = key::volume(BRANCH);
    let volume = VolumeRecord::decode(&pair.record(&key)).expect("a volume");
    vec![Told::Put(key, VolumeRecord { quota_bytes: 1 << 30, ..volume }.encode())]
}

const SEEDS: &[Seed] = &[
    ("a flipped bit", |pair| vec![pair.flipped("/d/a", 2)], &["v:/d/a bytes 8192+4096 differs"]),
    ("one in the last block", |pair| vec![pair.flipped("/d/a", 10)], &["v:/d/a bytes 40960+100 differs"]),
    (
        "two blocks, and one apart",
        |pair| vec![pair.flipped("/d/a", 3), pair.flipped("/d/a", 4), pair.flipped("/d/a", 7)],
        &["v:/d/a bytes 12288+8192 differs", "v:/d/a bytes 28672+4096 differs"],
    ),
    ("one of two that share", |pair| vec![pair.flipped("/shared", 1)], &["v:/shared bytes 4096+4096 differs"]),
    ("a lost block", |pair| vec![Told::Hole(pair.ino("/d/a"), 3, 1)], &["v:/d/a bytes 12288+4096 differs"]),
    ("all blocks lost", |pair| vec![Told::Hole(pair.ino("/d/gone"), 0, 1 << 32)], &["v:/d/gone bytes 0+12288 differs"]),
    (
        "bytes in a hole",
        |pair| vec![Told::Blocks(pair.ino("/d/sparse"), 15, pattern(5, BLOCK as usize))],
        &["v:/d/sparse bytes 61440+4096 differs"],
    ),
    ("a missing name", |pair| vec![Told::Delete(pair.name("/d/gone"))], &["v:/d/gone name missing"]),
    (
        "a missing file",
        |pair| vec![Told::Delete(pair.name("/d/gone")), Told::Delete(pair.inode("/d/gone").0)],
        &["v:/d/gone file missing", "v:/d/gone name missing"],
    ),
    ("an extra file", new_file, &["v:/new file extra", "v:/new name extra"]),
    (
        "an extra name",
        |pair| {
            let key = key::dirent(BRANCH, pair.ino("/d"), key::cookie_base(b"alias"), b"alias");
            vec![Told::Put(key, DirentRecord { ino: pair.ino("/shared"), kind: 8 }.encode())]
        },
        &["v:/d/alias name extra"],
    ),
    ("mode", |pair| vec![pair.with_inode("/d/a", |inode| inode.mode ^= 0o040)], &["v:/d/a mode differs"]),
    ("owner", |pair| vec![pair.with_inode("/link", |inode| inode.uid = 7)], &["v:/link uid differs"]),
    ("mtime", |pair| vec![pair.with_inode("/moved", |inode| inode.mtime.sec += 1)], &["v:/moved mtime differs"]),
    (
        "size",
        |pair| vec![pair.with_inode("/d/gone", |inode| inode.size = 2 * BLOCK)],
        &["v:/d/gone bytes 8192+4096 differs", "v:/d/gone size differs"],
    ),
    ("links", |pair| vec![pair.with_inode("/hard", |inode| inode.nlink = 1)], &["v:/d/a links differs"]),
    (
        "an attribute's value",
        |pair| vec![Told::Put(key::xattr(BRANCH, pair.ino("/d/a"), b"user.x"), b"valve".to_vec())],
        &["v:/d/a attribute user.x differs"],
    ),
    (
        "a missing attribute",
        |pair| vec![Told::Delete(key::xattr(BRANCH, pair.ino("/d/a"), b"user.y"))],
        &["v:/d/a attribute user.y missing"],
    ),
    (
        "an extra attribute",
        |pair| vec![Told::Put(key::xattr(BRANCH, pair.ino("/empty"), b"user.z"), b"z".to_vec())],
        &["v:/empty attribute user.z extra"],
    ),
    ("where a link leads", |pair| vec![pair.with_inode("/link", |inode| inode.target = b"d/b".to_vec())], &["v:/link target differs"]),
    (
        "a renamed directory",
        renamed_directory,
        &["v:/elsewhere name extra", "v:/moved name missing", "v:/moved parent differs"],
    ),
    (
        "a name that leads elsewhere",
        |pair| vec![Told::Put(pair.name("/d/gone"), DirentRecord { ino: pair.ino("/shared"), kind: 8 }.encode())],
        &["v:/d/gone name differs"],
    ),
    (
        "a missing directory",
        |pair| vec![Told::Delete(pair.name("/empty")), Told::Delete(pair.inode("/empty").0)],
        &["v:/empty directory missing", "v:/empty name missing"],
    ),
    ("a quota", quota, &["v:? volume differs"]),
];

#[test]
fn every_seeded_difference_is_found_and_named_and_mended() {
    assert!(SEEDS.len() >= 20);
    let mut pair = Pair::new(1, 2);
    pair.fill();
    pair.ship(&[]);
    pair.assert_equal("at first");
    for (at, (name, seed, expected)) in SEEDS.iter().enumerate() {
        let seeds = seed(&pair);
        pair.ship(&seeds);
        if at % 3 == 1 {
            pair.replica.engine.settle().expect("settled");
        }
        let mut told = Vec::new();
        for part_bytes in [PART_BYTES, 1] {
            let proved = pair.prove(part_bytes);
            let mut said: Vec<String> = proved.mismatches.iter().map(say).collect();
            said.sort();
            assert_eq!(said, *expected, "{name}");
            told.push(proved);
        }
        pair.mend(&told[at % 2]);
        pair.assert_equal(&format!("{name}, mended"));
    }
    pair.replica.engine.settle().expect("settled");
    let report = pair.replica.engine.fsck().expect("checked");
    assert!(report.problems.is_empty(), "{:#?}", report.problems);
}

/// A hole and zeroes, another cut of cells, bytes behind the end, copies, names of volumes: a matter of each site.
#[test]
fn what_only_looks_different_is_equal() {
    let mut pair = Pair::new(2, 2);
    pair.fill();
    pair.ship(&[]);
    let (sparse, gone) = (pair.ino("/d/sparse"), pair.ino("/d/gone"));
    let mut behind = vec![0; BLOCK as usize];
    pair.mounted.read(&ROOT, pair.ino("/d/a"), 10 * BLOCK, &mut behind).expect("readable");
    behind[200] = 7;
    let seeds = [
        Told::Blocks(sparse, 12, vec![0; 2 * BLOCK as usize]),
        Told::Hole(sparse, 10, 1),
        Told::Blocks(gone, 0, pattern(4, 3 * BLOCK as usize)),
        Told::Blocks(pair.ino("/d/a"), 10, behind),
    ];
    pair.ship(&seeds);
    for part_bytes in [PART_BYTES, 1] {
        let proved = pair.prove(part_bytes);
        assert!(proved.mismatches.is_empty(), "{:#?}", proved.mismatches);
    }
    pair.owner.engine.settle().expect("settled");
    assert!(pair.prove(PART_BYTES).mismatches.is_empty());
}

/// Long files and many names: slices, ranges that end where the other side has more, and answers that do not hold everything.
#[test]
fn differences_far_apart_are_found_in_slices() {
    let mut pair = Pair::new(3, 1);
    pair.fill();
    let long = pair.create("", "long");
    pair.write(long, 0, &pattern(6, 4000 * BLOCK as usize));
    for at in 0..1500 {
        pair.create("empty", &format!("name-of-a-file-{at}"));
    }
    pair.ship(&[]);
    pair.owner.engine.settle().expect("settled");
    let proved = pair.prove(PART_BYTES);
    assert!(proved.mismatches.is_empty() && proved.questions >= 3 && proved.ranges > 128, "{proved:?}");
    // One block of each slice, a file in the middle of the names, and one that is longer than a slice.
    let extra = InodeRecord { size: 3000 * BLOCK, ..pair.inode("/long").1 };
    let mut seeds = vec![pair.flipped("/long", 7), pair.flipped("/long", 2222), pair.flipped("/long", 3999)];
    seeds.push(Told::Delete(pair.inode("/empty/name-of-a-file-700").0));
    seeds.push(Told::Put(key::inode(BRANCH, NEW), extra.encode()));
    pair.ship(&seeds);
    for first in (0..3000).step_by(100) {
        pair.ship(&[Told::Blocks(NEW, first, pattern(first as u8, 100 * BLOCK as usize))]);
        if first % 500 == 0 {
            pair.owner.second();
            pair.replica.engine.settle().expect("settled");
        }
    }
    let proved = pair.prove(PART_BYTES);
    let mut said: Vec<String> = proved.mismatches.iter().map(say).collect();
    said.sort();
    let expected = [
        "v:/empty/name-of-a-file-700 file missing",
        "v:/long bytes 16379904+4096 differs",
        "v:/long bytes 28672+4096 differs",
        "v:/long bytes 9101312+4096 differs",
        "v:? file extra",
    ];
    assert_eq!(said, expected);
    pair.mend(&proved);
    pair.assert_equal("mended");
    // Nothing is left of any of it: more than one answer is told.
    let all: Vec<Told> = (0..1500).map(|at| Told::Delete(pair.inode(&format!("/empty/name-of-a-file-{at}")).0)).collect();
    pair.ship(&all);
    let proved = pair.prove(PART_BYTES);
    assert_eq!(proved.mismatches.len(), 1500);
    assert!(proved.mismatches.iter().all(|one| one.kind == MismatchKind::Missing && one.path.is_some()));
    pair.mend(&proved);
    pair.assert_equal("mended");
}

/// What rotted at the replica, of whose bytes there is one copy only, is found though both maps say the same.
#[test]
fn rot_that_nothing_heals_is_found_and_mended() {
    let mut pair = Pair::new(4, 1);
    pair.fill();
    pair.ship(&[]);
    pair.replica.engine.settle().expect("settled");
    pair.replica.second();
    let content = pattern(1, 10 * BLOCK as usize + 100);
    let wanted = &content[5 * BLOCK as usize..6 * BLOCK as usize];
    let drive = pair.replica.world.drives()[0].clone();
    let mut hit = 0;
    for (file, bytes) in drive.files().into_iter().filter(|(file, _)| file.starts_with("slab-")) {
        for offset in (0..bytes).step_by(BLOCK as usize) {
            if drive.read_raw(&file, offset, BLOCK as usize).as_deref() == Some(wanted) {
                drive.flip_bit(&file, offset + 9, 3);
                hit += 1;
            }
        }
    }
    assert!(hit > 0, "the block is on the drive");
    let proved = pair.prove(PART_BYTES);
    let mut said: Vec<String> = proved.mismatches.iter().map(say).collect();
    said.sort();
    // Each has its own copy there: what is shared at the owner was told twice.
    let expected = ["v:/d/a bytes 20480+4096 unreadable at the replica", "v:/shared bytes 20480+4096 unreadable at the replica"];
    assert_eq!(said, expected);
    pair.mend(&proved);
    pair.assert_equal("mended");
}

/// A group that is a clone: what it took over counts, and so does what it changed since.
#[test]
fn a_clone_is_equal_to_its_replica() {
    let owner = Rig::create(5, 2, options());
    let first = owner.volume("base", 2);
    let dir = first.mkdir(&ROOT, ROOT_INO, b"d", 0o755).expect("made").ino;
    for at in 0..40 {
        let ino = first.create(&ROOT, dir, format!("f{at}").as_bytes(), 0o644).expect("created").ino;
        first.write(&ROOT, ino, 0, &pattern(at, 9000), WriteFlags::default()).expect("written");
        first.forget(ino, 1);
    }
    owner.engine.clone_create("base", GROUP, None).expect("cloned");
    let mut pair = Pair::of(owner, Rig::create(6, 2, options()), GROUP, GROUP);
    let busy = pair.create("", "busy");
    pair.write(busy, 5000, b"new");
    pair.mounted.unlink(&ROOT, pair.ino("d"), b"f3").expect("removed");
    pair.ship(&[]);
    pair.assert_equal("a clone");
    let seeds = [pair.flipped("/d/f7", 1), Told::Delete(pair.inode("/d/f9").0)];
    pair.ship(&seeds);
    let proved = pair.prove(1);
    let mut said: Vec<String> = proved.mismatches.iter().map(say).collect();
    said.sort();
    assert_eq!(said, ["pair:/d/f7 bytes 4096+4096 differs", "pair:/d/f9 file missing"]);
    pair.mend(&proved);
    pair.assert_equal("mended");
}

#[test]
fn what_is_no_question_is_refused() {
    let mut pair = Pair::new(7, 2);
    pair.fill();
    pair.ship(&[]);
    let kind = |result: Result<Vec<u8>, holdfast_store::error::Error>| result.expect_err("refused").kind;
    let engine = &pair.owner.engine;
    let gone = engine.proof_open(GROUP, pair.lineage, pair.at + 1000).err().expect("not there");
    assert_eq!(gone.kind, Kind::NotFound);
    let foreign = engine.proof_open(GROUP, 99, pair.at).err().expect("not of this lineage");
    assert_eq!(foreign.kind, Kind::NotFound);
    let proof = engine.proof_open(GROUP, pair.lineage, pair.at).expect("kept");
    assert_eq!(kind(proof.answer(b"what?")), Kind::Invalid);
    let lead = proof.lead(&[], PART_BYTES).expect("readable");
    assert_eq!(proof.compare(&lead.question, &lead.answer, b"yes").expect_err("refused").kind, Kind::Invalid);
    let fine = proof.lead(&[], 1).expect("readable");
    assert_eq!(proof.compare(&lead.question, &lead.answer, &fine.answer).expect_err("refused").kind, Kind::Invalid);
    assert_eq!(proof.answer(&lead.question).expect("readable"), lead.answer, "both sides say the same");
    for bad in [key::point(holdfast_format::Lsn(1)), key::replica(), Vec::new()] {
        let mut mends = (bad.len() as u16).to_le_bytes().to_vec();
        mends.extend(bad);
        assert_eq!(engine.replica_mend(GROUP, &mends).expect_err("refused").kind, Kind::Invalid);
    }
    let key = pair.inode("/d/a").0;
    let mends = [&(key.len() as u16).to_le_bytes()[..], &key].concat();
    let refused = pair.replica.engine.replica_mend(REPLICA, &mends).expect_err("a replica mends nobody");
    assert_eq!(refused.kind, Kind::Fenced);
}
