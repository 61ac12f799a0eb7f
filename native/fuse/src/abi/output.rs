//! What the kernel is told. Encoders return arrays of exactly the documented size.

use holdfast_format::inode::Time;
use holdfast_store::api::{Attr, StatFs, is_fleeting};

/// Writes native-endian fields at fixed offsets into a zeroed array.
struct Layout<const N: usize>([u8; N]);

impl<const N: usize> Layout<N> {
    fn new() -> Self {
        Self([0; N])
    }
    fn u16(mut self, at: usize, value: u16) -> Self {
        self.0[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        self
    }
    fn u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }
    fn u64(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }
    fn bytes(mut self, at: usize, value: &[u8]) -> Self {
        self.0[at..at + value.len()].copy_from_slice(value);
        self
    }
}

pub const OUT_HEADER_BYTES: usize = 16;

/// `len u32 0 (header included) | error i32 4 (0 or minus errno) | unique u64 8`
pub fn out_header(unique: u64, errno: i32, payload_bytes: usize) -> [u8; OUT_HEADER_BYTES] {
    let len = (OUT_HEADER_BYTES + payload_bytes) as u32;
    Layout::new().u32(0, len).u32(4, (-errno).cast_unsigned()).u64(8, unique).0
}

/// INIT's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InitOut {
    pub minor: u32,
    pub max_readahead: u32,
    pub flags: u64,
    pub max_background: u16,
    pub congestion_threshold: u16,
    pub max_write: u32,
    pub time_gran: u32,
    pub max_pages: u16,
}

impl InitOut {
    /// `major u32 0 | minor u32 4 | max_readahead u32 8 | flags u32 12 | max_background u16 16 | congestion
    /// u16 18
    /// | max_write u32 20 | time_gran u32 24 | max_pages u16 28 | map_alignment u16 30 | flags2 u32 32
    /// | max_stack_depth u32 36 | request_timeout u16 40 | unused 42..64`
    pub fn encode(&self) -> [u8; 64] {
        Layout::new()
            .u32(0, super::VERSION_MAJOR)
            .u32(4, self.minor)
            .u32(8, self.max_readahead)
            .u32(12, self.flags as u32)
            .u16(16, self.max_background)
            .u16(18, self.congestion_threshold)
            .u32(20, self.max_write)
            .u32(24, self.time_gran)
            .u16(28, self.max_pages)
            .u32(32, (self.flags >> 32) as u32)
            .0
    }
}

/// `ino u64 0 | size u64 8 | blocks u64 16 | atime u64 24 | mtime u64 32 | ctime u64 40 | atimensec u32 48
/// | mtimensec u32 52 | ctimensec u32 56 | mode u32 60 | nlink u32 64 | uid u32 68 | gid u32 72 | rdev u32 76
/// | blksize u32 80 | flags u32 84`
pub fn attr(attr: &Attr) -> [u8; 88] {
    Layout::new()
        .u64(0, attr.ino.0)
        .u64(8, attr.size)
        .u64(16, attr.blocks)
        .u64(24, attr.atime.sec.cast_unsigned())
        .u64(32, attr.mtime.sec.cast_unsigned())
        .u64(40, attr.ctime.sec.cast_unsigned())
        .u32(48, attr.atime.nsec)
        .u32(52, attr.mtime.nsec)
        .u32(56, attr.ctime.nsec)
        .u32(60, attr.mode)
        .u32(64, attr.nlink)
        .u32(68, attr.uid)
        .u32(72, attr.gid)
        .u32(76, attr.rdev)
        .u32(80, holdfast_format::limits::BLOCK_BYTES as u32)
        .0
}

/// How long the kernel may keep an answer, in whole seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetimes {
    pub entry_s: u64,
    pub attr_s: u64,
    /// Of "no such name".
    pub negative_s: u64,
}

impl Lifetimes {
    /// A write by anyone clears suid and sgid behind the kernel's back, so such a file's attributes are never
    /// kept: the next exec or stat asks again.
    fn of(&self, attr: &Attr) -> u64 {
        if is_fleeting(attr.ino) {
            return 0;
        }
        let regular = attr.mode & 0o170_000 == 0o100_000;
        if regular && attr.mode & 0o6_000 != 0 { 0 } else { self.attr_s }
    }
}

pub const ENTRY_BYTES: usize = 128;

/// `nodeid u64 0 | generation u64 8 | entry_valid u64 16 | attr_valid u64 24 | entry_valid_nsec u32 32
/// | attr_valid_nsec u32 36 | attr 40..128`
pub fn entry(found: &Attr, lifetimes: &Lifetimes) -> [u8; ENTRY_BYTES] {
    Layout::new()
        .u64(0, found.ino.0)
        .u64(16, if is_fleeting(found.ino) { 0 } else { lifetimes.entry_s })
        .u64(24, lifetimes.of(found))
        .bytes(40, &attr(found))
        .0
}

/// An entry with nodeid 0: "there is no such name, and you may remember it".
pub fn negative_entry(lifetimes: &Lifetimes) -> [u8; ENTRY_BYTES] {
    Layout::new().u64(16, lifetimes.negative_s).0
}

/// `attr_valid u64 0 | attr_valid_nsec u32 8 | dummy u32 12 | attr 16..104`
pub fn attr_out(found: &Attr, lifetimes: &Lifetimes) -> [u8; 104] {
    Layout::new().u64(0, lifetimes.of(found)).bytes(16, &attr(found)).0
}

/// `fh u64 0 | open_flags u32 8 | backing_id u32 12`; fh is always 0: an open keeps no state.
pub fn open_out(open_flags: u32) -> [u8; 16] {
    Layout::new().u32(8, open_flags).0
}

/// `size u32 0 | padding u32 4`: bytes written or copied, or the size of an attribute.
pub fn size_out(size: u32) -> [u8; 8] {
    Layout::new().u32(0, size).0
}

/// `value u64 0`: LSEEK's offset, COPY_FILE_RANGE_64's bytes copied.
pub fn u64_out(value: u64) -> [u8; 8] {
    value.to_ne_bytes()
}

/// `blocks u64 0 | bfree u64 8 | bavail u64 16 | files u64 24 | ffree u64 32 | bsize u32 40 | namelen u32 44
/// | frsize u32 48 | padding u32 52 | spare 56..80`
pub fn statfs(stat: &StatFs) -> [u8; 80] {
    Layout::new()
        .u64(0, stat.blocks)
        .u64(8, stat.blocks_free)
        .u64(16, stat.blocks_available)
        .u64(24, stat.files)
        .u64(32, stat.files_free)
        .u32(40, stat.block_bytes)
        .u32(44, stat.name_bytes_max)
        .u32(48, stat.block_bytes)
        .0
}

/// STATX_BASIC_STATS | STATX_BTIME.
const STATX_MASK: u32 = 0xfff;

/// `attr_valid u64 0 | attr_valid_nsec u32 8 | flags u32 12 | spare 16..32`, then at 32 the statx:
/// `mask u32 32 | blksize u32 36 | attributes u64 40 | nlink u32 48 | uid u32 52 | gid u32 56 | mode u16 60
/// | ino u64 64 | size u64 72 | blocks u64 80 | attributes_mask u64 88 | atime 96 | btime 112 | ctime 128 |
/// mtime 144 (each seconds i64, nanoseconds u32, padding u32) | rdev_major u32 160 | rdev_minor u32 164 | dev
/// u32 168, 172
/// | spare 176..288`
pub fn statx(found: &Attr, lifetimes: &Lifetimes) -> [u8; 288] {
    let time = |layout: Layout<288>, at: usize, time: Time| {
        layout.u64(at, time.sec.cast_unsigned()).u32(at + 8, time.nsec)
    };
    let layout = Layout::new()
        .u64(0, lifetimes.of(found))
        .u32(32, STATX_MASK)
        .u32(36, holdfast_format::limits::BLOCK_BYTES as u32)
        .u32(48, found.nlink)
        .u32(52, found.uid)
        .u32(56, found.gid)
        .u16(60, found.mode as u16)
        .u64(64, found.ino.0)
        .u64(72, found.size)
        .u64(80, found.blocks)
        .u32(160, (found.rdev & 0xf_ff00) >> 8)
        .u32(164, (found.rdev & 0xff) | ((found.rdev >> 12) & 0xf_ff00));
    let layout = time(layout, 96, found.atime);
    let layout = time(layout, 112, found.btime);
    let layout = time(layout, 128, found.ctime);
    time(layout, 144, found.mtime).0
}

const DIRENT_BYTES: usize = 24;

/// Fills a READDIR or READDIRPLUS answer; entries that do not fit whole are refused.
///
/// Entry: `entry 128 (plus only) | ino u64 | cookie u64 | name_len u32 | kind u32 | name | zeros to 8`
pub struct DirectoryPage<'a> {
    into: &'a mut [u8],
    used: usize,
}

impl<'a> DirectoryPage<'a> {
    pub fn new(into: &'a mut [u8]) -> Self {
        Self { into, used: 0 }
    }
    pub fn used(&self) -> usize {
        self.used
    }
    /// `entry`: `Some` for READDIRPLUS. False: no room, nothing was added.
    pub fn add(
        &mut self,
        ino: u64,
        kind: u8,
        cookie: u64,
        name: &[u8],
        entry: Option<&[u8; ENTRY_BYTES]>,
    ) -> bool {
        let prefix = if entry.is_some() { ENTRY_BYTES } else { 0 };
        let dirent_bytes = (DIRENT_BYTES + name.len()).next_multiple_of(8);
        let Some(slot) = self.into.get_mut(self.used..self.used + prefix + dirent_bytes) else {
            return false;
        };
        let (head, dirent) = slot.split_at_mut(prefix);
        if let Some(entry) = entry {
            head.copy_from_slice(entry);
        }
        let fixed = Layout::<DIRENT_BYTES>::new()
            .u64(0, ino)
            .u64(8, cookie)
            .u32(16, name.len() as u32)
            .u32(20, u32::from(kind));
        dirent[..DIRENT_BYTES].copy_from_slice(&fixed.0);
        dirent[DIRENT_BYTES..DIRENT_BYTES + name.len()].copy_from_slice(name);
        dirent[DIRENT_BYTES + name.len()..].fill(0);
        self.used += prefix + dirent_bytes;
        true
    }
}
