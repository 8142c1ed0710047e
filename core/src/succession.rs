//! From a standby to the primary: what a process with a lease does with its databases, and in which order.
//!
//! A standby's databases are copies that follow the replica ([`Follower`]). Once the process holds the lease,
//! each copy comes to the end of its history and leaves a journal, from which a replicator goes on whose first
//! segment fences the predecessor ([`Config::succeeds`]). Where the predecessor was faster by one put, the copy
//! follows once more. When all are fenced the lease may say so, and the application begins.
//!
//! A process that finds the lease still of its host's own claim skips all that: nobody can have written since.
//!
//! The [`Succession`] decides; a host carries out one [`Action`] after the other and tells what came of it. It
//! ends with [`Action::Activate`] or [`Action::Fail`], or once it is told that the process ends.
//!
//! [`Follower`]: crate::follow::Follower
//! [`Config::succeeds`]: crate::engine::Config::succeeds

use alloc::vec::Vec;

use crate::lease::{LeaseStatus, Role};
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
    /// The states are named that this host may have left a database in, as [`Action::Name`] asked.
    Named(usize, Result<(), Exit>),
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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct View {
    /// Whether it is known whether this process is the holder.
    pub known: bool,
    /// Whether it is.
    pub held: bool,
    /// Whether nobody can have written since a process of this host did ([`LeaseStatus::continues`]).
    pub continues: bool,
    /// Epoch and count of segments: there is news on the replica when they change.
    pub news: Option<(u64, u64)>,
}

impl View {
    /// What matters of a lease that stands so.
    pub fn of(status: &LeaseStatus) -> View {
        View {
            known: status.role != Role::Standby || status.settled,
            held: status.until.is_some(),
            continues: status.continues,
            news: status.body.as_ref().map(|body| (body.epoch, body.progress)),
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
    /// Whether an earlier process of this host was the primary, with a store that was tried.
    returns: bool,
    lease: View,
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

#[derive(Clone, PartialEq, Debug, Default)]
struct Member {
    copy: Copy,
    stand: Stand,
}

/// What is done for the copy of one database.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Copy {
    #[default]
    Naming,
    /// Its follower looks; `held` says whether it was begun when the lease was held already.
    Following {
        held: bool,
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
    fn is_handed(&self) -> bool {
        matches!(self.copy, Copy::Handed { .. })
    }
}

impl Succession {
    /// Of so many databases. `returns` says whether an earlier process of this host was the primary, with a
    /// store that was tried.
    pub fn new(databases: usize, returns: bool) -> Succession {
        let members = alloc::vec![Member::default(); databases];
        Succession { stage: Stage::Deciding, members, returns, lease: View::default(), tried: None }
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
                    let named = |n: &usize| self.members[*n].copy == Copy::Naming;
                    out.extend((0..self.members.len()).filter(named).map(Action::Name));
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
            Event::Followed(n, followed) => self.followed(n, followed, &mut out),
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
        let (before, held) = (core::mem::replace(&mut self.lease, view), view.held);
        if before.news == view.news && before.held == held {
            return;
        }
        for n in 0..self.members.len() {
            match self.members[n].copy {
                Copy::Following { .. } => out.push(Action::Tell { database: n, succeeds: held }),
                Copy::Waiting => self.follow(n, out),
                _ => {}
            }
        }
    }

    fn follow(&mut self, n: usize, out: &mut Vec<Action>) {
        let held = self.lease.held;
        self.members[n].copy = Copy::Following { held };
        out.push(Action::Follow { database: n, succeeds: held });
    }

    fn followed(&mut self, n: usize, followed: Followed, out: &mut Vec<Action>) {
        let Copy::Following { held } = self.members[n].copy else { return };
        let held = held || (self.lease.held && mutant::on(Mutant::EarlyLookBelieved));
        match followed {
            Followed { exit: Exit::Done, bequest: Some(records), .. } => {
                self.members[n].copy = Copy::Inheriting;
                out.push(Action::Inherit(n, records));
            }
            Followed { exit: Exit::Done, .. } => self.follow(n, out),
            // One that was begun before may have looked when another was still to write the first segment.
            Followed { exit: Exit::NothingToRestore { .. }, .. } if self.lease.held && !held => {
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
                if self.members.iter().all(come) {
                    self.begin(out);
                }
            }
            Stage::Fencing => self.fence(out),
            Stage::Over => {}
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
            return self.begin(out);
        }
        self.stage = Stage::Following;
        out.push(Action::Disclaim);
    }

    /// Hands those that have come to the end of their histories to replicators.
    fn begin(&mut self, out: &mut Vec<Action>) {
        self.stage = Stage::Fencing;
        let mut begun = Vec::new();
        for (n, member) in self.members.iter_mut().enumerate() {
            let fences = member.copy == Copy::Inherited;
            if fences || member.copy == Copy::Vacant {
                *member = Member { copy: Copy::Handed { fences }, stand: Stand::Starting };
                begun.push((n, fences));
            }
        }
        out.push(Action::Begin(begun));
        self.fence(out);
    }

    fn fence(&mut self, out: &mut Vec<Action>) {
        for n in 0..self.members.len() {
            match &self.members[n] {
                Member { copy: Copy::Handed { fences }, stand: Stand::Ended(Exit::Overtaken { .. }) } => {
                    let was_copy = *fences;
                    self.members[n].stand = Stand::Starting;
                    if was_copy {
                        self.follow(n, out);
                    } else {
                        // It was to go on from where this host left off, and others have been there since.
                        self.members[n].copy = Copy::Naming;
                        out.push(Action::Disclaim);
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
        if all && (self.members.is_empty() || self.members.iter().any(fenced)) {
            self.stage = Stage::Over;
            out.push(Action::Activate);
        }
    }
}

#[cfg(test)]
mod tests;
