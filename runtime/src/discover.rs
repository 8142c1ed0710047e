//! Which databases a directory holds, by the rules of a configuration's `dir`.
//!
//! A database is a regular file whose name matches the pattern and whose first sixteen bytes are
//! those that SQLite writes: Litestream's rule. Never one are the companions of a database, what
//! our restores are building, and what lies in a directory of a replicator's own. Symbolic links
//! are not followed: beside another name of a file there is another `-wal`.
//!
//! To close a descriptor of a database drops the locks that this process holds on it through
//! SQLite. So a file is looked into behind the claim that links take as well
//! ([`probe::is_database`]), and a caller that has databases leaves them out.

mod pattern;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::config::{About, Replica, Settings};
use crate::host::ReplicateJob;
use crate::sqlite::probe::{self, ProbeError};
pub use pattern::Pattern;

/// A directory of databases.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Directory {
    /// The directory, absolute.
    pub root: PathBuf,
    /// What the names of its databases are like.
    pub pattern: Pattern,
    /// Whether directories below it are looked into as well.
    pub recursive: bool,
    /// Whether databases that come later are replicated, too.
    pub watch: bool,
    /// The place below which each database has its replica, at its path from the root.
    pub replica: Replica,
    /// How that is reached, in words.
    pub about: About,
    /// How each is replicated.
    pub settings: Arc<Settings>,
    /// Whether to restore all from their replicas at the start, where there is none.
    pub restore_if_missing: bool,
}

/// What one look at a directory has found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listing {
    /// Files that may be databases, by their names.
    pub candidates: Vec<PathBuf>,
    /// Directories that belong to it.
    pub directories: Vec<PathBuf>,
    /// Files that have a database's name and are symbolic links.
    pub links: Vec<PathBuf>,
}

/// What a look at a directory and all below it has found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scan {
    /// The databases, in the order of their paths.
    pub databases: Vec<PathBuf>,
    /// The directory, and those below it if they are looked into.
    pub directories: Vec<PathBuf>,
    /// What was passed over, and why.
    pub passed_over: Vec<(PathBuf, String)>,
}

/// Why a link is passed over.
pub const IS_A_LINK: &str = "it is a symbolic link: name its target under dbs, with path";
/// Why a name is passed over.
pub const IS_NO_TEXT: &str = "its name is no utf-8, as object stores want it";

/// An error with its cause.
pub fn in_words(error: &ProbeError) -> String {
    match error {
        ProbeError::Io { source, .. } => source.to_string(),
        error => error.to_string(),
    }
}

impl Directory {
    /// The path of a database from the root, if the rules admit one there. Nothing is looked at: the
    /// file may be gone.
    pub fn admits<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        let relative = path.strip_prefix(&self.root).ok()?;
        let name = relative.file_name()?;
        let mut above = relative.parent().into_iter().flat_map(Path::components);
        let inside = above.clone().next().is_none_or(|_| self.recursive);
        let plain = above.all(|part| matches!(part, Component::Normal(name) if !is_of_replicators(name)));
        (inside && plain && self.admits_name(name)).then_some(relative)
    }

    /// Whether a directory is looked into.
    pub fn looks_into(&self, directory: &Path) -> bool {
        let Ok(relative) = directory.strip_prefix(&self.root) else { return false };
        let ours = || relative.components().all(|part| !is_of_replicators(part.as_os_str()));
        relative.as_os_str().is_empty() || (self.recursive && ours() && !self.is_replica(directory))
    }

    /// How the database of a path is replicated; `None` where the rules admit none, or its path is no
    /// name for an object store.
    pub fn job_for(&self, path: &Path) -> Option<ReplicateJob> {
        Some(ReplicateJob {
            database: path.to_path_buf(),
            replica: self.replica.below(self.admits(path)?)?,
            settings: self.settings.clone(),
            restore_if_missing: false,
        })
    }

    /// Lists a directory of it, without what lies below and without looking into any file.
    ///
    /// # Errors
    /// As the system says.
    pub fn list(&self, directory: &Path) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            // What is gone meanwhile was never there.
            let Ok(kind) = entry.file_type() else { continue };
            let (name, path) = (entry.file_name(), entry.path());
            match (kind.is_dir(), kind.is_file(), kind.is_symlink()) {
                (true, ..) if self.looks_into(&path) => listing.directories.push(path),
                (_, true, _) if self.admits_name(&name) => listing.candidates.push(path),
                (_, _, true) if self.admits_name(&name) && path.is_file() => listing.links.push(path),
                _ => {}
            }
        }
        Ok(listing)
    }

    /// Finds all databases. One file is open at a time, and sixteen bytes of it are read.
    ///
    /// # Errors
    /// When the directory cannot be listed. One below it that cannot is passed over.
    pub fn scan(&self) -> io::Result<Scan> {
        let mut scan = Scan::default();
        let mut left = vec![self.root.clone()];
        while let Some(directory) = left.pop() {
            let listing = match self.list(&directory) {
                Ok(listing) => listing,
                Err(error) if directory == self.root => return Err(error),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    scan.passed_over.push((directory, error.to_string()));
                    continue;
                }
            };
            scan.directories.push(directory);
            left.extend(listing.directories);
            scan.passed_over.extend(listing.links.into_iter().map(|path| (path, IS_A_LINK.to_owned())));
            for path in listing.candidates {
                match probe::is_database(&path) {
                    Ok(true) if self.replica_of(&path).is_none() => {
                        scan.passed_over.push((path, IS_NO_TEXT.to_owned()));
                    }
                    Ok(true) => scan.databases.push(path),
                    Ok(false) => {}
                    // This process has it already.
                    Err(ProbeError::Linked(_)) => scan.databases.push(path),
                    Err(_) if !path.exists() => {}
                    Err(error) => scan.passed_over.push((path, in_words(&error))),
                }
            }
        }
        scan.databases.sort_unstable();
        Ok(scan)
    }

    /// Whether two would find the same files, whatever those are called.
    pub fn overlaps(&self, other: &Directory) -> bool {
        let inside = |one: &Directory, other: &Directory| {
            one.root == other.root || (other.recursive && one.root.starts_with(&other.root))
        };
        self.pattern == other.pattern && (inside(self, other) || inside(other, self))
    }

    fn replica_of(&self, path: &Path) -> Option<Replica> {
        self.replica.below(self.admits(path)?)
    }

    /// Whether a directory is where the replicas are: they may lie below what they are of.
    fn is_replica(&self, directory: &Path) -> bool {
        self.replica.directory() == Some(directory)
    }

    fn admits_name(&self, name: &OsStr) -> bool {
        self.pattern.matches(&name.to_string_lossy())
            && database_of(name).is_none()
            && !is_being_restored(name)
            && !is_kept_aside(name)
    }
}

/// Where local state is kept for a directory of databases, unless told otherwise. It lies inside: the
/// directory may be a mount of its own, and it can be written.
pub fn default_state_dir(root: &Path) -> PathBuf {
    root.join(".driftless")
}

/// The name of the database whose companion has this name.
pub fn database_of(name: &OsStr) -> Option<&OsStr> {
    let bytes = name.as_bytes();
    let stem = [b"-wal".as_slice(), b"-shm", b"-journal"].iter().find_map(|end| bytes.strip_suffix(*end))?;
    (!stem.is_empty()).then(|| OsStr::from_bytes(stem))
}

/// A directory that is a replicator's own, and holds no database.
fn is_of_replicators(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    let own = bytes.ends_with(b"-driftless") || bytes.ends_with(b"-litestream");
    bytes == b".driftless" || (bytes.starts_with(b".") && own)
}

/// A file that a restore builds, or has put aside.
fn is_being_restored(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    bytes.ends_with(b".driftless-restore") || bytes.ends_with(b".driftless-old")
}

/// A database that a host has kept when it became a copy: `NAME.unreplicated-EPOCH`.
fn is_kept_aside(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let number = name.rsplit_once(".unreplicated-").map(|(_, number)| number);
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'))
}

#[cfg(test)]
mod tests;
