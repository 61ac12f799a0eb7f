//! Directories, mounts and system calls for the mount tests.
#![allow(dead_code, reason = "each test program uses its own part")]

use crate::memory::MemoryFs;
use holdfast_device::{Clock, RealClock};
use holdfast_fuse::{Mount, MountOptions, ServeOptions, TransportWish};
use std::ffi::{CString, OsStr};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

pub fn is_root() -> bool {
    // SAFETY: geteuid touches no memory.
    unsafe { libc::geteuid() == 0 }
}

/// False, with the reason printed, where FUSE cannot be used. With `CI=true` in the environment that is a
/// failure.
pub fn fuse_is_there() -> bool {
    let helper = || std::process::Command::new("fusermount3").arg("-V").output().is_ok();
    let reason = match () {
        () if !Path::new("/dev/fuse").exists() => "/dev/fuse is missing",
        () if !is_root() && !helper() => "neither root nor fusermount3",
        () => return true,
    };
    let ci = std::env::vars_os().any(|(name, value)| name == "CI" && value == "true");
    assert!(!ci, "mount tests must run in CI: {reason}");
    println!("skipped: {reason}");
    false
}

/// False, with the reason printed, where the transport cannot be had. A kernel without rings is no failure, in CI
/// neither.
pub fn door_is_there(door: TransportWish) -> bool {
    static REFUSED: OnceLock<Option<String>> = OnceLock::new();
    if !fuse_is_there() {
        return false;
    }
    if door != TransportWish::Uring {
        return true;
    }
    let refused = REFUSED.get_or_init(|| {
        let dir = TemporaryDir::new();
        let options = MountOptions { dir: dir.0.clone(), source: "probe".into(), ..MountOptions::default() };
        let serve = ServeOptions { transport: door, ..ServeOptions::default() };
        match Mount::start_with(Arc::new(MemoryFs::new(0o755)), options, serve) {
            Ok(mount) => mount.stop(true).err().map(|error| error.to_string()),
            // Anything else is a defect, and shows in the test itself.
            Err(error) if error.kind() == ErrorKind::Unsupported => Some(error.to_string()),
            Err(_) => None,
        }
    });
    if let Some(reason) = refused {
        println!("skipped: {reason}");
    }
    refused.is_none()
}

/// Makes of each function two tests, one for each transport.
#[macro_export]
macro_rules! over_both_doors {
    ($($name:ident),* $(,)?) => {
        over_both_doors! { @door dev Dev $($name)* }
        over_both_doors! { @door uring Uring $($name)* }
    };
    (@door $module:ident $door:ident $($name:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $name() {
                    let door = holdfast_fuse::TransportWish::$door;
                    if $crate::support::door_is_there(door) {
                        super::$name(door);
                    }
                }
            )*
        }
    };
}

/// A directory of its own, removed at the end.
pub struct TemporaryDir(pub PathBuf);

impl TemporaryDir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("holdfast-fuse-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("temporary directory");
        Self(path)
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_dir(&self.0);
    }
}

/// A mounted memory file system. Field order: the mount ends before its directory goes.
pub struct Mounted {
    pub mount: Mount,
    pub fs: Arc<MemoryFs>,
    dir: TemporaryDir,
}

impl Mounted {
    pub fn new(door: TransportWish) -> Self {
        Self::with(door, |_| {}, ServeOptions::default())
    }
    pub fn with(
        door: TransportWish,
        change: impl FnOnce(&mut MountOptions),
        mut serve: ServeOptions,
    ) -> Self {
        serve.transport = door;
        Self::of(MemoryFs::new(0o755), change, serve)
    }
    pub fn of(fs: MemoryFs, change: impl FnOnce(&mut MountOptions), serve: ServeOptions) -> Self {
        let (dir, fs) = (TemporaryDir::new(), Arc::new(fs));
        let mut options =
            MountOptions { dir: dir.0.clone(), source: "pool/vol".into(), ..MountOptions::default() };
        change(&mut options);
        let mount = Mount::start_with(Arc::clone(&fs) as _, options, serve).expect("mounts");
        Self { mount, fs, dir }
    }
    pub fn dir(&self) -> &Path {
        &self.dir.0
    }
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.0.join(name)
    }
    /// Ends it and demands that all went well.
    pub fn end(self) {
        // A child that another test is just starting holds our closed files until its exec.
        let until = RealClock.boottime_ns() + 5_000_000_000;
        let mut stopped = self.mount.stop(false);
        while stopped.as_ref().is_err_and(|error| error.kind() == ErrorKind::ResourceBusy)
            && RealClock.boottime_ns() < until
        {
            std::thread::yield_now();
            stopped = self.mount.stop(false);
        }
        stopped.expect("unmounts");
        assert!(!self.mount.alive());
        assert_eq!(self.mount.requests_in_flight(), 0);
    }
}

pub fn c(path: impl AsRef<OsStr>) -> CString {
    CString::new(path.as_ref().as_bytes()).expect("no NUL")
}

/// The errno of a failed system call, 0 if it went well.
pub fn errno(result: impl Into<i64>) -> i32 {
    if result.into() >= 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap_or(-1) }
}

/// The line of mountinfo for a mount point.
pub fn mountinfo(dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let point = dir.to_str().expect("plain name").to_owned();
    text.lines().rfind(|line| line.split(' ').nth(4) == Some(&point)).map(str::to_owned)
}

/// Mounts a fresh memory file system.
pub fn start_at(door: TransportWish, dir: &Path) -> std::io::Result<Mount> {
    let options = MountOptions { dir: dir.to_owned(), source: "pool/vol".into(), ..MountOptions::default() };
    let serve = ServeOptions { transport: door, ..ServeOptions::default() };
    Mount::start_with(Arc::new(MemoryFs::new(0o755)), options, serve)
}
