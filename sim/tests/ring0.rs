//! The replicator under ring 0: every crash of three scripts, kept seeds, fresh seeds.

use driftless_sim::ring0::plan::{
    CONDITIONS_FROM, Conditions, LEVELS_FROM, Levels, Plan, RETAIN_FROM, Retain, StateFate, VALIDATION_FROM,
};
use driftless_sim::ring0::{Summary, report, run_plan, run_seed, run_with_every_crash, scripts};
use driftless_sim::seed::kept;
use driftless_sim::trace::Keep;

fn crash_everywhere(plan: &Plan) {
    for state in [StateFate::Kept, StateFate::Cut(2), StateFate::Lost] {
        let actions = run_with_every_crash(1, plan, state).unwrap_or_else(|failure| panic!("{failure}"));
        assert!(actions > 100, "only {actions} actions: the script does too little");
    }
}

#[test]
fn a_crash_after_any_action_of_a_daily_script_loses_nothing() {
    crash_everywhere(&scripts::daily());
}

#[test]
fn a_crash_after_any_action_with_levels_loses_nothing() {
    let levels = Levels {
        intervals_ms: vec![700, 3_000],
        snapshot_ms: 5_000,
        snapshot_bytes_min: 1,
        verify: true,
        retain: Some(Retain { snapshot_ms: 2_000, l0_ms: 300 }),
        every_end: false,
    };
    crash_everywhere(&Plan { levels: Some(levels), ..scripts::daily() });
}

#[test]
fn a_crash_after_any_action_of_a_rough_script_loses_nothing() {
    crash_everywhere(&scripts::rough());
}

#[test]
fn a_crash_after_any_action_of_a_crowded_script_loses_nothing() {
    crash_everywhere(&scripts::crowded());
}

#[test]
fn kept_seeds_stay_quiet() {
    for (seed, story) in kept() {
        run_seed(seed, false).unwrap_or_else(|failure| panic!("{failure}\nits story: {story}"));
    }
}

#[test]
fn fresh_seeds_stay_quiet_and_do_enough() {
    let (mut restored, mut faults, mut starts, mut commits, mut phantoms) = (0, 0, 0, 0, 0);
    for seed in 100_000..100_080 {
        let summary = run_seed(seed, false).unwrap_or_else(|failure| panic!("{failure}"));
        restored += summary.restored;
        faults += summary.faults;
        starts += summary.starts;
        commits += summary.commits;
        phantoms += summary.phantoms;
    }
    assert!(
        restored > 600 && faults > 600 && starts > 100,
        "{restored} restored, {faults} faults, {starts} starts"
    );
    assert!(commits > 2_000 && phantoms > 100, "{commits} commits, {phantoms} phantoms");
}

/// Each file of a higher level is compared with what its transactions make, as it is reported.
#[test]
fn fresh_seeds_with_levels_stay_quiet_and_compact() {
    let (mut compacted, mut restored, mut starts) = (0, 0, 0);
    for seed in LEVELS_FROM..LEVELS_FROM + 100 {
        let summary = run_seed(seed, false).unwrap_or_else(|failure| panic!("{failure}"));
        compacted += summary.compacted;
        restored += summary.restored;
        starts += summary.starts;
    }
    assert!(
        compacted > 800 && restored > 1_200 && starts > 200,
        "{compacted} compacted, {restored} restored, {starts} starts"
    );
}

/// Each deletion is looked at as it happens.
#[test]
fn fresh_seeds_with_retention_stay_quiet_and_delete() {
    let (mut deleted, mut restored) = (0, 0);
    for seed in RETAIN_FROM..RETAIN_FROM + 100 {
        let summary = run_seed(seed, false).unwrap_or_else(|failure| panic!("{failure}"));
        deleted += summary.deleted;
        restored += summary.restored;
    }
    assert!(deleted > 800 && restored > 1_200, "{deleted} deleted, {restored} restored");
}

/// These stores refuse nothing, and say so or are found out.
#[test]
fn fresh_seeds_with_validation_stay_quiet_and_validate() {
    let mut validated = 0;
    for seed in VALIDATION_FROM..VALIDATION_FROM + 40 {
        let summary = run_seed(seed, false).unwrap_or_else(|failure| panic!("{failure}"));
        validated += summary.validated;
    }
    assert!(validated > 400, "{validated} validations");
}

#[test]
fn fresh_seeds_of_stores_without_conditions_stay_quiet() {
    let weak = |seed: &u64| Plan::of_seed(*seed).store.conditions != Conditions::Kept;
    let seeds: Vec<u64> = (CONDITIONS_FROM..CONDITIONS_FROM + 80).filter(weak).collect();
    assert!(seeds.len() > 20, "{} stores without conditions", seeds.len());
    for seed in seeds {
        run_seed(seed, false).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn a_seed_repeats() {
    let run = |seed, plan: &Plan| report(seed, plan.clone(), Keep::Hash, None).result.expect("it passes");
    for (seed, plan) in [(17, Plan::of_seed(17)), (3, Plan { crash_at: Some(90), ..scripts::daily() })] {
        let first = run(seed, &plan);
        assert_eq!(run(seed, &plan), first);
        let kept_nothing = run_plan(seed, plan, false).expect("it passes");
        assert_eq!(Summary { trace_hash: first.trace_hash, ..kept_nothing }, first, "a trace does not count");
    }
}

/// A busy database for 24 hours: what is on the replica stays within the formula of decision 0015, and
/// each end of a level's file of the last eight hours is restored. That nothing is asked of the store
/// once it is quiet is looked at in each run.
#[test]
fn a_busy_day_keeps_to_its_formula_and_each_end_is_restored() {
    let (sync, snapshot, retention, grace) = (1, 4 * 3_600, 8 * 3_600, 300);
    let intervals = [30, 300, 3_600];
    let plan = scripts::day(Levels {
        intervals_ms: intervals.map(|seconds| 1_000 * seconds).to_vec(),
        snapshot_ms: 1_000 * snapshot,
        snapshot_bytes_min: 1 << 20,
        verify: true,
        retain: Some(Retain { snapshot_ms: 1_000 * retention, l0_ms: 1_000 * grace }),
        every_end: true,
    });
    let summary = run_plan(1, plan, false).unwrap_or_else(|failure| panic!("{failure}"));
    let held = summary.held_max;
    assert!(held[0].files <= (2 * grace + intervals[0]) / sync + 17, "level 0: {held:?}");
    for (level, interval) in (1..).zip(intervals) {
        let files = (retention + 2 * grace + snapshot) / interval + 2;
        assert!(held[level].files <= files, "level {level}: at most {files} of {held:?}");
        // A file holds no more than the files of level 0 did that it was made of, one each five seconds.
        let bytes = files * interval / 5 * held[0].bytes / held[0].files;
        assert!(held[level].bytes <= bytes, "level {level}: at most {bytes} bytes of {held:?}");
    }
    assert!(held[9].files <= (retention + 2 * grace) / snapshot + 2, "snapshots: {held:?}");
    assert!(summary.ends > 900 && summary.deleted > 15_000, "{summary:?}");
}

/// Without long readers the WAL stays within sixteen times the threshold and the largest
/// transaction, whatever the application does about checkpoints.
#[test]
fn the_wal_has_a_bound_under_load() {
    for autocheckpoint in [0, 1_000] {
        let plan = scripts::full_speed(4_000, autocheckpoint);
        let threshold = u64::from(plan.config.min_checkpoint_pages);
        let summary = run_plan(1, plan, false).unwrap_or_else(|failure| panic!("{failure}"));
        let frames = summary.wal_bytes_max / (512 + 24);
        assert!(frames <= 16 * threshold, "{frames} frames with autocheckpoint {autocheckpoint}");
        assert_eq!(summary.bases, (1, 0), "a checkpoint alone causes no base");
        assert!(summary.blocked_us_max <= 100_000, "blocked for {} us", summary.blocked_us_max);
    }
}

/// A base that takes longer than the WAL takes to fill, under a writer: what the base has not read
/// is put aside, and the WAL is started over all the same.
#[test]
fn the_wal_has_a_bound_while_a_base_is_streamed() {
    let plan = scripts::long_base(1_500);
    let threshold = u64::from(plan.config.min_checkpoint_pages);
    let summary = run_plan(1, plan, false).unwrap_or_else(|failure| panic!("{failure}"));
    let frames = summary.wal_bytes_max / (512 + 24);
    // A VACUUM is one transaction of as many frames as the database has pages, and counts whole.
    assert!(frames <= 16 * threshold + 1_300, "{frames} frames in the WAL");
    assert_eq!(summary.bases.0, 1, "the full base is not begun again");
}
