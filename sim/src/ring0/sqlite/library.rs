//! The library itself on the simulated disk, and the production port.

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use driftless::port::source::SourcePort;
use driftless::sqlite::LinkOptions;
use driftless_core::machine::{SourceError, SourceReply, SourceRequest};
use rusqlite::ErrorCode;

use super::{Connection, Counts, Source, SqlError, SqlErrorKind, SqlResult, Sqlite};
use crate::disk::{Disk, Saved, SimClock, Unsynced};
use crate::ring0::app::{Synchronous, Work};
use crate::ring0::files::SimFiles;
use crate::vfs::{SimHost, SimSqlite, Turn, VfsFaultHook};

/// Real SQLite, which this thread has for itself as long as the value lives.
pub struct Library {
    // Connections end before the turn does: the order of the fields matters.
    sqlite: SimSqlite,
    host: Arc<SimHost>,
    /// Held by the first machine of a run.
    _turn: Option<Turn>,
}

impl Library {
    /// SQLite on `disk`, with randomness from a seed, and its lock page where it is wanted.
    pub fn new(disk: Disk, clock: SimClock, seed: u64, pending_byte: u64) -> Library {
        let turn = Turn::take(seed as u32);
        turn.set_pending_byte(pending_byte as u32);
        let host = Arc::new(SimHost::new(clock, seed));
        Library { sqlite: SimSqlite::new(disk, host.clone()), host, _turn: Some(turn) }
    }
}

impl Sqlite for Library {
    fn disk(&self) -> &Disk {
        self.sqlite.disk()
    }

    fn set_fault_hook(&self, hook: Arc<VfsFaultHook>) {
        self.host.set_fault_hook(Some(hook));
    }

    fn open(&self, process: &str, path: &str) -> SqlResult<Box<dyn Connection>> {
        let db = self.sqlite.open(process, path)?;
        db.busy_timeout(Duration::ZERO)?;
        Ok(Box::new(db))
    }

    fn source(&self, process: &str, path: &str) -> Box<dyn Source> {
        let vfs = CString::new(self.sqlite.vfs_name(process)).expect("no NUL in it");
        let files = SimFiles::new(self.disk().clone(), path);
        Box::new(SourcePort::new(PathBuf::from(path), files, LinkOptions { vfs: Some(vfs) }))
    }

    fn is_alive(&self, process: &str) -> bool {
        self.sqlite.is_alive(process)
    }

    fn wal_index_lives(&self, path: &str) -> bool {
        self.sqlite.wal_index_lives(path)
    }

    fn kill_process(&self, process: &str) {
        self.sqlite.kill_process(process);
    }

    fn power_loss(&self, survives: &mut dyn FnMut(&Unsynced<'_>) -> bool) {
        self.sqlite.power_loss(survives);
    }

    fn roll_back(&self, saved: &Saved) {
        self.sqlite.roll_back(saved);
    }

    fn another(&self, disk: Disk, clock: &SimClock, seed: u64) -> Box<dyn Sqlite> {
        let host = Arc::new(SimHost::new(clock.clone(), seed));
        Box::new(Library { sqlite: SimSqlite::new(disk, host.clone()), host, _turn: None })
    }

    fn library(&self) -> Option<&SimSqlite> {
        Some(&self.sqlite)
    }
}

impl Source for SourcePort<SimFiles> {
    fn perform(&mut self, request: &SourceRequest) -> Result<SourceReply, SourceError> {
        SourcePort::perform(self, request)
    }
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> SqlError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                SqlError { kind: SqlErrorKind::Busy, text: error.to_string() }
            }
            Some(ErrorCode::SystemIoFailure) => {
                SqlError { kind: SqlErrorKind::Io, text: format!("{error} {:?}", error.sqlite_error()) }
            }
            _ => SqlError { kind: SqlErrorKind::Other, text: error.to_string() },
        }
    }
}

impl Connection for rusqlite::Connection {
    fn prepare(&mut self, page_bytes: u32, durable: bool) -> SqlResult<()> {
        self.execute_batch(&format!("PRAGMA page_size={page_bytes}; PRAGMA cache_size=20"))?;
        let mode: String = self.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        if mode != "wal" {
            self.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
        }
        // In rollback mode FULL does not sync the directory after a journal is deleted; EXTRA does.
        self.execute_batch(if durable { "PRAGMA synchronous=EXTRA" } else { "PRAGMA synchronous=NORMAL" })?;
        Ok(self.execute_batch(
            "BEGIN IMMEDIATE;
             CREATE TABLE IF NOT EXISTS m(n);
             INSERT INTO m SELECT 0 WHERE NOT EXISTS(SELECT * FROM m);
             CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, x);
             CREATE INDEX IF NOT EXISTS tx ON t(substr(x,1,4));
             COMMIT",
        )?)
    }

    fn set_autocheckpoint(&mut self, pages: u32) -> SqlResult<()> {
        Ok(self.query_row(&format!("PRAGMA wal_autocheckpoint={pages}"), [], |_| Ok(()))?)
    }

    fn begin(&mut self) -> SqlResult<()> {
        Ok(self.execute_batch("BEGIN IMMEDIATE")?)
    }

    fn begin_snapshot(&mut self) -> SqlResult<()> {
        Ok(self.execute_batch("BEGIN; SELECT count(*) FROM m")?)
    }

    fn number(&mut self) -> SqlResult<i64> {
        Ok(self.query_row("SELECT n FROM m", [], |row| row.get(0))?)
    }

    fn work(&mut self, work: Work, n: i64) -> SqlResult<()> {
        let sql = match work {
            Work::Insert { rows, bytes } => format!(
                "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<{rows})
                 INSERT INTO t(x) SELECT randomblob({bytes}) FROM c"
            ),
            Work::Update { of } => {
                format!("UPDATE t SET x=randomblob(length(x)) WHERE id%{of}={}", n % i64::from(of))
            }
            Work::Delete { of } => format!("DELETE FROM t WHERE id%{of}={}", n % i64::from(of)),
            Work::Nothing => return Ok(()),
        };
        self.execute_batch(&sql)?;
        Ok(self.execute_batch("UPDATE m SET n=n+1")?)
    }

    fn fill(&mut self, number: i64) -> SqlResult<()> {
        Ok(self.execute_batch(&format!(
            "INSERT INTO t(x) VALUES(randomblob(700)),(randomblob(700)); UPDATE m SET n={number}"
        ))?)
    }

    fn undo_some(&mut self) -> SqlResult<()> {
        Ok(self.execute_batch("SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; RELEASE s")?)
    }

    fn set_synchronous(&mut self, mode: Synchronous) -> SqlResult<()> {
        Ok(self.execute_batch(&format!("PRAGMA synchronous={}", mode.sql()))?)
    }

    fn commit(&mut self) -> SqlResult<()> {
        Ok(self.execute_batch("COMMIT")?)
    }

    fn rollback(&mut self) -> SqlResult<()> {
        Ok(self.execute_batch("ROLLBACK")?)
    }

    fn vacuum(&mut self) -> SqlResult<()> {
        Ok(self.execute_batch("VACUUM")?)
    }

    fn vacuum_into(&mut self, path: &str) -> SqlResult<()> {
        Ok(self.execute_batch(&format!("VACUUM INTO '{path}'"))?)
    }

    fn checkpoint(&mut self, mode: &str) -> SqlResult<Counts> {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        Ok(self.query_row(&sql, [], |row| {
            let busy: i64 = row.get(0)?;
            Ok(Counts { busy: busy != 0, log: row.get(1)?, backfilled: row.get(2)? })
        })?)
    }

    fn leave_wal_mode(&mut self) -> SqlResult<bool> {
        self.execute_batch("PRAGMA synchronous=EXTRA")?;
        let mode: String = self.query_row("PRAGMA journal_mode=DELETE", [], |row| row.get(0))?;
        Ok(mode == "delete")
    }

    fn enter_wal_mode(&mut self) -> SqlResult<()> {
        Ok(self.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?)
    }

    fn set_page_size(&mut self, page_bytes: u32) -> SqlResult<()> {
        Ok(self.execute_batch(&format!("PRAGMA page_size={page_bytes}; VACUUM"))?)
    }

    fn is_autocommit(&self) -> bool {
        rusqlite::Connection::is_autocommit(self)
    }

    fn integrity(&mut self) -> SqlResult<String> {
        Ok(self.query_row("PRAGMA integrity_check", [], |row| row.get(0))?)
    }

    fn total(&mut self) -> SqlResult<u64> {
        let query = "SELECT count(*) + ifnull(sum(length(x)), 0) FROM t";
        Ok(self.query_row(query, [], |row| row.get::<_, i64>(0))? as u64)
    }

    fn traces(&mut self) -> SqlResult<i64> {
        let query =
            "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%litestream%' OR name LIKE '%driftless%'";
        Ok(self.query_row(query, [], |row| row.get(0))?)
    }

    fn close(self: Box<Self>) -> SqlResult<()> {
        rusqlite::Connection::close(*self).map_err(|(_, error)| error.into())
    }
}
