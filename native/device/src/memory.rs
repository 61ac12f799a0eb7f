//! Memory that outlives the process: a file mapped shared. On tmpfs nothing is ever written to a disk; elsewhere the
//! kernel's page cache keeps it across `kill -9` just the same, at the price of write-back.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

enum Backing {
    Mapped { file: std::fs::File },
    /// For simulations: a copy of the handle is what "survives the crash".
    Heap { layout: std::alloc::Layout },
}

struct Area {
    start: *mut u8,
    bytes: usize,
    backing: Backing,
}

// SAFETY: the area is plain memory for the life of the value; who may touch which bytes when is the ring's protocol.
unsafe impl Send for Area {}
// SAFETY: as above; shared access is through raw copies and atomics only.
unsafe impl Sync for Area {}

impl Drop for Area {
    fn drop(&mut self) {
        match self.backing {
            // SAFETY: `start` and `bytes` are what mmap returned, unmapped once.
            Backing::Mapped { .. } => unsafe {
                libc::munmap(self.start.cast(), self.bytes);
            },
            // SAFETY: allocated with this layout, freed once.
            Backing::Heap { layout } => unsafe { std::alloc::dealloc(self.start, layout) },
        }
    }
}

const PAGE_BYTES: usize = 4096;

/// A page-aligned area, shared by all clones of the handle.
#[derive(Clone)]
pub struct SharedMemory {
    area: Arc<Area>,
}

impl SharedMemory {
    /// Maps `path`, created (0600) or extended to `bytes`. Its first page is allocated; what is behind it must be, before it is
    /// first written ([`SharedMemory::allocate`]), so that touching it cannot fail. A symbolic link is refused. Content of an
    /// existing file is kept.
    pub fn map(path: &Path, bytes: usize) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        #[allow(clippy::disallowed_methods)]
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(path)?;
        if file.metadata()?.len() != bytes as u64 {
            file.set_len(0)?;
            file.set_len(bytes as u64)?;
        }
        allocate(&file, 0, bytes.min(PAGE_BYTES))?;
        // SAFETY: a fresh shared mapping of a file that is at least `bytes` long.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let area = Area { start: start.cast(), bytes, backing: Backing::Mapped { file } };
        Ok(Self { area: Arc::new(area) })
    }

    /// Zeroed memory of this process; survives a simulated crash as long as a clone of the handle does.
    pub fn heap(bytes: usize) -> Self {
        let layout = std::alloc::Layout::from_size_align(bytes, 4096).expect("a sane ring size");
        // SAFETY: the layout has a size above zero, asserted here.
        let start = unsafe {
            assert!(bytes > 0);
            std::alloc::alloc_zeroed(layout)
        };
        assert!(!start.is_null(), "out of memory for a ring of {bytes} bytes");
        Self { area: Arc::new(Area { start, bytes, backing: Backing::Heap { layout } }) }
    }

    /// A private copy of what the memory holds now: what a crash at this instant leaves.
    pub fn snapshot(&self) -> Self {
        let copy = Self::heap(self.bytes());
        copy.write(0, self.read(0, self.bytes()));
        copy
    }

    /// Gives the memory behind everything from `offset` on back to the system; it reads as zeroes. Before it is written
    /// again, [`SharedMemory::allocate`] must have succeeded.
    pub fn release(&self, offset: usize) {
        if let Backing::Mapped { file } = &self.area.backing {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            let (start, length) = (offset as libc::off_t, (self.area.bytes - offset) as libc::off_t);
            // SAFETY: a valid descriptor and range. A file system that cannot do it keeps the memory: no harm.
            unsafe { libc::fallocate(file.as_raw_fd(), mode, start, length) };
        }
    }

    /// Has a range allocated, so that touching it cannot fail.
    pub fn allocate(&self, offset: usize, bytes: usize) -> io::Result<()> {
        match &self.area.backing {
            Backing::Mapped { file } => allocate(file, offset, bytes),
            Backing::Heap { .. } => Ok(()),
        }
    }

    pub fn bytes(&self) -> usize {
        self.area.bytes
    }

    /// Bytes at `offset`. The caller's protocol guarantees that nobody writes there meanwhile.
    pub fn read(&self, offset: usize, bytes: usize) -> &[u8] {
        assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.area.bytes));
        // SAFETY: inside the area; see the method's contract.
        unsafe { std::slice::from_raw_parts(self.area.start.add(offset), bytes) }
    }

    /// Copies `content` to `offset`. The caller's protocol guarantees that nobody reads or writes there meanwhile.
    pub fn write(&self, offset: usize, content: &[u8]) {
        assert!(offset.checked_add(content.len()).is_some_and(|end| end <= self.area.bytes));
        // SAFETY: inside the area, and `content` cannot overlap it: it is borrowed from elsewhere or unwritten by contract.
        unsafe { std::ptr::copy(content.as_ptr(), self.area.start.add(offset), content.len()) }
    }

    fn atomic(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.area.bytes);
        // SAFETY: aligned, inside the area, and only ever accessed as an atomic.
        unsafe { AtomicU64::from_ptr(self.area.start.add(offset).cast()) }
    }

    pub fn load(&self, offset: usize) -> u64 {
        self.atomic(offset).load(Ordering::Acquire)
    }

    pub fn store(&self, offset: usize, value: u64) {
        self.atomic(offset).store(value, Ordering::Release);
    }
}

fn allocate(file: &std::fs::File, offset: usize, bytes: usize) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    // SAFETY: a valid descriptor and range.
    let result = unsafe { libc::posix_fallocate(file.as_raw_fd(), offset as libc::off_t, bytes as libc::off_t) };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// Identity of this boot of the kernel: what is in tmpfs from another boot is not ours.
pub fn boot_id() -> io::Result<[u8; 16]> {
    #[allow(clippy::disallowed_methods)]
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let mut id = [0u8; 16];
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    if digits.len() != 32 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "boot_id is not a uuid"));
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).unwrap_or("00");
        *byte = u8::from_str_radix(pair, 16).unwrap_or(0);
    }
    Ok(id)
}
