//! Mounts.

use crate::call::{bad_argument, in_thread, system_error};
use crate::convert;
use crate::pool::pool;
use crate::registry::Registry;
use holdfast_fuse::{Mount, ServeOptions, TransportWish};
use holdfast_store::api::FileSystem;
use holdfast_store::error::{Error, Kind};
use holdfast_store::volume::{Volume, VolumeOptions};
use napi::bindgen_prelude::{Function, Object, Uint8Array};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Status};
use napi_derive::napi;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Writing back is waited for so long at most.
const WRITE_BACK_MS_MAX: u32 = 60_000;
/// Mounts of one process at most.
const MOUNTS_MAX: usize = 1024;
static MOUNTS: Registry<Mounted> = Registry::new(MOUNTS_MAX);

struct Mounted {
    mount: Mount,
    volume: Arc<Volume>,
}

impl Mounted {
    /// Unmounts; then the kernel's references are gone, and what was only held open goes too.
    fn stop(&self, detach: bool) -> Result<(), Error> {
        self.mount.stop(detach).map_err(|error| system_error("unmounting", &error))?;
        self.volume.release()
    }
}

#[napi(object)]
pub struct MountOptions {
    pub dir: Uint8Array,
    /// Shown as the mount's source in /proc/self/mountinfo.
    pub source: String,
    pub allow_other: bool,
    pub suid: bool,
    pub dev: bool,
    pub read_only: bool,
    pub noatime: bool,
    pub noexec: bool,
    /// `auto`, `dev` or `uring`.
    pub transport: String,
    /// Mount what was there then, for reading: a snapshot's name, a time, an LSN.
    pub at: Option<String>,
}

/// Events that wait for JavaScript at most. They carry nothing, so one that is dropped because others wait is no loss.
const EVENTS_MAX: usize = 16;
type Listener = ThreadsafeFunction<(), (), (), Status, false, true, EVENTS_MAX>;
static LISTENER: Mutex<Option<Listener>> = Mutex::new(None);

/// Calls `listener` after a mount ended without `mountStop`: an umount from outside or an abort. Which one it was is
/// found with `mountAlive`. The newest listener of the process counts; it does not keep the process alive.
#[napi]
pub fn on_mount_ended(listener: Function<(), ()>) -> napi::Result<()> {
    let built = listener
        .build_threadsafe_function::<()>()
        .weak::<true>()
        .callee_handled::<false>()
        .max_queue_size::<EVENTS_MAX>()
        .build()?;
    *LISTENER.lock() = Some(built);
    Ok(())
}

fn tell_mount_ended() {
    if let Some(listener) = LISTENER.lock().as_ref() {
        // A full queue holds the same news already.
        let _queued = listener.call((), ThreadsafeFunctionCallMode::NonBlocking);
    }
}

fn mount(handle: u32) -> Result<Arc<Mounted>, Error> {
    MOUNTS.get(handle).ok_or_else(|| Error::new(Kind::NotFound, "nothing is mounted under this handle"))
}

/// Mounts a volume of an open pool; fulfils with the mount's handle when it answers.
#[napi(ts_return_type = "Promise<number | Failure>")]
pub fn mount_start(env: &Env, pool_handle: f64, volume: String, options: MountOptions) -> napi::Result<Object<'_>> {
    let pool_handle = convert::handle("pool", pool_handle)?;
    let transport = match options.transport.as_str() {
        "auto" => TransportWish::Auto,
        "dev" => TransportWish::Dev,
        "uring" => TransportWish::Uring,
        other => return Err(bad_argument(format!("transport {other:?} is none of auto, dev, uring"))),
    };
    let at = options.at;
    let options = holdfast_fuse::MountOptions {
        dir: convert::path("dir", &options.dir)?,
        source: options.source,
        allow_other: options.allow_other,
        suid: options.suid,
        dev: options.dev,
        read_only: options.read_only || at.is_some(),
        noatime: options.noatime,
        noexec: options.noexec,
    };
    in_thread(env, "mount-start", move || {
        let on_end = Some(Box::new(tell_mount_ended) as Box<dyn FnOnce() + Send>);
        let serve = ServeOptions { transport, on_end, ..ServeOptions::default() };
        let what = format!("mounting {volume} at {}", options.dir.display());
        let pool = pool(pool_handle)?;
        let timeline = match at {
            Some(at) => pool.timeline_at(&volume, &at)?,
            None => pool.timeline(&volume, VolumeOptions { noatime: options.noatime })?,
        };
        // A fork can be looked at, as a point of the past can.
        let read_only = options.read_only || timeline.is_fork();
        let options = holdfast_fuse::MountOptions { read_only, ..options };
        let (volume, file_system): (_, Arc<dyn FileSystem>) = (timeline.present().clone(), timeline);
        let mount = Mount::start_with(file_system, options, serve).map_err(|error| system_error(&what, &error))?;
        let mount = Arc::new(Mounted { mount, volume });
        MOUNTS.add(mount.clone()).ok_or_else(|| {
            let refused = Error::new(Kind::Unavailable, format!("{what}: {MOUNTS_MAX} mounts are there already"));
            match mount.stop(true) {
                Ok(()) => refused,
                Err(error) => error,
            }
        })
    })
}

/// Unmounts. A busy mount is a `Conflict`, unless `detach`. The handle is dead when this succeeds.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn mount_stop(env: &Env, handle: f64, detach: bool) -> napi::Result<Object<'_>> {
    let handle = convert::handle("mount", handle)?;
    in_thread(env, "mount-stop", move || {
        mount(handle)?.stop(detach)?;
        drop(MOUNTS.remove(handle));
        Ok(())
    })
}

/// What programs changed through mappings is written back, within so long; what they change meanwhile may come later.
#[napi(ts_return_type = "Promise<void | Failure>")]
pub fn mount_write_back(env: &Env, handle: f64, limit_ms: f64) -> napi::Result<Object<'_>> {
    let handle = convert::handle("mount", handle)?;
    let limit = Duration::from_millis(convert::whole("limitMs", limit_ms, WRITE_BACK_MS_MAX)?.into());
    in_thread(env, "mount-write-back", move || {
        mount(handle)?.mount.write_back(limit).map_err(|error| system_error("writing back", &error))
    })
}

/// False once the kernel has ended the connection, and for a handle that is dead.
#[napi]
pub fn mount_alive(handle: f64) -> napi::Result<bool> {
    let handle = convert::handle("mount", handle)?;
    Ok(MOUNTS.get(handle).is_some_and(|mounted| mounted.mount.alive()))
}

/// `dev` or `uring`; empty for a handle that is dead.
#[napi]
pub fn mount_transport(handle: f64) -> napi::Result<String> {
    let handle = convert::handle("mount", handle)?;
    Ok(MOUNTS.get(handle).map(|mounted| mounted.mount.transport().to_owned()).unwrap_or_default())
}

/// Why it is that one, in words that finish "because"; empty for a handle that is dead.
#[napi]
pub fn mount_transport_reason(handle: f64) -> napi::Result<String> {
    let handle = convert::handle("mount", handle)?;
    Ok(MOUNTS.get(handle).map(|mounted| mounted.mount.transport_reason().to_owned()).unwrap_or_default())
}
