//! The runtime of Driftless: what drives the pure machines of `driftless-core` in production.
//!
//! A smol executor on one thread runs a [`driver::Driver`] for each machine; blocking leaves go
//! to smol's thread pool. [`host`] puts a process together: databases, watches, the
//! control socket. No file here decides anything about order, retry or safety.

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod driver;
pub mod host;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod port;
pub mod service;
pub mod sqlite;
pub mod watch;
