use super::*;
use crate::api::{
    FALLOC_COLLAPSE_RANGE, FALLOC_INSERT_RANGE, FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE,
    Whence,
};
use holdfast_device::Rng;

const PUNCH: u32 = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE;
const MIB: u64 = 1 << 20;

fn pattern(rng: &mut Rng, bytes: usize) -> Vec<u8> {
    let first = rng.next_u64() as u8;
    (0..bytes).map(|at| first.wrapping_add((at / 3) as u8) | 1).collect()
}

/// A file and what it must hold, megabytes long, so that cells of every data level and wide holes occur.
#[test]
fn contents_survive_any_order_of_writes_cuts_holes_and_copies() {
    for seed in 0..12 {
        let mut rng = Rng::from_seed(seed);
        let bench = bench();
        let files = [bench.file(ROOT_INO, "a"), bench.file(ROOT_INO, "b")];
        let mut shadows = [Vec::new(), Vec::new()];
        for step in 0..120 {
            let index = rng.below(2) as usize;
            let (file, align) = (files[index], [1, 4096, 65_536][rng.below(3) as usize]);
            let offset = rng.below(5 * MIB) / align * align;
            let scale = 8 + rng.below(13);
            let length = (1 + rng.below(1 << scale)).next_multiple_of(align);
            let (from, until) = (offset as usize, (offset + length) as usize);
            match rng.below(6) {
                0 | 1 => {
                    let data = pattern(&mut rng, length as usize);
                    bench.write(file, offset, &data);
                    let end = shadows[index].len().max(until);
                    shadows[index].resize(end, 0);
                    shadows[index][from..until].copy_from_slice(&data);
                }
                2 => {
                    bench.truncate(file, offset);
                    shadows[index].resize(from, 0);
                }
                3 => {
                    bench.volume.fallocate(&ROOT, file, offset, length, PUNCH).expect("punches");
                    let end = shadows[index].len();
                    shadows[index][from.min(end)..until.min(end)].fill(0);
                }
                4 => {
                    bench.volume.fallocate(&ROOT, file, offset, length, FALLOC_ZERO_RANGE).expect("zeroes");
                    let end = shadows[index].len().max(until);
                    shadows[index].resize(end, 0);
                    shadows[index][from..until].fill(0);
                }
                _ => {
                    let other = 1 - index;
                    let to = rng.below(5 * MIB) / align * align;
                    let (places, length) = (((file, offset), (files[other], to)), length * 4);
                    let copied =
                        bench.volume.copy_file_range(&ROOT, places.0, places.1, length).expect("copies");
                    assert_eq!(copied, length.min((shadows[index].len() as u64).saturating_sub(offset)));
                    let data = shadows[index][from.min(shadows[index].len())..][..copied as usize].to_vec();
                    if copied > 0 {
                        let end = shadows[other].len().max((to + copied) as usize);
                        shadows[other].resize(end, 0);
                        shadows[other][to as usize..(to + copied) as usize].copy_from_slice(&data);
                    }
                }
            }
            if step % 20 == 19 {
                for (file, shadow) in files.iter().zip(&shadows) {
                    assert!(bench.read(*file) == *shadow, "seed {seed} step {step}");
                }
                bench.check();
            }
        }
    }
}

#[test]
fn dense_files_never_look_at_the_map() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    for block in 0..40 {
        bench.write(file, block * 4096, &[1; 4096]);
        bench.write(file, block * 2048, &[2; 3000]);
    }
    bench.truncate(file, 50_000);
    bench.write(file, 0, &[3; 60_000]);
    let attr = bench.attr(file);
    assert_eq!(attr.blocks, attr.size.div_ceil(4096) * 8);
    let state = bench.ledger.state.lock();
    assert_eq!((state.map_calls, state.block_reads), (0, 0), "a write reads neither map nor data");
}

#[test]
fn a_file_written_backwards_becomes_dense() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    for block in (0..20).rev() {
        bench.write(file, block * 4096, &[1; 4096]);
        assert_eq!(bench.attr(file).blocks, (20 - block) * 8);
    }
    assert_eq!((bench.inode(file).dense_until, bench.inode(file).flags & INODE_SPARSE), (20, 0));
    bench.check();
}

#[test]
fn bytes_cut_off_never_come_back() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    bench.write(file, 0, &[7; 9000]);
    bench.truncate(file, 5000);
    bench.truncate(file, 9000);
    let mut wanted = vec![7; 5000];
    wanted.resize(9000, 0);
    assert_eq!(bench.read(file), wanted);
    assert_eq!(bench.attr(file).blocks, 16, "the third block is a hole");
    bench.truncate(file, 0);
    bench.truncate(file, 9000);
    assert_eq!(bench.read(file), vec![0; 9000]);
    assert_eq!(bench.attr(file).blocks, 0);
    bench.write(file, 8999, b"x");
    assert_eq!(bench.attr(file).blocks, 8);
    bench.check();
}

#[test]
fn the_largest_file_ends_at_16_tib() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    let end = 16u64 << 40;
    bench.write(file, end - 1, b"x");
    assert_eq!((bench.attr(file).size, bench.attr(file).blocks), (end, 8));
    let mut into = [9; 8];
    assert_eq!(bench.volume.read(&ROOT, file, end - 2, &mut into).expect("reads"), 2);
    assert_eq!(into[..2], [0, b'x']);
    assert_eq!(bench.volume.read(&ROOT, file, end, &mut into).expect("reads nothing"), 0);
    fails(bench.volume.write(&ROOT, file, end, b"x", WriteFlags::default()), FsError::FileTooBig);
    fails(bench.volume.write(&ROOT, file, end - 1, b"xy", WriteFlags::default()), FsError::FileTooBig);
    fails(bench.volume.write(&ROOT, file, u64::MAX, b"xy", WriteFlags::default()), FsError::FileTooBig);
    fails(bench.volume.fallocate(&ROOT, file, end - 1, 2, 0), FsError::FileTooBig);
    assert_eq!(bench.volume.lseek(file, 0, Whence::Data).expect("finds"), end - 4096);
    bench.truncate(file, 5);
    assert_eq!(bench.attr(file).blocks, 0);
    bench.check();
}

#[test]
fn fallocate_tells_the_truth() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    let allocate = |offset, length, flags| bench.volume.fallocate(&ROOT, file, offset, length, flags);
    allocate(0, 10_000, 0).expect("grows");
    assert_eq!((bench.attr(file).size, bench.attr(file).blocks), (10_000, 0));
    allocate(0, 90_000, FALLOC_KEEP_SIZE).expect("keeps");
    assert_eq!(bench.attr(file).size, 10_000);
    bench.write(file, 0, &[1; 10_000]);
    allocate(4096, 90_000, PUNCH).expect("punches");
    assert_eq!((bench.attr(file).size, bench.attr(file).blocks), (10_000, 8));
    allocate(100, 19_900, FALLOC_ZERO_RANGE).expect("zeroes");
    assert_eq!((bench.attr(file).size, bench.attr(file).blocks), (20_000, 8));
    allocate(0, 20_000, PUNCH).expect("punches");
    assert_eq!(bench.attr(file).blocks, 0);
    fails(allocate(0, 0, 0), FsError::Invalid);
    for flags in [FALLOC_COLLAPSE_RANGE, FALLOC_INSERT_RANGE, FALLOC_PUNCH_HOLE, 64] {
        fails(allocate(0, 4096, flags), FsError::NotSupported);
    }
    fails(bench.volume.fallocate(&ROOT, ROOT_INO, 0, 1, 0), FsError::IsDirectory);
    bench.check();
}

#[test]
fn lseek_finds_data_and_holes_exactly() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    fails(bench.volume.lseek(file, 0, Whence::Data), FsError::NoSuchDeviceOrAddress);
    bench.write(file, 8192, &[1; 5000]);
    bench.truncate(file, 40_000);
    let seek = |offset, whence| bench.volume.lseek(file, offset, whence);
    assert_eq!(seek(0, Whence::Data).expect("finds"), 8192);
    assert_eq!(seek(9000, Whence::Data).expect("finds"), 9000);
    assert_eq!(seek(0, Whence::Hole).expect("finds"), 0);
    assert_eq!(seek(9000, Whence::Hole).expect("finds"), 16_384);
    fails(seek(16_384, Whence::Data), FsError::NoSuchDeviceOrAddress);
    fails(seek(40_000, Whence::Hole), FsError::NoSuchDeviceOrAddress);
    bench.write(file, 39_000, &[1; 1000]);
    assert_eq!(seek(39_500, Whence::Hole).expect("the end is a hole"), 40_000);
}

#[test]
fn copies_of_whole_blocks_share_them() {
    let bench = bench();
    let (a, b) = (bench.file(ROOT_INO, "a"), bench.file(ROOT_INO, "b"));
    let mut rng = Rng::from_seed(1);
    let data = pattern(&mut rng, 3 * MIB as usize);
    bench.write(a, 0, &data);
    let reads = bench.ledger.state.lock().block_reads;
    assert_eq!(bench.volume.copy_file_range(&ROOT, (a, 0), (b, 4096), 10 * MIB).expect("copies"), 3 * MIB);
    assert_eq!(bench.ledger.state.lock().block_reads, reads, "nothing was read");
    assert_eq!(bench.read(b)[4096..], data);
    assert_eq!(bench.attr(b).blocks, 3 * 256 * 8);
    fails(bench.volume.copy_file_range(&ROOT, (a, 0), (a, 4096), 8192), FsError::Invalid);
    assert_eq!(bench.volume.copy_file_range(&ROOT, (a, 3 * MIB), (b, 0), 10).expect("the end"), 0);
    assert_eq!(bench.volume.copy_file_range(&ROOT, (a, 0), (a, 3 * MIB), 8192).expect("copies"), 8192);
    fails(bench.volume.copy_file_range(&ROOT, (ROOT_INO, 0), (a, 0), 1), FsError::IsDirectory);
    fails(bench.volume.copy_file_range(&ROOT, (a, 0), (b, (16 << 40) - 1), 2), FsError::FileTooBig);
    bench.check();
}

#[test]
fn holes_are_copied_as_holes() {
    let bench = bench();
    let (a, b) = (bench.file(ROOT_INO, "a"), bench.file(ROOT_INO, "b"));
    bench.write(a, 0, &[1; 4096]);
    bench.write(a, 10 * 4096, &[2; 4096]);
    bench.write(b, 0, &[3; 20 * 4096]);
    assert_eq!(bench.volume.copy_file_range(&ROOT, (a, 0), (b, 0), 11 * 4096).expect("copies"), 11 * 4096);
    assert_eq!(bench.attr(b).blocks, (2 + 9) * 8);
    let mut wanted = bench.read(a);
    wanted.resize(20 * 4096, 3);
    assert_eq!(bench.read(b), wanted);
    bench.check();
}

#[test]
fn large_writes_are_cut_at_blocks() {
    let bench = bench();
    let file = bench.file(ROOT_INO, "f");
    let mut rng = Rng::from_seed(2);
    let data = pattern(&mut rng, 300_001);
    let before = bench.op_count();
    bench.write(file, 77, &data);
    assert_eq!(bench.op_count() - before, 5);
    assert_eq!(bench.read(file)[77..], data);
    let before = bench.op_count();
    bench.write(file, 0, &[]);
    assert_eq!(bench.op_count(), before);
    bench.check();
}
