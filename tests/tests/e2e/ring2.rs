//! A storm over everything, and nothing is lost (`driftless_tests::ring2`).

use std::process::Command;
use std::thread;
use std::time::Duration;

use driftless_tests::programs::workspace;
use driftless_tests::ring2::{Ring2, replay};

/// How long it storms.
const STORM: Duration = Duration::from_secs(40);
/// The seed of every run.
const FIXED: u64 = 7;

/// The first digits of the commit that is checked out, so that each commit tries another storm; of no
/// repository, one.
fn seed_of_commit() -> u64 {
    let output = Command::new("git").arg("-C").arg(workspace()).args(["rev-parse", "HEAD"]).output();
    let hash = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    hash.get(..7).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(1)
}

fn storm(seed: u64) {
    eprintln!("ring 2, seed {seed}: {}", replay(seed));
    let mut ring = Ring2::new(&format!("ring2-{seed}"), seed);
    ring.storm(STORM);
    let counts = ring.heal_and_compare();
    eprintln!("ring 2, seed {seed}: {counts}");
    assert!(counts.blows.values().sum::<u64>() >= 8 && counts.committed >= 50, "no storm: {counts}");
}

#[test]
fn a_storm_over_everything_loses_nothing() {
    thread::scope(|scope| {
        let storms = [FIXED, seed_of_commit()].map(|seed| scope.spawn(move || storm(seed)));
        let failed = storms.into_iter().filter_map(|storm| storm.join().err()).count();
        assert_eq!(failed, 0, "of two storms; their seeds and what they found stand above");
    });
}
