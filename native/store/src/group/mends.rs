//! Keys whose records a follower lost or has otherwise, as a proof told: they go again.
//!
//! Invariants
//! - A mend counts as a change at the LSN of a point that was made for it: each batch that leads past this LSN has it, so the
//!   follower is mended at the target, whichever batch it gets. Users never see it as a change.
//! - Mends are in memory only, until every follower is past them. A start forgets them, and the next proof finds again what is left.

use super::Group;
use crate::error::{Error, Kind, Result};
use crate::metadata::tree::Span;
use holdfast_format::key::{self, Key};
use holdfast_format::limits::{KEY_BYTES_MAX, MENDS_MAX};
use holdfast_format::op::{Effects, OpKind};
use holdfast_format::{GROUP_BRANCH, Lsn};
use parking_lot::Mutex;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Mends {
    /// Held from before the point is made until the keys are in: no batch that leads past it is opened in between.
    keys: Mutex<BTreeMap<Key, Lsn>>,
}

impl Group {
    /// These keys go with the next batch, whether they change or not. Returns the recovery point at which a follower has them.
    ///
    /// # Errors
    /// `Fenced`: it is a replica; `Invalid`: a key of something that is not replicated; `Unavailable`: too many wait already.
    pub fn mend(&self, keys: Vec<Key>) -> Result<Lsn> {
        self.refuse_on_replica("it is mended by its owner only")?;
        if keys.is_empty() || !keys.iter().all(|key| is_replicated(key)) {
            return Err(Error::invalid("nothing to mend, or keys of what is not replicated"));
        }
        let mut mends = self.replication.mends.keys.lock();
        if mends.len() + keys.len() > MENDS_MAX {
            return Err(Error::new(Kind::Unavailable, format!("{} keys wait to be mended already: wait for the next batch", mends.len())));
        }
        let lsn = self.commit_draft(self.point_draft(OpKind::Point, Effects::new()))?;
        mends.extend(keys.into_iter().map(|key| (key, lsn)));
        Ok(lsn)
    }

    /// What a batch has beside what changed, in order.
    pub(crate) fn mends_in(&self, span: Span) -> Vec<Key> {
        let mends = self.replication.mends.keys.lock();
        mends.iter().filter(|(_, lsn)| span.has(**lsn)).map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn forget_mends(&self) {
        let mut mends = self.replication.mends.keys.lock();
        if mends.is_empty() {
            return;
        }
        match self.followers_have() {
            Some(have) => mends.retain(|_, lsn| *lsn > have),
            None => mends.clear(),
        }
    }
}

/// Whether a batch may have this key: the same that a chunk's reader takes, and the cells of files.
fn is_replicated(key: &[u8]) -> bool {
    let Some(parts) = key::parts(key).filter(|parts| parts.branch != GROUP_BRANCH && key.len() <= KEY_BYTES_MAX) else {
        return false;
    };
    match parts.kind {
        key::KIND_VOLUME | key::KIND_ORPHAN => parts.ino.0 == 0,
        key::KIND_INODE | key::KIND_XATTR | key::KIND_DIRENT | key::KIND_LINK => parts.ino.0 != 0,
        key::KIND_DATA => parts.ino.0 != 0 && key::data_place(key).is_some(),
        _ => false,
    }
}
