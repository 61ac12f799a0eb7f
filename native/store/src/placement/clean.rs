//! Cleaning: what is still named in egroups that are partly dead moves to fresh ones, and their slots are free again. No
//! file metadata changes: the old name's record says where its pages lie now (STORE.md 10).
//!
//! Invariants:
//! - Depth is 1: a target of moves is never itself "moved"; cleaning it re-points its sources.
//! - The pages of a part stay in the order of their source and in one row, so that a bitmap and one base describe them.
//! - A page is copied only when it is known to be right: by the footer's checksum, by that of its frame, or (payload of
//!   another RF class, whose checksums lie in the frames of another segment) because all copies agree.
//! - A step frees more slots than it fills, so cleaning comes to an end.

mod moves;
mod packing;
mod pages;
mod sparse;

use super::egroups::Sealed;
use super::publish::Change;
use super::report::count;
use super::{Draw, Pool};
use crate::error::{Kind, Result};
use crate::metadata::io::PageName;
use holdfast_format::{EgroupId, Protection};
use holdfast_format::egroup::{Birth, EgroupRecord, EgroupState};
use holdfast_format::limits::{
    BLOCK_BYTES, CLEAN_BYTES_MAX, CLEAN_DEAD_PERCENT, CLEAN_DEAD_PERCENT_SHORT, CLEAN_SCAN_RECORDS, CLEAN_VICTIMS_MAX,
};
use packing::{Row, pack, rows_of};
use pages::LivePages;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

/// Below this share of the pool free, room counts as short.
const FREE_SHARE_SHORT: u64 = 8;
/// Part of the free slots that one step fills at most, before it frees others.
pub(super) const FREE_SLOTS_DIVISOR: usize = 2;
/// Manifest writes after which a freed slot is free, and the part of the free slots from which on it is worth making them.
const MANIFEST_WRITES_TO_REUSE: usize = 2;
const PENDING_SHARE_HIGH: u32 = 8;
/// Targets that are written at once: with two copies each as many writes as one submission takes.
const WRITE_AT_ONCE: usize = 4;
/// How much less an egroup that history empties by itself is worth cleaning.
const PAST_DISCOUNT: f64 = 4.0;

/// How long a page will be named, as far as the trees know: pages of one class go together. From "soonest forgotten" up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outlook {
    /// Only history names it. 0: of the oldest part of the kept points.
    Past(u8),
    /// The present names it, or nothing is known.
    Present,
}

/// Parts of the kept points that cleaning tells apart.
pub const PAST_CLASSES: u8 = 4;

/// What the groups' trees say about pages, by the name that records use and the birth name. A hint: it decides what goes
/// together, never what is kept.
pub trait Forecast {
    fn outlook(&self, pages: &[(PageName, Birth)]) -> Result<Vec<Outlook>>;
}

/// Nothing is known.
pub struct NoForecast;

impl Forecast for NoForecast {
    fn outlook(&self, pages: &[(PageName, Birth)]) -> Result<Vec<Outlook>> {
        Ok(vec![Outlook::Present; pages.len()])
    }
}

#[derive(Clone)]
pub(super) struct Victim {
    id: EgroupId,
    record: EgroupRecord,
}

/// What one step leaves for the next.
#[derive(Default)]
pub(super) struct Cleaning {
    /// Where the next look begins.
    cursor: EgroupId,
    /// Tried in vain since cleaning last came to its end.
    skipped: BTreeSet<EgroupId>,
}

impl Pool {
    /// As [`Pool::clean_step_with`], without knowledge of how long pages will live.
    pub fn clean_step(&self) -> Result<bool> {
        self.clean_step_with(&NoForecast)
    }

    /// Frees what is empty, or moves what is left in a few partly dead egroups together. False when nothing is worth doing.
    pub fn clean_step_with(&self, forecast: &dyn Forecast) -> Result<bool> {
        self.check_open()?;
        let mut cleaning = self.cleaning.lock();
        if self.free_step()? {
            return Ok(true);
        }
        // All records were looked at once the cursor has come to the end twice, or once from the start.
        let mut ends_left = 2 - (cleaning.cursor == EgroupId(0)) as u8;
        loop {
            let found = self.look_for_victims(&mut cleaning)?;
            if !found.is_empty() {
                self.settle_pending()?;
            }
            let victims = self.batch(found);
            ends_left -= (cleaning.cursor == EgroupId(0)) as u8;
            if !victims.is_empty() {
                if !self.clean(&victims, forecast)? {
                    cleaning.skipped.extend(victims.iter().map(|victim| victim.id));
                }
                return Ok(true);
            }
            if ends_left == 0 {
                cleaning.skipped.clear();
                return Ok(false);
            }
        }
    }

    /// What the steps before freed makes room for this one: a step that may fill few slots gains little or nothing. Freed
    /// slots wait for two manifest writes, which may be long in coming when writers wait for room.
    fn settle_pending(&self) -> Result<()> {
        for _ in 0..MANIFEST_WRITES_TO_REUSE {
            let oldest_hold = self.oldest_hold();
            let accepting = self.disks.iter().filter(|disk| disk.accepts());
            let (free, ripening) = accepting.fold((0, 0), |(free, ripening), disk| {
                (free + disk.free_slots(), ripening + disk.pending_before(oldest_hold))
            });
            if ripening * PENDING_SHARE_HIGH <= free {
                break;
            }
            self.publish_nothing()?;
        }
        Ok(())
    }

    /// Frees emptied egroups; true when some went.
    fn free_step(&self) -> Result<bool> {
        let mut journal = self.journal.lock();
        let mut change = Change::new(self);
        change.free_emptied()?;
        if change.egroups_freed == 0 {
            return Ok(false);
        }
        self.commit(&mut journal, change, &|| {})?;
        Ok(true)
    }

    /// The best of the next records, best first: the most room for the least copying, the older the better, since what has
    /// lived long lives on (cost-benefit, Rosenblum and Ousterhout 1991). An age counts up to one turnover of the pool.
    fn look_for_victims(&self, cleaning: &mut Cleaning) -> Result<Vec<Victim>> {
        let space = self.space();
        let short = space.free < space.total / FREE_SHARE_SHORT;
        let dead_percent = if short { CLEAN_DEAD_PERCENT_SHORT } else { CLEAN_DEAD_PERCENT };
        let newest = self.next_egroup.load(Ordering::Acquire);
        let turnover = (space.total / self.slot_bytes as u64).max(1) as f64;
        let slot_pages = self.slot_bytes as usize / BLOCK_BYTES;
        let mut found: Vec<(f64, Victim)> = Vec::new();
        let (mut seen, mut last) = (0, EgroupId(0));
        self.scan_egroups(cleaning.cursor, &mut |id, record| {
            (seen, last) = (seen + 1, id);
            let live = record.live.len();
            let dead = slot_pages - live.min(slot_pages);
            let worth = live > 0 && dead * 100 >= slot_pages * dead_percent;
            let stays = self.is_kept(id) || self.is_pinned(id, &record) || cleaning.skipped.contains(&id);
            if record.state == EgroupState::Data && worth && !stays {
                let share = dead as f64 / slot_pages as f64;
                let age = (newest.saturating_sub(id.0) as f64).clamp(1.0, turnover);
                let score = share / (2.0 - share) * age / if record.past { PAST_DISCOUNT } else { 1.0 };
                found.push((score, Victim { id, record }));
            }
            Ok(seen < CLEAN_SCAN_RECORDS)
        })?;
        cleaning.cursor = if seen < CLEAN_SCAN_RECORDS { EgroupId(0) } else { EgroupId(last.0 + 1) };
        found.sort_by(|left, right| right.0.total_cmp(&left.0));
        Ok(found.into_iter().map(|(_, victim)| victim).collect())
    }

    /// The first victims, all of one protection, whose pages fill whole egroups best; none when they would free nothing.
    fn batch(&self, found: Vec<Victim>) -> Vec<Victim> {
        let capacity = self.egroup_pages_max();
        let Some(kind) = found.first().map(|victim| victim.record.protection()) else { return Vec::new() };
        // Short of room, small steps: the targets are there before the victims go.
        let free = self.disks.iter().filter(|disk| disk.accepts()).map(|disk| disk.free_slots() as usize).sum::<usize>();
        let targets_max = (free / kind.rf as usize / FREE_SLOTS_DIVISOR).max(1);
        let pages_max = (CLEAN_BYTES_MAX / BLOCK_BYTES).max(2 * capacity).min(targets_max * capacity);
        let mut batch: Vec<Victim> = Vec::new();
        let (mut pages, mut best, mut best_fill) = (0, 0, 0.0);
        for victim in found.into_iter().filter(|victim| victim.record.protection() == kind).take(CLEAN_VICTIMS_MAX) {
            pages += victim.record.live.len();
            if pages > pages_max && batch.len() > 1 {
                break;
            }
            batch.push(victim);
            let targets = pages.div_ceil(capacity);
            // The larger the batch, the less of it lies beside pages of another class.
            let fill = pages as f64 / (targets as f64 + 0.25);
            if targets < batch.len() && fill >= best_fill {
                (best, best_fill) = (batch.len(), fill);
            }
        }
        batch.truncate(best);
        batch
    }

    /// Crash order:
    /// 1. the targets are written, durable, a few at a time; a crash leaves slots that nothing names;
    /// 2. one edit says where the pages of every source lie now, and frees the victims' slots.
    ///
    /// Readers that found the old place hold it.
    /// False when nothing was gained: these victims are not worth trying again soon.
    fn clean(&self, victims: &[Victim], forecast: &dyn Forecast) -> Result<bool> {
        let (pages, flags) = self.live_pages(victims)?;
        let right: Vec<&Victim> = victims.iter().zip(flags).filter(|(_, right)| *right).map(|(it, _)| it).collect();
        count(&self.counters.cleans_skipped, (victims.len() - right.len()) as u64);
        let names: Vec<(PageName, Birth)> = pages.list.iter().map(|page| (page.name, page.birth)).collect();
        let outlooks = forecast.outlook(&names)?;
        let rows = rows_of(&pages.list, &outlooks, &|source| self.kept_parts(source, &right))?;
        let packed = pack(rows, self.egroup_pages_max());
        if packed.len() >= right.len() {
            // Too few could be read, or holes in the packing ate the gain.
            return Ok(false);
        }
        let targets = match self.write_targets(victims[0].record.protection(), &packed, &pages) {
            // What the step would free cannot be used to write it.
            Err(error) if error.kind == Kind::NoSpace => return Ok(false),
            other => other?,
        };
        let published = self.publish_moves(&right, &packed, &targets, &pages.list);
        if !matches!(published, Ok(true)) {
            targets.iter().for_each(|target| self.discard_egroup(*target));
        }
        if !published? {
            return Ok(false);
        }
        count(&self.counters.egroups_cleaned, right.len() as u64);
        count(&self.counters.pages_moved, pages.list.len() as u64);
        let past = outlooks.iter().filter(|outlook| **outlook != Outlook::Present).count();
        count(&self.counters.pages_moved_past, past as u64);
        Ok(right.len() == victims.len())
    }

    /// On an error nothing was written.
    fn write_targets(&self, kind: Protection, packed: &[Vec<Row>], pages: &LivePages) -> Result<Vec<EgroupId>> {
        let mut targets = Vec::with_capacity(packed.len());
        for some in packed.chunks(WRITE_AT_ONCE) {
            let members = |rows: &[Row]| rows.iter().flat_map(|row| &row.pages).copied().collect::<Vec<usize>>();
            let sealed = some.iter().map(|rows| {
                let members = members(rows);
                let birth = |at: &usize| (pages.list[*at].birth, pages.list[*at].checksum);
                let births = members.iter().map(birth).collect();
                Sealed { pages: pages.slices(members.into_iter()), births }
            });
            match self.write_summed(kind, sealed.collect(), Draw::Upkeep) {
                Ok((written, bytes)) => {
                    count(&self.counters.bytes_cleaned, bytes);
                    targets.extend(written);
                }
                Err(error) => {
                    targets.iter().for_each(|target| self.discard_egroup(*target));
                    return Err(error);
                }
            }
        }
        Ok(targets)
    }
}
