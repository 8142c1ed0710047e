//! What WebDAV lacks of an object store.
//!
//! - **A put may be seen half done.** The protocol does not say that a body which breaks off leaves
//!   nothing. So each object is put under another name, and moved when it is complete.
//! - **No parts.** A body is one request, whose length must be known: some servers make an empty
//!   file of a body without one. Larger ones wait in a file without a name.
//! - **Collections are real.** They are made before what lies in them; deleting one deletes what is
//!   in it, so what is to be deleted is looked at first.
//! - **Lists are of one collection, in any order.** They are walked in the order of keys.
//!
//! Names that end in `.tmp` are hidden and cannot be put.

mod propfind;
mod put;
mod walk;

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{HeaderMap, HeaderValue, Request, Uri, header, response};
use jiff::{SignedDuration, Timestamp};
use opendal::raw::{OpCreateDir, OpStat, percent_encode_path};
use percent_encoding::percent_decode_str;

use super::http::{Body, Failure, Stage};
use super::problem::{Effect, Problem, What, parse_date};
use super::settings::WebDav;
use super::store::{Call, ObjectStore};
use crate::keys::Key;
use crate::store::{StoreError, StoreErrorKind};
pub(super) use walk::Walk;

/// What ends the name of an object that is not complete.
const TEMPORARY: &str = ".tmp";
/// The longest answer, in bytes: a collection of some 100,000 members.
const ANSWER_MAX: usize = 64 << 20;

/// A directory of a WebDAV server.
pub(super) struct Dav {
    /// The URL of the server's directory, with a slash at its end.
    base: String,
    authorization: Option<HeaderValue>,
    /// The path of that URL, decoded.
    path: String,
    /// Collections that were there when they were last needed, with a slash at the end.
    made: Mutex<BTreeSet<String>>,
    /// One at a time makes collections: servers (WsgiDAV) answer 500 to whoever comes second.
    making: smol::lock::Mutex<()>,
}

impl Dav {
    /// `Err` for a URL that is none.
    #[cfg_attr(madsim, expect(dead_code, reason = "S3 alone is simulated"))]
    pub(super) fn new(settings: &WebDav) -> Result<Dav, String> {
        let base = format!("{}/", settings.url.trim_end_matches('/'));
        let url: Uri = base.parse().map_err(|_| format!("{} is no URL", settings.url))?;
        let path =
            percent_decode_str(url.path()).decode_utf8().map_err(|_| "the URL is not UTF-8")?.into_owned();
        let authorization = settings.username.as_ref().map(|username| {
            let password = settings.password.as_ref().map_or("", |password| password.reveal());
            let encoded = BASE64_STANDARD.encode(format!("{username}:{password}"));
            let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).expect("base64 is ASCII");
            value.set_sensitive(true);
            value
        });
        Ok(Dav { base, path, authorization, made: Mutex::default(), making: smol::lock::Mutex::default() })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{}", self.base, percent_encode_path(path))
    }

    fn made(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request of our own.
    async fn send(
        &self,
        call: &Call,
        operation: &'static str,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: Body,
    ) -> Result<(response::Parts, Vec<u8>), Problem> {
        let mut request = Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let wrong = |cause: String| {
            let failure = Failure { stage: Stage::Setup, cause };
            Problem { operation, what: What::NoAnswer(failure) }
        };
        let (parts, ()) = request.body(()).map_err(|error| wrong(error.to_string()))?.into_parts();
        let sent = call.wire.send(operation, parts, body).await;
        if let Some(problem) = call.wire.notes().problem.take() {
            return Err(problem);
        }
        let (head, reply) = sent.map_err(|error| wrong(error.message().to_owned()))?;
        let body = reply.whole(ANSWER_MAX).await;
        let body = body.map_err(|failure| Problem { operation, what: What::NoAnswer(failure) })?;
        Ok((head, body))
    }

    /// Sees to it that the collection of a path exists.
    async fn make_parent(&self, call: &Call, path: &str) -> Result<(), StoreError> {
        let Some((parent, _)) = path.rsplit_once('/') else { return self.make(call, "/").await };
        self.make(call, &format!("{parent}/")).await
    }

    async fn make(&self, call: &Call, collection: &str) -> Result<(), StoreError> {
        if self.made().contains(collection) {
            return Ok(());
        }
        let _making = self.making.lock().await;
        if self.made().contains(collection) {
            return Ok(());
        }
        let made = call.place.service.create_dir_dyn(&call.context, collection, OpCreateDir::new()).await;
        // Looking whether it is there is refused with 404, which is no trouble.
        made.map_err(|error| call.error(error, collection))?;
        call.wire.notes().problem = None;
        self.made().insert(collection.to_owned());
        Ok(())
    }
}

/// A path beside it that nobody else takes.
fn temporary(path: &str) -> String {
    let unique = std::hash::RandomState::new().build_hasher().finish();
    format!("{path}.{unique:016x}{TEMPORARY}")
}

impl ObjectStore {
    /// Deletes an object, and never a collection.
    pub(super) async fn delete_from(&self, dav: &Dav, key: &Key) -> Result<(), StoreError> {
        let (call, path) = (self.call(), self.path(key.as_str()));
        let stat = self.place().service.stat_dyn(&call.context, &path, OpStat::new()).await;
        match stat.map(|stat| stat.into_metadata().is_dir()) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => match call.error(error, key) {
                error if error.kind == StoreErrorKind::NotFound => return Ok(()),
                error => return Err(error),
            },
        }
        match dav.send(&call, "Delete", "DELETE", &path, &[], Body::memory(Vec::<u8>::new())).await {
            Ok(_) => Ok(()),
            Err(problem) => match problem.into_error(call.place.dialect, Effect::None, key) {
                error if error.kind == StoreErrorKind::NotFound => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Deletes the temporaries of puts that did not end.
    pub(super) async fn drop_temporaries(
        &self,
        dav: &Dav,
        prefix: &str,
        older_than: Duration,
    ) -> Result<u64, StoreError> {
        let older_than = SignedDuration::try_from(older_than).unwrap_or(SignedDuration::MAX);
        let mut walk = Walk::new(&self.path(prefix), None);
        let mut dropped = 0;
        while let Some(found) = walk.next(self, dav).await? {
            let Some(modified) = found.modified.filter(|_| found.path.ends_with(TEMPORARY)) else { continue };
            let Some(now) = walk.server_time() else { continue };
            if now.duration_since(modified) < older_than {
                continue;
            }
            let call = self.call();
            let body = Body::memory(Vec::<u8>::new());
            match dav.send(&call, "Delete", "DELETE", &found.path, &[], body).await {
                Ok(_) => dropped += 1,
                Err(problem) => match problem.into_error(call.place.dialect, Effect::None, &found.path) {
                    error if error.kind == StoreErrorKind::NotFound => {}
                    error => return Err(error),
                },
            }
        }
        Ok(dropped)
    }
}

/// The server's clock, as an answer tells it.
fn server_time(headers: &HeaderMap) -> Option<Timestamp> {
    headers.get(header::DATE).and_then(|date| parse_date(date.to_str().ok()?))
}
