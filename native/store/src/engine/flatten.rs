//! Clones that depend on fewer others: long chains are shortened by themselves, and one may be asked to stand alone.
//!
//! Each generation of clones costs one more look-up of what it does not have itself. Beyond [`CLONE_DEPTH_MAX`] a clone takes
//! over what its ancestors changed, down to the oldest, whose records are the many: then it is a clone of that one.

use super::Engine;
use crate::error::{Error, Result};
use crate::group::Group;
use crate::group::view::Base;
use holdfast_format::GroupId;
use holdfast_format::key::Key;
use std::sync::Arc;

/// Generations that a clone may lie on.
const CLONE_DEPTH_MAX: usize = 8;

/// The clone that is being worked on, and where its next step begins. Held during a step.
#[derive(Default)]
pub(super) struct Flattening(Option<(GroupId, usize, Key)>);

/// What a group is a clone of, and what that is a clone of.
fn ancestors(group: &Group) -> impl Iterator<Item = Arc<Base>> {
    std::iter::successors(group.base(), |base| base.group.base())
}

impl Engine {
    /// Lets a clone have everything of its own, in steps that others may come between. Its parent's space is given back
    /// when the parent goes, and what the two still share when both do.
    ///
    /// # Errors
    /// `NotFound`; `Invalid`: it is no clone. After an error or a crash: ask again.
    pub fn clone_promote(&self, name: &str) -> Result<()> {
        let group = self.group_of(name)?;
        if group.base().is_none() {
            return Err(Error::invalid(format!("{name} is no clone: it has everything of its own")));
        }
        while self.clone_take_over(name, 0, self.pool.shares_per_edit())? {
            self.ensure_open()?;
        }
        Ok(())
    }

    /// One step: a clone takes over about so many pages of all its ancestors but the oldest `kept`. False: it was the last one.
    pub fn clone_take_over(&self, name: &str, kept: usize, pages: usize) -> Result<bool> {
        let group = self.group_of(name)?;
        self.flatten_step(&group, kept, pages)
    }

    /// The housekeeper's step. False: no chain is too long.
    pub(super) fn shorten_step(&self) -> Result<bool> {
        for group in self.groups() {
            if ancestors(&group).nth(CLONE_DEPTH_MAX).is_some()
                && self.pool.group(group.id).is_some_and(|record| !record.destroyed)
            {
                self.flatten_step(&group, 1, self.pool.shares_per_edit())?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn flatten_step(&self, group: &Group, kept: usize, pages: usize) -> Result<bool> {
        let mut flattening = self.flattening.lock();
        let mut ancestors: Vec<Arc<Base>> = ancestors(group).collect();
        if ancestors.len() <= kept {
            return Ok(false);
        }
        let ground = ancestors.split_off(ancestors.len() - kept).into_iter().next();
        let from = match &flattening.0 {
            Some((at, kept_before, next)) if (*at, *kept_before) == (group.id, kept) => next.clone(),
            _ => Key::new(),
        };
        // The new ground is kept for this clone before the manifest says so; the old one until it does not.
        let pin = ground.as_ref().and_then(|base| base.group.pin(base.at));
        let next = group.absorb_step(&ancestors, ground.clone(), (&from, pages))?;
        flattening.0 = next.map(|next| (group.id, kept, next));
        if flattening.0.is_some() {
            return Ok(true);
        }
        if let Some(ground) = ground {
            ground.group.pin_for_clone(ground.at);
        }
        drop(pin);
        drop(flattening);
        let left = ancestors.first().map(|base| (base.group.id, base.at));
        self.let_go_of_base(left).map(|()| false)
    }
}
