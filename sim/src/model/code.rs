//! What a call of the model answers when it does not succeed.

use crate::ring0::sqlite::{SqlError, SqlErrorKind};
use crate::vfs::{VfsFault, VfsOp};

/// The answers of SQLite that the model knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Code {
    /// `SQLITE_BUSY`.
    Busy,
    /// `SQLITE_LOCKED`.
    Locked,
    /// `SQLITE_IOERR` of an operation.
    Io(VfsOp),
    /// `SQLITE_FULL`.
    Full,
    /// `SQLITE_CANTOPEN`.
    CantOpen,
    /// `SQLITE_NOTADB`.
    NotADb,
    /// `SQLITE_CORRUPT`.
    Corrupt,
    /// `SQLITE_PROTOCOL`.
    Protocol,
    /// `SQLITE_ERROR`, with its message.
    Error(&'static str),
}

impl Code {
    /// The answer of an operation that a fault befell.
    pub(super) fn of_fault(fault: VfsFault, op: VfsOp) -> Code {
        match fault {
            VfsFault::Full => Code::Full,
            VfsFault::Busy => Code::Busy,
            VfsFault::Io | VfsFault::Die if op == VfsOp::Open => Code::CantOpen,
            VfsFault::Io | VfsFault::Die => Code::Io(op),
        }
    }

    pub(super) fn text(self) -> String {
        match self {
            Code::Busy => "database is locked".into(),
            Code::Locked => "database table is locked".into(),
            Code::Io(op) => format!("disk I/O error in {op:?}"),
            Code::Full => "database or disk is full".into(),
            Code::CantOpen => "unable to open database file".into(),
            Code::NotADb => "file is not a database".into(),
            Code::Corrupt => "database disk image is malformed".into(),
            Code::Protocol => "locking protocol".into(),
            Code::Error(text) => text.into(),
        }
    }
}

impl From<Code> for SqlError {
    fn from(code: Code) -> SqlError {
        let kind = match code {
            Code::Busy | Code::Locked => SqlErrorKind::Busy,
            Code::Io(_) => SqlErrorKind::Io,
            _ => SqlErrorKind::Other,
        };
        SqlError { kind, text: code.text() }
    }
}
