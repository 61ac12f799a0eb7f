//! Egroups get the protection that their volumes ask for: a change of records only, which healing then carries out.

use super::Pool;
use super::publish::Change;
use crate::error::Result;
use holdfast_format::egroup::{EgroupRecord, EgroupState};
use holdfast_format::{EgroupId, Protection};
use std::collections::BTreeMap;

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
    let most = known.fold(first, |most, next| Protection {
        rf: most.rf.max(next.rf),
        domain: most.domain.max(next.domain),
    });
    let all_known = names.iter().all(|name| asked.contains_key(name));
    let now = record.protection();
    let safe = if all_known {
        most
    } else {
        Protection { rf: most.rf.max(now.rf), domain: most.domain.max(now.domain) }
    };
    (safe != now).then_some(safe)
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
}
