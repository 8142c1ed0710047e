//! `driftless verify`.

use driftless_core::machine::{OpIds, ReplicaId};
use driftless_core::verify::{Verifier, VerifyConfig, VerifyStatus};
use serde::Serialize;

use super::args::Args;
use super::error::CliError;
use super::output::{Out, human_bytes, human_count};
use super::progress::Progress;
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
}

/// Reads a whole replica and says what is wrong with it.
pub fn run(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let target =
        target::resolve(args, "driftless verify /path/to/db, or driftless verify file:///path/to/replica")?;
    logging::start(args, target.config.as_ref().map_or(&Logging::default(), |config| &config.logging))?;
    let machine = Verifier::new(VerifyConfig::default(), OpIds::new(ReplicaId(0), driver::entropy()));
    let mut progress = Progress::new(target.replica.url());
    let (exit, status) =
        host::run_machine(machine, &target.replica, None, None, &mut |notice| progress.notice(notice))?;
    progress.finish();
    let summary = summary(&target.replica, status, exit.code() == 0);
    if args.is_on("json") {
        out.json(&summary);
    } else {
        print(&summary, out);
    }
    CliError::from_exit(exit)
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
}
