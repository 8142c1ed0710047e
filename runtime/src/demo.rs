//! `driftless demo`: the whole story in about twenty seconds.
//!
//! An application writes, Driftless replicates, somebody pulls the plug on Driftless, it comes
//! back, the application stops, a restore follows, and the result is compared with the source
//! page for page. Nothing is staged: the application and the replicator are processes of their
//! own, since SQLite's locks on one file do not keep two connections of one process apart, and
//! the replicator is `driftless replicate` itself.
//!
//! What is compared are the two files, after the source has been checkpointed and everybody has
//! left it. A copy made by SQLite's backup or `VACUUM INTO` would be another file with the same
//! rows; only equal pages show that the replica holds what was committed and nothing else.

mod compare;
mod processes;
mod show;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use driftless_core::ids::Txid;
use driftless_core::legacy::EitherStatus;
use driftless_core::restore::{RestoreConfig, RestoreStatus, RestoreTarget};

use crate::cli::args::Args;
use crate::cli::error::CliError;
use crate::cli::integrity::Integrity;
use crate::cli::output::{Out, human_bytes, human_count};
use crate::cli::restore::{Order, execute};
use crate::config::Replica;
use processes::{Application, Replicator};
use show::Show;

pub use writer::{WRITER_COMMAND, write};

/// How often the figures are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long anything may take that should take a moment.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where everything happens.
struct Stage {
    directory: PathBuf,
    database: PathBuf,
    replica: Replica,
    state: PathBuf,
    restored: PathBuf,
    earlier: PathBuf,
    log: PathBuf,
}

/// What happened, for the table at the end.
#[derive(Default)]
struct Figures {
    transactions: u64,
    killed_at: Duration,
    killed_after: u64,
    gap: Duration,
    recovery: Duration,
    last_txid: Option<Txid>,
    segments: usize,
    replica_bytes: u64,
    restore: Duration,
    pages: u64,
    page_size: u32,
    earlier_orders: u64,
}

/// Runs the demo.
pub fn run(args: &Args, out: &mut Out) -> Result<(), CliError> {
    let seconds = match args.text("seconds")? {
        None => 14.0,
        Some(text) => {
            text.parse().ok().filter(|seconds| (2.0..=3600.0).contains(seconds)).ok_or_else(|| {
                CliError::usage(format!("-seconds {text} is out of range")).hint("a number from 2 to 3600")
            })?
        }
    };
    let stage = Stage::set_up()?;
    let mut show = Show::new(out);
    let result = play(&stage, Duration::from_secs_f64(seconds), &mut show);
    show.finish();
    match &result {
        Ok(_) if !args.is_on("keep") => {
            fs::remove_dir_all(&stage.directory).map_err(|error| {
                CliError::failed(format!("cannot remove {}", stage.directory.display())).cause(error)
            })?;
        }
        Ok(_) => out.line(format_args!("\neverything is in {}", stage.directory.display())),
        Err(_) => {}
    }
    result.map_err(|error| match &error.hint {
        Some(_) => error,
        None => error.hint(format!(
            "the files are in {}, the log is {}",
            stage.directory.display(),
            stage.log.display()
        )),
    })
}

fn play(stage: &Stage, writing: Duration, show: &mut Show<'_>) -> Result<(), CliError> {
    let mut figures = Figures::default();
    show.title(&format!(
        "driftless demo: {:.0} seconds of writing in {}",
        writing.as_secs_f64(),
        stage.directory.display()
    ));
    let mut application = Application::start(&stage.database)?;
    show.say(
        "an application creates app.db and writes: one order a transaction, as fast as about 1,500 a second",
    );
    let begun = Instant::now();
    let mut replicator = Replicator::start(stage)?;
    show.say(&format!("driftless replicate app.db replica (process {})", replicator.id()));

    let first = await_txid(stage, None, &mut replicator, &application, show)?;
    show.say(&format!("the first transactions can be restored: txid {}", short(first)));
    watch(stage, begun, writing.mul_f64(0.5), &mut replicator, &mut application, show)?;

    // What the process itself has reported as replicated is what must survive.
    let before = replicator.replicated(stage)?.map_or(first, |now| now.max(first));
    let victim = replicator.id();
    replicator.kill()?;
    let killed = Instant::now();
    (figures.killed_at, figures.killed_after) = (begun.elapsed(), application.transactions());
    show.say(&format!(
        "kill -9 {victim}: driftless dies at txid {}; the application writes on",
        short(before)
    ));
    let pause = writing.mul_f64(0.1).min(Duration::from_secs(2));
    while killed.elapsed() < pause {
        show.live(application.transactions(), None);
        application.check()?;
        std::thread::sleep(LOOK);
    }
    let mut replicator = Replicator::start(stage)?;
    let restarted = Instant::now();
    show.say(&format!("driftless starts again (process {})", replicator.id()));
    let after = await_txid(stage, Some(before), &mut replicator, &application, show)?;
    (figures.gap, figures.recovery) = (killed.elapsed(), restarted.elapsed());
    show.say(&format!(
        "and goes on where it was: txid {}, {:.1} s after its start",
        short(after),
        figures.recovery.as_secs_f64()
    ));
    watch(stage, begun, writing, &mut replicator, &mut application, show)?;

    figures.transactions = application.stop()?;
    show.say(&format!("the application stops after {} transactions", human_count(figures.transactions)));
    replicator.terminate(PATIENCE)?;
    show.say("SIGTERM: driftless sends what is left, and ends with exit code 0");
    judge(stage, before, &mut figures, show)?;
    show.table(&rows(&figures, before));
    show.verdict("every page of the restored database is that of the source");
    Ok(())
}

/// Restores twice and compares.
fn judge(stage: &Stage, before: Txid, figures: &mut Figures, show: &mut Show<'_>) -> Result<(), CliError> {
    let started = Instant::now();
    let status = restore(stage, &stage.restored, RestoreTarget::Latest)?;
    figures.restore = started.elapsed();
    figures.last_txid = status.target;
    figures.page_size = status.page_size.map_or(0, |size| size.get());
    (figures.segments, figures.replica_bytes) = compare::replica_size(&stage.directory.join("replica"))?;
    show.say(&format!(
        "driftless restore: {} pages in {:.2} s{}",
        human_count(status.pages.into()),
        figures.restore.as_secs_f64(),
        if status.proven { ", proven by the checksum of the whole state" } else { "" }
    ));
    compare::settle(&stage.database)?;
    figures.pages = compare::pages(&stage.database, &stage.restored, figures.page_size)?;
    let orders = compare::orders(&stage.restored)?;
    if orders != figures.transactions {
        return Err(CliError::failed(format!(
            "the application committed {} transactions, and {orders} were restored",
            figures.transactions
        )));
    }
    show.say(&format!(
        "compared with app.db: {} of {} pages are equal",
        human_count(figures.pages),
        human_count(figures.pages)
    ));
    restore(stage, &stage.earlier, RestoreTarget::At(before))?;
    figures.earlier_orders = compare::orders(&stage.earlier)?;
    show.say(&format!(
        "the last state reported before the kill is there, too: txid {}, {} transactions",
        short(before),
        human_count(figures.earlier_orders)
    ));
    Ok(())
}

fn restore(stage: &Stage, output: &Path, target: RestoreTarget) -> Result<RestoreStatus, CliError> {
    let order = Order {
        replica: stage.replica.clone(),
        output: output.to_owned(),
        config: RestoreConfig { target, ..RestoreConfig::default() },
        legacy: None,
        integrity: Integrity::Full,
        vacant: false,
    };
    match execute(&order, &mut |_| {})? {
        EitherStatus::Ltx(status) => Ok(status),
        EitherStatus::Legacy(_) => Err(CliError::failed("the demo's replica holds another's files")),
    }
}

/// Shows the figures until `until` after `begun`.
fn watch(
    stage: &Stage,
    begun: Instant,
    until: Duration,
    replicator: &mut Replicator,
    application: &mut Application,
    show: &mut Show<'_>,
) -> Result<(), CliError> {
    while begun.elapsed() < until {
        application.check()?;
        replicator.check()?;
        show.live(application.transactions(), replicator.look(stage).as_ref());
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Waits until a transaction after `before` is reported as replicated.
fn await_txid(
    stage: &Stage,
    before: Option<Txid>,
    replicator: &mut Replicator,
    application: &Application,
    show: &mut Show<'_>,
) -> Result<Txid, CliError> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        replicator.check()?;
        let look = replicator.look(stage);
        show.live(application.transactions(), look.as_ref());
        match look.and_then(|look| look.replicated) {
            Some(txid) if before.is_none_or(|before| txid > before) => return Ok(txid),
            _ => std::thread::sleep(LOOK),
        }
    }
    Err(CliError::failed(format!("nothing was replicated within {} seconds", PATIENCE.as_secs())))
}

fn rows(figures: &Figures, before: Txid) -> Vec<(&'static str, String)> {
    let database_bytes = figures.pages * u64::from(figures.page_size);
    let rate = database_bytes as f64 / figures.restore.as_secs_f64().max(1e-6);
    vec![
        ("transactions written", human_count(figures.transactions)),
        ("txids", figures.last_txid.map_or_else(|| "-".to_owned(), |last| format!("1 to {}", short(last)))),
        ("database", human_bytes(database_bytes)),
        ("replica", format!("{} in {} segments", human_bytes(figures.replica_bytes), figures.segments)),
        (
            "killed",
            format!(
                "after {:.1} s and {} transactions, at txid {}",
                figures.killed_at.as_secs_f64(),
                human_count(figures.killed_after),
                short(before)
            ),
        ),
        (
            "gap in replication",
            format!(
                "{:.1} s, of which {:.1} s to come back; nothing of it is lost",
                figures.gap.as_secs_f64(),
                figures.recovery.as_secs_f64()
            ),
        ),
        ("restore", format!("{:.2} s, {} a second", figures.restore.as_secs_f64(), human_bytes(rate as u64))),
        ("pages compared", format!("{}, all equal", human_count(figures.pages))),
    ]
}

/// A txid without its leading zeros, as a person says it.
fn short(txid: Txid) -> String {
    format!("{:x}", txid.get())
}

impl Stage {
    fn set_up() -> Result<Stage, CliError> {
        use std::os::unix::fs::DirBuilderExt;
        let directory = std::env::temp_dir().join(format!("driftless-demo-{}", std::process::id()));
        let failed = |error: &dyn std::fmt::Display| {
            CliError::failed(format!("cannot make {}", directory.display()))
                .cause(error)
                .hint("TMPDIR names the directory for temporary files")
        };
        fs::DirBuilder::new().mode(0o700).create(&directory).map_err(|error| failed(&error))?;
        let replica = Replica::from_path(&directory.join("replica")).map_err(|error| failed(&error.error))?;
        let at = |name: &str| directory.join(name);
        Ok(Stage {
            database: at("app.db"),
            replica,
            state: at("state"),
            restored: at("restored.db"),
            earlier: at("earlier.db"),
            log: at("replicate.log"),
            directory,
        })
    }
}
