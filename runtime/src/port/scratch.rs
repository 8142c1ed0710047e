//! Files without a name, for what a machine puts aside for a while.
//!
//! A file is made in the state directory and its name removed at once: the system frees it with
//! its descriptor, whatever becomes of the process. Where a process dies between the two, the name
//! stays and is taken over by the next file of that number.

use std::collections::BTreeMap;
use std::path::PathBuf;

use driftless_adapters::fs::{Fs, FsError, FsErrorKind};
use driftless_core::machine::{Chunk, ScratchRequest};

use super::Blocking;

/// The scratch files of one machine.
pub struct Scratch<F: Fs> {
    fs: F,
    /// Where a file is made, and the start of its name.
    stem: PathBuf,
    files: BTreeMap<u64, F::File>,
    /// The highest number that was dropped: a write that comes after that is of no use to anyone.
    dropped: u64,
}

impl<F: Fs> Scratch<F> {
    /// No file yet. `stem` is a path that no other machine has.
    pub fn new(fs: F, stem: PathBuf) -> Scratch<F> {
        Scratch { fs, stem, files: BTreeMap::new(), dropped: 0 }
    }

    /// Does one thing.
    ///
    /// # Errors
    /// As the filesystem says; also for a read of what was not written.
    pub fn perform(&mut self, request: &ScratchRequest) -> Result<Chunk, FsError> {
        let nothing = || Chunk::from(Vec::new());
        match request {
            ScratchRequest::Write { file, .. } if *file <= self.dropped => Ok(nothing()),
            ScratchRequest::Write { file, offset, bytes } => {
                if !self.files.contains_key(file) {
                    let made = self.make(*file)?;
                    self.files.insert(*file, made);
                }
                self.fs.write_at(&self.files[file], bytes, *offset).map(|()| nothing())
            }
            ScratchRequest::Read { file, offset, len } => self.read(*file, *offset, *len),
            ScratchRequest::Drop { file } => {
                self.files.remove(file);
                self.dropped = self.dropped.max(*file);
                Ok(nothing())
            }
        }
    }

    fn make(&self, number: u64) -> Result<F::File, FsError> {
        let path = self.path(number);
        let file = match self.fs.create_new(&path) {
            Err(error) if error.kind == FsErrorKind::Exists => {
                self.fs.remove(&path)?;
                self.fs.create_new(&path)?
            }
            made => made?,
        };
        self.fs.remove(&path)?;
        Ok(file)
    }

    fn read(&self, number: u64, offset: u64, len: u32) -> Result<Chunk, FsError> {
        let missing = || FsError::new(FsErrorKind::NotFound, &self.path(number), "was not written");
        let file = self.files.get(&number).ok_or_else(missing)?;
        let mut bytes = vec![0; len as usize];
        let mut read = 0;
        while read < bytes.len() {
            match self.fs.read_at(file, &mut bytes[read..], offset + read as u64)? {
                0 => return Err(missing()),
                n => read += n,
            }
        }
        Ok(Chunk::from(bytes))
    }

    fn path(&self, number: u64) -> PathBuf {
        let mut name = self.stem.clone().into_os_string();
        name.push(format!("-{number}"));
        PathBuf::from(name)
    }
}

impl<F: Fs + Send> Blocking<ScratchRequest> for Scratch<F>
where
    F::File: Send,
{
    type Answer = Result<Chunk, String>;

    fn perform(&mut self, request: &ScratchRequest) -> Self::Answer {
        Scratch::perform(self, request).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use driftless_adapters::fs::RealFs;

    use super::*;

    #[test]
    fn what_is_put_aside_comes_back_and_leaves_no_name() {
        let directory = std::env::temp_dir().join(format!("driftless-scratch-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        // Left behind by a process that died before it could remove the name.
        std::fs::write(directory.join("scratch-7"), b"old").unwrap();
        let mut scratch = Scratch::new(RealFs, directory.join("scratch"));
        let write = |file, offset, bytes: &[u8]| ScratchRequest::Write {
            file,
            offset,
            bytes: Chunk::from(bytes.to_vec()),
        };
        scratch.perform(&write(7, 0, b"seven")).unwrap();
        scratch.perform(&write(8, 3, b"eight")).unwrap();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "no name stays");
        let read = |scratch: &mut Scratch<RealFs>, file, offset, len| {
            scratch.perform(&ScratchRequest::Read { file, offset, len }).map(|bytes| bytes.to_vec())
        };
        assert_eq!(read(&mut scratch, 7, 0, 5).unwrap(), b"seven");
        assert_eq!(read(&mut scratch, 8, 4, 4).unwrap(), b"ight");
        assert_eq!(read(&mut scratch, 8, 4, 5).unwrap_err().kind, FsErrorKind::NotFound);
        scratch.perform(&ScratchRequest::Drop { file: 7 }).unwrap();
        scratch.perform(&write(7, 0, b"late")).unwrap();
        assert_eq!(read(&mut scratch, 7, 0, 5).unwrap_err().kind, FsErrorKind::NotFound);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
