//! One thread of the ring door: takes the requests of its queues, serves each, and sends all their answers.
//!
//! Invariants:
//! - nobody else registers or commits (see [`super::mailbox`]), and nothing here waits but the ring: a page that is missing
//!   in the daemon's memory is read through the ring, and the request tried again; what else would wait is a helper's;
//! - a request in a slot is answered before the slot goes back; one that is parked keeps its slot meanwhile;
//! - the thread ends when the kernel has given every slot back, except those of parked requests, whose late
//!   answers then go nowhere.

use super::Shared;
use super::commands::{Commands, Completion};
use super::cpus;
use super::fills::Fills;
use super::lending::Work;
use super::mailbox::{Body, Mailbox, Waiting};
use super::slots::{Payload, Slots};
use crate::abi::input::Message;
use crate::abi::{op_in_bytes, opcode};
use crate::helpers::Helpers;
use crate::init::Negotiated;
use crate::transport::{Answer, Reply, Serve};
use holdfast_device::AlignedBuffer;
use holdfast_device::patience;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Field order: the ring goes before the memory it knows of.
pub struct Lane {
    commands: Commands,
    slots: Slots,
    mailbox: Arc<Mailbox>,
    shared: Arc<Shared>,
    serve: Arc<dyn Serve>,
    agreed: Negotiated,
    /// For the answers of requests that bring a payload themselves.
    scratch: AlignedBuffer,
    /// Slots that are the kernel's.
    in_kernel: usize,
    /// Slots that hold a request.
    in_service: usize,
    /// By queue: slots not lost.
    left: Vec<(u16, usize)>,
    /// The kernel said that the connection ends.
    torn_down: bool,
    helpers: Helpers,
    fills: Fills,
    completions: Vec<Completion>,
    answers: Vec<Waiting>,
}

/// What a lane is made of.
pub struct Parts {
    pub plan: cpus::Lane,
    pub device: OwnedFd,
    pub mailbox: Arc<Mailbox>,
    pub shared: Arc<Shared>,
    pub serve: Arc<dyn Serve>,
    pub agreed: Negotiated,
    pub helpers: Helpers,
}

impl Lane {
    /// To be called on the thread that will run it: it is pinned here, and the ring belongs to it.
    pub fn new(parts: Parts) -> io::Result<Self> {
        // A container may forbid it: then it is slower, not wrong.
        let _unpinned = cpus::pin(parts.plan.cpu);
        let payload_bytes = parts.agreed.request_bytes_max;
        let slots = Slots::new(&parts.plan.queues, payload_bytes)?;
        let mut commands = Commands::new(parts.device, slots.len(), Fills::most(slots.len()))?;
        commands.watch(parts.mailbox.bell())?;
        let fills = Fills::new(slots.len());
        Ok(Self {
            commands,
            slots,
            mailbox: parts.mailbox,
            shared: parts.shared,
            serve: parts.serve,
            agreed: parts.agreed,
            scratch: AlignedBuffer::zeroed(payload_bytes),
            in_kernel: 0,
            in_service: 0,
            left: parts.plan.queues,
            torn_down: false,
            helpers: parts.helpers,
            fills,
            completions: Vec::new(),
            answers: Vec::new(),
        })
    }

    /// Registers every slot and serves until the connection ends.
    pub fn run(mut self) {
        let outcome = self.register().and_then(|()| self.serve_all());
        // The kernel refuses to go on with this ring: whoever waits for it must not wait for ever.
        if outcome.is_err() {
            // Drives may still write there, and nobody will say when they are done.
            self.fills.forget();
            (self.shared.abort)();
        }
    }

    fn register(&mut self) -> io::Result<()> {
        for slot in 0..self.slots.len() {
            // SAFETY: `commands` is dropped before `slots`.
            unsafe { self.commands.register(&mut self.slots, slot) }?;
            self.in_kernel += 1;
        }
        Ok(())
    }

    /// True when no request can come any more, and no answer could be sent.
    fn finished(&self) -> bool {
        let served = self.in_service == 0 || self.shared.ended.load(Ordering::SeqCst);
        self.in_kernel == 0 && self.fills.is_empty() && served
    }

    fn serve_all(&mut self) -> io::Result<()> {
        while !self.finished() {
            self.wait()?;
            let mut completions = std::mem::take(&mut self.completions);
            self.commands.completions(&mut completions);
            let count = completions.len();
            for (index, completion) in completions.drain(..).enumerate() {
                match completion {
                    Completion::Bell { armed: true } => {}
                    Completion::Bell { armed: false } => self.commands.watch(self.mailbox.bell())?,
                    Completion::Lost { slot, errno } => self.lost(slot, errno),
                    Completion::Fill { number, result } => self.filled(number, result)?,
                    Completion::Request { slot } => {
                        self.request(slot)?;
                        // The others may take long: this caller shall not wait for them. Reads of drives go together.
                        if index + 1 < count && self.fills.is_empty() {
                            self.commands.submit()?;
                        }
                    }
                }
            }
            self.completions = completions;
            self.leave_late_fills()?;
        }
        Ok(())
    }

    /// Sends what waits in the mailbox, then sleeps until the kernel or the bell has something.
    fn wait(&mut self) -> io::Result<()> {
        self.send_parked()?;
        while !self.mailbox.fall_asleep() {
            self.send_parked()?;
        }
        let waited = match self.fills.patience_ns() {
            Some(ns) => self.commands.wait_for(ns),
            None => self.commands.wait(),
        };
        self.mailbox.wake_up();
        waited
    }

    fn lost(&mut self, slot: usize, errno: i32) {
        self.slots.lose(slot);
        self.in_kernel -= 1;
        self.torn_down |= matches!(errno, libc::ENOTCONN | libc::ECONNABORTED);
        let queue = self.slots.queue(slot);
        let left = self.left.iter_mut().find(|(number, _)| *number == queue);
        let Some((_, left)) = left else { return };
        *left -= 1;
        // A queue without slots: its callers would wait for ever. Before the first request it is the mount's
        // probe that finds out.
        let ending = self.torn_down || self.shared.ended.load(Ordering::SeqCst);
        if *left == 0 && !ending && self.shared.in_use.load(Ordering::Relaxed) {
            (self.shared.abort)();
        }
    }

    /// Takes the request in a slot: serves it, or hands it on when it would wait for a drive.
    fn request(&mut self, slot: usize) -> io::Result<()> {
        // SAFETY: this is the completion of the slot's only command.
        unsafe { self.slots.take_back(slot) };
        self.in_kernel -= 1;
        self.in_service += 1;
        // Read by every lane, so written only once.
        if !self.shared.in_use.load(Ordering::Relaxed) {
            self.shared.in_use.store(true, Ordering::SeqCst);
        }
        let Some(arrived) = self.slots.arrived(slot) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let door = Arc::clone(&self.mailbox) as Arc<dyn Answer>;
        let reply = Reply::new(door, slot as u64, arrived.header.unique);
        match self.serve_one(slot, reply)? {
            Some(reply) => self.wait_elsewhere(slot, reply),
            None => Ok(()),
        }
    }

    /// The request in a slot would wait for a drive.
    fn wait_elsewhere(&mut self, slot: usize, reply: Reply) -> io::Result<()> {
        let Some(wish) = patience::take_wish() else { return self.hand_on(slot, reply) };
        match self.fills.begin(wish, slot, reply) {
            // SAFETY: the buffer stays in its place until the completion is seen, and the thread with it.
            Ok((number, read, buffer)) => unsafe { self.commands.fill(number, read, buffer) },
            Err(reply) => self.hand_on(slot, reply),
        }
    }

    /// A drive has answered. A second miss is nothing that a read mends: a bad copy, or a page that went again.
    fn filled(&mut self, number: usize, result: i32) -> io::Result<()> {
        let Some((slot, reply, arrived)) = self.fills.end(number, result) else { return Ok(()) };
        let reply = if arrived { self.serve_one(slot, reply)? } else { Some(reply) };
        match reply {
            Some(reply) => {
                drop(patience::take_wish());
                self.hand_on(slot, reply)
            }
            None => Ok(()),
        }
    }

    /// Requests that have waited long enough for one drive: a helper asks the others.
    fn leave_late_fills(&mut self) -> io::Result<()> {
        while let Some((slot, reply)) = self.fills.take_late() {
            self.hand_on(slot, reply)?;
        }
        Ok(())
    }

    /// Serves the request in a slot and sends the answer, unless it would wait: then the duty comes back.
    fn serve_one(&mut self, slot: usize, reply: Reply) -> io::Result<Option<Reply>> {
        let Some(arrived) = self.slots.arrived(slot) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        // A request without a payload leaves its room to the answer; otherwise the two would overlap.
        let in_place = arrived.filled == 0;
        let (payload, out): (&[u8], &mut [u8]) = match in_place {
            true => (&[], arrived.payload),
            false => (&arrived.payload[..arrived.filled], &mut self.scratch),
        };
        self.mailbox.serve_with(out);
        let mut returned = None;
        match Message::join(arrived.header, arrived.op_in, payload, self.agreed.setxattr_ext) {
            // These want no answer, and a slot must have one. The kernel sends them over /dev/fuse only.
            Ok(message) if wants_no_answer(message.header.opcode) => reply.error(libc::EIO),
            Ok(message) => {
                // A panic was reported when it happened, and has answered with EIO; the queue goes on.
                let served = catch_unwind(AssertUnwindSafe(|| self.serve.try_serve(&message, out, reply)));
                returned = served.unwrap_or(None);
            }
            Err(_) => reply.error(libc::EIO),
        }
        self.mailbox.serve_with(&[]);
        // Answers of others may wait too, but only this one's lie where it was served.
        match returned {
            Some(reply) => Ok(Some(reply)),
            None => self.send(in_place).map(|()| None),
        }
    }

    /// Lets a helper serve what would wait; its answer comes to the mailbox.
    fn hand_on(&mut self, slot: usize, reply: Reply) -> io::Result<()> {
        let Some(arrived) = self.slots.arrived(slot) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let header = arrived.header;
        let op_in = arrived.op_in[..op_in_bytes(header.opcode, self.agreed.setxattr_ext)].to_vec();
        let payload = arrived.payload[..arrived.filled].to_vec();
        let lent = self.slots.lend(slot).ok_or(io::ErrorKind::InvalidData)?;
        let (serve, mailbox) = (Arc::clone(&self.serve), Arc::clone(&self.mailbox));
        let work = Work { serve, mailbox, slot, header, op_in, payload, lent };
        self.helpers.hand(Box::new(move |_| work.run(reply)));
        Ok(())
    }

    /// Answers that were parked, or come from other threads.
    fn send_parked(&mut self) -> io::Result<()> {
        self.send(false)
    }

    /// `in_place`: scratch space was the slot's own payload.
    fn send(&mut self, in_place: bool) -> io::Result<()> {
        let mut answers = std::mem::take(&mut self.answers);
        self.mailbox.collect(&mut answers);
        for Waiting { slot, unique, errno, body } in answers.drain(..) {
            match body {
                Body::Scratch(length) if in_place => {
                    self.slots.answer(slot, unique, errno, Payload::InPlace(length));
                }
                Body::Scratch(length) => {
                    self.slots.answer(slot, unique, errno, Payload::Copied(&self.scratch[..length]));
                }
                Body::Bytes(bytes) => self.slots.answer(slot, unique, errno, Payload::Copied(&bytes)),
                Body::Lent { lent, filled, bytes } => {
                    self.slots.take_home(slot, lent);
                    let payload =
                        if bytes.is_empty() { Payload::InPlace(filled) } else { Payload::Copied(&bytes) };
                    self.slots.answer(slot, unique, errno, payload);
                }
            }
            // SAFETY: `commands` is dropped before `slots`.
            unsafe { self.commands.commit(&mut self.slots, slot) }?;
            self.in_service -= 1;
            self.in_kernel += 1;
        }
        self.answers = answers;
        Ok(())
    }
}

fn wants_no_answer(op: u32) -> bool {
    matches!(op, opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT | opcode::NOTIFY_REPLY)
}
