//! System calls as plain functions: the result, or the errno as a negative number, so that results and errors
//! compare alike. All paths are relative to a directory handle.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::op::Path;

pub const PAGE: usize = 4096;

/// The result of a call: at least 0, or minus the errno.
pub type Code = i64;

pub fn last_error() -> Code {
    -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// Names an errno the way manuals do.
pub fn code_text(code: Code) -> String {
    if code >= 0 {
        return code.to_string();
    }
    let error = std::io::Error::from_raw_os_error((-code) as i32);
    format!("{} (errno {})", error.to_string().split(" (os error").next().unwrap_or("?"), -code)
}

fn check(result: i64) -> Code {
    if result < 0 { last_error() } else { result }
}

/// Paths of ops hold no NUL; should one appear, it ends the path as it does for any C program.
pub fn c_path(path: &Path) -> CString {
    let bytes: Vec<u8> = path.0.iter().copied().take_while(|byte| *byte != 0).collect();
    // SAFETY: `bytes` was cut before its first NUL.
    unsafe { CString::from_vec_unchecked(bytes) }
}

/// The same path for calls that take no directory handle.
fn absolute(root: RawFd, path: &Path) -> CString {
    let mut bytes = format!("/proc/self/fd/{root}/").into_bytes();
    bytes.extend_from_slice(&path.0);
    c_path(&Path(bytes))
}

pub fn open(root: RawFd, path: &Path, flags: i32, mode: u32) -> Result<OwnedFd, Code> {
    let name = c_path(path);
    // SAFETY: `name` is a C string that outlives the call.
    let fd = unsafe { libc::openat(root, name.as_ptr(), flags | libc::O_CLOEXEC | libc::O_NONBLOCK, mode) };
    if fd < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel just gave this handle to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn stat(root: RawFd, path: &Path, follow: bool) -> Result<libc::stat, Code> {
    let name = c_path(path);
    let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    let mut out = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `name` and `out` outlive the call; `out` is written whole on success.
    unsafe {
        if libc::fstatat(root, name.as_ptr(), out.as_mut_ptr(), flags) < 0 {
            return Err(last_error());
        }
        Ok(out.assume_init())
    }
}

pub fn stat_handle(fd: RawFd) -> Result<libc::stat, Code> {
    let mut out = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `out` outlives the call and is written whole on success.
    unsafe {
        if libc::fstat(fd, out.as_mut_ptr()) < 0 {
            return Err(last_error());
        }
        Ok(out.assume_init())
    }
}

/// Page-aligned memory for direct I/O.
pub struct Aligned {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    pub fn new(length: usize) -> Self {
        let memory = vec![0; length + PAGE];
        let start = memory.as_ptr().align_offset(PAGE);
        Self { memory, start, length }
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

pub fn write(fd: RawFd, data: &[u8]) -> Code {
    // SAFETY: `data` is valid for its length.
    check(unsafe { libc::write(fd, data.as_ptr().cast(), data.len()) } as i64)
}

pub fn write_at(fd: RawFd, data: &[u8], offset: u64) -> Code {
    // SAFETY: `data` is valid for its length.
    check(unsafe { libc::pwrite(fd, data.as_ptr().cast(), data.len(), offset as i64) } as i64)
}

pub fn write_vector(fd: RawFd, parts: &[&[u8]], offset: u64) -> Code {
    let vectors: Vec<libc::iovec> = parts
        .iter()
        .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() })
        .collect();
    // SAFETY: each vector names a live slice; pwritev only reads through it.
    check(unsafe { libc::pwritev(fd, vectors.as_ptr(), vectors.len() as i32, offset as i64) } as i64)
}

pub fn read(fd: RawFd, buffer: &mut [u8]) -> Code {
    // SAFETY: `buffer` is valid for its length.
    check(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) } as i64)
}

pub fn read_at(fd: RawFd, buffer: &mut [u8], offset: u64) -> Code {
    // SAFETY: `buffer` is valid for its length.
    check(unsafe { libc::pread(fd, buffer.as_mut_ptr().cast(), buffer.len(), offset as i64) } as i64)
}

pub fn seek(fd: RawFd, offset: u64, whence: i32) -> Code {
    // SAFETY: no memory is handed over.
    check(unsafe { libc::lseek(fd, offset as i64, whence) })
}

pub fn truncate(root: RawFd, path: &Path, size: u64) -> Code {
    let name = absolute(root, path);
    // SAFETY: `name` outlives the call.
    check(unsafe { libc::truncate(name.as_ptr(), size as i64) }.into())
}

pub fn truncate_handle(fd: RawFd, size: u64) -> Code {
    // SAFETY: no memory is handed over.
    check(unsafe { libc::ftruncate(fd, size as i64) }.into())
}

pub fn allocate(fd: RawFd, mode: i32, offset: u64, length: u64) -> Code {
    // SAFETY: no memory is handed over.
    check(unsafe { libc::fallocate(fd, mode, offset as i64, length as i64) }.into())
}

/// Copies until the whole length is done, the source ends, or an error (which counts only if nothing was
/// copied).
pub fn copy_range(from: RawFd, from_offset: u64, to: RawFd, to_offset: u64, length: usize) -> Code {
    let (mut source, mut target) = (from_offset as i64, to_offset as i64);
    let mut done = 0;
    while done < length {
        // SAFETY: both offsets outlive the call.
        let got = check(
            unsafe { libc::copy_file_range(from, &mut source, to, &mut target, length - done, 0) } as i64,
        );
        if got < 0 && done == 0 {
            return got;
        }
        if got <= 0 {
            break;
        }
        done += got as usize;
    }
    done as Code
}

pub fn sync(fd: RawFd, data_only: bool) -> Code {
    // SAFETY: no memory is handed over.
    check(unsafe { if data_only { libc::fdatasync(fd) } else { libc::fsync(fd) } }.into())
}

/// Writes back what every file system of this machine has in memory.
pub fn sync_everything() {
    // SAFETY: no memory is handed over.
    unsafe { libc::sync() };
}

/// Drops the handle's clean pages from the page cache, so that the next read asks the file system.
pub fn evict(fd: RawFd) {
    // SAFETY: no memory is handed over. The result is advice's and does not matter.
    unsafe { libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// Makes this thread's sleeps end within a microsecond of their time, instead of 50.
pub fn wake_on_time() {
    // SAFETY: no memory is handed over. A refusal only leaves the sleeps as they were.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1usize) };
}

/// Sleeps unless `end` has passed.
pub fn sleep_until(end: std::time::Instant) {
    let left = end.saturating_duration_since(std::time::Instant::now());
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}

pub fn rename(root: RawFd, from: &Path, to: &Path, flags: u32) -> Code {
    let (from, to) = (c_path(from), c_path(to));
    // SAFETY: both names outlive the call.
    check(unsafe { libc::syscall(libc::SYS_renameat2, root, from.as_ptr(), root, to.as_ptr(), flags) })
}

pub fn link(root: RawFd, from: &Path, to: &Path, follow: bool) -> Code {
    let (from, to) = (c_path(from), c_path(to));
    let flags = if follow { libc::AT_SYMLINK_FOLLOW } else { 0 };
    // SAFETY: both names outlive the call.
    check(unsafe { libc::linkat(root, from.as_ptr(), root, to.as_ptr(), flags) }.into())
}

pub fn link_handle(fd: RawFd, root: RawFd, to: &Path) -> Code {
    let from = c_path(&Path(format!("/proc/self/fd/{fd}").into_bytes()));
    let to = c_path(to);
    // SAFETY: both names outlive the call.
    check(unsafe { libc::linkat(root, from.as_ptr(), root, to.as_ptr(), libc::AT_SYMLINK_FOLLOW) }.into())
}

pub fn symlink(target: &Path, root: RawFd, path: &Path) -> Code {
    let (target, path) = (c_path(target), c_path(path));
    // SAFETY: both names outlive the call.
    check(unsafe { libc::symlinkat(target.as_ptr(), root, path.as_ptr()) }.into())
}

pub fn read_link(root: RawFd, path: &Path) -> (Code, Vec<u8>) {
    let name = c_path(path);
    let mut buffer = vec![0u8; 2 * PAGE];
    // SAFETY: `name` and `buffer` outlive the call.
    let code =
        check(
            unsafe { libc::readlinkat(root, name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) } as i64
        );
    buffer.truncate(code.max(0) as usize);
    (code, buffer)
}

/// `flags` 0 removes a file, AT_REMOVEDIR a directory.
pub fn unlink(root: RawFd, path: &Path, flags: i32) -> Code {
    let name = c_path(path);
    // SAFETY: `name` outlives the call.
    check(unsafe { libc::unlinkat(root, name.as_ptr(), flags) }.into())
}

pub fn make_directory(root: RawFd, path: &Path, mode: u32) -> Code {
    let name = c_path(path);
    // SAFETY: `name` outlives the call.
    check(unsafe { libc::mkdirat(root, name.as_ptr(), mode) }.into())
}

pub fn make_node(root: RawFd, path: &Path, mode: u32, device: u64) -> Code {
    let name = c_path(path);
    // SAFETY: `name` outlives the call.
    check(unsafe { libc::mknodat(root, name.as_ptr(), mode, device) }.into())
}

pub fn change_mode(root: RawFd, path: &Path, mode: u32) -> Code {
    let name = c_path(path);
    // SAFETY: `name` outlives the call.
    check(unsafe { libc::fchmodat(root, name.as_ptr(), mode, 0) }.into())
}

pub fn change_mode_handle(fd: RawFd, mode: u32) -> Code {
    // SAFETY: no memory is handed over.
    check(unsafe { libc::fchmod(fd, mode) }.into())
}

pub fn change_owner(root: RawFd, path: &Path, user: u32, group: u32, follow: bool) -> Code {
    let name = c_path(path);
    let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    // SAFETY: `name` outlives the call.
    check(unsafe { libc::fchownat(root, name.as_ptr(), user, group, flags) }.into())
}

pub fn set_times(root: RawFd, path: &Path, times: [crate::op::SetTime; 2], follow: bool) -> Code {
    let name = c_path(path);
    let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    let times = times.map(|time| match time {
        None => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        Some((tv_sec, tv_nsec)) => libc::timespec { tv_sec, tv_nsec },
    });
    // SAFETY: `name` and the two times outlive the call.
    check(unsafe { libc::utimensat(root, name.as_ptr(), times.as_ptr(), flags) }.into())
}

pub fn access(root: RawFd, path: &Path, mode: i32) -> Code {
    let name = c_path(path);
    // SAFETY: `name` outlives the call.
    check(unsafe { libc::faccessat(root, name.as_ptr(), mode, 0) }.into())
}

pub fn set_xattr(root: RawFd, path: &Path, name: &Path, value: &[u8], flags: i32, follow: bool) -> Code {
    let (path, name) = (absolute(root, path), c_path(name));
    let call = if follow { libc::setxattr } else { libc::lsetxattr };
    // SAFETY: both names and the value outlive the call.
    check(unsafe { call(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) }.into())
}

pub fn get_xattr(root: RawFd, path: &Path, name: &Path, capacity: usize) -> (Code, Vec<u8>) {
    let (path, name) = (absolute(root, path), c_path(name));
    let mut value = vec![0u8; capacity];
    // SAFETY: both names and the buffer outlive the call.
    let code =
        check(unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), capacity) }
            as i64);
    value.truncate(code.max(0) as usize);
    (code, value)
}

/// NUL-separated names, as the kernel gives them.
pub fn list_xattr(root: RawFd, path: &Path, capacity: usize) -> (Code, Vec<u8>) {
    let path = absolute(root, path);
    let mut names = vec![0u8; capacity];
    // SAFETY: the name and the buffer outlive the call.
    let code = check(unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), capacity) } as i64);
    names.truncate(code.max(0) as usize);
    (code, names)
}

pub fn remove_xattr(root: RawFd, path: &Path, name: &Path) -> Code {
    let (path, name) = (absolute(root, path), c_path(name));
    // SAFETY: both names outlive the call.
    check(unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) }.into())
}

/// A shared mapping of a range of a file; unmapped when dropped.
pub struct Mapping {
    address: *mut libc::c_void,
    length: usize,
}

impl Mapping {
    /// `offset` is a multiple of the page size, `length` is not 0.
    pub fn shared(fd: RawFd, offset: u64, length: usize, writable: bool) -> Result<Self, Code> {
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, fd, offset as i64)
        };
        if address == libc::MAP_FAILED { Err(last_error()) } else { Ok(Self { address, length }) }
    }

    /// Copies out of the mapping. The range must lie inside the mapping and inside the file, else SIGBUS.
    pub fn load(&self, at: usize, buffer: &mut [u8]) {
        assert!(at + buffer.len() <= self.length);
        // SAFETY: the range was checked against the mapping; the file is private to this test, which does not
        // shrink it meanwhile; no reference into the mapping is made.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.address.cast::<u8>().add(at),
                buffer.as_mut_ptr(),
                buffer.len(),
            )
        };
    }

    /// Copies into the mapping, which must be writable.
    pub fn store(&self, at: usize, data: &[u8]) {
        assert!(at + data.len() <= self.length);
        // SAFETY: as for `load`.
        unsafe {
            std::ptr::copy_nonoverlapping(data.as_ptr(), self.address.cast::<u8>().add(at), data.len())
        };
    }

    pub fn sync(&self) -> Code {
        // SAFETY: the range is our own mapping.
        check(unsafe { libc::msync(self.address, self.length, libc::MS_SYNC) }.into())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no pointer into it outlives `self`.
        unsafe { libc::munmap(self.address, self.length) };
    }
}

/// A name and its type byte.
pub type Entry = (Vec<u8>, u8);

/// The entries of an open directory in batches, through getdents64; `.` and `..` left out.
pub struct Entries {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Entries {
    pub fn new(fd: OwnedFd, batch_bytes: usize) -> Self {
        Self { fd, buffer: vec![0; batch_bytes] }
    }

    /// An empty batch ends the directory.
    pub fn next_batch(&mut self) -> Result<Option<Vec<Entry>>, Code> {
        // SAFETY: the buffer is valid for its length.
        let got = check(unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                self.fd.as_raw_fd(),
                self.buffer.as_mut_ptr(),
                self.buffer.len(),
            )
        });
        if got < 0 {
            return Err(got);
        }
        if got == 0 {
            return Ok(None);
        }
        let mut out = Vec::new();
        let mut rest = &self.buffer[..got as usize];
        // linux_dirent64: ino 8, off 8, reclen 2, type 1, name with NUL.
        while rest.len() > 19 {
            let size = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
            let name: Vec<u8> = rest[19..size].iter().copied().take_while(|byte| *byte != 0).collect();
            if name != b"." && name != b".." {
                out.push((name, rest[18]));
            }
            rest = &rest[size..];
        }
        Ok(Some(out))
    }
}

/// All entries, sorted by name.
pub fn list(root: RawFd, path: &Path) -> Result<Vec<Entry>, Code> {
    let fd = open(root, path, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut entries = Entries::new(fd, 32 << 10);
    let mut out = Vec::new();
    while let Some(batch) = entries.next_batch()? {
        out.extend(batch);
    }
    out.sort();
    Ok(out)
}
