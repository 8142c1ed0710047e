//! An entry under `dbs` that is about a directory of databases: `dir`, `pattern`, `recursive`, `watch`.
//!
//! Litestream passes over the last three where there is no `dir`, and lets two entries find one file,
//! which it then replicates twice. Both are errors here.

use std::fmt;
use std::path::{Path, PathBuf};

use super::scope::{Result, Scope};
use super::yaml::{LineError, Node};
use crate::discover::{Directory, Pattern};

/// Where the databases of an entry are.
pub(super) enum Place {
    /// It is one.
    File(PathBuf),
    /// They are found by a pattern.
    Directory { root: PathBuf, pattern: Pattern, recursive: bool, watch: bool },
}

impl Place {
    pub(super) fn path(&self) -> &Path {
        match self {
            Place::File(path) | Place::Directory { root: path, .. } => path,
        }
    }

    pub(super) fn holds_many(&self) -> bool {
        matches!(self, Place::Directory { .. })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.holds_many() { "directory" } else { "database" };
        write!(f, "the {what} {}", self.path().display())
    }
}

/// Reads where the databases of an entry are.
pub(super) fn place(node: &Node, scope: &Scope<'_>) -> Result<Place> {
    let (path, dir) = (scope.path("path")?, scope.path("dir")?);
    let (recursive, watch) = (scope.boolean("recursive")?, scope.boolean("watch")?);
    match (path, dir) {
        (Some(_), Some(_)) => {
            let line = scope.entry("dir").map_or(node.line, |entry| entry.line);
            Err(LineError::new(line, "an entry has both path and dir")
                .hint("keep path for one database, or dir for all of a directory"))
        }
        (Some(path), None) => {
            let set = |name: &&str| scope.entry(name).is_some();
            let flags = [("recursive", recursive), ("watch", watch)];
            let flag = flags.iter().find(|(_, set)| *set == Some(true)).map(|(name, _)| *name);
            match ["pattern", "meta-dir"].into_iter().find(set).or(flag) {
                None => Ok(Place::File(path)),
                Some(name) => {
                    let line = scope.entry(name).map_or(node.line, |entry| entry.line);
                    Err(LineError::new(line, format!("{name} goes with dir, and this entry has a path"))
                        .hint("leave it out, or write dir: for a directory of databases"))
                }
            }
        }
        (None, Some(root)) => {
            if let (Some(_), Some(entry)) = (scope.entry("meta-path"), scope.entry("meta-dir")) {
                return Err(LineError::new(entry.line, "an entry has both meta-path and meta-dir")
                    .hint("keep one of them"));
            }
            let (recursive, watch) = (recursive.unwrap_or(false), watch.unwrap_or(false));
            Ok(Place::Directory { pattern: pattern(node, scope, &root)?, root, recursive, watch })
        }
        (None, None) => Err(LineError::new(node.line, "a database has no path")
            .hint("give path: /srv/app.db, or dir: and pattern: for a directory of them")),
    }
}

fn pattern(node: &Node, scope: &Scope<'_>, root: &Path) -> Result<Pattern> {
    let Some(text) = scope.filled("pattern")? else {
        return Err(LineError::new(node.line, format!("the directory {} has no pattern", root.display()))
            .hint("give pattern: \"*.db\", or \"*\" for every database in it"));
    };
    let line = scope.entry("pattern").map_or(node.line, |entry| entry.line);
    Pattern::parse(text).map_err(|why| {
        let error = LineError::new(line, format!("the pattern {text:?} cannot be used: {why}"));
        error.hint("write it as for a shell, such as \"*.db\"; recursive: true looks into directories below")
    })
}

/// Two entries that find one file would replicate it to two places, and two directories of one place
/// would put two databases into one replica.
pub(super) fn refuse_overlap(known: &[Directory], new: &Directory, line: usize) -> Result<()> {
    for old in known {
        let (new_root, old_root, pattern) = (new.root.display(), old.root.display(), &new.pattern);
        if new.overlaps(old) {
            let what = match new.root == old.root {
                true => format!("{new_root} stands twice under dbs with the pattern {pattern}"),
                false => format!("{new_root} and {old_root} would both find the same files: {pattern}"),
            };
            return Err(LineError::new(line, what)
                .hint("give each file one entry: another pattern, or one of the two"));
        }
        if new.root != old.root && new.replica.same_place(&old.replica) {
            let url = new.replica.url();
            return Err(LineError::new(line, format!("{new_root} has the replica of {old_root}: {url}"))
                .hint("give each directory a place of its own: files of the same name would share one"));
        }
    }
    Ok(())
}
