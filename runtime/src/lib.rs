//! The runtime of Driftless: what drives the pure machines of `driftless-core` in production.
//!
//! A smol executor on one thread runs a [`driver::Driver`] for each machine; blocking leaves go
//! to smol's thread pool. [`host`] puts a process together: databases, watches, the
//! control socket. No file here decides anything about order, retry or safety.
//!
//! Under `--cfg madsim`, as ring 1 of the simulator is built, the driver and its ports run in a
//! simulated process, and the rest of the crate is left out: time, threads and the network are then
//! madsim's, behind [`clock`] and the timers, the pool and the sockets of `driftless-adapters`.

mod changes;
#[cfg(not(madsim))]
pub mod cli;
pub mod clock;
#[cfg(not(madsim))]
pub mod config;
#[cfg(not(madsim))]
pub mod control;
#[cfg(not(madsim))]
pub mod demo;
#[cfg(not(madsim))]
pub mod discover;
pub mod driver;
#[cfg(not(madsim))]
pub mod host;
#[cfg(not(madsim))]
pub mod log;
#[cfg(not(madsim))]
pub mod memory;
pub mod metrics;
pub mod port;
#[cfg(not(madsim))]
pub mod service;
#[cfg(not(madsim))]
pub mod sqlite;
#[cfg(not(madsim))]
pub mod watch;
