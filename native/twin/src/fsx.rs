//! One file against a model in memory, in the manner of fsx: every read must give what the model holds, and the
//! size must be the model's after every operation.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use holdfast_device::Rng;

use crate::fill;
use crate::op::Path;
use crate::sys::{self, Code, PAGE};

/// What a run does and how far it goes.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub name: &'static str,
    /// Reads and writes through shared mappings too.
    pub mapped: bool,
    /// O_DIRECT: data moves at multiples of 4096.
    pub direct: bool,
    /// fallocate: plain, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE.
    pub allocate: bool,
    pub copy_range: bool,
    /// One op in so many closes and opens the file again; 0 for never.
    pub reopen_one_in: u64,
    /// One op in so many is an fsync; 0 for never.
    pub sync_one_in: u64,
    /// Drops the page cache after every op.
    pub evict: bool,
    pub file_bytes_max: usize,
    pub op_bytes_max: usize,
}

const PLAIN: Config = Config {
    name: "plain",
    mapped: false,
    direct: false,
    allocate: false,
    copy_range: false,
    reopen_one_in: 0,
    sync_one_in: 0,
    evict: false,
    file_bytes_max: 256 << 10,
    op_bytes_max: 64 << 10,
};

/// The eight configurations of the bar.
pub const CONFIGS: [Config; 8] = [
    PLAIN,
    Config { name: "mapped", mapped: true, ..PLAIN },
    Config { name: "holes", allocate: true, copy_range: true, ..PLAIN },
    Config { name: "all", mapped: true, allocate: true, copy_range: true, ..PLAIN },
    Config { name: "direct", direct: true, allocate: true, copy_range: true, ..PLAIN },
    Config {
        name: "reopen-sync",
        mapped: true,
        allocate: true,
        copy_range: true,
        reopen_one_in: 50,
        sync_one_in: 100,
        ..PLAIN
    },
    Config { name: "evict", mapped: true, allocate: true, copy_range: true, evict: true, ..PLAIN },
    Config {
        name: "large",
        mapped: true,
        allocate: true,
        copy_range: true,
        file_bytes_max: 8 << 20,
        op_bytes_max: 256 << 10,
        ..PLAIN
    },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Read { at: usize, length: usize },
    Write { at: usize, length: usize, fill: u64 },
    MapRead { at: usize, length: usize },
    MapWrite { at: usize, length: usize, fill: u64 },
    Truncate { size: usize },
    Allocate { mode: i32, at: usize, length: usize },
    Copy { from: usize, to: usize, length: usize },
    Sync,
    Reopen,
}

/// What went wrong, with the actions that led to it.
#[derive(Debug)]
pub struct Failure {
    pub action: u64,
    pub text: String,
}

pub struct Exerciser {
    config: Config,
    path: Path,
    file: OwnedFd,
    model: Vec<u8>,
    rng: Rng,
    done: u64,
    log: Vec<String>,
    /// fallocate modes that this file system has.
    modes: Vec<i32>,
}

const LOG_KEPT: usize = 30;
const CHECK_ONE_IN: u64 = 500;

impl Exerciser {
    /// Makes the file anew; `path` is absolute or relative to the working directory.
    pub fn new(config: Config, path: &Path, seed: u64) -> Result<Self, Failure> {
        let fail = |code| Failure { action: 0, text: format!("{path:?}: {}", sys::code_text(code)) };
        sys::unlink(libc::AT_FDCWD, path, 0);
        let file = sys::open(libc::AT_FDCWD, path, flags(&config) | libc::O_CREAT, 0o600).map_err(fail)?;
        let modes = if config.allocate { supported_modes(file.as_raw_fd()) } else { Vec::new() };
        let code = sys::truncate_handle(file.as_raw_fd(), 0);
        if code < 0 {
            return Err(fail(code));
        }
        let (path, rng) = (path.clone(), Rng::from_seed(seed));
        Ok(Self { config, path, file, model: Vec::new(), rng, done: 0, log: Vec::new(), modes })
    }

    /// Runs `count` actions, then compares the whole file once more and removes it.
    pub fn run(mut self, count: u64) -> Result<(), Failure> {
        for _ in 0..count {
            self.step()?;
        }
        self.check_whole()?;
        sys::unlink(libc::AT_FDCWD, &self.path, 0);
        Ok(())
    }

    pub fn step(&mut self) -> Result<(), Failure> {
        let action = self.draw();
        self.done += 1;
        self.log.push(format!("  {}: {action:?}", self.done));
        if self.log.len() > 2 * LOG_KEPT {
            self.log.drain(..LOG_KEPT);
        }
        self.perform(action).map_err(|text| self.failure(text))?;
        let size = sys::stat_handle(self.fd()).map(|stat| stat.st_size as usize);
        if size != Ok(self.model.len()) {
            return Err(self.failure(format!("size is {size:?}, should be {}", self.model.len())));
        }
        if self.config.evict {
            sys::evict(self.fd());
        }
        if self.done.is_multiple_of(CHECK_ONE_IN) { self.check_whole() } else { Ok(()) }
    }

    fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn failure(&self, text: String) -> Failure {
        let log = self.log[self.log.len().saturating_sub(LOG_KEPT)..].join("\n");
        Failure { action: self.done, text: format!("{text}\n{log}") }
    }

    /// Compares every byte, through a handle of its own without O_DIRECT.
    pub fn check_whole(&mut self) -> Result<(), Failure> {
        let fail = |side: &Self, code| side.failure(sys::code_text(code));
        let file =
            sys::open(libc::AT_FDCWD, &self.path, libc::O_RDONLY, 0).map_err(|code| fail(self, code))?;
        let mut found = vec![0; self.model.len() + 1];
        let mut at = 0;
        loop {
            match sys::read_at(file.as_raw_fd(), &mut found[at..], at as u64) {
                0 => break,
                got if got < 0 => return Err(fail(self, got)),
                got => at += got as usize,
            }
        }
        self.compare(0, &found[..at], &self.model).map_err(|text| self.failure(text))
    }

    fn compare(&self, start: usize, found: &[u8], wanted: &[u8]) -> Result<(), String> {
        if found == wanted {
            return Ok(());
        }
        let at = found.iter().zip(wanted).take_while(|(found, wanted)| found == wanted).count();
        let wrong = found.iter().zip(wanted).filter(|(found, wanted)| found != wanted).count();
        Err(format!(
            "bytes differ from {:#x} on ({wrong} of {}): found {:02x?}, should be {:02x?}; lengths {} and {}",
            start + at,
            wanted.len(),
            &found[at..found.len().min(at + 8)],
            &wanted[at..wanted.len().min(at + 8)],
            found.len(),
            wanted.len()
        ))
    }

    fn range(&mut self, end_max: usize) -> (usize, usize) {
        let at = self.rng.below(end_max.max(1) as u64) as usize;
        let length = 1 + self.rng.below(self.config.op_bytes_max as u64) as usize;
        let (at, length) =
            if self.config.direct { (at / PAGE * PAGE, length.next_multiple_of(PAGE)) } else { (at, length) };
        (at, length.min(end_max.saturating_sub(at)))
    }

    fn draw(&mut self) -> Action {
        let (size, max) = (self.model.len(), self.config.file_bytes_max);
        let one_in = |rng: &mut Rng, number: u64| number > 0 && rng.chance(1, number);
        if one_in(&mut self.rng, self.config.reopen_one_in) {
            return Action::Reopen;
        }
        if one_in(&mut self.rng, self.config.sync_one_in) {
            return Action::Sync;
        }
        let fill = self.rng.next_u64() | 1;
        match self.rng.below(12) {
            0..2 => {
                let (at, length) = self.range(size);
                Action::Read { at, length }
            }
            2..5 => {
                let (at, length) = self.range(max);
                Action::Write { at, length, fill }
            }
            5 if self.config.mapped => {
                let (at, length) = self.range(size);
                Action::MapRead { at, length }
            }
            6..8 if self.config.mapped => {
                let (at, length) = self.range(size);
                Action::MapWrite { at, length, fill }
            }
            8 => Action::Truncate { size: self.rng.below(max as u64 + 1) as usize },
            9..11 if !self.modes.is_empty() => {
                let mode = self.modes[self.rng.below(self.modes.len() as u64) as usize];
                let (at, length) = self.range(max);
                Action::Allocate { mode, at, length: length.max(1) }
            }
            11 if self.config.copy_range => {
                let (from, length) = self.range(size);
                let (to, room) = self.range(max);
                let length = length.min(room);
                // A copy by way of direct reads wants whole blocks.
                let length = if self.config.direct { length / PAGE * PAGE } else { length };
                Action::Copy { from, to, length }
            }
            _ => {
                let (at, length) = self.range(size);
                Action::Read { at, length }
            }
        }
    }

    fn perform(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Read { at, length } => self.read(at, length),
            Action::Write { at, length, fill } => self.write(at, &fill::bytes(fill, length)),
            Action::MapRead { at, length } => self.map_read(at, length),
            Action::MapWrite { at, length, fill } => self.map_write(at, &fill::bytes(fill, length)),
            Action::Truncate { size } => {
                wanted(sys::truncate_handle(self.fd(), size as u64), 0)?;
                self.model.resize(size, 0);
                Ok(())
            }
            Action::Allocate { mode, at, length } => self.allocate(mode, at, length),
            Action::Copy { from, to, length } => self.copy(from, to, length),
            Action::Sync => wanted(sys::sync(self.fd(), false), 0),
            Action::Reopen => {
                self.file =
                    sys::open(libc::AT_FDCWD, &self.path, flags(&self.config), 0).map_err(sys::code_text)?;
                Ok(())
            }
        }
    }

    fn read(&mut self, at: usize, length: usize) -> Result<(), String> {
        let expected = &self.model[at..(at + length).min(self.model.len()).max(at)];
        let found = if self.config.direct {
            let mut buffer = sys::Aligned::new(length.next_multiple_of(PAGE));
            let code = sys::read_at(self.fd(), buffer.bytes(), at as u64);
            let end = self.model.len().min(at + length.next_multiple_of(PAGE));
            wanted(code, (end - at) as Code)?;
            buffer.bytes()[..expected.len()].to_vec()
        } else {
            let mut buffer = vec![0; length];
            wanted(sys::read_at(self.fd(), &mut buffer, at as u64), expected.len() as Code)?;
            buffer
        };
        self.compare(at, &found, expected)
    }

    fn write(&mut self, at: usize, data: &[u8]) -> Result<(), String> {
        let code = if self.config.direct {
            let mut buffer = sys::Aligned::new(data.len());
            buffer.bytes().copy_from_slice(data);
            sys::write_at(self.fd(), buffer.bytes(), at as u64)
        } else {
            sys::write_at(self.fd(), data, at as u64)
        };
        wanted(code, data.len() as Code)?;
        self.put(at, data);
        Ok(())
    }

    /// The model's write; nothing happens to the size when `data` is empty.
    fn put(&mut self, at: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.model.resize(self.model.len().max(at + data.len()), 0);
        self.model[at..at + data.len()].copy_from_slice(data);
    }

    fn map_read(&mut self, at: usize, length: usize) -> Result<(), String> {
        if length == 0 {
            return Ok(());
        }
        let start = at / PAGE * PAGE;
        let end = (at + length).next_multiple_of(PAGE);
        let mapping =
            sys::Mapping::shared(self.fd(), start as u64, end - start, false).map_err(sys::code_text)?;
        // The last page is read beyond the end of the file too: there must be zeros.
        let mut found = vec![0; end - at];
        mapping.load(at - start, &mut found);
        let mut expected = self.model[at..end.min(self.model.len())].to_vec();
        expected.resize(found.len(), 0);
        self.compare(at, &found, &expected)
    }

    fn map_write(&mut self, at: usize, data: &[u8]) -> Result<(), String> {
        if data.is_empty() {
            return Ok(());
        }
        let start = at / PAGE * PAGE;
        let length = at - start + data.len();
        let mapping = sys::Mapping::shared(self.fd(), start as u64, length, true).map_err(sys::code_text)?;
        mapping.store(at - start, data);
        wanted(mapping.sync(), 0)?;
        self.put(at, data);
        Ok(())
    }

    fn allocate(&mut self, mode: i32, at: usize, length: usize) -> Result<(), String> {
        wanted(sys::allocate(self.fd(), mode, at as u64, length as u64), 0)?;
        if mode & libc::FALLOC_FL_KEEP_SIZE == 0 {
            self.model.resize(self.model.len().max(at + length), 0);
        }
        if mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0 {
            let end = self.model.len().min(at + length);
            if at < end {
                self.model[at..end].fill(0);
            }
        }
        Ok(())
    }

    fn copy(&mut self, from: usize, to: usize, length: usize) -> Result<(), String> {
        let code = sys::copy_range(self.fd(), from as u64, self.fd(), to as u64, length);
        if length > 0 && from < to + length && to < from + length {
            return wanted(code, -Code::from(libc::EINVAL));
        }
        wanted(code, length as Code)?;
        let data = self.model[from..from + length].to_vec();
        self.put(to, &data);
        Ok(())
    }
}

fn flags(config: &Config) -> i32 {
    libc::O_RDWR | if config.direct { libc::O_DIRECT } else { 0 }
}

fn wanted(code: Code, wanted: Code) -> Result<(), String> {
    if code == wanted {
        return Ok(());
    }
    Err(format!("result {}, should be {}", sys::code_text(code), sys::code_text(wanted)))
}

/// Tries each fallocate mode on the empty file.
fn supported_modes(fd: RawFd) -> Vec<i32> {
    let (keep, punch, zero) =
        (libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_PUNCH_HOLE, libc::FALLOC_FL_ZERO_RANGE);
    let modes = [0, keep, punch | keep, zero, zero | keep];
    let unsupported = -Code::from(libc::EOPNOTSUPP);
    modes.into_iter().filter(|mode| sys::allocate(fd, *mode, 0, PAGE as u64) != unsupported).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> Path {
        let path = std::env::temp_dir().join(format!("holdfast-fsx-{name}-{}", std::process::id()));
        Path(path.into_os_string().into_encoded_bytes())
    }

    #[test]
    fn a_byte_changed_behind_its_back_is_found() {
        let path = path("damage");
        let mut exerciser = Exerciser::new(CONFIGS[3], &path, 2).expect("a file");
        while exerciser.model.len() < 10_000 {
            exerciser.step().expect("no difference yet");
        }
        let at = 7_777;
        let file = sys::open(libc::AT_FDCWD, &path, libc::O_WRONLY, 0).expect("the file");
        assert_eq!(sys::write_at(file.as_raw_fd(), &[exerciser.model[at] ^ 1], at as u64), 1);
        let failure = exerciser.check_whole().expect_err("one byte differs");
        assert!(failure.text.contains("0x1e61") && failure.text.contains("(1 of"), "{}", failure.text);
        sys::unlink(libc::AT_FDCWD, &path, 0);
    }
}
