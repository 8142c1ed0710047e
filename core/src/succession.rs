//! From a standby to the primary: what a process with a lease does with its databases, and in which order.
//!
//! A standby's databases are copies that follow the replica ([`Follower`]). Once the process holds the lease,
//! each copy comes to the end of its history and leaves a journal, from which a replicator goes on whose first
//! segment fences the predecessor ([`Config::succeeds`]). Where the predecessor was faster by one put, the copy
//! follows once more. When all are fenced the lease may say so, and the application begins.
//!
//! Where directories of databases are replicated, what lies on the replica is searched for as well, and once more
//! when the lease is held: what its predecessor puts after that counts for nobody.
//!
//! A process that finds the lease still of its host's own claim skips all that: nobody can have written since.
//!
//! The [`Succession`] decides; a host carries out one [`Action`] after the other and tells what came of it. It
//! ends with [`Action::Activate`] or [`Action::Fail`], or once it is told that the process ends.
//!
//! [`Follower`]: crate::follow::Follower
//! [`Config::succeeds`]: crate::engine::Config::succeeds

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::lease::{Active, LeaseStatus, PlaceId, Role};
use crate::machine::{Chunk, Exit};
use crate::mutant::{self, Mutant};

/// What a succession is told. Databases are named by their number, from 0.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// How the lease stands now.
    Lease(View),
    /// The store was tried: whether it keeps what a lease needs.
    Tried(Result<(), Exit>),
    /// The claim is forgotten, as [`Action::Disclaim`] asked.
    Disclaimed(Result<(), Exit>),
    /// The replicas that [`Action::Search`] has found and that were not known before: their databases have the
    /// next numbers. Otherwise what went wrong.
    Found(Result<Vec<PlaceId>, String>),
    /// The states are named that this host may have left a database in, as [`Action::Name`] asked.
    Named(usize, Result<(), Exit>),
    /// Whether the copy of a database cannot be written ([`FollowStatus::obstructed`]).
    ///
    /// [`FollowStatus::obstructed`]: crate::follow::FollowStatus::obstructed
    Obstructed(usize, bool),
    /// The follower of a database has ended.
    Followed(usize, Followed),
    /// A database was moved out of the way, as [`Action::MoveAside`] asked.
    MovedAside(usize, Result<(), Exit>),
    /// The journal of a database was replaced, as [`Action::Inherit`] asked.
    Inherited(usize, Result<(), Exit>),
    /// How the replicator of a database stands.
    Stands(usize, Stand),
    /// The process ends, or has lost the lease.
    Ends,
}

/// As much of a lease as matters here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct View {
    /// Whether it is known whether this process is the holder.
    pub known: bool,
    /// Whether it is.
    pub held: bool,
    /// Whether nobody can have written since a process of this host did ([`LeaseStatus::continues`]).
    pub continues: bool,
    /// What the holder has put; `None` where there was never one.
    pub news: Option<News>,
}

/// What a holder of the lease says that it has put.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct News {
    /// The epoch of the holder.
    pub epoch: u64,
    /// How many segments it has put.
    pub progress: u64,
    /// Where.
    pub active: Active,
}

impl View {
    /// What matters of a lease that stands so.
    pub fn of(status: &LeaseStatus) -> View {
        View {
            known: status.role != Role::Standby || status.settled,
            held: status.until.is_some(),
            continues: status.continues,
            news: status.body.as_ref().map(|body| News {
                epoch: body.epoch,
                progress: body.progress,
                active: body.active.clone(),
            }),
        }
    }
}

/// How a follower has ended.
#[derive(Clone, PartialEq, Debug)]
pub struct Followed {
    /// Its end.
    pub exit: Exit,
    /// What it leaves to a replicator, if it has come to the end of the history.
    pub bequest: Option<Vec<Chunk>>,
    /// Whether what stands in the copy's place is in no state that is known.
    pub unknown: bool,
}

/// How a replicator stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Stand {
    /// It is not known yet whether it can go on.
    #[default]
    Starting,
    /// The predecessor is fenced, and its application may begin.
    Ready,
    /// It has ended.
    Ended(Exit),
}

/// What a host is to do, one after the other.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Forget, durably, the claim that an earlier process of this host made: it speaks of databases that are
    /// about to become copies.
    Disclaim,
    /// Look for replicas of databases of directories, after this wait.
    Search {
        /// None at first; longer each time that it fails.
        wait: Duration,
    },
    /// If a database has no position file: write one that names the states in which this host may have left
    /// it ([`Candidates`](crate::follow::Candidates)), or none if there is no telling.
    Name(usize),
    /// Follow the replica with a new follower, which is to come to the end of the history if so.
    Follow {
        /// The database.
        database: usize,
        /// Whether it is told [`LeaseEvent::Succeed`](crate::lease::LeaseEvent::Succeed) from the start.
        succeeds: bool,
    },
    /// Tell the follower of a database [`LeaseEvent::Succeed`](crate::lease::LeaseEvent::Succeed), or that there is news.
    Tell {
        /// The database.
        database: usize,
        /// Whether it is to come to the end of the history and stop there.
        succeeds: bool,
    },
    /// Have the follower of a database end.
    End(usize),
    /// Empty the journal of a database, durably, and then move the database out of the way with all that belongs
    /// to it: it holds what was never replicated.
    MoveAside(usize),
    /// Replace the journal of a database by these records, durably.
    Inherit(usize, Vec<Chunk>),
    /// Begin to replicate these, and whether each comes after another writer.
    Begin(Vec<(usize, bool)>),
    /// Tell the lease [`LeaseEvent::Contend`](crate::lease::LeaseEvent::Contend).
    Contend(bool),
    /// All are fenced. First forget the position files, then write the claim down, then tell the lease
    /// [`LeaseEvent::Activate`](crate::lease::LeaseEvent::Activate).
    Activate,
    /// It cannot go on: the process is to let go of the lease and to end so.
    Fail(Exit),
}

/// Leads one process from the standby to the primary.
#[derive(Clone, PartialEq, Debug)]
pub struct Succession {
    stage: Stage,
    members: Vec<Member>,
    search: Search,
    disclaimed: Disclaimed,
    /// Whether an earlier process of this host was the primary, with a store that was tried.
    returns: bool,
    lease: View,
    /// Whether the lease is to be taken when it is free, as it was told last.
    contends: bool,
    tried: Option<Result<(), Exit>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It is not known yet what this process is to be.
    Deciding,
    /// Copies follow.
    Following,
    /// Replicators run, and not all are fenced.
    Fencing,
    Over,
}

/// Whether the claim of an earlier process is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Disclaimed {
    No,
    Asked,
    Done,
}

/// The search for databases that only the replica knows.
#[derive(Clone, PartialEq, Debug, Default)]
struct Search {
    /// Whether there may be any.
    on: bool,
    wanted: bool,
    /// One is under way; whether the lease was held when it began.
    begun: Option<bool>,
    /// One that began while the lease was held has ended well.
    complete: bool,
    failures: u32,
    /// Places that the holder has named and that are not known here.
    unknown: Vec<PlaceId>,
}

/// The longest wait before a search that had failed: nobody writes until one has succeeded.
const SEARCH_WAIT_MAX: Duration = Duration::from_secs(4);

impl Search {
    /// The wait before the next, if one is to begin now.
    fn next(&mut self, held: bool) -> Option<Duration> {
        if !self.on || !self.wanted || self.begun.is_some() {
            return None;
        }
        (self.wanted, self.begun) = (false, Some(held));
        let waits = Duration::from_millis(250) * (1 << self.failures.min(5));
        Some(if self.failures == 0 { Duration::ZERO } else { waits.min(SEARCH_WAIT_MAX) })
    }

    fn is_over(&self) -> bool {
        !self.on || self.complete
    }
}

#[derive(Clone, PartialEq, Debug)]
struct Member {
    place: PlaceId,
    copy: Copy,
    /// Whether the copy cannot be written.
    obstructed: bool,
    stand: Stand,
}

/// What is done for the copy of one database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Copy {
    #[default]
    Naming,
    /// Its follower looks; `held` says whether it was begun when the lease was held already, and `told`
    /// whether there was news since.
    Following {
        held: bool,
        told: bool,
    },
    /// There is nothing on the replica yet.
    Waiting,
    MovingAside,
    Inheriting,
    /// Its journal says what it is on the replica: a replicator can go on.
    Inherited,
    /// There was nothing to follow, to the end.
    Vacant,
    /// A replicator has it, which comes after another writer if it fences.
    Handed {
        fences: bool,
    },
}

impl Member {
    fn new(place: PlaceId) -> Member {
        Member { place, copy: Copy::default(), obstructed: false, stand: Stand::default() }
    }

    fn is_handed(&self) -> bool {
        matches!(self.copy, Copy::Handed { .. })
    }
}

impl Succession {
    /// Of the databases with replicas at these places. `searches` says whether there may be more on the replica,
    /// and `returns` whether an earlier process of this host was the primary, with a store that was tried.
    pub fn new(places: Vec<PlaceId>, searches: bool, returns: bool) -> Succession {
        Succession {
            stage: Stage::Deciding,
            members: places.into_iter().map(Member::new).collect(),
            search: Search { on: searches, ..Search::default() },
            disclaimed: Disclaimed::No,
            returns,
            lease: View::default(),
            contends: true,
            tried: None,
        }
    }

    /// Whether nothing more comes of it.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Takes an event and answers what is to be done, in order.
    pub fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        if self.stage == Stage::Over {
            return out;
        }
        match event {
            Event::Lease(view) => self.look(view, &mut out),
            Event::Tried(result) => self.tried = Some(result),
            Event::Disclaimed(result) => match result {
                Ok(()) => {
                    self.disclaimed = Disclaimed::Done;
                    let mut named: Vec<usize> =
                        (0..self.members.len()).filter(|n| self.members[*n].copy == Copy::Naming).collect();
                    named.sort_by_key(|n| self.rank(*n));
                    out.extend(named.into_iter().map(Action::Name));
                }
                Err(exit) => self.fail(exit, &mut out),
            },
            Event::Named(n, result) => match result {
                Ok(()) => self.follow(n, &mut out),
                Err(exit) => self.fail(exit, &mut out),
            },
            Event::MovedAside(n, result) => match result {
                Ok(()) => self.follow(n, &mut out),
                Err(exit) => self.fail(exit, &mut out),
            },
            Event::Inherited(n, result) => match result {
                Ok(()) => self.members[n].copy = Copy::Inherited,
                Err(exit) => self.fail(exit, &mut out),
            },
            Event::Found(found) => self.found(found, &mut out),
            Event::Obstructed(n, is_so) => self.obstructed(n, is_so, &mut out),
            Event::Followed(n, followed) => {
                self.obstructed(n, false, &mut out);
                self.followed(n, followed, &mut out);
            }
            // Of a run before the one that is awaited nothing is heard.
            Event::Stands(n, stand) if self.members[n].is_handed() => self.members[n].stand = stand,
            Event::Stands(..) => {}
            Event::Ends => {
                self.end_copies(&mut out);
                self.stage = Stage::Over;
            }
        }
        self.go_on(&mut out);
        out
    }

    fn look(&mut self, view: View, out: &mut Vec<Action>) {
        let held = view.held;
        let before = core::mem::replace(&mut self.lease, view);
        if before.news == self.lease.news && before.held == held {
            return;
        }
        self.search.wanted |= held && !before.held;
        let put = if before.held == held { self.put_since(before.news.as_ref()) } else { None };
        for n in 0..self.members.len() {
            if put.as_ref().is_some_and(|put| !put.contains(&self.members[n].place)) {
                continue;
            }
            self.tell(n, out);
        }
    }

    /// There is news of a database, or the end of its history is to be found.
    fn tell(&mut self, n: usize, out: &mut Vec<Action>) {
        match &mut self.members[n].copy {
            Copy::Following { told, .. } => {
                *told = true;
                out.push(Action::Tell { database: n, succeeds: self.lease.held });
            }
            Copy::Waiting => self.follow(n, out),
            _ => {}
        }
    }

    /// Which of the databases the holder has put to since it was last seen. `None` where that cannot be told:
    /// another holds the lease now, more was put than it names, or what it names is not known here.
    fn put_since(&mut self, before: Option<&News>) -> Option<Vec<PlaceId>> {
        let (before, news) = (before?, self.lease.news.as_ref()?);
        let put = news.active.since(before.progress).filter(|_| before.epoch == news.epoch)?;
        let unknown = |place: &&PlaceId| self.members.iter().all(|member| member.place != **place);
        let unknown: Vec<PlaceId> = put.iter().filter(unknown).copied().collect();
        if unknown.is_empty() {
            return Some(put);
        }
        // It is new, or another name for what is known: a search shows which.
        if !self.search.on {
            return None;
        }
        self.search.wanted = true;
        self.search.unknown.extend(unknown);
        Some(put)
    }

    fn disclaim(&mut self, out: &mut Vec<Action>) {
        self.disclaimed = Disclaimed::Asked;
        out.push(Action::Disclaim);
    }

    /// What a search came to.
    fn found(&mut self, found: Result<Vec<PlaceId>, String>, out: &mut Vec<Action>) {
        let begun = self.search.begun.take();
        let Ok(places) = found else {
            (self.search.wanted, self.search.failures) = (true, self.search.failures + 1);
            return;
        };
        self.search.failures = 0;
        self.search.complete |= begun == Some(true) || mutant::on(Mutant::EarlySearchBelieved);
        let first = self.members.len();
        self.members.extend(places.into_iter().map(Member::new));
        match self.disclaimed {
            Disclaimed::Done => out.extend((first..self.members.len()).map(Action::Name)),
            // A host that goes on lacks some of what there is.
            Disclaimed::No if self.members.len() > first => self.disclaim(out),
            Disclaimed::No | Disclaimed::Asked => {}
        }
        let unknown = core::mem::take(&mut self.search.unknown);
        if unknown.iter().any(|place| self.members.iter().all(|member| member.place != *place)) {
            (0..first).for_each(|n| self.tell(n, out));
        }
    }

    /// The place of a database among the active: the most active come first.
    fn rank(&self, n: usize) -> usize {
        let place = self.members[n].place;
        let active = self.lease.news.as_ref().map(|news| &news.active);
        active.and_then(|active| active.places().position(|other| other == place)).unwrap_or(usize::MAX)
    }

    fn follow(&mut self, n: usize, out: &mut Vec<Action>) {
        let held = self.lease.held;
        self.members[n].copy = Copy::Following { held, told: false };
        out.push(Action::Follow { database: n, succeeds: held });
    }

    fn obstructed(&mut self, n: usize, is_so: bool, out: &mut Vec<Action>) {
        self.members[n].obstructed = is_so;
        let contends = !self.members.iter().any(|member| member.obstructed);
        if core::mem::replace(&mut self.contends, contends) != contends {
            out.push(Action::Contend(contends));
        }
    }

    fn followed(&mut self, n: usize, followed: Followed, out: &mut Vec<Action>) {
        let Copy::Following { held, told } = self.members[n].copy else { return };
        let held = held || (self.lease.held && mutant::on(Mutant::EarlyLookBelieved));
        match followed {
            Followed { exit: Exit::Done, bequest: Some(records), .. } => {
                self.members[n].copy = Copy::Inheriting;
                out.push(Action::Inherit(n, records));
            }
            Followed { exit: Exit::Done, .. } => self.follow(n, out),
            // It may have looked when another was still to write the first segment.
            Followed { exit: Exit::NothingToRestore { .. }, .. }
                if (self.lease.held && !held) || (told && !self.lease.held) =>
            {
                self.follow(n, out)
            }
            Followed { exit: Exit::NothingToRestore { .. }, .. } => {
                self.members[n].copy = if held { Copy::Vacant } else { Copy::Waiting };
            }
            Followed { exit: Exit::Failed { .. }, unknown: true, .. } => {
                self.members[n].copy = Copy::MovingAside;
                out.push(Action::MoveAside(n));
            }
            Followed { exit, .. } => {
                self.members[n].copy = Copy::Waiting;
                self.fail(exit, out);
            }
        }
    }

    fn end_copies(&mut self, out: &mut Vec<Action>) {
        let follow = |(n, member): (usize, &Member)| {
            matches!(member.copy, Copy::Following { .. }).then_some(Action::End(n))
        };
        out.extend(self.members.iter().enumerate().filter_map(follow));
    }

    fn fail(&mut self, exit: Exit, out: &mut Vec<Action>) {
        self.end_copies(out);
        self.stage = Stage::Over;
        out.push(Action::Fail(exit));
    }

    fn go_on(&mut self, out: &mut Vec<Action>) {
        match self.stage {
            Stage::Deciding => self.decide(out),
            Stage::Following => {
                let come = |member: &Member| matches!(member.copy, Copy::Inherited | Copy::Vacant);
                if self.members.iter().all(come) && self.search.is_over() {
                    self.begin(out);
                }
            }
            Stage::Fencing => self.fence(out),
            Stage::Over => {}
        }
        let searches = matches!(self.stage, Stage::Following | Stage::Fencing);
        if let Some(wait) = searches.then(|| self.search.next(self.lease.held)).flatten() {
            out.push(Action::Search { wait });
        }
    }

    fn decide(&mut self, out: &mut Vec<Action>) {
        if !self.lease.known {
            return;
        }
        let continues = self.lease.held && self.lease.continues;
        if !(self.returns && continues) {
            match self.tried.clone() {
                None => return,
                Some(Err(exit)) => return self.fail(exit, out),
                Some(Ok(())) => {}
            }
        }
        if continues {
            self.members.iter_mut().for_each(|member| member.copy = Copy::Vacant);
            // A machine that is as it once was may lack what was begun since. The lease names it, or has named as
            // many since, each of which is behind here and says so.
            let active = self.lease.news.as_ref().map(|news| news.active.clone()).unwrap_or_default();
            let lacks = active.places().any(|place| self.members.iter().all(|member| member.place != place));
            (self.search.wanted, self.search.complete) = (lacks, !lacks);
            return self.begin(out);
        }
        self.stage = Stage::Following;
        self.search.wanted = true;
        self.disclaim(out);
    }

    /// Hands those that have come to the end of their histories to replicators.
    fn begin(&mut self, out: &mut Vec<Action>) {
        self.stage = Stage::Fencing;
        let mut begun = Vec::new();
        for (n, member) in self.members.iter_mut().enumerate() {
            let fences = member.copy == Copy::Inherited;
            if fences || member.copy == Copy::Vacant {
                (member.copy, member.stand) = (Copy::Handed { fences }, Stand::Starting);
                begun.push((n, fences));
            }
        }
        out.push(Action::Begin(begun));
        self.fence(out);
    }

    fn fence(&mut self, out: &mut Vec<Action>) {
        for n in 0..self.members.len() {
            match &self.members[n] {
                Member {
                    copy: Copy::Handed { fences }, stand: Stand::Ended(Exit::Overtaken { .. }), ..
                } => {
                    let was_copy = *fences;
                    self.members[n].stand = Stand::Starting;
                    if was_copy {
                        self.follow(n, out);
                    } else {
                        // It was to go on from where this host left off, and others have been there since.
                        self.members[n].copy = Copy::Naming;
                        (self.search.wanted, self.search.complete) = (true, false);
                        match self.disclaimed {
                            Disclaimed::No => self.disclaim(out),
                            // It names all that wait for it.
                            Disclaimed::Asked => {}
                            Disclaimed::Done => out.push(Action::Name(n)),
                        }
                    }
                }
                Member { copy: Copy::Inherited | Copy::Vacant, .. } => return self.begin(out),
                _ => {}
            }
        }
        let failed = self.members.iter().find_map(|member| match &member.stand {
            Stand::Ended(exit) if *exit != Exit::Done => Some(exit.clone()),
            _ => None,
        });
        if let Some(exit) = failed {
            return self.fail(exit, out);
        }
        let done = |member: &Member| matches!(member.stand, Stand::Ended(Exit::Done));
        let ready = |stand: &Stand| *stand == Stand::Ready || mutant::on(Mutant::ActivatesUnfenced);
        let fenced = |member: &Member| member.is_handed() && ready(&member.stand);
        let all = self.members.iter().all(|member| fenced(member) || done(member));
        // Those that somebody has ended are waited for as little as none.
        if all && self.search.is_over() && (self.members.is_empty() || self.members.iter().any(fenced)) {
            self.stage = Stage::Over;
            out.push(Action::Activate);
        }
    }
}

#[cfg(test)]
mod tests;
