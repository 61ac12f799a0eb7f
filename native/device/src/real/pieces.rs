//! Large writes in pieces. A disk that has taken a large write answers nothing else for a while, and where its queue has a
//! fixed number of descriptors (virtio: 256, one a page) such a write fills it: then a read is not even begun before it
//! is over. Measured with 1 MiB frames of two copies: cold 4 KiB reads beside them waited 1 to 4 ms.

use super::file::SLICES_MAX;

/// Of one write in the disk's queue at a time. Two frames in flight with two copies each leave half of a queue of 256 pages.
pub(super) const PIECE_BYTES: usize = 128 << 10;

/// Cuts a list of vectors into pieces of [`PIECE_BYTES`].
pub(super) struct Pieces<'a> {
    rest: &'a [libc::iovec],
    /// Bytes of the first of the rest that went with the piece before.
    taken: usize,
    piece: Vec<libc::iovec>,
}

impl<'a> Pieces<'a> {
    pub fn new(vectors: &'a [libc::iovec]) -> Self {
        Self { rest: vectors, taken: 0, piece: Vec::new() }
    }

    /// The next piece, valid until the one after it; `None` after the last.
    pub fn next_piece(&mut self) -> Option<&[libc::iovec]> {
        self.piece.clear();
        let mut room = PIECE_BYTES;
        while let Some(first) = self.rest.first().filter(|_| room > 0 && self.piece.len() < SLICES_MAX) {
            let bytes = (first.iov_len - self.taken).min(room);
            if bytes > 0 {
                let base = first.iov_base.cast::<u8>().wrapping_add(self.taken).cast();
                self.piece.push(libc::iovec { iov_base: base, iov_len: bytes });
            }
            room -= bytes;
            self.taken += bytes;
            if self.taken == first.iov_len {
                (self.rest, self.taken) = (&self.rest[1..], 0);
            }
        }
        (!self.piece.is_empty()).then_some(&self.piece)
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::vectors;
    use super::*;

    #[test]
    fn pieces_are_the_whole_in_order() {
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES).map(|at| (at % 251) as u8).collect();
        let lists: [&[usize]; 5] =
            [&[], &[0], &[PIECE_BYTES], &[1, PIECE_BYTES, 0, 5, PIECE_BYTES * 2 - 6], &[PIECE_BYTES + 1, 1]];
        for lengths in lists {
            let mut at = 0;
            let slices: Vec<&[u8]> = lengths
                .iter()
                .map(|length| {
                    at += length;
                    &bytes[at - length..at]
                })
                .collect();
            let (list, mut seen, mut pieces) = (vectors(&slices), Vec::new(), 0);
            let mut cut = Pieces::new(&list);
            while let Some(piece) = cut.next_piece() {
                pieces += 1;
                let before = seen.len();
                for part in piece {
                    // SAFETY: a piece points into the slices, which live.
                    seen.extend_from_slice(unsafe { std::slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len) });
                }
                assert!(seen.len() - before <= PIECE_BYTES);
            }
            assert!(seen == bytes[..at], "{lengths:?}");
            assert_eq!(pieces, at.div_ceil(PIECE_BYTES), "{lengths:?}");
        }
    }
}
