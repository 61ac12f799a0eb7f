//! The classic door: several threads read `/dev/fuse`, each through its own clone of the connection.
//!
//! Invariants:
//! - one reader at least is reading, or will without waiting for a drive first: whoever finds that nobody else reads hands
//!   what would wait to a helper;
//! - an answer leaves through the descriptor its request was read from; any other gives ENOENT and the caller
//!   hangs;
//! - a descriptor lives until its reader has ended *and* the last answer owed through it was given;
//! - the kernel aborts the connection when the last descriptor is closed, so nobody waits for a dead reader;
//! - a message lies in the buffer so that a WRITE's data is page-aligned.

use crate::abi::input::{InitIn, Message, WRITE_DATA_OFFSET};
use crate::abi::output::{OUT_HEADER_BYTES, out_header};
use crate::abi::{DEV_IOC_CLONE, READ_BUFFER_BYTES_MIN, opcode};
use crate::errno::Errno;
use crate::helpers::Helpers;
use crate::init::{Negotiated, negotiate};
use crate::transport::{Answer, Crew, InFlight, Job, Reply, Serve, Transport};
use holdfast_device::{AlignedBuffer, patience};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const PAGE_BYTES: usize = 4096;
/// Room for any extended attribute, its name and the headers, however small `max_write` is.
const BODY_BYTES_MIN: usize = 128 << 10;
const _: () = assert!(BODY_BYTES_MIN > READ_BUFFER_BYTES_MIN);
/// INIT is queued by the mount itself, so it is there at once; this only bounds the unthinkable.
const INIT_LIMIT_MS: i32 = 10_000;

/// Opens the device. Not a file of ours, so not through `holdfast_device`.
pub fn open_device() -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open("/dev/fuse");
    file.map(OwnedFd::from).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            io::ErrorKind::NotFound,
            "/dev/fuse is missing: load the kernel module (modprobe fuse) or give it to this container",
        ),
        _ => error,
    })
}

/// Waits for INIT on a fresh connection and answers it. Nothing may be cloned before. `prepare` runs before
/// the answer, and is the last who may change or refuse it.
pub fn initialize(
    device: &OwnedFd,
    write_bytes_max: u32,
    prepare: impl FnOnce(Negotiated) -> io::Result<Negotiated>,
) -> io::Result<Negotiated> {
    let mut ready = libc::pollfd { fd: device.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: `ready` is one valid pollfd for the call's length.
    if unsafe { libc::poll(&mut ready, 1, INIT_LIMIT_MS) } == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel sent no INIT"));
    }
    let mut buffer = MessageBuffer::new(BODY_BYTES_MIN);
    let bytes = buffer.read(device)?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's first request is no INIT");
    let header = crate::abi::input::InHeader::parse(bytes).ok_or_else(malformed)?;
    let offer =
        bytes.get(crate::abi::input::IN_HEADER_BYTES..).and_then(InitIn::parse).ok_or_else(malformed)?;
    if header.opcode != opcode::INIT {
        return Err(malformed());
    }
    let agreed = negotiate(&offer, write_bytes_max)
        .map_err(|message| io::Error::new(io::ErrorKind::Unsupported, message))
        .and_then(prepare);
    match agreed {
        Ok(agreed) => send(device, header.unique, 0, &agreed.out.encode()).map(|()| agreed),
        Err(error) => {
            send(device, header.unique, libc::EPROTO, &[])?;
            Err(error)
        }
    }
}

/// Another descriptor of the same connection with a queue of its own.
fn clone_device(device: &OwnedFd) -> io::Result<OwnedFd> {
    let clone = open_device()?;
    let mut source = device.as_raw_fd().cast_unsigned();
    // SAFETY: the ioctl reads one u32 from `source`, which outlives the call.
    let result = unsafe { libc::ioctl(clone.as_raw_fd(), DEV_IOC_CLONE as _, &mut source) };
    if result == 0 { Ok(clone) } else { Err(io::Error::last_os_error()) }
}

/// Writes header and payload as one message.
fn send(device: &OwnedFd, unique: u64, errno: Errno, payload: &[u8]) -> io::Result<()> {
    let header = out_header(unique, errno, payload.len());
    let parts = [
        libc::iovec { iov_base: header.as_ptr().cast_mut().cast(), iov_len: OUT_HEADER_BYTES },
        libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() },
    ];
    let count = if payload.is_empty() { 1 } else { 2 };
    // SAFETY: both parts point at memory that outlives the call and that writev only reads.
    let written = unsafe { libc::writev(device.as_raw_fd(), parts.as_ptr(), count) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A buffer whose byte [`WRITE_DATA_OFFSET`] of a message is page-aligned. Its pages come as they are
/// touched.
struct MessageBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl MessageBuffer {
    fn new(body_bytes: usize) -> Self {
        let bytes = vec![0; body_bytes + 2 * PAGE_BYTES];
        let aligned = bytes.as_ptr().align_offset(PAGE_BYTES);
        let data_at = if aligned < WRITE_DATA_OFFSET { aligned + PAGE_BYTES } else { aligned };
        Self { bytes, start: data_at - WRITE_DATA_OFFSET }
    }
    /// Reads one whole message.
    fn read(&mut self, device: &OwnedFd) -> io::Result<&[u8]> {
        let room = &mut self.bytes[self.start..];
        // SAFETY: `room` is valid for writes of its length.
        let count = unsafe { libc::read(device.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) };
        if count < 0 { Err(io::Error::last_os_error()) } else { Ok(&room[..count.cast_unsigned()]) }
    }
}

/// What the readers of one connection share.
struct Connection {
    in_flight: Arc<InFlight>,
    /// The kernel has ended the connection.
    ended: AtomicBool,
    /// Readers that wait for a request, or have just got one.
    reading: AtomicUsize,
}

/// One descriptor, and the way back for what was read from it.
struct Channel {
    device: OwnedFd,
    connection: Arc<Connection>,
}

impl Answer for Channel {
    fn answer(&self, _slot: u64, unique: u64, errno: Errno, payload: &[u8]) {
        let Err(error) = send(&self.device, unique, errno, payload) else { return };
        // ENOENT: the caller was killed meanwhile. ENODEV, ECONNABORTED: so was the connection. EINVAL: the
        // kernel does not like the answer, and still waits for one.
        if error.raw_os_error() == Some(libc::EINVAL) {
            let _caller_is_gone = send(&self.device, unique, libc::EIO, &[]);
        }
    }
    fn in_flight(&self) -> &InFlight {
        &self.connection.in_flight
    }
}

/// The running readers of one connection.
pub struct DevTransport {
    connection: Arc<Connection>,
    crew: Arc<Crew>,
}

/// How to serve.
pub struct DevOptions {
    /// 0: as many as there are processors, at least two.
    pub readers: usize,
    pub agreed: Negotiated,
    /// Requests come over rings: what comes this way nobody waits for.
    pub beside_rings: bool,
    /// Shared with the rings, when the connection has them.
    pub in_flight: Arc<InFlight>,
    /// Called once, by the last reader as it ends.
    pub on_end: Box<dyn FnOnce() + Send>,
}

impl DevTransport {
    /// Starts the readers. Where the device cannot be opened again (an unprivileged daemon), they share one
    /// descriptor.
    pub fn start(device: OwnedFd, serve: Arc<dyn Serve>, options: DevOptions) -> io::Result<Self> {
        let connection = Arc::new(Connection {
            in_flight: options.in_flight,
            ended: AtomicBool::new(false),
            reading: AtomicUsize::new(0),
        });
        let readers = match options.readers {
            0 => std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2)),
            readers => readers,
        };
        let first = Arc::new(Channel { device, connection: Arc::clone(&connection) });
        let body_bytes = options.agreed.request_bytes_max.max(BODY_BYTES_MIN);
        let (helpers, mut jobs): (_, Vec<Job>) = match options.beside_rings {
            true => (None, Vec::new()),
            false => {
                let (helpers, jobs) = Helpers::new(readers, body_bytes);
                (Some(helpers), jobs)
            }
        };
        for index in 0..readers {
            let channel = match index {
                0 => Arc::clone(&first),
                _ => clone_device(&first.device).map_or_else(
                    |_| Arc::clone(&first),
                    |device| Arc::new(Channel { device, connection: Arc::clone(&connection) }),
                ),
            };
            let (serve, helpers) = (Arc::clone(&serve), helpers.clone());
            let reader = Reader { channel, serve, helpers, body_bytes, agreed: options.agreed };
            jobs.push((format!("fuse-{index}"), Box::new(move || reader.run())));
        }
        let (ended, on_end) = (Arc::clone(&connection), options.on_end);
        let on_end = Box::new(move || {
            ended.ended.store(true, Ordering::SeqCst);
            on_end();
        });
        Ok(Self { connection, crew: Crew::start(jobs, on_end)? })
    }

    /// False once the kernel has ended the connection.
    pub fn alive(&self) -> bool {
        !self.connection.ended.load(Ordering::SeqCst)
    }
}

impl Transport for DevTransport {
    fn name(&self) -> &'static str {
        "dev"
    }

    fn join(&self, limit: Duration) -> bool {
        self.crew.join(limit)
    }
}

struct Reader {
    channel: Arc<Channel>,
    serve: Arc<dyn Serve>,
    helpers: Option<Helpers>,
    body_bytes: usize,
    agreed: Negotiated,
}

impl Reader {
    fn run(self) {
        let mut buffer = MessageBuffer::new(self.body_bytes);
        // A drive reads into aligned memory without a copy.
        let mut out = AlignedBuffer::zeroed(self.body_bytes);
        let reading = &self.channel.connection.reading;
        loop {
            reading.fetch_add(1, Ordering::SeqCst);
            let message = buffer.read(&self.channel.device);
            let others_read = reading.fetch_sub(1, Ordering::SeqCst) > 1;
            match message {
                Ok(bytes) => self.serve_one(bytes, &mut out, others_read),
                // ENOENT: the request was interrupted before we had it.
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOENT | libc::EINTR | libc::EAGAIN) => {}
                    // ENODEV: unmounted or aborted. Anything else: reading again would spin.
                    _ => break,
                },
            }
        }
        self.channel.connection.ended.store(true, Ordering::SeqCst);
    }

    fn serve_one(&self, bytes: &[u8], out: &mut [u8], others_read: bool) {
        let Some(message) = Message::cut(bytes, self.agreed.setxattr_ext) else { return };
        let reply = |unique| Reply::new(Arc::clone(&self.channel) as Arc<dyn Answer>, 0, unique);
        match message {
            Ok(message) => {
                let reply = reply(message.header.unique);
                match &self.helpers {
                    Some(helpers) if !others_read => self.serve_now_or_later(helpers, &message, out, reply),
                    _ => self.serve.serve(&message, out, reply),
                }
            }
            Err(header) => reply(header.unique).error(libc::EIO),
        }
    }

    /// Nobody else reads: what would wait for a drive goes to a helper, unless too much waits there already.
    fn serve_now_or_later(&self, helpers: &Helpers, message: &Message<'_>, out: &mut [u8], reply: Reply) {
        let Some(reply) = self.serve.try_serve(message, out, reply) else { return };
        // There is no ring here that could fulfil it.
        drop(patience::take_wish());
        let serve = Arc::clone(&self.serve);
        let (header, op_in, payload) = (message.header, message.op_in.to_vec(), message.payload.to_vec());
        let later = helpers.try_hand(Box::new(move |scratch| {
            serve.serve(&Message { header, op_in: &op_in, payload: &payload }, scratch, reply);
        }));
        if let Err(work) = later {
            work(out);
        }
    }
}
