//! What a mismatch means to somebody who knows files, and which keys have to go again so that it goes away.
//!
//! An inode that only one side has is one mismatch, whatever it holds: its content is passed over, and goes, or is taken away, as a
//! whole.

use super::{Proof, after_content};
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::past::sides::{Side, join};
use holdfast_format::cell;
use holdfast_format::inode::{DirentRecord, InodeRecord, Time, VolumeRecord};
use holdfast_format::key::{self, Key, Parts};
use holdfast_format::limits::{BLOCK_BYTES, CELL_LEVEL_MAX, MENDS_MAX};
use holdfast_format::proof::{Entries, Shown};
use holdfast_format::wire::Put;
use holdfast_format::{BranchId, Ino};
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::vec::IntoIter;

/// Names of the other side that are remembered.
const FOREIGN_MAX: usize = 10_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MismatchKind {
    /// The owner has it, the replica does not.
    Missing,
    /// The replica has it, the owner does not.
    Extra,
    Differs,
    /// No copy at the replica can tell it.
    UnreadableAtReplica,
    /// No copy at the owner can tell it: nothing can be mended from there.
    UnreadableAtOwner,
}

impl MismatchKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Differs => "differs",
            Self::UnreadableAtReplica => "unreadable at the replica",
            Self::UnreadableAtOwner => "unreadable at the owner",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// Name of the volume, at the owner.
    pub volume: String,
    /// 0: of the volume itself.
    pub ino: Ino,
    /// From the root, without a slash in front, where it can be named.
    pub path: Option<Vec<u8>>,
    pub kind: MismatchKind,
    /// `bytes`, `mode`, `name`, `file`, `attribute user.x` …
    pub what: String,
    /// What either side has, where that is short; empty: nothing to say.
    pub detail: String,
    /// Of `bytes`: offset and length.
    pub range: Option<(u64, u64)>,
}

/// What differs in a range.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    pub mismatches: Vec<Mismatch>,
    /// Keys that have to go again: `length u16 | key` each.
    pub mends: Vec<u8>,
    /// The question for the rest of the range, with the place where it begins; `None`: all of it was told.
    pub rest: Option<Vec<u8>>,
    /// Where this ended; it may lie behind the range.
    pub reached: Vec<u8>,
}

/// The keys of [`Found::mends`], one after the other.
///
/// # Errors
/// `Invalid`: they are none, or too many.
pub fn decode_mends(bytes: &[u8]) -> Result<Vec<Key>> {
    let mut take = holdfast_format::wire::Take::new(bytes);
    let mut keys = Vec::new();
    let invalid = |_| Error::invalid("no list of keys");
    while !take.is_empty() {
        let length = take.u16().map_err(invalid)? as usize;
        keys.push(take.bytes(length).map_err(invalid)?.to_vec());
        if keys.len() > MENDS_MAX {
            return Err(Error::invalid(format!("more than {MENDS_MAX} keys to mend")));
        }
    }
    Ok(keys)
}

/// Entries of both sides, side by side.
struct Pairs {
    ours: Peekable<IntoIter<(Key, Shown)>>,
    theirs: Peekable<IntoIter<(Key, Shown)>>,
}

impl Iterator for Pairs {
    type Item = (Key, Option<Shown>, Option<Shown>);

    fn next(&mut self) -> Option<Self::Item> {
        let (our, their) = (self.ours.peek().map(|(key, _)| key), self.theirs.peek().map(|(key, _)| key));
        let key = our.into_iter().chain(their).min()?.clone();
        let our = self.ours.next_if(|(other, _)| *other == key).map(|(_, shown)| shown);
        let their = self.theirs.next_if(|(other, _)| *other == key).map(|(_, shown)| shown);
        Some((key, our, their))
    }
}

pub(super) fn mismatches(proof: &Proof, (from, until): (&[u8], &[u8]), theirs: Entries) -> Result<Found> {
    let ours = proof.entries(from, &theirs.reached)?;
    let reached = ours.reached.clone();
    let mut teller = Teller::new(proof, from, (ours.has_inode, theirs.has_inode));
    let before = |entries: Vec<(Key, Shown)>| -> Vec<(Key, Shown)> {
        entries.into_iter().filter(|(key, _)| *key < reached).collect()
    };
    let pairs = Pairs { ours: before(ours.entries).into_iter().peekable(), theirs: before(theirs.entries).into_iter().peekable() };
    for (key, our, their) in pairs {
        let is_same = our == their && our != Some(Shown::Unreadable);
        teller.pass(&key, &our, &their);
        if !is_same {
            teller.tell(&key, our, their)?;
        }
    }
    let mut found = teller.found;
    found.reached = match key::parts(&reached).filter(|parts| teller.lone == Some((parts.branch, parts.ino))) {
        // The rest of what it holds went with it.
        Some(parts) if parts.kind == key::KIND_DATA => after_content(parts.branch, parts.ino),
        _ => reached,
    };
    if &found.reached[..] < until {
        let (from, until) = (found.reached.clone(), until.to_vec());
        found.rest = Some(holdfast_format::proof::Question::Entries { from, until }.encode());
    }
    Ok(found)
}

struct Teller<'a> {
    proof: &'a Proof,
    sides: BTreeMap<BranchId, (Side<'a>, String)>,
    /// The inode that only one side has, as far as the walk is.
    lone: Option<(BranchId, Ino)>,
    /// Size of the file at the owner that was met last.
    size: Option<(BranchId, Ino, u64)>,
    found: Found,
}

impl<'a> Teller<'a> {
    fn new(proof: &'a Proof, from: &[u8], (ours, theirs): (bool, bool)) -> Self {
        let place = key::parts(from).filter(|parts| parts.ino != Ino(0) && ours != theirs && from > &key::inode(parts.branch, parts.ino)[..]);
        let lone = place.map(|parts| (parts.branch, parts.ino));
        Self { proof, sides: BTreeMap::new(), lone, size: None, found: Found::default() }
    }

    /// Keeps track of whether both sides have the inode that is being gone through.
    fn pass(&mut self, key: &[u8], our: &Option<Shown>, their: &Option<Shown>) {
        let Some(parts) = key::parts(key) else { return };
        let place = (parts.branch, parts.ino);
        if parts.kind == key::KIND_INODE {
            self.lone = (our.is_some() != their.is_some()).then_some(place);
        } else if self.lone.is_some_and(|lone| lone != place) {
            self.lone = None;
        }
    }

    fn side(&mut self, branch: BranchId) -> &(Side<'a>, String) {
        let Proof { group, then, at, .. } = self.proof;
        self.sides.entry(branch).or_insert_with(|| {
            let record = then.get(&key::volume(branch)).ok().flatten();
            let name = record.and_then(|bytes| VolumeRecord::decode(&bytes).ok()).map(|volume| volume.name);
            (Side::new(group, branch, *at), name.unwrap_or_default())
        })
    }

    fn path(&mut self, branch: BranchId, ino: Ino, theirs: Option<&InodeRecord>) -> Option<Vec<u8>> {
        let (side, _) = self.side(branch);
        let ours = side.inode(ino).ok().flatten().and_then(|inode| side.path(ino, &inode).ok().flatten());
        // What this side does not have may be known by a name that the other told.
        ours.or_else(|| theirs.and_then(|_| self.proof.foreign.lock().get(&(branch, ino)).cloned()))
    }

    fn path_in(&mut self, branch: BranchId, dir: Ino, name: &[u8]) -> Option<Vec<u8>> {
        let ours = self.side(branch).0.path_in(dir, name).ok().flatten();
        ours.or_else(|| self.proof.foreign.lock().get(&(branch, dir)).map(|path| join(path.clone(), name)))
    }

    fn push(&mut self, parts: &Parts<'_>, path: Option<Vec<u8>>, kind: MismatchKind, (what, detail): (String, String)) {
        let volume = self.side(parts.branch).1.clone();
        self.found.mismatches.push(Mismatch { volume, ino: parts.ino, path, kind, what, detail, range: None });
    }

    fn mend(&mut self, key: &[u8]) {
        self.found.mends.put_u16(key.len() as u16);
        self.found.mends.put_bytes(key);
    }

    fn tell(&mut self, key: &[u8], our: Option<Shown>, their: Option<Shown>) -> Result<()> {
        let Some(parts) = key::parts(key) else { return Ok(()) };
        if parts.kind == key::KIND_DATA {
            return self.tell_block(key, &parts, &our, &their);
        }
        self.mend(key);
        let kind = match (&our, &their) {
            (Some(_), None) => MismatchKind::Missing,
            (None, _) => MismatchKind::Extra,
            _ => MismatchKind::Differs,
        };
        match parts.kind {
            key::KIND_INODE => self.tell_inode(&parts, kind, (our, their)),
            key::KIND_DIRENT => self.tell_name(key, &parts, kind, (our, their)),
            key::KIND_XATTR => {
                let path = self.path(parts.branch, parts.ino, None);
                let name = String::from_utf8_lossy(parts.rest).into_owned();
                self.push(&parts, path, kind, (format!("attribute {name}"), String::new()));
                Ok(())
            }
            key::KIND_VOLUME => self.tell_volume(&parts, kind, (our, their)),
            _ => {
                // The parents of a hard link, and what is open without a name.
                let what = if parts.kind == key::KIND_LINK { "link" } else { "orphan" };
                let path = self.path(parts.branch, parts.ino, None);
                self.push(&parts, path, kind, (what.to_owned(), String::new()));
                Ok(())
            }
        }
    }

    fn tell_inode(&mut self, parts: &Parts<'_>, kind: MismatchKind, (our, their): (Option<Shown>, Option<Shown>)) -> Result<()> {
        let (our, their) = (inode_of(&our), inode_of(&their));
        let path = self.path(parts.branch, parts.ino, their.as_ref());
        match (our, their) {
            (Some(our), Some(their)) => {
                for (what, ours, theirs) in fields(&our, &their) {
                    let detail = format!("owner {ours}, replica {theirs}");
                    self.push(parts, path.clone(), kind, (what.to_owned(), detail));
                }
            }
            (our, their) => {
                let what = our.as_ref().or(their.as_ref()).map_or("inode", |inode| type_name(inode.mode));
                self.push(parts, path, kind, (what.to_owned(), String::new()));
                // All of its content goes, whatever the replica has of it.
                if let Some(our) = our.filter(|_| kind == MismatchKind::Missing) {
                    self.mend_content(parts, &our);
                }
            }
        }
        Ok(())
    }

    fn mend_content(&mut self, parts: &Parts<'_>, inode: &InodeRecord) {
        if inode.mode >> 12 != 8 || inode.size == 0 {
            return;
        }
        let mut keys = Vec::new();
        let blocks = inode.size.div_ceil(BLOCK_BYTES as u64);
        cell::cut_range(0, blocks, CELL_LEVEL_MAX, |start, level| keys.push(key::data(parts.branch, parts.ino, start, level)));
        keys.iter().for_each(|key| self.mend(key));
    }

    fn tell_name(&mut self, key: &[u8], parts: &Parts<'_>, kind: MismatchKind, (our, their): (Option<Shown>, Option<Shown>)) -> Result<()> {
        let Some((_, name)) = key::dirent_place(key) else { return Ok(()) };
        let path = self.path_in(parts.branch, parts.ino, name);
        let (ours, theirs) = (entry_of(&our), entry_of(&their));
        if let (Some(path), Some(entry)) = (&path, &theirs) {
            let mut foreign = self.proof.foreign.lock();
            if foreign.len() < FOREIGN_MAX {
                foreign.insert((parts.branch, entry.ino), path.clone());
            }
        }
        let leads = |entry: &Option<DirentRecord>| entry.map_or("nothing".to_owned(), |entry| format!("inode {}", entry.ino));
        let detail = match kind {
            MismatchKind::Missing => leads(&ours),
            MismatchKind::Extra => leads(&theirs),
            _ => format!("owner {}, replica {}", leads(&ours), leads(&theirs)),
        };
        self.push(parts, path, kind, ("name".to_owned(), detail));
        Ok(())
    }

    fn tell_volume(&mut self, parts: &Parts<'_>, kind: MismatchKind, (our, their): (Option<Shown>, Option<Shown>)) -> Result<()> {
        let told = |shown: &Option<Shown>| match shown {
            Some(Shown::Record(bytes)) => VolumeRecord::decode(bytes).ok(),
            _ => None,
        };
        let detail = match (told(&our), told(&their)) {
            (Some(our), Some(their)) => {
                let say = |volume: &VolumeRecord| {
                    format!("next inode {}, quota {}, past {}", volume.next_ino, volume.quota_bytes, volume.past.name())
                };
                format!("owner {}; replica {}", say(&our), say(&their))
            }
            _ => String::new(),
        };
        self.push(parts, None, kind, ("volume".to_owned(), detail));
        Ok(())
    }

    /// A block; joined with the one before it where both differ alike.
    fn tell_block(&mut self, key: &[u8], parts: &Parts<'_>, our: &Option<Shown>, their: &Option<Shown>) -> Result<()> {
        if self.lone == Some((parts.branch, parts.ino)) {
            return Ok(());
        }
        let Some((block, _)) = key::data_place(key) else { return Ok(()) };
        let kind = match (our, their) {
            (Some(Shown::Unreadable), _) => MismatchKind::UnreadableAtOwner,
            (_, Some(Shown::Unreadable)) => MismatchKind::UnreadableAtReplica,
            _ => MismatchKind::Differs,
        };
        if kind != MismatchKind::UnreadableAtOwner {
            self.mend(key);
        }
        let offset = u64::from(block) * BLOCK_BYTES as u64;
        let end = offset + BLOCK_BYTES as u64;
        let size = self.size_of(parts.branch, parts.ino)?;
        let length = if offset < size { end.min(size) - offset } else { BLOCK_BYTES as u64 };
        let same = |last: &Mismatch| {
            (last.ino, last.kind) == (parts.ino, kind) && last.range.is_some_and(|(start, length)| start + length == offset)
        };
        if let Some(last) = self.found.mismatches.last_mut().filter(|last| same(last)) {
            last.range = last.range.map(|(start, before)| (start, before + length));
            return Ok(());
        }
        let path = self.path(parts.branch, parts.ino, None);
        self.push(parts, path, kind, ("bytes".to_owned(), String::new()));
        if let Some(last) = self.found.mismatches.last_mut() {
            last.range = Some((offset, length));
        }
        Ok(())
    }

    fn size_of(&mut self, branch: BranchId, ino: Ino) -> Result<u64> {
        if let Some((known_branch, known, size)) = self.size
            && (known_branch, known) == (branch, ino)
        {
            return Ok(size);
        }
        let size = self.side(branch).0.inode(ino)?.map_or(0, |inode| inode.size);
        self.size = Some((branch, ino, size));
        Ok(size)
    }
}

fn inode_of(shown: &Option<Shown>) -> Option<InodeRecord> {
    match shown {
        Some(Shown::Record(bytes)) => InodeRecord::decode(bytes).ok(),
        _ => None,
    }
}

fn entry_of(shown: &Option<Shown>) -> Option<DirentRecord> {
    match shown {
        Some(Shown::Record(bytes)) => DirentRecord::decode(bytes).ok(),
        _ => None,
    }
}

fn type_name(mode: u32) -> &'static str {
    match mode >> 12 {
        1 => "FIFO",
        2 => "character device",
        4 => "directory",
        6 => "block device",
        8 => "file",
        10 => "symbolic link",
        12 => "socket",
        _ => "inode",
    }
}

/// Fields that differ: name, and what either side has.
fn fields(our: &InodeRecord, their: &InodeRecord) -> Vec<(&'static str, String, String)> {
    let time = |time: Time| format!("{}.{:09}", time.sec, time.nsec);
    let text = |bytes: &[u8]| format!("{:?}", String::from_utf8_lossy(bytes));
    let all = |inode: &InodeRecord| {
        [
            ("mode", format!("{:o}", inode.mode)),
            ("uid", inode.uid.to_string()),
            ("gid", inode.gid.to_string()),
            ("links", inode.nlink.to_string()),
            ("device", inode.rdev.to_string()),
            ("size", inode.size.to_string()),
            ("blocks", inode.blocks.to_string()),
            ("mapping", format!("flags {:x}, dense to {}", inode.flags, inode.dense_until)),
            ("atime", time(inode.atime)),
            ("mtime", time(inode.mtime)),
            ("ctime", time(inode.ctime)),
            ("btime", time(inode.btime)),
            ("parent", format!("inode {}, place {:x}", inode.parent, inode.parent_cookie)),
            ("target", text(&inode.target)),
            ("writer", format!("{:?}", inode.writer)),
        ]
    };
    let pairs = all(our).into_iter().zip(all(their));
    pairs.filter(|(our, their)| our.1 != their.1).map(|((name, ours), (_, theirs))| (name, ours, theirs)).collect()
}
