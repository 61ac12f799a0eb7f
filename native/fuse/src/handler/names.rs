//! Requests about names in directories.

use super::{Answered, Handler, MALFORMED, caller, changer, errno, put};
use crate::abi::input::{
    CreateIn, InHeader, Message, MkdirIn, MknodIn, ReadIn, RenameIn, parse_u64, take_string,
};
use crate::abi::output::{self, DirectoryPage};
use crate::abi::{OPEN_KEEP_CACHE, OPEN_NO_FLUSH};
use crate::errno::Errno;
use holdfast_format::Ino;
use holdfast_format::limits::NAME_BYTES_MAX;
use holdfast_store::api::{FsError, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, is_fleeting_name};

/// The kernel's own limit on a FUSE name is 4,095 bytes (or 1,023): ours is checked here, in every request.
fn check_length(name: &[u8]) -> Result<&[u8], Errno> {
    if name.len() > NAME_BYTES_MAX { Err(libc::ENAMETOOLONG) } else { Ok(name) }
}

/// A name that an entry may have or get: neither empty nor "." nor "..", no '/' (NUL ended it).
fn check(name: &[u8]) -> Result<&[u8], Errno> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        return Err(MALFORMED);
    }
    check_length(name)
}

fn take_name(payload: &[u8]) -> Result<(&[u8], &[u8]), Errno> {
    let (name, rest) = take_string(payload).ok_or(MALFORMED)?;
    Ok((check(name)?, rest))
}

fn dir(header: &InHeader) -> Ino {
    Ino(header.nodeid)
}

impl Handler {
    /// "." and ".." come from NFS exports and file handles.
    pub(super) fn lookup(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        let (name, _) = take_string(message.payload).ok_or(MALFORMED)?;
        if name.is_empty() || name.contains(&b'/') {
            return Err(MALFORMED);
        }
        let parent = dir(&message.header);
        match self.file_system.lookup(parent, check_length(name)?) {
            Ok(attr) => self.put_entry(out, &attr),
            Err(FsError::NotFound) if self.lifetimes.negative_s > 0 && !is_fleeting_name(parent, name) => {
                put(out, &output::negative_entry(&self.lifetimes))
            }
            Err(error) => Err(errno(error)),
        }
    }

    pub(super) fn mknod(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        let args = MknodIn::parse(message.op_in).ok_or(MALFORMED)?;
        let (name, _) = take_name(message.payload)?;
        let caller = changer(&message.header, args.umask);
        let attr = self.file_system.mknod(&caller, dir(&message.header), name, args.mode, args.rdev);
        self.put_entry(out, &attr.map_err(errno)?)
    }

    pub(super) fn mkdir(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        let args = MkdirIn::parse(message.op_in).ok_or(MALFORMED)?;
        let (name, _) = take_name(message.payload)?;
        let caller = changer(&message.header, args.umask);
        let attr = self.file_system.mkdir(&caller, dir(&message.header), name, args.mode);
        self.put_entry(out, &attr.map_err(errno)?)
    }

    pub(super) fn symlink(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        let (name, rest) = take_name(message.payload)?;
        let (target, _) = take_string(rest).ok_or(MALFORMED)?;
        let attr = self.file_system.symlink(&changer(&message.header, 0), dir(&message.header), name, target);
        self.put_entry(out, &attr.map_err(errno)?)
    }

    pub(super) fn link(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        let ino = Ino(parse_u64(message.op_in).ok_or(MALFORMED)?);
        let (name, _) = take_name(message.payload)?;
        let attr = self.file_system.link(&changer(&message.header, 0), ino, dir(&message.header), name);
        self.put_entry(out, &attr.map_err(errno)?)
    }

    pub(super) fn unlink(&self, message: &Message<'_>) -> Answered {
        let (name, _) = take_name(message.payload)?;
        let done = self.file_system.unlink(&changer(&message.header, 0), dir(&message.header), name);
        done.map(|()| 0).map_err(errno)
    }

    pub(super) fn rmdir(&self, message: &Message<'_>) -> Answered {
        let (name, _) = take_name(message.payload)?;
        let done = self.file_system.rmdir(&changer(&message.header, 0), dir(&message.header), name);
        done.map(|()| 0).map_err(errno)
    }

    pub(super) fn rename(&self, message: &Message<'_>) -> Answered {
        let args = RenameIn::parse(message.header.opcode, message.op_in).ok_or(MALFORMED)?;
        if args.flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT) != 0 {
            return Err(libc::EINVAL);
        }
        let (from, rest) = take_name(message.payload)?;
        let (to, _) = take_name(rest)?;
        let done = self.file_system.rename(
            &changer(&message.header, 0),
            (dir(&message.header), from),
            (Ino(args.new_dir), to),
            args.flags,
        );
        done.map(|()| 0).map_err(errno)
    }

    /// Entry, then an open that keeps no state. The kernel sends CREATE for names it knows to be absent; if
    /// the name exists after all, its view is stale and ESTALE makes it look again (EEXIST when the caller
    /// asked for that).
    pub(super) fn create(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        let args = CreateIn::parse(message.op_in).ok_or(MALFORMED)?;
        let (name, _) = take_name(message.payload)?;
        let caller = changer(&message.header, args.umask);
        match self.file_system.create(&caller, dir(&message.header), name, args.mode) {
            Ok(attr) => self.put_opened(out, &attr),
            Err(FsError::Exists) if args.flags & libc::O_EXCL as u32 == 0 => Err(libc::ESTALE),
            Err(error) => Err(errno(error)),
        }
    }

    /// As CREATE; the name it carries means nothing.
    pub(super) fn tmpfile(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        let args = CreateIn::parse(message.op_in).ok_or(MALFORMED)?;
        let caller = changer(&message.header, args.umask);
        let attr = self.file_system.tmpfile(&caller, dir(&message.header), args.mode);
        self.put_opened(out, &attr.map_err(errno)?)
    }

    fn put_opened(&self, out: &mut [u8], attr: &holdfast_store::api::Attr) -> Answered {
        let entry_bytes = self.put_entry(out, attr)?;
        let open = output::open_out(OPEN_KEEP_CACHE | OPEN_NO_FLUSH);
        Ok(entry_bytes + put(&mut out[entry_bytes..], &open)?)
    }

    /// With `plus` each entry carries its attributes and counts a reference; "." and ".." have nodeid 0 and
    /// count none.
    pub(super) fn readdir(&self, message: &Message<'_>, out: &mut [u8], plus: bool) -> Answered {
        const NO_ENTRY: [u8; output::ENTRY_BYTES] = [0; output::ENTRY_BYTES];
        let args = ReadIn::parse(message.op_in).ok_or(MALFORMED)?;
        let size = out.len().min(args.size as usize);
        let mut page = DirectoryPage::new(&mut out[..size]);
        let mut refused = false;
        let done = self.file_system.readdir(
            &caller(&message.header, 0),
            dir(&message.header),
            args.offset,
            plus,
            &mut |found| {
                let entry = match &found.attr {
                    Some(attr) if plus => Some(output::entry(attr, &self.lifetimes)),
                    _ if plus => Some(NO_ENTRY),
                    _ => None,
                };
                let added = page.add(found.ino.0, found.kind, found.cookie, found.name, entry.as_ref());
                refused |= !added;
                added
            },
        );
        // What was listed is shown first, and counted as known: what failed comes again with the next request.
        if page.used() == 0 {
            done.map_err(errno)?;
        }
        if page.used() == 0 && refused { Err(libc::EINVAL) } else { Ok(page.used()) }
    }
}
