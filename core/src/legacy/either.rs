//! A restore from a replica that may hold Litestream 0.3's layout, LTX, or both.
//!
//! Both are there where Litestream was brought from 0.3 to 0.5, or Driftless followed 0.3, on one
//! path. As in Litestream 0.5.17 the one that was written last counts, by the store's times of its
//! objects, and LTX where they are equal. For a moment in the past that one is asked first, and the
//! other only if the one that was written last had not begun by then. A transaction is always one
//! of LTX; a generation or an index one of 0.3.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use super::listing::LegacyListings;
use super::machine::interrupted;
use super::{LegacyInventory, LegacyOrder, LegacyRestorer, LegacyStatus, LegacyTarget};
use crate::ids::{Mono, Now, Wall};
use crate::machine::{
    Action, Actions, Event, Exit, Fact, Listed, Machine, OpIds, Outcome, Reason, Severity, StoreReply,
};
use crate::reading::{Flight, Landed, Listings, exit_of};
use crate::restore::{RestoreConfig, RestoreStatus, RestoreTarget, Restorer};

/// What a listing is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Generations,
    Levels,
}

/// One of the two layouts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layout {
    Ltx,
    Legacy,
}

#[derive(Clone, PartialEq, Debug)]
enum Phase {
    /// Finding out which layouts there are.
    Choosing(Box<Choosing>),
    Ltx(Box<Restorer>),
    Legacy(Box<LegacyRestorer>),
    Stopped,
}

#[derive(Clone, PartialEq, Debug)]
struct Choosing {
    flight: Flight<Key>,
    generations: LegacyListings,
    levels: Listings,
    /// What there is of 0.3, once listed.
    legacy: LegacyInventory,
}

/// Restores a database from whatever layout its replica has; a machine over store reads and one
/// output. It ends as the [`Restorer`] or the [`LegacyRestorer`] does.
#[derive(Clone, PartialEq, Debug)]
pub struct EitherRestorer {
    config: RestoreConfig,
    order: Option<LegacyOrder>,
    phase: Phase,
    entropy: u64,
    /// What to try where the first has nothing so old.
    other: Option<Layout>,
}

/// How such a restore stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EitherStatus {
    /// From LTX, or not known yet.
    Ltx(RestoreStatus),
    /// From Litestream 0.3's layout.
    Legacy(LegacyStatus),
}

impl EitherRestorer {
    /// A restore that begins with [`Event::Start`]. With `order` it is one of 0.3's layout in any
    /// case, and the target of `config` does not count.
    ///
    /// # Panics
    /// If the configuration's parallelism is zero.
    pub fn new(config: RestoreConfig, order: Option<LegacyOrder>, ids: OpIds) -> EitherRestorer {
        let phase = match (order, config.target) {
            (Some(order), _) => Phase::Legacy(Box::new(LegacyRestorer::new(order, config.clone(), ids))),
            (None, RestoreTarget::At(_)) => Phase::Ltx(Box::new(Restorer::new(config.clone(), ids))),
            _ => Phase::Choosing(Box::new(Choosing {
                flight: Flight::new(ids, config.request_deadline),
                generations: LegacyListings::default(),
                levels: Listings::default(),
                legacy: LegacyInventory::default(),
            })),
        };
        EitherRestorer { config, order, phase, entropy: 0, other: None }
    }

    /// What is asked of 0.3's layout.
    fn order(&self) -> LegacyOrder {
        let target = match self.config.target {
            RestoreTarget::Time(time) => LegacyTarget::Time(time),
            RestoreTarget::Latest | RestoreTarget::At(_) => LegacyTarget::Latest,
        };
        self.order.unwrap_or(LegacyOrder { generation: None, target })
    }

    fn choose(&mut self, now: Now, event: Event, out: &mut Actions) {
        let Phase::Choosing(choosing) = &mut self.phase else { return };
        match event {
            Event::Start { entropy } => {
                self.entropy = entropy;
                choosing.flight.seed(entropy);
                choosing.generations.begin(now, Key::Generations, &mut choosing.flight, out);
            }
            Event::Tick => {
                for landed in choosing.flight.tick(now, out) {
                    self.landed(now, landed, out);
                }
            }
            Event::Completed { op, outcome: Outcome::Store(result) } => {
                if let Some(landed) = choosing.flight.landed(now, op, result, out) {
                    self.landed(now, landed, out);
                }
            }
            Event::Shutdown { .. } => {
                choosing.flight.cancel_all(out);
                self.stop(interrupted(), out);
            }
            Event::Completed { .. }
            | Event::SourceChanged
            | Event::SyncNow
            | Event::StoreProbed(_)
            | Event::Lease(_)
            | Event::Stored { .. } => {}
        }
    }

    fn landed(&mut self, now: Now, (key, result): Landed<Key>, out: &mut Actions) {
        let Phase::Choosing(choosing) = &mut self.phase else { return };
        let Choosing { flight, generations, levels, legacy } = &mut **choosing;
        let listed = match (key, result) {
            (_, Err(error)) => return self.stop(exit_of("list the replica", &error), out),
            (Key::Generations, Ok(StoreReply::LegacyListing { entries, more })) => {
                match generations.take(now, key, (entries, more), flight, out) {
                    Ok(Some(found)) => {
                        *legacy = LegacyInventory::new(found);
                        if !legacy.is_empty() {
                            levels.begin(now, Key::Levels, flight, out);
                            return;
                        }
                        Ok(Some(Vec::new()))
                    }
                    Ok(None) => Ok(None),
                    Err(exit) => Err(exit),
                }
            }
            (Key::Levels, Ok(StoreReply::Listing { entries, more })) => {
                levels.take(now, key, (entries, more), flight, out)
            }
            (key, Ok(reply)) => panic!("a host answers in kind: {key:?} got {reply:?}"),
        };
        match listed {
            Ok(Some(segments)) => self.decide(now, &segments, out),
            Ok(None) => {}
            Err(exit) => self.stop(exit, out),
        }
    }

    /// Both layouts are listed.
    fn decide(&mut self, now: Now, segments: &[Listed], out: &mut Actions) {
        let Phase::Choosing(choosing) = &self.phase else { return };
        if choosing.legacy.is_empty() {
            return self.begin(now, Layout::Ltx, out);
        }
        if segments.is_empty() {
            return self.begin(now, Layout::Legacy, out);
        }
        let newest: Option<Wall> = segments.iter().map(|it| it.modified).max().flatten();
        let (Some(ltx), Some(legacy)) = (newest, choosing.legacy.newest()) else {
            let exit = Exit::Misconfigured {
                error: "the replica holds ltx files and generations of litestream 0.3, and the store does not tell which are newer".into(),
                hint: "say which with -txid or with -generation".into(),
            };
            return self.stop(exit, out);
        };
        let (first, other, text) = match legacy > ltx {
            true => (Layout::Legacy, Layout::Ltx, "the generations of litestream 0.3"),
            false => (Layout::Ltx, Layout::Legacy, "the ltx files"),
        };
        let past = matches!(self.config.target, RestoreTarget::Time(_));
        self.other = past.then_some(other);
        let text = format!(
            "the replica holds both ltx files and generations of litestream 0.3; {text} were written last"
        );
        out.notify(Severity::Info, Fact::Remark { text });
        self.begin(now, first, out);
    }

    fn begin(&mut self, now: Now, layout: Layout, out: &mut Actions) {
        let ids = match core::mem::replace(&mut self.phase, Phase::Stopped) {
            Phase::Choosing(choosing) => choosing.flight.into_ids(),
            Phase::Ltx(restorer) => restorer.into_ids(),
            Phase::Legacy(restorer) => restorer.into_ids(),
            Phase::Stopped => return,
        };
        let config = self.config.clone();
        self.phase = match layout {
            Layout::Ltx => Phase::Ltx(Box::new(Restorer::new(config, ids))),
            Layout::Legacy => Phase::Legacy(Box::new(LegacyRestorer::new(self.order(), config, ids))),
        };
        self.forward(now, Event::Start { entropy: self.entropy }, out);
    }

    /// Hands an event to the restore that was chosen.
    fn forward(&mut self, now: Now, event: Event, out: &mut Actions) {
        let mut actions = Actions::new();
        match &mut self.phase {
            Phase::Ltx(restorer) => restorer.handle(now, event, &mut actions),
            Phase::Legacy(restorer) => restorer.handle(now, event, &mut actions),
            Phase::Choosing(_) | Phase::Stopped => return,
        }
        for action in actions.drain() {
            match (&action, self.other) {
                (Action::Stopped(Exit::NothingToRestore { error, .. }), Some(other))
                    if self.had_not_begun() =>
                {
                    let text = format!("{error}; asking the layout that was there before");
                    out.notify(Severity::Info, Fact::Remark { text });
                    self.other = None;
                    return self.begin(now, other, out);
                }
                _ => out.push(action),
            }
        }
    }

    /// Whether the layout that was asked has no state so old, and not merely none that is whole.
    fn had_not_begun(&self) -> bool {
        match &self.phase {
            Phase::Ltx(restorer) => restorer.status().target.is_none(),
            Phase::Legacy(restorer) => restorer.status().generation.is_none(),
            Phase::Choosing(_) | Phase::Stopped => false,
        }
    }

    fn stop(&mut self, exit: Exit, out: &mut Actions) {
        self.phase = Phase::Stopped;
        out.push(Action::Stopped(exit));
    }
}

impl Machine for EitherRestorer {
    type Status = EitherStatus;

    fn handle(&mut self, now: Now, event: Event, out: &mut Actions) {
        match &self.phase {
            Phase::Choosing(_) => self.choose(now, event, out),
            _ => self.forward(now, event, out),
        }
    }

    fn next_deadline(&self) -> Option<(Mono, Reason)> {
        match &self.phase {
            Phase::Choosing(choosing) => choosing.flight.next_deadline(),
            Phase::Ltx(restorer) => restorer.next_deadline(),
            Phase::Legacy(restorer) => restorer.next_deadline(),
            Phase::Stopped => None,
        }
    }

    fn status(&self) -> EitherStatus {
        match &self.phase {
            Phase::Legacy(restorer) => EitherStatus::Legacy(restorer.status()),
            Phase::Ltx(restorer) => EitherStatus::Ltx(restorer.status()),
            Phase::Choosing(_) | Phase::Stopped => {
                let ids = OpIds::new(crate::machine::ReplicaId::default(), 0);
                EitherStatus::Ltx(Restorer::new(self.config.clone(), ids).status())
            }
        }
    }
}
