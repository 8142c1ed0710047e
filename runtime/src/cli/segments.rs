//! The segments of a replica, as a listing shows them.
//!
//! Litestream takes a file's modification time for the time of its transactions, which a copy of
//! the replica loses. Here the stamp comes from the segment's own header wherever that can be
//! read, with its milliseconds, so that `restore -timestamp` with a time from this list finds the
//! very transaction.

use std::cell::{Cell, RefCell};

use driftless_adapters::keys::{self, Key};
use driftless_adapters::store::{ByteRange, Store, StoreError, StoreErrorKind};
use driftless_core::ids::{Level, TxidRange, Wall};
use driftless_core::ltx::{LTX_HEADER_BYTES, LtxHeader};
use smol::LocalExecutor;

use super::error::CliError;
use crate::config::Replica;
use crate::host;

/// Entries asked for at a time.
const PAGE: usize = 1000;
/// Headers read at a time.
const READERS: usize = 8;

/// A segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its level.
    pub level: Level,
    /// The transactions it holds.
    pub range: TxidRange,
    /// Its length in bytes.
    pub len: u64,
    /// When the store says it was written.
    pub modified: Option<Wall>,
}

/// A replica, for looking at it.
pub struct Segments {
    replica: Replica,
}

impl Segments {
    /// Touches nothing yet.
    pub fn new(replica: &Replica) -> Segments {
        Segments { replica: replica.clone() }
    }

    /// The segments of a level by ascending name; a level that is not there is empty.
    pub fn list(&self, level: Level) -> Result<Vec<Segment>, CliError> {
        let listed = host::with_store(&self.replica, async |store, layout| {
            let prefix = keys::level_prefix(layout, level);
            let (mut segments, mut after) = (Vec::new(), None::<Key>);
            loop {
                let page = store.list(&prefix, after.as_ref(), PAGE).await?;
                after = page.entries.last().map(|entry| entry.key.clone());
                segments.extend(page.entries.into_iter().filter_map(|entry| {
                    let (level, range) = keys::parse_segment_key(layout, entry.key.as_str())?;
                    Some(Segment { level, range, len: entry.len, modified: entry.modified })
                }));
                if !page.more || after.is_none() {
                    return Ok(segments);
                }
            }
        });
        listed.map_err(|error| self.unreadable(&error))
    }

    /// The header of a segment, if it can be read at all.
    pub fn header(&self, level: Level, range: TxidRange) -> Option<LtxHeader> {
        self.headers(&[(level, range)]).pop().flatten()
    }

    /// The headers of some segments, several read at a time: a store is far away.
    pub fn headers(&self, wanted: &[(Level, TxidRange)]) -> Vec<Option<LtxHeader>> {
        let read = host::with_store(&self.replica, async |store, layout| {
            let found = RefCell::new(vec![None; wanted.len()]);
            let next = Cell::new(0);
            let readers = LocalExecutor::new();
            let reader = || async {
                while let Some((level, range)) = wanted.get(next.replace(next.get() + 1)) {
                    let at = next.get() - 1;
                    let header = header(store, &keys::segment_key(layout, *level, *range)).await;
                    found.borrow_mut()[at] = header;
                }
            };
            let tasks: Vec<_> = (0..READERS).map(|_| readers.spawn(reader())).collect();
            readers.run(async { join(tasks).await }).await;
            Ok(found.take())
        });
        read.unwrap_or_else(|_| vec![None; wanted.len()])
    }

    /// When each segment's last transaction was captured, as well as that can be known.
    pub fn stamps(&self, segments: &[Segment]) -> Vec<Option<Wall>> {
        let wanted: Vec<_> = segments.iter().map(|segment| (segment.level, segment.range)).collect();
        let headers = self.headers(&wanted).into_iter().zip(segments);
        headers.map(|(header, segment)| header.map(|header| header.stamp).or(segment.modified)).collect()
    }

    fn unreadable(&self, error: &StoreError) -> CliError {
        let code = if error.kind == StoreErrorKind::Misconfigured { 2 } else { 1 };
        let failed = CliError::failed(format!("cannot list the replica {}", self.replica.place()));
        let hint = error.hint.clone().unwrap_or_else(|| "try again when the store answers".to_owned());
        CliError { code, ..failed.cause(&error.cause).hint(hint) }
    }
}

async fn join(tasks: Vec<smol::Task<()>>) {
    for task in tasks {
        task.await;
    }
}

async fn header(store: &dyn Store, key: &Key) -> Option<LtxHeader> {
    let mut get = store.get(key, ByteRange::at(0, LTX_HEADER_BYTES as u64)).await.ok()?;
    let mut bytes = Vec::with_capacity(LTX_HEADER_BYTES);
    while let Some(chunk) = get.next().await.ok()? {
        bytes.extend_from_slice(&chunk);
    }
    LtxHeader::decode(bytes.first_chunk()?).ok()
}

/// A time as RFC 3339 in UTC.
pub fn rfc3339(wall: Option<Wall>) -> String {
    let time = wall.and_then(|wall| jiff::Timestamp::from_millisecond(wall.0).ok());
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}
