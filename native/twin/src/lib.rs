//! Test tools that see a file system as any program does: through system calls on a directory.
//!
//! - `holdfast-twin` runs one seeded sequence of operations on two directories and compares what comes back.
//! - `holdfast-fsx` exercises one file against a model in memory.
//! - `holdfast-load` makes load and measures it.
//!
//! Nothing here is part of the product: no other crate may depend on this one.

// These programs stand outside the daemon: they measure real time, use real threads and real files, and must
// not go through the seams that they help to test.
#![allow(clippy::disallowed_methods)]

pub mod arguments;
pub mod compare;
pub mod fill;
pub mod fsx;
pub mod generate;
pub mod legal;
pub mod load;
pub mod op;
pub mod probe;
pub mod shrink;
pub mod side;
pub mod sys;
pub mod tree;
