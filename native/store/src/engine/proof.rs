//! Proofs that a recovery point is the same at two sites, as the daemons drive them. See `replica/proof.rs`.

use super::Engine;
use crate::error::Result;
use crate::replica::{Proof, decode_mends};
use holdfast_format::Lsn;
use holdfast_format::replica::Origin;

impl Engine {
    /// A recovery point of a lineage, to be compared with another site's.
    ///
    /// # Errors
    /// See [`Proof::open`].
    pub fn proof_open(&self, target: &str, lineage: u64, lsn: u64) -> Result<Proof> {
        Proof::open(&self.group_of(target)?, Origin { lineage, lsn: Lsn(lsn) })
    }

    /// What proofs found goes again with the next batch: as [`crate::replica::Found::mends`] has it, any number of them joined.
    /// Returns the recovery point at which followers have it, which is durable.
    ///
    /// # Errors
    /// `Fenced`: the group is a replica; `Unavailable`: too much waits already.
    pub fn replica_mend(&self, target: &str, mends: &[u8]) -> Result<u64> {
        let group = self.group_of(target)?;
        let lsn = group.mend(decode_mends(mends)?)?;
        self.flush_group(&group, lsn)?;
        Ok(lsn.0)
    }
}
