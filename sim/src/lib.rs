//! The ring-0 simulator of Driftless: a world in one thread, driven by a seed.
//!
//! - [`disk`] is a filesystem that remembers what was never synced, and loses it on demand;
//! - [`vfs`] puts real SQLite on that disk, in simulated processes that can be killed;
//! - [`model`] stands in for SQLite there, without SQL and much faster;
//! - [`ring0`] runs the replicator there, in a loop over everything that can happen;
//! - [`trace`] hashes what happens and [`timeline`] draws it;
//! - [`scenario`] writes a run down, [`shrink`] makes it small, [`explore`] leaves nothing out;
//! - [`failover`] has hosts contend for a lease, and [`pair`] hand one database on to each other, with levels in a
//!   hurry ([`upkeep`]);
//! - [`mutants`] plants bugs, and counts the seeds that it takes to find them.
//!
//! Ring 1 (`sim/tests/ring1/main.rs`) is built under `--cfg madsim`, in a cargo within ([`nested`]),
//! and takes of this crate the disk, those levels and ring 0's oracles alone.

#[cfg(not(madsim))]
pub mod bad_input;
#[cfg(not(madsim))]
pub mod commit;
pub mod disk;
#[cfg(not(madsim))]
pub mod explore;
#[cfg(not(madsim))]
pub mod failover;
#[cfg(not(madsim))]
pub mod model;
#[cfg(not(madsim))]
pub mod mutants;
#[cfg(not(madsim))]
pub mod nested;
#[cfg(not(madsim))]
pub mod pair;
#[cfg(not(madsim))]
pub mod ring0;
#[cfg(madsim)]
#[path = "ring0/judges.rs"]
pub mod ring0;
#[cfg(not(madsim))]
pub mod scenario;
#[cfg(not(madsim))]
pub mod seed;
#[cfg(not(madsim))]
pub mod shrink;
#[cfg(not(madsim))]
pub mod timeline;
#[cfg(not(madsim))]
pub mod trace;
pub mod upkeep;
#[cfg(not(madsim))]
pub mod vfs;
