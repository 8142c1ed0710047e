//! A store in memory, exact in every condition.
//!
//! For tests, demonstrations and as the plainest reading of the contract: where another store and
//! this one differ, the other is wrong. The simulator has its own, which lies.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::keys::Key;
use crate::store::{
    BoxFuture, ByteRange, Capabilities, GetBody, ListEntry, ListPage, PART_BYTES_MAX, PutBody, PutCondition,
    Store, StoreError, StoreErrorKind, Version,
};

/// A store in memory. Clones share the objects; everything is gone with the last of them.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<Objects>>,
}

#[derive(Debug, Default)]
struct Objects {
    by_key: BTreeMap<Key, Object>,
    /// How many puts there were: numbers each content.
    puts: u64,
}

#[derive(Clone, Debug)]
struct Object {
    bytes: Arc<[u8]>,
    version: Version,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().expect("nothing panics under this lock")
    }
}

impl Store for MemoryStore {
    fn put<'a>(
        &'a self,
        key: &'a Key,
        condition: PutCondition,
    ) -> BoxFuture<'a, Result<Box<dyn PutBody>, StoreError>> {
        let put = MemoryPut { store: self.clone(), key: key.clone(), condition, bytes: Vec::new() };
        Box::pin(async move { Ok(Box::new(put) as Box<dyn PutBody>) })
    }

    fn get<'a>(
        &'a self,
        key: &'a Key,
        range: ByteRange,
    ) -> BoxFuture<'a, Result<Box<dyn GetBody>, StoreError>> {
        Box::pin(async move {
            let Some(object) = self.objects().by_key.get(key).cloned() else {
                return Err(StoreError::new(StoreErrorKind::NotFound, key, ""));
            };
            let (start, end) = range.within(object.bytes.len() as u64);
            // An object in memory is shorter than memory.
            let get = MemoryGet { object, at: start as usize, end: end as usize };
            Ok(Box::new(get) as Box<dyn GetBody>)
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&'a Key>,
        limit: usize,
    ) -> BoxFuture<'a, Result<ListPage, StoreError>> {
        Box::pin(async move {
            let objects = &self.objects().by_key;
            let from = match start_after {
                Some(key) if key.as_str() >= prefix => Bound::Excluded(key.as_str()),
                _ => Bound::Included(prefix),
            };
            let mut found = objects
                .range::<str, _>((from, Bound::Unbounded))
                .take_while(|(key, _)| key.as_str().starts_with(prefix))
                .map(|(key, object)| (key.clone(), object.bytes.len() as u64))
                .map(|(key, len)| ListEntry { key, len, modified: None });
            let entries = found.by_ref().take(limit.max(1)).collect();
            Ok(ListPage { entries, more: found.next().is_some() })
        })
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.objects().by_key.remove(key);
            Ok(())
        })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { create_if_absent: true, swap: true, modified: false }
    }
}

struct MemoryPut {
    store: MemoryStore,
    key: Key,
    condition: PutCondition,
    bytes: Vec<u8>,
}

impl PutBody for MemoryPut {
    fn write(&mut self, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        assert!(chunk.len() <= PART_BYTES_MAX, "a part holds at most {PART_BYTES_MAX} bytes");
        self.bytes.extend_from_slice(&chunk);
        Box::pin(async { Ok(()) })
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<Option<Version>, StoreError>> {
        Box::pin(async move {
            let mut objects = self.store.objects();
            let there = objects.by_key.get(&self.key).map(|object| &object.version);
            let holds = match &self.condition {
                PutCondition::IfAbsent => there.is_none(),
                PutCondition::Matches(version) => there == Some(version),
                PutCondition::Always => true,
            };
            if !holds {
                return Err(StoreError::new(StoreErrorKind::AlreadyExists, &self.key, ""));
            }
            objects.puts += 1;
            let version = Version(objects.puts.to_string().into());
            let put = Object { bytes: self.bytes.into(), version: version.clone() };
            objects.by_key.insert(self.key.clone(), put);
            Ok(Some(version))
        })
    }

    fn abort(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}

struct MemoryGet {
    object: Object,
    at: usize,
    end: usize,
}

impl GetBody for MemoryGet {
    fn object_len(&self) -> u64 {
        self.object.bytes.len() as u64
    }

    fn version(&self) -> Option<Version> {
        Some(self.object.version.clone())
    }

    fn remaining(&self) -> u64 {
        (self.end - self.at) as u64
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        let end = self.end.min(self.at.saturating_add(PART_BYTES_MAX));
        let chunk = self.object.bytes[self.at..end].to_vec();
        self.at = end;
        Box::pin(async move { Ok((!chunk.is_empty()).then_some(chunk)) })
    }
}
