//! Egroups get the protection that their volumes ask for: a change of records only, which healing then carries out.

use super::Pool;
use super::publish::Change;
use crate::error::Result;
use holdfast_format::egroup::{EgroupRecord, EgroupState};
use holdfast_format::{EgroupId, GroupId, Protection};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

/// Records that one edit changes.
const RECORDS_PER_EDIT_MAX: usize = 256;

/// What an egroup should have, when the names of its pages ask for this; `None`: leave it as it is.
fn wanted(id: EgroupId, record: &EgroupRecord, asked: &BTreeMap<EgroupId, Protection>) -> Option<Protection> {
    if record.state != EgroupState::Data || record.live.is_empty() {
        return None;
    }
    let names: &[EgroupId] = if record.sources.is_empty() { &[id] } else { &record.sources };
    let mut known = names.iter().filter_map(|name| asked.get(name));
    let first = *known.next()?;
    let most = known.copied().fold(first, stronger);
    let all_known = names.iter().all(|name| asked.contains_key(name));
    let now = record.protection();
    let safe = if all_known { most } else { stronger(most, now) };
    (safe != now).then_some(safe)
}

/// The copies of the one that has more, as far apart as the one whose are farther.
pub fn stronger(one: Protection, other: Protection) -> Protection {
    Protection { rf: one.rf.max(other.rf), domain: one.domain.max(other.domain) }
}

/// Whether `now` is less than what is asked for.
fn is_weaker(now: Protection, asked: Protection) -> bool {
    stronger(now, asked) != now
}

impl Pool {
    /// Gives sealed egroups the protection that `asked` says of the names of their pages. Returns how many changed.
    pub fn conform(&self, asked: &BTreeMap<EgroupId, Protection>) -> Result<u64> {
        let mut changed = 0;
        let mut from = EgroupId(0);
        loop {
            let mut found = Vec::new();
            let mut next = None;
            self.scan_egroups(from, &mut |id, record| {
                if found.len() == RECORDS_PER_EDIT_MAX {
                    next = Some(id);
                    return Ok(false);
                }
                found.extend(wanted(id, &record, asked).map(|_| id));
                Ok(true)
            })?;
            changed += self.conform_some(&found, asked)?;
            match next {
                Some(next) => from = next,
                None => return Ok(changed),
            }
        }
    }

    /// One edit. Records are looked at again: cleaning may have changed them meanwhile.
    fn conform_some(&self, ids: &[EgroupId], asked: &BTreeMap<EgroupId, Protection>) -> Result<u64> {
        if ids.is_empty() {
            return Ok(0);
        }
        let mut journal = self.journal.lock();
        let mut change = Change::new(self);
        let mut changed = 0;
        for id in ids {
            let Some(record) = change.egroup(*id)? else { continue };
            if let Some(protection) = wanted(*id, record, asked) {
                (record.rf, record.domain) = (protection.rf, protection.domain);
                changed += 1;
            }
        }
        self.commit(&mut journal, change, &|| {})?;
        Ok(changed)
    }

    /// Segments of logs that hold named pages of which more is asked than the segments give.
    pub fn weak_segments(&self, asked: &BTreeMap<EgroupId, Protection>) -> Result<BTreeSet<EgroupId>> {
        let mut weak = BTreeSet::new();
        self.scan_egroups(EgroupId(0), &mut |id, record| {
            let asked = asked.get(&id).filter(|_| record.state == EgroupState::Log);
            weak.extend(asked.filter(|asked| is_weaker(record.protection(), **asked)).map(|_| id));
            Ok(true)
        })?;
        Ok(weak)
    }

    /// Whether a group's log has segments that give less than the most that is asked for, or of an RF class that is not
    /// `used`.
    pub fn has_weak_segments(&self, group: GroupId, most: Protection, used: &[u8]) -> bool {
        let segments = self.group(group).map(|record| record.segments).unwrap_or_default();
        segments.iter().any(|segment| {
            let record = self.egroup(segment.egroup).ok().flatten();
            !used.contains(&segment.rf) || record.is_none_or(|record| is_weaker(record.protection(), most))
        })
    }

    /// Whether one of the egroups, wherever its pages lie now, gives less than is asked for.
    pub fn any_weaker(&self, asked: &BTreeMap<EgroupId, Protection>) -> Result<bool> {
        for (id, asked) in asked {
            if self.lies_weaker(*id, *asked)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where pages of an egroup lie that gives less than is asked for. What is empty gives nothing to anybody and waits to be freed;
    /// a pinned page that comes back there is one that a drain names, which asks this again.
    fn lies_weaker(&self, id: EgroupId, asked: Protection) -> Result<Option<(EgroupId, Protection)>> {
        let Some(record) = self.egroup(id)? else { return Ok(None) };
        let targets: Vec<EgroupId> = match record.state {
            EgroupState::Moved => record.parts.iter().map(|part| part.target).collect(),
            EgroupState::Data | EgroupState::Log => vec![id],
        };
        for id in targets {
            let is_weak = |record: &EgroupRecord| !record.live.is_empty() && is_weaker(record.protection(), asked);
            if let Some(record) = self.egroup(id)?.filter(is_weak) {
                return Ok(Some((id, record.protection())));
            }
        }
        Ok(None)
    }

    /// One sentence for each egroup that gives less than the names of its pages ask for.
    pub fn check_protection(&self, asked: &BTreeMap<EgroupId, Protection>) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        for (id, wanted) in asked {
            if let Some((place, now)) = self.lies_weaker(*id, *wanted)? {
                problems.push(format!("egroup {id} lies in {place} with {now:?}, its volumes ask for {wanted:?}"));
            }
        }
        Ok(problems)
    }

    /// Something is named that is protected less than its volume asks: the next walk changes that.
    pub fn note_unprotected(&self) {
        self.unprotected.store(true, Ordering::Release);
    }

    pub fn is_unprotected(&self) -> bool {
        self.unprotected.load(Ordering::Acquire)
    }

    pub fn take_unprotected(&self) -> bool {
        self.unprotected.swap(false, Ordering::AcqRel)
    }
}
