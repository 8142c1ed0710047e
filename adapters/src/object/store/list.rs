//! Listing, one page at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use driftless_core::ids::Wall;
use opendal::options;
use opendal::raw::{OpList, oio};

use super::{Call, ObjectStore};
use crate::keys::Key;
use crate::object::problem::Dialect;
use crate::store::{ListEntry, ListPage, StoreError, StoreErrorKind};
use crate::timer::Timer;

/// The most that servers put into one answer, less the entry that says whether more follow.
const PAGE_MAX: usize = 999;
/// How long an unfinished listing is kept to be gone on with.
const RESUME: Duration = Duration::from_secs(30);

/// A list that was left off in the middle, for the page that is asked for next. Azure goes on by
/// its own marks only: it knows no key to start after.
pub(in crate::object) struct Resumed<T> {
    slot: Arc<Slot<T>>,
    time: Duration,
}

type Slot<T> = Mutex<Option<Box<Unfinished<T>>>>;

struct Unfinished<T> {
    prefix: String,
    after: Key,
    /// The entry after that, read already.
    next: ListEntry,
    rest: T,
    /// Drops it after its time.
    _end: smol::Task<()>,
}

impl<T> Default for Resumed<T> {
    fn default() -> Resumed<T> {
        Resumed { slot: Arc::default(), time: RESUME }
    }
}

impl<T: Send + 'static> Resumed<T> {
    pub(in crate::object) fn take(&self, prefix: &str, after: Option<&Key>) -> Option<(T, ListEntry)> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = slot.take_if(|kept| kept.prefix == prefix && Some(&kept.after) == after)?;
        Some((kept.rest, kept.next))
    }

    pub(in crate::object) fn keep(
        &self,
        executor: &smol::Executor<'static>,
        prefix: &str,
        after: Key,
        next: ListEntry,
        rest: T,
    ) {
        let (slot, time) = (Arc::downgrade(&self.slot), self.time);
        let end = executor.spawn(async move {
            Timer::after(time).await;
            if let Some(slot) = slot.upgrade() {
                slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            }
        });
        let kept = Unfinished { prefix: prefix.to_owned(), after, next, rest, _end: end };
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(kept));
    }
}

/// A list under way.
pub(super) struct Listing {
    call: Call,
    lister: oio::Lister,
}

impl Listing {
    /// The next object that has a key of ours.
    async fn next(&mut self, store: &ObjectStore, subject: &str) -> Result<Option<ListEntry>, StoreError> {
        loop {
            let next = self.lister.next_dyn().await.map_err(|error| self.call.error(error, subject))?;
            let Some(entry) = next else { return Ok(None) };
            let (path, meta) = (entry.path(), entry.metadata());
            let Some(key) = store.key(path) else { continue };
            let modified = meta.last_modified().map(|at| Wall(at.into_inner().as_millisecond()));
            return Ok(Some(ListEntry { key, len: meta.content_length(), modified }));
        }
    }
}

impl ObjectStore {
    pub(super) async fn page(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<ListPage, StoreError> {
        let limit = limit.min(PAGE_MAX);
        // What goes wrong with a list is the bucket's, whatever is looked for in it.
        let subject = self.place.name.as_str();
        let resumable = self.place.dialect == Dialect::Azure;
        let resumed = if resumable { self.resumed.take(prefix, start_after) } else { None };
        let (mut listing, first) = match resumed {
            Some((listing, next)) => (listing, Some(next)),
            None => (self.begin_list(prefix, start_after, limit, subject)?, None),
        };
        let mut entries: Vec<ListEntry> = first.into_iter().collect();
        while let Some(entry) = listing.next(self, subject).await? {
            if Some(&entry.key) <= start_after || !entry.key.as_str().starts_with(prefix) {
                continue;
            }
            if let Some(last) = entries.last()
                && entry.key <= last.key
            {
                let cause = format!("{} is listed after {}", entry.key, last.key);
                return Err(StoreError::new(StoreErrorKind::Corrupt, subject, cause));
            }
            if entries.len() < limit {
                entries.push(entry);
                continue;
            }
            if resumable && let Some(last) = entries.last() {
                self.resumed.keep(&self.executor, prefix, last.key.clone(), entry, listing);
            }
            return Ok(ListPage { entries, more: true });
        }
        Ok(ListPage { entries, more: false })
    }

    fn begin_list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
        subject: &str,
    ) -> Result<Listing, StoreError> {
        let call = self.call();
        let capability = self.place.service.capability_dyn();
        // A key before the prefix would have some servers begin there.
        let after = start_after.filter(|key| capability.list_with_start_after && key.as_str() >= prefix);
        let args = OpList::from(options::ListOptions {
            // One more than wanted, which says whether there is more.
            limit: capability.list_with_limit.then_some(limit + 1),
            start_after: after.map(|key| self.path(key.as_str())),
            recursive: true,
            ..Default::default()
        });
        let path = self.path(prefix);
        let path = if path.is_empty() { "/" } else { path.as_str() };
        let lister = self.place.service.list_dyn(&call.context, path, args);
        let lister = lister.map_err(|error| call.error(error, subject))?;
        Ok(Listing { call, lister })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_nobody_goes_on_with_is_dropped() {
        let executor = smol::Executor::new();
        let (after, rest) = (Key::new("0000/a").unwrap(), Arc::new(()));
        let next = || ListEntry { key: Key::new("0000/b").unwrap(), len: 1, modified: None };
        let lists = Resumed { slot: Arc::default(), time: RESUME };
        lists.keep(&executor, "0000/", after.clone(), next(), Arc::clone(&rest));
        assert!(lists.take("0001/", Some(&after)).is_none());
        assert!(lists.take("0000/", Some(&after)).is_some());
        let lists = Resumed { slot: Arc::default(), time: Duration::from_millis(10) };
        lists.keep(&executor, "0000/", after.clone(), next(), Arc::clone(&rest));
        assert_eq!(Arc::strong_count(&rest), 2);
        smol::block_on(executor.run(async {
            while Arc::strong_count(&rest) > 1 {
                Timer::after(Duration::from_millis(5)).await;
            }
        }));
        assert!(lists.take("0000/", Some(&after)).is_none());
    }
}
