//! The header of the wal-index (`-shm`): the one authority on what is committed.
//!
//! SQLite keeps two copies of a 48-byte header and writes the second before the first, so a
//! reader that sees equal copies with a good checksum has seen one state. Behind them stands
//! the checkpoint information, which is updated field by field and covered by no checksum.
//!
//! The wal-index is shared memory and never travels: its numbers are in the byte order of this
//! machine. Only the salts are bytes copied from the WAL header.

use core::fmt;

use super::{Salts, WAL_VERSION, WalChecksum};
use crate::ids::PageSize;
use crate::mutant::{self, Mutant};

/// Bytes that [`WalIndex::parse`] looks at: both headers and the checkpoint information.
pub const INDEX_BYTES: usize = 136;

/// A read mark that no reader uses.
pub const READ_MARK_UNUSED: u32 = u32::MAX;

/// One copy of the header.
const COPY_BYTES: usize = 48;

/// What its checksum covers.
const SUMMED_BYTES: usize = 40;

/// A wal-index header whose two copies agree, with the checkpoint information behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalIndex {
    /// Grows with each transaction.
    pub change: u32,
    /// Always true: [`WalIndex::parse`] refuses an index that is not initialised.
    pub is_init: bool,
    /// Whether the WAL's checksums sum big-endian words.
    pub big_endian_checksums: bool,
    /// The database's page size (65,536 stands as 1); `None` after the recovery of an empty WAL,
    /// which leaves it zero until the first commit.
    pub page_size: Option<PageSize>,
    /// The last committed frame (`mxFrame`), counted from 1; 0 if the WAL holds none.
    pub mx_frame: u32,
    /// The size of the database in pages (`nPage`).
    pub pages: u32,
    /// The running checksum of the WAL at `mx_frame` (`aFrameCksum`).
    pub frame_checksum: WalChecksum,
    /// The salts of the WAL's current generation (`aSalt`).
    pub salts: Salts,
    /// Frames that checkpoints have copied into the database (`nBackfill`).
    pub n_backfill: u32,
    /// The last frame that each of the five reader slots may need; [`READ_MARK_UNUSED`] if none.
    /// Slot 0 is always 0: its readers use the database file alone.
    pub read_marks: [u32; 5],
    /// Frames that a checkpoint has begun to copy (`nBackfillAttempted`).
    pub n_backfill_attempted: u32,
}

impl WalIndex {
    /// Reads the start of the `-shm` file, taken in one copy.
    ///
    /// # Errors
    /// [`Torn`](WalIndexError::Torn) calls for another try; the others for SQLite, which
    /// recovers the index when it next opens the database.
    pub fn parse(bytes: &[u8; INDEX_BYTES]) -> Result<WalIndex, WalIndexError> {
        let (copy, other) = (&bytes[..COPY_BYTES], &bytes[COPY_BYTES..2 * COPY_BYTES]);
        if copy != other {
            return Err(WalIndexError::Torn);
        }
        if copy[12] == 0 {
            return Err(WalIndexError::NotInitialised);
        }
        let found = WalChecksum(native_u32(copy, 40), native_u32(copy, 44));
        let expected = WalChecksum::default().update(&copy[..SUMMED_BYTES], cfg!(target_endian = "big"));
        if found != expected {
            return Err(WalIndexError::BadChecksum { expected, found });
        }
        let version = native_u32(copy, 0);
        if version != WAL_VERSION {
            return Err(WalIndexError::BadVersion { found: version });
        }
        let raw_page_size = u16::from_ne_bytes([copy[14], copy[15]]);
        let page_size = PageSize::from_u16(raw_page_size);
        let empty = raw_page_size == 0 && native_u32(copy, 16) == 0;
        if page_size.is_none() && (!empty || mutant::on(Mutant::IndexPageSizeZero)) {
            return Err(WalIndexError::BadPageSize { found: raw_page_size });
        }
        Ok(WalIndex {
            change: native_u32(copy, 8),
            is_init: true,
            big_endian_checksums: copy[13] != 0,
            page_size,
            mx_frame: native_u32(copy, 16),
            pages: native_u32(copy, 20),
            frame_checksum: WalChecksum(native_u32(copy, 24), native_u32(copy, 28)),
            salts: Salts::read(copy, 32),
            n_backfill: native_u32(bytes, 96),
            read_marks: core::array::from_fn(|slot| native_u32(bytes, 100 + 4 * slot)),
            // Between them: eight bytes that exist to be locked and are never read.
            n_backfill_attempted: native_u32(bytes, 128),
        })
    }

    /// The index as SQLite on this machine would hold it, checksum computed. For the
    /// simulator's model writer and for tests.
    pub fn encode(&self) -> [u8; INDEX_BYTES] {
        let mut bytes = [0; INDEX_BYTES];
        let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        put(0, WAL_VERSION);
        put(8, self.change);
        put(16, self.mx_frame);
        put(20, self.pages);
        put(24, self.frame_checksum.0);
        put(28, self.frame_checksum.1);
        put(96, self.n_backfill);
        for (slot, mark) in self.read_marks.iter().enumerate() {
            put(100 + 4 * slot, *mark);
        }
        put(128, self.n_backfill_attempted);
        bytes[12] = u8::from(self.is_init);
        bytes[13] = u8::from(self.big_endian_checksums);
        let raw_page_size = self.page_size.map_or(0, |size| u16::try_from(size.get()).unwrap_or(1));
        bytes[14..16].copy_from_slice(&raw_page_size.to_ne_bytes());
        bytes[32..40].copy_from_slice(&self.salts.to_bytes());
        let sum = WalChecksum::default().update(&bytes[..SUMMED_BYTES], cfg!(target_endian = "big"));
        bytes[40..44].copy_from_slice(&sum.0.to_ne_bytes());
        bytes[44..48].copy_from_slice(&sum.1.to_ne_bytes());
        bytes.copy_within(..COPY_BYTES, COPY_BYTES);
        bytes
    }
}

/// Why the wal-index says nothing for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalIndexError {
    /// The copies differ: a writer is between them, or died there. Try again.
    Torn,
    /// Not initialised, probably all zeros: nobody has opened the WAL yet.
    NotInitialised,
    /// Equal copies with a wrong checksum.
    BadChecksum {
        /// Computed.
        expected: WalChecksum,
        /// Stored.
        found: WalChecksum,
    },
    /// A version of the wal-index that does not exist yet.
    BadVersion {
        /// The version there.
        found: u32,
    },
    /// The page size is not one of SQLite's eight.
    BadPageSize {
        /// The two-byte form, in which 1 is 65,536.
        found: u16,
    },
}

impl fmt::Display for WalIndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalIndexError::Torn => f.write_str("wal-index: the two header copies differ"),
            WalIndexError::NotInitialised => f.write_str("wal-index, byte 12: not initialised"),
            WalIndexError::BadChecksum { expected: e, found } => write!(
                f,
                "wal-index, byte 40: expected checksum {:08x} {:08x}, found {:08x} {:08x}",
                e.0, e.1, found.0, found.1
            ),
            WalIndexError::BadVersion { found } => {
                write!(f, "wal-index, byte 0: expected version {WAL_VERSION}, found {found}")
            }
            WalIndexError::BadPageSize { found } => {
                write!(f, "wal-index, byte 14: expected a page size of 1 or 512 to 32768, found {found}")
            }
        }
    }
}

impl core::error::Error for WalIndexError {}

/// A number of the wal-index, in this machine's byte order.
fn native_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
