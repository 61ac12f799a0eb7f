//! What the VOLUME record asks of every op: copies, when to acknowledge, how much room.

use super::Volume;
use crate::api::{FsError, FsResult};
use holdfast_format::inode::{PastAccess, VolumeRecord};
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::{Ino, key};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};

pub struct Policy {
    rf: AtomicU8,
    ack_write: AtomicBool,
    past: AtomicU8,
    /// 0: none.
    quota_bytes: AtomicU64,
    /// Mapped blocks of all inodes; kept only under a quota (see `quota_counted`).
    used_blocks: AtomicI64,
    quota_counted: AtomicBool,
}

impl Policy {
    pub fn new(record: &VolumeRecord) -> Self {
        let policy = Self {
            rf: AtomicU8::new(1),
            ack_write: AtomicBool::new(false),
            past: AtomicU8::new(0),
            quota_bytes: AtomicU64::new(0),
            used_blocks: AtomicI64::new(0),
            quota_counted: AtomicBool::new(false),
        };
        policy.adopt(record);
        policy
    }

    pub fn adopt(&self, record: &VolumeRecord) {
        self.rf.store(record.rf, Ordering::Relaxed);
        self.ack_write.store(record.ack == 1, Ordering::Relaxed);
        self.past.store(record.past as u8, Ordering::Relaxed);
        self.quota_bytes.store(record.quota_bytes, Ordering::Relaxed);
    }

    pub fn rf(&self) -> u8 {
        self.rf.load(Ordering::Relaxed)
    }

    pub fn past(&self) -> PastAccess {
        PastAccess::from_u8(self.past.load(Ordering::Relaxed)).unwrap_or_default()
    }

    pub fn ack_write(&self) -> bool {
        self.ack_write.load(Ordering::Relaxed)
    }

    /// `(quota, used)` in bytes, when there is a quota.
    pub fn quota(&self) -> Option<(u64, u64)> {
        let quota = self.quota_bytes.load(Ordering::Relaxed);
        let used = self.used_blocks.load(Ordering::Relaxed).max(0) as u64 * BLOCK_BYTES as u64;
        (quota != 0).then_some((quota, used))
    }

    /// Takes room for `blocks` more (fewer, when negative), or says that the quota has none.
    pub fn reserve(&self, blocks: i64) -> FsResult<()> {
        let used = self.used_blocks.fetch_add(blocks, Ordering::Relaxed) + blocks;
        let quota = self.quota_bytes.load(Ordering::Relaxed);
        if blocks > 0 && quota != 0 && used.max(0) as u64 * BLOCK_BYTES as u64 > quota {
            self.used_blocks.fetch_sub(blocks, Ordering::Relaxed);
            return Err(FsError::Quota);
        }
        Ok(())
    }

    /// The op that reserved did not happen.
    pub fn give_back(&self, blocks: i64) {
        self.used_blocks.fetch_sub(blocks, Ordering::Relaxed);
    }
}

impl Volume {
    /// Counts what the volume holds, once, when it has a quota: one seek per inode. Changes meanwhile add
    /// their difference to the same counter; an inode changed while it is being counted may be counted on
    /// either side of that.
    pub(super) fn start_quota(&self) -> FsResult<()> {
        if self.policy.quota().is_none() || self.policy.quota_counted.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.policy.used_blocks.store(0, Ordering::Relaxed);
        let until = key::volume(holdfast_format::BranchId(self.branch.0 + 1));
        let mut from = key::inode(self.branch, Ino(1));
        let mut blocks = 0u64;
        loop {
            let mut found = None;
            self.ledger.scan(&from, &until, &mut |key, value| {
                found = key::parts(key).map(|parts| (parts.ino, parts.kind, value.to_vec()));
                false
            })?;
            let Some((ino, kind, value)) = found else { break };
            if kind == key::KIND_INODE {
                blocks += super::change::decode_inode(ino, &value)?.blocks;
            }
            from = key::inode(self.branch, Ino(ino.0 + 1));
        }
        self.policy.used_blocks.fetch_add(blocks as i64, Ordering::Relaxed);
        Ok(())
    }
}
