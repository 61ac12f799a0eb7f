//! Reading blocks: from the ring, from log segments, from egroups; every byte verified against the map's checksum.

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

/// Fills `into` with the resolved blocks; holes are zeroes.
pub fn read_resolved(pool: &Pool, ring: &Ring, resolved: &Resolved, into: &mut [u8]) -> Result<()> {
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
                read_packed(pool, (*egroup, *page), (*byte_offset, *length), *checksum, bytes)?;
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
            None => flush_run(pool, run.take(), into)?,
            Some((egroup, page, checksum)) => {
                let continues = run
                    .as_ref()
                    .is_some_and(|run| run.egroup == egroup && run.first_page as usize + run.checksums.len() == page as usize);
                if !continues {
                    flush_run(pool, run.take(), into)?;
                }
                run.get_or_insert_with(|| Run { egroup, first_page: page, at, checksums: Vec::new() })
                    .checksums
                    .push(checksum);
            }
        }
    }
    flush_run(pool, run.take(), into)?;
    for (at, block) in resolved.blocks.iter().enumerate() {
        let bytes = &mut into[at * BLOCK_BYTES..(at + 1) * BLOCK_BYTES];
        for (_, start, piece) in block.pieces.iter().rev() {
            bytes[*start as usize..*start as usize + piece.len()].copy_from_slice(piece);
        }
    }
    Ok(())
}

fn flush_run(pool: &Pool, run: Option<Run>, into: &mut [u8]) -> Result<()> {
    let Some(run) = run else { return Ok(()) };
    let bytes = &mut into[run.at * BLOCK_BYTES..(run.at + run.checksums.len()) * BLOCK_BYTES];
    pool.read_pages(run.egroup, run.first_page, bytes, &|page, bytes| checksum(bytes) == run.checksums[page])
}

fn read_packed(
    pool: &Pool,
    (egroup, page): (EgroupId, u16),
    (offset, length): (u16, u16),
    expected: u64,
    into: &mut [u8],
) -> Result<()> {
    let range = offset as usize..offset as usize + length as usize;
    let mut whole = [0u8; BLOCK_BYTES];
    if range.end > BLOCK_BYTES {
        return Err(Error::corrupt("a packed block leaves its page"));
    }
    pool.read_pages(egroup, page, &mut whole, &|_, bytes| checksum(&bytes[range.clone()]) == expected)?;
    into[..length as usize].copy_from_slice(&whole[range]);
    into[length as usize..].fill(0);
    Ok(())
}
