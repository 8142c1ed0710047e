//! The file that a restore builds beside its target.
//!
//! The target is touched by nothing but the last step: by then the new file is whole, verified
//! and synced. A `-wal` of the old database must not meet the new one, since SQLite would replay
//! it; so the old companions are moved aside first, and removed only when the new file stands. Whoever
//! is killed in between leaves a database without its companions: the next restore to this target puts
//! them back before it does anything else.
//!
//! The file being built has the name that every restore to this target would choose, so that what
//! a killed one leaves is found and replaced. Two at a time would build under one name, and the
//! first to finish would put the other's unfinished file in place. So the file is locked for as
//! long as it is built; the kernel's lock dies with its process.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use driftless_adapters::fs::{Fs, FsError, FsErrorKind};
use driftless_core::machine::{Chunk, OutputError, OutputRequest};
use rustix::fs::{FileType, FlockOperation, Mode, OFlags, Stat, flock, fstat, lstat, stat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{Blocking, writeback};

/// What SQLite keeps beside a database.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Shorter stretches wait for the last sync: their neighbours may come yet, and the disk takes long
/// ones better.
const WRITEBACK_BYTES_MIN: u64 = 64 << 10;
/// So do those of which less than this part was written.
const WRITEBACK_PART: u64 = 8;

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
    pub fn perform(&mut self, request: &OutputRequest) -> Result<Chunk, OutputError> {
        match *request {
            OutputRequest::ReadTarget { offset, len } => {
                return self.read_target(offset, len).map_err(failed);
            }
            OutputRequest::ReadBuilt { offset, len } => {
                return self.with_file(|fs, file| read_part(fs, file, offset, len));
            }
            _ => {}
        }
        self.write(request).map(|()| Chunk::default())
    }

    fn write(&mut self, request: &OutputRequest) -> Result<(), OutputError> {
        match request {
            OutputRequest::ReadTarget { .. } | OutputRequest::ReadBuilt { .. } => {
                unreachable!("it writes nothing")
            }
            OutputRequest::Create { keep } => self.create(*keep),
            OutputRequest::Write(extents) => self.with_file(|fs, file| {
                extents.iter().try_for_each(|(offset, bytes)| fs.write_at(file, bytes, *offset))?;
                if let Some((offset, len)) = stretch(extents) {
                    writeback::begin(file, offset, len);
                }
                Ok(())
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

    fn with_file<T>(&self, act: impl FnOnce(&F, &F::File) -> Result<T, FsError>) -> Result<T, OutputError> {
        match &self.file {
            Some(file) => act(&self.fs, file).map_err(failed),
            None => Err(OutputError { exists: false, text: "the output is not open".into() }),
        }
    }

    fn create(&mut self, keep: bool) -> Result<(), OutputError> {
        if let Some(directory) = self.target.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            self.fs.create_dir_all(directory).map_err(failed)?;
        }
        loop {
            match self.fs.create_new(&self.building) {
                Ok(file) if claim(&file, &self.building)? => {
                    self.file = Some(file);
                    // No swap was cut short, so these are what one that was done has left. They are gone
                    // for good before this file has any content: see `remove_leftover`.
                    return self.remove_aside();
                }
                // Between our creating and our locking it was taken for a leftover.
                Ok(_) => return Err(in_use(&self.building)),
                Err(error) if error.kind == FsErrorKind::Exists => {
                    if keep && self.take_leftover()? {
                        return Ok(());
                    }
                    self.remove_leftover()?;
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Bytes of what stands in the target's place. It is opened for each of them, so that none is held
    /// open: that would keep its space when it is replaced.
    fn read_target(&self, offset: u64, len: u32) -> Result<Chunk, FsError> {
        if !is_file(&self.target)? || self.companions().any(|(companion, _)| is_replayed(&companion)) {
            return Ok(Chunk::default());
        }
        let file = match self.fs.open_read(&self.target) {
            Err(error) if error.kind == FsErrorKind::NotFound => return Ok(Chunk::default()),
            opened => opened?,
        };
        read_part(&self.fs, &file, offset, len)
    }

    /// Goes on with the file of a restore that was killed, if there is content in it.
    fn take_leftover(&mut self) -> Result<bool, OutputError> {
        let facts = match lstat(&self.building) {
            Ok(facts) => facts,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(failed(FsError::from_io(&self.building, &errno.into()))),
        };
        if !is_ours(&facts) {
            return Ok(false);
        }
        let file = self.fs.open_write_or_create(&self.building).map_err(failed)?;
        if !claim(&file, &self.building)? {
            return Err(in_use(&self.building));
        }
        // Once more, now that no other restore has it.
        let facts = fstat(&file).map_err(|errno| failed(FsError::from_io(&self.building, &errno.into())))?;
        if !is_ours(&facts) {
            return Ok(false);
        }
        // As in `remove_leftover`: with content, what is aside is the target's. What cannot go back, since
        // something has come to stand there, goes.
        self.put_back()?;
        self.remove_aside()?;
        self.file = Some(file);
        Ok(true)
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
        // One with content was begun with nothing aside, and has not been swapped in: what is aside is the
        // target's. An empty one may have been left before it came to look, and what is aside may be a
        // stranger to the target, which SQLite would replay into it.
        if fstat(&leftover).map_err(|errno| failed(FsError::from_io(&self.building, &errno.into())))?.st_size
            > 0
        {
            self.put_back()?;
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
        if let Err(error) = self.swap() {
            // The target is as it was, and so must be what belongs to it.
            return self.put_back().and(Err(error));
        }
        self.file = None;
        self.sync_directory()?;
        self.remove_aside()
    }

    /// Moves the companions aside, and the new file into place.
    fn swap(&self) -> Result<(), OutputError> {
        for (old, kept) in self.companions() {
            match self.fs.rename(&old, &kept) {
                Err(error) if error.kind != FsErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        self.sync_directory()?;
        self.fs.rename(&self.building, &self.target).map_err(failed)
    }

    /// The target's companions, and where they are kept during the swap.
    fn companions(&self) -> impl Iterator<Item = (PathBuf, PathBuf)> {
        let kept = |suffix: &str| beside(&self.target, &format!("{suffix}.driftless-old"));
        COMPANIONS.map(|suffix| (beside(&self.target, suffix), kept(suffix))).into_iter()
    }

    fn remove_aside(&self) -> Result<(), OutputError> {
        let mut removed = false;
        for (_, kept) in self.companions() {
            match self.fs.remove(&kept) {
                Ok(()) => removed = true,
                Err(error) if error.kind == FsErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        if removed { self.sync_directory() } else { Ok(()) }
    }

    /// Undoes the first half of a swap, unless something has come to stand there since.
    fn put_back(&self) -> Result<(), OutputError> {
        for (old, kept) in self.companions() {
            match self.fs.rename_noreplace(&kept, &old) {
                Err(error) if !matches!(error.kind, FsErrorKind::NotFound | FsErrorKind::Exists) => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
        self.sync_directory()
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
    type Answer = Result<Chunk, OutputError>;

    fn perform(&mut self, request: &OutputRequest) -> Self::Answer {
        OutputPort::perform(self, request)
    }
}

/// Where extents lie, if they fill enough of it for the disk to begin there: offset and length. The pages
/// between them were written before, or are few.
fn stretch(extents: &[(u64, Chunk)]) -> Option<(u64, u64)> {
    let (first, last) = (extents.first()?, extents.last()?);
    let len = (last.0 + last.1.len() as u64).checked_sub(first.0)?;
    let filled: u64 = extents.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    (len >= WRITEBACK_BYTES_MIN && filled >= len / WRITEBACK_PART).then_some((first.0, len))
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

fn read_part<F: Fs>(fs: &F, file: &F::File, offset: u64, len: u32) -> Result<Chunk, FsError> {
    let (mut bytes, mut filled) = (vec![0; len as usize], 0);
    while filled < bytes.len() {
        match fs.read_at(file, &mut bytes[filled..], offset + filled as u64)? {
            0 => break,
            more => filled += more,
        }
    }
    bytes.truncate(filled);
    Ok(Chunk::from(bytes))
}

/// Whether a restore of this user's has left this, and nobody else can write to it: whoever can make files
/// in the directory may have put one there for a database to be written into. Of two names one may be the
/// target's: where a file takes its place by a link, a kill leaves both.
fn is_ours(facts: &Stat) -> bool {
    FileType::from_raw_mode(facts.st_mode) == FileType::RegularFile
        && facts.st_uid == geteuid().as_raw()
        && facts.st_mode & 0o022 == 0
        && facts.st_nlink == 1
        && facts.st_size > 0
}

/// Whether a plain file stands there; opening another kind may wait for ever.
fn is_file(path: &Path) -> Result<bool, FsError> {
    match stat(path) {
        Ok(facts) => Ok(FileType::from_raw_mode(facts.st_mode) == FileType::RegularFile),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(FsError::from_io(path, &errno.into())),
    }
}

/// Whether this is a `-wal` or `-journal` with content: SQLite would replay it, so that the file beside
/// it is not the database.
fn is_replayed(companion: &Path) -> bool {
    let shared = companion.as_os_str().as_encoded_bytes().ends_with(b"-shm");
    !shared && stat(companion).is_ok_and(|facts| facts.st_size > 0)
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use driftless_adapters::fs::RealFs;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A directory with files of these names; each holds its name.
    fn place(name: &str, files: &[&str]) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("driftless-output-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        files.iter().for_each(|file| fs::write(directory.join(file), file).unwrap());
        directory
    }

    fn port(directory: &Path) -> OutputPort<RealFs> {
        OutputPort::new(RealFs, directory.join("a.db"), None)
    }

    #[test]
    fn a_swap_that_was_cut_short_is_undone_by_the_next_restore() {
        let files = ["a.db", "a.db-wal.driftless-old", "a.db-shm.driftless-old", "a.db.driftless-restore"];
        let directory = place("cut", &files);
        let mut port = port(&directory);
        port.perform(&OutputRequest::Create { keep: false }).unwrap();
        assert_eq!(names(&directory), ["a.db", "a.db-shm", "a.db-wal", "a.db.driftless-restore"]);
        assert_eq!(fs::read(directory.join("a.db-wal")).unwrap(), b"a.db-wal.driftless-old");
        port.perform(&OutputRequest::Discard).unwrap();
        assert_eq!(names(&directory), ["a.db", "a.db-shm", "a.db-wal"]);
        port.perform(&OutputRequest::Create { keep: false }).unwrap();
        port.perform(&OutputRequest::Publish { replace: true }).unwrap();
        assert_eq!(names(&directory), ["a.db"]);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_a_swap_that_was_done_has_left_is_removed() {
        let directory = place("done", &["a.db", "a.db-wal.driftless-old"]);
        let mut port = port(&directory);
        port.perform(&OutputRequest::Create { keep: false }).unwrap();
        assert_eq!(names(&directory), ["a.db", "a.db.driftless-restore"]);
        port.perform(&OutputRequest::Discard).unwrap();
        fs::remove_dir_all(directory).unwrap();
    }

    /// Killed between making its file and looking for what a swap has left.
    #[test]
    fn an_empty_leftover_says_nothing_of_what_lies_aside() {
        let directory = place("empty", &["a.db", "a.db-wal.driftless-old"]);
        fs::write(directory.join("a.db.driftless-restore"), "").unwrap();
        port(&directory).perform(&OutputRequest::Create { keep: false }).unwrap();
        assert_eq!(names(&directory), ["a.db", "a.db.driftless-restore"]);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_swap_that_fails_leaves_the_target_with_its_companions() {
        let directory = place("fails", &["a.db-wal"]);
        // A directory that is not empty cannot be replaced by a file.
        fs::create_dir_all(directory.join("a.db/full")).unwrap();
        let mut port = port(&directory);
        port.perform(&OutputRequest::Create { keep: false }).unwrap();
        assert!(port.perform(&OutputRequest::Publish { replace: true }).is_err());
        assert_eq!(names(&directory), ["a.db", "a.db-wal", "a.db.driftless-restore"]);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_a_killed_restore_has_left_is_gone_on_with() {
        let directory = place("left", &["a.db.driftless-restore", "a.db-wal.driftless-old"]);
        let mut first = port(&directory);
        first.perform(&OutputRequest::Create { keep: true }).unwrap();
        let read = |port: &mut OutputPort<RealFs>| {
            port.perform(&OutputRequest::ReadBuilt { offset: 2, len: 4 }).unwrap().to_vec()
        };
        assert_eq!(read(&mut first), b"db.d");
        assert_eq!(
            names(&directory),
            ["a.db-wal", "a.db.driftless-restore"],
            "what was aside is the target's"
        );
        let again = port(&directory).perform(&OutputRequest::Create { keep: true }).unwrap_err();
        assert!(again.text.contains("another restore is writing"), "{}", again.text);
        drop(first);
        // The kill came between the two halves of a rename by link.
        fs::hard_link(directory.join("a.db.driftless-restore"), directory.join("a.db")).unwrap();
        let mut second = port(&directory);
        second.perform(&OutputRequest::Create { keep: true }).unwrap();
        assert_eq!(read(&mut second), b"");
        assert_eq!(fs::read(directory.join("a.db")).unwrap(), b"a.db.driftless-restore");
        drop(second);
        // Somebody else may write to it.
        let leftover = directory.join("a.db.driftless-restore");
        fs::write(&leftover, "theirs").unwrap();
        fs::set_permissions(&leftover, fs::Permissions::from_mode(0o666)).unwrap();
        let mut third = port(&directory);
        third.perform(&OutputRequest::Create { keep: true }).unwrap();
        assert_eq!(read(&mut third), b"");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_stands_there_is_read_unless_it_is_not_all() {
        let directory = place("read", &["a.db", "a.db-shm"]);
        let mut port = port(&directory);
        let mut read = |offset, len| port.perform(&OutputRequest::ReadTarget { offset, len }).unwrap();
        assert_eq!((&*read(0, 100), &*read(1, 2), &*read(9, 2)), (&b"a.db"[..], &b".d"[..], &b""[..]));
        fs::write(directory.join("a.db-wal"), b"").unwrap();
        assert_eq!(&*read(0, 100), b"a.db");
        for name in ["a.db-wal", "a.db-journal"] {
            fs::write(directory.join(name), b"frames").unwrap();
            assert_eq!(&*read(0, 100), b"", "{name} belongs to it");
            fs::remove_file(directory.join(name)).unwrap();
        }
        fs::remove_file(directory.join("a.db")).unwrap();
        assert_eq!(&*read(0, 100), b"");
        fs::create_dir(directory.join("a.db")).unwrap();
        assert_eq!(&*read(0, 100), b"");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn companions_that_came_since_stay() {
        let files = ["a.db", "a.db-wal", "a.db-wal.driftless-old", "a.db.driftless-restore"];
        let directory = place("since", &files);
        port(&directory).perform(&OutputRequest::Create { keep: false }).unwrap();
        assert_eq!(fs::read(directory.join("a.db-wal")).unwrap(), b"a.db-wal");
        fs::remove_dir_all(directory).unwrap();
    }
}
