//! Facts become log lines. Field names are those of the facts.

use driftless_core::machine::{Exit, Fact, Notice, Severity, Verdict};

/// One line for a notice.
pub fn notice(database: &str, notice: &Notice) {
    let text = describe(&notice.fact);
    match notice.severity {
        Severity::Debug => tracing::debug!(database, "{text}"),
        Severity::Info => tracing::info!(database, "{text}"),
        Severity::Warn => tracing::warn!(database, "{text}"),
        Severity::Error => tracing::error!(database, "{text}"),
    }
}

/// One line for an end.
pub fn exit(database: &str, exit: &Exit) {
    match exit {
        Exit::Done => tracing::info!(database, "stopped, everything is replicated"),
        Exit::Unreplicated { from, frames, error } => {
            tracing::error!(database, txid = %from, frames, "stopped with unreplicated transactions from {from} on: {error}");
        }
        Exit::Overtaken { error } => tracing::info!(database, "the copy is not at the end yet: {error}"),
        Exit::Failed { error, hint }
        | Exit::Misconfigured { error, hint }
        | Exit::NothingToRestore { error, hint }
        | Exit::Corrupt { error, hint }
        | Exit::Fenced { error, hint } => tracing::error!(database, hint, "stopped: {error}"),
    }
}

/// A fact in words.
pub fn describe(fact: &Fact) -> String {
    match fact {
        Fact::Attached => "following the database".into(),
        Fact::Detached { sealed: true } => "the database is quiet: let go, position sealed".into(),
        Fact::Detached { sealed: false } => "let go of the database".into(),
        Fact::Waiting { why, hint } => format!("waiting: {why}; {hint}"),
        Fact::Head { txid: Some(txid) } => format!("the replica ends at transaction {txid}"),
        Fact::Head { txid: None } => "the replica is empty".into(),
        Fact::Base { full: true, why } => format!("writing the whole database: {why}"),
        Fact::Base { full: false, why } => format!("writing the pages that differ: {why}"),
        Fact::Replicated { txid, bytes, pages } => {
            format!("replicated txid={txid} pages={pages} bytes={bytes}")
        }
        Fact::Compacted { object, bytes, inputs, inputs_bytes } => {
            format!("compacted object={object} bytes={bytes} files={inputs} files_bytes={inputs_bytes}")
        }
        Fact::Retained { objects, bytes } => {
            format!("deleted what need not be kept objects={objects} bytes={bytes}")
        }
        Fact::Validated { verdict, objects, bytes } => validated(verdict, *objects, *bytes),
        Fact::Followed { txid, files, bytes, pages, lag_ms } => {
            format!("followed txid={txid} files={files} pages={pages} bytes={bytes} lag_ms={lag_ms}")
        }
        Fact::Adopted { txid } => format!("took over transaction {txid} of an earlier run"),
        Fact::Checkpointed { frames, backfilled, took, held } => {
            let held = held.map_or(String::new(), |held| format!(" held_us={}", held.as_micros()));
            format!("checkpoint frames={frames} backfilled={backfilled} took_us={}{held}", took.as_micros())
        }
        Fact::WalOverBound { frames } => {
            format!("the WAL holds {frames} frames and cannot be restarted: an application's reader keeps it")
        }
        Fact::Retrying { what, error, hint, wait_ms } => {
            let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
            format!("{what} failed, again in {wait_ms} ms: {error}{hint}")
        }
        Fact::Recovered { what } => format!("{what}: works again"),
        Fact::StateTrouble { error } => format!("local state cannot be written, going on without: {error}"),
        Fact::Remark { text } => text.clone(),
        Fact::Progress { what, done, total } => format!("{what}: {done} of {total}"),
        other => format!("{other:?}"),
    }
}

fn validated(verdict: &Verdict, objects: u64, bytes: u64) -> String {
    match verdict {
        Verdict::Sound => format!("validated the replica, it is sound objects={objects} bytes={bytes}"),
        Verdict::Faulty { fault, more } => {
            let more = if *more == 0 { String::new() } else { format!("; and {more} more") };
            format!(
                "validated the replica, it is damaged objects={objects} bytes={bytes}: {fault}{more}; \
                 run driftless verify on the replica for all that is wrong"
            )
        }
        Verdict::Undone { error, hint, wait_ms } => {
            let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
            format!("validating the replica could not be done, again in {wait_ms} ms: {error}{hint}")
        }
    }
}
