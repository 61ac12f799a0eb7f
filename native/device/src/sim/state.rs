//! One drive of a world: its images, its open files, and what its faults make of a call.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;

use super::clock::SimClock;
use super::fault::{Call, FaultKind, Faults};
use super::image::{BLOCK_BYTES, Content, DriveImage, whole_blocks};
use super::trace::{DriveLabel, Landed};
use crate::drive::FileId;
use crate::rng::Rng;

const SECTOR_BYTES: u64 = 512;

pub(super) struct DriveState {
    pub(super) label: DriveLabel,
    pub(super) pristine: DriveImage,
    pub(super) actual: DriveImage,
    /// By [`FileId`]; `None` after removal.
    pub(super) files: Vec<Option<Arc<str>>>,
    pub(super) faults: Faults,
    pub(super) damage_hidden: bool,
    /// Number of the lock file.
    pub(super) lock: u64,
    /// What durable writes that failed have overwritten, until it is durably written over: a power cut decides.
    undecided: Vec<(Arc<str>, u64, Vec<u8>)>,
}

pub(super) fn os_error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// A multiple of 4 KiB, not `offset`, where `bytes` fit into the file. `None`: there is no other.
fn elsewhere(rng: &mut Rng, offset: u64, bytes: u64, file_bytes: u64) -> Option<u64> {
    let places = file_bytes.checked_sub(bytes)? / BLOCK_BYTES as u64 + 1;
    let own = offset.is_multiple_of(BLOCK_BYTES as u64).then_some(offset / BLOCK_BYTES as u64);
    let others = places - u64::from(own.is_some_and(|own| own < places));
    (others > 0).then(|| {
        let chosen = rng.below(others);
        let skip = u64::from(own.is_some_and(|own| chosen >= own));
        (chosen + skip) * BLOCK_BYTES as u64
    })
}

impl DriveState {
    pub(super) fn new(label: DriveLabel, seed: u64) -> Self {
        Self {
            label,
            pristine: DriveImage::default(),
            actual: DriveImage::default(),
            files: Vec::new(),
            faults: Faults::new(seed),
            damage_hidden: false,
            lock: 1,
            undecided: Vec::new(),
        }
    }

    /// Takes the faults that fail any call, and the delays; gives the rest.
    pub(super) fn strike(
        &mut self,
        clock: &SimClock,
        call: Call,
        place: Option<(&str, &Range<u64>)>,
    ) -> io::Result<Vec<FaultKind>> {
        let mut rest = Vec::new();
        for kind in self.faults.strike(call, place) {
            match kind {
                FaultKind::Slow { delay_ns } => clock.advance(delay_ns),
                FaultKind::Vanished { errno } => return Err(os_error(errno)),
                FaultKind::Full => return Err(os_error(libc::ENOSPC)),
                FaultKind::ReadError => return Err(os_error(libc::EIO)),
                other => rest.push(other),
            }
        }
        Ok(rest)
    }

    pub(super) fn file(&self, file: FileId) -> io::Result<Arc<str>> {
        let found = self.files.get(file.0 as usize).cloned().flatten();
        // A restored image may lack the file.
        found.filter(|name| self.actual.bytes(name).is_some()).ok_or_else(|| {
            io::Error::new(ErrorKind::NotFound, format!("{}: {file:?} is not open", self.label.name))
        })
    }

    pub(super) fn admit(&mut self, name: &str) -> FileId {
        let known = self.files.iter().position(|file| file.as_deref() == Some(name));
        let index = known.unwrap_or_else(|| {
            self.files.push(Some(Arc::from(name)));
            self.files.len() - 1
        });
        FileId(index as u32)
    }

    /// Checks the range; gives name and length of the file.
    pub(super) fn place(&self, file: FileId, range: &Range<u64>) -> io::Result<(Arc<str>, u64)> {
        let name = self.file(file)?;
        let bytes = self.actual.bytes(&name).unwrap_or(0);
        if range.start > range.end || range.end > bytes {
            let reason = format!("{name}: bytes {range:?} do not fit into {bytes}");
            return Err(io::Error::new(ErrorKind::InvalidInput, reason));
        }
        Ok((name, bytes))
    }

    /// Power is cut: what failed to become durable is there or not.
    pub(super) fn decide(&mut self) {
        for (name, offset, before) in std::mem::take(&mut self.undecided).into_iter().rev() {
            if self.faults.rng.chance(1, 2) {
                let content = Content::Bytes(Arc::from(before));
                self.pristine.write(&name, offset, &content, 0..content.len());
                self.actual.write(&name, offset, &content, 0..content.len());
            }
        }
    }

    /// What is durably written now is what a power cut gives back, too.
    fn settle(&mut self, file: &str, offset: u64, content: &Content) {
        for (_, start, before) in self.undecided.iter_mut().filter(|(name, _, _)| **name == *file) {
            let from = offset.max(*start);
            let until = (offset + content.len()).min(*start + before.len() as u64);
            if from >= until {
                continue;
            }
            let into = &mut before[(from - *start) as usize..(until - *start) as usize];
            match content {
                Content::Bytes(bytes) => {
                    into.copy_from_slice(&bytes[(from - offset) as usize..(until - offset) as usize]);
                }
                Content::Zeroes(_) => into.fill(0),
            }
        }
    }

    /// A file is gone, or all that was there.
    pub(super) fn forget(&mut self, file: Option<&str>) {
        self.undecided.retain(|(name, _, _)| file.is_some_and(|file| **name != *file));
    }

    /// Writes, as the faults let it. Gives the answer to the caller and what reached the disk.
    pub(super) fn land(
        &mut self,
        clock: &SimClock,
        (drive, durable): (usize, bool),
        file: FileId,
        offset: u64,
        content: Content,
    ) -> (io::Result<()>, Option<Landed>) {
        let range = offset..offset.saturating_add(content.len());
        let placed = self.place(file, &range);
        let struck = placed.and_then(|(name, file_bytes)| {
            let call = if durable { Call::Durable } else { Call::Write };
            let kinds = self.strike(clock, call, Some((&name, &range)))?;
            Ok((name, file_bytes, kinds))
        });
        let (name, file_bytes, kinds) = match struck {
            Ok(struck) => struck,
            Err(error) => return (Err(error), None),
        };
        let whole = content.len();
        if kinds.is_empty() {
            // What both images hold is made once.
            let blocks = whole_blocks(offset, &content);
            self.pristine.write_shared(&name, offset, &content, &blocks, 0..whole);
            self.actual.write_shared(&name, offset, &content, &blocks, 0..whole);
            if durable {
                self.settle(&name, offset, &content);
            }
            let landed = (whole > 0).then_some(Landed { drive, file: name, offset, content });
            return (Ok(()), landed);
        }
        let mut landed = Some((offset, content.clone()));
        let mut result = Ok(());
        // A fault set earlier wins over later ones.
        for kind in kinds.into_iter().rev() {
            let rng = &mut self.faults.rng;
            let sectors = whole / SECTOR_BYTES;
            match kind {
                FaultKind::LostWrite => landed = None,
                FaultKind::TornWrite => {
                    landed = Some((offset, content.prefix(rng.below(sectors.max(1)) * SECTOR_BYTES)));
                }
                FaultKind::MisdirectedWrite => {
                    landed = elsewhere(rng, offset, whole, file_bytes).map(|at| (at, content.clone()));
                }
                FaultKind::WriteError => {
                    landed = Some((offset, content.prefix(rng.below(sectors + 1) * SECTOR_BYTES)));
                    result = Err(os_error(libc::EIO));
                }
                FaultKind::FlushError => {
                    let mut before = vec![0; whole as usize];
                    self.actual.read_into(&name, offset, &mut before);
                    self.undecided.push((Arc::clone(&name), offset, before));
                    result = Err(os_error(libc::EIO));
                }
                _ => {}
            }
        }
        match (&result, &landed) {
            // Not acknowledged: a faultless drive has no better bytes than this one.
            (Err(_), Some((at, part))) => self.pristine.write(&name, *at, part, 0..part.len()),
            (Err(_), None) => {}
            (Ok(()), _) => self.pristine.write(&name, offset, &content, 0..whole),
        }
        let landed = landed.filter(|(_, part)| !part.is_empty()).map(|(at, part)| {
            self.actual.write(&name, at, &part, 0..part.len());
            if durable && result.is_ok() {
                self.settle(&name, at, &part);
            }
            Landed { drive, file: name, offset: at, content: part }
        });
        (result, landed)
    }

    pub(super) fn read(
        &mut self,
        clock: &SimClock,
        file: FileId,
        offset: u64,
        into: &mut [u8],
    ) -> io::Result<()> {
        let range = offset..offset.saturating_add(into.len() as u64);
        let (name, file_bytes) = self.place(file, &range).map_err(|error| match error.kind() {
            ErrorKind::InvalidInput => io::Error::new(ErrorKind::UnexpectedEof, error),
            _ => error,
        })?;
        let mut from = offset;
        for kind in self.strike(clock, Call::Read, Some((&name, &range)))? {
            let rng = &mut self.faults.rng;
            match kind {
                FaultKind::BitRot if !into.is_empty() => {
                    let (at, bit) = (offset + rng.below(into.len() as u64), rng.below(8) as u8);
                    self.actual.flip_bit(&name, at, bit);
                }
                FaultKind::MisdirectedRead => {
                    from = elsewhere(rng, offset, into.len() as u64, file_bytes).unwrap_or(offset);
                }
                _ => {}
            }
        }
        if self.damage_hidden {
            self.pristine.read_into(&name, offset, into);
        } else {
            self.actual.read_into(&name, from, into);
        }
        Ok(())
    }
}
