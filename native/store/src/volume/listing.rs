//! readdir: chunks of entries in cookie order, under the directory's shard held shared for one chunk at a time.

use super::{Volume, attributes, mode};
use crate::api::{Caller, DirEntry, FsError, FsResult};
use crate::error::Error;
use holdfast_format::inode::DirentRecord;
use holdfast_format::{Ino, key};

/// Entries looked up at once.
const CHUNK: usize = 128;
const COOKIE_SELF: u64 = 1;
const COOKIE_PARENT: u64 = 2;
/// Names have cookies from here on.
const COOKIE_NAMES: u64 = 16;

struct Listed {
    cookie: u64,
    name: Vec<u8>,
    record: DirentRecord,
}

impl Volume {
    /// An entry for which `visit` returned false was not taken: it gets no reference, and the next call begins with it.
    pub(super) fn list(
        &self,
        caller: &Caller,
        dir: Ino,
        cookie: u64,
        plus: bool,
        visit: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> FsResult<()> {
        if !mode::is_directory(self.load(dir)?.mode) {
            return Err(FsError::NotDirectory);
        }
        self.note_access(caller, dir);
        let parent = self.parent_of(dir)?;
        let kind = mode::entry_kind(mode::DIRECTORY);
        for (own, ino, name) in [(COOKIE_SELF, dir, &b"."[..]), (COOKIE_PARENT, parent, &b".."[..])] {
            if cookie < own && !visit(&DirEntry { ino, kind, cookie: own, name, attr: None }) {
                return Ok(());
            }
        }
        let mut from = cookie.saturating_add(1).max(COOKIE_NAMES);
        loop {
            let _held = self.locks.read(dir);
            let chunk = self.chunk(dir, from)?;
            for listed in &chunk {
                if !self.visit_entry(listed, plus, visit)? {
                    return Ok(());
                }
            }
            match chunk.last() {
                Some(last) if chunk.len() == CHUNK => from = last.cookie + 1,
                _ => return Ok(()),
            }
        }
    }

    fn chunk(&self, dir: Ino, cookie: u64) -> FsResult<Vec<Listed>> {
        let from = key::dirent_from(self.branch, dir, cookie);
        let (_, until) = key::kind_range(self.branch, dir, key::KIND_DIRENT);
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut broken = None;
        self.ledger.scan(&from, &until, &mut |key, value| {
            match (key::dirent_place(key), DirentRecord::decode(value)) {
                (Some((cookie, name)), Ok(record)) => {
                    chunk.push(Listed { cookie, name: name.to_vec(), record });
                }
                (_, Err(error)) => broken = Some(Error::decode(&format!("entry of directory {dir}"), error)),
                (None, _) => broken = Some(Error::corrupt(format!("directory {dir}: an entry without a cookie"))),
            }
            broken.is_none() && chunk.len() < CHUNK
        })?;
        match broken {
            Some(error) => Err(FsError::Store(error)),
            None => Ok(chunk),
        }
    }

    fn visit_entry(
        &self,
        listed: &Listed,
        plus: bool,
        visit: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> FsResult<bool> {
        let ino = listed.record.ino;
        let attr = if plus { Some(attributes::attr(ino, &self.load(ino)?)) } else { None };
        // Counted before it is shown: from then on the kernel may forget it.
        if plus {
            self.references.add(ino);
        }
        let entry = DirEntry { ino, kind: listed.record.kind, cookie: listed.cookie, name: &listed.name, attr };
        let taken = visit(&entry);
        if plus && !taken {
            // The name holds the inode while its directory is held, so this is never an orphan's last reference …
            let orphan = self.references.forget(ino, 1);
            // … and a mark left by an op that failed is of no consequence.
            debug_assert!(!orphan || self.load(ino).is_ok_and(|record| record.nlink > 0));
        }
        Ok(taken)
    }
}
