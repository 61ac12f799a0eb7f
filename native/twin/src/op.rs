//! The operations of the twin test, as data: a sequence can be printed, cut short and run again.

use std::fmt;

/// A path relative to the seed's own directory. Bytes, not text; no `..`, so that nothing leaves the
/// directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<u8>);

impl fmt::Debug for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A long run of one byte would drown the report.
        let last = self.0.last().copied().unwrap_or(0);
        let run = self.0.iter().rev().take_while(|byte| **byte == last).count();
        let kept = if run > 16 { self.0.len() - run } else { self.0.len() };
        write!(out, "\"{}\"", self.0[..kept].escape_ascii())?;
        if run > 16 {
            write!(out, "+{:?}x{run}", last as char)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    Fifo,
    Socket,
    Device { major: u32, minor: u32 },
}

/// A time to set: `None` stands for UTIME_OMIT.
pub type SetTime = Option<(i64, i64)>;

/// Slots number the handles kept open across ops; offsets and lengths are in bytes; `fill` seeds the data.
#[derive(Clone, Debug)]
pub enum Op {
    Open { slot: usize, path: Path, flags: i32, mode: u32 },
    TemporaryFile { slot: usize, directory: Path, flags: i32, mode: u32 },
    LinkSlot { slot: usize, path: Path },
    Close { slot: usize },
    Write { slot: usize, length: usize, fill: u64 },
    WriteAt { slot: usize, offset: u64, length: usize, fill: u64 },
    WriteVector { slot: usize, offset: u64, lengths: Vec<usize>, fill: u64 },
    Read { slot: usize, length: usize },
    ReadAt { slot: usize, offset: u64, length: usize },
    Position { slot: usize, offset: u64 },
    Seek { slot: usize, offset: u64, hole: bool },
    DirectWrite { path: Path, offset: u64, length: usize, fill: u64 },
    DirectRead { path: Path, offset: u64, length: usize },
    Map { slot: usize, offset: u64, length: usize, fill: u64 },
    Truncate { path: Path, size: u64 },
    TruncateSlot { slot: usize, size: u64 },
    Allocate { slot: usize, mode: i32, offset: u64, length: u64 },
    CopyRange { from: usize, from_offset: u64, to: usize, to_offset: u64, length: usize },
    Sync { slot: usize, data_only: bool },
    Evict { slot: usize },
    Rename { from: Path, to: Path, flags: u32 },
    Link { from: Path, to: Path, follow: bool },
    Symlink { target: Path, path: Path },
    ReadLink { path: Path },
    Unlink { path: Path },
    MakeDirectory { path: Path, mode: u32 },
    RemoveDirectory { path: Path },
    MakeNode { path: Path, kind: NodeKind, mode: u32 },
    ChangeMode { path: Path, mode: u32 },
    ChangeModeSlot { slot: usize, mode: u32 },
    ChangeOwner { path: Path, user: u32, group: u32, follow: bool },
    SetTimes { path: Path, accessed: SetTime, modified: SetTime, follow: bool },
    SetXattr { path: Path, name: Path, length: usize, fill: u64, flags: i32, follow: bool },
    GetXattr { path: Path, name: Path, capacity: usize },
    ListXattr { path: Path, capacity: usize },
    RemoveXattr { path: Path, name: Path },
    SetAcl { path: Path, default: bool, value: Vec<u8> },
    List { path: Path },
    Stat { path: Path, follow: bool },
    Access { path: Path, mode: i32 },
    Digest { path: Path },
    Burst { directory: Path, count: usize },
    Sweep { directory: Path, keep_every: usize },
}

impl Op {
    /// The variant's name.
    pub fn kind(&self) -> String {
        format!("{self:?}").split(' ').next().unwrap_or_default().to_owned()
    }
}
