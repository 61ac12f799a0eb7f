//! What POSIX means: one volume as a file system over a [`Ledger`].
//!
//! - Every operation is resolved under the locks of its inodes and committed as one op; replay decides
//!   nothing (I-2).
//! - Lock order: `directory_moves`, then inode shards in index order, then `numbers`, then the ledger's
//!   own. Nothing is held while a flush is waited for.
//! - No block at or beyond the end of a file is mapped, and mapped bytes beyond the end are zero: cutting
//!   a file puts hole cells and a piece of zeroes, so that growing it again touches nothing.
//! - `InodeRecord::blocks` is exact. `INODE_SPARSE` is set iff `blocks > dense_until`; without it no write
//!   reads the map.
//! - A directory's size is always [`names::DIRECTORY_BYTES`], its nlink 2 + subdirectories.

mod acl;
mod attributes;
mod change;
mod copy;
mod data;
mod durability;
mod listing;
mod locks;
mod mode;
#[cfg(test)]
mod model;
mod names;
mod numbers;
mod orphans;
mod policy;
mod ranges;
pub(crate) use ranges::stored_bytes;
mod references;
mod rename;
mod requests;
#[cfg(test)]
mod tests;
mod xattr;

use crate::api::{
    Attr, Caller, DirEntry, FileSystem, FlushDone, FsError, FsResult, SetAttr, StatFs, Whence, WriteFlags,
};
use crate::error::{Error, Result};
use crate::gate::Gate;
use crate::ledger::{Ledger, OpDraft, PointDraft};
use holdfast_format::inode::{InodeRecord, PastAccess, VolumeRecord};
use holdfast_format::op::{Actor, Effects, OpKind};
use holdfast_format::{BranchId, Ino, Lsn, ROOT_INO, key};
use parking_lot::Mutex;
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VolumeOptions {
    /// Never change atime because of a read (default: relatime).
    pub noatime: bool,
}

/// One mounted (or mountable) volume.
pub struct Volume {
    ledger: Arc<dyn Ledger>,
    branch: BranchId,
    options: VolumeOptions,
    locks: locks::InodeLocks,
    references: references::References,
    numbers: Mutex<numbers::Numbers>,
    policy: policy::Policy,
    durability: durability::Durability,
    /// What a kept point saw: there is nothing to reap, and the ledger takes no changes.
    is_past: bool,
    /// Held by a rename that gives a directory another parent, so that two of them cannot make a loop.
    directory_moves: Mutex<()>,
    requests: requests::Requests,
}

/// An engine error out of a file system's: only the log can fail here.
pub(crate) fn engine_error(error: FsError) -> Error {
    match error {
        FsError::Store(error) => error,
        FsError::NoSpace => Error::no_space("no space for the volume's own records"),
        other => Error::corrupt(format!("the volume's records contradict each other: {other:?}")),
    }
}

impl Volume {
    /// Creates the records of a fresh volume (VOLUME record and root directory, mode 0755) as one op.
    ///
    /// # Errors
    /// `Conflict` when the branch has a volume already; those of the log.
    pub fn format(
        ledger: &dyn Ledger,
        branch: BranchId,
        record: &VolumeRecord,
        owner: (u32, u32),
    ) -> Result<Lsn> {
        let volume_key = key::volume(branch);
        if ledger.get(&volume_key)?.is_some() {
            let message = format!("branch {branch} holds a volume already; take another branch");
            return Err(Error::new(crate::error::Kind::Conflict, message));
        }
        let time = ledger.now();
        let root = InodeRecord {
            mode: mode::DIRECTORY | 0o755,
            uid: owner.0,
            gid: owner.1,
            nlink: 2,
            size: names::DIRECTORY_BYTES,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            ..InodeRecord::default()
        };
        let record = VolumeRecord { next_ino: record.next_ino.max(ROOT_INO.0 + 1), ..record.clone() };
        let mut effects = Effects::new();
        effects.put(&volume_key, &record.encode());
        effects.put(&key::inode(branch, ROOT_INO), &root.encode());
        ledger.commit(OpDraft {
            branch,
            kind: OpKind::VolumeCreate,
            actor: Actor { uid: owner.0, gid: owner.1, pid: 0 },
            time,
            ino: ROOT_INO,
            offset: 0,
            length: 0,
            effects,
            payload: &[],
            rf: record.rf,
            stored: 0,
            frees: false,
            point: PointDraft::default(),
        })
    }

    /// Opens a volume and reaps the orphans that a crash left.
    ///
    /// # Errors
    /// `NotFound` when the branch has no volume; those of the log.
    pub fn open(ledger: Arc<dyn Ledger>, branch: BranchId, options: VolumeOptions) -> Result<Arc<Self>> {
        let volume = Self::build(ledger, branch, options, false)?;
        volume.start_quota().map_err(engine_error)?;
        // What is another site's by now is only looked at here.
        if !volume.ledger.is_shut() {
            volume.reap_all().map_err(engine_error)?;
        }
        Ok(volume)
    }

    /// A volume as a kept point saw it. Reading only: access times stay, and what changes anything fails.
    ///
    /// # Errors
    /// `NotFound` when there was no such volume then, or the point is not kept.
    pub fn open_past(ledger: Arc<dyn Ledger>, branch: BranchId) -> Result<Arc<Self>> {
        Self::build(ledger, branch, VolumeOptions { noatime: true }, true)
    }

    fn build(ledger: Arc<dyn Ledger>, branch: BranchId, options: VolumeOptions, is_past: bool) -> Result<Arc<Self>> {
        let bytes = ledger.get(&key::volume(branch))?.ok_or_else(|| {
            Error::new(crate::error::Kind::NotFound, format!("branch {branch} holds no volume"))
        })?;
        let record = VolumeRecord::decode(&bytes).map_err(|error| Error::decode("volume record", error))?;
        let (locks, durability) = match is_past {
            true => (locks::InodeLocks::few(), durability::Durability::of_the_past(ledger.newest())),
            false => (locks::InodeLocks::new(), durability::Durability::new(ledger.newest())),
        };
        Ok(Arc::new(Self {
            ledger,
            branch,
            options,
            locks,
            references: references::References::new(),
            numbers: Mutex::new(numbers::Numbers { next: record.next_ino, limit: record.next_ino }),
            policy: policy::Policy::new(&record),
            durability,
            is_past,
            directory_moves: Mutex::new(()),
            requests: requests::Requests::default(),
        }))
    }

    /// At unmount: the kernel's references are gone, so every orphan goes too.
    ///
    /// # Errors
    /// Those of the log; what could not be reaped is reaped at the next opening. Of a fork nothing is.
    pub fn release(&self) -> Result<()> {
        self.references.clear();
        if self.is_past || self.ledger.is_shut() {
            return Ok(());
        }
        match self.reap_all().map_err(engine_error) {
            Err(error) if error.kind == crate::error::Kind::Fenced => Ok(()),
            other => other,
        }
    }

    pub fn branch(&self) -> BranchId {
        self.branch
    }

    /// Who may look at its past.
    pub(crate) fn past_access(&self) -> PastAccess {
        self.policy.past()
    }

    /// A request that is answered elsewhere, of the past.
    pub(crate) fn note_request(&self) {
        self.requests.note();
    }

    /// What was asked of it through [`FileSystem`] since it was opened.
    pub fn requests(&self) -> u64 {
        self.requests.count()
    }
}

/// Counts, converts and forwards; the meaning is in the files named by theme. What the kernel asks on its own behalf
/// (`forget`), and `statfs`, are nobody's load.
impl FileSystem for Volume {
    fn lookup(&self, dir: Ino, name: &[u8]) -> FsResult<Attr> {
        self.requests.note();
        self.look_up(dir, name)
    }
    fn forget(&self, ino: Ino, count: u64) {
        self.give_back(ino, count);
    }
    fn getattr(&self, ino: Ino) -> FsResult<Attr> {
        self.requests.note();
        Ok(attributes::attr(ino, &self.load(ino)?))
    }
    fn setattr(&self, caller: &Caller, ino: Ino, set: &SetAttr) -> FsResult<Attr> {
        self.requests.note();
        self.set_attributes(caller, ino, set)
    }
    fn readlink(&self, ino: Ino) -> FsResult<Vec<u8>> {
        self.requests.note();
        let record = self.load(ino)?;
        if mode::is_symlink(record.mode) { Ok(record.target) } else { Err(FsError::Invalid) }
    }
    fn create(&self, caller: &Caller, dir: Ino, name: &[u8], mode: u32) -> FsResult<Attr> {
        self.requests.note();
        self.make(caller, dir, name, names::Make::file(mode))
    }
    fn mknod(&self, caller: &Caller, dir: Ino, name: &[u8], mode: u32, rdev: u32) -> FsResult<Attr> {
        self.requests.note();
        self.make(caller, dir, name, names::Make::node(mode, rdev)?)
    }
    fn mkdir(&self, caller: &Caller, dir: Ino, name: &[u8], mode: u32) -> FsResult<Attr> {
        self.requests.note();
        self.make(caller, dir, name, names::Make::directory(mode))
    }
    fn symlink(&self, caller: &Caller, dir: Ino, name: &[u8], target: &[u8]) -> FsResult<Attr> {
        self.requests.note();
        self.make(caller, dir, name, names::Make::symlink(target)?)
    }
    fn link(&self, caller: &Caller, ino: Ino, dir: Ino, name: &[u8]) -> FsResult<Attr> {
        self.requests.note();
        self.add_link(caller, ino, dir, name)
    }
    fn tmpfile(&self, caller: &Caller, dir: Ino, mode: u32) -> FsResult<Attr> {
        self.requests.note();
        self.make_nameless(caller, dir, mode)
    }
    fn unlink(&self, caller: &Caller, dir: Ino, name: &[u8]) -> FsResult<()> {
        self.requests.note();
        self.remove_name(caller, dir, name, OpKind::Unlink)
    }
    fn rmdir(&self, caller: &Caller, dir: Ino, name: &[u8]) -> FsResult<()> {
        self.requests.note();
        self.remove_name(caller, dir, name, OpKind::Rmdir)
    }
    fn rename(&self, caller: &Caller, from: (Ino, &[u8]), to: (Ino, &[u8]), flags: u32) -> FsResult<()> {
        self.requests.note();
        self.move_name(caller, from, to, flags)
    }
    fn read(&self, caller: &Caller, ino: Ino, offset: u64, into: &mut [u8]) -> FsResult<usize> {
        self.requests.note();
        self.read_file(caller, ino, offset, into)
    }
    fn write(
        &self,
        caller: &Caller,
        ino: Ino,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
    ) -> FsResult<()> {
        self.requests.note();
        self.write_file(caller, ino, offset, data, flags)
    }
    fn fallocate(&self, caller: &Caller, ino: Ino, offset: u64, length: u64, mode: u32) -> FsResult<()> {
        self.requests.note();
        self.allocate(caller, ino, (offset, length), mode)
    }
    fn copy_file_range(
        &self,
        caller: &Caller,
        from: (Ino, u64),
        to: (Ino, u64),
        length: u64,
    ) -> FsResult<u64> {
        self.requests.note();
        self.copy_range(caller, self, from, to, length)
    }
    fn lseek(&self, ino: Ino, offset: u64, whence: Whence) -> FsResult<u64> {
        self.requests.note();
        self.seek(ino, offset, whence)
    }
    fn fsync(&self, caller: &Caller, ino: Ino, done: FlushDone) {
        self.requests.note();
        self.sync(caller, ino, done);
    }
    fn readdir(
        &self,
        caller: &Caller,
        dir: Ino,
        cookie: u64,
        plus: bool,
        visit: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> FsResult<()> {
        self.requests.note();
        self.list(caller, dir, cookie, plus, visit)
    }
    fn getxattr(&self, ino: Ino, name: &[u8]) -> FsResult<Vec<u8>> {
        self.requests.note();
        self.get_xattr(ino, name)
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
        self.requests.note();
        self.set_xattr(caller, ino, (name, value), flags, kill_sgid)
    }
    fn listxattr(&self, ino: Ino) -> FsResult<Vec<u8>> {
        self.requests.note();
        self.list_xattrs(ino)
    }
    fn removexattr(&self, caller: &Caller, ino: Ino, name: &[u8]) -> FsResult<()> {
        self.requests.note();
        self.remove_xattr(caller, ino, name)
    }
    fn statfs(&self) -> FsResult<StatFs> {
        self.file_system_space()
    }
    fn write_bytes_max(&self) -> u32 {
        self.ledger.write_bytes_max()
    }
    fn gate(&self) -> Option<Arc<Gate>> {
        self.ledger.gate().cloned()
    }
}
