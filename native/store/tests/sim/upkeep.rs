//! Steps of the engine's own threads and of administrators, as ordinary calls.

use super::faults::Member;
use super::rig::DRIVE_BYTES;
use super::run::Run;
use super::step::StepName as S;
use super::violation::{Check, Verdict, Violation};
use holdfast_device::Drive;
use holdfast_device::sim::CrashKind;
use holdfast_store::error::{Error, Kind, Result};
use holdfast_store::group::Group;
use holdfast_store::placement::PoolDrive;
use std::sync::Arc;

const SECOND_NS: u64 = 1_000_000_000;
/// Drives that a run adds at most.
const DRIVES_MAX: usize = 7;

impl Run {
    /// What is durable now was promised: the model forgets what lies before.
    pub fn promised(&mut self, group: &str, lsn: u64) {
        self.model(group).promise(lsn);
        if self.world.ended().is_some() {
            // What a dead engine thinks of its drives is nothing that survives.
            return;
        }
        let states: Vec<Option<String>> =
            (0..self.members.len()).map(|at| self.state_of(&self.members[at].uuid)).collect();
        for (at, state) in states.into_iter().enumerate() {
            if state.as_deref() == Some("out") && !self.members[at].missed {
                let drives = self.engine().status().map(|status| status.drives).unwrap_or_default();
                let found = drives.into_iter().find(|drive| drive.uuid == self.members[at].uuid);
                let reason = found.map(|drive| drive.reason).unwrap_or_default();
                self.say(format!("   {} misses this: {reason}", self.members[at].drive.name()));
                // What a dead engine thinks of its drives is nothing that survives.
                self.members[at].missed = !reason.contains("the run has ended");
            }
        }
    }

    /// Everything that is acknowledged in a group is durable.
    pub fn promised_all(&mut self, group: &str) {
        let acknowledged = self.models[group].acknowledged();
        self.promised(group, acknowledged);
    }

    pub fn group_names(&self) -> Vec<String> {
        self.models.keys().cloned().collect()
    }

    /// The group's own records move the LSN, too.
    pub fn pass_all(&mut self) {
        for name in self.group_names() {
            let lsn = self.group(&name).newest().0;
            self.model(&name).pass(lsn);
        }
    }

    pub fn upkeep_step(&mut self, step: S) -> Verdict<bool> {
        match step {
            S::Close | S::Kill | S::PowerCut | S::EndSoon => self.end_step(step),
            S::AddDrive | S::RemoveDrive | S::ReplaceDrive => self.drive_step(step),
            S::Wait => {
                let minutes = 1 + self.rng.below(10);
                self.say(format!("wait {minutes} minutes"));
                self.world.clock().advance(minutes * 60 * SECOND_NS);
                Ok(true)
            }
            S::Heartbeat => self.heartbeat().map(|()| true),
            S::Scrub => self.scrub_step(),
            S::Fsck => self.fsck_step(),
            _ => self.work_step(step),
        }
    }

    fn work_step(&mut self, step: S) -> Verdict<bool> {
        let names = self.group_names();
        let name = names[self.rng.below(names.len() as u64) as usize].clone();
        self.say(format!("{step:?} of {name}"));
        let (engine, group) = (self.engine(), self.group(&name));
        let drop_ticks = self.rng.chance(1, 2);
        let pool_wide = matches!(step, S::Flush | S::Settle);
        let result = match step {
            // Below the copies that a volume asks for it waits, and there is nobody to end that here.
            S::Flush if self.shape.beyond || self.count_struck() > 1 => group.flush_now().map(|()| false),
            // Not `Engine::flush`, which waits for drives to come back: when the run ends meanwhile nobody brings them.
            S::Flush => engine.groups().iter().try_for_each(|group| group.flush_now()).map(|()| true),
            S::Second => group.second_now().map(|()| true),
            S::Drain => group.drain_now().map(|()| true),
            S::Compact => group.compact_step(),
            S::Expire => expire(&group, drop_ticks),
            S::Clean => engine.pool().clean_step(),
            S::Settle => engine.settle().map(|()| true),
            S::HealStep => engine.heal_step(),
            _ => engine.scrub_background_step().map(|done| done.is_some()),
        };
        if self.world.ended().is_some() {
            return Ok(true);
        }
        self.pass_all();
        self.learn_ticks(&name);
        match result {
            Ok(done) => {
                if done && step == S::HealStep {
                    self.coverage.road("healed by steps");
                    self.learn_uuids();
                }
                match step {
                    _ if pool_wide && done => names.iter().for_each(|name| self.promised_all(name)),
                    S::Second | S::Drain => self.promised_all(&name),
                    _ => {}
                }
                Ok(done)
            }
            Err(error) => self.excuse_work(step, &error).map(|()| false),
        }
    }

    pub fn excuse_work(&mut self, step: S, error: &Error) -> Verdict {
        let thin = self.volumes.values().any(|mounted| mounted.rf != 2);
        let rf = if thin && error.kind == Kind::Unavailable { 3 } else { 0 };
        let single = self.volumes.values().any(|mounted| mounted.rf == 1) && self.struck();
        // A drive that comes back and fails while it is made empty is told, and tried again.
        let anew = step == S::HealStep && self.struck() && error.kind == Kind::Unavailable;
        if (anew || single) && matches!(error.kind, Kind::Unavailable | Kind::Corrupt) {
            self.say(format!("   {step:?}: {error}"));
            return Ok(());
        }
        self.excuse(&format!("{step:?}"), error, rf)
    }

    /// A second has passed for the pool.
    pub fn heartbeat(&mut self) -> Verdict {
        let Some(engine) = self.engine.clone() else { return Ok(()) };
        self.say("heartbeat");
        self.world.clock().advance(SECOND_NS);
        let result = engine.pool().heartbeat();
        if self.world.ended().is_some() {
            return Ok(());
        }
        result.or_else(|error| self.excuse_work(S::Heartbeat, &error))?;
        for at in 0..self.members.len() {
            self.check_exchange(at)?;
        }
        Ok(())
    }

    fn scrub_step(&mut self) -> Verdict<bool> {
        self.say("scrub");
        let report = self.engine().scrub(None);
        if self.world.ended().is_some() {
            return Ok(true);
        }
        match report {
            Ok(report) => {
                if report.bad_copies > 0 {
                    self.coverage.road("scrub found bad copies");
                }
                Ok(true)
            }
            Err(error) => self.excuse_work(S::Scrub, &error).map(|()| false),
        }
    }

    fn fsck_step(&mut self) -> Verdict<bool> {
        self.say("fsck");
        let report = self.engine().fsck();
        if self.world.ended().is_some() {
            return Ok(true);
        }
        match report {
            Ok(report) if self.tainted.is_empty() && !report.problems.is_empty() => {
                Err(Violation::new(Check::Inconsistent, report.problems.join("; ")))
            }
            Ok(_) => Ok(true),
            Err(error) => self.excuse_work(S::Fsck, &error).map(|()| false),
        }
    }

    fn end_step(&mut self, step: S) -> Verdict<bool> {
        self.say(format!("{step:?}"));
        match step {
            S::Kill => self.world.end_now(CrashKind::Kill),
            S::PowerCut => self.world.end_now(CrashKind::Power),
            S::EndSoon => {
                let kind = if self.rng.chance(1, 2) { CrashKind::Kill } else { CrashKind::Power };
                self.world.end_after(kind, 1 + self.rng.below(12));
            }
            _ => return self.close().map(|()| true),
        }
        Ok(true)
    }

    fn close(&mut self) -> Verdict {
        self.world.restore_power();
        let engine = self.engine();
        let result = engine.close();
        match result {
            Ok(()) => {
                for name in self.group_names() {
                    let acknowledged = self.models[&name].acknowledged();
                    self.model(&name).promise(acknowledged);
                }
                self.coverage.road("opened after a clean end");
            }
            Err(error) => self.excuse_work(S::Close, &error)?,
        }
        self.world.end_now(CrashKind::Kill);
        self.recover()
    }

    fn drive_step(&mut self, step: S) -> Verdict<bool> {
        let whole =
            !self.struck() && self.members.iter().all(|member| !member.attached || !member.uuid.is_empty());
        if !whole || step != S::RemoveDrive && self.members.len() >= DRIVES_MAX {
            return Ok(false);
        }
        let counts = |at: &usize| self.state_of(&self.members[*at].uuid).as_deref() == Some("active");
        let attached: Vec<usize> = (0..self.members.len()).filter(counts).collect();
        if attached.is_empty() {
            return Ok(false);
        }
        let at = attached[self.rng.below(attached.len() as u64) as usize];
        let uuid = self.members[at].uuid.clone();
        self.say(format!("{step:?} {}", self.members[at].drive.name()));
        let engine = self.engine();
        let result = match step {
            S::RemoveDrive => engine.remove_drive(&uuid),
            S::AddDrive => {
                let new = self.new_drive();
                engine.add_drive_on(new)
            }
            _ => {
                let new = self.new_drive();
                engine.replace_drive_on(&uuid, new)
            }
        };
        if self.world.ended().is_some() {
            return Ok(true);
        }
        self.learn_uuids();
        match result {
            Ok(()) => Ok(true),
            // Too few drives would be left: the way out is in the message.
            Err(error) if error.kind == Kind::Conflict && error.message.contains("add a drive") => Ok(true),
            Err(error) => self.excuse_work(step, &error).map(|()| false),
        }
    }

    fn new_drive(&mut self) -> PoolDrive {
        let name = format!("d{}", self.members.len());
        let drive = self.world.add_drive(&name, DRIVE_BYTES * 2);
        self.members.push(Member::new(drive.clone()));
        PoolDrive { drive: Arc::new(drive), bytes: Some(DRIVE_BYTES), domain: String::new() }
    }
}

fn expire(group: &Group, drop_ticks: bool) -> Result<bool> {
    if drop_ticks {
        group.drop_oldest_ticks()?;
    }
    group.expire_step()
}
