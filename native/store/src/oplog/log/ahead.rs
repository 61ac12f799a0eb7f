//! Making segments ready before the log comes to them: the first write into preallocated blocks waits for the file
//! system's journal. Done by a flusher that has nothing else to do, in steps, and only for small frames: in front of a
//! stream it would double the drives' work. Only segments in stock: where a segment is open, frames are in flight.

use super::Log;
use crate::error::Result;
use holdfast_format::EgroupId;
use holdfast_format::limits::BLOCK_BYTES;
use std::sync::atomic::Ordering;

/// Bytes of a segment that one step makes ready.
const STEP_BYTES: usize = 256 << 10;
/// Segments of the stock that are made ready, the next ones.
const SEGMENTS_AHEAD: usize = 2;
/// Frames of more pages than this on average are a stream.
const SMALL_FRAME_PAGES: u32 = 16;

#[derive(Default)]
pub(super) struct Ahead {
    /// The segment that steps are being made in, and the bytes that are ready.
    current: Option<(EgroupId, usize)>,
    /// Segments that are ready.
    ready: Vec<EgroupId>,
}

impl Log {
    /// A frame of so many pages was begun.
    pub(super) fn note_frame(&self, pages: u32) {
        let average = self.frame_pages.load(Ordering::Relaxed);
        let rounded_up = (average * 7 + pages).div_ceil(8);
        self.frame_pages.store(rounded_up, Ordering::Relaxed);
    }

    /// Waits for the step in progress, if there is one.
    pub(super) fn end_step(&self) {
        drop(self.ahead.lock());
    }

    /// Makes one step; false when nothing is left to do.
    ///
    /// Errors: those of the drives. Nothing depends on a step; a drive that failed it fails the next frame, too.
    pub fn prepare_step(&self) -> Result<bool> {
        let pages = self.frame_pages.load(Ordering::Relaxed);
        if pages == 0 || pages > SMALL_FRAME_PAGES {
            return Ok(false);
        }
        let class = self.header_rf() as usize - 1;
        let mut ahead = self.ahead.lock();
        let segment = {
            let reservation = self.reservation.lock();
            let mut next = reservation.stock[class].iter().take(SEGMENTS_AHEAD);
            next.find(|segment| !ahead.ready.contains(&segment.egroup)).cloned()
        };
        let Some(segment) = segment else { return Ok(false) };
        let begun = ahead.current.filter(|(egroup, _)| *egroup == segment.egroup);
        let done = begun.map_or(0, |(_, done)| done);
        self.pool.prefill_segment(&segment, done as u32, STEP_BYTES as u32)?;
        let done = done + STEP_BYTES;
        if done < self.slot_pages as usize * BLOCK_BYTES {
            ahead.current = Some((segment.egroup, done));
            return Ok(true);
        }
        ahead.current = None;
        if ahead.ready.len() == SEGMENTS_AHEAD {
            ahead.ready.remove(0);
        }
        ahead.ready.push(segment.egroup);
        Ok(true)
    }
}
