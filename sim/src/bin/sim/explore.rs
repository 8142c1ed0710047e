//! `cargo sim explore`.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use driftless_sim::bad_input::BadInput;
use driftless_sim::explore::{self, Case, Death};
use driftless_sim::ring0::summary::Contents;
use driftless_sim::ring0::{Failure, Plan, scripts};
use driftless_sim::scenario::Scenario;

use crate::Ended;
use crate::args::Args;
use crate::failure::{self, Seen};

/// After so many failures of a script the rest is not run.
const FAILURES_MAX: usize = 5;
/// Each is made small for so long: the script is short already.
const SHRINK: Duration = Duration::from_secs(10);

struct Explorer<'a> {
    args: &'a Args,
    seed: u64,
    /// Every how-many-th case is run, and which of them.
    part: (u64, u64),
    cases: u64,
    failures: Vec<Seen>,
    contents: Option<Contents>,
}

pub fn run(args: &Args) -> Ended {
    let all = scripts::short();
    let chosen: Vec<(&str, Plan)> = match args.text("script") {
        None => all,
        Some(name) => {
            let found: Vec<_> = all.into_iter().filter(|(known, _)| *known == name).collect();
            if found.is_empty() {
                return Err(BadInput::new(format!("unknown script: {name}"))
                    .hint("there are tiny, daily, rough and crowded"));
            }
            found
        }
    };
    let seed = args.number("seed")?.unwrap_or(1);
    let mut worst = None;
    for (name, script) in chosen {
        let began = Instant::now();
        let mut explorer =
            Explorer { args, seed, part: part(args)?, cases: 0, failures: Vec::new(), contents: None };
        let pairs = args.is_on("pairs") || (name == "tiny" && !args.is_on("script"));
        let (ran, actions, faults) = explorer.script(name, &script, pairs)?;
        println!(
            "{name}: {actions} actions, {faults} faults that could strike{}: {ran} runs in {:.1} s, {} failed",
            if pairs { ", each with each death" } else { "" },
            began.elapsed().as_secs_f64(),
            explorer.failures.len()
        );
        worst = worst.or(explorer.failures.first().map(Seen::exit_code));
    }
    Ok(worst.unwrap_or(ExitCode::SUCCESS))
}

pub fn part(args: &Args) -> Result<(u64, u64), BadInput> {
    let Some(text) = args.text("part") else { return Ok((1, 1)) };
    let part = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    part.filter(|(k, n)| (1..=*n).contains(k)).ok_or_else(|| {
        BadInput::new(format!("--part {text:?} is no part")).hint("--part 1/4 is the first of four")
    })
}

impl Explorer<'_> {
    /// Runs the cases of a script: how many, and how many actions and faults there were.
    fn script(&mut self, name: &str, script: &Plan, pairs: bool) -> Result<(u64, u64, usize), BadInput> {
        let survey = match explore::survey(self.seed, script, &Case::default()) {
            Ok(survey) => survey,
            Err(failure) => {
                self.fail(name, script, &Case::default(), failure)?;
                return Ok((1, 0, 0));
            }
        };
        self.contents = survey.contents;
        for case in explore::singles(&survey) {
            if self.failures.len() < FAILURES_MAX {
                self.case(name, script, &case)?;
            }
        }
        // What is left of the state matters to a second fault as well, but less than the time it takes.
        let deaths = explore::deaths(&survey).filter(|(_, death)| {
            pairs && matches!(death, Death::Process(driftless_sim::ring0::plan::StateFate::Kept))
        });
        for death in deaths {
            if self.failures.len() >= FAILURES_MAX {
                break;
            }
            // Without another fault it has run above, and has failed there if it fails.
            let Ok(cases) = explore::with_death(self.seed, script, death) else { continue };
            for case in cases {
                self.case(name, script, &case)?;
            }
        }
        Ok((self.cases / self.part.1, survey.actions, survey.faults.len()))
    }

    fn case(&mut self, name: &str, script: &Plan, case: &Case) -> Result<(), BadInput> {
        self.cases += 1;
        if self.cases % self.part.1 != self.part.0 - 1 {
            return Ok(());
        }
        if self.cases.is_multiple_of(500) && std::io::stderr().is_terminal() {
            eprint!("\r{name}: {} cases ", self.cases);
        }
        match explore::run(self.seed, script, case, self.contents.as_ref()) {
            Ok(()) => Ok(()),
            Err(failure) => self.fail(name, script, case, failure),
        }
    }

    fn fail(&mut self, name: &str, script: &Plan, case: &Case, failure: Failure) -> Result<(), BadInput> {
        let scenario = Scenario::new(self.seed, case.plan(script));
        let seen = Seen { oracle: failure.violation.oracle.to_owned(), text: failure.violation.text };
        let number = self.failures.len() + 1;
        let name = format!("explore-{name}-{number}");
        let folder = failure::folder(&self.args.out(), &name)?;
        let path = folder.join("found.json");
        failure::write(&path, &scenario.write())?;
        println!("\n{name}: {case:?}");
        let path = path.display().to_string();
        failure::tell(
            &failure::Case { name: &path, options: "", scenario: &scenario },
            &seen,
            &folder,
            SHRINK,
        )?;
        self.failures.push(seen);
        Ok(())
    }
}
