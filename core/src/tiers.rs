//! Which databases of a process have an engine, and which rest without one.
//!
//! ```text
//! add -> Waiting -> Hot -> Cold -> Waiting -> ...
//!          ^         |       ^
//!          |         v       |
//!          +----- Leaving ---+
//! ```
//!
//! A *cold* database costs its name and a few words: no engine, no descriptor, no request. An event,
//! a look that finds its files changed, or what it owes at some moment makes it wait for a place. At
//! most [`Limits::hot`] have an engine at once, and of these at most [`Limits::starting`] are finding
//! out where they stand, which is when one costs most. Of those that owe nothing the last few
//! rest in their places, and the others become cold. While others wait, all that rest do, then those
//! that have everything on the replica make room, and in the end whoever has had the longest turn: it
//! is told to finish, as at the end of the process, so that nothing is left behind.
//!
//! Nothing is lost on the way: a change that is told of while an engine leaves is remembered, and a
//! database whose last look is not known to be its last change is looked at again. Whoever waits
//! gets a place: changes come before databases that are new here, but every fourth place is for the
//! latter, and within either they come in order.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use crate::checksum::FileDigest;
use crate::ids::Mono;
use crate::machine::{Exit, WalFacts};
use crate::mutant::{self, Mutant};

/// What the files of a database are, in two words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fingerprint {
    file: u64,
    /// None where there is no `-wal`, or an empty one.
    wal: Option<u64>,
}

impl Fingerprint {
    /// Of files that are so. `ctime_ns` is the status-change time of the database file in nanoseconds
    /// since 1970.
    pub fn new(device: u64, inode: u64, size: u64, ctime_ns: i128, wal: Option<WalFacts>) -> Fingerprint {
        let mut file = FileDigest::new();
        for word in [device, inode, size] {
            file.update(&word.to_be_bytes());
        }
        file.update(&ctime_ns.to_be_bytes());
        let wal = wal.filter(|wal| wal.size > 0).map(|WalFacts { inode, size, mtime_ns }| {
            let mut wal = FileDigest::new();
            wal.update(&inode.to_be_bytes());
            wal.update(&size.to_be_bytes());
            wal.update(&mtime_ns.to_be_bytes());
            wal.finish()
        });
        Fingerprint { file: file.finish(), wal }
    }

    /// Whether nothing was committed since the files were `left` with a seal: the database file holds
    /// everything then, so that a `-wal` that has gone since, as by our own closing, or is empty tells
    /// nothing.
    pub fn is_as_left(self, left: Fingerprint) -> bool {
        let same = self.file == left.file && (self.wal.is_none() || self.wal == left.wal);
        same || mutant::on(Mutant::ChangedFilesBelieved)
    }
}

/// What a process allows its databases together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Databases with an engine at once (default: 1,000).
    pub hot: usize,
    /// Of these, at most so many that are finding out where they stand, or writing their first base
    /// (default: 64).
    pub starting: usize,
    /// Engines that rest and keep their place while nobody needs it: what is written again soon then
    /// asks nothing of its store (default: 64).
    pub resting: usize,
    /// While others wait, an engine with everything on the replica keeps its place for so long after
    /// its last change (default: 1 s).
    pub idle_turn: Duration,
    /// While others wait, an engine that always has something to do keeps its place for so long
    /// (default: 10 s).
    pub longest_turn: Duration,
    /// The files of cold databases are looked at this often, since an event may have been lost
    /// (default: 15 min).
    pub sweep: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            hot: 1_000,
            starting: 64,
            resting: 64,
            idle_turn: Duration::from_secs(1),
            longest_turn: Duration::from_secs(10),
            sweep: Duration::from_secs(15 * 60),
        }
    }
}

/// How an engine stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It is finding out where it is, or a base is not to be written now.
    Starting,
    /// It writes a base. That takes as long as it takes, and begins anew if it is ended.
    Base,
    /// Something is not on the replica yet.
    Busy,
    /// Everything that it knows of is on the replica.
    Replicated,
    /// The same, nothing is open, and nothing is under way or owed: see [`Rest`].
    Resting,
}

impl Standing {
    fn starts(self) -> bool {
        matches!(self, Standing::Starting | Standing::Base)
    }
}

/// How a database stands whose engine may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rest {
    /// What its files were when everything in them was on the replica.
    pub fingerprint: Fingerprint,
    /// When something is owed that no change brings about, such as a snapshot.
    pub due: Option<Mono>,
}

/// How an engine's run has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// At rest.
    Rested(Rest),
    /// Finished as it was told to, and told of nothing that it has not looked into. What its files
    /// were then is not known.
    Finished,
    /// Something may be left that is not on the replica.
    Behind,
}

impl Left {
    /// After a run that was to make room: without an exit it was dropped at its rest. `rest` is how the
    /// engine stands, `told` whether it was told of a change that it has not looked into: nobody will
    /// tell of that again. None if the database ends with the run.
    pub fn of(exit: Option<&Exit>, rest: Option<Rest>, told: bool) -> Option<Left> {
        match exit {
            None | Some(Exit::Done) => Some(match rest {
                Some(rest) => Left::Rested(rest),
                None if told => Left::Behind,
                None => Left::Finished,
            }),
            Some(Exit::Unreplicated { .. }) if mutant::on(Mutant::UnreplicatedRests) => Some(Left::Finished),
            Some(Exit::Unreplicated { .. }) => Some(Left::Behind),
            Some(_) => None,
        }
    }
}

/// What the host is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Begin a run.
    Start(u32),
    /// End the run without a word, if the engine still rests; say that it stands otherwise if not.
    Rest(u32),
    /// Tell the engine to finish.
    Finish(u32),
    /// Look at the files of all that are cold, and tell of each.
    Look,
}

/// Where a database is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tier {
    /// Without an engine, and without need of one.
    Cold,
    /// Without an engine until there is a place.
    Waiting,
    /// With an engine.
    Hot,
    /// With an engine that was told to go.
    Leaving,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Cold { fingerprint: Option<Fingerprint>, due: Option<Mono> },
    Waiting,
    Hot { since: Mono, active: Mono, standing: Standing },
    Leaving { starting: bool, changed: bool },
}

/// The databases of a process. See the module's documentation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tiers {
    limits: Limits,
    databases: BTreeMap<u32, State>,
    /// Those that have changed, in order; one that has been removed since is skipped.
    changed: VecDeque<u32>,
    /// Those that were not looked at yet, in order.
    new: VecDeque<u32>,
    /// Places given since a new one had its turn.
    since_new: u8,
    /// With an engine, also one that leaves.
    hot: BTreeSet<u32>,
    /// Of these, those that start.
    starting: usize,
    waiting: usize,
    /// Told to go so that others find a place.
    leaving: usize,
    /// Those that rest, with the moment since when.
    resting: BTreeSet<(Mono, u32)>,
    /// When cold ones owe something.
    due: BTreeSet<(Mono, u32)>,
    /// Some have begun cold whose directories are not in view yet.
    unseen: bool,
    /// They are now, and were not looked at since.
    look: bool,
    /// When all that are cold are looked at next; `None` while none is.
    sweep_at: Option<Mono>,
}

/// A database that was at rest when the process began has an engine once within this time, which asks its
/// store.
pub const LOOKED_AFTER: Duration = Duration::from_secs(24 * 3600);
/// At so many moments of it.
const LOOKS_SPREAD: u32 = 24 * 60;

/// Of so many places one is for a database that is new here.
const NEW_EACH: u8 = 4;

impl Tiers {
    /// No databases.
    pub fn new(limits: Limits) -> Tiers {
        Tiers {
            limits,
            databases: BTreeMap::new(),
            changed: VecDeque::new(),
            new: VecDeque::new(),
            since_new: 0,
            hot: BTreeSet::new(),
            starting: 0,
            waiting: 0,
            leaving: 0,
            resting: BTreeSet::new(),
            due: BTreeSet::new(),
            unseen: false,
            look: false,
            sweep_at: None,
        }
    }

    /// A database that is to run from now on.
    pub fn add(&mut self, database: u32) {
        if self.databases.contains_key(&database) {
            return self.change(database);
        }
        self.databases.insert(database, State::Waiting);
        self.waiting += 1;
        self.new.push_back(database);
    }

    /// A database that is to run from now on, and is as an earlier run of the process has left it. The
    /// first few get an engine as if that were not known, as one does that stands alone: it asks the
    /// store whether the replica is there. Of the others each does that within a day, one after the other.
    pub fn add_at_rest(&mut self, now: Mono, database: u32, fingerprint: Fingerprint) {
        if self.databases.len() < self.limits.resting || self.databases.contains_key(&database) {
            return self.add(database);
        }
        let due = now.after(LOOKED_AFTER / LOOKS_SPREAD * (database % LOOKS_SPREAD + 1));
        self.databases.insert(database, State::Cold { fingerprint: Some(fingerprint), due: Some(due) });
        self.due.insert((due, database));
        self.unseen = true;
    }

    /// Changes to any of the databases are told from now on. What has happened to those that began cold
    /// between the look at their files and now was told to nobody: they are looked at again.
    pub fn in_view(&mut self) {
        self.look |= core::mem::take(&mut self.unseen) && !mutant::on(Mutant::ViewUnlooked);
    }

    /// A database of which nothing is left, or that has ended by itself.
    pub fn remove(&mut self, database: u32) {
        match self.databases.remove(&database) {
            Some(State::Waiting) => self.waiting -= 1,
            Some(State::Hot { active, standing, .. }) => {
                self.resting.remove(&(active, database));
                self.free(database, standing.starts());
            }
            Some(State::Leaving { starting, .. }) => {
                self.leaving -= 1;
                self.free(database, starting);
            }
            Some(State::Cold { due, .. }) => self.owes_no_more(database, due),
            None => {}
        }
    }

    fn free(&mut self, database: u32, starting: bool) {
        self.hot.remove(&database);
        self.starting -= usize::from(starting);
    }

    fn owes_no_more(&mut self, database: u32, due: Option<Mono>) {
        if let Some(due) = due {
            self.due.remove(&(due, database));
        }
    }

    /// Its files may have changed: `look` says what they are now, and is asked only where that can
    /// tell. As the engine left a cold one, nothing has happened.
    pub fn told(&mut self, database: u32, look: impl FnOnce() -> Option<Fingerprint>) {
        let same = match self.databases.get(&database) {
            Some(State::Cold { fingerprint: Some(left), .. }) => {
                look().is_some_and(|now| now.is_as_left(*left))
            }
            _ => false,
        };
        if !same {
            self.change(database);
        }
    }

    /// It needs an engine: its files have changed, or somebody asks for it.
    pub fn change(&mut self, database: u32) {
        match self.databases.get_mut(&database) {
            Some(state @ State::Cold { .. }) => {
                let State::Cold { due, .. } = core::mem::replace(state, State::Waiting) else { return };
                self.waiting += 1;
                self.changed.push_back(database);
                self.owes_no_more(database, due);
            }
            Some(State::Leaving { changed, .. }) => *changed = !mutant::on(Mutant::ChangeInLeavingForgotten),
            // An engine hears of it by itself.
            Some(State::Waiting | State::Hot { .. }) | None => {}
        }
    }

    /// How an engine stands.
    pub fn stands(&mut self, now: Mono, database: u32, standing: Standing) {
        let Some(State::Hot { active, standing: before, .. }) = self.databases.get_mut(&database) else {
            return;
        };
        let rested = (*active, database);
        let before = core::mem::replace(before, standing);
        if standing == Standing::Busy || (standing == Standing::Resting && before != Standing::Resting) {
            *active = now;
        }
        match (before.starts(), standing.starts()) {
            (true, false) => self.starting -= 1,
            (false, true) => self.starting += 1,
            _ => {}
        }
        match (before == Standing::Resting, standing == Standing::Resting) {
            (true, false) => self.resting.remove(&rested),
            (false, true) => self.resting.insert((now, database)),
            _ => false,
        };
    }

    /// Told to rest, the engine had something to do after all: it stays.
    pub fn stays(&mut self, now: Mono, database: u32) {
        let Some(state @ State::Leaving { .. }) = self.databases.get_mut(&database) else { return };
        *state = State::Hot { since: now, active: now, standing: Standing::Busy };
        self.leaving -= 1;
    }

    /// A run that was told to end is over, and nothing is left of it. Changes since its rest were told
    /// to the engine, if at all: so `look` says what the files are now.
    pub fn left(&mut self, database: u32, left: Left, look: impl FnOnce() -> Option<Fingerprint>) {
        let Some(state) = self.databases.get_mut(&database) else { return };
        let (starting, changed) = match *state {
            State::Leaving { starting, changed } => (starting, changed),
            State::Hot { standing, .. } => (standing.starts(), false),
            State::Cold { .. } | State::Waiting => return,
        };
        self.leaving -= usize::from(matches!(state, State::Leaving { .. }));
        let cold = match left {
            Left::Rested(Rest { fingerprint, due }) if !changed => {
                Some(State::Cold { fingerprint: Some(fingerprint), due })
            }
            Left::Finished if !changed => Some(State::Cold { fingerprint: None, due: None }),
            _ => None,
        };
        *state = cold.unwrap_or(State::Waiting);
        self.free(database, starting);
        match cold {
            Some(State::Cold { due: Some(due), .. }) => {
                self.due.insert((due, database));
            }
            Some(_) => {}
            None => {
                self.waiting += 1;
                self.changed.push_back(database);
            }
        }
        if let Left::Rested(_) = left
            && !mutant::on(Mutant::LeftUnlooked)
        {
            self.told(database, look);
        }
    }

    /// What to do now. What is answered counts as done.
    pub fn orders(&mut self, now: Mono, orders: &mut Vec<Order>) {
        self.wake_due(now);
        let cold = self.counts().0 > 0 && !mutant::on(Mutant::SweepForgotten);
        let swept = self.sweep_at.filter(|_| cold);
        if core::mem::take(&mut self.look) || swept.is_some_and(|at| at <= now) {
            self.sweep_at = None;
            orders.push(Order::Look);
        }
        self.sweep_at = cold.then(|| self.sweep_at.unwrap_or(now.after(self.limits.sweep)));
        let mut needed = self.needed();
        while self.resting.len() > self.limits.resting || needed > 0 {
            let Some((_, database)) = self.resting.pop_first() else { break };
            self.leave(database);
            orders.push(Order::Rest(database));
            needed = needed.saturating_sub(1);
        }
        while self.hot.len() < self.limits.hot && self.starting < self.limits.starting.max(1) {
            let Some(database) = self.next() else { break };
            self.databases
                .insert(database, State::Hot { since: now, active: now, standing: Standing::Starting });
            self.hot.insert(database);
            (self.starting, self.waiting) = (self.starting + 1, self.waiting - 1);
            orders.push(Order::Start(database));
        }
        self.make_room(now, orders);
    }

    fn leave(&mut self, database: u32) {
        let Some(state) = self.databases.get_mut(&database) else { return };
        let starting = matches!(state, State::Hot { standing, .. } if standing.starts());
        *state = State::Leaving { starting, changed: false };
        self.leaving += 1;
    }

    /// The next that waits: of those that have changed, or every fourth time of the new ones.
    fn next(&mut self) -> Option<u32> {
        loop {
            let new_first = self.changed.is_empty() || self.since_new + 1 >= NEW_EACH;
            let new = new_first && !self.new.is_empty();
            let queue = if new { &mut self.new } else { &mut self.changed };
            let database = queue.pop_front()?;
            if self.databases.get(&database) == Some(&State::Waiting) {
                self.since_new = if new { 0 } else { (self.since_new + 1).min(NEW_EACH) };
                return Some(database);
            }
        }
    }

    /// Has engines finish for those that wait: never more than wait.
    fn make_room(&mut self, now: Mono, orders: &mut Vec<Order>) {
        let mut wanted = self.needed();
        let stuck = self.starts_are_full();
        if wanted == 0 && !stuck {
            return;
        }
        // Those that cannot find out where they stand keep nobody else from it.
        wanted = wanted.max(usize::from(stuck));
        let mut over: Vec<(bool, Mono, u32)> = Vec::new();
        for database in &self.hot {
            if let Some((end, by_turn)) = self.turn_ends(*database).filter(|(end, _)| *end <= now) {
                over.push((by_turn, end, *database));
            }
        }
        over.sort_unstable();
        for (_, _, database) in over {
            if wanted == 0 {
                break;
            }
            wanted -= 1;
            self.leave(database);
            orders.push(Order::Finish(database));
        }
    }

    /// Whether those that wait do so only since too many are starting.
    fn starts_are_full(&self) -> bool {
        self.waiting > self.leaving && self.starting >= self.limits.starting.max(1)
    }

    /// When the turn of an engine is over as others wait, and whether it ends although there is
    /// something to do.
    fn turn_ends(&self, database: u32) -> Option<(Mono, bool)> {
        let State::Hot { since, active, standing } = self.databases.get(&database)? else { return None };
        let crowded = self.needed() > 0;
        match standing {
            Standing::Starting if !crowded && !self.starts_are_full() => None,
            Standing::Busy | Standing::Replicated if !crowded => None,
            Standing::Replicated => Some((active.after(self.limits.idle_turn), false)),
            Standing::Starting | Standing::Busy => Some((since.after(self.limits.longest_turn), true)),
            // The one would have to begin anew, the other goes by itself.
            Standing::Base | Standing::Resting => None,
        }
    }

    /// How many engines have to go so that all that wait find a place.
    fn needed(&self) -> usize {
        let free = self.limits.hot.saturating_sub(self.hot.len());
        self.waiting.saturating_sub(self.leaving + free)
    }

    fn wake_due(&mut self, now: Mono) {
        while let Some((_, database)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.change(database);
        }
    }

    /// When there may be orders although nothing was told.
    pub fn next_deadline(&self) -> Option<Mono> {
        let waits = self.waiting > self.leaving;
        let turns = self.hot.iter().filter(|_| waits).filter_map(|database| self.turn_ends(*database));
        let turn = turns.map(|(end, _)| end).min();
        let due = self.due.first().map(|(due, _)| *due);
        [turn, due, self.sweep_at].into_iter().flatten().min()
    }

    /// Where a database is; `None` if it is none of these.
    pub fn tier(&self, database: u32) -> Option<Tier> {
        Some(match self.databases.get(&database)? {
            State::Cold { .. } => Tier::Cold,
            State::Waiting => Tier::Waiting,
            State::Hot { .. } => Tier::Hot,
            State::Leaving { .. } => Tier::Leaving,
        })
    }

    /// The cold databases. Those whose files are not as they were left have changed.
    pub fn cold(&self) -> impl Iterator<Item = u32> + '_ {
        let cold = self.databases.iter().filter(|(_, state)| matches!(state, State::Cold { .. }));
        cold.map(|(database, _)| *database)
    }

    /// How many are cold, wait, and have an engine.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.databases.len() - self.hot.len() - self.waiting, self.waiting, self.hot.len())
    }
}

#[cfg(test)]
#[path = "tiers/tests.rs"]
mod tests;
