//! What is true on each host, and whether the replica and whoever takes over agree.

use std::collections::{BTreeMap, BTreeSet};

use driftless_core::ids::{PENDING_BYTE, Txid};
use driftless_core::ltx::LtxHeader;
use driftless_sim::ring0::image::Image;
use driftless_sim::ring0::restore::Restored;
use driftless_sim::ring0::truth::Truth;
use driftless_sim::ring0::violation::Violation;

use crate::bucket::Bucket;
use crate::judge::segments;

/// The committed states of each host, and the replica's.
pub struct Judge {
    pub truths: Vec<Truth>,
    pub restored: Restored,
    /// The states of the replica, but for what SQLite puts into page 1 of a copy.
    known: BTreeSet<u64>,
    asides: Vec<Vec<Image>>,
    /// How the replica ended when each host's replicator began, and whether that one fences.
    begun: BTreeMap<usize, (Option<Image>, bool)>,
    pub reports: u64,
}

impl Judge {
    /// Nothing was committed or replicated.
    pub fn new(hosts: usize) -> Judge {
        Judge {
            truths: (0..hosts).map(|_| Truth::new()).collect(),
            restored: Restored::beside(hosts - 1),
            known: BTreeSet::new(),
            asides: vec![Vec::new(); hosts],
            begun: BTreeMap::new(),
            reports: 0,
        }
    }

    /// Applies what is new in the bucket.
    ///
    /// # Errors
    /// When a segment does not begin where the one before ends, leads to a state that nobody committed, or to
    /// one of a host that is older than what was there of it.
    pub fn follow(&mut self, bucket: &Bucket) -> Result<(), Violation> {
        if let Some(key) = bucket.replaced.first() {
            return Err(Violation::new("overwrite", format!("{key} became another object")));
        }
        // A put of the same epoch may land when its name has been gone for long, and says what was true.
        let epoch =
            |body: &[u8]| Some(LtxHeader::decode(body.first_chunk()?).ok()?.chain.incarnation.epoch());
        if let Some((key, ..)) = bucket.revived.iter().find(|(_, was, is)| epoch(was) != epoch(is)) {
            return Err(Violation::new("fence", format!("{key} was deleted, and is of another epoch now")));
        }
        let segments = segments(bucket);
        while let Some(body) = segments.get(&self.restored.next()) {
            let truths: Vec<&Truth> = self.truths.iter().collect();
            self.restored.apply(body, &truths, PENDING_BYTE)?;
            self.known.insert(self.restored.image.mark_as_copied());
        }
        Ok(())
    }

    /// A host says that everything up to a transaction is on the replica: it is, and is its own.
    pub fn reported(&mut self, host: usize, txid: Txid) -> Result<(), Violation> {
        self.reports += 1;
        match self.restored.owners.get(&txid) {
            Some(owners) if owners & 1 << host != 0 => Ok(()),
            _ => {
                let text = format!("{txid} is no state of host {host}, which says that it is replicated");
                Err(Violation::new("acknowledged", text))
            }
        }
    }

    /// What is not on the replica is not written over before it was kept.
    pub fn writes_over(&self, host: usize, image: &Image) -> Result<(), Violation> {
        let known = image.pages() == 0 || self.known.contains(&image.mark_as_copied());
        if known || self.asides[host].contains(image) {
            return Ok(());
        }
        let differs = self.restored.image.differences(image);
        let text = format!(
            "host {host} writes over {image:?}, which is neither on the replica nor kept; from its end differ: {differs}"
        );
        Err(Violation::new("tail", text))
    }

    /// A database was kept aside.
    pub fn kept(&mut self, host: usize, image: Image) {
        self.asides[host].push(image);
    }

    /// How many were.
    pub fn asides(&self) -> usize {
        self.asides.iter().map(Vec::len).sum()
    }

    /// A replicator begins from this state.
    pub fn begins(&mut self, host: usize, image: Image, fences: bool) {
        let end = self.restored.txid.map(|_| self.restored.image.clone());
        let fences = fences || self.begun.get(&host).is_some_and(|(_, fences)| *fences);
        self.begun.insert(host, (end, fences));
        if image.pages() > 0 {
            self.truths[host].note(image);
        }
    }

    /// Everything is fenced: behind another writer, what stands here is what the replica ends with.
    pub fn activates(&self, host: usize, image: &Image) -> Result<(), Violation> {
        let wrong = |text: String| Err(Violation::new("succession", text));
        let end = &self.restored.image;
        match self.begun.get(&host) {
            Some((_, true)) if image != end => {
                wrong(format!("host {host} goes on from {image:?}, and the replica ends with {end:?}"))
            }
            Some((Some(end), false)) if self.truths[host].find(end, 0).is_none() => {
                wrong(format!("host {host} goes on behind {end:?}, which is none of its states"))
            }
            Some((Some(_), false)) if image.pages() == 0 => wrong(format!("host {host} has no database")),
            _ => Ok(()),
        }
    }

    /// Its process is another.
    pub fn forget_process(&mut self, host: usize) {
        self.begun.remove(&host);
    }

    /// A host has become a copy of another's machine.
    pub fn copied(&mut self, from: usize, to: usize) {
        let (truth, asides) = (self.truths[from].copy(), self.asides[from].clone());
        self.truths[to].go_on_from(&truth);
        self.asides[to] = asides;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(fill: u8) -> Image {
        Image::of_bytes(512, &[fill; 512], &Image::default())
    }

    fn oracle(found: Result<(), Violation>) -> &'static str {
        found.map_or_else(|violation| violation.oracle, |()| "content")
    }

    #[test]
    fn what_nobody_kept_is_not_written_over() {
        let mut judge = Judge::new(2);
        assert_eq!(oracle(judge.writes_over(0, &image(1))), "tail");
        judge.kept(1, image(1));
        assert_eq!(oracle(judge.writes_over(0, &image(1))), "tail");
        assert_eq!(oracle(judge.writes_over(1, &image(1))), "content");
        judge.known.insert(image(2).mark_as_copied());
        let mut counted = [2; 512];
        counted[24..28].fill(9);
        let counted = Image::of_bytes(512, &counted, &Image::default());
        assert_eq!(oracle(judge.writes_over(0, &counted)), "content");
        assert_eq!(oracle(judge.writes_over(0, &Image::default())), "content");
    }

    #[test]
    fn a_report_of_another_ones_state_is_found() {
        let mut judge = Judge::new(2);
        judge.restored.owners.insert(Txid::FIRST, 1 << 1);
        assert_eq!(oracle(judge.reported(1, Txid::FIRST)), "content");
        assert_eq!(oracle(judge.reported(0, Txid::FIRST)), "acknowledged");
        assert_eq!(oracle(judge.reported(1, Txid::FIRST.next())), "acknowledged");
    }

    #[test]
    fn whoever_goes_on_has_what_the_replica_ends_with() {
        let mut judge = Judge::new(2);
        (judge.restored.image, judge.restored.txid) = (image(3), Some(Txid::FIRST));
        judge.begins(1, image(3), true);
        assert_eq!(oracle(judge.activates(1, &image(3))), "content");
        assert_eq!(oracle(judge.activates(1, &image(2))), "succession");
        // On its own claim it may be ahead, and never beside.
        judge.begins(0, image(4), false);
        assert_eq!(oracle(judge.activates(0, &image(4))), "succession");
        judge.truths[0].note(image(3));
        assert_eq!(oracle(judge.activates(0, &image(4))), "content");
        assert_eq!(oracle(judge.activates(0, &Image::default())), "succession");
    }
}
