//! Rename: one op, whatever it replaces, exchanges or leaves behind.

use super::change::Change;
use super::locks::Held;
use super::names::{Entry, Slot, check_directory, check_name};
use super::{Volume, mode};
use crate::api::{Caller, FsError, FsResult, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT};
use holdfast_format::inode::InodeRecord;
use holdfast_format::op::OpKind;
use holdfast_format::{Ino, ROOT_INO, key};

/// A name in a directory.
#[derive(Clone, Copy)]
struct Name<'a> {
    dir: Ino,
    name: &'a [u8],
}

/// Both names, under the shards of both directories and of what they name.
struct Pair<'a> {
    _held: Held<'a>,
    source: Entry,
    target: Slot,
}

fn check_flags(flags: u32) -> FsResult<()> {
    let known = RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT;
    let clash = flags & RENAME_EXCHANGE != 0 && flags & (RENAME_NOREPLACE | RENAME_WHITEOUT) != 0;
    if flags & !known != 0 || clash { Err(FsError::Invalid) } else { Ok(()) }
}

impl Volume {
    pub(super) fn move_name(
        &self,
        caller: &Caller,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        flags: u32,
    ) -> FsResult<()> {
        check_flags(flags)?;
        let (from, to) = (Name { dir: from.0, name: from.1 }, Name { dir: to.0, name: to.1 });
        for name in [from.name, to.name] {
            check_name(name)?;
            if matches!(name, b"." | b"..") {
                return Err(FsError::Invalid);
            }
        }
        // Whether it is a directory that moves is known only under the shards, which come after this lock.
        let _moves = (from.dir != to.dir).then(|| self.directory_moves.lock());
        let pair = self.hold_pair(from, to)?;
        let mut change = self.change(OpKind::Rename, caller);
        change.ino = pair.source.ino;
        check_directory(change.inode(from.dir)?)?;
        check_directory(change.inode(to.dir)?)?;
        match pair.target {
            Slot::Taken(_) if flags & RENAME_NOREPLACE != 0 => return Err(FsError::Exists),
            Slot::Free(_) if flags & RENAME_EXCHANGE != 0 => return Err(FsError::NotFound),
            Slot::Taken(target) if target.ino == pair.source.ino => return Ok(()),
            Slot::Taken(target) if flags & RENAME_EXCHANGE != 0 => {
                self.exchange(&mut change, (from, pair.source), (to, target))?;
            }
            Slot::Taken(target) => {
                self.check_replace(pair.source, target)?;
                self.check_no_loop(pair.source, to.dir)?;
                self.drop_name(&mut change, (to.dir, target.cookie), target.ino)?;
                self.relocate(&mut change, caller, (from, pair.source), (to, target.cookie), flags)?;
            }
            Slot::Free(cookie) => {
                self.check_no_loop(pair.source, to.dir)?;
                self.relocate(&mut change, caller, (from, pair.source), (to, cookie), flags)?;
            }
        }
        self.touch_directory(&mut change, from.dir)?;
        self.touch_directory(&mut change, to.dir)?;
        let done = change.commit(&[])?;
        drop(pair);
        drop(_moves);
        self.settle(done)
    }

    /// Takes the shards of everything that both names concern, and makes sure that they still name it.
    fn hold_pair(&self, from: Name<'_>, to: Name<'_>) -> FsResult<Pair<'_>> {
        loop {
            let Some(source) = self.find(from.dir, from.name)? else {
                let is_directory = mode::is_directory(self.load(from.dir)?.mode);
                return Err(if is_directory { FsError::NotFound } else { FsError::NotDirectory });
            };
            let target = self.find(to.dir, to.name)?;
            let mut inos = vec![from.dir, to.dir, source.ino];
            inos.extend(target.map(|entry| entry.ino));
            let held = self.locks.write_all(&inos);
            let source_now = self.find(from.dir, from.name)?.map(|entry| entry.ino);
            let slot = self.slot(to.dir, to.name)?;
            let target_now = match slot {
                Slot::Taken(entry) => Some(entry.ino),
                Slot::Free(_) => None,
            };
            if source_now == Some(source.ino) && target_now == target.map(|entry| entry.ino) {
                // The cookie may be another if the name went and came back in between.
                let source = self.find(from.dir, from.name)?.ok_or(FsError::NotFound)?;
                return Ok(Pair { _held: held, source, target: slot });
            }
        }
    }

    fn check_replace(&self, source: Entry, target: Entry) -> FsResult<()> {
        let directory = mode::entry_kind(mode::DIRECTORY);
        match (source.kind == directory, target.kind == directory) {
            (true, false) => Err(FsError::NotDirectory),
            (false, true) => Err(FsError::IsDirectory),
            _ => Ok(()),
        }
    }

    /// A directory cannot move below itself. Parents are stable: whoever changes one holds
    /// `directory_moves`.
    fn check_no_loop(&self, moved: Entry, into: Ino) -> FsResult<()> {
        if moved.kind != mode::entry_kind(mode::DIRECTORY) {
            return Ok(());
        }
        let mut at = into;
        loop {
            if at == moved.ino {
                return Err(FsError::Invalid);
            }
            let parent = self.parent_of(at)?;
            if at == ROOT_INO || parent == at {
                return Ok(());
            }
            at = parent;
        }
    }

    /// Gives the source the other name; the target's entry, if any, has been dropped from its inode.
    fn relocate<'v>(
        &'v self,
        change: &mut Change<'v>,
        caller: &Caller,
        (from, source): (Name<'_>, Entry),
        (to, cookie): (Name<'_>, u64),
        flags: u32,
    ) -> FsResult<()> {
        self.put_entry(change, (to.dir, cookie), to.name, source.ino, source.kind);
        self.reparent(change, source, (from.dir, source.cookie), (to.dir, cookie))?;
        if flags & RENAME_WHITEOUT != 0 {
            self.leave_whiteout(change, caller, from, source.cookie)
        } else {
            change.effects.delete(&key::dirent(self.branch, from.dir, source.cookie, from.name));
            Ok(())
        }
    }

    /// Moves one parent pointer, and a directory's share in its parent's nlink.
    fn reparent(
        &self,
        change: &mut Change<'_>,
        entry: Entry,
        from: (Ino, u64),
        to: (Ino, u64),
    ) -> FsResult<()> {
        let made = change.made;
        let record = change.inode(entry.ino)?;
        made.note(record);
        if (record.parent, record.parent_cookie) == from {
            record.parent = to.0;
            record.parent_cookie = to.1;
        } else {
            change.effects.delete(&key::link(self.branch, entry.ino, from.0, from.1));
            change.effects.put(&key::link(self.branch, entry.ino, to.0, to.1), &[]);
        }
        if entry.kind == mode::entry_kind(mode::DIRECTORY) && from.0 != to.0 {
            let parent = change.inode(from.0)?;
            parent.nlink = parent.nlink.saturating_sub(1);
            let parent = change.inode(to.0)?;
            parent.nlink = parent.nlink.checked_add(1).ok_or(FsError::TooManyLinks)?;
        }
        Ok(())
    }

    /// Both entries keep their cookies and swap what they name.
    fn exchange(
        &self,
        change: &mut Change<'_>,
        (from, source): (Name<'_>, Entry),
        (to, target): (Name<'_>, Entry),
    ) -> FsResult<()> {
        self.check_no_loop(source, to.dir)?;
        self.check_no_loop(target, from.dir)?;
        self.put_entry(change, (from.dir, source.cookie), from.name, target.ino, target.kind);
        self.put_entry(change, (to.dir, target.cookie), to.name, source.ino, source.kind);
        let (source_place, target_place) = ((from.dir, source.cookie), (to.dir, target.cookie));
        self.reparent(change, source, source_place, target_place)?;
        self.reparent(change, target, target_place, source_place)
    }

    /// A character device 0:0 under the old name: what an overlay takes for "deleted here".
    fn leave_whiteout<'v>(
        &'v self,
        change: &mut Change<'v>,
        caller: &Caller,
        from: Name<'_>,
        cookie: u64,
    ) -> FsResult<()> {
        let ino = self.next_ino(change)?;
        let record = InodeRecord {
            mode: mode::CHARACTER_DEVICE,
            uid: caller.uid,
            gid: caller.gid,
            nlink: 1,
            parent: from.dir,
            parent_cookie: cookie,
            ..change.made.birth()
        };
        self.put_entry(change, (from.dir, cookie), from.name, ino, mode::entry_kind(record.mode));
        change.insert(ino, record);
        Ok(())
    }
}
