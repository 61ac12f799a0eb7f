//! Every byte on the drives: one record kind a file, encode and decode side by side. No I/O, no unsafe.
#![forbid(unsafe_code)]

pub mod block;
pub mod cell;
pub mod chunk;
pub mod checksum;
pub mod domain;
pub mod frame;
pub mod egroup;
#[cfg(test)]
mod golden;
pub mod header;
pub mod ids;
pub mod index;
pub mod inode;
pub mod key;
pub mod limits;
pub mod manifest;
pub mod op;
pub mod point;
pub mod promotion;
pub mod proof;
pub mod replica;
pub mod retention;
pub mod ring;
pub mod scrub;
pub mod superblock;
pub mod table;
pub mod wire;

pub use domain::{DomainLevel, Protection};
pub use ids::*;
pub use wire::DecodeError;
