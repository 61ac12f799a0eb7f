//! What cleaning reads of a slot that is mostly dead: the heads of its frames, or the footer, and its live pages. A slot
//! whose pages lie too close together, or whose frames are small, is read whole.
//!
//! Bytes of a slot that were not read are whatever the memory held before: nothing is believed that its checksum, and the
//! incarnation in its frame's head, does not bear out.

use super::Victim;
use crate::error::Result;
use crate::placement::Pool;
use holdfast_format::egroup::footer_bytes;
use holdfast_format::frame::FrameHeader;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::table::SlotAddress;
use std::ops::Range;

/// Dead pages between two live ones that are read with them: a read costs about as much.
const GAP_PAGES: usize = 4;
/// A slot of which more than this part would be read is read whole.
const PART_MAX: (usize, usize) = (1, 2);
/// Frames of a slot at most; with more of them heads are most of what is read.
const FRAMES_MAX: usize = 16;
/// Read of a frame before it is known how long its head is.
const HEAD_PAGES: usize = 8;

/// One slot that is being read.
pub(super) struct Slot<'a> {
    pub copy: SlotAddress,
    pub victim: &'a Victim,
    pub image: &'a mut [u8],
    plan: Plan,
}

enum Plan {
    Whole,
    /// The frame whose head is next begins at this page.
    Heads { page: usize, frames: usize, runs: Vec<Range<usize>> },
    Runs(Vec<Range<usize>>),
    Done(Result<()>),
}

impl<'a> Slot<'a> {
    pub fn new(pool: &Pool, copy: SlotAddress, victim: &'a Victim, image: &'a mut [u8]) -> Self {
        let record = &victim.record;
        let pages = image.len() / BLOCK_BYTES;
        let mut runs = runs_of(record.live.iter().map(usize::from));
        let is_segment = pool.is_segment(record);
        if !is_segment {
            runs.push((image.len() - footer_bytes(record.pages as usize)) / BLOCK_BYTES..pages);
        }
        let total: usize = runs.iter().map(Range::len).sum();
        let plan = match is_segment {
            _ if total * PART_MAX.1 > pages * PART_MAX.0 => Plan::Whole,
            true => Plan::Heads { page: 0, frames: 0, runs },
            false => Plan::Runs(runs),
        };
        Self { copy, victim, image, plan }
    }

    /// The pages to read now; none when all is there.
    fn wanted(&self) -> Vec<Range<usize>> {
        let pages = self.image.len() / BLOCK_BYTES;
        match &self.plan {
            Plan::Whole => std::iter::once(0..pages).collect(),
            Plan::Heads { page, .. } => std::iter::once(*page..(page + HEAD_PAGES).min(pages)).collect(),
            Plan::Runs(runs) => runs.clone(),
            Plan::Done(_) => Vec::new(),
        }
    }

    /// They are there, or could not be read. `rest` reads what a head is longer than was guessed.
    fn arrived(&mut self, read: Result<()>, rest: impl FnOnce(Range<usize>, &mut [u8]) -> Result<()>) {
        let pages = self.image.len() / BLOCK_BYTES;
        self.plan = match (std::mem::replace(&mut self.plan, Plan::Whole), read) {
            (plan @ Plan::Done(_), _) => plan,
            (Plan::Whole | Plan::Runs(_), read) => Plan::Done(read),
            (Plan::Heads { .. }, Err(error)) => Plan::Done(Err(error)),
            (Plan::Heads { page, frames, runs }, Ok(())) => {
                let header = FrameHeader::decode_any(&self.image[page * BLOCK_BYTES..]).ok();
                match header.filter(|header| header.incarnation == self.victim.record.incarnation) {
                    // Behind the last frame. Live pages that no head told of are looked for in the whole slot.
                    None => Plan::Runs(runs),
                    Some(header) => {
                        let (head_pages, next) = (header.head_bytes() / BLOCK_BYTES, page + header.pages());
                        let missing = page + HEAD_PAGES..(page + head_pages).min(pages);
                        let bytes = missing.start.min(pages) * BLOCK_BYTES..missing.end * BLOCK_BYTES;
                        let done = if missing.is_empty() { Ok(()) } else { rest(missing, &mut self.image[bytes]) };
                        match done {
                            Err(error) => Plan::Done(Err(error)),
                            Ok(()) if next >= pages => Plan::Runs(runs),
                            Ok(()) if frames + 1 == FRAMES_MAX => Plan::Whole,
                            Ok(()) => Plan::Heads { page: next, frames: frames + 1, runs },
                        }
                    }
                }
            }
        };
    }
}

/// Pages in order, put together where they lie close to each other.
fn runs_of(pages: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some(run) if page - run.end <= GAP_PAGES => run.end = page + 1,
            _ => runs.push(page..page + 1),
        }
    }
    runs
}

impl Pool {
    /// Reads what is needed of some slots, at once.
    pub(super) fn read_sparsely(&self, mut slots: Vec<Slot<'_>>) -> Vec<Result<()>> {
        while slots.iter().any(|slot| !matches!(slot.plan, Plan::Done(_))) {
            let wanted: Vec<Vec<Range<usize>>> = slots.iter().map(Slot::wanted).collect();
            let mut reads = Vec::new();
            for (slot, runs) in slots.iter_mut().zip(&wanted) {
                let (copy, mut left, mut at) = (slot.copy, &mut *slot.image, 0);
                for run in runs {
                    let (_, from) = std::mem::take(&mut left).split_at_mut((run.start - at) * BLOCK_BYTES);
                    let (into, behind) = from.split_at_mut(run.len() * BLOCK_BYTES);
                    (left, at) = (behind, run.end);
                    reads.push((copy, (run.start * BLOCK_BYTES) as u32, into));
                }
            }
            let mut results = self.read_pieces(reads).into_iter();
            for (slot, runs) in slots.iter_mut().zip(&wanted) {
                // Each run has a result, also behind one that failed.
                let mut read = Ok(());
                for _ in runs {
                    let one = results.next().unwrap_or(Ok(()));
                    read = read.and(one);
                }
                let copy = slot.copy;
                slot.arrived(read, |pages, into| self.read_copy(copy, (pages.start * BLOCK_BYTES) as u32, into));
            }
        }
        let done = slots.into_iter().map(|slot| match slot.plan {
            Plan::Done(read) => read,
            _ => Ok(()),
        });
        done.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_lie_close_are_one_run() {
        assert_eq!(runs_of([].into_iter()), []);
        assert_eq!(runs_of([3, 4, 9, 14, 30].into_iter()), [3..15, 30..31]);
        assert_eq!(runs_of([0, 6].into_iter()), [0..1, 6..7]);
    }
}
