//! A clone takes over what it has of its ancestors: map records only, a step at a time. Between two steps it reads what it took
//! over twice, from its own tables first, which say the same.

use super::Group;
use super::recover::branches_of;
use super::view::Base;
use crate::error::Result;
use crate::metadata::tree::{Floor, Layer, Share, Tree};
use crate::placement::{Edit, GroupChange};
use holdfast_format::key::{self, Key};
use holdfast_format::BranchId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Behind every key.
pub const PROMOTED: [u8; 8] = [0xff; 8];

impl Group {
    /// One step, from a key on, of about so many pages: takes over records of `ancestors`, nearest first, and lies on `ground`
    /// when it was the last one. Returns where the next step begins.
    ///
    /// 1. What the ancestors' points see lies in their tables.
    /// 2. Tables and the pages they name are published in one edit. Without a ground it says how far this is, or that it is done;
    ///    the last one says what the group is a clone of.
    /// 3. Readers switch over.
    ///
    /// A crash before the last edit leaves tables that say the same as the ancestors: taken over again, they lie below those.
    /// What the group has itself, be it taken over before, is nearest of all, and stays where it is.
    pub fn absorb_step(
        &self,
        ancestors: &[Arc<Base>],
        ground: Option<Arc<Base>>,
        (from, pages_max): (&[u8], usize),
    ) -> Result<Option<Key>> {
        for base in ancestors.iter().filter(|base| base.group.drained() < base.at) {
            base.group.drain_now()?;
        }
        if from.is_empty() {
            // What hides the ancestors' is told by tables.
            self.drain_now()?;
        }
        let _alone = self.maintenance.lock();
        // Slots of tables that the ancestors give up meanwhile.
        let _hold = self.pool.hold();
        let branches = self.branches_seen()?;
        let (own, layers) = self.layers_of(ancestors);
        let floor = ground.clone().map(|base| base as Arc<dyn Floor>);
        let share = Share { branches: &branches, from, pages_max };
        let absorbed = self.tree.absorb(&own, &layers, floor.clone(), &share)?;
        let base = ground.as_ref().map(|base| (base.group.id, base.at));
        let last = absorbed.next.is_none();
        let rebase = last.then_some(GroupChange::Rebase { id: self.id, base });
        // The wish is fulfilled later: the caller has something left to do.
        let next = Some(absorbed.next.clone().unwrap_or_else(|| PROMOTED.to_vec()));
        let progress = ground.is_none().then_some(GroupChange::Promotion { id: self.id, next });
        self.pool.publish(Edit {
            groups: rebase.into_iter().chain(progress).collect(),
            tables: vec![(self.id, absorbed.edit.clone())],
            ..Edit::default()
        })?;
        self.tree.apply(&absorbed.edit);
        if last {
            self.tree.set_floor(floor);
        }
        let mut view = self.view.write();
        view.levels = self.tree.snapshot();
        if last {
            view.base = ground;
        }
        drop(view);
        let taken: u64 = absorbed.edit.added.iter().map(|table| table.payload_bytes).sum();
        self.present.fetch_add(taken as i64, Ordering::Relaxed);
        self.bound_present();
        Ok(absorbed.next)
    }

    /// The group's own tables, and those of its ancestors, nearest first. What the group's oldest point sees of it, or the present
    /// where there is none, hides the ancestors' from everybody.
    fn layers_of(&self, ancestors: &[Arc<Base>]) -> (Layer, Vec<Layer>) {
        let at = self.merge_points().lsns().first().copied().unwrap_or_else(|| self.newest());
        let own = Layer { levels: self.tree.snapshot(), at };
        let layer = |base: &Arc<Base>| Layer { levels: base.group.tree.snapshot(), at: base.at };
        (own, ancestors.iter().map(layer).collect())
    }

    /// Bytes of content, once, that the present and the points of the group show of its ancestors.
    pub fn inherited_bytes(&self, ancestors: &[Arc<Base>]) -> Result<u64> {
        self.drain_now()?;
        let _hold = self.pool.hold();
        let (own, layers) = self.layers_of(ancestors);
        Tree::inherited_bytes(&own, &layers, &self.branches_seen()?)
    }

    /// Volumes that the present or a kept point sees. Of one that was destroyed the deletion of its record is left, since it
    /// hides the ancestors'.
    fn branches_seen(&self) -> Result<BTreeSet<BranchId>> {
        let view = self.view().own();
        let points = self.merge_points();
        let oldest = points.lsns().first();
        let mut branches = BTreeSet::new();
        for branch in branches_of(&view)? {
            let is_seen = match view.get_own(&key::volume(branch))? {
                Some((_, Some(_))) => true,
                Some((stamp, None)) => oldest.is_some_and(|oldest| *oldest < stamp.lsn),
                None => false,
            };
            if is_seen {
                branches.insert(branch);
            }
        }
        Ok(branches)
    }

    /// Branches of which there are records, but not that of the volume.
    pub fn leftovers(&self) -> Result<Vec<BranchId>> {
        let _hold = self.pool.hold();
        let view = self.view().own();
        let mut left = Vec::new();
        for branch in branches_of(&view)? {
            let mut is_empty = view.get_own(&key::volume(branch))?.is_some_and(|(_, value)| value.is_some());
            if !is_empty {
                is_empty = true;
                view.scan_values(&key::volume(branch), &key::volume(BranchId(branch.0 + 1)), &mut |_, _| {
                    is_empty = false;
                    false
                })?;
            }
            if !is_empty {
                left.push(branch);
            }
        }
        Ok(left)
    }
}
