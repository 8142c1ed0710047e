//! A machine is a function of its events: replayed, they give the same actions.

use driftless_core::ids::Now;
use driftless_core::machine::{Actions, Event, Machine};

use super::super::violation::Violation;

/// What a machine was told, and what it asked for.
#[derive(Debug, Default)]
pub struct Tape(Vec<(Now, Event, Actions)>);

impl Tape {
    /// Records one step.
    pub fn record(&mut self, now: Now, event: Event, actions: &Actions) {
        self.0.push((now, event, actions.clone()));
    }

    /// Gives the machine as it was the same events. A tape is played once.
    ///
    /// # Errors
    /// At the first step at which it asks for something else.
    pub fn check<M: Machine>(self, mut first: M) -> Result<(), Violation> {
        let mut actions = Actions::new();
        for (n, (now, event, expected)) in self.0.into_iter().enumerate() {
            first.handle(now, event, &mut actions);
            if actions != expected {
                let text = format!("event {n} gave {expected:?} and now {actions:?}");
                return Err(Violation::new("purity", text));
            }
            actions.drain().for_each(drop);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use driftless_core::ids::Mono;
    use driftless_core::machine::{Fact, Reason, Severity};

    use super::*;

    /// Says how often it was called; an impure one counts for all of its kind.
    #[derive(Clone)]
    struct Counter {
        own: u64,
        shared: Option<std::rc::Rc<std::cell::Cell<u64>>>,
    }

    impl Machine for Counter {
        type Status = ();

        fn handle(&mut self, _now: Now, _event: Event, out: &mut Actions) {
            self.own += 1;
            let count = self.shared.as_ref().map_or(self.own, |shared| shared.replace(shared.get() + 1));
            out.notify(Severity::Info, Fact::Remark { text: count.to_string() });
        }

        fn next_deadline(&self) -> Option<(Mono, Reason)> {
            None
        }

        fn status(&self) {}
    }

    #[test]
    fn hidden_state_is_found() {
        for shared in [None, Some(std::rc::Rc::default())] {
            let pure = shared.is_none();
            let first = Counter { own: 0, shared };
            let (mut machine, mut tape) = (first.clone(), Tape::default());
            for _ in 0..3 {
                let mut actions = Actions::new();
                machine.handle(Now::default(), Event::Tick, &mut actions);
                tape.record(Now::default(), Event::Tick, &actions);
            }
            assert_eq!(tape.check(first).is_ok(), pure);
        }
    }
}
