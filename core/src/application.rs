//! The application that runs under us (`-exec`): when it begins, what it is told, when it must end.
//!
//! What can be lost here is what an application commits while nobody replicates it. So it begins
//! only when each database is followed and known to be the replica's, or waited for because it is
//! not there yet. Replication
//! is finished only after the application has ended, since that may commit until its last
//! moment. And where replication ends first (another host has taken the replica over), the
//! application is told to stop, and killed if it does not.
//!
//! A store that does not answer keeps nobody from beginning: what is committed meanwhile is
//! captured, and sent when it answers again.

use alloc::vec::Vec;
use core::time::Duration;

use crate::engine::{Phase, Status};
use crate::ids::Mono;
use crate::machine::Exit;

/// How long the application may take to stop once replication has ended under it.
pub const STOP_MAX: Duration = Duration::from_secs(10);

/// A signal that is passed on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Signal {
    /// SIGTERM.
    Term,
    /// SIGINT.
    Int,
    /// SIGQUIT.
    Quit,
    /// SIGHUP.
    Hup,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGWINCH.
    Winch,
}

impl Signal {
    /// Whether it asks a process to end.
    pub const fn stops(self) -> bool {
        matches!(self, Signal::Term | Signal::Int | Signal::Quit)
    }
}

/// How the databases of the process stand, taken together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Databases {
    /// It is not known yet of each that it can be followed.
    Starting,
    /// Each is followed, or waited for.
    Ready,
    /// One has ended with an error, others have not.
    Failed,
    /// All have ended, not all of them well.
    Lost,
    /// All have ended, or will not be waited for.
    Ended,
}

/// Takes databases together, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    running: bool,
    starting: bool,
    ended: bool,
    failed: bool,
}

impl Standing {
    /// Adds one: its status, if its engine has told any, and its end, if it has ended by itself. One
    /// that a person has stopped counts for nothing.
    pub fn add(&mut self, status: Option<&Status>, exit: Option<&Exit>) {
        match exit {
            Some(exit) => {
                self.ended = true;
                self.failed |= *exit != Exit::Done;
            }
            None => {
                self.running = true;
                self.starting |= !status.is_some_and(is_ready);
            }
        }
    }

    /// What they amount to.
    pub fn sum(self) -> Databases {
        match (self.failed, self.running) {
            (true, false) => Databases::Lost,
            (true, true) => Databases::Failed,
            (false, false) if self.ended => Databases::Ended,
            (false, _) if self.starting => Databases::Starting,
            // Also without any: they may be registered later.
            (false, _) => Databases::Ready,
        }
    }
}

fn is_ready(status: &Status) -> bool {
    if status.unfenced {
        return false;
    }
    match status.phase {
        Phase::Waiting | Phase::Stopping => true,
        // Nobody can say when a store that fails will answer.
        Phase::Starting => status.last_error.is_some(),
        // Where it is to be shown that the replica is this database's, the application would only
        // make that harder by writing, and lose what it wrote if it is not.
        Phase::Following | Phase::Base | Phase::Quiet => !status.on_trial,
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The databases stand like this now.
    Databases(Databases),
    /// A signal has come to us.
    Signal {
        /// Which.
        signal: Signal,
        /// Whether it came from the terminal, which sends it to the application as well.
        shared: bool,
    },
    /// Another host is to take over: the application ends, then replication, with everything replicated.
    HandOver,
    /// The application has ended, or could not begin.
    Ended,
    /// The deadline has passed, or any time at all.
    Tick,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Begin the application.
    Begin,
    /// Send it this signal.
    Send(Signal),
    /// Send it SIGKILL.
    Kill,
    /// Ask each database for its final sync. The second time ends that at once.
    Finish,
    /// Read the configuration again.
    Reload,
}

/// Whose end is the process's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// That of the databases.
    Databases,
    /// That of the application.
    Application,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Awaited,
    Running,
    /// Told to stop, since replication has ended.
    Stopping {
        kill_at: Option<Mono>,
    },
    Gone,
}

/// Decides about the application and about signals.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attendant {
    life: Life,
    told_to_stop: bool,
    hands_over: bool,
}

impl Attendant {
    /// Of a process with an application, or without one.
    pub fn new(application: bool) -> Attendant {
        Attendant {
            life: if application { Life::Awaited } else { Life::Gone },
            told_to_stop: false,
            hands_over: false,
        }
    }

    /// Whether there is no application, or none any more.
    pub fn is_gone(&self) -> bool {
        self.life == Life::Gone
    }

    /// Whether the application is yet to begin.
    pub fn is_awaited(&self) -> bool {
        self.life == Life::Awaited
    }

    /// Whether it matters that the databases stand like this.
    pub fn is_concerned(&self, databases: Databases) -> bool {
        match self.life {
            Life::Awaited => databases != Databases::Starting,
            Life::Running => databases == Databases::Lost,
            Life::Stopping { .. } | Life::Gone => false,
        }
    }

    /// When to call [`Attendant::handle`] with [`Event::Tick`] if nothing else happens first.
    pub fn next_deadline(&self) -> Option<Mono> {
        match self.life {
            Life::Stopping { kill_at } => kill_at,
            _ => None,
        }
    }

    /// Takes one event; what is to be done comes back in order.
    pub fn handle(&mut self, now: Mono, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::Databases(databases) => self.databases(now, databases, &mut out),
            Event::Signal { signal, shared } => self.signal(signal, shared, &mut out),
            Event::HandOver => self.hand_over(now, &mut out),
            Event::Ended => {
                // Replication that has ended has nothing to finish.
                if self.life == Life::Running || self.hands_over {
                    out.push(Action::Finish);
                }
                self.life = Life::Gone;
            }
            Event::Tick => {
                if let Life::Stopping { kill_at: Some(at) } = self.life
                    && at <= now
                {
                    self.life = Life::Stopping { kill_at: None };
                    out.push(Action::Kill);
                }
            }
        }
        out
    }

    fn databases(&mut self, now: Mono, databases: Databases, out: &mut Vec<Action>) {
        match (self.life, databases) {
            (Life::Awaited, Databases::Ready) => {
                self.life = Life::Running;
                out.push(Action::Begin);
            }
            // An application of several databases must not begin with one of them unprotected.
            (Life::Awaited, Databases::Failed | Databases::Lost) => {
                self.life = Life::Gone;
                out.push(Action::Finish);
            }
            (Life::Awaited, Databases::Ended) => self.life = Life::Gone,
            (Life::Running, Databases::Lost | Databases::Ended) => {
                self.life = Life::Stopping { kill_at: Some(now.after(STOP_MAX)) };
                self.told_to_stop = true;
                out.push(Action::Send(Signal::Term));
            }
            _ => {}
        }
    }

    fn hand_over(&mut self, now: Mono, out: &mut Vec<Action>) {
        self.hands_over = true;
        match self.life {
            Life::Running => {
                self.life = Life::Stopping { kill_at: Some(now.after(STOP_MAX)) };
                out.push(Action::Send(Signal::Term));
            }
            Life::Stopping { .. } => {}
            Life::Awaited | Life::Gone => {
                self.life = Life::Gone;
                out.push(Action::Finish);
            }
        }
    }

    fn signal(&mut self, signal: Signal, shared: bool, out: &mut Vec<Action>) {
        if signal == Signal::Hup {
            out.push(Action::Reload);
        }
        match self.life {
            Life::Awaited | Life::Gone if signal.stops() => {
                self.life = Life::Gone;
                out.push(Action::Finish);
            }
            Life::Awaited | Life::Gone => {}
            Life::Running | Life::Stopping { .. } if shared => {}
            Life::Running | Life::Stopping { .. } => out.push(Action::Send(signal)),
        }
    }

    /// Whose end counts, if the application ended with this exit code.
    ///
    /// Its own failure does, whatever came of the final sync: what started us wants to know of the
    /// application. But if it ended because we told it to, the reason for that does.
    pub fn verdict(&self, databases: &Exit, application: u8) -> Verdict {
        let ours = self.hands_over || self.told_to_stop && databases.code() != 0;
        if application == 0 || ours { Verdict::Databases } else { Verdict::Application }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Config, Replicator};
    use crate::machine::{Machine as _, ReplicaId};
    use std::string::String;

    const NOW: Mono = Mono::from_duration(Duration::from_secs(100));

    /// An attendant with an application, after these events; and all that came out.
    fn after(events: &[Event]) -> (Attendant, Vec<Action>) {
        let mut attendant = Attendant::new(true);
        let out = events.iter().flat_map(|event| attendant.handle(NOW, *event)).collect();
        (attendant, out)
    }

    fn status(phase: Phase, last_error: bool, on_trial: bool) -> Status {
        let status = Replicator::new(ReplicaId(0), 1, Config::default()).status();
        Status { phase, last_error: last_error.then(|| String::from("x")), on_trial, ..status }
    }

    #[test]
    fn nothing_begins_before_the_predecessor_is_fenced() {
        for (phase, last_error) in
            [(Phase::Waiting, false), (Phase::Starting, true), (Phase::Following, false)]
        {
            let mut standing = Standing::default();
            standing.add(Some(&Status { unfenced: true, ..status(phase, last_error, false) }), None);
            assert_eq!(standing.sum(), Databases::Starting, "{phase:?}");
        }
    }

    #[test]
    fn whoever_hands_over_ends_the_application_first() {
        let (attendant, out) = after(&[Event::Databases(Databases::Ready), Event::HandOver]);
        assert_eq!(out, [Action::Begin, Action::Send(Signal::Term)]);
        assert_eq!(attendant.next_deadline(), Some(NOW.after(STOP_MAX)));
        let (attendant, out) = after(&[Event::Databases(Databases::Ready), Event::HandOver, Event::Ended]);
        assert_eq!(out[2..], [Action::Finish]);
        // It was we who ended it: what counts is whether everything is replicated.
        assert_eq!(attendant.verdict(&Exit::Done, 143), Verdict::Databases);
        assert_eq!(after(&[Event::HandOver]).1, [Action::Finish]);
    }

    #[test]
    fn databases_are_ready_when_each_is() {
        let sum = |each: &[(Option<Status>, Option<Exit>)]| {
            let mut standing = Standing::default();
            each.iter().for_each(|(status, exit)| standing.add(status.as_ref(), exit.as_ref()));
            standing.sum()
        };
        let ready = (Some(status(Phase::Following, false, false)), None);
        for (other, expected) in [
            ((None, None), Databases::Starting),
            ((Some(status(Phase::Starting, false, false)), None), Databases::Starting),
            ((Some(status(Phase::Starting, true, false)), None), Databases::Ready),
            ((Some(status(Phase::Base, false, true)), None), Databases::Starting),
            ((Some(status(Phase::Base, true, false)), None), Databases::Ready),
            ((Some(status(Phase::Waiting, false, true)), None), Databases::Ready),
            ((None, Some(Exit::Done)), Databases::Ready),
            ((None, Some(Exit::Failed { error: String::new(), hint: String::new() })), Databases::Failed),
        ] {
            assert_eq!(sum(&[ready.clone(), other.clone()]), expected, "{other:?}");
        }
        let failed = || Some(Exit::Failed { error: String::new(), hint: String::new() });
        assert_eq!(sum(&[(None, Some(Exit::Done))]), Databases::Ended);
        assert_eq!(sum(&[(None, Some(Exit::Done)), (None, failed())]), Databases::Lost);
        assert_eq!(sum(&[]), Databases::Ready);
    }

    const READY: Event = Event::Databases(Databases::Ready);
    const STARTING: Event = Event::Databases(Databases::Starting);
    const FAILED: Event = Event::Databases(Databases::Failed);
    const ALL_ENDED: Event = Event::Databases(Databases::Ended);

    fn signal(signal: Signal) -> Event {
        Event::Signal { signal, shared: false }
    }

    #[test]
    fn it_begins_once_when_each_database_is_ready() {
        assert_eq!(after(&[STARTING]).1, []);
        assert_eq!(after(&[STARTING, READY, STARTING, READY]).1, [Action::Begin]);
        assert_eq!(after(&[FAILED, READY]).1, [Action::Finish]);
        assert_eq!(after(&[signal(Signal::Term), READY]).1, [Action::Finish]);
        assert_eq!(after(&[ALL_ENDED, READY]).1, []);
    }

    #[test]
    fn replication_is_finished_after_its_end_only() {
        let (attendant, out) = after(&[READY, signal(Signal::Term), signal(Signal::Int)]);
        assert_eq!(out, [Action::Begin, Action::Send(Signal::Term), Action::Send(Signal::Int)]);
        assert!(!attendant.is_gone());
        let (attendant, out) = after(&[READY, FAILED, Event::Ended, signal(Signal::Term)]);
        assert_eq!(out, [Action::Begin, Action::Finish, Action::Finish], "the second is the impatient one");
        assert!(attendant.is_gone());
    }

    #[test]
    fn what_the_terminal_has_sent_it_is_not_sent_again() {
        let shared = Event::Signal { signal: Signal::Int, shared: true };
        assert_eq!(after(&[READY, shared]).1, [Action::Begin]);
        assert_eq!(after(&[shared]).1, [Action::Finish]);
        assert_eq!(after(&[READY, Event::Ended, shared]).1, [Action::Begin, Action::Finish, Action::Finish]);
    }

    #[test]
    fn only_what_asks_to_end_ends_us() {
        for other in [Signal::Usr1, Signal::Usr2, Signal::Winch] {
            assert_eq!(after(&[signal(other)]).1, []);
            assert_eq!(after(&[READY, signal(other)]).1, [Action::Begin, Action::Send(other)]);
            assert_eq!(after(&[READY, Event::Ended, signal(other)]).1, [Action::Begin, Action::Finish]);
        }
        assert_eq!(after(&[signal(Signal::Hup)]).1, [Action::Reload]);
        let out = after(&[READY, signal(Signal::Hup)]).1;
        assert_eq!(out, [Action::Begin, Action::Reload, Action::Send(Signal::Hup)]);
        assert_eq!(Attendant::new(false).handle(NOW, READY), []);
        assert_eq!(Attendant::new(false).handle(NOW, signal(Signal::Quit)), [Action::Finish]);
    }

    #[test]
    fn it_is_stopped_when_nobody_replicates_any_more() {
        let lost = Event::Databases(Databases::Lost);
        assert_eq!(after(&[lost]).1, [Action::Finish]);
        let (mut attendant, out) = after(&[READY, lost, ALL_ENDED, Event::Tick]);
        assert_eq!(out, [Action::Begin, Action::Send(Signal::Term)]);
        for other in [READY, STARTING, FAILED] {
            assert_eq!(after(&[READY, other]).1, [Action::Begin]);
        }
        let at = attendant.next_deadline().expect("it is given time");
        assert_eq!(at, NOW.after(STOP_MAX));
        assert_eq!(attendant.handle(at, Event::Tick), [Action::Kill]);
        assert_eq!(attendant.next_deadline(), None);
        assert_eq!(attendant.handle(at, Event::Ended), []);
        assert!(attendant.is_gone());
    }

    #[test]
    fn its_failure_counts_unless_we_caused_it() {
        let text = || String::from("x");
        let fenced = Exit::Fenced { error: text(), hint: text() };
        let (by_itself, _) = after(&[READY, Event::Ended]);
        assert_eq!(by_itself.verdict(&Exit::Done, 3), Verdict::Application);
        assert_eq!(by_itself.verdict(&fenced, 3), Verdict::Application);
        assert_eq!(by_itself.verdict(&fenced, 0), Verdict::Databases);
        let (told, _) = after(&[READY, ALL_ENDED, Event::Ended]);
        assert_eq!(told.verdict(&fenced, 143), Verdict::Databases);
        assert_eq!(told.verdict(&Exit::Done, 143), Verdict::Application);
    }
}
