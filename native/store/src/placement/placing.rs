//! Which drives get the copies: different failure domains first, then free space, with some spreading.

use super::Pool;
use super::disk::Disk;
use super::types::Draw;
use crate::error::{Error, Kind, Result};
use holdfast_format::table::SlotAddress;

/// What a slot is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Purpose {
    pub rf: u8,
    pub draw: Draw,
}

/// With at least this many drives that are neither slow nor failing, the manifest lies on no other.
const MANIFEST_COPIES_SPARING: usize = 2;

/// Copies that must be durable for a write to count (`min_write_copies`, STORE.md 27).
pub(super) fn copies_min(rf: u8) -> usize {
    (rf as usize).saturating_sub(1).max(1)
}

/// How far apart two domains are: the earlier the first part that differs, the farther. 0: the same.
pub(super) fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<&str>, Vec<&str>) = (left.split('/').collect(), right.split('/').collect());
    let longest = left.len().max(right.len());
    (0..longest).find(|at| left.get(*at) != right.get(*at)).map_or(0, |at| longest - at)
}

impl Pool {
    /// Order of preference among `candidates` for the next copy, best first.
    fn ranked<'a>(&self, candidates: Vec<&'a Disk>, chosen: &[&Disk]) -> Vec<&'a Disk> {
        let mut rng = self.rng.lock();
        let mut scored: Vec<(bool, usize, u64, &Disk)> = candidates
            .into_iter()
            .map(|disk| {
                let apart =
                    chosen.iter().map(|other| distance(&disk.domain, &other.domain)).min().unwrap_or(0);
                // Half weight, half chance: neighbours in time go to different drives, full drives get less.
                let free = disk.free_slots() as u64;
                (disk.prefers(), apart, free / 2 + rng.below(free.max(1)), disk)
            })
            .collect();
        scored.sort_by_key(|(fit, apart, free, disk)| (std::cmp::Reverse((*fit, *apart, *free)), disk.index));
        scored.into_iter().map(|(_, _, _, disk)| disk).collect()
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
            let Some(best) = self.ranked(rest, &chosen).first().copied() else { break };
            chosen.push(best);
        }
        chosen.iter().map(|disk| disk.index).collect()
    }

    /// Takes a free slot on each of `purpose.rf` drives, or on all that are left when those are fewer, but at
    /// least
    /// [`copies_min`]. Nothing durable names the slots yet. Errors: `NoSpace`, `Unavailable` (too few
    /// drives).
    pub(super) fn take_slots(&self, purpose: Purpose) -> Result<Vec<SlotAddress>> {
        self.check_open()?;
        match self.try_take_slots(purpose) {
            Err(error) if error.kind == Kind::NoSpace && self.has_pending() => {
                // Empty egroups wait to be freed, freed slots for two manifest writes: give them those.
                for _ in 0..3 {
                    self.publish_nothing()?;
                }
                self.try_take_slots(purpose)
            }
            result => result,
        }
    }

    /// Takes a free slot for one more copy of what lies at `kept`: on another drive, as far from those as there is
    /// room, outside of the reserve. Nothing durable names it yet. `None`: there is no room.
    pub(super) fn take_slot_apart(&self, kept: &[SlotAddress]) -> Option<SlotAddress> {
        let chosen: Vec<&Disk> = kept.iter().map(|copy| &self.disks[copy.drive as usize]).collect();
        let rest = self.disks.iter().filter(|disk| disk.accepts());
        let rest = rest.filter(|disk| chosen.iter().all(|other| other.index != disk.index)).collect();
        self.ranked(rest, &chosen).into_iter().find_map(|disk| {
            let slot = disk.take(disk.layout.reserve())?;
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
        if wanted < copies_min(purpose.rf) {
            return Err(Error::new(
                Kind::Unavailable,
                format!(
                    "pool {}: {active} drives are left, RF {} needs more; add drives",
                    self.name, purpose.rf
                ),
            ));
        }
        let mut chosen: Vec<&Disk> = Vec::new();
        let mut slots = Vec::new();
        while slots.len() < wanted {
            let rest = self.disks.iter().filter(|disk| disk.accepts());
            let rest = rest.filter(|disk| chosen.iter().all(|other| other.index != disk.index)).collect();
            let taken = self.ranked(rest, &chosen).into_iter().find_map(|disk| {
                let keep = match purpose.draw {
                    Draw::Ordinary => disk.layout.reserve(),
                    Draw::Freeing => disk.layout.reserve() / 2,
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
