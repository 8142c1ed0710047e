//! The ring-0 simulator of Driftless: a world in one thread, driven by a seed.
//!
//! - [`disk`] is a filesystem that remembers what was never synced, and loses it on demand;
//! - [`vfs`] puts real SQLite on that disk, in simulated processes that can be killed;
//! - [`ring0`] runs the replicator there, in a loop over everything that can happen;
//! - [`mutants`] plants bugs, and counts the seeds that it takes to find them.

pub mod bad_input;
pub mod commit;
pub mod disk;
pub mod explore;
pub mod mutants;
pub mod ring0;
pub mod scenario;
pub mod seed;
pub mod shrink;
pub mod timeline;
pub mod trace;
pub mod vfs;
