//! What the group still names and nobody would miss, for statfs.
//!
//! `present` counts what the present stores, by what each op adds and takes away, so that a deletion shows at once, long
//! before a merge finds out what it hid. It starts as what NOW and the replayed log name, which is too much by what they
//! hide from each other, and is never more than that.

use super::Group;
use crate::error::Result;
use crate::ledger::Space;
use crate::metadata::io::Points;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::table::TableDesc;
use std::sync::atomic::Ordering;

/// Bytes on drives, all copies. `live` is what the present stores; the past is told apart by what snapshots and clones hold
/// (estimated from the tables' ranges) and what goes by itself.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Usage {
    pub live: u64,
    pub history: u64,
    pub snapshots: u64,
    pub log: u64,
    pub metadata: u64,
}

/// Bytes of stored pages that tables name.
struct Payload {
    now: u64,
    /// Only the past does, and no named point sees it; and the rest of the past.
    then_free: u64,
    then_held: u64,
}

impl Group {
    pub(super) fn space_for(&self, copies: u8) -> Result<Space> {
        let capacity = self.pool.capacity(self.id, copies, self.forgotten_pages());
        let inodes_free = (self.pool.room().free_bytes / BLOCK_BYTES as u64).max(1);
        let (total, free, available) = (capacity.total, capacity.free, capacity.available);
        Ok(Space { total, free, available, inodes_free })
    }

    /// Pages, all copies, that are named and would go before a writer sees ENOSPC. What named points may see stays. Less
    /// than nothing: content on its way from the log, whose segments count as room.
    fn forgotten_pages(&self) -> i64 {
        let payload = self.payload();
        let named = payload.now + payload.then_free + payload.then_held;
        let mut forgotten = named as i64 - self.present.load(Ordering::Relaxed);
        if !self.points.lock().is_lasting_empty() {
            // What lies hidden in NOW may be seen by it.
            forgotten = forgotten.min(payload.then_free as i64);
        }
        forgotten * self.log.header_rf() as i64 / BLOCK_BYTES as i64
    }

    /// Whose the bytes are that the group has on the drives, all copies.
    pub fn usage(&self) -> Usage {
        let copies = self.log.header_rf() as u64;
        let payload = self.payload();
        let named = payload.now + payload.then_free + payload.then_held;
        let live = (self.present.load(Ordering::Relaxed).max(0) as u64).min(named.max(1));
        let past = named - live.min(named);
        let snapshots = self.held_estimate().min(past);
        let (log, metadata) = self.pool.group_slots(self.id);
        Usage { live: live * copies, history: (past - snapshots) * copies, snapshots: snapshots * copies, log, metadata }
    }

    /// Bytes of content that the tables of NOW name and the present does not store: hidden until levels meet.
    pub(super) fn hidden_bytes(&self) -> u64 {
        self.payload().now.saturating_sub(self.present.load(Ordering::Relaxed).max(0) as u64)
    }

    /// About what of THEN lasting points see: within a table births and deaths are taken to lie evenly.
    fn held_estimate(&self) -> u64 {
        let lasting = self.points.lock().lasting();
        if lasting.is_empty() {
            return 0;
        }
        let of = |desc: &TableDesc| {
            let newest = lasting[..lasting.partition_point(|point| *point < desc.death_max)].last();
            let Some(newest) = newest.filter(|newest| **newest >= desc.stamp_min) else { return 0 };
            let part = |from: u64, until: u64, at: u64| {
                let span = (until - from).max(1) as f64;
                (at.clamp(from, until) - from) as f64 / span
            };
            let born = if desc.stamp_max <= *newest { 1.0 } else { part(desc.stamp_min.0, desc.stamp_max.0, newest.0) };
            let alive = if *newest < desc.death_min { 1.0 } else { 1.0 - part(desc.death_min.0, desc.death_max.0, newest.0) };
            (desc.payload_bytes as f64 * born * alive) as u64
        };
        self.tree.snapshot().then.iter().map(|table| of(&table.desc)).sum()
    }

    fn payload(&self) -> Payload {
        let lasting = Points::from_sorted(self.points.lock().lasting());
        let levels = self.tree.snapshot();
        let mut payload = Payload { now: 0, then_free: 0, then_held: 0 };
        levels.newest.iter().chain(levels.levels.iter().flatten()).for_each(|table| payload.now += table.desc.payload_bytes);
        for table in &levels.then {
            let held = lasting.sees(table.desc.stamp_min, table.desc.death_max);
            *if held { &mut payload.then_held } else { &mut payload.then_free } += table.desc.payload_bytes;
        }
        payload
    }

    /// The trees have changed, and only whoever calls this changes them: the present stores no more than they and the
    /// memtables name.
    pub(super) fn bound_present(&self) {
        let now = self.payload().now;
        self.pool.set_upkeep_slots(self.id, self.tree.upkeep_slots());
        let _commit = self.commit.lock();
        let logged: u64 = self.view.read().generations.iter().map(|all| all.logged.load(Ordering::Relaxed)).sum();
        self.present.fetch_min((now + logged) as i64, Ordering::Relaxed);
        self.present.fetch_max(0, Ordering::Relaxed);
    }
}
