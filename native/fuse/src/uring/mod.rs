//! The second door: FUSE over io_uring. The kernel puts a request into the queue of its caller's processor,
//! where a thread pinned to it serves it; one system call sends an answer and waits for the next request.
//!
//! Invariants:
//! - rings, memory and threads exist before the answer to INIT: from there on the kernel waits for *all* queues;
//! - `/dev/fuse` is read on for the mount's life: FORGET and INTERRUPT come only there;
//! - the only unsafe code is in this folder, at the kernel's memory and at numbers handed to system calls.

mod commands;
mod cpus;
mod fills;
mod lane;
mod lending;
mod mailbox;
mod module;
mod slots;

pub use cpus::all_allowed;
pub use module::enable;

use crate::helpers::Helpers;
use crate::init::Negotiated;
use crate::transport::{Crew, InFlight, Job, Serve, Transport};
use lane::{Lane, Parts};
use mailbox::Mailbox;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;

/// What the lanes of one connection share.
struct Shared {
    /// The kernel has ended the connection.
    ended: AtomicBool,
    /// A request came over the rings.
    in_use: AtomicBool,
    /// Ends the connection: a queue died under it.
    abort: Box<dyn Fn() + Send + Sync>,
}

/// What the rings are to serve.
pub struct RingOptions {
    pub agreed: Negotiated,
    pub in_flight: Arc<InFlight>,
    /// Ends the connection, from any thread.
    pub abort: Box<dyn Fn() + Send + Sync>,
}

/// The rings of one connection. Dropped before [`Rings::open`] they leave nothing behind.
pub struct Rings {
    crew: Arc<Crew>,
    shared: Arc<Shared>,
    mailboxes: Vec<Arc<Mailbox>>,
    /// Each lane waits for one word; when the sender goes without it, the lane ends.
    go: Vec<SyncSender<()>>,
}

/// Runs one lane: makes it, tells how that went, waits for the word.
fn run(parts: Parts, ready: &SyncSender<io::Result<()>>, go: &Receiver<()>) {
    match Lane::new(parts) {
        Ok(lane) => {
            // Nobody listens when another lane has failed; then the word will not come.
            let _given_up = ready.send(Ok(()));
            if go.recv().is_ok() {
                lane.run();
            }
        }
        Err(error) => {
            let _given_up = ready.send(Err(error));
        }
    }
}

impl Rings {
    /// Makes every ring, its memory and its thread; nothing is registered yet. `Err` says why this machine
    /// cannot.
    pub fn prepare(device: &OwnedFd, serve: &Arc<dyn Serve>, options: RingOptions) -> Result<Self, String> {
        let refused = |error: io::Error| format!("cannot make the rings: {error}");
        let shared = Arc::new(Shared {
            ended: AtomicBool::new(false),
            in_use: AtomicBool::new(false),
            abort: options.abort,
        });
        let lanes = cpus::lanes()?;
        let (count, (ready, made)) = (lanes.len(), mpsc::sync_channel(lanes.len()));
        let (mut jobs, mut mailboxes, mut go): (Vec<Job>, _, _) = (Vec::new(), Vec::new(), Vec::new());
        // Answers go into the slots' own memory.
        let (helpers, help) = Helpers::new(count, 0);
        for plan in lanes {
            let mailbox = Arc::new(Mailbox::new(Arc::clone(&options.in_flight)).map_err(refused)?);
            let (word, wait_for_word) = mpsc::sync_channel(1);
            mailboxes.push(Arc::clone(&mailbox));
            go.push(word);
            let name = format!("fuse-ring-{}", plan.cpu);
            let parts = Parts {
                plan,
                device: device.try_clone().map_err(refused)?,
                mailbox,
                shared: Arc::clone(&shared),
                serve: Arc::clone(serve),
                agreed: options.agreed,
                helpers: helpers.clone(),
            };
            let ready = ready.clone();
            jobs.push((name, Box::new(move || run(parts, &ready, &wait_for_word))));
        }
        drop((ready, helpers));
        jobs.extend(help);
        let crew = Crew::start(jobs, Box::new(|| {})).map_err(refused)?;
        let rings = Self { crew, shared, mailboxes, go };
        for _ in 0..count {
            let lane = made.recv().unwrap_or_else(|_| Err(io::Error::other("a thread ended")));
            lane.map_err(refused)?;
        }
        Ok(rings)
    }

    /// Registers everything. To be called after the answer to INIT.
    pub fn open(&self) {
        for go in &self.go {
            // A lane cannot have ended before the word.
            let _sent = go.send(());
        }
    }

    /// To be called when the reader of `/dev/fuse` has found the connection's end: lanes whose every slot is
    /// parked would not see it.
    pub fn ender(&self) -> impl FnOnce() + Send + use<> {
        let (shared, mailboxes) = (Arc::clone(&self.shared), self.mailboxes.clone());
        move || {
            shared.ended.store(true, Ordering::SeqCst);
            mailboxes.iter().for_each(|mailbox| mailbox.ring());
        }
    }

    /// Whether requests come this way. One that was answered over `/dev/fuse` instead tells that they do not.
    pub fn in_use(&self) -> bool {
        self.shared.in_use.load(Ordering::SeqCst)
    }
}

impl Transport for Rings {
    fn name(&self) -> &'static str {
        "uring"
    }

    fn join(&self, limit: Duration) -> bool {
        self.crew.join(limit)
    }
}
