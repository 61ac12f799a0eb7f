//! Reading blocks: from the ring, from the cache, from log segments, from egroups; every byte verified against the map's
//! checksum, wherever it comes from.

use super::cache::{DataCache, Keep};
use super::resolve::{Resolved, Source};
use crate::error::{Error, Result};
use crate::metadata::io::PageName;
use crate::oplog::place::{Place, Places};
use crate::oplog::ring::Ring;
use crate::placement::Pool;
use holdfast_device::patience::{self, Waiter, Wish};
use holdfast_format::checksum::checksum;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::{EgroupId, Lsn};
use holdfast_format::table::SlotAddress;
use std::ops::Range;
use std::sync::{Arc, Weak};

/// Pages next to each other in one egroup, for consecutive blocks.
struct Run {
    egroup: EgroupId,
    first_page: u16,
    at: usize,
    checksums: Vec<u64>,
}

/// Reads of more blocks are streams.
const SMALL_READ_BLOCKS: usize = 16;

/// Memory of one page that a drive reads into directly.
#[repr(align(4096))]
struct Page([u8; BLOCK_BYTES]);

/// Where bytes are, one inside the other: egroups on drives, pages of them in the cache, ops in the ring.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    pub pool: &'a Pool,
    pub ring: &'a Ring,
    pub cache: &'a Arc<DataCache>,
}

impl Sources<'_> {
    /// Reads a page of the log out of the ring, where it may be long after its flush. Otherwise says which egroup's page
    /// it is.
    fn read_logged(
        &self,
        places: &Places,
        (lsn, page): (Lsn, u16),
        expected: u64,
        into: &mut [u8],
    ) -> Result<Option<(EgroupId, u16, u64)>> {
        let in_ring = |position: u64| position + page as u64 * BLOCK_BYTES as u64;
        // The guard is held from looking the place up until the copy is done: see Ring's invariants.
        let guard = self.ring.reading();
        let place = places.get(lsn).ok_or_else(|| Error::corrupt(format!("operation {lsn} has no payload")))?;
        let kept = match place {
            Place::Ring(position) => Some(in_ring(position)),
            Place::Egroup(..) if self.cache.is_off() => None,
            Place::Egroup(..) => places.origin(lsn).map(in_ring).filter(|position| self.ring.keeps(*position)),
        };
        if let Some(position) = kept {
            into.copy_from_slice(self.ring.pages(position, BLOCK_BYTES));
        }
        drop(guard);
        match place {
            _ if kept.is_some() && checksum(into) == expected => Ok(None),
            Place::Ring(_) => Err(Error::corrupt(format!("unflushed payload of operation {lsn} is damaged"))),
            Place::Egroup(egroup, first) => Ok(Some((egroup, first + page, expected))),
        }
    }
}

/// Where egroup pages come from.
struct Pages<'a> {
    pool: &'a Pool,
    cache: &'a Arc<DataCache>,
    keep: Keep,
}

/// Fills `into` with the resolved blocks; holes are zeroes. Page-aligned memory is read into without a copy.
pub fn read_resolved(sources: Sources<'_>, resolved: &Resolved, into: &mut [u8]) -> Result<()> {
    let Sources { pool, cache, .. } = sources;
    let keep = if resolved.blocks.len() > SMALL_READ_BLOCKS { Keep::Streamed } else { Keep::Read };
    let pages = Pages { pool, cache, keep };
    debug_assert_eq!(into.len(), resolved.blocks.len() * BLOCK_BYTES);
    let mut run: Option<Run> = None;
    for (at, block) in resolved.blocks.iter().enumerate() {
        let bytes = &mut into[at * BLOCK_BYTES..(at + 1) * BLOCK_BYTES];
        let source = if block.is_covered() { &Source::Hole } else { &block.source };
        let page = match source {
            Source::Hole => {
                bytes.fill(0);
                None
            }
            Source::Packed { egroup, page, byte_offset, length, checksum } => {
                pages.read_packed((*egroup, *page), (*byte_offset, *length), *checksum, bytes)?;
                None
            }
            Source::Page { egroup, page, checksum } => Some((*egroup, *page, *checksum)),
            Source::Logged { generation, lsn, page, checksum } => {
                sources.read_logged(&generation.places, (*lsn, *page), *checksum, bytes)?
            }
        };
        match page {
            None => pages.flush_run(run.take(), into)?,
            Some((egroup, page, checksum)) => {
                let continues = run
                    .as_ref()
                    .is_some_and(|run| run.egroup == egroup && run.first_page as usize + run.checksums.len() == page as usize);
                if !continues {
                    pages.flush_run(run.take(), into)?;
                }
                run.get_or_insert_with(|| Run { egroup, first_page: page, at, checksums: Vec::new() })
                    .checksums
                    .push(checksum);
            }
        }
    }
    pages.flush_run(run.take(), into)?;
    for (at, block) in resolved.blocks.iter().enumerate() {
        let bytes = &mut into[at * BLOCK_BYTES..(at + 1) * BLOCK_BYTES];
        block.lay_over(bytes, |_| {});
    }
    Ok(())
}

/// What the map says about pages.
enum Expected {
    /// The checksum of each.
    Pages(Vec<u64>),
    /// That of a part of the only one.
    Part(Range<usize>, u64),
}

impl Expected {
    fn accepts(&self, index: usize, bytes: &[u8]) -> bool {
        match self {
            Self::Pages(checksums) => checksum(bytes) == checksums[index],
            Self::Part(range, expected) => checksum(&bytes[range.clone()]) == *expected,
        }
    }

    /// Of the pages from this one on.
    fn from(&self, first: usize) -> Self {
        match self {
            Self::Pages(checksums) => Self::Pages(checksums[first..].to_vec()),
            Self::Part(range, expected) => Self::Part(range.clone(), *expected),
        }
    }
}

/// Pages on their way into the cache, from one copy.
struct Filling {
    pool: Weak<Pool>,
    cache: Arc<DataCache>,
    /// The copy, and the first page in its slot.
    from: (SlotAddress, u16),
    egroup: EgroupId,
    first_page: u16,
    expected: Expected,
}

impl Waiter for Filling {
    fn arrived(self: Box<Self>, bytes: &[u8], took_ns: u64) {
        let Some(pool) = self.pool.upgrade() else { return };
        let (copy, page) = self.from;
        pool.direct_read_arrived(copy, bytes.len(), took_ns);
        for (index, bytes) in bytes.chunks_exact(BLOCK_BYTES).enumerate() {
            match self.expected.accepts(index, bytes) {
                true => self.cache.keep((self.egroup, self.first_page + index as u16), bytes, Keep::Awaited),
                // Whoever reads the page next, and may wait, sees for himself, and mends it.
                false => pool.doubt((copy, page + index as u16)),
            }
        }
    }

    fn late(&self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.direct_read_late(self.from.0);
        }
    }
}

impl Pages<'_> {
    fn flush_run(&self, run: Option<Run>, into: &mut [u8]) -> Result<()> {
        let Some(run) = run else { return Ok(()) };
        let bytes = &mut into[run.at * BLOCK_BYTES..(run.at + run.checksums.len()) * BLOCK_BYTES];
        self.read((run.egroup, run.first_page), bytes, &Expected::Pages(run.checksums))
    }

    /// What the cache does not have is read in one go, from its first page to its last.
    fn read(
        &self,
        (egroup, first_page): (EgroupId, u16),
        into: &mut [u8],
        expected: &Expected,
    ) -> Result<()> {
        let name = |index: usize| (egroup, first_page + index as u16);
        let mut missing: Option<(usize, usize)> = None;
        for (index, page) in into.chunks_exact_mut(BLOCK_BYTES).enumerate() {
            if !self.cache.copy(name(index), page, |bytes| expected.accepts(index, bytes)) {
                missing = Some((missing.map_or(index, |(first, _)| first), index));
            }
        }
        let Some((first, last)) = missing else { return Ok(()) };
        Error::unless_hurried().inspect_err(|_| {
            self.wish((egroup, name(first).1), last + 1 - first, expected.from(first));
        })?;
        let part = &mut into[first * BLOCK_BYTES..(last + 1) * BLOCK_BYTES];
        self.pool.read_pages(egroup, name(first).1, part, &|index, bytes| expected.accepts(first + index, bytes))?;
        for (index, page) in part.chunks_exact(BLOCK_BYTES).enumerate() {
            self.cache.keep(name(first + index), page, self.keep);
        }
        Ok(())
    }

    /// Has the pages read into the cache by whoever can wait for them without sleeping.
    fn wish(&self, (egroup, first_page): PageName, count: usize, expected: Expected) {
        if self.keep == Keep::Streamed || self.cache.is_off() {
            return;
        }
        let Some((read, from)) = self.pool.direct_read(egroup, first_page, count) else { return };
        let (pool, cache) = (self.pool.share(), Arc::clone(self.cache));
        let waiter = Box::new(Filling { pool, cache, from, egroup, first_page, expected });
        patience::wish(Wish { read, patience_ns: self.pool.patience(), waiter });
    }

    fn read_packed(
        &self,
        page: (EgroupId, u16),
        (offset, length): (u16, u16),
        expected: u64,
        into: &mut [u8],
    ) -> Result<()> {
        let range = offset as usize..offset as usize + length as usize;
        if range.end > BLOCK_BYTES {
            return Err(Error::corrupt("a packed block leaves its page"));
        }
        let mut whole = Page([0; BLOCK_BYTES]);
        // Of what else lies in the page nothing is known here, and nothing leaves: each part has its own checksum.
        self.read(page, &mut whole.0, &Expected::Part(range.clone(), expected))?;
        into[..length as usize].copy_from_slice(&whole.0[range]);
        into[length as usize..].fill(0);
        Ok(())
    }
}
