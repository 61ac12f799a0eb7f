//! The kept points of a group, in memory: seconds ("ticks"), snapshots, pins. The records lie in the group's trees.
//!
//! Invariants
//! - Points are ordered by LSN. Their wall times may repeat or go back; how long ago a point was is measured on a timeline of
//!   its own, which follows the time since boot, so that a clock that is set makes nothing older or younger.
//! - A tick is the state of all moments from its own to the next tick's. So it goes by what its *next* one is old: while any
//!   moment of the window shows it, it stays, however long ago it was made.
//! - Thinning never leaves a wider gap than its step allows: of three ticks in a row the middle one goes only when the outer
//!   two are no further apart than that.

use super::retention::{NEVER_NS, Zone};
use crate::metadata::io::Points;
use holdfast_format::inode::Time;
use holdfast_format::limits::TICKS_MAX;
use holdfast_format::point::{PointKind, PointRecord};
use holdfast_format::replica::Origin;
use holdfast_format::{Lsn, limits};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// Between two boots the wall clock says how much time has passed, but not more than this: it may be wrong, and what was
/// promised must not go for it.
const BETWEEN_BOOTS_NS_MAX: u64 = 86_400_000_000_000;

/// When a point was made.
#[derive(Clone, Copy, Debug)]
struct Kept {
    wall: Time,
    boottime_ns: u64,
    /// In `boots`.
    boot: u32,
    /// Place on the table's timeline.
    at_ns: u64,
    origin: Option<Origin>,
}

#[derive(Clone, Debug)]
struct Named {
    kept: Kept,
    held: bool,
    name: String,
}

/// A kept point, for those who ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PointInfo {
    pub lsn: Lsn,
    pub kind: PointKind,
    pub held: bool,
    pub wall: Time,
    /// Empty: a tick.
    pub name: String,
    /// Of a replica: its owner's recovery point.
    pub origin: Option<Origin>,
}

/// Which point is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum When {
    /// The newest at or before this wall time.
    Time(Time),
    /// The newest at or before this op.
    Lsn(Lsn),
    /// The snapshot of this name.
    Name(String),
}

/// A moment by the three clocks that a point keeps.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub wall: Time,
    pub boottime_ns: u64,
    pub boot_id: [u8; 16],
}

/// Ticks that may go, and how far each zone is gone through when they have.
#[derive(Default)]
pub(super) struct Superfluous {
    pub lsns: Vec<Lsn>,
    passed: Vec<Lsn>,
}

#[derive(Default)]
pub struct PointTable {
    ticks: BTreeMap<Lsn, Kept>,
    named: BTreeMap<Lsn, Named>,
    names: BTreeMap<String, Lsn>,
    /// Points whose end is in the ring only, with the op that ended them: a power cut brings them back, and what they saw
    /// must be there then.
    ending: BTreeMap<Lsn, Lsn>,
    /// LSNs that are kept for a clone or a mount, whether or not they are points any more, and how often.
    pins: BTreeMap<Lsn, u32>,
    boots: Vec<[u8; 16]>,
    /// A wall time of a point is before that of an older one.
    went_back: bool,
    /// Newest tick that each zone of thinning was asked about.
    passed: Vec<Lsn>,
    /// All LSNs that versions are kept for.
    sorted: Option<Arc<Points>>,
}

fn nanoseconds(time: Time) -> i128 {
    time.sec as i128 * 1_000_000_000 + i128::from(time.nsec)
}

impl PointTable {
    pub fn insert(&mut self, lsn: Lsn, record: &PointRecord) {
        let moment = Moment { wall: record.wall, boottime_ns: record.boottime_ns, boot_id: record.boot_id };
        let newest = self.newest();
        let known = self.ticks.remove(&lsn).or_else(|| self.forget_named(lsn));
        let at_ns = known.map_or_else(|| self.place_of(&moment), |kept| kept.at_ns);
        if known.is_none() && newest.is_some_and(|(_, newest)| record.wall < newest.wall) {
            self.went_back = true;
        }
        let boot = self.boots.iter().position(|boot| *boot == record.boot_id).unwrap_or_else(|| {
            self.boots.push(record.boot_id);
            self.boots.len() - 1
        });
        let kept = Kept { wall: record.wall, boottime_ns: record.boottime_ns, boot: boot as u32, at_ns, origin: record.origin };
        if record.kind == PointKind::Tick {
            self.ticks.insert(lsn, kept);
        } else {
            self.names.insert(record.name.clone(), lsn);
            self.named.insert(lsn, Named { kept, held: record.held, name: record.name.clone() });
        }
        self.sorted = None;
    }

    fn forget_named(&mut self, lsn: Lsn) -> Option<Kept> {
        let named = self.named.remove(&lsn)?;
        self.names.remove(&named.name);
        Some(named.kept)
    }

    /// Ended by an op.
    pub(super) fn remove(&mut self, lsns: &[Lsn], op: Lsn) {
        for lsn in lsns {
            if self.ticks.remove(lsn).is_none() {
                self.forget_named(*lsn);
            }
        }
        self.ending.extend(lsns.iter().map(|lsn| (*lsn, op)));
        self.sorted = None;
    }

    /// Lets go of points whose end is durable. False: that of some is not yet.
    pub(super) fn settle(&mut self, durable: Lsn) -> bool {
        let before = self.ending.len();
        self.ending.retain(|_, op| *op > durable);
        if self.ending.len() != before {
            self.sorted = None;
        }
        self.ending.is_empty()
    }

    /// What merges keep versions for: a point goes when its end is durable.
    pub fn points(&mut self, durable: Lsn) -> Arc<Points> {
        self.settle(durable);
        let (ticks, named, ending, pins) = (&self.ticks, &self.named, &self.ending, &self.pins);
        let merged = || {
            let mut lsns = Vec::with_capacity(ticks.len() + named.len() + ending.len() + pins.len());
            lsns.extend(ticks.keys().chain(named.keys()).chain(ending.keys()).chain(pins.keys()).copied());
            lsns.sort();
            lsns.dedup();
            Arc::new(Points::from_sorted(lsns))
        };
        self.sorted.get_or_insert_with(merged).clone()
    }

    /// False when nothing keeps this LSN: what it saw may be gone.
    pub(super) fn pin(&mut self, lsn: Lsn) -> bool {
        let kept = self.keeps(lsn);
        if kept {
            self.pin_again(lsn);
        }
        kept
    }

    /// At open, of what the manifest says: it has been kept all the time.
    pub(super) fn pin_again(&mut self, lsn: Lsn) {
        *self.pins.entry(lsn).or_default() += 1;
        self.sorted = None;
    }

    /// True when nobody keeps this LSN any more.
    pub(super) fn unpin(&mut self, lsn: Lsn) -> bool {
        let Some(count) = self.pins.get_mut(&lsn) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        self.pins.remove(&lsn);
        self.sorted = None;
        !self.keeps(lsn)
    }

    /// Whether what this LSN saw is still there.
    pub(super) fn keeps(&self, lsn: Lsn) -> bool {
        self.ticks.contains_key(&lsn) || self.named.contains_key(&lsn) || self.pins.contains_key(&lsn)
    }

    pub(super) fn is_pinned(&self, lsn: Lsn) -> bool {
        self.pins.contains_key(&lsn)
    }

    /// Whether more than one thing keeps this LSN: a snapshot, clones, mounts. Then none of them holds anything alone.
    pub(super) fn is_kept_twice(&self, lsn: Lsn) -> bool {
        let names = u32::from(self.ticks.contains_key(&lsn) || self.named.contains_key(&lsn));
        names + self.pins.get(&lsn).copied().unwrap_or(0) > 1
    }

    pub(super) fn ticks_len(&self) -> usize {
        self.ticks.len()
    }

    pub(super) fn named_len(&self) -> usize {
        self.named.len()
    }

    fn tick_info(lsn: Lsn, kept: &Kept) -> PointInfo {
        PointInfo { lsn, kind: PointKind::Tick, held: false, wall: kept.wall, name: String::new(), origin: kept.origin }
    }

    fn named_info(lsn: Lsn, named: &Named) -> PointInfo {
        let (kind, wall) = (PointKind::Named, named.kept.wall);
        PointInfo { lsn, kind, held: named.held, wall, name: named.name.clone(), origin: named.kept.origin }
    }

    pub(super) fn info(&self, lsn: Lsn) -> Option<PointInfo> {
        let tick = || self.ticks.get(&lsn).map(|kept| Self::tick_info(lsn, kept));
        self.named.get(&lsn).map(|named| Self::named_info(lsn, named)).or_else(tick)
    }

    /// The newest point that is another site's.
    pub(super) fn newest_of_origin(&self) -> Option<Lsn> {
        let tick = self.ticks.iter().rfind(|(_, kept)| kept.origin.is_some()).map(|(lsn, _)| *lsn);
        let named = self.named.iter().rfind(|(_, named)| named.kept.origin.is_some()).map(|(lsn, _)| *lsn);
        tick.max(named)
    }

    /// The point that is this one of another site.
    pub(super) fn of_origin(&self, origin: Origin) -> Option<Lsn> {
        let tick = self.ticks.iter().rfind(|(_, kept)| kept.origin == Some(origin)).map(|(lsn, _)| *lsn);
        let named = self.named.iter().rfind(|(_, named)| named.kept.origin == Some(origin)).map(|(lsn, _)| *lsn);
        tick.max(named)
    }

    /// The newest point of another site's lineage, at or before that LSN of it: which one that is, and the LSN here.
    pub(super) fn last_of_origin(&self, until: Origin) -> Option<(Lsn, Lsn)> {
        let ticks = self.ticks.iter().map(|(lsn, kept)| (kept.origin, *lsn));
        let named = self.named.iter().map(|(lsn, named)| (named.kept.origin, *lsn));
        let known = ticks.chain(named).filter_map(|(origin, lsn)| origin.map(|origin| (origin, lsn)));
        let found = known.filter(|(origin, _)| origin.lineage == until.lineage && origin.lsn <= until.lsn);
        found.max().map(|(origin, lsn)| (origin.lsn, lsn))
    }

    pub(super) fn named(&self, name: &str) -> Option<PointInfo> {
        self.info(*self.names.get(name)?)
    }

    /// The record of a point as the tree has it, to be changed.
    pub(super) fn record(&self, lsn: Lsn) -> Option<PointRecord> {
        let named = self.named.get(&lsn);
        let kept = named.map(|named| &named.kept).or_else(|| self.ticks.get(&lsn))?;
        Some(PointRecord {
            kind: if named.is_some() { PointKind::Named } else { PointKind::Tick },
            held: named.is_some_and(|named| named.held),
            wall: kept.wall,
            boottime_ns: kept.boottime_ns,
            boot_id: self.boots[kept.boot as usize],
            name: named.map(|named| named.name.clone()).unwrap_or_default(),
            origin: kept.origin,
        })
    }

    /// Snapshots after an LSN, oldest first.
    pub(super) fn snapshots(&self, after: Lsn, limit: usize) -> Vec<PointInfo> {
        let later = self.named.range((Bound::Excluded(after), Bound::Unbounded));
        later.take(limit).map(|(lsn, named)| Self::named_info(*lsn, named)).collect()
    }

    /// Points after an LSN, ticks too, oldest first.
    pub(super) fn all(&self, after: Lsn, limit: usize) -> Vec<PointInfo> {
        let later = (Bound::Excluded(after), Bound::Unbounded);
        let mut ticks = self.ticks.range(later).peekable();
        let mut named = self.named.range(later).peekable();
        let mut found = Vec::new();
        while found.len() < limit {
            let tick_first = match (ticks.peek(), named.peek()) {
                (Some((tick, _)), Some((named, _))) => tick < named,
                (tick, _) => tick.is_some(),
            };
            let next = if tick_first {
                ticks.next().map(|(lsn, kept)| Self::tick_info(*lsn, kept))
            } else {
                named.next().map(|(lsn, named)| Self::named_info(*lsn, named))
            };
            match next {
                Some(next) => found.push(next),
                None => break,
            }
        }
        found
    }

    /// The newest point, in LSN order, at or before an LSN.
    fn newest_up_to(&self, lsn: Lsn) -> Option<(Lsn, Kept)> {
        let tick = self.ticks.range(..=lsn).next_back().map(|(lsn, kept)| (*lsn, *kept));
        let named = self.named.range(..=lsn).next_back().map(|(lsn, named)| (*lsn, named.kept));
        tick.into_iter().chain(named).max_by_key(|(lsn, _)| *lsn)
    }

    fn newest(&self) -> Option<(Lsn, Kept)> {
        self.newest_up_to(Lsn(u64::MAX))
    }

    /// The newest point, in LSN order, whose clock showed at most `time`. By halving where the clock never went back.
    fn newest_by_wall(&self, time: Time) -> Option<Lsn> {
        if self.went_back {
            let tick = self.ticks.iter().rfind(|(_, kept)| kept.wall <= time).map(|(lsn, _)| *lsn);
            let named = self.named.iter().rfind(|(_, named)| named.kept.wall <= time).map(|(lsn, _)| *lsn);
            return tick.max(named);
        }
        let is_early = |lsn: u64| self.newest_up_to(Lsn(lsn)).is_none_or(|(_, kept)| kept.wall <= time);
        let (mut low, mut high) = (0, self.newest()?.0.0);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if is_early(middle) { low = middle } else { high = middle - 1 }
        }
        self.newest_up_to(Lsn(low)).map(|(lsn, _)| lsn)
    }

    /// The newest point at or before a moment.
    pub(super) fn newest_by(&self, when: &When) -> Option<PointInfo> {
        match when {
            When::Name(name) => self.named(name),
            When::Lsn(lsn) => self.info(self.newest_up_to(*lsn)?.0),
            When::Time(time) => self.info(self.newest_by_wall(*time)?),
        }
    }

    pub(super) fn newest_lsn(&self) -> Lsn {
        self.newest().map_or(Lsn(0), |(lsn, _)| lsn)
    }

    pub(super) fn newest_wall(&self) -> Option<Time> {
        self.newest().map(|(_, kept)| kept.wall)
    }

    /// First and last point.
    pub(super) fn window(&self) -> Option<(PointInfo, PointInfo)> {
        let first = self.ticks.keys().next().into_iter().chain(self.named.keys().next()).min()?;
        Some((self.info(*first)?, self.info(self.newest()?.0)?))
    }

    /// Where a moment after the newest point lies on the timeline.
    pub(super) fn place_of(&self, moment: &Moment) -> u64 {
        let Some((_, newest)) = self.newest() else { return 0 };
        let passed = if self.boots[newest.boot as usize] == moment.boot_id {
            moment.boottime_ns.saturating_sub(newest.boottime_ns)
        } else {
            let passed = nanoseconds(moment.wall) - nanoseconds(newest.wall);
            passed.clamp(0, i128::from(BETWEEN_BOOTS_NS_MAX)) as u64
        };
        newest.at_ns.saturating_add(passed)
    }

    /// Place on the timeline of the oldest tick.
    pub(super) fn oldest_tick_ns(&self) -> Option<u64> {
        self.ticks.values().next().map(|kept| kept.at_ns)
    }

    /// The newest tick at or before a place on the timeline.
    pub(super) fn tick_at_ns(&self, place_ns: u64) -> Option<Lsn> {
        self.ticks.iter().rfind(|(_, kept)| kept.at_ns <= place_ns).map(|(lsn, _)| *lsn)
    }

    /// Where on the timeline the states end that a tick stands for: at the next one.
    pub(super) fn end_of_tick_ns(&self, lsn: Lsn) -> Option<u64> {
        self.ticks.range((Bound::Excluded(lsn), Bound::Unbounded)).next().map(|(_, kept)| kept.at_ns)
    }

    /// What is kept was changed: everything is asked about again.
    pub(super) fn ask_again(&mut self) {
        self.passed.clear();
    }

    /// Ticks that no zone asks for, oldest first; about `most` at a time. Each tick is asked about once a zone.
    pub(super) fn superfluous(&self, zones: &[Zone], now_ns: u64, most: usize) -> Superfluous {
        let mut going = BTreeSet::new();
        let mut passed = vec![Lsn(0); zones.len()];
        passed[..self.passed.len().min(zones.len())].copy_from_slice(&self.passed[..self.passed.len().min(zones.len())]);
        // The coarsest first: it looks at the oldest.
        for (zone, passed) in zones.iter().zip(&mut passed).rev() {
            self.pass(zone, passed, now_ns, (&mut going, most));
        }
        let over = (self.ticks.len() - going.len()).saturating_sub(TICKS_MAX);
        if over > 0 {
            let more: Vec<Lsn> = self.ticks.keys().filter(|lsn| !going.contains(lsn)).take(over.min(most)).copied().collect();
            going.extend(more);
        }
        Superfluous { lsns: going.into_iter().collect(), passed }
    }

    fn pass(&self, zone: &Zone, passed: &mut Lsn, now_ns: u64, (going, most): (&mut BTreeSet<Lsn>, usize)) {
        let mut earlier = self.ticks.range(..=*passed).rev().filter(|(lsn, _)| !going.contains(lsn));
        let mut middle = earlier.next();
        let mut first = earlier.next();
        for (lsn, kept) in self.ticks.range((Bound::Excluded(*passed), Bound::Unbounded)) {
            if now_ns.saturating_sub(kept.at_ns) < zone.from_ns || going.len() >= most {
                break;
            }
            *passed = *lsn;
            if going.contains(lsn) {
                continue;
            }
            let near = first.is_some_and(|(_, first)| kept.at_ns - first.at_ns <= zone.every_ns);
            match middle {
                Some((between, _)) if near || zone.every_ns == NEVER_NS => {
                    going.insert(*between);
                }
                _ => first = middle,
            }
            middle = Some((lsn, kept));
        }
    }

    /// The superfluous ones have gone.
    pub(super) fn done(&mut self, superfluous: Superfluous) {
        self.passed = superfluous.passed;
    }

    /// LSNs that stay until somebody lets go of them.
    pub(super) fn lasting(&self) -> Vec<Lsn> {
        let mut lsns: Vec<Lsn> = self.named.keys().chain(self.pins.keys()).copied().collect();
        lsns.sort_unstable();
        lsns.dedup();
        lsns
    }

    pub(super) fn is_lasting_empty(&self) -> bool {
        self.named.is_empty() && self.pins.is_empty()
    }

    pub(super) fn oldest_ticks(&self, count: usize) -> Vec<Lsn> {
        self.ticks.keys().take(count).copied().collect()
    }

    pub(super) fn oldest(&self, count: usize) -> Vec<Lsn> {
        self.ticks.keys().chain(self.named.keys()).take(count).copied().collect()
    }
}

const _: () = assert!(limits::SNAPSHOTS_MAX + TICKS_MAX < u32::MAX as usize);

#[cfg(test)]
mod tests;
