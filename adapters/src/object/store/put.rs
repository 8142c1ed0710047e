//! Writing an object: small ones in one request, larger ones in parts.
//!
//! Memory is bounded: the part that is being filled, the one that opendal holds back to see whether
//! it is the only one, and those under way.

use std::time::Duration;

use bytes::Bytes;
use futures_lite::FutureExt as _;
use opendal::Buffer;
use opendal::raw::oio;

use super::{Call, ObjectStore};
use crate::keys::Key;
use crate::object::problem::Effect;
use crate::store::{BoxFuture, PART_BYTES_MAX, PutBody, PutCondition, StoreError, StoreErrorKind, Version};
use crate::timer::Timer;

/// How long giving up an upload may take before it is left to the server's own clean-up.
const ABORT: Duration = Duration::from_secs(30);
/// This many parts have the size that was asked for; some servers (R2) want all alike. Later
/// parts grow with the object, so that 10,000 reach 5 TiB, the largest object of S3.
const EQUAL_PARTS: u64 = 4_000;
/// The largest part that S3 takes, in bytes.
const PART_BYTES_MAX_S3: u64 = 5 << 30;

/// The size of the next part, after `parts` with `written` bytes together.
fn part_bytes(asked: u64, parts: u64, written: u64) -> u64 {
    let grown = if parts < EQUAL_PARTS { 0 } else { (written / 1_000).next_multiple_of(1 << 20) };
    asked.max(grown.min(PART_BYTES_MAX_S3))
}

impl ObjectStore {
    pub(super) fn begin(&self, key: &Key, condition: PutCondition) -> Result<Box<dyn PutBody>, StoreError> {
        let Some(args) = self.place.write_args(&condition) else {
            let cause = "the service has no such condition";
            return Err(StoreError::new(StoreErrorKind::Unsupported, key, cause));
        };
        let call = self.call();
        let writer = self.place.service.write_dyn(&call.context, &self.path(key.as_str()), args);
        let writer = writer.map_err(|error| call.error(error, key))?;
        Ok(Box::new(Put {
            part_bytes: part_bytes(self.place.part_bytes, 0, 0),
            asked: self.place.part_bytes,
            executor: self.executor.clone(),
            call,
            key: key.clone(),
            conditional: condition != PutCondition::Always,
            writer: Some(writer),
            filling: Vec::new(),
            filled: 0,
            parts: 0,
            written: 0,
            failed: false,
        }))
    }
}

/// An object being written.
struct Put {
    call: Call,
    key: Key,
    conditional: bool,
    executor: std::sync::Arc<smol::Executor<'static>>,
    /// Gone once the object is there, or given up.
    writer: Option<oio::Writer>,
    /// The part being filled: chunks as they came.
    filling: Vec<Bytes>,
    filled: u64,
    /// When the part is full.
    part_bytes: u64,
    asked: u64,
    parts: u64,
    written: u64,
    failed: bool,
}

impl Put {
    /// Hands the part over, which waits while as many as may be are under way.
    async fn send_part(&mut self) -> Result<(), StoreError> {
        let part = Buffer::from(std::mem::take(&mut self.filling));
        self.parts += 1;
        self.written += std::mem::take(&mut self.filled);
        self.part_bytes = part_bytes(self.asked, self.parts, self.written);
        let writer = self.writer.as_mut().expect("a body that is written to");
        let sent = writer.write_dyn(part).await;
        sent.map_err(|error| self.call.error(error, &self.key))
    }

    async fn add(&mut self, mut chunk: Bytes) -> Result<(), StoreError> {
        if self.failed {
            return Err(self.unusable());
        }
        // If the future is dropped on the way, the part is gone.
        self.failed = true;
        while self.filled + chunk.len() as u64 > self.part_bytes {
            let rest = chunk.split_off((self.part_bytes - self.filled) as usize);
            self.push(chunk);
            self.send_part().await?;
            chunk = rest;
        }
        self.push(chunk);
        self.failed = false;
        Ok(())
    }

    fn push(&mut self, chunk: Bytes) {
        self.filled += chunk.len() as u64;
        if !chunk.is_empty() {
            self.filling.push(chunk);
        }
    }

    fn unusable(&self) -> StoreError {
        StoreError::new(StoreErrorKind::Retry, &self.key, "a part of it could not be written")
    }

    async fn finish(mut self) -> Result<Option<Version>, StoreError> {
        if self.failed {
            return Err(self.unusable());
        }
        if self.filled > 0 {
            self.send_part().await?;
        }
        let writer = self.writer.as_mut().expect("a body that is committed");
        let closed = writer.close_dyn().await;
        let effect = Effect::Commit { conditional: self.conditional };
        let put = closed.map_err(|error| self.call.error_of(error, effect, &self.key))?;
        self.writer = None;
        Ok(self.call.version_of(&put))
    }
}

impl PutBody for Put {
    fn write(&mut self, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        assert!(chunk.len() <= PART_BYTES_MAX, "a part holds at most {PART_BYTES_MAX} bytes");
        Box::pin(self.add(chunk.into()))
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<Option<Version>, StoreError>> {
        Box::pin(self.finish())
    }

    fn abort(mut self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move {
            let Some(mut writer) = self.writer.take().filter(|_| self.parts > 1) else { return Ok(()) };
            let aborted = writer.abort_dyn().await;
            aborted.map_err(|error| self.call.error(error, &self.key))
        })
    }
}

impl Drop for Put {
    /// An upload that was begun takes room on the server until someone gives it up.
    fn drop(&mut self) {
        let Some(mut writer) = self.writer.take().filter(|_| self.parts > 1) else { return };
        let abort = async move {
            let _ = writer.abort_dyn().await;
        };
        let late = async {
            Timer::after(ABORT).await;
        };
        self.executor.spawn(abort.or(late)).detach();
    }
}

#[cfg(test)]
mod tests {
    use super::part_bytes;

    #[test]
    fn ten_thousand_parts_reach_the_largest_object() {
        for asked in [5 << 20, 8 << 20] {
            let mut written = 0;
            for parts in 0..10_000 {
                let part = part_bytes(asked, parts, written);
                assert!(parts >= 4_000 || part == asked);
                assert!(part <= 5 << 30, "part {parts} of {part} bytes");
                // What waits in memory is a small share of what there is.
                assert!(part == asked || part <= written / 1_000 + (1 << 20));
                written += part;
            }
            assert!(written >= 5 << 40, "{written}");
        }
    }
}
