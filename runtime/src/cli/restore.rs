//! `driftless restore`.
//!
//! The machine of the core plans, fetches and proves; what is here reads the flags, decides
//! whether the target may be replaced, asks SQLite for its opinion of the result before it is put
//! in place, and reports. What is different where Litestream 0.3 wrote the replica is in `legacy`, and
//! a whole configuration in `all`, and what goes on after the restore in `follow`.

mod all;
mod follow;
mod legacy;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use driftless_core::ids::{Txid, Wall};
use driftless_core::legacy::{EitherRestorer, EitherStatus, LegacyOrder};
use driftless_core::machine::{Exit, OpIds, ReplicaId};
use driftless_core::restore::{PlannedFile, RestoreConfig, RestoreStatus, RestoreTarget};
use serde::Serialize;

use super::args::Args;
use super::error::CliError;
use super::integrity::Integrity;
use super::logging;
use super::output::{Out, Table, human_bytes, human_count};
use super::progress::Progress;
use super::segments::{Segments, rfc3339};
use super::target::{self, Target};
use crate::config::{Logging, Replica, absolute};
use crate::port::output::Check;
use crate::port::vacancy::Vacancy;
use crate::{driver, host};

/// What is to be restored, and where to.
#[derive(Clone, Debug)]
pub struct Order {
    /// The replica.
    pub replica: Replica,
    /// Where the database shall stand.
    pub output: PathBuf,
    /// How to restore.
    pub config: RestoreConfig,
    /// What is wanted of Litestream 0.3's layout, if that was asked for.
    pub legacy: Option<LegacyOrder>,
    /// What SQLite is asked about the result.
    pub integrity: Integrity,
    /// Whether the place was found free, and has to be so still when the database is there.
    pub vacant: bool,
}

/// A restore that went well, with Litestream's fields first.
#[derive(Serialize)]
struct Summary {
    db_path: String,
    replica: &'static str,
    txid: String,
    duration_ms: u64,
    integrity_check: &'static str,
    timestamp: String,
    page_size: u32,
    pages: u32,
    pages_fetched: u64,
    pages_kept: u64,
    resumed: bool,
    bytes_fetched: u64,
    requests: u64,
    proven: bool,
    damaged: Vec<String>,
}

/// What a restore would read, with Litestream's fields first.
#[derive(Serialize)]
struct PlanSummary {
    source: String,
    target_path: String,
    replica: &'static str,
    min_txid: String,
    max_txid: String,
    files: Vec<PlanRow>,
    timestamp: String,
    page_size: u32,
    pages: u32,
    fetch_bytes: u64,
    /// Pages that need not be fetched, since they stand in the target's place.
    pages_kept: u64,
    /// Whether it is no more than that: what stands there may spare some of it.
    at_most: bool,
}

#[derive(Serialize)]
struct PlanRow {
    level: u8,
    name: String,
    min_txid: String,
    max_txid: String,
    size: u64,
    timestamp: String,
    pages: u32,
    fetch_bytes: u64,
}

/// Restores a database.
pub fn run(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let config = RestoreConfig {
        target: wanted_state(args)?,
        dry_run: args.is_on("dry-run"),
        parallelism: parallelism(args.text("parallelism")?)?,
        ..RestoreConfig::default()
    };
    let legacy = legacy::order(args, config.target)?;
    let integrity = Integrity::parse(args.text("integrity-check")?)?;
    let following = follow::wanted(args)?;
    if args.is_on("all") {
        return all::run(args, &config, integrity, out);
    }
    let target =
        target::resolve(args, "driftless restore /path/to/db, or driftless restore -o PATH file:///replica")?;
    logging::start(args, target.config.as_ref().map_or(&Logging::default(), |config| &config.logging))?;
    let output = output_path(args, &target)?;
    if let Some(interval) = following {
        return follow::run(args, interval, &target.replica, output, (config, integrity));
    }
    let mut order = Order { replica: target.replica, output, config, legacy, integrity, vacant: false };
    let started = Instant::now();
    let Outcome::Done(status) = carry_out(&mut order, args)? else { return Ok(()) };
    let status = match *status {
        EitherStatus::Ltx(status) => status,
        EitherStatus::Legacy(status) => {
            legacy::report(&order, &status, started, args.is_on("json"), out);
            return Ok(());
        }
    };
    match (order.config.dry_run, args.is_on("json")) {
        (true, true) => out.json(&plan(&order, &status)),
        (true, false) => print_plan(&plan(&order, &status), out),
        (false, true) => out.json(&summary(&order, &status, started)),
        (false, false) => print_summary(&summary(&order, &status, started), out),
    }
    Ok(())
}

/// What became of an order that went well.
enum Outcome {
    /// The database is there, which is fine.
    Exists,
    /// There is nothing to restore from, which is fine.
    Nothing,
    Done(Box<EitherStatus>),
}

/// Restores unless the flags say that there is nothing to do.
fn carry_out(order: &mut Order, args: &Args) -> Result<Outcome, CliError> {
    if order.config.dry_run {
        // What stands there spares something only where it may be replaced.
        order.config.replace = args.is_on("force");
    } else {
        match may_write(&order.output, args)? {
            Verdict::Skip => {
                tracing::info!(database = %order.output.display(), "the database exists, nothing is restored");
                return Ok(Outcome::Exists);
            }
            Verdict::Write { replace, vacant } => {
                (order.config.replace, order.vacant) = (replace, vacant);
            }
        }
    }
    let mut progress = Progress::new(order.output.display().to_string());
    let result = execute(order, &mut |notice| progress.notice(notice));
    progress.finish();
    match result {
        Err(error) if error.code == 3 && args.is_on("if-replica-exists") => {
            tracing::info!(replica = order.replica.url(), "there is nothing to restore from: {error}");
            Ok(Outcome::Nothing)
        }
        result => result.map(|status| Outcome::Done(Box::new(status))),
    }
}

/// Runs a restore to its end. `driftless demo` restores by this function, too.
pub fn execute(
    order: &Order,
    on_notice: &mut dyn FnMut(&driftless_core::machine::Notice),
) -> Result<EitherStatus, CliError> {
    let findings = Arc::new(Mutex::new(None::<String>));
    let checks = order.integrity != Integrity::None;
    let check: Option<Check> = (checks || order.vacant).then(|| {
        let (mode, findings) = (order.integrity, Arc::clone(&findings));
        let target = order.vacant.then(|| order.output.clone());
        Box::new(move |file: &Path| {
            target.as_deref().map_or(Ok(()), Vacancy::still_free)?;
            if !checks {
                return Ok(());
            }
            mode.check(file).inspect_err(|found| {
                *findings.lock().expect("no holder panics") = Some(found.clone());
            })
        }) as Check
    });
    let ids = OpIds::new(ReplicaId(0), driver::entropy());
    let machine = EitherRestorer::new(order.config.clone(), order.legacy, ids);
    let output = Some(order.output.clone());
    let (exit, status) = host::run_machine(machine, &order.replica, output, check, on_notice)?;
    // The machine only knows that the file could not be put in place.
    if exit != Exit::Done
        && let Some(found) = findings.lock().expect("no holder panics").take()
    {
        return Err(CliError::corrupt(format!("the {} integrity check failed", order.integrity.word()))
            .cause(found)
            .hint(
                "the target is untouched; run driftless verify on the replica, or restore an earlier -txid",
            ));
    }
    match CliError::from_exit(exit) {
        Ok(()) => Ok(status),
        Err(error) => Err(CliError { error: with_dates(&error.error), ..error }),
    }
}

/// The core knows no calendar and says `1577836800000 ms since 1970`.
fn with_dates(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(" ms") {
        let (before, after) = rest.split_at(at);
        let digits = before.len() - before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (kept, number) = before.split_at(before.len() - digits);
        match number.parse().ok().filter(|_| digits >= 12) {
            Some(millis) => {
                out.push_str(kept);
                out.push_str(&rfc3339(Some(Wall(millis))));
                rest = after.strip_prefix(" ms since 1970").or(after.strip_prefix(" ms")).unwrap_or(after);
            }
            None => {
                out.push_str(&rest[..at + 3]);
                rest = &rest[at + 3..];
            }
        }
    }
    out + rest
}

fn wanted_state(args: &Args) -> Result<RestoreTarget, CliError> {
    match (args.text("txid")?, args.text("timestamp")?) {
        (Some(_), Some(_)) => {
            Err(CliError::usage("both -txid and -timestamp were given").hint("keep one of them"))
        }
        (Some(txid), None) => parse_txid(txid).map(RestoreTarget::At),
        (None, Some(time)) => parse_timestamp(time, jiff::Timestamp::now()).map(RestoreTarget::Time),
        (None, None) => Ok(RestoreTarget::Latest),
    }
}

fn parse_txid(text: &str) -> Result<Txid, CliError> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let valid = (1..=16).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let txid = valid.then(|| u64::from_str_radix(digits, 16).ok()).flatten().and_then(Txid::new);
    txid.ok_or_else(|| {
        CliError::usage(format!("{text:?} is not a txid"))
            .hint("a txid is 1 to 16 hexadecimal digits and not zero, as driftless ltx prints it")
    })
}

fn parse_timestamp(text: &str, now: jiff::Timestamp) -> Result<Wall, CliError> {
    let wrong = |hint: String| Err(CliError::usage(format!("{text:?} is not a point in time")).hint(hint));
    match text.parse::<jiff::Timestamp>().or_else(|error| ago(text, now).ok_or(error)) {
        // Down to the millisecond in which it lies, also before 1970.
        Ok(time) => {
            Ok(Wall(i64::try_from(time.as_nanosecond().div_euclid(1_000_000)).expect("jiff ends in 9999")))
        }
        Err(_) if text.parse::<jiff::civil::DateTime>().is_ok() => {
            let full = text.contains(':');
            wrong(format!("add the offset from utc: {text}{}", if full { "Z" } else { "T00:00:00Z" }))
        }
        Err(_) => wrong(
            "write it as 2026-01-31T12:00:00Z, 2026-01-31T14:00:00+02:00 or \"10 minutes ago\"".to_owned(),
        ),
    }
}

/// A time before now, as in `10 minutes ago` or `1h30m ago`. Days and more are those of UTC.
fn ago(text: &str, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let span: jiff::Span = text.strip_suffix("ago").and(text.parse().ok())?;
    Some(now.to_zoned(jiff::tz::TimeZone::UTC).checked_add(span).ok()?.timestamp())
}

fn parallelism(text: Option<&str>) -> Result<usize, CliError> {
    let Some(text) = text else { return Ok(RestoreConfig::default().parallelism) };
    text.parse().ok().filter(|count| (1..=256).contains(count)).ok_or_else(|| {
        CliError::usage(format!("-parallelism {text} is out of range")).hint("a number from 1 to 256")
    })
}

fn output_path(args: &Args, target: &Target) -> Result<PathBuf, CliError> {
    let path = match (args.path("o"), &target.database) {
        (Some(path), _) => absolute(&path).map_err(|error| {
            CliError::usage(format!("cannot tell where {} is", path.display())).cause(error)
        })?,
        (None, Some(database)) => database.clone(),
        (None, None) => {
            return Err(CliError::usage("a replica alone does not say where the database shall stand")
                .hint("name the place with -o PATH"));
        }
    };
    if path.is_dir() {
        return Err(CliError::usage(format!("{} is a directory", path.display()))
            .hint("name the file of the database with -o"));
    }
    Ok(path)
}

/// Whether the target may be written.
#[derive(PartialEq, Eq, Debug)]
enum Verdict {
    /// It exists, and that is fine.
    Skip,
    /// It may be written.
    Write {
        /// Whether something that stands there may be replaced.
        replace: bool,
        /// Whether nothing that counts stands there.
        vacant: bool,
    },
}

fn may_write(output: &Path, args: &Args) -> Result<Verdict, CliError> {
    let vacancy = Vacancy::of(output)
        .map_err(|error| CliError::failed(format!("cannot look at {}", output.display())).cause(error))?;
    let error = match vacancy {
        Vacancy::Free { replace } => return Ok(Verdict::Write { replace, vacant: true }),
        Vacancy::Taken if args.is_on("if-db-not-exists") => return Ok(Verdict::Skip),
        _ if args.is_on("force") => return Ok(Verdict::Write { replace: true, vacant: false }),
        Vacancy::Taken => CliError::failed(format!("{} exists", output.display())),
        Vacancy::Remains(remains) => {
            let error = format!("{} exists, though its database does not", remains.display());
            CliError::failed(error).cause("SQLite would replay it into what is restored")
        }
    };
    Err(error.hint("name another place with -o, or replace what is there with -force"))
}

fn summary(order: &Order, status: &RestoreStatus, started: Instant) -> Summary {
    Summary {
        db_path: order.output.display().to_string(),
        replica: order.replica.kind(),
        txid: txid(status.target),
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        integrity_check: order.integrity.word(),
        timestamp: rfc3339(status.stamp),
        page_size: status.page_size.map_or(0, |size| size.get()),
        pages: status.pages,
        pages_fetched: status.pages_done,
        pages_kept: status.pages_kept,
        resumed: status.resumed,
        bytes_fetched: status.bytes_fetched,
        requests: status.requests,
        proven: status.proven,
        damaged: status.excluded.iter().map(ToString::to_string).collect(),
    }
}

fn print_summary(summary: &Summary, out: &mut Out) {
    let bytes = u64::from(summary.pages) * u64::from(summary.page_size);
    out.line(format_args!(
        "restored {} to txid {}, captured {}",
        summary.db_path, summary.txid, summary.timestamp
    ));
    out.line(format_args!(
        "{} pages, {}, in {:.2} s; {}",
        human_count(summary.pages.into()),
        human_bytes(bytes),
        summary.duration_ms as f64 / 1000.0,
        proof(summary.proven)
    ));
    out.line(fetched_and_kept(summary));
    for object in &summary.damaged {
        out.line(format_args!("went around a damaged object: {object}"));
    }
}

/// Where its pages come from.
fn fetched_and_kept(summary: &Summary) -> String {
    let (fetched, bytes) = (human_count(summary.pages_fetched), human_bytes(summary.bytes_fetched));
    let whence =
        if summary.resumed { "what a killed restore had left" } else { "the database that was there" };
    match summary.pages_kept {
        0 => format!("{fetched} pages fetched in {bytes}"),
        kept => format!("{fetched} pages fetched in {bytes}, {} kept of {whence}", human_count(kept)),
    }
}

/// What vouches for a restored state.
pub(super) const fn proof(proven: bool) -> &'static str {
    match proven {
        true => "proven by the checksum of the whole state",
        false => "each file proven by its own checksum",
    }
}

fn plan(order: &Order, status: &RestoreStatus) -> PlanSummary {
    let wanted: Vec<_> = status.plan.iter().map(|file| (file.object.level, file.object.range)).collect();
    let headers = Segments::new(&order.replica).headers(&wanted);
    let files = status.plan.iter().zip(headers).map(|(file, header)| {
        let (level, range) = (file.object.level, file.object.range);
        PlanRow {
            level: level.get(),
            name: format!("{range}.ltx"),
            min_txid: range.min().to_string(),
            max_txid: range.max().to_string(),
            size: file.len,
            timestamp: rfc3339(header.map(|header| header.stamp)),
            pages: file.pages,
            fetch_bytes: fetched(file),
        }
    });
    PlanSummary {
        source: order.replica.url(),
        target_path: order.output.display().to_string(),
        replica: order.replica.kind(),
        min_txid: txid(status.plan.first().map(|file| file.object.range.min())),
        max_txid: txid(status.target),
        files: files.collect(),
        timestamp: rfc3339(status.stamp),
        page_size: status.page_size.map_or(0, |size| size.get()),
        pages: status.pages,
        fetch_bytes: status.plan.iter().map(fetched).sum(),
        pages_kept: status.pages_kept,
        at_most: status.guesses,
    }
}

/// What is read of a file: all of it, or the pages that are wanted.
fn fetched(file: &PlannedFile) -> u64 {
    if file.ranged { file.fetch_bytes } else { file.len }
}

fn print_plan(plan: &PlanSummary, out: &mut Out) {
    out.line("restore plan:");
    out.line(format_args!("  source: {}", plan.source));
    out.line(format_args!("  target: {}", plan.target_path));
    out.line(format_args!("  state:  txid {}, captured {}", plan.max_txid, plan.timestamp));
    out.line(format_args!(
        "  reads:  {}{} for {} pages of {}",
        if plan.at_most { "at most " } else { "" },
        human_bytes(plan.fetch_bytes),
        human_count(u64::from(plan.pages).saturating_sub(plan.pages_kept)),
        human_bytes(plan.page_size.into())
    ));
    if plan.pages_kept > 0 {
        let kept = human_count(plan.pages_kept);
        out.line(format_args!("  keeps:  {kept} pages of the database that is there"));
    }
    out.line("\nfiles, in the order in which they apply:");
    let mut table = Table::new(["level", "file", "min_txid", "max_txid", "size", "pages", "timestamp"]);
    for file in &plan.files {
        table.row(vec![
            file.level.to_string(),
            file.name.clone(),
            file.min_txid.clone(),
            file.max_txid.clone(),
            file.size.to_string(),
            file.pages.to_string(),
            file.timestamp.clone(),
        ]);
    }
    out.table(&table);
}

fn txid(txid: Option<Txid>) -> String {
    txid.map_or_else(|| "-".to_owned(), |txid| txid.to_string())
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
