//! The kernel's protocol: abi, transports, thin handlers, errno in one place.

use holdfast_store::api::FileSystem;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct MountOptions {
    pub dir: PathBuf,
    /// Shown as the mount's source in /proc/self/mountinfo.
    pub source: String,
    pub allow_other: bool,
    pub suid: bool,
    pub dev: bool,
    pub read_only: bool,
    pub noatime: bool,
    pub noexec: bool,
}

/// A mounted file system and the threads that serve it.
pub struct Mount {
    _private: (),
}

impl Mount {
    /// Mounts and serves; returns when a statfs through the mount was answered.
    pub fn start(_fs: Arc<dyn FileSystem>, _options: MountOptions) -> std::io::Result<Self> {
        Err(std::io::Error::from(std::io::ErrorKind::Unsupported))
    }
    /// Unmounts. Busy: an error, unless `detach` (MNT_DETACH). Returns when every thread has ended.
    pub fn stop(&self, _detach: bool) -> std::io::Result<()> {
        Err(std::io::Error::from(std::io::ErrorKind::Unsupported))
    }
    /// False once the kernel has ended the connection (umount from outside, abort).
    pub fn alive(&self) -> bool {
        false
    }
    /// `dev` or `uring`.
    pub fn transport(&self) -> &'static str {
        "dev"
    }
}
