//! Reads from several copies: the first one is asked, and when it is late the next one, too.
//!
//! - Aligned ranges are read directly. Of others, what is in the page cache is copied from there by one system call: no
//!   ring, no clock, no other memory.
//! - Else the thread's own ring reads into memory of the ring, waiting (one system call) for the answer or for the end
//!   of the patience. So a read that is given up goes on without anybody's buffer: its memory is the ring's until the
//!   kernel is done with it. No thread is woken or handed anything.
//! - Where the kernel refuses rings, sources are read one after the other, each for as long as it takes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use io_uring::{IoUring, opcode, types};

use super::file::DriveFile;
use crate::aligned::AlignedBuffer;
use crate::clock::{Clock, RealClock};
use crate::drive::{Answer, First, SOURCES_MAX, Source};

/// Reads of one thread that are under way, those that were given up included.
const FLIGHTS_MAX: usize = 32;
/// How often a read that the kernel turns away or cuts short goes on, and how often a wait is refused.
const ATTEMPTS_MAX: usize = 64;
const REFUSALS_MAX: usize = 10_000;
/// Memory that a thread keeps for its next reads.
const SPARES_MAX: usize = 4;

enum ThreadRing {
    Untried,
    Ready(Box<Ring>),
    /// The kernel (or a sandbox) refuses rings, or waits without an end only: not asked again.
    Refused,
}

thread_local! {
    static RING: RefCell<ThreadRing> = const { RefCell::new(ThreadRing::Untried) };
}

/// One read that the kernel is busy with.
struct Flight {
    /// The call that it belongs to, and the number of the source there.
    call: u64,
    source: usize,
    begun_ns: u64,
    file: Arc<DriveFile>,
    offset: u64,
    /// At least `bytes` long.
    memory: AlignedBuffer,
    bytes: usize,
    done: usize,
    attempts: usize,
}

struct Ring {
    ring: IoUring,
    flying: BTreeMap<u64, Flight>,
    next_flight: u64,
    calls: u64,
    spares: Vec<AlignedBuffer>,
}

impl Drop for Ring {
    /// The kernel still writes into the memory of what is under way, and may after the ring is closed: it is never
    /// given back.
    fn drop(&mut self) {
        std::mem::forget(std::mem::take(&mut self.flying));
    }
}

/// See [`crate::drive::read_first`].
pub fn read_first(
    sources: &[Source<'_>],
    into: &mut [u8],
    patience_ns: u64,
    accept: &mut dyn FnMut(&Answer<'_>) -> bool,
) -> First {
    debug_assert!(sources.len() <= SOURCES_MAX);
    let mut first = First::default();
    let mut asked = 0;
    if let Some((source, file)) = sources.first().and_then(|source| Some((source, real_file(source)?)))
        && !file.is_direct_range(source.offset, into.len())
        && file.read_cached(source.offset, into)
    {
        if accept(&Answer { source: 0, bytes: Ok(into), took_ns: None }) {
            first.winner = Some(0);
            return first;
        }
        asked = 1;
    }
    let all_real = sources[asked..].iter().all(|source| source.drive.as_real().is_some());
    if all_real && sources.len() > 1 {
        let flown = RING.with_borrow_mut(|state| {
            let ring = ready(state)?;
            if ring.flying.len() + sources.len() > FLIGHTS_MAX {
                return None;
            }
            let raced = ring.race(sources, asked, into, patience_ns, accept, &mut first);
            if raced.is_err() {
                *state = ThreadRing::Untried;
            }
            raced.ok()
        });
        if flown.is_some() {
            return first;
        }
    }
    one_by_one(sources, asked, into, accept, &mut first);
    first
}

/// Sources that one call asks at once; the others follow. What was given up before leaves room for as many.
const EACH_MAX: usize = FLIGHTS_MAX / 2;

/// See [`crate::drive::read_each`].
pub fn read_each(sources: &[Source<'_>], bytes: usize, patience_ns: u64) -> Vec<Option<io::Result<Vec<u8>>>> {
    let mut answers = Vec::with_capacity(sources.len());
    for some in sources.chunks(EACH_MAX) {
        let all_real = some.iter().all(|source| source.drive.as_real().is_some());
        let flown = RING.with_borrow_mut(|state| {
            let read = ready(state).filter(|_| all_real)?.each(some, bytes, patience_ns);
            if read.is_err() {
                *state = ThreadRing::Untried;
            }
            read.ok()
        });
        answers.extend(flown.unwrap_or_else(|| {
            let read = |source: &Source<'_>| {
                let mut into = vec![0; bytes];
                source.drive.read(source.file, source.offset, &mut into).map(|()| into)
            };
            some.iter().map(|source| Some(read(source))).collect()
        }));
    }
    answers
}

fn real_file(source: &Source<'_>) -> Option<Arc<DriveFile>> {
    source.drive.as_real()?.file(source.file).ok()
}

fn one_by_one(
    sources: &[Source<'_>],
    from: usize,
    into: &mut [u8],
    accept: &mut dyn FnMut(&Answer<'_>) -> bool,
    first: &mut First,
) {
    for (at, source) in sources.iter().enumerate().skip(from) {
        let begun_ns = RealClock.boottime_ns();
        let read = source.drive.read(source.file, source.offset, into);
        let took_ns = Some(RealClock.boottime_ns() - begun_ns);
        if accept(&Answer { source: at, bytes: read.as_ref().map(|()| &*into), took_ns }) {
            first.winner = Some(at);
            return;
        }
    }
}

fn ready(state: &mut ThreadRing) -> Option<&mut Ring> {
    if matches!(state, ThreadRing::Untried) {
        *state = match IoUring::new(FLIGHTS_MAX as u32) {
            Ok(ring) if ring.params().is_feature_ext_arg() => ThreadRing::Ready(Box::new(Ring {
                ring,
                flying: BTreeMap::new(),
                next_flight: 0,
                calls: 0,
                spares: Vec::new(),
            })),
            Ok(_) => ThreadRing::Refused,
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EINVAL)) =>
            {
                ThreadRing::Refused
            }
            // Out of memory or descriptors for now: the next call asks again.
            Err(_) => return None,
        };
    }
    match state {
        ThreadRing::Ready(ring) => Some(ring),
        _ => None,
    }
}

/// A read that has ended.
struct Landed {
    flight: Flight,
    took_ns: u64,
    result: io::Result<()>,
}

impl Ring {
    /// An error: the ring no longer works; what was asked of it is not known to have ended.
    fn race(
        &mut self,
        sources: &[Source<'_>],
        mut asked: usize,
        into: &mut [u8],
        patience_ns: u64,
        accept: &mut dyn FnMut(&Answer<'_>) -> bool,
        first: &mut First,
    ) -> io::Result<()> {
        self.calls += 1;
        let call = self.calls;
        let (mut waiting, mut ask) = (0u8, true);
        loop {
            if ask && let Some(source) = sources.get(asked) {
                let begun = self.begin(call, asked, source, into.len());
                asked += 1;
                match begun {
                    Ok(()) => waiting |= 1 << (asked - 1),
                    Err(error) => {
                        if accept(&Answer { source: asked - 1, bytes: Err(&error), took_ns: None }) {
                            return Ok(());
                        }
                        continue;
                    }
                }
            }
            if waiting == 0 {
                return Ok(());
            }
            let patience = (asked < sources.len()).then_some(patience_ns);
            let landed = self.wait(patience)?;
            ask = landed.is_empty();
            if ask {
                first.late |= waiting;
            }
            for Landed { flight, took_ns, result } in landed {
                if flight.call == call {
                    ask = true;
                    waiting &= !(1 << flight.source);
                    let bytes = result.as_ref().map(|()| &flight.memory[..flight.bytes]);
                    let answer = Answer { source: flight.source, bytes, took_ns: Some(took_ns) };
                    if first.winner.is_none() && accept(&answer) {
                        into.copy_from_slice(&flight.memory[..flight.bytes]);
                        first.winner = Some(flight.source);
                    }
                }
                self.keep(flight.memory);
            }
            if first.winner.is_some() {
                return Ok(());
            }
        }
    }

    /// Answers in the order of the sources. An error: as for [`Ring::race`].
    fn each(
        &mut self,
        sources: &[Source<'_>],
        bytes: usize,
        patience_ns: u64,
    ) -> io::Result<Vec<Option<io::Result<Vec<u8>>>>> {
        self.calls += 1;
        let call = self.calls;
        // What was given up before may have ended meanwhile.
        for landed in self.collect() {
            self.keep(landed.flight.memory);
        }
        let mut answers: Vec<Option<io::Result<Vec<u8>>>> = sources.iter().map(|_| None).collect();
        let mut waiting = 0;
        for (at, source) in sources.iter().enumerate() {
            if self.flying.len() >= FLIGHTS_MAX || self.is_asked(source) {
                continue;
            }
            match self.begin(call, at, source, bytes) {
                Ok(()) => waiting += 1,
                Err(error) => answers[at] = Some(Err(error)),
            }
        }
        let until_ns = RealClock.boottime_ns().saturating_add(patience_ns);
        while waiting > 0 {
            let landed = self.wait(Some(until_ns.saturating_sub(RealClock.boottime_ns())))?;
            if landed.is_empty() {
                break;
            }
            for Landed { flight, result, .. } in landed {
                if flight.call == call {
                    waiting -= 1;
                    answers[flight.source] = Some(result.map(|()| flight.memory[..bytes].to_vec()));
                }
                self.keep(flight.memory);
            }
        }
        Ok(answers)
    }

    /// Whether a read of this place is under way, given up by whoever asked.
    fn is_asked(&self, source: &Source<'_>) -> bool {
        let Some(file) = real_file(source) else { return false };
        self.flying.values().any(|flight| Arc::ptr_eq(&flight.file, &file) && flight.offset == source.offset)
    }

    fn memory(&mut self, bytes: usize) -> AlignedBuffer {
        let fitting = self.spares.iter().position(|spare| spare.len() >= bytes);
        fitting.map_or_else(|| AlignedBuffer::zeroed(bytes), |at| self.spares.swap_remove(at))
    }

    fn keep(&mut self, memory: AlignedBuffer) {
        if self.spares.len() == SPARES_MAX {
            self.spares.remove(0);
        }
        self.spares.push(memory);
    }

    fn begin(&mut self, call: u64, source: usize, from: &Source<'_>, bytes: usize) -> io::Result<()> {
        let file = real_file(from).ok_or(ErrorKind::NotFound)?;
        self.next_flight += 1;
        let flight = Flight {
            call,
            source,
            begun_ns: RealClock.boottime_ns(),
            file,
            offset: from.offset,
            memory: self.memory(bytes),
            bytes,
            done: 0,
            attempts: 0,
        };
        self.flying.insert(self.next_flight, flight);
        self.push(self.next_flight).inspect_err(|_| {
            self.flying.remove(&self.next_flight);
        })
    }

    /// Queues what is left of a flight. An error: nothing was queued.
    fn push(&mut self, id: u64) -> io::Result<()> {
        let Some(flight) = self.flying.get_mut(&id) else { return Err(ErrorKind::NotFound.into()) };
        flight.attempts += 1;
        let rest = &mut flight.memory[flight.done..flight.bytes];
        let at = flight.offset + flight.done as u64;
        // What a short read left may begin anywhere: then not even the memory is aligned.
        let descriptor = flight.file.descriptor_for(at, rest.len());
        let entry = opcode::Read::new(types::Fd(descriptor), rest.as_mut_ptr(), rest.len() as u32)
            .offset(at)
            .build()
            .user_data(id);
        // SAFETY: memory and descriptor belong to the flight, which stays until its completion was seen, and is leaked
        // when the ring goes before that. A buffer's memory does not move with it.
        unsafe { self.ring.submission().push(&entry) }.map_err(|_| ErrorKind::WouldBlock.into())
    }

    /// Submits what is queued and waits for any end, for `patience_ns` at most. Empty: the patience is over.
    fn wait(&mut self, patience_ns: Option<u64>) -> io::Result<Vec<Landed>> {
        let until_ns = patience_ns.map(|ns| RealClock.boottime_ns().saturating_add(ns));
        for _ in 0..REFUSALS_MAX {
            let left_ns = until_ns.map(|until| until.saturating_sub(RealClock.boottime_ns()));
            let time = left_ns.map(|ns| {
                types::Timespec::new().sec(ns / 1_000_000_000).nsec((ns % 1_000_000_000) as u32)
            });
            let args = types::SubmitArgs::new();
            let result = match &time {
                Some(time) => self.ring.submitter().submit_with_args(1, &args.timespec(time)),
                None => self.ring.submit_and_wait(1),
            };
            let landed = self.collect();
            match result.map_err(|error| (error.raw_os_error(), error)) {
                _ if !landed.is_empty() => return Ok(landed),
                Err((Some(libc::ETIME), _)) => return Ok(landed),
                // What is queued stays queued.
                Ok(_) | Err((Some(libc::EINTR | libc::EAGAIN | libc::EBUSY), _)) => {}
                Err((_, error)) => return Err(error),
            }
        }
        Err(ErrorKind::TimedOut.into())
    }

    fn collect(&mut self) -> Vec<Landed> {
        let ended: Vec<(u64, i32)> =
            self.ring.completion().map(|entry| (entry.user_data(), entry.result())).collect();
        let mut landed = Vec::new();
        for (id, code) in ended {
            let Some(flight) = self.flying.get_mut(&id) else { continue };
            let again = match code {
                code if code > 0 => {
                    flight.done += code as usize;
                    flight.done < flight.bytes
                }
                code => code == -libc::EINTR || code == -libc::EAGAIN,
            };
            if again && flight.attempts < ATTEMPTS_MAX && self.push(id).is_ok() {
                continue;
            }
            let Some(flight) = self.flying.remove(&id) else { continue };
            let result = match code {
                _ if flight.done == flight.bytes => Ok(()),
                code if code < 0 => Err(io::Error::from_raw_os_error(-code)),
                _ => Err(ErrorKind::UnexpectedEof.into()),
            };
            let took_ns = RealClock.boottime_ns().saturating_sub(flight.begun_ns);
            landed.push(Landed { flight, took_ns, result });
        }
        landed
    }
}
