//! A mount's life: attach, negotiate, serve, probe; and its end in the order that leaves nobody waiting.

mod attach;
mod info;
mod point;

pub use point::detach_stale;

use crate::abi::output::Lifetimes;
use crate::choice::{Door, choose, without_rings};
use crate::dev::{DevOptions, DevTransport, initialize};
use crate::handler::Handler;
use crate::transport::{InFlight, Serve, Transport};
use crate::uring::{RingOptions, Rings};
use crate::{MountOptions, ServeOptions, TransportWish};
use holdfast_device::threads;
use holdfast_store::api::FileSystem;
use parking_lot::Mutex;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// What the kernel asks for ahead of a stream: so many requests of 1 MiB are under way together. As CephFS has it; with
/// one of them a cold stream was half as fast.
const READAHEAD_BYTES: usize = 8 << 20;
/// A mount that does not answer statfs by then is given up.
const PROBE_LIMIT: Duration = Duration::from_secs(20);
/// The same where rings are tried, with `/dev/fuse` to fall back on.
const RING_PROBE_LIMIT: Duration = Duration::from_secs(10);
/// After a successful unmount: time for the last users of a detached mount, before the connection is aborted.
const USERS_LIMIT: Duration = Duration::from_secs(2);
/// After an abort: time for the readers to come back from the file system.
const READERS_LIMIT: Duration = Duration::from_secs(30);
/// What Drop waits for at each step.
const DROP_LIMIT: Duration = Duration::from_secs(3);

/// A mounted file system and the threads that serve it.
pub struct Mount {
    /// Resolved: absolute, no links.
    point: PathBuf,
    /// `major:minor`, which tells our mount from a later one at the same place.
    device: String,
    dev: DevTransport,
    rings: Option<Rings>,
    /// Why it is served by what serves it.
    why: String,
    in_flight: Arc<InFlight>,
    /// Set before we unmount, so that our own doing is not reported as a mount's end from outside.
    stopping: Arc<AtomicBool>,
    /// Held by the one caller of `stop` that acts.
    stop: Mutex<()>,
}

/// Why a mount could not be served.
enum Failure {
    /// The rings do not work: without them it may.
    Rings(String),
    Other(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Other(error)
    }
}

/// What each try to serve a mount point needs.
struct Try<'a> {
    handler: Arc<dyn Serve>,
    write_bytes_max: u32,
    point: &'a Path,
    wish: TransportWish,
    readers: usize,
    on_end: Arc<Mutex<OnEnd>>,
}

type OnEnd = Option<Box<dyn FnOnce() + Send>>;

impl Mount {
    /// Mounts and serves; returns when a statfs through the mount was answered. A dead Holdfast mount at the
    /// directory is detached first.
    ///
    /// Errors: `NotFound`, `NotADirectory`, `DirectoryNotEmpty`, `AlreadyExists` (a live FUSE mount) about
    /// the directory;
    /// `NotFound` too when `/dev/fuse` or `fusermount3` is missing; `PermissionDenied`; `TimedOut`.
    pub fn start(fs: Arc<dyn FileSystem>, options: MountOptions) -> io::Result<Self> {
        Self::start_with(fs, options, ServeOptions::default())
    }

    /// [`Mount::start`] with more to choose. `Unsupported`: rings are demanded and cannot be had.
    pub fn start_with(
        fs: Arc<dyn FileSystem>,
        options: MountOptions,
        serve: ServeOptions,
    ) -> io::Result<Self> {
        let point = point::resolve(&options.dir)?;
        point::detach_stale(&point)?;
        point::check(&point)?;
        let lifetimes = Lifetimes {
            entry_s: serve.entry_ttl_s,
            attr_s: serve.attr_ttl_s,
            negative_s: serve.negative_ttl_s,
        };
        let attempt = Try {
            write_bytes_max: fs.write_bytes_max(),
            handler: Arc::new(Handler::new(fs, lifetimes)),
            point: &point,
            wish: serve.transport,
            readers: serve.readers,
            on_end: Arc::new(Mutex::new(serve.on_end)),
        };
        let mut door = choose(serve.transport)?;
        loop {
            let connection = attach::mount(&point, &options)?;
            let mounted = info::mounted_at(&point)?.filter(|mounted| mounted.kind == attach::MOUNT_KIND);
            let gone = || io::Error::other(format!("{} was unmounted while it was mounted", point.display()));
            let device = mounted.ok_or_else(gone)?.device;
            // A failure drops the connection or the transports, which aborts it; the mount goes too.
            let failure = match Self::serve(&attempt, connection, device.clone(), door) {
                Ok(mount) => return Ok(mount),
                Err(failure) => failure,
            };
            if is_mounted(&point, &device)? {
                let _first_error_counts = attach::unmount(&point, true);
            }
            match failure {
                Failure::Other(error) => return Err(error),
                // A second time without rings: that cannot fail for this reason.
                Failure::Rings(why) => door = without_rings(serve.transport, why)?,
            }
        }
    }

    /// Answers INIT, starts the threads and tries the mount.
    ///
    /// 1. The rings are made, since from the answer on the kernel waits for all of them;
    /// 2. INIT is answered;
    /// 3. `/dev/fuse` is read, and the rings are registered;
    /// 4. a statfs is answered, over the rings if there are any.
    fn serve(
        attempt: &Try<'_>,
        connection: OwnedFd,
        device: String,
        mut door: Door,
    ) -> Result<Self, Failure> {
        let point = attempt.point.to_owned();
        let in_flight = Arc::new(InFlight::default());
        let mut rings = None;
        let agreed = initialize(&connection, attempt.write_bytes_max, |agreed| {
            if !door.rings {
                return Ok(agreed);
            }
            let agreed_with = agreed.over_rings();
            let options = RingOptions {
                agreed: agreed_with,
                in_flight: Arc::clone(&in_flight),
                abort: aborter(point.clone(), device.clone()),
            };
            let prepared = match agreed.rings_offered {
                true => Rings::prepare(&connection, &attempt.handler, options),
                false => Err("the kernel offers no rings to this mount".into()),
            };
            match prepared {
                Ok(made) => rings = Some(made),
                Err(why) => door = without_rings(attempt.wish, why)?,
            }
            Ok(if rings.is_some() { agreed_with } else { agreed })
        })?;
        let stopping = Arc::new(AtomicBool::new(false));
        let on_end = {
            let (ours, on_end) = (Arc::clone(&stopping), Arc::clone(&attempt.on_end));
            let end_rings = rings.as_ref().map(Rings::ender);
            Box::new(move || {
                if let Some(end_rings) = end_rings {
                    end_rings();
                }
                // An end of our own doing is no news; and a try that failed leaves the word to the next.
                let on_end = if ours.load(Ordering::SeqCst) { None } else { on_end.lock().take() };
                if let Some(on_end) = on_end {
                    on_end();
                }
            })
        };
        let readers = if attempt.readers == 0 && rings.is_some() { 1 } else { attempt.readers };
        let in_flight_there = Arc::clone(&in_flight);
        let beside_rings = rings.is_some();
        let options = DevOptions { readers, agreed, beside_rings, in_flight: in_flight_there, on_end };
        let dev = DevTransport::start(connection, Arc::clone(&attempt.handler), options)?;
        let stop = Mutex::new(());
        let mount = Self { point, device, dev, rings, why: door.why, in_flight, stopping, stop };
        attach::raise_readahead(&mount.device, READAHEAD_BYTES);
        mount.begin()?;
        Ok(mount)
    }

    /// Registers the rings and tries the mount.
    fn begin(&self) -> Result<(), Failure> {
        let Some(rings) = &self.rings else {
            return point::probe(&self.point, PROBE_LIMIT).map_err(|error| {
                let message = format!("mounted at {}, but it does not work: {error}", self.point.display());
                Failure::Other(io::Error::new(error.kind(), message))
            });
        };
        rings.open();
        let failed = |why| Failure::Rings(format!("the kernel's rings do not work here: {why}"));
        point::probe(&self.point, RING_PROBE_LIMIT).map_err(|error| failed(error.to_string()))?;
        if rings.in_use() { Ok(()) } else { Err(failed("requests come over /dev/fuse".into())) }
    }

    /// Waits for the threads of both transports, at most so long each.
    fn join(&self, limit: Duration) -> bool {
        self.dev.join(limit) && self.rings.as_ref().is_none_or(|rings| rings.join(limit))
    }

    /// Our mount is what lies on top at the mount point.
    fn mounted(&self) -> io::Result<bool> {
        is_mounted(&self.point, &self.device)
    }

    fn abort(&self) -> io::Result<()> {
        abort(&self.device)
    }

    /// Unmounts. Busy: `ErrorKind::ResourceBusy` and it goes on serving, unless `detach` (MNT_DETACH), which
    /// gives its users two seconds and then aborts the connection. Returns when every thread has ended; a
    /// second call finds nothing to do. Not to be called from inside the file system. `TimedOut`: the file
    /// system keeps a thread.
    ///
    /// 1. umount2 (the kernel writes mapped pages back: the readers still serve);
    /// 2. the kernel ends the connection: reads give ENODEV, rings get their entries back, all threads end;
    /// 3. answers still owed (parked flushes) go nowhere, harmlessly: each keeps alive what it leaves through.
    pub fn stop(&self, detach: bool) -> io::Result<()> {
        let _one_at_a_time = self.stop.lock();
        if self.alive() && self.mounted()? {
            let before = self.stopping.swap(true, Ordering::SeqCst);
            if let Err(error) = attach::unmount(&self.point, detach) {
                self.stopping.store(before, Ordering::SeqCst);
                return Err(error);
            }
        }
        self.stopping.store(true, Ordering::SeqCst);
        if !self.join(USERS_LIMIT) {
            // Detached with users left, or mounted in another name space too: this is their end.
            self.abort()?;
            if !self.join(READERS_LIMIT) {
                let message =
                    format!("{}: the file system does not come back from a request", self.point.display());
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
        }
        self.in_flight.wait_for_none(USERS_LIMIT);
        Ok(())
    }

    /// Has the kernel write back what programs changed through mappings; the file system has it when this returns. What is
    /// changed meanwhile may come later. Not to be called from inside the file system.
    ///
    /// # Errors
    /// `TimedOut`: a page is held by a request that is not answered. Others: those of the system, and of what was written.
    pub fn write_back(&self, limit: Duration) -> io::Result<()> {
        if !self.alive() || !self.mounted()? {
            return Ok(());
        }
        let (point, (send, receive)) = (self.point.clone(), mpsc::sync_channel(1));
        threads::spawn("fuse-sync", move || {
            let _late = send.send(attach::write_back(&point));
        })?;
        receive.recv_timeout(limit).unwrap_or_else(|_| {
            let message = format!("{}: not all was written back within {limit:?}", self.point.display());
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        })
    }

    /// False once the kernel has ended the connection (umount from outside, abort).
    pub fn alive(&self) -> bool {
        self.dev.alive()
    }

    /// `dev` or `uring`.
    pub fn transport(&self) -> &'static str {
        self.rings.as_ref().map_or(self.dev.name(), Rings::name)
    }

    /// Why it is the one it is, in words that finish "because".
    pub fn transport_reason(&self) -> &str {
        &self.why
    }

    /// Requests read and not yet answered, parked flushes included.
    pub fn requests_in_flight(&self) -> usize {
        self.in_flight.count()
    }
}

/// The mount on top at `point` has this device.
fn is_mounted(point: &Path, device: &str) -> io::Result<bool> {
    Ok(info::mounted_at(point)?.is_some_and(|entry| entry.device == device))
}

fn abort(device: &str) -> io::Result<()> {
    attach::abort(device.split_once(':').map_or("", |(_, minor)| minor))
}

/// Ends a connection from any thread, unless its mount is gone already: its number may be another's by now.
fn aborter(point: PathBuf, device: String) -> Box<dyn Fn() + Send + Sync> {
    Box::new(move || {
        if is_mounted(&point, &device).unwrap_or(false) {
            let _nothing_more_to_try = abort(&device);
        }
    })
}

impl Drop for Mount {
    /// A mount that was not stopped is detached and aborted. Waits for each step only so long.
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if self.alive() && self.mounted().unwrap_or(false) {
            // Unmounting may wait for a writeback that the file system never answers.
            let (point, (send, receive)) = (self.point.clone(), mpsc::sync_channel::<()>(1));
            let detach = threads::spawn("fuse-unmount", move || {
                let _nobody_to_tell = attach::unmount(&point, true);
                let _late = send.send(());
            });
            if detach.is_ok() {
                let _or_abort = receive.recv_timeout(DROP_LIMIT);
            }
        }
        if self.alive() {
            let _or_the_descriptors_close = self.abort();
        }
        self.join(DROP_LIMIT);
    }
}
