//! The object store, as the core asks of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use driftless_adapters::keys::{self, Key, ReplicaLayout};
use driftless_adapters::store::{self as adapter, PutBody, Store};
use driftless_core::machine::{
    ByteRange, CellCondition, CellReply, CellRequest, Chunk, Listed, Object, OpId, PutCondition, PutId,
    StoreError, StoreErrorKind, StoreReply, StoreRequest,
};

/// One replica on a store.
pub struct StorePort {
    store: Arc<dyn Store>,
    layout: ReplicaLayout,
    puts: Mutex<BTreeMap<PutId, Box<dyn PutBody>>>,
}

impl StorePort {
    /// The replica at the root of `store`.
    pub fn new(store: Arc<dyn Store>, layout: ReplicaLayout) -> StorePort {
        StorePort { store, layout, puts: Mutex::new(BTreeMap::new()) }
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
            StoreRequest::List { level, after, limit } => return self.list(level, after, limit).await,
            StoreRequest::Get { object, range } => return self.get(object, range).await,
            StoreRequest::PutOpen { object, condition } => {
                let condition = match condition {
                    PutCondition::IfAbsent => adapter::PutCondition::IfAbsent,
                    PutCondition::Always => adapter::PutCondition::Always,
                };
                let key = self.key(object);
                self.store.put(&key, condition).await.map(|body| self.keep(op, body))
            }
            StoreRequest::PutPart { put, bytes } => match self.take(put) {
                Some(mut body) => {
                    let written = body.write(bytes.to_vec()).await;
                    self.keep(put, body);
                    written
                }
                None => return Err(no_such_put()),
            },
            StoreRequest::PutCommit { put } => match self.take(put) {
                Some(body) => body.commit().await,
                None => return Err(no_such_put()),
            },
            StoreRequest::PutAbort { put } => match self.take(put) {
                Some(body) => body.abort().await,
                None => Ok(()),
            },
            StoreRequest::Delete { object } => self.store.delete(&self.key(object)).await,
            StoreRequest::DropUnfinished { older_than } => {
                // The replica's root may be a bucket that others use as well.
                let below = keys::segments_prefix(self.layout);
                let dropped = self.store.drop_unfinished(below, older_than).await;
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
        self.cell(request).await.map_err(translate)
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

    fn keep(&self, put: PutId, body: Box<dyn PutBody>) {
        self.puts.lock().expect("no holder panics").insert(put, body);
    }

    fn take(&self, put: PutId) -> Option<Box<dyn PutBody>> {
        self.puts.lock().expect("no holder panics").remove(&put)
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

fn no_such_put() -> StoreError {
    StoreError::new(StoreErrorKind::Retry, "the body of this put is gone")
}

fn translate(error: adapter::StoreError) -> StoreError {
    StoreError { kind: error.kind, text: error.to_string(), hint: error.hint.unwrap_or_default() }
}
