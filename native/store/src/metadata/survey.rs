//! Everything that a tree's tables name, for checks: without caches, without resolving.

use super::io::Version;
use super::levels::Levels;
use super::table::{Access, RunCursor};
use crate::error::Result;
use holdfast_format::{TableId, key};

/// Calls `visit` with the DATA records of one table, from `from` on, until it returns false. False: there is no such
/// table any more.
pub(super) fn data_records_of(
    view: &Levels,
    table: TableId,
    from: &[u8],
    visit: &mut dyn FnMut(&[u8], Option<&[u8]>) -> Result<bool>,
) -> Result<bool> {
    let Some(table) = view.tables().find(|other| other.desc.id == table) else { return Ok(false) };
    let mut cursor = RunCursor::new(vec![table.clone()], Access::Bulk, from, None);
    while cursor.advance()? {
        if key::data_place(cursor.key()).is_some() && !visit(cursor.key(), cursor.value())? {
            break;
        }
    }
    Ok(true)
}

/// Calls `visit` with every DATA record of every table, NOW and THEN, in no order.
pub(super) fn each_data_record(view: &Levels, visit: &mut dyn FnMut(Version) -> Result<()>) -> Result<()> {
    for table in view.tables() {
        let mut cursor = RunCursor::new(vec![table.clone()], Access::Bulk, &[], None);
        while cursor.advance()? {
            if key::data_place(cursor.key()).is_some() {
                visit(Version {
                    key: cursor.key().to_vec(),
                    stamp: cursor.stamp(),
                    value: cursor.value().map(<[u8]>::to_vec),
                })?;
            }
        }
    }
    Ok(())
}
