//! Ops that judge a file by its own bytes: SEEK_DATA and SEEK_HOLE, shared mappings, whole contents.

use std::os::fd::RawFd;

use crate::fill;
use crate::side::{Outcome, SKIPPED, plain};
use crate::sys;

/// Whether `[from, to)` reads as zeros; at most `1 MiB` is looked at, so that huge holes cost nothing. A handle that
/// is open for writing only cannot be asked: its answer is taken as it is.
fn reads_zero(fd: RawFd, from: u64, to: u64) -> bool {
    let mut buffer = vec![0u8; to.saturating_sub(from).min(1 << 20) as usize];
    let read = sys::read_at(fd, &mut buffer, from);
    read == -i64::from(libc::EBADF) || (read >= 0 && buffer.iter().all(|byte| *byte == 0))
}

/// Judges an answer of SEEK_DATA or SEEK_HOLE by the file's own bytes.
pub fn seek_verdict(fd: RawFd, offset: u64, hole: bool) -> Outcome {
    let size = match sys::stat_handle(fd) {
        Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFREG => stat.st_size as u64,
        Ok(_) => return plain(SKIPPED),
        Err(code) => return plain(code),
    };
    let answer = sys::seek(fd, offset, if hole { libc::SEEK_HOLE } else { libc::SEEK_DATA });
    sys::seek(fd, 0, libc::SEEK_SET);
    let verdict = if offset >= size {
        if answer == -i64::from(libc::ENXIO) {
            "beyond the end"
        } else {
            "WRONG: offset at or beyond the end"
        }
    } else if answer == -i64::from(libc::ENXIO) && !hole {
        if reads_zero(fd, offset, size) { "right" } else { "WRONG: ENXIO, but there is data" }
    } else if answer < 0 {
        return plain(answer);
    } else if (answer as u64) < offset || answer as u64 > size {
        "WRONG: answer out of range"
    } else if hole {
        // What is called a hole must read as zeros to the end of its block.
        let end = ((answer as u64 | (sys::PAGE as u64 - 1)) + 1).min(size);
        if reads_zero(fd, answer as u64, end) { "right" } else { "WRONG: data in a hole" }
    } else if reads_zero(fd, offset, answer as u64) {
        "right"
    } else {
        "WRONG: data was skipped"
    };
    Outcome { code: 0, data: Vec::new(), view: format!("{verdict} ") }
}

/// Loads and stores through a shared mapping, with reads and writes by handle in between: both must see each
/// other.
pub fn map(fd: RawFd, offset: u64, data: Vec<u8>) -> Outcome {
    let size = match sys::stat_handle(fd) {
        Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFREG => stat.st_size as u64,
        Ok(_) => return plain(SKIPPED),
        Err(code) => return plain(code),
    };
    if offset >= size || data.is_empty() {
        return plain(0);
    }
    let length = data.len().min((size - offset) as usize);
    let start = offset / sys::PAGE as u64 * sys::PAGE as u64;
    let lead = (offset - start) as usize;
    let mapping = match sys::Mapping::shared(fd, start, lead + length, true) {
        Ok(mapping) => mapping,
        Err(code) => return plain(code),
    };
    let mut seen = vec![0; 4 * length];
    let (before, rest) = seen.split_at_mut(length);
    let (written, rest) = rest.split_at_mut(length);
    let (stored, read_back) = rest.split_at_mut(length);
    mapping.load(lead, before);
    // SAFETY: no memory is handed over.
    let appends = unsafe { libc::fcntl(fd, libc::F_GETFL) } & libc::O_APPEND != 0;
    let mut codes = Vec::new();
    if !appends {
        codes.push(sys::write_at(fd, &data[length / 2..length], offset));
    }
    mapping.load(lead, written);
    mapping.store(lead + length / 3, &data[length / 3..length]);
    mapping.load(lead, stored);
    codes.push(sys::read_at(fd, read_back, offset));
    let code = mapping.sync();
    Outcome { code, data: seen, view: format!("codes {codes:?} ") }
}

/// The whole content as a digest of its non-zero pages, so that holes cost nothing and zeros equal holes.
pub fn content(fd: RawFd) -> Outcome {
    let size = match sys::stat_handle(fd) {
        Ok(stat) => stat.st_size as u64,
        Err(code) => return plain(code),
    };
    // Small files are read whole, which also catches data that SEEK_DATA hides.
    let walk = size > 2 << 20;
    let mut digest = fill::digest(size, b"content");
    let mut buffer = vec![0u8; 1 << 16];
    let mut at = 0;
    while at < size {
        if walk {
            let answer = sys::seek(fd, at, libc::SEEK_DATA);
            if answer == -i64::from(libc::ENXIO) {
                break;
            }
            if answer < 0 {
                return plain(answer);
            }
            at = answer as u64 / sys::PAGE as u64 * sys::PAGE as u64;
        }
        let got = sys::read_at(fd, &mut buffer, at);
        if got <= 0 {
            let view = format!("read at {at} of {size}: {} ", sys::code_text(got));
            return Outcome { code: got, data: Vec::new(), view };
        }
        for (number, page) in buffer[..got as usize].chunks(sys::PAGE).enumerate() {
            if page.iter().any(|byte| *byte != 0) {
                digest = fill::digest(digest ^ (at / sys::PAGE as u64 + number as u64), page);
            }
        }
        at += got as u64;
    }
    Outcome { code: 0, data: digest.to_le_bytes().to_vec(), view: String::new() }
}
