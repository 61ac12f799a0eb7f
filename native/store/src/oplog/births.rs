//! What the pages of a log segment are: read from its frames, for cleaning and scrub, without any metadata.

use crate::mutants::mutant;
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
    each_frame(incarnation, bytes, &mut |_, header, ops| {
        frame_births(header, ops, &mut |of, birth| {
            if of == egroup {
                births.push(birth);
            }
        });
    });
    births
}

/// Calls `visit` for every frame, and every head of payload, of a segment whose header and ops verify: first page, header, ops.
pub fn each_frame(incarnation: u64, bytes: &[u8], visit: &mut dyn FnMut(usize, &FrameHeader, &[u8])) {
    let mut page = 0;
    let pages = bytes.len() / BLOCK_BYTES;
    while page < pages {
        let at = &bytes[page * BLOCK_BYTES..];
        let header = FrameHeader::decode_any(at).ok().filter(|header| header.incarnation == incarnation || mutant!(NameWithoutStamp));
        let Some((header, ops)) = header.and_then(|header| header.ops(at).ok().map(|ops| (header.clone(), ops))) else {
            page += 1;
            continue;
        };
        visit(page, &header, ops);
        page += header.pages();
    }
}

/// Payload pages that a frame names, with the egroup that each lies in.
pub fn frame_births(header: &FrameHeader, ops: &[u8], visit: &mut dyn FnMut(EgroupId, PageBirth)) {
    let mut next: [u16; 3] = std::array::from_fn(|class| header.places[class].first_page);
    let mut take = Take::new(ops);
    while let Ok(op) = Op::take(&mut take) {
        if op.header.payload_pages == 0 {
            continue;
        }
        let class = op.header.payload_rf.clamp(1, 3) as usize - 1;
        let base = next[class];
        next[class] += op.header.payload_pages as u16;
        let egroup = header.places[class].egroup;
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
                    visit(egroup, PageBirth { page: base + first_page + at as u16, birth, checksum });
                }
            }
        });
    }
}
