//! The faults of the catalogue: that they befall the runs of the full generation, and what single
//! ones must never lead to.

use std::collections::BTreeSet;
use std::time::Duration;

use driftless_sim::ring0::faults::{FULL_FROM, Fault, Faults};
use driftless_sim::ring0::plan::{Blow, MODEL_FROM, Plan, StateFate};
use driftless_sim::ring0::{Summary, run_plan, run_seed, scripts};

/// A daily script under one fault, killed now and then, as the dice of a seed have it.
fn under(seed: u64, fault: &'static str, state: StateFate) -> Summary {
    let kill = |ms| (Duration::from_millis(ms), Blow::Kill { state, down: Duration::from_millis(200) });
    let mut plan = Plan {
        faults: Faults::of_names([fault]),
        blows: [350, 900, 1_700, 4_400, 5_200].map(kill).to_vec(),
        ..scripts::daily()
    };
    plan.store.per_mille = 500;
    run_plan(seed, plan, false).unwrap_or_else(|failure| panic!("{fault}: {failure}"))
}

/// A store that lists late what it has: a replica that seemed to end before what the local journal
/// knows to be there was taken for another, and the run began a history that was then fenced.
#[test]
fn a_late_listing_fences_nobody_who_knows_better() {
    let mut stale = 0;
    for seed in 0..60 {
        let summary = under(seed, "store: stale list", StateFate::Kept);
        stale += summary.hits.of("store: stale list, seen");
        assert_eq!(summary.fenced, 0, "seed {seed}");
    }
    assert!(stale > 20, "only {stale} stale listings");
}

/// A header has no checksum of its own. One wrong bit of an answer became the state that the next
/// segment was said to follow, where nothing local said otherwise.
#[test]
fn a_wrong_bit_in_the_head_of_the_replica_is_not_believed() {
    let (mut corrupt, mut fenced) = (0, 0);
    for seed in 0..150 {
        let summary = under(seed, "store: corrupt body", StateFate::Lost);
        corrupt += summary.hits.of("store: corrupt body");
        fenced += summary.fenced;
    }
    assert!(corrupt > 100 && fenced > 20, "{corrupt} corrupt bodies, {fenced} fenced");
}

/// The wall clock is set back by a day and a half behind the last change: a seal has to wait for it,
/// and the database was locked once a second until then.
#[test]
fn a_clock_that_was_set_back_keeps_nobody_busy() {
    let back = |hours: i64| Blow::WallStep(-hours * 3_600_000);
    for (seed, hours) in [(1, 36), (2, 1)] {
        let mut plan = scripts::daily();
        plan.blows = vec![(Duration::from_millis(7_500), back(hours))];
        run_plan(seed, plan, false).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

/// Seeds with SQLite itself and seeds with its model, in turn, until nothing of the catalogue is
/// left that has not struck. What ends a run wrongly ends the test.
#[test]
fn every_fault_of_the_catalogue_strikes() {
    let mut missing: BTreeSet<&str> = Fault::ALL.iter().map(|fault| fault.name).collect();
    let seeds = (100..400).flat_map(|n| [FULL_FROM + n, MODEL_FROM + n]);
    for seed in seeds {
        let summary = run_seed(seed, false).unwrap_or_else(|failure| panic!("{failure}"));
        missing.retain(|name| summary.hits.of(name) == 0);
        if missing.is_empty() {
            return;
        }
    }
    panic!("never struck: {missing:?}");
}

/// Who is fenced, by whom, and who goes on: two databases, one that is told to adopt, a copy.
#[test]
fn of_those_who_write_to_one_replica_exactly_one_goes_on() {
    let mut fenced = (0, 0);
    for seed in 0..40 {
        for rival in [Blow::Rival { adopt: false }, Blow::Rival { adopt: true }, Blow::Clone] {
            let faults = Faults::of_names([rival.name(), "store: effect late, no answer"]);
            let mut plan = Plan { faults, ..scripts::daily() };
            plan.store.per_mille = 100;
            plan.blows = [(400, rival), (900, rival)].map(|(ms, b)| (Duration::from_millis(ms), b)).to_vec();
            let summary =
                run_plan(seed, plan, false).unwrap_or_else(|failure| panic!("{rival:?}: {failure}"));
            fenced.0 += summary.hits.of("topology: fenced by a rival");
            fenced.1 += summary.hits.of("topology: a rival fenced");
        }
    }
    assert!(fenced.0 > 10 && fenced.1 > 40, "{fenced:?} fenced");
}
