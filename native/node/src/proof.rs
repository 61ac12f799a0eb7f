//! Proofs that a recovery point is the same at two sites. Questions, answers and places are opaque.

use crate::call::in_thread;
use crate::convert;
use crate::pool::pool;
use crate::registry::Registry;
use holdfast_store::engine::{self, Mismatch, Proof};
use holdfast_store::error::{Error, Kind, Result};
use napi::Env;
use napi::bindgen_prelude::{BigInt, Object, Uint8Array};
use napi_derive::napi;
use std::sync::Arc;

/// Points that are compared at the same time at most.
const PROOFS_MAX: usize = 32;
/// A question or an answer at most; the engine says what of it is right.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Keys to mend, all together: as many as the engine takes, none of them the longest.
const MENDS_BYTES_MAX: usize = 8 << 20;

static PROOFS: Registry<Proof> = Registry::new(PROOFS_MAX);

/// What to ask the other side, and what it should answer.
#[napi(object)]
pub struct ProofLead {
    pub question: Uint8Array,
    pub answer: Uint8Array,
    /// Bytes that were read for it here, about.
    pub bytes: f64,
}

/// What an answer says.
#[napi(object)]
pub struct ProofVerdict {
    /// Where the next question begins; empty: everything was compared.
    pub next: Uint8Array,
    pub ranges: u32,
    /// Records and blocks in them here.
    pub entries: f64,
    /// Questions for what lies in ranges that differ.
    pub suspects: Vec<Uint8Array>,
}

/// One thing that a replica has otherwise than its owner.
#[napi(object)]
pub struct ProofMismatch {
    pub volume: String,
    /// 0: of the volume itself.
    pub inode: BigInt,
    /// From the volume's root, without a slash in front; absent: it cannot be named.
    pub path: Option<Uint8Array>,
    pub kind: String,
    /// `bytes`, `mode`, `name`, `file`, `attribute user.x` …
    pub what: String,
    /// What either side has, where that is short.
    pub detail: String,
    /// Of `bytes`.
    pub offset: Option<BigInt>,
    pub length: Option<BigInt>,
}

/// What differs in a range.
#[napi(object)]
pub struct ProofFound {
    pub mismatches: Vec<ProofMismatch>,
    /// Keys that have to go again, for `replicaMend`; those of several ranges may be joined.
    pub mends: Uint8Array,
    /// The question for the rest of the range; absent: all of it was told.
    pub rest: Option<Uint8Array>,
    /// How far it was told: where that is behind the verdict's `next`, comparing goes on there.
    pub reached: Uint8Array,
}

impl From<Mismatch> for ProofMismatch {
    fn from(mismatch: Mismatch) -> Self {
        let Mismatch { volume, ino, path, kind, what, detail, range } = mismatch;
        Self {
            volume,
            inode: ino.0.into(),
            path: path.map(Uint8Array::from),
            kind: kind.name().to_owned(),
            what,
            detail,
            offset: range.map(|(offset, _)| offset.into()),
            length: range.map(|(_, length)| length.into()),
        }
    }
}

impl From<engine::Found> for ProofFound {
    fn from(found: engine::Found) -> Self {
        Self {
            mismatches: found.mismatches.into_iter().map(ProofMismatch::from).collect(),
            mends: found.mends.into(),
            rest: found.rest.map(Uint8Array::from),
            reached: found.reached.into(),
        }
    }
}

fn message(what: &str, message: &[u8]) -> napi::Result<Vec<u8>> {
    convert::bytes(what, message, MESSAGE_BYTES_MAX)
}

fn proof(handle: u32) -> Result<Arc<Proof>> {
    PROOFS.get(handle).ok_or_else(|| Error::new(Kind::Closed, format!("no proof {handle}: it was closed")))
}

/// Opens a recovery point of a lineage, its owner's or as it was received here; it stays kept until it is closed.
#[napi(ts_return_type = "Promise<number | Failure>")]
pub fn proof_open(env: &Env, handle: f64, target: String, lineage: BigInt, lsn: BigInt) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let (lineage, lsn) = (convert::unsigned("lineage", &lineage)?, convert::unsigned("lsn", &lsn)?);
    in_thread(env, "proof-open", move || {
        let proof = pool(handle)?.proof_open(&target, lineage, lsn)?;
        let full = || Error::new(Kind::Unavailable, format!("{PROOFS_MAX} recovery points are being compared; try again"));
        PROOFS.add(Arc::new(proof)).ok_or_else(full)
    })
}

/// The next ranges from a place on (empty: from the beginning).
#[napi(ts_return_type = "Promise<ProofLead | Failure>")]
pub fn proof_lead(env: &Env, handle: f64, from: Uint8Array) -> napi::Result<Object<'_>> {
    let handle = convert::handle("proof", handle)?;
    let from = message("place", &from)?;
    in_thread(env, "proof-lead", move || {
        let lead = proof(handle)?.lead(&from, usize::MAX)?;
        Ok(ProofLead { question: lead.question.into(), answer: lead.answer.into(), bytes: lead.bytes as f64 })
    })
}

/// The answer to a question of the other side.
#[napi(ts_return_type = "Promise<Uint8Array | Failure>")]
pub fn proof_answer(env: &Env, handle: f64, question: Uint8Array) -> napi::Result<Object<'_>> {
    let handle = convert::handle("proof", handle)?;
    let question = message("question", &question)?;
    in_thread(env, "proof-answer", move || Ok(Uint8Array::from(proof(handle)?.answer(&question)?)))
}

/// Compares the other side's answer with that of `proofLead`.
#[napi(ts_return_type = "Promise<ProofVerdict | Failure>")]
pub fn proof_compare(
    env: &Env,
    handle: f64,
    question: Uint8Array,
    ours: Uint8Array,
    theirs: Uint8Array,
) -> napi::Result<Object<'_>> {
    let handle = convert::handle("proof", handle)?;
    let question = message("question", &question)?;
    let (ours, theirs) = (message("answer", &ours)?, message("answer", &theirs)?);
    in_thread(env, "proof-compare", move || {
        let verdict = proof(handle)?.compare(&question, &ours, &theirs)?;
        Ok(ProofVerdict {
            next: verdict.next.into(),
            ranges: verdict.ranges,
            entries: verdict.entries as f64,
            suspects: verdict.suspects.into_iter().map(Uint8Array::from).collect(),
        })
    })
}

/// What differs in a range, with the other side's answer to the question for it. This side is the owner.
#[napi(ts_return_type = "Promise<ProofFound | Failure>")]
pub fn proof_mismatches(env: &Env, handle: f64, question: Uint8Array, theirs: Uint8Array) -> napi::Result<Object<'_>> {
    let handle = convert::handle("proof", handle)?;
    let (question, theirs) = (message("question", &question)?, message("answer", &theirs)?);
    in_thread(env, "proof-mismatches", move || Ok(ProofFound::from(proof(handle)?.mismatches(&question, &theirs)?)))
}

/// Lets go of a point; false: there is none of this number.
#[napi]
pub fn proof_close(handle: f64) -> napi::Result<bool> {
    let handle = convert::handle("proof", handle)?;
    // Its pin may touch tables: not on JavaScript's thread.
    match PROOFS.remove(handle) {
        Some(proof) => {
            let dropped = holdfast_device::threads::spawn("proof-close", move || drop(proof));
            drop(dropped);
            Ok(true)
        }
        None => Ok(false),
    }
}

/// What proofs found goes to the followers with the next batch. The recovery point at which they have it.
#[napi(ts_return_type = "Promise<bigint | Failure>")]
pub fn replica_mend(env: &Env, handle: f64, target: String, mends: Uint8Array) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let mends = convert::bytes("mends", &mends, MENDS_BYTES_MAX)?;
    in_thread(env, "replica-mend", move || Ok(BigInt::from(pool(handle)?.replica_mend(&target, &mends)?)))
}
