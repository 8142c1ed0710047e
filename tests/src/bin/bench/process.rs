//! What `/proc` says of a process.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use driftless_tests::place::Place;
use driftless_tests::proc::status_kib;

use crate::Program;

/// A replicator under measurement.
pub struct Measured {
    /// Which.
    pub program: Program,
    child: Child,
}

impl Measured {
    /// Starts it on `db` with a replica in `replica`.
    pub fn start(program: Program, db: &Path, replica: &(impl Place + ?Sized)) -> Measured {
        let log = fs::File::create(db.with_extension("log")).expect("a log file is made");
        let mut command = Command::new(program.binary());
        replica.equip(&mut command).arg("replicate").arg(db).arg(replica.url());
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("the replicator starts");
        Measured { program, child }
    }

    /// Starts ours with a configuration.
    pub fn configured(db: &Path, config: &Path) -> Measured {
        let log = fs::File::create(db.with_extension("log")).expect("a log file is made");
        let mut command = Command::new(Program::Driftless.binary());
        command.arg("replicate").arg("-config").arg(config);
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("the replicator starts");
        Measured { program: Program::Driftless, child }
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap_or_default()
    }

    /// Processor time, user and system.
    pub fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let ticks: u64 = [11, 12].iter().filter_map(|i| fields.get(*i)?.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory now, MiB.
    pub fn rss_mb(&self) -> f64 {
        status_kib(self.child.id(), "VmRSS") as f64 / 1024.0
    }

    /// The most that was resident, MiB.
    pub fn peak_mb(&self) -> f64 {
        status_kib(self.child.id(), "VmHWM") as f64 / 1024.0
    }

    /// Bytes given to write calls.
    pub fn bytes_written(&self) -> u64 {
        let io = self.proc("io");
        let line = io.lines().find(|line| line.starts_with("wchar"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
    }

    /// Threads, descriptors, and context switches so far.
    pub fn counts(&self) -> (usize, usize, u64) {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).map(|dir| {
            dir.filter_map(Result::ok)
                .map(|task| fs::read_to_string(task.path().join("status")).unwrap_or_default())
                .collect::<Vec<_>>()
        });
        let tasks = tasks.unwrap_or_default();
        let switches = tasks
            .iter()
            .flat_map(|status| status.lines())
            .filter(|line| line.contains("ctxt_switches"))
            .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
            .sum();
        let fds = fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count);
        (tasks.len(), fds, switches)
    }

    /// Asks it to finish and waits; how long that took.
    pub fn stop(mut self) -> Duration {
        let begun = Instant::now();
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let status = self.child.wait().expect("it ends");
        if !status.success() {
            println!("{} ended with {status}", self.program.name());
        }
        begun.elapsed()
    }
}
