//! Putting an object: whole, under another name, and then moved.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures_lite::{Stream, stream};
use opendal::Buffer;

use super::{Dav, TEMPORARY, temporary};
use crate::keys::Key;
use crate::object::http::Body;
use crate::object::problem::{Dialect, Effect, Problem, Refusal, What};
use crate::object::store::{Call, ObjectStore};
use crate::pool::unblock_store;
use crate::store::{BoxFuture, PART_BYTES_MAX, PutBody, PutCondition, StoreError, StoreErrorKind, Version};

/// A body waits in memory up to this many bytes, and beyond them in a file.
const MEMORY_MAX: usize = 8 << 20;
/// Bytes read from that file at a time.
const CHUNK: usize = 256 << 10;

impl ObjectStore {
    pub(in crate::object) fn begin_in(
        &self,
        dav: &Arc<Dav>,
        key: &Key,
        condition: PutCondition,
    ) -> Result<Box<dyn PutBody>, StoreError> {
        if condition != PutCondition::Always {
            let cause = "WebDAV has no such condition that all servers keep";
            return Err(StoreError::new(StoreErrorKind::Unsupported, key, cause));
        }
        if key.as_str().ends_with(TEMPORARY) {
            let cause = format!("names that end in {TEMPORARY} are those of unfinished objects");
            return Err(StoreError::new(StoreErrorKind::Misconfigured, key, cause));
        }
        let waiting = Waiting { chunks: Vec::new(), len: 0, file: None, failed: false };
        Ok(Box::new(Put {
            call: self.call(),
            dav: Arc::clone(dav),
            key: key.clone(),
            path: self.path(key.as_str()),
            waiting,
        }))
    }
}

struct Put {
    call: Call,
    dav: Arc<Dav>,
    key: Key,
    path: String,
    waiting: Waiting,
}

/// A body until its length is known.
struct Waiting {
    chunks: Vec<Bytes>,
    len: u64,
    file: Option<Arc<File>>,
    failed: bool,
}

impl Waiting {
    async fn add(&mut self, chunk: Vec<u8>) -> io::Result<()> {
        self.len += chunk.len() as u64;
        self.chunks.push(chunk.into());
        if self.len <= MEMORY_MAX as u64 {
            return Ok(());
        }
        self.failed = true;
        let (chunks, file) = (std::mem::take(&mut self.chunks), self.file.take());
        let written = unblock_store(move || {
            let file = file.map_or_else(nameless, Ok)?;
            for chunk in chunks {
                (&*file).write_all(&chunk)?;
            }
            Ok::<_, io::Error>(file)
        });
        self.file = Some(written.await?);
        self.failed = false;
        Ok(())
    }

    fn into_body(self) -> Body {
        match self.file {
            Some(file) => Body::stream(self.len, read(file, self.len)),
            None => Body::memory(Buffer::from(self.chunks)),
        }
    }
}

/// A file that vanishes with its last user.
fn nameless() -> io::Result<Arc<File>> {
    let unique = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    let path = std::env::temp_dir().join(format!("driftless-{unique:016x}{TEMPORARY}"));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(Arc::new(file))
}

fn read(file: Arc<File>, len: u64) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(0, move |at| {
        let file = Arc::clone(&file);
        async move {
            if at == len {
                return None;
            }
            let mut chunk = vec![0; (len - at).min(CHUNK as u64) as usize];
            let next = at + chunk.len() as u64;
            let chunk = unblock_store(move || file.read_exact_at(&mut chunk, at).map(|()| chunk)).await;
            Some((chunk.map(Bytes::from), next))
        }
    })
}

impl Put {
    async fn finish(self) -> Result<(), StoreError> {
        let Put { call, dav, key, path, waiting } = self;
        if waiting.failed {
            return Err(StoreError::new(StoreErrorKind::Retry, &key, "a part of it could not be kept"));
        }
        let name = temporary(&path);
        dav.make_parent(&call, &path).await?;
        let put = dav.send(&call, "Put", "PUT", &name, &[], waiting.into_body()).await;
        if let Err(problem) = put {
            // A collection that was there may be gone.
            dav.made().clear();
            return Err(problem.into_error(Dialect::WebDav, Effect::None, &key));
        }
        let headers = [("destination", dav.url(&path)), ("overwrite", "T".to_owned())];
        let empty = || Body::memory(Vec::<u8>::new());
        let moved = dav.send(&call, "Move", "MOVE", &name, &headers, empty()).await;
        let problem = match moved {
            Ok((head, _)) if matches!(head.status.as_u16(), 200 | 201 | 204) => return Ok(()),
            // Some of what was to be moved (207), or later (202).
            Ok((head, words)) => {
                let refusal = Refusal::read(head.status, &head.headers, &words);
                Problem { operation: "Move", what: What::Refused(refusal) }
            }
            Err(problem) => problem,
        };
        let error = problem.into_error(Dialect::WebDav, Effect::Commit { conditional: false }, &key);
        // Either it is there, or it has become the object.
        let _ = dav.send(&call, "Delete", "DELETE", &name, &[], empty()).await;
        Err(error)
    }
}

impl PutBody for Put {
    fn write(&mut self, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        assert!(chunk.len() <= PART_BYTES_MAX, "a part holds at most {PART_BYTES_MAX} bytes");
        Box::pin(async move {
            self.waiting.add(chunk).await.map_err(|error| {
                let cause = format!("a temporary file for it: {error}");
                let hint = "free some space there, or set TMPDIR";
                StoreError::new(StoreErrorKind::Retry, &self.key, cause).with_hint(hint)
            })
        })
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<Option<Version>, StoreError>> {
        Box::pin(async { self.finish().await.map(|()| None) })
    }

    fn abort(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async { Ok(()) }) // nothing was sent
    }
}
