//! The inotify instance: from watch numbers and names to paths.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use async_io::Async;
use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::{PollReason, WatchEvent, WatchMode};

/// Bytes of one batch: some three hundred events with names of thirty letters.
const BATCH_BYTES: usize = 16 * 1024;

const MASK: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// The watched directory itself went away. `IGNORED` follows a removal and an unmount.
const GONE: ReadFlags =
    ReadFlags::DELETE_SELF.union(ReadFlags::MOVE_SELF).union(ReadFlags::UNMOUNT).union(ReadFlags::IGNORED);

pub(super) struct Inotify {
    queue: Async<OwnedFd>,
    /// The paths of the directory of each watch: one inode gets one number, by whatever name.
    directories: BTreeMap<i32, Vec<PathBuf>>,
    watches: BTreeMap<PathBuf, i32>,
}

impl Inotify {
    pub(super) fn new() -> io::Result<Inotify> {
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Inotify { queue: Async::new(queue)?, directories: BTreeMap::new(), watches: BTreeMap::new() })
    }

    pub(super) fn watch(&mut self, directory: &Path) -> io::Result<WatchMode> {
        let watch = match inotify::add_watch(&self.queue, directory, MASK) {
            Ok(watch) => watch,
            Err(Errno::NOSPC) => return Ok(WatchMode::Poll(PollReason::OutOfWatches)),
            Err(errno) => return Err(errno.into()),
        };
        // Another watch under this name belongs to a directory that was renamed away.
        if let Some(stale) = self.watches.insert(directory.to_path_buf(), watch)
            && stale != watch
        {
            self.leave(stale, directory);
        }
        let names = self.directories.entry(watch).or_default();
        if !names.iter().any(|name| name == directory) {
            names.push(directory.to_path_buf());
        }
        Ok(WatchMode::Events)
    }

    pub(super) fn unwatch(&mut self, directory: &Path) {
        if let Some(watch) = self.watches.remove(directory) {
            self.leave(watch, directory);
        }
    }

    /// Ends a watch for one of its names; with the last it ends.
    fn leave(&mut self, watch: i32, directory: &Path) {
        let Some(names) = self.directories.get_mut(&watch) else { return };
        names.retain(|name| name != directory);
        if names.is_empty() {
            self.end(watch);
        }
    }

    pub(super) async fn next(&mut self) -> io::Result<Vec<WatchEvent>> {
        loop {
            self.queue.readable().await?;
            let batch = self.read_batch()?;
            // Everything may have come from watches that were ended meanwhile.
            if !batch.is_empty() {
                return Ok(batch);
            }
        }
    }

    /// One `read`, or two when the first one's batch ends exactly at the buffer's end.
    fn read_batch(&mut self) -> io::Result<Vec<WatchEvent>> {
        let mut buffer = Box::new([MaybeUninit::uninit(); BATCH_BYTES]);
        let (mut batch, mut gone) = (BTreeSet::new(), Vec::new());
        let mut reader = Reader::new(&self.queue, &mut buffer[..]);
        loop {
            match reader.next() {
                Ok(event) => collect(&self.directories, &event, &mut batch, &mut gone),
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(errno) => return Err(errno.into()),
            }
            if reader.is_buffer_empty() {
                break;
            }
        }
        for watch in gone {
            self.end(watch);
        }
        Ok(batch.into_iter().collect())
    }

    fn end(&mut self, watch: i32) {
        for directory in self.directories.remove(&watch).unwrap_or_default() {
            if self.watches.get(&directory) == Some(&watch) {
                self.watches.remove(&directory);
            }
        }
        // The kernel may have ended it already; a renamed directory's watch lives on otherwise.
        let _ = inotify::remove_watch(&self.queue, watch);
    }
}

fn collect(
    directories: &BTreeMap<i32, Vec<PathBuf>>,
    event: &Event<'_>,
    batch: &mut BTreeSet<WatchEvent>,
    gone: &mut Vec<i32>,
) {
    if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
        batch.insert(WatchEvent::Overflow);
        return;
    }
    // A watch that we ended still has events in the queue.
    let Some(names) = directories.get(&event.wd()) else { return };
    if event.events().intersects(GONE) {
        batch.extend(names.iter().cloned().map(WatchEvent::DirectoryGone));
        gone.push(event.wd());
        return;
    }
    // Without a name, the event is about the directory's own attributes.
    if let Some(name) = event.file_name() {
        let name = OsStr::from_bytes(name.to_bytes());
        batch.extend(names.iter().map(|directory| WatchEvent::Changed(directory.join(name))));
    }
}
