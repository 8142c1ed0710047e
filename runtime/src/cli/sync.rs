//! `driftless sync`.

use std::time::Instant;

use serde_json::{Value, json};

use super::args::Args;
use super::error::CliError;
use super::output::Out;
use super::remote::{self, Question};

/// Has what is committed replicated now.
pub fn run(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let database = remote::database(args)?;
    let timeout = remote::timeout(args, 30)?;
    let wait = args.is_on("wait");
    let body = json!({ "path": database, "wait": wait, "timeout": timeout.as_secs() });
    let question = Question { method: "POST", target: "/sync", body: Some(&body), timeout };
    let begun = Instant::now();
    let reply = remote::ask(args, Some(&database), question, &format!("cannot sync {}", database.display()))?;
    let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut facts = vec![("db_path", json!(database)), ("txid", reply.body["txid"].clone())];
    if wait {
        facts.push(("replica_txid", reply.body["replicated_txid"].clone()));
    }
    facts.push(("duration_ms", Value::from(took)));
    remote::print(args, out, &facts);
    Ok(())
}
