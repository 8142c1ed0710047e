//! `driftless replicate`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use driftless_core::application::Verdict;
use driftless_core::tiers::Limits;

use super::args::Args;
use super::error::CliError;
use super::{load_config, logging, need_config, target};
use crate::config::{Config, Database, Lease, Logging, Settings};
use crate::discover::Directory;
use crate::host::{self, LeaseOptions, ReplicateJob, ReplicateOptions, Reread, Rereader, SocketPlace};
use crate::service::heartbeat::Heartbeat;
use crate::service::notify::Notifier;
use crate::service::{Ended, words};

/// Where Litestream has its socket, so that whoever asks there finds this process.
pub const SOCKET_PATH: &str = "/var/run/litestream.sock";

/// From one heartbeat to the next, as with Litestream.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Replicates until all databases have ended. A process that does not begin takes no lease that nobody has
/// ever held.
pub fn run(args: &Args, begins: bool) -> Result<(), CliError> {
    let (jobs, config, warnings) = match args.positionals.as_slice() {
        [] => {
            let config = need_config(args)?;
            let warnings = config.warnings.clone();
            (jobs_of(args, &config)?, Some(config), warnings)
        }
        [database] => return Err(without_replica(args, database)),
        [database, replica, ..] => {
            if args.os_value("config").is_some() {
                return Err(CliError::usage("both a configuration and a replica were given")
                    .hint("leave out -config, or leave out the database and its replica"));
            }
            let warnings = target::warnings(replica);
            let (database, replica) = target::pair(database, replica)?;
            let settings = settings_of(args, &Settings::default()).into();
            let job = ReplicateJob { database, replica, settings, restore_if_missing: restores(args) };
            (vec![job], None, warnings)
        }
    };
    logging::start(args, config.as_ref().map_or(&Logging::default(), |config| &config.logging))?;
    let reread = config.as_ref().map(|config| rereader(args.clone(), config.clone()));
    let config = config.unwrap_or_default();
    for warning in &warnings {
        tracing::warn!(config = config.path.to_str().filter(|path| !path.is_empty()), "{warning}");
    }
    for job in &jobs {
        tracing::info!(
            database = %job.database.display(),
            replica = %job.replica.place(),
            version = env!("CARGO_PKG_VERSION"),
            "replicating"
        );
    }
    for directory in &config.directories {
        tracing::info!(
            dir = %directory.root.display(),
            pattern = %directory.pattern,
            replicas = %directory.replica.place(),
            version = env!("CARGO_PKG_VERSION"),
            "replicating"
        );
    }
    let lease = config.lease.as_ref().map(|lease| lease_of(args, lease, begins)).transpose()?;
    if lease.is_none() && !begins {
        return Err(CliError::usage(format!("{} has no lease to wait for", config.path.display()))
            .hint("docs/FAILOVER.md tells how to write one"));
    }
    let options = ReplicateOptions {
        lease,
        state_dir: args.path("state-dir").or_else(|| config.state_dir.clone()),
        shutdown_sync_timeout: timeout_of(&config),
        // With -once it ends when all is done, whoever might still want to ask.
        socket: socket_of(&config).filter(|_| !args.is_on("once")),
        settings: settings_of(args, &config.settings),
        directories: directories_of(args, &config),
        reread,
        exec: command(args, config.exec.as_deref())?,
        notifier: notifier(),
        addr: args.text("addr")?.map(str::to_owned).or(config.addr),
        limits: config.max_hot.map_or(Limits::default(), |hot| Limits { hot, ..Limits::default() }),
        heartbeat: config.heartbeat_url.map(|url| {
            let interval = config.heartbeat_interval.unwrap_or(HEARTBEAT_INTERVAL);
            Heartbeat { url, interval }
        }),
    };
    outcome(host::replicate(jobs, options))
}

/// How the process contends, by the section of the configuration.
fn lease_of(args: &Args, lease: &Lease, begins: bool) -> Result<LeaseOptions, CliError> {
    if args.is_on("once") || args.is_on("adopt") {
        return Err(CliError::usage(
            "a lease is for a process that goes on, and its successor proves what it owns",
        )
        .hint("leave out -once and -adopt, or use a configuration without a lease"));
    }
    let words = |name: &str, text: &Option<String>| {
        let split = |text: &String| {
            words::split(text).map_err(|error| {
                CliError::usage(format!("the command of lease.{name} cannot be understood")).cause(error)
            })
        };
        text.as_ref().map(split).transpose()
    };
    Ok(LeaseOptions {
        replica: lease.replica.clone(),
        ttl: lease.ttl,
        address: lease.address.clone().unwrap_or_default(),
        begins,
        promote: words("promote", &lease.promote)?,
        demote: words("demote", &lease.demote)?,
    })
}

/// The service manager, if one started us.
fn notifier() -> Option<Rc<Notifier>> {
    Notifier::from_environment().map(|found| found.map(Rc::new)).unwrap_or_else(|error| {
        tracing::warn!(%error, "the service manager that NOTIFY_SOCKET names cannot be told anything");
        None
    })
}

fn restores(args: &Args) -> bool {
    args.is_on("restore-if-db-not-exists")
}

/// The words of the application's command, if there is one.
fn command(args: &Args, configured: Option<&str>) -> Result<Option<Vec<String>>, CliError> {
    let (name, text) = match (args.text("exec")?, configured) {
        (Some(text), _) => ("-exec", text),
        (None, Some(text)) => ("exec", text),
        (None, None) => return Ok(None),
    };
    if args.is_on("once") {
        return Err(CliError::usage(format!("{name} and -once exclude each other"))
            .hint("leave out -once: replication ends with the application, fully replicated"));
    }
    let words = words::split(text).map_err(|error| {
        CliError::usage(format!("the command of {name} cannot be understood"))
            .cause(error)
            .hint("quote what belongs together; for a shell's syntax: -exec \"sh -c '…'\"")
    })?;
    Ok(Some(words))
}

/// The application's exit code becomes ours. The log has told how it ended; this says so again as
/// the last word, since the code alone could be one of our own.
fn outcome(ended: Ended) -> Result<(), CliError> {
    let databases = CliError::from_exit(ended.databases);
    match (ended.verdict, ended.application) {
        (Verdict::Application, Some((how, code))) => {
            let error = CliError::failed(format!("the application {how}"));
            let error = match databases {
                Ok(()) => error.hint("what it committed is on the replica"),
                Err(ours) => error.cause(ours).hint("replication did not end well either"),
            };
            Err(CliError { code, ..error })
        }
        _ => databases,
    }
}

fn timeout_of(config: &Config) -> Duration {
    config.shutdown_sync_timeout.unwrap_or(ReplicateOptions::default().shutdown_sync_timeout)
}

/// The socket that a configuration wants.
pub fn socket_of(config: &Config) -> Option<SocketPlace> {
    let socket = &config.socket;
    socket.enabled.unwrap_or(false).then(|| SocketPlace {
        path: socket.path.clone().unwrap_or_else(|| SOCKET_PATH.into()),
        permissions: socket.permissions.unwrap_or(0o600),
    })
}

fn settings_of(args: &Args, settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.engine.once = args.is_on("once");
    settings.engine.adopt = args.is_on("adopt");
    settings
}

fn jobs_of(args: &Args, config: &Config) -> Result<Vec<ReplicateJob>, CliError> {
    // Most databases have the settings of the one before.
    let mut settings = Arc::new(settings_of(args, &config.settings));
    let job = |database: &Database| {
        target::check_pair(&database.path, &database.replica)?;
        let own = settings_of(args, &database.settings);
        if *settings != own {
            settings = own.into();
        }
        Ok(ReplicateJob {
            database: database.path.clone(),
            replica: database.replica.clone(),
            settings: Arc::clone(&settings),
            restore_if_missing: database.restore_if_db_not_exists || restores(args),
        })
    };
    config.databases.iter().map(job).collect()
}

/// The directories of a configuration. With `-once` nothing is waited for that may come.
fn directories_of(args: &Args, config: &Config) -> Vec<Directory> {
    let adjusted = |directory: &Directory| Directory {
        settings: settings_of(args, &directory.settings).into(),
        watch: directory.watch && !args.is_on("once"),
        restore_if_missing: directory.restore_if_missing || restores(args),
        ..directory.clone()
    };
    config.directories.iter().map(adjusted).collect()
}

/// Reads the configuration again, by the same flags.
fn rereader(args: Args, before: Config) -> Rereader {
    // What is compared with is not the databases, of which there may be many.
    let before = Config { databases: Vec::new(), directories: Vec::new(), ..before };
    let read = move || -> Result<Reread, CliError> {
        let config = need_config(&args)?;
        let jobs = jobs_of(&args, &config)?;
        logging::restart(&args, &config.logging)?;
        for warning in &config.warnings {
            tracing::warn!(config = %config.path.display(), "{warning}");
        }
        let moved = args.os_value("state-dir").is_none() && config.state_dir != before.state_dir;
        let beats = |config: &Config| (config.heartbeat_url.clone(), config.heartbeat_interval);
        for (key, changed) in [
            ("state-dir", moved),
            ("socket", config.socket != before.socket),
            ("exec", config.exec != before.exec),
            ("lease", config.lease != before.lease),
            ("addr", config.addr != before.addr),
            ("heartbeat", beats(&config) != beats(&before)),
        ] {
            if changed {
                tracing::warn!("{key} is not the same any more: that takes effect at the next start");
            }
        }
        Ok(Reread {
            jobs,
            directories: directories_of(&args, &config),
            settings: settings_of(&args, &config.settings),
            shutdown_sync_timeout: timeout_of(&config),
        })
    };
    Box::new(move || read().map_err(|error| error.to_string()))
}

/// One argument is half of a pair; the hint depends on what the configuration knows.
fn without_replica(args: &Args, database: &std::ffi::OsStr) -> CliError {
    let known = match load_config(args) {
        Ok(config) => config.is_some_and(|config| config.database(database.as_ref()).is_some()),
        Err(error) => return error,
    };
    let hint = match known {
        true => "the configuration knows this database: leave it out to replicate all that are in there"
            .to_owned(),
        false => format!("driftless replicate {} file:///path/to/replica", database.display()),
    };
    CliError::usage(format!("no replica was given for {}", database.display())).hint(hint)
}
