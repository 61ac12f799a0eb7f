//! Bytes in slots: log segments, single copies, tables. Durable writes in parallel; reads that are verified
//! and mend.

use super::Pool;
use super::placing::Purpose;
use super::publish::Change;
use super::report::count;
use crate::error::{Error, Kind, Result};
use crate::metadata::io::{Placed, TableIo};
use crate::mutants::mutant;
use holdfast_device::{Durability, Read, Source, Write};
use holdfast_format::{DomainLevel, GroupId, Protection, TableId};
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::manifest::Segment;
use holdfast_format::table::{SlotAddress, TableDesc};
use std::sync::atomic::Ordering;

/// Metadata has at least this many copies where there are as many domains.
const TABLE_COPIES_MIN: u8 = 2;

/// Where one write goes: offset in the slot, and what.
pub(super) type Piece<'a> = (u32, &'a [&'a [u8]]);

impl Pool {
    /// Writes pieces to every copy whose drive is active, all in parallel, durable. Returns the copies that
    /// have it all.
    /// Drives that failed are out, with m+1 durable, when this returns.
    pub(super) fn write_copies(
        &self,
        copies: &[SlotAddress],
        pieces: &[Piece<'_>],
    ) -> Result<Vec<SlotAddress>> {
        let done = self.write_sets(&[(copies, pieces)])?;
        Ok(done.into_iter().flatten().collect())
    }

    /// As [`Pool::write_copies`], several sets at once: for each the copies that have it all.
    fn write_sets(&self, sets: &[(&[SlotAddress], &[Piece<'_>])]) -> Result<Vec<Vec<SlotAddress>>> {
        self.check_writable()?;
        self.ensure_owner()?;
        let (mut writes, mut targets) = (Vec::new(), Vec::new());
        for (set, (copies, pieces)) in sets.iter().enumerate() {
            for copy in *copies {
                for (offset, slices) in *pieces {
                    let bytes = slices.iter().map(|slice| slice.len() as u64).sum::<u64>();
                    let place = self.disks[copy.drive as usize].place(copy.slot, *offset);
                    if let Some((drive, file, offset)) = place {
                        writes.push(Write { drive, file, offset, slices });
                        targets.push((set, *copy, bytes));
                    }
                }
            }
        }
        let mut done: Vec<Vec<SlotAddress>> = vec![Vec::new(); sets.len()];
        let mut failed: Vec<(u16, String)> = Vec::new();
        let results = holdfast_device::drive::write_durable(&writes);
        for ((set, copy, bytes), result) in targets.into_iter().zip(results) {
            let believed = result.is_err() && mutant!(BelieveRetriedFlush) && self.flush_again(copy.drive);
            match result {
                Err(error) if !believed => failed.push((copy.drive, format!("writing: {error}"))),
                _ => {
                    count(&self.counters.bytes_written, bytes);
                    if done[set].last() != Some(&copy) {
                        done[set].push(copy);
                    }
                }
            }
        }
        if !failed.is_empty() {
            let lost = |copy: &SlotAddress| failed.iter().any(|(drive, _)| *drive == copy.drive);
            done.iter_mut().for_each(|copies| copies.retain(|copy| !lost(copy)));
            self.put_out(failed)?;
        } else if done.iter().zip(sets).any(|(done, (copies, _))| done.len() < copies.len()) {
            // Somebody else is putting a drive out: m+1 is durable before anything counts that the drive missed.
            drop(self.journal.lock());
            self.check_writable()?;
        }
        Ok(done)
    }

    /// What nobody may believe (I-8); for the mutant.
    fn flush_again(&self, drive: u16) -> bool {
        self.disks[drive as usize].drive.as_ref().is_some_and(|drive| drive.flush().is_ok())
    }

    /// Writes slices, one after the other, at `offset` of the segment's slots; durable in parallel. A drive
    /// that fails is put out first, and what the segment holds is copied to another one, if there is one. Returns the
    /// number of durable copies: whether they are enough is the log's to say.
    ///
    /// Errors: `Unavailable` when there is none.
    pub fn write_segment(&self, segment: &Segment, offset: u32, slices: &[&[u8]]) -> Result<usize> {
        let done = self.write_copies(&segment.copies, &[(offset, slices)])?;
        let bytes: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
        count(&self.counters.bytes_logged, bytes * done.len() as u64);
        for copy in &done {
            self.disks[copy.drive as usize].log_tip.fetch_add(1, Ordering::AcqRel);
        }
        if done.is_empty() {
            let what = format!("pool {}: no copy of log segment {} is durable", self.name, segment.egroup);
            return Err(Error::new(Kind::Unavailable, what));
        }
        // Looked at after the writes: whoever copies the segment after a drive went out copies these bytes, too.
        if done.len() == segment.copies.len() && self.readable(&done).len() == done.len() {
            return Ok(done.len());
        }
        self.make_up(segment, offset, slices, done)
    }

    /// As [`Pool::write_segment`], for a segment that holds payload only. Where its last copy goes with a drive, the log
    /// goes on in a fresh one: what lay there is lost (its checksums say so), and nothing else is.
    pub fn write_payload(&self, segment: &Segment, offset: u32, slices: &[&[u8]]) -> Result<usize> {
        match self.write_segment(segment, offset, slices) {
            Err(error) if error.kind == Kind::Unavailable && self.check_writable().is_ok() => {
                let _one_at_a_time = self.restoring.lock();
                let (group, copies) = self.group_of_segment(segment)?;
                let mut readable = self.readable(&copies);
                if readable.is_empty() {
                    readable = self.begin_anew(group, segment)?;
                }
                let done = self.write_copies(&readable, &[(offset, slices)])?;
                if done.is_empty() { Err(error) } else { Ok(done.len()) }
            }
            other => other,
        }
    }

    /// Fresh slots for a segment with no copy on any drive that is in use, named by an edit before this returns.
    fn begin_anew(&self, group: GroupId, segment: &Segment) -> Result<Vec<SlotAddress>> {
        let mut fresh: Vec<SlotAddress> = Vec::new();
        while fresh.len() < segment.rf as usize {
            let Some(slot) = self.take_slot_apart(&fresh, self.domain_of_group(group)) else { break };
            fresh.push(slot);
        }
        if fresh.is_empty() {
            return Err(Error::no_space(format!("pool {}: no drive has room for a log segment", self.name)));
        }
        self.name_segment(group, segment, &fresh).inspect_err(|_| self.give_back(&fresh))?;
        Ok(fresh)
    }

    /// A drive was lost while a frame was written. Other frames of the segment are in flight, and may have moved it to other
    /// drives already: those get this frame, too, then what is still missing is copied.
    fn make_up(&self, segment: &Segment, offset: u32, slices: &[&[u8]], done: Vec<SlotAddress>) -> Result<usize> {
        let _one_at_a_time = self.restoring.lock();
        let (_, copies) = self.group_of_segment(segment)?;
        let missing: Vec<SlotAddress> =
            self.readable(&copies).into_iter().filter(|copy| !done.contains(copy)).collect();
        let mut whole = self.readable(&done);
        if !missing.is_empty() {
            whole.extend(self.write_copies(&missing, &[(offset, slices)])?);
        }
        let end = offset + slices.iter().map(|slice| slice.len() as u32).sum::<u32>();
        // Without room elsewhere it stays as it is.
        Ok(self.restore_segment_locked(segment, end).unwrap_or(whole.len()))
    }

    /// Makes the copies anew that an open segment has lost, of its first `bytes`; gives the number of copies then. Those
    /// on drives that are in use have everything that was written: a drive that failed a write is out.
    ///
    /// Crash order: 1. the content is durable in fresh slots; 2. one edit names them; a crash before that leaves the
    /// segment with the copies that it had.
    pub(crate) fn restore_segment(&self, segment: &Segment, bytes: u32) -> Result<usize> {
        let _one_at_a_time = self.restoring.lock();
        self.restore_segment_locked(segment, bytes)
    }

    fn restore_segment_locked(&self, segment: &Segment, bytes: u32) -> Result<usize> {
        let (group, copies) = self.group_of_segment(segment)?;
        let mut after: Vec<SlotAddress> = self.readable(&copies);
        let Some(source) = after.first().copied() else { return Ok(0) };
        let mut fresh = Vec::new();
        while after.len() < segment.rf as usize {
            let Some(slot) = self.take_slot_apart(&after, self.domain_of_group(group)) else { break };
            after.push(slot);
            fresh.push(slot);
        }
        if fresh.is_empty() {
            return Ok(after.len());
        }
        let mut content = vec![0; (bytes as usize).next_multiple_of(BLOCK_BYTES)];
        let published = self.read_copy(source, 0, &mut content).and_then(|()| {
            let done = self.write_copies(&fresh, &[(0, &[&content])])?;
            if done.len() < fresh.len() {
                return Err(Error::new(Kind::Unavailable, "another drive failed"));
            }
            self.name_segment(group, segment, &after)
        });
        published.inspect_err(|_| self.give_back(&fresh))?;
        count(&self.counters.copies_healed, fresh.len() as u64);
        count(&self.counters.bytes_healed, fresh.len() as u64 * content.len() as u64);
        Ok(after.len())
    }

    /// One edit: the segment lies in these slots from now on.
    fn name_segment(&self, group: GroupId, segment: &Segment, copies: &[SlotAddress]) -> Result<()> {
        let mut journal = self.journal.lock();
        let mut change = Change::new(self);
        change.move_segment(group, segment.egroup, copies)?;
        self.commit(&mut journal, change, &|| {})
    }

    /// Makes a part of a segment, which holds nothing yet, cheap to write on all its copies.
    pub fn prefill_segment(&self, segment: &Segment, offset: u32, bytes: u32) -> Result<()> {
        self.check_writable()?;
        let mut places = Vec::with_capacity(segment.copies.len());
        for copy in &segment.copies {
            if let Some((drive, file, offset)) = self.disk_of(*copy)?.place(copy.slot, offset) {
                places.push(Source { drive, file, offset });
            }
        }
        for result in holdfast_device::prefill(&places, bytes as u64) {
            result.map_err(|error| {
                Error::new(Kind::Unavailable, format!("making log segment {} ready: {error}", segment.egroup))
            })?;
        }
        Ok(())
    }

    /// One copy, as it is. For log recovery, which compares copies itself.
    pub fn read_copy(&self, copy: SlotAddress, offset: u32, into: &mut [u8]) -> Result<()> {
        let disk = self.disk_of(copy)?;
        let unavailable = |what: String| {
            Error::new(Kind::Unavailable, format!("{}: slot {}: {what}", disk.name(), copy.slot))
        };
        if offset as usize + into.len() > self.slot_bytes as usize {
            return Err(Error::new(
                Kind::Internal,
                format!("{} bytes at {offset} leave the slot", into.len()),
            ));
        }
        let (drive, file, at) =
            disk.place(copy.slot, offset).ok_or_else(|| unavailable("the drive is not in use".into()))?;
        drive.read(file, at, into).map_err(|error| {
            count(&self.counters.read_errors, 1);
            unavailable(error.to_string())
        })?;
        count(&self.counters.bytes_read, into.len() as u64);
        Ok(())
    }

    /// Parts of copies as they are, each from its offset in the slot on, all read at once.
    pub(super) fn read_pieces(&self, reads: Vec<(SlotAddress, u32, &mut [u8])>) -> Vec<Result<()>> {
        let mut results: Vec<Result<()>> = Vec::with_capacity(reads.len());
        let (mut asked, mut numbers) = (Vec::new(), Vec::new());
        for (number, (copy, offset, into)) in reads.into_iter().enumerate() {
            let place = self.disk_of(copy).map(|disk| disk.place(copy.slot, offset));
            if let Ok(Some((drive, file, offset))) = place {
                numbers.push((number, into.len() as u64));
                asked.push(Read { drive, file, offset, into });
            }
            let what = format!("drive {}: slot {} is not in use", copy.drive, copy.slot);
            results.push(place.and(Err(Error::new(Kind::Unavailable, what))));
        }
        for ((number, bytes), read) in numbers.into_iter().zip(holdfast_device::drive::read_at_once(asked)) {
            results[number] = read.map_err(|error| Error::new(Kind::Unavailable, error.to_string()));
            match &results[number] {
                Ok(()) => count(&self.counters.bytes_read, bytes),
                Err(_) => count(&self.counters.read_errors, 1),
            }
        }
        results
    }

    pub(super) fn disk_of(&self, copy: SlotAddress) -> Result<&super::disk::Disk> {
        let disk = self.disks.get(copy.drive as usize);
        disk.ok_or_else(|| Error::corrupt(format!("pool {}: there is no drive {}", self.name, copy.drive)))
    }

    /// Durable write of one copy of a segment: recovery mends it. A drive that fails is put out.
    pub fn write_copy(&self, copy: SlotAddress, offset: u32, bytes: &[u8]) -> Result<()> {
        let done = self.write_copies(&[copy], &[(offset, &[bytes])])?;
        if done.is_empty() {
            let name = self.disk_of(copy)?.name();
            return Err(Error::new(Kind::Unavailable, format!("{name}: slot {} was not written", copy.slot)));
        }
        count(&self.counters.repairs, 1);
        Ok(())
    }

    /// Rewrites verified bytes of a bad copy. Bytes around them, to the next block border, stay as they are
    /// there.
    /// False when that did not work; the next edit then puts the drive out.
    pub(super) fn mend(&self, copy: SlotAddress, offset: u32, right: &[u8]) -> bool {
        let block = BLOCK_BYTES as u32;
        let start = offset / block * block;
        let end = (offset as usize + right.len()).next_multiple_of(BLOCK_BYTES);
        let mut whole = vec![0; end - start as usize];
        let partial = start != offset || whole.len() != right.len();
        if partial && self.read_copy(copy, start, &mut whole).is_err() {
            return false;
        }
        whole[(offset - start) as usize..][..right.len()].copy_from_slice(right);
        let Some((drive, file, at)) = self.disks[copy.drive as usize].place(copy.slot, start) else {
            return false;
        };
        if self.check_writable().is_err() || !self.is_owner_now() {
            return false;
        }
        match drive.write(file, at, &[&whole], Durability::Durable) {
            Ok(()) => {
                count(&self.counters.repairs, 1);
                true
            }
            Err(error) => {
                self.suspect(copy.drive, format!("repairing: {error}"));
                false
            }
        }
    }

    /// Puts a drive out now, or with the next edit when the publish lock is held (maybe by this thread).
    pub(super) fn suspect(&self, drive: u16, reason: String) {
        self.suspects.lock().push((drive, reason));
        if let Some(mut journal) = self.journal.try_lock() {
            let failed = std::mem::take(&mut *self.suspects.lock());
            // An error means that no drive is left: `broken` says so to every later writer.
            let _broken = self.put_out_locked(&mut journal, failed);
        }
    }

    /// Writes sealed content into fresh slots. A drive that fails is out, and the whole content goes
    /// elsewhere.
    pub(super) fn write_sealed(&self, purpose: Purpose, pieces: &[Piece<'_>]) -> Result<Vec<SlotAddress>> {
        let placed = self.write_sealed_sets(purpose, &[pieces])?;
        Ok(placed.into_iter().flatten().collect())
    }

    /// As [`Pool::write_sealed`], several at once, each into slots of its own. On an error none of them is anywhere.
    pub(super) fn write_sealed_sets(
        &self,
        purpose: Purpose,
        sets: &[&[Piece<'_>]],
    ) -> Result<Vec<Vec<SlotAddress>>> {
        let mut placed: Vec<Vec<SlotAddress>> = vec![Vec::new(); sets.len()];
        let result = self.write_all_sealed(purpose, sets, &mut placed);
        if result.is_err() {
            placed.iter().for_each(|slots| self.give_back(slots));
        }
        result.map(|()| placed)
    }

    /// Also on an error `placed` holds what was taken.
    fn write_all_sealed(
        &self,
        purpose: Purpose,
        sets: &[&[Piece<'_>]],
        placed: &mut [Vec<SlotAddress>],
    ) -> Result<()> {
        loop {
            let open: Vec<usize> = (0..sets.len()).filter(|set| placed[*set].is_empty()).collect();
            if open.is_empty() {
                return Ok(());
            }
            for set in &open {
                placed[*set] = self.take_slots(purpose)?;
            }
            let wanted: Vec<(&[SlotAddress], &[Piece<'_>])> =
                open.iter().map(|set| (&placed[*set][..], sets[*set])).collect();
            let done = self.write_sets(&wanted)?;
            // Ends: each round takes place on drives that were active, and lost at least one.
            for (set, done) in open.into_iter().zip(done) {
                if done.len() < placed[set].len() {
                    self.give_back(&std::mem::take(&mut placed[set]));
                }
            }
        }
    }

    /// Of a fresh table: the highest RF and the widest domain of any group's, at least two copies where there are as many
    /// drives.
    pub(super) fn table_protection(&self) -> Protection {
        let wanted = self.rf_max.load(Ordering::Acquire).max(TABLE_COPIES_MIN);
        let rf = wanted.min(self.drives_accepting().max(1) as u8);
        let domain = self.group_domains.read().values().max().copied().unwrap_or_default();
        Protection { rf, domain }
    }

    /// How far apart the copies of a group's data are to be.
    pub fn domain_of_group(&self, group: GroupId) -> DomainLevel {
        self.group_domains.read().get(&group).copied().unwrap_or_default()
    }

    /// The widest domain that a volume of the group asks for, from now on.
    pub fn set_domain_of_group(&self, group: GroupId, domain: DomainLevel) {
        self.group_domains.write().insert(group, domain);
    }

    /// The most copies that the headers of a group have: tables get as many.
    pub fn set_rf_max(&self, rf: u8) {
        self.rf_max.store(rf, Ordering::Release);
    }

    /// A volume asks for so many copies: tables have no fewer from now on, and those that have get more.
    pub fn raise_rf_max(&self, rf: u8) {
        if self.rf_max.fetch_max(rf, Ordering::AcqRel) < rf {
            self.look_anew();
        }
    }
}

impl TableIo for Pool {
    fn slot_bytes(&self) -> usize {
        self.slot_bytes as usize
    }

    fn write_table(&self, bytes: &[u8]) -> Result<Placed> {
        if bytes.len() > self.slot_bytes as usize {
            return Err(Error::new(
                Kind::Internal,
                format!("a table of {} bytes leaves its slot", bytes.len()),
            ));
        }
        let padding = vec![0; bytes.len().next_multiple_of(BLOCK_BYTES) - bytes.len()];
        let Protection { rf, domain } = self.table_protection();
        let purpose = Purpose { rf, domain, draw: super::Draw::Upkeep };
        let copies = self.write_sealed(purpose, &[(0, &[bytes, &padding])])?;
        count(&self.counters.bytes_tables, (bytes.len() + padding.len()) as u64 * copies.len() as u64);
        Ok(Placed { id: TableId(self.new_egroup_id().0), copies })
    }

    fn read_table(
        &self,
        table: &TableDesc,
        offset: u32,
        into: &mut [u8],
        verify: &dyn Fn(&[u8]) -> bool,
    ) -> Result<()> {
        // Before the look-up: what lay there then is not reused while it is read.
        let _hold = self.hold();
        let moved = self.relocated.read().get(&table.id).cloned();
        self.read_slot(moved.as_ref().unwrap_or(&table.copies), offset, into, verify)
    }

    fn discard_table(&self, placed: &Placed) {
        self.give_back(&placed.copies);
    }
}
