//! The pool on simulated drives.

use super::*;
use crate::metadata::io::{TableIo, TreeEdit};
use holdfast_device::sim::{Fault, FaultKind, SimDrive, SimWorld};
use holdfast_format::checksum::checksum;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::superblock::INCOMPAT_KNOWN;
use holdfast_format::table::{SlotAddress, TableDesc, TreeKind};
use holdfast_format::{Lsn, TableId};
use std::collections::BTreeSet;

const MIB: u64 = 1 << 20;
pub(crate) const GROUP: GroupId = GroupId(1);
const ENODEV: i32 = 19;

pub(crate) fn world(drives: usize) -> (SimWorld, Vec<SimDrive>) {
    let world = SimWorld::new(7);
    let drives = (0..drives).map(|index| world.add_drive(&format!("drive-{index}"), 256 * MIB)).collect();
    (world, drives)
}

fn options(seed: u64) -> PoolOptions {
    PoolOptions {
        boot_id: [7; 16],
        clock: Arc::new(holdfast_device::sim::SimWorld::new(0).clock()),
        rng: Rng::from_seed(seed),
        cache: Arc::new(BlockCache::new(1 << 20)),
    }
}

fn pool_drives(drives: &[SimDrive], bytes: u64) -> Vec<PoolDrive> {
    let each = |drive: &SimDrive| PoolDrive {
        drive: Arc::new(drive.clone()),
        bytes: Some(bytes),
        domain: String::new(),
    };
    drives.iter().map(each).collect()
}

fn dynamic(drives: &[SimDrive]) -> Vec<Arc<dyn Drive>> {
    drives.iter().map(|drive| Arc::new(drive.clone()) as Arc<dyn Drive>).collect()
}

/// A pool with group 1, ready to free.
pub(crate) fn fresh(drives: &[SimDrive]) -> Arc<Pool> {
    let pool = Pool::create("tank", pool_drives(drives, 64 * MIB), options(1)).unwrap();
    let id = pool.new_group_id();
    assert_eq!(id, GROUP);
    create_group(&pool, id, "one").unwrap();
    pool.replay_done();
    pool
}

fn create_group(pool: &Pool, id: GroupId, name: &str) -> Result<()> {
    let change = GroupChange::Create { id, uuid: Uuid([3; 16]), name: name.into(), base: None };
    pool.publish(Edit { groups: vec![change], ..Edit::default() })
}

pub(crate) fn reopen(drives: &[SimDrive]) -> Result<Arc<Pool>> {
    let pool = Pool::open(dynamic(drives), options(2))?;
    pool.replay_done();
    Ok(pool)
}

fn error_of<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("it should have failed"),
        Err(error) => error,
    }
}

fn pages_edit(referenced: &[PageName], released: &[PageName]) -> Edit {
    let tree =
        TreeEdit { referenced: referenced.to_vec(), released: released.to_vec(), ..TreeEdit::default() };
    Edit { tables: vec![(GROUP, tree)], ..Edit::default() }
}

/// Content of one page that says which one it is.
fn page(seed: u64) -> Vec<u8> {
    let mut rng = Rng::from_seed(seed);
    (0..BLOCK_BYTES / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect()
}

/// An egroup of `count` pages, all referenced; page n has content `page(seed + n)`.
fn egroup(pool: &Pool, rf: u8, count: usize, seed: u64) -> EgroupId {
    let bytes: Vec<u8> = (0..count as u64).flat_map(|at| page(seed + at)).collect();
    let id = pool.write_egroup(rf, &bytes, &vec![Birth::default(); count], Draw::Ordinary).unwrap();
    let all: Vec<PageName> = (0..count as u16).map(|at| (id, at)).collect();
    pool.publish(pages_edit(&all, &[])).unwrap();
    id
}

fn read_one(pool: &Pool, name: PageName, seed: u64) -> Result<()> {
    let right = page(seed);
    let mut into = vec![0; BLOCK_BYTES];
    let sum = checksum(&right);
    pool.read_pages(name.0, name.1, &mut into, &|_, bytes| checksum(bytes) == sum)?;
    assert_eq!(into, right);
    Ok(())
}

fn desc(id: TableId, copies: Vec<SlotAddress>) -> TableDesc {
    TableDesc {
        id,
        owner: GROUP,
        tree: TreeKind::Now,
        level: 0,
        bytes: 4096,
        index_offset: 0,
        index_bytes: 0,
        index_checksum: 0,
        records: 1,
        tombstones: 0,
        stamp_min: Lsn(1),
        stamp_max: Lsn(1),
        death_min: Lsn(0),
        death_max: Lsn(0),
        payload_bytes: 0,
        first: vec![1],
        last: vec![2],
        cover_until: vec![3],
        copies,
    }
}

/// Area in use and the end of its records.
fn manifest_end(pool: &Pool) -> (u64, u64) {
    let journal = pool.journal.lock();
    (journal.area as u64, journal.cursor)
}

/// The image without what every open changes.
fn image_of(pool: &Pool) -> Image {
    let mut image = pool.image.read().clone();
    image.manifest_drives.sort();
    image
}

#[test]
fn what_was_published_is_there_after_reopening() {
    let (_, drives) = world(3);
    let pool = fresh(&drives);
    let segments = pool.take_segments(GROUP, 2, 3, Draw::Ordinary).unwrap();
    let row = EpochRow { major: 1, minor: 2, random: 3, first_lsn: Lsn(4), chain: 5 };
    let edit = Edit {
        groups: vec![
            GroupChange::Epoch { id: GROUP, row },
            GroupChange::Drained { id: GROUP, lsn: Lsn(9), chain: 10 },
            GroupChange::Rename { id: GROUP, name: "uno".into() },
        ],
        segments_released: vec![segments[0].egroup],
        tables: vec![(GROUP, TreeEdit { referenced: vec![(segments[0].egroup, 3)], ..TreeEdit::default() })],
    };
    pool.publish(edit).unwrap();
    let placed = pool.write_table(&[7; 5000]).unwrap();
    let table = desc(placed.id, placed.copies);
    let tree = TreeEdit { added: vec![table.clone()], ..TreeEdit::default() };
    pool.publish(Edit { tables: vec![(GROUP, tree)], ..Edit::default() }).unwrap();
    let id = egroup(&pool, 2, 5, 100);
    pool.write_segment(&segments[1], 4096, &[&[1; 4096], &[2; 4096]]).unwrap();
    let (before, space) = (image_of(&pool), pool.space());
    drop(pool);

    let pool = reopen(&drives).unwrap();
    assert_eq!(image_of(&pool), before);
    assert_eq!(pool.space(), space);
    let group = &pool.groups()[0];
    assert_eq!((group.name.as_str(), group.history.as_slice()), ("uno", [row].as_slice()));
    assert_eq!((group.drained_lsn, group.drained_chain), (Lsn(9), 10));
    assert_eq!(group.segments, segments[1..]);
    assert_eq!(pool.group_tables(GROUP), std::slice::from_ref(&table));
    (0..5).for_each(|at| read_one(&pool, (id, at), 100 + at as u64).unwrap());
    let mut into = vec![0; 4096];
    for copy in &segments[1].copies {
        pool.read_copy(*copy, 8192, &mut into).unwrap();
        assert_eq!(into, [2; 4096]);
    }
    pool.read_table(&table, 100, &mut into[..50], &|bytes| bytes == [7; 50]).unwrap();
    assert!(pool.new_group_id() > GROUP);
    assert!(pool.new_egroup_id() > id);
}

#[test]
fn creation_refuses_what_it_must() {
    let (world, drives) = world(2);
    let create = |drives: Vec<PoolDrive>| error_of(Pool::create("tank", drives, options(1)));
    assert_eq!(create(Vec::new()).kind, Kind::Invalid);
    assert!(create(pool_drives(&drives, 63 * MIB)).message.contains("63 MiB"));
    assert!(create(pool_drives(&drives, 300 * MIB)).message.contains("256 MiB are free"));
    let twice = vec![drives[0].clone(); 2];
    assert!(create(pool_drives(&twice, 64 * MIB)).message.contains("named twice"));
    assert_eq!(error_of(Pool::create("a/b", pool_drives(&drives, 64 * MIB), options(1))).kind, Kind::Invalid);
    drives[1].create("holiday.jpg", 4096).unwrap();
    assert!(create(pool_drives(&drives, 64 * MIB)).message.contains("holiday.jpg"));
    assert!(drives[0].list().unwrap().is_empty(), "nothing was written to the other drive");
    drives[1].remove("holiday.jpg").unwrap();
    let pool = Pool::create("tank", pool_drives(&drives, 64 * MIB), options(1)).unwrap();
    assert!(
        matches!(Pool::probe(&drives[0]).unwrap(), ProbeInfo::Member { name, pool: uuid, open: true, .. }
        if name == "tank" && uuid == pool.uuid())
    );
    let error = create(pool_drives(&drives, 64 * MIB));
    assert_eq!(error.kind, Kind::Conflict);
    assert!(error.message.contains("in pool tank"));
    let shared = [world.add_drive("x", 256 * MIB), world.add_drive("y", 256 * MIB)];
    shared.iter().for_each(|drive| drive.set_disk_id(77));
    let pool = Pool::create("two", pool_drives(&shared, 64 * MIB), options(3)).unwrap();
    assert!(pool.warnings()[0].contains("2 drives, x among them, lie on one disk"));
}

#[test]
fn a_failed_creation_leaves_empty_drives() {
    let (_, drives) = world(2);
    drives[1].add_fault(Fault::nth(FaultKind::WriteError, 2));
    error_of(Pool::create("tank", pool_drives(&drives, 64 * MIB), options(1)));
    drives.iter().for_each(|drive| assert_eq!(Pool::probe(drive).unwrap(), ProbeInfo::Empty));
}

#[test]
fn opening_refuses_drives_that_do_not_belong_together() {
    let (world, drives) = world(4);
    drop(fresh(&drives[..2]));
    drop(Pool::create("other", pool_drives(&drives[2..3], 64 * MIB), options(9)).unwrap());
    let open = |picked: &[&SimDrive]| {
        let picked: Vec<SimDrive> = picked.iter().map(|drive| (*drive).clone()).collect();
        error_of(reopen(&picked))
    };
    assert_eq!(open(&[]).kind, Kind::Invalid);
    assert!(open(&[&drives[3]]).message.contains("in no pool"));
    assert!(open(&[&drives[0], &drives[2]]).message.contains("in pool tank, drive drive-2 in pool other"));
    let copy = world.add_drive("copy", 256 * MIB);
    copy.restore(&drives[0].image());
    assert!(open(&[&drives[0], &copy]).message.contains("are the same drive"));
}

#[test]
fn a_newer_format_is_refused_and_not_touched() {
    use holdfast_format::superblock::Superblock;
    let (_, drives) = world(2);
    drop(fresh(&drives));
    let image = drives[1].image();
    for (incompat, ro_compat) in [(INCOMPAT_KNOWN + 1, 0), (0, 1)] {
        let mut block = Superblock::decode(&drives[1].read_raw("superblock", 4096, 4096).unwrap()).unwrap();
        (block.incompat, block.ro_compat, block.writes) = (incompat, ro_compat, block.writes + 100);
        drives[1].write_raw("superblock", 4096, &block.encode());
        let before: Vec<_> = drives.iter().map(|drive| drive.image()).collect();
        let error = error_of(reopen(&drives));
        assert_eq!(error.kind, Kind::Denied, "{error}");
        assert!(matches!(Pool::probe(&drives[1]).unwrap(), ProbeInfo::Newer { .. }));
        for (drive, before) in drives.iter().zip(before) {
            for (file, bytes) in before.files() {
                assert_eq!(drive.read_raw(&file, 0, bytes as usize), before.read(&file, 0, bytes as usize));
            }
        }
        drives[1].restore(&image);
    }
}

#[test]
fn every_flipped_byte_on_one_drive_is_survived_and_mended() {
    let (_, drives) = world(2);
    let pool = fresh(&drives);
    pool.take_segments(GROUP, 2, 2, Draw::Ordinary).unwrap();
    egroup(&pool, 2, 3, 1);
    pool.heartbeat().unwrap();
    let before = image_of(&pool);
    let (area, cursor) = manifest_end(&pool);
    let area_at = area * pool.area_bytes;
    drop(pool);
    let images: Vec<_> = drives.iter().map(|drive| drive.image()).collect();
    let used = drives[0].read_raw("manifest", area_at, cursor as usize).unwrap();
    let last = used.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    let superblock = (0..8192).map(|at| ("superblock", at));
    let manifest = (area_at..area_at + last).map(|at| ("manifest", at));
    // Padding is covered by nothing and nothing is lost with it: every 16th of its bytes will do.
    let worth = |(file, at): &(&str, u64)| {
        *file == "superblock" || used[(at - area_at) as usize] != 0 || at % 16 == 0
    };
    for (file, at) in superblock.chain(manifest).filter(worth) {
        drives.iter().zip(&images).for_each(|(drive, image)| drive.restore(image));
        drives[0].flip_bit(file, at, (at % 8) as u8);
        let pool = reopen(&drives).unwrap_or_else(|error| panic!("{file} {at}: {error}"));
        assert_eq!(image_of(&pool), before, "{file} {at}");
        let active = pool.drives().iter().filter(|drive| drive.condition == DriveCondition::Active).count();
        assert_eq!(active, 2, "{file} {at}: {:?}", pool.warnings());
        drop(pool);
        // Mended: the drive alone, which had the damage, gives the same.
        let alone = reopen(&drives[..1]).unwrap_or_else(|error| panic!("{file} {at}, alone: {error}"));
        assert_eq!(alone.groups(), before.groups.values().cloned().collect::<Vec<_>>());
    }
}

#[test]
fn a_torn_last_record_leaves_the_state_before_it() {
    let (_, drives) = world(1);
    let pool = fresh(&drives);
    pool.take_segments(GROUP, 1, 4, Draw::Ordinary).unwrap();
    let before = image_of(&pool);
    let (area, cursor) = manifest_end(&pool);
    let old = drives[0].image();
    let ids: Vec<GroupId> = (0..60).map(|_| pool.new_group_id()).collect();
    let create =
        |id: &GroupId| GroupChange::Create { id: *id, uuid: Uuid([1; 16]), name: format!("{:>200}", id.0), base: None };
    pool.publish(Edit { groups: ids.iter().map(create).collect(), ..Edit::default() }).unwrap();
    let after = image_of(&pool);
    let end = pool.journal.lock().cursor;
    let start = area * pool.area_bytes + cursor;
    drop(pool);
    let record = drives[0].read_raw("manifest", start, (end - cursor) as usize).unwrap();
    assert!(record.len() > 3 * BLOCK_BYTES);
    let whole = record.iter().rposition(|byte| *byte != 0).unwrap();
    for kept in (0..=record.len()).step_by(512) {
        drives[0].restore(&old);
        drives[0].write_raw("manifest", start, &record[..kept]);
        let pool = reopen(&drives).unwrap();
        let expected = if kept > whole { &after } else { &before };
        assert_eq!(pool.groups().len(), expected.groups.len(), "{kept} bytes");
        assert_eq!(image_of(&pool).records, expected.records, "{kept} bytes");
        // And it goes on from there.
        create_group(&pool, GroupId(500), "next").unwrap();
        drop(pool);
        assert!(reopen(&drives).unwrap().groups().iter().any(|group| group.id == GroupId(500)));
    }
}

#[test]
fn rot_in_the_middle_of_the_only_copy_is_refused() {
    let (_, drives) = world(1);
    let pool = fresh(&drives);
    let area_at = pool.journal.lock().area as u64 * pool.area_bytes;
    let cursor = pool.journal.lock().cursor;
    create_group(&pool, GroupId(20), "two").unwrap();
    create_group(&pool, GroupId(21), "three").unwrap();
    let last = pool.journal.lock().cursor - BLOCK_BYTES as u64;
    drop(pool);
    let image = drives[0].image();
    // Header, snapshot, and an edit with another behind it.
    for at in [0, BLOCK_BYTES as u64, cursor] {
        drives[0].restore(&image);
        drives[0].flip_bit("manifest", area_at + at + 76, 1);
        let error = error_of(reopen(&drives));
        assert_eq!(error.kind, Kind::Corrupt, "{at}: {error}");
    }
    // Nothing behind it: that is what a torn write looks like. A heartbeat names it, then it is missed.
    drives[0].restore(&image);
    drives[0].flip_bit("manifest", area_at + last + 80, 1);
    assert_eq!(reopen(&drives).unwrap().groups().len(), 2);
    drives[0].restore(&image);
    let pool = reopen(&drives).unwrap();
    create_group(&pool, GroupId(22), "four").unwrap();
    pool.heartbeat().unwrap();
    let (area, cursor) = manifest_end(&pool);
    let newest = area * pool.area_bytes + cursor - BLOCK_BYTES as u64;
    drop(pool);
    drives[0].flip_bit("manifest", newest + 80, 1);
    assert_eq!(error_of(reopen(&drives)).kind, Kind::Corrupt);
}

#[test]
fn thousands_of_edits_go_through_many_areas() {
    let (_, drives) = world(2);
    let mut pool = fresh(&drives);
    for round in 0..4u64 {
        for lsn in 1..=500 {
            let drained = GroupChange::Drained { id: GROUP, lsn: Lsn(round * 500 + lsn), chain: lsn };
            pool.publish(Edit { groups: vec![drained], ..Edit::default() }).unwrap();
        }
        assert!(pool.counters().manifest_switches >= 2);
        let before = image_of(&pool);
        drop(pool);
        pool = reopen(&drives).unwrap();
        assert_eq!(image_of(&pool), before);
        assert_eq!(pool.groups()[0].drained_lsn, Lsn((round + 1) * 500));
    }
}

#[test]
fn records_go_to_tables_when_the_overlay_is_full() {
    let (_, drives) = world(2);
    let pool = fresh(&drives);
    let mut model: BTreeMap<EgroupId, u64> = BTreeMap::new();
    for round in 0..300u64 {
        let (first, second) = (egroup(&pool, 1, 8, round * 10), egroup(&pool, 1, 8, round * 10));
        // Shares are small records; many of them fill the overlay.
        let shares: Vec<PageName> = (0..8).map(|at| (first, at)).collect();
        pool.publish(pages_edit(&shares, &[])).unwrap();
        model.insert(first, round * 10);
        let gone: Vec<PageName> = (0..8).map(|at| (second, at)).collect();
        pool.publish(pages_edit(&[], &gone)).unwrap();
    }
    assert!(!pool.group_tables(GroupId(0)).is_empty(), "{} bytes", pool.image.read().record_bytes);
    let space = pool.space();
    drop(pool);
    let pool = reopen(&drives).unwrap();
    assert_eq!(pool.space(), space);
    for (id, seed) in &model {
        (0..8).for_each(|at| read_one(&pool, (*id, at), seed + at as u64).unwrap());
        let record = pool.egroup(*id).unwrap().unwrap();
        assert_eq!((record.live.len(), record.shared), (8, true));
        assert_eq!(pool.share_count(*id, 3).unwrap(), 1);
    }
}

#[test]
fn a_freed_slot_waits_for_two_manifest_writes_and_for_holds() {
    let (_, drives) = world(1);
    let pool = fresh(&drives);
    let id = egroup(&pool, 1, 2, 0);
    let slot = pool.egroup(id).unwrap().unwrap().copies[0].slot;
    let is_free = || {
        pool.collect();
        match pool.disks[0].take(0) {
            Some(taken) => {
                pool.disks[0].give_back(taken);
                taken == slot
            }
            None => false,
        }
    };
    let hold = pool.hold();
    pool.publish(pages_edit(&[], &[(id, 0), (id, 1)])).unwrap();
    for _ in 0..4 {
        pool.publish_nothing().unwrap();
        assert!(pool.egroup(id).unwrap().is_some(), "a hold from before the release keeps the name, too");
    }
    drop(hold);
    pool.publish_nothing().unwrap();
    assert!(pool.egroup(id).unwrap().is_none());
    assert!(!is_free(), "no write after the edit that freed it");
    let late = pool.hold();
    pool.publish_nothing().unwrap();
    assert!(!is_free(), "one write after");
    pool.publish_nothing().unwrap();
    assert!(is_free(), "two writes after; the hold is younger than the edit");
    drop(late);

    let id = egroup(&pool, 1, 1, 0);
    assert_eq!(pool.egroup(id).unwrap().unwrap().copies[0].slot, slot);
    pool.publish(pages_edit(&[], &[(id, 0)])).unwrap();
    let hold = pool.hold();
    for _ in 0..4 {
        pool.publish_nothing().unwrap();
    }
    assert!(!is_free(), "the hold is older than the edit that freed it");
    drop(hold);
    assert!(is_free());
}

#[test]
fn counts_agree_with_a_model() {
    for seed in 0..6 {
        counts_agree(seed);
    }
}

fn counts_agree(seed: u64) {
    let (_, drives) = world(2);
    let mut pool = fresh(&drives);
    let mut rng = Rng::from_seed(seed);
    let mut model: BTreeMap<PageName, (u32, u64)> = BTreeMap::new();
    let mut names = 0;
    for step in 0..400u64 {
        match rng.below(10) {
            0..3 => {
                let count = 1 + rng.below(6);
                let id = egroup(&pool, 1 + rng.below(2) as u8, count as usize, step * 100);
                model.extend((0..count).map(|at| ((id, at as u16), (1, step * 100 + at))));
                names += count;
            }
            3..8 if !model.is_empty() => {
                let (mut referenced, mut released) = (Vec::new(), Vec::new());
                for _ in 0..rng.below(12) {
                    let at = rng.below(model.len() as u64) as usize;
                    let Some((name, (count, _))) = model.iter_mut().nth(at) else { break };
                    if rng.chance(1, 3) && *count > 0 {
                        referenced.push(*name);
                        *count += 1;
                    } else if *count > 0 {
                        released.push(*name);
                        *count -= 1;
                    }
                }
                pool.publish(pages_edit(&referenced, &released)).unwrap();
                model.retain(|_, (count, _)| *count > 0);
            }
            8 => assert!(pool.clean_step().is_ok()),
            _ if rng.chance(1, 4) => {
                drop(pool);
                pool = reopen(&drives).unwrap_or_else(|error| panic!("seed {seed}, step {step}: {error}"));
            }
            _ => pool.maintain().unwrap(),
        }
        if step % 20 == 0 {
            check_counts(&pool, &model, &format!("seed {seed}, step {step}"));
        }
    }
    assert!(names > 100 && pool.counters().pages_moved + pool.counters().egroups_freed > 0);
    // Released to the last, everything is free again.
    for (name, (count, _)) in std::mem::take(&mut model) {
        pool.publish(pages_edit(&[], &vec![name; count as usize])).unwrap();
    }
    while pool.clean_step().unwrap() {}
    assert_eq!(pool.space().data, 0, "seed {seed}");
}

fn check_counts(pool: &Pool, model: &BTreeMap<PageName, (u32, u64)>, what: &str) {
    let mut live: BTreeSet<PageName> = BTreeSet::new();
    pool.scan_egroups(EgroupId(0), &mut |id, record| {
        // Pages of targets are named through their sources.
        if record.sources.is_empty() {
            live.extend(record.live.iter().map(|page| (id, page)));
        }
        Ok(true)
    })
    .unwrap();
    assert_eq!(live, model.keys().copied().collect::<BTreeSet<_>>(), "{what}");
    for (name, (count, seed)) in model {
        assert_eq!(pool.share_count(name.0, name.1).unwrap() + 1, *count, "{what}: {name:?}");
        read_one(pool, *name, *seed).unwrap_or_else(|error| panic!("{what}: {name:?}: {error}"));
    }
}

#[test]
fn wrong_counts_are_refused_before_anything_is_written() {
    let (_, drives) = world(1);
    let pool = fresh(&drives);
    let id = egroup(&pool, 1, 2, 0);
    let before = image_of(&pool);
    for edit in [
        pages_edit(&[], &[(id, 0), (id, 0)]),
        pages_edit(&[(id, 2)], &[]),
        pages_edit(&[(EgroupId(999), 0)], &[]),
        pages_edit(&[(id, 0)], &[(id, 1), (id, 1)]),
        Edit { segments_released: vec![id], ..Edit::default() },
    ] {
        assert_eq!(error_of(pool.publish(edit)).kind, Kind::Internal);
        assert_eq!(image_of(&pool), before);
    }
}

#[test]
fn cleaning_packs_and_readers_still_find_the_pages() {
    let (_, drives) = world(2);
    let pool = fresh(&drives);
    let most = pool.egroup_pages_max();
    let ids: Vec<EgroupId> = (0..6).map(|at| egroup(&pool, 2, most, at * 1000)).collect();
    let kept: Vec<(PageName, u64)> = ids
        .iter()
        .zip(0u64..)
        .flat_map(|(id, at)| {
            (0..most as u16).step_by(7).map(move |page| ((*id, page), at * 1000 + page as u64))
        })
        .collect();
    let released: Vec<PageName> = ids
        .iter()
        .flat_map(|id| (0..most as u16).filter(|page| page % 7 != 0).map(move |page| (*id, page)))
        .collect();
    pool.publish(pages_edit(&[], &released)).unwrap();
    let pinned = kept[0].0;
    pool.pin_page(pinned);
    let before = pool.space();
    // A reader that found the place before goes on reading there: the hold keeps it.
    let old = pool.egroup(ids[1]).unwrap().unwrap();
    let hold = pool.hold();
    while pool.clean_step().unwrap() {}
    assert!(pool.egroup(pinned.0).unwrap().unwrap().parts.is_empty(), "a pinned egroup stays");
    assert_eq!(pool.egroup(ids[1]).unwrap().unwrap().state, holdfast_format::egroup::EgroupState::Moved);
    for _ in 0..3 {
        pool.publish_nothing().unwrap();
    }
    egroup(&pool, 2, most, 9000);
    let mut into = vec![0; BLOCK_BYTES];
    pool.read_copy(old.copies[0], 7 * 4096, &mut into).unwrap();
    assert_eq!(into, page(1007));
    drop(hold);
    pool.unpin_page(pinned);
    kept.iter().for_each(|(name, seed)| read_one(&pool, *name, *seed).unwrap());
    assert!(pool.space().data < before.data / 2 + 2 * 2 * pool.slot_bytes() as u64);
    drop(pool);
    let pool = reopen(&drives).unwrap();
    kept.iter().for_each(|(name, seed)| read_one(&pool, *name, *seed).unwrap());

    // Cleaning what cleaning made: depth stays 1, and the released go.
    let (gone, left): (Vec<_>, Vec<_>) = kept.into_iter().partition(|((_, page), _)| page % 3 != 0);
    let gone: Vec<PageName> = gone.into_iter().map(|(name, _)| name).collect();
    pool.publish(pages_edit(&[], &gone)).unwrap();
    let extra = egroup(&pool, 2, 10, 7000);
    pool.publish(pages_edit(&[], &(1..10).map(|page| (extra, page)).collect::<Vec<_>>())).unwrap();
    let moved = pool.counters().pages_moved;
    while pool.clean_step().unwrap() {}
    assert!(pool.counters().pages_moved > moved);
    left.iter().for_each(|(name, seed)| read_one(&pool, *name, *seed).unwrap());
    let last: Vec<PageName> = left.into_iter().map(|(name, _)| name).chain([(extra, 0)]).collect();
    pool.publish(pages_edit(&[], &last)).unwrap();
    while pool.clean_step().unwrap() {}
    let nine = 2 * pool.slot_bytes() as u64;
    assert_eq!(pool.space().data, nine, "all but the egroup that was written under the hold");
}

#[test]
fn cleaning_never_copies_a_wrong_page() {
    let (_, drives) = world(2);
    let pool = fresh(&drives);
    let ids = [egroup(&pool, 2, 20, 0), egroup(&pool, 2, 20, 100)];
    for id in ids {
        pool.publish(pages_edit(&[], &(1..20).map(|page| (id, page)).collect::<Vec<_>>())).unwrap();
    }
    // Rot in one copy of each, found by the footer's checksum and mended on the way.
    for id in ids {
        let copy = pool.egroup(id).unwrap().unwrap().copies[0];
        let (_, _, at) = pool.disks[copy.drive as usize].place(copy.slot, 0).unwrap();
        drives[copy.drive as usize].flip_bit("slab-000000", at + 99, 3);
    }
    while pool.clean_step().unwrap() {}
    assert_eq!(pool.counters().egroups_cleaned, 2);
    for (id, seed) in [(ids[0], 0), (ids[1], 100)] {
        for copy in [0, 1] {
            let (target, at) = pool.egroup(id).unwrap().unwrap().moved_to(0).unwrap();
            let mut into = vec![0; BLOCK_BYTES];
            let copy = pool.egroup(target).unwrap().unwrap().copies[copy];
            pool.read_copy(copy, at as u32 * 4096, &mut into).unwrap();
            assert_eq!(into, page(seed));
        }
    }
}

#[test]
fn a_rotten_page_is_read_from_the_other_copy_and_mended() {
    let (_, drives) = world(2);
    let pool = fresh(&drives);
    let id = egroup(&pool, 2, 4, 50);
    let record = pool.egroup(id).unwrap().unwrap();
    let place = |copy: &SlotAddress| pool.disks[copy.drive as usize].place(copy.slot, 0).unwrap().2;
    // Another page of each copy is wrong.
    for (at, copy) in record.copies.iter().enumerate() {
        drives[copy.drive as usize].flip_bit("slab-000000", place(copy) + at as u64 * 4096 + 5, 0);
    }
    let sums: Vec<u64> = (0..4).map(|at| checksum(&page(50 + at))).collect();
    let mut into = vec![0; 4 * BLOCK_BYTES];
    // Reads take turns among the copies.
    for _ in 0..4 {
        pool.read_pages(id, 0, &mut into, &|at, bytes| checksum(bytes) == sums[at]).unwrap();
    }
    assert_eq!((pool.counters().checksum_failures, pool.counters().repairs), (2, 2));
    for copy in &record.copies {
        pool.read_copy(*copy, 0, &mut into).unwrap();
        (0..4).for_each(|at| assert_eq!(checksum(&into[at * 4096..][..4096]), sums[at]));
    }
    // Wrong everywhere: an error, never wrong bytes; the pages beside it still read.
    for copy in &record.copies {
        drives[copy.drive as usize].flip_bit("slab-000000", place(copy) + 5, 0);
    }
    assert_eq!(error_of(read_one(&pool, (id, 0), 50)).kind, Kind::Corrupt);
    read_one(&pool, (id, 1), 51).unwrap();
}

#[test]
fn a_drive_that_fails_a_write_is_out_with_the_next_membership_first() {
    let (world, drives) = world(3);
    let pool = fresh(&drives);
    let segment = pool.take_segments(GROUP, 2, 1, Draw::Ordinary).unwrap().remove(0);
    assert_eq!(pool.membership(), 1);
    let bad = segment.copies[0].drive as usize;
    drives[bad].add_fault(Fault::always(FaultKind::WriteError).within("slab-000000", 0..64 * MIB));
    world.start_trace();
    assert_eq!(pool.write_segment(&segment, 0, &[&[5; 4096]]).unwrap(), 2, "the third drive took the lost copy");
    assert_eq!(pool.membership(), 2);
    let now = pool.group(GROUP).unwrap().segments[0].copies.clone();
    assert!(now.len() == 2 && now.iter().all(|copy| copy.drive as usize != bad), "{now:?}");
    // What a power cut right after the return leaves on the survivors already says m+1.
    for (index, drive) in drives.iter().enumerate().filter(|(index, _)| *index != bad) {
        let found = superblocks::read(drive).unwrap();
        let superblocks::Found::Valid(block) = found else { panic!("drive {index} has no superblock") };
        assert_eq!(block.own.membership, 2);
    }
    drop(world.take_trace());
    let state = &pool.drives()[bad];
    assert_eq!(state.condition, DriveCondition::Out);
    assert!(state.reason.contains("writing"), "{}", state.reason);
    let next = pool.take_segments(GROUP, 3, 4, Draw::Ordinary).unwrap();
    assert!(next.iter().all(|segment| segment.copies.len() == 2));
    assert!(next.iter().flat_map(|segment| &segment.copies).all(|copy| copy.drive as usize != bad));
    drop(pool);
    drives[bad].clear_faults();
    let pool = reopen(&drives).unwrap();
    assert_eq!(pool.drives()[bad].condition, DriveCondition::Stale);
    let mut into = [0; 4096];
    assert!(pool.read_copy(segment.copies[0], 0, &mut into).is_err(), "never a source");
    pool.read_copy(segment.copies[1], 0, &mut into).unwrap();
    assert_eq!(into, [5; 4096]);
}

#[test]
fn the_last_drive_fails_and_nothing_is_acknowledged_any_more() {
    let (_, drives) = world(1);
    let pool = fresh(&drives);
    let segment = pool.take_segments(GROUP, 1, 1, Draw::Ordinary).unwrap().remove(0);
    let id = egroup(&pool, 1, 1, 5);
    let fault = drives[0].add_fault(Fault::nth(FaultKind::WriteError, 1));
    assert_eq!(error_of(pool.write_segment(&segment, 0, &[&[5; 4096]])).kind, Kind::Unavailable);
    assert_eq!(drives[0].fault_hits(fault), 1);
    // The drive takes writes again; it is not believed.
    assert_eq!(error_of(create_group(&pool, GroupId(9), "two")).kind, Kind::Unavailable);
    assert_eq!(error_of(pool.write_segment(&segment, 0, &[&[5; 4096]])).kind, Kind::Unavailable);
    read_one(&pool, (id, 0), 5).unwrap();
    drop(pool);
    assert_eq!(reopen(&drives).unwrap().groups().len(), 1);
}

#[test]
fn a_failed_manifest_write_puts_the_drive_out_and_another_one_takes_its_part() {
    let (_, drives) = world(4);
    let pool = fresh(&drives);
    let members = pool.image.read().manifest_drives.clone();
    assert_eq!(members.len(), 3);
    let bad = members[1] as usize;
    drives[bad].add_fault(Fault::always(FaultKind::Vanished { errno: ENODEV }));
    create_group(&pool, GroupId(9), "two").unwrap();
    assert_eq!((pool.membership(), pool.drives()[bad].condition), (2, DriveCondition::Out));
    let now = pool.image.read().manifest_drives.clone();
    assert!(now.len() == 3 && !now.contains(&members[1]), "{now:?}");
    drop(pool);
    // Any one of the new manifest drives alone knows it.
    for index in now {
        let image = drives[index as usize].image();
        let pool = reopen(std::slice::from_ref(&drives[index as usize])).unwrap();
        assert_eq!(pool.groups().len(), 2);
        assert!(pool.membership() >= 3, "started without drives: raised again");
        drives[index as usize].restore(&image);
    }
}

#[test]
fn an_old_image_is_stale_and_a_missing_drive_comes_back() {
    let (_, drives) = world(3);
    let pool = fresh(&drives);
    let id = egroup(&pool, 1, 1, 77);
    let home = pool.egroup(id).unwrap().unwrap().copies[0].drive as usize;
    let old = drives[home].image();
    pool.heartbeat().unwrap();
    egroup(&pool, 3, 1, 78);
    pool.heartbeat().unwrap();
    drop(pool);
    // Missing, and back again.
    let others: Vec<SimDrive> =
        (0..3).filter(|index| *index != home).map(|index| drives[index].clone()).collect();
    let pool = reopen(&others).unwrap();
    assert_eq!((pool.membership(), pool.drives()[home].condition), (2, DriveCondition::Missing));
    assert_eq!(error_of(read_one(&pool, (id, 0), 77)).kind, Kind::Unavailable);
    create_group(&pool, GroupId(9), "two").unwrap();
    drop(pool);
    let pool = reopen(&drives).unwrap();
    assert_eq!(pool.drives()[home].condition, DriveCondition::Active, "{:?}", pool.warnings());
    assert_eq!(pool.groups().len(), 2);
    read_one(&pool, (id, 0), 77).unwrap();
    drop(pool);
    // An old image in its place.
    drives[home].restore(&old);
    let pool = reopen(&drives).unwrap();
    assert_eq!(pool.drives()[home].condition, DriveCondition::Stale);
    assert!(pool.drives()[home].reason.contains("old image"));
    assert_eq!(pool.groups().len(), 2);
    // The only copy of these bytes: it is read, since the checksum above accepts it.
    read_one(&pool, (id, 0), 77).unwrap();
    assert_eq!(pool.counters().repairs, 0, "nothing is healed from it");
}

#[test]
fn drives_that_were_used_apart_are_refused() {
    let (_, drives) = world(2);
    drop(fresh(&drives));
    drop(reopen(&drives[..1]).unwrap());
    drop(reopen(&drives[1..]).unwrap());
    let error = error_of(reopen(&drives));
    assert_eq!(error.kind, Kind::Conflict, "{error}");
    assert!(error.message.contains("apart"));
}

#[test]
fn another_program_on_the_drives_is_noticed() {
    let (_, drives) = world(2);
    let first = fresh(&drives);
    first.heartbeat().unwrap();
    let second = Pool::open(dynamic(&drives), options(99)).unwrap();
    assert_eq!(error_of(first.heartbeat()).kind, Kind::Fenced);
    assert_eq!(error_of(create_group(&first, GroupId(9), "two")).kind, Kind::Fenced);
    second.heartbeat().unwrap();
    second.close().unwrap();
    assert_eq!(error_of(second.heartbeat()).kind, Kind::Closed);
    assert!(matches!(Pool::probe(&drives[0]).unwrap(), ProbeInfo::Member { open: false, beat: 2, .. }));
}

/// An image that is only one beat old: nothing was written since but the sign of life.
#[test]
fn an_old_image_that_is_put_back_is_noticed_at_the_next_beat() {
    let (_world, drives) = world(3);
    let pool = fresh(&drives);
    pool.heartbeat().unwrap();
    let old = drives[1].image();
    pool.heartbeat().unwrap();
    assert!(pool.drives().iter().all(|drive| drive.condition == DriveCondition::Active));
    drives[1].restore(&old);
    pool.heartbeat().unwrap();
    let state = pool.drives().swap_remove(1);
    assert_eq!(state.condition, DriveCondition::Out);
    assert!(state.reason.contains("old image"), "{}", state.reason);
}

/// One of the two slots of a superblock rots: that is no exchange, and the next beats write it anew.
#[test]
fn a_rotten_superblock_slot_is_no_exchange() {
    let (_world, drives) = world(3);
    let pool = fresh(&drives);
    for slot in [0, 1] {
        pool.heartbeat().unwrap();
        drives[1].flip_bit("superblock", slot * 4096 + 100, 3);
        pool.heartbeat().unwrap();
        assert_eq!(pool.drives()[1].condition, DriveCondition::Active);
    }
    pool.close().unwrap();
    reopen(&drives).unwrap();
}

/// A drive that notes whether the publish lock is free whenever its superblock is read.
struct Watched {
    drive: SimDrive,
    pool: OnceLock<Weak<Pool>>,
    looks: AtomicU64,
    held: AtomicU64,
    removed: AtomicU64,
    /// Files that went while another drive could have joined.
    removed_open: AtomicU64,
}

impl Watched {
    fn new(drive: &SimDrive) -> Arc<Self> {
        let (looks, held, removed, removed_open) = Default::default();
        Arc::new(Self { drive: drive.clone(), pool: OnceLock::new(), looks, held, removed, removed_open })
    }
}

impl Drive for Watched {
    fn name(&self) -> String {
        self.drive.name()
    }
    fn create(&self, file: &str, bytes: u64) -> std::io::Result<holdfast_device::FileId> {
        self.drive.create(file, bytes)
    }
    fn open(&self, file: &str) -> std::io::Result<Option<holdfast_device::FileId>> {
        self.drive.open(file)
    }
    fn remove(&self, file: &str) -> std::io::Result<()> {
        if let Some(pool) = self.pool.get().and_then(Weak::upgrade) {
            self.removed.fetch_add(1, Ordering::Relaxed);
            self.removed_open.fetch_add(pool.changing_drives.try_lock().is_some() as u64, Ordering::Relaxed);
        }
        self.drive.remove(file)
    }
    fn list(&self) -> std::io::Result<Vec<String>> {
        self.drive.list()
    }
    fn bytes(&self, file: holdfast_device::FileId) -> std::io::Result<u64> {
        self.drive.bytes(file)
    }
    fn read(&self, file: holdfast_device::FileId, offset: u64, into: &mut [u8]) -> std::io::Result<()> {
        if let Some(pool) = self.pool.get().and_then(Weak::upgrade) {
            self.looks.fetch_add(1, Ordering::Relaxed);
            self.held.fetch_add(pool.journal.try_lock().is_none() as u64, Ordering::Relaxed);
        }
        self.drive.read(file, offset, into)
    }
    fn write(
        &self,
        file: holdfast_device::FileId,
        offset: u64,
        slices: &[&[u8]],
        durability: holdfast_device::Durability,
    ) -> std::io::Result<()> {
        self.drive.write(file, offset, slices, durability)
    }
    fn flush(&self) -> std::io::Result<()> {
        self.drive.flush()
    }
    fn is_cheap(&self, file: holdfast_device::FileId, offset: u64, bytes: u64) -> std::io::Result<bool> {
        self.drive.is_cheap(file, offset, bytes)
    }
    fn space(&self) -> std::io::Result<holdfast_device::DriveSpace> {
        self.drive.space()
    }
    fn lock_identity(&self) -> Option<(u64, u64)> {
        self.drive.lock_identity()
    }
}

#[test]
fn drives_are_looked_at_without_the_publish_lock() {
    let (world, drives) = world(2);
    let watched: Vec<Arc<Watched>> = drives.iter().map(Watched::new).collect();
    let each = |drive: &Arc<Watched>| PoolDrive {
        drive: drive.clone(),
        bytes: Some(64 * MIB),
        domain: String::new(),
    };
    let clock = Arc::new(world.clock());
    let pool =
        Pool::create("tank", watched.iter().map(each).collect(), PoolOptions { clock, ..options(1) }).unwrap();
    for drive in &watched {
        drive.pool.set(pool.share()).unwrap();
    }
    pool.heartbeat().unwrap();
    // Held up: what is written next needs a look first.
    world.clock().advance(3_000_000_000);
    let id = pool.write_egroup(2, &page(1), &[Birth::default()], Draw::Ordinary).unwrap();
    pool.discard_egroup(id);
    for drive in &watched {
        assert_eq!((drive.looks.load(Ordering::Relaxed), drive.held.load(Ordering::Relaxed)), (2, 0));
    }
    let journal = pool.journal.lock();
    assert_eq!(pool.membership(), journal.membership, "asked for without the lock, too");
}

#[test]
fn a_full_pool_keeps_its_reserve_for_what_frees() {
    let (_, drives) = world(2);
    let pool = fresh(&drives);
    let one = page(1);
    let mut ids = Vec::new();
    let error = loop {
        match pool.write_egroup(2, &one, &[Birth::default()], Draw::Ordinary) {
            Ok(id) => ids.push(id),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, Kind::NoSpace);
    assert!(error.message.contains("MiB are free"), "{error}");
    let space = pool.space();
    assert_eq!((space.free, space.reserve), (24 * pool.slot_bytes() as u64, 24 * pool.slot_bytes() as u64));
    assert_eq!(error_of(pool.take_segments(GROUP, 2, 1, Draw::Ordinary)).kind, Kind::NoSpace);
    assert_eq!(pool.take_segments(GROUP, 2, 1, Draw::Upkeep).unwrap().len(), 1);
    pool.write_table(&[1; 4096]).unwrap();
    let names: Vec<PageName> = ids.iter().map(|id| (*id, 0)).collect();
    pool.publish(pages_edit(&names, &[])).unwrap();
    pool.publish(pages_edit(&[], &names)).unwrap();
    // Freed slots are used without anybody asking for manifest writes.
    // All but the two that the segment and the table took on each drive.
    for _ in 2..ids.len() {
        pool.write_egroup(2, &one, &[Birth::default()], Draw::Ordinary).unwrap();
    }
}

#[test]
fn a_full_host_is_no_failed_drive() {
    let (_, drives) = world(1);
    let pool = fresh(&drives);
    pool.take_segments(GROUP, 1, 1, Draw::Ordinary).unwrap();
    let fault = drives[0].add_fault(Fault::always(FaultKind::Full).within("slab-000001", 0..64 * MIB));
    let mut taken = 1;
    let error = loop {
        match pool.take_segments(GROUP, 1, 1, Draw::Ordinary) {
            Ok(segments) => taken += segments.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, Kind::NoSpace);
    assert_eq!(taken as u32, pool.disks[0].layout.slab_slots - pool.disks[0].layout.reserve());
    assert_eq!(pool.drives()[0].condition, DriveCondition::Active);
    drives[0].remove_fault(fault);
    pool.heartbeat().unwrap();
    pool.take_segments(GROUP, 1, 20, Draw::Ordinary).unwrap();
}

#[test]
fn copies_go_to_the_farthest_domains() {
    let (_, drives) = world(4);
    let domains = ["a/1/1/1", "a/1/1/2", "b/1/1/1", "b/1/1/2"];
    let mut specs = pool_drives(&drives, 64 * MIB);
    specs.iter_mut().zip(domains).for_each(|(spec, domain)| spec.domain = domain.into());
    let pool = Pool::create("tank", specs, options(4)).unwrap();
    create_group(&pool, GROUP, "one").unwrap();
    let segments = pool.take_segments(GROUP, 2, 40, Draw::Ordinary).unwrap();
    let mut pairs = BTreeSet::new();
    for segment in &segments {
        let mut drives: Vec<u16> = segment.copies.iter().map(|copy| copy.drive).collect();
        drives.sort();
        assert!(drives[0] < 2 && drives[1] >= 2, "one copy in each rack: {drives:?}");
        pairs.insert(drives);
    }
    assert_eq!(pairs.len(), 4, "different drives from segment to segment");
}

#[test]
fn a_removed_group_gives_everything_back() {
    let (_, drives) = world(2);
    let pool = fresh(&drives);
    let segments = pool.take_segments(GROUP, 2, 3, Draw::Ordinary).unwrap();
    let placed = pool.write_table(&[1; 4096]).unwrap();
    let tree = TreeEdit { added: vec![desc(placed.id, placed.copies)], ..TreeEdit::default() };
    pool.publish(Edit { tables: vec![(GROUP, tree)], ..Edit::default() }).unwrap();
    let remove = || vec![GroupChange::Remove { id: GROUP }];
    assert_eq!(error_of(pool.publish(Edit { groups: remove(), ..Edit::default() })).kind, Kind::Internal);
    pool.publish(Edit { groups: vec![GroupChange::Destroy { id: GROUP }], ..Edit::default() }).unwrap();
    let tree = TreeEdit { removed: vec![placed.id], ..TreeEdit::default() };
    pool.publish(Edit { groups: remove(), tables: vec![(GROUP, tree)], ..Edit::default() }).unwrap();
    while pool.clean_step().unwrap() {}
    assert!(pool.groups().is_empty() && !segments.is_empty());
    let space = pool.space();
    assert_eq!((space.log, space.metadata, space.data), (0, 0, 0));
    assert_eq!(space.free, space.total);
}

/// Power cuts at every step of edits, area switches, flushes of records, cleaning and slot reuse.
#[test]
fn after_every_power_cut_the_acknowledged_edits_are_there() {
    use holdfast_device::sim::{CrashOptions, Event};
    let (world, drives) = world(2);
    let pool = fresh(&drives);
    let ids = [egroup(&pool, 2, 12, 0), egroup(&pool, 2, 12, 100)];
    // Close to the end of the area, so that it switches under way.
    while manifest_end(&pool).1 + 6 * (BLOCK_BYTES as u64) < pool.area_bytes {
        pool.publish_nothing().unwrap();
    }
    let start = pool.counters().manifest_switches;
    world.start_trace();
    for edit in 1..=12u64 {
        let drained = GroupChange::Drained { id: GROUP, lsn: Lsn(edit), chain: edit };
        let released = [(ids[0], edit as u16 - 1), (ids[1], edit as u16 - 1)];
        // Page 11 of each stays; after the eighth edit they are cleaned, which frees slots that others take.
        let tree = TreeEdit {
            released: if edit < 12 { released.to_vec() } else { Vec::new() },
            ..TreeEdit::default()
        };
        let edit_of = Edit { groups: vec![drained], tables: vec![(GROUP, tree)], ..Edit::default() };
        pool.publish(edit_of).unwrap();
        world.mark("edit", edit);
        if edit == 8 {
            while pool.clean_step().unwrap() {}
            assert_eq!(pool.counters().egroups_cleaned, 2);
        }
        if edit == 10 {
            let id = pool.write_egroup(2, &page(5).repeat(20), &[Birth::default(); 20], Draw::Ordinary).unwrap();
            pool.discard_egroup(id);
            pool.heartbeat().unwrap();
        }
    }
    assert!(pool.counters().manifest_switches > start);
    drop(pool);
    let trace = world.take_trace().unwrap();
    let options = CrashOptions { torn_variants_max: 16, ..CrashOptions::default() };
    let mut states = 0;
    for state in trace.crash_states(options) {
        let marks = trace.events()[..state.position].iter().filter_map(|event| match event {
            Event::Mark { value, .. } => Some(*value),
            _ => None,
        });
        let acknowledged = marks.max().unwrap_or(0);
        let what = || format!("position {}, {}", state.position, state.choice);
        let drives = state.world(3).drives();
        let pool = reopen(&drives).unwrap_or_else(|error| panic!("{}: {error}", what()));
        let lsn = pool.groups()[0].drained_lsn.0;
        assert!(lsn == acknowledged || lsn == acknowledged + 1, "{}: {lsn}, not {acknowledged}", what());
        for page in lsn.min(11)..12 {
            read_one(&pool, (ids[0], page as u16), page)
                .unwrap_or_else(|error| panic!("{}: {error}", what()));
            read_one(&pool, (ids[1], page as u16), 100 + page).unwrap();
        }
        // Recovering twice gives the same.
        let before = image_of(&pool);
        drop(pool);
        assert_eq!(image_of(&reopen(&drives).unwrap()), before);
        states += 1;
    }
    assert!(states > 300, "{states} states");
}

#[test]
fn nothing_joins_while_the_files_of_a_removed_drive_go() {
    let (_world, drives) = world(3);
    let watched: Vec<Arc<Watched>> = drives.iter().map(Watched::new).collect();
    let each = |drive: &Arc<Watched>| PoolDrive { drive: drive.clone(), bytes: Some(64 * MIB), domain: String::new() };
    let pool = Pool::create("tank", watched.iter().map(each).collect(), options(1)).unwrap();
    for drive in &watched {
        drive.pool.set(pool.share()).unwrap();
    }
    pool.remove_drive(2, &[]).unwrap();
    while pool.retire_step().unwrap() {}
    let left = &watched[2];
    assert!(left.removed.load(Ordering::Relaxed) > 0 && left.drive.list().unwrap().is_empty());
    assert_eq!(left.removed_open.load(Ordering::Relaxed), 0);
    let index = pool.add_drive(each(left)).unwrap();
    assert_eq!(index, 3);
}
