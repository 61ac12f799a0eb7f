//! Verified blocks and indexes of tables, in memory, within a budget of bytes.
//!
//! Invariants: an entry was verified before it came in, and tables never change, so entries are never stale.
//! The bytes charged are those allocated. A shard never holds more than its part of the budget, except for
//! one entry that is larger than that. Eviction is CLOCK: one bit an entry, set by a hit, cleared by the
//! passing hand.

use holdfast_format::TableId;
use holdfast_format::index::Index;
use parking_lot::Mutex;
use std::sync::Arc;

const SHARDS: usize = 16;
/// Slot, map entry and the allocation headers of one entry.
const ENTRY_OVERHEAD_BYTES: usize = 128;

// Iteration order is never seen: the map is only looked up.
#[allow(clippy::disallowed_types)]
type Map = std::collections::HashMap<BlockName, usize>;

/// Table and offset; an index stands at its own offset.
pub(crate) type BlockName = (TableId, u32);

#[derive(Clone)]
pub(crate) enum Cached {
    Block(Arc<[u8]>),
    Index(Arc<Index>),
}

impl Cached {
    fn bytes(&self) -> usize {
        ENTRY_OVERHEAD_BYTES
            + match self {
                Self::Block(block) => block.len(),
                Self::Index(index) => index.memory_bytes(),
            }
    }
}

struct Slot {
    name: BlockName,
    cached: Cached,
    used: bool,
}

#[derive(Default)]
struct Shard {
    map: Map,
    slots: Vec<Slot>,
    hand: usize,
    bytes: usize,
    hits: u64,
    misses: u64,
}

impl Shard {
    fn evict_one(&mut self) {
        loop {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            if !std::mem::take(&mut self.slots[self.hand].used) {
                break;
            }
            self.hand += 1;
        }
        let slot = self.slots.swap_remove(self.hand);
        self.bytes -= slot.cached.bytes();
        self.map.remove(&slot.name);
        if let Some(moved) = self.slots.get(self.hand) {
            self.map.insert(moved.name, self.hand);
        }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct CacheStats {
    pub hits: u64,
    pub misses: u64,
    pub bytes: u64,
    pub entries: u64,
}

/// One instance serves all trees of a daemon.
pub struct BlockCache {
    shards: Vec<Mutex<Shard>>,
    budget_bytes: usize,
}

impl BlockCache {
    pub fn new(budget_bytes: usize) -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), budget_bytes }
    }

    pub fn budget_bytes(&self) -> usize {
        self.budget_bytes
    }

    fn shard(&self, name: BlockName) -> &Mutex<Shard> {
        let mixed = (name.0.0 ^ (name.1 as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.shards[(mixed >> 60) as usize % SHARDS]
    }

    pub(crate) fn get(&self, name: BlockName) -> Option<Cached> {
        let mut shard = self.shard(name).lock();
        match shard.map.get(&name).copied() {
            Some(at) => {
                shard.hits += 1;
                let slot = &mut shard.slots[at];
                slot.used = true;
                Some(slot.cached.clone())
            }
            None => {
                shard.misses += 1;
                None
            }
        }
    }

    /// Adds a verified entry. Of two threads that read the same block, the second changes nothing.
    pub(crate) fn put(&self, name: BlockName, cached: Cached) {
        let bytes = cached.bytes();
        let mut shard = self.shard(name).lock();
        if shard.map.contains_key(&name) {
            return;
        }
        while !shard.slots.is_empty() && shard.bytes + bytes > self.budget_bytes / SHARDS {
            shard.evict_one();
        }
        let at = shard.slots.len();
        shard.slots.push(Slot { name, cached, used: false });
        shard.map.insert(name, at);
        shard.bytes += bytes;
    }

    pub fn stats(&self) -> CacheStats {
        let mut stats = CacheStats::default();
        for shard in &self.shards {
            let shard = shard.lock();
            stats.hits += shard.hits;
            stats.misses += shard.misses;
            stats.bytes += shard.bytes as u64;
            stats.entries += shard.slots.len() as u64;
        }
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(byte: u8) -> Cached {
        Cached::Block(vec![byte; 4096].into())
    }

    #[test]
    fn the_budget_holds_and_what_is_used_stays() {
        let cache = BlockCache::new(4 << 20);
        let hot = (TableId(1), 0);
        cache.put(hot, block(9));
        for n in 0..20_000u32 {
            cache.put((TableId(2), n * 4096), block(1));
            assert!(cache.get(hot).is_some(), "after {n} others");
        }
        let stats = cache.stats();
        assert!(stats.bytes <= 4 << 20, "{stats:?}");
        assert!(stats.bytes > 3 << 20, "{stats:?}");
        assert_eq!(stats.hits, 20_000);
        let found = (0..20_000u32).filter(|n| cache.get((TableId(2), n * 4096)).is_some()).count();
        assert_eq!(found as u64 + 1, stats.entries);
    }
}
