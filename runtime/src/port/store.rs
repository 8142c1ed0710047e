//! The object store, as the core asks of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use driftless_adapters::keys::{self, Key, ReplicaLayout};
use driftless_adapters::store::{self as adapter, PutBody, Store};
use driftless_core::legacy::{LegacyListed, LegacyObject};
use driftless_core::ltx::DICTIONARY_BYTES_MAX;
use driftless_core::machine::{
    ByteRange, CellCondition, CellReply, CellRequest, Chunk, Listed, Object, OpId, PutId, StoreError,
    StoreErrorKind, StoreReply, StoreRequest,
};

use crate::metrics::requests::{Operation, Requests, UnderWay};

/// One replica on a store.
pub struct StorePort {
    store: Arc<dyn Store>,
    layout: ReplicaLayout,
    puts: Mutex<BTreeMap<PutId, Put>>,
    /// The kind of the store, and where its requests are counted.
    counted: (&'static str, Requests),
}

/// A put under way.
struct Put {
    body: Box<dyn PutBody>,
    counted: UnderWay,
}

impl StorePort {
    /// The replica at the root of `store`.
    pub fn new(store: Arc<dyn Store>, layout: ReplicaLayout) -> StorePort {
        StorePort { store, layout, puts: Mutex::default(), counted: ("", Requests::default()) }
    }

    /// The same, with its requests counted as those of a kind of store.
    pub fn counted(self, kind: &'static str, requests: Requests) -> StorePort {
        StorePort { counted: (kind, requests), ..self }
    }

    fn begin(&self, operation: Operation) -> UnderWay {
        self.counted.1.begin(self.counted.0, operation)
    }

    fn key(&self, object: Object) -> Key {
        keys::segment_key(self.layout, object.level, object.range)
    }

    /// Does one thing.
    ///
    /// # Errors
    /// As the store says.
    pub async fn perform(&self, op: OpId, request: StoreRequest) -> Result<StoreReply, StoreError> {
        let done = match request {
            StoreRequest::List { level, after, limit } => {
                let counted = self.begin(Operation::List);
                return ended(counted, self.list(level, after, limit).await);
            }
            StoreRequest::Get { object, range } => return self.get(&self.key(object), range).await,
            StoreRequest::ListLegacy { after, limit } => {
                let counted = self.begin(Operation::List);
                return ended(counted, self.list_legacy(after, limit).await);
            }
            StoreRequest::GetLegacy { object, range } => {
                return self.get(&keys::legacy_key(object), range).await;
            }
            StoreRequest::GetDictionary { id } => {
                let range = ByteRange::At { offset: 0, len: DICTIONARY_BYTES_MAX as u64 + 1 };
                return self.get(&keys::dictionary_key(id), range).await;
            }
            StoreRequest::PutDictionary { id, bytes, condition } => {
                let counted = self.begin(Operation::Put);
                let put = self.put_whole(&keys::dictionary_key(id), bytes, condition.into()).await;
                ended(counted, put.map(drop))
            }
            StoreRequest::PutOpen { object, condition } => {
                let (key, counted) = (self.key(object), self.begin(Operation::Put));
                match self.store.put(&key, condition.into()).await {
                    Ok(body) => {
                        self.keep(op, Put { body, counted });
                        Ok(())
                    }
                    Err(error) => ended(counted, Err(error)),
                }
            }
            StoreRequest::PutPart { put, bytes } => match self.take(put) {
                Some(mut under_way) => {
                    under_way.counted.moved(bytes.len());
                    let written = under_way.body.write(bytes.to_vec()).await;
                    self.keep(put, under_way);
                    written
                }
                None => return Err(no_such_put()),
            },
            StoreRequest::PutCommit { put } => match self.take(put) {
                Some(Put { body, counted }) => ended(counted, body.commit().await.map(drop)),
                None => return Err(no_such_put()),
            },
            StoreRequest::PutAbort { put } => match self.take(put) {
                Some(Put { body, .. }) => body.abort().await,
                None => Ok(()),
            },
            StoreRequest::Delete { object } => {
                let counted = self.begin(Operation::Delete);
                ended(counted, self.store.delete(&self.key(object)).await)
            }
            StoreRequest::DropUnfinished { older_than } => {
                let counted = self.begin(Operation::List);
                // The replica's root may be a bucket that others use as well.
                let below = keys::segments_prefix(self.layout);
                let dropped = ended(counted, self.store.drop_unfinished(below, older_than).await);
                return dropped.map(StoreReply::Dropped).map_err(translate);
            }
        };
        done.map(|()| StoreReply::Done).map_err(translate)
    }

    /// Does one thing to a cell.
    ///
    /// # Errors
    /// As the store says.
    pub async fn perform_cell(&self, request: CellRequest) -> Result<CellReply, StoreError> {
        let counted = self.begin(match &request {
            CellRequest::Write { .. } => Operation::Put,
            CellRequest::Read { .. } => Operation::Get,
            CellRequest::Remove { .. } => Operation::Delete,
        });
        ended(counted, self.cell(request).await).map_err(translate)
    }

    async fn cell(&self, request: CellRequest) -> Result<CellReply, adapter::StoreError> {
        let key = |cell: String| {
            Key::new(cell).map_err(|error| {
                adapter::StoreError::new(StoreErrorKind::Misconfigured, "a cell", error.to_string())
            })
        };
        match request {
            CellRequest::Write { cell, bytes, condition } => {
                let condition = match condition {
                    CellCondition::Absent => adapter::PutCondition::IfAbsent,
                    CellCondition::Version(version) => {
                        adapter::PutCondition::Matches(adapter::Version(version.into()))
                    }
                };
                let version = self.put_whole(&key(cell)?, bytes, condition).await?;
                Ok(CellReply::Written { version: version.map(|version| version.0.into()) })
            }
            CellRequest::Read { cell } => {
                let mut body = self.store.get(&key(cell)?, adapter::ByteRange::ALL).await?;
                let version = body.version().map(|version| version.0.into());
                let mut bytes = Vec::new();
                while let Some(chunk) = body.next().await? {
                    bytes.extend_from_slice(&chunk);
                }
                Ok(CellReply::Content { bytes: Chunk::from(bytes), version })
            }
            CellRequest::Remove { cell } => {
                self.store.delete(&key(cell)?).await?;
                Ok(CellReply::Done)
            }
        }
    }

    async fn put_whole(
        &self,
        key: &Key,
        bytes: Chunk,
        condition: adapter::PutCondition,
    ) -> Result<Option<adapter::Version>, adapter::StoreError> {
        let mut body = self.store.put(key, condition).await?;
        body.write(bytes.to_vec()).await?;
        body.commit().await
    }

    fn keep(&self, id: PutId, put: Put) {
        self.puts.lock().expect("no holder panics").insert(id, put);
    }

    fn take(&self, id: PutId) -> Option<Put> {
        self.puts.lock().expect("no holder panics").remove(&id)
    }

    async fn list(
        &self,
        level: driftless_core::ids::Level,
        after: Option<driftless_core::ids::TxidRange>,
        limit: u32,
    ) -> Result<StoreReply, StoreError> {
        let prefix = keys::level_prefix(self.layout, level);
        let after = after.map(|range| keys::segment_key(self.layout, level, range));
        let page = self.store.list(&prefix, after.as_ref(), limit as usize).await.map_err(translate)?;
        let entries = page
            .entries
            .iter()
            .filter_map(|entry| {
                let (level, range) = keys::parse_segment_key(self.layout, entry.key.as_str())?;
                Some(Listed { object: Object { level, range }, len: entry.len, modified: entry.modified })
            })
            .collect();
        Ok(StoreReply::Listing { entries, more: page.more })
    }

    async fn list_legacy(&self, after: Option<LegacyObject>, limit: u32) -> Result<StoreReply, StoreError> {
        let mut after = after.map(keys::legacy_key);
        loop {
            let page = self.store.list(keys::LEGACY_PREFIX, after.as_ref(), limit as usize).await;
            let page = page.map_err(translate)?;
            let listed = page.entries.iter().filter_map(|entry| {
                let object = keys::parse_legacy_key(entry.key.as_str())?;
                Some(LegacyListed { object, len: entry.len, modified: entry.modified })
            });
            let entries: Vec<LegacyListed> = listed.collect();
            // A page of other names only tells nothing; the next one may.
            if entries.is_empty()
                && page.more
                && let Some(last) = page.entries.last()
            {
                after = Some(last.key.clone());
                continue;
            }
            return Ok(StoreReply::LegacyListing { entries, more: page.more });
        }
    }

    async fn get(&self, key: &Key, range: ByteRange) -> Result<StoreReply, StoreError> {
        let mut counted = self.begin(Operation::Get);
        let got = self.read(key, range).await;
        if let Ok(StoreReply::Bytes { bytes, .. }) = &got {
            counted.moved(bytes.len());
        }
        ended(counted, got)
    }

    async fn read(&self, key: &Key, range: ByteRange) -> Result<StoreReply, StoreError> {
        let range = match range {
            ByteRange::At { offset, len } => adapter::ByteRange::at(offset, len),
            ByteRange::Tail(len) => adapter::ByteRange::Tail(len),
        };
        let mut body = self.store.get(key, range).await.map_err(translate)?;
        let object_len = body.object_len();
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await.map_err(translate)? {
            if bytes.is_empty() {
                // What comes in one piece is not copied.
                bytes = chunk;
                bytes.reserve_exact(body.remaining() as usize);
            } else {
                bytes.extend_from_slice(&chunk);
            }
        }
        Ok(StoreReply::Bytes { bytes: Chunk::from(bytes), object_len })
    }
}

/// Counts a request that has ended.
fn ended<T, E: Kind>(counted: UnderWay, done: Result<T, E>) -> Result<T, E> {
    counted.end(done.as_ref().err().map(Kind::kind));
    done
}

/// What an error means, on this side and on the store's.
trait Kind {
    fn kind(&self) -> StoreErrorKind;
}

impl Kind for StoreError {
    fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl Kind for adapter::StoreError {
    fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

fn no_such_put() -> StoreError {
    StoreError::new(StoreErrorKind::Retry, "the body of this put is gone")
}

fn translate(error: adapter::StoreError) -> StoreError {
    StoreError { kind: error.kind, text: error.to_string(), hint: error.hint.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use driftless_adapters::memory::MemoryStore;
    use driftless_adapters::store::PutCondition as When;
    use driftless_core::machine::ReplicaId;

    use super::*;

    /// Asks for all of Litestream 0.3's layout, `limit` at a time. Names, and pages.
    fn list_legacy(port: &StorePort, limit: u32) -> (Vec<String>, usize) {
        let (mut names, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let op = OpId { replica: ReplicaId(0), run: 1, seq: 1 };
            let request = StoreRequest::ListLegacy { after, limit };
            let reply = smol::block_on(port.perform(op, request)).expect("it is there");
            let StoreReply::LegacyListing { entries, more } = reply else { panic!("{reply:?}") };
            pages += 1;
            assert!(!more || !entries.is_empty(), "a page that promises more holds something");
            names.extend(entries.iter().map(|entry| entry.object.to_string()));
            after = entries.last().map(|entry| entry.object);
            if !more {
                return (names, pages);
            }
        }
    }

    #[test]
    fn foreign_names_among_generations_are_passed_over_and_end_no_listing() {
        let store = MemoryStore::new();
        let put = |name: &str| {
            let key = Key::new(name).expect("a key");
            smol::block_on(async {
                let mut body = store.put(&key, When::Always).await.expect("memory");
                body.write(b"body".to_vec()).await.expect("memory");
                body.commit().await.expect("memory");
            });
        };
        let ours = [
            "generations/0ccf80b8acbd45e4/snapshots/00000000.snapshot.lz4",
            "generations/0ccf80b8acbd45e4/wal/00000000_00000000.wal.lz4",
            "generations/0ccf80b8acbd45e4/wal/00000000_100000000.wal.lz4",
            "generations/0ccf80b8acbd45e4/wal/00000000_fffff020.wal.lz4",
        ];
        ours.iter().copied().for_each(&put);
        for foreign in ["0", "1", "2", "3", "0ccf80b8acbd45e4/.DS_Store", "0ccf80b8acbd45e4/wal/x", "z"] {
            put(&format!("generations/{foreign}"));
        }
        put("0000/0000000000000001-0000000000000001.ltx");
        let port = StorePort::new(Arc::new(store.clone()), ReplicaLayout::Object);
        assert_eq!(list_legacy(&port, 1000), (ours.map(str::to_owned).to_vec(), 1));
        let (names, pages) = list_legacy(&port, 1);
        assert_eq!(names, ours);
        assert!(pages >= ours.len());
        let object = LegacyObject::parse(ours[0]).expect("a name");
        let request = StoreRequest::GetLegacy { object, range: ByteRange::At { offset: 1, len: 2 } };
        let op = OpId { replica: ReplicaId(0), run: 1, seq: 9 };
        let reply = smol::block_on(port.perform(op, request));
        assert_eq!(reply, Ok(StoreReply::Bytes { bytes: Chunk::from(b"od".to_vec()), object_len: 4 }));
    }
}
