//! The configuration: which databases, where to, and how.
//!
//! A file that Litestream 0.5.17 runs with is read here as well. What differs is what happens to
//! mistakes: an unknown key is an error with a guess at what was meant and its line, a known key
//! without effect is a warning, and a key that promises something this release does not keep is
//! refused ([`keys`]). So is a file in which two databases share a replica, or in which one stands
//! twice: each is a way to lose one of them.

mod directory;
pub mod duration;
pub mod expand;
pub mod keys;
mod lease;
mod read;
pub mod replica;
mod scope;
pub mod yaml;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use driftless_core::compact::CompactConfig;
use driftless_core::engine;

use crate::discover::{self, Directory};
use crate::host::{self, ReplicateJob};
use expand::Lookup;
pub use replica::{About, Replica, ReplicaError, looks_like_url};
use yaml::LineError;

/// Where the configuration is looked for when nobody says: the first that exists.
pub const DEFAULT_PATHS: [&str; 2] = ["/etc/driftless.yml", "/etc/litestream.yml"];

/// A configuration that has been read and checked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Config {
    /// The file that it comes from.
    pub path: PathBuf,
    /// The databases, in the order of the file.
    pub databases: Vec<Database>,
    /// The directories of databases, in the order of the file.
    pub directories: Vec<Directory>,
    /// Those of databases that the file does not name.
    pub settings: Settings,
    /// What to log and where.
    pub logging: Logging,
    /// Where local records are kept, if the file says so.
    pub state_dir: Option<PathBuf>,
    /// How long the final sync may take.
    pub shutdown_sync_timeout: Option<Duration>,
    /// How many databases may be open at once, if the file says so.
    pub max_hot: Option<usize>,
    /// A command to run beside the replication, which ends with it.
    pub exec: Option<String>,
    /// Where metrics are served, as `host:port`; the host may be left out.
    pub addr: Option<String>,
    /// Where a heartbeat goes, an HTTP or HTTPS URL.
    pub heartbeat_url: Option<String>,
    /// How often a heartbeat goes out, at least a minute.
    pub heartbeat_interval: Option<Duration>,
    /// How this host contends with others for the right to write, if it does.
    pub lease: Option<Lease>,
    /// The control socket.
    pub socket: Socket,
    /// What a person should know about the file.
    pub warnings: Vec<String>,
}

/// A database of the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Database {
    /// The database file, absolute.
    pub path: PathBuf,
    /// Where it is replicated.
    pub replica: Replica,
    /// How that is reached, in words.
    pub about: About,
    /// How it is replicated.
    pub settings: Arc<Settings>,
    /// Whether to restore the database from its replica before it is followed, if it is not there.
    pub restore_if_db_not_exists: bool,
}

/// How a database is replicated.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// Settings of the replicator.
    pub engine: engine::Config,
    /// Which levels are made of what it stores; `None` for none.
    pub levels: Option<CompactConfig>,
    /// How often the replica is read and checked; `None` for never.
    pub validation: Option<Duration>,
}

impl Settings {
    /// Says whether the database that has these settings may take a replica over that was another's.
    pub(crate) fn set_adopt(self: &mut Arc<Settings>, adopt: bool) {
        if self.engine.adopt != adopt {
            Arc::make_mut(self).engine.adopt = adopt;
        }
    }
}

/// How a host contends with others for the right to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Where the lease is: an object store that replaces on condition.
    pub replica: Replica,
    /// How long a holder may go without renewing it.
    pub ttl: Duration,
    /// How long the first segment of each epoch stays where covered ones are deleted.
    pub fence_retention: Duration,
    /// Where this process can be asked, for people and load balancers.
    pub address: Option<String>,
    /// A command that is run once this process is the primary.
    pub promote: Option<String>,
    /// A command that is run once it is not any more, to end the application.
    pub demote: Option<String>,
}

/// The control socket; `None` where the file does not say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Socket {
    /// Whether to open one at `path`.
    pub enabled: Option<bool>,
    /// Where it is, absolute.
    pub path: Option<PathBuf>,
    /// Its permission bits, 0 to 0o777.
    pub permissions: Option<u32>,
}

/// What to log and where; `None` where the file does not say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Logging {
    /// The level's name, checked later together with the flag.
    pub level: Option<String>,
    /// `text` or `json`, checked later together with the flag.
    pub format: Option<String>,
    /// Whether to log on standard error; on standard output if it is off.
    pub stderr: Option<bool>,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// None was named, and there is none at the usual places.
    NoneFound,
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Something in it is wrong.
    Wrong {
        /// The file.
        path: PathBuf,
        /// What and where.
        error: LineError,
    },
}

impl Config {
    /// Reads the file at `path`; at the place that `DRIFTLESS_CONFIG` or `LITESTREAM_CONFIG` names;
    /// or at the first usual place where there is one.
    pub fn load(path: Option<&Path>, expand_env: bool) -> Result<Config, ConfigError> {
        let of_environment = || {
            let named = ["DRIFTLESS_CONFIG", "LITESTREAM_CONFIG"].into_iter().filter_map(std::env::var_os);
            named.filter(|path| !path.is_empty()).map(PathBuf::from).next()
        };
        let usual = || DEFAULT_PATHS.iter().map(PathBuf::from).find(|path| path.exists());
        let Some(path) = path.map(Path::to_owned).or_else(of_environment).or_else(usual) else {
            return Err(ConfigError::NoneFound);
        };
        let read = absolute(&path).and_then(std::fs::read_to_string);
        let text = match read {
            Ok(text) => text,
            Err(error) => return Err(ConfigError::Unreadable { path, error }),
        };
        match Config::parse(&text, expand_env, &replica::environment) {
            Ok(config) => Ok(Config { path, ..config }),
            Err(error) => Err(ConfigError::Wrong { path, error }),
        }
    }

    /// Reads a configuration from its text. `env` is the environment: it holds what replicas leave
    /// open, and the variables of the text if they are to be expanded.
    pub fn parse(text: &str, expand_env: bool, env: Lookup<'_>) -> Result<Config, LineError> {
        let mut warnings = Vec::new();
        let lookup = |name: &str| match name {
            "PID" => Some(std::process::id().to_string()),
            _ => env(name),
        };
        let expanded = expand_env.then(|| expand::expand(text, &lookup, &mut warnings));
        let node = yaml::parse(expanded.as_deref().unwrap_or(text))?;
        // A variable that stands for nothing is often the reason why something is missing.
        let missing = warnings.first().cloned();
        read::config(&node, warnings, env).map_err(|error| match missing {
            None => error,
            Some(missing) => {
                let hint = error.hint.as_ref().map_or(String::new(), |hint| format!("{hint}; "));
                error.hint(format!("{hint}{missing}"))
            }
        })
    }

    /// The database of a path, which need not be written the same way. One of a directory need not
    /// exist: its name says where its replica is.
    pub fn database(&self, path: &Path) -> Option<Database> {
        let path = absolute(path).ok()?;
        let real = path.canonicalize().ok();
        let same = |database: &&Database| {
            database.path == path || (real.is_some() && database.path.canonicalize().ok() == real)
        };
        self.databases.iter().find(same).cloned().or_else(|| self.of_directory(&path))
    }

    /// The database of a path below a directory, by its path as the directory is written.
    fn of_directory(&self, path: &Path) -> Option<Database> {
        let real = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
        let below = |directory: &Directory| {
            let root = directory.root.canonicalize().ok()?;
            Some(directory.root.join(real()?.strip_prefix(root).ok()?))
        };
        let direct = self.directories.iter().find_map(|directory| directory.database(path));
        direct
            .or_else(|| self.directories.iter().find_map(|directory| directory.database(&below(directory)?)))
    }

    /// All databases: those that are named, and those that the directories hold now. One that is named
    /// is that, wherever it lies.
    ///
    /// # Errors
    /// The directory that cannot be looked at.
    pub fn all_databases(&self) -> Result<Vec<Database>, (PathBuf, io::Error)> {
        let mut all = self.databases.clone();
        let named: BTreeSet<&Path> = self.databases.iter().map(|database| database.path.as_path()).collect();
        for directory in &self.directories {
            let scan = directory.scan().map_err(|error| (directory.root.clone(), error))?;
            let new = scan.databases.iter().filter(|path| !named.contains(path.as_path()));
            all.extend(new.filter_map(|path| directory.database(path)));
        }
        Ok(all)
    }

    /// Where local state is kept: where the file says so, or beside the first database, or in the
    /// first directory.
    pub fn state_home(&self) -> Option<PathBuf> {
        let beside = || self.databases.first().map(|first| host::default_state_dir(&first.path));
        let inside = || self.directories.first().map(|first| discover::default_state_dir(&first.root));
        self.state_dir.clone().or_else(beside).or_else(inside)
    }

    /// Whether it names no database and no directory.
    pub fn is_empty(&self) -> bool {
        self.databases.is_empty() && self.directories.is_empty()
    }
}

impl Directory {
    /// The database of a path, as if it were named by itself.
    pub fn database(&self, path: &Path) -> Option<Database> {
        let ReplicateJob { database, replica, settings, .. } = self.job_for(path)?;
        let (about, restore_if_db_not_exists) = (self.about.clone(), false);
        Some(Database { path: database, replica, about, settings, restore_if_db_not_exists })
    }
}

/// A path from the root, with `~/` replaced, without `sqlite://` before it, `.` components and
/// trailing slashes. Symbolic links and `..` stay, since only the filesystem knows what they mean.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    let path = without_sqlite(path);
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let path = match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.to_owned(),
    };
    let path = std::path::absolute(path)?;
    Ok(path.components().filter(|part| !matches!(part, Component::CurDir)).collect())
}

/// A path without `sqlite://` or `sqlite3://`, with which frameworks write the same database.
pub fn without_sqlite(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    let rest = bytes.strip_prefix(b"sqlite3://").or_else(|| bytes.strip_prefix(b"sqlite://"));
    rest.map_or(path, |rest| Path::new(OsStr::from_bytes(rest)))
}
