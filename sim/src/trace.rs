//! What happened in a run, record by record, and a hash of all of it.
//!
//! The hash covers every record to the last character, so two runs of one seed that differ anywhere differ in
//! it. It is kept unless nothing is ([`Keep::Nothing`]), which does the run no harm and takes a fifth less time. The records themselves are kept when somebody asks for
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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug, Default)]
pub enum Keep {
    /// Nothing is, and no text is written: for a run of which only the end matters.
    #[default]
    Nothing,
    /// Only the hash is kept.
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
    /// The text of the record that is being written.
    text: String,
}

impl Trace {
    /// An empty one.
    pub fn new(keep: Keep) -> Trace {
        let (records, text) = (Vec::new(), String::new());
        Trace(Arc::new(Mutex::new(Inner { keep, hash: HASH_START, count: 0, last_ns: 0, records, text })))
    }

    /// Adds a record.
    pub fn note(&self, at_ns: u64, node: &'static str, kind: Kind, text: fmt::Arguments<'_>) {
        let inner = &mut *lock(&self.0);
        inner.count += 1;
        inner.last_ns = at_ns;
        if inner.keep == Keep::Nothing {
            return;
        }
        inner.text.clear();
        inner.text.write_fmt(text).expect("a string takes it");
        let mut hash = fold(inner.hash, at_ns);
        hash = hash_bytes(hash, node.as_bytes());
        hash = fold(hash, kind as u64);
        hash = hash_bytes(hash, inner.text.as_bytes());
        inner.hash = hash;
        if inner.keep > Keep::Hash {
            let mut text = inner.text.clone();
            if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
                text.truncate(end);
                text.push('…');
            }
            let record = Record { at_ns, node: node.into(), kind, text, hash };
            match inner.keep {
                Keep::Print => eprintln!("{record}"),
                _ => inner.records.push(record),
            }
        }
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

/// Where the hash of a trace begins.
const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;

/// A word goes into a hash: the product of both in 128 bits, folded. The same on every machine and in every
/// build, which the standard library's hash does not promise.
fn fold(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word ^ 0x51_7cc1_b727_220a) * 0x9e37_79b9_7f4a_7c15;
    ((product as u64) ^ ((product >> 64) as u64)).wrapping_add(word.rotate_left(32))
}

/// Bytes go into a hash, eight at a time, and how many there are.
fn hash_bytes(hash: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(hash, |hash, word| fold(hash, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    fold(fold(hash, u64::from_le_bytes(last)), bytes.len() as u64)
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
