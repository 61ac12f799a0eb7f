//! The end of a run at a chosen moment: the power is cut, or the process is killed, while a change is under way.
//!
//! From that moment on every call fails and nothing changes any more, until [`SimWorld::restore_power`]: whatever the
//! program still does is what a dead one does not do.
//!
//! - A change under way when power is cut: each member of a parallel set is there, absent, or torn at 512 bytes.
//! - When the process is killed each member is there or was never sent: drives finish what they were given.
//! - Bytes whose durable write failed are decided by a power cut: they may be gone.

use std::io;

use super::crash::CrashKind;
use super::image::{Content, hash_bytes, mix};
use super::trace::{Event, Landed, event_hash};
use super::{SimWorld, WorldState};
use crate::rng::Rng;

const SECTOR_BYTES: u64 = 512;

/// Called in the moment of the end, before anything else: takes a copy of what outlives the process.
pub type AtEnd = Box<dyn FnMut() + Send>;

/// When and how the run ends.
#[derive(Default)]
pub(super) struct Power {
    /// Kind, and how many changes are left, the one under way at the end included.
    planned: Option<(CrashKind, u64)>,
    ended: Option<CrashKind>,
    at_end: Option<AtEnd>,
}

/// A running sum over everything that happened, for runs that are too long to keep.
#[derive(Clone, Copy, Default)]
pub(super) struct Digest {
    pub(super) sum: u64,
    pub(super) events: u64,
}

impl Digest {
    fn add(&mut self, value: u64) {
        self.sum = mix(self.sum.rotate_left(7) ^ value);
        self.events += 1;
    }
}

/// What becomes of a write that is under way at the end.
fn fate(kind: CrashKind, rng: &mut Rng, whole: u64) -> u64 {
    match (kind, rng.below(3)) {
        (_, 0) => 0,
        (CrashKind::Power, 1) => rng.below(whole / SECTOR_BYTES + 1) * SECTOR_BYTES,
        _ => whole,
    }
}

impl WorldState {
    /// Fails when the run has ended.
    pub(super) fn check_power(&self) -> io::Result<()> {
        match self.power.ended {
            Some(_) => Err(io::Error::other("the run has ended: nothing reaches this drive any more")),
            None => Ok(()),
        }
    }

    /// A change begins. True: the run ends while it is under way.
    pub(super) fn ends_now(&mut self) -> Option<CrashKind> {
        let (kind, left) = self.power.planned.as_mut()?;
        *left -= 1;
        if *left > 0 {
            return None;
        }
        let kind = *kind;
        self.end(kind);
        Some(kind)
    }

    fn end(&mut self, kind: CrashKind) {
        self.power.planned = None;
        self.power.ended = Some(kind);
        if let Some(at_end) = &mut self.power.at_end {
            at_end();
        }
        if kind == CrashKind::Power {
            for at in 0..self.drives.len() {
                self.drives[at].decide();
            }
        }
    }

    /// Lands as much of a write as its fate says. Nobody hears of it.
    pub(super) fn land_last(
        &mut self,
        kind: CrashKind,
        index: usize,
        file: &str,
        offset: u64,
        content: &Content,
    ) {
        let part = fate(kind, &mut self.rng, content.len());
        if part == 0 {
            return;
        }
        let content = content.prefix(part);
        let drive = &mut self.drives[index];
        drive.pristine.write(file, offset, &content, 0..part);
        drive.actual.write(file, offset, &content, 0..part);
        self.record(Event::Failed(Landed { drive: index, file: file.into(), offset, content }));
    }

    pub(super) fn digest_event(&mut self, event: &Event) {
        if let Some(digest) = &mut self.digest {
            digest.add(event_hash(event));
        }
    }

    pub(super) fn digest_read(&mut self, drive: usize, place: (u32, u64, usize), result: &io::Result<()>) {
        if let Some(digest) = &mut self.digest {
            let (file, offset, bytes) = place;
            let answer = result.as_ref().err().map_or(0, |error| error.raw_os_error().unwrap_or(-1) as u64);
            digest.add(mix(drive as u64 ^ mix(file as u64 ^ mix(offset ^ mix(bytes as u64 ^ mix(answer))))));
        }
    }
}

impl SimWorld {
    /// The run ends while the `changes`-th change (write, creation, removal; a parallel set is one) from now is under way.
    pub fn end_after(&self, kind: CrashKind, changes: u64) {
        self.state.lock().power.planned = (changes > 0).then_some((kind, changes));
    }

    /// The run ends between two calls.
    pub fn end_now(&self, kind: CrashKind) {
        self.state.lock().end(kind);
    }

    pub fn at_end(&self, at_end: AtEnd) {
        self.state.lock().power.at_end = Some(at_end);
    }

    /// How the run has ended; `None`: it goes on.
    pub fn ended(&self) -> Option<CrashKind> {
        self.state.lock().power.ended
    }

    /// The drives answer again. An end that was planned and has not come is off.
    pub fn restore_power(&self) {
        let mut state = self.state.lock();
        (state.power.planned, state.power.ended) = (None, None);
    }

    /// Sums up every call that reaches a drive from now on.
    pub fn start_digest(&self) {
        self.state.lock().digest = Some(Digest::default());
    }

    /// A note of the program in the sum.
    pub fn digest_note(&self, note: &str) {
        if let Some(digest) = &mut self.state.lock().digest {
            digest.add(hash_bytes(9, note.as_bytes()));
        }
    }

    /// The sum so far and how many calls and notes it is of. Equal for equal runs.
    pub fn digest(&self) -> (u64, u64) {
        let digest = self.state.lock().digest.unwrap_or_default();
        (digest.sum, digest.events)
    }

    /// The drives as they are, in a world of their own without faults: what is done there changes nothing here.
    pub fn fork(&self, seed: u64) -> SimWorld {
        let world = SimWorld { clock: self.clock.fork(), ..SimWorld::new(seed) };
        let state = self.state.lock();
        for drive in &state.drives {
            let copy = world.add_drive(&drive.label.name, drive.label.capacity_bytes);
            copy.restore(&drive.actual);
            copy.set_disk_id(drive.label.disk_id);
        }
        drop(state);
        world
    }
}
