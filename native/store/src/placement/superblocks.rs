//! Superblocks: what a drive says of itself and of the others; who may be opened together (FAULTS 3, 34, 36,
//! 37).

use super::disk::{Disk, MANIFEST_FILE, SUPERBLOCK_FILE, drive_error};
use super::health::Health;
use super::owner::holder_of;
use super::types::ProbeInfo;
use super::{Journal, Pool};
use crate::error::Result;
use holdfast_device::{Drive, Write};
use holdfast_format::DecodeError;
use holdfast_format::limits::MARKS_MAX;
use holdfast_format::superblock::{Mark, RO_COMPAT_KNOWN, SUPERBLOCK_BYTES, Superblock};
use std::sync::atomic::Ordering;

/// Whose superblocks are written, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beat {
    /// The sign of life of each second. Drives that are slow are left out: nobody waits for them. What the others know of
    /// them stays what is durable there.
    Fast,
    /// A change that every drive has to know.
    All,
    /// The pool is closed.
    Last,
}

/// What the superblock file of a drive holds.
pub(super) enum Found {
    None,
    Valid(Box<Superblock>),
    Newer(String),
    Damaged(String),
}

/// Reads both slots; the one written last counts.
pub(super) fn read(drive: &dyn Drive) -> Result<Found> {
    Ok(read_slots(drive)?.0)
}

/// The superblock that counts, and the slot that it does not lie in: the next one to be written.
pub(super) fn read_slots(drive: &dyn Drive) -> Result<(Found, u8)> {
    let Some(file) =
        drive.open(SUPERBLOCK_FILE).map_err(|e| drive_error(drive, "opening the superblock", &e))?
    else {
        return Ok((Found::None, 0));
    };
    let slots = [0, 1].map(|slot| {
        let mut bytes = vec![0; SUPERBLOCK_BYTES];
        drive.read(file, slot * SUPERBLOCK_BYTES as u64, &mut bytes).map(|()| bytes)
    });
    Ok(newest(slots))
}

/// Of the two slots the one that was written last, and which to write next.
pub(super) fn newest(slots: [std::io::Result<Vec<u8>>; 2]) -> (Found, u8) {
    let mut best: Option<(Superblock, u8)> = None;
    let mut reason = "both copies are bad".to_owned();
    for (slot, bytes) in (0u8..).zip(slots) {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                reason = error.to_string();
                continue;
            }
        };
        match Superblock::decode(&bytes) {
            Ok(found) if found.ro_compat & !RO_COMPAT_KNOWN != 0 => {
                let reason = format!("read-only features {:#x}", found.ro_compat & !RO_COMPAT_KNOWN);
                return (Found::Newer(reason), 0);
            }
            Ok(found) => {
                if best.as_ref().is_none_or(|(best, _)| found.writes > best.writes) {
                    best = Some((found, 1 - slot));
                }
            }
            Err(DecodeError::Unsupported(bits)) => {
                return (Found::Newer(format!("version or features {bits:#x}")), 0);
            }
            Err(error) => reason = error.to_string(),
        }
    }
    match best {
        Some((best, next)) => (Found::Valid(Box::new(best)), next),
        None => (Found::Damaged(reason), 0),
    }
}

/// Files that do not make a directory "not empty": what mkfs leaves, and our own lock.
fn is_ignored(file: &str) -> bool {
    matches!(file, "lost+found" | "lock")
}

/// Whether the directory is empty, but for what adding a drive leaves behind when it is cut short.
pub(super) fn is_bare(drive: &dyn Drive) -> Result<bool> {
    let files = drive.list().map_err(|error| drive_error(drive, "listing", &error))?;
    Ok(files.iter().all(|file| is_ignored(file) || file == MANIFEST_FILE))
}

pub(super) fn probe(drive: &dyn Drive) -> Result<ProbeInfo> {
    Ok(match read(drive)? {
        Found::Valid(block) => ProbeInfo::Member {
            name: block.name,
            pool: block.pool,
            drive: block.drive,
            index: block.index,
            drives: block.drives,
            open: block.open,
            instance: block.instance,
            beat: block.beat,
            written_s: block.written_s,
        },
        Found::Newer(reason) => ProbeInfo::Newer { reason },
        Found::Damaged(reason) => ProbeInfo::Damaged { reason },
        Found::None => {
            let files = drive.list().map_err(|error| drive_error(drive, "listing", &error))?;
            match files.iter().find(|file| !is_ignored(file)) {
                None => ProbeInfo::Empty,
                Some(file) if file == MANIFEST_FILE => {
                    ProbeInfo::Foreign { reason: "an unfinished pool creation; empty the directory".into() }
                }
                Some(file) => ProbeInfo::Foreign { reason: format!("not empty: it holds {file}") },
            }
        }
    })
}

fn own_mark(journal: &Journal, disk: &Disk) -> Mark {
    Mark {
        membership: journal.membership,
        generation: journal.generation,
        sequence: journal.sequence,
        log_tip: disk.log_tip.load(Ordering::Acquire),
    }
}

impl Pool {
    /// Superblock of `index` as it should be now. `open`: the pool is in use.
    pub(super) fn superblock_of(&self, journal: &Journal, disk: &Disk, open: bool) -> Superblock {
        let index = disk.index;
        // It may be on its way into the pool.
        let count = self.disks.len().max(index as usize + 1);
        let others = (1..count).map(|step| ((index as usize + step) % count) as u16).take(MARKS_MAX);
        Superblock {
            compat: 0,
            ro_compat: 0,
            incompat: self.features(),
            writes: journal.writes,
            pool: self.uuid,
            drive: disk.uuid,
            index,
            drives: count as u16,
            slot_bytes: self.slot_bytes,
            bytes: disk.bytes,
            area_bytes: self.area_bytes,
            slab_bytes: disk.layout.slab_slots as u64 * self.slot_bytes as u64,
            own: own_mark(journal, disk),
            instance: self.instance,
            beat: journal.beat,
            written_s: self.clock.wall().0,
            open,
            manifest_drives: self.image.read().manifest_drives.clone(),
            name: self.name.clone(),
            domain: disk.label().to_string(),
            marks: others.filter_map(|other| Some((other, *journal.known.get(&other)?))).collect(),
            holder: disk.drive.as_ref().map(|drive| holder_of(&**drive, self.boot_id)).unwrap_or_default(),
        }
    }

    /// Writes the superblocks of all active drives; returns those that failed. On each drive:
    ///
    /// 1. The slot that does not count now: the drive's own mark is new; those of the others are what was durable
    ///    on them before.
    /// 2. The other slot: the marks of the others are new, too, now that they are durable there.
    ///
    /// So a mark never promises what its drive does not have, each slot alone says how far its drive is, and a
    /// write that is torn never takes the newest superblock away (after a crash between 1 and 2, which slot that
    /// is differs from drive to drive).
    ///
    /// A drive that holds another one's superblock, or an older one, was exchanged: it keeps what it has, and failed.
    pub(super) fn write_superblocks(&self, journal: &mut Journal, beat: Beat) -> Vec<(u16, String)> {
        let found = match beat {
            Beat::All => self.exchanged_now(journal),
            // Whoever beats has just looked.
            Beat::Fast | Beat::Last => Ok(Vec::new()),
        };
        // Pushed aside by another program: `fenced` says so to every later call, and its superblocks stay.
        let Ok(mut failed) = found else { return Vec::new() };
        let open = beat != Beat::Last;
        let any_good = self.disks.iter().any(Disk::prefers);
        let spared = |disk: &Disk| beat == Beat::Fast && any_good && disk.pulse.health() != Health::Good;
        for _step in 0..2 {
            journal.writes += 1;
            let blocks: Vec<(u16, Mark, Vec<u8>)> = (0..self.disks.len() as u16)
                .filter(|index| self.disks[*index as usize].is_active() && !spared(&self.disks[*index as usize]))
                .filter(|index| failed.iter().all(|(other, _)| other != index))
                .map(|index| {
                    let block = self.superblock_of(journal, &self.disks[index as usize], open);
                    (index, block.own, block.encode())
                })
                .collect();
            let slices: Vec<[&[u8]; 1]> = blocks.iter().map(|(_, _, block)| [block.as_slice()]).collect();
            let mut writes = Vec::new();
            let mut written = Vec::new();
            for ((index, own, _), slices) in blocks.iter().zip(&slices) {
                let disk = &self.disks[*index as usize];
                if let Some((drive, file)) = disk.superblock() {
                    let slot = disk.next_superblock.load(Ordering::Acquire);
                    writes.push(Write { drive, file, offset: slot as u64 * SUPERBLOCK_BYTES as u64, slices });
                    written.push((*index, *own));
                }
            }
            let results = holdfast_device::drive::write_durable_timed(&writes);
            for ((index, own), (result, ns)) in written.into_iter().zip(results) {
                self.disks[index as usize].pulse.wrote(ns);
                match result {
                    Ok(()) => {
                        let disk = &self.disks[index as usize];
                        disk.next_superblock.fetch_xor(1, Ordering::AcqRel);
                        disk.signed.store(true, Ordering::Release);
                        journal.known.insert(index, own);
                        journal.written.insert(index, journal.writes);
                    }
                    Err(error) => failed.push((index, format!("writing the superblock: {error}"))),
                }
            }
        }
        failed
    }
}
