//! A mount's life: attach, negotiate, serve, probe; and its end in the order that leaves nobody waiting.

mod attach;
mod info;
mod point;

pub use point::detach_stale;

use crate::abi::output::Lifetimes;
use crate::dev::{DevOptions, DevTransport, initialize};
use crate::handler::Handler;
use crate::transport::Transport;
use crate::{MountOptions, ServeOptions};
use holdfast_device::threads;
use holdfast_store::api::FileSystem;
use parking_lot::Mutex;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// A mount that does not answer statfs by then is given up.
const PROBE_LIMIT: Duration = Duration::from_secs(20);
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
    transport: DevTransport,
    /// Set before we unmount, so that our own doing is not reported as a mount's end from outside.
    stopping: Arc<AtomicBool>,
    /// Held by the one caller of `stop` that acts.
    stop: Mutex<()>,
}

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

    /// [`Mount::start`] with more to choose.
    pub fn start_with(
        fs: Arc<dyn FileSystem>,
        options: MountOptions,
        serve: ServeOptions,
    ) -> io::Result<Self> {
        let point = point::resolve(&options.dir)?;
        point::detach_stale(&point)?;
        point::check(&point)?;
        let device = attach::mount(&point, &options)?;
        // From here on a failure drops `device` or the transport, which aborts the connection; the mount goes
        // too.
        let started = Self::serve(fs, device, point.clone(), serve);
        if started.is_err() {
            let _first_error_counts = attach::unmount(&point, true);
        }
        started
    }

    fn serve(
        fs: Arc<dyn FileSystem>,
        device: std::os::fd::OwnedFd,
        point: PathBuf,
        serve: ServeOptions,
    ) -> io::Result<Self> {
        let agreed = initialize(&device, fs.write_bytes_max())?;
        let lifetimes = Lifetimes {
            entry_s: serve.entry_ttl_s,
            attr_s: serve.attr_ttl_s,
            negative_s: serve.negative_ttl_s,
        };
        let stopping = Arc::new(AtomicBool::new(false));
        let (ours, on_end) = (Arc::clone(&stopping), serve.on_end);
        let on_end = Box::new(move || {
            if let Some(on_end) = on_end
                && !ours.load(Ordering::SeqCst)
            {
                on_end();
            }
        });
        let handler = Arc::new(Handler::new(fs, lifetimes));
        let transport =
            DevTransport::start(device, handler, DevOptions { readers: serve.readers, agreed, on_end })?;
        let mounted = info::mounted_at(&point)?;
        let mut mount = Self { point, device: String::new(), transport, stopping, stop: Mutex::new(()) };
        let Some(mounted) = mounted.filter(|mounted| mounted.kind == attach::MOUNT_KIND) else {
            return Err(io::Error::other(format!(
                "{} was unmounted while it was mounted",
                mount.point.display()
            )));
        };
        mount.device = mounted.device;
        attach::raise_readahead(&mount.device, agreed.request_bytes_max);
        point::probe(&mount.point, PROBE_LIMIT).map_err(|error| {
            let message = format!("mounted at {}, but it does not work: {error}", mount.point.display());
            io::Error::new(error.kind(), message)
        })?;
        Ok(mount)
    }

    /// Our mount is what lies on top at the mount point.
    fn mounted(&self) -> io::Result<bool> {
        Ok(info::mounted_at(&self.point)?.is_some_and(|entry| entry.device == self.device))
    }

    fn abort(&self) -> io::Result<()> {
        attach::abort(self.device.split_once(':').map_or("", |(_, minor)| minor))
    }

    /// Unmounts. Busy: `ErrorKind::ResourceBusy` and it goes on serving, unless `detach` (MNT_DETACH), which
    /// gives its users two seconds and then aborts the connection. Returns when every thread has ended; a
    /// second call finds nothing to do. Not to be called from inside the file system. `TimedOut`: the file
    /// system keeps a thread.
    ///
    /// 1. umount2 (the kernel writes mapped pages back: the readers still serve);
    /// 2. the kernel ends the connection: reads give ENODEV and the readers end;
    /// 3. answers still owed (parked flushes) go nowhere, harmlessly: each holds its descriptor open.
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
        if !self.transport.join(USERS_LIMIT) {
            // Detached with users left, or mounted in another name space too: this is their end.
            self.abort()?;
            if !self.transport.join(READERS_LIMIT) {
                let message =
                    format!("{}: the file system does not come back from a request", self.point.display());
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
        }
        self.transport.in_flight().wait_for_none(USERS_LIMIT);
        Ok(())
    }

    /// False once the kernel has ended the connection (umount from outside, abort).
    pub fn alive(&self) -> bool {
        self.transport.alive()
    }

    /// `dev` or `uring`.
    pub fn transport(&self) -> &'static str {
        self.transport.name()
    }

    /// Requests read and not yet answered, parked flushes included.
    pub fn requests_in_flight(&self) -> usize {
        self.transport.in_flight().count()
    }
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
        self.transport.join(DROP_LIMIT);
    }
}
