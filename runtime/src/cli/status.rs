//! `driftless status`.
//!
//! The running process knows best and is asked first, over the socket in its state directory.
//! Where none runs, the files tell what they can: whether the database is there, how far the
//! replica goes, how many committed frames the WAL holds beyond that.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use driftless_core::ids::{Level, Txid};
use serde::Serialize;
use serde_json::Value;

use super::args::Args;
use super::error::CliError;
use super::output::{Out, Table, human_bytes, human_count};
use super::segments::Segments;
use super::{lag, load_config, need_config, target};
use crate::config::{Config, Replica, absolute};
use crate::host;

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
    /// What the start-up probe found out about the store; null while no process has asked it.
    store: Option<Value>,
}

/// A database to look at, and its replica if that is known.
type Wanted = (PathBuf, Option<Replica>);

/// Shows how far databases are replicated.
pub fn run(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let (wanted, config) = wanted(args)?;
    let mut running = BTreeMap::new();
    for directory in state_dirs(args, &wanted, config.as_ref()) {
        let reply = host::query_status(&directory).map_err(|error| {
            CliError::failed(format!("the process that uses {} does not answer", directory.display()))
                .cause(error)
        })?;
        for entry in reply.as_ref().and_then(|reply| reply["databases"].as_array()).into_iter().flatten() {
            if let Some(path) = entry["database"].as_str() {
                running.entry(PathBuf::from(path)).or_insert_with(|| entry.clone());
            }
        }
    }
    let mut rows = Vec::new();
    for (database, replica) in wanted {
        rows.push(match running.get(&database) {
            Some(entry) => from_process(&database, entry),
            None => from_files(&database, replica.as_ref())?,
        });
    }
    if args.is_on("json") {
        out.json(&rows);
    } else {
        print(&rows, out);
    }
    Ok(())
}

fn wanted(args: &Args) -> Result<(Vec<Wanted>, Option<Config>), CliError> {
    match args.positionals.as_slice() {
        [] => {
            let config = need_config(args)?;
            let all = config.databases.iter().map(|db| (db.path.clone(), Some(db.replica.clone()))).collect();
            Ok((all, Some(config)))
        }
        [database] => {
            let config = load_config(args)?;
            if let Some(known) = config.as_ref().and_then(|config| config.database(Path::new(database))) {
                return Ok((vec![(known.path.clone(), Some(known.replica.clone()))], config));
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

/// Where a process that replicates these databases may have its socket.
fn state_dirs(args: &Args, wanted: &[Wanted], config: Option<&Config>) -> Vec<PathBuf> {
    if let Some(path) = args.path("state-dir") {
        return vec![path];
    }
    let named = config.and_then(|config| config.state_dir.clone());
    let first =
        config.and_then(|config| config.databases.first()).map(|first| host::default_state_dir(&first.path));
    let own = wanted.iter().map(|(database, _)| host::default_state_dir(database));
    let mut directories: Vec<PathBuf> = named.into_iter().chain(first).chain(own).collect();
    let mut seen = std::collections::BTreeSet::new();
    directories.retain(|directory| seen.insert(directory.clone()));
    directories
}

fn from_process(database: &Path, entry: &Value) -> Row {
    let text = |name: &str| entry[name].as_str().map(str::to_owned);
    let (waiting, last_error, replicated) = (text("waiting"), text("last_error"), text("replicated_txid"));
    let ended = entry["ended"].as_bool() == Some(true);
    let mut row = row_of(database);
    row.running = !ended;
    row.phase =
        if ended { "ended".to_owned() } else { text("phase").unwrap_or_else(|| "starting".to_owned()) };
    if row.status == "ok" {
        let trouble = ended || waiting.is_some() || last_error.is_some();
        row.status = match (trouble, &replicated) {
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
    row.store = entry.get("store").filter(|store| store.is_object()).cloned();
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
        let store = row.store.as_ref().and_then(store_in_words);
        let facts = [
            ("store", &store),
            ("waiting", &row.waiting),
            ("last error", &row.last_error),
            ("hint", &row.hint),
            ("warning", &row.warning),
        ];
        let said: Vec<String> =
            facts.iter().filter_map(|(name, fact)| Some(format!("  {name}: {}", fact.as_ref()?))).collect();
        if !said.is_empty() {
            out.line(format_args!("\n{}\n{}", row.database, said.join("\n")));
        }
    }
}

/// What a person should know of a store: the promises that it does not keep.
fn store_in_words(store: &Value) -> Option<String> {
    let promises =
        [("create_if_absent", "create-if-absent"), ("swap", "compare-and-swap"), ("remove", "deletes")];
    let broken: Vec<String> = promises
        .iter()
        .filter_map(|(name, promise)| match store[*name].as_str() {
            Some(word @ ("ignored" | "unsupported" | "denied")) => Some(format!("{promise} {word}")),
            _ => None,
        })
        .collect();
    (!broken.is_empty()).then(|| broken.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn promises_that_a_store_does_not_keep_are_told() {
        let words = |create: &str, swap: &str, remove: &str| {
            store_in_words(&json!({ "create_if_absent": create, "swap": swap, "remove": remove }))
        };
        assert_eq!(words("holds", "unknown", "holds"), None);
        assert_eq!(
            words("ignored", "unsupported", "denied").as_deref(),
            Some("create-if-absent ignored, compare-and-swap unsupported, deletes denied")
        );
    }

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
        entry["waiting"] = json!("not in wal mode");
        assert_eq!(from_process(&here, &entry).status, "error");
        (entry["waiting"], entry["replicated_txid"]) = (json!(null), json!(null));
        assert_eq!(from_process(&here, &entry).status, "not initialized");
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
