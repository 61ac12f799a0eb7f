//! One valid record of every kind, with the way to read it and write it again.

use holdfast_format::block::{BlockBuilder, BlockCursor, Entry, find};
use holdfast_format::cell::{Cell, Packed};
use holdfast_format::checksum::{checksum, checksum_bound};
use holdfast_format::chunk::{CHUNK_HEADER_BYTES, ChunkEntry, ChunkHeader, each_entry};
use holdfast_format::DomainLevel;
use holdfast_format::egroup::*;
use holdfast_format::frame::{FRAME_HEADER_BYTES, FrameHeader, FramePlace};
use holdfast_format::header::*;
use holdfast_format::index::{self, Index, IndexBuilder};
use holdfast_format::inode::*;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::manifest::*;
use holdfast_format::op::*;
use holdfast_format::point::{PointKind, PointRecord};
use holdfast_format::proof::{Entries, Hashes, PartHash, Question, Shown};
use holdfast_format::replica::{FollowerRecord, Origin, ReplicaRecord, Role, Staging};
use holdfast_format::retention::{HistoryLimit, RetentionRecord, ThinStep};
use holdfast_format::ring::{RingHeader, RingRecordHeader};
use holdfast_format::promotion::{Promotion, promotion_key};
use holdfast_format::scrub::{ScrubCursor, ScrubPhase, scrub_key};
use holdfast_format::superblock::{Holder, Mark, Superblock};
use holdfast_format::table::{SlotAddress, TableDesc, TreeKind};
use holdfast_format::wire::Take;
use holdfast_format::*;
use std::cell::RefCell;
use std::ops::Range;

thread_local! {
    static REFUSAL: RefCell<Option<DecodeError>> = const { RefCell::new(None) };
}

/// Why the newest decoding of this thread failed; `None`: it did not, or the reason has no name.
pub fn take_refusal() -> Option<DecodeError> {
    REFUSAL.take()
}

/// A decoder's result without its reason, which [`take_refusal`] gives.
trait Told<T> {
    fn told(self) -> Option<T>;
}

impl<T> Told<T> for Result<T, DecodeError> {
    fn told(self) -> Option<T> {
        self.inspect_err(|error| {
            REFUSAL.replace(Some(*error));
        })
        .ok()
    }
}

/// What protects a record from damage.
pub enum Guard {
    /// Checksums of its own over these bytes, themselves included; `seal` computes them anew.
    Own { covered: [Range<usize>; 2], seal: fn(&mut [u8]) },
    /// The checksum of whatever names it.
    Parent,
}

pub struct Sample {
    /// Name of the example in FORMAT.md.
    pub name: &'static str,
    pub bytes: Vec<u8>,
    /// Decodes, uses what was decoded, and encodes it again.
    pub again: fn(&[u8]) -> Option<Vec<u8>>,
    pub guard: Guard,
}

fn sample(name: &'static str, bytes: Vec<u8>, again: fn(&[u8]) -> Option<Vec<u8>>) -> Sample {
    Sample { name, bytes, again, guard: Guard::Parent }
}

fn sealed(
    name: &'static str,
    bytes: Vec<u8>,
    again: fn(&[u8]) -> Option<Vec<u8>>,
    covered: usize,
    seal: fn(&mut [u8]),
) -> Sample {
    Sample { name, bytes, again, guard: Guard::Own { covered: [0..covered, 0..0], seal } }
}

/// Writes `sum` at `at`, if it lies inside.
fn put_sum(bytes: &mut [u8], at: usize, sum: u64) {
    if let Some(place) = bytes.get_mut(at..at + 8) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..).and_then(|rest| Take::new(rest).u32().ok()).unwrap_or(0) as usize
}

pub fn all() -> Vec<Sample> {
    let mut samples = keys();
    samples.extend(values());
    samples.extend(cells());
    samples.extend(log());
    samples.extend(pool());
    samples.extend(items());
    samples.extend(tables());
    samples.push(chunk());
    samples.extend(headers());
    samples.extend(proofs());
    samples
}

fn again_key(bytes: &[u8]) -> Option<Vec<u8>> {
    for tree in [TreeKind::Now, TreeKind::Pool] {
        let member = index::filter_hash(tree, bytes);
        let alone = index::filter_hash_of_range(tree, bytes, bytes);
        assert!(alone.is_none_or(|alone| alone == member));
    }
    let parts = key::parts(bytes)?;
    if let Some((start, level)) = key::data_place(bytes) {
        return Some(key::data(parts.branch, parts.ino, start, level));
    }
    if let Some((cookie, name)) = key::dirent_place(bytes) {
        return Some(key::dirent(parts.branch, parts.ino, cookie, name));
    }
    let mut out = key::kind_range(parts.branch, parts.ino, parts.kind.checked_sub(1)?).1;
    out.extend_from_slice(parts.rest);
    Some(out)
}

fn keys() -> Vec<Sample> {
    let (branch, ino) = (BranchId(1), Ino(0x0102));
    let cookie = key::cookie_base(b"notes");
    vec![
        sample("key-volume", key::volume(branch), again_key),
        sample("key-inode", key::inode(branch, ino), again_key),
        sample("key-xattr", key::xattr(branch, ino, b"user.a"), again_key),
        sample("key-dirent", key::dirent(branch, ROOT_INO, cookie, b"notes"), again_key),
        sample("key-data", key::data(branch, ino, 0x30, 1), again_key),
        sample("key-link", key::link(branch, ino, Ino(9), cookie), again_key),
        sample("key-orphan", key::orphan(branch, ino), again_key),
        sample("key-point", key::point(Lsn(77)), again_key),
        sample("key-retention", key::retention(), again_key),
        sample("key-replica", key::replica(), again_key),
        sample("key-follower", key::follower(b"b"), again_key),
    ]
}

const TIME: Time = Time { sec: 1_790_000_000, nsec: 5 };

fn inode() -> InodeRecord {
    InodeRecord {
        mode: 0o100644,
        uid: 1000,
        gid: 1000,
        nlink: 1,
        size: 6000,
        blocks: 2,
        dense_until: 2,
        levels: 1,
        atime: TIME,
        mtime: TIME,
        ctime: TIME,
        btime: Time { sec: -1, nsec: 0 },
        parent: ROOT_INO,
        parent_cookie: 1 << 15,
        ..InodeRecord::default()
    }
}

fn values() -> Vec<Sample> {
    let symlink = InodeRecord { mode: 0o120777, target: b"/etc/hosts".to_vec(), ..inode() };
    let writer = Some(Writer { uid: 1001, pid: 77, command: Command::new(b"vim") });
    let written = InodeRecord { writer, ..inode() };
    let dirent = DirentRecord { ino: Ino(0x0102), kind: 8 };
    let volume = VolumeRecord {
        next_ino: 1024,
        rf: 2,
        ack: 0,
        policy: WritePolicy { min_copies: 1, fail_below: true, domain: DomainLevel::Rack },
        past: holdfast_format::inode::PastAccess::Owner,
        quota_bytes: 1 << 30,
        created: TIME,
        name: "demo".into(),
    };
    let point = PointRecord {
        kind: PointKind::Named,
        held: true,
        wall: TIME,
        boottime_ns: 9,
        boot_id: [0xb0; 16],
        name: "before-upgrade".into(),
        origin: None,
    };
    let received = PointRecord { origin: Some(Origin { lineage: 7, lsn: Lsn(8) }), ..point.clone() };
    let staging = Staging { base: Lsn(9), target: Lsn(12), sequence: 3, cursor: vec![0xab, 0xcd] };
    let replica = ReplicaRecord {
        role: Role::Replica,
        source: Uuid([7; 16]),
        lineage: 8,
        lsn: Lsn(9),
        staging: Some(staging),
        branch: None,
    };
    let promoted = ReplicaRecord {
        role: Role::Promoted,
        staging: None,
        branch: Some(Origin { lineage: 7, lsn: Lsn(5) }),
        ..replica.clone()
    };
    let given = ReplicaRecord {
        role: Role::Relinquished,
        branch: Some(Origin { lineage: 8, lsn: Lsn(9) }),
        ..promoted.clone()
    };
    let fork = ReplicaRecord { role: Role::Fork, ..promoted.clone() };
    let follower = FollowerRecord { lsn: Lsn(0x0102) };
    let retention = RetentionRecord {
        window_s: Some(3600),
        thin: Some(vec![ThinStep { every_s: 60, for_s: 86_400 }]),
        limit: Some(HistoryLimit::Percent(10)),
    };
    let again_inode = |bytes: &[u8]| Some(InodeRecord::decode(bytes).told()?.encode());
    vec![
        sample("inode", inode().encode(), again_inode),
        sample("inode-symlink", symlink.encode(), again_inode),
        sample("inode-written", written.encode(), again_inode),
        sample("dirent", dirent.encode(), |bytes| Some(DirentRecord::decode(bytes).told()?.encode())),
        sample("volume", volume.encode(), |bytes| Some(VolumeRecord::decode(bytes).told()?.encode())),
        sample("point", point.encode(), |bytes| Some(PointRecord::decode(bytes).told()?.encode())),
        sample("point-received", received.encode(), |bytes| Some(PointRecord::decode(bytes).told()?.encode())),
        sample("replica", replica.encode(), |bytes| Some(ReplicaRecord::decode(bytes).told()?.encode())),
        sample("replica-promoted", promoted.encode(), |bytes| Some(ReplicaRecord::decode(bytes).told()?.encode())),
        sample("replica-given", given.encode(), |bytes| Some(ReplicaRecord::decode(bytes).told()?.encode())),
        sample("replica-fork", fork.encode(), |bytes| Some(ReplicaRecord::decode(bytes).told()?.encode())),
        sample("follower", follower.encode(), |bytes| Some(FollowerRecord::decode(bytes).told()?.encode())),
        sample("retention", retention.encode(), |bytes| Some(RetentionRecord::decode(bytes).told()?.encode())),
    ]
}

fn again_cell<const LEVEL: u8>(bytes: &[u8]) -> Option<Vec<u8>> {
    (0..=u8::MAX).step_by(3).for_each(|level| {
        let _ = Cell::decode(level, bytes);
    });
    Some(Cell::decode(LEVEL, bytes).told()?.encode())
}

fn cells() -> Vec<Sample> {
    let egroup = EgroupId(9);
    let pages = Cell::Pages { egroup, first_page: 3, checksums: vec![0x1122], released: Vec::new() };
    let wide = Cell::Pages {
        egroup,
        first_page: 3,
        checksums: vec![0x1111_1111_1111_1111; 16],
        released: vec![4, 0],
    };
    let packed = Cell::Packed { egroup, page: 3, byte_offset: 100, length: 12, checksum: 0x1122 };
    let logged = Cell::Logged { lsn: Lsn(41), first_page: 1, checksums: vec![0x1122] };
    let partial = Cell::Partial { start: 4090, bytes: b"abc".to_vec() };
    let base = Packed { egroup, page: 3, byte_offset: 0, length: 4096, checksum: 0x1122 };
    let over = Cell::Over { base, pieces: vec![(16, b"abc".to_vec()), (20, b"d".to_vec())] };
    vec![
        sample("cell-hole", Cell::Hole.encode(), again_cell::<8>),
        sample("cell-pages", pages.encode(), again_cell::<0>),
        sample("cell-pages-64k", wide.encode(), again_cell::<1>),
        sample("cell-packed", packed.encode(), again_cell::<0>),
        sample("cell-logged", logged.encode(), again_cell::<0>),
        sample("cell-partial", partial.encode(), again_cell::<0>),
        sample("cell-over", over.encode(), again_cell::<0>),
    ]
}

fn effects() -> Effects {
    let mut effects = Effects::new();
    effects.put(b"key", b"value");
    effects.delete(b"gone");
    effects.pages(Ino(0x0102), 0x30, 0, &[checksum(&[7; BLOCK_BYTES])]);
    effects
}

fn op() -> Vec<u8> {
    let header = OpHeader {
        lsn: Lsn(41),
        row: Row(2),
        branch: BranchId(1),
        kind: OpKind::Write,
        payload_rf: 2,
        payload_pages: 1,
        actor: Actor { uid: 1000, gid: 1000, pid: 4242 },
        time: TIME,
        ino: Ino(0x0102),
        offset: 0x30_000,
        length: 4096,
    };
    let mut out = Vec::new();
    encode_op(&mut out, &header, effects().as_bytes());
    out
}

fn again_effects(branch: BranchId, lsn: Lsn, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut again = Effects::new();
    each_effect(bytes, |effect| match effect {
        Effect::Put { key, value } => again.put(key, value),
        Effect::Delete { key } => again.delete(key),
        Effect::Pages { ino, start_block, first_page, checksums, .. } => {
            let sums: Vec<u64> =
                checksums.chunks_exact(8).map(|sum| Take::new(sum).u64().expect("eight bytes")).collect();
            again.pages(ino, start_block, first_page, &sums);
            pages_cells(branch, lsn, effect, |key, value| {
                let (_, level) = key::data_place(&key).expect("a DATA key");
                Cell::decode(level, &value).expect("a cell that was just encoded");
            });
        }
    })
    .told()?;
    Some(again.as_bytes().to_vec())
}

fn again_op(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut take = Take::new(bytes);
    let op = Op::take(&mut take).told()?;
    take.end().told()?;
    let effects = again_effects(op.header.branch, op.header.lsn, op.effects)?;
    let mut out = Vec::new();
    encode_op(&mut out, &op.header, &effects);
    Some(out)
}

fn seal_op(bytes: &mut [u8]) {
    if bytes.len() >= OP_HEADER_BYTES {
        let sum = checksum(&[&bytes[..OP_HEADER_BYTES - 8], &bytes[OP_HEADER_BYTES..]].concat());
        put_sum(bytes, OP_HEADER_BYTES - 8, sum);
    }
}

fn frame() -> Vec<u8> {
    frame_or_head(false)
}

fn payload_head() -> Vec<u8> {
    frame_or_head(true)
}

fn frame_or_head(payload_only: bool) -> Vec<u8> {
    let op = op();
    let mut header = FrameHeader {
        payload_only,
        op_count: 1,
        group: GroupId(7),
        row: Row(2),
        incarnation: 9,
        membership: 3,
        first_lsn: Lsn(41),
        durable_lsn: Lsn(40),
        ops_bytes: op.len() as u32,
        header_rf: 2,
        wall_sec: TIME.sec,
        places: [
            FramePlace::default(),
            FramePlace { egroup: EgroupId(12), first_page: 1, pages: 1 },
            FramePlace::default(),
        ],
        ops_checksum: 0,
        previous_chain: if payload_only { 0 } else { 0x1122_3344_5566_7788 },
        chain: 0,
    };
    let mut out = Vec::new();
    header.seal(&op, &mut out);
    out
}

fn again_frame(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut header = FrameHeader::decode_any(bytes).told()?;
    let ops = header.ops(bytes).told()?.to_vec();
    assert!(header.pages() * BLOCK_BYTES >= header.head_bytes());
    assert!(header.end_lsn() >= header.first_lsn);
    let mut out = Vec::new();
    header.seal(&ops, &mut out);
    Some(out)
}

fn seal_frame(bytes: &mut [u8]) {
    if bytes.len() < FRAME_HEADER_BYTES {
        return;
    }
    let end = FRAME_HEADER_BYTES + u32_at(bytes, 48);
    if let Some(ops) = bytes.get(FRAME_HEADER_BYTES..end) {
        let sum = checksum(ops);
        put_sum(bytes, 136, sum);
    }
    let previous = Take::new(&bytes[144..]).u64().expect("inside the header");
    let chain = checksum_bound(previous, &bytes[..152]);
    put_sum(bytes, 152, chain);
}

/// A name that has gone, some bytes of a file, and a hole in it.
fn chunk() -> Sample {
    let (branch, ino) = (BranchId(1), Ino(0x0102));
    let name = key::dirent(branch, ROOT_INO, 0x8000, b"a");
    let mut raw = Vec::new();
    ChunkEntry::Put { key: &key::xattr(branch, ino, b"user.a"), value: b"b" }.encode(&mut raw);
    ChunkEntry::Delete { key: &name }.encode(&mut raw);
    ChunkEntry::Hole { ino, start: 0x30, count: 16 }.encode(&mut raw);
    let header = ChunkHeader {
        branch,
        lineage: 7,
        base: Lsn(9),
        target: Lsn(12),
        sequence: 3,
        is_last: true,
        is_compressed: false,
        mends: false,
        raw_bytes: raw.len() as u32,
    };
    let bytes = header.encode(&raw);
    let covered = bytes.len();
    sealed("chunk", bytes, again_chunk, covered, seal_chunk)
}

fn again_chunk(bytes: &[u8]) -> Option<Vec<u8>> {
    let (header, body) = ChunkHeader::decode(bytes).told()?;
    if header.is_compressed {
        return Some(header.encode(body));
    }
    let mut raw = Vec::new();
    each_entry(header.branch, body, |entry| entry.encode(&mut raw)).told()?;
    Some(header.encode(&raw))
}

fn seal_chunk(bytes: &mut [u8]) {
    if bytes.len() < CHUNK_HEADER_BYTES {
        return;
    }
    let covered = [&bytes[..CHUNK_HEADER_BYTES - 8], &bytes[CHUNK_HEADER_BYTES..]].concat();
    let sum = checksum(&covered);
    put_sum(bytes, CHUNK_HEADER_BYTES - 8, sum);
}

/// A file is made, written and fsynced; and what was done to two files, told in short.
fn headers() -> Vec<Sample> {
    let branch = BranchId(1);
    let frame = HeaderFrame {
        lineage: 7,
        first: Lsn(9),
        last: Lsn(12),
        newest: Lsn(12),
        made: Time { sec: 0x0102, nsec: 0x03 },
        previous: 5,
        chain: 0,
    };
    let line = |kind, ino, bytes, nsec| HeaderLine { kind, branch, ino: Ino(ino), bytes, time: Time { sec: 0x0100, nsec } };
    let lines = [
        line(OpKind::Create, 0x0102, 0, 5),
        line(OpKind::Write, 0x0102, 4096, 1000),
        line(OpKind::Write, 0x0102, 100, 2000),
        line(OpKind::Fsync, 0x0102, 0, 2001),
    ];
    let synced = HeaderTally { ops: 3, bytes: 4196, has_fsync: true, tail_ops: 0, tail_bytes: 0 };
    let written = HeaderTally { ops: 1, bytes: 16, has_fsync: false, tail_ops: 1, tail_bytes: 16 };
    let files = vec![
        HeaderFile { branch, ino: Ino(0x0102), tally: synced },
        HeaderFile { branch, ino: Ino(0x0103), tally: written },
    ];
    let summary = HeaderSummary { others: 2, others_tally: written, files, is_bound: true };
    let (lines, summary) = (frame.encode_lines(&lines), frame.encode_summary(&summary));
    let covered = [lines.len(), summary.len()];
    vec![
        sealed("header-lines", lines, again_headers, covered[0], seal_headers),
        sealed("header-summary", summary, again_headers, covered[1], seal_headers),
    ]
}

fn again_headers(bytes: &[u8]) -> Option<Vec<u8>> {
    let (frame, body) = HeaderFrame::decode(bytes).told()?;
    match body {
        HeaderBody::Summary(summary) => Some(frame.encode_summary(&summary)),
        HeaderBody::Lines(lines) => {
            let lines = lines.collect::<Result<Vec<_>, _>>().told()?;
            Some(frame.encode_lines(&lines))
        }
    }
}

fn seal_headers(bytes: &mut [u8]) {
    if bytes.len() < HEADER_FRAME_HEADER_BYTES {
        return;
    }
    let at = HEADER_FRAME_HEADER_BYTES - 8;
    let previous = Take::new(&bytes[at - 8..]).u64().expect("inside the header");
    let covered = [&bytes[..at], &bytes[at + 8..]].concat();
    let chain = checksum_bound(previous, &covered);
    put_sum(bytes, at, chain);
}

fn log() -> Vec<Sample> {
    let ring = RingHeader {
        boot_id: [0xb0; 16],
        pool: Uuid([1; 16]),
        group: GroupId(7),
        op_area_bytes: 8 << 20,
        page_area_bytes: 56 << 20,
    };
    let record = RingRecordHeader { op_bytes: op().len() as u32, page_position: 0x0030_0000 };
    let (op, frame) = (op(), frame());
    let (op_bytes, frame_covered) = (op.len(), FRAME_HEADER_BYTES + op.len());
    vec![
        sample("effects", effects().as_bytes().to_vec(), |bytes| again_effects(BranchId(1), Lsn(41), bytes)),
        sealed("op", op, again_op, op_bytes, seal_op),
        sealed("frame", frame, again_frame, frame_covered, seal_frame),
        sealed("payload-head", payload_head(), again_frame, frame_covered, seal_frame),
        sealed(
            "ring-header",
            ring.encode(),
            |bytes| Some(RingHeader::decode(bytes).told()?.encode()),
            72,
            |bytes| {
                if let Some(head) = bytes.get(..64) {
                    let sum = checksum(head);
                    put_sum(bytes, 64, sum);
                }
            },
        ),
        sample("ring-record", record.encode().to_vec(), |bytes| {
            Some(RingRecordHeader::decode(bytes).told()?.encode().to_vec())
        }),
    ]
}

fn copies() -> Vec<SlotAddress> {
    vec![SlotAddress { drive: 0, slot: 5 }, SlotAddress { drive: 2, slot: 7 }]
}

fn superblock() -> Superblock {
    let mark = Mark { membership: 3, generation: 2, sequence: 40, log_tip: 900 };
    Superblock {
        compat: 0,
        ro_compat: 0,
        incompat: 0,
        writes: 12,
        pool: Uuid([1; 16]),
        drive: Uuid([2; 16]),
        index: 1,
        drives: 3,
        slot_bytes: 256 << 10,
        bytes: 64 << 20,
        area_bytes: 1 << 20,
        slab_bytes: 16 << 20,
        own: mark,
        instance: 0xa5a5,
        beat: 6,
        written_s: TIME.sec,
        open: true,
        manifest_drives: vec![0, 1, 2],
        name: "tank".into(),
        domain: "r1/b1/n1/d1".into(),
        marks: vec![(2, mark), (0, mark)],
        holder: Holder { boot_id: [3; 16], device: 0x803, inode: 12 },
    }
}

fn seal_tail(bytes: &mut [u8]) {
    if let Some(at) = bytes.len().checked_sub(8) {
        let sum = checksum(&bytes[..at]);
        put_sum(bytes, at, sum);
    }
}

fn again_record(bytes: &[u8]) -> Option<Vec<u8>> {
    let head = RecordHead::decode(bytes).told()?;
    let body = bytes.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + head.body_bytes as usize)?;
    head.verify(body).told()?;
    let mut take = Take::new(body);
    while Item::take(&mut take).told()?.is_some() {}
    Some(head.encode(body).0)
}

fn seal_record(bytes: &mut [u8]) {
    if bytes.len() >= RECORD_HEADER_BYTES {
        let end = (RECORD_HEADER_BYTES + u32_at(bytes, 56)).min(bytes.len());
        let sum = checksum_bound(checksum_bound(0, &bytes[..64]), &bytes[RECORD_HEADER_BYTES..end]);
        put_sum(bytes, 64, sum);
    }
}

fn again_egroup(bytes: &[u8]) -> Option<Vec<u8>> {
    let record = EgroupRecord::decode(bytes).told()?;
    (0..=u16::MAX).step_by(7).for_each(|page| {
        record.moved_to(page);
    });
    Some(record.encode())
}

fn seal_footer(bytes: &mut [u8]) {
    let Some(trailer) = bytes.len().checked_sub(TRAILER_BYTES) else { return };
    let pages = u32_at(bytes, trailer + 40);
    let start = pages.checked_mul(BIRTH_BYTES).and_then(|_| bytes.len().checked_sub(footer_bytes(pages)));
    if let Some(births) = start.and_then(|start| bytes.get(start..start + pages * BIRTH_BYTES)) {
        let sum = checksum(births);
        put_sum(bytes, trailer + 48, sum);
    }
    let sum = checksum(&bytes[trailer..trailer + 56]);
    put_sum(bytes, trailer + 56, sum);
}

fn pool() -> Vec<Sample> {
    let data = EgroupRecord {
        state: EgroupState::Data,
        rf: 2,
        domain: DomainLevel::Block,
        shared: true,
        past: false,
        incarnation: 3,
        pages: 63,
        live: [0, 9].into_iter().collect(),
        copies: copies(),
        sources: vec![EgroupId(7)],
        parts: Vec::new(),
    };
    let part = MovedPart { target: EgroupId(9), base: 4, moved: [1, 5].into_iter().collect() };
    let moved = EgroupRecord {
        state: EgroupState::Moved,
        live: [1, 5].into_iter().collect(),
        copies: Vec::new(),
        sources: Vec::new(),
        parts: vec![part],
        ..data.clone()
    };
    let stamp = Stamp { lsn: Lsn(41), row: Row(2) };
    let birth = Birth { group: GroupId(7), branch: BranchId(1), ino: Ino(0x0102), block: 0x30, stamp };
    let footer = Footer {
        pool: Uuid([1; 16]),
        egroup: EgroupId(9),
        incarnation: 3,
        births: vec![(birth, checksum(&[7; BLOCK_BYTES]))],
    };
    let scrub = ScrubCursor {
        phase: ScrubPhase::Tables,
        group: GroupId(7),
        id: 13,
        key: b"abd".to_vec(),
        pass: 3,
        started_s: 1_790_000_000,
        bad_copies: 1,
        repaired: 1,
        lost: 0,
    };
    let promotion = Promotion { next: b"abd".to_vec() };
    let head = RecordHead {
        kind: RecordKind::Edit,
        pool: Uuid([1; 16]),
        generation: 2,
        sequence: 41,
        membership: 3,
        previous: 0x1122,
        body_bytes: 0,
        checksum: 0,
    };
    let mut body = Vec::new();
    Item::Counters { next_egroup: 14, next_group: 8 }.encode(&mut body);
    Item::RecordsFlushed { sequence: 40 }.encode(&mut body);
    let edit = head.encode(&body).0;
    let edit_covered = RECORD_HEADER_BYTES + body.len();
    vec![
        sealed("superblock", superblock().encode(), again_superblock, BLOCK_BYTES, seal_tail),
        sealed("manifest-edit", edit, again_record, edit_covered, seal_record),
        sample("egroup-key", egroup_key(EgroupId(9)), |bytes| Some(egroup_key(egroup_of_key(bytes)?))),
        sample("egroup-data", data.encode(), again_egroup),
        sample("egroup-moved", moved.encode(), again_egroup),
        sample("share-key", share_key(EgroupId(9), 5), |bytes| (bytes.len() == 9).then(|| bytes.to_vec())),
        sample("share", share_encode(2), |bytes| Some(share_encode(share_decode(bytes).told()?))),
        footer_sample(&footer),
        sample("scrub-key", scrub_key(), |bytes| (bytes == scrub_key()).then(scrub_key)),
        sample("scrub-cursor", scrub.encode(), |bytes| Some(ScrubCursor::decode(bytes).told()?.encode())),
        sample("promotion-key", promotion_key(GroupId(7)), |bytes| (bytes.len() == 5).then(|| bytes.to_vec())),
        sample("promotion", promotion.encode(), |bytes| Some(Promotion::decode(bytes).told()?.encode())),
    ]
}

/// Births lie at its front, the trailer at its end; nobody reads what is between.
fn footer_sample(footer: &Footer) -> Sample {
    let bytes = footer.encode();
    let covered = [0..footer.births.len() * BIRTH_BYTES, bytes.len() - TRAILER_BYTES..bytes.len()];
    Sample {
        name: "egroup-footer",
        bytes,
        again: again_footer,
        guard: Guard::Own { covered, seal: seal_footer },
    }
}

fn again_superblock(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(Superblock::decode(bytes).told()?.encode())
}

fn again_footer(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(Footer::decode(bytes).told()?.encode())
}

fn again_item(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut take = Take::new(bytes);
    let item = Item::take(&mut take).told()??;
    take.end().told()?;
    let mut out = Vec::new();
    item.encode(&mut out);
    Some(out)
}

fn items() -> Vec<Sample> {
    let (id, uuid) = (GroupId(7), Uuid([3; 16]));
    let drive = DriveEntry {
        index: 1,
        uuid: Uuid([2; 16]),
        domain: "a/b".into(),
        bytes: 64 << 20,
        out: false,
        draining: false,
        absent_since: 0,
    };
    let row = EpochRow { major: 1, minor: 2, random: 0xa5a5, first_lsn: Lsn(41), chain: 0x1122 };
    let segment = Segment { egroup: EgroupId(12), incarnation: 9, rf: 2, copies: copies() };
    let group = Item::Group {
        id,
        uuid,
        name: "g".into(),
        drained_lsn: Lsn(40),
        drained_chain: 0x1122,
        destroyed: false,
        replicated: false,
    };
    let record = Item::Record { sequence: 41, key: egroup_key(EgroupId(9)), value: Some(vec![1]) };
    let deleted = Item::Record { sequence: 41, key: egroup_key(EgroupId(9)), value: None };
    [
        ("item-name", Item::Name("tank".into())),
        ("item-counters", Item::Counters { next_egroup: 14, next_group: 8 }),
        ("item-drive", Item::Drive(drive)),
        ("item-manifest-drives", Item::ManifestDrives(vec![0, 1, 2])),
        ("item-group", group),
        ("item-row", Item::Row { group: id, index: 2, row }),
        ("item-group-gone", Item::GroupGone(id)),
        ("item-segment", Item::Segment { group: id, segment }),
        ("item-segment-gone", Item::SegmentGone { group: id, egroup: EgroupId(12) }),
        ("item-table", Item::Table(table_desc())),
        ("item-table-gone", Item::TableGone { owner: id, id: TableId(13) }),
        ("item-record", record),
        ("item-record-deleted", deleted),
        ("item-records-flushed", Item::RecordsFlushed { sequence: 40 }),
        ("item-group-base", Item::GroupBase { group: id, base: Some((GroupId(3), Lsn(77))) }),
    ]
    .into_iter()
    .map(|(name, item)| {
        let mut bytes = Vec::new();
        item.encode(&mut bytes);
        sample(name, bytes, again_item)
    })
    .collect()
}

fn table_desc() -> TableDesc {
    TableDesc {
        id: TableId(13),
        owner: GroupId(7),
        tree: TreeKind::Now,
        level: 0,
        bytes: 0x0100,
        index_offset: 0x77,
        index_bytes: 0x61,
        index_checksum: 0x1122,
        records: 3,
        tombstones: 1,
        stamp_min: Lsn(99),
        stamp_max: Lsn(100),
        death_min: Lsn(0),
        death_max: Lsn(0),
        payload_bytes: 12288,
        first: b"abc".to_vec(),
        last: b"b".to_vec(),
        cover_until: b"b\0".to_vec(),
        copies: copies(),
    }
}

/// A block of three entries; in THEN each has a death.
fn block(deaths: bool) -> Vec<u8> {
    let stamp = |lsn, row| Stamp { lsn: Lsn(lsn), row: Row(row) };
    let mut builder = BlockBuilder::new(deaths);
    for (key, stamp, value) in [
        (&b"abc"[..], stamp(100, 2), Some(&b"xy"[..])),
        (b"abd", stamp(99, 2), None),
        (b"b", stamp(100, 3), Some(b"")),
    ] {
        builder.push(Entry { key, stamp, death: Lsn(120), value });
    }
    let mut out = Vec::new();
    builder.finish(&mut out);
    out
}

fn again_block<const DEATHS: bool>(bytes: &[u8]) -> Option<Vec<u8>> {
    for key in [&b""[..], b"abc", b"abd", b"b", b"\xff\xff"] {
        let _ = find(bytes, key);
    }
    let mut cursor = BlockCursor::default();
    cursor.reset(bytes).told()?;
    let mut builder = BlockBuilder::new(DEATHS);
    while cursor.advance(bytes).told()? {
        let (key, stamp, death) = (cursor.key().to_vec(), cursor.stamp(), cursor.death());
        builder.push(Entry { key: &key, stamp, death, value: cursor.value(bytes) });
    }
    // A block without entries reads as such, but nobody writes one.
    let mut out = Vec::new();
    (!builder.is_empty()).then(|| builder.finish(&mut out))?;
    Some(out)
}

fn again_index(bytes: &[u8]) -> Option<Vec<u8>> {
    let index = Index::decode(bytes.to_vec()).told()?;
    for block in 0..index.blocks() {
        let place = index.place(block);
        assert!(place.offset.checked_add(place.length).is_some());
        assert!(index.seek(index.last_key(block)) <= index.blocks());
    }
    (0..64).for_each(|bit| {
        index.may_hold(1 << bit);
    });
    // The filter's members cannot be had back: what was read is what is kept.
    Some(bytes.to_vec())
}

fn tables() -> Vec<Sample> {
    let mut builder = IndexBuilder::default();
    builder.member(index::filter_hash(TreeKind::Now, b"abc"));
    builder.block(b"b", 48, &block(false), (Lsn(99), Lsn(100)));
    let index = builder.finish();
    let header = index::encode_header(GroupId(7), TreeKind::Now, 0, 0x77, &index);
    let mut desc = Vec::new();
    table_desc().encode(&mut desc);
    vec![
        sealed(
            "table-header",
            header,
            |bytes| index::decode_header(bytes).told().map(|_| bytes.to_vec()),
            48,
            |bytes| {
                if let Some(body) = bytes.get(..40) {
                    let sum = checksum(body);
                    put_sum(bytes, 40, sum);
                }
            },
        ),
        sample("table-block", block(false), again_block::<false>),
        sample("table-block-then", block(true), again_block::<true>),
        sample("table-index", index, again_index),
        sample("table-desc", desc, |bytes| {
            let mut take = Take::new(bytes);
            let desc = TableDesc::take(&mut take).told()?;
            take.end().told()?;
            let mut out = Vec::new();
            desc.encode(&mut out);
            Some(out)
        }),
    ]
}

/// Of a file's attributes and its first nine blocks: what is asked, and both kinds of answers.
fn proofs() -> Vec<Sample> {
    let (branch, ino) = (BranchId(1), Ino(0x0102));
    let block = key::data(branch, ino, 9, 0);
    let question = Question::Hashes(vec![key::inode(branch, ino), block.clone()]);
    let part = PartHash { hash: [0xab; 16], entries: 12, unreadable: 1 };
    let hashes = Hashes { reached: block.clone(), parts: vec![part] };
    let entries = vec![
        (key::link(branch, ino, ROOT_INO, 0x8000), Shown::Record(Vec::new())),
        (key::orphan(BranchId(2), ino), Shown::Digest([0xcd; 16])),
        (key::data(BranchId(2), ino, 3, 0), Shown::Unreadable),
    ];
    let entries = Entries { reached: key::volume(BranchId(3)), has_inode: true, entries };
    vec![
        sample("proof-question", question.encode(), |bytes| Some(Question::decode(bytes).told()?.encode())),
        sample("proof-hashes", hashes.encode(), |bytes| Some(Hashes::decode(bytes).told()?.encode())),
        sample("proof-entries", entries.encode(), |bytes| Some(Entries::decode(bytes).told()?.encode())),
    ]
}
