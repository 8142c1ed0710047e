//! `driftless restore -f`: a copy that stays current.
//!
//! The machine of the core restores, applies and resumes; what is here reads the flags and decides
//! whether the place may be written when nothing there says that it is a copy of ours.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driftless_core::follow::{FollowConfig, Follower};
use driftless_core::machine::{Exit, Fact, OpIds, ReplicaId};
use driftless_core::restore::RestoreConfig;

use super::super::args::Args;
use super::super::error::CliError;
use super::super::integrity::Integrity;
use super::super::progress::Progress;
use super::{Verdict, may_write};
use crate::config::{Replica, duration};
use crate::port::copy::position_path;
use crate::port::output::Check;
use crate::{driver, host, log};

/// Flags that ask for one state, or for a command that ends.
const CONTRADICTIONS: [&str; 7] = ["txid", "timestamp", "generation", "index", "all", "dry-run", "json"];

/// How often to look, if the database is to be followed.
pub fn wanted(args: &Args) -> Result<Option<Duration>, CliError> {
    let interval = args.text("follow-interval")?;
    if !args.is_on("f") {
        return match interval {
            Some(_) => Err(CliError::usage("-follow-interval has no effect without -f").hint("add -f")),
            None => Ok(None),
        };
    }
    if let Some(flag) = CONTRADICTIONS.iter().find(|flag| args.os_value(flag).is_some()) {
        return Err(CliError::usage(format!("-f cannot be used with -{flag}"))
            .hint("-f goes on with the newest state until it is told to end; leave one of them out"));
    }
    let Some(text) = interval else { return Ok(Some(FollowConfig::default().interval)) };
    let wrong =
        |why: String| CliError::usage(format!("-follow-interval {text:?}: {why}")).hint("1s, 500ms, 2m");
    match duration::parse(text).map_err(wrong)? {
        Duration::ZERO => Err(wrong("it must be longer than nothing".into())),
        interval => Ok(Some(interval)),
    }
}

/// Follows until a signal comes.
pub fn run(
    args: &Args,
    interval: Duration,
    replica: &Replica,
    output: PathBuf,
    (restore, integrity): (RestoreConfig, Integrity),
) -> Result<(), CliError> {
    let mut config =
        FollowConfig { interval, replace: args.is_on("force"), restore, ..FollowConfig::default() };
    if !position_path(&output).exists() {
        match may_write(&output, args)? {
            Verdict::Skip => {
                tracing::info!(database = %output.display(), "the database exists, nothing is restored");
                return Ok(());
            }
            Verdict::Write { replace, vacant } => {
                (config.restore.replace, config.replace) = (replace, !vacant);
            }
        }
    }
    let name = output.display().to_string();
    let mut progress = Some(Progress::new(name.clone()));
    let findings = Arc::new(Mutex::new(None::<String>));
    let ids = OpIds::new(ReplicaId(0), driver::entropy());
    let follower = Follower::new(config, ids);
    let check = check(integrity, Arc::clone(&findings));
    let exit = host::run_follower(follower, replica, output, check, &mut |notice| {
        // From then on there is no end that could come nearer.
        if notice.fact == Fact::Attached
            && let Some(progress) = progress.take()
        {
            progress.finish();
        }
        match &mut progress {
            Some(progress) => progress.notice(notice),
            None => log::notice(&name, notice),
        }
    })?;
    if let Some(progress) = progress {
        progress.finish();
    }
    if let (false, Some(found)) = (exit == Exit::Done, findings.lock().expect("no holder panics").take()) {
        let error = format!("the {} integrity check failed", integrity.word());
        return Err(CliError::corrupt(error).cause(found).hint("run driftless verify on the replica"));
    }
    match exit {
        Exit::Done => {
            tracing::info!(database = name, "stopped; the copy stays as it is, and goes on from there")
        }
        Exit::NothingToRestore { error, .. } if args.is_on("if-replica-exists") => {
            tracing::info!(replica = replica.url(), "there is nothing to restore from: {error}");
        }
        exit => return CliError::from_exit(exit),
    }
    Ok(())
}

fn check(integrity: Integrity, findings: Arc<Mutex<Option<String>>>) -> Option<Check> {
    (integrity != Integrity::None).then(|| {
        Box::new(move |file: &Path| {
            integrity.check(file).inspect_err(|found| {
                *findings.lock().expect("no holder panics") = Some(found.clone());
            })
        }) as Check
    })
}
