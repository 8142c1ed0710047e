//! The production restore and verification, over what a run has left on the replica.
//!
//! While a run goes on, [`restore`](super::restore) applies one segment after the other as simply as
//! can be. At its end the machines that people use read the same replica: the [`Restorer`] must bring
//! back the newest state and some of those before it, byte for byte, and the [`Verifier`] must find
//! nothing wrong. Both are run in a bare loop: one answer after the other, in an order drawn by dice.

use std::collections::{BTreeSet, VecDeque};

use driftless_core::ids::{Level, Now, Txid, Wall};
use driftless_core::ltx::LtxHeader;
use driftless_core::machine::{
    Action, Actions, Chunk, Event, Exit, Listed, Machine, OpId, OpIds, Outcome, OutputRequest, ReplicaId,
    Request,
};
use driftless_core::restore::{Inventory, RestoreConfig, RestoreTarget, Restorer, Target, plan};
use driftless_core::verify::{Verifier, VerifyConfig};

use super::dice::Dice;
use super::image::Image;
use super::store::{Fate, SimStore};
use super::violation::Violation;
use super::world::{World, capture};

const ORACLE: &str = "production restore";
/// States before the newest that are restored as well, and as many at the ends of higher levels' files.
const SAMPLES: u64 = 2;
/// Events after which a machine counts as one that does not end.
const EVENTS_MAX: usize = 1_000_000;

/// What a restore builds, and what stands in the target's place.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    published: bool,
    target: Vec<u8>,
}

impl Output {
    /// A place where the file of the restore before stands, now and then with a bit turned over; or where
    /// one that was killed has left a part of it.
    fn over(mut before: Vec<u8>, sample: u64, dice: Dice) -> Output {
        let draw = |what: &str| dice.draw("restore", what, sample) as usize;
        if before.is_empty() {
            return Output::default();
        }
        if draw("spoilt").is_multiple_of(4) {
            let at = draw("byte") % before.len();
            before[at] ^= 1;
        }
        if draw("killed").is_multiple_of(3) {
            let from = draw("cut") % before.len();
            before[from..].fill(0);
            return Output { bytes: before, ..Output::default() };
        }
        Output { target: before, ..Output::default() }
    }

    fn perform(&mut self, request: OutputRequest) -> Chunk {
        match request {
            OutputRequest::Create { keep: true } => {}
            OutputRequest::Create { keep: false } | OutputRequest::Discard => self.bytes.clear(),
            OutputRequest::Write(extents) => {
                for (offset, bytes) in extents {
                    let end = offset as usize + bytes.len();
                    self.bytes.resize(self.bytes.len().max(end), 0);
                    self.bytes[offset as usize..end].copy_from_slice(&bytes);
                }
            }
            OutputRequest::SetLen(len) => self.bytes.resize(len as usize, 0),
            OutputRequest::Sync => {}
            OutputRequest::Publish { .. } => self.published = true,
            OutputRequest::ReadTarget { offset, len } => return part(&self.target, offset, len),
            OutputRequest::ReadBuilt { offset, len } => return part(&self.bytes, offset, len),
        }
        Chunk::default()
    }
}

fn part(bytes: &[u8], offset: u64, len: u32) -> Chunk {
    let start = bytes.len().min(offset as usize);
    Chunk::from(bytes[start..bytes.len().min(start + len as usize)].to_vec())
}

/// Restores the newest state and samples of those before it, and verifies the whole replica.
/// `states` are all of them and their stamps, the first transaction's first.
///
/// # Errors
/// When a restore does not end, ends in another state than was there, or says that the replica is
/// not in order.
pub fn check(
    store: &mut SimStore,
    states: &[(Image, Wall)],
    pending_byte: u64,
    dice: Dice,
) -> Result<(), Violation> {
    let newest = states.len() as u64;
    if newest == 0 {
        return Ok(());
    }
    let ends: BTreeSet<u64> = store
        .objects()
        .filter(|(it, _)| it.level > Level::CAPTURES)
        .map(|(it, _)| it.range.max().get())
        .collect();
    let reached = reached(store, newest);
    let ends: Vec<u64> = ends.into_iter().filter(|end| reached.contains(end)).collect();
    let mut present = Vec::new();
    let boundaries = if ends.is_empty() { 0 } else { SAMPLES };
    for sample in 0..=SAMPLES + boundaries {
        let (target, txid) = match sample {
            0 => (RestoreTarget::Latest, newest),
            n => {
                let txid = match n {
                    // Where files of higher levels end.
                    n if n > SAMPLES => *dice.pick("restore", "boundary", n, &ends),
                    n => *dice.pick("restore", "txid", n, &reached),
                };
                let stamp = states[txid as usize - 1].1;
                match n {
                    // The last of those that were stamped at the same moment.
                    1 => {
                        let stamped = states.partition_point(|it| it.1 <= stamp) as u64;
                        let last = reached.iter().rfind(|txid| **txid <= stamped).expect("its own is");
                        (RestoreTarget::Time(stamp), *last)
                    }
                    _ => (RestoreTarget::At(Txid::new(txid).expect("from 1")), txid),
                }
            }
        };
        let output = Output::over(present, sample, dice);
        present = check_one(store, target, (txid, &states[txid as usize - 1].0), output, pending_byte, dice)?;
    }
    let ids = OpIds::new(ReplicaId(0), 2);
    let mut verifier = Verifier::new(VerifyConfig { pending_byte, ..VerifyConfig::default() }, ids);
    match drive(&mut verifier, store, &mut Output::default(), dice) {
        Some(Exit::Done) => Ok(()),
        exit => Err(Violation::new(ORACLE, format!("verifying ended with {exit:?}"))),
    }
}

/// Restores one state, which must be this one, to where this stands. What was restored.
fn check_one(
    store: &mut SimStore,
    target: RestoreTarget,
    (txid, expected): (u64, &Image),
    mut output: Output,
    pending_byte: u64,
    dice: Dice,
) -> Result<Vec<u8>, Violation> {
    let replace = !output.target.is_empty();
    let config = RestoreConfig { target, pending_byte, parallelism: 4, replace, ..RestoreConfig::default() };
    let fail = |text: String| Err(Violation::new(ORACLE, format!("{target:?}: {text}")));
    let mut restorer = Restorer::new(config, OpIds::new(ReplicaId(0), 1));
    match drive(&mut restorer, store, &mut output, dice) {
        Some(Exit::Done) if output.published => {}
        exit => return fail(format!("it ended with {exit:?}")),
    }
    let page_bytes = restorer.status().page_size.map_or(0, |size| size.bytes());
    let image = Image::of_bytes(page_bytes, &output.bytes, expected);
    if image != *expected {
        return fail(format!("{image:?} is not the state of transaction {txid}"));
    }
    Ok(output.bytes)
}

/// The transactions that the files lead to: all of them, unless some were deleted.
fn reached(store: &SimStore, newest: u64) -> Vec<u64> {
    let listed = store.objects().map(|(object, body)| Listed {
        object: *object,
        len: body.len() as u64,
        modified: None,
    });
    let inventory = Inventory::new(listed.collect());
    let leads_to = |txid: &u64| plan(&inventory, Target::At(Txid::new(*txid).expect("from 1"))).is_ok();
    (1..=newest).filter(leads_to).collect()
}

impl World {
    /// What is on the replica in the end is restored and verified.
    pub(super) fn check_restores(&mut self) -> Result<(), Violation> {
        self.store.check_kept()?;
        let states = self.states_that_stand()?;
        check(&mut self.store, &states, self.plan.config.pending_byte, self.dice)?;
        self.check_ends(&states)
    }

    /// Each file of a level that was made within the time of the retention, whether it is there still or
    /// not: where it ends can be restored.
    fn check_ends(&mut self, states: &[(Image, Wall)]) -> Result<(), Violation> {
        let Some(levels) = self.plan.levels.as_ref().filter(|levels| levels.every_end) else { return Ok(()) };
        for end in self.store.ends_within(levels.retain.map_or(u64::MAX >> 20, |retain| retain.snapshot_ms)) {
            let target = RestoreTarget::At(Txid::new(end).expect("from 1"));
            let expected = (end, &states[end as usize - 1].0);
            check_one(
                &mut self.store,
                target,
                expected,
                Output::default(),
                self.plan.config.pending_byte,
                self.dice,
            )?;
            self.summary.ends += 1;
        }
        Ok(())
    }

    /// The states that were restored as they appeared, with the stamps that stand on the replica now:
    /// where a store refuses nothing, another try with the same states may have come to stand there.
    fn states_that_stand(&self) -> Result<Vec<(Image, Wall)>, Violation> {
        let mut states = self.restored.states.clone();
        for (txid, (_, stamp)) in (1..).filter_map(Txid::new).zip(&mut states) {
            let body = self.store.ever(&capture(txid)).and_then(|body| body.first_chunk());
            if let Some(Ok(header)) = body.map(LtxHeader::decode) {
                *stamp = header.stamp;
            }
        }
        match states.windows(2).position(|pair| pair[0].1 > pair[1].1) {
            None => Ok(states),
            Some(at) => {
                let text = format!("transaction {} is stamped after its successor", at + 1);
                Err(Violation::new(ORACLE, text))
            }
        }
    }
}

/// Runs a machine to its end; `None` if it comes to none.
fn drive<M: Machine>(machine: &mut M, store: &mut SimStore, output: &mut Output, dice: Dice) -> Option<Exit> {
    let (mut held, mut event): (VecDeque<(OpId, Request)>, _) =
        (VecDeque::new(), Event::Start { entropy: dice.seed() });
    for n in 0..EVENTS_MAX {
        let mut out = Actions::new();
        machine.handle(Now::default(), event, &mut out);
        for action in out.drain() {
            match action {
                Action::Submit { op, request } => held.push_back((op, request)),
                Action::Cancel { op } => held.retain(|(held, _)| *held != op),
                Action::Notify(_) => {}
                Action::Stopped(exit) => return Some(exit),
            }
        }
        let at = dice.draw("restore", "next", n as u64) as usize % held.len().max(1);
        let (op, request) = held.remove(at)?;
        let outcome = match request {
            Request::Store(request) => Outcome::Store(store.perform(op, &request, Fate::Works)),
            Request::Compute(job) => Outcome::Compute(job.run()),
            Request::Output(request) => {
                let read = output.perform(request);
                Outcome::Output(Ok(read))
            }
            _ => return None,
        };
        event = Event::Completed { op, outcome };
    }
    None
}

#[cfg(test)]
mod tests {
    use driftless_core::ids::{PageNo, PageSize, TxidRange};
    use driftless_core::ltx::Encoder;
    use driftless_core::machine::{Object, PutCondition, StoreRequest};

    use super::*;

    const PENDING: u64 = 0x4000_0000;

    fn image(fills: &[u8]) -> Image {
        let bytes: Vec<u8> = fills.iter().flat_map(|fill| [*fill; 512]).collect();
        Image::of_bytes(512, &bytes, &Image::default())
    }

    /// A replica of three states, of which the last says that it leads to `claimed`.
    fn replica(claimed: &[u8]) -> SimStore {
        let mut store = SimStore::new(2, true);
        let states: [&[u8]; 4] = [&[], &[1, 2], &[1, 3], &[4, 3]];
        for (txid, page) in [(1, 0), (2, 2), (3, 1)] {
            let post = if txid == 3 { image(claimed) } else { image(states[txid]) };
            let range = TxidRange::single(Txid::new(txid as u64).unwrap());
            let mut header =
                LtxHeader::new(PageSize::new(512).unwrap(), 2, range, Wall((txid as i64 - 1) / 2));
            header.lineage = driftless_core::ids::Lineage::new(7);
            header.chain.pre = (txid > 1).then(|| image(states[txid - 1]).checksum(PENDING));
            header.chain.post = Some(post.checksum(PENDING));
            let mut bytes = Vec::new();
            let mut encoder = Encoder::new(&header, &mut bytes);
            for no in (1..=2).filter(|no| page == 0 || *no == page) {
                encoder.page(PageNo::new(no).unwrap(), &[states[txid][no as usize - 1]; 512], &mut bytes);
            }
            encoder.finish(0, &mut bytes);
            let open = OpId { replica: ReplicaId(0), run: 9, seq: txid as u64 };
            let object = Object { level: Level::CAPTURES, range };
            let put = [
                StoreRequest::PutOpen { object, condition: PutCondition::IfAbsent },
                StoreRequest::PutPart { put: open, bytes: Chunk::from(bytes) },
                StoreRequest::PutCommit { put: open },
            ];
            put.iter().for_each(|request| drop(store.perform(open, request, Fate::Works).unwrap()));
        }
        store
    }

    fn states(last: &[u8]) -> Vec<(Image, Wall)> {
        let states: [&[u8]; 3] = [&[1, 2], &[1, 3], last];
        (0..).zip(states).map(|(n, fills)| (image(fills), Wall(n / 2))).collect()
    }

    #[test]
    fn a_sound_replica_is_restored() {
        assert_eq!(check(&mut replica(&[4, 3]), &states(&[4, 3]), PENDING, Dice::new(1)), Ok(()));
        assert_eq!(check(&mut SimStore::new(2, true), &[], PENDING, Dice::new(1)), Ok(()));
    }

    #[test]
    fn another_state_and_a_refusal_are_found() {
        let other = check(&mut replica(&[4, 3]), &states(&[4, 4]), PENDING, Dice::new(1)).unwrap_err();
        assert!(other.text.contains("is not the state of transaction 3"), "{other}");
        let broken = check(&mut replica(&[4, 5]), &states(&[4, 3]), PENDING, Dice::new(1)).unwrap_err();
        assert!(broken.text.contains("it ended with"), "{broken}");
    }
}
