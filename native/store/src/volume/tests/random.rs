//! Random operations on the volume and on a tree of plain nodes, which must always agree.

use super::*;
use crate::api::{
    FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT,
    Whence,
};
use holdfast_device::Rng;

#[derive(Clone, Debug, Default)]
struct Node {
    mode: u32,
    nlink: u32,
    content: Vec<u8>,
    children: BTreeMap<Vec<u8>, u64>,
    parent: u64,
    mtime: i64,
    ctime: i64,
    references: u64,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Node {
    fn is_dir(&self) -> bool {
        mode::is_directory(self.mode)
    }
    fn is_file(&self) -> bool {
        mode::is_regular(self.mode)
    }
}

struct World {
    bench: Bench,
    rng: Rng,
    nodes: BTreeMap<u64, Node>,
    now: i64,
}

const NAMES: [&[u8]; 7] = [b"a", b"b", b"c", b"d", b"e", b"\xff\xfe", b"a long name with spaces"];
const FILE_BYTES: u64 = 150_000;

impl World {
    fn new(seed: u64) -> Self {
        let root = Node { mode: mode::DIRECTORY | 0o755, nlink: 2, references: 1, parent: 1, ..Node::default() };
        let bench = bench();
        let now = 1_000_000;
        let root = Node { mtime: now, ctime: now, ..root };
        Self { bench, rng: Rng::from_seed(seed), nodes: BTreeMap::from([(1, root)]), now }
    }

    fn pick(&mut self, wanted: impl Fn(&Node) -> bool) -> Option<u64> {
        let of: Vec<u64> = self.nodes.iter().filter(|(_, node)| wanted(node)).map(|(ino, _)| *ino).collect();
        if of.is_empty() { None } else { Some(of[self.rng.below(of.len() as u64) as usize]) }
    }
    fn name(&mut self) -> &'static [u8] {
        NAMES[self.rng.below(NAMES.len() as u64) as usize]
    }
    fn node(&mut self, ino: u64) -> &mut Node {
        self.nodes.get_mut(&ino).expect("the model has the node")
    }
    fn touch(&mut self, ino: u64) {
        let now = self.now;
        let node = self.node(ino);
        (node.mtime, node.ctime) = (now, now);
    }
    fn child(&self, dir: u64, name: &[u8]) -> Option<u64> {
        self.nodes[&dir].children.get(name).copied()
    }
    /// Nodes without names and references are gone.
    fn sweep(&mut self, ino: u64) {
        if self.nodes.get(&ino).is_some_and(|node| node.nlink == 0 && node.references == 0) {
            self.nodes.remove(&ino);
        }
    }

    fn expect_make(&self, dir: u64, name: &[u8]) -> Option<FsError> {
        if self.nodes[&dir].nlink == 0 {
            return Some(FsError::NotFound);
        }
        self.child(dir, name).map(|_| FsError::Exists)
    }

    fn make(&mut self) {
        let Some(dir) = self.pick(Node::is_dir) else { return };
        let name = self.name();
        let expected = self.expect_make(dir, name);
        let kind = self.rng.below(4);
        let volume = self.bench.volume.clone();
        let result = match kind {
            0 | 1 => volume.create(&ROOT, Ino(dir), name, 0o644),
            2 => volume.mkdir(&ROOT, Ino(dir), name, 0o777),
            _ => volume.symlink(&ROOT, Ino(dir), name, b"target"),
        };
        let attr = match (result, expected) {
            (result, Some(error)) => return fails(result, error),
            (result, None) => result.expect("makes"),
        };
        let mode = match kind {
            0 | 1 => mode::REGULAR | 0o644,
            2 => mode::DIRECTORY | 0o755,
            _ => mode::SYMLINK | 0o777,
        };
        let content = if kind == 3 { b"target".to_vec() } else { Vec::new() };
        let node = Node {
            mode,
            nlink: if kind == 2 { 2 } else { 1 },
            content,
            parent: dir,
            mtime: self.now,
            ctime: self.now,
            references: 1,
            ..Node::default()
        };
        assert!(self.nodes.insert(attr.ino.0, node).is_none(), "an inode number twice");
        self.node(dir).children.insert(name.to_vec(), attr.ino.0);
        self.node(dir).nlink += u32::from(kind == 2);
        self.touch(dir);
        self.compare(attr);
    }

    fn link(&mut self) {
        let (Some(dir), Some(ino)) = (self.pick(Node::is_dir), self.pick(|_| true)) else { return };
        let name = self.name();
        let expected = self.expect_make(dir, name).or(self.nodes[&ino].is_dir().then_some(FsError::Permission));
        let result = self.bench.volume.link(&ROOT, Ino(ino), Ino(dir), name);
        if let Some(error) = expected {
            return fails(result, error);
        }
        self.node(dir).children.insert(name.to_vec(), ino);
        self.touch(dir);
        let now = self.now;
        let node = self.node(ino);
        node.nlink += 1;
        node.ctime = now;
        node.references += 1;
        self.compare(result.expect("links"));
    }

    fn tmpfile(&mut self) {
        let Some(dir) = self.pick(|node| node.is_dir() && node.nlink > 0) else { return };
        let attr = self.bench.volume.tmpfile(&ROOT, Ino(dir), 0o600).expect("makes a nameless file");
        let (mtime, ctime) = (self.now, self.now);
        let node = Node { mode: mode::REGULAR | 0o600, mtime, ctime, references: 1, ..Node::default() };
        assert!(self.nodes.insert(attr.ino.0, node).is_none());
        self.compare(attr);
    }

    fn remove(&mut self) {
        let Some(dir) = self.pick(Node::is_dir) else { return };
        let name = self.name();
        let is_rmdir = self.rng.chance(1, 3);
        let child = self.child(dir, name);
        let expected = child.map_or(Some(FsError::NotFound), |child| match (is_rmdir, self.nodes[&child].is_dir()) {
            (true, false) => Some(FsError::NotDirectory),
            (false, true) => Some(FsError::IsDirectory),
            _ => (!self.nodes[&child].children.is_empty()).then_some(FsError::NotEmpty),
        });
        let volume = self.bench.volume.clone();
        let result = match is_rmdir {
            true => volume.rmdir(&ROOT, Ino(dir), name),
            false => volume.unlink(&ROOT, Ino(dir), name),
        };
        if let Some(error) = expected {
            return fails(result, error);
        }
        result.expect("removes");
        self.node(dir).children.remove(name);
        self.touch(dir);
        self.drop_name(dir, child.expect("was there"));
    }

    fn drop_name(&mut self, dir: u64, ino: u64) {
        let now = self.now;
        let node = self.node(ino);
        node.ctime = now;
        if node.is_dir() {
            node.nlink = 0;
            node.parent = ino;
            self.node(dir).nlink -= 1;
        } else {
            node.nlink -= 1;
        }
        self.sweep(ino);
    }

    fn is_below(&self, mut at: u64, top: u64) -> bool {
        loop {
            if at == top {
                return true;
            }
            let parent = self.nodes[&at].parent;
            if parent == at {
                return false;
            }
            at = parent;
        }
    }

    fn expect_rename(&self, from: (u64, &[u8]), to: (u64, &[u8]), flags: u32) -> Result<bool, FsError> {
        let source = self.child(from.0, from.1).ok_or(FsError::NotFound)?;
        if self.nodes[&to.0].nlink == 0 {
            return Err(FsError::NotFound);
        }
        let target = self.child(to.0, to.1);
        let source_is_dir = self.nodes[&source].is_dir();
        match target {
            Some(_) if flags & RENAME_NOREPLACE != 0 => return Err(FsError::Exists),
            None if flags & RENAME_EXCHANGE != 0 => return Err(FsError::NotFound),
            Some(target) if target == source => return Ok(false),
            Some(target) if flags & RENAME_EXCHANGE == 0 => match (source_is_dir, self.nodes[&target].is_dir()) {
                (true, false) => return Err(FsError::NotDirectory),
                (false, true) => return Err(FsError::IsDirectory),
                _ => {}
            },
            Some(target) if self.nodes[&target].is_dir() && self.is_below(from.0, target) => {
                return Err(FsError::Invalid);
            }
            _ => {}
        }
        if source_is_dir && self.is_below(to.0, source) {
            return Err(FsError::Invalid);
        }
        let is_full = |ino: u64| !self.nodes[&ino].children.is_empty();
        if flags & RENAME_EXCHANGE == 0 && target.is_some_and(is_full) {
            return Err(FsError::NotEmpty);
        }
        Ok(true)
    }

    fn rename(&mut self) {
        let (Some(from), Some(to)) = (self.pick(Node::is_dir), self.pick(Node::is_dir)) else { return };
        let (from_name, to_name) = (self.name(), self.name());
        let flags = [0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT][self.rng.below(6) as usize];
        let expected = self.expect_rename((from, from_name), (to, to_name), flags);
        let result = self.bench.volume.rename(&ROOT, (Ino(from), from_name), (Ino(to), to_name), flags);
        match expected {
            Err(error) => return fails(result, error),
            Ok(false) => return result.expect("does nothing"),
            Ok(true) => result.expect("renames"),
        }
        let now = self.now;
        let source = self.child(from, from_name).expect("is there");
        let target = self.child(to, to_name);
        let swapped = target.filter(|_| flags & RENAME_EXCHANGE != 0);
        if let (Some(target), None) = (target, swapped) {
            self.drop_name(to, target);
        }
        self.node(from).children.remove(from_name);
        for (ino, old, new, name) in
            [(Some(source), from, to, to_name), (swapped, to, from, from_name)].into_iter().filter_map(|m| {
                let (ino, old, new, name) = m;
                ino.map(|ino| (ino, old, new, name))
            })
        {
            self.node(new).children.insert(name.to_vec(), ino);
            self.node(ino).ctime = now;
            if self.node(ino).is_dir() {
                self.node(ino).parent = new;
                self.node(old).nlink -= 1;
                self.node(new).nlink += 1;
            }
        }
        self.touch(from);
        self.touch(to);
        if flags & RENAME_WHITEOUT != 0 {
            self.adopt_whiteout(from, from_name);
        }
    }

    fn adopt_whiteout(&mut self, dir: u64, name: &[u8]) {
        let attr = self.bench.volume.lookup(Ino(dir), name).expect("the whiteout is there");
        assert_eq!((attr.mode, attr.rdev), (mode::CHARACTER_DEVICE, 0));
        let (mtime, ctime) = (self.now, self.now);
        let node = Node { mode: attr.mode, nlink: 1, mtime, ctime, references: 1, ..Node::default() };
        self.nodes.insert(attr.ino.0, node);
        self.node(dir).children.insert(name.to_vec(), attr.ino.0);
    }

    fn range(&mut self) -> (u64, u64) {
        let unit = [1, 1, 4096][self.rng.below(3) as usize];
        let offset = self.rng.below(FILE_BYTES) / unit * unit;
        let most = [100, 5000, 40_000][self.rng.below(3) as usize];
        (offset, (1 + self.rng.below(most)).next_multiple_of(unit))
    }

    fn write(&mut self) {
        let Some(ino) = self.pick(Node::is_file) else { return };
        let (offset, length) = self.range();
        let byte = 1 + self.rng.below(255) as u8;
        let data: Vec<u8> = (0..length).map(|at| byte.wrapping_add((at % 7) as u8).max(1)).collect();
        self.bench.volume.write(&ROOT, Ino(ino), offset, &data, WriteFlags::default()).expect("writes");
        let end = (offset + length) as usize;
        let content = &mut self.node(ino).content;
        content.resize(content.len().max(end), 0);
        content[offset as usize..end].copy_from_slice(&data);
        self.touch(ino);
    }

    fn resize(&mut self) {
        let Some(ino) = self.pick(Node::is_file) else { return };
        let (offset, _) = self.range();
        let size = if self.rng.chance(1, 6) { 0 } else { offset };
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        let attr = self.bench.volume.setattr(&ROOT, Ino(ino), &set).expect("truncates");
        self.node(ino).content.resize(size as usize, 0);
        self.touch(ino);
        self.compare(attr);
    }

    fn clear(&mut self) {
        let Some(ino) = self.pick(Node::is_file) else { return };
        let (offset, length) = self.range();
        let keep = FALLOC_KEEP_SIZE;
        let modes = [FALLOC_PUNCH_HOLE | keep, FALLOC_ZERO_RANGE, FALLOC_ZERO_RANGE | keep, 0, keep];
        let flags = modes[self.rng.below(5) as usize];
        self.bench.volume.fallocate(&ROOT, Ino(ino), offset, length, flags).expect("allocates");
        let content = &mut self.node(ino).content;
        let end = (offset + length) as usize;
        if flags & keep == 0 {
            content.resize(content.len().max(end), 0);
        }
        if flags & !keep != 0 {
            let (from, until) = ((offset as usize).min(content.len()), end.min(content.len()));
            content[from..until].fill(0);
        }
        self.touch(ino);
    }

    fn copy(&mut self) {
        let (Some(from), Some(to)) = (self.pick(Node::is_file), self.pick(Node::is_file)) else { return };
        let (mut source, length) = self.range();
        let (mut target, _) = self.range();
        match self.rng.below(3) {
            0 => (source, target) = (source / 4096 * 4096, target / 4096 * 4096),
            1 => target = target / 4096 * 4096 + source % 4096,
            _ => {}
        }
        let length = length * 4;
        let left = (self.nodes[&from].content.len() as u64).saturating_sub(source);
        let bytes = length.min(left);
        let result = self.bench.volume.copy_file_range(&ROOT, (Ino(from), source), (Ino(to), target), length);
        if bytes > 0 && from == to && target < source + bytes && source < target + bytes {
            return fails(result, FsError::Invalid);
        }
        assert_eq!(result.expect("copies"), bytes);
        if bytes == 0 {
            return;
        }
        let data = self.nodes[&from].content[source as usize..(source + bytes) as usize].to_vec();
        let end = (target + bytes) as usize;
        let content = &mut self.node(to).content;
        content.resize(content.len().max(end), 0);
        content[target as usize..end].copy_from_slice(&data);
        self.touch(to);
    }

    fn read(&mut self) {
        let Some(ino) = self.pick(Node::is_file) else { return };
        let (offset, length) = self.range();
        let mut into = vec![0xaa; length as usize];
        let got = self.bench.volume.read(&ROOT, Ino(ino), offset, &mut into).expect("reads");
        let content = &self.nodes[&ino].content;
        let from = (offset as usize).min(content.len());
        let until = ((offset + length) as usize).min(content.len());
        assert!(into[..got] == content[from..until], "inode {ino} at {offset}: contents differ");
    }

    fn seek(&mut self) {
        let Some(ino) = self.pick(Node::is_file) else { return };
        let (offset, _) = self.range();
        let content = self.nodes[&ino].content.clone();
        for whence in [Whence::Data, Whence::Hole] {
            let result = self.bench.volume.lseek(Ino(ino), offset, whence);
            let Ok(at) = result else {
                let is_beyond = offset >= content.len() as u64;
                assert!(is_beyond || whence == Whence::Data);
                assert!(is_beyond || content[offset as usize..].iter().all(|byte| *byte == 0));
                continue;
            };
            assert!(at >= offset && at <= content.len() as u64);
            let is_mapped = |at: u64| self.bench.ledger.is_mapped(BRANCH, Ino(ino), (at / 4096) as u32);
            let wanted = whence == Whence::Data;
            assert!((offset / 4096..at / 4096).all(|block| is_mapped(block * 4096) != wanted));
            assert!(at == content.len() as u64 || is_mapped(at) == wanted);
        }
    }

    fn xattr(&mut self) {
        let Some(ino) = self.pick(|node| !mode::is_symlink(node.mode)) else { return };
        let name = [&b"user.one"[..], b"trusted.two"][self.rng.below(2) as usize];
        let volume = self.bench.volume.clone();
        let now = self.now;
        match self.rng.below(3) {
            0 => {
                let value = vec![7; self.rng.below(50) as usize];
                volume.setxattr(&ROOT, Ino(ino), name, &value, 0, false).expect("sets");
                self.node(ino).xattrs.insert(name.to_vec(), value);
                self.node(ino).ctime = now;
            }
            1 => {
                let result = volume.removexattr(&ROOT, Ino(ino), name);
                match self.node(ino).xattrs.remove(name) {
                    Some(_) => {
                        result.expect("removes");
                        self.node(ino).ctime = now;
                    }
                    None => fails(result, FsError::NoData),
                }
            }
            _ => match (volume.getxattr(Ino(ino), name), self.node(ino).xattrs.get(name)) {
                (Ok(value), Some(wanted)) => assert_eq!(value, *wanted),
                (result, None) => fails(result, FsError::NoData),
                (Err(error), Some(_)) => panic!("{error:?}"),
            },
        }
    }

    fn forget(&mut self) {
        let Some(ino) = self.pick(|node| node.references > 0) else { return };
        if ino == 1 {
            return;
        }
        let references = self.nodes[&ino].references;
        let count = 1 + self.rng.below(references);
        self.bench.volume.forget(Ino(ino), count);
        self.node(ino).references -= count;
        let is_gone = self.nodes[&ino].nlink == 0 && self.nodes[&ino].references == 0;
        self.sweep(ino);
        if is_gone {
            fails(self.bench.volume.getattr(Ino(ino)), FsError::Stale);
        }
    }

    fn look_up(&mut self) {
        let Some(dir) = self.pick(Node::is_dir) else { return };
        let name = self.name();
        match (self.bench.volume.lookup(Ino(dir), name), self.child(dir, name)) {
            (Ok(attr), Some(ino)) => {
                assert_eq!(attr.ino.0, ino);
                self.node(ino).references += 1;
                self.compare(attr);
            }
            (result, None) => fails(result, FsError::NotFound),
            (Err(error), Some(_)) => panic!("{error:?}"),
        }
    }

    /// The daemon ends, with or without a clean unmount, and comes back.
    fn remount(&mut self) {
        if self.rng.chance(1, 2) {
            self.bench.volume.release().expect("releases");
        }
        let ledger = self.bench.ledger.clone();
        self.bench.volume = Volume::open(ledger, BRANCH, VolumeOptions { noatime: true }).expect("opens");
        self.nodes.values_mut().for_each(|node| node.references = 0);
        self.nodes.retain(|_, node| node.nlink > 0);
        self.node(1).references = 1;
    }

    fn compare(&self, attr: Attr) {
        let node = &self.nodes[&attr.ino.0];
        let size = if node.is_dir() { 4096 } else { node.content.len() as u64 };
        assert_eq!((attr.mode, attr.nlink, attr.size), (node.mode, node.nlink, size), "inode {}", attr.ino);
        assert_eq!((attr.mtime.sec, attr.ctime.sec), (node.mtime, node.ctime), "times of inode {}", attr.ino);
    }

    fn compare_all(&self) {
        for (ino, node) in &self.nodes {
            self.compare(self.bench.attr(Ino(*ino)));
            if node.is_file() {
                assert!(self.bench.read(Ino(*ino)) == node.content, "contents of inode {ino}");
            }
            if node.is_dir() {
                let listed: BTreeMap<Vec<u8>, u64> =
                    self.bench.names(Ino(*ino)).into_iter().skip(2).map(|(_, name, ino)| (name, ino.0)).collect();
                assert_eq!(listed, node.children);
            }
        }
        self.bench.check();
    }

    fn step(&mut self) {
        self.now += 1;
        self.bench.set_now(self.now);
        match self.rng.below(30) {
            0..4 => self.make(),
            4..6 => self.link(),
            6..9 => self.remove(),
            9..12 => self.rename(),
            12 => self.tmpfile(),
            13..17 => self.write(),
            17..19 => self.resize(),
            19..21 => self.clear(),
            21..23 => self.copy(),
            23 => self.read(),
            24 => self.seek(),
            25 => self.xattr(),
            26 | 27 => self.forget(),
            28 => self.look_up(),
            _ if self.rng.chance(1, 5) => self.remount(),
            _ => self.read(),
        }
    }
}

fn run(seed: u64, steps: u32) {
    let mut world = World::new(seed);
    for step in 0..steps {
        world.step();
        if step % 125 == 124 {
            world.compare_all();
        }
    }
}

#[test]
fn the_volume_does_what_a_tree_of_nodes_does() {
    for seed in 0..200 {
        let outcome = std::panic::catch_unwind(|| run(seed, 500));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
