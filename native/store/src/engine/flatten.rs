//! Clones that depend on fewer others: long chains are shortened by themselves, and one may be asked to stand alone.
//!
//! Each generation of clones costs one more look-up of what it does not have itself. Beyond [`CLONE_DEPTH_MAX`] a clone takes
//! over what its ancestors changed, down to the oldest, whose records are the many: then it is a clone of that one.
//!
//! A clone that is asked to stand alone (**promotion**) takes over everything that it is shown of all its ancestors. The wish and
//! how far it is are in the pool's records, each step with what it took over: a start goes on there.

use super::Engine;
use crate::error::{Error, Kind, Result};
use crate::group::{Group, PROMOTED};
use crate::group::view::Base;
use crate::placement::{Edit, GroupChange};
use holdfast_format::GroupId;
use holdfast_format::inode::Time;
use holdfast_format::key::Key;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Generations that a clone may lie on. Looking up a name that no one but the oldest has takes 1.9 times as long then as without
/// any, and 2.6 times on 8 (`tests/clones.rs`, the chain, everything cached).
const CLONE_DEPTH_MAX: usize = 4;
/// Of [`Engine::clone_take_over`]: nothing stays below.
const ALONE: usize = 0;
/// What the housekeeper leaves below a chain that is too long.
const OLDEST: usize = 1;

/// How far a promotion is, in bytes of the ancestors' records.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PromotionInfo {
    pub done_bytes: u64,
    pub total_bytes: u64,
    /// Why the newest step failed; it is tried again. Empty: it did not.
    pub problem: String,
}

/// What a clone lies on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BaseInfo {
    pub group: String,
    pub lsn: u64,
    /// Of that point, while it is a snapshot; empty otherwise.
    pub name: String,
    /// When it was made; `None`: it is kept for clones only, which note no time.
    pub wall: Option<Time>,
    /// Generations below: 1 is a clone of what is no clone.
    pub depth: u64,
}

/// What a clone holds, in bytes of content, once, whatever its copies.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CloneSpace {
    /// What its own tables name, of now and of its past.
    pub own: u64,
    /// What it shows of its ancestors.
    pub shared: u64,
    /// What its parent keeps of its past for this clone alone.
    pub kept: u64,
}

/// A clone that is being worked on.
#[derive(Default)]
struct Place {
    /// Where its next step begins.
    next: Key,
    failure: Option<Error>,
}

/// Lock order: turn, places.
#[derive(Default)]
pub(super) struct Flattening {
    /// One step at a time.
    turn: Mutex<()>,
    /// By group and the number of ancestors that stay below it. Those of promotions are in the pool's records, too.
    places: Mutex<BTreeMap<(GroupId, usize), Place>>,
}

impl Flattening {
    fn next(&self, at: (GroupId, usize)) -> Key {
        self.places.lock().get(&at).map(|place| place.next.clone()).unwrap_or_default()
    }

    fn is_promoting(&self, id: GroupId) -> bool {
        self.places.lock().contains_key(&(id, ALONE))
    }

    /// Everything was taken over; the wish is fulfilled with [`Engine::end_promotion`].
    fn promoted(&self, id: GroupId) {
        let place = Place { next: PROMOTED.to_vec(), failure: None };
        self.places.lock().insert((id, ALONE), place);
    }

    /// No step is taken while this is held.
    pub(super) fn pause(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// The group is no more, or has everything of its own.
    pub(super) fn forget(&self, id: GroupId) {
        self.places.lock().retain(|(of, _), _| *of != id);
    }
}

/// What a group is a clone of, and what that is a clone of.
fn ancestors(group: &Group) -> impl Iterator<Item = Arc<Base>> {
    std::iter::successors(group.base(), |base| base.group.base())
}

impl Engine {
    /// Lets a clone have everything of its own, in steps that others may come between. Its parent's space is given back
    /// when the parent goes, and what the two still share when both do.
    ///
    /// # Errors
    /// As [`Self::clone_promote_begin`]; those of a step. After an error or a crash: ask again, it goes on where it was.
    pub fn clone_promote(&self, name: &str) -> Result<()> {
        if !self.clone_promote_begin(name)? {
            return Ok(());
        }
        while self.clone_take_over(name, ALONE, self.pool.shares_per_edit())? {
            self.ensure_open()?;
        }
        Ok(())
    }

    /// The same, durably wished for: the housekeeper does it, also after a start. False: it has everything of its own already.
    ///
    /// # Errors
    /// `NotFound`; `Conflict`: a volume that shares its group.
    pub fn clone_promote_begin(&self, name: &str) -> Result<bool> {
        let group = self.group_of(name)?;
        // A step that was begun ends first: it may be the last one.
        let _turn = self.flattening.turn.lock();
        if group.base().is_none() {
            return Ok(self.flattening.is_promoting(group.id));
        }
        if !self.flattening.is_promoting(group.id) {
            let wish = GroupChange::Promotion { id: group.id, next: Some(Key::new()) };
            self.pool.publish(Edit { groups: vec![wish], ..Edit::default() })?;
            self.flattening.places.lock().insert((group.id, ALONE), Place::default());
        }
        self.housekeeper.ring();
        Ok(true)
    }

    /// Promotions that were under way when the pool was closed.
    pub(super) fn resume_promotions(&self) -> Result<()> {
        for group in self.groups() {
            let Some(next) = self.pool.promotion(group.id)? else { continue };
            self.flattening.places.lock().insert((group.id, ALONE), Place { next, failure: None });
        }
        Ok(())
    }

    pub(super) fn base_info(&self, group: &Group) -> Option<BaseInfo> {
        let depth = ancestors(group).count() as u64;
        let base = group.base()?;
        let point = base.group.kept(base.at);
        let wall = point.as_ref().map(|point| point.wall);
        let name = point.map(|point| point.name).unwrap_or_default();
        Some(BaseInfo { group: self.group_name(base.group.id), lsn: base.at.0, name, wall, depth })
    }

    /// What the group of a volume that is a clone holds. Reads up to `table_bytes_max` bytes of tables.
    ///
    /// # Errors
    /// `NotFound`; `Invalid`: it is no clone; `Unavailable`: it would read more.
    pub fn clone_space(&self, name: &str, table_bytes_max: u64) -> Result<CloneSpace> {
        let kept = self.clone_pin_space(name, table_bytes_max)?.unique_lasting;
        let (id, _) = self.find(name)?;
        let group = self.group(id)?;
        let ancestors: Vec<Arc<Base>> = ancestors(&group).collect();
        let tables = ancestors.iter().map(|base| base.group.tree().bytes_before(&[]).1).sum::<u64>();
        if tables > table_bytes_max {
            let message = format!("telling what {name} shares would read {} MiB of tables", tables >> 20);
            return Err(Error::new(Kind::Unavailable, message));
        }
        let stats = group.tree().stats();
        let own = stats.then.payload_bytes + stats.levels.iter().map(|level| level.payload_bytes).sum::<u64>();
        Ok(CloneSpace { own, shared: group.inherited_bytes(&ancestors)?, kept })
    }

    /// How far it is; `None`: nobody asked for it, or it is done.
    pub(super) fn promotion_of(&self, group: &Group) -> Option<PromotionInfo> {
        let (next, problem) = {
            let places = self.flattening.places.lock();
            let place = places.get(&(group.id, ALONE))?;
            (place.next.clone(), place.failure.as_ref().map(Error::to_string).unwrap_or_default())
        };
        let mut info = PromotionInfo { problem, ..PromotionInfo::default() };
        for base in ancestors(group) {
            let (done, total) = base.group.tree().bytes_before(&next);
            info.done_bytes += done;
            info.total_bytes += total;
        }
        Some(info)
    }

    /// Sentences for the administrator.
    pub(super) fn promotion_warnings(&self) -> Vec<String> {
        let places = self.flattening.places.lock();
        let failed = places.iter().filter(|((_, kept), _)| *kept == ALONE);
        let failed = failed.filter_map(|((id, _), place)| Some((*id, place.failure.as_ref()?.to_string())));
        let failed: Vec<(GroupId, String)> = failed.collect();
        drop(places);
        let told = |(id, error): (GroupId, String)| {
            format!("clone {} does not become independent of its origin: {error}", self.group_name(id))
        };
        failed.into_iter().map(told).collect()
    }

    /// One step: a clone takes over about so many pages of all its ancestors but the oldest `kept`. False: it was the last one.
    pub fn clone_take_over(&self, name: &str, kept: usize, pages: usize) -> Result<bool> {
        let group = self.group_of(name)?;
        self.flatten_step(&group, kept, pages)
    }

    /// The housekeeper's step. False: nobody is to stand alone, and no chain is too long.
    pub(super) fn flattening_step(&self) -> Result<bool> {
        for group in self.groups() {
            if self.pool.group(group.id).is_none_or(|record| record.destroyed) {
                continue;
            }
            if self.flattening.is_promoting(group.id) {
                return self.promotion_step(&group);
            }
            if ancestors(&group).nth(CLONE_DEPTH_MAX).is_some() {
                self.flatten_step(&group, OLDEST, self.pool.shares_per_edit())?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// False: it has to wait for something.
    fn promotion_step(&self, group: &Arc<Group>) -> Result<bool> {
        let step = self.flatten_step(group, ALONE, self.pool.shares_per_edit());
        let failure = match step {
            Ok(_) => None,
            // It was destroyed meanwhile.
            Err(error) if error.kind == Kind::NotFound && self.pool.group(group.id).is_none() => return Ok(true),
            Err(error) => Some(error),
        };
        let failed = failure.is_some();
        if let Some(place) = self.flattening.places.lock().get_mut(&(group.id, ALONE)) {
            place.failure = failure;
        }
        Ok(!failed)
    }

    fn flatten_step(&self, group: &Arc<Group>, kept: usize, pages: usize) -> Result<bool> {
        let turn = self.flattening.turn.lock();
        if self.pool.group(group.id).is_none_or(|record| record.destroyed) {
            return Err(Error::new(Kind::NotFound, format!("group {} has gone", group.id)));
        }
        let mut ancestors: Vec<Arc<Base>> = ancestors(group).collect();
        if ancestors.len() <= kept {
            let ends = kept == ALONE && self.flattening.is_promoting(group.id);
            return if ends { self.end_promotion(group).map(|()| false) } else { Ok(false) };
        }
        let ground = ancestors.split_off(ancestors.len() - kept).into_iter().next();
        let from = self.flattening.next((group.id, kept));
        // The new ground is kept for this clone before the manifest says so; the old one until it does not.
        let pin = ground.as_ref().and_then(|base| base.group.pin(base.at));
        let next = group.absorb_step(&ancestors, ground.clone(), (&from, pages))?;
        if let Some(next) = next {
            self.flattening.places.lock().entry((group.id, kept)).or_default().next = next;
            return Ok(true);
        }
        match &ground {
            Some(ground) => {
                ground.group.pin_for_clone(ground.at);
                self.flattening.places.lock().remove(&(group.id, kept));
            }
            None => self.flattening.promoted(group.id),
        }
        drop(pin);
        drop(turn);
        let left = ancestors.first().map(|base| (base.group.id, base.at));
        self.let_go_of_base(left)?;
        match ground {
            Some(_) => self.delete_leftovers(group).map(|()| false),
            None => self.end_promotion(group).map(|()| false),
        }
    }

    /// It stands alone. Can be done again.
    fn end_promotion(&self, group: &Arc<Group>) -> Result<()> {
        self.delete_leftovers(group)?;
        let done = GroupChange::Promotion { id: group.id, next: None };
        self.pool.publish(Edit { groups: vec![done], ..Edit::default() })?;
        self.flattening.forget(group.id);
        Ok(())
    }
}
