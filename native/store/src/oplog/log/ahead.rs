//! Making segments ready before the log comes to them: the first write into preallocated blocks changes the file system's
//! own metadata, and small frames would wait for that each time. Two ways, neither of which touches pages that a frame was
//! begun for:
//! - segments in stock, in steps, by a flusher that has nothing else to do: at once when frames are small, after a rest
//!   when they are large, since in front of a stream it would double the drives' work;
//! - what comes next in the open segment, right before the first small frame there, if nobody had the time before.
//!
//! Blocks that were written before cost nothing but a look. A log of a few frames is left alone: a clone that nobody writes to
//! would cost 16 MiB of zeroes.

use super::Log;
use crate::error::Result;
use crate::placement::Segment;
use holdfast_format::EgroupId;
use holdfast_format::limits::BLOCK_BYTES;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a segment that one step makes ready.
const STEP_BYTES: usize = 256 << 10;
/// The same in pages: what is made ready at a time in an open segment.
const STEP_PAGES: u32 = (STEP_BYTES / BLOCK_BYTES) as u32;
/// Segments of the stock that are made ready, the next ones.
const SEGMENTS_AHEAD: usize = 8;
/// Frames that a log begins before anything is made ready for it.
const FRAMES_BEFORE: u32 = 8;
/// Frames of more pages than this on average are a stream.
const SMALL_FRAME_PAGES: u32 = 16;

#[derive(Default)]
pub(super) struct Ahead {
    /// The segment that steps are being made in, and the bytes that are ready.
    current: Option<(EgroupId, usize)>,
    /// Segments that are ready.
    ready: Vec<EgroupId>,
}

/// How the log is written to, since the start.
#[derive(Default)]
pub(super) struct Habit {
    /// Pages of the newest frames, on average.
    frame_pages: AtomicU32,
    frames: AtomicU32,
    /// Segments that were taken: the more, the more at a time.
    pub segments: AtomicU32,
}

impl Log {
    /// A frame of so many pages was begun.
    pub(super) fn note_frame(&self, pages: u32) {
        let habit = &self.habit;
        let average = habit.frame_pages.load(Ordering::Relaxed);
        let rounded_up = (average * 7 + pages).div_ceil(8);
        habit.frame_pages.store(rounded_up, Ordering::Relaxed);
        let frames = habit.frames.load(Ordering::Relaxed);
        habit.frames.store(frames.saturating_add(1), Ordering::Relaxed);
    }

    /// Waits for the step in progress, if there is one.
    pub(super) fn end_step(&self) {
        drop(self.ahead.lock());
    }

    fn is_busy(&self) -> bool {
        self.habit.frames.load(Ordering::Relaxed) >= FRAMES_BEFORE
    }

    fn frames_are_small(&self) -> bool {
        self.habit.frame_pages.load(Ordering::Relaxed) <= SMALL_FRAME_PAGES
    }

    /// Makes pages of an open segment ready, where a small frame comes to a part of it for the first time: from `first` on,
    /// which no frame was begun for, at least up to `end`.
    pub(super) fn make_ready(&self, segment: &Segment, first: u32, end: u32) {
        let new = first.is_multiple_of(STEP_PAGES) || first / STEP_PAGES != (end - 1) / STEP_PAGES;
        if !new || !self.is_busy() || !self.frames_are_small() {
            return;
        }
        let from = first.next_multiple_of(STEP_PAGES);
        let pages = end.next_multiple_of(STEP_PAGES).min(self.slot_pages) - from;
        // Nothing depends on it; a drive that failed this fails the frame, too.
        let _ = self.pool.prefill_segment(segment, from * BLOCK_BYTES as u32, pages * BLOCK_BYTES as u32);
    }

    /// Makes one step in the stock; false when nothing is left to do. `rested`: there was no frame for a while.
    ///
    /// Errors: those of the drives. Nothing depends on a step; a drive that failed it fails the next frame, too.
    pub fn prepare_step(&self, rested: bool) -> Result<bool> {
        if !self.is_busy() || !(rested || self.frames_are_small()) {
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
