//! Requests about the bytes of a file.

use super::{Answered, Handler, MALFORMED, caller, changer, errno, put};
use crate::abi::input::{CopyFileRangeIn, FallocateIn, LseekIn, Message, ReadIn, WriteIn};
use crate::abi::{WRITE_CACHE, WRITE_KILL_SUIDGID, opcode, output};
use holdfast_format::Ino;
use holdfast_store::api::{Whence, WriteFlags};

impl Handler {
    /// Straight into the answer's buffer. atime is the daemon's; the kernel drops its own copy after a READ.
    pub(super) fn read(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        let args = ReadIn::parse(message.op_in).ok_or(MALFORMED)?;
        let size = out.len().min(args.size as usize);
        let ino = Ino(message.header.nodeid);
        let filled = self.file_system.read(&caller(&message.header, 0), ino, args.offset, &mut out[..size]);
        let filled = filled.map_err(errno)?;
        if filled > size { Err(libc::EIO) } else { Ok(filled) }
    }

    /// Dirty pages of a mapping come with uid 0 and pid 0: who wrote them is unknown, and they were allowed
    /// to.
    pub(super) fn write(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        let args = WriteIn::parse(message.op_in).ok_or(MALFORMED)?;
        let data = message.payload.get(..args.size as usize).ok_or(MALFORMED)?;
        let flags = WriteFlags {
            kill_suidgid: args.write_flags & WRITE_KILL_SUIDGID != 0,
            // O_SYNC includes O_DSYNC's bit.
            will_sync: args.flags & libc::O_DSYNC as u32 != 0,
        };
        let ino = Ino(message.header.nodeid);
        let of_a_mapping = args.write_flags & WRITE_CACHE != 0;
        let caller = if of_a_mapping { caller(&message.header, 0) } else { changer(&message.header, 0) };
        self.file_system.write(&caller, ino, args.offset, data, flags).map_err(errno)?;
        put(out, &output::size_out(args.size))
    }

    pub(super) fn fallocate(&self, message: &Message<'_>) -> Answered {
        let args = FallocateIn::parse(message.op_in).ok_or(MALFORMED)?;
        let ino = Ino(message.header.nodeid);
        let caller = changer(&message.header, 0);
        let done = self.file_system.fallocate(&caller, ino, args.offset, args.length, args.mode);
        done.map(|()| 0).map_err(errno)
    }

    /// SEEK_SET, SEEK_CUR and SEEK_END never come here.
    pub(super) fn lseek(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        let args = LseekIn::parse(message.op_in).ok_or(MALFORMED)?;
        let whence = match args.whence.cast_signed() {
            libc::SEEK_DATA => Whence::Data,
            libc::SEEK_HOLE => Whence::Hole,
            _ => return Err(libc::EINVAL),
        };
        let found = self.file_system.lseek(Ino(message.header.nodeid), args.offset, whence);
        put(out, &output::u64_out(found.map_err(errno)?))
    }

    /// The older request answers in 32 bits: it copies less rather than overflow.
    pub(super) fn copy_file_range(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        const NARROW_BYTES_MAX: u64 = 0xffff_f000;
        let args = CopyFileRangeIn::parse(message.op_in).ok_or(MALFORMED)?;
        if args.flags != 0 {
            return Err(libc::EINVAL);
        }
        let wide = message.header.opcode == opcode::COPY_FILE_RANGE_64;
        let length = if wide { args.length } else { args.length.min(NARROW_BYTES_MAX) };
        let copied = self.file_system.copy_file_range(
            &changer(&message.header, 0),
            (Ino(message.header.nodeid), args.offset_in),
            (Ino(args.nodeid_out), args.offset_out),
            length,
        );
        let copied = copied.map_err(errno)?;
        if wide { put(out, &output::u64_out(copied)) } else { put(out, &output::size_out(copied as u32)) }
    }
}
