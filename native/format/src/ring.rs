//! The ring: acknowledged ops that are not yet on the drives, in memory that outlives the process (STORE.md 16, 26).
//!
//! ```text
//! ring    = header (one page) | op area (op_area_bytes) | page area (the rest)
//! header  = magic u32 "HRNG" | version u32 | boot_id 16 B | pool 16 B | group u32 | reserved u32
//!         | op_area_bytes u64 | page_area_bytes u64 | checksum u64 over everything before     (set once)
//!         | at byte 256: op_head u64 | at byte 320: op_tail u64        (running, each on its own cache line)
//! record  = op_bytes u32 | reserved u32 | page_position u64 | op (op.rs)      at 8-byte steps, contiguous
//! skip    = 0xFFFFFFFF u32                    "continue at the start of the op area"
//! ```
//! Positions run on for ever; the place in an area is position modulo its size. A record is whole once `op_head`
//! has passed it. Payload pages are contiguous and page-aligned. Records between tail and head have LSNs without gaps.

use crate::checksum::checksum;
use crate::ids::{GroupId, Uuid};
use crate::limits::OP_BYTES_MAX;
use crate::op::OP_HEADER_BYTES;
use crate::wire::{DecodeError, Put, Take};

pub const RING_MAGIC: u32 = u32::from_le_bytes(*b"HRNG");
pub const RING_VERSION: u32 = 1;
pub const RING_HEADER_BYTES: usize = 4096;
pub const RING_HEAD_OFFSET: usize = 256;
pub const RING_TAIL_OFFSET: usize = 320;
pub const RING_RECORD_HEADER_BYTES: usize = 16;
pub const RING_SKIP: u32 = u32::MAX;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RingHeader {
    pub boot_id: [u8; 16],
    pub pool: Uuid,
    pub group: GroupId,
    pub op_area_bytes: u64,
    pub page_area_bytes: u64,
}

impl RingHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(80);
        out.put_u32(RING_MAGIC);
        out.put_u32(RING_VERSION);
        out.put_bytes(&self.boot_id);
        out.put_bytes(&self.pool.0);
        out.put_u32(self.group.0);
        out.put_u32(0);
        out.put_u64(self.op_area_bytes);
        out.put_u64(self.page_area_bytes);
        let sum = checksum(&out);
        out.put_u64(sum);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        if take.u32()? != RING_MAGIC {
            return Err(DecodeError::Invalid("ring magic"));
        }
        let version = take.u32()?;
        if version != RING_VERSION {
            return Err(DecodeError::Unsupported(version as u64));
        }
        let boot_id = take.uuid()?.0;
        let pool = take.uuid()?;
        let group = GroupId(take.u32()?);
        let reserved = take.u32()?;
        let op_area_bytes = take.u64()?;
        let page_area_bytes = take.u64()?;
        let covered = bytes.len() - take.rest().len();
        if take.u64()? != checksum(&bytes[..covered]) {
            return Err(DecodeError::Checksum);
        }
        if reserved != 0 {
            return Err(DecodeError::Invalid("ring header reserved field"));
        }
        Ok(Self { boot_id, pool, group, op_area_bytes, page_area_bytes })
    }
}

/// What stands before each op in the op area. Not checksummed: the op behind it is, and so are its pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingRecordHeader {
    pub op_bytes: u32,
    pub page_position: u64,
}

impl RingRecordHeader {
    pub fn encode(&self) -> [u8; RING_RECORD_HEADER_BYTES] {
        let mut out = [0; RING_RECORD_HEADER_BYTES];
        out[..4].copy_from_slice(&self.op_bytes.to_le_bytes());
        out[8..].copy_from_slice(&self.page_position.to_le_bytes());
        out
    }

    /// Decodes the front of `bytes`. [`RING_SKIP`] is not a record: the caller has looked for it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        let op_bytes = take.u32()?;
        if take.u32()? != 0 || !(OP_HEADER_BYTES..=OP_BYTES_MAX).contains(&(op_bytes as usize)) {
            return Err(DecodeError::Invalid("ring record"));
        }
        Ok(Self { op_bytes, page_position: take.u64()? })
    }
}
