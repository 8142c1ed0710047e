//! `driftless reset`: forgets what is known of a replica, so that a whole base is written next.
//!
//! Whose history it is stays known. So the base extends the replica, and the run that writes it is
//! not taken for a stranger. A process that replicates the database does it itself, between two
//! runs; where none does, the journal is ours for the moment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use driftless_adapters::fs::RealFs;
use driftless_core::engine::Journal;
use serde_json::{Value, json};

use super::args::Args;
use super::error::CliError;
use super::load_config;
use super::output::Out;
use super::remote::{self, Question};
use crate::control::StateLock;
use crate::host;
use crate::port::state::StateJournal;

/// Resets a database.
pub fn run(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let database = remote::database(args)?;
    let timeout = remote::timeout(args, 30)?;
    let shown = database.display();
    let done = match args.is_on("dry-run") {
        true => preview(args, &database)?,
        false => {
            let body = json!({ "path": database, "timeout": timeout.as_secs() });
            let question = Question { method: "POST", target: "/reset", body: Some(&body), timeout };
            let what = format!("cannot reset {shown}");
            match remote::find(args, Some(&database), question, &what)? {
                Some(reply) => reply.body["status"].as_str().unwrap_or_default().to_owned(),
                None => in_files(args, &database, true)?,
            }
        }
    };
    if args.is_on("json") {
        out.json(&json!({ "status": done, "db_path": database }));
        return Ok(());
    }
    out.line(match done.as_str() {
        "reset" => format!("the local state of {shown} is reset: a whole base is written next"),
        "would_reset" => format!("the local state of {shown} would be reset, and a whole base written next"),
        _ => format!("nothing is known of {shown}: there is nothing to reset"),
    });
    Ok(())
}

fn preview(args: &Args, database: &Path) -> Result<String, CliError> {
    let timeout = Duration::from_secs(10);
    let question = Question { method: "GET", target: "/list", body: None, timeout };
    let listed = remote::find(args, Some(database), question, "the process does not answer as it should")?;
    let runs = listed.is_some_and(|reply| {
        let databases = reply.body["databases"].as_array().cloned().unwrap_or_default();
        databases.iter().any(|known: &Value| known["path"].as_str() == database.to_str())
    });
    if runs { Ok("would_reset".to_owned()) } else { in_files(args, database, false) }
}

/// Where the local state of a database is, if no process says it.
fn state_dir(args: &Args, database: &Path) -> Result<PathBuf, CliError> {
    if let Some(directory) = args.path("state-dir") {
        return Ok(directory);
    }
    let config = load_config(args)?.filter(|config| config.database(database).is_some());
    let configured = config.and_then(|config| config.state_home());
    Ok(configured.unwrap_or_else(|| host::default_state_dir(database)))
}

/// Resets every replica of the database that the journal knows; no process may use it meanwhile.
fn in_files(args: &Args, database: &Path, for_real: bool) -> Result<String, CliError> {
    let directory = state_dir(args, database)?;
    // To look is not to make one.
    if !directory.join("journal").exists() {
        return Ok("nothing_to_reset".to_owned());
    }
    let _lock = StateLock::take(&directory).map_err(|exit| {
        CliError::from_exit(exit).err().unwrap_or_else(|| CliError::failed("the state directory is taken"))
    })?;
    let failed = |error: driftless_adapters::fs::FsError| {
        CliError::failed(format!("cannot reset {}", database.display())).cause(error)
    };
    let mut journal = StateJournal::open(RealFs, directory).map_err(failed)?;
    let mut found = false;
    for (_, number) in journal.of_database(database).map_err(failed)? {
        let left = Journal::reset(&journal.load_records(number).map_err(failed)?);
        found |= !left.is_empty();
        if for_real && !left.is_empty() {
            journal.rewrite(number, &left).map_err(failed)?;
        }
    }
    Ok(match (found, for_real) {
        (false, _) => "nothing_to_reset",
        (true, false) => "would_reset",
        (true, true) => "reset",
    }
    .to_owned())
}
