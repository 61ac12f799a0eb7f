//! Header streams of groups, and the statement of what is lost where one ends. Frames are opaque.

use crate::call::{Answer, answer, bad_argument, in_thread};
use crate::convert;
use crate::pool::pool;
use holdfast_store::engine::{self, HeaderPart, HeaderRequest};
use napi::Env;
use napi::bindgen_prelude::{BigInt, Object, Uint8Array};
use napi_derive::napi;

/// A frame: what a peer may make us copy.
const FRAME_BYTES_MAX: usize = 64 << 10;
const FRAMES_MAX: usize = 1 << 16;

/// A frame of a header stream.
#[napi(object)]
pub struct HeaderFrame {
    pub bytes: Uint8Array,
    pub lineage: BigInt,
    /// The LSNs that it speaks of.
    pub first: BigInt,
    pub last: BigInt,
    /// The owner's newest LSN when it was made, and when that was.
    pub newest: BigInt,
    pub wall_s: f64,
    pub wall_ns: u32,
    /// It follows the frame whose chain this is, and has this one itself.
    pub previous: BigInt,
    pub chain: BigInt,
}

impl From<HeaderPart> for HeaderFrame {
    fn from(HeaderPart { bytes, frame }: HeaderPart) -> Self {
        Self {
            bytes: bytes.into(),
            lineage: frame.lineage.into(),
            first: frame.first.0.into(),
            last: frame.last.0.into(),
            newest: frame.newest.0.into(),
            wall_s: frame.made.sec as f64,
            wall_ns: frame.made.nsec,
            previous: frame.previous.into(),
            chain: frame.chain.into(),
        }
    }
}

/// A file of a statement.
#[napi(object)]
pub struct LostFile {
    pub branch: u32,
    pub inode: BigInt,
    /// As far as this site knows it; empty: it does not.
    pub path: Uint8Array,
    pub ops: f64,
    pub bytes: f64,
    /// Of the ops.
    pub fsynced: f64,
}

/// What is lost between two LSNs. Ops are those of users; fsynced is what they were promised to be durable.
#[napi(object)]
pub struct Loss {
    pub first: BigInt,
    pub last: BigInt,
    /// The newest LSN that is known of, and when that was.
    pub newest: BigInt,
    pub wall_s: f64,
    pub wall_ns: u32,
    pub ops: f64,
    pub bytes: f64,
    pub files: f64,
    pub fsynced_ops: f64,
    pub fsynced_bytes: f64,
    pub fsynced_files: f64,
    /// False: the sums are bounds.
    pub is_exact: bool,
    /// Some of the files.
    pub named: Vec<LostFile>,
}

impl From<engine::LossStatement> for Loss {
    fn from(engine::LossStatement { loss, paths }: engine::LossStatement) -> Self {
        let named = loss.named.iter().zip(paths).map(|(file, path)| LostFile {
            branch: file.branch.0,
            inode: file.ino.0.into(),
            path: path.into(),
            ops: file.ops as f64,
            bytes: file.bytes as f64,
            fsynced: file.fsynced as f64,
        });
        Self {
            first: loss.first.0.into(),
            last: loss.last.0.into(),
            newest: loss.newest.0.into(),
            wall_s: loss.made.sec as f64,
            wall_ns: loss.made.nsec,
            ops: loss.ops as f64,
            bytes: loss.bytes as f64,
            files: loss.files as f64,
            fsynced_ops: loss.fsynced_ops as f64,
            fsynced_bytes: loss.fsynced_bytes as f64,
            fsynced_files: loss.fsynced_files as f64,
            is_exact: loss.is_exact,
            named: named.collect(),
        }
    }
}

fn frames_of(frames: &[Uint8Array]) -> napi::Result<Vec<Vec<u8>>> {
    if frames.len() > FRAMES_MAX || frames.iter().any(|frame| frame.len() > FRAME_BYTES_MAX) {
        return Err(bad_argument(format!("frames: more than {FRAMES_MAX}, or one of more than {FRAME_BYTES_MAX} bytes")));
    }
    Ok(frames.iter().map(|frame| frame.to_vec()).collect())
}

/// LSN of a group's newest op, durable or not: a look, which waits for nobody.
#[napi(ts_return_type = "bigint | Failure")]
pub fn headers_newest(handle: f64, target: String) -> napi::Result<Answer<BigInt>> {
    let handle = convert::handle("pool", handle)?;
    Ok(answer(pool(handle).and_then(|pool| pool.newest_lsn(&target)).map(BigInt::from)))
}

/// The next frame of a group's header stream, of so many bytes at most; null: nothing is new. `previous` absent: the stream begins.
/// `summarize`: where not all that is new fits, a summary of all of it.
#[napi(ts_return_type = "Promise<HeaderFrame | null | Failure>")]
#[allow(clippy::too_many_arguments)]
pub fn headers_next(
    env: &Env,
    handle: f64,
    target: String,
    from: BigInt,
    previous: Option<BigInt>,
    bytes_max: f64,
    summarize: bool,
) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let from = convert::unsigned("from", &from)?;
    let previous = previous.map(|chain| convert::unsigned("previous", &chain)).transpose()?;
    let bytes_max = convert::whole("bytesMax", bytes_max, FRAME_BYTES_MAX as u32)? as usize;
    let request = HeaderRequest { from, previous, bytes_max, summarize };
    in_thread(env, "headers-next", move || Ok(pool(handle)?.headers(&target, &request)?.map(HeaderFrame::from)))
}

/// What a frame says of itself; `Corrupt`: it is none.
#[napi(ts_return_type = "HeaderFrame | Failure")]
pub fn headers_check(frame: Uint8Array) -> napi::Result<Answer<HeaderFrame>> {
    let bytes = convert::bytes("frame", &frame, FRAME_BYTES_MAX)?;
    Ok(answer(engine::header_check(&bytes).map(|frame| HeaderPart { bytes, frame }.into())))
}

/// The chain that a stream of this lineage begins with at an LSN.
#[napi]
pub fn headers_start(lineage: BigInt, first: BigInt) -> napi::Result<BigInt> {
    let (lineage, first) = (convert::unsigned("lineage", &lineage)?, convert::unsigned("first", &first)?);
    Ok(engine::header_start(lineage, first).into())
}

/// Frames that follow each other, of what came after `above`, as one; null: there are none.
#[napi(ts_return_type = "Promise<HeaderFrame | null | Failure>")]
pub fn headers_fold(env: &Env, above: BigInt, frames: Vec<Uint8Array>) -> napi::Result<Object<'_>> {
    let above = convert::unsigned("above", &above)?;
    let frames = frames_of(&frames)?;
    in_thread(env, "headers-fold", move || Ok(engine::headers_fold(above, &frames)?.map(HeaderFrame::from)))
}

/// What a replica's owner did after its recovery point `above`, as frames that follow each other tell.
#[napi(ts_return_type = "Promise<Loss | Failure>")]
pub fn loss_of_frames(
    env: &Env,
    handle: f64,
    target: String,
    above: BigInt,
    frames: Vec<Uint8Array>,
) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let above = convert::unsigned("above", &above)?;
    let frames = frames_of(&frames)?;
    in_thread(env, "loss-of-frames", move || Ok(Loss::from(pool(handle)?.loss_of_frames(&target, above, &frames)?)))
}

/// What a group of this site did itself after `above`, up to `until`, as its log tells.
#[napi(ts_return_type = "Promise<Loss | Failure>")]
pub fn loss_of_log(env: &Env, handle: f64, target: String, above: BigInt, until: BigInt) -> napi::Result<Object<'_>> {
    let handle = convert::handle("pool", handle)?;
    let (above, until) = (convert::unsigned("above", &above)?, convert::unsigned("until", &until)?);
    in_thread(env, "loss-of-log", move || Ok(Loss::from(pool(handle)?.loss_of_log(&target, above, until)?)))
}
