//! What `/proc` says of another process.

use std::fs;
use std::time::Duration;

use crate::{PATIENCE, wait_for};

/// A line of `/proc/<pid>/status` in KiB, such as `VmRSS`; 0 for a process that has ended.
pub fn status_kib(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// How often the threads of a process have been switched to and from, all together.
pub fn context_switches(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process has threads");
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    let of_thread = |status: String| -> u64 {
        let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
        lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
    };
    statuses.map(of_thread).sum()
}

/// Fails unless a process, once it has come to rest, is not switched to for as long as `span`.
#[track_caller]
pub fn assert_no_switches(pid: u32, span: Duration) {
    let within = |span: Duration| {
        let before = context_switches(pid);
        std::thread::sleep(span);
        context_switches(pid) - before
    };
    wait_for("a second of rest", PATIENCE, || within(Duration::from_secs(1)) == 0);
    assert_eq!(within(span), 0, "process {pid} was woken in {span:?}");
}

/// The states of the children of a process, as `/proc` writes them: `S`, `Z` and so on.
pub fn child_states(pid: u32) -> Vec<char> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let state = |child: &str| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        stat.rsplit_once(')')?.1.trim().chars().next()
    };
    children.split_whitespace().filter_map(state).collect()
}
