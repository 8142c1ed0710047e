//! What a machine asks of a database that follows its replica.
//!
//! The copy is written through SQLite alone, page by page inside one transaction, so that readers in
//! other processes see one committed state or the next. Beside it stands a small file with the
//! position, which the machine fills and proves.

use alloc::string::String;
use alloc::vec::Vec;

use super::Chunk;
use crate::ids::PageNo;

/// A request to the copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CopyRequest {
    /// Tell what stands there, without opening it.
    Look,
    /// Replace the position file by these bytes, atomically and durably.
    Save(Chunk),
    /// Open the database, in WAL mode from then on.
    Open,
    /// Pages that follow one another, of one state.
    Read {
        /// The first.
        first: PageNo,
        /// How many; all of them lie within the database.
        count: u32,
    },
    /// Begin a transaction that writes.
    Begin,
    /// Write pages in the open transaction.
    Write(Vec<(PageNo, Chunk)>),
    /// Write page 1, if there is a new one, and have the commit cut the database, if it is shorter than
    /// before the transaction. The last of a transaction's writes.
    Finish {
        /// Page 1.
        first: Option<Chunk>,
        /// To how many pages to cut it.
        cut: Option<u32>,
    },
    /// Commit the transaction, durably.
    Commit,
    /// Take the open transaction back, if there is one, and close the database.
    Close,
}

/// The answer to a [`CopyRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CopyReply {
    /// To `Look`.
    Found {
        /// Whether there is a file in the database's place.
        database: bool,
        /// The position file, if there is one.
        position: Option<Chunk>,
    },
    /// To `Open`.
    Opened {
        /// Bytes of a page.
        page_size: u32,
        /// Pages of the database.
        pages: u32,
        /// Changes when another connection has written.
        version: u32,
    },
    /// To `Read`.
    Pages(Chunk),
    /// To `Begin`: the version, as at `Open`.
    Begun(u32),
    /// To the others.
    Done,
}

/// A failed request; the text is for people.
pub type CopyError = String;
