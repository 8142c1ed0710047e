//! What a disk is like, what can be done to it, and what can go wrong.

use super::file::Changes;

/// What a disk is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// The device number that `stat` reports.
    pub dev: u64,
    /// Change times are multiples of this; default 4 ms, a kernel tick at 250 Hz.
    pub ctime_granularity_ns: u64,
    /// Give a new file the smallest free inode number; default true.
    pub reuse_inodes: bool,
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self { dev: 0x801, ctime_granularity_ns: 4_000_000, reuse_inodes: true }
    }
}

/// The operation that a fault hook is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the system call of that name")]
pub enum DiskOp {
    Open,
    Create,
    CreateDir,
    Read,
    Write,
    SetLen,
    Sync,
    SyncDir,
    Rename,
    Link,
    Unlink,
    List,
    Stat,
}

/// What a fault hook may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// The operation fails with EIO and has no effect; unsynced data stays unsynced.
    Eio,
    /// The operation fails with ENOSPC and has no effect.
    Enospc,
    /// The operation fails with EDQUOT and has no effect.
    Edquot,
    /// The operation fails with EMFILE and has no effect.
    Emfile,
    /// Half of the write happens, and its count is returned.
    ShortWrite,
    /// Half of the read happens, and its count is returned.
    ShortRead,
    /// The sync of a file or directory reports success and stores nothing; a later one may.
    SyncLies,
    /// The sync fails with EIO and the unsynced data counts as clean from now on: the next
    /// sync succeeds without storing it.
    SyncEioThenClean,
    /// The read answers from the last synced content.
    StaleRead,
    /// One bit of what is read is another; `at` says which, from the start of the answer and around.
    Rot {
        /// A number of bits.
        at: u64,
    },
    /// The write lands this far away from where it should, and reports success.
    Misdirect {
        /// Distance in bytes.
        delta: i64,
    },
}

/// Something that power loss may take away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced<'a> {
    /// One sector's part of one unsynced write.
    Sector {
        /// A current or durable name of the file.
        path: &'a str,
        /// Where the part begins, in bytes.
        offset: u64,
    },
    /// An unsynced truncation or extension.
    SetLen {
        /// A current or durable name of the file.
        path: &'a str,
        /// The length it set, in bytes.
        len: u64,
    },
    /// An unsynced change of names; `path` appears, disappears or is replaced.
    Name {
        /// The first path concerned; for a rename, the new one.
        path: &'a str,
        /// Whether the change is a rename, which also removes another name.
        rename: bool,
    },
}

/// The content of a file.
#[derive(Clone, Copy)]
pub struct Content<'a> {
    /// Tells the file from every other, before and after, whatever its inode number. Damage makes
    /// it another file.
    pub birth: u64,
    /// Tells the content from every other, before and after.
    pub version: u64,
    /// The bytes.
    pub bytes: &'a [u8],
    pub(super) changes: &'a Changes,
}

impl Content<'_> {
    /// From which offset on the file has changed since it had this version, or an offset before
    /// that; the highest number if it has not.
    pub fn changed_since(&self, version: u64) -> u64 {
        self.changes.since(version)
    }
}

/// What `stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Device number.
    pub dev: u64,
    /// Inode number; 2 for every directory.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Last change of content or names, in simulated wall time.
    pub ctime_ns: u64,
    /// Last change of content, in simulated wall time.
    pub mtime_ns: u64,
    /// How many names it has.
    pub nlink: u32,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Decides about faults: the operation and the path it concerns.
pub type FaultHook = dyn Fn(DiskOp, &str) -> Option<DiskFault> + Send + Sync;
