//! What happened in a run, record by record, and a hash of all of it.
//!
//! The hash is always kept: it covers every record to the last character, so two runs of one seed
//! that differ anywhere differ in it. The records themselves are kept when somebody asks for
//! them, and each carries the hash up to itself: the first one whose hashes differ is where two
//! runs part ([`diverge`]). A trace is a handle: the hooks of SQLite's filesystem and the loop of
//! the world write to the same one.

mod file;

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

pub use file::{TRACE_VERSION, TraceFile, TraceHeader};

use crate::disk::lock;

/// The parties of a run, each a lane of the timeline.
pub mod node {
    /// The application with its database.
    pub const APP: &str = "app";
    /// The replicator's process.
    pub const DRIFTLESS: &str = "driftless";
    /// The object store.
    pub const STORE: &str = "store";
    /// The machine: disk, clocks, power.
    pub const MACHINE: &str = "machine";
    /// Who watches.
    pub const ORACLE: &str = "oracle";
}

/// What kind of thing happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A process starts.
    Start,
    /// A process ends in order.
    Stop,
    /// A process dies.
    Crash,
    /// A machine is told something.
    Event,
    /// A machine asks for something.
    Action,
    /// The application does something that commits nothing.
    Operation,
    /// The application commits.
    Commit,
    /// Frames go from the WAL to the database.
    Checkpoint,
    /// The store is asked for something.
    Request,
    /// A segment comes to exist.
    Put,
    /// A segment is restored and equals a committed state.
    Restore,
    /// A fault strikes.
    Fault,
    /// The run enters another phase.
    Phase,
    /// Something else worth telling.
    Note,
    /// A promise is broken.
    Violation,
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Nanoseconds from the start of the run, on the clock that nobody sets.
    pub at_ns: u64,
    /// To whom it happened, one of [`node`].
    pub node: Cow<'static, str>,
    /// What kind of thing.
    pub kind: Kind,
    /// The details, cut to [`TEXT_MAX`] characters.
    pub text: String,
    /// The trace hash up to this record, with all of its text.
    pub hash: u64,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, mark) = (self.at_ns, self.kind.mark());
        let node = &self.node;
        write!(f, "{:>7}.{:06} {node:<9} {mark} {}", at / 1_000_000_000, at / 1_000 % 1_000_000, self.text)
    }
}

impl Kind {
    /// Two characters for a line of text.
    const fn mark(self) -> &'static str {
        match self {
            Kind::Start => "--",
            Kind::Stop => "==",
            Kind::Crash | Kind::Fault => "!!",
            Kind::Event => "<-",
            Kind::Action => "->",
            Kind::Commit => "C ",
            Kind::Checkpoint => "K ",
            Kind::Put => "P ",
            Kind::Restore => "R ",
            Kind::Violation => "XX",
            Kind::Operation | Kind::Request | Kind::Phase | Kind::Note => "  ",
        }
    }
}

/// Characters of a record's text that are kept.
pub const TEXT_MAX: usize = 300;

/// What becomes of the records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Keep {
    /// Only the hash is kept.
    #[default]
    Hash,
    /// They are kept.
    Records,
    /// Each is printed on standard error.
    Print,
}

/// A trace that is being written.
#[derive(Clone, Debug)]
pub struct Trace(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    keep: Keep,
    hash: u64,
    count: u64,
    last_ns: u64,
    records: Vec<Record>,
}

impl Trace {
    /// An empty one.
    pub fn new(keep: Keep) -> Trace {
        let inner = Inner { keep, hash: Hasher::default().0, count: 0, last_ns: 0, records: Vec::new() };
        Trace(Arc::new(Mutex::new(inner)))
    }

    /// Adds a record.
    pub fn note(&self, at_ns: u64, node: &'static str, kind: Kind, text: fmt::Arguments<'_>) {
        let mut inner = lock(&self.0);
        let mut hasher = Hasher(inner.hash);
        hasher.bytes(&at_ns.to_le_bytes());
        hasher.bytes(node.as_bytes());
        hasher.bytes(&[kind as u8]);
        match inner.keep {
            Keep::Hash => hasher.write_fmt(text).expect("hashing does not fail"),
            Keep::Records | Keep::Print => {
                let mut text = text.to_string();
                hasher.bytes(text.as_bytes());
                if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
                    text.truncate(end);
                    text.push('…');
                }
                let record = Record { at_ns, node: node.into(), kind, text, hash: hasher.0 };
                if inner.keep == Keep::Print {
                    eprintln!("{record}");
                } else {
                    inner.records.push(record);
                }
            }
        }
        inner.hash = hasher.0;
        inner.count += 1;
        inner.last_ns = at_ns;
    }

    /// Adds a record at the time of the last one, for somebody who has no clock.
    pub fn note_last(&self, node: &'static str, kind: Kind, text: fmt::Arguments<'_>) {
        let at_ns = lock(&self.0).last_ns;
        self.note(at_ns, node, kind, text);
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        lock(&self.0).hash
    }

    /// Records so far, kept or not.
    pub fn count(&self) -> u64 {
        lock(&self.0).count
    }

    /// Takes the records that were kept.
    pub fn take(&self) -> Vec<Record> {
        std::mem::take(&mut lock(&self.0).records)
    }
}

/// Where two traces part: the index of the first record that one has and the other has not.
pub fn diverge(one: &[Record], other: &[Record]) -> Option<usize> {
    let same = one.iter().zip(other).take_while(|(a, b)| a.hash == b.hash).count();
    (same < one.len().max(other.len())).then_some(same)
}

/// FNV-1a: the same on every machine and in every build, which the standard library's does not
/// promise.
struct Hasher(u64);

impl Default for Hasher {
    fn default() -> Hasher {
        Hasher(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl fmt::Write for Hasher {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(keep: Keep, texts: &[&str]) -> Trace {
        let trace = Trace::new(keep);
        for (at, text) in (0..).zip(texts) {
            trace.note(at, node::APP, Kind::Note, format_args!("{text}"));
        }
        trace
    }

    #[test]
    fn the_hash_does_not_depend_on_what_is_kept() {
        let long = "ü".repeat(2 * TEXT_MAX);
        let texts = ["a", long.as_str(), "b"];
        assert_eq!(trace(Keep::Hash, &texts).hash(), trace(Keep::Records, &texts).hash());
        assert_eq!(trace(Keep::Hash, &texts).count(), 3);
    }

    #[test]
    fn the_first_record_that_differs_is_found_even_past_what_is_kept() {
        let long = "x".repeat(TEXT_MAX);
        let (one, other) = (format!("{long}1"), format!("{long}2"));
        let first = trace(Keep::Records, &["a", &one, "b"]).take();
        let second = trace(Keep::Records, &["a", &other, "b"]).take();
        assert_eq!(diverge(&first, &second), Some(1));
        assert_eq!(diverge(&first, &first), None);
        assert_eq!(diverge(&first, &first[..2]), Some(2), "one ends before the other");
    }
}
