//! The contract of a store, over one of opendal's services.
//!
//! opendal's operator is left out: below it a service takes a context for each call, and each call
//! here brings its own [`Wire`], which knows afterwards what was asked and answered.

mod get;
mod list;
mod put;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opendal::raw::{BoxedStaticFuture, OpDelete};
use opendal::{Execute, Executor, HttpTransporter, OperationContext};

use super::problem::{Effect, one_line};
use super::service::Place;
use super::uploads;
use super::webdav::Walk;
use super::wire::Wire;
use crate::keys::Key;
use crate::store::{
    BoxFuture, ByteRange, Capabilities, GetBody, ListPage, PutBody, PutCondition, Store, StoreError,
    StoreErrorKind,
};
use list::Listing;
pub(super) use list::Resumed;

/// A store on a server.
pub(super) struct ObjectStore {
    place: Arc<Place>,
    /// What every path begins with: empty, or with a slash at its end.
    root: String,
    executor: Arc<smol::Executor<'static>>,
    resumed: Resumed<Listing>,
    walked: Resumed<Walk>,
}

impl ObjectStore {
    pub(super) fn new(place: Arc<Place>, root: &str, executor: Arc<smol::Executor<'static>>) -> ObjectStore {
        let root = if root.is_empty() { String::new() } else { format!("{root}/") };
        ObjectStore { place, root, executor, resumed: Resumed::default(), walked: Resumed::default() }
    }

    /// Where a key, or the beginning of one, is in the bucket.
    pub(super) fn path(&self, key: &str) -> String {
        format!("{}{key}", self.root)
    }

    /// The key that is there, if it is one of ours.
    pub(super) fn key(&self, path: &str) -> Option<Key> {
        Key::new(path.strip_prefix(self.root.as_str())?).ok()
    }

    pub(super) fn walked(&self) -> &Resumed<Walk> {
        &self.walked
    }

    pub(super) fn executor(&self) -> &smol::Executor<'static> {
        &self.executor
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn call(&self) -> Call {
        let wire = Wire::new(&self.place.server);
        let executor = Executor::with(Tasks(Arc::clone(&self.executor)));
        let context = OperationContext::from_parts(HttpTransporter::new(wire.clone()), executor);
        Call { place: Arc::clone(&self.place), wire, context }
    }
}

/// Runs what opendal does beside, such as the parts of an upload.
struct Tasks(Arc<smol::Executor<'static>>);

impl Execute for Tasks {
    fn execute(&self, task: BoxedStaticFuture<()>) {
        self.0.spawn(task).detach();
    }
}

/// One call of the store, to its end.
pub(super) struct Call {
    pub(super) place: Arc<Place>,
    pub(super) wire: Wire,
    pub(super) context: OperationContext,
}

impl Call {
    /// The error of a call that makes nothing visible.
    pub(super) fn error(&self, error: opendal::Error, subject: impl fmt::Display) -> StoreError {
        self.error_of(error, Effect::None, subject)
    }

    /// The error of a call, with what was noted on the way. opendal's own error counts only where
    /// no request failed: it did not understand an answer, or could not sign.
    fn error_of(&self, error: opendal::Error, effect: Effect, subject: impl fmt::Display) -> StoreError {
        let mut notes = self.wire.notes();
        if let Some(problem) = notes.problem.take() {
            // Parts of an upload are invisible, whatever becomes of them.
            let effect = if super::wire::commits(problem.operation) { effect } else { Effect::None };
            return problem.into_error(self.place.dialect, effect, subject);
        }
        let cause = one_line(&said(&error));
        if notes.committing && effect != Effect::None {
            return StoreError::new(StoreErrorKind::Ambiguous, subject, cause);
        }
        let signing = std::error::Error::source(&error).is_some() && error.message().contains("sign");
        if signing && !error.is_temporary() {
            return StoreError::new(StoreErrorKind::Denied, subject, cause)
                .with_hint(self.place.dialect.credentials_hint());
        }
        StoreError::new(StoreErrorKind::Retry, subject, cause)
    }
}

/// opendal's message and what lies under it, without the headers that its `Display` adds.
fn said(error: &opendal::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{}: {source}", error.message()),
        None => error.message().to_owned(),
    }
}

impl Store for ObjectStore {
    fn put<'a>(
        &'a self,
        key: &'a Key,
        condition: PutCondition,
    ) -> BoxFuture<'a, Result<Box<dyn PutBody>, StoreError>> {
        Box::pin(async move {
            match &self.place.dav {
                Some(dav) => self.begin_in(dav, key, condition),
                None => self.begin(key, condition),
            }
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a Key,
        range: ByteRange,
    ) -> BoxFuture<'a, Result<Box<dyn GetBody>, StoreError>> {
        Box::pin(async move { self.read(key, range).await })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&'a Key>,
        limit: usize,
    ) -> BoxFuture<'a, Result<ListPage, StoreError>> {
        Box::pin(async move {
            match &self.place.dav {
                Some(dav) => self.walk_page(dav, prefix, start_after, limit.max(1)).await,
                None => self.page(prefix, start_after, limit.max(1)).await,
            }
        })
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            if let Some(dav) = &self.place.dav {
                return self.delete_from(dav, key).await;
            }
            let call = self.call();
            let deleted = async {
                let mut deleter = self.place.service.delete_dyn(&call.context)?;
                deleter.delete_dyn(&self.path(key.as_str()), OpDelete::new()).await?;
                deleter.close_dyn().await
            };
            match deleted.await.map_err(|error| call.error(error, key)) {
                Err(error) if error.kind == StoreErrorKind::NotFound => Ok(()),
                deleted => deleted,
            }
        })
    }

    fn capabilities(&self) -> Capabilities {
        self.place.capabilities
    }

    fn drop_unfinished<'a>(
        &'a self,
        prefix: &'a str,
        older_than: Duration,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            if let Some(dav) = &self.place.dav {
                return self.drop_temporaries(dav, prefix, older_than).await;
            }
            let Some(bucket_url) = &self.place.bucket_url else { return Ok(0) };
            uploads::drop_unfinished(&self.place, bucket_url, &self.path(prefix), older_than).await
        })
    }
}
