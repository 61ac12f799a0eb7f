//! What lies on drives follows what its volumes ask for: after a change of RF or domain, after a clone that asks for more
//! than its parent does (any more), and once after a start, every sealed egroup is given the protection of the volumes that
//! name its pages. Healing does the rest: it makes copies that are wanted, drops those that are too many and moves those that
//! are too close.
//!
//! Invariants:
//! - An egroup is lowered only when everything that names its pages was seen: a name that the walk does not know (a drain
//!   may be under way) leaves it as it is.
//! - What is named while a walk is under way, or after it, by a write or drain that began before the change, is found by the
//!   drain that names it ([`Group::check_names`]): it asks for another walk. The drain looks at what the volumes ask for
//!   after its names are published, a change of it is followed by a walk: one of the two sees the other.

use super::Engine;
use super::check::named_pages;
use crate::error::{Error, Result};
use crate::group::Group;
use crate::placement::stronger;
use holdfast_format::cell::Cell;
use holdfast_format::inode::VolumeRecord;
use holdfast_format::{BranchId, EgroupId, Lsn, Protection, key};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A walk that failed, because a table cannot be read, is tried again after this long.
const WALK_AGAIN_NS: u64 = 60_000_000_000;

/// The protection that the names of egroups ask for.
type Asked = BTreeMap<EgroupId, Protection>;

impl Engine {
    /// The healer's step: walks all tables once, when there is a reason to. False: there is none.
    pub fn protect_step(&self) -> Result<bool> {
        let now_ns = self.clock.boottime_ns();
        if now_ns < self.walk_again_ns.load(Ordering::Acquire) {
            return Ok(false);
        }
        // Both are taken: what either is about, this walk sees.
        let (asked, found) = (self.unprotected.swap(false, Ordering::AcqRel), self.pool.take_unprotected());
        if !asked && !found {
            return Ok(false);
        }
        let result = self.protect_all();
        if result.is_err() {
            self.unprotected.store(true, Ordering::Release);
            self.walk_again_ns.store(now_ns + WALK_AGAIN_NS, Ordering::Release);
        }
        result.map(|()| true)
    }

    /// Whether a walk is due.
    pub(super) fn is_unprotected(&self) -> bool {
        self.unprotected.load(Ordering::Acquire) || self.pool.is_unprotected()
    }

    /// 1. A log whose headers have more copies than anybody asks for is given back. What the log holds for volumes that ask for
    ///    more than its segments give, or in a class that nobody writes any more, becomes egroups.
    /// 2. All tables are walked.
    /// 3. Segments that the walk found to be too weak, though they are still written, are ended and become egroups, too.
    /// 4. The egroups' records are changed.
    fn protect_all(&self) -> Result<()> {
        for group in self.groups() {
            let protections = self.protections_of(&group)?;
            let mut used: Vec<u8> = protections.values().map(|protection| protection.rf).collect();
            used.push(group.log().header_rf());
            let most = protections.values().copied().reduce(stronger);
            if let Some(most) = most {
                group.lower_rf(most.rf)?;
            }
            if most.is_some_and(|most| self.pool.has_weak_segments(group.id, most, &used)) {
                group.flush_now()?;
                group.log().leave_classes(&used)?;
                group.relocate_log()?;
            }
        }
        let asked = self.asked()?;
        let weak = self.pool.weak_segments(&asked)?;
        for group in self.groups().iter().filter(|_| !weak.is_empty()) {
            if group.log().end_segments(&weak) {
                group.relocate_log()?;
            }
        }
        self.pool.conform(&asked)?;
        self.pool.look_anew();
        Ok(())
    }

    /// What the names of egroups ask for, by all tables.
    pub(super) fn asked(&self) -> Result<Asked> {
        let mut asked = Asked::new();
        for group in self.groups() {
            self.ask(&group, &self.wishes_of(&group)?, &mut asked)?;
        }
        Ok(asked)
    }

    /// What the group's volumes ask for, and those of its clones, which read what it has.
    pub(super) fn protections_of(&self, group: &Group) -> Result<BTreeMap<BranchId, Protection>> {
        let of = |(branch, record): (BranchId, VolumeRecord)| {
            (branch, Protection { rf: record.rf, domain: record.policy.domain })
        };
        let mut protections: BTreeMap<BranchId, Protection> = group.volumes()?.into_iter().map(of).collect();
        for clone in self.pool.clones_of(group.id).iter().filter_map(|record| self.group(record.id).ok()) {
            for (branch, wanted) in self.protections_of(&clone)? {
                let most = protections.entry(branch).or_insert(wanted);
                *most = stronger(*most, wanted);
            }
        }
        Ok(protections)
    }

    /// What the group's records ask for.
    pub(super) fn wishes_of(&self, group: &Group) -> Result<Wishes> {
        let mut wishes = Wishes::default();
        for (branch, record) in group.volumes()? {
            wishes.own.insert(branch, Protection { rf: record.rf, domain: record.policy.domain });
        }
        for record in self.pool.clones_of(group.id) {
            if let (Some((_, at)), Ok(clone)) = (record.base, self.group(record.id)) {
                wishes.clones.push((at, self.protections_of(&clone)?));
            }
        }
        let all = wishes.clones.iter().flat_map(|(_, asked)| asked.values()).chain(wishes.own.values());
        wishes.most = all.copied().reduce(stronger);
        Ok(wishes)
    }

    fn ask(&self, group: &Arc<Group>, wishes: &Wishes, asked: &mut Asked) -> Result<()> {
        let _hold = self.pool.hold();
        group.tree().each_data_record(&mut |version| {
            let Some((_, level)) = key::data_place(&version.key) else { return Ok(()) };
            let Some(value) = &version.value else { return Ok(()) };
            let branch = key::parts(&version.key).map(|parts| parts.branch);
            let Some(wanted) = branch.and_then(|branch| wishes.of(branch, version.stamp.lsn)) else { return Ok(()) };
            let cell = Cell::decode(level, value).map_err(|error| Error::decode("a cell", error))?;
            for ((egroup, _), _) in named_pages(level, &cell) {
                let most = asked.entry(egroup).or_insert(wanted);
                *most = stronger(*most, wanted);
            }
            Ok(())
        })
    }
}

/// What the records of one group ask for: its volumes, and its clones for what is old enough for them to see.
#[derive(Default)]
pub(super) struct Wishes {
    own: BTreeMap<BranchId, Protection>,
    clones: Vec<(Lsn, BTreeMap<BranchId, Protection>)>,
    most: Option<Protection>,
}

impl Wishes {
    /// Of a record of this branch that was written at `born`. Of a volume that is no more, kept points may still show
    /// something: that has what the others of the group have.
    pub fn of(&self, branch: BranchId, born: Lsn) -> Option<Protection> {
        let seeing = self.clones.iter().filter(|(at, _)| born <= *at);
        let asked = seeing.filter_map(|(_, asked)| asked.get(&branch)).chain(self.own.get(&branch));
        asked.copied().reduce(stronger).or(self.most)
    }
}
