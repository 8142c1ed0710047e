//! What stands beside the databases of a process: its application, its signals, its service
//! manager, those who look at it from outside. What is decided about the application and about
//! signals is in [`driftless_core::application`]; here it is carried out.

pub(crate) mod child;
pub mod heartbeat;
pub mod notify;
pub(crate) mod signals;
pub mod words;

use std::collections::VecDeque;
use std::rc::Rc;

use driftless_core::application::{Action, Attendant, Databases, Event, Standing, Verdict};
use driftless_core::machine::Exit;
use futures_lite::FutureExt as _;
use futures_lite::future::pending;
use smol::channel::{Receiver, Sender, bounded};

use crate::clock;
use crate::host::databases::Life;
use crate::host::{Host, lease};
use child::{Application, End};
use signals::Signals;

/// How a process came to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// The worst end of its databases, or why its application did not begin.
    pub databases: Exit,
    /// How its application ended, in words, and with which exit code.
    pub application: Option<(String, u8)>,
    /// Whose end counts.
    pub verdict: Verdict,
}

impl Ended {
    /// Of a process without an application.
    pub(crate) fn alone(databases: Exit) -> Ended {
        Ended { databases, application: None, verdict: Verdict::Databases }
    }
}

/// Attends to the application and to signals.
pub(crate) struct Service {
    command: Option<Vec<String>>,
    signals: Signals,
    host: Rc<Host>,
    reload: Sender<()>,
    attendant: Attendant,
    application: Option<Application>,
    end: Option<End>,
    not_begun: Option<Exit>,
    handed_over: bool,
    /// The worst end of the databases, once all have ended.
    databases: Option<Exit>,
}

impl Service {
    /// With the words of an application's command, or none.
    pub(crate) fn new(command: Option<Vec<String>>, signals: Signals, host: Rc<Host>) -> Service {
        let attendant = Attendant::new(command.is_some());
        let (reload, reloads) = bounded(1);
        // Beside this one: a reload waits for databases to end, and an end of the process does not.
        host.spawn(serve_reloads(host.clone(), reloads));
        Service {
            command,
            signals,
            host,
            reload,
            attendant,
            application: None,
            end: None,
            not_begun: None,
            handed_over: false,
            databases: None,
        }
    }

    /// Runs until all databases and the application have ended.
    pub(crate) async fn run(mut self) -> Ended {
        let mut events = VecDeque::new();
        while self.databases.is_none() || !self.attendant.is_gone() {
            let event = match events.pop_front() {
                Some(event) => event,
                None => self.next_event().await,
            };
            for action in self.attendant.handle(clock::mono(), event) {
                events.extend(self.perform(action));
            }
        }
        self.ended()
    }

    /// Does one thing, and says what has happened if that is known at once.
    fn perform(&mut self, action: Action) -> Option<Event> {
        match (action, &self.application) {
            (Action::Begin, _) => return self.begin(),
            (Action::Finish, _) => {
                tracing::info!("stopping");
                lease::finish(&self.host);
            }
            (Action::Send(signal), Some(application)) => application.send(signal),
            (Action::Kill, Some(application)) => {
                tracing::warn!("the application does not stop, and is killed");
                application.kill();
            }
            (Action::Reload, _) => {
                // While one waits, another would read the same.
                let _ = self.reload.try_send(());
            }
            (Action::Send(_) | Action::Kill, None) => {}
        }
        None
    }

    fn ended(self) -> Ended {
        let databases = match (self.databases, self.not_begun) {
            (Some(Exit::Done) | None, Some(exit)) => exit,
            (databases, _) => databases.unwrap_or(Exit::Done),
        };
        let code = self.end.map_or(0, End::code);
        let verdict = self.attendant.verdict(&databases, code);
        Ended { databases, application: self.end.map(|end| (end.describe(), code)), verdict }
    }

    fn begin(&mut self) -> Option<Event> {
        let command = self.command.as_ref().expect("only an application that there is begins");
        match Application::start(command) {
            Ok(begun) => {
                tracing::info!(program = command[0], pid = begun.id(), "the application has begun");
                self.application = Some(begun);
                None
            }
            Err(exit) => {
                self.not_begun = Some(exit);
                Some(Event::Ended)
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let Service { attendant, host, application, signals, databases, handed_over, .. } = self;
        let standing = async {
            let known = || Some(standing(host)).filter(|known| attendant.is_concerned(*known));
            Event::Databases(match (attendant.is_awaited(), attendant.is_gone()) {
                (true, _) => host.changes.until(known).await,
                // From now on it matters only whether they go on.
                (false, false) => host.lives.until(known).await,
                (false, true) => pending().await,
            })
        };
        let all_ended = async {
            match databases {
                None => host.lives.until(|| host.ended()).await,
                Some(_) => pending().await,
            }
        };
        let signal = async {
            let arrived = signals.next().await;
            tracing::info!(signal = ?arrived.signal, "a signal has come");
            Event::Signal { signal: arrived.signal, shared: arrived.from_terminal }
        };
        let handover = async {
            let wanted = || host.lease.as_ref().filter(|lease| lease.hands_over()).map(|_| ());
            match handed_over {
                false => host.lives.until(wanted).await,
                true => pending().await,
            }
            Event::HandOver
        };
        let left = async {
            match application {
                Some(application) => application.ended().await,
                None => pending().await,
            }
        };
        let tick = async {
            match attendant.next_deadline() {
                Some(at) => async_io::Timer::after(at.since(clock::mono())).await,
                None => pending().await,
            };
            Event::Tick
        };
        let left = async { Woken::Left(left.await) };
        let all_ended = async { Woken::AllEnded(all_ended.await) };
        let others = async { Woken::Other(standing.or(signal).or(handover).or(tick).await) };
        match left.or(all_ended).or(others).await {
            Woken::Left(end) => {
                tracing::info!("the application {}", end.describe());
                (self.application, self.end) = (None, Some(end));
                Event::Ended
            }
            Woken::AllEnded(worst) => {
                self.databases = Some(worst);
                Event::Databases(Databases::Ended)
            }
            Woken::Other(event) => {
                self.handed_over |= event == Event::HandOver;
                event
            }
        }
    }
}

async fn serve_reloads(host: Rc<Host>, reloads: Receiver<()>) {
    while reloads.recv().await.is_ok() {
        host.reload().await;
    }
}

/// Whether every database is well, and there is one.
pub(crate) fn is_well(host: &Host) -> bool {
    if let Some(lease) = host.lease.as_ref().filter(|lease| !lease.is_active()) {
        // A standby is well while it knows who the primary is.
        return lease.is_standby() && lease.status().last_error.is_none();
    }
    // A directory that is watched may be empty.
    let (mut any, mut well) = (host.discovery.watches(), true);
    let now = clock::mono();
    host.for_each(|entry| {
        any = true;
        well &= entry.life == Life::Running && entry.ailment(now).is_none();
    });
    any && well
}

/// What a wait has ended with.
enum Woken {
    Left(End),
    AllEnded(Exit),
    Other(Event),
}

fn standing(host: &Host) -> Databases {
    if let Some(lease) = &host.lease {
        match (lease.lost().is_some(), lease.is_active()) {
            (true, _) => return Databases::Lost,
            (false, false) => return Databases::Starting,
            (false, true) => {}
        }
    }
    let mut standing = Standing::default();
    host.for_each(|entry| match &entry.life {
        Life::Running | Life::Stopping => standing.add(entry.status().as_deref(), None),
        Life::Ended(exit) | Life::Leaving { exit, asked: false } => standing.add(None, Some(exit)),
        Life::Stopped(_) | Life::Resetting { .. } | Life::Leaving { asked: true, .. } => {}
    });
    standing.sum()
}
