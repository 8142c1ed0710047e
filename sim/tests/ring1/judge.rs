//! What is true, and whether the replica says so.
//!
//! Segments are taken from the bucket itself, beside every transport, and applied one after the
//! other by ring 0's restore. With two writers each segment must continue the history of one of
//! them, and once another writer's has come the first may not be heard of again.

use std::collections::BTreeMap;

use driftless_adapters::keys::{ReplicaLayout, parse_segment_key};
use driftless_core::ids::{Level, Lineage, PENDING_BYTE, Txid};
use driftless_sim::ring0::image::Image;
use driftless_sim::ring0::restore::Restored;
use driftless_sim::ring0::truth::Truth;
use driftless_sim::ring0::violation::Violation;

use super::bucket::Bucket;

/// Where the replica is in the bucket.
pub const ROOT: &str = "replica";
/// How keys are formed there.
pub const LAYOUT: ReplicaLayout = ReplicaLayout::Object;

/// The committed states of each host, and the replica's.
#[derive(Debug)]
pub struct Judge {
    pub truths: Vec<Truth>,
    restored: Restored,
    /// How far each host's history was followed.
    at: Vec<usize>,
    /// Whose segments came, each writer once.
    writers: Vec<(Lineage, usize)>,
    /// The state at each transaction, from the first.
    states: Vec<u64>,
    /// The last transaction that was reported as replicated, by anyone.
    pub reported: Option<Txid>,
    /// Reports so far.
    pub reports: u64,
}

impl Judge {
    /// Nothing was committed or replicated.
    pub fn new(hosts: usize) -> Judge {
        Judge {
            truths: (0..hosts).map(|_| Truth::new()).collect(),
            restored: Restored::default(),
            at: vec![0; hosts],
            writers: Vec::new(),
            states: Vec::new(),
            reported: None,
            reports: 0,
        }
    }

    /// Segments that were judged.
    pub fn segments(&self) -> u64 {
        self.restored.segments
    }

    /// Applies what is new in the bucket.
    ///
    /// # Errors
    /// When a segment does not lead to a committed state of whoever may write.
    pub fn follow(&mut self, bucket: &Bucket) -> Result<(), Violation> {
        if let Some(key) = bucket.replaced.first() {
            return Err(Violation::new("overwrite", format!("{key} became another object")));
        }
        let segments = segments(bucket);
        while let Some(body) = segments.get(&self.restored.next()) {
            self.apply(body)?;
        }
        Ok(())
    }

    fn apply(&mut self, body: &[u8]) -> Result<(), Violation> {
        let mut refused = None;
        for host in 0..self.truths.len() {
            let mut restored = copy(&self.restored);
            restored.truth_at = self.at[host];
            match restored.apply(body, &self.truths[host], PENDING_BYTE) {
                Ok(()) => {
                    self.at[host] = restored.truth_at;
                    self.states.push(restored.image.digest());
                    self.restored = restored;
                    return self.note_writer(host);
                }
                Err(violation) => refused = Some(violation),
            }
        }
        Err(refused.expect("there is a host"))
    }

    fn note_writer(&mut self, host: usize) -> Result<(), Violation> {
        let txid = self.restored.txid.expect("a segment was applied");
        let Some(lineage) = self.restored.lineage else {
            return Err(Violation::new("lineage", format!("segment {txid} says not whose it is")));
        };
        if self.writers.last().is_some_and(|(last, _)| *last == lineage) {
            return Ok(());
        }
        if self.writers.iter().any(|(known, _)| *known == lineage) {
            let text = format!("segment {txid} goes on with a history that another has taken over");
            return Err(Violation::new("fork", text));
        }
        self.writers.push((lineage, host));
        Ok(())
    }

    /// A process says that everything up to a transaction is on the replica.
    ///
    /// # Errors
    /// When it is not.
    pub fn report(&mut self, host: usize, txid: Txid, bucket: &Bucket) -> Result<(), Violation> {
        self.follow(bucket)?;
        self.reports += 1;
        self.reported = self.reported.max(Some(txid));
        if self.restored.txid < Some(txid) {
            let text = format!("host {host} says {txid}, the replica ends at {:?}", self.restored.txid);
            return Err(Violation::new("lost report", text));
        }
        Ok(())
    }

    /// A process has ended and says that all is done: so it is, for what was committed before.
    ///
    /// # Errors
    /// When the replica lacks some of it.
    pub fn done(&mut self, host: usize, owed: usize, bucket: &Bucket) -> Result<(), Violation> {
        self.follow(bucket)?;
        if self.at[host] + 1 < owed {
            let text = format!("done, with state {} of {owed} on the replica", self.at[host] + 1);
            return Err(Violation::new("unreplicated", text));
        }
        Ok(())
    }

    /// Somebody has restored a transaction, having known of `known` before.
    ///
    /// # Errors
    /// When it is not the state of that transaction, or older than what was reported.
    pub fn restored(
        &mut self,
        txid: Option<Txid>,
        known: Option<Txid>,
        image: &Image,
        bucket: &Bucket,
    ) -> Result<(), Violation> {
        self.follow(bucket)?;
        let fail = |text: String| Err(Violation::new("restore", text));
        if txid < known {
            return fail(format!("{txid:?} was restored, and {known:?} had been reported"));
        }
        let at = txid.map_or(0, |txid| txid.get() as usize);
        match self.states.get(at.wrapping_sub(1)) {
            Some(state) if *state == image.digest() => Ok(()),
            _ => fail(format!("{txid:?} restored to {image:?}, which it never was")),
        }
    }

    /// Whether the replica's end is what a host has committed last.
    pub fn is_complete(&self, host: usize) -> bool {
        self.truths[host].last() == Some(&self.restored.image)
    }

    /// The replica's end against a host's, for people.
    pub fn difference(&self, host: usize) -> String {
        self.truths[host].last().map_or(String::new(), |last| self.restored.image.differences(last))
    }

    /// Level 0 has every transaction from the first to the last.
    ///
    /// # Errors
    /// Where one is missing.
    pub fn check_contiguous(&self, bucket: &Bucket) -> Result<(), Violation> {
        let (count, last) = (segments(bucket).len() as u64, self.restored.txid.map_or(0, Txid::get));
        if count == last {
            return Ok(());
        }
        Err(Violation::new("contiguity", format!("{count} segments, and the {last}th is the last in order")))
    }
}

fn copy(restored: &Restored) -> Restored {
    Restored {
        image: restored.image.clone(),
        txid: restored.txid,
        truth_at: restored.truth_at,
        post: restored.post,
        lineage: restored.lineage,
        segments: restored.segments,
    }
}

fn segments(bucket: &Bucket) -> BTreeMap<Txid, &[u8]> {
    let prefix = format!("{ROOT}/");
    bucket
        .objects()
        .filter_map(|(key, body)| {
            let (level, range) = parse_segment_key(LAYOUT, key.strip_prefix(&prefix)?)?;
            (level == Level::CAPTURES).then(|| (range.min(), body))
        })
        .collect()
}
