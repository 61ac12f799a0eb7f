//! INIT: what this daemon and this kernel agree on, flag by flag.

use crate::abi::init_flag as flag;
use crate::abi::input::InitIn;
use crate::abi::output::InitOut;
use crate::abi::{VERSION_MAJOR, VERSION_MINOR, VERSION_MINOR_MIN};

/// Wanted if the kernel has them. Left out on purpose:
/// - WRITEBACK_CACHE: acknowledged writes would live in the kernel only and die with the daemon's promise;
/// - AUTO_INVAL_DATA: our own mtime stamps would drop the page cache;
/// - ATOMIC_O_TRUNC: loses truncations together with zero-message opens;
/// - POSIX_LOCKS, FLOCK_LOCKS: the kernel's own locks are right on one host and cost no message;
/// - PASSTHROUGH: bypasses checksums.
const WANTED: u64 = flag::ASYNC_READ
    | flag::EXPORT_SUPPORT
    | flag::BIG_WRITES
    | flag::DONT_MASK
    | flag::READDIRPLUS
    | flag::READDIRPLUS_AUTO
    | flag::ASYNC_DIO
    | flag::PARALLEL_DIROPS
    | flag::POSIX_ACL
    | flag::MAX_PAGES
    | flag::CACHE_SYMLINKS
    | flag::EXPLICIT_INVAL_DATA
    | flag::HANDLE_KILLPRIV_V2
    | flag::SETXATTR_EXT
    | flag::INIT_EXT;

/// Background requests (readahead, asynchronous direct I/O, writeback of mapped pages) in flight at most.
const MAX_BACKGROUND: u16 = 256;
const PAGE_BYTES: u32 = 4096;
/// What the kernel allows in one request unless a sysctl was raised.
const MAX_PAGES: u32 = 256;
/// However small writes are: reads may be so long, and a ring's payload holds any extended attribute.
const MIN_PAGES: u32 = 32;

/// The outcome of INIT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Negotiated {
    pub out: InitOut,
    pub setxattr_ext: bool,
    /// Longest READ, WRITE or other payload.
    pub request_bytes_max: usize,
    /// The kernel can carry requests over io_uring.
    pub rings_offered: bool,
}

impl Negotiated {
    /// Takes the offer of rings. From the answer on the kernel waits for all of them.
    pub fn over_rings(mut self) -> Self {
        self.out.flags |= flag::OVER_IO_URING;
        self
    }
}

/// Answers INIT. `Err` says what is wrong with the kernel's offer.
pub fn negotiate(offer: &InitIn, write_bytes_max: u32) -> Result<Negotiated, String> {
    if offer.major != VERSION_MAJOR || offer.minor < VERSION_MINOR_MIN {
        return Err(format!(
            "the kernel speaks FUSE {}.{}, not {VERSION_MAJOR}.{VERSION_MINOR_MIN} or newer (Linux 5.4)",
            offer.major, offer.minor
        ));
    }
    let flags = WANTED & offer.flags;
    let pages =
        if flags & flag::MAX_PAGES != 0 { (write_bytes_max / PAGE_BYTES).clamp(1, MAX_PAGES) } else { 32 };
    let max_write = pages * PAGE_BYTES;
    let max_pages = pages.max(MIN_PAGES);
    let rings = flag::OVER_IO_URING | flag::INIT_EXT;
    Ok(Negotiated {
        out: InitOut {
            minor: offer.minor.min(VERSION_MINOR),
            max_readahead: offer.max_readahead.max(max_write),
            flags,
            max_background: MAX_BACKGROUND,
            congestion_threshold: MAX_BACKGROUND / 4 * 3,
            max_write,
            time_gran: 1,
            max_pages: max_pages as u16,
        },
        setxattr_ext: flags & flag::SETXATTR_EXT != 0,
        request_bytes_max: (max_pages * PAGE_BYTES) as usize,
        rings_offered: offer.flags & rings == rings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_offered_flags_are_taken_and_forbidden_ones_never() {
        let offer = InitIn { major: 7, minor: 45, max_readahead: 131_072, flags: u64::MAX };
        let agreed = negotiate(&offer, 1 << 20).expect("negotiable");
        for forbidden in [3_u64, 1, 10, 12, 16, 37, 41] {
            assert_eq!(agreed.out.flags & (1 << forbidden), 0, "bit {forbidden}");
        }
        assert!(agreed.rings_offered, "rings are taken only when they are there");
        assert_eq!(agreed.over_rings().out.flags, agreed.out.flags | 1 << 41);
        assert_eq!((agreed.out.max_write, agreed.out.max_pages), (1 << 20, 256));
        let none = negotiate(&InitIn { flags: 0, ..offer }, 1 << 20).expect("negotiable");
        assert_eq!((none.out.flags, none.setxattr_ext, none.out.max_write), (0, false, 131_072));
        assert!(!none.rings_offered);
        assert!(negotiate(&InitIn { minor: 8, ..offer }, 1 << 20).is_err());
        assert!(negotiate(&InitIn { major: 8, ..offer }, 1 << 20).is_err());
    }

    #[test]
    fn small_pools_get_small_writes() {
        let offer = InitIn { major: 7, minor: 45, max_readahead: 0, flags: u64::MAX };
        let agreed = negotiate(&offer, 65_536).expect("negotiable");
        assert_eq!(
            (agreed.out.max_write, agreed.out.max_pages, agreed.request_bytes_max),
            (65_536, 32, 131_072)
        );
        assert_eq!(negotiate(&offer, 100).expect("negotiable").out.max_write, 4096);
    }
}
