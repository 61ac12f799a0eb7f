//! Simulated drives: in memory, seeded, with one order of events for all drives of a world.
//!
//! - Each drive has two images: *pristine* is what a faultless drive would hold, *actual* is what this one holds.
//!   Without faults they are equal. Hiding the damage makes reads come from the pristine image, so that a test can
//!   tell bytes that were lost from bytes that a fault hid.
//! - Readers see what was written at once, as through a page cache. What of it a power cut would leave is the
//!   business of the trace ([`SimWorld::start_trace`]) and its enumeration ([`Trace::crash_states`]).
//! - Everything follows from the seed and the order of calls.

mod clock;
mod crash;
mod fault;
mod image;
mod power;
mod reading;
mod state;
#[cfg(test)]
mod tests;
mod trace;

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::drive::{Drive, DriveSpace, Durability, FileId, Write};
pub use reading::{read_each, read_first};
use crate::names::check_name;
use crate::rng::Rng;
pub use clock::SimClock;
pub use crash::{CrashKind, CrashOptions, CrashState, CrashStates};
use fault::Call;
pub use fault::{Fault, FaultId, FaultKind, Trigger};
use image::BLOCK_BYTES;
pub use image::{Content, DriveImage};
pub use power::AtEnd;
use power::{Digest, Power};
use state::{DriveState, os_error};
use trace::DriveLabel;
pub use trace::{Event, Landed, Trace};

/// Several drives and a clock. Clones share the same world.
#[derive(Clone)]
pub struct SimWorld {
    state: Arc<Mutex<WorldState>>,
    clock: SimClock,
}

struct WorldState {
    rng: Rng,
    drives: Vec<DriveState>,
    /// `None`: not recording.
    trace: Option<Trace>,
    /// The next durable set was under way together with the one before it.
    join_next: bool,
    cheap: bool,
    power: Power,
    /// `None`: not wanted.
    digest: Option<Digest>,
}

/// One drive of a [`SimWorld`]. Clones are the same drive.
#[derive(Clone)]
pub struct SimDrive {
    world: SimWorld,
    index: usize,
}

impl SimWorld {
    pub fn new(seed: u64) -> Self {
        let state = WorldState {
            rng: Rng::from_seed(seed),
            drives: Vec::new(),
            trace: None,
            join_next: false,
            cheap: true,
            power: Power::default(),
            digest: None,
        };
        Self { state: Arc::new(Mutex::new(state)), clock: SimClock::default() }
    }

    /// A new, empty drive on a disk of its own. Not while a trace is recorded.
    pub fn add_drive(&self, name: &str, capacity_bytes: u64) -> SimDrive {
        let mut state = self.state.lock();
        assert!(state.trace.is_none(), "drives are added before the trace starts");
        let index = state.drives.len();
        let seed = state.rng.next_u64();
        let label = DriveLabel { name: name.to_owned(), capacity_bytes, disk_id: index as u64 };
        state.drives.push(DriveState::new(label, seed));
        SimDrive { world: self.clone(), index }
    }

    /// The drives, in the order in which they were added.
    pub fn drives(&self) -> Vec<SimDrive> {
        let count = self.state.lock().drives.len();
        (0..count).map(|index| SimDrive { world: self.clone(), index }).collect()
    }

    /// The world's time: slow calls move it.
    pub fn clock(&self) -> SimClock {
        self.clock.clone()
    }

    /// Records from now on. All that the drives hold now counts as durable: flush first.
    pub fn start_trace(&self) {
        let mut state = self.state.lock();
        let labels = state.drives.iter().map(|drive| drive.label.clone()).collect();
        let base = state.drives.iter().map(|drive| drive.actual.clone()).collect();
        state.trace = Some(Trace { labels, base, events: Vec::new() });
    }

    /// Notes in the trace that the program got somewhere: acknowledged an op, reached a step.
    pub fn mark(&self, name: &'static str, value: u64) {
        self.state.lock().record(Event::Mark { name, value });
    }

    /// Whether drives say that overwriting is cheap everywhere (so at first), or nowhere: then logs are made ready with
    /// zeroes.
    pub fn set_cheap(&self, cheap: bool) {
        self.state.lock().cheap = cheap;
    }

    /// The next event, if it is a durable write right after another one, counts as having been under way together with
    /// it: what two threads do at the same time.
    pub fn join_next(&self) {
        self.state.lock().join_next = true;
    }

    /// Ends the recording. `None`: there was none.
    pub fn take_trace(&self) -> Option<Trace> {
        self.state.lock().trace.take()
    }

    /// A copy of the trace so far, which goes on.
    pub fn trace(&self) -> Option<Trace> {
        self.state.lock().trace.clone()
    }

    fn with<T>(&self, index: usize, act: impl FnOnce(&mut WorldState, usize) -> T) -> T {
        act(&mut self.state.lock(), index)
    }
}

impl WorldState {
    /// The last write of a run, unless the drive would not have taken it at all.
    fn land_if_sound(&mut self, kind: CrashKind, index: usize, (file, offset): (FileId, u64), content: &Content) {
        let drive = &mut self.drives[index];
        let range = offset..offset.saturating_add(content.len());
        let Ok((name, _)) = drive.place(file, &range) else { return };
        if !drive.faults.is_away() {
            self.land_last(kind, index, &name, offset, content);
        }
    }

    fn record(&mut self, event: Event) {
        self.digest_event(&event);
        let joins = std::mem::take(&mut self.join_next);
        let Some(trace) = &mut self.trace else { return };
        match (trace.events.last_mut(), event) {
            (Some(Event::Durable(before)), Event::Durable(set)) if joins => before.extend(set),
            (_, event) => trace.events.push(event),
        }
    }
}

impl SimDrive {
    /// A drive with this content in a world of its own.
    pub fn from_image(name: &str, capacity_bytes: u64, image: &DriveImage, seed: u64) -> Self {
        let drive = SimWorld::new(seed).add_drive(name, capacity_bytes);
        drive.restore(image);
        drive
    }

    pub fn world(&self) -> &SimWorld {
        &self.world
    }

    fn inspect<T>(&self, act: impl FnOnce(&mut DriveState) -> T) -> T {
        self.world.with(self.index, |state, index| act(&mut state.drives[index]))
    }

    /// As `inspect`, for the calls of a program: they fail when the run has ended.
    fn answer<T>(&self, act: impl FnOnce(&mut DriveState) -> io::Result<T>) -> io::Result<T> {
        self.world.with(self.index, |state, index| {
            state.check_power()?;
            act(&mut state.drives[index])
        })
    }

    /// What the drive holds now, damage included. Cheap.
    pub fn image(&self) -> DriveImage {
        self.inspect(|drive| drive.actual.clone())
    }

    /// Another drive is in this one's place, such as an old image of itself (row 3). Not while a trace is recorded.
    pub fn restore(&self, image: &DriveImage) {
        self.world.with(self.index, |state, index| {
            assert!(state.trace.is_none(), "a trace cannot follow a drive that is exchanged");
            let drive = &mut state.drives[index];
            drive.actual = image.clone();
            drive.pristine = image.clone();
            drive.forget(None);
        });
    }

    pub fn set_disk_id(&self, disk_id: u64) {
        self.inspect(|drive| drive.label.disk_id = disk_id);
    }

    pub fn add_fault(&self, fault: Fault) -> FaultId {
        self.inspect(|drive| drive.faults.add(fault))
    }

    /// Lifts a fault. Damage that it has done stays.
    pub fn remove_fault(&self, id: FaultId) {
        self.inspect(|drive| drive.faults.remove(id));
    }

    pub fn clear_faults(&self) {
        self.inspect(|drive| drive.faults.clear());
    }

    /// How often a fault has struck; 0 after it was lifted.
    pub fn fault_hits(&self, id: FaultId) -> u64 {
        self.inspect(|drive| drive.faults.hits(id))
    }

    /// True: reads answer as if no fault had ever damaged anything.
    pub fn hide_damage(&self, hidden: bool) {
        self.inspect(|drive| drive.damage_hidden = hidden);
    }

    /// Blocks that hold other bytes than a faultless drive would, by file, in bytes.
    pub fn damage(&self) -> Vec<(String, Range<u64>)> {
        self.inspect(|drive| drive.pristine.differences(&drive.actual))
    }

    /// Rots one bit. No event of the trace.
    pub fn flip_bit(&self, file: &str, offset: u64, bit: u8) {
        self.inspect(|drive| drive.actual.flip_bit(file, offset, bit));
    }

    /// Reads past all faults. `None`: no such file or range.
    pub fn read_raw(&self, file: &str, offset: u64, bytes: usize) -> Option<Vec<u8>> {
        self.inspect(|drive| drive.actual.read(file, offset, bytes))
    }

    /// Overwrites as a stranger would (`dd` over the drive). Damage: no event of the trace. Misses: no such file.
    pub fn write_raw(&self, file: &str, offset: u64, bytes: &[u8]) {
        let content = Content::Bytes(Arc::from(bytes));
        self.inspect(|drive| drive.actual.write(file, offset, &content, 0..content.len()));
    }

    /// Names and lengths, sorted.
    pub fn files(&self) -> Vec<(String, u64)> {
        self.inspect(|drive| drive.actual.files())
    }

    /// A read that takes its time by this clock.
    fn read_by(&self, clock: &SimClock, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.world.with(self.index, |state, index| {
            state.check_power()?;
            let bytes = into.len();
            let result = state.drives[index].read(clock, file, offset, into);
            state.digest_read(index, (file.0, offset, bytes), &result);
            result
        })
    }

    fn change(&self, file: FileId, offset: u64, content: Content, durability: Durability) -> io::Result<()> {
        let clock = &self.world.clock;
        self.world.with(self.index, |state, index| {
            state.check_power()?;
            if let Some(kind) = state.ends_now() {
                state.land_if_sound(kind, index, (file, offset), &content);
                return state.check_power();
            }
            let durable = durability == Durability::Durable;
            let (result, landed) = state.drives[index].land(clock, (index, durable), file, offset, content);
            if let Some(landed) = landed {
                state.record(match (durability, &result) {
                    (Durability::Cached, _) => Event::Cached(landed),
                    (Durability::Durable, Ok(())) => Event::Durable(vec![landed]),
                    (Durability::Durable, Err(_)) => Event::Failed(landed),
                });
            }
            result
        })
    }
}

fn join(slices: &[&[u8]]) -> Content {
    match slices.iter().flat_map(|slice| slice.iter()).all(|byte| *byte == 0) {
        true => Content::Zeroes(slices.iter().map(|slice| slice.len() as u64).sum()),
        false => Content::Bytes(Arc::from(slices.concat())),
    }
}

/// Writes to drives of one world that are under way together: a crash takes or leaves each independently.
pub fn write_durable(writes: &[Write<'_>]) -> Vec<io::Result<()>> {
    write_durable_timed(writes).into_iter().map(|(result, _)| result).collect()
}

/// And how long each took, in virtual time.
pub fn write_durable_timed(writes: &[Write<'_>]) -> Vec<(io::Result<()>, u64)> {
    let Some(first) = writes.first().and_then(|write| write.drive.as_sim()) else { return Vec::new() };
    let mut state = first.world.state.lock();
    let ends = match state.check_power() {
        Ok(()) => state.ends_now(),
        Err(_) => return writes.iter().map(|_| (state.check_power(), 0)).collect(),
    };
    let (mut results, mut set, mut failed) = (Vec::with_capacity(writes.len()), Vec::new(), Vec::new());
    for write in writes {
        let Some(drive) =
            write.drive.as_sim().filter(|drive| Arc::ptr_eq(&drive.world.state, &first.world.state))
        else {
            let reason = "a parallel set of simulated writes stays in one world";
            results.push((Err(io::Error::new(ErrorKind::InvalidInput, reason)), 0));
            continue;
        };
        let content = join(write.slices);
        let block = BLOCK_BYTES as u64;
        if !write.offset.is_multiple_of(block) || !content.len().is_multiple_of(block) {
            let reason = format!("{} bytes at {} are not aligned to {block}", content.len(), write.offset);
            results.push((Err(io::Error::new(ErrorKind::InvalidInput, reason)), 0));
            continue;
        }
        let index = drive.index;
        if let Some(kind) = ends {
            state.land_if_sound(kind, index, (write.file, write.offset), &content);
            results.push((state.check_power(), 0));
            continue;
        }
        let clock = &first.world.clock;
        let begun_ns = clock.boottime_ns();
        let (result, landed) = state.drives[index].land(clock, (index, true), write.file, write.offset, content);
        let list = if result.is_ok() { &mut set } else { &mut failed };
        list.extend(landed);
        results.push((result, clock.boottime_ns() - begun_ns));
    }
    failed.into_iter().for_each(|landed| state.record(Event::Failed(landed)));
    if !set.is_empty() {
        state.record(Event::Durable(set));
    }
    results
}

impl Drive for SimDrive {
    fn name(&self) -> String {
        self.inspect(|drive| drive.label.name.clone())
    }

    fn create(&self, file: &str, bytes: u64) -> io::Result<FileId> {
        check_name(file)?;
        let clock = &self.world.clock;
        self.world.with(self.index, |state, index| {
            state.check_power()?;
            if state.ends_now().is_some() {
                return Err(os_error(libc::EIO));
            }
            let drive = &mut state.drives[index];
            drive.strike(clock, Call::Create, Some((file, &(0..bytes))))?;
            if drive.actual.bytes(file).is_some() {
                return Err(io::Error::new(
                    ErrorKind::AlreadyExists,
                    format!("{}/{file} exists", drive.label.name),
                ));
            }
            if drive.actual.used_bytes().saturating_add(bytes) > drive.label.capacity_bytes {
                return Err(os_error(libc::ENOSPC));
            }
            let name: Arc<str> = Arc::from(file);
            drive.actual.create(Arc::clone(&name), bytes);
            drive.pristine.create(Arc::clone(&name), bytes);
            let id = drive.admit(file);
            state.record(Event::Create { drive: index, file: name, bytes });
            Ok(id)
        })
    }

    fn open(&self, file: &str) -> io::Result<Option<FileId>> {
        check_name(file)?;
        let clock = &self.world.clock;
        self.answer(|drive| {
            drive.strike(clock, Call::Other, None)?;
            Ok(drive.actual.bytes(file).map(|_| drive.admit(file)))
        })
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        check_name(file)?;
        let clock = &self.world.clock;
        self.world.with(self.index, |state, index| {
            state.check_power()?;
            if state.ends_now().is_some() {
                return Err(os_error(libc::EIO));
            }
            let drive = &mut state.drives[index];
            drive.strike(clock, Call::Other, None)?;
            if drive.actual.bytes(file).is_none() {
                return Err(ErrorKind::NotFound.into());
            }
            drive.actual.remove(file);
            drive.pristine.remove(file);
            drive.forget(Some(file));
            for slot in drive.files.iter_mut().filter(|slot| slot.as_deref() == Some(file)) {
                *slot = None;
            }
            state.record(Event::Remove { drive: index, file: Arc::from(file) });
            Ok(())
        })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let clock = &self.world.clock;
        self.answer(|drive| {
            drive.strike(clock, Call::Other, None)?;
            Ok(drive.actual.files().into_iter().map(|(name, _)| name).collect())
        })
    }

    fn bytes(&self, file: FileId) -> io::Result<u64> {
        let clock = &self.world.clock;
        self.answer(|drive| {
            drive.strike(clock, Call::Other, None)?;
            let name = drive.file(file)?;
            Ok(drive.actual.bytes(&name).unwrap_or(0))
        })
    }

    fn read(&self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.read_by(&self.world.clock, file, offset, into)
    }

    fn write(&self, file: FileId, offset: u64, slices: &[&[u8]], durability: Durability) -> io::Result<()> {
        self.change(file, offset, join(slices), durability)
    }

    fn flush(&self) -> io::Result<()> {
        let clock = &self.world.clock;
        self.world.with(self.index, |state, index| {
            state.check_power()?;
            if state.drives[index].strike(clock, Call::Flush, None)?.contains(&FaultKind::FlushError) {
                state.record(Event::FlushFailed { drive: index });
                return Err(os_error(libc::EIO));
            }
            state.record(Event::Flush { drive: index });
            Ok(())
        })
    }

    /// As the world says: [`SimWorld::set_cheap`].
    fn is_cheap(&self, file: FileId, offset: u64, bytes: u64) -> io::Result<bool> {
        let clock = &self.world.clock;
        self.world.with(self.index, |state, index| {
            let name = state.drives[index].file(file)?;
            state.drives[index].strike(clock, Call::Other, Some((&name, &(offset..offset + bytes))))?;
            Ok(state.cheap)
        })
    }

    fn space(&self) -> io::Result<DriveSpace> {
        let clock = &self.world.clock;
        self.answer(|drive| {
            drive.strike(clock, Call::Other, None)?;
            let total_bytes = drive.label.capacity_bytes;
            let free = total_bytes.saturating_sub(drive.actual.used_bytes());
            let free_bytes = if drive.faults.is_full() { 0 } else { free };
            Ok(DriveSpace { total_bytes, free_bytes, disk_id: drive.label.disk_id })
        })
    }

    /// One program at a time is simulated: it holds the lock.
    fn lock_identity(&self) -> Option<(u64, u64)> {
        self.inspect(|drive| Some((drive.label.disk_id + 1, drive.lock)))
    }

    fn as_sim(&self) -> Option<&SimDrive> {
        Some(self)
    }
}

impl SimDrive {
    /// Somebody removed the lock file and made it anew: whoever held it knows nothing of that.
    pub fn replace_lock(&self) {
        self.inspect(|drive| drive.lock += 1);
    }
}
