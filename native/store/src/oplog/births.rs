//! What the pages of a log segment are: read from its frames, for cleaning and scrub, without any metadata.

use holdfast_format::egroup::Birth;
use holdfast_format::frame::FrameHeader;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::op::{Effect, Op, each_effect};
use holdfast_format::wire::Take;
use holdfast_format::{EgroupId, Stamp};

/// One payload page of a segment.
#[derive(Clone, Debug)]
pub struct PageBirth {
    pub page: u16,
    pub birth: Birth,
    pub checksum: u64,
}

/// Payload pages that lie in `egroup`, whose whole slot is `bytes` and whose incarnation is `incarnation`. Frames that do
/// not verify are passed over: their pages are then unknown, and the caller leaves them alone.
pub fn segment_births(egroup: EgroupId, incarnation: u64, bytes: &[u8]) -> Vec<PageBirth> {
    let mut births = Vec::new();
    let mut page = 0;
    let pages = bytes.len() / BLOCK_BYTES;
    while page < pages {
        let at = &bytes[page * BLOCK_BYTES..];
        let header = FrameHeader::decode(at).ok().filter(|header| header.incarnation == incarnation);
        let Some(header) = header else {
            page += 1;
            continue;
        };
        if let Ok(ops) = header.ops(at) {
            frame_births(egroup, &header, ops, &mut births);
        }
        page += header.pages();
    }
    births
}

fn frame_births(egroup: EgroupId, header: &FrameHeader, ops: &[u8], births: &mut Vec<PageBirth>) {
    let mut next: [u16; 3] = std::array::from_fn(|class| header.places[class].first_page);
    let mut take = Take::new(ops);
    while let Ok(op) = Op::take(&mut take) {
        if op.header.payload_pages == 0 {
            continue;
        }
        let class = op.header.payload_rf.clamp(1, 3) as usize - 1;
        let base = next[class];
        next[class] += op.header.payload_pages as u16;
        if header.places[class].egroup != egroup {
            continue;
        }
        let stamp = Stamp { lsn: op.header.lsn, row: op.header.row };
        // Effects of a verified op decode; a page that they do not name stays unknown.
        let _ = each_effect(op.effects, |effect| {
            if let Effect::Pages { ino, start_block, first_page, checksums, .. } = effect {
                for (at, sum) in checksums.chunks_exact(8).enumerate() {
                    let checksum = sum.iter().rev().fold(0u64, |value, byte| value << 8 | *byte as u64);
                    let birth = Birth {
                        group: header.group,
                        branch: op.header.branch,
                        ino,
                        block: start_block + at as u32,
                        stamp,
                    };
                    births.push(PageBirth { page: base + first_page + at as u16, birth, checksum });
                }
            }
        });
    }
}
