//! A process of many databases, of which one is looked at: its engine comes and goes.
//!
//! The tiers decide, as in production (`runtime/src/host/places.rs`): an engine that rests is let go of, one
//! that another database needs the place of is told to finish, and a database that is as it was left
//! begins without one. All other databases of the process are one more, which wants the only place now and
//! then.

use std::time::Duration;

use driftless::port::source::SourceFiles as _;
use driftless_core::engine::Journal;
use driftless_core::ids::Mono;
use driftless_core::keeper::Keeper;
use driftless_core::machine::{Event, Exit, Machine as _, SealRecord, StateReply, StateRequest, WalFacts};
use driftless_core::tiers::{Fingerprint, Left, Limits, Order, Rest, Standing, Tier, Tiers};

use super::app::PATH;
use super::files::SimFiles;
use super::violation::Violation;
use super::world::{Entry, World};
use crate::trace::{Kind, node};

/// All the others.
const CROWD: u32 = 5_000;
/// How long an engine that makes room has for its last sync.
const TURN_END: Duration = Duration::from_secs(10);

/// The places of a process that runs.
#[derive(Debug)]
pub(super) struct Places {
    tiers: Tiers,
    /// The number of the database that is looked at: by it, when one that began without an engine is to
    /// have one.
    number: u32,
    standing: Option<Standing>,
    /// The database began without an engine, and is to have one then, whatever happens.
    due: Option<Mono>,
    /// The engine has finished without coming to rest: what its files were then is not known, and the sweep
    /// brings it back.
    unknown: bool,
    /// Which process they belong to.
    process: u64,
    /// Changes are told of: not before the directories are watched.
    in_view: bool,
    /// Counts what the tick under way is for.
    wake: u64,
}

/// Something to come for the places of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ToPlaces {
    Tick {
        wake: u64,
    },
    /// The directories are watched from now on.
    InView,
    /// The crowd wants the place.
    CrowdComes,
    /// It has had it for long enough.
    CrowdLeaves,
}

impl World {
    /// Whether the process runs, with an engine or without.
    pub(super) fn is_up(&self) -> bool {
        self.running.is_some() || self.full.places.is_some()
    }

    /// The process begins, its journal open.
    pub(super) fn open_places(&mut self) -> Result<(), Violation> {
        let number = *self.dice.pick("places", "number", self.runs, &[0, 100, 1_439]);
        let limits = Limits { hot: 1, starting: 1, resting: 0, ..Limits::default() };
        let mut tiers = Tiers::new(limits);
        let config = self.config();
        let may_rest =
            Keeper::may_rest(&config, self.plan.levels.is_some(), self.plan.validation_ms.is_some());
        let rested = match may_rest {
            true => self.found_at_rest()?,
            false => None,
        };
        match rested {
            Some(fingerprint) => {
                self.hit("process: begins without an engine");
                tiers.add_at_rest(self.now().mono, number, fingerprint);
            }
            None => tiers.add(number),
        }
        let cold = tiers.tier(number) == Some(Tier::Cold);
        self.note(node::DRIFTLESS, Kind::Start, format_args!("the process begins, cold: {cold}"));
        if self.bury() {
            return Ok(());
        }
        self.full.processes += 1;
        let (due, process) = (tiers.next_deadline(), self.full.processes);
        self.full.places = Some(Places {
            tiers,
            number,
            standing: None,
            due,
            process,
            unknown: false,
            in_view: false,
            wake: 0,
        });
        // Long before an engine can come to rest: the directories are watched in one go.
        let view_us = self.plan.config.quiet_after.as_micros() as u64 / 2;
        self.places_later("in view", view_us, ToPlaces::InView);
        self.places_later("crowd comes", 60_000_000, ToPlaces::CrowdComes);
        self.give_places()
    }

    fn places_later(&mut self, what: &str, us_max: u64, entry: ToPlaces) {
        self.full.places_steps += 1;
        let wait = self.dice.wait("places", what, self.full.places_steps, 1_000, us_max);
        self.later(wait, Entry::Places(self.full.processes, entry));
    }

    /// What the files of the database are, if they are as its records say that they were left.
    fn found_at_rest(&mut self) -> Result<Option<Fingerprint>, Violation> {
        let records = match self.local_request(&StateRequest::Load)? {
            Some(Ok(StateReply::Records(records))) => records,
            None => self.state.records().to_vec(),
            Some(_) => return Ok(None),
        };
        let now = self.now().mono;
        let found =
            self.seal_facts().and_then(|(file, wal)| Journal::replay(&records).at_rest(now, &file, wal));
        Ok(found.map(|(fingerprint, _)| fingerprint))
    }

    fn seal_facts(&self) -> Option<(SealRecord, Option<WalFacts>)> {
        let facts = SimFiles::new(self.sqlite.disk().clone(), PATH).facts().ok()??;
        Some((SealRecord::of(&facts), facts.wal))
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let (file, wal) = self.seal_facts()?;
        Some(Fingerprint::new(file.device, file.inode, file.size, file.ctime_ns, wal))
    }

    /// Changes the tiers, and has what follows carried out.
    fn places(&mut self, change: impl FnOnce(&mut Tiers, u32, Option<Fingerprint>)) -> Result<(), Violation> {
        let now = self.fingerprint();
        let Some(places) = &mut self.full.places else { return Ok(()) };
        change(&mut places.tiers, places.number, now);
        self.give_places()
    }

    /// Carries out what the tiers want now.
    fn give_places(&mut self) -> Result<(), Violation> {
        loop {
            let now = self.now().mono;
            let Some(places) = &mut self.full.places else { return Ok(()) };
            let mut orders = Vec::new();
            places.tiers.orders(now, &mut orders);
            if orders.is_empty() {
                // Otherwise the host would wake without end.
                if places.tiers.next_deadline().is_some_and(|at| at <= now) {
                    return Err(Violation::new("spin", format!("no orders are due: {:?}", places.tiers)));
                }
                break;
            }
            let number = places.number;
            for order in orders {
                self.note(node::DRIFTLESS, Kind::Action, format_args!("{order:?}"));
                match order {
                    Order::Start(database) if database == number => {
                        if let Some(places) = &mut self.full.places {
                            (places.due, places.unknown) = (None, false);
                        }
                        self.start_engine()?;
                    }
                    Order::Rest(database) if database == number => self.rest_engine()?,
                    Order::Finish(database) if database == number => self.finish_turn()?,
                    Order::Start(crowd) => {
                        if let Some(places) = &mut self.full.places {
                            places.tiers.stands(now, crowd, Standing::Busy);
                        }
                        self.places_later("crowd leaves", 20_000_000, ToPlaces::CrowdLeaves);
                    }
                    Order::Rest(_) | Order::Finish(_) => {
                        self.places_later("crowd ends", 1_000_000, ToPlaces::CrowdLeaves);
                    }
                    Order::Look => self.look_at_cold(),
                }
            }
        }
        self.arm_places();
        Ok(())
    }

    fn look_at_cold(&mut self) {
        let now = self.fingerprint();
        if let Some(places) = &mut self.full.places {
            places.tiers.told(places.number, || now);
            places.tiers.told(CROWD, || Some(crowds_files()));
        }
    }

    fn arm_places(&mut self) {
        let now = self.now().mono;
        let Some(places) = &mut self.full.places else { return };
        places.wake += 1;
        let wake = places.wake;
        let Some(at) = places.tiers.next_deadline() else { return };
        let wait = at.since(now) + Duration::from_micros(200);
        let wait = if self.is_mono_frozen() { wait.max(Duration::from_millis(200)) } else { wait };
        self.later(wait, Entry::Places(self.full.processes, ToPlaces::Tick { wake }));
    }

    /// Something has come for the places.
    pub(super) fn places_entry(&mut self, process: u64, entry: ToPlaces) -> Result<(), Violation> {
        let Some(places) = self.full.places.as_mut().filter(|places| places.process == process) else {
            return Ok(());
        };
        match entry {
            ToPlaces::Tick { wake } if wake != places.wake => Ok(()),
            ToPlaces::Tick { .. } => self.give_places(),
            ToPlaces::InView => {
                places.in_view = true;
                places.tiers.in_view();
                self.give_places()
            }
            ToPlaces::CrowdComes if self.healed_at.is_some() => Ok(()),
            ToPlaces::CrowdComes => {
                places.tiers.add(CROWD);
                self.places_later("crowd comes again", 90_000_000, ToPlaces::CrowdComes);
                self.give_places()
            }
            ToPlaces::CrowdLeaves => {
                let left = Left::Rested(Rest { fingerprint: crowds_files(), due: None });
                places.tiers.left(CROWD, left, || Some(crowds_files()));
                self.give_places()
            }
        }
    }

    /// The files may have changed, and no engine runs.
    pub(super) fn changed_without_engine(&mut self) -> Result<(), Violation> {
        if !self.full.places.as_ref().is_some_and(|places| places.in_view) {
            return Ok(());
        }
        self.places(|tiers, number, now| tiers.told(number, || now))
    }

    /// Somebody wants everything sent, and no engine runs.
    pub(super) fn sync_without_engine(&mut self) -> Result<(), Violation> {
        self.places(|tiers, number, _| tiers.change(number))
    }

    /// The engine has done something: it may stand otherwise now.
    pub(super) fn note_standing(&mut self) -> Result<(), Violation> {
        let now = self.now();
        let (Some(running), Some(places)) = (&self.running, &mut self.full.places) else { return Ok(()) };
        let standing = running.engine.standing(now, &running.engine.status());
        if places.standing.replace(standing) == Some(standing) {
            return Ok(());
        }
        places.tiers.stands(now.mono, places.number, standing);
        self.give_places()
    }

    /// Ends an engine that rests; one that has something to do after all stays.
    fn rest_engine(&mut self) -> Result<(), Violation> {
        let now = self.now();
        let Some(running) = &self.running else { return Ok(()) };
        if running.stopping.is_some() || !running.underway.is_empty() || running.engine.rest(now).is_none() {
            if let Some(places) = &mut self.full.places {
                places.standing = Some(Standing::Busy);
                places.tiers.stays(now.mono, places.number);
            }
            return Ok(());
        }
        self.hit("process: an engine let go of at its rest");
        self.engine_left(None);
        Ok(())
    }

    /// Tells the engine that its turn is over.
    fn finish_turn(&mut self) -> Result<(), Violation> {
        let deadline = self.now().mono.after(TURN_END);
        let owed = if self.nothing_is_owed() { 0 } else { self.truth.owed() };
        let Some(running) = self.running.as_mut().filter(|running| running.stopping.is_none()) else {
            return Ok(());
        };
        running.turn_over = true;
        self.owed = owed;
        self.hit("process: an engine that makes room");
        self.handle(Event::Shutdown { deadline })
    }

    /// A run has ended that was to make room. False if the database ends with it.
    pub(super) fn turn_ended(&mut self, exit: &Exit) -> Result<bool, Violation> {
        let Some(running) = self.running.as_ref().filter(|it| it.turn_over && it.stopping.is_none()) else {
            return Ok(false);
        };
        if Left::of(Some(exit), running.engine.rest(self.now()), running.engine.was_told()).is_none() {
            return Ok(false);
        }
        self.engine_left(Some(exit));
        self.give_places().map(|()| true)
    }

    fn engine_left(&mut self, exit: Option<&Exit>) {
        let now = self.now();
        let Some(running) = &self.running else { return };
        // An event on its way is the process's, and will be told.
        let left = Left::of(exit, running.engine.rest(now), running.engine.was_told());
        self.end_engine();
        let files = self.fingerprint();
        if let (Some(places), Some(left)) = (&mut self.full.places, left) {
            places.standing = None;
            places.unknown = left == Left::Finished;
            self.full.swept |= places.unknown;
            places.tiers.left(places.number, left, || files);
        }
    }

    /// The process is told to stop while the database has no engine. One that is as it was left is done
    /// with; for another there is no time.
    pub(super) fn stop_without_engine(&mut self, down: Duration) -> Result<(), Violation> {
        self.look_at_cold();
        let Some(places) = &self.full.places else { return Ok(()) };
        if places.tiers.tier(places.number) == Some(Tier::Cold) {
            self.hit("process: stopped without an engine");
            // That the store has lost something is noticed within a day.
            let lost = self.sites.hits().of("store: objects vanish") > 0;
            self.owed = if lost || self.nothing_is_owed() { 0 } else { self.truth.owed() };
            self.check_owed(&Exit::Done)?;
        }
        self.kill();
        self.later(down, Entry::Start);
        Ok(())
    }

    /// Whether the database is without an engine, and nothing but the sweep brings it one before long.
    pub(super) fn rests_without_engine(&self) -> bool {
        let Some(places) = &self.full.places else { return false };
        let soon = self.now().mono.after(Limits::default().sweep);
        let cold = places.tiers.tier(places.number) == Some(Tier::Cold);
        cold && places.in_view && !places.unknown && places.due.is_none_or(|at| at > soon)
    }

    /// Whether this is no more than the sweep of the cold.
    pub(super) fn is_sweep(&self, entry: &Entry) -> bool {
        matches!(entry, Entry::Places(_, ToPlaces::Tick { .. }))
    }
}

fn crowds_files() -> Fingerprint {
    Fingerprint::new(9, 9, 9, 9, None)
}
