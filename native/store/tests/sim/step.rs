//! The steps that a run is made of, and how often each comes.

use holdfast_device::Rng;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum StepName {
    Create,
    WriteAligned,
    WritePartial,
    WriteLarge,
    Truncate,
    Punch,
    Rename,
    Unlink,
    Copy,
    Fsync,
    Read,
    ReadAll,
    Flush,
    Second,
    Drain,
    Compact,
    Expire,
    Clean,
    Heartbeat,
    Settle,
    HealStep,
    ScrubStep,
    Scrub,
    Fsck,
    Wait,
    Close,
    Kill,
    PowerCut,
    EndSoon,
    AddDrive,
    RemoveDrive,
    ReplaceDrive,
    Snapshot,
    DropSnapshot,
    ReadPast,
    Clone,
    Destroy,
    Loosen,
    Bases,
    SetRf,
}

use StepName as S;

/// (step, weight)
const WEIGHTS: [(StepName, u64); 40] = [
    (S::Create, 8),
    (S::WriteAligned, 16),
    (S::WritePartial, 16),
    (S::WriteLarge, 8),
    (S::Truncate, 5),
    (S::Punch, 5),
    (S::Rename, 3),
    (S::Unlink, 3),
    (S::Copy, 6),
    (S::Fsync, 12),
    (S::Read, 20),
    (S::ReadAll, 4),
    (S::Flush, 6),
    (S::Second, 6),
    (S::Drain, 6),
    (S::Compact, 6),
    (S::Expire, 3),
    (S::Clean, 8),
    (S::Heartbeat, 5),
    (S::Settle, 2),
    (S::HealStep, 8),
    (S::ScrubStep, 8),
    (S::Scrub, 1),
    (S::Fsck, 1),
    (S::Wait, 1),
    (S::Close, 1),
    (S::Kill, 1),
    (S::PowerCut, 1),
    (S::EndSoon, 5),
    (S::AddDrive, 1),
    (S::RemoveDrive, 1),
    (S::ReplaceDrive, 1),
    (S::Snapshot, 5),
    (S::DropSnapshot, 2),
    (S::ReadPast, 8),
    (S::Clone, 4),
    (S::Destroy, 3),
    (S::Loosen, 4),
    (S::Bases, 3),
    (S::SetRf, 3),
];

impl StepName {
    pub fn all() -> impl Iterator<Item = Self> {
        WEIGHTS.iter().map(|(step, _)| *step)
    }

    pub fn text(self) -> String {
        format!("step: {self:?}")
    }

    /// `past`: with those that make snapshots and clones, and change what volumes promise.
    pub fn choose(rng: &mut Rng, past: bool) -> Self {
        let wanted = || WEIGHTS.into_iter().filter(|(step, _)| past || !step.is_of_past());
        let mut at = rng.below(wanted().map(|(_, weight)| weight).sum());
        for (step, weight) in wanted() {
            if at < weight {
                return step;
            }
            at -= weight;
        }
        S::Read
    }

    pub fn is_of_files(self) -> bool {
        self <= S::ReadAll
    }

    pub fn is_of_past(self) -> bool {
        self >= S::Snapshot
    }
}
