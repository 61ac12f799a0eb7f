//! A clone takes over what it has of its ancestors: map records only, a step at a time. Between two steps it reads what it took
//! over twice, from its own tables first, which say the same.

use super::Group;
use super::view::Base;
use crate::error::Result;
use crate::metadata::tree::{Floor, Layer, Share};
use crate::placement::{Edit, GroupChange};
use holdfast_format::{BranchId, Lsn};
use holdfast_format::key::Key;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Group {
    /// One step, from a key on, of about so many pages: takes over records of `ancestors`, nearest first, and lies on `ground`
    /// when it was the last one. Returns where the next step begins.
    ///
    /// 1. What the ancestors' points see lies in their tables.
    /// 2. Tables and the pages they name are published in one edit; the last one also says what the group is a clone of.
    /// 3. Readers switch over.
    ///
    /// A crash before the last edit leaves tables that say the same as the ancestors: taken over again, they lie below those.
    /// What was taken over before, of nearer ancestors, has the same stamp, but hides what they have: it takes part as the
    /// nearest of all.
    pub fn absorb_step(
        &self,
        ancestors: &[Arc<Base>],
        ground: Option<Arc<Base>>,
        (from, pages_max): (&[u8], usize),
    ) -> Result<Option<Key>> {
        for base in ancestors.iter().filter(|base| base.group.drained() < base.at) {
            base.group.drain_now()?;
        }
        let _alone = self.maintenance.lock();
        // Slots of tables that the ancestors give up meanwhile.
        let _hold = self.pool.hold();
        let branches: BTreeSet<BranchId> = self.volumes()?.into_iter().map(|(branch, _)| branch).collect();
        let layer = |base: &Arc<Base>| Layer { levels: base.group.tree.snapshot(), at: base.at };
        let own = self.tree.snapshot();
        let took_over = own.tables().any(|table| table.desc.stamp_min == Lsn(0));
        let own = took_over.then_some(Layer { levels: own, at: Lsn(0) });
        let layers: Vec<Layer> = own.into_iter().chain(ancestors.iter().map(layer)).collect();
        let floor = ground.clone().map(|base| base as Arc<dyn Floor>);
        let share = Share { branches: &branches, from, pages_max };
        let absorbed = self.tree.absorb(&layers, floor.clone(), &share)?;
        let base = ground.as_ref().map(|base| (base.group.id, base.at));
        let last = absorbed.next.is_none();
        self.pool.publish(Edit {
            groups: last.then_some(GroupChange::Rebase { id: self.id, base }).into_iter().collect(),
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
}
