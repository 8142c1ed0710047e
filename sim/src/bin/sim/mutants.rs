//! `cargo sim mutants`: builds the simulator with planted bugs, and has a process of that build hunt
//! each of them.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use driftless_core::mutant::{Mutant, PLANTED};
use driftless_sim::bad_input::BadInput;
use driftless_sim::mutants::{Kill, Trial, of_name, replay, root, scenario_path, summary};
use driftless_sim::ring0::profile::Profile;
use driftless_sim::scenario::Scenario;

use crate::Ended;
use crate::args::{Args, read};

/// How many seeds a bug may take.
const SEEDS: u64 = 5_000;
/// How long the run that finds a bug is made smaller.
const SHRINK: Duration = Duration::from_secs(120);
/// A machine with a bug may spin where no oracle is asked.
const SILENT_MAX: Duration = Duration::from_secs(60 * 60);

pub fn run(args: &Args) -> Ended {
    let mutants = match args.text("only") {
        Some(name) => vec![of_name(name)?],
        None => Mutant::ALL.to_vec(),
    };
    if args.is_on("list") {
        for mutant in mutants {
            println!("{:<26} {:<14} {}", mutant.name(), mutant.met(), mutant.story());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let jobs = args.number("jobs")?.unwrap_or(1).max(1) as usize;
    let (seeds, profile) = (args.number("seeds")?.unwrap_or(SEEDS), args.profile()?);
    let words = |mutant: Mutant| {
        let mut words = vec![mutant.name().to_owned()];
        let path = scenario_path(mutant).to_string_lossy().into_owned();
        if args.is_on("scenarios") {
            words.extend(["--scenario".into(), path]);
        } else {
            words.extend([seeds.to_string(), profile.name().into()]);
            words.extend(args.is_on("shrink").then(|| format!("--write={path}")));
        }
        words
    };
    let sim = build()?;
    let trials = hunt_all(&sim, &mutants, jobs, words)?;
    println!("{}", summary(&trials));
    let survivor = trials.iter().any(|trial| trial.kill.is_none());
    Ok(ExitCode::from(u8::from(survivor)))
}

/// The end that holds the bugs: hunts one, and answers with a line of JSON.
pub fn hunt(args: &Args) -> Ended {
    if !PLANTED {
        return Err(BadInput::new("this build holds no planted bugs").hint("cargo sim mutants makes one"));
    }
    let usage = || BadInput::new("a hunt is started by cargo sim mutants");
    let trial = match (args.positionals.as_slice(), args.text("scenario")) {
        ([name], Some(path)) => replay(of_name(name)?, &Scenario::read(&read(Path::new(path))?)?)?,
        ([name, seeds, profile], None) => {
            let seeds = seeds.parse().map_err(|_| usage())?;
            let shrinking = args.text("write").map(|_| SHRINK);
            let (trial, small) =
                driftless_sim::mutants::hunt(of_name(name)?, seeds, Profile::parse(profile)?, shrinking);
            if let (Some(path), Some(small)) = (args.text("write"), small) {
                let text = small.write();
                std::fs::write(path, text).map_err(|error| BadInput::new(format!("{path}: {error}")))?;
            }
            trial
        }
        _ => return Err(usage()),
    };
    println!("{}", serde_json::to_string(&trial).expect("a trial holds nothing that JSON cannot"));
    Ok(ExitCode::SUCCESS)
}

/// Builds the simulator with the planted bugs, and shows that the binary refuses to be built so.
/// Answers where the simulator is.
fn build() -> Result<PathBuf, BadInput> {
    let target = root().join("target/mutants");
    let cannot = |error: std::io::Error| BadInput::new(format!("cargo cannot be run: {error}"));
    let built = cargo(&target)
        .args(["-p", "driftless-sim", "--bin", "sim", "--features", "mutants"])
        .status()
        .map_err(cannot)?;
    if !built.success() {
        return Err(BadInput::new("the simulator could not be built with the feature `mutants`"));
    }
    let refused = cargo(&target)
        .args(["-p", "driftless", "--bin", "driftless", "--features", "driftless-core/mutants"])
        .output()
        .map_err(cannot)?;
    let says = String::from_utf8_lossy(&refused.stderr).contains("holds planted bugs");
    if refused.status.success() || !says {
        return Err(BadInput::new("the binary driftless was to refuse the planted bugs, and did not"));
    }
    Ok(target.join("release/sim"))
}

/// A cargo of its own, to which nothing of the one above is handed down.
fn cargo(target: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    for name in names
        .filter(|name| name.starts_with("RUSTFLAGS") || (name.starts_with("CARGO_") && name != "CARGO_HOME"))
    {
        command.env_remove(name);
    }
    command.current_dir(root()).args(["build", "--release", "--quiet", "--target-dir"]).arg(target);
    command
}

/// Hunts each bug in a process of its own, so many at a time, and tells what each took.
fn hunt_all(
    sim: &Path,
    mutants: &[Mutant],
    jobs: usize,
    words: impl Fn(Mutant) -> Vec<String> + Sync,
) -> Result<Vec<Trial>, BadInput> {
    let (next, trials) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let hunter = || {
            while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                let trial = hunt_apart(sim, &words(*mutant))
                    .map_err(|error| BadInput::new(format!("{}: {error}", mutant.name())))?;
                println!("{}", row(*mutant, &trial));
                trials.lock().expect("no holder panics").push(trial);
            }
            Ok(())
        };
        let hunters: Vec<_> = (0..jobs).map(|_| scope.spawn(hunter)).collect();
        hunters.into_iter().try_for_each(|hunter| hunter.join().expect("a hunter does not panic"))
    })?;
    Ok(trials.into_inner().expect("no holder panics"))
}

fn row(mutant: Mutant, trial: &Trial) -> String {
    let took = match &trial.kill {
        Some(Kill { kept: Some(seed), oracle, .. }) => format!("kept {seed}  {oracle}"),
        Some(kill) => format!("{:>5} seeds  {}", kill.seeds, kill.oracle),
        None => format!("SURVIVED, met in {} seeds", trial.met),
    };
    let small = trial.small.map_or(String::new(), |(ops, faults)| format!("{ops} ops, {faults} faults"));
    format!("{:<26} {took:<34} {small:<17} {}", mutant.name(), mutant.story())
}

fn hunt_apart(sim: &Path, words: &[String]) -> Result<Trial, String> {
    let told = |error: std::io::Error| error.to_string();
    let mut child = Command::new(sim)
        .arg("hunt")
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(told)?;
    let began = Instant::now();
    while child.try_wait().map_err(told)?.is_none() {
        if began.elapsed() > SILENT_MAX {
            child.kill().and_then(|()| child.wait()).map_err(told)?;
            return Err(format!("no answer in {SILENT_MAX:?}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().map_err(told)?;
    let trial = String::from_utf8_lossy(&output.stdout).lines().find_map(|it| serde_json::from_str(it).ok());
    trial.ok_or_else(|| format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
