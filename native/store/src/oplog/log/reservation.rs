//! What the log has promised a place: an op is admitted only when the reserved segments can hold it, however the flusher
//! packs it.
//!
//! Invariant: never promises more than the reserved segments can hold. It packs every op that has no place yet as a frame
//! of its own, which is never tighter than what the flusher will do.

use crate::placement::Segment;
use holdfast_format::Lsn;
use std::collections::VecDeque;

/// Pages that one op takes at most: in the frame's segment, and in the series of its payload, which has a head, too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub lsn: Lsn,
    pub head_pages: u32,
    pub payload_pages: u32,
    pub payload_rf: u8,
}

#[derive(Default)]
pub(super) struct Reservation {
    /// Free pages per segment that is still to be written, by RF class: the open one first.
    pub lanes: [VecDeque<u32>; 3],
    /// Ops that no frame was made for yet.
    pub unplaced: VecDeque<Cost>,
    pub stock: [VecDeque<Segment>; 3],
    /// Pages left in the open segment of each class.
    pub open_pages: [Option<u32>; 3],
    /// Copies of the headers at the newest packing, and the last op that was admitted before they changed: segments for
    /// those are taken when they are needed.
    pub header_rf: u8,
    pub repacked: Lsn,
}

/// Takes `pages` contiguous pages of one segment from a lane.
fn take_pages(lane: &mut VecDeque<u32>, pages: u32) -> bool {
    let Some(at) = lane.iter().position(|free| *free >= pages) else {
        return false;
    };
    lane.drain(..at);
    lane[0] -= pages;
    true
}

impl Reservation {
    pub fn admit(&mut self, cost: Cost, header_rf: u8) -> bool {
        let header = header_rf as usize - 1;
        if cost.payload_pages == 0 || cost.payload_rf == header_rf {
            return take_pages(&mut self.lanes[header], cost.head_pages + cost.payload_pages);
        }
        let payload = cost.payload_rf as usize - 1;
        let pages = cost.head_pages + cost.payload_pages;
        let fits = self.lanes[payload].iter().any(|free| *free >= pages);
        fits && take_pages(&mut self.lanes[header], cost.head_pages) && take_pages(&mut self.lanes[payload], pages)
    }

    /// Starts again from what is really free, and packs what has no place yet.
    pub fn rebuild(&mut self, header_rf: u8, slot_pages: u32) {
        for class in 0..3 {
            self.lanes[class] = self.open_pages[class].into_iter().collect();
            let fresh = self.stock[class].len();
            self.lanes[class].extend(std::iter::repeat_n(slot_pages, fresh));
        }
        let costs = std::mem::take(&mut self.unplaced);
        if std::mem::replace(&mut self.header_rf, header_rf) != header_rf {
            self.repacked = costs.back().map_or(self.repacked, |cost| cost.lsn);
        }
        for cost in &costs {
            let admitted = self.admit(*cost, header_rf);
            debug_assert!(admitted || cost.lsn <= self.repacked, "the flusher packed worse than the reservation: {cost:?}");
        }
        self.unplaced = costs;
    }
}
