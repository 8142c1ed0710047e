//! Who may write: a lease that is one object of the store.
//!
//! Hosts that replicate the same databases contend for it. It is never deleted, and changed only by
//! replacing the version that was read, with a fresh nonce each time; its *epoch* grows with each holder.
//!
//! **The lease is a hint about who lives.** What keeps a second history from coming to be is the chain of
//! transactions: the successor's first segment takes the next name ([`Config::succeeds`]), and from then
//! on nobody else can extend what was there before. What keeps a first writer from believing in vain that
//! something is safe is the proof ([`LeaseStatus::proves`]): a transaction counts as replicated only once a
//! look at the lease that began after its put has shown this holder's own nonce.
//!
//! **No two hosts' clocks are compared.** A holder counts its tenure from before it sent the write that
//! succeeded; whoever waits counts from when an answer first showed the object as it is. The second moment
//! is never before the first, and both clocks count the time that a machine is suspended.
//!
//! **A holder that comes back.** The claim that made it one is kept on its host ([`Term`]). A restart that
//! finds the lease still of that claim goes on at once: nobody, not even a copy of the machine, has held it
//! since. Everyone else waits.
//!
//! [`Config::succeeds`]: crate::engine::Config::succeeds

mod active;
mod body;
mod machine;
#[cfg(test)]
mod tests;

use alloc::string::String;
use core::time::Duration;

pub use active::{Active, PlaceId};
pub use body::{Body, State};
pub use machine::Lease;

use crate::ids::Mono;

/// The name of the object, below the root of what it is for.
pub const CELL: &str = ".driftless/lease";

/// How long whoever follows and writes under a lease of such a time to live waits for an answer of the store,
/// before it asks again: an answer that is lost keeps a successor from its work for as long.
pub fn request_deadline(ttl: Duration) -> Duration {
    ttl.clamp(Duration::from_secs(5), Duration::from_secs(30))
}

/// The claim by which a process became the holder. Kept on its host; two claims never share one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Term(pub u64);

/// What a contender is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseConfig {
    /// How long a holder may go without renewing it (default: 10 s). The first one sets it for whoever waits
    /// for its end: the time that the object names counts.
    pub ttl: Duration,
    /// Names this host: drawn once and kept in its state directory. Different on every host.
    pub holder: u64,
    /// For people and load balancers: where this process can be asked.
    pub address: String,
    /// The claim of an earlier process of this host that was not released, if there was one.
    pub term: Option<Term>,
    /// Whether to take a lease that nobody has ever held. A standby does not: it would begin a history.
    pub begins: bool,
}

impl Default for LeaseConfig {
    fn default() -> LeaseConfig {
        LeaseConfig {
            ttl: Duration::from_secs(10),
            holder: 0,
            address: String::new(),
            term: None,
            begins: true,
        }
    }
}

/// What the process tells its lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseEvent {
    /// The store was tried: whether it keeps what a lease needs, so that this process may become the holder.
    /// Before that it would keep others from it who can write.
    Tried(bool),
    /// Whether this process would take a lease that is free. One whose copies cannot be written would keep it
    /// from those who can begin. (A contender does until it is told otherwise.)
    Contend(bool),
    /// Everything is fenced, and the application begins.
    Activate,
    /// Somebody waits for the proof of this number, which grows: look at the object.
    Prove(u64),
    /// To those who follow the replica: this process has become the holder, and they come to the end of the
    /// history and stop there.
    Succeed,
    /// One more segment has been put, at this place. Those who wait are told by the next renewal.
    Put(PlaceId),
    /// It is to be given up soon: those who wait may look more often.
    Announce,
}

/// What a contender is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Another holds the lease, or it is not known yet who does.
    Standby,
    /// This process holds it, and its databases are not all fenced.
    Claimant,
    /// This process holds it.
    Primary,
    /// This process held it, and does not any more.
    Deposed,
    /// This process has given it up.
    Released,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 5] = [Role::Standby, Role::Claimant, Role::Primary, Role::Deposed, Role::Released];

    /// The word for people and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Role::Standby => "standby",
            Role::Claimant => "claimant",
            Role::Primary => "primary",
            Role::Deposed => "deposed",
            Role::Released => "released",
        }
    }
}

/// How a lease stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseStatus {
    /// What this process is.
    pub role: Role,
    /// The object as it was last read or written.
    pub body: Option<Body>,
    /// Whether it is known how the object stands, and this process does not try to become the holder, nor is it to
    /// begin the history once the store was tried.
    pub settled: bool,
    /// This process's claim, while it is the holder: to be written down before anything follows from it.
    pub term: Option<Term>,
    /// Whether nobody can have written between the last process of this host that held it and this one: it was
    /// still of that one's claim, or nobody had ever held it.
    pub continues: bool,
    /// Until when this process is the holder, if nothing else succeeds.
    pub until: Option<Mono>,
    /// The highest number of a proof that was asked for before a look, or a write, began that has shown this
    /// process to be the holder.
    pub proven: u64,
    /// Why it is not the holder any more.
    pub lost: Option<String>,
    /// What last went wrong with the store; `None` since something went well.
    pub last_error: Option<String>,
    /// Requests to the store.
    pub requests: u64,
}

impl LeaseStatus {
    /// Whether what was put before the proof of this number was asked for is the holder's: `None` while that
    /// is open, and false once this process is not the holder.
    pub fn proves(&self, number: u64) -> Option<bool> {
        match self.role {
            Role::Deposed | Role::Released => Some(false),
            Role::Claimant | Role::Primary if self.proven >= number => Some(true),
            _ => None,
        }
    }
}
