//! Clones.

use crate::call::in_thread;
use crate::convert;
use crate::pool::{VolumeInfo, pool};
use holdfast_store::engine;
use napi::Env;
use napi::bindgen_prelude::{BigInt, Object};
use napi_derive::napi;

/// What a clone lies on.
#[napi(object)]
pub struct CloneBase {
    pub group: String,
    pub lsn: BigInt,
    /// Of the snapshot that it was made of, while there is one; empty otherwise.
    pub name: String,
    /// When that state was, since 1970; absent: it is kept for clones only, which note no time.
    pub wall_s: Option<f64>,
    pub wall_ns: u32,
    /// Generations below: 1 is a clone of what is no clone.
    pub depth: f64,
}

impl From<engine::BaseInfo> for CloneBase {
    fn from(base: engine::BaseInfo) -> Self {
        Self {
            group: base.group,
            lsn: base.lsn.into(),
            name: base.name,
            wall_s: base.wall.map(|wall| wall.sec as f64),
            wall_ns: base.wall.map_or(0, |wall| wall.nsec),
            depth: base.depth as f64,
        }
    }
}

/// How far a promotion is, in bytes of the records that are looked at.
#[napi(object)]
pub struct Promotion {
    pub done_bytes: BigInt,
    pub total_bytes: BigInt,
    /// Why its newest step failed; it is tried again. Empty: it did not.
    pub problem: String,
}

impl From<engine::PromotionInfo> for Promotion {
    fn from(promotion: engine::PromotionInfo) -> Self {
        Self {
            done_bytes: promotion.done_bytes.into(),
            total_bytes: promotion.total_bytes.into(),
            problem: promotion.problem,
        }
    }
}

/// A writable copy of a volume, or of every volume of a group, as it is or was.
#[napi(ts_return_type = "Promise<Array<VolumeInfo> | Failure>")]
pub fn clone_create(
    env: &Env,
    handle: f64,
    source: String,
    name: String,
    at: Option<String>,
) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "clone-create", move || {
        let made = pool(handle)?.clone_create(&source, &name, at.as_deref())?;
        Ok(made.into_iter().map(VolumeInfo::from).collect::<Vec<_>>())
    })
}

/// Lets a clone have everything of its own, in the background, also after a restart; `promotion` of its volumes tells how far it
/// is. False: it has everything already.
#[napi(ts_return_type = "Promise<boolean | Failure>")]
pub fn clone_promote(env: &Env, handle: f64, target: String) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "clone-promote", move || pool(handle)?.clone_promote_begin(&target))
}

/// What a clone holds, in bytes of content, once.
#[napi(object)]
pub struct CloneSpace {
    /// What it has itself, of now and of its past.
    pub own_bytes: BigInt,
    /// What it shows of its ancestors.
    pub shared_bytes: BigInt,
    /// What its parent keeps of its past for this clone alone.
    pub kept_bytes: BigInt,
}

/// What a clone holds. `Unavailable` when that would read more than so many bytes of tables.
#[napi(ts_return_type = "Promise<CloneSpace | Failure>")]
pub fn clone_space(env: &Env, handle: f64, volume: String, table_bytes_max: BigInt) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let most = convert::unsigned("tableBytesMax", &table_bytes_max)?;
    in_thread(env, "clone-space", move || {
        let engine::CloneSpace { own, shared, kept } = pool(handle)?.clone_space(&volume, most)?;
        Ok(CloneSpace { own_bytes: own.into(), shared_bytes: shared.into(), kept_bytes: kept.into() })
    })
}
