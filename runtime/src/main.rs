//! The driftless binary.
use std::process::ExitCode;
use driftless::host::{ReplicateJob, ReplicateOptions, replicate};
use driftless_core::engine::Config;
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).init();
    let once = args.iter().any(|a| a == "-once");
    let exit = replicate(vec![ReplicateJob { database: args[2].clone().into(), replica: args[3].trim_start_matches("file://").into(), engine: Config { once, ..Config::default() } }], ReplicateOptions::default());
    ExitCode::from(exit.code())
}
