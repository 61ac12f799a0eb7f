//! Whether the calling thread may wait for a drive. One that many callers wait for may not: what it does gives up where
//! it would have to wait, and is done again by a thread that may.
//!
//! The mark belongs to the thread, not to the call: what lies between a request and a drive need not carry it. Whoever is
//! about to read a drive asks [`may_wait`] first and fails without any effect where the answer is no. It may leave a
//! [`Wish`]: the read that it would have waited for. A thread with a ring of its own has it read while it does other
//! things, and then tries again.

use crate::real::DirectRead;
use std::cell::{Cell, RefCell};

thread_local! {
    static HURRIED: Cell<bool> = const { Cell::new(false) };
    static WISH: RefCell<Option<Wish>> = const { RefCell::new(None) };
}

/// What would have to be read, and who waits for the bytes, which nobody has verified.
pub struct Wish {
    pub read: DirectRead,
    /// After so long others are to be asked instead.
    pub patience_ns: u64,
    pub waiter: Box<dyn Waiter>,
}

/// Is told what came of a [`Wish`].
pub trait Waiter: Send {
    /// The drive took so long.
    fn arrived(self: Box<Self>, bytes: &[u8], took_ns: u64);
    /// The drive has not answered in time. It may yet arrive.
    fn late(&self);
}

/// Replaces an earlier one of this thread.
pub fn wish(wish: Wish) {
    WISH.replace(Some(wish));
}

/// The newest wish of this thread, once.
pub fn take_wish() -> Option<Wish> {
    WISH.take()
}

/// Puts the mark back to what it was, after a panic too.
struct Restore(bool);

impl Drop for Restore {
    fn drop(&mut self) {
        HURRIED.set(self.0);
    }
}

fn marked<T>(hurried: bool, run: impl FnOnce() -> T) -> T {
    let _restore = Restore(HURRIED.replace(hurried));
    run()
}

/// Runs something that must not wait for a drive. A wish that is there afterwards is of this run.
pub fn hurry<T>(run: impl FnOnce() -> T) -> T {
    drop(take_wish());
    marked(true, run)
}

/// Runs something that has effects, which must not be given up half-way.
pub fn at_leisure<T>(run: impl FnOnce() -> T) -> T {
    marked(false, run)
}

pub fn may_wait() -> bool {
    !HURRIED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_this_threads_and_this_calls() {
        assert!(may_wait());
        let elsewhere = hurry(|| {
            assert!(!may_wait());
            assert!(at_leisure(may_wait) && !may_wait(), "and back");
            std::thread::scope(|scope| scope.spawn(may_wait).join().expect("no panic"))
        });
        assert!(elsewhere && may_wait());
        let panicked = std::panic::catch_unwind(|| hurry(|| panic!("on purpose")));
        assert!(panicked.is_err() && may_wait());
    }
}
