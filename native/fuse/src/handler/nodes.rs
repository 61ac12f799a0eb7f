//! Requests about inodes: attributes, extended attributes, the whole file system.

use super::{Answered, Handler, MALFORMED, changer, errno, put};
use crate::abi::input::{Message, SetAttrIn, SetxattrIn, parse_xattr_size, take_string};
use crate::abi::output;
use crate::abi::{SETXATTR_ACL_KILL_SGID, fattr};
use holdfast_format::Ino;
use holdfast_format::inode::Time;
use holdfast_format::limits::{XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use holdfast_store::api::{SetAttr, SetTime};

fn set_time(valid: u32, set: u32, now: u32, time: (i64, u32)) -> Option<SetTime> {
    match (valid & set != 0, valid & now != 0) {
        (true, false) => Some(SetTime::At(Time { sec: time.0, nsec: time.1 })),
        (true, true) => Some(SetTime::Now),
        (false, _) => None,
    }
}

/// ctime is the daemon's own, so FATTR_CTIME is not looked at; neither are handles and lock owners.
fn set_attr(args: &SetAttrIn) -> SetAttr {
    let when = |bit: u32, value: u32| (args.valid & bit != 0).then_some(value);
    SetAttr {
        mode: when(fattr::MODE, args.mode & 0o7777),
        uid: when(fattr::UID, args.uid),
        gid: when(fattr::GID, args.gid),
        size: (args.valid & fattr::SIZE != 0).then_some(args.size),
        atime: set_time(args.valid, fattr::ATIME, fattr::ATIME_NOW, args.atime),
        mtime: set_time(args.valid, fattr::MTIME, fattr::MTIME_NOW, args.mtime),
        kill_suidgid: args.valid & fattr::KILL_SUIDGID != 0,
    }
}

fn take_xattr_name(payload: &[u8]) -> Result<(&[u8], &[u8]), crate::errno::Errno> {
    let (name, rest) = take_string(payload).ok_or(MALFORMED)?;
    match name.len() {
        0 => Err(MALFORMED),
        length if length > XATTR_NAME_BYTES_MAX => Err(libc::ERANGE),
        _ => Ok((name, rest)),
    }
}

/// `asked` 0: only the size is wanted.
fn put_xattr(out: &mut [u8], asked: u32, value: &[u8]) -> Answered {
    match asked as usize {
        0 => put(out, &output::size_out(value.len() as u32)),
        asked if asked < value.len() => Err(libc::ERANGE),
        _ => put(out, value),
    }
}

impl Handler {
    pub(super) fn getattr(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        let attr = self.file_system.getattr(Ino(message.header.nodeid)).map_err(errno)?;
        self.put_attr(out, &attr)
    }

    pub(super) fn statx(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        let attr = self.file_system.getattr(Ino(message.header.nodeid)).map_err(errno)?;
        put(out, &output::statx(&attr, &self.lifetimes))
    }

    pub(super) fn setattr(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        let args = SetAttrIn::parse(message.op_in).ok_or(MALFORMED)?;
        let ino = Ino(message.header.nodeid);
        let attr = self.file_system.setattr(&changer(&message.header, 0), ino, &set_attr(&args));
        self.put_attr(out, &attr.map_err(errno)?)
    }

    pub(super) fn readlink(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        let target = self.file_system.readlink(Ino(message.header.nodeid)).map_err(errno)?;
        put(out, &target)
    }

    pub(super) fn statfs(&self, out: &mut [u8]) -> Answered {
        put(out, &output::statfs(&self.file_system.statfs().map_err(errno)?))
    }

    pub(super) fn setxattr(&self, message: &Message<'_>) -> Answered {
        let args = SetxattrIn::parse(message.op_in).ok_or(MALFORMED)?;
        let (name, rest) = take_xattr_name(message.payload)?;
        let value = rest.get(..args.size as usize).ok_or(MALFORMED)?;
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(libc::E2BIG);
        }
        let kill_sgid = args.setxattr_flags & SETXATTR_ACL_KILL_SGID != 0;
        let caller = changer(&message.header, 0);
        let ino = Ino(message.header.nodeid);
        let done = self.file_system.setxattr(&caller, ino, name, value, args.flags, kill_sgid);
        done.map(|()| 0).map_err(errno)
    }

    pub(super) fn getxattr(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        let asked = parse_xattr_size(message.op_in).ok_or(MALFORMED)?;
        let (name, _) = take_xattr_name(message.payload)?;
        let value = self.file_system.getxattr(Ino(message.header.nodeid), name).map_err(errno)?;
        put_xattr(out, asked, &value)
    }

    pub(super) fn listxattr(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        let asked = parse_xattr_size(message.op_in).ok_or(MALFORMED)?;
        let names = self.file_system.listxattr(Ino(message.header.nodeid)).map_err(errno)?;
        put_xattr(out, asked, &names)
    }

    pub(super) fn removexattr(&self, message: &Message<'_>) -> Answered {
        let (name, _) = take_xattr_name(message.payload)?;
        let ino = Ino(message.header.nodeid);
        let done = self.file_system.removexattr(&changer(&message.header, 0), ino, name);
        done.map(|()| 0).map_err(errno)
    }
}
