//! Pages of egroups in memory, within a budget of bytes.
//!
//! Invariants
//! - A page of an egroup never changes and an egroup's number is never given twice, so what lies under a name is what the
//!   drives hold under it, whichever slots are reused: nothing ever has to be invalidated.
//! - Bytes leave only through [`DataCache::copy`], whose caller compares the checksum of the map each time: a flipped bit
//!   in memory is a miss, not an answer (I-4).
//! - A shard never holds more than its part of the budget. Eviction is CLOCK: a page is marked by a hit, and unmarked by
//!   the passing hand. What a stream reads unmarks nothing: it takes free room and the places of pages that nobody has
//!   asked for twice, so a stream that is longer than the cache drives out nothing but such pages.

use crate::metadata::io::PageName;
use holdfast_device::AlignedBuffer;
use holdfast_format::limits::BLOCK_BYTES;
use parking_lot::RwLock;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

const SHARDS: usize = 16;
/// Pages allocated at a time; they cost memory when they are first written.
const CHUNK_PAGES: usize = 64;
/// Name, map entry and bit of one page.
const ENTRY_OVERHEAD_BYTES: usize = 64;
/// Places that a stream looks at for one page.
const STREAM_STEPS: usize = 8;

/// What a page's mark says.
mod mark {
    /// Nobody has asked again since it came, or since the hand passed.
    pub const IDLE: u8 = 0;
    pub const USED: u8 = 1;
    /// It came ahead of the one who asked for it, whose hit is the first use.
    pub const AWAITED: u8 = 2;
}

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
    mark: AtomicU8,
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
    fn place(&mut self, capacity: usize, keep: Keep) -> Option<usize> {
        if self.entries.len() < capacity {
            if self.entries.len().is_multiple_of(CHUNK_PAGES) {
                self.chunks.push(AlignedBuffer::zeroed(CHUNK_PAGES * BLOCK_BYTES));
            }
            return Some(self.entries.len());
        }
        let mut steps = if keep == Keep::Streamed { STREAM_STEPS } else { usize::MAX };
        while steps > 0 && capacity > 0 {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.entries.len();
            let mark = self.entries[place].mark.get_mut();
            if *mark == mark::IDLE {
                self.leave(place);
                return Some(place);
            }
            if keep != Keep::Streamed {
                *mark = mark::IDLE;
            }
            steps -= 1;
        }
        None
    }

    /// Forgets what lies in a place. A refused page may have come again, to another one.
    fn leave(&mut self, place: usize) {
        let name = self.entries[place].name;
        if self.map.get(&name) == Some(&(place as u32)) {
            self.map.remove(&name);
        }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct DataCacheStats {
    pub hits: u64,
    pub misses: u64,
    pub bytes: u64,
}

/// Why a page is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// It was read by itself, or with a few.
    Read,
    /// It comes ahead of who asked for it.
    Awaited,
    /// It went by in a stream.
    Streamed,
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

    /// Data is to come from the drives: what the ring happens to hold still does not count either.
    pub fn is_off(&self) -> bool {
        self.capacity == 0
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
                let mark = &shard.entries[place].mark;
                match mark.load(Ordering::Relaxed) {
                    mark::IDLE => mark.store(mark::USED, Ordering::Relaxed),
                    mark::AWAITED => mark.store(mark::IDLE, Ordering::Relaxed),
                    _ => {}
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
        if self.is_off() {
            return;
        }
        let mut shard = self.shard(name).write();
        if shard.map.contains_key(&name) {
            return;
        }
        let Some(place) = shard.place(self.capacity, keep) else { return };
        shard.chunks[place / CHUNK_PAGES][place % CHUNK_PAGES * BLOCK_BYTES..][..BLOCK_BYTES].copy_from_slice(page);
        let mark = if keep == Keep::Awaited { mark::AWAITED } else { mark::IDLE };
        let entry = Entry { name, mark: AtomicU8::new(mark) };
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
            cache.keep(name(number), &page(number), Keep::Read);
        }
        assert!((0..200).all(|number| holds(&cache, number)));
        assert!(!holds(&cache, 200));
        for number in 1000..9000 {
            cache.keep(name(number), &page(number), Keep::Read);
            if number % 50 == 0 {
                assert!((0..200).all(|hot| holds(&cache, hot)), "at {number}");
            }
        }
        let stats = cache.stats();
        assert!(stats.bytes <= budget as u64 && stats.bytes > budget as u64 * 9 / 10, "{stats:?}");
        assert!(!holds(&cache, 1000), "what nobody used went");
    }

    #[test]
    fn a_stream_drives_out_only_what_nobody_asked_for_twice() {
        let cache = DataCache::new(4 << 20);
        for number in 0..300 {
            cache.keep(name(number), &page(number), Keep::Read);
        }
        let asked_for = |numbers: std::ops::Range<u64>| numbers.filter(|number| holds(&cache, *number)).count();
        assert_eq!(asked_for(0..200), 200);
        for number in 1000..9000 {
            cache.keep(name(number), &page(number), Keep::Streamed);
        }
        assert_eq!(asked_for(0..200), 200, "what was used stays");
        assert!(asked_for(200..300) < 10, "what was read once gave way");
        assert!(asked_for(8800..9000) > 150, "what went by last is there");
    }

    #[test]
    fn whoever_waited_for_a_page_is_its_first_user() {
        let cache = DataCache::new(4 << 20);
        for number in 0..400 {
            cache.keep(name(number), &page(number), Keep::Awaited);
            assert!(holds(&cache, number));
        }
        for number in 1000..9000 {
            cache.keep(name(number), &page(number), Keep::Streamed);
        }
        assert!((0..400).filter(|number| holds(&cache, *number)).count() < 40, "used once is not used again");
    }

    #[test]
    fn what_does_not_verify_is_a_miss_and_goes() {
        let cache = DataCache::new(4 << 20);
        cache.keep(name(1), &page(2), Keep::Read);
        assert!(!holds(&cache, 1));
        cache.keep(name(1), &page(1), Keep::Read);
        assert!(holds(&cache, 1), "the right page could come in its place");
        assert_eq!((cache.stats().hits, cache.stats().misses), (1, 1));
    }

    #[test]
    fn without_a_budget_nothing_is_kept() {
        let cache = DataCache::new(0);
        cache.keep(name(1), &page(1), Keep::Read);
        assert!(!holds(&cache, 1));
        assert_eq!(cache.stats().bytes, 0);
    }
}
