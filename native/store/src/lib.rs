//! The engine: log, extents, metadata, volumes, placement. No FUSE, no napi, no async.
#![forbid(unsafe_code)]

pub mod api;
pub mod engine;
pub mod error;
pub mod extent;
pub mod gate;
pub mod group;
pub mod ledger;
pub mod metadata;
pub mod mutants;
pub mod oplog;
pub mod past;
pub mod placement;
pub mod replica;
mod rate;
pub mod volume;
