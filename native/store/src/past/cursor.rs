//! Where a consumer of a change feed stands, as text that it keeps: opaque to it, checked when it comes back.
//!
//! ```text
//! text = "hf1-" | hex of: pool 16 B | group u32 | branch u32 | from u64 | wall i64 | to u64 | rest? | checksum, its first 4 B
//! rest = lsn u64 | inode u64 | part u64      where `to` is not 0
//! ```
//! Little-endian. `wall` is the second of `from`: an LSN of a pool that was set back to an older image is another one.

use crate::error::{Error, Result};
use holdfast_format::checksum::checksum;
use holdfast_format::wire::{Put, Take};
use holdfast_format::{BranchId, GroupId, Ino, Lsn};

const PREFIX: &str = "hf1-";
const CHECK_BYTES: usize = 4;
/// Bytes of the longest cursor's text.
const TEXT_BYTES_MAX: usize = 256;

/// One thing that may be told between two points, and its place in the order: an inode's own changes (part 0), or those of the
/// names with one cookie in a directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Unit {
    pub lsn: Lsn,
    pub ino: Ino,
    pub part: u64,
}

/// The volume that a cursor is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    pub pool: [u8; 16],
    pub group: GroupId,
    pub branch: BranchId,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    pub source: Source,
    /// Everything up to this kept point was told; 0: nothing.
    pub from: Lsn,
    /// Second of that point, since 1970.
    pub wall_s: i64,
    /// In the middle of what came between `from` and this point: everything up to the unit was told.
    pub within: Option<(Lsn, Unit)>,
}

fn refused() -> Error {
    Error::invalid("that is no cursor of a change feed: give one back as it was, or begin anew with a time, `now` or `beginning`")
}

impl Cursor {
    /// Whether words are meant to be one.
    pub fn is_meant(words: &str) -> bool {
        words.starts_with(PREFIX)
    }

    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(80);
        bytes.put_bytes(&self.source.pool);
        bytes.put_u32(self.source.group.0);
        bytes.put_u32(self.source.branch.0);
        bytes.put_u64(self.from.0);
        bytes.put_i64(self.wall_s);
        bytes.put_u64(self.within.map_or(0, |(to, _)| to.0));
        if let Some((_, Unit { lsn, ino, part })) = self.within {
            [lsn.0, ino.0, part].into_iter().for_each(|word| bytes.put_u64(word));
        }
        let sum = checksum(&bytes).to_le_bytes();
        bytes.put_bytes(&sum[..CHECK_BYTES]);
        bytes.iter().fold(PREFIX.to_owned(), |text, byte| format!("{text}{byte:02x}"))
    }

    /// # Errors
    /// `Invalid`.
    pub fn decode(text: &str) -> Result<Self> {
        let digits = text.strip_prefix(PREFIX).filter(|digits| digits.is_ascii() && text.len() <= TEXT_BYTES_MAX);
        let digits = digits.filter(|digits| digits.len().is_multiple_of(2)).ok_or_else(refused)?;
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
        let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
        let bytes = bytes.ok_or_else(refused)?;
        let (body, sum) = bytes.split_at(bytes.len().saturating_sub(CHECK_BYTES));
        if checksum(body).to_le_bytes()[..CHECK_BYTES] != *sum {
            return Err(refused());
        }
        Self::take(body).ok_or_else(refused)
    }

    fn take(body: &[u8]) -> Option<Self> {
        let mut take = Take::new(body);
        let mut pool = [0; 16];
        pool.copy_from_slice(take.bytes(16).ok()?);
        let source = Source { pool, group: GroupId(take.u32().ok()?), branch: BranchId(take.u32().ok()?) };
        let (from, wall_s, to) = (Lsn(take.u64().ok()?), take.i64().ok()?, Lsn(take.u64().ok()?));
        let within = match to {
            Lsn(0) => None,
            to => Some((to, Unit { lsn: Lsn(take.u64().ok()?), ino: Ino(take.u64().ok()?), part: take.u64().ok()? })),
        };
        take.end().ok()?;
        Some(Self { source, from, wall_s, within })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was_or_not_at_all() {
        let source = Source { pool: [7; 16], group: GroupId(3), branch: BranchId(1) };
        let unit = Unit { lsn: Lsn(15), ino: Ino(9), part: 1 << 40 };
        for within in [None, Some((Lsn(20), unit))] {
            let cursor = Cursor { source, from: Lsn(10), wall_s: 1_790_000_000, within };
            let text = cursor.encode();
            assert!(Cursor::is_meant(&text) && text.len() <= TEXT_BYTES_MAX);
            assert_eq!(Cursor::decode(&text).expect("it is one"), cursor);
            for at in PREFIX.len()..text.len() {
                let mut other = text.clone().into_bytes();
                other[at] = if other[at] == b'0' { b'1' } else { b'0' };
                let other = String::from_utf8(other).expect("text");
                assert!(Cursor::decode(&other).is_err(), "{other}");
                assert!(Cursor::decode(&text[..at]).is_err());
            }
        }
        for bad in ["", "hf1-", "hf1-zz", "hf1-é", "hf2-00", &format!("hf1-{}", "00".repeat(200))] {
            assert!(Cursor::decode(bad).is_err(), "{bad}");
        }
    }
}
