//! Cleaning: egroups with little live data are packed into fresh ones. No file metadata changes: the old
//! name's
//! record says where its pages lie now (STORE.md 10).
//!
//! Invariants:
//! - Depth is 1: a target of moves is never itself "moved"; cleaning it re-points its sources.
//! - The pages of one source stay in order and in one row, so that one part with one base describes them.
//! - A page is copied only when it is known to be right: by the footer's checksum, or (log segments, whose
//!   checksums
//!   only the frames know) because all copies agree.

use super::{Draw, Pool};
use super::publish::Change;
use super::report::count;
use crate::error::Result;
use crate::oplog::births::segment_births;
use holdfast_format::{EgroupId, Protection};
use std::collections::BTreeMap;
use holdfast_format::checksum::checksum;
use holdfast_format::egroup::{Birth, EgroupRecord, EgroupState, MovedPart, PageSet};
use holdfast_format::limits::{BLOCK_BYTES, MOVED_SOURCES_MAX};

/// Records that one step looks at.
const SCAN_RECORDS_MAX: usize = 4096;
/// Egroups that one step packs into one.
const VICTIMS_MAX: usize = 8;
/// Worth cleaning: at most this part of the pages is live, with room left and without.
const LIVE_PERCENT_MAX: usize = 50;
const LIVE_PERCENT_MAX_SHORT: usize = 90;
/// Below this share of the pool free, room counts as short.
const FREE_SHARE_SHORT: u64 = 8;

struct Victim {
    id: EgroupId,
    record: EgroupRecord,
}

/// Content and birth name.
type NamedPage = (Vec<u8>, Birth);

impl Pool {
    /// Frees what is empty, or packs a few egroups with little live data into one. False when nothing is
    /// worth doing.
    pub fn clean_step(&self) -> Result<bool> {
        self.check_open()?;
        let _maintenance = self.maintenance.lock();
        if self.free_step()? {
            return Ok(true);
        }
        let victims = self.victims()?;
        if victims.is_empty() {
            return Ok(false);
        }
        self.pack(&victims)
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

    /// Egroups of one protection whose live pages fit one egroup: at least two, the emptiest of those that were
    /// looked at.
    fn victims(&self) -> Result<Vec<Victim>> {
        let mut cursor = self.clean_cursor.lock();
        let mut found: Vec<Victim> = Vec::new();
        let (mut seen, mut last) = (0, None);
        let space = self.space();
        let short = space.free < space.total / FREE_SHARE_SHORT;
        let percent_max = if short { LIVE_PERCENT_MAX_SHORT } else { LIVE_PERCENT_MAX };
        self.scan_egroups(*cursor, &mut |id, record| {
            (seen, last) = (seen + 1, Some(id));
            let live = record.live.len();
            let sparse = live > 0 && live * 100 <= record.pages as usize * percent_max;
            if record.state == EgroupState::Data && sparse && !self.is_kept(id) && !self.is_pinned(id, &record) {
                found.push(Victim { id, record });
            }
            Ok(seen < SCAN_RECORDS_MAX)
        })?;
        // The next step goes on behind this one's window, unless the window had victims: then it looks again.
        let end = seen < SCAN_RECORDS_MAX;
        found.sort_by_key(|victim| (victim.record.protection(), victim.record.live.len()));
        let mut kinds: Vec<Protection> = found.iter().map(|victim| victim.record.protection()).collect();
        kinds.dedup();
        let mut chosen: Vec<Victim> = Vec::new();
        for kind in kinds {
            let (mut pages, mut names) = (0, 0);
            chosen.clear();
            for at in (0..found.len()).filter(|at| found[*at].record.protection() == kind) {
                let record = &found[at].record;
                pages += record.live.len();
                names += record.sources.len().max(1);
                if pages > self.egroup_pages_max() || names > MOVED_SOURCES_MAX || chosen.len() == VICTIMS_MAX
                {
                    break;
                }
                chosen.push(Victim { id: found[at].id, record: record.clone() });
            }
            if chosen.len() >= 2 {
                return Ok(chosen);
            }
        }
        *cursor = if end { EgroupId(0) } else { EgroupId(last.map_or(0, |id| id.0 + 1)) };
        Ok(Vec::new())
    }

    /// Crash order:
    /// 1. the target is written, durable; a crash leaves a slot that nothing names;
    /// 2. one edit says that the sources have moved, and frees their slots.
    ///
    /// Readers that found the old place hold it.
    fn pack(&self, victims: &[Victim]) -> Result<bool> {
        let mut pages = Vec::new();
        let mut births = Vec::new();
        let mut moved: Vec<(&Victim, u16)> = Vec::new();
        for victim in victims {
            let base = births.len();
            match self.right_pages(victim)? {
                Some(content) => {
                    for (bytes, birth) in content {
                        pages.extend_from_slice(&bytes);
                        births.push(birth);
                    }
                    moved.push((victim, base as u16));
                }
                None => {
                    count(&self.counters.cleans_skipped, 1);
                    *self.clean_cursor.lock() = EgroupId(victim.id.0 + 1);
                }
            }
        }
        if moved.len() < 2 {
            return Ok(!moved.is_empty());
        }
        let protection = moved[0].0.record.protection();
        let target = self.write_egroup(protection, &pages, &births, Draw::Upkeep)?;
        match self.publish_moves(&moved, target) {
            Ok(true) => {
                count(&self.counters.egroups_cleaned, moved.len() as u64);
                count(&self.counters.pages_moved, births.len() as u64);
                Ok(true)
            }
            Ok(false) => {
                self.discard_egroup(target);
                Ok(true)
            }
            Err(error) => {
                self.discard_egroup(target);
                Err(error)
            }
        }
    }

    /// The victim's live pages with their birth names, known to be right; `None` when that cannot be known.
    fn right_pages(&self, victim: &Victim) -> Result<Option<Vec<NamedPage>>> {
        let _hold = self.hold();
        // A log segment has frames where a footer would be.
        if self.is_segment(&victim.record) {
            return Ok(self.segment_pages(victim));
        }
        let Ok(footer) = self.footer_of(victim.id, &victim.record) else { return Ok(None) };
        let mut content = Vec::with_capacity(victim.record.live.len());
        for page in victim.record.live.iter() {
            let known = footer.births.get(page as usize).copied();
            let Some(named) = known.and_then(|known| self.named_page(&victim.record, page, known)) else {
                return Ok(None);
            };
            content.push(named);
        }
        Ok(Some(content))
    }

    /// A page whose checksum is known, from whichever copy is right.
    fn named_page(&self, record: &EgroupRecord, page: u16, (birth, sum): (Birth, u64)) -> Option<NamedPage> {
        let mut bytes = vec![0; BLOCK_BYTES];
        let verify = |bytes: &[u8]| checksum(bytes) == sum;
        let offset = page as u32 * BLOCK_BYTES as u32;
        self.read_slot(&record.copies, offset, &mut bytes, &verify).ok()?;
        Some((bytes, birth))
    }

    /// Live pages of a log segment: its frames, on any copy, tell what they are.
    fn segment_pages(&self, victim: &Victim) -> Option<Vec<NamedPage>> {
        let record = &victim.record;
        let mut births = BTreeMap::new();
        for copy in record.copies.iter().filter(|copy| self.disks[copy.drive as usize].is_active()) {
            let mut image = vec![0; self.slot_bytes as usize];
            if self.read_copy(*copy, 0, &mut image).is_ok() {
                let found = segment_births(victim.id, record.incarnation, &image);
                births.extend(found.into_iter().map(|found| (found.page, (found.birth, found.checksum))));
            }
            if record.live.iter().all(|page| births.contains_key(&page)) {
                break;
            }
        }
        let without_frames = births.is_empty();
        record
            .live
            .iter()
            .map(|page| match births.get(&page) {
                Some(known) => self.named_page(record, page, *known),
                None if without_frames => self.agreed_page(record, page),
                None => None,
            })
            .collect()
    }

    fn agreed_page(&self, record: &EgroupRecord, page: u16) -> Option<NamedPage> {
        let mut bytes = vec![0; BLOCK_BYTES];
        let agree = self.copies_agree(record, page as u32 * BLOCK_BYTES as u32, &mut bytes);
        agree.then(|| (bytes, Birth::default()))
    }

    /// Segments count every page of the slot, data egroups leave room for the footer.
    pub(super) fn is_segment(&self, record: &EgroupRecord) -> bool {
        record.pages as usize * BLOCK_BYTES == self.slot_bytes as usize
    }

    fn copies_agree(&self, record: &EgroupRecord, offset: u32, bytes: &mut [u8]) -> bool {
        let mut first: Option<Vec<u8>> = None;
        for copy in record.copies.iter().filter(|copy| self.disks[copy.drive as usize].is_active()) {
            if self.read_copy(*copy, offset, bytes).is_err()
                || first.as_deref().is_some_and(|first| first != bytes)
            {
                return false;
            }
            first = Some(bytes.to_vec());
        }
        first.is_some()
    }

    /// False when a page came alive or was pinned meanwhile, or more copies were asked for: then nothing happens.
    fn publish_moves(&self, moved: &[(&Victim, u16)], target: EgroupId) -> Result<bool> {
        let mut journal = self.journal.lock();
        let mut change = Change::new(self);
        for (victim, base) in moved {
            let now = change.egroup(victim.id)?.map(|record| record.clone());
            let Some(now) = now else { continue };
            let same = now.copies == victim.record.copies
                && now.protection() == victim.record.protection()
                && now.live.is_within(&victim.record.live);
            if !same || self.is_pinned(victim.id, &now) {
                return Ok(false);
            }
            if now.sources.is_empty() {
                change.move_source(victim.id, &victim.record.live, target, *base)?;
            } else {
                change.move_target(victim.id, &victim.record.live, target, *base)?;
            }
            change.freed.extend(&now.copies);
        }
        self.commit(&mut journal, change, &|| {})?;
        Ok(true)
    }
}

impl Change<'_> {
    /// An egroup that DATA records name: from now on its pages (those of `copied`, in order) lie in `target`.
    fn move_source(&mut self, id: EgroupId, copied: &PageSet, target: EgroupId, base: u16) -> Result<()> {
        let Some(record) = self.egroup(id)? else { return Ok(()) };
        record.state = EgroupState::Moved;
        record.copies = Vec::new();
        record.parts = vec![MovedPart { target, base, moved: copied.clone() }];
        let live: Vec<u16> = record.live.iter().map(|page| base + copied.rank(page)).collect();
        if live.is_empty() {
            self.emptied.push(id);
        }
        self.add_source(target, id, live)
    }

    /// An egroup that cleaning made: its sources are re-pointed, and it is gone.
    fn move_target(&mut self, id: EgroupId, copied: &PageSet, target: EgroupId, base: u16) -> Result<()> {
        let sources = self.egroup(id)?.map(|record| record.sources.clone()).unwrap_or_default();
        for source in sources {
            let Some(record) = self.egroup(source)? else { continue };
            let mut live = Vec::new();
            for part in record.parts.iter_mut().filter(|part| part.target == id) {
                let place = |page: u16| part.base + part.moved.rank(page);
                let kept: PageSet = part.moved.iter().filter(|page| copied.contains(place(*page))).collect();
                let first = kept.iter().next().map_or(0, |page| copied.rank(place(page)));
                *part = MovedPart { target, base: base + first, moved: kept };
                let row = part.moved.iter().filter(|page| record.live.contains(*page));
                live.extend(row.map(|page| part.base + part.moved.rank(page)));
            }
            self.add_source(target, source, live)?;
        }
        self.egroups.insert(id, None);
        Ok(())
    }

    fn add_source(&mut self, target: EgroupId, source: EgroupId, live: Vec<u16>) -> Result<()> {
        if let Some(record) = self.egroup(target)? {
            live.into_iter().for_each(|page| record.live.insert(page));
            if !record.sources.contains(&source) {
                record.sources.push(source);
            }
        }
        Ok(())
    }
}
