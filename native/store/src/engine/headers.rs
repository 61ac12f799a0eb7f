//! Header streams of groups, and what is lost where one ends: see `group/headers.rs` and `replica/loss.rs`.

use super::Engine;
use crate::error::{Error, Result};
use crate::group::{Group, HeaderRequest};
use crate::past::path_of;
use crate::replica::loss::{Loss, Losses};
use holdfast_format::header::{HeaderFrame, chain_start};
use holdfast_format::limits::{HEADER_FRAME_BYTES_MAX, HEADER_FRAMES_MAX};
use holdfast_format::{BranchId, Lsn};
use std::collections::BTreeSet;

/// A frame of a stream, and what of it the next request needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeaderPart {
    pub bytes: Vec<u8>,
    pub frame: HeaderFrame,
}

/// A statement, with the paths of the files that it names, as far as this site knows them; empty: it does not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LossStatement {
    pub loss: Loss,
    pub paths: Vec<Vec<u8>>,
}

impl Engine {
    /// LSN of a group's newest op, durable or not.
    pub fn newest_lsn(&self, target: &str) -> Result<u64> {
        Ok(self.group_of(target)?.newest().0)
    }

    /// The next frame of a group's header stream; `None`: nothing is new.
    ///
    /// # Errors
    /// See [`Group::headers`].
    pub fn headers(&self, target: &str, request: &HeaderRequest) -> Result<Option<HeaderPart>> {
        let Some(bytes) = self.group_of(target)?.headers(request)? else { return Ok(None) };
        let frame = header_check(&bytes)?;
        Ok(Some(HeaderPart { bytes, frame }))
    }

    /// What this site did itself between two LSNs, as a statement of what would be lost with it: exact while its log reaches back.
    pub fn loss_of_log(&self, target: &str, above: u64, until: u64) -> Result<LossStatement> {
        let group = self.group_of(target)?;
        let mut losses = Losses::new(Lsn(above));
        group.add_losses(&mut losses, Lsn(until))?;
        statement(&group, &losses)
    }

    /// What a replica's owner did after the recovery point `above`, as its frames tell.
    ///
    /// # Errors
    /// `Corrupt`: the frames do not follow each other.
    pub fn loss_of_frames(&self, target: &str, above: u64, frames: &[Vec<u8>]) -> Result<LossStatement> {
        let group = self.group_of(target)?;
        statement(&group, &losses_of(above, frames)?)
    }
}

fn losses_of(above: u64, frames: &[Vec<u8>]) -> Result<Losses> {
    if frames.len() > HEADER_FRAMES_MAX {
        return Err(Error::invalid(format!("more than {HEADER_FRAMES_MAX} frames of headers")));
    }
    Losses::of_frames(Lsn(above), frames).map_err(broken)
}

fn broken(error: holdfast_format::DecodeError) -> Error {
    Error::decode("a frame of the header stream", error)
}

/// What a frame says of itself.
///
/// # Errors
/// `Corrupt`: it is none.
pub fn header_check(bytes: &[u8]) -> Result<HeaderFrame> {
    HeaderFrame::decode(bytes).map(|(frame, _)| frame).map_err(broken)
}

/// The chain that a stream of this lineage begins with at an LSN.
pub fn header_start(lineage: u64, first: u64) -> u64 {
    chain_start(lineage, Lsn(first))
}

/// Frames that follow each other as one summary, for who has no room for all of them. It ends as the last of them does.
pub fn headers_fold(above: u64, frames: &[Vec<u8>]) -> Result<Option<HeaderPart>> {
    let Some(last) = frames.last() else { return Ok(None) };
    let last = header_check(last)?;
    let losses = losses_of(above, frames)?;
    let first = Lsn((above + 1).min(last.last.0));
    let frame = HeaderFrame { first, previous: chain_start(last.lineage, first), ..last };
    let bytes = frame.encode_summary(&losses.summary(HEADER_FRAME_BYTES_MAX));
    let frame = header_check(&bytes)?;
    Ok(Some(HeaderPart { bytes, frame }))
}

fn statement(group: &Group, losses: &Losses) -> Result<LossStatement> {
    let volumes = group.volumes()?;
    let promised: BTreeSet<BranchId> =
        volumes.iter().filter(|(_, record)| record.ack == 1).map(|(branch, _)| *branch).collect();
    let loss = losses.report(&promised);
    let paths = loss.named.iter().map(|file| path_of(group, file.branch, file.ino).map(Option::unwrap_or_default));
    Ok(LossStatement { paths: paths.collect::<Result<_>>()?, loss })
}
