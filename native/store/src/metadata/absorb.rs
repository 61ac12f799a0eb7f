//! Taking over what lies below a tree: what a clone has of its ancestors becomes its own, a step at a time, so that nothing is
//! looked up there any more.
//!
//! The layers' records come together in key order, those of a key newest layer first. The resolver decides what is seen
//! from above, as in a drain, and names its pages once more. What is left lies below everything that the tree has, with a
//! stamp before its first op: cells that are left do not overlap, but for holes, over which smaller cells win. What the tree has
//! itself, so that nobody sees the ancestors' any more, is the nearest layer, and is left out of what is written.
//!
//! LSNs of different groups have nothing to do with each other: each layer's are lifted above those of the layers below it
//! while they are compared.

use super::io::{PageName, TableIo, TreeEdit};
use super::levels::{Levels, LevelsIter};
use super::output::{Output, Sink};
use super::resolve::{Below, Origin, Resolver};
use super::tree::Points;
use super::writer::TableName;
use crate::error::Result;
use holdfast_format::block::Entry;
use holdfast_format::cell::level_blocks;
use holdfast_format::key::{self, KIND_VOLUME, Key};
use holdfast_format::limits::{BLOCK_BYTES, CELL_LEVEL_DATA_MAX};
use holdfast_format::table::TreeKind;
use holdfast_format::{BranchId, Lsn, Row, Stamp};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Tables that one step writes, about.
const TABLES_PER_STEP: usize = 4;

/// An ancestor's own tables, and the point of it that is taken over.
pub struct Layer {
    pub levels: Arc<Levels>,
    pub at: Lsn,
}

/// What a step takes.
pub struct Share<'a> {
    /// Volumes whose records are taken; their own records are not: the clone has others.
    pub branches: &'a BTreeSet<BranchId>,
    /// Where the step before stopped.
    pub from: &'a [u8],
    /// Pages that it names, about.
    pub pages_max: usize,
}

/// A step's outcome.
pub struct Absorbed {
    pub edit: TreeEdit,
    /// Where the next step begins; `None`: this was the last one.
    pub next: Option<Key>,
}

/// Where a step may stop: no cell before reaches over the place.
#[derive(Default)]
struct Seam {
    inode: Key,
    granule: u64,
    covered_until: u64,
}

impl Seam {
    /// Looks at a key that is about to be taken: whether the step may stop before it.
    fn is_at(&mut self, key: &[u8]) -> bool {
        let Some((start, level)) = key::data_place(key) else { return true };
        let (inode, granule) = (&key[..key::PREFIX_BYTES], start as u64 / level_blocks(CELL_LEVEL_DATA_MAX));
        let fresh = self.inode != inode;
        if fresh {
            self.inode = inode.to_vec();
            self.covered_until = 0;
        }
        let stops = fresh || granule != self.granule && start as u64 >= self.covered_until;
        self.granule = granule;
        if level > CELL_LEVEL_DATA_MAX {
            self.covered_until = self.covered_until.max(start as u64 + level_blocks(level));
        }
        stops
    }
}

/// Row of the stamps of what only hides.
const OWN: Row = Row(1);

/// Writes tables of the layers' records (newest layer first), as far as `own` does not hide them, from a place on. Nothing of the tree may lie on their level from
/// there on, nor on a deeper one.
pub(crate) fn absorb(
    io: &dyn TableIo,
    name: TableName,
    (own, layers): (&Layer, &[Layer]),
    below: Below,
    share: &Share<'_>,
) -> Result<Absorbed> {
    let points = Points::default();
    let out = Output::new(io, name, Vec::new(), &points).stamped(Stamp::default());
    let mut resolver = Resolver::new(&points, below, Origin::Memtable, out).hiding(OWN);
    let full = |resolver: &Resolver<'_, Output<'_>>| {
        resolver.named() >= share.pages_max || resolver.tables() >= TABLES_PER_STEP
    };
    let next = feed(&mut resolver, (own, layers), share, &full)?;
    Ok(Absorbed { edit: resolver.finish()?.finish()?, next })
}

/// Bytes of pages that all steps together would name, about.
pub(crate) fn count(own: &Layer, layers: &[Layer], branches: &BTreeSet<BranchId>) -> Result<u64> {
    let points = Points::default();
    let below = Below { tree: TreeKind::Now, runs: Vec::new(), floor: None };
    let mut resolver = Resolver::new(&points, below, Origin::Memtable, Counted::default()).hiding(OWN);
    let share = Share { branches, from: &[], pages_max: usize::MAX };
    feed(&mut resolver, (own, layers), &share, &|_| false)?;
    Ok(resolver.finish()?.pages * BLOCK_BYTES as u64)
}

/// Small files that share a page follow each other.
#[derive(Default)]
struct Counted {
    pages: u64,
    last: Option<PageName>,
}

impl Sink for Counted {
    fn reserve_now(&mut self, _: usize, _: usize) -> Result<()> {
        Ok(())
    }

    fn put_now(&mut self, _: Entry<'_>) -> Result<()> {
        Ok(())
    }

    fn put_then(&mut self, _: Entry<'_>) -> Result<()> {
        Ok(())
    }

    fn reference(&mut self, page: PageName) {
        self.pages += u64::from(self.last != Some(page));
        self.last = Some(page);
    }

    fn release(&mut self, _: PageName) {}
}

/// Gives the layers' records to the resolver, until it is full and may stop. Where it goes on then.
fn feed<S: Sink>(
    resolver: &mut Resolver<'_, S>,
    (own, layers): (&Layer, &[Layer]),
    share: &Share<'_>,
    full: &dyn Fn(&Resolver<'_, S>) -> bool,
) -> Result<Option<Key>> {
    let mut streams = streams(own, layers, share.from)?;
    let (mut seam, mut key) = (Seam::default(), Key::new());
    loop {
        let least = streams.iter().map(|(stream, _)| stream.key()).min();
        let Some(least) = least else { return Ok(None) };
        key.clear();
        key.extend_from_slice(least);
        let parts = key::parts(&key);
        if parts.is_some_and(|parts| parts.kind != KIND_VOLUME && share.branches.contains(&parts.branch)) {
            if seam.is_at(&key) && full(resolver) {
                return Ok(Some(key));
            }
            for (stream, lifted) in streams.iter().filter(|(stream, _)| stream.key() == key) {
                let stamp = Stamp { lsn: Lsn(stream.stamp().lsn.0 + lifted.lsn.0), row: lifted.row };
                resolver.push(&key, stamp, stream.value())?;
            }
        }
        let mut at = 0;
        while let Some((stream, _)) = streams.get_mut(at) {
            if stream.key() == key && !stream.advance()? {
                streams.remove(at);
            } else {
                at += 1;
            }
        }
    }
}

/// The layers from a key on, those that have anything there, with what their LSNs are lifted by.
fn streams(own: &Layer, layers: &[Layer], from: &[u8]) -> Result<Vec<(LevelsIter, Stamp)>> {
    let mut lift = 0;
    let mut streams = Vec::with_capacity(layers.len() + 1);
    let rows = std::iter::repeat_n(Row(0), layers.len()).chain([OWN]);
    for (layer, row) in layers.iter().rev().chain([own]).zip(rows) {
        let mut stream = layer.levels.iter_at(from, &[0xff; 16], layer.at)?;
        if stream.advance()? {
            streams.push((stream, Stamp { lsn: Lsn(lift), row }));
        }
        lift += layer.at.0 + 1;
    }
    streams.reverse();
    Ok(streams)
}
