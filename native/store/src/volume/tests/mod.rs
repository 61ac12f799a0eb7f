//! Tests of `volume/` over the ledger in `model.rs`.

mod acls;
mod data;
mod names;
mod posix;
mod random;
mod writers;

use super::model::ModelLedger;
use super::{Volume, VolumeOptions, mode};
use crate::api::{Attr, Caller, FileSystem, FsError, FsResult, SetAttr, WriteFlags};
use holdfast_format::inode::{INODE_HAS_LINKS, INODE_SPARSE, InodeRecord, Time, VolumeRecord};
use holdfast_format::key;
use holdfast_format::{BranchId, Ino, ROOT_INO};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const BRANCH: BranchId = BranchId(7);
const ROOT: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022, writer: None };
const USER: Caller = Caller { uid: 1000, gid: 100, pid: 2, umask: 0o022, writer: None };

pub struct Bench {
    pub ledger: Arc<ModelLedger>,
    pub volume: Arc<Volume>,
}

fn record() -> VolumeRecord {
    VolumeRecord {
        next_ino: 0,
        rf: 2,
        ack: 0,
        policy: Default::default(),
        past: Default::default(),
        quota_bytes: 0,
        created: Time::default(),
        name: "v".to_owned(),
    }
}

fn bench_with(record: &VolumeRecord, options: VolumeOptions) -> Bench {
    let ledger = Arc::new(ModelLedger::default());
    ledger.state.lock().now = Time { sec: 1_000_000, nsec: 0 };
    Volume::format(&*ledger, BRANCH, record, (0, 0)).expect("formats");
    let volume = Volume::open(ledger.clone(), BRANCH, options).expect("opens");
    Bench { ledger, volume }
}

fn bench() -> Bench {
    bench_with(&record(), VolumeOptions { noatime: true })
}

/// Asserts the kind of a failure.
#[track_caller]
fn fails<T: std::fmt::Debug>(result: FsResult<T>, wanted: FsError) {
    let error = result.expect_err("must fail");
    assert_eq!(
        std::mem::discriminant(&error),
        std::mem::discriminant(&wanted),
        "{error:?}, not {wanted:?}"
    );
}

impl Bench {
    fn set_now(&self, sec: i64) {
        self.ledger.state.lock().now = Time { sec, nsec: 0 };
    }
    fn file(&self, dir: Ino, name: &str) -> Ino {
        self.volume.create(&ROOT, dir, name.as_bytes(), 0o644).expect("creates").ino
    }
    fn dir(&self, dir: Ino, name: &str) -> Ino {
        self.volume.mkdir(&ROOT, dir, name.as_bytes(), 0o755).expect("makes a directory").ino
    }
    fn write(&self, ino: Ino, offset: u64, data: &[u8]) {
        self.volume.write(&ROOT, ino, offset, data, WriteFlags::default()).expect("writes");
    }
    fn read(&self, ino: Ino) -> Vec<u8> {
        let size = self.attr(ino).size as usize;
        let mut into = vec![0xee; size + 10];
        let got = self.volume.read(&ROOT, ino, 0, &mut into).expect("reads");
        assert_eq!(got, size);
        into.truncate(got);
        into
    }
    fn truncate(&self, ino: Ino, size: u64) {
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        self.volume.setattr(&ROOT, ino, &set).expect("truncates");
    }
    fn attr(&self, ino: Ino) -> Attr {
        self.volume.getattr(ino).expect("has attributes")
    }
    fn inode(&self, ino: Ino) -> InodeRecord {
        self.volume.load(ino).expect("is there")
    }
    fn names(&self, dir: Ino) -> Vec<(u64, Vec<u8>, Ino)> {
        let mut names = Vec::new();
        let visit = &mut |entry: &crate::api::DirEntry<'_>| {
            names.push((entry.cookie, entry.name.to_vec(), entry.ino));
            true
        };
        self.volume.readdir(&ROOT, dir, 0, false, visit).expect("lists");
        names
    }
    fn new_ops(&self, from: usize) -> Vec<holdfast_format::op::OpKind> {
        self.ledger.state.lock().ops[from..].to_vec()
    }
    fn op_count(&self) -> usize {
        self.ledger.state.lock().ops.len()
    }

    /// Checks every record against every other: what an fsck of the volume would.
    fn check(&self) {
        let records = self.ledger.state.lock().records.clone();
        let mut inodes = BTreeMap::new();
        let mut names: BTreeMap<Ino, BTreeSet<(Ino, u64)>> = BTreeMap::new();
        let mut links: BTreeMap<Ino, BTreeSet<(Ino, u64)>> = BTreeMap::new();
        let mut subdirectories: BTreeMap<Ino, u32> = BTreeMap::new();
        let mut orphans = BTreeSet::new();
        let mut with_xattrs = BTreeSet::new();
        for (key, value) in &records {
            let parts = key::parts(key).expect("a key");
            match parts.kind {
                key::KIND_INODE => {
                    drop(inodes.insert(parts.ino, InodeRecord::decode(value).expect("an inode")))
                }
                key::KIND_DIRENT => {
                    let (cookie, _) = key::dirent_place(key).expect("an entry");
                    let entry = holdfast_format::inode::DirentRecord::decode(value).expect("an entry");
                    names.entry(entry.ino).or_default().insert((parts.ino, cookie));
                    *subdirectories.entry(parts.ino).or_default() += u32::from(entry.kind == 4);
                }
                key::KIND_LINK => {
                    let place = super::names::link_place(key).expect("a link");
                    links.entry(parts.ino).or_default().insert(place);
                }
                key::KIND_ORPHAN => {
                    orphans.insert(Ino(u64::from_be_bytes(parts.rest.try_into().expect("a number"))));
                }
                key::KIND_XATTR => drop(with_xattrs.insert(parts.ino)),
                _ => {}
            }
        }
        assert!(with_xattrs.iter().all(|ino| inodes.contains_key(ino)));
        for (ino, record) in &inodes {
            let held = names.remove(ino).unwrap_or_default();
            let mut parents = links.remove(ino).unwrap_or_default();
            assert_eq!(
                record.flags & INODE_HAS_LINKS != 0,
                record.nlink > 1 && !mode::is_directory(record.mode)
            );
            if record.parent != Ino(0) {
                assert!(
                    parents.insert((record.parent, record.parent_cookie)),
                    "{ino}: first parent is a link"
                );
            }
            assert_eq!(held, parents, "{ino}: entries and parents");
            let is_live = !held.is_empty() || *ino == ROOT_INO;
            assert_eq!(orphans.contains(ino), !is_live, "{ino}: orphan record");
            let nlink = match (is_live, mode::is_directory(record.mode)) {
                (false, _) => 0,
                (true, true) => 2 + subdirectories.get(ino).copied().unwrap_or(0),
                (true, false) => held.len() as u32,
            };
            assert_eq!(record.nlink, nlink, "{ino}: nlink");
            self.check_blocks(*ino, record);
        }
        assert!(names.is_empty(), "entries of inodes that are gone: {names:?}");
        assert!(links.is_empty(), "links of inodes that are gone: {links:?}");
        assert!(orphans.iter().all(|ino| inodes.contains_key(ino)));
    }

    fn check_blocks(&self, ino: Ino, record: &InodeRecord) {
        let candidates = self.ledger.candidates(BRANCH, ino);
        let mapped: BTreeSet<u64> = candidates
            .into_iter()
            .filter(|block| self.ledger.is_mapped(BRANCH, ino, *block as u32))
            .collect();
        assert_eq!(record.blocks, mapped.len() as u64, "{ino}: blocks");
        assert!((0..u64::from(record.dense_until)).all(|block| mapped.contains(&block)), "{ino}: dense");
        let is_sparse = record.blocks > u64::from(record.dense_until);
        assert_eq!(record.flags & INODE_SPARSE != 0, is_sparse, "{ino}: sparse");
        assert!(
            mapped.last().is_none_or(|last| *last < record.size.div_ceil(4096)),
            "{ino}: beyond the end"
        );
    }
}
