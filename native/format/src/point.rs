//! Kept recovery points of a group.
//!
//! ```text
//! point = kind u8 | name_len u8 | reserved u16 | wall i64, u32 | boottime_ns u64 | boot_id 16 B | name
//! ```

use crate::inode::Time;
use crate::wire::{DecodeError, Put, Take};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PointKind {
    /// The state of a second; goes by itself.
    Tick = 1,
    /// A snapshot; stays until deleted.
    Named = 2,
}

/// `wall` never decreases from point to point; `boottime_ns` and `boot_id` say how much time really passed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PointRecord {
    pub kind: PointKind,
    pub wall: Time,
    pub boottime_ns: u64,
    pub boot_id: [u8; 16],
    pub name: String,
}

impl PointRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40 + self.name.len());
        out.put_u8(self.kind as u8);
        out.put_u8(self.name.len() as u8);
        out.put_u16(0);
        out.put_i64(self.wall.sec);
        out.put_u32(self.wall.nsec);
        out.put_u64(self.boottime_ns);
        out.put_bytes(&self.boot_id);
        out.put_bytes(self.name.as_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        let kind = match take.u8()? {
            1 => PointKind::Tick,
            2 => PointKind::Named,
            _ => return Err(DecodeError::Invalid("point kind")),
        };
        let name_len = take.u8()? as usize;
        take.u16()?;
        let wall = Time { sec: take.i64()?, nsec: take.u32()? };
        let boottime_ns = take.u64()?;
        let boot_id = take.uuid()?.0;
        let name =
            std::str::from_utf8(take.bytes(name_len)?).map_err(|_| DecodeError::Invalid("point name"))?.to_owned();
        take.end()?;
        Ok(Self { kind, wall, boottime_ns, boot_id, name })
    }
}
