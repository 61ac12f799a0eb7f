//! Pages of egroups in memory, within a budget of bytes.
//!
//! Invariants
//! - A page of an egroup never changes and an egroup's number is never given twice, so what lies under a name is what the
//!   drives hold under it, whichever slots are reused: nothing ever has to be invalidated.
//! - Bytes leave only through [`DataCache::copy`], whose caller compares the checksum of the map each time: a flipped bit
//!   in memory is a miss, not an answer (I-4).
//! - A shard never holds more than its part of the budget. Eviction is CLOCK: one bit a page, set by a hit, cleared by
//!   the passing hand. What a stream reads takes free room only: it drives nothing out.

use crate::metadata::io::PageName;
use holdfast_device::AlignedBuffer;
use holdfast_format::limits::BLOCK_BYTES;
use parking_lot::RwLock;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SHARDS: usize = 16;
/// Pages allocated at a time; they cost memory when they are first written.
const CHUNK_PAGES: usize = 64;
/// Name, map entry and bit of one page.
const ENTRY_OVERHEAD_BYTES: usize = 64;
/// Neighbours in an egroup share a shard, so that a run takes few locks.
const NEIGHBOUR_BITS: u32 = 4;

/// Names are the pool's own numbers: nobody chooses them to collide.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 29
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }
    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

// Iteration order is never seen: the map is only looked up.
#[allow(clippy::disallowed_types)]
type Map = std::collections::HashMap<PageName, u32, BuildHasherDefault<Mix>>;

struct Entry {
    name: PageName,
    used: AtomicBool,
}

#[derive(Default)]
struct Shard {
    map: Map,
    /// By place; a place's bytes are in `chunks`.
    entries: Vec<Entry>,
    chunks: Vec<AlignedBuffer>,
    hand: usize,
}

impl Shard {
    fn page(&self, place: usize) -> &[u8] {
        &self.chunks[place / CHUNK_PAGES][place % CHUNK_PAGES * BLOCK_BYTES..][..BLOCK_BYTES]
    }

    /// A place for one more page; `None` when there is no free one and none may be emptied.
    fn place(&mut self, capacity: usize, may_evict: bool) -> Option<usize> {
        if self.entries.len() < capacity {
            if self.entries.len().is_multiple_of(CHUNK_PAGES) {
                self.chunks.push(AlignedBuffer::zeroed(CHUNK_PAGES * BLOCK_BYTES));
            }
            return Some(self.entries.len());
        }
        if !may_evict || capacity == 0 {
            return None;
        }
        loop {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.entries.len();
            if !std::mem::take(self.entries[place].used.get_mut()) {
                // A refused page may have come again, to another place.
                let name = self.entries[place].name;
                if self.map.get(&name) == Some(&(place as u32)) {
                    self.map.remove(&name);
                }
                return Some(place);
            }
        }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct DataCacheStats {
    pub hits: u64,
    pub misses: u64,
    pub bytes: u64,
}

/// Whose pages may be driven out by a page that comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Any that was not used lately.
    Evicting,
    /// Nobody's.
    FreeRoom,
}

pub struct DataCache {
    shards: Vec<RwLock<Shard>>,
    /// Pages of one shard.
    capacity: usize,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl DataCache {
    /// With a budget of 0 it keeps nothing.
    pub fn new(budget_bytes: usize) -> Self {
        let capacity = budget_bytes / SHARDS / (BLOCK_BYTES + ENTRY_OVERHEAD_BYTES);
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, capacity, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    fn shard(&self, (egroup, page): PageName) -> &RwLock<Shard> {
        let mixed = (egroup.0 << 12 ^ u64::from(page) >> NEIGHBOUR_BITS).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.shards[(mixed >> 60) as usize % SHARDS]
    }

    /// Copies a page out. False: it is not there, or `verify` refuses what is (then it goes); `into` may be overwritten.
    pub fn copy(&self, name: PageName, into: &mut [u8], verify: impl FnOnce(&[u8]) -> bool) -> bool {
        let shard = self.shard(name);
        let found = {
            let shard = shard.read();
            let place = shard.map.get(&name).map(|place| *place as usize);
            if let Some(place) = place {
                into.copy_from_slice(shard.page(place));
                // Read first: a line that every reader writes is one they wait for.
                let used = &shard.entries[place].used;
                if !used.load(Ordering::Relaxed) {
                    used.store(true, Ordering::Relaxed);
                }
            }
            place.is_some()
        };
        let right = found && verify(into);
        if found && !right {
            shard.write().map.remove(&name);
        }
        if right { &self.hits } else { &self.misses }.fetch_add(1, Ordering::Relaxed);
        right
    }

    /// Takes a page that was verified. Of two threads that read the same page, the second changes nothing.
    pub fn keep(&self, name: PageName, page: &[u8], keep: Keep) {
        if self.capacity == 0 {
            return;
        }
        let mut shard = self.shard(name).write();
        if shard.map.contains_key(&name) {
            return;
        }
        let Some(place) = shard.place(self.capacity, keep == Keep::Evicting) else { return };
        shard.chunks[place / CHUNK_PAGES][place % CHUNK_PAGES * BLOCK_BYTES..][..BLOCK_BYTES].copy_from_slice(page);
        let entry = Entry { name, used: AtomicBool::new(false) };
        if place == shard.entries.len() {
            shard.entries.push(entry);
        } else {
            shard.entries[place] = entry;
        }
        shard.map.insert(name, place as u32);
    }

    pub fn stats(&self) -> DataCacheStats {
        let pages: usize = self.shards.iter().map(|shard| shard.read().entries.len()).sum();
        DataCacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            bytes: (pages * (BLOCK_BYTES + ENTRY_OVERHEAD_BYTES)) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_format::EgroupId;

    fn name(number: u64) -> PageName {
        (EgroupId(number / 1000), (number % 1000) as u16)
    }

    fn page(number: u64) -> [u8; BLOCK_BYTES] {
        let mut page = [0; BLOCK_BYTES];
        page[..8].copy_from_slice(&number.to_le_bytes());
        page
    }

    fn holds(cache: &DataCache, number: u64) -> bool {
        let mut into = [0xff; BLOCK_BYTES];
        cache.copy(name(number), &mut into, |bytes| bytes == page(number))
    }

    #[test]
    fn pages_come_back_within_the_budget_and_what_is_used_stays() {
        let budget = 4 << 20;
        let cache = DataCache::new(budget);
        for number in 0..200 {
            cache.keep(name(number), &page(number), Keep::Evicting);
        }
        assert!((0..200).all(|number| holds(&cache, number)));
        assert!(!holds(&cache, 200));
        for number in 1000..9000 {
            cache.keep(name(number), &page(number), Keep::Evicting);
            if number % 50 == 0 {
                assert!((0..200).all(|hot| holds(&cache, hot)), "at {number}");
            }
        }
        let stats = cache.stats();
        assert!(stats.bytes <= budget as u64 && stats.bytes > budget as u64 * 9 / 10, "{stats:?}");
        assert!(!holds(&cache, 1000), "what nobody used went");
    }

    #[test]
    fn a_stream_drives_nothing_out() {
        let cache = DataCache::new(4 << 20);
        for number in 0..5000 {
            cache.keep(name(number), &page(number), Keep::FreeRoom);
        }
        let kept: Vec<u64> = (0..5000).filter(|number| holds(&cache, *number)).collect();
        assert!(kept.len() > 900, "there was room for {} pages", kept.len());
        for number in 5000..20_000 {
            cache.keep(name(number), &page(number), Keep::FreeRoom);
        }
        assert!(kept.iter().all(|number| holds(&cache, *number)));
    }

    #[test]
    fn what_does_not_verify_is_a_miss_and_goes() {
        let cache = DataCache::new(4 << 20);
        cache.keep(name(1), &page(2), Keep::Evicting);
        assert!(!holds(&cache, 1));
        cache.keep(name(1), &page(1), Keep::Evicting);
        assert!(holds(&cache, 1), "the right page could come in its place");
        assert_eq!((cache.stats().hits, cache.stats().misses), (1, 1));
    }

    #[test]
    fn without_a_budget_nothing_is_kept() {
        let cache = DataCache::new(0);
        cache.keep(name(1), &page(1), Keep::Evicting);
        assert!(!holds(&cache, 1));
        assert_eq!(cache.stats().bytes, 0);
    }
}
