//! Features of the format that a program has to know before it opens the pool: bits of the superblocks.
//!
//! Invariants:
//! - A bit is durable in the superblocks of all drives that count before the manifest holds what it stands for.
//! - It stays while the pool is open: the area of the manifest still holds the record of what has gone. A start begins with a
//!   fresh area, and writes the superblocks after it.

use super::image::Image;
use super::journal::Journal;
use super::superblocks::Beat;
use super::{Edit, GroupChange, Pool};
use crate::error::Result;
use holdfast_format::superblock::{INCOMPAT_CLONES, INCOMPAT_LATER_ROWS, INCOMPAT_PAST, INCOMPAT_REPLICAS};
use std::sync::atomic::Ordering;

/// What the manifest holds that not every program knows, and what any op and any table may: every pool has that.
fn features_of(image: &Image) -> u64 {
    let groups = || image.groups.values();
    let later_rows = if groups().any(|group| group.first_row > 0) { INCOMPAT_LATER_ROWS } else { 0 };
    let clones = if groups().any(|group| group.base.is_some()) { INCOMPAT_CLONES } else { 0 };
    let replicas = if groups().any(|group| group.replicated) { INCOMPAT_REPLICAS } else { 0 };
    INCOMPAT_PAST | later_rows | clones | replicas
}

/// What the manifest holds once this edit is in it.
fn features_in(edit: &Edit) -> u64 {
    let bit = |change: &GroupChange| match change {
        GroupChange::Create { base: Some(_), .. } => INCOMPAT_CLONES,
        GroupChange::Replicated { .. } => INCOMPAT_REPLICAS,
        _ => 0,
    };
    edit.groups.iter().map(bit).fold(0, |bits, bit| bits | bit)
}

impl Pool {
    /// Bits for the superblocks.
    pub(super) fn features(&self) -> u64 {
        let now = features_of(&self.image.read());
        now | self.features.fetch_or(now, Ordering::AcqRel)
    }

    /// Before this edit is written: the superblocks say what it brings.
    pub(super) fn announce_edit(&self, journal: &mut Journal, edit: &Edit) -> Result<()> {
        let fresh = features_in(edit) & !self.features();
        if fresh == 0 {
            return Ok(());
        }
        self.check_writable()?;
        self.ensure_owner_locked(journal)?;
        self.features.fetch_or(fresh, Ordering::AcqRel);
        self.announce_features(journal)
    }

    /// Superblocks with the bits of now. A drive that does not take them is out when it returns.
    pub(super) fn announce_features(&self, journal: &mut Journal) -> Result<()> {
        let failed = self.write_superblocks(journal, Beat::All);
        self.put_out_locked(journal, failed)
    }
}
