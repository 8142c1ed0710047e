//! Other plans of the same seed.

use std::time::Duration;

use super::app::{AppOp, Work};
use super::plan::{Blow, Plan, StateFate};
use super::sites::Strike;
use crate::bad_input::BadInput;

/// What is made of a seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Profile {
    /// What the seed says.
    #[default]
    Seed,
    /// The same without faults.
    Calm,
    /// The size by which simulators are compared: ten simulated minutes at least, and for the median seed 300
    /// commits, three crashes, ten faults, 20 verified restores; pages of 512 or 1,024 bytes.
    Standard,
    /// A dozen operations and all the faults: what fails here is soon made small.
    Small,
}

/// Operations of a small run.
const SMALL_OPERATIONS: u64 = 12;
/// How long the script of a standard run is.
const STANDARD_LENGTH: Duration = Duration::from_secs(10 * 60);
/// Operations in it.
const STANDARD_OPERATIONS: u64 = 580;
/// Rows of its largest insertions but for the huge ones, so that a database has some hundred pages.
const STANDARD_ROWS: u32 = 12;

impl Profile {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::Seed => "seed",
            Profile::Calm => "calm",
            Profile::Standard => "standard",
            Profile::Small => "small",
        }
    }

    /// The one of a name.
    ///
    /// # Errors
    /// When there is none.
    pub fn parse(name: &str) -> Result<Profile, BadInput> {
        let all = [Profile::Seed, Profile::Calm, Profile::Standard, Profile::Small];
        all.into_iter().find(|it| it.name() == name).ok_or_else(|| {
            BadInput::new(format!("unknown profile: {name}")).hint("there are seed, calm, standard and small")
        })
    }

    /// The plan of a seed.
    pub fn plan(self, seed: u64) -> Plan {
        match self {
            Profile::Seed => Plan::of_seed(seed),
            Profile::Calm => calm(Plan::of_seed(seed)),
            Profile::Standard => standard(seed),
            Profile::Small => Plan::of_seed_with(seed, SMALL_OPERATIONS, &[512, 1_024]),
        }
    }
}

/// Orderly stops and steps of the clock are no faults.
fn calm(plan: Plan) -> Plan {
    let mut calm = Plan {
        workload: plan.workload,
        config: plan.config,
        durable: plan.durable,
        levels: plan.levels,
        ..Plan::calm(plan.script)
    };
    calm.strike = Strike::Only(Vec::new());
    calm.blows = plan.blows.into_iter().filter(|(_, blow)| !blow.is_fault()).collect();
    calm
}

fn standard(seed: u64) -> Plan {
    let mut plan = Plan::of_seed_with(seed, STANDARD_OPERATIONS, &[512, 512, 1_024]);
    let length: Duration = plan.script.iter().map(|(wait, _)| *wait).sum();
    for (_, op) in &mut plan.script {
        if let AppOp::Write(work) | AppOp::Begin(work) | AppOp::DieInCommit(work) | AppOp::FailCommit(work) =
            op
            && let Work::Insert { rows, .. } = work
        {
            *rows = (*rows).min(STANDARD_ROWS);
        }
    }
    // The last waits are half a second, whatever is drawn.
    let stretched = |time: Duration| time.mul_f64(STANDARD_LENGTH.as_secs_f64() / length.as_secs_f64());
    plan.script.iter_mut().for_each(|(wait, _)| *wait = stretched(*wait));
    plan.blows.iter_mut().for_each(|(at, _)| *at = stretched(*at));
    for n in 1..=3 {
        let kill = Blow::Kill { state: StateFate::Kept, down: Duration::from_secs(n.into()) };
        plan.blows.push((STANDARD_LENGTH * n / 4, kill));
    }
    plan.blows.sort_by_key(|(at, _)| *at);
    plan.store.per_mille = plan.store.per_mille.max(50);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring0::{Summary, report, run_plan};
    use crate::trace::Keep;

    /// What one comes to depends on its dice: a store that answers nothing has nothing restored from it. The
    /// median counts.
    #[test]
    fn standard_runs_are_as_large_as_they_say() {
        let seeds = [7, 8, 9, 10_000_007, 10_000_008, 10_000_009, 10_000_010];
        let mut summaries: Vec<Summary> = seeds
            .iter()
            .map(|seed| run_plan(*seed, Profile::Standard.plan(*seed), false))
            .map(|summary| summary.unwrap_or_else(|failure| panic!("{failure}")))
            .collect();
        assert!(summaries.iter().all(|it| it.simulated_ms >= 600_000));
        let mut median = |of: fn(&Summary) -> u64| {
            summaries.sort_by_key(of);
            of(&summaries[seeds.len() / 2])
        };
        let (commits, crashes) = (median(|it| it.commits), median(|it| it.crashes));
        let (faults, restored) = (median(|it| it.hits.total()), median(|it| it.restored));
        assert!(
            commits >= 300 && crashes >= 3 && faults >= 10 && restored >= 20,
            "{commits} commits, {crashes} crashes, {faults} faults, {restored} restores"
        );
    }

    #[test]
    fn a_calm_run_has_no_faults() {
        let report = report(11, Profile::Calm.plan(11), Keep::Nothing, None);
        assert!(report.struck.is_empty());
        assert_eq!(report.result.expect("it passes").crashes, 0);
    }

    #[test]
    fn profiles_have_names() {
        assert_eq!(Profile::parse("standard"), Ok(Profile::Standard));
        assert!(!Profile::parse("fast").unwrap_err().hint.is_empty());
    }
}
