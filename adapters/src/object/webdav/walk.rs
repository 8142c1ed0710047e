//! All files below a prefix, in the order of their paths' bytes, collection by collection.

use driftless_core::ids::Wall;
use jiff::Timestamp;

use super::propfind::{ASK, parse};
use super::{Dav, TEMPORARY, server_time};
use crate::keys::Key;
use crate::object::http::Body;
use crate::object::problem::{Dialect, Effect};
use crate::object::store::ObjectStore;
use crate::store::{ListEntry, ListPage, StoreError, StoreErrorKind};

pub(in crate::object) struct Walk {
    prefix: String,
    after: Option<String>,
    /// Collections yet to be listed and files yet to be told, the next one last.
    ahead: Vec<Found>,
    server_time: Option<Timestamp>,
}

/// A file, or a collection if its path ends in a slash.
pub(super) struct Found {
    pub(super) path: String,
    len: u64,
    pub(super) modified: Option<Timestamp>,
}

impl Walk {
    /// Of the files whose paths begin with `prefix` and come after `after`.
    pub(super) fn new(prefix: &str, after: Option<String>) -> Walk {
        let collection = prefix.rsplit_once('/').map_or("/".into(), |(parent, _)| format!("{parent}/"));
        let start = Found { path: collection, len: 0, modified: None };
        Walk { prefix: prefix.to_owned(), after, ahead: vec![start], server_time: None }
    }

    /// The clock of the server when it answered last.
    pub(super) fn server_time(&self) -> Option<Timestamp> {
        self.server_time
    }

    pub(super) async fn next(&mut self, store: &ObjectStore, dav: &Dav) -> Result<Option<Found>, StoreError> {
        loop {
            let Some(found) = self.ahead.pop() else { return Ok(None) };
            if !found.path.ends_with('/') {
                return Ok(Some(found));
            }
            let mut within = self.list(store, dav, &found.path).await?;
            within.retain(|found| self.concerns(&found.path));
            within.sort_unstable_by(|a, b| b.path.cmp(&a.path));
            self.ahead.append(&mut within);
        }
    }

    fn concerns(&self, path: &str) -> bool {
        let after = self.after.as_ref().is_none_or(|after| {
            // Everything in a collection begins with its path.
            path > after.as_str() || path.ends_with('/') && after.as_str().starts_with(path)
        });
        let within = path.starts_with(&self.prefix) || path.ends_with('/') && self.prefix.starts_with(path);
        after && within
    }

    async fn list(&mut self, store: &ObjectStore, dav: &Dav, at: &str) -> Result<Vec<Found>, StoreError> {
        let call = store.call();
        let headers = [("depth", "1".to_owned()), ("content-type", "application/xml".to_owned())];
        let ask = Body::memory(ASK.as_bytes().to_vec());
        let collection = at.trim_start_matches('/');
        let (headers, body) = match dav.send(&call, "Propfind", "PROPFIND", collection, &headers, ask).await {
            Ok((head, body)) => (head.headers, body),
            Err(problem) => match problem.into_error(Dialect::WebDav, Effect::None, at) {
                // A collection that does not exist yet is empty.
                error if error.kind == StoreErrorKind::NotFound => return Ok(Vec::new()),
                error => return Err(error),
            },
        };
        self.server_time = server_time(&headers);
        let members = parse(&body).map_err(|cause| {
            StoreError::new(StoreErrorKind::Corrupt, at, format!("the list of its members: {cause}"))
        })?;
        let found = members.into_iter().filter_map(|member| {
            // The path on the server begins with that of the URL, and the collection lists itself.
            let path = member.path.strip_prefix(&dav.path)?;
            let slash = if member.is_collection { "/" } else { "" };
            let path = format!("{path}{slash}");
            let inside = path.strip_prefix(collection).is_some_and(|rest| !matches!(rest, "" | "/"));
            inside.then_some(Found { path, len: member.len.unwrap_or(0), modified: member.modified })
        });
        Ok(found.collect())
    }
}

impl ObjectStore {
    /// A page of a list.
    pub(in crate::object) async fn walk_page(
        &self,
        dav: &Dav,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        let (mut walk, first) = match self.walked().take(prefix, start_after) {
            Some((walk, next)) => (walk, Some(next)),
            None => (Walk::new(&self.path(prefix), start_after.map(|key| self.path(key.as_str()))), None),
        };
        let mut entries: Vec<ListEntry> = first.into_iter().collect();
        while let Some(found) = walk.next(self, dav).await? {
            if found.path.ends_with(TEMPORARY) {
                continue;
            }
            let Some(key) = self.key(&found.path) else { continue };
            let entry = ListEntry {
                key,
                len: found.len,
                modified: found.modified.map(|at| Wall(at.as_millisecond())),
            };
            if entries.len() < limit {
                entries.push(entry);
                continue;
            }
            if let Some(last) = entries.last() {
                self.walked().keep(self.executor(), prefix, last.key.clone(), entry, walk);
            }
            return Ok(ListPage { entries, more: true });
        }
        Ok(ListPage { entries, more: false })
    }
}
