//! Who changed something last, as a mount tells it: a look-up of `.holdfast:who:NAME` in a directory, of the present or of the
//! past, gives a symbolic link that leads to words about NAME; `.` stands for the directory itself. So the kernel checks the
//! same rights as for looking at NAME's owner and times, and any program can read it. No listing shows such names, and a real
//! one of that name comes first.
//!
//! The words: `ctime=SECONDS.NANOSECONDS`, then ` uid=N pid=N command=NAME` (pid 0: not known; the command may be empty, and is
//! last because it may have blanks), or ` unknown`.
//!
//! Each look-up makes a node of its own, since the kernel remembers where a symbolic link leads. There are as many as limited
//! here; then the oldest go, which nobody has read for that many look-ups.

use crate::api::{Attr, FsError, FsResult, WHO_PREFIX};
use holdfast_format::Ino;
use holdfast_format::inode::InodeRecord;
use std::collections::BTreeMap;

/// Nodes at once in one mount.
const NOTES_MAX: usize = 1024;
/// Numbers of notes have this bit; what is below it counts.
const NOTE: u64 = 1 << 46;

#[derive(Clone)]
pub struct Note {
    pub words: Vec<u8>,
    attr: Attr,
}

#[derive(Default)]
pub struct Notes {
    made: BTreeMap<u64, Note>,
    last: u64,
}

/// The name that is asked about, if that is what a name asks.
pub fn asked(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(WHO_PREFIX).filter(|name| !name.is_empty())
}

/// What stands in a record of who changed it last.
pub fn words(record: &InodeRecord) -> Vec<u8> {
    let mut words = format!("ctime={}.{:09} ", record.ctime.sec, record.ctime.nsec).into_bytes();
    match &record.writer {
        Some(writer) => {
            words.extend_from_slice(format!("uid={} pid={} command=", writer.uid, writer.pid).as_bytes());
            words.extend_from_slice(writer.command.as_bytes());
        }
        None => words.extend_from_slice(b"unknown"),
    }
    words
}

impl Notes {
    pub fn is_note(own: u64) -> bool {
        own & NOTE != 0 && own & (NOTE << 1) == 0
    }

    /// A new node about a record; `node` makes its number of what is below the slot's bits.
    pub fn make(&mut self, record: &InodeRecord, node: impl Fn(u64) -> Ino) -> Attr {
        if self.made.len() >= NOTES_MAX {
            self.made.pop_first();
        }
        self.last = (self.last + 1) & (NOTE - 1);
        let own = NOTE | self.last;
        let words = words(record);
        let attr = Attr {
            ino: node(own),
            mode: 0o120_777,
            nlink: 1,
            uid: record.uid,
            gid: record.gid,
            rdev: 0,
            size: words.len() as u64,
            blocks: 0,
            atime: record.ctime,
            mtime: record.ctime,
            ctime: record.ctime,
            btime: record.ctime,
        };
        self.made.insert(own, Note { words, attr });
        attr
    }

    fn get(&self, own: u64) -> FsResult<&Note> {
        self.made.get(&own).ok_or(FsError::Stale)
    }

    pub fn attr(&self, own: u64) -> FsResult<Attr> {
        Ok(self.get(own)?.attr)
    }

    pub fn words(&self, own: u64) -> FsResult<Vec<u8>> {
        Ok(self.get(own)?.words.clone())
    }

    /// The kernel forgets: one look-up made it, so one reference was given.
    pub fn forget(&mut self, own: u64) {
        self.made.remove(&own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_format::inode::{Command, Time, Writer};

    fn record(writer: Option<Writer>) -> InodeRecord {
        InodeRecord { ctime: Time { sec: 17, nsec: 5 }, writer, ..InodeRecord::default() }
    }

    #[test]
    fn words_say_who() {
        assert_eq!(words(&record(None)), b"ctime=17.000000005 unknown");
        let writer = Writer { uid: 1001, pid: 77, command: Command::new(b"Web Content") };
        assert_eq!(words(&record(Some(writer))), b"ctime=17.000000005 uid=1001 pid=77 command=Web Content");
        assert_eq!(asked(b".holdfast:who:a b"), Some(&b"a b"[..]));
        assert_eq!((asked(b".holdfast:who:"), asked(b".holdfast")), (None, None));
    }

    #[test]
    fn old_notes_make_room() {
        let mut notes = Notes::default();
        let made: Vec<u64> = (0..=NOTES_MAX).map(|_| notes.make(&record(None), Ino).ino.0).collect();
        assert!(made.iter().all(|own| Notes::is_note(*own)));
        assert!(matches!(notes.attr(made[0]), Err(FsError::Stale)));
        assert_eq!(notes.words(made[1]).expect("the second is there"), b"ctime=17.000000005 unknown");
        notes.forget(made[1]);
        assert!(matches!(notes.words(made[1]), Err(FsError::Stale)));
        assert_eq!(notes.made.len(), NOTES_MAX - 1);
    }
}
