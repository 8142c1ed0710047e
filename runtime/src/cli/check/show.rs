//! The report for people.

use std::fmt::Write as _;

use super::{DatabaseReport, DirectoryReport, ProcessReport, Report};
use crate::cli::output::human_bytes;

/// Lines of `name  value` under headings.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    if let Some(path) = &report.config {
        push(&mut text, "configuration", path);
    }
    for database in &report.databases {
        of_database(&mut text, database);
    }
    for directory in &report.directories {
        of_directory(&mut text, directory);
    }
    of_process(&mut text, &report.process);
    section(&mut text, "warnings", &report.warnings);
    section(&mut text, "problems", &report.problems);
    if report.ok {
        text.push_str("\nok\n");
    }
    text
}

fn of_directory(text: &mut String, directory: &DirectoryReport) {
    let _ = writeln!(text, "\ndirectory {}", directory.dir);
    let below = if directory.recursive { ", and in directories below it" } else { "" };
    push(text, "  databases", &format!("those with the pattern {}{below}", directory.pattern));
    push(
        text,
        "  new ones",
        if directory.watch { "are replicated as they come" } else { "wait for a reload" },
    );
    push(text, "  replicas", &format!("{}/PATH ({})", directory.replica.url, directory.replica.provider));
    if directory.restore_if_db_not_exists {
        push(text, "  restored", "all, at a start that finds none");
    }
}

fn of_database(text: &mut String, database: &DatabaseReport) {
    let _ = writeln!(text, "\ndatabase {}", database.path);
    let size = database.bytes.map(human_bytes).unwrap_or_default();
    let state = match (database.state, database.why.as_deref().unwrap_or_default()) {
        ("ready", _) => match database.wal_bytes {
            Some(wal) => format!("ready: in WAL mode, {size}, and {} in its WAL", human_bytes(wal)),
            None => format!("ready: in WAL mode, {size}"),
        },
        ("waits", why) => format!("waited for: {why}"),
        ("unseen", why) => format!("waited for, with its commits unseen: {why}"),
        (_, why) => format!("refused: {why}"),
    };
    push(text, "  state", &state);
    push_some(text, "  hint", database.hint.as_deref());
    let replica = &database.replica;
    push(text, "  replica", &format!("{} ({})", replica.url, replica.provider));
    push_some(text, "  endpoint", replica.endpoint.as_deref());
    push_some(text, "  region", replica.region.as_deref());
    push_some(text, "  addressing", replica.addressing);
    push_some(text, "  credentials", replica.credentials.as_deref());
    for (name, value) in &replica.options {
        push(text, &format!("  {name}"), value);
    }
    push_some(text, "  connection", replica.connection.as_deref());
    push(text, "  sync interval", &database.sync_interval);
    push(text, "  checkpoints", &format!("from {} pages in the WAL", database.min_checkpoint_page_count));
    if let Some(levels) = &database.levels {
        let verified = if levels.verify { ", each file read back" } else { "" };
        let (each, snapshots) = (levels.intervals.join(", "), &levels.snapshot_interval);
        push(text, "  levels", &format!("every {each}; snapshots every {snapshots}{verified}"));
    }
    if let Some(interval) = &database.validation_interval {
        push(text, "  validation", &format!("of the whole replica, every {interval}"));
    }
    if database.restore_if_db_not_exists {
        push(text, "  at the start", "restored from the replica if it is not there");
    }
}

fn of_process(text: &mut String, process: &ProcessReport) {
    text.push_str("\nprocess\n");
    push_some(text, "  local state", process.state_dir.as_deref());
    push_some(text, "  runs", process.exec.as_deref());
    push_some(text, "  metrics", process.addr.as_deref());
    if let Some(url) = &process.heartbeat_url {
        let every = process.heartbeat_interval.as_ref().map(|every| format!(", every {every}"));
        push(text, "  heartbeat", &format!("{url}{}", every.unwrap_or_default()));
    }
    if let Some(socket) = &process.socket {
        let mut words = if socket.enabled { "on".to_owned() } else { "off".to_owned() };
        for part in [&socket.path, &socket.permissions].into_iter().flatten() {
            words.push_str(&format!(", {part}"));
        }
        push(text, "  socket", &words);
    }
    let (timeout, again) = (&process.shutdown_sync_timeout, &process.shutdown_sync_interval);
    let last = format!("within {timeout}, tried every {again}");
    push(text, "  final sync", &last);
    let stream = process.log_stderr.map(|stderr| if stderr { "standard error" } else { "standard output" });
    let set = [process.log_level.as_deref(), process.log_format.as_deref(), stream];
    let log: Vec<&str> = set.into_iter().flatten().collect();
    push_some(text, "  log", Some(log.join(", ")).filter(|log| !log.is_empty()).as_deref());
}

fn section(text: &mut String, heading: &str, lines: &[String]) {
    if !lines.is_empty() {
        let _ = writeln!(text, "\n{heading}");
        for line in lines {
            let _ = writeln!(text, "  {line}");
        }
    }
}

fn push(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:<17} {value}");
}

fn push_some(text: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        push(text, name, value);
    }
}
