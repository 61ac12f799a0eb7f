//! One of two states that are compared: its records, and the paths that they make.

use crate::error::{Error, Result};
use crate::group::Group;
use crate::group::view::NOW;
use holdfast_format::inode::{DirentRecord, InodeRecord};
use holdfast_format::{BranchId, Ino, Lsn, ROOT_INO, key};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Directories above a name at most; more is a loop, which no volume has.
pub const DEPTH_MAX: usize = 4096;
/// Paths of directories that are remembered.
const PATHS_MAX: usize = 10_000;

/// One of the two states. LSN 0: nothing; of a clone, what it was cloned from.
pub struct Side<'a> {
    group: &'a Group,
    branch: BranchId,
    at: Lsn,
    /// Before everything.
    is_nothing: bool,
    paths: RefCell<BTreeMap<Ino, Vec<u8>>>,
}

impl<'a> Side<'a> {
    pub fn new(group: &'a Group, branch: BranchId, at: Lsn) -> Self {
        let is_nothing = at == Lsn(0) && group.base().is_none();
        Self { group, branch, at, is_nothing, paths: RefCell::default() }
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if self.is_nothing { Ok(None) } else { self.group.get_at(key, self.at) }
    }

    pub fn inode(&self, ino: Ino) -> Result<Option<InodeRecord>> {
        Ok(self.stamped_inode(ino)?.map(|(_, inode)| inode))
    }

    /// With the LSN of its newest change; 0: it is from before the clone that this is.
    pub fn stamped_inode(&self, ino: Ino) -> Result<Option<(Lsn, InodeRecord)>> {
        if self.is_nothing {
            return Ok(None);
        }
        let found = self.group.stamped_at(&key::inode(self.branch, ino), self.at)?;
        let decode = |bytes: &[u8]| InodeRecord::decode(bytes).map_err(|error| Error::decode(&format!("inode {ino}"), error));
        found.map(|(lsn, bytes)| Ok((lsn, decode(&bytes)?))).transpose()
    }

    pub fn entry(&self, dir: Ino, cookie: u64, name: &[u8]) -> Result<Option<DirentRecord>> {
        let bytes = self.get(&key::dirent(self.branch, dir, cookie, name))?;
        bytes.map(|bytes| DirentRecord::decode(&bytes).map_err(|error| Error::decode("a directory entry", error))).transpose()
    }

    /// The name that a directory has for a cookie.
    pub fn name_of(&self, dir: Ino, cookie: u64) -> Result<Option<Vec<u8>>> {
        if self.is_nothing {
            return Ok(None);
        }
        let (from, until) = (key::dirent_from(self.branch, dir, cookie), key::dirent_from(self.branch, dir, cookie + 1));
        let mut found = None;
        self.group.scan_at(&from, &until, self.at, &mut |key, _| {
            found = key::dirent_place(key).map(|(_, name)| name.to_vec());
            false
        })?;
        Ok(found)
    }

    /// Path of a directory; `None`: it is not in the tree.
    pub fn directory(&self, dir: Ino) -> Result<Option<Vec<u8>>> {
        let mut names: Vec<(Ino, Vec<u8>)> = Vec::new();
        let mut at = dir;
        let mut path = loop {
            if at == ROOT_INO {
                break Vec::new();
            }
            if let Some(known) = self.paths.borrow().get(&at) {
                break known.clone();
            }
            let Some(inode) = self.inode(at)?.filter(|inode| inode.parent != Ino(0)) else { return Ok(None) };
            let Some(name) = self.name_of(inode.parent, inode.parent_cookie)? else { return Ok(None) };
            if names.len() >= DEPTH_MAX {
                return Err(Error::corrupt(format!("directory {dir} has no end above it")));
            }
            names.push((at, name));
            at = inode.parent;
        };
        let mut paths = self.paths.borrow_mut();
        if paths.len() >= PATHS_MAX {
            paths.clear();
        }
        for (ino, name) in names.into_iter().rev() {
            path = join(path, &name);
            paths.insert(ino, path.clone());
        }
        Ok(Some(path))
    }

    pub fn path_in(&self, dir: Ino, name: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.directory(dir)?.map(|path| join(path, name)))
    }

    /// Path of an inode by its first name.
    pub fn path(&self, ino: Ino, inode: &InodeRecord) -> Result<Option<Vec<u8>>> {
        if ino == ROOT_INO {
            return Ok(Some(Vec::new()));
        }
        match self.name_of(inode.parent, inode.parent_cookie)? {
            Some(name) if inode.parent != Ino(0) => self.path_in(inode.parent, &name),
            _ => Ok(None),
        }
    }
}

/// Where a file is now, or at a replica's newest recovery point, by its first name; `None`: it is not there.
pub(crate) fn path_of(group: &Group, branch: BranchId, ino: Ino) -> Result<Option<Vec<u8>>> {
    let at = if group.is_replica() { group.newest_received()?.lsn } else { NOW };
    let side = Side::new(group, branch, at);
    match side.inode(ino)? {
        Some(inode) => side.path(ino, &inode),
        None => Ok(None),
    }
}

pub fn join(mut path: Vec<u8>, name: &[u8]) -> Vec<u8> {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
