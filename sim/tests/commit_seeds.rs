//! Seeds that no commit before has tried: they follow from the hash of the commit that is checked out,
//! so that everybody who tests this commit tries the same ones, and the next commit others.

use std::process::Command;

use driftless_sim::commit;
use driftless_sim::seed::{COMMIT_FROM, kept, of_commit, on_the_model, with_levels, with_tiers};

/// Seeds with SQLite itself, in two processes: its generator is one for each.
const SQLITE_SEEDS: u64 = 150;
/// Seeds on the model of SQLite, of the standard size.
const MODEL_SEEDS: u64 = 400;
/// Those with levels, on the model too.
const LEVEL_SEEDS: u64 = 100;
/// Those of a process of many databases, one in eight with SQLite itself.
const TIER_SEEDS: u64 = 200;

/// The first seed of the commit; without git, one that follows from the version.
fn first() -> u64 {
    let commit = commit::current();
    of_commit(commit.split('+').next().unwrap_or_default()).unwrap_or_else(|| {
        let version = commit.bytes().fold(0, |sum: u64, byte| sum * 31 % 7_000_000 + u64::from(byte));
        eprintln!("{commit}: the seeds follow from that and will be the same until it changes");
        COMMIT_FROM + version
    })
}

fn run(arguments: &[&str]) -> String {
    let folder = concat!(env!("CARGO_TARGET_TMPDIR"), "/commit_seeds");
    let command = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(["run", "--jobs", "2", "--out", folder])
        .args(arguments)
        .output()
        .expect("the simulator runs");
    let told = String::from_utf8_lossy(&command.stdout).into_owned();
    assert!(command.status.success(), "{arguments:?}: {}\n{told}", String::from_utf8_lossy(&command.stderr));
    told
}

#[test]
fn the_seeds_of_this_commit_stay_quiet() {
    let first = first();
    let told = run(&["--seeds", &format!("{first}+{SQLITE_SEEDS}")]);
    let all = SQLITE_SEEDS + kept().count() as u64;
    assert!(told.contains(&format!("seeds        {all}, 0 failed")), "the kept ones run as well:\n{told}");
    let others = [
        (on_the_model(first), MODEL_SEEDS),
        (with_levels(first), LEVEL_SEEDS),
        (with_tiers(first), TIER_SEEDS),
    ];
    for (first, seeds) in others {
        let told = run(&["--only", "--seeds", &format!("{first}+{seeds}")]);
        assert!(told.contains(&format!("seeds        {seeds}, 0 failed")), "{told}");
    }
}
