//! Seeded bugs, to prove that the tests find such. In a product build (without the feature `mutants`) there are none:
//! [`is`] is a constant, and what it guards is compiled out.

/// Each breaks one rule in one place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mutant {
    /// A flush is answered before it is made.
    SkipFlush,
    /// A page is believed without its parent's checksum.
    DropChecksum,
    /// An older image of a drive is not told from a new one.
    DropMark,
    /// Scrub repairs from the first copy that can be read.
    HealFromFirstCopy,
    /// Replay goes on past a frame whose payload is bad.
    ReplayPastBadRecord,
    /// A write that failed is believed after a flush that did not.
    BelieveRetriedFlush,
    /// Scrub looks at the first copy only.
    ScrubSkipsSecondCopy,
    /// A drain says that it took one operation more than it did.
    DrainPastDurable,
    /// A freed slot is used again at once.
    ReuseAtOnce,
    /// An operation is acknowledged, and its place in the log is empty: a hole under later operations.
    AckOverHole,
    /// Membership is not raised before the acknowledgement that a drive misses.
    RaiseMembershipLate,
    /// What a compaction released is not in its edit.
    ReleaseWithoutEdit,
    /// A frame is told by its group and not by its incarnation.
    NameWithoutStamp,
}

impl Mutant {
    pub const ALL: [Self; 13] = [
        Self::SkipFlush,
        Self::DropChecksum,
        Self::DropMark,
        Self::HealFromFirstCopy,
        Self::ReplayPastBadRecord,
        Self::BelieveRetriedFlush,
        Self::ScrubSkipsSecondCopy,
        Self::DrainPastDurable,
        Self::ReuseAtOnce,
        Self::AckOverHole,
        Self::RaiseMembershipLate,
        Self::ReleaseWithoutEdit,
        Self::NameWithoutStamp,
    ];
}

#[cfg(feature = "mutants")]
thread_local! {
    static CHOSEN: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// The engines of this thread have this bug from now on.
#[cfg(feature = "mutants")]
pub fn choose(mutant: Option<Mutant>) {
    CHOSEN.set(mutant);
}

/// Whether the engine has this bug.
#[cfg(feature = "mutants")]
pub(crate) fn is(mutant: Mutant) -> bool {
    CHOSEN.get() == Some(mutant)
}

/// Whether the engine has this bug.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}

/// `mutant!(SkipFlush)`: whether the engine has this bug; `false` in a product build.
macro_rules! mutant {
    ($name:ident) => {
        crate::mutants::is(crate::mutants::Mutant::$name)
    };
}
pub(crate) use mutant;
