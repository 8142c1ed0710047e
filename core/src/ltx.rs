//! LTX version 3, the segment format that Driftless shares with Litestream 0.5.
//!
//! A segment holds, for a range of transaction identifiers, the last content of each page that
//! changed, so that applying it to the state before `min` gives the state at `max`. One whose
//! range starts at 1 holds every page and stands alone. All numbers are big-endian:
//!
//! ```text
//! header        100 bytes                              LtxHeader
//! frames        page u32, flags u16, [size u32], LZ4   ascending page numbers; or zstd
//! end           six zero bytes
//! index         varints page, offset, size; a zero     PageIndex
//!               u64: bytes of the varints and the zero
//! trailer       post-apply checksum u64, file checksum u64
//! ```
//!
//! The file checksum runs over everything but itself, with one twist: of a frame it covers the
//! header and the *uncompressed* page. So it can be verified only by decoding, and it does not
//! depend on the compressor.
//!
//! Whole files: [`Encoder`] and [`Decoder`], both streaming and plain data. Single pages out of
//! the middle: [`PageIndex::decode_tail`] and [`decode_frame`].

mod decode;
mod encode;
mod error;
mod frame;
mod header;
mod index;
pub mod lz4frame;
mod name;
pub(crate) mod zstd;

pub use decode::{Decoder, Item};
pub use encode::Encoder;
pub(crate) use encode::snapshot_pages;
pub use error::{Expected, LtxError};
pub use frame::{END_BYTES, FRAME_FLAG_SIZE, decode_frame, frame_bytes_max};
pub use header::{Chain, HEADER_FLAG_NO_CHECKSUM, HEADER_FLAG_ZSTD, LTX_HEADER_BYTES, LtxHeader};
pub use index::{IndexEntry, PageIndex};
pub use name::{file_name, parse_file_name};
pub(crate) use zstd::packed_bytes;
pub use zstd::{
    Codec, DICTIONARY_BYTES_MAX, Dictionaries, Dictionary, DictionaryId, Packing, Unpacker, ZSTD_LEVEL,
    ZSTD_LEVELS,
};

use crate::bytes::be_u64;

/// Bytes in a trailer.
pub const TRAILER_BYTES: usize = 16;

/// The last 16 bytes of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// The database's checksum after the segment, or zero if the header says "no checksum".
    pub post_apply: u64,
    /// The checksum of the file.
    pub file_checksum: u64,
}

impl Trailer {
    /// Reads the fields; whether they hold is the [`Decoder`]'s business.
    pub fn decode(bytes: &[u8; TRAILER_BYTES]) -> Trailer {
        Trailer { post_apply: be_u64(bytes, 0), file_checksum: be_u64(bytes, 8) }
    }

    /// The trailer as it stands in the file.
    pub fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut bytes = [0; TRAILER_BYTES];
        bytes[..8].copy_from_slice(&self.post_apply.to_be_bytes());
        bytes[8..].copy_from_slice(&self.file_checksum.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests;
