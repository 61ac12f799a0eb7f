//! New copies of what lies in slots: right content is put together and written into fresh slots, several things at a time.
//!
//! Crash order of [`Pool::make_copies`]:
//! 1. the content of all things of a step is written into fresh slots;
//! 2. every drive that was written to is flushed, once;
//! 3. one edit names the copies on drives that took their flush.
//!
//! Before 3 nothing has changed: what is to be done is found again.
//!
//! Invariants:
//! - A slot that was written is given back only after its drive was flushed: whoever takes it next believes what the file
//!   system says of its blocks (`device/src/real/settled.rs`).
//! - A drive that fails a write or the flush is out, and nothing of the step that lies on it is named (I-8).

use super::Pool;
use super::heal::Thing;
use super::heal_content::Content;
use super::publish::Change;
use super::report::count;
use crate::error::Result;
use holdfast_device::{AlignedBuffer, Durability};
use holdfast_format::egroup::{EgroupRecord, EgroupState};
use holdfast_format::TableId;
use holdfast_format::manifest::Item;
use holdfast_format::table::SlotAddress;
use std::collections::BTreeSet;

/// Makes room for others between two pieces of work.
pub trait Pace: Sync {
    /// Nobody else wants the drives.
    fn is_calm(&self) -> bool;
    /// Asked before `bytes` are read and before they are written. Waits for its turn; says how many of them may be moved
    /// by one call now: all, or whole blocks.
    fn admit(&self, bytes: usize) -> usize;
}

/// As fast as it goes.
pub struct Unpaced;

impl Pace for Unpaced {
    fn is_calm(&self) -> bool {
        true
    }
    fn admit(&self, bytes: usize) -> usize {
        bytes
    }
}

/// How a step of copying is done.
#[derive(Clone, Copy)]
pub struct Effort<'a> {
    /// Things under way at once while it is calm; one while it is not.
    pub workers: usize,
    /// Copies that it makes.
    pub slots: usize,
    pub pace: &'a dyn Pace,
}

impl Effort<'_> {
    /// A small step on the calling thread alone.
    pub fn small() -> Effort<'static> {
        Effort { workers: 1, slots: holdfast_format::limits::HEAL_SLOTS_PER_STEP, pace: &Unpaced }
    }
}

/// One thing with its new copies written, not published yet.
pub(super) struct Healed {
    pub thing: Thing,
    pub before: Vec<SlotAddress>,
    pub after: Vec<SlotAddress>,
    pub fresh: Vec<SlotAddress>,
    pub bytes: u64,
}

/// What one worker has before it.
pub(super) struct Desk<'a> {
    /// A slot's worth, aligned: it is read and written directly.
    pub bytes: AlignedBuffer,
    pub pace: &'a dyn Pace,
    /// Slots that were taken in vain.
    spoilt: Vec<SlotAddress>,
}

impl Pool {
    /// Does what `take` gives, until it gives nothing, several things at a time. Returns how many were done.
    pub(super) fn make_copies<Task: Send>(
        &self,
        effort: Effort<'_>,
        take: &(dyn Fn() -> Option<Task> + Sync),
        make: &(dyn Fn(Task, &mut Desk<'_>) -> Option<Healed> + Sync),
    ) -> Result<usize> {
        let work = |number: usize| {
            let bytes = AlignedBuffer::zeroed(self.slot_bytes as usize);
            let mut desk = Desk { bytes, pace: effort.pace, spoilt: Vec::new() };
            let mut made = Vec::new();
            while number == 0 || effort.pace.is_calm() {
                let Some(task) = take() else { break };
                made.extend(make(task, &mut desk));
            }
            (made, desk.spoilt)
        };
        let jobs: Vec<_> = (0..effort.workers).map(|number| move || work(number)).collect();
        let (mut made, mut spoilt) = (Vec::new(), Vec::new());
        for (of_one, in_vain) in holdfast_device::threads::run_parallel("holdfast-copy", jobs) {
            made.extend(of_one);
            spoilt.extend(in_vain);
        }
        let written = made.iter().flat_map(|healed| &healed.fresh).chain(&spoilt);
        let drives: BTreeSet<u16> = written.map(|slot| slot.drive).collect();
        let (flushed, outcome) = self.flush_drives(drives);
        self.give_back(&spoilt);
        let whole = |healed: &Healed| healed.fresh.iter().all(|slot| flushed.contains(&slot.drive));
        let (made, lost): (Vec<_>, Vec<_>) = made.into_iter().partition(whole);
        lost.iter().for_each(|healed| self.give_back(&healed.fresh));
        if let Err(error) = outcome {
            made.iter().for_each(|healed| self.give_back(&healed.fresh));
            return Err(error);
        }
        let things = made.len();
        self.publish_healed(made)?;
        Ok(things)
    }

    /// The drives that took the flush. Those that did not are out when it returns.
    fn flush_drives(&self, drives: BTreeSet<u16>) -> (BTreeSet<u16>, Result<()>) {
        let here: Vec<_> = drives
            .into_iter()
            .filter_map(|index| {
                let disk = &self.disks[index as usize];
                Some((index, disk.drive.as_deref().filter(|_| disk.is_active())?))
            })
            .collect();
        let asked: Vec<_> = here.iter().map(|(_, drive)| *drive).collect();
        let (mut flushed, mut failed) = (BTreeSet::new(), Vec::new());
        for ((index, _), result) in here.iter().zip(holdfast_device::drive::flush_all(&asked)) {
            match result {
                Ok(()) => drop(flushed.insert(*index)),
                Err(error) => failed.push((*index, format!("flushing: {error}"))),
            }
        }
        let outcome = if failed.is_empty() { Ok(()) } else { self.put_out(failed) };
        (flushed, outcome)
    }

    /// Writes content into fresh slots; false, and the slots are taken care of, when a drive failed. Not durable before
    /// [`Pool::make_copies`] is over.
    pub(super) fn write_fresh(&self, fresh: &[SlotAddress], content: &Content, desk: &mut Desk<'_>) -> Result<bool> {
        let end = self.slot_bytes - content.footer.len() as u32;
        let pieces: [(u32, &[u8]); 2] = [(0, &desk.bytes[..content.length]), (end, &content.footer)];
        let mut written = Ok(true);
        for (copy, (offset, bytes)) in fresh.iter().flat_map(|copy| pieces.iter().map(move |piece| (*copy, *piece))) {
            written = self.write_unflushed(copy, offset, bytes, desk.pace);
            if !matches!(written, Ok(true)) {
                desk.spoilt.extend(fresh);
                break;
            }
        }
        written
    }

    fn write_unflushed(&self, copy: SlotAddress, offset: u32, bytes: &[u8], pace: &dyn Pace) -> Result<bool> {
        let mut done = 0;
        while done < bytes.len() {
            let piece = pace.admit(bytes.len() - done);
            self.check_writable()?;
            self.ensure_owner()?;
            let place = self.disks[copy.drive as usize].place(copy.slot, offset + done as u32);
            let Some((drive, file, at)) = place else { return Ok(false) };
            if let Err(error) = drive.write(file, at, &[&bytes[done..done + piece]], Durability::Cached) {
                self.put_out(vec![(copy.drive, format!("writing: {error}"))])?;
                return Ok(false);
            }
            count(&self.counters.bytes_written, piece as u64);
            done += piece;
        }
        Ok(true)
    }

    /// As [`Pool::read_copy`] from an offset in the slot, piece by piece.
    pub(super) fn read_paced(
        &self,
        (copy, offset): (SlotAddress, u32),
        into: &mut [u8],
        pace: &dyn Pace,
    ) -> Result<()> {
        let mut done = 0;
        while done < into.len() {
            let piece = pace.admit(into.len() - done);
            self.read_copy(copy, offset + done as u32, &mut into[done..done + piece])?;
            done += piece;
        }
        Ok(())
    }

    /// One edit for all: location changes only. What was changed or removed meanwhile stays as it is.
    fn publish_healed(&self, done: Vec<Healed>) -> Result<()> {
        if done.is_empty() {
            return Ok(());
        }
        let mut journal = self.journal.lock();
        let mut change = Change::new(self);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        let mut tables = Vec::new();
        let mut related = Ok(());
        for healed in &done {
            match change.relocate(healed, &mut tables) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    related = Err(error);
                    break;
                }
            }
            let dropped = healed.before.iter().filter(|copy| !healed.after.contains(copy));
            change.freed.extend(dropped);
            taken.extend(&healed.fresh);
            bytes += healed.bytes;
        }
        let name = |tables: &[(TableId, Vec<SlotAddress>)]| {
            let mut relocated = self.relocated.write();
            if self.oldest_hold() == u64::MAX {
                let image = self.image.read();
                relocated.retain(|id, _| image.tables.values().any(|tables| tables.contains_key(id)));
            }
            relocated.extend(tables.iter().cloned());
        };
        let result = related.and_then(|()| self.commit(&mut journal, change, &|| name(&tables)));
        for healed in &done {
            let unused = healed.fresh.iter().copied().filter(|slot| result.is_err() || !taken.contains(slot));
            self.give_back(&unused.collect::<Vec<_>>());
        }
        result?;
        count(&self.counters.copies_healed, taken.len() as u64);
        count(&self.counters.bytes_healed, bytes);
        Ok(())
    }
}

impl Change<'_> {
    /// Names the new copies; false when the thing is gone or lies elsewhere by now.
    fn relocate(&mut self, healed: &Healed, tables: &mut Vec<(TableId, Vec<SlotAddress>)>) -> Result<bool> {
        match healed.thing {
            Thing::Table(owner, id) => {
                let Some(mut desc) = self.pool.table(owner, id).filter(|desc| desc.copies == healed.before)
                else {
                    return Ok(false);
                };
                desc.copies = healed.after.clone();
                tables.push((id, desc.copies.clone()));
                self.items.push(Item::Table(desc));
            }
            Thing::Egroup(id) => {
                let same = |record: &&mut EgroupRecord| {
                    record.state == EgroupState::Data && record.copies == healed.before
                };
                let Some(record) = self.egroup(id)?.filter(same) else { return Ok(false) };
                record.copies = healed.after.clone();
            }
        }
        Ok(true)
    }
}
