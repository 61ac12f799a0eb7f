//! Inodes without a name: they live while the kernel refers to them, then a logged reap removes them.

use super::Volume;
use super::change::Change;
use crate::api::{Caller, FsResult};
use holdfast_format::inode::INODE_HAS_XATTRS;
use holdfast_format::key::Key;
use holdfast_format::op::{Effects, OpKind};
use holdfast_format::{Ino, key};

/// Attributes that one op deletes at most, so that it fits `OP_BYTES_MAX`; the reap of more is several ops.
const XATTRS_PER_OP: usize = 256;

impl Volume {
    /// First attributes of an inode, one more than fit into one op.
    fn xattr_keys(&self, ino: Ino) -> FsResult<Vec<Key>> {
        let (from, until) = key::kind_range(self.branch, ino, key::KIND_XATTR);
        let mut keys = Vec::new();
        self.ledger.scan(&from, &until, &mut |key, _| {
            keys.push(key.to_vec());
            keys.len() <= XATTRS_PER_OP
        })?;
        Ok(keys)
    }

    /// The last name goes: the inode is removed with it, or becomes an orphan when it is referenced (or
    /// has too much to delete in one op).
    pub(super) fn bury(&self, change: &mut Change<'_>, ino: Ino) -> FsResult<()> {
        let has_xattrs = change.inode(ino)?.flags & INODE_HAS_XATTRS != 0;
        let xattrs = if has_xattrs { self.xattr_keys(ino)? } else { Vec::new() };
        if self.references.mark_orphan(ino) || xattrs.len() > XATTRS_PER_OP {
            change.put_orphan(ino);
            return Ok(());
        }
        change.remove(ino, &xattrs)
    }

    /// The kernel forgets.
    pub(super) fn give_back(&self, ino: Ino, count: u64) {
        if self.references.forget(ino, count) && !self.ledger.is_shut() {
            // Nobody can be told: what fails here is reaped at the next opening, from its ORPHAN record.
            let _ = self.reap(ino);
        }
    }

    /// Removes an orphan that nobody refers to.
    pub(super) fn reap(&self, ino: Ino) -> FsResult<()> {
        let _held = self.locks.write(ino);
        if self.references.is_referenced(ino) {
            return Ok(());
        }
        match self.load(ino) {
            Ok(record) if record.nlink == 0 => {}
            Ok(_) | Err(crate::api::FsError::Stale) => return self.drop_orphan_record(ino),
            Err(error) => return Err(error),
        }
        loop {
            let mut xattrs = self.xattr_keys(ino)?;
            let is_last = xattrs.len() <= XATTRS_PER_OP;
            let mut change = self.change(OpKind::Reap, &Caller::default());
            change.frees = true;
            change.ino = ino;
            if is_last {
                change.remove(ino, &xattrs)?;
                change.effects.delete(&key::orphan(self.branch, ino));
            } else {
                xattrs.truncate(XATTRS_PER_OP);
                xattrs.iter().for_each(|key| change.effects.delete(key));
            }
            // A reap leaves nothing to settle: it makes no orphans, and nobody waits for it.
            let _ = change.commit(&[])?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// An ORPHAN record without an orphan: nothing puts one, but it must not stop an opening.
    fn drop_orphan_record(&self, ino: Ino) -> FsResult<()> {
        let orphan = key::orphan(self.branch, ino);
        if self.ledger.get(&orphan)?.is_some() {
            let mut effects = Effects::new();
            effects.delete(&orphan);
            self.commit_effects(OpKind::Reap, Default::default(), ino, effects)?;
        }
        Ok(())
    }

    /// Reaps every orphan that is not referenced.
    pub(super) fn reap_all(&self) -> FsResult<()> {
        let (mut from, until) = key::kind_range(self.branch, Ino(0), key::KIND_ORPHAN);
        loop {
            let mut orphans = Vec::new();
            self.ledger.scan(&from, &until, &mut |key, _| {
                let number = key::parts(key).and_then(|parts| parts.rest.first_chunk::<8>().copied());
                orphans.extend(number.map(|number| Ino(u64::from_be_bytes(number))));
                orphans.len() < XATTRS_PER_OP
            })?;
            let Some(last) = orphans.last() else { return Ok(()) };
            from = key::orphan(self.branch, Ino(last.0 + 1));
            for ino in orphans {
                self.reap(ino)?;
            }
        }
    }
}
