//! Directories of databases: finding what is in them, and what comes and goes while the process runs.
//!
//! What names a new database is an event of the directory that holds it. A directory that is new
//! itself is watched first and listed then, so that nothing is made between the two unseen; what it
//! holds are directories that are watched first, and so on down. The watcher (`watching`) therefore
//! asks for a listing of each directory that it has begun to watch, and of all when events were
//! lost. Nothing here wakes by itself.
//!
//! A database whose file is gone keeps its engine until what was captured is on the replica. Then it
//! ends and is forgotten, and the replica stays as it is.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use driftless_adapters::pool::unblock;
use driftless_core::ids::Wall;
use driftless_core::machine::Exit;

use super::databases::{Entry, Life, Origin};
use super::twins::Refusal;
use super::{Host, ReplicateJob, prefixes};
use crate::clock;
use crate::discover::{self, Directory, IS_A_LINK, IS_NO_TEXT, Scan, database_of};
use crate::sqlite::probe;
use crate::watch::WatchEvent;

/// Databases that were removed are remembered for whoever asks; so many of them.
const DEPARTED_MAX: usize = 16;
/// What was passed over is said once, of so many files.
const PASSED_OVER_MAX: usize = 1_000;

/// The directories of this process.
#[derive(Default)]
pub(crate) struct Discovery {
    directories: RefCell<Vec<Directory>>,
    /// Those in which databases may come, with what lies below them, and whether each was listed
    /// since it is in view.
    watched: RefCell<BTreeMap<PathBuf, bool>>,
    asked: RefCell<Asked>,
    /// Databases that a person had forgotten: nothing but the configuration brings them back.
    left: RefCell<BTreeSet<PathBuf>>,
    /// Databases whose files are gone, while their engines run.
    leaving: RefCell<BTreeSet<u32>>,
    /// What was passed over and said to be.
    passed_over: RefCell<BTreeSet<PathBuf>>,
    /// The last that were removed.
    pub(crate) departed: RefCell<VecDeque<Departed>>,
    /// How many were removed.
    pub(crate) departed_count: Cell<u64>,
}

/// A database that was removed and is not replicated any more.
pub(crate) struct Departed {
    pub(crate) database: PathBuf,
    pub(crate) replica: String,
    pub(crate) at: Wall,
}

/// What is to be looked at.
#[derive(Default)]
struct Asked {
    /// Paths that events have named.
    paths: BTreeSet<PathBuf>,
    /// Directories to list.
    lists: BTreeSet<PathBuf>,
    /// Whether every database may be gone.
    all: bool,
}

/// What a look at what was asked has found.
#[derive(Default)]
struct Findings {
    files: BTreeSet<PathBuf>,
    directories: BTreeSet<PathBuf>,
    gone: BTreeSet<PathBuf>,
    passed_over: Vec<(PathBuf, String)>,
}

impl Discovery {
    /// Whether any directory is watched for databases that come.
    pub(crate) fn watches(&self) -> bool {
        self.directories.borrow().iter().any(|directory| directory.watch)
    }

    /// Replaces the directories, and returns those that were.
    pub(super) fn replace(&self, directories: Vec<Directory>) -> Vec<Directory> {
        let mut watched = self.watched.borrow_mut();
        let watching = || directories.iter().filter(|it| it.watch);
        watched.retain(|path, _| watching().any(|it| it.looks_into(path)));
        watched.extend(watching().map(|it| (it.root.clone(), false)));
        self.left.borrow_mut().clear();
        self.directories.replace(directories)
    }

    /// The directories that are to be kept in view for what comes.
    pub(super) fn watched(&self) -> Vec<PathBuf> {
        self.watched.borrow().keys().cloned().collect()
    }

    /// Says that a directory has to be listed once it is in view again.
    pub(super) fn unlist(&self, directory: &Path) {
        if let Some(listed) = self.watched.borrow_mut().get_mut(directory) {
            *listed = false;
        }
    }

    pub(super) fn is_watched(&self, directory: &Path) -> bool {
        self.watched.borrow().contains_key(directory)
    }

    /// Keeps a database that a person had forgotten from being found again.
    pub(super) fn leave(&self, database: &Path) {
        self.left.borrow_mut().insert(database.to_path_buf());
    }

    /// For whoever asks.
    pub(crate) fn for_each(&self, look: impl FnMut(&Directory)) {
        self.directories.borrow().iter().for_each(look);
    }

    fn say_passed_over(&self, what: Vec<(PathBuf, String)>) {
        let mut said = self.passed_over.borrow_mut();
        for (path, why) in what {
            if said.len() < PASSED_OVER_MAX && said.insert(path.clone()) {
                tracing::warn!(path = %path.display(), "this is passed over: {why}");
            }
        }
    }

    fn remember(&self, entry: &Entry) {
        let mut departed = self.departed.borrow_mut();
        if departed.len() == DEPARTED_MAX {
            departed.pop_front();
        }
        let (database, replica) = (entry.database.clone(), entry.replica.place());
        departed.push_back(Departed { database, replica, at: clock::wall() });
        self.departed_count.set(self.departed_count.get() + 1);
    }
}

/// Looks at what the watcher asks for, for as long as the process runs.
pub(super) async fn discover(host: Rc<Host>) {
    loop {
        let asked = host.discoveries.until(|| host.discovery.take_asked()).await;
        host.look_at(asked).await;
    }
}

impl Discovery {
    fn take_asked(&self) -> Option<Asked> {
        let mut asked = self.asked.borrow_mut();
        let any = asked.all || !asked.paths.is_empty() || !asked.lists.is_empty();
        any.then(|| std::mem::take(&mut *asked))
    }
}

impl Host {
    /// What the watcher was told, if it may be about a database that comes or goes.
    pub(super) fn notes(&self, event: &WatchEvent) {
        if !self.discovery.watches() {
            return;
        }
        match event {
            WatchEvent::Changed(path) => {
                let Some(path) = self.is_of_note(path) else { return };
                self.discovery.asked.borrow_mut().paths.insert(path);
                self.discoveries.tell();
            }
            WatchEvent::Overflow => self.ask_for_all(),
            WatchEvent::DirectoryGone(directory) => {
                if self.discovery.is_watched(directory) {
                    self.discovery.asked.borrow_mut().paths.insert(directory.clone());
                    self.discoveries.tell();
                }
            }
        }
    }

    /// The path of a file that may be a database that comes or goes, or of a directory that comes.
    fn is_of_note(&self, path: &Path) -> Option<PathBuf> {
        let stem = path.file_name().and_then(database_of);
        let (path, is_companion) = match stem {
            Some(stem) => (path.with_file_name(stem), true),
            None => (path.to_path_buf(), false),
        };
        let directories = self.discovery.directories.borrow();
        let mut watching = directories.iter().filter(|it| it.watch);
        // What is written to it is no news; that its file is not there any more is.
        let news = match watching.clone().any(|it| it.admits(&path).is_some()) {
            true => !(is_companion && self.knows(&path)),
            false => !is_companion && watching.any(|it| it.recursive && it.looks_into(&path)),
        };
        news.then_some(path)
    }

    /// Has those directories listed that are in view now and were not listed since.
    pub(super) fn ask_for_new(&self, is_in_view: impl Fn(&Path) -> bool) {
        let mut watched = self.discovery.watched.borrow_mut();
        let new = watched.iter_mut().filter(|(path, listed)| !**listed && is_in_view(path));
        let mut lists = Vec::new();
        for (path, listed) in new {
            *listed = true;
            lists.push(path.clone());
        }
        drop(watched);
        if !lists.is_empty() {
            self.discovery.asked.borrow_mut().lists.extend(lists);
            self.discoveries.tell();
        }
    }

    /// Has everything looked at again: events were lost, or there are none.
    pub(super) fn ask_for_all(&self) {
        let mut asked = self.discovery.asked.borrow_mut();
        asked.lists.extend(self.discovery.watched());
        asked.all = true;
        drop(asked);
        self.discoveries.tell();
    }

    fn knows(&self, database: &Path) -> bool {
        self.paths.find(self, database).is_some() || self.discovery.left.borrow().contains(database)
    }

    async fn look_at(self: &Rc<Self>, mut asked: Asked) {
        if asked.all {
            self.for_each(|entry| {
                if entry.origin == Origin::Found {
                    asked.paths.insert(entry.database.clone());
                }
            });
        }
        let directories: Vec<Directory> = {
            let all = self.discovery.directories.borrow();
            all.iter().filter(|directory| directory.watch).cloned().collect()
        };
        let rules = directories.clone();
        let mut findings = unblock(move || look(&asked, &rules)).await;
        for path in &findings.gone {
            self.note_gone(path);
        }
        self.note_directories(&findings);
        findings.files.retain(|path| !self.knows(path));
        self.discovery.say_passed_over(findings.passed_over);
        if findings.files.is_empty() {
            return;
        }
        let files = findings.files;
        let (new, passed_over) = unblock(move || jobs_of(files, &directories)).await;
        self.discovery.say_passed_over(passed_over);
        self.add_found(new);
    }

    /// Has directories watched that are new, and forgets those that are gone.
    fn note_directories(&self, findings: &Findings) {
        let mut watched = self.discovery.watched.borrow_mut();
        let before = watched.len();
        for directory in &findings.directories {
            watched.entry(directory.clone()).or_insert(false);
        }
        let mut changed = watched.len() != before;
        let is_root = |path: &PathBuf| {
            let directories = self.discovery.directories.borrow();
            directories.iter().any(|directory| directory.root == *path)
        };
        for gone in
            findings.gone.iter().filter(|gone| watched.contains_key(*gone)).cloned().collect::<Vec<_>>()
        {
            let before = watched.len();
            watched.retain(|path, _| !path.starts_with(&gone) || is_root(path));
            changed |= watched.len() != before;
        }
        drop(watched);
        if changed {
            self.watches_changed();
        }
    }

    /// Lets go of a database whose file is gone, or of all below a directory that is.
    fn note_gone(self: &Rc<Self>, path: &Path) {
        let mut numbers: Vec<u32> = self.paths.find(self, path).into_iter().collect();
        if numbers.is_empty() && self.discovery.is_watched(path) {
            self.for_each(|entry| {
                if entry.database.starts_with(path) {
                    numbers.push(entry.number);
                }
            });
        }
        for number in numbers {
            let found = self.look(number, |entry| entry.origin == Origin::Found) == Some(true);
            if found && self.discovery.leaving.borrow_mut().insert(number) {
                let host = self.clone();
                self.spawn(async move {
                    host.let_go(number).await;
                    host.discovery.leaving.borrow_mut().remove(&number);
                });
            }
        }
    }

    /// Waits until what was captured of a database without a file is on the replica, ends its engine,
    /// and forgets it. One that comes back meanwhile goes on.
    async fn let_go(self: &Rc<Self>, number: u32) {
        let Some(database) = self.look(number, |entry| entry.database.clone()) else { return };
        let name = database.display().to_string();
        if exists(&database).await {
            return;
        }
        tracing::warn!(
            database = name,
            "the database was removed: what was captured is sent, and its replica stays"
        );
        self.changes.until(|| self.look(number, owes_nothing).unwrap_or(true).then_some(())).await;
        if self.is_closing() || exists(&database).await {
            return;
        }
        self.finish(number, clock::mono().after(self.shutdown_sync_timeout.get()));
        self.changes.until(|| (!self.is_live(number)).then_some(())).await;
        let well = self.look(number, |entry| entry.exit() == Some(&Exit::Done));
        if self.is_closing() || well.is_none() {
            return;
        }
        if exists(&database).await {
            tracing::info!(database = name, "the database is there again");
            if let Err(refusal) = self.run(number) {
                tracing::error!(database = name, hint = refusal.hint, "cannot be started: {}", refusal.error);
            }
        } else if well == Some(true)
            && let Some(entry) = self.forget(number)
        {
            self.discovery.remember(&entry);
            tracing::info!(database = name, replica = %entry.replica.place(), "the database is not replicated any more");
        }
    }

    /// Adds databases that were found while the process runs.
    fn add_found(self: &Rc<Self>, jobs: Vec<ReplicateJob>) {
        let jobs: Vec<ReplicateJob> = jobs.into_iter().filter(|job| !self.knows(&job.database)).collect();
        if jobs.is_empty() || self.is_closing() {
            return;
        }
        for mut job in jobs {
            // To own a replica was said of what there was when the process began.
            job.settings.set_adopt(false);
            let (database, replica) = (job.database.display().to_string(), job.replica.place());
            let keys = self.keys_of(&job);
            if self.add(job, Origin::Found, &keys, None) {
                tracing::info!(database, replica, "a database was found, and is replicated from now on");
            }
        }
        self.watches_changed();
    }

    /// What the directories of a configuration hold; `given` are those that it names by themselves.
    ///
    /// # Errors
    /// When a directory cannot be looked at, holds nothing and is not watched, or shares a file with
    /// another.
    pub(super) async fn found_in(
        &self,
        directories: &[Directory],
        given: &[ReplicateJob],
    ) -> Result<Vec<ReplicateJob>, Refusal> {
        let named: BTreeSet<&Path> = given.iter().map(|job| job.database.as_path()).collect();
        let (mut jobs, mut of) = (Vec::new(), BTreeMap::new());
        for (n, directory) in directories.iter().enumerate() {
            let rules = directory.clone();
            let scanned = unblock(move || rules.scan()).await;
            let Scan { databases, directories: below, passed_over } =
                scanned.map_err(|error| unusable(directory, &error))?;
            self.discovery.say_passed_over(passed_over);
            let restored = match databases.is_empty() && directory.restore_if_missing {
                true => prefixes::to_restore(directory, &self.net).await?,
                false => Vec::new(),
            };
            let (root, count) = (directory.root.display(), databases.len() + restored.len());
            if count == 0 && !directory.watch {
                let error = format!("there is no database in {root} with the pattern {}", directory.pattern);
                let hint = "see that pattern and recursive are as they should be, or give watch: true to wait for one";
                return Err(Refusal { error, hint: hint.into() });
            }
            tracing::info!(dir = %root, databases = count, directories = below.len(), watch = directory.watch, "the directory was looked into");
            for job in databases.iter().filter_map(|path| directory.job_for(path)).chain(restored) {
                if let Some(other) = of.insert(job.database.clone(), n) {
                    return Err(shared(&job.database, directory, &directories[other]));
                }
                if !named.contains(job.database.as_path()) {
                    jobs.push(job);
                }
            }
        }
        Ok(jobs)
    }
}

pub(super) fn unusable(directory: &Directory, error: &std::io::Error) -> Refusal {
    let root = directory.root.display();
    let (error, hint) = match error.kind() {
        std::io::ErrorKind::NotFound => (format!("there is no directory {root}"), "make it, or correct dir"),
        std::io::ErrorKind::NotADirectory => (
            format!("{root} is no directory"),
            "write path for one database, and dir for a directory of them",
        ),
        _ => (format!("cannot look into {root}: {error}"), "give the user that runs driftless access to it"),
    };
    Refusal { error, hint: hint.to_owned() }
}

fn shared(database: &Path, one: &Directory, other: &Directory) -> Refusal {
    let of = |directory: &Directory| format!("{} with {}", directory.root.display(), directory.pattern);
    let error = format!("{} is found by two entries: {} and {}", database.display(), of(other), of(one));
    let hint = "change a pattern, or name the database by itself under dbs, with path".to_owned();
    Refusal { error, hint }
}

/// Whether all that was captured is on the replica, as far as an engine that runs can say, or will
/// never be.
fn owes_nothing(entry: &Entry) -> bool {
    match (&entry.life, entry.status()) {
        (Life::Running, Some(status)) => status.pages_waiting == 0 && !status.uploading,
        (Life::Running, None) => false,
        _ => true,
    }
}

async fn exists(path: &Path) -> bool {
    let path = path.to_path_buf();
    unblock(move || path.symlink_metadata().is_ok()).await
}

/// Looks at what was asked for.
fn look(asked: &Asked, rules: &[Directory]) -> Findings {
    let mut findings = Findings::default();
    for path in &asked.paths {
        match path.symlink_metadata() {
            Ok(facts) if facts.is_dir() => drop(findings.directories.insert(path.clone())),
            Ok(facts) if facts.is_file() => drop(findings.files.insert(path.clone())),
            Ok(_) => {}
            Err(_) => drop(findings.gone.insert(path.clone())),
        }
    }
    findings.directories.retain(|path| rules.iter().any(|rule| rule.looks_into(path)));
    findings.files.retain(|path| rules.iter().any(|rule| rule.admits(path).is_some()));
    for directory in &asked.lists {
        for rule in rules.iter().filter(|rule| rule.looks_into(directory)) {
            match rule.list(directory) {
                Ok(listing) => {
                    findings.files.extend(listing.candidates);
                    findings.directories.extend(listing.directories);
                    findings
                        .passed_over
                        .extend(listing.links.into_iter().map(|path| (path, IS_A_LINK.to_owned())));
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    findings.gone.insert(directory.clone());
                }
                Err(error) => findings.passed_over.push((directory.clone(), error.to_string())),
            }
        }
    }
    findings
}

/// How those of some files are replicated that are databases, and what is passed over. Where two
/// entries find a file, the first has it.
fn jobs_of(files: BTreeSet<PathBuf>, rules: &[Directory]) -> (Vec<ReplicateJob>, Vec<(PathBuf, String)>) {
    let (mut jobs, mut passed_over) = (Vec::new(), Vec::new());
    for path in files {
        match probe::is_database(&path) {
            Ok(true) => match rules.iter().find_map(|rule| rule.job_for(&path)) {
                Some(job) => jobs.push(job),
                None => passed_over.push((path, IS_NO_TEXT.to_owned())),
            },
            Ok(false) | Err(probe::ProbeError::Linked(_)) => {}
            Err(_) if !path.exists() => {}
            Err(error) => passed_over.push((path, discover::in_words(&error))),
        }
    }
    (jobs, passed_over)
}
