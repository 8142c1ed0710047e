//! Memory that goes round between the runs of a restore.

use alloc::vec::Vec;
use core::fmt;

use crate::machine::Chunk;

/// Memory that pages were written from, for the next ones: fresh memory is paid for page by page, and
/// filled with zeros before it is filled. Its content means nothing, nor whether it is there.
#[derive(Default)]
pub struct Room(Vec<u8>);

impl Room {
    /// The memory behind a chunk that nobody else holds.
    pub fn of(chunk: Chunk) -> Room {
        Room(chunk.into_buffer().unwrap_or_default())
    }

    /// A buffer that need not grow for so many bytes, with anything in it.
    pub(super) fn for_bytes(self, bytes: usize) -> Vec<u8> {
        if self.0.capacity() < bytes { Vec::with_capacity(bytes) } else { self.0 }
    }
}

impl Clone for Room {
    fn clone(&self) -> Room {
        Room::default()
    }
}

impl PartialEq for Room {
    fn eq(&self, _: &Room) -> bool {
        true
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[room]")
    }
}
