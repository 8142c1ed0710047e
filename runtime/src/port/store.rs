//! The object store, as the core asks of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use driftless_adapters::keys::{self, Key, ReplicaLayout};
use driftless_adapters::store::{self as adapter, PutBody, Store};
use driftless_core::machine::{
    ByteRange, CellCondition, CellReply, CellRequest, Chunk, Listed, Object, OpId, PutCondition, PutId,
    StoreError, StoreErrorKind, StoreReply, StoreRequest,
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
            StoreRequest::Get { object, range } => {
                let mut counted = self.begin(Operation::Get);
                let got = self.get(object, range).await;
                if let Ok(StoreReply::Bytes { bytes, .. }) = &got {
                    counted.moved(bytes.len());
                }
                return ended(counted, got);
            }
            StoreRequest::PutOpen { object, condition } => {
                let condition = match condition {
                    PutCondition::IfAbsent => adapter::PutCondition::IfAbsent,
                    PutCondition::Always => adapter::PutCondition::Always,
                };
                let (key, counted) = (self.key(object), self.begin(Operation::Put));
                match self.store.put(&key, condition).await {
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
                Some(Put { body, counted }) => ended(counted, body.commit().await),
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
                let dropped = ended(counted, self.store.drop_unfinished("", older_than).await);
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
                let key = key(cell)?;
                let mut body = self.store.put(&key, condition).await?;
                body.write(bytes.to_vec()).await?;
                body.commit().await?;
                Ok(CellReply::Done)
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

    async fn get(&self, object: Object, range: ByteRange) -> Result<StoreReply, StoreError> {
        let range = match range {
            ByteRange::At { offset, len } => adapter::ByteRange::at(offset, len),
            ByteRange::Tail(len) => adapter::ByteRange::Tail(len),
        };
        let mut body = self.store.get(&self.key(object), range).await.map_err(translate)?;
        let object_len = body.object_len();
        let mut bytes = Vec::with_capacity(body.remaining() as usize);
        while let Some(chunk) = body.next().await.map_err(translate)? {
            if bytes.is_empty() {
                bytes = chunk;
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
