//! Multipart uploads that nobody will finish.
//!
//! S3 keeps the parts of an upload until someone completes or aborts it, and bills for them.
//! opendal can abort those that it began, and does not list others. The two requests that are
//! missing are made here.

use std::time::Duration;

use http::{HeaderMap, Request, header};
use jiff::{SignedDuration, Timestamp};
use opendal::raw::percent_encode_path;
use serde::Deserialize;

use super::http::Body;
use super::problem::{Effect, one_line, parse_date};
use super::service::Place;
use super::wire::Wire;
use crate::store::{StoreError, StoreErrorKind};

/// The longest page of uploads, in bytes: 1,000 entries.
const PAGE_BYTES_MAX: usize = 8 << 20;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Page {
    upload: Vec<Upload>,
    is_truncated: bool,
    next_key_marker: String,
    next_upload_id_marker: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
    initiated: String,
}

/// Aborts the uploads below `prefix`, a key's beginning from the bucket's root, that are older
/// than `older_than`.
pub(super) async fn drop_unfinished(
    place: &Place,
    bucket_url: &str,
    prefix: &str,
    older_than: Duration,
) -> Result<u64, StoreError> {
    let older_than = SignedDuration::try_from(older_than).unwrap_or(SignedDuration::MAX);
    let mut dropped = 0;
    let (mut key_marker, mut id_marker) = (String::new(), String::new());
    loop {
        let mut url = format!("{bucket_url}?uploads&prefix={}", percent_encode_path(prefix));
        if !key_marker.is_empty() {
            let (key, id) = (percent_encode_path(&key_marker), percent_encode_path(&id_marker));
            url = format!("{url}&key-marker={key}&upload-id-marker={id}");
        }
        let (headers, body) = send(place, "ListMultipartUploads", "GET", &url).await?;
        let page: Page = quick_xml::de::from_reader(body.as_slice()).map_err(|error| {
            StoreError::new(StoreErrorKind::Corrupt, &place.name, one_line(&error.to_string()))
        })?;
        // The ages are by the server's clock, and so is now.
        let date = headers.get(header::DATE).and_then(|date| parse_date(date.to_str().ok()?));
        let Some(now) = date else {
            let cause = "the server does not tell its time";
            return Err(StoreError::new(StoreErrorKind::Unsupported, &place.name, cause));
        };
        for upload in &page.upload {
            let begun = upload.initiated.parse::<Timestamp>().ok();
            let old = begun.is_some_and(|begun| now.duration_since(begun) >= older_than);
            // Not every server minds the prefix.
            if old && upload.key.starts_with(prefix) && abort(place, bucket_url, upload).await? {
                dropped += 1;
            }
        }
        if !page.is_truncated || page.next_key_marker.is_empty() {
            return Ok(dropped);
        }
        if page.next_key_marker == key_marker && page.next_upload_id_marker == id_marker {
            let cause = "the list of uploads does not move on";
            return Err(StoreError::new(StoreErrorKind::Corrupt, &place.name, cause));
        }
        (key_marker, id_marker) = (page.next_key_marker, page.next_upload_id_marker);
    }
}

/// Whether the upload was there to be aborted.
async fn abort(place: &Place, bucket_url: &str, upload: &Upload) -> Result<bool, StoreError> {
    let (key, id) = (percent_encode_path(&upload.key), percent_encode_path(&upload.upload_id));
    let url = format!("{bucket_url}/{key}?uploadId={id}");
    match send(place, "AbortMultipartUpload", "DELETE", &url).await {
        Ok(_) => Ok(true),
        // It was finished or given up since the list was made.
        Err(error) if error.kind == StoreErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

async fn send(
    place: &Place,
    operation: &'static str,
    method: &str,
    url: &str,
) -> Result<(HeaderMap, Vec<u8>), StoreError> {
    let wire = Wire::new(&place.server);
    let request = Request::builder().method(method).uri(url).body(());
    let (parts, ()) = request
        .map_err(|error| StoreError::new(StoreErrorKind::Misconfigured, &place.name, error.to_string()))?
        .into_parts();
    let sent = wire.send(operation, parts, Body::memory(Vec::<u8>::new())).await;
    if let Some(problem) = wire.notes().problem.take() {
        return Err(problem.into_error(place.dialect, Effect::None, &place.name));
    }
    let failed = |cause: String| StoreError::new(StoreErrorKind::Retry, &place.name, cause);
    let (head, reply) = sent.map_err(|error| failed(error.message().to_owned()))?;
    let body = reply.whole(PAGE_BYTES_MAX).await.map_err(|failure| failed(failure.cause))?;
    Ok((head.headers, body))
}
