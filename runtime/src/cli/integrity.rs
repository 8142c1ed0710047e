//! Asking SQLite whether a file is a sound database.
//!
//! The file has just been built and nobody else knows its name, so it is opened as immutable:
//! without locks, and without leaving a `-wal` or `-shm` beside it. SQLite refuses to open a file
//! in WAL mode read-only where it cannot make those.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::error::CliError;

/// How much SQLite is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Integrity {
    /// Nothing.
    #[default]
    None,
    /// `quick_check`: structure, not the agreement of indexes with tables.
    Quick,
    /// `integrity_check`: everything.
    Full,
}

impl Integrity {
    /// Reads the value of `-integrity-check`.
    pub fn parse(text: Option<&str>) -> Result<Integrity, CliError> {
        match text {
            None | Some("none") => Ok(Integrity::None),
            Some("quick") => Ok(Integrity::Quick),
            Some("full") => Ok(Integrity::Full),
            Some(other) => {
                Err(CliError::usage(format!("unknown integrity check: {other:?}"))
                    .hint("none, quick or full"))
            }
        }
    }

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Integrity::None => "none",
            Integrity::Quick => "quick",
            Integrity::Full => "full",
        }
    }

    /// Asks. An error is what SQLite found, for people.
    pub fn check(self, file: &Path) -> Result<(), String> {
        let pragma = match self {
            Integrity::None => return Ok(()),
            Integrity::Quick => "pragma quick_check(10)",
            Integrity::Full => "pragma integrity_check(10)",
        };
        // SQLite knows a database of no bytes, and has nothing to say about it.
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let findings = Connection::open_with_flags(immutable_uri(file), flags).and_then(|connection| {
            let mut statement = connection.prepare(pragma)?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            rows.collect::<Result<Vec<String>, _>>()
        });
        match findings {
            Ok(findings) if findings == ["ok"] => Ok(()),
            Ok(findings) => Err(findings.join("; ")),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn immutable_uri(file: &Path) -> String {
    let mut uri = String::from("file:");
    for &byte in file.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => uri.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            byte => write!(uri, "%{byte:02x}").expect("strings take any text"),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_found_and_nothing_is_left_behind() {
        let directory = std::env::temp_dir().join(format!("driftless integrity?{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("a#b.db");
        let connection = Connection::open(&file).unwrap();
        let sql = "pragma journal_mode = wal; create table t(a); create index i on t(a);
                   with recursive n(x) as (select 1 union all select x + 1 from n where x < 5000)
                   insert into t select x from n;";
        connection.execute_batch(sql).unwrap();
        connection.close().unwrap();
        for mode in [Integrity::None, Integrity::Quick, Integrity::Full] {
            assert_eq!(mode.check(&file), Ok(()));
        }
        let left: Vec<_> =
            std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["a#b.db"]);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[8192..12288].fill(0xff);
        std::fs::write(&file, bytes).unwrap();
        assert!(Integrity::Quick.check(&file).is_err());
        assert!(Integrity::Full.check(&file).is_err());
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn modes_are_three() {
        assert_eq!(Integrity::parse(None), Ok(Integrity::None));
        assert_eq!(Integrity::parse(Some("full")).map(Integrity::word), Ok("full"));
        assert_eq!(Integrity::parse(Some("fast")).unwrap_err().code, 2);
    }
}
