//! A directory held by its descriptor: whoever swaps the path later changes nothing for us, and no symbolic link
//! is followed, neither for the directory itself nor for the files in it.

use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::drive::DriveSpace;

pub(super) struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

/// -1 becomes the calling thread's error; a full quota counts as a full disk.
pub(super) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(last_error()) } else { Ok(result) }
}

pub(super) fn last_error() -> io::Error {
    plain_error(io::Error::last_os_error())
}

/// The caller knows one kind of "full" (`StorageFull`): EDQUOT becomes ENOSPC.
pub(super) fn plain_error(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EDQUOT) => io::Error::from_raw_os_error(libc::ENOSPC),
        _ => error,
    }
}

pub(super) fn stat(descriptor: &OwnedFd) -> io::Result<libc::stat> {
    // SAFETY: all-zero bytes are a valid `stat`.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open; `found` is ours to fill.
    check(unsafe { libc::fstat(descriptor.as_raw_fd(), &mut found) })?;
    Ok(found)
}

fn c_name(name: &str) -> io::Result<CString> {
    CString::new(name).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "file name with a NUL byte"))
}

/// Opens a directory; a symbolic link anywhere in the path is refused, so that nobody who owns a directory above can
/// turn it away while it is looked at. Kernels and sandboxes without openat2 only refuse a last one.
fn open_without_links(path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: all-zero bytes are a valid `open_how`.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = flags as u64;
    how.resolve = libc::RESOLVE_NO_SYMLINKS;
    let (number, size) = (libc::SYS_openat2, size_of::<libc::open_how>());
    // SAFETY: `path` is a C string and `how` a valid structure of that size; both outlive the call.
    let raw = unsafe { libc::syscall(number, libc::AT_FDCWD, path.as_ptr(), &how, size) };
    let raw = match check(raw as libc::c_int) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            // SAFETY: `path` is a C string that outlives the call.
            check(unsafe { libc::open(path.as_ptr(), flags) })?
        }
        result => result?,
    };
    // SAFETY: `raw` was just opened and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

impl Directory {
    /// Errors: no directory there, or a symbolic link on the way; writable for everyone; owned by a stranger.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Rebuilt from its components: a trailing slash would make the kernel follow a last symbolic link.
        let path: PathBuf = path.components().collect();
        let explain = |error: io::Error| {
            let reason = format!("drive directory {} cannot be opened: {error}", path.display());
            io::Error::new(error.kind(), reason)
        };
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| explain(io::Error::new(io::ErrorKind::InvalidInput, "path with a NUL byte")))?;
        let descriptor = open_without_links(&name).map_err(explain)?;
        check_owner(&stat(&descriptor).map_err(explain)?).map_err(explain)?;
        Ok(Self { descriptor, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file of this directory; links are refused, the descriptor is closed on exec.
    pub(super) fn open_file(&self, name: &str, flags: libc::c_int) -> io::Result<OwnedFd> {
        let name = c_name(name)?;
        let flags = flags | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        loop {
            // SAFETY: the descriptor is open, `name` a C string that outlives the call.
            let raw = unsafe { libc::openat(self.descriptor.as_raw_fd(), name.as_ptr(), flags, 0o600) };
            match check(raw) {
                // SAFETY: `raw` was just opened and nobody else owns it.
                Ok(raw) => return Ok(unsafe { OwnedFd::from_raw_fd(raw) }),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.identity(name)?.is_some())
    }

    /// Device and inode behind a name now, links not followed.
    pub(super) fn identity(&self, name: &str) -> io::Result<Option<(u64, u64)>> {
        let name = c_name(name)?;
        // SAFETY: all-zero bytes are a valid `stat`.
        let mut found: libc::stat = unsafe { std::mem::zeroed() };
        let (at, flags) = (self.descriptor.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
        // SAFETY: descriptor open, name a C string, `found` ours to fill.
        match check(unsafe { libc::fstatat(at, name.as_ptr(), &mut found, flags) }) {
            Ok(_) => Ok(Some((found.st_dev, found.st_ino))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn unlink(&self, name: &str) -> io::Result<()> {
        let name = c_name(name)?;
        // SAFETY: the descriptor is open, `name` a C string that outlives the call.
        check(unsafe { libc::unlinkat(self.descriptor.as_raw_fd(), name.as_ptr(), 0) }).map(drop)
    }

    /// Renames within the directory; an existing target is an error (`AlreadyExists`).
    pub(super) fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let (from_name, to_name, at) = (c_name(from)?, c_name(to)?, self.descriptor.as_raw_fd());
        let (number, flags) = (libc::SYS_renameat2, libc::RENAME_NOREPLACE);
        // SAFETY: descriptor open, both names C strings that outlive the call.
        let result = unsafe { libc::syscall(number, at, from_name.as_ptr(), at, to_name.as_ptr(), flags) };
        match check(result as libc::c_int) {
            Ok(_) => Ok(()),
            // File systems without the flag: the drive's lock keeps other daemons out between check and rename.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
                if self.exists(to)? {
                    return Err(io::Error::from_raw_os_error(libc::EEXIST));
                }
                // SAFETY: as above.
                check(unsafe { libc::renameat(at, from_name.as_ptr(), at, to_name.as_ptr()) }).map(drop)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes entries made, renamed or removed so far durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open.
        check(unsafe { libc::fsync(self.descriptor.as_raw_fd()) }).map(drop)
    }

    /// All names but `.` and `..`, unsorted.
    pub(super) fn names(&self) -> io::Result<Vec<OsString>> {
        // A descriptor of its own, because reading moves the position of the open directory.
        let own = self.open_file(".", libc::O_RDONLY | libc::O_DIRECTORY)?;
        // SAFETY: `own` is an open directory; on success the stream owns the descriptor.
        let stream = unsafe { libc::fdopendir(own.as_raw_fd()) };
        if stream.is_null() {
            return Err(last_error());
        }
        std::mem::forget(own);
        let names = read_names(stream);
        // SAFETY: the stream is open and not used again.
        unsafe { libc::closedir(stream) };
        names
    }

    /// The file system's identity, where one file's sync makes durable what the disk has taken for any file.
    pub(super) fn flush_domain(&self) -> io::Result<Option<u64>> {
        // SAFETY: all-zero bytes are a valid `statfs`.
        let mut found: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open; `found` is ours to fill.
        check(unsafe { libc::fstatfs(self.descriptor.as_raw_fd(), &mut found) })?;
        let known = found.f_type as i64 == EXT4_MAGIC;
        Ok(if known { Some(stat(&self.descriptor)?.st_dev) } else { None })
    }

    pub(super) fn space(&self) -> io::Result<DriveSpace> {
        // SAFETY: all-zero bytes are a valid `statvfs`.
        let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open; `found` is ours to fill.
        check(unsafe { libc::fstatvfs(self.descriptor.as_raw_fd(), &mut found) })?;
        Ok(DriveSpace {
            total_bytes: found.f_blocks * found.f_frsize,
            free_bytes: found.f_bavail * found.f_frsize,
            disk_id: stat(&self.descriptor)?.st_dev,
        })
    }
}

/// ext2, ext3, ext4: `ext4_sync_file` ends with a flush of the whole device, whatever the file had to write itself.
const EXT4_MAGIC: i64 = 0xEF53;

/// A directory that strangers may write to could be rearranged under us.
fn check_owner(found: &libc::stat) -> io::Result<()> {
    // SAFETY: takes no arguments and cannot fail.
    let user = unsafe { libc::geteuid() };
    let denied = |reason: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    if found.st_mode & libc::S_IWOTH != 0 {
        return denied("everyone may write to it (chmod o-w)".to_owned());
    }
    if user != 0 && found.st_uid != user && found.st_uid != 0 {
        return denied(format!("it belongs to user {}, the daemon runs as user {user}", found.st_uid));
    }
    Ok(())
}

fn read_names(stream: *mut libc::DIR) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    loop {
        // SAFETY: errno is this thread's own; readdir reports errors through it alone.
        unsafe { *libc::__errno_location() = 0 };
        // SAFETY: the stream is open and used by this thread only.
        let entry = unsafe { libc::readdir(stream) };
        if entry.is_null() {
            // SAFETY: as above.
            let code = unsafe { *libc::__errno_location() };
            return if code == 0 { Ok(names) } else { Err(io::Error::from_raw_os_error(code)) };
        }
        // SAFETY: `entry` is valid until the next readdir; d_name ends with NUL.
        let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) }.to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
}
