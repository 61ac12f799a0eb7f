//! Everything that a tree's tables name, for checks: without caches, without resolving.

use super::io::Version;
use super::levels::Levels;
use super::table::{Access, RunCursor};
use crate::error::Result;
use holdfast_format::key;

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
