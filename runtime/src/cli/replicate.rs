//! `driftless replicate`.

use driftless_core::application::Verdict;
use driftless_core::engine;

use super::args::Args;
use super::error::CliError;
use super::{load_config, logging, need_config, target};
use crate::config::{Config, Logging};
use crate::host::{self, ReplicateJob, ReplicateOptions};
use crate::service::{Ended, words};

/// Replicates until all databases have ended.
pub fn run(args: &Args) -> Result<(), CliError> {
    let (mut jobs, config) = match args.positionals.as_slice() {
        [] => {
            let config = need_config(args)?;
            (jobs_of(&config)?, Some(config))
        }
        [database] => return Err(without_replica(args, database)),
        [database, replica, ..] => {
            if args.os_value("config").is_some() {
                return Err(CliError::usage("both a configuration and a replica were given")
                    .hint("leave out -config, or leave out the database and its replica"));
            }
            let (database, replica) = target::pair(database, replica)?;
            (
                vec![ReplicateJob {
                    database,
                    replica,
                    engine: engine::Config::default(),
                    restore_if_missing: false,
                }],
                None,
            )
        }
    };
    logging::start(args, config.as_ref().map_or(&Logging::default(), |config| &config.logging))?;
    let config = config.unwrap_or_default();
    for warning in &config.warnings {
        tracing::warn!(config = %config.path.display(), "{warning}");
    }
    for job in &mut jobs {
        job.engine.once = args.is_on("once");
        job.engine.adopt = args.is_on("adopt");
        job.restore_if_missing |= args.is_on("restore-if-db-not-exists");
    }
    let mut options = ReplicateOptions::default();
    options.state_dir = args.path("state-dir").or(config.state_dir);
    options.shutdown_sync_timeout = config.shutdown_sync_timeout.unwrap_or(options.shutdown_sync_timeout);
    options.exec = command(args, config.exec.as_deref())?;
    for job in &jobs {
        tracing::info!(
            database = %job.database.display(),
            replica = %job.replica.place(),
            version = env!("CARGO_PKG_VERSION"),
            "replicating"
        );
    }
    outcome(host::replicate(jobs, options))
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

fn jobs_of(config: &Config) -> Result<Vec<ReplicateJob>, CliError> {
    if config.databases.is_empty() {
        return Err(CliError::usage(format!(
            "the configuration {} names no database",
            config.path.display()
        ))
        .hint("list at least one under dbs"));
    }
    config
        .databases
        .iter()
        .map(|database| {
            target::check_pair(&database.path, &database.replica)?;
            Ok(ReplicateJob {
                database: database.path.clone(),
                replica: database.replica.clone(),
                engine: database.engine.clone(),
                restore_if_missing: database.restore_if_db_not_exists,
            })
        })
        .collect()
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
