//! The files of a database on the simulated disk, as the production port asks for them.

use driftless::port::source::SourceFiles;
use driftless_core::machine::{
    Filesystem, LitestreamHead, SourceError, SourceErrorKind, SourceFacts, WalFacts,
};

use crate::disk::Disk;

/// One database and its companions on a disk.
#[derive(Clone, Debug)]
pub struct SimFiles {
    disk: Disk,
    path: String,
}

impl SimFiles {
    /// The database at `path`.
    pub fn new(disk: Disk, path: &str) -> SimFiles {
        SimFiles { disk, path: path.to_owned() }
    }

    fn stat(&self, suffix: &str) -> Result<Option<crate::disk::Stat>, SourceError> {
        match self.disk.stat(&format!("{}{suffix}", self.path)) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(SourceError { kind: SourceErrorKind::Io, text: error.to_string(), index: None })
            }
        }
    }
}

impl SourceFiles for SimFiles {
    fn facts(&self) -> Result<Option<SourceFacts>, SourceError> {
        let Some(file) = self.stat("")? else { return Ok(None) };
        let wal = self.stat("-wal")?;
        Ok(Some(SourceFacts {
            device: file.dev,
            inode: file.ino,
            links: u64::from(file.nlink),
            size: file.size,
            ctime_ns: i128::from(file.ctime_ns),
            now_ns: i128::from(self.disk.clock().now_ns()),
            boot_id: format!("boot {}", self.disk.boot()),
            owner: true,
            regular: !file.is_dir,
            filesystem: Filesystem::Local,
            wal: wal.map(|wal| WalFacts {
                inode: wal.ino,
                size: wal.size,
                mtime_ns: i128::from(wal.mtime_ns),
            }),
            shm: self.stat("-shm")?.is_some(),
            journal: self.stat("-journal")?.map(|journal| journal.size),
        }))
    }

    fn header(&self) -> Result<Vec<u8>, SourceError> {
        Ok(self.disk.look_at(&self.path, |content| {
            content.map_or(Vec::new(), |content| content.bytes[..content.bytes.len().min(100)].to_vec())
        }))
    }

    fn litestream_head(&self) -> Result<Option<LitestreamHead>, SourceError> {
        Ok(None)
    }
}
