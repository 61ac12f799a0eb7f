//! A request that a helper serves: into the slot's own memory, which the lane has lent it.
//!
//! Invariant: a helper never commits: the slot goes back through the lane's mailbox once serving is over.

use super::mailbox::{Body, Mailbox, Waiting};
use super::slots::Lent;
use crate::abi::input::{InHeader, Message};
use crate::errno::Errno;
use crate::transport::{Answer, InFlight, Reply, Serve};
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// One request to serve.
pub struct Work {
    pub serve: Arc<dyn Serve>,
    pub mailbox: Arc<Mailbox>,
    pub slot: usize,
    pub header: InHeader,
    pub op_in: Vec<u8>,
    pub payload: Vec<u8>,
    pub lent: Lent,
}

/// Keeps the answer until the slot's memory is nobody's any more.
struct Kept {
    mailbox: Arc<Mailbox>,
    /// Where the slot's memory begins.
    front: usize,
    answer: Mutex<Option<(Errno, Content)>>,
}

enum Content {
    InPlace(usize),
    Bytes(Vec<u8>),
}

impl Answer for Kept {
    fn answer(&self, _slot: u64, _unique: u64, errno: Errno, payload: &[u8]) {
        let in_place = !payload.is_empty() && payload.as_ptr().addr() == self.front;
        let content =
            if in_place { Content::InPlace(payload.len()) } else { Content::Bytes(payload.to_vec()) };
        *self.answer.lock() = Some((errno, content));
    }
    fn in_flight(&self) -> &InFlight {
        self.mailbox.in_flight()
    }
}

impl Work {
    /// `counted`: the duty that the lane had. It goes when the answer is on its way, so that the request is always counted.
    pub fn run(mut self, counted: Reply) {
        let out = self.lent.bytes();
        let front = out.as_ptr().addr();
        let kept = Arc::new(Kept { mailbox: Arc::clone(&self.mailbox), front, answer: Mutex::new(None) });
        let unique = self.header.unique;
        let reply = Reply::new(Arc::clone(&kept) as Arc<dyn Answer>, self.slot as u64, unique);
        let message = Message { header: self.header, op_in: &self.op_in, payload: &self.payload };
        // A panic was reported when it happened, and has answered with EIO.
        let _panicked = catch_unwind(AssertUnwindSafe(|| self.serve.serve(&message, out, reply)));
        // What only looks is answered before serving returns.
        let (errno, content) = kept.answer.lock().take().unwrap_or((libc::EIO, Content::InPlace(0)));
        let (filled, bytes) = match content {
            Content::InPlace(filled) => (filled, Vec::new()),
            Content::Bytes(bytes) => (0, bytes),
        };
        let body = Body::Lent { lent: self.lent, filled, bytes };
        self.mailbox.post(Waiting { slot: self.slot, unique, errno, body });
        counted.nothing();
    }
}
