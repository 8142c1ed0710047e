//! The seam under everything that orders syscalls for durability.
//!
//! The directory store, the position journal, the spool and the restore output are correct only
//! if writes, syncs and renames reach the disk in an order that survives a power cut. No test on
//! a real disk can show that, because a real disk almost never cuts the power between two
//! syscalls. So all of them run over [`Fs`], which the simulator implements with writes that stay
//! volatile until synced, sectors that tear, renames that vanish and syncs that fail once and then
//! claim to be clean. Each method is one leaf: one effect, one place to crash before and after.
//!
//! Two traps shaped the signatures:
//!
//! - *A name is durable only when its directory has been synced.* A process killed between
//!   `mkdir` and the sync leaves a directory that its successor finds in place and would trust.
//!   "It was there already" is therefore no reason to skip the sync:
//!   [`Fs::create_dir_all`] syncs the parent of what it finds as well as of what it makes.
//! - *`pwrite` on a descriptor opened with `O_APPEND` appends on Linux, whatever its offset.* So a
//!   file is opened for appending or for writing at offsets, and [`Fs::write_at`] refuses the
//!   former.
//!
//! Methods are synchronous: hosts run them on a blocking pool, the simulator calls them directly.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use driftless_core::ids::Wall;

mod real;

pub use real::{RealFile, RealFs};

/// A filesystem. Paths may be absolute or relative to the implementation's idea of a current
/// directory; paths to be opened follow symbolic links.
///
/// Every method may also fail with [`FsErrorKind::Io`] and, where it opens something, with
/// [`FsErrorKind::TooManyFiles`] and [`FsErrorKind::PermissionDenied`]; docs name the rest.
pub trait Fs {
    /// An open file; dropping it closes it.
    type File;

    /// Opens an existing regular file for reading. `NotFound`; `BadPath` for a directory.
    fn open_read(&self, path: &Path) -> Result<Self::File, FsError>;

    /// Creates a file that must not exist (`O_EXCL`) for reading and writing at offsets, with mode
    /// 0644 less the umask. `Exists`, `NotFound` (no such directory), `NoSpace`.
    ///
    /// The name is durable only after [`Fs::sync_dir`] on its directory.
    fn create_new(&self, path: &Path) -> Result<Self::File, FsError>;

    /// Opens a file for reading and writing at offsets; creates an empty one where there is none,
    /// with mode 0644 less the umask. `NotFound` (no such directory), `NoSpace`.
    ///
    /// Sync the directory before relying on the name, even of a file that was there.
    fn open_write_or_create(&self, path: &Path) -> Result<Self::File, FsError>;

    /// Opens a file for reading and for [`Fs::append`]; creates an empty one where there is none,
    /// with mode 0644 less the umask. `NotFound` (no such directory), `NoSpace`.
    ///
    /// Sync the directory before relying on the name, even of a file that was there.
    fn open_append_or_create(&self, path: &Path) -> Result<Self::File, FsError>;

    /// Reads up to `buf.len()` bytes from `offset` and returns how many. May return fewer than
    /// asked for anywhere; returns 0 only at or past the end, or for an empty `buf`.
    fn read_at(&self, file: &Self::File, buf: &mut [u8], offset: u64) -> Result<usize, FsError>;

    /// Reads up to `len` bytes from `offset` into memory of its own; fewer as by [`Fs::read_at`].
    fn read_new(&self, file: &Self::File, len: usize, offset: u64) -> Result<Vec<u8>, FsError> {
        let mut bytes = vec![0; len];
        let read = self.read_at(file, &mut bytes, offset)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Writes all of `data` at `offset`, extending the file with zeros if it ends before. After
    /// an error (`NoSpace` among others) any part of it may have been written. Panics on a file
    /// opened for appending.
    fn write_at(&self, file: &Self::File, data: &[u8], offset: u64) -> Result<(), FsError>;

    /// Writes all of `data` at the end of a file opened with [`Fs::open_append_or_create`]. After
    /// an error a torn piece of it may stand at the end. Panics on other files.
    fn append(&self, file: &Self::File, data: &[u8]) -> Result<(), FsError>;

    /// Cuts the file to `bytes`, or extends it with zeros.
    fn set_len(&self, file: &Self::File, bytes: u64) -> Result<(), FsError>;

    /// The length in bytes.
    fn len(&self, file: &Self::File) -> Result<u64, FsError>;

    /// Makes data and length durable (`fsync`). After an error the data must be taken as lost:
    /// Linux drops the failed pages and answers the next call with success.
    fn sync(&self, file: &Self::File) -> Result<(), FsError>;

    /// Makes the names in a directory durable. Succeeds on filesystems that have no such notion
    /// (`EINVAL`) and on read-only ones. `NotFound`.
    fn sync_dir(&self, dir: &Path) -> Result<(), FsError>;

    /// Renames, replacing what stands at `to`, atomically. `NotFound`, `NoSpace`.
    ///
    /// Durable only after [`Fs::sync_dir`] on the directory of `to` (and on that of `from`, where
    /// it matters that the old name is gone).
    fn rename(&self, from: &Path, to: &Path) -> Result<(), FsError>;

    /// Renames unless something stands at `to`; of several concurrent callers exactly one
    /// succeeds. `Exists`, `NotFound`, `NoSpace`; `Unsupported` where the filesystem offers
    /// neither an exclusive rename nor hard links.
    ///
    /// Where it must be done with a hard link, a crash halfway leaves both names on one file.
    fn rename_noreplace(&self, from: &Path, to: &Path) -> Result<(), FsError>;

    /// Gives an existing file a second name. `Exists`, `NotFound`, `NoSpace`, `Unsupported`.
    fn hard_link(&self, existing: &Path, new: &Path) -> Result<(), FsError>;

    /// Removes the name of a file. `NotFound`; `BadPath` for a directory. Until the directory is
    /// synced the name may come back after a power cut.
    fn remove(&self, path: &Path) -> Result<(), FsError>;

    /// Makes one directory, with mode 0777 less the umask. `Exists` (whatever stands there),
    /// `NotFound` (no such parent), `NoSpace`.
    fn create_dir(&self, path: &Path) -> Result<(), FsError>;

    /// What a directory holds, in no particular order, without `.` and `..`. `NotFound`;
    /// `BadPath` if it is no directory.
    fn list_dir(&self, dir: &Path) -> Result<Vec<DirEntry>, FsError>;

    /// Facts about what stands at a path. `NotFound`.
    fn stat(&self, path: &Path) -> Result<FileFacts, FsError>;

    /// Makes a directory and the missing ones above it, each durable before the next is begun:
    /// on success the path survives a power cut, whoever made its last component.
    ///
    /// Nothing is made inside a directory before that directory's own name is synced. So when a
    /// process dies halfway, only the deepest directory can be unsynced, and that is the one whose
    /// parent is synced here although it is found in place. To try `mkdir` first and look upwards
    /// only when it fails would be shorter, and lost acknowledged objects in the crash test: it
    /// succeeds inside a directory that the dead process had not yet synced.
    fn create_dir_all(&self, path: &Path) -> Result<(), FsError> {
        let Some(parent) = parent_of(path) else { return Ok(()) };
        match self.stat(path) {
            Ok(_) => match self.sync_dir(parent) {
                // A parent that we may pass but not read belongs to someone else, who set this up.
                Err(e) if e.kind == FsErrorKind::PermissionDenied => Ok(()),
                synced => synced,
            },
            Err(e) if e.kind == FsErrorKind::NotFound => {
                self.create_dir_all(parent)?;
                match self.create_dir(path) {
                    Err(e) if e.kind != FsErrorKind::Exists => Err(e),
                    _ => self.sync_dir(parent),
                }
            }
            Err(e) => Err(e),
        }
    }
}

/// The directory that holds `path`'s name: `.` for a bare name, `None` for a root or nothing.
fn parent_of(path: &Path) -> Option<&Path> {
    if path.as_os_str().is_empty() {
        return None;
    }
    path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p })
}

/// What kind of thing a name leads to, after following symbolic links.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A device, a socket, a dangling link.
    Other,
}

/// One name in a directory. Lengths are not here: a listing that shows a thousand of a hundred
/// thousand names should not look into each; ask [`Fs::stat`] for those that matter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// The last component alone; not necessarily UTF-8.
    pub name: OsString,
    /// What it leads to.
    pub kind: FileKind,
}

/// Facts about a file at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileFacts {
    /// What it is.
    pub kind: FileKind,
    /// Length in bytes; means nothing unless `kind` is `File`.
    pub len: u64,
    /// Last modification of the data, by the filesystem's wall clock.
    pub modified: Wall,
    /// The device, with `ino` the identity of the file as long as it is open or named.
    pub dev: u64,
    /// The inode number; reused after deletion.
    pub ino: u64,
}

/// What went wrong, as far as a caller acts on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FsErrorKind {
    /// The file, or a directory on the way to it, is not there.
    NotFound,
    /// Something stands at the name already.
    Exists,
    /// No space or no quota; passes when someone makes room.
    NoSpace,
    /// Not permitted to this user, or the filesystem is read-only.
    PermissionDenied,
    /// The process or the system has no descriptors left; passes.
    TooManyFiles,
    /// The path cannot name a file here: a component is a file, the name is a directory, too long,
    /// or a loop of links.
    BadPath,
    /// This filesystem cannot do it at all.
    Unsupported,
    /// Anything else, a device error above all. Whether the effect took place is unknown.
    Io,
}

impl fmt::Display for FsErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FsErrorKind::NotFound => "not found",
            FsErrorKind::Exists => "exists already",
            FsErrorKind::NoSpace => "no space left",
            FsErrorKind::PermissionDenied => "permission denied",
            FsErrorKind::TooManyFiles => "too many open files",
            FsErrorKind::BadPath => "not a usable path",
            FsErrorKind::Unsupported => "not supported by this filesystem",
            FsErrorKind::Io => "input/output error",
        })
    }
}

/// A failed filesystem operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FsError {
    /// For programs.
    pub kind: FsErrorKind,
    /// The path that the operation was about.
    pub path: PathBuf,
    /// The system's own words, for people; may be empty.
    pub text: String,
}

impl FsError {
    /// An error of `kind` at `path` with the system's own words.
    pub fn new(kind: FsErrorKind, path: &Path, text: impl Into<String>) -> FsError {
        FsError { kind, path: path.to_path_buf(), text: text.into() }
    }

    /// Sorts an error of the standard library.
    pub fn from_io(path: &Path, error: &io::Error) -> FsError {
        FsError::new(kind_of(error), path, error.to_string().to_lowercase())
    }
}

impl fmt::Display for FsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if self.text.is_empty() { write!(f, "{}", self.kind) } else { f.write_str(&self.text) }
    }
}

impl std::error::Error for FsError {}

fn kind_of(error: &io::Error) -> FsErrorKind {
    use rustix::io::Errno;
    let Some(errno) = Errno::from_io_error(error) else {
        return match error.kind() {
            // A path with a NUL inside, refused before it reached the kernel.
            io::ErrorKind::InvalidInput => FsErrorKind::BadPath,
            _ => FsErrorKind::Io,
        };
    };
    match errno {
        Errno::NOENT => FsErrorKind::NotFound,
        Errno::EXIST => FsErrorKind::Exists,
        Errno::NOSPC | Errno::DQUOT => FsErrorKind::NoSpace,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => FsErrorKind::PermissionDenied,
        Errno::MFILE | Errno::NFILE => FsErrorKind::TooManyFiles,
        Errno::NOTDIR | Errno::ISDIR | Errno::NAMETOOLONG | Errno::LOOP => FsErrorKind::BadPath,
        Errno::OPNOTSUPP | Errno::NOSYS => FsErrorKind::Unsupported,
        _ => FsErrorKind::Io,
    }
}
