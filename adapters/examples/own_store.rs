//! A store of one's own: every object is one file in one flat directory.
//!
//! `docs/STORAGE.md` explains it, a test runs the battery over it. It blocks the thread it runs
//! on, which is fine for a tool; a daemon would move each call to a pool (`adapters::pool`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use driftless_adapters::battery;
use driftless_adapters::keys::Key;
use driftless_adapters::store::{
    BoxFuture, ByteRange, Capabilities, GetBody, ListEntry, ListPage, PART_BYTES_MAX, PutBody, PutCondition,
    Store, StoreError, StoreErrorKind as Kind, Version,
};

/// One file per object in one directory.
#[derive(Clone)]
pub struct FlatStore {
    dir: PathBuf,
    unfinished: Arc<AtomicU64>,
}

impl FlatStore {
    /// `dir` must exist, and belong to this process alone while objects are being written.
    pub fn new(dir: &Path) -> FlatStore {
        FlatStore { dir: dir.to_path_buf(), unfinished: Arc::default() }
    }

    /// `a/b` is kept as `o.a%2Fb`. Unfinished objects start with `u.`, so a listing leaves them out.
    fn path(&self, key: &Key) -> PathBuf {
        let name = key.as_str().replace('%', "%25").replace('/', "%2F");
        self.dir.join(format!("o.{name}"))
    }

    /// Makes the names durable: before a put is done, and before anything is shown that a process
    /// killed too early may have put.
    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn key(name: &str) -> Option<Key> {
        let name = name.strip_prefix("o.")?.replace("%2F", "/").replace("%25", "%");
        Key::new(name).ok()
    }
}

fn kind(e: &io::Error) -> Kind {
    match e.kind() {
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::AlreadyExists => Kind::AlreadyExists,
        ErrorKind::PermissionDenied => Kind::Denied,
        ErrorKind::InvalidFilename => Kind::Misconfigured,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Kind::NoSpace,
        _ => Kind::Retry,
    }
}

/// An error that certainly had no effect.
fn error(key: impl std::fmt::Display, e: io::Error) -> StoreError {
    StoreError::new(kind(&e), key, e.to_string())
}

impl Store for FlatStore {
    fn put<'a>(
        &'a self,
        key: &'a Key,
        how: PutCondition,
    ) -> BoxFuture<'a, Result<Box<dyn PutBody>, StoreError>> {
        Box::pin(async move {
            if let PutCondition::Matches(_) = how {
                return Err(StoreError::new(Kind::Unsupported, key, "files have no versions"));
            }
            let n = self.unfinished.fetch_add(1, Ordering::Relaxed);
            let temporary = self.dir.join(format!("u.{}-{n}", std::process::id()));
            let file = OpenOptions::new().write(true).create_new(true).open(&temporary);
            let file = file.map_err(|e| error(key, e))?;
            Ok(Box::new(FlatPut {
                store: self.clone(),
                key: key.clone(),
                how,
                file,
                temporary,
                failed: false,
            }) as Box<dyn PutBody>)
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a Key,
        range: ByteRange,
    ) -> BoxFuture<'a, Result<Box<dyn GetBody>, StoreError>> {
        Box::pin(async move {
            self.sync_names().map_err(|e| error(key, e))?;
            let file = File::open(self.path(key)).map_err(|e| error(key, e))?;
            let object_len = file.metadata().map_err(|e| error(key, e))?.len();
            // Ranges are cut to the object, never refused.
            let (at, end) = range.within(object_len);
            Ok(Box::new(FlatGet { key: key.clone(), file, object_len, at, end }) as Box<dyn GetBody>)
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        start_after: Option<&'a Key>,
        limit: usize,
    ) -> BoxFuture<'a, Result<ListPage, StoreError>> {
        Box::pin(async move {
            let mut entries = Vec::new();
            for file in fs::read_dir(&self.dir).map_err(|e| error(prefix, e))? {
                let file = file.map_err(|e| error(prefix, e))?;
                let Some(key) = file.file_name().to_str().and_then(FlatStore::key) else { continue };
                if key.as_str().starts_with(prefix) && start_after.is_none_or(|after| key > *after) {
                    let len = match file.metadata() {
                        Ok(meta) => meta.len(),
                        Err(e) if e.kind() == ErrorKind::NotFound => continue, // deleted meanwhile
                        Err(e) => return Err(error(key, e)),
                    };
                    entries.push(ListEntry { key, len, modified: None });
                }
            }
            self.sync_names().map_err(|e| error(prefix, e))?;
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            let more = entries.len() > limit;
            entries.truncate(limit);
            Ok(ListPage { entries, more })
        })
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            match fs::remove_file(self.path(key)) {
                Err(e) if e.kind() != ErrorKind::NotFound => Err(error(key, e)),
                _ => Ok(()),
            }
        })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { create_if_absent: true, ..Capabilities::default() }
    }
}

struct FlatPut {
    store: FlatStore,
    key: Key,
    how: PutCondition,
    file: File,
    temporary: PathBuf,
    failed: bool,
}

impl PutBody for FlatPut {
    fn write(&mut self, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        assert!(chunk.len() <= PART_BYTES_MAX, "a part holds at most {PART_BYTES_MAX} bytes");
        Box::pin(async move {
            let written = self.file.write_all(&chunk);
            self.failed |= written.is_err();
            written.map_err(|e| error(&self.key, e))
        })
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<Option<Version>, StoreError>> {
        Box::pin(async move {
            if self.failed {
                return Err(StoreError::new(Kind::Retry, &self.key, "a part of it could not be written"));
            }
            let target = self.store.path(&self.key);
            self.file.sync_all().map_err(|e| error(&self.key, e))?;
            // One syscall that the kernel decides. Looking first and renaming then lets two win.
            let named = match self.how {
                PutCondition::IfAbsent => fs::hard_link(&self.temporary, &target),
                PutCondition::Always => fs::rename(&self.temporary, &target),
                PutCondition::Matches(_) => unreachable!("refused when the put began"),
            };
            // From here on an error that is not plainly a refusal leaves the fate unknown.
            let unknown = |e: io::Error| StoreError::new(Kind::Ambiguous, &self.key, e.to_string());
            match named {
                Ok(()) => self.store.sync_names().map(|()| None).map_err(unknown),
                Err(e) if kind(&e) == Kind::Retry => Err(unknown(e)),
                Err(e) => Err(error(&self.key, e)),
            }
        })
    }

    fn abort(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async { Ok(()) }) // dropping does it
    }
}

impl Drop for FlatPut {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

struct FlatGet {
    key: Key,
    file: File,
    object_len: u64,
    at: u64,
    end: u64,
}

impl GetBody for FlatGet {
    fn object_len(&self) -> u64 {
        self.object_len
    }

    fn remaining(&self) -> u64 {
        self.end - self.at
    }

    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        Box::pin(async move {
            if self.at == self.end {
                return Ok(None);
            }
            let mut chunk = vec![0; PART_BYTES_MAX.min((self.end - self.at) as usize)];
            let n = self.file.read_at(&mut chunk, self.at).map_err(|e| error(&self.key, e))?;
            if n == 0 {
                // An early end is an error, not an end.
                return Err(StoreError::new(Kind::Corrupt, &self.key, "shorter than when it was opened"));
            }
            chunk.truncate(n);
            self.at += n as u64;
            Ok(Some(chunk))
        })
    }
}

/// Runs the battery in a directory that does not exist yet.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("driftless-own-store-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let store = FlatStore::new(&dir);
    let report = futures_lite::future::block_on(battery::run(&store, &battery::Options::default()));
    fs::remove_dir_all(&dir)?;
    eprint!("{report}");
    if report.passed() { Ok(()) } else { Err("the store does not conform".into()) }
}
