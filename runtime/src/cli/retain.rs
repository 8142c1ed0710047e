//! `driftless retain`: one pass of the retention, or what it would do.

use std::time::Duration;

use driftless_core::machine::{OpIds, ReplicaId};
use driftless_core::retain::{Removal, RetainConfig, RetainPass, Retainer};
use serde::Serialize;

use super::args::Args;
use super::error::CliError;
use super::output::{Out, human_bytes, human_count};
use super::progress::Progress;
use super::target::Target;
use super::{logging, target};
use crate::config::{Logging, duration};
use crate::{driver, host};

/// What a pass did, or would do.
#[derive(Serialize)]
struct Summary {
    source: String,
    dry_run: bool,
    objects: usize,
    bytes: u64,
    removed: Vec<Gone>,
}

/// A file that went, or would.
#[derive(Serialize)]
struct Gone {
    level: u8,
    min_txid: String,
    max_txid: String,
    size: u64,
    because: String,
}

impl From<&Removal> for Gone {
    fn from(removal: &Removal) -> Gone {
        let object = removal.file.object;
        Gone {
            level: object.level.get(),
            min_txid: object.range.min().to_string(),
            max_txid: object.range.max().to_string(),
            size: removal.file.len,
            because: removal.because.to_string(),
        }
    }
}

/// Deletes what the replica need not keep, or says what that is.
pub fn run(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let target =
        target::resolve(args, "driftless retain -dry-run /path/to/db, or a replica as a url or a directory")?;
    logging::start(args, target.config.as_ref().map_or(&Logging::default(), |config| &config.logging))?;
    let config = config(args, &target)?;
    let dry_run = args.is_on("dry-run");
    let ids = OpIds::new(ReplicaId(0), driver::entropy());
    let machine = Retainer::new(config, RetainPass::Once { dry_run }, ids);
    let mut progress = Progress::new(target.replica.url());
    let (exit, status) =
        host::run_machine(machine, &target.replica, None, None, &mut |notice| progress.notice(notice))?;
    progress.finish();
    let summary = Summary {
        source: target.replica.url(),
        dry_run,
        objects: status.removed.len(),
        bytes: status.removed.iter().map(|removal| removal.file.len).sum(),
        removed: status.removed.iter().map(Gone::from).collect(),
    };
    if args.is_on("json") {
        out.json(&summary);
    } else {
        print(&summary, out);
    }
    CliError::from_exit(exit)
}

/// The times that the configuration has for the database, or Litestream's, unless flags say otherwise.
fn config(args: &Args, target: &Target) -> Result<RetainConfig, CliError> {
    let named = target.config.as_ref().zip(target.database.as_ref());
    let levels = match named.and_then(|(config, path)| config.database(path)) {
        Some(database) => database.settings.levels.clone(),
        None => None,
    };
    let mut config = match &levels {
        Some(levels) => levels.retention.clone().unwrap_or_default(),
        None => RetainConfig::default(),
    };
    config.top = levels.map(|levels| levels.levels.len() as u8);
    for (flag, time) in
        [("snapshot-retention", &mut config.snapshot_retention), ("l0-retention", &mut config.l0_retention)]
    {
        let Some(text) = args.text(flag)? else { continue };
        *time =
            duration::parse(text).ok().filter(|time| *time >= Duration::from_secs(1)).ok_or_else(|| {
                CliError::usage(format!("-{flag} is not a time: {text}"))
                    .hint("give a duration of at least a second, such as 24h")
            })?;
    }
    Ok(config)
}

fn print(summary: &Summary, out: &mut Out) {
    for gone in &summary.removed {
        out.line(format_args!(
            "{}/{}-{}  {}  {}",
            gone.level,
            gone.min_txid,
            gone.max_txid,
            human_bytes(gone.size),
            gone.because
        ));
    }
    let (count, bytes) = (human_count(summary.objects as u64), human_bytes(summary.bytes));
    out.line(match (summary.dry_run, summary.objects) {
        (_, 0) => format_args!("nothing may go").to_string(),
        (true, _) => format!("{count} objects, {bytes}, would be deleted"),
        (false, _) => format!("{count} objects, {bytes}, deleted"),
    });
}
