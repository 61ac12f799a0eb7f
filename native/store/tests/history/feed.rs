//! A consumer that keeps a copy of a volume by its change feed, and nothing else: after every step the copy must be what
//! the step's point shows.
//!
//! A step is a set. Names that went and those that something had before go first, resolved in the copy as it was; then new names
//! come, shallow ones first; then contents, by the ranges, and attributes are fetched.

use super::rig::ROOT;
use super::rig::tree::walk;
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::FileSystem;
use holdfast_store::engine::{ChangeKind, Engine, FeedChange, FeedPage, FeedRequest, FileChange};
use holdfast_store::error::Result;
use holdfast_store::volume::Volume;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Small, so that most steps are told in several pages.
pub const PAGE: usize = 3;

const DIRECTORY: u8 = 4;
const FILE: u8 = 8;

#[derive(Default)]
struct Copy {
    names: BTreeMap<(Ino, Vec<u8>), Ino>,
    contents: BTreeMap<Ino, Vec<u8>>,
    attributes: BTreeMap<Ino, String>,
}

pub struct Consumer {
    volume: String,
    pub cursor: String,
    copy: Copy,
    /// LSN of the point that the copy shows, and up to which nothing changed since.
    shows: u64,
    /// Of the step that is being told.
    step: Vec<FileChange>,
    step_lsn: u64,
    last_lsn: u64,
    pub told: u64,
    pub steps: u64,
}

/// What a consumer is told of a node beside its content.
fn attributes(view: &Volume, ino: Ino) -> String {
    let attr = view.getattr(ino).expect("attributes");
    let kind = (attr.mode >> 12) as u8;
    let mut text = format!("{:o} {}:{} {}", attr.mode, attr.uid, attr.gid, attr.rdev);
    if kind != DIRECTORY {
        text += &format!(" {:?}", attr.mtime);
    }
    if kind == 10 {
        text += &format!(" -> {:?}", view.readlink(ino).expect("a link"));
    }
    for name in view.listxattr(ino).expect("attributes").split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        text += &format!(" {name:?}={:?}", view.getxattr(ino, name).expect("an attribute"));
    }
    text
}

fn content(view: &Volume, ino: Ino) -> Vec<u8> {
    let mut bytes = vec![0; view.getattr(ino).expect("attributes").size as usize];
    let got = view.read(&ROOT, ino, 0, &mut bytes).expect("readable");
    assert_eq!(got, bytes.len());
    bytes
}

fn depth(path: &[u8]) -> usize {
    path.iter().filter(|byte| **byte == b'/').count()
}

impl Copy {
    /// Everything, as a first copy is made.
    fn of(view: &Volume) -> Self {
        let tree = walk(view).expect("readable");
        let mut copy = Self::default();
        for entry in &tree.entries {
            copy.names.insert((entry.dir, entry.name.clone()), entry.ino);
            copy.attributes.insert(entry.ino, attributes(view, entry.ino));
            if entry.is_file() {
                copy.contents.insert(entry.ino, content(view, entry.ino));
            }
        }
        copy
    }

    /// Directory and name of a path.
    fn place(&self, path: &[u8]) -> (Ino, Vec<u8>) {
        let mut names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let last = names.pop().expect("a name");
        let step = |dir: Ino, name: &&[u8]| {
            *self.names.get(&(dir, name.to_vec())).unwrap_or_else(|| panic!("{:?} is not in the copy", String::from_utf8_lossy(path)))
        };
        (names.iter().fold(ROOT_INO, step), last.to_vec())
    }

    fn apply(&mut self, step: &[FileChange], view: &Volume) {
        let old = step.iter().filter_map(|change| match change.kind {
            ChangeKind::Removed => Some(&change.path),
            _ => change.old_path.as_ref(),
        });
        let gone: Vec<(Ino, Vec<u8>)> = old.map(|path| self.place(path)).collect();
        for place in &gone {
            assert!(self.names.remove(place).is_some(), "{place:?} goes, but was not there");
        }
        let mut come: Vec<&FileChange> =
            step.iter().filter(|change| matches!(change.kind, ChangeKind::Added | ChangeKind::Renamed)).collect();
        come.sort_by_key(|change| depth(&change.path));
        for change in come {
            let place = self.place(&change.path);
            assert!(self.names.insert(place, change.ino).is_none(), "{change:?} was there");
        }
        for change in step.iter().filter(|change| change.kind != ChangeKind::Removed) {
            self.attributes.insert(change.ino, attributes(view, change.ino));
            if change.file_type == FILE {
                self.fetch(change, view);
            }
        }
        let named: BTreeSet<Ino> = self.names.values().copied().collect();
        self.contents.retain(|ino, _| named.contains(ino));
        self.attributes.retain(|ino, _| named.contains(ino));
    }

    fn fetch(&mut self, change: &FileChange, view: &Volume) {
        let bytes = self.contents.entry(change.ino).or_default();
        bytes.resize(change.size as usize, 0);
        for (offset, length) in &change.ranges {
            // Of a file that became shorter they reach beyond its end.
            let end = (offset + length).min(change.size);
            if *offset < end {
                let got = view.read(&ROOT, change.ino, *offset, &mut bytes[*offset as usize..end as usize]);
                assert_eq!(got.expect("readable") as u64, end - offset, "{change:?}");
            }
        }
    }

    fn assert_shows(&self, view: &Volume, what: &str) {
        let tree = walk(view).expect("readable");
        let names: BTreeMap<(Ino, Vec<u8>), Ino> =
            tree.entries.iter().map(|entry| ((entry.dir, entry.name.clone()), entry.ino)).collect();
        assert_eq!(self.names, names, "{what}");
        for entry in &tree.entries {
            assert_eq!(self.attributes[&entry.ino], attributes(view, entry.ino), "inode {}: {what}", entry.ino);
            if entry.is_file() {
                assert!(self.contents[&entry.ino] == content(view, entry.ino), "content of inode {}: {what}", entry.ino);
            }
        }
    }
}

impl Consumer {
    /// From the beginning.
    pub fn new(volume: &str) -> Self {
        Self {
            volume: volume.to_owned(),
            cursor: "beginning".to_owned(),
            copy: Copy::default(),
            shows: 0,
            step: Vec::new(),
            step_lsn: 0,
            last_lsn: 0,
            told: 0,
            steps: 0,
        }
    }

    /// From a kept point, with a first copy of what it shows.
    pub fn starting_at(engine: &Engine, volume: &str, lsn: u64) -> Self {
        let words = format!("lsn:{lsn}");
        let (view, _) = engine.volume_at(volume, &words).expect("kept");
        Self { cursor: words, copy: Copy::of(&view), shows: lsn, last_lsn: lsn, ..Self::new(volume) }
    }

    /// Whether the state that its copy shows is among these points; from the beginning nothing is needed.
    pub fn stands_on(&self, kept: &[u64]) -> bool {
        self.shows == 0 || kept.contains(&self.shows)
    }

    pub fn ask(&self, engine: &Engine, latest: bool, coalesce: bool) -> Result<FeedPage> {
        let request = FeedRequest { from: self.cursor.clone(), limit: PAGE, wait: Duration::ZERO, latest, coalesce };
        engine.feed(&self.volume, &request)
    }

    /// Takes a page: steps that are complete are carried out.
    pub fn take(&mut self, engine: &Engine, page: FeedPage) -> bool {
        for FeedChange { change, seen_at } in page.changes {
            if seen_at.0 != self.step_lsn {
                self.carry_out(engine);
                self.step_lsn = seen_at.0;
            }
            assert!(self.last_lsn <= change.lsn.0 && change.lsn <= seen_at, "out of order after {}: {change:?}", self.last_lsn);
            assert!(self.shows < change.lsn.0, "{change:?} was told before LSN {}", self.shows);
            assert!(change.writer.is_some_and(|writer| writer.pid > 0), "{change:?}");
            let same = |told: &FileChange| (told.kind, &told.path, told.ino) == (change.kind, &change.path, change.ino);
            assert!(!self.step.iter().any(same), "{change:?} comes twice");
            self.last_lsn = change.lsn.0;
            self.step.push(change);
            self.told += 1;
        }
        self.cursor = page.cursor;
        if page.told_to.0 >= self.step_lsn {
            self.carry_out(engine);
            self.shows = page.told_to.0;
        }
        page.more
    }

    fn carry_out(&mut self, engine: &Engine) {
        let step = std::mem::take(&mut self.step);
        if step.is_empty() {
            return;
        }
        let words = format!("lsn:{}", self.step_lsn);
        let (view, _) = engine.volume_at(&self.volume, &words).expect("kept");
        self.copy.apply(&step, &view);
        self.copy.assert_shows(&view, &format!("{} at LSN {} after {step:#?}", self.volume, self.step_lsn));
        self.shows = self.step_lsn;
        self.steps += 1;
    }
}
