//! The gate of a group: what changes it passes one by one, and waits outside while the group is handed to another site.
//!
//! - Nobody blocks at a closed gate who has other things to do: a request is *parked* (its work and nothing else is kept) and
//!   done when the gate opens, or when the group was given away, which the work finds out itself.
//! - A closed gate opens by itself after its limit, whoever closed it: a daemon that hangs costs its users a pause. Only
//!   [`Gate::hold`] stops that, while the group is being given away, which is the engine's own and ends.
//! - It is a door, not the lock: that nothing changes after the last recovery point is seen by who gives the group away, under
//!   the commit lock.
//! - What is parked is bounded; beyond that whoever comes waits here, for as long as the gate is closed at most.

use crate::error::{Error, Kind, Result};
use holdfast_device::threads;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

/// Requests, and bytes of them, that are parked at most.
const PARKED_MAX: usize = 4096;
const PARKED_BYTES_MAX: usize = 64 << 20;

/// What is done later.
pub type Work = Box<dyn FnOnce() + Send>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Phase {
    Open = 0,
    /// Users wait; what the kernel writes back of what users were told is done passes.
    Closed = 1,
    /// Everybody waits.
    Sealed = 2,
    /// The group is another site's: everybody passes, and is refused by the engine.
    Given = 3,
}

impl Phase {
    fn of(value: u8) -> Self {
        match value {
            1 => Self::Closed,
            2 => Self::Sealed,
            3 => Self::Given,
            _ => Self::Open,
        }
    }
}

#[derive(Default)]
struct State {
    parked: VecDeque<(usize, Work)>,
    bytes: usize,
    /// Counts closings, so that the keeper of one does not open the next.
    closing: u64,
    held: bool,
}

/// See the module.
#[derive(Default)]
pub struct Gate {
    phase: AtomicU8,
    /// Who has passed and is not done.
    inside: AtomicUsize,
    state: Mutex<State>,
    /// The phase has changed, or nobody is inside any more.
    changed: Condvar,
}

/// The right to change something now.
pub struct Pass<'a>(&'a Gate);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Gate {
    fn phase(&self) -> Phase {
        Phase::of(self.phase.load(Ordering::SeqCst))
    }

    /// Under the lock of `state`.
    fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
        self.changed.notify_all();
    }

    /// Whether changes are waited with, or refused: what nobody asked for is left undone then.
    pub fn is_shut(&self) -> bool {
        self.phase.load(Ordering::Relaxed) != Phase::Open as u8
    }

    /// `None`: it has to wait. `writes_back`: it is of the kernel, which is asked to write everything back when users wait already.
    pub fn enter(&self, writes_back: bool) -> Option<Pass<'_>> {
        // Counted before the look: whoever closes looks at the count after it.
        self.inside.fetch_add(1, Ordering::SeqCst);
        match self.phase() {
            Phase::Open | Phase::Given => Some(Pass(self)),
            Phase::Closed if writes_back => Some(Pass(self)),
            Phase::Closed | Phase::Sealed => {
                self.leave();
                None
            }
        }
    }

    fn leave(&self) {
        if self.inside.fetch_sub(1, Ordering::SeqCst) == 1 && self.is_shut() {
            let _state = self.state.lock();
            self.changed.notify_all();
        }
    }

    /// Keeps work until the gate opens. Where it is open again, or too much is parked, it is done here, then at least: `work` is to
    /// enter again.
    pub fn park(&self, bytes: usize, work: Work) {
        let mut state = self.state.lock();
        let is_shut = || matches!(self.phase(), Phase::Closed | Phase::Sealed);
        let is_full = |state: &State| state.parked.len() >= PARKED_MAX || state.bytes + bytes > PARKED_BYTES_MAX;
        while is_shut() && is_full(&state) {
            self.changed.wait(&mut state);
        }
        if is_shut() {
            state.bytes += bytes;
            state.parked.push_back((bytes, work));
            return;
        }
        drop(state);
        work();
    }

    /// From now on users wait, for so long at most; returns when nobody is inside.
    ///
    /// # Errors
    /// `Conflict`: it is closed already, or the group was given away. `Unavailable`: who is inside does not come out in time; the
    /// gate is open again then.
    pub fn close(self: &Arc<Self>, limit: Duration) -> Result<()> {
        let mut state = self.state.lock();
        if self.phase() != Phase::Open {
            return Err(Error::new(Kind::Conflict, "the group is being handed over already, or was"));
        }
        state.closing += 1;
        let closing = state.closing;
        let gate = Arc::clone(self);
        threads::spawn("gate", move || gate.keep(closing, limit)).map_err(|error| {
            Error::new(Kind::Unavailable, format!("a thread that would open the gate again cannot be started: {error}"))
        })?;
        self.set(Phase::Closed);
        self.await_empty(state, closing)
    }

    /// What the kernel writes back waits, too; returns when nobody is inside.
    ///
    /// # Errors
    /// As [`Gate::close`]; `Conflict` too when the gate has opened by itself.
    pub fn seal(&self) -> Result<()> {
        let state = self.state.lock();
        if self.phase() != Phase::Closed {
            return Err(opened());
        }
        self.set(Phase::Sealed);
        let closing = state.closing;
        self.await_empty(state, closing)
    }

    /// Bounded by the keeper, who opens the gate.
    fn await_empty(&self, mut state: parking_lot::MutexGuard<'_, State>, closing: u64) -> Result<()> {
        let is_mine = |state: &State| state.closing == closing && matches!(self.phase(), Phase::Closed | Phase::Sealed);
        while is_mine(&state) && self.inside.load(Ordering::SeqCst) > 0 {
            self.changed.wait(&mut state);
        }
        if is_mine(&state) { Ok(()) } else { Err(Error::new(Kind::Unavailable, "requests that were under way did not end in time")) }
    }

    /// As if nothing had been. Opening an open one does nothing; one that is given away stays.
    pub fn open(&self) {
        let _state = self.state.lock();
        if matches!(self.phase(), Phase::Closed | Phase::Sealed) {
            self.set(Phase::Open);
        }
    }

    /// From now on the gate does not open by itself, until [`Gate::give`] or [`Gate::let_go`].
    ///
    /// # Errors
    /// `Conflict`: it is not sealed (any more).
    pub fn hold(&self) -> Result<()> {
        let mut state = self.state.lock();
        if self.phase() != Phase::Sealed || state.held {
            return Err(opened());
        }
        state.held = true;
        Ok(())
    }

    /// What was held is not given away: the limit counts again.
    pub fn let_go(&self) {
        self.state.lock().held = false;
        self.changed.notify_all();
    }

    /// The group is another site's: who waits, and who comes, is refused.
    pub fn give(&self) {
        let mut state = self.state.lock();
        state.held = false;
        self.set(Phase::Given);
    }

    /// It was taken back.
    pub fn take_back(&self) {
        let _state = self.state.lock();
        if self.phase() == Phase::Given {
            self.set(Phase::Open);
        }
    }

    /// Opens the gate at its limit, and does what was parked once it is open or the group given away.
    fn keep(&self, closing: u64, limit: Duration) {
        let mut state = self.state.lock();
        let waits = |state: &mut State| state.closing == closing && matches!(self.phase(), Phase::Closed | Phase::Sealed);
        self.changed.wait_while_for(&mut state, waits, limit);
        while waits(&mut state) && state.held {
            self.changed.wait(&mut state);
        }
        if waits(&mut state) {
            self.set(Phase::Open);
        }
        while let Some((bytes, work)) = state.parked.pop_front() {
            state.bytes -= bytes;
            drop(state);
            work();
            state = self.state.lock();
        }
        self.changed.notify_all();
    }
}

fn opened() -> Error {
    Error::new(Kind::Conflict, "the gate has opened again: what was asked for took too long")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const LONG: Duration = Duration::from_secs(60);

    /// What a request does: it enters or parks itself, and says what became of it.
    fn request(gate: &Arc<Gate>, name: &'static str, send: &mpsc::Sender<&'static str>) {
        match gate.enter(false) {
            Some(_pass) => send.send(name).expect("somebody listens"),
            None => {
                let (again, send) = (Arc::clone(gate), send.clone());
                gate.park(1, Box::new(move || request(&again, name, &send)));
            }
        }
    }

    #[test]
    fn users_wait_and_are_served_in_order_when_it_opens() {
        let gate = Arc::new(Gate::default());
        let (send, receive) = mpsc::channel();
        gate.close(LONG).expect("it was open");
        assert!(gate.is_shut());
        for name in ["one", "two", "three"] {
            request(&gate, name, &send);
        }
        assert!(gate.enter(true).is_some(), "what is written back passes");
        gate.seal().expect("it was closed");
        assert!(gate.enter(true).is_none());
        assert!(receive.try_recv().is_err());
        gate.open();
        let got: Vec<_> = (0..3).map(|_| receive.recv().expect("they are served")).collect();
        assert_eq!(got, ["one", "two", "three"]);
        assert!(gate.enter(false).is_some() && !gate.is_shut());
    }

    #[test]
    fn closing_waits_for_who_is_inside() {
        let gate = Arc::new(Gate::default());
        let pass = gate.enter(false).expect("it is open");
        let (closing, (send, receive)) = (Arc::clone(&gate), mpsc::channel());
        let closer = std::thread::Builder::new().spawn(move || send.send(closing.close(LONG)));
        while !gate.is_shut() {
            std::thread::yield_now();
        }
        assert!(receive.try_recv().is_err(), "somebody is inside");
        drop(pass);
        assert_eq!(receive.recv().expect("it is closed").map_err(|error| error.kind), Ok(()));
        closer.expect("a thread").join().expect("no panic").expect("somebody listens");
        gate.open();
    }

    #[test]
    fn it_opens_by_itself_unless_it_is_held() {
        let gate = Arc::new(Gate::default());
        let (send, receive) = mpsc::channel();
        let inside = gate.enter(false).expect("it is open");
        let late = gate.close(Duration::from_millis(1)).expect_err("somebody stays inside");
        assert_eq!(late.kind, Kind::Unavailable);
        assert!(!gate.is_shut());
        drop(inside);
        gate.close(Duration::from_millis(1)).expect("nobody is inside");
        request(&gate, "parked", &send);
        assert_eq!(receive.recv(), Ok("parked"), "the limit was over");
        assert_eq!(gate.seal().expect_err("it is open").kind, Kind::Conflict);
        assert_eq!(gate.hold().expect_err("it is open").kind, Kind::Conflict);
        gate.close(LONG).expect("it is open");
        gate.seal().expect("it is closed");
        gate.hold().expect("it is sealed");
        request(&gate, "waits", &send);
        gate.let_go();
        assert!(receive.try_recv().is_err() && gate.is_shut(), "the limit is not over");
        gate.open();
        assert_eq!(receive.recv(), Ok("waits"));
    }

    #[test]
    fn held_past_its_limit_it_opens_when_it_is_let_go_or_lets_all_in_to_be_refused() {
        let gate = Arc::new(Gate::default());
        let (send, receive) = mpsc::channel();
        gate.close(Duration::from_millis(20)).expect("it was open");
        gate.seal().expect("it was closed");
        gate.hold().expect("it was sealed");
        request(&gate, "one", &send);
        assert!(receive.recv_timeout(Duration::from_millis(60)).is_err(), "it is held");
        gate.let_go();
        assert_eq!(receive.recv(), Ok("one"));
        gate.close(LONG).expect("it is open");
        request(&gate, "two", &send);
        gate.give();
        assert_eq!(receive.recv(), Ok("two"), "the engine refuses it");
        assert_eq!(gate.close(LONG).expect_err("it is given").kind, Kind::Conflict);
        gate.open();
        assert!(gate.is_shut(), "what was given stays given");
        gate.take_back();
        assert!(!gate.is_shut());
    }

    #[test]
    fn too_much_waits_outside_for_the_gate() {
        let gate = Arc::new(Gate::default());
        gate.close(Duration::from_millis(50)).expect("it was open");
        let (send, receive) = mpsc::channel();
        for number in 0..2 {
            let send = send.clone();
            gate.park(PARKED_BYTES_MAX, Box::new(move || send.send(number).expect("somebody listens")));
        }
        let mut done = [receive.recv(), receive.recv()];
        done.sort_unstable_by_key(|number| number.ok());
        assert_eq!(done, [Ok(0), Ok(1)], "the one that waited does its work itself");
        assert!(!gate.is_shut());
    }
}
