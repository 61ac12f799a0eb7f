//! Every decoder against bytes that nobody wrote: noise, torn records, flipped bits, and lies under a checksum
//! that was computed anew. None panics, none allocates more than a small multiple of what it was given, damage
//! under a checksum is never believed, and whatever is accepted can be written and read again.

use crate::allocations::largest_of;
use crate::samples::{self, Guard, Sample};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A failure names the case by this and the bytes.
const SEED: u64 = 0x0001_d0f5;
/// Largest single allocation for an input of so many bytes: decoded fields take more room than encoded ones, and
/// a record that is padded to a block is one block.
const fn allocation_max(input_bytes: usize) -> usize {
    16 * input_bytes + (8 << 10)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
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

/// Changes some bytes: noise, or values at which sums and lengths overflow.
fn lie(random: &mut Random, bytes: &mut [u8]) {
    // Most of a padded record is padding: lies belong into its front, some into its end.
    let front = bytes.len().min(256);
    for _ in 0..1 + random.below(3) {
        let at =
            if random.below(4) == 0 { bytes.len() - 1 - random.below(front) } else { random.below(front) };
        let width = (1usize << random.below(4)).min(bytes.len() - at);
        let choice = random.below(4);
        for (n, byte) in bytes[at..at + width].iter_mut().enumerate() {
            *byte = match choice {
                0 => 0xff,
                1 => 0,
                2 if n + 1 == width => 0x7f,
                2 => 0xff,
                _ => random.next() as u8,
            };
        }
    }
}

#[test]
fn noise_is_refused_or_read() {
    let mut random = Random(SEED);
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
    let mut random = Random(SEED);
    let mut accepted = 0;
    for sample in samples::all() {
        for round in 0..3_000 {
            let mut bytes = sample.bytes.clone();
            lie(&mut random, &mut bytes);
            if round % 4 == 0 {
                bytes.truncate(random.below(bytes.len()) + 1);
            }
            if let Guard::Own { seal, .. } = &sample.guard {
                seal(&mut bytes);
                accepted += again(&sample, &bytes).is_some() as u32;
            }
            survives(&sample, &bytes);
        }
    }
    assert!(accepted > 1_000, "{accepted} lies came past the checksums: the others were not tried");
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
