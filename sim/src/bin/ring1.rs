//! `cargo ring1`: builds the suite of ring 1 with the flags that it needs, and runs seeds of it.

#![expect(clippy::print_stdout, reason = "it is a command")]

use std::process::ExitCode;

use driftless_sim::bad_input::BadInput;
use driftless_sim::{nested, seed};

const USAGE: &str = "\
cargo ring1 run [--seeds A..B] [--scenario NAME]   seeds of one scenario, or of all of them
cargo ring1 replay NAME SEED [-v]                  one seed; -v tells what happens
A seed is a number or a commit; A+N is N of them. Without --seeds: 20 of each scenario.";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match command(&words) {
        Ok(mut command) => match command.status() {
            Ok(status) if status.success() => ExitCode::SUCCESS,
            Ok(_) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("error: cargo cannot be run\ncaused by: {error}");
                ExitCode::FAILURE
            }
        },
        Err(None) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(Some(error)) => {
            eprintln!("{error}");
            ExitCode::from(64)
        }
    }
}

/// What to run; `Err(None)` asks for help.
fn command(words: &[&str]) -> Result<std::process::Command, Option<BadInput>> {
    let unusable = |text: String| Some(BadInput::new(text).hint("cargo ring1 help"));
    match words {
        [] | ["help" | "-h" | "--help"] => Err(None),
        ["replay", name, seed] | ["replay", name, seed, "-v"] => {
            let seed = seed::parse(seed).map_err(Some)?;
            let mut command = nested::ring1("seeds_stay_quiet");
            command.env(nested::SEEDS, format!("{name} {seed} {}", seed.saturating_add(1)));
            if words.len() == 4 {
                command.env(nested::VERBOSE, "1");
            }
            Ok(command)
        }
        ["run", rest @ ..] => {
            let (mut name, mut seeds) = ("all", 0..20);
            for pair in rest.chunks(2) {
                match pair {
                    ["--seeds", range] => seeds = seed::parse_range(range).map_err(Some)?,
                    ["--scenario", scenario] => name = scenario,
                    other => return Err(unusable(format!("{:?} is not understood", other.join(" ")))),
                }
            }
            let mut command = nested::ring1("seeds_stay_quiet");
            command.env(nested::SEEDS, format!("{name} {} {}", seeds.start, seeds.end));
            Ok(command)
        }
        other => Err(unusable(format!("{:?} is not understood", other.join(" ")))),
    }
}
