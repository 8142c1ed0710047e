//! `driftless databases`.

use serde::Serialize;

use super::args::Args;
use super::error::CliError;
use super::output::{Out, Table};
use super::{need_config, target};

/// A database, with Litestream's fields first.
#[derive(Serialize)]
struct Row {
    path: String,
    replica: &'static str,
    url: String,
}

/// Lists the databases of the configuration.
pub fn run(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let config = need_config(args)?;
    let rows: Vec<Row> = target::all_databases(&config)?
        .iter()
        .map(|database| Row {
            path: database.path.display().to_string(),
            replica: database.replica.kind(),
            url: database.replica.url(),
        })
        .collect();
    if args.is_on("json") {
        out.json(&rows);
        return Ok(());
    }
    let mut table = Table::new(["path", "replica", "url"]);
    rows.into_iter().for_each(|row| table.row(vec![row.path, row.replica.to_owned(), row.url]));
    out.table(&table);
    Ok(())
}
