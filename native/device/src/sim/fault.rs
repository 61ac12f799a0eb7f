//! Faults that a simulated drive can be told to have.

use std::ops::Range;

use crate::rng::Rng;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// EIO; nothing is read.
    ReadError,
    /// EIO; any prefix of the write may have landed, none and all included.
    WriteError,
    /// EIO of a flush, or of the flush in a durable write: readers see what was written, a power cut may take it back,
    /// and no later flush changes that (fsyncgate): it succeeds without having made anything durable.
    FlushError,
    /// Acknowledged, but only a prefix lands, cut at 512 bytes.
    TornWrite,
    /// Acknowledged and never lands.
    LostWrite,
    /// Acknowledged, but lands at another 4 KiB-aligned place of the same file.
    MisdirectedWrite,
    /// Answers with the bytes of another 4 KiB-aligned place of the same file.
    MisdirectedRead,
    /// A bit in the range that is read has flipped, for good.
    BitRot,
    /// The call takes this much virtual time more.
    Slow { delay_ns: u64 },
    /// ENOSPC on creating, writing and prefilling; `space` shows nothing free.
    Full,
    /// Every call fails with this error (ENODEV: unplugged; ENOTCONN: its FUSE exporter died).
    Vanished { errno: i32 },
}

/// Which of the matching calls a fault hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    Always,
    /// The n-th from now, counted from 1, and no other.
    Nth(u64),
    /// Each with a chance of `numerator` in `denominator`, by the drive's seed.
    Chance {
        numerator: u64,
        denominator: u64,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub kind: FaultKind,
    /// `None`: every file. Calls that concern no file (flush, list …) match every fault.
    pub file: Option<String>,
    /// Bytes of the file; a call matches when it touches one of them. `None`: everywhere.
    pub range: Option<Range<u64>>,
    pub trigger: Trigger,
}

impl Fault {
    /// On every matching call, everywhere.
    pub fn always(kind: FaultKind) -> Self {
        Self { kind, file: None, range: None, trigger: Trigger::Always }
    }

    pub fn nth(kind: FaultKind, count: u64) -> Self {
        Self { trigger: Trigger::Nth(count), ..Self::always(kind) }
    }

    pub fn chance(kind: FaultKind, numerator: u64, denominator: u64) -> Self {
        Self { trigger: Trigger::Chance { numerator, denominator }, ..Self::always(kind) }
    }

    /// The same fault, only in this range of this file.
    pub fn within(self, file: &str, range: Range<u64>) -> Self {
        Self { file: Some(file.to_owned()), range: Some(range), ..self }
    }
}

/// Names a fault that was set, to lift it or to ask how often it struck.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FaultId(pub(super) u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    Read,
    Write,
    /// A write with its flush.
    Durable,
    Flush,
    Create,
    /// Opening, listing, removing, lengths, space.
    Other,
}

impl FaultKind {
    fn concerns(self, call: Call) -> bool {
        match self {
            FaultKind::ReadError | FaultKind::MisdirectedRead | FaultKind::BitRot => call == Call::Read,
            FaultKind::WriteError
            | FaultKind::TornWrite
            | FaultKind::LostWrite
            | FaultKind::MisdirectedWrite => matches!(call, Call::Write | Call::Durable),
            FaultKind::FlushError => matches!(call, Call::Flush | Call::Durable),
            FaultKind::Slow { .. } => matches!(call, Call::Read | Call::Write | Call::Durable | Call::Flush),
            FaultKind::Full => matches!(call, Call::Write | Call::Durable | Call::Create),
            FaultKind::Vanished { .. } => true,
        }
    }
}

#[derive(Clone, Debug)]
struct Armed {
    id: FaultId,
    fault: Fault,
    matched: u64,
    hits: u64,
}

impl Armed {
    fn matches(&self, call: Call, place: Option<(&str, &Range<u64>)>) -> bool {
        if !self.fault.kind.concerns(call) {
            return false;
        }
        let Some((file, range)) = place else { return true };
        let same_file = self.fault.file.as_ref().is_none_or(|wanted| wanted == file);
        let touches = |wanted: &Range<u64>| wanted.start < range.end && range.start < wanted.end;
        same_file && self.fault.range.as_ref().is_none_or(touches)
    }

    fn fires(&mut self, rng: &mut Rng) -> bool {
        self.matched += 1;
        let fires = match self.fault.trigger {
            Trigger::Always => true,
            Trigger::Nth(count) => self.matched == count,
            Trigger::Chance { numerator, denominator } => rng.chance(numerator, denominator),
        };
        self.hits += u64::from(fires);
        fires
    }
}

/// The faults of one drive, with a generator of their own, so that one drive's calls do not change another's luck.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    armed: Vec<Armed>,
    next: u64,
    pub(super) rng: Rng,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self { armed: Vec::new(), next: 0, rng: Rng::from_seed(seed) }
    }

    pub(super) fn add(&mut self, fault: Fault) -> FaultId {
        let id = FaultId(self.next);
        self.next += 1;
        self.armed.push(Armed { id, fault, matched: 0, hits: 0 });
        id
    }

    /// How often it struck, up to now.
    pub(super) fn hits(&self, id: FaultId) -> u64 {
        self.armed.iter().find(|armed| armed.id == id).map_or(0, |armed| armed.hits)
    }

    pub(super) fn remove(&mut self, id: FaultId) {
        self.armed.retain(|armed| armed.id != id);
    }

    pub(super) fn clear(&mut self) {
        self.armed.clear();
    }

    /// Whether nothing reaches the drive at all.
    pub(super) fn is_away(&self) -> bool {
        self.armed.iter().any(|armed| {
            matches!(armed.fault.kind, FaultKind::Vanished { .. }) && armed.fault.trigger == Trigger::Always
        })
    }

    pub(super) fn is_full(&self) -> bool {
        self.armed
            .iter()
            .any(|armed| armed.fault.kind == FaultKind::Full && armed.fault.trigger == Trigger::Always)
    }

    /// The faults that strike this call, in the order in which they were set.
    pub(super) fn strike(&mut self, call: Call, place: Option<(&str, &Range<u64>)>) -> Vec<FaultKind> {
        let mut struck = Vec::new();
        for armed in &mut self.armed {
            if armed.matches(call, place) && armed.fires(&mut self.rng) {
                struck.push(armed.fault.kind);
            }
        }
        struck
    }
}
