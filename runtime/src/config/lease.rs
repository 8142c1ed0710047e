//! The `lease` section: how this host contends with others for the right to write.

use std::time::Duration;

use driftless_core::retain::RetainConfig;

use super::read::Defaults;
use super::replica::describe_url;
use super::scope::{Result, Scope, text};
use super::yaml::{Entry, LineError};
use super::{Config, Lease, Replica, keys};

/// Shorter, and a slow answer of a store is the end of a holder.
const TTL_MIN: Duration = Duration::from_secs(2);
const TTL_MAX: Duration = Duration::from_secs(10 * 60);
/// Shorter, and a writer that stood still for a weekend no longer meets them.
const FENCE_RETENTION_MIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads it, and refuses what would not be safe beside it.
pub(super) fn lease(
    entry: &Entry,
    defaults: &Defaults<'_>,
    config: &Config,
    warnings: &mut Vec<String>,
) -> Result<Lease> {
    let scope = Scope::new(&entry.value, "lease", &[keys::LEASE], false, warnings)?;
    let line = |name: &str| scope.entry(name).map_or(entry.line, |entry| entry.line);
    let ttl = scope.duration_from("ttl", TTL_MIN)?.unwrap_or(Duration::from_secs(10));
    if ttl > TTL_MAX {
        return Err(LineError::new(line("ttl"), "ttl is longer than ten minutes")
            .hint("a successor waits for that long; 10s is usual"));
    }
    let replica = match scope.entry("url") {
        Some(entry) => {
            let described = describe_url(text(&entry.value, "url")?, defaults.options()?, defaults.env);
            described.map_err(|error| super::read::at(entry.line, error))?.replica
        }
        None => only_replica(config, entry.line)?,
    };
    if matches!(replica, Replica::Directory(_)) {
        return Err(LineError::new(
            line("url"),
            "a directory cannot hold a lease: it replaces nothing on condition",
        )
        .hint("failover takes s3, abs or gs; name one with lease.url"));
    }
    let fence_retention = scope.duration_from("fence-retention", FENCE_RETENTION_MIN)?;
    let words = |name: &str| -> Result<Option<String>> { Ok(scope.filled(name)?.map(str::to_owned)) };
    Ok(Lease {
        replica,
        ttl,
        fence_retention: fence_retention.unwrap_or(RetainConfig::default().fence_retention),
        address: words("address")?,
        promote: words("promote")?,
        demote: words("demote")?,
    })
}

fn only_replica(config: &Config, line: usize) -> Result<Replica> {
    match config.databases.as_slice() {
        [database] if config.directories.is_empty() => Ok(database.replica.clone()),
        [] if config.directories.is_empty() => {
            Err(LineError::new(line, "there is a lease and no database").hint("name one under dbs"))
        }
        _ => Err(LineError::new(
            line,
            "one lease is for all databases of the file, and each has a replica of its own",
        )
        .hint("say with url where the lease is, such as s3://bucket/cluster")),
    }
}
