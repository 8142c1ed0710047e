//! The product as its users meet it. One module for each area; helpers are in `driftless_tests`.

mod fixtures;
mod handover;
mod harness;
mod litestream_reads_us;
