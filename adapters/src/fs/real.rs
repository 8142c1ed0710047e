//! The machine's own filesystem.
//!
//! Descriptors are close-on-exec throughout (the standard library sets it): the application that
//! `-exec` starts must not inherit the replica's files. Errors carry the path, because "no such
//! file" without one has cost more evenings than any other message.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use driftless_core::ids::Wall;
use rustix::io::Errno;

use super::{DirEntry, FileFacts, FileKind, Fs, FsError, FsErrorKind};

/// Permissions of new files before the umask.
const FILE_MODE: u32 = 0o644;

/// The real filesystem. Holds nothing; copies are the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

/// An open file of [`RealFs`]. Knows its path for errors only: the file may have been renamed
/// since.
#[derive(Debug)]
pub struct RealFile {
    file: File,
    path: PathBuf,
    appends: bool,
}

impl RealFile {
    fn error(&self, error: &io::Error) -> FsError {
        FsError::from_io(&self.path, error)
    }
}

/// For what the seam does not have, such as locks.
impl AsFd for RealFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open(path: &Path, options: &OpenOptions, appends: bool) -> Result<RealFile, FsError> {
    let file = options.open(path).map_err(|e| FsError::from_io(path, &e))?;
    Ok(RealFile { file, path: path.to_path_buf(), appends })
}

impl Fs for RealFs {
    type File = RealFile;

    fn open_read(&self, path: &Path) -> Result<RealFile, FsError> {
        let file = open(path, OpenOptions::new().read(true), false)?;
        // Linux opens a directory for reading and only fails the reads.
        let meta = file.file.metadata().map_err(|e| file.error(&e))?;
        if meta.is_dir() {
            return Err(FsError::new(FsErrorKind::BadPath, path, "is a directory"));
        }
        Ok(file)
    }

    fn create_new(&self, path: &Path) -> Result<RealFile, FsError> {
        open(path, OpenOptions::new().read(true).write(true).create_new(true).mode(FILE_MODE), false)
    }

    fn open_write_or_create(&self, path: &Path) -> Result<RealFile, FsError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        open(path, &options, false)
    }

    fn open_append_or_create(&self, path: &Path) -> Result<RealFile, FsError> {
        open(path, OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE), true)
    }

    fn read_at(&self, file: &RealFile, buf: &mut [u8], offset: u64) -> Result<usize, FsError> {
        loop {
            match file.file.read_at(buf, offset) {
                Ok(n) => return Ok(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(file.error(&e)),
            }
        }
    }

    /// Into memory that nobody has filled with zeros before: where much is read that took a twentieth of
    /// all processor time.
    fn read_new(&self, file: &RealFile, len: usize, offset: u64) -> Result<Vec<u8>, FsError> {
        let mut bytes = Vec::with_capacity(len);
        loop {
            match rustix::io::pread(&file.file, rustix::buffer::spare_capacity(&mut bytes), offset) {
                Ok(_) => {
                    bytes.truncate(len);
                    return Ok(bytes);
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(file.error(&e.into())),
            }
        }
    }

    fn write_at(&self, file: &RealFile, data: &[u8], offset: u64) -> Result<(), FsError> {
        assert!(!file.appends, "a file opened for appending takes no writes at offsets");
        file.file.write_all_at(data, offset).map_err(|e| file.error(&e))
    }

    fn append(&self, file: &RealFile, data: &[u8]) -> Result<(), FsError> {
        assert!(file.appends, "only a file opened for appending can be appended to");
        (&file.file).write_all(data).map_err(|e| file.error(&e))
    }

    fn set_len(&self, file: &RealFile, bytes: u64) -> Result<(), FsError> {
        file.file.set_len(bytes).map_err(|e| file.error(&e))
    }

    fn len(&self, file: &RealFile) -> Result<u64, FsError> {
        Ok(file.file.metadata().map_err(|e| file.error(&e))?.len())
    }

    fn sync(&self, file: &RealFile) -> Result<(), FsError> {
        file.file.sync_all().map_err(|e| file.error(&e))
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), FsError> {
        let handle = open(dir, OpenOptions::new().read(true), false)?;
        match handle.file.sync_all() {
            Ok(()) => Ok(()),
            Err(e) => match Errno::from_io_error(&e) {
                // No notion of syncing a directory, or nothing that could be unsynced.
                Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::ROFS) => Ok(()),
                _ => Err(handle.error(&e)),
            },
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FsError> {
        fs::rename(from, to).map_err(|e| FsError::from_io(to, &e))
    }

    fn rename_noreplace(&self, from: &Path, to: &Path) -> Result<(), FsError> {
        match rename_exclusive(from, to) {
            // The filesystem (NFS, some FUSE) or the kernel does not know the flag.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => rename_by_link(self, from, to),
            Err(e) => Err(FsError::from_io(to, &e.into())),
            Ok(()) => Ok(()),
        }
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> Result<(), FsError> {
        fs::hard_link(existing, new).map_err(|e| match Errno::from_io_error(&e) {
            // FAT and its like answer "not permitted"; the file is our own, so it means "cannot".
            Some(Errno::PERM) => {
                FsError::new(FsErrorKind::Unsupported, new, "no hard links on this filesystem")
            }
            _ => FsError::from_io(new, &e),
        })
    }

    fn remove(&self, path: &Path) -> Result<(), FsError> {
        fs::remove_file(path).map_err(|e| FsError::from_io(path, &e))
    }

    fn create_dir(&self, path: &Path) -> Result<(), FsError> {
        fs::create_dir(path).map_err(|e| FsError::from_io(path, &e))
    }

    fn list_dir(&self, dir: &Path) -> Result<Vec<DirEntry>, FsError> {
        let error = |e: io::Error| FsError::from_io(dir, &e);
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir).map_err(error)? {
            let entry = entry.map_err(error)?;
            let mut kind = entry.file_type().map_err(error)?;
            if kind.is_symlink() {
                // A level moved to another disk is still a level; a dangling link is no file.
                kind = fs::metadata(entry.path()).map_or(kind, |m| m.file_type());
            }
            entries.push(DirEntry { name: entry.file_name(), kind: file_kind(kind) });
        }
        Ok(entries)
    }

    fn stat(&self, path: &Path) -> Result<FileFacts, FsError> {
        let meta = fs::metadata(path).map_err(|e| FsError::from_io(path, &e))?;
        Ok(FileFacts {
            kind: file_kind(meta.file_type()),
            len: meta.len(),
            modified: Wall(meta.mtime().saturating_mul(1000).saturating_add(meta.mtime_nsec() / 1_000_000)),
            dev: meta.dev(),
            ino: meta.ino(),
        })
    }
}

fn file_kind(kind: fs::FileType) -> FileKind {
    if kind.is_file() {
        FileKind::File
    } else if kind.is_dir() {
        FileKind::Dir
    } else {
        FileKind::Other
    }
}

#[cfg(target_os = "linux")]
fn rename_exclusive(from: &Path, to: &Path) -> Result<(), Errno> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
}

#[cfg(not(target_os = "linux"))]
fn rename_exclusive(_from: &Path, _to: &Path) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// Exclusive renaming with what NFS and older kernels have.
fn rename_by_link(fs: &RealFs, from: &Path, to: &Path) -> Result<(), FsError> {
    match fs.hard_link(from, to) {
        Ok(()) => {}
        // NFS sends a request again when the answer is lost, and the repetition finds the link
        // that the first one made. One inode under both names means that it was ours.
        Err(e) if e.kind == FsErrorKind::Exists => {
            let (a, b) = (fs.stat(from)?, fs.stat(to)?);
            if (a.dev, a.ino) != (b.dev, b.ino) {
                return Err(e);
            }
        }
        Err(e) => return Err(e),
    }
    // The new name stands; a leftover old one is untidy and no failure.
    let _ = fs.remove(from);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("driftless-fs-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn both_exclusive_renames_refuse_what_stands_and_move_what_may() {
        let dir = scratch("noreplace");
        type Rename = fn(&RealFs, &Path, &Path) -> Result<(), FsError>;
        let ways: [(&str, Rename); 2] = [("flag", RealFs::rename_noreplace), ("link", rename_by_link)];
        for (name, rename) in ways {
            let (from, to) = (dir.join(format!("{name}-from")), dir.join(format!("{name}-to")));
            fs::write(&from, "new").unwrap();
            fs::write(&to, "old").unwrap();
            let refused = rename(&RealFs, &from, &to).unwrap_err();
            assert_eq!(refused.kind, FsErrorKind::Exists, "{name}: {refused}");
            assert_eq!(fs::read(&to).unwrap(), b"old");
            fs::remove_file(&to).unwrap();
            rename(&RealFs, &from, &to).unwrap();
            assert_eq!(fs::read(&to).unwrap(), b"new");
            assert!(!from.exists());
        }
        // A link whose answer was lost, sent again.
        let (from, to) = (dir.join("again-from"), dir.join("again-to"));
        fs::write(&from, "ours").unwrap();
        fs::hard_link(&from, &to).unwrap();
        rename_by_link(&RealFs, &from, &to).unwrap();
        assert!(!from.exists() && to.exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn errors_are_sorted_and_named() {
        let dir = scratch("kinds");
        let file = dir.join("file");
        drop(RealFs.create_new(&file).unwrap());
        let check = |got: Result<(), FsError>, kind: FsErrorKind| {
            let e = got.unwrap_err();
            assert_eq!(e.kind, kind, "{e}");
            let message = e.to_string();
            let words =
                message.strip_prefix(&format!("{}: ", e.path.display())).expect("the path comes first");
            assert_eq!(words, words.to_lowercase());
        };
        check(RealFs.open_read(&dir.join("absent")).map(drop), FsErrorKind::NotFound);
        check(RealFs.create_new(&file).map(drop), FsErrorKind::Exists);
        check(RealFs.create_new(&dir.join("no/such")).map(drop), FsErrorKind::NotFound);
        check(RealFs.create_new(&file.join("below")).map(drop), FsErrorKind::BadPath);
        check(RealFs.open_read(&dir).map(drop), FsErrorKind::BadPath);
        check(RealFs.remove(&dir), FsErrorKind::BadPath);
        check(RealFs.create_dir(&dir), FsErrorKind::Exists);
        check(RealFs.open_read(Path::new("a\0b")).map(drop), FsErrorKind::BadPath);
        check(RealFs.create_new(&dir.join("n".repeat(300))).map(drop), FsErrorKind::BadPath);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn files_append_write_cut_and_keep_their_mode() {
        let dir = scratch("files");
        let path = dir.join("journal");
        let file = RealFs.open_append_or_create(&path).unwrap();
        RealFs.append(&file, b"one").unwrap();
        RealFs.append(&file, b"two").unwrap();
        RealFs.set_len(&file, 4).unwrap();
        RealFs.sync(&file).unwrap();
        let mut buf = [0; 8];
        assert_eq!(RealFs.read_at(&file, &mut buf, 1).unwrap(), 3);
        assert_eq!(&buf[..3], b"net");
        let file = RealFs.open_write_or_create(&path).unwrap();
        RealFs.write_at(&file, b"!", 6).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"onet\0\0!");
        assert_eq!(RealFs.len(&file).unwrap(), 7);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o133, 0, "no execute, no write for others");
        RealFs.create_dir_all(&dir.join("a/b/c")).unwrap();
        RealFs.create_dir_all(&dir.join("a/b/c")).unwrap();
        let kinds: Vec<_> = RealFs.list_dir(&dir).unwrap().into_iter().map(|e| (e.name, e.kind)).collect();
        assert!(
            kinds.contains(&("a".into(), FileKind::Dir))
                && kinds.contains(&("journal".into(), FileKind::File))
        );
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    #[should_panic(expected = "takes no writes at offsets")]
    fn an_appending_file_takes_no_writes_at_offsets() {
        let dir = scratch("append");
        let file = RealFs.open_append_or_create(&dir.join("f")).unwrap();
        let _ = fs::remove_dir_all(dir);
        let _ = RealFs.write_at(&file, b"x", 0);
    }
}
