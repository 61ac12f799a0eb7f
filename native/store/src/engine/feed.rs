//! The change feed of a volume: pages of what happened, each with a cursor that continues behind it.

use super::Engine;
use crate::error::{Error, Kind, Result};
use crate::group::{Group, PointInfo, Span, When};
use crate::past::{Cursor, Source, tell};
use crate::past::{FileChange, point_name};
use holdfast_format::{BranchId, Lsn};
use std::sync::Arc;
use std::time::Duration;

/// Steps (mostly seconds) that one page looks at. Where there is more, it says so.
const STEPS_MAX: usize = 256;
/// Words for where no cursor is given: from here on, and everything that is there.
const NOW: &str = "now";
const BEGINNING: &str = "beginning";

/// What a consumer asks for.
#[derive(Clone, Debug)]
pub struct FeedRequest {
    /// A cursor; or where to begin: a moment that is kept, `now`, `beginning`.
    pub from: String,
    /// About so many changes.
    pub limit: usize,
    /// How long to wait for the next change when there is none.
    pub wait: Duration,
    /// Everything that was acknowledged before the request, even if its second is not over.
    pub latest: bool,
    /// One step to the newest state, instead of one for each second that is kept: each file is told once.
    pub coalesce: bool,
}

pub struct FeedChange {
    pub change: FileChange,
    /// LSN of the kept state that shows it first.
    pub seen_at: Lsn,
}

/// Changes in the order of LSNs. Within one step (changes with one `seen_at`) they are a set: all of them together lead from one
/// state to the next.
pub struct FeedPage {
    pub changes: Vec<FeedChange>,
    /// What to ask with for what comes next.
    pub cursor: String,
    /// LSN of the kept state up to which everything was told before.
    pub began_at: Lsn,
    /// LSN of the kept state up to which everything is told; 0: none.
    pub told_to: Lsn,
    /// There is more to be told already.
    pub more: bool,
}

impl Engine {
    /// # Errors
    /// `Invalid`: no cursor, or one of another volume; `NotFound`: what the cursor needs is not kept any more.
    pub fn feed(&self, name: &str, request: &FeedRequest) -> Result<FeedPage> {
        self.ensure_open()?;
        let (id, branch) = self.find(name)?;
        let group = self.group(id)?;
        let source = Source { pool: self.pool.uuid().0, group: id, branch };
        let mut cursor = self.feed_start(name, &group, source, &request.from)?;
        if request.latest {
            let point = group.point_now()?;
            self.flush_group(&group, point.lsn)?;
        }
        let (mut changes, mut more, began_at) = (Vec::new(), true, cursor.from);
        for _ in 0..STEPS_MAX {
            let Some(to) = self.feed_step(&group, &cursor, request, changes.is_empty())? else {
                more = false;
                break;
            };
            let room = request.limit - changes.len();
            self.feed_take(name, (&group, branch), (&mut cursor, &to), room, &mut changes)?;
            if changes.len() >= request.limit {
                break;
            }
        }
        Ok(FeedPage { changes, cursor: cursor.encode(), began_at, told_to: cursor.from, more })
    }

    fn feed_start(&self, name: &str, group: &Arc<Group>, source: Source, words: &str) -> Result<Cursor> {
        if Cursor::is_meant(words) {
            let cursor = Cursor::decode(words)?;
            if cursor.source != source {
                let hint = format!("feed of {name} --from now begins one of this volume");
                return Err(Error::invalid(format!("the cursor is of another volume than {name}: {hint}")));
            }
            return Ok(cursor);
        }
        let point = match words {
            BEGINNING => return Ok(Cursor { source, from: Lsn(0), wall_s: 0, within: None }),
            NOW => group.point_now()?,
            words => self.point_in(group, words)?,
        };
        self.flush_group(group, point.lsn)?;
        Ok(Cursor { source, from: point.lsn, wall_s: point.wall.sec, within: None })
    }

    /// The point that ends the step which the cursor stands in, or before; waits for one when there is none.
    fn feed_step(
        &self,
        group: &Arc<Group>,
        cursor: &Cursor,
        request: &FeedRequest,
        is_first: bool,
    ) -> Result<Option<PointInfo>> {
        if let Some((to, _)) = cursor.within {
            return group.point_at(to).map(Some).ok_or_else(|| self.feed_gone(group, cursor));
        }
        let next = group.next_point(cursor.from, request.coalesce);
        if next.is_some() || !is_first || request.wait.is_zero() {
            return Ok(next);
        }
        group.await_point(cursor.from, request.wait)?;
        Ok(group.next_point(cursor.from, request.coalesce))
    }

    /// Tells of a step, and moves the cursor.
    fn feed_take(
        &self,
        name: &str,
        (group, branch): (&Arc<Group>, BranchId),
        (cursor, to): (&mut Cursor, &PointInfo),
        limit: usize,
        changes: &mut Vec<FeedChange>,
    ) -> Result<()> {
        let from = match cursor.from {
            Lsn(0) => None,
            lsn => Some(group.pin(lsn).ok_or_else(|| self.feed_gone(group, cursor))?),
        };
        // An LSN of a pool that was set back to an older image may be another one.
        if let Some(point) = from.as_ref().and_then(|pin| group.point_at(pin.lsn()))
            && point.wall.sec != cursor.wall_s
        {
            return Err(self.feed_gone(group, cursor));
        }
        let _to = group.pin(to.lsn).ok_or_else(|| self.feed_gone(group, cursor))?;
        // What a clone lies on was there before; one that stands alone begins with nothing.
        let is_whole = cursor.from == Lsn(0) && group.base().is_none();
        let span = Span { from: cursor.from, to: to.lsn, is_whole };
        if span.from >= span.to {
            return Err(Error::invalid(format!("the cursor is ahead of volume {name}")));
        }
        let after = cursor.within.map(|(_, unit)| unit);
        let told = tell(&self.selections, (group, branch), span, after, limit)?;
        changes.extend(told.changes.into_iter().map(|change| FeedChange { change, seen_at: to.lsn }));
        match told.last {
            Some(unit) => cursor.within = Some((to.lsn, unit)),
            None => *cursor = Cursor { from: to.lsn, wall_s: to.wall.sec, within: None, ..*cursor },
        }
        Ok(())
    }

    fn feed_gone(&self, group: &Group, cursor: &Cursor) -> Error {
        let kept = match group.kept_window() {
            Some((first, last)) => format!("kept are states from {} to {}", point_name(first.wall), point_name(last.wall)),
            None => "nothing is kept now".to_owned(),
        };
        let way_out = match cursor.within {
            Some(_) if group.keeps(cursor.from) => {
                format!("--from lsn:{} tells again what comes after the state that was told last", cursor.from)
            }
            _ => "--from now begins anew, and diff from the oldest state that is kept, or a look at all files, tells what was missed"
                .to_owned(),
        };
        let message = format!("the history that the cursor stands in (LSN {}) is not kept any more: {kept}; {way_out}", cursor.from);
        Error::new(Kind::NotFound, message)
    }
}

impl Group {
    /// A kept point by its LSN.
    pub fn point_at(&self, lsn: Lsn) -> Option<PointInfo> {
        self.point(&When::Lsn(lsn)).filter(|point| point.lsn == lsn)
    }
}
