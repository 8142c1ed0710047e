//! What the succession of a process decides, carried out; and what its machines do to it.

use std::time::Duration;

use driftless_core::application::{Databases, Standing};
use driftless_core::engine::Config;
use driftless_core::follow::{Candidates, FollowConfig, Follower};
use driftless_core::keeper::Keeper;
use driftless_core::lease::{LeaseEvent, Role, request_deadline};
use driftless_core::machine::{Event, Exit, Machine as _, OpIds, ReplicaId, StateRequest};
use driftless_core::succession::{self, Action, Followed, Stand, View};

use super::PLACE;
use super::node::{DRIFTLESS, PENDING, Running, Who};
use super::world::{Entry, MS, World};
use crate::disk::Disk;
use crate::ring0::Violation;
use crate::ring0::app::PATH;
use crate::ring0::sqlite::Sqlite as _;
use crate::trace::Kind;

const POSITION: &str = "/a.db-txid";

impl World {
    /// Tells the succession of a process something, and carries out what it decides.
    pub(super) fn succeed(&mut self, host: usize, event: succession::Event) -> Result<(), Violation> {
        let run = self.nodes[host].run;
        let Some(succession) = &mut self.nodes[host].succession else { return Ok(()) };
        let actions = succession.handle(event);
        for action in actions {
            if self.nodes[host].run != run {
                return Ok(());
            }
            self.note(host, Kind::Note, format_args!("succession: {action:?}"));
            self.carry_out(host, action)?;
            if self.nodes[host].run == run {
                self.acted(host)?;
            }
        }
        Ok(())
    }

    fn told(&mut self, host: usize, event: succession::Event) {
        let wait = self.draw_wait("told", 100, 30_000);
        let run = self.nodes[host].run;
        self.later(wait, Entry::Told { host, run, event });
    }

    fn carry_out(&mut self, host: usize, action: Action) -> Result<(), Violation> {
        match action {
            Action::Disclaim => {
                self.nodes[host].term = None;
                self.told(host, succession::Event::Disclaimed(Ok(())));
            }
            Action::Name(n) => {
                self.name_its_state(host);
                self.told(host, succession::Event::Named(n, Ok(())));
            }
            Action::Follow { succeeds, .. } => return self.follow(host, succeeds),
            Action::Tell { succeeds, .. } => {
                let event = if succeeds { Event::Lease(LeaseEvent::Succeed) } else { Event::SyncNow };
                return self.handle(host, Who::Follower, event);
            }
            Action::End(_) => {
                let deadline = self.times(host).mono;
                return self.handle(host, Who::Follower, Event::Shutdown { deadline });
            }
            Action::MoveAside(n) => {
                // Whoever stands by is in nobody's way with what it has.
                if host == 0 && self.cell.epoch() == 0 {
                    let text = format!("host {host} moves its database aside, and nobody has held the lease");
                    return Err(Violation::new("succession", text));
                }
                self.move_aside(host);
                self.told(host, succession::Event::MovedAside(n, Ok(())));
            }
            Action::Inherit(n, records) => {
                self.nodes[host].state.perform(&StateRequest::Rewrite(records));
                self.told(host, succession::Event::Inherited(n, Ok(())));
            }
            Action::Search { wait } => {
                let run = self.nodes[host].run;
                let wait = wait.as_nanos() as u64 + self.draw_wait("search", 1_000, 2_000_000);
                self.later(wait, Entry::Search { host, run });
            }
            Action::Contend(contends) => {
                return self.handle(host, Who::Lease, Event::Lease(LeaseEvent::Contend(contends)));
            }
            Action::Begin(databases) => {
                databases.iter().try_for_each(|(_, fences)| self.check_begun(host, *fences))?;
                return databases.into_iter().try_for_each(|(_, fences)| self.replicate(host, fences));
            }
            Action::Activate => {
                let wrong = self.check_successor(host).err();
                let node = &mut self.nodes[host];
                node.wrong = wrong;
                let _ = node.disk().unlink(POSITION);
                node.activating = true;
                node.term = node.lease.as_ref().and_then(|it| it.machine.status().term);
                return self.handle(host, Who::Lease, Event::Lease(LeaseEvent::Activate));
            }
            Action::Fail(exit) => {
                // Whatever a person would have to see to does not happen here.
                let text = format!("host {host}: {exit:?}");
                if !matches!(exit, Exit::Fenced { .. }) {
                    return Err(Violation::new("succession", text));
                }
                self.depose(host, &text);
            }
        }
        Ok(())
    }

    fn name_its_state(&mut self, host: usize) {
        let node = &self.nodes[host];
        let disk = node.disk();
        if disk.exists(POSITION) || !disk.exists(PATH) {
            return;
        }
        let known = Candidates::of_journal(node.state.records());
        write_whole(&disk, POSITION, &known.map_or_else(Vec::new, |known| known.encode()));
    }

    fn follow(&mut self, host: usize, succeeds: bool) -> Result<(), Violation> {
        let no = self.number();
        let ids = OpIds::new(ReplicaId(1), self.dice.draw("run", "follower", no));
        let mut config =
            FollowConfig { interval: Duration::from_secs(3_600), patient: true, ..FollowConfig::default() };
        config.restore.request_deadline = request_deadline(self.ttl);
        let node = &mut self.nodes[host];
        node.copy = Some(node.model.copy(DRIFTLESS, PATH));
        node.obstructed = false;
        node.follower = Some(Running { machine: Follower::new(config, ids), no, wake: 0 });
        let entropy = self.dice.draw("entropy", "follower", no);
        self.handle(host, Who::Follower, Event::Start { entropy })?;
        match succeeds {
            true => self.handle(host, Who::Follower, Event::Lease(LeaseEvent::Succeed)),
            false => Ok(()),
        }
    }

    pub(super) fn follower_ended(
        &mut self,
        host: usize,
        mut follower: Follower,
        exit: Exit,
    ) -> Result<(), Violation> {
        self.summary.followed += follower.status().commits;
        let followed = Followed { exit, bequest: follower.bequest(), unknown: follower.is_unknown() };
        self.told(host, succession::Event::Followed(0, followed));
        Ok(())
    }

    /// A database gets another name, with all that belongs to it: under both before it loses the first.
    fn move_aside(&mut self, host: usize) {
        let epoch = self.nodes[host].epoch();
        let node = &mut self.nodes[host];
        node.state.lose_all();
        node.forgot = true;
        let disk = node.disk();
        node.asides.extend(node.image());
        let aside = format!("{PATH}.unreplicated-{epoch}-{}", node.asides.len());
        for suffix in ["", "-wal", "-journal"] {
            let _ = disk.link(&format!("{PATH}{suffix}"), &format!("{aside}{suffix}"));
        }
        let _ = disk.sync_dir("/");
        for left in ["", "-wal", "-journal", "-shm", "-txid"] {
            let _ = disk.unlink(&format!("{PATH}{left}"));
        }
        let _ = disk.sync_dir("/");
        self.summary.asides += 1;
    }

    pub(super) fn replicate(&mut self, host: usize, fences: bool) -> Result<(), Violation> {
        let no = self.number();
        let run = self.dice.draw("run", "replicator", no);
        let config = Config {
            epoch: Some(self.nodes[host].epoch()),
            succeeds: fences,
            remote: true,
            pending_byte: PENDING,
            store_deadline: request_deadline(self.ttl),
            sync_interval: Duration::from_millis(*self.dice.pick("plan", "sync", 0, &[50, 1_000])),
            ..Config::default()
        };
        let begun_behind = self.replica_end();
        let levels = self.levels.clone();
        let node = &mut self.nodes[host];
        node.begun_behind = begun_behind;
        node.unfenced |= fences;
        node.stand = None;
        // What stands there is what it goes on from.
        let disk = node.disk();
        node.truth.committed(&disk, PATH, PENDING);
        node.source = Some(node.model.source(DRIFTLESS, PATH));
        node.replicator =
            Some(Running { machine: Keeper::new(ReplicaId(0), run, config, levels, None), no, wake: 0 });
        let probed = self.draw_wait("probed", 1_000, 3_000_000);
        self.later(probed, Entry::Probed { host, no });
        let entropy = self.dice.draw("entropy", "replicator", no);
        self.handle(host, Who::Replicator, Event::Start { entropy })
    }

    pub(super) fn replicator_moved(&mut self, host: usize) -> Result<(), Violation> {
        let node = &mut self.nodes[host];
        let Some(replicator) = &node.replicator else { return Ok(()) };
        let mut standing = Standing::default();
        standing.add(Some(&replicator.machine.status()), None);
        let stand = if standing.sum() == Databases::Ready { Stand::Ready } else { Stand::Starting };
        self.stands(host, stand)
    }

    /// Looks whether there is a replica, and tells it when that answer arrives.
    pub(super) fn search(&mut self, host: usize) {
        let n = self.number();
        let fails = self.is_troubled() && self.dice.chance("search", "fails", n, self.per_mille, 1_000);
        let there = !self.fences.is_empty() || self.restored.txid.is_some();
        let is_new = there && !self.nodes[host].found && !fails;
        self.nodes[host].found |= is_new;
        let found = match fails {
            true => Err("the store is away".into()),
            false => Ok(if is_new { vec![PLACE] } else { vec![] }),
        };
        self.told(host, succession::Event::Found(found));
    }

    pub(super) fn is_primary(&mut self, host: usize) -> Result<(), Violation> {
        let node = &mut self.nodes[host];
        // Whoever has lost the lease meanwhile may be wrong.
        if let Some(violation) = node.wrong.take() {
            return Err(violation);
        }
        (node.activating, node.active, node.unfenced) = (false, true, false);
        let (run, holder) = (node.run, node.holder);
        self.summary.activations += 1;
        self.summary.takeovers += u64::from(self.primary.is_some_and(|before| before != holder));
        self.primary = Some(holder);
        self.note(host, Kind::Phase, format_args!("is the primary"));
        self.later(MS, Entry::App(host, run));
        // What its application makes is found in the directory.
        if self.nodes[host].replicator.is_none() { self.replicate(host, false) } else { Ok(()) }
    }

    pub(super) fn follower_moved(&mut self, host: usize) -> Result<(), Violation> {
        let node = &mut self.nodes[host];
        let obstructed = node.follower.as_ref().is_some_and(|it| it.machine.status().obstructed);
        if std::mem::replace(&mut node.obstructed, obstructed) == obstructed {
            return Ok(());
        }
        self.succeed(host, succession::Event::Obstructed(0, obstructed))
    }

    fn stands(&mut self, host: usize, stand: Stand) -> Result<(), Violation> {
        if self.nodes[host].stand.as_ref() == Some(&stand) {
            return Ok(());
        }
        self.nodes[host].stand = Some(stand.clone());
        self.succeed(host, succession::Event::Stands(0, stand))
    }

    pub(super) fn replicator_ended(&mut self, host: usize, exit: Exit) -> Result<(), Violation> {
        self.summary.overtaken += u64::from(matches!(exit, Exit::Overtaken { .. }));
        if self.nodes[host].leaves {
            if exit == Exit::Done {
                let deadline = self.times(host).mono.after(Duration::from_secs(10));
                return self.handle(host, Who::Lease, Event::Shutdown { deadline });
            }
            self.ends(host);
            return Ok(());
        }
        if self.nodes[host].active || self.nodes[host].activating {
            match &exit {
                Exit::Fenced { .. } => {
                    self.check_fenced(host)?;
                    self.depose(host, exit.error().unwrap_or_default());
                }
                exit => {
                    return Err(Violation::new(
                        "exit",
                        format!("the replicator of host {host} ends: {exit:?}"),
                    ));
                }
            }
            return Ok(());
        }
        self.stands(host, Stand::Ended(exit))
    }

    pub(super) fn lease_moved(&mut self, host: usize) -> Result<(), Violation> {
        let Some(lease) = &self.nodes[host].lease else { return Ok(()) };
        let (run, status) = (self.nodes[host].run, lease.machine.status());
        if let Some((number, no, op)) = self.nodes[host].proving
            && let Some(proven) = status.proves(number)
        {
            self.nodes[host].proving = None;
            let shown = if proven { Ok(()) } else { Err("the lease is another's".into()) };
            let outcome = Box::new(driftless_core::machine::Outcome::Proven(shown));
            let wait = self.draw_wait("proven", 1, 500);
            self.later(wait, Entry::Deliver { host, who: Who::Replicator, no, op, outcome });
        }
        if self.nodes[host].activating && self.role(host) == Some(Role::Primary) {
            self.is_primary(host)?;
        }
        let view = View::of(&status);
        if view.held && self.nodes[host].claimed_behind.is_none() {
            self.restore_all()?;
            self.nodes[host].claimed_behind = Some(self.restored.txid.is_some());
        }
        if self.nodes[host].run == run && self.nodes[host].view.as_ref() != Some(&view) {
            self.nodes[host].view = Some(view.clone());
            return self.succeed(host, succession::Event::Lease(view));
        }
        Ok(())
    }
}

fn write_whole(disk: &Disk, path: &str, bytes: &[u8]) {
    let beside = format!("{path}.new");
    let write = || {
        let file = disk.create(&beside)?;
        file.set_len(0)?;
        file.write_all_at(bytes, 0)?;
        file.sync()?;
        disk.rename(&beside, path)?;
        disk.sync_dir("/")
    };
    write().expect("this disk has no faults");
}
