//! The header stream tells exactly what was done: whatever users do, however it is read, and whichever way the owner ends in between.

mod rig;

use holdfast_device::{Clock, Rng};
use holdfast_format::header::{HeaderBody, HeaderFrame, HeaderLine, chain_start};
use holdfast_format::inode::Time;
use holdfast_format::limits::{HEADER_FRAME_BYTES_MAX, HEADER_FRAME_BYTES_MIN};
use holdfast_format::op::OpKind;
use holdfast_format::{BranchId, Ino, Lsn, ROOT_INO};
use holdfast_store::api::{FileSystem, SetAttr, WriteFlags};
use holdfast_store::engine::{EngineOptions, HeaderRequest, LossStatement, headers_fold};
use holdfast_store::volume::{Volume, VolumeOptions};
use rig::{ROOT, Rig, volume_create};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SEEDS: u64 = 60;
const STEPS: usize = 120;
const GROUP: &str = "pair";
const VOLUMES: [&str; 2] = ["left", "right"];
const FILES: u64 = 12;

fn options() -> EngineOptions {
    EngineOptions { memtable_bytes: 96 << 10, ..rig::options() }
}

/// Who follows the stream.
#[derive(Default)]
struct Reader {
    /// The recovery point that it begins after.
    above: u64,
    frames: Vec<Vec<u8>>,
    next: Option<(u64, u64)>,
    /// Lines as they came; `None`: a gap, or told in a summary.
    lines: BTreeMap<u64, Option<HeaderLine>>,
}

impl Reader {
    fn take(&mut self, bytes: Vec<u8>, lineage: u64) -> HeaderFrame {
        let (frame, body) = HeaderFrame::decode(&bytes).expect("a frame");
        let (first, previous) = self.next.unwrap_or((self.above + 1, chain_start(lineage, Lsn(self.above + 1))));
        assert_eq!((frame.first.0, frame.previous, frame.lineage), (first, previous, lineage), "the stream is chained");
        match body {
            HeaderBody::Lines(lines) => {
                let lines = lines.map(|line| line.expect("a line"));
                self.lines.extend((frame.first.0..).zip(lines.map(Some)));
            }
            HeaderBody::Summary(_) => self.lines.extend((frame.first.0..=frame.last.0).map(|lsn| (lsn, None))),
        }
        self.next = Some((frame.last.0 + 1, frame.chain));
        self.frames.push(bytes);
        frame
    }
}

#[derive(Default)]
struct Totals {
    lines: u64,
    bytes: u64,
    gaps: u64,
    summaries: u64,
    power_cuts: u64,
    ops_lost: u64,
}

struct Run {
    rng: Rng,
    rig: Option<Rig>,
    mounted: Vec<Arc<Volume>>,
    files: Vec<(usize, Ino)>,
    /// What was done, by LSN; the engine's own records are not there.
    done: BTreeMap<u64, HeaderLine>,
    reader: Reader,
    totals: Totals,
}

impl Run {
    fn new(seed: u64) -> Self {
        let rig = Rig::create(seed, 2, options());
        for name in VOLUMES {
            rig.engine.volume_create(&volume_create(name, 2, Some(GROUP))).expect("a volume");
        }
        let mut run = Self {
            rng: Rng::from_seed(seed),
            rig: Some(rig),
            mounted: Vec::new(),
            files: Vec::new(),
            done: BTreeMap::new(),
            reader: Reader::default(),
            totals: Totals::default(),
        };
        run.mount();
        run.reader.above = run.newest();
        run
    }

    fn rig(&self) -> &Rig {
        self.rig.as_ref().expect("an engine")
    }

    fn mount(&mut self) {
        let open = |name: &&str| self.rig().engine.volume(name, VolumeOptions { noatime: true }).expect("free");
        self.mounted = VOLUMES.iter().map(open).collect();
        // From the first question on, what is new is noted; what was before is told when it is durable.
        let next = HeaderRequest { from: self.newest() + 1, previous: None, bytes_max: 512, summarize: false };
        assert_eq!(self.rig().engine.headers(GROUP, &next).expect("told"), None);
    }

    fn newest(&self) -> u64 {
        self.rig().engine.newest_lsn(GROUP).expect("told")
    }

    fn now(&self) -> Time {
        let (sec, nsec) = self.rig().world.clock().wall();
        Time { sec, nsec }
    }

    /// What a user does, and the one op that it must be.
    fn change(&mut self) {
        let advance = self.rng.below(3_000_000);
        self.rig().world.clock().advance(advance);
        let (before, time) = (self.newest(), self.now());
        let Some((volume, kind, ino, bytes)) = self.act() else { return };
        let after = self.newest();
        let (from, until) = (Lsn(before), after);
        let found = self.read_lines(from.0 + 1, until);
        let line = HeaderLine { kind, branch: BranchId(volume as u32 + 1), ino, bytes, time };
        let told: Vec<u64> = found.iter().filter(|(_, found)| **found == line).map(|(lsn, _)| *lsn).collect();
        let [lsn] = told[..] else { panic!("{line:?} is told as {found:?}") };
        for (other, told) in found {
            let own = matches!(told.kind, OpKind::Reap | OpKind::VolumeSet | OpKind::Point | OpKind::PointDrop | OpKind::PointSet);
            assert!(other == lsn || own, "LSN {other} is {told:?} beside {line:?}");
        }
        self.done.insert(lsn, line);
    }

    fn act(&mut self) -> Option<(usize, OpKind, Ino, u64)> {
        let at = self.rng.below(VOLUMES.len() as u64) as usize;
        let file = self.files.get(self.rng.below(self.files.len().max(1) as u64) as usize).copied();
        match (self.rng.below(12), file) {
            (0..=1, _) if (self.files.len() as u64) < FILES => {
                let name = format!("f{}", self.rng.next_u64());
                let made = self.mounted[at].create(&ROOT, ROOT_INO, name.as_bytes(), 0o644).expect("created");
                self.files.push((at, made.ino));
                Some((at, OpKind::Create, made.ino, 0))
            }
            (2..=6, Some((at, ino))) => {
                let length = [1, 100, 4096, 5000, 20_000][self.rng.below(5) as usize];
                let offset = self.rng.below(200_000);
                let content = vec![self.rng.next_u64() as u8; length];
                self.mounted[at].write(&ROOT, ino, offset, &content, WriteFlags::default()).expect("written");
                Some((at, OpKind::Write, ino, length as u64))
            }
            (7, Some((at, ino))) => {
                let set = SetAttr { size: Some(self.rng.below(100_000)), ..SetAttr::default() };
                self.mounted[at].setattr(&ROOT, ino, &set).expect("cut");
                Some((at, OpKind::Truncate, ino, 0))
            }
            (8, Some((at, ino))) => {
                self.mounted[at].setxattr(&ROOT, ino, b"user.a", b"b", 0, false).expect("set");
                Some((at, OpKind::SetXattr, ino, 0))
            }
            (9, Some((at, ino))) => self.fsync(at, ino),
            (10, _) => self.fsync(at, ROOT_INO),
            _ => None,
        }
    }

    /// There is a record, unless nothing was changed since the last one.
    fn fsync(&mut self, at: usize, ino: Ino) -> Option<(usize, OpKind, Ino, u64)> {
        let before = self.newest();
        self.mounted[at].fsync(&ROOT, ino, Box::new(|result| result.expect("durable")));
        if self.newest() == before {
            let branch = BranchId(at as u32 + 1);
            let mine = |line: &&HeaderLine| line.branch == branch && (ino == ROOT_INO || line.ino == ino);
            let newest = self.done.values().rev().find(mine);
            assert!(newest.is_none_or(|line| line.kind == OpKind::Fsync), "{newest:?} was fsynced, and nobody is told");
            return None;
        }
        Some((at, OpKind::Fsync, ino, 0))
    }

    /// Lines by somebody who has no stream: from a list in memory, or the log.
    fn read_lines(&self, from: u64, until: u64) -> BTreeMap<u64, HeaderLine> {
        let mut reader = Reader { above: from - 1, ..Reader::default() };
        let lineage = self.rig().engine.replica_identity(GROUP).expect("told").1;
        while reader.next.map_or(from, |(next, _)| next) <= until {
            let (from, previous) = reader.next.map_or((from, None), |(from, chain)| (from, Some(chain)));
            let request = HeaderRequest { from, previous, bytes_max: HEADER_FRAME_BYTES_MAX, summarize: false };
            let Some(part) = self.rig().engine.headers(GROUP, &request).expect("told") else { break };
            reader.take(part.bytes, lineage);
        }
        reader.lines.into_iter().filter(|(lsn, _)| *lsn <= until).filter_map(|(lsn, line)| Some((lsn, line?))).collect()
    }

    /// The reader gets what is new, in frames of any size.
    fn read(&mut self) {
        let lineage = self.rig().engine.replica_identity(GROUP).expect("told").1;
        let more = if self.rng.chance(1, 2) { 200 } else { 40_000 };
        let bytes_max = HEADER_FRAME_BYTES_MIN + self.rng.below(more) as usize;
        let summarize = self.rng.chance(1, 8);
        let (from, previous) =
            self.reader.next.map_or((self.reader.above + 1, None), |(next, chain)| (next, Some(chain)));
        let request = HeaderRequest { from, previous, bytes_max, summarize };
        let Some(part) = self.rig().engine.headers(GROUP, &request).expect("told") else {
            assert!(from > self.rig().engine.groups()[0].durable().0, "what is durable can be told");
            return;
        };
        assert!(part.bytes.len() <= bytes_max);
        self.totals.bytes += part.bytes.len() as u64;
        let frame = self.reader.take(part.bytes, lineage);
        assert_eq!(frame.newest.0, self.newest());
        for lsn in frame.first.0..=frame.last.0 {
            match self.reader.lines[&lsn] {
                None if summarize => self.totals.summaries += 1,
                None => self.totals.gaps += 1,
                Some(line) => {
                    self.totals.lines += 1;
                    match self.done.get(&lsn) {
                        Some(done) => assert_eq!(line, *done, "LSN {lsn}"),
                        None => assert!(line.kind as u8 > 32 || line.branch == BranchId(0) || line.kind == OpKind::Reap
                            || line.kind == OpKind::VolumeSet, "nobody did {line:?}"),
                    }
                }
            }
        }
    }

    fn read_all(&mut self) {
        while self.reader.next.map_or(self.reader.above + 1, |(next, _)| next) <= self.rig().engine.groups()[0].durable().0 {
            self.read();
        }
    }

    /// The owner ends; what it lost is forgotten, and the stream begins anew, as with another session.
    fn end(&mut self, power: bool) {
        self.mounted.clear();
        let rig = self.rig.take().expect("an engine");
        self.rig = Some(if power { rig.power_fails(options()) } else { rig.kill(options()) });
        let newest = self.newest();
        let lost = self.done.split_off(&(newest + 1));
        assert!(power || lost.is_empty(), "an acknowledged op is lost with the process");
        self.totals.power_cuts += u64::from(power);
        self.totals.ops_lost += lost.len() as u64;
        self.mount();
        for (at, ino) in std::mem::take(&mut self.files) {
            if self.mounted[at].getattr(ino).is_ok() {
                self.files.push((at, ino));
            }
        }
        let above = self.reader.above.min(newest);
        self.reader = Reader { above, ..Reader::default() };
    }

    /// A recovery point: what is before is not asked for any more.
    fn point(&mut self) {
        self.check_statement();
        self.reader = Reader { above: self.rig().engine.replica_cut(GROUP).expect("cut").lsn, ..Reader::default() };
    }

    /// The statement says what the shadow says.
    fn check_statement(&mut self) {
        self.read_all();
        let (above, frames) = (self.reader.above, &self.reader.frames);
        let told = self.rig().engine.loss_of_frames(GROUP, above, frames).expect("a statement");
        let until = self.reader.next.map_or(above, |(next, _)| next - 1);
        self.compare(&told, above, until);
        if let Some(part) = headers_fold(above, frames).expect("folded") {
            let folded = self.rig().engine.loss_of_frames(GROUP, above, &[part.bytes]).expect("a statement");
            assert!(folded.loss.ops == told.loss.ops && folded.loss.bytes == told.loss.bytes, "{folded:?} of {told:?}");
            assert!(folded.loss.fsynced_ops <= told.loss.fsynced_ops, "{folded:?} of {told:?}");
            assert!(!told.loss.is_exact || !folded.loss.is_exact || folded.loss.fsynced_ops == told.loss.fsynced_ops);
        }
        let own = self.rig().engine.loss_of_log(GROUP, above, until).expect("a statement");
        self.compare(&own, above, until);
        if self.reader.lines.values().all(Option::is_some) {
            assert!(told.loss.is_exact);
        }
    }

    fn compare(&self, told: &LossStatement, above: u64, until: u64) {
        let loss = &told.loss;
        assert_eq!((loss.first.0, loss.last.0), (above + 1, until));
        if !loss.is_exact {
            return;
        }
        let changes: Vec<_> =
            self.done.range(above + 1..until + 1).filter(|(_, line)| line.kind != OpKind::Fsync).collect();
        let fsynced = |lsn: u64, line: &HeaderLine| {
            let after = self.done.range(lsn..=until).map(|(_, later)| later);
            let mut syncs = after.filter(|later| later.kind == OpKind::Fsync && later.branch == line.branch);
            syncs.any(|sync| sync.ino == line.ino || sync.ino == ROOT_INO)
        };
        let files = |lines: &mut dyn Iterator<Item = &HeaderLine>| {
            lines.map(|line| (line.branch, line.ino)).collect::<BTreeSet<_>>().len() as u64
        };
        let bytes = |lines: &mut dyn Iterator<Item = &HeaderLine>| lines.map(|line| line.bytes).sum::<u64>();
        let synced: Vec<_> = changes.iter().filter(|(lsn, line)| fsynced(**lsn, line)).map(|(_, line)| *line).collect();
        let all: Vec<_> = changes.iter().map(|(_, line)| *line).collect();
        assert_eq!(
            (loss.ops, loss.bytes, loss.files),
            (all.len() as u64, bytes(&mut all.iter().copied()), files(&mut all.iter().copied()))
        );
        assert_eq!(
            (loss.fsynced_ops, loss.fsynced_bytes, loss.fsynced_files),
            (synced.len() as u64, bytes(&mut synced.iter().copied()), files(&mut synced.iter().copied()))
        );
        assert_eq!(loss.named.len() as u64, loss.files.min(20));
        assert!(loss.named.len() == told.paths.len() && told.paths.iter().all(|path| path.starts_with(b"f")));
    }

    fn step(&mut self) {
        match self.rng.below(40) {
            0..=19 => self.change(),
            20..=29 => self.read(),
            30 => self.rig().second(),
            31 => self.rig().engine.groups()[0].flush_now().expect("flushed"),
            32 if self.rng.chance(1, 2) => self.rig().engine.groups()[0].drain_now().expect("drained"),
            33 => self.end(false),
            34 => self.end(true),
            35 | 36 => self.point(),
            37 => self.check_statement(),
            _ => (0..10).for_each(|_| self.change()),
        }
    }
}

#[test]
fn the_stream_tells_exactly_what_was_done() {
    let mut totals = Totals::default();
    for seed in 0..SEEDS {
        let played = std::panic::catch_unwind(|| {
            let mut run = Run::new(seed);
            (0..STEPS).for_each(|_| run.step());
            run.check_statement();
            run.totals
        });
        let Totals { lines, bytes, gaps, summaries, power_cuts, ops_lost } =
            played.unwrap_or_else(|_| panic!("seed {seed} fails"));
        totals.lines += lines;
        totals.bytes += bytes;
        totals.gaps += gaps;
        totals.summaries += summaries;
        totals.power_cuts += power_cuts;
        totals.ops_lost += ops_lost;
    }
    let Totals { lines, gaps, summaries, power_cuts, ops_lost, .. } = totals;
    let met = [lines > 5_000, gaps > 100, summaries > 50, power_cuts > 50, ops_lost > 50];
    assert!(met.iter().all(|met| *met), "{lines} lines, {gaps} gaps, {summaries} summed up, {power_cuts} power cuts, {ops_lost} lost");
}

#[test]
fn what_is_asked_for_wrongly_is_refused() {
    let rig = Rig::create(1, 2, options());
    let volume = rig.volume("v", 2);
    volume.create(&ROOT, ROOT_INO, b"a", 0o644).expect("created");
    let newest = rig.engine.newest_lsn("v").expect("told");
    let ask = |from, bytes_max| HeaderRequest { from, previous: None, bytes_max, summarize: false };
    for request in [ask(0, 4096), ask(1, HEADER_FRAME_BYTES_MIN - 1), ask(1, HEADER_FRAME_BYTES_MAX + 1)] {
        assert!(rig.engine.headers("v", &request).is_err(), "{request:?}");
    }
    assert_eq!(rig.engine.headers("v", &ask(newest + 1, 4096)).expect("told"), None);
    assert!(rig.engine.loss_of_frames("v", 0, &[b"noise".to_vec()]).is_err());
}
