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

use driftless_core::tiers::Tiers;
use futures_lite::FutureExt as _;
use smol::channel::Receiver;

use super::Host;
use super::databases::directory_of;
use crate::driver::POLL_INTERVAL;
use crate::watch::{PollWatcher, WatchEvent, WatchMode, Watcher};

/// A watched batch is followed by this pause; what happens in it is one more batch. In a pause that
/// another file's change began, an application can fill the WAL as fast as it likes.
const BATCH_PAUSE: Duration = Duration::from_millis(25);

/// As long a pause as that, where no database wants events and only what comes is waited for.
const DISCOVERY_PAUSE: Duration = Duration::from_millis(250);

/// Where there are no events, directories are listed at every so many polls.
const POLLS_A_LIST: u32 = 3;

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
    poll_count: u32,
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
    let resume_at: Cell<Option<(Instant, bool)>> = Cell::new(None);
    let mut poll_at = Instant::now() + POLL_INTERVAL;
    loop {
        let polls = views.wants_polls(&host);
        let events = async {
            if let Some((at, is_long)) = resume_at.get() {
                let paused = async {
                    async_io::Timer::at(at).await;
                };
                // A long pause is over when a database wants events.
                let wanted = async {
                    while !is_long || !host.wants_events() {
                        wanted.recv().await.expect("the host holds a sender");
                    }
                };
                paused.or(wanted).await;
                resume_at.set(None);
            }
            // While every database plans its own next look, events would tell nothing but what comes.
            while !host.wants_events() && !host.discovery.watches() {
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
                let is_long = !host.wants_events();
                let pause = if is_long { DISCOVERY_PAUSE } else { BATCH_PAUSE };
                resume_at.set(Some((Instant::now() + pause, is_long)));
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
        let mut wanted: BTreeSet<PathBuf> = databases.iter().map(|database| directory_of(database)).collect();
        wanted.extend(host.discovery.watched());
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
        host.ask_for_new(|directory| self.is_in_view(directory));
        self.choose_polls(&databases);
        host.tiers(Tiers::in_view);
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

    fn wants_polls(&self, host: &Host) -> bool {
        let lists = || self.has(View::Polled) && host.discovery.watches();
        !self.polls.is_empty() || self.has(View::Missing) || lists()
    }

    fn is_in_view(&self, directory: &Path) -> bool {
        self.directories.get(directory).is_some_and(|view| *view != View::Missing)
    }

    fn has(&self, view: View) -> bool {
        self.directories.values().any(|other| *other == view)
    }

    fn poll(&mut self, host: &Host) {
        for event in self.polls.poll() {
            dispatch(host, &event);
        }
        self.poll_count = (self.poll_count + 1) % POLLS_A_LIST;
        if self.poll_count == 0 && host.discovery.watches() && self.has(View::Polled) {
            host.ask_for_all();
        }
        let missing = self.directories.iter().filter(|(_, view)| **view == View::Missing);
        let missing: Vec<PathBuf> = missing.map(|(directory, _)| directory.clone()).collect();
        let databases = host.live_databases();
        for directory in missing.iter().filter(|directory| directory.is_dir()) {
            let view = self.view(directory, true);
            if view != View::Missing {
                self.directories.insert(directory.clone(), view);
                self.choose_polls(&databases);
                host.ask_for_new(|directory| self.is_in_view(directory));
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
                host.discovery.unlist(directory);
            }
            dispatch(host, event);
            host.notes(event);
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
        let bytes = path.as_os_str().as_bytes();
        let companion = COMPANIONS.iter().find_map(|suffix| bytes.strip_suffix(*suffix));
        // A database may have a name that ends so.
        let own = self.paths.find(self, path);
        own.or_else(|| self.paths.find(self, Path::new(OsStr::from_bytes(companion?))))
    }
}
