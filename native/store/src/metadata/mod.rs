//! Ordered, versioned records on the drives: memtables, tables, the trees NOW and THEN.

mod absorb;
pub mod cache;
mod cells;
mod changed;
mod compact;
mod cut;
mod dissolve;
pub mod io;
mod levels;
mod hidden;
pub mod memtable;
mod output;
mod resolve;
mod table;
mod survey;
pub mod tree;
mod writer;

use holdfast_format::cell::level_blocks;
use holdfast_format::key::{self, KIND_DATA, PREFIX_BYTES};
use holdfast_format::table::TreeKind;

/// First block and level of a cell; keys of the pool's tree are none, whatever they look like.
pub(crate) fn data_place(tree: TreeKind, key: &[u8]) -> Option<(u32, u8)> {
    (tree != TreeKind::Pool).then(|| key::data_place(key)).flatten()
}

/// Exclusive end key of what the cell at `key` (a DATA key of `start` and `level`) covers.
pub(crate) fn cover_until(key: &[u8], start: u32, level: u8) -> Vec<u8> {
    let end = start as u64 + level_blocks(level);
    let mut until = key[..PREFIX_BYTES].to_vec();
    match u32::try_from(end) {
        Ok(end) => until.extend_from_slice(&end.to_be_bytes()),
        Err(_) => until[PREFIX_BYTES - 1] = KIND_DATA + 1,
    }
    until
}

#[cfg(test)]
mod tests;
