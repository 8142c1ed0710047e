//! The disk as production code sees it: [`SimFs`] is a [`Disk`] behind the seam [`Fs`].
//!
//! A view holds nothing of its own. When its process is to die, drop it and its files between
//! two calls; when the machine loses power, every file opened before answers I/O errors.

use std::io;
use std::path::Path;

use driftless_adapters::fs::{DirEntry, FileFacts, FileKind, Fs, FsError, FsErrorKind};
use driftless_core::ids::Wall;

use super::{Disk, DiskFile, EBADF, os};

#[cfg(test)]
mod tests;

/// A view of a disk. Relative paths are taken from the root.
#[derive(Clone, Debug)]
pub struct SimFs {
    disk: Disk,
}

/// An open file of a [`SimFs`].
#[derive(Debug)]
pub struct SimFile {
    file: DiskFile,
    mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Read,
    Write,
    Append,
}

impl SimFs {
    /// The files of `disk`.
    pub fn new(disk: Disk) -> Self {
        Self { disk }
    }

    /// The disk below.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Call the disk with a path it can take, and sort its error.
    fn at<T>(&self, path: &Path, call: impl FnOnce(&str) -> io::Result<T>) -> Result<T, FsError> {
        let text = path
            .to_str()
            .ok_or_else(|| FsError::new(FsErrorKind::BadPath, path, "simulated paths are utf-8"))?;
        call(text).map_err(|error| FsError::from_io(path, &error))
    }

    fn open(
        &self,
        path: &Path,
        mode: Mode,
        call: impl FnOnce(&str) -> io::Result<DiskFile>,
    ) -> Result<SimFile, FsError> {
        Ok(SimFile { file: self.at(path, call)?, mode })
    }
}

impl SimFile {
    /// The file of the disk below.
    pub fn disk_file(&self) -> &DiskFile {
        &self.file
    }

    fn sorted<T>(&self, result: io::Result<T>) -> Result<T, FsError> {
        result.map_err(|error| FsError::from_io(Path::new(self.file.path()), &error))
    }

    fn writable(&self) -> Result<(), FsError> {
        self.sorted(if self.mode == Mode::Read { Err(os(EBADF)) } else { Ok(()) })
    }
}

impl Fs for SimFs {
    type File = SimFile;

    fn open_read(&self, path: &Path) -> Result<SimFile, FsError> {
        self.open(path, Mode::Read, |path| self.disk.open(path))
    }

    fn create_new(&self, path: &Path) -> Result<SimFile, FsError> {
        self.open(path, Mode::Write, |path| self.disk.create_new(path))
    }

    fn open_write_or_create(&self, path: &Path) -> Result<SimFile, FsError> {
        self.open(path, Mode::Write, |path| self.disk.create(path))
    }

    fn open_append_or_create(&self, path: &Path) -> Result<SimFile, FsError> {
        self.open(path, Mode::Append, |path| self.disk.create(path))
    }

    fn read_at(&self, file: &SimFile, buf: &mut [u8], offset: u64) -> Result<usize, FsError> {
        file.sorted(file.file.read_at(buf, offset))
    }

    fn write_at(&self, file: &SimFile, data: &[u8], offset: u64) -> Result<(), FsError> {
        assert!(file.mode != Mode::Append, "a file opened for appending takes no writes at offsets");
        file.writable()?;
        file.sorted(file.file.write_all_at(data, offset))
    }

    fn append(&self, file: &SimFile, data: &[u8]) -> Result<(), FsError> {
        assert!(file.mode == Mode::Append, "only a file opened for appending can be appended to");
        let end = file.sorted(file.file.len())?;
        file.sorted(file.file.write_all_at(data, end))
    }

    fn set_len(&self, file: &SimFile, bytes: u64) -> Result<(), FsError> {
        file.writable()?;
        file.sorted(file.file.set_len(bytes))
    }

    fn len(&self, file: &SimFile) -> Result<u64, FsError> {
        file.sorted(file.file.len())
    }

    fn sync(&self, file: &SimFile) -> Result<(), FsError> {
        file.sorted(file.file.sync())
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), FsError> {
        self.at(dir, |dir| self.disk.sync_dir(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FsError> {
        let from = self.at(from, |from| Ok(from.to_owned()))?;
        self.at(to, |to| self.disk.rename(&from, to))
    }

    fn rename_noreplace(&self, from: &Path, to: &Path) -> Result<(), FsError> {
        let from = self.at(from, |from| Ok(from.to_owned()))?;
        self.at(to, |to| self.disk.rename_noreplace(&from, to))
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> Result<(), FsError> {
        let existing = self.at(existing, |existing| Ok(existing.to_owned()))?;
        self.at(new, |new| self.disk.link(&existing, new))
    }

    fn remove(&self, path: &Path) -> Result<(), FsError> {
        self.at(path, |path| self.disk.unlink(path))
    }

    fn create_dir(&self, path: &Path) -> Result<(), FsError> {
        self.at(path, |path| self.disk.create_dir(path))
    }

    fn list_dir(&self, dir: &Path) -> Result<Vec<DirEntry>, FsError> {
        self.at(dir, |dir| {
            let entry = |name: String| {
                let is_dir = self.disk.is_dir(&format!("{dir}/{name}"));
                DirEntry { kind: kind(is_dir), name: name.into() }
            };
            Ok(self.disk.list(dir)?.into_iter().map(entry).collect())
        })
    }

    fn stat(&self, path: &Path) -> Result<FileFacts, FsError> {
        let stat = self.at(path, |path| self.disk.stat(path))?;
        Ok(FileFacts {
            kind: kind(stat.is_dir),
            len: stat.size,
            modified: Wall((stat.mtime_ns / 1_000_000) as i64),
            dev: stat.dev,
            ino: stat.ino,
        })
    }
}

fn kind(is_dir: bool) -> FileKind {
    if is_dir { FileKind::Dir } else { FileKind::File }
}
