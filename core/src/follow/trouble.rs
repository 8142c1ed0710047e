//! What goes wrong and may pass.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use super::machine::{BRIEF, Follower, Then};
use crate::machine::{Actions, Fact, Object, Severity};

/// The longest rest after trouble.
const TROUBLE_WAIT_MAX: Duration = Duration::from_secs(30);
/// The same of a successor: nobody writes until it has come to the end of the history. And of a copy that
/// cannot be written: its process leaves the lease to others until it can.
const SUCCESSOR_WAIT_MAX: Duration = Duration::from_secs(4);

impl Follower {
    /// A careless listing is no reason to read everything: what one shows, another has to confirm.
    pub(super) fn suspect(&mut self, text: String, out: &mut Actions) {
        self.wide = true;
        if self.suspicion.as_ref() == Some(&text) {
            self.rebase = Some(text);
            return self.look_again();
        }
        out.notify(Severity::Info, Fact::Remark { text: format!("{text}; listing the replica again") });
        self.suspicion = Some(text);
        self.rest_briefly();
    }

    pub(super) fn went_well(&mut self, out: &mut Actions) {
        self.obstructed = false;
        if core::mem::take(&mut self.failures) > 0 {
            out.notify(Severity::Info, Fact::Recovered { what: "following".into() });
        }
    }

    /// Something failed that may pass: lets go of the copy, waits and begins again with what is there.
    pub(super) fn trouble(&mut self, error: String, out: &mut Actions) {
        let first = self.config.interval.min(BRIEF);
        let most = if self.succeeds || self.obstructed { SUCCESSOR_WAIT_MAX } else { TROUBLE_WAIT_MAX };
        let wait = first.saturating_mul(1 << self.failures.min(5)).min(most);
        self.failures += 1;
        let wait_ms = wait.as_millis() as u64;
        let what = "following".into();
        out.notify(Severity::Warn, Fact::Retrying { what, error, hint: String::new(), wait_ms });
        self.close(Then::Again(wait), out);
    }

    /// A file is not what it says. The transaction is taken back.
    pub(super) fn blame(&mut self, object: Object, text: String, out: &mut Actions) {
        let count = self.faults.get(&object).map_or(0, |(count, _)| *count) + 1;
        self.faults.insert(object, (count, text.clone()));
        self.trouble(format!("{object}: {text}"), out);
    }
}
