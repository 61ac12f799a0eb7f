//! What a run can do wrong, each with its name.

/// A demand that was not met.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Check {
    /// A read answered with bytes that were never there at that moment (I-4).
    WrongBytes,
    /// A kept point reads other than it was when it was kept.
    PastChanged,
    /// A snapshot that was promised is not there, or one is that nobody made or that was deleted.
    PointLost,
    /// A clone or the end of a volume is there in part.
    HalfDone,
    /// A read failed although an entitled copy lives.
    Unreadable,
    /// A recovery came back older than what was promised to be durable.
    LostDurable,
    /// A `kill -9` lost an acknowledged operation.
    LostAcknowledged,
    /// A recovered state is that of no LSN.
    NotOneLsn,
    /// A pool does not open although it could.
    RefusedOpen,
    /// A call failed that had to succeed.
    RefusedCall,
    /// An error of a kind that tells nobody what to do.
    VagueError,
    /// A drive that failed a write is still believed (I-8).
    FailedDriveBelieved,
    /// A drive that missed writes came back as one that counts (I-7).
    StaleDriveBelieved,
    /// A drive was exchanged and nobody noticed.
    ExchangeUnnoticed,
    /// After the faults were lifted: a scrub that is not clean.
    ScrubNotClean,
    /// After the faults were lifted: copies are missing.
    NotHealed,
    /// After the faults were lifted and healed: a drive may still not be lost.
    NotRedundant,
    /// The records contradict each other.
    Inconsistent,
    /// Without the newest manifest record, what the one before it names is gone.
    ManifestOutrun,
    /// No answer, or work without an end.
    Wedged,
    Panicked,
}

#[derive(Clone, Debug)]
pub struct Violation {
    pub check: Check,
    pub what: String,
}

impl Violation {
    pub fn new(check: Check, what: impl Into<String>) -> Self {
        Self { check, what: what.into() }
    }
}

pub type Verdict<T = ()> = Result<T, Violation>;
