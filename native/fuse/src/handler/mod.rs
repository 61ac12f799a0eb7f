//! From a parsed request to a call of the file system and back: convert, call, convert back.

mod data;
#[cfg(test)]
mod fuzz;
mod gated;
mod names;
mod nodes;
mod programs;

use crate::abi::input::{InHeader, Message, batch_forget, parse_u64};
use crate::abi::opcode;
use crate::abi::output::{self, Lifetimes};
use crate::errno::{Errno, WOULD_WAIT, errno_of};
use crate::transport::{Reply, Serve};
use holdfast_device::patience;
use holdfast_format::{Ino, ROOT_INO};
use holdfast_store::api::{Attr, Caller, FileSystem, FsError};
use holdfast_store::gate::Gate;
use std::sync::Arc;

/// Serves one connection.
#[derive(Clone)]
pub struct Handler {
    file_system: Arc<dyn FileSystem>,
    lifetimes: Lifetimes,
    /// Where what changes something passes.
    gate: Option<Arc<Gate>>,
}

/// Bytes of `out` that make the answer, or why there is none.
type Answered = Result<usize, Errno>;

/// A request that its decoder refuses.
const MALFORMED: Errno = libc::EINVAL;

fn caller(header: &InHeader, umask: u32) -> Caller {
    Caller { uid: header.uid, gid: header.gid, pid: header.pid, umask, writer: None }
}

/// The same for what changes something.
fn changer(header: &InHeader, umask: u32) -> Caller {
    let writer = programs::writer(header.uid, header.pid);
    Caller { uid: header.uid, gid: header.gid, pid: writer.pid, umask, writer: Some(writer) }
}

fn errno(error: FsError) -> Errno {
    errno_of(&error)
}

/// Copies a fixed-size answer to the front of `out`.
fn put(out: &mut [u8], answer: &[u8]) -> Answered {
    out.get_mut(..answer.len()).ok_or(libc::EIO)?.copy_from_slice(answer);
    Ok(answer.len())
}

impl Handler {
    pub fn new(file_system: Arc<dyn FileSystem>, lifetimes: Lifetimes) -> Self {
        let gate = file_system.gate();
        Self { file_system, lifetimes, gate }
    }

    fn put_entry(&self, out: &mut [u8], attr: &Attr) -> Answered {
        put(out, &output::entry(attr, &self.lifetimes))
    }

    fn put_attr(&self, out: &mut [u8], attr: &Attr) -> Answered {
        put(out, &output::attr_out(attr, &self.lifetimes))
    }

    /// Requests that are answered before the call returns.
    fn answer(&self, message: &Message<'_>, out: &mut [u8]) -> Answered {
        match message.header.opcode {
            opcode::LOOKUP => self.lookup(message, out),
            opcode::GETATTR => self.getattr(message, out),
            opcode::SETATTR => self.setattr(message, out),
            opcode::READLINK => self.readlink(message, out),
            opcode::SYMLINK => self.symlink(message, out),
            opcode::MKNOD => self.mknod(message, out),
            opcode::MKDIR => self.mkdir(message, out),
            opcode::UNLINK => self.unlink(message),
            opcode::RMDIR => self.rmdir(message),
            opcode::RENAME | opcode::RENAME2 => self.rename(message),
            opcode::LINK => self.link(message, out),
            opcode::READ => self.read(message, out),
            opcode::WRITE => self.write(message, out),
            opcode::STATFS => self.statfs(out),
            opcode::SETXATTR => self.setxattr(message),
            opcode::GETXATTR => self.getxattr(message, out),
            opcode::LISTXATTR => self.listxattr(message, out),
            opcode::REMOVEXATTR => self.removexattr(message),
            opcode::READDIR => self.readdir(message, out, false),
            opcode::READDIRPLUS => self.readdir(message, out, true),
            opcode::CREATE => self.create(message, out),
            opcode::TMPFILE => self.tmpfile(message, out),
            opcode::FALLOCATE => self.fallocate(message),
            opcode::LSEEK => self.lseek(message, out),
            opcode::COPY_FILE_RANGE | opcode::COPY_FILE_RANGE_64 => self.copy_file_range(message, out),
            opcode::STATX => self.statx(message, out),
            // A CREATE before the first OPEN is released; there is nothing to release.
            opcode::RELEASE | opcode::RELEASEDIR | opcode::DESTROY => Ok(0),
            // The terminal's question "are you one?", and attributes nobody keeps here.
            opcode::IOCTL => Err(libc::ENOTTY),
            // ENOSYS is remembered by the kernel for the connection's life. OPEN, OPENDIR, FLUSH: never ask
            // again, opens then keep the cache. ACCESS: default_permissions decides. POLL, BMAP, locks: the
            // kernel's way.
            _ => Err(libc::ENOSYS),
        }
    }

    /// Parks the answer until the flush is done; the thread goes on at once.
    fn flush(&self, message: &Message<'_>, ino: Ino, reply: Reply) {
        let done = Box::new(move |outcome| match outcome {
            Ok(()) => reply.data(&[]),
            Err(error) => reply.error(errno(error)),
        });
        self.file_system.fsync(&caller(&message.header, 0), ino, done);
    }
}

/// Requests that look and change nothing: they can be begun twice.
fn only_looks(op: u32) -> bool {
    matches!(
        op,
        opcode::READ
            | opcode::LOOKUP
            | opcode::GETATTR
            | opcode::STATX
            | opcode::READDIR
            | opcode::READDIRPLUS
            | opcode::READLINK
            | opcode::GETXATTR
            | opcode::LISTXATTR
            | opcode::LSEEK
    )
}

impl Serve for Handler {
    fn try_serve(&self, message: &Message<'_>, out: &mut [u8], reply: Reply) -> Option<Reply> {
        if !only_looks(message.header.opcode) {
            self.serve(message, out, reply);
            return None;
        }
        match patience::hurry(|| self.answer(message, out)) {
            Ok(bytes) => reply.data(&out[..bytes]),
            Err(WOULD_WAIT) => return Some(reply),
            Err(errno) => reply.error(errno),
        }
        None
    }

    fn serve(&self, message: &Message<'_>, out: &mut [u8], reply: Reply) {
        match &self.gate {
            Some(gate) if gated::changes(message.header.opcode) => self.pass(gate, message, out, reply),
            _ => self.serve_now(message, out, reply),
        }
    }
}

impl Handler {
    fn serve_now(&self, message: &Message<'_>, out: &mut [u8], reply: Reply) {
        let ino = Ino(message.header.nodeid);
        match message.header.opcode {
            opcode::FSYNC | opcode::FSYNCDIR => self.flush(message, ino, reply),
            opcode::SYNCFS => self.flush(message, ROOT_INO, reply),
            opcode::FORGET => {
                if let Some(count) = parse_u64(message.op_in) {
                    self.file_system.forget(ino, count);
                }
                reply.nothing();
            }
            opcode::BATCH_FORGET => {
                for (ino, count) in batch_forget(message.op_in, message.payload) {
                    self.file_system.forget(Ino(ino), count);
                }
                reply.nothing();
            }
            // Nothing here waits for long but a parked flush, or who waits at a gate, and that ends by itself.
            opcode::INTERRUPT | opcode::NOTIFY_REPLY => reply.nothing(),
            _ => match self.answer(message, out) {
                Ok(bytes) => reply.data(&out[..bytes]),
                Err(errno) => reply.error(errno),
            },
        }
    }
}
