//! Every single fault of a takeover between two hosts, without dice.
//!
//! A script is one way in which the writer loses its place, at a fixed time, and then what one host does about it
//! and the other. A survey runs it once and counts what there is to strike: actions of any machine of any host,
//! and requests to the store. Each [`Case`] is then a run of its own, with one [`Strike`].

use super::Summary;
use super::world::{Entry, SECOND, World};
use crate::ring0::Violation;
use crate::ring0::dice::Dice;
use crate::ring0::store::Fate;
use crate::trace::{Keep, Trace};

/// How the writer loses its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Nothing happens to it by itself: the one fault is the reason, if there is any.
    None,
    /// Its process dies, and its application.
    Killed,
    /// Its process stands still for thrice the time to live, and its application does not.
    Paused,
    /// It is cut off from the store for as long.
    Cut,
    /// It hands over.
    HandsOver,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 5] = [Way::None, Way::Killed, Way::Paused, Way::Cut, Way::HandsOver];
}

/// What strikes besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strike {
    /// The process that took this action dies after it.
    Death(u64),
    /// Its machine goes down, with everything that was not synced.
    Power(u64),
    /// It stands still for twice the time to live.
    Pause(u64),
    /// This request to the store has this fate.
    Request(u64, Fate),
    /// This request arrives when whoever sent it has given it up.
    Late(u64),
}

/// The fates of a request that are tried.
pub const FATES: [Fate; 5] = [Fate::Refused, Fate::Lost, Fate::Unclear, Fate::Swallowed, Fate::Taken];

/// A run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// How the writer loses its place.
    pub way: Way,
    /// What strikes besides.
    pub strike: Option<Strike>,
}

/// What there is to strike in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Survey {
    /// Actions of machines, in the time in which faults strike.
    pub actions: u64,
    /// Requests that were sent in it.
    pub sent: u64,
    /// Requests that arrived in it.
    pub arrived: u64,
}

impl Survey {
    /// Everything that can strike.
    pub fn strikes(self) -> impl Iterator<Item = Strike> {
        let deaths = (1..=self.actions).flat_map(|n| [Strike::Death(n), Strike::Power(n), Strike::Pause(n)]);
        let fates = (1..=self.arrived).flat_map(|n| FATES.map(|fate| Strike::Request(n, fate)));
        deaths.chain(fates).chain((1..=self.sent).map(Strike::Late))
    }
}

/// Until when faults strike: the takeover is over by then.
const TROUBLED: u64 = 20 * SECOND;
/// When the writer loses its place: it has written, and the other follows.
const AT: u64 = 8 * SECOND;
/// How long its process is down if it dies: the other is the writer by then.
const DOWN: u64 = 7 * SECOND;
/// How much later a late request arrives.
const LATE: u64 = 9 * SECOND;

/// Runs a case, and tells what there was to strike.
///
/// # Errors
/// What an oracle saw.
pub fn run(case: Case, keep: Keep) -> Result<(Summary, Survey), Violation> {
    let mut world = World::new(Dice::new(1), 2, TROUBLED, Trace::new(keep));
    (world.ttl, world.per_mille, world.latency) = (std::time::Duration::from_secs(3), 0, 20);
    world.script = Some(case);
    world.has_written_before()?;
    let world = world.run(vec![(AT, Entry::Way(case.way))])?;
    Ok((world.summary, world.survey))
}

impl World {
    /// A machine has taken an action.
    pub(super) fn acted(&mut self, host: usize) -> Result<(), Violation> {
        if !self.is_troubled() {
            return Ok(());
        }
        self.survey.actions += 1;
        let strike = self.script.and_then(|case| case.strike);
        let pause = 2 * self.ttl.as_nanos() as u64;
        match strike {
            Some(Strike::Death(n)) if n == self.survey.actions => self.ends(host),
            Some(Strike::Power(n)) if n == self.survey.actions => {
                self.power_fails(host, |_| false, usize::MAX);
            }
            Some(Strike::Pause(n)) if n == self.survey.actions => {
                self.nodes[host].paused_until = self.now + pause;
            }
            _ => {}
        }
        Ok(())
    }

    /// How much later than others the request arrives that is being sent.
    pub(super) fn late(&mut self) -> u64 {
        if !self.is_troubled() {
            return 0;
        }
        self.survey.sent += 1;
        match self.script.and_then(|case| case.strike) {
            Some(Strike::Late(n)) if n == self.survey.sent => LATE,
            _ => 0,
        }
    }

    /// What the script says of the request that arrives.
    pub(super) fn scripted_fate(&mut self) -> Fate {
        if !self.is_troubled() {
            return Fate::Works;
        }
        self.survey.arrived += 1;
        match self.script.and_then(|case| case.strike) {
            Some(Strike::Request(n, fate)) if n == self.survey.arrived => fate,
            _ => Fate::Works,
        }
    }

    /// Whoever writes loses its place.
    pub(super) fn way(&mut self, way: Way) -> Result<(), Violation> {
        let Some(host) = self.nodes.iter().position(|node| node.active) else { return Ok(()) };
        let until = self.now + 3 * self.ttl.as_nanos() as u64;
        match way {
            Way::None => {}
            Way::Killed => self.ends_for(host, Some(DOWN)),
            Way::Paused => self.nodes[host].paused_until = until,
            Way::Cut => self.nodes[host].cut_until = until,
            Way::HandsOver => return self.hand_over(host),
        }
        Ok(())
    }
}
