//! What a scrape finds: a look at each database as its engine last told, and at the process.
//!
//! No database is woken for it: what is followed was looked at a quarter of a second ago, and what is
//! quiet has not changed.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use driftless_adapters::pool::unblock;
use driftless_core::engine::Status;
use driftless_core::health::Ailment;
use driftless_core::ids::{Mono, Wall};
use driftless_core::lease::Role;
use driftless_core::validate::ValidateStatus;

use super::PER_DATABASE_MAX;
use super::requests::{BUCKETS, Outcome};
use super::tally::Tally;
use super::text::Text;
use crate::clock;
use crate::control::phase;
use crate::host::Host;
use crate::host::databases::{Entry, Life};

/// Every word that `phase` has.
const PHASES: [&str; 8] =
    ["starting", "waiting", "following", "base", "quiet", "stopping", "stopped", "ended"];
/// Lines of `/healthz` about what is ill.
const ILL_LINES_MAX: usize = 100;

/// A database that has series of its own.
struct Row {
    path: PathBuf,
    db: String,
    replica: String,
    phase: &'static str,
    status: Option<Status>,
    tally: Tally,
    well: bool,
    /// Whether its last validation found a fault, if it is validated.
    damaged: Option<bool>,
    last_sync: Option<Wall>,
    sizes: (Option<u64>, Option<u64>),
}

/// All databases together.
#[derive(Default)]
struct Totals {
    phases: [u64; PHASES.len()],
    ill: u64,
    lag_max: f64,
    lag_frames: u64,
    pages_waiting: u64,
    uploading: u64,
}

/// The answer to a scrape.
pub(crate) async fn metrics(host: &Host) -> String {
    let now = clock::now();
    let totals = totals(host, now.mono);
    let mut rows = rows(host, now.mono);
    let paths: Vec<PathBuf> = rows.iter().map(|row| row.path.clone()).collect();
    // Off this thread: a disk that hangs must not keep the others waiting.
    for (row, sizes) in
        rows.iter_mut().zip(unblock(move || paths.iter().map(|path| sizes(path)).collect::<Vec<_>>()).await)
    {
        row.sizes = sizes;
    }
    let mut text = Text::default();
    of_process(host, &mut text);
    of_all(&totals, &mut text);
    of_tiers(host, &mut text);
    of_lease(host, &mut text);
    of_requests(host, &mut text);
    of_each(&rows, now.mono, now.wall, &mut text);
    as_litestream(&rows, &mut text);
    text.finish()
}

/// 200 and a word if every database is well, otherwise 503 and what is the matter with which.
pub(crate) fn health(host: &Host) -> (u16, String) {
    let now = clock::mono();
    let (mut ill, mut count) = (String::new(), 0);
    host.for_each(|entry| {
        if let Some(word) = matter(entry, now) {
            count += 1;
            if count <= ILL_LINES_MAX {
                let _ = writeln!(ill, "{}: {word}", entry.database.display());
            }
        }
    });
    match count {
        0 if crate::service::is_well(host) => (200, "ok\n".to_owned()),
        0 => (
            503,
            host.lease
                .as_ref()
                .map_or(
                    "there is no database\n",
                    |_| "this process is not the primary, and no standby that could be\n",
                )
                .to_owned(),
        ),
        _ => (503, ill),
    }
}

/// What is the matter with a database, in a word.
fn matter(entry: &Entry, now: Mono) -> Option<&'static str> {
    match entry.life {
        Life::Running => entry.ailment(now).map(Ailment::word),
        _ => Some(phase(entry)),
    }
}

fn lag_seconds(status: &Status, now: Mono) -> f64 {
    status.behind_since.map_or(0.0, |since| now.since(since).as_secs_f64())
}

/// Whether its lag is known: while commits go unseen it is not.
fn known(status: &Status) -> bool {
    status.waiting.as_ref().is_none_or(|waiting| !waiting.unseen)
}

fn totals(host: &Host, now: Mono) -> Totals {
    let mut totals = Totals::default();
    host.for_each(|entry| {
        let phase = phase(entry);
        let at = PHASES.iter().position(|known| *known == phase).expect("every phase is in the list");
        totals.phases[at] += 1;
        totals.ill += u64::from(matter(entry, now).is_some());
        if let Some(status) = entry.status() {
            totals.lag_max = totals.lag_max.max(lag_seconds(&status, now));
            totals.lag_frames += status.frames_behind;
            totals.pages_waiting += status.pages_waiting;
            totals.uploading += u64::from(status.uploading);
        }
    });
    totals
}

/// The databases that have series of their own: all, or the worst.
fn rows(host: &Host, now: Mono) -> Vec<Row> {
    let mut order = Vec::new();
    host.for_each(|entry| {
        let lag = entry.status().map_or(Duration::ZERO, |status| {
            status.behind_since.map_or(Duration::ZERO, |since| now.since(since))
        });
        order.push((Reverse((matter(entry, now).is_some(), lag)), entry.number));
    });
    if order.len() > PER_DATABASE_MAX {
        order.select_nth_unstable(PER_DATABASE_MAX);
        order.truncate(PER_DATABASE_MAX);
    }
    let mut numbers: Vec<u32> = order.into_iter().map(|(_, number)| number).collect();
    numbers.sort_unstable();
    let row = |entry: &Entry| Row {
        path: entry.database.clone(),
        db: entry.database.display().to_string(),
        replica: entry.replica.place(),
        phase: phase(entry),
        status: entry.status().map(Cow::into_owned),
        tally: entry.counted(),
        well: matter(entry, now).is_none(),
        damaged: entry.validation().map(ValidateStatus::is_faulty),
        last_sync: entry.last_sync,
        sizes: (None, None),
    };
    numbers.into_iter().filter_map(|number| host.look(number, row)).collect()
}

/// The sizes of a database and of its WAL, if they are there.
fn sizes(path: &Path) -> (Option<u64>, Option<u64>) {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let size = |path: &Path| path.metadata().ok().map(|facts| facts.len());
    (size(path), size(wal.as_ref()))
}

fn of_process(host: &Host, text: &mut Text) {
    text.family("driftless_build_info", "gauge", "The version, as a label.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    text.family("process_cpu_seconds_total", "counter", "Processor time of the process, in seconds.")
        .sample(&[], cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9);
    let started = host.started.wall.0 as f64 / 1000.0;
    text.family("process_start_time_seconds", "gauge", "When the process started, in seconds since 1970.")
        .sample(&[], started);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
    };
    for (family, line, help) in [
        ("process_resident_memory_bytes", "VmRSS", "Memory of the process that is resident, in bytes."),
        ("process_virtual_memory_bytes", "VmSize", "Address space of the process, in bytes."),
    ] {
        if let Some(kib) = kib(line) {
            text.family(family, "gauge", help).sample(&[], kib * 1024);
        }
    }
    if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the listing itself.
        text.family("process_open_fds", "gauge", "Open descriptors.")
            .sample(&[], fds.count().saturating_sub(1));
    }
    if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        text.family("process_max_fds", "gauge", "How many descriptors may be open.").sample(&[], most);
    }
    let reloads = host.reloads.borrow();
    text.family("driftless_reloads_total", "counter", "How often the configuration was read again.")
        .sample(&[], reloads.count);
    text.family("driftless_reload_failed", "gauge", "Whether the last reload changed nothing, for an error.")
        .sample(&[], u8::from(reloads.error.is_some()));
}

fn of_tiers(host: &Host, text: &mut Text) {
    let (cold, waiting, hot) = host.tier_counts();
    let help = "Databases that run: without need of an engine, waiting for a place, with one.";
    let mut family = text.family("driftless_database_tiers", "gauge", help);
    for (tier, count) in [("cold", cold), ("waiting", waiting), ("hot", hot)] {
        family.sample(&[("tier", tier)], count);
    }
}

/// Nothing where there is no lease.
fn of_lease(host: &Host, text: &mut Text) {
    let Some(lease) = &host.lease else { return };
    let status = lease.status();
    let mut family =
        text.family("driftless_lease_role", "gauge", "1 for what this process is among the contenders.");
    for role in Role::ALL {
        family.sample(&[("role", role.word())], u64::from(role == status.role));
    }
    let epoch = status.body.map_or(0, |body| body.epoch);
    text.family("driftless_lease_epoch", "gauge", "The epoch of the lease, as last seen.").sample(&[], epoch);
    let help = "Whether this process is the primary, with everything fenced.";
    text.family("driftless_lease_active", "gauge", help).sample(&[], u64::from(lease.is_active()));
    let help = "Requests to the store for the lease.";
    text.family("driftless_lease_requests_total", "counter", help).sample(&[], status.requests);
}

fn of_all(totals: &Totals, text: &mut Text) {
    let mut family = text.family("driftless_databases", "gauge", "Databases in each phase.");
    for (phase, count) in PHASES.iter().zip(totals.phases) {
        family.sample(&[("phase", phase)], count);
    }
    text.family("driftless_databases_ill", "gauge", "Databases that are not well, as /healthz has it.")
        .sample(&[], totals.ill);
    text.family("driftless_lag_seconds_max", "gauge", "The longest lag of all databases, in seconds.")
        .sample(&[], totals.lag_max);
    text.family("driftless_lag_frames_sum", "gauge", "WAL frames of all databases that are not replicated.")
        .sample(&[], totals.lag_frames);
    text.family("driftless_pages_waiting_sum", "gauge", "Captured pages of all databases that wait.")
        .sample(&[], totals.pages_waiting);
    text.family("driftless_uploads", "gauge", "Segments on their way to their stores.")
        .sample(&[], totals.uploading);
}

fn of_requests(host: &Host, text: &mut Text) {
    let counts = host.requests.counts();
    let each = || counts.iter().map(|((store, operation), counts)| (*store, operation.name(), counts));
    let mut family =
        text.family("driftless_requests_total", "counter", "Requests to stores, by how they ended.");
    for (store, operation, counts) in each() {
        for (outcome, count) in &counts.outcomes {
            let outcome = outcome.name();
            family.sample(&[("replica_type", store), ("operation", operation), ("outcome", outcome)], count);
        }
    }
    let ok = |outcome: &Outcome| *outcome == Outcome::Ok;
    let mut family =
        text.family("litestream_replica_operation_total", "counter", "Requests to stores that succeeded.");
    for (store, operation, counts) in each() {
        let succeeded: u64 = counts.outcomes.iter().filter(|(outcome, _)| ok(outcome)).map(|(_, n)| n).sum();
        family.sample(&[("replica_type", store), ("operation", operation)], succeeded);
    }
    let mut family =
        text.family("litestream_replica_operation_bytes", "counter", "Bytes that were put and got.");
    for (store, operation, counts) in each() {
        family.sample(&[("replica_type", store), ("operation", operation)], counts.bytes);
    }
    let mut family = text.family(
        "litestream_replica_operation_errors_total",
        "counter",
        "Requests to stores that failed.",
    );
    for (store, operation, counts) in each() {
        for (outcome, count) in counts.outcomes.iter().filter(|(outcome, _)| !ok(outcome)) {
            let labels = [("replica_type", store), ("operation", operation), ("code", outcome.name())];
            family.sample(&labels, count);
        }
    }
    let mut family = text.family(
        "litestream_replica_operation_duration_seconds",
        "histogram",
        "How long requests to stores took, in seconds.",
    );
    for (store, operation, counts) in each() {
        let mut sum = 0;
        let bounds = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(counts.buckets) {
            sum += count;
            let labels = [("replica_type", store), ("operation", operation), ("le", bound.as_str())];
            family.part("_bucket", &labels, sum);
        }
        let labels = [("replica_type", store), ("operation", operation)];
        family.part("_sum", &labels, counts.seconds);
        family.part("_count", &labels, sum);
    }
}

/// A family with a sample for each database that has a value.
fn each<V: std::fmt::Display>(
    rows: &[Row],
    text: &mut Text,
    (name, kind, help): (&'static str, &str, &str),
    value: impl Fn(&Row) -> Option<V>,
) {
    let mut family = text.family(name, kind, help);
    for row in rows {
        if let Some(value) = value(row) {
            family.sample(&[("db", &row.db), ("replica", &row.replica)], value);
        }
    }
}

fn of_each(rows: &[Row], now: Mono, wall: Wall, text: &mut Text) {
    const GAUGE: &str = "gauge";
    const COUNTER: &str = "counter";
    let status = |row: &Row, value: fn(&Status, Mono) -> f64| {
        row.status.as_ref().filter(|status| known(status)).map(|status| value(status, now))
    };
    let seconds = |at: Wall| at.0 as f64 / 1000.0;
    let family =
        ("driftless_lag_seconds", GAUGE, "Since when something is committed that is not replicated.");
    each(rows, text, family, |row| status(row, lag_seconds));
    let family = ("driftless_lag_frames", GAUGE, "Committed WAL frames that are not replicated.");
    each(rows, text, family, |row| status(row, |status, _| status.frames_behind as f64));
    let family = ("driftless_replicated_txid", GAUGE, "Everything up to this transaction is on the replica.");
    each(rows, text, family, |row| Some(row.status.as_ref()?.replicated?.get()));
    let family = ("driftless_well", GAUGE, "Whether the database is well, as /healthz has it.");
    each(rows, text, family, |row| Some(u8::from(row.well)));
    let family = ("driftless_pages_waiting", GAUGE, "Captured pages that wait for their segment.");
    each(rows, text, family, |row| row.status.as_ref().map(|status| status.pages_waiting));
    let family = ("driftless_uploading", GAUGE, "Whether a segment is on its way to the store.");
    each(rows, text, family, |row| row.status.as_ref().map(|status| u8::from(status.uploading)));
    let family = ("driftless_last_sync_timestamp_seconds", GAUGE, "When a segment was last put, since 1970.");
    each(rows, text, family, |row| row.last_sync.map(seconds));
    let family =
        ("driftless_snapshot_age_seconds", GAUGE, "Since when this process last wrote the whole database.");
    each(rows, text, family, |row| row.tally.snapshot_at.map(|at| seconds(wall) - seconds(at)));
    let family = ("driftless_segments_total", COUNTER, "Segments that were put.");
    each(rows, text, family, |row| Some(row.tally.segments));
    let family = ("driftless_segment_bytes_total", COUNTER, "Bytes of those segments.");
    each(rows, text, family, |row| Some(row.tally.segment_bytes));
    let family = ("driftless_segment_pages_total", COUNTER, "Pages in those segments.");
    each(rows, text, family, |row| Some(row.tally.segment_pages));
    let family = ("driftless_compactions_total", COUNTER, "Files of levels 1 and above that were made.");
    each(rows, text, family, |row| Some(row.tally.compactions));
    let family = ("driftless_compaction_bytes_total", COUNTER, "Bytes of those files.");
    each(rows, text, family, |row| Some(row.tally.compaction_bytes));
    let family =
        ("driftless_deletions_total", COUNTER, "Files that were deleted since they need not be kept.");
    each(rows, text, family, |row| Some(row.tally.deletions));
    let family = ("driftless_deletion_bytes_total", COUNTER, "Bytes of those files.");
    each(rows, text, family, |row| Some(row.tally.deletion_bytes));
    let family = ("driftless_bases_total", COUNTER, "Times that the database was read to be written anew.");
    each(rows, text, family, |row| Some(row.tally.bases));
    of_validations(rows, text);
    let mut family = text.family("driftless_phase", GAUGE, "1 for the phase that the database is in.");
    for row in rows {
        family.sample(&[("db", &row.db), ("replica", &row.replica), ("phase", row.phase)], 1);
    }
}

/// Of databases whose replicas are validated.
fn of_validations(rows: &[Row], text: &mut Text) {
    const RESULTS: [&str; 3] = ["sound", "faulty", "undone"];
    let validated = || rows.iter().filter(|row| row.damaged.is_some());
    let help = "Validations of the replica, by what came of them.";
    let mut family = text.family("driftless_validations_total", "counter", help);
    for row in validated() {
        for (result, count) in RESULTS.iter().zip(row.tally.validations) {
            family.sample(&[("db", &row.db), ("replica", &row.replica), ("result", result)], count);
        }
    }
    let help = "When a validation last came to its end, since 1970.";
    let family = ("driftless_last_validation_timestamp_seconds", "gauge", help);
    each(rows, text, family, |row| row.tally.validated_at.map(|at| at.0 as f64 / 1000.0));
    let help = "1 while the last validation that came to its end has found a fault.";
    each(rows, text, ("driftless_validation_failed", "gauge", help), |row| row.damaged.map(u8::from));
}

/// The names that dashboards for Litestream have. Its labels name the database only.
fn as_litestream(rows: &[Row], text: &mut Text) {
    fn one<V: std::fmt::Display>(
        rows: &[Row],
        text: &mut Text,
        (name, kind, help): (&'static str, &str, &str),
        value: impl Fn(&Row) -> Option<V>,
    ) {
        let mut family = text.family(name, kind, help);
        for row in rows {
            if let Some(value) = value(row) {
                family.sample(&[("db", &row.db)], value);
            }
        }
    }
    one(rows, text, ("litestream_db_size", "gauge", "Bytes of the database file."), |row| row.sizes.0);
    let family = ("litestream_wal_size", "gauge", "Bytes of its WAL file.");
    one(rows, text, family, |row| row.sizes.0.map(|_| row.sizes.1.unwrap_or(0)));
    let family = ("litestream_total_wal_bytes", "counter", "Bytes of its WAL that were captured.");
    one(rows, text, family, |row| Some(row.tally.wal_bytes));
    let family = ("litestream_txid", "gauge", "The transaction up to which it is replicated.");
    one(rows, text, family, |row| Some(row.status.as_ref()?.replicated.map_or(0, |txid| txid.get())));
    let family =
        ("litestream_sync_error_count", "counter", "Failures after which something was tried again.");
    one(rows, text, family, |row| Some(row.tally.failures));
    const MODES: [&str; 2] = ["PASSIVE", "RESTART"];
    let mut family = text.family("litestream_checkpoint_count", "counter", "Checkpoints that were run.");
    for (row, (mode, kind)) in rows.iter().flat_map(|row| MODES.iter().zip(0..).map(move |mode| (row, mode)))
    {
        family.sample(&[("db", &row.db), ("mode", mode)], row.tally.checkpoints[kind]);
    }
    let mut family = text.family("litestream_checkpoint_seconds", "counter", "How long those took.");
    for (row, (mode, kind)) in rows.iter().flat_map(|row| MODES.iter().zip(0..).map(move |mode| (row, mode)))
    {
        family.sample(&[("db", &row.db), ("mode", mode)], row.tally.checkpoint_time[kind].as_secs_f64());
    }
}
