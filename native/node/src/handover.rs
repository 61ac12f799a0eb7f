//! Handing a group over to another site: its gate, and the word that it is given.

use crate::call::in_thread;
use crate::convert;
use crate::pool::pool;
use napi::Env;
use napi::bindgen_prelude::{BigInt, Object};
use napi_derive::napi;
use std::time::Duration;

/// A gate is closed for so long at most.
const LIMIT_MS_MAX: u32 = 60_000;

/// Holds up who changes something of a group, until `gateOpen`, or for so long; who is at it has ended when it fulfils. Reads
/// go on, and what the kernel writes back of mappings passes until `gateSeal`. `Conflict`: it is closed already, or given away;
/// `Unavailable`: what was under way does not end in time.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn gate_close(env: &Env, handle: f64, target: String, limit_ms: f64) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let limit = Duration::from_millis(convert::whole("limitMs", limit_ms, LIMIT_MS_MAX)?.into());
    in_thread(env, "gate-close", move || pool(handle)?.gate_close(&target, limit))
}

/// What is written back waits, too. `Conflict`: the gate has opened.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn gate_seal(env: &Env, handle: f64, target: String) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "gate-seal", move || pool(handle)?.gate_seal(&target))
}

/// Everybody goes on, as if nothing had been; nothing when it is open, or the group given away.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn gate_open(env: &Env, handle: f64, target: String) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "gate-open", move || pool(handle)?.gate_open(&target))
}

/// Gives a group away, as it is at the recovery point `last`; durable when it fulfils, and idempotent. The gate has to be sealed.
/// `Conflict`: something came after that point, or the gate has opened: all is as before.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn replica_relinquish(env: &Env, handle: f64, target: String, last: BigInt) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let last = convert::unsigned("last", &last)?;
    in_thread(env, "replica-relinquish", move || pool(handle)?.replica_relinquish(&target, last))
}
