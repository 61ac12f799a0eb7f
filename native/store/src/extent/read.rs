//! Reading blocks: from the ring, from the cache, from log segments, from egroups; every byte verified against the map's
//! checksum, wherever it comes from.

use super::cache::{DataCache, Keep};
use super::resolve::{Resolved, Source};
use crate::error::{Error, Result};
use crate::oplog::place::Place;
use crate::oplog::ring::Ring;
use crate::placement::Pool;
use holdfast_format::checksum::checksum;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::EgroupId;

/// Pages next to each other in one egroup, for consecutive blocks.
struct Run {
    egroup: EgroupId,
    first_page: u16,
    at: usize,
    checksums: Vec<u64>,
}

/// Reads of more blocks are streams: they do not pay for the cache's places.
const SMALL_READ_BLOCKS: usize = 16;

/// Memory of one page that a drive reads into directly.
#[repr(align(4096))]
struct Page([u8; BLOCK_BYTES]);

/// Where bytes are, one inside the other: egroups on drives, pages of them in the cache, ops in the ring.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    pub pool: &'a Pool,
    pub ring: &'a Ring,
    pub cache: &'a DataCache,
}

/// Where egroup pages come from.
struct Pages<'a> {
    pool: &'a Pool,
    cache: &'a DataCache,
    keep: Keep,
}

/// Fills `into` with the resolved blocks; holes are zeroes. Page-aligned memory is read into without a copy.
pub fn read_resolved(sources: Sources<'_>, resolved: &Resolved, into: &mut [u8]) -> Result<()> {
    let Sources { pool, ring, cache } = sources;
    let keep = if resolved.blocks.len() > SMALL_READ_BLOCKS { Keep::FreeRoom } else { Keep::Evicting };
    let pages = Pages { pool, cache, keep };
    debug_assert_eq!(into.len(), resolved.blocks.len() * BLOCK_BYTES);
    let mut run: Option<Run> = None;
    for (at, block) in resolved.blocks.iter().enumerate() {
        let bytes = &mut into[at * BLOCK_BYTES..(at + 1) * BLOCK_BYTES];
        let page = match &block.source {
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
                // The guard is held from looking the place up until the copy is done: see Ring's invariants.
                let guard = ring.reading();
                match generation.places.get(*lsn) {
                    Some(Place::Ring(position)) => {
                        let position = position + *page as u64 * BLOCK_BYTES as u64;
                        bytes.copy_from_slice(ring.pages(position, BLOCK_BYTES));
                        drop(guard);
                        if self::checksum(bytes) != *checksum {
                            return Err(Error::corrupt(format!("unflushed payload of operation {lsn} is damaged")));
                        }
                        None
                    }
                    Some(Place::Egroup(egroup, first)) => Some((egroup, first + page, *checksum)),
                    None => return Err(Error::corrupt(format!("operation {lsn} has no payload"))),
                }
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
        for (_, start, piece) in block.pieces.iter().rev() {
            bytes[*start as usize..*start as usize + piece.len()].copy_from_slice(piece);
        }
    }
    Ok(())
}

impl Pages<'_> {
    fn flush_run(&self, run: Option<Run>, into: &mut [u8]) -> Result<()> {
        let Some(run) = run else { return Ok(()) };
        let bytes = &mut into[run.at * BLOCK_BYTES..(run.at + run.checksums.len()) * BLOCK_BYTES];
        let verify = |page: usize, bytes: &[u8]| checksum(bytes) == run.checksums[page];
        self.read((run.egroup, run.first_page), bytes, &verify)
    }

    /// What the cache does not have is read in one go, from its first page to its last.
    fn read(
        &self,
        (egroup, first_page): (EgroupId, u16),
        into: &mut [u8],
        verify: &dyn Fn(usize, &[u8]) -> bool,
    ) -> Result<()> {
        let name = |index: usize| (egroup, first_page + index as u16);
        let mut missing: Option<(usize, usize)> = None;
        for (index, page) in into.chunks_exact_mut(BLOCK_BYTES).enumerate() {
            if !self.cache.copy(name(index), page, |bytes| verify(index, bytes)) {
                missing = Some((missing.map_or(index, |(first, _)| first), index));
            }
        }
        let Some((first, last)) = missing else { return Ok(()) };
        let part = &mut into[first * BLOCK_BYTES..(last + 1) * BLOCK_BYTES];
        self.pool.read_pages(egroup, name(first).1, part, &|index, bytes| verify(first + index, bytes))?;
        for (index, page) in part.chunks_exact(BLOCK_BYTES).enumerate() {
            self.cache.keep(name(first + index), page, self.keep);
        }
        Ok(())
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
        self.read(page, &mut whole.0, &|_, bytes| checksum(&bytes[range.clone()]) == expected)?;
        into[..length as usize].copy_from_slice(&whole.0[range]);
        into[length as usize..].fill(0);
        Ok(())
    }
}
