//! `driftless status`.
//!
//! The running process knows best and is asked first, over the socket in its state directory.
//! Where none runs, the files tell what they can: whether the database is there, how far the
//! replica goes, how many committed frames the WAL holds beyond that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use driftless_core::ids::{Level, Txid};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::args::Args;
use super::check::running::faults;
use super::error::CliError;
use super::output::{Out, Table, human_bytes, human_count};
use super::replicate::SOCKET_PATH;
use super::segments::Segments;
use super::watch::{self, Look};
use super::{lag, load_config, need_config, remote, target};
use crate::config::{Config, Replica, absolute};
use crate::control::client;

/// How long a process may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A database, with Litestream's four fields first.
#[derive(Serialize, Debug, Default)]
struct Row {
    database: String,
    status: String,
    local_txid: String,
    wal_size: String,
    wal_bytes: u64,
    replica: Option<String>,
    running: bool,
    phase: String,
    replicated_txid: Option<String>,
    lag_frames: Option<u64>,
    lag_seconds: Option<f64>,
    lineage: Option<String>,
    waiting: Option<String>,
    hint: Option<String>,
    last_error: Option<String>,
    warning: Option<String>,
    /// What the last validation of the replica has found wrong.
    damage: Option<String>,
    store: Option<Store>,
    registered: bool,
    last_sync_at: Option<String>,
}

/// What the start-up probe found out about the store, in the words of the process.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
struct Store {
    create_if_absent: String,
    swap: String,
    remove: String,
}

impl Store {
    fn in_words(&self) -> String {
        format!("create-if-absent {}, swap {}, remove {}", self.create_if_absent, self.swap, self.remove)
    }
}

/// A database to look at, and its replica if that is known.
type Wanted = (PathBuf, Option<Replica>);

/// Shows how far databases are replicated.
pub fn run(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let (wanted, config) = wanted(args)?;
    if args.is_on("watch") {
        return watch::run(args, out, || look(args, &wanted, config.as_ref()));
    }
    if args.os_value("interval").is_some() {
        return Err(CliError::usage("-interval goes with -watch"));
    }
    let processes = ask(args, &wanted, config.as_ref(), "/status")?;
    let mut running = BTreeMap::new();
    for entry in processes.iter().filter_map(|reply| reply["databases"].as_array()).flatten() {
        if let Some(path) = entry["database"].as_str() {
            running.entry(PathBuf::from(path)).or_insert(entry);
        }
    }
    let mut rows = Vec::new();
    for (database, replica) in wanted {
        rows.push(match running.remove(&database) {
            Some(entry) => from_process(&database, entry),
            None => from_files(&database, replica.as_ref())?,
        });
    }
    if args.positionals.is_empty() {
        let all = config.is_none();
        let others = running.iter().filter(|(_, entry)| all || is_extra(entry));
        rows.extend(others.map(|(database, entry)| from_process(database, entry)));
    }
    if args.is_on("json") {
        out.json(&rows);
        return Ok(());
    }
    print(&rows, out);
    processes.iter().for_each(|reply| print_directories(reply, out));
    for error in processes.iter().filter_map(|reply| reply["reload_error"].as_str()) {
        out.line(format_args!("\nthe configuration was read again, and nothing was changed: {error}"));
    }
    Ok(())
}

/// Whether a process may have a database that its configuration does not name now.
fn is_extra(entry: &Value) -> bool {
    entry["registered"] == true || entry["found"] == true
}

/// The directories of a process, and the last databases that were removed from them.
fn print_directories(reply: &Value, out: &mut Out) {
    let list = |name: &str| reply[name].as_array().cloned().unwrap_or_default();
    for directory in list("directories") {
        let text = |name: &str| directory[name].as_str().unwrap_or_default().to_owned();
        let watched = if directory["watch"] == true { "watched" } else { "not watched" };
        out.line(format_args!(
            "\n{} with {}: {} databases, {watched}",
            text("dir"),
            text("pattern"),
            directory["databases"]
        ));
    }
    let removed = list("removed");
    if !removed.is_empty() {
        out.line(format_args!("\nremoved since the start: {}, the last of them:", reply["removed_count"]));
    }
    for departed in removed {
        let text = |name: &str| departed[name].as_str().unwrap_or_default().to_owned();
        out.line(format_args!("  {} at {}; replica: {}", text("database"), text("at"), text("replica")));
    }
}

/// One look of `-watch`: what the processes know, without a look of theirs.
fn look(args: &Args, wanted: &[Wanted], config: Option<&Config>) -> Look {
    let processes = match ask(args, wanted, config, "/status?look=no") {
        Ok(processes) => processes,
        Err(error) => return Look { error: Some(error.to_string()), ..Look::default() },
    };
    let mut running = BTreeMap::new();
    for entry in processes.iter().filter_map(|reply| reply["databases"].as_array()).flatten() {
        running
            .entry(entry["database"].as_str().unwrap_or_default().to_owned())
            .or_insert_with(|| entry.clone());
    }
    let mut look = Look::default();
    for (database, _) in wanted {
        let name = database.display().to_string();
        let absent = || json!({ "database": name, "phase": "not running", "waiting": "no process has it" });
        look.databases.push(running.remove(&name).unwrap_or_else(absent));
    }
    if args.positionals.is_empty() {
        let all = config.is_none();
        look.databases.extend(running.into_values().filter(|entry| all || is_extra(entry)));
    }
    look.processes = processes.iter().map(|reply| format!("process {}", reply["pid"])).collect();
    if processes.is_empty() {
        look.processes.push("no process answers".to_owned());
    }
    look
}

/// The databases of an invocation, and the configuration unless it does without.
fn wanted(args: &Args) -> Result<(Vec<Wanted>, Option<Config>), CliError> {
    match args.positionals.as_slice() {
        [] if is_named(args) && args.os_value("config").is_none() => Ok((Vec::new(), None)),
        [] => {
            let config = need_config(args)?;
            let all = target::all_databases(&config)?;
            Ok((all.into_iter().map(|db| (db.path, Some(db.replica))).collect(), Some(config)))
        }
        [database] => {
            let config = load_config(args)?;
            if let Some(known) = config.as_ref().and_then(|config| config.database(Path::new(database))) {
                return Ok((vec![(known.path, Some(known.replica))], config));
            }
            let path = absolute(Path::new(database))
                .map_err(|error| CliError::usage("cannot tell where the database is").cause(error))?;
            Ok((vec![(path, None)], config))
        }
        [database, replica, ..] => {
            let (database, replica) = target::pair(database, replica)?;
            Ok((vec![(database, Some(replica))], None))
        }
    }
}

/// Whether the flags say which process to ask.
fn is_named(args: &Args) -> bool {
    args.os_value("socket").is_some() || args.os_value("state-dir").is_some()
}

/// What the processes say that may have these databases.
fn ask(
    args: &Args,
    wanted: &[Wanted],
    config: Option<&Config>,
    target: &str,
) -> Result<Vec<Value>, CliError> {
    let mut sockets = remote::sockets(args, config, None)?;
    for (database, _) in wanted {
        sockets.extend(remote::sockets(args, config, Some(database))?);
    }
    let mut seen = BTreeSet::new();
    sockets.retain(|socket| seen.insert(socket.clone()));
    let mut replies = Vec::new();
    for socket in &sockets {
        match client::ask(socket, "GET", target, None, TIMEOUT) {
            Ok(answer) if answer.status == 200 => replies.push(answer.body),
            // Litestream has no such path: it is not the one that we ask for.
            Ok(_) => {}
            Err(error) if client::is_absent(&error) => {}
            // Nobody has said that the process there is ours.
            Err(_) if !is_named(args) && socket.as_os_str() == SOCKET_PATH => {}
            Err(error) => {
                let what = format!("the process at {} does not answer", socket.display());
                return Err(CliError::failed(what).cause(error));
            }
        }
    }
    if replies.is_empty() && wanted.is_empty() && config.is_none() {
        return Err(remote::nobody(args, None));
    }
    Ok(replies)
}

fn from_process(database: &Path, entry: &Value) -> Row {
    let text = |name: &str| entry[name].as_str().map(str::to_owned);
    let (waiting, last_error, replicated) = (text("waiting"), text("last_error"), text("replicated_txid"));
    let damage = faults(&entry["validation"]);
    let ended = entry["ended"].as_bool() == Some(true);
    let stopped = entry["phase"] == "stopped";
    let mut row = row_of(database);
    row.running = !ended;
    row.phase = text("phase").unwrap_or_else(|| "starting".to_owned());
    if row.status == "ok" {
        let trouble = ended || waiting.is_some() || last_error.is_some() || damage.is_some();
        row.status = match (trouble, &replicated) {
            _ if stopped => "stopped",
            (true, _) => "error",
            (false, None) => "not initialized",
            (false, Some(_)) => "ok",
        }
        .to_owned();
    }
    row.local_txid = replicated.clone().unwrap_or_else(|| "-".to_owned());
    row.replica = text("replica");
    row.replicated_txid = replicated;
    let unseen = entry["commits_unseen"].as_bool().unwrap_or(false);
    row.lag_frames = entry["lag_frames"].as_u64().filter(|_| !unseen);
    row.lag_seconds = entry["lag_seconds"].as_f64().filter(|_| !unseen);
    row.lineage = text("lineage");
    (row.waiting, row.hint, row.last_error) = (waiting, text("hint"), last_error);
    row.warning = text("warning");
    row.damage = damage;
    row.store = Store::deserialize(&entry["store"]).ok().filter(|store| store.create_if_absent != "unknown");
    row.registered = entry["registered"] == true;
    row.last_sync_at = text("last_sync_at");
    row
}

fn from_files(database: &Path, replica: Option<&Replica>) -> Result<Row, CliError> {
    let mut row = row_of(database);
    row.phase = "not running".to_owned();
    let head = match replica {
        Some(replica) => {
            row.replica = Some(replica.place());
            head(&Segments::new(replica))?
        }
        None => {
            row.hint = Some("give the replica as well to see how far it goes, or name a -config".to_owned());
            None
        }
    };
    if let Some(head) = &head {
        row.replicated_txid = Some(head.txid.to_string());
        row.local_txid = head.txid.to_string();
        row.lineage =
            head.header.as_ref().and_then(|header| header.lineage).map(|lineage| lineage.to_string());
        row.lag_frames = lag::frames_behind(&wal_of(database), head.header.as_ref());
    } else if row.status == "ok" {
        row.status = "not initialized".to_owned();
    }
    Ok(row)
}

/// What the files of the database alone tell.
fn row_of(database: &Path) -> Row {
    let wal_bytes = wal_of(database).metadata().map_or(0, |facts| facts.len());
    Row {
        database: database.display().to_string(),
        status: if database.exists() { "ok" } else { "no database" }.to_owned(),
        local_txid: "-".to_owned(),
        wal_size: human_bytes(wal_bytes),
        wal_bytes,
        ..Row::default()
    }
}

fn wal_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// The end of a replica.
struct Head {
    txid: Txid,
    header: Option<driftless_core::ltx::LtxHeader>,
}

/// The highest transaction that any segment holds, with the header of the capture it came by.
fn head(segments: &Segments) -> Result<Option<Head>, CliError> {
    let mut newest = None;
    for level in Level::all() {
        if let Some(last) = segments.list(level)?.into_iter().max_by_key(|segment| segment.range.max()) {
            // Levels come in ascending order, and a capture says more than what was made of it.
            if newest.as_ref().is_none_or(|(txid, _)| last.range.max() > *txid) {
                newest = Some((last.range.max(), last));
            }
        }
    }
    Ok(newest.map(|(txid, segment)| Head { txid, header: segments.header(segment.level, segment.range) }))
}

fn print(rows: &[Row], out: &mut Out) {
    let headings = ["database", "status", "local txid", "wal size", "replicated txid", "lag", "phase"];
    let mut table = Table::new(headings);
    for row in rows {
        let lag = match (row.lag_frames, row.lag_seconds) {
            (None, _) => "unknown".to_owned(),
            (Some(0), _) => "none".to_owned(),
            (Some(frames), Some(seconds)) => format!("{} frames, {seconds:.1} s", human_count(frames)),
            (Some(frames), None) => format!("{} frames", human_count(frames)),
        };
        table.row(vec![
            row.database.clone(),
            row.status.clone(),
            row.local_txid.clone(),
            row.wal_size.clone(),
            row.replicated_txid.clone().unwrap_or_else(|| "-".to_owned()),
            lag,
            row.phase.clone(),
        ]);
    }
    out.table(&table);
    for row in rows {
        let facts = [
            ("waiting", &row.waiting),
            ("last error", &row.last_error),
            ("hint", &row.hint),
            ("warning", &row.warning),
            ("damage", &row.damage),
            ("store", &row.store.as_ref().map(Store::in_words)),
        ];
        let said: Vec<String> =
            facts.iter().filter_map(|(name, fact)| Some(format!("  {name}: {}", fact.as_ref()?))).collect();
        if !said.is_empty() {
            out.line(format_args!("\n{}\n{}", row.database, said.join("\n")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_is_believed() {
        let here = std::env::current_exe().unwrap();
        let entry = json!({
            "database": here, "replica": "/r", "ended": false, "phase": "following",
            "replicated_txid": "000000000000000a", "lag_frames": 3, "lag_seconds": 0.25,
            "lineage": "1f", "waiting": null, "hint": null, "last_error": null,
        });
        let row = from_process(&here, &entry);
        assert_eq!((row.status.as_str(), row.local_txid.as_str()), ("ok", "000000000000000a"));
        assert_eq!((row.lag_frames, row.lag_seconds, row.running), (Some(3), Some(0.25), true));
        let mut entry = entry;
        entry["validation"] = json!({ "faults": ["0/1: gone"], "faults_count": 1 });
        let row = from_process(&here, &entry);
        assert_eq!((row.status.as_str(), row.damage.as_deref()), ("error", Some("0/1: gone")));
        entry["validation"] = json!(null);
        entry["waiting"] = json!("not in wal mode");
        assert_eq!(from_process(&here, &entry).status, "error");
        (entry["waiting"], entry["replicated_txid"]) = (json!(null), json!(null));
        assert_eq!(from_process(&here, &entry).status, "not initialized");
        (entry["ended"], entry["phase"]) = (json!(true), json!("stopped"));
        let row = from_process(&here, &entry);
        assert_eq!((row.status.as_str(), row.phase.as_str(), row.running), ("stopped", "stopped", false));
        assert_eq!(from_process(Path::new("/nowhere/a.db"), &entry).status, "no database");
    }

    #[test]
    fn litestreams_fields_come_first_and_keep_their_form() {
        let text = serde_json::to_string(&row_of(Path::new("/nowhere/a.db"))).unwrap();
        let expected =
            r#"{"database":"/nowhere/a.db","status":"no database","local_txid":"-","wal_size":"0 B","#;
        assert!(text.starts_with(expected), "{text}");
    }
}
