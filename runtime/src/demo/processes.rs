//! The two processes of the demo. Both are killed when their handle is dropped.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use driftless_core::ids::Txid;
use rustix::process::{Pid, Signal, kill_process};

use super::Stage;
use super::writer::WRITER_COMMAND;
use crate::cli::error::CliError;
use crate::host;

/// A child that does not outlive its handle.
#[derive(Debug)]
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Fails for a child that has ended and been awaited, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Owned {
    fn await_end(&mut self, patience: Duration) -> Result<Option<ExitStatus>, CliError> {
        let begun = Instant::now();
        loop {
            let ended =
                self.0.try_wait().map_err(|error| CliError::failed("cannot await a process").cause(error))?;
            if ended.is_some() || begun.elapsed() >= patience {
                return Ok(ended);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn this_binary() -> Result<Command, CliError> {
    let path = std::env::current_exe()
        .map_err(|error| CliError::failed("cannot find the binary that is running").cause(error))?;
    Ok(Command::new(path))
}

/// The application.
#[derive(Debug)]
pub(super) struct Application {
    child: Owned,
    written: Arc<AtomicU64>,
    reader: Option<JoinHandle<()>>,
}

impl Application {
    /// Starts it, and waits for its first transactions.
    pub(super) fn start(database: &Path) -> Result<Application, CliError> {
        let mut child = this_binary()?
            .arg(WRITER_COMMAND)
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| CliError::failed("cannot start the application").cause(error))?;
        let written = Arc::new(AtomicU64::new(0));
        let lines = BufReader::new(child.stdout.take().expect("standard output is piped")).lines();
        let reader = std::thread::spawn({
            let written = Arc::clone(&written);
            move || {
                for count in lines.map_while(Result::ok).filter_map(|line| line.parse().ok()) {
                    written.store(count, Ordering::Relaxed);
                }
            }
        });
        let mut application = Application { child: Owned(child), written, reader: Some(reader) };
        while application.transactions() == 0 {
            application.check()?;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(application)
    }

    /// How many transactions it has told of.
    pub(super) fn transactions(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Fails if it has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), CliError> {
        match self.child.await_end(Duration::ZERO)? {
            None => Ok(()),
            Some(status) => Err(CliError::failed("the application ended too early").cause(status)),
        }
    }

    /// Lets it end, and returns how many transactions it committed.
    pub(super) fn stop(mut self) -> Result<u64, CliError> {
        drop(self.child.0.stdin.take());
        match self.child.await_end(super::PATIENCE)? {
            Some(status) if status.success() => {}
            Some(status) => return Err(CliError::failed("the application failed").cause(status)),
            None => return Err(CliError::failed("the application does not stop")),
        }
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading lines does not panic");
        }
        Ok(self.transactions())
    }
}

/// What the replicator says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Everything up to here can be restored.
    pub(super) replicated: Option<Txid>,
    /// Committed frames beyond that.
    pub(super) frames_behind: u64,
}

/// `driftless replicate`.
#[derive(Debug)]
pub(super) struct Replicator(Owned);

impl Replicator {
    /// Starts it; its log goes to a file, after that of its predecessor.
    pub(super) fn start(stage: &Stage) -> Result<Replicator, CliError> {
        let failed = |error| CliError::failed("cannot start driftless replicate").cause(error);
        let log = File::options().create(true).append(true).open(&stage.log).map_err(failed)?;
        let child = this_binary()?
            .arg("replicate")
            .arg(&stage.database)
            .arg(stage.replica.url())
            .arg("-state-dir")
            .arg(&stage.state)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        Ok(Replicator(Owned(child)))
    }

    /// Its process.
    pub(super) fn id(&self) -> u32 {
        self.0.0.id()
    }

    /// Asks it how it is, as `driftless status` does; `None` while it does not answer.
    pub(super) fn look(&self, stage: &Stage) -> Option<Look> {
        let reply = host::query_status(&stage.state).ok()??;
        let entry = reply["databases"].get(0)?;
        Some(Look {
            replicated: entry["replicated_txid"].as_str().and_then(Txid::parse_hex16),
            frames_behind: entry["lag_frames"].as_u64().unwrap_or(0),
        })
    }

    /// The highest transaction that it reports as replicated.
    pub(super) fn replicated(&self, stage: &Stage) -> Result<Option<Txid>, CliError> {
        match self.look(stage) {
            Some(look) => Ok(look.replicated),
            None => Err(CliError::failed("driftless replicate does not answer")),
        }
    }

    /// Fails if it has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), CliError> {
        match self.0.await_end(Duration::ZERO)? {
            None => Ok(()),
            Some(status) => Err(CliError::failed("driftless replicate ended too early").cause(status)),
        }
    }

    /// SIGKILL.
    pub(super) fn kill(mut self) -> Result<(), CliError> {
        let killed = self.0.0.kill().and_then(|()| self.0.0.wait());
        killed.map(drop).map_err(|error| CliError::failed("cannot kill driftless replicate").cause(error))
    }

    /// SIGTERM, upon which it has to end well.
    pub(super) fn terminate(mut self, patience: Duration) -> Result<(), CliError> {
        let pid =
            i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("process numbers are positive");
        kill_process(pid, Signal::TERM)
            .map_err(|error| CliError::failed("cannot signal driftless replicate").cause(error))?;
        match self.0.await_end(patience)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(CliError::failed("driftless replicate did not end well").cause(status)),
            None => Err(CliError::failed("driftless replicate does not stop")),
        }
    }
}
