//! What groups keep of the past by themselves.

use crate::call::in_thread;
use crate::convert;
use crate::pool::pool;
use holdfast_store::engine;
use napi::Env;
use napi::bindgen_prelude::{BigInt, Object};
use napi_derive::napi;

/// One point for every so many seconds is kept for so long.
#[napi(object)]
pub struct ThinStep {
    pub every_s: BigInt,
    pub for_s: BigInt,
}

impl ThinStep {
    pub fn convert(&self) -> napi::Result<engine::ThinStep> {
        Ok(engine::ThinStep {
            every_s: convert::unsigned("everyS", &self.every_s)?,
            for_s: convert::unsigned("forS", &self.for_s)?,
        })
    }
}

/// What a group is to keep, and what it holds.
#[napi(object)]
pub struct Retention {
    /// Every second is kept for so long.
    pub window_s: BigInt,
    /// And then these, finest first.
    pub thin: Vec<ThinStep>,
    /// Bytes on drives that its history may take; 0: the pool's limit alone.
    pub limit_bytes: BigInt,
    /// Seconds back to which every second is there.
    pub held_window_s: BigInt,
    /// Age of the oldest second that is there.
    pub held_oldest_s: BigInt,
    pub ticks: f64,
    pub snapshots: f64,
    /// Seconds of the window that was promised went for want of space.
    pub is_short: bool,
}

impl From<engine::RetentionInfo> for Retention {
    fn from(info: engine::RetentionInfo) -> Self {
        let step = |step: engine::ThinStep| ThinStep { every_s: step.every_s.into(), for_s: step.for_s.into() };
        Self {
            window_s: info.retention.window_s.into(),
            thin: info.retention.thin.into_iter().map(step).collect(),
            limit_bytes: info.limit_bytes.into(),
            held_window_s: info.held.window_s.into(),
            held_oldest_s: info.held.oldest_s.into(),
            ticks: info.held.ticks as f64,
            snapshots: info.held.snapshots as f64,
            is_short: info.held.is_short,
        }
    }
}

/// What to change; absent: nothing.
#[napi(object)]
pub struct RetentionChange {
    pub window_s: Option<BigInt>,
    pub thin: Option<Vec<ThinStep>>,
    /// Bytes on drives; with a percentage of 0 too: no limit but the pool's.
    pub limit_bytes: Option<BigInt>,
    /// Of the pool.
    pub limit_percent: Option<f64>,
}

impl RetentionChange {
    fn convert(self) -> napi::Result<engine::RetentionChange> {
        let steps = |steps: Vec<ThinStep>| steps.iter().map(ThinStep::convert).collect::<napi::Result<Vec<_>>>();
        let bytes = self.limit_bytes.as_ref().map(|bytes| convert::unsigned("limitBytes", bytes)).transpose()?;
        let percent = self.limit_percent.map(|percent| convert::whole("limitPercent", percent, 100)).transpose()?;
        let limit = match (bytes, percent) {
            (None, None) => None,
            (None | Some(0), Some(0)) | (Some(0), None) => Some(engine::HistoryLimit::None),
            (Some(bytes), _) => Some(engine::HistoryLimit::Bytes(bytes)),
            (None, Some(percent)) => Some(engine::HistoryLimit::Percent(percent as u8)),
        };
        Ok(engine::RetentionChange {
            window_s: self.window_s.as_ref().map(|window| convert::unsigned("windowS", window)).transpose()?,
            thin: self.thin.map(steps).transpose()?,
            limit,
        })
    }
}

/// Changes what a group, or the group of a volume that is alone in it, keeps by itself.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn retention_set(env: &Env, handle: f64, target: String, change: RetentionChange) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let change = change.convert()?;
    in_thread(env, "retention-set", move || pool(handle)?.retention_set(&target, &change))
}
