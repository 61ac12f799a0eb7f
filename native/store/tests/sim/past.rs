//! Steps that keep the past and branch from it: snapshots, clones, the end of volumes; and what all of them must read.

use super::files::{Mismatch, compare, read_volume};
use super::model::{Files, GroupModel, State, Volumes};
use super::rig::player::mount;
use super::run::{Mounted, Run};
use super::step::StepName as S;
use super::violation::{Check, Verdict, Violation};
use holdfast_device::sim::CrashKind;
use holdfast_format::Lsn;
use holdfast_store::engine::Engine;
use holdfast_store::error::{Error, Kind, Result};
use holdfast_store::volume::Volume;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Snapshots of one group at most.
const POINTS_MAX: usize = 3;
/// Volumes beside those that a run begins with.
const CLONES_MAX: usize = 3;
/// Pasts that stay open.
const OPEN_MAX: usize = 2;

/// A past that somebody reads again and again: whatever happens to its point meanwhile.
pub struct OpenPast {
    volume: Arc<Volume>,
    group: String,
    name: String,
    told: String,
    files: Arc<Files>,
}

/// A clone that a run's end may have cut short.
struct PendingClone {
    group: String,
    volumes: BTreeMap<String, (u8, Arc<Files>)>,
}

/// What a run knows beside its groups.
#[derive(Default)]
pub struct Past {
    pub open: Vec<OpenPast>,
    cloning: Option<PendingClone>,
    destroying: Option<String>,
    /// Copies of volumes that are no more.
    rfs: BTreeMap<String, u8>,
    /// Groups that are clones, and of which group.
    parents: BTreeMap<String, String>,
    names: u64,
}

fn pick<T: Clone>(from: impl Iterator<Item = T>, at: u64) -> Option<T> {
    let all: Vec<T> = from.collect();
    all.get((at % all.len().max(1) as u64) as usize).cloned()
}

impl Run {
    /// False: there was nothing to do it on.
    pub fn past_step(&mut self, step: S) -> Verdict<bool> {
        let at = self.rng.below(1 << 20);
        let Some(group) = pick(self.models.keys().cloned(), at) else { return Ok(false) };
        // What had one copy may be gone: nothing is branched from it.
        let lost = self.shape.is_single() && self.struck();
        match step {
            S::Snapshot => self.snapshot(&group),
            S::DropSnapshot => self.drop_snapshot(&group),
            S::ReadPast => self.read_past(&group),
            S::Clone if !lost => self.clone_step(&group),
            S::Destroy if !lost => self.destroy_step(),
            S::Loosen => self.loosen_step(&group),
            S::Bases => self.bases_step(),
            S::SetRf => self.set_rf_step(),
            _ => Ok(false),
        }
    }

    fn fresh_name(&mut self, prefix: &str) -> String {
        self.past.names += 1;
        format!("{prefix}{}", self.past.names)
    }

    /// Copies of the group's volumes, as far as they excuse an error.
    pub fn rf_of(&self, group: &str) -> u8 {
        let rfs = || self.volumes.values().filter(|mounted| mounted.group == group).map(|mounted| mounted.rf);
        if rfs().any(|rf| rf == 1) { 1 } else { rfs().max().unwrap_or(0) }
    }

    fn rf_of_volume(&self, name: &str) -> u8 {
        self.volumes.get(name).map_or_else(|| self.past.rfs[name], |mounted| mounted.rf)
    }

    pub fn excuse_control(&mut self, what: &str, error: &Error, group: &str) -> Verdict {
        let rf = if error.kind == Kind::NoSpace { 0 } else { self.rf_of(group) };
        self.excuse(what, error, rf)
    }

    /// An op of the group itself that changes which snapshots there are.
    fn change_points(&mut self, group: &str, what: String, act: impl FnOnce(&Engine) -> Result<()>, next: State) -> Verdict<bool> {
        self.say(format!("{group}: {what}"));
        let engine = self.engine();
        let result = act(&engine);
        if self.world.ended().is_some() {
            self.model(group).leave_in_flight(next);
            return Ok(true);
        }
        let there = self.group(group).snapshots(Lsn(0), usize::MAX);
        let made = there.iter().map(|point| &point.name).eq(sorted_by_lsn(&there, &next));
        let after = self.group(group).newest().0;
        if made {
            self.model(group).acknowledge(after, next);
        } else {
            self.model(group).pass(after);
        }
        match result {
            Ok(()) if made => {
                self.promised(group, after);
                Ok(true)
            }
            Ok(()) => Err(Violation::new(Check::PointLost, format!("{group}: {what}: there are {there:?}"))),
            Err(error) => self.excuse_control(&what, &error, group).map(|()| false),
        }
    }

    fn snapshot(&mut self, group: &str) -> Verdict<bool> {
        if self.models[group].now.points.len() >= POINTS_MAX {
            return Ok(false);
        }
        let name = self.fresh_name("p");
        let next = self.models[group].now.kept(&name);
        let act = |engine: &Engine| engine.snapshot_create(group, &name, None).map(drop);
        self.change_points(group, format!("snapshot {name}"), act, next)
    }

    fn drop_snapshot(&mut self, group: &str) -> Verdict<bool> {
        let at = self.rng.below(1 << 20);
        let Some(name) = pick(self.models[group].now.points.keys().cloned(), at) else { return Ok(false) };
        let next = self.models[group].now.without_point(&name);
        let act = |engine: &Engine| engine.snapshot_delete(group, &name);
        self.change_points(group, format!("drop snapshot {name}"), act, next)
    }

    /// Seconds that were kept since: what they see is what is there now.
    pub fn learn_ticks(&mut self, group: &str) {
        let Some(open) = self.open_group(group) else { return };
        let model = self.model(group);
        let seen = Arc::new(model.now.volumes.clone());
        let fresh = open.points_after(Lsn(model.ticks_through), usize::MAX);
        for point in fresh.iter().filter(|point| point.name.is_empty()) {
            model.ticks.insert(point.lsn.0, seen.clone());
            model.ticks_through = point.lsn.0;
        }
    }

    /// A snapshot or a kept second, opened for this step or for longer; or one that is open already.
    fn read_past(&mut self, group: &str) -> Verdict<bool> {
        let (at, way) = (self.rng.below(1 << 20), self.rng.below(4));
        if way == 0 && !self.past.open.is_empty() {
            return self.read_open(at);
        }
        let seconds = || {
            let open = self.open_group(group)?;
            let kept = open.points_after(Lsn(0), usize::MAX).into_iter().filter(|point| point.name.is_empty());
            let ticks = &self.models[group].ticks;
            let known = kept.filter_map(|point| Some((format!("lsn:{}", point.lsn), ticks.get(&point.lsn.0)?.clone())));
            pick(known.collect::<Vec<_>>().into_iter(), at)
        };
        let named = || pick(self.models[group].now.points.iter().map(|(name, seen)| (name.clone(), seen.clone())), at);
        let of_second = way == 1;
        let Some((words, seen)) = (if of_second { seconds() } else { named() }) else { return Ok(false) };
        let volume = pick(seen.keys().filter(|name| self.volumes.contains_key(*name)).cloned(), at >> 4);
        let Some(volume) = volume else { return Ok(false) };
        self.say(format!("{group}: read {volume} at {words}"));
        let Some(past) = self.open_past(&volume, &words)? else { return Ok(true) };
        let files = seen[&volume].clone();
        self.check_past(&past, &volume, &words, &files)?;
        if of_second {
            self.coverage.road("a kept second was read");
        }
        if way == 2 && self.past.open.len() < OPEN_MAX {
            let group = group.to_owned();
            self.past.open.push(OpenPast { volume: past, group, name: volume, told: words, files });
        }
        Ok(true)
    }

    fn read_open(&mut self, at: u64) -> Verdict<bool> {
        let at = (at % self.past.open.len() as u64) as usize;
        let past = self.past.open.swap_remove(at);
        self.say(format!("{}: read {} at {}, open", past.group, past.name, past.told));
        self.check_past(&past.volume, &past.name, &past.told, &past.files)?;
        self.coverage.road("a past that was open was read again");
        if self.rng.chance(1, 2) {
            self.past.open.push(past);
        }
        Ok(true)
    }

    fn may_fail(&self, volume: &str) -> bool {
        self.tainted.iter().any(|tainted| tainted == volume)
    }

    /// `None`: the run has ended, or it may be lost.
    fn open_past(&mut self, volume: &str, words: &str) -> Verdict<Option<Arc<Volume>>> {
        let found = self.engine().volume_at(volume, words);
        match found {
            _ if self.world.ended().is_some() => Ok(None),
            Ok((past, _)) => Ok(Some(past)),
            Err(error) if error.kind == Kind::NotFound => {
                Err(Violation::new(Check::PointLost, format!("{volume} at {words}: {error}")))
            }
            Err(_) if self.may_fail(volume) => Ok(None),
            Err(error) => Err(Violation::new(Check::Unreadable, format!("{volume} at {words}: {error}"))),
        }
    }

    fn check_past(&mut self, past: &Volume, volume: &str, words: &str, expected: &Files) -> Verdict {
        let found = read_volume(past);
        if self.world.ended().is_some() {
            return Ok(());
        }
        let told = |what: String| format!("at {words}: {what}");
        match found {
            Ok(found) => match compare(volume, &found, expected, self.may_fail(volume)) {
                None => Ok(()),
                Some(Mismatch::Wrong(what)) => Err(Violation::new(Check::PastChanged, told(what))),
                Some(Mismatch::Unreadable(what)) => Err(Violation::new(Check::Unreadable, told(what))),
            },
            Err(_) if self.may_fail(volume) => Ok(()),
            Err(error) => Err(Violation::new(Check::Unreadable, told(format!("{volume}: {error:?}")))),
        }
    }

    /// Every snapshot of every group reads as it was.
    pub fn verify_all_points(&mut self) -> Verdict {
        let engine = self.engine();
        self.points_seen_by(&engine).map(drop)
    }

    /// What all snapshots show in this engine, with all faults gone; how many were looked at.
    pub fn points_seen_by(&self, engine: &Arc<Engine>) -> Verdict<u64> {
        let mut count = 0;
        for (group, model) in &self.models {
            for (point, seen) in &model.now.points {
                for (volume, files) in seen.iter().filter(|(volume, _)| self.volumes.contains_key(*volume)) {
                    let told = |check, what: String| Violation::new(check, format!("{group} at {point}: {what}"));
                    let past = engine.volume_at(volume, point).map_err(|error| told(Check::PointLost, error.to_string()))?;
                    let found = read_volume(&past.0);
                    let found = found.map_err(|error| told(Check::Unreadable, format!("{volume}: {error:?}")))?;
                    match compare(volume, &found, files, false) {
                        None => count += 1,
                        Some(Mismatch::Wrong(what)) => return Err(told(Check::PastChanged, what)),
                        Some(Mismatch::Unreadable(what)) => return Err(told(Check::Unreadable, what)),
                    }
                }
            }
        }
        Ok(count)
    }

    // --- clones ---------------------------------------------------------------------------------------------------------

    fn clone_step(&mut self, group: &str) -> Verdict<bool> {
        let begun = self.shape.volumes().count();
        let model = &self.models[group];
        if self.volumes.len() >= begun + CLONES_MAX || self.past.cloning.is_some() {
            return Ok(false);
        }
        let (way, at) = (self.rng.below(3), self.rng.below(1 << 20));
        let point = if way == 0 { None } else { pick(model.now.points.keys().cloned(), at) };
        let seen: Volumes = match &point {
            Some(point) => model.now.points[point].as_ref().clone(),
            None => model.now.volumes.clone(),
        };
        // One volume of several, which still has its name; or all.
        let only = if way == 1 { pick(seen.keys().filter(|name| self.volumes.contains_key(*name)).cloned(), at >> 4) } else { None };
        let name = self.fresh_name("c");
        let sources: Vec<(&String, &Arc<Files>)> = seen.iter().filter(|(volume, _)| only.as_ref().is_none_or(|only| only == *volume)).collect();
        let named = |volume: &String| if sources.len() == 1 { name.clone() } else { format!("{name}-{volume}") };
        let volumes = sources.iter().map(|(volume, files)| (named(volume), (self.rf_of_volume(volume), (*files).clone())));
        let pending = PendingClone { group: name.clone(), volumes: volumes.collect() };
        let source = only.unwrap_or_else(|| group.to_owned());
        let what = format!("clone {source} at {} as {name}", point.as_deref().unwrap_or("now"));
        self.say(format!("{group}: {what}"));
        self.past.cloning = Some(pending);
        let result = self.engine().clone_create(&source, &name, point.as_deref());
        if self.world.ended().is_some() {
            return Ok(true);
        }
        self.pass_all();
        self.learn_ticks(group);
        match result {
            Ok(_) => {
                // Its parent is durable up to the point. (What ends points may lie behind it.)
                let groups = self.engine().pool().groups();
                let base = groups.into_iter().find(|record| record.name == name).and_then(|record| record.base);
                base.iter().for_each(|(_, lsn)| self.promised(group, lsn.0));
                if point.is_some() {
                    self.coverage.road("a clone of a point");
                }
                if self.past.parents.contains_key(group) {
                    self.coverage.road("a clone of a clone");
                }
                self.past.parents.insert(name.clone(), group.to_owned());
                self.adopt_clone()?;
                self.mount_group(&name)
            }
            // A volume that had more copies then than there are drives for now: what would help is in the message.
            Err(error)
                if error.kind == Kind::Unavailable && error.message.contains("add a drive") && self.active_drives() < 3 =>
            {
                self.past.cloning = None;
                Ok(false)
            }
            Err(error) => {
                // The next start may still find it.
                self.excuse_control(&what, &error, group)?;
                Ok(false)
            }
        }
    }

    /// The clone that was under way is one of the groups.
    fn adopt_clone(&mut self) -> Verdict {
        let Some(pending) = self.past.cloning.take() else { return Ok(()) };
        let Some(open) = self.open_group(&pending.group) else {
            return Err(Violation::new(Check::HalfDone, format!("clone {} has volumes and no group", pending.group)));
        };
        let lsn = open.newest().0;
        let mut state = State::default();
        let there = self.engine().volumes().unwrap_or_default();
        for (name, (rf, files)) in pending.volumes {
            // As many copies as the volume had at that time.
            let rf = there.iter().find(|volume| volume.name == name).map_or(rf, |volume| volume.rf);
            if self.shape.beyond && self.struck() || rf == 1 && !self.tainted.is_empty() {
                self.tainted.push(name.clone());
            }
            self.volumes.insert(name.clone(), Mounted { volume: None, group: pending.group.clone(), rf });
            state.volumes.insert(name, files);
        }
        let mut model = GroupModel::new(self.shape.beyond);
        model.acknowledge(lsn, state);
        model.promise(lsn);
        self.models.insert(pending.group, model);
        Ok(())
    }

    fn mount_group(&mut self, group: &str) -> Verdict<bool> {
        let engine = self.engine();
        let names: Vec<String> = self.volumes.iter().filter(|(_, mounted)| mounted.group == group).map(|(name, _)| name.clone()).collect();
        for name in names {
            if let Some(mounted) = self.volumes.get_mut(&name)
                && mounted.volume.is_none()
            {
                mounted.volume = Some(mount(&engine, &name));
            }
            self.verify_volume(&name)?;
        }
        Ok(true)
    }

    // --- the end of volumes ---------------------------------------------------------------------------------------------

    fn destroy_step(&mut self) -> Verdict<bool> {
        if self.volumes.len() < 2 {
            return Ok(false);
        }
        let at = self.rng.below(1 << 20);
        let Some(name) = pick(self.volumes.keys().cloned(), at) else { return Ok(false) };
        let group = self.volumes[&name].group.clone();
        self.say(format!("{group}: destroy {name}"));
        self.past.open.retain(|open| open.group != group);
        if let Some(mounted) = self.volumes.get_mut(&name) {
            mounted.volume = None;
        }
        self.past.destroying = Some(name.clone());
        let engine = self.engine();
        let result = engine.volume_destroy(&name);
        if self.world.ended().is_some() {
            let next = self.models[&group].now.without_volume(&name);
            self.model(&group).leave_in_flight(next);
            return Ok(true);
        }
        match result {
            Ok(()) => {
                self.past.destroying = None;
                self.forget_volume(&name);
                self.pass_all();
                if self.models.contains_key(&group) {
                    self.promised_all(&group);
                }
                Ok(true)
            }
            Err(error) => {
                self.excuse_control(&format!("destroy {name}"), &error, &group)?;
                // Whether it has begun is for a start to say.
                let next = self.models[&group].now.without_volume(&name);
                self.model(&group).leave_in_flight(next);
                self.world.end_now(CrashKind::Kill);
                Ok(false)
            }
        }
    }

    /// It is gone for good.
    fn forget_volume(&mut self, name: &str) {
        let Some(mounted) = self.volumes.remove(name) else { return };
        self.past.rfs.insert(name.to_owned(), mounted.rf);
        self.changed.remove(name);
        self.tainted.retain(|tainted| tainted != name);
        if self.volumes.values().all(|other| other.group != mounted.group) {
            self.models.remove(&mounted.group);
            if self.past.parents.values().any(|parent| *parent == mounted.group) {
                self.coverage.road("a clone outlived its parent");
            }
            return;
        }
        let (lsn, now) = (self.group(&mounted.group).newest().0, self.models[&mounted.group].now.without_volume(name));
        self.model(&mounted.group).acknowledge(lsn, now);
    }

    // --- after a crash --------------------------------------------------------------------------------------------------

    /// What was under way when the run ended is there as a whole or not at all.
    pub fn settle_past(&mut self) -> Verdict {
        let there: Vec<String> = self.engine().volumes().unwrap_or_default().into_iter().map(|volume| volume.name).collect();
        if let Some(name) = self.past.destroying.take() {
            self.coverage.road("the end of a volume was cut short");
            if !there.contains(&name) {
                self.forget_destroyed(&name);
            }
        }
        let Some(pending) = &self.past.cloning else { return Ok(()) };
        self.coverage.road("a clone was cut short");
        let found = pending.volumes.keys().filter(|name| there.contains(name)).count();
        if found == pending.volumes.len() && (self.open_group(&pending.group).is_some() || !self.shape.beyond) {
            return self.adopt_clone();
        }
        let group = self.engine().pool().groups().into_iter().any(|record| record.name == pending.group && !record.destroyed);
        if (found > 0 || group) && !self.shape.beyond {
            let what = format!("{} has {found} of {} volumes after a start: {there:?}", pending.group, pending.volumes.len());
            return Err(Violation::new(Check::HalfDone, what));
        }
        self.past.cloning = None;
        Ok(())
    }

    /// As [`Run::forget_volume`], of what a crash has ended: the group's state is told from what it shows.
    fn forget_destroyed(&mut self, name: &str) {
        let Some(mounted) = self.volumes.remove(name) else { return };
        self.past.rfs.insert(name.to_owned(), mounted.rf);
        self.changed.remove(name);
        self.tainted.retain(|tainted| tainted != name);
        if self.volumes.values().all(|other| other.group != mounted.group) {
            self.models.remove(&mounted.group);
        }
    }

    /// A group whose volumes all have one copy goes with the drive that has it: it is given up, as it says itself, and its
    /// clones before it. False: this is none.
    pub fn give_up_lost(&mut self, group: &str) -> Verdict<bool> {
        let volumes = |run: &Self| -> Vec<String> {
            run.volumes.iter().filter(|(_, mounted)| mounted.group == group).map(|(name, _)| name.clone()).collect()
        };
        if !self.shape.is_single() || !volumes(self).iter().all(|name| self.tainted.contains(name)) {
            return Ok(false);
        }
        let clones = self.past.parents.iter().filter(|(clone, parent)| *parent == group && self.models.contains_key(*clone));
        for clone in clones.map(|(clone, _)| clone.clone()).collect::<Vec<_>>() {
            if !self.give_up_lost(&clone)? {
                return Ok(false);
            }
        }
        for name in volumes(self) {
            self.say(format!("   giving {name} up"));
            let result = self.engine().volume_destroy(&name);
            result.map_err(|error| Violation::new(Check::RefusedCall, format!("giving {name} up: {error}")))?;
            self.volumes.remove(&name);
            self.changed.remove(&name);
            self.tainted.retain(|tainted| *tainted != name);
        }
        self.models.remove(group);
        // Too rare to be demanded of a batch.
        self.coverage.add("what had one copy was given up", 1);
        Ok(true)
    }

    // --- upkeep ---------------------------------------------------------------------------------------------------------

    fn loosen_step(&mut self, group: &str) -> Verdict<bool> {
        self.say(format!("{group}: loosen"));
        let result = self.group(group).loosen_step();
        self.after_upkeep(S::Loosen, result)
    }

    /// Groups without volumes, which only clones look at.
    fn bases_step(&mut self) -> Verdict<bool> {
        let engine = self.engine();
        let known: Vec<_> = self.group_names().iter().map(|name| self.group(name).id).collect();
        let bases: Vec<_> = engine.groups().into_iter().filter(|group| !known.contains(&group.id)).collect();
        if bases.is_empty() {
            return Ok(false);
        }
        self.say("upkeep of bases");
        let work = || -> Result<bool> {
            for group in &bases {
                group.second_now()?;
                group.drain_now()?;
                group.compact_step()?;
                group.expire_step()?;
                group.loosen_step()?;
            }
            Ok(true)
        };
        let result = work();
        self.after_upkeep(S::Bases, result)
    }

    fn after_upkeep(&mut self, step: S, result: Result<bool>) -> Verdict<bool> {
        if self.world.ended().is_some() {
            return Ok(true);
        }
        self.pass_all();
        match result {
            Ok(done) => Ok(done),
            Err(error) => self.excuse_work(step, &error).map(|()| false),
        }
    }
}

/// Names of a state's snapshots in the order in which the group has them.
fn sorted_by_lsn<'a>(there: &[holdfast_store::group::PointInfo], state: &'a State) -> impl Iterator<Item = &'a String> {
    let mut names: Vec<&String> = state.points.keys().collect();
    names.sort_by_key(|name| there.iter().position(|point| point.name == **name));
    names.into_iter()
}
