//! Inode records, directory entries and volume records.
//!
//! ```text
//! inode  = mode u32 | uid u32 | gid u32 | nlink u32 | rdev u32 | flags u32 | size u64 | blocks u64 (4 KiB)
//!        | dense_until u32 | levels u16 | writer_len u16
//!        | atime, mtime, ctime, btime: each seconds i64, nanoseconds u32
//!        | parent u64 | parent_cookie u64 | target_len u16 | target bytes | writer, if writer_len is not 0
//! writer = uid u32 | pid u32 | command (writer_len - 1 bytes, at most 15)
//! dirent = inode u64 | type u8 (mode >> 12)
//! volume = next_ino u64 | rf u8 | ack u8 | policy u8 | past u8 | quota_bytes u64 | created i64, u32 | name_len u8
//!        | name; without one: it is being destroyed, and there is no such volume any more
//! policy = bits 0, 1: copies that a write needs, 0: RF - 1, at least 1 | bit 2: below that, fail instead of wait
//!        | bits 3, 4: domain level (0 drive, 1 node, 2 block, 3 rack)
//! past   = who may look at earlier states in a mount: 0 all, 1 the owner of the root, 2 nobody
//! ```

use crate::domain::DomainLevel;
use crate::ids::Ino;
use crate::limits::{COMMAND_BYTES_MAX, COPIES_MAX, GROUP_NAME_BYTES_MAX, SYMLINK_BYTES_MAX};
use crate::wire::{DecodeError, Put, Take};

/// Wall time. Seconds may be negative (before 1970).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time {
    pub sec: i64,
    pub nsec: u32,
}

/// `flags` bit: the inode has (or had) extended attributes; without it a look-up of one costs nothing.
pub const INODE_HAS_XATTRS: u32 = 1 << 0;
/// `flags` bit: the inode has more parents than `parent` (LINK records).
pub const INODE_HAS_LINKS: u32 = 1 << 1;
/// `flags` bit: blocks may be mapped at or above `dense_until`, so a write there must look before it counts.
pub const INODE_SPARSE: u32 = 1 << 2;
/// `flags` bit: the inode has a `security.capability` attribute, which any change of its contents removes.
pub const INODE_HAS_CAPABILITY: u32 = 1 << 3;

/// Name of a program as Linux keeps it for a process (`/proc/PID/comm`): any bytes, empty when it is not known.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Command {
    bytes: [u8; COMMAND_BYTES_MAX],
    length: u8,
}

impl Command {
    pub const UNKNOWN: Self = Self { bytes: [0; COMMAND_BYTES_MAX], length: 0 };

    /// The first bytes of a name, as many as are kept.
    pub fn new(name: &[u8]) -> Self {
        let kept = &name[..name.len().min(COMMAND_BYTES_MAX)];
        let mut bytes = [0; COMMAND_BYTES_MAX];
        bytes[..kept.len()].copy_from_slice(kept);
        Self { bytes, length: kept.len() as u8 }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length as usize]
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

/// Who made the newest change of an inode, the one that set its ctime.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Writer {
    pub uid: u32,
    /// Of the process; 0: not known.
    pub pid: u32,
    pub command: Command,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InodeRecord {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub rdev: u32,
    pub flags: u32,
    pub size: u64,
    /// Mapped 4 KiB blocks (st_blocks / 8).
    pub blocks: u64,
    /// Every block below is mapped (STORE.md 2).
    pub dense_until: u32,
    /// Bit n: a DATA cell of level n was ever written.
    pub levels: u16,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub btime: Time,
    /// First parent and the cookie of the name there; later parents are LINK records. 0: none (orphan, root).
    pub parent: Ino,
    pub parent_cookie: u64,
    /// Target of a symbolic link, else empty.
    pub target: Vec<u8>,
    /// `None`: not known (dirty pages of a mapping, records of programs that did not note it).
    pub writer: Option<Writer>,
}

/// Bytes of an inode record without target and writer, and those of the longest writer.
const INODE_BYTES: usize = 114;
const WRITER_BYTES_MAX: usize = 4 + 4 + COMMAND_BYTES_MAX;

pub(crate) fn put_time(out: &mut Vec<u8>, time: Time) {
    out.put_i64(time.sec);
    out.put_u32(time.nsec);
}

pub(crate) fn take_time(take: &mut Take<'_>) -> Result<Time, DecodeError> {
    let time = Time { sec: take.i64()?, nsec: take.u32()? };
    if time.nsec >= 1_000_000_000 {
        return Err(DecodeError::Invalid("nanoseconds"));
    }
    Ok(time)
}

impl InodeRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(INODE_BYTES + self.target.len() + WRITER_BYTES_MAX);
        for field in [self.mode, self.uid, self.gid, self.nlink, self.rdev, self.flags] {
            out.put_u32(field);
        }
        out.put_u64(self.size);
        out.put_u64(self.blocks);
        out.put_u32(self.dense_until);
        out.put_u16(self.levels);
        out.put_u16(self.writer.map_or(0, |writer| 1 + u16::from(writer.command.length)));
        for time in [self.atime, self.mtime, self.ctime, self.btime] {
            put_time(&mut out, time);
        }
        out.put_u64(self.parent.0);
        out.put_u64(self.parent_cookie);
        out.put_u16(self.target.len() as u16);
        out.put_bytes(&self.target);
        if let Some(writer) = &self.writer {
            out.put_u32(writer.uid);
            out.put_u32(writer.pid);
            out.put_bytes(writer.command.as_bytes());
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        let mode = take.u32()?;
        let uid = take.u32()?;
        let gid = take.u32()?;
        let nlink = take.u32()?;
        let rdev = take.u32()?;
        let flags = take.u32()?;
        let size = take.u64()?;
        let blocks = take.u64()?;
        let dense_until = take.u32()?;
        let levels = take.u16()?;
        let writer_len = take.u16()? as usize;
        if writer_len > 1 + COMMAND_BYTES_MAX {
            return Err(DecodeError::Invalid("length of a command's name"));
        }
        let atime = take_time(&mut take)?;
        let mtime = take_time(&mut take)?;
        let ctime = take_time(&mut take)?;
        let btime = take_time(&mut take)?;
        let parent = Ino(take.u64()?);
        let parent_cookie = take.u64()?;
        let target_len = take.u16()? as usize;
        if target_len > SYMLINK_BYTES_MAX {
            return Err(DecodeError::Invalid("symlink target length"));
        }
        let target = take.bytes(target_len)?.to_vec();
        let writer = match writer_len {
            0 => None,
            length => {
                let (uid, pid) = (take.u32()?, take.u32()?);
                Some(Writer { uid, pid, command: Command::new(take.bytes(length - 1)?) })
            }
        };
        take.end()?;
        Ok(Self {
            mode,
            uid,
            gid,
            nlink,
            rdev,
            flags,
            size,
            blocks,
            dense_until,
            levels,
            atime,
            mtime,
            ctime,
            btime,
            parent,
            parent_cookie,
            target,
            writer,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirentRecord {
    pub ino: Ino,
    /// File type as in `d_type`: mode >> 12.
    pub kind: u8,
}

impl DirentRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(9);
        out.put_u64(self.ino.0);
        out.put_u8(self.kind);
        out
    }
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        let record = Self { ino: Ino(take.u64()?), kind: take.u8()? };
        take.end()?;
        if record.kind > 15 {
            return Err(DecodeError::Invalid("file type"));
        }
        Ok(record)
    }
}

/// What a volume is. Changed by ops like everything else, so a replica and the past know it too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumeRecord {
    /// Inode numbers below were given out; raised in steps, so that not every create rewrites it.
    pub next_ino: u64,
    pub rf: u8,
    /// 0: `ack: fsync` (default); 1: `ack: write`.
    pub ack: u8,
    pub policy: WritePolicy,
    pub past: PastAccess,
    /// 0: no quota.
    pub quota_bytes: u64,
    pub created: Time,
    pub name: String,
}

/// Who may look at earlier states in a mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum PastAccess {
    /// Everybody, with the rights that they had then.
    #[default]
    All = 0,
    /// The owner of the volume's root, and root.
    Owner = 1,
    Off = 2,
}

impl PastAccess {
    pub fn from_u8(value: u8) -> Option<Self> {
        [Self::All, Self::Owner, Self::Off].into_iter().find(|access| *access as u8 == value)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Owner => "owner",
            Self::Off => "off",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::All, Self::Owner, Self::Off].into_iter().find(|access| access.name() == name)
    }
}

/// Where copies go, and what happens while there are fewer than promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WritePolicy {
    /// Copies that a write needs to count; 0: RF - 1, at least 1.
    pub min_copies: u8,
    /// With fewer: fail; else wait.
    pub fail_below: bool,
    pub domain: DomainLevel,
}

impl WritePolicy {
    /// Copies that a write needs with this RF.
    pub fn copies_min(self, rf: u8) -> u8 {
        if self.min_copies == 0 { rf.saturating_sub(1).max(1) } else { self.min_copies.min(rf) }
    }

    fn encode(self) -> u8 {
        (self.min_copies & 3) | ((self.fail_below as u8) << 2) | ((self.domain as u8) << 3)
    }

    fn decode(bits: u8, rf: u8) -> Result<Self, DecodeError> {
        let policy = Self {
            min_copies: bits & 3,
            fail_below: bits >> 2 & 1 == 1,
            domain: DomainLevel::from_bits(bits >> 3),
        };
        if bits >> 5 != 0 || policy.min_copies > rf {
            return Err(DecodeError::Invalid("volume policy"));
        }
        Ok(policy)
    }
}

impl VolumeRecord {
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(self.name.len() <= GROUP_NAME_BYTES_MAX);
        let mut out = Vec::with_capacity(33 + self.name.len());
        out.put_u64(self.next_ino);
        out.put_u8(self.rf);
        out.put_u8(self.ack);
        out.put_u8(self.policy.encode());
        out.put_u8(self.past as u8);
        out.put_u64(self.quota_bytes);
        put_time(&mut out, self.created);
        out.put_u8(self.name.len() as u8);
        out.put_bytes(self.name.as_bytes());
        out
    }
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        let next_ino = take.u64()?;
        let rf = take.u8()?;
        let ack = take.u8()?;
        let policy = take.u8()?;
        let past = PastAccess::from_u8(take.u8()?).ok_or(DecodeError::Invalid("who may see a volume's past"))?;
        if !(1..=COPIES_MAX as u8).contains(&rf) || ack > 1 {
            return Err(DecodeError::Invalid("volume record"));
        }
        let policy = WritePolicy::decode(policy, rf)?;
        let quota_bytes = take.u64()?;
        let created = take_time(&mut take)?;
        let name_len = take.u8()? as usize;
        let name = std::str::from_utf8(take.bytes(name_len)?)
            .map_err(|_| DecodeError::Invalid("volume name"))?
            .to_owned();
        take.end()?;
        Ok(Self { next_ino, rf, ack, policy, past, quota_bytes, created, name })
    }
}
