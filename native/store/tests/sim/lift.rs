//! The end of a round: every fault goes away, and within a bound everything is whole again.

use super::faults::Exchange;
use super::files::{compare, read_volume};
use super::recover::open_on;
use super::rig::player::mount;
use super::rig::{DRIVE_BYTES, Rings};
use super::run::Run;
use super::violation::{Check, Verdict, Violation};
use holdfast_device::sim::{CrashKind, DriveImage};
use holdfast_device::{Drive, SimDrive};
use holdfast_store::placement::PoolDrive;
use std::sync::Arc;

/// Steps of healing that make a small pool whole, generously.
const HEAL_STEPS_MAX: usize = 400;
/// Longer than a missing drive is waited for.
const GRACE_NS: u64 = 301_000_000_000;

impl Run {
    /// Lifts every fault; demands what the promise says of the time after.
    pub fn lift(&mut self) -> Verdict {
        self.say("== faults are lifted");
        self.watch_if_open()?;
        self.world.restore_power();
        self.members.iter_mut().for_each(|member| member.lift());
        if self.shape.beyond {
            return self.lift_beyond();
        }
        if self.shape.is_single() && self.struck() {
            return self.lift_single();
        }
        self.bring_back()?;
        self.heal_all()?;
        if self.add_given_up()? {
            self.heal_all()?;
        }
        self.scrub_clean()?;
        self.work_again()?;
        let report = self
            .engine()
            .fsck()
            .map_err(|error| Violation::new(Check::Inconsistent, format!("fsck: {error}")))?;
        if !report.problems.is_empty() {
            return Err(Violation::new(Check::Inconsistent, report.problems.join("; ")));
        }
        self.verify_all()?;
        self.verify_all_points()?;
        self.lose_each_drive()?;
        for member in &mut self.members {
            member.struck = false;
        }
        self.tainted.clear();
        self.full = false;
        Ok(())
    }

    fn watch_if_open(&mut self) -> Verdict {
        if self.engine.is_some() { self.watch().and_then(|()| self.settle_end()) } else { Ok(()) }
    }

    /// Beyond promise: what opens does not lie, what does not open says why.
    fn lift_beyond(&mut self) -> Verdict {
        if self.engine.is_some() {
            self.world.end_now(CrashKind::Kill);
        }
        self.recover()?;
        if self.engine.is_none() {
            return Ok(());
        }
        self.verify_all()
    }

    /// What had one copy may be gone; the group goes on all the same, and the others in it have everything. (A drive that may
    /// hold the last copy of something is not used anew without a command: nothing is whole then.)
    fn lift_single(&mut self) -> Verdict {
        for _ in 0..2 {
            self.heartbeat()?;
            self.settle_end()?;
        }
        if self.engine().groups().iter().any(|group| group.failure().is_some()) {
            self.restart()?;
        }
        let engine = self.engine();
        self.must("settling", engine.settle())?;
        self.work_again()?;
        self.verify_all()?;
        self.restart()?;
        self.coverage.road("the others of a group went on without what had one copy");
        self.verify_all()
    }

    /// Drives come back, or new ones take their place.
    fn bring_back(&mut self) -> Verdict {
        self.say("bringing drives back");
        // What is wrong with a superblock shows at a heartbeat.
        for _ in 0..2 {
            self.heartbeat()?;
            self.settle_end()?;
        }
        if self.engine().groups().iter().any(|group| group.failure().is_some()) {
            self.restart()?;
        }
        self.forget_tainted()?;
        self.renew_drives()?;
        let status = self.engine().status();
        let status = status.map_err(|error| Violation::new(Check::VagueError, format!("status: {error}")))?;
        let away = status.drives.iter().any(|drive| !matches!(drive.state.as_str(), "active" | "draining"));
        if away || self.rng.chance(1, 4) {
            self.restart()?;
            // A drive whose superblock does not read is left out.
            self.renew_drives()?;
        }
        self.remove_ghosts()?;
        // The addition of a drive may have been cut short: the pool knew it by another name.
        for at in 0..self.members.len() {
            let name = self.members[at].drive.name();
            let status = self.engine().status().map(|status| status.drives).unwrap_or_default();
            let in_pool = status.iter().any(|drive| drive.path == name);
            if self.members[at].attached && !in_pool {
                self.use_again(at, true)?;
            }
        }
        Ok(())
    }

    /// Indices of drives that nobody has any more are given up.
    fn remove_ghosts(&mut self) -> Verdict {
        let status = self
            .engine()
            .status()
            .map_err(|error| Violation::new(Check::VagueError, format!("status: {error}")))?;
        for drive in status.drives.iter().filter(|drive| drive.state == "missing") {
            if self.members.iter().all(|member| member.uuid != drive.uuid) {
                self.say(format!("removing {}, which nobody has", drive.uuid));
                let removed = self.engine().remove_drive(&drive.uuid);
                removed.map_err(|error| {
                    Violation::new(Check::RefusedCall, format!("removing a ghost: {error}"))
                })?;
            }
        }
        Ok(())
    }

    /// Drives that are another's now, or cannot be recognised, are given up and used anew; some that are out, too.
    fn renew_drives(&mut self) -> Verdict {
        for at in 0..self.members.len() {
            let state = self.state_of(&self.members[at].uuid.clone());
            let foreign = self.members[at].exchange == Exchange::Foreign;
            let gone = state.as_deref() == Some("missing");
            if foreign || gone || state.as_deref() == Some("out") && self.rng.chance(1, 3) {
                self.use_again(at, foreign)?;
            }
        }
        Ok(())
    }

    fn restart(&mut self) -> Verdict {
        self.world.end_now(if self.rng.chance(1, 2) { CrashKind::Kill } else { CrashKind::Power });
        self.recover()?;
        self.members.iter_mut().for_each(|member| member.lift());
        Ok(())
    }

    /// Gives a drive up and adds it as an empty one, without a restart.
    fn use_again(&mut self, at: usize, foreign: bool) -> Verdict {
        let (name, uuid) = (self.members[at].drive.name(), self.members[at].uuid.clone());
        self.say(format!("using {name} again"));
        if foreign {
            self.members[at].drive.restore(&DriveImage::default());
        }
        if self.state_of(&uuid).is_some() {
            let removed = self.engine().remove_drive(&uuid);
            removed
                .map_err(|error| Violation::new(Check::RefusedCall, format!("removing {name}: {error}")))?;
        }
        let add = |run: &Self| {
            let drive = Arc::new(run.members[at].drive.clone());
            run.engine().add_drive_on(PoolDrive { drive, bytes: Some(DRIVE_BYTES), domain: String::new() })
        };
        let mut added = add(self);
        // A drive that was given up while it was away is this pool's still, until nothing names it.
        let told = ["empty the directory", "is in pool"];
        if added.as_ref().is_err_and(|error| told.iter().any(|told| error.message.contains(told))) {
            self.members[at].drive.restore(&DriveImage::default());
            added = add(self);
        }
        let member = &mut self.members[at];
        (member.attached, member.exchange, member.missed) = (true, Exchange::None, false);
        self.learn_uuids();
        added.map_err(|error| Violation::new(Check::RefusedCall, format!("adding {name} again: {error}")))
    }

    /// A drive that was used anew, and then exchanged for an image from before that, is emptied as what it was and leaves the pool,
    /// which says what it lacks: an administrator adds it. False: there is none.
    fn add_given_up(&mut self) -> Verdict<bool> {
        let mut any = false;
        for at in 0..self.members.len() {
            if !std::mem::take(&mut self.members[at].given_up) || self.members[at].attached {
                continue;
            }
            let status = self.engine().status();
            let status = status.map_err(|error| Violation::new(Check::VagueError, format!("status: {error}")))?;
            let most = self.volumes.values().map(|mounted| usize::from(mounted.rf)).max().unwrap_or(1);
            let told = status.warnings.iter().any(|what| what.contains("add a drive"));
            if status.drives.len() < most && !told {
                return Err(Violation::new(Check::VagueError, format!("{} drives, and {:?}", status.drives.len(), status.warnings)));
            }
            self.use_again(at, true)?;
            any = true;
        }
        Ok(any)
    }

    /// What had one copy and may be gone is given up by its owner, so that the rest can be whole.
    fn forget_tainted(&mut self) -> Verdict {
        let tainted = self.tainted.clone();
        for name in &tainted {
            let group = self.volumes[name].group.clone();
            let files = self.models[&group].now.files(name);
            for file in files.keys() {
                self.unlink_lost(name, file)?;
            }
        }
        if tainted.is_empty() {
            return Ok(());
        }
        let engine = self.engine();
        for group in engine.groups() {
            for _ in 0..64 {
                if !group.drop_oldest_ticks().unwrap_or(false) {
                    break;
                }
            }
        }
        self.must("settling", engine.settle())?;
        // Logs leave drives that are out; what is empty goes with the next manifest writes.
        engine.heal().map_err(|error| Violation::new(Check::NotHealed, format!("healing: {error}")))?;
        for _ in 0..3 {
            self.heartbeat()?;
        }
        self.tainted.clear();
        self.settle_end()
    }

    pub fn must(&mut self, what: &str, result: holdfast_store::error::Result<()>) -> Verdict {
        result.map_err(|error| {
            Violation::new(Check::RefusedCall, format!("{what}, nothing is broken: {error}"))
        })?;
        let names: Vec<String> = self.models.keys().cloned().collect();
        for name in names {
            let lsn = self.group(&name).newest().0;
            self.model(&name).pass(lsn);
        }
        Ok(())
    }

    /// Heals within a bound; then every drive counts and nothing lacks copies.
    fn heal_all(&mut self) -> Verdict {
        self.say("healing");
        let engine = self.engine();
        for round in 0..3 {
            let mut steps = 0;
            while engine.heal_step().map_err(|error| {
                let drives = engine.status().map(|status| status.drives).unwrap_or_default();
                let drives: Vec<String> = drives
                    .iter()
                    .map(|drive| format!("{} {} {}", drive.path, drive.state, drive.reason))
                    .collect();
                Violation::new(Check::NotHealed, format!("healing: {error}: {}", drives.join("; ")))
            })? {
                steps += 1;
                if steps > HEAL_STEPS_MAX {
                    return Err(Violation::new(
                        Check::Wedged,
                        format!("healing takes more than {HEAL_STEPS_MAX} steps"),
                    ));
                }
            }
            if round < 2 {
                self.world.clock().advance(GRACE_NS);
                self.heartbeat()?;
            }
        }
        let before: Vec<String> = self.members.iter().map(|member| member.uuid.clone()).collect();
        self.learn_uuids();
        for (at, uuid) in before.iter().enumerate() {
            if *uuid != self.members[at].uuid {
                self.coverage.road("a stale drive was used anew");
                self.members[at].exchange = Exchange::None;
            }
        }
        self.check_healed()
    }

    fn check_healed(&mut self) -> Verdict {
        let status = self
            .engine()
            .status()
            .map_err(|error| Violation::new(Check::VagueError, format!("status: {error}")))?;
        let told = |what: String| Err(Violation::new(Check::NotHealed, what));
        if let Some(drive) = status.drives.iter().find(|drive| drive.state != "active") {
            let all = status
                .drives
                .iter()
                .map(|drive| format!("{} {} {} {}", drive.path, drive.uuid, drive.state, drive.reason));
            let all: Vec<String> = all.collect();
            return told(format!(
                "drive {} is {}: {}\n{}",
                drive.path,
                drive.state,
                drive.reason,
                all.join("\n")
            ));
        }
        let healing = &status.healing;
        if healing.things_left > 0 || healing.things_lost > 0 || !healing.stuck.is_empty() {
            return told(format!("{healing:?}"));
        }
        for member in &mut self.members {
            member.attached = status.drives.iter().any(|drive| drive.uuid == member.uuid);
            member.missed &= member.attached;
        }
        Ok(())
    }

    /// One pass repairs everything, the next one finds nothing.
    fn scrub_clean(&mut self) -> Verdict {
        self.say("scrubbing twice");
        for pass in 0..2 {
            let report = self.engine().scrub(None);
            let report =
                report.map_err(|error| Violation::new(Check::ScrubNotClean, format!("scrub: {error}")))?;
            let clean = report.bad_copies == 0 || pass == 0 && report.repaired == report.bad_copies;
            if report.lost > 0 || !clean {
                return Err(Violation::new(
                    Check::ScrubNotClean,
                    format!(
                        "pass {pass}: {} bad, {} repaired, {} lost: {}",
                        report.bad_copies,
                        report.repaired,
                        report.lost,
                        report.findings.join("; ")
                    ),
                ));
            }
            if report.bad_copies > 0 {
                self.coverage.road("scrub repaired all");
            }
        }
        Ok(())
    }

    /// Nothing is wedged: every volume takes writes, and they become durable.
    fn work_again(&mut self) -> Verdict {
        for name in self.volumes.keys().cloned().collect::<Vec<_>>() {
            self.write_after_lift(&name)?;
        }
        let engine = self.engine();
        self.must("flushing", engine.flush())?;
        for name in self.models.keys().cloned().collect::<Vec<_>>() {
            let acknowledged = self.models[&name].acknowledged();
            self.promised(&name, acknowledged);
        }
        Ok(())
    }

    /// Full redundancy, proven: a copy of the pool opens without any one drive (any two, where all volumes have three
    /// copies) and has everything.
    fn lose_each_drive(&mut self) -> Verdict {
        let attached: Vec<usize> = (0..self.members.len()).filter(|at| self.members[*at].attached).collect();
        let least = self.volumes.values().map(|mounted| mounted.rf).min().unwrap_or(1);
        if least < 2 {
            return Ok(());
        }
        for (at, lost) in attached.iter().enumerate() {
            let other = (least > 2).then(|| attached[(at + 1) % attached.len()]);
            let world = self.world.fork(self.seed);
            let all = world.drives();
            let left = attached.iter().filter(|index| *index != lost && Some(**index) != other);
            let drives: Vec<SimDrive> = left.map(|index| all[*index].clone()).collect();
            let names: Vec<String> = drives.iter().map(Drive::name).collect();
            let told = |what: String| {
                Violation::new(Check::NotRedundant, format!("with {} only: {what}", names.join(", ")))
            };
            let engine =
                open_on(&drives, &world, &Rings::default(), 5).map_err(|error| told(error.to_string()))?;
            for (name, mounted) in &self.volumes {
                let found =
                    read_volume(&mount(&engine, name)).map_err(|error| told(format!("{name}: {error:?}")))?;
                let expected = self.models[&mounted.group].now.files(name);
                match compare(name, &found, &expected, false) {
                    None => {}
                    Some(super::files::Mismatch::Wrong(what) | super::files::Mismatch::Unreadable(what)) => {
                        return Err(told(what));
                    }
                }
            }
            if at == 0 {
                let seen = self.points_seen_by(&engine).map_err(|violation| told(violation.what))?;
                self.coverage.add("what a snapshot saw was read without a drive", seen);
            }
            self.coverage.road("any drive may be lost");
        }
        Ok(())
    }
}
