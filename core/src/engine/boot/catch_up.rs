//! Reading the segments that an earlier run of ours wrote past the point, one by one, and what
//! follows when they do not lead where they must.

use alloc::boxed::Box;
use alloc::format;

use super::Find;
use crate::engine::Replicator;
use crate::engine::ghost::{Ghost, GhostStep, step_of};
use crate::engine::history::Step;
use crate::engine::standing::plan_incarnation;
use crate::ids::{Level, Txid, TxidRange};
use crate::machine::{Actions, Fact, Object, Severity};

impl Replicator {
    /// Reads the segments of our own earlier run past the point, one by one.
    pub(super) fn boot_catch_up(&mut self) {
        let next = self.history.point.as_ref().expect("only past a point").txid.next();
        self.boot_fetch_ghost(next);
    }

    pub(super) fn boot_fetch_ghost(&mut self, txid: Txid) {
        let object = Object { level: Level::CAPTURES, range: TxidRange::single(txid) };
        let pending_byte = self.config.pending_byte;
        let finding = self.finding();
        finding.ghost = Some(Box::new(Ghost::new(object, pending_byte)));
        finding.step = Find::Ghost(txid);
    }

    pub(super) fn boot_ghost(&mut self, txid: Txid, bytes: &[u8], object_len: u64, out: &mut Actions) {
        let ghost = self.finding().ghost.as_mut().expect("set with the step");
        match ghost.push(bytes, object_len) {
            GhostStep::More => {}
            GhostStep::Corrupt(error) => {
                let why = format!("segment {txid} of an earlier run is damaged: {error}");
                self.boot_give_up_table(&why);
            }
            GhostStep::Whole(header, sums) => {
                let step = step_of(&header, sums, self.config.pending_byte);
                let ours = header.lineage == self.history.lineage
                    && header.chain.incarnation <= self.history.incarnation
                    && step.as_ref().is_some_and(|step| self.follows(step));
                match step.filter(|_| ours) {
                    Some(step) => self.boot_adopt(txid, &step, out),
                    // A journal that does not lead there says no more than one that is lost.
                    None => self.boot_give_up_journal(txid),
                }
            }
        }
    }

    /// Whether the page table is that of the point, after a step that another run computed.
    pub(in crate::engine) fn table_holds(&self) -> bool {
        let checksum = self.history.table.as_ref().map(|table| table.checksum());
        checksum.is_some() && checksum == self.history.point.as_ref().map(|point| point.post)
    }

    /// Whether a step begins where our point stands.
    pub(in crate::engine) fn follows(&self, step: &Step) -> bool {
        let stands = self.history.point.as_ref().map(|point| point.post);
        stands.is_some() && step.pre == stands
    }

    pub(super) fn boot_adopt(&mut self, txid: Txid, step: &Step, out: &mut Actions) {
        let head = self.history.head;
        self.history.advance(step);
        out.notify(Severity::Info, Fact::Adopted { txid });
        if !self.table_holds() {
            let why = format!("the local page table does not lead to the state of segment {txid}");
            return self.boot_give_up_table(&why);
        }
        if head > Some(txid) {
            self.history.head = head;
            return self.boot_fetch_ghost(txid.next());
        }
        self.boot_own();
    }

    /// The history is ours: draw the next incarnation and write it down.
    pub(super) fn boot_own(&mut self) {
        let lineage = self.history.lineage.expect("a history that is ours has a lineage");
        let head = self.head.clone();
        self.history.incarnation = plan_incarnation(&self.history, head.as_ref(), lineage, self.config.epoch);
        self.finding().ghost = None;
        self.finding().step = Find::Identity;
        // The intents on disk do not tell of what was taken over.
        self.journal.bytes = u64::MAX / 4;
    }

    /// Nothing local counts: the source must be shown to be in the head's state, unless a person
    /// said that it owns the replica.
    pub(super) fn boot_give_up_journal(&mut self, txid: Txid) {
        self.history.table = None;
        self.history.point = None;
        self.stand_at_head();
        let adopt = self.config.adopt;
        self.want_base(format!("the local journal does not lead to segment {txid}"), adopt, !adopt, !adopt);
        self.boot_own();
    }

    pub(super) fn boot_give_up_table(&mut self, why: &str) {
        self.stand_at_head();
        let prove = self.head_has_post();
        self.want_base(why.into(), true, prove, false);
        self.boot_own();
    }
}
