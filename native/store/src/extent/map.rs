//! Holes and data of a file, and references for copies.

use super::resolve::{Source, block_range, resolve};
use crate::error::Result;
use crate::group::view::View;
use crate::ledger::Mapped;
use holdfast_format::cell::level_blocks;
use holdfast_format::limits::CELL_LEVEL_DATA_MAX;
use holdfast_format::{BranchId, Ino, key};

/// Blocks of one granule: what one data cell of the highest level covers.
const GRANULE_BLOCKS: u64 = level_blocks(CELL_LEVEL_DATA_MAX);

/// Runs of `[first, end)`, in order, neighbours merged, until `visit` returns false. Empty stretches cost one seek.
pub fn map(
    view: &View,
    (branch, ino): (BranchId, Ino),
    levels: u16,
    (first, end): (u64, u64),
    visit: &mut dyn FnMut(u64, u64, Mapped) -> bool,
) -> Result<()> {
    let mut pending: Option<(u64, u64, Mapped)> = None;
    let mut emit = |start: u64, count: u64, mapped: Mapped| -> bool {
        match &mut pending {
            Some((_, length, same)) if *same == mapped => *length += count,
            _ => {
                if let Some((start, length, mapped)) = pending.replace((start, count, mapped))
                    && !visit(start, length, mapped)
                {
                    return false;
                }
            }
        }
        true
    };
    let mut at = first;
    while at < end {
        let Some(granule) = next_granule(view, (branch, ino), at, end)? else {
            if !emit(at, end - at, Mapped::Hole) {
                return Ok(());
            }
            break;
        };
        if granule > at && !emit(at, granule - at, Mapped::Hole) {
            return Ok(());
        }
        let from = granule.max(at);
        let until = ((from / GRANULE_BLOCKS + 1) * GRANULE_BLOCKS).min(end);
        let resolved = resolve(view, (branch, ino), levels, from, (until - from) as usize)?;
        for (offset, block) in resolved.blocks.iter().enumerate() {
            let hole = matches!(block.source, Source::Hole) && block.pieces.is_empty();
            let mapped = if hole { Mapped::Hole } else { Mapped::Data };
            if !emit(from + offset as u64, 1, mapped) {
                return Ok(());
            }
        }
        at = until;
    }
    if let Some((start, length, mapped)) = pending {
        visit(start, length, mapped);
    }
    Ok(())
}

/// Start of the first granule at or after that of `at` that has any data cell; `at` itself inside its granule.
fn next_granule(view: &View, (branch, ino): (BranchId, Ino), at: u64, end: u64) -> Result<Option<u64>> {
    let granule = at / GRANULE_BLOCKS * GRANULE_BLOCKS;
    let (from, until) = block_range(branch, ino, granule, end);
    let mut found = None;
    view.scan(&from, &until, &mut |seen| {
        if let Some((start, level)) = key::data_place(seen.key)
            && level <= CELL_LEVEL_DATA_MAX
            && seen.value.is_some()
        {
            found = Some((start as u64 / GRANULE_BLOCKS * GRANULE_BLOCKS).max(at));
            return Ok(false);
        }
        Ok(true)
    })?;
    Ok(found)
}
