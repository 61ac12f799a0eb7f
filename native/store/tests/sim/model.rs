//! The reference: what every group looked like at every LSN that a recovery may still find.
//!
//! Too simple to be wrong: a volume is a map from names to bytes, a group is a map of volumes, and each operation makes
//! a new one. Contents are shared between states.

use holdfast_format::limits::BLOCK_BYTES;
use std::collections::BTreeMap;
use std::sync::Arc;

pub type Files = BTreeMap<String, Arc<Vec<u8>>>;

/// The volumes of a group by name.
pub type Volumes = BTreeMap<String, Arc<Files>>;

/// A group at one LSN: its volumes, and what its snapshots saw.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct State {
    pub volumes: Volumes,
    pub points: BTreeMap<String, Arc<Volumes>>,
}

impl State {
    /// The same with a snapshot of it.
    pub fn kept(&self, name: &str) -> Self {
        let mut next = self.clone();
        next.points.insert(name.to_owned(), Arc::new(self.volumes.clone()));
        next
    }

    pub fn without_point(&self, name: &str) -> Self {
        let mut next = self.clone();
        next.points.remove(name);
        next
    }

    pub fn without_volume(&self, name: &str) -> Self {
        let mut next = self.clone();
        next.volumes.remove(name);
        next
    }

    pub fn files(&self, volume: &str) -> Arc<Files> {
        self.volumes.get(volume).cloned().unwrap_or_default()
    }

    pub fn with(&self, volume: &str, change: impl FnOnce(&mut Files)) -> Self {
        let mut next = self.clone();
        change(Arc::make_mut(next.volumes.entry(volume.to_owned()).or_default()));
        next
    }
}

/// LSNs that an operation under way and the group's own records may have taken behind what was acknowledged.
const BEHIND_END_MAX: u64 = 32;

/// One history of a group: what its starts that followed each other have done.
#[derive(Clone, Default)]
struct Lineage {
    /// States by the LSN at which they began; those below the durable LSN are forgotten unless `keep_all`.
    states: BTreeMap<u64, State>,
    acknowledged: u64,
    /// Operations of several ops: the LSN that they ended at, volume and file that they changed block by block, in order.
    copies: BTreeMap<u64, (String, String)>,
    /// As `copies`, of the operation under way when the run ended.
    copy_in_flight: Option<(String, String)>,
    /// The state that the operation under way would have made when the run ended.
    in_flight: Option<State>,
}

/// One group.
#[derive(Default)]
pub struct GroupModel {
    /// What was acknowledged.
    pub now: State,
    line: Lineage,
    /// Histories that a recovery has left: where more drives are struck than any promise covers, an old image of a drive may
    /// be all that is there for a while, and goes on from what it knows. What it left behind is no lie when it is back.
    left: Vec<Lineage>,
    /// What seconds that were kept without a name saw, by LSN: some of them may have gone.
    pub ticks: BTreeMap<u64, Arc<Volumes>>,
    /// Seconds up to here are in `ticks`, or a start found them.
    pub ticks_through: u64,
    pub durable: u64,
    pub keep_all: bool,
}

impl GroupModel {
    pub fn new(keep_all: bool) -> Self {
        Self { keep_all, ..Self::default() }
    }

    pub fn acknowledged(&self) -> u64 {
        self.line.acknowledged
    }

    /// An operation was acknowledged; the group is at `lsn`.
    pub fn acknowledge(&mut self, lsn: u64, state: State) {
        self.now = state.clone();
        self.line.states.insert(lsn, state);
        self.line.acknowledged = lsn;
    }

    /// An operation that changes a file block by block begins or has ended.
    pub fn copying(&mut self, copy: Option<(String, String)>) {
        self.line.copy_in_flight = copy;
    }

    /// What was acknowledged last went on block by block.
    pub fn went_on_by_blocks(&mut self, volume: &str, file: &str) {
        self.line.copies.insert(self.line.acknowledged, (volume.to_owned(), file.to_owned()));
    }

    /// The operation under way when the run ended would have made this state.
    pub fn leave_in_flight(&mut self, state: State) {
        self.line.in_flight = Some(state);
    }

    pub fn is_in_flight(&self) -> bool {
        self.line.in_flight.is_some()
    }

    /// The group's own records moved the LSN; nobody sees them.
    pub fn pass(&mut self, lsn: u64) {
        self.line.acknowledged = self.line.acknowledged.max(lsn);
    }

    /// Everything up to `lsn` was promised to be durable.
    pub fn promise(&mut self, lsn: u64) {
        self.durable = self.durable.max(lsn);
        if self.keep_all {
            return;
        }
        if let Some((begin, _)) = self.line.states.range(..=self.durable).next_back() {
            self.line.states = self.line.states.split_off(&begin.clone());
        }
    }

    /// States that the group may be in when a recovery has found LSN `found`; more than one while an operation of
    /// several ops is between them, and where there are several histories.
    pub fn candidates(&self, found: u64) -> Vec<State> {
        let mut all = self.line.candidates(found);
        let left = self.left.iter().filter(|line| found <= line.acknowledged + BEHIND_END_MAX);
        left.for_each(|line| all.extend(line.candidates(found)));
        all
    }

    /// A recovery ended in this state.
    pub fn recovered(&mut self, found: u64, state: State) {
        let line = std::mem::take(&mut self.line);
        if self.keep_all {
            self.line.states = line.states.clone();
            drop(self.line.states.split_off(&found));
            self.left.push(line);
        }
        self.line.states.insert(found, state.clone());
        self.line.acknowledged = found;
        // Of another history, perhaps.
        self.ticks.retain(|lsn, _| *lsn <= found && !self.keep_all);
        self.ticks_through = found;
        self.now = state;
        self.durable = found;
    }
}

impl Lineage {
    fn candidates(&self, found: u64) -> Vec<State> {
        let below = self.states.range(..=found).next_back().map(|(_, state)| state.clone());
        let mut all: Vec<State> = below.into_iter().collect();
        let exact = self.states.contains_key(&found);
        let before = all.first().cloned();
        let (next, copied) = if found > self.acknowledged {
            (self.in_flight.clone(), self.copy_in_flight.as_ref())
        } else if !exact {
            let next = self.states.range(found..).next();
            (next.map(|(_, state)| state.clone()), next.and_then(|(lsn, _)| self.copies.get(lsn)))
        } else {
            (None, None)
        };
        if let (Some(before), Some(next), Some((volume, file))) = (before, &next, copied) {
            all.extend(cut_short(&before, next, volume, file));
        }
        all.extend(next);
        all
    }
}

/// States between two that differ in one file, which changed block by block.
fn cut_short(before: &State, after: &State, volume: &str, file: &str) -> Vec<State> {
    let (old, new) = (before.files(volume), after.files(volume));
    let (Some(old), Some(new)) = (old.get(file), new.get(file)) else { return Vec::new() };
    let mixed = |cut: usize| {
        let mut content = new[..cut].to_vec();
        content.extend_from_slice(old.get(cut..).unwrap_or_default());
        before.with(volume, |files| drop(files.insert(file.to_owned(), Arc::new(content))))
    };
    (BLOCK_BYTES..new.len()).step_by(BLOCK_BYTES).map(mixed).collect()
}
