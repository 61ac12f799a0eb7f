//! Attributes: reading them, changing them, and what changes them in passing.

use super::change::Change;
use super::{Volume, mode};
use crate::api::{Attr, Caller, FsError, FsResult, SetAttr, SetTime, StatFs};
use holdfast_format::inode::{INODE_HAS_CAPABILITY, InodeRecord, Time};
use holdfast_format::limits::{BLOCK_BYTES, NAME_BYTES_MAX};
use holdfast_format::op::OpKind;
use holdfast_format::{Ino, key};

const DAY_S: i64 = 24 * 60 * 60;
/// `st_blocks` counts these.
const SECTORS_PER_BLOCK: u64 = BLOCK_BYTES as u64 / 512;

pub fn attr(ino: Ino, record: &InodeRecord) -> Attr {
    Attr {
        ino,
        mode: record.mode,
        nlink: record.nlink,
        uid: record.uid,
        gid: record.gid,
        rdev: record.rdev,
        size: record.size,
        blocks: record.blocks * SECTORS_PER_BLOCK,
        atime: record.atime,
        mtime: record.mtime,
        ctime: record.ctime,
        btime: record.btime,
    }
}

/// relatime: an access is noted when the last one noted is not after the last change, or is a day old.
fn wants_access_time(record: &InodeRecord, now: Time) -> bool {
    let is_behind = record.atime <= record.mtime || record.atime <= record.ctime;
    record.atime != now && (is_behind || now.sec.saturating_sub(record.atime.sec) >= DAY_S)
}

impl Volume {
    pub(super) fn set_attributes(&self, caller: &Caller, ino: Ino, set: &SetAttr) -> FsResult<Attr> {
        let held = self.locks.write(ino);
        let kind = if set.size.is_some() { OpKind::Truncate } else { OpKind::SetAttr };
        let mut change = self.change(kind, caller);
        let made = change.made;
        change.ino = ino;
        let mut record = change.inode(ino)?.clone();
        change.frees = set.size.is_none_or(|size| size <= record.size);
        if let Some(size) = set.size {
            change.offset = size;
            self.resize(&mut change, ino, &mut record, size)?;
            record.mtime = made.time;
        }
        let owned = set.uid.is_some() || set.gid.is_some();
        record.uid = set.uid.unwrap_or(record.uid);
        record.gid = set.gid.unwrap_or(record.gid);
        // Linux takes suid and sgid from whatever changes owner, root's doing included, but not from
        // directories.
        if !mode::is_directory(record.mode) {
            if owned || set.kill_suidgid {
                record.mode = mode::without_privileges(record.mode);
            }
            if owned || set.size.is_some() {
                self.drop_capability(&mut change, ino, &mut record);
            }
        }
        if let Some(bits) = set.mode {
            record.mode = record.mode & mode::TYPE_MASK | bits & mode::CHANGEABLE;
            self.chmod_acl(&mut change, ino, &record)?;
        }
        let at = |set: SetTime| match set {
            SetTime::Now => made.time,
            SetTime::At(at) => at,
        };
        record.atime = set.atime.map_or(record.atime, at);
        record.mtime = set.mtime.map_or(record.mtime, at);
        made.note(&mut record);
        let attr = attr(ino, &record);
        *change.inode(ino)? = record;
        let done = change.commit(&[])?;
        drop(held);
        self.settle(done)?;
        Ok(attr)
    }

    /// Contents changed: times, and the privileges that go with another's contents.
    pub(super) fn touch_contents(
        &self,
        change: &mut Change<'_>,
        ino: Ino,
        record: &mut InodeRecord,
        kill_suidgid: bool,
    ) {
        record.mtime = change.made.time;
        change.made.note(record);
        if kill_suidgid {
            record.mode = mode::without_privileges(record.mode);
        }
        self.drop_capability(change, ino, record);
    }

    /// File capabilities never survive a change of contents or owner (FUSE_HANDLE_KILLPRIV_V2).
    fn drop_capability(&self, change: &mut Change<'_>, ino: Ino, record: &mut InodeRecord) {
        if record.flags & INODE_HAS_CAPABILITY != 0 {
            record.flags &= !INODE_HAS_CAPABILITY;
            change.effects.delete(&key::xattr(self.branch, ino, super::xattr::CAPABILITY));
        }
    }

    /// Notes a read. It never fails the read: an access time that cannot be logged is not changed.
    pub(super) fn note_access(&self, caller: &Caller, ino: Ino) {
        if self.load(ino).is_ok_and(|record| self.access_is_news(&record)) {
            self.stamp_access(caller, ino);
        }
    }

    /// Whether an access now would change the record.
    pub(super) fn access_is_news(&self, record: &InodeRecord) -> bool {
        !self.options.noatime && wants_access_time(record, self.ledger.now()) && !self.ledger.is_shut()
    }

    /// The same once [`Volume::access_is_news`] was seen.
    pub(super) fn stamp_access(&self, caller: &Caller, ino: Ino) {
        let _held = self.locks.write(ino);
        let mut change = self.change(OpKind::SetAttr, caller);
        let time = change.made.time;
        change.ino = ino;
        if let Ok(record) = change.inode(ino)
            && wants_access_time(record, time)
        {
            record.atime = time;
            // A full or fenced log is the next writer's news.
            let _ = change.commit(&[]);
        }
    }

    /// The record that a name leads to, `.` to the directory's own.
    pub(crate) fn record_of(&self, dir: Ino, name: &[u8]) -> FsResult<InodeRecord> {
        let _held = self.locks.read(dir);
        match name {
            b"." => self.load(dir),
            _ => self.load(self.find(dir, name)?.ok_or(FsError::NotFound)?.ino),
        }
    }

    /// Space as this volume sees it: what fits with its number of copies, at most its quota.
    pub(super) fn file_system_space(&self) -> FsResult<StatFs> {
        let space = self.ledger.space(self.policy.rf())?;
        let unit = BLOCK_BYTES as u64;
        let mut blocks = space.total / unit;
        let mut blocks_free = space.free / unit;
        let mut blocks_available = space.available / unit;
        if let Some((quota, used)) = self.policy.quota() {
            let left = quota.saturating_sub(used) / BLOCK_BYTES as u64;
            blocks = blocks.min(quota / BLOCK_BYTES as u64);
            blocks_free = blocks_free.min(left);
            blocks_available = blocks_available.min(left);
        }
        let given = self.numbers.lock().next;
        Ok(StatFs {
            block_bytes: BLOCK_BYTES as u32,
            blocks,
            blocks_free,
            blocks_available,
            files: space.inodes_free.saturating_add(given),
            files_free: space.inodes_free,
            name_bytes_max: NAME_BYTES_MAX as u32,
        })
    }

    /// Refuses a plain allocation of more than there is.
    pub(super) fn check_room(&self, bytes: u64) -> FsResult<()> {
        let available = self.file_system_space()?.blocks_available;
        if bytes / BLOCK_BYTES as u64 > available { Err(FsError::NoSpace) } else { Ok(()) }
    }
}
