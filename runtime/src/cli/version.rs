//! `driftless version`.

use super::args::Args;
use super::output::Out;

/// Prints the version.
pub fn run(args: &Args, out: &mut Out) {
    if !args.is_on("verbose") {
        return out.line(env!("CARGO_PKG_VERSION"));
    }
    out.line(format_args!("version:  {}", env!("CARGO_PKG_VERSION")));
    out.line(format_args!("sqlite:   {}", rusqlite::version()));
    out.line("segments: ltx 3, as litestream 0.5 writes them");
    out.line(format_args!("target:   {}/{}", std::env::consts::OS, std::env::consts::ARCH));
}
