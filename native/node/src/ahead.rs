//! Parts of a batch, read ahead of who asks for them: one is read while the one before it is on its way, and what was just written
//! is read while it still lies in memory.
//!
//! - One thread reads a batch, from the first time that somebody asks until the batch ends or is closed; it waits while enough has been read.
//! - A failure comes in its turn, once; who asks again has the same part read again.

use holdfast_store::engine::{Delta, Part};
use holdfast_store::error::{Error, Kind, Result};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;

/// Of parts that wait: half a second of a busy writer, so that a batch is read in one go.
const AHEAD_BYTES: usize = 16 << 20;
/// Pieces of a part that are read at the same time.
const READERS: usize = 4;

pub struct Ahead {
    /// Taken by whoever reads.
    delta: Mutex<Delta>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    parts: VecDeque<Part>,
    bytes: usize,
    /// What was asked for last, of one part.
    part_bytes: usize,
    is_reading: bool,
    /// The last part was read.
    is_whole: bool,
    is_closed: bool,
    failure: Option<Error>,
}

impl State {
    fn take(&mut self) -> Option<Part> {
        let part = self.parts.pop_front()?;
        self.bytes -= part.chunk.len();
        Some(part)
    }
}

impl Ahead {
    pub fn new(delta: Delta) -> Arc<Self> {
        let delta = Mutex::new(delta.with_readers(READERS));
        Arc::new(Self { delta, state: Mutex::default(), changed: Condvar::new() })
    }

    /// The next part, if it was read already.
    pub fn ready(&self) -> Option<Part> {
        let part = self.state.lock().take()?;
        self.changed.notify_all();
        Some(part)
    }

    /// The next part, of about so many bytes unless it was read already; `None`: there are no more.
    pub fn next(self: &Arc<Self>, bytes: usize) -> Result<Option<Part>> {
        let mut state = self.state.lock();
        state.part_bytes = bytes;
        loop {
            if let Some(part) = state.take() {
                self.changed.notify_all();
                return Ok(Some(part));
            }
            if let Some(failure) = state.failure.take() {
                return Err(failure);
            }
            if state.is_whole {
                return Ok(None);
            }
            if state.is_closed {
                return Err(Error::new(Kind::Closed, "the batch was closed"));
            }
            if !state.is_reading {
                state.is_reading = true;
                let reader = self.clone();
                let started = holdfast_device::threads::spawn("delta-ahead", move || reader.read());
                if let Err(error) = started {
                    state.is_reading = false;
                    return Err(Error::new(Kind::Unavailable, format!("cannot start a thread that reads a batch: {error}")));
                }
            }
            self.changed.wait(&mut state);
        }
    }

    /// Nobody asks any more.
    pub fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_all();
    }

    fn read(&self) {
        let mut state = self.state.lock();
        loop {
            while state.bytes >= AHEAD_BYTES && !state.is_closed {
                self.changed.wait(&mut state);
            }
            if state.is_closed || state.is_whole || state.failure.is_some() {
                state.is_reading = false;
                self.changed.notify_all();
                return;
            }
            let bytes = state.part_bytes;
            drop(state);
            let part = self.delta.lock().next_part(bytes);
            state = self.state.lock();
            match part {
                Ok(Some(part)) => {
                    state.is_whole = part.cursor.is_empty();
                    state.bytes += part.chunk.len();
                    state.parts.push_back(part);
                }
                Ok(None) => state.is_whole = true,
                Err(error) => state.failure = Some(error),
            }
            self.changed.notify_all();
        }
    }
}
