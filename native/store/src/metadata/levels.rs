//! All tables of a moment, as readers see them.
//!
//! Invariants: level 0 holds runs that may overlap; every deeper level is one run; for one key a shallower
//! level is newer. DATA cells shadow across keys, so their readers compare stamps over all keys that may
//! cover a block.

use super::io::Version;
use super::memtable::Stamped;
use super::table::{Access, Merge, RunCursor, Table};
use crate::error::Result;
use holdfast_format::{index, key};
use holdfast_format::table::TreeKind;
use holdfast_format::{Lsn, Stamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Look-ups since start, for the counted twins of the timed bars.
#[derive(Default)]
pub(crate) struct Counters {
    pub lookups: AtomicU64,
    pub keys_stepped: AtomicU64,
}

/// All tables of a moment. Readers hold it while they read.
pub struct Levels {
    /// Level 0, newest stamp first.
    pub(crate) newest: Vec<Arc<Table>>,
    /// Level 0 as runs in key order.
    pub(crate) runs: Vec<Vec<Arc<Table>>>,
    /// Levels 1 and deeper; the last one is not empty.
    pub(crate) levels: Vec<Vec<Arc<Table>>>,
    /// THEN, by highest death.
    pub(crate) then: Vec<Arc<Table>>,
    pub(crate) counters: Arc<Counters>,
}

impl Levels {
    pub(crate) fn new(tables: Vec<Arc<Table>>, counters: Arc<Counters>) -> Self {
        let (mut then, now): (Vec<_>, Vec<_>) =
            tables.into_iter().partition(|table| table.desc.tree == TreeKind::Then);
        then.sort_by_key(|table| (table.desc.death_max, table.desc.id));
        let (mut newest, deeper): (Vec<_>, Vec<_>) = now.into_iter().partition(|table| table.desc.level == 0);
        let mut levels: Vec<Vec<Arc<Table>>> = Vec::new();
        for table in deeper {
            let level = table.desc.level as usize;
            levels.resize_with(levels.len().max(level), Vec::new);
            levels[level - 1].push(table);
        }
        for level in &mut levels {
            level.sort_by(|left, right| left.desc.first.cmp(&right.desc.first));
            debug_assert!(level.windows(2).all(|pair| pair[0].desc.last < pair[1].desc.first));
        }
        newest.sort_by(|left, right| left.desc.first.cmp(&right.desc.first));
        let runs = runs_of(&newest);
        newest.sort_by_key(|table| std::cmp::Reverse(table.desc.stamp_max));
        Self { newest, runs, levels, then, counters }
    }

    /// Overlapping runs on level 0.
    pub(crate) fn level0_runs(&self) -> usize {
        self.runs.len()
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.newest.iter().chain(self.levels.iter().flatten()).chain(&self.then)
    }

    /// About how many bytes the records of THEN name that died at or before an LSN: within a table deaths are taken to lie evenly.
    pub(crate) fn past_bytes_before(&self, lsn: Lsn) -> u64 {
        let before = |table: &Arc<Table>| {
            let desc = &table.desc;
            let span = u128::from(desc.death_max.0 - desc.death_min.0) + 1;
            let dead = (u128::from(lsn.0) + 1).saturating_sub(u128::from(desc.death_min.0)).min(span);
            (u128::from(desc.payload_bytes) * dead / span) as u64
        };
        self.then.iter().map(before).sum()
    }

    fn look(&self, table: &Table, key: &[u8], stepped: &mut u64) -> Result<Option<Stamped>> {
        let (found, steps) = table.get(key)?;
        *stepped += steps as u64;
        Ok(found)
    }

    fn count(&self, stepped: u64) {
        self.counters.lookups.fetch_add(1, Ordering::Relaxed);
        self.counters.keys_stepped.fetch_add(stepped, Ordering::Relaxed);
    }

    fn at_level<'a>(level: &'a [Arc<Table>], key: &[u8]) -> Option<&'a Arc<Table>> {
        let at = level.partition_point(|table| &table.desc.last[..] < key);
        level.get(at).filter(|table| table.spans(key))
    }

    /// Newest version in NOW; a value of `None` is a deletion (of a DATA key: a hole). A block's content is what
    /// the newest of the cells that cover it says, blocks in their `released` bitmaps left out; of two with one
    /// stamp the smaller. No cell at all: a hole.
    pub fn get(&self, key: &[u8]) -> Result<Option<Stamped>> {
        let mut stepped = 0;
        let mut best: Option<Stamped> = None;
        for table in &self.newest {
            if best.as_ref().is_some_and(|(stamp, _)| stamp.lsn >= table.desc.stamp_max) {
                break;
            }
            if table.spans(key)
                && let Some(found) = self.look(table, key, &mut stepped)?
                && best.as_ref().is_none_or(|(stamp, _)| *stamp < found.0)
            {
                best = Some(found);
            }
        }
        for level in &self.levels {
            if best.is_some() {
                break;
            }
            if let Some(table) = Self::at_level(level, key) {
                best = self.look(table, key, &mut stepped)?;
            }
        }
        self.count(stepped);
        Ok(best)
    }

    /// NOW's records with `from <= key < until`: per key the newest version, deletions included.
    pub fn iter(&self, from: &[u8], until: &[u8]) -> Result<LevelsIter> {
        LevelsIter::new(self.now_cursors(from, until)?, None, self.counters.clone())
    }

    /// The records that the point `at` sees, of NOW and THEN: per key the newest version of its time, deletions
    /// included.
    pub fn iter_at(&self, from: &[u8], until: &[u8], at: Lsn) -> Result<LevelsIter> {
        let mut cursors = self.now_cursors(from, until)?;
        let sees = |table: &&Arc<Table>| table.desc.stamp_min <= at && at < table.desc.death_max;
        let reaches = |table: &&Arc<Table>| &table.desc.first[..] < until && &table.desc.last[..] >= from;
        for table in self.then.iter().filter(sees).filter(reaches) {
            if may_hold_range(std::slice::from_ref(table), from, until)? {
                cursors.push(RunCursor::new(vec![table.clone()], Access::Cached, from, Some(until)));
            }
        }
        LevelsIter::new(cursors, Some(at), self.counters.clone())
    }

    fn now_cursors(&self, from: &[u8], until: &[u8]) -> Result<Vec<RunCursor>> {
        let mut cursors = Vec::new();
        for run in self.runs.iter().chain(&self.levels) {
            let start = run.partition_point(|table| &table.desc.last[..] < from);
            let count = run[start..].iter().take_while(|table| &table.desc.first[..] < until).count();
            let tables = &run[start..start + count];
            if !tables.is_empty() && may_hold_range(tables, from, until)? {
                cursors.push(RunCursor::new(tables.to_vec(), Access::Cached, from, Some(until)));
            }
        }
        Ok(cursors)
    }

    /// The version that the point `at` sees: the newest of its time, over NOW and THEN. For a DATA key it
    /// says what this cell said then; a block's content is that of the newest cell that covers it.
    pub fn get_at(&self, key: &[u8], at: Lsn) -> Result<Option<Stamped>> {
        // What the present has, when it was there then: nothing has ended since. A cell may have died of another one, and a
        // deletion may stand for a later one.
        let mut in_now = true;
        if key::data_place(key).is_none() {
            match self.get(key)? {
                Some((stamp, value)) if stamp.lsn <= at && value.is_some() => return Ok(Some((stamp, value))),
                found => in_now = found.is_some(),
            }
        }
        let mut stepped = 0;
        let mut best: Option<Stamped> = None;
        let keep = |found: Stamped, best: &mut Option<Stamped>| {
            if found.0.lsn <= at && best.as_ref().is_none_or(|(stamp, _)| *stamp < found.0) {
                *best = Some(found);
            }
        };
        let deeper = self.levels.iter().filter_map(|level| Self::at_level(level, key));
        let now = self.newest.iter().filter(|table| table.spans(key)).chain(deeper);
        for table in now.filter(|_| in_now) {
            if let Some(found) = self.look(table, key, &mut stepped)? {
                keep(found, &mut best);
            }
        }
        let hash = index::filter_hash(TreeKind::Then, key);
        let until = [key, b"\0"].concat();
        for table in self
            .then
            .iter()
            .filter(|table| table.spans(key) && table.desc.stamp_min <= at && at < table.desc.death_max)
        {
            if !table.index()?.may_hold(hash) {
                continue;
            }
            let mut cursor = RunCursor::new(vec![table.clone()], Access::Cached, key, Some(&until));
            while cursor.advance()? {
                if at < cursor.death() {
                    keep((cursor.stamp(), cursor.value().map(<[u8]>::to_vec)), &mut best);
                }
            }
            stepped += cursor.stepped();
        }
        self.count(stepped);
        Ok(best)
    }
}

/// Whether the few tables of a run that a range touches may hold anything of it.
fn may_hold_range(tables: &[Arc<Table>], from: &[u8], until: &[u8]) -> Result<bool> {
    let Some(hash) = index::filter_hash_of_range(tables[0].desc.tree, from, until) else { return Ok(true) };
    if tables.len() > 2 {
        return Ok(true);
    }
    for table in tables {
        if table.index()?.may_hold(hash) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Tables in key order as the fewest runs without overlaps.
pub(crate) fn runs_of(tables: &[Arc<Table>]) -> Vec<Vec<Arc<Table>>> {
    let mut runs: Vec<Vec<Arc<Table>>> = Vec::new();
    for table in tables {
        let fits =
            |run: &&mut Vec<Arc<Table>>| run.last().is_some_and(|last| last.desc.last < table.desc.first);
        match runs.iter_mut().find(fits) {
            Some(run) => run.push(table.clone()),
            None => runs.push(vec![table.clone()]),
        }
    }
    runs
}

/// What a point sees of one key.
#[derive(Default)]
struct Chosen {
    key: Vec<u8>,
    stamp: Stamp,
    value: Option<Vec<u8>>,
}

/// Records in key order: per key one version, the newest of the present or of a point's time, deletions included. Holds
/// the tables that it reads.
pub struct LevelsIter {
    merge: Merge,
    started: bool,
    /// The point, and what it sees of the key before the merge's; `None` inside: the end.
    past: Option<(Lsn, Option<Chosen>)>,
    counters: Arc<Counters>,
}

impl LevelsIter {
    fn new(cursors: Vec<RunCursor>, at: Option<Lsn>, counters: Arc<Counters>) -> Result<Self> {
        Ok(Self { merge: Merge::new(cursors)?, started: false, past: at.map(|at| (at, None)), counters })
    }

    /// Steps to the next record; false at the end. Of the present it copies nothing, as the `Iterator` does.
    pub fn advance(&mut self) -> Result<bool> {
        if let Some((at, _)) = self.past {
            let chosen = self.choose(at)?;
            let more = chosen.is_some();
            self.past = Some((at, chosen));
            return Ok(more);
        }
        if self.started && self.merge.head().is_some() {
            self.merge.advance_key()?;
        }
        self.started = true;
        Ok(self.merge.head().is_some())
    }
    /// What `at` sees of the next key of which it sees anything: the first version of its time that had not ended by then.
    /// An entry of NOW has no end.
    fn choose(&mut self, at: Lsn) -> Result<Option<Chosen>> {
        let mut chosen = Chosen::default();
        let mut found = false;
        while let Some(head) = self.merge.head() {
            if head.key() != &chosen.key[..] || chosen.key.is_empty() {
                if found {
                    break;
                }
                chosen.key.clear();
                chosen.key.extend_from_slice(head.key());
            }
            if !found && head.stamp().lsn <= at && (head.death() == Lsn(0) || at < head.death()) {
                found = true;
                chosen.stamp = head.stamp();
                chosen.value = head.value().map(<[u8]>::to_vec);
            }
            self.merge.advance()?;
        }
        Ok(found.then_some(chosen))
    }

    /// Key of the record that the iterator stands on; empty when it stands on none.
    pub fn key(&self) -> &[u8] {
        match &self.past {
            Some((_, chosen)) => chosen.as_ref().map_or(&[], |chosen| &chosen.key),
            None => self.merge.head().map_or(&[], RunCursor::key),
        }
    }
    pub fn stamp(&self) -> Stamp {
        match &self.past {
            Some((_, chosen)) => chosen.as_ref().map_or(Stamp::default(), |chosen| chosen.stamp),
            None => self.merge.head().map_or(Stamp::default(), RunCursor::stamp),
        }
    }
    /// `None`: deleted.
    pub fn value(&self) -> Option<&[u8]> {
        match &self.past {
            Some((_, chosen)) => chosen.as_ref().and_then(|chosen| chosen.value.as_deref()),
            None => self.merge.head().and_then(RunCursor::value),
        }
    }
}

impl Iterator for LevelsIter {
    type Item = Result<Version>;
    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(true) => Some(Ok(Version {
                key: self.key().to_vec(),
                stamp: self.stamp(),
                value: self.value().map(<[u8]>::to_vec),
            })),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

impl Drop for LevelsIter {
    fn drop(&mut self) {
        self.counters.lookups.fetch_add(1, Ordering::Relaxed);
        self.counters.keys_stepped.fetch_add(self.merge.stepped(), Ordering::Relaxed);
    }
}
