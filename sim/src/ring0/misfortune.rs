//! Faults of the replicator's own SQLite.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::dice::Dice;
use super::sites::Sites;
use crate::vfs::{VfsFault, VfsOp};

/// What befalls the replicator's SQLite: operations fail by dice while a step is set.
#[derive(Clone, Debug)]
pub struct Misfortune {
    dice: Dice,
    per_myriad: u64,
    sites: Sites,
    step: Arc<AtomicU64>,
    count: Arc<AtomicU64>,
}

impl Misfortune {
    /// Strikes so many of ten thousand operations.
    pub fn new(dice: Dice, per_myriad: u64, sites: Sites) -> Misfortune {
        Misfortune { dice, per_myriad, sites, step: Arc::default(), count: Arc::default() }
    }

    /// What is done now has this number; none strikes at 0.
    pub fn set(&self, step: u64) {
        self.step.store(step, Ordering::SeqCst);
        self.count.store(0, Ordering::SeqCst);
    }

    /// What becomes of this operation.
    pub fn strikes(&self, op: VfsOp) -> Option<VfsFault> {
        let step = self.step.load(Ordering::SeqCst);
        let n = step << 12 | self.count.fetch_add(1, Ordering::SeqCst) & 0xfff;
        if step == 0 {
            return None;
        }
        let fits = |fault: &VfsFault| match fault {
            VfsFault::Busy => matches!(op, VfsOp::Lock | VfsOp::ShmLock),
            VfsFault::Full => op == VfsOp::Write,
            _ => true,
        };
        let drawn = self.dice.chance("vfs", "strikes", n, self.per_myriad, 10_000);
        let drawn = drawn.then(|| *self.dice.pick("vfs", "kind", n, &KINDS)).filter(fits);
        let fault = self.sites.settle(op.name(), drawn.map(VfsFault::name), &KINDS.map(VfsFault::name))?;
        KINDS.into_iter().find(|kind| kind.name() == fault)
    }
}

/// What becomes of an operation of SQLite that is struck, by weight.
const KINDS: [VfsFault; 5] = [VfsFault::Io, VfsFault::Io, VfsFault::Busy, VfsFault::Full, VfsFault::Die];
