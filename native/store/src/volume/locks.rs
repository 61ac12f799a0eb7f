//! Locks of inodes: a fixed array of shards, so that memory does not grow with the number of files.
//!
//! - An inode's shard is a pure function of its number; two inodes may share one.
//! - Several shards are taken in index order, each once; never while waiting for a flush.
//! - Held exclusively from the first look at an inode (or at a directory's entries) until the commit that changes it;
//!   held shared while file data or a directory is read.

use holdfast_format::Ino;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

const SHARD_BITS: u32 = 10;

pub struct InodeLocks {
    shards: Box<[RwLock<()>]>,
}

/// Exclusive hold of every inode that was asked for.
pub type Held<'a> = Vec<RwLockWriteGuard<'a, ()>>;

fn shard_of(ino: Ino) -> usize {
    // Fibonacci hashing: neighbours, as creates make them, spread over all shards.
    (ino.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SHARD_BITS)) as usize
}

impl InodeLocks {
    pub fn new() -> Self {
        Self { shards: (0..1usize << SHARD_BITS).map(|_| RwLock::new(())).collect() }
    }

    pub fn read(&self, ino: Ino) -> RwLockReadGuard<'_, ()> {
        self.shards[shard_of(ino)].read()
    }

    pub fn write(&self, ino: Ino) -> RwLockWriteGuard<'_, ()> {
        self.shards[shard_of(ino)].write()
    }

    pub fn write_all(&self, inos: &[Ino]) -> Held<'_> {
        let mut indices: Vec<usize> = inos.iter().map(|ino| shard_of(*ino)).collect();
        indices.sort_unstable();
        indices.dedup();
        indices.into_iter().map(|index| self.shards[index].write()).collect()
    }
}
