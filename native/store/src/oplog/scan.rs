//! Reading the log back: which frames count, what the floor is, and which copies need repair (STORE.md 14).
//!
//! A frame counts when its header and ops verify on some entitled copy, its chain continues, its owner's row had the
//! right to its LSNs, and — above the floor — every payload page in its own segment verifies, too (what lies in segments of
//! another RF was durable before the frame was begun). The floor is the highest `durable_lsn` in any frame, and no less
//! than what clones were made of. The log ends at the first frame that does not count; ending below the floor is
//! corruption and refused, ending above it is the tail of a crash. It never ends before a segment that cannot be read:
//! the newest frames may lie there, and a start without them would make them void. Payload that cannot be read, on
//! drives that are away, is no reason to forget the frame that names it.

use crate::error::{Error, Kind, Result};
use crate::mutants::mutant;
use crate::oplog::log::UsedSegment;
use crate::placement::{GroupRecord, Pool, Segment};
use holdfast_format::checksum::checksum;
use holdfast_format::frame::{FrameHeader, FramePlace};
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::table::SlotAddress;
use holdfast_format::op::{Effect, Op, each_effect};
use holdfast_format::wire::Take;
use holdfast_format::{EgroupId, GroupId, Lsn, Row};

/// How often a segment is read for a frame that was found in it once.
const READS_MAX: usize = 3;

/// Copies of one segment, as far as they can be read.
struct Images {
    copies: Vec<Option<Vec<u8>>>,
}

/// A frame that counts.
struct Frame {
    segment: usize,
    page: usize,
    header: FrameHeader,
    /// Copies whose header and ops verify.
    good: Vec<bool>,
}

/// Payload pages of one op.
#[derive(Clone, Copy, Debug)]
pub struct OpPlace {
    pub egroup: EgroupId,
    pub page: u16,
}

impl Frame {
    /// The frame's ops, if this image of its segment has them.
    fn ops<'a>(&self, image: &'a [u8]) -> Option<&'a [u8]> {
        let bytes = image.get(self.page * BLOCK_BYTES..)?;
        let same = FrameHeader::decode(bytes).is_ok_and(|header| header.chain == self.header.chain);
        if same { self.header.ops(bytes).ok() } else { None }
    }
}

/// What the log says.
pub struct Scanned {
    pub tip: Lsn,
    pub chain: u64,
    pub used: Vec<UsedSegment>,
    /// Reserved segments that hold nothing that counts.
    pub unused: Vec<EgroupId>,
    pub repaired_copies: u64,
    /// Row of the first frame that counts. A segment has frames of one row only, so no segment that is kept has older ones.
    pub oldest_row: Option<Row>,
    /// Copies of the newest frame's header; 0: nothing counts.
    pub header_rf: u8,
}

struct Scan<'a> {
    pool: &'a Pool,
    record: &'a GroupRecord,
    /// Image of the segment that is being walked.
    cached: Option<(usize, Images)>,
    /// Segments of which no copy can be read, by index.
    unreadable: Vec<bool>,
}

/// The content of one copy, zeroes where a block cannot be read; `None`: nothing of it can.
fn read_image(pool: &Pool, copy: SlotAddress, slot_bytes: usize) -> Option<Vec<u8>> {
    let mut image = vec![0u8; slot_bytes];
    if pool.read_copy(copy, 0, &mut image).is_ok() {
        return Some(image);
    }
    let mut some = false;
    for (block, bytes) in image.chunks_exact_mut(BLOCK_BYTES).enumerate() {
        match pool.read_copy(copy, (block * BLOCK_BYTES) as u32, bytes) {
            Ok(()) => some = true,
            Err(_) => bytes.fill(0),
        }
    }
    some.then_some(image)
}

/// Walks the log of `record`, repairs copies, and calls `visit` for every op above `drained_lsn`, in order. `rf_min`: no
/// frame's header has fewer copies.
pub fn scan(
    pool: &Pool,
    (record, rf_min): (&GroupRecord, u8),
    visit: &mut dyn FnMut(&Op<'_>, Option<OpPlace>) -> Result<()>,
) -> Result<Scanned> {
    let mut scan = Scan { pool, record, cached: None, unreadable: Vec::new() };
    let (mut frames, floor) = scan.walk()?;
    let mut repaired = 0;
    let mut end = frames.len();
    for (at, frame) in frames.iter_mut().enumerate() {
        let last = Lsn(frame.header.end_lsn().0 - 1);
        let whole = if last > floor {
            scan.verify_payload(frame)?
        } else {
            frame.good.iter().any(|good| *good)
        };
        if !whole {
            end = at;
            break;
        }
        repaired += scan.repair(frame, last > floor)?;
    }
    frames.truncate(end);
    let tip = frames.last().map_or(record.drained_lsn, |frame| Lsn(frame.header.end_lsn().0 - 1));
    let tip = tip.max(record.drained_lsn);
    if let Some(segment) = scan.unread_after(frames.last(), rf_min) {
        return Err(scan.unread(segment));
    }
    if tip < floor {
        return Err(Error::new(
            Kind::Corrupt,
            format!(
                "log of group {}: operations {} to {floor} were durable and are damaged on every copy that can be read; \
                 attach the missing drives and open the pool again",
                record.name,
                tip.0 + 1
            ),
        ));
    }
    for frame in &frames {
        scan.visit_ops(frame, visit)?;
    }
    let chain = frames.last().map_or(record.drained_chain, |frame| frame.header.chain);
    let (used, unused) = usage(record, &frames);
    let oldest_row = frames.first().map(|frame| frame.header.row);
    let header_rf = frames.last().map_or(0, |frame| frame.header.header_rf);
    Ok(Scanned { tip, chain, used, unused, repaired_copies: repaired, oldest_row, header_rf })
}

impl Scan<'_> {
    fn segment(&self, at: usize) -> &Segment {
        &self.record.segments[at]
    }

    fn images(&mut self, at: usize) -> Result<&Images> {
        if self.cached.as_ref().is_none_or(|(cached, _)| *cached != at) {
            let slot_bytes = self.pool.slot_bytes();
            let copies = self
                .segment(at)
                .copies
                .iter()
                .map(|copy| read_image(self.pool, *copy, slot_bytes))
                .collect();
            self.cached = Some((at, Images { copies }));
        }
        match &self.cached {
            Some((_, images)) => Ok(images),
            None => Err(Error::new(Kind::Internal, "no segment image")),
        }
    }

    /// A segment that may hold what continues the log behind `last`, of which no copy can be read. Frames lie in the series
    /// of the RF that their headers have, which only ever rises.
    fn unread_after(&self, last: Option<&Frame>, rf_min: u8) -> Option<usize> {
        let (from, rf) = last.map_or((0, rf_min), |frame| (frame.segment + 1, frame.header.header_rf));
        let mut behind = self.record.segments.iter().enumerate().skip(from);
        behind.find(|(at, segment)| segment.rf >= rf && self.unreadable[*at]).map(|(at, _)| at)
    }

    fn unread(&self, segment: usize) -> Error {
        let copies = &self.segment(segment).copies;
        let drives = self.pool.drives();
        let name = |drive: u16| match drives.iter().find(|state| state.index == drive) {
            Some(state) if !state.name.is_empty() => state.name.clone(),
            Some(state) => state.uuid.to_string(),
            None => format!("number {drive}"),
        };
        let names: Vec<String> = copies.iter().map(|copy| name(copy.drive)).collect();
        Error::new(
            Kind::Unavailable,
            format!(
                "log of group {}: its newest operations may lie on drive {}, which cannot be read; attach it and open the \
                 pool again",
                self.record.name,
                names.join(" and on drive ")
            ),
        )
    }

    /// Follows the chain through all segments. Returns the frames on it, and the floor.
    fn walk(&mut self) -> Result<(Vec<Frame>, Lsn)> {
        let mut frames: Vec<Frame> = Vec::new();
        // What a clone is made of was durable before the clone was.
        let bases = self.pool.clones_of(self.record.id).into_iter().filter_map(|clone| clone.base);
        let mut floor = bases.map(|(_, lsn)| lsn).fold(self.record.drained_lsn, Ord::max);
        let mut chain = self.record.drained_chain;
        let mut next_lsn = None;
        for segment in 0..self.record.segments.len() {
            let mut page = 0;
            while let Some(frame) = self.frame_at(segment, page, chain, next_lsn)? {
                page += frame.header.pages();
                chain = frame.header.chain;
                next_lsn = Some(frame.header.end_lsn());
                floor = floor.max(frame.header.durable_lsn);
                frames.push(frame);
            }
            // What lies behind may still prove that more was durable than the chain reaches.
            floor = floor.max(self.floor_behind(segment, page)?);
            let unreadable = self.images(segment)?.copies.iter().all(Option::is_none);
            self.unreadable.push(unreadable);
        }
        Ok((frames, floor))
    }

    /// The frame at `page` of a segment, if it continues the chain, from whichever copies verify.
    fn frame_at(&mut self, segment: usize, page: usize, chain: u64, next: Option<Lsn>) -> Result<Option<Frame>> {
        let (group, incarnation) = (self.record.id, self.segment(segment).incarnation);
        let record = self.record;
        let images = self.images(segment)?;
        let mut found: Option<Frame> = None;
        let mut good = Vec::with_capacity(images.copies.len());
        for image in &images.copies {
            let header = image.as_ref().and_then(|image| {
                let bytes = image.get(page * BLOCK_BYTES..)?;
                let header = valid_header(bytes, group, incarnation, record)?;
                let continues = header.previous_chain == chain && next.is_none_or(|next| header.first_lsn == next);
                (continues && page * BLOCK_BYTES + header.pages() * BLOCK_BYTES <= image.len()).then_some(header)
            });
            good.push(header.is_some());
            if let (Some(header), None) = (header, &found) {
                found = Some(Frame { segment, page, header, good: Vec::new() });
            }
        }
        Ok(found.map(|frame| Frame { good, ..frame }))
    }

    /// Highest `durable_lsn` of any frame of this incarnation from `page` on, whatever its chain. A frame whose owner had
    /// no right to its LSNs was left behind by an earlier recovery and does not speak.
    fn floor_behind(&mut self, segment: usize, page: usize) -> Result<Lsn> {
        let (group, incarnation) = (self.record.id, self.segment(segment).incarnation);
        let record = self.record;
        let images = self.images(segment)?;
        let mut floor = Lsn(0);
        for image in images.copies.iter().flatten() {
            for bytes in image.chunks_exact(BLOCK_BYTES).skip(page) {
                if let Ok(header) = FrameHeader::decode(bytes)
                    && header.group == group
                    && header.incarnation == incarnation
                    && owner_may(&header, record)
                {
                    floor = floor.max(header.durable_lsn);
                }
            }
        }
        Ok(floor)
    }

    /// Whether every payload page that the frame names verifies on some copy. `good` then says which copies are whole.
    fn verify_payload(&mut self, frame: &mut Frame) -> Result<bool> {
        let sums = self.payload_checksums(frame)?;
        let own = frame.header.header_rf as usize - 1;
        for (class, sums) in sums.iter().enumerate() {
            let place = frame.header.places[class];
            if place.pages == 0 {
                continue;
            }
            if class == own {
                let from = place.first_page as usize * BLOCK_BYTES;
                let images = self.images(frame.segment)?;
                for (good, image) in frame.good.iter_mut().zip(&images.copies) {
                    let whole = image.as_ref().is_some_and(|image| pages_verify(&image[from..], sums));
                    *good = *good && (whole || mutant!(ReplayPastBadRecord));
                }
            } else {
                self.mend_elsewhere(place, sums)?;
            }
        }
        Ok(frame.good.iter().any(|good| *good))
    }

    /// Payload in a segment of another RF class: copies that are bad are mended from one that is right. Where there is none
    /// it is lost, and nothing but it: such payload was durable before the frame was begun, so the frame is no torn one.
    fn mend_elsewhere(&self, place: FramePlace, sums: &[u64]) -> Result<()> {
        let Some(segment) = self.record.segments.iter().find(|segment| segment.egroup == place.egroup) else {
            return Ok(());
        };
        let mut bytes = vec![0u8; place.pages as usize * BLOCK_BYTES];
        let offset = place.first_page as u32 * BLOCK_BYTES as u32;
        let read = self.pool.read_slot(&segment.copies, offset, &mut bytes, &|bytes| pages_verify(bytes, sums));
        match read {
            Err(error) if !matches!(error.kind, Kind::Corrupt | Kind::Unavailable) => Err(error),
            _ => Ok(()),
        }
    }

    /// Checksums of the frame's payload pages by RF class, in order.
    fn payload_checksums(&mut self, frame: &Frame) -> Result<[Vec<u64>; 3]> {
        let mut sums: [Vec<u64>; 3] = Default::default();
        self.each_op(frame, &mut |op| {
            let pages = op.header.payload_pages as usize;
            if pages == 0 {
                return Ok(());
            }
            let class = &mut sums[op.header.payload_rf.clamp(1, 3) as usize - 1];
            let base = class.len();
            class.resize(base + pages, 0);
            each_effect(op.effects, |effect| {
                if let Effect::Pages { first_page, checksums, .. } = effect {
                    for (at, sum) in checksums.chunks_exact(8).enumerate() {
                        let value = sum.iter().rev().fold(0u64, |value, byte| value << 8 | *byte as u64);
                        if let Some(slot) = class.get_mut(base + first_page as usize + at) {
                            *slot = value;
                        }
                    }
                }
            })
            .map_err(|error| Error::decode("an operation's effects", error))
        })?;
        Ok(sums)
    }

    fn each_op(&mut self, frame: &Frame, visit: &mut dyn FnMut(&Op<'_>) -> Result<()>) -> Result<()> {
        // Segments may have been read again since the frame was found good, and a drive may answer wrongly now and then:
        // whichever copy has the frame tells its ops, and all are asked again before it counts as lost.
        for _ in 0..READS_MAX {
            let images = self.images(frame.segment)?;
            let found = images.copies.iter().flatten().find_map(|image| frame.ops(image));
            let Some(ops) = found else {
                self.cached = None;
                continue;
            };
            let mut take = Take::new(ops);
            for _ in 0..frame.header.op_count {
                let op = Op::take(&mut take).map_err(|error| Error::decode("an operation in the log", error))?;
                visit(&op)?;
            }
            return Ok(());
        }
        let (lsn, name) = (frame.header.first_lsn, &self.record.name);
        Err(Error::corrupt(format!("log of group {name}: the frame of LSN {lsn} was right and is on no copy any more")))
    }

    /// Copies of the frame that are not whole are written again from one that is.
    fn repair(&mut self, frame: &Frame, with_payload: bool) -> Result<u64> {
        let bad: Vec<usize> = (0..frame.good.len()).filter(|at| !frame.good[*at]).collect();
        let Some(source) = frame.good.iter().position(|good| *good) else { return Ok(0) };
        if bad.is_empty() {
            return Ok(0);
        }
        let bytes = if with_payload { frame.header.pages() * BLOCK_BYTES } else { frame.header.head_bytes() };
        let start = frame.page * BLOCK_BYTES;
        let copies = self.segment(frame.segment).copies.clone();
        let pool = self.pool;
        let images = self.images(frame.segment)?;
        let Some(image) = &images.copies[source] else { return Ok(0) };
        let mut repaired = 0;
        for at in bad.into_iter().filter(|at| images.copies[*at].is_some()) {
            match pool.write_copy(copies[at], start as u32, &image[start..start + bytes]) {
                Ok(()) => repaired += 1,
                // The drive is out by now; the frame stays readable where it was found.
                Err(error) if error.kind == Kind::Unavailable => {}
                Err(error) => return Err(error),
            }
        }
        Ok(repaired)
    }

    fn visit_ops(
        &mut self,
        frame: &Frame,
        visit: &mut dyn FnMut(&Op<'_>, Option<OpPlace>) -> Result<()>,
    ) -> Result<()> {
        let drained = self.record.drained_lsn;
        let mut next: [u16; 3] = std::array::from_fn(|class| frame.header.places[class].first_page);
        let places = frame.header.places;
        self.each_op(frame, &mut |op| {
            let pages = op.header.payload_pages as u16;
            let place = (pages > 0).then(|| {
                let class = op.header.payload_rf.clamp(1, 3) as usize - 1;
                let page = next[class];
                next[class] += pages;
                OpPlace { egroup: places[class].egroup, page }
            });
            if op.header.lsn > drained { visit(op, place) } else { Ok(()) }
        })
    }
}

fn pages_verify(bytes: &[u8], sums: &[u64]) -> bool {
    bytes.len() >= sums.len() * BLOCK_BYTES
        && bytes.chunks_exact(BLOCK_BYTES).zip(sums).all(|(page, sum)| checksum(page) == *sum)
}

/// A header whose own bytes and ops verify and whose owner had the right to its LSNs.
fn valid_header(bytes: &[u8], group: GroupId, incarnation: u64, record: &GroupRecord) -> Option<FrameHeader> {
    let header = FrameHeader::decode(bytes).ok()?;
    let ours = header.group == group && header.incarnation == incarnation && owner_may(&header, record);
    (ours && header.ops(bytes).is_ok()).then_some(header)
}

/// A row's LSNs end where the next row begins, and so does its chain: a frame without ops takes no LSN, and one that a later
/// start has not found (because a drive could not be read, or it was on its way) would else lead off the log that went on.
pub(crate) fn owner_may(header: &FrameHeader, record: &GroupRecord) -> bool {
    let Some(later) = record.rows_after(header.row) else { return false };
    later.iter().all(|next| {
        let begins_here = next.first_lsn == header.first_lsn && next.chain == header.previous_chain;
        header.end_lsn() <= next.first_lsn && !begins_here
    })
}

fn usage(record: &GroupRecord, frames: &[Frame]) -> (Vec<UsedSegment>, Vec<EgroupId>) {
    let mut used: Vec<UsedSegment> = Vec::new();
    for frame in frames {
        let last_lsn = Lsn(frame.header.end_lsn().0 - 1);
        let own = record.segments[frame.segment].egroup;
        let mut touch = |egroup: EgroupId, rf: u8, has_frames: bool| match used
            .iter_mut()
            .find(|segment| segment.egroup == egroup)
        {
            Some(segment) => segment.last_lsn = last_lsn,
            None => used.push(UsedSegment {
                egroup,
                rf,
                last_lsn,
                chain_before: frame.header.previous_chain,
                has_frames,
            }),
        };
        touch(own, frame.header.header_rf, true);
        for (class, place) in frame.header.places.iter().enumerate() {
            // Payload of drained ops may lie in a segment that was given back before the frame's own.
            let held = record.segments.iter().any(|segment| segment.egroup == place.egroup);
            if place.pages > 0 && place.egroup != own && held {
                touch(place.egroup, class as u8 + 1, false);
            }
        }
    }
    let unused = record
        .segments
        .iter()
        .map(|segment| segment.egroup)
        .filter(|egroup| !used.iter().any(|segment| segment.egroup == *egroup))
        .collect();
    (used, unused)
}
