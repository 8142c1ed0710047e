//! Running a plan, with panics caught: a failed assertion of the engine is a finding like others.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::plan::{Plan, StateFate};
use super::violation::Violation;
use super::world::{Summary, World};

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
    let result = catch_unwind(AssertUnwindSafe(|| World::new(seed, plan, verbose).run()));
    let violation = match result {
        Ok(Ok(summary)) => return Ok(summary),
        Ok(Err(violation)) => violation,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string()));
            Violation::new("panic", text.unwrap_or_default())
        }
    };
    Err(Failure { seed, violation })
}

/// Runs a plan once to count its actions, then again for each of them with a crash right after
/// it. Answers how many there were.
///
/// # Errors
/// The first run that fails, and which action its crash came after.
pub fn run_with_every_crash(seed: u64, plan: &Plan, state: StateFate) -> Result<u64, Failure> {
    let actions = run_plan(seed, plan.clone(), false)?.actions;
    for crash_at in 1..=actions {
        let crashing = Plan { crash_at: Some(crash_at), crash_state: state, ..plan.clone() };
        run_plan(seed, crashing, false).map_err(|mut failure| {
            failure.violation.text = format!(
                "crash after action {crash_at} of {actions}, state {state:?}: {}",
                failure.violation.text
            );
            failure
        })?;
    }
    Ok(actions)
}
