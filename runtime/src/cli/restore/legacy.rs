//! Flags and reports of a restore from Litestream 0.3's layout.

use std::time::Instant;

use driftless_core::legacy::{Generation, LegacyListed, LegacyOrder, LegacyPart, LegacyStatus, LegacyTarget};
use driftless_core::restore::RestoreTarget;
use serde::Serialize;
use serde_json::Value;

use super::Order;
use crate::cli::args::Args;
use crate::cli::error::CliError;
use crate::cli::output::{Out, Table, human_bytes, human_count};
use crate::cli::segments::rfc3339;

/// A restore that went well. The fields that it shares with one from LTX have their names.
#[derive(Serialize)]
struct Summary {
    db_path: String,
    replica: &'static str,
    generation: String,
    index: String,
    duration_ms: u64,
    integrity_check: &'static str,
    timestamp: String,
    page_size: u32,
    pages: u32,
    frames: u64,
    bytes_fetched: u64,
    requests: u64,
}

/// What a restore would read.
#[derive(Serialize)]
struct PlanSummary {
    source: String,
    target_path: String,
    replica: &'static str,
    generation: String,
    index: String,
    timestamp: String,
    files: Vec<PlanRow>,
    fetch_bytes: u64,
}

#[derive(Serialize)]
struct PlanRow {
    kind: &'static str,
    index: String,
    offset: Option<String>,
    name: String,
    size: u64,
    timestamp: String,
}

/// What the flags ask of this layout, if they ask for it.
pub(super) fn order(args: &Args, target: RestoreTarget) -> Result<Option<LegacyOrder>, CliError> {
    let (generation, index) = (args.text("generation")?, args.text("index")?);
    let generation = match (generation, index) {
        (None, None) => return Ok(None),
        (None, Some(_)) => {
            return Err(CliError::usage("-index was given without -generation")
                .hint("each generation counts for itself: say which with -generation"));
        }
        (Some(text), _) => Generation::parse(text).ok_or_else(|| {
            CliError::usage(format!("{text:?} is not a generation"))
                .hint("a generation is 16 hexadecimal digits, a name below generations/ of the replica")
        })?,
    };
    let target = match (index, target) {
        (_, RestoreTarget::At(_)) => {
            return Err(CliError::usage("both -generation and -txid were given")
                .hint("generations are litestream 0.3's, transactions are those of ltx: keep one"));
        }
        (Some(_), RestoreTarget::Time(_)) => {
            return Err(CliError::usage("both -index and -timestamp were given").hint("keep one of them"));
        }
        (Some(text), RestoreTarget::Latest) => LegacyTarget::Index(parse_index(text)?),
        (None, RestoreTarget::Time(time)) => LegacyTarget::Time(time),
        (None, RestoreTarget::Latest) => LegacyTarget::Latest,
    };
    Ok(Some(LegacyOrder { generation: Some(generation), target }))
}

fn parse_index(text: &str) -> Result<u32, CliError> {
    let valid = (1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let index = valid.then(|| u32::from_str_radix(text, 16).ok()).flatten();
    index.ok_or_else(|| {
        CliError::usage(format!("{text:?} is not an index"))
            .hint("an index is 1 to 8 hexadecimal digits, as in the names of wal segments")
    })
}

/// Says what was restored, or what would be.
pub(super) fn report(order: &Order, status: &LegacyStatus, started: Instant, json: bool, out: &mut Out) {
    match (order.config.dry_run, json) {
        (true, true) => out.json(&plan(order, status)),
        (true, false) => print_plan(&plan(order, status), out),
        (false, true) => out.json(&summary(order, status, started)),
        (false, false) => print_summary(&summary(order, status, started), out),
    }
}

/// The same, of one among several.
pub(super) fn value(order: &Order, status: &LegacyStatus, started: Instant) -> Value {
    let value = match order.config.dry_run {
        true => serde_json::to_value(plan(order, status)),
        false => serde_json::to_value(summary(order, status, started)),
    };
    value.expect("a report is plain data")
}

/// The same in a line.
pub(super) fn line(order: &Order, status: &LegacyStatus, database: &str) -> String {
    let done = if order.config.dry_run { "" } else { "restored from " };
    let (generation, index) = (generation(status), index(status.index));
    format!("{database}: {done}generation {generation}, index {index}, written {}", rfc3339(status.stamp))
}

fn summary(order: &Order, status: &LegacyStatus, started: Instant) -> Summary {
    Summary {
        db_path: order.output.display().to_string(),
        replica: order.replica.kind(),
        generation: generation(status),
        index: index(status.index),
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        integrity_check: order.integrity.word(),
        timestamp: rfc3339(status.stamp),
        page_size: status.page_size.map_or(0, |size| size.get()),
        pages: status.pages,
        frames: status.frames,
        bytes_fetched: status.bytes_fetched,
        requests: status.requests,
    }
}

fn print_summary(summary: &Summary, out: &mut Out) {
    let bytes = u64::from(summary.pages) * u64::from(summary.page_size);
    out.line(format_args!(
        "restored {} from generation {} to index {}, written {}",
        summary.db_path, summary.generation, summary.index, summary.timestamp
    ));
    out.line(format_args!(
        "{} pages, {}, in {:.2} s; the snapshot proven by its checksum, {} frames by that of their wal",
        human_count(summary.pages.into()),
        human_bytes(bytes),
        summary.duration_ms as f64 / 1000.0,
        human_count(summary.frames)
    ));
}

fn plan(order: &Order, status: &LegacyStatus) -> PlanSummary {
    PlanSummary {
        source: order.replica.url(),
        target_path: order.output.display().to_string(),
        replica: order.replica.kind(),
        generation: generation(status),
        index: index(status.index),
        timestamp: rfc3339(status.stamp),
        files: status.plan.iter().map(row).collect(),
        fetch_bytes: status.plan.iter().map(|it| it.len).sum(),
    }
}

fn row(listed: &LegacyListed) -> PlanRow {
    let object = listed.object;
    let (kind, offset) = match object.part {
        LegacyPart::Wal { offset } => ("wal", Some(format!("{offset:08x}"))),
        LegacyPart::Snapshot => ("snapshot", None),
        LegacyPart::WholeWal { .. } => unreachable!("a plan holds none"),
    };
    PlanRow {
        kind,
        index: index(Some(object.index)),
        offset,
        name: object.to_string(),
        size: listed.len,
        timestamp: rfc3339(listed.modified),
    }
}

fn print_plan(plan: &PlanSummary, out: &mut Out) {
    out.line("restore plan:");
    out.line(format_args!("  source: {}", plan.source));
    out.line(format_args!("  target: {}", plan.target_path));
    out.line(format_args!(
        "  state:  generation {}, index {}, written {}",
        plan.generation, plan.index, plan.timestamp
    ));
    out.line(format_args!("  reads:  {}", human_bytes(plan.fetch_bytes)));
    out.line("\nfiles, in the order in which they apply:");
    let mut table = Table::new(["kind", "index", "offset", "size", "timestamp"]);
    for file in &plan.files {
        table.row(vec![
            file.kind.to_owned(),
            file.index.clone(),
            file.offset.clone().unwrap_or_else(|| "-".to_owned()),
            file.size.to_string(),
            file.timestamp.clone(),
        ]);
    }
    out.table(&table);
}

fn generation(status: &LegacyStatus) -> String {
    status.generation.map_or_else(|| "-".to_owned(), |generation| generation.to_string())
}

fn index(index: Option<u32>) -> String {
    index.map_or_else(|| "-".to_owned(), |index| format!("{index:08x}"))
}
