//! Taking a tree apart: its owner is destroyed.

use super::cells;
use super::io::TreeEdit;
use super::levels::Levels;
use super::table::{Access, RunCursor};
use crate::error::Result;
use holdfast_format::key;

/// Removes one table and releases every page that it names. Empty when no table is left. Meanwhile nobody reads the tree.
pub(super) fn dissolve_step(view: &Levels) -> Result<TreeEdit> {
    let mut edit = TreeEdit::default();
    let Some(table) = view.tables().next() else { return Ok(edit) };
    let mut cursor = RunCursor::new(vec![table.clone()], Access::Bulk, &[], None);
    while cursor.advance()? {
        if let Some((_, level)) = key::data_place(cursor.key()) {
            cells::for_each_page(level, cursor.value(), |page| edit.released.push(page))?;
        }
    }
    edit.removed.push(table.desc.id);
    Ok(edit)
}
