//! Opening: superblocks → newest manifest → tables → which slots are in use. Nothing is written before all of
//! it is
//! read and found to belong together.

use super::Pool;
use super::create::{Assembly, assemble};
use super::disk::{Disk, DiskSpec, Layout, MANIFEST_FILE};
use super::epochs::is_fork;
use super::journal::{Copy, Recovered, recover};
use super::owner::await_silence;
use super::report::count;
use super::superblocks::{Found, is_bare, read_slots};
use super::types::{DriveCondition, PoolOptions};
use crate::error::{Error, Kind, Result};
use crate::mutants::mutant;
use holdfast_device::{Drive, FileId};
use holdfast_format::egroup::EgroupState;
use holdfast_format::limits::MANIFEST_COPIES_MAX;
use holdfast_format::manifest::{DriveEntry, Item};
use holdfast_format::superblock::{Mark, Superblock};
use holdfast_format::table::SlotAddress;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A drive with a superblock that reads.
struct Member {
    drive: Arc<dyn Drive>,
    block: Superblock,
    /// Superblock slot to be written next.
    next_superblock: u8,
}

impl Member {
    fn manifest(&self, file: FileId) -> Copy<'_> {
        let (generation, instance) = (self.block.own.generation, self.block.instance);
        Copy { drive: &*self.drive, file, generation, instance }
    }
}

/// What the superblocks say.
#[derive(Default)]
struct Members {
    members: Vec<Member>,
    /// Older copies of some of them.
    copies: Vec<Member>,
    warnings: Vec<String>,
}

/// Reads all superblocks and refuses drives that do not belong together. Damaged ones are left out, with a
/// warning.
fn members(drives: Vec<Arc<dyn Drive>>) -> Result<Members> {
    let Members { mut members, mut copies, mut warnings } = Members::default();
    let mut strangers = Vec::new();
    for drive in drives {
        let path = drive.name();
        let (block, next_superblock) = match read_slots(&*drive) {
            Ok((Found::Valid(block), next)) => (*block, next),
            Ok((Found::None, _)) if !is_bare(&*drive)? => {
                return Err(Error::invalid(format!("drive {path} is in no pool")));
            }
            Ok((Found::None, _)) => {
                strangers.push(format!("drive {path} is in no pool"));
                continue;
            }
            Ok((Found::Newer(reason), _)) => {
                let what =
                    format!("drive {path} was written by a newer program ({reason}); nothing was changed");
                return Err(Error::new(Kind::Denied, what));
            }
            Ok((Found::Damaged(reason), _)) => {
                warnings.push(format!("drive {path} is left out, its superblock is damaged: {reason}"));
                continue;
            }
            Err(error) => {
                warnings.push(format!("drive {path} is left out: {error}"));
                continue;
            }
        };
        if let Some(first) = members.first()
            && first.block.pool != block.pool
        {
            let (one, two) = (&first.block.name, &block.name);
            let other = first.drive.name();
            return Err(Error::invalid(format!(
                "drive {other} is in pool {one}, drive {path} in pool {two}"
            )));
        }
        let member = Member { drive, block, next_superblock };
        match members.iter().position(|other| other.block.drive == member.block.drive) {
            Some(at) => {
                let old = choose_twin(&mut members[at], member)?;
                let (old_path, new_path) = (old.drive.name(), members[at].drive.name());
                let why = format!("it is an older copy of {new_path}; empty the directory to use it");
                warnings.push(format!("drive {old_path} is left out: {why}"));
                copies.push(old);
            }
            None => members.push(member),
        }
    }
    // An empty directory may be a mount point that waits for its drive: nothing is done to it.
    if members.is_empty() && !strangers.is_empty() {
        return Err(Error::invalid(strangers.remove(0)));
    }
    warnings.extend(strangers.into_iter().map(|what| format!("{what}: it is left out; add it, or mount what belongs there")));
    if members.is_empty() {
        let why = if warnings.is_empty() { "no drive was named".to_owned() } else { warnings.join("; ") };
        return Err(Error::invalid(format!("no pool to open: {why}")));
    }
    Ok(Members { members, copies, warnings })
}

/// Of two drives that say they are the same one, keeps the one that was written later and gives the other: it is an old
/// copy of it. Errors: `Invalid` when neither is older.
fn choose_twin(kept: &mut Member, mut other: Member) -> Result<Member> {
    let age = |member: &Member| (member.block.own, member.block.writes);
    if age(kept) == age(&other) {
        return Err(Error::invalid(format!(
            "{} and {} are the same drive {}: leave out the copy",
            kept.drive.name(),
            other.drive.name(),
            other.block.drive
        )));
    }
    if age(kept) < age(&other) {
        std::mem::swap(kept, &mut other);
    }
    Ok(other)
}

/// A copy that is only older has no epoch row that the pool does not have. One that was used apart has rows of its own, and
/// what was acknowledged under them is nowhere else: whose changes are given up is not for a program to choose.
fn refuse_forks(copies: &[Member], recovered: &Recovered, area_bytes: u64) -> Result<()> {
    for copy in copies {
        let file = copy.drive.open(MANIFEST_FILE).ok().flatten();
        let alone = file.and_then(|file| {
            recover(&[copy.manifest(file)], copy.block.pool, area_bytes, Mark::default()).ok()
        });
        let Some(alone) = alone else { continue };
        let forked = alone.image.groups.values().any(|group| {
            recovered.image.groups.get(&group.id).is_some_and(|known| is_fork(known, group))
        });
        if forked {
            let path = copy.drive.name();
            return Err(Error::new(
                Kind::Conflict,
                format!(
                    "drive {path} is a copy of drive {} that was used apart from it, or too old to tell: leave out the one \
                     whose changes are to be given up",
                    copy.block.drive
                ),
            ));
        }
    }
    Ok(())
}

/// What the other drives know of each.
fn known_marks(members: &[Member]) -> BTreeMap<u16, Mark> {
    let mut known: BTreeMap<u16, Mark> = BTreeMap::new();
    for (index, mark) in members.iter().flat_map(|member| &member.block.marks) {
        let best = known.entry(*index).or_default();
        *best = (*best).max(*mark);
    }
    known
}

/// Reads the manifest from all drives that are not behind what the others know of them.
fn read_manifest(members: &[Member], known: &BTreeMap<u16, Mark>) -> Result<Recovered> {
    let first = &members[0].block;
    let current =
        |member: &&Member| known.get(&member.block.index).is_none_or(|mark| member.block.own >= *mark);
    let floor = members.iter().map(|member| member.block.own).chain(known.values().copied());
    let floor = floor.max_by_key(|mark| (mark.generation, mark.sequence)).unwrap_or_default();
    let mut copies = Vec::new();
    for member in members.iter().filter(current) {
        if let Ok(Some(file)) = member.drive.open(MANIFEST_FILE) {
            copies.push(member.manifest(file));
        }
    }
    recover(&copies, first.pool, first.area_bytes, floor)
}

/// Whether a drive may be used, given what the manifest and the other drives say of it.
fn judge(
    entry: &DriveEntry,
    member: &Member,
    known: Option<&Mark>,
) -> Result<Option<(DriveCondition, String)>> {
    let own = member.block.own;
    if entry.absent_since != 0 && own.membership >= entry.absent_since {
        return Err(Error::new(
            Kind::Conflict,
            format!(
                "drive {} was used apart from the others since membership {}: open the pool without it, or only \
                 with it, and give up the changes of one side",
                member.drive.name(),
                entry.absent_since
            ),
        ));
    }
    if entry.out {
        let what =
            format!("it missed writes since membership {}; its content no longer counts", entry.absent_since);
        return Ok(Some((DriveCondition::Stale, what)));
    }
    match known {
        Some(mark) if own < *mark && !mutant!(DropMark) => Ok(Some((
            DriveCondition::Stale,
            format!(
                "an old image: it is at membership {}, manifest {}.{}, the others saw it at {}, {}.{}",
                own.membership, own.generation, own.sequence, mark.membership, mark.generation, mark.sequence
            ),
        ))),
        _ => Ok(None),
    }
}

fn disks(
    members: Vec<Member>,
    recovered: &Recovered,
    known: &BTreeMap<u16, Mark>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Disk>> {
    let (slot_bytes, area_bytes) = (members[0].block.slot_bytes, members[0].block.area_bytes);
    let mut present: BTreeMap<u16, Member> = BTreeMap::new();
    for member in members {
        let index = member.block.index;
        let uuid = recovered.image.drives.get(&index).map(|entry| entry.uuid);
        let retired = recovered.image.drives.get(&index).is_some_and(|entry| entry.bytes == 0);
        if uuid != Some(member.block.drive) || retired {
            let path = member.drive.name();
            warnings.push(format!("drive {path} is left out: it is not one of this pool any more; add it to use it anew"));
            continue;
        }
        present.insert(index, member);
    }
    let mut disks = Vec::with_capacity(recovered.image.drives.len());
    for (position, entry) in recovered.image.drives.values().enumerate() {
        if entry.index as usize != position {
            return Err(Error::corrupt(format!("the manifest has no drive {position}")));
        }
        let layout = Layout::new(entry.bytes, slot_bytes, area_bytes);
        let (index, uuid, domain, bytes) = (entry.index, entry.uuid, entry.domain.clone(), entry.bytes);
        let spec = DiskSpec { index, uuid, domain, bytes, layout };
        let Some(member) = present.remove(&entry.index) else {
            if entry.bytes == 0 {
                disks.push(Disk::unused(spec, None, DriveCondition::Out, "it was removed".to_owned()));
                continue;
            }
            let reason = format!("drive {uuid} is not among those that were named");
            let disk = Disk::unused(spec, None, DriveCondition::Missing, reason);
            // One that was given up leaves the pool, though it is away.
            disk.set_draining(entry.draining);
            disks.push(disk);
            continue;
        };
        disks.push(match judge(entry, &member, known.get(&entry.index))? {
            Some((condition, reason)) => Disk::set_aside(spec, member.drive, condition, reason),
            None => Disk::open(spec, member.drive, member.block.own.log_tip, member.next_superblock)?,
        });
        if let Some(disk) = disks.last() {
            disk.set_draining(entry.draining);
        }
    }
    Ok(disks)
}

/// Crash order: nothing is written but, at the end, a fresh manifest area (which also mends bad copies) and
/// the
/// superblocks; a crash between leaves the old area in charge.
pub(super) fn open(drives: Vec<Arc<dyn Drive>>, options: PoolOptions) -> Result<Arc<Pool>> {
    let Members { members, copies, mut warnings } = members(drives)?;
    let drives: Vec<_> = members.iter().map(|member| (&*member.drive, &member.block)).collect();
    await_silence(&drives, options.boot_id, &*options.clock)?;
    let known = known_marks(&members);
    let mut recovered = read_manifest(&members, &known)?;
    let block = &members[0].block;
    let (uuid, slot_bytes, area_bytes) = (block.pool, block.slot_bytes, block.area_bytes);
    refuse_forks(&copies, &recovered, area_bytes)?;
    recovered.journal.writes = members.iter().map(|member| member.block.writes).max().unwrap_or(0);
    recovered.journal.known = known.clone();
    for member in &members {
        let mark = recovered.journal.known.entry(member.block.index).or_default();
        *mark = (*mark).max(member.block.own);
    }
    let disks = disks(members, &recovered, &known, &mut warnings)?;
    if disks.iter().all(|disk| !disk.is_active()) {
        return Err(Error::new(
            Kind::Unavailable,
            format!("pool {}: no drive is usable", recovered.image.name),
        ));
    }
    let Recovered { image, journal, repaired } = recovered;
    let pool = assemble(Assembly { uuid, slot_bytes, area_bytes, disks, image, journal, warnings }, options);
    pool.mark_slots()?;
    pool.first_write()?;
    count(&pool.counters.repairs, repaired);
    Ok(pool)
}

impl Pool {
    /// Finds out which slots are in use: those of tables, of log segments, and of egroups.
    fn mark_slots(&self) -> Result<()> {
        let (tables, segments) = {
            let image = self.image.read();
            let tables = image.tables.values().flat_map(|tables| tables.values());
            let tables: Vec<(String, Vec<SlotAddress>)> =
                tables.map(|desc| (format!("table {}", desc.id), desc.copies.clone())).collect();
            let segments = image.groups.values().flat_map(|group| &group.segments);
            (tables, segments.map(|segment| segment.egroup).collect::<Vec<_>>())
        };
        for (name, copies) in tables {
            self.mark(&name, &copies)?;
        }
        let mut logs = 0;
        self.scan_egroups(holdfast_format::EgroupId(0), &mut |id, record| {
            self.mark(&format!("egroup {id}"), &record.copies)?;
            self.count_dead(&record);
            logs += (record.state == EgroupState::Log) as usize;
            if record.state != EgroupState::Log && record.live.is_empty() {
                self.emptied.lock().insert(id, 0);
            }
            Ok(true)
        })?;
        if logs != segments.len() {
            let what = format!("pool {}: {logs} log egroups, {} log segments", self.name, segments.len());
            return Err(Error::corrupt(what));
        }
        Ok(())
    }

    fn mark(&self, name: &str, copies: &[SlotAddress]) -> Result<()> {
        for copy in copies {
            let disk = self.disks.get(copy.drive as usize);
            if !disk.is_some_and(|disk| disk.mark_used(copy.slot)) {
                let (drive, slot) = (copy.drive, copy.slot);
                return Err(Error::corrupt(format!(
                    "pool {}: {name}: slot {slot} of drive {drive} does not exist or is in use twice",
                    self.name
                )));
            }
        }
        Ok(())
    }

    /// The opening snapshot: membership m+1 if a drive is newly away, drives that came back, manifest drives
    /// anew.
    fn first_write(&self) -> Result<()> {
        let mut journal = self.journal.lock();
        let mut items = Vec::new();
        let entries: Vec<DriveEntry> = self.image.read().drives.values().cloned().collect();
        let newly_away =
            |entry: &&DriveEntry| entry.absent_since == 0 && !self.disks[entry.index as usize].is_active();
        let went = entries.iter().any(|entry| newly_away(&entry));
        journal.membership += went as u64;
        for mut entry in entries {
            let (condition, _) = self.disks[entry.index as usize].condition();
            let before = entry.clone();
            if condition == DriveCondition::Active {
                entry.absent_since = 0;
            } else if entry.absent_since == 0 {
                entry.absent_since = journal.membership;
                entry.out = condition == DriveCondition::Stale;
            }
            if entry != before {
                items.push(Item::Drive(entry));
            }
        }
        let old = self.image.read().manifest_drives.clone();
        let drives = self.spread(&old, MANIFEST_COPIES_MAX);
        items.push(Item::ManifestDrives(drives.clone()));
        let mut body = Vec::new();
        items.iter().for_each(|item| item.encode(&mut body));
        {
            let mut image = self.image.write();
            items.into_iter().for_each(|item| image.apply(item));
        }
        let failed = self.switch_area(&mut journal, drives, &body)?;
        self.show_membership(&journal);
        self.put_out_locked(&mut journal, failed)
    }
}
