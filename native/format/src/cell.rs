//! Cells: what a DATA key says about an aligned range of a file's blocks (STORE.md 1, 3).
//!
//! ```text
//! cell   = tag u8 | body
//! 1 HOLE     (empty)                                              any level
//! 2 PAGES    egroup u48 | first_page u16 | checksum u64 × blocks | released bitmap (levels 1, 2 only)
//!            blocks = 16^level, pages are consecutive; released bit n: block n is not in use through this
//!            cell any more (shadowed by a newer cell), its page was released; it is bit n % 8 of byte n / 8
//! 3 PACKED   egroup u48 | page u16 | byte_offset u16 | length u16 | checksum u64     level 0
//!            the block is `length` bytes, then zeroes; the checksum is over the `length` bytes
//! 4 LOGGED   lsn u64 | first_page u16 | checksum u64 × blocks      the op's payload pages, still in the log
//! 5 PARTIAL  start u16 | bytes                                     level 0; bytes over whatever the block was
//! 6 OVER     as PACKED (a whole page: byte_offset 0, length 4096) | pieces          level 0
//!            pieces = (start u16 | length u16 | bytes) ascending, with gaps between them; bytes over a block that could
//!            not be read when a drain wanted to merge them
//! ```
//! LOGGED and PARTIAL live only in the log and in memtables; the drain turns them into PAGES and PACKED (or OVER).

use crate::ids::{EgroupId, Lsn};
use crate::limits::{BLOCK_BYTES, CELL_LEVEL_DATA_MAX, CELL_LEVEL_MAX, EGROUP_PAGES_MAX};
use crate::wire::{DecodeError, Put, Take};

pub const TAG_HOLE: u8 = 1;
pub const TAG_PAGES: u8 = 2;
pub const TAG_PACKED: u8 = 3;
pub const TAG_LOGGED: u8 = 4;
pub const TAG_PARTIAL: u8 = 5;
pub const TAG_OVER: u8 = 6;

/// Start and length of a piece in an OVER cell.
const PIECE_HEAD_BYTES: usize = 4;

/// Blocks that a cell of this level covers.
pub const fn level_blocks(level: u8) -> u64 {
    1 << (4 * level as u32)
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cell {
    Hole,
    Pages { egroup: EgroupId, first_page: u16, checksums: Vec<u64>, released: Vec<u8> },
    Packed { egroup: EgroupId, page: u16, byte_offset: u16, length: u16, checksum: u64 },
    Logged { lsn: Lsn, first_page: u16, checksums: Vec<u64> },
    Partial { start: u16, bytes: Vec<u8> },
    Over { base: Packed, pieces: Vec<(u16, Vec<u8>)> },
}

/// A block that shares a page with others, or has it for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packed {
    pub egroup: EgroupId,
    pub page: u16,
    pub byte_offset: u16,
    pub length: u16,
    pub checksum: u64,
}

impl Packed {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u48(self.egroup.0);
        out.put_u16(self.page);
        out.put_u16(self.byte_offset);
        out.put_u16(self.length);
        out.put_u64(self.checksum);
    }

    fn take(take: &mut Take<'_>) -> Result<Self, DecodeError> {
        let egroup = EgroupId(take.u48()?);
        let page = take_first_page(take, 1)?;
        let (byte_offset, length, checksum) = (take.u16()?, take.u16()?, take.u64()?);
        if byte_offset as usize + length as usize > BLOCK_BYTES {
            return Err(DecodeError::Invalid("packed block range"));
        }
        Ok(Self { egroup, page, byte_offset, length, checksum })
    }
}

/// Whether this encoded cell is only a piece that lies over an older version of the block.
pub fn is_partial(value: &[u8]) -> bool {
    value.first() == Some(&TAG_PARTIAL)
}

/// Bytes of the released bitmap of a PAGES cell.
pub const fn released_bytes(level: u8) -> usize {
    match level {
        1 => 2,
        2 => 32,
        _ => 0,
    }
}

impl Cell {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Hole => out.put_u8(TAG_HOLE),
            Self::Pages { egroup, first_page, checksums, released } => {
                out.reserve(9 + checksums.len() * 8 + released.len());
                out.put_u8(TAG_PAGES);
                out.put_u48(egroup.0);
                out.put_u16(*first_page);
                checksums.iter().for_each(|sum| out.put_u64(*sum));
                out.put_bytes(released);
            }
            Self::Packed { egroup, page, byte_offset, length, checksum } => {
                out.put_u8(TAG_PACKED);
                let (egroup, page, byte_offset, length, checksum) =
                    (*egroup, *page, *byte_offset, *length, *checksum);
                Packed { egroup, page, byte_offset, length, checksum }.put(&mut out);
            }
            Self::Logged { lsn, first_page, checksums } => {
                out.reserve(11 + checksums.len() * 8);
                out.put_u8(TAG_LOGGED);
                out.put_u64(lsn.0);
                out.put_u16(*first_page);
                checksums.iter().for_each(|sum| out.put_u64(*sum));
            }
            Self::Partial { start, bytes } => {
                out.put_u8(TAG_PARTIAL);
                out.put_u16(*start);
                out.put_bytes(bytes);
            }
            Self::Over { base, pieces } => {
                out.put_u8(TAG_OVER);
                base.put(&mut out);
                for (start, bytes) in pieces {
                    out.put_u16(*start);
                    out.put_u16(bytes.len() as u16);
                    out.put_bytes(bytes);
                }
            }
        }
        out
    }

    /// Decodes the value of a DATA key of `level`.
    pub fn decode(level: u8, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut take = Take::new(bytes);
        let tag = take.u8()?;
        if level > CELL_LEVEL_MAX || (tag != TAG_HOLE && level > CELL_LEVEL_DATA_MAX) {
            return Err(DecodeError::Invalid("cell level"));
        }
        let blocks = level_blocks(level) as usize;
        match tag {
            TAG_HOLE => {
                take.end()?;
                Ok(Self::Hole)
            }
            TAG_PAGES => {
                let egroup = EgroupId(take.u48()?);
                let first_page = take_first_page(&mut take, blocks)?;
                let checksums = take_checksums(&mut take, blocks)?;
                let released = take.bytes(released_bytes(level))?.to_vec();
                take.end()?;
                Ok(Self::Pages { egroup, first_page, checksums, released })
            }
            TAG_PACKED if level == 0 => {
                let Packed { egroup, page, byte_offset, length, checksum } = Packed::take(&mut take)?;
                take.end()?;
                Ok(Self::Packed { egroup, page, byte_offset, length, checksum })
            }
            TAG_OVER if level == 0 => {
                let base = Packed::take(&mut take)?;
                Ok(Self::Over { base, pieces: take_pieces(take.rest())? })
            }
            TAG_LOGGED => {
                let lsn = Lsn(take.u64()?);
                let first_page = take_first_page(&mut take, blocks)?;
                let checksums = take_checksums(&mut take, blocks)?;
                take.end()?;
                Ok(Self::Logged { lsn, first_page, checksums })
            }
            TAG_PARTIAL if level == 0 => {
                let start = take.u16()?;
                let bytes = take.rest();
                if bytes.is_empty() || start as usize + bytes.len() > BLOCK_BYTES {
                    return Err(DecodeError::Invalid("partial block range"));
                }
                Ok(Self::Partial { start, bytes: bytes.to_vec() })
            }
            _ => Err(DecodeError::Invalid("cell tag")),
        }
    }
}

fn take_pieces(bytes: &[u8]) -> Result<Vec<(u16, Vec<u8>)>, DecodeError> {
    let (mut take, mut left) = (Take::new(bytes), bytes.len());
    let (mut pieces, mut least) = (Vec::new(), 0);
    while left > 0 {
        let (start, length) = (take.u16()?, take.u16()? as usize);
        let end = start as usize + length;
        if length == 0 || (start as usize) < least || end > BLOCK_BYTES {
            return Err(DecodeError::Invalid("pieces over a block"));
        }
        pieces.push((start, take.bytes(length)?.to_vec()));
        least = end + 1;
        left -= PIECE_HEAD_BYTES + length;
    }
    if pieces.is_empty() { Err(DecodeError::Invalid("no pieces over a block")) } else { Ok(pieces) }
}

/// First of `pages` consecutive pages, all inside an egroup.
fn take_first_page(take: &mut Take<'_>, pages: usize) -> Result<u16, DecodeError> {
    let first = take.u16()?;
    if first as usize + pages > EGROUP_PAGES_MAX {
        return Err(DecodeError::Invalid("cell page"));
    }
    Ok(first)
}

fn take_checksums(take: &mut Take<'_>, count: usize) -> Result<Vec<u64>, DecodeError> {
    let bytes = take.bytes(count * 8)?;
    Ok(bytes.chunks_exact(8).map(|sum| u64::from_le_bytes(std::array::from_fn(|at| sum[at]))).collect())
}

const _: () = assert!(level_blocks(CELL_LEVEL_DATA_MAX) as usize <= EGROUP_PAGES_MAX, "a data cell fits an egroup");

/// Cuts `[first, first + count)` blocks into the fewest aligned cells of levels `0..=level_max`, in order.
pub fn cut_range(first: u64, count: u64, level_max: u8, mut emit: impl FnMut(u32, u8)) {
    let end = first + count;
    debug_assert!(end <= 1 << 32);
    let mut at = first;
    while at < end {
        let mut level = level_max;
        while level > 0 && (!at.is_multiple_of(level_blocks(level)) || at + level_blocks(level) > end) {
            level -= 1;
        }
        emit(at as u32, level);
        at += level_blocks(level);
    }
}
