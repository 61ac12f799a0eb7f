//! What changed in a volume between two kept points, as files and names: the same answer for `diff` and for the change feed.
//!
//! Changes come by inode, so that any number of them is told in pages with bounded memory; the token of the next page is an
//! inode number.

use super::sides::{DEPTH_MAX, Side};
use crate::error::{Error, Kind, Result};
use crate::group::{Group, Span};
use holdfast_format::cell::level_blocks;
use holdfast_format::inode::{InodeRecord, Time, Writer};
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::{BranchId, Ino, Lsn, ROOT_INO, key};

/// Ranges of bytes that one change names at most: with more of them, small gaps count as changed, too.
const RANGES_MAX: usize = 1024;
/// Pieces of a file that are kept in memory meanwhile.
const BLOCKS_MAX: usize = 65_536;

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
    /// Newest change of the inode, and its time; of a name that went, or came beside others, the newest of its directory.
    pub lsn: Lsn,
    pub time: Time,
    /// Who made it; `None`: not known.
    pub writer: Option<Writer>,
    /// Bytes whose content may differ, ascending: (offset, length). Of added files all that hold data.
    pub ranges: Vec<(u64, u64)>,
}

/// Some changes, and where the next ones begin; `None`: there are no more.
pub struct DifferencePage {
    pub changes: Vec<FileChange>,
    pub next: Option<Ino>,
}

/// What changed of one inode, its names in directories apart.
#[derive(Default)]
pub(super) struct Touched {
    ino: Ino,
    /// Keys of extended attributes.
    xattrs: Vec<key::Key>,
    /// Blocks: (first, count).
    blocks: Vec<(u64, u64)>,
}

impl Touched {
    pub(super) fn new(ino: Ino) -> Self {
        Self { ino, ..Self::default() }
    }

    pub(super) fn note(&mut self, key: &[u8], kind: u8) {
        if kind == key::KIND_XATTR {
            self.xattrs.push(key.to_vec());
        } else if let Some((start, level)) = key::data_place(key) {
            self.blocks.push((start as u64, level_blocks(level)));
            if self.blocks.len() >= 2 * BLOCKS_MAX {
                self.blocks = joined(std::mem::take(&mut self.blocks), BLOCKS_MAX);
            }
        }
    }
}

/// Changes of a volume between two kept points (`from` 0: everything is new), of inodes from `first` on.
///
/// # Errors
/// `NotFound`: a point is not kept any more.
pub fn difference(group: &Group, branch: BranchId, span: Span, first: Ino, limit: usize) -> Result<DifferencePage> {
    let mut teller = Teller::new(group, branch, span);
    let mut changes = Vec::new();
    let mut touched: Option<Touched> = None;
    let mut next = None;
    let range = (key::inode(branch, first), key::volume(BranchId(branch.0 + 1)));
    let visit = &mut |key: &[u8]| -> Result<bool> {
        let Some(parts) = key::parts(key).filter(|parts| parts.ino != Ino(0)) else { return Ok(true) };
        if touched.as_ref().is_some_and(|touched| touched.ino != parts.ino)
            && let Some(done) = touched.take()
        {
            changes.extend(teller.tell_inode(&done)?);
            if changes.len() >= limit {
                next = Some(parts.ino);
                return Ok(false);
            }
        }
        let touched = touched.get_or_insert_with(|| Touched::new(parts.ino));
        match key::dirent_place(key) {
            Some((cookie, name)) => changes.extend(teller.tell_name(parts.ino, cookie, name)?.into_iter().flatten()),
            None => touched.note(key, parts.kind),
        }
        Ok(true)
    };
    group.changed_keys(span, (&range.0, &range.1), visit)?;
    if let Some(done) = touched.take() {
        changes.extend(teller.tell_inode(&done)?);
    }
    Ok(DifferencePage { changes, next })
}

/// Who changed something, and when.
#[derive(Clone, Copy)]
struct Doing {
    lsn: Lsn,
    time: Time,
    writer: Option<Writer>,
}

impl Doing {
    fn of((lsn, inode): (Lsn, &InodeRecord)) -> Self {
        Self { lsn, time: inode.ctime, writer: inode.writer }
    }
}

/// Makes changes of keys. Each is a function of what the two points saw, whatever was done in between and wherever the
/// records lie: that is what a cursor of the feed relies on.
///
/// - An inode tells what came, what moved (the first of its names) and what changed; LSN, time and who are its newest change's.
/// - A directory tells which names went, and which are a second name of something. LSN, time and who are of the directory's newest
///   change; of the nearest directory above that is still there, if it went itself.
pub(super) struct Teller<'a> {
    before: Side<'a>,
    after: Side<'a>,
    /// Of the directory that was asked about last.
    directory: Option<(Ino, Doing)>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(group: &'a Group, branch: BranchId, span: Span) -> Self {
        let (before, after) = (Side::new(group, branch, span.from), Side::new(group, branch, span.to));
        Self { before, after, directory: None }
    }

    /// LSN of an inode's newest change, if the later point sees it.
    pub(super) fn inode_lsn(&self, ino: Ino) -> Result<Option<Lsn>> {
        Ok(self.after.stamped_inode(ino)?.map(|(lsn, _)| lsn))
    }

    /// LSN of what is told of a directory's names.
    pub(super) fn names_lsn(&mut self, dir: Ino) -> Result<Lsn> {
        Ok(self.doing_in(dir)?.lsn)
    }

    pub(super) fn tell_inode(&self, touched: &Touched) -> Result<Option<FileChange>> {
        let ino = touched.ino;
        let Some((lsn, is)) = self.after.stamped_inode(ino)? else { return Ok(None) };
        let Some(path) = self.after.path(ino, &is)? else { return Ok(None) };
        let was = self.before.inode(ino)?;
        let doing = Doing::of((lsn, &is));
        let Some(was) = was else {
            let ranges = ranges(&touched.blocks, is.size);
            // The root came with the volume.
            return Ok((ino != ROOT_INO).then(|| change(ChangeKind::Added, path, (ino, &is), doing, ranges)));
        };
        let ranges = ranges(&touched.blocks, was.size.max(is.size));
        if self.has_new_first_name(ino, &is)? {
            let old_path = self.before.path(ino, &was)?;
            let stays = match &old_path {
                Some(old) => self.after.entry(was.parent, was.parent_cookie, last_name(old))?.is_some_and(|entry| entry.ino == ino),
                None => true,
            };
            return Ok(Some(match old_path {
                Some(old) if !stays => {
                    FileChange { old_path: Some(old), ..change(ChangeKind::Renamed, path, (ino, &is), doing, ranges) }
                }
                // It has this name beside others, or had none at all: whoever copies by name needs all of it.
                _ => change(ChangeKind::Added, path, (ino, &is), doing, whole(&is)),
            }));
        }
        let content = !ranges.is_empty() || was.size != is.size || was.target != is.target;
        let attributes = (was.mode, was.uid, was.gid, was.rdev) != (is.mode, is.uid, is.gid, is.rdev)
            || was.mtime != is.mtime && !is_directory(&is)
            || self.has_other_xattrs(touched)?;
        Ok(match (content, attributes) {
            (true, _) => Some(change(ChangeKind::Changed, path, (ino, &is), doing, ranges)),
            (false, true) => Some(change(ChangeKind::Attributes, path, (ino, &is), doing, ranges)),
            (false, false) => None,
        })
    }

    fn has_other_xattrs(&self, touched: &Touched) -> Result<bool> {
        for key in &touched.xattrs {
            if self.before.get(key)? != self.after.get(key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A name of a directory that leads elsewhere now, or is there on one side only: what it led to first.
    pub(super) fn tell_name(&mut self, dir: Ino, cookie: u64, name: &[u8]) -> Result<[Option<FileChange>; 2]> {
        let (was, is) = (self.before.entry(dir, cookie, name)?, self.after.entry(dir, cookie, name)?);
        if was.map(|entry| entry.ino) == is.map(|entry| entry.ino) {
            return Ok([None, None]);
        }
        let lost = match was {
            Some(entry) => self.tell_lost((dir, cookie), name, entry.ino)?,
            None => None,
        };
        let gained = match is {
            Some(entry) => self.tell_gained((dir, cookie), name, entry.ino)?,
            None => None,
        };
        Ok([lost, gained])
    }

    /// A first name is told with its inode.
    fn tell_gained(&mut self, place: (Ino, u64), name: &[u8], ino: Ino) -> Result<Option<FileChange>> {
        let Some(is) = self.after.inode(ino)?.filter(|is| (is.parent, is.parent_cookie) != place) else { return Ok(None) };
        let Some(path) = self.after.path_in(place.0, name)? else { return Ok(None) };
        let doing = self.doing_in(place.0)?;
        Ok(Some(change(ChangeKind::Added, path, (ino, &is), doing, whole(&is))))
    }

    fn tell_lost(&mut self, place: (Ino, u64), name: &[u8], ino: Ino) -> Result<Option<FileChange>> {
        let Some(was) = self.before.inode(ino)? else { return Ok(None) };
        if (was.parent, was.parent_cookie) == place
            && let Some(is) = self.after.inode(ino)?
            && self.has_new_first_name(ino, &is)?
        {
            // It was renamed.
            return Ok(None);
        }
        let Some(path) = self.before.path_in(place.0, name)? else { return Ok(None) };
        let doing = self.doing_in(place.0)?;
        Ok(Some(change(ChangeKind::Removed, path, (ino, &was), doing, Vec::new())))
    }

    fn has_new_first_name(&self, ino: Ino, is: &InodeRecord) -> Result<bool> {
        if is.parent == Ino(0) {
            return Ok(false);
        }
        let Some(name) = self.after.name_of(is.parent, is.parent_cookie)? else { return Ok(false) };
        let before = self.before.entry(is.parent, is.parent_cookie, &name)?;
        Ok(before.is_none_or(|entry| entry.ino != ino))
    }

    /// The newest change of a directory's names. What went has nothing of its own any more, but where it went from has.
    fn doing_in(&mut self, dir: Ino) -> Result<Doing> {
        if let Some((of, doing)) = self.directory
            && of == dir
        {
            return Ok(doing);
        }
        let mut at = dir;
        for _ in 0..DEPTH_MAX {
            if let Some((lsn, is)) = self.after.stamped_inode(at)?.filter(|(_, is)| at == ROOT_INO || is.parent != Ino(0)) {
                let doing = Doing::of((lsn, &is));
                self.directory = Some((dir, doing));
                return Ok(doing);
            }
            let was = self.before.inode(at)?.filter(|was| was.parent != Ino(0));
            at = was.map_or(ROOT_INO, |was| was.parent);
        }
        Err(Error::corrupt(format!("directory {dir} has no end above it")))
    }
}

fn change(
    kind: ChangeKind,
    path: Vec<u8>,
    (ino, inode): (Ino, &InodeRecord),
    Doing { lsn, time, writer }: Doing,
    ranges: Vec<(u64, u64)>,
) -> FileChange {
    let file_type = (inode.mode >> 12) as u8;
    FileChange { kind, path, old_path: None, ino, file_type, size: inode.size, lsn, time, writer, ranges }
}

/// All bytes of a file.
fn whole(inode: &InodeRecord) -> Vec<(u64, u64)> {
    let has_bytes = inode.mode >> 12 == 8 && inode.size > 0;
    if has_bytes { vec![(0, inode.size)] } else { Vec::new() }
}

fn is_directory(inode: &InodeRecord) -> bool {
    inode.mode >> 12 == 4
}

fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// Blocks in order, joined where they touch; where that leaves more than `most`, over the smallest gaps, too.
fn joined(mut blocks: Vec<(u64, u64)>, most: usize) -> Vec<(u64, u64)> {
    blocks.sort_unstable();
    let mut gap = 0;
    loop {
        blocks.dedup_by(|next, last| {
            let touches = last.0 + last.1 + gap >= next.0;
            if touches {
                last.1 = last.1.max(next.0 + next.1 - last.0);
            }
            touches
        });
        if blocks.len() <= most {
            return blocks;
        }
        gap = (2 * gap).max(1);
    }
}

/// Blocks as bytes within the file.
fn ranges(blocks: &[(u64, u64)], size: u64) -> Vec<(u64, u64)> {
    let bytes = |(first, count): (u64, u64)| {
        let (from, until) = (first * BLOCK_BYTES as u64, ((first + count) * BLOCK_BYTES as u64).min(size));
        (from < until).then(|| (from, until - from))
    };
    joined(blocks.to_vec(), RANGES_MAX).into_iter().filter_map(bytes).collect()
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

    #[test]
    fn many_blocks_become_few_ranges_that_have_them_all() {
        let scattered: Vec<(u64, u64)> = (0..100_000).map(|n| ((n * 7919) % 100_003 * 3, 1)).collect();
        let told = ranges(&scattered, 1 << 40);
        assert!((2..=RANGES_MAX).contains(&told.len()), "{}", told.len());
        let has = |byte: u64| told.iter().any(|(start, length)| (*start..start + length).contains(&byte));
        assert!(scattered.iter().step_by(97).all(|(block, _)| has(block * 4096) && has(block * 4096 + 4095)));
        assert_eq!(joined(vec![(0, 1), (10, 1), (12, 1)], 2), [(0, 1), (10, 3)]);
        let mut touched = Touched::new(Ino(2));
        (0..5 * BLOCKS_MAX).for_each(|n| touched.note(&key::data(BranchId(1), Ino(2), 2 * n as u32, 0), key::KIND_DATA));
        assert!(touched.blocks.len() < 2 * BLOCKS_MAX);
    }
}
