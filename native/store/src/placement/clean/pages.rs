//! The pages that cleaning moves: read a few egroups at a time, each page known to be right, with the name that records
//! use for it.

use super::Victim;
use super::sparse::Slot;
use crate::error::Result;
use crate::metadata::io::PageName;
use crate::oplog::births::segment_births;
use crate::placement::Pool;
use holdfast_device::AlignedBuffer;
use holdfast_format::checksum::checksum;
use holdfast_format::egroup::{Birth, EgroupRecord, Footer, footer_bytes};
use holdfast_format::limits::BLOCK_BYTES;
use std::collections::BTreeMap;

/// Egroups that are read at once.
const READ_AT_ONCE: usize = 4;

/// A live page of a victim.
pub(super) struct LivePage {
    /// The egroup and page that records name: the victim's own, or those of the source that moved into it.
    pub name: PageName,
    pub birth: Birth,
    pub checksum: u64,
    /// Which of [`LivePages::memory`], and the page there.
    memory: usize,
    at: usize,
}

/// Live pages of some victims, in memory that direct writes take without a copy.
#[derive(Default)]
pub(super) struct LivePages {
    pub list: Vec<LivePage>,
    /// Of each victim that could be read.
    memory: Vec<AlignedBuffer>,
}

impl LivePages {
    /// The bytes of these pages, one after the other, in as few slices as they lie in.
    pub fn slices(&self, pages: impl Iterator<Item = usize>) -> Vec<&[u8]> {
        let mut runs: Vec<(usize, usize, usize)> = Vec::new();
        for page in pages.map(|at| &self.list[at]) {
            match runs.last_mut() {
                Some((memory, from, count)) if *memory == page.memory && *from + *count == page.at => *count += 1,
                _ => runs.push((page.memory, page.at, 1)),
            }
        }
        let slice = |(memory, from, count): (usize, usize, usize)| {
            &self.memory[memory][from * BLOCK_BYTES..][..count * BLOCK_BYTES]
        };
        runs.into_iter().map(slice).collect()
    }
}

/// What the pages of a victim are, by page.
type Births = BTreeMap<u16, (Birth, u64)>;

impl Pool {
    /// The live pages of those victims whose pages are known to be right, and how many of the victims that are, by a flag
    /// each.
    pub(super) fn live_pages(&self, victims: &[Victim]) -> Result<(LivePages, Vec<bool>)> {
        let mut pages = LivePages::default();
        let mut right = Vec::with_capacity(victims.len());
        let width = READ_AT_ONCE.min(victims.len());
        let mut images: Vec<AlignedBuffer> =
            (0..width).map(|_| AlignedBuffer::zeroed(self.slot_bytes as usize)).collect();
        for some in victims.chunks(READ_AT_ONCE) {
            // Until the pages were checked: what is wrong is mended, and must still be the victim's.
            let _hold = self.hold();
            let slots = some.iter().zip(&mut images).filter_map(|(victim, image)| {
                let first = self.turn(&victim.record.copies).first().copied()?;
                Some(Slot::new(self, first, victim, image))
            });
            let read = self.read_sparsely(slots.collect());
            for (victim, (image, read)) in some.iter().zip(images.iter_mut().zip(&read)) {
                let whole = read.is_ok() || self.any_image(victim, image);
                right.push(self.take_pages(victim, image, whole, &mut pages)?);
            }
        }
        Ok((pages, right))
    }

    /// Reads the slot from whichever copy can be read.
    fn any_image(&self, victim: &Victim, image: &mut [u8]) -> bool {
        self.turn(&victim.record.copies).into_iter().any(|copy| self.read_copy(copy, 0, image).is_ok())
    }

    /// Adds the victim's live pages; false, and nothing, when it cannot be known that they are right.
    fn take_pages(&self, victim: &Victim, image: &[u8], whole: bool, pages: &mut LivePages) -> Result<bool> {
        let record = &victim.record;
        let Some(names) = self.names_of_pages(victim)? else { return Ok(false) };
        let births = if self.is_segment(record) {
            self.births_of_segment(victim, whole.then_some(image))
        } else {
            self.births_of_footer(victim, image)
        };
        let Some(births) = births else { return Ok(false) };
        let mut memory = AlignedBuffer::zeroed(names.len() * BLOCK_BYTES);
        let mut found = Vec::with_capacity(names.len());
        for (at, (page, name)) in names.into_iter().enumerate() {
            let bytes = &image[page as usize * BLOCK_BYTES..][..BLOCK_BYTES];
            let into = &mut memory[at * BLOCK_BYTES..][..BLOCK_BYTES];
            let Some((birth, checksum)) = self.right_page(record, page, &births, bytes, into) else {
                return Ok(false);
            };
            found.push(LivePage { name, birth, checksum, memory: pages.memory.len(), at });
        }
        pages.memory.push(memory);
        pages.list.extend(found);
        Ok(true)
    }

    /// Live pages and the names that records use for them. `None`: a record of a source does not fit.
    fn names_of_pages(&self, victim: &Victim) -> Result<Option<Vec<(u16, PageName)>>> {
        let live = &victim.record.live;
        if victim.record.sources.is_empty() {
            return Ok(Some(live.iter().map(|page| (page, (victim.id, page))).collect()));
        }
        let mut names: BTreeMap<u16, PageName> = BTreeMap::new();
        for source in &victim.record.sources {
            let Some(record) = self.egroup(*source)? else { continue };
            for part in record.parts.iter().filter(|part| part.target == victim.id) {
                for (at, page) in (part.base..).zip(part.moved.iter()).filter(|(at, _)| live.contains(*at)) {
                    names.insert(at, (*source, page));
                }
            }
        }
        Ok((names.len() == live.len()).then(|| names.into_iter().collect()))
    }

    /// From the image's end, or from a copy whose footer is whole.
    fn births_of_footer(&self, victim: &Victim, image: &[u8]) -> Option<Births> {
        let (id, record) = (victim.id, &victim.record);
        let from = image.len() - footer_bytes(record.pages as usize);
        let ours = |footer: &Footer| {
            (footer.pool, footer.egroup, footer.incarnation) == (self.uuid, id, record.incarnation)
        };
        let footer = Footer::decode(&image[from..]).ok().filter(ours);
        let footer = footer.or_else(|| self.footer_of(id, record).ok())?;
        Some((0..).zip(footer.births).collect())
    }

    /// From the frames, of the image and, where it lacks some, of every copy.
    fn births_of_segment(&self, victim: &Victim, image: Option<&[u8]>) -> Option<Births> {
        let record = &victim.record;
        let mut births = Births::new();
        let mut add = |image: &[u8]| {
            let found = segment_births(victim.id, record.incarnation, image);
            births.extend(found.into_iter().map(|found| (found.page, (found.birth, found.checksum))));
            record.live.iter().all(|page| births.contains_key(&page))
        };
        if image.is_some_and(&mut add) {
            return Some(births);
        }
        let mut other = vec![0; self.slot_bytes as usize];
        for copy in &record.copies {
            if self.read_copy(*copy, 0, &mut other).is_ok() && add(&other) {
                break;
            }
        }
        Some(births)
    }

    /// Puts the page into `into`, from the image or from whichever copy is right. A page that no frame describes is right
    /// when all copies agree, if nothing in the segment is described: its frames lie in a segment of another series.
    fn right_page(
        &self,
        record: &EgroupRecord,
        page: u16,
        births: &Births,
        bytes: &[u8],
        into: &mut [u8],
    ) -> Option<(Birth, u64)> {
        let offset = page as u32 * BLOCK_BYTES as u32;
        let Some((birth, sum)) = births.get(&page).copied() else {
            let agreed = births.is_empty() && self.copies_agree(record, offset, into);
            return agreed.then(|| (Birth::default(), checksum(into)));
        };
        if checksum(bytes) == sum {
            into.copy_from_slice(bytes);
        } else {
            self.read_slot(&record.copies, offset, into, &|bytes| checksum(bytes) == sum).ok()?;
        }
        Some((birth, sum))
    }

    /// Segments count every page of the slot, data egroups leave room for the footer.
    pub(in crate::placement) fn is_segment(&self, record: &EgroupRecord) -> bool {
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
}
