//! What lies on drives follows what its volumes ask for: after a change of RF or domain, and once after a start, every
//! sealed egroup is given the protection of the volumes that name its pages. Healing does the rest: it makes copies that
//! are wanted, drops those that are too many and moves those that are too close.
//!
//! Invariants:
//! - An egroup is lowered only when everything that names its pages was seen: a name that the walk does not know (a drain
//!   may be under way) leaves it as it is.
//! - What is written meanwhile has the new protection already.

use super::Engine;
use super::check::named_pages;
use crate::error::{Error, Result};
use crate::group::Group;
use holdfast_format::cell::Cell;
use holdfast_format::{BranchId, EgroupId, Protection, key};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The protection that the names of egroups ask for.
type Asked = BTreeMap<EgroupId, Protection>;

impl Engine {
    /// The healer's step: walks all tables once, when there is a reason to. False: there is none.
    pub fn protect_step(&self) -> Result<bool> {
        if !self.unprotected.swap(false, Ordering::AcqRel) {
            return Ok(false);
        }
        let result = self.protect_all();
        if result.is_err() {
            self.unprotected.store(true, Ordering::Release);
        }
        result.map(|()| true)
    }

    fn protect_all(&self) -> Result<()> {
        let mut asked = Asked::new();
        for group in self.groups() {
            let volumes = group.volumes()?;
            let of = |record: &holdfast_format::inode::VolumeRecord| Protection {
                rf: record.rf,
                domain: record.policy.domain,
            };
            let protections: BTreeMap<BranchId, Protection> =
                volumes.iter().map(|(branch, record)| (*branch, of(record))).collect();
            let mut used: Vec<u8> = protections.values().map(|protection| protection.rf).collect();
            used.push(group.log().header_rf());
            if group.leaves_classes(&used) {
                // What the log holds becomes egroups, and segments of the old kind go.
                group.relocate_log()?;
                group.log().leave_classes(&used)?;
            }
            self.ask(&group, &protections, &mut asked)?;
        }
        self.pool.conform(&asked)?;
        self.pool.look_anew();
        Ok(())
    }

    fn ask(
        &self,
        group: &Arc<Group>,
        protections: &BTreeMap<BranchId, Protection>,
        asked: &mut Asked,
    ) -> Result<()> {
        let _hold = self.pool.hold();
        group.tree().each_data_record(&mut |version| {
            let Some((_, level)) = key::data_place(&version.key) else { return Ok(()) };
            let Some(value) = &version.value else { return Ok(()) };
            let branch = key::parts(&version.key).map(|parts| parts.branch);
            let Some(wanted) = branch.and_then(|branch| protections.get(&branch)) else { return Ok(()) };
            let cell = Cell::decode(level, value).map_err(|error| Error::decode("a cell", error))?;
            for ((egroup, _), _) in named_pages(level, &cell) {
                let most = asked.entry(egroup).or_insert(*wanted);
                (most.rf, most.domain) = (most.rf.max(wanted.rf), most.domain.max(wanted.domain));
            }
            Ok(())
        })
    }
}
