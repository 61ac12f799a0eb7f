//! Keys that changed between two points, as the tables tell: those without stamps or deaths of that time are not read, nor are
//! blocks without any.

use super::levels::Levels;
use super::table::{Access, Merge, RunCursor, Table};
use crate::error::Result;
use holdfast_format::Lsn;
use std::sync::Arc;

/// What came after the first, up to the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    pub from: Lsn,
    pub to: Lsn,
    /// From before everything: what a group took over as a clone, with stamps before its first op, came after it, too.
    pub is_whole: bool,
}

impl Span {
    pub fn has(self, lsn: Lsn) -> bool {
        (self.from < lsn || self.is_whole) && lsn <= self.to
    }

    /// Whether a table may tell of a change in here. Deaths are THEN's only.
    fn meets(self, table: &Table) -> bool {
        let desc = &table.desc;
        let born = desc.stamp_min <= self.to && (desc.stamp_max > self.from || self.is_whole);
        let died = desc.death_max > Lsn(0) && desc.death_min <= self.to && desc.death_max > self.from;
        born || died
    }
}

/// Stands on a key whose version was born or died in the span, or at the end.
pub struct ChangedKeys {
    merge: Merge,
    span: Span,
}

impl Levels {
    /// Keys in `[from, until)` that changed.
    pub fn changed_keys(&self, span: Span, from: &[u8], until: &[u8]) -> Result<ChangedKeys> {
        let meant = |table: &&Arc<Table>| {
            span.meets(table) && &table.desc.first[..] < until && &table.desc.last[..] >= from
        };
        let cursor = |table: &Arc<Table>| {
            let cursor = RunCursor::new(vec![table.clone()], Access::Cached, from, Some(until));
            if span.is_whole { cursor } else { cursor.within(span.from, span.to) }
        };
        let cursors = self.tables().filter(meant).map(cursor).collect();
        let mut keys = ChangedKeys { merge: Merge::new(cursors)?, span };
        keys.settle()?;
        Ok(keys)
    }
}

impl ChangedKeys {
    /// Passes over what did not change.
    fn settle(&mut self) -> Result<()> {
        let span = self.span;
        let changed = |head: &RunCursor| span.has(head.stamp().lsn) || head.death() > Lsn(0) && span.has(head.death());
        while self.merge.head().is_some_and(|head| !changed(head)) {
            self.merge.advance()?;
        }
        Ok(())
    }

    pub fn key(&self) -> Option<&[u8]> {
        self.merge.head().map(RunCursor::key)
    }

    /// Records that were stepped over or told.
    #[cfg(test)]
    pub(super) fn stepped(&self) -> u64 {
        self.merge.stepped()
    }

    /// Leaves every version of a key behind, if it is the one that the walk stands on.
    pub fn pass(&mut self, key: &[u8]) -> Result<()> {
        while self.merge.head().is_some_and(|head| head.key() == key) {
            self.merge.advance()?;
        }
        self.settle()
    }
}
