//! `driftless list` and `driftless info`: what a running process says of itself.

use serde_json::Value;

use super::args::Args;
use super::error::CliError;
use super::output::Out;
use super::remote::{self, Question, Reply};

/// How long an answer may take, in seconds.
const TIMEOUT: u64 = 10;

/// Lists the databases of a process.
pub fn list(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let Reply { body, .. } = get(args, "/list")?;
    if args.is_on("json") {
        out.json(&body);
        return Ok(());
    }
    let databases = body["databases"].as_array().map(Vec::as_slice).unwrap_or_default();
    if databases.is_empty() {
        out.line("no databases");
    }
    for database in databases {
        let text = |name: &str| database[name].as_str().unwrap_or_default();
        let last = database["last_sync_at"].as_str().unwrap_or("never");
        out.line(format_args!("{} [{}] (last sync: {last})", text("path"), text("status")));
    }
    Ok(())
}

/// Shows what a process is.
pub fn info(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let Reply { body, socket } = get(args, "/info")?;
    if args.is_on("json") {
        out.json(&body);
        return Ok(());
    }
    let text = |name: &str| match &body[name] {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    // Litestream does not say its name.
    let program = body["program"].as_str().unwrap_or("litestream");
    out.line(format_args!("{program} {}", text("version")));
    out.line(format_args!("  PID:        {}", text("pid")));
    out.line(format_args!("  Uptime:     {}s", text("uptime_seconds")));
    out.line(format_args!("  Started at: {}", text("started_at")));
    out.line(format_args!("  Databases:  {}", text("database_count")));
    if let Some(directory) = body["state_dir"].as_str() {
        out.line(format_args!("  State:      {directory}"));
    }
    out.line(format_args!("  Socket:     {}", socket.display()));
    Ok(())
}

fn get(args: &Args, target: &str) -> Result<Reply, CliError> {
    let timeout = remote::timeout(args, TIMEOUT)?;
    let question = Question { method: "GET", target, body: None, timeout };
    remote::ask(args, None, question, "the process does not answer as it should")
}
