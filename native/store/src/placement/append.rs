//! Writing the manifest: one record after the other, and the change to the other area when one is full.

use super::Pool;
use super::journal::Journal;
use super::report::count;
use super::superblocks::Beat;
use crate::error::{Error, Kind, Result};
use holdfast_device::{Source, Write};
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::manifest::{RecordHead, RecordKind, padded_bytes};
use std::sync::atomic::Ordering;

/// Bytes of the manifest that are made ready at a time.
const READY_STEP_BYTES: u64 = 256 << 10;

impl Pool {
    /// Appends a record, or starts the other area with a snapshot that ends in `body`. Returns the drives
    /// that failed.
    pub(super) fn write_record(&self, journal: &mut Journal, body: &[u8]) -> Result<Vec<(u16, String)>> {
        if let Some(reason) = &journal.broken {
            return Err(Error::new(
                Kind::Unavailable,
                format!("pool {}: nothing can be written: {reason}", self.name),
            ));
        }
        let padded = padded_bytes(body.len()) as u64;
        let drives = self.image.read().manifest_drives.clone();
        if journal.cursor + padded > self.area_bytes {
            return self.switch_area(journal, drives, body);
        }
        let head = RecordHead {
            kind: RecordKind::Edit,
            pool: self.uuid,
            generation: journal.generation,
            sequence: journal.sequence + 1,
            membership: journal.membership,
            previous: journal.chain,
            body_bytes: 0,
            checksum: 0,
        };
        let (record, checksum) = head.encode(body);
        self.make_ready(journal, &drives, padded);
        let failed = self.write_manifest(journal, &drives, journal.area, journal.cursor, &record)?;
        journal.sequence += 1;
        journal.chain = checksum;
        journal.cursor += padded;
        self.durable.store(journal.sequence, Ordering::Release);
        Ok(failed)
    }

    /// The first write into preallocated blocks waits for the file system's own journal: each time, where records are written one
    /// by one. So a step of zeroes goes before them, over what an earlier generation may have left. Nothing depends on it.
    fn make_ready(&self, journal: &mut Journal, drives: &[u16], bytes: u64) {
        let end = journal.cursor + bytes;
        if journal.ready.0 == journal.area && end <= journal.ready.1 {
            return;
        }
        let from = journal.area as u64 * self.area_bytes + journal.cursor;
        let step = bytes.max(READY_STEP_BYTES).min(self.area_bytes - journal.cursor);
        let manifests = drives.iter().filter_map(|index| self.disks[*index as usize].manifest());
        let places: Vec<Source<'_>> = manifests.map(|(drive, file)| Source { drive, file, offset: from }).collect();
        // A drive that failed this fails the record, too.
        drop(holdfast_device::prefill(&places, step));
        journal.ready = (journal.area, journal.cursor + step);
    }

    /// Starts the other area. Crash order:
    /// 1. the snapshot (the image, then `body`) is durable behind where the header will be;
    /// 2. the header, with a higher generation, is durable: from here on the new area counts;
    /// 3. the superblocks name the generation, so that a header that rots is missed, not passed over.
    pub(super) fn switch_area(
        &self,
        journal: &mut Journal,
        drives: Vec<u16>,
        body: &[u8],
    ) -> Result<Vec<(u16, String)>> {
        let mut snapshot = Vec::new();
        self.image.read().encode(&mut snapshot);
        snapshot.extend_from_slice(body);
        let padded = padded_bytes(snapshot.len()) as u64;
        if BLOCK_BYTES as u64 + padded > self.area_bytes {
            let (needed, area) = (padded >> 10, self.area_bytes >> 10);
            return Err(Error::no_space(format!(
                "pool {}: the manifest needs {needed} KiB, its areas have {area} KiB; delete groups or points",
                self.name
            )));
        }
        let area = 1 - journal.area;
        let head = |kind, previous| RecordHead {
            kind,
            pool: self.uuid,
            generation: journal.generation + 1,
            sequence: journal.sequence + 1,
            membership: journal.membership,
            previous,
            body_bytes: 0,
            checksum: 0,
        };
        let (header, header_sum) = head(RecordKind::Header, 0).encode(&self.instance.to_le_bytes());
        let (record, checksum) = head(RecordKind::Snapshot, header_sum).encode(&snapshot);
        let mut failed = self.write_manifest(journal, &drives, area, BLOCK_BYTES as u64, &record)?;
        let left: Vec<u16> =
            drives.into_iter().filter(|drive| failed.iter().all(|(bad, _)| bad != drive)).collect();
        failed.extend(self.write_manifest(journal, &left, area, 0, &header)?);
        journal.generation += 1;
        journal.sequence += 1;
        journal.chain = checksum;
        journal.area = area;
        journal.cursor = BLOCK_BYTES as u64 + padded;
        self.durable.store(journal.sequence, Ordering::Release);
        count(&self.counters.manifest_switches, 1);
        for (drive, reason) in self.write_superblocks(journal, Beat::All) {
            if failed.iter().all(|(other, _)| *other != drive) {
                failed.push((drive, reason));
            }
        }
        Ok(failed)
    }

    /// Durable write of one piece of the manifest on all its drives, in parallel. Fails when none took it.
    fn write_manifest(
        &self,
        journal: &mut Journal,
        drives: &[u16],
        area: u8,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Vec<(u16, String)>> {
        let slices = [bytes];
        let mut writes = Vec::new();
        let mut indices = Vec::new();
        for index in drives {
            if let Some((drive, file)) = self.disks[*index as usize].manifest() {
                let offset = area as u64 * self.area_bytes + offset;
                writes.push(Write { drive, file, offset, slices: &slices });
                indices.push(*index);
            }
        }
        let results = holdfast_device::drive::write_durable(&writes);
        let mut failed = Vec::new();
        for (index, result) in indices.iter().zip(results) {
            match result {
                Ok(()) => {
                    count(&self.counters.bytes_written, bytes.len() as u64);
                    count(&self.counters.bytes_manifest, bytes.len() as u64);
                }
                Err(error) => failed.push((*index, format!("writing the manifest: {error}"))),
            }
        }
        count(&self.counters.manifest_writes, 1);
        if failed.len() == indices.len() {
            let reason =
                failed.first().map_or("no manifest drive is left".to_owned(), |(_, reason)| reason.clone());
            self.broken.store(true, Ordering::Release);
            journal.broken = Some(reason.clone());
            return Err(Error::new(Kind::Unavailable, format!("pool {}: {reason}", self.name)));
        }
        Ok(failed)
    }
}
