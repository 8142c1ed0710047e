//! A store that breaks one clause of the contract at a time, to show that the battery notices.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use driftless_adapters::keys::Key;
use driftless_adapters::memory::MemoryStore;
use driftless_adapters::store::{
    BoxFuture, ByteRange, Capabilities, GetBody, ListPage, PART_BYTES_MAX, PutBody, PutCondition, Store,
    StoreError, StoreErrorKind, Version,
};
use futures_lite::future::yield_now;

/// What is wrong with the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    None,
    FlipsFirstByte,
    EndsBodyEarly,
    MiscountsRemaining,
    YieldsHugeChunks,
    YieldsEmptyChunks,
    RangeOffByOne,
    RangeLenAsObjectLen,
    TailFromStart,
    ZeroLengthMeansAll,
    RefusesRangePastEnd,
    LosesEmptyObjects,
    LosesThirdPart,
    EmptyPartEndsObject,
    AbsentIsEmpty,
    AbsentIsRetry,
    RestartsBody,
    IgnoresCondition,
    RefusesAndReplaces,
    ChecksAtBegin,
    ChecksBeforeCommitting,
    RefusesAsFailed,
    AcceptsUnclaimed,
    AlwaysKeepsFirst,
    VisibleAtBegin,
    AbortCommits,
    DropCommits,
    SharesStaging,
    RemembersDeleted,
    DeletesByPrefix,
    DeletesNothing,
    DeleteOfAbsentFails,
    StopsAtThousand,
    IgnoresLimit,
    AlwaysMore,
    ListsWrongLen,
    IgnoresStartAfter,
    IncludesStartAfter,
    OrdersByName,
    PrefixIsDirectory,
    ClaimsModified,
    TellsNoVersion,
    NamesOldVersion,
    IgnoresVersion,
    SwapsNothing,
    SwapsLargeAlways,
    ComparesBeforeCommitting,
    AcceptsUnclaimedSwap,
}

use Defect as D;

#[derive(Clone)]
pub struct Broken {
    inner: MemoryStore,
    defect: Defect,
    claims: Capabilities,
    staging: Arc<Mutex<Vec<u8>>>,
    deleted: Arc<Mutex<BTreeSet<Key>>>,
}

impl Broken {
    pub fn new(defect: Defect) -> Broken {
        let claims = Capabilities {
            create_if_absent: defect != D::AcceptsUnclaimed,
            swap: defect != D::AcceptsUnclaimedSwap,
            modified: defect == D::ClaimsModified,
        };
        Broken { inner: MemoryStore::new(), defect, claims, staging: Arc::default(), deleted: Arc::default() }
    }

    /// Without the claim and, honestly, without the condition.
    pub fn without_create() -> Broken {
        let claims = Capabilities::default();
        Broken { claims, ..Broken::new(D::None) }
    }

    async fn read(&self, key: &Key, range: ByteRange) -> Result<(u64, Vec<u8>, Option<Version>), StoreError> {
        let mut body = self.inner.get(key, range).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await? {
            bytes.extend(chunk);
        }
        Ok((body.object_len(), bytes, body.version()))
    }

    async fn store(&self, key: &Key, how: PutCondition, bytes: &[u8]) -> Result<Option<Version>, StoreError> {
        let mut body = self.inner.put(key, how).await?;
        for part in bytes.chunks(PART_BYTES_MAX) {
            body.write(part.to_vec()).await?;
        }
        body.commit().await
    }

    async fn exists(&self, key: &Key) -> bool {
        self.inner.get(key, ByteRange::ALL).await.is_ok()
    }

    fn distort_range(&self, range: ByteRange) -> ByteRange {
        match (self.defect, range) {
            (D::RangeOffByOne, ByteRange::From { offset, len: Some(len) }) => {
                ByteRange::at(offset, len.saturating_add(1))
            }
            (D::TailFromStart, ByteRange::Tail(n)) => ByteRange::at(0, n),
            (D::ZeroLengthMeansAll, ByteRange::From { offset, len: Some(0) }) => {
                ByteRange::From { offset, len: None }
            }
            (D::ZeroLengthMeansAll, ByteRange::Tail(0)) => ByteRange::ALL,
            (_, range) => range,
        }
    }
}

impl Store for Broken {
    fn put<'a>(
        &'a self,
        key: &'a Key,
        how: PutCondition,
    ) -> BoxFuture<'a, Result<Box<dyn PutBody>, StoreError>> {
        Box::pin(async move {
            let mut how = how;
            if how == PutCondition::IfAbsent && !self.claims.create_if_absent {
                if self.defect != D::AcceptsUnclaimed {
                    return Err(StoreError::new(StoreErrorKind::Unsupported, key, ""));
                }
                how = PutCondition::Always;
            }
            if matches!(how, PutCondition::Matches(_)) && !self.claims.swap {
                if self.defect != D::AcceptsUnclaimedSwap {
                    return Err(StoreError::new(StoreErrorKind::Unsupported, key, ""));
                }
                how = PutCondition::Always;
            }
            if self.defect == D::ChecksAtBegin && how == PutCondition::IfAbsent {
                if self.exists(key).await {
                    return Err(StoreError::new(StoreErrorKind::AlreadyExists, key, ""));
                }
                how = PutCondition::Always;
            }
            if self.defect == D::VisibleAtBegin {
                self.store(key, PutCondition::Always, b"").await?;
                how = PutCondition::Always;
            }
            let body =
                BrokenPut { store: self.clone(), key: key.clone(), how, parts: Vec::new(), ended: false };
            Ok(Box::new(body) as Box<dyn PutBody>)
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a Key,
        range: ByteRange,
    ) -> BoxFuture<'a, Result<Box<dyn GetBody>, StoreError>> {
        Box::pin(async move {
            let (mut object_len, mut bytes, mut version) =
                match self.read(key, self.distort_range(range)).await {
                    Err(_) if self.defect == D::AbsentIsEmpty => (0, Vec::new(), None),
                    Err(e) if self.defect == D::AbsentIsRetry => {
                        return Err(StoreError { kind: StoreErrorKind::Retry, ..e });
                    }
                    read => read?,
                };
            if self.defect == D::RefusesRangePastEnd
                && matches!(range, ByteRange::From { offset, .. } if offset > 0 && offset >= object_len)
            {
                return Err(StoreError::new(StoreErrorKind::Misconfigured, key, "416"));
            }
            if self.defect == D::RangeLenAsObjectLen {
                object_len = bytes.len() as u64;
            }
            if let (D::FlipsFirstByte, Some(byte)) = (self.defect, bytes.first_mut()) {
                *byte ^= 1;
            }
            if self.defect == D::TellsNoVersion {
                version = None;
            }
            let remaining = bytes.len() as u64;
            if self.defect == D::EndsBodyEarly && bytes.len() > 500 {
                bytes.pop();
            }
            let body = BrokenGet { defect: self.defect, object_len, remaining, version, bytes, at: 0 };
            Ok(Box::new(body) as Box<dyn GetBody>)
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&'a Key>,
        limit: usize,
    ) -> BoxFuture<'a, Result<ListPage, StoreError>> {
        Box::pin(async move {
            let start_after = start_after.filter(|_| self.defect != D::IgnoresStartAfter);
            let limit = if self.defect == D::IgnoresLimit { usize::MAX } else { limit };
            let mut page = self.inner.list(prefix, start_after, limit).await?;
            match self.defect {
                D::StopsAtThousand => {
                    page.entries.truncate(1000);
                    page.more = page.more && page.entries.len() < 1000;
                }
                D::AlwaysMore => page.more = true,
                D::ListsWrongLen => page.entries.iter_mut().for_each(|e| e.len = e.len.max(1)),
                D::OrdersByName => {
                    // As a walk that sorts the names of each directory.
                    let mut all = self.inner.list(prefix, None, usize::MAX).await?.entries;
                    let parts = |key: &Key| key.as_str().split('/').map(str::to_owned).collect::<Vec<_>>();
                    all.sort_by_key(|e| parts(&e.key));
                    all.retain(|e| start_after.is_none_or(|after| parts(&e.key) > parts(after)));
                    page.more = all.len() > limit;
                    all.truncate(limit);
                    page.entries = all;
                }
                D::PrefixIsDirectory => {
                    let directory = format!("{}/", prefix.trim_end_matches('/'));
                    page.entries.retain(|e| prefix.is_empty() || e.key.as_str().starts_with(&directory));
                }
                D::IncludesStartAfter => {
                    if let Some(after) = start_after.filter(|after| after.as_str().starts_with(prefix)) {
                        let same = self.inner.list(after.as_str(), None, 1).await?.entries;
                        page.entries.splice(0..0, same.into_iter().filter(|e| e.key == *after));
                    }
                }
                _ => {}
            }
            Ok(page)
        })
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            match self.defect {
                D::DeletesNothing => return Ok(()),
                D::DeleteOfAbsentFails if !self.exists(key).await => {
                    return Err(StoreError::new(StoreErrorKind::NotFound, key, ""));
                }
                D::DeletesByPrefix => {
                    for entry in self.inner.list(key.as_str(), None, usize::MAX).await?.entries {
                        self.inner.delete(&entry.key).await?;
                    }
                }
                _ => {}
            }
            self.deleted.lock().unwrap().insert(key.clone());
            self.inner.delete(key).await
        })
    }

    fn capabilities(&self) -> Capabilities {
        self.claims
    }
}

struct BrokenPut {
    store: Broken,
    key: Key,
    how: PutCondition,
    parts: Vec<Vec<u8>>,
    ended: bool,
}

impl BrokenPut {
    async fn finish(&mut self) -> Result<Option<Version>, StoreError> {
        let (store, key) = (&self.store, &self.key);
        let defect = store.defect;
        let mut bytes = self.parts.concat();
        if defect == D::SharesStaging {
            bytes = std::mem::take(&mut *store.staging.lock().unwrap());
        }
        let exists = store.exists(key).await;
        let swaps = matches!(self.how, PutCondition::Matches(_));
        match defect {
            D::LosesEmptyObjects if bytes.is_empty() => return Ok(None),
            D::AlwaysKeepsFirst if exists && self.how == PutCondition::Always => return Ok(None),
            D::IgnoresCondition => self.how = PutCondition::Always,
            D::RemembersDeleted if store.deleted.lock().unwrap().contains(key) => {
                return Err(StoreError::new(StoreErrorKind::AlreadyExists, key, ""));
            }
            D::RefusesAndReplaces if exists => {
                store.store(key, PutCondition::Always, &bytes).await?;
                return Err(StoreError::new(StoreErrorKind::AlreadyExists, key, ""));
            }
            D::ChecksBeforeCommitting if !exists => {
                yield_now().await;
                self.how = PutCondition::Always;
            }
            D::IgnoresVersion if swaps && exists => self.how = PutCondition::Always,
            D::SwapsNothing if swaps && !exists => self.how = PutCondition::Always,
            D::SwapsLargeAlways if swaps && bytes.len() > PART_BYTES_MAX => self.how = PutCondition::Always,
            D::ComparesBeforeCommitting if swaps => {
                let (_, _, there) = store.read(key, ByteRange::ALL).await?;
                if there.map(PutCondition::Matches) == Some(self.how.clone()) {
                    yield_now().await;
                    self.how = PutCondition::Always;
                }
            }
            _ => {}
        }
        let put = store.store(key, self.how.clone(), &bytes).await;
        match (&self.how, put) {
            (_, Err(e)) if defect == D::RefusesAsFailed => {
                Err(StoreError { kind: StoreErrorKind::Retry, ..e })
            }
            (PutCondition::Matches(old), Ok(_)) if defect == D::NamesOldVersion => Ok(Some(old.clone())),
            (_, put) => put,
        }
    }
}

impl PutBody for BrokenPut {
    fn write(&mut self, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            // So that puts that run together really alternate.
            yield_now().await;
            match self.store.defect {
                D::SharesStaging => self.store.staging.lock().unwrap().extend(&chunk),
                D::LosesThirdPart if self.parts.len() == 2 && chunk.len() == PART_BYTES_MAX => {}
                D::EmptyPartEndsObject => self.ended |= chunk.is_empty(),
                _ => {}
            }
            let lost = self.store.defect == D::LosesThirdPart && self.parts.len() == 2;
            self.parts.push(if lost || self.ended { Vec::new() } else { chunk });
            Ok(())
        })
    }

    fn commit(mut self: Box<Self>) -> BoxFuture<'static, Result<Option<Version>, StoreError>> {
        Box::pin(async move {
            let done = self.finish().await;
            self.ended = true;
            self.parts.clear();
            self.store.defect = D::None;
            done
        })
    }

    fn abort(mut self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move {
            match self.store.defect {
                D::AbortCommits => drop(self.finish().await?),
                D::DropCommits => self.store.defect = D::None,
                _ => {}
            }
            Ok(())
        })
    }
}

impl Drop for BrokenPut {
    fn drop(&mut self) {
        if self.store.defect == D::DropCommits {
            futures_lite::future::block_on(self.finish()).unwrap();
        }
    }
}

struct BrokenGet {
    defect: Defect,
    object_len: u64,
    remaining: u64,
    version: Option<Version>,
    bytes: Vec<u8>,
    at: usize,
}

impl GetBody for BrokenGet {
    fn object_len(&self) -> u64 {
        self.object_len
    }

    fn remaining(&self) -> u64 {
        match self.defect {
            D::MiscountsRemaining => self.bytes.len() as u64,
            _ => self.remaining,
        }
    }

    fn version(&self) -> Option<Version> {
        self.version.clone()
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        let most = if self.defect == D::YieldsHugeChunks { usize::MAX } else { PART_BYTES_MAX };
        let chunk: Vec<u8> = self.bytes[self.at..].iter().take(most).copied().collect();
        self.at += chunk.len();
        self.remaining -= chunk.len() as u64;
        if chunk.is_empty() && self.defect == D::RestartsBody {
            self.at = 0;
            self.remaining = self.bytes.len() as u64;
        }
        let ends = chunk.is_empty() && !(self.defect == D::YieldsEmptyChunks && self.at > 0);
        Box::pin(async move { Ok((!ends).then_some(chunk)) })
    }
}
