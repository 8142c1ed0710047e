//! What the control socket answers. Litestream 0.5.17 has the same paths and fields; more of ours
//! stand beside them.
//!
//! | request | answer |
//! |---|---|
//! | `GET /status[?path=][&look=no]` | every database in full (ours), after a look at it or without |
//! | `GET /list`, `GET /info`, `GET /txid?path=` | |
//! | `POST /sync` | `path`, `wait`, `timeout` in seconds |
//! | `GET /lease`, `POST /handoff` (ours) | |
//! | `POST /register` | `path`, `replica_url` |
//! | `POST /unregister`, `/start`, `/stop`, `/reset` (ours) | `path`, `timeout` in seconds |
//!
//! A failure is `error`, and `hint` and `code`, the exit code for a command.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use driftless_core::compact::CompactStatus;
use driftless_core::engine::{Phase, Status};
use driftless_core::ids::{Level, Mono, Txid, Wall};
use driftless_core::validate::ValidateStatus;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Reply, Request, query_value};
use crate::clock;
use crate::config::absolute;
use crate::host::Host;
use crate::host::databases::{Entry, Life, Origin};
use crate::host::requests::{Effect, Failure, FailureKind, within};

/// How long a status waits for a look at each database.
const LOOK_TIME: Duration = Duration::from_millis(500);
/// How long a request may take if it does not say so.
const TIMEOUT: u64 = 30;
/// How long it may take at the most: a day.
const TIMEOUT_MAX: u64 = 24 * 60 * 60;

/// What the body of a request says.
#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    path: String,
    #[serde(default)]
    replica_url: String,
    #[serde(default)]
    wait: bool,
    timeout: Option<u64>,
}

pub(super) async fn answer(host: &Rc<Host>, request: &Request) -> Reply {
    let answered = match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/status") => {
            let look = query_value(&request.query, "look").as_deref() != Some("no");
            status(host, query_value(&request.query, "path"), look).await
        }
        ("GET", "/list") => Ok(list(host)),
        ("GET", "/info") => Ok(info(host)),
        ("GET", "/lease") => lease(host),
        ("POST", "/handoff") => hand_over(host),
        ("GET", "/txid") => txid(host, query_value(&request.query, "path")),
        ("POST", path @ ("/sync" | "/register" | "/unregister" | "/start" | "/stop" | "/reset")) => {
            match asked(&request.body) {
                Ok((asked, database)) => act(host, path, &asked, database).await,
                Err(failure) => Err(failure),
            }
        }
        (_, "/status" | "/list" | "/info" | "/txid" | "/lease") => return Reply::error(405, "this is a GET"),
        (_, "/handoff" | "/sync" | "/register" | "/unregister" | "/start" | "/stop" | "/reset") => {
            return Reply::error(405, "this is a POST");
        }
        _ => return Reply::error(404, "there is nothing at this path"),
    };
    answered.map_or_else(|failure| failed(&failure), Reply::ok)
}

pub(super) fn failed(failure: &Failure) -> Reply {
    let status = match failure.kind {
        FailureKind::Asked => 400,
        FailureKind::Unknown => 404,
        FailureKind::Conflict => 409,
        FailureKind::Failed => 500,
        FailureKind::Unavailable => 503,
        FailureKind::Late => 504,
    };
    Reply { status, body: json!({ "error": failure.error, "hint": failure.hint, "code": failure.code }) }
}

fn wrong(error: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Asked, 2, error, "")
}

fn asked(body: &[u8]) -> Result<(Asked, PathBuf), Failure> {
    let asked: Asked =
        serde_json::from_slice(body).map_err(|error| wrong(format!("invalid request body: {error}")))?;
    let path = path_of(&asked.path)?;
    Ok((asked, path))
}

fn path_of(text: &str) -> Result<PathBuf, Failure> {
    if text.is_empty() {
        return Err(wrong("path required"));
    }
    absolute(text.as_ref()).map_err(|error| wrong(format!("cannot tell where {text} is: {error}")))
}

/// The process among those that contend for its lease.
fn lease(host: &Rc<Host>) -> Result<Value, Failure> {
    let Some(lease) = &host.lease else { return Err(without_lease()) };
    let status = lease.status();
    let body = status.body.as_ref();
    Ok(json!({
        "role": status.role.word(),
        "active": lease.is_active(),
        "host": format!("{:016x}", lease.holder()),
        "holder": body.map(|body| format!("{:016x}", body.holder)),
        "state": body.map(|body| body.state.word()),
        "epoch": body.map(|body| body.epoch),
        "address": body.map(|body| body.address.clone()),
        "requests": status.requests,
        "error": status.lost.or(status.last_error),
    }))
}

fn without_lease() -> Failure {
    Failure::new(FailureKind::Conflict, 2, "this process has no lease", "add a lease to its configuration")
}

/// Gives the lease up, once those who wait have had time to hear of it.
fn hand_over(host: &Rc<Host>) -> Result<Value, Failure> {
    let Some(lease) = &host.lease else { return Err(without_lease()) };
    if !lease.is_active() {
        let error = "this process is not the primary";
        return Err(Failure::new(
            FailureKind::Conflict,
            1,
            error,
            "ask on the host that driftless lease names",
        ));
    }
    if !lease.ends_application() {
        let error = "nothing here can end the application, and what it commits after that would be lost";
        let hint = "run it with -exec, or name a command that stops it with lease.demote";
        return Err(Failure::new(FailureKind::Conflict, 2, error, hint));
    }
    host.hand_over();
    Ok(json!({ "status": "handing_over" }))
}

async fn act(host: &Rc<Host>, what: &str, asked: &Asked, path: PathBuf) -> Result<Value, Failure> {
    if host.lease.as_ref().is_some_and(|lease| !lease.is_active()) {
        let hint = "ask on the host that driftless lease names";
        return Err(Failure::new(FailureKind::Unavailable, 1, "this process is not the primary", hint));
    }
    let timeout = Duration::from_secs(asked.timeout.unwrap_or(TIMEOUT).min(TIMEOUT_MAX));
    let word = |effect, done: &str, already: &str| match effect {
        Effect::Done => done.to_owned(),
        Effect::Already => already.to_owned(),
    };
    let number = |txid: Option<Txid>| txid.map_or(0, Txid::get);
    let name = path.display().to_string();
    let replicated = || number(host.find(&path).and_then(|found| host.replicated(found)));
    match what {
        "/sync" => {
            let synced = host.sync(&path, asked.wait, timeout).await?;
            let status = match (synced.changed, synced.txid == synced.replicated) {
                (false, _) => "no_change",
                (true, true) => "synced",
                (true, false) => "synced_local",
            };
            let (txid, replicated) = (number(synced.txid), number(synced.replicated));
            Ok(json!({ "status": status, "path": name, "txid": txid, "replicated_txid": replicated }))
        }
        "/register" => {
            if asked.replica_url.is_empty() {
                return Err(wrong("replica_url required"));
            }
            let effect = host.register(&path, &asked.replica_url).await?;
            Ok(json!({ "status": word(effect, "registered", "already_registered"), "path": name }))
        }
        "/unregister" => {
            let (effect, txid) = host.unregister(&path, timeout).await?;
            let status = word(effect, "unregistered", "already_unregistered");
            Ok(json!({ "status": status, "path": name, "txid": number(txid) }))
        }
        "/start" => {
            let status = word(host.start(&path, timeout).await?, "started", "already_running");
            Ok(json!({ "status": status, "path": name, "txid": replicated() }))
        }
        "/stop" => {
            let status = word(host.stop(&path, timeout).await?, "stopped", "already_stopped");
            Ok(json!({ "status": status, "path": name, "txid": replicated() }))
        }
        _ => {
            let status = word(host.reset(&path, timeout).await?, "reset", "nothing_to_reset");
            Ok(json!({ "status": status, "path": name }))
        }
    }
}

fn txid(host: &Host, path: Option<String>) -> Result<Value, Failure> {
    let path = path_of(&path.unwrap_or_default())?;
    let unknown = || Failure::new(FailureKind::Unknown, 1, "database not found", "");
    let number = host.find(&path).ok_or_else(unknown)?;
    Ok(json!({ "txid": host.replicated(number).map_or(0, Txid::get) }))
}

fn rfc3339(wall: Wall) -> String {
    Timestamp::from_millisecond(wall.0).map_or_else(|_| wall.0.to_string(), |at| at.to_string())
}

fn list(host: &Host) -> Value {
    let mut databases = Vec::new();
    host.for_each(|entry| {
        let mut value = json!({
            "path": entry.database.display().to_string(),
            "status": match entry.life {
                Life::Running => "replicating",
                Life::Stopping | Life::Leaving { .. } => "stopping",
                Life::Resetting { .. } => "resetting",
                Life::Stopped(_) => "stopped",
                Life::Ended(_) => "ended",
            },
            "replica": entry.replica.url(),
            "registered": entry.origin == Origin::Registered,
            "phase": phase(entry),
            "replicated_txid": entry.replicated().map(|txid| txid.to_string()),
        });
        if let Some(at) = entry.last_sync {
            value["last_sync_at"] = json!(rfc3339(at));
        }
        databases.push(value);
    });
    json!({ "databases": databases })
}

fn info(host: &Host) -> Value {
    let mut count = 0;
    host.for_each(|_| count += 1);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_seconds": clock::mono().since(host.started.mono).as_secs(),
        "started_at": rfc3339(host.started.wall),
        "database_count": count,
        "program": "driftless",
        "state_dir": host.directory.display().to_string(),
    })
}

async fn status(host: &Host, path: Option<String>, look: bool) -> Result<Value, Failure> {
    let number = match path {
        None => None,
        Some(path) => {
            let path = path_of(&path)?;
            let unknown = || Failure::new(FailureKind::Unknown, 1, "database not found", "");
            Some(host.find(&path).ok_or_else(unknown)?)
        }
    };
    let concerns = |entry: &Entry| number.is_none_or(|number| number == entry.number);
    if look {
        let asked = clock::mono();
        host.for_each(|entry| {
            if concerns(entry) {
                host.source_changed(entry);
            }
        });
        // The answer is of now: one that is a look old would say "all replicated" of a commit that
        // whoever asks has just made. A database that is followed is looked at four times a second.
        let looked = host.changes.until(|| all_looked_since(host, asked, concerns).then_some(()));
        let _ = within(LOOK_TIME, looked).await;
    }
    let mut databases = Vec::new();
    host.for_each(|entry| {
        if concerns(entry) {
            databases.push(entry_status(entry));
        }
    });
    let mut value = info(host);
    value["databases"] = json!(databases);
    let (cold, waiting, hot) = host.tier_counts();
    value["tiers"] = json!({ "cold": cold, "waiting": waiting, "hot": hot });
    if number.is_none() {
        value["directories"] = json!(directories(host));
        value["removed"] = json!(removed(host));
        value["removed_count"] = json!(host.discovery.departed_count.get());
    }
    let reloads = host.reloads.borrow();
    value["reloads"] = json!(reloads.count);
    value["reloaded_at"] = json!(reloads.at.map(rfc3339));
    value["reload_error"] = json!(reloads.error);
    Ok(value)
}

/// The directories of databases, and how many each has.
fn directories(host: &Host) -> Vec<Value> {
    let mut directories = Vec::new();
    host.discovery.for_each(|directory| {
        let mut count = 0;
        host.for_each(|entry| {
            let is_of = entry.origin == Origin::Found && directory.admits(&entry.database).is_some();
            count += u64::from(is_of);
        });
        directories.push(json!({
            "dir": directory.root.display().to_string(),
            "pattern": directory.pattern.to_string(),
            "recursive": directory.recursive,
            "watch": directory.watch,
            "replica": directory.replica.place(),
            "databases": count,
        }));
    });
    directories
}

/// The last databases whose files were removed, which are not replicated any more.
fn removed(host: &Host) -> Vec<Value> {
    let departed = host.discovery.departed.borrow();
    let told = departed.iter().map(|departed| {
        json!({
            "database": departed.database.display().to_string(),
            "replica": departed.replica,
            "at": rfc3339(departed.at),
        })
    });
    told.collect()
}

/// Whether each database has been looked at since then, or will not be.
fn all_looked_since(host: &Host, asked: Mono, concerns: impl Fn(&Entry) -> bool) -> bool {
    let mut looked = true;
    host.for_each(|entry| {
        let status = entry.status().filter(|_| entry.sender.is_some() && concerns(entry));
        looked &= status.is_none_or(|status| is_fresh(&status, asked));
    });
    looked
}

fn is_fresh(status: &Status, asked: Mono) -> bool {
    match status.phase {
        Phase::Following => status.looked_at.is_some_and(|at| at >= asked),
        // It has to find out first whether anything happened to it.
        Phase::Quiet => status.synced_until.is_some_and(|at| at >= asked),
        // A moment later it may know.
        Phase::Starting => false,
        _ => true,
    }
}

/// What a database is about, in a word.
pub(crate) fn phase(entry: &Entry) -> &'static str {
    match (&entry.life, entry.status()) {
        (Life::Resetting { .. }, _) => "resetting",
        (Life::Stopped(_), _) => "stopped",
        (Life::Ended(_), _) => "ended",
        (_, Some(status)) => status.phase.word(),
        (_, None) => Phase::Starting.word(),
    }
}

fn entry_status(entry: &Entry) -> Value {
    let mut value = entry.status().map_or(json!({}), |status| describe(&status));
    value["database"] = json!(entry.database.display().to_string());
    value["replica"] = json!(entry.replica.place());
    value["registered"] = json!(entry.origin == Origin::Registered);
    value["found"] = json!(entry.origin == Origin::Found);
    value["phase"] = json!(phase(entry));
    value["ended"] = json!(entry.exit().is_some());
    value["exit_code"] = json!(entry.exit().map(|exit| exit.code()));
    value["last_sync_at"] = json!(entry.last_sync.map(rfc3339));
    let (counted, extras) = (entry.counted(), entry.extras.as_ref());
    value["segments"] = json!(counted.segments);
    value["segment_bytes"] = json!(counted.segment_bytes);
    value["levels"] = json!(extras.and_then(|it| it.levels.as_ref()).map(describe_levels));
    let retention = extras.and_then(|it| it.retention.as_ref());
    value["retention"] = json!(retention.map(|it| json!({ "passing": it.passing, "error": it.trouble })));
    value["validation"] = json!(entry.validation().map(describe_validation));
    value
}

/// How far each level reaches, and what is wrong with it.
fn describe_levels(status: &CompactStatus) -> Value {
    let reaches = |level| status.fronts.iter().find(|(at, _)| *at == level).map(|(_, txid)| txid.to_string());
    let error = |level| status.trouble.iter().find(|(at, _)| *at == level).map(|(_, text)| text);
    let known = status.fronts.iter().map(|(level, _)| *level);
    let levels: BTreeSet<Level> = known.chain(status.trouble.iter().map(|(level, _)| *level)).collect();
    let levels = levels
        .into_iter()
        .map(|level| json!({ "level": level.get(), "txid": reaches(level), "error": error(level) }));
    json!({ "making": status.making.map(Level::get), "levels": levels.collect::<Vec<_>>() })
}

/// What the last validation found, and why there was none since.
fn describe_validation(status: &ValidateStatus) -> Value {
    let last = status.last.as_ref();
    json!({
        "validating": status.validating,
        "result": last.map(|_| if status.is_faulty() { "faulty" } else { "sound" }),
        "at": last.map(|last| rfc3339(last.at)),
        "objects": last.map(|last| last.objects),
        "bytes": last.map(|last| last.bytes),
        "faults": last.map_or(&[][..], |last| &last.faults),
        "faults_count": last.map_or(0, |last| last.faults_count),
        "error": status.trouble,
    })
}

/// A status as JSON; the field names are those of `driftless status -json`.
pub fn describe(status: &Status) -> Value {
    let lag = status.behind_since.map(|since| clock::mono().since(since).as_secs_f64());
    json!({
        "phase": status.phase.word(),
        "replicated_txid": status.replicated.map(|txid| txid.to_string()),
        "post_checksum": status.post.map(|post| post.to_string()),
        "lineage": status.lineage.map(|lineage| lineage.to_string()),
        "lag_frames": status.frames_behind,
        "lag_seconds": lag.unwrap_or(0.0),
        "wal_frames": status.wal_frames,
        "pages_waiting": status.pages_waiting,
        "uploading": status.uploading,
        "waiting": status.waiting.as_ref().map(|waiting| waiting.why.clone()),
        "commits_unseen": status.waiting.as_ref().is_some_and(|waiting| waiting.unseen),
        "hint": status.waiting.as_ref().map(|waiting| &waiting.hint).or(status.hint.as_ref()),
        "last_error": status.last_error,
        "store": {
            "create_if_absent": status.store.create_if_absent.word(),
            "swap": status.store.swap.word(),
            "remove": status.store.remove.word(),
        },
        "warning": status.warning,
    })
}
