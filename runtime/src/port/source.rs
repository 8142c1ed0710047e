//! The database that is replicated, as the core asks of it.

use std::path::{Path, PathBuf};

use driftless_core::ids::TxidRange;
use driftless_core::ltx::{LTX_HEADER_BYTES, parse_file_name};
use driftless_core::machine::{
    Chunk, Filesystem, LinkReply, LitestreamHead, Slot, SourceError, SourceErrorKind, SourceFacts,
    SourceReply, SourceRequest, WalFacts,
};

use super::{Blocking, buffers};
use crate::sqlite::{self, Close, IndexRead, Link, LinkError, LinkOptions, Primary, SqliteCode, probe};

/// What is asked of the files by path, without the link.
pub trait SourceFiles: Send {
    /// The facts of the files; `None` if there is no database file.
    ///
    /// # Errors
    /// As the system says.
    fn facts(&self) -> Result<Option<SourceFacts>, SourceError>;

    /// The first 100 bytes, or fewer if the file is shorter. Only while no link is open.
    ///
    /// # Errors
    /// As the system says.
    fn header(&self) -> Result<Vec<u8>, SourceError>;

    /// The newest segment in Litestream's own state beside the database.
    ///
    /// # Errors
    /// As the system says.
    fn litestream_head(&self) -> Result<Option<LitestreamHead>, SourceError>;
}

/// One database: its files and, while it is hot, the link to it.
pub struct SourcePort<F> {
    path: PathBuf,
    files: F,
    options: LinkOptions,
    link: Option<Link>,
}

impl<F: SourceFiles> SourcePort<F> {
    /// A source without a link.
    pub fn new(path: PathBuf, files: F, options: LinkOptions) -> SourcePort<F> {
        SourcePort { path, files, options, link: None }
    }

    /// Does one thing.
    ///
    /// # Errors
    /// As SQLite or the system says, sorted for the core.
    pub fn perform(&mut self, request: &SourceRequest) -> Result<SourceReply, SourceError> {
        match request {
            SourceRequest::Stat => Ok(SourceReply::Facts(self.files.facts()?.map(Box::new))),
            SourceRequest::ReadHeader => Ok(SourceReply::Header(self.files.header()?)),
            SourceRequest::LitestreamHead => Ok(SourceReply::Litestream(self.files.litestream_head()?)),
            SourceRequest::Open => self.open(),
            SourceRequest::Close { leave_wal } => {
                let how = if *leave_wal { Close::LeaveWal } else { Close::Plain };
                if let Some(link) = self.link.take() {
                    link.close(how).map_err(|code| sqlite_error(code, None))?;
                }
                Ok(SourceReply::Closed)
            }
            request => self.on_link(request),
        }
    }

    fn open(&mut self) -> Result<SourceReply, SourceError> {
        let path = match self.options.vfs {
            Some(_) => self.path.clone(),
            None => self.path.canonicalize().map_err(|error| io_error(&self.path, &error))?,
        };
        let mut link = Link::open(&path, self.options.clone()).map_err(link_error)?;
        link.open_slot(sqlite::Slot::B).map_err(link_error)?;
        self.link = Some(link);
        Ok(SourceReply::Link(LinkReply { index: None, bytes: None, moved: false, read_only: false }))
    }

    fn on_link(&mut self, request: &SourceRequest) -> Result<SourceReply, SourceError> {
        let Some(link) = self.link.as_mut() else {
            return Err(SourceError {
                kind: SourceErrorKind::Io,
                text: "the link is not open".into(),
                index: None,
            });
        };
        let mut bytes = None;
        let mut moved = false;
        let done: Result<(), SqliteCode> = match request {
            SourceRequest::BeginRead(slot) => link.begin_read(slot_of(*slot)),
            SourceRequest::EndRead(slot) => link.end_read(slot_of(*slot)),
            SourceRequest::BeginImmediate(slot) => link.begin_immediate(slot_of(*slot)),
            SourceRequest::Rollback(slot) => link.rollback(slot_of(*slot)),
            SourceRequest::CheckpointPassive(slot) => link.checkpoint_passive(slot_of(*slot)).map(drop),
            SourceRequest::CheckpointTruncate(slot) => link.checkpoint_truncate(slot_of(*slot)).map(drop),
            SourceRequest::Look => Ok(()),
            SourceRequest::ReadWal { offset, len, .. } => {
                read(*len, |buffer| link.read_wal_into(*offset, buffer)).map(|read| bytes = Some(read))
            }
            SourceRequest::ReadWalParts { parts, .. } => {
                let len = parts.iter().map(|(_, len)| len).sum();
                read(len, |buffer| link.read_wal_parts_into(parts, buffer)).map(|read| bytes = Some(read))
            }
            SourceRequest::FramePages { first, count } => {
                link.frame_pages(*first, *count).map(|pages| bytes = Some(Chunk::from(pages)))
            }
            SourceRequest::ReadDatabase { offset, len, .. } => {
                read(*len, |buffer| link.read_pages_into(*offset, buffer)).map(|read| bytes = Some(read))
            }
            SourceRequest::HasMoved => link.has_moved().map(|it| moved = it),
            request => unreachable!("{request:?} needs no link"),
        };
        let index = match link.read_index() {
            Ok(IndexRead::Present(raw)) => Some(Box::new(raw)),
            _ => None,
        };
        match done {
            Ok(()) => Ok(SourceReply::Link(LinkReply { index, bytes, moved, read_only: false })),
            Err(code) => Err(sqlite_error(code, index)),
        }
    }
}

impl<F: SourceFiles> Blocking<SourceRequest> for SourcePort<F> {
    type Answer = Result<SourceReply, SourceError>;

    fn perform(&mut self, request: &SourceRequest) -> Self::Answer {
        SourcePort::perform(self, request)
    }
}

/// What a read of at most `len` bytes gives, in a buffer that the driver gives back.
fn read(len: u32, into: impl FnOnce(&mut [u8]) -> Result<usize, SqliteCode>) -> Result<Chunk, SqliteCode> {
    let mut buffer = buffers::take(len as usize);
    let there = into(&mut buffer)?;
    buffer.truncate(there);
    Ok(Chunk::from(buffer))
}

fn slot_of(slot: Slot) -> sqlite::Slot {
    match slot {
        Slot::A => sqlite::Slot::A,
        Slot::B => sqlite::Slot::B,
    }
}

fn sqlite_error(code: SqliteCode, index: Option<Box<[u8; 136]>>) -> SourceError {
    let kind = match code.primary {
        Primary::Busy | Primary::Locked => SourceErrorKind::Busy,
        Primary::NotADb => SourceErrorKind::NotADatabase,
        Primary::ReadOnly => SourceErrorKind::Denied,
        _ => SourceErrorKind::Io,
    };
    SourceError { kind, text: format!("{} (code {})", code.message(), code.extended), index }
}

fn link_error(error: LinkError) -> SourceError {
    let kind = match &error {
        LinkError::NotFound(_) => SourceErrorKind::Missing,
        LinkError::ReadOnly => SourceErrorKind::Denied,
        LinkError::Sqlite(code) => return sqlite_error(*code, None),
        _ => SourceErrorKind::Io,
    };
    SourceError { kind, text: error.to_string(), index: None }
}

fn io_error(path: &Path, error: &std::io::Error) -> SourceError {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => SourceErrorKind::Missing,
        std::io::ErrorKind::PermissionDenied => SourceErrorKind::Denied,
        _ => SourceErrorKind::Io,
    };
    SourceError { kind, text: format!("{}: {error}", path.display()), index: None }
}

/// The files on the operating system's filesystems.
pub struct RealFiles {
    path: PathBuf,
}

impl RealFiles {
    /// The database at `path` and its companions.
    pub fn new(path: PathBuf) -> RealFiles {
        RealFiles { path }
    }

    /// Litestream's own level-0 directory of this database.
    fn litestream_directory(&self) -> Option<PathBuf> {
        let name = self.path.file_name()?.to_str()?;
        Some(self.path.with_file_name(format!(".{name}-litestream")).join("ltx").join("0"))
    }
}

fn probe_error(error: &probe::ProbeError) -> SourceError {
    match error {
        probe::ProbeError::Io { path, source } => io_error(path, source),
        probe::ProbeError::Linked(_) => {
            SourceError { kind: SourceErrorKind::Io, text: error.to_string(), index: None }
        }
    }
}

impl SourceFiles for RealFiles {
    fn facts(&self) -> Result<Option<SourceFacts>, SourceError> {
        let facts = match probe::stat_facts(&self.path) {
            Ok(facts) => facts,
            Err(error) => {
                let error = probe_error(&error);
                return if error.kind == SourceErrorKind::Missing { Ok(None) } else { Err(error) };
            }
        };
        let Some(file) = facts.file else { return Ok(None) };
        const KIND: u32 = 0o170_000;
        const REGULAR: u32 = 0o100_000;
        Ok(Some(SourceFacts {
            device: file.id.dev,
            inode: file.id.ino,
            links: file.nlink,
            size: file.size,
            ctime_ns: i128::from(file.ctime_ns),
            now_ns: i128::from(crate::clock::wall().0) * 1_000_000,
            boot_id: probe::name_of_boot(facts.boot_id),
            owner: facts.euid == 0 || facts.euid == file.uid,
            regular: file.mode & KIND == REGULAR,
            filesystem: match facts.filesystem {
                probe::Filesystem::Network { name } => Filesystem::Remote(name.into()),
                _ => Filesystem::Local,
            },
            wal: facts.wal.map(|wal| WalFacts {
                inode: wal.file.id.ino,
                size: wal.file.size,
                mtime_ns: i128::from(wal.file.mtime_ns),
            }),
            shm: facts.shm.is_some(),
            journal: facts.journal_len,
        }))
    }

    fn header(&self) -> Result<Vec<u8>, SourceError> {
        match probe::read_header(&self.path) {
            Ok(header) => Ok(header.map_or(Vec::new(), |header| header.to_vec())),
            Err(error) => Err(probe_error(&error)),
        }
    }

    fn litestream_head(&self) -> Result<Option<LitestreamHead>, SourceError> {
        let Some(directory) = self.litestream_directory() else { return Ok(None) };
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(&directory, &error)),
        };
        let newest = entries
            .filter_map(Result::ok)
            .filter_map(|entry| Some((parse_file_name(entry.file_name().to_str()?)?, entry.path())))
            .max_by_key(|(range, _)| TxidRange::max(*range));
        let Some((range, path)) = newest else { return Ok(None) };
        let mut header = std::fs::read(&path).map_err(|error| io_error(&path, &error))?;
        header.truncate(LTX_HEADER_BYTES);
        Ok(Some(LitestreamHead { txid: range.max(), header }))
    }
}
