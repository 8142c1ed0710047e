//! `cargo sim replay`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use driftless_sim::bad_input::BadInput;
use driftless_sim::ring0::{Class, report};
use driftless_sim::timeline::Title;
use driftless_sim::trace::{Keep, TraceFile, diverge};

use crate::Ended;
use crate::args::{Args, Subject};
use crate::failure::{self, Case, Seen};

/// How long a failure is made small after a replay.
const SHRINK: Duration = Duration::from_secs(30);

pub fn run(args: &Args) -> Ended {
    let subject = args.subject()?;
    if args.is_on("twice") || args.is_on("against") {
        return compare(args, &subject);
    }
    let scenario = &subject.scenario;
    let keep = if args.is_on("v") { Keep::Print } else { Keep::Hash };
    let report = report(scenario.seed, scenario.plan.clone(), keep, args.seconds("until")?);
    match report.result {
        Ok(summary) => {
            println!("{}: {summary:#?}", subject.name);
            Ok(ExitCode::SUCCESS)
        }
        Err(violation) => {
            let seen = Seen { oracle: violation.oracle.to_owned(), text: violation.text };
            tell(args, &subject, &seen)?;
            Ok(seen.exit_code())
        }
    }
}

fn tell(args: &Args, subject: &Subject, seen: &Seen) -> Result<(), BadInput> {
    if !subject.is_file {
        let options = options(args);
        let case = Case { name: &subject.name, options: &options, scenario: &subject.scenario };
        return failure::tell(&case, seen, &args.out(), SHRINK);
    }
    // A scenario is small already, and is where it is.
    println!("\nFAILED {}: {}", seen.oracle, seen.text);
    println!("  scenario  {}", subject.name);
    println!("  replay    cargo sim replay {} -v", subject.name);
    let page = Path::new(&subject.name).with_extension("html");
    let title = Title {
        name: subject.name.clone(),
        replay: format!("cargo sim replay {}", subject.name),
        ..Title::default()
    };
    failure::write(&page, &failure::page_of(&subject.scenario, title))?;
    println!("  timeline  {}", page.display());
    Ok(())
}

/// What a command line must say to get the same plan.
fn options(args: &Args) -> String {
    args.text("profile").map_or(String::new(), |profile| format!(" --profile {profile}"))
}

/// Runs it in two processes, the second with other threads at work, and compares what happens.
fn compare(args: &Args, subject: &Subject) -> Ended {
    let own = std::env::current_exe().map_err(|error| BadInput::new(error.to_string()))?;
    let other = args.text("against").map_or_else(|| own.clone(), PathBuf::from);
    let folder = failure::folder(&args.out(), &format!("twice {}", subject.name))?;
    let first = traced(&own, args, subject, &folder.join("one.json"), false)?;
    let second = traced(&other, args, subject, &folder.join("two.json"), true)?;
    let Some(at) = diverge(&first.records, &second.records) else {
        println!(
            "{}: {} records, trace hash {:016x}, twice",
            subject.name,
            first.records.len(),
            first.hash()
        );
        return Ok(ExitCode::SUCCESS);
    };
    println!("{}: the two runs part at record {at}", subject.name);
    first.records[at.saturating_sub(3)..at].iter().for_each(|record| println!("  both {record}"));
    for (name, trace) in [("one", &first), ("two", &second)] {
        match trace.records.get(at) {
            Some(record) => println!("  {name}  {record}"),
            None => println!("  {name}  has ended"),
        }
    }
    println!("the traces are in {}", folder.display());
    Ok(ExitCode::from(Class::NonDeterminism.exit_code()))
}

fn traced(
    program: &Path,
    args: &Args,
    subject: &Subject,
    to: &Path,
    noise: bool,
) -> Result<TraceFile, BadInput> {
    let mut command = Command::new(program);
    command.args(["trace", &subject.name, "--json", "-o"]).arg(to);
    if let Some(profile) = args.text("profile") {
        command.args(["--profile", profile]);
    }
    if noise {
        command.arg("--noise");
    }
    let what = format!("{} trace {}", program.display(), subject.name);
    let status = command.status().map_err(|error| BadInput::new(format!("cannot run {what}: {error}")))?;
    if !status.success() {
        return Err(
            BadInput::new(format!("{what} ended with {status}")).hint("is it another build of this program?")
        );
    }
    let file = fs::File::open(to).map_err(|error| BadInput::new(format!("{}: {error}", to.display())))?;
    TraceFile::read(std::io::BufReader::new(file))
}
