//! What the two doors (`/dev/fuse` and io_uring) have in common: a request comes as (header, argument
//! 0, payload), its answer leaves through a [`Reply`] that any thread may complete at any time.
//!
//! Invariants: every request that wants an answer gets exactly one, a dropped [`Reply`] included (a caller
//! whose request is never answered stays unkillable); a [`Reply`] keeps alive whatever it is sent through, so
//! a late one is harmless.

use crate::abi::input::Message;
use crate::errno::Errno;
use holdfast_device::threads;
use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

/// Handles one request; implemented by [`crate::handler::Handler`].
pub trait Serve: Send + Sync {
    /// `out` is scratch space for the answer's payload, at least as long as any answer may be. It does not
    /// overlap the message.
    fn serve(&self, message: &Message<'_>, out: &mut [u8], reply: Reply);
    /// [`Serve::serve`], unless that would wait for a drive: then the duty to answer comes back, and nothing was done.
    fn try_serve(&self, message: &Message<'_>, out: &mut [u8], reply: Reply) -> Option<Reply>;
}

/// Where answers leave.
pub trait Answer: Send + Sync {
    /// Sends one answer. `slot` is what the transport gave to [`Reply::new`]. Failures mean that the caller
    /// or the connection is gone.
    fn answer(&self, slot: u64, unique: u64, errno: Errno, payload: &[u8]);
    fn in_flight(&self) -> &InFlight;
}

/// A running transport.
pub trait Transport: Send + Sync {
    /// `dev` or `uring`.
    fn name(&self) -> &'static str;
    /// Waits until every thread of it has ended, at most so long; true when they have. The calling thread
    /// does not count. They end when the kernel ends the connection, and only then.
    fn join(&self, limit: Duration) -> bool;
}

/// Counts requests that were read and not yet answered.
#[derive(Default)]
pub struct InFlight {
    count: AtomicUsize,
    someone_waits: AtomicBool,
    lock: Mutex<()>,
    none_left: Condvar,
}

impl InFlight {
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
    /// True when every request was answered within the limit.
    pub fn wait_for_none(&self, limit: Duration) -> bool {
        self.someone_waits.store(true, Ordering::SeqCst);
        let mut guard = self.lock.lock();
        self.none_left.wait_while_for(&mut guard, |()| self.count() > 0, limit);
        self.count() == 0
    }
    fn begin(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }
    fn end(&self) {
        let last = self.count.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && self.someone_waits.load(Ordering::SeqCst) {
            let _guard = self.lock.lock();
            self.none_left.notify_all();
        }
    }
}

/// The duty to answer one request. Dropped unanswered (a panic, a callback nobody called) it answers EIO.
pub struct Reply {
    door: Arc<dyn Answer>,
    slot: u64,
    unique: u64,
    answered: bool,
}

impl Reply {
    pub fn new(door: Arc<dyn Answer>, slot: u64, unique: u64) -> Self {
        door.in_flight().begin();
        Self { door, slot, unique, answered: false }
    }
    pub fn data(mut self, payload: &[u8]) {
        self.send(0, payload);
    }
    pub fn error(mut self, errno: Errno) {
        debug_assert!((1..512).contains(&errno), "the kernel refuses errno {errno}");
        self.send(errno, &[]);
    }
    /// For the few requests that want no answer (FORGET, BATCH_FORGET, INTERRUPT).
    pub fn nothing(mut self) {
        self.answered = true;
    }
    fn send(&mut self, errno: Errno, payload: &[u8]) {
        self.answered = true;
        self.door.answer(self.slot, self.unique, errno, payload);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            self.send(libc::EIO, &[]);
        }
        self.door.in_flight().end();
    }
}

/// The threads of one transport, and whoever waits for their end.
pub struct Crew {
    members: Mutex<Members>,
    member_ended: Condvar,
}

struct Members {
    running: Vec<ThreadId>,
    handles: Vec<JoinHandle<()>>,
    /// Called by the last thread as it ends.
    on_end: Option<Box<dyn FnOnce() + Send>>,
}

/// A thread's name and what it does.
pub type Job = (String, Box<dyn FnOnce() + Send>);

impl Crew {
    /// Starts one thread a job. `on_end` is called once, by the last of them as it ends. When one cannot be
    /// started those before it run on.
    pub fn start(jobs: Vec<Job>, on_end: Box<dyn FnOnce() + Send>) -> io::Result<Arc<Self>> {
        let members = Members { running: Vec::new(), handles: Vec::new(), on_end: Some(on_end) };
        let crew = Arc::new(Self { members: Mutex::new(members), member_ended: Condvar::new() });
        // Held until all are there, so that none can be "the last" before the last was started.
        let mut members = crew.members.lock();
        for (name, run) in jobs {
            let crew = Arc::clone(&crew);
            let thread = threads::spawn(&name, move || {
                let _leave = Leave(crew);
                run();
            })?;
            members.running.push(thread.thread().id());
            members.handles.push(thread);
        }
        drop(members);
        Ok(crew)
    }

    /// Waits until every thread but the calling one has ended, at most so long; true when they have.
    pub fn join(&self, limit: Duration) -> bool {
        let me = std::thread::current().id();
        let others_run = |members: &mut Members| members.running.iter().any(|id| *id != me);
        let mut members = self.members.lock();
        self.member_ended.wait_while_for(&mut members, others_run, limit);
        if others_run(&mut members) {
            return false;
        }
        let handles = std::mem::take(&mut members.handles);
        drop(members);
        for thread in handles {
            if thread.thread().id() != me {
                // A panic was reported when it happened, and its request answered with EIO.
                let _panicked = thread.join();
            }
        }
        true
    }
}

/// Dropped on the member's own thread, after a panic too.
struct Leave(Arc<Crew>);

impl Drop for Leave {
    fn drop(&mut self) {
        let me = std::thread::current().id();
        let mut members = self.0.members.lock();
        members.running.retain(|id| *id != me);
        let on_end = if members.running.is_empty() { members.on_end.take() } else { None };
        self.0.member_ended.notify_all();
        drop(members);
        if let Some(on_end) = on_end {
            on_end();
        }
    }
}
