//! The worked examples of FORMAT.md are what the code writes, and the code reads them back.
//!
//! An example is a fenced block `hex NAME`; its lines are bytes, then `;` and words. `00 x 28` stands for 28 such
//! bytes.

use crate::samples;
use std::collections::BTreeMap;

const DOCUMENT: &str = include_str!("../../../FORMAT.md");

/// Bytes of one line.
fn line_bytes(line: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut words = line.split(';').next().unwrap_or_default().split_whitespace();
    while let Some(word) = words.next() {
        if word == "x" {
            let times: usize = words.next().and_then(|times| times.parse().ok()).expect("a number after x");
            let byte = *bytes.last().expect("a byte before x");
            bytes.extend(std::iter::repeat_n(byte, times - 1));
        } else {
            assert_eq!(word.len(), 2, "{line:?}");
            bytes.push(u8::from_str_radix(word, 16).unwrap_or_else(|_| panic!("{line:?}")));
        }
    }
    bytes
}

/// Every example by name.
fn examples() -> BTreeMap<&'static str, Vec<u8>> {
    let mut examples = BTreeMap::new();
    let mut current: Option<(&str, Vec<u8>)> = None;
    for line in DOCUMENT.lines() {
        if let Some(name) = line.strip_prefix("```hex ") {
            assert!(current.is_none(), "{name} begins inside another example");
            current = Some((name.trim(), Vec::new()));
        } else if line == "```" {
            if let Some((name, bytes)) = current.take() {
                assert!(examples.insert(name, bytes).is_none(), "{name} is there twice");
            }
        } else if let Some((_, bytes)) = &mut current {
            bytes.extend(line_bytes(line));
        }
    }
    assert!(current.is_none(), "the last example does not end");
    examples
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_documents_examples_are_what_the_code_writes_and_reads() {
    let mut examples = examples();
    for sample in samples::all() {
        let name = sample.name;
        let told = examples.remove(name).unwrap_or_else(|| panic!("FORMAT.md has no example {name}"));
        assert_eq!(hex(&told), hex(&sample.bytes), "{name}: left the document, right the code");
        let again = (sample.again)(&told).unwrap_or_else(|| panic!("{name} cannot be read"));
        assert_eq!(hex(&again), hex(&told), "{name}: written again after reading");
    }
    assert!(examples.is_empty(), "examples that nothing writes: {:?}", examples.keys());
}

#[test]
fn a_line_is_bytes_then_words() {
    assert_eq!(line_bytes("01 ff   ; 2 bytes; and words"), [1, 0xff]);
    assert_eq!(line_bytes("ab 00 x 3 ; zeroes"), [0xab, 0, 0, 0]);
    assert!(line_bytes("").is_empty());
}
