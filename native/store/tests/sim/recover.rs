//! Ends and new starts: whatever a crash leaves must open, and be the state at one LSN that the promises allow.

use super::faults::Exchange;
use super::files::{Found, Mismatch, compare, read_volume};
use super::model::State;
use super::rig::player::mount;
use super::rig::{Rings, foundation, manifest};
use super::run::{Mounted, Run, options};
use super::violation::{Check, Verdict, Violation};
use holdfast_device::sim::CrashKind;
use holdfast_device::{Drive, SimDrive, SimWorld};
use holdfast_format::Lsn;
use holdfast_format::egroup::egroup_of_key;
use holdfast_format::manifest::Item;
use holdfast_store::engine::Engine;
use holdfast_store::error::{Error, Kind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Starts that one recovery takes at most.
const STARTS_MAX: usize = 20;

pub type Shared = Arc<Engine>;

/// Opens a pool from these drives.
pub fn open_on(drives: &[SimDrive], world: &SimWorld, rings: &Rings, seed: u64) -> Result<Shared, Error> {
    let drives = drives.iter().map(|drive| Arc::new(drive.clone()) as Arc<dyn Drive>).collect();
    Engine::open_on(drives, options(), foundation(world, rings, seed))
}

impl Run {
    /// After an end: takes what is left and starts again.
    pub fn recover(&mut self) -> Verdict {
        let mut kind = self.world.ended().unwrap_or(CrashKind::Kill);
        self.say(format!("!! ended: {kind:?}"));
        self.drop_engine();
        if kind == CrashKind::Power {
            self.forget_edit()?;
        }
        self.take_rings(kind);
        for start in 0..STARTS_MAX {
            self.world.restore_power();
            self.watch_rings();
            if start < 3 && self.rng.chance(1, 4) {
                let again = if self.rng.chance(1, 2) { CrashKind::Kill } else { CrashKind::Power };
                self.world.end_after(again, 1 + self.rng.below(20));
            }
            let drives: Vec<SimDrive> = self.attached().collect();
            let opened = open_on(&drives, &self.world, &self.rings, self.rng.next_u64());
            if let Some(again) = self.world.ended() {
                drop(opened);
                self.say(format!("!! ended again: {again:?}"));
                self.coverage.road("a recovery was cut short");
                if again == CrashKind::Power {
                    kind = again;
                }
                self.take_rings(again);
                continue;
            }
            self.world.restore_power();
            match opened {
                Ok(engine) => return self.opened(engine, kind),
                Err(error) if self.detach(&error) => {}
                Err(error) if self.shape.beyond => return self.refused(&error),
                Err(error) => {
                    return Err(Violation::new(Check::RefusedOpen, format!("{:?}: {error}", error.kind)));
                }
            }
        }
        Err(Violation::new(Check::Wedged, "a recovery takes too many starts"))
    }

    pub fn drop_engine(&mut self) {
        self.past.open.clear();
        self.volumes.values_mut().for_each(|mounted| mounted.volume = None);
        if let Some(engine) = self.engine.take()
            && let Ok(status) = engine.status()
        {
            self.coverage.engine(&status.counters);
        }
    }

    fn attached(&self) -> impl Iterator<Item = SimDrive> + '_ {
        self.members.iter().filter(|member| member.attached).map(|member| member.drive.clone())
    }

    /// Rings outlive a kill, not a power cut.
    fn take_rings(&mut self, kind: CrashKind) {
        let left = match kind {
            CrashKind::Kill => std::mem::take(&mut *self.end_rings.lock().expect("no panic under the lock")),
            CrashKind::Power => BTreeMap::new(),
        };
        self.rings = Rings::default();
        *self.rings.lock().expect("no panic under the lock") = left;
    }

    /// An administrator takes away a drive that is not what it was, if the message names it.
    fn detach(&mut self, error: &Error) -> bool {
        let foreign = |member: &&mut super::faults::Member| {
            member.attached
                && member.exchange == Exchange::Foreign
                && error.message.contains(&member.drive.name())
        };
        let kind = matches!(error.kind, Kind::Invalid | Kind::Conflict | Kind::Corrupt);
        let Some(member) = self.members.iter_mut().find(foreign).filter(|_| kind) else { return false };
        member.attached = false;
        let what = format!("   detached {}: {error}", member.drive.name());
        self.say(what);
        self.coverage.road("a foreign drive was detached");
        true
    }

    /// Beyond promise a pool may refuse to open, if it says why.
    fn refused(&mut self, error: &Error) -> Verdict {
        self.say(format!("   not opened: {:?}: {error}", error.kind));
        match error.kind {
            Kind::Internal | Kind::Closed | Kind::NotFound => {
                Err(Violation::new(Check::VagueError, format!("opening: {:?}: {error}", error.kind)))
            }
            _ => Ok(()),
        }
    }

    /// Nothing is open: perhaps it opens by now.
    pub fn try_again(&mut self) -> Verdict {
        if self.rng.chance(1, 6) {
            self.members.iter_mut().for_each(|member| member.lift());
        }
        if self.rng.chance(1, 3) { self.recover() } else { Ok(()) }
    }

    fn opened(&mut self, engine: Shared, kind: CrashKind) -> Verdict {
        self.engine = Some(engine.clone());
        // What struck an engine that is gone is not this one's to know.
        self.members.iter_mut().for_each(|member| member.overlook());
        self.coverage.road(match kind {
            CrashKind::Kill => "recovered after a kill",
            CrashKind::Power => "recovered after a power cut",
        });
        if self.shape.beyond {
            self.coverage.road("pool beyond promise opened");
        }
        self.tell_drives();
        self.follow_moves();
        self.check_members()?;
        self.learn_rf()?;
        self.settle_past()?;
        let closed = |run: &Self| run.models.keys().find(|name| run.open_group(name).is_none()).cloned();
        while let Some(closed) = closed(self) {
            if self.give_up_lost(&closed)? {
                continue;
            }
            if self.shape.beyond {
                // Damaged on every copy, or all drives are images from before it was made: the others go on without it.
                self.say(format!("   {closed} is not open"));
                self.drop_engine();
                return Ok(());
            }
            return Err(Violation::new(
                Check::RefusedOpen,
                format!("group {closed} is not open: {:?}", engine.status()),
            ));
        }
        for name in self.models.keys().cloned().collect::<Vec<_>>() {
            if self.engine.is_some() {
                self.judge_group(&name, kind)?;
            }
        }
        Ok(())
    }

    /// A drive that missed what was promised does not count, whatever it says of itself.
    fn check_members(&mut self) -> Verdict {
        for at in 0..self.members.len() {
            let member = &self.members[at];
            if !member.attached || member.uuid.is_empty() {
                continue;
            }
            let state = self.state_of(&member.uuid);
            let name = member.drive.name();
            match state.as_deref() {
                Some("stale") => self.coverage.road("a drive came back stale"),
                Some("active" | "draining") if member.exchange == Exchange::Foreign && !self.shape.beyond => {
                    return Err(Violation::new(
                        Check::ExchangeUnnoticed,
                        format!("{name} is another drive and counts"),
                    ));
                }
                Some("active" | "draining")
                    if !self.shape.beyond && (member.missed || member.exchange == Exchange::Old) =>
                {
                    let what = format!("{name} missed writes and counts again");
                    return Err(Violation::new(Check::StaleDriveBelieved, what));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// For the story: who counts.
    fn tell_drives(&mut self) {
        let drives = self.engine().status().map(|status| status.drives).unwrap_or_default();
        let told: Vec<String> = drives.iter().map(|drive| format!("{} {}", drive.path, drive.state)).collect();
        self.say(format!("   open: {}", told.join(", ")));
    }

    fn judge_group(&mut self, name: &str, kind: CrashKind) -> Verdict {
        let group = self.group(name);
        let found = group.newest().0;
        let model = &self.models[name];
        let promised = if kind == CrashKind::Kill { model.acknowledged() } else { model.durable };
        let told = format!("   {name} at LSN {found}: acknowledged {}, durable {}", model.acknowledged(), model.durable);
        self.say(told);
        let model = &self.models[name];
        let damaged = self.is_damaged(name);
        if found < promised && !damaged {
            let check = if found < model.durable { Check::LostDurable } else { Check::LostAcknowledged };
            return Err(Violation::new(check, format!("{name} is at LSN {found}, {promised} was promised")));
        }
        if found > model.acknowledged() {
            self.coverage.road("an operation under way was kept");
        } else if self.models[name].is_in_flight() {
            self.coverage.road("an operation under way was dropped");
        }
        if kind == CrashKind::Kill && found > self.models[name].durable {
            self.coverage.road("ring operations came back");
        }
        let mut state = self.match_state(name, found, damaged)?;
        // One that was destroyed meanwhile is in none of them any more.
        state.volumes.retain(|volume, _| self.volumes.contains_key(volume));
        if self.engine.is_some() && damaged {
            self.take_points(name, &mut state);
        }
        if self.engine.is_none() {
            return Ok(());
        }
        let now = self.group(name).newest().0;
        self.model(name).recovered(now, state);
        let volumes = self.volumes.iter().filter(|(_, mounted)| mounted.group == name);
        let volumes: Vec<String> = volumes.map(|(volume, _)| volume.clone()).collect();
        for volume in volumes {
            let changed = self.changed.entry(volume).or_default();
            *changed = (*changed).min(now);
        }
        Ok(())
    }

    /// Beyond promise the snapshots are those that are there: what one saw that no state knows of is not compared.
    fn take_points(&self, group: &str, state: &mut State) {
        let there = self.group(group).snapshots(Lsn(0), usize::MAX);
        let seen = |name: &String| state.points.get(name).cloned().unwrap_or_default();
        state.points = there.into_iter().map(|point| (point.name.clone(), seen(&point.name))).collect();
    }

    /// All the group's volumes are beyond promise.
    fn is_damaged(&self, group: &str) -> bool {
        let mut volumes = self.volumes.iter().filter(|(_, mounted)| mounted.group == group);
        volumes.all(|(name, _)| self.tainted.contains(name))
    }

    /// Mounts the group's volumes and finds the state that they are in.
    fn match_state(&mut self, group: &str, lsn: u64, damaged: bool) -> Verdict<State> {
        let engine = self.engine();
        let names: Vec<String> = self
            .volumes
            .iter()
            .filter(|(_, mounted)| mounted.group == group)
            .map(|(name, _)| name.clone())
            .collect();
        let mut found: BTreeMap<String, Option<Found>> = BTreeMap::new();
        for name in names {
            let volume = match engine.volume(&name, holdfast_store::volume::VolumeOptions { noatime: true }) {
                Ok(volume) => volume,
                Err(error) if self.shape.beyond => {
                    self.say(format!("   {name}: {error}"));
                    self.drop_engine();
                    return Ok(self.models[group].now.clone());
                }
                Err(error) => return Err(Violation::new(Check::RefusedOpen, format!("{name}: {error}"))),
            };
            let content = match read_volume(&volume) {
                Ok(content) => {
                    if content.values().any(Result::is_err) {
                        self.coverage.road("a damaged volume gave EIO");
                    }
                    Some(content)
                }
                Err(_) if damaged => None,
                Err(error) => return Err(Violation::new(Check::Unreadable, format!("{name}: {error:?}"))),
            };
            if let Some(mounted) = self.volumes.get_mut(&name) {
                mounted.volume = Some(volume);
            }
            found.insert(name, content);
        }
        let points: Vec<String> = self.group(group).snapshots(Lsn(0), usize::MAX).into_iter().map(|point| point.name).collect();
        let candidates = self.models[group].candidates(lsn);
        let mut first = None;
        for state in candidates {
            let mismatch = self.fits(&found, &state);
            match mismatch.or_else(|| points_differ(&points, &state).filter(|_| !damaged)) {
                None => return Ok(state),
                Some(mismatch) => first = first.or(Some(mismatch)),
            }
        }
        let told = |what: String| format!("{group} at LSN {lsn}: {what}");
        Err(match first {
            None => Violation::new(Check::NotOneLsn, told("no state of it is known".to_owned())),
            Some(Mismatch::Wrong(what)) => Violation::new(Check::NotOneLsn, told(what)),
            Some(Mismatch::Unreadable(what)) => Violation::new(Check::Unreadable, told(what)),
        })
    }

    fn fits(&self, found: &BTreeMap<String, Option<Found>>, state: &State) -> Option<Mismatch> {
        found.iter().find_map(|(name, content)| {
            let content = content.as_ref()?;
            compare(name, content, &state.files(name), self.tainted.contains(name))
        })
    }

    /// A copy of the pool loses its newest manifest record on every drive: what the record before it names is still
    /// there, because a freed slot waits for the second one (STORE.md 12, step 6).
    fn forget_edit(&mut self) -> Verdict {
        if self.struck() || self.shape.beyond {
            return Ok(());
        }
        let world = self.world.fork(self.seed);
        let open = |world: &SimWorld| {
            let at = (0..self.members.len()).filter(|at| self.members[*at].attached);
            let all = world.drives();
            let drives: Vec<SimDrive> = at.map(|at| all[at].clone()).collect();
            open_on(&drives, world, &Rings::default(), 3)
        };
        let before = open(&world.fork(1)).map(|engine| content_of(&engine, &self.volumes));
        let forgotten = manifest::newest_edit(&world);
        if !manifest::forget_newest_edit(&world) {
            return Ok(());
        }
        // A superblock may already say that the record was durable: then it is missed.
        let (Ok(before), Ok(engine)) = (before, open(&world)) else { return Ok(()) };
        self.coverage.road("the newest manifest record was forgotten");
        let after = content_of(&engine, &self.volumes);
        // A copy that was logged since then may name pages of egroups that the record made: it was durable before.
        let named = forgotten.iter().filter_map(|item| match item {
            Item::Record { key, .. } => egroup_of_key(key),
            _ => None,
        });
        let made: Vec<String> = named.map(|egroup| format!("of egroup {egroup} does not exist")).collect();
        // What the record itself made or ended.
        let there = |text: &String| !text.is_empty();
        let differs =
            |one: &String, two: &String| one != two && there(one) && there(two) && !made.iter().any(|missing| two.contains(missing));
        let Some((one, two)) = before.iter().zip(&after).find(|(one, two)| differs(one, two)) else { return Ok(()) };
        let what = format!("with the newest manifest record: {one}; without it: {two}; it says {forgotten:?}");
        Err(Violation::new(Check::ManifestOutrun, what))
    }
}

/// Why a group's snapshots are not those of this state.
fn points_differ(found: &[String], state: &State) -> Option<Mismatch> {
    let found: BTreeSet<&String> = found.iter().collect();
    let expected: BTreeSet<&String> = state.points.keys().collect();
    (found != expected).then(|| Mismatch::Wrong(format!("snapshots {found:?}, expected {expected:?}")))
}

/// Everything in a pool, for comparing two of them. A volume that is not there (any more) is empty.
fn content_of(engine: &Engine, volumes: &BTreeMap<String, Mounted>) -> Vec<String> {
    let there = engine.volumes().unwrap_or_default();
    volumes
        .keys()
        .map(|name| {
            if there.iter().all(|volume| volume.name != *name) {
                return String::new();
            }
            let found = read_volume(&mount(engine, name));
            format!("{name}: {:?}", found.map(|found| hashes(&found)))
        })
        .collect()
}

fn hashes(found: &Found) -> Vec<(String, Result<u64, String>)> {
    let hash = |content: &Vec<u8>| holdfast_format::checksum::checksum(content);
    let told = |content: &Result<Vec<u8>, _>| match content {
        Ok(content) => Ok(hash(content)),
        Err(error) => Err(format!("{error:?}")),
    };
    found.iter().map(|(name, content)| (name.clone(), told(content))).collect()
}
