//! Where the payload pages of an op lie now: in the ring, or in an egroup.

use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::{EgroupId, Lsn};
use parking_lot::RwLock;

const RING_BIT: u64 = 1 << 63;
const PAGE_BITS: u32 = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Running byte position in the ring's page area.
    Ring(u64),
    Egroup(EgroupId, u16),
}

impl Place {
    fn pack(self) -> u64 {
        match self {
            Self::Ring(position) => RING_BIT | (position / BLOCK_BYTES as u64),
            Self::Egroup(egroup, page) => {
                debug_assert!(egroup.0 < 1 << (63 - PAGE_BITS));
                egroup.0 << PAGE_BITS | page as u64
            }
        }
    }

    fn unpack(packed: u64) -> Self {
        if packed & RING_BIT != 0 {
            Self::Ring((packed & !RING_BIT) * BLOCK_BYTES as u64)
        } else {
            Self::Egroup(EgroupId(packed >> PAGE_BITS), packed as u16)
        }
    }
}

/// Place now, and position in the ring at the commit.
#[derive(Clone, Copy, Debug)]
struct Slot {
    packed: u64,
    origin: u64,
}

/// An op that never was in this process's ring.
const NO_ORIGIN: u64 = u64::MAX;

/// Places of the ops of one memtable, by LSN. Ops are pushed in LSN order; a flush changes "ring" to "egroup" once.
#[derive(Debug)]
pub struct Places {
    first: Lsn,
    slots: RwLock<Vec<Slot>>,
}

impl Places {
    pub fn new(first: Lsn) -> Self {
        Self { first, slots: RwLock::new(Vec::new()) }
    }

    /// LSN of the first op, given or to come.
    pub fn first(&self) -> Lsn {
        self.first
    }

    /// The next op's place; `None` when it has no payload.
    pub fn push(&self, lsn: Lsn, place: Option<Place>) {
        let mut slots = self.slots.write();
        debug_assert_eq!(self.first.0 + slots.len() as u64, lsn.0);
        let origin = match place {
            Some(Place::Ring(position)) => position,
            _ => NO_ORIGIN,
        };
        slots.push(Slot { packed: place.map_or(0, Place::pack), origin });
    }

    pub fn get(&self, lsn: Lsn) -> Option<Place> {
        let at = lsn.0.checked_sub(self.first.0)? as usize;
        self.slots.read().get(at).map(|slot| Place::unpack(slot.packed))
    }

    /// Where the op's payload was put in the ring, by this process: it may still be there ([`super::ring::Ring::keeps`]).
    pub fn origin(&self, lsn: Lsn) -> Option<u64> {
        let at = lsn.0.checked_sub(self.first.0)? as usize;
        self.slots.read().get(at).map(|slot| slot.origin).filter(|origin| *origin != NO_ORIGIN)
    }

    /// Sets the places of ops that have moved; LSNs of other memtables are passed over.
    pub fn set(&self, moved: &[(Lsn, Place)]) {
        let mut slots = self.slots.write();
        for (lsn, place) in moved {
            let Some(at) = lsn.0.checked_sub(self.first.0) else { continue };
            if let Some(slot) = slots.get_mut(at as usize) {
                slot.packed = place.pack();
            }
        }
    }
}
