//! What a group keeps of replication: one record of a replica, one a follower of an owner.
//!
//! ```text
//! replica  = role u8 | parts u8 (bit 0: staging, bit 1: branch) | reserved u16 | source 16 B | lineage u64 | lsn u64 | staging | branch
//! role     = 1: a replica, 2: it was one and has been promoted, 3: a fork, what a former owner did that its successor does not have,
//!            4: an owner that has given the group to another site
//! source   = uuid of the owner's group; lineage = random id of the owner's epoch; lsn = the owner's LSN of the newest recovery
//!            point that is whole here, 0: none yet. Of a fork: its successor's group, its own lineage, the successor's LSN of the
//!            last recovery point that both have. Of role 4: its own uuid and lineage, and the last point that it gave away
//! staging  = base u64 | target u64 | sequence u64 | cursor_len u16 | cursor
//!            chunks 0 to sequence - 1 of the batch (base, target] are in; the cursor is where the next one begins
//! branch   = lineage u64 | lsn u64
//!            of what was given away: lineage and lsn once more; of what was promoted, or is a fork: the lineage that `lsn` is of, and
//!            the same recovery point here
//! follower = lsn u64
//!            the follower has at least this recovery point, so that the group keeps it
//! origin   = lineage u64 | lsn u64
//!            of a recovery point of a replica: which one of the owner it is
//! ```

use crate::ids::{Lsn, Uuid};
use crate::limits::CURSOR_BYTES_MAX;
use crate::wire::{DecodeError, Put, Take};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Role {
    Replica = 1,
    Promoted = 2,
    Fork = 3,
    Relinquished = 4,
}

/// A batch that is not whole yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Staging {
    pub base: Lsn,
    pub target: Lsn,
    pub sequence: u64,
    pub cursor: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaRecord {
    pub role: Role,
    pub source: Uuid,
    pub lineage: u64,
    pub lsn: Lsn,
    pub staging: Option<Staging>,
    /// Where the group left the other's lineage: that lineage, and its own LSN of the recovery point `lsn`.
    pub branch: Option<Origin>,
}

impl ReplicaRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.put_u8(self.role as u8);
        out.put_u8(self.staging.is_some() as u8 | (self.branch.is_some() as u8) << 1);
        out.put_u16(0);
        out.put_bytes(&self.source.0);
        out.put_u64(self.lineage);
        out.put_u64(self.lsn.0);
        if let Some(staging) = &self.staging {
            debug_assert!(staging.cursor.len() <= CURSOR_BYTES_MAX);
            out.put_u64(staging.base.0);
            out.put_u64(staging.target.0);
            out.put_u64(staging.sequence);
            out.put_u16(staging.cursor.len() as u16);
            out.put_bytes(&staging.cursor);
        }
        if let Some(branch) = &self.branch {
            out.put_u64(branch.lineage);
            out.put_u64(branch.lsn.0);
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        let role = match take.u8()? {
            1 => Role::Replica,
            2 => Role::Promoted,
            3 => Role::Fork,
            4 => Role::Relinquished,
            _ => return Err(DecodeError::Invalid("role")),
        };
        let parts = take.u8()?;
        if parts > 3 || take.u16()? != 0 {
            return Err(DecodeError::Invalid("replica record"));
        }
        let (source, lineage, lsn) = (take.uuid()?, take.u64()?, Lsn(take.u64()?));
        let staging = if parts & 1 != 0 { Some(Self::take_staging(&mut take)?) } else { None };
        let branch = match parts & 2 {
            0 => None,
            _ => Some(Origin { lineage: take.u64()?, lsn: Lsn(take.u64()?) }),
        };
        take.end()?;
        Ok(Self { role, source, lineage, lsn, staging, branch })
    }

    fn take_staging(take: &mut Take<'_>) -> Result<Staging, DecodeError> {
        let (base, target, sequence) = (Lsn(take.u64()?), Lsn(take.u64()?), take.u64()?);
        let length = take.u16()? as usize;
        if length > CURSOR_BYTES_MAX || base >= target {
            return Err(DecodeError::Invalid("staging"));
        }
        Ok(Staging { base, target, sequence, cursor: take.bytes(length)?.to_vec() })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FollowerRecord {
    pub lsn: Lsn,
}

impl FollowerRecord {
    pub fn encode(&self) -> Vec<u8> {
        self.lsn.0.to_le_bytes().to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        let lsn = Lsn(take.u64()?);
        take.end()?;
        Ok(Self { lsn })
    }
}

/// Which recovery point of its owner a replica's is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Origin {
    pub lineage: u64,
    pub lsn: Lsn,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ReplicaRecord {
        ReplicaRecord { role: Role::Replica, source: Uuid([7; 16]), lineage: 8, lsn: Lsn(9), staging: None, branch: None }
    }

    #[test]
    fn golden() {
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let plain = "0100000007070707070707070707070707070707".to_owned() + "0800000000000000" + "0900000000000000";
        assert_eq!(hex(record().encode()), plain);
        let staging = Staging { base: Lsn(9), target: Lsn(12), sequence: 3, cursor: vec![0xab, 0xcd] };
        let staged = ReplicaRecord { role: Role::Promoted, staging: Some(staging), ..record() };
        let expected = plain.replacen("0100", "0201", 1) + "09000000000000000c000000000000000300000000000000" + "0200abcd";
        assert_eq!(hex(staged.encode()), expected);
        let branched = ReplicaRecord { branch: Some(Origin { lineage: 3, lsn: Lsn(4) }), ..record() };
        let given = ReplicaRecord { role: Role::Relinquished, ..record() };
        assert_eq!(hex(given.encode()), plain.replacen("01", "04", 1));
        for record in [record(), staged.clone(), branched, given] {
            assert_eq!(ReplicaRecord::decode(&record.encode()), Ok(record));
        }
        for cut in 0..staged.encode().len() {
            assert!(ReplicaRecord::decode(&staged.encode()[..cut]).is_err(), "{cut}");
        }
        assert_eq!(hex(FollowerRecord { lsn: Lsn(0x0102) }.encode()), "0201000000000000");
        assert_eq!(FollowerRecord::decode(&[2, 1, 0, 0, 0, 0, 0, 0]), Ok(FollowerRecord { lsn: Lsn(0x0102) }));
    }
}
