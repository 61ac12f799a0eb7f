//! A file system in memory, too simple to be wrong: what the mount tests serve.
#![allow(dead_code, reason = "each test program uses its own part")]

use holdfast_device::patience::{self, Waiter, Wish};
use holdfast_device::{Clock, Drive, FileId, RealClock, RealDrive};
use holdfast_format::inode::Time;
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::*;
use holdfast_store::error::Error;
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

struct Node {
    attr: Attr,
    data: Vec<u8>,
    /// Symbolic link's target.
    target: Vec<u8>,
    names: BTreeMap<Vec<u8>, u64>,
    /// cookie → (name, inode)
    entries: BTreeMap<u64, (Vec<u8>, u64)>,
    next_cookie: u64,
    parent: u64,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The kernel's.
    references: u64,
}

struct State {
    nodes: BTreeMap<u64, Node>,
    next_ino: u64,
    held: Vec<FlushDone>,
    hold_flushes: bool,
    seen: Seen,
}

/// What the tests want to know about the requests that arrived.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub writes: Vec<usize>,
    pub synced_writes: usize,
    pub data_aligned: bool,
    pub reads: Vec<usize>,
    pub flushes: usize,
    pub copies: usize,
    pub callers: Vec<Caller>,
}

#[derive(Clone, Copy, Default)]
struct Reading {
    now: usize,
    most: usize,
    held: bool,
}

/// Looking this up is a defect of the file system.
pub const PANIC: &[u8] = b"panic";

/// Blocks of one file, on a drive until they were read once.
pub struct Disk {
    drive: RealDrive,
    file: FileId,
    kept: Arc<Mutex<BTreeSet<u64>>>,
    /// Reads that waited for the drive themselves.
    waited: AtomicUsize,
    /// Of wishes, and how many were not fulfilled in time.
    patience_ns: u64,
    late: Arc<AtomicUsize>,
}

/// One block on its way.
struct Coming {
    offset: u64,
    kept: Arc<Mutex<BTreeSet<u64>>>,
    late: Arc<AtomicUsize>,
}

impl Waiter for Coming {
    fn arrived(self: Box<Self>, bytes: &[u8], _took_ns: u64) {
        assert_eq!(bytes, [0; Disk::BLOCK], "what the drive has");
        // One block is never in memory: it is for those who wait.
        if self.offset > 0 {
            self.kept.lock().insert(self.offset);
        }
    }
    fn late(&self) {
        self.late.fetch_add(1, Ordering::SeqCst);
    }
}

impl Disk {
    const BLOCK: usize = 4096;

    pub fn new(dir: &Path, bytes: usize, patience_ns: u64) -> Self {
        let drive = RealDrive::open(dir).expect("a drive");
        let file = drive.create("slab", bytes as u64).expect("a file");
        let (kept, late) = (Arc::default(), Arc::default());
        Self { drive, file, kept, waited: AtomicUsize::new(0), patience_ns, late }
    }
    /// Where the drive's folder does not take direct reads, none can be wished for.
    pub fn is_direct(&self) -> bool {
        self.drive.direct_read(self.file, 0, Self::BLOCK).is_some()
    }
    pub fn waited(&self) -> usize {
        self.waited.load(Ordering::SeqCst)
    }
    pub fn fetched(&self) -> usize {
        self.kept.lock().len()
    }
    pub fn late(&self) -> usize {
        self.late.load(Ordering::SeqCst)
    }
    fn fetch(&self, offset: u64) -> FsResult<()> {
        if self.kept.lock().contains(&offset) {
            return Ok(());
        }
        Error::unless_hurried().inspect_err(|_| {
            if let Some(read) = self.drive.direct_read(self.file, offset, Self::BLOCK) {
                let (kept, late) = (Arc::clone(&self.kept), Arc::clone(&self.late));
                let waiter = Box::new(Coming { offset, kept, late });
                patience::wish(Wish { read, patience_ns: self.patience_ns, waiter });
            }
        })?;
        self.waited.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

pub struct MemoryFs {
    disk: Option<Arc<Disk>>,
    write_bytes_max: u32,
    /// A read takes so long, as if there were a drive.
    read_takes: Duration,
    reading: Mutex<Reading>,
    reading_changed: Condvar,
    state: Mutex<State>,
    flush_held: Condvar,
}

fn now() -> Time {
    let (sec, nsec) = RealClock.wall();
    Time { sec, nsec }
}

impl State {
    fn node(&mut self, ino: Ino) -> FsResult<&mut Node> {
        self.nodes.get_mut(&ino.0).ok_or(FsError::Stale)
    }
    fn directory(&mut self, ino: Ino) -> FsResult<&mut Node> {
        let node = self.node(ino)?;
        if node.attr.mode & TYPE == DIRECTORY { Ok(node) } else { Err(FsError::NotDirectory) }
    }
    fn child(&mut self, dir: Ino, name: &[u8]) -> FsResult<u64> {
        let node = self.directory(dir)?;
        match name {
            b"." => Ok(dir.0),
            b".." => Ok(node.parent),
            _ => {
                let cookie = node.names.get(name).ok_or(FsError::NotFound)?;
                Ok(node.entries[cookie].1)
            }
        }
    }
    fn reference(&mut self, ino: u64) -> FsResult<Attr> {
        let node = self.node(Ino(ino))?;
        node.references += 1;
        Ok(node.attr)
    }
    fn new_node(&mut self, caller: &Caller, mode: u32, rdev: u32, parent: u64) -> u64 {
        let (ino, time) = (self.next_ino, now());
        self.next_ino += 1;
        let masked = if mode & TYPE == SYMLINK { mode } else { mode & !(caller.umask & 0o777) };
        let attr = Attr {
            ino: Ino(ino),
            mode: masked,
            nlink: if mode & TYPE == DIRECTORY { 2 } else { 0 },
            uid: caller.uid,
            gid: caller.gid,
            rdev,
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
        };
        let node = Node {
            attr,
            data: Vec::new(),
            target: Vec::new(),
            names: BTreeMap::new(),
            entries: BTreeMap::new(),
            next_cookie: 3,
            parent,
            xattrs: BTreeMap::new(),
            references: 0,
        };
        self.nodes.insert(ino, node);
        ino
    }
    fn insert(&mut self, dir: Ino, name: &[u8], ino: u64) -> FsResult<()> {
        let directory = self.directory(dir)?;
        if directory.names.contains_key(name) {
            return Err(FsError::Exists);
        }
        let cookie = directory.next_cookie;
        directory.next_cookie += 1;
        directory.names.insert(name.to_vec(), cookie);
        directory.entries.insert(cookie, (name.to_vec(), ino));
        directory.attr.mtime = now();
        directory.attr.ctime = now();
        let node = self.node(Ino(ino))?;
        node.attr.ctime = now();
        if node.attr.mode & TYPE == DIRECTORY {
            node.parent = dir.0;
            self.node(dir)?.attr.nlink += 1;
        } else {
            node.attr.nlink += 1;
        }
        Ok(())
    }
    fn remove(&mut self, dir: Ino, name: &[u8]) -> FsResult<u64> {
        let directory = self.directory(dir)?;
        let cookie = directory.names.remove(name).ok_or(FsError::NotFound)?;
        let (_, ino) = directory.entries.remove(&cookie).ok_or(FsError::NotFound)?;
        directory.attr.mtime = now();
        directory.attr.ctime = now();
        let node = self.node(Ino(ino))?;
        node.attr.ctime = now();
        if node.attr.mode & TYPE == DIRECTORY {
            self.node(dir)?.attr.nlink -= 1;
        } else {
            node.attr.nlink -= 1;
        }
        Ok(ino)
    }
    fn reap(&mut self, ino: u64) {
        let gone = |node: &Node| {
            let links =
                if node.attr.mode & TYPE == DIRECTORY { node.attr.nlink - 2 } else { node.attr.nlink };
            links == 0 && node.references == 0
        };
        if ino != ROOT_INO.0 && self.nodes.get(&ino).is_some_and(gone) {
            self.nodes.remove(&ino);
        }
    }
    fn make(&mut self, caller: &Caller, dir: Ino, name: &[u8], mode: u32, rdev: u32) -> FsResult<u64> {
        if self.directory(dir)?.names.contains_key(name) {
            return Err(FsError::Exists);
        }
        let ino = self.new_node(caller, mode, rdev, dir.0);
        self.insert(dir, name, ino)?;
        self.seen.callers.push(*caller);
        Ok(ino)
    }
    fn resize(&mut self, ino: Ino, size: u64) -> FsResult<()> {
        if size > 1 << 30 {
            return Err(FsError::FileTooBig);
        }
        let node = self.node(ino)?;
        node.data.resize(size as usize, 0);
        node.attr.size = size;
        node.attr.blocks = size.div_ceil(512);
        node.attr.mtime = now();
        node.attr.ctime = now();
        Ok(())
    }
    fn kill_suidgid(&mut self, ino: Ino) -> FsResult<()> {
        let attr = &mut self.node(ino)?.attr;
        attr.mode &= !0o4000;
        if attr.mode & 0o010 != 0 {
            attr.mode &= !0o2000;
        }
        Ok(())
    }
}

impl MemoryFs {
    pub fn new(root_mode: u32) -> Self {
        let seen = Seen { data_aligned: true, ..Seen::default() };
        let mut state =
            State { nodes: BTreeMap::new(), next_ino: 1, held: Vec::new(), hold_flushes: false, seen };
        // SAFETY: these two touch no memory.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        let owner = Caller { uid, gid, ..Caller::default() };
        let root = state.new_node(&owner, DIRECTORY | root_mode, 0, ROOT_INO.0);
        assert_eq!(root, ROOT_INO.0);
        Self {
            disk: None,
            write_bytes_max: 1 << 20,
            read_takes: Duration::ZERO,
            reading: Mutex::default(),
            reading_changed: Condvar::new(),
            state: Mutex::new(state),
            flush_held: Condvar::new(),
        }
    }
    pub fn with_writes_of(mut self, bytes: u32) -> Self {
        self.write_bytes_max = bytes;
        self
    }
    pub fn with_reads_of(mut self, duration: Duration) -> Self {
        self.read_takes = duration;
        self
    }
    pub fn with_disk(mut self, disk: Arc<Disk>) -> Self {
        self.disk = Some(disk);
        self
    }
    /// Reads that were in here at once, at most.
    pub fn most_reads(&self) -> usize {
        self.reading.lock().most
    }
    /// From now on reads wait, as for a drive that does not answer.
    pub fn hold_reads(&self) {
        self.reading.lock().held = true;
    }
    /// Waits until so many reads are held.
    pub fn wait_for_reads(&self, count: usize) {
        self.reading_changed.wait_while(&mut self.reading.lock(), |reading| reading.now < count);
    }
    pub fn release_reads(&self) {
        self.reading.lock().held = false;
        self.reading_changed.notify_all();
    }
    fn wait_for_drive(&self) -> FsResult<()> {
        let mut reading = self.reading.lock();
        if self.read_takes.is_zero() && !reading.held {
            return Ok(());
        }
        Error::unless_hurried()?;
        reading.now += 1;
        reading.most = reading.most.max(reading.now);
        self.reading_changed.notify_all();
        if !self.read_takes.is_zero() {
            // Nobody signals it: the time passes.
            Condvar::new().wait_for(&mut reading, self.read_takes);
        }
        self.reading_changed.wait_while(&mut reading, |reading| reading.held);
        reading.now -= 1;
        Ok(())
    }
    pub fn seen(&self) -> Seen {
        self.state.lock().seen.clone()
    }
    pub fn nodes(&self) -> usize {
        self.state.lock().nodes.len()
    }
    /// From now on flushes stay undone.
    pub fn hold_flushes(&self) {
        self.state.lock().hold_flushes = true;
    }
    /// Waits until so many flushes are held.
    pub fn wait_for_held(&self, count: usize) {
        let mut state = self.state.lock();
        self.flush_held.wait_while(&mut state, |state| state.held.len() < count);
    }
    /// Does the held flushes and all later ones.
    pub fn release_flushes(&self, outcome: FsResult<()>) {
        let held = {
            let mut state = self.state.lock();
            state.hold_flushes = false;
            std::mem::take(&mut state.held)
        };
        for done in held {
            done(outcome.clone());
        }
    }
    /// Drops the held flushes without calling them.
    pub fn forget_flushes(&self) {
        let held = std::mem::take(&mut self.state.lock().held);
        drop(held);
    }
}

impl FileSystem for MemoryFs {
    fn lookup(&self, dir: Ino, name: &[u8]) -> FsResult<Attr> {
        assert!(name != PANIC, "asked for");
        let mut state = self.state.lock();
        let ino = state.child(dir, name)?;
        state.reference(ino)
    }
    fn forget(&self, ino: Ino, count: u64) {
        let mut state = self.state.lock();
        if let Ok(node) = state.node(ino) {
            assert!(ino == ROOT_INO || node.references >= count, "more forgotten than was given");
            node.references = node.references.saturating_sub(count);
        }
        state.reap(ino.0);
    }
    fn getattr(&self, ino: Ino) -> FsResult<Attr> {
        Ok(self.state.lock().node(ino)?.attr)
    }
    fn setattr(&self, _caller: &Caller, ino: Ino, set: &SetAttr) -> FsResult<Attr> {
        let mut state = self.state.lock();
        if let Some(size) = set.size {
            state.resize(ino, size)?;
        }
        if set.kill_suidgid {
            state.kill_suidgid(ino)?;
        }
        let attr = &mut state.node(ino)?.attr;
        if let Some(mode) = set.mode {
            attr.mode = attr.mode & TYPE | mode;
        }
        attr.uid = set.uid.unwrap_or(attr.uid);
        attr.gid = set.gid.unwrap_or(attr.gid);
        let resolve = |time| match time {
            SetTime::Now => now(),
            SetTime::At(time) => time,
        };
        attr.atime = set.atime.map_or(attr.atime, resolve);
        attr.mtime = set.mtime.map_or(attr.mtime, resolve);
        attr.ctime = now();
        Ok(*attr)
    }
    fn readlink(&self, ino: Ino) -> FsResult<Vec<u8>> {
        Ok(self.state.lock().node(ino)?.target.clone())
    }
    fn create(&self, caller: &Caller, dir: Ino, name: &[u8], mode: u32) -> FsResult<Attr> {
        let mut state = self.state.lock();
        let ino = state.make(caller, dir, name, mode & 0o7777 | REGULAR, 0)?;
        state.reference(ino)
    }
    fn mknod(&self, caller: &Caller, dir: Ino, name: &[u8], mode: u32, rdev: u32) -> FsResult<Attr> {
        let mut state = self.state.lock();
        let ino = state.make(caller, dir, name, mode, rdev)?;
        state.reference(ino)
    }
    fn mkdir(&self, caller: &Caller, dir: Ino, name: &[u8], mode: u32) -> FsResult<Attr> {
        let mut state = self.state.lock();
        let ino = state.make(caller, dir, name, mode & 0o7777 | DIRECTORY, 0)?;
        state.reference(ino)
    }
    fn symlink(&self, caller: &Caller, dir: Ino, name: &[u8], target: &[u8]) -> FsResult<Attr> {
        let mut state = self.state.lock();
        let ino = state.make(caller, dir, name, SYMLINK | 0o777, 0)?;
        let node = state.node(Ino(ino))?;
        node.target = target.to_vec();
        node.attr.size = target.len() as u64;
        state.reference(ino)
    }
    fn link(&self, _caller: &Caller, ino: Ino, dir: Ino, name: &[u8]) -> FsResult<Attr> {
        let mut state = self.state.lock();
        state.insert(dir, name, ino.0)?;
        state.reference(ino.0)
    }
    fn tmpfile(&self, caller: &Caller, dir: Ino, mode: u32) -> FsResult<Attr> {
        let mut state = self.state.lock();
        state.directory(dir)?;
        let ino = state.new_node(caller, mode & 0o7777 | REGULAR, 0, dir.0);
        state.reference(ino)
    }
    fn unlink(&self, _caller: &Caller, dir: Ino, name: &[u8]) -> FsResult<()> {
        let mut state = self.state.lock();
        let ino = state.remove(dir, name)?;
        state.reap(ino);
        Ok(())
    }
    fn rmdir(&self, _caller: &Caller, dir: Ino, name: &[u8]) -> FsResult<()> {
        let mut state = self.state.lock();
        let ino = state.child(dir, name)?;
        if !state.directory(Ino(ino))?.names.is_empty() {
            return Err(FsError::NotEmpty);
        }
        state.remove(dir, name)?;
        state.reap(ino);
        Ok(())
    }
    fn rename(&self, caller: &Caller, from: (Ino, &[u8]), to: (Ino, &[u8]), flags: u32) -> FsResult<()> {
        let mut state = self.state.lock();
        let source = state.child(from.0, from.1)?;
        let target = state.child(to.0, to.1).ok();
        if flags & RENAME_EXCHANGE != 0 {
            let target = target.ok_or(FsError::NotFound)?;
            state.remove(from.0, from.1)?;
            state.remove(to.0, to.1)?;
            state.insert(from.0, from.1, target)?;
            return state.insert(to.0, to.1, source);
        }
        if let Some(target) = target {
            if flags & RENAME_NOREPLACE != 0 {
                return Err(FsError::Exists);
            }
            if target == source {
                return Ok(());
            }
            if !state.node(Ino(target))?.names.is_empty() {
                return Err(FsError::NotEmpty);
            }
            state.remove(to.0, to.1)?;
            state.reap(target);
        }
        state.remove(from.0, from.1)?;
        state.insert(to.0, to.1, source)?;
        if flags & RENAME_WHITEOUT != 0 {
            state.make(caller, from.0, from.1, 0o020_000, 0)?;
        }
        Ok(())
    }
    fn read(&self, _caller: &Caller, ino: Ino, offset: u64, into: &mut [u8]) -> FsResult<usize> {
        self.wait_for_drive()?;
        if let Some(disk) = &self.disk {
            disk.fetch(offset)?;
        }
        let mut state = self.state.lock();
        state.seen.reads.push(into.len());
        let node = state.node(ino)?;
        node.attr.atime = now();
        let rest = node.data.get(offset as usize..).unwrap_or(&[]);
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
    fn write(&self, _caller: &Caller, ino: Ino, offset: u64, data: &[u8], flags: WriteFlags) -> FsResult<()> {
        let mut state = self.state.lock();
        state.seen.writes.push(data.len());
        state.seen.synced_writes += usize::from(flags.will_sync);
        state.seen.data_aligned &= data.as_ptr().align_offset(4096) == 0;
        let end = offset + data.len() as u64;
        let size = state.node(ino)?.attr.size.max(end);
        state.resize(ino, size)?;
        state.node(ino)?.data[offset as usize..end as usize].copy_from_slice(data);
        if flags.kill_suidgid {
            state.kill_suidgid(ino)?;
        }
        Ok(())
    }
    fn fallocate(&self, _caller: &Caller, ino: Ino, offset: u64, length: u64, mode: u32) -> FsResult<()> {
        let mut state = self.state.lock();
        let end = offset + length;
        let size = state.node(ino)?.attr.size;
        if mode & (FALLOC_COLLAPSE_RANGE | FALLOC_INSERT_RANGE) != 0 {
            return Err(FsError::NotSupported);
        }
        if mode & FALLOC_KEEP_SIZE == 0 && end > size {
            state.resize(ino, end)?;
        }
        if mode & (FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE) != 0 {
            let node = state.node(ino)?;
            let end = node.data.len().min(end as usize);
            node.data[(offset as usize).min(end)..end].fill(0);
        }
        Ok(())
    }
    fn copy_file_range(
        &self,
        _caller: &Caller,
        from: (Ino, u64),
        to: (Ino, u64),
        length: u64,
    ) -> FsResult<u64> {
        let mut state = self.state.lock();
        state.seen.copies += 1;
        let rest = state.node(from.0)?.data.get(from.1 as usize..).unwrap_or(&[]).to_vec();
        let part = &rest[..rest.len().min(length as usize)];
        let end = to.1 + part.len() as u64;
        let size = state.node(to.0)?.attr.size.max(end);
        state.resize(to.0, size)?;
        state.node(to.0)?.data[to.1 as usize..end as usize].copy_from_slice(part);
        Ok(part.len() as u64)
    }
    /// A hole is a block of zeros.
    fn lseek(&self, ino: Ino, offset: u64, whence: Whence) -> FsResult<u64> {
        let mut state = self.state.lock();
        let node = state.node(ino)?;
        let size = node.attr.size;
        if offset >= size {
            return Err(FsError::NoSuchDeviceOrAddress);
        }
        let wanted = |index: u64| {
            let end = node.data.len().min((index as usize + 1) * 4096);
            let hole = node.data[index as usize * 4096..end].iter().all(|byte| *byte == 0);
            hole == (whence == Whence::Hole)
        };
        match (offset / 4096..size.div_ceil(4096)).find(|index| wanted(*index)) {
            Some(index) => Ok(offset.max(index * 4096)),
            None if whence == Whence::Hole => Ok(size),
            None => Err(FsError::NoSuchDeviceOrAddress),
        }
    }
    fn fsync(&self, _caller: &Caller, _ino: Ino, done: FlushDone) {
        let mut state = self.state.lock();
        state.seen.flushes += 1;
        if state.hold_flushes {
            state.held.push(done);
            self.flush_held.notify_all();
        } else {
            drop(state);
            done(Ok(()));
        }
    }
    fn readdir(
        &self,
        _caller: &Caller,
        dir: Ino,
        cookie: u64,
        plus: bool,
        visit: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> FsResult<()> {
        let mut state = self.state.lock();
        let node = state.directory(dir)?;
        let parent = node.parent;
        let dots = [(1, b".".to_vec(), dir.0), (2, b"..".to_vec(), parent)];
        let named = node.entries.iter().map(|(cookie, (name, ino))| (*cookie, name.clone(), *ino));
        let entries: Vec<_> = dots.into_iter().chain(named).filter(|entry| entry.0 > cookie).collect();
        for (cookie, name, ino) in entries {
            let node = state.node(Ino(ino))?;
            let with_attr = plus && cookie > 2;
            let kind = (node.attr.mode >> 12) as u8;
            let attr = with_attr.then_some(node.attr);
            if !visit(&DirEntry { ino: Ino(ino), kind, cookie, name: &name, attr }) {
                break;
            }
            node.references += u64::from(with_attr);
        }
        Ok(())
    }
    fn getxattr(&self, ino: Ino, name: &[u8]) -> FsResult<Vec<u8>> {
        self.state.lock().node(ino)?.xattrs.get(name).cloned().ok_or(FsError::NoData)
    }
    fn setxattr(
        &self,
        _caller: &Caller,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        flags: u32,
        _kill_sgid: bool,
    ) -> FsResult<()> {
        let mut state = self.state.lock();
        let node = state.node(ino)?;
        match node.xattrs.contains_key(name) {
            true if flags & XATTR_CREATE != 0 => Err(FsError::Exists),
            false if flags & XATTR_REPLACE != 0 => Err(FsError::NoData),
            _ => {
                node.xattrs.insert(name.to_vec(), value.to_vec());
                Ok(())
            }
        }
    }
    fn listxattr(&self, ino: Ino) -> FsResult<Vec<u8>> {
        let mut state = self.state.lock();
        let names = state.node(ino)?.xattrs.keys();
        Ok(names.flat_map(|name| name.iter().copied().chain([0])).collect())
    }
    fn removexattr(&self, _caller: &Caller, ino: Ino, name: &[u8]) -> FsResult<()> {
        self.state.lock().node(ino)?.xattrs.remove(name).map(drop).ok_or(FsError::NoData)
    }
    fn statfs(&self) -> FsResult<StatFs> {
        Ok(StatFs {
            block_bytes: 4096,
            blocks: 1_000_000,
            blocks_free: 700_000,
            blocks_available: 600_000,
            files: 5000,
            files_free: 4000,
            name_bytes_max: 255,
        })
    }
    fn write_bytes_max(&self) -> u32 {
        self.write_bytes_max
    }
}
