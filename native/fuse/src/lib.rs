//! The kernel's door: the FUSE protocol (`abi`), the transports that carry it, thin handlers, errno in one
//! place.
//!
//! A request is taken by a transport's thread, parsed, handed to a [`FileSystem`], and answered before the next
//! one is taken; only flushes are parked and answered from elsewhere. Nothing here decides what a file system
//! decides.

pub mod abi;
mod choice;
mod dev;
mod errno;
mod handler;
mod helpers;
mod init;
mod mount;
mod transport;
mod uring;

pub use holdfast_store::api::FileSystem;
pub use mount::{Mount, detach_stale};

use std::path::PathBuf;

/// What is mounted where, and how. `default_permissions` is always on.
#[derive(Clone, Debug, Default)]
pub struct MountOptions {
    pub dir: PathBuf,
    /// Shown as the mount's source in /proc/self/mountinfo.
    pub source: String,
    /// Users other than the one who mounts may enter.
    pub allow_other: bool,
    pub suid: bool,
    pub dev: bool,
    pub read_only: bool,
    /// Passed to the kernel. Whether reads stamp atime is the file system's choice.
    pub noatime: bool,
    pub noexec: bool,
}

/// What carries the requests.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum TransportWish {
    /// What measures better on this machine, else whatever works.
    #[default]
    Auto,
    /// Reading `/dev/fuse`.
    Dev,
    /// io_uring, or no mount.
    Uring,
}

/// How a mount is served.
pub struct ServeOptions {
    pub transport: TransportWish,
    /// Seconds for which the kernel may keep names, attributes and "no such name". Long: this daemon is the
    /// only writer.
    pub entry_ttl_s: u64,
    pub attr_ttl_s: u64,
    pub negative_ttl_s: u64,
    /// Threads that read `/dev/fuse`; 0: one for each processor, at least two. Beside rings: one.
    pub readers: usize,
    /// Called once, from a reader thread, when the mount ends without [`Mount::stop`]: an umount from outside
    /// or an abort.
    pub on_end: Option<Box<dyn FnOnce() + Send>>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        const DAY_S: u64 = 86_400;
        Self {
            transport: TransportWish::Auto,
            entry_ttl_s: DAY_S,
            attr_ttl_s: DAY_S,
            negative_ttl_s: DAY_S,
            readers: 0,
            on_end: None,
        }
    }
}
