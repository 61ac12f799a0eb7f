//! Kept recovery points of a group.
//!
//! ```text
//! point = kind u8 | name_len u8 | flags u16 | wall i64, u32 | boottime_ns u64 | boot_id 16 B | name | origin
//! flags = bit 0: held, cannot be deleted; bit 1: there is an origin (replica.rs): it is another site's recovery point
//! ```

use crate::inode::{Time, put_time, take_time};
use crate::ids::Lsn;
use crate::limits::GROUP_NAME_BYTES_MAX;
use crate::replica::Origin;
use crate::wire::{DecodeError, Put, Take};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PointKind {
    /// The state of a second; goes by itself.
    Tick = 1,
    /// A snapshot; stays until deleted.
    Named = 2,
}

/// `flags` bit: a held point cannot be deleted.
const FLAG_HELD: u16 = 1;
const FLAG_ORIGIN: u16 = 2;

/// `wall` may repeat or go back from point to point, whose order is that of their LSNs; `boottime_ns` and `boot_id` say how much time really passed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PointRecord {
    pub kind: PointKind,
    pub held: bool,
    pub wall: Time,
    pub boottime_ns: u64,
    pub boot_id: [u8; 16],
    pub name: String,
    /// Of a replica's point.
    pub origin: Option<Origin>,
}

impl PointRecord {
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(self.name.len() <= GROUP_NAME_BYTES_MAX);
        let mut out = Vec::with_capacity(40 + self.name.len());
        out.put_u8(self.kind as u8);
        out.put_u8(self.name.len() as u8);
        let held = if self.held { FLAG_HELD } else { 0 };
        out.put_u16(held | if self.origin.is_some() { FLAG_ORIGIN } else { 0 });
        put_time(&mut out, self.wall);
        out.put_u64(self.boottime_ns);
        out.put_bytes(&self.boot_id);
        out.put_bytes(self.name.as_bytes());
        if let Some(origin) = self.origin {
            out.put_u64(origin.lineage);
            out.put_u64(origin.lsn.0);
        }
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
        let flags = take.u16()?;
        if flags & !(FLAG_HELD | FLAG_ORIGIN) != 0 {
            return Err(DecodeError::Invalid("point flags"));
        }
        let held = flags & FLAG_HELD != 0;
        let wall = take_time(&mut take)?;
        let boottime_ns = take.u64()?;
        let boot_id = take.uuid()?.0;
        let name =
            std::str::from_utf8(take.bytes(name_len)?).map_err(|_| DecodeError::Invalid("point name"))?.to_owned();
        let origin = match flags & FLAG_ORIGIN {
            0 => None,
            _ => Some(Origin { lineage: take.u64()?, lsn: Lsn(take.u64()?) }),
        };
        take.end()?;
        Ok(Self { kind, held, wall, boottime_ns, boot_id, name, origin })
    }
}
