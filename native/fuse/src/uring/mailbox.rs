//! Where answers wait for the one thread that may send them: the kernel hands an entry's next request to
//! the thread that committed its last, so nobody but the lane itself commits.
//!
//! Invariants: an answer left while the lane sleeps wakes it, with one write to its eventfd however many
//! follow; a mailbox outlives its lane for as long as somebody owes an answer, and what arrives then is dropped.

use super::slots::Lent;
use crate::errno::Errno;
use crate::transport::{Answer, InFlight};
use parking_lot::Mutex;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One answer, not sent yet.
pub struct Waiting {
    pub slot: usize,
    pub unique: u64,
    pub errno: Errno,
    pub body: Body,
}

pub enum Body {
    /// The first bytes of the scratch space that this request was served with.
    Scratch(usize),
    Bytes(Vec<u8>),
    /// The slot's payload comes home, `filled` bytes of it being the answer, unless `bytes` are.
    Lent {
        lent: Lent,
        filled: usize,
        bytes: Vec<u8>,
    },
}

struct State {
    answers: Vec<Waiting>,
    asleep: bool,
}

pub struct Mailbox {
    in_flight: Arc<InFlight>,
    state: Mutex<State>,
    bell: File,
    /// Address of the scratch space in use; 0: none is.
    scratch: AtomicUsize,
}

impl Mailbox {
    pub fn new(in_flight: Arc<InFlight>) -> io::Result<Self> {
        // SAFETY: eventfd takes only numbers.
        let bell = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if bell < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: eventfd has just made it; nobody else owns it.
        let bell = File::from(unsafe { OwnedFd::from_raw_fd(bell) });
        let state = Mutex::new(State { answers: Vec::new(), asleep: false });
        Ok(Self { in_flight, state, bell, scratch: AtomicUsize::new(0) })
    }

    /// To be polled: readable, with an edge at each ring.
    pub fn bell(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// Until the next call an answer that lies at the front of `scratch` is not copied.
    pub fn serve_with(&self, scratch: &[u8]) {
        self.scratch.store(scratch.as_ptr().addr(), Ordering::Relaxed);
    }

    /// Swaps the waiting answers for an empty vector.
    pub fn collect(&self, into: &mut Vec<Waiting>) {
        debug_assert!(into.is_empty());
        std::mem::swap(&mut self.state.lock().answers, into);
    }

    /// True: nothing waits, and whatever comes from now on rings. False: collect first.
    pub fn fall_asleep(&self) -> bool {
        let mut state = self.state.lock();
        state.asleep = state.answers.is_empty();
        state.asleep
    }

    pub fn wake_up(&self) {
        self.state.lock().asleep = false;
    }

    pub fn post(&self, answer: Waiting) {
        let mut state = self.state.lock();
        state.answers.push(answer);
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.ring();
        }
    }

    pub fn ring(&self) {
        // Nobody ever empties it; 2^64 rings are out of reach.
        let _cannot_block = (&self.bell).write(&1_u64.to_ne_bytes());
    }
}

impl Answer for Mailbox {
    fn answer(&self, slot: u64, unique: u64, errno: Errno, payload: &[u8]) {
        let in_scratch =
            !payload.is_empty() && payload.as_ptr().addr() == self.scratch.load(Ordering::Relaxed);
        let body = if in_scratch { Body::Scratch(payload.len()) } else { Body::Bytes(payload.to_vec()) };
        self.post(Waiting { slot: slot as usize, unique, errno, body });
    }
    fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rung(mailbox: &Mailbox) -> u64 {
        use std::io::Read;
        let mut count = [0; 8];
        match (&mailbox.bell).read_exact(&mut count) {
            Ok(()) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }

    #[test]
    fn a_sleeper_is_woken_once_a_batch() {
        let mailbox = Mailbox::new(Arc::default()).expect("eventfd");
        mailbox.answer(1, 10, 0, &[]);
        assert_eq!(rung(&mailbox), 0, "it was awake");
        assert!(!mailbox.fall_asleep(), "something waits");
        let mut answers = Vec::new();
        mailbox.collect(&mut answers);
        assert_eq!(answers.iter().map(|answer| (answer.slot, answer.unique)).collect::<Vec<_>>(), [(1, 10)]);
        assert!(mailbox.fall_asleep());
        mailbox.answer(2, 11, 0, &[]);
        mailbox.answer(3, 12, libc::EIO, &[]);
        assert_eq!(rung(&mailbox), 1);
        mailbox.wake_up();
        mailbox.answer(4, 13, 0, &[]);
        assert_eq!(rung(&mailbox), 0);
    }

    #[test]
    fn only_the_scratch_in_use_is_not_copied() {
        let mailbox = Mailbox::new(Arc::default()).expect("eventfd");
        let (scratch, other) = ([1_u8; 8], [2_u8; 8]);
        mailbox.serve_with(&scratch);
        mailbox.answer(0, 1, 0, &scratch[..5]);
        mailbox.answer(0, 2, 0, &other[..5]);
        mailbox.answer(0, 3, 0, &scratch[1..5]);
        mailbox.answer(0, 4, 0, &scratch[..0]);
        mailbox.serve_with(&[]);
        mailbox.answer(0, 5, 0, &scratch[..5]);
        let mut answers = Vec::new();
        mailbox.collect(&mut answers);
        let lengths = answers.iter().map(|answer| match &answer.body {
            Body::Scratch(length) => (true, *length),
            Body::Bytes(bytes) => (false, bytes.len()),
            Body::Lent { .. } => panic!("nothing was lent"),
        });
        assert_eq!(lengths.collect::<Vec<_>>(), [(true, 5), (false, 5), (false, 4), (false, 0), (false, 5)]);
    }
}
