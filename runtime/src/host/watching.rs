//! Telling each database of changes in its directory.
//!
//! One watch a directory. Where there are no events to be had the database is polled, and a
//! directory that is not there is looked for, once a second; while neither is so, nothing wakes.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_lite::FutureExt as _;
use smol::channel::Receiver;

use super::Host;
use super::databases::directory_of;
use crate::driver::POLL_INTERVAL;
use crate::watch::{PollWatcher, WatchEvent, WatchMode, Watcher};

/// A watched batch is followed by this pause; what happens in it is one more batch. In a pause that
/// another file's change began, an application can fill the WAL as fast as it likes.
const BATCH_PAUSE: Duration = Duration::from_millis(25);

/// How a directory is kept in view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum View {
    /// The kernel tells.
    Events,
    /// Its databases are polled.
    Polled,
    /// It is not there, or may not be read: it is tried again.
    Missing,
}

/// What ends a wait.
enum Wake {
    Events(std::io::Result<Vec<WatchEvent>>),
    Databases,
    Poll,
}

/// The directories of the databases that run.
#[derive(Default)]
struct Views {
    watcher: Watcher,
    polls: PollWatcher,
    polled: BTreeSet<PathBuf>,
    directories: BTreeMap<PathBuf, View>,
}

/// What the watcher is told.
pub(super) struct Signals {
    /// Other databases run now.
    pub(super) databases: Receiver<()>,
    /// One of them wants events again.
    pub(super) wanted: Receiver<()>,
}

/// Keeps the directories of all databases in view, for as long as the process runs.
pub(super) async fn watch(host: Rc<Host>, Signals { databases, wanted }: Signals) {
    let mut views = Views::default();
    views.follow(&host);
    let resume_at = Cell::new(None);
    let mut poll_at = Instant::now() + POLL_INTERVAL;
    loop {
        let polls = views.wants_polls();
        let events = async {
            if let Some(at) = resume_at.get() {
                async_io::Timer::at(at).await;
                resume_at.set(None);
            }
            // While every database plans its own next look, events would tell nothing.
            while !host.wants_events() {
                wanted.recv().await.expect("the host holds a sender");
            }
            Wake::Events(views.watcher.next().await)
        };
        let others = async {
            databases.recv().await.expect("the host holds a sender");
            Wake::Databases
        };
        let poll = async {
            match polls {
                true => async_io::Timer::at(poll_at).await,
                false => std::future::pending().await,
            };
            Wake::Poll
        };
        match others.or(poll).or(events).await {
            Wake::Events(events) => {
                match events {
                    Ok(events) => views.take(&host, &events),
                    Err(error) => tracing::warn!(%error, "reading file events failed"),
                }
                resume_at.set(Some(Instant::now() + BATCH_PAUSE));
            }
            Wake::Databases => views.follow(&host),
            Wake::Poll => {
                poll_at = Instant::now() + POLL_INTERVAL;
                views.poll(&host);
            }
        }
    }
}

impl Views {
    /// Brings the directories in view in line with the databases that run.
    fn follow(&mut self, host: &Host) {
        let databases = host.live_databases();
        let wanted: BTreeSet<PathBuf> = databases.iter().map(|database| directory_of(database)).collect();
        let gone: Vec<PathBuf> =
            self.directories.keys().filter(|known| !wanted.contains(*known)).cloned().collect();
        for directory in &gone {
            self.directories.remove(directory);
            self.watcher.unwatch(directory);
        }
        for directory in &wanted {
            if !self.directories.contains_key(directory) {
                let view = self.view(directory, false);
                self.directories.insert(directory.clone(), view);
            }
        }
        self.choose_polls(&databases);
    }

    /// Begins to watch a directory; what stands in the way is said once.
    fn view(&mut self, directory: &Path, again: bool) -> View {
        match self.watcher.watch(directory) {
            Ok(WatchMode::Events) => View::Events,
            Ok(WatchMode::Poll(reason)) => {
                let directory = directory.display();
                tracing::warn!(%directory, ?reason, "changes are found by polling every second");
                View::Polled
            }
            Err(_) if again => View::Missing,
            Err(error) => {
                tracing::warn!(directory = %directory.display(), %error, "the directory cannot be watched yet");
                View::Missing
            }
        }
    }

    fn choose_polls(&mut self, databases: &[PathBuf]) {
        let polled: BTreeSet<PathBuf> = databases
            .iter()
            .filter(|database| self.directories.get(&directory_of(database)) == Some(&View::Polled))
            .cloned()
            .collect();
        for database in self.polled.difference(&polled) {
            self.polls.remove(database);
        }
        for database in polled.difference(&self.polled) {
            self.polls.add(database);
        }
        self.polled = polled;
    }

    fn wants_polls(&self) -> bool {
        !self.polls.is_empty() || self.directories.values().any(|view| *view == View::Missing)
    }

    fn poll(&mut self, host: &Host) {
        for event in self.polls.poll() {
            dispatch(host, &event);
        }
        let missing = self.directories.iter().filter(|(_, view)| **view == View::Missing);
        let missing: Vec<PathBuf> = missing.map(|(directory, _)| directory.clone()).collect();
        let databases = host.live_databases();
        for directory in missing.iter().filter(|directory| directory.is_dir()) {
            let view = self.view(directory, true);
            if view != View::Missing {
                self.directories.insert(directory.clone(), view);
                self.choose_polls(&databases);
                for database in databases.iter().filter(|database| directory_of(database) == *directory) {
                    dispatch(host, &WatchEvent::Changed(database.clone()));
                }
            }
        }
    }

    fn take(&mut self, host: &Host, events: &[WatchEvent]) {
        let mut gone = false;
        for event in events {
            if let WatchEvent::DirectoryGone(directory) = event {
                gone |= self.directories.remove(directory).is_some();
            }
            dispatch(host, event);
        }
        if gone {
            self.follow(host);
        }
    }
}

fn dispatch(host: &Host, event: &WatchEvent) {
    match event {
        WatchEvent::Changed(path) => {
            if let Some(number) = host.database_of(path) {
                host.look(number, |entry| host.source_changed(entry));
            }
        }
        WatchEvent::Overflow => host.for_each(|entry| host.source_changed(entry)),
        WatchEvent::DirectoryGone(directory) => host.for_each(|entry| {
            if *directory == directory_of(&entry.database) {
                host.source_changed(entry);
            }
        }),
    }
}

/// The names that a database has besides its own. `-shm` changes with every reader and tells
/// nothing.
const COMPANIONS: [&[u8]; 2] = [b"-wal", b"-journal"];

impl Host {
    /// The database that a file in a watched directory is, or is of.
    fn database_of(&self, path: &Path) -> Option<u32> {
        let paths = self.paths.borrow();
        let bytes = path.as_os_str().as_bytes();
        let companion = COMPANIONS.iter().find_map(|suffix| bytes.strip_suffix(*suffix));
        // A database may have a name that ends so.
        let own = paths.get(path);
        own.or_else(|| paths.get(Path::new(OsStr::from_bytes(companion?)))).copied()
    }
}
