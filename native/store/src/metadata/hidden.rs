//! What only the past sees, for accounts of space: the records of THEN, and what NOW still hides of older versions because its
//! levels have not met. Nothing is written.

use super::cells;
use super::io::{PageName, Points};
use super::levels::Levels;
use super::output::Sink;
use super::resolve::{Below, Origin, Resolver};
use super::table::{Access, Merge, RunCursor, Table};
use crate::error::Result;
use holdfast_format::block::Entry;
use holdfast_format::index;
use holdfast_format::key::{self, KIND_DATA, PREFIX_BYTES};
use holdfast_format::table::{TableDesc, TreeKind};
use holdfast_format::Lsn;
use std::sync::Arc;

/// The life of a version that is over, and the pages that it names.
pub(crate) struct PastRecord<'a> {
    pub birth: Lsn,
    pub death: Lsn,
    pub pages: &'a [PageName],
}

pub(crate) type PastVisit<'a> = &'a mut dyn FnMut(&PastRecord<'_>) -> Result<()>;

/// See `Tree::each_past_record`.
pub(super) fn each_past_record(
    view: &Levels,
    points: &Points,
    wanted: &dyn Fn(&TableDesc) -> bool,
    visit: PastVisit<'_>,
) -> Result<()> {
    each_then_record(view, wanted, visit)?;
    each_hidden_record(view, points, visit)
}

/// The first half of it.
pub(super) fn each_then_record(view: &Levels, wanted: &dyn Fn(&TableDesc) -> bool, visit: PastVisit<'_>) -> Result<()> {
    let mut pages = Vec::new();
    for table in view.then.iter().filter(|table| table.desc.payload_bytes > 0 && wanted(&table.desc)) {
        let mut cursor = RunCursor::new(vec![table.clone()], Access::Bulk, &[], None);
        while cursor.advance()? {
            let Some((_, level)) = key::data_place(cursor.key()) else { continue };
            pages.clear();
            cells::for_each_page(level, cursor.value(), |page| pages.push(page))?;
            if !pages.is_empty() {
                visit(&PastRecord { birth: cursor.stamp().lsn, death: cursor.death(), pages: &pages })?;
            }
        }
    }
    Ok(())
}

/// Inodes with cells above the deepest level are resolved over all levels, one by one.
fn each_hidden_record(view: &Levels, points: &Points, visit: PastVisit<'_>) -> Result<()> {
    let runs: Vec<&Vec<Arc<Table>>> = view.runs.iter().chain(&view.levels).filter(|run| !run.is_empty()).collect();
    let Some((_, upper)) = runs.split_last() else { return Ok(()) };
    let cursor = |run: &&Vec<Arc<Table>>| RunCursor::new((*run).clone(), Access::Bulk, &[], None);
    let mut merge = Merge::new(upper.iter().map(cursor).collect())?;
    let mut inode = [0; PREFIX_BYTES];
    while let Some(head) = merge.head() {
        if key::data_place(head.key()).is_none() {
            merge.advance()?;
            continue;
        }
        inode.copy_from_slice(&head.key()[..PREFIX_BYTES]);
        resolve_inode(&runs, &inode, points, visit)?;
        while merge.head().is_some_and(|head| head.key().starts_with(&inode)) {
            merge.advance()?;
        }
    }
    Ok(())
}

fn resolve_inode(
    runs: &[&Vec<Arc<Table>>],
    inode: &[u8; PREFIX_BYTES],
    points: &Points,
    visit: PastVisit<'_>,
) -> Result<()> {
    let mut until = *inode;
    until[PREFIX_BYTES - 1] = KIND_DATA + 1;
    let hash = index::filter_hash(TreeKind::Now, inode);
    let mut cursors = Vec::new();
    for run in runs {
        let start = run.partition_point(|table| table.desc.last[..] < inode[..]);
        let mut tables = Vec::new();
        for table in run[start..].iter().take_while(|table| table.desc.first[..] < until[..]) {
            if table.index()?.may_hold(hash) {
                tables.push(table.clone());
            }
        }
        if !tables.is_empty() {
            cursors.push(RunCursor::new(tables, Access::Bulk, inode, Some(&until)));
        }
    }
    // Within one run nothing hides anything.
    if cursors.len() < 2 {
        return Ok(());
    }
    let mut merge = Merge::new(cursors)?;
    let below = Below { tree: TreeKind::Now, runs: Vec::new(), floor: None };
    let mut resolver = Resolver::new(points, below, Origin::Tables, Told { visit, pages: Vec::new() });
    while let Some(head) = merge.head() {
        resolver.push(head.key(), head.stamp(), head.value())?;
        merge.advance()?;
    }
    resolver.finish().map(drop)
}

/// Tells of what a merge would move to THEN. What it would drop is nobody's.
struct Told<'a> {
    visit: PastVisit<'a>,
    pages: Vec<PageName>,
}

impl Sink for Told<'_> {
    fn reserve_now(&mut self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }

    fn put_now(&mut self, _: Entry<'_>) -> Result<()> {
        Ok(())
    }

    fn put_then(&mut self, entry: Entry<'_>) -> Result<()> {
        let Some((_, level)) = key::data_place(entry.key) else { return Ok(()) };
        self.pages.clear();
        cells::for_each_page(level, entry.value, |page| self.pages.push(page))?;
        if self.pages.is_empty() {
            return Ok(());
        }
        (self.visit)(&PastRecord { birth: entry.stamp.lsn, death: entry.death, pages: &self.pages })
    }

    fn reference(&mut self, _: PageName) {}

    fn release(&mut self, _: PageName) {}
}
