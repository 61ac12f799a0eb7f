//! The newest changes of a group, in memory: every version that is not yet in a table.
//!
//! Invariants:
//! - Stamps of one key never go back: `insert` is called in LSN order.
//! - Of two versions of a key with no kept point between them only the newer one stays. Pieces (PARTIAL
//!   cells) are the exception: they lie over the older version and stay beside it, pairwise apart where no
//!   point lies between them.

use holdfast_format::cell;
use holdfast_format::key;
use holdfast_format::{Lsn, Stamp};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ops::Bound;

use super::io::Version;

/// What a key and a version cost beside their bytes: computed for B-tree nodes two thirds full and an allocator
/// that hands out multiples of 16 with 8 of its own.
const KEY_OVERHEAD_BYTES: usize = 80;
const VERSION_OVERHEAD_BYTES: usize = 64;
/// Shadowed cells that one insert removes at most, so that no insert holds the lock for long.
const SHADOWED_REMOVED_MAX: usize = 512;

/// A version and its value; `None` is a deletion.
pub type Stamped = (Stamp, Option<Vec<u8>>);

#[derive(Default)]
struct Inner {
    /// Versions newest first; never an empty list.
    map: BTreeMap<Box<[u8]>, Vec<Stamped>>,
    bytes: usize,
    records: usize,
    stamp_range: Option<(Lsn, Lsn)>,
}

/// Ordered records with concurrent readers and one writer at a time.
#[derive(Default)]
pub struct Memtable {
    inner: RwLock<Inner>,
}

fn version_bytes(version: &Stamped) -> usize {
    VERSION_OVERHEAD_BYTES + version.1.as_ref().map_or(0, Vec::len)
}

/// Whether a version is a PARTIAL cell. The key says that it is a cell at all: values of other keys begin with any
/// byte (an inode's with the low byte of its mode).
fn is_piece(key: &[u8], value: Option<&[u8]>) -> bool {
    value.is_some_and(cell::is_partial) && key::data_place(key).is_some()
}

/// Start and bytes of an encoded PARTIAL cell.
fn piece(value: &[u8]) -> Option<(usize, &[u8])> {
    let (head, bytes) = value.split_first_chunk::<3>()?;
    (head[0] == cell::TAG_PARTIAL).then(|| (u16::from_le_bytes([head[1], head[2]]) as usize, bytes))
}

/// Both pieces as one, `newer` over `older`; `None` when they neither overlap nor touch.
fn merge_pieces(newer: &[u8], older: &[u8]) -> Option<Vec<u8>> {
    let (newer_start, newer_bytes) = piece(newer)?;
    let (older_start, older_bytes) = piece(older)?;
    let (newer_end, older_end) = (newer_start + newer_bytes.len(), older_start + older_bytes.len());
    if newer_start > older_end || older_start > newer_end {
        return None;
    }
    let start = newer_start.min(older_start);
    let mut bytes = vec![0u8; newer_end.max(older_end) - start];
    bytes[older_start - start..older_end - start].copy_from_slice(older_bytes);
    bytes[newer_start - start..newer_end - start].copy_from_slice(newer_bytes);
    Some(cell::Cell::Partial { start: start as u16, bytes }.encode())
}

/// Merges the new piece with every older piece that it touches and that no kept point protects.
fn put_piece(versions: &mut Vec<Stamped>, stamp: Stamp, value: &[u8], last_point: Lsn) {
    let mut merged = value.to_vec();
    let mut at = 0;
    while let Some((older, Some(bytes))) = versions.get(at) {
        if !(cell::is_partial(bytes) && (older.lsn > last_point || *older == stamp)) {
            break;
        }
        match merge_pieces(&merged, bytes) {
            Some(both) => {
                merged = both;
                versions.remove(at);
                // The grown piece may touch one that it did not touch before.
                at = 0;
            }
            None => at += 1,
        }
    }
    versions.insert(0, (stamp, Some(merged)));
}

/// Newest stamps first: how many versions no kept point protects from a newer one at `stamp`.
fn unprotected(versions: &[Stamped], stamp: Stamp, last_point: Lsn) -> usize {
    versions.partition_point(|(older, _)| older.lsn > last_point || *older == stamp)
}

impl Inner {
    fn put(&mut self, key: &[u8], stamp: Stamp, value: Option<&[u8]>, last_point: Lsn) {
        let Some(versions) = self.map.get_mut(key) else {
            let version = (stamp, value.map(<[u8]>::to_vec));
            self.bytes += KEY_OVERHEAD_BYTES + key.len() + version_bytes(&version);
            self.records += 1;
            self.map.insert(key.into(), vec![version]);
            return;
        };
        debug_assert!(versions[0].0 <= stamp, "versions of one key arrive in order");
        let (bytes, records) = (versions.iter().map(version_bytes).sum::<usize>(), versions.len());
        match value {
            Some(piece) if is_piece(key, value) => put_piece(versions, stamp, piece, last_point),
            _ => {
                let dead = unprotected(versions, stamp, last_point);
                let version = (stamp, value.map(<[u8]>::to_vec));
                versions.splice(..dead, [version]);
            }
        }
        self.bytes = self.bytes - bytes + versions.iter().map(version_bytes).sum::<usize>();
        self.records = self.records - records + versions.len();
    }

    /// Removes what a cell of level 1 or higher covers and no kept point protects. What is left is resolved
    /// by the drain.
    fn remove_shadowed(&mut self, key: &[u8], stamp: Stamp, last_point: Lsn) {
        let Some((start, level)) = key::data_place(key).filter(|(_, level)| *level > 0) else { return };
        let until = super::cover_until(key, start, level);
        let range = (Bound::Excluded(key), Bound::Excluded(&until[..]));
        let mut emptied = Vec::new();
        for (child, versions) in self.map.range_mut::<[u8], _>(range).take(SHADOWED_REMOVED_MAX) {
            let dead = unprotected(versions, stamp, last_point);
            self.bytes -= versions.drain(..dead).map(|version| version_bytes(&version)).sum::<usize>();
            self.records -= dead;
            if versions.is_empty() {
                emptied.push(child.clone());
            }
        }
        for child in emptied {
            self.bytes -= KEY_OVERHEAD_BYTES + child.len();
            self.map.remove(&child);
        }
    }
}

impl Memtable {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a version; `None` deletes. Versions of the key that are newer than `last_point` (the newest kept
    /// LSN) go, except that a PARTIAL cell replaces nothing but the PARTIAL cells that it touches, by merging
    /// with them. A DATA cell of a higher level also removes cells below it, as far as that is cheap.
    pub fn insert(&self, key: &[u8], stamp: Stamp, value: Option<&[u8]>, last_point: Lsn) {
        let mut inner = self.inner.write();
        inner.put(key, stamp, value, last_point);
        if !is_piece(key, value) {
            inner.remove_shadowed(key, stamp, last_point);
        }
        let (first, last) = inner.stamp_range.unwrap_or((stamp.lsn, stamp.lsn));
        inner.stamp_range = Some((first.min(stamp.lsn), last.max(stamp.lsn)));
    }

    /// The newest version.
    pub fn get(&self, key: &[u8]) -> Option<Stamped> {
        self.inner.read().map.get(key).and_then(|versions| versions.first().cloned())
    }

    /// The newest version at or below `newest`.
    pub fn get_at(&self, key: &[u8], newest: Lsn) -> Option<Stamped> {
        self.inner.read().map.get(key).and_then(|versions| versions.iter().find(|(stamp, _)| stamp.lsn <= newest).cloned())
    }

    /// Appends the versions at or below `newest`, newest first, up to and with the first that is not a PARTIAL cell.
    pub fn chain(&self, key: &[u8], newest: Lsn, out: &mut Vec<Stamped>) {
        let inner = self.inner.read();
        for version in inner.map.get(key).into_iter().flatten().filter(|(stamp, _)| stamp.lsn <= newest) {
            out.push(version.clone());
            if !is_piece(key, version.1.as_deref()) {
                return;
            }
        }
    }

    /// About `limit` versions with `from <= key < until` in key order, the versions of a key newest first and
    /// never split between two calls. Empty: there are no more. The next call starts at the last key and a
    /// zero byte.
    pub fn chunk(&self, from: &[u8], until: &[u8], limit: usize) -> Vec<Version> {
        let mut out = Vec::new();
        if from >= until {
            return out;
        }
        let inner = self.inner.read();
        for (key, versions) in inner.map.range::<[u8], _>((Bound::Included(from), Bound::Excluded(until))) {
            if out.len() >= limit {
                break;
            }
            out.extend(versions.iter().map(|(stamp, value)| Version {
                key: key.to_vec(),
                stamp: *stamp,
                value: value.clone(),
            }));
        }
        out
    }

    /// Keys with `from <= key < until` that have a version which `is` meant, in order; `scanned` of all keys are looked at, and
    /// where there are more, the next call begins at the key that is given back.
    pub fn keys_where(
        &self,
        from: &[u8],
        until: &[u8],
        scanned: usize,
        is: impl Fn(Lsn) -> bool,
    ) -> (Vec<key::Key>, Option<key::Key>) {
        let mut out = Vec::new();
        if from >= until {
            return (out, None);
        }
        let inner = self.inner.read();
        let range = inner.map.range::<[u8], _>((Bound::Included(from), Bound::Excluded(until)));
        for (at, (key, versions)) in range.enumerate() {
            if at == scanned {
                return (out, Some(key.to_vec()));
            }
            if versions.iter().any(|(stamp, _)| is(stamp.lsn)) {
                out.push(key.to_vec());
            }
        }
        (out, None)
    }

    /// Estimate of the memory held.
    pub fn bytes(&self) -> usize {
        self.inner.read().bytes
    }

    /// Versions held.
    pub fn records(&self) -> usize {
        self.inner.read().records
    }

    /// Lowest and highest LSN ever inserted; zeroes when nothing was.
    pub fn stamp_range(&self) -> (Lsn, Lsn) {
        self.inner.read().stamp_range.unwrap_or_default()
    }
}
