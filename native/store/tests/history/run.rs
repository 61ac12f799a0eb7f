//! One history: an engine, and what its points should read.

use super::rig::tree::{difference, walk};
use super::rig::{Rig, options, volume_create};
use super::feed::Consumer;
use super::promises::{self, HORIZON_S, THIN, WINDOW_S};
use super::{account, differences, users};
use holdfast_device::{Clock, Rng};
use holdfast_store::engine::{Engine, EngineOptions};
use holdfast_store::error::Kind;
use holdfast_store::volume::{Volume, VolumeOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const DRIVES: usize = 3;
const STEPS: u64 = 70;
const VOLUMES_MAX: usize = 6;

/// What was seen, over all histories.
#[derive(Default, Debug)]
pub struct Totals {
    changes: u64,
    ticks: u64,
    thinned: u64,
    given_back: u64,
    clocks_set: u64,
    snapshots: u64,
    deleted: u64,
    clones: u64,
    clones_of_the_past: u64,
    clones_of_clones: u64,
    parents_destroyed: u64,
    /// Steps.
    taken_over: u64,
    restarts: u64,
    points_read: u64,
    changes_told: u64,
    fed: u64,
    fed_steps: u64,
    fed_again: u64,
}

impl Totals {
    pub fn add(&mut self, other: &Self) {
        self.changes += other.changes;
        self.ticks += other.ticks;
        self.thinned += other.thinned;
        self.given_back += other.given_back;
        self.clocks_set += other.clocks_set;
        self.snapshots += other.snapshots;
        self.deleted += other.deleted;
        self.clones += other.clones;
        self.clones_of_the_past += other.clones_of_the_past;
        self.clones_of_clones += other.clones_of_clones;
        self.parents_destroyed += other.parents_destroyed;
        self.taken_over += other.taken_over;
        self.restarts += other.restarts;
        self.points_read += other.points_read;
        self.changes_told += other.changes_told;
        self.fed += other.fed;
        self.fed_steps += other.fed_steps;
        self.fed_again += other.fed_again;
    }

    /// A run that never does something proves nothing about it.
    pub fn check(&self, histories: u64) {
        let enough = [
            self.ticks,
            self.thinned,
            self.given_back,
            self.clocks_set,
            self.snapshots,
            self.deleted,
            self.clones,
            self.clones_of_the_past,
            self.clones_of_clones,
            self.parents_destroyed,
            self.taken_over,
            self.restarts,
            self.changes_told,
            self.fed,
            self.fed_steps,
            self.fed_again,
        ];
        assert!(histories < 50 || enough.iter().all(|count| *count >= histories / 20), "{self:?}");
    }
}

/// A text for each volume of a group.
type Texts = BTreeMap<String, String>;

#[derive(Default)]
pub struct Told {
    pub name: String,
    held: bool,
    /// By the time since boot.
    pub kept_ns: u64,
    texts: Texts,
}

struct GroupModel {
    volumes: Vec<String>,
    points: BTreeMap<u64, Told>,
    /// Seconds that have gone.
    thinned: BTreeSet<u64>,
    depth: u32,
    has_clones: bool,
}

pub struct Run {
    rig: Option<Rig>,
    rng: Rng,
    groups: BTreeMap<String, GroupModel>,
    mounted: BTreeMap<String, Arc<Volume>>,
    /// Of volumes by name.
    consumers: BTreeMap<String, Consumer>,
    names: u64,
    totals: Totals,
}

fn run_options() -> EngineOptions {
    EngineOptions { retention_s: WINDOW_S, feed_units: 7, thin: THIN.to_vec(), history_limit_percent: 60, ..options() }
}

impl Run {
    pub fn new(seed: u64) -> Self {
        let rig = Rig::create(seed, DRIVES, run_options());
        let mut run = Self {
            rig: Some(rig),
            rng: Rng::from_seed(seed ^ 0x9157),
            groups: BTreeMap::new(),
            mounted: BTreeMap::new(),
            consumers: BTreeMap::new(),
            names: 0,
            totals: Totals::default(),
        };
        run.create("solo", &["solo"]);
        if run.rng.chance(1, 2) {
            run.create("pair", &["left", "right"]);
        }
        run
    }

    fn rig(&self) -> &Rig {
        self.rig.as_ref().expect("an engine")
    }

    fn create(&mut self, group: &str, volumes: &[&str]) {
        for name in volumes {
            let shared = (volumes.len() > 1).then_some(group);
            self.rig().engine.volume_create(&volume_create(name, 2, shared)).expect("a volume");
        }
        let volumes = volumes.iter().map(|name| (*name).to_owned()).collect();
        let model = GroupModel { volumes, points: BTreeMap::new(), thinned: BTreeSet::new(), depth: 0, has_clones: false };
        self.groups.insert(group.to_owned(), model);
        self.mount_all();
    }

    fn mount_all(&mut self) {
        let options = VolumeOptions { noatime: true };
        for name in self.groups.values().flat_map(|group| &group.volumes) {
            if !self.mounted.contains_key(name) {
                let volume = self.rig.as_ref().expect("an engine").engine.volume(name, options).expect("free");
                self.mounted.insert(name.clone(), volume);
            }
        }
    }

    fn texts(&self, group: &str) -> Texts {
        let text = |name: &String| (name.clone(), walk(&self.mounted[name]).expect("readable").text);
        self.groups[group].volumes.iter().map(text).collect()
    }

    fn any_group(&mut self) -> Option<String> {
        let names: Vec<String> = self.groups.keys().cloned().collect();
        if names.is_empty() { None } else { Some(names[self.rng.below(names.len() as u64) as usize].clone()) }
    }

    pub fn play(mut self) -> Totals {
        let before = self.rig().engine.status().expect("a status").free_bytes;
        for _ in 0..STEPS {
            self.step();
        }
        self.verify();
        for group in self.groups.keys().cloned().collect::<Vec<_>>() {
            self.compare(&group);
            self.follow(&group);
        }
        self.end(before);
        self.totals
    }

    fn step(&mut self) {
        let Some(group) = self.any_group() else { return self.create("solo", &["solo"]) };
        match self.rng.below(43) {
            0..=19 => {
                let volumes = &self.groups[&group].volumes;
                let name = volumes[self.rng.below(volumes.len() as u64) as usize].clone();
                for _ in 0..1 + self.rng.below(4) {
                    users::change(&self.mounted[&name], &mut self.rng);
                    self.totals.changes += 1;
                }
            }
            20..=22 => self.second(),
            23 => self.seconds(),
            24 | 25 => self.snapshot(&group),
            26 => self.delete_snapshot(&group),
            27 => self.rename_or_hold(&group),
            28..=30 => self.clone_some(&group),
            31 => self.destroy(&group),
            32 => self.restart(),
            33 => {
                self.verify();
                self.compare(&group);
            }
            34 | 35 => self.follow(&group),
            39 | 40 => self.take_over(),
            36 => {
                let group = self.rig().engine.groups();
                group.iter().for_each(|group| group.drain_now().expect("drained"));
            }
            37 => {
                for group in self.rig().engine.groups() {
                    while group.compact_step().expect("merged") {}
                }
            }
            42 => self.delete_some(&group),
            38 => while let Ok(true) = self.rig().engine.clean_now() {},
            _ => {
                let result = self.rig().engine.housekeep_now(true);
                result.expect("kept");
            }
        }
    }

    /// Every group keeps this second, if anything changed.
    fn second(&mut self) {
        let texts: BTreeMap<String, Texts> = self.groups.keys().map(|name| (name.clone(), self.texts(name))).collect();
        self.rig().world.clock().advance(1_000_000_000);
        self.rig().engine.groups().iter().for_each(|group| group.second_now().expect("a second"));
        for (name, texts) in texts {
            let known = self.groups[&name].points.keys().next_back().copied().unwrap_or(0);
            let fresh = self.rig().engine.kept_points(&name, known, 10).expect("points");
            assert!(fresh.len() <= 1, "{fresh:?}");
            if let Some(point) = fresh.first() {
                let told = Told { kept_ns: self.now_ns(), texts, ..Told::default() };
                self.groups.get_mut(&name).expect("known").points.insert(point.lsn, told);
                self.totals.ticks += 1;
            }
        }
    }

    fn now_ns(&self) -> u64 {
        self.rig().world.clock().boottime_ns()
    }

    /// A while, in which somebody sets the clock: nothing gets older by that.
    fn seconds(&mut self) {
        for _ in 0..self.rng.below(12) {
            self.second();
        }
        if self.rng.chance(1, 3) {
            let clock = self.rig().world.clock();
            clock.set_wall(clock.wall().0 + self.rng.below(200_000) as i64 - 100_000, 0);
            self.totals.clocks_set += 1;
        }
    }

    fn fresh_name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    fn snapshot(&mut self, group: &str) {
        let name = self.fresh_name("snap");
        let made = self.rig().engine.snapshot_create(group, &name, None).expect("a snapshot");
        let again = self.rig().engine.snapshot_create(group, &name, None).expect_err("the name is taken");
        assert_eq!(again.kind, Kind::Conflict);
        let told = Told { name, held: false, kept_ns: self.now_ns(), texts: self.texts(group) };
        self.groups.get_mut(group).expect("known").points.insert(made.lsn, told);
        self.totals.snapshots += 1;
    }

    fn any_snapshot(&mut self, group: &str) -> Option<u64> {
        let points = &self.groups[group].points;
        let named: Vec<u64> = points.iter().filter(|(_, told)| !told.name.is_empty()).map(|(lsn, _)| *lsn).collect();
        if named.is_empty() { None } else { Some(named[self.rng.below(named.len() as u64) as usize]) }
    }

    fn delete_snapshot(&mut self, group: &str) {
        let Some(lsn) = self.any_snapshot(group) else { return };
        let told = &self.groups[group].points[&lsn];
        let result = self.rig().engine.snapshot_delete(group, &told.name);
        if told.held {
            assert_eq!(result.expect_err("held").kind, Kind::Conflict);
            return;
        }
        result.expect("deleted");
        self.groups.get_mut(group).expect("known").points.remove(&lsn);
        self.totals.deleted += 1;
    }

    /// Several at once, with what that gives back.
    fn delete_some(&mut self, target: &str) {
        let points = &self.groups[target].points;
        let free = points.iter().filter(|(_, told)| !told.name.is_empty() && !told.held);
        let mut names: Vec<(u64, String)> = free.map(|(lsn, told)| (*lsn, told.name.clone())).collect();
        names.retain(|_| self.rng.chance(2, 3));
        if names.is_empty() {
            return;
        }
        let id = self.rig().engine.pool().groups().into_iter().find(|record| record.name == target).expect("known").id;
        let group = self.rig().engine.groups().into_iter().find(|group| group.id == id).expect("known");
        let mut rng = Rng::from_seed(self.rng.next_u64());
        self.totals.given_back += u64::from(account::check(self.rig(), target, &group, &names, &mut rng));
        self.totals.deleted += names.len() as u64;
        let model = self.groups.get_mut(target).expect("known");
        names.iter().for_each(|(lsn, _)| drop(model.points.remove(lsn)));
    }

    fn rename_or_hold(&mut self, group: &str) {
        let Some(lsn) = self.any_snapshot(group) else { return };
        let new_name = self.fresh_name("renamed");
        let rename = self.rng.chance(1, 2);
        let engine = self.rig().engine.clone();
        let told = self.groups.get_mut(group).expect("known").points.get_mut(&lsn).expect("known");
        if rename {
            engine.snapshot_rename(group, &told.name, &new_name).expect("renamed");
            told.name = new_name;
        } else {
            told.held = !told.held;
            engine.snapshot_hold(group, &told.name, told.held).expect("held or released");
        }
    }

    fn clone_some(&mut self, group: &str) {
        let volumes: usize = self.groups.values().map(|group| group.volumes.len()).sum();
        if volumes >= VOLUMES_MAX {
            return;
        }
        let name = self.fresh_name("clone");
        let kept: Vec<u64> = self.kept(group);
        let at = if kept.is_empty() || self.rng.chance(1, 3) { None } else { Some(kept[self.rng.below(kept.len() as u64) as usize]) };
        let texts = match at {
            Some(lsn) => self.groups[group].points[&lsn].texts.clone(),
            None => self.texts(group),
        };
        let words = at.map(|lsn| format!("lsn:{lsn}"));
        let made = self.rig().engine.clone_create(group, &name, words.as_deref()).expect("a clone");
        // A clone of the present may keep a point of its own.
        let known = self.groups[group].points.keys().next_back().copied().unwrap_or(0);
        for point in self.rig().engine.kept_points(group, known, 10).expect("points") {
            let told = Told { kept_ns: self.now_ns(), texts: texts.clone(), ..Told::default() };
            self.groups.get_mut(group).expect("known").points.insert(point.lsn, told);
        }
        let parent = self.groups.get_mut(group).expect("known");
        parent.has_clones = true;
        let depth = parent.depth + 1;
        self.totals.clones += 1;
        self.totals.clones_of_the_past += u64::from(at.is_some());
        self.totals.clones_of_clones += u64::from(depth > 1);
        let volumes: Vec<String> = made.into_iter().map(|info| info.name).collect();
        let model = GroupModel { volumes, points: BTreeMap::new(), thinned: BTreeSet::new(), depth, has_clones: false };
        self.groups.insert(name.clone(), model);
        self.mount_all();
        let found: Vec<String> = self.texts(&name).into_values().collect();
        let expected: Vec<String> = texts.into_values().collect();
        for (expected, found) in expected.iter().zip(&found) {
            assert!(expected == found, "{name} of {group}: {}", difference(expected, found));
        }
    }

    /// A clone takes over what it has of its ancestors, or some of it; what it shows stays, and so do all its points.
    fn take_over(&mut self) {
        let clones: Vec<String> = self.groups.keys().filter(|name| self.groups[*name].depth > 0).cloned().collect();
        let Some(clone) = users::pick(&mut self.rng, &clones).cloned() else { return };
        let before = self.texts(&clone);
        let (kept, pages) = (self.rng.below(2) as usize, 1 + self.rng.below(20) as usize);
        for _ in 0..1 + self.rng.below(40) {
            match self.rig().engine.clone_take_over(&clone, kept, pages) {
                Ok(more) => {
                    self.totals.taken_over += 1;
                    if !more {
                        break;
                    }
                }
                // Begun again so often that no level is free.
                Err(error) if error.kind == Kind::Conflict => break,
                Err(error) => panic!("{clone}: {error}"),
            }
            self.disturb();
        }
        let after = self.texts(&clone);
        for (name, text) in &before {
            assert!(*text == after[name], "{name}: {}", difference(text, &after[name]));
        }
    }

    fn destroy(&mut self, group: &str) {
        let model = self.groups.remove(group).expect("known");
        for name in &model.volumes {
            self.mounted.remove(name);
            self.consumers.remove(name);
            self.rig().engine.volume_destroy(name).expect("destroyed");
        }
        self.totals.parents_destroyed += u64::from(model.has_clones);
    }

    /// The process dies, or ends cleanly, and starts again.
    fn restart(&mut self) {
        let before: Vec<Texts> = self.groups.keys().map(|name| self.texts(name)).collect();
        self.mounted.clear();
        let rig = self.rig.take().expect("an engine");
        if self.rng.chance(1, 3) {
            rig.engine.close().expect("closed");
        }
        self.rig = Some(rig.kill(run_options()));
        self.mount_all();
        for (name, before) in self.groups.keys().zip(&before) {
            for ((volume, expected), found) in before.iter().zip(self.texts(name).values()) {
                assert!(expected == found, "{volume} after a start: {}", difference(expected, found));
            }
        }
        self.totals.restarts += 1;
    }

    /// Points that the engine keeps and the model knows: all snapshots, and of the seconds what is promised.
    fn kept(&mut self, group: &str) -> Vec<u64> {
        let points = self.rig().engine.kept_points(group, 0, 10_000).expect("points");
        let told = &self.groups[group].points;
        for point in &points {
            let known = told.get(&point.lsn).unwrap_or_else(|| panic!("{group}: a point nobody made: {point:?}"));
            assert_eq!((&known.name, known.held), (&point.name, point.held));
        }
        let kept: BTreeSet<u64> = points.iter().map(|point| point.lsn).collect();
        let gone = promises::check(told, &kept, self.now_ns());
        let model = self.groups.get_mut(group).expect("known");
        self.totals.thinned += gone.difference(&model.thinned).count() as u64;
        model.thinned = gone;
        kept.into_iter().collect()
    }

    fn verify(&mut self) {
        for group in self.groups.keys().cloned().collect::<Vec<_>>() {
            for lsn in self.kept(&group) {
                for (name, expected) in &self.groups[&group].points[&lsn].texts {
                    let (volume, _) = self.rig().engine.volume_at(name, &format!("lsn:{lsn}")).expect("kept");
                    let found = walk(&volume).expect("readable").text;
                    assert!(*expected == found, "{name} at LSN {lsn}: {}", difference(expected, &found));
                    self.totals.points_read += 1;
                }
            }
        }
        let report = self.rig().engine.fsck().expect("checked");
        assert!(report.problems.is_empty(), "{:#?}", report.problems);
    }

    /// The consumers of a group's volumes take what the feed has for them. Between pages upkeep runs, or the process dies.
    fn follow(&mut self, group: &str) {
        let kept = self.kept(group);
        let (Some(oldest), is_clone) = (kept.first(), self.groups[group].depth > 0) else { return };
        for name in self.groups[group].volumes.clone() {
            let fresh = |engine: &Engine| match is_clone {
                true => Consumer::starting_at(engine, &name, *oldest),
                false => Consumer::new(&name),
            };
            let mut consumer = self.consumers.remove(&name).unwrap_or_else(|| fresh(&self.rig().engine));
            let coalesce = self.rng.chance(1, 4);
            loop {
                let page = match consumer.ask(&self.rig().engine, false, coalesce) {
                    Ok(page) => page,
                    Err(error) => {
                        // Only what it stood on can be missing: it begins anew.
                        assert_eq!(error.kind, Kind::NotFound, "{error:?}");
                        assert!(error.message.contains("--from now begins anew"), "{error:?}");
                        assert!(!consumer.stands_on(&kept), "{error:?}");
                        consumer = Consumer::starting_at(&self.rig().engine, &name, *oldest);
                        self.totals.fed_again += 1;
                        continue;
                    }
                };
                if !consumer.take(&self.rig().engine, page) {
                    break;
                }
                self.disturb();
            }
            self.totals.fed += std::mem::take(&mut consumer.told);
            self.totals.fed_steps += std::mem::take(&mut consumer.steps);
            self.consumers.insert(name, consumer);
        }
    }

    /// Moves records about, and changes nothing that a point shows.
    fn disturb(&mut self) {
        match self.rng.below(16) {
            0 => self.rig().engine.groups().iter().for_each(|group| group.drain_now().expect("drained")),
            1 => {
                for group in self.rig().engine.groups() {
                    while group.compact_step().expect("merged") {}
                }
            }
            2 => self.restart(),
            _ => {}
        }
    }

    /// Two points of a group, compared by their records and by all that can be seen of them.
    fn compare(&mut self, group: &str) {
        let kept = self.kept(group);
        if kept.len() < 2 {
            return;
        }
        let at = self.rng.below(kept.len() as u64 - 1) as usize;
        let until = at + 1 + self.rng.below((kept.len() - at - 1) as u64) as usize;
        let words = [format!("lsn:{}", kept[at]), format!("lsn:{}", kept[until])];
        for name in self.groups[group].volumes.clone() {
            let engine = &self.rig().engine;
            let sides = [&words[0], &words[1]].map(|words| engine.volume_at(&name, words).expect("kept").0);
            self.totals.changes_told += differences::check(&self.rig().engine, &name, &words, &sides);
        }
    }

    /// Without points only the present takes space; without volumes nothing does.
    fn end(&mut self, empty_bytes: u64) {
        if self.rng.chance(1, 2) {
            // Without the seconds snapshots hold most alone.
            for _ in 0..HORIZON_S {
                self.rig().second();
            }
        }
        for group in self.groups.keys().cloned().collect::<Vec<_>>() {
            self.delete_some(&group);
        }
        for group in self.groups.keys().cloned().collect::<Vec<_>>() {
            for told in self.groups[&group].points.values().filter(|told| !told.name.is_empty()) {
                self.rig().engine.snapshot_hold(&group, &told.name, false).expect("released");
                self.rig().engine.snapshot_delete(&group, &told.name).expect("deleted");
            }
        }
        let (clones, alone): (Vec<String>, Vec<String>) = self.groups.keys().cloned().partition(|name| self.groups[name].depth > 0);
        for group in &clones {
            self.destroy(group);
        }
        for _ in 0..HORIZON_S + 2 {
            self.rig().second();
        }
        let engine = self.rig().engine.clone();
        engine.settle().expect("settled");
        for group in engine.groups() {
            let then = group.tree().stats().then;
            assert_eq!((then.tables, then.payload_bytes), (0, 0), "what nobody sees is still there");
        }
        for group in &alone {
            self.destroy(group);
        }
        self.rig().second();
        engine.settle().expect("settled");
        self.rig().second();
        let report = engine.fsck().expect("checked");
        assert!(report.problems.is_empty(), "{:#?}", report.problems);
        let status = engine.status().expect("a status");
        let slots = 16 * u64::from(status.slot_bytes);
        assert!(status.free_bytes + slots >= empty_bytes, "{} bytes free of {empty_bytes}", status.free_bytes);
    }
}
