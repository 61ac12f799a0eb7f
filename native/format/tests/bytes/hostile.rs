//! Every decoder against bytes that nobody wrote: noise, torn records, flipped bits, and lies under a checksum
//! that was computed anew. None panics, none allocates more than a small multiple of what it was given, damage
//! under a checksum is never believed, and whatever is accepted can be written and read again.

use crate::allocations::largest_of;
use crate::random::Random;
use crate::samples::{self, Guard, Sample};
use holdfast_format::Ino;
use holdfast_format::inode::InodeRecord;
use holdfast_format::limits::SYMLINK_BYTES_MAX;
use holdfast_format::op::{Effects, each_effect};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A failure names the case by this and the bytes.
const SEED: u64 = 0x0001_d0f5;
/// Largest single allocation for an input of so many bytes: decoded fields take more room than encoded ones, and
/// a record that is padded to a block is one block.
const fn allocation_max(input_bytes: usize) -> usize {
    16 * input_bytes + (8 << 10)
}

fn hex(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(256)];
    let digits: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} bytes {digits}", bytes.len())
}

/// Decodes and encodes `bytes` as the sample's kind; `None`: refused. Fails on a panic or a large allocation.
fn again(sample: &Sample, bytes: &[u8]) -> Option<Vec<u8>> {
    let outcome = catch_unwind(AssertUnwindSafe(|| largest_of(|| (sample.again)(bytes))));
    let Ok((again, largest)) = outcome else { panic!("{} panics on {}", sample.name, hex(bytes)) };
    let most = allocation_max(bytes.len());
    assert!(largest <= most, "{} allocates {largest} for {}", sample.name, hex(bytes));
    again
}

/// As [`again`], and what was accepted is written in a form that reads back as itself.
fn survives(sample: &Sample, bytes: &[u8]) {
    if let Some(written) = again(sample, bytes) {
        let rewritten = again(sample, &written);
        assert_eq!(rewritten, Some(written), "{} is not stable on {}", sample.name, hex(bytes));
    }
}

/// Overwrites a few runs of bytes with noise.
fn lie(random: &mut Random, bytes: &mut [u8]) {
    // Most of a padded record is padding: lies belong into its front, some into its end.
    let front = bytes.len().min(256);
    for _ in 0..1 + random.below(3) {
        let at =
            if random.below(4) == 0 { bytes.len() - 1 - random.below(front) } else { random.below(front) };
        let width = (1usize << random.below(4)).min(bytes.len() - at);
        let noise = random.bytes(width);
        bytes[at..at + width].copy_from_slice(&noise);
    }
}

/// Seals the bytes anew, if the sample has a seal, and tries them. Whether they were accepted.
fn try_sealed(sample: &Sample, mut bytes: Vec<u8>) -> bool {
    if let Guard::Own { seal, .. } = &sample.guard {
        seal(&mut bytes);
    }
    survives(sample, &bytes);
    again(sample, &bytes).is_some()
}

#[test]
fn noise_is_refused_or_read() {
    let mut random = Random::new(SEED);
    for sample in samples::all() {
        survives(&sample, &[]);
        for _ in 0..1_000 {
            let count = random.below(400);
            let noise = random.bytes(count);
            survives(&sample, &noise);
        }
        // Lengths that some layouts ask for, and the magic numbers, so that noise comes past the first field.
        for _ in 0..200 {
            let mut noise = random.bytes(sample.bytes.len());
            let kept = random.below(sample.bytes.len().min(64) + 1);
            noise[..kept].copy_from_slice(&sample.bytes[..kept]);
            survives(&sample, &noise);
        }
    }
}

#[test]
fn torn_records_are_refused_or_whole() {
    for sample in samples::all() {
        for cut in (0..sample.bytes.len()).filter(|cut| *cut < 300 || cut % 61 == 0) {
            let torn = &sample.bytes[..cut];
            match &sample.guard {
                // Only padding may be missing.
                Guard::Own { .. } => {
                    let again = again(&sample, torn);
                    let whole = again.as_ref().is_none_or(|again| *again == sample.bytes);
                    assert!(whole, "{} cut at {cut}", sample.name);
                }
                Guard::Parent => survives(&sample, torn),
            }
        }
    }
}

#[test]
fn no_flipped_bit_under_a_checksum_is_believed() {
    let mut guarded = 0;
    for sample in samples::all() {
        for at in 0..sample.bytes.len() {
            for bit in 0..8 {
                let mut flipped = sample.bytes.clone();
                flipped[at] ^= 1 << bit;
                match &sample.guard {
                    Guard::Own { covered, .. } if covered.iter().any(|range| range.contains(&at)) => {
                        let again = again(&sample, &flipped);
                        assert_eq!(again, None, "{}: bit {bit} of byte {at}", sample.name);
                        guarded += 1;
                    }
                    // Padding: nobody reads it.
                    Guard::Own { .. } => {
                        let again = (bit == at % 8).then(|| again(&sample, &flipped));
                        let unread = again.flatten().is_none_or(|again| again == sample.bytes);
                        assert!(unread, "{}: bit {bit} of byte {at}", sample.name);
                    }
                    Guard::Parent => survives(&sample, &flipped),
                }
            }
        }
    }
    assert!(guarded > 8 * 4096, "{guarded} flips were under a checksum");
}

#[test]
fn lies_are_refused_or_read_even_under_a_right_checksum() {
    let mut random = Random::new(SEED);
    let mut accepted = 0;
    for sample in samples::all() {
        for round in 0..2_000 {
            let mut bytes = sample.bytes.clone();
            lie(&mut random, &mut bytes);
            if round % 4 == 0 {
                bytes.truncate(random.below(bytes.len()) + 1);
            }
            survives(&sample, &bytes);
            let taken = try_sealed(&sample, bytes);
            accepted += (taken && matches!(sample.guard, Guard::Own { .. })) as u32;
        }
    }
    assert!(accepted > 1_000, "{accepted} lies came past the checksums: the others were not tried");
}

/// At these sums and lengths overflow.
#[test]
fn extremes_are_refused_or_read_wherever_they_stand() {
    for sample in samples::all() {
        let bytes = sample.bytes.len();
        for at in (0..bytes).filter(|at| *at < 256 || at + 64 >= bytes) {
            for width in [1, 2, 4, 6, 8].into_iter().filter(|width| at + width <= bytes) {
                for (most, rest) in [(0xff, 0xff), (0x7f, 0xff), (0x80, 0), (0, 0)] {
                    let mut extreme = sample.bytes.clone();
                    extreme[at..at + width].fill(rest);
                    extreme[at + width - 1] = most;
                    try_sealed(&sample, extreme);
                }
            }
        }
    }
}

/// Sample, offset of a field in it, and a value one beyond what the field may hold there.
const BEYOND: &[(&str, usize, &[u8])] = &[
    ("superblock", 16 + 16, &[16]),           // an incompat bit
    ("superblock", 80, &[3]),                 // drive 3 of 3
    ("superblock", 84, &[1]),                 // slots of no power of two
    ("manifest-edit", 4, &[4]),               // kind
    ("item-segment", 23, &[4]),               // RF
    ("item-drive", 36, &[4]),                 // flags
    ("frame", 32, &[0xff; 8]),                // the LSN after the last op
    ("frame", 32, &[0; 8]),                   // LSN 0
    ("frame", 52, &[4]),                      // RF
    ("frame", 52, &[0]),                      // RF
    ("frame", 90, &[0x00, 0x04]),             // page 1024
    ("op", 16, &[0]),                         // kind
    ("op", 17, &[4]),                         // RF
    ("op", 20, &[0x01, 0x04]),                // 1025 pages
    ("op", 44, &[0x00, 0xca, 0x9a, 0x3b]),    // nanoseconds
    ("effects", 37, &[0x00, 0x04]),           // page 1024
    ("effects", 35, &[0]),                    // no pages, eight bytes left
    ("ring-record", 0, &[87]),                // shorter than an op's header
    ("inode", 46, &[17]),                     // 16 bytes of a command's name
    ("inode", 56, &[0x00, 0xca, 0x9a, 0x3b]), // nanoseconds
    ("cell-pages", 7, &[0x00, 0x04]),         // page 1024
    ("cell-pages-64k", 7, &[0xf1, 0x03]),     // 16 pages from 1009
    ("cell-packed", 9, &[0xf5, 0x0f]),        // 12 bytes from 4085
    ("cell-partial", 1, &[0xfe, 0x0f]),       // 3 bytes from 4094
    ("table-block", 14, &[2]),                // flags
    ("table-block", 28, &[4]),                // shares four bytes of a key of three
    ("table-block", 18, &[0xff]),             // a length of two bytes that is short
    ("table-header", 14, &[1]),               // reserved
    ("table-index", 75, &[47]),               // a block in the header
    ("table-desc", 10, &[4]),                 // tree
    ("table-desc", 11, &[8]),                 // level
    ("table-desc", 12, &[4]),                 // copies
    ("egroup-data", 14, &[129]),              // bytes of a page set
    ("egroup-data", 2, &[16]),                // flags
    ("egroup-data", 29, &[0x01, 0x04]),       // 1025 sources
    ("egroup-moved", 25, &[0xff, 0x03]),      // two pages from 1023
    ("egroup-moved", 28, &[0]),               // a page set that ends with a zero
    ("scrub-cursor", 1, &[4]),                // phase
    ("scrub-cursor", 2, &[1]),                // reserved
    ("promotion", 1, &[1]),                   // reserved
    ("egroup-footer", 4096 - 24, &[103]),     // more births than bytes
    ("header-lines", 16, &[0; 8]),            // LSN 0
    ("header-lines", 24, &[11]),              // an op more than LSNs
    ("header-lines", 32, &[11]),              // older than what it tells
    ("header-lines", 48, &[0, 0xca, 0x9a, 0x3b]), // nanoseconds
    ("header-lines", 120, &[9]),              // kind
    ("header-lines", 121, &[0]),              // a run of nothing
    ("header-summary", 7, &[2]),              // flags
    ("header-summary", 56, &[1]),             // a time of the first op
    ("header-summary", 105, &[0]),            // a tail longer than the whole
];

#[test]
fn what_is_beyond_a_limit_is_refused() {
    let samples = samples::all();
    for (name, at, value) in BEYOND {
        let sample = samples.iter().find(|sample| sample.name == *name).expect("the name of a sample");
        let mut bytes = sample.bytes.clone();
        bytes[*at..*at + value.len()].copy_from_slice(value);
        assert!(!try_sealed(sample, bytes), "{name} with {value:02x?} at {at}");
    }
    let target = vec![b'a'; SYMLINK_BYTES_MAX + 1];
    let symlink = InodeRecord { target, ..InodeRecord::default() };
    assert!(InodeRecord::decode(&symlink.encode()).is_err());
    // Two blocks, the second one beyond the largest file.
    let mut effects = Effects::new();
    effects.pages(Ino(2), u32::MAX, 0, &[1, 2]);
    assert!(each_effect(effects.as_bytes(), |_| ()).is_err());
}

#[test]
fn seals_are_the_encoders_own() {
    for sample in samples::all() {
        if let Guard::Own { seal, .. } = &sample.guard {
            let mut bytes = sample.bytes.clone();
            seal(&mut bytes);
            assert_eq!(hex(&bytes), hex(&sample.bytes), "{}", sample.name);
        }
    }
}
