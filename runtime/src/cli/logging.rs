//! Logs: text or JSON, on standard error unless the configuration wants standard output.
//!
//! The flag wins over `DRIFTLESS_LOG_LEVEL` and then `LOG_LEVEL` in the environment, which win over
//! the configuration, as in Litestream. Litestream logs on standard output unless told otherwise; here that takes
//! `stderr: false`, since a log in the middle of a command's output serves nobody.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::args::Args;
use super::error::CliError;
use super::suggest::nearest;
use crate::config::Logging;

const LEVELS: [(&str, LevelFilter); 6] = [
    ("trace", LevelFilter::TRACE),
    ("debug", LevelFilter::DEBUG),
    ("info", LevelFilter::INFO),
    ("warn", LevelFilter::WARN),
    ("error", LevelFilter::ERROR),
    ("off", LevelFilter::OFF),
];

/// Whether standard error is a stream of JSON, into which nothing else may be written.
static JSON_ON_STDERR: AtomicBool = AtomicBool::new(false);

/// The level, which may change while the process runs.
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// What is logged, with the reloadable level below it.
type Lines = tracing_subscriber::layer::Layered<reload::Layer<LevelFilter, Registry>, Registry>;

/// Tells why the process ends: to a person, or as the last line of a JSON log.
pub fn tell_end(error: &CliError) {
    if JSON_ON_STDERR.load(Ordering::Relaxed) {
        tracing::error!(code = error.code, hint = error.hint.as_deref(), "{error}");
    } else {
        error.print();
    }
}

/// Starts logging, once in a process.
pub fn start(args: &Args, logging: &Logging) -> Result<(), CliError> {
    let level = level(args, logging)?;
    let json = match args.text("log-format")?.or(logging.format.as_deref()) {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => {
            return Err(CliError::usage(format!("unknown log format: {other:?}")).hint("text or json"));
        }
    };
    let to_stdout = logging.stderr == Some(false);
    let terminal = if to_stdout { io::stdout().is_terminal() } else { io::stderr().is_terminal() };
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    JSON_ON_STDERR.store(json && !to_stdout, Ordering::Relaxed);
    let lines = fmt::layer::<Lines>().with_target(false).with_ansi(colour);
    let lines: Box<dyn Layer<Lines> + Send + Sync> = match (json, to_stdout) {
        (true, true) => lines.json().flatten_event(true).with_writer(io::stdout).boxed(),
        (true, false) => lines.json().flatten_event(true).with_writer(io::stderr).boxed(),
        (false, true) => lines.with_writer(io::stdout).boxed(),
        (false, false) => lines.with_writer(io::stderr).boxed(),
    };
    let (filter, handle) = reload::Layer::new(level);
    // A second start in one process (in tests) keeps the first.
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _ = LEVEL.set(handle);
    }
    Ok(())
}

/// Takes the level of a configuration that was read again, unless flag or environment name one.
pub fn restart(args: &Args, logging: &Logging) -> Result<(), CliError> {
    let level = level(args, logging)?;
    if let Some(handle) = LEVEL.get() {
        // It fails only where the subscriber is gone, and then nobody logs.
        let _ = handle.modify(|filter| *filter = level);
    }
    Ok(())
}

fn level(args: &Args, logging: &Logging) -> Result<LevelFilter, CliError> {
    let set = |name: &&str| std::env::var(name).ok().filter(|level| !level.is_empty());
    let environment = ["DRIFTLESS_LOG_LEVEL", "LOG_LEVEL"].iter().find_map(set);
    let level = args.text("log-level")?.or(environment.as_deref()).or(logging.level.as_deref());
    level.map_or(Ok(LevelFilter::INFO), parse_level)
}

fn parse_level(name: &str) -> Result<LevelFilter, CliError> {
    let lower = name.to_ascii_lowercase();
    let lower = if lower == "warning" { "warn" } else { &lower };
    LEVELS.iter().find(|(known, _)| *known == lower).map(|(_, level)| *level).ok_or_else(|| {
        let hint = match nearest(lower, LEVELS.map(|(name, _)| name)) {
            Some(near) => format!("did you mean {near}?"),
            None => "debug, info, warn or error".to_owned(),
        };
        CliError::usage(format!("unknown log level: {name:?}")).hint(hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_in_any_case() {
        for (name, level) in
            [("INFO", LevelFilter::INFO), ("warning", LevelFilter::WARN), ("trace", LevelFilter::TRACE)]
        {
            assert_eq!(parse_level(name), Ok(level));
        }
        let error = parse_level("debgu").unwrap_err();
        assert_eq!((error.code, error.hint.as_deref()), (2, Some("did you mean debug?")));
    }
}
