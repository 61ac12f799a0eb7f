//! How often the kernel knows an inode. An unlinked inode lives until the last of these is forgotten.
//!
//! - About 25 bytes per inode that the kernel has in its cache (a 16-byte entry in a B-tree node); nothing for others.
//! - Bit 63 of a count says that the inode has an ORPHAN record, so that forgetting an ordinary inode reads nothing.
//! - Whoever takes a count to zero and sees that bit reaps; whoever sets the bit holds the inode's shard.

use holdfast_format::Ino;
use parking_lot::Mutex;
use std::collections::BTreeMap;

const SHARDS: usize = 64;
const ORPHAN: u64 = 1 << 63;

pub struct References {
    shards: Box<[Mutex<BTreeMap<u64, u64>>]>,
}

impl References {
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::new(BTreeMap::new())).collect() }
    }

    fn shard(&self, ino: Ino) -> &Mutex<BTreeMap<u64, u64>> {
        // Runs of 16 neighbours stay together: creates then touch one node of one tree.
        &self.shards[(ino.0 / 16 % SHARDS as u64) as usize]
    }

    pub fn add(&self, ino: Ino) {
        *self.shard(ino).lock().entry(ino.0).or_insert(0) += 1;
    }

    /// Gives `count` back. True when none is left and the inode is an orphan: the caller reaps it.
    pub fn forget(&self, ino: Ino, count: u64) -> bool {
        let mut shard = self.shard(ino).lock();
        let Some(entry) = shard.get_mut(&ino.0) else { return false };
        let left = (*entry & !ORPHAN).saturating_sub(count);
        let orphan = *entry & ORPHAN;
        if left > 0 {
            *entry = left | orphan;
            return false;
        }
        shard.remove(&ino.0);
        orphan != 0
    }

    pub fn is_referenced(&self, ino: Ino) -> bool {
        self.shard(ino).lock().contains_key(&ino.0)
    }

    /// Remembers that the inode is about to be an orphan. False when nobody references it: it need not become one.
    pub fn mark_orphan(&self, ino: Ino) -> bool {
        match self.shard(ino).lock().get_mut(&ino.0) {
            Some(entry) => {
                *entry |= ORPHAN;
                true
            }
            None => false,
        }
    }

    /// The inode has a name (again).
    pub fn unmark_orphan(&self, ino: Ino) {
        if let Some(entry) = self.shard(ino).lock().get_mut(&ino.0) {
            *entry &= !ORPHAN;
        }
    }

    pub fn clear(&self) {
        self.shards.iter().for_each(|shard| shard.lock().clear());
    }
}
