//! What a site that is gone had done after a recovery point, added up from its header stream: the loss statement.
//!
//! - An op counts when a user did it to a file or a name; what the engine logs for itself does not.
//! - It was *fsynced* when its file, or everything (the root stands for that), was fsynced after it, or where the volume
//!   acknowledges only what is durable. What came after the newest fsync of a file is its tail.
//! - Frames are added in their order. Where one of them is a summary that reaches over the recovery point, or leaves files
//!   unnamed, the sums are bounds, and said to be.

use holdfast_format::header::{
    HEADER_FRAME_HEADER_BYTES, HeaderBody, HeaderFile, HeaderFrame, HeaderLine, HeaderSummary, HeaderTally, file_bytes_max,
};
use holdfast_format::inode::Time;
use holdfast_format::op::OpKind;
use holdfast_format::{BranchId, DecodeError, Ino, Lsn, ROOT_INO};
use std::collections::{BTreeMap, BTreeSet};

/// Files that a statement names.
pub const NAMED_MAX: usize = 20;
/// What a summary's first fields take at most: a number of files, and a tally.
const OTHERS_BYTES_MAX: usize = 50;

/// A file and how much of what was done to it is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LostFile {
    pub branch: BranchId,
    pub ino: Ino,
    pub ops: u64,
    pub bytes: u64,
    /// Of the ops.
    pub fsynced: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// The LSNs that it is about; `last` < `first`: none.
    pub first: Lsn,
    pub last: Lsn,
    /// The owner's newest op when the newest frame was made, and when that was.
    pub newest: Lsn,
    pub made: Time,
    pub ops: u64,
    pub bytes: u64,
    pub files: u64,
    pub fsynced_ops: u64,
    pub fsynced_bytes: u64,
    pub fsynced_files: u64,
    /// False: the sums are bounds.
    pub is_exact: bool,
    /// The first [`NAMED_MAX`] of them: fsynced ones first, then by bytes.
    pub named: Vec<LostFile>,
}

/// Sums by file.
#[derive(Clone, Debug)]
pub struct Losses {
    above: Lsn,
    last: Lsn,
    newest: Lsn,
    made: Time,
    files: BTreeMap<(BranchId, Ino), HeaderTally>,
    /// Those with a tail.
    tails: BTreeSet<(BranchId, Ino)>,
    others: u64,
    others_tally: HeaderTally,
    is_exact: bool,
}

/// Whether a user did it.
fn is_change(kind: OpKind) -> bool {
    !matches!(
        kind,
        OpKind::VolumeCreate
            | OpKind::VolumeSet
            | OpKind::VolumeDestroy
            | OpKind::Reap
            | OpKind::Fsync
            | OpKind::Point
            | OpKind::EpochStart
            | OpKind::PointDrop
            | OpKind::PointSet
            | OpKind::Stage
    )
}

/// Bytes of content that an op of this kind and length gives to a file.
pub(crate) fn content_bytes(kind: OpKind, length: u64) -> u64 {
    if matches!(kind, OpKind::Write | OpKind::CopyRange) { length } else { 0 }
}

fn add(tally: &mut HeaderTally, other: &HeaderTally) {
    if other.has_fsync {
        (tally.has_fsync, tally.tail_ops, tally.tail_bytes) = (true, 0, 0);
    }
    tally.ops = tally.ops.saturating_add(other.ops);
    tally.bytes = tally.bytes.saturating_add(other.bytes);
    tally.tail_ops = tally.tail_ops.saturating_add(other.tail_ops);
    tally.tail_bytes = tally.tail_bytes.saturating_add(other.tail_bytes);
}

impl Losses {
    /// Of what came after the recovery point `above`.
    pub fn new(above: Lsn) -> Self {
        Self {
            above,
            last: above,
            newest: above,
            made: Time::default(),
            files: BTreeMap::new(),
            tails: BTreeSet::new(),
            others: 0,
            others_tally: HeaderTally::default(),
            is_exact: true,
        }
    }

    /// LSN of the newest op.
    pub fn last(&self) -> Lsn {
        self.last
    }

    /// Nothing was done by users.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.others == 0
    }

    /// The next op.
    pub fn add_line(&mut self, lsn: Lsn, line: &HeaderLine) {
        if lsn <= self.above {
            return;
        }
        self.last = self.last.max(lsn);
        if line.kind == OpKind::Fsync {
            self.add_file(line.branch, line.ino, &HeaderTally { has_fsync: true, ..HeaderTally::default() });
        } else if is_change(line.kind) {
            let (ops, bytes) = (1, line.bytes);
            let tally = HeaderTally { ops, bytes, has_fsync: false, tail_ops: ops, tail_bytes: bytes };
            self.add_file(line.branch, line.ino, &tally);
        }
    }

    fn add_file(&mut self, branch: BranchId, ino: Ino, tally: &HeaderTally) {
        if tally.has_fsync && ino == ROOT_INO {
            self.end_tails(branch);
        }
        let place = (branch, ino);
        let file = self.files.entry(place).or_default();
        add(file, tally);
        if file.tail_ops > 0 { self.tails.insert(place) } else { self.tails.remove(&place) };
    }

    /// Everything in the volume was fsynced.
    fn end_tails(&mut self, branch: BranchId) {
        let ended: Vec<_> = self.tails.range((branch, Ino(0))..=(branch, Ino(u64::MAX))).copied().collect();
        for place in ended {
            self.tails.remove(&place);
            if let Some(file) = self.files.get_mut(&place) {
                (file.has_fsync, file.tail_ops, file.tail_bytes) = (true, 0, 0);
            }
        }
    }

    /// LSNs up to `last` were between, and nobody knows what they did.
    pub fn add_gap(&mut self, last: Lsn) {
        let ops = last.0.saturating_sub(self.last.0);
        self.others = self.others.saturating_add(ops);
        add(&mut self.others_tally, &HeaderTally { ops, tail_ops: ops, ..HeaderTally::default() });
        self.last = self.last.max(last);
        self.is_exact = false;
    }

    fn add_summary(&mut self, frame: &HeaderFrame, summary: &HeaderSummary) {
        self.is_exact &= !summary.is_bound && summary.others == 0 && frame.first.0 == self.last.0 + 1;
        self.others = self.others.saturating_add(summary.others);
        add(&mut self.others_tally, &summary.others_tally);
        // The root stands for everything that came before.
        let roots = summary.files.iter().filter(|file| file.ino == ROOT_INO && file.tally.has_fsync);
        roots.for_each(|root| self.end_tails(root.branch));
        for HeaderFile { branch, ino, tally } in &summary.files {
            let place = (*branch, *ino);
            let file = self.files.entry(place).or_default();
            add(file, tally);
            if file.tail_ops > 0 { self.tails.insert(place) } else { self.tails.remove(&place) };
        }
        self.last = self.last.max(frame.last);
    }

    /// The next frame of the stream; what of it is at or below the recovery point counts for nothing.
    pub fn add_frame(&mut self, bytes: &[u8]) -> Result<HeaderFrame, DecodeError> {
        let (frame, body) = HeaderFrame::decode(bytes)?;
        if frame.newest >= self.newest {
            (self.newest, self.made) = (frame.newest, frame.made);
        }
        if frame.last <= self.last {
            return Ok(frame);
        }
        if frame.first.0 > self.last.0 + 1 {
            self.add_gap(Lsn(frame.first.0 - 1));
        }
        match body {
            HeaderBody::Summary(summary) => self.add_summary(&frame, &summary),
            HeaderBody::Lines(lines) => {
                let known = self.last;
                for (lsn, line) in (frame.first.0..).map(Lsn).zip(lines) {
                    let line = line?;
                    if lsn > known {
                        self.add_line(lsn, &line);
                    }
                }
            }
        }
        Ok(frame)
    }

    /// Of frames in their order, all of one lineage. Who kept them has looked at their chains.
    pub fn of_frames(above: Lsn, frames: &[impl AsRef<[u8]>]) -> Result<Self, DecodeError> {
        let mut losses = Self::new(above);
        let mut lineage = None;
        for bytes in frames {
            let frame = losses.add_frame(bytes.as_ref())?;
            if *lineage.get_or_insert(frame.lineage) != frame.lineage {
                return Err(DecodeError::Invalid("lineage of header frames"));
            }
        }
        Ok(losses)
    }

    /// As one summary, in a frame of so many bytes at most. Files whose fsynced ops are lost are named before others.
    pub fn summary(&self, bytes_max: usize) -> HeaderSummary {
        let mut files: Vec<HeaderFile> =
            self.files.iter().map(|((branch, ino), tally)| HeaderFile { branch: *branch, ino: *ino, tally: *tally }).collect();
        let mut left = bytes_max.saturating_sub(HEADER_FRAME_HEADER_BYTES + OTHERS_BYTES_MAX);
        let (mut others, mut others_tally) = (self.others, self.others_tally);
        if files.iter().map(file_bytes_max).sum::<usize>() > left {
            // The fsync of everything is needed for what came before.
            let key = |file: &HeaderFile| {
                let fsynced = file.tally.ops - file.tally.tail_ops;
                (file.ino != ROOT_INO, fsynced == 0, std::cmp::Reverse(file.tally.bytes), file.branch, file.ino)
            };
            files.sort_by_key(key);
            files.retain(|file| {
                let bytes = file_bytes_max(file);
                let fits = bytes <= left;
                if fits {
                    left -= bytes;
                } else {
                    others += u64::from(file.tally.ops > 0);
                    add(&mut others_tally, &HeaderTally { has_fsync: false, ..whole(&file.tally) });
                }
                fits
            });
            files.sort_by_key(|file| (file.branch, file.ino));
        }
        HeaderSummary { others, others_tally, files, is_bound: !self.is_exact }
    }

    /// The statement. `promised`: volumes that acknowledge only what is durable.
    pub fn report(&self, promised: &BTreeSet<BranchId>) -> Loss {
        let mut loss = Loss {
            first: Lsn(self.above.0 + 1),
            last: self.last,
            newest: self.newest.max(self.last),
            made: self.made,
            ops: self.others_tally.ops,
            bytes: self.others_tally.bytes,
            files: self.others,
            fsynced_ops: self.others_tally.ops - self.others_tally.tail_ops,
            fsynced_bytes: self.others_tally.bytes - self.others_tally.tail_bytes,
            fsynced_files: 0,
            is_exact: self.is_exact && self.others == 0,
            named: Vec::new(),
        };
        let mut named = Vec::new();
        for ((branch, ino), tally) in &self.files {
            if tally.ops == 0 {
                continue;
            }
            let tally = if promised.contains(branch) { HeaderTally { tail_ops: 0, tail_bytes: 0, ..*tally } } else { *tally };
            let fsynced = tally.ops - tally.tail_ops;
            loss.ops += tally.ops;
            loss.bytes += tally.bytes;
            loss.files += 1;
            loss.fsynced_ops += fsynced;
            loss.fsynced_bytes += tally.bytes - tally.tail_bytes;
            loss.fsynced_files += u64::from(fsynced > 0);
            named.push(LostFile { branch: *branch, ino: *ino, ops: tally.ops, bytes: tally.bytes, fsynced });
        }
        named.sort_by_key(|file| (file.fsynced == 0, std::cmp::Reverse(file.bytes), file.branch, file.ino));
        named.truncate(NAMED_MAX);
        loss.named = named;
        loss
    }
}

/// The tally of which nobody can say any more what was fsynced.
fn whole(tally: &HeaderTally) -> HeaderTally {
    HeaderTally { tail_ops: tally.ops, tail_bytes: tally.bytes, ..*tally }
}
