//! What goes between two sites: the difference between two recovery points of a group, in chunks, and how a replica takes it in.
//!
//! A batch (base, target] has every key whose newest version at `target` is newer than `base`: its value, or that it is gone,
//! and of files the blocks that may differ, as they are at `target`. One computation serves the steady stream, catching up and the
//! first sync (base 0: everything). A base may lie before what the replica has: then the batch says more than it has to.
//!
//! A replica is an ordinary group. Its own log has its own LSNs: a chunk is an op or a few, a recovery point is a kept point that
//! bears the owner's lineage and LSN. So everything that a group can do (recovery, healing, snapshots, clones, differences,
//! the feed) works at a replica unchanged. States between two recovery points are never shown, because they are no points.

pub(crate) mod apply;
pub(crate) mod delta;
pub mod loss;
pub(crate) mod proof;
pub(crate) mod revert;

pub use apply::Staged;
pub use delta::{Delta, Part};
pub use proof::{Found, Lead, Mismatch, MismatchKind, Proof, Verdict, decode_mends};
