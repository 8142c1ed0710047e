//! The first segments of epochs, which stay for long.
//!
//! Who held the lease and wakes late puts its next segment where its successor's first one stands, or where the
//! last of whoever came between does. While these stand, the name is taken.

use alloc::collections::BTreeMap;
use core::time::Duration;

use super::machine::{Key, Retainer, Step};
use super::{Removal, RetainPass};
use crate::engine::decode_header;
use crate::ids::{Level, Now, Txid, TxidRange, Wall};
use crate::ltx::LTX_HEADER_BYTES;
use crate::machine::{Actions, ByteRange, Listed, Object, StoreRequest};
use crate::mutant::{self, Mutant};

/// Under which epoch single transactions of level 0 were written, as far as it is known. Those without one count
/// as of epoch 0, and as no fence.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Epochs {
    known: BTreeMap<Txid, u32>,
    /// Whether the replicator beside it has put anything.
    has_put: bool,
}

impl Epochs {
    fn is_known(&self, txid: Txid) -> bool {
        self.known.contains_key(&txid)
    }

    /// Whether it is the first of its epoch; it is taken for that where nobody knows what comes before.
    fn is_first(&self, txid: Txid) -> bool {
        let of = |txid: Txid| self.known.get(&txid);
        let before = txid.get().checked_sub(1).and_then(Txid::new);
        of(txid).is_some_and(|epoch| *epoch > 0 && before.and_then(of) != Some(epoch))
    }

    /// Whether a writer that wakes late may be about to put to this name.
    fn is_fence(&self, txid: Txid) -> bool {
        !mutant::on(Mutant::FenceForgotten) && (self.is_first(txid) || self.is_first(txid.next()))
    }

    /// Forgets what is not listed any more, but for what tells whether the next is a first.
    fn forget_but(&mut self, files: &[Listed]) {
        let listed = |txid: Txid| files.binary_search_by_key(&captured(txid), |file| file.object).is_ok();
        self.known.retain(|txid, _| listed(*txid) || listed(txid.next()));
    }
}

fn captured(txid: Txid) -> Object {
    Object { level: Level::CAPTURES, range: TxidRange::single(txid) }
}

impl Retainer {
    /// The replicator says that this one is on the replica. It is of the lease's epoch, but for the first: that may
    /// have been put by the machine of which this one is a copy.
    pub(crate) fn stored(&mut self, txid: Txid) {
        let has_put = core::mem::replace(&mut self.epochs.has_put, true);
        if let Some(epoch) = self.config.epoch.filter(|_| has_put) {
            self.epochs.known.insert(txid, u32::try_from(epoch).unwrap_or(u32::MAX));
        }
    }

    /// Whether first segments of epochs are looked for.
    fn keeps_fences(&self) -> bool {
        self.config.epoch.is_some() || self.pass != RetainPass::Following
    }

    /// A file whose epoch has to be known before this one may go.
    pub(super) fn unknown_epoch(&self, removal: &Removal) -> Option<Object> {
        let object = removal.file.object;
        if object.level != Level::CAPTURES || !self.keeps_fences() {
            return None;
        }
        let next = captured(object.range.max().next());
        let of_next = self.files.iter().any(|file| file.object == next).then_some(next);
        let both = [Some(captured(object.range.max())), of_next];
        both.into_iter().flatten().find(|it| !self.epochs.is_known(it.range.max()))
    }

    /// Whether it stays, although another file holds what it does.
    pub(super) fn is_kept(&self, removal: &Removal, today: Wall) -> bool {
        let Listed { object, modified, .. } = removal.file;
        let keeps = object.level == Level::CAPTURES && self.keeps_fences();
        let age = modified.map(|at| today.0.saturating_sub(at.0)).and_then(|ms| u64::try_from(ms).ok());
        let is_young = age.is_none_or(|ms| Duration::from_millis(ms) < self.config.fence_retention);
        keeps && is_young && self.epochs.is_fence(object.range.max())
    }

    /// The first of the removals stays. Under a lease others go all the same. A pass that knows of no lease leaves
    /// what follows on level 0 as well: writers without one go by what lies [`TENURE_BACK`](super::TENURE_BACK) before their puts, and
    /// while that is there nothing newer may have been deleted.
    pub(super) fn passes_over(&mut self) {
        self.plan.removals.remove(0);
        if self.config.epoch.is_none() {
            self.plan.removals.retain(|it| it.file.object.level != Level::CAPTURES);
        }
    }

    pub(super) fn look_at_epoch(&mut self, now: Now, object: Object, out: &mut Actions) {
        self.step = Step::Epoch { of: object.range.max() };
        let range = ByteRange::At { offset: 0, len: LTX_HEADER_BYTES as u64 };
        self.flight.send(now, Key::Epoch, StoreRequest::Get { object, range }, out);
    }

    /// The header of a file of level 0; none where there is none to be read.
    pub(super) fn told_epoch(&mut self, now: Now, bytes: &[u8], out: &mut Actions) {
        let Step::Epoch { of } = self.step else { return };
        // What is damaged keeps nobody out that reads it back.
        let epoch = decode_header(bytes).map_or(0, |header| header.chain.incarnation.epoch());
        self.epochs.known.insert(of, epoch);
        let today = self.today(now).unwrap_or(now.wall);
        self.go_on(now, today, out);
    }

    /// What a pass has learnt is of use to the next, as far as it is of files that are still there.
    pub(super) fn forget_epochs(&mut self) {
        if !self.files.is_empty() {
            self.files.sort_by_key(|file| file.object);
            self.epochs.forget_but(&self.files);
        }
    }
}
