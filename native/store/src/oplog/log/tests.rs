//! Frames in flight together.

use super::*;
use crate::oplog::births::segment_births;
use crate::oplog::scan::scan;
use crate::placement::tests::{GROUP, fresh, reopen, world};
use crate::placement::{GroupChange, GroupRecord};
use holdfast_device::sim::SimDrive;
use holdfast_format::frame::FrameHeader;
use holdfast_format::inode::Time;
use holdfast_format::op::{Actor, Effects, OpHeader, OpKind, encode_op};
use holdfast_format::{BranchId, Ino};
use std::sync::atomic::AtomicUsize;

const RING_BYTES: usize = 8 << 20;
const START: u64 = 1;

/// A log at RF 2 whose row of the epoch history is in the manifest.
fn log_on(drives: &[SimDrive]) -> Log {
    let pool = fresh(drives);
    let row = holdfast_format::manifest::EpochRow {
        major: 1,
        minor: 1,
        random: 7,
        first_lsn: Lsn(START),
        chain: 0,
    };
    pool.publish(Edit { groups: vec![GroupChange::Epoch { id: GROUP, row }], ..Edit::default() }).unwrap();
    let ring = Ring::format(SharedMemory::heap(RING_BYTES), [1; 16], pool.uuid(), GROUP);
    Log::new(pool, GROUP, ring, 2, Row(0), (Lsn(START - 1), 0), Vec::new())
}

/// Acknowledges an op with one page of payload.
fn append(log: &Log, lsn: u64) {
    append_at(log, lsn, 2);
}

fn append_at(log: &Log, lsn: u64, rf: u8) {
    let header = OpHeader {
        lsn: Lsn(lsn),
        row: Row(0),
        branch: BranchId(1),
        kind: OpKind::Write,
        payload_rf: rf,
        payload_pages: 1,
        actor: Actor::default(),
        time: Time::default(),
        ino: Ino(2),
        offset: 0,
        length: BLOCK_BYTES as u64,
    };
    let page = [lsn as u8; BLOCK_BYTES];
    let mut effects = Effects::new();
    effects.pages(Ino(2), lsn as u32, 0, &[holdfast_format::checksum::checksum(&page)]);
    let mut op = Vec::new();
    encode_op(&mut op, &header, effects.as_bytes());
    while !log.admit(Lsn(lsn), op.len(), page.len(), rf) {
        log.refill(rf, Draw::Ordinary).unwrap();
    }
    log.ring.append(&op, &page).expect("room in the ring");
}

/// LSNs that a start would find in the log after a crash now.
fn found(drives: &[SimDrive]) -> Vec<u64> {
    let (_, copies) = world(drives.len());
    copies.iter().zip(drives).for_each(|(copy, drive)| copy.restore(&drive.image()));
    let pool = reopen(&copies).unwrap();
    let record: GroupRecord = pool.group(GROUP).unwrap();
    let mut lsns = Vec::new();
    let mut visit = |op: &holdfast_format::op::Op<'_>, _| {
        lsns.push(op.header.lsn.0);
        Ok(())
    };
    scan(&pool, (&record, 1), &mut visit).unwrap();
    lsns
}

#[test]
fn a_frame_that_lands_early_counts_when_the_one_before_it_has_landed() {
    let (_world, drives) = world(2);
    let log = log_on(&drives);
    let told = Mutex::new(Vec::new());
    let moved = |places: &[(Lsn, Place)]| told.lock().extend(places.iter().map(|(lsn, _)| lsn.0));
    let answered = Arc::new(AtomicUsize::new(0));
    let begin = |lsn: u64| {
        append(&log, lsn);
        let answered = answered.clone();
        log.when_durable(Lsn(lsn), Box::new(move |result| {
            result.expect("is durable");
            answered.fetch_add(1, Ordering::Relaxed);
        }));
        let end = log.ring.window().1;
        log.take_off(end).unwrap().expect("something to write")
    };
    let (first, second) = (begin(1), begin(2));
    assert_eq!((log.placed(), log.durable()), (Lsn(2), Lsn(0)));
    assert_eq!(found(&drives), [0; 0]);
    log.fly(second, &moved).unwrap();
    assert_eq!((log.durable(), answered.load(Ordering::Relaxed)), (Lsn(0), 0));
    assert!(told.lock().is_empty(), "readers still look into the ring");
    assert_eq!(found(&drives), [0; 0], "a crash now: the second frame lies behind a gap");
    log.fly(first, &moved).unwrap();
    assert_eq!((log.durable(), answered.load(Ordering::Relaxed)), (Lsn(2), 2));
    assert_eq!(*told.lock(), [1, 2]);
    assert_eq!(found(&drives), [1, 2]);
}

#[test]
fn after_a_failed_frame_the_next_one_never_counts() {
    let (_world, drives) = world(2);
    let log = log_on(&drives);
    let nothing = |_: &[(Lsn, Place)]| ();
    let begin = |lsn: u64| {
        append(&log, lsn);
        log.take_off(log.ring.window().1).unwrap().expect("something to write")
    };
    let (first, second) = (begin(1), begin(2));
    let refused = Arc::new(AtomicUsize::new(0));
    let counter = refused.clone();
    log.when_durable(Lsn(2), Box::new(move |result| {
        assert!(result.is_err());
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    // What a thread does whose frame has failed on too many drives.
    drop(first);
    log.fail(Error::new(Kind::Unavailable, "too few copies"));
    log.fly(second, &nothing).unwrap();
    assert_eq!((log.durable(), refused.load(Ordering::Relaxed)), (Lsn(0), 1));
    assert!(log.flush(&nothing).is_err());
    log.await_all_landed();
}

/// Once the frames are gone, nothing else says what the payload beside them is.
#[test]
fn payload_beside_its_frame_says_what_it_is() {
    let (_world, drives) = world(2);
    let log = log_on(&drives);
    let told = Mutex::new(BTreeMap::new());
    let moved = |places: &[(Lsn, Place)]| told.lock().extend(places.iter().map(|(lsn, place)| (lsn.0, *place)));
    // Two frames with both kinds of payload, so many ops that a head takes more than a page, and one without.
    let rf_of = |lsn: u64| if lsn.is_multiple_of(3) { 2 } else { 1 };
    for lsn in 1..=50 {
        append_at(&log, lsn, rf_of(lsn));
        if [1, 45].contains(&lsn) {
            log.flush(&moved).unwrap();
        }
    }
    log.flush(&moved).unwrap();
    assert_eq!(found(&drives), (1..=50).collect::<Vec<_>>());
    let mut described = BTreeMap::new();
    let record = log.pool.group(GROUP).unwrap();
    for segment in record.segments.iter().filter(|segment| segment.rf == 1) {
        let mut image = vec![0; log.pool.slot_bytes()];
        log.pool.read_copy(segment.copies[0], 0, &mut image).unwrap();
        for birth in segment_births(segment.egroup, segment.incarnation, &image) {
            let page = &image[birth.page as usize * BLOCK_BYTES..][..BLOCK_BYTES];
            let lsn = birth.birth.stamp.lsn.0;
            assert_eq!((birth.checksum, page), (holdfast_format::checksum::checksum(page), &[lsn as u8; BLOCK_BYTES][..]));
            assert_eq!((birth.birth.ino, birth.birth.block), (Ino(2), lsn as u32));
            described.insert(lsn, Place::Egroup(segment.egroup, birth.page));
        }
        // To a recovery it is no frame.
        let frames = image.chunks_exact(BLOCK_BYTES).filter(|page| FrameHeader::decode(page).is_ok());
        assert_eq!(frames.count(), 0);
    }
    let beside = told.lock().iter().filter(|(lsn, _)| rf_of(**lsn) == 1).map(|(lsn, place)| (*lsn, *place)).collect();
    assert_eq!(described, beside);
    assert_eq!(described.len(), 34);
}
