//! Standing beside SQLite: the attachment to a live database, and the look at one from outside.
//!
//! Nothing here decides. A [`Link`] holds one or two connections and offers leaf operations; the
//! seal, the moving of pins and the proof of continuity are machines in the core.
pub mod code;
mod connection;
mod file;
mod link;
pub mod probe;
mod process;
mod registry;

pub use code::{OpResult, Primary, SqliteCode};
pub use connection::{CheckpointCounts, SlotMemory, TxnState};
pub use file::INDEX_HEADER_BYTES;
pub use link::{Close, IndexRead, Link, LinkError, LinkOptions, Slot};
pub use process::{ProcessSetup, SQLITE_VERSION_MIN, set_up_process};
pub use registry::{FileId, is_claimed};
