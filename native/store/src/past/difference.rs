//! What changed in a volume between two kept points, as files and names: the same answer for `diff` and for the change feed.
//!
//! Changes come by inode, so that any number of them is told in pages with bounded memory; the token of the next page is an
//! inode number.

use crate::error::{Error, Kind, Result};
use crate::group::{Group, Span};
use holdfast_format::cell::level_blocks;
use holdfast_format::inode::{DirentRecord, InodeRecord, Time};
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::{BranchId, Ino, Lsn, ROOT_INO, key};
use std::collections::BTreeMap;

/// Directories above a name at most; more is a loop, which no volume has.
const DEPTH_MAX: usize = 4096;
/// Paths of directories that are remembered.
const PATHS_MAX: usize = 10_000;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ChangeKind {
    Added,
    Removed,
    /// It has another name, or lies elsewhere; its content may have changed, too.
    Renamed,
    /// Its content.
    Changed,
    /// Owner, mode, times or extended attributes only.
    Attributes,
}

impl ChangeKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Renamed => "renamed",
            Self::Changed => "changed",
            Self::Attributes => "attributes",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileChange {
    pub kind: ChangeKind,
    /// From the root, without a slash in front: of the later state; of the earlier one when it was removed.
    pub path: Vec<u8>,
    /// Where it was; only of what was renamed.
    pub old_path: Option<Vec<u8>>,
    pub ino: Ino,
    /// mode >> 12
    pub file_type: u8,
    pub size: u64,
    /// Newest change of the inode, and its time.
    pub lsn: Lsn,
    pub time: Time,
    /// Bytes whose content may differ, ascending: (offset, length). Of added files all that hold data.
    pub ranges: Vec<(u64, u64)>,
}

/// Some changes, and where the next ones begin; `None`: there are no more.
pub struct DifferencePage {
    pub changes: Vec<FileChange>,
    pub next: Option<Ino>,
}

/// What changed of one inode.
#[derive(Default)]
struct Touched {
    ino: Ino,
    inode: bool,
    xattrs: bool,
    /// Blocks: (first, count).
    blocks: Vec<(u64, u64)>,
    /// Of a directory: cookies and names.
    entries: Vec<(u64, Vec<u8>)>,
}

/// One of the two states.
struct Side<'a> {
    group: &'a Group,
    branch: BranchId,
    at: Lsn,
    paths: BTreeMap<Ino, Vec<u8>>,
}

impl<'a> Side<'a> {
    fn new(group: &'a Group, branch: BranchId, at: Lsn) -> Self {
        Self { group, branch, at, paths: BTreeMap::new() }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if self.at == Lsn(0) { Ok(None) } else { self.group.get_at(key, self.at) }
    }

    fn inode(&self, ino: Ino) -> Result<Option<InodeRecord>> {
        let bytes = self.get(&key::inode(self.branch, ino))?;
        bytes.map(|bytes| InodeRecord::decode(&bytes).map_err(|error| Error::decode(&format!("inode {ino}"), error))).transpose()
    }

    fn entry(&self, dir: Ino, cookie: u64, name: &[u8]) -> Result<Option<DirentRecord>> {
        let bytes = self.get(&key::dirent(self.branch, dir, cookie, name))?;
        bytes.map(|bytes| DirentRecord::decode(&bytes).map_err(|error| Error::decode("a directory entry", error))).transpose()
    }

    /// The name that a directory has for a cookie.
    fn name_of(&self, dir: Ino, cookie: u64) -> Result<Option<Vec<u8>>> {
        let (from, until) = (key::dirent_from(self.branch, dir, cookie), key::dirent_from(self.branch, dir, cookie + 1));
        let mut found = None;
        self.group.scan_at(&from, &until, self.at, &mut |key, _| {
            found = key::dirent_place(key).map(|(_, name)| name.to_vec());
            false
        })?;
        Ok(found)
    }

    /// Path of a directory; `None`: it is not in the tree.
    fn directory(&mut self, dir: Ino) -> Result<Option<Vec<u8>>> {
        let mut names: Vec<(Ino, Vec<u8>)> = Vec::new();
        let mut at = dir;
        let mut path = loop {
            if at == ROOT_INO {
                break Vec::new();
            }
            if let Some(known) = self.paths.get(&at) {
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
        if self.paths.len() >= PATHS_MAX {
            self.paths.clear();
        }
        for (ino, name) in names.into_iter().rev() {
            path = join(path, &name);
            self.paths.insert(ino, path.clone());
        }
        Ok(Some(path))
    }

    fn path_in(&mut self, dir: Ino, name: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.directory(dir)?.map(|path| join(path, name)))
    }

    /// Path of an inode by its first name.
    fn path(&mut self, ino: Ino, inode: &InodeRecord) -> Result<Option<Vec<u8>>> {
        if ino == ROOT_INO {
            return Ok(Some(Vec::new()));
        }
        match self.name_of(inode.parent, inode.parent_cookie)? {
            Some(name) if inode.parent != Ino(0) => self.path_in(inode.parent, &name),
            _ => Ok(None),
        }
    }
}

fn join(mut path: Vec<u8>, name: &[u8]) -> Vec<u8> {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Changes of a volume between two kept points (`from` 0: everything is new), of inodes from `first` on.
///
/// # Errors
/// `NotFound`: a point is not kept any more.
pub fn difference(
    group: &Group,
    branch: BranchId,
    span: Span,
    first: Ino,
    limit: usize,
) -> Result<DifferencePage> {
    let mut walk = Walk {
        before: Side::new(group, branch, span.from),
        after: Side::new(group, branch, span.to),
        span,
        page: DifferencePage { changes: Vec::new(), next: None },
    };
    let mut touched: Option<Touched> = None;
    let range = (key::inode(branch, first), key::volume(BranchId(branch.0 + 1)));
    let mut stopped = None;
    let visit = &mut |key: &[u8]| -> Result<bool> {
        let Some(parts) = key::parts(key) else { return Ok(true) };
        if parts.ino == Ino(0) {
            return Ok(true);
        }
        if touched.as_ref().is_some_and(|touched| touched.ino != parts.ino)
            && let Some(done) = touched.take()
        {
            walk.tell(&done)?;
            if walk.page.changes.len() >= limit {
                stopped = Some(parts.ino);
                return Ok(false);
            }
        }
        note(touched.get_or_insert_with(|| Touched { ino: parts.ino, ..Touched::default() }), key, parts.kind);
        Ok(true)
    };
    // In slices: a view is not kept for long.
    group.changed_keys(span, (&range.0, &range.1), visit)?;
    if let Some(done) = touched.take() {
        walk.tell(&done)?;
    }
    walk.page.next = stopped;
    Ok(walk.page)
}

fn note(touched: &mut Touched, key: &[u8], kind: u8) {
    match kind {
        key::KIND_INODE => touched.inode = true,
        key::KIND_XATTR => touched.xattrs = true,
        key::KIND_DIRENT => {
            if let Some((cookie, name)) = key::dirent_place(key) {
                touched.entries.push((cookie, name.to_vec()));
            }
        }
        key::KIND_DATA => {
            if let Some((start, level)) = key::data_place(key) {
                touched.blocks.push((start as u64, level_blocks(level)));
            }
        }
        _ => {}
    }
}

struct Walk<'a> {
    before: Side<'a>,
    after: Side<'a>,
    span: Span,
    page: DifferencePage,
}

impl Walk<'_> {
    fn tell(&mut self, touched: &Touched) -> Result<()> {
        let (was, is) = (self.before.inode(touched.ino)?, self.after.inode(touched.ino)?);
        for (cookie, name) in &touched.entries {
            self.tell_entry(touched.ino, *cookie, name)?;
        }
        let (Some(was), Some(is)) = (was, is) else {
            // A name tells of what came or went.
            return Ok(());
        };
        let ranges = ranges(&touched.blocks, was.size.max(is.size));
        let content = !ranges.is_empty() || was.size != is.size || was.target != is.target;
        let attributes = (was.mode, was.uid, was.gid, was.rdev) != (is.mode, is.uid, is.gid, is.rdev)
            || touched.xattrs
            || was.mtime != is.mtime && !is_directory(&is);
        if !content && !attributes {
            return Ok(());
        }
        if self.has_new_first_name(touched.ino)? {
            // Told with it.
            return Ok(());
        }
        let Some(path) = self.after.path(touched.ino, &is)? else { return Ok(()) };
        let kind = if content { ChangeKind::Changed } else { ChangeKind::Attributes };
        self.push(kind, path, None, (touched.ino, &is), ranges)
    }

    /// A name that leads elsewhere now, or is there on one side only.
    fn tell_entry(&mut self, dir: Ino, cookie: u64, name: &[u8]) -> Result<()> {
        let (was, is) = (self.before.entry(dir, cookie, name)?, self.after.entry(dir, cookie, name)?);
        if was.map(|entry| entry.ino) == is.map(|entry| entry.ino) {
            return Ok(());
        }
        if let Some(entry) = is {
            self.tell_gained((dir, cookie), name, entry.ino)?;
        }
        if let Some(entry) = was {
            self.tell_lost((dir, cookie), name, entry.ino)?;
        }
        Ok(())
    }

    /// Of several new names the first stands for the one that it had, if that has gone.
    fn tell_gained(&mut self, (dir, cookie): (Ino, u64), name: &[u8], ino: Ino) -> Result<()> {
        let Some(path) = self.after.path_in(dir, name)? else { return Ok(()) };
        let Some(is) = self.after.inode(ino)? else { return Ok(()) };
        let old = match self.before.inode(ino)? {
            Some(was) => self.before.path(ino, &was)?.map(|old| (old, was)),
            None => None,
        };
        let blocks = self.blocks_of(ino)?;
        let Some((old_path, was)) = old else {
            let ranges = ranges(&blocks, is.size);
            return self.push(ChangeKind::Added, path, None, (ino, &is), ranges);
        };
        let ranges = ranges(&blocks, was.size.max(is.size));
        let stays = self.after.entry(was.parent, was.parent_cookie, last_name(&old_path))?.is_some_and(|entry| entry.ino == ino);
        if stays || (is.parent, is.parent_cookie) != (dir, cookie) {
            return self.push(ChangeKind::Added, path, None, (ino, &is), ranges);
        }
        self.push(ChangeKind::Renamed, path, Some(old_path), (ino, &is), ranges)
    }

    fn tell_lost(&mut self, (dir, cookie): (Ino, u64), name: &[u8], ino: Ino) -> Result<()> {
        let Some(was) = self.before.inode(ino)? else { return Ok(()) };
        if (was.parent, was.parent_cookie) == (dir, cookie) && self.has_new_first_name(ino)? {
            // Renamed: told with its new name.
            return Ok(());
        }
        let Some(path) = self.before.path_in(dir, name)? else { return Ok(()) };
        self.push(ChangeKind::Removed, path, None, (ino, &was), Vec::new())
    }

    fn has_new_first_name(&self, ino: Ino) -> Result<bool> {
        let Some(is) = self.after.inode(ino)?.filter(|is| is.parent != Ino(0)) else { return Ok(false) };
        let Some(name) = self.after.name_of(is.parent, is.parent_cookie)? else { return Ok(false) };
        let before = self.before.entry(is.parent, is.parent_cookie, &name)?;
        Ok(before.is_none_or(|entry| entry.ino != ino))
    }

    /// Blocks of an inode that changed.
    fn blocks_of(&self, ino: Ino) -> Result<Vec<(u64, u64)>> {
        let (from, until) = key::kind_range(self.after.branch, ino, key::KIND_DATA);
        let mut blocks = Vec::new();
        self.after.group.changed_keys(self.span, (&from, &until), &mut |key| {
            blocks.extend(key::data_place(key).map(|(start, level)| (start as u64, level_blocks(level))));
            Ok(true)
        })?;
        Ok(blocks)
    }

    fn push(
        &mut self,
        kind: ChangeKind,
        path: Vec<u8>,
        old_path: Option<Vec<u8>>,
        (ino, inode): (Ino, &InodeRecord),
        ranges: Vec<(u64, u64)>,
    ) -> Result<()> {
        let lsn = self.after.group.stamp_at(&key::inode(self.after.branch, ino), self.span.to)?;
        let (lsn, time) = (lsn.unwrap_or(self.span.to), inode.ctime);
        let file_type = (inode.mode >> 12) as u8;
        self.page.changes.push(FileChange { kind, path, old_path, ino, file_type, size: inode.size, lsn, time, ranges });
        Ok(())
    }
}

fn is_directory(inode: &InodeRecord) -> bool {
    inode.mode >> 12 == 4
}

fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// Blocks as bytes, joined where they touch, within the file.
fn ranges(blocks: &[(u64, u64)], size: u64) -> Vec<(u64, u64)> {
    let mut sorted = blocks.to_vec();
    sorted.sort_unstable();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for (first, count) in sorted {
        let (from, until) = (first * BLOCK_BYTES as u64, ((first + count) * BLOCK_BYTES as u64).min(size));
        if from >= until {
            continue;
        }
        match ranges.last_mut() {
            Some((start, length)) if *start + *length >= from => *length = (*length).max(until - *start),
            _ => ranges.push((from, until - from)),
        }
    }
    ranges
}

/// Refuses spans that are none.
pub fn check_span(span: Span) -> Result<()> {
    if span.from < span.to {
        return Ok(());
    }
    let (from, to) = (span.from, span.to);
    Err(Error::new(Kind::Invalid, format!("LSN {from} is not before LSN {to}: name the earlier moment first")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_become_ranges_within_the_file() {
        assert_eq!(ranges(&[], 100), []);
        assert_eq!(ranges(&[(0, 1)], 100), [(0, 100)]);
        assert_eq!(ranges(&[(4, 1), (0, 2), (2, 1), (3, 1)], 1 << 20), [(0, 5 * 4096)]);
        assert_eq!(ranges(&[(16, 16), (18, 1), (40, 1)], 1 << 20), [(65_536, 65_536), (163_840, 4096)]);
        assert_eq!(ranges(&[(0, 1 << 32)], 5000), [(0, 5000)]);
        assert_eq!(ranges(&[(9, 1)], 5000), []);
    }
}
