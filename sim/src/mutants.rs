//! The judge of the simulator: planted bugs, each of which must be found.
//!
//! `sim mutants` builds this crate once more with the feature `mutants`, in `target/mutants` and
//! nowhere else, and has that build look for each bug of [`Mutant::ALL`]: seeds from [`FIRST_SEED`] on
//! are run until an oracle objects. How many seeds that takes is what the simulator is worth. A bug
//! that survives shows a fault or an oracle that is missing.
//!
//! # Adding one
//! A line in `core/src/mutant.rs` (name, where it was met, story) and `mutant::on(Mutant::…)` where
//! the rule stands that it breaks, in one readable line. `sim mutants --only NAME` tells the rest.

pub mod command;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use driftless_core::mutant::Mutant;

/// Where the seeds begin: those that vary everything.
pub const FIRST_SEED: u64 = 2_000_000;

/// What a trial came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trial {
    /// The planted bug.
    pub mutant: Mutant,
    /// How many seeds it took, and which oracle objected to what; `None` if none did.
    pub killed: Option<(u64, String, String)>,
    /// In how many of the seeds the broken rule was asked for at all.
    pub met: u64,
}

/// Looks for one bug in `seeds` seeds. Only in a build that holds it.
///
/// # Panics
/// In any other build.
pub fn hunt(mutant: Mutant, seeds: u64) -> Trial {
    let mut met = 0;
    let killed = (FIRST_SEED..FIRST_SEED + seeds).find_map(|seed| {
        plant(Some(mutant));
        let result = crate::ring0::run_seed(seed, false);
        met += u64::from(was_met());
        let failure = result.err()?;
        Some((seed - FIRST_SEED + 1, failure.violation.oracle.to_string(), failure.violation.text))
    });
    plant(None);
    Trial { mutant, killed, met }
}

/// Plants a bug in this process, or takes it out.
///
/// # Panics
/// In a build without the feature.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    driftless_core::mutant::choose(mutant);
}

/// Whether the broken rule was asked for since it was planted.
#[cfg(feature = "mutants")]
fn was_met() -> bool {
    driftless_core::mutant::met_times() > 0
}

/// Whether the broken rule was asked for since it was planted.
#[cfg(not(feature = "mutants"))]
fn was_met() -> bool {
    false
}

/// Plants a bug in this process, or takes it out.
///
/// # Panics
/// In a build without the feature.
#[cfg(not(feature = "mutants"))]
pub fn plant(mutant: Option<Mutant>) {
    assert!(mutant.is_none(), "this build holds no planted bugs");
}

impl Trial {
    /// The line by which a hunting process answers.
    pub fn to_line(&self) -> String {
        let (name, met) = (self.mutant.name(), self.met);
        match &self.killed {
            Some((seeds, oracle, text)) => {
                let text: String = text.chars().take(400).map(|c| if c == '\n' { ' ' } else { c }).collect();
                format!("{name}\t{met}\t{seeds}\t{oracle}\t{text}")
            }
            None => format!("{name}\t{met}"),
        }
    }

    /// Reads such a line; `None` if it is not one.
    pub fn from_line(line: &str) -> Option<Trial> {
        let mut fields = line.split('\t');
        let mutant = of_name(fields.next()?)?;
        let met = fields.next()?.parse().ok()?;
        let killed = match fields.next() {
            None => None,
            Some(seeds) => {
                Some((seeds.parse().ok()?, fields.next()?.to_string(), fields.next()?.to_string()))
            }
        };
        Some(Trial { mutant, killed, met })
    }
}

/// The bug of a name.
pub fn of_name(name: &str) -> Option<Mutant> {
    Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name)
}

/// Builds the simulator with the planted bugs and shows that the binary refuses to be built so.
/// Answers where the simulator is.
///
/// # Errors
/// What went wrong, in words.
pub fn build() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    let target = root.join("target/mutants");
    let built = cargo(root, &target)
        .args(["-p", "driftless-sim", "--bin", "sim", "--features", "mutants"])
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    if !built.success() {
        return Err("the simulator could not be built with the feature `mutants`".into());
    }
    let refused = cargo(root, &target)
        .args(["-p", "driftless", "--bin", "driftless", "--features", "driftless-core/mutants"])
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    let says = String::from_utf8_lossy(&refused.stderr).contains("holds planted bugs");
    if refused.status.success() || !says {
        return Err("the binary driftless was to refuse the planted bugs, and did not".into());
    }
    Ok(target.join("release/sim"))
}

/// A cargo of its own, to which nothing of the one above is handed down.
fn cargo(root: &Path, target: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    let inherited = std::env::vars_os().map(|(name, _)| name);
    for name in inherited.filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_") && name != "CARGO_HOME" || name.starts_with("RUSTFLAGS")
    }) {
        command.env_remove(name);
    }
    command.current_dir(root).args(["build", "--release", "--target-dir"]).arg(target);
    command
}

/// Hunts each bug in a process of its own, so many at a time.
///
/// # Errors
/// When a process could not be started, or did not answer.
pub fn hunt_all(
    sim: &Path,
    mutants: &[Mutant],
    seeds: u64,
    jobs: usize,
    tell: impl Fn(&Trial) + Sync,
) -> Result<Vec<Trial>, String> {
    let (next, trials) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let hunters: Vec<_> = (0..jobs.max(1))
            .map(|_| {
                scope.spawn(|| {
                    while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let trial = hunt_apart(sim, *mutant, seeds)
                            .map_err(|error| format!("{}: {error}", mutant.name()))?;
                        tell(&trial);
                        trials.lock().expect("no holder panics").push(trial);
                    }
                    Ok::<(), String>(())
                })
            })
            .collect();
        hunters.into_iter().try_for_each(|hunter| hunter.join().expect("a hunter does not panic"))
    })?;
    let mut trials = trials.into_inner().expect("no holder panics");
    trials.sort_by_key(|trial| trial.mutant);
    Ok(trials)
}

/// A machine with a bug may spin without end, where no oracle is asked any more.
const SILENT_MAX: Duration = Duration::from_secs(30 * 60);

fn hunt_apart(sim: &Path, mutant: Mutant, seeds: u64) -> io::Result<Trial> {
    let mut child = Command::new(sim)
        .args(["hunt", mutant.name(), &seeds.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let began = std::time::Instant::now();
    while child.try_wait()?.is_none() {
        if began.elapsed() > SILENT_MAX {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other(format!("no answer in {} s", SILENT_MAX.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(Trial::from_line)
        .ok_or_else(|| io::Error::other(format!("it ended without an answer, {}", output.status)))
}

/// What all trials came to, in words: how many were killed, and in how many seeds by the median.
pub fn summary(trials: &[Trial]) -> String {
    let mut seeds: Vec<u64> =
        trials.iter().map(|trial| trial.killed.as_ref().map_or(u64::MAX, |(seeds, ..)| *seeds)).collect();
    seeds.sort_unstable();
    let killed = seeds.iter().filter(|seeds| **seeds < u64::MAX).count();
    let median = match seeds.get(seeds.len().saturating_sub(1) / 2) {
        None => "none".to_string(),
        Some(&u64::MAX) => "more than were tried".to_string(),
        Some(seeds) => format!("{seeds} seeds"),
    };
    format!("killed {killed} of {}, median {median}", trials.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(seeds: Option<u64>) -> Trial {
        let killed = seeds.map(|seeds| (seeds, "oracle".into(), "a text".into()));
        Trial { mutant: Mutant::TakenIsDone, killed, met: 3 }
    }

    #[test]
    fn a_trial_is_read_as_it_was_written() {
        for trial in [trial(None), trial(Some(7))] {
            assert_eq!(Trial::from_line(&trial.to_line()), Some(trial));
        }
        for line in
            ["", "nobody\t1", "taken-is-done", "taken-is-done\t1\tx\toracle\ttext", "taken-is-done\t1\t7"]
        {
            assert_eq!(Trial::from_line(line), None, "{line:?}");
        }
    }

    #[test]
    fn the_median_counts_the_survivors() {
        let tried = |seeds: &[Option<u64>]| summary(&seeds.iter().copied().map(trial).collect::<Vec<_>>());
        assert_eq!(tried(&[Some(9), Some(1), Some(3)]), "killed 3 of 3, median 3 seeds");
        assert_eq!(tried(&[None, Some(1), None]), "killed 1 of 3, median more than were tried");
        assert_eq!(tried(&[]), "killed 0 of 0, median none");
    }

    #[test]
    #[should_panic(expected = "holds no planted bugs")]
    fn a_usual_build_plants_nothing() {
        plant(Some(Mutant::TakenIsDone));
    }
}
