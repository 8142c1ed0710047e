//! From the tree to the settings.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use driftless_core::compact::CompactConfig;
use driftless_core::engine::{self, Compression};
use driftless_core::ltx::{ZSTD_LEVEL, ZSTD_LEVELS};

use super::directory::{self, Place};
use super::expand::Lookup;
use super::replica::options::{self, Options, Origin};
use super::replica::{Described, ReplicaError, describe_keys, describe_url};
use super::scope::{Result, Scope, list, text};
use super::yaml::{Entry, LineError, Node, Value};
use super::{Config, Database, Logging, Replica, Settings, Socket};
use super::{keys, lease};
use crate::discover::Directory;

/// Litestream's bound as well: a heartbeat is for a service that counts in minutes.
const HEARTBEAT_INTERVAL_MIN: Duration = Duration::from_secs(60);
const SHUTDOWN_SYNC_INTERVAL_MIN: Duration = Duration::from_millis(1);
const SYNC_INTERVAL_MIN: Duration = Duration::from_millis(10);
const LEVEL_INTERVAL_MIN: Duration = Duration::from_secs(1);
const VALIDATION_INTERVAL_MIN: Duration = Duration::from_secs(1);
const RETENTION_MIN: Duration = Duration::from_secs(1);
/// Level 0 holds segments as they are captured, and level 9 snapshots.
const LEVELS_MAX: usize = 8;

/// What holds for all databases unless they say otherwise.
pub(super) struct Defaults<'a> {
    settings: Settings,
    /// Whether nothing is deleted, whatever a database says.
    keeps_all: bool,
    /// Options for all replicas.
    shared: Vec<&'a Entry>,
    pub(super) env: Lookup<'a>,
}

impl Defaults<'_> {
    /// The options of a replica that has none of its own.
    pub(super) fn options(&self) -> Result<Options> {
        options_of(self, None).map(|(_, options)| options)
    }
}

/// Reads the whole file. `env` is the environment.
pub(super) fn config(root: &Node, warnings: Vec<String>, env: Lookup<'_>) -> Result<Config> {
    let mut config = Config { warnings, ..Config::default() };
    let known = [keys::TOP, keys::REPLICA_SHARED];
    let top = Scope::new(root, "the configuration", &known, true, &mut config.warnings)?;
    let mut defaults =
        Defaults { settings: Settings::default(), keeps_all: false, shared: top.options().collect(), env };
    engine_settings(&top, &mut defaults.settings.engine)?;
    if let Some(interval) = top.duration_from("shutdown-sync-interval", SHUTDOWN_SYNC_INTERVAL_MIN)? {
        defaults.settings.engine.shutdown_sync_interval = interval;
    }
    upkeep(&top, &mut defaults, &mut config.warnings)?;
    config.settings = defaults.settings.clone();
    config.shutdown_sync_timeout = top.duration("shutdown-sync-timeout")?;
    config.state_dir = top.path("state-dir")?;
    if let Some(entry) = top.entry("max-hot") {
        let count = text(&entry.value, "max-hot")?.parse().ok().filter(|count| (1..=1 << 20).contains(count));
        let wrong = || LineError::new(entry.line, "max-hot is a number from 1 to 1048576");
        config.max_hot = Some(count.ok_or_else(wrong)?);
    }
    config.exec = top.filled("exec")?.map(str::to_owned);
    config.addr = addr(&top)?;
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
            let (item, state_dir) = item(node, &defaults, &mut config.warnings)?;
            match item {
                Item::Database(database) => {
                    refuse_twins(&config.databases, &database, node.line)?;
                    config.databases.push(database);
                }
                Item::Directory(directory) => {
                    directory::refuse_overlap(&config.directories, &directory, node.line)?;
                    config.directories.push(directory);
                }
            }
            take_state_dir(&mut config, state_dir);
        }
    }
    if let Some(entry) = top.entry("lease") {
        let mut told = Vec::new();
        let lease = lease::lease(entry, &defaults, &config, &mut told)?;
        let named = config.databases.iter_mut().map(|database| &mut database.settings);
        let found = config.directories.iter_mut().map(|directory| &mut directory.settings);
        for settings in named.chain(found) {
            let levels = Arc::make_mut(settings).levels.as_mut();
            if let Some(retention) = levels.and_then(|levels| levels.retention.as_mut()) {
                retention.fence_retention = lease.fence_retention;
            }
        }
        config.lease = Some(lease);
        config.warnings.append(&mut told);
    }
    refuse_useless(&defaults.shared, &config)?;
    Ok(config)
}

/// What is done to replicas besides writing to them: levels, retention, validation.
fn upkeep(top: &Scope<'_>, defaults: &mut Defaults<'_>, warnings: &mut Vec<String>) -> Result<()> {
    defaults.settings.levels = levels(top, None, warnings)?;
    if let Some(time) = top.duration_from("l0-retention", RETENTION_MIN)? {
        let levels = defaults.settings.levels.get_or_insert_default();
        levels.retention.get_or_insert_default().l0_retention = time;
    }
    if let Some(entry) = top.entry("retention") {
        let retention = Scope::new(&entry.value, "retention", &[keys::RETENTION], false, warnings)?;
        match retention.boolean("enabled")? {
            Some(true) => drop(defaults.settings.levels.get_or_insert_default()),
            Some(false) => defaults.keeps_all = true,
            None => {}
        }
    }
    if let Some(levels) = defaults.settings.levels.as_mut().filter(|_| defaults.keeps_all) {
        levels.retention = None;
    }
    validation_interval(top, "validation-interval", &mut defaults.settings.validation)?;
    if let Some(entry) = top.entry("validation") {
        let scope = Scope::new(&entry.value, "validation", &[keys::VALIDATION], false, warnings)?;
        validation_interval(&scope, "interval", &mut defaults.settings.validation)?;
    }
    Ok(())
}

/// An option for all replicas must have a use for one of them: whoever wrote it expects that.
fn refuse_useless(shared: &[&Entry], config: &Config) -> Result<()> {
    let replicas = || {
        let of_directories = config.directories.iter().map(|directory| &directory.replica);
        config.databases.iter().map(|database| &database.replica).chain(of_directories)
    };
    let takes = |entry: &Entry, replica: &Replica| {
        let name = options::find(&entry.key).expect("only options are among them");
        name.kinds.iter().any(|kind| kind.name() == replica.kind())
    };
    let useless = shared.iter().find(|entry| !replicas().any(|replica| takes(entry, replica)));
    let Some(entry) = useless.filter(|_| replicas().next().is_some()) else { return Ok(()) };
    let name = options::find(&entry.key).expect("only options are among them");
    let of: Vec<&str> = name.kinds.iter().map(|kind| kind.name()).collect();
    Err(LineError::new(entry.line, format!("{} has no effect: no replica of the file takes it", entry.key))
        .hint(format!("leave it out: replicas of type {} take it", of.join(", "))))
}

fn logging(node: &Node, warnings: &mut Vec<String>) -> Result<Logging> {
    let scope = Scope::new(node, "logging", &[keys::LOGGING], false, warnings)?;
    let format = scope.text("format")?.or(scope.text("type")?);
    Ok(Logging {
        level: scope.text("level")?.map(str::to_owned),
        format: format.map(str::to_owned),
        stderr: scope.boolean("stderr")?,
    })
}

fn socket(node: &Node, warnings: &mut Vec<String>) -> Result<Socket> {
    let scope = Scope::new(node, "socket", &[keys::SOCKET], false, warnings)?;
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

fn addr(top: &Scope<'_>) -> Result<Option<String>> {
    let Some(addr) = top.filled("addr")? else { return Ok(None) };
    if addr.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        let line = top.entry("addr").map_or(0, |entry| entry.line);
        return Err(LineError::new(line, format!("addr is {addr:?}, without a port"))
            .hint("write addr: ':9090' or addr: 127.0.0.1:9090"));
    }
    Ok(Some(addr.to_owned()))
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

/// What an entry under `dbs` is about.
enum Item {
    Database(Database),
    Directory(Directory),
}

/// A database or a directory of them, and the state directory it asks for.
fn item(node: &Node, defaults: &Defaults<'_>, warnings: &mut Vec<String>) -> Result<(Item, Option<PathBuf>)> {
    let scope = Scope::new(node, "a database", &[keys::DATABASE], false, warnings)?;
    let place = directory::place(node, &scope)?;
    let mut settings = defaults.settings.clone();
    engine_settings(&scope, &mut settings.engine)?;
    settings.levels = levels(&scope, settings.levels, warnings)?;
    if let Some(levels) = settings.levels.as_mut().filter(|_| defaults.keeps_all) {
        levels.retention = None;
    }
    let state_dir = scope.path("state-dir")?.or(scope.path("meta-path")?).or(scope.path("meta-dir")?);
    let restore = scope.boolean("restore-if-db-not-exists")?.unwrap_or(false);
    let described = replica_of(node, &scope, &place, &mut settings, defaults, warnings)?;
    let (Described { replica, about }, settings) = (described, settings.into());
    warnings.extend(about.warnings.iter().map(|warning| format!("{}: {warning}", place.path().display())));
    let item = match place {
        Place::File(path) => {
            Item::Database(Database { path, replica, about, settings, restore_if_db_not_exists: restore })
        }
        Place::Directory { root, pattern, recursive, watch } => Item::Directory(Directory {
            root,
            pattern,
            recursive,
            watch,
            replica,
            about,
            settings,
            restore_if_missing: restore,
        }),
    };
    Ok((item, state_dir))
}

/// The replica of an entry, in any of its forms.
fn replica_of(
    node: &Node,
    scope: &Scope<'_>,
    place: &Place,
    settings: &mut Settings,
    defaults: &Defaults<'_>,
    warnings: &mut Vec<String>,
) -> Result<Described> {
    let many = place.holds_many();
    let of_text = |text: &str, line: usize| {
        let (_, options) = options_of(defaults, None)?;
        describe_url(text, options.for_many(many), defaults.env).map_err(|error| at(line, error))
    };
    match (scope.entry("replica"), scope.entry("replicas"), scope.entry("url")) {
        (Some(entry), None, None) => match &entry.value.value {
            Value::Text(text) => of_text(text, entry.line),
            _ => replica(&entry.value, many, settings, defaults, warnings),
        },
        (None, Some(entry), None) => match list(&entry.value, "replicas")? {
            [Node { value: Value::Text(text), line }] => of_text(text, *line),
            [node] => replica(node, many, settings, defaults, warnings),
            [] => Err(LineError::new(entry.line, format!("{place} has no replica"))),
            [_, second, ..] => Err(LineError::new(second.line, format!("{place} has a second replica"))
                .hint("a database has one replica, as in litestream 0.5")),
        },
        (None, None, Some(entry)) => of_text(text(&entry.value, "url")?, entry.line),
        (None, None, None) => Err(LineError::new(node.line, format!("{place} has no replica"))
            .hint("give replica: with url: s3://bucket/app or file:///backup/app")),
        _ => Err(LineError::new(node.line, format!("{place} has several of replica, replicas and url"))
            .hint("keep one of them")),
    }
}

/// Settings that may stand at every level.
fn engine_settings(scope: &Scope<'_>, engine: &mut engine::Config) -> Result<()> {
    if let Some(interval) = scope.duration_from("sync-interval", SYNC_INTERVAL_MIN)? {
        engine.sync_interval = interval;
    }
    if let Some(entry) = scope.entry("min-checkpoint-page-count") {
        let count =
            text(&entry.value, &entry.key)?.parse().ok().filter(|count| (1..=1 << 24).contains(count));
        engine.min_checkpoint_pages = count.ok_or_else(|| {
            LineError::new(entry.line, "min-checkpoint-page-count is a number from 1 to 16777216")
        })?;
    }
    compression(scope, engine)
}

/// A level alone changes the level of what is compressed with zstd already.
fn compression(scope: &Scope<'_>, engine: &mut engine::Config) -> Result<()> {
    if let Some(entry) = scope.entry("compression") {
        engine.compression = match text(&entry.value, &entry.key)? {
            "lz4" => Compression::Lz4,
            "zstd" => Compression::Zstd { level: ZSTD_LEVEL },
            other => {
                let error = LineError::new(entry.line, format!("there is no compression {other:?}"));
                return Err(error.hint("lz4, which litestream reads as well, or zstd"));
            }
        };
    }
    if let Some(entry) = scope.entry("compression-level") {
        let number = text(&entry.value, &entry.key)?.parse().ok().filter(|level| ZSTD_LEVELS.contains(level));
        let (least, most) = (ZSTD_LEVELS.start(), ZSTD_LEVELS.end());
        let number = number.ok_or_else(|| {
            LineError::new(entry.line, format!("compression-level is a number from {least} to {most}"))
        })?;
        match &mut engine.compression {
            Compression::Zstd { level } => *level = number,
            Compression::Lz4 => {
                return Err(LineError::new(entry.line, "compression-level is for zstd, and this is lz4")
                    .hint("add compression: zstd"));
            }
        }
    }
    Ok(())
}

/// Which levels are made: those that `scope` asks for on top of `levels`, and none as long as nothing
/// asks for any.
fn levels(
    scope: &Scope<'_>,
    mut levels: Option<CompactConfig>,
    warnings: &mut Vec<String>,
) -> Result<Option<CompactConfig>> {
    if let Some(entry) = scope.entry("levels") {
        let nodes = list(&entry.value, "levels")?;
        if nodes.len() > LEVELS_MAX {
            let error = LineError::new(entry.line, format!("there are {} levels", nodes.len()));
            return Err(error.hint("eight at the most: level 9 holds snapshots"));
        }
        let mut intervals = Vec::new();
        for node in nodes {
            let level = Scope::new(node, "a level", &[keys::LEVEL], false, warnings)?;
            intervals.push(level.duration_from("interval", LEVEL_INTERVAL_MIN)?.ok_or_else(|| {
                LineError::new(node.line, "a level has no interval").hint("give interval: 5m")
            })?);
        }
        if !intervals.is_empty() {
            levels.get_or_insert_default().levels = intervals;
        }
    }
    if let Some(entry) = scope.entry("snapshot") {
        let snapshot = Scope::new(&entry.value, "snapshot", &[keys::SNAPSHOT], false, warnings)?;
        if let Some(interval) = snapshot.duration_from("interval", LEVEL_INTERVAL_MIN)? {
            levels.get_or_insert_default().snapshot_interval = interval;
        }
        if let Some(time) = snapshot.duration_from("retention", RETENTION_MIN)? {
            let levels = levels.get_or_insert_default();
            levels.retention.get_or_insert_default().snapshot_retention = time;
        }
    }
    if let Some(entry) = scope.entry("verify-compaction") {
        let verify = scope.boolean("verify-compaction")?.unwrap_or(false);
        match &mut levels {
            Some(levels) => levels.verify = verify,
            None if verify => warnings.push(format!(
                "line {}: verify-compaction has no effect: nothing is compacted without levels or snapshot.interval",
                entry.line
            )),
            None => {}
        }
    }
    Ok(levels)
}

/// How often the replica is validated, if `name` is there: zero is never.
fn validation_interval(scope: &Scope<'_>, name: &str, interval: &mut Option<Duration>) -> Result<()> {
    match scope.duration(name)? {
        Some(Duration::ZERO) => *interval = None,
        Some(_) => *interval = scope.duration_from(name, VALIDATION_INTERVAL_MIN)?,
        None => {}
    }
    Ok(())
}

/// The options of a replica and of all replicas; with the scope they came from.
fn options_of<'a>(defaults: &Defaults<'_>, scope: Option<Scope<'a>>) -> Result<(Option<Scope<'a>>, Options)> {
    let mut options = Options::default();
    let mut add = |entry: &Entry, origin: Origin| {
        let text = text(&entry.value, &entry.key)?;
        options.add(&entry.key, text, origin).map_err(|error| at(entry.line, error))
    };
    for entry in scope.iter().flat_map(Scope::options) {
        add(entry, Origin::Key(entry.line))?;
    }
    for entry in &defaults.shared {
        add(entry, Origin::Shared(entry.line))?;
    }
    Ok((scope, options))
}

fn replica(
    node: &Node,
    many: bool,
    settings: &mut Settings,
    defaults: &Defaults<'_>,
    warnings: &mut Vec<String>,
) -> Result<Described> {
    let scope = Scope::new(node, "a replica", &[keys::REPLICA, keys::REPLICA_SHARED], true, warnings)?;
    engine_settings(&scope, &mut settings.engine)?;
    validation_interval(&scope, "validation-interval", &mut settings.validation)?;
    let (url, path, kind) = (scope.filled("url")?, scope.filled("path")?, scope.filled("type")?);
    let path_line = scope.entry("path").map_or(node.line, |entry| entry.line);
    let options = options_of(defaults, Some(scope))?.1.for_many(many);
    let described = match (url, path) {
        (Some(_), Some(_)) => {
            return Err(LineError::new(path_line, "a replica has both url and path").hint("keep one of them"));
        }
        (Some(url), None) => describe_url(url, options, defaults.env),
        (None, Some(path)) if super::looks_like_url(path) => {
            return Err(
                LineError::new(path_line, "a replica's path is a url").hint(format!("write url: {path}"))
            );
        }
        (None, path) => describe_keys(kind.unwrap_or("file"), path, path_line, options, defaults.env),
    };
    let described = described.map_err(|error| at(node.line, error))?;
    if let (Some(kind), Some(_)) = (kind, url)
        && !described.replica.is_of_type(kind)
    {
        warnings.push(format!("line {}: type: {kind} is not used: the url says what it is", node.line));
    }
    Ok(described)
}

pub(super) fn at(line: usize, error: ReplicaError) -> LineError {
    LineError::new(error.line.unwrap_or(line), error.error).hint(error.hint)
}

/// Two databases on one replica would overwrite each other's history, and a database that stands
/// twice would be followed by two engines of one process, which POSIX locks do not tell apart.
fn refuse_twins(known: &[Database], new: &Database, line: usize) -> Result<()> {
    for old in known {
        if old.path == new.path {
            return Err(LineError::new(line, format!("{} stands twice under dbs", new.path.display())));
        }
        if old.replica.same_place(&new.replica) {
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

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
