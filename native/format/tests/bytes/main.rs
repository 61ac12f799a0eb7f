//! Bytes against the document and against malice: every worked example of FORMAT.md is what the code writes and
//! reads, and no decoder panics, allocates without bound or believes what was damaged.

mod allocations;
mod document;
mod fuzz;
mod hostile;
mod random;
mod samples;
