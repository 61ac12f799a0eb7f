//! References of pages: count = liveness bit + share count. All under the publish lock.

use super::Pool;
use super::publish::Change;
use crate::error::{Error, Kind, Result};
use crate::metadata::io::PageName;
use holdfast_format::EgroupId;
use holdfast_format::egroup::{EgroupRecord, EgroupState};
use std::collections::BTreeMap;

/// A caller released what it never referenced, or named what does not exist: refused before anything is
/// written.
fn wrong(page: PageName, what: &str) -> Error {
    Error::new(Kind::Internal, format!("page {} of egroup {}: {what}", page.1, page.0))
}

/// Egroups whose records are remembered while pages of many are asked about.
const SHARING_MAX: usize = 65_536;

/// Which egroups have pages that several records name, as far as they were asked about.
#[derive(Default)]
pub struct Sharing(BTreeMap<EgroupId, bool>);

impl Pool {
    /// How many records name a page, over all groups; 0: the egroup has gone meanwhile.
    pub fn names_of(&self, page: PageName, sharing: &mut Sharing) -> Result<u32> {
        let shared = match sharing.0.get(&page.0) {
            Some(shared) => *shared,
            None => {
                let Some(record) = self.egroup(page.0)? else { return Ok(0) };
                if sharing.0.len() >= SHARING_MAX {
                    sharing.0.clear();
                }
                sharing.0.insert(page.0, record.shared);
                record.shared
            }
        };
        if shared { Ok(1 + self.share_count(page.0, page.1)?) } else { Ok(1) }
    }
}

impl Change<'_> {
    /// The record as this change leaves it so far; `None`: there is none.
    pub(super) fn egroup(&mut self, id: EgroupId) -> Result<Option<&mut EgroupRecord>> {
        if !self.egroups.contains_key(&id) {
            let record = self.pool.egroup(id)?;
            if let Some(record) = record.as_ref().filter(|_| !self.pool.unpublished.lock().contains_key(&id)) {
                self.before.insert(id, record.clone());
            }
            self.egroups.insert(id, record);
        }
        Ok(self.egroups.get_mut(&id).and_then(Option::as_mut))
    }

    fn share(&mut self, (egroup, page): PageName) -> Result<u32> {
        match self.shares.get(&(egroup, page)) {
            Some(count) => Ok(*count),
            None => self.pool.share_count(egroup, page),
        }
    }

    /// One more record names the page.
    pub(super) fn reference(&mut self, page: PageName) -> Result<()> {
        let Some(record) = self.egroup(page.0)? else {
            return Err(wrong(page, "referenced, but it does not exist"));
        };
        if record.live.contains(page.1) {
            record.shared = true;
            let count = self.share(page)?;
            self.shares.insert(page, count + 1);
            return Ok(());
        }
        if record.state == EgroupState::Moved {
            // Dead under this name since it moved; only a pinned page comes back, and its target waited for
            // it.
            let target = record
                .moved_to(page.1)
                .ok_or_else(|| wrong(page, "referenced, but it did not move along"))?;
            record.live.insert(page.1);
            return self.reference(target);
        }
        if page.1 >= record.pages {
            return Err(wrong(page, "referenced, but the egroup is shorter"));
        }
        record.live.insert(page.1);
        Ok(())
    }

    /// One record that named the page is gone.
    pub(super) fn release(&mut self, page: PageName) -> Result<()> {
        let Some(record) = self.egroup(page.0)? else {
            return Err(wrong(page, "released, but it does not exist"));
        };
        if record.shared {
            let count = self.share(page)?;
            if count > 0 {
                self.shares.insert(page, count - 1);
                return Ok(());
            }
        }
        let Some(record) = self.egroup(page.0)? else {
            return Err(wrong(page, "released, but it does not exist"));
        };
        if !record.live.contains(page.1) {
            return Err(wrong(page, "released more often than referenced"));
        }
        record.live.remove(page.1);
        if record.live.is_empty() && record.state != EgroupState::Log {
            self.emptied.push(page.0);
        }
        let Some(record) = self.egroup(page.0)? else { return Ok(()) };
        if record.state == EgroupState::Moved {
            let target =
                record.moved_to(page.1).ok_or_else(|| wrong(page, "live, but it did not move along"))?;
            return self.release(target);
        }
        Ok(())
    }

    /// The log is drained past it: an ordinary egroup from now on.
    pub(super) fn seal_segment(&mut self, id: EgroupId) -> Result<()> {
        let Some(record) = self.egroup(id)? else {
            return Err(Error::new(
                Kind::Internal,
                format!("segment {id} is released, but it does not exist"),
            ));
        };
        record.state = EgroupState::Data;
        if record.live.is_empty() {
            self.emptied.push(id);
        }
        Ok(())
    }

    /// Frees an egroup if it is empty and nothing in memory names it; true when it is gone.
    pub(super) fn free_if_empty(&mut self, id: EgroupId) -> Result<bool> {
        let pool = self.pool;
        let Some(record) = self.egroup(id)? else { return Ok(true) };
        let needed = pool.is_kept(id) || pool.is_pinned(id, record);
        if record.state == EgroupState::Log || !record.live.is_empty() || needed {
            return Ok(false);
        }
        let record = record.clone();
        for part in &record.parts {
            if let Some(target) = self.egroup(part.target)? {
                target.sources.retain(|source| *source != id);
            }
        }
        for source in &record.sources {
            let Some(moved) = self.egroup(*source)? else { continue };
            moved.parts.retain(|part| part.target != id);
            if moved.parts.is_empty() {
                // Its last page was released with this one's or before, and it is not pinned: as ripe as this one.
                self.egroups.insert(*source, None);
                self.egroups_freed += 1;
            }
        }
        self.freed.extend(&record.copies);
        self.egroups.insert(id, None);
        self.egroups_freed += 1;
        Ok(true)
    }
}
