//! A restore as simple as can be: one level-0 segment after the other.
//!
//! It shares the segment decoder with production and nothing else. Each state is compared with
//! the truth as it is reached, by [`exactness`].

use std::collections::BTreeMap;

use driftless_core::ids::{DbChecksum, Lineage, Txid, Wall};
use driftless_core::ltx::{Decoder, Dictionaries, Item, LtxHeader};

use super::image::Image;
use super::oracles::exactness;
use super::truth::Truth;
use super::violation::Violation;

/// The database as the replica has it.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The state at `txid`.
    pub image: Image,
    /// The last transaction applied.
    pub txid: Option<Txid>,
    /// Which committed state it was.
    pub truth_at: usize,
    /// The last state of ours.
    last_of_ours: Option<Image>,
    /// The post-state of the chain.
    pub post: Option<DbChecksum>,
    /// The history that wrote the last segment.
    pub lineage: Option<Lineage>,
    /// Segments applied.
    pub segments: u64,
    /// The state after each, and its stamp.
    pub states: Vec<(Image, Wall)>,
    /// How many segments have the stamp of their predecessor.
    pub same_stamps: u64,
    /// Which committed state of each rival it was last.
    pub others_at: Vec<usize>,
    /// Whose states each transaction leads to: a bit for each truth.
    pub owners: BTreeMap<Txid, u32>,
    /// Those on the replica.
    pub dictionaries: Dictionaries,
}

impl Restored {
    /// Of a replica to which so many others write, from its beginning.
    pub fn beside(others: usize) -> Restored {
        Restored { others_at: vec![0; others], ..Restored::default() }
    }

    /// The transaction that comes next.
    pub fn next(&self) -> Txid {
        self.txid.map_or(Txid::FIRST, Txid::next)
    }

    /// Applies the segment of the next transaction and compares the state with the truth of
    /// each who may write there.
    ///
    /// # Errors
    /// When the segment is damaged, incomplete, breaks the chain, or leads to a state that was
    /// never committed or that is older than the one before.
    pub fn apply(&mut self, segment: &[u8], truths: &[&Truth], pending_byte: u64) -> Result<(), Violation> {
        let name = self.next();
        let fail = |text: String| Violation::new(exactness::ORACLE, format!("segment {name}: {text}"));
        let (header, pages) = decode(segment, pending_byte, &self.dictionaries).map_err(&fail)?;
        if header.range.min() != name || header.range.max() != name {
            return Err(fail(format!("its header says {}", header.range)));
        }
        if self.post.is_some() && header.chain.pre != self.post {
            return Err(fail(format!(
                "it begins at {:?}, its predecessor ends at {:?}",
                header.chain.pre, self.post
            )));
        }
        let stamp = self.states.last().map_or(Wall(i64::MIN), |(_, stamp)| *stamp);
        if header.stamp < stamp {
            return Err(fail(format!("it is stamped {:?}, its predecessor {stamp:?}", header.stamp)));
        }
        self.lay(&header, &pages, pending_byte).map_err(&fail)?;
        let post = self.image.checksum(pending_byte);
        if header.chain.post != Some(post) {
            return Err(fail(format!("its post-state is {:?}, the pages say {post}", header.chain.post)));
        }
        (self.txid, self.post, self.lineage) = (Some(name), Some(post), header.lineage);
        self.segments += 1;
        self.same_stamps += u64::from(stamp == header.stamp);
        self.states.push((self.image.clone(), header.stamp));
        self.judge(name, truths).map_err(&fail)
    }

    /// Whether one of this truth's states from `from` on is the last of ours, whoever went on from
    /// there. A state may come again: that it was there once says nothing.
    pub fn had(&self, truth: &Truth, from: usize) -> bool {
        self.last_of_ours.as_ref().is_some_and(|last| truth.find(last, from).is_some())
    }

    /// A state of one truth or another, none older than what was there of that one before.
    fn judge(&mut self, name: Txid, truths: &[&Truth]) -> Result<(), String> {
        let mut owners = 0;
        for (n, (truth, place)) in truths.iter().skip(1).zip(&mut self.others_at).enumerate() {
            if let Some(at) = truth.find(&self.image, *place) {
                *place = at;
                owners |= 2 << n;
            }
        }
        match exactness::judge(&self.image, truths[0], self.truth_at) {
            Ok(at) => {
                (self.truth_at, self.last_of_ours) = (at, Some(self.image.clone()));
                owners |= 1;
            }
            Err(error) if owners == 0 => return Err(error),
            Err(_) => {}
        }
        self.owners.insert(name, owners);
        Ok(())
    }

    fn lay(
        &mut self,
        header: &LtxHeader,
        pages: &[(usize, Vec<u8>)],
        pending_byte: u64,
    ) -> Result<(), String> {
        let page_bytes = header.page_size.bytes();
        let commit = header.commit as usize;
        let lock_page = header.page_size.lock_page(pending_byte).get() as usize;
        let before = if self.image.page_bytes() == page_bytes { self.image.pages() } else { 0 };
        if before == 0 {
            self.image = Image::empty(page_bytes);
        }
        let known: std::collections::BTreeSet<usize> = pages.iter().map(|(no, _)| *no).collect();
        let hole = (before + 1..=commit).find(|no| *no != lock_page && !known.contains(no));
        if let Some(hole) = hole {
            return Err(format!("page {hole} is new and not in it ({before} pages before, {commit} after)"));
        }
        self.image.resize(commit);
        for (no, data) in pages {
            if *no > commit || *no == lock_page {
                return Err(format!("page {no} does not belong to a database of {commit} pages"));
            }
            self.image.set_page(*no, data);
        }
        Ok(())
    }
}

/// Header and pages by number.
pub(super) type Decoded = (LtxHeader, Vec<(usize, Vec<u8>)>);

/// The segment's header and pages.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decode(
    segment: &[u8],
    pending_byte: u64,
    dictionaries: &Dictionaries,
) -> Result<Decoded, String> {
    let mut decoder = Decoder::new().with_pending_byte(pending_byte).with_dictionaries(dictionaries);
    let (mut rest, mut header) = (segment, None);
    let mut pages = Vec::new();
    loop {
        match decoder.next_item(&mut rest).map_err(|error| error.to_string())? {
            Item::Header(found) => header = Some(found),
            Item::Page { page, data } => pages.push((page.get() as usize, data.to_vec())),
            Item::End(_) => return Ok((header.ok_or("it has no header")?, pages)),
            Item::NeedMore => return Err("it ends early".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use driftless_core::ids::{PageNo, PageSize, TxidRange};
    use driftless_core::ltx::Encoder;

    use super::*;

    const PENDING: u64 = 0x4000_0000;

    fn image(fills: &[u8]) -> Image {
        let bytes: Vec<u8> = fills.iter().flat_map(|fill| [*fill; 512]).collect();
        Image::of_bytes(512, &bytes, &Image::default())
    }

    fn segment(txid: u64, pages: &[(u32, u8)], commit: u32, pre: Option<&Image>, post: &Image) -> Vec<u8> {
        let range = TxidRange::single(Txid::new(txid).unwrap());
        let mut header = LtxHeader::new(PageSize::new(512).unwrap(), commit, range, Wall(0));
        header.chain.pre = pre.map(|pre| pre.checksum(PENDING));
        header.chain.post = Some(post.checksum(PENDING));
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&header, &mut bytes);
        for (no, fill) in pages {
            encoder.page(PageNo::new(*no).unwrap(), &[*fill; 512], &mut bytes);
        }
        encoder.finish(0, &mut bytes);
        bytes
    }

    /// Restored to `[1, 2]` of a truth `[1, 2]`, `[1, 3]`, `[1, 2, 4]`, with `[9, 9]` a phantom.
    fn at_first() -> (Restored, Truth) {
        let mut truth = Truth::new();
        for fills in [&[1, 2][..], &[1, 3], &[1, 2, 4]] {
            truth.pretend(image(fills), true);
        }
        truth.pretend(image(&[9, 9]), false);
        let mut restored = Restored::default();
        let first = segment(1, &[(1, 1), (2, 2)], 2, None, &image(&[1, 2]));
        restored.apply(&first, &[&truth], PENDING).unwrap();
        (restored, truth)
    }

    fn check(pages: &[(u32, u8)], commit: u32, pre: &[u8], post: &[u8], says: &str) {
        let (mut restored, truth) = at_first();
        let next = segment(2, pages, commit, Some(&image(pre)), &image(post));
        match restored.apply(&next, &[&truth], PENDING) {
            Ok(()) => assert_eq!(says, "ok"),
            Err(violation) => assert!(violation.text.contains(says), "{violation} does not say {says:?}"),
        }
    }

    #[test]
    fn each_lie_of_a_segment_is_found() {
        check(&[(2, 3)], 2, &[1, 2], &[1, 3], "ok");
        check(&[(3, 4)], 3, &[1, 2], &[1, 2, 4], "ok");
        check(&[(2, 3)], 2, &[1, 7], &[1, 3], "its predecessor ends at");
        check(&[(2, 3)], 2, &[1, 2], &[1, 4], "its post-state is");
        check(&[(2, 3)], 3, &[1, 2], &[1, 3, 0], "page 3 is new and not in it");
        check(&[(2, 8)], 2, &[1, 2], &[1, 8], "no committed state");
        check(&[(1, 9), (2, 9)], 2, &[1, 2], &[9, 9], "a phantom commit");
    }

    /// The first state comes again: that it was there once does not show that it is there now.
    #[test]
    fn what_was_there_before_the_last_state_does_not_count() {
        let (mut restored, mut truth) = at_first();
        let next = segment(2, &[(2, 3)], 2, Some(&image(&[1, 2])), &image(&[1, 3]));
        restored.apply(&next, &[&truth], PENDING).unwrap();
        truth.pretend(image(&[1, 2]), true);
        assert!(restored.had(&truth, 1), "state 1 is the last");
        assert!(!restored.had(&truth, 3), "state 3 is not there, although state 0 was the same");
    }

    #[test]
    fn going_back_is_found() {
        let (mut restored, truth) = at_first();
        let next = segment(2, &[(2, 3)], 2, Some(&image(&[1, 2])), &image(&[1, 3]));
        restored.apply(&next, &[&truth], PENDING).unwrap();
        let back = segment(3, &[(2, 2)], 2, Some(&image(&[1, 3])), &image(&[1, 2]));
        let violation = restored.apply(&back, &[&truth], PENDING).unwrap_err();
        assert!(violation.text.contains("older than state 1"), "{violation}");
    }
}
