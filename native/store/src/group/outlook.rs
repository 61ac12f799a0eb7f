//! What the trees say about pages that cleaning is about to move: whether the present names them, and which part of the
//! past forgets them first.

use super::Group;
use super::view::View;
use crate::error::{Error, Result};
use crate::extent::resolve::{Block, Source, resolve};
use crate::metadata::io::{PageName, Points};
use crate::placement::{Birth, Forecast, Outlook, PAST_CLASSES};
use holdfast_format::inode::InodeRecord;
use holdfast_format::{BranchId, Ino, Lsn, key};

/// Neighbouring blocks that one look-up resolves.
const RUN_BLOCKS_MAX: usize = 256;

/// Whether a block's newest content is this page, by the name that records use.
fn is_named(block: &Block, name: PageName) -> bool {
    match block.source {
        Source::Page { egroup, page, .. } | Source::Packed { egroup, page, .. } => (egroup, page) == name,
        Source::Hole | Source::Logged { .. } => false,
    }
}

/// A version that died at `death` is forgotten with the newest point before it.
fn past_class(points: &Points, death: Lsn) -> Outlook {
    let lsns = points.lsns();
    let before = lsns.partition_point(|point| *point < death);
    Outlook::Past((before * PAST_CLASSES as usize / (lsns.len() + 1)) as u8)
}

/// Levels at which a file has cells, as its inode says; `None`: there is no such file any more.
fn levels_of(view: &View, (branch, ino): (BranchId, Ino)) -> Result<Option<u16>> {
    let Some(bytes) = view.get(&key::inode(branch, ino))? else { return Ok(None) };
    let record = InodeRecord::decode(&bytes).map_err(|error| Error::decode("an inode", error))?;
    Ok(Some(record.levels))
}

impl Group {
    /// Fills in the outlooks of those of the pages that are this group's.
    pub(crate) fn tell_outlooks(&self, pages: &[(PageName, Birth)], outlooks: &mut [Outlook]) -> Result<()> {
        let own: Vec<usize> = (0..pages.len()).filter(|at| pages[*at].1.group == self.id).collect();
        let asked: Vec<(PageName, Birth)> = own.iter().map(|at| pages[*at]).collect();
        for (at, outlook) in own.into_iter().zip(self.outlook_of(&asked)?) {
            outlooks[at] = outlook;
        }
        Ok(())
    }

    /// Outlooks of pages of this group, in their order.
    fn outlook_of(&self, pages: &[(PageName, Birth)]) -> Result<Vec<Outlook>> {
        let _hold = self.pool.hold();
        let view = self.view();
        let points = self.merge_points();
        let mut order: Vec<usize> = (0..pages.len()).collect();
        let place = |at: usize| (pages[at].1.branch, pages[at].1.ino, pages[at].1.block);
        order.sort_unstable_by_key(|at| place(*at));
        let mut outlooks = vec![Outlook::Past(0); pages.len()];
        let mut file: Option<((BranchId, Ino), Option<u16>)> = None;
        let mut rest = &order[..];
        while let Some(first) = rest.first() {
            let (branch, ino, block) = place(*first);
            let neighbour = |at: usize| place(rest[at]) == (branch, ino, block.wrapping_add(at as u32));
            let length = (0..rest.len().min(RUN_BLOCKS_MAX)).take_while(|at| neighbour(*at)).count();
            let (run, others) = rest.split_at(length);
            rest = others;
            let known = file.filter(|(known, _)| *known == (branch, ino));
            let levels = match known {
                Some((_, levels)) => levels,
                None => levels_of(&view, (branch, ino))?,
            };
            file = Some(((branch, ino), levels));
            let Some(levels) = levels else { continue };
            let resolved = resolve(&view, (branch, ino), levels, block as u64, run.len())?;
            for (at, block) in run.iter().zip(&resolved.blocks) {
                let present = is_named(block, pages[*at].0);
                outlooks[*at] = if present { Outlook::Present } else { past_class(&points, block.stamp.lsn) };
            }
        }
        Ok(outlooks)
    }
}

/// Pages of other groups are taken for present.
impl Forecast for Group {
    fn outlook(&self, pages: &[(PageName, Birth)]) -> Result<Vec<Outlook>> {
        let mut outlooks = vec![Outlook::Present; pages.len()];
        self.tell_outlooks(pages, &mut outlooks)?;
        Ok(outlooks)
    }
}
