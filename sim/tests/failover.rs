//! Hosts that contend for one lease (`sim/src/failover.rs`): fixed seeds, and some that follow from the commit.

use driftless_sim::failover::{SEEDS_IN_TESTS, Summary, run};
use driftless_sim::{commit, seed};

fn run_all(seeds: impl Iterator<Item = u64>) -> Summary {
    let mut all = Summary::default();
    for seed in seeds {
        let one =
            run(seed).unwrap_or_else(|violation| panic!("cargo sim failover --seeds {seed}+1: {violation}"));
        all.add(&one);
    }
    all
}

#[test]
fn no_seed_has_two_histories_or_loses_what_was_acknowledged() {
    let fixed = run_all(0..SEEDS_IN_TESTS / 2);
    let own = seed::of_commit(&commit::current()).unwrap_or(1) + 100_000;
    run_all(own..own + SEEDS_IN_TESTS / 2);
    // What never happens shows nothing.
    assert!(fixed.takeovers > SEEDS_IN_TESTS / 4 && fixed.deposed > SEEDS_IN_TESTS / 8, "{fixed:?}");
    assert!(fixed.overtaken > 0 && fixed.lost_tails > 0, "{fixed:?}");
    assert!(fixed.acknowledged * 10 > fixed.commits * 8, "{fixed:?}");
}

#[test]
fn a_seed_is_the_same_each_time() {
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed));
    }
}
