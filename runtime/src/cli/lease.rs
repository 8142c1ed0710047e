//! `driftless lease` and `driftless handoff`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use driftless_core::lease::{Body, PlaceId, State};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::Args;
use super::error::CliError;
use super::need_config;
use super::output::Out;
use super::remote::{self, Question};
use crate::config::{Config, Lease, Replica};
use crate::host;

/// How often the lease is looked at while somebody waits for the successor.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Databases that are named to people.
const ACTIVE_SHOWN: usize = 8;

fn section(config: &Config) -> Result<Lease, CliError> {
    config.lease.clone().ok_or_else(|| {
        CliError::usage(format!("{} has no lease", config.path.display()))
            .hint("docs/FAILOVER.md tells how to write one")
    })
}

/// The databases of a configuration that the holder has put to last, the newest first. Those that lie in
/// directories are known as far as they are on this host.
fn active(config: &Config, body: &Body) -> Vec<String> {
    let named = config.databases.iter().map(|it| (it.replica.place_id(), it.path.clone()));
    let scans = config.directories.iter().map(|it| (it, it.scan().unwrap_or_default()));
    let found = scans.flat_map(|(directory, scan)| {
        let jobs = scan.databases.into_iter().filter_map(|path| directory.job_for(&path));
        jobs.map(|job| (job.replica.place_id(), job.database)).collect::<Vec<_>>()
    });
    let known: Vec<(PlaceId, PathBuf)> = named.chain(found).collect();
    let of = |place| known.iter().find(|(it, _)| *it == place);
    body.active.places().filter_map(of).map(|(_, path)| path.display().to_string()).collect()
}

/// Shows who holds the lease.
pub fn show(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let config = need_config(args)?;
    let lease = section(&config)?;
    let body = read(&lease.replica)?;
    let place = lease.replica.place().to_string();
    let since = |body: &Body| {
        Timestamp::from_millisecond(body.since.0).map_or(Value::Null, |at| json!(at.to_string()))
    };
    match (body, args.is_on("json")) {
        (None, true) => out.json(&json!({ "place": place, "state": "absent" })),
        (None, false) => out.line(format_args!("nobody has ever held the lease at {place}")),
        (Some(body), true) => out.json(&json!({
            "place": place,
            "state": body.state.word(),
            "epoch": body.epoch,
            "holder": format!("{:016x}", body.holder),
            "address": body.address,
            "since": since(&body),
            "ttl_ms": body.ttl.as_millis() as u64,
            "segments": body.progress,
            "active": active(&config, &body),
        })),
        (Some(body), false) => {
            out.line(format_args!("lease at {place}"));
            out.line(format_args!("  state:    {}", body.state.word()));
            out.line(format_args!("  epoch:    {}", body.epoch));
            out.line(format_args!("  holder:   {:016x} {}", body.holder, body.address));
            out.line(format_args!("  since:    {}", since(&body).as_str().unwrap_or("unknown")));
            out.line(format_args!("  segments: {}", body.progress));
            let active = active(&config, &body);
            for database in active.iter().take(ACTIVE_SHOWN) {
                out.line(format_args!("  active:   {database}"));
            }
            if let Some(more) = active.len().checked_sub(ACTIVE_SHOWN + 1) {
                out.line(format_args!("  active:   and {} more", more + 1));
            }
        }
    }
    Ok(())
}

fn read(replica: &Replica) -> Result<Option<Body>, CliError> {
    let found = host::read_lease(replica).map_err(|error| {
        CliError::failed("the lease cannot be read")
            .cause(error.to_string())
            .hint(error.hint.unwrap_or_default())
    })?;
    let Some(bytes) = found else { return Ok(None) };
    Body::decode(&bytes).map(Some).map_err(CliError::corrupt)
}

/// Has the primary of this host end, and waits for the next.
pub fn handoff(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let lease = section(&need_config(args)?)?;
    let timeout = remote::timeout(args, 60)?;
    let before = read(&lease.replica)?;
    let question = Question { method: "POST", target: "/handoff", body: Some(&json!({})), timeout };
    remote::ask(args, None, question, "the process does not hand over")?;
    let begun = Instant::now();
    let epoch = before.map_or(0, |body| body.epoch);
    let mut released = false;
    while begun.elapsed() < timeout {
        if let Some(body) = read(&lease.replica)? {
            released |= body.state == State::Released || body.epoch > epoch;
            if body.epoch > epoch && body.state == State::Active {
                let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                let holder = format!("{:016x}", body.holder);
                match args.is_on("json") {
                    true => out.json(&json!({ "holder": holder, "address": body.address, "epoch": body.epoch, "duration_ms": took_ms })),
                    false => out.line(format_args!("handed over to {holder} {} in {took_ms} ms, epoch {}", body.address, body.epoch)),
                }
                return Ok(());
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let error = match released {
        true => "the lease was given up, and nobody has taken over yet",
        false => "the primary has not given the lease up yet",
    };
    Err(CliError::failed(error).hint("see to the standby: driftless standby -config PATH"))
}
