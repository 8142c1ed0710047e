//! The judge of the simulator: planted bugs, each of which must be found.
//!
//! `cargo sim mutants` builds this crate once more with the feature `mutants`, in `target/mutants` and
//! nowhere else, and has that build look for each bug of [`Mutant::ALL`]: seeds from fixed starts on
//! ([`seed_of`]) are run until an oracle objects, and then those of `sim/seeds.txt`. How many seeds
//! that takes is what the simulator is worth. A bug that survives shows a fault or an oracle that is
//! missing; in how many seeds its rule was asked for at all tells which of the two.
//!
//! `sim/scenarios/mutants` keeps a small run for each that has one, made by the shrinker, which begins
//! with runs of a dozen operations: it fails with the bug and passes without it.
//!
//! # Adding one
//! A line in `core/src/mutant.rs` (name, where it was met, story) and `mutant::on(Mutant::…)` where
//! the rule stands that it breaks, in one readable line, asked for last, so that it counts only where
//! the rule would have decided. `cargo sim mutants --only NAME --shrink` tells the rest.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use driftless_core::mutant::Mutant;
use serde::{Deserialize, Serialize};

use crate::bad_input::BadInput;
use crate::failover;
use crate::pair;
use crate::ring0::faults::FULL_FROM;
use crate::ring0::plan::{
    LEVELS_FROM, MODEL_FROM, RETAIN_FROM, RIVALS_FROM, TIERS_FROM, VALIDATION_FROM, ZSTD_FROM,
};
use crate::ring0::profile::Profile;
use crate::ring0::{Plan, caught, report};
use crate::scenario::Scenario;
use crate::seed::kept;
use crate::shrink::{Shrunk, Size, shrink_where};
use crate::trace::{Keep, Trace};

/// Where the seeds begin, of SQLite itself and of its model: those that vary everything. Of four, one
/// is of the first kind.
const FIRST_SEEDS: (u64, u64) = (FULL_FROM, MODEL_FROM);

/// The seed of a number, which counts from 1.
pub fn seed_of(number: u64) -> u64 {
    if number % 4 == 1 { FIRST_SEEDS.0 + number } else { FIRST_SEEDS.1 + number }
}

/// Planted bugs of rules that only a compactor has.
const OF_LEVELS: [Mutant; 5] = [
    Mutant::OldestPageMerged,
    Mutant::GapBridged,
    Mutant::CutPageMerged,
    Mutant::InputUnverified,
    Mutant::MergeMissesPage,
];

/// Planted bugs of rules that only a retainer has.
const OF_RETENTION: [Mutant; 8] = [
    Mutant::RetentionImpatient,
    Mutant::HeadNotKept,
    Mutant::InputsEaten,
    Mutant::CoverGuessed,
    Mutant::CoverUnread,
    Mutant::CoverUnlinked,
    Mutant::WallClockTrusted,
    Mutant::DeleteBelieved,
];

/// Planted bugs of rules for databases without an engine.
const OF_TIERS: [Mutant; 8] = [
    Mutant::ChangedFilesBelieved,
    Mutant::OldRecordsBelieved,
    Mutant::ChangeInLeavingForgotten,
    Mutant::LeftUnlooked,
    Mutant::ViewUnlooked,
    Mutant::UnreplicatedRests,
    Mutant::PendingRests,
    Mutant::SweepForgotten,
];

/// Planted bugs of rules for replicas with levels on which somebody else writes.
const OF_RIVALS: [Mutant; 2] = [Mutant::ForeignLevelTaken, Mutant::TenureUnproven];

/// Planted bugs of rules that only zstd has.
const OF_ZSTD: [Mutant; 2] = [Mutant::BlocksOfAnotherCodec, Mutant::SegmentBeforeDictionary];

/// Planted bugs of rules that only a validator has.
const OF_VALIDATION: [Mutant; 1] = [Mutant::VanishedIsDamage];

/// Planted bugs of the lease and of what follows from it, for which hosts contend in worlds of their own.
const OF_LEASE: [Mutant; 23] = [
    Mutant::LooksBeforeRenewal,
    Mutant::EarlySearchBelieved,
    Mutant::PutsPipelined,
    Mutant::BaseUncut,
    Mutant::BeginnerFollows,
    Mutant::WaiterImpatient,
    Mutant::WaiterByWall,
    Mutant::FenceForgotten,
    Mutant::TenureFromAnswer,
    Mutant::TenureNeverEnds,
    Mutant::EpochKept,
    Mutant::RefusalIsOurs,
    Mutant::LeaseUnread,
    Mutant::SuccessionUnfenced,
    Mutant::PredecessorReverted,
    Mutant::EpochUnsaid,
    Mutant::SnapshotGoesOn,
    Mutant::LeaseDeleted,
    Mutant::ActivatesUnfenced,
    Mutant::TailBelieved,
    Mutant::UnknownOverwritten,
    Mutant::EarlyLookBelieved,
    Mutant::OwnPutFences,
];

/// The seed of a number for one bug: what only a compactor does is looked for where there is one.
fn seed_for(mutant: Mutant, number: u64) -> u64 {
    match mutant {
        _ if OF_LEVELS.contains(&mutant) => LEVELS_FROM + number,
        _ if OF_RETENTION.contains(&mutant) => RETAIN_FROM + number,
        _ if OF_TIERS.contains(&mutant) => TIERS_FROM + number,
        _ if OF_RIVALS.contains(&mutant) => RIVALS_FROM + number,
        _ if OF_ZSTD.contains(&mutant) => ZSTD_FROM + number,
        _ if OF_VALIDATION.contains(&mutant) => VALIDATION_FROM + number,
        _ => seed_of(number),
    }
}

/// The most operations and faults of a small run.
pub const SMALL: (usize, usize) = (10, 3);

/// What a hunt came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trial {
    /// The name of the planted bug.
    pub name: String,
    /// In how many seeds the broken rule was asked for.
    pub met: u64,
    /// How it was found; `None` if it survived.
    pub kill: Option<Kill>,
    /// Operations and faults of the smallest run that finds it, if one was looked for.
    pub small: Option<(usize, usize)>,
}

/// How a bug was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kill {
    /// The number of the seed, counted from 1; with `kept`, of those before it.
    pub seeds: u64,
    /// The seed of `sim/seeds.txt` that found it when no fresh one had.
    pub kept: Option<u64>,
    /// The oracle that objected.
    pub oracle: String,
    /// What it said.
    pub text: String,
}

/// The bug of a name.
///
/// # Errors
/// When there is none.
pub fn of_name(name: &str) -> Result<Mutant, BadInput> {
    Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name).ok_or_else(|| {
        BadInput::new(format!("no planted bug is called {name:?}")).hint("cargo sim mutants --list")
    })
}

/// Where the small run of a bug is kept.
pub fn scenario_path(mutant: Mutant) -> PathBuf {
    root().join("sim/scenarios/mutants").join(format!("{}.json", mutant.name()))
}

/// The root of the workspace that this was built from.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_path_buf()
}

/// Looks for one bug in `seeds` seeds, and makes the run that finds it small within `shrinking`.
/// The small run is the answer's second part. Only in a build that holds the bugs.
///
/// # Panics
/// In any other build.
pub fn hunt(
    mutant: Mutant,
    seeds: u64,
    profile: Profile,
    shrinking: Option<Duration>,
) -> (Trial, Option<Scenario>) {
    let mut trial = Trial { name: mutant.name().into(), met: 0, kill: None, small: None };
    if OF_LEASE.contains(&mutant) {
        return (hunt_lease(mutant, seeds, trial), None);
    }
    for number in 1..=seeds {
        let seed = seed_for(mutant, number);
        let (kill, met) = try_plan(mutant, seed, profile.plan(seed));
        trial.met += u64::from(met);
        let Some((oracle, text)) = kill else { continue };
        if report(seed, profile.plan(seed), Keep::Nothing, None).result.is_err() {
            // It fails without the bug, too, and says nothing of it.
            continue;
        }
        trial.kill = Some(Kill { seeds: number, kept: None, oracle, text });
        let small = shrinking.and_then(|time| make_small(mutant, (seed, profile), time));
        trial.small = small.as_ref().map(|small| (small.after.operations, small.after.faults));
        return (trial, small.map(|small| small.scenario));
    }
    trial.kill = by_kept(mutant, seeds);
    (trial, None)
}

/// The same for a bug of the lease: hosts contend for it alone, and then with all that follows from it.
fn hunt_lease(mutant: Mutant, seeds: u64, mut trial: Trial) -> Trial {
    for number in 1..=seeds {
        let lease = || failover::run(number).map(drop);
        let whole = |seed| caught(|| pair::run(seed, Trace::new(Keep::Nothing))).map(drop);
        let all = || lease().and_then(|()| whole(number)).and_then(|()| whole(pair::LEVELS_FROM + number));
        let (result, met) = with(mutant, || (all(), was_met()));
        trial.met += u64::from(met);
        if let Err(violation) = result {
            let (oracle, text) = (violation.oracle.to_string(), violation.text);
            trial.kill = Some(Kill { seeds: number, kept: None, oracle, text });
            return trial;
        }
    }
    trial
}

/// What every run begins with: the seeds that once failed find again what they were kept for.
fn by_kept(mutant: Mutant, seeds: u64) -> Option<Kill> {
    kept().find_map(|(seed, _)| {
        let (oracle, text) = try_plan(mutant, seed, Profile::Seed.plan(seed)).0?;
        Some(Kill { seeds, kept: Some(seed), oracle, text })
    })
}

/// The smallest run that finds a bug, within `time`: of small seeds, since a dozen operations are
/// soon made fewer, or else of the seed that found it.
fn make_small(mutant: Mutant, found: (u64, Profile), time: Duration) -> Option<Shrunk> {
    let deadline = Instant::now() + time;
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut best: Option<Shrunk> = None;
    for seed in (1..).map(seed_of).take_while(|_| !left().is_zero()) {
        let plan = Profile::Small.plan(seed);
        if try_plan(mutant, seed, plan.clone()).0.is_none() {
            continue;
        }
        let Some(small) = shrink_planted(mutant, seed, &plan, left().min(time / 4)) else { continue };
        let size = |it: &Shrunk| it.after.operations + it.after.faults;
        if best.as_ref().is_none_or(|best| size(&small) < size(best)) {
            best = Some(small);
        }
        if best.as_ref().is_some_and(|best| best.after.operations <= SMALL.0 && best.after.faults <= SMALL.1)
        {
            break;
        }
    }
    best.or_else(|| shrink_planted(mutant, found.0, &found.1.plan(found.0), time))
}

/// Shrinks a run to one that passes without the bug. `None` if it fails without the bug, too.
fn shrink_planted(mutant: Mutant, seed: u64, plan: &Plan, time: Duration) -> Option<Shrunk> {
    let passes = |plan: &Plan| {
        plant(None);
        let passes = report(seed, plan.clone(), Keep::Nothing, None).result.is_ok();
        plant(Some(mutant));
        passes
    };
    with(mutant, || passes(plan).then(|| shrink_where(seed, plan, time, &passes)).flatten())
}

/// Runs the kept run of a bug with and without it.
///
/// # Errors
/// When it fails without the bug, so that it says nothing of it.
///
/// # Panics
/// In a build that does not hold the bugs.
pub fn replay(mutant: Mutant, scenario: &Scenario) -> Result<Trial, BadInput> {
    if let Err(violation) = report(scenario.seed, scenario.plan.clone(), Keep::Nothing, None).result {
        return Err(BadInput::new(format!("{}: it fails without the bug: {violation}", mutant.name())));
    }
    let (kill, met) = try_plan(mutant, scenario.seed, scenario.plan.clone());
    let kill = kill.map(|(oracle, text)| Kill { seeds: 1, kept: None, oracle, text });
    let size = Size::of(&scenario.plan, 0);
    let small = Some((size.operations, size.faults));
    Ok(Trial { name: mutant.name().into(), met: met.into(), kill, small })
}

/// What an oracle says of a run with the bug, and whether the broken rule was asked for.
fn try_plan(mutant: Mutant, seed: u64, plan: Plan) -> (Option<(String, String)>, bool) {
    with(mutant, || {
        let result = report(seed, plan, Keep::Nothing, None).result;
        (result.err().map(|violation| (violation.oracle.to_string(), violation.text)), was_met())
    })
}

fn with<T>(mutant: Mutant, run: impl FnOnce() -> T) -> T {
    plant(Some(mutant));
    let done = run();
    plant(None);
    done
}

#[cfg(feature = "mutants")]
fn plant(mutant: Option<Mutant>) {
    driftless_core::mutant::choose(mutant);
}

#[cfg(not(feature = "mutants"))]
fn plant(mutant: Option<Mutant>) {
    assert!(mutant.is_none(), "this build holds no planted bugs");
}

#[cfg(feature = "mutants")]
fn was_met() -> bool {
    driftless_core::mutant::met_times() > 0
}

#[cfg(not(feature = "mutants"))]
fn was_met() -> bool {
    false
}

/// What all hunts came to, in words: how many were killed, in how many seeds by the median, and how
/// many by a small run, where such were looked for.
pub fn summary(trials: &[Trial]) -> String {
    let fresh = |kill: &&Kill| kill.kept.is_none();
    let mut seeds: Vec<u64> = trials
        .iter()
        .map(|trial| trial.kill.as_ref().filter(fresh).map_or(u64::MAX, |kill| kill.seeds))
        .collect();
    seeds.sort_unstable();
    let killed = trials.iter().filter(|trial| trial.kill.is_some()).count();
    let by_kept = killed - seeds.iter().filter(|seeds| **seeds < u64::MAX).count();
    let median = match seeds.get(seeds.len().saturating_sub(1) / 2) {
        None => "none".to_string(),
        Some(&u64::MAX) => "more than were tried".to_string(),
        Some(seeds) => format!("{seeds} seeds"),
    };
    let mut text = format!("killed {killed} of {}", trials.len());
    if by_kept > 0 {
        text += &format!(" ({by_kept} only by kept seeds)");
    }
    text += &format!(", median {median}");
    let sizes: Vec<(usize, usize)> = trials.iter().filter_map(|trial| trial.small).collect();
    if !sizes.is_empty() {
        let small = sizes.iter().filter(|(ops, faults)| *ops <= SMALL.0 && *faults <= SMALL.1).count();
        text += &format!(
            "; {small} by at most {} operations and {} faults, of {} that were made small",
            SMALL.0,
            SMALL.1,
            sizes.len()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(seeds: Option<u64>, small: Option<(usize, usize)>) -> Trial {
        let kill =
            seeds.map(|seeds| Kill { seeds, kept: None, oracle: "oracle".into(), text: "a text".into() });
        Trial { name: Mutant::TakenIsDone.name().into(), met: 3, kill, small }
    }

    #[test]
    fn the_median_counts_the_survivors() {
        let tried =
            |seeds: &[Option<u64>]| summary(&seeds.iter().map(|it| trial(*it, None)).collect::<Vec<_>>());
        assert_eq!(tried(&[Some(9), Some(1), Some(3)]), "killed 3 of 3, median 3 seeds");
        assert_eq!(tried(&[None, Some(1), None]), "killed 1 of 3, median more than were tried");
        assert_eq!(tried(&[]), "killed 0 of 0, median none");
        let mut kept = trial(Some(9), None);
        kept.kill.as_mut().unwrap().kept = Some(4429);
        assert_eq!(
            summary(&[kept, trial(Some(2), None)]),
            "killed 2 of 2 (1 only by kept seeds), median 2 seeds"
        );
        let small = [(10, 3), (11, 0), (2, 4)].map(|size| trial(Some(1), Some(size)));
        assert!(summary(&small).contains("; 1 by at most 10 operations and 3 faults, of 3 "));
    }

    #[test]
    #[should_panic(expected = "holds no planted bugs")]
    fn a_usual_build_plants_nothing() {
        plant(Some(Mutant::TakenIsDone));
    }
}
