//! For who reads the log while it is written.

use super::Log;
use holdfast_format::{EgroupId, Lsn};

/// A segment with frames.
#[derive(Clone, Copy, Debug)]
pub struct FramedSegment {
    pub egroup: EgroupId,
    /// Of its frames so far, which may be in flight still.
    pub last_lsn: Lsn,
    /// Before its first frame.
    pub chain_before: u64,
}

impl Log {
    /// Segments with frames, in the log's order, from the first one that may have `from`.
    pub fn framed_segments(&self, from: Lsn) -> Vec<FramedSegment> {
        let writer = self.writer.lock();
        let open = writer.open.iter().flatten().map(|open| &open.used);
        let framed = writer.done.iter().chain(open).filter(|used| used.has_frames && used.last_lsn >= from);
        framed
            .map(|used| FramedSegment { egroup: used.egroup, last_lsn: used.last_lsn, chain_before: used.chain_before })
            .collect()
    }
}
