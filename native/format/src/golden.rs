//! Golden vectors of what a pool keeps on its drives: a change of a layout shows here first.

use crate::checksum::checksum;
use crate::egroup::*;
use crate::manifest::*;
use crate::superblock::*;
use crate::table::{SlotAddress, TableDesc, TreeKind};
use crate::wire::Take;
use crate::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn copies() -> Vec<SlotAddress> {
    vec![SlotAddress { drive: 1, slot: 2 }, SlotAddress { drive: 3, slot: 0x0405_0607 }]
}

fn block() -> Superblock {
    let mark = |n| Mark { membership: n, generation: n + 1, sequence: n + 2, log_tip: n + 3 };
    Superblock {
        compat: 0,
        ro_compat: 0,
        incompat: 0,
        writes: 5,
        pool: Uuid([1; 16]),
        drive: Uuid([2; 16]),
        index: 3,
        drives: 4,
        slot_bytes: 262_144,
        bytes: 64 << 20,
        area_bytes: 1 << 20,
        slab_bytes: 16 << 20,
        own: mark(10),
        instance: 20,
        beat: 21,
        written_s: 22,
        open: true,
        manifest_drives: vec![0, 3],
        name: "tank".into(),
        domain: "a/b/c/d".into(),
        marks: vec![(0, mark(30)), (1, mark(40))],
        holder: Holder { boot_id: [5; 16], device: 6, inode: 7 },
    }
}

#[test]
fn superblock() {
    let bytes = block().encode();
    assert_eq!(bytes.len(), SUPERBLOCK_BYTES);
    assert_eq!(hex(&bytes[..16]), "486f6c64667374500200000000100000");
    assert_eq!(format!("{:016x}", checksum(&bytes)), "2b52b8dac0ec7373");
    assert_eq!(Superblock::decode(&bytes).unwrap(), block());
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        assert!(Superblock::decode(&bad).is_err(), "byte {at}");
    }
    let newer = Superblock { incompat: 16, ..block() }.encode();
    assert_eq!(Superblock::decode(&newer), Err(DecodeError::Unsupported(16)));
    let full = Superblock {
        name: "n".repeat(limits::GROUP_NAME_BYTES_MAX),
        domain: "d".repeat(limits::DOMAIN_BYTES_MAX),
        manifest_drives: vec![1, 2, 3],
        marks: vec![(7, Mark::default()); limits::MARKS_MAX],
        ..block()
    };
    assert_eq!(Superblock::decode(&full.encode()).unwrap(), full);
}

fn items() -> Vec<(Item, &'static str)> {
    let table = TableDesc {
        id: TableId(1),
        owner: GroupId(2),
        tree: TreeKind::Then,
        level: 3,
        bytes: 11,
        index_offset: 5,
        index_bytes: 6,
        index_checksum: 7,
        records: 8,
        tombstones: 9,
        stamp_min: Lsn(10),
        stamp_max: Lsn(11),
        death_min: Lsn(12),
        death_max: Lsn(13),
        payload_bytes: 17,
        first: vec![14],
        last: vec![15],
        cover_until: vec![16],
        copies: copies(),
    };
    let drive = DriveEntry {
        index: 1,
        uuid: Uuid([2; 16]),
        domain: "a/b".into(),
        bytes: 3,
        out: true,
        draining: false,
        absent_since: 4,
    };
    let row = EpochRow { major: 1, minor: 2, random: 3, first_lsn: Lsn(4), chain: 5 };
    let segment = Segment { egroup: EgroupId(1), incarnation: 2, rf: 2, copies: copies() };
    let (id, uuid, name) = (GroupId(1), Uuid([9; 16]), "g".to_owned());
    vec![
        (Item::Name("tank".into()), "0106000000040074616e6b"),
        (Item::Counters { next_egroup: 1, next_group: 2 }, "020c000000010000000000000002000000"),
        (
            Item::Drive(drive),
            "03280000000100020202020202020202020202020202020300612f620300000000000000010400000000000000",
        ),
        (Item::ManifestDrives(vec![0, 1, 2]), "0406000000000001000200"),
        (
            Item::Group { id, uuid, name, drained_lsn: Lsn(2), drained_chain: 3, destroyed: false, replicated: false },
            "052800000001000000090909090909090909090909090909090100670200000000000000030000000000000000",
        ),
        (
            Item::Row { group: id, index: 1, row },
            "062800000001000000010000000100000002000000030000000000000004000000000000000500000000000000",
        ),
        (Item::GroupGone(id), "070400000001000000"),
        (
            Item::Segment { group: id, segment },
            "08200000000100000001000000000002000000000000000202010002000000030007060504",
        ),
        (Item::SegmentGone { group: id, egroup: EgroupId(2) }, "090a00000001000000020000000000"),
        (
            Item::Table(table),
            concat!(
                "0a6700000001000000000002000000020302000b000000050000000600000007000000000000000800000009",
                "0000000a000000000000000b000000000000000c000000000000000d00000000000000110000000000000001",
                "000e01000f010010010002000000030007060504",
            ),
        ),
        (Item::TableGone { owner: id, id: TableId(2) }, "0b0a00000001000000020000000000"),
        (
            Item::Record { sequence: 1, key: vec![2, 3], value: Some(vec![4]) },
            "0c0d00000001000000000000000102020304",
        ),
        (Item::Record { sequence: 1, key: vec![2, 3], value: None }, "0c0c000000010000000000000000020203"),
        (Item::RecordsFlushed { sequence: 1 }, "0d080000000100000000000000"),
    ]
}

#[test]
fn manifest_items() {
    let mut body = Vec::new();
    for (item, golden) in items() {
        let start = body.len();
        item.encode(&mut body);
        let bytes = &body[start..];
        assert_eq!(hex(bytes), golden, "{item:?}");
        assert_eq!(Item::take(&mut Take::new(bytes)).unwrap(), Some(item));
        for cut in 1..bytes.len() {
            assert!(Item::take(&mut Take::new(&bytes[..cut])).is_err(), "cut at {cut}");
        }
    }
    let mut take = Take::new(&body);
    for (item, _) in items() {
        assert_eq!(Item::take(&mut take).unwrap(), Some(item));
    }
    assert_eq!(Item::take(&mut take).unwrap(), None);
}

#[test]
fn manifest_record() {
    let head = RecordHead {
        kind: RecordKind::Edit,
        pool: Uuid([1; 16]),
        generation: 2,
        sequence: 3,
        membership: 4,
        previous: 5,
        body_bytes: 0,
        checksum: 0,
    };
    let (record, sum) = head.encode(b"body");
    assert_eq!(record.len(), 4096);
    assert_eq!(
        hex(&record[..76]),
        concat!(
            "48466d6e03000000010101010101010101010101010101010200000000000000030000000000000004000000",
            "00000000050000000000000004000000000000008e7a454a74948c6f626f6479",
        )
    );
    let found = RecordHead::decode(&record).unwrap();
    assert_eq!(found, RecordHead { body_bytes: 4, checksum: sum, ..head });
    found.verify(b"body").unwrap();
    for at in 0..76 {
        let mut bad = record.clone();
        bad[at] ^= 1;
        let whole = RecordHead::decode(&bad).and_then(|head| head.verify(&bad[72..76]));
        assert!(whole.is_err(), "byte {at}");
    }
    assert_eq!((padded_bytes(4024), padded_bytes(4025)), (4096, 8192));
}

#[test]
fn egroup_record_and_keys() {
    let moved = MovedPart { target: EgroupId(9), base: 4, moved: [1, 5, 1023].into_iter().collect() };
    let record = EgroupRecord {
        state: EgroupState::Moved,
        rf: 2,
        domain: DomainLevel::Block,
        shared: true,
        past: false,
        incarnation: 3,
        pages: 1024,
        live: [0, 9].into_iter().collect(),
        copies: Vec::new(),
        sources: Vec::new(),
        parts: vec![moved],
    };
    assert_eq!(EgroupRecord::decode(&record.encode()).unwrap(), record);
    assert_eq!(record.moved_to(1023), Some((EgroupId(9), 6)));
    assert_eq!(record.moved_to(2), None);
    let data = EgroupRecord {
        state: EgroupState::Data,
        copies: copies(),
        sources: vec![EgroupId(7)],
        parts: Vec::new(),
        ..record
    };
    let bytes = data.encode();
    assert_eq!(hex(&bytes), "0202050203000000000000000004020102010002000000030007060504010007000000000000");
    assert_eq!(EgroupRecord::decode(&bytes).unwrap(), data);
    (0..bytes.len()).for_each(|cut| assert!(EgroupRecord::decode(&bytes[..cut]).is_err(), "cut at {cut}"));
    assert_eq!(hex(&egroup_key(EgroupId(0x0102_0304_0506))), "01010203040506");
    assert_eq!(egroup_of_key(&egroup_key(EgroupId(77))), Some(EgroupId(77)));
    assert_eq!(hex(&share_key(EgroupId(1), 0x0203)), "020000000000010203");
    assert_eq!(egroup_of_key(&share_key(EgroupId(1), 2)), None);
    assert_eq!(share_decode(&share_encode(5)), Ok(5));
}

#[test]
fn egroup_footer() {
    let stamp = Stamp { lsn: Lsn(6), row: Row(5) };
    let birth = Birth { group: GroupId(1), branch: BranchId(2), ino: Ino(3), block: 4, stamp };
    let footer =
        Footer { pool: Uuid([8; 16]), egroup: EgroupId(9), incarnation: 10, births: vec![(birth, 7)] };
    let bytes = footer.encode();
    assert_eq!(bytes.len(), 4096);
    assert_eq!(
        hex(&bytes[..40]),
        "01000000020000000300000000000000040000000500000006000000000000000700000000000000"
    );
    assert_eq!(
        hex(&bytes[4032..]),
        concat!(
            "48466567726f75700808080808080808080808080808080809000000000000000a0000000000000001000000",
            "0000000001e82875689c71f294c0f27172063029",
        )
    );
    assert_eq!(Footer::decode(&bytes).unwrap(), footer);
    for at in (0..40).chain(4032..4096) {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert!(Footer::decode(&bad).is_err(), "byte {at}");
    }
    assert_eq!((data_pages_max(256 << 10), data_pages_max(4 << 20)), (63, 1014));
}

#[test]
fn page_sets() {
    let mut set: PageSet = [3, 8, 1023].into_iter().collect();
    assert_eq!((set.len(), set.rank(0), set.rank(8), set.rank(9), set.rank(1023)), (3, 0, 1, 2, 2));
    assert_eq!(set.iter().collect::<Vec<_>>(), [3, 8, 1023]);
    set.remove(1023);
    assert_eq!(set, [8, 3].into_iter().collect());
    assert!(set.is_within(&[3, 4, 8].into_iter().collect()) && !set.is_within(&[3].into_iter().collect()));
}
