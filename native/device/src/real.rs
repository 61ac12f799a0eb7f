//! Drives that are directories on mounted disks.
//!
//! - The directory and everything in it are reached by descriptor; no symbolic link is followed.
//! - Durable writes are direct with a data sync of their own (`O_DIRECT` + `RWF_DSYNC`); where O_DIRECT is refused
//!   they go through the page cache with the same sync, which [`RealDrive::buffered`] shows. Several such writes to
//!   one file system whose sync is known to flush its whole disk share one flush (`parallel.rs`).
//! - A file appears under its name only when it has its whole length, durably: `create` makes it under a
//!   temporary name first. A crash leaves at most the temporary, which the next `create` of the name removes.
//! - After a failed flush nothing on this drive is durable any more (the kernel may have dropped what it could not
//!   write): every later flush and durable write fails.

mod directory;
mod file;
mod parallel;
mod pieces;
mod settled;
mod reading;
#[cfg(test)]
mod tests;
mod timed;

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::drive::{Drive, DriveSpace, Durability, FileId};
use crate::names::{LOCK_FILE, TEMPORARY_SUFFIX, check_name, is_reserved};
use directory::{Directory, check, plain_error, stat};
pub use file::DirectRead;
use file::DriveFile;
pub use parallel::write_durable;
pub use reading::{read_each, read_first};
pub use timed::write_durable_timed;

const ZEROES_PIECE_BYTES: usize = 1 << 20;
/// How often `lock` looks again when the file is swapped under it.
const LOCK_ATTEMPTS: usize = 8;

pub struct RealDrive {
    directory: Directory,
    /// Indexed by [`FileId`]; `None` after `remove`, so that ids are never used twice. Never held during I/O on data.
    files: RwLock<Vec<Option<Arc<DriveFile>>>>,
    /// Serialises creation, opening and removal, so that a name has one [`FileId`]. Taken before `files`.
    names: Mutex<()>,
    /// Held during a whole flush: one that finds a file clean must know that its sync is over.
    flush: Mutex<()>,
    flush_failed: AtomicBool,
    buffered: AtomicBool,
    /// The file system, if a sync of any file there flushes the disk below for all of them.
    flush_domain: Option<u64>,
    /// The locked file, for the life of the drive.
    lock: Mutex<Option<OwnedFd>>,
}

impl RealDrive {
    /// Opens a directory as a drive, without taking its lock. Errors name the path: missing, not a directory, a
    /// symbolic link, writable for everyone, owned by a stranger.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let directory = Directory::open(path.as_ref())?;
        Ok(Self {
            flush_domain: directory.flush_domain()?,
            directory,
            files: RwLock::new(Vec::new()),
            names: Mutex::new(()),
            flush: Mutex::new(()),
            flush_failed: AtomicBool::new(false),
            buffered: AtomicBool::new(false),
            lock: Mutex::new(None),
        })
    }

    /// Keeps other daemons off the drive until this value is dropped (or the process dies). `WouldBlock`: another
    /// one has it. Taking it again is free.
    pub fn lock(&self) -> io::Result<()> {
        let mut held = self.lock.lock();
        if held.is_some() {
            return Ok(());
        }
        for _ in 0..LOCK_ATTEMPTS {
            let descriptor =
                self.directory.open_file(LOCK_FILE, libc::O_RDWR | libc::O_CREAT | libc::O_NONBLOCK)?;
            // SAFETY: the descriptor is open.
            match check(unsafe { libc::flock(descriptor.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let reason = format!("drive {} is in use by another Holdfast daemon", self.name());
                    return Err(io::Error::new(ErrorKind::WouldBlock, reason));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let found = stat(&descriptor)?;
            // Removed or replaced since we opened it: others would lock the new file.
            if self.directory.identity(LOCK_FILE)? == Some((found.st_dev, found.st_ino)) {
                *held = Some(descriptor);
                return Ok(());
            }
        }
        let reason = format!("drive {}: the file {LOCK_FILE} is being replaced all the time", self.name());
        Err(io::Error::new(ErrorKind::WouldBlock, reason))
    }

    /// True when O_DIRECT was refused for a file opened so far: durable writes then pass through the page cache.
    pub fn buffered(&self) -> bool {
        self.buffered.load(Ordering::Relaxed)
    }

    fn file(&self, file: FileId) -> io::Result<Arc<DriveFile>> {
        let found = self.files.read().get(file.0 as usize).cloned().flatten();
        found.ok_or_else(|| {
            io::Error::new(ErrorKind::NotFound, format!("{}: {file:?} is not open", self.name()))
        })
    }

    fn check_flushed(&self) -> io::Result<()> {
        if self.flush_failed.load(Ordering::Acquire) {
            return Err(io::Error::other(format!("drive {}: an earlier flush failed", self.name())));
        }
        Ok(())
    }

    /// Whether the range is written, for good. Asking may flush the file; a failed flush puts the drive out.
    fn is_settled(&self, file: &DriveFile, offset: u64, bytes: u64) -> io::Result<bool> {
        file.is_settled(offset, bytes).inspect_err(|_| self.flush_failed.store(true, Ordering::Release))
    }

    /// The id of an open file of this name, or a new one. Under `names`.
    fn admit(&self, name: &str) -> io::Result<FileId> {
        let known = |slot: &Option<Arc<DriveFile>>| slot.as_ref().is_some_and(|file| file.name == name);
        if let Some(index) = self.files.read().iter().position(known) {
            return Ok(FileId(index as u32));
        }
        let file = DriveFile::open(&self.directory, name)?;
        if !file.is_direct() {
            self.buffered.store(true, Ordering::Relaxed);
        }
        let mut files = self.files.write();
        files.push(Some(Arc::new(file)));
        Ok(FileId(files.len() as u32 - 1))
    }

    /// Makes the temporary, of full length and durable.
    fn create_temporary(&self, temporary: &str, bytes: u64) -> io::Result<()> {
        if self.directory.exists(temporary)? {
            self.directory.unlink(temporary)?;
        }
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        let descriptor = self.directory.open_file(temporary, flags)?;
        allocate(&descriptor, bytes)?;
        // SAFETY: the descriptor is open.
        check(unsafe { libc::fsync(descriptor.as_raw_fd()) }).map(drop)
    }
}

/// Gives the file its length with blocks behind it. Errors: `StorageFull`.
fn allocate(descriptor: &OwnedFd, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    loop {
        // SAFETY: the descriptor is open.
        match check(unsafe { libc::fallocate(descriptor.as_raw_fd(), 0, 0, bytes as libc::off_t) }) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => break,
            Err(error) => return Err(error),
        }
    }
    // A file system that cannot preallocate: written zeroes are the only way to own the space.
    let zeroes = vec![0u8; ZEROES_PIECE_BYTES];
    let mut done = 0;
    while done < bytes {
        let piece = &zeroes[..(bytes - done).min(ZEROES_PIECE_BYTES as u64) as usize];
        file::write_all(descriptor.as_raw_fd(), done, &[piece], 0)?;
        done += piece.len() as u64;
    }
    Ok(())
}

impl Drive for RealDrive {
    fn name(&self) -> String {
        self.directory.path().display().to_string()
    }

    /// Crash order: (1) temporary with its whole length, synced; (2) rename; (3) directory synced. A crash before
    /// (3) leaves the file absent or whole.
    fn create(&self, file: &str, bytes: u64) -> io::Result<FileId> {
        check_name(file)?;
        let _names = self.names.lock();
        if self.directory.exists(file)? {
            return Err(io::Error::new(ErrorKind::AlreadyExists, format!("{}/{file} exists", self.name())));
        }
        let temporary = format!("{file}{TEMPORARY_SUFFIX}");
        let made = self
            .create_temporary(&temporary, bytes)
            .and_then(|()| self.directory.rename_new(&temporary, file));
        if let Err(error) = made {
            // Gives the space back; if even that fails, the next creation of this name removes the leftover.
            let _ = self.directory.unlink(&temporary);
            return Err(error);
        }
        self.directory.sync()?;
        self.admit(file)
    }

    fn open(&self, file: &str) -> io::Result<Option<FileId>> {
        check_name(file)?;
        let _names = self.names.lock();
        match self.admit(file) {
            Ok(id) => Ok(Some(id)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        check_name(file)?;
        let _names = self.names.lock();
        self.directory.unlink(file)?;
        for slot in self.files.write().iter_mut() {
            if slot.as_ref().is_some_and(|open| open.name == file) {
                *slot = None;
            }
        }
        self.directory.sync()
    }

    /// Without `lost+found`, the lock and temporaries: what is left decides whether the drive is empty.
    fn list(&self) -> io::Result<Vec<String>> {
        let names = self.directory.names()?.into_iter().map(|name| name.to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| !is_reserved(name)).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn bytes(&self, file: FileId) -> io::Result<u64> {
        Ok(self.file(file)?.bytes)
    }

    fn read(&self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file(file)?.read(offset, into)
    }

    fn write(&self, file: FileId, offset: u64, slices: &[&[u8]], durability: Durability) -> io::Result<()> {
        if durability == Durability::Durable {
            self.check_flushed()?;
        }
        self.file(file)?.write(offset, slices, durability)
    }

    fn flush(&self) -> io::Result<()> {
        let _flush = self.flush.lock();
        self.check_flushed()?;
        let files: Vec<Arc<DriveFile>> = self.files.read().iter().flatten().cloned().collect();
        for file in files {
            if !file.dirty.swap(false, Ordering::AcqRel) {
                continue;
            }
            if let Err(error) = file.sync_data() {
                self.flush_failed.store(true, Ordering::Release);
                return Err(plain_error(error));
            }
        }
        Ok(())
    }

    fn is_cheap(&self, file: FileId, offset: u64, bytes: u64) -> io::Result<bool> {
        self.check_flushed()?;
        let file = self.file(file)?;
        if self.flush_domain.is_none() {
            return Ok(file.is_written(offset, bytes).unwrap_or(true));
        }
        self.is_settled(&file, offset, bytes)
    }

    fn space(&self) -> io::Result<DriveSpace> {
        self.directory.space()
    }

    fn lock_identity(&self) -> Option<(u64, u64)> {
        let lock = self.lock.lock();
        let found = stat(lock.as_ref()?).ok()?;
        Some((found.st_dev, found.st_ino))
    }

    fn direct_read(&self, file: FileId, offset: u64, bytes: usize) -> Option<DirectRead> {
        DirectRead::new(self.file(file).ok()?, offset, bytes)
    }

    fn as_real(&self) -> Option<&RealDrive> {
        Some(self)
    }
}
