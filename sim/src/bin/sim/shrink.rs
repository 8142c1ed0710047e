//! `cargo sim shrink`.

use std::process::ExitCode;
use std::time::Duration;

use driftless_sim::bad_input::BadInput;
use driftless_sim::shrink::shrink;

use crate::Ended;
use crate::args::Args;
use crate::failure::{folder, write_shrunk};

pub fn run(args: &Args) -> Ended {
    let subject = args.subject()?;
    let time = args.seconds("seconds")?.unwrap_or(Duration::from_secs(60));
    let Some(shrunk) = shrink(subject.scenario.seed, &subject.scenario.plan, time) else {
        return Err(
            BadInput::new(format!("{} does not fail", subject.name)).hint("only what fails is made small")
        );
    };
    println!("{}", shrunk.violation);
    write_shrunk(&shrunk, &folder(&args.out(), &subject.name)?)?;
    Ok(ExitCode::SUCCESS)
}
