//! Snapshots and earlier states.

use crate::call::in_thread;
use crate::convert;
use crate::pool::pool;
use holdfast_store::engine;
use holdfast_store::error::{Error, Kind};
use napi::Env;
use napi::bindgen_prelude::{BigInt, Object, Uint8Array};
use napi_derive::napi;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Points that one call lists at most.
const LIST_MAX: u32 = 10_000;
/// How long a feed may wait for the next change.
const WAIT_MS_MAX: u32 = 60_000;

/// A snapshot, or a second that is kept.
#[napi(object)]
pub struct SnapshotInfo {
    /// Empty: a kept second.
    pub name: String,
    pub group: String,
    pub lsn: BigInt,
    /// Wall time, since 1970.
    pub wall_s: f64,
    pub wall_ns: u32,
    /// It cannot be deleted.
    pub held: bool,
}

impl From<engine::SnapshotInfo> for SnapshotInfo {
    fn from(point: engine::SnapshotInfo) -> Self {
        Self {
            name: point.name,
            group: point.group,
            lsn: point.lsn.into(),
            wall_s: point.wall_s as f64,
            wall_ns: point.wall_ns,
            held: point.held,
        }
    }
}

/// Keeps the state of now, or of an earlier moment that is kept still, under a name. `target`: a group, or a volume that is
/// alone in its group.
#[napi(ts_return_type = "Promise<SnapshotInfo | Failure>")]
pub fn snapshot_create(
    env: &Env,
    handle: f64,
    target: String,
    name: String,
    at: Option<String>,
) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "snapshot-create", move || {
        Ok(SnapshotInfo::from(pool(handle)?.snapshot_create(&target, &name, at.as_deref())?))
    })
}

/// Snapshots after an LSN, oldest first; `seconds`: with the seconds that are kept.
#[napi(ts_return_type = "Promise<Array<SnapshotInfo> | Failure>")]
pub fn snapshot_list(
    env: &Env,
    handle: f64,
    target: String,
    after: BigInt,
    limit: f64,
    seconds: bool,
) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let after = convert::unsigned("after", &after)?;
    let limit = convert::whole("limit", limit, LIST_MAX)? as usize;
    in_thread(env, "snapshot-list", move || {
        let pool = pool(handle)?;
        let points =
            if seconds { pool.kept_points(&target, after, limit)? } else { pool.snapshots(&target, after, limit)? };
        Ok(points.into_iter().map(SnapshotInfo::from).collect::<Vec<_>>())
    })
}

#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn snapshot_delete(env: &Env, handle: f64, target: String, name: String) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "snapshot-delete", move || pool(handle)?.snapshot_delete(&target, &name))
}

#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn snapshot_rename(
    env: &Env,
    handle: f64,
    target: String,
    name: String,
    new_name: String,
) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "snapshot-rename", move || pool(handle)?.snapshot_rename(&target, &name, &new_name))
}

/// A held snapshot cannot be deleted.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn snapshot_hold(env: &Env, handle: f64, target: String, name: String, held: bool) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "snapshot-hold", move || pool(handle)?.snapshot_hold(&target, &name, held))
}

/// The kept point that words mean: a snapshot's name, a time, an LSN.
#[napi(ts_return_type = "Promise<SnapshotInfo | Failure>")]
pub fn point_find(env: &Env, handle: f64, target: String, words: String) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    in_thread(env, "point-find", move || Ok(SnapshotInfo::from(pool(handle)?.point(&target, &words)?)))
}

/// A piece of a file, in bytes.
#[napi(object)]
pub struct ByteRange {
    pub offset: BigInt,
    pub length: BigInt,
}

/// Who made a change.
#[napi(object)]
pub struct ChangeActor {
    pub uid: u32,
    /// Of the process; 0: not known.
    pub pid: u32,
    /// Name of its program; empty: not known.
    pub command: Uint8Array,
}

/// What became of one name or file.
#[napi(object)]
pub struct FileChange {
    /// `added`, `removed`, `renamed`, `changed` or `attributes`.
    pub kind: String,
    /// From the volume's root; of the earlier state when it was removed.
    pub path: Uint8Array,
    /// Where it was, if it was renamed.
    pub old_path: Option<Uint8Array>,
    pub ino: BigInt,
    /// mode >> 12
    pub file_type: u32,
    pub size: BigInt,
    /// Newest change of the inode, and its time since 1970.
    pub lsn: BigInt,
    pub time_s: f64,
    pub time_ns: u32,
    /// Who made it; absent: not known.
    pub actor: Option<ChangeActor>,
    /// Bytes that may differ.
    pub ranges: Vec<ByteRange>,
}

/// Some changes between two points, by inode number.
#[napi(object)]
pub struct DifferencePage {
    pub from: SnapshotInfo,
    pub to: SnapshotInfo,
    pub changes: Vec<FileChange>,
    /// Where the next page begins; absent: this was the last one.
    pub next: Option<BigInt>,
}

impl From<engine::FileChange> for FileChange {
    fn from(change: engine::FileChange) -> Self {
        let range = |(offset, length): (u64, u64)| ByteRange { offset: offset.into(), length: length.into() };
        Self {
            kind: change.kind.name().to_owned(),
            path: change.path.into(),
            old_path: change.old_path.map(Uint8Array::from),
            ino: change.ino.0.into(),
            file_type: u32::from(change.file_type),
            size: change.size.into(),
            lsn: change.lsn.0.into(),
            time_s: change.time.sec as f64,
            time_ns: change.time.nsec,
            actor: change.writer.map(|writer| ChangeActor {
                uid: writer.uid,
                pid: writer.pid,
                command: writer.command.as_bytes().to_vec().into(),
            }),
            ranges: change.ranges.into_iter().map(range).collect(),
        }
    }
}

/// What changed in a volume between two moments that are kept (absent: now), of inodes from `first` on; about `limit` changes.
#[napi(ts_return_type = "Promise<DifferencePage | Failure>")]
pub fn volume_difference(
    env: &Env,
    handle: f64,
    volume: String,
    from: String,
    to: Option<String>,
    first: BigInt,
    limit: f64,
) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let first = convert::unsigned("first", &first)?;
    let limit = convert::whole("limit", limit, LIST_MAX)? as usize;
    in_thread(env, "volume-difference", move || {
        let told = pool(handle)?.difference(&volume, &from, to.as_deref(), first, limit)?;
        Ok(DifferencePage {
            from: told.from.into(),
            to: told.to.into(),
            changes: told.page.changes.into_iter().map(FileChange::from).collect(),
            next: told.page.next.map(|ino| BigInt::from(ino.0)),
        })
    })
}

/// Where a feed goes on, and how.
#[napi(object)]
pub struct FeedRequest {
    /// A cursor; or a moment that is kept, `now`, `beginning`.
    pub from: String,
    /// About so many changes.
    pub limit: f64,
    /// How long to wait for the next change when there is none.
    pub wait_ms: f64,
    /// What was acknowledged before the request, too, though its second is not over.
    pub latest: bool,
    /// One step to the newest state, instead of one for each second.
    pub coalesce: bool,
}

#[napi(object)]
pub struct FeedChange {
    pub change: FileChange,
    /// LSN of the kept state that shows it first. All changes with one make a step.
    pub seen_at: BigInt,
}

#[napi(object)]
pub struct FeedPage {
    pub changes: Vec<FeedChange>,
    pub cursor: String,
    /// LSN of the kept state up to which everything was told before; 0: none.
    pub began_at: BigInt,
    /// The same after this page.
    pub told_to: BigInt,
    pub more: bool,
}

/// Calls that may wait for a change at the same time: each has one of the places for calls.
const FEEDS_MAX: usize = 32;
static FEEDS: AtomicUsize = AtomicUsize::new(0);

/// One of those places.
struct FeedPlace;

impl FeedPlace {
    fn take() -> Result<Self, Error> {
        if FEEDS.fetch_add(1, Ordering::Relaxed) < FEEDS_MAX {
            return Ok(Self);
        }
        FEEDS.fetch_sub(1, Ordering::Relaxed);
        Err(Error::new(Kind::Unavailable, format!("{FEEDS_MAX} feeds wait for changes; try again")))
    }
}

impl Drop for FeedPlace {
    fn drop(&mut self) {
        FEEDS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What happened to a volume, in the order of LSNs, from a cursor on.
#[napi(ts_return_type = "Promise<FeedPage | Failure>")]
pub fn volume_feed(env: &Env, handle: f64, volume: String, request: FeedRequest) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let asked = engine::FeedRequest {
        from: request.from,
        limit: convert::whole("limit", request.limit, LIST_MAX)?.max(1) as usize,
        wait: Duration::from_millis(u64::from(convert::whole("wait", request.wait_ms, WAIT_MS_MAX)?)),
        latest: request.latest,
        coalesce: request.coalesce,
    };
    in_thread(env, "volume-feed", move || {
        let _place = if asked.wait.is_zero() { None } else { Some(FeedPlace::take()?) };
        let page = pool(handle)?.feed(&volume, &asked)?;
        let seen = |told: engine::FeedChange| FeedChange { change: told.change.into(), seen_at: told.seen_at.0.into() };
        Ok(FeedPage {
            changes: page.changes.into_iter().map(seen).collect(),
            cursor: page.cursor,
            began_at: page.began_at.0.into(),
            told_to: page.told_to.0.into(),
            more: page.more,
        })
    })
}
