//! The `driftless` binary: everything is in the library, so that tests and the demo reach it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    driftless::cli::main()
}
