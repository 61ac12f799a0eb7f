//! What the trees need of the pool below them, and what they give back: edits for the manifest.

use crate::error::Result;
use holdfast_format::table::{SlotAddress, TableDesc};
use holdfast_format::{EgroupId, Lsn, Stamp, TableId};

/// One version of one record. `None`: deleted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    pub key: Vec<u8>,
    pub stamp: Stamp,
    pub value: Option<Vec<u8>>,
}

/// A page that a DATA record names.
pub type PageName = (EgroupId, u16);

/// Where a table was put.
#[derive(Clone, Debug)]
pub struct Placed {
    pub id: TableId,
    pub copies: Vec<SlotAddress>,
}

/// Slots for tables: `placement::Pool`, or a test's map.
pub trait TableIo: Send + Sync {
    fn slot_bytes(&self) -> usize;
    /// Writes one sealed table (at most `slot_bytes`) into a fresh slot on every drive that the metadata RF asks
    /// for. Durable on return. It belongs to nobody until an edit that names it is published.
    fn write_table(&self, bytes: &[u8]) -> Result<Placed>;
    /// Fills `into` from the first copy that `verify` accepts; repairs the copies that it rejected (I-4, I-7).
    fn read_table(
        &self,
        table: &TableDesc,
        offset: u32,
        into: &mut [u8],
        verify: &dyn Fn(&[u8]) -> bool,
    ) -> Result<()>;
    /// Gives back a table that was written and will not be published.
    fn discard_table(&self, placed: &Placed);
}

/// Outcome of a drain or a compaction: inputs out, outputs in, pages referenced and released, one manifest edit.
#[derive(Clone, Default, Debug)]
pub struct TreeEdit {
    pub added: Vec<TableDesc>,
    pub removed: Vec<TableId>,
    /// One entry per record that now names the page (a page may stand here more than once).
    pub referenced: Vec<PageName>,
    /// One entry per record that named the page and is gone.
    pub released: Vec<PageName>,
}

impl TreeEdit {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// Kept LSNs, sorted: ticks, named points, pins.
#[derive(Clone, Default, Debug)]
pub struct Points {
    lsns: Vec<Lsn>,
}

impl Points {
    pub fn from_sorted(lsns: Vec<Lsn>) -> Self {
        debug_assert!(lsns.is_sorted());
        Self { lsns }
    }
    /// Whether a version with life `[birth, death)` can be seen from a kept point.
    pub fn sees(&self, birth: Lsn, death: Lsn) -> bool {
        let at = self.lsns.partition_point(|point| *point < birth);
        self.lsns.get(at).is_some_and(|point| *point < death)
    }
    pub fn newest(&self) -> Lsn {
        self.lsns.last().copied().unwrap_or_default()
    }
    pub fn lsns(&self) -> &[Lsn] {
        &self.lsns
    }
}
