//! Listing a directory tree in the order of keys, and sweeping what dead processes left in it.
//!
//! Keys sort by their bytes, and `/` is a byte like others: `a.b` comes before `a/x`, although a
//! walk that sorts names visits the directory `a` first. So directories are sorted with their
//! slash on. A subtree is entered only if a key in it can match; the names of one directory are
//! held at a time for each depth, and only objects on the page are looked into.

use std::time::Duration;

use driftless_core::ids::Wall;

use super::{DirectoryStore, is_reserved, store_error};
use crate::fs::{FileKind, Fs, FsError, FsErrorKind};
use crate::keys::Key;
use crate::store::{ListEntry, ListPage, StoreError};

/// One listing in progress.
struct Walk<'a> {
    prefix: &'a str,
    /// Only keys greater than this; empty for all.
    start_after: &'a str,
    limit: usize,
    page: ListPage,
}

impl Walk<'_> {
    /// Whether any key below `directory` (with its slash, or empty for the root) can match.
    fn enters(&self, directory: &str) -> bool {
        let in_prefix = directory.starts_with(self.prefix) || self.prefix.starts_with(directory);
        in_prefix && (directory > self.start_after || self.start_after.starts_with(directory))
    }

    fn shows(&self, key: &str) -> bool {
        key.starts_with(self.prefix) && key > self.start_after
    }
}

impl<F: Fs> DirectoryStore<F> {
    /// Up to `limit` (at least 1) objects; see [`Store::list`](crate::store::Store::list). Each
    /// directory on the way is read whole, and synced the first time that an object in it is shown.
    pub fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        let start_after = start_after.map_or("", Key::as_str);
        let mut walk = Walk { prefix, start_after, limit: limit.max(1), page: ListPage::default() };
        // The deepest directory that every match lies in; a prefix that is no path matches nothing.
        let base = match prefix.rsplit_once('/') {
            None => String::new(),
            Some((base, _)) if Key::new(base).is_ok() => format!("{base}/"),
            Some(_) => return Ok(walk.page),
        };
        self.walk(&base, &mut walk).map_err(|e| store_error(self.path(&base).display(), e))?;
        Ok(walk.page)
    }

    /// Removes temporaries of this store's kind below `prefix` (a directory with its slash, or
    /// empty for all) that were last written to before `older_than` ago, and returns how many.
    ///
    /// Whether a writer is dead cannot be told from here (it may be on another host), so `older_than`
    /// is how long a live one may pause between two parts. `now` should come from the clock of the
    /// host that keeps the files.
    pub fn sweep_temporaries(
        &self,
        prefix: &str,
        now: Wall,
        older_than: Duration,
    ) -> Result<u64, StoreError> {
        let age_ms = i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX);
        let before = Wall(now.0.saturating_sub(age_ms));
        self.sweep(prefix, before).map_err(|e| store_error(self.path(prefix).display(), e))
    }

    /// Adds the matches below `directory` to the page; `false` once the page is full and more
    /// follow.
    fn walk(&self, directory: &str, walk: &mut Walk<'_>) -> Result<bool, FsError> {
        if !walk.enters(directory) {
            return Ok(true);
        }
        let mut names = Vec::new();
        for (name, kind) in self.names(directory)? {
            match kind {
                FileKind::File if !is_reserved(&name) => names.push(name),
                FileKind::Dir if !is_reserved(&name) => names.push(name + "/"),
                _ => {}
            }
        }
        names.sort_unstable();
        for name in names {
            let path = format!("{directory}{name}");
            let goes_on = match Key::new(path.as_str()) {
                _ if path.ends_with('/') => self.walk(&path, walk)?,
                Ok(key) if walk.shows(&path) => self.show(key, walk)?,
                // Longer than any key: foreign.
                _ => true,
            };
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn show(&self, key: Key, walk: &mut Walk<'_>) -> Result<bool, FsError> {
        if walk.page.entries.len() == walk.limit {
            walk.page.more = true;
            return Ok(false);
        }
        match self.shared.fs.stat(&self.path(key.as_str())) {
            Ok(facts) => {
                // The name was read before this sync, so the sync covers it.
                self.settle(key.directory())?;
                walk.page.entries.push(ListEntry { key, len: facts.len, modified: Some(facts.modified) });
                Ok(true)
            }
            // Deleted since the directory was read.
            Err(e) if e.kind == FsErrorKind::NotFound => Ok(true),
            Err(e) => Err(e),
        }
    }

    fn sweep(&self, directory: &str, before: Wall) -> Result<u64, FsError> {
        let mut removed = 0;
        for (name, kind) in self.names(directory)? {
            let path = format!("{directory}{name}");
            match kind {
                FileKind::Dir => removed += self.sweep(&format!("{path}/"), before)?,
                FileKind::File if is_own_temporary(&name) => {
                    let file = self.path(&path);
                    let stale = self.shared.fs.stat(&file).is_ok_and(|facts| facts.modified < before);
                    if stale && self.shared.fs.remove(&file).is_ok() {
                        removed += 1;
                    }
                }
                _ => {}
            }
        }
        Ok(removed)
    }

    /// The names in a directory that can be part of a key, in no particular order; none where
    /// there is no such directory.
    fn names(&self, directory: &str) -> Result<Vec<(String, FileKind)>, FsError> {
        match self.shared.fs.list_dir(&self.path(directory)) {
            Ok(entries) => {
                Ok(entries.into_iter().filter_map(|e| Some((e.name.into_string().ok()?, e.kind))).collect())
            }
            Err(e) if matches!(e.kind, FsErrorKind::NotFound | FsErrorKind::BadPath) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }
}

/// Whether a name is `.<name>.<process>-<n>.tmp`, as [`DirectoryStore`] makes them.
fn is_own_temporary(name: &str) -> bool {
    let numbers = || {
        let (stem, numbers) = name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.')?;
        let (process, n) = numbers.split_once('-')?;
        Some(!stem.is_empty() && process.parse::<u32>().is_ok() && n.parse::<u64>().is_ok())
    };
    numbers() == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_temporaries_are_swept() {
        assert!(is_own_temporary(".0000000000000001-0000000000000001.ltx.12-0.tmp"));
        assert!(is_own_temporary(".a.1-18446744073709551615.tmp"));
        for name in
            ["a.ltx.tmp", ".a.tmp", ".a.1-2", ".a.x-2.tmp", "a.1-2.tmp", ".a.1-2.tmp.bak", "..1-2.tmp"]
        {
            assert!(!is_own_temporary(name), "{name}");
        }
    }
}
