//! What the kernel sends. Each structure's doc comment is its grammar: field, type and byte offset.

use super::{fattr, opcode};

/// Reads native-endian fields at fixed offsets.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u16(self, at: usize) -> Option<u16> {
        let bytes = self.0.get(at..at.checked_add(2)?)?;
        Some(u16::from_ne_bytes(bytes.try_into().ok()?))
    }
    fn u32(self, at: usize) -> Option<u32> {
        let bytes = self.0.get(at..at.checked_add(4)?)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    }
    fn u64(self, at: usize) -> Option<u64> {
        let bytes = self.0.get(at..at.checked_add(8)?)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    }
}

/// `len u32 0 | opcode u32 4 | unique u64 8 | nodeid u64 16 | uid u32 24 | gid u32 28 | pid u32 32
/// | total_extlen u16 36 (units of 8 bytes, at the message's end) | padding u16 38`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InHeader {
    pub len: u32,
    pub opcode: u32,
    pub unique: u64,
    pub nodeid: u64,
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    pub extension_bytes: usize,
}

pub const IN_HEADER_BYTES: usize = 40;
/// Header and argument 0 of a WRITE: where its data begins.
pub const WRITE_DATA_OFFSET: usize = 80;

impl InHeader {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes.get(..IN_HEADER_BYTES)?);
        Some(Self {
            len: fields.u32(0)?,
            opcode: fields.u32(4)?,
            unique: fields.u64(8)?,
            nodeid: fields.u64(16)?,
            uid: fields.u32(24)?,
            gid: fields.u32(28)?,
            pid: fields.u32(32)?,
            extension_bytes: usize::from(fields.u16(36)?) * 8,
        })
    }
}

/// A whole message, cut as both transports deliver it. Extensions at the end are dropped (none is
/// negotiated).
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub header: InHeader,
    /// Argument 0.
    pub op_in: &'a [u8],
    /// All other arguments.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Cuts a contiguous message as read from /dev/fuse. A header alone is enough to answer with an error, so
    /// a message with a short body is `Err(header)`; `None` means that not even the header can be trusted.
    pub fn cut(bytes: &'a [u8], setxattr_ext: bool) -> Option<Result<Self, InHeader>> {
        let header = InHeader::parse(bytes)?;
        if header.len as usize != bytes.len() {
            return Some(Err(header));
        }
        let op_in_end = IN_HEADER_BYTES + super::op_in_bytes(header.opcode, setxattr_ext);
        let end = bytes.len().saturating_sub(header.extension_bytes);
        if end < op_in_end {
            return Some(Err(header));
        }
        let op_in = &bytes[IN_HEADER_BYTES..op_in_end];
        Some(Ok(Self { header, op_in, payload: &bytes[op_in_end..end] }))
    }

    /// Joins what a ring delivers apart. `op_in` is the whole area that argument 0 lies in; its length is known
    /// from the opcode. As with [`Message::cut`], `Err(header)` can still be answered.
    pub fn join(
        header: InHeader,
        op_in: &'a [u8],
        payload: &'a [u8],
        setxattr_ext: bool,
    ) -> Result<Self, InHeader> {
        let op_in = op_in.get(..super::op_in_bytes(header.opcode, setxattr_ext)).ok_or(header)?;
        let end = payload.len().checked_sub(header.extension_bytes).ok_or(header)?;
        Ok(Self { header, op_in, payload: &payload[..end] })
    }
}

/// `major u32 0 | minor u32 4 | max_readahead u32 8 | flags u32 12 | flags2 u32 16 | unused 20..64`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InitIn {
    pub major: u32,
    pub minor: u32,
    pub max_readahead: u32,
    pub flags: u64,
}

impl InitIn {
    /// Old kernels send 16 bytes only.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes);
        let low = fields.u32(12)?;
        let high = if u64::from(low) & super::init_flag::INIT_EXT != 0 { fields.u32(16)? } else { 0 };
        Some(Self {
            major: fields.u32(0)?,
            minor: fields.u32(4)?,
            max_readahead: fields.u32(8)?,
            flags: u64::from(low) | u64::from(high) << 32,
        })
    }
}

/// `valid u32 0 | fh u64 8 | size u64 16 | lock_owner u64 24 | atime u64 32 | mtime u64 40 | ctime u64 48
/// | atimensec u32 56 | mtimensec u32 60 | ctimensec u32 64 | mode u32 68 | unused u32 72 | uid u32 76 | gid
/// u32 80
/// | unused u32 84`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetAttrIn {
    pub valid: u32,
    pub size: u64,
    pub atime: (i64, u32),
    pub mtime: (i64, u32),
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

impl SetAttrIn {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes.get(..88)?);
        let set = Self {
            valid: fields.u32(0)?,
            size: fields.u64(16)?,
            atime: (fields.u64(32)?.cast_signed(), fields.u32(56)?),
            mtime: (fields.u64(40)?.cast_signed(), fields.u32(60)?),
            mode: fields.u32(68)?,
            uid: fields.u32(76)?,
            gid: fields.u32(80)?,
        };
        let nsec_bad = |bit: u32, time: (i64, u32)| set.valid & bit != 0 && time.1 >= 1_000_000_000;
        if nsec_bad(fattr::ATIME, set.atime) || nsec_bad(fattr::MTIME, set.mtime) {
            return None;
        }
        Some(set)
    }
}

/// `mode u32 0 | rdev u32 4 | umask u32 8 | padding u32 12`, then the name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MknodIn {
    pub mode: u32,
    pub rdev: u32,
    pub umask: u32,
}

impl MknodIn {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes.get(..16)?);
        Some(Self { mode: fields.u32(0)?, rdev: fields.u32(4)?, umask: fields.u32(8)? })
    }
}

/// `mode u32 0 | umask u32 4`, then the name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MkdirIn {
    pub mode: u32,
    pub umask: u32,
}

impl MkdirIn {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes.get(..8)?);
        Some(Self { mode: fields.u32(0)?, umask: fields.u32(4)? })
    }
}

/// CREATE and TMPFILE: `flags u32 0 | mode u32 4 | umask u32 8 | open_flags u32 12`, then the name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreateIn {
    /// As given to open(2).
    pub flags: u32,
    pub mode: u32,
    pub umask: u32,
}

impl CreateIn {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes.get(..16)?);
        Some(Self { flags: fields.u32(0)?, mode: fields.u32(4)?, umask: fields.u32(8)? })
    }
}

/// RENAME: `newdir u64 0`; RENAME2: `newdir u64 0 | flags u32 8 | padding u32 12`; then both names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RenameIn {
    pub new_dir: u64,
    pub flags: u32,
}

impl RenameIn {
    pub fn parse(op: u32, bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes);
        let flags = if op == opcode::RENAME2 { fields.u32(8)? } else { 0 };
        Some(Self { new_dir: fields.u64(0)?, flags })
    }
}

/// One u64 at offset 0: LINK's old inode, FORGET's count.
pub fn parse_u64(bytes: &[u8]) -> Option<u64> {
    Fields(bytes).u64(0)
}

/// READ, READDIR, READDIRPLUS: `fh u64 0 | offset u64 8 | size u32 16 | read_flags u32 20 | lock_owner u64 24
/// | flags u32 32 | padding u32 36`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadIn {
    pub offset: u64,
    pub size: u32,
}

impl ReadIn {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes.get(..40)?);
        Some(Self { offset: fields.u64(8)?, size: fields.u32(16)? })
    }
}

/// `fh u64 0 | offset u64 8 | size u32 16 | write_flags u32 20 | lock_owner u64 24 | flags u32 32 | padding
/// u32 36`, then the data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteIn {
    pub offset: u64,
    pub size: u32,
    pub write_flags: u32,
    /// As given to open(2).
    pub flags: u32,
}

impl WriteIn {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes.get(..40)?);
        Some(Self {
            offset: fields.u64(8)?,
            size: fields.u32(16)?,
            write_flags: fields.u32(20)?,
            flags: fields.u32(32)?,
        })
    }
}

/// `size u32 0 | flags u32 4`, and with SETXATTR_EXT `| setxattr_flags u32 8 | padding u32 12`; then name and
/// value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetxattrIn {
    pub size: u32,
    pub flags: u32,
    pub setxattr_flags: u32,
}

impl SetxattrIn {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes);
        let setxattr_flags = if bytes.len() >= 16 { fields.u32(8)? } else { 0 };
        Some(Self { size: fields.u32(0)?, flags: fields.u32(4)?, setxattr_flags })
    }
}

/// GETXATTR and LISTXATTR: `size u32 0 | padding u32 4`; 0 asks how much there is.
pub fn parse_xattr_size(bytes: &[u8]) -> Option<u32> {
    Fields(bytes.get(..8)?).u32(0)
}

/// `fh u64 0 | offset u64 8 | length u64 16 | mode u32 24 | padding u32 28`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FallocateIn {
    pub offset: u64,
    pub length: u64,
    pub mode: u32,
}

impl FallocateIn {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes.get(..32)?);
        Some(Self { offset: fields.u64(8)?, length: fields.u64(16)?, mode: fields.u32(24)? })
    }
}

/// `fh u64 0 | offset u64 8 | whence u32 16 | padding u32 20`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LseekIn {
    pub offset: u64,
    pub whence: u32,
}

impl LseekIn {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes.get(..24)?);
        Some(Self { offset: fields.u64(8)?, whence: fields.u32(16)? })
    }
}

/// `fh_in u64 0 | off_in u64 8 | nodeid_out u64 16 | fh_out u64 24 | off_out u64 32 | len u64 40 | flags u64
/// 48`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyFileRangeIn {
    pub offset_in: u64,
    pub nodeid_out: u64,
    pub offset_out: u64,
    pub length: u64,
    pub flags: u64,
}

impl CopyFileRangeIn {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let fields = Fields(bytes.get(..56)?);
        Some(Self {
            offset_in: fields.u64(8)?,
            nodeid_out: fields.u64(16)?,
            offset_out: fields.u64(32)?,
            length: fields.u64(40)?,
            flags: fields.u64(48)?,
        })
    }
}

/// BATCH_FORGET: `count u32 0 | dummy u32 4`, then `count` times `nodeid u64 | nlookup u64`. Stops where the
/// bytes stop, whatever `count` says.
pub fn batch_forget<'a>(op_in: &[u8], payload: &'a [u8]) -> impl Iterator<Item = (u64, u64)> + use<'a> {
    let count = Fields(op_in).u32(0).unwrap_or(0) as usize;
    payload.chunks_exact(16).take(count).filter_map(|one| Some((Fields(one).u64(0)?, Fields(one).u64(8)?)))
}

/// Takes one NUL-ended string off the front: `(string, rest)`.
pub fn take_string(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = payload.iter().position(|byte| *byte == 0)?;
    Some((&payload[..end], &payload[end + 1..]))
}
