//! Scrubbing, table by table: each table is verified on all its copies, then every page that its DATA records name, on
//! all of theirs; at last the footers and the logs. In the background a pass a day, which goes on where it was after a
//! restart; or a whole pass on demand.

use super::Engine;
use super::check::named_pages;
use crate::error::{Error, Result};
use super::pacing::{Company, Paced};
use crate::placement::{Pace, Scrub, ScrubReport, Unpaced};
use holdfast_format::cell::Cell;
use holdfast_format::limits::{
    SCRUB_BYTES_PER_S_MIN, SCRUB_CALM_BYTES_PER_S_MIN, SCRUB_INTERVAL_S, SCRUB_PASS_S_MAX, SCRUB_SAVE_BYTES, SCRUB_STEP_BYTES,
};
use holdfast_format::scrub::{ScrubCursor, ScrubPhase};
use holdfast_format::{BranchId, EgroupId, GroupId, TableId, key};

/// Footers in one step.
const FOOTERS_PER_STEP: usize = 64;

/// The background's pass.
#[derive(Clone)]
pub(super) struct Scrubbing {
    cursor: ScrubCursor,
    report: ScrubReport,
    /// Of `report.bytes`, when the cursor was saved last.
    saved_bytes: u64,
}

/// How far the background's scrub is.
#[derive(Clone, Default, Debug)]
pub struct ScrubProgress {
    pub running: bool,
    /// Passes begun since the pool was created; 0: none yet.
    pub pass: u64,
    /// Seconds since 1970.
    pub started_s: u64,
    /// Of this pass, across restarts.
    pub bad_copies: u64,
    pub repaired: u64,
    pub lost: u64,
    /// Read in this pass since the pool was opened.
    pub bytes: u64,
    /// Until the pass ends, at the pace that it is given; from where it is, so also after a restart. `None`: none runs.
    pub eta_s: Option<u64>,
    /// Since the pool was opened.
    pub findings: Vec<String>,
}

/// What of the pool is scrubbed; `None`: everything.
type Scope = Option<(GroupId, BranchId)>;

fn first_cursor(scope: Scope) -> ScrubCursor {
    let group = scope.map_or(GroupId(0), |(group, _)| group);
    ScrubCursor { phase: ScrubPhase::Tables, group, ..ScrubCursor::default() }
}

impl Engine {
    /// Reads and verifies every copy of everything in the pool, or of one volume (with its group's tables and log), and
    /// repairs what is wrong from copies that are right. Reads and writes go on: while there are any it is as slow as the
    /// background's.
    ///
    /// Errors: `NotFound`, `Closed`. What is found is no error, but in the report.
    pub fn scrub(&self, volume: Option<&str>) -> Result<ScrubReport> {
        self.scrub_beside(volume, self)
    }

    /// As [`Engine::scrub`], with this company.
    pub fn scrub_beside(&self, volume: Option<&str>, company: &dyn Company) -> Result<ScrubReport> {
        self.ensure_open()?;
        let scope = volume.map(|name| self.find(name)).transpose()?;
        let mut cursor = first_cursor(scope);
        let mut report = ScrubReport::default();
        let pace = Paced::scrubbing(self, company);
        while self.scrub_step(&mut cursor, scope, &mut Scrub { report: &mut report, pace: &pace })? {
            self.ensure_open()?;
        }
        Ok(report)
    }

    /// One bounded step of the background's pass, at once. Returns the bytes that it read; `None`: nothing is due.
    pub fn scrub_background_step(&self) -> Result<Option<u64>> {
        self.scrub_background_step_at(&Unpaced)
    }

    /// As [`Engine::scrub_background_step`] at a pace. Its progress can be looked at meanwhile.
    pub(super) fn scrub_background_step_at(&self, pace: &dyn Pace) -> Result<Option<u64>> {
        self.ensure_open()?;
        let _one_at_a_time = self.scrub_turn.lock();
        let Some(mut state) = self.scrub_due()? else { return Ok(None) };
        let before = state.report.clone();
        let more = self.scrub_step(&mut state.cursor, None, &mut Scrub { report: &mut state.report, pace });
        let bytes = state.report.bytes - before.bytes;
        if let Ok(more) = more {
            state.cursor.bad_copies += state.report.bad_copies - before.bad_copies;
            state.cursor.repaired += state.report.repaired - before.repaired;
            state.cursor.lost += state.report.lost - before.lost;
            if !more || state.report.bytes - state.saved_bytes >= SCRUB_SAVE_BYTES {
                state.saved_bytes = state.report.bytes;
                self.pool.save_scrub(&state.cursor)?;
            }
        }
        *self.scrubbing.lock() = Some(state);
        more.map(|_| Some(bytes))
    }

    /// The pass that is under way, or the one that is due.
    fn scrub_due(&self) -> Result<Option<Scrubbing>> {
        let now_s = self.clock.wall().0.max(0) as u64;
        let mut scrubbing = self.scrubbing.lock();
        if scrubbing.is_none() {
            let cursor = self.pool.load_scrub()?;
            *scrubbing = Some(Scrubbing { cursor, report: ScrubReport::default(), saved_bytes: 0 });
        }
        let Some(state) = scrubbing.as_mut() else { return Ok(None) };
        if state.cursor.phase == ScrubPhase::Done {
            if now_s < state.cursor.started_s.saturating_add(SCRUB_INTERVAL_S) && state.cursor.pass > 0 {
                return Ok(None);
            }
            let pass = state.cursor.pass + 1;
            state.cursor = ScrubCursor { pass, started_s: now_s, ..first_cursor(None) };
            state.report =
                ScrubReport { findings: std::mem::take(&mut state.report.findings), ..Default::default() };
            state.saved_bytes = 0;
        }
        Ok(Some(state.clone()))
    }

    /// Bytes a second that a pass may read: as many as it needs to end in time, or more, while somebody works or nobody does.
    pub(super) fn scrub_rate(&self, busy: bool) -> u64 {
        let room = self.pool.room();
        let least = if busy { SCRUB_BYTES_PER_S_MIN } else { SCRUB_CALM_BYTES_PER_S_MIN };
        ((room.total_bytes - room.free_bytes) / SCRUB_PASS_S_MAX).max(least)
    }

    /// What is left of the pass, from its cursor on: tables and what they name, in proportion to all of them.
    fn scrub_eta_s(&self, cursor: &ScrubCursor) -> u64 {
        let (mut left, mut all) = (0u128, 1u128);
        let mut at = (GroupId(0), TableId(0));
        while let Some(desc) = self.pool.next_table(at.0, at.1) {
            let bytes = (desc.bytes as u64 + desc.payload_bytes) as u128;
            all += bytes;
            let ahead = (desc.owner, desc.id.0) >= (cursor.group, cursor.id);
            left += if cursor.phase == ScrubPhase::Tables && ahead { bytes } else { 0 };
            at = (desc.owner, TableId(desc.id.0 + 1));
        }
        let room = self.pool.room();
        let bytes = (room.total_bytes - room.free_bytes) as u128 * left / all;
        (bytes / self.scrub_rate(self.has_users()) as u128) as u64 + 1
    }

    pub fn scrub_progress(&self) -> ScrubProgress {
        let scrubbing = self.scrubbing.lock();
        let Some(Scrubbing { cursor, report, .. }) = scrubbing.as_ref() else {
            return ScrubProgress::default();
        };
        ScrubProgress {
            running: cursor.phase != ScrubPhase::Done,
            pass: cursor.pass,
            started_s: cursor.started_s,
            bad_copies: cursor.bad_copies,
            repaired: cursor.repaired,
            lost: cursor.lost,
            bytes: report.bytes,
            eta_s: (cursor.phase != ScrubPhase::Done).then(|| self.scrub_eta_s(cursor)),
            findings: report.findings.clone(),
        }
    }

    /// Goes on from the cursor for a while; false: the pass is complete.
    fn scrub_step(&self, cursor: &mut ScrubCursor, scope: Scope, scrub: &mut Scrub<'_>) -> Result<bool> {
        let next_phase = |cursor: &mut ScrubCursor, phase| {
            (cursor.phase, cursor.id) = (phase, 0);
            cursor.group = scope.map_or(GroupId(0), |(group, _)| group);
            cursor.key.clear();
        };
        let within = |group: GroupId| scope.is_none_or(|(only, _)| only == group);
        match cursor.phase {
            ScrubPhase::Tables => match self.pool.next_table(cursor.group, TableId(cursor.id)) {
                Some(desc) if within(desc.owner) => {
                    if (desc.owner, desc.id.0) != (cursor.group, cursor.id) {
                        cursor.key.clear();
                        (cursor.group, cursor.id) = (desc.owner, desc.id.0);
                    }
                    self.scrub_table(cursor, scope, scrub)?;
                }
                _ => next_phase(cursor, ScrubPhase::Footers),
            },
            ScrubPhase::Footers => {
                match self.pool.scrub_footers(EgroupId(cursor.id), FOOTERS_PER_STEP, scrub)? {
                    Some(next) => cursor.id = next.0,
                    None => next_phase(cursor, ScrubPhase::Logs),
                }
            }
            ScrubPhase::Logs => {
                let mut groups = self.groups();
                groups.sort_by_key(|group| group.id);
                match groups.into_iter().find(|group| group.id >= cursor.group && within(group.id)) {
                    Some(group) => {
                        // Asked first: what is durable later may not be on all copies when they are read.
                        let settled = (group.durable(), group.log().carried());
                        self.pool.scrub_log(group.id, settled, scrub)?;
                        cursor.group = GroupId(group.id.0 + 1);
                    }
                    None => {
                        if scope.is_none() {
                            self.pool.scrub_manifest(scrub.report)?;
                        }
                        next_phase(cursor, ScrubPhase::Done);
                    }
                }
            }
            ScrubPhase::Done => {}
        }
        Ok(cursor.phase != ScrubPhase::Done)
    }

    /// A table, then the pages of its records from the cursor on. Stops between two keys.
    fn scrub_table(&self, cursor: &mut ScrubCursor, scope: Scope, scrub: &mut Scrub<'_>) -> Result<()> {
        let (owner, id) = (cursor.group, TableId(cursor.id));
        if cursor.key.is_empty() {
            self.pool.scrub_table(owner, id, scrub)?;
        }
        let mut stopped = None;
        if let Ok(group) = self.group(owner) {
            let _hold = self.pool.hold();
            let until = scrub.report.bytes + SCRUB_STEP_BYTES;
            let mut last: Vec<u8> = Vec::new();
            let name = self.group_name(owner);
            let walked = group.tree().data_records_of(id, &cursor.key, &mut |record_key, value| {
                if scrub.report.bytes >= until && record_key != last {
                    stopped = Some(record_key.to_vec());
                    return Ok(false);
                }
                last.clear();
                last.extend_from_slice(record_key);
                let Some((block, level)) = key::data_place(record_key) else { return Ok(true) };
                let in_scope =
                    scope.is_none_or(|(_, branch)| record_key.starts_with(&branch.0.to_be_bytes()));
                let Some(value) = value.filter(|_| in_scope) else { return Ok(true) };
                let cell = Cell::decode(level, value).map_err(|error| Error::decode("a cell", error))?;
                let named = named_pages(level, &cell);
                self.pool.scrub_pages(&named, &format!("group {name}, block {block} of a file"), scrub)?;
                Ok(true)
            });
            if let Err(error) = walked {
                scrub.report.lost += 1;
                scrub.report.findings.push(format!("table {id} of group {name}: {error}"));
            }
        }
        match stopped {
            Some(next) => cursor.key = next,
            None => {
                cursor.id += 1;
                cursor.key.clear();
            }
        }
        Ok(())
    }
}
