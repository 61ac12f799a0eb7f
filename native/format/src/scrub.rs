//! How far the scrub of a pool is: one record of the POOL tree, so that it goes on after a restart where it was.
//!
//! ```text
//! key   = 0x03
//! value = version u8 (1) | phase u8 | reserved u16 | group u32 | id u64 | pass u64 | started_s u64
//!       | bad_copies u64 | repaired u64 | lost u64 | key (to the end)
//! ```
//! `phase` 1: tables and what their DATA records name, from table `id` of `group` on, in it from record `key` on;
//! 2: footers, from egroup `id` on; 3: logs, from `group` on; 0: the pass is complete.

use crate::ids::GroupId;
use crate::limits::KEY_BYTES_MAX;
use crate::wire::{DecodeError, Put, Take};

const VERSION: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(u8)]
pub enum ScrubPhase {
    #[default]
    Done = 0,
    Tables = 1,
    Footers = 2,
    Logs = 3,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ScrubCursor {
    pub phase: ScrubPhase,
    pub group: GroupId,
    pub id: u64,
    pub key: Vec<u8>,
    /// Counted from 1.
    pub pass: u64,
    /// Seconds since 1970 when the pass began.
    pub started_s: u64,
    /// Of this pass: copies that were wrong, those that were mended, pieces that no copy has right.
    pub bad_copies: u64,
    pub repaired: u64,
    pub lost: u64,
}

pub fn scrub_key() -> Vec<u8> {
    vec![0x03]
}

impl ScrubCursor {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.key.len());
        out.put_u8(VERSION);
        out.put_u8(self.phase as u8);
        out.put_u16(0);
        out.put_u32(self.group.0);
        for word in [self.id, self.pass, self.started_s, self.bad_copies, self.repaired, self.lost] {
            out.put_u64(word);
        }
        out.put_bytes(&self.key);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        if take.u8()? != VERSION {
            return Err(DecodeError::Invalid("scrub cursor version"));
        }
        let phase = match take.u8()? {
            0 => ScrubPhase::Done,
            1 => ScrubPhase::Tables,
            2 => ScrubPhase::Footers,
            3 => ScrubPhase::Logs,
            _ => return Err(DecodeError::Invalid("scrub phase")),
        };
        if take.u16()? != 0 {
            return Err(DecodeError::Invalid("scrub reserved field"));
        }
        let group = GroupId(take.u32()?);
        let (id, pass, started_s) = (take.u64()?, take.u64()?, take.u64()?);
        let (bad_copies, repaired, lost) = (take.u64()?, take.u64()?, take.u64()?);
        let key = take.rest().to_vec();
        if key.len() > KEY_BYTES_MAX + 1 {
            return Err(DecodeError::Invalid("key length"));
        }
        Ok(Self { phase, group, id, key, pass, started_s, bad_copies, repaired, lost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_golden() {
        let cursor = ScrubCursor {
            phase: ScrubPhase::Tables,
            group: GroupId(7),
            id: 0x0102,
            key: b"ab".to_vec(),
            pass: 3,
            started_s: 4,
            bad_copies: 5,
            repaired: 6,
            lost: 8,
        };
        let mut golden = vec![1, 1, 0, 0, 7, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0];
        for word in [3u8, 4, 5, 6, 8] {
            golden.extend([word, 0, 0, 0, 0, 0, 0, 0]);
        }
        golden.extend(b"ab");
        assert_eq!(cursor.encode(), golden);
        assert_eq!(ScrubCursor::decode(&golden), Ok(cursor));
        for end in 0..golden.len() - 2 {
            assert_eq!(ScrubCursor::decode(&golden[..end]), Err(DecodeError::Truncated), "{end}");
        }
        golden[1] = 4;
        assert!(ScrubCursor::decode(&golden).is_err());
    }
}
