//! Which seeds run: those that the environment names, or a few of each scenario.

use std::fmt::Write as _;

use super::plan::Scenario;
use super::world::{Failure, Summary, run};

/// `SCENARIO A B`: the seeds from A up to B of one scenario, or of `all`.
const RANGE: &str = "DRIFTLESS_RING1_SEEDS";
/// Set to tell what happens.
const VERBOSE: &str = "DRIFTLESS_RING1_VERBOSE";
/// Seeds of each scenario where none are named.
const SEEDS: u64 = 20;

fn asked_for() -> (Vec<Scenario>, std::ops::Range<u64>) {
    let Ok(range) = std::env::var(RANGE) else { return (Scenario::ALL.to_vec(), 0..SEEDS) };
    let words: Vec<&str> = range.split(' ').collect();
    let [scenario, from, to] = words[..] else { panic!("{RANGE} is {range:?}, not SCENARIO FROM TO") };
    let scenarios = match scenario {
        "all" => Scenario::ALL.to_vec(),
        name => vec![Scenario::named(name).unwrap_or_else(|| panic!("{}", unknown(name)))],
    };
    (scenarios, from.parse().expect("a number")..to.parse().expect("a number"))
}

/// What once failed, with its story: `SCENARIO SEED STORY`.
#[test]
fn kept_seeds_stay_quiet() {
    for line in include_str!("seeds.txt").lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        let [name, seed, story] = words[..] else { panic!("{line:?} is not SCENARIO SEED STORY") };
        let scenario = Scenario::named(name).unwrap_or_else(|| panic!("{}", unknown(name)));
        let seed = seed.parse().expect("a number");
        run(scenario, seed, false).unwrap_or_else(|failure| panic!("{failure}\nits story: {story}"));
    }
}

fn unknown(name: &str) -> String {
    let names = Scenario::ALL.map(Scenario::name).join(", ");
    format!("there is no scenario {name}; there are {names}")
}

#[test]
fn seeds_stay_quiet() {
    let (scenarios, seeds) = asked_for();
    let verbose = std::env::var_os(VERBOSE).is_some();
    let (mut failures, mut table) = (Vec::<Failure>::new(), String::new());
    let mut ran = 0;
    for scenario in scenarios {
        let (mut sum, began) = (Summary::default(), std::time::Instant::now());
        for seed in seeds.clone() {
            ran += 1;
            match run(scenario, seed, verbose) {
                Ok(summary) => add(&mut sum, &summary),
                Err(failure) => {
                    eprintln!("{failure}\n");
                    failures.push(failure);
                }
            }
        }
        let Summary { commits, segments, starts, restores, fenced, requests, faults, converged_ms, .. } = sum;
        let Summary { takeovers, overtaken, asides, followed, deleted, .. } = sum;
        let (name, took, quiet) = (scenario.name(), began.elapsed().as_secs_f64(), converged_ms / 1_000);
        writeln!(
            table,
            "{name:>12} {took:>6.1} s: {commits} commits, {segments} segments, {starts} starts, {restores} restores, {fenced} fenced, {takeovers} takeovers ({overtaken} overtaken, {asides} kept aside, {followed} steps followed, {deleted} deleted), {requests} requests ({faults} faulty), quiet within {quiet} s"
        )
        .expect("text takes all");
    }
    eprintln!("{table}ring 1: {ran} seeds ran, {} failed", failures.len());
    assert!(failures.is_empty(), "{} of {ran} seeds failed, the first: {}", failures.len(), failures[0]);
}

fn add(sum: &mut Summary, one: &Summary) {
    sum.commits += one.commits;
    sum.segments += one.segments;
    sum.reports += one.reports;
    sum.starts += one.starts;
    sum.restores += one.restores;
    sum.fenced += one.fenced;
    sum.takeovers += one.takeovers;
    sum.overtaken += one.overtaken;
    sum.asides += one.asides;
    sum.deleted += one.deleted;
    sum.followed += one.followed;
    sum.requests += one.requests;
    sum.faults += one.faults;
    sum.converged_ms = sum.converged_ms.max(one.converged_ms);
}

#[test]
fn a_seed_repeats() {
    let mut sum = Summary::default();
    use Scenario::{Everything, Failover, Takeover};
    for (scenario, seed) in [(Everything, 1), (Everything, 2), (Takeover, 3), (Failover, 4)] {
        let first = run(scenario, seed, false).unwrap_or_else(|failure| panic!("{failure}"));
        let second = run(scenario, seed, false).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(first, second, "{} {seed}", scenario.name());
        add(&mut sum, &first);
    }
    assert!(sum.requests > 200 && sum.commits > 100 && sum.faults > 10 && sum.starts > 3, "{sum:?}");
}
