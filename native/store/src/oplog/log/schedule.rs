//! What several flushers do, in an order that the caller chooses: frames in flight together without threads, so that the
//! same choices give the same writes. Crash tests play it on simulated drives.

use super::flight::{FLIGHTS_MAX, Flight};
use super::{Log, Moved};
use crate::error::Result;
use std::collections::VecDeque;

/// Decides how flushers take turns.
pub trait Turns {
    /// Which of `count` (at least 2) possible things is done next.
    fn choose(&mut self, count: usize) -> usize;
    /// A frame is about to make a write. `together`: other frames' writes since this one's last write may still be under
    /// way.
    fn writes(&mut self, together: bool);
}

struct Turn {
    flight: Flight,
    /// Of its writes, those that are done.
    done: usize,
}

impl Log {
    /// Like [`Log::flush`], with the ops cut into frames after every `ops` of them, up to two frames in flight, and each
    /// step of theirs when `turns` says so.
    pub fn flush_in_turns(&self, ops: usize, moved: Moved<'_>, turns: &mut dyn Turns) -> Result<()> {
        let mut cuts = self.cuts(ops)?;
        let mut flying: VecDeque<Turn> = VecDeque::new();
        // Numbers of the frames whose writes may be under way together with the newest one.
        let mut company: Vec<u64> = Vec::new();
        loop {
            // One that landed before an older one still counts.
            let may_begin = self.flights.lock().len() < FLIGHTS_MAX && !cuts.is_empty();
            let choices = flying.len() + may_begin as usize;
            let choice = match choices {
                0 => break,
                1 => 0,
                count => turns.choose(count),
            };
            if choice == flying.len() {
                // It may have taken segments, which its writes need.
                company.clear();
                match self.take_off(cuts[0])? {
                    Some(flight) => flying.push_back(Turn { flight, done: 0 }),
                    None => drop(cuts.pop_front()),
                }
                continue;
            }
            let turn = &mut flying[choice];
            let number = turn.flight.number();
            let writes = turn.flight.writes();
            let together = !company.is_empty() && !company.contains(&number);
            if !together {
                company.clear();
            }
            company.push(number);
            turns.writes(together);
            self.write_part(&turn.flight, writes[turn.done]).inspect_err(|error| self.fail(error.clone()))?;
            turn.done += 1;
            if turn.done == writes.len() {
                flying.remove(choice);
                self.land(number, moved);
            }
        }
        self.flush(moved)
    }

    /// Positions in the ring after every `ops` records that no frame was begun for, and the end.
    fn cuts(&self, ops: usize) -> Result<VecDeque<u64>> {
        let (mut position, end) = self.ring.window();
        let mut cuts = VecDeque::new();
        let mut count = 0usize;
        while position < end {
            position = self.ring.record(position)?.next;
            count += 1;
            if count.is_multiple_of(ops) || position >= end {
                cuts.push_back(position);
            }
        }
        Ok(cuts)
    }
}
