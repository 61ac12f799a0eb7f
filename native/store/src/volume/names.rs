//! Names: look-up, making, linking and removing.
//!
//! A directory entry's key is its cookie and its name. The cookie is 48 bits of the name's hash and a
//! sequence number among names of equal hash; it is given once and kept until the name goes, so it is what
//! readdir hands to programs.

use super::change::Change;
use super::{Volume, attributes, mode};
use crate::api::{Attr, Caller, FsError, FsResult};
use crate::error::Error;
use holdfast_format::inode::{DirentRecord, INODE_HAS_LINKS, INODE_HAS_XATTRS, InodeRecord};
use holdfast_format::limits::{NAME_BYTES_MAX, NLINK_MAX, SYMLINK_BYTES_MAX};
use holdfast_format::op::OpKind;
use holdfast_format::{Ino, ROOT_INO, key};

/// What every directory reports as its size.
pub const DIRECTORY_BYTES: u64 = 4096;

/// A directory entry that exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub cookie: u64,
    pub ino: Ino,
    pub kind: u8,
}

/// What a name is in a directory.
pub enum Slot {
    Taken(Entry),
    /// The cookie that the name would get.
    Free(u64),
}

/// A node to be made.
pub struct Make<'a> {
    kind: OpKind,
    mode: u32,
    rdev: u32,
    target: &'a [u8],
}

impl<'a> Make<'a> {
    pub fn file(mode: u32) -> Self {
        Self { kind: OpKind::Create, mode: mode::REGULAR | mode & mode::CHANGEABLE, rdev: 0, target: &[] }
    }

    pub fn node(mode: u32, rdev: u32) -> FsResult<Self> {
        let kind = match mode & mode::TYPE_MASK {
            0 | mode::REGULAR => mode::REGULAR,
            other @ (mode::CHARACTER_DEVICE | mode::BLOCK_DEVICE | mode::FIFO | mode::SOCKET) => other,
            mode::DIRECTORY => return Err(FsError::Permission),
            _ => return Err(FsError::Invalid),
        };
        let device = matches!(kind, mode::CHARACTER_DEVICE | mode::BLOCK_DEVICE);
        let rdev = if device { rdev } else { 0 };
        Ok(Self { kind: OpKind::Mknod, mode: kind | mode & mode::CHANGEABLE, rdev, target: &[] })
    }

    pub fn directory(mode: u32) -> Self {
        Self { kind: OpKind::Mkdir, mode: mode::DIRECTORY | mode & mode::CHANGEABLE, rdev: 0, target: &[] }
    }

    pub fn symlink(target: &'a [u8]) -> FsResult<Self> {
        if target.is_empty() {
            return Err(FsError::NotFound);
        }
        if target.len() > SYMLINK_BYTES_MAX {
            return Err(FsError::NameTooLong);
        }
        Ok(Self { kind: OpKind::Symlink, mode: mode::SYMLINK | mode::PERMISSIONS, rdev: 0, target })
    }
}

/// 1 to 255 bytes, any but NUL and '/'.
pub fn check_name(name: &[u8]) -> FsResult<()> {
    if name.len() > NAME_BYTES_MAX {
        return Err(FsError::NameTooLong);
    }
    if name.is_empty() || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Err(FsError::Invalid);
    }
    Ok(())
}

/// A name that may be made or removed: not "." or "..".
pub fn check_own_name(name: &[u8]) -> FsResult<()> {
    check_name(name)?;
    if matches!(name, b"." | b"..") { Err(FsError::Invalid) } else { Ok(()) }
}

fn decode_entry(dir: Ino, value: &[u8]) -> FsResult<DirentRecord> {
    Ok(DirentRecord::decode(value)
        .map_err(|error| Error::decode(&format!("entry of directory {dir}"), error))?)
}

/// Refuses what is no directory (`NotDirectory`) or one that has been removed (`NotFound`).
pub fn check_directory(record: &InodeRecord) -> FsResult<()> {
    if !mode::is_directory(record.mode) {
        return Err(FsError::NotDirectory);
    }
    if record.nlink == 0 { Err(FsError::NotFound) } else { Ok(()) }
}

impl Volume {
    /// Finds a name, or the first free cookie of its hash. The caller holds the directory's shard if it
    /// acts on the answer.
    pub(super) fn slot(&self, dir: Ino, name: &[u8]) -> FsResult<Slot> {
        let base = key::cookie_base(name);
        let end = base + (1 << key::COOKIE_SEQUENCE_BITS);
        let from = key::dirent_from(self.branch, dir, base);
        let until = key::dirent_from(self.branch, dir, end);
        let mut free = base;
        let mut found = None;
        self.ledger.scan(&from, &until, &mut |key, value| {
            let Some((cookie, entry_name)) = key::dirent_place(key) else { return true };
            if cookie == free {
                free += 1;
            }
            if entry_name == name {
                found = Some((cookie, value.to_vec()));
            }
            found.is_none()
        })?;
        if let Some((cookie, value)) = found {
            let record = decode_entry(dir, &value)?;
            return Ok(Slot::Taken(Entry { cookie, ino: record.ino, kind: record.kind }));
        }
        if free == end { Err(FsError::NoSpace) } else { Ok(Slot::Free(free)) }
    }

    pub(super) fn find(&self, dir: Ino, name: &[u8]) -> FsResult<Option<Entry>> {
        match self.slot(dir, name) {
            Ok(Slot::Taken(entry)) => Ok(Some(entry)),
            Ok(Slot::Free(_)) | Err(FsError::NoSpace) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// True when a directory has no entries.
    pub(super) fn is_empty(&self, dir: Ino) -> FsResult<bool> {
        let (from, until) = key::kind_range(self.branch, dir, key::KIND_DIRENT);
        let mut empty = true;
        self.ledger.scan(&from, &until, &mut |_, _| {
            empty = false;
            false
        })?;
        Ok(empty)
    }

    pub(super) fn look_up(&self, dir: Ino, name: &[u8]) -> FsResult<Attr> {
        check_name(name)?;
        let _held = self.locks.read(dir);
        let ino = match name {
            b"." => dir,
            b".." => self.parent_of(dir)?,
            _ => match self.find(dir, name)? {
                Some(entry) => entry.ino,
                None if mode::is_directory(self.load(dir)?.mode) => return Err(FsError::NotFound),
                None => return Err(FsError::NotDirectory),
            },
        };
        let record = self.load(ino)?;
        self.references.add(ino);
        Ok(attributes::attr(ino, &record))
    }

    /// The directory that ".." names: itself for the root and for a removed directory.
    pub(super) fn parent_of(&self, dir: Ino) -> FsResult<Ino> {
        let record = self.load(dir)?;
        if !mode::is_directory(record.mode) {
            return Err(FsError::NotDirectory);
        }
        Ok(if record.parent == Ino(0) { dir } else { record.parent })
    }

    /// Puts the entry of `name`.
    pub(super) fn put_entry(
        &self,
        change: &mut Change<'_>,
        place: (Ino, u64),
        name: &[u8],
        ino: Ino,
        kind: u8,
    ) {
        let record = DirentRecord { ino, kind };
        change.effects.put(&key::dirent(self.branch, place.0, place.1, name), &record.encode());
    }

    /// A directory's contents changed.
    pub(super) fn touch_directory(&self, change: &mut Change<'_>, dir: Ino) -> FsResult<()> {
        let made = change.made;
        let record = change.inode(dir)?;
        record.mtime = made.time;
        made.note(record);
        Ok(())
    }

    /// The record of a node made in `dir`, with what its parent passes on: gid, sgid, ACLs.
    pub(super) fn new_node<'v>(
        &'v self,
        change: &mut Change<'v>,
        caller: &Caller,
        dir: Ino,
        make: &Make<'_>,
    ) -> FsResult<(Ino, InodeRecord)> {
        let ino = self.next_ino(change)?;
        let parent = change.inode(dir)?;
        let set_gid = parent.mode & mode::SET_GID != 0;
        let (parent_gid, parent_has_xattrs) = (parent.gid, parent.flags & INODE_HAS_XATTRS != 0);
        let is_directory = mode::is_directory(make.mode);
        let mut record = InodeRecord {
            mode: if set_gid && is_directory { make.mode | mode::SET_GID } else { make.mode },
            uid: caller.uid,
            gid: if set_gid { parent_gid } else { caller.gid },
            nlink: if is_directory { 2 } else { 1 },
            rdev: make.rdev,
            size: if is_directory { DIRECTORY_BYTES } else { make.target.len() as u64 },
            target: make.target.to_vec(),
            ..change.made.birth()
        };
        if !mode::is_symlink(make.mode) {
            self.inherit(change, dir, parent_has_xattrs, caller.umask, ino, &mut record)?;
        }
        Ok((ino, record))
    }

    pub(super) fn make(&self, caller: &Caller, dir: Ino, name: &[u8], make: Make<'_>) -> FsResult<Attr> {
        check_name(name)?;
        if matches!(name, b"." | b"..") {
            return Err(FsError::Exists);
        }
        let held = self.locks.write(dir);
        let mut change = self.change(make.kind, caller);
        check_directory(change.inode(dir)?)?;
        let cookie = match self.slot(dir, name)? {
            Slot::Taken(_) => return Err(FsError::Exists),
            Slot::Free(cookie) => cookie,
        };
        let (ino, mut record) = self.new_node(&mut change, caller, dir, &make)?;
        record.parent = dir;
        record.parent_cookie = cookie;
        if mode::is_directory(record.mode) {
            let parent = change.inode(dir)?;
            parent.nlink = parent.nlink.checked_add(1).ok_or(FsError::TooManyLinks)?;
        }
        self.touch_directory(&mut change, dir)?;
        self.put_entry(&mut change, (dir, cookie), name, ino, mode::entry_kind(record.mode));
        let attr = attributes::attr(ino, &record);
        change.ino = ino;
        change.insert(ino, record);
        let done = change.commit(&[])?;
        self.references.add(ino);
        drop(held);
        self.settle_reference(done, attr)
    }

    /// Settles an op whose answer gives the kernel a reference; a failed answer gives none.
    fn settle_reference(&self, done: super::change::Done, attr: Attr) -> FsResult<Attr> {
        match self.settle(done) {
            Ok(()) => Ok(attr),
            Err(error) => {
                self.give_back(attr.ino, 1);
                Err(error)
            }
        }
    }

    /// A regular file without a name: an orphan from birth.
    pub(super) fn make_nameless(&self, caller: &Caller, dir: Ino, mode: u32) -> FsResult<Attr> {
        let held = self.locks.write(dir);
        let mut change = self.change(OpKind::TmpFile, caller);
        check_directory(&self.load(dir)?)?;
        let (ino, mut record) = self.new_node_of(&mut change, caller, dir, &Make::file(mode))?;
        record.nlink = 0;
        let attr = attributes::attr(ino, &record);
        change.ino = ino;
        change.insert(ino, record);
        change.put_orphan(ino);
        self.references.add(ino);
        self.references.mark_orphan(ino);
        let done = match change.commit(&[]) {
            Ok(done) => done,
            Err(error) => {
                self.references.forget(ino, 1);
                return Err(error);
            }
        };
        drop(held);
        self.settle_reference(done, attr)
    }

    /// [`Self::new_node`] without a change of the directory itself.
    fn new_node_of<'v>(
        &'v self,
        change: &mut Change<'v>,
        caller: &Caller,
        dir: Ino,
        make: &Make<'_>,
    ) -> FsResult<(Ino, InodeRecord)> {
        let made = self.new_node(change, caller, dir, make)?;
        change.leave(dir);
        Ok(made)
    }

    pub(super) fn add_link(&self, caller: &Caller, ino: Ino, dir: Ino, name: &[u8]) -> FsResult<Attr> {
        check_name(name)?;
        if matches!(name, b"." | b"..") {
            return Err(FsError::Exists);
        }
        let held = self.locks.write_all(&[ino, dir]);
        let mut change = self.change(OpKind::Link, caller);
        check_directory(change.inode(dir)?)?;
        let Slot::Free(cookie) = self.slot(dir, name)? else { return Err(FsError::Exists) };
        let made = change.made;
        let record = change.inode(ino)?;
        if mode::is_directory(record.mode) {
            return Err(FsError::Permission);
        }
        if record.nlink >= NLINK_MAX {
            return Err(FsError::TooManyLinks);
        }
        let was_orphan = record.nlink == 0;
        record.nlink += 1;
        made.note(record);
        let kind = mode::entry_kind(record.mode);
        self.add_parent(&mut change, ino, (dir, cookie))?;
        if was_orphan {
            change.effects.delete(&key::orphan(self.branch, ino));
        }
        self.touch_directory(&mut change, dir)?;
        self.put_entry(&mut change, (dir, cookie), name, ino, kind);
        change.ino = ino;
        let attr = attributes::attr(ino, change.inode(ino)?);
        let done = change.commit(&[])?;
        self.references.unmark_orphan(ino);
        self.references.add(ino);
        drop(held);
        self.settle_reference(done, attr)
    }

    /// One more name of an inode: its first parent is inline, every other a LINK record.
    pub(super) fn add_parent(&self, change: &mut Change<'_>, ino: Ino, place: (Ino, u64)) -> FsResult<()> {
        let record = change.inode(ino)?;
        if record.parent == Ino(0) {
            record.parent = place.0;
            record.parent_cookie = place.1;
        } else {
            record.flags |= INODE_HAS_LINKS;
            change.effects.put(&key::link(self.branch, ino, place.0, place.1), &[]);
        }
        Ok(())
    }

    /// One name fewer, of several: a LINK record takes the place of the first parent.
    pub(super) fn remove_parent(
        &self,
        change: &mut Change<'_>,
        ino: Ino,
        place: (Ino, u64),
    ) -> FsResult<()> {
        let record = change.inode(ino)?.clone();
        if (record.parent, record.parent_cookie) != place {
            change.effects.delete(&key::link(self.branch, ino, place.0, place.1));
            return Ok(());
        }
        let (from, until) = key::kind_range(self.branch, ino, key::KIND_LINK);
        let mut next = None;
        if record.flags & INODE_HAS_LINKS != 0 {
            self.ledger.scan(&from, &until, &mut |key, _| {
                next = link_place(key);
                false
            })?;
        }
        let (parent, cookie) = next.unwrap_or((Ino(0), 0));
        if parent != Ino(0) {
            change.effects.delete(&key::link(self.branch, ino, parent, cookie));
        }
        let record = change.inode(ino)?;
        record.parent = parent;
        record.parent_cookie = cookie;
        Ok(())
    }

    /// Takes the shards of a directory and of what `name` is there, and makes sure that it still is.
    fn hold_entry(&self, dir: Ino, name: &[u8]) -> FsResult<(super::locks::Held<'_>, Entry)> {
        loop {
            let missing = || match self.load(dir) {
                Ok(record) if mode::is_directory(record.mode) => FsError::NotFound,
                Ok(_) => FsError::NotDirectory,
                Err(error) => error,
            };
            let entry = self.find(dir, name)?.ok_or_else(missing)?;
            let held = self.locks.write_all(&[dir, entry.ino]);
            match self.find(dir, name)? {
                Some(again) if again.ino == entry.ino => return Ok((held, again)),
                _ => drop(held),
            }
        }
    }

    /// unlink and rmdir.
    pub(super) fn remove_name(&self, caller: &Caller, dir: Ino, name: &[u8], kind: OpKind) -> FsResult<()> {
        check_own_name(name)?;
        let (held, entry) = self.hold_entry(dir, name)?;
        let mut change = self.change(kind, caller);
        change.frees = true;
        change.ino = entry.ino;
        let is_directory = mode::is_directory(change.inode(entry.ino)?.mode);
        match (kind, is_directory) {
            (OpKind::Rmdir, false) => return Err(FsError::NotDirectory),
            (OpKind::Unlink, true) => return Err(FsError::IsDirectory),
            _ => {}
        }
        self.drop_name(&mut change, (dir, entry.cookie), entry.ino)?;
        change.effects.delete(&key::dirent(self.branch, dir, entry.cookie, name));
        self.touch_directory(&mut change, dir)?;
        let done = change.commit(&[])?;
        drop(held);
        self.settle(done)
    }

    /// Takes one name from an inode: an empty directory, or a file of which it may be the last name. The
    /// entry itself is the caller's.
    pub(super) fn drop_name(&self, change: &mut Change<'_>, place: (Ino, u64), ino: Ino) -> FsResult<()> {
        let made = change.made;
        let is_directory = mode::is_directory(change.inode(ino)?.mode);
        if is_directory {
            if ino == ROOT_INO || !self.is_empty(ino)? {
                return Err(FsError::NotEmpty);
            }
            let parent = change.inode(place.0)?;
            parent.nlink = parent.nlink.saturating_sub(1);
        }
        let record = change.inode(ino)?;
        made.note(record);
        record.nlink = if is_directory { 0 } else { record.nlink.saturating_sub(1) };
        match record.nlink {
            0 => {
                record.parent = Ino(0);
                record.parent_cookie = 0;
                self.bury(change, ino)
            }
            left => {
                self.remove_parent(change, ino, place)?;
                if left == 1 {
                    change.inode(ino)?.flags &= !INODE_HAS_LINKS;
                }
                Ok(())
            }
        }
    }
}

/// Parent and cookie of a LINK key.
pub fn link_place(key: &[u8]) -> Option<(Ino, u64)> {
    let parts = key::parts(key)?;
    let (parent, rest) = parts.rest.split_first_chunk::<8>()?;
    let cookie = rest.first_chunk::<8>()?;
    (parts.kind == key::KIND_LINK).then(|| (Ino(u64::from_be_bytes(*parent)), u64::from_be_bytes(*cookie)))
}
