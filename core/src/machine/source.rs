//! What a machine asks of the database that it stands beside.
//!
//! The link has two SQLite connections, slots A and B. Each is one call; the machine orders them
//! (`../WAL-RULES.md` of the design papers is the law here). Every answer of an open link brings
//! the first 136 bytes of the wal-index with it, read after the call: shared memory costs nothing
//! to look at, and whatever the machine decides next it decides on what was committed then.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::Chunk;
use super::chunk::Digest;
use crate::ids::Txid;

/// The two header copies and the checkpoint information at the start of the wal-index.
pub const INDEX_BYTES: usize = 136;

/// One of the link's two connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Slot {
    /// The first, open as long as the link is.
    A,
    /// The second.
    B,
}

impl Slot {
    /// The other one.
    pub const fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }
}

/// A request to the source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceRequest {
    /// The files' facts by path, without opening any.
    Stat,
    /// The first 100 bytes of the database, by opening and closing it: only while no link is
    /// open, since closing a descriptor drops this process's locks on the file.
    ReadHeader,
    /// The newest segment in Litestream's own state directory beside the database.
    LitestreamHead,
    /// Open the link with both slots.
    Open,
    /// Close it. With `leave_wal` nothing is checkpointed or deleted.
    Close {
        /// Whether `-wal` and `-shm` are left as they are.
        leave_wal: bool,
    },
    /// Start a read transaction and take its snapshot.
    BeginRead(Slot),
    /// End it.
    EndRead(Slot),
    /// Take the write lock.
    BeginImmediate(Slot),
    /// Give it back; nothing was written.
    Rollback(Slot),
    /// Run a passive checkpoint.
    CheckpointPassive(Slot),
    /// Run a checkpoint that empties the WAL file if no reader is on a mark above zero.
    CheckpointTruncate(Slot),
    /// Only look at the wal-index.
    Look,
    /// Bytes of the WAL.
    ReadWal {
        /// From the start of the file.
        offset: u64,
        /// How many; fewer come where the file ends.
        len: u32,
        /// Whether the bytes were written a moment ago and so lie in memory: a host may then read
        /// them in place, since a thread would cost more than the read.
        recent: bool,
    },
    /// Parts of the WAL, one behind the other in the answer, which ends where the file does.
    ReadWalParts {
        /// Offset from the start of the file and length of each, in ascending order.
        parts: Vec<(u64, u32)>,
        /// As for `ReadWal`.
        recent: bool,
    },
    /// The pages of frames, as the wal-index has them: four bytes each, in the byte order of this
    /// machine. Zero, or fewer of them, where it has none.
    FramePages {
        /// The first frame, counted from 1.
        first: u32,
        /// How many.
        count: u32,
    },
    /// Bytes of the database file.
    ReadDatabase {
        /// From the start of the file.
        offset: u64,
        /// How many; fewer come where the file ends.
        len: u32,
        /// As for `ReadWal`: whether they are in memory, since the application used them a moment
        /// ago.
        recent: bool,
    },
    /// Whether the path still names the file that is open.
    HasMoved,
}

/// The answer to a [`SourceRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceReply {
    /// To `Stat`; `None` if there is no file.
    Facts(Option<Box<SourceFacts>>),
    /// To `ReadHeader`; shorter if the file is.
    Header(Vec<u8>),
    /// To `LitestreamHead`; `None` if there is none.
    Litestream(Option<LitestreamHead>),
    /// To `Close`.
    Closed,
    /// To everything that needs an open link.
    Link(LinkReply),
}

/// An answer from an open link.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkReply {
    /// The wal-index after the call; `None` while there is no shared memory.
    pub index: Option<Box<[u8; INDEX_BYTES]>>,
    /// To `ReadWal`, `ReadWalParts`, `FramePages` and `ReadDatabase`.
    pub bytes: Option<Chunk>,
    /// To `HasMoved`.
    pub moved: bool,
    /// To `Open`: whether SQLite could open the database for reading only.
    pub read_only: bool,
}

impl fmt::Debug for LinkReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LinkReply { index, bytes, moved, read_only } = self;
        f.debug_struct("LinkReply")
            .field("index", &index.as_ref().map(|index| Digest(&**index)))
            .field("bytes", bytes)
            .field("moved", moved)
            .field("read_only", read_only)
            .finish()
    }
}

impl fmt::Debug for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SourceError { kind, text, index } = self;
        f.debug_struct("SourceError")
            .field("kind", kind)
            .field("text", text)
            .field("index", &index.as_ref().map(|index| Digest(&**index)))
            .finish()
    }
}

/// A failed request.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceError {
    /// What to do about it.
    pub kind: SourceErrorKind,
    /// The cause, for people.
    pub text: String,
    /// The wal-index after the call, where the link is open.
    pub index: Option<Box<[u8; INDEX_BYTES]>>,
}

/// What the core will do about a failure of the source.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SourceErrorKind {
    /// Another connection holds a lock: try again soon.
    Busy,
    /// The file is not there.
    Missing,
    /// No permission.
    Denied,
    /// Not a database, or encrypted.
    NotADatabase,
    /// An input or output error, lack of descriptors or memory: let go and try again.
    Io,
}

/// The kind of filesystem that holds the source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Filesystem {
    /// One on which locks and shared memory work.
    Local,
    /// One on which they do not, by name.
    Remote(String),
}

/// The files of a database, by path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceFacts {
    /// Device of the database file.
    pub device: u64,
    /// Inode of the database file.
    pub inode: u64,
    /// Hard links to the database file.
    pub links: u64,
    /// Bytes of the database file.
    pub size: u64,
    /// Status-change time of the database file, nanoseconds since 1970.
    pub ctime_ns: i128,
    /// Now on the same clock as `ctime_ns`.
    pub now_ns: i128,
    /// A name of this boot of this machine.
    pub boot_id: String,
    /// Whether our user owns the database file or is root.
    pub owner: bool,
    /// Whether it is a regular file.
    pub regular: bool,
    /// Where it lies.
    pub filesystem: Filesystem,
    /// The `-wal` file, if there is one.
    pub wal: Option<WalFacts>,
    /// Whether there is a `-shm` file.
    pub shm: bool,
    /// Bytes of the `-journal` file, if there is one.
    pub journal: Option<u64>,
}

/// The `-wal` file, by path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalFacts {
    /// Its inode.
    pub inode: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Its time of modification, nanoseconds since 1970.
    pub mtime_ns: i128,
}

/// What stands for a sealed position: with everything captured and copied back into the
/// database under the write lock, the database file alone is the position.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealRecord {
    /// Device of the database file.
    pub device: u64,
    /// Inode of the database file.
    pub inode: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Its status-change time, nanoseconds since 1970.
    pub ctime_ns: i128,
    /// The boot in which that was seen.
    pub boot_id: String,
}

impl SealRecord {
    /// The record of these facts.
    pub fn of(facts: &SourceFacts) -> SealRecord {
        SealRecord {
            device: facts.device,
            inode: facts.inode,
            size: facts.size,
            ctime_ns: facts.ctime_ns,
            boot_id: facts.boot_id.clone(),
        }
    }
}

/// The newest level-0 segment in Litestream's own state beside the database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LitestreamHead {
    /// Its transaction.
    pub txid: Txid,
    /// Its first 100 bytes.
    pub header: Vec<u8>,
}
