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

/// Enough of `/proc/PID/status` for its fourth line.
const STATUS_BYTES: usize = 512;

/// The process that a thread belongs to; `None`: it has gone, or lies in another namespace.
pub fn process_of(thread: u32) -> Option<u32> {
    let mut status = [0; STATUS_BYTES];
    let status = read_start(&format!("/proc/{thread}/status"), &mut status)?;
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Tgid:\t"))?;
    std::str::from_utf8(line).ok()?.parse().ok()
}

/// Name of the program that a process runs: its first bytes, as many as the kernel keeps.
pub fn command_of(process: u32, into: &mut [u8; 16]) -> Option<&[u8]> {
    let name = read_start(&format!("/proc/{process}/comm"), into)?;
    Some(name.strip_suffix(b"\n").unwrap_or(name))
}

fn read_start<'a>(path: &str, into: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut file = std::fs::OpenOptions::new().read(true).open(path).ok()?;
    let bytes = std::io::Read::read(&mut file, into).ok()?;
    Some(&into[..bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_known_by_any_of_its_threads() {
        // SAFETY: the call only reads the caller's own number.
        let thread = || unsafe { libc::gettid() } as u32;
        let own = std::process::id();
        let other = crate::threads::spawn("other", move || (thread(), process_of(thread()))).expect("a thread");
        let (number, process) = other.join().expect("the thread's answer");
        assert_ne!(number, own);
        assert_eq!(process, Some(own));
        let mut name = [0; 16];
        let program = std::env::current_exe().expect("the program");
        let program = program.file_name().expect("its name").as_encoded_bytes();
        let command = command_of(own, &mut name).expect("the name");
        assert!(!command.is_empty() && program.starts_with(command), "{command:?}");
        assert_eq!((process_of(0), command_of(0, &mut name)), (None, None));
    }
}
