//! Logs: text or JSON, on standard error unless the configuration wants standard output.
//!
//! The flag wins over `DRIFTLESS_LOG_LEVEL` and then `LOG_LEVEL` in the environment, which win over
//! the configuration, as in Litestream. Litestream logs on standard output unless told otherwise; here that takes
//! `stderr: false`, since a log in the middle of a command's output serves nobody.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::level_filters::LevelFilter;

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
    let set = |name: &&str| std::env::var(name).ok().filter(|level| !level.is_empty());
    let environment = ["DRIFTLESS_LOG_LEVEL", "LOG_LEVEL"].iter().find_map(set);
    let level = args.text("log-level")?.or(environment.as_deref()).or(logging.level.as_deref());
    let level = level.map_or(Ok(LevelFilter::INFO), parse_level)?;
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
    let builder = tracing_subscriber::fmt().with_max_level(level).with_target(false).with_ansi(colour);
    JSON_ON_STDERR.store(json && !to_stdout, Ordering::Relaxed);
    // A second start in one process (in tests) keeps the first.
    let _ = match (json, to_stdout) {
        (true, true) => builder.json().flatten_event(true).with_writer(io::stdout).try_init(),
        (true, false) => builder.json().flatten_event(true).with_writer(io::stderr).try_init(),
        (false, true) => builder.with_writer(io::stdout).try_init(),
        (false, false) => builder.with_writer(io::stderr).try_init(),
    };
    Ok(())
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
