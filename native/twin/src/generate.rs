//! Draws ops from a seed. The sequence depends on the seed and on what earlier ops gave (which is equal on
//! both sides as long as there is no difference), never on how many ops are asked for: a shorter run is a
//! prefix of a longer one.

use holdfast_device::Rng;

use crate::op::{NodeKind, Op, Path, SetTime};
use crate::side::{Outcome, SKIPPED, SLOTS};

/// Times set by hand lie before this moment (July 2017), times from a clock after it.
pub const CLOCK_FROM_SECONDS: i64 = 1_500_000_000;

/// Names of every kind that has ever broken a file system: bytes that are no text, newlines, two spellings of
/// one letter, names that look like options.
const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"d",
    b"e",
    b"f",
    b"g",
    b"h",
    b"A",
    b"-rf",
    b" ",
    b"new\nline",
    b"\xff\xfe\x80",
    b"\xc3\xbc",
    b"u\xcc\x88",
    b"...",
    b"tab\there",
    b"*",
    b"quote'\"",
    b"\\",
    b"lost+found",
    b".hidden",
    b"~",
    b"con",
];

const NAME_BYTES_MAX: usize = 255;
const DEPTH_MAX: usize = 5;
const KNOWN_MAX: usize = 80;
const XATTRS_MAX: usize = 12;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Other,
}

pub struct Generator {
    rng: Rng,
    /// Paths that were made and, as far as we know, are still there. Stale ones do no harm.
    known: Vec<(Path, Kind)>,
    /// Which slots hold a handle.
    open: [bool; SLOTS],
    /// The newest xattrs that were set, for those who want to get or remove one that is there.
    xattrs: Vec<(Path, Path)>,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::from_seed(seed), known: Vec::new(), open: [false; SLOTS], xattrs: Vec::new() }
    }

    pub fn next_op(&mut self) -> Op {
        match self.rng.below(100) {
            0..14 => self.open(),
            14..17 => Op::Close { slot: self.slot() },
            17..42 => self.write(),
            42..54 => self.read(),
            54..63 => self.resize(),
            63..68 => self.copy(),
            68..84 => self.name(),
            84..91 => self.attribute(),
            91..95 => self.xattr(),
            _ => self.look(),
        }
    }

    /// Takes note of what exists now.
    pub fn learn(&mut self, op: &Op, outcome: &Outcome) {
        match op {
            Op::Open { slot, .. } | Op::TemporaryFile { slot, .. } => self.open[*slot] = outcome.code == 0,
            Op::Close { slot } => self.open[*slot] = false,
            _ => {}
        }
        if outcome.code < 0 || outcome.code == SKIPPED {
            return;
        }
        match op {
            Op::Open { path, flags, .. } if flags & libc::O_CREAT != 0 => self.add(path, Kind::File),
            Op::SetXattr { path, name, .. } => {
                self.xattrs.push((path.clone(), name.clone()));
                let excess = self.xattrs.len().saturating_sub(XATTRS_MAX);
                self.xattrs.drain(..excess);
            }
            Op::LinkSlot { path, .. } => self.add(path, Kind::File),
            Op::MakeDirectory { path, .. } => self.add(path, Kind::Directory),
            Op::Symlink { path, .. } | Op::MakeNode { path, .. } => self.add(path, Kind::Other),
            Op::Link { from, to, .. } => {
                let kind = self.kind(from);
                self.add(to, kind);
            }
            Op::Unlink { path } | Op::RemoveDirectory { path } => self.known.retain(|known| known.0 != *path),
            Op::Rename { from, to, flags } => {
                let kind = self.kind(from);
                if flags & libc::RENAME_EXCHANGE == 0 {
                    self.known.retain(|known| known.0 != *from);
                }
                self.add(to, kind);
            }
            _ => {}
        }
    }

    fn kind(&self, path: &Path) -> Kind {
        self.known.iter().find(|known| known.0 == *path).map_or(Kind::Other, |known| known.1)
    }

    fn add(&mut self, path: &Path, kind: Kind) {
        // No call makes the empty path; below it, paths would be absolute.
        if path.0.is_empty() {
            return;
        }
        self.known.retain(|known| known.0 != *path);
        if self.known.len() == KNOWN_MAX {
            let at = self.rng.below(KNOWN_MAX as u64) as usize;
            self.known.swap_remove(at);
        }
        self.known.push((path.clone(), kind));
    }

    /// Mostly a slot that holds a handle.
    fn slot(&mut self) -> usize {
        let open: Vec<usize> = (0..SLOTS).filter(|slot| self.open[*slot]).collect();
        if open.is_empty() || self.rng.chance(1, 25) {
            return self.any_slot();
        }
        open[self.rng.below(open.len() as u64) as usize]
    }

    fn any_slot(&mut self) -> usize {
        self.rng.below(SLOTS as u64) as usize
    }

    fn directory(&mut self) -> Path {
        let directories: Vec<&Path> =
            self.known.iter().filter(|known| known.1 == Kind::Directory).map(|known| &known.0).collect();
        let at = self.rng.below(directories.len() as u64 + 1) as usize;
        directories.get(at).map_or_else(|| Path(b".".to_vec()), |path| (*path).clone())
    }

    /// A path that probably names nothing yet.
    fn new_path(&mut self) -> Path {
        let directory = self.directory();
        let mut name = match self.rng.below(40) {
            // Unique names keep the tree from being only collisions.
            0..12 => format!("n{}", self.rng.below(1000)).into_bytes(),
            12 => vec![b'x'; NAME_BYTES_MAX],
            13 => vec![b'x'; NAME_BYTES_MAX + 1],
            14 => vec![0xfe; NAME_BYTES_MAX],
            _ => NAMES[self.rng.below(NAMES.len() as u64) as usize].to_vec(),
        };
        let depth = directory.0.iter().filter(|byte| **byte == b'/').count() + 1;
        if directory.0 == b"." || depth >= DEPTH_MAX {
            return Path(name);
        }
        let mut path = directory.0;
        path.push(b'/');
        path.append(&mut name);
        Path(path)
    }

    /// A path that probably names something, with odd endings now and then.
    fn path(&mut self) -> Path {
        self.path_of(None)
    }

    fn file(&mut self) -> Path {
        self.path_of(Some(Kind::File))
    }

    fn path_of(&mut self, kind: Option<Kind>) -> Path {
        let candidates: Vec<&Path> = self
            .known
            .iter()
            .filter(|known| kind.is_none_or(|kind| kind == known.1))
            .map(|known| &known.0)
            .collect();
        // The newest few are preferred, so that ops meet on the same inodes.
        let span = if self.rng.chance(1, 2) { candidates.len().min(5) } else { candidates.len() };
        let pick = candidates.len() - span + self.rng.below(span.max(1) as u64) as usize;
        let mut path = match candidates.get(pick) {
            Some(path) => (*path).clone(),
            None => self.new_path(),
        };
        match self.rng.below(80) {
            0..6 => path = self.new_path(),
            // An empty path stays empty: with a slash it would be absolute.
            6..10 if path.0.is_empty() => {}
            6 => path.0.push(b'/'),
            7 => path.0.extend_from_slice(b"/."),
            8 => path = Path(b".".to_vec()),
            9 => path.0.extend_from_slice(b"/below-a-file"),
            10 => path = Path(Vec::new()),
            _ => {}
        }
        path
    }

    /// Lengths: mostly small, often around pages, at times large.
    fn length(&mut self) -> usize {
        (match self.rng.below(20) {
            0..6 => self.rng.below(200),
            6..10 => 4096 * (1 + self.rng.below(4)),
            10..13 => (4096 * (1 + self.rng.below(4)) + self.rng.below(3)).saturating_sub(1),
            13..19 => self.rng.below(20_000),
            _ => self.rng.below(300_000),
        }) as usize
    }

    /// Offsets: mostly near the beginning, where ops meet each other; at times sparse, up to 4 TiB.
    fn offset(&mut self) -> u64 {
        match self.rng.below(50) {
            0..12 => 0,
            12..30 => self.rng.below(20_000),
            30..38 => 4096 * self.rng.below(20),
            38..45 => self.rng.below(300_000),
            45..48 => self.rng.below(8 << 20),
            48 => self.rng.below(1 << 30),
            _ => (1 << 40) * self.rng.below(4) + self.rng.below(10_000),
        }
    }

    fn fill(&mut self) -> u64 {
        if self.rng.chance(1, 12) { 0 } else { self.rng.next_u64() | 1 }
    }

    fn mode(&mut self) -> u32 {
        match self.rng.below(4) {
            0 => self.rng.below(0o10000) as u32,
            1 => 0o666,
            2 => 0o755,
            _ => 0o600,
        }
    }

    fn open(&mut self) -> Op {
        let slot = self.any_slot();
        let access = [libc::O_RDWR, libc::O_RDWR, libc::O_RDWR, libc::O_RDONLY, libc::O_WRONLY];
        let mut flags = access[self.rng.below(5) as usize];
        let mode = self.mode();
        if self.rng.chance(1, 12) {
            if flags == libc::O_RDONLY {
                flags = libc::O_RDWR;
            }
            if self.rng.chance(1, 5) {
                flags |= libc::O_EXCL;
            }
            return Op::TemporaryFile { slot, directory: self.directory(), flags, mode };
        }
        for (flag, chance) in [
            (libc::O_CREAT, 7),
            (libc::O_EXCL, 1),
            (libc::O_TRUNC, 1),
            (libc::O_APPEND, 1),
            (libc::O_NOFOLLOW, 1),
        ] {
            if self.rng.chance(chance, 10) {
                flags |= flag;
            }
        }
        if self.rng.chance(1, 30) {
            flags |= libc::O_DIRECTORY;
        }
        if self.rng.chance(1, 30) {
            flags |= libc::O_DSYNC;
        }
        let path =
            if flags & libc::O_CREAT != 0 && self.rng.chance(1, 2) { self.new_path() } else { self.file() };
        Op::Open { slot, path, flags, mode }
    }

    fn write(&mut self) -> Op {
        let (slot, length, fill) = (self.slot(), self.length(), self.fill());
        match self.rng.below(20) {
            0..5 => Op::Write { slot, length, fill },
            5..14 => Op::WriteAt { slot, offset: self.offset(), length, fill },
            14..15 => {
                let lengths = (0..1 + self.rng.below(5)).map(|_| self.length() / 4).collect();
                Op::WriteVector { slot, offset: self.offset(), lengths, fill }
            }
            15..17 => {
                let pages = 1 + self.rng.below(8) as usize;
                let offset = self.offset() / 4096 * 4096;
                Op::DirectWrite { path: self.file(), offset, length: pages * 4096, fill }
            }
            _ => Op::Map { slot, offset: self.rng.below(100_000), length, fill },
        }
    }

    fn read(&mut self) -> Op {
        let (slot, length) = (self.slot(), self.length());
        match self.rng.below(12) {
            0..3 => Op::Read { slot, length },
            3..7 => Op::ReadAt { slot, offset: self.offset(), length },
            7 => Op::Position { slot, offset: self.offset() },
            8 => Op::Seek { slot, offset: self.offset(), hole: self.rng.chance(1, 2) },
            9 => {
                let pages = 1 + self.rng.below(8) as usize;
                let offset = self.offset() / 4096 * 4096;
                Op::DirectRead { path: self.file(), offset, length: pages * 4096 }
            }
            10 => Op::Evict { slot },
            _ => Op::Digest { path: self.file() },
        }
    }

    fn resize(&mut self) -> Op {
        let slot = self.slot();
        match self.rng.below(10) {
            0..2 => Op::Truncate { path: self.file(), size: self.offset() },
            2..5 => Op::TruncateSlot { slot, size: self.offset() },
            _ => {
                let (punch, keep) = (libc::FALLOC_FL_PUNCH_HOLE, libc::FALLOC_FL_KEEP_SIZE);
                let zero = libc::FALLOC_FL_ZERO_RANGE;
                let modes = [0, keep, punch | keep, punch | keep, zero, zero | keep, punch];
                let mode = modes[self.rng.below(modes.len() as u64) as usize];
                let length = if self.rng.chance(1, 30) { 0 } else { self.length() as u64 };
                Op::Allocate { slot, mode, offset: self.offset(), length }
            }
        }
    }

    fn copy(&mut self) -> Op {
        let from = self.slot();
        let to = if self.rng.chance(1, 3) { from } else { self.slot() };
        let (mut from_offset, mut to_offset, mut length) = (self.offset(), self.offset(), self.length());
        if self.rng.chance(1, 2) {
            // Whole pages at page offsets: what can be shared by reference.
            from_offset = from_offset / 4096 * 4096;
            to_offset = to_offset / 4096 * 4096;
            length = length.next_multiple_of(4096);
        }
        Op::CopyRange { from, from_offset, to, to_offset, length }
    }

    fn name(&mut self) -> Op {
        match self.rng.below(32) {
            0..4 => Op::MakeDirectory { path: self.new_path(), mode: self.mode() },
            4..6 => Op::RemoveDirectory { path: self.path_of(Some(Kind::Directory)) },
            6..12 => Op::Unlink { path: self.path() },
            12..20 => {
                let flags =
                    [0, 0, 0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE][self.rng.below(5) as usize];
                let from = self.path();
                let to = if self.rng.chance(1, 2) { self.path() } else { self.new_path() };
                Op::Rename { from, to, flags }
            }
            20..23 => {
                let to = if self.rng.chance(1, 6) { self.path() } else { self.new_path() };
                Op::Link { from: self.path(), to, follow: self.rng.chance(1, 2) }
            }
            23..25 => Op::Symlink { target: self.target(), path: self.new_path() },
            25 => Op::ReadLink { path: self.path() },
            26 => {
                let kind = match self.rng.below(3) {
                    0 => NodeKind::Fifo,
                    1 => NodeKind::Socket,
                    _ => NodeKind::Device {
                        major: 1 + self.rng.below(4000) as u32,
                        minor: self.rng.below(1 << 20) as u32,
                    },
                };
                Op::MakeNode { path: self.new_path(), kind, mode: self.mode() }
            }
            27..29 => Op::LinkSlot { slot: self.slot(), path: self.new_path() },
            29 => match self.rng.below(8) {
                0 => Op::Burst { directory: self.directory(), count: 20 + self.rng.below(120) as usize },
                _ => Op::Sweep { directory: self.directory(), keep_every: 1 + self.rng.below(10) as usize },
            },
            _ => Op::List { path: self.directory() },
        }
    }

    /// Targets stay below the directory that holds the link.
    fn target(&mut self) -> Path {
        match self.rng.below(12) {
            0 => Path(vec![b't'; 4095]),
            1 => Path(Vec::new()),
            2 => Path(b".".to_vec()),
            3 => Path(b"d/\xff\n".to_vec()),
            4 => Path([b"./".repeat(100), b"a".to_vec()].concat()),
            _ => self.path(),
        }
    }

    fn attribute(&mut self) -> Op {
        match self.rng.below(10) {
            0..2 => Op::ChangeMode { path: self.path(), mode: self.mode() },
            2 => Op::ChangeModeSlot { slot: self.slot(), mode: self.mode() },
            3..5 => {
                let ids =
                    [(1000, 1001), (u32::MAX, 7), (8, u32::MAX), (0, 0), (4_000_000_000, 3_000_000_000)];
                let (user, group) = ids[self.rng.below(ids.len() as u64) as usize];
                Op::ChangeOwner { path: self.path(), user, group, follow: self.rng.chance(1, 2) }
            }
            _ => {
                let (accessed, modified) = (self.time(), self.time());
                let modified = if self.rng.chance(1, 10) { Some((0, libc::UTIME_NOW)) } else { modified };
                Op::SetTimes { path: self.path(), accessed, modified, follow: self.rng.chance(1, 2) }
            }
        }
    }

    fn time(&mut self) -> SetTime {
        let nanoseconds = self.rng.below(1_000_000_000) as i64;
        match self.rng.below(8) {
            0 => None,
            1 => Some((0, 0)),
            2 => Some((-(self.rng.below(1 << 30) as i64), nanoseconds)),
            _ => Some((self.rng.below(CLOCK_FROM_SECONDS as u64) as i64, nanoseconds)),
        }
    }

    fn xattr_name(&mut self) -> Path {
        Path(match self.rng.below(24) {
            0 => b"user.".to_vec(),
            1 => b"noprefix".to_vec(),
            2 => [b"user.".to_vec(), vec![b'y'; 250]].concat(),
            3 => [b"user.".to_vec(), vec![b'y'; 251]].concat(),
            4 => b"user.\xff\n".to_vec(),
            other => format!("user.key{}", other % 3).into_bytes(),
        })
    }

    fn xattr(&mut self) -> Op {
        let (mut path, mut name) = (self.path(), self.xattr_name());
        if !self.xattrs.is_empty() && self.rng.chance(1, 2) {
            let at = self.rng.below(self.xattrs.len() as u64) as usize;
            (path, name) = self.xattrs[at].clone();
        }
        match self.rng.below(10) {
            0..4 => {
                let flags = [0, 0, libc::XATTR_CREATE, libc::XATTR_REPLACE][self.rng.below(4) as usize];
                let (length, fill) = (self.rng.below(300) as usize, self.fill());
                Op::SetXattr { path, name, length, fill, flags, follow: self.rng.chance(1, 2) }
            }
            4..6 => Op::GetXattr { path, name, capacity: [0, 10, 4096][self.rng.below(3) as usize] },
            6 => Op::ListXattr { path, capacity: [0, 10, 65_536][self.rng.below(3) as usize] },
            7..9 => {
                let default = self.rng.chance(1, 2);
                Op::SetAcl { path, default, value: self.acl() }
            }
            _ => Op::RemoveXattr { path, name },
        }
    }

    /// An ACL in the kernel's form: version 2, then entries of tag, permissions, id. At times with an entry
    /// too few.
    fn acl(&mut self) -> Vec<u8> {
        const NOBODY: u32 = u32::MAX;
        let mut entries = vec![(0x01u16, NOBODY), (0x04, NOBODY), (0x20, NOBODY)];
        if self.rng.chance(2, 3) {
            entries.insert(1, (0x02, 1000 + self.rng.below(3) as u32));
            entries.insert(3, (0x08, 2000));
            entries.insert(4, (0x10, NOBODY));
        }
        if self.rng.chance(1, 10) {
            entries.pop();
        }
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, id) in entries {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&(self.rng.below(8) as u16).to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    fn look(&mut self) -> Op {
        match self.rng.below(10) {
            0..4 => Op::Stat { path: self.path(), follow: self.rng.chance(1, 2) },
            4 => Op::Access { path: self.path(), mode: self.rng.below(8) as i32 },
            5..7 => Op::List { path: self.path() },
            7 => Op::Sync { slot: self.slot(), data_only: self.rng.chance(1, 2) },
            _ => Op::Digest { path: self.file() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Path;

    #[test]
    fn a_seed_gives_the_same_ops_again() {
        let draw = |seed| {
            let mut generator = Generator::new(seed);
            let done = Outcome { code: 0, data: Vec::new(), view: String::new() };
            (0..3000)
                .map(|_| {
                    let op = generator.next_op();
                    generator.learn(&op, &done);
                    format!("{op:?}")
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }

    #[test]
    fn no_path_and_no_target_leaves_the_directory() {
        let mut generator = Generator::new(2);
        let done = Outcome { code: 0, data: Vec::new(), view: String::new() };
        for _ in 0..3000 {
            let op = generator.next_op();
            generator.learn(&op, &done);
            for path in [generator.path(), generator.new_path(), generator.target()] {
                assert!(!path.0.starts_with(b"/"), "{path:?}");
                assert!(path.0.split(|byte| *byte == b'/').all(|part| part != b".."), "{path:?}");
            }
        }
    }

    #[test]
    fn long_names_are_drawn_at_and_beyond_the_limit() {
        let mut generator = Generator::new(1);
        let lengths: Vec<usize> = (0..2000).map(|_| generator.new_path().0.len()).collect();
        assert!(lengths.contains(&255) && lengths.contains(&256));
        assert_ne!(generator.new_path(), Path(Vec::new()));
    }
}
