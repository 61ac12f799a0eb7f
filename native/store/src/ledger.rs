//! The seam between what POSIX means (`volume/`) and what the log does (`group/`): records by key, blocks by cell, and one
//! way to change anything: [`Ledger::commit`]. `group::Group` is the engine; tests of `volume/` have a `BTreeMap`.

use crate::error::{Error, Result};
use crate::gate::Gate;
use holdfast_format::cell::Cell;
use holdfast_format::inode::Time;
use holdfast_format::op::{Actor, Effects, OpKind};
use holdfast_format::replica::Origin;
use holdfast_format::{BranchId, Ino, Lsn};
use std::sync::Arc;

/// One change, resolved: what replay will do, byte for byte.
pub struct OpDraft<'a> {
    pub branch: BranchId,
    pub kind: OpKind,
    pub actor: Actor,
    pub time: Time,
    pub ino: Ino,
    pub offset: u64,
    pub length: u64,
    pub effects: Effects,
    /// Whole pages; named by the effects' `pages`. At most `write_bytes_max`.
    pub payload: &'a [u8],
    /// Copies of the payload: the volume's RF.
    pub rf: u8,
    /// Bytes by which what the present stores grows, once; shrinks, when negative.
    pub stored: i64,
    /// The op gives space back (unlink, truncate, punch …): it may draw on the reserve and never waits.
    pub frees: bool,
    /// The point that the op keeps (`OpKind::Point`).
    pub point: PointDraft<'a>,
}

/// A point to be kept.
#[derive(Clone, Copy, Default)]
pub struct PointDraft<'a> {
    /// Empty: a tick.
    pub name: &'a str,
    /// Of a replica: which recovery point of its owner it is, and of when.
    pub origin: Option<(Origin, Time)>,
}

/// A run of blocks with one answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mapped {
    Hole,
    Data,
}

/// One block of a source range, for `copy_file_range`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BlockRef {
    Hole,
    /// A level-0 cell that names the same stored bytes; putting it under another DATA key shares them.
    Shared(Cell),
    /// Pieces lie over it: read it and write it.
    Copy,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Space {
    /// Bytes of content that fit, each counted once: into the pool if it were empty,
    pub total: u64,
    /// beside what the present holds, if everything else went,
    pub free: u64,
    /// and of that without the reserve of ops that free space.
    pub available: u64,
    /// Inode numbers still to give.
    pub inodes_free: u64,
}

pub type Durable = Box<dyn FnOnce(std::result::Result<(), Error>) + Send>;

pub trait Ledger: Send + Sync {
    /// Newest version of a record (never of a DATA key).
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Newest versions of `[from, until)` in key order, without deleted ones, until `visit` returns false.
    fn scan(&self, from: &[u8], until: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()>;
    /// Reads whole blocks from `first_block` on; holes are zeroes; `into` is a multiple of 4096. `levels` is the
    /// inode's bitmap of cell levels. Verified, or an error: never wrong bytes (I-4).
    fn read_blocks(&self, branch: BranchId, ino: Ino, levels: u16, first_block: u32, into: &mut [u8]) -> Result<()>;
    /// Runs of `[first, end)` blocks in order, until `visit(first, count, mapped)` returns false.
    fn map(
        &self,
        branch: BranchId,
        ino: Ino,
        levels: u16,
        range: (u64, u64),
        visit: &mut dyn FnMut(u64, u64, Mapped) -> bool,
    ) -> Result<()>;
    /// One answer per block of `[first, first + count)`.
    fn block_refs(&self, branch: BranchId, ino: Ino, levels: u16, first: u32, count: u32) -> Result<Vec<BlockRef>>;
    /// Logs the op and applies it; when it returns the op survives `kill -9`, with every lower LSN (I-1).
    /// The caller holds whatever lock made the effects true.
    fn commit(&self, draft: OpDraft<'_>) -> Result<Lsn>;
    /// LSN of the newest op.
    fn newest(&self) -> Lsn;
    /// Calls `done` once everything up to `lsn` is durable on the drives, or cannot become so.
    fn flush(&self, lsn: Lsn, done: Durable);
    /// For content with so many copies.
    fn space(&self, copies: u8) -> Result<Space>;
    /// Wall time.
    fn now(&self) -> Time;
    fn write_bytes_max(&self) -> u32;
    /// Where users' changes have to pass; `None`: nowhere.
    fn gate(&self) -> Option<&Arc<Gate>> {
        None
    }
    /// Changes are waited with, or refused: what no user asked for (access times, what was unlinked) is left undone.
    fn is_shut(&self) -> bool {
        self.gate().is_some_and(|gate| gate.is_shut())
    }
}
