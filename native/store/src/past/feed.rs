//! The change feed: what happened to a volume, from kept point to kept point, in the order of LSNs.
//!
//! - A step goes from a point to the next one that is kept and durable: mostly a second. What changed several times in it is told
//!   once. Points in between that have gone make steps longer, and nothing else.
//! - What is told between two points, and in which order, is a function of what both saw (`difference::Teller`): so a cursor may
//!   stand anywhere, for as long as both are kept, over restarts, drains and merges, and each change is told once.
//! - A step of any size is told with bounded memory: a walk over the keys that changed selects the units that come next, as many
//!   as fit; a selection is remembered for the next page.

use super::cursor::Unit;
use super::difference::{FileChange, Teller, Touched};
use crate::error::Result;
use crate::group::{Group, Span};
use holdfast_format::{BranchId, GroupId, Ino, Lsn, key};
use parking_lot::Mutex;
use std::sync::Arc;

/// Selections that are remembered.
const SELECTIONS_MAX: usize = 4;

/// What comes next between two points.
struct Selection {
    of: (GroupId, BranchId, Span),
    /// The first comes after this one.
    after: Option<Unit>,
    /// In order.
    units: Vec<Unit>,
    /// No more come after these.
    is_all: bool,
}

impl Selection {
    /// The units after one, if this selection knows which those are.
    fn rest(&self, after: Option<Unit>) -> Option<&[Unit]> {
        if after < self.after {
            return None;
        }
        let rest = &self.units[self.units.partition_point(|unit| Some(*unit) <= after)..];
        (self.is_all || !rest.is_empty()).then_some(rest)
    }
}

/// Selections of late, the newest last.
pub struct Selections {
    /// Units that one walk selects.
    units_max: usize,
    late: Mutex<Vec<Arc<Selection>>>,
}

/// Some changes of a step, and the last unit of them; `None`: the step is told.
pub struct Told {
    pub changes: Vec<FileChange>,
    pub last: Option<Unit>,
}

/// Tells what comes after a unit between two points that are both pinned: about `limit` changes.
pub fn tell(
    selections: &Selections,
    (group, branch): (&Group, BranchId),
    span: Span,
    after: Option<Unit>,
    limit: usize,
) -> Result<Told> {
    let mut teller = Teller::new(group, branch, span);
    let mut told = Told { changes: Vec::new(), last: after };
    loop {
        let selection = selections.find(&mut teller, (group, branch), span, told.last)?;
        for unit in selection.rest(told.last).unwrap_or_default() {
            if told.changes.len() >= limit {
                return Ok(told);
            }
            tell_unit(&mut teller, (group, branch), span, *unit, &mut told.changes)?;
            told.last = Some(*unit);
        }
        if selection.is_all {
            return Ok(Told { last: None, ..told });
        }
    }
}

impl Selections {
    pub fn new(units_max: usize) -> Self {
        Self { units_max, late: Mutex::default() }
    }

    fn find(
        &self,
        teller: &mut Teller<'_>,
        (group, branch): (&Group, BranchId),
        span: Span,
        after: Option<Unit>,
    ) -> Result<Arc<Selection>> {
        let of = (group.id, branch, span);
        let known = self.late.lock().iter().find(|known| known.of == of && known.rest(after).is_some()).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let (units, is_all) = select(teller, (group, branch), span, after, self.units_max)?;
        let fresh = Arc::new(Selection { of, after, units, is_all });
        let mut all = self.late.lock();
        all.retain(|known| known.of != of);
        if all.len() >= SELECTIONS_MAX {
            all.remove(0);
        }
        // Most steps are one page, which never comes back.
        all.push(fresh.clone());
        Ok(fresh)
    }
}

/// The first units after one, in order, and whether these are all.
fn select(
    teller: &mut Teller<'_>,
    (group, branch): (&Group, BranchId),
    span: Span,
    after: Option<Unit>,
    units_max: usize,
) -> Result<(Vec<Unit>, bool)> {
    let mut units: Vec<Unit> = Vec::new();
    let (mut is_all, mut last) = (true, (Ino(0), None));
    let range = (key::inode(branch, Ino(1)), key::volume(BranchId(branch.0 + 1)));
    group.changed_keys(span, (&range.0, &range.1), &mut |key| {
        let Some(parts) = key::parts(key) else { return Ok(true) };
        let mut add = |lsn: Lsn, part: u64| {
            let unit = Unit { lsn, ino: parts.ino, part };
            if (lsn > span.from || span.is_whole) && Some(unit) > after {
                units.push(unit);
            }
        };
        if last.0 != parts.ino {
            last = (parts.ino, None);
            if let Some(lsn) = teller.inode_lsn(parts.ino)? {
                add(lsn, 0);
            }
        }
        let cookie = key::dirent_place(key).map(|(cookie, _)| cookie);
        if let Some(cookie) = cookie.filter(|_| cookie != last.1) {
            last.1 = Some(cookie);
            add(teller.names_lsn(parts.ino)?, cookie);
        }
        if units.len() >= 2 * units_max {
            units.select_nth_unstable(units_max);
            units.truncate(units_max);
            is_all = false;
        }
        Ok(true)
    })?;
    units.sort_unstable();
    is_all &= units.len() <= units_max;
    units.truncate(units_max);
    units.shrink_to_fit();
    Ok((units, is_all))
}

fn tell_unit(
    teller: &mut Teller<'_>,
    (group, branch): (&Group, BranchId),
    span: Span,
    unit: Unit,
    changes: &mut Vec<FileChange>,
) -> Result<()> {
    if unit.part != 0 {
        let (from, until) = (key::dirent_from(branch, unit.ino, unit.part), key::dirent_from(branch, unit.ino, unit.part + 1));
        return group.changed_keys(span, (&from, &until), &mut |key| {
            if let Some((cookie, name)) = key::dirent_place(key) {
                changes.extend(teller.tell_name(unit.ino, cookie, name)?.into_iter().flatten());
            }
            Ok(true)
        });
    }
    let mut touched = Touched::new(unit.ino);
    for kind in [key::KIND_XATTR, key::KIND_DATA] {
        let (from, until) = key::kind_range(branch, unit.ino, kind);
        group.changed_keys(span, (&from, &until), &mut |key| {
            touched.note(key, kind);
            Ok(true)
        })?;
    }
    changes.extend(teller.tell_inode(&touched)?);
    Ok(())
}
