//! `driftless start` and `driftless stop`.

use serde_json::json;

use super::args::Args;
use super::error::CliError;
use super::output::Out;
use super::remote::{self, Question};

/// Has a running process start a database that was stopped, or has ended.
pub fn start(args: &Args, out: &mut Out) -> Result<(), CliError> {
    change(args, out, "/start", "start", "running")
}

/// Has a running process make a last sync of a database and let it go.
pub fn stop(args: &Args, out: &mut Out) -> Result<(), CliError> {
    change(args, out, "/stop", "stop", "stopped")
}

fn change(args: &Args, out: &mut Out, target: &str, verb: &str, state: &str) -> Result<(), CliError> {
    let database = remote::database(args)?;
    let timeout = remote::timeout(args, 30)?;
    let body = json!({ "path": database, "timeout": timeout.as_secs() });
    let question = Question { method: "POST", target, body: Some(&body), timeout };
    let what = format!("cannot {verb} {} cleanly", database.display());
    let reply = remote::ask(args, Some(&database), question, &what)?;
    remote::print(
        args,
        out,
        &[
            ("status", reply.body["status"].clone()),
            ("db_path", json!(database)),
            ("state", json!(state)),
            ("txid", reply.body["txid"].clone()),
            ("socket", json!(reply.socket.display().to_string())),
        ],
    );
    Ok(())
}
