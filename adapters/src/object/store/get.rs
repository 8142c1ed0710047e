//! Reading an object, in one request where the service lets us.

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use opendal::raw::{OpRead, OpReader, OpStat, oio};
use opendal::{BytesRange, Metadata, options};

use super::{Call, ObjectStore};
use crate::keys::Key;
use crate::object::problem::{Dialect, Problem, What};
use crate::store::{BoxFuture, ByteRange, GetBody, PART_BYTES_MAX, StoreError, StoreErrorKind, Version};

impl ObjectStore {
    pub(super) async fn read(&self, key: &Key, range: ByteRange) -> Result<Box<dyn GetBody>, StoreError> {
        match range {
            // There is no way to ask for nothing.
            ByteRange::From { len: Some(0), .. } | ByteRange::Tail(0) => {
                let (object_len, version) = self.look(key).await?;
                Ok(Box::new(Got::nothing(self.call(), key, object_len, version)))
            }
            ByteRange::Tail(n) if !self.place.service.capability_dyn().read_with_suffix => {
                let (object_len, version) = self.look(key).await?;
                let (start, end) = ByteRange::Tail(n).within(object_len);
                if start == end {
                    return Ok(Box::new(Got::nothing(self.call(), key, object_len, version)));
                }
                // The end of what was looked at, and not of what has replaced it since.
                let range = BytesRange::new(start, Some(end - start));
                self.fetch(key, range, ByteRange::at(start, end - start), version).await
            }
            ByteRange::Tail(n) => self.fetch(key, BytesRange::suffix(n), range, None).await,
            ByteRange::From { offset, len } => {
                // Services add the two, and do not expect the end of all numbers.
                let len = len.map(|len| len.min(u64::MAX - offset)).filter(|len| *len <= i64::MAX as u64);
                self.fetch(key, BytesRange::new(offset, len), range, None).await
            }
        }
    }

    /// The object's length and version, without reading it.
    async fn look(&self, key: &Key) -> Result<(u64, Option<Version>), StoreError> {
        let call = self.call();
        let stat = self.place.service.stat_dyn(&call.context, &self.path(key.as_str()), OpStat::new()).await;
        let stat = stat.map_err(|error| call.error(error, key))?.into_metadata();
        if stat.is_dir() {
            return Err(StoreError::new(StoreErrorKind::NotFound, key, "it is a collection"));
        }
        Ok((stat.content_length(), call.version_of(&stat)))
    }

    /// Whether a WebDAV server answered with a page about a collection. Such a page has neither
    /// date nor tag; so files, which do, cost no second request.
    async fn is_index(&self, headers: &HeaderMap, key: &Key) -> Result<bool, StoreError> {
        if headers.contains_key(header::LAST_MODIFIED) || headers.contains_key(header::ETAG) {
            return Ok(false);
        }
        let call = self.call();
        let stat = self.place.service.stat_dyn(&call.context, &self.path(key.as_str()), OpStat::new()).await;
        let stat = stat.map_err(|error| call.error(error, key))?.into_metadata();
        Ok(stat.is_dir())
    }

    async fn fetch(
        &self,
        key: &Key,
        wanted: BytesRange,
        range: ByteRange,
        only: Option<Version>,
    ) -> Result<Box<dyn GetBody>, StoreError> {
        let call = self.call();
        let if_match = only.map(|version| version.0.into());
        let options = options::ReaderOptions { if_match, ..Default::default() };
        let (args, _): (OpRead, OpReader) = options.into();
        let opened = async {
            let reader = self.place.service.read_dyn(&call.context, &self.path(key.as_str()), args)?;
            reader.open_dyn(wanted).await
        };
        let stream = match opened.await {
            Ok((_, stream)) => stream,
            Err(error) => match call.past_the_end(range) {
                Some(Some(object_len)) => return Ok(Box::new(Got::nothing(call, key, object_len, None))),
                Some(None) => {
                    let (object_len, version) = self.look(key).await?;
                    return Ok(Box::new(Got::nothing(call, key, object_len, version)));
                }
                None => return Err(call.error(error, key)),
            },
        };
        let head = call.wire.notes().head.take();
        let (status, headers) = head.expect("a body has a head");
        if self.place.dialect == Dialect::WebDav && self.is_index(&headers, key).await? {
            return Err(StoreError::new(StoreErrorKind::NotFound, key, "it is a collection"));
        }
        let (sent, object_len) = call.span(status, &headers, key)?;
        let (start, end) = range.within(object_len);
        let usable = sent.0 <= start && end <= sent.1;
        if !usable && start != end {
            let cause = format!("asked for bytes {start} to {end}, got {} to {}", sent.0, sent.1);
            return Err(StoreError::new(StoreErrorKind::Corrupt, key, cause));
        }
        let version = call.version(&headers);
        let (key, queue) = (key.clone(), VecDeque::new());
        let skip = start.saturating_sub(sent.0);
        Ok(Box::new(Got {
            call,
            key,
            stream: Some(stream),
            queue,
            skip,
            remaining: end - start,
            object_len,
            version,
        }))
    }
}

impl Call {
    /// Which bytes an answer holds, and the length of the object.
    fn span(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        key: &Key,
    ) -> Result<((u64, u64), u64), StoreError> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        // `rclone serve s3` says 200 to a part, and says truly which.
        let span = if status == StatusCode::PARTIAL_CONTENT || headers.contains_key(header::CONTENT_RANGE) {
            text(header::CONTENT_RANGE).and_then(parse_content_range)
        } else {
            text(header::CONTENT_LENGTH).and_then(|len| len.parse().ok()).map(|len| ((0, len), len))
        };
        span.ok_or_else(|| {
            StoreError::new(StoreErrorKind::Corrupt, key, "the answer does not say how long the object is")
        })
    }

    fn version(&self, headers: &HeaderMap) -> Option<Version> {
        let name = match self.place.dialect {
            Dialect::S3 | Dialect::Azure => header::ETAG.as_str(),
            Dialect::Gcs => "x-goog-generation",
            Dialect::WebDav => return None,
        };
        headers.get(name).and_then(|value| value.to_str().ok()).map(|text| Version(text.into()))
    }

    /// The same from what opendal has read of an answer.
    pub(super) fn version_of(&self, metadata: &Metadata) -> Option<Version> {
        let text = match self.place.dialect {
            Dialect::S3 | Dialect::Azure => metadata.etag(),
            Dialect::Gcs => metadata.version(),
            Dialect::WebDav => None,
        };
        text.map(|text| Version(text.into()))
    }

    /// Whether the server said that the range begins past the object's end; and if so, its
    /// length, where the server named it.
    fn past_the_end(&self, range: ByteRange) -> Option<Option<u64>> {
        let mut notes = self.wire.notes();
        match &notes.problem {
            Some(Problem { what: What::Refused(refusal), .. }) if refusal.status == 416 => {
                let object_len = refusal.object_len;
                notes.problem = None;
                Some(object_len)
            }
            Some(_) => None,
            // azurite answers a range at the very end with 206 and a last byte before the first.
            None => {
                let (_, headers) = notes.head.as_ref()?;
                let (_, len) = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.rsplit_once('/')?;
                let object_len = len.parse().ok()?;
                let (start, end) = range.within(object_len);
                (start == end).then_some(Some(object_len))
            }
        }
    }
}

/// `bytes 0-9/10`, the end as the byte after the last.
fn parse_content_range(text: &str) -> Option<((u64, u64), u64)> {
    let (span, len) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = span.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    Some(((first, last.checked_add(1)?), len.parse().ok()?))
}

/// An object being read.
struct Got {
    call: Call,
    key: Key,
    stream: Option<Box<dyn oio::ReadStreamDyn>>,
    /// What came and was not asked for yet.
    queue: VecDeque<Bytes>,
    /// Bytes to leave out, of a server that sent more than it was asked for.
    skip: u64,
    remaining: u64,
    object_len: u64,
    version: Option<Version>,
}

impl Got {
    fn nothing(call: Call, key: &Key, object_len: u64, version: Option<Version>) -> Got {
        let (key, queue) = (key.clone(), VecDeque::new());
        Got { call, key, stream: None, queue, skip: 0, remaining: 0, object_len, version }
    }

    async fn chunk(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        while self.remaining > 0 {
            let Some(mut bytes) = self.queue.pop_front() else {
                self.more().await?;
                continue;
            };
            let skipped = self.skip.min(bytes.len() as u64);
            self.skip -= skipped;
            let _ = bytes.split_to(skipped as usize);
            if bytes.is_empty() {
                continue;
            }
            let most = self.remaining.min(PART_BYTES_MAX as u64) as usize;
            if bytes.len() > most {
                self.queue.push_front(bytes.split_off(most));
            }
            self.remaining -= bytes.len() as u64;
            return Ok(Some(bytes.into()));
        }
        // To the end of the answer, so that the connection can be used again, unless the server
        // sends more than was asked for.
        if let Some(mut stream) = self.stream.take()
            && self.queue.is_empty()
        {
            let _ = stream.read_dyn().await;
        }
        Ok(None)
    }

    async fn more(&mut self) -> Result<(), StoreError> {
        let early = || StoreError::new(StoreErrorKind::Retry, &self.key, "the body ended early");
        let stream = self.stream.as_mut().ok_or_else(early)?;
        match stream.read_dyn().await {
            Ok(buffer) if buffer.is_empty() => {
                self.stream = None;
                // As at a connection that broke off, where nothing else says how long the body is.
                Err(StoreError::new(StoreErrorKind::Retry, &self.key, "the body ended early"))
            }
            Ok(buffer) => {
                self.queue.extend(buffer);
                Ok(())
            }
            Err(error) => {
                self.stream = None;
                Err(self.call.error(error, &self.key))
            }
        }
    }
}

impl GetBody for Got {
    fn object_len(&self) -> u64 {
        self.object_len
    }

    fn remaining(&self) -> u64 {
        self.remaining
    }

    fn version(&self) -> Option<Version> {
        self.version.clone()
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        Box::pin(self.chunk())
    }
}

#[cfg(test)]
mod tests {
    use super::parse_content_range;

    #[test]
    fn content_ranges() {
        assert_eq!(parse_content_range("bytes 3-6/10"), Some(((3, 7), 10)));
        for broken in ["bytes */10", "bytes 3-6/*", "3-6/10", "bytes 3-18446744073709551615/4", ""] {
            assert_eq!(parse_content_range(broken), None, "{broken}");
        }
    }
}
