//! Judges the states that a crash can leave: each must open, be the state at one LSN that the promises allow, and work.

use super::player::{MOMENT, Moment, Plan, Player, States, group_texts, mount, options};
use super::step::{self, PHASE, PHASE_OPEN, Step};
use super::tree::difference;
use super::{ROOT, Rings, foundation, manifest};
use holdfast_device::sim::{CrashKind, CrashOptions, CrashState, Trace};
use holdfast_device::{Rng, SharedMemory, SimWorld};
use holdfast_format::{GroupId, ROOT_INO};
use holdfast_store::api::{FileSystem, WriteFlags};
use holdfast_store::engine::Engine;
use holdfast_store::volume::Volume;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// States that one event gives, about.
const STATES_PER_EVENT: u64 = 24;

/// How much of a trace is tried.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// States of one step in one trace, about.
    pub states_per_step: usize,
    /// And of mending and healing.
    pub states_per_repair: usize,
    /// Every so many judged states a recovery is crashed, too.
    pub recursion_every: usize,
    pub recursion_states: usize,
}

impl Budget {
    fn states_of(&self, step: Step) -> u64 {
        match step {
            Step::Mend | Step::HealCopy | Step::HealEdit => self.states_per_repair as u64,
            _ => self.states_per_step as u64,
        }
    }
}

/// What was judged.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub distinct: u64,
    pub recursions: u64,
    pub edits_forgotten: u64,
    pub by_step: BTreeMap<Step, u64>,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.distinct += other.distinct;
        self.recursions += other.recursions;
        self.edits_forgotten += other.edits_forgotten;
        for (step, count) in &other.by_step {
            *self.by_step.entry(*step).or_default() += count;
        }
    }
}

/// What a start found: LSN and text of every group.
type Found = BTreeMap<GroupId, (u64, String)>;

pub struct Judge<'a> {
    player: &'a Player,
    trace: Trace,
    steps: Vec<Step>,
    budget: Budget,
    rng: Rng,
    /// Newest LSN of groups by state, to hold a state that comes again against a stronger promise.
    judged: BTreeMap<(u64, usize), BTreeMap<GroupId, u64>>,
    /// States between two moments, where an operation logs several ops: the first one seen counts.
    between: States,
    pub tally: Tally,
}

fn start(plan: &Plan, world: &SimWorld, rings: &Rings, seed: u64) -> holdfast_store::error::Result<Arc<Engine>> {
    Engine::open_on(plan.drives_left(world), options(), foundation(world, rings, seed))
}

fn rings_of(memories: &BTreeMap<GroupId, SharedMemory>) -> Rings {
    Arc::new(Mutex::new(memories.iter().map(|(group, memory)| (*group, memory.snapshot())).collect()))
}

fn mount_all(engine: &Engine) -> Result<BTreeMap<String, Arc<Volume>>, String> {
    let infos = engine.volumes().map_err(|error| format!("listing volumes: {error}"))?;
    Ok(infos.into_iter().map(|info| (info.name.clone(), mount(engine, &info.name))).collect())
}

fn look(engine: &Engine) -> Result<(Found, BTreeMap<String, Arc<Volume>>), String> {
    let lsns: BTreeMap<GroupId, u64> =
        engine.groups().iter().map(|group| (group.id, group.newest().0)).collect();
    let volumes = mount_all(engine)?;
    let texts = group_texts(engine, &volumes).map_err(|error| format!("reading everything: {error:?}"))?;
    Ok((texts.into_iter().map(|(group, text)| (group, (lsns[&group], text))).collect(), volumes))
}

impl<'a> Judge<'a> {
    pub fn new(player: &'a Player, budget: Budget) -> Self {
        let trace = player.world.take_trace().expect("a recorded trace");
        let slot_bytes = player.engine().pool().slot_bytes() as u64;
        let mut used = BTreeMap::new();
        let steps = step::steps(trace.events(), slot_bytes, &mut used);
        Self {
            player,
            steps,
            trace,
            budget,
            rng: Rng::from_seed(player.plan.seed ^ 0x51),
            judged: BTreeMap::new(),
            between: States::new(),
            tally: Tally::default(),
        }
    }

    /// Judges what a crash of this kind can leave.
    pub fn judge(&mut self, kind: CrashKind) -> Result<(), String> {
        let trace = self.trace.clone();
        let mut per_step: BTreeMap<Step, u64> = BTreeMap::new();
        self.steps.iter().for_each(|step| *per_step.entry(*step).or_default() += 1);
        let enumeration = CrashOptions {
            kind,
            seed: self.player.plan.seed,
            exhaustive_writes_max: 2,
            sampled_subsets: 8,
            torn_variants_max: 6,
        };
        for (number, state) in trace.crash_states(enumeration).enumerate() {
            let step = self.step_at(state.position);
            let share = per_step.get(&step).copied().unwrap_or(1).max(1) * STATES_PER_EVENT;
            if !self.rng.chance(self.budget.states_of(step).min(share), share) {
                continue;
            }
            self.judge_state(&state, kind, step, number).map_err(|problem| {
                let at = self.moment_at(state.position);
                let context: Vec<&str> = self.player.log.iter().rev().take(400).rev().map(String::as_str).collect();
                format!(
                    "{kind:?} crash state {number} at event {} ({step:?}, moment {at}, {}): {problem}\nplan {:?}\n{}",
                    state.position,
                    state.choice,
                    self.player.plan,
                    context.join("\n")
                )
            })?;
        }
        Ok(())
    }

    /// Step of the event under way.
    fn step_at(&self, position: usize) -> Step {
        self.steps.get(position).copied().unwrap_or(Step::Other)
    }

    fn moment_at(&self, position: usize) -> usize {
        self.trace.last_mark(MOMENT, position).unwrap_or(0) as usize
    }

    fn judge_state(
        &mut self,
        state: &CrashState,
        kind: CrashKind,
        step: Step,
        number: usize,
    ) -> Result<(), String> {
        let at = self.moment_at(state.position);
        let player = self.player;
        let (before, after) =
            (&player.moments[at], player.moments.get(at + 1).unwrap_or(&player.moments[at]));
        let promised = if kind == CrashKind::Kill { &before.acknowledged } else { &before.durable };
        // Rings differ from moment to moment.
        let key = (state.hash(), if kind == CrashKind::Kill { at + 1 } else { 0 });
        if let Some(lsns) = self.judged.get(&key) {
            return check_promise(lsns, promised, &after.acknowledged);
        }
        let rings = if kind == CrashKind::Kill { rings_of(&before.rings) } else { Rings::default() };
        let world = state.world(number as u64);
        let engine =
            start(&player.plan, &world, &rings, number as u64).map_err(|error| format!("does not open: {error}"))?;
        let replayed_ring = engine
            .groups()
            .iter()
            .any(|group| group.newest().0 > before.durable.get(&group.id).copied().unwrap_or(0));
        let (found, volumes) = look(&engine)?;
        self.compare(&found, before, after, promised)?;
        let report = engine.fsck().map_err(|error| format!("checking: {error}"))?;
        if !report.problems.is_empty() {
            return Err(format!("inconsistent after recovery: {}", report.problems.join("; ")));
        }
        work_on(&engine, volumes, number)?;
        if number.is_multiple_of(4) {
            drop(engine);
            second_start(&player.plan, &world, &found)?;
        }
        self.tally.distinct += 1;
        if kind == CrashKind::Kill && replayed_ring {
            *self.tally.by_step.entry(Step::Acknowledged).or_default() += 1;
        }
        *self.tally.by_step.entry(step).or_default() += 1;
        let lsns = found.iter().map(|(group, (lsn, _))| (*group, *lsn)).collect();
        self.judged.insert(key, lsns);
        if kind == CrashKind::Power && number.is_multiple_of(5) {
            self.forget_edit(state, &found)?;
        }
        if (self.tally.distinct as usize).is_multiple_of(self.budget.recursion_every) {
            self.recurse(state, kind, before, &found)?;
        }
        Ok(())
    }

    /// The state is that of one LSN of each group, not older than promised.
    fn compare(
        &mut self,
        found: &Found,
        before: &Moment,
        after: &Moment,
        promised: &BTreeMap<GroupId, u64>,
    ) -> Result<(), String> {
        let lsns = found.iter().map(|(group, (lsn, _))| (*group, *lsn)).collect();
        check_groups(&lsns, before, after)?;
        check_promise(&lsns, promised, &after.acknowledged)?;
        for (group, (lsn, text)) in found {
            let known = self.player.states.get(group).and_then(|states| states.get(lsn));
            let expected = match known {
                Some(text) => text.clone(),
                None => {
                    let between = self.between.entry(*group).or_default();
                    between.entry(*lsn).or_insert_with(|| text.as_str().into()).clone()
                }
            };
            if *expected != **text {
                return Err(format!(
                    "group {group} at LSN {lsn} is not what it was: {}",
                    difference(&expected, text)
                ));
            }
        }
        Ok(())
    }

    /// The newest manifest record rots on every copy before anything relied on it: what the record before it names is
    /// still there, because a freed slot waits for the second manifest (STORE.md 12, step 6).
    fn forget_edit(&mut self, state: &CrashState, first: &Found) -> Result<(), String> {
        let world = state.world(9);
        if !manifest::forget_newest_edit(&world) {
            return Ok(());
        }
        // A superblock may already say that the record was durable: then it is missed.
        let Ok(engine) = start(&self.player.plan, &world, &Rings::default(), 9) else { return Ok(()) };
        let told = |problem: String| format!("without the newest manifest record: {problem}");
        let (found, _volumes) = look(&engine).map_err(told)?;
        same(first, &found).map_err(told)?;
        self.tally.edits_forgotten += 1;
        Ok(())
    }

    /// Crashes the recovery, recovers again: the state is the same (row 19).
    fn recurse(
        &mut self,
        state: &CrashState,
        kind: CrashKind,
        before: &Moment,
        first: &Found,
    ) -> Result<(), String> {
        let memories = if kind == CrashKind::Kill { before.rings.clone() } else { BTreeMap::new() };
        let world = state.world(7);
        world.start_trace();
        world.mark(PHASE, PHASE_OPEN);
        let rings = rings_of(&memories);
        drop(start(&self.player.plan, &world, &rings, 7).map_err(|error| format!("does not open twice: {error}"))?);
        let trace = world.take_trace().ok_or("no trace")?;
        let steps = step::steps(trace.events(), u64::MAX, &mut BTreeMap::new());
        let enumeration = CrashOptions {
            kind,
            seed: 7,
            exhaustive_writes_max: 1,
            sampled_subsets: 4,
            torn_variants_max: 1,
        };
        let states: Vec<CrashState> = trace.crash_states(enumeration).collect();
        let mut seen = BTreeSet::new();
        for _ in 0..self.budget.recursion_states.min(states.len()) {
            let at = self.rng.below(states.len() as u64) as usize;
            if !seen.insert(states[at].hash()) {
                continue;
            }
            let world = states[at].world(8);
            let told = |problem: String| {
                format!(
                    "crash {at} at event {} of the recovery ({}): {problem}",
                    states[at].position, states[at].choice
                )
            };
            let engine = start(&self.player.plan, &world, &rings_of(&memories), 8)
                .map_err(|error| told(format!("does not open: {error}")))?;
            let (found, _volumes) = look(&engine).map_err(told)?;
            same(first, &found).map_err(told)?;
            self.tally.recursions += 1;
            if let Some(step) = steps.get(states[at].position) {
                *self.tally.by_step.entry(*step).or_default() += 1;
            }
        }
        Ok(())
    }
}

fn check_groups(found: &BTreeMap<GroupId, u64>, before: &Moment, after: &Moment) -> Result<(), String> {
    let (old, new) = (&before.acknowledged, &after.acknowledged);
    let lost = old.keys().find(|group| new.contains_key(group) && !found.contains_key(group));
    if let Some(group) = lost {
        return Err(format!("group {group} is gone"));
    }
    match found.keys().find(|group| !new.contains_key(group) && !old.contains_key(group)) {
        Some(group) => Err(format!("group {group} was destroyed and is back")),
        None => Ok(()),
    }
}

fn check_promise(
    found: &BTreeMap<GroupId, u64>,
    promised: &BTreeMap<GroupId, u64>,
    newest: &BTreeMap<GroupId, u64>,
) -> Result<(), String> {
    for (group, lsn) in found {
        let least = promised.get(group).copied().unwrap_or(0);
        if *lsn < least {
            return Err(format!("group {group} is at LSN {lsn}, {least} was promised"));
        }
        if newest.get(group).is_some_and(|newest| lsn > newest) {
            return Err(format!("group {group} is at LSN {lsn}, which was never given"));
        }
    }
    Ok(())
}

fn same(first: &Found, second: &Found) -> Result<(), String> {
    if first.keys().ne(second.keys()) {
        return Err(format!("groups {:?} became {:?}", first.keys(), second.keys()));
    }
    for (group, (lsn, text)) in first {
        let (found_lsn, found) = &second[group];
        // Opening a volume reaps orphans: ops, but nothing that can be seen.
        if found_lsn < lsn || text != found {
            return Err(format!("group {group}: LSN {lsn} became {found_lsn}: {}", difference(text, found)));
        }
    }
    Ok(())
}

/// What was recovered takes writes, and keeps them.
fn work_on(engine: &Engine, volumes: BTreeMap<String, Arc<Volume>>, number: usize) -> Result<(), String> {
    let told = |error: holdfast_store::api::FsError| format!("working on: {error:?}");
    for volume in volumes.values() {
        let ino = volume.create(&ROOT, ROOT_INO, b"after the crash", 0o644).map_err(told)?.ino;
        volume.write(&ROOT, ino, 100, &[number as u8; 5000], WriteFlags::default()).map_err(told)?;
        volume.forget(ino, 1);
    }
    engine.flush().map_err(|error| format!("flushing: {error}"))?;
    if number.is_multiple_of(8) {
        engine.settle().map_err(|error| format!("settling: {error}"))?;
        let report = engine.fsck().map_err(|error| format!("checking: {error}"))?;
        if !report.problems.is_empty() {
            return Err(format!("inconsistent after settling: {}", report.problems.join("; ")));
        }
    }
    Ok(())
}

/// A power cut after the work: everything is as it was found, and what was written since is there.
fn second_start(plan: &Plan, world: &SimWorld, found: &Found) -> Result<(), String> {
    let engine =
        start(plan, world, &Rings::default(), 5).map_err(|error| format!("does not open again: {error}"))?;
    let volumes = mount_all(&engine)?;
    for (name, volume) in &volumes {
        let ino = volume
            .lookup(ROOT_INO, b"after the crash")
            .map_err(|error| format!("{name}: lost: {error:?}"))?
            .ino;
        let mut bytes = vec![0; 5200];
        let got = volume.read(&ROOT, ino, 0, &mut bytes).map_err(|error| format!("{name}: {error:?}"))?;
        if got != 5100
            || bytes[..100].iter().any(|byte| *byte != 0)
            || bytes[101..5100].iter().any(|byte| *byte != bytes[100])
        {
            return Err(format!("{name}: what was written after the crash is not there"));
        }
        volume.unlink(&ROOT, ROOT_INO, b"after the crash").map_err(|error| format!("{name}: {error:?}"))?;
    }
    let texts =
        group_texts(&engine, &volumes).map_err(|error| format!("reading everything again: {error:?}"))?;
    for (group, text) in texts {
        // The root directory's times have moved.
        let strip =
            |text: &str| text.lines().filter(|line| line.starts_with('/')).collect::<Vec<_>>().join("\n");
        let (expected, now) = (strip(&found[&group].1), strip(&text));
        if expected != now {
            return Err(format!("group {group} changed: {}", difference(&expected, &now)));
        }
    }
    Ok(())
}
