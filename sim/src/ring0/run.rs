//! Running a plan, with panics caught: a failed assertion of the engine is a finding like others.

use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use super::hits::Hits;
use super::oracles::crash_equals;
use super::plan::{Plan, StateFate};
use super::sites::Site;
use super::violation::Violation;
use super::world::{Summary, World};
use crate::trace::{Keep, Kind, Record, Trace, node};

/// A run that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was seen.
    pub violation: Violation,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.violation)
    }
}

impl std::error::Error for Failure {}

/// All that is to be known of a run, failed or not.
#[derive(Clone, Debug)]
pub struct Report {
    /// What it came to, or what was seen.
    pub result: Result<Summary, Violation>,
    /// The sites that were struck, in the order of time.
    pub struck: Vec<Site>,
    /// All faults that struck.
    pub hits: Hits,
    /// What happened, if it was to be kept.
    pub records: Vec<Record>,
    /// The hash of what happened.
    pub trace_hash: u64,
}

/// Runs a plan with the dice of a seed, to its end or until so much time has passed in it, and
/// keeps of what happens what is asked for.
pub fn report(seed: u64, plan: Plan, keep: Keep, until: Option<Duration>) -> Report {
    let trace = Trace::new(keep);
    let world = World::watched(seed, plan, trace.clone());
    let sites = world.sites();
    let result = caught(|| world.run_until(until));
    if let Err(violation) = &result {
        trace.note_last(node::ORACLE, Kind::Violation, format_args!("{violation}"));
    }
    Report {
        result,
        struck: sites.struck(),
        hits: sites.hits(),
        trace_hash: trace.hash(),
        records: trace.take(),
    }
}

thread_local! {
    /// Where the last panic of a run on this thread happened; `None` while none is running.
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs something, and makes a violation of a panic. It is told with its place by whoever gets it,
/// not printed: the shrinker meets the same one hundreds of times.
pub fn caught<T>(run: impl FnOnce() -> Result<T, Violation>) -> Result<T, Violation> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info.location().map(|place| format!("{}:{}", place.file(), place.line()));
            let ours = PANICKED.with_borrow_mut(|ours| {
                let running = ours.as_mut()?;
                *running = place.unwrap_or_default();
                Some(())
            });
            if ours.is_none() {
                usual(info);
            }
        }));
    });
    PANICKED.set(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(run));
    let place = PANICKED.take().unwrap_or_default();
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()));
        Err(Violation::new("panic", format!("{} ({place})", text.unwrap_or_default())))
    })
}

/// Runs the plan that follows from a seed.
///
/// # Errors
/// What an oracle said, or the message of a panic.
pub fn run_seed(seed: u64, verbose: bool) -> Result<Summary, Failure> {
    run_plan(seed, Plan::of_seed(seed), verbose)
}

/// Runs a plan with the dice of a seed.
///
/// # Errors
/// What an oracle said, or the message of a panic.
pub fn run_plan(seed: u64, plan: Plan, verbose: bool) -> Result<Summary, Failure> {
    let keep = if verbose { Keep::Print } else { Keep::Nothing };
    report(seed, plan, keep, None).result.map_err(|violation| Failure { seed, violation })
}

/// Runs a plan once to count its actions, then again for each of them with a crash right after
/// it. Answers how many there were.
///
/// # Errors
/// The first run that fails, and which action its crash came after.
pub fn run_with_every_crash(seed: u64, plan: &Plan, state: StateFate) -> Result<u64, Failure> {
    let Summary { actions, contents, .. } = run_plan(seed, plan.clone(), false)?;
    for crash_at in 1..=actions {
        let crashing = Plan { crash_at: Some(crash_at), crash_state: state, ..plan.clone() };
        let with = run_plan(seed, crashing, false).and_then(|summary| {
            if crash_equals::is_certain(plan) {
                crash_equals::check(&contents, &summary.contents)
                    .map_err(|violation| Failure { seed, violation })?;
            }
            Ok(())
        });
        with.map_err(|mut failure| {
            failure.violation.text = format!(
                "crash after action {crash_at} of {actions}, state {state:?}: {}",
                failure.violation.text
            );
            failure
        })?;
    }
    Ok(actions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_violation_with_its_place() {
        let violation = caught(|| -> Result<(), Violation> { panic!("seven is {}", 7) }).unwrap_err();
        assert_eq!(violation.oracle, "panic");
        let told = "seven is 7 (sim/src/ring0/run.rs:";
        assert!(violation.text.starts_with(told), "{violation}");
    }
}
