//! Durable writes to several drives at once: one io_uring submission for all copies, or a thread each where the
//! kernel refuses io_uring.
//!
//! A write is made durable by a sync of its own (`RWF_DSYNC`), all in parallel. Copies on *one* file system would then
//! flush one disk several times over, one after the other. Where the file system is known to flush the whole disk
//! with any file's sync ([`RealDrive::flush_domain`]), they are written plainly, and when all have been taken one sync
//! serves them. Numbered, because the order is what makes it durable:
//! 1. blocks are looked up: overwriting written ones changes no metadata (`settled.rs`);
//! 2. all writes are done;
//! 3. every file with blocks that were new syncs, or, when there is none, one file for all: the disk is flushed.
//!
//! A large write goes in pieces ([`pieces`](super::pieces)), one after the other, so that reads do not wait behind all of it.
//! Where it does not share a flush, the pieces are written plainly and a sync of the file follows them.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use io_uring::{IoUring, opcode, squeue, types};

use super::RealDrive;
use super::directory::plain_error;
use super::file::{DriveFile, vectors};
use super::pieces::{PIECE_BYTES, Pieces};
use crate::aligned::AlignedBuffer;
use crate::drive::{Durability, Write};
use crate::threads;

/// Writes at once, each with one piece in flight; larger sets go in parts. A frame has as many copies as its group's replication factor.
const RING_ENTRIES: usize = 16;
/// How often a call that the kernel turns away for now is tried again.
const SUBMIT_ATTEMPTS: usize = 10_000;

enum ThreadRing {
    Untried,
    /// Boxed: this lives in thread-local memory.
    Ready(Box<IoUring>),
    /// The kernel (or a sandbox) refuses rings: not asked again.
    Refused,
}

thread_local! {
    static RING: RefCell<ThreadRing> = const { RefCell::new(ThreadRing::Untried) };
}

/// One write to a real drive, its memory fit for the file.
struct Prepared<'a> {
    index: usize,
    write: &'a Write<'a>,
    drive: &'a RealDrive,
    file: Arc<DriveFile>,
    total: usize,
    /// The blocks were written before: no metadata changes.
    settled: bool,
    /// Its flush is shared with other writes of the set.
    shared: bool,
    /// What the kernel reads: the caller's slices or the copy of them.
    vectors: Vec<libc::iovec>,
}

/// Writes all in parallel, each durable when the call returns; one result per write, in order.
///
/// Drives that are not real are written one after the other.
pub fn write_durable(writes: &[Write<'_>]) -> Vec<io::Result<()>> {
    write_with(writes, |part| run_on_ring(part).unwrap_or_else(|| run_on_threads(part)))
}

#[cfg(test)]
pub(super) fn write_on_threads(writes: &[Write<'_>]) -> Vec<io::Result<()>> {
    write_with(writes, run_on_threads)
}

fn write_with(
    writes: &[Write<'_>],
    run: impl Fn(&[Prepared<'_>]) -> Vec<io::Result<()>>,
) -> Vec<io::Result<()>> {
    let mut results: Vec<io::Result<()>> = writes.iter().map(|_| Ok(())).collect();
    // Copies live here until every write that reads them is over.
    let mut copies: Vec<(*const &[u8], usize, AlignedBuffer)> = Vec::new();
    let mut prepared = Vec::with_capacity(writes.len());
    for (index, write) in writes.iter().enumerate() {
        match write.drive.as_real() {
            None => {
                results[index] =
                    write.drive.write(write.file, write.offset, write.slices, Durability::Durable)
            }
            Some(drive) => match prepare(index, write, drive, &mut copies) {
                Ok(ready) => prepared.push(ready),
                Err(error) => results[index] = Err(error),
            },
        }
    }
    for part in prepared.chunks_mut(RING_ENTRIES) {
        share_flushes(part);
        let mut written = run(part);
        flush_shared(part, &mut written);
        for (ready, result) in part.iter().zip(written) {
            results[ready.index] = result.map_err(plain_error);
        }
    }
    results
}

/// Marks the writes that have company in their flush domain.
fn share_flushes(part: &mut [Prepared<'_>]) {
    for at in 0..part.len() {
        let domain = part[at].drive.flush_domain;
        let others = part.iter().filter(|other| other.drive.flush_domain == domain).count() - 1;
        part[at].shared = domain.is_some() && others > 0 && part[at].file.is_direct();
    }
}

/// Step 3. A sync that fails leaves nothing of its domain durable: all of it failed, and its drives are out (I-8).
fn flush_shared(part: &[Prepared<'_>], written: &mut [io::Result<()>]) {
    for at in 0..part.len() {
        let domain = part[at].drive.flush_domain;
        let first = part.iter().position(|other| other.shared && other.drive.flush_domain == domain);
        if !part[at].shared || first != Some(at) {
            continue;
        }
        let mine = |other: &Prepared<'_>| other.shared && other.drive.flush_domain == domain;
        let mut fresh: Vec<&Arc<DriveFile>> = Vec::new();
        for ready in part.iter().filter(|ready| mine(ready) && !ready.settled) {
            if !fresh.iter().any(|known| Arc::ptr_eq(known, &ready.file)) {
                fresh.push(&ready.file);
            }
        }
        if fresh.is_empty() {
            fresh.push(&part[at].file);
        }
        let Err(error) = fresh.iter().try_for_each(|file| file.sync_data()) else { continue };
        for (ready, result) in part.iter().zip(written.iter_mut()).filter(|(ready, _)| mine(ready)) {
            ready.drive.flush_failed.store(true, Ordering::Release);
            *result = Err(io::Error::new(error.kind(), format!("flushing the disk: {error}")));
        }
    }
}

fn prepare<'a>(
    index: usize,
    write: &'a Write<'a>,
    drive: &'a RealDrive,
    copies: &mut Vec<(*const &'a [u8], usize, AlignedBuffer)>,
) -> io::Result<Prepared<'a>> {
    drive.check_flushed()?;
    let file = drive.file(write.file)?;
    let total: usize = write.slices.iter().map(|slice| slice.len()).sum();
    file.check_range(write.offset, total as u64)?;
    let vectors = if file.needs_copy(write.slices) {
        // The copies of a frame share their slices: one copy in memory serves them all.
        let key = (write.slices.as_ptr(), write.slices.len());
        let known = copies.iter().position(|(start, count, _)| (*start, *count) == key);
        let at = known.unwrap_or_else(|| {
            copies.push((key.0, key.1, AlignedBuffer::gather(write.slices)));
            copies.len() - 1
        });
        vectors(&[&copies[at].2])
    } else {
        vectors(write.slices)
    };
    let settled = drive.flush_domain.is_some() && drive.is_settled(&file, write.offset, total as u64)?;
    Ok(Prepared { index, write, drive, file, total, settled, shared: false, vectors })
}

/// `None`: there is no ring on this thread and nothing was written.
fn run_on_ring(part: &[Prepared<'_>]) -> Option<Vec<io::Result<()>>> {
    RING.with_borrow_mut(|state| {
        if matches!(state, ThreadRing::Untried) {
            *state = match IoUring::new(RING_ENTRIES as u32) {
                Ok(ring) => ThreadRing::Ready(Box::new(ring)),
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EINVAL)) =>
                {
                    ThreadRing::Refused
                }
                // Out of memory or descriptors for now: the next call asks again.
                Err(_) => return None,
            };
        }
        let ThreadRing::Ready(ring) = state else { return None };
        let outcomes = submit_all(ring, part);
        if outcomes.is_none() {
            // Entries that were never submitted die with the ring.
            *state = ThreadRing::Untried;
        }
        Some(outcomes?.iter().zip(part).map(|(outcome, ready)| finish(outcome, ready)).collect())
    })
}

/// How far a write has come.
struct Progress<'a> {
    pieces: Pieces<'a>,
    /// Bytes that the kernel has taken, and what it was asked to take next.
    done: usize,
    asked: usize,
    /// Its own sync has been asked for.
    syncing: bool,
    /// The code of its end.
    code: i32,
}

impl Progress<'_> {
    /// What the kernel is to do next for this write; `None`: nothing is left, or it has failed.
    fn next(&mut self, ready: &Prepared<'_>, answer: Option<i32>) -> Option<squeue::Entry> {
        if let Some(code) = answer {
            self.code = code;
            if self.syncing || code < 0 {
                return None;
            }
            self.done += code as usize;
            if code as usize != self.asked {
                return None;
            }
        }
        let flags = if ready.shared || ready.total > PIECE_BYTES { 0 } else { libc::RWF_DSYNC };
        let Some(vectors) = self.pieces.next_piece() else {
            self.syncing = !ready.shared && ready.total > PIECE_BYTES;
            let sync = opcode::Fsync::new(types::Fd(ready.file.buffered())).flags(types::FsyncFlags::DATASYNC);
            return self.syncing.then(|| sync.build());
        };
        self.asked = vectors.iter().map(|vector| vector.iov_len).sum();
        let descriptor = types::Fd(ready.file.descriptor_for(ready.write.offset, ready.total));
        let entry = opcode::Writev::new(descriptor, vectors.as_ptr(), vectors.len() as u32)
            .offset(ready.write.offset + self.done as u64)
            .rw_flags(flags)
            .build();
        Some(entry)
    }
}

/// Submits a piece of each write and waits for all to end, asking for the next piece as each is done; gives what came of
/// each. `None`: nothing was submitted.
fn submit_all(ring: &mut IoUring, part: &[Prepared<'_>]) -> Option<Vec<Outcome>> {
    let mut progress: Vec<Progress<'_>> = Vec::with_capacity(part.len());
    progress.extend(part.iter().map(|ready| Progress {
        pieces: Pieces::new(&ready.vectors),
        done: 0,
        asked: 0,
        syncing: false,
        code: 0,
    }));
    let mut flying = 0;
    let push = |ring: &mut IoUring, progress: &mut [Progress<'_>], number: usize, answer: Option<i32>| {
        let Some(entry) = progress[number].next(&part[number], answer) else { return Some(false) };
        // SAFETY: vectors, slices, copies and descriptors outlive this function, and it does not return (nor unwind)
        // while an entry is in flight; the vectors of a piece stay until the next one is asked for.
        unsafe { ring.submission().push(&entry.user_data(number as u64)) }.ok().map(|()| true)
    };
    for number in 0..part.len() {
        flying += push(ring, &mut progress, number, None)? as usize;
    }
    let (mut submitted, mut refusals) = (0, 0);
    while flying > 0 {
        match ring.submit_and_wait(1) {
            Ok(count) => submitted += count,
            Err(error) => {
                refusals += 1;
                let passing = matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY));
                if passing && refusals < SUBMIT_ATTEMPTS {
                    std::thread::yield_now();
                } else if submitted == 0 {
                    return None;
                } else {
                    give_up(&error);
                }
            }
        }
        let answers: Vec<(usize, i32)> =
            ring.completion().map(|entry| (entry.user_data() as usize, entry.result())).collect();
        for (number, code) in answers {
            flying -= 1;
            match push(ring, &mut progress, number, Some(code)) {
                Some(more) => flying += more as usize,
                // There is an entry for each write of the part, and this one's is free.
                None => give_up(&io::Error::other("its submission queue is full")),
            }
        }
    }
    Some(progress.iter().map(|write| Outcome { code: write.code, done: write.done, syncing: write.syncing }).collect())
}

/// The kernel still reads memory that we are about to give back, and will not say when it is done. A crash is recoverable; a
/// frame of foreign bytes under an ack is not.
fn give_up(error: &io::Error) -> ! {
    eprintln!("io_uring failed with writes in flight: {error}");
    std::process::abort();
}

/// What came of one write.
struct Outcome {
    /// The kernel's last word.
    code: i32,
    /// Bytes that it has taken.
    done: usize,
    /// The last word was about the sync.
    syncing: bool,
}

/// Turns an outcome into a result; short and interrupted writes are finished here. A sync that failed is final (I-8).
fn finish(outcome: &Outcome, ready: &Prepared<'_>) -> io::Result<()> {
    let Outcome { code, done, syncing } = *outcome;
    match code {
        code if code < 0 && syncing => {
            ready.drive.flush_failed.store(true, Ordering::Release);
            Err(io::Error::from_raw_os_error(-code))
        }
        code if code < 0 && code != -libc::EINTR && code != -libc::EAGAIN => Err(io::Error::from_raw_os_error(-code)),
        _ if done == ready.total => Ok(()),
        _ => ready.file.write_rest(ready.write.offset, ready.write.slices, done),
    }
}

fn run_on_threads(part: &[Prepared<'_>]) -> Vec<io::Result<()>> {
    let jobs = part.iter().map(|ready| {
        let (file, offset, slices) = (&ready.file, ready.write.offset, ready.write.slices);
        move || file.write(offset, slices, Durability::Durable)
    });
    threads::run_parallel("copy", jobs.collect())
}
