//! Which tables to merge, and merging them.
//!
//! Level 0 is merged whole into level 1. Of a deeper level one table goes down, with every table of its level
//! whose holes reach over it: a hole must never stay above a newer cell, or what the cell meets below would
//! not learn of the hole. Tables of the target level take part when the covers (`[first, cover_until)`)
//! overlap, as many as one merge may take (`cut.rs`). A level is due when it holds more than its share; a table is
//! due when most of its records are deletions or holes, until it comes to where nothing lies below and they vanish.

use super::io::{Points, TableIo, TreeEdit};
use super::levels::Levels;
use super::tree::{Floor, Looseness, TreeOptions};
use super::output::{Output, Sink as _};
use super::resolve::{Below, Origin, Resolver};
use super::table::{Access, Merge, RunCursor, Table};
use super::writer::TableName;
use super::{cells, cut, levels};
use crate::error::Result;
use holdfast_format::block::Entry;
use holdfast_format::key;
use holdfast_format::key::Key;
use holdfast_format::limits::{LEVEL_FANOUT, LEVEL0_RUNS_MAX, LEVELS_MAX, THEN_FANIN, THEN_PAYLOAD_SLOTS_MAX, TOMBSTONES_DUE};
use holdfast_format::table::{TableDesc, TreeKind};
use holdfast_format::{GroupId, Lsn, TableId};
use std::sync::Arc;

/// A piece of compaction work. It stays good until another edit removes one of its inputs; then it yields
/// nothing.
pub struct Compaction {
    pub(crate) work: Work,
}

pub(crate) enum Work {
    /// Runs of one level of NOW, and what they meet on the next.
    Now { view: Arc<Levels>, sources: Vec<Arc<Table>>, targets: Vec<Arc<Table>>, level: u8 },
    /// Small tables of THEN of one age.
    Then { tables: Vec<Arc<Table>> },
}

impl Compaction {
    /// Bytes of the inputs: about the space that the outputs will take.
    pub fn bytes(&self) -> u64 {
        self.inputs().map(|table| table.desc.bytes as u64).sum()
    }

    /// Takes the small tables on both sides of the targets along: a table fills a slot, however small it is, and
    /// records that come in key order would leave one for each merge.
    pub(super) fn with_small_neighbours(mut self, slot_bytes: usize) -> Self {
        let Work::Now { view, sources, targets, level } = &mut self.work else { return self };
        let Some(beside) = view.levels.get(*level as usize - 1) else { return self };
        let first = sources.iter().chain(targets.iter()).map(|table| &table.desc.first).min();
        let last = sources.iter().chain(targets.iter()).map(|table| &table.desc.last).max();
        let (Some(first), Some(last)) = (first, last) else { return self };
        let before = beside.iter().rposition(|table| table.desc.last < *first);
        let after = beside.iter().position(|table| table.desc.first > *last);
        let small = |at: Option<usize>| {
            let table = &beside[at?];
            let taken = targets.iter().any(|target| target.desc.id == table.desc.id);
            (!taken && (table.desc.bytes as usize) < slot_bytes / 2).then(|| table.clone())
        };
        let (before, after) = (small(before), small(after));
        targets.splice(0..0, before);
        targets.extend(after);
        self
    }

    pub(crate) fn inputs(&self) -> impl Iterator<Item = &Arc<Table>> {
        let (left, right) = match &self.work {
            Work::Now { sources, targets, .. } => (&sources[..], &targets[..]),
            Work::Then { tables } => (&tables[..], &[][..]),
        };
        left.iter().chain(right)
    }
}

fn is_tombstones(records: u64, tombstones: u64) -> bool {
    tombstones >= TOMBSTONES_DUE && tombstones * 2 > records
}

fn mostly_tombstones(table: &Table) -> bool {
    is_tombstones(table.desc.records as u64, table.desc.tombstones as u64)
}

/// Merges sources into the level after theirs.
pub(super) fn into_next(view: &Arc<Levels>, sources: Vec<Arc<Table>>, level: u8) -> Compaction {
    let targets = match view.levels.get(level as usize - 1) {
        Some(tables) => tables
            .iter()
            .filter(|table| sources.iter().any(|source| source.overlaps(&table.desc)))
            .cloned()
            .collect(),
        None => Vec::new(),
    };
    Compaction { work: Work::Now { view: view.clone(), sources, targets, level } }
}

/// The table at `at` with all tables before it whose holes reach over it or over one of them.
pub(super) fn with_covers(level: &[Arc<Table>], at: usize) -> Vec<Arc<Table>> {
    let mut chosen = vec![level[at].clone()];
    let mut first = &level[at].desc.first;
    for table in level[..at].iter().rev() {
        if table.desc.cover_until > *first {
            first = &table.desc.first;
            chosen.push(table.clone());
        }
    }
    chosen.reverse();
    chosen
}

/// Records of level 0, and how many of them are deletions or holes.
fn level0_records(view: &Levels) -> (u64, u64) {
    view.newest.iter().fold((0, 0), |(records, tombstones), table| {
        (records + table.desc.records as u64, tombstones + table.desc.tombstones as u64)
    })
}

/// See `Tree::pick_dead`. Level 0 may still hold what its deletions hide: a third of them hides as much again.
pub(crate) fn pick_dead(view: &Arc<Levels>) -> Option<Compaction> {
    let (records, tombstones) = level0_records(view);
    if tombstones >= TOMBSTONES_DUE && tombstones * 3 > records {
        return Some(into_next(view, view.newest.clone(), 1));
    }
    view.levels.iter().enumerate().take(LEVELS_MAX - 2).find_map(|(at, level)| {
        let chosen = level.iter().position(|table| mostly_tombstones(table))?;
        Some(into_next(view, with_covers(level, chosen), at as u8 + 2))
    })
}

/// The most urgent work. `cursors[n]` is where level n + 1 stopped the last time.
pub(crate) fn pick(view: &Arc<Levels>, options: &TreeOptions, cursors: &mut [Key]) -> Option<Compaction> {
    let (records, tombstones) = level0_records(view);
    let payload: u64 = view.newest.iter().map(|table| table.desc.payload_bytes).sum();
    let hides_much = payload > options.level0_payload_bytes;
    if view.runs.len() >= LEVEL0_RUNS_MAX || hides_much || is_tombstones(records, tombstones) {
        return Some(into_next(view, view.newest.clone(), 1));
    }
    let bytes_of = |level: &Vec<Arc<Table>>| level.iter().map(|table| table.desc.bytes as u64).sum::<u64>();
    let mut share = options.level1_bytes.max(1);
    for (at, level) in view.levels.iter().enumerate().take(LEVELS_MAX - 2) {
        // A level stays small beside the one below it, however small that is: what it hides there is dead.
        let beside = view.levels.get(at + 1).map_or(u64::MAX, |below| bytes_of(below) / LEVEL_FANOUT);
        let most = share.min(beside.max(options.level1_bytes / LEVEL_FANOUT)).max(1);
        let chosen = if bytes_of(level) > most {
            let after = level.partition_point(|table| table.desc.first <= cursors[at]);
            Some(if after < level.len() { after } else { 0 })
        } else {
            level.iter().position(|table| mostly_tombstones(table))
        };
        if let Some(chosen) = chosen {
            cursors[at] = level[chosen].desc.first.clone();
            return Some(into_next(view, with_covers(level, chosen), at as u8 + 2));
        }
        share = share.saturating_mul(LEVEL_FANOUT);
    }
    None
}

/// Small in bytes, and in what its expiry would free.
fn is_small(desc: &TableDesc, slot_bytes: usize) -> bool {
    (desc.bytes as usize) < slot_bytes / 2 && desc.payload_bytes < THEN_PAYLOAD_SLOTS_MAX * slot_bytes as u64
}

/// See `Tree::pick_for_space`.
pub(crate) fn pick_for_space(view: &Arc<Levels>) -> Option<Compaction> {
    if !view.newest.is_empty() {
        return Some(into_next(view, view.newest.clone(), 1));
    }
    for (at, level) in view.levels.iter().enumerate().take(LEVELS_MAX - 2) {
        let below = view.levels.get(at + 1);
        let hides = |table: &Arc<Table>| {
            table.desc.tombstones > 0 && below.is_some_and(|below| below.iter().any(|other| table.overlaps(&other.desc)))
        };
        if let Some(chosen) = level.iter().position(hides) {
            return Some(into_next(view, with_covers(level, chosen), at as u8 + 2));
        }
    }
    None
}

/// The small tables of THEN that are closest in age, when there are too many.
pub(crate) fn pick_then(view: &Arc<Levels>, slot_bytes: usize) -> Option<Compaction> {
    let small: Vec<_> =
        view.then.iter().filter(|table| is_small(&table.desc, slot_bytes)).collect();
    let span = |group: &[&Arc<Table>]| {
        let oldest = group.iter().map(|table| table.desc.death_min).min().unwrap_or_default();
        let newest = group.iter().map(|table| table.desc.death_max).max().unwrap_or_default();
        newest.0 - oldest.0
    };
    let group = small.windows(THEN_FANIN).min_by_key(|group| span(group))?;
    Some(Compaction { work: Work::Then { tables: group.iter().map(|table| (*table).clone()).collect() } })
}

fn ids<'a>(tables: impl Iterator<Item = &'a Arc<Table>>) -> Vec<TableId> {
    tables.map(|table| table.desc.id).collect()
}

pub(crate) fn run(
    io: &dyn TableIo,
    options: &TreeOptions,
    now: TreeKind,
    job: &Compaction,
    points: &Points,
) -> Result<TreeEdit> {
    match &job.work {
        Work::Then { tables } => {
            let mut edit = merge_then(io, options.owner, tables, points)?;
            edit.removed = ids(tables.iter());
            Ok(edit)
        }
        Work::Now { view, sources, targets, level } => {
            let (mut sources, mut targets) = (sources.clone(), targets.clone());
            sources.sort_by(|left, right| left.desc.first.cmp(&right.desc.first));
            let name = TableName { owner: options.owner, tree: now, level: *level };
            // Level 0 is merged whole: level 1 is small.
            let stop = if *level > 1 { cut::place(now, &sources, &targets, options.targets_max)? } else { None };
            let mut rest = TreeEdit::default();
            if let Some(stop) = &stop {
                [&mut sources, &mut targets].into_iter().for_each(|tables| tables.retain(|table| table.desc.first < *stop));
                rest = cut::rest(io, TableName { level: level - 1, ..name }, &sources, stop)?;
            }
            let floor = options.ground.floor();
            let merged = merge_now(io, name, (view, floor), (&sources, &targets), stop.as_deref(), points);
            let mut edit = merged.inspect_err(|_| super::output::discard(io, &rest.added))?;
            edit.added.extend(rest.added);
            edit.removed = ids(sources.iter().chain(&targets));
            Ok(edit)
        }
    }
}

/// The merged records up to `stop`, as tables of the level that `name` says.
fn merge_now(
    io: &dyn TableIo,
    name: TableName,
    (view, floor): (&Levels, Option<Arc<dyn Floor>>),
    (sources, targets): (&[Arc<Table>], &[Arc<Table>]),
    stop: Option<&[u8]>,
    points: &Points,
) -> Result<TreeEdit> {
    let taken = |table: &Arc<Table>| targets.iter().any(|target| target.desc.id == table.desc.id);
    let beside = view.levels.get(name.level as usize - 1).into_iter().flatten();
    let guards = beside.filter(|table| !taken(table)).map(|table| table.desc.first.clone()).collect();
    let below = Below { tree: name.tree, runs: view.levels.iter().skip(name.level as usize).cloned().collect(), floor };
    let mut resolver = Resolver::new(points, below, Origin::Tables, Output::new(io, name, guards, points));
    // No target reaches to where the merge stops: the next one begins there.
    let runs = levels::runs_of(sources).into_iter().chain([targets.to_vec()]);
    let cursors = runs.map(|run| RunCursor::new(run, Access::Bulk, &[], stop)).collect();
    let mut merge = Merge::new(cursors)?;
    while let Some(head) = merge.head() {
        resolver.push(head.key(), head.stamp(), head.value())?;
        merge.advance()?;
    }
    resolver.finish()?.finish()
}

/// Rewrites tables of THEN without what no point sees any more.
fn merge_then(io: &dyn TableIo, owner: GroupId, tables: &[Arc<Table>], points: &Points) -> Result<TreeEdit> {
    let mut out = Output::then_only(io, owner);
    let cursors =
        tables.iter().map(|table| RunCursor::new(vec![table.clone()], Access::Bulk, &[], None)).collect();
    let mut merge = Merge::new(cursors)?;
    while let Some(head) = merge.head() {
        let (stamp, death) = (head.stamp(), head.death());
        if points.sees(stamp.lsn, death) {
            out.put_then(Entry { key: head.key(), stamp, death, value: head.value() })?;
        } else if let Some((_, level)) = key::data_place(head.key()) {
            cells::for_each_page(level, head.value(), |page| out.edit.released.push(page))?;
        }
        merge.advance()?;
    }
    out.finish()
}

/// See `Tree::loosen`.
pub(crate) fn loosen(
    io: &dyn TableIo,
    owner: GroupId,
    view: &Levels,
    what: &Looseness<'_>,
    points: &Points,
) -> Result<TreeEdit> {
    let mut all = TreeEdit::default();
    for table in view.then.iter().filter(|table| what.tables.contains(&table.desc.id)) {
        let rewritten = is_loose(table, points, what.share).and_then(|loose| {
            // One by one: tables of different ages must not become one.
            if loose { merge_then(io, owner, std::slice::from_ref(table), points).map(Some) } else { Ok(None) }
        });
        match rewritten {
            Ok(None) => {}
            Ok(Some(edit)) => {
                all.added.extend(edit.added);
                all.released.extend(edit.released);
                all.removed.push(table.desc.id);
            }
            Err(error) => {
                super::output::discard(io, &all.added);
                return Err(error);
            }
        }
    }
    Ok(all)
}

/// Whether nobody sees a record of a table, or one part in `share` of it.
fn is_loose(table: &Arc<Table>, points: &Points, share: Option<u64>) -> Result<bool> {
    let (mut records, mut bytes) = (0, 0);
    let desc = &table.desc;
    let mut cursor = RunCursor::new(vec![table.clone()], Access::Bulk, &[], None);
    while cursor.advance()? {
        if points.sees(cursor.stamp().lsn, cursor.death()) {
            continue;
        }
        let Some(share) = share else { return Ok(true) };
        records += 1;
        let level = key::data_place(cursor.key()).map(|(_, level)| level);
        bytes += level.map_or(0, |level| cells::payload_bytes(level, cursor.value()));
        if records * share >= u64::from(desc.records) || bytes > 0 && bytes * share >= desc.payload_bytes {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether nothing, or little, of a table of THEN is seen: no point sees any of it, or its ticks have gone
/// and only an older point may see its oldest records (after the rewrite nothing is younger than that point, so it
/// comes once), or the older half of its deaths has been passed by the oldest point (after the rewrite the
/// first death is behind a point, so each rewrite halves the table).
fn is_expired(desc: &TableDesc, points: &Points) -> bool {
    let middle = Lsn(desc.death_min.0 + (desc.death_max.0 - desc.death_min.0) / 2);
    if !points.sees(desc.stamp_min, middle) {
        return true;
    }
    let lsns = points.lsns();
    let seen_from = lsns.partition_point(|point| *point < desc.death_max);
    match seen_from.checked_sub(1).map(|at| lsns[at]) {
        None => true,
        Some(newest) => newest < desc.stamp_min || (newest < desc.death_min && newest < desc.stamp_max),
    }
}

/// Rewrites, or drops whole, the tables of THEN that are expired; a bounded number a call.
pub(crate) fn expire(
    io: &dyn TableIo,
    owner: GroupId,
    view: &Levels,
    tables_max: usize,
    points: &Points,
) -> Result<TreeEdit> {
    let expired: Vec<_> =
        view.then.iter().filter(|table| is_expired(&table.desc, points)).take(tables_max).cloned().collect();
    if expired.is_empty() {
        return Ok(TreeEdit::default());
    }
    let mut edit = merge_then(io, owner, &expired, points)?;
    edit.removed = ids(expired.iter());
    Ok(edit)
}
