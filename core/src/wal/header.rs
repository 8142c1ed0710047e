//! The first 32 bytes of a WAL.
//!
//! All fields are big-endian, also when the checksums sum little-endian words: the lowest bit
//! of the magic number tells only the latter.

use core::fmt;

use super::WalChecksum;
use crate::bytes::be_u32;
use crate::ids::PageSize;

/// Bytes in a WAL header.
pub const WAL_HEADER_BYTES: usize = 32;

/// The only format version there is.
pub const WAL_VERSION: u32 = 3_007_000;

/// The magic number with its lowest bit clear; set, it means big-endian checksums.
const MAGIC: u32 = 0x377f_0682;

/// The two numbers that tell one generation of a WAL from the next: salt-1 grows by one and
/// salt-2 is drawn anew whenever the WAL restarts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Salts {
    /// Salt-1: incremented at each restart.
    pub one: u32,
    /// Salt-2: random at each restart.
    pub two: u32,
}

impl Salts {
    /// Reads the eight bytes at `at`, in the order of the WAL header.
    pub(crate) fn read(bytes: &[u8], at: usize) -> Salts {
        Salts { one: be_u32(bytes, at), two: be_u32(bytes, at + 4) }
    }

    pub(crate) fn to_bytes(self) -> [u8; 8] {
        (u64::from(self.one) << 32 | u64::from(self.two)).to_be_bytes()
    }
}

/// A WAL header whose checksum holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalHeader {
    /// Whether checksums sum big-endian words (magic 0x377f0683) or little-endian (0x377f0682).
    pub big_endian_checksums: bool,
    /// The database's page size.
    pub page_size: PageSize,
    /// The checkpoint sequence number. SQLite keeps it per connection and it may go backwards:
    /// it proves nothing.
    pub sequence: u32,
    /// The generation that valid frames repeat.
    pub salts: Salts,
    /// The checksum of the header, with which the one of the first frame starts.
    pub checksum: WalChecksum,
}

impl WalHeader {
    /// A header with the checksum that its fields call for.
    pub fn new(page_size: PageSize, sequence: u32, salts: Salts, big_endian_checksums: bool) -> WalHeader {
        let checksum = WalChecksum::default();
        let mut header = WalHeader { big_endian_checksums, page_size, sequence, salts, checksum };
        header.checksum = checksum.update(&header.encode()[..24], big_endian_checksums);
        header
    }

    /// Reads the header at the start of a WAL. Bytes beyond the 32nd are ignored.
    ///
    /// # Errors
    /// In the order in which SQLite looks: too short, magic number, page size, checksum, version.
    pub fn decode(bytes: &[u8]) -> Result<WalHeader, WalHeaderError> {
        if bytes.len() < WAL_HEADER_BYTES {
            return Err(WalHeaderError::Short { found: bytes.len() });
        }
        let magic = be_u32(bytes, 0);
        if magic & !1 != MAGIC {
            return Err(WalHeaderError::NotAWal { found: magic });
        }
        let big_endian_checksums = magic & 1 == 1;
        let raw_page_size = be_u32(bytes, 8);
        let page_size =
            PageSize::new(raw_page_size).ok_or(WalHeaderError::BadPageSize { found: raw_page_size })?;
        let checksum = WalChecksum(be_u32(bytes, 24), be_u32(bytes, 28));
        let expected = WalChecksum::default().update(&bytes[..24], big_endian_checksums);
        if checksum != expected {
            return Err(WalHeaderError::BadChecksum { expected, found: checksum });
        }
        let version = be_u32(bytes, 4);
        if version != WAL_VERSION {
            return Err(WalHeaderError::BadVersion { found: version });
        }
        Ok(WalHeader {
            big_endian_checksums,
            page_size,
            sequence: be_u32(bytes, 12),
            salts: Salts::read(bytes, 16),
            checksum,
        })
    }

    /// The header as it stands in the file, with the checksum field as it is.
    pub fn encode(&self) -> [u8; WAL_HEADER_BYTES] {
        let mut bytes = [0; WAL_HEADER_BYTES];
        let magic = MAGIC | u32::from(self.big_endian_checksums);
        bytes[0..4].copy_from_slice(&magic.to_be_bytes());
        bytes[4..8].copy_from_slice(&WAL_VERSION.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.page_size.get().to_be_bytes());
        bytes[12..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.salts.to_bytes());
        bytes[24..32].copy_from_slice(&self.checksum.to_bytes());
        bytes
    }
}

/// Why bytes are not the header of a WAL. SQLite takes all but [`BadVersion`] for a WAL without
/// frames: a crash while the header was written leaves such bytes.
///
/// [`BadVersion`]: WalHeaderError::BadVersion
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalHeaderError {
    /// Fewer than 32 bytes.
    Short {
        /// Bytes given.
        found: usize,
    },
    /// The magic number is neither 0x377f0682 nor 0x377f0683.
    NotAWal {
        /// The number there.
        found: u32,
    },
    /// The page size is not one of SQLite's eight.
    BadPageSize {
        /// Bytes.
        found: u32,
    },
    /// The checksum of the first 24 bytes is not the one stored.
    BadChecksum {
        /// Computed.
        expected: WalChecksum,
        /// Stored.
        found: WalChecksum,
    },
    /// A sound header of a format that does not exist yet.
    BadVersion {
        /// The version there.
        found: u32,
    },
}

impl fmt::Display for WalHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalHeaderError::Short { found } => {
                write!(f, "wal header: expected {WAL_HEADER_BYTES} bytes, found {found}")
            }
            WalHeaderError::NotAWal { found } => {
                write!(
                    f,
                    "wal header, byte 0: expected magic {MAGIC:#x} or {:#x}, found {found:#x}",
                    MAGIC | 1
                )
            }
            WalHeaderError::BadPageSize { found } => {
                write!(f, "wal header, byte 8: expected a page size of 512 to 65536, found {found}")
            }
            WalHeaderError::BadChecksum { expected: e, found } => {
                write!(
                    f,
                    "wal header, byte 24: expected checksum {:08x} {:08x}, found {:08x} {:08x}",
                    e.0, e.1, found.0, found.1
                )
            }
            WalHeaderError::BadVersion { found } => {
                write!(f, "wal header, byte 4: expected version {WAL_VERSION}, found {found}")
            }
        }
    }
}

impl core::error::Error for WalHeaderError {}
