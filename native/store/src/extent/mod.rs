//! File bytes: which stored bytes answer for a block, and reading them verified.

pub mod cache;
pub mod map;
pub mod read;
pub mod resolve;
