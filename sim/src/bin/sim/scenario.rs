//! `cargo sim scenario`.

use std::path::Path;
use std::process::ExitCode;

use crate::Ended;
use crate::args::Args;
use crate::failure;

pub fn run(args: &Args) -> Ended {
    let text = args.subject()?.scenario.write();
    match args.text("o") {
        Some(path) => failure::write(Path::new(path), &text)?,
        None => print!("{text}"),
    }
    Ok(ExitCode::SUCCESS)
}
