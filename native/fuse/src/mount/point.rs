//! Is this directory fit to be mounted on? And the remains of a daemon that died there.

use super::attach::{MOUNT_KIND, abort, c_path, unmount};
use super::info::mounted_at;
use holdfast_device::threads;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// A daemon that lives answers statfs from memory; one that does not within this time is stuck.
const STALE_LIMIT: Duration = Duration::from_secs(10);
/// Stale mounts piled on one directory at most.
const STALE_LAYERS_MAX: usize = 16;
const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;

/// Makes `dir` absolute and free of links without touching what may be mounted on it.
pub fn resolve(dir: &Path) -> io::Result<PathBuf> {
    let explain = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            io::ErrorKind::NotFound,
            format!("the mount point {} does not exist: create it with mkdir", dir.display()),
        ),
        kind => io::Error::new(kind, format!("the mount point {}: {error}", dir.display())),
    };
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return dir.canonicalize().map_err(explain);
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let path = parent.canonicalize().map_err(explain)?.join(name);
    // A link is resolved; anything else, a dead mount included, fails to be one.
    if path.read_link().is_ok() { path.canonicalize().map_err(explain) } else { Ok(path) }
}

/// Refuses what is missing, no directory, not empty, or a live FUSE mount. `point` comes from [`resolve`].
pub fn check(point: &Path) -> io::Result<()> {
    let refuse =
        |kind, why: &str| Err(io::Error::new(kind, format!("the mount point {} {why}", point.display())));
    if let Some(mounted) = mounted_at(point)?
        && mounted.kind.starts_with("fuse")
    {
        let why = format!("is already mounted ({} of type {})", mounted.source.display(), mounted.kind);
        return refuse(io::ErrorKind::AlreadyExists, &why);
    }
    match std::fs::metadata(point) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return refuse(io::ErrorKind::NotFound, "does not exist: create it with mkdir");
        }
        Err(error) => return refuse(error.kind(), &format!("cannot be looked at: {error}")),
        Ok(metadata) if !metadata.is_dir() => {
            return refuse(io::ErrorKind::NotADirectory, "is not a directory");
        }
        Ok(_) => {}
    }
    match std::fs::read_dir(point).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => refuse(io::ErrorKind::DirectoryNotEmpty, "is not empty: what is in it would be hidden"),
        Err(error) => refuse(error.kind(), &format!("cannot be listed: {error}")),
    }
}

/// Asks the file system at `point` for its statistics, from a helper thread, since a stuck one never answers.
/// `ErrorKind::TimedOut`: it did not within the limit.
pub fn probe(point: &Path, limit: Duration) -> io::Result<()> {
    let path = c_path(point)?;
    let (send, receive) = mpsc::sync_channel(1);
    threads::spawn("fuse-probe", move || {
        // SAFETY: statfs is plain data for which zeros are valid.
        let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: `path` ends with NUL, `stat` is valid for writes.
        let outcome = match unsafe { libc::statfs(path.as_ptr(), &mut stat) } {
            0 if stat.f_type as i64 == FUSE_SUPER_MAGIC => Ok(()),
            0 => Err(io::Error::other("something else was mounted over it")),
            _ => Err(io::Error::last_os_error()),
        };
        // Nobody listens once the limit has passed.
        let _late = send.send(outcome);
    })?;
    match receive.recv_timeout(limit) {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "statfs through the mount was not answered")),
    }
}

/// Takes away the mounts of dead daemons at `dir`; true if there were any. A mount that answers is left
/// alone. One whose daemon is there but stuck is aborted first. Decided by mountinfo and statfs: stat(2) on a
/// dead mount may succeed.
pub fn detach_stale(dir: &Path) -> io::Result<bool> {
    let point = resolve(dir)?;
    let mut detached = false;
    for _ in 0..STALE_LAYERS_MAX {
        let Some(entry) = mounted_at(&point)?.filter(|entry| entry.kind == MOUNT_KIND) else { break };
        match probe(&point, STALE_LIMIT) {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => abort(entry.connection())?,
            Err(error) => match error.raw_os_error() {
                // ECANCELED: its rings have lost their threads, and the connection ends any moment.
                Some(libc::ENOTCONN | libc::ECONNABORTED | libc::ECANCELED) => {}
                _ => break,
            },
        }
        unmount(&point, true)?;
        detached = true;
    }
    Ok(detached)
}
