//! Bulk bytes behind a cheap handle.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

/// An immutable run of bytes, cheap to clone and to cut. `Debug` shows length and digest, so
/// that a trace of events stays readable and comparable.
#[derive(Clone, Default)]
pub struct Chunk {
    data: Arc<Vec<u8>>,
    start: usize,
    end: usize,
}

impl Chunk {
    /// The part from `start` to `end`, without copying. Panics outside of the chunk.
    pub fn slice(&self, start: usize, end: usize) -> Chunk {
        assert!(start <= end && end <= self.len(), "a slice lies within its chunk");
        Chunk { data: Arc::clone(&self.data), start: self.start + start, end: self.start + end }
    }

    /// The memory behind the handle, if no other handle shares it: for a host that reads into
    /// the same buffer again. Its content is what the chunk was cut from.
    pub fn into_buffer(self) -> Option<Vec<u8>> {
        Arc::into_inner(self.data)
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(data: Vec<u8>) -> Chunk {
        let end = data.len();
        Chunk { data: Arc::new(data), start: 0, end }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }
}

impl PartialEq for Chunk {
    fn eq(&self, other: &Chunk) -> bool {
        **self == **other
    }
}

impl Eq for Chunk {}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest(self).fmt(f)
    }
}

/// Bytes that are shown by their length and digest.
pub(super) struct Digest<'a>(pub(super) &'a [u8]);

impl fmt::Debug for Digest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes, xxh32 {:08x}]", self.0.len(), xxhash_rust::xxh32::xxh32(self.0, 0))
    }
}
