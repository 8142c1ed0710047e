//! The faults of the catalogue: that they befall the runs of the full generation, and what single
//! ones must never lead to.

use std::time::Duration;

use driftless_sim::ring0::faults::Faults;
use driftless_sim::ring0::plan::{Blow, Plan, StateFate};
use driftless_sim::ring0::{Summary, run_plan, scripts};

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
