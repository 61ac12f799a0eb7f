//! Which drives may break, how, and what is known of it. The planner never strikes more drives at a time than the
//! promise covers, unless the run is beyond promise.

use super::run::Run;
use super::step::StepName;
use super::violation::{Check, Verdict, Violation};
use holdfast_device::sim::{DriveImage, Fault, FaultId, FaultKind, Trigger};
use holdfast_device::{Drive, Rng, SimDrive};
use holdfast_format::Uuid;
use holdfast_format::superblock::{Mark, SUPERBLOCK_BYTES, Superblock};

/// Random bytes are made so many at a time.
const SCRIBBLED_BYTES: usize = 64 << 10;
const ENODEV: i32 = 19;
const ENOTCONN: i32 = 107;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FaultName {
    ReadError,
    WriteError,
    FlushError,
    TornWrite,
    LostWrite,
    MisdirectedWrite,
    MisdirectedRead,
    BitRotOnRead,
    RotAtRest,
    ScribbledSlab,
    Slow,
    Full,
    Vanish,
    SwapZeroes,
    SwapOld,
    SwapOther,
}

use FaultName as F;

impl FaultName {
    pub const ALL: [Self; 16] = [
        F::ReadError,
        F::WriteError,
        F::FlushError,
        F::TornWrite,
        F::LostWrite,
        F::MisdirectedWrite,
        F::MisdirectedRead,
        F::BitRotOnRead,
        F::RotAtRest,
        F::ScribbledSlab,
        F::Slow,
        F::Full,
        F::Vanish,
        F::SwapZeroes,
        F::SwapOld,
        F::SwapOther,
    ];

    pub fn text(self) -> String {
        format!("fault: {self:?}")
    }

    /// The armed fault; `None`: it is done at once.
    fn armed(self, rng: &mut Rng) -> Option<Fault> {
        let few = Trigger::Chance { numerator: 1, denominator: 2 + rng.below(12) };
        let once = Trigger::Nth(1 + rng.below(6));
        let often = if rng.chance(1, 2) { few } else { Trigger::Always };
        let (kind, trigger) = match self {
            F::ReadError => (FaultKind::ReadError, often),
            F::WriteError => (FaultKind::WriteError, once),
            F::FlushError => (FaultKind::FlushError, once),
            F::TornWrite => (FaultKind::TornWrite, few),
            F::LostWrite => (FaultKind::LostWrite, few),
            F::MisdirectedWrite => (FaultKind::MisdirectedWrite, few),
            F::MisdirectedRead => (FaultKind::MisdirectedRead, often),
            F::BitRotOnRead => (FaultKind::BitRot, few),
            // Too little for the drive to be set aside: that is for `tests/isolation.rs`.
            F::Slow => (FaultKind::Slow { delay_ns: 1_000_000 << rng.below(4) }, few),
            F::Full => (FaultKind::Full, Trigger::Always),
            F::Vanish => (
                FaultKind::Vanished { errno: if rng.chance(1, 2) { ENODEV } else { ENOTCONN } },
                Trigger::Always,
            ),
            F::RotAtRest | F::ScribbledSlab | F::SwapZeroes | F::SwapOld | F::SwapOther => return None,
        };
        Some(Fault { kind, file: None, range: None, trigger })
    }

    /// The drive that reports it can no longer be believed.
    fn fails_writes(self) -> bool {
        matches!(self, F::WriteError | F::FlushError)
    }
}

/// How a drive was exchanged, or that it was not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exchange {
    None,
    /// An older image of itself.
    Old,
    /// Nothing, or another drive's content: not this drive any more.
    Foreign,
}

/// A drive of the world, as the run sees it.
pub struct Member {
    pub drive: SimDrive,
    /// Named when the pool is opened.
    pub attached: bool,
    /// Uuid in the pool; empty before it joined.
    pub uuid: String,
    pub struck: bool,
    pub exchange: Exchange,
    /// Was out while something was promised to be durable: must not count again under this uuid.
    pub missed: bool,
    /// The place of another drive that holds all of it, since this one was exchanged: to the pool it has moved there.
    pub moved_to: Option<usize>,
    /// It is an image from before it was used anew, and the pool lets go of what it was then: nobody but an administrator adds it.
    pub given_up: bool,
    faults: Vec<(FaultName, FaultId, u64)>,
    old: Option<DriveImage>,
}

impl Member {
    pub fn new(drive: SimDrive) -> Self {
        Self {
            drive,
            attached: true,
            uuid: String::new(),
            struck: false,
            exchange: Exchange::None,
            missed: false,
            moved_to: None,
            given_up: false,
            faults: Vec::new(),
            old: None,
        }
    }

    pub fn remember(&mut self) {
        self.old = Some(self.drive.image());
    }

    /// Hits so far are not held against the engine.
    pub fn overlook(&mut self) {
        for (_, id, seen) in &mut self.faults {
            *seen = self.drive.fault_hits(*id);
        }
    }

    /// Lifts all faults. Damage that they have done stays.
    pub fn lift(&mut self) {
        self.drive.clear_faults();
        self.faults.clear();
    }
}

/// Which drive its superblock says it is, and how far.
fn signature_of(image: &DriveImage) -> Option<(Mark, Uuid)> {
    let slots = [0, 1].into_iter().filter_map(|slot| {
        let bytes = image.read("superblock", slot * SUPERBLOCK_BYTES as u64, SUPERBLOCK_BYTES)?;
        Superblock::decode(&bytes).ok().map(|block| (block.own, block.drive))
    });
    slots.max()
}

/// How far a drive's own superblock says it is.
fn mark_of(image: &DriveImage) -> Mark {
    signature_of(image).map(|(mark, _)| mark).unwrap_or_default()
}

impl Run {
    /// Drives that this round may strike.
    pub fn choose_victims(&mut self) -> Vec<usize> {
        let attached: Vec<usize> = (0..self.members.len()).filter(|at| self.members[*at].attached).collect();
        let limit = if self.shape.beyond { attached.len() } else { self.shape.limit() };
        let count = 1 + self.rng.below(limit as u64) as usize;
        let mut victims = Vec::new();
        while victims.len() < count.min(attached.len()) {
            let at = attached[self.rng.below(attached.len() as u64) as usize];
            if !victims.contains(&at) {
                victims.push(at);
            }
        }
        victims
    }

    /// Strikes a drive.
    pub fn inject(&mut self, at: usize, fault: FaultName) -> Verdict {
        let name = self.members[at].drive.name();
        if self.would_blind(at, fault) {
            return Ok(());
        }
        self.say(format!("-- {fault:?} on {name}"));
        self.members[at].struck = true;
        self.taint();
        self.full |= fault == F::Full;
        let mut rng = Rng::from_seed(self.rng.next_u64());
        if let Some(armed) = fault.armed(&mut rng) {
            let member = &mut self.members[at];
            let id = member.drive.add_fault(armed);
            member.faults.push((fault, id, 0));
            return Ok(());
        }
        match fault {
            F::RotAtRest => self.rot(at, &mut rng),
            F::ScribbledSlab => self.scribble(at, &mut rng)?,
            F::SwapOld => self.swap_old(at)?,
            _ => self.swap_foreign(at, fault),
        }
        self.coverage.add(&fault.text(), 1);
        Ok(())
    }

    /// Where reads fail an exchange cannot be recognised: the two do not come together.
    fn would_blind(&self, at: usize, fault: FaultName) -> bool {
        let blinds = |fault: FaultName| matches!(fault, F::ReadError | F::MisdirectedRead);
        let swaps = matches!(fault, F::SwapZeroes | F::SwapOld | F::SwapOther);
        let member = &self.members[at];
        swaps && member.faults.iter().any(|(name, _, _)| blinds(*name))
            || blinds(fault) && member.exchange != Exchange::None
    }

    fn rot(&mut self, at: usize, rng: &mut Rng) {
        let drive = &self.members[at].drive;
        let files = drive.files();
        let all = rng.chance(1, 4);
        for (file, bytes) in &files {
            let count = if all { bytes / 4096 } else { rng.below(40) };
            for block in 0..count {
                let block = if all { block } else { rng.below(bytes / 4096) };
                // Mostly what holds something: the front of the file.
                let block =
                    if !all && rng.chance(3, 4) { block % 512 } else { block } % (bytes / 4096).max(1);
                if drive.read_raw(file, block * 4096, 4096).is_some_and(|bytes| bytes.iter().any(|b| *b != 0))
                {
                    drive.flip_bit(file, block * 4096 + rng.below(4096), rng.below(8) as u8);
                }
            }
        }
    }

    /// Random bytes over every slot of a slab; sometimes a scrub mends them and the pool is closed and opened again.
    fn scribble(&mut self, at: usize, rng: &mut Rng) -> Verdict {
        let drive = &self.members[at].drive;
        let slabs: Vec<_> = drive.files().into_iter().filter(|(name, _)| name.starts_with("slab-")).collect();
        if slabs.is_empty() {
            return Ok(());
        }
        let (slab, bytes) = &slabs[if rng.chance(3, 4) { 0 } else { rng.below(slabs.len() as u64) as usize }];
        for offset in (0..*bytes).step_by(SCRIBBLED_BYTES) {
            let random: Vec<u8> = (0..SCRIBBLED_BYTES / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
            drive.write_raw(slab, offset, &random);
        }
        if self.engine.is_none() || !rng.chance(2, 3) {
            return Ok(());
        }
        for step in [StepName::Scrub, StepName::Close] {
            if self.engine.is_some() && self.world.ended().is_none() {
                self.step(step)?;
            }
        }
        Ok(())
    }

    fn swap_old(&mut self, at: usize) -> Verdict {
        let Some(old) = self.members[at].old.take() else { return Ok(()) };
        // An exchange takes longer than a heartbeat: the other drives know more of this one than its image does.
        self.heartbeat()?;
        if self.world.ended().is_some() || mark_of(&old) >= mark_of(&self.members[at].drive.image()) {
            return Ok(());
        }
        self.members[at].drive.restore(&old);
        self.members[at].exchange = Exchange::Old;
        self.notice_exchange(at)
    }

    fn swap_foreign(&mut self, at: usize, fault: FaultName) {
        let other = (at + 1) % self.members.len();
        let other = self.members[other].drive.image();
        let moved_to = self.twin_of(at);
        let member = &mut self.members[at];
        member.moved_to = moved_to;
        if fault == F::SwapOther {
            member.drive.restore(&other);
        } else {
            for (file, bytes) in member.drive.files() {
                member.drive.write_raw(&file, 0, &vec![0; bytes as usize]);
            }
        }
        member.exchange = Exchange::Foreign;
    }

    /// The drive that holds a copy of this one's content and is no older by all that the others know of it; or is newer, since
    /// the pool took it for this one while this one could not be read.
    fn twin_of(&self, at: usize) -> Option<usize> {
        let (own, uuid) = signature_of(&self.members[at].drive.image())?;
        let is_twin = |other: &usize| {
            let member = &self.members[*other];
            let signature = signature_of(&member.drive.image());
            *other != at && member.attached && signature.is_some_and(|(mark, of)| of == uuid && mark >= own)
        };
        (0..self.members.len()).find(is_twin)
    }

    /// A copy that the pool rightly takes for a drive that was exchanged is that drive from now on.
    pub fn follow_moves(&mut self) {
        let drives = self.engine().status().map(|status| status.drives).unwrap_or_default();
        for at in 0..self.members.len() {
            let Some(to) = self.members[at].moved_to else { continue };
            let place = self.members[to].drive.name();
            if drives.iter().any(|drive| drive.uuid == self.members[at].uuid && drive.path == place) {
                self.members[at].moved_to = None;
                let (uuid, missed) = (self.members[at].uuid.clone(), self.members[at].missed);
                self.members[at].uuid = std::mem::replace(&mut self.members[to].uuid, uuid);
                self.members[to].missed = missed;
                self.members[to].exchange = Exchange::None;
                let what = format!("   {} is in the place of {place} now", self.members[at].drive.name());
                self.say(what);
            }
        }
    }

    /// With some chance at once, else whenever the next heartbeat comes.
    fn notice_exchange(&mut self, at: usize) -> Verdict {
        if self.rng.chance(1, 2) || self.shape.beyond {
            return Ok(());
        }
        self.heartbeat()?;
        self.check_exchange(at)
    }

    /// After a heartbeat: an exchanged drive is out.
    pub fn check_exchange(&mut self, at: usize) -> Verdict {
        let member = &self.members[at];
        if member.exchange == Exchange::None || self.shape.beyond || self.world.ended().is_some() {
            return Ok(());
        }
        let (name, uuid) = (member.drive.name(), member.uuid.clone());
        if self.state_of(&uuid).is_some_and(|state| state == "active") {
            return Err(Violation::new(
                Check::ExchangeUnnoticed,
                format!("{name} was exchanged and is still active"),
            ));
        }
        self.coverage.road("an exchange was noticed");
        Ok(())
    }

    /// After each step: which faults have struck, and whether the engine has drawn its conclusions.
    pub fn watch(&mut self) -> Verdict {
        for at in (0..self.members.len()).filter(|_| self.world.ended().is_none()) {
            // The others know that it is out: no copy of it may count any more.
            if self.members[at].moved_to.is_some() && self.state_of(&self.members[at].uuid).as_deref() == Some("out") {
                self.members[at].moved_to = None;
            }
        }
        let mut failed = Vec::new();
        for at in 0..self.members.len() {
            let member = &mut self.members[at];
            let mut newly = false;
            for (name, id, seen) in &mut member.faults {
                let hits = member.drive.fault_hits(*id);
                if hits > *seen {
                    self.coverage.add(&name.text(), hits - *seen);
                    newly |= name.fails_writes();
                    *seen = hits;
                }
            }
            if newly {
                failed.push(at);
            }
        }
        if failed.is_empty() || self.world.ended().is_some() || self.engine.is_none() {
            return Ok(());
        }
        // A repair that failed while the manifest was being written is settled by the next edit.
        self.heartbeat()?;
        for at in failed {
            let uuid = self.members[at].uuid.clone();
            let state = self.state_of(&uuid);
            let last = self.shape.beyond || self.active_drives() < 2;
            if !last && self.world.ended().is_none() && state.as_deref() == Some("active") {
                let name = self.members[at].drive.name();
                return Err(Violation::new(
                    Check::FailedDriveBelieved,
                    format!("{name} failed a write and is active"),
                ));
            }
            self.coverage.road("a failed drive was out");
        }
        Ok(())
    }
}
