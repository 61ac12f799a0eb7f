//! How much more fits: what statfs promises (the README's "available").
//!
//! A drive has room in its free slots without the reserve, in the log of the group that asks, whose segments become
//! ordinary egroups that are packed like all others, and in the dead pages that cleaning can gather. Copies go to different
//! drives, so the room of a pool is not the sum: see [`spread`].
//!
//! Invariant: the dead pages that are counted here are those of the records as the newest edit left them; `fsck` counts
//! them anew.

use super::Pool;
use super::clean::FREE_SLOTS_DIVISOR;
use super::disk::Disk;
use super::publish::Change;
use holdfast_format::egroup::{EgroupRecord, EgroupState};
use holdfast_format::limits::{BLOCK_BYTES, CLEAN_DEAD_PERCENT_SHORT};
use holdfast_format::GroupId;
use std::collections::BTreeMap;

/// Of a page's room what is left for content: ops and tables about it, footers, and gaps that cleaning leaves because closing
/// them would copy more than they are worth. Measured (`tests/statfs.rs`): 0.90 for blocks that are written one by one, 0.97
/// for large pieces.
const CONTENT_PER_MILLE: u64 = 900;
/// Of a drive at most this part is kept free for merges.
const UPKEEP_SHARE_MAX: u64 = 8;

/// Bytes of content, once, that fit with so many copies each.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Capacity {
    /// Into the pool if it were empty.
    pub total: u64,
    /// As `available`, and into the reserve.
    pub free: u64,
    pub available: u64,
}

/// Steps of the share of a slot that is dead.
const SHARES: usize = 64;
/// Below so many of them cleaning leaves an egroup alone, however short room is.
const SHARES_WORTH: usize = (SHARES * CLEAN_DEAD_PERCENT_SHORT).div_ceil(100);

/// Pages that a drive's egroups of one RF would give back if they were cleaned, by the share of the slot that is dead.
pub(super) type DeadPages = BTreeMap<(u16, u8), [u64; SHARES + 1]>;

/// Pages that cleaning would gain on each drive that holds a copy, and the share of the slot that is dead.
fn gain(pool: &Pool, record: &EgroupRecord) -> (u64, usize) {
    let slot_pages = pool.slot_bytes as usize / BLOCK_BYTES;
    let live = record.live.len().min(slot_pages);
    match record.state {
        EgroupState::Data if live == 0 => (slot_pages as u64, SHARES),
        EgroupState::Data => {
            let gained = pool.egroup_pages_max().saturating_sub(live);
            (gained as u64, (slot_pages - live) * SHARES / slot_pages)
        }
        EgroupState::Log | EgroupState::Moved => (0, 0),
    }
}

/// The most pages that can be placed in `copies` copies on as many different drives, with room for `rooms` pages on each:
/// no drive takes more than one copy of a page, so k pages fit when the drives, each counted up to k, have room for all.
pub(super) fn spread(rooms: &[u64], copies: u64) -> u64 {
    let copies = copies.min(rooms.len() as u64).max(1);
    let fits = |pages: u64| rooms.iter().map(|room| (*room).min(pages)).sum::<u64>() >= copies * pages;
    let (mut low, mut high) = (0, rooms.iter().sum::<u64>() / copies);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    low
}

impl Pool {
    /// What a volume of `group` with `copies` copies can store. `forgotten`: pages of that group, all copies, that something
    /// still names, but that nobody would miss (less than nothing when more is on its way to the drives than that).
    pub fn capacity(&self, group: GroupId, copies: u8, forgotten: i64) -> Capacity {
        let slot_pages = self.slot_bytes as u64 / BLOCK_BYTES as u64;
        let own_log = self.log_slots_of(group);
        let drives: Vec<_> = self.disks.iter().filter(|disk| disk.accepts()).collect();
        let dead = self.cleanable_pages(drives.iter().map(|disk| self.reserve_of(disk) as u64).sum());
        let used: u64 = drives.iter().map(|disk| disk.used_slots() as u64).sum();
        let mut rooms: [Vec<u64>; 3] = Default::default();
        for disk in drives {
            let free = disk.free_slots() as u64 + disk.pending_slots() as u64;
            let reserve = (self.reserve_of(disk) as u64).min(free);
            let share = forgotten * disk.used_slots() as i64 / used.max(1) as i64;
            let log = own_log.get(&disk.index).copied().unwrap_or(0);
            let gained = log * slot_pages + dead.get(&disk.index).copied().unwrap_or(0);
            let most = disk.total_slots() as u64 * slot_pages;
            let room = |slots: u64| (slots * slot_pages + gained).saturating_add_signed(share).min(most);
            rooms[0].push(most);
            rooms[1].push(room(free));
            rooms[2].push(room(free - reserve));
        }
        let bytes = |rooms: &[u64]| {
            let pages = if rooms.is_empty() { 0 } else { spread(rooms, copies.max(1) as u64) };
            pages * CONTENT_PER_MILLE / 1000 * BLOCK_BYTES as u64
        };
        Capacity { total: bytes(&rooms[0]), free: bytes(&rooms[1]), available: bytes(&rooms[2]) }
    }

    /// Slots that a group's log holds, by drive.
    fn log_slots_of(&self, group: GroupId) -> BTreeMap<u16, u64> {
        let mut slots = BTreeMap::new();
        let image = self.image.read();
        let segments = image.groups.get(&group).into_iter().flat_map(|group| &group.segments);
        segments.flat_map(|segment| &segment.copies).for_each(|copy| *slots.entry(copy.drive).or_default() += 1);
        slots
    }

    /// Slots of a drive that only operations that give space back, and upkeep, may take: the fixed reserve, and the drive's
    /// part of the outputs of the largest merge to come. Without them a full pool could never merge again.
    pub(super) fn reserve_of(&self, disk: &Disk) -> u32 {
        let upkeep = self.upkeep_slots.lock().values().max().copied().unwrap_or(0);
        let share = (upkeep * self.table_protection().rf as u64).div_ceil(self.drives_accepting().max(1) as u64);
        disk.layout.reserve() + share.min(disk.layout.slots as u64 / UPKEEP_SHARE_MAX) as u32
    }

    /// Slots that the outputs of a group's largest merge will need, one copy.
    pub fn set_upkeep_slots(&self, group: GroupId, slots: u64) {
        self.upkeep_slots.lock().insert(group, slots);
    }

    /// What cleaning can really gain, by drive: with `free` slots to work with it fills n targets at most, which frees n + 1
    /// victims only where those are empty enough.
    fn cleanable_pages(&self, free: u64) -> BTreeMap<u16, u64> {
        let mut pages = BTreeMap::new();
        for ((drive, rf), by_share) in self.dead_pages.lock().iter() {
            let targets = (free / (*rf).max(1) as u64 / FREE_SLOTS_DIVISOR as u64).max(1) as usize;
            // The footer's part is no room.
            let least = SHARES_WORTH.max(SHARES.div_ceil(targets + 1) + 1);
            *pages.entry(*drive).or_default() += by_share.iter().skip(least).sum::<u64>();
        }
        pages
    }

    /// At open, of every record.
    pub(super) fn count_dead(&self, record: &EgroupRecord) {
        add(&mut self.dead_pages.lock(), record, gain(self, record));
    }

    /// The records of an edit that is durable take the place of those before it.
    pub(super) fn recount_dead(&self, change: &Change<'_>) {
        let mut dead = self.dead_pages.lock();
        for record in change.before.values() {
            let (pages, share) = gain(self, record);
            for copy in &record.copies {
                if let Some(by_share) = dead.get_mut(&(copy.drive, record.rf)) {
                    by_share[share] = by_share[share].saturating_sub(pages);
                }
            }
        }
        change.egroups.values().flatten().for_each(|record| add(&mut dead, record, gain(self, record)));
    }

    /// What the records say now, for `fsck`: the sentence if it is not what was counted.
    pub(super) fn check_dead<'r>(&self, records: impl Iterator<Item = &'r EgroupRecord>) -> Option<String> {
        let mut anew = DeadPages::new();
        records.for_each(|record| add(&mut anew, record, gain(self, record)));
        let mut counted = self.dead_pages.lock().clone();
        let none = [0; SHARES + 1];
        [&mut anew, &mut counted].into_iter().for_each(|pages| pages.retain(|_, by_share| *by_share != none));
        (anew != counted).then(|| format!("dead pages by drive: {counted:?} are counted, {anew:?} are there"))
    }
}

fn add(dead: &mut DeadPages, record: &EgroupRecord, (pages, share): (u64, usize)) {
    for copy in &record.copies {
        dead.entry((copy.drive, record.rf)).or_insert([0; SHARES + 1])[share] += pages;
    }
}

#[cfg(test)]
mod tests {
    use super::spread;

    /// Tries every way to hand pages out, greedily to the drives with the most room, which is optimal.
    fn by_hand(rooms: &[u64], copies: usize) -> u64 {
        let mut rooms = rooms.to_vec();
        let mut pages = 0;
        loop {
            rooms.sort_unstable_by(|left, right| right.cmp(left));
            if rooms[copies - 1] == 0 {
                return pages;
            }
            rooms[..copies].iter_mut().for_each(|room| *room -= 1);
            pages += 1;
        }
    }

    #[test]
    fn as_much_fits_as_handing_out_page_by_page_finds() {
        let mut rng = holdfast_device::Rng::from_seed(5);
        for _ in 0..2000 {
            let rooms: Vec<u64> = (0..1 + rng.below(6)).map(|_| rng.below(40)).collect();
            for copies in 1..=rooms.len().min(3) {
                assert_eq!(spread(&rooms, copies as u64), by_hand(&rooms, copies), "{rooms:?}, {copies} copies");
            }
        }
        assert_eq!(spread(&[10, 10, 100], 2), 20, "one large drive helps as far as there are others");
        assert_eq!(spread(&[10], 2), 10, "fewer drives than copies: as many copies as there are drives");
    }
}
