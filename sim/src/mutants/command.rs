//! `sim mutants` and `sim hunt`, the two ends of it.

#![expect(clippy::print_stdout, reason = "it is a command")]

use std::process::ExitCode;

use driftless_core::mutant::Mutant;

use super::{Trial, build, hunt, hunt_all, of_name, summary};

/// How many seeds a bug may take.
const SEEDS: u64 = 5_000;

/// How the command is called.
pub const USAGE: &str = "sim mutants [--only NAME] [--seeds N] [--jobs N] | sim mutants --list";

/// What was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Asked {
    mutants: Vec<Mutant>,
    seeds: u64,
    jobs: usize,
    list: bool,
}

/// Hunts the planted bugs, or one of them, and tells what each took. The exit code is 1 if one
/// survives.
pub fn mutants(arguments: &[&str]) -> ExitCode {
    let asked = match read(arguments) {
        Ok(asked) => asked,
        Err(error) => return refuse(&error),
    };
    if asked.list {
        for mutant in &asked.mutants {
            println!("{:<28} {:<14} {}", mutant.name(), mutant.met(), mutant.story());
        }
        return ExitCode::SUCCESS;
    }
    let told = |trial: &Trial| {
        let took = match &trial.killed {
            Some((seeds, oracle, _)) => format!("{seeds:>6} seeds  {oracle}"),
            None => format!("survived {} seeds, met in {}", asked.seeds, trial.met),
        };
        println!("{:<28} {took:<36} {}", trial.mutant.name(), trial.mutant.story());
    };
    let trials = build().and_then(|sim| hunt_all(&sim, &asked.mutants, asked.seeds, asked.jobs, told));
    match trials {
        Ok(trials) => {
            println!("{}", summary(&trials));
            let survivor = trials.iter().any(|trial| trial.killed.is_none());
            if survivor { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => refuse(&error),
    }
}

/// The end that holds the bugs: hunts one, and answers on one line.
pub fn hunter(arguments: &[&str]) -> ExitCode {
    match arguments {
        [name, seeds] => match (of_name(name), seeds.parse()) {
            (Some(mutant), Ok(seeds)) if cfg!(feature = "mutants") => {
                println!("{}", hunt(mutant, seeds).to_line());
                ExitCode::SUCCESS
            }
            (Some(_), Ok(_)) => refuse("this build holds no planted bugs: `sim mutants` makes one that does"),
            _ => refuse(&format!("no planted bug is called {name:?}, or {seeds:?} is no number")),
        },
        _ => refuse("sim hunt NAME SEEDS"),
    }
}

fn refuse(error: &str) -> ExitCode {
    eprintln!("error: {error}\n\nhint: {USAGE}");
    ExitCode::from(2)
}

fn read(arguments: &[&str]) -> Result<Asked, String> {
    let mut asked = Asked { mutants: Mutant::ALL.to_vec(), seeds: SEEDS, jobs: 1, list: false };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match *argument {
            "--list" => asked.list = true,
            "--only" => {
                let name = value()?;
                asked.mutants = vec![of_name(name).ok_or(format!("no planted bug is called {name:?}"))?];
            }
            "--seeds" => asked.seeds = number(value()?)?,
            "--jobs" => asked.jobs = number(value()?)? as usize,
            other => return Err(format!("{other:?} is not an argument of sim mutants")),
        }
    }
    Ok(asked)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or(format!("{text:?} is no number from 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_or_refused() {
        let asked = read(&["--only", "no-read-back", "--seeds", "70", "--jobs", "2"]).unwrap();
        assert_eq!(asked, Asked { mutants: vec![Mutant::NoReadBack], seeds: 70, jobs: 2, list: false });
        assert_eq!(read(&[]).unwrap().mutants, Mutant::ALL);
        for wrong in [&["--only", "x"][..], &["--only"], &["--seeds", "0"], &["--jobs", "two"], &["seeds"]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
