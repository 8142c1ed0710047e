//! Every crash and every fault of a short script, without dice.
//!
//! A survey runs the script once and notes how many actions there are and which faults could strike
//! where. Each [`Case`] is then a run of its own: a death after one action, with one fate of the
//! local state; one fault at one place; or both, where the faults are those of the run that dies.

use crate::ring0::oracles::crash_equals;
use crate::ring0::plan::{Plan, StateFate};
use crate::ring0::sites::{Site, Strike};
use crate::ring0::summary::Contents;
use crate::ring0::{Failure, World, run_plan};

/// What dies after an action, and what is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// The process, with this fate of its local state.
    Process(StateFate),
    /// The machine.
    Power,
}

/// The deaths that are tried after each action.
pub const DEATHS: [Death; 4] = [
    Death::Process(StateFate::Kept),
    Death::Process(StateFate::Cut(2)),
    Death::Process(StateFate::Lost),
    Death::Power,
];

/// What a script is run with.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Case {
    /// After which action somebody dies.
    pub death: Option<(u64, Death)>,
    /// Which fault strikes.
    pub fault: Option<Site>,
}

impl Case {
    /// The plan of a script with this.
    pub fn plan(&self, script: &Plan) -> Plan {
        let mut plan = script.clone();
        plan.strike = Strike::Only(self.fault.iter().cloned().collect());
        if let Some((after, death)) = self.death {
            plan.crash_at = Some(after);
            plan.crash_power = death == Death::Power;
            plan.crash_state = if let Death::Process(state) = death { state } else { StateFate::Kept };
        }
        plan
    }
}

/// What there is to try in a run.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Actions of the replicator.
    pub actions: u64,
    /// Every fault that could strike, at each place and time.
    pub faults: Vec<Site>,
    /// What the database holds in the end, where that is certain.
    pub contents: Option<Contents>,
}

/// Runs a script with a case and notes what else could happen.
///
/// # Errors
/// When that fails already.
pub fn survey(seed: u64, script: &Plan, case: &Case) -> Result<Survey, Failure> {
    let world = World::new(seed, case.plan(script), false);
    let sites = world.sites();
    sites.survey();
    let summary = world.run_until(None).map_err(|violation| Failure { seed, violation })?;
    let contents = crash_equals::is_certain(script).then_some(summary.contents);
    Ok(Survey { actions: summary.actions, faults: sites.surveyed(), contents })
}

/// Every single death and every single fault.
pub fn singles(survey: &Survey) -> impl Iterator<Item = Case> {
    let deaths = deaths(survey).map(|death| Case { death: Some(death), fault: None });
    let faults = survey.faults.iter().map(|fault| Case { death: None, fault: Some(fault.clone()) });
    deaths.chain(faults)
}

/// Every death of a script.
pub fn deaths(survey: &Survey) -> impl Iterator<Item = (u64, Death)> {
    (1..=survey.actions).flat_map(|action| DEATHS.map(|death| (action, death)))
}

/// Every fault of the run that dies like this.
///
/// # Errors
/// When that fails without a fault already.
pub fn with_death(seed: u64, script: &Plan, death: (u64, Death)) -> Result<Vec<Case>, Failure> {
    let dying = Case { death: Some(death), fault: None };
    let faults = survey(seed, script, &dying)?.faults;
    Ok(faults.into_iter().map(|fault| Case { fault: Some(fault), ..dying.clone() }).collect())
}

/// Runs a script with a case; in the end the database must hold `contents`, where they are certain.
///
/// # Errors
/// What an oracle said.
pub fn run(seed: u64, script: &Plan, case: &Case, contents: Option<&Contents>) -> Result<(), Failure> {
    let summary = run_plan(seed, case.plan(script), false)?;
    // Where the application itself does more than its script, more is there.
    let more = case.fault.as_ref().is_some_and(|fault| fault.fault.starts_with("application: "));
    let same = contents
        .filter(|_| !more)
        .map_or(Ok(()), |contents| crash_equals::check(contents, &summary.contents));
    same.map_err(|violation| Failure { seed, violation })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring0::scripts;

    /// A survey leaves nothing out that a run can meet, and each fault of it strikes when it is named.
    #[test]
    fn each_fault_of_a_survey_strikes() {
        let script = scripts::tiny();
        let survey = survey(1, &script, &Case::default()).unwrap_or_else(|failure| panic!("{failure}"));
        assert!(survey.actions > 20 && survey.faults.len() > 100, "{survey:?}");
        for fault in survey.faults.iter().step_by(survey.faults.len() / 40) {
            let case = Case { death: None, fault: Some(fault.clone()) };
            let report = crate::ring0::report(1, case.plan(&script), crate::trace::Keep::Nothing, None);
            assert_eq!(report.struck, std::slice::from_ref(fault), "{:?}", report.result);
        }
    }
}
