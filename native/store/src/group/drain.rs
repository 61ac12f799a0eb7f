//! From memtable to tables, and the upkeep of the tables.

use super::view::{Generation, View};
use super::{Group, internal};
use crate::error::{Error, Kind, Result};
use crate::extent::read::read_resolved;
use crate::extent::resolve::{Block, resolve_before};
use crate::metadata::io::{Points, TreeEdit, Version};
use crate::mutants::mutant;
use crate::oplog::place::Place;
use crate::metadata::tree::{Compaction, Tree};
use crate::placement::{Birth, Draw, Edit, GroupChange, stronger};
use holdfast_format::cell::{self, Cell};
use holdfast_format::checksum::checksum;
use holdfast_format::inode::VolumeRecord;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::table::TableDesc;
use holdfast_format::{BranchId, EgroupId, GROUP_BRANCH, Lsn, Protection, Stamp, key};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Keys taken from the memtable under one lock.
const CHUNK_KEYS: usize = 512;
/// A block with at most this many bytes before its trailing zeroes shares a page with others.
pub(crate) const PACK_BYTES_MAX: usize = BLOCK_BYTES * 3 / 4;

/// Kept partial blocks, made whole: what their record will say.
type Merged = BTreeMap<(Vec<u8>, Stamp), Vec<u8>>;

/// Egroups that records name, and for which volume.
type Names = BTreeSet<(BranchId, EgroupId)>;

/// Fills the pages of one data egroup with merged blocks of one RF.
struct Packer {
    rf: u8,
    pages: Vec<u8>,
    births: Vec<Birth>,
    /// Page that takes small blocks, and the bytes used of it.
    small: Option<(usize, usize)>,
    /// (key, stamp, page, byte offset, length, checksum); length 4096 is a whole page.
    entries: Vec<(Vec<u8>, Stamp, u16, u16, usize, u64)>,
}

impl Packer {
    fn new(rf: u8) -> Self {
        Self { rf, pages: Vec::new(), births: Vec::new(), small: None, entries: Vec::new() }
    }

    fn push_page(&mut self, birth: Birth) -> usize {
        self.births.push(birth);
        self.pages.resize(self.births.len() * BLOCK_BYTES, 0);
        self.births.len() - 1
    }

    fn add(&mut self, key: &[u8], birth: Birth, content: &[u8]) {
        let length = content.len();
        let stamp = birth.stamp;
        let (page, offset) = if length > PACK_BYTES_MAX {
            (self.push_page(birth), 0)
        } else {
            match self.small {
                Some((page, used)) if used + length <= BLOCK_BYTES => (page, used),
                _ => (self.push_page(birth), 0),
            }
        };
        let start = page * BLOCK_BYTES + offset;
        self.pages[start..start + length].copy_from_slice(content);
        if length <= PACK_BYTES_MAX {
            self.small = Some((page, offset + length));
        }
        let whole = length > PACK_BYTES_MAX;
        let stored = if whole { &self.pages[start..start + BLOCK_BYTES] } else { content };
        let entry_length = if whole { BLOCK_BYTES } else { length };
        self.entries.push((key.to_vec(), stamp, page as u16, offset as u16, entry_length, checksum(stored)));
    }

    /// Records of the blocks once the egroup has a name.
    fn finish(&mut self, egroup: EgroupId, merged: &mut Merged) {
        for (key, stamp, page, byte_offset, length, checksum) in self.entries.drain(..) {
            let cell = if length == BLOCK_BYTES {
                Cell::Pages { egroup, first_page: page, checksums: vec![checksum], released: Vec::new() }
            } else {
                Cell::Packed { egroup, page, byte_offset, length: length as u16, checksum }
            };
            merged.insert((key, stamp), cell.encode());
        }
        self.pages.clear();
        self.births.clear();
        self.small = None;
    }
}

/// A drain that was published.
struct Drained {
    edit: TreeEdit,
    released: Vec<EgroupId>,
    names: Names,
}

/// Reads a memtable in key order, a chunk at a time.
struct Chunks<'a> {
    generation: &'a Generation,
    next: Vec<u8>,
}

impl Iterator for Chunks<'_> {
    type Item = Vec<Version>;

    fn next(&mut self) -> Option<Vec<Version>> {
        let chunk = self.generation.memtable.chunk(&self.next, &[0xff; 16], CHUNK_KEYS);
        let last = chunk.last()?;
        self.next.clear();
        self.next.extend_from_slice(&last.key);
        self.next.push(0);
        Some(chunk)
    }
}

fn chunks(generation: &Generation) -> Chunks<'_> {
    Chunks { generation, next: Vec::new() }
}

impl Group {
    /// Moves everything that is acknowledged into tables. Returns when it is published, and what was deleted has met what
    /// it hides: a directory whose names were all removed is listed at the price of an empty one.
    pub fn drain_now(&self) -> Result<()> {
        let _alone = self.maintenance.lock();
        let commit = self.commit.lock();
        self.freeze_locked(usize::MAX);
        drop(commit);
        while self.view.read().generations.len() > 1 {
            self.drain_oldest()?;
        }
        match self.bury_the_dead() {
            // Readers pay for it until there is room; nothing depends on it.
            Err(error) if error.kind == Kind::NoSpace => Ok(()),
            other => other,
        }
    }

    /// Merges tables that are mostly deletions down to where they vanish. The caller is alone.
    fn bury_the_dead(&self) -> Result<()> {
        while self.compact_alone(Tree::pick_dead)? {}
        Ok(())
    }

    /// The housekeeper's step: drains frozen memtables only. False when there is none.
    pub fn drain_frozen(&self) -> Result<bool> {
        let _alone = self.maintenance.lock();
        if self.view.read().generations.len() <= 1 {
            return Ok(false);
        }
        self.drain_oldest()?;
        Ok(true)
    }

    fn drain_oldest(&self) -> Result<()> {
        let result = self.drain_oldest_inner();
        let mut drains = self.drained_signal.0.lock();
        drains.count += 1;
        drains.error = result.as_ref().err().cloned();
        self.drained_signal.1.notify_all();
        result
    }

    /// Order (each step a crash test; STORE.md 12):
    /// 1. wait until everything in the frozen memtable is durable in the log;
    /// 2. merge partial blocks and write them into data egroups, durable;
    /// 3. write the tables, durable;
    /// 4. publish: tables in, references counted, `drained_lsn` moved, log segments released — one manifest edit;
    /// 5. readers switch over; the memtable goes.
    ///
    /// Recovery: before step 4 the log is replayed again and what 2 and 3 wrote belongs to nobody.
    fn drain_oldest_inner(&self) -> Result<()> {
        let view = self.view();
        let count = view.generations.len();
        let (generation, after) = (view.generations[count - 1].clone(), &view.generations[count - 2]);
        let last = Lsn(after.places.first().0 - 1);
        while self.log.durable() < last {
            self.flush_now()?;
        }
        let mut packed = Vec::new();
        let published = self.publish_drained(&view, &generation, last, &mut packed);
        // Those that no record names: of blocks that were truncated or unlinked since, or because there is no edit.
        packed.iter().for_each(|egroup| self.pool.discard_egroup(*egroup));
        let Drained { edit, released, names } = published?;
        self.tree.apply(&edit);
        self.counters.drain_table_bytes.fetch_add(written_bytes(&edit), Ordering::Relaxed);
        self.log.released(&released);
        let mut view = self.view.write();
        view.generations.pop();
        view.levels = self.tree.snapshot();
        drop(view);
        generation.pinned.lock().drain(..).for_each(|page| self.pool.unpin_page(page));
        self.bound_present();
        self.drained.store(last.0, Ordering::Release);
        self.counters.drains.fetch_add(1, Ordering::Relaxed);
        self.check_names(&names);
        Ok(())
    }

    /// Steps 2 to 4. `packed`: egroups that step 2 has written, whatever comes of it.
    fn publish_drained(
        &self,
        view: &View,
        generation: &Arc<Generation>,
        last: Lsn,
        packed: &mut Vec<EgroupId>,
    ) -> Result<Drained> {
        let points = self.merge_points();
        let merged = self.merge_partials(view, generation, &points, packed)?;
        let mut names = Names::new();
        let edit = self.build(generation, &merged, &points, &mut names)?;
        let (released, chain) = self.log.releasable(last);
        self.pool.publish(Edit {
            groups: vec![GroupChange::Drained { id: self.id, lsn: Lsn(last.0 + mutant!(DrainPastDurable) as u64), chain }],
            segments_released: released.clone(),
            tables: vec![(self.id, edit.clone())],
        })?;
        Ok(Drained { edit, released, names })
    }

    fn build(
        &self,
        generation: &Arc<Generation>,
        merged: &Merged,
        points: &Points,
        names: &mut Names,
    ) -> Result<TreeEdit> {
        let mut versions = chunks(generation).flatten().map(|version| {
            let finished = finished(version, generation, merged)?;
            note_names(&finished, names);
            Ok(finished)
        });
        self.tree.build(&mut versions, points)
    }

    /// What was named just now may have been written for a volume that asked for less then, or be the copy of a page that
    /// was: the healer brings it to what is asked for now.
    fn check_names(&self, names: &Names) {
        let weaker = || -> Result<bool> {
            let volumes: BTreeMap<BranchId, VolumeRecord> = self.volumes()?.into_iter().collect();
            let mut asked: BTreeMap<EgroupId, Protection> = BTreeMap::new();
            for (branch, egroup) in names {
                let Some(volume) = volumes.get(branch) else { continue };
                let wanted = Protection { rf: volume.rf, domain: volume.policy.domain };
                let most = asked.entry(*egroup).or_insert(wanted);
                *most = stronger(*most, wanted);
            }
            self.pool.any_weaker(&asked)
        };
        // Where it cannot be told, the walk finds out.
        if weaker().unwrap_or(true) {
            self.pool.note_unprotected();
        }
    }

    /// Step 2. Every partial version that is the newest of its block or seen by a point becomes a whole one.
    fn merge_partials(
        &self,
        view: &View,
        generation: &Arc<Generation>,
        points: &Points,
        packed: &mut Vec<EgroupId>,
    ) -> Result<Merged> {
        let below = View { generations: vec![generation.clone()], ..view.clone() };
        let mut merged = Merged::new();
        let mut packers: BTreeMap<BranchId, Packer> = BTreeMap::new();
        let _hold = self.pool.hold();
        for chunk in chunks(generation) {
            let mut newer: Option<(&[u8], Lsn)> = None;
            for version in &chunk {
                let death = newer.filter(|(key, _)| *key == version.key).map(|(_, lsn)| lsn);
                newer = Some((&version.key, version.stamp.lsn));
                let kept = death.is_none_or(|death| points.sees(version.stamp.lsn, death));
                if !kept || !version.value.as_deref().is_some_and(cell::is_partial) {
                    continue;
                }
                let Some((block, _)) = key::data_place(&version.key) else { continue };
                let Some(parts) = key::parts(&version.key) else { continue };
                let (branch, ino) = (parts.branch, parts.ino);
                let resolved = resolve_before(&below, (branch, ino), u16::MAX >> 7, block as u64, version.stamp.lsn)?;
                let mut content = [0u8; BLOCK_BYTES];
                if let Err(error) = read_resolved(self.sources(), &resolved, &mut content) {
                    let damage = matches!(error.kind, Kind::Corrupt | Kind::Unavailable);
                    let over = resolved.blocks.first().filter(|_| damage).and_then(Block::over_unread);
                    let Some(cell) = over else { return Err(error) };
                    merged.insert((version.key.clone(), version.stamp), cell.encode());
                    continue;
                }
                self.counters.drained_partials.fetch_add(1, Ordering::Relaxed);
                let length = content.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
                if length == 0 {
                    merged.insert((version.key.clone(), version.stamp), Cell::Hole.encode());
                    continue;
                }
                let packer = match packers.entry(branch) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => entry.insert(Packer::new(self.packed_rf(view, branch)?)),
                };
                if packer.births.len() + 1 > self.pool.egroup_pages_max() {
                    packed.push(self.write_packed(packer, &mut merged)?);
                }
                let birth = Birth { group: self.id, branch, ino, block, stamp: version.stamp };
                packer.add(&version.key, birth, &content[..length]);
            }
        }
        for packer in packers.values_mut().filter(|packer| !packer.births.is_empty()) {
            packed.push(self.write_packed(packer, &mut merged)?);
        }
        Ok(merged)
    }

    fn write_packed(&self, packer: &mut Packer, merged: &mut Merged) -> Result<EgroupId> {
        let protection = Protection { rf: packer.rf, domain: self.pool.domain_of_group(self.id) };
        let egroup = self.pool.write_egroup(protection, &packer.pages, &packer.births, Draw::Upkeep)?;
        packer.finish(egroup, merged);
        Ok(egroup)
    }

    /// RF of a volume; the log's own when the volume is gone.
    /// Copies of what a drain writes itself. Clones may see it, and ask for more than its volume does; the headers have what
    /// the most of them ask for.
    fn packed_rf(&self, view: &View, branch: BranchId) -> Result<u8> {
        debug_assert_ne!(branch, GROUP_BRANCH);
        if !self.pool.clones_of(self.id).is_empty() {
            return Ok(self.log.header_rf());
        }
        match view.get(&key::volume(branch))? {
            Some(record) => {
                let record =
                    VolumeRecord::decode(&record).map_err(|error| Error::decode("a volume record", error))?;
                Ok(record.rf)
            }
            None => Ok(self.log.header_rf()),
        }
    }

    /// Compacts once if there is anything worth it. False when there is not.
    pub fn compact_step(&self) -> Result<bool> {
        self.compact_with(Tree::pick)
    }

    pub(super) fn compact_with(&self, pick: impl FnOnce(&Tree) -> Option<Compaction>) -> Result<bool> {
        let _alone = self.maintenance.lock();
        self.compact_alone(pick)
    }

    fn compact_alone(&self, pick: impl FnOnce(&Tree) -> Option<Compaction>) -> Result<bool> {
        let Some(job) = pick(&self.tree) else { return Ok(false) };
        let points = self.merge_points();
        // Without a hold, which would keep every slot that is freed meanwhile from being used: nobody else takes tables
        // of this tree away, and where one is moved to is looked up at each read, under a hold of its own.
        let edit = self.tree.compact(&job, &points)?;
        self.counters.merge_table_bytes.fetch_add(written_bytes(&edit), Ordering::Relaxed);
        self.publish_tables(edit)?;
        self.bound_present();
        self.counters.compactions.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// Drops tables of the past that no point sees any more.
    pub fn expire_step(&self) -> Result<bool> {
        let _alone = self.maintenance.lock();
        let points = self.merge_points();
        // Without a hold, as in a merge.
        let edit = self.tree.expire(&points)?;
        if edit.is_empty() {
            return Ok(false);
        }
        self.publish_expired(edit)?;
        Ok(true)
    }

    /// Tables of the past, written again without what nobody sees.
    pub(super) fn publish_expired(&self, edit: TreeEdit) -> Result<()> {
        self.counters.expire_table_bytes.fetch_add(written_bytes(&edit), Ordering::Relaxed);
        self.publish_tables(edit)
    }

    /// Gives back every table and page: the group is destroyed. Repeatable after a crash.
    pub fn dissolve(&self) -> Result<()> {
        let _alone = self.maintenance.lock();
        for generation in &self.view().generations {
            generation.pinned.lock().drain(..).for_each(|page| self.pool.unpin_page(page));
        }
        loop {
            let edit = self.tree.dissolve_step()?;
            if edit.is_empty() {
                self.pool.set_upkeep_slots(self.id, 0);
                return Ok(());
            }
            self.publish_tables(edit)?;
        }
    }

    fn publish_tables(&self, edit: TreeEdit) -> Result<()> {
        self.pool.publish(Edit { tables: vec![(self.id, edit.clone())], ..Edit::default() })?;
        self.tree.apply(&edit);
        self.view.write().levels = self.tree.snapshot();
        Ok(())
    }

    /// Takes the log off drives that were lost or are to be emptied: it goes on in fresh segments, and what lay in the
    /// old ones becomes ordinary egroups, which the pool heals.
    pub fn relocate_log(&self) -> Result<()> {
        self.log.renew()?;
        self.drain_now()?;
        let _alone = self.maintenance.lock();
        let (released, chain) = self.log.releasable(self.drained());
        if released.is_empty() {
            return Ok(());
        }
        self.pool.publish(Edit {
            groups: vec![GroupChange::Drained { id: self.id, lsn: self.drained(), chain }],
            segments_released: released.clone(),
            tables: Vec::new(),
        })?;
        self.log.released(&released);
        Ok(())
    }

    /// Drains, and gives back every log segment and the ring's memory: a clean end leaves nothing to replay, and a group
    /// that nobody uses costs nothing. The next op takes segments and memory again. Does nothing when an op comes in between.
    pub fn retire_log(&self) -> Result<()> {
        self.drain_now()?;
        let commit = self.commit.lock();
        let newest = Group::newest(self);
        if self.drained() != newest || self.log.durable() != newest || !self.log.ring.sleep() {
            return Ok(());
        }
        let mut segments = self.log.seal();
        drop(commit);
        let (released, chain) = self.log.releasable(newest);
        segments.extend(&released);
        self.pool.publish(Edit {
            groups: vec![GroupChange::Drained { id: self.id, lsn: newest, chain }],
            segments_released: segments,
            tables: Vec::new(),
        })?;
        self.log.released(&released);
        Ok(())
    }
}

impl Group {
    /// The volumes ask for fewer copies than the log's headers have: once the log is empty they get fewer. What was in it has a
    /// place of its own then, and a drive that is to be emptied does not wait for a third one. Tried again when an op comes in
    /// between.
    pub fn lower_rf(&self, rf: u8) -> Result<()> {
        if self.log.header_rf() <= rf {
            return Ok(());
        }
        self.retire_log()?;
        let _no_op = self.commit.lock();
        if self.pool.group(self.id).is_some_and(|record| record.segments.is_empty()) {
            self.log.lower_header_rf(rf);
        }
        Ok(())
    }
}

fn note_names(version: &Version, names: &mut Names) {
    let Some(branch) = key::parts(&version.key).map(|parts| parts.branch) else { return };
    let pages = version.value.as_ref().map(|value| super::commit::shared_pages(&version.key, value));
    names.extend(pages.unwrap_or_default().first().map(|(egroup, _)| (branch, *egroup)));
}

/// Bytes that the tables of an edit took on drives, all copies.
fn written_bytes(edit: &TreeEdit) -> u64 {
    let whole = |desc: &TableDesc| (desc.bytes as u64).next_multiple_of(BLOCK_BYTES as u64) * desc.copies.len() as u64;
    edit.added.iter().map(whole).sum()
}

/// A version as its table will hold it. A partial version that nobody sees becomes a hole, which the build drops.
fn finished(version: Version, generation: &Generation, merged: &Merged) -> Result<Version> {
    let Some((_, level)) = key::data_place(&version.key) else { return Ok(version) };
    let Some(value) = &version.value else { return Ok(version) };
    let value = match value.first().copied() {
        Some(cell::TAG_PARTIAL) => {
            let whole = merged.get(&(version.key.clone(), version.stamp));
            whole.cloned().unwrap_or_else(|| Cell::Hole.encode())
        }
        Some(cell::TAG_LOGGED) => {
            let cell = Cell::decode(level, value).map_err(|error| Error::decode("a logged cell", error))?;
            let Cell::Logged { lsn, first_page, checksums } = cell else {
                return Err(internal("a logged cell is not one"));
            };
            match generation.places.get(lsn) {
                Some(Place::Egroup(egroup, base)) => Cell::Pages {
                    egroup,
                    first_page: base + first_page,
                    checksums,
                    released: vec![0; cell::released_bytes(level)],
                }
                .encode(),
                _ => return Err(Error::new(Kind::Internal, format!("operation {lsn} was drained before it was durable"))),
            }
        }
        _ => return Ok(version),
    };
    Ok(Version { value: Some(value), ..version })
}

const _: () = assert!(PACK_BYTES_MAX < BLOCK_BYTES);
