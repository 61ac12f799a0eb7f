//! What the pool's records should say, recomputed from what names pages and slots (FAULTS.md, C-enum's invariants).

use super::Pool;
use super::records::POOL_OWNER;
use crate::error::Result;
use crate::metadata::io::PageName;
use holdfast_format::EgroupId;
use holdfast_format::egroup::{EgroupRecord, EgroupState};
use holdfast_format::table::SlotAddress;
use std::collections::{BTreeMap, BTreeSet};

/// Named pages, with the number of records that name them.
pub type PageCounts = BTreeMap<PageName, u32>;

struct Check<'a> {
    pool: &'a Pool,
    named: &'a PageCounts,
    records: BTreeMap<EgroupId, EgroupRecord>,
    problems: Vec<String>,
}

impl Pool {
    /// Compares the records of egroups, shares and slots with `named`: how many DATA records of all groups name each
    /// page. The caller makes sure that no group drains or compacts meanwhile. Returns what is wrong, one
    /// sentence each.
    pub fn check(&self, named: &PageCounts) -> Result<Vec<String>> {
        let _cleaning = self.cleaning.lock();
        let _maintenance = self.maintenance.lock();
        let mut records = BTreeMap::new();
        self.scan_egroups(EgroupId(0), &mut |id, record| {
            records.insert(id, record);
            Ok(true)
        })?;
        let mut check = Check { pool: self, named, records, problems: Vec::new() };
        check.pages()?;
        check.targets();
        check.segments();
        check.slots();
        check.problems.extend(self.check_dead(check.records.values()));
        Ok(check.problems)
    }
}

impl Check<'_> {
    /// count(page) = liveness bit + share count, for every page that is named or counted.
    fn pages(&mut self) -> Result<()> {
        for ((id, page), names) in self.named {
            let live = self.records.get(id).is_some_and(|record| record.live.contains(*page));
            if !live {
                self.problems.push(format!("page {page} of egroup {id} is named {names} times and not live"));
            }
        }
        for (id, record) in &self.records {
            if !record.sources.is_empty() {
                continue;
            }
            for page in record.live.iter() {
                let counted = 1 + if record.shared { self.pool.share_count(*id, page)? } else { 0 };
                let names = self.named.get(&(*id, page)).copied().unwrap_or(0);
                if counted != names {
                    let what = format!(
                        "page {page} of egroup {id} is counted {counted} times and named {names} times"
                    );
                    self.problems.push(what);
                }
            }
        }
        Ok(())
    }

    /// The live pages of an egroup that cleaning made are those to which live pages of its sources have moved.
    fn targets(&mut self) {
        let mut wanted: BTreeMap<EgroupId, BTreeSet<u16>> = BTreeMap::new();
        for (id, record) in self.records.iter().filter(|(_, record)| record.state == EgroupState::Moved) {
            for page in record.live.iter() {
                match record.moved_to(page) {
                    Some((target, moved)) => {
                        if !wanted.entry(target).or_default().insert(moved) {
                            self.problems.push(format!("two pages moved to page {moved} of egroup {target}"));
                        }
                    }
                    None => self
                        .problems
                        .push(format!("page {page} of egroup {id} is live and did not move along")),
                }
            }
            for part in &record.parts {
                let back = self.records.get(&part.target).is_some_and(|target| target.sources.contains(id));
                if !back {
                    self.problems
                        .push(format!("egroup {id} moved to {}, which does not know it", part.target));
                }
            }
        }
        for (id, record) in self.records.iter().filter(|(_, record)| !record.sources.is_empty()) {
            let live: BTreeSet<u16> = record.live.iter().collect();
            let pages = wanted.remove(id).unwrap_or_default();
            if live != pages {
                self.problems
                    .push(format!("pages {live:?} of egroup {id} are live, {pages:?} were moved to it"));
            }
        }
        for id in wanted.keys() {
            self.problems.push(format!("pages moved to egroup {id}, which has no sources"));
        }
    }

    fn segments(&mut self) {
        let image = self.pool.image.read();
        let mut segments = BTreeSet::new();
        for segment in image.groups.values().flat_map(|group| &group.segments) {
            segments.insert(segment.egroup);
            let record = self.records.get(&segment.egroup);
            if record.is_none_or(|record| record.state != EgroupState::Log || record.copies != segment.copies)
            {
                self.problems.push(format!("log segment {} has no record that says so", segment.egroup));
            }
        }
        let logs = self.records.iter().filter(|(_, record)| record.state == EgroupState::Log);
        for (id, _) in logs.filter(|(id, _)| !segments.contains(id)) {
            self.problems.push(format!("egroup {id} is a log segment of no group"));
        }
    }

    /// Every slot has one owner, and slots that are in use have one.
    fn slots(&mut self) {
        let mut owners: BTreeMap<SlotAddress, String> = BTreeMap::new();
        let mut own = |slots: &[SlotAddress], name: String| {
            let clashes: Vec<String> = slots
                .iter()
                .filter_map(|slot| {
                    let other = owners.insert(*slot, name.clone())?;
                    Some(format!(
                        "slot {} of drive {} belongs to {other} and to {name}",
                        slot.slot, slot.drive
                    ))
                })
                .collect();
            self.problems.extend(clashes);
        };
        self.records.iter().for_each(|(id, record)| own(&record.copies, format!("egroup {id}")));
        {
            let unpublished = self.pool.unpublished.lock();
            unpublished
                .iter()
                .for_each(|(id, record)| own(&record.copies, format!("unpublished egroup {id}")));
            let image = self.pool.image.read();
            for (owner, tables) in &image.tables {
                let whose =
                    if *owner == POOL_OWNER { "the pool".to_owned() } else { format!("group {owner}") };
                tables.values().for_each(|desc| own(&desc.copies, format!("table {} of {whose}", desc.id)));
            }
        }
        // Nobody is writing one: whoever did has forgotten it.
        let forgotten = self.pool.unpublished.lock();
        self.problems.extend(forgotten.keys().map(|id| format!("egroup {id} was written and belongs to nobody")));
        drop(forgotten);
        for disk in self.pool.disks.iter().filter(|disk| disk.is_active()) {
            let owned = owners.keys().filter(|slot| slot.drive == disk.index).count() as u32;
            let used = disk.used_slots();
            if used != owned {
                let what =
                    format!("drive {}: {used} slots are in use, {owned} belong to something", disk.name());
                self.problems.push(what);
            }
        }
    }
}
