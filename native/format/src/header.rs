//! The header stream: what was done, without what was written, ahead of the batches. Only the data planes look inside.
//!
//! ```text
//! frame   = header 104 B | body
//! header  = "HFHD" u32 | version u16 = 1 | kind u8 (1 LINES, 2 SUMMARY) | flags u8 (bit 0: counts of a summary are bounds)
//!         | lineage u64 | first u64 | last u64 (LSNs that it speaks of) | newest u64 (the owner's newest op when it was made)
//!         | made: sec i64, nsec u32 | body_bytes u32 | time of the op before the first: sec i64, nsec u32 | count u32
//!         | reserved u64 | reserved u64 | previous u64 | chain u64
//! chain   = XXH3-64 seeded with previous over everything before it and the body
//! LINES   = 4 × column_bytes u32 | kinds | branches | inodes | bytes | times          `count` ops, one for each LSN
//! kinds   = (kind u8 | ops in a row: short)*       branches = (branch: short | ops in a row: short)*
//! inodes  = inode minus that of the op before: short, signed     bytes = bytes of content: short
//! times   = nanoseconds since the op before: short, signed
//! SUMMARY = others (files | tally) | `count` × file
//! file    = branch minus that before: short | inode (minus that before, in the same branch): short | tally
//! tally   = 2 × ops + was an fsync among them: short | bytes: short | tail_ops: short | tail_bytes: short
//! ```
//! A stream begins with `previous` = XXH3-64 seeded with the lineage over its first LSN, as u64; each frame continues the one before:
//! with its chain, and at the LSN after it. The tail of a tally is what came after the file's newest fsync.

use crate::checksum::checksum_bound;
use crate::ids::{BranchId, ID48_END, Ino, Lsn};
use crate::inode::Time;
use crate::limits::HEADER_FRAME_BYTES_MAX;
use crate::op::OpKind;
use crate::wire::{DecodeError, Put, Take};

pub const HEADER_FRAME_HEADER_BYTES: usize = 104;
const MAGIC: u32 = u32::from_le_bytes(*b"HFHD");
const VERSION: u16 = 1;
const KIND_LINES: u8 = 1;
const KIND_SUMMARY: u8 = 2;
const FLAG_BOUND: u8 = 1;
const COLUMNS: usize = 5;

/// What the stream says of one op.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeaderLine {
    pub kind: OpKind,
    pub branch: BranchId,
    pub ino: Ino,
    /// Of content.
    pub bytes: u64,
    pub time: Time,
}

/// What was done to a file, or to several.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HeaderTally {
    pub ops: u64,
    pub bytes: u64,
    pub has_fsync: bool,
    /// After the newest fsync; all of it where there was none.
    pub tail_ops: u64,
    pub tail_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeaderFile {
    pub branch: BranchId,
    pub ino: Ino,
    pub tally: HeaderTally,
}

/// Files, ascending by branch and inode, and what was done to others, which are so many at most.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HeaderSummary {
    pub others: u64,
    pub others_tally: HeaderTally,
    pub files: Vec<HeaderFile>,
    /// Not all of it is known: something may have been more, or elsewhere.
    pub is_bound: bool,
}

/// A frame but for its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeaderFrame {
    pub lineage: u64,
    pub first: Lsn,
    pub last: Lsn,
    /// The owner's newest op when the frame was made, and when that was.
    pub newest: Lsn,
    pub made: Time,
    pub previous: u64,
    pub chain: u64,
}

/// What a frame says.
#[derive(Clone, Debug)]
pub enum HeaderBody<'a> {
    Lines(HeaderLines<'a>),
    Summary(HeaderSummary),
}

/// Where a stream that begins with this LSN is chained to.
pub fn chain_start(lineage: u64, first: Lsn) -> u64 {
    checksum_bound(lineage, &first.0.to_le_bytes())
}

/// Nanoseconds from one time to another, wrapping: what is added again leads back.
fn nanoseconds(from: Time, to: Time) -> i64 {
    let seconds = to.sec.wrapping_sub(from.sec);
    seconds.wrapping_mul(1_000_000_000).wrapping_add(i64::from(to.nsec) - i64::from(from.nsec))
}

fn after(time: Time, nanoseconds: i64) -> Time {
    let total = i128::from(time.sec) * 1_000_000_000 + i128::from(time.nsec) + i128::from(nanoseconds);
    let (sec, nsec) = (total.div_euclid(1_000_000_000), total.rem_euclid(1_000_000_000));
    // Only a liar comes so close to the end of time.
    Time { sec: sec.clamp(i64::MIN.into(), i64::MAX.into()) as i64, nsec: nsec as u32 }
}

impl HeaderFrame {
    /// The whole frame; `last` and `chain` are computed. At least one line.
    pub fn encode_lines(&self, lines: &[HeaderLine]) -> Vec<u8> {
        let mut columns: [Vec<u8>; COLUMNS] = Default::default();
        let start = lines.first().map_or(Time::default(), |line| line.time);
        let mut writer = LineWriter { columns: &mut columns, before: None, kind_run: 0, branch_run: 0 };
        lines.iter().for_each(|line| writer.add(line, start));
        writer.end_runs();
        let mut body = Vec::new();
        columns[..COLUMNS - 1].iter().for_each(|column| body.put_u32(column.len() as u32));
        columns.iter().for_each(|column| body.put_bytes(column));
        let last = Lsn(self.first.0 + lines.len() as u64 - 1);
        Self { last, ..*self }.seal((KIND_LINES, 0), (start, lines.len() as u32), &body)
    }

    /// The whole frame; `chain` is computed.
    pub fn encode_summary(&self, summary: &HeaderSummary) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_short(summary.others);
        put_tally(&mut body, &summary.others_tally);
        let mut before = (BranchId(0), Ino(0));
        for file in &summary.files {
            put_file(&mut body, before, file);
            before = (file.branch, file.ino);
        }
        let flags = if summary.is_bound { FLAG_BOUND } else { 0 };
        self.seal((KIND_SUMMARY, flags), (Time::default(), summary.files.len() as u32), &body)
    }

    fn seal(&self, (kind, flags): (u8, u8), (start, count): (Time, u32), body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_FRAME_HEADER_BYTES + body.len());
        out.put_u32(MAGIC);
        out.put_u16(VERSION);
        out.put_u8(kind);
        out.put_u8(flags);
        out.put_u64(self.lineage);
        out.put_u64(self.first.0);
        out.put_u64(self.last.0);
        out.put_u64(self.newest.0);
        out.put_i64(self.made.sec);
        out.put_u32(self.made.nsec);
        out.put_u32(body.len() as u32);
        out.put_i64(start.sec);
        out.put_u32(start.nsec);
        out.put_u32(count);
        out.put_u64(0);
        out.put_u64(0);
        out.put_u64(self.previous);
        let chain = chain_of(self.previous, &out, body);
        out.put_u64(chain);
        debug_assert_eq!(out.len(), HEADER_FRAME_HEADER_BYTES);
        out.put_bytes(body);
        out
    }

    /// A whole frame, every field of it; nothing is believed before the chain.
    pub fn decode(bytes: &[u8]) -> Result<(Self, HeaderBody<'_>), DecodeError> {
        if bytes.len() > HEADER_FRAME_BYTES_MAX {
            return Err(DecodeError::Invalid("header frame length"));
        }
        let mut take = Take::new(bytes);
        if take.u32()? != MAGIC {
            return Err(DecodeError::Invalid("header frame magic"));
        }
        let (version, kind, flags) = (take.u16()?, take.u8()?, take.u8()?);
        let known = (kind == KIND_LINES && flags == 0) || (kind == KIND_SUMMARY && flags & !FLAG_BOUND == 0);
        if version != VERSION || !known {
            return Err(DecodeError::Unsupported(u64::from(version) << 16 | u64::from(kind) << 8 | u64::from(flags)));
        }
        let lineage = take.u64()?;
        let (first, last, newest) = (Lsn(take.u64()?), Lsn(take.u64()?), Lsn(take.u64()?));
        let made = Time { sec: take.i64()?, nsec: take.u32()? };
        let body_bytes = take.u32()? as usize;
        let start = Time { sec: take.i64()?, nsec: take.u32()? };
        let count = take.u32()?;
        let reserved = take.u64()? | take.u64()?;
        let (previous, chain) = (take.u64()?, take.u64()?);
        let body = take.bytes(body_bytes)?;
        take.end()?;
        if chain_of(previous, &bytes[..HEADER_FRAME_HEADER_BYTES - 8], body) != chain {
            return Err(DecodeError::Checksum);
        }
        let times = made.nsec < 1_000_000_000 && start.nsec < 1_000_000_000;
        let range = first.0 > 0 && first <= last && last <= newest && newest.0 < u64::MAX;
        if reserved != 0 || !times || !range {
            return Err(DecodeError::Invalid("header frame"));
        }
        let frame = Self { lineage, first, last, newest, made, previous, chain };
        if kind == KIND_SUMMARY {
            if start != Time::default() {
                return Err(DecodeError::Invalid("header frame"));
            }
            return Ok((frame, HeaderBody::Summary(take_summary(body, count, flags & FLAG_BOUND != 0)?)));
        }
        if u64::from(count) != last.0 - first.0 + 1 {
            return Err(DecodeError::Invalid("header frame lines"));
        }
        let lines = HeaderLines::take(body, start, count)?;
        lines.clone().try_for_each(|line| line.map(|_| ()))?;
        Ok((frame, HeaderBody::Lines(lines)))
    }
}

fn chain_of(previous: u64, header: &[u8], body: &[u8]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::with_seed(previous);
    hasher.update(header);
    hasher.update(body);
    hasher.digest()
}

struct LineWriter<'a> {
    columns: &'a mut [Vec<u8>; COLUMNS],
    before: Option<HeaderLine>,
    kind_run: u64,
    branch_run: u64,
}

impl LineWriter<'_> {
    fn add(&mut self, line: &HeaderLine, start: Time) {
        let before = self.before.replace(*line);
        if let Some(before) = before.filter(|before| before.kind != line.kind) {
            self.end_kinds(before.kind);
        }
        if let Some(before) = before.filter(|before| before.branch != line.branch) {
            self.end_branches(before.branch);
        }
        self.kind_run += 1;
        self.branch_run += 1;
        let (ino, time) = before.map_or((0, start), |before| (before.ino.0, before.time));
        self.columns[2].put_short_signed(line.ino.0.wrapping_sub(ino) as i64);
        self.columns[3].put_short(line.bytes);
        self.columns[4].put_short_signed(nanoseconds(time, line.time));
    }

    fn end_kinds(&mut self, kind: OpKind) {
        self.columns[0].put_u8(kind as u8);
        self.columns[0].put_short(std::mem::take(&mut self.kind_run));
    }

    fn end_branches(&mut self, branch: BranchId) {
        self.columns[1].put_short(branch.0.into());
        self.columns[1].put_short(std::mem::take(&mut self.branch_run));
    }

    fn end_runs(mut self) {
        if let Some(last) = self.before {
            self.end_kinds(last.kind);
            self.end_branches(last.branch);
        }
    }
}

/// The ops of a frame, in order.
#[derive(Clone, Debug)]
pub struct HeaderLines<'a> {
    columns: [Take<'a>; COLUMNS],
    left: u32,
    kind: (OpKind, u64),
    branch: (BranchId, u64),
    ino: u64,
    time: Time,
}

impl<'a> HeaderLines<'a> {
    fn take(body: &'a [u8], start: Time, count: u32) -> Result<Self, DecodeError> {
        let mut take = Take::new(body);
        let mut lengths = [0; COLUMNS - 1];
        for length in &mut lengths {
            *length = take.u32()? as usize;
        }
        let mut columns = [Take::new(&[]); COLUMNS];
        for (column, length) in columns.iter_mut().zip(lengths) {
            *column = Take::new(take.bytes(length)?);
        }
        columns[COLUMNS - 1] = take;
        Ok(Self { columns, left: count, kind: (OpKind::Fsync, 0), branch: (BranchId(0), 0), ino: 0, time: start })
    }

    fn line(&mut self) -> Result<HeaderLine, DecodeError> {
        if self.kind.1 == 0 {
            let kind = OpKind::from_u8(self.columns[0].u8()?).ok_or(DecodeError::Invalid("op kind"))?;
            self.kind = (kind, run(&mut self.columns[0])?);
        }
        if self.branch.1 == 0 {
            let branch = u32::try_from(self.columns[1].short()?).map_err(|_| DecodeError::Invalid("branch"))?;
            self.branch = (BranchId(branch), run(&mut self.columns[1])?);
        }
        self.kind.1 -= 1;
        self.branch.1 -= 1;
        self.ino = self.ino.wrapping_add_signed(self.columns[2].short_signed()?);
        if self.ino >= ID48_END {
            return Err(DecodeError::Invalid("inode number"));
        }
        let bytes = self.columns[3].short()?;
        self.time = after(self.time, self.columns[4].short_signed()?);
        Ok(HeaderLine { kind: self.kind.0, branch: self.branch.0, ino: Ino(self.ino), bytes, time: self.time })
    }
}

fn run(column: &mut Take<'_>) -> Result<u64, DecodeError> {
    match column.short()? {
        0 => Err(DecodeError::Invalid("run of ops")),
        run => Ok(run),
    }
}

impl Iterator for HeaderLines<'_> {
    type Item = Result<HeaderLine, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let mut line = self.line();
        let over = self.columns.iter().any(|column| !column.is_empty()) || self.kind.1 > 0 || self.branch.1 > 0;
        if self.left == 0 && over {
            line = line.and(Err(DecodeError::Invalid("header frame lines")));
        }
        if line.is_err() {
            self.left = 0;
        }
        Some(line)
    }
}

fn put_tally(out: &mut Vec<u8>, tally: &HeaderTally) {
    out.put_short(tally.ops << 1 | u64::from(tally.has_fsync));
    out.put_short(tally.bytes);
    out.put_short(tally.tail_ops);
    out.put_short(tally.tail_bytes);
}

fn take_tally(take: &mut Take<'_>) -> Result<HeaderTally, DecodeError> {
    let (ops, bytes, tail_ops, tail_bytes) = (take.short()?, take.short()?, take.short()?, take.short()?);
    let (ops, has_fsync) = (ops >> 1, ops & 1 == 1);
    let fits = tail_ops <= ops && tail_bytes <= bytes && (has_fsync || tail_ops == ops && tail_bytes == bytes);
    if !fits {
        return Err(DecodeError::Invalid("tally"));
    }
    Ok(HeaderTally { ops, bytes, has_fsync, tail_ops, tail_bytes })
}

/// A file of a summary behind another one.
fn put_file(out: &mut Vec<u8>, (branch, ino): (BranchId, Ino), file: &HeaderFile) {
    let step = file.branch.0 - branch.0;
    out.put_short(step.into());
    out.put_short(if step == 0 { file.ino.0 - ino.0 } else { file.ino.0 });
    put_tally(out, &file.tally);
}

fn take_summary(body: &[u8], count: u32, is_bound: bool) -> Result<HeaderSummary, DecodeError> {
    let mut take = Take::new(body);
    let (others, others_tally) = (take.short()?, take_tally(&mut take)?);
    // Six fields each, of a byte at least.
    if count as usize > take.rest().len() / 6 {
        return Err(DecodeError::Truncated);
    }
    let mut files: Vec<HeaderFile> = Vec::with_capacity(count as usize);
    let mut before = (0u64, 0u64);
    for _ in 0..count {
        let (step, ino) = (take.short()?, take.short()?);
        let branch = before.0.checked_add(step).filter(|branch| *branch <= u32::MAX.into());
        let ino = if step == 0 { before.1.checked_add(ino).filter(|ino| *ino > before.1) } else { Some(ino) };
        let place = branch.zip(ino).filter(|(_, ino)| (1..ID48_END).contains(ino));
        before = place.ok_or(DecodeError::Invalid("file of a summary"))?;
        files.push(HeaderFile { branch: BranchId(before.0 as u32), ino: Ino(before.1), tally: take_tally(&mut take)? });
    }
    take.end()?;
    Ok(HeaderSummary { others, others_tally, files, is_bound })
}

/// Bytes that a file takes in a summary at most, as far as its numbers say.
pub fn file_bytes_max(file: &HeaderFile) -> usize {
    let mut out = Vec::with_capacity(32);
    // In front of it stands nobody: the steps are the longest that they can be.
    put_file(&mut out, (BranchId(0), Ino(0)), file);
    out.len() + 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> HeaderFrame {
        let made = Time { sec: 1000, nsec: 7 };
        HeaderFrame { lineage: 5, first: Lsn(10), last: Lsn(10), newest: Lsn(99), made, previous: 3, chain: 0 }
    }

    fn lines() -> Vec<HeaderLine> {
        let at = |sec, nsec| Time { sec, nsec };
        let (branch, root) = (BranchId(1), Ino(1));
        let write = |ino, bytes, time| HeaderLine { kind: OpKind::Write, branch, ino, bytes, time };
        vec![
            HeaderLine { kind: OpKind::Create, branch, ino: Ino(ID48_END - 1), bytes: 0, time: at(1000, 999_999_999) },
            write(Ino(300), 4096, at(1001, 0)),
            write(Ino(300), u64::MAX, at(-5, 3)),
            HeaderLine { kind: OpKind::Fsync, branch, ino: root, bytes: 0, time: at(2000, 1) },
            HeaderLine { kind: OpKind::Point, branch: BranchId(0), ino: Ino(0), bytes: 0, time: at(2000, 1) },
            write(root, 0, at(2000, 1)),
        ]
    }

    #[test]
    fn lines_come_back() {
        for count in 1..=lines().len() {
            let bytes = frame().encode_lines(&lines()[..count]);
            let (decoded, body) = HeaderFrame::decode(&bytes).unwrap();
            assert_eq!((decoded.first, decoded.last.0), (Lsn(10), 9 + count as u64));
            let HeaderBody::Lines(found) = body else { panic!("a summary") };
            assert_eq!(found.collect::<Result<Vec<_>, _>>().unwrap(), &lines()[..count]);
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 4;
                assert!(HeaderFrame::decode(&bad).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn a_stream_is_chained() {
        let start = chain_start(5, Lsn(10));
        assert_ne!(start, chain_start(6, Lsn(10)));
        let first = HeaderFrame { previous: start, ..frame() }.encode_lines(&lines());
        let (decoded, _) = HeaderFrame::decode(&first).unwrap();
        assert_eq!(decoded.previous, start);
        let changed = HeaderFrame { previous: start, ..frame() }.encode_lines(&lines()[..5]);
        assert_ne!(HeaderFrame::decode(&changed).unwrap().0.chain, decoded.chain);
    }

    #[test]
    fn a_summary_comes_back() {
        let tally = HeaderTally { ops: 9, bytes: 1 << 40, has_fsync: true, tail_ops: 2, tail_bytes: 0 };
        let file = |branch, ino| HeaderFile { branch: BranchId(branch), ino: Ino(ino), tally };
        let files = vec![file(1, 1), file(1, 700), file(2, 3), file(u32::MAX, ID48_END - 1)];
        let others_tally = HeaderTally { has_fsync: false, tail_ops: 9, tail_bytes: 1 << 40, ..tally };
        let summary = HeaderSummary { others: 5, others_tally, files, is_bound: true };
        let frame = HeaderFrame { last: Lsn(80), ..frame() };
        let bytes = frame.encode_summary(&summary);
        let (decoded, body) = HeaderFrame::decode(&bytes).unwrap();
        assert_eq!((decoded.first, decoded.last), (Lsn(10), Lsn(80)));
        let HeaderBody::Summary(found) = body else { panic!("lines") };
        assert_eq!(found, summary);
        assert!(summary.files.iter().map(file_bytes_max).sum::<usize>() >= bytes.len() - HEADER_FRAME_HEADER_BYTES - 20);
    }

    #[test]
    fn a_small_write_takes_about_ten_bytes() {
        let at = |index: u64| Time { sec: 1_700_000_000 + (index / 5000) as i64, nsec: (index % 5000) as u32 * 200_000 };
        let line = |index: u64| {
            let (kind, bytes) = if index.is_multiple_of(2) { (OpKind::Write, 4096) } else { (OpKind::Fsync, 0) };
            HeaderLine { kind, branch: BranchId(1), ino: Ino(1000 + index / 2 * 7919 % 500), bytes, time: at(index) }
        };
        let lines: Vec<_> = (0..1000).map(line).collect();
        let bytes = frame().encode_lines(&lines).len();
        assert!(bytes < 10 * lines.len(), "{bytes} bytes for {} ops", lines.len());
    }

    #[test]
    fn short_numbers() {
        for value in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::MAX, 1 << 63] {
            let mut out = Vec::new();
            out.put_short(value);
            out.put_short_signed(value as i64);
            let mut take = Take::new(&out);
            assert_eq!((take.short(), take.short_signed()), (Ok(value), Ok(value as i64)));
            assert!(take.is_empty());
        }
        for bad in [&[0x80, 0][..], &[0xff; 10], &[0xff; 9], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]] {
            assert!(Take::new(bad).short().is_err(), "{bad:?}");
        }
    }
}
