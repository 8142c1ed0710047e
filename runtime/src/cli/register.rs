//! `driftless register` and `driftless unregister`.

use std::path::Path;

use serde_json::{Value, json};

use super::args::Args;
use super::error::CliError;
use super::output::Out;
use super::remote::{self, Question};
use crate::config::Replica;

/// Adds a database to a running process, for good.
pub fn register(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let database = remote::database(args)?;
    let (asked, shown) = replica(args)?;
    let timeout = remote::timeout(args, 30)?;
    let body = json!({ "path": database, "replica_url": asked });
    let question = Question { method: "POST", target: "/register", body: Some(&body), timeout };
    let what = format!("cannot register {}", database.display());
    let reply = remote::ask(args, Some(&database), question, &what)?;
    remote::print(
        args,
        out,
        &[
            ("status", reply.body["status"].clone()),
            ("db_path", json!(database)),
            ("replica", Value::from(shown)),
            ("socket", json!(reply.socket.display().to_string())),
        ],
    );
    Ok(())
}

/// The replica as the process is told of it, and as it is shown.
fn replica(args: &Args) -> Result<(String, String), CliError> {
    let text = match (args.text("replica")?, args.positionals.get(1)) {
        (Some(_), Some(_)) => {
            return Err(CliError::usage("the replica was given twice").hint("leave out -replica"));
        }
        (Some(text), None) => text.to_owned(),
        (None, Some(text)) => text.to_str().map(str::to_owned).ok_or_else(|| {
            CliError::usage("the replica is not valid utf-8").hint("register takes names in utf-8 only")
        })?,
        (None, None) => {
            return Err(CliError::usage("no replica was given")
                .hint("driftless register DB REPLICA, such as file:///backup/app"));
        }
    };
    let replica = Replica::parse(&text)?;
    let shown = replica.url();
    match replica.directory() {
        // Below our directory, which need not be that of the process.
        Some(directory) => Ok((file_url(directory), shown)),
        None => Ok((text, shown)),
    }
}

fn file_url(directory: &Path) -> String {
    let path = directory.display().to_string();
    format!("file://{}", path.replace('%', "%25").replace('?', "%3F").replace('#', "%23"))
}

/// Has a running process make a last sync of a database and forget it.
pub fn unregister(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let database = remote::database(args)?;
    let timeout = remote::timeout(args, 30)?;
    if args.is_on("dry-run") {
        return preview(args, out, &database, timeout.as_secs());
    }
    let body = json!({ "path": database, "timeout": timeout.as_secs() });
    let question = Question { method: "POST", target: "/unregister", body: Some(&body), timeout };
    let what = format!("cannot unregister {} cleanly", database.display());
    let reply = remote::ask(args, Some(&database), question, &what)?;
    remote::print(
        args,
        out,
        &[
            ("status", reply.body["status"].clone()),
            ("db_path", json!(database)),
            ("final_txid", reply.body["txid"].clone()),
            ("socket", json!(reply.socket.display().to_string())),
        ],
    );
    Ok(())
}

fn preview(args: &Args, out: &mut Out, database: &Path, seconds: u64) -> Result<(), CliError> {
    let question =
        Question { method: "GET", target: "/list", body: None, timeout: std::time::Duration::from_secs(10) };
    let reply = remote::ask(args, Some(database), question, "the process does not answer as it should")?;
    let databases = reply.body["databases"].as_array().map(Vec::as_slice).unwrap_or_default();
    let known = databases.iter().find(|known| known["path"].as_str() == database.to_str());
    let replica = known.map(|known| known["replica"].as_str().unwrap_or("unknown"));
    if args.is_on("json") {
        let socket = reply.socket.display().to_string();
        let preview = json!({
            "dry_run": true, "db_path": database, "registered": known.is_some(), "replica": replica,
            "timeout": seconds, "socket": socket,
        });
        out.json(&preview);
        return Ok(());
    }
    match replica {
        None => {
            out.line(format_args!("{} is not replicated there: nothing would change", database.display()))
        }
        Some(replica) => out.line(format_args!(
            "{} would be synced to {replica}, within {seconds} s, and forgotten; the replica stays",
            database.display()
        )),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_comes_back_from_its_url() {
        for path in ["/srv/backup", "/srv/50% of #1?"] {
            let replica = Replica::parse(&file_url(Path::new(path))).unwrap();
            assert_eq!(replica.directory(), Some(Path::new(path)));
        }
    }
}
