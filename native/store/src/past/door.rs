//! One volume with its past: what the kernel sees of a mount. Names below `.holdfast` in the root lead to views of kept points;
//! everything else is the volume itself.
//!
//! - A node of the past is `(slot, inode)` in one number: the slot stands for an opened point in the 16 bits above the
//!   inode's 48. So its inode number differs from the present's (`cp` would say "same file"), and no table grows with
//!   the kernel's cache: a slot counts the kernel's references to all of its nodes together.
//! - A slot is given up when the kernel has forgotten its nodes. Its point is not held meanwhile: once it has gone the nodes
//!   answer ESTALE. Numbers are given in turn, so that one comes back as late as possible.
//! - Rights are those of that time, and checked by the kernel as for the present.

use super::notes::{Notes, asked};
use super::time::{Zone, parse_when, point_name};
use crate::api::{
    Attr, Caller, DirEntry, FileSystem, FlushDone, FsError, FsResult, PAST_NAME, PAST_NAMES_SLOT, SLOT_SHIFT, SetAttr, StatFs, Whence,
    WriteFlags,
};
use crate::error::{Error, Kind};
use crate::gate::Gate;
use crate::group::{Group, PastLedger, PointInfo, When};
use crate::ledger::Ledger;
use crate::volume::Volume;
use holdfast_format::inode::{PastAccess, Time};
use holdfast_format::{Ino, Lsn, ROOT_INO};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

const AT: &[u8] = b"at";
const SNAPSHOTS: &[u8] = b"snapshots";

/// Points that are open in one mount at most.
const SLOTS_MAX: usize = 16_384;
const _: () = assert!(SLOTS_MAX < PAST_NAMES_SLOT as usize);
/// Points listed under one lock.
const CHUNK: usize = 512;
/// Cookies of names below these two are "." and "..".
const COOKIE_SELF: u64 = 1;
const COOKIE_PARENT: u64 = 2;

const DIRECTORY: u8 = 4;

/// The directories that lead there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Door,
    At,
    Snapshots,
}

impl Way {
    fn node(self) -> Ino {
        Ino(PAST_NAMES_SLOT << SLOT_SHIFT | (self as u64 + 1))
    }

    fn of(ino: u64) -> FsResult<Self> {
        [Self::Door, Self::At, Self::Snapshots].into_iter().find(|way| *way as u64 + 1 == ino).ok_or(FsError::Stale)
    }
}

/// An opened point.
struct Slot {
    lsn: Lsn,
    volume: Arc<Volume>,
    /// The kernel's references to its nodes.
    references: u64,
}

#[derive(Default)]
struct Slots {
    open: BTreeMap<u64, Slot>,
    by_lsn: BTreeMap<Lsn, u64>,
    last: u64,
}

impl Slots {
    /// The next number that is free.
    fn number(&mut self) -> FsResult<u64> {
        if self.open.len() >= SLOTS_MAX {
            let message = format!("{SLOTS_MAX} points are open in this mount: close some of their files and directories");
            return Err(FsError::Store(Error::new(Kind::Unavailable, message)));
        }
        loop {
            self.last = self.last % (PAST_NAMES_SLOT - 1) + 1;
            if !self.open.contains_key(&self.last) {
                return Ok(self.last);
            }
        }
    }
}

/// What a node number stands for.
enum Node {
    Present,
    Way(Way),
    /// Who changed something last: the number below the slot's bits.
    Note(u64),
    Past(u64, Arc<Volume>, Ino),
}

/// A mounted volume and its past.
pub struct Timeline {
    /// The volume as it is, or as it was.
    present: Arc<Volume>,
    has_door: bool,
    group: Arc<Group>,
    zone: Zone,
    slots: Mutex<Slots>,
    notes: Mutex<Notes>,
    opened: Time,
}

impl Timeline {
    pub fn new(present: Arc<Volume>, group: Arc<Group>, zone: Zone) -> Arc<Self> {
        Self::over(present, group, zone, true)
    }

    /// Of a volume as it was: it tells who made these changes. There is a door to other states only where nobody can mount
    /// the present: at a replica.
    pub fn of_past(then: Arc<Volume>, group: Arc<Group>, zone: Zone) -> Arc<Self> {
        let has_door = group.is_replica();
        Self::over(then, group, zone, has_door)
    }

    fn over(present: Arc<Volume>, group: Arc<Group>, zone: Zone, has_door: bool) -> Arc<Self> {
        let opened = group.now();
        Arc::new(Self { present, has_door, group, zone, slots: Mutex::default(), notes: Mutex::default(), opened })
    }

    pub fn present(&self) -> &Arc<Volume> {
        &self.present
    }

    /// The volume is of a fork: nothing can be changed in it.
    pub fn is_fork(&self) -> bool {
        self.group.is_fork()
    }

    /// Points that the kernel refers to.
    pub fn open_points(&self) -> usize {
        self.slots.lock().open.len()
    }

    fn access(&self) -> PastAccess {
        if self.has_door { self.present.past_access() } else { PastAccess::Off }
    }

    fn node(&self, ino: Ino) -> FsResult<Node> {
        let (slot, own) = (ino.0 >> SLOT_SHIFT, ino.0 & ((1 << SLOT_SHIFT) - 1));
        match slot {
            0 => Ok(Node::Present),
            PAST_NAMES_SLOT if Notes::is_note(own) => Ok(Node::Note(own)),
            PAST_NAMES_SLOT => Ok(Node::Way(Way::of(own)?)),
            slot => {
                let slots = self.slots.lock();
                let open = slots.open.get(&slot).ok_or(FsError::Stale)?;
                Ok(Node::Past(slot, open.volume.clone(), Ino(own)))
            }
        }
    }

    /// For what changes something.
    fn present_of(&self, ino: Ino) -> FsResult<&Volume> {
        match self.node(ino)? {
            Node::Present => Ok(&self.present),
            _ => Err(FsError::ReadOnly),
        }
    }

    /// Refuses the door's name in the root.
    fn check_name(dir: Ino, name: &[u8]) -> FsResult<()> {
        if dir == ROOT_INO && name == PAST_NAME { Err(FsError::Permission) } else { Ok(()) }
    }

    /// The root of what a point saw, with a reference for the kernel.
    fn open_point(&self, point: &PointInfo) -> FsResult<Attr> {
        let (slot, volume) = {
            let mut slots = self.slots.lock();
            match slots.by_lsn.get(&point.lsn).copied() {
                Some(slot) => {
                    let open = slots.open.get_mut(&slot).ok_or(FsError::Stale)?;
                    open.references += 1;
                    (slot, open.volume.clone())
                }
                None => {
                    let ledger = Arc::new(PastLedger::new(self.group.clone(), point.lsn));
                    let volume = Volume::open_past(ledger, self.present.branch()).map_err(|error| match error.kind {
                        // The volume is younger, or the point has gone just now.
                        Kind::NotFound => FsError::NotFound,
                        _ => FsError::Store(error),
                    })?;
                    let slot = slots.number()?;
                    slots.by_lsn.insert(point.lsn, slot);
                    slots.open.insert(slot, Slot { lsn: point.lsn, volume: volume.clone(), references: 1 });
                    (slot, volume)
                }
            }
        };
        match volume.getattr(ROOT_INO) {
            Ok(attr) => Ok(seen_from(slot, attr)),
            Err(error) => {
                self.give_back(slot, 1);
                Err(error)
            }
        }
    }

    fn give_back(&self, slot: u64, count: u64) {
        let mut slots = self.slots.lock();
        let Some(open) = slots.open.get_mut(&slot) else { return };
        open.references = open.references.saturating_sub(count);
        if open.references == 0
            && let Some(closed) = slots.open.remove(&slot)
        {
            slots.by_lsn.remove(&closed.lsn);
        }
    }

    fn refer(&self, slot: u64) {
        if let Some(open) = self.slots.lock().open.get_mut(&slot) {
            open.references += 1;
        }
    }

    /// `name` asks about another one, unless somebody made it.
    fn look_up_note(&self, dir: Ino, name: &[u8], about: &[u8]) -> FsResult<Attr> {
        let (volume, slot, own) = match self.node(dir)? {
            Node::Present => (self.present.clone(), None, dir),
            Node::Past(slot, volume, own) => (volume, Some(slot), own),
            Node::Way(_) => return Err(FsError::NotFound),
            Node::Note(_) => return Err(FsError::NotDirectory),
        };
        match volume.lookup(own, name) {
            Ok(attr) => {
                let Some(slot) = slot else { return Ok(attr) };
                self.refer(slot);
                Ok(seen_from(slot, attr))
            }
            Err(FsError::NotFound) => {
                let record = volume.record_of(own, about)?;
                Ok(self.notes.lock().make(&record, |own| Ino(PAST_NAMES_SLOT << SLOT_SHIFT | own)))
            }
            Err(error) => Err(error),
        }
    }

    fn way_attr(&self, way: Way) -> FsResult<Attr> {
        let root = self.present.getattr(ROOT_INO)?;
        let mode = if self.access() == PastAccess::Owner { 0o500 } else { 0o555 };
        let newest = match way {
            Way::Door => self.opened,
            Way::At | Way::Snapshots => self.group.kept_window().map_or(self.opened, |(_, newest)| newest.wall),
        };
        Ok(Attr {
            ino: way.node(),
            mode: 0o040_000 | mode,
            nlink: 2,
            rdev: 0,
            blocks: 0,
            atime: newest,
            mtime: newest,
            ctime: newest,
            btime: self.opened,
            ..root
        })
    }

    fn way_lookup(&self, way: Way, name: &[u8]) -> FsResult<Attr> {
        if self.access() == PastAccess::Off {
            return Err(FsError::NotFound);
        }
        match (way, name) {
            (way, b".") => self.way_attr(way),
            (Way::Door, b"..") => self.present.lookup(ROOT_INO, b"."),
            (_, b"..") => self.way_attr(Way::Door),
            (Way::Door, AT) => self.way_attr(Way::At),
            (Way::Door, SNAPSHOTS) => self.way_attr(Way::Snapshots),
            (Way::Door, _) => Err(FsError::NotFound),
            (Way::At, words) => {
                let words = std::str::from_utf8(words).map_err(|_| FsError::NotFound)?;
                let when = parse_when(words, self.group.now(), &self.zone).map_err(|_| FsError::NotFound)?;
                self.open_point(&self.group.point(&when).ok_or(FsError::NotFound)?)
            }
            (Way::Snapshots, name) => {
                let name = std::str::from_utf8(name).map_err(|_| FsError::NotFound)?;
                self.open_point(&self.group.point(&When::Name(name.to_owned())).ok_or(FsError::NotFound)?)
            }
        }
    }

    /// Directories of points have their LSNs as cookies.
    fn way_list(&self, way: Way, cookie: u64, visit: &mut dyn FnMut(&DirEntry<'_>) -> bool) -> FsResult<()> {
        let parent = if way == Way::Door { ROOT_INO } else { Way::Door.node() };
        let entry = |ino: Ino, cookie: u64, name: &[u8], visit: &mut dyn FnMut(&DirEntry<'_>) -> bool| {
            visit(&DirEntry { ino, kind: DIRECTORY, cookie, name, attr: None })
        };
        for (own, ino, name) in [(COOKIE_SELF, way.node(), &b"."[..]), (COOKIE_PARENT, parent, &b".."[..])] {
            if cookie < own && !entry(ino, own, name, visit) {
                return Ok(());
            }
        }
        if way == Way::Door {
            for (own, way, name) in [(COOKIE_PARENT + 1, Way::At, AT), (COOKIE_PARENT + 2, Way::Snapshots, SNAPSHOTS)] {
                if cookie < own && !entry(way.node(), own, name, visit) {
                    break;
                }
            }
            return Ok(());
        }
        let mut after = Lsn(cookie.saturating_sub(COOKIE_PARENT));
        loop {
            let points = match way {
                Way::Snapshots => self.group.snapshots(after, CHUNK),
                _ => self.group.points_after(after, CHUNK),
            };
            let Some(last) = points.last() else { return Ok(()) };
            after = last.lsn;
            for point in &points {
                let name = if way == Way::Snapshots { point.name.clone() } else { point_name(point.wall) };
                // A number that no lookup gives: the node has one when it is opened.
                let ino = Ino(PAST_NAMES_SLOT << SLOT_SHIFT | 1 << 47 | point.lsn.0 & ((1 << 47) - 1));
                if !entry(ino, point.lsn.0 + COOKIE_PARENT, name.as_bytes(), visit) {
                    return Ok(());
                }
            }
        }
    }
}

fn past_node(slot: u64, ino: Ino) -> Ino {
    Ino(slot << SLOT_SHIFT | ino.0)
}

fn seen_from(slot: u64, attr: Attr) -> Attr {
    Attr { ino: past_node(slot, attr.ino), ..attr }
}

impl FileSystem for Timeline {
    fn lookup(&self, dir: Ino, name: &[u8]) -> FsResult<Attr> {
        if let Some(about) = asked(name) {
            return self.look_up_note(dir, name, about);
        }
        match self.node(dir)? {
            Node::Present if dir == ROOT_INO && name == PAST_NAME && self.access() != PastAccess::Off => {
                self.way_attr(Way::Door)
            }
            Node::Present => self.present.lookup(dir, name),
            Node::Way(way) => self.way_lookup(way, name),
            Node::Note(_) => Err(FsError::NotDirectory),
            Node::Past(_, _, ROOT_INO) if name == b".." => self.way_attr(Way::At),
            Node::Past(slot, volume, dir) => {
                let attr = volume.lookup(dir, name)?;
                self.refer(slot);
                Ok(seen_from(slot, attr))
            }
        }
    }

    fn forget(&self, ino: Ino, count: u64) {
        match self.node(ino) {
            Ok(Node::Present) => self.present.forget(ino, count),
            Ok(Node::Past(slot, volume, own)) => {
                volume.forget(own, count);
                self.give_back(slot, count);
            }
            Ok(Node::Note(own)) => self.notes.lock().forget(own),
            Ok(Node::Way(_)) | Err(_) => {}
        }
    }

    fn getattr(&self, ino: Ino) -> FsResult<Attr> {
        match self.node(ino)? {
            Node::Present => self.present.getattr(ino),
            Node::Way(way) => self.way_attr(way),
            Node::Note(own) => self.notes.lock().attr(own),
            Node::Past(slot, volume, own) => Ok(seen_from(slot, volume.getattr(own)?)),
        }
    }

    fn setattr(&self, caller: &Caller, ino: Ino, set: &SetAttr) -> FsResult<Attr> {
        self.present_of(ino)?.setattr(caller, ino, set)
    }

    fn readlink(&self, ino: Ino) -> FsResult<Vec<u8>> {
        match self.node(ino)? {
            Node::Present => self.present.readlink(ino),
            Node::Way(_) => Err(FsError::Invalid),
            Node::Note(own) => self.notes.lock().words(own),
            Node::Past(_, volume, own) => volume.readlink(own),
        }
    }

    fn create(&self, caller: &Caller, dir: Ino, name: &[u8], mode: u32) -> FsResult<Attr> {
        Self::check_name(dir, name)?;
        self.present_of(dir)?.create(caller, dir, name, mode)
    }

    fn mknod(&self, caller: &Caller, dir: Ino, name: &[u8], mode: u32, rdev: u32) -> FsResult<Attr> {
        Self::check_name(dir, name)?;
        self.present_of(dir)?.mknod(caller, dir, name, mode, rdev)
    }

    fn mkdir(&self, caller: &Caller, dir: Ino, name: &[u8], mode: u32) -> FsResult<Attr> {
        Self::check_name(dir, name)?;
        self.present_of(dir)?.mkdir(caller, dir, name, mode)
    }

    fn symlink(&self, caller: &Caller, dir: Ino, name: &[u8], target: &[u8]) -> FsResult<Attr> {
        Self::check_name(dir, name)?;
        self.present_of(dir)?.symlink(caller, dir, name, target)
    }

    fn link(&self, caller: &Caller, ino: Ino, dir: Ino, name: &[u8]) -> FsResult<Attr> {
        Self::check_name(dir, name)?;
        self.present_of(ino)?;
        self.present_of(dir)?.link(caller, ino, dir, name)
    }

    fn tmpfile(&self, caller: &Caller, dir: Ino, mode: u32) -> FsResult<Attr> {
        self.present_of(dir)?.tmpfile(caller, dir, mode)
    }

    fn unlink(&self, caller: &Caller, dir: Ino, name: &[u8]) -> FsResult<()> {
        Self::check_name(dir, name)?;
        self.present_of(dir)?.unlink(caller, dir, name)
    }

    fn rmdir(&self, caller: &Caller, dir: Ino, name: &[u8]) -> FsResult<()> {
        Self::check_name(dir, name)?;
        self.present_of(dir)?.rmdir(caller, dir, name)
    }

    fn rename(&self, caller: &Caller, from: (Ino, &[u8]), to: (Ino, &[u8]), flags: u32) -> FsResult<()> {
        Self::check_name(from.0, from.1)?;
        Self::check_name(to.0, to.1)?;
        self.present_of(from.0)?;
        self.present_of(to.0)?.rename(caller, from, to, flags)
    }

    fn read(&self, caller: &Caller, ino: Ino, offset: u64, into: &mut [u8]) -> FsResult<usize> {
        match self.node(ino)? {
            Node::Present => self.present.read(caller, ino, offset, into),
            Node::Way(_) => Err(FsError::IsDirectory),
            Node::Note(_) => Err(FsError::Invalid),
            Node::Past(_, volume, own) => {
                self.present.note_request();
                volume.read(caller, own, offset, into)
            }
        }
    }

    fn write(&self, caller: &Caller, ino: Ino, offset: u64, data: &[u8], flags: WriteFlags) -> FsResult<()> {
        self.present_of(ino)?.write(caller, ino, offset, data, flags)
    }

    fn fallocate(&self, caller: &Caller, ino: Ino, offset: u64, length: u64, mode: u32) -> FsResult<()> {
        self.present_of(ino)?.fallocate(caller, ino, offset, length, mode)
    }

    fn copy_file_range(&self, caller: &Caller, from: (Ino, u64), to: (Ino, u64), length: u64) -> FsResult<u64> {
        let present = self.present_of(to.0)?;
        match self.node(from.0)? {
            Node::Present => present.copy_file_range(caller, from, to, length),
            Node::Way(_) => Err(FsError::IsDirectory),
            Node::Note(_) => Err(FsError::Invalid),
            Node::Past(slot, volume, own) => {
                // What is copied by reference must stay until it is named.
                let lsn = self.slots.lock().open.get(&slot).map(|open| open.lsn).ok_or(FsError::Stale)?;
                let _pin = self.group.pin(lsn).ok_or(FsError::Stale)?;
                present.note_request();
                present.copy_range(caller, &volume, (own, from.1), to, length)
            }
        }
    }

    fn lseek(&self, ino: Ino, offset: u64, whence: Whence) -> FsResult<u64> {
        match self.node(ino)? {
            Node::Present => self.present.lseek(ino, offset, whence),
            Node::Way(_) | Node::Note(_) => Err(FsError::Invalid),
            Node::Past(_, volume, own) => volume.lseek(own, offset, whence),
        }
    }

    fn fsync(&self, caller: &Caller, ino: Ino, done: FlushDone) {
        match self.node(ino) {
            Ok(Node::Present) => self.present.fsync(caller, ino, done),
            // Nothing of it can be lost.
            Ok(_) => done(Ok(())),
            Err(error) => done(Err(error)),
        }
    }

    fn readdir(
        &self,
        caller: &Caller,
        dir: Ino,
        cookie: u64,
        plus: bool,
        visit: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> FsResult<()> {
        match self.node(dir)? {
            Node::Present => self.present.readdir(caller, dir, cookie, plus, visit),
            Node::Way(_) if self.access() == PastAccess::Off => Err(FsError::NotFound),
            Node::Way(way) => self.way_list(way, cookie, visit),
            Node::Note(_) => Err(FsError::NotDirectory),
            Node::Past(slot, volume, own) => volume.readdir(caller, own, cookie, plus, &mut |entry| {
                let attr = entry.attr.map(|attr| seen_from(slot, attr));
                let counted = attr.is_some();
                let taken = visit(&DirEntry { ino: past_node(slot, entry.ino), attr, ..*entry });
                if taken && counted {
                    self.refer(slot);
                }
                taken
            }),
        }
    }

    fn getxattr(&self, ino: Ino, name: &[u8]) -> FsResult<Vec<u8>> {
        match self.node(ino)? {
            Node::Present => self.present.getxattr(ino, name),
            Node::Way(_) | Node::Note(_) => Err(FsError::NoData),
            Node::Past(_, volume, own) => volume.getxattr(own, name),
        }
    }

    fn setxattr(
        &self,
        caller: &Caller,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        flags: u32,
        kill_sgid: bool,
    ) -> FsResult<()> {
        self.present_of(ino)?.setxattr(caller, ino, name, value, flags, kill_sgid)
    }

    fn listxattr(&self, ino: Ino) -> FsResult<Vec<u8>> {
        match self.node(ino)? {
            Node::Present => self.present.listxattr(ino),
            Node::Way(_) | Node::Note(_) => Ok(Vec::new()),
            Node::Past(_, volume, own) => volume.listxattr(own),
        }
    }

    fn removexattr(&self, caller: &Caller, ino: Ino, name: &[u8]) -> FsResult<()> {
        self.present_of(ino)?.removexattr(caller, ino, name)
    }

    fn statfs(&self) -> FsResult<StatFs> {
        self.present.statfs()
    }

    fn write_bytes_max(&self) -> u32 {
        self.present.write_bytes_max()
    }
    fn gate(&self) -> Option<Arc<Gate>> {
        self.present.gate()
    }
}
