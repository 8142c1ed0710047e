//! What `/proc` says of another process.

use std::fs;

/// A line of `/proc/<pid>/status` in KiB, such as `VmRSS`; 0 for a process that has ended.
pub fn status_kib(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
