//! What is told of a failing run, and written of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use driftless_sim::bad_input::BadInput;
use driftless_sim::commit;
use driftless_sim::ring0::{Class, report};
use driftless_sim::scenario::Scenario;
use driftless_sim::shrink::{Shrunk, shrink};
use driftless_sim::timeline::{self, Title};
use driftless_sim::trace::{Keep, TraceFile};

/// What an oracle said, perhaps in another process.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which oracle.
    pub oracle: String,
    /// What it saw.
    pub text: String,
}

impl Seen {
    /// What this process ends with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(Class::of(&self.oracle).exit_code())
    }
}

/// How a run is called and repeated.
pub struct Case<'a> {
    /// What it is called: a seed, or a file.
    pub name: &'a str,
    /// What to add to the command that repeats it.
    pub options: &'a str,
    /// The run.
    pub scenario: &'a Scenario,
}

/// Tells a failure, makes it small for as long as `time` allows, and writes scenario and timeline
/// into a folder of its own under `out`.
///
/// # Errors
/// When they cannot be written.
pub fn tell(case: &Case, seen: &Seen, out: &Path, time: Duration) -> Result<(), BadInput> {
    let short: String = seen.text.chars().take(600).collect();
    println!("\nFAILED {}: {short}", seen.oracle);
    println!("  seed      {}", case.scenario.seed);
    println!("  commit    {}", commit::current());
    println!("  replay    cargo sim replay {}{} -v", case.name, case.options);
    let folder = folder(out, case.name)?;
    match shrink(case.scenario.seed, &case.scenario.plan, time) {
        Some(shrunk) => write_shrunk(&shrunk, &folder)?,
        // What ends the process, or never ends, is not tried again here.
        None => println!("  scenario  none: it does not fail when it runs again in this process"),
    }
    Ok(())
}

/// Writes a small run into a folder, and tells where.
///
/// # Errors
/// When it cannot be written.
pub fn write_shrunk(shrunk: &Shrunk, folder: &Path) -> Result<(), BadInput> {
    let path = folder.join("scenario.json");
    write(&path, &shrunk.scenario.write())?;
    let (before, after) = (shrunk.before, shrunk.after);
    let cut = if shrunk.cut_short { ", cut short by the clock" } else { "" };
    println!("  scenario  {}", path.display());
    println!(
        "            {} operations and {} faults in {:?} (of {}, {}, {:?}), after {} runs{cut}",
        after.operations,
        after.faults,
        after.length,
        before.operations,
        before.faults,
        before.length,
        shrunk.runs
    );
    let page = folder.join("timeline.html");
    let replay = format!("cargo sim replay {} -v", path.display());
    let notes = vec![format!("{} operations, {} faults", after.operations, after.faults)];
    let name = format!("seed {}, made small", shrunk.scenario.seed);
    write(&page, &page_of(&shrunk.scenario, Title { name, replay, notes, violation: None }))?;
    println!("  timeline  {}", page.display());
    Ok(())
}

/// The page of a run, which is run for it.
pub fn page_of(scenario: &Scenario, title: Title) -> String {
    let report = report(scenario.seed, scenario.plan.clone(), Keep::Records, None);
    let violation = report.result.as_ref().err().map(|it| (it.oracle.to_owned(), it.text.clone()));
    timeline::page(&TraceFile::new(scenario.seed, report.records), &Title { violation, ..title })
}

/// The folder of a failure, made if it is not there.
///
/// # Errors
/// When it cannot be made.
pub fn folder(out: &Path, name: &str) -> Result<PathBuf, BadInput> {
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let folder = out.join(name.trim_matches('_'));
    fs::create_dir_all(&folder)
        .map_err(|error| BadInput::new(format!("cannot make {}: {error}", folder.display())))?;
    Ok(folder)
}

/// Writes a file.
///
/// # Errors
/// When that fails.
pub fn write(path: &Path, text: &str) -> Result<(), BadInput> {
    fs::write(path, text).map_err(|error| {
        BadInput::new(format!("cannot write {}: {error}", path.display())).hint("is its folder there?")
    })
}
