//! Every state in which a crash can leave the drives (C-enum).
//!
//! A crash *at position p* comes when the first p events have returned and the next one is under way. Then:
//!
//! - Durable: the base; durable writes, creations and removals that returned; cached writes with a later
//!   successful flush of their drive.
//! - Possible, each independently: cached writes without such a flush, and the parts of the call under way. One
//!   of those that happened may be torn at sector boundaries.
//! - A durable write settles its range: an older unflushed write never shows through it (the kernel writes such
//!   pages back, or drops them, before the direct write).
//! - A state that lacks the call under way was yielded at an earlier position, unless a mark was passed since: only
//!   then is it yielded again, because the program has promised more. Of marks in a row only the last counts.

use std::ops::Range;
use std::sync::Arc;

use super::SimWorld;
use super::image::{Block, DriveImage, mix, whole_blocks};
use super::trace::{Event, Landed, Trace};
use crate::rng::Rng;

const SECTOR_BYTES: u64 = 512;
const PAGE_BYTES: u64 = 4096;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrashKind {
    /// The machine stops: unflushed writes may be lost.
    Power,
    /// `kill -9`: the page cache lives on; only the call under way is in doubt, cut at pages.
    Kill,
}

#[derive(Clone, Debug)]
pub struct CrashOptions {
    pub kind: CrashKind,
    /// Chooses where not everything is tried.
    pub seed: u64,
    /// Up to so many possible writes, every subset is tried.
    pub exhaustive_writes_max: usize,
    /// Beyond, so many subsets a position (none, all, and one drive alone are always among them).
    pub sampled_subsets: usize,
    /// Torn variants of each subset; more are sampled down.
    pub torn_variants_max: usize,
}

impl Default for CrashOptions {
    fn default() -> Self {
        let (exhaustive_writes_max, sampled_subsets, torn_variants_max) = (8, 64, 4);
        Self { kind: CrashKind::Power, seed: 0, exhaustive_writes_max, sampled_subsets, torn_variants_max }
    }
}

/// One state of the drives after a crash.
#[derive(Clone, Debug)]
pub struct CrashState {
    /// So many events had returned.
    pub position: usize,
    /// What is there of what might be, for messages.
    pub choice: String,
    images: Vec<DriveImage>,
    trace_labels: Arc<[super::trace::DriveLabel]>,
}

impl CrashState {
    /// Equal for drives of equal content; two positions may give equal states.
    pub fn hash(&self) -> u64 {
        self.images.iter().fold(0, |hash, image| mix(hash.rotate_left(9) ^ image.hash()))
    }

    pub fn images(&self) -> &[DriveImage] {
        &self.images
    }

    /// The drives after the restart, in a world of their own, without faults.
    pub fn world(&self, seed: u64) -> SimWorld {
        let world = SimWorld::new(seed);
        for (label, image) in self.trace_labels.iter().zip(&self.images) {
            let drive = world.add_drive(&label.name, label.capacity_bytes);
            drive.set_disk_id(label.disk_id);
            drive.restore(image);
        }
        world
    }
}

impl Trace {
    /// All states that a crash at any position can leave, lazily.
    pub fn crash_states(&self, options: CrashOptions) -> CrashStates<'_> {
        CrashStates {
            trace: self,
            labels: self.labels.clone().into(),
            rng: Rng::from_seed(options.seed),
            options,
            position: 0,
            marked: true,
            durable: self.base.clone(),
            pending: Vec::new(),
            settled: 0,
            choices: Vec::new(),
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write(Landed),
    Create { drive: usize, file: Arc<str>, bytes: u64 },
    Remove { drive: usize, file: Arc<str> },
}

/// Something that may or may not be on the disk after the crash.
#[derive(Clone, Debug)]
struct Pending {
    change: Change,
    /// Parts of a write's content that no later durable write has settled.
    live: Vec<Range<u64>>,
    /// Its flush failed: no flush makes it durable any more.
    doomed: bool,
    /// Of a write: see [`whole_blocks`].
    blocks: Arc<[Option<Arc<Block>>]>,
}

impl Pending {
    fn new(change: Change) -> Self {
        let (live, blocks) = match &change {
            Change::Write(landed) => {
                let live = std::iter::once(0..landed.content.len()).collect();
                (live, whole_blocks(landed.offset, &landed.content))
            }
            _ => (Vec::new(), Arc::from([])),
        };
        Self { change, live, doomed: false, blocks }
    }

    fn drive(&self) -> usize {
        match &self.change {
            Change::Write(landed) => landed.drive,
            Change::Create { drive, .. } | Change::Remove { drive, .. } => *drive,
        }
    }

    /// Puts it on the drives, as far as `keep` (ranges of a write's content) lets it.
    fn apply(&self, images: &mut [DriveImage], keep: Option<&[Range<u64>]>) {
        match &self.change {
            Change::Create { drive, file, bytes } => images[*drive].create(Arc::clone(file), *bytes),
            Change::Remove { drive, file } => images[*drive].remove(file),
            Change::Write(landed) => {
                for live in &self.live {
                    for kept in keep.unwrap_or(std::slice::from_ref(live)) {
                        let part = live.start.max(kept.start)..live.end.min(kept.end);
                        if part.start < part.end {
                            let image = &mut images[landed.drive];
                            image.write_shared(
                                &landed.file,
                                landed.offset,
                                &landed.content,
                                &self.blocks,
                                part,
                            );
                        }
                    }
                }
            }
        }
    }

    /// Takes out what a newer write to the same place settles.
    fn settle(&mut self, newer: &Landed) {
        let Change::Write(landed) = &self.change else { return };
        if landed.drive != newer.drive || landed.file != newer.file {
            return;
        }
        let start = newer.offset.saturating_sub(landed.offset);
        let end = (newer.offset + newer.content.len()).saturating_sub(landed.offset);
        let cut = |live: &Range<u64>| [live.start..live.end.min(start), live.start.max(end)..live.end];
        self.live = self.live.iter().flat_map(cut).filter(|part| part.start < part.end).collect();
    }
}

/// Which of the pending changes are there; at most one of them torn.
#[derive(Clone, Debug)]
struct Choice {
    there: Vec<bool>,
    torn: Option<(usize, Vec<Range<u64>>)>,
}

/// See [`Trace::crash_states`].
pub struct CrashStates<'a> {
    trace: &'a Trace,
    labels: Arc<[super::trace::DriveLabel]>,
    options: CrashOptions,
    rng: Rng,
    /// The event under way.
    position: usize,
    /// A mark was passed (or nothing yielded) since the last position that was enumerated.
    marked: bool,
    durable: Vec<DriveImage>,
    /// In order; the first `settled` of them come from events that returned.
    pending: Vec<Pending>,
    settled: usize,
    /// What is left of the current position, last first.
    choices: Vec<Choice>,
}

impl Iterator for CrashStates<'_> {
    type Item = CrashState;

    fn next(&mut self) -> Option<CrashState> {
        loop {
            if let Some(choice) = self.choices.pop() {
                let state = self.state(&choice);
                if self.choices.is_empty() {
                    self.step();
                }
                return Some(state);
            }
            if self.position > self.trace.events.len() {
                return None;
            }
            self.enter();
            if self.choices.is_empty() {
                self.step();
            }
        }
    }
}

impl CrashStates<'_> {
    /// Lists the choices of the current position.
    fn enter(&mut self) {
        let event = self.trace.events.get(self.position);
        if matches!(event, Some(Event::Mark { .. })) {
            return;
        }
        self.settled = self.pending.len();
        self.pending.extend(event.into_iter().flat_map(changes).map(Pending::new));
        for there in self.subsets() {
            let torn = self.torn(&there);
            self.choices.extend(torn);
            self.choices.push(Choice { there, torn: None });
        }
        self.marked = false;
    }

    /// The event under way returns.
    fn step(&mut self) {
        self.pending.truncate(self.settled);
        let event = self.trace.events.get(self.position);
        self.position += 1;
        match event {
            None => {}
            Some(Event::Mark { .. }) => self.marked = true,
            Some(Event::Cached(landed)) if self.options.kind == CrashKind::Power => {
                self.pending.push(Pending::new(Change::Write(landed.clone())));
            }
            Some(Event::Failed(landed)) if self.options.kind == CrashKind::Power => {
                let change = Change::Write(landed.clone());
                self.pending.push(Pending { doomed: true, ..Pending::new(change) });
            }
            Some(Event::Flush { drive }) => self.flush(*drive),
            Some(Event::FlushFailed { drive }) => {
                let on_drive = self.pending.iter_mut().filter(|pending| pending.drive() == *drive);
                on_drive.for_each(|pending| pending.doomed = true);
            }
            Some(event) => changes(event).into_iter().for_each(|change| self.make_durable(change)),
        }
        self.settled = self.pending.len();
    }

    fn make_durable(&mut self, change: Change) {
        match &change {
            Change::Write(landed) => self.pending.iter_mut().for_each(|older| older.settle(landed)),
            Change::Create { drive, file, .. } | Change::Remove { drive, file } => {
                self.pending.retain(|older| match &older.change {
                    Change::Write(landed) => landed.drive != *drive || landed.file != *file,
                    _ => true,
                });
            }
        }
        self.pending.retain(|older| !older.live.is_empty());
        Pending::new(change).apply(&mut self.durable, None);
    }

    fn flush(&mut self, drive: usize) {
        let mut kept: Vec<Pending> = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            if pending.drive() != drive || pending.doomed {
                kept.push(pending);
                continue;
            }
            if let Change::Write(landed) = &pending.change {
                // Only what is live settles older, doomed writes: the rest was settled by others itself.
                kept.iter_mut().for_each(|older| older.settle(landed));
            }
            pending.apply(&mut self.durable, None);
        }
        kept.retain(|older| !older.live.is_empty());
        self.pending = kept;
    }

    fn subsets(&mut self) -> Vec<Vec<bool>> {
        let count = self.pending.len();
        let mut subsets: Vec<Vec<bool>> = if count <= self.options.exhaustive_writes_max {
            (0..1u64 << count).map(|mask| (0..count).map(|bit| mask >> bit & 1 == 1).collect()).collect()
        } else {
            self.sampled_subsets()
        };
        if !self.marked {
            // The others were yielded before.
            subsets.retain(|there| there[self.settled..].contains(&true));
        }
        subsets
    }

    fn sampled_subsets(&mut self) -> Vec<Vec<bool>> {
        let count = self.pending.len();
        let mut subsets = vec![vec![false; count], vec![true; count]];
        for drive in 0..self.durable.len() {
            subsets.push(self.pending.iter().map(|pending| pending.drive() == drive).collect());
        }
        // Returned calls only, and the one under way only.
        subsets.push((0..count).map(|index| index < self.settled).collect());
        subsets.push((0..count).map(|index| index >= self.settled).collect());
        while subsets.len() < self.options.sampled_subsets {
            // Sparse, even and dense subsets alike.
            let density = 1 + self.rng.below(7);
            let mut there: Vec<bool> = (0..count).map(|_| self.rng.chance(density, 8)).collect();
            if !self.marked && self.settled < count {
                let forced = self.settled as u64 + self.rng.below((count - self.settled) as u64);
                there[forced as usize] = true;
            }
            subsets.push(there);
        }
        subsets.truncate(self.options.sampled_subsets.max(2));
        subsets
    }

    /// Variants of a subset in which one write is torn.
    fn torn(&mut self, there: &[bool]) -> Vec<Choice> {
        // A killed process tears the call under way only.
        let first = if self.options.kind == CrashKind::Kill { self.settled } else { 0 };
        let is_write = |index: &usize| matches!(self.pending[*index].change, Change::Write(_));
        let mut indices: Vec<usize> =
            (first..there.len()).filter(|index| there[*index]).filter(is_write).collect();
        let limit = self.options.torn_variants_max;
        while indices.len() > limit {
            indices.swap_remove(self.rng.below(indices.len() as u64) as usize);
        }
        let mut variants = Vec::new();
        for index in indices {
            if let Change::Write(landed) = &self.pending[index].change {
                let keeps = tears(landed.offset, landed.content.len(), self.options.kind, &mut self.rng);
                variants.extend(keeps.into_iter().map(|keep| (index, keep)));
            }
        }
        while variants.len() > limit {
            variants.swap_remove(self.rng.below(variants.len() as u64) as usize);
        }
        variants.into_iter().map(|torn| Choice { there: there.to_vec(), torn: Some(torn) }).collect()
    }

    fn state(&self, choice: &Choice) -> CrashState {
        let mut images = self.durable.clone();
        let mut told = String::new();
        for (index, pending) in self.pending.iter().enumerate() {
            let keep = choice.torn.as_ref().filter(|torn| torn.0 == index).map(|torn| &torn.1[..]);
            if choice.there[index] {
                pending.apply(&mut images, keep);
            }
            told.push(match (choice.there[index], keep) {
                (false, _) => '-',
                (true, None) => '+',
                (true, Some(_)) => '~',
            });
            if index + 1 == self.settled {
                told.push('|');
            }
        }
        if let Some((_, keep)) = &choice.torn {
            told.push_str(&format!(" torn to {keep:?}"));
        }
        CrashState { position: self.position, choice: told, images, trace_labels: Arc::clone(&self.labels) }
    }
}

/// What an event does to the drives.
fn changes(event: &Event) -> Vec<Change> {
    match event {
        Event::Cached(landed) | Event::Failed(landed) => vec![Change::Write(landed.clone())],
        Event::Durable(set) => set.iter().cloned().map(Change::Write).collect(),
        Event::Create { drive, file, bytes } => {
            vec![Change::Create { drive: *drive, file: Arc::clone(file), bytes: *bytes }]
        }
        Event::Remove { drive, file } => vec![Change::Remove { drive: *drive, file: Arc::clone(file) }],
        Event::Flush { .. } | Event::FlushFailed { .. } | Event::Mark { .. } => Vec::new(),
    }
}

/// The ways in which a write may be torn, each as the ranges of its content that landed. Disks write sectors in any
/// order: so a prefix, a suffix, or any set of sectors. All cuts of small writes, the telling ones of large ones.
fn tears(offset: u64, bytes: u64, kind: CrashKind, rng: &mut Rng) -> Vec<Vec<Range<u64>>> {
    let unit = if kind == CrashKind::Kill { PAGE_BYTES } else { SECTOR_BYTES };
    let first = unit - offset % unit;
    let cuts: Vec<u64> = (0..).map(|number| first + number * unit).take_while(|cut| *cut < bytes).collect();
    let chosen: Vec<u64> = if cuts.len() < (PAGE_BYTES / SECTOR_BYTES) as usize {
        cuts.clone()
    } else {
        let page = PAGE_BYTES - offset % PAGE_BYTES;
        let random = cuts[rng.below(cuts.len() as u64) as usize];
        let mut chosen = vec![cuts[0], page, cuts[cuts.len() / 2], random, cuts[cuts.len() - 1]];
        chosen.retain(|cut| *cut < bytes);
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    };
    let mut keeps: Vec<Vec<Range<u64>>> =
        chosen.iter().map(|cut| std::iter::once(0..*cut).collect()).collect();
    if kind == CrashKind::Power {
        keeps.extend(chosen.iter().map(|cut| std::iter::once(*cut..bytes).collect()));
        if cuts.len() > 1 {
            let edges: Vec<u64> = std::iter::once(0).chain(cuts).chain([bytes]).collect();
            let sectors = edges.windows(2).map(|edge| edge[0]..edge[1]);
            keeps.push(sectors.filter(|_| rng.chance(1, 2)).collect());
        }
    }
    keeps
}
