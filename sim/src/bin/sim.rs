//! `sim --seeds A..B` runs seeds; `sim replay SEED [-v]` runs one and tells what happens;
//! `sim crash SEED` crashes the short scripts after every action, with the dice of that seed;
//! `sim mutants` hunts planted bugs.

#![expect(clippy::print_stdout, reason = "it is a command")]

use std::process::ExitCode;
use std::time::Instant;

use driftless_sim::mutants;
use driftless_sim::ring0::plan::StateFate;
use driftless_sim::ring0::{run_seed, run_with_every_crash, scripts};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--seeds", range] => seeds(range),
        ["replay", seed, rest @ ..] => replay(seed, rest.contains(&"-v")),
        ["crash", seed] => crash(seed),
        ["mutants", rest @ ..] => mutants::command::mutants(rest),
        ["hunt", rest @ ..] => mutants::command::hunter(rest),
        _ => usage(),
    }
}

fn crash(seed: &str) -> ExitCode {
    let Ok(seed) = seed.parse() else { return usage() };
    for (name, plan) in
        [("daily", scripts::daily()), ("rough", scripts::rough()), ("crowded", scripts::crowded())]
    {
        for state in [StateFate::Kept, StateFate::Cut(2), StateFate::Lost] {
            match run_with_every_crash(seed, &plan, state) {
                Ok(actions) => println!("{name}, state {state:?}: {actions} crashes"),
                Err(failure) => {
                    println!("{name}: {failure}");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: sim --seeds A..B | sim replay SEED [-v] | sim crash SEED | sim mutants");
    ExitCode::from(2)
}

fn seeds(range: &str) -> ExitCode {
    let bounds = range.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    let Some((from, to)) = bounds else { return usage() };
    let began = Instant::now();
    let mut failed = Vec::new();
    for seed in from..to {
        if let Err(failure) = run_seed(seed, false) {
            let text = failure.to_string();
            println!("{}", text.chars().take(600).collect::<String>());
            failed.push(seed);
        }
    }
    let count = to - from;
    println!("{count} seeds in {:.1} s, {} failed: {failed:?}", began.elapsed().as_secs_f64(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(seed: &str, verbose: bool) -> ExitCode {
    let Ok(seed) = seed.parse() else { return usage() };
    match run_seed(seed, verbose) {
        Ok(summary) => {
            println!("seed {seed}: {summary:#?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}
