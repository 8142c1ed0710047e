//! Small objects that are replaced, beside the segments that never are.
//!
//! A cell is written whole, under a condition that the store decides. What is learnt from them
//! (whether the store keeps its conditions) and agreed by them (who holds a lease) is the core's.

use alloc::string::String;

use super::Chunk;

/// A request about a cell. Names are relative to the replica's root and as keys of objects are:
/// components separated by `/`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CellRequest {
    /// Give the cell this content.
    Write {
        /// Its name.
        cell: String,
        /// All of it.
        bytes: Chunk,
        /// When it takes effect; refused as `AlreadyExists` otherwise.
        condition: CellCondition,
    },
    /// What does it hold, and in which version?
    Read {
        /// Its name.
        cell: String,
    },
    /// Remove it; an absent one is no error.
    Remove {
        /// Its name.
        cell: String,
    },
}

/// When a cell may be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CellCondition {
    /// If there is none of the name.
    Absent,
    /// If it is still in this version.
    Version(String),
}

/// The answer to a [`CellRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CellReply {
    /// To `Write`.
    Written {
        /// What `Read` would name; `None` if the store does not say, and a read has to ask.
        version: Option<String>,
    },
    /// To `Remove`.
    Done,
    /// To `Read`.
    Content {
        /// All of it.
        bytes: Chunk,
        /// For [`CellCondition::Version`]; `None` if the store names no versions.
        version: Option<String>,
    },
}
