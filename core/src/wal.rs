//! SQLite's write-ahead log, as a reader beside SQLite sees it.
//!
//! A WAL file holds a 32-byte [header](WalHeader) and then frames, each a 24-byte
//! [frame header](FrameHeader) and one page. Nothing in the file says where it ends: frames of
//! an earlier generation may lie behind the last valid one, a transaction may be half written,
//! and a commit frame may belong to a transaction that SQLite never finished (the application
//! died in its fsync). Two rules make a prefix trustworthy:
//!
//! - each frame carries the header's salts and a checksum that runs over the header and all
//!   frames before it ([`Scanner`]);
//! - only frames up to `mxFrame` of the [wal-index](WalIndex) are committed, and the running
//!   checksum there must equal its `aFrameCksum`.
//!
//! Of many frames only those are read that hold the newest image of their page ([`Newest`]).
//!
//! The layout is SQLite's: <https://sqlite.org/fileformat2.html#walformat> for the file and
//! <https://sqlite.org/walformat.html> for the wal-index.

mod checksum;
mod frame;
mod header;
mod index;
mod newest;
mod scan;

pub use checksum::WalChecksum;
pub use frame::{FRAME_HEADER_BYTES, FrameHeader, frame_bytes, frame_offset};
pub use header::{Salts, WAL_HEADER_BYTES, WAL_VERSION, WalHeader, WalHeaderError};
pub use index::{INDEX_BYTES, READ_MARK_UNUSED, WalIndex, WalIndexError};
pub use newest::Newest;
pub use scan::{ScanStop, Scanner, WalPosition};

#[cfg(test)]
mod tests;
