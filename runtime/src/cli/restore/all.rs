//! `driftless restore -all`: each database of a configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use driftless_core::legacy::EitherStatus;
use driftless_core::restore::{RestoreConfig, RestoreTarget};
use serde_json::{Value, json};

use super::{Integrity, Order, Outcome, carry_out, legacy, plan, proof, summary};
use crate::cli::args::Args;
use crate::cli::error::CliError;
use crate::cli::output::{Out, human_bytes, human_count};
use crate::cli::{logging, need_config};
use crate::config::{Config, Database, Replica, absolute};
use crate::host;

/// Restores one after the other, says of each what became of it, and fails if one did.
pub(super) fn run(
    args: &Args,
    restore: &RestoreConfig,
    integrity: Integrity,
    out: &mut Out,
) -> Result<(), CliError> {
    refuse_what_is_of_one(args, restore)?;
    let config = need_config(args)?;
    logging::start(args, &config.logging)?;
    if config.is_empty() {
        return Err(CliError::usage(format!("{} names no database", config.path.display())));
    }
    let databases = databases(&config)?;
    let outputs = outputs(args, &databases)?;
    let (mut told, mut failures) = (Vec::new(), Vec::new());
    for (Named { replica, .. }, output) in databases.iter().zip(outputs) {
        let replica = replica.clone();
        make_above(&output, restore.dry_run)?;
        let mut order =
            Order { replica, output, config: restore.clone(), legacy: None, integrity, vacant: false };
        let started = Instant::now();
        let outcome = carry_out(&mut order, args);
        if args.is_on("json") {
            told.push(value(&order, &outcome, started));
        } else {
            out.line(line(&order, &outcome, started));
        }
        failures.extend(outcome.err());
    }
    if args.is_on("json") {
        out.json(&told);
    }
    let (all, failed) = (databases.len(), failures.len());
    let Some(worst) = failures.into_iter().max_by_key(|error| error.code) else { return Ok(()) };
    let error = CliError::failed(format!("{failed} of {all} databases were not restored"));
    Err(CliError { code: worst.code, ..error.cause(&worst).hint(worst.hint.unwrap_or_default()) })
}

/// What can only be meant of one database.
fn refuse_what_is_of_one(args: &Args, restore: &RestoreConfig) -> Result<(), CliError> {
    let one = if args.positionals.is_empty() { None } else { Some("a database") };
    let one = one.or(matches!(restore.target, RestoreTarget::At(_)).then_some("-txid"));
    let one = one.or(args.text("generation")?.map(|_| "-generation"));
    one.map_or(Ok(()), |one| {
        Err(CliError::usage(format!("both -all and {one} were given"))
            .hint("with -all, -timestamp says which state of each database is wanted"))
    })
}

/// A database to restore.
struct Named {
    path: PathBuf,
    /// By what it is called in a directory of another host.
    name: PathBuf,
    replica: Replica,
}

/// All databases: those that are named, those that directories hold, and those that were replicated
/// out of directories, which is where the files are gone.
fn databases(config: &Config) -> Result<Vec<Named>, CliError> {
    let mut all = Vec::new();
    for Database { path, replica, .. } in &config.databases {
        let name = path.file_name().unwrap_or_default().into();
        all.push(Named { path: path.clone(), name, replica: replica.clone() });
    }
    let mut taken: BTreeSet<PathBuf> = all.iter().map(|named| named.path.clone()).collect();
    for directory in &config.directories {
        // A directory that cannot be looked into may be one that is to be.
        let here = directory.scan().map(|scan| scan.databases).unwrap_or_default();
        let there = host::replicated_in(directory)?;
        let paths: BTreeSet<PathBuf> = here.into_iter().chain(there).collect();
        for path in paths {
            let Some(database) = directory.database(&path).filter(|_| taken.insert(path.clone())) else {
                continue;
            };
            let name = path.strip_prefix(&directory.root).unwrap_or(&path).to_path_buf();
            all.push(Named { path, name, replica: database.replica });
        }
    }
    Ok(all)
}

/// Makes the directory that a database is to stand in.
fn make_above(output: &Path, dry_run: bool) -> Result<(), CliError> {
    let Some(above) = output.parent().filter(|above| !dry_run && !above.exists()) else { return Ok(()) };
    fs::create_dir_all(above)
        .map_err(|error| CliError::failed(format!("cannot make {}", above.display())).cause(error))
}

/// Where each is to stand: where the configuration has it, or by its name in a directory.
fn outputs(args: &Args, databases: &[Named]) -> Result<Vec<PathBuf>, CliError> {
    let Some(directory) = args.path("o") else {
        return Ok(databases.iter().map(|named| named.path.clone()).collect());
    };
    let directory = absolute(&directory).map_err(|error| {
        CliError::usage(format!("cannot tell where {} is", directory.display())).cause(error)
    })?;
    if directory.is_file() {
        return Err(CliError::usage(format!("{} is a file", directory.display()))
            .hint("with -all, -o names a directory"));
    }
    let mut names: BTreeMap<PathBuf, &Path> = BTreeMap::new();
    let mut outputs = Vec::new();
    for Named { path, name, .. } in databases {
        let output = directory.join(name);
        if let Some(other) = names.insert(output.clone(), path) {
            let both = format!("{} and {}", other.display(), path.display());
            return Err(CliError::usage(format!("{both} would both be {}", output.display()))
                .hint("restore one of them by itself"));
        }
        outputs.push(output);
    }
    Ok(outputs)
}

fn line(order: &Order, outcome: &Result<Outcome, CliError>, started: Instant) -> String {
    let database = order.output.display();
    let status = match outcome {
        Err(error) => return format!("{database}: {error}"),
        Ok(Outcome::Exists) => return format!("{database}: exists, nothing is restored"),
        Ok(Outcome::Nothing) => return format!("{database}: there is nothing to restore from"),
        Ok(Outcome::Done(status)) => &**status,
    };
    let size = |pages: u32, bytes: u32| human_bytes(u64::from(pages) * u64::from(bytes));
    let seconds = started.elapsed().as_secs_f64();
    match status {
        EitherStatus::Ltx(status) if order.config.dry_run => {
            let plan = plan(order, status);
            let bytes = plan.files.iter().map(|file| file.size).sum();
            let (files, bytes) = (human_count(plan.files.len() as u64), human_bytes(bytes));
            let (txid, stamp) = (plan.max_txid, plan.timestamp);
            format!("{database}: txid {txid}, captured {stamp}, from {files} files of {bytes}")
        }
        EitherStatus::Ltx(status) => {
            let told = summary(order, status, started);
            let size = size(told.pages, told.page_size);
            format!(
                "{database}: restored to txid {}, captured {}; {size} in {seconds:.2} s; {}",
                told.txid,
                told.timestamp,
                proof(told.proven)
            )
        }
        EitherStatus::Legacy(status) => legacy::line(order, status, &database.to_string()),
    }
}

fn value(order: &Order, outcome: &Result<Outcome, CliError>, started: Instant) -> Value {
    let to = |of: Result<Value, serde_json::Error>| of.expect("a report is plain data");
    let database = order.output.display().to_string();
    match outcome {
        Err(error) => json!({
            "db_path": database,
            "error": error.to_string(),
            "hint": error.hint,
            "exit_code": error.code,
        }),
        Ok(Outcome::Exists) => json!({ "db_path": database, "skipped": "the database exists" }),
        Ok(Outcome::Nothing) => json!({ "db_path": database, "skipped": "there is nothing to restore from" }),
        Ok(Outcome::Done(status)) => match (&**status, order.config.dry_run) {
            (EitherStatus::Ltx(status), true) => to(serde_json::to_value(plan(order, status))),
            (EitherStatus::Ltx(status), false) => to(serde_json::to_value(summary(order, status, started))),
            (EitherStatus::Legacy(status), _) => legacy::value(order, status, started),
        },
    }
}
