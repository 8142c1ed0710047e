//! `driftless ltx`.

use driftless_core::ids::Level;
use serde::Serialize;

use super::args::Args;
use super::error::CliError;
use super::output::{Out, Table};
use super::segments::{Segments, rfc3339};
use super::target;

/// A segment, with Litestream's fields.
#[derive(Serialize)]
struct Row {
    level: u8,
    min_txid: String,
    max_txid: String,
    size: u64,
    timestamp: String,
}

/// Lists the segments of a replica.
pub fn run(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let levels = levels(args.text("level")?)?;
    let target =
        target::resolve(args, "driftless ltx /path/to/db, or driftless ltx file:///path/to/replica")?;
    let segments = Segments::new(&target.replica);
    let mut rows = Vec::new();
    for level in levels {
        let listed = segments.list(level)?;
        let stamps = segments.stamps(&listed);
        for (segment, stamp) in listed.into_iter().zip(stamps) {
            rows.push(Row {
                level: level.get(),
                min_txid: segment.range.min().to_string(),
                max_txid: segment.range.max().to_string(),
                size: segment.len,
                timestamp: rfc3339(stamp),
            });
        }
    }
    if args.is_on("json") {
        out.json(&rows);
        return Ok(());
    }
    let mut table = Table::new(["level", "min_txid", "max_txid", "size", "created"]);
    for row in rows {
        let cells = [row.level.to_string(), row.min_txid, row.max_txid, row.size.to_string(), row.timestamp];
        table.row(cells.to_vec());
    }
    out.table(&table);
    Ok(())
}

fn levels(text: Option<&str>) -> Result<Vec<Level>, CliError> {
    let one = |level: u8| Level::new(level).map(|level| vec![level]);
    let levels = match text {
        None => one(0),
        Some("all") => Some(Level::all().collect()),
        Some(digits) => digits.parse().ok().and_then(one),
    };
    levels.ok_or_else(|| {
        CliError::usage(format!("there is no level {:?}", text.unwrap_or_default()))
            .hint("levels are 0 to 9, or all")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ten_or_all() {
        let numbers =
            |text| levels(text).map(|levels| levels.iter().map(|level| level.get()).collect::<Vec<_>>());
        assert_eq!(numbers(None), Ok(vec![0]));
        assert_eq!(numbers(Some("9")), Ok(vec![9]));
        assert_eq!(numbers(Some("all")).unwrap().len(), 10);
        for text in ["10", "-1", "a", ""] {
            assert_eq!(numbers(Some(text)).unwrap_err().code, 2, "{text}");
        }
    }
}
