//! Asking a running process: where its socket may be, and what its answers mean here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::args::Args;
use super::error::CliError;
use super::replicate::{SOCKET_PATH, socket_of};
use super::{load_config, output::Out};
use crate::config::{Config, absolute, duration};
use crate::control::{client, socket_in};
use crate::host;

/// How much longer than the process itself an answer is waited for.
const MARGIN: Duration = Duration::from_secs(15);

/// An answer, and who gave it.
#[derive(Clone, Debug)]
pub struct Reply {
    /// What it says.
    pub body: Value,
    /// The socket.
    pub socket: PathBuf,
}

/// A request to a process.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// The path, with its query.
    pub target: &'a str,
    /// The body.
    pub body: Option<&'a Value>,
    /// How long the process may take.
    pub timeout: Duration,
}

/// The only argument: a database.
pub fn database(args: &Args) -> Result<PathBuf, CliError> {
    let Some(name) = args.positionals.first() else {
        return Err(CliError::usage("no database was given").hint("name the database file"));
    };
    let path = absolute(Path::new(name))
        .map_err(|error| CliError::usage("cannot tell where the database is").cause(error))?;
    if path.to_str().is_none() {
        return Err(CliError::usage(format!("{} is not valid utf-8", path.display()))
            .hint("a control socket takes names in utf-8 only"));
    }
    Ok(path)
}

/// The value of `-timeout`: seconds, or a duration with a unit.
pub fn timeout(args: &Args, otherwise: u64) -> Result<Duration, CliError> {
    let Some(text) = args.text("timeout")? else { return Ok(Duration::from_secs(otherwise)) };
    let seconds = text.parse().ok().map(Duration::from_secs);
    match seconds.or_else(|| duration::parse(text).ok()) {
        Some(timeout) if timeout >= Duration::from_secs(1) => Ok(timeout),
        _ => Err(CliError::usage(format!("-timeout is not a time: {text}"))
            .hint("give seconds, at least 1, or a duration such as 2m")),
    }
}

/// Where a process may listen that replicates `database`, or any.
pub fn sockets(
    args: &Args,
    config: Option<&Config>,
    database: Option<&Path>,
) -> Result<Vec<PathBuf>, CliError> {
    if let Some(socket) = args.path("socket") {
        return Ok(vec![socket]);
    }
    if let Some(directory) = args.path("state-dir") {
        return Ok(vec![socket_in(&directory)]);
    }
    let mut sockets = Vec::new();
    if let Some(config) = config {
        sockets.extend(socket_of(config).map(|place| place.path));
        let homeless = || PathBuf::from(host::HOMELESS_STATE_DIR);
        sockets.push(socket_in(&config.state_home().unwrap_or_else(homeless)));
    }
    sockets.extend(database.map(|database| socket_in(&host::default_state_dir(database))));
    sockets.push(PathBuf::from(SOCKET_PATH));
    let mut seen = BTreeSet::new();
    sockets.retain(|socket| seen.insert(socket.clone()));
    Ok(sockets)
}

/// Asks the process that has `database`; without one, the first that is found. `what` is what
/// cannot be done if it fails.
pub fn ask(
    args: &Args,
    database: Option<&Path>,
    question: Question<'_>,
    what: &str,
) -> Result<Reply, CliError> {
    find(args, database, question, what)?.ok_or_else(|| nobody(args, database))
}

/// As [`ask`]; `None` if no process runs that knows the database.
pub fn find(
    args: &Args,
    database: Option<&Path>,
    question: Question<'_>,
    what: &str,
) -> Result<Option<Reply>, CliError> {
    let mut unknown = None;
    for socket in places(args, database)? {
        let Question { method, target, body, timeout } = question;
        match client::ask(&socket, method, target, body, timeout + MARGIN) {
            Ok(answer) if answer.status == 200 => return Ok(Some(Reply { body: answer.body, socket })),
            // Another process may have it.
            Ok(answer) if answer.status == 404 => unknown = Some(answer.body),
            Ok(answer) => return Err(failed(what, &answer.body)),
            Err(error) if client::is_absent(&error) => {}
            Err(error) => {
                let what = format!("the process at {} does not answer", socket.display());
                return Err(CliError::failed(what).cause(error));
            }
        }
    }
    unknown.map_or(Ok(None), |body| Err(failed(what, &body)))
}

fn places(args: &Args, database: Option<&Path>) -> Result<Vec<PathBuf>, CliError> {
    let named = args.os_value("socket").is_some() || args.os_value("state-dir").is_some();
    let config = if named { None } else { load_config(args)? };
    sockets(args, config.as_ref(), database)
}

/// No process listens.
pub fn nobody(args: &Args, database: Option<&Path>) -> CliError {
    let places = places(args, database).unwrap_or_default();
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    CliError::failed("no process answers")
        .cause(format!("nobody listens at {}", places.join(", ")))
        .hint("start driftless replicate, or say where it listens with -socket or -state-dir")
}

/// A failure that the process tells of.
fn failed(what: &str, body: &Value) -> CliError {
    let text = |name: &str| body[name].as_str().unwrap_or_default();
    let code = body["code"].as_u64().and_then(|code| u8::try_from(code).ok());
    // Litestream gives no code, and its causes stand beside.
    let code = code.filter(|code| (1..=6).contains(code)).unwrap_or(1);
    let error = CliError { code, ..CliError::failed(what) }.cause(text("error")).hint(text("hint"));
    match text("details") {
        "" => error,
        details => error.cause(details),
    }
}

/// Prints what was done: Litestream's lines, or its JSON.
pub fn print(args: &Args, out: &mut Out, facts: &[(&str, Value)]) {
    if args.is_on("json") {
        let object: serde_json::Map<String, Value> =
            facts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        return out.json(&object);
    }
    for (name, value) in facts {
        match value {
            Value::String(text) => out.line(format_args!("{name}: {}", text.replace('_', " "))),
            value => out.line(format_args!("{name}: {value}")),
        }
    }
}
