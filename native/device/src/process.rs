//! Who this process is.

/// Effective uid and gid.
pub fn effective_ids() -> (u32, u32) {
    // SAFETY: both calls only read the process's credentials.
    unsafe { (libc::geteuid(), libc::getegid()) }
}
