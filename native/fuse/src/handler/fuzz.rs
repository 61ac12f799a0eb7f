//! Requests that no kernel sends, through both doors' decoders and the handler: none panics, every one that wants an answer
//! gets exactly one, a malformed one gets EINVAL (or EIO where the message is not even whole, or nothing where its header is
//! not), and whatever reaches the file system lies within the message and keeps its contract.
//!
//! `tests/corpus/requests` holds one input for every way in which a request is known to be answered. New inputs are made by
//! changing those; one that is answered in a new way fails the test, which prints the line to be added.
//!
//! A line: `door opcode answer`, a tab, the message in hex. Door 1 reads `/dev/fuse`, door 2 is a ring.

use super::Handler;
use crate::abi::input::{IN_HEADER_BYTES, InHeader, Message};
use crate::abi::output::Lifetimes;
use crate::abi::{op_in_bytes, opcode};
use crate::errno::Errno;
use crate::transport::{Answer, InFlight, Reply, Serve};
use holdfast_device::Rng;
use holdfast_format::Ino;
use holdfast_format::limits::{NAME_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use holdfast_store::api::*;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const SEED: u64 = 0x0f05_ed05;
/// Messages in one run of the tests.
const ROUNDS: u64 = 150_000;
const MESSAGE_BYTES_MAX: usize = 700;
const OUT_BYTES: usize = 16 << 10;
const OPCODES: u32 = 60;
/// What the file system here gives for attributes and link targets.
const VALUE: &[u8] = b"system.value\0of many bytes";

/// Takes every call, and checks what every implementation may rely on.
#[derive(Default)]
struct Watcher {
    /// Where the message lies.
    message: Mutex<Range<usize>>,
    calls: AtomicUsize,
}

impl Watcher {
    fn within(&self, bytes: &[u8]) {
        let (range, start) = (self.message.lock().clone(), bytes.as_ptr() as usize);
        assert!(range.start <= start && start + bytes.len() <= range.end, "{} bytes from elsewhere", bytes.len());
    }
    /// A name that may be looked up.
    fn sought(&self, name: &[u8]) {
        self.within(name);
        assert!((1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains(&b'/') && !name.contains(&0), "{name:?}");
    }
    /// A name that an entry may have.
    fn given(&self, name: &[u8]) {
        self.sought(name);
        assert!(name != b"." && name != b"..", "{name:?}");
    }
    fn attribute(&self, name: &[u8]) {
        self.within(name);
        assert!((1..=XATTR_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(&0), "{name:?}");
    }
    fn answer<T>(&self, ino: Ino, value: T) -> FsResult<T> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match ino.0 % 16 {
            13 => Err(FsError::NotFound),
            14 => Err(FsError::NoSpace),
            15 => Err(FsError::Stale),
            _ => Ok(value),
        }
    }
    fn entry(&self, ino: Ino) -> FsResult<Attr> {
        self.answer(ino, attr(ino.0.wrapping_add(1)))
    }
}

fn attr(ino: u64) -> Attr {
    let time = holdfast_format::inode::Time { sec: 1, nsec: 2 };
    Attr {
        ino: Ino(ino),
        mode: 0o100_644,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 5,
        blocks: 8,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
    }
}

impl FileSystem for Watcher {
    fn lookup(&self, dir: Ino, name: &[u8]) -> FsResult<Attr> {
        self.sought(name);
        self.entry(dir)
    }
    fn forget(&self, _: Ino, _: u64) {}
    fn getattr(&self, ino: Ino) -> FsResult<Attr> {
        self.entry(ino)
    }
    fn setattr(&self, _: &Caller, ino: Ino, set: &SetAttr) -> FsResult<Attr> {
        assert!(set.mode.is_none_or(|mode| mode <= 0o7777));
        for time in [set.atime, set.mtime].into_iter().flatten() {
            assert!(matches!(time, SetTime::Now) || matches!(time, SetTime::At(time) if time.nsec < 1_000_000_000));
        }
        self.entry(ino)
    }
    fn readlink(&self, ino: Ino) -> FsResult<Vec<u8>> {
        self.answer(ino, VALUE.to_vec())
    }
    fn create(&self, _: &Caller, dir: Ino, name: &[u8], _: u32) -> FsResult<Attr> {
        self.given(name);
        if dir.0 % 16 == 12 { Err(FsError::Exists) } else { self.entry(dir) }
    }
    fn mknod(&self, _: &Caller, dir: Ino, name: &[u8], _: u32, _: u32) -> FsResult<Attr> {
        self.given(name);
        self.entry(dir)
    }
    fn mkdir(&self, _: &Caller, dir: Ino, name: &[u8], _: u32) -> FsResult<Attr> {
        self.given(name);
        self.entry(dir)
    }
    fn symlink(&self, _: &Caller, dir: Ino, name: &[u8], target: &[u8]) -> FsResult<Attr> {
        self.given(name);
        self.within(target);
        assert!(!target.contains(&0));
        self.entry(dir)
    }
    fn link(&self, _: &Caller, _: Ino, dir: Ino, name: &[u8]) -> FsResult<Attr> {
        self.given(name);
        self.entry(dir)
    }
    fn tmpfile(&self, _: &Caller, dir: Ino, _: u32) -> FsResult<Attr> {
        self.entry(dir)
    }
    fn unlink(&self, _: &Caller, dir: Ino, name: &[u8]) -> FsResult<()> {
        self.given(name);
        self.answer(dir, ())
    }
    fn rmdir(&self, _: &Caller, dir: Ino, name: &[u8]) -> FsResult<()> {
        self.given(name);
        self.answer(dir, ())
    }
    fn rename(&self, _: &Caller, from: (Ino, &[u8]), to: (Ino, &[u8]), flags: u32) -> FsResult<()> {
        self.given(from.1);
        self.given(to.1);
        assert!(flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT) == 0);
        self.answer(from.0, ())
    }
    fn read(&self, _: &Caller, ino: Ino, offset: u64, into: &mut [u8]) -> FsResult<usize> {
        let filled = into.len().min(offset as usize % 5000);
        into[..filled].fill(7);
        self.answer(ino, filled)
    }
    fn write(&self, _: &Caller, ino: Ino, _: u64, data: &[u8], _: WriteFlags) -> FsResult<()> {
        self.within(data);
        self.answer(ino, ())
    }
    fn fallocate(&self, _: &Caller, ino: Ino, _: u64, _: u64, _: u32) -> FsResult<()> {
        self.answer(ino, ())
    }
    fn copy_file_range(&self, _: &Caller, from: (Ino, u64), _: (Ino, u64), length: u64) -> FsResult<u64> {
        self.answer(from.0, length)
    }
    fn lseek(&self, ino: Ino, offset: u64, _: Whence) -> FsResult<u64> {
        self.answer(ino, offset)
    }
    fn fsync(&self, _: &Caller, ino: Ino, done: FlushDone) {
        done(self.answer(ino, ()));
    }
    fn readdir(
        &self,
        _: &Caller,
        dir: Ino,
        cookie: u64,
        plus: bool,
        visit: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> FsResult<()> {
        for number in 0..cookie % 300 {
            let name = [b'n'; NAME_BYTES_MAX];
            let attr = plus.then(|| attr(number + 1));
            let name = &name[..1 + number as usize % NAME_BYTES_MAX];
            if !visit(&DirEntry { ino: Ino(number + 1), kind: 8, cookie: number + 1, name, attr }) {
                break;
            }
        }
        self.answer(dir, ())
    }
    fn getxattr(&self, ino: Ino, name: &[u8]) -> FsResult<Vec<u8>> {
        self.attribute(name);
        self.answer(ino, VALUE.to_vec())
    }
    fn setxattr(&self, _: &Caller, ino: Ino, name: &[u8], value: &[u8], _: u32, _: bool) -> FsResult<()> {
        self.attribute(name);
        self.within(value);
        assert!(value.len() <= XATTR_VALUE_BYTES_MAX);
        self.answer(ino, ())
    }
    fn listxattr(&self, ino: Ino) -> FsResult<Vec<u8>> {
        self.answer(ino, VALUE.to_vec())
    }
    fn removexattr(&self, _: &Caller, ino: Ino, name: &[u8]) -> FsResult<()> {
        self.attribute(name);
        self.answer(ino, ())
    }
    fn statfs(&self) -> FsResult<StatFs> {
        self.answer(Ino(0), StatFs::default())
    }
    fn write_bytes_max(&self) -> u32 {
        1 << 20
    }
}

/// Keeps what was sent: request, errno, bytes of the payload.
#[derive(Default)]
struct Collector {
    answers: Mutex<Vec<(u64, Errno, usize)>>,
    in_flight: InFlight,
}

impl Answer for Collector {
    fn answer(&self, _: u64, unique: u64, errno: Errno, payload: &[u8]) {
        self.answers.lock().push((unique, errno, payload.len()));
    }
    fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }
}

struct Bench {
    watcher: Arc<Watcher>,
    handler: Handler,
    out: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let watcher = Arc::new(Watcher::default());
        let lifetimes = Lifetimes { entry_s: 1, attr_s: 1, negative_s: 1 };
        Self { handler: Handler::new(watcher.clone(), lifetimes), watcher, out: vec![0; OUT_BYTES] }
    }

    /// Serves one message as a door does, and says how it was answered.
    fn serve(&mut self, door: u8, bytes: &[u8]) -> String {
        let start = bytes.as_ptr() as usize;
        *self.watcher.message.lock() = start..start + bytes.len();
        self.watcher.calls.store(0, Ordering::Relaxed);
        let collector = Arc::new(Collector::default());
        let Some((op, message)) = arrive(door, bytes) else { return "0 dropped".to_owned() };
        let (header, message) = match message {
            Ok(message) => (message.header, Some(message)),
            Err(header) => (header, None),
        };
        let reply = Reply::new(collector.clone(), 0, header.unique);
        match message {
            None => reply.error(libc::EIO),
            Some(message) => {
                if let Some(reply) = self.handler.try_serve(&message, &mut self.out, reply) {
                    self.handler.serve(&message, &mut self.out, reply);
                }
            }
        }
        assert_eq!(collector.in_flight.count(), 0, "opcode {op}: somebody waits for ever");
        assert!(self.watcher.calls.load(Ordering::Relaxed) <= 1, "opcode {op}: done more than once");
        let answers = collector.answers.lock();
        match answers.as_slice() {
            [] => {
                let quiet = [opcode::FORGET, opcode::BATCH_FORGET, opcode::INTERRUPT, opcode::NOTIFY_REPLY];
                assert!(quiet.contains(&op), "opcode {op} got no answer");
                format!("{op} nothing")
            }
            [(unique, errno, bytes)] => {
                assert_eq!(*unique, header.unique);
                assert!((0..512).contains(errno) && *bytes <= OUT_BYTES && (*errno == 0 || *bytes == 0));
                match (errno, bytes) {
                    (0, 0) => format!("{op} done"),
                    (0, bytes) => format!("{op} 2^{}", bytes.ilog2()),
                    (errno, _) => format!("{op} errno {errno}"),
                }
            }
            more => panic!("opcode {op} got {} answers", more.len()),
        }
    }
}

/// What the doors make of the bytes: `None`: nothing that could be answered. A ring delivers header, argument 0 and payload
/// in areas of their own; here they follow each other.
fn arrive(door: u8, bytes: &[u8]) -> Option<(u32, Result<Message<'_>, InHeader>)> {
    let header = InHeader::parse(bytes)?;
    let op = header.opcode.min(OPCODES);
    if door == 1 {
        return Some((op, Message::cut(bytes, true)?));
    }
    let body = &bytes[IN_HEADER_BYTES..];
    let (op_in, payload) = body.split_at(op_in_bytes(header.opcode, true).min(body.len()));
    Some((op, Message::join(header, op_in, payload, true)))
}

/// Messages by door and answer.
type Corpus = BTreeMap<String, Vec<u8>>;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/requests")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_corpus() -> Corpus {
    #[allow(clippy::disallowed_methods)]
    let text = std::fs::read_to_string(path()).unwrap_or_default();
    let bytes = |digits: &str| {
        let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("hex"));
        pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
    };
    let line = |line: &str| line.split_once('\t').map(|(answer, input)| (answer.to_owned(), bytes(input)));
    text.lines().map(|text| line(text).expect("a tab in the line")).collect()
}

/// A message that is whole: the length in its header is its own.
fn seal(bytes: &mut [u8]) {
    let length = bytes.len() as u32;
    if let Some(field) = bytes.get_mut(..4) {
        field.copy_from_slice(&length.to_ne_bytes());
    }
}

/// One plain request of each kind.
fn plain() -> Vec<Vec<u8>> {
    let plain = |op: u32| {
        let mut bytes = vec![0; IN_HEADER_BYTES + op_in_bytes(op, true)];
        bytes[4..8].copy_from_slice(&op.to_ne_bytes());
        bytes[8..16].copy_from_slice(&77_u64.to_ne_bytes());
        bytes[16..24].copy_from_slice(&5_u64.to_ne_bytes());
        if !matches!(op, opcode::GETATTR | opcode::SETATTR) {
            bytes.extend_from_slice(b"name\0other\0");
        }
        seal(&mut bytes);
        bytes
    };
    (0..OPCODES).map(plain).collect()
}

/// Changes a message a little, as fuzzers do.
fn mutate(rng: &mut Rng, others: &[&Vec<u8>], bytes: &mut Vec<u8>) {
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match rng.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            1 if at < bytes.len() => bytes[at] = rng.next_u64() as u8,
            2 => {
                let extreme = [0u64, 1, 0x7f, 0x80, 0xff, 0xffff, 0x1_0000, u64::MAX, 1 << 63][rng.below(9) as usize];
                let width = [1, 2, 4, 8][rng.below(4) as usize].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&extreme.to_le_bytes()[..width]);
            }
            3 => bytes.truncate(at),
            4 => {
                let (count, fill) = (rng.below(300) as usize, rng.next_u64() as u8);
                bytes.splice(at..at, std::iter::repeat_n(fill, count));
            }
            5 => {
                let other = others[rng.below(others.len() as u64) as usize];
                let from = rng.below(other.len() as u64 + 1) as usize;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            6 if bytes.len() > 8 => bytes[4] = rng.below(OPCODES as u64) as u8,
            _ if bytes.len() > 40 => bytes[36] = rng.below(8) as u8,
            _ => {}
        }
        bytes.truncate(MESSAGE_BYTES_MAX);
    }
    // Mostly whole, or nothing behind the length would be looked at.
    if !rng.chance(1, 8) {
        seal(bytes);
    }
}

/// Answers that the corpus does not have, with a message for each.
fn search(corpus: &Corpus, seed: u64, rounds: u64) -> Corpus {
    let (mut bench, mut rng, mut found, plain) = (Bench::new(), Rng::from_seed(seed), Corpus::new(), plain());
    for _ in 0..rounds {
        let known: Vec<&Vec<u8>> = corpus.values().chain(&plain).collect();
        let mut bytes = known[rng.below(known.len() as u64) as usize].clone();
        mutate(&mut rng, &known, &mut bytes);
        for door in [1, 2] {
            let served = catch_unwind(AssertUnwindSafe(|| bench.serve(door, &bytes)));
            let Ok(answer) = served else { panic!("seed {seed:#x}, door {door}: {}", hex(&bytes)) };
            let answer = format!("{door} {answer}");
            if !corpus.contains_key(&answer) {
                found.entry(answer).or_insert_with(|| bytes.clone());
            }
        }
    }
    found
}

fn lines(corpus: &Corpus) -> String {
    corpus.iter().fold(String::new(), |mut text, (answer, bytes)| {
        let _ = writeln!(text, "{answer}\t{}", hex(bytes));
        text
    })
}

#[test]
fn the_corpus_is_answered_as_ever() {
    let (mut bench, corpus) = (Bench::new(), read_corpus());
    for (expected, bytes) in &corpus {
        let door = if expected.starts_with('1') { 1 } else { 2 };
        assert_eq!(format!("{door} {}", bench.serve(door, bytes)), *expected, "{}", hex(bytes));
    }
    assert!(corpus.len() > 150, "{} answers", corpus.len());
    // Malformed is EINVAL, a message that is not whole EIO, for whatever wants an answer.
    let has = |answer: &str| corpus.contains_key(answer);
    for op in [opcode::LOOKUP, opcode::MKNOD, opcode::RENAME2, opcode::WRITE, opcode::SETXATTR, opcode::SETATTR] {
        let answers = [format!("1 {op} errno {}", libc::EINVAL), format!("1 {op} errno {}", libc::EIO)];
        assert!(answers.iter().all(|answer| has(answer)), "opcode {op}");
    }
    assert!(has("1 0 dropped") && has("2 0 dropped"));
}

#[test]
fn changed_requests_are_answered_in_ways_that_the_corpus_knows() {
    let news = search(&read_corpus(), SEED, ROUNDS);
    assert!(news.is_empty(), "seed {SEED:#x}: new answers; look at them, then add\n{}", lines(&news));
}

/// Fuzzes for longer, with other seeds, and adds what it finds to the corpus: look at the difference before keeping it.
#[test]
#[ignore = "for growing the corpus"]
fn grow_the_corpus() {
    let mut corpus = read_corpus();
    for seed in 1..12 {
        corpus.extend(search(&corpus, seed, 200_000));
    }
    #[allow(clippy::disallowed_methods)]
    std::fs::write(path(), lines(&corpus)).expect("the corpus is written");
}
