//! The second half of a run: all faults end, and what must hold then.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use driftless_core::machine::{Exit, OpIds, Reason, ReplicaId};
use driftless_core::verify::{Verifier, VerifyConfig};
use driftless_sim::ring0::violation::Violation;
use madsim::net::NetSim;
use madsim::runtime::Handle;
use madsim::time::{TimeHandle, sleep};

use super::{World, locked, node};
use crate::plan::Op;
use crate::processes::{self, Seen};
use crate::server;

/// How long after the end of all faults everything must be on the replica and quiet: ring 0's
/// bound. The longest request that was under way (60 s), the longest back-off (10 s), the quiet time
/// (15 s), what a seal may wait for the clocks, and twice what a connection takes to connect.
const CONVERGE: Duration = Duration::from_secs(180);
/// How long a quiet world is watched for requests that nobody needs.
const IDLE: Duration = Duration::from_secs(10 * 60);
/// How long a process may take that is to begin by now (60 s) and adopts, to its first segment.
const TAKEN_OVER: Duration = Duration::from_secs(90);
/// When the last request has come whose sender is long gone: it was held back by the store, or by a
/// network in two parts.
const LATE: Duration = Duration::from_secs(120);
/// How long a probe may take after that: its longest rest (5 min), and the requests of one round.
const PROBED: Duration = Duration::from_secs(6 * 60);
/// What a restore may take in a world without faults.
const READ: Duration = Duration::from_secs(120);

impl World {
    /// All faults end; who was down starts.
    pub(super) async fn heal(&self) {
        self.say(|| "--- all faults end".into());
        let (net, handle) = (NetSim::current(), Handle::current());
        net.update_config(|config| {
            config.packet_loss_rate = 0.0;
            config.send_latency = Duration::from_micros(200)..Duration::from_millis(10);
        });
        server::locked(&self.store).weather = Default::default();
        self.healed.store(true, Ordering::Relaxed);
        if handle.is_exit(self.store_node) {
            self.start(self.hosts.len());
        }
        for n in 0..self.hosts.len() {
            let (_, node) = &self.hosts[n];
            net.unclog_link(*node, self.store_node);
            net.unclog_link(self.store_node, *node);
            handle.resume(*node);
            if handle.is_exit(*node) && !self.is_fenced(n) {
                self.start(n);
            }
        }
        if self.hosts.len() > 1 {
            // Whoever is told to take the replica over has done so by then.
            sleep(TAKEN_OVER).await;
        }
        // Whoever was overtaken while nothing was to be written hears of it by a last commit.
        for n in 0..self.hosts.len() {
            self.perform(u64::MAX / 128 - n as u64, n, Op::Write { changed: 1, added: 1 }).await;
        }
    }

    /// Waits until all is on the replica and quiet.
    pub(super) async fn converge(&self) -> Result<(), Violation> {
        let healed = TimeHandle::current().elapsed();
        loop {
            if let Some(violation) = locked(&self.violation).take() {
                return Err(violation);
            }
            locked(&self.judge).follow(&server::locked(&self.store).bucket)?;
            let waiting: Vec<usize> = (0..self.hosts.len()).filter(|n| !self.rests(*n)).collect();
            let took = TimeHandle::current().elapsed() - healed;
            if waiting.is_empty() {
                locked(&self.tally).converged_ms = took.as_millis() as u64;
                return self.check_writers();
            }
            if took > CONVERGE {
                return Err(self.not_converged(waiting[0]));
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    fn is_fenced(&self, n: usize) -> bool {
        matches!(self.hosts[n].0.seen().exit, Some(Exit::Fenced { .. }))
    }

    fn rests(&self, n: usize) -> bool {
        if self.is_fenced(n) {
            return true;
        }
        let seen = self.hosts[n].0.seen();
        let sleeps = matches!(seen.waits_for, None | Some(Reason::Sweep));
        seen.sender.is_some() && seen.status.is_some() && sleeps && locked(&self.judge).is_complete(n)
    }

    fn not_converged(&self, n: usize) -> Violation {
        let seen = self.hosts[n].0.seen();
        let Seen { status, exit, waits_for, said, .. } = &*seen;
        let differs = locked(&self.judge).difference(n);
        let text = format!(
            "host {n} is not done {CONVERGE:?} after the end of faults; the replica against its database: {differs}; it waits for {waits_for:?}; exit {exit:?}; {status:?}; it said {said:#?}"
        );
        Violation::new("liveness", text)
    }

    /// One writer goes on; any other is fenced.
    fn check_writers(&self) -> Result<(), Violation> {
        let fenced = (0..self.hosts.len()).filter(|n| self.is_fenced(*n)).count();
        locked(&self.tally).fenced = fenced as u64;
        if fenced + 1 == self.hosts.len() {
            return Ok(());
        }
        Err(Violation::new("fencing", format!("{fenced} of {} writers are fenced", self.hosts.len())))
    }

    /// A quiet world asks nothing of the store, once the probes have come to their end.
    pub(super) async fn check_idle(&self) -> Result<(), Violation> {
        let since = TimeHandle::current().elapsed();
        let runs = || {
            let probes = self.hosts.iter().any(|(host, _)| host.seen().probes > 0);
            if probes { Some("a probe") } else { (*locked(&self.readers) > 0).then_some("a restore") }
        };
        while let Some(what) = runs() {
            if TimeHandle::current().elapsed() - since > PROBED {
                return Err(Violation::new("liveness", format!("{what} takes longer than {PROBED:?}")));
            }
            sleep(Duration::from_secs(1)).await;
        }
        sleep(LATE).await;
        let before = server::locked(&self.store).requests;
        sleep(IDLE).await;
        match server::locked(&self.store).requests - before {
            0 => Ok(()),
            asked => Err(Violation::new("idle", format!("{asked} requests in {IDLE:?}"))),
        }
    }

    /// `restore` gives what was committed last, and `verify` finds nothing wrong.
    pub(super) async fn check_readers(self: &Arc<Self>) -> Result<(), Violation> {
        let before = locked(&self.tally).restores;
        let slow = |what: &str| Violation::new("liveness", format!("{what} takes longer than {READ:?}"));
        let restore = madsim::time::timeout(READ, Arc::clone(self).restore(1)).await;
        restore.map_err(|_| slow("a restore"))?;
        if let Some(violation) = locked(&self.violation).take() {
            return Err(violation);
        }
        if locked(&self.tally).restores == before {
            return Err(Violation::new("restore", "nothing was restored in a world without faults"));
        }
        let verify = node("verifier", IpAddr::from([10, 0, 1, 2])).spawn(async {
            let verifier = Verifier::new(VerifyConfig::default(), OpIds::new(ReplicaId(0), 8));
            madsim::task::spawn_local(processes::read(verifier)).await.expect("never cancelled")
        });
        let verified = madsim::time::timeout(READ, verify).await.map_err(|_| slow("a verification"))?;
        match verified.expect("never cancelled") {
            (Exit::Done, ..) => Ok(()),
            (exit, status, _) => Err(Violation::new("verify", format!("{exit:?} {status:?}"))),
        }
    }
}
