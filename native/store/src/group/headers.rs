//! The group's header stream: what was done from an LSN on, without what was written (`replica/loss.rs` says what for).
//!
//! - It runs ahead of what is durable: newer ops come from a list in memory that the commit appends to, once somebody has asked.
//! - What that list does not have any more comes out of the log's frames on the drives, as far as they are durable. Nothing of that
//!   takes a lock that writers wait for: the list's is held for a few hundred lines at a time, the log's writer's to list segments.
//! - What the log does not have any more is told as a gap, of which only the LSNs are known.

use super::Group;
use crate::error::{Error, Kind, Result};
use crate::ledger::Ledger;
use crate::oplog::log::FramedSegment;
use crate::replica::loss::{Losses, content_bytes};
use holdfast_format::frame::FrameHeader;
use holdfast_format::header::{HeaderFrame, HeaderLine, chain_start};
use holdfast_format::limits::{BLOCK_BYTES, HEADER_FRAME_BYTES_MAX, HEADER_FRAME_BYTES_MIN};
use holdfast_format::op::{Op, OpHeader};
use holdfast_format::wire::Take;
use holdfast_format::{EgroupId, Lsn};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ops that the list has: 1.3 MiB.
const RECENT_MAX: usize = 32_768;
/// When nobody has read it for so many ops, it is given up until somebody asks again.
const UNREAD_MAX: u64 = 16 * RECENT_MAX as u64;
/// Lines that are copied under one lock, and taken at a time.
const LINES_AT_ONCE: usize = 512;
/// Bytes that a line takes in a frame at least.
const LINE_BYTES_MIN: usize = 3;
/// Ops that one summary covers at most: so long it takes to make.
const SUMMARY_OPS_MAX: u64 = 1 << 20;
/// A segment is released while it is looked for, so often at most.
const TRIES_MAX: usize = 3;

/// What a reader of the stream asks for.
#[derive(Clone, Copy, Debug)]
pub struct HeaderRequest {
    /// LSN.
    pub from: u64,
    /// The chain of the frame before; `None`: the stream begins.
    pub previous: Option<u64>,
    pub bytes_max: usize,
    /// Where not all that is new fits into a frame, a summary of all of it instead of the first part.
    pub summarize: bool,
}

#[derive(Default)]
pub(super) struct Headers {
    is_on: AtomicBool,
    recent: Mutex<Recent>,
    /// Where the newest reading of the log ended.
    place: Mutex<Option<LogPlace>>,
}

/// Newest ops, without gaps.
#[derive(Default)]
struct Recent {
    lines: VecDeque<HeaderLine>,
    newest: Lsn,
    unread: u64,
}

impl Recent {
    fn first(&self) -> Lsn {
        Lsn(self.newest.0 + 1 - self.lines.len() as u64)
    }
}

/// A frame of the log.
#[derive(Clone, Copy, Debug)]
struct LogPlace {
    segment: EgroupId,
    page: u32,
    /// Chain before it.
    chain: u64,
    first: Lsn,
}

/// What comes next in the stream.
enum Next {
    Lines(Vec<HeaderLine>),
    /// LSNs up to here are in no log any more.
    Gap(Lsn),
}

fn line_of(header: &OpHeader) -> HeaderLine {
    let &OpHeader { kind, branch, ino, length, time, .. } = header;
    HeaderLine { kind, branch, ino, bytes: content_bytes(kind, length), time }
}

impl Headers {
    /// The caller holds the commit lock.
    pub(super) fn note(&self, header: &OpHeader) {
        if !self.is_on.load(Ordering::Relaxed) {
            return;
        }
        let mut recent = self.recent.lock();
        if recent.newest.0 + 1 != header.lsn.0 {
            recent.lines.clear();
        }
        if recent.lines.len() == RECENT_MAX {
            recent.lines.pop_front();
        }
        recent.lines.push_back(line_of(header));
        recent.newest = header.lsn;
        recent.unread += 1;
        if recent.unread > UNREAD_MAX {
            self.is_on.store(false, Ordering::Relaxed);
            *recent = Recent::default();
        }
    }

    /// Up to `count` lines from an LSN on; `None`: the list does not go back so far.
    fn recent(&self, from: Lsn, count: usize) -> Option<Vec<HeaderLine>> {
        let mut found = Vec::new();
        loop {
            let mut recent = self.recent.lock();
            recent.unread = 0;
            let at = Lsn(from.0 + found.len() as u64);
            if at < recent.first() || recent.lines.is_empty() {
                // What it had a moment ago may be pushed out meanwhile.
                return if found.is_empty() { None } else { Some(found) };
            }
            let skip = (at.0 - recent.first().0) as usize;
            let some = LINES_AT_ONCE.min(count - found.len());
            let before = found.len();
            found.extend(recent.lines.range(skip.min(recent.lines.len())..).take(some));
            if found.len() == before || found.len() == count {
                return Some(found);
            }
        }
    }
}

impl Group {
    /// The next frame of the stream; `None`: nothing is new.
    ///
    /// # Errors
    /// `Fenced`: the group is a replica; `Invalid`: a frame of a size that cannot be.
    pub fn headers(&self, request: &HeaderRequest) -> Result<Option<Vec<u8>>> {
        self.refuse_on_replica("its owner tells what is done")?;
        if !(HEADER_FRAME_BYTES_MIN..=HEADER_FRAME_BYTES_MAX).contains(&request.bytes_max) || request.from == 0 {
            let what = format!("a header frame has {HEADER_FRAME_BYTES_MIN} to {HEADER_FRAME_BYTES_MAX} bytes");
            return Err(Error::invalid(what));
        }
        self.headers.is_on.store(true, Ordering::Relaxed);
        let newest = self.newest();
        let from = Lsn(request.from);
        if from > newest {
            return Ok(None);
        }
        let lineage = self.lineage();
        let frame = HeaderFrame {
            lineage,
            first: from,
            last: from,
            newest,
            made: self.now(),
            previous: request.previous.unwrap_or_else(|| chain_start(lineage, from)),
            chain: 0,
        };
        match self.next_headers(from, request.bytes_max / LINE_BYTES_MIN)? {
            Some(Next::Lines(lines)) => self.lines_frame(frame, lines, request).map(Some),
            Some(Next::Gap(last)) => {
                let mut losses = Losses::new(Lsn(from.0 - 1));
                losses.add_gap(last);
                Ok(Some(summary_frame(frame, &losses, request.bytes_max)))
            }
            None => Ok(None),
        }
    }

    /// As many lines as fit, or a summary of all that there are.
    fn lines_frame(&self, frame: HeaderFrame, mut lines: Vec<HeaderLine>, request: &HeaderRequest) -> Result<Vec<u8>> {
        loop {
            let newest = frame.newest.0.max(frame.first.0 + lines.len() as u64 - 1);
            let frame = HeaderFrame { newest: Lsn(newest), ..frame };
            let bytes = frame.encode_lines(&lines);
            let is_all = frame.first.0 + lines.len() as u64 > newest;
            if bytes.len() <= request.bytes_max && (is_all || !request.summarize) {
                return Ok(bytes);
            }
            if request.summarize {
                return self.summarized(frame, request.bytes_max);
            }
            let fitting = lines.len() * request.bytes_max / bytes.len();
            lines.truncate((fitting * 15 / 16).max(1));
        }
    }

    fn summarized(&self, frame: HeaderFrame, bytes_max: usize) -> Result<Vec<u8>> {
        let mut losses = Losses::new(Lsn(frame.first.0 - 1));
        self.add_losses(&mut losses, Lsn(frame.newest.0.min(frame.first.0 + SUMMARY_OPS_MAX)))?;
        Ok(summary_frame(frame, &losses, bytes_max))
    }

    /// Adds what was done up to `until`, as far as it can be told yet.
    pub fn add_losses(&self, losses: &mut Losses, until: Lsn) -> Result<()> {
        while losses.last() < until {
            let from = Lsn(losses.last().0 + 1);
            let count = (until.0 - losses.last().0).min(LINES_AT_ONCE as u64 * 16) as usize;
            match self.next_headers(from, count)? {
                Some(Next::Lines(lines)) => {
                    let lsns = (from.0..=until.0).map(Lsn);
                    lsns.zip(&lines).for_each(|(lsn, line)| losses.add_line(lsn, line));
                }
                Some(Next::Gap(last)) => losses.add_gap(last.min(until)),
                None => break,
            }
        }
        Ok(())
    }

    fn next_headers(&self, from: Lsn, count: usize) -> Result<Option<Next>> {
        if let Some(lines) = self.headers.recent(from, count) {
            return Ok((!lines.is_empty()).then_some(Next::Lines(lines)));
        }
        // What is on its way to the drives can be read when it is there.
        let durable = self.durable();
        if from > durable {
            return Ok(None);
        }
        self.headers_in_log(from, durable, count).map(Some)
    }

    fn headers_in_log(&self, from: Lsn, durable: Lsn, count: usize) -> Result<Next> {
        let _hold = self.pool.hold();
        for _ in 0..TRIES_MAX {
            let segments = self.log.framed_segments(from);
            let Some(start) = self.log_start(&segments, from) else { return Ok(Next::Gap(durable)) };
            if let Some(next) = self.walk_log(&segments, start, (from, durable), count)? {
                return Ok(next);
            }
        }
        // It is released as fast as it is looked for: all of it is in tables.
        Ok(Next::Gap(durable))
    }

    /// Where to begin: at the frame where the last reading ended, else at the begin of the segment.
    fn log_start(&self, segments: &[FramedSegment], from: Lsn) -> Option<LogPlace> {
        let first = segments.first()?;
        let begin = LogPlace { segment: first.egroup, page: 0, chain: first.chain_before, first: Lsn(0) };
        let known = (*self.headers.place.lock()).filter(|place| place.segment == first.egroup && place.first <= from);
        Some(known.unwrap_or(begin))
    }

    /// Lines out of frames; `None`: a segment was released meanwhile.
    fn walk_log(
        &self,
        segments: &[FramedSegment],
        mut place: LogPlace,
        (from, durable): (Lsn, Lsn),
        count: usize,
    ) -> Result<Option<Next>> {
        let mut lines = Vec::new();
        let mut next = from;
        for segment in segments {
            if segment.egroup != place.segment {
                place = LogPlace { segment: segment.egroup, page: 0, chain: segment.chain_before, first: Lsn(0) };
            }
            let until = segment.last_lsn.min(durable);
            while next <= until && lines.len() < count {
                let Some((header, bytes)) = self.frame_at(&place)? else { return Ok(None) };
                place.first = header.first_lsn;
                *self.headers.place.lock() = Some(place);
                if header.op_count > 0 && header.first_lsn > next {
                    // Only the first frame of all can be so far on.
                    return Ok(Some(Next::Gap(Lsn(header.first_lsn.0 - 1))));
                }
                take_lines(&header, &bytes, &mut next, count, &mut lines)?;
                place = LogPlace { page: place.page + header.pages() as u32, chain: header.chain, ..place };
            }
        }
        Ok(Some(if lines.is_empty() { Next::Gap(durable) } else { Next::Lines(lines) }))
    }

    /// A frame that is durable, but for its payload; `None`: its segment is no part of the log any more.
    fn frame_at(&self, place: &LogPlace) -> Result<Option<(FrameHeader, Vec<u8>)>> {
        let record = self.pool.group(self.id);
        let segments = record.iter().flat_map(|record| &record.segments);
        let Some(segment) = segments.into_iter().find(|segment| segment.egroup == place.segment) else { return Ok(None) };
        let offset = place.page * BLOCK_BYTES as u32;
        let mut bytes = vec![0; BLOCK_BYTES];
        let is_next = |bytes: &[u8]| {
            FrameHeader::decode(bytes).is_ok_and(|header| header.group == self.id && header.previous_chain == place.chain)
        };
        self.pool.read_slot(&segment.copies, offset, &mut bytes, &is_next)?;
        let header = FrameHeader::decode(&bytes).map_err(|error| Error::decode("a frame of the log", error))?;
        if header.head_bytes() > bytes.len() {
            bytes.resize(header.head_bytes(), 0);
            let is_whole = |bytes: &[u8]| is_next(bytes) && header.ops(bytes).is_ok();
            self.pool.read_slot(&segment.copies, offset, &mut bytes, &is_whole)?;
        }
        Ok(Some((header, bytes)))
    }
}

/// The frame's ops from `next` on.
fn take_lines(header: &FrameHeader, bytes: &[u8], next: &mut Lsn, count: usize, lines: &mut Vec<HeaderLine>) -> Result<()> {
    let broken = |error| Error::decode("an operation in the log", error);
    let mut take = Take::new(header.ops(bytes).map_err(broken)?);
    for _ in 0..header.op_count {
        let op = Op::take(&mut take).map_err(broken)?;
        if op.header.lsn == *next && lines.len() < count {
            lines.push(line_of(&op.header));
            next.0 += 1;
        }
    }
    if lines.is_empty() && header.op_count > 0 && header.end_lsn() > *next {
        return Err(Error::new(Kind::Corrupt, format!("the log has no LSN {next} where it should be")));
    }
    Ok(())
}

fn summary_frame(frame: HeaderFrame, losses: &Losses, bytes_max: usize) -> Vec<u8> {
    HeaderFrame { last: losses.last(), ..frame }.encode_summary(&losses.summary(bytes_max))
}
