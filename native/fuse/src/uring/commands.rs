//! A ring and the three commands this door needs. SQEs are 128 bytes: the FUSE part lies behind the 64 of a
//! plain one.

use super::slots::Slots;
use holdfast_device::DirectRead;
use io_uring::squeue::Entry128;
use io_uring::{IoUring, cqueue, opcode, types};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

const REGISTER: u32 = 1;
const COMMIT_AND_FETCH: u32 = 2;
/// Header and payload.
const VECTORS: u32 = 2;
/// Where `len` is in an SQE.
const LEN_OFFSET: usize = 24;
/// Completions of the bell carry this, all others their slot.
const BELL: u64 = u64::MAX;
/// Beside a number: a read of a drive.
const FILL: u64 = 1 << 32;

/// What came out of the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completion {
    /// The bell rang; it must be polled anew when `armed` is false.
    Bell {
        armed: bool,
    },
    Request {
        slot: usize,
    },
    /// A drive was read: bytes, or a negative errno.
    Fill {
        number: usize,
        result: i32,
    },
    /// The kernel keeps this slot no longer; a positive errno.
    Lost {
        slot: usize,
        errno: i32,
    },
}

/// Field order: the ring goes before the connection.
pub struct Commands {
    ring: IoUring<Entry128>,
    _device: OwnedFd,
}

/// `flags u64 0 | commit_id u64 8 | qid u16 16 | padding 18..24`, in the command area.
fn command(queue: u16, commit_id: u64) -> [u8; 80] {
    let mut bytes = [0; 80];
    bytes[8..16].copy_from_slice(&commit_id.to_ne_bytes());
    bytes[16..18].copy_from_slice(&queue.to_ne_bytes());
    bytes
}

fn completion(entry: &cqueue::Entry) -> Completion {
    match entry.user_data() {
        BELL => Completion::Bell { armed: cqueue::more(entry.flags()) },
        slot if slot & FILL != 0 => {
            Completion::Fill { number: (slot & !FILL) as usize, result: entry.result() }
        }
        slot if entry.result() >= 0 => Completion::Request { slot: slot as usize },
        slot => Completion::Lost { slot: slot as usize, errno: -entry.result() },
    }
}

/// Signals, a shortage of memory, and completions that want to be taken first are no failure: what was not
/// submitted is, with the next call.
fn entered(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

impl Commands {
    /// Made by the thread that will use it, the only one that may.
    pub fn new(device: OwnedFd, slots: usize, fills: usize) -> io::Result<Self> {
        // Each slot has one command at most, and the bell one.
        let entries = (slots + fills) as u32 + 1;
        let ring = IoUring::<Entry128>::builder()
            .setup_cqsize(entries.next_power_of_two() * 2)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .build(entries)?;
        ring.submitter().register_files(&[device.as_raw_fd()])?;
        Ok(Self { ring, _device: device })
    }

    /// # Safety
    /// Whatever the entry points at outlives the ring, and is nobody's until its completion.
    unsafe fn push(&mut self, entry: &Entry128) -> io::Result<()> {
        // SAFETY: the caller's promise.
        if unsafe { self.ring.submission().push(entry) }.is_err() {
            self.submit()?;
            // SAFETY: the caller's promise.
            unsafe { self.ring.submission().push(entry) }.map_err(|_| io::ErrorKind::ResourceBusy)?;
        }
        Ok(())
    }

    /// Offers a slot to its queue. Success has no completion but the first request.
    ///
    /// # Safety
    /// `slots` outlives the ring.
    pub unsafe fn register(&mut self, slots: &mut Slots, slot: usize) -> io::Result<()> {
        let command = opcode::UringCmd80::new(types::Fixed(0), REGISTER)
            .cmd(command(slots.queue(slot), 0))
            .addr(Some(slots.vectors(slot).addr() as u64));
        let mut entry = command.build().user_data(slot as u64);
        // SAFETY: Entry128 is the kernel's 128-byte SQE, whose `len` is the u32 at this offset.
        unsafe { (&raw mut entry).cast::<u8>().add(LEN_OFFSET).cast::<u32>().write(VECTORS) };
        slots.give_to_kernel(slot);
        // SAFETY: slot and iovecs live as long as `slots`, and the slot has just been given away.
        unsafe { self.push(&entry) }
    }

    /// Sends a slot's answer and waits for its next request.
    ///
    /// # Safety
    /// As for [`Commands::register`].
    pub unsafe fn commit(&mut self, slots: &mut Slots, slot: usize) -> io::Result<()> {
        let command = opcode::UringCmd80::new(types::Fixed(0), COMMIT_AND_FETCH)
            .cmd(command(slots.queue(slot), slots.commit_id(slot)));
        let entry = command.build().user_data(slot as u64);
        slots.give_to_kernel(slot);
        // SAFETY: as in `register`.
        unsafe { self.push(&entry) }
    }

    /// Reads a drive. The caller gives the number.
    ///
    /// # Safety
    /// `into` stays where it is, and is nobody's, until the completion.
    pub unsafe fn fill(&mut self, number: usize, read: &DirectRead, into: &mut [u8]) -> io::Result<()> {
        debug_assert_eq!(into.len(), read.bytes());
        let read = opcode::Read::new(types::Fd(read.descriptor()), into.as_mut_ptr(), into.len() as u32)
            .offset(read.offset());
        let entry = Entry128::from(read.build().user_data(FILL | number as u64));
        // SAFETY: the caller's promise.
        unsafe { self.push(&entry) }
    }

    /// Watches an eventfd that is never read: each write to it is one completion.
    pub fn watch(&mut self, bell: RawFd) -> io::Result<()> {
        let poll = opcode::PollAdd::new(types::Fd(bell), libc::POLLIN as u32).multi(true);
        let entry = Entry128::from(poll.build().user_data(BELL));
        // SAFETY: a poll points at no memory.
        unsafe { self.push(&entry) }
    }

    pub fn submit(&mut self) -> io::Result<()> {
        entered(self.ring.submit())
    }

    /// Submits, and blocks until something is complete.
    pub fn wait(&mut self) -> io::Result<()> {
        entered(self.ring.submit_and_wait(1))
    }

    /// The same, for so long at most.
    pub fn wait_for(&mut self, ns: u64) -> io::Result<()> {
        let time = types::Timespec::new().sec(ns / 1_000_000_000).nsec((ns % 1_000_000_000) as u32);
        let args = types::SubmitArgs::new().timespec(&time);
        match self.ring.submitter().submit_with_args(1, &args) {
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => Ok(()),
            other => entered(other),
        }
    }

    pub fn completions(&mut self, into: &mut Vec<Completion>) {
        into.extend(self.ring.completion().map(|entry| completion(&entry)));
    }
}
