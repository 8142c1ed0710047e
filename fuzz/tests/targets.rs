//! Fuzz targets that are property tests as well.
//!
//! Under `cargo test` each runs thousands of random inputs and prints the seed of one that
//! fails; `fuzz/README.md` tells how to run one under libFuzzer for as long as you like.

#[path = "targets/config.rs"]
mod config;
#[path = "targets/journal.rs"]
mod journal;
#[path = "targets/keys.rs"]
mod keys;
#[path = "targets/ltx.rs"]
mod ltx;
#[path = "targets/replicator.rs"]
mod replicator;
#[path = "targets/restorer.rs"]
mod restorer;
#[path = "targets/wal.rs"]
mod wal;
