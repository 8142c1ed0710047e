//! What is done: operations of two applications and requests of a replicator.

use driftless_core::machine::{Slot, SourceRequest};
use driftless_sim::ring0::app::Work;
use driftless_sim::ring0::dice::Dice;
use driftless_sim::vfs::{VfsFault, VfsOp};

/// A fault at the next operation of a kind on a file whose path ends so.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub op: VfsOp,
    pub suffix: &'static str,
    pub kind: VfsFault,
}

/// One of two applications.
pub type Who = usize;

/// One step.
#[derive(Clone, Debug)]
pub enum Step {
    Open(Who),
    Close(Who, Option<Fault>),
    Kill(Who),
    Begin(Who, Work),
    Commit(Who, Option<Fault>),
    Rollback(Who),
    Write(Who, Work, Option<Fault>),
    Vacuum(Who),
    Checkpoint(Who, &'static str, Option<Fault>),
    Autocheckpoint(Who, u32),
    Snapshot(Who),
    SnapshotEnd(Who),
    LeaveWal(Who),
    EnterWal(Who),
    PageSize(Who, u32),
    Copy(Who),
    Delete,
    PowerLoss(bool),
    KillLink,
    Link(SourceRequest, Option<Fault>),
}

/// A script.
pub struct Script {
    pub steps: Vec<Step>,
}

impl Script {
    /// The script of a seed.
    pub fn of_seed(dice: &Dice) -> Script {
        let count = dice.range("script", "steps", 0, 20, 90);
        let faulty = dice.chance("script", "faulty", 0, 2, 3);
        let second = dice.chance("script", "second", 0, 1, 2);
        let mut steps = vec![Step::Open(0)];
        steps.extend((0..count).map(|n| step(dice, n, faulty, second)));
        Script { steps }
    }
}

fn fault(dice: &Dice, n: u64, faulty: bool) -> Option<Fault> {
    if !faulty || !dice.chance("fault", "hits", n, 1, 3) {
        return None;
    }
    let places = [
        (VfsOp::Sync, "-wal"),
        (VfsOp::Sync, "-wal"),
        (VfsOp::Sync, ".db"),
        (VfsOp::Write, "-wal"),
        (VfsOp::Write, ".db"),
        (VfsOp::Truncate, "-wal"),
        (VfsOp::Truncate, ".db"),
        (VfsOp::Delete, "-wal"),
        (VfsOp::Lock, ".db"),
        (VfsOp::ShmLock, ".db"),
    ];
    let (op, suffix) = *dice.pick("fault", "place", n, &places);
    let kind = match op {
        VfsOp::Lock | VfsOp::ShmLock => *dice.pick("fault", "lock", n, &[VfsFault::Io, VfsFault::Die]),
        _ => *dice.pick("fault", "kind", n, &[VfsFault::Io, VfsFault::Die]),
    };
    Some(Fault { op, suffix, kind })
}

fn work(dice: &Dice, n: u64) -> Work {
    match dice.draw("work", "", n) % 8 {
        0..=3 => Work::Insert { rows: dice.range("work", "rows", n, 1, 6) as u32, bytes: 300 },
        4 => Work::Insert { rows: 300, bytes: 400 },
        5 => Work::Update { of: dice.range("work", "of", n, 1, 9) as u32 },
        6 => Work::Delete { of: dice.range("work", "of", n, 2, 9) as u32 },
        _ => Work::Nothing,
    }
}

/// The work of a transaction that is left open: too little to be spilled, or so much that it is.
fn open_work(dice: &Dice, n: u64) -> Work {
    match dice.draw("open work", "", n) % 4 {
        0 => Work::Nothing,
        1 => Work::Insert { rows: 300, bytes: 400 },
        _ => Work::Insert { rows: 2, bytes: 300 },
    }
}

fn link(dice: &Dice, n: u64) -> SourceRequest {
    let slot = *dice.pick("link", "slot", n, &[Slot::A, Slot::B]);
    match dice.draw("link", "kind", n) % 18 {
        0..=3 => SourceRequest::Open,
        4 => SourceRequest::Close { leave_wal: dice.chance("link", "leave", n, 1, 2) },
        5..=7 => SourceRequest::BeginRead(slot),
        8 | 9 => SourceRequest::EndRead(slot),
        10 | 11 => SourceRequest::BeginImmediate(slot),
        12 => SourceRequest::Rollback(slot),
        13 | 14 => SourceRequest::CheckpointPassive(slot),
        15 => SourceRequest::CheckpointTruncate(slot),
        16 => SourceRequest::HasMoved,
        _ => SourceRequest::Look,
    }
}

fn step(dice: &Dice, n: u64, faulty: bool, second: bool) -> Step {
    let who = usize::from(second && dice.chance("step", "who", n, 1, 3));
    let fault = fault(dice, n, faulty);
    let mode = *dice.pick("step", "mode", n, &["PASSIVE", "FULL", "RESTART", "TRUNCATE"]);
    match dice.draw("step", "kind", n) % 60 {
        0..=3 => Step::Open(who),
        4 => Step::Close(who, fault),
        5 => Step::Kill(who),
        6..=8 => Step::Begin(who, open_work(dice, n)),
        9..=11 => Step::Commit(who, fault),
        12 => Step::Rollback(who),
        13..=22 => Step::Write(who, work(dice, n), fault),
        23 => Step::Vacuum(who),
        24..=29 => Step::Checkpoint(who, mode, fault),
        30 => Step::Autocheckpoint(who, *dice.pick("step", "auto", n, &[0, 1, 100_000])),
        31..=33 => Step::Snapshot(who),
        34 | 35 => Step::SnapshotEnd(who),
        36 => Step::LeaveWal(who),
        37 | 38 => Step::EnterWal(who),
        39 => Step::PageSize(who, *dice.pick("step", "size", n, &[512, 1_024, 4_096])),
        40 => Step::Copy(who),
        41 => Step::Delete,
        42 if faulty => Step::PowerLoss(dice.chance("step", "survives", n, 1, 2)),
        43 => Step::KillLink,
        _ => Step::Link(link(dice, n), fault),
    }
}
