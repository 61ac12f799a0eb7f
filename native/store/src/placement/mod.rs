//! The pool: drives, slots, the manifest, and how many references every page has.
//!
//! Signatures first; bodies follow within the hour.

mod types;

pub use crate::metadata::io::PageName;
pub use holdfast_format::egroup::Birth;
pub use holdfast_format::manifest::{EpochRow, GroupRecord, Segment};
pub use types::{
    DriveCondition, DriveState, Edit, GroupChange, PoolCounters, PoolDrive, PoolOptions, PoolSpace, ProbeInfo,
};

use crate::error::{Error, Kind, Result};
use crate::metadata::io::{Placed, TableIo};
use holdfast_device::Drive;
use holdfast_format::table::{SlotAddress, TableDesc};
use holdfast_format::{EgroupId, GroupId, Uuid};
use std::sync::Arc;

fn missing<T>() -> Result<T> {
    Err(Error::new(Kind::Internal, "the pool is being built"))
}

pub struct Pool {
    name: String,
}

/// While it lives, nothing that was in use when it was taken is reused. Take it *before* `Tree::snapshot`, keep it
/// as long as the `Levels` and whatever page names came out of them.
pub struct Hold<'a> {
    _pool: &'a Pool,
}

impl Pool {
    pub fn create(_name: &str, _drives: Vec<PoolDrive>, _options: PoolOptions) -> Result<Arc<Pool>> {
        missing()
    }
    pub fn open(_drives: Vec<Arc<dyn Drive>>, _options: PoolOptions) -> Result<Arc<Pool>> {
        missing()
    }
    pub fn probe(_drive: &dyn Drive) -> Result<ProbeInfo> {
        missing()
    }
    pub fn name(&self) -> &str {
        &self.name
    }
    pub fn uuid(&self) -> Uuid {
        Uuid::default()
    }
    pub fn slot_bytes(&self) -> usize {
        0
    }
    pub fn write_bytes_max(&self) -> u32 {
        0
    }
    /// Most payload pages of one `write_egroup`.
    pub fn egroup_pages_max(&self) -> usize {
        0
    }
    pub fn groups(&self) -> Vec<GroupRecord> {
        Vec::new()
    }
    pub fn group_tables(&self, _group: GroupId) -> Vec<TableDesc> {
        Vec::new()
    }
    pub fn publish(&self, _edit: Edit) -> Result<()> {
        missing()
    }
    pub fn new_group_id(&self) -> GroupId {
        GroupId(0)
    }
    pub fn hold(&self) -> Hold<'_> {
        Hold { _pool: self }
    }
    pub fn take_segments(&self, _group: GroupId, _rf: u8, _count: usize, _frees: bool) -> Result<Vec<Segment>> {
        missing()
    }
    pub fn write_segment(&self, _segment: &Segment, _offset: u32, _slices: &[&[u8]]) -> Result<usize> {
        missing()
    }
    pub fn read_slot(
        &self,
        _copies: &[SlotAddress],
        _offset: u32,
        _into: &mut [u8],
        _verify: &dyn Fn(&[u8]) -> bool,
    ) -> Result<()> {
        missing()
    }
    pub fn read_copy(&self, _copy: SlotAddress, _offset: u32, _into: &mut [u8]) -> Result<()> {
        missing()
    }
    /// Durable write of one copy of a segment (recovery repairs a copy). A drive that fails it is put out.
    pub fn write_copy(&self, _copy: SlotAddress, _offset: u32, _bytes: &[u8]) -> Result<()> {
        missing()
    }
    pub fn read_pages(
        &self,
        _egroup: EgroupId,
        _first_page: u16,
        _into: &mut [u8],
        _verify: &dyn Fn(usize, &[u8]) -> bool,
    ) -> Result<()> {
        missing()
    }
    pub fn write_egroup(&self, _rf: u8, _pages: &[u8], _births: &[Birth], _frees: bool) -> Result<EgroupId> {
        missing()
    }
    pub fn discard_egroup(&self, _id: EgroupId) {}
    pub fn pin_page(&self, _page: PageName) {}
    pub fn unpin_page(&self, _page: PageName) {}
    pub fn replay_done(&self) {}
    pub fn clean_step(&self) -> Result<bool> {
        missing()
    }
    /// Makes one free slot ready for the log; false when enough are.
    pub fn prefill_step(&self) -> Result<bool> {
        missing()
    }
    pub fn membership(&self) -> u64 {
        0
    }
    pub fn drives(&self) -> Vec<DriveState> {
        Vec::new()
    }
    pub fn space(&self) -> PoolSpace {
        PoolSpace::default()
    }
    pub fn counters(&self) -> PoolCounters {
        PoolCounters::default()
    }
    /// Sentences for the administrator.
    pub fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
    pub fn heartbeat(&self) -> Result<()> {
        missing()
    }
    pub fn close(&self) -> Result<()> {
        missing()
    }
}

impl TableIo for Pool {
    fn slot_bytes(&self) -> usize {
        0
    }
    fn write_table(&self, _bytes: &[u8]) -> Result<Placed> {
        missing()
    }
    fn read_table(
        &self,
        _table: &TableDesc,
        _offset: u32,
        _into: &mut [u8],
        _verify: &dyn Fn(&[u8]) -> bool,
    ) -> Result<()> {
        missing()
    }
    fn discard_table(&self, _placed: &Placed) {}
}
