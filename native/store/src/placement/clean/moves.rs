//! The edit of a cleaning: records of sources say where their pages lie now.

use super::packing::Row;
use super::pages::LivePage;
use super::{Outlook, Victim};
use crate::error::Result;
use crate::placement::Pool;
use crate::placement::publish::Change;
use holdfast_format::EgroupId;
use holdfast_format::egroup::{EgroupState, MovedPart};
use std::collections::{BTreeMap, BTreeSet};

/// New parts of every source.
type Placed = BTreeMap<EgroupId, Vec<MovedPart>>;

impl Pool {
    /// Parts of a source that stay where they are when these victims go.
    pub(super) fn kept_parts(&self, source: EgroupId, victims: &[&Victim]) -> Result<usize> {
        let Some(record) = self.egroup(source)? else { return Ok(0) };
        let stays = |part: &&MovedPart| victims.iter().all(|victim| victim.id != part.target);
        Ok(record.parts.iter().filter(stays).count())
    }

    /// False when a page came alive or was pinned meanwhile, a victim changed its place, or more copies were asked for: then
    /// nothing happens.
    pub(super) fn publish_moves(
        &self,
        victims: &[&Victim],
        packed: &[Vec<Row>],
        targets: &[EgroupId],
        pages: &[LivePage],
    ) -> Result<bool> {
        let mut placed = Placed::new();
        for (target, rows) in targets.iter().zip(packed) {
            let mut base = 0;
            for row in rows {
                let moved = row.pages.iter().map(|at| pages[*at].name.1).collect();
                placed.entry(row.source).or_default().push(MovedPart { target: *target, base, moved });
                base += row.pages.len() as u16;
            }
        }
        let mut journal = self.journal.lock();
        let mut change = Change::new(self);
        let mut sources: BTreeSet<EgroupId> = placed.keys().copied().collect();
        for victim in victims {
            let Some(now) = change.egroup(victim.id)?.map(|record| record.clone()) else { return Ok(false) };
            let same = now.state == EgroupState::Data
                && now.copies == victim.record.copies
                && now.protection() == victim.record.protection();
            if !same || !now.live.is_within(&victim.record.live) || self.is_pinned(victim.id, &now) {
                return Ok(false);
            }
            sources.extend(&now.sources);
            change.freed.extend(&now.copies);
        }
        let gone: BTreeSet<EgroupId> = victims.iter().map(|victim| victim.id).collect();
        let fallback = targets.first().copied();
        for source in sources {
            change.repoint(source, &gone, placed.remove(&source).unwrap_or_default(), fallback)?;
        }
        for victim in victims.iter().filter(|victim| !victim.record.sources.is_empty()) {
            change.egroups.insert(victim.id, None);
        }
        for (target, rows) in targets.iter().zip(packed) {
            let past = |row: &&Row| row.outlook != Outlook::Present;
            let pages_past: usize = rows.iter().filter(past).map(|row| row.pages.len()).sum();
            let pages_all: usize = rows.iter().map(|row| row.pages.len()).sum();
            if let Some(record) = change.egroup(*target)? {
                record.past = pages_past * 2 > pages_all;
                if record.live.is_empty() {
                    change.emptied.push(*target);
                }
            }
        }
        self.commit(&mut journal, change, &|| {})?;
        Ok(true)
    }
}

impl Change<'_> {
    /// From now on the pages of `source` that lay in victims lie where `parts` says. A source that is named no more
    /// keeps one empty part, in `fallback`, until it is freed.
    fn repoint(
        &mut self,
        source: EgroupId,
        gone: &BTreeSet<EgroupId>,
        mut parts: Vec<MovedPart>,
        fallback: Option<EgroupId>,
    ) -> Result<()> {
        let Some(record) = self.egroup(source)? else { return Ok(()) };
        if record.state != EgroupState::Moved {
            record.state = EgroupState::Moved;
            record.copies = Vec::new();
        }
        parts.retain(|part| part.moved.iter().any(|page| record.live.contains(page)));
        record.parts.retain(|part| !gone.contains(&part.target));
        if record.parts.is_empty() && parts.is_empty() {
            parts.extend(fallback.map(|target| MovedPart { target, base: 0, moved: Default::default() }));
        }
        record.parts.extend(parts.iter().cloned());
        let live = record.live.clone();
        if live.is_empty() {
            self.emptied.push(source);
        }
        for part in parts {
            let Some(target) = self.egroup(part.target)? else { continue };
            let alive = (part.base..).zip(part.moved.iter()).filter(|(_, page)| live.contains(*page));
            alive.for_each(|(at, _)| target.live.insert(at));
            if !target.sources.contains(&source) {
                target.sources.push(source);
            }
        }
        Ok(())
    }
}
