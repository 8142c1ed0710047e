//! From the tree to the settings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use driftless_core::engine;

use super::keys::{self, Key, Use};
use super::yaml::{Entry, LineError, Node, Value};
use super::{Config, Database, Logging, Replica, ReplicaError, Socket, absolute, duration};
use crate::cli::suggest::nearest;

/// Litestream's bound as well: a heartbeat is for a service that counts in minutes.
const HEARTBEAT_INTERVAL_MIN: Duration = Duration::from_secs(60);
const SHUTDOWN_SYNC_INTERVAL_MIN: Duration = Duration::from_millis(1);

type Result<T> = std::result::Result<T, LineError>;

/// Reads the whole file.
pub(super) fn config(root: &Node, warnings: Vec<String>) -> Result<Config> {
    let mut config = Config { warnings, ..Config::default() };
    let top =
        Scope::new(root, "the configuration", &[keys::TOP, keys::REPLICA_SHARED], &mut config.warnings)?;
    let mut defaults = engine::Config::default();
    top.engine_settings(&mut defaults)?;
    if let Some(interval) = top.duration_from("shutdown-sync-interval", SHUTDOWN_SYNC_INTERVAL_MIN)? {
        defaults.shutdown_sync_interval = interval;
    }
    config.engine = defaults.clone();
    config.shutdown_sync_timeout = top.duration("shutdown-sync-timeout")?;
    config.state_dir = top.path("state-dir")?;
    config.exec = top.filled("exec")?.map(str::to_owned);
    config.addr = top.filled("addr")?.map(str::to_owned);
    config.heartbeat_url = heartbeat_url(&top)?;
    config.heartbeat_interval = top.duration_from("heartbeat-interval", HEARTBEAT_INTERVAL_MIN)?;
    if let Some(entry) = top.entry("socket") {
        config.socket = socket(&entry.value, &mut config.warnings)?;
    }
    if let Some(entry) = top.entry("logging") {
        config.logging = logging(&entry.value, &mut config.warnings)?;
    }
    if let Some(entry) = top.entry("dbs") {
        for node in list(&entry.value, "dbs")? {
            let (database, state_dir) = database(node, &defaults, &mut config.warnings)?;
            refuse_twins(&config.databases, &database, node.line)?;
            config.databases.push(database);
            take_state_dir(&mut config, state_dir);
        }
    }
    Ok(config)
}

fn logging(node: &Node, warnings: &mut Vec<String>) -> Result<Logging> {
    let scope = Scope::new(node, "logging", &[keys::LOGGING], warnings)?;
    let format = scope.text("format")?.or(scope.text("type")?);
    Ok(Logging {
        level: scope.text("level")?.map(str::to_owned),
        format: format.map(str::to_owned),
        stderr: scope.boolean("stderr")?,
    })
}

fn socket(node: &Node, warnings: &mut Vec<String>) -> Result<Socket> {
    let scope = Scope::new(node, "socket", &[keys::SOCKET], warnings)?;
    let permissions = match scope.entry("permissions") {
        None => None,
        Some(entry) => Some(permission_bits(text(&entry.value, "permissions")?).ok_or_else(|| {
            LineError::new(entry.line, "permissions are three octal digits").hint("write 0600")
        })?),
    };
    Ok(Socket { enabled: scope.boolean("enabled")?, path: scope.path("path")?, permissions })
}

/// Permission bits as YAML's readers take them, all of them octal.
fn permission_bits(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    u32::from_str_radix(digits, 8).ok().filter(|bits| *bits <= 0o777)
}

fn heartbeat_url(top: &Scope<'_>) -> Result<Option<String>> {
    let Some(url) = top.filled("heartbeat-url")? else { return Ok(None) };
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) {
        let line = top.entry("heartbeat-url").map_or(0, |entry| entry.line);
        return Err(LineError::new(line, "heartbeat-url is an http or https url")
            .hint("write heartbeat-url: https://host/path"));
    }
    Ok(Some(url.to_owned()))
}

/// A database, and the state directory it asks for.
fn database(
    node: &Node,
    defaults: &engine::Config,
    warnings: &mut Vec<String>,
) -> Result<(Database, Option<PathBuf>)> {
    let scope = Scope::new(node, "a database", &[keys::DATABASE], warnings)?;
    let Some(path) = scope.path("path")? else {
        return Err(LineError::new(node.line, "a database has no path").hint("give path: /srv/app.db"));
    };
    let mut engine = defaults.clone();
    scope.engine_settings(&mut engine)?;
    let state_dir = scope.path("state-dir")?.or(scope.path("meta-path")?);
    let named = || format!("the database {}", path.display());
    let replica = match (scope.entry("replica"), scope.entry("replicas"), scope.entry("url")) {
        (Some(entry), None, None) => replica(&entry.value, &mut engine, warnings)?,
        (None, Some(entry), None) => match list(&entry.value, "replicas")? {
            [node] => replica(node, &mut engine, warnings)?,
            [] => return Err(LineError::new(entry.line, format!("{} has no replica", named()))),
            [_, second, ..] => {
                return Err(LineError::new(second.line, format!("{} has a second replica", named()))
                    .hint("a database has one replica, as in litestream 0.5"));
            }
        },
        (None, None, Some(entry)) => {
            Replica::parse(text(&entry.value, "url")?).map_err(|error| at(entry.line, error))?
        }
        (None, None, None) => {
            return Err(LineError::new(node.line, format!("{} has no replica", named()))
                .hint("give replica: with url: file:///backup/app"));
        }
        _ => {
            return Err(LineError::new(
                node.line,
                format!("{} has several of replica, replicas and url", named()),
            )
            .hint("keep one of them"));
        }
    };
    let restore_if_db_not_exists = scope.boolean("restore-if-db-not-exists")?.unwrap_or(false);
    Ok((Database { path, replica, engine, restore_if_db_not_exists }, state_dir))
}

fn replica(node: &Node, engine: &mut engine::Config, warnings: &mut Vec<String>) -> Result<Replica> {
    if let Value::Text(text) = &node.value {
        return Replica::parse(text).map_err(|error| at(node.line, error));
    }
    let scope = Scope::new(node, "a replica", &[keys::REPLICA, keys::REPLICA_SHARED], warnings)?;
    scope.engine_settings(engine)?;
    let (url, path) = (scope.text("url")?, scope.text("path")?);
    let kind = scope.text("type")?.unwrap_or("file");
    if kind != "file" {
        // The words for a kind are those for a scheme.
        Replica::parse(&format!("{kind}://…")).map_err(|error| at(node.line, error))?;
    }
    match (url, path) {
        (Some(_), Some(_)) => {
            Err(LineError::new(node.line, "a replica has both url and path").hint("keep one of them"))
        }
        (Some(url), None) => Replica::parse(url).map_err(|error| at(node.line, error)),
        (None, Some(path)) if super::looks_like_url(path) => {
            Err(LineError::new(node.line, "a replica's path is a url").hint(format!("write url: {path}")))
        }
        (None, Some(path)) => Replica::from_path(Path::new(path)).map_err(|error| at(node.line, error)),
        (None, None) => Err(LineError::new(node.line, "a replica has neither url nor path")
            .hint("give url: file:///backup/app")),
    }
}

fn at(line: usize, error: ReplicaError) -> LineError {
    LineError::new(line, error.error).hint(error.hint)
}

/// Two databases on one replica would overwrite each other's history, and a database that stands
/// twice would be followed by two engines of one process, which POSIX locks do not tell apart.
fn refuse_twins(known: &[Database], new: &Database, line: usize) -> Result<()> {
    for old in known {
        if old.path == new.path {
            return Err(LineError::new(line, format!("{} stands twice under dbs", new.path.display())));
        }
        if old.replica == new.replica {
            let (new, old, replica) = (new.path.display(), old.path.display(), new.replica.url());
            return Err(LineError::new(line, format!("{new} has the replica of {old}: {replica}"))
                .hint("give each database a replica of its own"));
        }
    }
    Ok(())
}

/// A process has one state directory; Litestream has one for each database.
fn take_state_dir(config: &mut Config, wanted: Option<PathBuf>) {
    match (&config.state_dir, wanted) {
        (Some(taken), Some(other)) if *taken != other => config.warnings.push(format!(
            "local records are kept in {} for all databases, and {} is not used",
            taken.display(),
            other.display()
        )),
        (None, Some(wanted)) => config.state_dir = Some(wanted),
        _ => {}
    }
}

fn list<'a>(node: &'a Node, name: &str) -> Result<&'a [Node]> {
    match &node.value {
        Value::List(items) => Ok(items),
        Value::Null => Ok(&[]),
        _ => {
            Err(LineError::new(node.line, format!("{name} takes a list")).hint("begin each item with a dash"))
        }
    }
}

fn text<'a>(node: &'a Node, name: &str) -> Result<&'a str> {
    match &node.value {
        Value::Text(text) => Ok(text),
        _ => Err(LineError::new(node.line, format!("{name} takes text"))),
    }
}

/// The keys of one mapping, all of them known.
struct Scope<'a> {
    entries: &'a [Entry],
}

impl<'a> Scope<'a> {
    /// Checks the keys of `node`, and tells of those without effect.
    fn new(node: &'a Node, what: &str, known: &[&[Key]], warnings: &mut Vec<String>) -> Result<Scope<'a>> {
        let entries: &[Entry] = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            _ => return Err(LineError::new(node.line, format!("{what} takes keys with values"))),
        };
        for entry in entries {
            let known = || known.iter().copied().flatten();
            let (key, line) = (&entry.key, entry.line);
            match known().find(|known| known.name == key).map(|known| known.used) {
                Some(Use::Used) => {}
                Some(Use::Idle) => warnings.push(format!("line {line}: {key} has no effect in this release")),
                Some(Use::Unsafe(_)) if is_off(&entry.value) => {}
                Some(Use::Unsafe(hint)) => {
                    return Err(LineError::new(line, format!("{key} is not in this release")).hint(hint));
                }
                None => {
                    let error = LineError::new(line, format!("{what} has no key {key:?}"));
                    return Err(match nearest(key, known().map(|known| known.name)) {
                        Some(near) => error.hint(format!("did you mean {near:?}?")),
                        None => error,
                    });
                }
            }
        }
        Ok(Scope { entries })
    }

    /// Settings that may stand at every level.
    fn engine_settings(&self, engine: &mut engine::Config) -> Result<()> {
        if let Some(interval) = self.duration("sync-interval")? {
            if interval < Duration::from_millis(10) {
                let line = self.entry("sync-interval").map_or(0, |entry| entry.line);
                return Err(LineError::new(line, "sync-interval is at least 10ms"));
            }
            engine.sync_interval = interval;
        }
        if let Some(entry) = self.entry("min-checkpoint-page-count") {
            let count =
                text(&entry.value, &entry.key)?.parse().ok().filter(|count| (1..=1 << 24).contains(count));
            engine.min_checkpoint_pages = count.ok_or_else(|| {
                LineError::new(entry.line, "min-checkpoint-page-count is a number from 1 to 16777216")
            })?;
        }
        Ok(())
    }

    /// An entry that is there and not null.
    fn entry(&self, name: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|entry| entry.key == name && entry.value.value != Value::Null)
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.entry(name).map(|entry| text(&entry.value, name)).transpose()
    }

    /// Text that says something: empty text is as good as none.
    fn filled(&self, name: &str) -> Result<Option<&'a str>> {
        Ok(self.text(name)?.filter(|text| !text.is_empty()))
    }

    fn path(&self, name: &str) -> Result<Option<PathBuf>> {
        let Some(entry) = self.entry(name) else { return Ok(None) };
        let path = text(&entry.value, name)?;
        if path.is_empty() {
            return Err(LineError::new(entry.line, format!("{name} is empty")));
        }
        let unknown = |error| LineError::new(entry.line, format!("cannot tell where {path} is: {error}"));
        absolute(Path::new(path)).map(Some).map_err(unknown)
    }

    fn duration(&self, name: &str) -> Result<Option<Duration>> {
        let Some(entry) = self.entry(name) else { return Ok(None) };
        let wrong = |error| LineError::new(entry.line, format!("{name}: {error}"));
        duration::parse(text(&entry.value, name)?).map(Some).map_err(wrong)
    }

    fn duration_from(&self, name: &str, least: Duration) -> Result<Option<Duration>> {
        match self.duration(name)? {
            Some(duration) if duration < least => {
                let line = self.entry(name).map_or(0, |entry| entry.line);
                Err(LineError::new(line, format!("{name} is at least {}", duration::show(least))))
            }
            duration => Ok(duration),
        }
    }

    fn boolean(&self, name: &str) -> Result<Option<bool>> {
        let Some(entry) = self.entry(name) else { return Ok(None) };
        match text(&entry.value, name)?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Ok(Some(true)),
            "false" | "no" | "off" => Ok(Some(false)),
            _ => Err(LineError::new(entry.line, format!("{name} takes true or false"))),
        }
    }
}

/// Whether a value asks for nothing.
fn is_off(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Text(text) => matches!(text.as_str(), "" | "false" | "no" | "off"),
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.iter().all(|entry| is_off(&entry.value)),
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
