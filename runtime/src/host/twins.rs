//! No file twice, no replica twice.
//!
//! Two engines on one database file would lose each other's locks, and two databases on one
//! replica would fence each other. Names do not tell: a file has as many as there are links and
//! mounts. So files are compared by what they are, where they exist, and by their real paths
//! otherwise. Nothing is opened for that.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::Replica;

/// Why a database cannot be one of this process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    /// What is wrong.
    pub(crate) error: String,
    /// What to do instead.
    pub(crate) hint: String,
}

/// Databases and replicas that are taken, each with the database that has taken it.
#[derive(Default)]
pub(crate) struct Twins(BTreeMap<Key, PathBuf>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Path(PathBuf),
    File(u64, u64),
    ReplicaPath(PathBuf),
    ReplicaDirectory(u64, u64),
    ReplicaObject(String),
}

impl Twins {
    /// Takes a database and its replica.
    ///
    /// # Errors
    /// When another one has either; nothing is taken then.
    pub(crate) fn take(&mut self, database: &Path, replica: &Replica) -> Result<(), Refusal> {
        let (files, places) = (keys_of_database(database), keys_of_replica(replica));
        if let Some(other) = files.iter().find_map(|key| self.0.get(key)) {
            let error = match other == database {
                true => format!("{} is replicated already", database.display()),
                false => format!("{} is the same file as {}", database.display(), other.display()),
            };
            let hint = "a database has one replica, and one name here".to_owned();
            return Err(Refusal { error, hint });
        }
        if let Some(other) = places.iter().find_map(|key| self.0.get(key)) {
            let error =
                format!("{} has the replica of {}: {}", database.display(), other.display(), replica.url());
            return Err(Refusal { error, hint: "give each database a replica of its own".to_owned() });
        }
        for key in files.into_iter().chain(places) {
            self.0.insert(key, database.to_path_buf());
        }
        Ok(())
    }
}

/// Whether two paths name one file, or would.
pub(crate) fn is_same_file(one: &Path, other: &Path) -> bool {
    let keys = keys_of_database(one);
    keys_of_database(other).iter().any(|key| keys.contains(key))
}

fn keys_of_database(database: &Path) -> Vec<Key> {
    let id = database.metadata().ok().map(|facts| Key::File(facts.dev(), facts.ino()));
    [Key::Path(real_path(database))].into_iter().chain(id).collect()
}

fn keys_of_replica(replica: &Replica) -> Vec<Key> {
    match replica {
        Replica::Directory(directory) => {
            let id = directory.metadata().ok().map(|facts| Key::ReplicaDirectory(facts.dev(), facts.ino()));
            [Key::ReplicaPath(real_path(directory))].into_iter().chain(id).collect()
        }
        Replica::Object(settings) => {
            vec![Key::ReplicaObject(format!("{} {}", settings.server(), settings.url()))]
        }
    }
}

/// A path without symbolic links in the part of it that exists.
fn real_path(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            let rest = path.strip_prefix(ancestor).expect("an ancestor is a prefix");
            // An empty rest would add a slash.
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    path.to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_a_replica_are_known_by_any_name() {
        let dir = std::env::temp_dir().join(format!("driftless-twins-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("real")).unwrap();
        std::fs::write(dir.join("real/a.db"), b"").unwrap();
        std::os::unix::fs::symlink(dir.join("real"), dir.join("link")).unwrap();
        std::os::unix::fs::symlink(dir.join("real/a.db"), dir.join("b.db")).unwrap();
        let mut twins = Twins::default();
        let mut take = |database: &str, replica: &str| {
            twins.take(&dir.join(database), &Replica::Directory(dir.join(replica)))
        };
        assert_eq!(take("real/a.db", "real/replica"), Ok(()));
        for (database, replica, word) in [
            ("real/a.db", "x", "already"),
            ("link/a.db", "x", "the same file"),
            ("b.db", "x", "the same file"),
            ("c.db", "link/replica", "has the replica of"),
        ] {
            let refusal = take(database, replica).unwrap_err();
            assert!(refusal.error.contains(word), "{database}: {refusal:?}");
        }
        // Neither is there yet.
        assert_eq!(take("link/new.db", "x"), Ok(()));
        assert!(take("real/new.db", "y").is_err());
        assert!(is_same_file(&dir.join("real/new.db"), &dir.join("link/new.db")));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
