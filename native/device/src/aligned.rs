//! Memory that direct I/O takes without a copy.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// What addresses, offsets and lengths must be multiples of for direct I/O; no disk asks for more.
pub const DIRECT_ALIGNMENT: usize = 4096;

/// A buffer of fixed length on a 4096-byte boundary, zeroed at birth.
pub struct AlignedBuffer {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the buffer owns its memory alone, like a boxed slice.
unsafe impl Send for AlignedBuffer {}
// SAFETY: shared access gives `&[u8]` only.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes.max(1), DIRECT_ALIGNMENT).expect("length of a buffer in memory")
    }

    pub fn zeroed(bytes: usize) -> Self {
        let layout = Self::layout(bytes);
        // SAFETY: the layout's size is not 0.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, bytes }
    }

    /// The slices, one after the other.
    pub fn gather(slices: &[&[u8]]) -> Self {
        let mut buffer = Self::zeroed(slices.iter().map(|slice| slice.len()).sum());
        let mut at = 0;
        for slice in slices {
            buffer[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
        buffer
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points to `bytes` initialised bytes that live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.bytes)) }
    }
}
