//! Rebuild: whatever has fewer good copies than it should gets new ones on other drives, the most endangered first.
//!
//! Invariants:
//! - A copy counts only on a drive that is in use and is not being emptied. One on a drive that is missing is waited
//!   for ([`MISSING_GRACE_S`]); one on a drive that is out or stale is lost, and a source only when there is no other and a
//!   checksum above it accepts what it holds.
//! - A new copy is made of verified content, is durable before one manifest edit names it, and no file metadata
//!   changes. What is to be done follows from the manifest alone: after a crash it is found again.
//! - An open log segment is left alone: its group goes on in a fresh one, and the old one becomes an ordinary egroup
//!   by a drain ([`Pool::logs_degraded`]).

use super::Pool;
use super::copying::{Desk, Effort, Healed};
use super::heal_content::{Content, NamesOf};
use super::records::POOL_OWNER;
use super::health::Health;
use super::types::DriveCondition;
use crate::error::Result;
use holdfast_format::egroup::EgroupState;
use holdfast_format::limits::{COPIES_MAX, HEAL_REPORTS_MAX, HEAL_STEP_NS, HEAL_THINGS_PER_STEP, MISSING_GRACE_S};
use holdfast_format::manifest::{GroupRecord, Segment};
use holdfast_format::table::{SlotAddress, TableDesc};
use holdfast_format::{DomainLevel, EgroupId, GroupId, Protection, TableId};
use parking_lot::Mutex;
use std::collections::{BTreeSet, VecDeque};

const SECOND_NS: u64 = 1_000_000_000;
/// An incomplete pool is looked through again after this long: what could not be placed, what was published meanwhile.
const REPLAN_NS: u64 = 60 * SECOND_NS;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Thing {
    Table(GroupId, TableId),
    Egroup(EgroupId),
}

impl std::fmt::Display for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Table(group, id) if *group == POOL_OWNER => write!(f, "table {id} of the pool"),
            Self::Table(group, id) => write!(f, "table {id} of group {group}"),
            Self::Egroup(id) => write!(f, "egroup {id}"),
        }
    }
}

/// Ordered by what is left: one good copy comes before two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Task {
    copies_left: usize,
    thing: Thing,
    bytes: u64,
}

/// How far healing is. Nothing of it needs to survive.
#[derive(Default)]
pub(super) struct Healing {
    queue: VecDeque<Task>,
    /// What the newest look saw of the drives; `None`: look again.
    seen: Option<Vec<Standing>>,
    /// And when the queue was filled last.
    planned: Option<Vec<Standing>>,
    looked_ns: u64,
    /// Something was done since the newest look, or there is a reason to believe that more can be done now.
    progressed: bool,
    /// Since the queue was empty for the last time.
    started_ns: u64,
    progress: HealProgress,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// New copies may come here.
    Good,
    /// In use and counts, but new copies come here only when there are too few better drives.
    Slow,
    /// In use, to be emptied: it is to be removed, or failing.
    Draining,
    /// Not there, but waited for.
    Awaited,
    /// Not there for too long: its copies count again if it comes back.
    Gone,
    /// Nothing on it counts any more.
    GivenUp,
}

/// Rebuilding, as status shows it.
#[derive(Clone, Default, Debug)]
pub struct HealProgress {
    /// Slots' worth of content that still lacks copies.
    pub things_left: u64,
    pub bytes_left: u64,
    /// Since the work began.
    pub bytes_done: u64,
    /// At the pace so far; `None`: not known yet, or nothing to do.
    pub eta_s: Option<u64>,
    /// At risk now: of what lacks copies, the things with only one left, and their bytes.
    pub things_single: u64,
    pub bytes_single: u64,
    /// Things with no copy on any drive that is there.
    pub things_lost: u64,
    /// Things with copies that should be further apart.
    pub things_misplaced: u64,
    /// Bytes that are to move so that drives are filled evenly.
    pub bytes_unbalanced: u64,
    /// What cannot be healed, and why: at most `HEAL_REPORTS_MAX` sentences.
    pub stuck: Vec<String>,
}

impl Healing {
    /// A task leaves the queue.
    fn took(&mut self, task: &Task) {
        let progress = &mut self.progress;
        progress.things_left = self.queue.len() as u64;
        progress.bytes_left = progress.bytes_left.saturating_sub(task.bytes);
        if task.copies_left == 1 && task.bytes > 0 {
            progress.things_single = progress.things_single.saturating_sub(1);
            progress.bytes_single = progress.bytes_single.saturating_sub(task.bytes);
        }
    }

    fn report(&mut self, what: String) {
        if self.progress.stuck.len() < HEAL_REPORTS_MAX && !self.progress.stuck.contains(&what) {
            self.progress.stuck.push(what);
        }
    }
}

/// Whether a copy on such a drive is one of those that were promised.
pub(super) fn counts(standing: Standing) -> bool {
    matches!(standing, Standing::Good | Standing::Slow | Standing::Awaited)
}

/// Whether a log segment may go on there. One on a slow drive may, where there are too few others.
fn whole(copies: &[SlotAddress], rf: u8, standings: &[Standing], pool: &Pool) -> bool {
    let good = standings.iter().filter(|standing| **standing == Standing::Good).count();
    let stays = |copy: &SlotAddress| match standings[copy.drive as usize] {
        Standing::Good | Standing::Awaited => true,
        Standing::Slow => good < rf as usize,
        Standing::Draining | Standing::Gone | Standing::GivenUp => false,
    };
    copies.iter().all(stays) && pool.copies_wanted(copies, rf, standings) == 0
}

impl Pool {
    pub(super) fn standings(&self) -> Vec<Standing> {
        let waited_ns = self.clock.boottime_ns().saturating_sub(self.opened_ns);
        let given_up = self.drives_given_up();
        let standing = |disk: &super::disk::Disk| match disk.condition().0 {
            _ if given_up.contains(&disk.index) => Standing::GivenUp,
            DriveCondition::Active if !disk.accepts() => Standing::Draining,
            DriveCondition::Active => match disk.pulse.health() {
                Health::Good => Standing::Good,
                Health::Slow => Standing::Slow,
                Health::Failing => Standing::Draining,
            },
            DriveCondition::Missing if waited_ns < MISSING_GRACE_S * SECOND_NS => Standing::Awaited,
            DriveCondition::Missing => Standing::Gone,
            DriveCondition::Out | DriveCondition::Stale => Standing::GivenUp,
        };
        self.disks.iter().map(standing).collect()
    }

    /// Drives whose content no longer counts, be they here or not.
    fn drives_given_up(&self) -> BTreeSet<u16> {
        let image = self.image.read();
        image.drives.values().filter(|entry| entry.out).map(|entry| entry.index).collect()
    }

    /// Whether copies that should be apart share a domain, and one could go elsewhere. Copies that are waited for are as
    /// good as there.
    fn misplaced(&self, copies: &[SlotAddress], protection: Protection, standings: &[Standing]) -> bool {
        let counted: Vec<u16> =
            copies.iter().map(|copy| copy.drive).filter(|drive| counts(standings[*drive as usize])).collect();
        self.shares_domain(&counted, protection.domain)
            && self.domains(protection.domain) > self.domains_of(&counted, protection.domain)
    }

    /// Looks through the pool again with the next step.
    pub fn look_anew(&self) {
        let mut healing = self.healing.lock();
        (healing.seen, healing.progressed) = (None, true);
    }

    /// New copies that something with these copies needs, given its RF.
    fn copies_wanted(&self, copies: &[SlotAddress], rf: u8, standings: &[Standing]) -> usize {
        let takes = |standing: &&Standing| matches!(standing, Standing::Good | Standing::Slow);
        let takers = standings.iter().filter(takes).count();
        let counts = |copy: &&SlotAddress| counts(standings[copy.drive as usize]);
        (rf as usize).min(takers).saturating_sub(copies.iter().filter(counts).count())
    }

    /// Whether a log segment with these copies is as it should be: on as many drives as it can have, as far apart as the
    /// group's volumes ask, none of them lost or to be emptied.
    pub fn is_whole(&self, group: GroupId, copies: &[SlotAddress], rf: u8) -> bool {
        let (standings, domain) = (self.standings(), self.domain_of_group(group));
        whole(copies, rf, &standings, self) && !self.misplaced(copies, Protection { rf, domain }, &standings)
    }

    /// Whether a copy can go without a new one: it no longer counts, or its drive is emptied and there are others enough.
    fn superfluous(&self, copies: &[SlotAddress], rf: u8, standings: &[Standing]) -> bool {
        let of =
            |wanted: Standing| copies.iter().filter(|copy| standings[copy.drive as usize] == wanted).count();
        let good = of(Standing::Good) + of(Standing::Slow);
        good > 0 && of(Standing::GivenUp) > 0 || good >= rf as usize && of(Standing::Draining) > 0 || good > rf as usize
    }

    /// Groups whose log lies on a drive that was lost: they should flush and drain, so that it becomes ordinary data.
    pub fn logs_degraded(&self) -> BTreeSet<GroupId> {
        let standings = self.standings();
        let image = self.image.read();
        let degraded = |group: &GroupRecord, segment: &Segment| {
            let protection = Protection { rf: segment.rf, domain: self.domain_of_group(group.id) };
            !whole(&segment.copies, segment.rf, &standings, self)
                || self.misplaced(&segment.copies, protection, &standings)
        };
        let groups = image.groups.values().filter(|group| {
            !group.destroyed && group.segments.iter().any(|segment| degraded(group, segment))
        });
        groups.map(|group| group.id).collect()
    }

    pub fn heal_progress(&self) -> HealProgress {
        let healing = self.healing.lock();
        let mut progress = healing.progress.clone();
        progress.bytes_unbalanced = self.bytes_unbalanced.load(std::sync::atomic::Ordering::Relaxed);
        let elapsed_ns = self.clock.boottime_ns().saturating_sub(healing.started_ns).max(1);
        if progress.bytes_done > 0 && progress.bytes_left > 0 {
            let ns = progress.bytes_left as u128 * elapsed_ns as u128 / progress.bytes_done as u128;
            progress.eta_s = Some((ns / SECOND_NS as u128) as u64 + 1);
        }
        progress
    }

    /// Copies some things that lack copies; false when there is nothing (more) to do now. `names` is asked only where copies
    /// differ and nothing beside them says which is right. Others may look at the progress meanwhile.
    pub fn heal_step(&self, names: NamesOf<'_>, effort: Effort<'_>) -> Result<bool> {
        self.check_writable()?;
        let _one_at_a_time = self.healer.lock();
        {
            let mut healing = self.healing.lock();
            if healing.queue.is_empty() && !self.look(&mut healing)? {
                return Ok(false);
            }
        }
        let until_ns = self.clock.boottime_ns() + HEAL_STEP_NS;
        let budget = Mutex::new((effort.slots, HEAL_THINGS_PER_STEP));
        let take = || {
            let mut budget = budget.lock();
            let begun = budget.1 < HEAL_THINGS_PER_STEP;
            if begun && self.clock.boottime_ns() >= until_ns || budget.0 == 0 || budget.1 == 0 {
                return None;
            }
            let mut healing = self.healing.lock();
            let task = healing.queue.pop_front()?;
            healing.took(&task);
            *budget = (budget.0 - (task.bytes > 0) as usize, budget.1 - 1);
            Some(task)
        };
        let make = |task: Task, desk: &mut Desk<'_>| {
            let mut reports = Vec::new();
            let healed = self.heal_thing(task.thing, names, desk, &mut reports);
            let mut healing = self.healing.lock();
            reports.into_iter().for_each(|what| healing.report(what));
            match healed {
                Ok(healed) => {
                    healing.progress.bytes_done += healed.as_ref().map_or(0, |healed| healed.bytes);
                    healed
                }
                Err(error) => {
                    healing.report(format!("{}: {error}", task.thing));
                    None
                }
            }
        };
        let done = self.make_copies(effort, &take, &make)?;
        self.healing.lock().progressed |= done > 0;
        Ok(true)
    }

    /// Fills the queue, when the drives have changed since the last look or something was left undone then.
    fn look(&self, healing: &mut Healing) -> Result<bool> {
        let (standings, now) = (self.standings(), self.clock.boottime_ns());
        let incomplete = standings.iter().any(|standing| *standing != Standing::Good);
        let due = healing.seen.as_ref() != Some(&standings)
            || incomplete && now.saturating_sub(healing.looked_ns) >= REPLAN_NS;
        if !due {
            return Ok(false);
        }
        let mut tasks = Vec::new();
        let mut lost = 0;
        let mut misplaced = 0;
        let mut consider = |copies: &[SlotAddress], protection: Protection, bytes: u64, thing: Thing| {
            let copies_left = self.readable(copies).len();
            let wanted = self.copies_wanted(copies, protection.rf, &standings) as u64;
            if copies_left == 0 {
                lost += 1;
                if self.is_set_aside(copies) {
                    // A drive that no longer counts may still have what is right.
                    tasks.push(Task { copies_left, thing, bytes: bytes * wanted });
                }
            } else if wanted > 0 || self.superfluous(copies, protection.rf, &standings) {
                tasks.push(Task { copies_left, thing, bytes: bytes * wanted });
            } else {
                let drives: Vec<u16> = copies.iter().map(|copy| copy.drive).collect();
                misplaced += self.shares_domain(&drives, protection.domain) as u64;
                if self.misplaced(copies, protection, &standings) {
                    tasks.push(Task { copies_left: COPIES_MAX + copies_left, thing, bytes });
                }
            }
        };
        let of_tables = self.table_protection();
        let tables: Vec<TableDesc> =
            self.image.read().tables.values().flat_map(|tables| tables.values().cloned()).collect();
        for desc in tables {
            consider(&desc.copies, of_tables, desc.bytes as u64, Thing::Table(desc.owner, desc.id));
        }
        self.scan_egroups(EgroupId(0), &mut |id, record| {
            if record.state == EgroupState::Data && !record.live.is_empty() {
                let bytes = record.pages as u64 * holdfast_format::limits::BLOCK_BYTES as u64;
                consider(&record.copies, record.protection(), bytes, Thing::Egroup(id));
            }
            Ok(true)
        })?;
        tasks.sort();
        let changed = healing.planned.as_ref() != Some(&standings);
        // What could not be done a moment ago cannot be done now: it is tried again when something changes, or later.
        let in_vain = healing.seen.is_none() && !healing.progressed && !changed;
        healing.seen = Some(standings.clone());
        healing.planned = Some(standings);
        healing.progressed = false;
        healing.looked_ns = now;
        healing.progress.things_lost = lost;
        healing.progress.things_misplaced = misplaced;
        if !in_vain {
            healing.progress.stuck.clear();
        }
        healing.progress.things_left = tasks.len() as u64;
        healing.progress.bytes_left = tasks.iter().map(|task| task.bytes).sum();
        let single = tasks.iter().filter(|task| task.copies_left == 1 && task.bytes > 0);
        healing.progress.things_single = single.clone().count() as u64;
        healing.progress.bytes_single = single.map(|task| task.bytes).sum();
        if in_vain {
            return Ok(false);
        }
        healing.queue = tasks.into();
        if !healing.queue.is_empty() {
            healing.started_ns = now;
            healing.progress.bytes_done = 0;
            // What is left undone, or gets undone meanwhile, shows in one more look.
            healing.seen = None;
        }
        Ok(!healing.queue.is_empty())
    }

    /// What is named at this moment, as `(copies, RF)`; `None`: nothing to heal any more.
    fn heal_thing(
        &self,
        thing: Thing,
        names: NamesOf<'_>,
        desk: &mut Desk<'_>,
        reports: &mut Vec<String>,
    ) -> Result<Option<Healed>> {
        let _hold = self.hold();
        let standings = self.standings();
        // Nothing to copy: then at most a copy too many goes.
        let enough = |copies: &[SlotAddress], protection: Protection| {
            self.copies_wanted(copies, protection.rf, &standings) == 0
                && !self.misplaced(copies, protection, &standings)
        };
        let (before, protection, content) = match thing {
            Thing::Table(owner, id) => {
                let Some(desc) = self.table(owner, id) else { return Ok(None) };
                let protection = self.table_protection();
                if enough(&desc.copies, protection) {
                    return Ok(self.without_superfluous(thing, desc.copies, protection));
                }
                let content = self.table_content(&desc, desk)?;
                (desc.copies, protection, content)
            }
            Thing::Egroup(id) => {
                let Some(record) = self.egroup(id)? else { return Ok(None) };
                if record.state != EgroupState::Data {
                    return Ok(None);
                }
                if enough(&record.copies, record.protection()) {
                    let protection = record.protection();
                    return Ok(self.without_superfluous(thing, record.copies, protection));
                }
                let content = self.egroup_content(id, &record, names, desk)?;
                let protection = record.protection();
                (record.copies, protection, content)
            }
        };
        if !content.bad_pages.is_empty() {
            reports.push(format!("{thing}: pages {:?} are right on no copy that is there", content.bad_pages));
            let absent = |copy: &SlotAddress| {
                matches!(standings[copy.drive as usize], Standing::Awaited | Standing::Gone)
            };
            if before.iter().any(absent) || self.readable(&before).is_empty() {
                // The missing drive may bring them back: its copy is not given up. Nor is one that is all there is.
                return Ok(None);
            }
        }
        self.copy_to_fresh((thing, before, protection), &content, desk)
    }

    /// Takes one copy out that shares a domain with another.
    fn drop_neighbour(&self, copies: &mut Vec<SlotAddress>, domain: DomainLevel) {
        let shares = |at: &usize| {
            copies[..*at].iter().any(|other| self.shares_domain(&[copies[*at].drive, other.drive], domain))
        };
        if let Some(at) = (1..copies.len()).rev().find(shares) {
            copies.remove(at);
        }
    }

    fn without_superfluous(
        &self,
        thing: Thing,
        before: Vec<SlotAddress>,
        protection: Protection,
    ) -> Option<Healed> {
        let rf = protection.rf;
        let standings = self.standings();
        if !self.superfluous(&before, rf, &standings) {
            return None;
        }
        let here = |copy: &&SlotAddress| matches!(standings[copy.drive as usize], Standing::Good | Standing::Slow);
        let enough = before.iter().filter(here).count() >= rf as usize;
        let stays = |copy: &SlotAddress| {
            let standing = standings[copy.drive as usize];
            standing != Standing::GivenUp && !(enough && standing == Standing::Draining)
        };
        let mut after: Vec<SlotAddress> = before.iter().copied().filter(stays).collect();
        // More than are asked for: one that shares a domain goes first, else the one on the fullest drive.
        while after.iter().filter(here).count() > protection.rf as usize {
            let fill = |copy: &SlotAddress| {
                let disk = &self.disks[copy.drive as usize];
                (disk.used_slots() as u64) * 1000 / disk.total_slots().max(1) as u64
            };
            let close = |at: usize| {
                let apart = |other: &SlotAddress| {
                    other.drive == after[at].drive
                        || !self.shares_domain(&[after[at].drive, other.drive], protection.domain)
                };
                !after.iter().all(apart)
            };
            let present = (0..after.len()).filter(|at| here(&&after[*at]));
            let Some(at) = present.max_by_key(|at| (close(*at), fill(&after[*at]))) else { break };
            after.remove(at);
        }
        Some(Healed { thing, before, after, fresh: Vec::new(), bytes: 0 })
    }

    pub(super) fn table(&self, owner: GroupId, id: TableId) -> Option<TableDesc> {
        self.image.read().tables.get(&owner)?.get(&id).cloned()
    }

    /// Writes as many new copies as are wanted; `None` when a drive failed on the way (the next look tries again).
    fn copy_to_fresh(
        &self,
        (thing, before, protection): (Thing, Vec<SlotAddress>, Protection),
        content: &Content,
        desk: &mut Desk<'_>,
    ) -> Result<Option<Healed>> {
        let standings = self.standings();
        let mut after: Vec<SlotAddress> = before
            .iter()
            .copied()
            .filter(|copy| counts(standings[copy.drive as usize]))
            .collect();
        let mut fresh = Vec::new();
        let mut wanted = self.copies_wanted(&before, protection.rf, &standings);
        let moves = wanted == 0;
        if moves {
            // Misplaced: one of those that share a domain goes elsewhere.
            self.drop_neighbour(&mut after, protection.domain);
            wanted = 1;
        }
        for _ in 0..wanted {
            let Some(slot) = self.take_slot_apart(&after, protection.domain) else { break };
            after.push(slot);
            fresh.push(slot);
        }
        let drives = |copies: &[SlotAddress]| copies.iter().map(|copy| copy.drive).collect::<Vec<u16>>();
        if moves && self.shares_domain(&drives(&after), protection.domain) {
            // It was misplaced, and would be again.
            self.give_back(&fresh);
            return Err(crate::error::Error::no_space(format!(
                "two copies share a {}, and no other {} has room: delete something or add a drive there",
                protection.domain.name(),
                protection.domain.name()
            )));
        }
        if fresh.is_empty() {
            return Err(crate::error::Error::no_space(
                "no other drive has room for a new copy: delete something or add a drive",
            ));
        }
        let written = self.write_fresh(&fresh, content, desk)?;
        let bytes = content.bytes() * fresh.len() as u64;
        Ok(written.then_some(Healed { thing, before, after, fresh, bytes }))
    }
}
