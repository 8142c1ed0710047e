//! `driftless check`: what a configuration would do, without doing it.
//!
//! The configuration is read and each database looked at as the replicator would look at it before
//! it opens one, by the same rules; nothing is opened or written, and no store is asked. With `-connect` one
//! key of each replica is listed as well. A process that runs already is asked what its validations have
//! found. Secrets are never shown, only where they come from.

pub(super) mod running;
mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use driftless_adapters::object::settings::{Service, Settings};
use driftless_adapters::store::{StoreError, StoreErrorKind};
use driftless_core::engine::{Admission, plan_admission, plan_header};
use serde::Serialize;

use super::args::Args;
use super::error::CliError;
use super::output::Out;
use super::{logging, need_config, target};
use crate::config::replica::{Described, describe_url, environment, options::Options};
use crate::config::{About, Config, Database, Replica, absolute, duration};
use crate::discover::Directory;
use crate::host::{self, ReplicateOptions};
use crate::port::source::{RealFiles, SourceFiles as _};

/// How long a store may take to answer.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);

/// What would happen.
#[derive(Serialize, Debug)]
pub(super) struct Report {
    ok: bool,
    config: Option<String>,
    databases: Vec<DatabaseReport>,
    directories: Vec<DirectoryReport>,
    process: ProcessReport,
    warnings: Vec<String>,
    problems: Vec<String>,
}

/// Of one database.
#[derive(Serialize, Debug)]
struct DatabaseReport {
    path: String,
    /// `ready`, `waits`, `unseen` (waits while commits go unseen) or `refused`.
    state: &'static str,
    why: Option<String>,
    hint: Option<String>,
    bytes: Option<u64>,
    wal_bytes: Option<u64>,
    replica: ReplicaReport,
    sync_interval: String,
    min_checkpoint_page_count: u32,
    restore_if_db_not_exists: bool,
    /// Null if none are made.
    levels: Option<LevelsReport>,
    /// Null if the replica is not validated.
    validation_interval: Option<String>,
    /// What the last validation of a process that runs has found wrong; null if nothing.
    damage: Option<String>,
}

/// Of one directory of databases.
#[derive(Serialize, Debug)]
struct DirectoryReport {
    dir: String,
    pattern: String,
    recursive: bool,
    watch: bool,
    replica: ReplicaReport,
    restore_if_db_not_exists: bool,
}

/// Of the levels that are made.
#[derive(Serialize, Debug)]
struct LevelsReport {
    /// Of level 1, 2, and so on.
    intervals: Vec<String>,
    snapshot_interval: String,
    verify: bool,
}

/// Of one replica.
#[derive(Serialize, Debug)]
struct ReplicaReport {
    #[serde(rename = "type")]
    kind: &'static str,
    url: String,
    provider: &'static str,
    endpoint: Option<String>,
    region: Option<String>,
    addressing: Option<&'static str>,
    credentials: Option<String>,
    options: BTreeMap<&'static str, String>,
    /// `ok`, or the error; null unless it was asked for.
    connection: Option<String>,
}

/// Of the process.
#[derive(Serialize, Debug)]
struct ProcessReport {
    state_dir: Option<String>,
    shutdown_sync_timeout: String,
    shutdown_sync_interval: String,
    exec: Option<String>,
    addr: Option<String>,
    heartbeat_url: Option<String>,
    heartbeat_interval: Option<String>,
    socket: Option<SocketReport>,
    log_level: Option<String>,
    log_format: Option<String>,
    log_stderr: Option<bool>,
}

/// Of the control socket, where the configuration names one.
#[derive(Serialize, Debug)]
struct SocketReport {
    enabled: bool,
    path: Option<String>,
    permissions: Option<String>,
}

/// Says what would happen; an error if something would not work.
pub fn run(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let config = config_of(args)?;
    logging::start(args, &config.logging)?;
    let mut problems = Vec::new();
    if config.is_empty() {
        problems.push("the configuration names no database".to_owned());
    }
    let mut config = config;
    config.databases = within_directories(&mut config, &mut problems);
    let connect = args.is_on("connect");
    let mut databases: Vec<DatabaseReport> =
        config.databases.iter().map(|database| of_database(database, connect, &mut problems)).collect();
    let works = problems.is_empty();
    let mut damage = running::damage(args, &config);
    for (report, database) in databases.iter_mut().zip(&config.databases) {
        report.damage = damage.remove(&database.path);
        let name = database.path.display();
        problems.extend(report.damage.iter().map(|fault| format!("{name}: its replica is damaged: {fault}")));
    }
    let report = Report {
        databases,
        directories: config.directories.iter().map(of_directory).collect(),
        config: Some(config.path.display().to_string()).filter(|path| !path.is_empty()),
        process: of_process(&config),
        warnings: config.warnings.clone(),
        ok: problems.is_empty(),
        problems,
    };
    if args.is_on("json") {
        out.json(&report);
    } else {
        out.write(&show::text(&report));
    }
    match report.problems.as_slice() {
        [] => Ok(()),
        [first, ..] if works => Err(CliError::corrupt("the last validation of a replica has found a fault")
            .cause(first)
            .hint("run driftless verify on the replica: it lists all that is wrong")),
        [one] => Err(CliError::usage("this would not work as it is").cause(one)),
        [first, rest @ ..] => {
            let what = format!("this would not work as it is, for {} reasons", rest.len() + 1);
            Err(CliError::usage(what).cause(first).hint("the reasons stand under \"problems\" above"))
        }
    }
}

/// All databases, those of directories among them; what is wrong with a directory is a problem.
fn within_directories(config: &mut Config, problems: &mut Vec<String>) -> Vec<Database> {
    let (mut all, mut of) = (config.databases.clone(), BTreeMap::new());
    let named: BTreeSet<PathBuf> = all.iter().map(|database| database.path.clone()).collect();
    for directory in &config.directories {
        let root = directory.root.display();
        let scan = match directory.scan() {
            Ok(scan) => scan,
            Err(error) => {
                problems.push(format!("cannot look into the directory {root}: {error}"));
                continue;
            }
        };
        if scan.databases.is_empty() && !directory.watch && !directory.restore_if_missing {
            problems.push(format!("there is no database in {root} with the pattern {}", directory.pattern));
        }
        let told = scan.passed_over.iter();
        config.warnings.extend(told.map(|(path, why)| format!("{} is passed over: {why}", path.display())));
        for path in scan.databases.into_iter().filter(|path| !named.contains(path)) {
            if let Some(other) = of.insert(path.clone(), directory.root.clone()) {
                let (path, other) = (path.display(), other.display());
                problems.push(format!("{path} is found by two entries, of {other} and of {root}"));
                continue;
            }
            all.extend(directory.database(&path));
        }
    }
    all
}

/// What is to be looked at: all of the configuration, one database of it, or a pair.
fn config_of(args: &Args) -> Result<Config, CliError> {
    match args.positionals.as_slice() {
        [] => need_config(args),
        [database] => {
            let mut config = need_config(args)?;
            let path = Path::new(database);
            let Some(known) = config.database(path) else {
                let what = format!("{} is not a database of the configuration", path.display());
                return Err(CliError::usage(what).hint("give its replica as well to look at the pair"));
            };
            config.databases = vec![known];
            config.directories.clear();
            Ok(config)
        }
        [database, replica, ..] => {
            if args.os_value("config").is_some() {
                return Err(CliError::usage("both a configuration and a replica were given")
                    .hint("leave out -config, or leave out the database and its replica"));
            }
            let (path, parsed) = target::pair(database, replica)?;
            let about = match replica.to_str() {
                Some(text) => describe_url(text, Options::default(), &environment)?,
                None => Described { replica: parsed, about: About::default() },
            };
            let Described { replica, about } = about;
            let warnings = about.warnings.clone();
            let settings = Arc::default();
            let database = Database { path, replica, about, settings, restore_if_db_not_exists: false };
            Ok(Config { databases: vec![database], warnings, ..Config::default() })
        }
    }
}

fn of_database(database: &Database, connect: bool, problems: &mut Vec<String>) -> DatabaseReport {
    let (state, why, hint) = state(&database.path, &database.replica);
    let name = database.path.display();
    if matches!(state, "refused" | "unseen") {
        problems.push(format!("{name}: {}", why.as_deref().unwrap_or_default()));
    }
    let mut replica = of_replica(&database.replica, &database.about);
    if connect {
        let answer = reach(&database.replica);
        if let Err(error) = &answer {
            problems.push(format!("{name}: {}: {}", error.subject, error.cause));
        }
        replica.connection = Some(match answer {
            Ok(true) => "ok, and there are objects".to_owned(),
            Ok(false) => "ok, and it is empty".to_owned(),
            Err(error) => match &error.hint {
                Some(hint) => format!("{} ({hint})", error.cause),
                None => error.cause.to_string(),
            },
        });
    }
    let bytes = |path: PathBuf| path.metadata().ok().map(|facts| facts.len());
    let mut wal = database.path.as_os_str().to_owned();
    wal.push("-wal");
    DatabaseReport {
        path: name.to_string(),
        state,
        why,
        hint,
        bytes: bytes(database.path.clone()),
        wal_bytes: bytes(wal.into()),
        replica,
        sync_interval: duration::show(database.settings.engine.sync_interval),
        min_checkpoint_page_count: database.settings.engine.min_checkpoint_pages,
        restore_if_db_not_exists: database.restore_if_db_not_exists,
        levels: database.settings.levels.as_ref().map(|levels| LevelsReport {
            intervals: levels.levels.iter().copied().map(duration::show).collect(),
            snapshot_interval: duration::show(levels.snapshot_interval),
            verify: levels.verify,
        }),
        validation_interval: database.settings.validation.map(duration::show),
        damage: None,
    }
}

/// Whether the replicator would open the database now, and if not, why and what to do.
fn state(path: &Path, replica: &Replica) -> (&'static str, Option<String>, Option<String>) {
    if let Err(error) = target::check_pair(path, replica) {
        return ("refused", Some(error.to_string()), error.hint);
    }
    let files = RealFiles::new(path.to_owned());
    let admission = files.facts().and_then(|facts| match plan_admission(facts.as_ref()) {
        Admission::Open => Ok(plan_header(&files.header()?)),
        admission => Ok(admission),
    });
    match admission {
        Ok(Admission::Open) => ("ready", None, None),
        Ok(Admission::Wait { why, hint, unseen }) => {
            (if unseen { "unseen" } else { "waits" }, Some(why.to_owned()), Some(hint.to_owned()))
        }
        Ok(Admission::Refuse { why, hint }) => ("refused", Some(why), Some(hint.to_owned())),
        Err(error) => {
            let hint =
                "give the user that runs driftless read and write access to the database and its directory";
            ("unseen", Some(error.text), Some(hint.to_owned()))
        }
    }
}

fn of_directory(directory: &Directory) -> DirectoryReport {
    DirectoryReport {
        dir: directory.root.display().to_string(),
        pattern: directory.pattern.to_string(),
        recursive: directory.recursive,
        watch: directory.watch,
        replica: of_replica(&directory.replica, &directory.about),
        restore_if_db_not_exists: directory.restore_if_missing,
    }
}

fn of_replica(replica: &Replica, about: &About) -> ReplicaReport {
    let mut report = ReplicaReport {
        kind: replica.kind(),
        url: replica.url(),
        provider: about.provider,
        endpoint: None,
        region: None,
        addressing: None,
        credentials: Some(about.credentials.clone()).filter(|words| !words.is_empty()),
        options: about.options.iter().cloned().collect(),
        connection: None,
    };
    if let Replica::Object(settings) = replica {
        endpoint_of(settings, &mut report);
    }
    report
}

fn endpoint_of(settings: &Settings, report: &mut ReplicaReport) {
    match &settings.service {
        Service::S3(s3) => {
            let region = match &s3.region {
                Some(region) => region.clone(),
                None => {
                    let set = ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find_map(environment);
                    set.unwrap_or_else(|| "us-east-1".to_owned())
                }
            };
            let amazon = || format!("https://s3.{region}.amazonaws.com");
            report.endpoint = Some(s3.endpoint.clone().unwrap_or_else(amazon));
            report.region = Some(region);
            report.addressing = Some(if s3.path_style { "bucket in the path" } else { "bucket in the host" });
        }
        Service::Azure(azure) => {
            let microsoft = || format!("https://{}.blob.core.windows.net", azure.account);
            report.endpoint = Some(azure.endpoint.clone().unwrap_or_else(microsoft));
        }
        Service::Gcs(gcs) => {
            let google = || "https://storage.googleapis.com".to_owned();
            report.endpoint = Some(gcs.endpoint.clone().unwrap_or_else(google));
        }
        Service::WebDav(webdav) => report.endpoint = Some(webdav.url.clone()),
    }
}

/// Lists one key; whether there was one.
fn reach(replica: &Replica) -> Result<bool, StoreError> {
    host::with_store(replica, async |store, _| {
        let listed = async { store.list("", None, 1).await.map(|page| !page.entries.is_empty()) };
        let late = async {
            async_io::Timer::after(CONNECT_DEADLINE).await;
            let cause = format!("no answer within {}", duration::show(CONNECT_DEADLINE));
            Err(StoreError::new(StoreErrorKind::Retry, replica.url(), cause))
        };
        futures_lite::future::or(listed, late).await
    })
}

fn of_process(config: &Config) -> ProcessReport {
    let state_dir = config.state_home();
    let timeout = config.shutdown_sync_timeout.unwrap_or(ReplicateOptions::default().shutdown_sync_timeout);
    let socket = &config.socket;
    let named = socket.enabled.is_some() || socket.path.is_some() || socket.permissions.is_some();
    ProcessReport {
        state_dir: state_dir.map(|path| absolute(&path).unwrap_or(path).display().to_string()),
        shutdown_sync_timeout: duration::show(timeout),
        shutdown_sync_interval: duration::show(config.settings.engine.shutdown_sync_interval),
        exec: config.exec.clone(),
        addr: config.addr.clone(),
        heartbeat_url: config.heartbeat_url.clone(),
        heartbeat_interval: config.heartbeat_interval.map(duration::show),
        socket: named.then(|| SocketReport {
            enabled: socket.enabled.unwrap_or(false),
            path: socket.path.as_ref().map(|path| path.display().to_string()),
            permissions: socket.permissions.map(|bits| format!("0{bits:o}")),
        }),
        log_level: config.logging.level.clone(),
        log_format: config.logging.format.clone(),
        log_stderr: config.logging.stderr,
    }
}
