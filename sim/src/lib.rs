//! The ring-0 simulator of Driftless: a world in one thread, driven by a seed.
//!
//! - [`disk`] is a filesystem that remembers what was never synced, and loses it on demand;
//! - [`vfs`] puts real SQLite on that disk, in simulated processes that can be killed;
//! - [`model`] stands in for SQLite there, without SQL and much faster;
//! - [`ring0`] runs the replicator there, in a loop over everything that can happen.

pub mod disk;
pub mod model;
pub mod ring0;
pub mod vfs;
