//! Fuzzing with a corpus. `tests/corpus/NAME` holds, for each decoder, one short input for every way in which it is known to
//! answer: each field that can be wrong, each size class of what it accepts. New inputs are made by changing those; one
//! that is answered in a new way fails the test, which prints the line to be added.
//!
//! A line: the answer, a tab, the input in hex; `*N` after a byte: N of them.

use crate::random::Random;
use crate::samples::{self, Guard, Sample};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

const SEED: u64 = 0x00f0_22ed;
/// Inputs for each decoder in one run of the tests.
const ROUNDS: u64 = 20_000;
const INPUT_BYTES_MAX: usize = 8192;

/// Inputs by how they are answered.
type Corpus = BTreeMap<String, Vec<u8>>;

fn path_of(sample: &Sample) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(sample.name)
}

/// Runs of at least four equal bytes are counted.
fn to_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for run in bytes.chunk_by(|one, two| one == two) {
        if run.len() < 4 {
            text.extend(run.iter().map(|byte| format!("{byte:02x}")));
        } else {
            let _ = write!(text, "{:02x}*{} ", run[0], run.len());
        }
    }
    text.trim_end().to_owned()
}

fn from_text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in text.split(' ') {
        let (digits, count) = word.split_once('*').map_or((word, 1), |(digits, count)| {
            (digits, count.parse().expect("a count after *"))
        });
        let pairs = digits.as_bytes().chunks(2).map(|pair| {
            u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex")
        });
        let start = bytes.len();
        bytes.extend(pairs);
        if count > 1 {
            let byte = *bytes.last().expect("a byte before *");
            assert!(bytes.len() > start);
            bytes.extend(std::iter::repeat_n(byte, count - 1));
        }
    }
    bytes
}

fn read_corpus(sample: &Sample) -> Corpus {
    #[allow(clippy::disallowed_methods)]
    let text = std::fs::read_to_string(path_of(sample)).unwrap_or_default();
    let line = |line: &str| line.split_once('\t').map(|(answer, input)| (answer.to_owned(), from_text(input)));
    text.lines().map(|text| line(text).expect("a tab in the line")).collect()
}

/// How the decoder answers: why it refuses, or how long what it read is when it is written again, as a power of two.
fn answer(sample: &Sample, bytes: &[u8]) -> String {
    samples::take_refusal();
    let outcome = catch_unwind(AssertUnwindSafe(|| (sample.again)(bytes)));
    let Ok(again) = outcome else { panic!("{} panics on {}", sample.name, to_text(bytes)) };
    match (again, samples::take_refusal()) {
        (Some(written), _) => {
            let rewritten = (sample.again)(&written);
            assert_eq!(rewritten.as_ref(), Some(&written), "{} is not stable on {}", sample.name, to_text(bytes));
            format!("reads 2^{}", written.len().max(1).ilog2())
        }
        (None, Some(holdfast_format::DecodeError::Unsupported(_))) => "Unsupported".to_owned(),
        (None, Some(error)) => format!("{error:?}"),
        (None, None) => "refused".to_owned(),
    }
}

/// Changes an input a little, as fuzzers do.
fn mutate(random: &mut Random, corpus: &[&Vec<u8>], bytes: &mut Vec<u8>) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len() + 1);
        let front = random.below(bytes.len().min(200) + 1);
        let at = if random.below(3) == 0 { at } else { front };
        match random.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 => {
                let extreme = [0u64, 1, 0x7f, 0x80, 0xff, 0xffff, 0x1_0000, u64::MAX, 1 << 63][random.below(9)];
                let width = [1, 2, 4, 6, 8][random.below(5)].min(bytes.len() - at.min(bytes.len()));
                bytes[at..at + width].copy_from_slice(&extreme.to_le_bytes()[..width]);
            }
            3 => bytes.truncate(at),
            4 => {
                let end = (at + 1 + random.below(16)).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
            5 => {
                let count = 1 + random.below(16);
                let fill = random.next() as u8;
                bytes.splice(at..at, std::iter::repeat_n(fill, count));
            }
            6 => {
                let end = (at + random.below(64)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let other = corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
        bytes.truncate(INPUT_BYTES_MAX);
    }
}

/// Answers that the corpus does not have, with an input for each.
fn search(sample: &Sample, corpus: &Corpus, seed: u64, rounds: u64) -> Corpus {
    let mut random = Random::new(seed);
    let mut found = Corpus::new();
    for _ in 0..rounds {
        let known: Vec<&Vec<u8>> = corpus.values().chain(found.values()).chain([&sample.bytes]).collect();
        let mut bytes = known[random.below(known.len())].clone();
        mutate(&mut random, &known, &mut bytes);
        let mut candidates = vec![bytes];
        if let Guard::Own { seal, .. } = &sample.guard {
            let mut sealed = candidates[0].clone();
            seal(&mut sealed);
            candidates.push(sealed);
        }
        for bytes in candidates {
            let answer = answer(sample, &bytes);
            if !corpus.contains_key(&answer) && !found.contains_key(&answer) {
                found.insert(answer, bytes);
            }
        }
    }
    found
}

fn lines(corpus: &Corpus) -> String {
    corpus.iter().map(|(answer, bytes)| format!("{answer}\t{}\n", to_text(bytes))).collect()
}

#[test]
fn the_corpus_is_answered_as_ever() {
    let mut answers = 0;
    for sample in samples::all() {
        let corpus = read_corpus(&sample);
        assert!(corpus.len() > 1, "{}: the corpus says nothing of it", sample.name);
        for (expected, bytes) in &corpus {
            assert_eq!(answer(&sample, bytes), *expected, "{} on {}", sample.name, to_text(bytes));
            answers += 1;
        }
    }
    assert!(answers > 150, "{answers} answers");
}

#[test]
fn changed_inputs_are_answered_in_ways_that_the_corpus_knows() {
    let mut news = String::new();
    for sample in samples::all() {
        let corpus = read_corpus(&sample);
        let found = search(&sample, &corpus, SEED, ROUNDS);
        if !found.is_empty() {
            let _ = write!(news, "tests/corpus/{}:\n{}", sample.name, lines(&found));
        }
    }
    assert!(news.is_empty(), "seed {SEED:#x}: new answers; look at them, then add the lines\n{news}");
}

/// Fuzzes for longer, with another seed, and adds what it finds to the corpus: look at the difference before keeping it.
#[test]
#[ignore = "for growing the corpus"]
fn grow_the_corpus() {
    const GROW_SEED: u64 = 2;
    const GROW_ROUNDS: u64 = 400_000;
    for sample in samples::all() {
        let mut corpus = read_corpus(&sample);
        corpus.entry(answer(&sample, &sample.bytes)).or_insert_with(|| sample.bytes.clone());
        let mut found = search(&sample, &corpus, GROW_SEED, GROW_ROUNDS);
        found.values_mut().for_each(|bytes| shorten(&sample, bytes));
        corpus.extend(found);
        #[allow(clippy::disallowed_methods)]
        std::fs::write(path_of(&sample), lines(&corpus)).expect("the corpus is written");
    }
}

/// Drops and clears bytes as long as the answer stays.
fn shorten(sample: &Sample, bytes: &mut Vec<u8>) {
    let wanted = answer(sample, bytes);
    let same = |changed: &[u8]| answer(sample, changed) == wanted;
    for cut in [4096, 1024, 256, 64, 16, 4, 1] {
        while bytes.len() >= cut && same(&bytes[..bytes.len() - cut]) {
            bytes.truncate(bytes.len() - cut);
        }
    }
    for at in 0..bytes.len() {
        let kept = std::mem::take(&mut bytes[at]);
        if kept != 0 && !same(bytes) {
            bytes[at] = kept;
        }
    }
}
