//! The product as its users meet it. One module for each area; helpers are in `driftless_tests`.

mod bad_input;
mod commands;
mod control;
mod crash;
mod exec;
mod fixtures;
mod handover;
mod harmless;
mod harness;
mod hostile;
mod legacy;
mod litestream_reads_us;
mod metrics;
mod parity;
mod proxy;
mod restore_killed;
mod ring2;
mod rivals;
mod servers;
mod service;
mod side_by_side;
mod status;
mod stores;
mod trouble;
mod watch;
mod zstd;
