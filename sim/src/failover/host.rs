//! A host: the lease's machine, a model of what writes under it, and an application.

use driftless_core::lease::{Lease, LeaseConfig, Role, Term};
use driftless_core::machine::{Machine as _, OpId, OpIds, ReplicaId};

use super::store::Segment;

/// What writes, as far as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Writer {
    /// Another may be the writer.
    Idle,
    /// The history is being read.
    Listing,
    /// A segment is being put; `first` is the one that fences.
    Putting { name: u64, segment: Segment, first: bool },
    /// It was put, and its proof is awaited.
    Proving { proof: u64, segment: Segment, first: bool },
    /// Everything is fenced; the lease is to say so.
    Activating,
    /// The application runs, and everything that it has committed so far is put and proven, or will be.
    Active,
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) number: usize,
    /// Its name among the contenders; two have the same once one was copied.
    pub(super) holder: u64,
    pub(super) term: Option<Term>,
    /// The number of its process.
    pub(super) run: u64,
    pub(super) lease: Option<Lease>,
    /// The only request of the lease that is under way.
    pub(super) asked: Option<OpId>,
    pub(super) writer: Writer,
    /// The database: all transactions, and how many of them are on the replica for all that this host knows.
    pub(super) database: Vec<u64>,
    pub(super) replicated: u64,
    pub(super) segments: u64,
    pub(super) proofs: u64,
    pub(super) runs_application: bool,
    /// It writes no more, and gives the lease up.
    pub(super) leaves: bool,
    /// When its lease is to be told of the time next.
    pub(super) tick_at: Option<u64>,
    pub(super) paused_until: u64,
    pub(super) cut_until: u64,
    /// Where its clock began.
    pub(super) clock_ns: u64,
}

impl Host {
    pub(super) fn new(number: usize, clock_ns: u64) -> Host {
        Host {
            number,
            holder: 100 + number as u64,
            term: None,
            run: 0,
            lease: None,
            asked: None,
            writer: Writer::Idle,
            database: Vec::new(),
            replicated: 0,
            segments: 0,
            proofs: 0,
            runs_application: false,
            leaves: false,
            tick_at: None,
            paused_until: 0,
            cut_until: 0,
            clock_ns,
        }
    }

    /// A process begins.
    pub(super) fn begin(&mut self, run: u64, config: LeaseConfig) {
        let config = LeaseConfig { holder: self.holder, term: self.term, ..config };
        (self.run, self.tick_at) = (run, None);
        self.lease = Some(Lease::new(config, OpIds::new(ReplicaId(self.number as u32), run)));
        (self.asked, self.writer, self.proofs, self.leaves) = (None, Writer::Idle, 0, false);
    }

    /// The process ends, with its application.
    pub(super) fn end(&mut self) {
        self.lease = None;
        self.runs_application = false;
        self.writer = Writer::Idle;
    }

    pub(super) fn role(&self) -> Option<Role> {
        self.lease.as_ref().map(|lease| lease.status().role)
    }

    pub(super) fn holds(&self) -> bool {
        matches!(self.role(), Some(Role::Claimant | Role::Primary))
    }

    /// The epoch of its claim.
    pub(super) fn epoch(&self) -> u64 {
        let body = self.lease.as_ref().and_then(|lease| lease.status().body);
        body.map_or(0, |body| body.epoch)
    }
}
