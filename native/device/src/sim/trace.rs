//! The record of everything that changed the drives of a world, in one order.

use std::sync::Arc;

use super::image::{Content, DriveImage, hash_bytes, mix};

/// A write as it reached the disk: faults have already had their way with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landed {
    pub drive: usize,
    pub file: Arc<str>,
    pub offset: u64,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Cached(Landed),
    /// Durable when the call returned; the members of a set were under way together.
    Durable(Vec<Landed>),
    /// A durable write that reported an error: there or not, and no later flush decides it.
    Failed(Landed),
    Flush {
        drive: usize,
    },
    /// Reported an error: nothing that was unflushed is durable, and no later flush makes it so.
    FlushFailed {
        drive: usize,
    },
    Create {
        drive: usize,
        file: Arc<str>,
        bytes: u64,
    },
    Remove {
        drive: usize,
        file: Arc<str>,
    },
    /// The program's own note (an acknowledged op, a step reached). Changes no drive.
    Mark {
        name: &'static str,
        value: u64,
    },
}

/// Name and size of a drive, to set it up again in a crash state.
#[derive(Clone, Debug)]
pub(super) struct DriveLabel {
    pub(super) name: String,
    pub(super) capacity_bytes: u64,
    pub(super) disk_id: u64,
}

/// Drives as they were when the trace began (all of it durable), and what happened since.
#[derive(Clone, Debug)]
pub struct Trace {
    pub(super) labels: Vec<DriveLabel>,
    pub(super) base: Vec<DriveImage>,
    pub(super) events: Vec<Event>,
}

impl Trace {
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Equal for equal runs: base, events, contents, order.
    pub fn hash(&self) -> u64 {
        let base = self.base.iter().fold(0, |hash, image| mix(hash ^ image.hash()));
        self.events.iter().fold(base, |hash, event| mix(hash.rotate_left(7) ^ event_hash(event)))
    }

    /// The marks passed when the first `position` events had returned, in order.
    pub fn marks(&self, position: usize) -> impl DoubleEndedIterator<Item = (&'static str, u64)> + '_ {
        self.events[..position].iter().filter_map(|event| match event {
            Event::Mark { name, value } => Some((*name, *value)),
            _ => None,
        })
    }

    /// Value of the newest mark of this name among the first `position` events.
    pub fn last_mark(&self, name: &str, position: usize) -> Option<u64> {
        self.marks(position).rev().find(|mark| mark.0 == name).map(|mark| mark.1)
    }
}

fn landed_hash(landed: &Landed) -> u64 {
    let place = hash_bytes(landed.drive as u64, landed.file.as_bytes());
    mix(place ^ mix(landed.offset) ^ landed.content.hash().rotate_left(17))
}

pub(super) fn event_hash(event: &Event) -> u64 {
    match event {
        Event::Cached(landed) => mix(1 ^ landed_hash(landed)),
        Event::Durable(set) => set.iter().fold(2, |hash, landed| mix(hash ^ landed_hash(landed))),
        Event::Failed(landed) => mix(8 ^ landed_hash(landed)),
        Event::Flush { drive } => mix(3 + ((*drive as u64) << 8)),
        Event::FlushFailed { drive } => mix(4 + ((*drive as u64) << 8)),
        Event::Create { drive, file, bytes } => {
            mix(5 ^ mix(*bytes) ^ hash_bytes(*drive as u64, file.as_bytes()))
        }
        Event::Remove { drive, file } => mix(6 ^ hash_bytes(*drive as u64, file.as_bytes())),
        Event::Mark { name, value } => mix(7 ^ hash_bytes(*value, name.as_bytes())),
    }
}
