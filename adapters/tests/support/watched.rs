//! A filesystem wrapper that records calls, fails one of them, or dies at one.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use driftless_adapters::fs::{DirEntry, FileFacts, Fs, FsError, FsErrorKind};

/// When an injected failure strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    BeforeEffect,
    AfterEffect,
}

#[derive(Default)]
struct Script {
    calls: Vec<&'static str>,
    /// Calls that have returned from the inner filesystem.
    done: Vec<&'static str>,
    fail: Option<(&'static str, FsErrorKind, When)>,
    dies_at: Option<usize>,
    held: Option<&'static str>,
}

/// Clones share the record.
#[derive(Clone)]
pub struct Watched<F> {
    inner: F,
    script: Arc<Mutex<Script>>,
    changed: Arc<Condvar>,
}

impl<F> Watched<F> {
    pub fn new(inner: F) -> Watched<F> {
        Watched { inner, script: Arc::default(), changed: Arc::default() }
    }

    /// The calls since the last time.
    pub fn take_calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.script.lock().unwrap().calls)
    }

    /// Fails every call of this name from now on.
    pub fn fail(&self, call: &'static str, kind: FsErrorKind, when: When) {
        self.script.lock().unwrap().fail = Some((call, kind, when));
    }

    /// Blocks until `count` calls of this name have succeeded or failed in the inner filesystem.
    pub fn wait_for(&self, call: &'static str, count: usize) {
        let waits = |script: &mut Script| script.done.iter().filter(|done| **done == call).count() < count;
        let script = self.script.lock().unwrap();
        let (_script, out) = self.changed.wait_timeout_while(script, Duration::from_secs(60), waits).unwrap();
        assert!(!out.timed_out(), "{call} was not called {count} times");
    }

    /// Keeps calls of this name from beginning, or lets them.
    pub fn hold(&self, call: Option<&'static str>) {
        self.script.lock().unwrap().held = call;
        self.changed.notify_all();
    }

    pub fn heal(&self) {
        self.script.lock().unwrap().fail = None;
    }

    /// Lets `calls` more calls through and then fails all without effect, as for a dead process.
    pub fn dies_after(&self, calls: usize) {
        let mut script = self.script.lock().unwrap();
        script.dies_at = Some(script.calls.len() + calls);
    }

    fn call<T>(
        &self,
        name: &'static str,
        path: &Path,
        effect: impl FnOnce(&F) -> Result<T, FsError>,
    ) -> Result<T, FsError> {
        let script = self.script.lock().unwrap();
        let mut script = self.changed.wait_while(script, |script| script.held == Some(name)).unwrap();
        let n = script.calls.len();
        script.calls.push(name);
        if script.dies_at.is_some_and(|at| n >= at) {
            return Err(FsError::new(FsErrorKind::Io, path, "the process is dead"));
        }
        let fail = script.fail.filter(|(call, ..)| *call == name);
        drop(script);
        match fail {
            None => {
                let answer = effect(&self.inner);
                self.script.lock().unwrap().done.push(name);
                self.changed.notify_all();
                answer
            }
            Some((_, kind, when)) => {
                if when == When::AfterEffect {
                    let _ = effect(&self.inner);
                }
                Err(FsError::new(kind, path, "injected"))
            }
        }
    }
}

impl<F: Fs> Fs for Watched<F> {
    type File = F::File;

    fn open_read(&self, path: &Path) -> Result<F::File, FsError> {
        self.call("open_read", path, |fs| fs.open_read(path))
    }
    fn create_new(&self, path: &Path) -> Result<F::File, FsError> {
        self.call("create_new", path, |fs| fs.create_new(path))
    }
    fn open_write_or_create(&self, path: &Path) -> Result<F::File, FsError> {
        self.call("open_write_or_create", path, |fs| fs.open_write_or_create(path))
    }
    fn open_append_or_create(&self, path: &Path) -> Result<F::File, FsError> {
        self.call("open_append_or_create", path, |fs| fs.open_append_or_create(path))
    }
    fn read_at(&self, file: &F::File, buf: &mut [u8], offset: u64) -> Result<usize, FsError> {
        self.call("read_at", Path::new("file"), |fs| fs.read_at(file, buf, offset))
    }
    fn write_at(&self, file: &F::File, data: &[u8], offset: u64) -> Result<(), FsError> {
        self.call("write_at", Path::new("file"), |fs| fs.write_at(file, data, offset))
    }
    fn append(&self, file: &F::File, data: &[u8]) -> Result<(), FsError> {
        self.call("append", Path::new("file"), |fs| fs.append(file, data))
    }
    fn set_len(&self, file: &F::File, bytes: u64) -> Result<(), FsError> {
        self.call("set_len", Path::new("file"), |fs| fs.set_len(file, bytes))
    }
    fn len(&self, file: &F::File) -> Result<u64, FsError> {
        self.call("len", Path::new("file"), |fs| fs.len(file))
    }
    fn sync(&self, file: &F::File) -> Result<(), FsError> {
        self.call("sync", Path::new("file"), |fs| fs.sync(file))
    }
    fn sync_dir(&self, dir: &Path) -> Result<(), FsError> {
        self.call("sync_dir", dir, |fs| fs.sync_dir(dir))
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<(), FsError> {
        self.call("rename", to, |fs| fs.rename(from, to))
    }
    fn rename_noreplace(&self, from: &Path, to: &Path) -> Result<(), FsError> {
        self.call("rename_noreplace", to, |fs| fs.rename_noreplace(from, to))
    }
    fn hard_link(&self, existing: &Path, new: &Path) -> Result<(), FsError> {
        self.call("hard_link", new, |fs| fs.hard_link(existing, new))
    }
    fn remove(&self, path: &Path) -> Result<(), FsError> {
        self.call("remove", path, |fs| fs.remove(path))
    }
    fn create_dir(&self, path: &Path) -> Result<(), FsError> {
        self.call("create_dir", path, |fs| fs.create_dir(path))
    }
    fn list_dir(&self, dir: &Path) -> Result<Vec<DirEntry>, FsError> {
        self.call("list_dir", dir, |fs| fs.list_dir(dir))
    }
    fn stat(&self, path: &Path) -> Result<FileFacts, FsError> {
        self.call("stat", path, |fs| fs.stat(path))
    }
}
