//! What snapshots hold, and whose the bytes of pools and groups are.

use crate::call::in_thread;
use crate::convert;
use crate::pool::pool;
use holdfast_store::engine;
use napi::Env;
use napi::bindgen_prelude::{BigInt, Object};
use napi_derive::napi;

/// Points that one call lists at most.
const LIST_MAX: u32 = 10_000;
/// Snapshots that one call asks about at most.
const NAMES_MAX: usize = 10_000;

/// What a point holds of the past, in bytes of content, once.
#[napi(object)]
pub struct PointSpace {
    pub lsn: BigInt,
    /// Nobody else does: deleting it gives these back.
    pub unique_bytes: BigInt,
    /// These, and what beside it only kept seconds hold.
    pub unique_lasting_bytes: BigInt,
    /// Everything that it sees and the present does not.
    pub seen_bytes: BigInt,
}

impl From<(u64, engine::PointSpace)> for PointSpace {
    fn from((lsn, space): (u64, engine::PointSpace)) -> Self {
        Self {
            lsn: lsn.into(),
            unique_bytes: space.unique.into(),
            unique_lasting_bytes: space.unique_lasting.into(),
            seen_bytes: space.seen.into(),
        }
    }
}

/// What `df` says of a volume: bytes of content, once.
#[napi(object)]
pub struct VolumeSpace {
    pub total_bytes: BigInt,
    pub free_bytes: BigInt,
    pub available_bytes: BigInt,
}

impl From<engine::VolumeSpace> for VolumeSpace {
    fn from(space: engine::VolumeSpace) -> Self {
        Self { total_bytes: space.total.into(), free_bytes: space.free.into(), available_bytes: space.available.into() }
    }
}

/// Whose the bytes are that a group has on the drives, all copies.
#[napi(object)]
pub struct GroupUsage {
    pub live_bytes: BigInt,
    /// What only kept seconds hold.
    pub history_bytes: BigInt,
    /// What snapshots and clones hold of the past.
    pub snapshot_bytes: BigInt,
    pub log_bytes: BigInt,
    pub metadata_bytes: BigInt,
}

impl From<engine::Usage> for GroupUsage {
    fn from(usage: engine::Usage) -> Self {
        Self {
            live_bytes: usage.live.into(),
            history_bytes: usage.history.into(),
            snapshot_bytes: usage.snapshots.into(),
            log_bytes: usage.log.into(),
            metadata_bytes: usage.metadata.into(),
        }
    }
}

/// Whose the data of a pool is, in bytes on drives, all copies.
#[napi(object)]
pub struct PoolUsage {
    pub live_bytes: BigInt,
    pub clone_bytes: BigInt,
    pub history_bytes: BigInt,
    pub snapshot_bytes: BigInt,
    /// What cleaning will give back.
    pub dead_bytes: BigInt,
}

impl From<engine::PoolUsage> for PoolUsage {
    fn from(usage: engine::PoolUsage) -> Self {
        Self {
            live_bytes: usage.live.into(),
            clone_bytes: usage.clones.into(),
            history_bytes: usage.history.into(),
            snapshot_bytes: usage.snapshots.into(),
            dead_bytes: usage.dead.into(),
        }
    }
}

/// What would be free if some snapshots went.
#[napi(object)]
pub struct WouldFree {
    pub bytes: BigInt,
    /// More, once the kept seconds that hold it too have gone by themselves.
    pub later_bytes: BigInt,
}

/// What snapshots hold: those after an LSN, oldest first. `Unavailable` when that would read more than so many bytes of tables.
#[napi(ts_return_type = "Promise<Array<PointSpace> | Failure>")]
pub fn snapshot_space(
    env: &Env,
    handle: f64,
    target: String,
    after: BigInt,
    limit: f64,
    table_bytes_max: BigInt,
) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let after = convert::unsigned("after", &after)?;
    let limit = convert::whole("limit", limit, LIST_MAX)? as usize;
    let most = convert::unsigned("tableBytesMax", &table_bytes_max)?;
    in_thread(env, "snapshot-space", move || {
        let spaces = pool(handle)?.snapshot_space(&target, (after, limit), most)?;
        Ok(spaces.into_iter().map(PointSpace::from).collect::<Vec<_>>())
    })
}

/// What would be free if these snapshots were deleted. Fails as deleting one of them would.
#[napi(ts_return_type = "Promise<WouldFree | Failure>")]
pub fn snapshot_would_free(env: &Env, handle: f64, target: String, names: Vec<String>) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    if names.len() > NAMES_MAX {
        return Err(crate::call::bad_argument(format!("{} names: {NAMES_MAX} are the most", names.len())));
    }
    in_thread(env, "snapshot-would-free", move || {
        let free = pool(handle)?.would_free(&target, &names, u64::MAX)?;
        Ok(WouldFree { bytes: free.bytes.into(), later_bytes: free.bytes_later.into() })
    })
}
