//! What the trees cost, counted: bytes a record, keys stepped a look-up, blocks read; and what damage looks
//! like.

use super::*;
use holdfast_format::key::COOKIE_SEQUENCE_BITS;

struct Bench {
    io: Arc<MapIo>,
    cache: Arc<BlockCache>,
    tree: Tree,
}

impl Bench {
    fn new(slot_bytes: usize, kind: TreeSet, level1_bytes: u64) -> Self {
        let io = MapIo::new(slot_bytes);
        let cache = Arc::new(BlockCache::new(64 << 20));
        let tree = Tree::open(io.clone(), cache.clone(), options(kind, level1_bytes), Vec::new()).unwrap();
        Self { io, cache, tree }
    }
    fn apply(&self, edit: &TreeEdit) {
        self.tree.apply(edit);
        for id in self.tree.retired() {
            self.io.tables.lock().1.remove(&id);
        }
    }
    /// Builds one run of sorted versions.
    fn build(&self, mut versions: Vec<Version>, points: &Points) -> TreeEdit {
        versions.sort_by(|left, right| left.key.cmp(&right.key).then(right.stamp.cmp(&left.stamp)));
        let edit = self.tree.build(&mut versions.into_iter().map(Ok), points).unwrap();
        self.apply(&edit);
        edit
    }
    fn compact_all(&self, points: &Points) -> u32 {
        let mut jobs = 0;
        while let Some(job) = self.tree.pick() {
            let edit = self.tree.compact(&job, points).unwrap();
            drop(job);
            self.apply(&edit);
            jobs += 1;
            assert!(jobs < 10_000, "compaction does not end");
        }
        jobs
    }
    fn now_records(&self) -> u64 {
        self.tree.stats().levels.iter().map(|level| level.records).sum()
    }
}

fn version(key: Key, lsn: u64, value: Option<Vec<u8>>) -> Version {
    Version { key, stamp: Stamp { lsn: Lsn(lsn), row: Row(1) }, value }
}

#[test]
fn a_random_4_kib_overwrite_costs_30_bytes() {
    let bench = Bench::new(4 << 20, TreeSet::Group, 64 << 20);
    let mut rng = Rng::from_seed(1);
    let blocks: std::collections::BTreeSet<u32> = (0..100_000).map(|_| rng.below(1 << 28) as u32).collect();
    let count = blocks.len() as u64;
    let versions = blocks.into_iter().map(|block| {
        version(key::data(BRANCH, Ino(9), block, 0), 1 + rng.below(100_000), Some(pages(block as u64, 0)))
    });
    let edit = bench.build(versions.collect(), &Points::default());
    let bytes: u64 = edit.added.iter().map(|table| table.bytes as u64).sum();
    assert_eq!(edit.referenced.len() as u64, count);
    assert!(bytes <= count * 30, "{:.2} bytes a record", bytes as f64 / count as f64);
}

/// The counted twin of the bar on differences: what changed is found without reading the blocks that it does not lie in.
#[test]
fn changed_keys_are_found_without_reading_what_did_not_change() {
    let bench = Bench::new(1 << 20, TreeSet::Group, 64 << 20);
    const RECORDS: u64 = 100_000;
    let lsn = |n: u64| if n % 10_000 == 5_000 { 2 * RECORDS + n } else { 1 + n };
    let versions = (0..RECORDS).map(|n| version(key::inode(BRANCH, Ino(1 + n)), lsn(n), Some(vec![7; 120])));
    bench.build(versions.collect(), &Points::default());
    let span = Span { from: Lsn(2 * RECORDS), to: Lsn(4 * RECORDS), is_whole: false };
    let (from, until) = (key::inode(BRANCH, Ino(0)), key::volume(BranchId(BRANCH.0 + 1)));
    let mut changed = bench.tree.snapshot().changed_keys(span, &from, &until).unwrap();
    let mut found = Vec::new();
    while let Some(key) = changed.key().map(<[u8]>::to_vec) {
        changed.pass(&key).unwrap();
        found.push(key);
    }
    let expected: Vec<Key> = (0..10).map(|n| key::inode(BRANCH, Ino(5_001 + n * 10_000))).collect();
    assert_eq!(found, expected);
    let stepped = changed.stepped();
    assert!(stepped <= 10 * 64, "{stepped} of {RECORDS} records were looked at");
}

fn name_key(n: u64) -> Key {
    let name = format!("file-{n:07}");
    key::dirent(BRANCH, Ino(1), key::cookie_base(name.as_bytes()), name.as_bytes())
}

/// Names all made, drained, all removed, drained: NOW forgets them.
#[test]
fn dead_names_leave_now() {
    let bench = Bench::new(1 << 20, TreeSet::Group, 4 << 20);
    let (runs, per_run) = (8, 25_000u64);
    let points = Points::from_sorted((0..=16).map(|n| Lsn(n * per_run)).collect());
    let mut lsn = 0;
    for alive in [true, false] {
        for run in 0..runs {
            let versions = (0..per_run).map(|n| {
                lsn += 1;
                version(name_key(run * per_run + n), lsn, alive.then(|| vec![1; 16]))
            });
            bench.build(versions.collect(), &points);
            bench.compact_all(&points);
        }
        if alive {
            assert!(bench.now_records() >= runs * per_run);
        }
    }
    assert!(bench.now_records() <= 1000, "{} records are left", bench.now_records());
    assert_eq!(bench.tree.stats().then.records, runs * per_run, "a point sees every name");
    let before = bench.tree.stats().keys_stepped;
    let (from, until) = key::kind_range(BRANCH, Ino(1), key::KIND_DIRENT);
    let alive = bench
        .tree
        .snapshot()
        .iter(&from, &until)
        .unwrap()
        .filter(|found| found.as_ref().unwrap().value.is_some());
    assert_eq!(alive.count(), 0);
    assert!(bench.tree.stats().keys_stepped - before <= 1000);
    // The past is still there, and goes with its points.
    let view = bench.tree.snapshot();
    let past = view.get_at(&name_key(77_777), Lsn(runs * per_run)).unwrap();
    assert_eq!(past.unwrap().1, Some(vec![1; 16]));
    assert_eq!(
        view.get_at(&name_key(77_777), Lsn(2 * runs * per_run)).unwrap().and_then(|found| found.1),
        None
    );
    drop(view);
    let tables = bench.tree.stats().then.tables;
    let points = Points::from_sorted(vec![Lsn(12 * per_run)]);
    loop {
        let edit = bench.tree.expire(&points).unwrap();
        if edit.is_empty() {
            break;
        }
        assert!(edit.added.len() < edit.removed.len());
        bench.apply(&edit);
    }
    assert!(bench.tree.stats().then.tables < tables);
    // What the point sees stays, and of the rest at most one bucket of deaths: two of the sixteen points.
    let (seen, left) = (runs / 2 * per_run, bench.tree.stats().then.records);
    assert!(seen <= left && left <= seen + 2 * per_run, "{left}");
}

/// Versions of all ages, moved to THEN at once, leave it table by table as their points go.
#[test]
fn expiry_drops_whole_tables() {
    let bench = Bench::new(1 << 20, TreeSet::Group, 4 << 20);
    let points = |from: u64| Points::from_sorted((from..=64).map(Lsn).collect());
    let cells = (0..100u32).flat_map(|block| {
        (1..=65).map(move |lsn| {
            version(key::data(BRANCH, Ino(4), block, 0), lsn, Some(pages(block as u64 * 100 + lsn, 0)))
        })
    });
    let edit = bench.build(cells.collect(), &points(1));
    assert_eq!(edit.referenced.len(), 6500);
    assert_eq!(bench.tree.stats().then.records, 6400);
    let edit = bench.tree.expire(&points(33)).unwrap();
    assert_eq!(edit.added, []);
    let expired = edit.released.len();
    assert!((6400 * 3 / 8..=3200).contains(&expired), "{expired}");
    bench.apply(&edit);
    let edit = bench.tree.expire(&Points::default()).unwrap();
    assert_eq!((edit.added.len(), edit.released.len()), (0, 6400 - expired));
    bench.apply(&edit);
    assert_eq!((bench.tree.stats().then.tables, bench.now_records()), (0, 100));
}

#[test]
fn names_born_and_dead_in_one_memtable_never_reach_now() {
    let bench = Bench::new(1 << 20, TreeSet::Group, 4 << 20);
    let versions = (0..1000).map(|n| version(name_key(n), n + 1, None)).collect();
    let edit = bench.build(versions, &Points::default());
    assert!(edit.is_empty());
}

/// A block that was overwritten again and again over many ticks is found as fast as one that was written
/// once.
#[test]
fn overwrites_do_not_slow_the_present() {
    let bench = Bench::new(256 << 10, TreeSet::Group, 256 << 10);
    let mut rng = Rng::from_seed(3);
    let (hot, cold) = (key::data(BRANCH, Ino(2), 77, 0), key::data(BRANCH, Ino(2), 5000, 0));
    let mut lsn = 0;
    let mut ticks = vec![];
    for round in 0..60u64 {
        let mut versions = Vec::new();
        for block in 0..500 {
            lsn += 1;
            if round == 0 {
                let block = if block == 0 { 5000 } else { 10_000 + block };
                versions.push(version(key::data(BRANCH, Ino(2), block, 0), lsn, Some(pages(lsn, 0))));
            }
            versions.push(version(hot.clone(), lsn + 1, Some(pages(lsn + 1, 0))));
            lsn += 1;
            if rng.chance(1, 200) {
                ticks.push(Lsn(lsn));
            }
        }
        bench.build(versions, &Points::from_sorted(ticks.clone()));
        bench.compact_all(&Points::from_sorted(ticks.clone()));
    }
    assert!(ticks.len() > 60);
    assert!(bench.tree.stats().then.records as usize >= ticks.len() - 2);
    let cost = |key: &[u8]| {
        let before = bench.tree.stats().keys_stepped;
        assert!(bench.tree.snapshot().get(key).unwrap().is_some());
        bench.tree.stats().keys_stepped - before
    };
    let (hot, cold) = (cost(&hot), cost(&cold));
    assert!(hot <= cold + 4, "{hot} keys against {cold}");
}

#[test]
fn levels_stay_in_shape_and_absent_names_cost_no_block() {
    let bench = Bench::new(64 << 10, TreeSet::Group, 256 << 10);
    let mut rng = Rng::from_seed(4);
    let mut lsn = 0;
    for _ in 0..60 {
        let mut names: Vec<u64> = (0..1500).map(|_| rng.below(40_000) * 2).collect();
        names.sort_unstable();
        names.dedup();
        let versions = names.into_iter().map(|n| {
            lsn += 1;
            version(name_key(n), lsn, Some(vec![2; 20]))
        });
        bench.build(versions.collect(), &Points::default());
        bench.compact_all(&Points::default());
    }
    let stats = bench.tree.stats();
    assert!(stats.levels.len() >= 3 && stats.levels[0].tables < 12 * 4, "{stats:?}");
    assert!(stats.levels[1].bytes <= 256 << 10, "{stats:?}");
    let view = bench.tree.snapshot();
    let scan = |n: u64| {
        let cookie = key::cookie_base(format!("file-{n:07}").as_bytes());
        let from = key::dirent_from(BRANCH, Ino(1), cookie);
        let until = key::dirent_from(BRANCH, Ino(1), cookie + (1 << COOKIE_SEQUENCE_BITS));
        view.iter(&from, &until).unwrap().count()
    };
    let before = bench.tree.stats().keys_stepped;
    assert!((0..1000).all(|n| scan(2 * n + 1) == 0 && view.get(&name_key(2 * n + 1)).unwrap().is_none()));
    let stepped = (bench.tree.stats().keys_stepped - before) as f64 / 2000.0;
    assert!(stepped < 12.0, "{stepped} keys an absent name");
}

/// New tables do not reach over one that lies between their keys and took no part.
#[test]
fn merges_leave_tables_between_their_keys_alone() {
    let bench = Bench::new(16 << 10, TreeSet::Group, 1 << 20);
    let inode = |ino: u64, lsn| version(key::inode(BRANCH, Ino(ino)), lsn, Some(vec![7; 200]));
    let merge = || {
        let view = bench.tree.snapshot();
        let edit = bench.tree.compact(&into_next(&view, view.newest.clone(), 1), &Points::default()).unwrap();
        bench.apply(&edit);
        edit
    };
    bench.build((400..420).map(|ino| inode(ino, ino)).collect(), &Points::default());
    merge();
    // Two runs, one below the table and one above it.
    bench.build((0..20).map(|ino| inode(ino, 1000 + ino)).collect(), &Points::default());
    bench.build((800..820).map(|ino| inode(ino, 1000 + ino)).collect(), &Points::default());
    let edit = merge();
    assert_eq!((edit.removed.len(), edit.added.len()), (2, 2));
    assert_eq!(bench.now_records(), 60);
    let runs = super::super::levels::runs_of(&bench.tree.snapshot().levels[0]);
    assert_eq!(runs.len(), 1, "level 1 does not overlap");
}

/// A hole that reaches over a table's cells goes down with them: else what they meet below is not told of the
/// hole.
#[test]
fn holes_go_down_before_what_lies_over_them() {
    let bench = Bench::new(12 << 10, TreeSet::Group, 1 << 30);
    let ino = Ino(2);
    let merge = |level: u8, at: Option<usize>, points: &Points| {
        let view = bench.tree.snapshot();
        let sources = match at {
            Some(at) => with_covers(&view.levels[level as usize - 1], at),
            None if level == 0 => view.newest.clone(),
            None => view.levels[level as usize - 1].clone(),
        };
        let edit = bench.tree.compact(&into_next(&view, sources, level + 1), points).unwrap();
        bench.apply(&edit);
    };
    let block = key::data(BRANCH, ino, 1 << 20, 0);
    let none = Points::default();
    bench.build(vec![version(block.clone(), 5, Some(pages(5, 0)))], &none);
    (0..4).for_each(|level| merge(level, None, &none));
    // A hole at 10 over everything, then many cells, so that the hole and the block's new cell lie in two
    // tables.
    let points = Points::from_sorted(vec![Lsn(7), Lsn(15)]);
    let mut versions = vec![
        version(key::data(BRANCH, ino, 0, 8), 10, Some(Cell::Hole.encode())),
        version(block.clone(), 20, Some(pages(20, 0))),
    ];
    versions.extend(
        (1..20u32).map(|n| version(key::data(BRANCH, ino, n << 8, 2), 20, Some(pages(30 + n as u64, 2)))),
    );
    bench.build(versions, &points);
    merge(0, None, &points);
    let view = bench.tree.snapshot();
    let at = view.levels[0].iter().position(|table| table.spans(&block)).unwrap();
    assert!(at > 0);
    drop(view);
    for level in 1..4 {
        let view = bench.tree.snapshot();
        let at = view.levels[level - 1].iter().position(|table| table.spans(&block)).unwrap();
        drop(view);
        merge(level as u8, Some(at), &points);
    }
    (1..4).for_each(|level| merge(level, None, &points));
    let view = bench.tree.snapshot();
    for (point, page) in [(7, Some((EgroupId(5), 7))), (15, None)] {
        assert_eq!(read_block(&|key| view.get_at(key, Lsn(point)).unwrap(), 2, 1 << 20), page, "at {point}");
    }
}

/// A hole whose records end long before what it covers meets all of it.
#[test]
fn holes_meet_all_that_they_cover() {
    let bench = Bench::new(12 << 10, TreeSet::Group, 1 << 30);
    let ino = Ino(2);
    let cells =
        (0..100u32).map(|n| version(key::data(BRANCH, ino, n << 8, 2), 5, Some(pages(5 + n as u64, 2))));
    bench.build(cells.collect(), &Points::default());
    let merge = || {
        let view = bench.tree.snapshot();
        let edit = bench.tree.compact(&into_next(&view, view.newest.clone(), 1), &Points::default()).unwrap();
        bench.apply(&edit);
        edit
    };
    merge();
    assert!(bench.tree.stats().levels[1].tables > 10);
    bench.build(
        vec![version(key::data(BRANCH, ino, 0, 8), 200, Some(Cell::Hole.encode()))],
        &Points::default(),
    );
    assert_eq!(merge().released.len(), 100 * 256);
    assert_eq!(bench.now_records(), 0);
}

#[test]
fn damage_is_reported_with_the_name_of_the_table() {
    let bench = Bench::new(64 << 10, TreeSet::Group, 1 << 20);
    bench.build(
        (0..500).map(|n| version(name_key(n), n + 1, Some(vec![3; 30]))).collect(),
        &Points::default(),
    );
    let tables = bench.tree.tables();
    let table = &tables[0];
    let clean = bench.io.tables.lock().1[&table.id].clone();
    for at in [60, table.index_offset as usize + 9, table.bytes as usize - 1] {
        bench.io.tables.lock().1.get_mut(&table.id).unwrap()[at] ^= 4;
        let cache = Arc::new(BlockCache::new(1 << 20));
        let tree =
            Tree::open(bench.io.clone(), cache, options(TreeSet::Group, 1 << 20), tables.clone()).unwrap();
        let view = tree.snapshot();
        let walk: Result<Vec<Version>> = view.iter(&[], &[0xff]).and_then(|records| records.collect());
        let errors = [view.get(&table.first).unwrap_err(), walk.unwrap_err()];
        let job = into_next(&view, view.newest.clone(), 1);
        let merge = tree.compact(&job, &Points::default()).unwrap_err();
        for error in errors.iter().chain([&merge]) {
            assert_eq!(error.kind, Kind::Corrupt);
            assert!(error.message.contains(&format!("table {}", table.id)), "{}", error.message);
        }
        bench.io.tables.lock().1.insert(table.id, clean.clone());
    }
    assert_eq!(bench.io.ids().len(), tables.len(), "failed merges leave nothing behind");
}

#[test]
fn a_failed_build_gives_its_tables_back() {
    let bench = Bench::new(16 << 10, TreeSet::Group, 1 << 20);
    let versions = || (0..2000).map(|n| version(name_key(n), n + 1, Some(vec![3; 30])));
    let mut sorted: Vec<_> = versions().collect();
    sorted.sort_by(|left, right| left.key.cmp(&right.key));
    *bench.io.writes_left.lock() = Some(3);
    let error = bench.tree.build(&mut sorted.clone().into_iter().map(Ok), &Points::default()).unwrap_err();
    assert_eq!((error.kind, bench.io.ids().len()), (Kind::NoSpace, 0));
    *bench.io.writes_left.lock() = None;
    let broken = sorted.into_iter().map(Ok).chain([Err(Error::closed())]);
    assert_eq!(bench.tree.build(&mut { broken }, &Points::default()).unwrap_err().kind, Kind::Closed);
    assert_eq!(bench.io.ids().len(), 0);
    // Built, but the manifest could not be written.
    let mut sorted: Vec<_> = versions().collect();
    sorted.sort_by(|left, right| left.key.cmp(&right.key));
    let edit = bench.tree.build(&mut sorted.into_iter().map(Ok), &Points::default()).unwrap();
    assert_eq!(bench.io.ids().len(), edit.added.len());
    bench.tree.abandon(&edit);
    assert_eq!((bench.io.ids().len(), bench.tree.tables().len()), (0, 0));
}

#[test]
fn slots_are_not_reused_under_a_reader() {
    let bench = Bench::new(16 << 10, TreeSet::Group, 1 << 20);
    bench.build(
        (0..500).map(|n| version(name_key(n), n + 1, Some(vec![3; 30]))).collect(),
        &Points::default(),
    );
    let mut reader = bench.tree.snapshot().iter(&[], &[0xff]).unwrap();
    assert!(reader.advance().unwrap());
    let view = bench.tree.snapshot();
    let job = into_next(&view, view.newest.clone(), 1);
    drop(view);
    let edit = bench.tree.compact(&job, &Points::default()).unwrap();
    bench.tree.apply(&edit);
    assert!(bench.tree.compact(&job, &Points::default()).unwrap().is_empty(), "its inputs are gone");
    drop(job);
    assert_eq!(bench.tree.retired(), []);
    assert_eq!(reader.by_ref().count(), 499);
    drop(reader);
    let mut retired = bench.tree.retired();
    retired.sort();
    assert_eq!(retired, edit.removed);
    assert_eq!(bench.tree.retired(), []);
}

#[test]
fn the_pools_tree_holds_plain_keys_once() {
    let bench = Bench::new(16 << 10, TreeSet::Pool, 32 << 10);
    let mut rng = Rng::from_seed(6);
    let mut model: BTreeMap<Key, Vec<u8>> = BTreeMap::new();
    for lsn in 1..60u64 {
        let mut run = BTreeMap::new();
        for _ in 0..100 {
            // Among them keys that look like a group's DATA and DIRENT records.
            let key =
                [&[0; 12][..], &[[0x30, 0x40][rng.below(2) as usize]], &rng.below(900).to_be_bytes()[3..]]
                    .concat();
            run.insert(key, (!rng.chance(1, 3)).then(|| vec![lsn as u8; rng.below(40) as usize]));
        }
        for (key, value) in &run {
            match value {
                Some(value) => model.insert(key.clone(), value.clone()),
                None => model.remove(key),
            };
        }
        let versions = run.into_iter().map(|(key, value)| version(key, lsn, value));
        let edit = bench.build(versions.collect(), &Points::from_sorted((0..lsn).map(Lsn).collect()));
        assert!(edit.referenced.is_empty());
        bench.compact_all(&Points::default());
    }
    let view = bench.tree.snapshot();
    let found: BTreeMap<Key, Vec<u8>> = view
        .iter(&[], &[0xff])
        .unwrap()
        .map(Result::unwrap)
        .filter_map(|version| version.value.map(|value| (version.key, value)))
        .collect();
    assert_eq!(found, model);
    assert!(model.iter().all(|(key, value)| view.get(key).unwrap().unwrap().1.as_ref() == Some(value)));
    assert_eq!(bench.tree.stats().then.tables, 0);
    // Opened again from what the manifest would hold, it is the same.
    let cache = Arc::new(BlockCache::new(1 << 20));
    let tables = bench.tree.tables();
    let again =
        Tree::open(bench.io.clone(), cache, options(TreeSet::Pool, 32 << 10), tables.clone()).unwrap();
    let all =
        |tree: &Tree| tree.snapshot().iter(&[], &[0xff]).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(all(&again), all(&bench.tree));
    assert!(Tree::open(bench.io.clone(), bench.cache.clone(), options(TreeSet::Group, 1), tables).is_err());
}
