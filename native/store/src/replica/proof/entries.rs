//! What lies in a range, entry by entry: as much of it as one answer holds.

use super::walk::{Entry, Sink};
use super::{Proof, SLICE_BYTES};
use crate::error::Result;
use crate::ledger::Ledger;
use holdfast_format::Ino;
use holdfast_format::key::{self, Key};
use holdfast_format::limits::{KEY_BYTES_MAX, PROOF_ANSWER_BYTES_MAX};
use holdfast_format::proof::{Entries, Shown, digest, entry_bytes};

/// Of an answer, without what is around the entries.
const ENTRIES_BYTES_MAX: usize = PROOF_ANSWER_BYTES_MAX - KEY_BYTES_MAX - 64;

#[derive(Default)]
struct List {
    entries: Vec<(Key, Shown)>,
    bytes: usize,
    weight: usize,
    /// The first one that there was no room for.
    stop: Option<Key>,
}

impl Sink for List {
    fn entry(&mut self, key: &[u8], entry: Entry<'_>) {
        if self.stop.is_some() {
            return;
        }
        let shown = show(key, entry);
        let bytes = entry_bytes(key, &shown);
        if self.bytes + bytes > ENTRIES_BYTES_MAX {
            self.stop = Some(key.to_vec());
            return;
        }
        self.bytes += bytes;
        self.entries.push((key.to_vec(), shown));
    }

    fn weigh(&mut self, bytes: usize) {
        self.weight += bytes;
    }

    fn is_full(&self) -> bool {
        self.stop.is_some() || self.weight >= 2 * SLICE_BYTES
    }
}

/// Values of attributes are long, and nobody has to see them.
fn show(key: &[u8], entry: Entry<'_>) -> Shown {
    let is_attribute = key::parts(key).is_some_and(|parts| parts.kind == key::KIND_XATTR);
    match entry {
        Entry::Record(value) if !is_attribute => Shown::Record(value.to_vec()),
        Entry::Record(bytes) | Entry::Block(bytes) => Shown::Digest(digest(bytes)),
        Entry::Unreadable => Shown::Unreadable,
    }
}

pub(super) fn entries(proof: &Proof, from: &[u8], until: &[u8]) -> Result<Entries> {
    let has_inode = match key::parts(from).filter(|parts| parts.ino != Ino(0)) {
        Some(parts) => proof.then.get(&key::inode(parts.branch, parts.ino))?.is_some(),
        None => false,
    };
    let mut list = List::default();
    let reached = proof.walk(from, until).run(&mut list)?;
    Ok(Entries { reached: list.stop.unwrap_or(reached), has_inode, entries: list.entries })
}
