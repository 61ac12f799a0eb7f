//! Taking slots for copies, on the drives that [`super::domains`] puts first.

use super::Pool;
use super::disk::Disk;
use super::domains::{self, Candidate};
use super::types::Draw;
use crate::error::{Error, Kind, Result};
use holdfast_format::DomainLevel;
use holdfast_format::table::SlotAddress;

/// What a slot is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Purpose {
    pub rf: u8,
    pub domain: DomainLevel,
    pub draw: Draw,
}

/// With at least this many drives that are neither slow nor failing, the manifest lies on no other.
const MANIFEST_COPIES_SPARING: usize = 2;

impl Pool {
    /// Offers the candidates the next copy beside those on `chosen`, the best first, until one takes it.
    fn offer<'a, T>(
        &self,
        mut candidates: Vec<&'a Disk>,
        chosen: &[&Disk],
        domain: DomainLevel,
        mut take: impl FnMut(&'a Disk) -> Option<T>,
    ) -> Option<T> {
        let mut labels: Vec<_> = candidates.iter().map(|disk| disk.label()).collect();
        let others: Vec<_> = chosen.iter().map(|disk| (disk.index, disk.label())).collect();
        let others: Vec<_> = others.iter().map(|(index, label)| (*index, &**label)).collect();
        loop {
            let each = candidates.iter().zip(&labels).map(|(disk, label)| Candidate {
                index: disk.index,
                label,
                total: disk.layout.slots,
                free: disk.free_slots(),
                fit: disk.prefers(),
            });
            let seen: Vec<Candidate<'_>> = each.collect();
            let at = domains::best(&seen, &others, domain, &mut self.rng.lock())?;
            drop(seen);
            if let Some(taken) = take(candidates[at]) {
                return Some(taken);
            }
            candidates.swap_remove(at);
            labels.swap_remove(at);
        }
    }

    /// Domains of a level that new copies can go to: the highest RF that can keep its promise there.
    pub fn domains(&self, level: DomainLevel) -> usize {
        let labels: Vec<_> =
            self.disks.iter().filter(|disk| disk.accepts()).map(|disk| (disk.index, disk.label())).collect();
        domains::count(labels.iter().map(|(index, label)| (*index, &**label)), level)
    }

    pub(super) fn domains_of(&self, drives: &[u16], level: DomainLevel) -> usize {
        let labels: Vec<_> = drives.iter().map(|drive| (*drive, self.disks[*drive as usize].label())).collect();
        domains::count(labels.iter().map(|(index, label)| (*index, &**label)), level)
    }

    /// Whether two of the drives share a domain of the level.
    pub(super) fn shares_domain(&self, drives: &[u16], level: DomainLevel) -> bool {
        level != DomainLevel::Drive && {
            let labels: Vec<_> = drives.iter().map(|drive| (*drive, self.disks[*drive as usize].label())).collect();
            let pair = |at: usize| (labels[at].0, &*labels[at].1);
            (1..labels.len()).any(|at| (0..at).any(|other| domains::share(pair(at), pair(other), level)))
        }
    }

    /// Active drives in the order in which `count` copies should go to them: for the manifest.
    pub(super) fn spread(&self, keep: &[u16], count: usize) -> Vec<u16> {
        // Two copies on drives that are not slow are better than three that wait for one that is.
        let enough = self.disks.iter().filter(|disk| disk.prefers()).count() >= MANIFEST_COPIES_SPARING;
        let fit = |disk: &&Disk| if enough { disk.prefers() } else { disk.accepts() };
        let mut chosen: Vec<&Disk> =
            keep.iter().map(|index| &self.disks[*index as usize]).filter(fit).collect();
        chosen.truncate(count);
        while chosen.len() < count {
            let rest = self.disks.iter().filter(fit);
            let rest = rest.filter(|disk| chosen.iter().all(|other| other.index != disk.index)).collect();
            let Some(best) = self.offer(rest, &chosen, DomainLevel::Rack, Some) else { break };
            chosen.push(best);
        }
        chosen.iter().map(|disk| disk.index).collect()
    }

    /// Takes a free slot on each of `purpose.rf` drives, or on all that are left when those are fewer: how many
    /// are enough is the log's to say ([`crate::oplog::log::Log::blocked`]). Nothing durable names the slots yet.
    ///
    /// Errors: `NoSpace`, `Unavailable` (too few drives).
    pub(super) fn take_slots(&self, purpose: Purpose) -> Result<Vec<SlotAddress>> {
        self.check_open()?;
        let no_space = |taken: &Result<_>| taken.as_ref().is_err_and(|error| error.kind == Kind::NoSpace);
        let mut taken = self.try_take_slots(purpose);
        if no_space(&taken) && self.has_pending() {
            // Empty egroups wait to be freed, freed slots for two manifest writes: give them those.
            for _ in 0..3 {
                self.publish_nothing()?;
            }
            taken = self.try_take_slots(purpose);
        }
        if no_space(&taken) && self.disks.iter().filter(|disk| disk.was_refused()).count() > 0 {
            // It is another drive by now, perhaps: it is out then, and does not count among those that need room.
            self.beat()?;
            taken = self.try_take_slots(purpose);
        }
        taken
    }

    /// Takes a free slot for one more copy of what lies at `kept`: on another drive, as far from those as there is
    /// room, outside of the reserve. Nothing durable names it yet. `None`: there is no room.
    pub(super) fn take_slot_apart(&self, kept: &[SlotAddress], domain: DomainLevel) -> Option<SlotAddress> {
        self.take_slot_where(kept, domain, &|_| true)
    }

    /// As [`Pool::take_slot_apart`], on one of the drives that `may` accepts.
    pub(super) fn take_slot_where(
        &self,
        kept: &[SlotAddress],
        domain: DomainLevel,
        may: &dyn Fn(&Disk) -> bool,
    ) -> Option<SlotAddress> {
        let chosen: Vec<&Disk> = kept.iter().map(|copy| &self.disks[copy.drive as usize]).collect();
        let rest = self.disks.iter().filter(|disk| disk.accepts() && may(disk));
        let rest = rest.filter(|disk| chosen.iter().all(|other| other.index != disk.index)).collect();
        self.offer(rest, &chosen, domain, |disk| {
            let slot = disk.take(self.reserve_of(disk))?;
            Some(SlotAddress { drive: disk.index, slot })
        })
    }

    fn has_pending(&self) -> bool {
        !self.emptied.lock().is_empty()
            || self.disks.iter().any(|disk| disk.accepts() && disk.pending_slots() > 0)
    }

    fn try_take_slots(&self, purpose: Purpose) -> Result<Vec<SlotAddress>> {
        let active = self.disks.iter().filter(|disk| disk.accepts()).count();
        let wanted = (purpose.rf as usize).min(active);
        if wanted == 0 {
            let what = format!("pool {}: no drive is left that takes new data; add drives", self.name);
            return Err(Error::new(Kind::Unavailable, what));
        }
        let mut chosen: Vec<&Disk> = Vec::new();
        let mut slots = Vec::new();
        while slots.len() < wanted {
            let rest = self.disks.iter().filter(|disk| disk.accepts());
            let rest = rest.filter(|disk| chosen.iter().all(|other| other.index != disk.index)).collect();
            let taken = self.offer(rest, &chosen, purpose.domain, |disk| {
                let keep = match purpose.draw {
                    Draw::Ordinary => self.reserve_of(disk),
                    Draw::Freeing => self.reserve_of(disk) / 2,
                    Draw::Upkeep => 0,
                };
                Some((disk, disk.take(keep)?))
            });
            let Some((disk, slot)) = taken else {
                self.give_back(&slots);
                return Err(self.no_space(purpose));
            };
            chosen.push(disk);
            slots.push(SlotAddress { drive: disk.index, slot });
        }
        Ok(slots)
    }

    fn no_space(&self, purpose: Purpose) -> Error {
        let space = self.space();
        let mib = |bytes: u64| bytes >> 20;
        Error::no_space(format!(
            "pool {}: no place for {} copies: {} MiB of {} MiB are free, {} MiB of them are the reserve of operations \
             that give space back; delete something, shorten the history or add drives",
            self.name,
            purpose.rf,
            mib(space.free),
            mib(space.total),
            mib(space.reserve)
        ))
    }

    /// Gives back slots that no durable record ever named.
    pub(super) fn give_back(&self, slots: &[SlotAddress]) {
        for slot in slots {
            self.disks[slot.drive as usize].give_back(slot.slot);
        }
    }
}
