//! What a batch of runs has met: a batch that never met a fault or a repair proves nothing.

use super::faults::FaultName;
use super::step::StepName;
use std::collections::BTreeMap;

/// Engine counters that say which roads of repair were taken.
const ENGINE_COUNTERS: [&str; 12] = [
    "checksum_failures",
    "read_errors",
    "repairs",
    "drives_out",
    "egroups_freed",
    "egroups_cleaned",
    "pages_moved",
    "copies_healed",
    "drains",
    "compactions",
    "replayed_ops",
    "manifest_writes",
];

/// Roads that the runs themselves see.
pub const ROADS: [&str; 31] = [
    "recovered after a power cut",
    "recovered after a kill",
    "opened after a clean end",
    "a recovery was cut short",
    "ring operations came back",
    "an operation under way was kept",
    "an operation under way was dropped",
    "a drive came back stale",
    "a stale drive was used anew",
    "a foreign drive was detached",
    "an exchange was noticed",
    "a failed drive was out",
    "scrub found bad copies",
    "scrub repaired all",
    "healed by steps",
    "any drive may be lost",
    "the newest manifest record was forgotten",
    "a damaged volume gave EIO",
    "pool beyond promise opened",
    "logs lay where logs lay before",
    "a volume got more copies",
    "a volume got fewer copies",
    "the others of a group went on without what had one copy",
    "a clone was cut short",
    "the end of a volume was cut short",
    "a clone of a point",
    "a clone of a clone",
    "a clone outlived its parent",
    "a kept second was read",
    "a past that was open was read again",
    "what a snapshot saw was read without a drive",
];

#[derive(Clone, Debug, Default)]
pub struct Coverage {
    counts: BTreeMap<String, u64>,
}

impl Coverage {
    pub fn add(&mut self, name: &str, count: u64) {
        *self.counts.entry(name.to_owned()).or_default() += count;
    }

    pub fn road(&mut self, name: &str) {
        assert!(ROADS.contains(&name), "{name} is not listed");
        self.add(name, 1);
    }

    /// What an engine has counted in its life.
    pub fn engine(&mut self, counters: &[(String, u64)]) {
        for name in ENGINE_COUNTERS {
            let count = counters.iter().find(|(other, _)| other == name).map_or(0, |(_, count)| *count);
            self.add(&format!("engine: {name}"), count);
        }
    }

    pub fn merge(&mut self, other: &Self) {
        other.counts.iter().for_each(|(name, count)| self.add(name, *count));
    }

    /// What was never met of all that a batch has to meet.
    pub fn missing(&self) -> Vec<String> {
        let engine = ENGINE_COUNTERS.iter().map(|name| format!("engine: {name}"));
        let faults = FaultName::ALL.iter().map(|fault| fault.text());
        let steps = StepName::all().map(|step| step.text());
        let wanted = engine.chain(faults).chain(steps).chain(ROADS.iter().map(|road| (*road).to_owned()));
        wanted.filter(|name| self.counts.get(name).copied().unwrap_or(0) == 0).collect()
    }
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.counts.iter().try_for_each(|(name, count)| writeln!(f, "  {count:>9}  {name}"))
    }
}
