//! Every limit of the Rust side, in one place, with the relations between them asserted at compile time (I-9).

/// Unit of checksums, of addresses and of direct I/O.
pub const BLOCK_BYTES: usize = 4096;
/// Cells grow by this factor per level.
pub const CELL_FANOUT: u32 = 16;
/// Levels 0 (4 KiB), 1 (64 KiB), 2 (1 MiB) hold data or holes; 3 … 8 (16 MiB … 16 TiB) hold only holes.
pub const CELL_LEVEL_DATA_MAX: u8 = 2;
pub const CELL_LEVEL_MAX: u8 = 8;
/// Largest file: 2^32 blocks = 16 TiB; beyond that EFBIG.
pub const FILE_BYTES_MAX: u64 = (BLOCK_BYTES as u64) << 32;

pub const NAME_BYTES_MAX: usize = 255;
pub const SYMLINK_BYTES_MAX: usize = 4095;
pub const XATTR_NAME_BYTES_MAX: usize = 255;
pub const XATTR_VALUE_BYTES_MAX: usize = 65_535;
/// Name of a program that changed something (TASK_COMM_LEN without its NUL).
pub const COMMAND_BYTES_MAX: usize = 15;
/// Hard links of one file, as ext4's order of magnitude.
pub const NLINK_MAX: u32 = 1_000_000;

/// Slot = log segment = egroup = table; one size per pool.
pub const SLOT_BYTES_MIN: u32 = 256 << 10;
pub const SLOT_BYTES_MAX: u32 = 4 << 20;
pub const DRIVE_BYTES_MIN: u64 = 64 << 20;
pub const SLAB_BYTES_MAX: u64 = 1 << 30;
pub const WRITE_BYTES_MAX: u32 = 1 << 20;
pub const COPIES_MAX: usize = 3;
pub const DRIVES_PER_POOL_MAX: usize = 1024;
/// Pages of one egroup at most.
pub const EGROUP_PAGES_MAX: usize = SLOT_BYTES_MAX as usize / BLOCK_BYTES;
/// Pieces that one cleaned egroup may lie in, and cleaned egroups that one target may hold.
pub const MOVED_PARTS_MAX: usize = 8;
pub const MOVED_SOURCES_MAX: usize = EGROUP_PAGES_MAX;
/// Cleaning: records that one look goes through, egroups and bytes that one step moves together.
pub const CLEAN_SCAN_RECORDS: usize = 16_384;
pub const CLEAN_VICTIMS_MAX: usize = 24;
pub const CLEAN_BYTES_MAX: usize = 48 << 20;
/// An egroup is worth cleaning when this part of its slot is dead, with room left and without.
pub const CLEAN_DEAD_PERCENT: usize = 25;
pub const CLEAN_DEAD_PERCENT_SHORT: usize = 7;
/// Copies of the manifest at most, and the bounds of one of its two areas.
pub const MANIFEST_COPIES_MAX: usize = 3;
/// Rows of a group's epoch history that stay when it is trimmed, and how many there may be before it is: a start each.
pub const EPOCH_ROWS_KEPT: usize = 256;
pub const EPOCH_ROWS_MAX: usize = 320;
pub const MANIFEST_AREA_BYTES_MIN: u64 = 1 << 20;
pub const MANIFEST_AREA_BYTES_MAX: u64 = 64 << 20;
/// Drive marks in one superblock.
pub const MARKS_MAX: usize = 64;
/// A failure domain's name, and the name of a pool or group.
pub const DOMAIN_BYTES_MAX: usize = 255;
pub const GROUP_NAME_BYTES_MAX: usize = 255;
/// Slots of a drive that only operations that give space back may take: 2 %, and at least these. (More are kept for merges.)
pub const RESERVE_PERCENT: u64 = 2;
pub const RESERVE_SLOTS_MIN: u64 = 12;

/// A drive that was not there when the pool was opened is waited for this long before its copies are made anew.
pub const MISSING_GRACE_S: u64 = 300;
/// Copies that one step of healing makes: one flush of each drive and one manifest edit for all of them. Many while nobody
/// else wants the drives, a few where each step is a call of its own; none is begun after so many nanoseconds.
pub const HEAL_SLOTS_PER_STEP: usize = 4;
pub const HEAL_SLOTS_PER_STEP_MAX: usize = 64;
pub const HEAL_STEP_NS: u64 = 1_000_000_000;
/// Things whose places one edit of healing changes at most.
pub const HEAL_THINGS_PER_STEP: usize = 256;
/// Copies under way at once while nobody else wants the drives.
pub const HEAL_WORKERS: usize = 4;
/// Healing and balancing beside a foreground that writes or reads: bytes a second, and the least that can be asked for.
/// Alone they are as fast as the drives are.
pub const HEAL_BYTES_PER_S_DEFAULT: u64 = 32 << 20;
pub const HEAL_BYTES_PER_S_MIN: u64 = 1 << 20;
/// A pass of the scrub begins this long after the one before it began, and takes at most `SCRUB_PASS_S_MAX` as long as
/// the drives can give what that needs. It is never slower than so many bytes a second, all copies together: while
/// somebody works, and while nobody does.
pub const SCRUB_INTERVAL_S: u64 = 24 * 3600;
pub const SCRUB_PASS_S_MAX: u64 = 6 * 24 * 3600;
pub const SCRUB_BYTES_PER_S_MIN: u64 = 2 << 20;
pub const SCRUB_CALM_BYTES_PER_S_MIN: u64 = 16 << 20;
/// What one step reads of each copy, and what is scrubbed between two notes of how far it is.
pub const SCRUB_STEP_BYTES: u64 = 1 << 20;
pub const SCRUB_SAVE_BYTES: u64 = 256 << 20;
/// Changes that a feed selects with one walk.
pub const FEED_UNITS_DEFAULT: usize = 131_072;
/// Sentences of one pass about what was wrong.
pub const SCRUB_FINDINGS_MAX: usize = 64;
/// Sentences about what cannot be healed.
pub const HEAL_REPORTS_MAX: usize = 16;

/// Recovery points that a group keeps by itself (seconds, and what is left of them), and snapshots that it may have.
pub const TICKS_MAX: usize = 1 << 18;
pub const SNAPSHOTS_MAX: usize = 1 << 18;
/// What a group may be told to keep, in points: thinning leaves at most twice as many, and some at each step.
pub const TICKS_ASKED_MAX: u64 = TICKS_MAX as u64 / 2 - 64;
/// Steps by which the past is thinned.
pub const THIN_STEPS_MAX: usize = 8;

/// Header bytes of one op (op header and effects) at most. Whole-page payload is not counted.
pub const OP_BYTES_MAX: usize = 160 << 10;
/// Ops of one frame at most: they are counted in a u16.
pub const FRAME_OPS_MAX: usize = u16::MAX as usize;
/// Key of a record: branch, inode, kind, then at most a cookie and a name.
pub const KEY_BYTES_MAX: usize = 4 + 8 + 1 + 8 + NAME_BYTES_MAX;
/// Value of a record: an extended attribute is the longest. Blocks of tables count it in a u16.
pub const VALUE_BYTES_MAX: usize = XATTR_VALUE_BYTES_MAX;

/// Replication: what one chunk of a batch holds before it is compressed, about; a chunk of any peer at most; where a batch goes on.
pub const CHUNK_BYTES_TARGET: usize = 240 << 10;
pub const CHUNK_BYTES_MAX: usize = 512 << 10;
pub const CURSOR_BYTES_MAX: usize = 16 + KEY_BYTES_MAX;
/// One frame of the header stream, which is a part of one control message.
pub const HEADER_FRAME_BYTES_MAX: usize = 48 << 10;
pub const HEADER_FRAME_BYTES_MIN: usize = 512;
/// Frames that a statement is made of at most: who has more of them folds them before.
pub const HEADER_FRAMES_MAX: usize = 1 << 16;
/// Name of a follower: a peer's fingerprint.
pub const FOLLOWER_NAME_BYTES_MAX: usize = 64;
pub const FOLLOWERS_MAX: usize = 16;

/// Proofs of equality: ranges that one question asks about; an answer's bytes, which go in a control message; keys that wait to be
/// shipped again.
pub const PROOF_PARTS_MAX: usize = 64;
pub const PROOF_ANSWER_BYTES_MAX: usize = 48 << 10;
pub const MENDS_MAX: usize = 1 << 16;

/// Default budgets of one daemon; configurable.
pub const MEMTABLE_BYTES_DEFAULT: usize = 32 << 20;
pub const RING_BYTES_DEFAULT: usize = 64 << 20;
pub const METADATA_CACHE_BYTES_DEFAULT: usize = 128 << 20;
pub const DATA_CACHE_BYTES_DEFAULT: usize = 256 << 20;

/// Levels of a tree: 0 to 7. The last one is never compacted.
pub const LEVELS_MAX: usize = 8;
/// Each level below the first may hold this many times more bytes than the one above.
pub const LEVEL_FANOUT: u64 = 8;
/// Tables of the next level that a table of level 1 or deeper is merged with at a time: more than it meets where levels
/// have their sizes.
pub const MERGE_TARGETS_MAX: usize = 12;
/// Overlapping runs on level 0 before they are merged.
pub const LEVEL0_RUNS_MAX: usize = 4;
/// Deletions and holes that make a merge due, when they are more than half of the records.
pub const TOMBSTONES_DUE: u64 = 512;
/// Small tables of THEN that are merged into one.
pub const THEN_FANIN: usize = 8;
/// Tables of THEN that one step of expiry takes away.
pub const EXPIRE_TABLES_MAX: usize = 8;
/// Tables of THEN that name more slots' worth of payload than this are not merged: expiry drops whole tables.
pub const THEN_PAYLOAD_SLOTS_MAX: u64 = 8;

/// Unflushed log at most.
pub const UNFLUSHED_BYTES_MAX: usize = 256 << 20;

const _: () = assert!(CHUNK_BYTES_TARGET + KEY_BYTES_MAX + VALUE_BYTES_MAX + 64 <= CHUNK_BYTES_MAX, "one record more than the target");
const _: () = assert!((PROOF_PARTS_MAX + 2) * (KEY_BYTES_MAX + 3) < PROOF_ANSWER_BYTES_MAX, "a question is no longer than an answer");
const _: () = assert!(SYMLINK_BYTES_MAX + 4 * KEY_BYTES_MAX + 256 < PROOF_ANSWER_BYTES_MAX, "an answer has one entry at least");
const _: () = assert!(CURSOR_BYTES_MAX <= u16::MAX as usize && FOLLOWER_NAME_BYTES_MAX <= NAME_BYTES_MAX);
const _: () = assert!(SLOT_BYTES_MAX as usize / BLOCK_BYTES <= 1024, "a page number fits a u16, a bitmap 128 B");
const _: () = assert!(MARKS_MAX * 34 + DOMAIN_BYTES_MAX + GROUP_NAME_BYTES_MAX + 256 < BLOCK_BYTES, "superblock");
const _: () = assert!(SCRUB_BYTES_PER_S_MIN <= SCRUB_CALM_BYTES_PER_S_MIN);
const _: () = assert!(0 < EPOCH_ROWS_KEPT && EPOCH_ROWS_KEPT <= EPOCH_ROWS_MAX);
const _: () = assert!(DRIVE_BYTES_MIN >= 16 * MANIFEST_AREA_BYTES_MIN);
const _: () = assert!(OP_BYTES_MAX < SLOT_BYTES_MIN as usize, "an op never spans segments");
const _: () = assert!(VALUE_BYTES_MAX + KEY_BYTES_MAX + 1024 < OP_BYTES_MAX);
const _: () = assert!(VALUE_BYTES_MAX <= u16::MAX as usize, "length u16");
const _: () = assert!(KEY_BYTES_MAX < u16::MAX as usize, "length u16, and an exclusive end is a byte longer");
const _: () = assert!(NAME_BYTES_MAX <= u8::MAX as usize && GROUP_NAME_BYTES_MAX <= u8::MAX as usize, "length u8");
const _: () = assert!(SYMLINK_BYTES_MAX < VALUE_BYTES_MAX - 256, "an inode record is a value");
const _: () = assert!(MOVED_SOURCES_MAX <= u16::MAX as usize && MOVED_PARTS_MAX <= u8::MAX as usize, "counts");
const _: () = assert!(2 * (TICKS_ASKED_MAX as usize + 2 * THIN_STEPS_MAX + 4) <= TICKS_MAX && THIN_STEPS_MAX <= u8::MAX as usize);
const _: () = assert!(CLEAN_VICTIMS_MAX * CLEAN_DEAD_PERCENT_SHORT > 100, "a full batch frees a slot");
const _: () = assert!(SLOT_BYTES_MIN.is_power_of_two() && SLOT_BYTES_MAX.is_power_of_two());
const _: () = assert!(WRITE_BYTES_MAX as usize <= SLOT_BYTES_MAX as usize / 4, "an op's payload leaves room");
const _: () = assert!(MANIFEST_COPIES_MAX <= DRIVES_PER_POOL_MAX && DRIVES_PER_POOL_MAX <= u16::MAX as usize);
const _: () = assert!(LEVELS_MAX <= u8::MAX as usize && LEVEL0_RUNS_MAX > 1 && THEN_FANIN > 1);
const _: () = assert!(MERGE_TARGETS_MAX as u64 > LEVEL_FANOUT + 1);
const _: () = assert!(CELL_LEVEL_DATA_MAX < CELL_LEVEL_MAX && (CELL_LEVEL_MAX as u32) < u16::BITS, "inode.levels");
const _: () = assert!(UNFLUSHED_BYTES_MAX >= RING_BYTES_DEFAULT);
const _: () = assert!(RING_BYTES_DEFAULT >= 4 * WRITE_BYTES_MAX as usize);
const _: () = assert!(DRIVE_BYTES_MIN / SLOT_BYTES_MIN as u64 >= 256);
const _: () = assert!((BLOCK_BYTES as u64) << (4 * CELL_LEVEL_MAX as u64) == FILE_BYTES_MAX);

/// Slot size of a pool whose smallest drive has `drive_bytes_min` (STORE.md 22).
pub const fn slot_bytes_for(drive_bytes_min: u64) -> u32 {
    let mut slot = SLOT_BYTES_MIN;
    while slot < SLOT_BYTES_MAX && (slot as u64) * 2 * 256 <= drive_bytes_min {
        slot *= 2;
    }
    slot
}

/// Largest write op of a pool: an op must fit into a fresh segment several times over.
pub const fn write_bytes_max_for(slot_bytes: u32) -> u32 {
    if slot_bytes / 4 < WRITE_BYTES_MAX { slot_bytes / 4 } else { WRITE_BYTES_MAX }
}
