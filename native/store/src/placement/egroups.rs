//! Egroups: writing sealed ones, reading pages wherever they lie now.

use super::Pool;
use super::Draw;
use super::placing::Purpose;
use super::report::count;
use super::slots::Piece;
use crate::error::{Error, Kind, Result};
use crate::mutants::mutant;
use holdfast_device::DirectRead;
use holdfast_format::{EgroupId, Protection};
use holdfast_format::checksum::checksum;
use holdfast_format::egroup::{Birth, EgroupRecord, EgroupState, Footer, PageSet, footer_bytes};
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::table::SlotAddress;

/// Look-ups of a page's place before a read fails: it may be moved between look-up and read, but not twice
/// under a hold.
const RESOLVES: usize = 2;

/// What an egroup is to hold: whole pages, one after the other, with birth name and checksum of each.
pub(super) struct Sealed<'a> {
    pub pages: Vec<&'a [u8]>,
    pub births: Vec<(Birth, u64)>,
}

/// Consecutive pages in one slot.
struct Run {
    copies: Vec<SlotAddress>,
    /// First page in the slot, and number of pages.
    page: u16,
    count: usize,
}

impl Pool {
    /// Seals an egroup of `pages` (whole pages, at most [`Pool::egroup_pages_max`]) with one birth name each:
    /// durable
    /// on drives as the protection asks. It belongs to nobody until an edit references a page of it.
    ///
    /// Errors: `NoSpace`, `Unavailable` (too few drives), `Internal` (wrong lengths).
    pub fn write_egroup(
        &self,
        protection: impl Into<Protection>,
        pages: &[u8],
        births: &[Birth],
        draw: Draw,
    ) -> Result<EgroupId> {
        let protection = protection.into();
        let pages_count = pages.len() / BLOCK_BYTES;
        if pages.is_empty()
            || !pages.len().is_multiple_of(BLOCK_BYTES)
            || births.len() != pages_count
            || pages_count > self.egroup_pages_max()
        {
            let what = format!("an egroup of {} bytes and {} birth names", pages.len(), births.len());
            return Err(Error::new(Kind::Internal, what));
        }
        let sums = pages.chunks_exact(BLOCK_BYTES).map(checksum);
        let births = births.iter().copied().zip(sums).collect();
        let (ids, bytes) = self.write_summed(protection, vec![Sealed { pages: vec![pages], births }], draw)?;
        count(&self.counters.bytes_packed, bytes);
        ids.first().copied().ok_or_else(|| Error::new(Kind::Internal, "an egroup was written and has no name"))
    }

    /// As [`Pool::write_egroup`], several at once, with the checksums of the pages; also gives the bytes that went to
    /// drives. On an error none of them is anywhere.
    pub(super) fn write_summed(
        &self,
        protection: Protection,
        sealed: Vec<Sealed<'_>>,
        draw: Draw,
    ) -> Result<(Vec<EgroupId>, u64)> {
        let Protection { rf, domain } = protection;
        let (mut named, mut contents) = (Vec::with_capacity(sealed.len()), Vec::with_capacity(sealed.len()));
        for Sealed { pages, births } in sealed {
            let (id, incarnation) = (self.new_egroup_id(), self.rng.lock().next_u64());
            named.push((id, incarnation, births.len() as u16));
            let footer = Footer { pool: self.uuid, egroup: id, incarnation, births }.encode();
            contents.push((pages, footer));
        }
        let ends: Vec<[&[u8]; 1]> = contents.iter().map(|(_, footer)| [&footer[..]]).collect();
        let pieces = |at: usize| -> [Piece<'_>; 2] {
            let footer_at = self.slot_bytes - contents[at].1.len() as u32;
            [(0, &contents[at].0[..]), (footer_at, &ends[at][..])]
        };
        let pieces: Vec<[Piece<'_>; 2]> = (0..contents.len()).map(pieces).collect();
        let sets: Vec<&[Piece<'_>]> = pieces.iter().map(|pieces| &pieces[..]).collect();
        let placed = self.write_sealed_sets(Purpose { rf, domain, draw }, &sets)?;
        let bytes_of = |pieces: &[Piece<'_>; 2]| pieces.iter().flat_map(|piece| piece.1).map(|part| part.len() as u64).sum::<u64>();
        let bytes = pieces.iter().zip(&placed).map(|(pieces, copies)| bytes_of(pieces) * copies.len() as u64).sum();
        let mut unpublished = self.unpublished.lock();
        let mut ids = Vec::with_capacity(named.len());
        for ((id, incarnation, pages), copies) in named.into_iter().zip(placed) {
            let record = EgroupRecord {
                state: EgroupState::Data,
                rf,
                domain,
                shared: false,
                past: false,
                incarnation,
                pages,
                live: PageSet::default(),
                copies,
                sources: Vec::new(),
                parts: Vec::new(),
            };
            unpublished.insert(id, record);
            ids.push(id);
        }
        Ok((ids, bytes))
    }

    /// Gives back an egroup that was written and will not be referenced; nothing, if it is by now.
    pub fn discard_egroup(&self, id: EgroupId) {
        let record = self.unpublished.lock().remove(&id);
        if let Some(record) = record {
            self.give_back(&record.copies);
        }
    }

    fn run_of(&self, egroup: EgroupId, page: u16, count: usize) -> Result<Run> {
        let gone =
            |what: &str| Error::corrupt(format!("pool {}: page {page} of egroup {egroup} {what}", self.name));
        let record = self.egroup(egroup)?.ok_or_else(|| gone("does not exist"))?;
        if record.state != EgroupState::Moved {
            if page as usize >= record.pages as usize {
                return Err(gone("lies behind its end"));
            }
            let count = count.min(record.pages as usize - page as usize);
            return Ok(Run { copies: record.copies, page, count });
        }
        let (target, moved) = record.moved_to(page).ok_or_else(|| gone("was dropped when it moved"))?;
        let following =
            (1..count as u16).take_while(|step| record.moved_to(page + step) == Some((target, moved + step)));
        let count = 1 + following.count();
        let target = self.egroup(target)?.ok_or_else(|| gone("moved to an egroup that does not exist"))?;
        if target.state == EgroupState::Moved {
            return Err(gone("moved twice in a row"));
        }
        Ok(Run { copies: target.copies, page: moved, count })
    }

    /// Where a page lies now: copies, and page in the slot.
    pub(super) fn place_of(&self, egroup: EgroupId, page: u16) -> Result<(Vec<SlotAddress>, u16)> {
        self.run_of(egroup, page, 1).map(|run| (run.copies, run.page))
    }

    /// Fills `into` (whole pages) from `first_page` on, wherever the pages lie now. `verify` gets the index
    /// of a page
    /// in `into` and its bytes; a page that it rejects is read from the other copies, and mended.
    ///
    /// Errors: `Corrupt` when no copy of a page is right, `Unavailable` when none can be read.
    pub fn read_pages(
        &self,
        egroup: EgroupId,
        first_page: u16,
        into: &mut [u8],
        verify: &dyn Fn(usize, &[u8]) -> bool,
    ) -> Result<()> {
        debug_assert!(into.len().is_multiple_of(BLOCK_BYTES));
        let total = into.len() / BLOCK_BYTES;
        let mut done = 0;
        while done < total {
            let mut tries = 0;
            done += loop {
                // Also keeps the slots from being reused while they are read.
                let _hold = self.hold();
                tries += 1;
                let result = self.run_of(egroup, first_page + done as u16, total - done).and_then(|run| {
                    let part = &mut into[done * BLOCK_BYTES..(done + run.count) * BLOCK_BYTES];
                    self.read_run(&run, part, &|index, bytes| verify(done + index, bytes))?;
                    Ok(run.count)
                });
                match result {
                    Ok(count) => break count,
                    Err(error) if tries == RESOLVES => {
                        let what = format!("egroup {egroup}, page {}: {error}", first_page + done as u16);
                        return Err(Error::new(error.kind, what));
                    }
                    Err(_) => {}
                }
            };
        }
        Ok(())
    }

    /// The read of one copy that would most likely give these pages, or the first of them. `None`: it is not that simple.
    /// No hold is needed: whoever gets the bytes verifies them. Also the copy and the page in its slot, for what is to be
    /// told of them.
    pub fn direct_read(
        &self,
        egroup: EgroupId,
        first_page: u16,
        count: usize,
    ) -> Option<(DirectRead, (SlotAddress, u16))> {
        let run = self.run_of(egroup, first_page, count).ok()?;
        let copy = self.turn(&self.readable(&run.copies)).first().copied()?;
        let offset = run.page as u32 * BLOCK_BYTES as u32;
        let (drive, file, at) = self.disks.get(copy.drive as usize)?.place(copy.slot, offset)?;
        Some((drive.direct_read(file, at, run.count * BLOCK_BYTES)?, (copy, run.page)))
    }

    /// All pages in one read from one copy; pages that are wrong there, one by one from the others.
    fn read_run(&self, run: &Run, into: &mut [u8], verify: &dyn Fn(usize, &[u8]) -> bool) -> Result<()> {
        let mut order = self.turn(&run.copies);
        self.doubted_first(&mut order, run.page..run.page + run.count as u16);
        let offset = |index: usize| (run.page as usize + index) as u32 * BLOCK_BYTES as u32;
        let mut wrong: Vec<(SlotAddress, Vec<usize>)> = Vec::new();
        let raced = self.race(&order, offset(0), into, &mut |copy, bytes| {
            let pages = bytes.chunks_exact(BLOCK_BYTES).enumerate();
            let bad: Vec<usize> =
                pages.filter(|(index, page)| !mutant!(DropChecksum) && !verify(*index, page)).map(|(index, _)| index).collect();
            let right = bad.is_empty();
            if !right {
                count(&self.counters.checksum_failures, bad.len() as u64);
                wrong.push((copy, bad));
            }
            right
        })?;
        if raced.winner.is_some() {
            for (copy, index) in wrong.iter().flat_map(|(copy, bad)| bad.iter().map(move |index| (*copy, *index))) {
                self.mend(copy, offset(index), &into[index * BLOCK_BYTES..][..BLOCK_BYTES]);
            }
            raced.unreadable.into_iter().for_each(|copy| {
                self.mend(copy, offset(0), into);
            });
            return Ok(());
        }
        if let Some(error) = raced.error.filter(|_| wrong.is_empty() && raced.unreadable.is_empty()) {
            return Err(error);
        }
        // No copy is right as a whole: bad sectors and wrong pages on each, maybe not the same.
        for (index, page) in into.chunks_exact_mut(BLOCK_BYTES).enumerate() {
            let is_wrong = |copy: &SlotAddress| wrong.iter().any(|(bad, pages)| bad == copy && pages.contains(&index));
            let (known_wrong, rest): (Vec<SlotAddress>, Vec<SlotAddress>) =
                order.iter().copied().partition(|copy| is_wrong(copy));
            let read = self.read_in_order(&rest, offset(index), page, &|bytes| verify(index, bytes));
            read.map_err(|error| if known_wrong.is_empty() { error } else { self.all_bad(run, index) })?;
            known_wrong.into_iter().for_each(|copy| {
                self.mend(copy, offset(index), page);
            });
        }
        Ok(())
    }

    fn all_bad(&self, run: &Run, index: usize) -> Error {
        let page = run.page as usize + index;
        Error::corrupt(format!("no copy of page {page} in slots {:?} has the right content", run.copies))
    }

    /// The footer of a data egroup, from a copy that has it whole.
    pub fn read_footer(&self, egroup: EgroupId) -> Result<Footer> {
        let _hold = self.hold();
        let record = self.egroup(egroup)?.filter(|record| record.state == EgroupState::Data);
        let record = record
            .ok_or_else(|| Error::new(Kind::NotFound, format!("egroup {egroup} is not a sealed one")))?;
        self.footer_of(egroup, &record)
    }

    pub(super) fn footer_of(&self, egroup: EgroupId, record: &EgroupRecord) -> Result<Footer> {
        let bytes = footer_bytes(record.pages as usize);
        let mut into = vec![0; bytes];
        let ours = |footer: &Footer| {
            (footer.pool, footer.egroup, footer.incarnation) == (self.uuid, egroup, record.incarnation)
        };
        let verify = |bytes: &[u8]| Footer::decode(bytes).is_ok_and(|footer| ours(&footer));
        self.read_slot(&record.copies, self.slot_bytes - bytes as u32, &mut into, &verify)?;
        Footer::decode(&into).map_err(|error| Error::decode(&format!("footer of egroup {egroup}"), error))
    }
}
