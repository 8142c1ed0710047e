//! What befalls the processes and the wire.

use std::thread;
use std::time::Duration;

use super::{KEEP, Ring2};
use crate::PATIENCE;
use crate::proxy::{Answer, Fault, Rule};
use crate::sidecar::restore_checked;

/// Faults of the wire at a time.
const RULES_MAX: usize = 3;

impl Ring2 {
    /// One blow.
    pub(super) fn strike(&mut self) {
        let name = match self.chance(16) {
            0..=2 => self.kill_sidecar(),
            3 => self.stop_sidecar(),
            4 | 5 => self.freeze_sidecar(),
            6 => self.kill_app(),
            7 => self.freeze_app(),
            8 => self.weather(),
            _ => self.fault(),
        };
        *self.counts.blows.entry(name).or_default() += 1;
    }

    fn kill_sidecar(&mut self) -> &'static str {
        // Its own end before would be a failure, which is seen here.
        self.sidecar.take().expect("it runs between blows").kill();
        let down = self.time(2_000);
        thread::sleep(down);
        self.start_sidecar();
        "kills"
    }

    /// Exit code 0 means that all that was committed is on the replica, and 6 that it may not be.
    fn stop_sidecar(&mut self) -> &'static str {
        let mut sidecar = self.sidecar.take().expect("it runs between blows");
        // Before the socket answers, SIGTERM kills, as it kills any process that has hardly begun.
        crate::wait_for("an answer on the socket", PATIENCE, || sidecar.status().is_some());
        self.app.as_mut().expect("it runs between blows").pause_writer();
        let committed = self.committed();
        sidecar.ask_to_stop();
        let code = sidecar.wait(PATIENCE * 3).code();
        let said = sidecar.lines();
        let tail = said[said.len().saturating_sub(10)..].join("\n");
        match code {
            Some(0) => {
                self.counts.stops.0 += 1;
                let copy = self.dir.join("stopped.db");
                let seen = restore_checked(&self.direct, None, &copy, KEEP).expect("the replica restores");
                assert_eq!(seen.transactions, committed, "exit code 0, and not all is there:\n{tail}");
            }
            Some(6) => self.counts.stops.1 += 1,
            code => panic!("a stop ended with {code:?}:\n{tail}"),
        }
        self.acknowledged = self.acknowledged.max(committed);
        self.app.as_mut().expect("it runs between blows").resume_writer();
        self.start_sidecar();
        "stops"
    }

    /// SIGSTOP, in which something else may happen, and SIGCONT.
    fn freeze_sidecar(&mut self) -> &'static str {
        self.sidecar.as_ref().expect("it runs between blows").signal("STOP");
        let meanwhile = self.chance(3);
        match meanwhile {
            0 => self.end_app(),
            1 => drop(self.fault()),
            _ => {}
        }
        let frozen = self.time(5_000);
        thread::sleep(frozen);
        self.sidecar.as_ref().expect("nobody else ends it").signal("CONT");
        // Not before: it may have been stopped with the write lock in its hands.
        if meanwhile == 0 {
            self.start_app();
        }
        "freezes"
    }

    fn kill_app(&mut self) -> &'static str {
        self.end_app();
        let down = self.time(1_000);
        thread::sleep(down);
        self.start_app();
        "kills of the application"
    }

    fn end_app(&mut self) {
        // A process that dies takes nothing with it: what was committed is in the WAL.
        let seen = self.committed();
        self.app.take().expect("it runs between blows").kill();
        self.acknowledged = self.acknowledged.max(seen);
    }

    fn freeze_app(&mut self) -> &'static str {
        let frozen = self.time(3_000);
        let app = self.app.as_ref().expect("it runs between blows");
        app.signal("STOP");
        thread::sleep(frozen);
        app.signal("CONT");
        "freezes of the application"
    }

    /// The server says nothing, or is not there.
    fn weather(&mut self) -> &'static str {
        let time = Some(self.time(8_000) + Duration::from_millis(50));
        if self.chance(2) == 0 {
            self.proxy.silence(time);
            "silences"
        } else {
            self.proxy.refuse(time);
            "refusals"
        }
    }

    /// Some of the requests to come meet a fault.
    fn fault(&mut self) -> &'static str {
        if self.rules.len() >= RULES_MAX {
            let oldest = self.rules.remove(0);
            self.proxy.remove(oldest);
        }
        let time = self.time(2_000);
        let bytes = self.chance(3_000);
        let (fault, name) = match self.chance(12) {
            0 => (Fault::CutBefore, "cuts before the effect"),
            1 => (Fault::CutAfter, "cuts after the effect"),
            2 => (Fault::CutWithin(bytes), "cuts within a body"),
            3 => (Fault::Answer(Answer::slow_down()), "slow-downs"),
            4 => (Fault::Answer(Answer::too_many_requests(1)), "too many requests"),
            5 => (Fault::Answer(Answer::internal_error()), "errors without effect"),
            6 => (Fault::AnswerAfter(Answer::unavailable()), "errors with effect"),
            7 => (Fault::DelayRequest(time), "late requests"),
            8 => (Fault::DelayAnswer(time), "late answers"),
            9 => (Fault::Truncate(bytes), "answers that break off"),
            10 => (Fault::HangAfter, "answers that never come"),
            _ => (Fault::Twice, "requests that come twice"),
        };
        let hangs = matches!(fault, Fault::HangAfter);
        let share = [0.1, 0.3, 0.6][self.chance(3) as usize];
        let rule = Rule::new(fault).probability(share, self.chance(1 << 40) + 1);
        // Each takes a minute until it counts as lost.
        let rule = self.proxy.add(if hangs { rule.times(1) } else { rule });
        self.rules.push(rule);
        name
    }
}
