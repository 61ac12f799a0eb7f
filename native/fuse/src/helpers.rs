//! Threads that may wait for a drive, so that those which take requests need not.
//!
//! Invariants: what was handed over is done, also when the last handle goes meanwhile; helpers end after that. The queue is
//! bounded by whoever hands over: a ring has only so many slots, and a reader of `/dev/fuse` works itself when
//! [`Helpers::try_hand`] refuses.

use crate::transport::Job;
use holdfast_device::AlignedBuffer;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Requests in flight per queue thread, beside the one that it does itself.
const HELPERS_PER_THREAD: usize = 4;
/// Of one mount: more do not make a drive faster.
const HELPERS_MAX: usize = 32;
/// Work that waits, for those who can also do it themselves.
const WAITING_MAX: usize = 64;

/// Gets scratch space, page-aligned, for the answer.
pub type Work = Box<dyn FnOnce(&mut [u8]) + Send>;

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    more: Condvar,
}

/// The last handle to go ends the helpers.
struct Closer(Arc<Shared>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.more.notify_all();
    }
}

/// A handle of those who hand over.
#[derive(Clone)]
pub struct Helpers(Arc<Closer>);

impl Helpers {
    /// For so many queue threads. The jobs are to be started by the caller; each has scratch space of its own.
    pub fn new(threads: usize, scratch_bytes: usize) -> (Self, Vec<Job>) {
        let shared = Arc::new(Shared::default());
        let count = (threads * HELPERS_PER_THREAD).min(HELPERS_MAX);
        let jobs = (0..count).map(|index| {
            let shared = Arc::clone(&shared);
            let run: Box<dyn FnOnce() + Send> = Box::new(move || help(&shared, scratch_bytes));
            (format!("fuse-help-{index}"), run)
        });
        let jobs = jobs.collect();
        (Self(Arc::new(Closer(shared))), jobs)
    }

    pub fn hand(&self, work: Work) {
        let shared = &self.0.0;
        shared.state.lock().waiting.push_back(work);
        shared.more.notify_one();
    }

    /// `Err`: too much waits already.
    pub fn try_hand(&self, work: Work) -> Result<(), Work> {
        if self.0.0.state.lock().waiting.len() >= WAITING_MAX {
            return Err(work);
        }
        self.hand(work);
        Ok(())
    }
}

fn next(shared: &Shared) -> Option<Work> {
    let mut state = shared.state.lock();
    loop {
        match state.waiting.pop_front() {
            Some(work) => return Some(work),
            None if state.closed => return None,
            None => shared.more.wait(&mut state),
        }
    }
}

fn help(shared: &Shared, scratch_bytes: usize) {
    let mut scratch = AlignedBuffer::zeroed(scratch_bytes);
    while let Some(work) = next(shared) {
        // A panic was reported when it happened, and its request is answered with EIO as its duty is dropped.
        let _panicked = catch_unwind(AssertUnwindSafe(|| work(&mut scratch)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn all_work_is_done_before_the_helpers_end() {
        let (helpers, jobs) = Helpers::new(1, 4096);
        assert_eq!(jobs.len(), HELPERS_PER_THREAD);
        let (send, receive) = mpsc::channel();
        for number in 0..20 {
            let send = send.clone();
            helpers.hand(Box::new(move |scratch| {
                assert_eq!(scratch.as_ptr().align_offset(4096), 0);
                assert!(number != 7, "on purpose");
                send.send(number).expect("somebody listens");
            }));
        }
        drop((send, helpers));
        std::thread::scope(|scope| jobs.into_iter().for_each(|(_, run)| drop(scope.spawn(run))));
        let mut done: Vec<i32> = receive.into_iter().collect();
        done.sort_unstable();
        assert_eq!(done, (0..20).filter(|number| *number != 7).collect::<Vec<_>>(), "a panic is one work's end");
    }

    #[test]
    fn too_much_work_comes_back() {
        let (helpers, _jobs) = Helpers::new(1, 4096);
        for _ in 0..WAITING_MAX {
            assert!(helpers.try_hand(Box::new(|_| ())).is_ok());
        }
        assert!(helpers.try_hand(Box::new(|_| ())).is_err());
    }
}
