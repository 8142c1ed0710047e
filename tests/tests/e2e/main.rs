//! The product as its users meet it. One module for each area; helpers are in `driftless_tests`.

mod crash;
mod harmless;
mod harness;
mod hostile;
mod status;
mod trouble;
