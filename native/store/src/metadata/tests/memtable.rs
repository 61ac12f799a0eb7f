//! The memtable against a list of everything that was inserted.

use super::*;

fn lsns(memtable: &Memtable, key: &[u8]) -> Vec<u64> {
    memtable_versions(memtable).iter().filter(|version| version.key == key).map(|v| v.stamp.lsn.0).collect()
}

fn partial(start: u16, bytes: &[u8]) -> Vec<u8> {
    Cell::Partial { start, bytes: bytes.to_vec() }.encode()
}

#[test]
fn a_version_is_replaced_unless_a_point_lies_between() {
    let memtable = Memtable::new();
    let key = key::inode(BRANCH, Ino(1));
    for (lsn, point) in [(1, 0), (2, 0), (5, 3), (6, 3), (9, 6)] {
        memtable.insert(&key, stamp(lsn), (lsn != 6).then_some(&[lsn as u8]), Lsn(point));
    }
    assert_eq!(lsns(&memtable, &key), [9, 6, 2]);
    assert_eq!(memtable.get(&key), Some((stamp(9), Some(vec![9]))));
    assert_eq!((memtable.records(), memtable.stamp_range()), (3, (Lsn(1), Lsn(9))));
}

/// The mode 0o4005 begins like a PARTIAL cell; so does many an attribute.
#[test]
fn only_values_of_data_keys_are_pieces() {
    let memtable = Memtable::new();
    for key in [key::inode(BRANCH, Ino(1)), key::xattr(BRANCH, Ino(1), b"user.a")] {
        memtable.insert(&key, stamp(1), Some(&partial(0, b"aaaa")), Lsn(0));
        memtable.insert(&key, stamp(2), Some(&partial(2, b"bbbb")), Lsn(0));
        assert_eq!(memtable.get(&key), Some((stamp(2), Some(partial(2, b"bbbb")))));
        assert_eq!(lsns(&memtable, &key), [2]);
        let mut chain = Vec::new();
        memtable.chain(&key, Lsn(u64::MAX), &mut chain);
        assert_eq!(chain.len(), 1);
    }
}

#[test]
fn pieces_lie_over_the_block_and_merge_with_those_they_touch() {
    let memtable = Memtable::new();
    let key = key::data(BRANCH, Ino(1), 5, 0);
    memtable.insert(&key, stamp(1), Some(&pages(1, 0)), Lsn(0));
    memtable.insert(&key, stamp(2), Some(&partial(10, b"aaaa")), Lsn(0));
    memtable.insert(&key, stamp(3), Some(&partial(20, b"bbbb")), Lsn(0));
    memtable.insert(&key, stamp(4), Some(&partial(12, b"CCCCCCCC")), Lsn(0));
    let mut chain = Vec::new();
    memtable.chain(&key, Lsn(u64::MAX), &mut chain);
    let merged = partial(10, b"aaCCCCCCCCbbbb");
    assert_eq!(chain, [(stamp(4), Some(merged.clone())), (stamp(1), Some(pages(1, 0)))]);
    // A point keeps what lies before it apart.
    memtable.insert(&key, stamp(6), Some(&partial(0, &[7; 100])), Lsn(5));
    assert_eq!(lsns(&memtable, &key), [6, 4, 1]);
    // The chain ends with the first version that is the whole block; a whole block replaces the pieces since
    // the point.
    memtable.insert(&key, stamp(7), Some(&pages(7, 0)), Lsn(5));
    assert_eq!(lsns(&memtable, &key), [7, 4, 1]);
    chain.clear();
    memtable.chain(&key, Lsn(u64::MAX), &mut chain);
    assert_eq!(chain.len(), 1);
}

#[test]
fn memory_does_not_grow_under_overwrites_of_any_size() {
    let memtable = Memtable::new();
    let (mut peak, mut lsn) = (0, 0);
    for round in 0..50 {
        for level in [0, 1, 2, 1, 0] {
            let step = level_blocks(level);
            for start in (0..256).step_by(step as usize) {
                lsn += 1;
                let cell = if round % 7 == 6 { Cell::Hole.encode() } else { pages(lsn, level) };
                memtable.insert(&key::data(BRANCH, Ino(1), start, level), stamp(lsn), Some(&cell), Lsn(0));
            }
        }
        peak = if round == 0 { memtable.bytes() } else { peak };
        assert!(memtable.bytes() <= peak, "{} of {peak} in round {round}", memtable.bytes());
    }
    lsn += 1;
    memtable.insert(&key::data(BRANCH, Ino(1), 0, 8), stamp(lsn), Some(&Cell::Hole.encode()), Lsn(0));
    assert_eq!(memtable.records(), 1);
    // Nothing that a point sees goes.
    memtable.insert(&key::data(BRANCH, Ino(1), 3, 0), stamp(lsn + 1), Some(&pages(9, 0)), Lsn(0));
    memtable.insert(&key::data(BRANCH, Ino(1), 0, 1), stamp(lsn + 2), Some(&pages(8, 1)), Lsn(lsn + 1));
    assert_eq!(memtable.records(), 3);
}

/// Start and bytes.
type Piece = (u16, Vec<u8>);

/// What a block reads as at `lsn`: the whole block's LSN and the bytes over it.
fn read(versions: &[(u64, Option<Piece>)], lsn: u64) -> (u64, [u8; 32]) {
    let mut bytes = [0; 32];
    for (at, piece) in versions.iter().rev().filter(|(at, _)| *at <= lsn) {
        let Some((start, piece)) = piece else { return (*at, bytes) };
        for (n, byte) in piece.iter().enumerate() {
            let under = &mut bytes[*start as usize + n];
            *under = if *under == 0 { *byte } else { *under };
        }
    }
    (0, bytes)
}

#[test]
fn every_point_reads_the_same_pieces_as_the_list_of_all() {
    for seed in 0..200 {
        let mut rng = Rng::from_seed(seed);
        let memtable = Memtable::new();
        let key = key::data(BRANCH, Ino(1), 5, 0);
        let (mut all, mut points) = (Vec::new(), Vec::new());
        for lsn in 1..80 {
            let last_point = points.last().copied().unwrap_or(0);
            if rng.chance(1, 8) {
                memtable.insert(&key, stamp(lsn), Some(&pages(lsn, 0)), Lsn(last_point));
                all.push((lsn, None));
            } else {
                let start = rng.below(24) as u16;
                let bytes = vec![1 + rng.below(250) as u8; 1 + rng.below(8) as usize];
                memtable.insert(&key, stamp(lsn), Some(&partial(start, &bytes)), Lsn(last_point));
                all.push((lsn, Some((start, bytes))));
            }
            if rng.chance(1, 6) {
                points.push(lsn);
            }
        }
        let mut kept: Vec<_> = memtable_versions(&memtable)
            .into_iter()
            .map(|version| match Cell::decode(0, &version.value.unwrap()).unwrap() {
                Cell::Partial { start, bytes } => (version.stamp.lsn.0, Some((start, bytes))),
                _ => (version.stamp.lsn.0, None),
            })
            .collect();
        kept.reverse();
        points.push(79);
        for point in points {
            assert_eq!(read(&kept, point), read(&all, point), "seed {seed} at {point}");
        }
    }
}
