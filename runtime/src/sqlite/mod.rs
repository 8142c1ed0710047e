//! Standing beside SQLite: the attachment to a live database, and the look at one from outside.
//!
//! Nothing here decides. A [`Link`] holds one or two connections and offers leaf operations, each
//! of which answers what happened; the seal, the moving of pins, the order of checkpoints and the
//! proof of continuity are machines in the core. [`probe`] tells what is known of a database before
//! SQLite may open it. `registry` keeps the two apart: whoever opens a database file by other means
//! than SQLite drops SQLite's locks when he closes it.
//!
//! # Which descriptor reads what
//!
//! Slot A serves all reads, through SQLite's own descriptors. It knows the WAL, and so
//! [`Link::read_wal`], [`Link::read_index`], [`Link::probe_readers`] and checkpoints work, from its
//! first [`Link::begin_read`] or [`Link::begin_immediate`] until it closes; before that they answer
//! that there is nothing, and create nothing. The same holds for checkpoints through slot B.
//!
//! # What it costs
//!
//! Measured with SQLite 3.54.1 on Linux 6.18, 300 links, the same with 1 table and with 300:
//!
//! | link | heap | shared memory | descriptors |
//! |---|---|---|---|
//! | A open, nothing read | 16 KB | | 1 |
//! | A with a pin | 24 KB | 32 KB | 3 |
//! | A and B, both used | 49 KB | 32 KB | 5 |
//! | A, after B was open for a while, one link after the other | 26 KB | 32 KB | 4 |
//!
//! The fourth descriptor is slot B's on the database: SQLite keeps it while A holds a lock, and
//! B's next opening takes it up again. Of the heap, 6.5 KB a connection are what FTS, R-tree
//! and dbstat register when it opens.
//!
//! | operation | system calls |
//! |---|---|
//! | open A / first `begin_read` beside a live application / close | 11 / 23 / 8 |
//! | `begin_read` after new commits | 4 (mark taken, set, shared; page 1 read) |
//! | `end_read` | 1 |
//! | either, while the other slot reads at the same mark | 0 (0.4 µs for both) |
//! | `read_index` | 0 (70 ns) |
//! | `read_wal`, `read_pages`, of any length | 1; 2 to 4 for a short read |
//! | `begin_immediate` / `rollback` after new commits | 5 / 2 |
//! | `probe_readers` | 2; 0 when one of our slots reads at a mark above 0 |
//! | `has_moved` | 1 |
//! | `facts` | 15 |
//! | `checkpoint_passive` with nothing to do | 2 |
//!
//! A first `begin_read` after everyone died recovers the wal-index: one read a frame.

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
