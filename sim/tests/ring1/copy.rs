//! A copy that follows a replica, as SQLite would write it.

use std::collections::BTreeMap;
use std::sync::MutexGuard;

use driftless::port::Blocking;
use driftless_core::machine::{Chunk, CopyError, CopyReply, CopyRequest};
use driftless_sim::disk::Disk;

use super::database::{Busy, Connection, Database, Shared};

/// A copy that follows a replica, with its position file on the machine's disk.
pub struct Copy {
    database: Shared,
    position: Position,
    /// Told before the database is written.
    before: Box<dyn Fn() + Send>,
    /// What the open transaction has written, and the size that it leaves.
    written: Option<(BTreeMap<u32, Vec<u8>>, u32)>,
}

impl Copy {
    /// The copy in a database's place. `before` is told of each transaction that begins.
    pub fn new(database: Shared, position: Position, before: Box<dyn Fn() + Send>) -> Copy {
        Copy { database, position, before, written: None }
    }

    fn database(&self) -> MutexGuard<'_, Database> {
        self.database.lock().expect("no holder panics")
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let mut database = self.database.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        database.end(Connection::Copy);
    }
}

impl Blocking<CopyRequest> for Copy {
    type Answer = Result<CopyReply, CopyError>;

    fn perform(&mut self, request: &CopyRequest) -> Self::Answer {
        let none = || "no transaction is open".to_owned();
        match request {
            CopyRequest::Look => {
                let (database, position) = (self.database().exists(), self.position.read().map(Chunk::from));
                return Ok(CopyReply::Found { database, position });
            }
            CopyRequest::Save(bytes) => self.position.replace(bytes),
            CopyRequest::Open => {
                let database = self.database();
                let (page_size, pages) = (database.page_bytes() as u32, database.pages());
                return Ok(CopyReply::Opened { page_size, pages, version: 1 });
            }
            CopyRequest::Read { first, count } => {
                let database = self.database();
                let start = (first.get() as usize - 1) * database.page_bytes();
                let end = start + *count as usize * database.page_bytes();
                return Ok(CopyReply::Pages(Chunk::from(database.bytes()[start..end].to_vec())));
            }
            CopyRequest::Begin => {
                (self.before)();
                let begun = self.database().begin_immediate(Connection::Copy);
                begun.map_err(|Busy| "database is locked".to_owned())?;
                let pages = self.database().pages();
                self.written = Some((BTreeMap::new(), pages));
                return Ok(CopyReply::Begun(1));
            }
            CopyRequest::Write(pages) => {
                let (written, size) = self.written.as_mut().ok_or_else(none)?;
                for (page, content) in pages {
                    *size = (*size).max(page.get());
                    written.insert(page.get(), content.to_vec());
                }
            }
            CopyRequest::Finish { first, cut } => {
                let (written, size) = self.written.as_mut().ok_or_else(none)?;
                written.extend(first.iter().map(|content| (1, content.to_vec())));
                *size = cut.unwrap_or(*size);
                written.retain(|page, _| page <= size);
            }
            CopyRequest::Commit => {
                let (written, size) = self.written.take().ok_or_else(none)?;
                self.database().write(Connection::Copy, &written, size);
            }
            CopyRequest::Close => {
                self.written = None;
                self.database().end(Connection::Copy);
            }
        }
        Ok(CopyReply::Done)
    }
}

/// The small file beside a database that follows a replica.
#[derive(Clone)]
pub struct Position(pub Disk);

impl Position {
    const PATH: &str = "/database-txid";
    const BESIDE: &str = "/database-txid.new";

    /// What it holds.
    pub fn read(&self) -> Option<Vec<u8>> {
        self.0.contents(Self::PATH)
    }

    /// Replaces it, durably.
    pub fn replace(&self, bytes: &[u8]) {
        let replace = || {
            let file = self.0.create(Self::BESIDE)?;
            file.set_len(0)?;
            file.write_all_at(bytes, 0)?;
            file.sync()?;
            self.0.rename(Self::BESIDE, Self::PATH)?;
            self.0.sync_dir("/")
        };
        replace().expect("a disk without faults");
    }

    /// Removes it; nobody waits for that.
    pub fn remove(&self) {
        let _ = self.0.unlink(Self::PATH);
    }
}
