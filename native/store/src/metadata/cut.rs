//! Where a merge stops. A table whose keys lie far apart meets every table of the next level, and merging all of them at
//! once would need as much room as the level has: a full pool never has that. So a merge takes a bounded number of targets,
//! and what its source holds behind them stays on its level, in a table of its own.
//!
//! A place to stop is clean when no cell before it reaches over it: the next level would have newer cells over older ones
//! in tables that took no part.

use super::io::{TableIo, TreeEdit};
use super::output::{Output, Sink as _};
use super::table::{Access, RunCursor, Table};
use super::writer::TableName;
use crate::error::Result;
use holdfast_format::block::Entry;
use holdfast_format::key::Key;
use holdfast_format::table::TreeKind;
use holdfast_format::Lsn;
use std::sync::Arc;

/// The first clean place to stop after `targets_max` targets; `None`: all of it. `sources` are tables of one level below
/// level 0, in key order, as are the targets.
pub(super) fn place(
    tree: TreeKind,
    sources: &[Arc<Table>],
    targets: &[Arc<Table>],
    targets_max: usize,
) -> Result<Option<Key>> {
    let Some(first) = sources.first().map(|table| &table.desc.first) else { return Ok(None) };
    // Something has to go down, or the merge would come again.
    let mut places = targets.iter().skip(targets_max).map(|table| &table.desc.first).filter(|place| *place > first);
    let Some(mut place) = places.next() else { return Ok(None) };
    let mut reach = Key::new();
    let mut records = RunCursor::new(sources.to_vec(), Access::Bulk, &[], None);
    while records.advance()? {
        while records.key() >= &place[..] {
            if reach <= *place {
                return Ok(Some(place.clone()));
            }
            match places.next() {
                Some(next) => place = next,
                None => return Ok(None),
            }
        }
        if let Some((start, level)) = super::data_place(tree, records.key()) {
            reach = reach.max(super::cover_until(records.key(), start, level));
        }
    }
    Ok(None)
}

/// What of the sources stays on its level, as it is. Names no page anew and releases none.
pub(super) fn rest(io: &dyn TableIo, name: TableName, sources: &[Arc<Table>], from: &Key) -> Result<TreeEdit> {
    let mut out = Output::new(io, name, Vec::new(), &super::io::Points::default());
    let mut records = RunCursor::new(sources.to_vec(), Access::Bulk, from, None);
    while records.advance()? {
        let (key, stamp, value) = (records.key(), records.stamp(), records.value());
        out.put_now(Entry { key, stamp, death: Lsn(0), value })?;
    }
    out.finish()
}
