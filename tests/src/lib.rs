//! End to end: the real binary, real SQLite, real files, real Litestream.
//!
//! Tests here know the product as its users do: a program with arguments, exit codes, files and a
//! status. They use no function of it. What they share is in this crate:
//!
//! - [`programs`] finds or makes the programs under test, once for each run;
//! - [`command`] runs one to its end, within a deadline, and keeps all it said;
//! - [`child`] is an application that a replicator runs;
//! - [`daemon`] keeps one running, waits for what it should come to, and ends it, gently or not;
//! - [`db`] makes databases and tells whether two have the same content;
//! - [`dir`] is a directory that stays for inspection when its test fails;
//! - [`app`] is a writing application in a process of its own, and what its copies must show;
//! - [`sidecar`] is a replicator whose log is followed line by line, with its control socket;
//! - [`twin`] writes the same into two databases, one beside a replicator and one alone;
//! - [`proc`] asks the kernel about a process;
//! - [`store_faults`] breaks the filesystems under a replica, the local state or the application;
//! - [`servers`] runs object stores: S3, Azure, GCS, WebDAV, and one that ignores conditions;
//! - [`objects`] and [`s3`] put objects there, count and compare them, by other code than ours;
//! - [`ring2`] is a storm over an application, a replicator and the wire, and what must be left of it;
//! - [`place`] is where a replica lies, a directory or a store, for stories that are told of both;
//! - [`proxy`] stands between the product and a store, counts requests, and does harm.
//!
//! A test waits for a condition within a deadline ([`wait_for`]); it never sleeps and hopes.

pub mod app;
pub mod child;
pub mod command;
pub mod daemon;
pub mod db;
pub mod dir;
pub mod failover;
pub mod http;
pub mod objects;
pub mod place;
pub mod port;
pub mod proc;
pub mod programs;
pub mod proxy;
pub mod ring2;
pub mod s3;
pub mod scene;
pub mod servers;
pub mod sidecar;
pub mod sign;
pub mod store_faults;
pub mod twin;

use std::time::{Duration, Instant};

pub use command::{Ran, run};
pub use daemon::{Daemon, Ended};
pub use db::{content_lines, dump_digest, integrity_check, pages};
pub use dir::TempDir;
pub use programs::{driftless, driftless_command, fixtures, litestream, python};

/// How long a condition is waited for where nothing says otherwise: far more than a slow machine
/// needs, so that only a condition that never comes runs into it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks every 10 ms until `condition` holds; panics with `what` once `deadline` has passed.
#[track_caller]
pub fn wait_for(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let found = poll(deadline, || condition().then_some(()));
    assert!(found.is_some(), "waited {deadline:?} in vain for: {what}");
}

/// Looks every 10 ms until `look` finds something, or until `deadline` has passed.
pub fn poll<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if started.elapsed() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The next number of a fixed sequence (xorshift). A seed is never 0.
pub fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}
