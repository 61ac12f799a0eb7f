//! Log frames: what one flush appends to a log segment (STORE.md 9, 14).
//!
//! ```text
//! segment = frame*                         from page 0 of a slot, without gaps; what follows the last is not log
//! frame   = header (160 B) | ops | zeroes to a page border | payload pages of the frame's own series
//! header  = magic u32 "HFRM" | version u16 | op_count u16 | group u32 | row u32
//!         | incarnation u64 | membership u64 | first_lsn u64 | durable_lsn u64
//!         | ops_bytes u32 | header_rf u8 | reserved u8 × 3 | wall_sec i64 | reserved u64
//!         | 3 × place (rf 1, 2, 3): egroup u48, first_page u16, pages u16, reserved u16
//!         | reserved u8 × 28 | ops_checksum u64 | previous_chain u64 | chain u64
//! chain   = XXH3-64 seeded with previous_chain over the 152 bytes before it
//! ```
//! `place` of the frame's own RF names the pages behind the header; that of another RF names pages in a segment of that
//! RF's series. Ops consume the pages of their `payload_rf` in order. `durable_lsn` is the highest LSN that was
//! durable when the frame was built: the floor that recovery may not go below.
//!
//! In a segment of another RF the pages have a head of their own: the same header with the magic "HPAY", chained to nothing, and
//! only the ops whose pages follow. It says what the pages are once the frame is gone; recovery does not know it.

use crate::checksum::{checksum, checksum_bound};
use crate::ids::{EgroupId, GroupId, Lsn, Row};
use crate::limits::{BLOCK_BYTES, EGROUP_PAGES_MAX, SLOT_BYTES_MAX};
use crate::wire::{DecodeError, Put, Take};

pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"HFRM");
pub const PAYLOAD_MAGIC: u32 = u32::from_le_bytes(*b"HPAY");
pub const FRAME_VERSION: u16 = 1;
pub const FRAME_HEADER_BYTES: usize = 160;

/// Payload pages of one RF class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FramePlace {
    pub egroup: EgroupId,
    pub first_page: u16,
    pub pages: u16,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// The head of payload beside its frame.
    pub payload_only: bool,
    pub op_count: u16,
    pub group: GroupId,
    pub row: Row,
    pub incarnation: u64,
    pub membership: u64,
    pub first_lsn: Lsn,
    pub durable_lsn: Lsn,
    pub ops_bytes: u32,
    /// RF of the series that the frame itself lies in.
    pub header_rf: u8,
    pub wall_sec: i64,
    /// Index 0 is RF 1.
    pub places: [FramePlace; 3],
    pub ops_checksum: u64,
    pub previous_chain: u64,
    pub chain: u64,
}

impl FrameHeader {
    /// Bytes from the frame's start to its payload pages.
    pub fn head_bytes(&self) -> usize {
        (FRAME_HEADER_BYTES + self.ops_bytes as usize).next_multiple_of(BLOCK_BYTES)
    }

    /// Pages of the whole frame in its own segment.
    pub fn pages(&self) -> usize {
        self.head_bytes() / BLOCK_BYTES + self.places[self.header_rf as usize - 1].pages as usize
    }

    /// LSN after the last op.
    pub fn end_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + self.op_count as u64)
    }

    fn encode_fields(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FRAME_HEADER_BYTES);
        out.put_u32(if self.payload_only { PAYLOAD_MAGIC } else { FRAME_MAGIC });
        out.put_u16(FRAME_VERSION);
        out.put_u16(self.op_count);
        out.put_u32(self.group.0);
        out.put_u32(self.row.0);
        out.put_u64(self.incarnation);
        out.put_u64(self.membership);
        out.put_u64(self.first_lsn.0);
        out.put_u64(self.durable_lsn.0);
        out.put_u32(self.ops_bytes);
        out.put_u8(self.header_rf);
        out.put_bytes(&[0; 3]);
        out.put_i64(self.wall_sec);
        out.put_u64(0);
        for place in &self.places {
            out.put_u48(place.egroup.0);
            out.put_u16(place.first_page);
            out.put_u16(place.pages);
            out.put_u16(0);
        }
        out.put_bytes(&[0; 28]);
        out.put_u64(self.ops_checksum);
        out.put_u64(self.previous_chain);
        out
    }

    /// Computes `ops_checksum` and `chain`, and writes header, ops and padding into `out`, which is emptied first.
    pub fn seal(&mut self, ops: &[u8], out: &mut Vec<u8>) {
        debug_assert_eq!(ops.len(), self.ops_bytes as usize);
        self.ops_checksum = checksum(ops);
        let fields = self.encode_fields();
        debug_assert_eq!(fields.len(), FRAME_HEADER_BYTES - 8);
        self.chain = checksum_bound(self.previous_chain, &fields);
        out.clear();
        out.put_bytes(&fields);
        out.put_u64(self.chain);
        out.put_bytes(ops);
        out.resize(self.head_bytes(), 0);
    }

    /// Decodes and verifies a frame's header at the front of `bytes`. The ops are verified by [`FrameHeader::ops`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_any(bytes).and_then(|header| match header.payload_only {
            false => Ok(header),
            true => Err(DecodeError::Invalid("frame magic")),
        })
    }

    /// As [`FrameHeader::decode`], or the head of payload beside its frame.
    pub fn decode_any(bytes: &[u8]) -> Result<Self, DecodeError> {
        let head = bytes.get(..FRAME_HEADER_BYTES).ok_or(DecodeError::Truncated)?;
        let mut take = Take::new(head);
        let payload_only = match take.u32()? {
            FRAME_MAGIC => false,
            PAYLOAD_MAGIC => true,
            _ => return Err(DecodeError::Invalid("frame magic")),
        };
        let version = take.u16()?;
        if version != FRAME_VERSION {
            return Err(DecodeError::Unsupported(version as u64));
        }
        let op_count = take.u16()?;
        let group = GroupId(take.u32()?);
        let row = Row(take.u32()?);
        let incarnation = take.u64()?;
        let membership = take.u64()?;
        let first_lsn = Lsn(take.u64()?);
        let durable_lsn = Lsn(take.u64()?);
        let ops_bytes = take.u32()?;
        let header_rf = take.u8()?;
        let mut reserved = take.bytes(3)?.iter().any(|byte| *byte != 0);
        let wall_sec = take.i64()?;
        reserved |= take.u64()? != 0;
        let mut places = [FramePlace::default(); 3];
        for place in &mut places {
            *place = FramePlace { egroup: EgroupId(take.u48()?), first_page: take.u16()?, pages: take.u16()? };
            reserved |= take.u16()? != 0;
        }
        reserved |= take.bytes(28)?.iter().any(|byte| *byte != 0);
        let ops_checksum = take.u64()?;
        let previous_chain = take.u64()?;
        let chain = take.u64()?;
        if checksum_bound(previous_chain, &head[..FRAME_HEADER_BYTES - 8]) != chain {
            return Err(DecodeError::Checksum);
        }
        let place_leaves =
            |place: &FramePlace| place.first_page as usize + place.pages as usize > EGROUP_PAGES_MAX;
        if reserved
            || !(1..=3).contains(&header_rf)
            || ops_bytes > SLOT_BYTES_MAX
            || first_lsn.0 == 0
            || first_lsn.0.checked_add(op_count as u64).is_none()
            || places.iter().any(place_leaves)
        {
            return Err(DecodeError::Invalid("frame header"));
        }
        Ok(Self {
            payload_only,
            op_count,
            group,
            row,
            incarnation,
            membership,
            first_lsn,
            durable_lsn,
            ops_bytes,
            header_rf,
            wall_sec,
            places,
            ops_checksum,
            previous_chain,
            chain,
        })
    }

    /// The verified bytes of the ops of this frame, which starts at the front of `bytes`.
    pub fn ops<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], DecodeError> {
        let ops = bytes
            .get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + self.ops_bytes as usize)
            .ok_or(DecodeError::Truncated)?;
        if checksum(ops) != self.ops_checksum {
            return Err(DecodeError::Checksum);
        }
        Ok(ops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> FrameHeader {
        FrameHeader {
            payload_only: false,
            op_count: 1,
            group: GroupId(7),
            row: Row(2),
            incarnation: 9,
            membership: 3,
            first_lsn: Lsn(41),
            durable_lsn: Lsn(40),
            ops_bytes: 5,
            header_rf: 2,
            wall_sec: 1_790_000_000,
            places: [
                FramePlace::default(),
                FramePlace { egroup: EgroupId(12), first_page: 1, pages: 3 },
                FramePlace::default(),
            ],
            ops_checksum: 0,
            previous_chain: 0x1122_3344_5566_7788,
            chain: 0,
        }
    }

    #[test]
    fn round_trip_and_every_flipped_byte_is_noticed() {
        let mut header = example();
        let mut bytes = Vec::new();
        header.seal(b"hello", &mut bytes);
        assert_eq!(bytes.len(), BLOCK_BYTES);
        assert_eq!(header.pages(), 4);
        let read = FrameHeader::decode(&bytes).expect("decodes");
        assert_eq!(read, header);
        assert_eq!(read.ops(&bytes), Ok(&b"hello"[..]));
        for at in 0..FRAME_HEADER_BYTES + 5 {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            let noticed = FrameHeader::decode(&bad).and_then(|head| head.ops(&bad).map(|_| ())).is_err();
            assert!(noticed, "byte {at}");
        }
    }

    #[test]
    fn the_head_of_payload_is_no_frame() {
        let mut header = FrameHeader { payload_only: true, ..example() };
        let mut bytes = Vec::new();
        header.seal(b"hello", &mut bytes);
        assert_eq!(FrameHeader::decode(&bytes), Err(DecodeError::Invalid("frame magic")));
        assert_eq!(FrameHeader::decode_any(&bytes), Ok(header));
    }
}
