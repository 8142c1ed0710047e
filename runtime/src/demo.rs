//! demo stub
use crate::cli::args::Args;
use crate::cli::error::CliError;
use crate::cli::output::Out;
use std::ffi::OsString;
/// x
pub const WRITER_COMMAND: &str = "demo-writer";
/// x
pub fn write(_: &[OsString]) -> Result<(), CliError> {
    Ok(())
}
/// x
pub fn run(_: &Args, _: &mut Out) -> Result<(), CliError> {
    Ok(())
}
