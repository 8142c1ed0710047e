//! A whole run as a text that can be written, read, changed by hand and run again.
//!
//! A seed says everything only as long as the code that makes a plan of it stays as it is. A
//! scenario is the plan itself: what the application does and when, the blows, the settings, and
//! the faults, one by one where the shrinker has named them. It is JSON with one operation to a
//! line. What is left out is as in a run without faults.
//!
//! ```json
//! {
//!   "scenario": 1,
//!   "seed": 29,
//!   "plan": {
//!     "script": [
//!       ["0s", {"open": {"page_bytes": 512}}],
//!       ["30ms", {"write": {"insert": {"rows": 3, "bytes": 200}}}]
//!     ],
//!     "blows": [["20ms", {"kill": {"state": "kept", "down": "1s"}}]]
//!   }
//! }
//! ```

pub mod parts;
mod text;

use serde::{Deserialize, Serialize};

use crate::bad_input::BadInput;
use crate::ring0::Plan;

/// The version of the format. Scenarios of other versions are refused.
pub const SCENARIO_VERSION: u64 = 1;

/// A run, and what is known of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The version of the format.
    pub scenario: u64,
    /// The seed of the dice: ties, waits, and what the plan leaves to them.
    pub seed: u64,
    /// The oracle that it made speak when it was written, if any did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub violates: Option<String>,
    /// What is told about it: the commit that it failed on, what was seen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub story: String,
    /// The run.
    pub plan: Plan,
}

impl Scenario {
    /// The run of a plan with the dice of a seed.
    pub fn new(seed: u64, plan: Plan) -> Scenario {
        Scenario { scenario: SCENARIO_VERSION, seed, violates: None, story: String::new(), plan }
    }

    /// Reads one.
    ///
    /// # Errors
    /// When it is of another version, or not a scenario; it says where.
    pub fn read(text: &str) -> Result<Scenario, BadInput> {
        let wrong = |error: serde_json::Error| {
            BadInput::new(format!("not a scenario: {error}"))
                .hint("docs/SIMULATION.md tells what a scenario is; cargo sim shrink writes one")
        };
        /// The version alone, so that another one is told by its number and not by its fields.
        #[derive(Deserialize)]
        struct Version {
            scenario: u64,
        }
        let Version { scenario } = serde_json::from_str(text).map_err(wrong)?;
        if scenario != SCENARIO_VERSION {
            let text = format!(
                "a scenario of version {scenario}, and this program reads version {SCENARIO_VERSION}"
            );
            return Err(BadInput::new(text).hint("write it again with cargo sim shrink SEED"));
        }
        serde_json::from_str(text).map_err(wrong)
    }

    /// Its text, which ends with a line break.
    pub fn write(&self) -> String {
        text::write(self)
    }

    /// Operations of the application, without those that only let time pass.
    pub fn operations(&self) -> usize {
        self.plan.operations()
    }
}

#[cfg(test)]
mod tests;
