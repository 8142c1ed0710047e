//! The file that a restore builds beside its target.
//!
//! The target is touched by nothing but the last step: by then the new file is whole, verified
//! and synced. A `-wal` of the old database must not meet the new one, since SQLite would replay
//! it; so the old companions are moved aside first, and removed only when the new file stands.
//!
//! The file being built has the name that every restore to this target would choose, so that what
//! a killed one leaves is found and replaced. Two at a time would build under one name, and the
//! first to finish would put the other's unfinished file in place. So the file is locked for as
//! long as it is built; the kernel's lock dies with its process.

use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use driftless_adapters::fs::{Fs, FsError, FsErrorKind};
use driftless_core::machine::{OutputError, OutputRequest};
use rustix::fs::{Advice, FlockOperation, Mode, OFlags, fadvise, flock, fstat, lstat};
use rustix::io::Errno;

use super::Blocking;

/// Shorter writes wait for the last sync: their neighbours may come yet, and the disk takes long
/// stretches better.
const WRITEBACK_BYTES_MIN: u64 = 64 << 10;

/// What is asked of the built file before it takes the target's place.
pub type Check = Box<dyn Fn(&Path) -> Result<(), String> + Send>;

/// One restore's file.
pub struct OutputPort<F: Fs> {
    fs: F,
    target: PathBuf,
    building: PathBuf,
    /// Open, and locked, from `Create` until it stands in place or is discarded.
    file: Option<F::File>,
    check: Option<Check>,
}

impl<F: Fs> OutputPort<F>
where
    F::File: AsFd,
{
    /// A file that will stand at `target`; `check` is asked before it does.
    pub fn new(fs: F, target: PathBuf, check: Option<Check>) -> OutputPort<F> {
        let building = beside(&target, ".driftless-restore");
        OutputPort { fs, target, building, file: None, check }
    }

    /// Does one thing.
    ///
    /// # Errors
    /// As the filesystem or the check says.
    pub fn perform(&mut self, request: &OutputRequest) -> Result<(), OutputError> {
        match request {
            OutputRequest::Create => self.create(),
            OutputRequest::Write(extents) => self.with_file(|fs, file| {
                extents.iter().try_for_each(|(offset, bytes)| {
                    fs.write_at(file, bytes, *offset)?;
                    begin_writeback(file, *offset, bytes.len());
                    Ok(())
                })
            }),
            OutputRequest::SetLen(len) => self.with_file(|fs, file| fs.set_len(file, *len)),
            OutputRequest::Sync => self.with_file(|fs, file| fs.sync(file)),
            OutputRequest::Publish { replace } => self.publish(*replace),
            OutputRequest::Discard => {
                // What we have not locked is not ours.
                let Some(_locked) = self.file.take() else { return Ok(()) };
                remove_if_there(&self.fs, &self.building).map_err(failed)
            }
        }
    }

    fn with_file(&self, act: impl FnOnce(&F, &F::File) -> Result<(), FsError>) -> Result<(), OutputError> {
        match &self.file {
            Some(file) => act(&self.fs, file).map_err(failed),
            None => Err(OutputError { exists: false, text: "the output is not open".into() }),
        }
    }

    fn create(&mut self) -> Result<(), OutputError> {
        if let Some(directory) = self.target.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            self.fs.create_dir_all(directory).map_err(failed)?;
        }
        loop {
            match self.fs.create_new(&self.building) {
                Ok(file) if claim(&file, &self.building)? => {
                    self.file = Some(file);
                    return Ok(());
                }
                // Between our creating and our locking it was taken for a leftover.
                Ok(_) => return Err(in_use(&self.building)),
                Err(error) if error.kind == FsErrorKind::Exists => self.remove_leftover()?,
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Removes the file of a restore that was killed, and of no other.
    fn remove_leftover(&self) -> Result<(), OutputError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let leftover = match rustix::fs::open(&self.building, flags, Mode::empty()) {
            Ok(leftover) => leftover,
            Err(Errno::NOENT) => return Ok(()),
            // A symbolic link: no restore has made it.
            Err(Errno::LOOP) => return remove_if_there(&self.fs, &self.building).map_err(failed),
            Err(errno) => return Err(failed(FsError::from_io(&self.building, &errno.into()))),
        };
        if !claim(&leftover, &self.building)? {
            return Err(in_use(&self.building));
        }
        // The lock is held until the name is gone.
        remove_if_there(&self.fs, &self.building).map_err(failed)
    }

    fn publish(&mut self, replace: bool) -> Result<(), OutputError> {
        if let Some(check) = &self.check {
            check(&self.building).map_err(|text| OutputError { exists: false, text })?;
        }
        if !replace {
            self.fs.rename_noreplace(&self.building, &self.target).map_err(failed)?;
            self.file = None;
            return self.sync_directory();
        }
        let mut aside = Vec::new();
        for suffix in ["-wal", "-shm", "-journal"] {
            let old = beside(&self.target, suffix);
            let kept = beside(&self.target, &format!("{suffix}.driftless-old"));
            match self.fs.rename(&old, &kept) {
                Ok(()) => aside.push(kept),
                Err(error) if error.kind == FsErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        self.sync_directory()?;
        self.fs.rename(&self.building, &self.target).map_err(failed)?;
        self.file = None;
        self.sync_directory()?;
        for kept in aside {
            remove_if_there(&self.fs, &kept).map_err(failed)?;
        }
        Ok(())
    }

    fn sync_directory(&self) -> Result<(), OutputError> {
        let directory = match self.target.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        self.fs.sync_dir(directory).map_err(failed)
    }
}

impl<F: Fs + Send> Blocking<OutputRequest> for OutputPort<F>
where
    F::File: AsFd + Send,
{
    type Answer = Result<(), OutputError>;

    fn perform(&mut self, request: &OutputRequest) -> Self::Answer {
        OutputPort::perform(self, request)
    }
}

/// Lets the kernel begin to write these bytes to the disk, so that the last sync, for which a
/// restore has nothing else to do, finds little left. Pages that are still dirty stay cached.
fn begin_writeback(file: &impl AsFd, offset: u64, len: usize) {
    if let Some(len) = NonZeroU64::new(len as u64).filter(|len| len.get() >= WRITEBACK_BYTES_MIN) {
        // A hint: a filesystem that does not take it loses nothing.
        let _ = fadvise(file, offset, Some(len), Advice::DontNeed);
    }
}

/// Locks a file, and says whether that worked and it is the one that `path` names.
fn claim(file: &impl AsFd, path: &Path) -> Result<bool, OutputError> {
    let error = |errno: Errno| failed(FsError::from_io(path, &errno.into()));
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(false),
        Err(errno) => return Err(error(errno)),
    }
    let locked = fstat(file).map_err(error)?;
    match lstat(path) {
        Ok(named) => Ok((named.st_dev, named.st_ino) == (locked.st_dev, locked.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(error(errno)),
    }
}

fn in_use(building: &Path) -> OutputError {
    OutputError { exists: false, text: format!("another restore is writing {}", building.display()) }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

fn remove_if_there<F: Fs>(fs: &F, path: &Path) -> Result<(), FsError> {
    match fs.remove(path) {
        Err(error) if error.kind == FsErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn failed(error: FsError) -> OutputError {
    OutputError { exists: error.kind == FsErrorKind::Exists, text: error.to_string() }
}
