//! What an argument names: a database of the configuration, or a replica.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use driftless_adapters::store::{StoreError, StoreErrorKind};

use super::args::Args;
use super::error::CliError;
use super::load_config;
use crate::config::replica::options::Options;
use crate::config::replica::{describe_url, environment};
use crate::config::{Config, Database, Replica, ReplicaError, absolute, looks_like_url, without_sqlite};
use crate::discover::Directory;
use crate::sqlite::probe::is_mount_point;

/// A replica, and the database that it belongs to if the configuration says so.
#[derive(Clone, Debug)]
pub struct Target {
    /// The replica.
    pub replica: Replica,
    /// The database file.
    pub database: Option<PathBuf>,
    /// The configuration, if it was looked at.
    pub config: Option<Config>,
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> CliError {
        let code = if error.kind == StoreErrorKind::Misconfigured { 2 } else { 1 };
        let failed = CliError::failed(format!("cannot use the replica {}", error.subject));
        CliError { code, ..failed.cause(error.cause).hint(error.hint.unwrap_or_default()) }
    }
}

impl From<ReplicaError> for CliError {
    fn from(error: ReplicaError) -> CliError {
        CliError::usage(error.error).hint(error.hint)
    }
}

/// Finds out what the only argument names.
///
/// A URL is a replica. A path is looked up among the databases of the configuration first; then a
/// directory is a replica, whether or not there is anything in it yet.
pub fn resolve(args: &Args, wanted: &str) -> Result<Target, CliError> {
    let Some(arg) = args.positionals.first() else {
        return Err(CliError::usage("neither a database nor a replica was given").hint(wanted));
    };
    let arg = without_sqlite(arg.as_ref()).as_os_str();
    if let Some(text) = arg.to_str().filter(|text| looks_like_url(text)) {
        return Ok(Target { replica: Replica::parse(text)?, database: None, config: None });
    }
    let path = Path::new(arg);
    let config = load_config(args)?;
    if let Some(Database { path, replica, .. }) = config.as_ref().and_then(|config| config.database(path)) {
        return Ok(Target { replica, database: Some(path), config });
    }
    if path.is_dir() {
        return Ok(Target { replica: replica_directory(path)?, database: None, config });
    }
    let what = path.display();
    Err(match config {
        Some(config) => CliError::usage(format!("{what} is not a database of the configuration"))
            .cause(format!("{} names {}", config.path.display(), names(&config)))
            .hint("give one of them, or the replica as a url or a directory"),
        None => CliError::usage(format!("there is no configuration that says where {what} is replicated"))
            .hint("name it with -config, or give the replica as a url or a directory"),
    })
}

/// The database and the replica of a command line that gives both.
pub fn pair(database: &OsStr, replica: &OsStr) -> Result<(PathBuf, Replica), CliError> {
    let database = without_sqlite(database.as_ref()).as_os_str();
    if database.to_str().is_some_and(looks_like_url) {
        return Err(CliError::usage(format!("{} is a url where the database should be", database.display()))
            .hint("the database comes first, then its replica"));
    }
    let database = absolute(Path::new(database)).map_err(|error| {
        CliError::usage(format!("cannot tell where {} is", database.display())).cause(error)
    })?;
    let replica = match replica.to_str() {
        Some(text) => Replica::parse(text)?,
        None => Replica::from_path(Path::new(replica))?,
    };
    check_pair(&database, &replica)?;
    Ok((database, replica))
}

/// What a person should know of a replica that is named on the command line.
pub fn warnings(replica: &OsStr) -> Vec<String> {
    let described = |text| describe_url(text, Options::default(), &environment).ok();
    replica.to_str().and_then(described).map_or(Vec::new(), |described| described.about.warnings)
}

/// Refuses what can never work: a directory as a database, a file as a replica.
pub fn check_pair(database: &Path, replica: &Replica) -> Result<(), CliError> {
    if database.is_dir() {
        return Err(CliError::usage(format!("{} is a directory, not a database", database.display()))
            .hint("give the path of the database file"));
    }
    // As with hard links, two names make two databases of one file: the application's commits stand
    // in a -wal beside the other name.
    if is_mount_point(database) {
        return Err(CliError::usage(format!("{} is itself a mount point", database.display()))
            .hint("SQLite keeps -wal and -shm beside the database: mount its directory, not the file"));
    }
    if let Some(directory) = replica.directory().filter(|directory| directory.is_file()) {
        return Err(CliError::usage(format!("the replica {} is a file", directory.display()))
            .hint("give a directory, which is made if it is not there"));
    }
    Ok(())
}

fn replica_directory(path: &Path) -> Result<Replica, CliError> {
    // `…/ltx`, or `…/generations` of Litestream 0.3, is what people complete to; the replica is its parent.
    let inside = ["ltx", "generations"]
        .iter()
        .any(|name| path.file_name().is_some_and(|last| last == *name) && !path.join(name).is_dir());
    match path.parent() {
        Some(parent) if inside => Ok(Replica::from_path(parent)?),
        _ => Ok(Replica::from_path(path)?),
    }
}

fn names(config: &Config) -> String {
    let paths = config.databases.iter().map(|database| database.path.display().to_string());
    let of_directory = |directory: &Directory| {
        let below = if directory.recursive { " and below" } else { "" };
        format!("{} in {}{below}", directory.pattern, directory.root.display())
    };
    let all: Vec<String> = paths.chain(config.directories.iter().map(of_directory)).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// All databases of a configuration: those that are named, and those that its directories hold now.
pub fn all_databases(config: &Config) -> Result<Vec<Database>, CliError> {
    config.all_databases().map_err(|(directory, error)| {
        CliError::usage(format!("cannot look into the directory {}", directory.display()))
            .cause(error)
            .hint("make it, or correct dir")
    })
}
