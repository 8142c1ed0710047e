//! Ring 1: the production driver, ports and S3 store in simulated processes on a simulated network.
//!
//! Everything between the machines and the wire is production's: driver, ports, local journal,
//! `ObjectStore`, opendal, signing, hyper, connection pool. madsim gives time, tasks, sockets and
//! randomness; the database ([`database`]) and the bucket ([`bucket`]) are models. Oracles are ring
//! 0's, and a few of its own ([`judge`]).
//!
//! `cargo ring1 run` builds it with the flags that it needs and runs seeds; `cargo ring1 replay NAME
//! SEED -v` tells one. `cargo test` runs seeds that follow from the commit (`sim/tests/ring1_suite.rs`).

#[cfg(not(madsim))]
compile_error!("ring 1 needs --cfg madsim: without it nothing would be simulated; run cargo ring1 run");

#[cfg(madsim)]
mod bucket;
#[cfg(madsim)]
mod copy;
#[cfg(madsim)]
mod database;
#[cfg(madsim)]
mod fates;
#[cfg(madsim)]
mod judge;
#[cfg(madsim)]
mod pair;
#[cfg(madsim)]
mod plan;
#[cfg(madsim)]
mod processes;
#[cfg(madsim)]
mod seeds;
#[cfg(madsim)]
mod server;
#[cfg(madsim)]
mod world;
