//! The only crate that names napi: convert, call, convert back.
//!
//! - Pools and mounts are numeric handles into process-wide registries, so that any worker may use them.
//! - What may wait for a drive runs on a thread of its own and answers with a promise; Node's loop never waits.
//! - Arguments of a wrong type or range throw (`InvalidArg`). What fails at run time comes back as a `Failure`
//!   value, and is thrown once, in TypeScript.
//! - Bytes and log positions are `bigint`, handles and small counts are `number`, paths are bytes.

mod ahead;
mod call;
mod clones;
mod convert;
mod handover;
mod headers;
mod history;
mod identity;
mod mount;
mod pool;
mod proof;
mod registry;
mod replica;
mod retention;
mod space;
mod system;
