//! Locks of inodes: a fixed array of shards, so that memory does not grow with the number of files.
//!
//! - An inode's shard is a pure function of its number; two inodes may share one.
//! - Several shards are taken in index order, each once; never while waiting for a flush.
//! - Held exclusively from the first look at an inode (or at a directory's entries) until the commit that
//!   changes it; held shared while file data or a directory is read.

use holdfast_format::Ino;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

const SHARD_BITS: u32 = 10;

pub struct InodeLocks {
    bits: u32,
    shards: Box<[RwLock<()>]>,
}

/// Exclusive hold of every inode that was asked for.
pub type Held<'a> = Vec<RwLockWriteGuard<'a, ()>>;

impl InodeLocks {
    pub fn new() -> Self {
        Self::with_bits(SHARD_BITS)
    }

    /// For what nobody changes: the locks are never waited for.
    pub fn few() -> Self {
        Self::with_bits(1)
    }

    fn with_bits(bits: u32) -> Self {
        Self { bits, shards: (0..1usize << bits).map(|_| RwLock::new(())).collect() }
    }

    fn shard_of(&self, ino: Ino) -> usize {
        // Fibonacci hashing: neighbours, as creates make them, spread over all shards.
        (ino.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - self.bits)) as usize
    }

    pub fn read(&self, ino: Ino) -> RwLockReadGuard<'_, ()> {
        self.shards[self.shard_of(ino)].read()
    }

    pub fn write(&self, ino: Ino) -> RwLockWriteGuard<'_, ()> {
        self.shards[self.shard_of(ino)].write()
    }

    pub fn write_all(&self, inos: &[Ino]) -> Held<'_> {
        let mut indices: Vec<usize> = inos.iter().map(|ino| self.shard_of(*ino)).collect();
        indices.sort_unstable();
        indices.dedup();
        indices.into_iter().map(|index| self.shards[index].write()).collect()
    }
}
