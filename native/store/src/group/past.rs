//! What a kept point of a group saw, as a [`Ledger`] that takes no changes.

use super::snapshots::Pin;
use super::view::View;
use super::Group;
use crate::error::{Error, Kind, Result};
use crate::extent;
use crate::extent::cache::DataCache;
use crate::ledger::{BlockRef, Durable, Ledger, Mapped, OpDraft, Space};
use holdfast_format::inode::Time;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::{BranchId, Ino, Lsn};
use std::sync::Arc;

/// Reads answer `NotFound` once the point is not kept any more.
pub struct PastLedger {
    group: Arc<Group>,
    at: Lsn,
    _pin: Option<Pin>,
}

impl PastLedger {
    pub fn new(group: Arc<Group>, at: Lsn) -> Self {
        Self { group, at, _pin: None }
    }

    /// The point stays as long as the ledger.
    pub fn pinned(pin: Pin) -> Self {
        Self { group: pin.group().clone(), at: pin.lsn(), _pin: Some(pin) }
    }

    /// Whatever the point saw is in this view: a merge without the point is published after it has gone. The caller holds
    /// the pool's pages.
    fn view(&self) -> Result<View> {
        let view = self.group.view_at(self.at);
        match self.group.keeps(self.at) {
            true => Ok(view),
            false => Err(Error::new(Kind::NotFound, format!("what was there at LSN {} is not kept any more", self.at))),
        }
    }

    /// [`Ledger::read_blocks`] past the cache of the pool: what the drives hold now, not what they held once.
    pub fn read_stored(
        &self,
        cache: &Arc<DataCache>,
        (branch, ino, levels): (BranchId, Ino, u16),
        first_block: u32,
        into: &mut [u8],
    ) -> Result<()> {
        let _hold = self.group.pool.hold();
        let count = into.len() / BLOCK_BYTES;
        let resolved = extent::resolve::resolve(&self.view()?, (branch, ino), levels, first_block as u64, count)?;
        extent::read::read_resolved(extent::read::Sources { cache, ..self.group.sources() }, &resolved, into)
    }
}

impl Ledger for PastLedger {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let _hold = self.group.pool.hold();
        self.view()?.get(key)
    }

    fn scan(&self, from: &[u8], until: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let _hold = self.group.pool.hold();
        self.view()?.scan_values(from, until, visit)
    }

    fn read_blocks(&self, branch: BranchId, ino: Ino, levels: u16, first_block: u32, into: &mut [u8]) -> Result<()> {
        let _hold = self.group.pool.hold();
        self.group.read_in(&self.view()?, (branch, ino), levels, first_block, into)
    }

    fn map(
        &self,
        branch: BranchId,
        ino: Ino,
        levels: u16,
        range: (u64, u64),
        visit: &mut dyn FnMut(u64, u64, Mapped) -> bool,
    ) -> Result<()> {
        let _hold = self.group.pool.hold();
        extent::map::map(&self.view()?, (branch, ino), levels, range, visit)
    }

    fn block_refs(&self, branch: BranchId, ino: Ino, levels: u16, first: u32, count: u32) -> Result<Vec<BlockRef>> {
        let _hold = self.group.pool.hold();
        self.group.references_in(&|| self.view(), (branch, ino), levels, first, count)
    }

    fn commit(&self, _: OpDraft<'_>) -> Result<Lsn> {
        Err(Error::new(Kind::Fenced, "the past cannot be changed"))
    }

    fn newest(&self) -> Lsn {
        self.at
    }

    fn flush(&self, lsn: Lsn, done: Durable) {
        self.group.flush(lsn.min(self.at), done);
    }

    fn space(&self, copies: u8) -> Result<Space> {
        self.group.space_for(copies)
    }

    fn now(&self) -> Time {
        self.group.now()
    }

    fn write_bytes_max(&self) -> u32 {
        self.group.write_bytes_max()
    }
}
