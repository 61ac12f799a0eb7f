//! Acknowledging an op: LSN, ring, memtable.

use super::view::{Generation, View};
use super::recover::apply_effects;
use super::Group;
use super::pace::LOOK_OPS;
use crate::error::{Kind, Result};
use crate::extent::resolve::{Source, resolve};
use crate::ledger::{BlockRef, OpDraft};
use crate::mutants::mutant;
use crate::oplog::place::Place;
use crate::placement::Draw;
use holdfast_format::cell::Cell;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::op::{Effects, OpHeader, OpKind, encode_op};
use holdfast_format::{BranchId, EgroupId, GROUP_BRANCH, Ino, Lsn, Stamp, key};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Waiting ring bytes that start a flush by themselves.
pub(super) const FLUSH_TRIGGER_BYTES: u64 = 1 << 20;
/// Frozen memtables that may wait for the drain.
const FROZEN_MAX: usize = 1;
/// Share of a memtable's budget that ops which free space may go over it, instead of waiting.
const OVERDRAFT_DIVISOR: usize = 4;
/// A drain's signal cannot be lost for longer than this.
const DRAIN_WAIT: std::time::Duration = std::time::Duration::from_millis(100);

impl Group {
    /// Order (each step a crash test; STORE.md 12):
    /// 1. the reservation promises a place on the drives (ENOSPC comes here, before anything is changed);
    /// 2. the op goes into the ring: from here on it survives `kill -9`;
    /// 3. its effects go into the memtable;
    /// 4. the LSN becomes visible and the caller is answered.
    ///
    /// All four happen under the commit lock, so whatever is acknowledged has every lower LSN in the ring.
    pub(super) fn commit_draft(&self, mut draft: OpDraft<'_>) -> Result<Lsn> {
        let pages = draft.payload.len() / BLOCK_BYTES;
        debug_assert_eq!(draft.payload.len() % BLOCK_BYTES, 0);
        if self.options.background && draft.branch != GROUP_BRANCH && !draft.frees {
            self.pay(pages as u64);
        }
        self.check_role(&draft)?;
        let beside_point = if draft.kind == OpKind::Point { std::mem::take(&mut draft.effects) } else { Effects::default() };
        loop {
            self.ensure_open()?;
            // The group's own records are few and come from the threads that drain: they never wait for a drain.
            if draft.branch != GROUP_BRANCH {
                self.await_copies(draft.kind)?;
                self.await_memtable(draft.frees)?;
            }
            let mut commit = self.commit.lock();
            self.refuse_when_given(&draft)?;
            let lsn = commit.next;
            let mut op = std::mem::take(&mut commit.op);
            op.clear();
            let header = OpHeader {
                lsn,
                row: self.row,
                branch: draft.branch,
                kind: draft.kind,
                payload_rf: if pages > 0 { draft.rf } else { 0 },
                payload_pages: pages as u32,
                actor: draft.actor,
                time: draft.time,
                ino: draft.ino,
                offset: draft.offset,
                length: draft.length,
            };
            let point = (draft.kind == OpKind::Point).then(|| self.point_record(draft.point));
            if let Some(record) = &point {
                draft.effects = beside_point.clone();
                draft.effects.put(&key::point(lsn), &record.encode());
            }
            let hole = mutant!(AckOverHole) && pages == 0 && lsn.0.is_multiple_of(16);
            encode_op(&mut op, &header, if hole { &[] } else { draft.effects.as_bytes() });
            if !self.log.admit(lsn, op.len(), draft.payload.len(), draft.rf) {
                commit.op = op;
                drop(commit);
                self.refill(if pages > 0 { draft.rf } else { 0 }, &draft)?;
                continue;
            }
            if let Err(error) = self.log.ring.wake(op.len(), draft.payload.len()) {
                self.log.withdraw(lsn);
                commit.op = op;
                return Err(error);
            }
            let Some(position) = self.log.ring.append(&op, draft.payload) else {
                self.log.withdraw(lsn);
                commit.op = op;
                drop(commit);
                // The caller flushes itself: the flusher may be the caller.
                match self.flush_now() {
                    Err(_) if self.waits_for_copies() => self.await_drives(),
                    other => other?,
                }
                continue;
            };
            commit.op = op;
            commit.next = Lsn(lsn.0 + 1);
            let generation = self.active();
            let place = (pages > 0).then_some(Place::Ring(position));
            let stamp = Stamp { lsn, row: self.row };
            let last_point = Lsn(self.last_point.load(Ordering::Acquire));
            let effects = (draft.branch, draft.effects.as_bytes());
            apply_effects(&self.pool, &generation, stamp, effects, place, last_point)?;
            self.headers.note(&header);
            self.log.wall_sec.store(draft.time.sec, Ordering::Relaxed);
            self.newest.store(lsn.0, Ordering::Release);
            if draft.frees && draft.branch != GROUP_BRANCH {
                self.freed.store(true, Ordering::Release);
            }
            if draft.branch != GROUP_BRANCH {
                self.changed.store(lsn.0, Ordering::Release);
            }
            if let Some(record) = &point {
                self.points.lock().insert(lsn, record);
                self.last_point.store(lsn.0, Ordering::Release);
            }
            let bytes = (draft.payload.len() + commit.op.len()) as u64;
            generation.logged.fetch_add(bytes, Ordering::Relaxed);
            self.present.fetch_add(draft.stored, Ordering::Relaxed);
            let logged = self.logged_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
            if generation.memtable.bytes() >= self.generation_budget() || logged >= self.log_bytes_due {
                self.freeze_locked(FROZEN_MAX);
            }
            drop(commit);
            if !self.options.background {
                // The op is acknowledged: what keeps the drain from working is told to those who need it.
                let _ = self.drain_frozen();
            }
            self.counters.ops.fetch_add(1, Ordering::Relaxed);
            self.counters.bytes_written.fetch_add(draft.payload.len() as u64, Ordering::Relaxed);
            let copies = draft.payload.len() as u64 * draft.rf as u64;
            self.counters.copy_bytes_written.fetch_add(copies, Ordering::Relaxed);
            if self.options.background && lsn.0.is_multiple_of(LOOK_OPS) {
                self.set_pace();
            }
            if self.options.background && self.log.waiting_bytes() >= FLUSH_TRIGGER_BYTES {
                self.kick_flusher();
            }
            return Ok(lsn);
        }
    }

    /// Takes more log segments. Short of space, the oldest kept seconds go before a writer sees ENOSPC. What gives space
    /// back may use up the reserve at last; the group's own records never reclaim, since reclaiming writes them.
    fn refill(&self, payload_rf: u8, draft: &OpDraft<'_>) -> Result<()> {
        if draft.branch == GROUP_BRANCH {
            return self.log.refill(payload_rf, Draw::Upkeep);
        }
        let draw = if draft.frees { Draw::Freeing } else { Draw::Ordinary };
        let mut result = self.log.refill(payload_rf, draw);
        while result.as_ref().is_err_and(|error| error.kind == Kind::NoSpace) && self.reclaim_now()? {
            result = self.log.refill(payload_rf, draw);
        }
        match result {
            Err(error) if error.kind == Kind::NoSpace && draft.frees => self.log.refill(payload_rf, Draw::Upkeep),
            other => other,
        }
    }

    /// Makes the active memtable a frozen one, unless too many wait already. The caller holds the commit lock.
    pub(super) fn freeze_locked(&self, frozen_max: usize) {
        let mut view = self.view.write();
        let first = Lsn(self.newest.load(Ordering::Acquire) + 1);
        if view.generations.len() > frozen_max || view.generations[0].places.first() == first {
            return;
        }
        view.generations.insert(0, Arc::new(Generation::new(first)));
        self.logged_bytes.store(0, Ordering::Release);
        drop(view);
        self.kick_drain();
    }

    /// Whether the active memtable, or the log since the last freeze, is over its budget. Ops that free space may
    /// overdraw a little.
    fn is_over_budget(&self, frees: bool) -> bool {
        let (budget, due) = (self.generation_budget(), self.log_bytes_due);
        let (budget, due) = if frees {
            (budget + budget / OVERDRAFT_DIVISOR, due + due / OVERDRAFT_DIVISOR as u64)
        } else {
            (budget, due)
        };
        self.active().memtable.bytes() >= budget || self.logged_bytes.load(Ordering::Acquire) >= due
    }

    /// With too few drives for the copies that the volumes ask for, writes fail here where that is the policy. Else they are
    /// taken as long as the ring has room, since what `write` promises needs no drive; `fsync` waits. The record that
    /// changes the policy always passes.
    fn await_copies(&self, kind: OpKind) -> Result<()> {
        match self.log.blocked() {
            Some(error) if self.log.fails_below() && kind != OpKind::VolumeSet => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether a failed flush or drain is no failure, but waits for drives.
    fn waits_for_copies(&self) -> bool {
        self.options.background && self.log.blocked().is_some() && !self.log.fails_below()
    }

    /// Until something may have changed.
    fn await_drives(&self) {
        let mut drains = self.drained_signal.0.lock();
        self.drained_signal.1.wait_for(&mut drains, DRAIN_WAIT);
    }

    /// Waits while both memtables are full.
    fn await_memtable(&self, frees: bool) -> Result<()> {
        loop {
            if !self.is_over_budget(frees) {
                return Ok(());
            }
            if !self.options.background {
                match self.drain_now() {
                    Err(error) if error.kind == Kind::NoSpace && self.reclaim_now()? => continue,
                    other => return other,
                }
            }
            self.ensure_open()?;
            let commit = self.commit.lock();
            self.freeze_locked(FROZEN_MAX);
            drop(commit);
            let mut drains = self.drained_signal.0.lock();
            if !self.is_over_budget(frees) {
                return Ok(());
            }
            if let Some(error) = drains.error.clone().filter(|_| !self.waits_for_copies()) {
                drop(drains);
                // Tables have no room: kept seconds go before anybody is told so, a deletion least of all.
                if error.kind == Kind::NoSpace && self.reclaim_now()? {
                    continue;
                }
                return Err(error);
            }
            self.kick_drain();
            self.drained_signal.1.wait_for(&mut drains, DRAIN_WAIT);
        }
    }

    /// Blocks by reference for copies: pages that are still in the ring are flushed first, so that every reference is an
    /// egroup's page.
    pub(super) fn references_of(
        &self,
        inode: (BranchId, Ino),
        levels: u16,
        first: u32,
        count: u32,
    ) -> Result<Vec<BlockRef>> {
        let _hold = self.pool.hold();
        self.references_in(&|| Ok(self.view()), inode, levels, first, count)
    }

    /// The same in a view of the past. The caller holds the pool's pages.
    pub(super) fn references_in(
        &self,
        view: &dyn Fn() -> Result<View>,
        inode: (BranchId, Ino),
        levels: u16,
        first: u32,
        count: u32,
    ) -> Result<Vec<BlockRef>> {
        let lookup = || resolve(&view()?, inode, levels, first as u64, count as usize);
        let mut resolved = lookup()?;
        let in_ring = resolved.blocks.iter().any(|block| match &block.source {
            Source::Logged { generation, lsn, .. } => {
                matches!(generation.places.get(*lsn), Some(Place::Ring(_)))
            }
            _ => false,
        });
        if in_ring {
            self.flush_now()?;
            resolved = lookup()?;
        }
        Ok(resolved
            .blocks
            .iter()
            .map(|block| {
                if !block.pieces.is_empty() || !block.over.is_empty() {
                    return BlockRef::Copy;
                }
                match &block.source {
                    Source::Hole => BlockRef::Hole,
                    Source::Page { egroup, page, checksum } => page_cell(*egroup, *page, *checksum),
                    Source::Packed { egroup, page, byte_offset, length, checksum } => {
                        BlockRef::Shared(Cell::Packed {
                            egroup: *egroup,
                            page: *page,
                            byte_offset: *byte_offset,
                            length: *length,
                            checksum: *checksum,
                        })
                    }
                    Source::Logged { generation, lsn, page, checksum } => match generation.places.get(*lsn) {
                        Some(Place::Egroup(egroup, base)) => page_cell(egroup, base + page, *checksum),
                        _ => BlockRef::Copy,
                    },
                }
            })
            .collect())
    }
}

fn page_cell(egroup: EgroupId, page: u16, checksum: u64) -> BlockRef {
    BlockRef::Shared(Cell::Pages { egroup, first_page: page, checksums: vec![checksum], released: Vec::new() })
}

/// Egroup pages that a record names; empty for anything but a data cell in an egroup.
pub(super) fn shared_pages(key: &[u8], value: &[u8]) -> Vec<(EgroupId, u16)> {
    let Some((_, level)) = key::data_place(key) else { return Vec::new() };
    match Cell::decode(level, value) {
        Ok(Cell::Pages { egroup, first_page, checksums, .. }) => {
            (0..checksums.len() as u16).map(|page| (egroup, first_page + page)).collect()
        }
        Ok(Cell::Packed { egroup, page, .. }) => vec![(egroup, page)],
        Ok(Cell::Over { base, .. }) => vec![(base.egroup, base.page)],
        _ => Vec::new(),
    }
}
