//! One run: a seed, a pool on simulated drives, and everything that happens to it, one call after the other.

use super::coverage::Coverage;
use super::faults::{Exchange, FaultName, Member};
use super::model::GroupModel;
use super::past::Past;
use super::rig::player::mount;
use super::rig::{DRIVE_BYTES, Rings, foundation, volume_create};
use super::shape::{PLAIN, Shape};
use super::step::StepName;
use super::violation::{Check, Verdict, Violation};
use holdfast_device::sim::CrashKind;
use holdfast_device::{Rng, SharedMemory, SimWorld};
use holdfast_format::GroupId;
use holdfast_store::api::FsError;
use holdfast_store::engine::{Engine, EngineOptions};
use holdfast_store::error::{Error, Kind};
use holdfast_store::group::Group;
use holdfast_store::placement::PoolDrive;
use holdfast_store::volume::Volume;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A mounted volume.
#[derive(Clone)]
pub struct Mounted {
    /// `None`: not mounted, nothing is open.
    pub volume: Option<Arc<Volume>>,
    pub group: String,
    pub rf: u8,
}

impl Mounted {
    pub fn mounted(&self) -> &Volume {
        self.volume.as_deref().expect("the volume is mounted")
    }
}

/// Rings as they were when the run ended.
pub type EndRings = Arc<Mutex<BTreeMap<GroupId, SharedMemory>>>;

pub struct Run {
    pub seed: u64,
    pub shape: Shape,
    pub rng: Rng,
    pub world: SimWorld,
    pub rings: Rings,
    pub end_rings: EndRings,
    pub engine: Option<Arc<Engine>>,
    pub volumes: BTreeMap<String, Mounted>,
    /// By the group's name.
    pub models: BTreeMap<String, GroupModel>,
    /// LSN of each volume's newest change: what an fsync of it promises.
    pub changed: BTreeMap<String, u64>,
    pub members: Vec<Member>,
    pub past: Past,
    /// A volume and the RF that it is being given.
    pub setting_rf: Option<(String, u8)>,
    /// Volumes whose only copies may have been struck: reads may fail, but never lie.
    pub tainted: Vec<String>,
    /// A drive was told to be full.
    pub full: bool,
    pub coverage: Coverage,
    pub log: Vec<String>,
}

pub fn options() -> EngineOptions {
    EngineOptions {
        memtable_bytes: 32 << 10,
        ring_bytes: 512 << 10,
        metadata_cache_bytes: 1 << 20,
        background: false,
        ..super::rig::options()
    }
}

impl Run {
    pub fn new(seed: u64) -> Self {
        let shape = Shape::of(seed);
        let seed = seed & !PLAIN;
        let world = SimWorld::new(seed);
        world.start_digest();
        let members: Vec<Member> = (0..shape.drives)
            .map(|at| Member::new(world.add_drive(&format!("d{at}"), DRIVE_BYTES * 2)))
            .collect();
        let (rings, end_rings) = (Rings::default(), EndRings::default());
        Self {
            seed,
            rng: Rng::from_seed(seed ^ 0x0d15_ea5e),
            shape,
            world,
            rings,
            end_rings,
            engine: None,
            volumes: BTreeMap::new(),
            models: BTreeMap::new(),
            changed: BTreeMap::new(),
            members,
            past: Past::default(),
            setting_rf: None,
            tainted: Vec::new(),
            full: false,
            coverage: Coverage::default(),
            log: Vec::new(),
        }
    }

    /// Plays everything. An error is what went wrong first.
    pub fn play(&mut self) -> Verdict {
        self.create()?;
        for round in 0..self.shape.rounds {
            self.say(format!("== round {round}"));
            self.round()?;
            self.lift()?;
            if self.shape.is_single() && self.struck() {
                break;
            }
        }
        self.recycle()
    }

    fn create(&mut self) -> Verdict {
        self.say(format!("{:?}", self.shape));
        let drives = self.members.iter().map(|member| PoolDrive {
            drive: Arc::new(member.drive.clone()),
            bytes: Some(DRIVE_BYTES),
            domain: String::new(),
        });
        let foundation = foundation(&self.world, &self.rings, self.seed);
        let engine = Engine::create_on("pool", drives.collect(), options(), foundation);
        let engine =
            engine.map_err(|error| Violation::new(Check::RefusedCall, format!("creating: {error}")))?;
        self.engine = Some(engine.clone());
        self.watch_rings();
        let volumes: Vec<_> = self.shape.volumes().collect();
        for (group, name, rf) in volumes {
            engine
                .volume_create(&volume_create(&name, rf, Some(&group)))
                .map_err(|error| Violation::new(Check::RefusedCall, format!("creating {name}: {error}")))?;
            let volume = mount(&engine, &name);
            self.volumes.insert(name.clone(), Mounted { volume: Some(volume), group: group.clone(), rf });
            let lsn = self.group(&group).newest().0;
            let model = self.models.entry(group).or_insert_with(|| GroupModel::new(self.shape.beyond));
            let state = model.now.with(&name, |_| {});
            model.acknowledge(lsn, state);
            model.promise(lsn);
        }
        self.learn_uuids();
        Ok(())
    }

    /// From now on the end of the run leaves a copy of the rings of this start.
    pub fn watch_rings(&self) {
        let (rings, end) = (self.rings.clone(), self.end_rings.clone());
        self.world.at_end(Box::new(move || {
            let rings = rings.lock().expect("no panic under the lock");
            let copy = rings.iter().map(|(group, memory)| (*group, memory.snapshot())).collect();
            *end.lock().expect("no panic under the lock") = copy;
        }));
    }

    /// Work, with faults coming at some moments.
    fn round(&mut self) -> Verdict {
        let victims = self.choose_victims();
        let quiet = self.rng.chance(1, 4);
        for step in 0..self.shape.steps {
            if step % 16 == 0 {
                let at = self.rng.below(self.members.len() as u64) as usize;
                self.members[at].remember();
            }
            let begun = step * 4 > self.shape.steps;
            if !quiet && begun && !victims.is_empty() && self.rng.chance(1, 12) {
                let at = victims[self.rng.below(victims.len() as u64) as usize];
                let fault = FaultName::ALL[self.rng.below(FaultName::ALL.len() as u64) as usize];
                self.inject(at, fault)?;
                self.settle_end()?;
            }
            let name = StepName::choose(&mut self.rng, self.shape.past);
            self.step(name)?;
        }
        if quiet { self.finale() } else { Ok(()) }
    }

    /// Slots that were freed are used again, and the power goes meanwhile.
    fn finale(&mut self) -> Verdict {
        use StepName::{Compact, Drain, Settle, WriteAligned, WriteLarge, WritePartial};
        for _ in 0..3 {
            for name in
                [WriteLarge, WritePartial, WriteAligned, Drain, WritePartial, Drain, Settle, WritePartial]
            {
                self.step(name)?;
            }
            if self.engine.is_some() {
                self.world.end_after(CrashKind::Power, 2 + self.rng.below(5));
            }
            for name in [Drain, Compact, Settle] {
                self.step(name)?;
            }
        }
        Ok(())
    }

    /// One step, and what follows from it.
    pub fn step(&mut self, name: StepName) -> Verdict {
        self.world.clock().advance(1_000_000 * (1 + self.rng.below(300)));
        if self.volumes.is_empty() {
            // All had one copy, and were given up.
            return Ok(());
        }
        if self.engine.is_none() {
            // Beyond promise: nothing is open. Faults may go away by themselves.
            return self.try_again();
        }
        let done = match name {
            _ if name.is_of_files() => self.file_step(name)?,
            _ if name.is_of_past() => self.past_step(name)?,
            _ => self.upkeep_step(name)?,
        };
        if done {
            self.coverage.add(&name.text(), 1);
        }
        self.watch()?;
        self.settle_end()
    }

    /// If the run has ended meanwhile, it begins again.
    pub fn settle_end(&mut self) -> Verdict {
        match self.world.ended() {
            Some(_) => self.recover(),
            None => Ok(()),
        }
    }

    pub fn say(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.world.digest_note(&what);
        self.log.push(what);
    }

    pub fn engine(&self) -> Arc<Engine> {
        self.engine.clone().expect("an engine is open")
    }

    pub fn group(&self, name: &str) -> Arc<Group> {
        self.open_group(name).expect("the group is open")
    }

    pub fn open_group(&self, name: &str) -> Option<Arc<Group>> {
        let engine = self.engine();
        let id = engine.pool().groups().into_iter().find(|record| record.name == name)?.id;
        engine.groups().into_iter().find(|group| group.id == id)
    }

    pub fn model(&mut self, group: &str) -> &mut GroupModel {
        self.models.get_mut(group).expect("a model of every group")
    }

    /// Volumes with one copy lose their promise with the first drive that is struck; beyond promise all do.
    pub fn taint(&mut self) {
        let beyond = self.shape.beyond;
        let concerned = self.volumes.iter().filter(|(_, mounted)| beyond || mounted.rf == 1);
        let concerned: Vec<String> = concerned.map(|(name, _)| name.clone()).collect();
        if !concerned.is_empty() || !beyond {
            self.tainted = concerned;
        }
    }

    /// State of a drive; one that is to be removed and is not there is `away`.
    pub fn state_of(&self, uuid: &str) -> Option<String> {
        let status = self.engine.as_ref()?.status().ok()?;
        let drive = status.drives.into_iter().find(|drive| drive.uuid == uuid)?;
        Some(if drive.state == "draining" && !drive.reason.is_empty() {
            "away".to_owned()
        } else {
            drive.state
        })
    }

    pub fn active_drives(&self) -> usize {
        let drives = self.engine().status().map(|status| status.drives).unwrap_or_default();
        drives.iter().filter(|drive| drive.reason.is_empty()).count()
    }

    /// Drives that have to take copies, whatever the engine thinks of them: neither struck nor leaving the pool.
    fn sound_drives(&self) -> usize {
        let takes = |member: &&Member| {
            let state = self.state_of(&member.uuid);
            !member.struck && state.is_some_and(|state| state != "draining" && state != "away")
        };
        self.members.iter().filter(takes).count()
    }

    /// Who is who, after drives joined.
    pub fn learn_uuids(&mut self) {
        let Ok(status) = self.engine().status() else { return };
        for at in 0..self.members.len() {
            let name = holdfast_device::Drive::name(&self.members[at].drive);
            let here = |drive: &&holdfast_store::engine::DriveInfo| drive.path == name;
            let found = status.drives.iter().filter(here);
            let found = found.max_by_key(|drive| drive.reason.is_empty());
            // The copy of a drive that cannot be read now is there in its place. It stays what it is: somebody's copy.
            let another = found.is_some_and(|found| self.members.iter().any(|other| other.uuid == found.uuid));
            let member = &mut self.members[at];
            if let Some(found) = found
                && !another
            {
                let was_before = member.exchange == Exchange::Old && member.uuid != found.uuid;
                member.given_up |= was_before && found.state == "draining";
                member.uuid = found.uuid.clone();
                member.missed = false;
                member.exchange = Exchange::None;
            }
        }
    }

    pub fn count_struck(&self) -> usize {
        self.members.iter().filter(|member| member.struck).count()
    }

    pub fn struck(&self) -> bool {
        self.members.iter().any(|member| member.struck)
    }

    /// Two of three copies away, or what is left of a pool of two: `min_write_copies` stops writes, and fsync waits.
    pub fn too_thin(&self, rf: u8) -> bool {
        rf == 3 && (self.count_struck() > 1 || self.sound_drives() < 2)
    }

    /// Whether this error may come now; `rf` of the volume concerned, 0: the pool's own work.
    pub fn excuse(&mut self, what: &str, error: &Error, rf: u8) -> Verdict {
        self.say(format!("   {what}: {:?}: {error}", error.kind));
        if self.world.ended().is_some() {
            return Ok(());
        }
        let struck = self.count_struck();
        let excused = match error.kind {
            Kind::NoSpace => self.full || struck > 0 && rf == 0,
            Kind::Unavailable | Kind::Corrupt => self.shape.beyond || rf == 1 && struck > 0,
            Kind::Conflict | Kind::Invalid | Kind::Fenced => self.shape.beyond && struck > 0,
            _ => false,
        };
        if excused || error.kind == Kind::Unavailable && self.too_thin(rf) {
            return Ok(());
        }
        let check = match error.kind {
            Kind::Internal | Kind::Closed => Check::VagueError,
            Kind::Corrupt => Check::Unreadable,
            _ => Check::RefusedCall,
        };
        Err(Violation::new(check, format!("{what}: {:?}: {error}", error.kind)))
    }

    pub fn excuse_fs(&mut self, what: &str, error: &FsError, rf: u8) -> Verdict {
        match error {
            FsError::Store(error) => self.excuse(what, error, rf),
            FsError::NoSpace => self.excuse(what, &Error::no_space("ENOSPC"), rf),
            // The model chose a name that is not there, or the like: it never does.
            other => Err(Violation::new(Check::WrongBytes, format!("{what}: {other:?}"))),
        }
    }
}
