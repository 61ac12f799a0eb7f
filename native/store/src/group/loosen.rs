//! Giving back what only points saw that have gone from the middle: tables of THEN whose records nobody sees any more are
//! written again without them.
//!
//! - After a *snapshot* has gone (or a clone's branch point) every table that it may have been the last to see into is looked
//!   at, and written again for a single such record: what was promised as free is given back, exactly.
//! - After *thinning* a table is looked at when half of the points have gone that lay between its deaths when it was looked at
//!   the last time, and written again when that is worth it: so a table is looked at a few times in its life, not once a second.
//!
//! What is known of tables is kept in memory only. A start looks at all of them again, at leisure.

use super::Group;
use crate::error::{Kind, Result};
use crate::metadata::io::Points;
use crate::metadata::tree::{Levels, Looseness};
use holdfast_format::table::TableDesc;
use holdfast_format::{Lsn, TableId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tables looked at by one step.
const LOOSEN_TABLES: usize = 8;
/// Merges after points have gone, at most, and slots' worth of hidden content that make them worth it.
const MERGES_MAX: usize = 16;
const HIDDEN_SLOTS: u64 = 8;
/// Points that are remembered one by one; when more have gone, everything between the first and the last is looked at.
const GONE_MAX: usize = 1024;
/// Part of a thinned table's records, or of the pages that they name, that is worth writing it again.
const THINNED_SHARE: u64 = 4;

/// LSNs of points that have gone: all from the first to the second.
type Gone = (Lsn, Lsn);

#[derive(Default)]
pub(super) struct Loosened {
    /// In the order in which they went.
    gone: Vec<Gone>,
    /// How many of them each table was looked at for.
    looked: BTreeMap<TableId, usize>,
    /// Points between the deaths of each table of THEN, when it was looked at last.
    dense: BTreeMap<TableId, usize>,
    started: bool,
    /// Merges that are worth it for what went: NOW may hide what nobody sees.
    merges_left: usize,
}

impl Loosened {
    fn add(&mut self, gone: Gone) {
        self.merges_left = MERGES_MAX;
        if self.gone.len() >= GONE_MAX {
            let all = self.gone.drain(..).fold(gone, |sum, one| (sum.0.min(one.0), sum.1.max(one.1)));
            self.looked.clear();
            self.gone.push(all);
            return;
        }
        self.gone.push(gone);
    }
}

/// What went, with the points that are left before and after it.
pub(super) struct Gap {
    gone: Gone,
    /// `None`: there is none. Then what a clone has taken over counts, too, with stamps before its first op.
    before: Option<Lsn>,
    after: Lsn,
}

impl Gap {
    pub(super) fn new(gone: Gone, points: &Points) -> Self {
        let lsns = points.lsns();
        let before = lsns.partition_point(|point| *point < gone.0);
        let after = lsns.partition_point(|point| *point <= gone.1);
        Self {
            gone,
            before: before.checked_sub(1).map(|at| lsns[at]),
            after: lsns.get(after).copied().unwrap_or(Lsn(u64::MAX)),
        }
    }

    /// Whether a table may hold a record that nobody sees since then: born after the point before, dead by the one after.
    pub(super) fn concerns(&self, desc: &TableDesc) -> bool {
        let saw = desc.stamp_min <= self.gone.1 && self.gone.0 < desc.death_max;
        saw && desc.death_min <= self.after && self.before.is_none_or(|before| desc.stamp_max > before)
    }
}

/// Points that lie between the deaths of a table.
fn density(desc: &TableDesc, points: &Points) -> usize {
    let lsns = points.lsns();
    lsns.partition_point(|point| *point < desc.death_max) - lsns.partition_point(|point| *point < desc.death_min)
}

/// What thinning asks of the tables of a group.
#[derive(Default)]
pub(super) struct Thinned(AtomicBool);

impl Thinned {
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Group {
    pub(super) fn loosen(&self, lsn: Lsn) {
        self.loosened.lock().add((lsn, lsn));
        self.kick_drain();
    }

    /// Looks at every table for a single record that nobody sees.
    pub fn loosen_everything(&self) {
        self.loosened.lock().add((Lsn(0), Lsn(u64::MAX - 1)));
    }

    /// At open: whatever a point saw that has gone before may lie around. A group that never had a lasting point has no
    /// snapshot's, and what thinning left is found at leisure.
    pub(super) fn loosen_all(&self) {
        self.thinned.note();
        if !self.points.lock().is_lasting_empty() {
            self.loosened.lock().add((Lsn(0), Lsn(u64::MAX - 1)));
        }
    }

    /// The housekeeper's step: looks at some tables of THEN that a point which has gone may have been the only one to see.
    /// False: there is nothing to do.
    pub fn loosen_step(&self) -> Result<bool> {
        if self.loosened.lock().gone.is_empty() {
            return Ok(false);
        }
        // What is looked at before the end of a point is durable would have to be looked at again.
        if !self.ends_are_durable() {
            return Ok(false);
        }
        let alone = self.maintenance.lock();
        let points: Arc<Points> = self.merge_points();
        let levels = self.tree.snapshot();
        let (count, chosen) = {
            let loosened = self.loosened.lock();
            let gaps: Vec<Gap> = loosened.gone.iter().map(|gone| Gap::new(*gone, &points)).collect();
            let due = |desc: &TableDesc| {
                let known = loosened.looked.get(&desc.id).copied().unwrap_or(0);
                gaps[known..].iter().any(|gap| gap.concerns(desc))
            };
            (loosened.gone.len(), chosen(&levels, LOOSEN_TABLES, due))
        };
        if chosen.is_empty() {
            drop(alone);
            if self.meet()? {
                return Ok(true);
            }
            let mut loosened = self.loosened.lock();
            // What went meanwhile is looked at by the next step.
            if loosened.gone.len() == count {
                loosened.gone.clear();
                loosened.looked.clear();
            }
            return Ok(false);
        }
        self.rewrite(&points, &chosen, None)?;
        let mut loosened = self.loosened.lock();
        if loosened.gone.len() >= count {
            loosened.looked.extend(chosen.into_iter().map(|table| (table, count)));
        }
        Ok(true)
    }

    /// Versions that were seen from a point that has gone may lie in NOW still, under what hides them: one merge of levels that
    /// have not met. False: nothing much is hidden, or enough was merged for it.
    fn meet(&self) -> Result<bool> {
        if self.hidden_bytes() < HIDDEN_SLOTS * self.pool.slot_bytes() as u64 {
            return Ok(false);
        }
        let left = {
            let mut loosened = self.loosened.lock();
            let left = loosened.merges_left;
            loosened.merges_left = left.saturating_sub(1);
            left
        };
        let merged = match left {
            0 => return Ok(false),
            MERGES_MAX if self.drained() < self.newest() => self.drain_now().map(|()| true),
            _ => self.compact_for_space(),
        };
        match merged {
            // Where there is no room, a search for space does it.
            Err(error) if error.kind == Kind::NoSpace => Ok(false),
            other => other,
        }
    }

    /// The same for what thinning has let go of: one table. False: none is due.
    pub fn thin_step(&self) -> Result<bool> {
        if !self.ends_are_durable() || !self.thinned.0.swap(false, Ordering::AcqRel) {
            return Ok(false);
        }
        let _alone = self.maintenance.lock();
        let points: Arc<Points> = self.merge_points();
        let levels = self.tree.snapshot();
        let chosen = {
            let mut loosened = self.loosened.lock();
            // Of a table that was there before this start nothing is known.
            let unknown = if std::mem::replace(&mut loosened.started, true) { None } else { Some(usize::MAX) };
            let known = std::mem::take(&mut loosened.dense);
            let of = |desc: &TableDesc| {
                let now = density(desc, &points);
                (desc.id, known.get(&desc.id).copied().or(unknown).unwrap_or(now))
            };
            loosened.dense = levels.then.iter().map(|table| of(&table.desc)).collect();
            let dense = &loosened.dense;
            let due = |desc: &TableDesc| {
                let (now, before) = (density(desc, &points), dense[&desc.id]);
                now < before && now * 2 <= before
            };
            chosen(&levels, 1, due)
        };
        let Some(table) = chosen.first() else { return Ok(false) };
        self.thinned.note();
        let now = levels.then.iter().find(|other| other.desc.id == *table).map_or(0, |table| density(&table.desc, &points));
        self.rewrite(&points, &chosen, Some(THINNED_SHARE))?;
        self.loosened.lock().dense.insert(*table, now);
        Ok(true)
    }

    /// The caller is alone.
    fn rewrite(&self, points: &Points, tables: &[TableId], share: Option<u64>) -> Result<()> {
        let edit = self.tree.loosen(points, Looseness { tables, share })?;
        if edit.is_empty() {
            return Ok(());
        }
        self.publish_expired(edit)
    }
}

/// The first tables of THEN that are due.
fn chosen(levels: &Levels, most: usize, due: impl Fn(&TableDesc) -> bool) -> Vec<TableId> {
    levels.then.iter().filter(|table| due(&table.desc)).take(most).map(|table| table.desc.id).collect()
}
