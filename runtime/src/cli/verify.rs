//! `driftless verify`, and the drill that may follow it.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use driftless_core::legacy::EitherStatus;
use driftless_core::machine::{OpIds, ReplicaId};
use driftless_core::restore::RestoreConfig;
use driftless_core::verify::{Verifier, VerifyConfig, VerifyStatus};
use serde::Serialize;

use super::args::Args;
use super::error::CliError;
use super::integrity::Integrity;
use super::output::{Out, human_bytes, human_count};
use super::progress::Progress;
use super::restore::{self, Order};
use super::segments::rfc3339;
use super::{logging, target};
use crate::config::{Logging, Replica};
use crate::{driver, host};

/// The outcome of a verification.
#[derive(Serialize)]
struct Summary {
    source: String,
    ok: bool,
    objects: u64,
    checked: u64,
    chained: u64,
    unchained: u64,
    bytes: u64,
    requests: u64,
    faults: Vec<String>,
    /// Null unless it was asked for.
    restore: Option<Drill>,
}

/// A restore to a scratch file.
#[derive(Serialize)]
struct Drill {
    txid: Option<String>,
    timestamp: Option<String>,
    pages: u32,
    duration_ms: u64,
    integrity_check: &'static str,
    /// By the checksum of the whole state, which a replica of other programs does not have.
    proven: bool,
}

/// Where a drill restores to; removed with it.
struct ScratchFile(PathBuf);

impl Drop for ScratchFile {
    fn drop(&mut self) {
        // It is not there if the restore failed.
        let _ = fs::remove_file(&self.0);
    }
}

/// Reads a whole replica and says what is wrong with it.
pub fn run(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let integrity = match args.text("integrity-check")? {
        Some(_) if !args.is_on("restore") => {
            return Err(CliError::usage("-integrity-check was given without -restore")
                .hint("only what is restored can be asked"));
        }
        text => Integrity::parse(text.or(Some("quick")))?,
    };
    let target =
        target::resolve(args, "driftless verify /path/to/db, or driftless verify file:///path/to/replica")?;
    logging::start(args, target.config.as_ref().map_or(&Logging::default(), |config| &config.logging))?;
    let machine = Verifier::new(VerifyConfig::default(), OpIds::new(ReplicaId(0), driver::entropy()));
    let mut progress = Progress::new(target.replica.url());
    let (exit, status) =
        host::run_machine(machine, &target.replica, None, None, &mut |notice| progress.notice(notice))?;
    progress.finish();
    let mut summary = summary(&target.replica, status, exit.code() == 0);
    let mut drilled = Ok(());
    if summary.ok && args.is_on("restore") {
        match drill(&target.replica, integrity) {
            Ok(drill) => summary.restore = Some(drill),
            Err(error) => drilled = Err(error),
        }
    }
    if args.is_on("json") {
        out.json(&summary);
    } else {
        print(&summary, out);
    }
    CliError::from_exit(exit).and(drilled)
}

/// Restores the newest state, has SQLite look at it, and removes it.
fn drill(replica: &Replica, integrity: Integrity) -> Result<Drill, CliError> {
    let name = format!("driftless-drill-{:016x}.db", driver::entropy());
    let scratch = ScratchFile(std::env::temp_dir().join(name));
    let order = Order {
        replica: replica.clone(),
        output: scratch.0.clone(),
        config: RestoreConfig::default(),
        legacy: None,
        integrity,
        vacant: false,
    };
    let started = Instant::now();
    let mut progress = Progress::new(scratch.0.display().to_string());
    let result = restore::execute(&order, &mut |notice| progress.notice(notice));
    progress.finish();
    let (txid, stamp, pages, proven) = match result? {
        EitherStatus::Ltx(status) => (status.target, status.stamp, status.pages, status.proven),
        EitherStatus::Legacy(status) => (None, None, status.pages, false),
    };
    Ok(Drill {
        txid: txid.map(|txid| txid.to_string()),
        timestamp: stamp.map(|stamp| rfc3339(Some(stamp))),
        pages,
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        integrity_check: integrity.word(),
        proven,
    })
}

fn summary(replica: &Replica, status: VerifyStatus, ok: bool) -> Summary {
    Summary {
        source: replica.url(),
        ok,
        objects: status.objects,
        checked: status.checked,
        chained: status.chained,
        unchained: status.unchained,
        bytes: status.bytes,
        requests: status.requests,
        faults: status.faults,
        restore: None,
    }
}

fn print(summary: &Summary, out: &mut Out) {
    for fault in &summary.faults {
        out.line(format_args!("fault: {fault}"));
    }
    out.line(format_args!(
        "{} of {} objects read, {}: {} with known states, {} with their own checksum only; {}",
        human_count(summary.checked),
        human_count(summary.objects),
        human_bytes(summary.bytes),
        human_count(summary.chained),
        human_count(summary.unchained),
        match (summary.faults.len(), summary.ok) {
            (0, true) => "no fault".to_owned(),
            (0, false) => "not all could be checked".to_owned(),
            (1, _) => "1 fault".to_owned(),
            (count, _) => format!("{count} faults"),
        }
    ));
    if let Some(drill) = &summary.restore {
        out.line(format_args!(
            "restored to txid {} and removed again: {} pages in {:.2} s, {}; integrity check: {}",
            drill.txid.as_deref().unwrap_or("-"),
            human_count(drill.pages.into()),
            drill.duration_ms as f64 / 1000.0,
            restore::proof(drill.proven),
            drill.integrity_check
        ));
    }
}
