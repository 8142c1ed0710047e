//! Runs ring 1, which is built apart (`sim/tests/ring1/main.rs`), and sees that it was really run.

use std::process::{Command, Output};

use driftless_sim::{commit, nested, seed};

/// Tests that the suite has at least.
const TESTS: u64 = 15;
/// Its scenarios.
const SCENARIOS: u64 = 12;
/// Fresh seeds of each.
const SEEDS: u64 = 20;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The number before `word` in the line that holds `mark`.
fn count(text: &str, mark: &str, word: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains(mark))?;
    line.split(word).next()?.trim_end().rsplit(' ').next()?.parse().ok()
}

#[test]
fn ring_1_stays_quiet_on_seeds_of_this_commit() {
    let commit = commit::current();
    let first = seed::of_commit(commit.split('+').next().unwrap_or_default()).unwrap_or(seed::COMMIT_FROM);
    let mut command = nested::ring1("");
    command.env(nested::SEEDS, format!("all {first} {}", first + SEEDS));
    let output = command.output().expect("cargo runs");
    let said = said(&output);
    assert!(output.status.success(), "ring 1, {commit}:\n{said}");
    assert!(count(&said, "test result: ok", "passed") >= Some(TESTS), "too few tests ran:\n{said}");
    let ran = count(&said, "ring 1:", "seeds ran");
    assert_eq!(ran, Some(SCENARIOS * SEEDS), "the seeds did not run:\n{said}");
}

/// A suite that would compile without the flag would be one without tests, and pass.
#[test]
fn without_its_flag_ring_1_does_not_compile() {
    let out = std::env::temp_dir().join(format!("driftless-ring1-{}", std::process::id()));
    let output = Command::new("rustc")
        .args(["--edition", "2024", "--test", "--emit", "metadata", "-o"])
        .arg(&out)
        .arg(nested::suite())
        .output()
        .expect("rustc runs");
    let said = said(&output);
    assert!(!output.status.success() && said.contains("ring 1 needs --cfg madsim"), "{said}");
    assert!(!out.exists());
}

#[test]
fn counts_are_read_from_what_cargo_says() {
    let said = "ring 1: 200 seeds ran, 0 failed\ntest result: ok. 12 passed; 0 failed; 0 ignored";
    assert_eq!(count(said, "ring 1:", "seeds ran"), Some(200));
    assert_eq!(count(said, "test result: ok", "passed"), Some(12));
    assert_eq!(count("running 0 tests", "test result: ok", "passed"), None);
}
