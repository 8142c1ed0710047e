//! What is true, and whether the replica says so.
//!
//! Segments are taken from the bucket itself, beside every transport, and applied one after the
//! other by ring 0's restore. With two writers each segment must continue the history of one of
//! them, and once another writer's has come the first may not be heard of again.

use std::collections::BTreeMap;

use driftless_adapters::keys::{ReplicaLayout, parse_segment_key};
use driftless_core::ids::{Incarnation, Level, Lineage, PENDING_BYTE, Txid};
use driftless_core::ltx::LtxHeader;
use driftless_sim::ring0::image::Image;
use driftless_sim::ring0::restore::Restored;
use driftless_sim::ring0::truth::Truth;
use driftless_sim::ring0::violation::Violation;

use super::bucket::Bucket;

/// Where the replica is in the bucket.
pub const ROOT: &str = "replica";
/// How keys are formed there.
pub const LAYOUT: ReplicaLayout = ReplicaLayout::Object;

/// What is known of a transaction on the replica.
#[derive(Debug)]
struct State {
    digest: u64,
    lineage: Lineage,
    incarnation: Incarnation,
    /// Which hosts' databases were ever in this state.
    known: Vec<bool>,
}

/// The committed states of each host, and the replica's.
#[derive(Debug)]
pub struct Judge {
    pub truths: Vec<Truth>,
    restored: Restored,
    /// How far each host's history was followed.
    at: Vec<usize>,
    /// Whose segments came, each writer once.
    writers: Vec<(Lineage, usize)>,
    /// Each transaction on the replica, from the first.
    states: Vec<State>,
    /// The replica's end as each host's process found it when it started, until it writes; not
    /// where the end may be its own.
    found: Vec<Option<Txid>>,
    /// The highest incarnation that each host's processes can have had.
    incarnations: Vec<Incarnation>,
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
            found: vec![None; hosts],
            incarnations: vec![Incarnation(0); hosts],
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
            let mut restored = self.restored.clone();
            restored.truth_at = self.at[host];
            match restored.apply(body, &[&self.truths[host]], PENDING_BYTE) {
                Ok(()) => {
                    self.at[host] = restored.truth_at;
                    self.restored = restored;
                    let incarnation = LtxHeader::decode(body.first_chunk().expect("it was applied"))
                        .expect("it was applied")
                        .chain
                        .incarnation;
                    return self.note_writer(host, incarnation);
                }
                Err(violation) => refused = Some(violation),
            }
        }
        Err(refused.expect("there is a host"))
    }

    fn note_writer(&mut self, host: usize, incarnation: Incarnation) -> Result<(), Violation> {
        let txid = self.restored.txid.expect("a segment was applied");
        let Some(lineage) = self.restored.lineage else {
            return Err(Violation::new("lineage", format!("segment {txid} says not whose it is")));
        };
        let image = &self.restored.image;
        let known = self.truths.iter().map(|truth| truth.find(image, 0).is_some()).collect();
        self.states.push(State { digest: image.digest(), lineage, incarnation, known });
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

    /// A process has looked where the replica ends.
    ///
    /// What was written under an incarnation that a run before it may have had counts as its own:
    /// the hole of clones in `docs/decisions/0001-identity.md`.
    pub fn found(&mut self, host: usize, head: Option<Txid>) {
        let highest = self.incarnations[host];
        let theirs = head.and_then(|head| self.state(head)).map(|state| state.incarnation);
        self.found[host] = head.filter(|_| theirs > Some(highest));
        self.incarnations[host] = Incarnation(highest.max(theirs.unwrap_or(highest)).0 + 1);
    }

    /// A process has written its first segment since it started: with a history that goes on, its
    /// database was in the state in which it found the replica.
    fn check_claim(&mut self, host: usize, txid: Txid) -> Result<(), Violation> {
        let Some(found) = self.found[host].take() else { return Ok(()) };
        let (Some(head), Some(written)) = (self.state(found), self.state(txid)) else { return Ok(()) };
        if head.lineage != written.lineage || head.known[host] {
            return Ok(());
        }
        let text = format!("host {host} wrote {txid} where it had found {found}, a state it was never in");
        Err(Violation::new("claim", text))
    }

    fn state(&self, txid: Txid) -> Option<&State> {
        self.states.get(txid.get() as usize - 1)
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

    /// A process says that it has written a segment.
    ///
    /// # Errors
    /// When that was not for it to write.
    pub fn written(&mut self, host: usize, txid: Txid) -> Result<(), Violation> {
        self.check_claim(host, txid)
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
        match txid.and_then(|txid| self.state(txid)) {
            Some(state) if state.digest == image.digest() => Ok(()),
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

/// What level 0 holds.
pub fn segments(bucket: &Bucket) -> BTreeMap<Txid, &[u8]> {
    let prefix = format!("{ROOT}/");
    bucket
        .objects()
        .filter_map(|(key, body)| {
            let (level, range) = parse_segment_key(LAYOUT, key.strip_prefix(&prefix)?)?;
            (level == Level::CAPTURES).then(|| (range.min(), body))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use driftless_adapters::keys::segment_key;
    use driftless_core::ids::{PageNo, PageSize, TxidRange, Wall};
    use driftless_core::ltx::Encoder;

    use super::*;
    use crate::bucket::Request;

    fn image(fill: u8) -> Image {
        Image::of_bytes(512, &[fill; 512], &Image::default())
    }

    /// A replica of two hosts that have both been in state 1, host 0 then in 2 and host 1 in 3.
    fn world() -> (Judge, Bucket) {
        let mut judge = Judge::new(2);
        for (host, fill) in [(0, 1), (1, 1), (0, 2), (1, 3)] {
            judge.truths[host].note(image(fill));
        }
        (judge, Bucket::new(10))
    }

    fn put(bucket: &mut Bucket, txid: u64, writer: (u64, u32), from: Option<u8>, to: u8) -> Txid {
        let txid = Txid::new(txid).unwrap();
        let range = TxidRange::single(txid);
        let mut header = LtxHeader::new(PageSize::new(512).unwrap(), 1, range, Wall(0));
        header.lineage = Lineage::new(writer.0);
        header.chain.incarnation = Incarnation(writer.1);
        header.chain.pre = from.map(|fill| image(fill).checksum(PENDING_BYTE));
        header.chain.post = Some(image(to).checksum(PENDING_BYTE));
        let mut body = Vec::new();
        let mut encoder = Encoder::new(&header, &mut body);
        encoder.page(PageNo::new(1).unwrap(), &[to; 512], &mut body);
        encoder.finish(0, &mut body);
        let key = format!("{ROOT}/{}", segment_key(LAYOUT, Level::CAPTURES, range).as_str());
        let request = Request { method: "PUT".into(), key, body, ..Request::default() };
        assert_eq!(bucket.answer(&request, "").status, 200);
        txid
    }

    fn oracle(found: Result<(), Violation>) -> &'static str {
        found.map_or_else(|violation| violation.oracle, |()| "content")
    }

    #[test]
    fn a_report_without_a_segment_is_found() {
        let (mut judge, mut bucket) = world();
        let first = put(&mut bucket, 1, (7, 1), None, 1);
        assert_eq!(oracle(judge.report(0, first, &bucket)), "content");
        assert_eq!(oracle(judge.report(0, first.next(), &bucket)), "lost report");
        assert_eq!(oracle(judge.done(0, 2, &bucket)), "unreplicated");
        assert_eq!(oracle(judge.restored(Some(first), Some(first), &image(1), &bucket)), "content");
        assert_eq!(oracle(judge.restored(Some(first), Some(first), &image(2), &bucket)), "restore");
        assert_eq!(oracle(judge.restored(None, Some(first), &image(1), &bucket)), "restore");
    }

    #[test]
    fn states_that_never_were_and_gaps_are_found() {
        let (mut judge, mut bucket) = world();
        put(&mut bucket, 1, (7, 1), None, 9);
        assert_eq!(oracle(judge.follow(&bucket)), "restore exactness");
        let (mut judge, mut bucket) = world();
        put(&mut bucket, 1, (7, 1), None, 1);
        put(&mut bucket, 3, (7, 1), Some(1), 2);
        assert_eq!(oracle(judge.follow(&bucket)), "content");
        assert_eq!(oracle(judge.check_contiguous(&bucket)), "contiguity");
        put(&mut bucket, 3, (7, 1), Some(1), 3);
        assert_eq!(oracle(judge.follow(&bucket)), "overwrite");
    }

    #[test]
    fn a_history_that_comes_back_is_a_fork() {
        let (mut judge, mut bucket) = world();
        put(&mut bucket, 1, (7, 1), None, 1);
        put(&mut bucket, 2, (8, 1), Some(1), 3);
        assert_eq!(oracle(judge.follow(&bucket)), "content");
        put(&mut bucket, 3, (7, 1), Some(3), 2);
        assert_eq!(oracle(judge.follow(&bucket)), "fork");
    }

    #[test]
    fn a_claim_without_proof_is_found() {
        let check = |incarnation: u32, says: &str| {
            let (mut judge, mut bucket) = world();
            let first = put(&mut bucket, 1, (7, 1), None, 1);
            judge.found(1, None);
            judge.follow(&bucket).unwrap();
            judge.found(0, Some(first));
            let second = put(&mut bucket, 2, (7, 2), Some(1), 2);
            assert_eq!(oracle(judge.report(0, second, &bucket).and(judge.written(0, second))), "content");
            // The other starts again: what it finds is not its own, unless it may have written it.
            judge.incarnations[1] = Incarnation(incarnation);
            judge.found(1, Some(second));
            let third = put(&mut bucket, 3, (7, 3), Some(2), 3);
            assert_eq!(oracle(judge.report(1, third, &bucket).and(judge.written(1, third))), says);
        };
        check(1, "claim");
        check(2, "content");
    }
}
