//! One of the two directories: carries out ops and says what a program would have seen.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::fill;
use crate::op::{NodeKind, Op, Path};
use crate::probe::{content, map, seek_verdict};
use crate::sys::{self, Code};

pub const SLOTS: usize = 10;

/// Stands in the place of a result where a legal difference made us leave the op out (see `legal`).
pub const SKIPPED: Code = 1 << 60;

const READ_BACK_MAX: u64 = 64 << 10;

/// Names of `Op::Burst`: long enough that a few hundred fill several directory blocks.
pub const BURST_PREFIX: &str = "burst-with-a-name-that-takes-some-room-in-the-directory-";

/// What an op gave. Two sides agree iff all three are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The call's result, or minus its errno.
    pub code: Code,
    /// Bytes that were read, names that were listed.
    pub data: Vec<u8>,
    /// What the op's subjects look like afterwards, in words.
    pub view: String,
}

/// Deliberate damage, for the twin's own test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Flips one byte of each write from the given op on, until one such write has succeeded.
    FlipWrittenByte { from_op: usize },
    /// Forgets the sticky bit and the group's write bit in every chmod.
    LoseModeBits,
}

pub struct Side {
    root: OwnedFd,
    slots: [Option<OwnedFd>; SLOTS],
    /// Whether ctime here moves visibly with every change (see `sys` of the kernel's multigrain clocks).
    fine_ctime: bool,
    damage: Option<Break>,
    ops_done: usize,
}

/// What an op touches: looked at before and after.
enum Subject<'a> {
    Path(&'a Path),
    Slot(usize),
}

impl Side {
    pub fn new(root: OwnedFd, fine_ctime: bool, damage: Option<Break>) -> Self {
        Self { root, slots: Default::default(), fine_ctime, damage, ops_done: 0 }
    }

    pub fn root(&self) -> RawFd {
        self.root.as_raw_fd()
    }

    /// Opens the root anew, by its path: after a restart of the daemon the old handle belongs to a mount that is gone.
    pub fn reopen_root(&mut self, path: &Path) -> Result<(), sys::Code> {
        self.root = sys::open(libc::AT_FDCWD, path, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        Ok(())
    }

    pub fn close_all(&mut self) {
        self.slots = Default::default();
    }

    pub fn run(&mut self, op: &Op) -> Outcome {
        let before: Vec<_> = subjects(op).iter().map(|subject| self.changed_at(subject)).collect();
        let mut outcome = self.perform(op);
        outcome.view.push_str(&self.read_back(op, outcome.code));
        if outcome.code > 0 && self.flips_now() && matches!(op, Op::Write { .. } | Op::WriteAt { .. }) {
            self.damage = None;
        }
        self.ops_done += 1;
        for (subject, before) in subjects(op).iter().zip(before) {
            outcome.view.push_str(&self.describe(subject));
            let after = self.changed_at(subject);
            let worked = outcome.code >= 0 && outcome.code != SKIPPED;
            // Another inode under the same name says nothing about time.
            if let (true, Some(before), Some(after)) = (self.fine_ctime && worked, before, after)
                && before.0 == after.0
            {
                outcome.view.push_str(match after.1.cmp(&before.1) {
                    std::cmp::Ordering::Equal => " ctime=same",
                    std::cmp::Ordering::Greater => " ctime=moved",
                    std::cmp::Ordering::Less => " ctime=BACKWARDS",
                });
            }
            outcome.view.push_str("; ");
        }
        outcome
    }

    fn fd(&self, slot: usize) -> Result<RawFd, Code> {
        self.slots[slot].as_ref().map(AsRawFd::as_raw_fd).ok_or(-i64::from(libc::EBADF))
    }

    /// Inode number and ctime.
    fn changed_at(&self, subject: &Subject<'_>) -> Option<(u64, (i64, i64))> {
        let stat = match subject {
            Subject::Path(path) => sys::stat(self.root(), path, false),
            Subject::Slot(slot) => self.fd(*slot).and_then(sys::stat_handle),
        };
        stat.ok().map(|stat| (stat.st_ino, (stat.st_ctime, stat.st_ctime_nsec)))
    }

    fn describe(&self, subject: &Subject<'_>) -> String {
        match subject {
            Subject::Slot(slot) => match self.fd(*slot).and_then(sys::stat_handle) {
                Ok(stat) => format!("slot {slot}: {}", stat_text(&stat)),
                Err(_) => format!("slot {slot}: empty"),
            },
            Subject::Path(path) => {
                let mut text = match sys::stat(self.root(), path, false) {
                    Ok(stat) => format!("{path:?}: {}", stat_text(&stat)),
                    Err(code) => format!("{path:?}: {}", sys::code_text(code)),
                };
                if text.contains(": symlink") {
                    match sys::stat(self.root(), path, true) {
                        Ok(stat) => text.push_str(&format!(" -> {}", stat_text(&stat))),
                        Err(code) => text.push_str(&format!(" -> {}", sys::code_text(code))),
                    }
                }
                if let Ok(stat) = sys::stat(self.root(), &parent(path), true) {
                    text.push_str(&format!(" in {}", stat_text(&stat)));
                }
                text
            }
        }
    }

    fn flips_now(&self) -> bool {
        matches!(self.damage, Some(Break::FlipWrittenByte { from_op }) if self.ops_done >= from_op)
    }

    /// What now stands where an op changed bytes, and a little before and after: at most `READ_BACK_MAX`
    /// bytes. Every fourth time the page cache is dropped first, so that the file system answers.
    fn read_back(&self, op: &Op, code: Code) -> String {
        let (slot, offset, length) = match op {
            Op::Write { slot, .. } if code > 0 => {
                let end = self.fd(*slot).map_or(0, |fd| sys::seek(fd, 0, libc::SEEK_CUR));
                (*slot, (end - code).max(0) as u64, code as u64)
            }
            Op::WriteAt { slot, offset, length, .. } => (*slot, *offset, *length as u64),
            Op::WriteVector { slot, offset, lengths, .. } => {
                (*slot, *offset, lengths.iter().sum::<usize>() as u64)
            }
            Op::Allocate { slot, offset, length, .. } => (*slot, *offset, *length),
            Op::CopyRange { to, to_offset, length, .. } => (*to, *to_offset, *length as u64),
            Op::TruncateSlot { slot, size } => (*slot, *size, 0),
            _ => return String::new(),
        };
        // A handle of its own, since the slot's may not be allowed to read.
        let Ok(fd) = self.fd(slot) else { return String::new() };
        let again = Path(format!("/proc/self/fd/{fd}").into_bytes());
        let Ok(reader) = sys::open(self.root(), &again, libc::O_RDONLY, 0) else { return String::new() };
        let from = offset.saturating_sub(100);
        let mut buffer = vec![0; (offset - from + length + 100).min(READ_BACK_MAX) as usize];
        if (offset ^ length) % 4 == 1 {
            sys::evict(reader.as_raw_fd());
        }
        match sys::read_at(reader.as_raw_fd(), &mut buffer, from) {
            got if got >= 0 => format!("reads back {got}:{:016x} ", fill::digest(0, &buffer[..got as usize])),
            code => format!("reads back {} ", sys::code_text(code)),
        }
    }

    /// The bytes of a write, damaged if this side is to be damaged now.
    fn data(&mut self, seed: u64, length: usize) -> Vec<u8> {
        let mut data = fill::bytes(seed, length);
        if self.flips_now() && !data.is_empty() {
            let middle = data.len() / 2;
            data[middle] ^= 0x40;
        }
        data
    }

    fn mode(&self, mode: u32) -> u32 {
        if self.damage == Some(Break::LoseModeBits) { mode & !0o1020 } else { mode }
    }

    /// Opens a file, a directory or nothing: never a node that could block or that `nodev` forbids.
    fn open(&self, path: &Path, flags: i32, mode: u32) -> Result<OwnedFd, Code> {
        if let Ok(stat) = sys::stat(self.root(), path, true)
            && !matches!(stat.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR)
        {
            return Err(SKIPPED);
        }
        sys::open(self.root(), path, flags, mode)
    }

    fn put_in_slot(&mut self, slot: usize, opened: Result<OwnedFd, Code>) -> Outcome {
        // The slot's old handle goes even if the new one fails, so that both sides hold the same.
        self.slots[slot] = None;
        match opened {
            Ok(fd) => {
                self.slots[slot] = Some(fd);
                plain(0)
            }
            Err(code) => plain(code),
        }
    }

    fn perform(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Open { slot, path, flags, mode } => {
                let opened = self.open(path, *flags, *mode);
                self.put_in_slot(*slot, opened)
            }
            Op::TemporaryFile { slot, directory, flags, mode } => {
                let opened = sys::open(self.root(), directory, *flags | libc::O_TMPFILE, *mode);
                self.put_in_slot(*slot, opened)
            }
            Op::Close { slot } => {
                plain(if self.slots[*slot].take().is_some() { 0 } else { -i64::from(libc::EBADF) })
            }
            Op::LinkSlot { slot, path } => {
                self.on_slot(*slot, |fd, side| plain(sys::link_handle(fd, side.root(), path)))
            }
            _ => self.perform_data(op),
        }
    }

    fn on_slot(&mut self, slot: usize, action: impl FnOnce(RawFd, &mut Self) -> Outcome) -> Outcome {
        match self.fd(slot) {
            Ok(fd) => action(fd, self),
            Err(code) => plain(code),
        }
    }

    fn perform_data(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Write { slot, length, fill } => self.on_slot(*slot, |fd, side| {
                let data = side.data(*fill, *length);
                with_position(fd, plain(sys::write(fd, &data)))
            }),
            Op::WriteAt { slot, offset, length, fill } => self.on_slot(*slot, |fd, side| {
                let data = side.data(*fill, *length);
                with_position(fd, plain(sys::write_at(fd, &data, *offset)))
            }),
            Op::WriteVector { slot, offset, lengths, fill } => self.on_slot(*slot, |fd, side| {
                let data = side.data(*fill, lengths.iter().sum());
                let mut rest = data.as_slice();
                let mut parts = Vec::new();
                for length in lengths {
                    let (part, after) = rest.split_at(*length);
                    parts.push(part);
                    rest = after;
                }
                plain(sys::write_vector(fd, &parts, *offset))
            }),
            Op::Read { slot, length } => self.on_slot(*slot, |fd, _| {
                let mut buffer = vec![0; *length];
                let code = sys::read(fd, &mut buffer);
                with_position(fd, with_data(code, buffer))
            }),
            Op::ReadAt { slot, offset, length } => self.on_slot(*slot, |fd, _| {
                let mut buffer = vec![0; *length];
                let code = sys::read_at(fd, &mut buffer, *offset);
                with_data(code, buffer)
            }),
            Op::Position { slot, offset } => self.on_slot(*slot, |fd, _| match is_regular(fd) {
                true => plain(sys::seek(fd, *offset, libc::SEEK_SET)),
                false => plain(SKIPPED),
            }),
            Op::Seek { slot, offset, hole } => self.on_slot(*slot, |fd, _| seek_verdict(fd, *offset, *hole)),
            Op::Map { slot, offset, length, fill } => self.on_slot(*slot, |fd, side| {
                let data = side.data(*fill, *length);
                map(fd, *offset, data)
            }),
            Op::TruncateSlot { slot, size } => {
                self.on_slot(*slot, |fd, _| plain(sys::truncate_handle(fd, *size)))
            }
            Op::Allocate { slot, mode, offset, length } => {
                self.on_slot(*slot, |fd, _| plain(sys::allocate(fd, *mode, *offset, *length)))
            }
            Op::CopyRange { from, from_offset, to, to_offset, length } => {
                match (self.fd(*from), self.fd(*to)) {
                    (Ok(source), Ok(target)) => {
                        plain(sys::copy_range(source, *from_offset, target, *to_offset, *length))
                    }
                    (Err(code), _) | (_, Err(code)) => plain(code),
                }
            }
            Op::Sync { slot, data_only } => self.on_slot(*slot, |fd, _| plain(sys::sync(fd, *data_only))),
            Op::Evict { slot } => self.on_slot(*slot, |fd, _| {
                sys::evict(fd);
                plain(0)
            }),
            Op::ChangeModeSlot { slot, mode } => {
                self.on_slot(*slot, |fd, side| plain(sys::change_mode_handle(fd, side.mode(*mode))))
            }
            _ => self.perform_path_data(op),
        }
    }

    fn perform_path_data(&mut self, op: &Op) -> Outcome {
        let root = self.root();
        match op {
            Op::DirectWrite { path, offset, length, fill } => {
                let data = self.data(*fill, *length);
                let mut aligned = sys::Aligned::new(*length);
                aligned.bytes().copy_from_slice(&data);
                match self.open(path, libc::O_WRONLY | libc::O_DIRECT, 0) {
                    Ok(fd) => plain(sys::write_at(fd.as_raw_fd(), aligned.bytes(), *offset)),
                    Err(code) => plain(code),
                }
            }
            Op::DirectRead { path, offset, length } => {
                let mut aligned = sys::Aligned::new(*length);
                // Directories refuse O_DIRECT in ways of their own.
                match self.open(path, libc::O_RDONLY | libc::O_DIRECT, 0) {
                    Ok(fd) if !is_regular(fd.as_raw_fd()) => plain(SKIPPED),
                    Ok(fd) => {
                        let code = sys::read_at(fd.as_raw_fd(), aligned.bytes(), *offset);
                        with_data(code, aligned.bytes().to_vec())
                    }
                    Err(_) if is_directory(root, path) => plain(SKIPPED),
                    Err(code) => plain(code),
                }
            }
            Op::Truncate { path, size } => match sys::stat(root, path, true) {
                Ok(stat) if stat.st_size as u64 == *size => plain(SKIPPED),
                Ok(stat) if !matches!(stat.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR) => {
                    plain(SKIPPED)
                }
                _ => plain(sys::truncate(root, path, *size)),
            },
            Op::Digest { path } => match self.open(path, libc::O_RDONLY, 0) {
                Ok(fd) if is_regular(fd.as_raw_fd()) => content(fd.as_raw_fd()),
                Ok(_) => plain(SKIPPED),
                Err(code) => plain(code),
            },
            Op::List { path } => match sys::list(root, path) {
                Ok(entries) => listed(&entries),
                Err(code) => plain(code),
            },
            Op::Burst { directory, count } => self.burst(directory, *count),
            Op::Sweep { directory, keep_every } => self.sweep(directory, *keep_every),
            _ => self.perform_path(op),
        }
    }

    fn perform_path(&mut self, op: &Op) -> Outcome {
        let root = self.root();
        plain(match op {
            Op::Rename { from, to, flags } => sys::rename(root, from, to, *flags),
            Op::Link { from, to, follow } => sys::link(root, from, to, *follow),
            Op::Symlink { target, path } => sys::symlink(target, root, path),
            Op::Unlink { path } => sys::unlink(root, path, 0),
            Op::MakeDirectory { path, mode } => sys::make_directory(root, path, *mode),
            Op::RemoveDirectory { path } => sys::unlink(root, path, libc::AT_REMOVEDIR),
            Op::MakeNode { path, kind, mode } => {
                let (kind, device) = match kind {
                    NodeKind::Fifo => (libc::S_IFIFO, 0),
                    NodeKind::Socket => (libc::S_IFSOCK, 0),
                    NodeKind::Device { major, minor } => (libc::S_IFCHR, libc::makedev(*major, *minor)),
                };
                sys::make_node(root, path, kind | mode, device)
            }
            Op::ChangeMode { path, mode } => sys::change_mode(root, path, self.mode(*mode)),
            Op::ChangeOwner { path, user, group, follow } => {
                sys::change_owner(root, path, *user, *group, *follow)
            }
            Op::SetTimes { path, accessed, modified, follow } => {
                let code = sys::set_times(root, path, [*accessed, *modified], *follow);
                return Outcome {
                    code,
                    data: Vec::new(),
                    view: self.accessed_text(path, accessed.is_some(), *follow),
                };
            }
            Op::SetXattr { path, name, length, fill, flags, follow } => {
                sys::set_xattr(root, path, name, &fill::bytes(*fill, *length), *flags, *follow)
            }
            Op::RemoveXattr { path, name } => sys::remove_xattr(root, path, name),
            Op::SetAcl { path, default, value } => {
                let name: &[u8] =
                    if *default { b"system.posix_acl_default" } else { b"system.posix_acl_access" };
                sys::set_xattr(root, path, &Path(name.to_vec()), value, 0, true)
            }
            Op::Access { path, mode } => sys::access(root, path, *mode),
            Op::Stat { path, follow } => sys::stat(root, path, *follow).map_or_else(|code| code, |_| 0),
            Op::GetXattr { path, name, capacity } => {
                let (code, data) = sys::get_xattr(root, path, name, *capacity);
                return Outcome { code, data, view: String::new() };
            }
            Op::ListXattr { path, capacity } => return self.list_xattr(path, *capacity),
            Op::ReadLink { path } => {
                let (code, data) = sys::read_link(root, path);
                return Outcome { code, data, view: String::new() };
            }
            other => unreachable!("{other:?} is carried out elsewhere"),
        })
    }

    fn accessed_text(&self, path: &Path, was_set: bool, follow: bool) -> String {
        match sys::stat(self.root(), path, follow) {
            Ok(stat) if was_set => format!("atime {}.{} ", stat.st_atime, stat.st_atime_nsec),
            _ => String::new(),
        }
    }

    fn list_xattr(&self, path: &Path, capacity: usize) -> Outcome {
        let (code, names) = sys::list_xattr(self.root(), path, 64 << 10);
        if code < 0 {
            return plain(code);
        }
        // The result's length counts names that we filter, so it is compared only through a call of given
        // capacity when nothing was filtered.
        let kept = kept_xattrs(&names);
        let total: usize = kept.iter().map(|name| name.len() + 1).sum();
        let code =
            if total == names.len() { sys::list_xattr(self.root(), path, capacity).0 } else { SKIPPED };
        Outcome { code, data: kept.join(&0), view: String::new() }
    }

    fn burst(&mut self, directory: &Path, count: usize) -> Outcome {
        for number in 0..count {
            let path = join(directory, format!("{BURST_PREFIX}{number:05}").as_bytes());
            match sys::open(self.root(), &path, libc::O_CREAT | libc::O_WRONLY | libc::O_NOFOLLOW, 0o644) {
                Ok(_) => {}
                Err(code) => return plain(code),
            }
        }
        plain(count as Code)
    }

    /// Removes while listing, as `rm -r` does: every name that was there from the beginning must come exactly
    /// once.
    fn sweep(&mut self, directory: &Path, keep_every: usize) -> Outcome {
        let fd = match sys::open(self.root(), directory, libc::O_RDONLY | libc::O_DIRECTORY, 0) {
            Ok(fd) => fd,
            Err(code) => return plain(code),
        };
        let mut entries = sys::Entries::new(fd, 1 << 10);
        let mut seen = Vec::new();
        let mut removed = 0;
        loop {
            let batch = match entries.next_batch() {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(code) => return plain(code),
            };
            for (name, kind) in batch {
                let number = name.strip_prefix(BURST_PREFIX.as_bytes()).map(|digits| fill::digest(0, digits));
                if number.is_some_and(|number| !number.is_multiple_of(keep_every as u64)) {
                    let code = sys::unlink(self.root(), &join(directory, &name), 0);
                    if code < 0 {
                        return plain(code);
                    }
                    removed += 1;
                }
                seen.push((name, kind));
            }
        }
        seen.sort();
        Outcome { code: removed, ..listed(&seen) }
    }
}

fn subjects(op: &Op) -> Vec<Subject<'_>> {
    match op {
        Op::Open { slot, path, .. } | Op::LinkSlot { slot, path } => {
            vec![Subject::Slot(*slot), Subject::Path(path)]
        }
        Op::TemporaryFile { slot, directory, .. } => vec![Subject::Slot(*slot), Subject::Path(directory)],
        Op::Close { slot }
        | Op::Write { slot, .. }
        | Op::WriteAt { slot, .. }
        | Op::WriteVector { slot, .. }
        | Op::Read { slot, .. }
        | Op::ReadAt { slot, .. }
        | Op::Position { slot, .. }
        | Op::Seek { slot, .. }
        | Op::Map { slot, .. }
        | Op::TruncateSlot { slot, .. }
        | Op::Allocate { slot, .. }
        | Op::Sync { slot, .. }
        | Op::Evict { slot }
        | Op::ChangeModeSlot { slot, .. } => vec![Subject::Slot(*slot)],
        Op::CopyRange { from, to, .. } => vec![Subject::Slot(*from), Subject::Slot(*to)],
        Op::Rename { from, to, .. } | Op::Link { from, to, .. } => {
            vec![Subject::Path(from), Subject::Path(to)]
        }
        Op::DirectWrite { path, .. }
        | Op::DirectRead { path, .. }
        | Op::Truncate { path, .. }
        | Op::Symlink { path, .. }
        | Op::ReadLink { path }
        | Op::Unlink { path }
        | Op::MakeDirectory { path, .. }
        | Op::RemoveDirectory { path }
        | Op::MakeNode { path, .. }
        | Op::ChangeMode { path, .. }
        | Op::ChangeOwner { path, .. }
        | Op::SetTimes { path, .. }
        | Op::SetXattr { path, .. }
        | Op::GetXattr { path, .. }
        | Op::ListXattr { path, .. }
        | Op::RemoveXattr { path, .. }
        | Op::SetAcl { path, .. }
        | Op::List { path }
        | Op::Stat { path, .. }
        | Op::Access { path, .. }
        | Op::Digest { path } => vec![Subject::Path(path)],
        Op::Burst { directory, .. } | Op::Sweep { directory, .. } => vec![Subject::Path(directory)],
    }
}

pub fn plain(code: Code) -> Outcome {
    Outcome { code, data: Vec::new(), view: String::new() }
}

fn with_data(code: Code, mut data: Vec<u8>) -> Outcome {
    data.truncate(code.max(0) as usize);
    Outcome { code, data, view: String::new() }
}

/// Adds where the handle now stands; directories' positions are opaque.
fn with_position(fd: RawFd, outcome: Outcome) -> Outcome {
    if !is_regular(fd) {
        return outcome;
    }
    Outcome { view: format!("position {} ", sys::seek(fd, 0, libc::SEEK_CUR)), ..outcome }
}

fn listed(entries: &[(Vec<u8>, u8)]) -> Outcome {
    let mut data = Vec::new();
    for (name, kind) in entries {
        data.extend_from_slice(name);
        data.extend_from_slice(&[0, *kind]);
    }
    Outcome { code: entries.len() as Code, data, view: String::new() }
}

pub fn kept_xattrs(names: &[u8]) -> Vec<Vec<u8>> {
    let mut kept: Vec<Vec<u8>> = names
        .split(|byte| *byte == 0)
        .filter(|name| name.starts_with(b"user.") || name.starts_with(b"system."))
        .map(<[u8]>::to_vec)
        .collect();
    kept.sort();
    kept
}

pub fn join(directory: &Path, name: &[u8]) -> Path {
    let mut bytes = directory.0.clone();
    bytes.push(b'/');
    bytes.extend_from_slice(name);
    Path(bytes)
}

fn parent(path: &Path) -> Path {
    let trimmed = path.0.strip_suffix(b"/.").or(path.0.strip_suffix(b"/")).unwrap_or(&path.0);
    match trimmed.iter().rposition(|byte| *byte == b'/') {
        Some(at) => Path(trimmed[..at].to_vec()),
        None => Path(b".".to_vec()),
    }
}

fn is_regular(fd: RawFd) -> bool {
    sys::stat_handle(fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG)
}

fn is_directory(root: RawFd, path: &Path) -> bool {
    sys::stat(root, path, true).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// All that is compared of an inode, in words. Times that were set by hand lie before 2017 (see `generate`).
pub fn stat_text(stat: &libc::stat) -> String {
    let kind = match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => "file",
        libc::S_IFDIR => "directory",
        libc::S_IFLNK => "symlink",
        libc::S_IFIFO => "fifo",
        libc::S_IFSOCK => "socket",
        libc::S_IFCHR => "device",
        _ => "unknown kind",
    };
    let size = if kind == "directory" { String::new() } else { format!(" size {}", stat.st_size) };
    let device = if kind == "device" { format!(" rdev {:#x}", stat.st_rdev) } else { String::new() };
    let modified = if stat.st_mtime < crate::generate::CLOCK_FROM_SECONDS {
        format!("{}.{:09}", stat.st_mtime, stat.st_mtime_nsec)
    } else {
        "clock".to_owned()
    };
    format!(
        "{kind} {:04o} {}:{} links {}{size}{device} mtime {modified}",
        stat.st_mode & 0o7777,
        stat.st_uid,
        stat.st_gid,
        stat.st_nlink
    )
}
