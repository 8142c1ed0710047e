//! What SQLite answered.
//!
//! A result code has two layers: a primary code that says what kind of trouble it is, and an
//! extended one that says where (`SQLITE_IOERR_SHORT_READ`). The core decides on the first and
//! prints the second, so both travel together and nothing here judges them.

use core::fmt;
use std::ffi::{CStr, c_int};

use rusqlite::ffi;

/// The kinds of failure that the core tells apart; everything else keeps its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Primary {
    /// Another connection holds a lock (`SQLITE_BUSY`).
    Busy,
    /// The same connection stands in the way, as in a checkpoint inside its own transaction
    /// (`SQLITE_LOCKED`).
    Locked,
    /// The file, its directory or its `-shm` cannot be written (`SQLITE_READONLY`).
    ReadOnly,
    /// The operating system failed to read, write, lock or map (`SQLITE_IOERR`).
    IoErr,
    /// The file does not start as a database does (`SQLITE_NOTADB`).
    NotADb,
    /// The file contradicts itself (`SQLITE_CORRUPT`).
    Corrupt,
    /// The file or one of its companions cannot be opened (`SQLITE_CANTOPEN`).
    CantOpen,
    /// The disk or the quota is exhausted (`SQLITE_FULL`).
    Full,
    /// Any other primary code.
    Other(i32),
}

/// A failed SQLite call: never `SQLITE_OK`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SqliteCode {
    /// The kind of failure.
    pub primary: Primary,
    /// The extended result code, whose low byte is the primary code.
    pub extended: i32,
}

/// What a transaction statement answered.
pub type OpResult = Result<(), SqliteCode>;

impl SqliteCode {
    /// Asked of a slot that is not open, or not ready for it (`SQLITE_MISUSE`).
    pub const MISUSE: SqliteCode =
        SqliteCode { primary: Primary::Other(ffi::SQLITE_MISUSE), extended: ffi::SQLITE_MISUSE };

    /// Sorts a raw result code.
    pub const fn from_raw(extended: c_int) -> SqliteCode {
        let primary = match extended & 0xff {
            ffi::SQLITE_BUSY => Primary::Busy,
            ffi::SQLITE_LOCKED => Primary::Locked,
            ffi::SQLITE_READONLY => Primary::ReadOnly,
            ffi::SQLITE_IOERR => Primary::IoErr,
            ffi::SQLITE_NOTADB => Primary::NotADb,
            ffi::SQLITE_CORRUPT => Primary::Corrupt,
            ffi::SQLITE_CANTOPEN => Primary::CantOpen,
            ffi::SQLITE_FULL => Primary::Full,
            other => Primary::Other(other),
        };
        SqliteCode { primary, extended }
    }

    /// `Ok` for `SQLITE_OK`, `SQLITE_ROW` and `SQLITE_DONE`.
    pub(super) const fn check(raw: c_int) -> OpResult {
        match raw {
            ffi::SQLITE_OK | ffi::SQLITE_ROW | ffi::SQLITE_DONE => Ok(()),
            failed => Err(SqliteCode::from_raw(failed)),
        }
    }

    /// SQLite's own words for the code.
    pub fn message(self) -> &'static str {
        // SAFETY: sqlite3_errstr returns a static, NUL-terminated string for every integer.
        let text = unsafe { CStr::from_ptr(ffi::sqlite3_errstr(self.extended)) };
        text.to_str().unwrap_or("unknown error")
    }
}

impl fmt::Debug for SqliteCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.primary, self.extended)
    }
}

impl fmt::Display for SqliteCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (sqlite code {})", self.message(), self.extended)
    }
}

impl core::error::Error for SqliteCode {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_low_byte_sorts_and_the_rest_is_kept() {
        let short = SqliteCode::from_raw(ffi::SQLITE_IOERR_SHORT_READ);
        assert_eq!(short.primary, Primary::IoErr);
        assert_eq!(short.extended, ffi::SQLITE_IOERR_SHORT_READ);
        assert_eq!(SqliteCode::from_raw(ffi::SQLITE_BUSY_SNAPSHOT).primary, Primary::Busy);
        assert_eq!(SqliteCode::check(ffi::SQLITE_ROW), Ok(()));
        assert_eq!(SqliteCode::MISUSE, SqliteCode::from_raw(21));
    }
}
