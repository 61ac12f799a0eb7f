//! Whose the past's bytes are: what one point alone holds, and what would be free if some of them went.
//!
//! A version that only the past sees has a life, and the kept points in it hold it. A page is free when no record names it any
//! more, so a page with several names (copies by reference, small blocks that share one) counts for what holds all of them.
//! What is told is in pages of content, once, whatever their copies; tables, footers and slots are not counted.
//!
//! - Exact as of the tables: what a deletion gives back is what was told, as far as nothing else happens in between.
//! - The account goes through the tables of the past that may hold such a record, and through what the present hides of inodes
//!   that were changed since its levels met. Memory: a few words a point, and [`SHARED_MAX`] pages with several names.

use super::Group;
use super::loosen::Gap;
use crate::error::{Error, Result};
use crate::metadata::io::{PageName, Points};
use crate::placement::Sharing;
use holdfast_format::checksum::checksum;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::table::TableDesc;
use holdfast_format::Lsn;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Pages with several names that one account keeps in mind; what is beyond counts as held by others.
const SHARED_MAX: usize = 1 << 20;

/// What a point holds of the past, in bytes of content.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PointSpace {
    /// Nobody else does: deleting it gives these back.
    pub unique: u64,
    /// `unique`, and what beside it only kept seconds hold: given back when those have gone by themselves, too.
    pub unique_lasting: u64,
    /// Everything that it sees and the present does not.
    pub seen: u64,
}

/// What points hold, by LSN.
pub type PointSpaces = BTreeMap<Lsn, PointSpace>;

/// The newest account, and what it is of.
pub(super) type Account = Option<(u64, Arc<PointSpaces>)>;

/// What would be free if some points went.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WouldFree {
    pub bytes: u64,
    /// More, once the kept seconds that hold it too have gone by themselves.
    pub bytes_later: u64,
}

/// Which points hold a version: those of these places in the list.
type Holders = std::ops::Range<usize>;

/// A page that several records name.
struct SharedPage {
    names: u32,
    found: u32,
    holders: Vec<Holders>,
}

/// Goes through the past once, and hands pages out with their holders; pages with several names at the end.
struct Pass {
    points: Arc<Points>,
    shared: BTreeMap<PageName, SharedPage>,
    sharing: Sharing,
}

impl Pass {
    fn holders(&self, birth: Lsn, death: Lsn) -> Holders {
        let lsns = self.points.lsns();
        lsns.partition_point(|point| *point < birth)..lsns.partition_point(|point| *point < death)
    }

    /// One of the records that name a page.
    fn note(&mut self, page: PageName, names: u32, holders: &Holders) {
        if self.shared.len() < SHARED_MAX {
            self.shared.entry(page).or_insert(SharedPage { names, found: 0, holders: Vec::new() });
        }
        self.note_known(&page, holders);
    }

    fn note_known(&mut self, page: &PageName, holders: &Holders) {
        let Some(shared) = self.shared.get_mut(page) else { return };
        shared.found += 1;
        if shared.holders.last() != Some(holders) {
            shared.holders.push(holders.clone());
        }
    }
}

/// How many points before each place are of a kind.
fn counted(lsns: &[Lsn], of_kind: impl Fn(&Lsn) -> bool) -> Vec<u32> {
    let mut counts = Vec::with_capacity(lsns.len() + 1);
    let mut count = 0;
    counts.push(0);
    for lsn in lsns {
        count += u32::from(of_kind(lsn));
        counts.push(count);
    }
    counts
}

fn of_kind(counts: &[u32], holders: &Holders) -> u32 {
    counts[holders.end] - counts[holders.start]
}

/// The places of several lists as one, without what is in two of them.
fn merged(mut holders: Vec<Holders>) -> Vec<Holders> {
    holders.sort_by_key(|one| one.start);
    let mut all: Vec<Holders> = Vec::with_capacity(holders.len());
    for one in holders.into_iter().filter(|one| !one.is_empty()) {
        match all.last_mut() {
            Some(last) if one.start <= last.end => last.end = last.end.max(one.end),
            _ => all.push(one),
        }
    }
    all
}

/// What is asked for: pages with the points that hold them, all of which would have to go; and whether nobody else does.
type Take<'a> = &'a mut dyn FnMut(&[Holders], u64, bool);

impl Group {
    /// What each of some points holds, in their order. Everything acknowledged is drained first.
    pub fn space_of(&self, asked: &[Lsn]) -> Result<Vec<PointSpace>> {
        let (points, lasting) = self.points_drained()?;
        let lsns = points.lsns();
        let is_lasting = counted(lsns, |lsn| lasting.binary_search(lsn).is_ok());
        let mut spaces = vec![PointSpace::default(); lsns.len()];
        // `seen` as differences from one place to the next.
        let mut seen = vec![0i64; lsns.len() + 1];
        self.each_page(&points, &|_| true, &mut |holders, bytes, alone| {
            for one in holders {
                seen[one.start] += bytes as i64;
                seen[one.end] -= bytes as i64;
            }
            let [first, ..] = holders else { return };
            if !alone {
                return;
            }
            if holders.len() == 1 && first.len() == 1 {
                spaces[first.start].unique += bytes;
            }
            if holders.iter().map(|one| of_kind(&is_lasting, one)).sum::<u32>() == 1 {
                let holds = |one: &&Holders| of_kind(&is_lasting, one) == 1;
                let one = holders.iter().find(holds).unwrap_or(first);
                let place = is_lasting[one.start..=one.end].partition_point(|count| *count == is_lasting[one.start]);
                spaces[one.start + place - 1].unique_lasting += bytes;
            }
        })?;
        let mut sum = 0;
        for (space, more) in spaces.iter_mut().zip(&seen) {
            sum += more;
            space.seen = sum as u64;
        }
        let kept = self.points.lock();
        let of = |lsn: &Lsn| match lsns.binary_search(lsn) {
            Ok(at) if kept.is_kept_twice(*lsn) => PointSpace { seen: spaces[at].seen, ..PointSpace::default() },
            Ok(at) => spaces[at],
            Err(_) => PointSpace::default(),
        };
        Ok(asked.iter().map(of).collect())
    }

    /// The same of all points that stay until somebody lets go of them; known until something changes.
    pub fn space_of_lasting(&self) -> Result<Arc<PointSpaces>> {
        let mut known = self.account.lock();
        let (_, lasting) = self.points_drained()?;
        let state = self.account_state();
        if let Some((_, spaces)) = known.as_ref().filter(|(of, _)| *of == state) {
            return Ok(spaces.clone());
        }
        let spaces = self.space_of(&lasting)?;
        let spaces = Arc::new(lasting.into_iter().zip(spaces).collect());
        *known = Some((state, Arc::clone(&spaces)));
        Ok(spaces)
    }

    /// Stands for the tables and points that an account is of.
    fn account_state(&self) -> u64 {
        let levels = self.tree.snapshot();
        let tables = levels.tables().map(|table| table.desc.id.0);
        let points = self.merge_points();
        let words: Vec<u8> = tables.chain(points.lsns().iter().map(|lsn| lsn.0)).flat_map(u64::to_le_bytes).collect();
        checksum(&words)
    }

    /// What would be free if all of some snapshots went. What a clone or a mount was made of stays as long as that.
    pub fn would_free(&self, going: &[Lsn]) -> Result<WouldFree> {
        let (points, lasting) = self.points_drained()?;
        let mut going = going.to_vec();
        going.sort_unstable();
        {
            let kept = self.points.lock();
            going.retain(|lsn| !kept.is_pinned(*lsn));
        }
        let stays = |lsn: &Lsn| going.binary_search(lsn).is_err();
        let staying = counted(points.lsns(), stays);
        let lasting: Vec<Lsn> = lasting.into_iter().filter(stays).collect();
        let lasting_staying = counted(points.lsns(), |lsn| lasting.binary_search(lsn).is_ok());
        let lasting = Points::from_sorted(lasting);
        let gaps: Vec<Gap> = going.iter().map(|lsn| Gap::new((*lsn, *lsn), &lasting)).collect();
        let mut free = WouldFree::default();
        self.each_page(&points, &|desc| gaps.iter().any(|gap| gap.concerns(desc)), &mut |holders, bytes, alone| {
            let held_by = |counts: &[u32]| holders.iter().map(|one| of_kind(counts, one)).sum::<u32>();
            let leaves = |one: &Holders| one.len() as u32 > of_kind(&staying, one);
            if !alone || !holders.iter().any(leaves) {
                return;
            }
            if held_by(&staying) == 0 {
                free.bytes += bytes;
            } else if held_by(&lasting_staying) == 0 {
                free.bytes_later += bytes;
            }
        })?;
        Ok(free)
    }

    /// Bytes of tables that an account reads at most.
    pub fn account_bytes(&self) -> u64 {
        let stats = self.tree.stats();
        stats.then.bytes + stats.levels.iter().map(|level| level.bytes).sum::<u64>()
    }

    /// The points, and those of them that stay until somebody lets go of them, after everything was drained.
    fn points_drained(&self) -> Result<(Arc<Points>, Vec<Lsn>)> {
        if self.drained() < self.newest() {
            self.drain_now()?;
        }
        let mut points = self.points.lock();
        let lasting = points.lasting();
        Ok((points.points(self.log.durable()), lasting))
    }

    /// Goes through the tables that are wanted. Where they name pages that others name too, the rest is asked for those alone.
    fn each_page(&self, points: &Arc<Points>, wanted: &dyn Fn(&TableDesc) -> bool, take: Take<'_>) -> Result<()> {
        let mut pass = Pass { points: points.clone(), shared: BTreeMap::new(), sharing: Sharing::default() };
        self.tree.each_past_record(points, wanted, &mut |record| {
            self.go_on()?;
            let holders = pass.holders(record.birth, record.death);
            let mut alone = 0;
            for page in record.pages {
                match self.pool.names_of(*page, &mut pass.sharing)? {
                    0 => {}
                    1 => alone += 1,
                    names => pass.note(*page, names, &holders),
                }
            }
            if alone > 0 && !holders.is_empty() {
                take(std::slice::from_ref(&holders), alone * BLOCK_BYTES as u64, true);
            }
            Ok(())
        })?;
        if pass.shared.values().any(|page| page.found < page.names) {
            self.tree.each_then_record(&|desc| !wanted(desc), &mut |record| {
                self.go_on()?;
                let holders = pass.holders(record.birth, record.death);
                record.pages.iter().for_each(|page| pass.note_known(page, &holders));
                Ok(())
            })?;
        }
        for page in pass.shared.into_values() {
            let alone = page.found >= page.names;
            take(&merged(page.holders), BLOCK_BYTES as u64, alone);
        }
        Ok(())
    }

    /// A pool that is being closed waits for nobody's account.
    fn go_on(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) { Err(Error::closed()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::merged;

    #[test]
    fn places_are_merged_once() {
        assert_eq!(merged(vec![4..6, 1..2, 5..9, 2..3, 7..7]), [1..3, 4..9]);
        assert!(merged(vec![3..3, 8..8]).is_empty());
    }
}
