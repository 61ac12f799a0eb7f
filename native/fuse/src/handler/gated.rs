//! Requests that change something wait at the gate while their group is handed to another site; what only looks goes on.

use super::Handler;
use crate::abi::input::{Message, WriteIn};
use crate::abi::{WRITE_CACHE, opcode};
use crate::transport::Reply;
use holdfast_store::gate::Gate;
use std::sync::Arc;

/// An answer to what changes something has no payload, or that of an entry.
const ANSWER_BYTES_MAX: usize = 4096;

/// A flush changes nothing, but goes into the log.
pub(super) fn changes(op: u32) -> bool {
    matches!(
        op,
        opcode::WRITE
            | opcode::SETATTR
            | opcode::CREATE
            | opcode::MKNOD
            | opcode::MKDIR
            | opcode::SYMLINK
            | opcode::LINK
            | opcode::TMPFILE
            | opcode::UNLINK
            | opcode::RMDIR
            | opcode::RENAME
            | opcode::RENAME2
            | opcode::SETXATTR
            | opcode::REMOVEXATTR
            | opcode::FALLOCATE
            | opcode::COPY_FILE_RANGE
            | opcode::COPY_FILE_RANGE_64
            | opcode::FSYNC
            | opcode::FSYNCDIR
            | opcode::SYNCFS
    )
}

/// Dirty pages of a mapping, which nobody waits for, or only who asked for all of them to be written back.
fn writes_back(message: &Message<'_>) -> bool {
    let is_write = message.header.opcode == opcode::WRITE;
    is_write && WriteIn::parse(message.op_in).is_some_and(|args| args.write_flags & WRITE_CACHE != 0)
}

impl Handler {
    /// Serves it now, or when the gate opens, on the gate's thread then: the request is copied, and its caller waits.
    pub(super) fn pass(&self, gate: &Arc<Gate>, message: &Message<'_>, out: &mut [u8], reply: Reply) {
        if let Some(_pass) = gate.enter(writes_back(message)) {
            return self.serve_now(message, out, reply);
        }
        let (handler, again) = (self.clone(), Arc::clone(gate));
        let (header, op_in, payload) = (message.header, message.op_in.to_vec(), message.payload.to_vec());
        let bytes = op_in.len() + payload.len();
        let later = move || {
            let message = Message { header, op_in: &op_in, payload: &payload };
            handler.pass(&again, &message, &mut [0; ANSWER_BYTES_MAX], reply);
        };
        gate.park(bytes, Box::new(later));
    }
}
