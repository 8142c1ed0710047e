//! No file twice, no replica twice.
//!
//! Two engines on one database file would lose each other's locks, and two databases on one
//! replica would fence each other. Names do not tell: a file has as many as there are links and
//! mounts. So files are compared by what they are, where they exist, and by their real paths
//! otherwise. Nothing is opened for that.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
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

/// What the file of a database and its replica are known by, as hashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Keys {
    files: [Option<u64>; 2],
    places: [Option<u64>; 2],
}

impl Keys {
    fn all(&self) -> impl Iterator<Item = u64> {
        self.files.into_iter().chain(self.places).flatten()
    }
}

/// Databases and replicas that are taken, by a number of whoever has taken them.
///
/// What a file is changes while it is followed: a key that is found counts only if its holder has it
/// still. A key that its holder has come to since is not found; then the engines refuse the second name
/// of a file, and the store's conditions the second writer.
#[derive(Default)]
pub(crate) struct Twins {
    hasher: RandomState,
    taken: BTreeMap<u64, u32>,
    /// Holders that are no more, since their keys were last cleared away.
    gone: usize,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Path(PathBuf),
    File(u64, u64),
    ReplicaPath(PathBuf),
    ReplicaDirectory(u64, u64),
    ReplicaObject(String),
}

impl Twins {
    /// None taken, by the same hashes.
    pub(crate) fn sibling(&self) -> Twins {
        Twins { hasher: self.hasher.clone(), ..Twins::default() }
    }

    /// What these are known by now.
    pub(crate) fn keys(&self, database: &Path, replica: &Replica) -> Keys {
        let hashes = |keys: Vec<Key>| {
            let mut hashes = keys.iter().map(|key| self.hasher.hash_one(key));
            [hashes.next(), hashes.next()]
        };
        Keys { files: hashes(keys_of_database(database)), places: hashes(keys_of_replica(replica)) }
    }

    /// Takes a database and its replica; `other` says what the holder of a number has.
    ///
    /// # Errors
    /// When another one has either; nothing is taken then.
    pub(crate) fn take(
        &mut self,
        number: u32,
        keys: &Keys,
        whose: (&Path, &Replica),
        other: impl Fn(u32) -> Option<(PathBuf, Replica)>,
    ) -> Result<(), Refusal> {
        self.refuse(keys, whose, other)?;
        self.put(number, keys);
        Ok(())
    }

    /// Whether another one has a database or its replica.
    ///
    /// # Errors
    /// When it has.
    pub(crate) fn refuse(
        &self,
        keys: &Keys,
        (database, replica): (&Path, &Replica),
        other: impl Fn(u32) -> Option<(PathBuf, Replica)>,
    ) -> Result<(), Refusal> {
        let holder = |key: &Option<u64>, files: bool| {
            let (path, replica) = other(*self.taken.get(&(*key)?)?)?;
            let keys = self.keys(&path, &replica);
            let held = if files { keys.files } else { keys.places };
            held.contains(key).then_some(path)
        };
        if let Some(other) = keys.files.iter().find_map(|key| holder(key, true)) {
            let error = match other == database {
                true => format!("{} is replicated already", database.display()),
                false => format!("{} is the same file as {}", database.display(), other.display()),
            };
            let hint = "a database has one replica, and one name here".to_owned();
            return Err(Refusal { error, hint });
        }
        if let Some(other) = keys.places.iter().find_map(|key| holder(key, false)) {
            let error =
                format!("{} has the replica of {}: {}", database.display(), other.display(), replica.url());
            return Err(Refusal { error, hint: "give each database a replica of its own".to_owned() });
        }
        Ok(())
    }

    /// Takes a database and its replica, of which it is known that nobody has them.
    pub(crate) fn put(&mut self, number: u32, keys: &Keys) {
        self.taken.extend(keys.all().map(|key| (key, number)));
    }

    /// A holder is no more. What it had is cleared away when there are many such; `goes_on` knows the
    /// others.
    pub(crate) fn forget(&mut self, goes_on: impl Fn(u32) -> bool) {
        self.gone += 1;
        if self.gone * 8 > self.taken.len() {
            self.gone = 0;
            self.taken.retain(|_, number| goes_on(*number));
        }
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
        let taken = std::cell::RefCell::new(Vec::new());
        let mut take = |database: &str, replica: &str| {
            let (database, replica) = (dir.join(database), Replica::Directory(dir.join(replica)));
            let number = taken.borrow().len() as u32;
            let keys = twins.keys(&database, &replica);
            let other = |number: u32| taken.borrow().get(number as usize).cloned();
            twins.take(number, &keys, (&database, &replica), other)?;
            taken.borrow_mut().push((database, replica));
            Ok(())
        };
        assert_eq!(take("real/a.db", "real/replica"), Ok(()));
        for (database, replica, word) in [
            ("real/a.db", "x", "already"),
            ("link/a.db", "x", "the same file"),
            ("b.db", "x", "the same file"),
            ("c.db", "link/replica", "has the replica of"),
        ] {
            let refusal: Refusal = take(database, replica).unwrap_err();
            assert!(refusal.error.contains(word), "{database}: {refusal:?}");
        }
        // Neither is there yet.
        assert_eq!(take("link/new.db", "x"), Ok(()));
        assert!(take("real/new.db", "y").is_err());
        // The file that was known by this is another one now.
        std::fs::rename(dir.join("real/a.db"), dir.join("moved.db")).unwrap();
        std::fs::write(dir.join("real/a.db"), b"").unwrap();
        assert_eq!(take("moved.db", "z"), Ok(()));
        assert!(take("real/a.db", "u").is_err());
        assert!(is_same_file(&dir.join("real/new.db"), &dir.join("link/new.db")));
        let len = twins.taken.len();
        (0..3).for_each(|_| twins.forget(|number| number == 0));
        assert!(twins.taken.len() < len && twins.taken.values().all(|number| *number == 0));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
