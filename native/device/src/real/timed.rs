//! Durable writes to several drives at once, each timed by itself.

use std::io;

use crate::clock::{Clock, RealClock};
use crate::drive::{Durability, Write};
use crate::threads;

/// Writes all in parallel, each durable when the call returns; result and nanoseconds of each, in order.
pub fn write_durable_timed(writes: &[Write<'_>]) -> Vec<(io::Result<()>, u64)> {
    let jobs = writes.iter().map(|write| {
        move || {
            let begun_ns = RealClock.boottime_ns();
            let result = write.drive.write(write.file, write.offset, write.slices, Durability::Durable);
            (result, RealClock.boottime_ns().saturating_sub(begun_ns))
        }
    });
    threads::run_parallel("holdfast-beat", jobs.collect())
}
