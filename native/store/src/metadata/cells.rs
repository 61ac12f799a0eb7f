//! Encoded DATA cells as merges look at them: without taking their checksums out.

use super::io::PageName;
use crate::error::{Error, Kind, Result};
use holdfast_format::EgroupId;
use holdfast_format::cell::{self, Cell, level_blocks, released_bytes};
use holdfast_format::limits::{BLOCK_BYTES, CELL_LEVEL_DATA_MAX};

const CHECKSUMS_AT: usize = 9;
/// An encoded PAGES cell of level 0.
const BLOCK_CELL_BYTES: usize = CHECKSUMS_AT + 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    Hole,
    /// Consecutive pages, one per block.
    Pages(EgroupId, u16),
    /// Part of one page.
    Packed(EgroupId, u16),
}

/// What a final cell is. LOGGED and PARTIAL cells never come here: the drain has turned them into others.
pub(crate) fn content(level: u8, value: Option<&[u8]>) -> Result<Content> {
    let Some(value) = value else { return Ok(Content::Hole) };
    let place = || {
        let (head, _) = value.split_first_chunk::<CHECKSUMS_AT>()?;
        let egroup = u64::from_le_bytes([head[1], head[2], head[3], head[4], head[5], head[6], 0, 0]);
        Some((EgroupId(egroup), u16::from_le_bytes([head[7], head[8]])))
    };
    let pages_bytes = CHECKSUMS_AT + level_blocks(level) as usize * 8 + released_bytes(level);
    match (value.first(), place()) {
        (Some(&cell::TAG_HOLE), _) if value.len() == 1 => Ok(Content::Hole),
        (Some(&cell::TAG_PAGES), Some((egroup, page)))
            if level <= CELL_LEVEL_DATA_MAX && value.len() == pages_bytes =>
        {
            Ok(Content::Pages(egroup, page))
        }
        (Some(&(cell::TAG_PACKED | cell::TAG_OVER)), Some((egroup, page))) if level == 0 => Ok(Content::Packed(egroup, page)),
        (Some(&(cell::TAG_LOGGED | cell::TAG_PARTIAL)), _) => {
            Err(Error::new(Kind::Internal, format!("a level-{level} cell that is not final came to a tree")))
        }
        _ => Err(Error::corrupt(format!("a level-{level} cell of {} bytes makes no sense", value.len()))),
    }
}

fn bitmap_at(level: u8) -> usize {
    CHECKSUMS_AT + level_blocks(level) as usize * 8
}

/// Whether block `n` of a cell is not in use through it any more. Bit n is bit n % 8 of byte n / 8.
pub(crate) fn is_released(level: u8, value: &[u8], block: usize) -> bool {
    level > 0 && value.get(bitmap_at(level) + block / 8).is_some_and(|byte| byte & (1 << (block % 8)) != 0)
}

pub(crate) fn set_released(level: u8, value: &mut [u8], block: usize) {
    value[bitmap_at(level) + block / 8] |= 1 << (block % 8);
}

/// The level-0 cell that names the same page as block `n` of a PAGES cell.
pub(crate) fn block_cell(value: &[u8], first_page: u16, block: usize) -> [u8; BLOCK_CELL_BYTES] {
    let mut out = [0; BLOCK_CELL_BYTES];
    out[..7].copy_from_slice(&value[..7]);
    out[7..9].copy_from_slice(&(first_page + block as u16).to_le_bytes());
    let at = CHECKSUMS_AT + block * 8;
    out[9..].copy_from_slice(&value[at..at + 8]);
    out
}

/// Bytes of stored pages that a final cell names: 4096 for a page, its length for a block that shares a page.
pub(crate) fn payload_bytes(level: u8, value: Option<&[u8]>) -> u64 {
    let Some(value) = value else { return 0 };
    match value.first() {
        Some(&cell::TAG_PAGES) => {
            let blocks = level_blocks(level) as usize;
            let live = (0..blocks).filter(|block| !is_released(level, value, *block)).count();
            (live * BLOCK_BYTES) as u64
        }
        Some(&(cell::TAG_PACKED | cell::TAG_OVER)) => match Cell::decode(level, value) {
            Ok(Cell::Packed { length, .. }) => length as u64,
            Ok(Cell::Over { base, .. }) => base.length as u64,
            _ => 0,
        },
        _ => 0,
    }
}

/// Calls `name` with every page that a final cell names.
pub(crate) fn for_each_page(level: u8, value: Option<&[u8]>, mut name: impl FnMut(PageName)) -> Result<()> {
    match content(level, value)? {
        Content::Hole => {}
        Content::Packed(egroup, page) => name((egroup, page)),
        Content::Pages(egroup, first) => {
            let value = value.unwrap_or_default();
            (0..level_blocks(level) as usize)
                .filter(|block| !is_released(level, value, *block))
                .for_each(|block| name((egroup, first + block as u16)));
        }
    }
    Ok(())
}
