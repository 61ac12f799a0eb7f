//! `fsck` while the pool is open: everything that can be recomputed is, and compared with what the records say.

use super::Engine;
use crate::error::{Error, Result};
use crate::group::Group;
use crate::metadata::io::PageName;
use crate::placement::{Named, PageCounts};
use holdfast_format::cell::{Cell, level_blocks};
use holdfast_format::key;
use holdfast_format::limits::BLOCK_BYTES;
use std::collections::BTreeSet;

/// What a check looked at, and what it found wrong.
#[derive(Clone, Default, Debug)]
pub struct CheckReport {
    pub groups: u64,
    pub data_records: u64,
    /// Pages that were read and verified.
    pub pages: u64,
    /// One sentence for each thing that is wrong; empty: nothing is.
    pub problems: Vec<String>,
}

impl Engine {
    /// Checks that the pool's records say what the groups' tables name: every named page is live, is counted as often
    /// as it is named, reads and verifies, and is protected as its volume asks, unless that is being brought about;
    /// every slot has one owner; no slot is lost. Drains, compactions and cleaning wait meanwhile; reads, writes and
    /// flushes go on.
    ///
    /// Errors: those of reading tables. What is wrong is no error, but in the report.
    pub fn fsck(&self) -> Result<CheckReport> {
        self.ensure_open()?;
        let groups = self.groups();
        let _still: Vec<_> = groups.iter().map(|group| group.hold_still()).collect();
        let mut report = CheckReport::default();
        let mut named = PageCounts::new();
        for group in &groups {
            report.groups += 1;
            check_group(self, group, &mut named, &mut report)?;
        }
        if !self.is_unprotected() {
            report.problems.extend(self.pool.check_protection(&self.asked()?)?);
        }
        let damaged = self.damage_warnings();
        if damaged.is_empty() {
            report.problems.extend(self.pool.check(&named)?);
        }
        // What their tables name is unknown, so counts would say nothing.
        report.problems.extend(damaged);
        Ok(report)
    }
}

fn check_group(
    engine: &Engine,
    group: &Group,
    named: &mut PageCounts,
    report: &mut CheckReport,
) -> Result<()> {
    let mut read: BTreeSet<(PageName, u64)> = BTreeSet::new();
    group.tree().each_data_record(&mut |version| {
        report.data_records += 1;
        let Some((block, level)) = key::data_place(&version.key) else { return Ok(()) };
        let Some(value) = &version.value else { return Ok(()) };
        let cell = Cell::decode(level, value).map_err(|error| Error::decode("a cell", error))?;
        for (page, content) in named_pages(level, &cell) {
            *named.entry(page).or_default() += 1;
            if read.insert((page, content.checksum)) {
                report.pages += 1;
                if let Err(error) = verify(engine, page, &content) {
                    report.problems.push(format!("group {}, block {block}: {error}", group.id));
                }
            }
        }
        Ok(())
    })
}

/// The pages that a cell names, and which bytes of them.
pub(super) fn named_pages(level: u8, cell: &Cell) -> Vec<(PageName, Named)> {
    match cell {
        Cell::Pages { egroup, first_page, checksums, released } => (0..level_blocks(level) as usize)
            .filter(|block| released.get(block / 8).is_none_or(|byte| byte >> (block % 8) & 1 == 0))
            .filter_map(|block| {
                let checksum = *checksums.get(block)?;
                let named = Named { offset: 0, length: BLOCK_BYTES as u16, checksum };
                Some(((*egroup, first_page + block as u16), named))
            })
            .collect(),
        Cell::Packed { egroup, page, byte_offset, length, checksum } => {
            vec![((*egroup, *page), Named { offset: *byte_offset, length: *length, checksum: *checksum })]
        }
        Cell::Over { base, .. } => {
            let named = Named { offset: base.byte_offset, length: base.length, checksum: base.checksum };
            vec![((base.egroup, base.page), named)]
        }
        Cell::Hole | Cell::Logged { .. } | Cell::Partial { .. } => Vec::new(),
    }
}

fn verify(engine: &Engine, (egroup, page): PageName, content: &Named) -> Result<()> {
    let mut bytes = [0u8; BLOCK_BYTES];
    engine.pool.read_pages(egroup, page, &mut bytes, &|_, bytes| content.matches(bytes))
}
