//! The directory store on the blocking pool.
//!
//! Every call is one job there, so that an `fsync` that takes a second holds up nobody. A future
//! that is dropped does not stop a job that has begun: the put that it carried is cleaned up where
//! it is, by [`Pending`]'s `Drop`, unless the job was the commit.

use crate::fs::Fs;
use crate::keys::Key;
use crate::pool;
use crate::store::{
    BoxFuture, ByteRange, Capabilities, GetBody, ListPage, PutBody, PutCondition, Store, StoreError,
    StoreErrorKind, Version,
};

use super::{DirectoryGet, DirectoryPut, DirectoryStore};

impl<F> Store for DirectoryStore<F>
where
    F: Fs + Send + Sync + 'static,
    F::File: Send + 'static,
{
    fn put<'a>(
        &'a self,
        key: &'a Key,
        condition: PutCondition,
    ) -> BoxFuture<'a, Result<Box<dyn PutBody>, StoreError>> {
        let (store, owned) = (self.clone(), key.clone());
        Box::pin(async move {
            let begun = pool::unblock_store(move || {
                let put = store.put_begin(&owned, condition)?;
                Ok(Pending { store, put: Some(put) })
            });
            let body = HostPut { key: key.clone(), pending: Some(begun.await?) };
            Ok(Box::new(body) as Box<dyn PutBody>)
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a Key,
        range: ByteRange,
    ) -> BoxFuture<'a, Result<Box<dyn GetBody>, StoreError>> {
        let (store, owned) = (self.clone(), key.clone());
        Box::pin(async move {
            let get = pool::unblock_store(move || store.get(&owned, range)).await?;
            let (object_len, remaining) = (get.object_len(), get.remaining());
            let body =
                HostGet { store: self.clone(), key: key.clone(), get: Some(get), object_len, remaining };
            Ok(Box::new(body) as Box<dyn GetBody>)
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&'a Key>,
        limit: usize,
    ) -> BoxFuture<'a, Result<ListPage, StoreError>> {
        let (store, prefix, start_after) = (self.clone(), prefix.to_owned(), start_after.cloned());
        Box::pin(pool::unblock_store(move || store.list(&prefix, start_after.as_ref(), limit)))
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StoreError>> {
        let (store, key) = (self.clone(), key.clone());
        Box::pin(pool::unblock_store(move || DirectoryStore::delete(&store, &key)))
    }

    fn capabilities(&self) -> Capabilities {
        DirectoryStore::capabilities(self)
    }
}

/// A put that removes its temporary when dropped, on whatever thread that happens.
struct Pending<F: Fs> {
    store: DirectoryStore<F>,
    put: Option<DirectoryPut<F>>,
}

impl<F: Fs> Pending<F> {
    fn take(&mut self) -> DirectoryPut<F> {
        self.put.take().expect("a pending put is taken once")
    }
}

impl<F: Fs> Drop for Pending<F> {
    fn drop(&mut self) {
        if let Some(put) = self.put.take() {
            // Nobody is left to tell; what stays behind is hidden.
            let _ = self.store.put_abort(put);
        }
    }
}

struct HostPut<F>
where
    F: Fs + Send + Sync + 'static,
    F::File: Send + 'static,
{
    key: Key,
    /// `None` while a write is under way, and ever after if its future was dropped.
    pending: Option<Pending<F>>,
}

impl<F> HostPut<F>
where
    F: Fs + Send + Sync + 'static,
    F::File: Send + 'static,
{
    fn take(&mut self) -> Result<Pending<F>, StoreError> {
        let lost = || StoreError::new(StoreErrorKind::Retry, &self.key, "a write to it was abandoned");
        self.pending.take().ok_or_else(lost)
    }
}

impl<F> PutBody for HostPut<F>
where
    F: Fs + Send + Sync + 'static,
    F::File: Send + 'static,
{
    fn write(&mut self, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut pending = self.take()?;
            let (pending, written) = pool::unblock_store(move || {
                let put = pending.put.as_mut().expect("a pending put holds one until taken");
                let written = pending.store.put_write(put, &chunk);
                (pending, written)
            })
            .await;
            self.pending = Some(pending);
            written
        })
    }

    fn commit(mut self: Box<Self>) -> BoxFuture<'static, Result<Option<Version>, StoreError>> {
        Box::pin(async move {
            let mut pending = self.take()?;
            pool::unblock_store(move || {
                let put = pending.take();
                pending.store.put_commit(put)
            })
            .await
            .map(|()| None)
        })
    }

    fn abort(mut self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move {
            let mut pending = self.take()?;
            pool::unblock_store(move || {
                let put = pending.take();
                pending.store.put_abort(put)
            })
            .await
        })
    }
}

impl<F> Drop for HostPut<F>
where
    F: Fs + Send + Sync + 'static,
    F::File: Send + 'static,
{
    fn drop(&mut self) {
        if let Some(pending) = self.pending.take() {
            drop(pool::unblock_store(move || drop(pending)));
        }
    }
}

struct HostGet<F: Fs> {
    store: DirectoryStore<F>,
    key: Key,
    /// `None` while a read is under way, and ever after if its future was dropped.
    get: Option<DirectoryGet<F>>,
    object_len: u64,
    remaining: u64,
}

impl<F> GetBody for HostGet<F>
where
    F: Fs + Send + Sync + 'static,
    F::File: Send + 'static,
{
    fn object_len(&self) -> u64 {
        self.object_len
    }

    fn remaining(&self) -> u64 {
        self.remaining
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        Box::pin(async move {
            let Some(mut get) = self.get.take() else {
                return Err(StoreError::new(StoreErrorKind::Retry, &self.key, "a read of it was abandoned"));
            };
            if get.remaining() == 0 {
                self.get = Some(get);
                return Ok(None);
            }
            let store = self.store.clone();
            let (get, chunk) = pool::unblock_store(move || {
                let chunk = store.get_next(&mut get);
                (get, chunk)
            })
            .await;
            self.remaining = get.remaining();
            self.get = Some(get);
            chunk
        })
    }
}
