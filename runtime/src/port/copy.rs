//! The copy that follows a replica, through SQLite and nothing else.
//!
//! Pages go in by `sqlite_dbpage`, SQLite's table of its own pages, inside one transaction of a
//! database in WAL mode. So it is SQLite that keeps readers apart from what is not committed, in
//! this process and in others, that undoes what a kill has left, and that copies the WAL back.
//! Nothing here opens the file beside it: closing a descriptor would drop SQLite's locks.
//!
//! The copy is attached to an empty database in memory. As the main one, its schema would be read
//! again whenever page 1 has another schema cookie, in the middle of a transaction and through what
//! SQLite remembers of pages whose content was replaced underneath it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use driftless_core::ids::PageNo;
use driftless_core::machine::{Chunk, CopyError, CopyReply, CopyRequest};
use rusqlite::{Connection, OpenFlags, params};

use super::Blocking;

/// How long a lock of another connection is waited for. Readers hold none that matters in WAL mode.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// One copy and its position file.
#[derive(Debug)]
pub struct CopyPort {
    database: PathBuf,
    position: PathBuf,
    connection: Option<Connection>,
}

impl CopyPort {
    /// The copy at a path; nothing is opened yet.
    pub fn new(database: PathBuf) -> CopyPort {
        let position = position_path(&database);
        CopyPort { database, position, connection: None }
    }

    fn look(&self) -> io::Result<CopyReply> {
        // An empty file is what opening a database leaves behind, and counts as none.
        let database = match fs::metadata(&self.database) {
            Ok(facts) => facts.len() > 0,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        let position = match fs::read(&self.position) {
            Ok(bytes) => Some(Chunk::from(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(CopyReply::Found { database, position })
    }

    /// Writes beside, syncs, renames, and syncs the directory: a rename alone may vanish when power
    /// fails.
    fn save(&self, bytes: &[u8]) -> io::Result<()> {
        let directory = match self.position.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        fs::create_dir_all(directory)?;
        let mut beside = self.position.as_os_str().to_owned();
        beside.push(".new");
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &self.position)?;
        File::open(directory)?.sync_all()
    }

    fn open(&mut self) -> Result<CopyReply, CopyError> {
        crate::sqlite::set_up_process();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let path = self.database.to_str().ok_or("the copy's path is not valid UTF-8")?;
        let open = || {
            let connection = Connection::open_with_flags(":memory:", flags)?;
            connection.busy_timeout(BUSY_MAX)?;
            connection.execute("attach ?1 as copy", [path])?;
            let has_pages: bool = connection.query_row(
                "select count(*) > 0 from pragma_module_list where name = 'sqlite_dbpage'",
                [],
                |row| row.get(0),
            )?;
            let mode: String =
                connection.query_row("pragma copy.journal_mode = wal", [], |row| row.get(0))?;
            // A schema that this SQLite cannot read is a schema all the same.
            connection.execute_batch("pragma copy.synchronous = full; pragma writable_schema = on")?;
            let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, u32>(0));
            let opened = CopyReply::Opened {
                page_size: number("pragma copy.page_size")?,
                pages: number("pragma copy.page_count")?,
                version: number("pragma copy.data_version")?,
            };
            rusqlite::Result::Ok((connection, has_pages, mode, opened))
        };
        let (connection, has_pages, mode, opened) = open().map_err(|error| text("open", &error))?;
        if !has_pages {
            return Err(
                "this driftless was built without SQLITE_ENABLE_DBPAGE_VTAB, which following needs; \
                 see .cargo/config.toml"
                    .into(),
            );
        }
        if mode != "wal" {
            return Err(format!(
                "the copy cannot be in wal mode, only in {mode} mode: another program uses it, or its filesystem has no shared memory"
            ));
        }
        self.connection = Some(connection);
        Ok(opened)
    }

    fn connection(&self) -> Result<&Connection, CopyError> {
        self.connection.as_ref().ok_or_else(|| "the copy is not open".into())
    }

    fn read(&self, first: PageNo, count: u32) -> rusqlite::Result<Vec<u8>> {
        let Some(connection) = &self.connection else { return Ok(Vec::new()) };
        let transaction = connection.unchecked_transaction()?;
        let mut bytes = Vec::new();
        {
            let mut page = connection.prepare("select data from sqlite_dbpage('copy') where pgno = ?1")?;
            for number in first.get()..first.get() + count {
                page.query_row([number], |row| {
                    bytes.extend_from_slice(row.get_ref(0)?.as_blob()?);
                    Ok(())
                })?;
            }
        }
        transaction.commit()?;
        Ok(bytes)
    }

    fn begin(&self) -> Result<CopyReply, CopyError> {
        let connection = self.connection()?;
        let begin = || {
            connection.execute_batch("begin immediate")?;
            // In a database that vacuums itself SQLite would move pages when it commits. Preparing
            // this says to the connection that it does not, and writes nothing; where the
            // database does not vacuum itself, it is refused, and that is as good.
            let _ = connection.prepare("pragma copy.auto_vacuum = incremental");
            connection.query_row("pragma copy.data_version", [], |row| row.get(0))
        };
        begin().map(CopyReply::Begun).map_err(|error| text("begin to write", &error))
    }

    fn write(&self, pages: &[(PageNo, Chunk)]) -> Result<(), CopyError> {
        let connection = self.connection()?;
        let write = || {
            let mut page = connection
                .prepare("insert into sqlite_dbpage(pgno, data, schema) values (?1, ?2, 'copy')")?;
            pages
                .iter()
                .try_for_each(|(number, data)| page.execute(params![number.get(), &**data]).map(|_| ()))
        };
        write().map_err(|error: rusqlite::Error| text("write", &error))
    }

    /// A page without content cuts the database before it when the transaction is committed. SQLite
    /// forgets that with the next page that is written.
    fn finish(&self, first: Option<&Chunk>, cut: Option<u32>) -> Result<(), CopyError> {
        if let Some(page) = first {
            self.write(&[(PageNo::FIRST, page.clone())])?;
        }
        let Some(pages) = cut else { return Ok(()) };
        let sql = "insert into sqlite_dbpage(pgno, data, schema) values (?1, null, 'copy')";
        self.connection()?
            .execute(sql, [i64::from(pages) + 1])
            .map(|_| ())
            .map_err(|error| text("cut", &error))
    }

    fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Undone at the latest by whoever opens it next.
            let _ = connection.execute_batch("rollback");
            let _ = connection.close();
        }
    }
}

impl Blocking<CopyRequest> for CopyPort {
    type Answer = Result<CopyReply, CopyError>;

    fn perform(&mut self, request: &CopyRequest) -> Self::Answer {
        let place = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        match request {
            CopyRequest::Look => self.look().map_err(|error| place(&self.database, error)),
            CopyRequest::Save(bytes) => {
                self.save(bytes).map(|()| CopyReply::Done).map_err(|error| place(&self.position, error))
            }
            CopyRequest::Open => self.open(),
            CopyRequest::Read { first, count } => {
                self.connection()?;
                self.read(*first, *count)
                    .map(|bytes| CopyReply::Pages(Chunk::from(bytes)))
                    .map_err(|error| text("read", &error))
            }
            CopyRequest::Begin => self.begin(),
            CopyRequest::Write(pages) => self.write(pages).map(|()| CopyReply::Done),
            CopyRequest::Finish { first, cut } => self.finish(first.as_ref(), *cut).map(|()| CopyReply::Done),
            CopyRequest::Commit => {
                let done = self.connection()?.execute_batch("commit");
                done.map(|()| CopyReply::Done).map_err(|error| text("commit to", &error))
            }
            CopyRequest::Close => {
                self.close();
                Ok(CopyReply::Done)
            }
        }
    }
}

/// Where a copy's position is kept: under the name that Litestream has for its own.
pub fn position_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-txid");
    PathBuf::from(name)
}

fn text(doing: &str, error: &rusqlite::Error) -> String {
    format!("{doing} the copy: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(fill: u8) -> Chunk {
        Chunk::from(vec![fill; 4096])
    }

    /// The file's length, once the copy is closed.
    fn pages(database: &Path) -> u64 {
        fs::metadata(database).unwrap().len() / 4096
    }

    #[test]
    fn a_transaction_cuts_and_grows_the_file() {
        let directory = std::env::temp_dir().join(format!("driftless-copy-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let database = directory.join("a.db");
        let made = Connection::open(&database).unwrap();
        made.execute_batch(
            "create table t(x); insert into t values (zeroblob(100000)); pragma journal_mode = wal",
        )
        .unwrap_or(());
        drop(made);
        let whole = pages(&database);
        let mut port = CopyPort::new(database.clone());
        for (size, cookie) in [(whole - 5, 7), (whole + 3, 7), (whole, 8), (2, 8), (9, 9)] {
            let before = pages(&database);
            let opened = port.perform(&CopyRequest::Open).unwrap();
            assert!(matches!(opened, CopyReply::Opened { page_size: 4096, .. }), "{opened:?}");
            let CopyReply::Pages(first) =
                port.perform(&CopyRequest::Read { first: PageNo::FIRST, count: 1 }).unwrap()
            else {
                panic!("pages were asked for");
            };
            let mut first = first.to_vec();
            first[28..32].copy_from_slice(&(size as u32).to_be_bytes());
            first[43] = cookie;
            port.perform(&CopyRequest::Begin).unwrap();
            let last = PageNo::new(size as u32).unwrap();
            port.perform(&CopyRequest::Write(vec![(last, page(0))])).unwrap();
            let cut = (size < before).then_some(size as u32);
            port.perform(&CopyRequest::Finish { first: Some(Chunk::from(first)), cut }).unwrap();
            port.perform(&CopyRequest::Commit).unwrap();
            port.perform(&CopyRequest::Close).unwrap();
            assert_eq!(pages(&database), size);
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
