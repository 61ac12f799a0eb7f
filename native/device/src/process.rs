//! Who this process is.

/// Effective uid and gid.
pub fn effective_ids() -> (u32, u32) {
    // SAFETY: both calls only read the process's credentials.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Heaps of the C library's allocator. Memory that is freed stays with the heap that it came from, and each thread has
/// one of up to eight a processor: what one thread allocates and another frees (tables, drained records, cached blocks) would
/// be kept many times over.
const HEAPS: libc::c_int = 2;

/// Lets threads that are made from now on share a few heaps, so that budgets of memory are what the process takes.
pub fn share_heaps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator, which takes its own locks. Refused, it stays as it was.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, HEAPS);
    }
}
