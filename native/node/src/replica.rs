//! Groups between sites: recovery points cut here, batches read here and taken in there. Chunks and cursors are opaque.

use crate::ahead::Ahead;
use crate::call::{at_once, bad_argument, in_thread};
use crate::convert;
use crate::pool::pool;
use crate::registry::Registry;
use holdfast_store::engine::{self, Part, Staged};
use holdfast_store::error::{Error, Kind};
use napi::Env;
use napi::bindgen_prelude::{BigInt, Object, Uint8Array};
use napi_derive::napi;

/// Batches that are being read at the same time at most.
const DELTAS_MAX: usize = 64;
/// A description, or a chunk with its header, at most: what a peer may make us copy.
const BYTES_MAX: usize = 1 << 20;

static DELTAS: Registry<Ahead> = Registry::new(DELTAS_MAX);

/// A recovery point.
#[napi(object)]
pub struct CutPoint {
    pub lsn: BigInt,
    /// Wall time, since 1970.
    pub wall_s: f64,
    pub wall_ns: u32,
    /// The snapshot that it is; empty: none.
    pub name: String,
}

/// A batch of which a replica has the beginning.
#[napi(object)]
pub struct StagedBatch {
    pub base: BigInt,
    pub target: BigInt,
    /// Chunks that are in.
    pub sequence: BigInt,
    /// Where it goes on; empty: all of it is in.
    pub cursor: Uint8Array,
}

/// How far a replica is.
#[napi(object)]
pub struct ReplicaState {
    /// False: it was promoted and takes changes, or it was given away, or is a fork.
    pub is_replica: bool,
    /// This site owned it, and has given it to another one.
    pub is_given: bool,
    /// What a former owner did: `source` is its successor's group, `lsn` the successor's LSN of their last common recovery point.
    pub is_fork: bool,
    /// Uuid of the owner's group.
    pub source: String,
    /// Random id of the epoch that its recovery points are of.
    pub lineage: BigInt,
    /// The owner's LSN of the newest recovery point that is whole; 0: none.
    pub lsn: BigInt,
    /// Of this site, and when it was cut.
    pub local_lsn: BigInt,
    pub wall_s: f64,
    pub wall_ns: u32,
    pub staging: Option<StagedBatch>,
    /// Of what was promoted: where it left its owner's lineage.
    pub branch: Option<Branch>,
}

/// A recovery point that a promoted group has in common with its former owner.
#[napi(object)]
pub struct Branch {
    /// The lineage that they had in common; `ReplicaState::lsn` is of it.
    pub lineage: BigInt,
    /// The promoted group's own LSN of the point.
    pub lsn: BigInt,
}

/// A part of a batch, to be sent.
#[napi(object)]
pub struct DeltaPart {
    pub chunk: Uint8Array,
    /// Where the next one begins; empty: this was the last.
    pub cursor: Uint8Array,
    /// Bytes before compression.
    pub raw_bytes: u32,
}

/// A follower, and the recovery point that is kept for it.
#[napi(object)]
pub struct Follower {
    pub name: String,
    pub lsn: BigInt,
}

/// A durable recovery point of now; the newest one, if nothing changed since.
#[napi(ts_return_type = "Promise<CutPoint | Failure>")]
pub fn replica_cut(env: &Env, handle: f64, target: String) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "replica-cut", move || {
        let point = pool(handle)?.replica_cut(&target)?;
        let (wall_s, wall_ns) = (point.wall.sec as f64, point.wall.nsec);
        Ok(CutPoint { lsn: point.lsn.into(), wall_s, wall_ns, name: point.name })
    })
}

/// What another site needs to make a replica of a group.
#[napi(ts_return_type = "Promise<Uint8Array | Failure>")]
pub fn replica_describe(env: &Env, handle: f64, target: String) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "replica-describe", move || Ok(Uint8Array::from(pool(handle)?.replica_describe(&target)?)))
}

/// Makes an empty group that follows the one described. `rf` 0: as many copies as at the owner.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn replica_create(
    env: &Env,
    handle: f64,
    description: Uint8Array,
    name: String,
    rf: f64,
) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let description = convert::bytes("description", &description, BYTES_MAX)?;
    let rf = convert::whole("rf", rf, 3)? as u8;
    in_thread(env, "replica-create", move || pool(handle)?.replica_create(&description, &name, rf))
}

/// How far a replica is; null: the group never was one, and was not given away.
#[napi(ts_return_type = "Promise<ReplicaState | null | Failure>")]
pub fn replica_state(env: &Env, handle: f64, target: String) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "replica-state", move || Ok(pool(handle)?.replica_state(&target)?.map(ReplicaState::from)))
}

impl From<engine::ReplicaState> for ReplicaState {
    fn from(state: engine::ReplicaState) -> Self {
        Self {
            is_replica: state.is_replica,
            is_given: state.is_given,
            is_fork: state.is_fork,
            source: state.source.to_string(),
            lineage: state.lineage.into(),
            lsn: state.lsn.into(),
            local_lsn: state.local_lsn.into(),
            wall_s: state.wall.sec as f64,
            wall_ns: state.wall.nsec,
            staging: state.staging.map(|staging| StagedBatch {
                base: staging.base.0.into(),
                target: staging.target.0.into(),
                sequence: staging.sequence.into(),
                cursor: staging.cursor.into(),
            }),
            branch: state.branch.map(|branch| Branch { lineage: branch.lineage.into(), lsn: branch.lsn.0.into() }),
        }
    }
}

/// Takes the next chunk of a batch in. `taken`: the next one may come; `complete`: it was the last; `known`: it was in already.
#[napi(ts_return_type = "Promise<'taken' | 'complete' | 'known' | Failure>")]
pub fn replica_stage(
    env: &Env,
    handle: f64,
    target: String,
    chunk: Uint8Array,
    cursor: Uint8Array,
) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let (chunk, cursor) = (convert::bytes("chunk", &chunk, BYTES_MAX)?, convert::bytes("cursor", &cursor, BYTES_MAX)?);
    in_thread(env, "replica-stage", move || {
        let staged = pool(handle)?.replica_stage(&target, &chunk, &cursor)?;
        Ok(match staged {
            Staged::Taken => "taken",
            Staged::Complete => "complete",
            Staged::Known => "known",
        })
    })
}

/// The batch to the owner's `lsn` is whole: it becomes the newest recovery point, durably. `name`: the snapshot that it is.
#[napi(ts_return_type = "Promise<void | Failure>")]
#[allow(clippy::too_many_arguments)]
pub fn replica_complete(
    env: &Env,
    handle: f64,
    target: String,
    lineage: BigInt,
    lsn: BigInt,
    wall_s: f64,
    wall_ns: f64,
    name: String,
) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let (lineage, lsn) = (convert::unsigned("lineage", &lineage)?, convert::unsigned("lsn", &lsn)?);
    let wall = wall_time(wall_s, wall_ns)?;
    in_thread(env, "replica-complete", move || {
        pool(handle)?.replica_complete(&target, (lineage, lsn), wall, &name)
    })
}

/// Makes a replica the owner of what it has received. `follower`: whom the point where the two part is kept for; empty: nobody.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn replica_promote(env: &Env, handle: f64, target: String, follower: String) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "replica-promote", move || pool(handle)?.replica_promote(&target, &follower))
}

/// Uuid of a group, as `ReplicaState::source` of its replicas has it, and the lineage of its recovery points.
#[napi(object)]
pub struct GroupIdentity {
    pub uuid: String,
    pub lineage: BigInt,
}

#[napi(ts_return_type = "Promise<GroupIdentity | Failure>")]
pub fn replica_identity(env: &Env, handle: f64, target: String) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "replica-identity", move || {
        let (uuid, lineage) = pool(handle)?.replica_identity(&target)?;
        Ok(GroupIdentity { uuid: uuid.to_string(), lineage: lineage.into() })
    })
}

/// The group that was promoted in a former owner's place.
#[napi(object)]
pub struct Successor {
    pub uuid: String,
    pub lineage: BigInt,
    /// Its own LSN of the last recovery point that both have, and when that was cut.
    pub lsn: BigInt,
    pub wall_s: f64,
    pub wall_ns: f64,
}

impl Successor {
    fn take(self) -> napi::Result<engine::Leader> {
        let source = self.uuid.parse().map_err(|_| bad_argument(format!("uuid: {:?} is none", self.uuid)))?;
        let lineage = convert::unsigned("lineage", &self.lineage)?;
        let wall = wall_time(self.wall_s, self.wall_ns)?;
        Ok(engine::Leader { source, lineage, lsn: convert::unsigned("lsn", &self.lsn)?, wall })
    }
}

fn wall_time(wall_s: f64, wall_ns: f64) -> napi::Result<engine::Time> {
    if !wall_s.is_finite() || wall_s.fract() != 0.0 || wall_s.abs() > 1e15 {
        return Err(bad_argument(format!("wallS: {wall_s} is not a second since 1970")));
    }
    Ok(engine::Time { sec: wall_s as i64, nsec: convert::whole("wallNs", wall_ns, 999_999_999)? })
}

/// A former owner stops: nobody changes the group any more, whoever has it mounted, also after a start. `at`: its own LSN of the last
/// recovery point that its successor has. Done before, it does nothing.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn replica_fence(
    env: &Env,
    handle: f64,
    target: String,
    at: BigInt,
    successor: Successor,
) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let (at, leader) = (convert::unsigned("at", &at)?, successor.take()?);
    in_thread(env, "replica-fence", move || pool(handle)?.replica_fence(&target, at, &leader))
}

/// A former owner follows the group that was promoted in its place. What it did after its recovery point `at` stays as a group
/// `fork`. Done before, it does nothing.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn replica_rejoin(
    env: &Env,
    handle: f64,
    target: String,
    fork: String,
    at: BigInt,
    successor: Successor,
) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let (at, leader) = (convert::unsigned("at", &at)?, successor.take()?);
    in_thread(env, "replica-rejoin", move || pool(handle)?.replica_rejoin(&target, &fork, at, &leader))
}

/// A fenced former owner that did nothing after its recovery point `at` follows its successor as it is. Done before, it does nothing.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn replica_turn(env: &Env, handle: f64, target: String, at: BigInt, successor: Successor) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let (at, leader) = (convert::unsigned("at", &at)?, successor.take()?);
    in_thread(env, "replica-turn", move || pool(handle)?.replica_turn(&target, at, &leader))
}

/// The kept LSN here of a recovery point of another site's lineage; null: it is not kept.
#[napi(ts_return_type = "Promise<bigint | null | Failure>")]
pub fn replica_find(env: &Env, handle: f64, target: String, lineage: BigInt, lsn: BigInt) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let (lineage, lsn) = (convert::unsigned("lineage", &lineage)?, convert::unsigned("lsn", &lsn)?);
    in_thread(env, "replica-find", move || Ok(pool(handle)?.replica_find(&target, lineage, lsn)?.map(BigInt::from)))
}

/// A recovery point of another site's lineage that is kept here.
#[napi(object)]
pub struct CommonPoint {
    /// Which one it is there.
    pub at: BigInt,
    /// The same, here.
    pub lsn: BigInt,
}

/// The newest kept recovery point of another site's lineage, at or before an LSN of it; null: none is.
#[napi(ts_return_type = "Promise<CommonPoint | null | Failure>")]
pub fn replica_find_last(env: &Env, handle: f64, target: String, lineage: BigInt, until: BigInt) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let (lineage, until) = (convert::unsigned("lineage", &lineage)?, convert::unsigned("until", &until)?);
    in_thread(env, "replica-find", move || {
        let found = pool(handle)?.replica_find_last(&target, lineage, until)?;
        Ok(found.map(|(at, lsn)| CommonPoint { at: at.into(), lsn: lsn.into() }))
    })
}

/// Followers of a group, and what is kept for them.
#[napi(ts_return_type = "Promise<Array<Follower> | Failure>")]
pub fn follower_list(env: &Env, handle: f64, target: String) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "follower-list", move || {
        let followers = pool(handle)?.followers(&target)?;
        Ok(followers.into_iter().map(|one| Follower { name: one.name, lsn: one.lsn.0.into() }).collect::<Vec<_>>())
    })
}

/// A follower has this recovery point durably: history is kept for it from there on only.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn follower_has(env: &Env, handle: f64, target: String, name: String, lsn: BigInt) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let lsn = convert::unsigned("lsn", &lsn)?;
    in_thread(env, "follower-has", move || pool(handle)?.follower_has(&target, &name, lsn))
}

#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn follower_forget(env: &Env, handle: f64, target: String, name: String) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "follower-forget", move || pool(handle)?.follower_forget(&target, &name))
}

/// Opens the batch from recovery point `base` (0: everything) to `until`, from a place in it on (empty: its beginning).
#[napi(ts_return_type = "Promise<number | Failure>")]
pub fn delta_open(
    env: &Env,
    handle: f64,
    target: String,
    base: BigInt,
    until: BigInt,
    cursor: Uint8Array,
) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let (base, until) = (convert::unsigned("base", &base)?, convert::unsigned("until", &until)?);
    let cursor = convert::bytes("cursor", &cursor, BYTES_MAX)?;
    in_thread(env, "delta-open", move || {
        let delta = pool(handle)?.delta_open(&target, base, until, &cursor)?;
        let full = || Error::new(Kind::Unavailable, format!("{DELTAS_MAX} batches are being read; try again"));
        DELTAS.add(Ahead::new(delta)).ok_or_else(full)
    })
}

impl From<Part> for DeltaPart {
    fn from(part: Part) -> Self {
        Self { chunk: part.chunk.into(), cursor: part.cursor.into(), raw_bytes: part.raw_bytes as u32 }
    }
}

/// The next chunk of about so many bytes before compression; null: there are no more.
#[napi(ts_return_type = "Promise<DeltaPart | null | Failure>")]
pub fn delta_next(env: &Env, handle: f64, bytes: f64) -> napi::Result<Object<'_>> {
    let handle = convert::handle("batch", handle)?;
    let bytes = convert::whole("bytes", bytes, u32::MAX)? as usize;
    let delta = DELTAS.get(handle);
    if let Some(part) = delta.as_ref().and_then(|delta| delta.ready()) {
        return at_once(env, Ok(Some(DeltaPart::from(part))));
    }
    in_thread(env, "delta-next", move || {
        let closed = || Error::new(Kind::Closed, format!("no batch {handle}: it was closed"));
        Ok(delta.ok_or_else(closed)?.next(bytes)?.map(DeltaPart::from))
    })
}

/// Lets go of a batch; false: there is none of this number.
#[napi]
pub fn delta_close(handle: f64) -> napi::Result<bool> {
    let handle = convert::handle("batch", handle)?;
    // Its pins may touch tables: not on JavaScript's thread.
    match DELTAS.remove(handle) {
        Some(delta) => {
            delta.close();
            let dropped = holdfast_device::threads::spawn("delta-close", move || drop(delta));
            drop(dropped);
            Ok(true)
        }
        None => Ok(false),
    }
}
