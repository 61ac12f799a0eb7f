//! The reference: what every group looked like at every LSN that a recovery may still find.
//!
//! Too simple to be wrong: a volume is a map from names to bytes, a group is a map of volumes, and each operation makes
//! a new one. Contents are shared between states.

use std::collections::BTreeMap;
use std::sync::Arc;

pub type Files = BTreeMap<String, Arc<Vec<u8>>>;

/// A group at one LSN: its volumes by name.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct State {
    pub volumes: BTreeMap<String, Arc<Files>>,
}

impl State {
    pub fn files(&self, volume: &str) -> Arc<Files> {
        self.volumes.get(volume).cloned().unwrap_or_default()
    }

    pub fn with(&self, volume: &str, change: impl FnOnce(&mut Files)) -> Self {
        let mut next = self.clone();
        change(Arc::make_mut(next.volumes.entry(volume.to_owned()).or_default()));
        next
    }
}

/// One group.
#[derive(Default)]
pub struct GroupModel {
    /// What was acknowledged.
    pub now: State,
    /// States by the LSN at which they began; those below the durable LSN are forgotten unless `keep_all`.
    states: BTreeMap<u64, State>,
    pub acknowledged: u64,
    pub durable: u64,
    /// The state that the operation under way would have made when the run ended.
    pub in_flight: Option<State>,
    pub keep_all: bool,
}

impl GroupModel {
    pub fn new(keep_all: bool) -> Self {
        Self { keep_all, ..Self::default() }
    }

    /// An operation was acknowledged; the group is at `lsn`.
    pub fn acknowledge(&mut self, lsn: u64, state: State) {
        self.now = state.clone();
        self.states.insert(lsn, state);
        self.acknowledged = lsn;
    }

    /// The group's own records moved the LSN; nobody sees them.
    pub fn pass(&mut self, lsn: u64) {
        self.acknowledged = self.acknowledged.max(lsn);
    }

    /// Everything up to `lsn` was promised to be durable.
    pub fn promise(&mut self, lsn: u64) {
        self.durable = self.durable.max(lsn);
        if self.keep_all {
            return;
        }
        if let Some((begin, _)) = self.states.range(..=self.durable).next_back() {
            self.states = self.states.split_off(&begin.clone());
        }
    }

    /// States that the group may be in when a recovery has found LSN `found`; more than one while an operation of
    /// several ops is between them.
    pub fn candidates(&self, found: u64) -> Vec<State> {
        let below = self.states.range(..=found).next_back().map(|(_, state)| state.clone());
        let mut all: Vec<State> = below.into_iter().collect();
        let exact = self.states.contains_key(&found);
        if found > self.acknowledged {
            all.extend(self.in_flight.clone());
        } else if !exact {
            all.extend(self.states.range(found..).next().map(|(_, state)| state.clone()));
        }
        all
    }

    /// A recovery ended in this state.
    pub fn recovered(&mut self, found: u64, state: State) {
        let later = self.states.split_off(&found);
        drop(later);
        if !self.keep_all {
            self.states.clear();
        }
        self.states.insert(found, state.clone());
        self.now = state;
        self.acknowledged = found;
        self.durable = found;
        self.in_flight = None;
    }
}
