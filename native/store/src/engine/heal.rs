//! Rebuilding after a drive was lost: the engine's part is to take logs off lost drives, and to know what the DATA
//! records say of a page.

use super::Engine;
use super::check::named_pages;
use super::housekeeping::started;
use super::options::{DriveSpec, open_drive};
use super::pacing::{Company, Paced};
use crate::error::{Error, Kind, Result};
use crate::placement::{Effort, Named, PoolDrive};
use holdfast_device::threads::spawn;
use holdfast_format::cell::Cell;
use holdfast_format::limits::{HEAL_SLOTS_PER_STEP_MAX, HEAL_WORKERS};
use holdfast_format::{EgroupId, key};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Heals in the background, as fast as the drives are when nobody else wants them, else at a bounded rate; scrubs when
/// nothing is to be healed.
pub(super) fn start_healer(engine: &Arc<Engine>) -> Result<()> {
    let bell = engine.healer.clone();
    let weak = Arc::downgrade(engine);
    let run = move || {
        loop {
            let Some(engine) = weak.upgrade() else { return };
            if engine.closed.load(Ordering::Acquire) {
                return;
            }
            let some = match engine.care_step() {
                Ok(some) => {
                    *engine.heal_trouble.lock() = None;
                    some
                }
                Err(error) => {
                    *engine.heal_trouble.lock() = Some(error).filter(|error| error.kind != Kind::Closed);
                    false
                }
            };
            drop(engine);
            if !some {
                bell.await_ring(SECOND);
            }
        }
    };
    started(spawn("holdfast-heal", run), engine)
}

impl Engine {
    /// One step of the healer: healing, then balance, then scrub, each at its pace; false: there was nothing to do.
    fn care_step(&self) -> Result<bool> {
        self.care_beside(self, HEAL_WORKERS)
    }

    /// As the healer's thread does it, on this one alone, with this company.
    pub fn care_now(&self, company: &dyn Company) -> Result<bool> {
        self.care_beside(company, 1)
    }

    fn care_beside(&self, company: &dyn Company, workers: usize) -> Result<bool> {
        // What is copied is read and written: twice as many bytes are moved.
        let bytes_per_s = self.options.heal_bytes_per_s.saturating_mul(2);
        let pace = Paced::copying(self, company, bytes_per_s);
        let effort = Effort { workers, slots: HEAL_SLOTS_PER_STEP_MAX, pace: &pace };
        if self.heal_step_with(effort)? || self.balance_step_with(effort)? {
            return Ok(true);
        }
        Ok(self.scrub_background_step_at(&Paced::scrubbing_always(self, company))?.is_some())
    }

    /// Makes some copies that were lost anew; false when nothing is left to do now. Reads and writes go on.
    ///
    /// Errors: `Unavailable`, `Closed`. What cannot be healed is no error, but in [`Engine::status`].
    pub fn heal_step(&self) -> Result<bool> {
        self.heal_step_with(Effort::small())
    }

    fn heal_step_with(&self, effort: Effort<'_>) -> Result<bool> {
        self.ensure_open()?;
        self.pool.set_rf_max(self.groups().iter().map(|group| group.log().header_rf()).max().unwrap_or(1));
        let mut stuck = None;
        // What cannot be read now must not keep the rest from being healed: that may be what makes it readable.
        let protected = self.protect_step().unwrap_or_else(|error| {
            stuck = Some(error);
            false
        });
        for group in self.pool.logs_degraded().into_iter().filter_map(|id| self.group(id).ok()) {
            if let Err(error) = group.relocate_log() {
                stuck = Some(error);
            }
        }
        // A log that cannot move for want of drives must not keep drives from coming back.
        let healed = self.pool.heal_step(&|egroup| self.names_of(egroup), effort)? || self.pool.retire_step()?;
        match stuck.filter(|_| !healed && !protected) {
            Some(error) => Err(error),
            None => Ok(healed || protected),
        }
    }

    /// Moves some copies from full drives to emptier ones; false when drives are filled evenly, or nothing can move.
    ///
    /// Errors: `Unavailable`, `Closed`.
    pub fn balance_step(&self) -> Result<bool> {
        self.balance_step_with(Effort::small())
    }

    fn balance_step_with(&self, effort: Effort<'_>) -> Result<bool> {
        self.ensure_open()?;
        self.pool.balance_step(&|egroup| self.names_of(egroup), effort)
    }

    /// Adds a drive to the pool; see [`crate::placement::Pool::add_drive`]. Copies that are short come to it in the
    /// background.
    pub fn add_drive(&self, spec: &DriveSpec) -> Result<()> {
        self.add_drive_on(self.drive_of(spec)?)
    }

    pub fn add_drive_on(&self, drive: PoolDrive) -> Result<()> {
        self.ensure_open()?;
        self.pool.add_drive(drive)?;
        self.healer.ring();
        Ok(())
    }

    /// Opens and locks the directory, unless it is one of this pool's already.
    fn drive_of(&self, spec: &DriveSpec) -> Result<PoolDrive> {
        let drive = match self.pool.drive_at(&spec.path.display().to_string()) {
            Some(drive) => drive,
            None => open_drive(&spec.path)?,
        };
        Ok(PoolDrive { drive, bytes: spec.bytes, domain: spec.domain.clone() })
    }

    /// Empties a drive (uuid or path) in the background and lets go of it then. One that is away is given up at once.
    ///
    /// Errors: `NotFound`; `Conflict` when its data has nowhere to go or it may hold the last copies, with the way out.
    pub fn remove_drive(&self, drive: &str) -> Result<()> {
        self.ensure_open()?;
        let index = self.pool.find_drive(drive)?;
        self.pool.remove_drive(index, &self.promises()?)?;
        self.healer.ring();
        Ok(())
    }

    /// Adds a drive and empties another: their places in the pool are exchanged without a moment of fewer copies.
    ///
    /// Errors: those of both; `Invalid` when the new one is smaller.
    pub fn replace_drive(&self, old: &str, new: &DriveSpec) -> Result<()> {
        self.replace_drive_on(old, self.drive_of(new)?)
    }

    pub fn replace_drive_on(&self, old: &str, new: PoolDrive) -> Result<()> {
        self.ensure_open()?;
        let index = self.pool.find_drive(old)?;
        self.pool.check_replacement(index, &new)?;
        let added = self.pool.add_drive(new)?;
        let removed = self.pool.remove_drive(index, &self.promises()?);
        if removed.is_err() {
            // Nothing lies on it yet, or what does moves away again.
            self.pool.remove_drive(added, &[])?;
        }
        self.healer.ring();
        removed
    }

    /// Heals until nothing is left that can be healed now.
    pub fn heal(&self) -> Result<()> {
        while self.heal_step()? {}
        Ok(())
    }

    /// What DATA records in tables say of the pages of an egroup, under its own name.
    fn names_of(&self, egroup: EgroupId) -> Result<BTreeMap<u16, Vec<Named>>> {
        let _hold = self.pool.hold();
        let mut names: BTreeMap<u16, Vec<Named>> = BTreeMap::new();
        for group in self.groups() {
            group.tree().each_data_record(&mut |version| {
                let Some((_, level)) = key::data_place(&version.key) else { return Ok(()) };
                let Some(value) = &version.value else { return Ok(()) };
                let cell = Cell::decode(level, value).map_err(|error| Error::decode("a cell", error))?;
                for ((id, page), named) in named_pages(level, &cell) {
                    if id == egroup {
                        names.entry(page).or_default().push(named);
                    }
                }
                Ok(())
            })?;
        }
        Ok(names)
    }
}
