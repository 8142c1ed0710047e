//! Whether something stands where a restore is to put its file.
//!
//! A database that was removed by its name alone may leave its `-wal` or `-journal`, and SQLite
//! would replay either into whatever database takes the name: the result would be another state
//! than the one restored, or none at all. They may also hold the last transactions that nobody
//! else has. So what remains is for a person to look at.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What stands at the target of a restore.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Vacancy {
    /// Nothing that counts. An empty file that no transaction has touched is what opening a
    /// database leaves behind, and counts as none, as in Litestream.
    Free {
        /// Whether something empty stands there and has to make way.
        replace: bool,
    },
    /// A database, or whatever else has the name.
    Taken,
    /// No database, but the `-wal` or `-journal` of one.
    Remains(PathBuf),
}

impl Vacancy {
    /// Looks at a path.
    ///
    /// # Errors
    /// When the path cannot be looked at.
    pub fn of(target: &Path) -> io::Result<Vacancy> {
        let companion = |suffix: &str| {
            let mut name = target.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let companions = ["-wal", "-journal", "-shm"].map(companion);
        let filled = |path: &&PathBuf| fs::metadata(path).is_ok_and(|facts| facts.len() > 0);
        let remains = companions[..2].iter().find(filled);
        match fs::symlink_metadata(target) {
            Ok(facts) if facts.is_file() && facts.len() == 0 && remains.is_none() => {
                Ok(Vacancy::Free { replace: true })
            }
            Ok(_) => Ok(Vacancy::Taken),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(match remains {
                Some(remains) => Vacancy::Remains(remains.clone()),
                None => Vacancy::Free { replace: companions.iter().any(|path| path.exists()) },
            }),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sqlite_would_replay_is_seen() {
        let directory = std::env::temp_dir().join(format!("driftless-vacancy-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let at = |name: &str| directory.join(name);
        let check = |expected: Vacancy| assert_eq!(Vacancy::of(&at("a.db")).unwrap(), expected);
        check(Vacancy::Free { replace: false });
        fs::write(at("a.db-wal"), b"").unwrap();
        fs::write(at("a.db-shm"), b"s").unwrap();
        check(Vacancy::Free { replace: true });
        for name in ["a.db-wal", "a.db-journal"] {
            fs::write(at(name), b"w").unwrap();
            check(Vacancy::Remains(at(name)));
            fs::write(at("a.db"), b"").unwrap();
            check(Vacancy::Taken);
            fs::remove_file(at("a.db")).unwrap();
            fs::remove_file(at(name)).unwrap();
        }
        fs::write(at("a.db"), b"").unwrap();
        check(Vacancy::Free { replace: true });
        fs::write(at("a.db"), b"x").unwrap();
        check(Vacancy::Taken);
        fs::remove_dir_all(directory).unwrap();
        assert!(Vacancy::of(Path::new("/proc/self/status/x")).is_err());
    }
}
