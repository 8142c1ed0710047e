//! What must hold.

use driftless_core::ids::{Level, Txid, TxidRange};
use driftless_core::lease::{LeaseEvent, request_deadline};
use driftless_core::ltx::LtxHeader;
use driftless_core::machine::{
    CopyRequest, Event, Fact, Machine as _, Object, OpId, OutputRequest, StoreError, StoreReply, StoreRequest,
};

use super::PLACE;
use super::node::{PENDING, Who};
use super::world::{BEYOND, World};
use crate::ring0::Violation;
use crate::ring0::image::Image;
use crate::ring0::store::Fate;
use crate::trace::Kind;

impl World {
    /// Applies what has come to the replica.
    pub(super) fn restore_all(&mut self) -> Result<(), Violation> {
        loop {
            let object = Object { level: Level::CAPTURES, range: TxidRange::single(self.restored.next()) };
            let Some(body) = self.store.get(&object).cloned() else { return Ok(()) };
            let truths: Vec<_> = self.nodes.iter().map(|node| &node.truth).collect();
            self.restored.apply(&body, &truths, PENDING)?;
            let epoch = epoch_of(&body);
            if self.epoch.replace(epoch) != Some(epoch) {
                self.fences.extend(self.restored.txid);
            }
            self.known.insert(self.restored.image.mark_as_copied());
            self.trace.note(
                self.now,
                "store",
                Kind::Put,
                format_args!("{object}: {:?}", self.restored.image),
            );
        }
    }

    /// Carries out a request to the store. A name that has been part of the history is not given to something else,
    /// though it was deleted.
    pub(super) fn perform(
        &mut self,
        op: OpId,
        request: &StoreRequest,
        fate: Fate,
    ) -> Result<Result<StoreReply, StoreError>, Violation> {
        let object = match request {
            StoreRequest::PutCommit { put } => self.store.object_of(put),
            _ => None,
        };
        let free = object.filter(|object| self.store.get(object).is_none());
        let before = free.and_then(|object| self.store.ever(&object).cloned());
        let result = self.store.perform(op, request, fate);
        // A put of the same epoch may land when its name has been gone for long, and says what was true.
        if let (Some(before), Some(object)) = (before, free)
            && self.store.get(&object).is_some_and(|body| epoch_of(body) != epoch_of(&before))
        {
            return Err(Violation::new(
                "fence",
                format!("{object} was deleted, and is of another epoch now"),
            ));
        }
        if let Some((gone, _, _)) = self.store.take_deleted() {
            self.summary.deleted += u64::from(gone.level == Level::CAPTURES);
        }
        Ok(result)
    }

    /// The first segment of each epoch is there.
    fn check_fences(&self) -> Result<(), Violation> {
        for txid in &self.fences {
            let object = Object { level: Level::CAPTURES, range: TxidRange::single(*txid) };
            if self.store.get(&object).is_none() {
                return Err(Violation::new(
                    "fence",
                    format!("{object} is the first of an epoch, and is gone"),
                ));
            }
        }
        Ok(())
    }

    pub(super) fn says(&mut self, host: usize, who: Who, fact: &Fact) -> Result<(), Violation> {
        match (who, fact) {
            (Who::Replicator, Fact::Replicated { txid, .. }) => {
                self.restore_all()?;
                self.summary.acknowledged += 1;
                let owners = self.restored.owners.get(txid).copied().unwrap_or(0);
                if owners & 1 << host == 0 {
                    let text = format!("{txid} is no state of host {host}, which says that it is replicated");
                    return Err(Violation::new("acknowledged", text));
                }
                self.handle(host, Who::Lease, Event::Lease(LeaseEvent::Put(PLACE)))
            }
            _ => Ok(()),
        }
    }

    /// The state that the replica ends with.
    pub(super) fn replica_end(&self) -> Option<Image> {
        self.restored.txid.map(|_| self.restored.image.clone())
    }

    /// What is not on the replica is not written over before it was kept.
    pub(super) fn check_tail(&self, host: usize) -> Result<(), Violation> {
        let node = &self.nodes[host];
        let Some(image) = node.image() else { return Ok(()) };
        if image.pages() == 0 || self.known.contains(&image.mark_as_copied()) || node.asides.contains(&image)
        {
            return Ok(());
        }
        let text = format!("host {host} writes over {image:?}, which is neither on the replica nor kept");
        Err(Violation::new("tail", text))
    }

    pub(super) fn check_copy(&self, host: usize, request: &CopyRequest) -> Result<(), Violation> {
        match request {
            CopyRequest::Begin => self.check_tail(host),
            _ => Ok(()),
        }
    }

    pub(super) fn check_output(&self, host: usize, request: &OutputRequest) -> Result<(), Violation> {
        match request {
            OutputRequest::Publish { .. } => self.check_tail(host),
            _ => Ok(()),
        }
    }

    /// Everything is fenced: behind another, what stands here is what the replica ends with.
    pub(super) fn check_successor(&mut self, host: usize) -> Result<(), Violation> {
        self.restore_all()?;
        let node = &self.nodes[host];
        let wrong = |text: String| Err(Violation::new("succession", text));
        let end = &self.restored.image;
        if node.unfenced {
            return match node.image() {
                Some(image) if image == *end => Ok(()),
                image => {
                    wrong(format!("host {host} goes on from {image:?}, and the replica ends with {end:?}"))
                }
            };
        }
        // What another has put since meets this host at its own first put: nothing of that was acknowledged.
        match &node.begun_behind {
            Some(end) if node.truth.find(end, 0).is_none() => {
                return wrong(format!("host {host} goes on behind {end:?}, which is none of its states"));
            }
            Some(_) if node.image().is_none() => return wrong(format!("host {host} has no database")),
            _ => {}
        }
        Ok(())
    }

    /// Whoever follows nothing goes on where its host left off, or there was nothing when it took the lease.
    pub(super) fn check_begun(&self, host: usize, fences: bool) -> Result<(), Violation> {
        let node = &self.nodes[host];
        let continues = node.view.as_ref().is_some_and(|view| view.continues);
        if fences || continues || node.claimed_behind != Some(true) {
            return Ok(());
        }
        let text = format!("host {host} begins a history, and there was one when it took the lease");
        Err(Violation::new("succession", text))
    }

    /// A writer is only fenced by another, or by a copy of its machine.
    pub(super) fn check_fenced(&self, host: usize) -> Result<(), Violation> {
        let node = &self.nodes[host];
        let status = node.lease.as_ref().map(|it| it.machine.status());
        let holds = status.is_some_and(|status| status.until.is_some());
        let others =
            self.restored.txid.is_some_and(|end| self.restored.owners.get(&end) != Some(&(1 << host)));
        if holds && !others && !node.forgot && self.cell.epoch() == node.epoch() {
            let text = format!("host {host} holds the lease, and is fenced by what it wrote itself");
            return Err(Violation::new("succession", text));
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<(), Violation> {
        self.restore_all()?;
        self.check_fences()?;
        let liveness = |text: String| Err(Violation::new("liveness", text));
        let waits = 2 * (self.ttl + request_deadline(self.ttl));
        let bound = self.troubled + waits.as_nanos() as u64 + BEYOND;
        match self.writes_since_heal {
            Some(at) if at <= bound => {}
            at => return liveness(format!("nobody wrote until {at:?}, {bound} is the bound")),
        }
        let Some(host) = self.nodes.iter().position(|node| node.active) else {
            return liveness("in the end nobody is the primary".into());
        };
        let image = self.nodes[host].image().unwrap_or_default();
        if image != self.restored.image {
            let end = &self.restored.image;
            return liveness(format!("host {host} has {image:?}, and the replica ends with {end:?}"));
        }
        self.summary.segments = self.restored.txid.map_or(0, Txid::get);
        self.summary.hash = self.trace.hash();
        Ok(())
    }
}

/// The epoch under which a segment was written.
fn epoch_of(body: &[u8]) -> u32 {
    let header = body.first_chunk().and_then(|bytes| LtxHeader::decode(bytes).ok());
    header.map_or(0, |header| header.chain.incarnation.epoch())
}
