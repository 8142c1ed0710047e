//! A process of `cargo sim run`: SQLite's generator is one for the whole process, so that seeds run
//! side by side in processes, not in threads. It prints a line of JSON for each seed.

use std::io::{self, Write as _};
use std::process::ExitCode;

use driftless_sim::bad_input::BadInput;
use driftless_sim::ring0::hits::Hits;
use driftless_sim::ring0::profile::Profile;
use driftless_sim::ring0::{Summary, report};
use driftless_sim::trace::Keep;
use serde::{Deserialize, Serialize};

use crate::Ended;
use crate::args::Args;

/// What a worker says of a seed.
#[derive(Serialize, Deserialize)]
pub struct Line {
    /// The seed.
    pub seed: u64,
    /// What it came to, if no oracle spoke.
    pub summary: Option<Summary>,
    /// Which oracle spoke, and what it said.
    pub seen: Option<(String, String)>,
    /// The faults that struck.
    pub hits: Hits,
}

/// What a seed comes to in this process.
pub fn line(seed: u64, profile: Profile) -> Line {
    let report = report(seed, profile.plan(seed), Keep::Nothing, None);
    let (summary, seen) = match report.result {
        Ok(summary) => (Some(summary), None),
        Err(violation) => (None, Some((violation.oracle.to_owned(), violation.text))),
    };
    Line { seed, summary, seen, hits: report.hits }
}

pub fn run(args: &Args) -> Ended {
    let [from, to, step, profile] = args.positionals.as_slice() else {
        return Err(BadInput::new("a worker is started by cargo sim run").hint("cargo sim run --seeds A..B"));
    };
    let number = |text: &String| text.parse::<u64>().map_err(|error| BadInput::new(error.to_string()));
    let (from, to, step) = (number(from)?, number(to)?, number(step)?.max(1));
    let profile = Profile::parse(profile)?;
    let mut seed = from;
    while seed < to {
        let mut text =
            serde_json::to_string(&line(seed, profile)).expect("a line holds nothing that JSON cannot");
        text.push('\n');
        // Nobody reads any more: whoever started this has ended.
        if io::stdout().write_all(text.as_bytes()).is_err() {
            break;
        }
        let Some(next) = seed.checked_add(step) else { break };
        seed = next;
    }
    Ok(ExitCode::SUCCESS)
}
