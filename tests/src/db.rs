//! Databases: made, written, and compared.
//!
//! A database that another process uses must be looked at through SQLite only, and never with
//! `std::fs` in a process that has it open in SQLite: closing any descriptor of a file gives up all
//! POSIX locks that the process holds on it.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::python;

/// SHA-256 over the lines of Python's `iterdump`, each followed by a newline. Independent of our own
/// SQLite, and of page layout: two databases with this digest in common have the same content.
#[track_caller]
pub fn dump_digest(db: &Path) -> String {
    const SCRIPT: &str = "
import hashlib, pathlib, sqlite3, sys
db = sqlite3.connect(pathlib.Path(sys.argv[1]).resolve().as_uri() + '?mode=ro', uri=True)
db.execute('begin')
digest = hashlib.sha256()
for line in db.iterdump():
    digest.update(line.encode('utf-8', 'surrogatepass') + b'\\n')
print(digest.hexdigest())
";
    assert!(db.exists(), "{} is missing", db.display());
    python(SCRIPT, &[db.as_os_str()]).trim().to_owned()
}

/// Opens a database to read it. Nothing is checkpointed when it is closed.
#[track_caller]
pub fn open_to_read(db: &Path) -> Connection {
    let connection = Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .unwrap_or_else(|error| panic!("cannot open {}: {error}", db.display()));
    connection.busy_timeout(crate::PATIENCE).expect("any timeout will do");
    connection
}

/// Opens a database to write it, in WAL mode; makes one if there is none.
#[track_caller]
pub fn open_wal(db: &Path) -> Connection {
    let connection =
        Connection::open(db).unwrap_or_else(|error| panic!("cannot open {}: {error}", db.display()));
    connection.busy_timeout(crate::PATIENCE).expect("any timeout will do");
    let mode: String = connection
        .query_row("pragma journal_mode = wal", [], |row| row.get(0))
        .unwrap_or_else(|error| panic!("{} cannot be set to WAL mode: {error}", db.display()));
    assert_eq!(mode, "wal");
    connection
}

/// How many pages a database has.
#[track_caller]
pub fn pages(db: &Path) -> u64 {
    let count: i64 = pragma(&open_to_read(db), "page_count");
    count.cast_unsigned()
}

/// Fails the test unless SQLite finds nothing wrong with a database.
#[track_caller]
pub fn integrity_check(db: &Path) {
    let verdict: String = pragma(&open_to_read(db), "integrity_check");
    assert_eq!(verdict, "ok", "{}", db.display());
}

/// The value of a pragma.
#[track_caller]
pub fn pragma<T: rusqlite::types::FromSql>(db: &Connection, name: &str) -> T {
    db.query_row(&format!("pragma {name}"), [], |row| row.get(0))
        .unwrap_or_else(|error| panic!("pragma {name}: {error}"))
}

/// The rows of a query, each as its values joined by `|`: what to print when two contents differ.
#[track_caller]
pub fn content_lines(db: &Path, query: &str) -> Vec<String> {
    let connection = open_to_read(db);
    let mut statement = connection.prepare(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let values = (0..columns).map(|column| Ok(format!("{:?}", row.get_ref(column)?)));
        Ok(values.collect::<Result<Vec<String>, rusqlite::Error>>()?.join("|"))
    });
    rows.and_then(Iterator::collect).unwrap_or_else(|error| panic!("{query}: {error}"))
}
