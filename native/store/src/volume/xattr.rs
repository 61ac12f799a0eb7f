//! Extended attributes. `user.`, `trusted.` and `security.` are kept as they are; of `system.` only the
//! POSIX ACLs exist.

use super::change::Change;
use super::{Volume, acl, mode};
use crate::api::{Caller, FsError, FsResult, XATTR_CREATE, XATTR_REPLACE};
use holdfast_format::inode::{INODE_HAS_CAPABILITY, INODE_HAS_XATTRS, InodeRecord};
use holdfast_format::limits::{XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use holdfast_format::op::OpKind;
use holdfast_format::{Ino, key};

/// What execve reads; see `drop_capability`.
pub const CAPABILITY: &[u8] = b"security.capability";
/// All names of an inode with their NULs, as in Linux (XATTR_LIST_MAX).
const LIST_BYTES_MAX: usize = 65_536;
const PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// What a name is to us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Plain,
    AccessAcl,
    DefaultAcl,
}

fn family(name: &[u8]) -> FsResult<Family> {
    if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX {
        return Err(FsError::Range);
    }
    if name.contains(&0) {
        return Err(FsError::Invalid);
    }
    match name {
        acl::ACCESS => Ok(Family::AccessAcl),
        acl::DEFAULT => Ok(Family::DefaultAcl),
        _ => match PREFIXES.iter().find(|prefix| name.starts_with(prefix)) {
            Some(prefix) if name.len() == prefix.len() => Err(FsError::Invalid),
            Some(_) => Ok(Family::Plain),
            None => Err(FsError::NotSupported),
        },
    }
}

impl Volume {
    /// The stored value. An inode that never had an attribute costs no look-up.
    pub(super) fn xattr(&self, ino: Ino, record: &InodeRecord, name: &[u8]) -> FsResult<Option<Vec<u8>>> {
        if record.flags & INODE_HAS_XATTRS == 0 {
            return Ok(None);
        }
        Ok(self.ledger.get(&key::xattr(self.branch, ino, name))?)
    }

    pub(super) fn get_xattr(&self, ino: Ino, name: &[u8]) -> FsResult<Vec<u8>> {
        family(name)?;
        self.xattr(ino, &self.load(ino)?, name)?.ok_or(FsError::NoData)
    }

    pub(super) fn list_xattrs(&self, ino: Ino) -> FsResult<Vec<u8>> {
        let mut list = Vec::new();
        if self.load(ino)?.flags & INODE_HAS_XATTRS == 0 {
            return Ok(list);
        }
        let (from, until) = key::kind_range(self.branch, ino, key::KIND_XATTR);
        self.ledger.scan(&from, &until, &mut |key, _| {
            list.extend_from_slice(&key[key::PREFIX_BYTES..]);
            list.push(0);
            true
        })?;
        Ok(list)
    }

    pub(super) fn set_xattr(
        &self,
        caller: &Caller,
        ino: Ino,
        (name, value): (&[u8], &[u8]),
        flags: u32,
        kill_sgid: bool,
    ) -> FsResult<()> {
        let family = family(name)?;
        if flags & !(XATTR_CREATE | XATTR_REPLACE) != 0 || flags == XATTR_CREATE | XATTR_REPLACE {
            return Err(FsError::Invalid);
        }
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(FsError::TooBig);
        }
        let held = self.locks.write(ino);
        let mut change = self.change(OpKind::SetXattr, caller);
        change.ino = ino;
        let mut record = change.inode(ino)?.clone();
        let old = self.xattr(ino, &record, name)?;
        match (&old, flags) {
            (Some(_), XATTR_CREATE) => return Err(FsError::Exists),
            (None, XATTR_REPLACE) => return Err(FsError::NoData),
            _ => {}
        }
        let mode = record.mode;
        let stored = match family {
            Family::Plain => Some(value.to_vec()),
            Family::AccessAcl => acl::apply_access(&mut record, value, kill_sgid)?,
            Family::DefaultAcl => acl::check_default(&record, value)?,
        };
        match stored {
            Some(stored) => {
                if old.is_none() {
                    self.check_list(ino, &record, name)?;
                }
                put_xattr(self, &mut change, ino, &mut record, name, &stored);
            }
            None if old.is_some() => change.effects.delete(&key::xattr(self.branch, ino, name)),
            // An ACL that says what the mode says already, where there was none: nothing changes, as on ext4.
            None if record.mode == mode => return Ok(()),
            None => {}
        }
        change.made.note(&mut record);
        *change.inode(ino)? = record;
        let done = change.commit(&[])?;
        drop(held);
        self.settle(done)
    }

    /// Refuses a name that would make the list of all names longer than Linux can return.
    fn check_list(&self, ino: Ino, record: &InodeRecord, name: &[u8]) -> FsResult<()> {
        if record.flags & INODE_HAS_XATTRS == 0 {
            return Ok(());
        }
        let bytes = self.list_xattrs(ino)?.len() + name.len() + 1;
        if bytes > LIST_BYTES_MAX { Err(FsError::NoSpace) } else { Ok(()) }
    }

    pub(super) fn remove_xattr(&self, caller: &Caller, ino: Ino, name: &[u8]) -> FsResult<()> {
        let family = family(name)?;
        let held = self.locks.write(ino);
        let mut change = self.change(OpKind::RemoveXattr, caller);
        change.ino = ino;
        change.frees = true;
        let made = change.made;
        let record = change.inode(ino)?.clone();
        if self.xattr(ino, &record, name)?.is_none() {
            // Without an ACL there is nothing to remove, and nothing wrong: setfacl -b does it blindly.
            return if family == Family::Plain { Err(FsError::NoData) } else { Ok(()) };
        }
        change.effects.delete(&key::xattr(self.branch, ino, name));
        let record = change.inode(ino)?;
        made.note(record);
        if name == CAPABILITY {
            record.flags &= !INODE_HAS_CAPABILITY;
        }
        let done = change.commit(&[])?;
        drop(held);
        self.settle(done)
    }

    /// chmod reaches the access ACL, if there is one: owner, mask (or group) and others.
    pub(super) fn chmod_acl(
        &self,
        change: &mut Change<'_>,
        ino: Ino,
        record: &InodeRecord,
    ) -> FsResult<()> {
        if mode::is_symlink(record.mode) {
            return Ok(());
        }
        if let Some(stored) = self.xattr(ino, record, acl::ACCESS)? {
            let mut list = acl::Acl::parse(&stored)?;
            list.chmod(record.mode);
            change.effects.put(&key::xattr(self.branch, ino, acl::ACCESS), &list.encode());
        }
        Ok(())
    }

    /// What a parent's default ACL makes of a new node: its mode, its access ACL and, for a directory, its
    /// default ACL. Without one the umask applies.
    pub(super) fn inherit(
        &self,
        change: &mut Change<'_>,
        dir: Ino,
        parent_has_xattrs: bool,
        umask: u32,
        ino: Ino,
        record: &mut InodeRecord,
    ) -> FsResult<()> {
        let stored = match parent_has_xattrs {
            true => self.ledger.get(&key::xattr(self.branch, dir, acl::DEFAULT))?,
            false => None,
        };
        let Some(stored) = stored else {
            record.mode &= !(umask & mode::PERMISSIONS);
            return Ok(());
        };
        let mut list = acl::Acl::parse(&stored)?;
        record.mode = list.create(record.mode);
        if !list.is_minimal() {
            put_xattr(self, change, ino, record, acl::ACCESS, &list.encode());
        }
        if mode::is_directory(record.mode) {
            put_xattr(self, change, ino, record, acl::DEFAULT, &stored);
        }
        Ok(())
    }
}

fn put_xattr(
    volume: &Volume,
    change: &mut Change<'_>,
    ino: Ino,
    record: &mut InodeRecord,
    name: &[u8],
    value: &[u8],
) {
    change.effects.put(&key::xattr(volume.branch, ino, name), value);
    record.flags |= INODE_HAS_XATTRS;
    if name == CAPABILITY {
        record.flags |= INODE_HAS_CAPABILITY;
    }
}
