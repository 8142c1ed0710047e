//! What a replicator says of itself follows from what it said before.
//!
//! People and their tools follow a replicator by its facts. So a source is attached before it is
//! detached, transactions are reported once and in their order (a
//! report covers all before it, so that one may be left out), and the end is the last word.

use driftless_core::ids::Txid;
use driftless_core::machine::{Action, Fact};

use super::super::violation::Violation;

/// What a run has said so far.
#[derive(Clone, Debug, Default)]
pub struct Story {
    attached: bool,
    replicated: Option<Txid>,
    stopped: bool,
}

impl Story {
    /// The next thing that it says or asks for.
    ///
    /// # Errors
    /// When that does not follow.
    pub fn tell(&mut self, action: &Action) -> Result<(), Violation> {
        let wrong = |text: String| Err(Violation::new("transitions", text));
        if self.stopped {
            return wrong(format!("after the end: {action:?}"));
        }
        match action {
            Action::Stopped(_) => self.stopped = true,
            Action::Notify(notice) => match &notice.fact {
                // Attached again without a word between: another file took the place of the first.
                Fact::Attached => self.attached = true,
                Fact::Detached { .. } if !self.attached => {
                    return wrong("detached from what it never had".into());
                }
                Fact::Detached { .. } => self.attached = false,
                Fact::Replicated { txid, .. } | Fact::Adopted { txid } => {
                    if let Some(before) = self.replicated.filter(|before| before >= txid) {
                        return wrong(format!("{txid:?} is reported after {before:?}"));
                    }
                    self.replicated = Some(*txid);
                }
                _ => {}
            },
            Action::Submit { .. } | Action::Cancel { .. } => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use driftless_core::machine::{Exit, Notice, Severity};

    use super::*;

    fn says(actions: Vec<Action>) -> Result<(), &'static str> {
        let mut story = Story::default();
        actions.iter().try_for_each(|action| story.tell(action)).map_err(|violation| violation.oracle)
    }

    fn fact(fact: Fact) -> Action {
        Action::Notify(Notice { severity: Severity::Info, fact })
    }

    fn replicated(txid: u64) -> Action {
        fact(Fact::Replicated { txid: Txid::new(txid).unwrap(), bytes: 1, pages: 1 })
    }

    #[test]
    fn a_story_that_does_not_follow_is_found() {
        let detached = || fact(Fact::Detached { sealed: true });
        let attached = || fact(Fact::Attached);
        assert_eq!(says(vec![attached(), detached(), attached(), replicated(4), replicated(6)]), Ok(()));
        let adopted = fact(Fact::Adopted { txid: Txid::new(3).unwrap() });
        assert_eq!(says(vec![adopted, replicated(4), Action::Stopped(Exit::Done)]), Ok(()));
        for wrong in [
            vec![detached()],
            vec![attached(), detached(), detached()],
            vec![replicated(4), replicated(4)],
            vec![replicated(4), replicated(3)],
            vec![Action::Stopped(Exit::Done), attached()],
            vec![Action::Stopped(Exit::Done), Action::Stopped(Exit::Done)],
        ] {
            assert_eq!(says(wrong.clone()), Err("transitions"), "{wrong:?}");
        }
    }
}
