//! A replica in a local directory: objects as files, exact create-if-absent, nothing shown that a
//! power cut could take back.
//!
//! Three losses shaped it:
//!
//! - *Two winners.* opendal's `fs` service looks for the file and then renames over it; in 100 of
//!   100 races several creators were told that they had won. Here the object is written beside its
//!   name and takes the name in one exclusive syscall (`renameat2` with `RENAME_NOREPLACE`, or a
//!   hard link), which the kernel decides.
//! - *An acknowledged segment that vanished.* A rename lives in the directory, and a directory
//!   that was not synced may forget it when power fails, as it may forget that its own
//!   subdirectories were ever made. A put is done only when the file, its directory and the path
//!   down to it are durable. If syncing the directory fails after the rename, the object is
//!   visible and may not last: `Ambiguous`.
//! - *A segment read back and believed, then gone.* A process dies between the rename and the
//!   sync; its successor finds the object and counts it as replicated. So before a directory's
//!   contents are shown for the first time, and again after anything in it went wrong, it is
//!   synced: what a get or a list has shown survives. (Objects that a rival process adds while this
//!   one runs are synced here once they refuse a put; until then they are the rival's to vouch for.)
//!
//! # What a put costs
//!
//! An object of one part, in a directory already in use: `stat` of the root, `create_new`,
//! `write_at`, `sync`, `rename_noreplace`, `sync_dir`; six calls of [`Fs`], nine syscalls (`statx`;
//! `openat`, `pwrite64`, `fsync`, `renameat2`; `openat`, `fsync`, `close` for the directory;
//! `close`) and each further part one more. The first put into a directory also makes and syncs
//! the path down to it: `create_dir` and `sync_dir` for each component below the root that is not
//! yet known, `stat` and `sync_dir` for a root that exists, two calls more for each component of
//! it that does not. Where the filesystem lacks the exclusive rename, a link and an unlink follow
//! the refused attempt.
//!
//! # Names
//!
//! An object's file is `<root>/<key>`, mode 0644 less the umask; directories 0777 less the umask.
//! An object being written is `.<name>.<process>-<n>.tmp` in the same directory, since a rename
//! does not cross filesystems and the levels may be mounted apart. Names that end in `.tmp` are
//! never shown and cannot be put: Litestream writes its own as `<name>.tmp`. Leftovers of killed
//! processes stay until [`DirectoryStore::sweep_temporaries`] is called. Empty directories stay.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use driftless_core::mutant::{self, Mutant};

use crate::fs::{Fs, FsError, FsErrorKind};
use crate::keys::Key;
use crate::store::{ByteRange, Capabilities, PART_BYTES_MAX, PutCondition, StoreError, StoreErrorKind};

#[cfg(feature = "host")]
mod host;
mod known;
mod listing;

use known::Known;

/// How many names of temporaries are tried before a put gives up: more than a crash-looping
/// container, in which every process has the same number, leaves between two sweeps.
const TEMPORARY_NAMES_MAX: u32 = 4096;

/// How many bytes of an object's name go into its temporary's, so that the whole stays within the
/// 255 bytes of a file name.
const TEMPORARY_STEM_BYTES_MAX: usize = 200;

/// A store in a directory. Clones share what is known about its directories.
///
/// The methods here are synchronous; with the `host` feature the type is also a
/// [`Store`](crate::store::Store) that runs each of them on the blocking pool.
pub struct DirectoryStore<F: Fs> {
    shared: Arc<Shared<F>>,
}

struct Shared<F> {
    fs: F,
    root: PathBuf,
    process: u32,
    temporaries: AtomicU64,
    known: Mutex<Known>,
    /// Device and inode of the root, once something was written below it.
    root_identity: Mutex<Option<(u64, u64)>>,
}

impl<F: Fs> Clone for DirectoryStore<F> {
    fn clone(&self) -> Self {
        DirectoryStore { shared: Arc::clone(&self.shared) }
    }
}

impl<F: Fs> fmt::Debug for DirectoryStore<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectoryStore({:?})", self.shared.root)
    }
}

/// An object being written to a [`DirectoryStore`].
///
/// Dropping it leaves its temporary in place, where nothing shows it; hand it to
/// [`DirectoryStore::put_abort`] to have it removed.
pub struct DirectoryPut<F: Fs> {
    key: Key,
    condition: PutCondition,
    file: F::File,
    temporary: PathBuf,
    written: u64,
    failed: bool,
}

/// An object, or a part of one, being read from a [`DirectoryStore`].
pub struct DirectoryGet<F: Fs> {
    key: Key,
    file: F::File,
    object_len: u64,
    at: u64,
    end: u64,
}

impl<F: Fs> fmt::Debug for DirectoryPut<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectoryPut({:?}, {} bytes)", self.key, self.written)
    }
}

impl<F: Fs> fmt::Debug for DirectoryGet<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectoryGet({:?}, {}..{} of {})", self.key, self.at, self.end, self.object_len)
    }
}

impl<F: Fs> DirectoryGet<F> {
    /// The length of the whole object in bytes.
    pub fn object_len(&self) -> u64 {
        self.object_len
    }

    /// Bytes of the range not yet read.
    pub fn remaining(&self) -> u64 {
        self.end - self.at
    }
}

impl<F: Fs> DirectoryStore<F> {
    /// A store below `root`, which the first put makes where it is missing. Touches nothing yet.
    ///
    /// `process` goes into the names of temporaries, so that people can tell whose they are; it
    /// need not be unique, for the names are taken exclusively.
    pub fn new(fs: F, root: impl Into<PathBuf>, process: u32) -> DirectoryStore<F> {
        let (temporaries, known, root_identity) = (AtomicU64::new(0), Mutex::default(), Mutex::default());
        let shared = Shared { fs, root: root.into(), process, temporaries, known, root_identity };
        DirectoryStore { shared: Arc::new(shared) }
    }

    /// The directory that holds everything.
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    /// Exact creation, and modification times; no swap.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities { create_if_absent: true, swap: false, modified: true }
    }

    /// Begins an object: makes the directories, durably, and creates the temporary.
    ///
    /// `Misconfigured` for a name that ends in `.tmp`. `Retry` where a directory below the root was
    /// removed meanwhile, which the next attempt makes again, and where the root is gone or is
    /// another directory, which stays so until someone brings it back.
    pub fn put_begin(&self, key: &Key, condition: PutCondition) -> Result<DirectoryPut<F>, StoreError> {
        if key.as_str().split('/').any(is_reserved) {
            let cause = "names that end in \".tmp\" are kept for files being written";
            return Err(StoreError::new(StoreErrorKind::Misconfigured, key, cause));
        }
        if let PutCondition::Matches(_) = condition {
            return Err(StoreError::new(
                StoreErrorKind::Unsupported,
                key,
                "a directory compares no versions",
            ));
        }
        self.check_root(key)?;
        self.make_directory(key.directory()).map_err(|e| store_error(key, e))?;
        self.note_root(key)?;
        let (file, temporary) = self.create_temporary(key)?;
        Ok(DirectoryPut { key: key.clone(), condition, file, temporary, written: 0, failed: false })
    }

    /// Adds bytes, at most [`PART_BYTES_MAX`]; panics on more. After an error the object can only
    /// be aborted.
    pub fn put_write(&self, put: &mut DirectoryPut<F>, chunk: &[u8]) -> Result<(), StoreError> {
        assert!(chunk.len() <= PART_BYTES_MAX, "a part holds at most {PART_BYTES_MAX} bytes");
        if chunk.is_empty() {
            return Ok(());
        }
        let written = self.shared.fs.write_at(&put.file, chunk, put.written);
        put.failed |= written.is_err();
        put.written += chunk.len() as u64;
        written.map_err(|e| store_error(&put.key, e))
    }

    /// Makes the object durable under its name. `AlreadyExists` if the name is taken; `Ambiguous`
    /// if the rename's fate is unknown or the directory could not be synced after it; any other
    /// kind means that the object does not exist and its temporary is removed if possible.
    pub fn put_commit(&self, put: DirectoryPut<F>) -> Result<(), StoreError> {
        if put.failed {
            self.remove_temporary(&put.temporary);
            let cause = "a part of it could not be written";
            return Err(StoreError::new(StoreErrorKind::Retry, &put.key, cause));
        }
        let synced = if mutant::on(Mutant::FileUnsynced) { Ok(()) } else { self.shared.fs.sync(&put.file) };
        if let Err(e) = synced {
            self.remove_temporary(&put.temporary);
            return Err(store_error(&put.key, e));
        }
        self.take_name(&put)?;
        self.sync_names(put.key.directory()).map_err(|e| {
            let cause = format!("in place, but its directory could not be synced: {e}");
            StoreError::new(StoreErrorKind::Ambiguous, &put.key, cause)
        })
    }

    /// Gives an object up and removes its temporary.
    pub fn put_abort(&self, put: DirectoryPut<F>) -> Result<(), StoreError> {
        match self.shared.fs.remove(&put.temporary) {
            Err(e) if e.kind != FsErrorKind::NotFound => Err(store_error(&put.key, e)),
            _ => Ok(()),
        }
    }

    /// Opens an object, or a part of it, after making sure that its name is durable.
    pub fn get(&self, key: &Key, range: ByteRange) -> Result<DirectoryGet<F>, StoreError> {
        let absent = || StoreError::new(StoreErrorKind::NotFound, key, "");
        if key.as_str().split('/').any(is_reserved) {
            return Err(absent());
        }
        let opened = self
            .settle(key.directory())
            .and_then(|()| self.shared.fs.open_read(&self.path(key.as_str())))
            .and_then(|file| self.shared.fs.len(&file).map(|len| (file, len)));
        match opened {
            Ok((file, object_len)) => {
                let (at, end) = range.within(object_len);
                Ok(DirectoryGet { key: key.clone(), file, object_len, at, end })
            }
            // A directory of that name, or a file where the key has a directory: no such object.
            Err(e) if matches!(e.kind, FsErrorKind::NotFound | FsErrorKind::BadPath) => Err(absent()),
            Err(e) => Err(store_error(key, e)),
        }
    }

    /// The next bytes, 1 to [`PART_BYTES_MAX`]; `None` at the end of the range. `Corrupt` if the
    /// file has become shorter than it was when it was opened.
    pub fn get_next(&self, get: &mut DirectoryGet<F>) -> Result<Option<Vec<u8>>, StoreError> {
        if get.at == get.end {
            return Ok(None);
        }
        let want = usize::try_from(get.end - get.at).unwrap_or(usize::MAX).min(PART_BYTES_MAX);
        let chunk = self.shared.fs.read_new(&get.file, want, get.at).map_err(|e| store_error(&get.key, e))?;
        if chunk.is_empty() {
            let cause = format!("ends at byte {} of the {} it had when opened", get.at, get.object_len);
            return Err(StoreError::new(StoreErrorKind::Corrupt, &get.key, cause));
        }
        get.at += chunk.len() as u64;
        Ok(Some(chunk))
    }

    /// Removes an object; succeeds where there is none. The directory is not synced: a power cut
    /// may bring the object back whole, as the contract allows.
    pub fn delete(&self, key: &Key) -> Result<(), StoreError> {
        if key.as_str().split('/').any(is_reserved) {
            return Ok(());
        }
        match self.shared.fs.remove(&self.path(key.as_str())) {
            Err(e) if !matches!(e.kind, FsErrorKind::NotFound | FsErrorKind::BadPath) => {
                Err(store_error(key, e))
            }
            _ => Ok(()),
        }
    }

    /// Refuses to write below a root that is not the one written to before.
    ///
    /// An unmounted filesystem leaves an empty mount point behind. Were it taken for the replica,
    /// the next segments would land there, and once it is mounted again the history would have a
    /// hole that nobody was told of. So the root is made once in the life of a store, and from
    /// then on must stay the same directory.
    fn check_root(&self, key: &Key) -> Result<(), StoreError> {
        let identity = *self.shared.root_identity.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = identity else { return Ok(()) };
        let cause = match self.shared.fs.stat(&self.shared.root) {
            Ok(found) if (found.dev, found.ino) == known => return Ok(()),
            Ok(_) => "the replica's directory is not the one that was written to before",
            Err(e) if e.kind == FsErrorKind::NotFound => "the replica's directory is gone",
            Err(e) => return Err(store_error(key, e)),
        };
        self.known().forget_all();
        let hint = "mount or move it back; if it was removed on purpose, restart to begin a new history";
        Err(StoreError::new(StoreErrorKind::Retry, key, cause).with_hint(hint))
    }

    fn note_root(&self, key: &Key) -> Result<(), StoreError> {
        let mut identity = self.shared.root_identity.lock().unwrap_or_else(PoisonError::into_inner);
        if identity.is_none() {
            let found = self.shared.fs.stat(&self.shared.root).map_err(|e| store_error(key, e))?;
            *identity = Some((found.dev, found.ino));
        }
        Ok(())
    }

    fn path(&self, key: &str) -> PathBuf {
        if key.is_empty() { self.shared.root.clone() } else { self.shared.root.join(key) }
    }

    fn create_temporary(&self, key: &Key) -> Result<(F::File, PathBuf), StoreError> {
        let directory = self.path(key.directory());
        let stem = key.name();
        let stem = &stem[..stem.floor_char_boundary(TEMPORARY_STEM_BYTES_MAX)];
        for _ in 0..TEMPORARY_NAMES_MAX {
            let n = self.shared.temporaries.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!(".{stem}.{}-{n}.tmp", self.shared.process));
            match self.shared.fs.create_new(&path) {
                Ok(file) => return Ok((file, path)),
                Err(e) if e.kind == FsErrorKind::Exists => {}
                Err(e) => {
                    if e.kind == FsErrorKind::NotFound {
                        // Removed behind our back. Trust nothing about it or those above it.
                        self.known().forget_all();
                    }
                    return Err(store_error(key, e));
                }
            }
        }
        let cause = format!("{TEMPORARY_NAMES_MAX} leftover temporaries stand in the way");
        Err(StoreError::new(StoreErrorKind::Retry, key, cause))
    }

    /// Moves the temporary to the object's name, or says why not.
    fn take_name(&self, put: &DirectoryPut<F>) -> Result<(), StoreError> {
        let target = self.path(put.key.as_str());
        let renamed = match put.condition {
            PutCondition::IfAbsent if mutant::on(Mutant::RenameReplaces) => {
                self.shared.fs.rename(&put.temporary, &target)
            }
            PutCondition::IfAbsent => self.shared.fs.rename_noreplace(&put.temporary, &target),
            PutCondition::Always => self.shared.fs.rename(&put.temporary, &target),
            PutCondition::Matches(_) => unreachable!("refused when the put began"),
        };
        let Err(e) = renamed else { return Ok(()) };
        // Had the rename taken place after all, then not under this name any more: removing it
        // cannot hurt the object.
        self.remove_temporary(&put.temporary);
        // Whoever holds the name may have died before syncing it, so it is synced before it is
        // shown.
        self.known().unsettle(put.key.directory());
        match e.kind {
            FsErrorKind::Exists => Err(StoreError::new(StoreErrorKind::AlreadyExists, &put.key, "")),
            FsErrorKind::Io => Err(StoreError::new(StoreErrorKind::Ambiguous, &put.key, e.to_string())),
            FsErrorKind::NotFound => {
                self.known().forget_all();
                Err(store_error(&put.key, e))
            }
            _ => Err(store_error(&put.key, e)),
        }
    }

    /// Best effort: a leftover is hidden and swept some day, while the put's own outcome matters
    /// now.
    fn remove_temporary(&self, path: &Path) {
        let _ = self.shared.fs.remove(path);
    }
}

/// Whether a component is kept for files being written, ours or Litestream's.
fn is_reserved(component: &str) -> bool {
    component.ends_with(".tmp")
}

/// What a failure that certainly had no effect means to the core.
fn store_error(subject: impl fmt::Display, error: FsError) -> StoreError {
    let (kind, hint) = match error.kind {
        // Objects that are absent are dealt with where they are looked for: here it is a directory
        // or a temporary that someone removed.
        FsErrorKind::NotFound => {
            (StoreErrorKind::Retry, Some("something removes files from the replica's directory"))
        }
        FsErrorKind::Exists | FsErrorKind::Io => (StoreErrorKind::Retry, None),
        FsErrorKind::NoSpace => {
            (StoreErrorKind::NoSpace, Some("free some space or quota on the replica's filesystem"))
        }
        FsErrorKind::PermissionDenied => {
            (StoreErrorKind::Denied, Some("give this user read and write access to the replica's directory"))
        }
        FsErrorKind::TooManyFiles => {
            (StoreErrorKind::Retry, Some("raise the limit of open files (ulimit -n)"))
        }
        FsErrorKind::BadPath => (
            StoreErrorKind::Misconfigured,
            Some("a file stands where the replica needs a directory, or the reverse"),
        ),
        FsErrorKind::Unsupported => (
            StoreErrorKind::Unsupported,
            Some("keep the replica on a filesystem with exclusive renames or hard links"),
        ),
    };
    let error = StoreError::new(kind, subject, error.to_string());
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
